//! The logs of the replicas of one run: they outlive the nodes that write them.

use std::io;
use std::path::PathBuf;

use synod_core::memory::MemoryStorage;
use synod_core::{ClusterId, GroupId, Identity, NodeId};
#[cfg(feature = "redb")]
use synod_wal::redb::RedbStorage;
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
    /// The same, in a database of redb each.
    #[cfg(feature = "redb")]
    Redb(TempDir),
}

/// One log, opened for one life of a node.
#[derive(Debug)]
pub enum Log {
    /// In memory.
    Memory(MemoryStorage),
    /// On disk.
    Wal(Wal),
    /// On disk, in a database of redb.
    #[cfg(feature = "redb")]
    Redb(RedbStorage),
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
                let folder = temporary_folder()?;
                for identity in identities(replicas) {
                    Wal::create(place_in(&folder, identity.node), identity)?;
                }
                Ok(Logs::Wal(folder))
            }
            #[cfg(feature = "redb")]
            StorageKind::Redb => {
                let folder = temporary_folder()?;
                for identity in identities(replicas) {
                    RedbStorage::create(place_in(&folder, identity.node), identity)?;
                }
                Ok(Logs::Redb(folder))
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
            Logs::Wal(folder) => Ok(Log::Wal(Wal::open(place_in(folder, node))?)),
            #[cfg(feature = "redb")]
            Logs::Redb(folder) => Ok(Log::Redb(RedbStorage::open(place_in(folder, node))?)),
        }
    }

    /// True if a write is durable only once the disk says so, so that each call of the storage is a sync.
    #[must_use]
    pub fn sync(&self) -> bool {
        !matches!(self, Logs::Memory(_))
    }
}

fn temporary_folder() -> Result<TempDir, LogError> {
    tempfile::Builder::new().prefix("synod-compare").tempdir().map_err(LogError::Folder)
}

fn identities(replicas: u64) -> impl Iterator<Item = Identity> {
    let (cluster, group) = (ClusterId::default(), GroupId::default());
    (1..=replicas).map(move |node| Identity { cluster, node: NodeId(node), group })
}

/// Where the log of a replica lies.
fn place_in(folder: &TempDir, node: NodeId) -> PathBuf {
    folder.path().join(node.0.to_string())
}
