//! The tokio runtime of Synod: a replica as a [`Node`].

mod node;

mod builder;
mod error;
mod metrics;
mod status;

mod calls;
mod clock;
mod driver;
mod journal;
mod waiting;

pub use builder::{NoStateMachine, NodeBuilder};
pub use error::{ProposeError, ReadError, SessionError, StartError};
pub use metrics::Metrics;
pub use node::{Node, Proposal, Proposals, Read, Session};
pub use status::{Health, NodeStatus, StopReason};
pub use synod_replica::{Consistency, Order, ReplicaConfig};
