//! What went wrong in the leases of others, asked of the replicated table on every log protocol.
//!
//! | incident | what happened there |
//! |---|---|
//! | etcd 15247, 12528 | a leader that was stuck in its disk went on to renew and to revoke after another one was elected |
//! | etcd 11456 | a lock was reported to a waiter whose own lease had ended |
//! | etcd 12291 | leases ended by the time of day, which differs between nodes and is set |
//! | etcd 17132 | what was left of a lease was remembered wrongly over several changes of the leader |

mod tables;

use std::time::Duration;

use synod_core::ProtocolConfig;
use synod_lease::replicated::{CandidateEvent, LeaseReply, NoAnswer};
use synod_multipaxos::MultiPaxos;
use synod_raft::Raft;
use synod_zab::Zab;

use tables::{Cluster, LENGTH};

/// More than any election here takes.
const ELECTION_MAX: Duration = Duration::from_secs(1);

/// etcd 15247, 12528. It stands still, is followed, and does not know it when it goes on.
fn a_leader_that_was_stuck_does_nothing<C: ProtocolConfig>(config: &C) {
    let mut cluster = Cluster::of(config);
    let stuck = cluster.leader().unwrap();
    let lease = cluster.granted(stuck);
    let asked = cluster.keep_alive(stuck, lease);
    cluster.freeze(stuck, true);
    cluster.run_until(|cluster| cluster.leader().is_some());
    let next = cluster.leader().unwrap();
    cluster.kept_alive(next, lease, 2 * LENGTH);

    assert!(cluster.believes_to_lead(stuck));
    cluster.wake(stuck);
    let alive = LeaseReply::Alive { before: 0 };
    assert_ne!(cluster.answer(stuck, asked), Some(Ok(alive)), "it renewed what is not its own any more");
    cluster.kept_alive(next, lease, 2 * LENGTH);
    for node in 0..3 {
        assert_eq!(cluster.leases(node), [lease], "it ended what another leader kept alive");
    }
}

#[test]
fn a_leader_that_was_stuck_and_followed_neither_renews_nor_expires() {
    a_leader_that_was_stuck_does_nothing(&Raft::config());
    a_leader_that_was_stuck_does_nothing(&MultiPaxos::config());
    a_leader_that_was_stuck_does_nothing(&Zab::config());
}

/// The same, and the end of the lease is in its log already when it is cut off.
fn an_end_that_was_not_decided_comes_to_nothing<C: ProtocolConfig>(config: &C) {
    let mut cluster = Cluster::of(config);
    let cut_off = cluster.leader().unwrap();
    let lease = cluster.granted(cut_off);
    cluster.run(LENGTH - Duration::from_millis(20));
    assert_eq!(cluster.ends_written(cut_off), []);
    cluster.cut(cut_off, true);
    cluster.run_until(|cluster| !cluster.ends_written(cut_off).is_empty());
    cluster.run_until(|cluster| cluster.leader() != Some(cut_off));
    cluster.run(ELECTION_MAX);
    let next = cluster.leader().unwrap();
    cluster.kept_alive(next, lease, LENGTH);
    cluster.cut(cut_off, false);
    cluster.kept_alive(next, lease, 2 * LENGTH);
    for node in 0..3 {
        assert_eq!(cluster.leases(node), [lease]);
    }
}

#[test]
fn an_end_that_a_leader_wrote_and_could_not_decide_comes_to_nothing() {
    an_end_that_was_not_decided_comes_to_nothing(&Raft::config());
    an_end_that_was_not_decided_comes_to_nothing(&MultiPaxos::config());
    an_end_that_was_not_decided_comes_to_nothing(&Zab::config());
}

fn disks_stand_still_and_leases_are_renewed<C: ProtocolConfig>(config: &C) {
    let mut cluster = Cluster::of(config);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let lease = cluster.granted(follower);
    let decided = cluster.decided(leader);
    for node in 0..3 {
        cluster.stall(node, true);
    }
    cluster.kept_alive(leader, lease, 3 * LENGTH);
    cluster.kept_alive(follower, lease, 3 * LENGTH);
    assert_eq!((cluster.leader(), cluster.decided(leader)), (Some(leader), decided));
}

#[test]
fn a_renewal_waits_for_no_disk_and_is_no_entry() {
    disks_stand_still_and_leases_are_renewed(&Raft::config());
    disks_stand_still_and_leases_are_renewed(&MultiPaxos::config());
    disks_stand_still_and_leases_are_renewed(&Zab::config());
}

fn no_quorum_of_disks<C: ProtocolConfig>(config: &C) {
    let mut cluster = Cluster::of(config);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let lease = cluster.granted(leader);
    for node in [leader, follower] {
        cluster.stall(node, true);
    }
    let asked = cluster.propose(leader, &tables::campaign());
    cluster.run(2 * LENGTH);
    assert_eq!(cluster.answer(leader, asked), Some(Err(NoAnswer)), "granted without a quorum of disks");
    for node in 0..3 {
        assert_eq!(cluster.leases(node), [lease], "ended without a quorum of disks");
    }
    for node in [leader, follower] {
        cluster.stall(node, false);
    }
    cluster.run(LENGTH + ELECTION_MAX);
    for node in 0..3 {
        assert!(!cluster.leases(node).contains(&lease));
    }
}

#[test]
fn a_leader_whose_disk_stands_still_with_that_of_a_follower_grants_nothing_and_ends_nothing() {
    no_quorum_of_disks(&Raft::config());
    no_quorum_of_disks(&MultiPaxos::config());
    no_quorum_of_disks(&Zab::config());
}

/// Others have a quorum of disks: with this leader or with another, everything goes on.
fn the_disk_of_the_leader_stands_still<C: ProtocolConfig>(config: &C) {
    let mut cluster = Cluster::of(config);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let lease = cluster.granted(follower);
    cluster.stall(leader, true);
    let asked = cluster.propose(follower, &tables::campaign());
    cluster.run(ELECTION_MAX);
    let Some(Ok(LeaseReply::Granted { lease: second, before: 1 })) = cluster.answer(follower, asked) else {
        panic!("{:?} instead of a grant", cluster.answer(follower, asked));
    };
    cluster.kept_alive(follower, lease, 2 * LENGTH);
    assert_eq!(cluster.leases(follower), [lease], "{second} was kept alive by nobody");
}

#[test]
fn a_leader_whose_disk_alone_stands_still_stops_nobody() {
    the_disk_of_the_leader_stands_still(&Raft::config());
    the_disk_of_the_leader_stands_still(&MultiPaxos::config());
    the_disk_of_the_leader_stands_still(&Zab::config());
}

/// etcd 11456. The waiter stands still while its turn comes and its own lease ends. When it goes on it sees that it is first:
/// the end of its lease cannot be decided yet.
fn a_waiter_sleeps_through_its_turn<C: ProtocolConfig>(config: &C) {
    let mut cluster = Cluster::of(config);
    let leader = cluster.leader().unwrap();
    let (waiter, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.campaign(leader);
    cluster.run_until(|cluster| !cluster.told(leader).is_empty());
    cluster.campaign(waiter);
    cluster.run_until(|cluster| cluster.lease_of(waiter).is_some());
    let missed = cluster.lease_of(waiter).unwrap();
    cluster.run(LENGTH);

    cluster.freeze(waiter, true);
    cluster.resign(leader);
    cluster.run_until(|cluster| cluster.leases(leader) == [missed]);
    cluster.run(LENGTH / 2);
    for node in [leader, third] {
        cluster.stall(node, true);
    }
    cluster.run_until(|cluster| cluster.ends_written(leader) == [missed]);
    cluster.freeze(waiter, false);
    cluster.run(LENGTH / 4);
    assert_eq!(cluster.seen(waiter).last(), Some(&missed), "its own lease holds the name");
    assert_eq!(cluster.told(waiter), [], "and has ended");

    for node in [leader, third] {
        cluster.stall(node, false);
    }
    cluster.run_until(|cluster| !cluster.told(waiter).is_empty());
    let CandidateEvent::Held { token, .. } = cluster.told(waiter)[0] else {
        panic!("it lost what it never had")
    };
    assert!(token > missed.token(), "it holds the name under another lease");
}

#[test]
fn success_is_never_reported_after_the_waiters_own_lease_has_ended() {
    a_waiter_sleeps_through_its_turn(&Raft::config());
    a_waiter_sleeps_through_its_turn(&MultiPaxos::config());
    a_waiter_sleeps_through_its_turn(&Zab::config());
}

/// etcd 12291, 17132. Nobody keeps the lease alive, and leaders come and go.
fn leaders_come_and_go<C: ProtocolConfig>(config: &C, ahead: [Duration; 3]) {
    let mut cluster = Cluster::with_clocks(config, ahead);
    let leader = cluster.leader().unwrap();
    let lease = cluster.granted(leader);
    for _ in 0..4 {
        let before = cluster.leader().unwrap();
        cluster.freeze(before, true);
        cluster.run_until(|cluster| cluster.leader().is_some());
        cluster.run(LENGTH - Duration::from_millis(20));
        let leader = cluster.leader().unwrap();
        assert_eq!(cluster.leases(leader), [lease], "it ended before its full length under this leader");
        cluster.freeze(before, false);
        // Whoever took over decides the end now; the next one is elected before it can.
        cluster.run(Duration::from_millis(5));
    }
    cluster.run(LENGTH + ELECTION_MAX);
    for node in 0..3 {
        assert_eq!(cluster.leases(node), [], "it outlived its full length under the last leader");
    }
}

#[test]
fn a_lease_has_its_full_length_under_every_leader_and_no_more_under_the_last() {
    leaders_come_and_go(&Raft::config(), [Duration::ZERO; 3]);
    leaders_come_and_go(&MultiPaxos::config(), [Duration::ZERO; 3]);
    leaders_come_and_go(&Zab::config(), [Duration::ZERO; 3]);
}

#[test]
fn what_the_clocks_of_leaders_show_does_not_matter() {
    let hour = Duration::from_secs(3_600);
    leaders_come_and_go(&Raft::config(), [Duration::ZERO, hour, 2 * hour]);
    leaders_come_and_go(&MultiPaxos::config(), [2 * hour, hour, Duration::ZERO]);
    leaders_come_and_go(&Zab::config(), [hour, Duration::ZERO, 2 * hour]);
}
