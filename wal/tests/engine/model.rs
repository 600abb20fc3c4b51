//! What a log must hold, as the simplest thing that can be right.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;
use synod_core::{
    ClusterId, Entries, Entry, GroupId, Identity, IndexRange, Kind, LogIndex, LogReader, NodeId, Recovered,
    Reign, RequestId, Run, Stamp, Write, WriteId,
};

pub(crate) const IDENTITY: Identity =
    Identity { cluster: ClusterId(7 << 80), node: NodeId(3), group: GroupId(0) };

/// The contents of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) entries: BTreeMap<LogIndex, Entry>,
    pub(crate) compacted: Option<(LogIndex, Stamp)>,
    pub(crate) hard_state: Option<Bytes>,
}

impl Model {
    pub(crate) fn apply(&mut self, unit: &Write) {
        if let Some((through, stamp)) = unit.install
            && self.compacted.is_none_or(|(bound, _)| bound < through)
        {
            self.compacted = Some((through, stamp));
            self.entries.retain(|index, _| *index > through);
        }
        if let Some(from) = unit.truncate_from {
            self.entries.retain(|index, _| *index < from);
        }
        for entry in unit.puts.iter().flat_map(|put| put.iter()) {
            self.entries.insert(entry.index, entry.clone());
        }
        if let Some(through) = unit.compact_to
            && self.compacted.is_none_or(|(bound, _)| bound < through)
        {
            let stamp = self.entries.get(&through).map_or(Stamp::ZERO, |entry| entry.stamp);
            self.compacted = Some((through, stamp));
            self.entries.retain(|index, _| *index > through);
        }
        if let Some(state) = &unit.hard_state {
            self.hard_state = Some(state.clone());
        }
    }

    /// What a log shows of itself after a recovery.
    pub(crate) fn observe(recovered: &Recovered, reader: &dyn LogReader) -> Result<Model, String> {
        let from = recovered.compacted.map_or(LogIndex(1), |(bound, _)| bound.next());
        let range = IndexRange::new(from, LogIndex(u64::MAX));
        let loaded = reader.read(range, usize::MAX).map_err(|error| error.to_string())?;
        let mut entries = BTreeMap::new();
        let mut runs: Vec<Run> = Vec::new();
        let mut marked = Vec::new();
        for entry in loaded.segments.iter().flat_map(|segment| segment.iter()) {
            Run::extend(&mut runs, entry.index, entry.stamp);
            if entry.kind.is_marked() {
                marked.push(entry.clone());
            }
            entries.insert(entry.index, entry.clone());
        }
        let stamps = |runs: &[Run]| -> Vec<(u64, Stamp)> {
            runs.iter()
                .flat_map(|run| (run.from.0..=run.to.0).map(|index| (index, run.stamp_at(LogIndex(index)))))
                .collect()
        };
        if stamps(&runs) != stamps(&recovered.runs) || marked != recovered.marked {
            return Err(format!("recovered {recovered:?}, and the entries read are {entries:?}"));
        }
        Ok(Model { entries, compacted: recovered.compacted, hard_state: recovered.hard_state.clone() })
    }

    fn last_index(&self) -> u64 {
        let bound = self.compacted.map_or(0, |(bound, _)| bound.0);
        self.entries.keys().next_back().map_or(bound, |last| last.0)
    }
}

/// Draws units: appends, overwrites, truncations, compactions and hard states.
pub(crate) struct Script {
    random: SplitMix64,
    units: u64,
}

impl Script {
    pub(crate) fn new(seed: u64) -> Script {
        Script { random: SplitMix64::seed_from_u64(seed), units: 0 }
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    /// A unit for a log that holds `model`.
    pub(crate) fn unit(&mut self, model: &Model) -> Write {
        self.units += 1;
        let bound = model.compacted.map_or(0, |(bound, _)| bound.0);
        let last = model.last_index();
        let mut unit = Write { id: WriteId(self.units), forced: true, ..Write::default() };
        match self.below(10) {
            // A conflict: a suffix is cut off and written anew.
            0 if last > bound => {
                let from = bound + 1 + self.below(last - bound);
                unit.truncate_from = Some(LogIndex(from));
                unit.puts.push(self.run(from, 3));
            }
            // Votes for positions that hold one already.
            1 if last > bound => {
                let from = bound + 1 + self.below(last - bound);
                unit.puts.push(self.run(from, 2));
            }
            // A hole.
            2 => {
                let from = last + 2 + self.below(3);
                unit.puts.push(self.run(from, 2));
            }
            4 if last > bound && self.below(3) == 0 => {
                // A snapshot from elsewhere: above a part of the log, or beyond all of it.
                let through = bound + 1 + self.below(last - bound + 4);
                unit.install = Some((LogIndex(through), Stamp { high: 1 << 32, low: self.units }));
                if self.below(2) == 0 {
                    unit.truncate_from = Some(LogIndex(through + 1));
                }
            }
            3 if last > bound + 8 => {
                let through = last - self.below(6);
                unit.compact_to = Some(LogIndex(through));
            }
            _ => unit.puts.push(self.run(last + 1, 4)),
        }
        if self.below(3) == 0 {
            unit.hard_state = Some(Bytes::from(format!("hard state of unit {}", self.units)));
        }
        unit
    }

    fn run(&mut self, from: u64, count_max: u64) -> Entries {
        let count = 1 + self.below(count_max);
        let units = self.units;
        let items: Vec<u64> = (0..count).map(|_| self.below(1 << 16)).collect();
        Entries::numbered(LogIndex(from), items, |index, drawn| Entry {
            index,
            stamp: Stamp { high: 1 + units / 20, low: if units.is_multiple_of(2) { index.0 } else { 0 } },
            reign: Reign { number: units, leader: NodeId(drawn % 3) },
            kind: if drawn % 16 == 0 { Kind::Membership } else { Kind::Command },
            request: RequestId::NONE,
            // Some payloads hold nothing but zeros, as a disk does where nothing was written.
            payload: Bytes::from(vec![
                u8::try_from(drawn % 3).expect("small");
                usize::try_from(drawn % 1400).expect("small") / 2
            ]),
        })
    }
}
