//! The log as the protocol sees it: the terms of all of it, and its end in memory.

use std::collections::VecDeque;

use synod_core::{Entries, Entry, IndexRange, LogIndex, Recovered};

use crate::message::{Position, Term};

/// The terms of every entry, as runs, and the last entries themselves.
///
/// The paper's log has no holes, so this one is dense: unlike [`synod_core::SparseLog`] it finds a peer's
/// next entries by position, and weighs every segment once.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The place before the first entry: the end of what compaction removed.
    base: Position,
    last_index: LogIndex,
    /// Where each term begins, ascending in both; the first begins right after `base`.
    runs: Vec<TermRun>,
    /// The end of the log, without holes, through `last_index`; may be empty.
    tail: VecDeque<Segment>,
    tail_weight: usize,
    tail_bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct TermRun {
    first: LogIndex,
    term: Term,
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
        if stamp.low != 0 || (index == LogIndex::ZERO) != (stamp.high == 0) {
            return Err("the compaction bound has no term");
        }
        let base = Position { term: Term(stamp.high), index };
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
            let term = Term(run.stamp.high);
            if run.rising || run.stamp.low != 0 || term < log.last().term || term == Term::ZERO {
                return Err("a stamp is not a term, or terms fall");
            }
            if log.runs.last().is_none_or(|last| last.term < term) {
                log.runs.push(TermRun { first: run.from, term });
            }
            log.last_index = run.to;
        }
        Ok(log)
    }

    /// The place before the first entry.
    pub(crate) fn base(&self) -> Position {
        self.base
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        self.last_index
    }

    /// The last entry, or the place before the first.
    pub(crate) fn last(&self) -> Position {
        let term = self.runs.last().map_or(self.base.term, |run| run.term);
        Position { term, index: self.last_index }
    }

    /// The term of the entry at `index`; `None` beyond the end and below the base.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index > self.last_index || index < self.base.index {
            return None;
        }
        if let Some(last) = self.runs.last()
            && index >= last.first
        {
            return Some(last.term);
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        Some(if after == 0 { self.base.term } else { self.runs[after - 1].term })
    }

    /// The highest place at or below `limit.index` whose term is not above `limit.term`; the base if there
    /// is none. Jumps over whole terms.
    pub(crate) fn last_not_above(&self, limit: Position) -> Position {
        let index = limit.index.min(self.last_index);
        let mut after = self.runs.partition_point(|run| run.first <= index);
        let mut end = index;
        while after > 0 {
            let run = self.runs[after - 1];
            if run.term <= limit.term {
                return Position { term: run.term, index: end };
            }
            end = run.first.prev();
            after -= 1;
        }
        self.base
    }

    /// Adds entries that follow the last one, in terms that do not fall.
    pub(crate) fn append(&mut self, entries: Entries, weight: usize) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        assert_eq!(first.index, self.last_index.next(), "Log Matching: the log has no holes");
        let mut known = self.runs.last().map(|run| run.term);
        if known != Some(Term(last.stamp.high)) {
            // Rare: a term begins inside this segment.
            for entry in entries.iter() {
                let term = Term(entry.stamp.high);
                if known != Some(term) {
                    self.runs.push(TermRun { first: entry.index, term });
                    known = Some(term);
                }
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
        let term = self.term_at(index).expect("only what is there is compacted");
        self.base = Position { term, index };
        let first = index.next();
        let keep = self.runs.partition_point(|run| run.first <= first);
        self.runs.drain(..keep.saturating_sub(1));
        if index == self.last_index {
            self.runs.clear();
        } else if let Some(run) = self.runs.first_mut() {
            run.first = first;
        }
        while self.tail.front().is_some_and(|segment| segment.entries.last_index() <= index) {
            let segment = self.tail.pop_front().expect("just seen");
            self.tail_weight -= segment.weight;
        }
    }

    /// A snapshot stands for everything through `base`, and nothing follows it.
    pub(crate) fn restart_after(&mut self, base: Position) {
        self.base = base;
        self.last_index = base.index;
        self.runs.clear();
        self.tail.clear();
        self.tail_weight = 0;
    }

    /// Removes every entry at or above `from`.
    pub(crate) fn truncate_from(&mut self, from: LogIndex) {
        assert!(from > self.base.index, "Leader Completeness: a compacted entry is decided and stays");
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
    use synod_core::{Kind, RequestId, Run, Stamp};

    use super::*;
    use crate::message::reign;

    fn entries(first: u64, terms: &[u64]) -> Entries {
        Entries::numbered(LogIndex(first), terms.to_vec(), |index, term| Entry {
            index,
            stamp: Term(term).stamp(),
            reign: reign(Term(term), synod_core::NodeId(1)),
            kind: Kind::Command,
            request: RequestId::NONE,
            payload: Bytes::new(),
        })
    }

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::recover(&Recovered::default(), usize::MAX).unwrap();
        let entries = entries(1, terms);
        let weight = entries.weight();
        log.append(entries, weight);
        log
    }

    fn terms(log: &Log) -> Vec<u64> {
        (log.base().index.0 + 1..=log.last_index().0).map(|i| log.term_at(LogIndex(i)).unwrap().0).collect()
    }

    #[test]
    fn compaction_keeps_the_terms_of_what_is_left() {
        let all = [1, 1, 2, 2, 2, 5, 7, 7];
        for bound in 1..=all.len() as u64 {
            let mut compacted = log(&all);
            compacted.compact_to(LogIndex(bound));
            assert_eq!(compacted.base(), at(all[bound as usize - 1], bound));
            assert_eq!(terms(&compacted), all[bound as usize..]);
            assert_eq!(compacted.last(), at(7, 8));
            assert_eq!(
                compacted.last_not_above(at(4, 8)),
                at(if bound < 5 { 2 } else { all[bound as usize - 1] }, bound.max(5))
            );
            compacted.append(entries(9, &[7, 9]), 1);
            assert_eq!(compacted.term_at(LogIndex(9)), Some(Term(7)));
            assert_eq!(compacted.last(), at(9, 10));
        }
    }

    #[test]
    fn a_log_goes_on_after_a_snapshot() {
        let mut log = log(&[1, 1, 2]);
        log.restart_after(at(4, 9));
        assert_eq!((log.base(), log.last()), (at(4, 9), at(4, 9)));
        assert!(log.collect(LogIndex(9), 9, usize::MAX).is_none());
        log.append(entries(10, &[4, 5]), 1);
        assert_eq!(terms(&log), [4, 5]);
    }

    fn at(term: u64, index: u64) -> Position {
        Position { term: Term(term), index: LogIndex(index) }
    }

    #[test]
    fn terms_are_known_everywhere_and_nowhere_else() {
        let log = log(&[1, 1, 2, 5, 5]);
        assert_eq!(terms(&log), [1, 1, 2, 5, 5]);
        assert_eq!(log.term_at(LogIndex(0)), Some(Term::ZERO));
        assert_eq!(log.term_at(LogIndex(6)), None);
        assert_eq!(log.last(), at(5, 5));
    }

    #[test]
    fn a_jump_goes_over_whole_terms() {
        let log = log(&[1, 1, 4, 4, 6]);
        assert_eq!(log.last_not_above(at(9, 9)), at(6, 5));
        assert_eq!(log.last_not_above(at(5, 5)), at(4, 4));
        assert_eq!(log.last_not_above(at(3, 4)), at(1, 2));
        assert_eq!(log.last_not_above(at(4, 3)), at(4, 3));
        assert_eq!(log.last_not_above(at(0, 5)), Position::ZERO);
    }

    #[test]
    fn the_oldest_segments_leave_memory_and_their_terms_stay() {
        let mut log = Log::recover(&Recovered::default(), 3 * Entry::OVERHEAD).unwrap();
        for index in 1..=5 {
            log.append(entries(index, &[index]), Entry::OVERHEAD);
        }
        assert_eq!(terms(&log), [1, 2, 3, 4, 5]);
        assert!(log.collect(LogIndex(2), 9, usize::MAX).is_none());
        assert_eq!(log.collect(LogIndex(3), 9, usize::MAX).unwrap().entries, entries(3, &[3, 4, 5]));
        log.truncate_from(LogIndex(2));
        assert!(log.collect(LogIndex(2), 9, usize::MAX).is_none());
        log.append(entries(2, &[7]), Entry::OVERHEAD);
        assert_eq!(log.collect(LogIndex(2), 9, usize::MAX).unwrap().entries, entries(2, &[7]));
    }

    #[test]
    fn a_large_segment_is_shared_and_small_ones_are_copied_together() {
        let mut log = Log::recover(&Recovered::default(), usize::MAX).unwrap();
        log.append(entries(1, &[1; 40]), 40 * Entry::OVERHEAD);
        log.append(entries(41, &[1]), Entry::OVERHEAD);
        log.append(entries(42, &[1]), Entry::OVERHEAD);
        assert_eq!(log.collect(LogIndex(1), 99, usize::MAX).unwrap().entries.len(), 40);
        assert_eq!(log.collect(LogIndex(39), 99, usize::MAX).unwrap().entries.len(), 4);
        assert_eq!(log.collect(LogIndex(39), 3, usize::MAX).unwrap().entries.len(), 3);
        assert_eq!(log.collect(LogIndex(39), 99, 1).unwrap().entries.len(), 1);
        assert!(log.collect(LogIndex(43), 99, usize::MAX).is_none());
    }

    #[test]
    fn what_is_not_a_raft_log_is_refused() {
        let run = |from, to, high| Run {
            from: LogIndex(from),
            to: LogIndex(to),
            stamp: Stamp { high, low: 0 },
            rising: false,
        };
        let of = |compacted, runs| Recovered { compacted, runs, ..Recovered::default() };
        let stamp = Stamp { high: 2, low: 0 };
        assert!(Log::recover(&of(None, vec![run(1, 3, 1), run(4, 4, 2)]), 1).is_ok());
        assert!(Log::recover(&of(Some((LogIndex(3), stamp)), vec![run(4, 4, 2)]), 1).is_ok());
        let wrong = [
            of(None, vec![run(2, 3, 1)]),
            of(None, vec![run(1, 3, 2), run(5, 5, 2)]),
            of(None, vec![run(1, 3, 2), run(4, 4, 1)]),
            of(None, vec![run(1, 3, 0)]),
            of(None, vec![Run { rising: true, ..run(1, 3, 2) }]),
            of(None, vec![Run { stamp: Stamp { high: 1, low: 1 }, ..run(1, 3, 2) }]),
            of(Some((LogIndex(3), Stamp::ZERO)), vec![]),
            of(Some((LogIndex(3), stamp)), vec![run(4, 4, 1)]),
        ];
        for recovered in wrong {
            assert!(Log::recover(&recovered, 1).is_err(), "{recovered:?}");
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_list_of_terms(
            ops in proptest::collection::vec((any::<bool>(), 0usize..6, 0u64..3), 1..30),
            limit in (0u64..30, 0u64..40),
            tail_max in 1usize..2000,
            bounds in (1usize..50, 1usize..4000),
        ) {
            let mut list: Vec<u64> = Vec::new();
            let mut log = Log::recover(&Recovered::default(), tail_max).unwrap();
            for (grow, count, rise) in ops {
                if grow {
                    let term = list.last().copied().unwrap_or(1) + rise;
                    let more: Vec<u64> = (0..count).map(|i| if i < count / 2 { term } else { term + rise }).collect();
                    let segment = entries(list.len() as u64 + 1, &more);
                    let weight = segment.weight();
                    log.append(segment, weight);
                    list.extend(more);
                } else {
                    list.truncate(list.len().saturating_sub(count));
                    log.truncate_from(LogIndex(list.len() as u64 + 1));
                }
                prop_assert_eq!(&terms(&log), &list);
                prop_assert_eq!(log.tail_weight, log.tail.iter().map(|s| s.entries.weight()).sum::<usize>());
                prop_assert!(log.tail.back().is_none_or(|s| s.entries.last_index() == log.last_index()));
            }
            let (term, index) = limit;
            let want = (1..=list.len().min(index as usize)).rev().find(|i| list[i - 1] <= term);
            let got = log.last_not_above(at(term, index));
            prop_assert_eq!(got, want.map_or(Position::ZERO, |i| at(list[i - 1], i as u64)));
            for from in 1..=list.len() {
                let (count_max, bytes_max) = bounds;
                if let Some(got) = log.collect(LogIndex(from as u64), count_max, bytes_max) {
                    prop_assert!(!got.entries.is_empty() && got.entries.len() <= count_max);
                    prop_assert!(got.entries.len() == 1 || got.weight <= bytes_max);
                    prop_assert_eq!(got.weight, got.entries.weight());
                    let want = entries(from as u64, &list[from - 1..from - 1 + got.entries.len()]);
                    prop_assert_eq!(got.entries, want);
                }
            }
        }
    }
}
