//! A disk in memory that loses, at a crash, what was not synced: any sectors of files, any changes of the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;
use synod_wal::{Disk, DiskFile};

pub(crate) const SECTOR: usize = 512;

/// Clones are one disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<Device>>);

/// A file of a [`MemoryDisk`].
#[derive(Debug)]
pub(crate) struct MemoryFile {
    disk: MemoryDisk,
    number: usize,
}

/// What a disk was told, in order.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create { name: String, file: usize },
    Write { file: usize, offset: u64, bytes: Vec<u8> },
    SetLen { file: usize, len: u64 },
    Sync { file: usize },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncDir,
}

/// The contents of a disk: what is durable, and what came since.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    files: Vec<Contained>,
    folder: BTreeMap<String, usize>,
    durable_folder: BTreeMap<String, usize>,
    /// Changes of the folder since it was synced.
    unsynced: Vec<FolderChange>,
}

#[derive(Clone, Debug, Default)]
struct Contained {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum FolderChange {
    Enter(String, usize),
    Leave(String),
    Move(String, String, usize),
}

#[derive(Debug, Default)]
struct Device {
    contents: Contents,
    operations: u64,
    /// From this operation on everything fails; the seed says what survives.
    crash_at: Option<(u64, u64)>,
    /// This operation fails, with this error.
    fail_at: Option<(u64, io::ErrorKind)>,
    /// Every other write is interrupted or short.
    unsteady: bool,
    /// What was done, if it is recorded.
    record: Option<Vec<Operation>>,
}

impl MemoryDisk {
    pub(crate) fn of(contents: Contents) -> MemoryDisk {
        MemoryDisk(Arc::new(Mutex::new(Device { contents, ..Device::default() })))
    }

    pub(crate) fn contents(&self) -> Contents {
        self.lock().contents.clone()
    }

    /// Changes a file at rest.
    pub(crate) fn damage(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        self.lock().contents.damage(name, damage);
    }

    /// How many changes and syncs there were so far.
    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub(crate) fn record(&self) {
        self.lock().record = Some(Vec::new());
    }

    pub(crate) fn recorded(&self) -> usize {
        self.lock().record.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn take_record(&self) -> Vec<Operation> {
        self.lock().record.take().unwrap_or_default()
    }

    pub(crate) fn crash_after(&self, operations: u64, seed: u64) {
        let mut device = self.lock();
        device.crash_at = Some((device.operations + operations, seed));
    }

    pub(crate) fn fail_once_after(&self, operations: u64, kind: io::ErrorKind) {
        let mut device = self.lock();
        device.fail_at = Some((device.operations + operations, kind));
    }

    pub(crate) fn be_unsteady(&self) {
        self.lock().unsteady = true;
    }

    /// The machine starts again: what the crash took is gone, and nothing is armed.
    pub(crate) fn restart(&self) {
        let mut device = self.lock();
        if let Some((_, seed)) = device.crash_at.take() {
            device.contents = device.contents.after_crash(&mut SplitMix64::seed_from_u64(seed));
        }
        device.fail_at = None;
    }

    fn lock(&self) -> MutexGuard<'_, Device> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, number: usize) -> MemoryFile {
        MemoryFile { disk: self.clone(), number }
    }
}

impl Contents {
    /// Does what a disk was told.
    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { name, file } => {
                assert_eq!(*file, self.files.len(), "files are numbered in order");
                self.files.push(Contained::default());
                self.folder.insert(name.clone(), *file);
                self.unsynced.push(FolderChange::Enter(name.clone(), *file));
            }
            Operation::Write { file, offset, bytes } => self.files[*file].write(*offset, bytes),
            Operation::SetLen { file, len } => self.files[*file].set_len(*len),
            Operation::Sync { file } => self.files[*file].sync(),
            Operation::Rename { from, to } => {
                let file = self.folder.remove(from).expect("the file was there");
                self.folder.insert(to.clone(), file);
                self.unsynced.push(FolderChange::Move(from.clone(), to.clone(), file));
            }
            Operation::Remove { name } => {
                self.folder.remove(name);
                self.unsynced.push(FolderChange::Leave(name.clone()));
            }
            Operation::SyncDir => {
                self.durable_folder = self.folder.clone();
                self.unsynced.clear();
            }
        }
    }

    /// What is left after a crash: everything durable, and of the rest what `random` says.
    pub(crate) fn after_crash(&self, random: &mut SplitMix64) -> Contents {
        // A third of the crashes keep nothing, a third keep nearly all.
        let odds = [0, 4, 15][usize::try_from(random.next_u64() % 3).expect("small")];
        let mut keeps = || random.next_u64() % 16 < odds;
        let mut folder = self.durable_folder.clone();
        for change in &self.unsynced {
            if !keeps() {
                continue;
            }
            match change {
                FolderChange::Enter(name, file) => {
                    folder.insert(name.clone(), *file);
                }
                FolderChange::Leave(name) => {
                    folder.remove(name);
                }
                FolderChange::Move(from, to, file) => {
                    folder.retain(|name, _| name != from);
                    folder.insert(to.clone(), *file);
                }
            }
        }
        let mut left = Contents::default();
        for (name, file) in folder {
            let bytes = self.files[file].after_crash(&mut keeps);
            left.folder.insert(name, left.files.len());
            left.files.push(Contained { durable: bytes.clone(), bytes, dirty: BTreeSet::new() });
        }
        left.durable_folder = left.folder.clone();
        left
    }

    /// The files as they are seen.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.folder.iter().map(|(name, file)| (name.as_str(), &self.files[*file].bytes[..]))
    }

    /// Changes a file at rest.
    pub(crate) fn damage(&mut self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let file = &mut self.files[self.folder[name]];
        damage(&mut file.bytes);
        file.durable.clone_from(&file.bytes);
        file.dirty.clear();
    }

    /// Takes a file away.
    pub(crate) fn lose(&mut self, name: &str) {
        self.folder.remove(name);
        self.durable_folder.remove(name);
    }

    /// Puts a file there.
    pub(crate) fn place(&mut self, name: &str, bytes: Vec<u8>) {
        let number = self.files.len();
        self.files.push(Contained { durable: bytes.clone(), bytes, dirty: BTreeSet::new() });
        self.folder.insert(name.to_owned(), number);
        self.durable_folder.insert(name.to_owned(), number);
    }
}

impl Contained {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let start = usize::try_from(offset).expect("small");
        let end = start + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        self.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
    }

    fn set_len(&mut self, len: u64) {
        let len = usize::try_from(len).expect("small");
        self.dirty.extend(len.min(self.bytes.len()) / SECTOR..len.max(self.bytes.len()).div_ceil(SECTOR));
        self.bytes.resize(len, 0);
    }

    fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let end = (sector * SECTOR + SECTOR).min(self.bytes.len());
            let range = (sector * SECTOR).min(end)..end;
            self.durable[range.clone()].copy_from_slice(&self.bytes[range]);
        }
    }

    fn after_crash(&self, keeps: &mut impl FnMut() -> bool) -> Vec<u8> {
        let mut left = self.durable.clone();
        if left.len() != self.bytes.len() && keeps() {
            left.resize(self.bytes.len(), 0);
        }
        for sector in &self.dirty {
            let end = (sector * SECTOR + SECTOR).min(self.bytes.len()).min(left.len());
            let range = (sector * SECTOR).min(end)..end;
            if keeps() {
                left[range.clone()].copy_from_slice(&self.bytes[range]);
            }
        }
        left
    }
}

impl Device {
    /// Counts one operation; fails it if it is its turn.
    fn operate(&mut self, operation: Operation) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        if self.crash_at.is_some_and(|(at, _)| number >= at) {
            // The operation under way when the machine stops may be there in part.
            if self.crash_at.is_some_and(|(at, _)| number == at)
                && !matches!(operation, Operation::Sync { .. } | Operation::SyncDir)
            {
                self.contents.apply(&operation);
            }
            return Err(io::Error::other("the machine is down"));
        }
        if let Some((at, kind)) = self.fail_at
            && at == number
        {
            return Err(kind.into());
        }
        if let Some(record) = &mut self.record {
            record.push(operation.clone());
        }
        self.contents.apply(&operation);
        Ok(())
    }

    fn named(&self, name: &str) -> io::Result<usize> {
        self.contents.folder.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().contents.folder.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut device = self.lock();
        if device.named(name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = device.contents.files.len();
        device.operate(Operation::Create { name: name.to_owned(), file: number })?;
        Ok(self.file(number))
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let number = self.lock().named(name)?;
        Ok(self.file(number))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut device = self.lock();
        device.named(from)?;
        device.operate(Operation::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut device = self.lock();
        device.named(name)?;
        device.operate(Operation::Remove { name: name.to_owned() })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.lock().operate(Operation::SyncDir)
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().contents.files[self.number].bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let device = self.disk.lock();
        let bytes = &device.contents.files[self.number].bytes;
        let from = usize::try_from(offset).expect("small").min(bytes.len());
        let len = into.len().min(bytes.len() - from);
        into[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut device = self.disk.lock();
        let mut len = bytes.len();
        if device.unsteady && len > 1 {
            match device.operations % 3 {
                0 => {
                    device.operations += 1;
                    return Err(io::ErrorKind::Interrupted.into());
                }
                1 => len = len.div_ceil(2),
                _ => {}
            }
        }
        device.operate(Operation::Write { file: self.number, offset, bytes: bytes[..len].to_vec() })?;
        Ok(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.lock().operate(Operation::SetLen { file: self.number, len })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.lock().operate(Operation::Sync { file: self.number })
    }
}

/// A log on a [`MemoryDisk`] behind the trait of the core.
pub(crate) struct EngineStorage(pub(crate) synod_wal::Engine<MemoryDisk>);

#[async_trait::async_trait]
impl synod_core::Storage for EngineStorage {
    async fn recover(
        &mut self,
        identity: &synod_core::Identity,
    ) -> Result<synod_core::Recovered, synod_core::StorageError> {
        Ok(self.0.recover(identity)?)
    }

    async fn write(&mut self, batch: &[synod_core::Write]) -> Result<(), synod_core::StorageError> {
        Ok(self.0.write(batch)?)
    }

    fn reader(&self) -> Arc<dyn synod_core::LogReader> {
        self.0.reader()
    }

    fn blocking(&self) -> bool {
        true
    }
}
