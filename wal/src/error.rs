//! Why a log cannot be made, opened, read or written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use synod_core::{ClusterId, Identity, LogIndex, StorageError};

use crate::options::OptionsError;

/// Why a log cannot be made, opened, read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// There is no log: the folder is empty, or holds something else. A node that has lost its log must not
    /// go on under its old id, so nothing is made here.
    #[error("{place} holds no log{}", .found.as_ref().map(|name| format!(", but {name}")).unwrap_or_default())]
    NoLog {
        /// The folder.
        place: String,
        /// Something that is there.
        found: Option<String>,
    },
    /// A log is made once, in an empty folder.
    #[error("{place} is not empty: it holds {found}")]
    NotEmpty {
        /// The folder.
        place: String,
        /// Something that is there.
        found: String,
    },
    /// Somebody else has the log open.
    #[error("{} is held by {}", .lock.display(), .holder.map_or("another process".to_owned(), |id| format!("process {id}")))]
    Locked {
        /// The lock file.
        lock: PathBuf,
        /// The process that holds it, if it left its number there.
        holder: Option<u32>,
    },
    /// The log was made for somebody else.
    #[error("the log belongs to {found:?}, not to {expected:?}")]
    Foreign {
        /// Who opened it.
        expected: Identity,
        /// Whose it is.
        found: Identity,
    },
    /// A later program wrote the log. Nothing is wrong with it, and nothing was changed.
    #[error("{file} is of format version {found}, and this program reads versions up to {known}")]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The latest one that is read here.
        known: u32,
    },
    /// What is stored is damaged, so that acknowledged data may be missing.
    #[error("{file} is corrupt at byte {offset}: {what}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The operating system refused.
    #[error("{operation} of {file} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// A unit that no batch can hold.
    #[error("a batch of {len} bytes is larger than {max}")]
    TooLarge {
        /// How long it would be.
        len: usize,
        /// How long a batch may be.
        max: usize,
    },
    /// A log that begins behind a snapshot cannot be made the log of a new cluster: the snapshot names members of the
    /// old one.
    #[error("the log is compacted through {through}: the snapshot below names members of the old cluster")]
    Compacted {
        /// The bound.
        through: LogIndex,
    },
    /// A new cluster needs an id of its own: nodes of the old one must not take its node for theirs.
    #[error("{cluster} is the old cluster; the new one needs an id of its own")]
    SameCluster {
        /// The cluster.
        cluster: ClusterId,
    },
    /// Settings that cannot be.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// An earlier write failed; nothing is written any more.
    #[error("an earlier write failed")]
    Poisoned,
    /// The log was not recovered yet.
    #[error("the log was not recovered yet")]
    NotRecovered,
}

impl WalError {
    /// Turns what the system said about `file` into an error.
    pub(crate) fn io(operation: &'static str, file: &str) -> impl FnOnce(io::Error) -> WalError {
        move |source| WalError::Io { operation, file: file.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn corrupt(file: &str, offset: u64, what: impl Into<String>) -> WalError {
        WalError::Corrupt { file: file.to_owned(), offset, what: what.into() }
    }
}

impl From<WalError> for StorageError {
    fn from(error: WalError) -> StorageError {
        match error {
            WalError::Foreign { expected, found } => StorageError::Foreign { expected, found },
            WalError::Version { file, found, known } => StorageError::Version { place: file, found, known },
            WalError::Corrupt { file, offset, what } => {
                StorageError::Corrupt { place: format!("{file} at byte {offset}"), what }
            }
            WalError::Io { operation, source, .. } => StorageError::Io { operation, source },
            WalError::Poisoned => StorageError::Poisoned,
            WalError::NotRecovered => StorageError::NotRecovered,
            other => {
                StorageError::Io { operation: "open the log", source: Arc::new(io::Error::other(other)) }
            }
        }
    }
}
