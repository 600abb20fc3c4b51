//! What to make of siblings: policies that give the same answer at every replica.

use crate::dotted::Sibling;
use crate::hybrid::HybridTime;

/// A policy for conflicts.
///
/// ```text
///   siblings         ReturnToClient   LastWriterWins     Maximum   MergeWith(union)
///   {3} at 10:00     both             {5}                {5}       {3, 5}
///   {5} at 10:01     nothing lost     the other is LOST  LOST      nothing lost, if the function loses nothing
/// ```
///
/// A resolver must be a function of the siblings alone: no clock, no randomness, no state. The siblings come in the order
/// of their dots, the same at every replica that holds them. It runs on a read; see
/// [`MultiVersionRegister::resolve`](crate::MultiVersionRegister::resolve).
pub trait Resolver<T> {
    /// Decides between at least two siblings.
    fn resolve(&self, siblings: &[Sibling<'_, T>]) -> Resolution<T>;
}

/// What a resolver decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution<T> {
    /// Nothing: the client shall decide.
    KeepAll,
    /// The sibling at this place; the others are given up.
    Pick(usize),
    /// A value made of all.
    Merge(T),
}

/// Leaves every conflict to the client.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReturnToClient;

/// Takes the sibling with the greatest hybrid time; equal times are decided by the dot.
///
/// **Loses writes by design**: of several writes that were made at once, all but one are given up, though each was
/// acknowledged. A clock that is ahead wins for as long as it is ahead. For values where the last one is all that
/// matters.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastWriterWins;

/// Takes the greatest value; equal ones are decided by the dot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Maximum;

/// Folds all siblings with a function.
///
/// Replicas settle conflicts in any order and in any grouping, and may settle one twice. They agree if the function is a
/// join: commutative, associative and idempotent. [`broken_law`](crate::broken_law) checks three values, and
/// `strategy::check_merge` (feature `proptest`) any number of random ones.
#[derive(Clone, Copy, Debug)]
pub struct MergeWith<F>(
    /// Joins two values.
    pub F,
);

/// A value with the hybrid time of its write, for [`LastWriterWins`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Timed<T> {
    /// When it was written.
    pub time: HybridTime,
    /// What was written.
    pub value: T,
}

impl<T> Resolver<T> for ReturnToClient {
    fn resolve(&self, _: &[Sibling<'_, T>]) -> Resolution<T> {
        Resolution::KeepAll
    }
}

impl<T> Resolver<Timed<T>> for LastWriterWins {
    fn resolve(&self, siblings: &[Sibling<'_, Timed<T>>]) -> Resolution<Timed<T>> {
        pick_greatest(siblings, |value| value.time)
    }
}

impl<T: Ord> Resolver<T> for Maximum {
    fn resolve(&self, siblings: &[Sibling<'_, T>]) -> Resolution<T> {
        pick_greatest(siblings, |value| value)
    }
}

impl<T: Clone, F: Fn(&T, &T) -> T> Resolver<T> for MergeWith<F> {
    fn resolve(&self, siblings: &[Sibling<'_, T>]) -> Resolution<T> {
        let mut values = siblings.iter().map(|sibling| sibling.value);
        let Some(first) = values.next() else { return Resolution::KeepAll };
        Resolution::Merge(values.fold(first.clone(), |joined, value| (self.0)(&joined, value)))
    }
}

/// The last of the greatest: siblings are in the order of their dots, so equal keys are decided by the dot.
fn pick_greatest<'a, T, K: Ord>(siblings: &[Sibling<'a, T>], key: impl Fn(&'a T) -> K) -> Resolution<T> {
    let places = siblings.iter().enumerate();
    places
        .max_by_key(|(_, sibling)| key(sibling.value))
        .map_or(Resolution::KeepAll, |(at, _)| Resolution::Pick(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::{ActorId, Dot};

    #[test]
    fn equal_times_are_decided_by_the_dot() {
        let time = HybridTime::from_u64(7);
        let values = [Timed { time, value: "a" }, Timed { time, value: "b" }];
        let dot = |node| Dot::new(ActorId::new(node), 1).unwrap();
        let siblings =
            [Sibling { dot: dot(1), value: &values[0] }, Sibling { dot: dot(2), value: &values[1] }];
        assert_eq!(LastWriterWins.resolve(&siblings), Resolution::Pick(1));
    }
}
