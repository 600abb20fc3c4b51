//! The logs of the replicas of one run: they outlive the nodes that write them.

use std::io;
use std::path::PathBuf;

use synod_core::memory::MemoryStorage;
use synod_core::{ClusterId, GroupId, Identity, NodeId};
use synod_wal::{Wal, WalError};
use tempfile::TempDir;

use crate::options::StorageKind;

/// A log for each replica `1..=n`.
#[derive(Debug)]
pub enum Logs {
    /// In memory.
    Memory(Vec<MemoryStorage>),
    /// On disk, in a temporary folder that goes with this value.
    Wal(TempDir),
}

/// One log, opened for one life of a node.
#[derive(Debug)]
pub enum Log {
    /// In memory.
    Memory(MemoryStorage),
    /// On disk.
    Wal(Wal),
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// There is no folder for it.
    #[error("no temporary folder")]
    Folder(#[source] io::Error),
    /// It cannot be made or opened.
    #[error(transparent)]
    Wal(#[from] WalError),
}

impl Logs {
    /// Makes empty logs.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn create(kind: StorageKind, replicas: u64) -> Result<Logs, LogError> {
        match kind {
            StorageKind::Memory => Ok(Logs::Memory((0..replicas).map(|_| MemoryStorage::new()).collect())),
            StorageKind::Wal => {
                let folder = tempfile::Builder::new().prefix("synod-compare").tempdir();
                let logs = Logs::Wal(folder.map_err(LogError::Folder)?);
                for node in 1..=replicas {
                    let node = NodeId(node);
                    let identity =
                        Identity { cluster: ClusterId::default(), node, group: GroupId::default() };
                    Wal::create(logs.folder_of(node), identity)?;
                }
                Ok(logs)
            }
        }
    }

    /// Opens the log of a replica, with what its earlier lives left there.
    ///
    /// # Errors
    /// [`LogError`].
    ///
    /// # Panics
    /// If there is no such replica.
    pub fn open(&self, node: NodeId) -> Result<Log, LogError> {
        match self {
            Logs::Memory(logs) => {
                let at = usize::try_from(node.0 - 1).expect("few replicas");
                Ok(Log::Memory(logs[at].clone()))
            }
            Logs::Wal(_) => Ok(Log::Wal(Wal::open(self.folder_of(node))?)),
        }
    }

    /// True if a write is durable only once the disk says so, so that each call of the storage is a sync.
    #[must_use]
    pub fn sync(&self) -> bool {
        !matches!(self, Logs::Memory(_))
    }

    fn folder_of(&self, node: NodeId) -> PathBuf {
        match self {
            Logs::Memory(_) => PathBuf::new(),
            Logs::Wal(folder) => folder.path().join(node.0.to_string()),
        }
    }
}
