//! The simulator as a whole: what a seed means, and that code which is right passes.

use std::thread;

use synod_simulator::fault::{Fault, FaultCounts};
use synod_simulator::run::{Level, SIMULATED, Simulated};
use synod_simulator::sweep::{self, Length, Stop, Sweep};

fn raft() -> Simulated {
    Simulated::named("raft").expect("raft is simulated")
}

fn sweep(level: Level, replicas: usize, from: u64, seeds: u64, jobs: usize) -> sweep::Summary {
    let sweep = Sweep { simulated: raft(), level, replicas, from, length: Length::Seeds(seeds), jobs };
    sweep::run(&sweep, &Stop::Never, |_| {})
}

#[test]
fn the_same_seed_gives_the_same_trace_whatever_else_runs() {
    for simulated in SIMULATED {
        for level in simulated.levels {
            let (a, b) = thread::scope(|scope| {
                let run = || simulated.run(*level, 17, 3, false).outcome;
                let other = scope.spawn(run);
                (run(), other.join().unwrap())
            });
            assert_eq!((a.hash, a.events, a.simulated), (b.hash, b.events, b.simulated));
            let traced = simulated.run(*level, 17, 3, true);
            assert_eq!(traced.outcome.hash, a.hash, "a run that is read along is the same run");
            assert!(traced.trace.unwrap().lines().count() > 1_000);
        }
    }
}

#[test]
fn different_seeds_and_levels_give_different_traces() {
    let hash = |level, seed| raft().run(level, seed, 3, false).outcome.hash;
    assert_ne!(hash(Level::Replica, 1), hash(Level::Replica, 2));
    assert_ne!(hash(Level::Replica, 1), hash(Level::Protocol, 1));
}

#[test]
fn a_sweep_amounts_to_the_same_on_one_core_and_on_several() {
    let one = sweep(Level::Protocol, 3, 100, 12, 1);
    let several = sweep(Level::Protocol, 3, 100, 12, 3);
    assert_eq!((one.hash, one.events, one.faults), (several.hash, several.events, several.faults));
    assert_eq!(one.seeds, 12);
}

#[test]
fn raft_passes_a_few_hundred_seeds_at_three_and_five_replicas_and_every_fault_happens() {
    let mut faults = FaultCounts::default();
    for (level, replicas, seeds) in
        [(Level::Protocol, 3, 60), (Level::Replica, 3, 100), (Level::Replica, 5, 30), (Level::Replica, 1, 10)]
    {
        let summary = sweep(level, replicas, 0, seeds, 2);
        let told: Vec<String> = summary
            .violations
            .iter()
            .map(|outcome| format!("{}: {:?}", outcome.seed, outcome.violation))
            .collect();
        assert!(told.is_empty(), "{level:?}, {replicas} replicas: {told:?}");
        assert!(summary.events >= seeds * 10_000);
        faults += summary.faults;
    }
    for fault in Fault::of_clusters() {
        assert!(faults[*fault] > 0, "{fault} never happened");
    }
}

#[test]
fn damage_that_once_made_a_log_shorter_without_a_word_is_refused_or_harmless() {
    let simulated = Simulated::named("wal").expect("the log engine is simulated");
    // A segment whose header and the seal before it are lost (found by seed 3153); an old segment in the place of the
    // newest (3535, 28997).
    for seed in [3153, 3535, 28997] {
        let outcome = simulated.run(Level::Protocol, seed, 3, false).outcome;
        assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
    }
}

#[test]
fn a_file_without_a_name_that_a_power_failure_brings_back_is_whole() {
    // Killed between two changes of the folder, and without power before it was synced: the device had forgotten it.
    let simulated = Simulated::named("wal").expect("the log engine is simulated");
    let outcome = simulated.run(Level::Protocol, 26385, 3, false).outcome;
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

#[test]
fn a_snapshot_that_takes_the_place_of_a_damaged_one_of_its_name_is_whole() {
    // A peer sends back what this node took itself and lost to damage.
    let outcome =
        Simulated::named("flexpaxos").expect("simulated").run(Level::Replica, 1689, 3, false).outcome;
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

#[test]
fn an_expiry_of_an_earlier_reign_ends_no_lease_that_was_kept_alive_since() {
    // Paxos may decide it much later, and the reign between may have decided nothing.
    let simulated = Simulated::named("lease-replicated-multipaxos").expect("simulated");
    let outcome = simulated.run(Level::Replica, 3795, 3, false).outcome;
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

#[test]
fn the_log_engine_alone_passes_two_hundred_seeds_and_every_fault_of_a_device_happens() {
    let simulated = Simulated::named("wal").expect("the log engine is simulated");
    let sweep = Sweep {
        simulated,
        level: Level::Protocol,
        replicas: 3,
        from: 0,
        length: Length::Seeds(200),
        jobs: 2,
    };
    let summary = sweep::run(&sweep, &Stop::Never, |_| {});
    let told: Vec<_> = summary.violations.iter().map(|outcome| (outcome.seed, &outcome.violation)).collect();
    assert!(told.is_empty(), "{told:?}");
    // A sync that stands still needs a clock.
    for fault in Fault::of_devices().iter().filter(|fault| **fault != Fault::SyncStall) {
        assert!(summary.faults[*fault] > 0, "{fault} never happened");
    }
}

/// An empty batch cut off behind its header; old sectors behind the log after a sync that failed, twice; a log whose
/// making was cut short.
#[test]
fn seeds_that_once_refused_an_undamaged_log_pass() {
    let wal = Simulated::named("wal").expect("the log engine is simulated");
    for seed in [146, 508, 608, 927] {
        let run = wal.run(Level::Protocol, seed, 3, false);
        assert!(run.outcome.violation.is_none(), "{seed}: {:?}", run.outcome.violation);
    }
}
