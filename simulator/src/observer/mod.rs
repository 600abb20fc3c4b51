//! The global observer: sees every step of every node, and checks the invariants after each.
//!
//! An observer knows what no node can know: what every disk holds, whose vote is durable, what was ever
//! decided. It works that out from what nodes *write*, never from what they claim.
//!
//! | file | invariant |
//! |---|---|
//! | [`terms::election_safety`] | RI1 at most one leader a term |
//! | [`terms::append_only`] | RI2 a leader never overwrites or deletes |
//! | [`terms::log_matching`] | RI3 equal index and stamp, equal logs up to there |
//! | [`terms::leader_completeness`] | RI4 a leader has everything decided in earlier terms |
//! | [`agreement`] | RI5 one decision per index, applied by all alike |
//! | [`terms::votes`] | RI6 terms never go back, one vote a term, across restarts |
//! | [`terms::quorum_commit`] | RI7 decided only what a quorum holds durably |
//! | [`ballots::rules`] | M1 at most one value is chosen in a slot |
//! | [`ballots::rules`] | M2 once a value is chosen, every higher ballot proposes it |
//! | [`ballots::rules`] | M3 no vote in a lower ballot than was promised, across restarts |
//! | [`ballots::rules`] | M4 one value for each ballot and slot, from the ballot's own proposer |
//! | [`ballots::rules`] | M5 only what is chosen is learned, without holes |
//! | [`ballots::rules`] | PX5 one life of one node uses a ballot, after an election quorum has promised it |
//! | [`ballots::rules`] | P1b a promise tells every vote that was cast before it |
//! | [`ballots::fast`] | F-a an acceptor votes once in a slot's round, across restarts |
//! | [`ballots::fast`] | F-b a fast round is decided by a fast quorum alone |
//! | [`ballots::fast`] | F-c whatever election quorum answers, its coordinator is bound to what was chosen |
//! | [`ballots::fast`] | F-d nothing is proposed or voted for in fast rounds that are not open |
//! | [`epochs::rules`] | ZL at most one leader is established in an epoch |
//! | [`epochs::rules`] | ZI1 and ZI4 integrity, local primary order: the leader of an epoch alone makes its entries, in order |
//! | [`epochs::rules`] | ZI2 and ZI7 total and causal order: equal zxid, equal history up to there |
//! | [`agreement`], as RI5 | ZI3 agreement |
//! | [`epochs::rules`] | ZI5 global primary order: nobody takes an entry of an epoch below the one it promised |
//! | [`epochs::rules`] | ZI6 primary integrity: a leader has all of earlier epochs, decided, before it broadcasts |
//! | [`epochs::rules`] | ZI8 epochs never fall, one promise an epoch, current at most accepted |
//! | [`epochs::rules`] | ZI9 a current epoch, and what acknowledges it, stand for its whole history, durably |
//! | [`epochs::rules`] | ZI10 zxids are contiguous within an epoch |
//! | [`epochs::rules`] | ZV nobody votes for less than it has: by epoch, then by zxid |
//! | [`bounds`] | RI8 applied at most what is decided, decided at most what is there |
//! | [`terms::reveal`], [`ballots::rules`] | RI9 nothing is revealed before it is durable |
//! | [`terms::pre_vote`] | PV nobody campaigns without the support of a quorum |
//! | [`read_index`] | RI11 a read index covers everything acknowledged before |
//! | [`recovery`] | ST1 and ST4: what a restart finds |
//! | [`wire`] | wire: what is encoded and decoded is what was sent |
//! | [`once`] | CL7 each command takes effect exactly once |
//! | [`once`] | X2 equal state at equal applied index, and in every snapshot that is taken over |
//! | [`crate::log`] | SN1 nothing is removed from a log that no snapshot of the node holds, whole and durable |
//! | [`snapshots`] | SN2 a snapshot never takes the place of a log that is decided as far |
//! | [`crate::log`] | SN3 a snapshot is never ahead of the log on its node's disk when it is kept |

pub mod agreement;
pub mod ballots;
pub mod bounds;
pub mod epochs;
pub mod once;
pub mod quorums;
pub mod read_index;
pub mod recovery;
pub mod snapshots;
pub mod terms;
pub mod unit;
pub mod wire;

use std::fmt;

use synod_core::{Effects, LogEvent, LogIndex, Protocol, Recovered, WriteId};

use crate::rare::RareCounts;

pub use agreement::Decisions;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which, as `RI1`.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// A broken invariant with what was seen.
pub fn violation(invariant: &'static str, detail: impl Into<String>) -> Violation {
    Violation { invariant, detail: detail.into() }
}

/// What holds, or what does not.
pub type Checked = Result<(), Violation>;

/// The observer of one kind of log protocol. Nodes are numbered from 0; node `i` has the id `i + 1`.
///
/// Protocols with one leader per term share [`terms::TermLedger`], those that vote slot by slot in ballots
/// [`ballots::BallotLedger`].
pub trait LogObserver<P: Protocol>: Send {
    /// The node begins a life on what its disk gave back.
    fn opened(&mut self, node: usize, recovered: &Recovered, machine: &P) -> Checked;

    /// The machine took one step or was flushed; `effects` is everything since the last drain.
    fn stepped(&mut self, node: usize, machine: &P, effects: &Effects<P::Message, LogEvent>) -> Checked;

    /// The disk made every unit through this one durable, and its log ends at `last` now.
    fn durable(&mut self, node: usize, through: WriteId, last: LogIndex) -> Checked;

    /// The node's life ended; units after `kept` are gone, and the log on disk ends at `last`.
    fn crashed(&mut self, node: usize, kept: WriteId, last: LogIndex) -> Checked;

    /// A message leaves the node.
    fn sent(&mut self, node: usize, to: usize, message: &P::Message) -> Checked;

    /// What is decided.
    fn decisions(&self) -> &Decisions;

    /// The highest position the node has asked to write.
    fn last_index(&self, node: usize) -> u64;

    /// The node that leads, as far as anybody can say: the one of the latest reign.
    fn leader(&self) -> Option<usize>;

    /// How often rare paths were taken.
    fn rare(&self) -> RareCounts;
}
