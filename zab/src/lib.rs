//! ZAB.
mod config;
mod message;

mod codec;
mod counters;

mod durability;
mod log;
mod progress;

mod broadcast;
mod discovery;
mod election;
mod read;
mod synchronisation;

mod zab;

pub use codec::HardState;
pub use config::ZabConfig;
pub use counters::{Counters, Rejection};
pub use message::{
    Ack, AckEpoch, Attempt, Beat, Commit, Epoch, FollowerInfo, Message, Missing, NewEpoch, NewLeader,
    Notification, Ping, Place, Pong, Proposal, Received, Round, Session, Standing, Vote, Zxid,
};
pub use zab::Zab;
