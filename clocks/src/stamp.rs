//! A time and whose it is: a total order.

use core::fmt;

use crate::actor::ActorId;

/// A time with the actor as tie-break: no two events of a system have the same stamp, so every replica orders any set
/// of stamps alike.
///
/// The order agrees with causality. It also orders what is concurrent, by an arbitrary rule: the greater time, then the
/// greater actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stamp<T> {
    /// When: a [`LamportTime`](crate::LamportTime) or a [`HybridTime`](crate::HybridTime).
    pub time: T,
    /// Who: the tie-break.
    pub actor: ActorId,
}

impl<T: fmt::Display> fmt::Display for Stamp<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.time, self.actor)
    }
}
