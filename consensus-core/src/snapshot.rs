//! Snapshots: the state of a replica at one index, and what keeps them.

use std::fmt;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::put_bytes;
use crate::{DecodeError, Incarnation, LogIndex, Membership, NodeId, Reign, Stamp, Wire, WireReader};

/// What a snapshot stands for: everything decided through one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that it holds.
    pub index: LogIndex,
    /// That entry's stamp, as the protocol of whoever took it knows it.
    pub stamp: Stamp,
    /// The leadership period in which that entry was first proposed.
    pub reign: Reign,
    /// Who took part as of that entry.
    pub membership: Membership,
}

/// Names one snapshot, wherever it is kept. Two replicas that take one at the same index take two: their states are
/// equal and their bytes need not be, so that a transfer resumes with the bytes it began with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The last entry that it holds.
    pub index: LogIndex,
    /// Who took it.
    pub taken_by: NodeId,
    /// In which of its lives: one life takes at most one snapshot at an index.
    pub life: Incarnation,
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {} of {} {}", self.index, self.taken_by, self.life)
    }
}

/// Everything that is known of a snapshot without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// Its name.
    pub id: SnapshotId,
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// How many bytes its contents are.
    pub len: u64,
    /// CRC-32C over its contents.
    pub checksum: u32,
}

/// Keeps snapshots. Synchronous: whoever must not wait calls it on a thread of its own.
///
/// What was finished is durable and whole; everything else is gone after a crash. Contents are opaque.
pub trait SnapshotStore: Send {
    /// The snapshots that were finished and not deleted, by ascending id. One that cannot be used is left out.
    ///
    /// # Errors
    /// [`SnapshotError`] if it cannot be told which there are.
    fn list(&mut self) -> Result<Vec<SnapshotHead>, SnapshotError>;

    /// Begins to keep a snapshot. What is not finished is never listed; dropping the writer abandons it.
    ///
    /// # Errors
    /// [`SnapshotError`] if nothing can be written.
    fn create(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotWriter>, SnapshotError>;

    /// Opens a finished snapshot once more, after all of it was read and compared with its checksum.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`], or [`SnapshotError::Corrupt`], which names what is damaged.
    fn open(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotReader>, SnapshotError>;

    /// Deletes a snapshot; no error if there is none.
    ///
    /// # Errors
    /// [`SnapshotError`] if it stays.
    fn delete(&mut self, id: SnapshotId) -> Result<(), SnapshotError>;
}

/// Takes the contents of one snapshot, front to back.
pub trait SnapshotWriter: Send {
    /// Appends contents.
    ///
    /// # Errors
    /// [`SnapshotError`]; the writer is of no use then.
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError>;

    /// Makes the snapshot durable under its name; `head` tells what was written. It may replace one of the same name.
    ///
    /// # Errors
    /// [`SnapshotError`]; whether the snapshot is listed later is open then, and if it is, it is whole.
    fn finish(self: Box<Self>, head: &SnapshotHead) -> Result<(), SnapshotError>;
}

/// Reads the contents of one snapshot.
pub trait SnapshotReader: Send {
    /// What it is.
    fn head(&self) -> &SnapshotHead;

    /// Fills a prefix of `into` from `offset` on, and tells its length: 0 at the end and nowhere else.
    ///
    /// # Errors
    /// [`SnapshotError`] if it cannot be read.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, SnapshotError>;
}

/// Why a snapshot cannot be kept or read. It abandons that snapshot and stops nothing else.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// There is no such snapshot.
    #[error("there is no {0}")]
    Missing(SnapshotId),
    /// What is kept is damaged.
    #[error("{name} is damaged: {what}")]
    Corrupt {
        /// The file, or what else it is called where it is kept.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The state machine did not write its state.
    #[error("the state machine cannot be written down")]
    Source(#[source] io::Error),
    /// What arrived is not what was announced.
    #[error("what was received does not have the checksum that was announced")]
    Checksum,
}

/// A state machine's state at one moment, to be written down while the state machine goes on.
pub trait SnapshotSource: Send {
    /// Writes it; equal states need not give equal bytes.
    ///
    /// # Errors
    /// Those of `out`, or if the state cannot be written.
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()>;
}

/// Reads a snapshot front to back.
pub struct SnapshotContents {
    reader: Box<dyn SnapshotReader>,
    offset: u64,
}

impl SnapshotContents {
    /// From its start.
    #[must_use]
    pub fn new(reader: Box<dyn SnapshotReader>) -> SnapshotContents {
        SnapshotContents { reader, offset: 0 }
    }

    /// What it is.
    #[must_use]
    pub fn head(&self) -> &SnapshotHead {
        self.reader.head()
    }
}

impl fmt::Debug for SnapshotContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotContents").field("head", self.head()).field("offset", &self.offset).finish()
    }
}

impl io::Read for SnapshotContents {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read_at(self.offset, into).map_err(io::Error::other)?;
        self.offset += len as u64;
        Ok(len)
    }
}

impl Wire for SnapshotId {
    fn wire_len(&self) -> usize {
        SnapshotId::LEN
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.index.0);
        out.put_u64_le(self.taken_by.0);
        out.put_u64_le(self.life.0);
    }

    fn decode(from: &mut WireReader) -> Result<SnapshotId, DecodeError> {
        Ok(SnapshotId {
            index: LogIndex(from.u64()?),
            taken_by: NodeId(from.u64()?),
            life: Incarnation(from.u64()?),
        })
    }
}

impl SnapshotId {
    const LEN: usize = 24;
}

impl Wire for SnapshotHead {
    fn wire_len(&self) -> usize {
        let SnapshotMeta { stamp, reign, membership, .. } = &self.meta;
        SnapshotId::LEN + stamp.wire_len() + reign.wire_len() + membership.wire_len() + 8 + 4
    }

    fn encode(&self, out: &mut BytesMut) {
        self.id.encode(out);
        self.meta.stamp.encode(out);
        self.meta.reign.encode(out);
        self.meta.membership.encode(out);
        out.put_u64_le(self.len);
        out.put_u32_le(self.checksum);
    }

    fn decode(from: &mut WireReader) -> Result<SnapshotHead, DecodeError> {
        let id = SnapshotId::decode(from)?;
        let meta = SnapshotMeta {
            index: id.index,
            stamp: Stamp::decode(from)?,
            reign: Reign::decode(from)?,
            membership: Membership::decode(from)?,
        };
        Ok(SnapshotHead { id, meta, len: from.u64()?, checksum: from.u32()? })
    }
}

/// A piece of a snapshot on its way to a replica that is too far behind for the log. Each piece says all about the
/// snapshot that it is of, so that whoever receives any of them can begin, go on, or know that it needs none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The snapshot.
    pub head: SnapshotHead,
    /// Where the piece begins.
    pub offset: u64,
    /// CRC-32C over `bytes`.
    pub checksum: u32,
    /// The piece; ends within the snapshot.
    pub bytes: Bytes,
}

impl Wire for SnapshotChunk {
    fn wire_len(&self) -> usize {
        self.head.wire_len() + 8 + 4 + 4 + self.bytes.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        self.head.encode(out);
        out.put_u64_le(self.offset);
        out.put_u32_le(self.checksum);
        put_bytes(out, &self.bytes);
    }

    fn decode(from: &mut WireReader) -> Result<SnapshotChunk, DecodeError> {
        let head = SnapshotHead::decode(from)?;
        let (offset, checksum, bytes) = (from.u64()?, from.u32()?, from.bytes()?);
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > head.len) {
            return Err(DecodeError::Impossible { what: "piece of a snapshot" });
        }
        Ok(SnapshotChunk { head, offset, checksum, bytes })
    }
}

/// Answers [`SnapshotChunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAck {
    /// The snapshot.
    pub id: SnapshotId,
    /// How it stands there.
    pub progress: SnapshotProgress,
}

/// How a snapshot stands at whoever receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotProgress {
    /// The bytes before this offset are there: go on from here.
    Staged(u64),
    /// It was taken over, or its receiver had everything in it already.
    Taken,
    /// It cannot be received now.
    Refused,
}

impl Wire for SnapshotAck {
    fn wire_len(&self) -> usize {
        SnapshotId::LEN + 1 + if let SnapshotProgress::Staged(_) = self.progress { 8 } else { 0 }
    }

    fn encode(&self, out: &mut BytesMut) {
        self.id.encode(out);
        match self.progress {
            SnapshotProgress::Staged(through) => {
                out.put_u8(0);
                out.put_u64_le(through);
            }
            SnapshotProgress::Taken => out.put_u8(1),
            SnapshotProgress::Refused => out.put_u8(2),
        }
    }

    fn decode(from: &mut WireReader) -> Result<SnapshotAck, DecodeError> {
        let id = SnapshotId::decode(from)?;
        let progress = match from.u8()? {
            0 => SnapshotProgress::Staged(from.u64()?),
            1 => SnapshotProgress::Taken,
            2 => SnapshotProgress::Refused,
            value => return Err(DecodeError::Unknown { what: "progress", value: u64::from(value) }),
        };
        Ok(SnapshotAck { id, progress })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(len: u64, offset: u64) -> SnapshotChunk {
        let index = LogIndex(7);
        let meta = SnapshotMeta {
            index,
            stamp: Stamp { high: 3, low: 1 },
            reign: Reign::default(),
            membership: Membership::of_ids([1, 2, 3]).unwrap(),
        };
        let id = SnapshotId { index, taken_by: NodeId(2), life: Incarnation(5) };
        let head = SnapshotHead { id, meta, len, checksum: 77 };
        SnapshotChunk { head, offset, checksum: 9, bytes: Bytes::from_static(b"piece") }
    }

    #[test]
    fn pieces_and_answers_survive_the_wire_and_no_cut_of_them_does() {
        let bytes = chunk(12, 7).to_bytes();
        assert_eq!(bytes.len(), chunk(12, 7).wire_len());
        assert_eq!(SnapshotChunk::from_bytes(bytes.clone()).unwrap(), chunk(12, 7));
        for len in 0..bytes.len() {
            assert!(SnapshotChunk::from_bytes(bytes.slice(..len)).is_err());
        }
        for progress in [SnapshotProgress::Staged(9), SnapshotProgress::Taken, SnapshotProgress::Refused] {
            let ack = SnapshotAck { id: chunk(1, 0).head.id, progress };
            assert_eq!(SnapshotAck::from_bytes(ack.to_bytes()).unwrap(), ack);
        }
    }

    #[test]
    fn a_piece_that_ends_behind_its_snapshot_is_refused() {
        for (len, offset) in [(11, 7), (0, 0), (u64::MAX, u64::MAX - 4), (u64::MAX, u64::MAX)] {
            assert!(SnapshotChunk::from_bytes(chunk(len, offset).to_bytes()).is_err(), "{len} {offset}");
        }
    }
}
