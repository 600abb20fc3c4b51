//! Paxos.

mod ballot;
mod config;
mod message;

mod codec;
mod counters;

pub mod synod;

mod progress;
mod proposals;
mod votes;

mod acceptor;
mod election;
mod leader;
mod learner;
mod read;

mod multipaxos;

pub use ballot::Ballot;
pub use codec::HardState;
pub use config::MultiPaxosConfig;
pub use counters::{Counters, Rejection};
pub use message::{
    Accept, Accepted, Canvass, CanvassReply, Chosen, CommitNotice, Heartbeat, HeartbeatReply, Learn, Message,
    Prepare, Promise, Rejected, Round,
};
pub use multipaxos::MultiPaxos;
