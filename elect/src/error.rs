//! Why a candidate cannot go on.

use std::sync::Arc;

use synod_core::{ConfigError, NodeId, OpenError, StorageError};

/// Why a candidate cannot be started, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElectionError {
    /// Settings that do not fit together.
    #[error("invalid settings")]
    Config(#[from] ConfigError),
    /// The node is not among the members.
    #[error("{node} is not among the members")]
    NotAMember {
        /// The node.
        node: NodeId,
    },
    /// The candidate cannot be opened on what its storage holds.
    #[error("the candidate does not open")]
    Open(#[from] OpenError),
    /// What keeps the token failed: no later leader could be told from an earlier one.
    #[error("the storage failed")]
    Storage(#[from] StorageError),
    /// The transport was closed.
    #[error("the transport is closed")]
    TransportClosed,
    /// The node that the candidate campaigns through has stopped.
    #[error("the node has stopped")]
    NodeStopped,
    /// The table refuses the campaign, and will always.
    #[error("the campaign is refused: {why}")]
    Refused {
        /// What the table says.
        why: String,
    },
    /// Who gives the lease out cannot be asked, with these settings.
    #[error("the servers cannot be asked")]
    Servers(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The candidate's task is gone: its runtime has ended.
    #[error("the candidate is gone")]
    Gone,
    /// The candidate ended earlier.
    #[error("the candidate has ended")]
    Ended(#[source] Arc<ElectionError>),
}
