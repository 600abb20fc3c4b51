//! Partial partitions that last for ever: who can lead does, and who cannot disturbs nobody.

mod harness;

use harness::{Cluster, TIMEOUT};
use synod_core::Role;

/// Lets only these pairs hear each other.
fn only(cluster: &mut Cluster, links: &[(u64, u64)]) {
    let ids: Vec<u64> = cluster.nodes.keys().copied().collect();
    for a in &ids {
        for b in ids.iter().filter(|b| *b > a) {
            if !links.contains(&(*a, *b)) {
                cluster.cut(*a, *b);
            }
        }
    }
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
fn quorum_loss_a_leader_that_reaches_no_quorum_gives_way_to_the_one_that_does() {
    let mut cluster = Cluster::led_by_one(5);
    assert!(decides(&mut cluster, 1, "before"));
    // Everybody reaches replica 3 alone, the leader too.
    only(&mut cluster, &[(1, 3), (2, 3), (3, 4), (3, 5)]);
    cluster.advance(20 * TIMEOUT);
    assert_eq!(cluster.leader(), Some(3));
    assert!(decides(&mut cluster, 3, "after"));
    assert_eq!(campaigns(&mut cluster), 0, "the others disturb nobody");
    assert_eq!(cluster.payloads(5), ["before", "after"]);
}

#[test]
fn constrained_election_the_only_replica_that_reaches_a_quorum_leads_although_its_log_is_stale() {
    let mut cluster = Cluster::led_by_one(5);
    cluster.isolate(3);
    assert!(decides(&mut cluster, 1, "missed"));
    cluster.advance(TIMEOUT);
    cluster.heal();
    // The leader is gone from everybody, and replica 3, which missed what was decided, is in the middle.
    only(&mut cluster, &[(2, 3), (3, 4), (3, 5)]);
    cluster.advance(20 * TIMEOUT);
    assert_eq!(cluster.leader(), Some(3));
    assert!(decides(&mut cluster, 3, "after"));
    assert_eq!(cluster.payloads(3), ["missed", "after"]);
    assert_eq!(campaigns(&mut cluster), 0);
}

#[test]
fn chain_a_replica_that_does_not_hear_the_leader_does_not_depose_it_and_still_learns() {
    let mut cluster = Cluster::led_by_one(3);
    only(&mut cluster, &[(1, 2), (2, 3)]);
    cluster.advance(20 * TIMEOUT);
    assert_eq!(cluster.leader(), Some(1), "who hears a leader supports nobody else");
    assert!(decides(&mut cluster, 1, "a"));
    assert_eq!(campaigns(&mut cluster), 0);
    assert_eq!(cluster.role(1), Role::Leader);
    assert_eq!(cluster.payloads(3), ["a"], "the end of the chain learns from the middle");
}

#[test]
fn chain_whose_end_led_before_is_led_by_somebody_and_decides() {
    let mut cluster = Cluster::led_by_one(3);
    only(&mut cluster, &[(2, 3)]);
    cluster.advance(20 * TIMEOUT);
    let leader = cluster.leader().expect("two of three elect");
    cluster.heal();
    only(&mut cluster, &[(1, 2), (2, 3)]);
    cluster.advance(20 * TIMEOUT);
    let now = cluster.leader().expect("somebody leads");
    assert!(decides(&mut cluster, now, "a"), "n{leader} led before");
    assert_eq!(campaigns(&mut cluster), 0);
}

#[test]
fn duelling_candidates_part() {
    let mut cluster = Cluster::new(5);
    // Both canvass at once, again and again, if their waits never parted.
    for _ in 0..3 {
        cluster.time_out(1);
        cluster.time_out(2);
    }
    cluster.advance(20 * TIMEOUT);
    let leader = cluster.leader().expect("a duel ends");
    assert!(decides(&mut cluster, leader, "a"));
}
