//! Reads entries back from the files, while the log is being written.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use synod_core::{
    Compacted, Entries, Entry, IndexRange, Loaded, LogIndex, LogReader, ReadError, StorageError,
};

use crate::DiskFile;
use crate::error::WalError;
use crate::format::{BATCH, BATCH_HEADER_LEN, PADDING, Record, SECTOR, SegmentNumber, decode_record};
use crate::index::{Extent, Index};
use crate::segment::Segment;

/// What the writer shares with its readers: everything that is durable.
#[derive(Debug)]
pub(crate) struct Shared<F>(RwLock<Contents<F>>);

#[derive(Debug)]
pub(crate) struct Contents<F> {
    pub(crate) index: Index,
    pub(crate) segments: BTreeMap<SegmentNumber, Segment<F>>,
}

impl<F> Shared<F> {
    pub(crate) fn new(index: Index, segments: BTreeMap<SegmentNumber, Segment<F>>) -> Shared<F> {
        Shared(RwLock::new(Contents { index, segments }))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Contents<F>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Contents<F>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads entries back, concurrently with the writer. Every checksum is verified.
pub(crate) struct Reader<F> {
    pub(crate) shared: Arc<Shared<F>>,
}

impl<F: DiskFile> LogReader for Reader<F> {
    fn read(&self, range: IndexRange, bytes_max: usize) -> Result<Loaded, ReadError> {
        let mut answer = Answer::new(range, bytes_max);
        loop {
            let Some((extent, segment)) = self.next(answer.next, range.to)? else { return Ok(answer.end()) };
            let taken = read_extent(&segment, &extent)
                .and_then(|bytes| each_entry(&segment, &extent, &bytes, |entry| answer.take(entry)));
            match taken {
                Ok(true) => {}
                Ok(false) => return Ok(answer.end()),
                // The writer may have given the segment up, and used it for something else, since the look
                // at the index. Then the entries are gone, and the next look says so.
                Err(_) if !self.shared.read().segments.contains_key(&segment.number) => {}
                Err(error) => return Err(StorageError::from(error).into()),
            }
        }
    }
}

impl<F: DiskFile> Reader<F> {
    /// The extent with the first entry in `from..to`, cut to it.
    fn next(&self, from: LogIndex, to: LogIndex) -> Result<Option<(Extent, Segment<F>)>, Compacted> {
        let contents = self.shared.read();
        if let Some((through, _)) = contents.index.compacted()
            && from <= through
        {
            return Err(Compacted { through });
        }
        if from >= to {
            return Ok(None);
        }
        let Some(extent) = contents.index.extents_from(from).next().filter(|extent| extent.from < to) else {
            return Ok(None);
        };
        let cut = extent.cut_to(IndexRange::new(from, to));
        let segment = contents.segments.get(&extent.segment).expect("a segment with entries is kept").clone();
        Ok(Some((cut, segment)))
    }
}

fn read_extent<F: DiskFile>(segment: &Segment<F>, extent: &Extent) -> Result<Bytes, WalError> {
    let mut bytes = vec![0; extent.bytes as usize];
    segment.read(extent.offset, &mut bytes)?;
    Ok(Bytes::from(bytes))
}

/// Calls `visit` with each entry of the extent until it answers false; answers what it answered last.
fn each_entry<F: DiskFile>(
    segment: &Segment<F>,
    extent: &Extent,
    bytes: &Bytes,
    mut visit: impl FnMut(Entry) -> bool,
) -> Result<bool, WalError> {
    let mut expected = extent.base;
    let mut at = 0;
    while let Some(first) = bytes.get(at) {
        let place = extent.offset + at as u64;
        match *first {
            // Between two batches. Both begin with a sector of their own. A write that stopped in the padding left
            // zeros of it.
            PADDING | 0 => at += SECTOR - usize::try_from(place % SECTOR as u64).expect("below a sector"),
            BATCH if place.is_multiple_of(SECTOR as u64) => at += BATCH_HEADER_LEN,
            _ => {
                let (record, len) = decode_record(&bytes[at..], place, segment.checksums())
                    .map_err(|why| WalError::corrupt(&segment.name, place, why.to_string()))?;
                at += len;
                let Record::Entry(entry) = record else { continue };
                if entry.index != expected {
                    let what = format!("entry {expected} should stand here, and {} does", entry.index);
                    return Err(WalError::corrupt(&segment.name, place, what));
                }
                if entry.index >= extent.from {
                    let payload = bytes.slice_ref(entry.payload);
                    if !visit(entry.with(payload)) {
                        return Ok(false);
                    }
                }
                if entry.index == extent.to {
                    return Ok(true);
                }
                expected = expected.next();
            }
        }
    }
    let what = format!("entry {expected} should stand here, and nothing does");
    Err(WalError::corrupt(&segment.name, extent.end(), what))
}

/// Calls `visit` with all the entries of a log that nobody writes, in order, a few that are consecutive at a time.
pub(crate) fn for_each_run<F: DiskFile>(
    index: &Index,
    segments: &BTreeMap<SegmentNumber, Segment<F>>,
    mut visit: impl FnMut(Vec<Entry>) -> Result<(), WalError>,
) -> Result<(), WalError> {
    for extent in index.extents_from(LogIndex(0)) {
        let segment = segments.get(&extent.segment).expect("a segment with entries is kept");
        let bytes = read_extent(segment, extent)?;
        let mut run = Vec::new();
        each_entry(segment, extent, &bytes, |entry| {
            run.push(entry);
            true
        })?;
        visit(run)?;
    }
    Ok(())
}

/// The answer to a read, as it grows.
struct Answer {
    range: IndexRange,
    /// Where to go on.
    next: LogIndex,
    left: usize,
    segments: Vec<Entries>,
    run: Vec<Entry>,
    /// Where the answer ends, if it is cut.
    cut: Option<LogIndex>,
}

impl Answer {
    fn new(range: IndexRange, bytes_max: usize) -> Answer {
        Answer { range, next: range.from, left: bytes_max, segments: Vec::new(), run: Vec::new(), cut: None }
    }

    /// Takes the entry; false if there is no room for it.
    fn take(&mut self, entry: Entry) -> bool {
        let first = self.segments.is_empty() && self.run.is_empty();
        let weight = entry.weight();
        if weight > self.left && !first {
            self.cut = Some(entry.index);
            return false;
        }
        self.left = self.left.saturating_sub(weight);
        self.next = entry.index.next();
        if self.run.last().is_some_and(|last| last.index.next() != entry.index) {
            self.close_run();
        }
        self.run.push(entry);
        true
    }

    fn close_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        self.segments.push(Entries::new(run).expect("a run is consecutive"));
    }

    fn end(mut self) -> Loaded {
        if !self.run.is_empty() {
            self.close_run();
        }
        Loaded { segments: self.segments, to: self.cut.unwrap_or(self.range.to.max(self.range.from)) }
    }
}
