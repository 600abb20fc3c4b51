//! What is drawn for each seed: which faults, how the network, the disks, the clocks and the clients are.

use std::time::Duration;

use synod_core::{ClockBound, SessionLimits};

use crate::clock::{MICROSECOND, MILLISECOND, SECOND, Time};
use crate::disk::EngineOptions;
use crate::fault::{Fault, FaultSet};
use crate::hash::mix;
use crate::network::Weather;
use crate::rng::{Chance, Rng};
use crate::siege;
use crate::sim_disk::DeviceFaults;

/// Everything about a seed that is fixed before it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// How many nodes.
    pub replicas: usize,
    /// Which faults may happen.
    pub faults: FaultSet,
    /// How the faults were chosen.
    pub profile: Profile,
    /// Aims faults at leaders and at the moment after an election.
    pub adversary: bool,
    /// How long a node waits for a leader before it acts, at least: the scale of all fault durations.
    pub patience: Time,
    /// The network.
    pub weather: Weather,
    /// The disks.
    pub disk: DiskOptions,
    /// The log engine on simulated devices, where it runs.
    pub engine: Option<EngineOptions>,
    /// Every envelope goes through bytes, as it does between machines.
    pub encoded: bool,
    /// For each node: its device may lose what was acknowledged.
    pub damaged: Vec<bool>,
    /// The nodes.
    pub node: NodeOptions,
    /// Mean time between two faults.
    pub fault_interval: Time,
    /// Mean time between two acts of the adversary.
    pub adversary_interval: Time,
    /// The clients.
    pub clients: ClientOptions,
    /// Events after the first leader, before faults end.
    pub events_min: u64,
}

/// How the faults of a seed were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// None.
    Calm,
    /// One kind.
    Single(Fault),
    /// A random set.
    Some,
    /// All kinds.
    All,
}

/// How disks behave.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// The shortest write.
    pub sync_min: Time,
    /// What comes on top, on average.
    pub sync_mean: Time,
    /// A write stands still for up to `stall_max`.
    pub stall: Chance,
    /// How long.
    pub stall_max: Time,
    /// How many units one sync takes at most.
    pub units_max: usize,
    /// The news that units are durable travels by itself and may be overtaken by a crash.
    pub late_report: Chance,
    /// How long a read takes, on average.
    pub read_mean: Time,
    /// One node whose writes take so many times as long: the others decide without it.
    pub slow: Option<(usize, u64)>,
    /// Writes take no time: a node makes them durable in the middle of its flush.
    pub at_once: bool,
}

/// How nodes behave.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    /// A node takes further inputs before it flushes.
    pub gather: Chance,
    /// For how long, on average.
    pub gather_mean: Time,
    /// How late a timer fires, at most.
    pub timer_late_max: Time,
    /// Largest drift of a clock in parts of a million; 0 without the fault.
    pub drift_ppm_max: u64,
    /// A flush is cut short by a crash.
    pub crash_in_flush: Chance,
    /// Durable entries kept at hand, in bytes.
    pub tail_bytes_max: usize,
    /// Messages to one peer that may wait for writes.
    pub held_messages_max: usize,
    /// Entries of crashed nodes that may be applied again, in total: the price of long logs.
    pub replayed_max: u64,
    /// Leaders answer reads under a lease, where the protocol has one, and assume this of clocks.
    pub lease_reads: Option<ClockBound>,
}

/// How clients behave.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// How many.
    pub clients: u32,
    /// How long a client waits between two operations, on average.
    pub think_mean: Time,
    /// How many keys they share.
    pub keys: u32,
    /// How often an operation is a read.
    pub reads: Chance,
    /// How often a read may be stale.
    pub local_reads: Chance,
    /// How often any other read may rest on a lease.
    pub lease_reads: Chance,
    /// How many operations a client may have open.
    pub open_max: u32,
    /// The shortest deadline.
    pub timeout_min: Time,
    /// The longest deadline.
    pub timeout_max: Time,
    /// How often a client turns to another node although its own is there.
    pub roam: Chance,
    /// How often a client has a session of its own.
    pub own_sessions: Chance,
    /// How often a client ends its session and opens another.
    pub renew: Chance,
    /// How often a command is empty or huge.
    pub odd_size: Chance,
    /// The largest command accepted, in bytes.
    pub command_bytes_max: usize,
    /// Proposals that may wait at a node.
    pub queue_entries_max: usize,
    /// Window and cap of the session table.
    pub sessions: SessionLimits,
}

impl Options {
    /// Draws the options of a seed; `engine` is how often the log engine runs beside the model.
    #[must_use]
    pub fn draw(seed: u64, replicas: usize, rng: &mut Rng, engine: Chance) -> Options {
        let (profile, faults) = draw_faults(rng);
        let adversary = !faults.is_empty() && profile_allows_adversary(profile) && rng.coin();
        let patience = rng.log_between(20, 400) * MILLISECOND;
        let events_min = 10_000;
        let weather = draw_weather(faults, patience, rng);
        let disk = draw_disk(seed, patience, replicas, rng);
        let drift_ppm_max = if faults.has(Fault::Drift) { rng.log_between(1_000, 50_000) } else { 0 };
        let crashes = faults.has(Fault::Crash) || faults.has(Fault::CrashRestart);
        let node = NodeOptions {
            gather: rng.pick(&[Chance::NEVER, Chance::percent(10), Chance::percent(50), Chance::percent(95)]),
            gather_mean: rng.log_between(10, 500) * MICROSECOND,
            timer_late_max: rng.pick(&[0, MICROSECOND, MILLISECOND, patience / 10]),
            drift_ppm_max,
            crash_in_flush: if crashes {
                rng.pick(&[Chance::NEVER, Chance(300), Chance(2_000)])
            } else {
                Chance::NEVER
            },
            tail_bytes_max: rng.pick(&[1, 500, 4_000, 1 << 20]),
            held_messages_max: rng.pick(&[4, 64, 1_024, 1_024]),
            replayed_max: 40_000,
            lease_reads: None,
        };
        let clients = draw_clients(patience, adversary, rng);
        let mut options = Options {
            seed,
            replicas,
            faults,
            profile,
            adversary,
            patience,
            weather,
            disk,
            engine: None,
            encoded: seed % 8 == 5,
            damaged: vec![false; replicas],
            node,
            fault_interval: patience * rng.log_between(1, 16),
            adversary_interval: patience * rng.log_between(2, 16) / 2,
            clients,
            events_min,
        };
        // From a stream of its own: the other choices of a seed are the same with and without the engine.
        let mut own = Rng::new(mix(seed, ENGINE_STREAM));
        if own.chance(engine) {
            options.draw_engine(&mut own);
        }
        let mut own = Rng::new(mix(seed, LEASE_STREAM));
        if own.below(3) == 0 {
            options.draw_leases(&mut own);
        }
        options
    }

    /// Leaders answer under a lease, and where several things go wrong, somebody aims at that.
    fn draw_leases(&mut self, rng: &mut Rng) {
        match self.profile {
            Profile::Single(Fault::ClockJump) => return,
            Profile::Calm | Profile::Single(_) => {}
            Profile::Some | Profile::All => {
                // No lease is worth anything where clocks jump.
                let others = self.faults.iter().filter(|fault| *fault != Fault::ClockJump);
                self.faults = others.chain(siege::FAULTS).collect();
                self.adversary = true;
                // Who is to lead next must not lack what was decided meanwhile: there is often little to decide.
                self.clients.reads =
                    rng.pick(&[self.clients.reads, Chance::percent(95), Chance::percent(99)]);
            }
        }
        let guard = Duration::from_nanos(rng.pick(&[0, self.patience / 20]));
        let bound = ClockBound::new(self.node.drift_ppm_max as u32, guard);
        self.node.lease_reads = Some(bound.expect("clocks of the simulation drift by less"));
        self.clients.lease_reads = Chance::percent(rng.pick(&[50, 100]));
    }

    /// The log engine runs: its segments, and what goes wrong with its devices.
    fn draw_engine(&mut self, rng: &mut Rng) {
        let devices: FaultSet = match self.profile {
            Profile::Calm => FaultSet::NONE,
            Profile::Single(_) => {
                let fault = rng.pick(Fault::of_devices());
                self.profile = Profile::Single(fault);
                // Without crashes nobody looks at a device again.
                self.faults = FaultSet::NONE.with(Fault::CrashRestart).with(Fault::UnsyncedLoss);
                FaultSet::NONE.with(fault)
            }
            Profile::Some => {
                Fault::of_devices().iter().copied().filter(|_| rng.chance(Chance::percent(40))).collect()
            }
            Profile::All => Fault::of_devices().iter().copied().collect(),
        };
        self.faults = self.faults.iter().chain(devices.iter()).collect();
        let has = |fault| devices.has(fault);
        let chance = |has: bool, rng: &mut Rng, most: u64| {
            let drawn = Chance(rng.log_between(most / 50, most) as u32);
            if has { drawn } else { Chance::NEVER }
        };
        let crashes = Fault::LIVES.iter().any(|fault| self.faults.has(*fault));
        self.engine = Some(EngineOptions {
            segment_bytes: rng.pick(&[8 << 10, 8 << 10, 16 << 10, 64 << 10]),
            faults: DeviceFaults {
                bit_rot: chance(has(Fault::BitRot), rng, 2_000),
                sync_error: chance(has(Fault::SyncError), rng, 10_000),
                write_error: chance(has(Fault::WriteError), rng, 5_000),
                short: chance(has(Fault::ShortWrite), rng, 200_000),
                torn: has(Fault::TornWrite),
                lost_entry: has(Fault::LostEntry),
            },
            power_loss: [Fault::UnsyncedLoss, Fault::TornWrite, Fault::LostEntry]
                .iter()
                .any(|fault| self.faults.has(*fault)),
            crash_in_recovery: if crashes {
                rng.pick(&[Chance::NEVER, Chance::percent(10), Chance::percent(50)])
            } else {
                Chance::NEVER
            },
        });
        // A log on files blocks; only memory answers in the middle of a flush.
        self.disk.at_once = false;
        if has(Fault::SyncStall) {
            self.disk.stall = Chance(rng.log_between(2_000, 30_000) as u32);
        }
        // Beyond the limit nothing is promised but that nobody goes wrong.
        let minority = (self.replicas - 1) / 2;
        let most = if rng.below(8) == 0 { self.replicas } else { minority };
        let mut nodes: Vec<usize> = (0..self.replicas).collect();
        rng.shuffle(&mut nodes);
        for node in nodes.into_iter().take(most) {
            self.damaged[node] = true;
        }
    }
}

/// Tells the stream of the choices about leases from others.
const LEASE_STREAM: u64 = 0x1EA5E;

/// Tells the stream of the engine's options from others.
const ENGINE_STREAM: u64 = 0x57A1;

/// At least a quarter of the seeds are calm, some have one kind of fault, some a random set, some all.
fn draw_faults(rng: &mut Rng) -> (Profile, FaultSet) {
    match rng.below(100) {
        0..28 => (Profile::Calm, FaultSet::NONE),
        28..48 => {
            let fault = rng.pick(Fault::of_clusters());
            // What a crash may take is no fault by itself.
            let set = if fault == Fault::UnsyncedLoss {
                FaultSet::NONE.with(Fault::CrashRestart)
            } else {
                FaultSet::NONE
            };
            (Profile::Single(fault), set.with(fault))
        }
        48..80 => {
            let all = Fault::of_clusters().iter().copied();
            let set: FaultSet = all.filter(|_| rng.chance(Chance::percent(40))).collect();
            (Profile::Some, set)
        }
        _ => (Profile::All, Fault::of_clusters().iter().copied().collect()),
    }
}

fn profile_allows_adversary(profile: Profile) -> bool {
    !matches!(profile, Profile::Calm)
}

fn draw_weather(faults: FaultSet, patience: Time, rng: &mut Rng) -> Weather {
    let delay_mean = rng.log_between((patience / 2_000).max(1), (patience / 12).max(2));
    let chance = |has: bool, rng: &mut Rng, most: u64| {
        let drawn = Chance(rng.log_between(1_000, most) as u32);
        if has { drawn } else { Chance::NEVER }
    };
    Weather {
        delay_min: delay_mean / 4,
        delay_mean,
        loss: chance(faults.has(Fault::Loss), rng, 300_000),
        duplicate: chance(faults.has(Fault::Duplicate), rng, 300_000),
        replay: chance(faults.has(Fault::Duplicate), rng, 50_000),
        replay_delay_max: patience * 30,
        reorder: faults.has(Fault::Reorder),
        tail: if faults.has(Fault::Reorder) {
            Chance(rng.log_between(1_000, 50_000) as u32)
        } else {
            Chance::NEVER
        },
    }
}

fn draw_disk(seed: u64, patience: Time, replicas: usize, rng: &mut Rng) -> DiskOptions {
    let sync_mean = rng.log_between((patience / 2_000).max(1), (patience / 10).max(2));
    DiskOptions {
        sync_min: sync_mean / 4,
        sync_mean,
        stall: rng.pick(&[Chance::NEVER, Chance::NEVER, Chance(1_000), Chance(10_000)]),
        stall_max: patience * 4,
        units_max: rng.pick(&[1, 2, 8, usize::MAX]),
        late_report: rng.pick(&[Chance::NEVER, Chance::percent(20), Chance::percent(100)]),
        read_mean: rng.log_between(10, 2_000) * MICROSECOND,
        slow: if rng.below(4) == 0 { Some((rng.index(replicas), rng.log_between(4, 64))) } else { None },
        at_once: seed % 8 == 7,
    }
}

fn draw_clients(patience: Time, adversary: bool, rng: &mut Rng) -> ClientOptions {
    let busy = if adversary { rng.log_between(4, 64) } else { rng.log_between(16, 4_096) };
    ClientOptions {
        clients: rng.between(2, 8) as u32,
        think_mean: (patience / busy).max(1),
        keys: rng.pick(&[1, 2, 3, 8]),
        reads: rng.pick(&[
            Chance::percent(10),
            Chance::percent(30),
            Chance::percent(50),
            Chance::percent(80),
        ]),
        local_reads: rng.pick(&[Chance::NEVER, Chance::percent(10)]),
        lease_reads: Chance::NEVER,
        open_max: rng.pick(&[1, 1, 2, 4, 16]),
        timeout_min: patience * rng.pick(&[1, 4, 20]),
        timeout_max: patience * 40 + SECOND,
        // Where somebody aims at leaders, clients look around for another one.
        roam: if adversary {
            rng.pick(&[Chance(5_000), Chance::percent(5), Chance::percent(30), Chance::percent(30)])
        } else {
            rng.pick(&[Chance::NEVER, Chance(5_000), Chance::percent(5), Chance::percent(30)])
        },
        own_sessions: rng.pick(&[Chance::NEVER, Chance::percent(50), Chance::percent(100)]),
        renew: rng.pick(&[Chance::NEVER, Chance(5_000), Chance(30_000)]),
        odd_size: rng.pick(&[Chance::NEVER, Chance(5_000), Chance(50_000)]),
        command_bytes_max: rng.pick(&[1_024, 16 << 10]),
        queue_entries_max: rng.pick(&[2, 8, 64, 4_096]),
        sessions: SessionLimits {
            window: rng.pick(&[1, 2, 8, 64, 1_024]),
            sessions_max: rng.pick(&[2, 3, 5, 8, 4_096, 4_096]),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_seeds_is_calm_and_every_fault_has_seeds_of_its_own() {
        let eighth = Chance(125_000);
        let drawn: Vec<Options> =
            (0..4_000).map(|seed| Options::draw(seed, 3, &mut Rng::new(seed), eighth)).collect();
        let calm = drawn.iter().filter(|options| options.profile == Profile::Calm).count();
        assert!(calm >= drawn.len() / 4, "{calm}");
        assert!(drawn.iter().all(|options| (options.profile == Profile::Calm) <= options.faults.is_empty()));
        for fault in Fault::of_clusters().iter().chain(Fault::of_devices()).copied() {
            assert!(drawn.iter().any(|options| options.profile == Profile::Single(fault)), "{fault}");
        }
        assert!(drawn.iter().any(|options| options.profile == Profile::All));
        let engines = drawn.iter().filter(|options| options.engine.is_some()).count();
        assert!((400..600).contains(&engines), "{engines}");
        assert_eq!(drawn.iter().filter(|options| options.encoded).count(), drawn.len() / 8);
    }

    #[test]
    fn the_engine_changes_nothing_else_of_a_seed_and_damage_stays_below_a_quorum_but_for_a_few() {
        let mut beyond = 0;
        for seed in 0..400 {
            let [without, with] = [Chance::NEVER, Chance::percent(100)]
                .map(|engine| Options::draw(seed, 5, &mut Rng::new(seed), engine));
            assert_eq!((without.patience, without.fault_interval), (with.patience, with.fault_interval));
            assert!(without.engine.is_none() && with.engine.is_some());
            beyond += usize::from(with.damaged.iter().filter(|damaged| **damaged).count() > 2);
        }
        assert!((20..100).contains(&beyond), "{beyond}");
    }
}
