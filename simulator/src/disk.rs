//! The storage of one node: the model alone, or beside it the log engine that ships, on a simulated device.
//!
//! With the engine every unit is written twice, and the model is the oracle: what the engine recovers and reads back is
//! held against it. When a node crashes, the engine is recovered at once, in spite of whatever its device does,
//! and again when the node starts: so every crash is two recoveries, which must find the same (ST3).

use std::sync::Arc;

use synod_core::{
    Compacted, Entry, Identity, Incarnation, IndexRange, Loaded, LogIndex, LogReader, ReadError, Recovered,
    Write, WriteId,
};
use synod_wal::{Engine, WalError, WalOptions};

use crate::fault::{Fault, FaultCounts};
use crate::model::{Crashed, Model};
use crate::observer::{Violation, recovery, violation};
use crate::rare::{Rare, RareCounts};
use crate::rng::{Chance, Rng};
use crate::sim_disk::{DeviceFaults, Ending, SimDisk};

/// The storage of one node.
#[derive(Debug, Default)]
pub struct Disk {
    model: Model,
    real: Option<Box<Real>>,
}

/// What a storage that is the engine is like.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// The length of a segment.
    pub segment_bytes: u64,
    /// What goes wrong at operations of the device.
    pub faults: DeviceFaults,
    /// Crashes are sometimes failures of the power.
    pub power_loss: bool,
    /// A recovery is cut short.
    pub crash_in_recovery: Chance,
}

/// The storage cannot go on, and with it the node: why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped(pub String);

/// What a storage does, if it still can.
pub type OrStopped<T> = Result<Result<T, Stopped>, Violation>;

/// The engine on its device.
#[derive(Debug)]
struct Real {
    node: usize,
    options: EngineOptions,
    wal: WalOptions,
    device: SimDisk,
    created: bool,
    engine: Option<Engine<SimDisk>>,
    reader: Option<Reader>,
    life: Incarnation,
    /// Why it does not start.
    refused: Option<Stopped>,
    /// Units that the engine was given in a write that failed.
    handed: usize,
    calm: bool,
    rng: Rng,
    rare: RareCounts,
}

struct Reader(Arc<dyn LogReader>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Disk {
    /// The model alone.
    #[must_use]
    pub fn of_model() -> Disk {
        Disk::default()
    }

    /// The engine beside the model.
    #[must_use]
    pub fn of_engine(node: usize, options: EngineOptions, seed: u64) -> Disk {
        let mut rng = Rng::new(seed);
        let device = SimDisk::new(Rng::new(rng.fork()), options.faults);
        let real = Real {
            node,
            wal: WalOptions::default().segment_bytes(options.segment_bytes),
            options,
            device,
            created: false,
            engine: None,
            reader: None,
            life: Incarnation(0),
            refused: None,
            handed: 0,
            calm: false,
            rng,
            rare: RareCounts::default(),
        };
        Disk { model: Model::default(), real: Some(Box::new(real)) }
    }

    /// From now on nothing goes wrong with the device.
    pub fn calm(&mut self) {
        if let Some(real) = &mut self.real {
            real.calm = true;
            real.device.set_quiet(true);
        }
    }

    /// Begins a life: what is durable, under the next incarnation. Stopped if the engine refuses its log.
    ///
    /// # Errors
    /// ST3: it is not what the recovery right after the crash found; ST4, ST6.
    pub fn recover(&mut self) -> OrStopped<Recovered> {
        let expected = self.model.recover();
        let Some(real) = &mut self.real else { return Ok(Ok(expected)) };
        let recovered = match real.open()? {
            Ok(recovered) => recovered,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let same = recovered.hard_state == expected.hard_state
            && recovered.compacted == expected.compacted
            && recovered.marked == expected.marked
            && stamps(&recovered).eq(stamps(&expected));
        if !same {
            return Err(violation(
                "ST3",
                format!(
                    "n{} recovered {} and then {}",
                    real.node + 1,
                    describe(&expected),
                    describe(&recovered)
                ),
            ));
        }
        if real.rng.below(4) == 0
            && let Err(stopped) = real.read_back(&self.model)?
        {
            return Ok(Err(stopped));
        }
        Ok(Ok(recovered))
    }

    /// Takes a unit.
    pub fn issue(&mut self, unit: Write) {
        self.model.issue(unit);
    }

    /// Begins to make up to `units_max` units durable, unless it is busy or there is nothing to do. Returns how many.
    pub fn begin_sync(&mut self, units_max: usize) -> usize {
        self.model.begin_sync(units_max)
    }

    /// Ends what [`Disk::begin_sync`] began: these units are durable now. Returns the last of them.
    ///
    /// # Errors
    /// ST6: the engine gives up although its device is well.
    pub fn end_sync(&mut self) -> OrStopped<WriteId> {
        if let Some(real) = &mut self.real {
            let units = self.model.in_sync();
            if let Err(error) = real.write(&units) {
                real.handed = units.len();
                if real.calm {
                    return Err(real.violation("ST6", format!("a write fails: {error}")));
                }
                real.rare[Rare::StoppedByDevice] += 1;
                return Ok(Err(Stopped(error.to_string())));
            }
        }
        Ok(Ok(self.model.end_sync()))
    }

    /// The node crashes. Everything durable survives; of the model `extra` units more, of the engine what its device
    /// and its own rules leave.
    ///
    /// # Errors
    /// ST1 to ST6, if the engine recovers something else.
    pub fn crash(&mut self, extra: usize) -> Result<Crashed, Violation> {
        let Some(real) = &mut self.real else { return Ok(self.model.crash(extra)) };
        real.crash_in_write(&self.model);
        let torn = real.device.counts()[Fault::TornWrite];
        real.end_life();
        let recovered = match real.open()? {
            Ok(recovered) => recovered,
            // It never comes back, so nobody asks what survived.
            Err(_) => return Ok(self.model.crash(0)),
        };
        let handed = std::mem::take(&mut real.handed);
        let durable = self.model.recovered();
        let mut found = false;
        for unit in 0..=handed {
            if unit > 0 {
                self.model.complete_one();
            }
            if is_after(&recovered, &self.model) {
                found = true;
                if unit < handed && real.device.counts()[Fault::TornWrite] > torn {
                    real.rare[Rare::TornTail] += 1;
                }
                break;
            }
        }
        if !found {
            return Err(recovery::explain(real.node, &recovered, &durable, &self.model.recovered()));
        }
        if let Err(stopped) = real.read_back(&self.model)? {
            real.refused = Some(stopped);
        }
        // Sometimes at once, sometimes after a clean end.
        if let Some(engine) = real.engine.take()
            && real.rng.below(4) == 0
        {
            real.device.set_quiet(true);
            engine.close().map_err(|error| real.violation("ST6", format!("a clean end fails: {error}")))?;
        }
        real.end_life();
        Ok(self.model.crash(0))
    }

    /// Reads as [`LogReader::read`] does: durable units only.
    ///
    /// # Errors
    /// ST1, ST2: the engine reads something else; ST6: it fails although its device is well.
    pub fn read(&mut self, range: IndexRange, bytes_max: usize) -> OrStopped<Result<Loaded, Compacted>> {
        let expected = self.model.read(range, bytes_max);
        let Some(real) = &mut self.real else { return Ok(Ok(expected)) };
        match real.read(range, bytes_max, &expected)? {
            Ok(()) => Ok(Ok(expected)),
            Err(stopped) => {
                real.rare[Rare::StoppedByDevice] += 1;
                Ok(Err(stopped))
            }
        }
    }

    /// Destroys something on the device, in the way of this kind.
    pub fn damage(&mut self, kind: Fault) -> bool {
        self.real.as_ref().is_some_and(|real| real.refused.is_none() && real.device.damage(kind))
    }

    /// True if something on the device was ever destroyed.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.real.as_ref().is_some_and(|real| real.device.is_damaged())
    }

    /// True if the engine refused its log: the node stays down.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.real.as_ref().is_some_and(|real| real.refused.is_some())
    }

    /// How many units are issued and not durable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.model.pending()
    }

    /// True if none is being made durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.model.is_idle()
    }

    /// The highest durable position.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.model.last_index()
    }

    /// The compaction bound.
    #[must_use]
    pub fn compacted(&self) -> LogIndex {
        self.model.compacted()
    }

    /// What went wrong with the device.
    #[must_use]
    pub fn faults(&self) -> FaultCounts {
        self.real.as_ref().map(|real| real.device.counts()).unwrap_or_default()
    }

    /// Rare paths of the engine.
    #[must_use]
    pub fn rare(&self) -> RareCounts {
        let Some(real) = &self.real else { return RareCounts::default() };
        let mut rare = real.rare;
        let renames = real.device.renames();
        rare[Rare::SegmentRolled] += renames.prepared;
        rare[Rare::SegmentRecycled] += renames.recycled;
        rare
    }
}

impl Real {
    fn violation(&self, invariant: &'static str, what: String) -> Violation {
        violation(invariant, format!("n{}: {what}", self.node + 1))
    }

    fn ending(&mut self) -> Ending {
        if self.options.power_loss && self.rng.below(4) != 0 { Ending::PowerLoss } else { Ending::Kill }
    }

    fn end_life(&mut self) {
        self.engine = None;
        self.reader = None;
        let ending = self.ending();
        self.device.end_life(ending);
    }

    /// Recovers, however often it takes.
    fn open(&mut self) -> OrStopped<Recovered> {
        if let Some(refused) = &self.refused {
            return Ok(Err(refused.clone()));
        }
        for attempt in 0.. {
            let quiet = self.calm || attempt >= ATTEMPTS_MAX;
            self.device.set_quiet(quiet);
            if !quiet && self.rng.chance(self.options.crash_in_recovery) {
                let most = self.rng.pick(&[8, 32, 64]);
                self.device.go_down_after(self.rng.below(most));
            }
            // What was read wrongly before is no excuse.
            let _ = self.device.take_misread();
            let error = match self.attempt() {
                Ok(recovered) => {
                    self.device.stay_up();
                    self.device.set_quiet(self.calm);
                    if recovered.incarnation <= self.life {
                        let (before, now) = (self.life, recovered.incarnation);
                        return Err(self.violation("ST4", format!("{now} follows {before}")));
                    }
                    self.life = recovered.incarnation;
                    self.rare[Rare::DamageHarmless] += u64::from(self.device.is_damaged());
                    return Ok(Ok(recovered));
                }
                Err(error) => error,
            };
            self.engine = None;
            self.reader = None;
            if self.device.is_down() {
                self.rare[Rare::CrashInRecovery] += 1;
                self.end_life();
                continue;
            }
            match error {
                WalError::Io { .. } if !quiet => self.end_life(),
                WalError::Corrupt { .. } if self.device.take_misread() => self.end_life(),
                WalError::Corrupt { .. } | WalError::NoLog { .. } if self.device.is_damaged() => {
                    self.rare[Rare::LogRefused] += 1;
                    let stopped = Stopped(error.to_string());
                    self.refused = Some(stopped.clone());
                    return Ok(Err(stopped));
                }
                error => {
                    let what = format!("nothing was damaged, and the log does not open: {error}");
                    return Err(self.violation("ST6", what));
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    fn attempt(&mut self) -> Result<Recovered, WalError> {
        let identity = identity(self.node);
        let mut engine = Engine::new(self.device.clone(), self.wal.clone())?;
        if !self.created {
            match engine.create(&identity) {
                Ok(()) => self.created = true,
                // An earlier attempt went far, and its machine went down before it could say so: what it made
                // is there to stay once a life has begun in it.
                Err(WalError::NotEmpty { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let recovered = engine.recover(&identity)?;
        self.created = true;
        self.reader = Some(Reader(engine.reader()));
        self.engine = Some(engine);
        Ok(recovered)
    }

    fn write(&mut self, units: &[Write]) -> Result<(), WalError> {
        self.engine.as_mut().ok_or(WalError::NotRecovered)?.write(units)
    }

    /// If a write is under way, the crash comes in the middle of it.
    fn crash_in_write(&mut self, model: &Model) {
        let units = model.in_sync();
        if units.is_empty() || self.handed > 0 {
            return;
        }
        self.device.set_quiet(true);
        let most = self.rng.pick(&[2, 3, 12]);
        self.device.go_down_after(self.rng.below(most));
        self.handed = units.len();
        if self.write(&units).is_err() {
            self.rare[Rare::CrashInWrite] += 1;
        }
    }

    /// Reads the same from the engine as was read from the model.
    fn read(
        &mut self,
        range: IndexRange,
        bytes_max: usize,
        expected: &Result<Loaded, Compacted>,
    ) -> OrStopped<()> {
        let Some(Reader(reader)) = &self.reader else { return Ok(Ok(())) };
        let _ = self.device.take_misread();
        let found = match reader.read(range, bytes_max) {
            Ok(loaded) => Ok(loaded),
            Err(ReadError::Compacted(compacted)) => Err(compacted),
            Err(error) => {
                if self.device.take_misread() || self.device.is_damaged() {
                    return Ok(Err(Stopped(error.to_string())));
                }
                let what = format!("nothing was damaged, and {range} cannot be read: {error}");
                return Err(self.violation("ST6", what));
            }
        };
        recovery::read(self.node, range, &found, expected).map(Ok)
    }

    /// Reads the whole log.
    fn read_back(&mut self, model: &Model) -> OrStopped<()> {
        self.device.set_quiet(true);
        let mut from = model.compacted().next();
        let to = model.last_index().next();
        let bytes_max = self.rng.pick(&[2_000, 1 << 20]);
        let mut outcome = Ok(Ok(()));
        while from < to {
            let range = IndexRange::new(from, to);
            let expected = model.read(range, bytes_max);
            outcome = self.read(range, bytes_max, &expected);
            match (&outcome, expected) {
                (Ok(Ok(())), Ok(loaded)) => from = loaded.to,
                _ => break,
            }
        }
        self.device.set_quiet(self.calm);
        outcome
    }
}

/// Recoveries in a row that may go wrong.
const ATTEMPTS_MAX: usize = 8;

fn identity(node: usize) -> Identity {
    Identity {
        cluster: synod_core::ClusterId(0x51),
        node: synod_core::NodeId(node as u64 + 1),
        group: synod_core::GroupId(0),
    }
}

/// Every entry with its stamp.
pub(crate) fn stamps(recovered: &Recovered) -> impl Iterator<Item = (LogIndex, synod_core::Stamp)> + '_ {
    recovered
        .runs
        .iter()
        .flat_map(|run| (run.from.0..=run.to.0).map(|index| (LogIndex(index), run.stamp_at(LogIndex(index)))))
}

/// True if this is what the model holds.
fn is_after(recovered: &Recovered, model: &Model) -> bool {
    if recovered.last_index() != model.last_index() {
        return false;
    }
    let expected = model.recovered();
    recovered.hard_state == expected.hard_state
        && recovered.compacted == expected.compacted
        && recovered.marked == expected.marked
        && stamps(recovered).eq(stamps(&expected))
}

pub(crate) fn describe(recovered: &Recovered) -> String {
    let runs: Vec<String> = recovered
        .runs
        .iter()
        .rev()
        .take(3)
        .rev()
        .map(|run| format!("{}..={} {}", run.from, run.to, run.stamp))
        .collect();
    format!(
        "{} runs ending in [{}], compacted {:?}, hard state {:?}",
        recovered.runs.len(),
        runs.join(", "),
        recovered.compacted,
        recovered.hard_state
    )
}

/// The entries of an answer, one after the other.
pub(crate) fn entries(loaded: &Loaded) -> impl Iterator<Item = &Entry> {
    loaded.segments.iter().flat_map(|segment| segment.iter())
}
