//! The log as the protocol sees it: the zxids of all of it, and its end in memory.

use std::collections::VecDeque;

use synod_core::{Entries, Entry, IndexRange, LogIndex, Recovered};

use crate::message::{Epoch, Place, Zxid};

/// The zxids of every entry, as runs, and the last entries themselves.
///
/// A history has no holes, so this one is dense: unlike [`synod_core::SparseLog`] it finds a peer's
/// next entries by position, and weighs every segment once.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The place before the first entry: the end of what compaction removed.
    base: Place,
    last_index: LogIndex,
    /// Where each epoch begins, ascending in both; the first begins right after `base`.
    runs: Vec<EpochRun>,
    /// The end of the log, without holes, through `last_index`; may be empty.
    tail: VecDeque<Segment>,
    tail_weight: usize,
    tail_bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct EpochRun {
    first: LogIndex,
    /// That of the entry at `first`; within the run the counter rises with the index.
    zxid: Zxid,
}

impl EpochRun {
    fn at(&self, index: LogIndex) -> Place {
        Place { zxid: self.zxid.advance(index.distance_from(self.first)), index }
    }
}

#[derive(Clone, Debug)]
struct Segment {
    entries: Entries,
    weight: usize,
}

/// Entries and what they weigh.
#[derive(Clone, Debug)]
pub(crate) struct Weighed {
    pub(crate) entries: Entries,
    pub(crate) weight: usize,
}

impl Log {
    /// The log that a storage recovered, or what is wrong with it.
    pub(crate) fn recover(recovered: &Recovered, tail_bytes_max: usize) -> Result<Log, &'static str> {
        let (index, stamp) = recovered.compacted.unwrap_or_default();
        let base = Place { zxid: Zxid::of(stamp), index };
        if !base.is_possible() {
            return Err("the compaction bound has no zxid");
        }
        let mut log = Log {
            base,
            last_index: index,
            runs: Vec::new(),
            tail: VecDeque::new(),
            tail_weight: 0,
            tail_bytes_max,
        };
        for run in &recovered.runs {
            if run.from.0.checked_sub(1) != Some(log.last_index.0) || run.to < run.from {
                return Err("entries are missing");
            }
            let zxid = Zxid::of(run.stamp);
            if !zxid.follows(log.last().zxid) || (!run.rising && run.from != run.to) {
                return Err("a stamp is not the next zxid");
            }
            log.begin_run(run.from, zxid);
            log.last_index = run.to;
        }
        Ok(log)
    }

    fn begin_run(&mut self, first: LogIndex, zxid: Zxid) {
        if self.runs.last().is_none_or(|last| last.zxid.epoch != zxid.epoch) {
            self.runs.push(EpochRun { first, zxid });
        }
    }

    /// The place before the first entry.
    pub(crate) fn base(&self) -> Place {
        self.base
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        self.last_index
    }

    /// The last entry, or the place before the first.
    pub(crate) fn last(&self) -> Place {
        self.runs.last().map_or(self.base, |run| run.at(self.last_index))
    }

    /// The zxid of the entry at `index`; `None` beyond the end and below the base.
    pub(crate) fn zxid_at(&self, index: LogIndex) -> Option<Zxid> {
        if index > self.last_index || index < self.base.index {
            return None;
        }
        if let Some(last) = self.runs.last()
            && index >= last.first
        {
            return Some(last.at(index).zxid);
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        Some(if after == 0 { self.base.zxid } else { self.runs[after - 1].at(index).zxid })
    }

    /// True if the entry at this place is here, and so everything before it is the same as in any other
    /// history that holds it.
    pub(crate) fn holds(&self, place: Place) -> bool {
        self.zxid_at(place.index) == Some(place.zxid)
    }

    /// The highest place at or below `limit.index` whose zxid is not above `limit.zxid`; the base if there is
    /// none. Jumps over whole epochs.
    pub(crate) fn last_not_above(&self, limit: Place) -> Place {
        let mut end = limit.index.min(self.last_index);
        let mut after = self.runs.partition_point(|run| run.first <= end);
        while after > 0 {
            let run = self.runs[after - 1];
            if run.zxid <= limit.zxid {
                if run.zxid.epoch == limit.zxid.epoch {
                    end = end.min(run.first.advance(limit.zxid.counter - run.zxid.counter));
                }
                return run.at(end);
            }
            end = run.first.prev();
            after -= 1;
        }
        self.base
    }

    /// Adds entries whose zxids follow that of the last one.
    pub(crate) fn append(&mut self, entries: Entries, weight: usize) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        assert_eq!(first.index, self.last_index.next(), "ZI10: the history has no holes");
        assert!(Zxid::of(first.stamp).follows(self.last().zxid), "ZI10: zxids have no holes");
        if self.runs.last().map(|run| run.zxid.epoch) != Some(Epoch(last.stamp.high)) {
            // Rare: an epoch begins inside this segment.
            for entry in entries.iter() {
                self.begin_run(entry.index, Zxid::of(entry.stamp));
            }
        }
        self.last_index = last.index;
        self.tail_weight += weight;
        self.tail.push_back(Segment { entries, weight });
        while self.tail_weight > self.tail_bytes_max && self.tail.len() > 1 {
            let oldest = self.tail.pop_front().expect("the tail holds several segments");
            self.tail_weight -= oldest.weight;
        }
    }

    /// Removes every entry at or below `index`, which is one of them.
    pub(crate) fn compact_to(&mut self, index: LogIndex) {
        let zxid = self.zxid_at(index).expect("only what is there is compacted");
        self.base = Place { zxid, index };
        let first = index.next();
        let keep = self.runs.partition_point(|run| run.first <= first);
        self.runs.drain(..keep.saturating_sub(1));
        if index == self.last_index {
            self.runs.clear();
        } else if let Some(run) = self.runs.first_mut() {
            *run = EpochRun { first, zxid: run.at(first).zxid };
        }
        while self.tail.front().is_some_and(|segment| segment.entries.last_index() <= index) {
            let segment = self.tail.pop_front().expect("just seen");
            self.tail_weight -= segment.weight;
        }
    }

    /// A snapshot stands for everything through `base`, and nothing follows it.
    pub(crate) fn restart_after(&mut self, base: Place) {
        self.base = base;
        self.last_index = base.index;
        self.runs.clear();
        self.tail.clear();
        self.tail_weight = 0;
    }

    /// Removes every entry at or above `from`.
    pub(crate) fn truncate_from(&mut self, from: LogIndex) {
        assert!(from > self.base.index, "a compacted entry is decided and stays");
        if from > self.last_index {
            return;
        }
        self.last_index = from.prev();
        while self.runs.last().is_some_and(|run| run.first >= from) {
            self.runs.pop();
        }
        while self.tail.back().is_some_and(|segment| segment.entries.last_index() >= from) {
            let segment = self.tail.pop_back().expect("just seen");
            self.tail_weight -= segment.weight;
            let entries = segment.entries.slice(IndexRange::new(LogIndex::ZERO, from));
            if !entries.is_empty() {
                let weight = entries.weight();
                self.tail_weight += weight;
                self.tail.push_back(Segment { entries, weight });
            }
        }
    }

    /// Entries from `from` on that are in memory: one shared segment where it is large enough to be worth a
    /// message, several small ones copied together otherwise. `None` if `from` is no longer in memory.
    ///
    /// At most `count_max` entries that weigh at most `bytes_max`, but at least one.
    pub(crate) fn collect(&self, from: LogIndex, count_max: usize, bytes_max: usize) -> Option<Weighed> {
        let back = self.tail.back()?;
        let mut at = self.tail.len() - 1;
        if from < back.entries.first_index() {
            at = self.tail.partition_point(|segment| segment.entries.last_index() < from);
        }
        let first = self.tail[at].part(from, count_max, bytes_max)?;
        let next = from.advance(first.entries.len() as u64);
        let ends = |index: LogIndex| index > self.tail[at].entries.last_index();
        if first.entries.len() >= COPY_BELOW || !ends(next) || first.entries.len() >= count_max {
            return Some(first);
        }
        let Some(following) = self.tail.get(at + 1) else { return Some(first) };
        let fits = following.entries.first().is_some_and(|entry| first.weight + entry.weight() <= bytes_max);
        if !fits {
            return Some(first);
        }
        let mut weight = first.weight;
        let mut copied: Vec<Entry> = first.entries.to_vec();
        'fill: for segment in self.tail.range(at + 1..) {
            for entry in segment.entries.iter() {
                if copied.len() >= count_max || weight + entry.weight() > bytes_max {
                    break 'fill;
                }
                weight += entry.weight();
                copied.push(entry.clone());
            }
        }
        let entries = Entries::new(copied).expect("the tail has no holes");
        Some(Weighed { entries, weight })
    }
}

impl Segment {
    /// The part from `from` on, within bounds; `None` if `from` is not in this segment.
    fn part(&self, from: LogIndex, count_max: usize, bytes_max: usize) -> Option<Weighed> {
        let range = self.entries.range();
        if !range.contains(from) {
            return None;
        }
        if range.from == from && self.weight <= bytes_max && self.entries.len() <= count_max {
            return Some(Weighed { entries: self.entries.clone(), weight: self.weight });
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
    use synod_core::{Kind, NodeId, RequestId, Run, Stamp};

    use super::*;
    use crate::message::reign;

    fn zxid(epoch: u64, counter: u64) -> Zxid {
        Zxid { epoch: Epoch(epoch), counter }
    }

    fn at(epoch: u64, counter: u64, index: u64) -> Place {
        Place { zxid: zxid(epoch, counter), index: LogIndex(index) }
    }

    /// What follows `before`, by the epochs of the entries.
    fn entries(before: Place, epochs: &[u64]) -> Entries {
        let mut last = before.zxid;
        Entries::numbered(before.index.next(), epochs.to_vec(), |index, epoch| {
            last = if Epoch(epoch) == last.epoch { last.advance(1) } else { zxid(epoch, 1) };
            Entry {
                index,
                stamp: last.stamp(),
                reign: reign(last.epoch, NodeId(1)),
                kind: Kind::Command,
                request: RequestId::NONE,
                payload: Bytes::new(),
            }
        })
    }

    fn push(log: &mut Log, epochs: &[u64]) {
        let entries = entries(log.last(), epochs);
        let weight = entries.weight();
        log.append(entries, weight);
    }

    fn log(epochs: &[u64]) -> Log {
        let mut log = Log::recover(&Recovered::default(), usize::MAX).unwrap();
        push(&mut log, epochs);
        log
    }

    fn zxids(log: &Log) -> Vec<Zxid> {
        (log.base().index.0 + 1..=log.last_index().0).map(|i| log.zxid_at(LogIndex(i)).unwrap()).collect()
    }

    #[test]
    fn zxids_are_known_everywhere_and_nowhere_else() {
        let log = log(&[1, 1, 2, 5, 5]);
        assert_eq!(zxids(&log), [zxid(1, 1), zxid(1, 2), zxid(2, 1), zxid(5, 1), zxid(5, 2)]);
        assert_eq!(log.zxid_at(LogIndex(0)), Some(Zxid::ZERO));
        assert_eq!(log.zxid_at(LogIndex(6)), None);
        assert_eq!(log.last(), at(5, 2, 5));
        assert!(log.holds(at(2, 1, 3)) && !log.holds(at(2, 1, 4)) && log.holds(Place::ZERO));
    }

    #[test]
    fn compaction_keeps_the_zxids_of_what_is_left() {
        let all = [1, 1, 2, 2, 2, 5, 7, 7];
        let whole = zxids(&log(&all));
        for bound in 1..=all.len() {
            let mut compacted = log(&all);
            compacted.compact_to(LogIndex(bound as u64));
            assert_eq!(compacted.base(), Place { zxid: whole[bound - 1], index: LogIndex(bound as u64) });
            assert_eq!(zxids(&compacted), whole[bound..]);
            assert_eq!(compacted.last(), at(7, 2, 8));
            let below = compacted.last_not_above(at(2, 2, 8));
            assert_eq!(below, if bound < 4 { at(2, 2, 4) } else { compacted.base() });
            push(&mut compacted, &[7, 9]);
            assert_eq!(compacted.zxid_at(LogIndex(9)), Some(zxid(7, 3)));
            assert_eq!(compacted.last(), at(9, 1, 10));
        }
    }

    #[test]
    fn a_history_goes_on_after_a_snapshot() {
        let mut log = log(&[1, 1, 2]);
        log.restart_after(at(4, 6, 9));
        assert_eq!((log.base(), log.last()), (at(4, 6, 9), at(4, 6, 9)));
        assert!(log.collect(LogIndex(9), 9, usize::MAX).is_none());
        push(&mut log, &[4, 5]);
        assert_eq!(zxids(&log), [zxid(4, 7), zxid(5, 1)]);
    }

    #[test]
    fn a_jump_goes_over_whole_epochs_and_into_the_one_asked_for() {
        let log = log(&[1, 1, 4, 4, 6]);
        assert_eq!(log.last_not_above(at(9, 9, 9)), at(6, 1, 5));
        assert_eq!(log.last_not_above(at(5, 5, 5)), at(4, 2, 4));
        assert_eq!(log.last_not_above(at(4, 1, 9)), at(4, 1, 3), "not the end of the epoch");
        assert_eq!(log.last_not_above(at(3, 1, 4)), at(1, 2, 2));
        assert_eq!(log.last_not_above(at(4, 9, 3)), at(4, 1, 3));
        assert_eq!(log.last_not_above(at(0, 0, 5)), Place::ZERO);
    }

    #[test]
    fn the_oldest_segments_leave_memory_and_their_zxids_stay() {
        let mut log = Log::recover(&Recovered::default(), 3 * Entry::OVERHEAD).unwrap();
        for epoch in 1..=5 {
            push(&mut log, &[epoch]);
        }
        assert_eq!(zxids(&log).len(), 5);
        assert!(log.collect(LogIndex(2), 9, usize::MAX).is_none());
        assert_eq!(
            log.collect(LogIndex(3), 9, usize::MAX).unwrap().entries,
            entries(at(2, 1, 2), &[3, 4, 5])
        );
        log.truncate_from(LogIndex(2));
        push(&mut log, &[7]);
        assert_eq!(log.collect(LogIndex(2), 9, usize::MAX).unwrap().entries, entries(at(1, 1, 1), &[7]));
    }

    #[test]
    fn a_large_segment_is_shared_and_small_ones_are_copied_together() {
        let mut log = log(&[1; 40]);
        push(&mut log, &[1]);
        push(&mut log, &[1]);
        assert_eq!(log.collect(LogIndex(1), 99, usize::MAX).unwrap().entries.len(), 40);
        assert_eq!(log.collect(LogIndex(39), 99, usize::MAX).unwrap().entries.len(), 4);
        assert_eq!(log.collect(LogIndex(39), 3, usize::MAX).unwrap().entries.len(), 3);
        assert_eq!(log.collect(LogIndex(39), 99, 1).unwrap().entries.len(), 1);
        assert!(log.collect(LogIndex(43), 99, usize::MAX).is_none());
    }

    #[test]
    fn what_is_not_a_history_is_refused() {
        let run = |from, to, high, low, rising| Run {
            from: LogIndex(from),
            to: LogIndex(to),
            stamp: Stamp { high, low },
            rising,
        };
        let of = |compacted, runs| Recovered { compacted, runs, ..Recovered::default() };
        let base = Some((LogIndex(3), Stamp { high: 2, low: 2 }));
        assert!(Log::recover(&of(None, vec![run(1, 3, 1, 1, true), run(4, 4, 2, 1, false)]), 1).is_ok());
        let compacted = Log::recover(&of(base, vec![run(4, 5, 2, 3, true)]), 1).unwrap();
        assert_eq!(compacted.last(), at(2, 4, 5));
        let wrong = [
            of(None, vec![run(2, 3, 1, 1, true)]),
            of(None, vec![run(1, 3, 2, 1, true), run(5, 5, 2, 4, false)]),
            of(None, vec![run(1, 3, 2, 1, true), run(4, 4, 1, 1, false)]),
            of(None, vec![run(1, 3, 2, 1, true), run(4, 4, 2, 5, false)]),
            of(None, vec![run(1, 3, 2, 1, false)]),
            of(None, vec![run(1, 1, 0, 1, false)]),
            of(None, vec![run(1, 1, 2, 2, false)]),
            of(Some((LogIndex(3), Stamp::ZERO)), vec![]),
            of(Some((LogIndex(3), Stamp { high: 2, low: 4 })), vec![]),
            of(base, vec![run(4, 4, 2, 4, false)]),
        ];
        for recovered in wrong {
            assert!(Log::recover(&recovered, 1).is_err(), "{recovered:?}");
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_list_of_zxids(
            ops in proptest::collection::vec((any::<bool>(), 0usize..6, 0u64..3), 1..30),
            limit in (0u64..30, 0u64..9, 0u64..40),
            tail_max in 1usize..2000,
        ) {
            let mut list: Vec<Zxid> = Vec::new();
            let mut log = Log::recover(&Recovered::default(), tail_max).unwrap();
            for (grow, count, rise) in ops {
                if grow {
                    let epoch = list.last().map_or(1, |zxid| zxid.epoch.0) + rise;
                    let more: Vec<u64> =
                        (0..count).map(|i| if i < count / 2 { epoch } else { epoch + rise }).collect();
                    let segment = entries(log.last(), &more);
                    list.extend(segment.iter().map(|entry| Zxid::of(entry.stamp)));
                    let weight = segment.weight();
                    log.append(segment, weight);
                } else {
                    list.truncate(list.len().saturating_sub(count));
                    log.truncate_from(LogIndex(list.len() as u64 + 1));
                }
                prop_assert_eq!(&zxids(&log), &list);
                prop_assert_eq!(log.tail_weight, log.tail.iter().map(|s| s.entries.weight()).sum::<usize>());
            }
            let (epoch, counter, index) = limit;
            let want = (1..=list.len().min(index as usize)).rev().find(|i| list[i - 1] <= zxid(epoch, counter));
            let got = log.last_not_above(at(epoch, counter, index));
            let want = want.map_or(Place::ZERO, |i| Place { zxid: list[i - 1], index: LogIndex(i as u64) });
            prop_assert_eq!(got, want);
        }
    }
}
