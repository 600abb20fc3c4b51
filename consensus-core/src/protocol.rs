//! What a protocol that orders one log is.

use std::fmt;
use std::sync::Arc;

use crate::{
    Command, ConfigError, Entry, LogIndex, Machine, Membership, NodeId, ReadId, Reign, SnapshotId,
    SnapshotMeta, Stamp, Wire,
};

/// A machine that orders one log.
///
/// `Clone`, so that a checker can fork a run.
pub trait Protocol: Machine<Call = LogCall, Event = LogEvent, Message: Wire> + Clone {
    /// Where a proposal goes now.
    fn route(&self) -> Route;

    /// Where a [`LogCall::Read`] goes now: where proposals go, unless replicas that do not lead propose by themselves.
    fn read_route(&self) -> Route {
        self.route()
    }

    /// How the protocol stands.
    fn status(&self) -> Status;

    /// What a snapshot through `index`, which is decided, must say so that another replica can go on from it.
    /// `None` if it is not known any more, or if this protocol cannot go on from a snapshot: then none is taken, and
    /// the log is not compacted.
    fn describe(&self, index: LogIndex) -> Option<Described> {
        let _ = index;
        None
    }
}

/// What a protocol knows of its log as of one decided index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The stamp of the entry there.
    pub stamp: Stamp,
    /// Who took part.
    pub membership: Arc<Membership>,
}

/// The settings of a protocol; names the protocol, so that a builder can infer it.
pub trait ProtocolConfig: Clone + fmt::Debug + Send + 'static {
    /// The protocol that these settings are for.
    type Protocol: Protocol<Config = Self>;

    /// The protocol's name in tables and on command lines.
    const NAME: &'static str;

    /// Checks the settings against each other.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that cannot be used.
    fn validate(&self) -> Result<(), ConfigError>;

    /// The longest message that a replica of these settings sends, in bytes on the wire, if no command's payload is
    /// longer than `payload_bytes_max`. [`entries_message_bytes_max`] tells it of what carries entries.
    fn message_bytes_max(&self, payload_bytes_max: usize) -> usize;

    /// How long the replica waits for a forwarded or proposed command before it proposes it again under
    /// the same id. A few election timeouts.
    fn retry_after(&self) -> std::time::Duration;
}

/// The longest message on the wire, in bytes, that brings entries of a weight of up to `bytes_max`, or a single entry that
/// weighs more, and up to [`MESSAGE_OVERHEAD`] bytes beside them: an entry never takes more on the wire than it weighs.
#[must_use]
pub const fn entries_message_bytes_max(bytes_max: usize, payload_bytes_max: usize) -> usize {
    let single = payload_bytes_max.saturating_add(Entry::OVERHEAD);
    let entries = if single > bytes_max { single } else { bytes_max };
    entries.saturating_add(MESSAGE_OVERHEAD)
}

/// What a message may bring beside entries, in bytes on the wire, for [`entries_message_bytes_max`].
pub const MESSAGE_OVERHEAD: usize = 256;

/// What the host of a protocol asks.
#[derive(Clone, Debug)]
pub enum LogCall {
    /// Order these commands, in this order unless other proposals come between. As long as this replica leads in one
    /// reign, the protocol holds what it does not refuse: the host proposes it again only when that ends.
    Propose(Vec<Command>),
    /// Tell an index such that a state machine that has applied it shows every command that was
    /// acknowledged before this call: answered by [`LogEvent::ReadReady`] or [`LogEvent::ReadFailed`].
    Read {
        /// Names the answer.
        id: ReadId,
        /// What the answer may rest on.
        mode: ReadMode,
    },
    /// Hand the leadership over to this voter, or to the one that is furthest: nothing is lost, and the others need not wait
    /// for a timeout. From then on the leader refuses proposals with [`Refusal::Transferring`], and its
    /// [`Protocol::route`] is [`Route::Hold`]; it brings the other up to date and has it campaign. If that has not led to
    /// a later reign after one election timeout, it goes on as before and tells [`LogEvent::TransferFailed`]. That the
    /// leadership ended is told as ever, by [`LogEvent::Role`]; who has it now is in [`Protocol::status`].
    Transfer {
        /// To whom.
        to: Option<NodeId>,
    },
    /// A durable snapshot holds everything through `index`: what is at or below `compact_to` may be removed from the
    /// log ([`Effects::compact_to`](crate::Effects::compact_to)). What lies between is kept for peers that are a
    /// little slow.
    SnapshotTaken {
        /// What the snapshot holds.
        index: LogIndex,
        /// What the host would have removed; not above `index`.
        compact_to: LogIndex,
    },
    /// A durable, verified snapshot is offered: one that a peer sent, or the newest of this replica's own after a start,
    /// since the life before may have ended before it was taken over. Either the protocol lets it stand for its log
    /// through there ([`Effects::install`](crate::Effects::install)), removes what cannot follow it, and decides through it;
    /// or it knows that what stands in its log is the same, decides through it and answers
    /// [`LogEvent::DiscardSnapshot`]; or it knows as much already, and answers just that.
    SnapshotArrived {
        /// Which.
        id: SnapshotId,
        /// What it stands for.
        meta: SnapshotMeta,
    },
    /// Answers [`LogEvent::SendSnapshot`].
    SnapshotSent {
        /// The peer.
        to: NodeId,
        /// How it ended.
        outcome: SnapshotOutcome,
    },
}

/// What the answer to a read may rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadMode {
    /// Messages that were sent after the read arrived: true whatever clocks do.
    Barrier,
    /// A lease of the leader, if it has one: at once, and true if clocks keep the bound that is assumed of them. As
    /// [`ReadMode::Barrier`] where no lease is held, or the protocol knows none.
    Lease,
}

/// How the sending of a snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// The peer has everything through this index, unless it crashed meanwhile: the log may be tried from here.
    Taken(LogIndex),
    /// There was no snapshot, or it did not arrive. Asking again is right, after a while.
    Failed,
}

/// What the host of a protocol is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// Everything through this index is decided: the entry last written at each index is the decided one.
    Decided(LogIndex),
    /// The barrier stands: serve the read once this index is applied.
    ReadReady {
        /// Which read.
        id: ReadId,
        /// What to apply first.
        index: LogIndex,
    },
    /// The barrier could not be confirmed here.
    ReadFailed {
        /// Which read.
        id: ReadId,
        /// Why.
        why: Refusal,
    },
    /// A command was surely not proposed; it is handed back.
    Refused {
        /// The command.
        command: Command,
        /// Why.
        why: Refusal,
    },
    /// The leadership is not handed over: [`LogCall::Transfer`].
    TransferFailed {
        /// Why.
        why: TransferRefusal,
    },
    /// A peer needs entries that this log does not hold any more: send it a snapshot. Answered by
    /// [`LogCall::SnapshotSent`]; asking again before is without effect.
    SendSnapshot {
        /// The peer.
        to: NodeId,
    },
    /// The snapshot that was offered brings nothing new.
    DiscardSnapshot(SnapshotId),
    /// The replica's role, leader or reign changed, or the way that proposals go ([`Protocol::route`]).
    Role(Role),
}

/// Why a protocol refuses a proposal or a read. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// This replica does not lead; `leader` is who does, as far as it knows.
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too much is undecided already, in entries or bytes.
    Full,
    /// The leadership ended before the barrier was confirmed.
    LeadershipLost,
    /// A single command is larger than the protocol can carry.
    TooLarge,
    /// This replica leads, and is about to hand the leadership over.
    Transferring,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotLeader { leader: Some(leader) } => write!(f, "not the leader ({leader} is)"),
            Refusal::NotLeader { leader: None } => write!(f, "not the leader, and no leader is known"),
            Refusal::Full => write!(f, "too much is undecided already"),
            Refusal::LeadershipLost => write!(f, "the leadership ended"),
            Refusal::TooLarge => write!(f, "the command is too large"),
            Refusal::Transferring => write!(f, "the leadership is being handed over"),
        }
    }
}

/// Why a leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferRefusal {
    /// There is nothing to hand over: this replica does not lead.
    #[error("not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The node named is not another voter; or nobody was named, and no other voter is heard.
    #[error("no other voter could lead")]
    NoSuchVoter,
    /// It is being handed over already.
    #[error("the leadership is being handed over already")]
    UnderWay {
        /// To whom.
        to: NodeId,
    },
    /// This protocol has no way to hand a leadership over, or not with these settings.
    #[error("this protocol hands no leadership over")]
    Unsupported,
    /// There was no later reign within an election timeout. The leader goes on.
    #[error("the other did not lead in time")]
    TimedOut,
}

/// Where a proposal goes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Into this replica's own protocol.
    Here,
    /// To this peer.
    Forward(NodeId),
    /// Nowhere yet: wait.
    Hold,
}

/// What a replica is in its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It leads: it orders proposals.
    Leader,
    /// It tries to lead.
    Candidate,
    /// It follows, or waits for somebody to follow.
    Follower,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Leader => "leader",
            Role::Candidate => "candidate",
            Role::Follower => "follower",
        })
    }
}

/// How a protocol stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What this replica is.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The latest leadership period it knows of; its `leader` is node 0 while unknown. It is that of the
    /// leader followed, never of a promise or of a single slot: the host proposes everything under way again
    /// when it changes.
    pub reign: Reign,
    /// Everything through this index is decided.
    pub decided: LogIndex,
    /// Who takes part.
    pub membership: Arc<Membership>,
}
