//! Segment files: their names, how one is made, and whole reads and writes.

use std::io;
use std::sync::Arc;

use synod_core::{Identity, Incarnation};

use crate::error::WalError;
use crate::format::{Checksums, SECTOR, SEGMENT_HEADER_LEN, Salt, SegmentHeader, SegmentNumber};
use crate::{Disk, DiskFile};

/// A segment that is ready to be written or read.
#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub(crate) number: SegmentNumber,
    pub(crate) name: String,
    pub(crate) file: Arc<F>,
    pub(crate) salt: Salt,
    /// Of the file, in bytes.
    pub(crate) len: u64,
}

impl<F> Clone for Segment<F> {
    fn clone(&self) -> Segment<F> {
        Segment { name: self.name.clone(), file: Arc::clone(&self.file), ..*self }
    }
}

impl<F: DiskFile> Segment<F> {
    pub(crate) fn checksums(&self) -> Checksums {
        self.salt.checksums()
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), WalError> {
        write_all(&*self.file, offset, bytes).map_err(WalError::io("write", &self.name))
    }

    /// Never tried again: what a failed sync has dropped would be taken for written.
    pub(crate) fn sync(&self) -> Result<(), WalError> {
        self.file.sync().map_err(WalError::io("sync", &self.name))
    }

    /// Writes zeros from `offset` to the end, with a sync whenever so many bytes were written since the last. What
    /// was written last is not synced.
    pub(crate) fn blank(&self, mut offset: u64, burst_bytes: u64) -> Result<(), WalError> {
        let zeros = vec![0; BLANK_CHUNK_BYTES.min(usize::try_from(self.len).unwrap_or(BLANK_CHUNK_BYTES))];
        let mut unsynced = 0;
        while offset < self.len {
            let chunk = (self.len - offset).min(zeros.len() as u64);
            self.write(offset, &zeros[..usize::try_from(chunk).expect("a chunk")])?;
            offset += chunk;
            unsynced += chunk;
            if unsynced >= burst_bytes {
                self.sync()?;
                unsynced = 0;
            }
        }
        Ok(())
    }

    /// Fills `into` from `offset` on.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), WalError> {
        let read = read_full(&*self.file, offset, into).map_err(WalError::io("read", &self.name))?;
        if read < into.len() {
            return Err(WalError::corrupt(&self.name, offset + read as u64, "the file ends here"));
        }
        Ok(())
    }
}

/// Zeros are written in pieces of this size.
const BLANK_CHUNK_BYTES: usize = 256 << 10;

/// Files whose name ends so were never part of the log.
pub(crate) const TEMPORARY: &str = ".tmp";

const PREFIX: &str = "segment-";

pub(crate) fn segment_name(number: SegmentNumber) -> String {
    format!("{PREFIX}{:010}", number.0)
}

/// The number in the name of a segment; `None` for every other name.
pub(crate) fn segment_number(name: &str) -> Option<SegmentNumber> {
    let number = SegmentNumber(name.strip_prefix(PREFIX)?.parse().ok()?);
    (segment_name(number) == name).then_some(number)
}

/// Makes one segment: fills it with zeros, so that writing it later changes no size and allocates no block.
///
/// It owns all that it needs and may run on another thread than the log.
#[derive(Debug)]
pub(crate) struct Preparation<D> {
    pub(crate) disk: Arc<D>,
    /// Of the format.
    pub(crate) version: u32,
    pub(crate) identity: Identity,
    pub(crate) number: SegmentNumber,
    /// The life that makes it.
    pub(crate) life: Incarnation,
    pub(crate) len: u64,
    /// True if a segment that nobody needs any more already stands under [`PREPARED`]: it becomes the new one. The
    /// name is this preparation's alone; the log goes on to give up segments meanwhile.
    pub(crate) recycled: bool,
}

/// Where a segment is made; it gets its name when it is whole.
pub(crate) const PREPARED: &str = "prepared.tmp";
/// The name of a segment that waits to be made into another one.
pub(crate) const RECYCLED: &str = "recycled.tmp";

impl<D: Disk> Preparation<D> {
    /// Written between two syncs: a large burst would hold up the syncs of the log itself.
    const BURST_BYTES: u64 = 2 << 20;

    /// The segment, durable under its own name.
    pub(crate) fn run(self) -> Result<Segment<D::File>, WalError> {
        self.run_with(|_| Ok(()))
    }

    /// As [`Preparation::run`]; `fill` writes what shall be in it from the start.
    pub(crate) fn run_with(
        self,
        fill: impl FnOnce(&Segment<D::File>) -> Result<(), WalError>,
    ) -> Result<Segment<D::File>, WalError> {
        let file = if self.recycled {
            // The old bytes are overwritten, not trusted to their salt alone: a part of the log that was never
            // written is blank, and that tells a torn batch from a damaged one.
            self.disk.open(PREPARED).map_err(WalError::io("open", PREPARED))?
        } else {
            self.disk.create(PREPARED).map_err(WalError::io("create", PREPARED))?
        };
        let salt = Salt::of(&self.identity, self.number, self.life);
        let segment = Segment {
            number: self.number,
            name: PREPARED.to_owned(),
            file: Arc::new(file),
            salt,
            len: self.len,
        };
        segment.blank(0, Self::BURST_BYTES)?;
        let header = SegmentHeader {
            version: self.version,
            identity: self.identity,
            number: self.number,
            salt,
            len: self.len,
        };
        segment.write(0, &header.encode())?;
        fill(&segment)?;
        segment.sync()?;
        let name = segment_name(self.number);
        self.disk.rename(PREPARED, &name).map_err(WalError::io("rename", PREPARED))?;
        self.disk.sync_dir().map_err(WalError::io("sync of the folder", &name))?;
        Ok(Segment { name, ..segment })
    }
}

/// How long a segment must be to hold one batch of `batch_len` bytes and the seal after it.
pub(crate) fn segment_len_for(batch_len: usize) -> u64 {
    SEGMENT_HEADER_LEN + batch_len as u64 + SECTOR as u64
}

pub(crate) fn write_all(file: &impl DiskFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `into` is full or the file ends; answers how many bytes.
pub(crate) fn read_full(file: &impl DiskFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(offset + done as u64, &mut into[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_that_the_log_gives_are_segments() {
        assert_eq!(segment_name(SegmentNumber(7)), "segment-0000000007");
        for number in [1, 9_999_999_999, 10_000_000_000, u64::MAX] {
            assert_eq!(segment_number(&segment_name(SegmentNumber(number))), Some(SegmentNumber(number)));
        }
        for name in ["segment-7", "segment-00000000007", "segment-+000000007", "segment-", "lock", "x.tmp"] {
            assert_eq!(segment_number(name), None);
        }
    }
}
