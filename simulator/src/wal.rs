//! The log engine alone: one engine on one device, given random units, and crashes, damage and restarts without end.
//!
//! No machine, no messages, no time: so a second of it is thousands of recoveries. What is asked of the engine is what
//! the invariants ST1 to ST6 say; [`crate::disk`] holds it against the model. `simulate --protocol wal` sweeps it.

use bytes::Bytes;
use synod_core::{
    ClientId, Entries, Entry, IndexRange, Kind, LogIndex, NodeId, Reign, RequestId, Sequence, Stamp, Write,
    WriteId,
};

use crate::clock::{MILLISECOND, Time};
use crate::disk::Disk;
use crate::fault::{Fault, FaultCounts};
use crate::hash::mix;
use crate::observer::{Checked, Violation};
use crate::options::Options;
use crate::rare::Rare;
use crate::rng::{Chance, Rng};
use crate::subject::Tally;
use crate::trace::{Kind as Shown, Trace, What};
use crate::world::Outcome;

/// One engine and its device; when that refuses, the next one.
pub struct Bench {
    seed: u64,
    damaging: Vec<Fault>,
    damage: Chance,
    crash: Chance,
    loses: bool,
    units_max: usize,
    /// Positions in use.
    places: u64,
    payload_max: u64,
    options: Options,
    rng: Rng,
    disk: Disk,
    unit: u64,
    stamps: u64,
    compacted: u64,
    events: u64,
    hash: u64,
    devices: u64,
    counts: FaultCounts,
    tally: Tally,
    trace: Option<Trace>,
}

impl Bench {
    /// The bench of a seed.
    ///
    /// # Panics
    /// If the options have no engine.
    #[must_use]
    pub fn new(options: Options, mut rng: Rng, trace: bool) -> Bench {
        let calm = options.faults.is_empty();
        let damaging: Vec<Fault> =
            Fault::DESTRUCTIVE.into_iter().filter(|fault| options.faults.has(*fault)).collect();
        let damage = if damaging.is_empty() || rng.coin() {
            Chance::NEVER
        } else {
            Chance(rng.log_between(200, 5_000) as u32)
        };
        let engine = options.engine.expect("a bench runs the engine");
        Bench {
            seed: options.seed,
            damaging,
            damage,
            crash: Chance(if calm { 2_000 } else { rng.log_between(2_000, 100_000) as u32 }),
            loses: options.faults.has(Fault::UnsyncedLoss),
            units_max: options.disk.units_max,
            places: rng.log_between(4, 400),
            payload_max: rng.pick(&[1, 64, 600, 6_000]),
            disk: Disk::of_engine(0, engine, rng.fork()),
            unit: 0,
            stamps: 0,
            compacted: 0,
            events: 0,
            hash: options.seed,
            devices: 1,
            counts: FaultCounts::default(),
            tally: Tally::default(),
            trace: trace.then(Trace::default),
            options,
            rng,
        }
    }

    /// Runs the seed to its end or to the first violation.
    ///
    /// # Errors
    /// ST1 to ST6.
    pub fn run(&mut self) -> Checked {
        self.restart()?;
        while self.events < self.options.events_min {
            self.events += 1;
            if self.rng.chance(self.damage) {
                let kind = self.rng.pick(&self.damaging);
                if self.disk.damage(kind) {
                    self.note(Shown::Fault, || kind.to_string());
                }
            }
            if self.rng.chance(self.crash) {
                self.crash(Fault::CrashRestart)?;
                self.restart()?;
                continue;
            }
            match self.rng.below(16) {
                0..8 => self.issue(),
                8..13 => self.sync()?,
                _ => self.read()?,
            }
        }
        // The last word is had by a quiet device.
        self.disk.calm();
        self.crash(Fault::CrashRestart)?;
        self.restart()
    }

    /// What the run amounts to.
    #[must_use]
    pub fn outcome(&self, violation: Option<Violation>) -> Outcome {
        let mut faults = self.counts;
        faults += self.disk.faults();
        let mut tally = self.tally;
        tally.rare += self.disk.rare();
        Outcome {
            seed: self.seed,
            events: self.events,
            simulated: self.now(),
            hash: self.hash,
            faults,
            tally,
            violation,
        }
    }

    /// The options it runs with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The trace, if one was wanted.
    pub fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    fn now(&self) -> Time {
        self.events * MILLISECOND
    }

    fn note(&mut self, kind: Shown, text: impl FnOnce() -> String) {
        let now = self.now();
        if let Some(trace) = &mut self.trace {
            trace.push(now, self.events, What::Node { node: 0, kind, text: text() });
        }
    }

    fn issue(&mut self) {
        self.unit += 1;
        let unit = self.draw();
        self.note(Shown::Write, || crate::world::describe_write(&unit));
        self.disk.issue(unit);
    }

    fn draw(&mut self) -> Write {
        let mut unit = Write {
            id: WriteId(self.unit),
            forced: true,
            install: None,
            truncate_from: None,
            puts: Vec::new(),
            compact_to: None,
            hard_state: None,
        };
        let place = self.compacted + self.rng.between(1, self.places);
        match self.rng.below(16) {
            0 => unit.truncate_from = Some(LogIndex(place)),
            1 => {
                unit.truncate_from = Some(LogIndex(place));
                unit.puts.push(self.entries(place));
            }
            2..5 => unit.hard_state = Some(self.hard_state()),
            5 => {
                self.compacted += self.rng.below(self.places / 2 + 1);
                unit.compact_to = Some(LogIndex(self.compacted));
            }
            6 => {
                let (first, count) = (self.compacted + 1, self.rng.between(1, 3));
                unit.puts.push(self.entries(first));
                unit.puts.push(self.entries(first + count + 6));
                unit.hard_state = Some(self.hard_state());
            }
            // Mostly at the end, as logs are written.
            7..13 => {
                let end = self.disk.last_index().0.max(self.compacted) + 1;
                unit.puts.push(self.entries(end));
            }
            _ => unit.puts.push(self.entries(place)),
        }
        unit
    }

    fn hard_state(&mut self) -> Bytes {
        self.stamps += 1;
        Bytes::copy_from_slice(&self.stamps.to_le_bytes())
    }

    fn entries(&mut self, first: u64) -> Entries {
        self.stamps += 1;
        let stamp = self.stamps;
        let payloads: Vec<(Bytes, u64)> = (0..self.rng.between(1, 5))
            .map(|_| {
                let len = self.rng.below(self.payload_max) as usize;
                // Zeros are what a log may take for nothing.
                let byte = if self.rng.below(4) == 0 { 0 } else { self.rng.bits() as u8 };
                (Bytes::from(vec![byte; len]), self.rng.below(16))
            })
            .collect();
        Entries::numbered(LogIndex(first), payloads, |index, (payload, kind)| Entry {
            index,
            stamp: Stamp { high: stamp, low: 0 },
            reign: Reign { number: stamp, leader: NodeId(1) },
            kind: match kind {
                0 => Kind::Membership,
                1 => Kind::Noop,
                _ => Kind::Command,
            },
            request: RequestId {
                client: ClientId(stamp),
                sequence: Sequence(index.0),
                first_incomplete: Sequence(1),
            },
            payload,
        })
    }

    fn sync(&mut self) -> Checked {
        let most = if self.units_max == usize::MAX { usize::MAX } else { 1 + self.rng.index(self.units_max) };
        if self.disk.begin_sync(most) == 0 {
            return Ok(());
        }
        match self.disk.end_sync()? {
            Ok(through) => {
                self.tally.decided += 1;
                self.hash = mix(self.hash, through.0);
                self.note(Shown::Durable, || format!("through {through}"));
                Ok(())
            }
            Err(stopped) => {
                self.note(Shown::Fault, || stopped.0);
                self.crash(Fault::Crash)?;
                self.restart()
            }
        }
    }

    fn read(&mut self) -> Checked {
        let from = self.rng.below(self.disk.last_index().0 + 3);
        let range = IndexRange::new(LogIndex(from), LogIndex(from + self.rng.between(1, 40)));
        let bytes_max = self.rng.pick(&[1, 500, 1 << 20]);
        match self.disk.read(range, bytes_max)? {
            Ok(_) => Ok(()),
            Err(stopped) => {
                self.note(Shown::Fault, || stopped.0);
                self.crash(Fault::Crash)?;
                self.restart()
            }
        }
    }

    fn crash(&mut self, kind: Fault) -> Checked {
        if self.rng.coin() {
            self.disk.begin_sync(usize::MAX);
        }
        let crashed = self.disk.crash(0)?;
        self.counts[kind] += 1;
        self.counts[Fault::UnsyncedLoss] += u64::from(crashed.lost > 0 && self.loses);
        self.hash = mix(self.hash, crashed.kept.0);
        self.note(Shown::Crash, || format!("kept through {}, lost {} units", crashed.kept, crashed.lost));
        Ok(())
    }

    fn restart(&mut self) -> Checked {
        self.unit = 0;
        loop {
            match self.disk.recover()? {
                Ok(recovered) => {
                    self.tally.client_ops += 1;
                    self.hash = mix(self.hash, recovered.last_index().0);
                    self.compacted = recovered.compacted.map_or(0, |(through, _)| through.0);
                    self.note(Shown::Start, || format!("{}", recovered.incarnation));
                    return Ok(());
                }
                Err(refused) => {
                    self.note(Shown::Fault, || format!("refused: {}", refused.0));
                    self.counts += self.disk.faults();
                    self.tally.rare += self.disk.rare();
                    self.devices += 1;
                    let engine = self.options.engine.expect("a bench runs the engine");
                    self.disk = Disk::of_engine(0, engine, self.rng.fork());
                }
            }
        }
    }
}

/// The rare paths that a long sweep must have taken.
pub const EXPECTED: &[Rare] = &[
    Rare::TornTail,
    Rare::LogRefused,
    Rare::DamageHarmless,
    Rare::CrashInRecovery,
    Rare::CrashInWrite,
    Rare::StoppedByDevice,
    Rare::SegmentRolled,
    Rare::SegmentRecycled,
];
