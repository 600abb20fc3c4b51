//! What a caller or a peer got wrong.

use core::time::Duration;

use thiserror::Error;

use crate::encoding::DecodeError;

/// What was refused. Nothing has changed when one is returned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClockError {
    /// A counter or Lamport time outside its range.
    #[error("counter {counter} is out of range (1 to 2^63 - 1; a time may be 0)")]
    Counter {
        /// What was given.
        counter: u64,
    },
    /// One actor stands twice in what should be a vector.
    #[error("the vector names one actor twice")]
    Repeated,
    /// A wall clock reading that the 64-bit hybrid time cannot hold.
    #[error("the reading {since_unix_epoch:?} since 1970 is out of range (it ends 18 hours before 2^32 s)")]
    Reading {
        /// What was given.
        since_unix_epoch: Duration,
    },
    /// A bound on how far a received time may be ahead, above one hour.
    #[error("the bound {offset_max:?} on clock offset is above one hour")]
    Offset {
        /// What was given.
        offset_max: Duration,
    },
    /// A received hybrid time further ahead of the own wall clock than allowed: one of the two clocks is wrong.
    #[error("the received time is {ahead:?} ahead of this clock, more than {offset_max:?}")]
    Ahead {
        /// How far ahead.
        ahead: Duration,
        /// What is allowed.
        offset_max: Duration,
    },
    /// Bytes that are no clock.
    #[error("the bytes are no such value")]
    Decode(#[from] DecodeError),
}
