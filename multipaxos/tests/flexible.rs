//! Election and replication quorums of different sizes: who leads on, and who does not campaign.

mod harness;

use harness::{Cluster, TIMEOUT};
use synod_core::{Member, Membership, NodeId, QuorumSystem, Role, SessionLimits};
use synod_multipaxos::MultiPaxos;

/// Replicas 1 to `count`, of which `election` elect and `replication` decide; replica 1 leads.
fn led_by_one(count: u64, election: usize, replication: usize) -> Cluster {
    let ids = 1..=count;
    let members = ids.clone().map(|id| Member { id: NodeId(id), address: String::new() }).collect();
    let quorums = QuorumSystem::Counted { members: ids.map(NodeId).collect(), election, replication };
    let membership = Membership::new(members, quorums, SessionLimits::default()).unwrap();
    let mut cluster = Cluster::of(membership, MultiPaxos::config(), &[]);
    cluster.elect(1);
    cluster
}

fn decides(cluster: &mut Cluster, leader: u64, value: &str) -> bool {
    cluster.propose(leader, &[value]);
    cluster.settle();
    cluster.payloads(leader).last().is_some_and(|last| last == value)
}

/// The ballots that a further while brings: none if the cluster is at rest.
fn campaigns(cluster: &mut Cluster) -> u64 {
    let count = |cluster: &Cluster| {
        cluster.up().iter().map(|id| cluster.paxos(*id).counters().campaigns).sum::<u64>()
    };
    let before = count(cluster);
    cluster.advance(40 * TIMEOUT);
    count(cluster) - before
}

#[test]
fn a_leader_that_hears_enough_to_decide_leads_on_although_it_could_not_be_elected_again() {
    let mut cluster = led_by_one(5, 4, 2);
    for (a, b) in [(1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)] {
        cluster.cut(a, b);
    }
    assert_eq!(campaigns(&mut cluster), 0);
    assert_eq!(cluster.role(1), Role::Leader);
    assert!(decides(&mut cluster, 1, "a"));
}

#[test]
fn who_could_be_elected_and_decide_nothing_does_not_campaign() {
    let mut cluster = led_by_one(4, 2, 3);
    for (a, b) in [(1, 3), (1, 4), (2, 3), (2, 4)] {
        cluster.cut(a, b);
    }
    cluster.advance(4 * TIMEOUT);
    assert_eq!(cluster.leader(), None, "a leader that can decide nothing gives way");
    assert_eq!(campaigns(&mut cluster), 0);
    cluster.heal();
    cluster.advance(20 * TIMEOUT);
    let leader = cluster.leader().expect("somebody leads");
    assert!(decides(&mut cluster, leader, "a"));
}
