//! Who counts: a node and its incarnation, and the events it is known by.

use core::fmt;

use crate::error::ClockError;

/// One life of one node: the unit that counts events.
///
/// Every counter belongs to exactly one actor, and an actor never counts the same number twice. A node that restarts
/// without its newest counters (a crash, a restored backup, a wiped disk) would; so it comes back as another actor,
/// with a higher incarnation. Keep the incarnation in durable storage and raise it **before** the first event of a life.
///
/// Ordered by node, then incarnation.
///
/// ```
/// use synod_clocks::ActorId;
/// let life = ActorId::new(7);
/// assert_eq!(life.to_string(), "7.0");
/// assert_eq!(life.with_incarnation(3).to_string(), "7.3");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "ActorParts", into = "ActorParts")
)]
pub struct ActorId(
    /// Node above incarnation: one comparison orders both.
    u64,
);

/// The number of the greatest event that a counter may be created with: `2^63 - 1`.
///
/// Counters have 64 bits. What comes from outside may use half of the range, so a peer that lies cannot bring the next
/// local event to an overflow: that would take another `2^63` events.
pub const COUNTER_MAX: u64 = u64::MAX >> 1;

/// One event: the `counter`-th of `actor`, from 1.
///
/// Displayed as `actor:counter`, for example `7.0:12`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "DotParts", into = "DotParts")
)]
pub struct Dot {
    pub(crate) actor: ActorId,
    pub(crate) counter: u64,
}

impl ActorId {
    /// The first life of a node: incarnation 0.
    #[must_use]
    pub const fn new(node: u32) -> Self {
        Self((node as u64) << 32)
    }

    /// Another life of the same node.
    #[must_use]
    pub const fn with_incarnation(self, incarnation: u32) -> Self {
        Self((self.node() as u64) << 32 | incarnation as u64)
    }

    /// The node.
    #[must_use]
    pub const fn node(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Which of its lives.
    #[must_use]
    pub const fn incarnation(self) -> u32 {
        self.0 as u32
    }
}

impl Dot {
    /// The `counter`-th event of `actor`.
    ///
    /// # Errors
    ///
    /// [`ClockError::Counter`] unless the counter is from 1 to [`COUNTER_MAX`].
    pub const fn new(actor: ActorId, counter: u64) -> Result<Self, ClockError> {
        if counter == 0 || counter > COUNTER_MAX {
            return Err(ClockError::Counter { counter });
        }
        Ok(Self { actor, counter })
    }

    /// Whose event it is.
    #[must_use]
    pub const fn actor(self) -> ActorId {
        self.actor
    }

    /// Which of its events, from 1.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.counter
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node(), self.incarnation())
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The fields of an actor, as serde shows them.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct ActorParts {
    node: u32,
    incarnation: u32,
}

/// The fields of a dot, before its counter is checked.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct DotParts {
    actor: ActorId,
    counter: u64,
}

#[cfg(feature = "serde")]
impl From<ActorParts> for ActorId {
    fn from(parts: ActorParts) -> Self {
        Self::new(parts.node).with_incarnation(parts.incarnation)
    }
}

#[cfg(feature = "serde")]
impl From<ActorId> for ActorParts {
    fn from(actor: ActorId) -> Self {
        Self { node: actor.node(), incarnation: actor.incarnation() }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<DotParts> for Dot {
    type Error = ClockError;

    fn try_from(parts: DotParts) -> Result<Self, ClockError> {
        Self::new(parts.actor, parts.counter)
    }
}

#[cfg(feature = "serde")]
impl From<Dot> for DotParts {
    fn from(dot: Dot) -> Self {
        Self { actor: dot.actor, counter: dot.counter }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn actors_are_ordered_by_node_then_incarnation() {
        let second_life = ActorId::new(1).with_incarnation(u32::MAX);
        assert!(ActorId::new(1) < second_life);
        assert!(second_life < ActorId::new(2));
        assert_eq!((second_life.node(), second_life.incarnation()), (1, u32::MAX));
    }

    #[test]
    fn a_dot_counts_from_one_and_leaves_half_of_the_range() {
        let actor = ActorId::new(1);
        assert_eq!(Dot::new(actor, 0), Err(ClockError::Counter { counter: 0 }));
        assert_eq!(Dot::new(actor, COUNTER_MAX + 1), Err(ClockError::Counter { counter: COUNTER_MAX + 1 }));
        assert_eq!(Dot::new(actor, COUNTER_MAX).map(Dot::counter), Ok(COUNTER_MAX));
    }
}
