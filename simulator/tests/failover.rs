//! How long a fail-over takes, phase by phase, and against Raft's at the same timeouts.

use synod_multipaxos::MultiPaxosConfig;
use synod_raft::RaftConfig;
use synod_simulator::clock::MILLISECOND;
use synod_simulator::failover::{self, DELAY, ELECTION_TIMEOUT, HEARTBEAT_INTERVAL, Phases, Row, fail_over};
use synod_zab::ZabConfig;

fn p50(row: &Row, phase: &str) -> f64 {
    row.phases.iter().find(|spread| spread.phase == phase).expect("every phase has a row").p50_ms
}

#[test]
fn a_seed_gives_the_same_fail_over_every_time() {
    let twice = || fail_over::<ZabConfig>(3, 5).unwrap();
    assert_eq!(twice(), twice());
    assert_ne!(twice(), fail_over::<ZabConfig>(3, 6).unwrap());
}

#[test]
fn a_fail_over_of_zab_takes_at_most_one_and_a_half_times_that_of_raft() {
    for replicas in [3, 5] {
        let rows = failover::rows(replicas, 100).unwrap();
        let [raft, _, zab] = rows.as_slice() else { panic!("three protocols") };
        assert!(p50(zab, "total") <= 1.5 * p50(raft, "total"), "{zab:?} {raft:?}");
    }
}

#[test]
fn detection_waits_for_the_timeout_and_not_for_long() {
    let silent_ms = (ELECTION_TIMEOUT - HEARTBEAT_INTERVAL).as_nanos() as u64 / MILLISECOND;
    for seed in 0..50 {
        for Phases([detection, ..]) in [
            fail_over::<RaftConfig>(3, seed).unwrap(),
            fail_over::<MultiPaxosConfig>(3, seed).unwrap(),
            fail_over::<ZabConfig>(3, seed).unwrap(),
        ] {
            // The last heartbeat may have been one interval old, and one delay under way.
            assert!(detection / MILLISECOND + 1 >= silent_ms, "{detection}");
            assert!(detection <= 2 * ELECTION_TIMEOUT.as_nanos() as u64 + DELAY.1, "{detection}");
        }
    }
}

#[test]
fn the_election_of_zab_holds_the_finalise_wait_and_each_phase_a_round_trip() {
    let finalise_wait = 10 * MILLISECOND;
    for seed in 0..50 {
        let Phases([_, election, discovery, synchronisation, decision]) =
            fail_over::<ZabConfig>(3, seed).unwrap();
        assert!(election >= finalise_wait, "{election}");
        for phase in [discovery, synchronisation, decision] {
            assert!(phase >= 2 * DELAY.0, "{phase}");
        }
    }
}
