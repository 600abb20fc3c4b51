//! Version vectors: which updates of one object a replica has seen.

use alloc::vec::Vec;
use core::fmt;

use crate::actor::{ActorId, Dot};
use crate::causality::Causality;
use crate::counts::Counts;
use crate::error::ClockError;

/// Which updates a version contains: the first n of each actor.
///
/// ```text
///             update at r1          sync r1 -> r2: [1,0] is before what r2 will hold
///  r1  [0,0] ------> [1,0] ----------------+----------------> [1,0]
///                                          v
///  r2  [0,0] ------> [0,1]       [1,0] and [0,1] are concurrent: a conflict; both are kept,
///             update at r2       and the version that resolves it is [1,1] + one update
/// ```
///
/// The same vector as a vector clock with another rule: it belongs to an object, not to a process, and only updates are
/// counted; a synchronisation takes the greater counters and counts nothing. Parker and others, *Detection of Mutual
/// Inconsistency in Distributed Systems* (IEEE Transactions on Software Engineering 9(3), 1983).
///
/// **Limits.** It compares the states of *replicas*. Two clients that write through one replica with the same context
/// get n and n + 1 of that replica, and the second looks newer: its write buries the other one, or every write is kept
/// as a sibling. See [`DottedVersionVectorSet`](crate::DottedVersionVectorSet). With an actor for each client it is
/// exact, and grows with the clients.
///
/// ```
/// use synod_clocks::{ActorId, Causality, VersionVector};
/// let (r1, r2) = (ActorId::new(1), ActorId::new(2));
/// let (mut left, mut right) = (VersionVector::new(), VersionVector::new());
/// left.record(r1);
/// right.record(r2);
/// assert_eq!(left.compare(&right), Causality::Concurrent);
///
/// let mut resolved = left.clone();
/// resolved.merge(&right);
/// resolved.record(r1);
/// assert_eq!(resolved.compare(&left), Causality::After);
/// assert_eq!(resolved.compare(&right), Causality::After);
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Vec<Dot>", into = "Vec<Dot>")
)]
pub struct VersionVector(pub(crate) Counts);

impl VersionVector {
    /// The version without any update.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The version with the first `counter` updates of the actor of each dot.
    ///
    /// # Errors
    ///
    /// [`ClockError::Repeated`] if an actor is named twice.
    pub fn from_dots(dots: impl IntoIterator<Item = Dot>) -> Result<Self, ClockError> {
        Counts::from_dots(dots.into_iter().collect()).map(Self)
    }

    /// Adds the next update of `actor` and names it. Only `actor` itself may do that.
    pub fn record(&mut self, actor: ActorId) -> Dot {
        self.0.record(actor)
    }

    /// Adds an update and all earlier ones of its actor.
    pub fn include(&mut self, dot: Dot) {
        self.0.include(dot);
    }

    /// How many updates of `actor` are in this version.
    #[must_use]
    pub fn get(&self, actor: ActorId) -> u64 {
        self.0.get(actor)
    }

    /// True if the update is in this version.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.actor)
    }

    /// True if it holds no update.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    /// The last update of each actor, sorted by actor.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Dot> + '_ {
        self.0.as_slice().iter().copied()
    }

    /// How this version relates to another, in one pass: linear in the number of actors.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Causality {
        self.0.compare(&other.0)
    }

    /// The least version that contains both: the greater counter of every actor. In place; allocates only when more
    /// than 8 actors come together.
    pub fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    /// Forgets every actor whose last update `keep` does not want, and returns how many.
    ///
    /// Vectors grow with every actor that ever wrote. Forgetting is **not** free: the vector then says that it lacks the
    /// updates of the actor, although the value contains them. Against a vector that still has the entry,
    ///
    /// ```text
    ///   was       may become    the cost
    ///   Equal     Before        a copy of the same version looks newer: one needless transfer
    ///   After     Concurrent    a false conflict: somebody resolves what was none
    ///   After     Before, Equal THE NEWER VALUE IS LOST: it differed in forgotten entries alone
    /// ```
    ///
    /// So forget an actor only when it will write no more (an earlier incarnation, a removed node), every replica has
    /// its last update, and then at every replica. Riak prunes by age instead and takes the false conflicts.
    pub fn prune(&mut self, keep: impl FnMut(Dot) -> bool) -> usize {
        self.0.retain(keep)
    }
}

impl fmt::Display for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl TryFrom<Vec<Dot>> for VersionVector {
    type Error = ClockError;

    fn try_from(dots: Vec<Dot>) -> Result<Self, ClockError> {
        Counts::from_dots(dots).map(Self)
    }
}

impl From<VersionVector> for Vec<Dot> {
    fn from(version: VersionVector) -> Self {
        version.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(dots: &[(u32, u64)]) -> VersionVector {
        let dots = dots.iter().map(|(node, counter)| Dot::new(ActorId::new(*node), *counter).unwrap());
        VersionVector::from_dots(dots).unwrap()
    }

    fn without_first(mut version: VersionVector) -> VersionVector {
        assert_eq!(version.prune(|dot| dot.actor() != ActorId::new(1)), 1);
        version
    }

    #[test]
    fn pruning_costs_what_its_documentation_says() {
        let whole = version(&[(1, 2), (2, 5)]);
        assert_eq!(without_first(whole.clone()).compare(&whole), Causality::Before, "a needless transfer");

        let older = version(&[(1, 2), (2, 4)]);
        assert_eq!(whole.compare(&older), Causality::After);
        assert_eq!(without_first(whole.clone()).compare(&older), Causality::Concurrent, "a false conflict");

        let differs_there_alone = version(&[(1, 1), (2, 5)]);
        assert_eq!(whole.compare(&differs_there_alone), Causality::After);
        assert_eq!(without_first(whole.clone()).compare(&differs_there_alone), Causality::Before, "a loss");
        assert_eq!(
            without_first(whole).compare(&without_first(differs_there_alone)),
            Causality::Equal,
            "a loss"
        );
    }

    #[test]
    fn pruning_a_retired_actor_everywhere_changes_no_relation() {
        let settled = [version(&[(1, 9), (2, 5)]), version(&[(1, 9), (2, 6)]), version(&[(1, 9), (3, 1)])];
        for a in &settled {
            for b in &settled {
                let pruned = without_first(a.clone()).compare(&without_first(b.clone()));
                assert_eq!(pruned, a.compare(b));
            }
        }
    }
}
