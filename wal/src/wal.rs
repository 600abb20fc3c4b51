//! The log in a folder of the operating system: an [`Engine`] behind a lock.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use synod_core::{Identity, LogReader, Recovered, Storage, StorageError, Write};

use crate::error::WalError;
use crate::lock::{LOCK_NAME, Lock};
use crate::segment::{TEMPORARY, segment_number};
use crate::{Disk, Engine, FileDisk, WalOptions};

/// A write-ahead log in a folder: the durable [`Storage`].
///
/// It holds the folder's lock from [`Wal::create`] or [`Wal::open`] until it is dropped.
#[derive(Debug)]
pub struct Wal {
    /// There until it is dropped.
    engine: Option<Engine<FileDisk>>,
    /// Let go last.
    _lock: Lock,
}

impl Wal {
    /// Makes a new, empty log for `identity`, once in the life of a node. Makes the folder if it is not there.
    ///
    /// # Errors
    /// [`WalError::NotEmpty`] if anything is in the folder, [`WalError::Locked`], [`WalError::Io`].
    pub fn create(folder: impl AsRef<Path>, identity: Identity) -> Result<Wal, WalError> {
        Wal::create_with(folder, identity, WalOptions::default())
    }

    /// As [`Wal::create`], with settings.
    ///
    /// # Errors
    /// As [`Wal::create`], and [`WalError::Options`].
    pub fn create_with(
        folder: impl AsRef<Path>,
        identity: Identity,
        options: WalOptions,
    ) -> Result<Wal, WalError> {
        let folder = folder.as_ref();
        options.validate()?;
        make_folder(folder).map_err(WalError::io("make", &shown(folder)))?;
        let disk = FileDisk::open(folder).map_err(WalError::io("open", &shown(folder)))?;
        let names = disk.list().map_err(WalError::io("list", &shown(folder)))?;
        if let Some(found) = names.iter().find(|name| *name != LOCK_NAME && !name.ends_with(TEMPORARY)) {
            return Err(WalError::NotEmpty { place: shown(folder), found: found.clone() });
        }
        let lock = Lock::exclusive(folder)?;
        let engine = Engine::new(disk, options)?.prepare_in_background(true);
        engine.create(&identity).map_err(|error| placed(error, folder))?;
        Ok(Wal { engine: Some(engine), _lock: lock })
    }

    /// Opens the log in a folder. Nothing is read yet: that is what [`Storage::recover`] does.
    ///
    /// # Errors
    /// [`WalError::NoLog`] if the folder is missing, empty, or holds something else: a node that has lost its
    /// log has lost its votes with it, and must not take part under its old id. [`WalError::Locked`] if another
    /// process has it open, [`WalError::Io`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Wal, WalError> {
        Wal::open_with(folder, WalOptions::default())
    }

    /// As [`Wal::open`], with settings. They need not be those that the log was made with.
    ///
    /// # Errors
    /// As [`Wal::open`], and [`WalError::Options`].
    pub fn open_with(folder: impl AsRef<Path>, options: WalOptions) -> Result<Wal, WalError> {
        let folder = folder.as_ref();
        options.validate()?;
        let disk = open_log(folder)?;
        let lock = Lock::exclusive(folder)?;
        let engine = Engine::new(disk, options)?.prepare_in_background(true);
        Ok(Wal { engine: Some(engine), _lock: lock })
    }

    /// The settings there are.
    #[must_use]
    pub fn options() -> WalOptions {
        WalOptions::default()
    }

    fn engine(&mut self) -> &mut Engine<FileDisk> {
        self.engine.as_mut().expect("a log has an engine until it is dropped")
    }
}

/// The folder of a log, if there is one in it.
pub(crate) fn open_log(folder: &Path) -> Result<FileDisk, WalError> {
    let disk = match FileDisk::open(folder) {
        Ok(disk) => disk,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(WalError::NoLog { place: shown(folder), found: None });
        }
        Err(error) => return Err(WalError::io("open", &shown(folder))(error)),
    };
    let names = disk.list().map_err(WalError::io("list", &shown(folder)))?;
    if !names.iter().any(|name| segment_number(name).is_some()) {
        let found = names.into_iter().find(|name| name != LOCK_NAME && !name.ends_with(TEMPORARY));
        return Err(WalError::NoLog { place: shown(folder), found });
    }
    Ok(disk)
}

/// Names the folder in errors that know only its files.
pub(crate) fn placed(error: WalError, folder: &Path) -> WalError {
    match error {
        WalError::NotEmpty { found, .. } => WalError::NotEmpty { place: shown(folder), found },
        WalError::NoLog { found, .. } => WalError::NoLog { place: shown(folder), found },
        other => other,
    }
}

fn shown(folder: &Path) -> String {
    folder.display().to_string()
}

/// Makes the folder and those around it, and makes each durable in the one that holds it: a log whose folder is lost
/// in a crash is lost.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|ancestor| !ancestor.is_dir()).collect();
    fs::create_dir_all(folder)?;
    for made in missing.into_iter().filter(|made| !made.as_os_str().is_empty()) {
        sync_entry(made)?;
    }
    // One that was there may be left from an attempt that did not get so far as to make it durable. It may also be
    // somebody else's, in a place where we may not look.
    match sync_entry(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}

/// Makes the name of `folder` durable in the folder that holds it.
pub(crate) fn sync_entry(folder: &Path) -> io::Result<()> {
    match folder.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[async_trait]
impl Storage for Wal {
    async fn recover(&mut self, identity: &Identity) -> Result<Recovered, StorageError> {
        Ok(self.engine().recover(identity)?)
    }

    async fn write(&mut self, batch: &[Write]) -> Result<(), StorageError> {
        Ok(self.engine().write(batch)?)
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.engine.as_ref().expect("a log has an engine until it is dropped").reader()
    }

    fn blocking(&self) -> bool {
        true
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            // Everything that was reported durable is; an error here has nobody to be told to.
            let _ = engine.close();
        }
    }
}
