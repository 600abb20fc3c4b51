//! The log itself: one writer over a [`Disk`], synchronous and without a thread of its own.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use synod_core::{
    Identity, Incarnation, IndexRange, Loaded, LogIndex, LogReader, ReadError, Recovered, Stamp,
    StorageError, Write,
};

use crate::error::WalError;
use crate::format::{
    BATCH_LEN_MAX, BatchNumber, BatchWriter, COMPACTION_LEN, CUT, LIFE_LEN, ORIGIN_LEN, Origin,
    RECORD_OVERHEAD, SEAL_LEN, SECTOR, SEGMENT_HEADER_LEN, SegmentNumber, TRUNCATION_LEN, batch_len,
    entry_len, version_for,
};
use crate::index::{Change, Extent, note_entry};
use crate::reader::{Reader, Shared};
use crate::recovery::{Scan, scan};
use crate::segment::{PREPARED, Preparation, RECYCLED, Segment, TEMPORARY, segment_len_for};
use crate::{Disk, WalOptions};

/// A log on a [`Disk`].
///
/// One engine writes a disk at a time; on real files [`crate::Wal`] sees to that. Nothing is read before
/// [`Engine::recover`], and nothing is written after the first error.
pub struct Engine<D: Disk> {
    disk: Arc<D>,
    options: WalOptions,
    /// Prepare segments on a thread while the log is being written.
    in_background: bool,
    state: State<D>,
}

enum State<D: Disk> {
    /// Before the first recovery.
    Closed,
    Open(Box<Log<D>>),
    /// After an error. It keeps its readers: what was durable is.
    Poisoned,
}

/// An open log.
struct Log<D: Disk> {
    identity: Identity,
    origin: Option<Origin>,
    life: Incarnation,
    hard_state: Option<Bytes>,
    shared: Arc<Shared<D::File>>,
    /// The segment that is written.
    active: Segment<D::File>,
    /// Where the next batch goes.
    position: u64,
    next: BatchNumber,
    /// The oldest segment that the last batch called needed. None below it is.
    oldest: SegmentNumber,
    /// The newest segment that begins with a checkpoint, the batch being encoded included: nothing before it is
    /// needed but entries.
    checkpoint: SegmentNumber,
    spare: Spare<D>,
    /// A segment that is not needed waits under [`RECYCLED`].
    recycled: bool,
    writer: BatchWriter,
    changes: Vec<Change>,
}

/// The segment after the active one.
enum Spare<D: Disk> {
    None,
    Ready(Segment<D::File>),
    Working(JoinHandle<Result<Segment<D::File>, WalError>>),
}

impl<D: Disk> Engine<D> {
    /// A log that may be on `disk`. Nothing is read yet.
    ///
    /// # Errors
    /// [`WalError::Options`].
    pub fn new(disk: D, options: WalOptions) -> Result<Engine<D>, WalError> {
        options.validate()?;
        Ok(Engine { disk: Arc::new(disk), options, in_background: false, state: State::Closed })
    }

    /// Prepares the next segment on a thread of its own while the log is being written, instead of when it is
    /// needed. Off by default: a simulated disk sees every operation in one order.
    #[must_use]
    pub fn prepare_in_background(mut self, yes: bool) -> Engine<D> {
        self.in_background = yes;
        self
    }

    /// Makes a new, empty log for `identity` on a disk that holds none.
    ///
    /// # Errors
    /// [`WalError::NotEmpty`] if anything but temporary files and a lock is there, [`WalError::Io`].
    pub fn create(&self, identity: &Identity) -> Result<(), WalError> {
        self.create_from(identity, None)
    }

    /// As [`Engine::create`], for a log that is made from another one and goes on after its last life.
    pub(crate) fn create_from(&self, identity: &Identity, origin: Option<&Origin>) -> Result<(), WalError> {
        let names = self.disk.list().map_err(WalError::io("list", "the folder"))?;
        for name in names {
            if name.ends_with(TEMPORARY) {
                // An earlier attempt did not come to its end.
                self.disk.remove(&name).map_err(WalError::io("remove", &name))?;
            } else if name != crate::lock::LOCK_NAME {
                return Err(WalError::NotEmpty { place: "the folder".to_owned(), found: name });
            }
        }
        let life = origin.map_or(Incarnation(0), |origin| origin.incarnation);
        let preparation = Preparation {
            disk: Arc::clone(&self.disk),
            version: version_for(origin),
            identity: *identity,
            number: SegmentNumber(1),
            life,
            len: self.options.segment_bytes,
            recycled: false,
        };
        // A log that can be seen has a first batch, so an empty one is never mistaken for a damaged one.
        preparation.run_with(|segment| {
            let mut writer = BatchWriter::default();
            writer.begin(SEGMENT_HEADER_LEN, segment.checksums());
            writer.life(life);
            if let Some(origin) = origin {
                writer.origin(origin);
            }
            segment.write(SEGMENT_HEADER_LEN, writer.finish(BatchNumber(1), segment.number))
        })?;
        Ok(())
    }

    /// Reads what is there, cuts a torn batch off, removes what is left over, and begins a new life, which is
    /// durable when this returns.
    ///
    /// # Errors
    /// [`WalError::NoLog`], [`WalError::Foreign`] and [`WalError::Corrupt`], before anything was changed;
    /// [`WalError::Io`]. An error after that is final, as one of [`Engine::write`] is.
    pub fn recover(&mut self, identity: &Identity) -> Result<Recovered, WalError> {
        self.stop()?;
        let scan = scan(&*self.disk, Some(identity))?;
        let outcome = self.begin_life(scan);
        if outcome.is_err() {
            self.state = State::Poisoned;
        }
        outcome
    }

    /// Repairs what the scan found and goes on from there.
    fn begin_life(&mut self, scan: Scan<D::File>) -> Result<Recovered, WalError> {
        self.repair(&scan)?;
        let life = Incarnation(scan.life.0 + 1);
        let mut recovered = Recovered {
            incarnation: life,
            hard_state: scan.hard_state.clone(),
            compacted: scan.index.compacted(),
            runs: scan.index.runs(),
            marked: Vec::new(),
        };
        let active = scan.segments.last_key_value().expect("a log has a segment").1.clone();
        let oldest = *scan.segments.first_key_value().expect("a log has a segment").0;
        recovered.marked = scan.marked.into_values().collect();
        let mut log = Log {
            identity: scan.identity,
            origin: scan.origin,
            life,
            hard_state: scan.hard_state,
            shared: Arc::new(Shared::new(scan.index, scan.segments)),
            active,
            position: scan.position,
            next: scan.next,
            oldest,
            checkpoint: scan.checkpoint,
            spare: Spare::None,
            recycled: false,
            writer: BatchWriter::default(),
            changes: Vec::new(),
        };
        log.write_batch(&self.disk, &self.options, LIFE_LEN, |log| log.writer.life(life))?;
        self.state = State::Open(Box::new(log));
        Ok(recovered)
    }

    /// Makes the units durable, in order, before it returns: one write and one sync.
    ///
    /// # Errors
    /// Any error is final: every later write fails with [`WalError::Poisoned`].
    pub fn write(&mut self, units: &[Write]) -> Result<(), WalError> {
        let log = match &mut self.state {
            State::Closed => return Err(WalError::NotRecovered),
            State::Poisoned => return Err(WalError::Poisoned),
            State::Open(log) => log,
        };
        let outcome = log.write_units(&self.disk, &self.options, units, self.in_background);
        if outcome.is_err() {
            self.poison();
        }
        outcome
    }

    /// A reader of completed writes. Before [`Engine::recover`] and after an error it only says so.
    #[must_use]
    pub fn reader(&self) -> Arc<dyn LogReader> {
        match &self.state {
            State::Open(log) => Arc::new(Reader { shared: Arc::clone(&log.shared) }),
            State::Closed => Arc::new(NoReader(StorageError::NotRecovered)),
            State::Poisoned => Arc::new(NoReader(StorageError::Poisoned)),
        }
    }

    /// Ends the log cleanly: writes a last, empty batch, which puts everything before it beyond doubt (see
    /// the front page), and waits for a segment that is being prepared. An engine that is only dropped loses
    /// nothing.
    ///
    /// # Errors
    /// As [`Engine::write`].
    pub fn close(mut self) -> Result<(), WalError> {
        let mut outcome = Ok(());
        if let State::Open(log) = &mut self.state {
            outcome = log.write_batch(&self.disk, &self.options, 0, |_| {});
        }
        self.stop().and(outcome)
    }

    /// Waits for the preparing thread, if there is one, and closes.
    fn stop(&mut self) -> Result<(), WalError> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(log) => log.spare.finish().map(|_| ()),
            State::Closed => Ok(()),
            State::Poisoned => {
                self.state = State::Poisoned;
                Err(WalError::Poisoned)
            }
        }
    }

    fn poison(&mut self) {
        if let State::Open(log) = std::mem::replace(&mut self.state, State::Poisoned) {
            // The first error is the one that is told.
            let _ = log.spare.finish();
        }
    }

    /// Makes durable what the scan found, and nothing else.
    fn repair(&self, scan: &Scan<D::File>) -> Result<(), WalError> {
        let active = scan.segments.last_key_value().map(|(_, segment)| segment).expect("a log has a segment");
        // What is seen behind the last batch may be other than what the disk holds: a sync that failed has called
        // it clean. So all of it is blanked, every time. Half blanked, a torn batch would be neither torn nor blank:
        // its first byte says what is going on, and goes last.
        if scan.torn.is_some() {
            active.write(scan.position, &[CUT])?;
            active.blank(scan.position + 1, u64::MAX)?;
            active.write(scan.position, &[0])?;
        } else {
            active.blank(scan.position, u64::MAX)?;
        }
        active.sync()?;
        // The last batch may only be in the memory of the system, and after a failed sync even be called clean
        // there. Written again it reaches the disk with this sync.
        let last = &scan.last_batch;
        last.segment.write(last.offset, &last.bytes)?;
        last.segment.sync()?;
        for name in &scan.leftovers {
            self.disk.remove(name).map_err(WalError::io("remove", name))?;
        }
        self.disk.sync_dir().map_err(WalError::io("sync", "the folder"))
    }
}

impl<D: Disk> Log<D> {
    fn write_units(
        &mut self,
        disk: &Arc<D>,
        options: &WalOptions,
        units: &[Write],
        in_background: bool,
    ) -> Result<(), WalError> {
        let records_len = units.iter().map(unit_len).fold(0, usize::saturating_add);
        if records_len == 0 {
            return Ok(());
        }
        self.write_batch(disk, options, records_len, |log| {
            for (done, unit) in units.iter().enumerate() {
                log.encode(unit, &units[..done]);
            }
        })?;
        if let Some(state) = units.iter().rev().find_map(|unit| unit.hard_state.as_ref()) {
            self.hard_state = Some(state.clone());
        }
        if in_background {
            self.prepare_ahead(disk, options)?;
        }
        Ok(())
    }

    /// Writes one batch and syncs it, then shows it to readers and gives up segments that are not needed.
    fn write_batch(
        &mut self,
        disk: &Arc<D>,
        options: &WalOptions,
        records_len: usize,
        encode: impl FnOnce(&mut Log<D>),
    ) -> Result<(), WalError> {
        self.changes.clear();
        let with_checkpoint = batch_len_checked(records_len.saturating_add(self.checkpoint_len()))?;
        let begins = self.position == SEGMENT_HEADER_LEN;
        let len = if begins { with_checkpoint } else { batch_len_checked(records_len)? };
        let rolls = self.position + (len + SECTOR) as u64 > self.active.len;
        if rolls {
            self.roll(disk, options, with_checkpoint)?;
        }
        self.writer.begin(self.position, self.active.checksums());
        if begins || rolls {
            self.encode_checkpoint();
            self.checkpoint = self.active.number;
        }
        encode(self);
        self.commit()?;
        self.give_up(disk, options)
    }

    /// Seals the active segment and goes on in the next one, which can hold a batch of `len` bytes.
    fn roll(&mut self, disk: &Arc<D>, options: &WalOptions, len: usize) -> Result<(), WalError> {
        let needed = segment_len_for(len);
        let next = match std::mem::replace(&mut self.spare, Spare::None).finish()? {
            Some(spare) if spare.len >= needed => spare,
            _ => self.preparation(disk, options.segment_bytes.max(needed), options)?.run()?,
        };
        self.writer.begin(self.position, self.active.checksums());
        self.writer.seal(next.number, next.salt);
        self.commit()?;
        self.shared.write().segments.insert(next.number, next.clone());
        self.active = next;
        self.position = SEGMENT_HEADER_LEN;
        Ok(())
    }

    /// Finishes the batch in the writer, writes and syncs it, and shows it to readers.
    fn commit(&mut self) -> Result<(), WalError> {
        // A segment may be sealed before its checkpoint was written: then the one before it is needed too.
        let live = self.shared.read().index.oldest_live();
        let oldest = live.map_or(self.checkpoint, |live| live.min(self.checkpoint));
        let batch = self.writer.finish(self.next, oldest);
        self.active.write(self.position, batch)?;
        self.active.sync()?;
        self.position += batch.len() as u64;
        self.next = self.next.next();
        self.oldest = oldest;
        self.writer.shrink(WRITER_KEEPS);
        if !self.changes.is_empty() {
            let mut contents = self.shared.write();
            for change in self.changes.drain(..) {
                contents.index.apply(&change);
            }
        }
        Ok(())
    }

    /// Gives up the segments that a durable batch calls not needed, oldest first.
    fn give_up(&mut self, disk: &Arc<D>, options: &WalOptions) -> Result<(), WalError> {
        loop {
            let oldest = {
                let mut contents = self.shared.write();
                match contents.segments.first_entry() {
                    Some(first) if *first.key() < self.oldest => first.remove(),
                    _ => return Ok(()),
                }
            };
            let recycles = !self.recycled && oldest.len == options.segment_bytes;
            let name = &oldest.name;
            if recycles {
                disk.rename(name, RECYCLED).map_err(WalError::io("rename", name))?;
                self.recycled = true;
            } else {
                disk.remove(name).map_err(WalError::io("remove", name))?;
            }
        }
    }

    /// Starts to prepare the next segment, or takes over what was prepared.
    fn prepare_ahead(&mut self, disk: &Arc<D>, options: &WalOptions) -> Result<(), WalError> {
        match &self.spare {
            Spare::None => {
                let preparation = self.preparation(disk, options.segment_bytes, options)?;
                let thread = std::thread::Builder::new().name("synod-wal-spare".to_owned());
                let work =
                    thread.spawn(move || preparation.run()).map_err(WalError::io("start", "a thread"))?;
                self.spare = Spare::Working(work);
            }
            Spare::Working(work) if work.is_finished() => {
                let ready = std::mem::replace(&mut self.spare, Spare::None).finish()?;
                self.spare = ready.map_or(Spare::None, Spare::Ready);
            }
            Spare::Working(_) | Spare::Ready(_) => {}
        }
        Ok(())
    }

    /// What makes the next segment. One is under way at a time.
    fn preparation(
        &mut self,
        disk: &Arc<D>,
        len: u64,
        options: &WalOptions,
    ) -> Result<Preparation<D>, WalError> {
        let recycled = self.recycled && len == options.segment_bytes;
        if recycled {
            disk.rename(RECYCLED, PREPARED).map_err(WalError::io("rename", RECYCLED))?;
            self.recycled = false;
        }
        Ok(Preparation {
            disk: Arc::clone(disk),
            version: version_for(self.origin.as_ref()),
            identity: self.identity,
            number: self.active.number.next(),
            life: self.life,
            len,
            recycled,
        })
    }

    /// How long the records are that a segment begins with.
    fn checkpoint_len(&self) -> usize {
        let hard_state = self.hard_state.as_ref().map_or(0, |state| RECORD_OVERHEAD + state.len());
        let origin = self.origin.map_or(0, |_| ORIGIN_LEN);
        LIFE_LEN + origin + COMPACTION_LEN + hard_state
    }

    /// What must not be lost with the segments before this one.
    fn encode_checkpoint(&mut self) {
        self.writer.life(self.life);
        if let Some(origin) = &self.origin {
            self.writer.origin(origin);
        }
        if let Some((through, stamp)) = self.shared.read().index.compacted() {
            self.writer.compaction(through, stamp);
        }
        if let Some(state) = &self.hard_state {
            self.writer.hard_state(state);
        }
    }

    /// Encodes a unit; `before` are the units of the same batch that precede it.
    fn encode(&mut self, unit: &Write, before: &[Write]) {
        if let Some((through, stamp)) = unit.install
            && self.bound(before).is_none_or(|bound| bound < through)
        {
            // What a snapshot replaces is compacted; the stamp is the snapshot's and not that of an entry here.
            self.writer.compaction(through, stamp);
            self.changes.push(Change::Compact(through, stamp));
        }
        if let Some(from) = unit.truncate_from {
            self.writer.truncation(from);
            self.changes.push(Change::Truncate(from));
        }
        for entry in unit.puts.iter().flat_map(|put| put.iter()) {
            let offset = self.writer.position();
            self.writer.entry(entry);
            let bytes = u32::try_from(self.writer.position() - offset).expect("shorter than a batch");
            let extent = Extent::one(entry.index, entry.stamp, self.active.number, offset, bytes);
            note_entry(&mut self.changes, extent);
        }
        if let Some(through) = unit.compact_to
            && self
                .bound(before)
                .max(unit.install.map(|(bound, _)| bound))
                .is_none_or(|bound| bound < through)
        {
            let stamp = self.stamp_at(through, unit, before);
            self.writer.compaction(through, stamp);
            self.changes.push(Change::Compact(through, stamp));
        }
        if let Some(state) = &unit.hard_state {
            self.writer.hard_state(state);
        }
    }

    /// The compaction bound after `before`.
    fn bound(&self, before: &[Write]) -> Option<LogIndex> {
        let durable = self.shared.read().index.compacted().map(|(bound, _)| bound);
        let installed = |unit: &Write| unit.install.map(|(bound, _)| bound);
        before.iter().filter_map(|unit| unit.compact_to.max(installed(unit))).chain(durable).max()
    }

    /// The stamp at `index` after `before` and the puts of `unit`; zero where no entry is.
    fn stamp_at(&self, index: LogIndex, unit: &Write, before: &[Write]) -> Stamp {
        for unit in std::iter::once(unit).chain(before.iter().rev()) {
            if let Some(entry) = unit.puts.iter().rev().find_map(|put| put.at(index)) {
                return entry.stamp;
            }
            if unit.truncate_from.is_some_and(|from| from <= index) {
                return Stamp::ZERO;
            }
        }
        self.shared.read().index.stamp_at(index).unwrap_or(Stamp::ZERO)
    }
}

impl<D: Disk> Spare<D> {
    /// The segment, waiting for it if it is being prepared.
    fn finish(self) -> Result<Option<Segment<D::File>>, WalError> {
        match self {
            Spare::None => Ok(None),
            Spare::Ready(segment) => Ok(Some(segment)),
            Spare::Working(work) => match work.join() {
                Ok(outcome) => outcome.map(Some),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }
}

/// No thread of an engine outlives it: the next engine makes its segments under the same name.
impl<D: Disk> Drop for Engine<D> {
    fn drop(&mut self) {
        if let State::Open(log) = std::mem::replace(&mut self.state, State::Closed)
            && let Spare::Working(work) = log.spare
        {
            let _ = work.join();
        }
    }
}

impl<D: Disk> fmt::Debug for Engine<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Engine");
        match &self.state {
            State::Closed => shown.field("state", &"closed"),
            State::Poisoned => shown.field("state", &"poisoned"),
            State::Open(log) => shown
                .field("identity", &log.identity)
                .field("life", &log.life)
                .field("segment", &log.active.number)
                .field("position", &log.position),
        };
        shown.finish_non_exhaustive()
    }
}

/// Stands where there is nothing to read.
struct NoReader(StorageError);

impl LogReader for NoReader {
    fn read(&self, _: IndexRange, _: usize) -> Result<Loaded, ReadError> {
        Err(self.0.clone().into())
    }
}

/// The room that is kept free for it at the end of a segment is enough for a seal.
const _: () = assert!(batch_len(SEAL_LEN) == SECTOR);

/// The encoder keeps this much memory between batches, in bytes.
const WRITER_KEEPS: usize = 4 << 20;

/// How long the records of a unit are at most, in bytes.
fn unit_len(unit: &Write) -> usize {
    let entries = unit.puts.iter().flat_map(|put| put.iter());
    let puts = entries.map(|entry| entry_len(entry.payload.len())).fold(0, usize::saturating_add);
    let truncation = unit.truncate_from.map_or(0, |_| TRUNCATION_LEN);
    let install = unit.install.map_or(0, |_| COMPACTION_LEN);
    let compaction = unit.compact_to.map_or(0, |_| COMPACTION_LEN);
    let hard_state = unit.hard_state.as_ref().map_or(0, |state| RECORD_OVERHEAD + state.len());
    [install, truncation, compaction, hard_state].into_iter().fold(puts, usize::saturating_add)
}

fn batch_len_checked(records_len: usize) -> Result<usize, WalError> {
    if records_len > BATCH_LEN_MAX {
        return Err(WalError::TooLarge { len: records_len, max: BATCH_LEN_MAX });
    }
    Ok(batch_len(records_len))
}
