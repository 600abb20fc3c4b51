//! The store of snapshots of one node, with its faults: it refuses now and then, and what it keeps may be damaged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synod_core::memory::MemorySnapshots;
use synod_core::{
    LogIndex, NodeId, SnapshotError, SnapshotHead, SnapshotId, SnapshotReader, SnapshotStore, SnapshotWriter,
};

use crate::rng::{Chance, Rng};

/// A store that survives its node. Clones share it.
#[derive(Clone, Debug)]
pub struct Shelf {
    kept: MemorySnapshots,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    /// How often it refuses to begin, write or finish one.
    refuses: Chance,
    refused: u64,
    damaged: Option<SnapshotId>,
}

impl Shelf {
    /// An empty store.
    #[must_use]
    pub fn new(rng: Rng, refuses: Chance) -> Shelf {
        let state = State { rng, refuses, refused: 0, damaged: None };
        Shelf { kept: MemorySnapshots::new(), state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// From now on it does what it is asked.
    pub fn calm(&self) {
        self.lock().refuses = Chance::NEVER;
    }

    /// What the newest whole snapshot holds.
    #[must_use]
    pub fn newest(&self) -> LogIndex {
        self.sound().last().map_or(LogIndex::ZERO, |id| id.index)
    }

    /// What the newest snapshot holds that this node took itself.
    #[must_use]
    pub fn newest_of(&self, node: NodeId) -> LogIndex {
        let own = self.sound().into_iter().rfind(|id| id.taken_by == node);
        own.map_or(LogIndex::ZERO, |id| id.index)
    }

    fn sound(&self) -> Vec<SnapshotId> {
        let damaged = self.lock().damaged;
        let heads = self.kept.clone().list().unwrap_or_default();
        heads.iter().map(|head| head.id).filter(|id| Some(*id) != damaged).collect()
    }

    /// Damages the newest snapshot, if the one before is enough for a log that begins after `compacted`.
    pub fn damage(&self, compacted: LogIndex) -> bool {
        let sound = self.sound();
        let [.., before, newest] = &sound[..] else { return false };
        if before.index < compacted {
            return false;
        }
        self.lock().damaged = Some(*newest);
        true
    }

    /// What was damaged is gone: a snapshot that is written anew under the same id, perhaps sent by a peer, is whole.
    fn replaced(&self, id: SnapshotId) {
        let mut state = self.lock();
        state.damaged = state.damaged.filter(|damaged| *damaged != id);
    }

    fn refuse(&self, action: &str) -> Result<(), SnapshotError> {
        let mut state = self.lock();
        let State { rng, refuses, .. } = &mut *state;
        if !rng.chance(*refuses) {
            return Ok(());
        }
        state.refused += 1;
        Err(SnapshotError::Io { action: action.to_owned(), source: std::io::ErrorKind::StorageFull.into() })
    }
}

impl SnapshotStore for Shelf {
    fn list(&mut self) -> Result<Vec<SnapshotHead>, SnapshotError> {
        self.kept.list()
    }

    fn create(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotWriter>, SnapshotError> {
        self.refuse("begin")?;
        Ok(Box::new(Writer { shelf: self.clone(), writer: self.kept.create(id)? }))
    }

    fn open(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotReader>, SnapshotError> {
        if self.lock().damaged == Some(id) {
            return Err(SnapshotError::Corrupt { name: id.to_string(), what: "a bit is wrong" });
        }
        self.kept.open(id)
    }

    fn delete(&mut self, id: SnapshotId) -> Result<(), SnapshotError> {
        self.kept.delete(id)?;
        self.replaced(id);
        Ok(())
    }
}

struct Writer {
    shelf: Shelf,
    writer: Box<dyn SnapshotWriter>,
}

impl SnapshotWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.shelf.refuse("write")?;
        self.writer.write(bytes)
    }

    fn finish(self: Box<Self>, head: &SnapshotHead) -> Result<(), SnapshotError> {
        self.shelf.refuse("finish")?;
        self.writer.finish(head)?;
        self.shelf.replaced(head.id);
        Ok(())
    }
}
