//! A storage on a device that loses what was not synced, whole and with one rule broken at a time: the
//! crash checks accept the first and reject the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;
use synod_core::conformance::storage::{StorageHarness, run_all};
use synod_core::memory::MemoryStorage;
use synod_core::{
    Entries, Identity, Incarnation, LogIndex, LogReader, Recovered, Stamp, Storage, StorageError, Write,
};

use super::assert_rejected_by;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The journal as it should be.
    None,
    /// Parts of a unit count although its end is missing.
    TornUnits,
    /// A later record counts although an earlier one is missing.
    GapsIgnored,
    /// A write is reported durable before it is synced.
    EarlyReport,
    /// The new life is not synced before it is given.
    LifeNotSynced,
    /// What a crash left behind the last whole unit stays there.
    TailKept,
    /// A write after a failed one is tried, and succeeds.
    NotPoisoned,
}

/// A numbered record of the journal.
#[derive(Clone, Debug)]
struct Record {
    number: u64,
    part: Part,
}

#[derive(Clone, Debug)]
enum Part {
    Life(Incarnation),
    Install(LogIndex, Stamp),
    Truncate(LogIndex),
    Put(Entries),
    Compact(LogIndex),
    HardState(Bytes),
    End,
}

/// Records that are synced, and records that are not.
#[derive(Debug, Default)]
struct Device {
    synced: Vec<Record>,
    pending: Vec<Record>,
    operations: u64,
    crash_at: Option<(u64, u64)>,
    fail_at: Option<u64>,
}

struct DeviceFailed;

impl Device {
    fn operation(&mut self) -> Result<(), DeviceFailed> {
        let number = self.operations;
        self.operations += 1;
        let crashed = self.crash_at.is_some_and(|(at, _)| number >= at);
        let failed = self.fail_at == Some(number);
        if crashed || failed { Err(DeviceFailed) } else { Ok(()) }
    }

    fn append(&mut self, record: Record) -> Result<(), DeviceFailed> {
        self.operation()?;
        self.pending.push(record);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DeviceFailed> {
        self.operation()?;
        self.synced.append(&mut self.pending);
        Ok(())
    }

    /// Cuts the journal after `count` records, and syncs.
    fn cut(&mut self, count: usize) -> Result<(), DeviceFailed> {
        self.sync()?;
        self.operation()?;
        self.synced.truncate(count);
        Ok(())
    }

    /// Loses what the seed says of what is not synced.
    fn reopen(&mut self) {
        if let Some((_, seed)) = self.crash_at.take() {
            let mut random = SplitMix64::seed_from_u64(seed);
            self.pending.retain(|_| random.next_u64() % 4 != 0);
        }
        self.synced.append(&mut self.pending);
        self.fail_at = None;
        self.operations = 0;
    }
}

struct Journal {
    fault: Fault,
    device: Arc<Mutex<Device>>,
    owner: Identity,
    image: MemoryStorage,
    next: u64,
    recovered: bool,
    poisoned: bool,
}

impl Journal {
    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole units of the journal, the last life, and the number of records they fill.
    fn replay(&self) -> (Vec<Write>, Incarnation, usize) {
        let records = self.device().synced.clone();
        let (mut units, mut life, mut whole) = (Vec::new(), Incarnation(0), 0);
        let mut open = Write::default();
        let mut open_life = None;
        let mut expected = 1;
        for (at, record) in records.iter().enumerate() {
            if record.number != expected && self.fault != Fault::GapsIgnored {
                if self.fault == Fault::TailKept {
                    continue;
                }
                break;
            }
            expected = record.number + 1;
            match &record.part {
                Part::Life(number) => open_life = Some(*number),
                Part::Install(index, stamp) => open.install = Some((*index, *stamp)),
                Part::Truncate(from) => open.truncate_from = Some(*from),
                Part::Put(put) => open.puts.push(put.clone()),
                Part::Compact(through) => open.compact_to = Some(*through),
                Part::HardState(state) => open.hard_state = Some(state.clone()),
                Part::End => {
                    units.push(std::mem::take(&mut open));
                    life = open_life.take().unwrap_or(life);
                    whole = at + 1;
                }
            }
        }
        if self.fault == Fault::TornUnits {
            units.push(open);
        }
        (units, life, whole)
    }

    fn append(&mut self, parts: impl IntoIterator<Item = Part>) -> Result<(), DeviceFailed> {
        for part in parts {
            let record = Record { number: self.next, part };
            self.next += 1;
            self.device().append(record)?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(Vec<Write>, Incarnation), DeviceFailed> {
        let (units, life, whole) = self.replay();
        let next = self.device().synced[..whole].last().map_or(1, |last| last.number + 1);
        self.next = next;
        if self.fault != Fault::TailKept {
            self.device().cut(whole)?;
        }
        let life = Incarnation(life.0 + 1);
        self.append([Part::Life(life), Part::End])?;
        if self.fault != Fault::LifeNotSynced {
            self.device().sync()?;
        }
        Ok((units, life))
    }

    fn try_write(&mut self, batch: &[Write]) -> Result<(), DeviceFailed> {
        for unit in batch {
            let parts = [
                unit.install.map(|(index, stamp)| Part::Install(index, stamp)),
                unit.truncate_from.map(Part::Truncate),
                unit.compact_to.map(Part::Compact),
                unit.hard_state.clone().map(Part::HardState),
                Some(Part::End),
            ];
            self.append(unit.puts.iter().cloned().map(Part::Put))?;
            self.append(parts.into_iter().flatten())?;
        }
        if batch.iter().any(|unit| unit.forced) && self.fault != Fault::EarlyReport {
            self.device().sync()?;
        }
        Ok(())
    }
}

#[async_trait]
impl Storage for Journal {
    async fn recover(&mut self, identity: &Identity) -> Result<Recovered, StorageError> {
        if *identity != self.owner {
            return Err(StorageError::Foreign { expected: *identity, found: self.owner });
        }
        let (units, life) = self.start().map_err(|DeviceFailed| StorageError::Poisoned)?;
        self.image.recover(identity).await?;
        self.image.write(&units).await?;
        self.recovered = true;
        let recovered = self.image.recover(identity).await?;
        Ok(Recovered { incarnation: life, ..recovered })
    }

    async fn write(&mut self, batch: &[Write]) -> Result<(), StorageError> {
        if !self.recovered {
            return Err(StorageError::NotRecovered);
        }
        if self.poisoned {
            return Err(StorageError::Poisoned);
        }
        if self.try_write(batch).is_err() {
            self.poisoned = self.fault != Fault::NotPoisoned;
            return Err(StorageError::Poisoned);
        }
        self.image.write(batch).await
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.image.reader()
    }

    fn blocking(&self) -> bool {
        true
    }
}

struct Harness {
    fault: Fault,
    device: Arc<Mutex<Device>>,
    owner: Identity,
}

impl Harness {
    fn new(fault: Fault) -> Harness {
        Harness { fault, device: Arc::default(), owner: Identity::default() }
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageHarness for Harness {
    fn create(&mut self, identity: &Identity) -> Box<dyn Storage> {
        self.device = Arc::default();
        self.owner = *identity;
        self.reopen()
    }

    fn reopen(&mut self) -> Box<dyn Storage> {
        self.device().reopen();
        Box::new(Journal {
            fault: self.fault,
            device: Arc::clone(&self.device),
            owner: self.owner,
            image: MemoryStorage::new(),
            next: 1,
            recovered: false,
            poisoned: false,
        })
    }

    fn crashes(&self) -> bool {
        true
    }

    fn crash_after(&mut self, operations: u64, seed: u64) {
        let mut device = self.device();
        device.crash_at = Some((device.operations + operations, seed));
    }

    fn faults(&self) -> bool {
        true
    }

    fn fail_once_after(&mut self, operations: u64) {
        let mut device = self.device();
        device.fail_at = Some(device.operations + operations);
    }
}

#[test]
fn a_journal_of_whole_units_passes_at_every_crash_point() {
    let report = run_all(&mut Harness::new(Fault::None));
    report.assert_passed();
    assert_eq!(report.skipped, ["a_superseded_life_is_refused"]);
}

#[test]
fn each_broken_journal_is_rejected_by_the_check_that_names_its_rule() {
    let cases = [
        (Fault::TornUnits, "a_crash_leaves_a_prefix_of_whole_units"),
        (Fault::GapsIgnored, "a_crash_leaves_a_prefix_of_whole_units"),
        (Fault::EarlyReport, "a_crash_leaves_a_prefix_of_whole_units"),
        (Fault::LifeNotSynced, "a_crash_leaves_a_prefix_of_whole_units"),
        (Fault::TailKept, "a_crash_leaves_a_prefix_of_whole_units"),
        (Fault::EarlyReport, "a_crash_during_recovery_loses_nothing"),
        (Fault::NotPoisoned, "a_failed_write_is_final"),
    ];
    for (fault, check) in cases {
        assert_rejected_by(&run_all(&mut Harness::new(fault)), check, &format!("{fault:?}"));
    }
}
