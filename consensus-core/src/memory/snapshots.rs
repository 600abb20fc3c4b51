//! Snapshots in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::{SnapshotError, SnapshotHead, SnapshotId, SnapshotReader, SnapshotStore, SnapshotWriter};

/// Keeps snapshots in memory. Clones share them, so that a clone can stand for what a disk kept.
#[derive(Clone, Debug, Default)]
pub struct MemorySnapshots {
    kept: Arc<Mutex<Kept>>,
}

type Kept = BTreeMap<SnapshotId, (SnapshotHead, Bytes)>;

impl MemorySnapshots {
    /// None yet.
    #[must_use]
    pub fn new() -> MemorySnapshots {
        MemorySnapshots::default()
    }
}

impl SnapshotStore for MemorySnapshots {
    fn list(&mut self) -> Result<Vec<SnapshotHead>, SnapshotError> {
        Ok(lock(&self.kept).values().map(|(head, _)| head.clone()).collect())
    }

    fn create(&mut self, _id: SnapshotId) -> Result<Box<dyn SnapshotWriter>, SnapshotError> {
        Ok(Box::new(Writer { kept: Arc::clone(&self.kept), contents: BytesMut::new() }))
    }

    fn open(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotReader>, SnapshotError> {
        let (head, contents) = lock(&self.kept).get(&id).cloned().ok_or(SnapshotError::Missing(id))?;
        Ok(Box::new(Reader { head, contents }))
    }

    fn delete(&mut self, id: SnapshotId) -> Result<(), SnapshotError> {
        lock(&self.kept).remove(&id);
        Ok(())
    }
}

struct Writer {
    kept: Arc<Mutex<Kept>>,
    contents: BytesMut,
}

impl SnapshotWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.contents.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, head: &SnapshotHead) -> Result<(), SnapshotError> {
        lock(&self.kept).insert(head.id, (head.clone(), self.contents.freeze()));
        Ok(())
    }
}

struct Reader {
    head: SnapshotHead,
    contents: Bytes,
}

impl SnapshotReader for Reader {
    fn head(&self) -> &SnapshotHead {
        &self.head
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, SnapshotError> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.contents.len());
        let len = into.len().min(self.contents.len() - from);
        into[..len].copy_from_slice(&self.contents[from..from + len]);
        Ok(len)
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
