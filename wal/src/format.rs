//! The bytes of a segment file, versions 1 and 2.
//!
//! Everything is little-endian. A segment is a header, then batches one after the other, then zeros:
//!
//! | at | bytes | segment header |
//! |---|---|---|
//! | 0 | 8 | `SYNODWAL` |
//! | 8 | 4 | format version |
//! | 12 | 4 | group |
//! | 16 | 16 | cluster |
//! | 32 | 8 | node |
//! | 40 | 8 | number of the segment; the file name says the same |
//! | 48 | 8 | salt |
//! | 56 | 8 | length of the file |
//! | 64 | 4 | CRC-32C of the 64 bytes before |
//!
//! The first batch stands at [`SEGMENT_HEADER_LEN`]. Every batch begins with a sector of 512 bytes and fills its last
//! one, so no sector that was acknowledged is ever written again.
//!
//! | at | bytes | batch header |
//! |---|---|---|
//! | 0 | 1 | [`BATCH`]; [`CUT`] while a torn batch is being blanked |
//! | 1 | 3 | 0 |
//! | 4 | 4 | length of the batch in bytes, a multiple of 512 |
//! | 8 | 8 | number of the batch |
//! | 16 | 8 | number of the oldest segment that is still needed |
//! | 24 | 4 | length of the records in bytes |
//! | 28 | 4 | how many of its sectors are blank (only zeros) |
//! | 32 | 4 | CRC-32C of salt, offset, and the records |
//! | 36 | 4 | CRC-32C of salt, offset, and the 36 bytes before |
//!
//! Records follow, then at least 8 bytes [`PADDING`], to the end of the sector. A batch of which only padding was not
//! written is whole.
//!
//! | at | bytes | record |
//! |---|---|---|
//! | 0 | 1 | what it is |
//! | 1 | 1 | of an entry, its kind |
//! | 2 | 2 | 0 |
//! | 4 | 4 | length of the body |
//! | 8 | .. | body |
//! | .. | 4 | CRC-32C of salt, offset, and everything before in this record |
//!
//! Bodies: an entry is index, stamp (high, low), reign (number, leader), request (client, sequence, first
//! incomplete), each 8 bytes, and the payload; a truncation is an index; a compaction is an index and the stamp
//! there; a hard state is itself; a life is its number; a seal is number and salt of the segment that follows. An origin,
//! of version 2 only, is cluster (16 bytes), node and life of the log that this one was made from.
//!
//! A log is written in the lowest version that can say what it holds, so that an older program can read it as long as
//! that is possible: version 2 is written where there is an origin, version 1 everywhere else.

use bytes::Bytes;
use synod_core::{
    ClientId, ClusterId, Entry, GroupId, Identity, Incarnation, Kind, LogIndex, NodeId, Reign, RequestId,
    Sequence, Stamp,
};

/// The latest version of this format. Every one from 1 on is read.
pub const FORMAT_VERSION: u32 = 2;

/// The lowest version that can say what a log with this origin holds.
pub(crate) fn version_for(origin: Option<&Origin>) -> u32 {
    if origin.is_some() { 2 } else { 1 }
}

/// What a disk writes wholly or not at all, in bytes.
pub(crate) const SECTOR: usize = 512;
/// Where the first batch of a segment stands.
pub(crate) const SEGMENT_HEADER_LEN: u64 = 4096;
pub(crate) const BATCH_HEADER_LEN: usize = 40;
/// What a record is more than its body, in bytes.
pub(crate) const RECORD_OVERHEAD: usize = RECORD_HEADER_LEN + 4;
const RECORD_HEADER_LEN: usize = 8;
/// The body of an entry without its payload, in bytes.
const ENTRY_FIXED_LEN: usize = 64;
/// No batch is longer, in bytes.
pub(crate) const BATCH_LEN_MAX: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"SYNODWAL";

/// Every batch ends with at least so many bytes of padding: its end is never blank.
const PADDING_MIN: usize = 8;

pub(crate) const BATCH: u8 = 0xB5;
/// Stands in the place of [`BATCH`] while a torn batch is being blanked: one byte, so it is there or not.
pub(crate) const CUT: u8 = 0x3C;
pub(crate) const PADDING: u8 = 0xFF;
const ENTRY: u8 = 1;
const TRUNCATION: u8 = 2;
const COMPACTION: u8 = 3;
const HARD_STATE: u8 = 4;
const LIFE: u8 = 5;
const SEAL: u8 = 6;
const ORIGIN: u8 = 7;

/// A segment: the log is cut into files, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    pub(crate) fn next(self) -> SegmentNumber {
        SegmentNumber(self.0 + 1)
    }
}

impl std::fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A batch: what one sync makes durable, counted from 1 through all segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchNumber(pub(crate) u64);

impl BatchNumber {
    pub(crate) fn next(self) -> BatchNumber {
        BatchNumber(self.0 + 1)
    }
}

/// The log that another one was made from, by force: what that one held, this one took for decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its node.
    pub node: NodeId,
    /// Its last life.
    pub incarnation: Incarnation,
}

/// Mixed into every checksum of a segment, so that no bytes of another one are ever taken for its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Salt(pub(crate) u64);

impl Salt {
    /// The salt of one segment. A number is used again only by a later life, and then nothing was written
    /// under the earlier salt; so salts never repeat, and a simulated run repeats them exactly.
    pub(crate) fn of(identity: &Identity, segment: SegmentNumber, life: Incarnation) -> Salt {
        let cluster = identity.cluster.0.to_le_bytes();
        let (low, high) = cluster.split_at(8);
        let parts = [
            u64_at(low, 0),
            u64_at(high, 0),
            identity.node.0,
            u64::from(identity.group.0),
            segment.0,
            life.0,
        ];
        Salt(parts.into_iter().fold(0x5357_414C, |hash, part| mix(hash ^ part)))
    }

    /// The state from which checksums of this segment go on.
    pub(crate) fn checksums(self) -> Checksums {
        Checksums(crc32c::crc32c(&self.0.to_le_bytes()))
    }
}

/// The finaliser of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Checksums of one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checksums(u32);

impl Checksums {
    /// The checksum of `bytes` at this place of the file: bytes that were written somewhere else fail.
    pub(crate) fn of(self, offset: u64, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &offset.to_le_bytes()), bytes)
    }
}

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) identity: Identity,
    pub(crate) number: SegmentNumber,
    pub(crate) salt: Salt,
    /// Of the file, in bytes.
    pub(crate) len: u64,
}

/// Why bytes are no header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoHeader {
    #[error("no segment begins here")]
    Magic,
    #[error("the checksum of the segment header is wrong")]
    Checksum,
    #[error("this is format version {0}, and this program reads versions up to {FORMAT_VERSION}")]
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SECTOR] {
        let mut out = Vec::with_capacity(SECTOR);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.identity.group.0.to_le_bytes());
        out.extend_from_slice(&self.identity.cluster.0.to_le_bytes());
        for number in [self.identity.node.0, self.number.0, self.salt.0, self.len] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        let mut sector = [0; SECTOR];
        sector[..out.len()].copy_from_slice(&out);
        sector
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, NoHeader> {
        let Some(bytes) = bytes.get(..68) else { return Err(NoHeader::Magic) };
        if &bytes[..8] != MAGIC {
            return Err(NoHeader::Magic);
        }
        if crc32c::crc32c(&bytes[..64]) != u32_at(bytes, 64) {
            return Err(NoHeader::Checksum);
        }
        let version = u32_at(bytes, 8);
        if !(1..=FORMAT_VERSION).contains(&version) {
            return Err(NoHeader::Version(version));
        }
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&bytes[16..32]);
        Ok(SegmentHeader {
            version,
            identity: Identity {
                cluster: ClusterId(u128::from_le_bytes(cluster)),
                node: NodeId(u64_at(bytes, 32)),
                group: GroupId(u32_at(bytes, 12)),
            },
            number: SegmentNumber(u64_at(bytes, 40)),
            salt: Salt(u64_at(bytes, 48)),
            len: u64_at(bytes, 56),
        })
    }
}

/// What stands before the records of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Of the whole batch, in bytes.
    pub(crate) len: usize,
    pub(crate) number: BatchNumber,
    /// The oldest segment needed when this batch was written.
    pub(crate) oldest: SegmentNumber,
    pub(crate) records_len: usize,
    /// How many sectors of it are only zeros.
    pub(crate) blank_sectors: u32,
    checksum: u32,
}

impl BatchHeader {
    /// The header at `offset` of a segment, of which `bytes` are what is left; `None` if none stands there.
    pub(crate) fn decode(bytes: &[u8], offset: u64, checksums: Checksums) -> Option<BatchHeader> {
        let header = bytes.get(..BATCH_HEADER_LEN)?;
        if header[0] != BATCH || checksums.of(offset, &header[..36]) != u32_at(header, 36) {
            return None;
        }
        let decoded = BatchHeader {
            len: u32_at(header, 4) as usize,
            number: BatchNumber(u64_at(header, 8)),
            oldest: SegmentNumber(u64_at(header, 16)),
            records_len: u32_at(header, 24) as usize,
            blank_sectors: u32_at(header, 28),
            checksum: u32_at(header, 32),
        };
        let fits = decoded.len <= bytes.len() && batch_len(decoded.records_len) == decoded.len;
        fits.then_some(decoded)
    }

    /// True if `batch`, this header and all, is what was written, but for padding that was not.
    pub(crate) fn is_whole(&self, batch: &[u8], offset: u64, checksums: Checksums) -> bool {
        let (records, padding) = batch[BATCH_HEADER_LEN..].split_at(self.records_len);
        let written = padding.iter().take_while(|byte| **byte == PADDING).count();
        checksums.of(offset, records) == self.checksum && is_blank(&padding[written..])
    }

    /// True if a sector of `batch` is blank that was not when it was written, or its end is.
    pub(crate) fn has_gap(&self, batch: &[u8]) -> bool {
        blank_sectors(batch) > self.blank_sectors || is_blank(&batch[batch.len() - PADDING_MIN..])
    }
}

/// One thing that a batch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Entry(EntryRecord<'a>),
    Truncation(LogIndex),
    Compaction(LogIndex, Stamp),
    HardState(&'a [u8]),
    Life(Incarnation),
    Seal(SegmentNumber, Salt),
    Origin(Origin),
}

/// An entry whose payload still lies in the segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryRecord<'a> {
    pub(crate) index: LogIndex,
    pub(crate) stamp: Stamp,
    pub(crate) reign: Reign,
    pub(crate) kind: Kind,
    pub(crate) request: RequestId,
    pub(crate) payload: &'a [u8],
}

impl EntryRecord<'_> {
    /// The entry with this payload.
    pub(crate) fn with(&self, payload: Bytes) -> Entry {
        Entry {
            index: self.index,
            stamp: self.stamp,
            reign: self.reign,
            kind: self.kind,
            request: self.request,
            payload,
        }
    }
}

/// How long the record of a payload or hard state of `len` bytes is.
pub(crate) fn entry_len(payload_len: usize) -> usize {
    RECORD_OVERHEAD + ENTRY_FIXED_LEN + payload_len
}

/// How long a batch of records of `records_len` bytes is.
pub(crate) const fn batch_len(records_len: usize) -> usize {
    (BATCH_HEADER_LEN + records_len + PADDING_MIN).next_multiple_of(SECTOR)
}

pub(crate) const TRUNCATION_LEN: usize = RECORD_OVERHEAD + 8;
pub(crate) const COMPACTION_LEN: usize = RECORD_OVERHEAD + 24;
pub(crate) const LIFE_LEN: usize = RECORD_OVERHEAD + 8;
pub(crate) const SEAL_LEN: usize = RECORD_OVERHEAD + 16;
pub(crate) const ORIGIN_LEN: usize = RECORD_OVERHEAD + 32;

/// Encodes one batch into a buffer that is used again and again.
#[derive(Debug, Default)]
pub(crate) struct BatchWriter {
    out: Vec<u8>,
    /// Where the batch will stand.
    offset: u64,
    checksums: Option<Checksums>,
}

impl BatchWriter {
    /// Begins a batch at `offset` of a segment.
    pub(crate) fn begin(&mut self, offset: u64, checksums: Checksums) {
        self.out.clear();
        self.out.resize(BATCH_HEADER_LEN, 0);
        self.offset = offset;
        self.checksums = Some(checksums);
    }

    /// Where the next record will stand.
    pub(crate) fn position(&self) -> u64 {
        self.offset + self.out.len() as u64
    }

    pub(crate) fn entry(&mut self, entry: &Entry) {
        let start = self.start(ENTRY, entry.kind.to_byte(), ENTRY_FIXED_LEN + entry.payload.len());
        let mut fixed = [0; ENTRY_FIXED_LEN];
        let numbers = [
            entry.index.0,
            entry.stamp.high,
            entry.stamp.low,
            entry.reign.number,
            entry.reign.leader.0,
            entry.request.client.0,
            entry.request.sequence.0,
            entry.request.first_incomplete.0,
        ];
        for (place, number) in fixed.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.out.extend_from_slice(&fixed);
        self.out.extend_from_slice(&entry.payload);
        self.end(start);
    }

    pub(crate) fn truncation(&mut self, from: LogIndex) {
        self.numbers(TRUNCATION, &[from.0]);
    }

    pub(crate) fn compaction(&mut self, through: LogIndex, stamp: Stamp) {
        self.numbers(COMPACTION, &[through.0, stamp.high, stamp.low]);
    }

    pub(crate) fn hard_state(&mut self, state: &[u8]) {
        let start = self.start(HARD_STATE, 0, state.len());
        self.out.extend_from_slice(state);
        self.end(start);
    }

    pub(crate) fn life(&mut self, life: Incarnation) {
        self.numbers(LIFE, &[life.0]);
    }

    pub(crate) fn seal(&mut self, next: SegmentNumber, salt: Salt) {
        self.numbers(SEAL, &[next.0, salt.0]);
    }

    pub(crate) fn origin(&mut self, origin: &Origin) {
        let start = self.start(ORIGIN, 0, 32);
        self.out.extend_from_slice(&origin.cluster.0.to_le_bytes());
        self.out.extend_from_slice(&origin.node.0.to_le_bytes());
        self.out.extend_from_slice(&origin.incarnation.0.to_le_bytes());
        self.end(start);
    }

    /// Pads, counts and signs. Returns the batch.
    pub(crate) fn finish(&mut self, number: BatchNumber, oldest: SegmentNumber) -> &[u8] {
        let records_len = self.out.len() - BATCH_HEADER_LEN;
        let len = batch_len(records_len);
        self.out.resize(len, PADDING);
        // The header makes the first sector one that is not blank, whatever its fields are.
        self.out[0] = BATCH;
        let blank = blank_sectors(&self.out);
        let checksums = self.checksums.expect("finish comes after begin");
        let body = checksums.of(self.offset, &self.out[BATCH_HEADER_LEN..BATCH_HEADER_LEN + records_len]);
        self.out[4..8].copy_from_slice(&short(len).to_le_bytes());
        self.out[8..16].copy_from_slice(&number.0.to_le_bytes());
        self.out[16..24].copy_from_slice(&oldest.0.to_le_bytes());
        self.out[24..28].copy_from_slice(&short(records_len).to_le_bytes());
        self.out[28..32].copy_from_slice(&blank.to_le_bytes());
        self.out[32..36].copy_from_slice(&body.to_le_bytes());
        let header = checksums.of(self.offset, &self.out[..36]);
        self.out[36..40].copy_from_slice(&header.to_le_bytes());
        &self.out
    }

    /// Gives memory back that one unusually large batch has taken.
    pub(crate) fn shrink(&mut self, keep: usize) {
        if self.out.capacity() > keep {
            self.out = Vec::with_capacity(keep);
        }
    }

    fn numbers(&mut self, what: u8, numbers: &[u64]) {
        let start = self.start(what, 0, 8 * numbers.len());
        for number in numbers {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        self.end(start);
    }

    fn start(&mut self, what: u8, detail: u8, body_len: usize) -> usize {
        let start = self.out.len();
        let len = short(body_len).to_le_bytes();
        self.out.extend_from_slice(&[what, detail, 0, 0, len[0], len[1], len[2], len[3]]);
        start
    }

    fn end(&mut self, start: usize) {
        let checksums = self.checksums.expect("records come after begin");
        let checksum = checksums.of(self.offset + start as u64, &self.out[start..]);
        self.out.extend_from_slice(&checksum.to_le_bytes());
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRecord {
    #[error("a record reaches beyond its batch")]
    TooLong,
    #[error("the checksum of a record is wrong")]
    Checksum,
    #[error("a record is of no known kind or has the wrong length")]
    Unknown,
}

/// Reads the record at the front of `bytes`, which stand at `offset` of the segment; also answers its length.
pub(crate) fn decode_record(
    bytes: &[u8],
    offset: u64,
    checksums: Checksums,
) -> Result<(Record<'_>, usize), NoRecord> {
    let header = bytes.get(..RECORD_HEADER_LEN).ok_or(NoRecord::TooLong)?;
    let end = RECORD_HEADER_LEN + u32_at(header, 4) as usize;
    let checksum = bytes.get(end..end + 4).ok_or(NoRecord::TooLong)?;
    if checksums.of(offset, &bytes[..end]) != u32_at(checksum, 0) {
        return Err(NoRecord::Checksum);
    }
    let record = decode_body(header, &bytes[RECORD_HEADER_LEN..end]).ok_or(NoRecord::Unknown)?;
    Ok((record, end + 4))
}

fn decode_body<'a>(header: &[u8], body: &'a [u8]) -> Option<Record<'a>> {
    let number = |at: usize| u64_at(body, 8 * at);
    let stamp = |at: usize| Stamp { high: number(at), low: number(at + 1) };
    let record = match (header[0], body.len()) {
        (ENTRY, ENTRY_FIXED_LEN..) => Record::Entry(EntryRecord {
            index: LogIndex(number(0)),
            stamp: stamp(1),
            reign: Reign { number: number(3), leader: NodeId(number(4)) },
            kind: Kind::from_byte(header[1])?,
            request: RequestId {
                client: ClientId(number(5)),
                sequence: Sequence(number(6)),
                first_incomplete: Sequence(number(7)),
            },
            payload: &body[ENTRY_FIXED_LEN..],
        }),
        (TRUNCATION, 8) => Record::Truncation(LogIndex(number(0))),
        (COMPACTION, 24) => Record::Compaction(LogIndex(number(0)), stamp(1)),
        (HARD_STATE, _) => Record::HardState(body),
        (LIFE, 8) => Record::Life(Incarnation(number(0))),
        (SEAL, 16) => Record::Seal(SegmentNumber(number(0)), Salt(number(1))),
        (ORIGIN, 32) => Record::Origin(Origin {
            cluster: ClusterId(u128::from(number(1)) << 64 | u128::from(number(0))),
            node: NodeId(number(2)),
            incarnation: Incarnation(number(3)),
        }),
        _ => return None,
    };
    Some(record)
}

/// True if these bytes are what a disk holds where nothing was written.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn blank_sectors(batch: &[u8]) -> u32 {
    short(batch.chunks(SECTOR).filter(|sector| is_blank(sector)).count())
}

fn short(len: usize) -> u32 {
    u32::try_from(len).expect("lengths are bounded by BATCH_LEN_MAX")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
