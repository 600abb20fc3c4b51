//! What stands in the slots above the watermark, as runs of stamps.

use std::collections::VecDeque;

use synod_core::{IndexRange, LogIndex, Recovered, Stamp};

use crate::ballot::{Ballot, VoteRound};

/// The stamps of the slots above a watermark: in which ballot this replica voted last, or that the value there
/// is known to be chosen. Slots may be missing. The values themselves are in the storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Votes {
    /// Ascending and disjoint; neighbours that touch have different stamps.
    runs: VecDeque<Votation>,
}

/// Consecutive slots of one stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Votation {
    from: LogIndex,
    to: LogIndex,
    stamp: Stamp,
}

impl Votes {
    /// The votes that a storage recovered above `decided`; what is wrong with the log otherwise.
    pub(crate) fn recover(
        recovered: &Recovered,
        decided: LogIndex,
        promised: Ballot,
        fast: bool,
    ) -> Result<Votes, &'static str> {
        let mut votes = Votes::default();
        let mut dense_to = recovered.compacted.map_or(LogIndex::ZERO, |(index, _)| index);
        for run in &recovered.runs {
            if run.from == dense_to.next() {
                dense_to = run.to;
            }
            let mut from = run.from;
            while from <= run.to {
                let stamp = run.stamp_at(from);
                // A rising run is several ballots of one round, by neighbours.
                let to = if run.rising { from } else { run.to };
                match VoteRound::of_stamp(stamp).filter(|round| round.classic || fast) {
                    Some(VoteRound::CHOSEN) => {}
                    Some(round) if round.ballot <= promised => {}
                    Some(_) => return Err("a vote is in a ballot that was not promised"),
                    None => return Err("a stamp is not a ballot"),
                }
                if to > decided {
                    votes.put(IndexRange::new(from.max(decided.next()), to.next()), stamp);
                }
                from = to.next();
            }
        }
        if dense_to < decided {
            return Err("a decided entry is missing");
        }
        Ok(votes)
    }

    /// The last slot that holds anything.
    pub(crate) fn last(&self) -> Option<LogIndex> {
        self.runs.back().map(|run| run.to)
    }

    /// The last slot whose stamp is `wanted`.
    pub(crate) fn last_where(&self, wanted: impl Fn(Stamp) -> bool) -> Option<LogIndex> {
        self.runs.iter().rev().find(|run| wanted(run.stamp)).map(|run| run.to)
    }

    /// How many runs there are: what this takes in memory.
    pub(crate) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// The stamp that stands in a slot.
    pub(crate) fn stamp_at(&self, slot: LogIndex) -> Option<Stamp> {
        let at = self.runs.partition_point(|run| run.to < slot);
        self.runs.get(at).filter(|run| run.from <= slot).map(|run| run.stamp)
    }

    /// Sets the stamp of every slot of `range`, whatever stood there.
    pub(crate) fn put(&mut self, range: IndexRange, stamp: Stamp) {
        if range.is_empty() {
            return;
        }
        let (from, to) = (range.from, range.to.prev());
        match self.runs.back_mut() {
            Some(last) if last.to.next() == from && last.stamp == stamp => last.to = to,
            Some(last) if last.to < from => self.runs.push_back(Votation { from, to, stamp }),
            None => self.runs.push_back(Votation { from, to, stamp }),
            Some(_) => self.splice(Votation { from, to, stamp }),
        }
    }

    fn splice(&mut self, new: Votation) {
        let mut rebuilt = VecDeque::with_capacity(self.runs.len() + 2);
        let mut push = |run: Votation| match rebuilt.back_mut() {
            Some(Votation { to, stamp, .. }) if to.next() == run.from && *stamp == run.stamp => *to = run.to,
            _ => rebuilt.push_back(run),
        };
        let mut pending = Some(new);
        for run in &self.runs {
            if run.from < new.from {
                push(Votation { to: run.to.min(new.from.prev()), ..*run });
            }
            if run.to > new.to {
                if let Some(new) = pending.take() {
                    push(new);
                }
                push(Votation { from: run.from.max(new.to.next()), ..*run });
            }
        }
        if let Some(new) = pending {
            push(new);
        }
        self.runs = rebuilt;
    }

    /// The highest slot such that every one from `from` to it holds `stamp`; the slot before `from` if none does.
    pub(crate) fn reach(&self, from: LogIndex, stamp: Stamp) -> LogIndex {
        let at = match self.runs.back() {
            Some(last) if last.from <= from => self.runs.len() - 1,
            _ => self.runs.partition_point(|run| run.to < from),
        };
        match self.runs.get(at) {
            Some(run) if run.from <= from && from <= run.to && run.stamp == stamp => run.to,
            _ => from.prev(),
        }
    }

    /// The parts of `range` where a vote in `ballot` is still to be written: those that hold an earlier vote or
    /// nothing, and are not known to be chosen.
    pub(crate) fn fresh(&self, range: IndexRange, ballot: Ballot) -> Vec<IndexRange> {
        let mut fresh = Vec::new();
        let mut next = range.from;
        let at = self.runs.partition_point(|run| run.to < range.from);
        for run in self.runs.range(at..) {
            if run.from >= range.to {
                break;
            }
            if run.stamp == ballot.stamp() || run.stamp == Stamp::CHOSEN {
                if next < run.from {
                    fresh.push(IndexRange::new(next, run.from));
                }
                next = run.to.next();
            }
        }
        if next < range.to {
            fresh.push(IndexRange::new(next, range.to));
        }
        fresh
    }

    /// True if every slot of `range` holds something.
    pub(crate) fn is_dense(&self, range: IndexRange) -> bool {
        let mut next = range.from;
        let at = self.runs.partition_point(|run| run.to < range.from);
        for run in self.runs.range(at..).take_while(|run| run.from < range.to) {
            if run.from > next {
                return false;
            }
            next = run.to.next();
        }
        next >= range.to
    }

    /// Forgets everything at or below `through`.
    pub(crate) fn settle(&mut self, through: LogIndex) {
        while let Some(first) = self.runs.front_mut().filter(|run| run.from <= through) {
            if first.to > through {
                first.from = through.next();
                return;
            }
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use synod_core::{NodeId, Run};

    use super::*;

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: NodeId(1) }
    }

    fn stamp(round: u64) -> Stamp {
        if round == 0 { Stamp::CHOSEN } else { ballot(round).stamp() }
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_from_slot_to_stamp(
            puts in proptest::collection::vec((1u64..30, 1u64..8, 0u64..4), 0..30),
            settle in 0u64..20, from in 1u64..35, len in 1u64..12, round in 1u64..4,
        ) {
            let mut votes = Votes::default();
            let mut map: BTreeMap<u64, Stamp> = BTreeMap::new();
            for (first, count, round) in puts {
                votes.put(IndexRange::new(LogIndex(first), LogIndex(first + count)), stamp(round));
                map.extend((first..first + count).map(|slot| (slot, stamp(round))));
            }
            votes.settle(LogIndex(settle));
            map.retain(|slot, _| *slot > settle);
            for slot in 0..45 {
                prop_assert_eq!(votes.stamp_at(LogIndex(slot)), map.get(&slot).copied());
            }
            for pair in votes.runs.iter().zip(votes.runs.iter().skip(1)) {
                prop_assert!(pair.0.to.next() < pair.1.from || pair.0.stamp != pair.1.stamp);
            }
            prop_assert_eq!(votes.last().map(|slot| slot.0), map.keys().next_back().copied());
            // `reach` may stop at the end of a run, since neighbours differ.
            let run = (from..).take_while(|slot| map.get(slot) == Some(&stamp(round))).last();
            prop_assert_eq!(votes.reach(LogIndex(from), stamp(round)).0, run.unwrap_or(from - 1));
            let fresh = votes.fresh(IndexRange::new(LogIndex(from), LogIndex(from + len)), ballot(round));
            let held = |slot: u64| map.contains_key(&slot);
            let range = IndexRange::new(LogIndex(from), LogIndex(from + len));
            prop_assert_eq!(votes.is_dense(range), (from..from + len).all(held));
            let got: Vec<u64> = fresh.iter().flat_map(|range| range.from.0..range.to.0).collect();
            let done = [Some(stamp(round)), Some(Stamp::CHOSEN)];
            let want: Vec<u64> = (from..from + len).filter(|slot| !done.contains(&map.get(slot).copied())).collect();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn what_is_not_a_paxos_log_is_refused() {
        let run = |from, to, stamp| Run { from: LogIndex(from), to: LogIndex(to), stamp, rising: false };
        let recover = |runs: Vec<Run>, decided| {
            Votes::recover(&Recovered { runs, ..Recovered::default() }, LogIndex(decided), ballot(4), false)
        };
        let votes = recover(vec![run(1, 3, stamp(2)), run(7, 9, Stamp::CHOSEN)], 2).unwrap();
        assert_eq!(votes.stamp_at(LogIndex(2)), None);
        assert_eq!(votes.stamp_at(LogIndex(3)), Some(stamp(2)));
        assert_eq!(votes.last(), Some(LogIndex(9)));
        assert!(recover(vec![run(1, 3, stamp(5))], 0).is_err());
        assert!(recover(vec![run(1, 3, Stamp { high: 1, low: 0 })], 0).is_err());
        assert!(recover(vec![run(1, 3, stamp(2)), run(5, 9, stamp(2))], 4).is_err());
        assert!(recover(vec![run(2, 3, stamp(2))], 1).is_err());
        let fast = vec![run(1, 3, ballot(2).fast_stamp())];
        assert!(recover(fast.clone(), 0).is_err());
        let recovered = Recovered { runs: fast, ..Recovered::default() };
        let votes = Votes::recover(&recovered, LogIndex::ZERO, ballot(4), true).unwrap();
        assert_eq!(votes.last_where(|stamp| stamp == ballot(2).fast_stamp()), Some(LogIndex(3)));
        assert_eq!(votes.last_where(|stamp| stamp == ballot(2).stamp()), None);
    }

    #[test]
    fn neighbours_who_shared_a_round_are_told_apart() {
        let rising = Run { from: LogIndex(1), to: LogIndex(3), stamp: stamp(2), rising: true };
        let promised = Ballot { round: 2, node: NodeId(3) };
        let recovered = Recovered { runs: vec![rising], ..Recovered::default() };
        let votes = Votes::recover(&recovered, LogIndex::ZERO, promised, false).unwrap();
        assert_eq!(votes.stamp_at(LogIndex(3)), Some(Stamp { high: 2, low: 3 }));
    }
}
