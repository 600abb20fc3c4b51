//! The Raft consensus protocol as a sans-IO state machine.

mod config;
mod message;

mod codec;
mod counters;

mod durability;
mod log;
mod progress;

mod election;
mod read;
mod replication;

mod raft;

pub use codec::HardState;
pub use config::RaftConfig;
pub use counters::{Counters, Rejection};
pub use message::{
    Append, AppendRejected, Appended, CommitNotice, Heartbeat, HeartbeatReply, Message, NewerTerm, Position,
    PreVote, PreVoteReply, Round, Term, Vote, VoteReply,
};
pub use raft::Raft;
