//! The write-through tail: what was asked to be written, visible at once.

use std::collections::{BTreeMap, VecDeque};

use synod_core::{Compacted, Entries, IndexRange, LoadId, Loaded, LogIndex, SparseLog, Write, WriteId};

/// The log as its machine sees it: storage, with every unit issued since laid over it.
///
/// A load must observe every write asked for before it, durable or not: an accept in flight and a promise
/// read from disk would lose a vote. So units stay here until they are durable *and* no read of the
/// storage that began before is still under way.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    log: SparseLog,
    /// Units that a storage read under way may have missed, oldest first.
    units: VecDeque<UnitMark>,
    /// For each storage read under way: the last unit that was durable when it began.
    reads: BTreeMap<LoadId, WriteId>,
    durable: WriteId,
    compacted: LogIndex,
}

#[derive(Clone, Debug)]
struct UnitMark {
    id: WriteId,
    /// The first put of the unit, and (rarely any) the others.
    put: Option<IndexRange>,
    puts: Vec<IndexRange>,
    truncate_from: Option<LogIndex>,
}

impl UnitMark {
    fn touches(&self, range: IndexRange) -> bool {
        self.put.iter().chain(&self.puts).any(|put| put.from < range.to && range.from < put.to)
    }
}

impl Tail {
    pub(crate) fn new(compacted: LogIndex) -> Tail {
        Tail { compacted, ..Tail::default() }
    }

    /// Lays a unit over what was there.
    pub(crate) fn write(&mut self, unit: &Write) {
        if let Some((through, _)) = unit.install {
            self.compacted = self.compacted.max(through);
            self.log.compact_to(through);
        }
        if let Some(from) = unit.truncate_from {
            self.log.truncate_from(from);
        }
        for put in &unit.puts {
            self.log.put(put.clone());
        }
        if let Some(through) = unit.compact_to {
            self.compacted = self.compacted.max(through);
            self.log.compact_to(through);
        }
        let mut puts = unit.puts.iter().map(|put| put.range());
        let mark = UnitMark {
            id: unit.id,
            put: puts.next(),
            puts: puts.collect(),
            truncate_from: unit.truncate_from,
        };
        self.units.push_back(mark);
    }

    /// Every unit through `id` is durable.
    pub(crate) fn persisted(&mut self, id: WriteId) {
        self.durable = self.durable.max(id);
        self.settle();
    }

    fn settle(&mut self) {
        let seen_by_all_reads = self.reads.values().copied().min().unwrap_or(self.durable);
        while self.units.front().is_some_and(|unit| unit.id <= seen_by_all_reads) {
            self.units.pop_front();
        }
    }

    /// Forgets entries that the storage has, lowest first, while more than `weight_max` bytes are held.
    pub(crate) fn evict(&mut self, weight_max: usize) {
        if self.log.weight() <= weight_max {
            return;
        }
        let units = &self.units;
        self.log.evict(weight_max, |range| units.iter().any(|unit| unit.touches(range)));
    }

    /// Consecutive entries from `from` on that are here; empty if the one at `from` is not.
    pub(crate) fn run_from(&self, from: LogIndex) -> Entries {
        self.log.run_from(from)
    }

    /// An answer to a load without reading the storage, if there is one.
    pub(crate) fn answer(&self, range: IndexRange, bytes_max: usize) -> Option<Result<Loaded, Compacted>> {
        if range.from <= self.compacted {
            return Some(Err(Compacted { through: self.compacted }));
        }
        if range.is_empty() {
            return Some(Ok(Loaded { segments: Vec::new(), to: range.from }));
        }
        let mut segments = Vec::new();
        let mut next = range.from;
        let mut left = bytes_max;
        while next < range.to {
            let run = self.log.run_from(next).slice(range);
            if run.is_empty() {
                break;
            }
            let part = run.prefix(usize::MAX, left);
            if part.weight() > left && !segments.is_empty() {
                break;
            }
            left = left.saturating_sub(part.weight());
            next = part.range().to;
            let cut = part.len() < run.len();
            segments.push(part);
            if cut || left == 0 {
                break;
            }
        }
        if segments.is_empty() { None } else { Some(Ok(Loaded { segments, to: next })) }
    }

    /// A read of the storage begins.
    pub(crate) fn read_began(&mut self, id: LoadId) {
        self.reads.insert(id, self.durable);
    }

    /// A read of the storage ended: lays over its answer what it may have missed. `None` if `id` names no
    /// read under way.
    pub(crate) fn read_ended(
        &mut self,
        id: LoadId,
        range: IndexRange,
        bytes_max: usize,
        result: Result<Loaded, Compacted>,
    ) -> Option<Result<Loaded, Compacted>> {
        let durable_at_begin = self.reads.remove(&id)?;
        let merged = self.merge(range, bytes_max, durable_at_begin, result);
        self.settle();
        Some(merged)
    }

    fn merge(
        &self,
        range: IndexRange,
        bytes_max: usize,
        durable_at_begin: WriteId,
        result: Result<Loaded, Compacted>,
    ) -> Result<Loaded, Compacted> {
        if range.from <= self.compacted {
            return Err(Compacted { through: self.compacted });
        }
        let loaded = result?;
        let reach = IndexRange::new(range.from, loaded.to.min(range.to));
        let mut view = SparseLog::new();
        for segment in loaded.segments {
            view.put(segment.slice(reach));
        }
        let missed = self.units.iter().filter(|unit| unit.id > durable_at_begin);
        if let Some(from) = missed.filter_map(|unit| unit.truncate_from).min() {
            view.truncate_from(from);
        }
        for segment in self.log.segments() {
            view.put(segment.slice(reach));
        }
        Ok(view.read(reach, bytes_max))
    }

    pub(crate) fn weight(&self) -> usize {
        self.log.weight()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use synod_core::{Entry, Kind, Reign, RequestId, Stamp};

    use super::*;

    fn run(first: u64, count: usize, stamp: u64) -> Entries {
        Entries::numbered(LogIndex(first), vec![(); count], |index, ()| Entry {
            index,
            stamp: Stamp { high: stamp, low: 0 },
            reign: Reign::default(),
            kind: Kind::Command,
            request: RequestId::NONE,
            payload: Bytes::new(),
        })
    }

    fn apply(log: &mut SparseLog, unit: &Write) {
        if let Some(from) = unit.truncate_from {
            log.truncate_from(from);
        }
        for put in &unit.puts {
            log.put(put.clone());
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(u64, usize),
        TruncatePut(u64, usize),
        Persist,
        BeginRead(u64, u64),
        StorageReads,
        EndRead,
        Evict,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (1u64..30, 1usize..5).prop_map(|(from, count)| Op::Put(from, count)),
            2 => (1u64..30, 0usize..5).prop_map(|(from, count)| Op::TruncatePut(from, count)),
            3 => Just(Op::Persist),
            2 => (1u64..30, 1u64..30).prop_map(|(from, len)| Op::BeginRead(from, len)),
            2 => Just(Op::StorageReads),
            2 => Just(Op::EndRead),
            2 => Just(Op::Evict),
        ]
    }

    proptest! {
        /// Whenever the storage happens to look, an answer shows every write asked for before the load.
        #[test]
        fn a_load_observes_every_write_in_flight(ops in proptest::collection::vec(op(), 0..120)) {
            let mut tail = Tail::new(LogIndex::ZERO);
            let (mut view, mut storage) = (SparseLog::new(), SparseLog::new());
            let mut queue: VecDeque<Write> = VecDeque::new();
            let mut read: Option<(LoadId, IndexRange, Option<Loaded>)> = None;
            let (mut writes, mut loads) = (0, 0);
            for op in ops {
                match op {
                    Op::Put(..) | Op::TruncatePut(..) => {
                        writes += 1;
                        let mut unit = Write { id: WriteId(writes), forced: true, ..Write::default() };
                        match op {
                            Op::Put(from, count) => unit.puts = vec![run(from, count, writes)],
                            Op::TruncatePut(from, count) => {
                                unit.truncate_from = Some(LogIndex(from));
                                unit.puts = vec![run(from, count, writes)];
                                unit.puts.retain(|put| !put.is_empty());
                            }
                            _ => unreachable!(),
                        }
                        apply(&mut view, &unit);
                        tail.write(&unit);
                        queue.push_back(unit);
                    }
                    Op::Persist => {
                        if let Some(unit) = queue.pop_front() {
                            apply(&mut storage, &unit);
                            tail.persisted(unit.id);
                        }
                    }
                    Op::BeginRead(from, len) => {
                        let range = IndexRange::new(LogIndex(from), LogIndex(from + len));
                        if let Some(answer) = tail.answer(range, usize::MAX) {
                            let answer = answer.unwrap();
                            let reach = IndexRange::new(range.from, answer.to);
                            prop_assert_eq!(flat(&answer), flat(&view.read(reach, usize::MAX)));
                        } else if read.is_none() {
                            loads += 1;
                            tail.read_began(LoadId(loads));
                            read = Some((LoadId(loads), range, None));
                        }
                    }
                    Op::StorageReads => {
                        if let Some((_, range, seen @ None)) = &mut read {
                            *seen = Some(storage.read(*range, usize::MAX));
                        }
                    }
                    Op::EndRead => {
                        if let Some((id, range, Some(seen))) = read.take() {
                            let answer = tail.read_ended(id, range, usize::MAX, Ok(seen)).unwrap().unwrap();
                            prop_assert_eq!(answer.to, range.to);
                            prop_assert_eq!(flat(&answer), flat(&view.read(range, usize::MAX)));
                        }
                    }
                    Op::Evict => tail.evict(0),
                }
            }
        }
    }

    fn flat(loaded: &Loaded) -> Vec<Entry> {
        loaded.segments.iter().flat_map(|segment| segment.iter().cloned()).collect()
    }
}
