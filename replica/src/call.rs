//! What a shell asks of a replica, and what it is told.

use bytes::Bytes;
use synod_core::{
    ClientId, Envelope, Instant, Load, LogIndex, NodeId, Sequence, StateMachineError, TransferRefusal, Write,
};

use crate::SnapshotJob;

/// The shell's name for one call; comes back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The shell's name for a client session of this replica. [`SessionKey::OWN`] is the replica's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

impl SessionKey {
    /// The unordered session that the replica opens by itself with its first proposal, and opens again
    /// when it has expired.
    pub const OWN: SessionKey = SessionKey(0);
}

/// Whether the commands of a session are applied in the order in which they were proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// In any order, each once.
    Unordered,
    /// Command `n` only after `n - 1`, whatever leaders come and go in between.
    Ordered,
}

/// What a read may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Every command acknowledged before the read began.
    Linearizable,
    /// The same, as long as clocks keep the bound that the protocol assumes of them: a leader that holds a lease answers
    /// without asking a quorum. As [`Consistency::Linearizable`] where leases are not turned on, or none is held.
    Lease,
    /// What this replica has applied: may be stale by any amount.
    Local,
}

/// What a shell asks.
#[derive(Clone, Debug)]
pub enum ClientCall {
    /// Replicate a command. Answered by [`ReplicaEvent::Proposed`].
    Propose {
        /// The session it belongs to.
        session: SessionKey,
        /// Names the answer.
        token: Token,
        /// The command.
        payload: Bytes,
        /// When the caller stops waiting.
        deadline: Instant,
    },
    /// Ask the state machine. Answered by [`ReplicaEvent::Read`].
    Read {
        /// Names the answer.
        token: Token,
        /// The question.
        query: Bytes,
        /// What the answer may show.
        consistency: Consistency,
        /// When the caller stops waiting.
        deadline: Instant,
    },
    /// Open a session under a key of the shell's choice, not [`SessionKey::OWN`] and never used before.
    /// Answered by [`ReplicaEvent::SessionOpened`]; with [`ProposeError::Full`] if too many are being opened or used.
    OpenSession {
        /// Names the session from now on.
        session: SessionKey,
        /// Names the answer.
        token: Token,
        /// Whether order matters.
        order: Order,
        /// When the caller stops waiting.
        deadline: Instant,
    },
    /// Take over a session that was opened elsewhere, under a key of the shell's choice: a client whose
    /// node died goes on through this one, and proposes its unanswered command again under the same
    /// number. Every command below `next` is settled, the next proposal is number `next`. Not answered.
    AttachSession {
        /// Names the session from now on.
        session: SessionKey,
        /// The session's replicated id.
        client: ClientId,
        /// What it was opened with.
        order: Order,
        /// The number of the next proposal.
        next: Sequence,
    },
    /// End a session: its open proposals are answered [`ProposeError::SessionExpired`]. Not answered.
    CloseSession {
        /// Which.
        session: SessionKey,
    },
    /// Hand the leadership over, if it is here. Answered by [`ReplicaEvent::Transferred`]. Taken even after
    /// [`ClientCall::Stop`]: whoever stops should not leave the others to wait for a timeout.
    Transfer {
        /// Names the answer.
        token: Token,
        /// To whom; to the voter that is furthest, if nobody is named.
        to: Option<NodeId>,
        /// When the caller stops waiting.
        deadline: Instant,
    },
    /// Refuse new calls from now on. Not answered; calls already taken go on.
    Stop,
}

/// What a shell is told.
#[derive(Debug)]
pub enum ReplicaEvent {
    /// A proposal ended.
    Proposed {
        /// Which.
        token: Token,
        /// The state machine's reply, or why there is none.
        result: Result<Bytes, ProposeError>,
    },
    /// A read ended.
    Read {
        /// Which.
        token: Token,
        /// The state machine's answer, or why there is none.
        result: Result<Bytes, QueryError>,
    },
    /// A session was opened, or was not.
    SessionOpened {
        /// Which call.
        token: Token,
        /// The session's replicated id, or why there is none.
        result: Result<ClientId, ProposeError>,
    },
    /// The leadership was handed over, or was not.
    Transferred {
        /// Which call.
        token: Token,
        /// Who leads now, or why it is not whom the caller wanted.
        result: Result<NodeId, TransferError>,
    },
    /// Role, leader or reign changed: see [`crate::Replica::status`].
    StatusChanged,
    /// The replica cannot go on: the shell stops the node.
    Fatal(ReplicaError),
}

/// Why a proposal has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Surely without effect: the queue is full. The command is handed back.
    #[error("the proposal queue is full")]
    Full {
        /// The command.
        payload: Bytes,
    },
    /// Surely without effect: the command is too large. It is handed back.
    #[error("the command is too large")]
    TooLarge {
        /// The command.
        payload: Bytes,
    },
    /// Surely without effect: no leader was found before the deadline. The command is handed back.
    #[error("no leader was found in time")]
    TimedOut {
        /// The command.
        payload: Bytes,
    },
    /// Surely without effect: the node is stopping. The command is handed back.
    #[error("the node is stopping")]
    Stopping {
        /// The command.
        payload: Bytes,
    },
    /// Surely without effect: the session is not known here. The command is handed back.
    #[error("no such session")]
    NoSession {
        /// The command.
        payload: Bytes,
    },
    /// Proposed, and not known to be applied by the deadline: it may be applied, now or later, or never.
    #[error("the outcome is unknown")]
    Unknown,
    /// The session ended before the outcome was seen: applied once or never.
    #[error("the session expired; the outcome is unknown")]
    SessionExpired,
    /// Applied once, by a leader elsewhere; the reply is longer than what replicas hand on:
    /// [`crate::ReplicaConfig::packet_bytes_max`].
    #[error("applied, but the reply is too long to be handed on")]
    ReplyTooLong,
}

/// Why a read has no answer. A read never has an effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Too many reads wait.
    #[error("the read queue is full")]
    Full,
    /// The query is longer than [`crate::ReplicaConfig::command_bytes_max`].
    #[error("the query is too large")]
    TooLarge,
    /// No leader confirmed the read before the deadline.
    #[error("no leader confirmed the read in time")]
    TimedOut,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// The state machine refused the question.
    #[error("{message}")]
    StateMachine {
        /// What it said.
        message: String,
    },
}

/// Why a leadership was not handed over as asked. Nothing was lost: somebody leads, or will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// There is nothing to hand over: this replica does not lead.
    #[error("this replica does not lead")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The node named is not another voter; or nobody was named, and no other voter is heard.
    #[error("no other voter could lead")]
    NoSuchVoter,
    /// It is being handed over already.
    #[error("the leadership is being handed over already")]
    UnderWay,
    /// The protocol has no way to hand a leadership over.
    #[error("this protocol hands no leadership over")]
    Unsupported,
    /// The other did not lead in time; this replica goes on, if nobody else has taken over since.
    #[error("the other did not lead in time")]
    TimedOut,
    /// Somebody else was elected meanwhile.
    #[error("{leader} was elected instead")]
    Elsewhere {
        /// Who leads now.
        leader: NodeId,
    },
}

impl From<TransferRefusal> for TransferError {
    fn from(why: TransferRefusal) -> TransferError {
        match why {
            TransferRefusal::NotLeader { leader } => TransferError::NotLeader { leader },
            TransferRefusal::NoSuchVoter => TransferError::NoSuchVoter,
            TransferRefusal::UnderWay { .. } => TransferError::UnderWay,
            TransferRefusal::Unsupported => TransferError::Unsupported,
            _ => TransferError::TimedOut,
        }
    }
}

/// Why a replica cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The state machine failed.
    #[error("the state machine failed")]
    StateMachine(#[from] StateMachineError),
    /// The state machine did not answer every command.
    #[error("the state machine gave {replies} replies to {commands} commands")]
    Replies {
        /// How many commands it was given.
        commands: usize,
        /// How many replies it gave.
        replies: usize,
    },
    /// A decided entry is no longer in the log and cannot be applied.
    #[error("a decided entry was compacted before it was applied")]
    Compacted,
    /// The protocol decided through a position at which there is no entry.
    #[error("there is no entry at the decided position {index}")]
    Missing {
        /// The position.
        index: LogIndex,
    },
    /// The protocol decided a record of a kind that can never be decided.
    #[error("the entry at the decided position {index} is of a kind that cannot be decided")]
    Undecidable {
        /// The position.
        index: LogIndex,
    },
}

/// What a flush asks of the shell, in this order: hand the writes to the storage, send the envelopes,
/// start the loads. The shell need not wait for one before the next.
#[derive(Debug)]
pub struct Actions<M> {
    /// Units to be made durable, in order. The shell reports progress by the id of the last durable one.
    pub writes: Vec<Write>,
    /// Envelopes that may leave now.
    pub envelopes: Vec<(NodeId, Envelope<M>)>,
    /// Ranges of the log to be read; answered by id.
    pub loads: Vec<Load>,
    /// What is to be done with the store of snapshots, one after the other; answered by
    /// [`Replica::snapshot_done`](crate::Replica::snapshot_done). Empty if the replica was opened without one.
    pub snapshots: Vec<SnapshotJob>,
}

impl<M> Default for Actions<M> {
    fn default() -> Self {
        Actions { writes: Vec::new(), envelopes: Vec::new(), loads: Vec::new(), snapshots: Vec::new() }
    }
}

impl<M> Actions<M> {
    /// True if nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.envelopes.is_empty()
            && self.loads.is_empty()
            && self.snapshots.is_empty()
    }
}
