//! Client histories and a linearizability checker.

mod check;
mod flip;
mod format;
mod hash;
mod history;
pub mod model;
mod names;
pub mod oracle;
mod recorder;
pub mod search;
mod zones;

pub use check::{Algorithm, CheckOptions, Reason, Report, Verdict, Violation, check};
pub use flip::{Flip, FlipKind, flip_one_read};
pub use format::{HistoryWriter, LineError, NamedHistory, ReadError, ReadOptions, read_history};
pub use history::{
    Action, ClientId, End, History, HistoryError, KeyId, Nanos, Operation, Outcome, Overlap, Sequence, Tally, ValueId,
};
pub use names::{Interner, Names, Numbered};
pub use recorder::{Recorder, Ticket};
pub use search::{Budget, Exhausted};
