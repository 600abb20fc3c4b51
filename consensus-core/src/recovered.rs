//! What a storage gives back at a start.

use bytes::Bytes;

use crate::{ClusterId, Entry, GroupId, Incarnation, LogIndex, NodeId, Stamp};

/// Whose log a storage holds. A storage refuses any other identity than the one it was made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub node: NodeId,
    /// The log among several of one member.
    pub group: GroupId,
}

/// Consecutive entries `from..=to` whose stamps are known from the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first position.
    pub from: LogIndex,
    /// The last position.
    pub to: LogIndex,
    /// The stamp of the first entry.
    pub stamp: Stamp,
    /// False: every stamp of the run is `stamp`. True: the low half rises by one with the index.
    pub rising: bool,
}

impl Run {
    /// The stamp at `index`, which must be inside the run.
    #[must_use]
    pub fn stamp_at(&self, index: LogIndex) -> Stamp {
        if self.rising {
            Stamp { high: self.stamp.high, low: self.stamp.low + index.distance_from(self.from) }
        } else {
            self.stamp
        }
    }

    /// Extends `runs` (ascending) by one entry at a higher position than any before it.
    pub fn extend(runs: &mut Vec<Run>, index: LogIndex, stamp: Stamp) {
        if let Some(run) = runs.last_mut()
            && run.to.next() == index
        {
            let rises = stamp.high == run.stamp.high
                && run.stamp.low.checked_add(index.distance_from(run.from)) == Some(stamp.low);
            let single = run.from == run.to;
            if (stamp == run.stamp && !run.rising) || (rises && (run.rising || single)) {
                run.rising = stamp != run.stamp;
                run.to = index;
                return;
            }
        }
        runs.push(Run { from: index, to: index, stamp, rising: false });
    }
}

/// Everything a machine learns from its storage when it opens: what the completed writes left.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// This life of the node, already persisted; one more than the last.
    pub incarnation: Incarnation,
    /// The last hard state written, opaque to the storage.
    pub hard_state: Option<Bytes>,
    /// The highest position that compaction removed and the stamp that stood there (zero if it was a hole).
    pub compacted: Option<(LogIndex, Stamp)>,
    /// The entries there are, as runs in ascending order: holes and stamps are known without reads.
    pub runs: Vec<Run>,
    /// Every entry whose kind [`is_marked`](crate::Kind::is_marked), in ascending order: few.
    pub marked: Vec<Entry>,
}

impl Recovered {
    /// The highest position known: of the log, or the compaction bound.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        let compacted = self.compacted.map_or(LogIndex::ZERO, |(index, _)| index);
        self.runs.last().map_or(compacted, |run| run.to.max(compacted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_constant_and_rising_stamps_and_break_at_holes() {
        let mut runs = Vec::new();
        let stamps =
            [(1, 1, 0), (2, 1, 0), (3, 2, 7), (4, 2, 8), (5, 2, 9), (7, 2, 10), (8, 2, 10), (9, 2, 11)];
        for (index, high, low) in stamps {
            Run::extend(&mut runs, LogIndex(index), Stamp { high, low });
        }
        let shape: Vec<(u64, u64, bool)> = runs.iter().map(|r| (r.from.0, r.to.0, r.rising)).collect();
        assert_eq!(shape, [(1, 2, false), (3, 5, true), (7, 8, false), (9, 9, false)]);
        for (index, high, low) in stamps {
            let run = runs.iter().find(|r| r.from.0 <= index && index <= r.to.0).unwrap();
            assert_eq!(run.stamp_at(LogIndex(index)), Stamp { high, low });
        }
    }
}
