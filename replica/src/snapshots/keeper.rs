//! What is done with a store of snapshots, wherever a shell may wait.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;
use synod_core::{
    NodeId, SnapshotChunk, SnapshotContents, SnapshotError, SnapshotHead, SnapshotId, SnapshotMeta,
    SnapshotReader, SnapshotSource, SnapshotStore, SnapshotWriter,
};

use super::contents;

/// Does the [`SnapshotJob`]s of one replica on its store. It may block: a shell runs it on a thread of its own, one
/// job after the other in the order in which they were asked for.
pub struct SnapshotKeeper {
    store: Box<dyn SnapshotStore>,
    staging: Option<Staging>,
    /// Snapshots that are being sent.
    readers: BTreeMap<SnapshotId, Box<dyn SnapshotReader>>,
}

/// A snapshot that arrives in pieces.
struct Staging {
    id: SnapshotId,
    writer: Box<dyn SnapshotWriter>,
    through: u64,
    checksum: u32,
}

/// Something to do with the store.
#[derive(Debug)]
pub struct SnapshotJob(pub(super) Job);

pub(super) enum Job {
    Take { id: SnapshotId, meta: SnapshotMeta, sessions: Bytes, source: Box<dyn SnapshotSource> },
    Stage(SnapshotChunk),
    Read { to: NodeId, id: SnapshotId, offset: u64, bytes_max: usize },
    Delete(SnapshotId),
}

/// What became of a [`SnapshotJob`]; for [`Replica::snapshot_done`](crate::Replica::snapshot_done).
#[derive(Debug)]
pub struct SnapshotDone(pub(super) Done);

#[derive(Debug)]
pub(super) enum Done {
    Taken(Result<SnapshotHead, SnapshotError>),
    Staged(SnapshotId, Result<Staged, SnapshotError>),
    Read { to: NodeId, id: SnapshotId, result: Result<SnapshotChunk, SnapshotError> },
    Deleted(Result<(), SnapshotError>),
}

#[derive(Debug)]
pub(super) enum Staged {
    Through(u64),
    /// All of it is here, durable, and was read back.
    Whole(SnapshotContents),
}

/// What a store held when the node started.
#[derive(Debug, Default)]
pub struct KeptSnapshots {
    /// The newest one that is whole: what the state machine starts from.
    pub(crate) newest: Option<SnapshotContents>,
    /// Older ones, ascending.
    pub(crate) older: Vec<SnapshotHead>,
    /// Newer ones that cannot be used, and why: for whoever looks after the node.
    pub damaged: Vec<(SnapshotId, SnapshotError)>,
}

impl SnapshotDone {
    /// Why it failed, for a log; the replica counts it and goes on.
    #[must_use]
    pub fn error(&self) -> Option<&SnapshotError> {
        match &self.0 {
            Done::Taken(Err(error))
            | Done::Staged(_, Err(error))
            | Done::Read { result: Err(error), .. }
            | Done::Deleted(Err(error)) => Some(error),
            _ => None,
        }
    }
}

impl SnapshotKeeper {
    /// Takes a store over.
    #[must_use]
    pub fn new(store: Box<dyn SnapshotStore>) -> SnapshotKeeper {
        SnapshotKeeper { store, staging: None, readers: BTreeMap::new() }
    }

    /// What there is at a start. Call once, before any job; reads the newest snapshot from end to end.
    ///
    /// # Errors
    /// [`SnapshotError`] if the store cannot be listed.
    pub fn recover(&mut self) -> Result<KeptSnapshots, SnapshotError> {
        let mut kept = KeptSnapshots { older: self.store.list()?, ..KeptSnapshots::default() };
        while let Some(head) = kept.older.pop() {
            match self.store.open(head.id) {
                Ok(reader) => {
                    kept.newest = Some(SnapshotContents::new(reader));
                    break;
                }
                Err(error) => kept.damaged.push((head.id, error)),
            }
        }
        Ok(kept)
    }

    /// Does one job.
    pub fn run(&mut self, job: SnapshotJob) -> SnapshotDone {
        SnapshotDone(match job.0 {
            Job::Take { id, meta, sessions, source } => Done::Taken(self.take(id, meta, &sessions, source)),
            Job::Stage(chunk) => {
                let id = chunk.head.id;
                let staged = self.stage(chunk);
                if staged.is_err() {
                    self.staging = None;
                }
                Done::Staged(id, staged)
            }
            Job::Read { to, id, offset, bytes_max } => {
                let result = self.read(id, offset, bytes_max);
                if result.is_err() {
                    self.readers.remove(&id);
                }
                Done::Read { to, id, result }
            }
            Job::Delete(id) => {
                self.readers.remove(&id);
                Done::Deleted(self.store.delete(id))
            }
        })
    }

    /// Writes the state down, makes it durable and reads it back.
    fn take(
        &mut self,
        id: SnapshotId,
        meta: SnapshotMeta,
        sessions: &Bytes,
        source: Box<dyn SnapshotSource>,
    ) -> Result<SnapshotHead, SnapshotError> {
        let mut sink = Sink { writer: self.store.create(id)?, len: 0, checksum: 0, error: None };
        let written = {
            let mut out = io::BufWriter::with_capacity(WRITE_BYTES, &mut sink);
            contents::write(&mut out, sessions, source).and_then(|()| out.flush())
        };
        if let Err(source) = written {
            return Err(sink.error.unwrap_or(SnapshotError::Source(source)));
        }
        let head = SnapshotHead { id, meta, len: sink.len, checksum: sink.checksum };
        sink.writer.finish(&head)?;
        self.store.open(id)?;
        Ok(head)
    }

    fn stage(&mut self, chunk: SnapshotChunk) -> Result<Staged, SnapshotError> {
        let SnapshotChunk { head, offset, bytes, .. } = chunk;
        if offset == 0 {
            let writer = self.store.create(head.id)?;
            self.staging = Some(Staging { id: head.id, writer, through: 0, checksum: 0 });
        }
        let staging = self.staging.as_mut().filter(|staging| staging.id == head.id);
        let staging = staging.filter(|staging| staging.through == offset);
        let staging = staging.ok_or(SnapshotError::Missing(head.id))?;
        staging.writer.write(&bytes)?;
        staging.through += bytes.len() as u64;
        staging.checksum = crc32c::crc32c_append(staging.checksum, &bytes);
        if staging.through < head.len {
            return Ok(Staged::Through(staging.through));
        }
        let Some(Staging { writer, checksum, .. }) = self.staging.take() else {
            unreachable!("just written to");
        };
        if checksum != head.checksum {
            return Err(SnapshotError::Checksum);
        }
        writer.finish(&head)?;
        Ok(Staged::Whole(SnapshotContents::new(self.store.open(head.id)?)))
    }

    fn read(
        &mut self,
        id: SnapshotId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<SnapshotChunk, SnapshotError> {
        let reader = match self.readers.entry(id) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(self.store.open(id)?),
        };
        let head = reader.head().clone();
        let wanted = usize::try_from(head.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes_max);
        let mut bytes = vec![0; wanted];
        let mut filled = 0;
        while filled < wanted {
            match reader.read_at(offset + filled as u64, &mut bytes[filled..])? {
                0 => break,
                len => filled += len,
            }
        }
        bytes.truncate(filled);
        Ok(SnapshotChunk { offset, checksum: crc32c::crc32c(&bytes), bytes: Bytes::from(bytes), head })
    }
}

/// A state machine writes in small pieces; the store gets larger ones.
const WRITE_BYTES: usize = 256 << 10;

/// Counts and sums what goes into a writer.
struct Sink {
    writer: Box<dyn SnapshotWriter>,
    len: u64,
    checksum: u32,
    /// What the writer said: an `io::Error` cannot say it as well.
    error: Option<SnapshotError>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.writer.write(bytes) {
            self.error = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        self.len += bytes.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Job::Take { id, .. } => write!(f, "take {id}"),
            Job::Stage(chunk) => write!(f, "stage {} at {}", chunk.head.id, chunk.offset),
            Job::Read { to, id, offset, .. } => write!(f, "read {id} at {offset} for {to}"),
            Job::Delete(id) => write!(f, "delete {id}"),
        }
    }
}

impl fmt::Debug for SnapshotKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotKeeper").finish_non_exhaustive()
    }
}
