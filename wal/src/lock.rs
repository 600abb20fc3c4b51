//! One process for each log.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::WalError;

/// The file in a log's folder that its process keeps locked.
pub(crate) const LOCK_NAME: &str = "lock";

/// Held until it is dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of a folder for writing, and leaves the number of this process in it for people.
    ///
    /// # Errors
    /// [`WalError::Locked`] if somebody has it.
    pub(crate) fn exclusive(folder: &Path) -> Result<Lock, WalError> {
        let path = folder.join(LOCK_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(WalError::io("open", &path.display().to_string()))?;
        taken(file.try_lock(), &file, path.clone())?;
        note_holder(&mut file).map_err(WalError::io("write", &path.display().to_string()))?;
        Ok(Lock { file })
    }

    /// Takes the lock for reading only; it may be on a read-only file system. A folder that never had a lock
    /// needs none.
    ///
    /// # Errors
    /// [`WalError::Locked`] if a writer has it.
    pub(crate) fn shared(folder: &Path) -> Result<Option<Lock>, WalError> {
        let path = folder.join(LOCK_NAME);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WalError::io("open", &path.display().to_string())(error)),
        };
        taken(file.try_lock_shared(), &file, path)?;
        Ok(Some(Lock { file }))
    }
}

/// A process that is being started by another thread has a copy of the file for a moment, and closing this one would leave
/// the lock to it.
impl Drop for Lock {
    fn drop(&mut self) {
        // What fails here is released when the last copy is closed.
        let _ = self.file.unlock();
    }
}

fn taken(outcome: Result<(), TryLockError>, file: &File, lock: PathBuf) -> Result<(), WalError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(WalError::Locked { lock, holder: holder(file) }),
        Err(TryLockError::Error(error)) => Err(WalError::io("lock", &lock.display().to_string())(error)),
    }
}

fn note_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn holder(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
