//! Runs a single seed of a protocol at a level.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::basicpaxos::{self, Synod};
use crate::elections::{self, Bully, Election, Elections, Heartbeat};
use crate::fastpaxos::FastPaxosAdapter;
use crate::holders::Clocks;
use crate::lease::{self, Leases};
use crate::log::{Bare, Full, LeaseTables, LogAdapter, leases};
use crate::multipaxos::MultiPaxosAdapter;
use crate::observer::{Checked, Violation, violation};
use crate::options::Options;
use crate::raft::RaftAdapter;
use crate::rare::Rare;
use crate::rng::{Chance, Rng};
use crate::scribe::{self, Scribes};
use crate::subject::Subject;
use crate::trace::Trace;
use crate::wal::{self, Bench};
use crate::world::{Outcome, World};
use crate::zab::ZabAdapter;

/// What is run: the bare protocol, or the full replica around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The protocol on its host.
    Protocol,
    /// The replica.
    Replica,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Protocol => "protocol",
            Level::Replica => "replica",
        }
    }
}

/// A protocol that can be simulated.
#[derive(Clone, Copy, Debug)]
pub struct Simulated {
    /// Its name on the command line.
    pub name: &'static str,
    /// At which levels it runs; the first is the default.
    pub levels: &'static [Level],
    /// Runs one seed.
    run: Runner,
    expected: fn(Level) -> Vec<Rare>,
    /// What it is here to break.
    broken: &'static [&'static str],
    /// What is asked of clocks.
    clocks: Clocks,
}

/// Runs one seed: level or clocks, seed, nodes, whether it is traced.
#[derive(Clone, Copy, Debug)]
enum Runner {
    /// What holds whatever clocks do.
    Plain(fn(Level, u64, usize, bool) -> Run),
    /// What rests on clocks.
    Clocked(fn(Clocks, u64, usize, bool) -> Run),
}

/// Every protocol there is an adapter for. A new one is one line here.
pub const SIMULATED: &[Simulated] = &[
    simulated::<RaftAdapter>(),
    simulated::<MultiPaxosAdapter<false>>(),
    simulated::<MultiPaxosAdapter<true>>(),
    simulated::<FastPaxosAdapter>(),
    simulated::<ZabAdapter>(),
    machine("basicpaxos", Runner::Plain(run_basicpaxos), |_| basicpaxos::EXPECTED.to_vec()),
    machine("scribe", Runner::Plain(run_scribe), |_| scribe::EXPECTED.to_vec()),
    machine("paxoslease", Runner::Clocked(run_lease), |_| lease::EXPECTED.to_vec()),
    replicated_leases::<RaftAdapter>("lease-replicated"),
    replicated_leases::<MultiPaxosAdapter<false>>("lease-replicated-multipaxos"),
    replicated_leases::<ZabAdapter>("lease-replicated-zab"),
    machine("bully", Runner::Plain(run_election::<Bully<true>>), |_| elections::EXPECTED.to_vec()),
    failing("bully-plain", Runner::Plain(run_election::<Bully<false>>), &["B1"]),
    failing("heartbeat", Runner::Plain(run_election::<Heartbeat>), &["B1"]),
    machine("wal", Runner::Plain(run_wal), |_| wal::EXPECTED.to_vec()),
];

/// One run.
#[derive(Debug)]
pub struct Run {
    /// How it went.
    pub outcome: Outcome,
    /// What happened, if that was asked for.
    pub trace: Option<Trace>,
    /// What was drawn for it.
    pub options: Options,
    /// The protocol's name.
    pub protocol: &'static str,
    /// The level.
    pub level: Level,
}

impl Simulated {
    /// The protocol of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Simulated> {
        SIMULATED.iter().find(|simulated| simulated.name == name).copied()
    }

    /// Runs one seed. A panic inside counts as a violation named `assertion`.
    #[must_use]
    pub fn run(&self, level: Level, seed: u64, replicas: usize, trace: bool) -> Run {
        match self.run {
            Runner::Plain(run) => run(level, seed, replicas, trace),
            Runner::Clocked(run) => run(self.clocks, seed, replicas, trace),
        }
    }

    /// The same with other clocks; none if it does not rest on clocks.
    #[must_use]
    pub fn with_clocks(self, clocks: Clocks) -> Option<Simulated> {
        matches!(self.run, Runner::Clocked(_)).then_some(Simulated { clocks, ..self })
    }

    /// The invariants that a run is there to break: what it simulates does not keep them, or its clocks are worse than
    /// assumed.
    #[must_use]
    pub fn expected_to_break(&self) -> &'static [&'static str] {
        match self.run {
            Runner::Clocked(_) if self.clocks.drift > Some(1) && !self.clocks.fenced => &["LI1", "LI2"],
            _ => self.broken,
        }
    }

    /// What is asked of clocks.
    #[must_use]
    pub fn clocks(&self) -> Clocks {
        self.clocks
    }

    /// The rare paths that a long sweep must have taken.
    #[must_use]
    pub fn expected(&self, level: Level) -> Vec<Rare> {
        (self.expected)(level)
    }
}

const fn simulated<A: LogAdapter>() -> Simulated {
    Simulated {
        name: A::NAME,
        levels: &[Level::Replica, Level::Protocol],
        run: Runner::Plain(run_log::<A>),
        expected: expected_log::<A>,
        broken: &[],
        clocks: Clocks::AS_DRAWN,
    }
}

/// What has one level.
const fn machine(name: &'static str, run: Runner, expected: fn(Level) -> Vec<Rare>) -> Simulated {
    Simulated { name, levels: &[Level::Protocol], run, expected, broken: &[], clocks: Clocks::AS_DRAWN }
}

/// Replicated leases on a log protocol.
const fn replicated_leases<A: LogAdapter>(name: &'static str) -> Simulated {
    let levels = &[Level::Replica];
    Simulated { levels, ..machine(name, Runner::Clocked(run_leases::<A>), |_| leases::EXPECTED.to_vec()) }
}

/// What is simulated to be seen failing.
const fn failing(name: &'static str, run: Runner, broken: &'static [&'static str]) -> Simulated {
    Simulated { broken, ..machine(name, run, |_| Vec::new()) }
}

fn run_log<A: LogAdapter>(level: Level, seed: u64, replicas: usize, trace: bool) -> Run {
    // Neighbouring seeds must not begin alike, nor the two levels of one seed.
    let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ level as u64);
    let options = Options::draw(seed, replicas, &mut rng, ENGINE_SHARE);
    match level {
        Level::Protocol => {
            let subject = Bare::<A>::new(&options, &mut rng);
            run(A::NAME, level, World::new(options, subject, rng, trace))
        }
        Level::Replica => {
            let subject = Full::<A>::new(&options, &mut rng);
            run(A::NAME, level, World::new(options, subject, rng, trace))
        }
    }
}

fn run_basicpaxos(level: Level, seed: u64, replicas: usize, trace: bool) -> Run {
    let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 14);
    let options = Options::draw(seed, replicas, &mut rng, ENGINE_SHARE);
    let subject = Synod::new(&options, &mut rng);
    run("basicpaxos", level, World::new(options, subject, rng, trace))
}

fn run_scribe(level: Level, seed: u64, replicas: usize, trace: bool) -> Run {
    let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 7);
    let options = Options::draw(seed, replicas, &mut rng, Chance::percent(50));
    let subject = Scribes::new(&options, &mut rng);
    run("scribe", level, World::new(options, subject, rng, trace))
}

fn run_lease(clocks: Clocks, seed: u64, replicas: usize, trace: bool) -> Run {
    let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 11);
    let mut options = Options::draw(seed, replicas, &mut rng, Chance::NEVER);
    options.faults = lease::survivable(options.faults);
    let (assumed_ppm, drift_ppm_max) = clocks.draw(options.node.drift_ppm_max, &mut rng);
    options.node.drift_ppm_max = drift_ppm_max;
    let subject = Leases::new(&options, &mut rng, assumed_ppm, clocks.fenced);
    run("paxoslease", Level::Protocol, World::new(options, subject, rng, trace))
}

fn run_leases<A: LogAdapter>(clocks: Clocks, seed: u64, replicas: usize, trace: bool) -> Run {
    let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 14);
    let mut options = Options::draw(seed, replicas, &mut rng, Chance::NEVER);
    options.faults = lease::survivable(options.faults);
    let (assumed_ppm, drift_ppm_max) = clocks.draw(options.node.drift_ppm_max, &mut rng);
    options.node.drift_ppm_max = drift_ppm_max;
    let subject = LeaseTables::<A>::new(&options, &mut rng, assumed_ppm, clocks.fenced);
    let name = match A::NAME {
        "raft" => "lease-replicated",
        "zab" => "lease-replicated-zab",
        _ => "lease-replicated-multipaxos",
    };
    run(name, Level::Replica, World::new(options, subject, rng, trace))
}

fn run_election<E: Election>(level: Level, seed: u64, replicas: usize, trace: bool) -> Run {
    let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 13);
    let options = Options::draw(seed, replicas, &mut rng, Chance::NEVER);
    let subject = Elections::<E>::new(&options);
    run(E::NAME, level, World::new(options, subject, rng, trace))
}

fn run_wal(level: Level, seed: u64, replicas: usize, trace: bool) -> Run {
    let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 12);
    let options = Options::draw(seed, replicas, &mut rng, Chance::percent(100));
    let mut bench = Bench::new(options, rng, trace);
    let violation = guarded(|| bench.run());
    Run {
        outcome: bench.outcome(violation),
        options: bench.options().clone(),
        trace: bench.take_trace(),
        protocol: "wal",
        level,
    }
}

/// How often the log engine runs beside the model: it costs several times as much.
const ENGINE_SHARE: Chance = Chance(125_000);

fn expected_log<A: LogAdapter>(level: Level) -> Vec<Rare> {
    let clients: &[Rare] = match level {
        Level::Protocol => &[Rare::ReadConfirmed, Rare::ReadFailed, Rare::Refused],
        Level::Replica => crate::log::EXPECTED_OF_REPLICAS,
    };
    A::EXPECTED.iter().chain(clients).copied().collect()
}

fn run<S: Subject>(protocol: &'static str, level: Level, mut world: World<S>) -> Run {
    let violation = guarded(|| world.run());
    let outcome = world.outcome(violation);
    Run { outcome, options: world.options.clone(), trace: world.trace.take(), protocol, level }
}

/// What did not hold; a panic is a violation as well.
fn guarded(run: impl FnOnce() -> Checked) -> Option<Violation> {
    catch_panics();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(checked) => checked.err(),
        Err(_) => Some(violation("assertion", PANIC.take().unwrap_or_default())),
    }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the text of a panic for the report instead of printing it.
fn catch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some(THREAD_NAME) {
                PANIC.set(Some(info.to_string().replace('\n', " ")));
            } else {
                usual(info);
            }
        }));
    });
}

/// Threads of this name run seeds: their panics are violations.
pub const THREAD_NAME: &str = "seeds";
