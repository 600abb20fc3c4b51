//! The model storage of one node.

use std::collections::VecDeque;

use bytes::Bytes;
use synod_core::{
    Compacted, Entry, Incarnation, IndexRange, Loaded, LogIndex, Recovered, Run, SparseLog, Stamp, Write,
    WriteId,
};

/// A storage that keeps what it is given in order, some time later.
///
/// Units are made durable in the order in which they were issued, one or several at a time. A crash keeps
/// the state after some prefix of the issued units, and every unit that is durable is in it (invariant
/// ST1). Reads see durable units and nothing else.
#[derive(Debug, Default)]
pub struct Model {
    incarnation: Incarnation,
    hard_state: Option<Bytes>,
    compacted: Option<(LogIndex, Stamp)>,
    log: SparseLog,
    /// Issued in this life and not durable.
    pending: VecDeque<Write>,
    /// How many of them, from the front, are being made durable.
    syncing: usize,
    /// The last durable unit of this life.
    durable: WriteId,
    issued: WriteId,
}

/// What a crash did to the units that were not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed {
    /// The last unit of the life that ended that survives.
    pub kept: WriteId,
    /// How many units are gone.
    pub lost: usize,
}

impl Model {
    /// Begins a life: what is durable, under the next incarnation.
    pub fn recover(&mut self) -> Recovered {
        self.incarnation = Incarnation(self.incarnation.0 + 1);
        self.durable = WriteId(0);
        self.issued = WriteId(0);
        self.recovered()
    }

    /// What a recovery would find now.
    #[must_use]
    pub fn recovered(&self) -> Recovered {
        let mut runs = Vec::new();
        let mut marked: Vec<Entry> = Vec::new();
        for entry in self.log.segments().flat_map(|segment| segment.iter()) {
            Run::extend(&mut runs, entry.index, entry.stamp);
            if entry.kind.is_marked() {
                marked.push(entry.clone());
            }
        }
        Recovered {
            incarnation: self.incarnation,
            hard_state: self.hard_state.clone(),
            compacted: self.compacted,
            runs,
            marked,
        }
    }

    /// Takes a unit.
    ///
    /// # Panics
    /// If units do not come in order: that is what the host owes a storage.
    pub fn issue(&mut self, unit: Write) {
        assert!(unit.id > self.issued, "write order: {} issued after {}", unit.id, self.issued);
        self.issued = unit.id;
        self.pending.push_back(unit);
    }

    /// Begins to make up to `units_max` units durable, unless it is busy or there is nothing to do. Returns
    /// how many.
    pub fn begin_sync(&mut self, units_max: usize) -> usize {
        if self.syncing > 0 {
            return 0;
        }
        self.syncing = self.pending.len().min(units_max.max(1));
        self.syncing
    }

    /// Ends what [`Model::begin_sync`] began: these units are durable now. Returns the last of them.
    pub fn end_sync(&mut self) -> WriteId {
        for _ in 0..std::mem::take(&mut self.syncing) {
            self.complete_one();
        }
        self.durable
    }

    /// The node crashes. Everything durable survives, and `extra` units more.
    pub fn crash(&mut self, extra: usize) -> Crashed {
        self.syncing = 0;
        for _ in 0..extra.min(self.pending.len()) {
            self.complete_one();
        }
        let lost = self.pending.len();
        self.pending.clear();
        Crashed { kept: self.durable, lost }
    }

    /// Reads as [`synod_core::LogReader::read`] does: durable units only.
    ///
    /// # Errors
    /// [`Compacted`] if the start of the range was compacted.
    pub fn read(&self, range: IndexRange, bytes_max: usize) -> Result<Loaded, Compacted> {
        match self.compacted {
            Some((through, _)) if range.from <= through => Err(Compacted { through }),
            _ => Ok(self.log.read(range, bytes_max)),
        }
    }

    /// How many units are issued and not durable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// True if units wait and none is being made durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.syncing == 0
    }

    /// The highest durable position: of the log, or the compaction bound.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.log.last_index().unwrap_or(LogIndex::ZERO).max(self.compacted())
    }

    /// The units that are being made durable.
    #[must_use]
    pub fn in_sync(&self) -> Vec<Write> {
        self.pending.iter().take(self.syncing).cloned().collect()
    }

    /// The last durable unit of this life.
    #[must_use]
    pub fn durable(&self) -> WriteId {
        self.durable
    }

    /// The compaction bound.
    #[must_use]
    pub fn compacted(&self) -> LogIndex {
        self.compacted.map_or(LogIndex::ZERO, |(through, _)| through)
    }

    /// Makes the next pending unit durable.
    pub(crate) fn complete_one(&mut self) {
        let Some(unit) = self.pending.pop_front() else { return };
        self.durable = unit.id;
        if let Some((through, stamp)) = unit.install
            && self.compacted.is_none_or(|(bound, _)| bound < through)
        {
            self.compacted = Some((through, stamp));
            self.log.compact_to(through);
        }
        if let Some(from) = unit.truncate_from {
            self.log.truncate_from(from);
        }
        for put in unit.puts {
            self.log.put(put);
        }
        if let Some(through) = unit.compact_to
            && self.compacted.is_none_or(|(bound, _)| bound < through)
        {
            let stamp = self.log.get(through).map_or(Stamp::ZERO, |entry| entry.stamp);
            self.compacted = Some((through, stamp));
            self.log.compact_to(through);
        }
        if unit.hard_state.is_some() {
            self.hard_state = unit.hard_state;
        }
    }
}

#[cfg(test)]
mod tests {
    use synod_core::{Entries, Kind, Reign, RequestId};

    use super::*;
    use crate::rng::Rng;

    fn unit(id: u64, first: u64, count: usize) -> Write {
        let entries = Entries::numbered(LogIndex(first), vec![(); count], |index, ()| Entry {
            index,
            stamp: Stamp { high: id, low: 0 },
            reign: Reign::default(),
            kind: Kind::Command,
            request: RequestId::NONE,
            payload: Bytes::new(),
        });
        Write {
            id: WriteId(id),
            forced: true,
            install: None,
            truncate_from: Some(LogIndex(first)),
            puts: vec![entries],
            compact_to: None,
            hard_state: Some(Bytes::copy_from_slice(&id.to_le_bytes())),
        }
    }

    /// What a log with these units applied looks like, worked out the plain way.
    fn expected(units: &[Write]) -> (Vec<(u64, u64)>, Option<Bytes>) {
        let mut log = std::collections::BTreeMap::new();
        let mut hard_state = None;
        for unit in units {
            log.retain(|index, _| *index < unit.truncate_from.unwrap().0);
            for entry in unit.puts.iter().flat_map(|put| put.iter()) {
                log.insert(entry.index.0, entry.stamp.high);
            }
            hard_state.clone_from(&unit.hard_state);
        }
        (log.into_iter().collect(), hard_state)
    }

    #[test]
    fn a_crash_keeps_a_prefix_of_the_issued_units_and_everything_durable() {
        let mut rng = Rng::new(3);
        for _ in 0..2_000 {
            let mut disk = Model::default();
            disk.recover();
            let (mut issued, mut reported) = (Vec::new(), WriteId(0));
            for _ in 0..rng.below(30) {
                match rng.below(3) {
                    0 => {
                        let unit = unit(issued.len() as u64 + 1, rng.between(1, 12), rng.index(4));
                        issued.push(unit.clone());
                        disk.issue(unit);
                    }
                    1 => {
                        disk.begin_sync(rng.index(4));
                    }
                    _ => reported = disk.end_sync(),
                }
            }
            let crashed = disk.crash(rng.index(5));
            assert!(crashed.kept >= reported);
            assert_eq!(crashed.lost, issued.len() - crashed.kept.0 as usize);
            let (log, hard_state) = expected(&issued[..crashed.kept.0 as usize]);
            let recovered = disk.recover();
            let found: Vec<(u64, u64)> = recovered
                .runs
                .iter()
                .flat_map(|run| (run.from.0..=run.to.0).map(|at| (at, run.stamp_at(LogIndex(at)).high)))
                .collect();
            assert_eq!((found, recovered.hard_state), (log, hard_state));
            assert_eq!(recovered.incarnation, Incarnation(2));
        }
    }

    #[test]
    fn a_read_shows_durable_units_only() {
        let mut disk = Model::default();
        disk.recover();
        disk.issue(unit(1, 1, 3));
        disk.issue(unit(2, 4, 1));
        let all = IndexRange::new(LogIndex(1), LogIndex(9));
        assert!(disk.read(all, usize::MAX).unwrap().segments.is_empty());
        assert_eq!(disk.begin_sync(1), 1);
        assert!(disk.read(all, usize::MAX).unwrap().segments.is_empty());
        assert_eq!(disk.end_sync(), WriteId(1));
        let loaded = disk.read(all, usize::MAX).unwrap();
        assert_eq!(loaded.segments.iter().map(|segment| segment.len()).sum::<usize>(), 3);
    }
}
