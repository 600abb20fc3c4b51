//! What a protocol that orders one log is.

use std::fmt;
use std::sync::Arc;

use crate::{Command, ConfigError, LogIndex, Machine, Membership, NodeId, ReadId, Reign, Wire};

/// A machine that orders one log.
///
/// `Clone`, so that a checker can fork a run.
pub trait Protocol: Machine<Call = LogCall, Event = LogEvent, Message: Wire> + Clone {
    /// Where a proposal goes now.
    fn route(&self) -> Route;

    /// How the protocol stands.
    fn status(&self) -> Status;
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

    /// How long the replica waits for a forwarded or proposed command before it proposes it again under
    /// the same id. A few election timeouts.
    fn retry_after(&self) -> std::time::Duration;
}

/// What the host of a protocol asks.
#[derive(Clone, Debug)]
pub enum LogCall {
    /// Order these commands, in this order unless other proposals come between. While
    /// [`Protocol::route`] stays [`Route::Here`] in one reign, the protocol holds what it does not refuse:
    /// the host proposes it again only when that ends.
    Propose(Vec<Command>),
    /// Tell an index such that a state machine that has applied it shows every command that was
    /// acknowledged before this call: answered by [`LogEvent::ReadReady`] or [`LogEvent::ReadFailed`].
    Read {
        /// Names the answer.
        id: ReadId,
    },
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
    /// The replica's role, leader or reign changed.
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
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotLeader { leader: Some(leader) } => write!(f, "not the leader ({leader} is)"),
            Refusal::NotLeader { leader: None } => write!(f, "not the leader, and no leader is known"),
            Refusal::Full => write!(f, "too much is undecided already"),
            Refusal::LeadershipLost => write!(f, "the leadership ended"),
            Refusal::TooLarge => write!(f, "the command is too large"),
        }
    }
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
