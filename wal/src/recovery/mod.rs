//! Reads a log without changing it: what is there, where it ends, and whether it can be trusted.

pub(crate) mod cases;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use synod_core::{Entry, Identity, Incarnation, LogIndex};

use crate::error::WalError;
use crate::format::{
    BATCH, BATCH_HEADER_LEN, BatchHeader, BatchNumber, CUT, Checksums, FORMAT_VERSION, NoHeader, Origin,
    Record, SECTOR, SEGMENT_HEADER_LEN, Salt, SegmentHeader, SegmentNumber, decode_record, is_blank,
};
use crate::index::{Change, Extent, Index, note_entry};
use crate::segment::{Segment, TEMPORARY, read_full, segment_name, segment_number};
use crate::{Disk, DiskFile};

use cases::{Found, Place, Use, Verdict};

/// A log as it was found.
#[derive(Debug)]
pub(crate) struct Scan<F> {
    pub(crate) identity: Identity,
    /// What it was made from, if it was.
    pub(crate) origin: Option<Origin>,
    /// Every segment that is needed, the one that is written last.
    pub(crate) segments: BTreeMap<SegmentNumber, Segment<F>>,
    pub(crate) summaries: Vec<SegmentSummary>,
    pub(crate) index: Index,
    pub(crate) life: Incarnation,
    pub(crate) hard_state: Option<Bytes>,
    /// Entries that a machine is shown when it opens.
    pub(crate) marked: BTreeMap<LogIndex, Entry>,
    /// Where the next batch goes, in the last segment.
    pub(crate) position: u64,
    pub(crate) next: BatchNumber,
    /// The newest segment that begins with a checkpoint.
    pub(crate) checkpoint: SegmentNumber,
    /// What a torn batch has left, in the last segment.
    pub(crate) torn: Option<Range<u64>>,
    /// The last batch: the only one that may not have been synced.
    pub(crate) last_batch: LastBatch<F>,
    /// Files that are no part of the log.
    pub(crate) leftovers: Vec<String>,
}

/// The bytes of the last batch, and where they stand.
#[derive(Debug)]
pub(crate) struct LastBatch<F> {
    pub(crate) segment: Segment<F>,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A segment as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentSummary {
    /// Its number.
    pub number: SegmentNumber,
    /// Its file.
    pub name: String,
    /// Of the file, in bytes.
    pub bytes: u64,
    /// How much of it is written, in bytes.
    pub used_bytes: u64,
    /// How many batches it holds.
    pub batches: u64,
    /// How many entries it holds, those that were overwritten or removed since included.
    pub entries: u64,
    /// True if the log goes on in another segment.
    pub sealed: bool,
}

/// Reads the log. `expected` is whose it must be; `None` takes anybody's.
///
/// # Errors
/// [`WalError::NoLog`], [`WalError::Foreign`], [`WalError::Version`], [`WalError::Corrupt`] or [`WalError::Io`].
/// Nothing was changed.
pub(crate) fn scan<D: Disk>(disk: &D, expected: Option<&Identity>) -> Result<Scan<D::File>, WalError> {
    let names = disk.list().map_err(WalError::io("list", "the folder"))?;
    let mut numbers: Vec<SegmentNumber> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let (oldest, identity) = find_oldest(disk, expected, &numbers, &names)?;
    let mut reading = Reading::new(disk, identity, &numbers);
    let mut next = NextSegment { number: oldest, salt: None };
    while let Some(following) = reading.segment(&next)? {
        next = following;
    }
    reading.refuse_later_before(oldest)?;
    let mut scan = reading.end()?;
    scan.leftovers = names
        .into_iter()
        .filter(|name| {
            let unused = segment_number(name).is_some_and(|number| !scan.segments.contains_key(&number));
            unused || name.ends_with(TEMPORARY)
        })
        .collect();
    scan.leftovers.sort();
    Ok(scan)
}

/// A segment in memory.
struct Loaded<F> {
    segment: Segment<F>,
    bytes: Vec<u8>,
}

/// A segment that the log needs, and the salt that the one before names.
struct NextSegment {
    number: SegmentNumber,
    salt: Option<Salt>,
}

/// Which segment the log begins with, as the newest batches say, and whose log it is.
fn find_oldest<D: Disk>(
    disk: &D,
    expected: Option<&Identity>,
    numbers: &[SegmentNumber],
    names: &[String],
) -> Result<(SegmentNumber, Identity), WalError> {
    // Of the oldest segment, if none can be read: a newer one may be a spare.
    let mut problem = None;
    for number in numbers.iter().rev() {
        let name = segment_name(*number);
        let loaded = match load(disk, *number) {
            Ok((header, loaded)) => {
                if let Some(expected) = expected
                    && header.identity != *expected
                {
                    return Err(WalError::Foreign { expected: *expected, found: header.identity });
                }
                (header.identity, loaded)
            }
            Err(error @ WalError::Corrupt { .. }) => {
                problem = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let (identity, Loaded { segment, bytes }) = loaded;
        let mut batches = Batches::new(&bytes, segment.checksums());
        let mut oldest = None;
        while let Some(batch) = batches.next_whole() {
            oldest = Some(batch.oldest);
        }
        if let Some(oldest) = oldest {
            return Ok((oldest, identity));
        }
        problem = Some(WalError::corrupt(&name, SEGMENT_HEADER_LEN, "no batch stands here"));
    }
    let found = names.iter().find(|name| !name.ends_with(TEMPORARY) && *name != crate::lock::LOCK_NAME);
    Err(problem.unwrap_or(WalError::NoLog { place: "the folder".to_owned(), found: found.cloned() }))
}

/// Reads a whole segment whose header is right.
fn load<D: Disk>(disk: &D, number: SegmentNumber) -> Result<(SegmentHeader, Loaded<D::File>), WalError> {
    let name = segment_name(number);
    let file = disk.open(&name).map_err(WalError::io("open", &name))?;
    let file_len = file.len().map_err(WalError::io("size", &name))?;
    let mut sector = [0; SECTOR];
    let read = read_full(&file, 0, &mut sector).map_err(WalError::io("read", &name))?;
    let header = SegmentHeader::decode(&sector[..read]).map_err(|why| match why {
        NoHeader::Version(found) => WalError::Version { file: name.clone(), found, known: FORMAT_VERSION },
        NoHeader::Magic | NoHeader::Checksum => WalError::corrupt(&name, 0, why.to_string()),
    })?;
    if header.number != number {
        let what = format!("the segment in this file is number {}", header.number);
        return Err(WalError::corrupt(&name, 40, what));
    }
    // What is allocated is never more than what is there, and not more than what was written: a file can be long
    // without holding anything.
    let len = usize::try_from(file_len.min(header.len)).expect("files fit into the address space");
    let mut bytes = vec![0; len];
    let read = read_full(&file, 0, &mut bytes).map_err(WalError::io("read", &name))?;
    bytes.truncate(read);
    let segment = Segment { number, name, file: Arc::new(file), salt: header.salt, len: header.len };
    Ok((header, Loaded { segment, bytes }))
}

/// True if anything stands behind the place of the header, whatever it is.
fn holds_something<D: Disk>(disk: &D, number: SegmentNumber) -> Result<bool, WalError> {
    let name = segment_name(number);
    let file = disk.open(&name).map_err(WalError::io("open", &name))?;
    let mut chunk = vec![0; 64 << 10];
    let mut offset = SEGMENT_HEADER_LEN;
    loop {
        let read = read_full(&file, offset, &mut chunk).map_err(WalError::io("read", &name))?;
        if !is_blank(&chunk[..read]) {
            return Ok(true);
        }
        if read < chunk.len() {
            return Ok(false);
        }
        offset += read as u64;
    }
}

/// Walks over whole batches.
struct Batches<'a> {
    bytes: &'a [u8],
    checksums: Checksums,
    position: usize,
}

impl<'a> Batches<'a> {
    fn new(bytes: &'a [u8], checksums: Checksums) -> Batches<'a> {
        Batches { bytes, checksums, position: usize::try_from(SEGMENT_HEADER_LEN).expect("small") }
    }

    fn left(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    fn header(&self) -> Option<BatchHeader> {
        BatchHeader::decode(self.left(), self.position as u64, self.checksums)
    }

    fn next_whole(&mut self) -> Option<BatchHeader> {
        let header = self.header()?;
        let whole = header.is_whole(&self.left()[..header.len], self.position as u64, self.checksums);
        self.position += header.len;
        whole.then_some(header)
    }

    /// True if a batch numbered above `after` begins at any sector from here on.
    fn has_later(&self, after: Option<BatchNumber>) -> bool {
        (self.position..self.bytes.len()).step_by(SECTOR).any(|position| {
            let left = &self.bytes[position..];
            left[0] == BATCH
                && BatchHeader::decode(left, position as u64, self.checksums)
                    .is_some_and(|header| after.is_none_or(|after| header.number > after))
        })
    }
}

/// The replay.
struct Reading<'a, D: Disk> {
    disk: &'a D,
    numbers: &'a [SegmentNumber],
    next: Option<BatchNumber>,
    changes: Vec<Change>,
    scan: Partial<D::File>,
}

/// The scan as far as it is known.
struct Partial<F> {
    identity: Identity,
    origin: Option<Origin>,
    segments: BTreeMap<SegmentNumber, Segment<F>>,
    summaries: Vec<SegmentSummary>,
    index: Index,
    life: Incarnation,
    hard_state: Option<Bytes>,
    marked: BTreeMap<LogIndex, Entry>,
    position: u64,
    checkpoint: Option<SegmentNumber>,
    torn: Option<Range<u64>>,
    last_batch: Option<LastBatch<F>>,
}

impl<'a, D: Disk> Reading<'a, D> {
    fn new(disk: &'a D, identity: Identity, numbers: &'a [SegmentNumber]) -> Reading<'a, D> {
        let scan = Partial {
            identity,
            origin: None,
            segments: BTreeMap::new(),
            summaries: Vec::new(),
            index: Index::default(),
            life: Incarnation(0),
            hard_state: None,
            marked: BTreeMap::new(),
            position: 0,
            checkpoint: None,
            torn: None,
            last_batch: None,
        };
        Reading { disk, numbers, next: None, changes: Vec::new(), scan }
    }

    /// Replays one segment; answers which one follows, if it is sealed.
    fn segment(&mut self, wanted: &NextSegment) -> Result<Option<NextSegment>, WalError> {
        let Loaded { segment, bytes } = self.find(wanted)?;
        let mut batches = Batches::new(&bytes, segment.checksums());
        let mut summary = SegmentSummary {
            number: segment.number,
            name: segment.name.clone(),
            bytes: segment.len,
            used_bytes: 0,
            batches: 0,
            entries: 0,
            sealed: false,
        };
        let mut last = None;
        let mut following = None;
        loop {
            let place = self.look(&batches, segment.number)?;
            let (verdict, what) = place.judge();
            let at = batches.position as u64;
            match verdict {
                Verdict::Batch => {}
                Verdict::Damaged => return Err(WalError::corrupt(&segment.name, at, what)),
                Verdict::End | Verdict::Torn if self.next.is_none() => {
                    return Err(WalError::corrupt(&segment.name, at, "the log has no first batch"));
                }
                Verdict::End => break,
                Verdict::Torn => {
                    self.scan.torn = Some(at..end_of_content(&bytes, batches.position));
                    break;
                }
            }
            let header = batches.header().expect("judged to be a batch");
            let batch = batches.position..batches.position + header.len;
            summary.batches += 1;
            following = self.batch(&segment, &bytes[batch.clone()], at, &header, &mut summary)?;
            self.next = Some(header.number.next());
            batches.position = batch.end;
            last = Some(batch);
            if following.is_some() {
                break;
            }
        }
        if let Some(last) = last {
            let (segment, offset) = (segment.clone(), last.start as u64);
            self.scan.last_batch = Some(LastBatch { segment, offset, bytes: bytes[last].to_vec() });
        }
        summary.used_bytes = batches.position as u64;
        summary.sealed = following.is_some();
        self.scan.position = batches.position as u64;
        self.scan.summaries.push(summary);
        self.scan.segments.insert(segment.number, segment);
        Ok(following)
    }

    /// A segment that must be there.
    fn find(&self, wanted: &NextSegment) -> Result<Loaded<D::File>, WalError> {
        let name = segment_name(wanted.number);
        let there = self.numbers.binary_search(&wanted.number).is_ok();
        let mut found = Found { there, header: false, ours: false, full: false, salt: false };
        let mut problem = None;
        let mut identity = self.scan.identity;
        let mut loaded = None;
        if there {
            match load(self.disk, wanted.number) {
                Ok((header, segment)) => {
                    identity = header.identity;
                    found = Found {
                        there,
                        header: true,
                        ours: identity == self.scan.identity,
                        full: segment.bytes.len() as u64 == header.len,
                        salt: wanted.salt.is_none_or(|salt| salt == header.salt),
                    };
                    loaded = Some(segment);
                }
                Err(error @ WalError::Corrupt { .. }) => problem = Some(error),
                Err(error) => return Err(error),
            }
        }
        match (found.judge(), loaded) {
            ((Use::Read, _), Some(loaded)) => Ok(loaded),
            ((Use::Foreign, _), _) => {
                Err(WalError::Foreign { expected: self.scan.identity, found: identity })
            }
            ((_, what), loaded) => {
                let offset = loaded.map_or(0, |loaded| loaded.bytes.len() as u64);
                Err(problem.unwrap_or_else(|| WalError::corrupt(&name, offset, what)))
            }
        }
    }

    /// What stands at the position of `batches`.
    fn look(&self, batches: &Batches<'_>, segment: SegmentNumber) -> Result<Place, WalError> {
        let left = batches.left();
        let (header, behind) = left[..left.len().min(SECTOR)].split_at(left.len().min(BATCH_HEADER_LEN));
        let begins = matches!(header.first(), Some(&(BATCH | CUT))) || is_blank(header);
        let mut place = Place {
            cut: left.first() == Some(&CUT),
            blank: begins && is_blank(behind),
            header: false,
            whole: false,
            gap: false,
            rest: false,
            later: false,
        };
        if let Some(header) = batches.header()
            && self.next.is_none_or(|next| next == header.number)
        {
            let batch = &left[..header.len];
            place.header = true;
            place.whole = header.is_whole(batch, batches.position as u64, batches.checksums);
            if place.whole {
                return Ok(place);
            }
            place.gap = header.has_gap(batch);
        }
        place.rest = !is_blank(left);
        place.later = batches.has_later(self.next) || self.is_used_after(segment)?;
        Ok(place)
    }

    /// True if a segment above `segment` holds a batch that is later than all that were replayed, or has lost its
    /// header and holds something: a spare is blank, and has its header before it has its name.
    fn is_used_after(&self, segment: SegmentNumber) -> Result<bool, WalError> {
        for number in self.numbers.iter().filter(|number| **number > segment) {
            match load(self.disk, *number) {
                Ok((header, loaded)) if header.identity == self.scan.identity => {
                    let batches = Batches::new(&loaded.bytes, loaded.segment.checksums());
                    if batches.has_later(self.next.map(|next| BatchNumber(next.0.saturating_sub(1)))) {
                        return Ok(true);
                    }
                }
                Ok(_) => {}
                Err(WalError::Corrupt { .. }) => {
                    if holds_something(self.disk, *number)? {
                        return Ok(true);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Refuses what was replayed if a segment before it holds a later batch: an old segment is back and was taken for
    /// the newest.
    fn refuse_later_before(&self, oldest: SegmentNumber) -> Result<(), WalError> {
        let last = self.next.map(|next| BatchNumber(next.0.saturating_sub(1)));
        for number in self.numbers.iter().take_while(|number| **number < oldest) {
            match load(self.disk, *number) {
                Ok((header, loaded)) if header.identity == self.scan.identity => {
                    let batches = Batches::new(&loaded.bytes, loaded.segment.checksums());
                    if batches.has_later(last) {
                        let what = "a later batch than the last of the newest segment stands here";
                        return Err(WalError::corrupt(&loaded.segment.name, SEGMENT_HEADER_LEN, what));
                    }
                }
                Ok(_) | Err(WalError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Replays one batch.
    fn batch(
        &mut self,
        segment: &Segment<D::File>,
        batch: &[u8],
        offset: u64,
        header: &BatchHeader,
        summary: &mut SegmentSummary,
    ) -> Result<Option<NextSegment>, WalError> {
        let mut following = None;
        let end = BATCH_HEADER_LEN + header.records_len;
        let mut at = BATCH_HEADER_LEN;
        while at < end {
            let place = offset + at as u64;
            let (record, len) = decode_record(&batch[at..end], place, segment.checksums())
                .map_err(|why| WalError::corrupt(&segment.name, place, why.to_string()))?;
            match record {
                Record::Entry(entry) => {
                    summary.entries += 1;
                    let bytes = u32::try_from(len).expect("shorter than a batch");
                    let extent = Extent::one(entry.index, entry.stamp, segment.number, place, bytes);
                    note_entry(&mut self.changes, extent);
                    if entry.kind.is_marked() {
                        let payload = Bytes::copy_from_slice(entry.payload);
                        self.scan.marked.insert(entry.index, entry.with(payload));
                    } else if !self.scan.marked.is_empty() {
                        self.scan.marked.remove(&entry.index);
                    }
                }
                Record::Truncation(from) => {
                    self.changes.push(Change::Truncate(from));
                    self.scan.marked.retain(|index, _| *index < from);
                }
                Record::Compaction(through, stamp) => {
                    self.changes.push(Change::Compact(through, stamp));
                    self.scan.marked.retain(|index, _| *index > through);
                }
                Record::HardState(state) => self.scan.hard_state = Some(Bytes::copy_from_slice(state)),
                Record::Life(life) => {
                    self.scan.life = life;
                    if offset == SEGMENT_HEADER_LEN && at == BATCH_HEADER_LEN {
                        self.scan.checkpoint = Some(segment.number);
                    }
                }
                Record::Origin(origin) => self.scan.origin = Some(origin),
                Record::Seal(number, salt) if number == segment.number.next() => {
                    following = Some(NextSegment { number, salt: Some(salt) });
                }
                Record::Seal(number, _) => {
                    let what = format!("segment {number} follows segment {}", segment.number);
                    return Err(WalError::corrupt(&segment.name, place, what));
                }
            }
            at += len;
        }
        if self.scan.checkpoint.is_none() {
            // An empty batch is none either.
            let place = offset + BATCH_HEADER_LEN as u64;
            return Err(WalError::corrupt(&segment.name, place, "the log does not begin with a checkpoint"));
        }
        for change in self.changes.drain(..) {
            self.scan.index.apply(&change);
        }
        Ok(following)
    }

    fn end(self) -> Result<Scan<D::File>, WalError> {
        let Partial {
            identity,
            origin,
            segments,
            summaries,
            index,
            life,
            hard_state,
            marked,
            position,
            checkpoint,
            torn,
            last_batch,
        } = self.scan;
        let checkpoint = checkpoint.expect("a log that does not begin with a checkpoint is refused");
        let last_batch = last_batch.expect("a log without a batch is refused");
        let next = self.next.expect("a log without a batch is refused");
        Ok(Scan {
            identity,
            origin,
            segments,
            summaries,
            index,
            life,
            hard_state,
            marked,
            position,
            next,
            checkpoint,
            torn,
            last_batch,
            leftovers: Vec::new(),
        })
    }
}

/// Where the last sector that holds something ends.
fn end_of_content(bytes: &[u8], from: usize) -> u64 {
    let sectors =
        bytes[from..].chunks(SECTOR).rposition(|sector| !is_blank(sector)).map_or(0, |last| last + 1);
    (from + sectors * SECTOR).min(bytes.len()) as u64
}
