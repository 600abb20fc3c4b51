//! Oracles over what was acknowledged and what was applied: exactly once, counters, sets.

use std::fmt::Debug;
use std::hash::Hash;

use thiserror::Error;

use crate::hash::FixedMap;
use crate::history::{Outcome, Tally};

/// Checks that commands took effect exactly once (invariant CL7): acknowledged ones once, failed ones never, those of
/// unknown outcome at most once, and nothing that nobody issued.
///
/// `issued` are the commands with what their clients know, `applied` is the sequence a state machine executed,
/// complete from the beginning. A command is identified by whatever is unique: (client, sequence), or its own bytes.
/// Returns how many commands of each outcome were applied.
///
/// # Errors
///
/// The first discrepancy: in order of `applied`, then lost ones in order of `issued`.
///
/// # Examples
///
/// ```
/// use synod_checker::oracle::{exactly_once, Discrepancy};
/// use synod_checker::Outcome;
///
/// let issued = [("a", Outcome::Ok), ("b", Outcome::Unknown), ("c", Outcome::Failed)];
/// assert!(exactly_once(issued, ["a"]).is_ok());
/// assert!(exactly_once(issued, ["b", "a"]).is_ok());
/// assert_eq!(exactly_once(issued, ["b"]), Err(Discrepancy::Lost { id: "a" }));
/// assert_eq!(exactly_once(issued, ["a", "c"]), Err(Discrepancy::FailedTookEffect { id: "c", position: 1 }));
/// ```
pub fn exactly_once<T: Eq + Hash + Clone + Debug>(
    issued: impl IntoIterator<Item = (T, Outcome)>,
    applied: impl IntoIterator<Item = T>,
) -> Result<Tally, Discrepancy<T>> {
    let mut commands: Vec<(T, Outcome)> = Vec::new();
    let mut seen: FixedMap<T, Seen> = FixedMap::default();
    for (id, outcome) in issued {
        if seen.insert(id.clone(), Seen { outcome, position: None }).is_some() {
            return Err(Discrepancy::IssuedTwice { id });
        }
        commands.push((id, outcome));
    }
    let mut tally = Tally::default();
    for (position, id) in applied.into_iter().enumerate() {
        let Some(seen) = seen.get_mut(&id) else {
            return Err(Discrepancy::NeverIssued { id, position });
        };
        if let Some(first) = seen.position.replace(position) {
            return Err(Discrepancy::Repeated { id, first, second: position });
        }
        match seen.outcome {
            Outcome::Ok => tally.ok += 1,
            Outcome::Unknown => tally.unknown += 1,
            Outcome::Failed => return Err(Discrepancy::FailedTookEffect { id, position }),
        }
    }
    let lost = |(id, outcome): &(T, Outcome)| *outcome == Outcome::Ok && seen[id].position.is_none();
    match commands.into_iter().find(lost) {
        Some((id, _)) => Err(Discrepancy::Lost { id }),
        None => Ok(tally),
    }
}

/// Checks a set that only grows (invariant CL3) against one full read made after every add had ended: nothing lost,
/// nothing that was never added, nothing twice.
///
/// The same question as [`exactly_once`], asked of elements: positions are those of the read.
///
/// # Errors
///
/// The first discrepancy, as [`exactly_once`].
pub fn set_contents<T: Eq + Hash + Clone + Debug>(
    added: impl IntoIterator<Item = (T, Outcome)>,
    read: impl IntoIterator<Item = T>,
) -> Result<Tally, Discrepancy<T>> {
    exactly_once(added, read)
}

struct Seen {
    outcome: Outcome,
    position: Option<usize>,
}

/// A command or element that did not take effect as often as its client was told. Positions count from 0.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Discrepancy<T: Debug> {
    /// Acknowledged, and not there.
    #[error("{id:?} was acknowledged and is lost")]
    Lost {
        /// Which.
        id: T,
    },
    /// There twice.
    #[error("{id:?} took effect twice, at {first} and {second}")]
    Repeated {
        /// Which.
        id: T,
        /// Its first position.
        first: usize,
        /// Its second position.
        second: usize,
    },
    /// Its client was told that it surely had no effect.
    #[error("{id:?} failed and took effect all the same, at {position}")]
    FailedTookEffect {
        /// Which.
        id: T,
        /// Where.
        position: usize,
    },
    /// Nobody issued it.
    #[error("{id:?} at {position} was never issued")]
    NeverIssued {
        /// Which.
        id: T,
        /// Where.
        position: usize,
    },
    /// The clients gave two commands one identity: the question makes no sense.
    #[error("{id:?} was issued twice")]
    IssuedTwice {
        /// Which.
        id: T,
    },
}

/// What clients know of a counter that started at 0 and was incremented by one at a time (invariant CL7).
///
/// # Examples
///
/// ```
/// use synod_checker::oracle::{CounterHistory, CounterError};
///
/// let mut counter = CounterHistory::default();
/// counter.acknowledged(Some(1));
/// counter.acknowledged(None);
/// counter.unknown();
/// assert!(counter.check(2).is_ok());
/// assert!(counter.check(3).is_ok());
/// assert_eq!(counter.check(4), Err(CounterError::TooMany { value: 4, value_max: 3 }));
/// ```
#[derive(Clone, Debug, Default)]
pub struct CounterHistory {
    acknowledged: u64,
    unknown: u64,
    replies: Vec<u64>,
}

impl CounterHistory {
    /// An increment took effect; `reply` is the value it made, if the counter says.
    pub fn acknowledged(&mut self, reply: Option<u64>) {
        self.acknowledged += 1;
        self.replies.extend(reply);
    }

    /// An increment may have taken effect, once. One that surely failed is not recorded at all.
    pub fn unknown(&mut self) {
        self.unknown += 1;
    }

    /// Checks the counter's value after everything ended.
    ///
    /// # Errors
    ///
    /// A value below the acknowledged increments, or above these and the unknown ones; two replies that are equal; a
    /// reply that the counter cannot have reached.
    pub fn check(&self, value: u64) -> Result<(), CounterError> {
        let value_max = self.acknowledged + self.unknown;
        if value < self.acknowledged {
            return Err(CounterError::TooFew { value, value_min: self.acknowledged });
        }
        if value > value_max {
            return Err(CounterError::TooMany { value, value_max });
        }
        let mut replies = self.replies.clone();
        replies.sort_unstable();
        if let Some(pair) = replies.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(CounterError::ReplyTwice { reply: pair[0] });
        }
        match replies.iter().find(|&&reply| reply == 0 || reply > value) {
            Some(&reply) => Err(CounterError::ReplyOutOfRange { reply, value }),
            None => Ok(()),
        }
    }
}

/// A counter that did not count every increment exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CounterError {
    /// An acknowledged increment is lost.
    #[error("the counter is at {value}, and {value_min} increments were acknowledged")]
    TooFew {
        /// The counter's value.
        value: u64,
        /// The least it can be.
        value_min: u64,
    },
    /// An increment counted twice.
    #[error("the counter is at {value}, and at most {value_max} increments can have taken effect")]
    TooMany {
        /// The counter's value.
        value: u64,
        /// The most it can be.
        value_max: u64,
    },
    /// Two increments made the same value.
    #[error("two increments were answered with {reply}")]
    ReplyTwice {
        /// That value.
        reply: u64,
    },
    /// An increment was answered with 0 or with more than the counter has reached.
    #[error("an increment was answered with {reply}, and the counter is at {value}")]
    ReplyOutOfRange {
        /// The answer.
        reply: u64,
        /// The counter's value.
        value: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUED: [(u32, Outcome); 3] = [(1, Outcome::Ok), (2, Outcome::Unknown), (3, Outcome::Failed)];

    #[test]
    fn unknown_commands_may_be_applied_once_or_never() {
        assert_eq!(exactly_once(ISSUED, [1]), Ok(Tally { ok: 1, failed: 0, unknown: 0 }));
        assert_eq!(exactly_once(ISSUED, [2, 1]), Ok(Tally { ok: 1, failed: 0, unknown: 1 }));
        assert_eq!(
            exactly_once(ISSUED, [2, 1, 2]),
            Err(Discrepancy::Repeated { id: 2, first: 0, second: 2 })
        );
    }

    #[test]
    fn lost_repeated_failed_and_unheard_of_commands_are_told_apart() {
        assert_eq!(exactly_once(ISSUED, [2]), Err(Discrepancy::Lost { id: 1 }));
        assert_eq!(exactly_once(ISSUED, [1, 1]), Err(Discrepancy::Repeated { id: 1, first: 0, second: 1 }));
        assert_eq!(exactly_once(ISSUED, [1, 3]), Err(Discrepancy::FailedTookEffect { id: 3, position: 1 }));
        assert_eq!(exactly_once(ISSUED, [1, 4]), Err(Discrepancy::NeverIssued { id: 4, position: 1 }));
        let twice = [(1, Outcome::Ok), (1, Outcome::Ok)];
        assert_eq!(exactly_once(twice, [1]), Err(Discrepancy::IssuedTwice { id: 1 }));
    }

    #[test]
    fn a_set_has_neither_lost_nor_phantom_elements() {
        let added = [("a", Outcome::Ok), ("b", Outcome::Unknown)];
        assert!(set_contents(added, ["b", "a"]).is_ok());
        assert_eq!(set_contents(added, ["b"]), Err(Discrepancy::Lost { id: "a" }));
        assert_eq!(set_contents(added, ["a", "c"]), Err(Discrepancy::NeverIssued { id: "c", position: 1 }));
    }

    #[test]
    fn a_counter_stands_between_the_acknowledged_and_the_possible_increments() {
        let mut counter = CounterHistory::default();
        counter.acknowledged(Some(2));
        counter.acknowledged(None);
        counter.unknown();
        assert_eq!(counter.check(1), Err(CounterError::TooFew { value: 1, value_min: 2 }));
        assert_eq!(counter.check(2), Ok(()));
        assert_eq!(counter.check(3), Ok(()));
        assert_eq!(counter.check(4), Err(CounterError::TooMany { value: 4, value_max: 3 }));
        counter.acknowledged(Some(2));
        assert_eq!(counter.check(3), Err(CounterError::ReplyTwice { reply: 2 }));
        let mut counter = CounterHistory::default();
        counter.acknowledged(Some(2));
        assert_eq!(counter.check(1), Err(CounterError::ReplyOutOfRange { reply: 2, value: 1 }));
    }
}
