//! Where in the files the entries stand.
//!
//! One [`Extent`] stands for up to 64 consecutive entries that were written one after the other; so the index of
//! ten million entries takes some megabytes, and finding one entry costs one short read.

use std::collections::BTreeMap;

use synod_core::{IndexRange, LogIndex, Run, Stamp};

use crate::format::SegmentNumber;

/// Consecutive entries that stand in one piece of a segment, with nothing but batch borders and records of other
/// kinds between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first and last position that count; what the piece holds beside them was overwritten or removed.
    pub(crate) from: LogIndex,
    pub(crate) to: LogIndex,
    /// The position of the first entry of the piece.
    pub(crate) base: LogIndex,
    pub(crate) segment: SegmentNumber,
    pub(crate) offset: u64,
    /// Of the piece.
    pub(crate) bytes: u32,
    /// Of the first entry of the piece; the others follow as in a [`Run`].
    stamp: Stamp,
    rising: bool,
}

impl Extent {
    const ENTRIES_MAX: u64 = 64;
    const BYTES_MAX: u64 = 64 * 1024;

    /// One entry.
    pub(crate) fn one(
        index: LogIndex,
        stamp: Stamp,
        segment: SegmentNumber,
        offset: u64,
        bytes: u32,
    ) -> Extent {
        Extent { from: index, to: index, base: index, segment, offset, bytes, stamp, rising: false }
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.bytes)
    }

    /// The part inside `range`, which is not empty.
    pub(crate) fn cut_to(&self, range: IndexRange) -> Extent {
        Extent { from: self.from.max(range.from), to: self.to.min(range.to.prev()), ..*self }
    }

    fn len(&self) -> u64 {
        self.to.0 - self.from.0 + 1
    }

    fn stamp_at(&self, index: LogIndex) -> Stamp {
        let run = Run { from: self.base, to: self.to, stamp: self.stamp, rising: self.rising };
        run.stamp_at(index)
    }

    /// Takes `next` in, which was written right after this extent, if the two are small and alike.
    pub(crate) fn append(&mut self, next: &Extent) -> bool {
        let fits = self.segment == next.segment
            && self.to.0.checked_add(1) == Some(next.from.0)
            && next.from == next.base
            && next.to.0 - self.base.0 < Extent::ENTRIES_MAX
            && next.end() - self.offset <= Extent::BYTES_MAX;
        if !fits {
            return false;
        }
        let constant = !self.rising && !next.rising && self.stamp == next.stamp;
        let rises = self.stamp.high == next.stamp.high
            && self.stamp.low.checked_add(next.base.distance_from(self.base)) == Some(next.stamp.low)
            && (self.rising || self.base == self.to)
            && (next.rising || next.base == next.to);
        if !constant && !rises {
            return false;
        }
        self.rising = !constant;
        self.to = next.to;
        self.bytes = u32::try_from(next.end() - self.offset).expect("bounded just above");
        true
    }
}

/// What a batch does to the index, in the order of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Extent),
    Truncate(LogIndex),
    Compact(LogIndex, Stamp),
}

/// Notes one more entry written.
pub(crate) fn note_entry(changes: &mut Vec<Change>, extent: Extent) {
    if let Some(Change::Put(last)) = changes.last_mut()
        && last.append(&extent)
    {
        return;
    }
    changes.push(Change::Put(extent));
}

/// Where every entry of the log stands, and how far the log is compacted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// By their first position; disjoint.
    extents: BTreeMap<LogIndex, Extent>,
    compacted: Option<(LogIndex, Stamp)>,
    /// How many entries of each segment count; no segment has 0.
    live: BTreeMap<SegmentNumber, u64>,
    /// The first position of the extent written last, as long as nothing was cut off it.
    open: Option<LogIndex>,
}

impl Index {
    pub(crate) fn apply(&mut self, change: &Change) {
        match *change {
            Change::Put(extent) => self.put(extent),
            Change::Truncate(from) => self.remove(from, LogIndex(u64::MAX)),
            Change::Compact(through, stamp) => self.compact_to(through, stamp),
        }
    }

    pub(crate) fn compacted(&self) -> Option<(LogIndex, Stamp)> {
        self.compacted
    }

    /// The stamp of the entry at `index`, if there is one.
    pub(crate) fn stamp_at(&self, index: LogIndex) -> Option<Stamp> {
        let (_, extent) = self.extents.range(..=index).next_back()?;
        (index <= extent.to).then(|| extent.stamp_at(index))
    }

    /// The oldest segment that holds an entry.
    pub(crate) fn oldest_live(&self) -> Option<SegmentNumber> {
        self.live.keys().next().copied()
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> u64 {
        self.live.values().sum()
    }

    /// The extents that reach into positions from `from` on, in order.
    pub(crate) fn extents_from(&self, from: LogIndex) -> impl Iterator<Item = &Extent> {
        let before = self.extents.range(..from).next_back().map(|(_, extent)| extent);
        before
            .filter(move |extent| extent.to >= from)
            .into_iter()
            .chain(self.extents.range(from..).map(|(_, e)| e))
    }

    /// The entries there are, as a machine is told about them.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for extent in self.extents.values() {
            let stamp = extent.stamp_at(extent.from);
            let rising = extent.rising && extent.from < extent.to;
            let run = Run { from: extent.from, to: extent.to, stamp, rising };
            match runs.last_mut() {
                Some(last) if joins(last, &run) => {
                    last.rising = last.rising || run.rising || last.stamp != run.stamp;
                    last.to = run.to;
                }
                _ => runs.push(run),
            }
        }
        runs
    }

    fn put(&mut self, extent: Extent) {
        let last = self.extents.last_key_value().map(|(_, last)| last.to);
        if last.is_some_and(|last| last >= extent.from) {
            self.remove(extent.from, extent.to);
        }
        *self.live.entry(extent.segment).or_default() += extent.len();
        if let Some(open) = self.open
            && let Some(before) = self.extents.get_mut(&open)
            && before.append(&extent)
        {
            return;
        }
        self.open = Some(extent.from);
        self.extents.insert(extent.from, extent);
    }

    fn compact_to(&mut self, through: LogIndex, stamp: Stamp) {
        if self.compacted.is_none_or(|(bound, _)| bound < through) {
            self.compacted = Some((through, stamp));
            self.remove(LogIndex::ZERO, through);
        }
    }

    /// Removes every entry at `from..=to`.
    fn remove(&mut self, from: LogIndex, to: LogIndex) {
        while let Some(extent) = self.extents.range(..=to).next_back().map(|(_, extent)| *extent)
            && extent.to >= from
        {
            self.extents.remove(&extent.from);
            if self.open == Some(extent.from) {
                self.open = None;
            }
            let mut left = 0;
            if extent.from < from {
                left += from.0 - extent.from.0;
                self.extents.insert(extent.from, Extent { to: from.prev(), ..extent });
            }
            if extent.to > to {
                left += extent.to.0 - to.0;
                self.extents.insert(to.next(), Extent { from: to.next(), ..extent });
            }
            let removed = extent.len() - left;
            let live = self.live.get_mut(&extent.segment).expect("a segment with entries is counted");
            *live -= removed;
            if *live == 0 {
                self.live.remove(&extent.segment);
            }
        }
    }
}

/// True if `next` goes on where `last` ends, and its stamps do too.
fn joins(last: &Run, next: &Run) -> bool {
    if last.to.next() != next.from {
        return false;
    }
    let constant = !last.rising && !next.rising && last.stamp == next.stamp;
    let rises = last.stamp.high == next.stamp.high
        && last.stamp.low.checked_add(next.from.distance_from(last.from)) == Some(next.stamp.low)
        && (last.rising || last.from == last.to)
        && (next.rising || next.from == next.to);
    constant || rises
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        /// So many entries from here, of this stamp, rising or not.
        Put(u64, u64, u64, bool),
        Truncate(u64),
        Compact(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (1..120_u64, 1..90_u64, 1..4_u64, any::<bool>()).prop_map(|(from, count, stamp, rising)| Op::Put(from, count, stamp, rising)),
            1 => (1..150_u64).prop_map(Op::Truncate),
            1 => (0..40_u64).prop_map(Op::Compact),
        ]
    }

    /// An entry in a file, as the index should know it: its stamp, segment and offset.
    type Place = (Stamp, SegmentNumber, u64);

    proptest! {
        #[test]
        fn the_index_agrees_with_a_map_of_places(ops in proptest::collection::vec(op(), 1..40)) {
            let mut index = Index::default();
            let mut map: BTreeMap<u64, Place> = BTreeMap::new();
            let mut offset = 4096;
            for (number, op) in ops.into_iter().enumerate() {
                let segment = SegmentNumber(1 + number as u64 / 7);
                let mut changes = Vec::new();
                match op {
                    Op::Put(from, count, stamp, rising) => {
                        for at in from..from + count {
                            let stamp = Stamp { high: stamp, low: if rising { at } else { 0 } };
                            note_entry(&mut changes, Extent::one(LogIndex(at), stamp, segment, offset, 100));
                            map.insert(at, (stamp, segment, offset));
                            offset += 100;
                        }
                    }
                    Op::Truncate(from) => {
                        changes.push(Change::Truncate(LogIndex(from)));
                        map.retain(|at, _| *at < from);
                    }
                    Op::Compact(through) => {
                        changes.push(Change::Compact(LogIndex(through), Stamp::ZERO));
                        if index.compacted().is_none_or(|(bound, _)| bound.0 < through) {
                            map.retain(|at, _| *at > through);
                        }
                    }
                }
                for change in &changes {
                    index.apply(change);
                }
                prop_assert_eq!(index.len(), map.len() as u64);
                prop_assert_eq!(index.oldest_live(), map.values().map(|(_, segment, _)| *segment).min());
            }
            let mut known: BTreeMap<u64, Place> = BTreeMap::new();
            for extent in index.extents_from(LogIndex::ZERO) {
                prop_assert!(extent.to.0 - extent.base.0 < Extent::ENTRIES_MAX);
                for at in extent.from.0..=extent.to.0 {
                    let offset = extent.offset + 100 * (at - extent.base.0);
                    prop_assert!(offset < extent.end());
                    known.insert(at, (extent.stamp_at(LogIndex(at)), extent.segment, offset));
                }
            }
            prop_assert_eq!(&known, &map);
            let runs = index.runs();
            let stamps: Vec<(u64, Stamp)> = runs.iter().flat_map(|run| (run.from.0..=run.to.0).map(|at| (at, run.stamp_at(LogIndex(at))))).collect();
            prop_assert_eq!(stamps, map.iter().map(|(at, (stamp, _, _))| (*at, *stamp)).collect::<Vec<_>>());
            for at in 0..220 {
                prop_assert_eq!(index.stamp_at(LogIndex(at)), map.get(&at).map(|(stamp, _, _)| *stamp));
            }
        }
    }

    #[test]
    fn the_index_of_a_long_log_is_small() {
        let mut index = Index::default();
        for at in 1..=100_000_u64 {
            let segment = SegmentNumber(1 + at / 10_000);
            let extent =
                Extent::one(LogIndex(at), Stamp { high: 1, low: 0 }, segment, (at % 10_000) * 512, 204);
            index.apply(&Change::Put(extent));
        }
        assert_eq!(index.len(), 100_000);
        assert!(index.extents.len() < 100_000 / 60, "{} extents", index.extents.len());
        assert_eq!(index.runs().len(), 1);
    }
}
