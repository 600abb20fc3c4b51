//! What a storage owes a replica.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Entries, Identity, IndexRange, LogIndex, Recovered, Write};

/// A durable sparse map from index to entry, with one opaque hard state beside it.
///
/// `put` at an index replaces the entry there and nothing else; indexes may be missing; only
/// `truncate_from` and `compact_to` remove. The storage interprets neither stamps nor hard state.
///
/// # Crashes
/// After a crash the recovered state is the one after some prefix of the issued [`Write`]s that contains
/// every write reported durable: all of a unit or nothing, and never a later unit without an earlier one.
///
/// # Errors
/// Any error is final: the node stops, and a later write must fail too. An fsync is never retried.
#[async_trait]
pub trait Storage: Send {
    /// Reads what is there, having persisted `incarnation + 1`. Called once, first.
    ///
    /// # Errors
    /// [`StorageError::Foreign`] for another identity's log, [`StorageError::Corrupt`] for a damaged one.
    async fn recover(&mut self, identity: &Identity) -> Result<Recovered, StorageError>;

    /// Makes the units durable, in order, before it returns. The storage thread gathers units into
    /// batches; implementers need not.
    ///
    /// # Cancel safety
    /// Not cancel-safe: the caller polls it to its end.
    async fn write(&mut self, batch: &[Write]) -> Result<(), StorageError>;

    /// [`Storage::write`] for a storage that need not wait: the units are durable on return. `None` if it would
    /// have to wait, and then nothing was written. Asked first of a storage that does not block, so that a
    /// write in memory costs no future.
    ///
    /// # Errors
    /// As [`Storage::write`].
    fn try_write(&mut self, batch: &[Write]) -> Option<Result<(), StorageError>> {
        let _ = batch;
        None
    }

    /// A reader of completed writes. Called after [`Storage::recover`].
    fn reader(&self) -> Arc<dyn LogReader>;

    /// True if writes and reads block a thread, so that they belong on one of their own; false (memory) if
    /// the driver may poll them inline.
    fn blocking(&self) -> bool;
}

/// Reads entries back, concurrently with writes.
pub trait LogReader: Send + Sync {
    /// Every entry of a prefix of `range` that weighs at most `bytes_max`, but at least one entry if
    /// there is one in the range. Shows completed writes, and may or may not show one in progress.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] if the start of the range was compacted, [`ReadError::Storage`] if an
    /// entry cannot be read (a failed checksum included): the node stops.
    fn read(&self, range: IndexRange, bytes_max: usize) -> Result<Loaded, ReadError>;
}

/// Every entry there is from the start of the range asked for up to, but not including, `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The entries, ascending; a gap between segments is a hole of the log.
    pub segments: Vec<Entries>,
    /// How far the answer reaches: the end of the range, or less.
    pub to: LogIndex,
}

/// The start of the range asked for is no longer in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is compacted through {through}")]
pub struct Compacted {
    /// Everything at or below this position was removed.
    pub through: LogIndex,
}

/// Why entries were not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// They are no longer there.
    #[error(transparent)]
    Compacted(#[from] Compacted),
    /// They cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a storage cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The log was made for somebody else.
    #[error("the log belongs to {found:?}, not to {expected:?}")]
    Foreign {
        /// Who opened it.
        expected: Identity,
        /// Whose it is.
        found: Identity,
    },
    /// A later program wrote it. Nothing is wrong with it, and nothing was changed.
    #[error("{place} is of format version {found}; versions up to {known} are read")]
    Version {
        /// The file, or what stands for it.
        place: String,
        /// Its version.
        found: u32,
        /// The latest one that is read.
        known: u32,
    },
    /// What is stored is damaged.
    #[error("{place} is corrupt: {what}")]
    Corrupt {
        /// File and offset, or what stands for them.
        place: String,
        /// What was found.
        what: String,
    },
    /// The operating system refused.
    #[error("{operation} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// An earlier write failed; nothing is written any more.
    #[error("an earlier write failed")]
    Poisoned,
    /// The same log was opened again by a newer life of the node.
    #[error("a newer incarnation has opened the log")]
    Superseded,
    /// `write` or `reader` came before `recover`.
    #[error("the log was not recovered yet")]
    NotRecovered,
}
