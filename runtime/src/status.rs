//! What an operator sees of a node.

use std::sync::Arc;

use synod_core::{Incarnation, LogIndex, Membership, NodeId, Reign, Role, StorageError};
use synod_replica::ReplicaError;

/// How a node stands, as of its last publication.
///
/// Changes of role, leader, reign and health are published at once; mere progress of `decided` and
/// `applied` a few milliseconds later, so that a busy node does not wake its watchers at every command.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Who it is.
    pub node: NodeId,
    /// This life of it: one more at every start.
    pub incarnation: Incarnation,
    /// What it is in its protocol.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The latest leadership period it knows of.
    pub reign: Reign,
    /// Everything through this index is decided.
    pub decided: LogIndex,
    /// Everything through this index is applied.
    pub applied: LogIndex,
    /// The newest snapshot kept here holds everything through this index; 0 if there is none.
    pub snapshot: LogIndex,
    /// Who takes part.
    pub membership: Arc<Membership>,
    /// Whether it runs, and if not, why.
    pub health: Health,
}

impl NodeStatus {
    /// True if the node leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Readiness: the node runs and knows a leader, so that a call has a place to go.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.leader.is_some() && matches!(self.health, Health::Running)
    }

    /// Why the node has stopped, once it has.
    #[must_use]
    pub fn stopped(&self) -> Option<&StopReason> {
        match &self.health {
            Health::Stopped(reason) => Some(reason),
            Health::Running | Health::Stopping => None,
        }
    }
}

/// Whether a node runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// It does.
    Running,
    /// It takes no call any more, and answers those it has.
    Stopping,
    /// It does not run any more: replica, storage and transport are dropped.
    Stopped(StopReason),
}

/// Why a node has stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// [`crate::Node::shutdown`] was called.
    #[error("it was shut down")]
    Shutdown,
    /// [`crate::Node::abort`] was called.
    #[error("it was aborted")]
    Aborted,
    /// The last handle was dropped.
    #[error("its last handle was dropped")]
    Dropped,
    /// The tokio runtime it ran on was shut down.
    #[error("its tokio runtime was shut down")]
    RuntimeGone,
    /// A write or a read of the log failed.
    #[error("its storage failed")]
    Storage(#[source] StorageError),
    /// The state machine failed, or the log below it.
    #[error("its replica failed")]
    Replica(#[source] Arc<ReplicaError>),
    /// The transport was closed.
    #[error("its transport was closed")]
    TransportClosed,
    /// A bug: an assertion of the node failed, or its storage, transport or state machine panicked.
    #[error("it panicked")]
    Panicked,
}

impl StopReason {
    /// True if somebody asked for it; false if the node could not go on.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(self, StopReason::Shutdown | StopReason::Aborted | StopReason::Dropped)
    }
}
