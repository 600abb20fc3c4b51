//! A storage in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Compacted, Entry, Identity, Incarnation, IndexRange, Loaded, LogIndex, LogReader, ReadError, Recovered,
    Run, SparseLog, Stamp, Storage, StorageError, Write,
};

/// A log in memory that outlives the node that writes it: clones share one log.
///
/// A write is "durable" when [`Storage::write`] returns: a restarted node that opens a clone finds it. A
/// clone that recovers takes the log over, and writes of the life before it are refused from then on.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    log: Arc<Mutex<Log>>,
    incarnation: Option<Incarnation>,
}

#[derive(Debug, Default)]
struct Log {
    identity: Option<Identity>,
    incarnation: Incarnation,
    hard_state: Option<Bytes>,
    compacted: Option<(LogIndex, Stamp)>,
    entries: SparseLog,
}

impl MemoryStorage {
    /// An empty log that belongs to nobody yet.
    #[must_use]
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_at_once(&self, batch: &[Write]) -> Result<(), StorageError> {
        let incarnation = self.incarnation.ok_or(StorageError::NotRecovered)?;
        let mut log = self.lock();
        if log.incarnation != incarnation {
            return Err(StorageError::Superseded);
        }
        for unit in batch {
            log.apply(unit);
        }
        Ok(())
    }
}

impl Log {
    fn apply(&mut self, unit: &Write) {
        if let Some((through, stamp)) = unit.install
            && self.compacted.is_none_or(|(bound, _)| bound < through)
        {
            self.compacted = Some((through, stamp));
            self.entries.compact_to(through);
        }
        if let Some(from) = unit.truncate_from {
            self.entries.truncate_from(from);
        }
        for put in &unit.puts {
            self.entries.put(put.clone());
        }
        if let Some(through) = unit.compact_to
            && self.compacted.is_none_or(|(bound, _)| bound < through)
        {
            let stamp = self.entries.get(through).map_or(Stamp::ZERO, |entry| entry.stamp);
            self.compacted = Some((through, stamp));
            self.entries.compact_to(through);
        }
        if let Some(state) = &unit.hard_state {
            self.hard_state = Some(state.clone());
        }
    }

    fn recovered(&self) -> Recovered {
        let mut runs = Vec::new();
        let mut marked: Vec<Entry> = Vec::new();
        for entry in self.entries.segments().flat_map(|segment| segment.iter()) {
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
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn recover(&mut self, identity: &Identity) -> Result<Recovered, StorageError> {
        let mut log = self.lock();
        let owner = *log.identity.get_or_insert(*identity);
        if owner != *identity {
            return Err(StorageError::Foreign { expected: *identity, found: owner });
        }
        log.incarnation = Incarnation(log.incarnation.0 + 1);
        let recovered = log.recovered();
        drop(log);
        self.incarnation = Some(recovered.incarnation);
        Ok(recovered)
    }

    async fn write(&mut self, batch: &[Write]) -> Result<(), StorageError> {
        self.write_at_once(batch)
    }

    fn try_write(&mut self, batch: &[Write]) -> Option<Result<(), StorageError>> {
        Some(self.write_at_once(batch))
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(Reader { log: Arc::clone(&self.log) })
    }

    fn blocking(&self) -> bool {
        false
    }
}

struct Reader {
    log: Arc<Mutex<Log>>,
}

impl LogReader for Reader {
    fn read(&self, range: IndexRange, bytes_max: usize) -> Result<Loaded, ReadError> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((through, _)) = log.compacted
            && range.from <= through
        {
            return Err(Compacted { through }.into());
        }
        Ok(log.entries.read(range, bytes_max))
    }
}
