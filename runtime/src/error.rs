//! What a caller is told when there is no answer.

use bytes::Bytes;
use synod_core::{ConfigError, DecodeError, MembershipError, NodeId, OpenError, SnapshotError, StorageError};
use synod_replica::{ProposeError as Proposed, QueryError as Queried, TransferError as Transferred};

/// Why a proposal has no reply.
///
/// Where the command is handed back it surely had no effect, and may be proposed again as the [`Bytes`] it
/// is. Otherwise it may be applied: now, later, or never.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Too many commands wait already. The command is handed back.
    #[error("too many commands wait")]
    Full {
        /// The command, encoded.
        command: Bytes,
    },
    /// The command is larger than the node's bound. It is handed back.
    #[error("the command is too large")]
    TooLarge {
        /// The command, encoded.
        command: Bytes,
    },
    /// No leader was found before the deadline. The command is handed back.
    #[error("no leader was found in time")]
    TimedOut {
        /// The command, encoded.
        command: Bytes,
    },
    /// The node is stopping or has stopped; [`crate::NodeStatus::health`] says why. The command is handed
    /// back.
    #[error("the node has stopped")]
    Stopped {
        /// The command, encoded.
        command: Bytes,
    },
    /// The session has ended. The command is handed back.
    #[error("the session has ended")]
    NoSession {
        /// The command, encoded.
        command: Bytes,
    },
    /// Proposed, and neither known to be applied nor known not to be.
    #[error("the outcome is unknown")]
    Unknown,
    /// The session ended before the outcome was seen: applied once, or never.
    #[error("the session expired; the outcome is unknown")]
    SessionExpired,
    /// The command was applied, once, by a leader elsewhere; its reply is longer than what nodes hand on to each other.
    #[error("applied, but the reply is too long to be handed on")]
    ReplyTooLong,
    /// The command was applied, and its reply does not decode.
    #[error("applied, but the reply does not decode")]
    Reply(#[source] DecodeError),
}

impl ProposeError {
    /// The command, if it surely had no effect.
    #[must_use]
    pub fn into_command(self) -> Option<Bytes> {
        match self {
            ProposeError::Full { command }
            | ProposeError::TooLarge { command }
            | ProposeError::TimedOut { command }
            | ProposeError::Stopped { command }
            | ProposeError::NoSession { command } => Some(command),
            ProposeError::Unknown
            | ProposeError::SessionExpired
            | ProposeError::ReplyTooLong
            | ProposeError::Reply(_) => None,
        }
    }
}

impl From<Proposed> for ProposeError {
    fn from(error: Proposed) -> ProposeError {
        match error {
            Proposed::Full { payload } => ProposeError::Full { command: payload },
            Proposed::TooLarge { payload } => ProposeError::TooLarge { command: payload },
            Proposed::TimedOut { payload } => ProposeError::TimedOut { command: payload },
            Proposed::Stopping { payload } => ProposeError::Stopped { command: payload },
            Proposed::NoSession { payload } => ProposeError::NoSession { command: payload },
            Proposed::SessionExpired => ProposeError::SessionExpired,
            Proposed::ReplyTooLong => ProposeError::ReplyTooLong,
            // Whatever is not known to be without effect may have one.
            _ => ProposeError::Unknown,
        }
    }
}

/// Why a read has no answer. A read never has an effect and may always be asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Too many reads wait.
    #[error("too many reads wait")]
    Full,
    /// The query is larger than the node's bound for commands.
    #[error("the query is too large")]
    TooLarge,
    /// No leader confirmed the read before the deadline.
    #[error("no leader confirmed the read in time")]
    TimedOut,
    /// The node is stopping or has stopped; [`crate::NodeStatus::health`] says why.
    #[error("the node has stopped")]
    Stopped,
    /// The state machine refused the question.
    #[error("the state machine refused the query: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// The answer does not decode.
    #[error("the answer does not decode")]
    Answer(#[source] DecodeError),
}

impl From<Queried> for ReadError {
    fn from(error: Queried) -> ReadError {
        match error {
            Queried::Full => ReadError::Full,
            Queried::TooLarge => ReadError::TooLarge,
            Queried::TimedOut => ReadError::TimedOut,
            Queried::Stopping => ReadError::Stopped,
            Queried::StateMachine { message } => ReadError::Refused { message },
            other => ReadError::Refused { message: other.to_string() },
        }
    }
}

/// Why a session was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Too many commands wait already.
    #[error("too many commands wait")]
    Full,
    /// It was not opened before the deadline.
    #[error("the session was not opened in time")]
    TimedOut,
    /// The node is stopping or has stopped; [`crate::NodeStatus::health`] says why.
    #[error("the node has stopped")]
    Stopped,
}

impl From<Proposed> for SessionError {
    fn from(error: Proposed) -> SessionError {
        match error {
            Proposed::Full { .. } => SessionError::Full,
            Proposed::Stopping { .. } => SessionError::Stopped,
            // An entry that opens a session nobody uses is without effect: not opened is all there is to say.
            _ => SessionError::TimedOut,
        }
    }
}

/// Why the leadership was not handed over as asked. Nothing was lost: somebody leads, or will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Too many calls wait already.
    #[error("too many calls wait")]
    Full,
    /// The node has stopped; [`crate::NodeStatus::health`] says why.
    #[error("the node has stopped")]
    Stopped,
    /// There is nothing to hand over: this node does not lead.
    #[error("this node does not lead")]
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
    /// The other did not lead in time.
    #[error("the other did not lead in time")]
    TimedOut,
    /// Somebody else was elected meanwhile.
    #[error("{leader} was elected instead")]
    Elsewhere {
        /// Who leads now.
        leader: NodeId,
    },
}

impl From<Transferred> for TransferError {
    fn from(error: Transferred) -> TransferError {
        match error {
            Transferred::NotLeader { leader } => TransferError::NotLeader { leader },
            Transferred::NoSuchVoter => TransferError::NoSuchVoter,
            Transferred::UnderWay => TransferError::UnderWay,
            Transferred::Unsupported => TransferError::Unsupported,
            Transferred::Elsewhere { leader } => TransferError::Elsewhere { leader },
            _ => TransferError::TimedOut,
        }
    }
}

/// Why a node did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The builder was not given something it needs.
    #[error("the builder was given no {what}")]
    Missing {
        /// What: the builder's method of that name was not called.
        what: &'static str,
    },
    /// The members do not make a cluster.
    #[error("invalid membership")]
    Membership(#[from] MembershipError),
    /// The node is not among the members.
    #[error("{node} is not a member")]
    NotAMember {
        /// The node.
        node: NodeId,
    },
    /// A setting of the protocol or of the node cannot be used.
    #[error("invalid configuration")]
    Config(#[from] ConfigError),
    /// The transport drops packets that these settings send: they would be sent again and again.
    #[error(
        "the transport carries packets of up to {carried} bytes, and up to {needed} are sent: by {setting}"
    )]
    PacketTooLong {
        /// The longest packet of this node.
        needed: usize,
        /// The longest packet that the transport carries.
        carried: usize,
        /// What to change, if not the transport.
        setting: &'static str,
    },
    /// The storage did not recover.
    #[error("the storage did not recover")]
    Storage(#[from] StorageError),
    /// The store of snapshots cannot say which there are.
    #[error("the snapshots cannot be listed")]
    Snapshots(#[from] SnapshotError),
    /// The protocol or the replica did not open on what the storage recovered.
    #[error("the replica did not open")]
    Open(#[from] OpenError),
    /// The operating system gave no thread for the storage or the snapshots.
    #[error("no thread for the storage or the snapshots")]
    Thread(#[source] std::io::Error),
    /// The tokio runtime was shut down meanwhile.
    #[error("the tokio runtime is gone")]
    RuntimeGone,
    /// [`crate::NodeBuilder::start`] was called outside of a tokio runtime.
    #[error("no tokio runtime")]
    NoRuntime(#[source] tokio::runtime::TryCurrentError),
}
