//! Vector clocks: exactly what happened before what.

use alloc::vec::Vec;
use core::fmt;

use crate::actor::{ActorId, Dot};
use crate::causality::Causality;
use crate::counts::Counts;
use crate::error::ClockError;

/// The time of one event: how many events of each actor it has in its past, itself included.
///
/// Compared with [`compare`](Self::compare). Equal times are equal values: `==` agrees with [`Causality::Equal`].
#[derive(Clone, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Vec<Dot>", into = "Vec<Dot>")
)]
pub struct VectorTime(pub(crate) Counts);

/// A vector clock.
///
/// ```text
///  n1  --[1,0]--[2,0]--------------[3,3]-->
///                  \               ^           local, send: own entry + 1
///                   \             /            receive:     the greater of each entry, then own entry + 1
///  n2  --[0,1]------[2,2]------[2,3]------>
///
///  [2,0] before [2,2]; [2,0] and [0,1] concurrent: each has what the other lacks
/// ```
///
/// `a` happened before `b` exactly if `time(a)` is [`Causality::Before`] `time(b)`. Fidge, *Timestamps in
/// Message-Passing Systems That Preserve the Partial Ordering* (11th Australian Computer Science Conference, 1988), and
/// Mattern, *Virtual Time and Global States of Distributed Systems* (Parallel and Distributed Algorithms, 1989).
///
/// **Limits.** A time grows with the number of actors that ever had an event, incarnations included, and travels with
/// every message. Somebody who is not an actor (a client behind a server) has no entry: what two clients write through
/// one server looks ordered. See [`DottedVersionVectorSet`](crate::DottedVersionVectorSet).
///
/// ```
/// use synod_clocks::{ActorId, Causality, VectorClock};
/// let (mut n1, mut n2) = (VectorClock::new(ActorId::new(1)), VectorClock::new(ActorId::new(2)));
/// let alone = n2.local();
/// let sent = n1.send();
/// let received = n2.receive(&sent);
/// assert_eq!(sent.compare(&alone), Causality::Concurrent);
/// assert_eq!(sent.compare(&received), Causality::Before);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VectorClock {
    actor: ActorId,
    now: VectorTime,
}

impl VectorTime {
    /// The time before any event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A time with these counters.
    ///
    /// # Errors
    ///
    /// [`ClockError::Repeated`] if an actor is named twice.
    pub fn from_dots(dots: impl IntoIterator<Item = Dot>) -> Result<Self, ClockError> {
        Counts::from_dots(dots.into_iter().collect()).map(Self)
    }

    /// How many events of `actor` are in the past of this time.
    #[must_use]
    pub fn get(&self, actor: ActorId) -> u64 {
        self.0.get(actor)
    }

    /// The last event of each actor in the past of this time, sorted by actor.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Dot> + '_ {
        self.0.as_slice().iter().copied()
    }

    /// How this time relates to another, in one pass: linear in the number of actors.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Causality {
        self.0.compare(&other.0)
    }

    /// The least time that has both in its past: the greater counter of every actor.
    pub fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }
}

impl VectorClock {
    /// A clock of `actor` before any event.
    #[must_use]
    pub fn new(actor: ActorId) -> Self {
        Self { actor, now: VectorTime::new() }
    }

    /// Whose clock it is.
    #[must_use]
    pub fn actor(&self) -> ActorId {
        self.actor
    }

    /// The time of the last event.
    #[must_use]
    pub fn now(&self) -> &VectorTime {
        &self.now
    }

    /// An event here.
    pub fn local(&mut self) -> VectorTime {
        self.now.0.record(self.actor);
        self.now.clone()
    }

    /// An event that sends: attach the returned time to the message.
    pub fn send(&mut self) -> VectorTime {
        self.local()
    }

    /// The receipt of a message with the time it was sent.
    pub fn receive(&mut self, sent: &VectorTime) -> VectorTime {
        self.now.merge(sent);
        self.local()
    }
}

impl fmt::Display for VectorTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for VectorTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl TryFrom<Vec<Dot>> for VectorTime {
    type Error = ClockError;

    fn try_from(dots: Vec<Dot>) -> Result<Self, ClockError> {
        Counts::from_dots(dots).map(Self)
    }
}

impl From<VectorTime> for Vec<Dot> {
    fn from(time: VectorTime) -> Self {
        time.iter().collect()
    }
}
