//! The storage under test, beside the model of what it must hold.

use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;

use super::StorageHarness;
use super::model::{Model, read_all};
use crate::conformance::ConformanceFailure;
use crate::{
    ClusterId, Entries, Entry, GroupId, Identity, Incarnation, IndexRange, Kind, LogIndex, LogReader, NodeId,
    Recovered, Reign, RequestId, Stamp, Storage, StorageError, Write, WriteId,
};

/// Whose log the suite writes.
pub(super) const IDENTITY: Identity =
    Identity { cluster: ClusterId(0x5e_ed), node: NodeId(1), group: GroupId(0) };

/// One log under test: every write goes into the storage and into the model, and the two are compared.
pub(super) struct Subject<'a> {
    check: &'static str,
    harness: &'a mut dyn StorageHarness,
    storage: Option<Box<dyn Storage>>,
    reader: Arc<dyn LogReader>,
    pub(super) model: Model,
    pub(super) incarnation: Incarnation,
    next_write: WriteId,
}

impl<'a> Subject<'a> {
    /// A new log, recovered for the first time.
    pub(super) fn create(
        check: &'static str,
        harness: &'a mut dyn StorageHarness,
    ) -> Result<Subject<'a>, ConformanceFailure> {
        let storage = harness.create(&IDENTITY);
        Subject::start(check, harness, storage, Model::default(), Incarnation(0))
    }

    /// Recovers `storage` and compares it with `model`.
    fn start(
        check: &'static str,
        harness: &'a mut dyn StorageHarness,
        mut storage: Box<dyn Storage>,
        model: Model,
        last_life: Incarnation,
    ) -> Result<Subject<'a>, ConformanceFailure> {
        let recovered = recover(check, &mut *storage, &IDENTITY)?;
        let reader = storage.reader();
        let incarnation = recovered.incarnation;
        let subject = Subject {
            check,
            harness,
            storage: Some(storage),
            reader,
            model,
            incarnation,
            next_write: WriteId(1),
        };
        if incarnation != Incarnation(last_life.0 + 1) {
            return subject.fail(format!("after {last_life} this is {incarnation}, and not the next life"));
        }
        subject.agrees_with(&recovered)?;
        Ok(subject)
    }

    /// Writes one unit and compares everything that can be read.
    pub(super) fn write(&mut self, unit: Write) -> Result<(), ConformanceFailure> {
        self.write_batch(vec![unit])
    }

    /// Writes units in one call and compares everything that can be read.
    pub(super) fn write_batch(&mut self, mut batch: Vec<Write>) -> Result<(), ConformanceFailure> {
        for unit in &mut batch {
            unit.id = self.next_write;
            self.next_write = self.next_write.next();
        }
        // Both ways of writing must do the same; a storage need not offer the second.
        let at_once = self.next_write.0.is_multiple_of(2).then(|| self.storage().try_write(&batch)).flatten();
        let outcome = match at_once {
            Some(outcome) => outcome,
            None => block_on(self.storage().write(&batch)),
        };
        if let Err(error) = outcome {
            return self.fail(format!("a write of {} units failed: {error}", batch.len()));
        }
        for unit in &batch {
            self.model.apply(unit);
        }
        self.reads_agree(usize::MAX)
    }

    /// Stops cleanly, opens again, and compares everything.
    pub(super) fn reopen(&mut self) -> Result<(), ConformanceFailure> {
        self.storage = None;
        let mut storage = self.harness.reopen();
        let recovered = recover(self.check, &mut *storage, &IDENTITY)?;
        self.reader = storage.reader();
        self.storage = Some(storage);
        self.next_write = WriteId(1);
        let expected = Incarnation(self.incarnation.0 + 1);
        if recovered.incarnation != expected {
            let (before, after) = (self.incarnation, recovered.incarnation);
            return self.fail(format!("after {before} this is {after}, and not {expected}"));
        }
        self.incarnation = expected;
        self.agrees_with(&recovered)
    }

    /// Opens the log under another identity, which must be refused.
    pub(super) fn refuses(&mut self, stranger: &Identity) -> Result<(), ConformanceFailure> {
        self.storage = None;
        let mut storage = self.harness.reopen();
        match block_on(storage.recover(stranger)) {
            Err(StorageError::Foreign { .. }) => Ok(()),
            Err(error) => {
                self.fail(format!("{stranger:?} must be refused as foreign, and the error is: {error}"))
            }
            Ok(_) => self.fail(format!("the log of {IDENTITY:?} opens for {stranger:?}")),
        }
    }

    /// Opens the log a second time while this life still runs; writes of this life must be refused then.
    pub(super) fn is_superseded(&mut self) -> Result<(), ConformanceFailure> {
        let mut newer = self.harness.reopen();
        recover(self.check, &mut *newer, &IDENTITY)?;
        let id = self.next_write;
        let late = Write { id, hard_state: Some(Bytes::from_static(b"late")), ..unit() };
        match block_on(self.storage().write(&[late])) {
            Err(StorageError::Superseded) => {}
            Err(error) => {
                return self.fail(format!("the older life must be told that it is superseded, not: {error}"));
            }
            Ok(()) => return self.fail("a life that was superseded can still write"),
        }
        self.incarnation = Incarnation(self.incarnation.0 + 1);
        drop(newer);
        self.reopen()
    }

    /// Reads everything in pieces of at most `bytes_max` and compares it with the model.
    pub(super) fn reads_agree(&self, bytes_max: usize) -> Result<(), ConformanceFailure> {
        let seen = read_all(&*self.reader, self.model.first_readable(), bytes_max)
            .or_else(|what| self.fail(what))?;
        match self.model.difference_of_entries(&seen) {
            None => Ok(()),
            Some(difference) => self.fail(difference),
        }
    }

    /// Reads one range and compares it with the model; answers how far the read reached.
    pub(super) fn read(&self, range: IndexRange, bytes_max: usize) -> Result<LogIndex, ConformanceFailure> {
        let loaded = match self.reader.read(range, bytes_max) {
            Ok(loaded) => loaded,
            Err(error) => return self.fail(format!("reading {range} failed: {error}")),
        };
        let seen: Vec<&Entry> = loaded.segments.iter().flat_map(|segment| segment.iter()).collect();
        if loaded.to > range.to {
            return self.fail(format!("reading {range} reached {}", loaded.to));
        }
        let reached = range.from..loaded.to.max(range.from);
        let expected: Vec<&Entry> = self.model.entries.range(reached).map(|(_, entry)| entry).collect();
        if seen != expected {
            return self.fail(format!("reading {range} up to {} gave {seen:?}, not {expected:?}", loaded.to));
        }
        let weight: usize = seen.iter().map(|entry| entry.weight()).sum();
        if seen.len() > 1 && weight > bytes_max {
            return self.fail(format!("reading {range} within {bytes_max} bytes gave {weight} bytes"));
        }
        if loaded.to < range.to && seen.is_empty() {
            return self.fail(format!("reading {range} gave no entry and reached only {}", loaded.to));
        }
        Ok(loaded.to)
    }

    /// The reader handed out by the running life.
    pub(super) fn reader(&self) -> &dyn LogReader {
        &*self.reader
    }

    /// The claim does not hold.
    pub(super) fn fail<T>(&self, what: impl Into<String>) -> Result<T, ConformanceFailure> {
        Err(ConformanceFailure::new(self.check, what))
    }

    fn agrees_with(&self, recovered: &Recovered) -> Result<(), ConformanceFailure> {
        let seen = Model::observe(recovered, &*self.reader).or_else(|what| self.fail(what))?;
        match self.model.difference(&seen) {
            None => Ok(()),
            Some(difference) => self.fail(format!("after opening: {difference}")),
        }
    }

    fn storage(&mut self) -> &mut dyn Storage {
        &mut **self.storage.as_mut().expect("a subject holds its storage but while it reopens")
    }
}

/// Recovers a storage that must not refuse.
pub(super) fn recover(
    check: &'static str,
    storage: &mut dyn Storage,
    identity: &Identity,
) -> Result<Recovered, ConformanceFailure> {
    block_on(storage.recover(identity))
        .map_err(|error| ConformanceFailure::new(check, format!("recovery failed: {error}")))
}

/// A unit that asks for nothing yet.
pub(super) fn unit() -> Write {
    Write { forced: true, ..Write::default() }
}

/// A unit that puts these entries.
pub(super) fn put(puts: impl IntoIterator<Item = Entries>) -> Write {
    Write { puts: puts.into_iter().collect(), ..unit() }
}

/// A command whose payload tells its position and stamp.
pub(super) fn entry(index: u64, stamp: u64) -> Entry {
    Entry {
        index: LogIndex(index),
        stamp: Stamp { high: stamp, low: 0 },
        reign: Reign { number: stamp, leader: NodeId(1) },
        kind: Kind::Command,
        request: RequestId::NONE,
        payload: Bytes::from(format!("{index} under {stamp}")),
    }
}

/// Consecutive commands.
pub(super) fn run(first: u64, count: usize, stamp: u64) -> Entries {
    Entries::numbered(LogIndex(first), vec![(); count], |index, ()| entry(index.0, stamp))
}

/// One entry as a segment.
pub(super) fn alone(entry: Entry) -> Entries {
    Entries::numbered(entry.index, vec![entry], |_, entry| entry)
}
