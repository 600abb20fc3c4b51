//! Client histories and a linearizability checker.
//!
//! Clients note what they did and saw; [`check`] says whether one copy of the data, doing one thing at a time, could
//! have answered like that. The answer is one of three: yes, no with the operations that contradict each other, or
//! unknown because a [`Budget`] ran out, which is never to be taken for a yes.
//!
//! The crate is a function of the history it is given: it performs no I/O but on the reader or writer passed in, reads
//! no clock, draws no random number, and gives the same answer in the same number of steps every time. It knows no
//! protocol and no runtime.
//!
//! # Example
//!
//! ```
//! use synod_checker::{check, CheckOptions, ClientId, KeyId, Nanos, Numbered, Recorder, ValueId, Verdict};
//!
//! // Two clients of a store with a bug: the second reads what the first has already replaced.
//! let (x, a, b) = (KeyId(0), ValueId(1), ValueId(2));
//! let mut alice = Recorder::new(ClientId(0));
//! let mut bob = Recorder::new(ClientId(1));
//!
//! let put = alice.put(x, a, Nanos(0));
//! alice.put_ok(put, Nanos(10));
//! let put = alice.put(x, b, Nanos(20));
//! alice.put_ok(put, Nanos(30));
//! let get = bob.get(x, Nanos(40));
//! bob.get_ok(get, Some(a), Nanos(50));
//!
//! let history = Recorder::join([alice, bob])?;
//! match check(&history, &CheckOptions::default()).verdict {
//!     Verdict::NotLinearizable(violation) => assert_eq!(
//!         violation.explain(&Numbered).to_string(),
//!         r#"key "k0": "v1" would have to be written before "v2", and "v2" before "v1"
//!   (1) [0, 10] client 0 seq 0: put "v1" ok
//!   (2) [20, 30] client 0 seq 1: put "v2" ok
//!   (3) [40, 50] client 1 seq 0: get -> "v1" ok
//!   (1) returned at 10 and (2) was called at 20: "v1" precedes "v2"
//!   (2) returned at 30 and (3) was called at 40: "v2" precedes "v1""#
//!     ),
//!     other => panic!("a stale read passed: {other:?}"),
//! }
//! # Ok::<(), synod_checker::HistoryError>(())
//! ```
//!
//! # What the caller does
//!
//! - Gives each client its own [`Recorder`]: `put` or `get` before the request leaves, `put_ok`, `get_ok`, `failed` or
//!   `unknown` after the answer is there; then [`Recorder::join`]. Or builds [`Operation`]s and a [`History`], or reads a
//!   file with [`read_history`]; [`HistoryWriter`] writes one.
//! - Writes every value once. Keys and values are numbers here ([`KeyId`], [`ValueId`]); [`Names`] turn them into the
//!   strings of a file or an explanation, and an [`Interner`] numbers strings.
//! - Says [`End::Failed`] only of what surely had and will have no effect. Everything else that got no answer is
//!   [`End::Unknown`], and stays open for ever.
//! - Calls [`check`]. Anything but [`Verdict::Linearizable`] is a failure of the run.
//! - Now and then calls [`flip_one_read`] on a copy and expects a no.
//!
//! Objects that are no register go to [`search::search`] with their [`model::Model`]; what was applied rather than
//! answered goes to the oracles of [`oracle`].
//!
//! # The file format
//!
//! JSON lines, one object per operation, in any order:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `client` | 32-bit number | a caller that waits for each answer |
//! | `seq` | number | of the operation at its client |
//! | `op` | `"put"` or `"get"` | |
//! | `key` | string | absent at first |
//! | `value` | string or `null` | written (unique in the file) or returned; `null` if the key was absent, or the get is not `ok` |
//! | `call_ns` | number | when the client called, on a clock that all clients share |
//! | `return_ns` | number or `null` | when the answer came; may be `null` only if `unknown` |
//! | `outcome` | `"ok"`, `"failed"` or `"unknown"` | took effect; surely had no effect; may take effect at any time after the call, or never |
//!
//! Every field must be there. [`LineError`] lists what is refused.
//!
//! # Invariants
//!
//! | what holds | where it is checked |
//! |---|---|
//! | zones, search and definition agree | `tests/exhaustive.rs`: every history of up to 4 operations (up to 3 puts; ok, failed, unknown), of 5 with 2 puts, of 3 with equal times, of 4 with repeated values |
//! | a real execution is accepted, whatever its interleaving | `tests/properties.rs` |
//! | the operations blamed are not linearizable by themselves | `tests/exhaustive.rs`, `tests/properties.rs` |
//! | a linearization that the search returns is one | `tests/exhaustive.rs`, `tests/properties.rs` |
//! | an exhausted budget is unknown | `tests/claims.rs` |
//! | a flipped read is refused | `tests/claims.rs`, `tests/cli.rs` |
//! | a file is read as it was written, and a bad one is refused by line | `tests/properties.rs`, `tests/format.rs` |
//!
//! # Where it departs from the papers
//!
//! - The history is partitioned by key (Horn and Kroening, *Faster Linearizability Checking via P-Compositionality*,
//!   FORTE 2015), and a key whose written values are unique is decided by zones in `n log n` (Gibbons and Korach,
//!   *Testing Shared Memories*, SIAM J. Comput. 26(4), 1997) rather than searched. Zones are told here by strict
//!   comparison of a return with a call, so equal times need no rule of their own; the absent key is a cluster written
//!   before all time; an unread put of unknown outcome is left out.
//! - The search is that of Wing and Gong (*Testing and Verifying Concurrent Objects*, J. Parallel Distrib. Comput. 17,
//!   1993) with Lowe's memoisation (*Testing for Linearizability*, Concurrency Computat. 29(4), 2017). Visited sets are
//!   compared in full, not by hash; three exact reductions stand in the front of [`search`].
//!
//! # Limits
//!
//! 4 billion operations; 48 bytes for each. Linearizability in general is NP-complete, so the search has a budget;
//! zones need one step an operation. One key is one object: no transactions over several keys, and no consistency
//! weaker than linearizability.
//!
//! # Features
//!
//! - `cli` (default): the `check-history` binary. Without it the crate does not depend on clap.

pub mod model;
pub mod oracle;
pub mod search;

mod check;
mod flip;
mod format;
mod hash;
mod history;
mod names;
mod recorder;
mod zones;

pub use check::{Algorithm, CheckOptions, Reason, Report, Verdict, Violation, check};
pub use flip::{Flip, FlipKind, flip_one_read};
pub use format::{HistoryWriter, LineError, NamedHistory, ReadError, ReadOptions, read_history};
pub use history::{
    Action, ClientId, End, History, HistoryError, KeyId, Nanos, Operation, Outcome, Overlap, Sequence, Tally,
    ValueId,
};
pub use names::{Interner, Names, Numbered};
pub use recorder::{Recorder, Ticket};
pub use search::{Budget, Exhausted};
