//! Stores of snapshots in memory that break one rule each.

use std::io;
use std::sync::{Arc, Mutex};

use synod_core::conformance::snapshots::{SnapshotHarness, run_all};
use synod_core::memory::MemorySnapshots;
use synod_core::{SnapshotError, SnapshotHead, SnapshotId, SnapshotReader, SnapshotStore, SnapshotWriter};

use super::assert_rejected_by;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ListedBackwards,
    ListedWhileWritten,
    FinishedIsForgotten,
    ContentsCut,
    ReadsEndEarly,
    ReadsBehindTheEndFail,
    ReplacedStays,
    OneWriterOnly,
    DeletedStays,
    MissingIsCorrupt,
    DeleteTwiceFails,
    CrashKeepsHalf,
    FailureTakesAll,
    DamagePasses,
    NothingWorks,
}

/// What the store and its writers share: the store itself, and bytes that were changed at rest.
#[derive(Clone)]
struct Broken {
    fault: Fault,
    inner: MemorySnapshots,
    writing: Arc<Mutex<usize>>,
    damaged: Arc<Mutex<Option<(SnapshotId, u64)>>>,
    fails: Arc<Mutex<bool>>,
}

struct Harness(Broken);

impl SnapshotHarness for Harness {
    fn create(&mut self) -> Box<dyn SnapshotStore> {
        self.0 = broken(self.0.fault);
        Box::new(self.0.clone())
    }

    fn reopen(&mut self) -> Box<dyn SnapshotStore> {
        if self.0.fault == Fault::FinishedIsForgotten {
            self.0.inner = MemorySnapshots::new();
        }
        *self.0.writing.lock().unwrap() = 0;
        *self.0.fails.lock().unwrap() = false;
        Box::new(self.0.clone())
    }

    fn crashes(&self) -> bool {
        self.0.fault == Fault::CrashKeepsHalf
    }

    fn crash_after(&mut self, _operations: u64, _seed: u64) {
        *self.0.fails.lock().unwrap() = true;
    }

    fn faults(&self) -> bool {
        self.0.fault == Fault::FailureTakesAll
    }

    fn fail_once_after(&mut self, _operations: u64) {
        *self.0.fails.lock().unwrap() = true;
    }

    fn damages(&self) -> bool {
        self.0.fault == Fault::DamagePasses
    }

    fn damage(&mut self, id: SnapshotId, place: u64, _mask: u8) -> bool {
        let mut damaged = self.0.damaged.lock().unwrap();
        *damaged = if damaged.is_some() { None } else { Some((id, place)) };
        place < 200
    }
}

fn broken(fault: Fault) -> Broken {
    Broken {
        fault,
        inner: MemorySnapshots::new(),
        writing: Arc::default(),
        damaged: Arc::default(),
        fails: Arc::default(),
    }
}

fn refused() -> SnapshotError {
    SnapshotError::Io { action: "go on".to_owned(), source: io::ErrorKind::Other.into() }
}

impl SnapshotStore for Broken {
    fn list(&mut self) -> Result<Vec<SnapshotHead>, SnapshotError> {
        let mut listed = self.inner.list()?;
        match self.fault {
            Fault::NothingWorks => return Err(refused()),
            Fault::ListedBackwards => listed.reverse(),
            _ => {}
        }
        Ok(listed)
    }

    fn create(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotWriter>, SnapshotError> {
        let mut writing = self.writing.lock().unwrap();
        if self.fault == Fault::NothingWorks || (self.fault == Fault::OneWriterOnly && *writing > 0) {
            return Err(refused());
        }
        *writing += 1;
        drop(writing);
        let writer = self.inner.create(id)?;
        Ok(Box::new(Writer { store: self.clone(), id, writer: Some(writer), head: None }))
    }

    fn open(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotReader>, SnapshotError> {
        let opened = self.inner.open(id);
        if self.fault == Fault::MissingIsCorrupt && opened.is_err() {
            return Err(SnapshotError::Corrupt { name: id.to_string(), what: "it is not there" });
        }
        let damaged = self.damaged.lock().unwrap().filter(|(damaged, _)| *damaged == id);
        Ok(Box::new(Reader { fault: self.fault, damaged: damaged.map(|(_, place)| place), reader: opened? }))
    }

    fn delete(&mut self, id: SnapshotId) -> Result<(), SnapshotError> {
        match self.fault {
            Fault::DeletedStays => Ok(()),
            Fault::DeleteTwiceFails if self.inner.open(id).is_err() => Err(SnapshotError::Missing(id)),
            _ => self.inner.delete(id),
        }
    }
}

struct Writer {
    store: Broken,
    id: SnapshotId,
    writer: Option<Box<dyn SnapshotWriter>>,
    head: Option<SnapshotHead>,
}

impl SnapshotWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let store = &mut self.store;
        if *store.fails.lock().unwrap() {
            if store.fault == Fault::FailureTakesAll {
                for head in store.inner.list()? {
                    store.inner.delete(head.id)?;
                }
            }
            // Half of it stays as if it were all.
            if store.fault == Fault::CrashKeepsHalf
                && let Some(writer) = self.writer.take()
                && let Some(head) = store.inner.list()?.first()
            {
                let meta = synod_core::SnapshotMeta { index: self.id.index, ..head.meta.clone() };
                writer.finish(&SnapshotHead { id: self.id, meta, len: 1, checksum: 0 })?;
            }
            return Err(refused());
        }
        let bytes = if store.fault == Fault::ContentsCut { &bytes[..bytes.len() / 2] } else { bytes };
        if let Some(writer) = &mut self.writer {
            writer.write(bytes)?;
        }
        if store.fault == Fault::ListedWhileWritten
            && let Some(writer) = self.writer.take()
            && let Some(head) = store.inner.list()?.first().cloned()
        {
            let head = SnapshotHead { id: self.id, ..head };
            writer.finish(&head)?;
            self.head = Some(head);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, head: &SnapshotHead) -> Result<(), SnapshotError> {
        *self.store.writing.lock().unwrap() -= 1;
        if self.store.fault == Fault::ReplacedStays && self.store.inner.open(self.id).is_ok() {
            return Ok(());
        }
        self.writer.take().map_or(Ok(()), |writer| writer.finish(head))
    }
}

struct Reader {
    fault: Fault,
    damaged: Option<u64>,
    reader: Box<dyn SnapshotReader>,
}

impl SnapshotReader for Reader {
    fn head(&self) -> &SnapshotHead {
        self.reader.head()
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, SnapshotError> {
        let len = self.reader.head().len;
        if self.fault == Fault::ReadsEndEarly && offset > 0 && offset + 10 > len {
            return Ok(0);
        }
        if self.fault == Fault::ReadsBehindTheEndFail && offset > len {
            return Err(refused());
        }
        let filled = self.reader.read_at(offset, into)?;
        if let Some(place) = self.damaged.and_then(|place| place.checked_sub(offset))
            && let Some(byte) = usize::try_from(place).ok().and_then(|place| into[..filled].get_mut(place))
        {
            *byte ^= 0x10;
        }
        Ok(filled)
    }
}

#[test]
fn every_broken_rule_is_named() {
    for (fault, check) in [
        (Fault::ListedBackwards, "what_is_finished_is_listed_in_order"),
        (Fault::ListedWhileWritten, "what_is_not_finished_is_never_listed"),
        (Fault::FinishedIsForgotten, "what_is_finished_is_listed_in_order"),
        (Fault::ContentsCut, "contents_survive"),
        (Fault::ReadsEndEarly, "reads_begin_anywhere_and_end_at_the_end"),
        (Fault::ReadsBehindTheEndFail, "reads_begin_anywhere_and_end_at_the_end"),
        (Fault::ReplacedStays, "a_snapshot_may_replace_one_of_its_name"),
        (Fault::OneWriterOnly, "two_may_be_written_at_once"),
        (Fault::DeletedStays, "a_deleted_snapshot_is_missing"),
        (Fault::MissingIsCorrupt, "a_new_store_is_empty"),
        (Fault::DeleteTwiceFails, "a_deleted_snapshot_is_missing"),
        (Fault::CrashKeepsHalf, "a_crash_leaves_a_snapshot_whole_or_not_there"),
        (Fault::FailureTakesAll, "a_failure_harms_no_other"),
        (Fault::DamagePasses, "damage_is_noticed"),
        (Fault::NothingWorks, "a_new_store_is_empty"),
    ] {
        let report = run_all(&mut Harness(broken(fault)));
        assert_rejected_by(&report, check, &format!("{fault:?}"));
    }
}
