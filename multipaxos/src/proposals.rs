//! What a leader has proposed in its ballot.

use std::collections::VecDeque;

use synod_core::{Entries, Entry, IndexRange, LogIndex};

/// The values of one ballot, slot by slot without holes, in memory: all that is not settled, and of the rest as
/// much as slow peers may want.
#[derive(Clone, Debug)]
pub(crate) struct Proposals {
    /// Consecutive; the last one ends at `last`.
    segments: VecDeque<Weighed>,
    last: LogIndex,
    weight: usize,
    weight_max: usize,
}

/// Entries and what they weigh.
#[derive(Clone, Debug)]
pub(crate) struct Weighed {
    pub(crate) entries: Entries,
    pub(crate) weight: usize,
}

impl Proposals {
    /// Nothing proposed yet; the first value goes after `last`.
    pub(crate) fn new(last: LogIndex, weight_max: usize) -> Proposals {
        Proposals { segments: VecDeque::new(), last, weight: 0, weight_max }
    }

    /// The last slot that something was proposed for.
    pub(crate) fn last(&self) -> LogIndex {
        self.last
    }

    /// The first slot whose value is still in memory; the one after the last if there is none.
    pub(crate) fn first_held(&self) -> LogIndex {
        self.segments.front().map_or(self.last.next(), |segment| segment.entries.first_index())
    }

    pub(crate) fn get(&self, slot: LogIndex) -> Option<&Entry> {
        self.segments.get(self.segment_of(slot)).and_then(|segment| segment.entries.at(slot))
    }

    pub(crate) fn push(&mut self, entries: Entries, weight: usize) {
        assert_eq!(entries.first_index(), self.last.next(), "a leader proposes slot after slot");
        self.last = entries.last_index();
        self.weight += weight;
        self.segments.push_back(Weighed { entries, weight });
    }

    /// Everything through `settled` may be forgotten; it is, oldest first, while more than the bound is held.
    pub(crate) fn settle(&mut self, settled: LogIndex) {
        while self.weight > self.weight_max
            && let Some(oldest) = self.segments.front()
            && oldest.entries.last_index() <= settled
        {
            self.weight -= oldest.weight;
            self.segments.pop_front();
        }
    }

    /// Entries from `from` on: one shared segment where it is large enough to be worth a message, several small
    /// ones copied together otherwise. `None` if `from` is not held.
    ///
    /// At most `count_max` entries that weigh at most `bytes_max`, but at least one.
    pub(crate) fn collect(&self, from: LogIndex, count_max: usize, bytes_max: usize) -> Option<Weighed> {
        let at = self.segment_of(from);
        let first = self.segments.get(at)?.part(from, count_max, bytes_max)?;
        let next = from.advance(first.entries.len() as u64);
        let whole = next > self.segments[at].entries.last_index();
        if first.entries.len() >= COPY_BELOW.min(count_max) || !whole {
            return Some(first);
        }
        let Some(following) = self.segments.get(at + 1) else { return Some(first) };
        if first.weight + following.entries[0].weight() > bytes_max {
            return Some(first);
        }
        let mut weight = first.weight;
        let mut copied: Vec<Entry> = first.entries.to_vec();
        'fill: for segment in self.segments.range(at + 1..) {
            for entry in segment.entries.iter() {
                if copied.len() >= count_max || weight + entry.weight() > bytes_max {
                    break 'fill;
                }
                weight += entry.weight();
                copied.push(entry.clone());
            }
        }
        let entries = Entries::new(copied).expect("proposals have no holes");
        Some(Weighed { entries, weight })
    }

    fn segment_of(&self, slot: LogIndex) -> usize {
        // What is asked for is nearly always in the last one.
        match self.segments.back() {
            Some(last) if slot >= last.entries.first_index() => self.segments.len() - 1,
            _ => self.segments.partition_point(|segment| segment.entries.last_index() < slot),
        }
    }
}

impl Weighed {
    /// The part from `from` on, within bounds; `None` if `from` is not in this segment.
    fn part(&self, from: LogIndex, count_max: usize, bytes_max: usize) -> Option<Weighed> {
        let range = self.entries.range();
        if !range.contains(from) {
            return None;
        }
        if range.from == from && self.weight <= bytes_max && self.entries.len() <= count_max {
            return Some(self.clone());
        }
        let entries = self.entries.slice(IndexRange::new(from, range.to)).prefix(count_max, bytes_max);
        let weight = entries.weight();
        Some(Weighed { entries, weight })
    }
}

/// Segments of fewer entries are copied together into one message; larger ones travel as they are.
const COPY_BELOW: usize = 32;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use synod_core::{Kind, Reign, RequestId, Stamp};

    use super::*;

    fn entries(first: u64, count: usize) -> Entries {
        Entries::numbered(LogIndex(first), vec![(); count], |index, ()| Entry {
            index,
            stamp: Stamp { high: 1, low: 1 },
            reign: Reign::default(),
            kind: Kind::Command,
            request: RequestId::NONE,
            payload: Bytes::from(vec![0; (index.0 % 5) as usize]),
        })
    }

    proptest! {
        #[test]
        fn collects_what_was_pushed_within_bounds(
            sizes in proptest::collection::vec(1usize..50, 0..12), start in 0u64..5,
            from in 0u64..200, count_max in 1usize..60, bytes_max in 1usize..9000,
            settled in 0u64..200, weight_max in 1usize..9000,
        ) {
            let mut proposals = Proposals::new(LogIndex(start), weight_max);
            for size in sizes {
                let segment = entries(proposals.last().0 + 1, size);
                let weight = segment.weight();
                proposals.push(segment, weight);
            }
            proposals.settle(LogIndex(settled));
            prop_assert!(proposals.first_held().0 <= settled.max(start) + 50);
            let held = proposals.first_held().0..=proposals.last().0;
            prop_assert_eq!(proposals.get(LogIndex(from)).is_some(), held.contains(&from));
            match proposals.collect(LogIndex(from), count_max, bytes_max) {
                None => prop_assert!(!held.contains(&from)),
                Some(Weighed { entries, weight }) => {
                    prop_assert_eq!(entries.first_index(), LogIndex(from));
                    prop_assert_eq!(weight, entries.weight());
                    prop_assert!(entries.len() <= count_max && (entries.len() == 1 || weight <= bytes_max));
                }
            }
        }
    }
}
