//! Partial connectivity: nothing stops, or flaps, that need not.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, TIMEOUT};
use synod_core::{Member, Membership, NodeId, Protocol, QuorumSystem, Role, Route, SessionLimits};
use synod_zab::Zab;

fn decides(cluster: &mut Cluster, leader: u64) {
    let before = cluster.decided(leader);
    cluster.propose(leader, &["more"]);
    cluster.advance(TIMEOUT);
    assert!(cluster.decided(leader) > before);
}

#[test]
fn a_replica_that_was_cut_off_comes_back_without_disturbing_the_leader() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(1);
    cluster.advance(Duration::from_secs(5));
    cluster.heal();
    cluster.advance(6 * TIMEOUT);
    assert_eq!((cluster.leader(), cluster.current(3)), (Some(3), 1));
    assert_eq!(cluster.zab(1).route(), Route::Forward(NodeId(3)));
}

#[test]
fn in_a_chain_the_leader_of_the_middle_goes_on() {
    // 1 - 2 - 3, and 3 leads: 1 hears of it from 2 alone.
    let mut cluster = Cluster::led(3);
    cluster.cut(1, 3);
    cluster.advance(20 * TIMEOUT);
    assert_eq!((cluster.leader(), cluster.current(3)), (Some(3), 1), "it is not disturbed");
    decides(&mut cluster, 3);
    assert_eq!(cluster.role(1), Role::Candidate);
}

#[test]
fn after_a_quorum_loss_the_replica_that_reaches_a_quorum_leads() {
    // Everybody reaches 2 alone; 5 led.
    let mut cluster = Cluster::led(5);
    for a in 1..=5 {
        for b in a + 1..=5 {
            if a != 2 && b != 2 {
                cluster.cut(a, b);
            }
        }
    }
    cluster.advance(20 * TIMEOUT);
    assert_eq!(cluster.leader(), Some(2));
    let epoch = cluster.current(2);
    decides(&mut cluster, 2);
    cluster.advance(20 * TIMEOUT);
    assert_eq!((cluster.leader(), cluster.current(2)), (Some(2), epoch), "it does not flap");
}

#[test]
fn under_a_constrained_election_nobody_leads_until_the_links_heal() {
    // Everybody reaches 2 alone, and 2 lacks what the others have.
    let whole = || Disk::with_history(&[1, 1], 1, 1);
    let disks = [(1, whole()), (2, Disk::with_history(&[1], 1, 1)), (3, whole()), (4, whole()), (5, whole())];
    let mut cluster = Cluster::with(5, Zab::config(), &disks);
    for a in 1..=5 {
        for b in a + 1..=5 {
            if a != 2 && b != 2 {
                cluster.cut(a, b);
            }
        }
    }
    cluster.advance(40 * TIMEOUT);
    assert_eq!(cluster.leader(), None);
    assert_eq!(cluster.zab(2).counters().elections_won, 0, "it stops without trying again and again");
    cluster.heal();
    cluster.advance(6 * TIMEOUT);
    let leader = cluster.leader().expect("the links are back");
    assert_ne!(leader, 2);
    decides(&mut cluster, leader);
}

#[test]
fn a_member_without_a_voice_follows_and_never_leads() {
    let members = (1..=4).map(|id| Member { id: NodeId(id), address: String::new() }).collect();
    let quorums = QuorumSystem::majority((1..=3).map(NodeId));
    let membership = Membership::new(members, quorums, SessionLimits::default()).unwrap();
    let mut cluster = Cluster::of(membership, Zab::config(), &[]);
    assert_eq!(cluster.elect(), 3);
    decides(&mut cluster, 3);
    assert_eq!(cluster.decided(4), cluster.decided(3));
    cluster.crash(3);
    cluster.advance(8 * TIMEOUT);
    assert_eq!(cluster.leader(), Some(2));
}

#[test]
fn a_leader_whose_disk_stands_still_gives_up_and_another_one_leads() {
    let mut cluster = Cluster::led(3);
    cluster.node_mut(3).slow_disk = true;
    cluster.propose(3, &["stuck"]);
    cluster.advance(10 * TIMEOUT);
    let leader = cluster.leader().expect("another one");
    assert_ne!(leader, 3);
    assert!(cluster.zab(3).counters().disk_stalls > 0);
    decides(&mut cluster, leader);
}

#[test]
fn quorums_of_which_two_elections_need_not_meet_are_refused() {
    use synod_core::{Instant, Machine, Recovered, Start};
    let members: Vec<NodeId> = (1..=4).map(NodeId).collect();
    let quorums =
        QuorumSystem::Counted { members: members.iter().copied().collect(), election: 2, replication: 3 };
    let members = members.into_iter().map(|id| Member { id, address: String::new() }).collect();
    let membership = Membership::new(members, quorums, SessionLimits::default()).unwrap();
    let recovered = Recovered::default();
    let start =
        Start { node: NodeId(1), membership, config: Zab::config(), recovered, now: Instant(0), seed: 0 };
    assert!(Zab::open(start).is_err());
}
