//! A sparse map from index to entry, kept as shared segments.

use std::collections::VecDeque;

use crate::{Entries, Entry, IndexRange, Loaded, LogIndex};

/// A sparse log in memory: what [`crate::Storage`] is, without durability.
///
/// Appending a segment is constant time and copies no entry; overwriting, truncating and reading cost
/// a binary search over segments. In-memory storages, write-through tails and protocols' tails use it.
#[derive(Clone, Debug, Default)]
pub struct SparseLog {
    /// Ascending and disjoint; none is empty.
    segments: VecDeque<Entries>,
    weight: usize,
}

impl SparseLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> SparseLog {
        SparseLog::default()
    }

    /// True if no entry is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The lowest position held.
    #[must_use]
    pub fn first_index(&self) -> Option<LogIndex> {
        self.segments.front().map(Entries::first_index)
    }

    /// The highest position held.
    #[must_use]
    pub fn last_index(&self) -> Option<LogIndex> {
        self.segments.back().map(Entries::last_index)
    }

    /// What is held, against memory bounds, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The segments, in order.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Entries> {
        self.segments.iter()
    }

    /// Sets the entries at their positions, replacing what stood there and touching nothing else.
    pub fn put(&mut self, entries: Entries) {
        if entries.is_empty() {
            return;
        }
        self.weight += entries.weight();
        if self.last_index().is_none_or(|last| last < entries.first_index()) {
            self.segments.push_back(entries);
            return;
        }
        let range = entries.range();
        let at = self.first_segment_ending_after(range.from);
        let mut rest: Vec<Entries> = Vec::new();
        while let Some(old) = self.segments.get(at) {
            if old.first_index() >= range.to {
                break;
            }
            let old = self.segments.remove(at).expect("just seen");
            let before = old.slice(IndexRange::new(LogIndex::ZERO, range.from));
            let after = old.slice(IndexRange::new(range.to, LogIndex(u64::MAX)));
            self.weight -= old.weight() - before.weight() - after.weight();
            rest.extend([before, after].into_iter().filter(|part| !part.is_empty()));
        }
        let position = rest.iter().filter(|part| part.first_index() < range.from).count();
        rest.insert(position, entries);
        for (offset, part) in rest.into_iter().enumerate() {
            self.segments.insert(at + offset, part);
        }
    }

    /// Removes every entry at or above `from`.
    pub fn truncate_from(&mut self, from: LogIndex) {
        while self.last_index().is_some_and(|last| last >= from) {
            let last = self.segments.pop_back().expect("just seen");
            let kept = last.slice(IndexRange::new(LogIndex::ZERO, from));
            self.weight -= last.weight() - kept.weight();
            if !kept.is_empty() {
                self.segments.push_back(kept);
            }
        }
    }

    /// Removes every entry at or below `through`.
    pub fn compact_to(&mut self, through: LogIndex) {
        while self.first_index().is_some_and(|first| first <= through) {
            let first = self.segments.pop_front().expect("just seen");
            let kept = first.slice(IndexRange::new(through.next(), LogIndex(u64::MAX)));
            self.weight -= first.weight() - kept.weight();
            if !kept.is_empty() {
                self.segments.push_front(kept);
            }
        }
    }

    /// Removes whole segments that `keep` does not want, lowest first, while more than `weight_max` bytes are
    /// held. Looks at a bounded number of segments per call. For caches.
    pub fn evict(&mut self, weight_max: usize, keep: impl Fn(IndexRange) -> bool) {
        const LOOKS_MAX: usize = 8;
        let mut kept = 0;
        while self.weight > weight_max && kept < LOOKS_MAX {
            let Some(segment) = self.segments.get(kept) else { return };
            if keep(segment.range()) {
                kept += 1;
                continue;
            }
            self.weight -= segment.weight();
            self.segments.remove(kept);
        }
    }

    /// Removes whole segments at or below `through`, lowest first, while more than `weight_max` bytes are
    /// held. Cheaper than [`SparseLog::compact_to`]; for caches.
    pub fn evict_to(&mut self, through: LogIndex, weight_max: usize) {
        while self.weight > weight_max
            && self.segments.front().is_some_and(|first| first.last_index() <= through)
        {
            let first = self.segments.pop_front().expect("just seen");
            self.weight -= first.weight();
        }
    }

    /// The entry at `index`, if there is one.
    #[must_use]
    pub fn get(&self, index: LogIndex) -> Option<&Entry> {
        self.segment_at(index).and_then(|segment| segment.at(index))
    }

    /// The rest of the segment that holds `index`, from `index` on; empty if there is no such entry.
    #[must_use]
    pub fn run_from(&self, index: LogIndex) -> Entries {
        match self.segment_at(index) {
            Some(segment) if segment.first_index() == index => segment.clone(),
            Some(segment) if segment.range().contains(index) => {
                segment.slice(IndexRange::new(index, LogIndex(u64::MAX)))
            }
            _ => Entries::empty(),
        }
    }

    /// Consecutive entries from `from` on, up to `to`, a count and a weight: one shared segment where
    /// one will do, a copy of several small ones otherwise. Empty if there is no entry at `from`.
    #[must_use]
    pub fn collect_run(&self, range: IndexRange, count_max: usize, bytes_max: usize) -> Entries {
        let first = self.run_from(range.from).slice(range).prefix(count_max, bytes_max);
        let mut next = range.from.advance(first.len() as u64);
        if first.is_empty() || first.len() >= count_max || next >= range.to || self.get(next).is_none() {
            return first;
        }
        let mut weight = first.weight();
        if weight >= bytes_max || self.segment_at(next.prev()).is_some_and(|s| s.last_index() != next.prev())
        {
            return first;
        }
        let mut entries: Vec<Entry> = first.to_vec();
        'fill: loop {
            let run = self.run_from(next).slice(range);
            if run.is_empty() {
                break;
            }
            for entry in run.iter() {
                weight += entry.weight();
                if entries.len() >= count_max || weight > bytes_max {
                    break 'fill;
                }
                entries.push(entry.clone());
            }
            next = next.advance(run.len() as u64);
        }
        Entries::new(entries).expect("runs were taken at consecutive positions")
    }

    /// Every entry inside `range`, or of a prefix of it that weighs at most `bytes_max` (but at least one
    /// entry if there is one).
    #[must_use]
    pub fn read(&self, range: IndexRange, bytes_max: usize) -> Loaded {
        let mut loaded = Loaded { segments: Vec::new(), to: range.to.max(range.from) };
        let mut left = bytes_max;
        for segment in self.segments.range(self.first_segment_ending_after(range.from)..) {
            let part = segment.slice(range);
            if part.is_empty() {
                break;
            }
            if left == 0 && !loaded.segments.is_empty() {
                loaded.to = part.first_index();
                break;
            }
            let taken = part.prefix(usize::MAX, left);
            let weight = taken.weight();
            if weight > left && !loaded.segments.is_empty() {
                loaded.to = part.first_index();
                break;
            }
            left = left.saturating_sub(weight);
            let cut = taken.len() < part.len();
            let to = taken.range().to;
            loaded.segments.push(taken);
            if cut {
                loaded.to = to;
                break;
            }
        }
        loaded
    }

    fn segment_at(&self, index: LogIndex) -> Option<&Entries> {
        // What is asked for is nearly always among the last few: segments may be as small as one entry.
        for segment in self.segments.iter().rev().take(4) {
            if segment.first_index() <= index {
                return Some(segment);
            }
        }
        self.segments.get(self.first_segment_ending_after(index))
    }

    /// The position of the first segment whose last entry is at or above `index`.
    fn first_segment_ending_after(&self, index: LogIndex) -> usize {
        self.segments.partition_point(|segment| segment.last_index() < index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{Kind, Reign, RequestId, Stamp};

    fn run(first: u64, count: u64, stamp: u64) -> Entries {
        let items: Vec<()> = vec![(); usize::try_from(count).unwrap()];
        Entries::numbered(LogIndex(first), items, |index, ()| Entry {
            index,
            stamp: Stamp { high: stamp, low: 0 },
            reign: Reign::default(),
            kind: Kind::Command,
            request: RequestId::NONE,
            payload: Bytes::from(vec![0; usize::try_from(stamp % 7).unwrap()]),
        })
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(u64, u64, u64),
        Truncate(u64),
        Compact(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (1u64..40, 1u64..8, 1u64..100).prop_map(|(from, count, stamp)| Op::Put(from, count, stamp)),
            1 => (1u64..45).prop_map(Op::Truncate),
            1 => (0u64..20).prop_map(Op::Compact),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_from_index_to_entry(ops in proptest::collection::vec(op(), 0..60), from in 1u64..45, len in 0u64..45, bytes_max in 0usize..3000) {
            let mut log = SparseLog::new();
            let mut map: BTreeMap<u64, Entry> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Put(first, count, stamp) => {
                        let entries = run(first, count, stamp);
                        for entry in entries.iter() {
                            map.insert(entry.index.0, entry.clone());
                        }
                        log.put(entries);
                    }
                    Op::Truncate(at) => {
                        log.truncate_from(LogIndex(at));
                        map.retain(|index, _| *index < at);
                    }
                    Op::Compact(at) => {
                        log.compact_to(LogIndex(at));
                        map.retain(|index, _| *index > at);
                    }
                }
                let flat: Vec<Entry> = log.segments().flat_map(|s| s.iter().cloned()).collect();
                prop_assert_eq!(&flat, &map.values().cloned().collect::<Vec<_>>());
                prop_assert_eq!(log.weight(), map.values().map(Entry::weight).sum::<usize>());
                prop_assert_eq!(log.first_index().map(|i| i.0), map.keys().next().copied());
                prop_assert_eq!(log.last_index().map(|i| i.0), map.keys().next_back().copied());
            }
            for index in 0..50 {
                prop_assert_eq!(log.get(LogIndex(index)), map.get(&index));
            }
            let range = IndexRange::new(LogIndex(from), LogIndex(from + len));
            let loaded = log.read(range, bytes_max);
            prop_assert!(loaded.to <= range.to);
            let got: Vec<Entry> = loaded.segments.iter().flat_map(|s| s.iter().cloned()).collect();
            let want: Vec<Entry> = map.range(from..loaded.to.0.max(from)).map(|(_, e)| e.clone()).collect();
            prop_assert_eq!(&got, &want);
            prop_assert!(got.len() <= 1 || got.iter().map(Entry::weight).sum::<usize>() <= bytes_max);
            prop_assert!(loaded.to == range.to || !got.is_empty());
            let dense = log.collect_run(range, 5, bytes_max);
            prop_assert!(dense.len() <= 5);
            for (offset, entry) in dense.iter().enumerate() {
                prop_assert_eq!(Some(entry), map.get(&(from + offset as u64)));
            }
            prop_assert_eq!(dense.is_empty(), len == 0 || !map.contains_key(&from));
        }
    }
}
