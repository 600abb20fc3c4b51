//! Lamport's logical clock: one number that never contradicts causality, and cannot show it.

use core::fmt;

use crate::actor::{ActorId, COUNTER_MAX};
use crate::error::ClockError;
use crate::stamp::Stamp;

/// A point in Lamport time.
///
/// Together with the actor it is a total order ([`Stamp`]). If `a` happened before `b`, then `time(a) < time(b)`; the
/// reverse does not hold, so two times say nothing about causality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u64", into = "u64")
)]
pub struct LamportTime(u64);

/// A Lamport clock.
///
/// ```text
///  n1  --1-----2---------------6-->      local:   1, 2 on n1
///               \             ^          send:    the new time goes with the message
///                \           /           receive: above the message and above what was here
///  n2  --1--------3---4-----5----->
/// ```
///
/// Rules IR1 and IR2 of Lamport, *Time, Clocks, and the Ordering of Events in a Distributed System* (Communications of
/// the ACM 21(7), 1978), section "Logical Clocks"; the tie-break by process is that of "Ordering the Events Totally".
///
/// **Limits.** `time(a) < time(b)` does not mean that `a` happened before `b`: the 1 of n2 above is concurrent with the
/// 2 of n1. It says nothing of how long ago a thing was. A peer that is far ahead pulls everybody along.
///
/// ```
/// use synod_clocks::{ActorId, LamportClock};
/// let (mut n1, mut n2) = (LamportClock::new(ActorId::new(1)), LamportClock::new(ActorId::new(2)));
/// n1.local();
/// let sent = n1.send();
/// n2.local();
/// let received = n2.receive(sent.time);
/// assert!(sent < received);
/// assert_eq!((sent.time.get(), received.time.get()), (2, 3));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LamportClock {
    actor: ActorId,
    time: LamportTime,
}

impl LamportTime {
    /// The time `ticks`.
    ///
    /// # Errors
    ///
    /// [`ClockError::Counter`] above [`COUNTER_MAX`].
    pub const fn new(ticks: u64) -> Result<Self, ClockError> {
        if ticks > COUNTER_MAX {
            return Err(ClockError::Counter { counter: ticks });
        }
        Ok(Self(ticks))
    }

    /// The number of ticks since the beginning.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl LamportClock {
    /// A clock of `actor` at time 0.
    #[must_use]
    pub const fn new(actor: ActorId) -> Self {
        Self { actor, time: LamportTime(0) }
    }

    /// The stamp of the last event.
    #[must_use]
    pub const fn now(&self) -> Stamp<LamportTime> {
        Stamp { time: self.time, actor: self.actor }
    }

    /// An event here: one tick (IR1).
    pub fn local(&mut self) -> Stamp<LamportTime> {
        self.time.0 += 1;
        self.now()
    }

    /// An event that sends: attach the returned time to the message (IR2a).
    pub fn send(&mut self) -> Stamp<LamportTime> {
        self.local()
    }

    /// The receipt of a message with the time it was sent: greater than both (IR2b).
    pub fn receive(&mut self, sent: LamportTime) -> Stamp<LamportTime> {
        self.time = self.time.max(sent);
        self.local()
    }
}

impl fmt::Display for LamportTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl TryFrom<u64> for LamportTime {
    type Error = ClockError;

    fn try_from(ticks: u64) -> Result<Self, ClockError> {
        Self::new(ticks)
    }
}

impl From<LamportTime> for u64 {
    fn from(time: LamportTime) -> Self {
        time.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_above_the_message_and_above_what_was_here() {
        let mut clock = LamportClock::new(ActorId::new(1));
        assert_eq!(clock.receive(LamportTime(7)).time, LamportTime(8));
        assert_eq!(clock.receive(LamportTime(3)).time, LamportTime(9));
    }

    #[test]
    fn the_greatest_time_a_peer_can_send_leaves_room_for_ticks() {
        let mut clock = LamportClock::new(ActorId::new(1));
        let after = clock.receive(LamportTime::new(COUNTER_MAX).unwrap());
        assert!(clock.local() > after);
        assert!(LamportTime::new(COUNTER_MAX + 1).is_err());
    }
}
