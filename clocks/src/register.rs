//! A register that keeps what was written at once, until somebody decides.

use core::fmt;

use alloc::vec::Vec;

use crate::actor::{ActorId, Dot};
use crate::causality::Causality;
use crate::dotted::{DottedVersionVectorSet, Sibling};
use crate::resolve::{Resolution, Resolver};
use crate::version::VersionVector;

/// What a reader has seen. Opaque: it comes from a read and goes, unchanged, with the next write.
///
/// As bytes with [`to_bytes`](Self::to_bytes), for a cookie, a header or a client library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct CausalContext(pub(crate) VersionVector);

/// A multi-version register: one object, replicated, that any replica may write.
///
/// ```text
///          get                       put(context)
///  client <---- siblings, context    ----> replica 1 --.
///                                                       merge: what one has seen and the other
///                                          replica 2 --'  has replaced is gone on both
/// ```
///
/// - `put` with the context of a read replaces what that read returned.
/// - `put` with [`CausalContext::none`] is a declared blind write: it becomes a sibling.
/// - `delete` with a context removes what that read returned, and stays as a causal tombstone: the value does not come
///   back from a replica that was away. A concurrent write survives.
/// - `merge` is all that replicas exchange; in any order, any number of times, they end alike.
///
/// The state is a [`DottedVersionVectorSet`]; its limits hold here too, above all the one about dropping tombstones.
///
/// ```
/// use synod_clocks::{ActorId, CausalContext, MultiVersionRegister};
/// let (r1, r2) = (ActorId::new(1), ActorId::new(2));
/// let (mut left, mut right) = (MultiVersionRegister::new(), MultiVersionRegister::new());
/// left.put(r1, &CausalContext::none(), "tea");
/// right.put(r2, &CausalContext::none(), "coffee");
/// left.merge(&right);
/// let read = left.get();
/// assert_eq!(read.siblings.len(), 2);
/// let context = read.context;
/// left.put(r1, &context, "both");
/// right.merge(&left);
/// assert_eq!(right.get().siblings[0].value, &"both");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(
        transparent,
        bound(serialize = "T: serde::Serialize + Clone", deserialize = "T: serde::Deserialize<'de>")
    )
)]
pub struct MultiVersionRegister<T>(pub(crate) DottedVersionVectorSet<T>);

/// What a read returns.
#[derive(Clone, Debug)]
pub struct Read<'a, T> {
    /// The values that nobody has replaced, in the order of their dots: none if absent or deleted, several in a
    /// conflict.
    pub siblings: Vec<Sibling<'a, T>>,
    /// Hand it to the next `put` or `delete`. It covers every sibling.
    pub context: CausalContext,
}

/// What a read with a resolver returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved<T> {
    /// The answer.
    pub answer: Answer<T>,
    /// Hand it to the next `put` or `delete`. It covers every sibling, so writing the answer back settles the conflict.
    pub context: CausalContext,
}

/// What a resolver made of the siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// Never written, or deleted.
    Absent,
    /// One value.
    Value(T),
    /// A conflict that the resolver left to the client, in the order of the dots.
    Conflict(Vec<T>),
}

impl CausalContext {
    /// The context of somebody who has read nothing: a write with it replaces nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds what another read of the same register has seen, for example at another replica.
    pub fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }
}

impl<T> MultiVersionRegister<T> {
    /// A register that was never written.
    #[must_use]
    pub const fn new() -> Self {
        Self(DottedVersionVectorSet::new())
    }

    /// Every sibling, and the context for a write.
    #[must_use]
    pub fn get(&self) -> Read<'_, T> {
        Read { siblings: self.0.siblings().collect(), context: CausalContext(self.0.join()) }
    }

    /// Reads through a resolver. Changes nothing: every replica with the same siblings gives the same answer, now and
    /// whenever. `put` the answer with the context to settle the conflict for good.
    ///
    /// # Panics
    ///
    /// If the resolver picks a sibling that does not exist.
    #[must_use]
    pub fn resolve(&self, resolver: &impl Resolver<T>) -> Resolved<T>
    where
        T: Clone,
    {
        let Read { siblings, context } = self.get();
        let answer = match siblings.as_slice() {
            [] => Answer::Absent,
            [only] => Answer::Value(only.value.clone()),
            several => match resolver.resolve(several) {
                Resolution::KeepAll => {
                    Answer::Conflict(several.iter().map(|sibling| sibling.value.clone()).collect())
                }
                Resolution::Pick(at) => Answer::Value(several[at].value.clone()),
                Resolution::Merge(value) => Answer::Value(value),
            },
        };
        Resolved { answer, context }
    }

    /// The replica `actor` takes a write of a client that has seen `context`; returns the dot of the write.
    pub fn put(&mut self, actor: ActorId, context: &CausalContext, value: T) -> Dot {
        self.0.update(actor, &context.0, value)
    }

    /// Removes what `context` has seen, for good.
    pub fn delete(&mut self, context: &CausalContext) {
        self.0.discard(&context.0);
    }

    /// True if it was written and holds no value: a tombstone, kept because of what it has seen.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.0.is_empty() && !self.0.join().is_empty()
    }

    /// Takes over what another replica knows.
    pub fn merge(&mut self, other: &Self)
    where
        T: Clone,
    {
        self.0.sync(&other.0);
    }

    /// What this replica knows against what another one knows: equal means that a merge changes neither.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Causality {
        self.0.compare(&other.0)
    }
}

impl<T> Default for MultiVersionRegister<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for MultiVersionRegister<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
