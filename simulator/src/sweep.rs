//! Runs many seeds on all cores, with a result that does not depend on which core ran which.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::fault::FaultCounts;
use crate::hash::mix;
use crate::rare::{Rare, RareCounts};
use crate::run::{Level, Simulated, THREAD_NAME};
use crate::world::Outcome;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// The protocol.
    pub simulated: Simulated,
    /// The level.
    pub level: Level,
    /// Nodes of each cluster.
    pub replicas: usize,
    /// The first seed.
    pub from: u64,
    /// How long.
    pub length: Length,
    /// Threads.
    pub jobs: usize,
}

/// How long a sweep is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many seeds.
    Seeds(u64),
    /// As many as begin within this time.
    Time(Duration),
    /// As many as begin within this processor time, summed over threads.
    CpuTime(Duration),
}

/// What a sweep amounts to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// Events in all of them.
    pub events: u64,
    /// Processor seconds.
    pub cpu_s: f64,
    /// Simulated time, in seconds.
    pub simulated_s: f64,
    /// Faults that happened.
    pub faults: FaultCounts,
    /// Entries decided.
    pub decided: u64,
    /// Operations of clients that ended.
    pub client_ops: u64,
    /// Rare paths.
    pub rare: RareCounts,
    /// Seeds in which something did not hold: the first few, in order.
    pub violations: Vec<Outcome>,
    /// Seeds in which something did not hold.
    pub violations_count: u64,
    /// The same, by invariant.
    pub violated: BTreeMap<&'static str, u64>,
    /// The hashes of all seeds, folded in order.
    pub hash: u64,
    /// The seed at which the sweep ended early.
    pub stopped_by: Option<u64>,
}

impl Summary {
    /// Events per processor second.
    #[must_use]
    pub fn events_per_s(&self) -> f64 {
        if self.cpu_s > 0.0 { self.events as f64 / self.cpu_s } else { 0.0 }
    }

    /// The rare paths among `expected` that were never taken.
    #[must_use]
    pub fn never(&self, expected: &[Rare]) -> Vec<Rare> {
        expected.iter().copied().filter(|rare| self.rare[*rare] == 0).collect()
    }

    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.simulated_s += outcome.simulated as f64 / 1e9;
        self.faults += outcome.faults;
        self.decided += outcome.tally.decided;
        self.client_ops += outcome.tally.client_ops;
        self.rare += outcome.tally.rare;
        self.hash = mix(self.hash, outcome.hash);
        if let Some(violation) = &outcome.violation {
            self.violations_count += 1;
            *self.violated.entry(violation.invariant).or_default() += 1;
            if self.violations.len() < VIOLATIONS_KEPT || self.stopped_by.is_some() {
                self.violations.push(outcome);
            }
        }
    }
}

/// Violations that are kept in full.
const VIOLATIONS_KEPT: usize = 16;

/// When a sweep ends early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// Never.
    #[default]
    Never,
    /// At the first violation.
    AtAny,
    /// At the first violation of one of these.
    At(Vec<String>),
}

impl Stop {
    fn wants(&self, outcome: &Outcome) -> bool {
        match (self, &outcome.violation) {
            (Stop::Never, _) | (_, None) => false,
            (Stop::AtAny, Some(_)) => true,
            (Stop::At(names), Some(violation)) => names.iter().any(|name| name == violation.invariant),
        }
    }
}

/// Runs the sweep; `progress` is called about once a second. Where it ends early, every seed below the
/// one it ends at has run.
pub fn run(sweep: &Sweep, stop: &Stop, mut progress: impl FnMut(&Summary)) -> Summary {
    let next = AtomicU64::new(0);
    let cpu_ns = AtomicU64::new(0);
    let last = AtomicU64::new(match sweep.length {
        Length::Seeds(seeds) => seeds,
        Length::Time(_) | Length::CpuTime(_) => u64::MAX,
    });
    let started = Instant::now();
    let (results, received) = mpsc::channel::<(u64, Outcome)>();
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        for _ in 0..sweep.jobs.max(1) {
            let results = results.clone();
            let (next, last, cpu_ns) = (&next, &last, &cpu_ns);
            let work = move || {
                let mut clock = CpuClock::start();
                loop {
                    let over = match sweep.length {
                        Length::Seeds(_) => false,
                        Length::Time(time) => started.elapsed() >= time,
                        Length::CpuTime(time) => Duration::from_nanos(cpu_ns.load(Ordering::Relaxed)) >= time,
                    };
                    let offset = next.fetch_add(1, Ordering::Relaxed);
                    if over || offset >= last.load(Ordering::Relaxed) {
                        break;
                    }
                    let run = sweep.simulated.run(sweep.level, sweep.from + offset, sweep.replicas, false);
                    if stop.wants(&run.outcome) {
                        last.fetch_min(offset + 1, Ordering::Relaxed);
                    }
                    cpu_ns.fetch_add(clock.lap(), Ordering::Relaxed);
                    if results.send((offset, run.outcome)).is_err() {
                        break;
                    }
                }
            };
            let named = std::thread::Builder::new().name(THREAD_NAME.to_owned());
            named.spawn_scoped(scope, work).expect("a thread can be started");
        }
        drop(results);
        // Results are added in the order of their seeds, whoever was faster.
        let mut early: BTreeMap<u64, Outcome> = BTreeMap::new();
        let mut wanted = 0;
        let mut told = Instant::now();
        while let Ok((offset, outcome)) = received.recv() {
            early.insert(offset, outcome);
            while let Some(outcome) = early.remove(&wanted) {
                wanted += 1;
                if summary.stopped_by.is_none() {
                    summary.stopped_by = stop.wants(&outcome).then_some(outcome.seed);
                    summary.add(outcome);
                }
            }
            if told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                summary.cpu_s = cpu_ns.load(Ordering::Relaxed) as f64 / 1e9;
                progress(&summary);
            }
        }
    });
    summary.cpu_s = cpu_ns.load(Ordering::Relaxed) as f64 / 1e9;
    summary
}

/// The processor time of this thread where the system tells it, the time on the wall elsewhere.
struct CpuClock {
    last: u64,
    started: Instant,
}

impl CpuClock {
    fn start() -> CpuClock {
        let mut clock = CpuClock { last: 0, started: Instant::now() };
        clock.lap();
        clock
    }

    /// Nanoseconds since the last lap.
    fn lap(&mut self) -> u64 {
        let now = on_cpu().unwrap_or_else(|| self.started.elapsed().as_nanos() as u64);
        now.saturating_sub(std::mem::replace(&mut self.last, now))
    }
}

fn on_cpu() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}
