//! Snapshots in files: one file for each, beside a log or anywhere else.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `SYNODSNP` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | 0 |
//! | 16 | .. | contents |
//! | .. | .. | all about it ([`SnapshotHead`] in its wire form) |
//! | .. | 4 | length of that |
//! | .. | 4 | CRC-32C of the first 16 bytes and of that |
//! | .. | 8 | `SYNODSNP` |
//!
//! A snapshot is written under a temporary name, synced, renamed, and then the folder is synced: it is seen whole or not
//! at all. The sum of its contents is in its head, and compared whenever it is opened.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use synod_core::{
    Incarnation, LogIndex, NodeId, SnapshotError, SnapshotHead, SnapshotId, SnapshotReader, SnapshotStore,
    SnapshotWriter, Wire,
};

use crate::segment::TEMPORARY;
use crate::wal::make_folder;
use crate::{Disk, DiskFile, FileDisk};

/// Keeps snapshots as files of one folder that nobody else uses.
#[derive(Debug)]
pub struct FileSnapshots<D: Disk = FileDisk> {
    disk: Arc<D>,
}

impl FileSnapshots {
    /// Those in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn open(folder: impl AsRef<Path>) -> Result<FileSnapshots, SnapshotError> {
        let folder = folder.as_ref();
        let shown = folder.display().to_string();
        make_folder(folder).map_err(failed("make", &shown))?;
        let disk = FileDisk::open(folder).map_err(failed("open", &shown))?;
        FileSnapshots::on(disk)
    }
}

impl<D: Disk> FileSnapshots<D> {
    /// Those on `disk`. What an earlier life did not finish is removed.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn on(disk: D) -> Result<FileSnapshots<D>, SnapshotError> {
        for name in disk.list().map_err(failed("list", "the folder of snapshots"))? {
            if name.ends_with(TEMPORARY) {
                disk.remove(&name).map_err(failed("remove", &name))?;
            }
        }
        Ok(FileSnapshots { disk: Arc::new(disk) })
    }

    /// Opens a file and reads its head.
    fn head_of(&self, name: &str) -> Result<Reader<D::File>, SnapshotError> {
        let corrupt = |what| SnapshotError::Corrupt { name: name.to_owned(), what };
        let file = match self.disk.open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(match id_of(name) {
                    Some(id) => SnapshotError::Missing(id),
                    None => corrupt("its name is no snapshot's"),
                });
            }
            opened => opened.map_err(failed("open", name))?,
        };
        let len = file.len().map_err(failed("measure", name))?;
        if len < START_LEN + END_LEN {
            return Err(corrupt("it is too short"));
        }
        let mut start = [0; START_LEN as usize];
        let mut end = [0; END_LEN as usize];
        read_exact(&file, 0, &mut start).map_err(failed("read", name))?;
        read_exact(&file, len - END_LEN, &mut end).map_err(failed("read", name))?;
        if start[..8] != MAGIC || end[8..] != MAGIC {
            return Err(corrupt("it does not begin and end as a snapshot"));
        }
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if word(&start[8..]) != VERSION {
            return Err(corrupt("its version is not known here"));
        }
        let head_len = u64::from(word(&end));
        if head_len > HEAD_LEN_MAX || START_LEN + head_len + END_LEN > len {
            return Err(corrupt("its head does not fit"));
        }
        let mut head = vec![0; usize::try_from(head_len).unwrap_or(usize::MAX)];
        read_exact(&file, len - END_LEN - head_len, &mut head).map_err(failed("read", name))?;
        if crc32c::crc32c_append(crc32c::crc32c(&start), &head) != word(&end[4..]) {
            return Err(corrupt("its head does not have its sum"));
        }
        let head = SnapshotHead::from_bytes(head.into()).map_err(|_| corrupt("its head makes no sense"))?;
        if name_of(head.id) != name || START_LEN + head.len + head_len + END_LEN != len {
            return Err(corrupt("its head is of another snapshot"));
        }
        Ok(Reader { file, name: name.to_owned(), head })
    }
}

impl<D: Disk> SnapshotStore for FileSnapshots<D> {
    /// A file whose head is damaged is left out, and left alone.
    fn list(&mut self) -> Result<Vec<SnapshotHead>, SnapshotError> {
        let mut heads = Vec::new();
        for name in self.disk.list().map_err(failed("list", "the folder of snapshots"))? {
            if id_of(&name).is_none() {
                continue;
            }
            match self.head_of(&name) {
                Ok(reader) => heads.push(reader.head),
                Err(SnapshotError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        heads.sort_by_key(|head| head.id);
        Ok(heads)
    }

    fn create(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotWriter>, SnapshotError> {
        let name = format!("{}{TEMPORARY}", name_of(id));
        match self.disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &name)(error));
            }
            _ => {}
        }
        let file = self.disk.create(&name).map_err(failed("make", &name))?;
        let mut writer = Writer { disk: Arc::clone(&self.disk), file, name, at: 0, finished: false };
        let mut start = [0; START_LEN as usize];
        start[..8].copy_from_slice(&MAGIC);
        start[8..12].copy_from_slice(&VERSION.to_le_bytes());
        writer.append(&start)?;
        Ok(Box::new(writer))
    }

    fn open(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotReader>, SnapshotError> {
        let mut reader = self.head_of(&name_of(id))?;
        let (mut offset, mut sum) = (0, 0);
        let mut piece = vec![0; PIECE_LEN];
        loop {
            let len = reader.read_at(offset, &mut piece)?;
            if len == 0 {
                break;
            }
            sum = crc32c::crc32c_append(sum, &piece[..len]);
            offset += len as u64;
        }
        if offset != reader.head.len || sum != reader.head.checksum {
            return Err(SnapshotError::Corrupt {
                name: reader.name,
                what: "its contents do not have their sum",
            });
        }
        Ok(Box::new(reader))
    }

    fn delete(&mut self, id: SnapshotId) -> Result<(), SnapshotError> {
        let name = name_of(id);
        match self.disk.remove(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("remove", &name)),
        }
    }
}

struct Writer<D: Disk> {
    disk: Arc<D>,
    file: D::File,
    name: String,
    at: u64,
    finished: bool,
}

impl<D: Disk> Writer<D> {
    fn append(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            match self.file.write_at(self.at, bytes) {
                Ok(0) => return Err(failed("write", &self.name)(io::ErrorKind::WriteZero.into())),
                Ok(len) => {
                    self.at += len as u64;
                    bytes = &bytes[len..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("write", &self.name)(error)),
            }
        }
        Ok(())
    }
}

impl<D: Disk> SnapshotWriter for Writer<D> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.append(bytes)
    }

    fn finish(mut self: Box<Self>, head: &SnapshotHead) -> Result<(), SnapshotError> {
        let mut start = [0; START_LEN as usize];
        start[..8].copy_from_slice(&MAGIC);
        start[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let bytes = head.to_bytes();
        let sum = crc32c::crc32c_append(crc32c::crc32c(&start), &bytes);
        self.append(&bytes)?;
        self.append(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        self.append(&sum.to_le_bytes())?;
        self.append(&MAGIC)?;
        self.file.sync().map_err(failed("sync", &self.name))?;
        let name = name_of(head.id);
        self.disk.rename(&self.name, &name).map_err(failed("rename", &self.name))?;
        self.finished = true;
        self.disk.sync_dir().map_err(failed("sync", "the folder of snapshots"))
    }
}

/// An abandoned snapshot leaves nothing; if it does all the same, the next start removes it.
impl<D: Disk> Drop for Writer<D> {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.disk.remove(&self.name);
        }
    }
}

struct Reader<F> {
    file: F,
    name: String,
    head: SnapshotHead,
}

impl<F: DiskFile> SnapshotReader for Reader<F> {
    fn head(&self) -> &SnapshotHead {
        &self.head
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, SnapshotError> {
        let left = usize::try_from(self.head.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = into.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            match self.file.read_at(START_LEN + offset, &mut into[..wanted]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(failed("read", &self.name)),
            }
        }
    }
}

impl<F> fmt::Debug for Reader<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("name", &self.name).finish_non_exhaustive()
    }
}

fn read_exact(file: &impl DiskFile, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match file.read_at(offset, into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                offset += len as u64;
                into = &mut into[len..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn failed(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> SnapshotError {
    let action = format!("{action} {name}");
    move |source| SnapshotError::Io { action, source }
}

fn name_of(id: SnapshotId) -> String {
    format!("{:016x}-{:016x}-{:016x}{SNAPSHOT}", id.index.0, id.taken_by.0, id.life.0)
}

fn id_of(name: &str) -> Option<SnapshotId> {
    let mut numbers = name.strip_suffix(SNAPSHOT)?.split('-').map(|text| u64::from_str_radix(text, 16));
    let mut next = || numbers.next()?.ok();
    let (index, taken_by, life) = (LogIndex(next()?), NodeId(next()?), Incarnation(next()?));
    let id = SnapshotId { index, taken_by, life };
    (name_of(id) == name).then_some(id)
}

const MAGIC: [u8; 8] = *b"SYNODSNP";
const VERSION: u32 = 1;
const START_LEN: u64 = 16;
const END_LEN: u64 = 16;
const SNAPSHOT: &str = ".snapshot";

/// A head with more members than any cluster has is none.
const HEAD_LEN_MAX: u64 = 1 << 24;

/// How much is read at once.
const PIECE_LEN: usize = 256 << 10;
