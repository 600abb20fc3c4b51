//! Sorted counters, one for each actor: what vector clocks and version vectors are made of.
//!
//! Kept sorted by actor and without zeros, so equal histories are equal values; inline up to [`INLINE`] actors. In the
//! usual case both sides name the same actors, and comparing or merging is one straight loop without branches.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use smallvec::SmallVec;

use crate::actor::{ActorId, Dot};
use crate::causality::Causality;
use crate::error::ClockError;

/// How many actors need no allocation: the replicas of one object, with some to spare for past incarnations.
pub(crate) const INLINE: usize = 8;

/// Counters above zero, sorted by actor. A dot stands for "the first `counter` events of `actor`".
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Counts(SmallVec<[Dot; INLINE]>);

impl Counts {
    pub(crate) fn as_slice(&self) -> &[Dot] {
        &self.0
    }

    pub(crate) fn get(&self, actor: ActorId) -> u64 {
        self.find(actor).map_or(0, |at| self.0[at].counter)
    }

    /// Counts one more event of `actor`.
    pub(crate) fn record(&mut self, actor: ActorId) -> Dot {
        let at = self.find(actor).unwrap_or_else(|at| {
            self.0.insert(at, Dot { actor, counter: 0 });
            at
        });
        self.0[at].counter += 1;
        self.0[at]
    }

    /// Raises one counter.
    pub(crate) fn include(&mut self, dot: Dot) {
        match self.find(dot.actor) {
            Ok(at) => self.0[at].counter = self.0[at].counter.max(dot.counter),
            Err(at) => self.0.insert(at, dot),
        }
    }

    /// Appends a counter of an actor above all others.
    pub(crate) fn push(&mut self, dot: Dot) {
        debug_assert!(self.0.last().is_none_or(|last| last.actor < dot.actor), "sorted by actor");
        self.0.push(dot);
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Dot) -> bool) -> usize {
        let before = self.0.len();
        self.0.retain(|dot| keep(*dot));
        before - self.0.len()
    }

    pub(crate) fn compare(&self, other: &Self) -> Causality {
        let (left, right) = (self.as_slice(), other.as_slice());
        if left.len() == right.len() {
            let mut same_actors = true;
            let (mut left_lacks, mut right_lacks) = (false, false);
            for (a, b) in left.iter().zip(right) {
                same_actors &= a.actor == b.actor;
                left_lacks |= a.counter < b.counter;
                right_lacks |= a.counter > b.counter;
            }
            if same_actors {
                return Causality::from_lacks(left_lacks, right_lacks);
            }
        }
        compare_walking(left, right)
    }

    /// Takes the greater counter of every actor.
    pub(crate) fn merge(&mut self, other: &Self) {
        let right = other.as_slice();
        let left = &mut *self.0;
        if left.len() == right.len() && left.iter().zip(right).all(|(a, b)| a.actor == b.actor) {
            for (a, b) in left.iter_mut().zip(right) {
                a.counter = a.counter.max(b.counter);
            }
            return;
        }
        let missing = missing_actors(left, right);
        let mut from = left.len();
        let mut rest = right.len();
        let Some(&filler) = right.last() else { return };
        self.0.resize(from + missing, filler);
        // From the back, so that nothing is overwritten before it was read; what lies below the last actor of the other
        // side already stands where it belongs.
        let all = &mut *self.0;
        let mut to = all.len();
        while rest > 0 {
            let b = right[rest - 1];
            to -= 1;
            match if from == 0 { Ordering::Less } else { all[from - 1].actor.cmp(&b.actor) } {
                Ordering::Less => {
                    all[to] = b;
                    rest -= 1;
                }
                Ordering::Equal => {
                    from -= 1;
                    rest -= 1;
                    all[to] = Dot { actor: b.actor, counter: all[from].counter.max(b.counter) };
                }
                Ordering::Greater => {
                    from -= 1;
                    all[to] = all[from];
                }
            }
        }
    }

    /// The counters, sorted, refusing an actor that is named twice.
    pub(crate) fn from_dots(mut dots: Vec<Dot>) -> Result<Self, ClockError> {
        dots.sort_unstable();
        if dots.windows(2).any(|pair| pair[0].actor == pair[1].actor) {
            return Err(ClockError::Repeated);
        }
        Ok(Self(SmallVec::from_vec(dots)))
    }

    fn find(&self, actor: ActorId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&actor, |dot| dot.actor)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, dot) in self.0.iter().enumerate() {
            write!(f, "{}{dot}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

/// Compares vectors that do not name the same actors; ends as soon as both sides lack something.
fn compare_walking(left: &[Dot], right: &[Dot]) -> Causality {
    let (mut i, mut j) = (0, 0);
    let (mut left_lacks, mut right_lacks) = (false, false);
    while i < left.len() && j < right.len() && !(left_lacks && right_lacks) {
        let (a, b) = (left[i], right[j]);
        match a.actor.cmp(&b.actor) {
            Ordering::Less => {
                right_lacks = true;
                i += 1;
            }
            Ordering::Greater => {
                left_lacks = true;
                j += 1;
            }
            Ordering::Equal => {
                left_lacks |= a.counter < b.counter;
                right_lacks |= a.counter > b.counter;
                i += 1;
                j += 1;
            }
        }
    }
    Causality::from_lacks(left_lacks || j < right.len(), right_lacks || i < left.len())
}

/// How many actors of `right` are not in `left`.
fn missing_actors(left: &[Dot], right: &[Dot]) -> usize {
    let mut i = 0;
    let mut missing = 0;
    for b in right {
        while i < left.len() && left[i].actor < b.actor {
            i += 1;
        }
        missing += usize::from(i == left.len() || left[i].actor != b.actor);
    }
    missing
}
