//! Dotted version vector sets: the versions of one object that nobody has replaced, exactly.

use alloc::vec::Vec;
use core::fmt;

use crate::actor::{ActorId, Dot};
use crate::causality::Causality;
use crate::counts::Counts;
use crate::version::VersionVector;

/// The siblings of one object with their causal history.
///
/// A client reads siblings and a context, and writes with that context to any server. The write replaces what the
/// context has seen, and nothing else.
///
/// ```text
///                     server a                         what the client sends
///   start             a: 0 []
///   X writes x        a: 1 [x]                         context {}     (saw nothing)
///   Y writes y        a: 2 [x y]                       context {}     (saw nothing: x stays)
///   X writes x'       a: 3 [y x']                      context {a:1}  (saw x: x goes, y stays)
///   Z reads, writes   a: 4 [z]                         context {a:3}  (saw both)
/// ```
///
/// For each actor there is a counter `n` and the values of its **last** events: the number of values says which. So an
/// entry is two numbers, n and how many of its events are replaced, and synchronising takes the greater of each:
///
/// ```text
///   a: 3 [y x']     events 1 2 3, replaced: 1      sync      events 1 2 3 4
///                              . y x'            ------->    replaced: 1 2 3      a: 4 [z]
///   a: 4 [z]        events 1 2 3 4, replaced: 3                     . . . z
/// ```
///
/// The size is one entry for each **server** that ever took a write, plus the siblings; clients have no entries. With a
/// version vector instead, 101 interleaved writes of two clients at one server leave 101 siblings or lose writes; here
/// they leave 2.
///
/// Almeida, Baquero, Goncalves, Preguica and Fonte, *Scalable and Accurate Causality Tracking for Eventually Consistent
/// Stores* (DAIS 2014); the dots are those of Preguica and others, *Dotted Version Vectors: Logical Clocks for
/// Optimistic Replication* (2010). Their anonymous values, for clocks made at a client, are not here: a value gets its
/// dot from the server that takes it.
///
/// **Limits.** It is exact as long as no dot is used twice: see [`ActorId`]. Dropping a set (also one whose values are
/// all deleted) forgets its counters, so the next write of the same actor would reuse a dot that others have already
/// replaced, and be lost. Drop one only when every replica holds it, and go on with another incarnation. A client that
/// forges a context can remove what it never read; sign contexts that leave the hands of trusted code.
///
/// ```
/// use synod_clocks::{ActorId, DottedVersionVectorSet, VersionVector};
/// let a = ActorId::new(1);
/// let mut set = DottedVersionVectorSet::new();
/// let blind = VersionVector::new();
/// set.update(a, &blind, "x");
/// let saw_x = set.join();
/// set.update(a, &blind, "y");
/// set.update(a, &saw_x, "x'");
/// assert_eq!(set.values().collect::<Vec<_>>(), [&"y", &"x'"]);
/// set.update(a, &set.join(), "z");
/// assert_eq!(set.values().collect::<Vec<_>>(), [&"z"]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(
        try_from = "Vec<Entry<T>>",
        into = "Vec<Entry<T>>",
        bound(serialize = "T: serde::Serialize + Clone", deserialize = "T: serde::Deserialize<'de>")
    )
)]
pub struct DottedVersionVectorSet<T> {
    /// Sorted by actor.
    entries: Vec<Entry<T>>,
}

/// The events of one actor.
#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Entry<T> {
    /// The last event known.
    pub(crate) last: Dot,
    /// The values of the last events, oldest first; never more than there are events.
    pub(crate) values: Vec<T>,
}

impl<T> DottedVersionVectorSet<T> {
    /// An object that was never written.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Everything seen here, as one version vector: the context to hand to a reader.
    #[must_use]
    pub fn join(&self) -> VersionVector {
        let mut counts = Counts::default();
        for entry in &self.entries {
            counts.push(entry.last);
        }
        VersionVector(counts)
    }

    /// The server `actor` takes a write of a client that has seen `context`: removes what the context has seen, adds the
    /// value, and returns its dot.
    ///
    /// An empty context is a blind write: it replaces nothing.
    pub fn update(&mut self, actor: ActorId, context: &VersionVector, value: T) -> Dot {
        self.discard(context);
        let at = self.place(actor);
        let entry = &mut self.entries[at];
        entry.last.counter += 1;
        entry.values.push(value);
        entry.last
    }

    /// Removes the values that `context` has seen, and remembers that they are removed: a causal delete. What is
    /// concurrent with the context stays.
    pub fn discard(&mut self, context: &VersionVector) {
        for seen in context.iter() {
            let at = self.place(seen.actor);
            let entry = &mut self.entries[at];
            entry.replace_through(seen.counter);
            entry.last.counter = entry.last.counter.max(seen.counter);
        }
    }

    /// Takes over what another replica knows of the object. Commutative, associative and idempotent.
    pub fn sync(&mut self, other: &Self)
    where
        T: Clone,
    {
        for theirs in &other.entries {
            match self.entries.binary_search_by_key(&theirs.last.actor, |entry| entry.last.actor) {
                Err(at) => self.entries.insert(at, theirs.clone()),
                Ok(at) => {
                    let ours = &mut self.entries[at];
                    let replaced = ours.replaced().max(theirs.replaced());
                    if ours.last.counter < theirs.last.counter {
                        *ours = theirs.clone();
                    }
                    ours.replace_through(replaced);
                }
            }
        }
    }

    /// Replaces all siblings by one value, as a write of `actor` that has seen all of them; returns its dot. With fewer
    /// than two siblings there is nothing to reconcile, and `None`.
    ///
    /// `choose` gets the siblings in the order of their dots, which is the same at every replica. It must depend on
    /// nothing else: two replicas that reconcile at once create two siblings again, and only equal answers end that.
    pub fn reconcile(&mut self, actor: ActorId, choose: impl FnOnce(&[Sibling<'_, T>]) -> T) -> Option<Dot> {
        if self.len() < 2 {
            return None;
        }
        let siblings: Vec<Sibling<'_, T>> = self.siblings().collect();
        let value = choose(&siblings);
        Some(self.update(actor, &self.join(), value))
    }

    /// The values, in the order of their dots.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flat_map(|entry| &entry.values)
    }

    /// The values with their dots, in the order of the dots.
    pub fn siblings(&self) -> impl Iterator<Item = Sibling<'_, T>> {
        self.entries.iter().flat_map(|entry| {
            let first = entry.replaced() + 1;
            let dot = move |at: usize| Dot { actor: entry.last.actor, counter: first + at as u64 };
            entry.values.iter().enumerate().map(move |(at, value)| Sibling { dot: dot(at), value })
        })
    }

    /// How many siblings there are: more than one is a conflict.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.iter().map(|entry| entry.values.len()).sum()
    }

    /// True without any value: never written, or deleted (then [`join`](Self::join) is not empty).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.values.is_empty())
    }

    /// What this replica knows against what another one knows: `Before` if a sync would only change this one.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Causality {
        Causality::from_lacks(self.lacks(other), other.lacks(self))
    }

    /// True if the other side knows an event, or a replacement, that is not known here.
    fn lacks(&self, other: &Self) -> bool {
        other.entries.iter().any(|theirs| {
            match self.entries.binary_search_by_key(&theirs.last.actor, |entry| entry.last.actor) {
                Err(_) => true,
                Ok(at) => {
                    let ours = &self.entries[at];
                    ours.last.counter < theirs.last.counter || ours.replaced() < theirs.replaced()
                }
            }
        })
    }

    /// Where the entry of `actor` is; adds one without events.
    fn place(&mut self, actor: ActorId) -> usize {
        self.entries.binary_search_by_key(&actor, |entry| entry.last.actor).unwrap_or_else(|at| {
            self.entries.insert(at, Entry { last: Dot { actor, counter: 0 }, values: Vec::new() });
            at
        })
    }

    pub(crate) fn entries(&self) -> &[Entry<T>] {
        &self.entries
    }

    /// Takes entries that are sorted by actor and hold no more values than events.
    pub(crate) fn from_entries(entries: Vec<Entry<T>>) -> Self {
        Self { entries }
    }
}

impl<T> Entry<T> {
    /// How many of the events are replaced: all but those with a value.
    fn replaced(&self) -> u64 {
        self.last.counter - self.values.len() as u64
    }

    /// Drops the values of the events up to `counter`.
    fn replace_through(&mut self, counter: u64) {
        let gone = counter.saturating_sub(self.replaced()).min(self.values.len() as u64);
        self.values.drain(..gone as usize);
    }
}

/// One of several values that nobody has replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Sibling<'a, T> {
    /// The write that put it there.
    pub dot: Dot,
    /// The value.
    pub value: &'a T,
}

impl<T> Clone for Sibling<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Sibling<'_, T> {}

impl<T> Default for DottedVersionVectorSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// `{1.0:3 [y, x'], 2.0:1 []}`
impl<T: fmt::Debug> fmt::Debug for DottedVersionVectorSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, entry) in self.entries.iter().enumerate() {
            write!(f, "{}{} {:?}", if at == 0 { "" } else { ", " }, entry.last, entry.values)?;
        }
        f.write_str("}")
    }
}

#[cfg(feature = "serde")]
impl<T> TryFrom<Vec<Entry<T>>> for DottedVersionVectorSet<T> {
    type Error = crate::error::ClockError;

    fn try_from(mut entries: Vec<Entry<T>>) -> Result<Self, Self::Error> {
        entries.sort_unstable_by_key(|entry| entry.last.actor);
        if entries.windows(2).any(|pair| pair[0].last.actor == pair[1].last.actor) {
            return Err(Self::Error::Repeated);
        }
        match entries.iter().find(|entry| (entry.values.len() as u64) > entry.last.counter) {
            Some(entry) => Err(Self::Error::Counter { counter: entry.last.counter }),
            None => Ok(Self::from_entries(entries)),
        }
    }
}

#[cfg(feature = "serde")]
impl<T> From<DottedVersionVectorSet<T>> for Vec<Entry<T>> {
    fn from(set: DottedVersionVectorSet<T>) -> Self {
        set.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ActorId = ActorId::new(1);
    const B: ActorId = ActorId::new(2);

    fn values(set: &DottedVersionVectorSet<u32>) -> Vec<u32> {
        set.values().copied().collect()
    }

    #[test]
    fn a_delete_takes_what_it_has_seen_and_stays_in_force_at_a_replica_that_lags() {
        let mut here = DottedVersionVectorSet::new();
        here.update(A, &VersionVector::new(), 1);
        let lagging = here.clone();
        here.discard(&lagging.join());
        assert!(here.is_empty());
        assert_eq!(lagging.compare(&here), Causality::Before);
        here.sync(&lagging);
        assert!(here.is_empty(), "the value does not come back");
    }

    #[test]
    fn a_write_concurrent_with_a_delete_survives_it() {
        let mut here = DottedVersionVectorSet::new();
        here.update(A, &VersionVector::new(), 1);
        let seen = here.join();
        let mut there = here.clone();
        there.update(B, &seen, 2);
        here.discard(&seen);
        here.sync(&there);
        assert_eq!(values(&here), [2]);
    }

    #[test]
    fn a_context_from_another_replica_counts_before_the_sync_arrives() {
        let mut there = DottedVersionVectorSet::new();
        there.update(B, &VersionVector::new(), 1);
        let mut here = DottedVersionVectorSet::new();
        here.update(A, &there.join(), 2);
        here.sync(&there);
        assert_eq!(values(&here), [2], "the write had seen the other one");
    }

    #[test]
    fn reconciling_leaves_one_value_that_follows_all() {
        let mut here = DottedVersionVectorSet::new();
        assert_eq!(here.reconcile(A, |_| 0), None);
        here.update(A, &VersionVector::new(), 1);
        here.update(B, &VersionVector::new(), 2);
        let before = here.clone();
        let dot = here.reconcile(A, |siblings| siblings.iter().map(|sibling| sibling.value).sum());
        assert_eq!(dot, Dot::new(A, 2).ok());
        assert_eq!((values(&here), here.compare(&before)), (alloc::vec![3], Causality::After));
    }
}
