//! What a log of slots, reads and restarts add to the paper.

use std::time::Duration;

use synod_core::{IndexRange, LogEvent, LogIndex, NodeId, Protocol, ReadId, Role, Route};
use synod_multipaxos::{FastPaxos, Message};

use super::harness::{Cluster, ballot, value, voted};

#[test]
fn proposals_of_one_replica_take_slots_of_their_own_and_are_decided_together() {
    let mut cluster = Cluster::new(4).open_to_all();
    cluster.propose(3, &["a", "b", "c"]);
    assert_eq!(cluster.rounds_until(3), 2);
    assert_eq!(cluster.values(1), ["a", "b", "c"]);
}

#[test]
fn proposers_that_know_of_each_others_slots_do_not_collide() {
    let mut cluster = Cluster::new(4).open_to_all();
    cluster.propose(2, &["a"]);
    cluster.round();
    cluster.propose(3, &["b"]);
    assert_eq!(cluster.rounds_until(2), 2);
    assert_eq!(cluster.paxos(1).counters().collisions, 0);
}

#[test]
fn commands_go_anywhere_and_reads_to_the_leader() {
    let cluster = Cluster::new(4).open_to_all();
    assert_eq!(cluster.paxos(3).route(), Route::Here);
    assert_eq!(cluster.paxos(3).read_route(), Route::Forward(NodeId(1)));
    assert_eq!(cluster.paxos(1).read_route(), Route::Here);
}

#[test]
fn a_read_waits_for_what_others_decided_without_its_leader() {
    let mut cluster = Cluster::new(4).open_to_all();
    cluster.propose(2, &["a"]);
    // Everybody but the leader hears, and decides.
    cluster.lose(|letter| letter.to == 1);
    cluster.round();
    cluster.lose(|letter| letter.to == 1);
    cluster.round();
    assert_eq!((cluster.decided(1), cluster.decided(2)), (0, 1));
    cluster.events(1);
    cluster.read(1, 7);
    cluster.run(2);
    let answered = |events: Vec<LogEvent>| {
        events.into_iter().find_map(|event| match event {
            LogEvent::ReadReady { id: ReadId(7), index } => Some(index),
            _ => None,
        })
    };
    // Its followers have voted in slot 1; it has not that far yet, and learns.
    cluster.pass(Duration::from_millis(80));
    assert_eq!(answered(cluster.events(1)), Some(LogIndex(1)));
    assert_eq!(cluster.decided(1), 1);
}

#[test]
fn a_leader_that_hears_votes_of_a_higher_ballot_leads_no_more() {
    let mut cluster = Cluster::new(4).open_to_all();
    cluster.receive(2, 1, voted(ballot(2, 2), 0, vec![value(ballot(2, 2), 1, 1, "a")]));
    assert_eq!(cluster.role(1), Role::Follower);
    assert_eq!(cluster.paxos(1).counters().preempted, 1);
}

#[test]
fn a_collision_rate_above_the_bound_makes_the_leader_order_alone_for_a_while() {
    let config = FastPaxos::config().fall_back_window(4).fall_back_percent(40);
    let again_after = Duration::from_secs(1);
    let members = synod_core::Membership::of_ids(1..=4).unwrap();
    let mut cluster = Cluster::with(members, config.fast_again_after(again_after)).open_to_all();
    let mut slots = 0;
    while cluster.paxos(1).counters().fell_back == 0 {
        slots += 1;
        assert!(slots < 20, "it never falls back");
        cluster.propose(1, &["a"]);
        cluster.propose(4, &["b"]);
        cluster.network.sort_by_key(|letter| {
            let low = letter.to <= 2;
            (low && letter.from == 4) || (!low && letter.from == 1)
        });
        cluster.run(8);
    }
    cluster.run(8);
    assert!(
        (1..=4).all(|id| !cluster.paxos(id).is_open()),
        "the ballot is over, and with it its fast rounds"
    );
    assert_eq!(cluster.paxos(3).route(), Route::Forward(NodeId(1)));
    assert_eq!(cluster.paxos(1).status().reign.number, 2);
    // The leader hears everybody until the pause is over.
    cluster.pass(again_after);
    assert!((1..=4).all(|id| cluster.paxos(id).is_open()), "open again");
    assert_eq!(cluster.paxos(1).counters().opened, 2);
}

#[test]
fn a_new_leader_takes_over_what_the_old_one_had_decided_in_fast_rounds() {
    let mut cluster = Cluster::new(5).open_to_all();
    cluster.propose(2, &["a", "b"]);
    cluster.run(3);
    cluster.restart(1);
    cluster.elect(3);
    cluster.run(10);
    cluster.propose(5, &["c"]);
    cluster.pass(Duration::from_millis(200));
    for id in 1..=5 {
        assert_eq!(cluster.values(id), ["a", "b", "c"], "replica {id}");
    }
}

#[test]
fn a_slot_that_only_a_crashed_proposer_used_becomes_a_noop() {
    let mut cluster = Cluster::new(4).open_to_all();
    // Its disk is writing while what it suggests travels; the first of the two values reaches nobody.
    cluster.slow_disk(2, true);
    cluster.propose(2, &["a", "b"]);
    let mut suggested = cluster.network.clone();
    for letter in &mut suggested {
        if let Message::Suggest(suggest) = &mut letter.message {
            let second = IndexRange::new(LogIndex(2), LogIndex(3));
            suggest.values.segments = vec![suggest.values.segments[0].slice(second)];
        }
    }
    cluster.restart(2);
    cluster.slow_disk(2, false);
    cluster.network = suggested;
    cluster.round();
    cluster.pass(Duration::from_millis(60));
    assert_eq!(cluster.values(3), ["noop", "b"]);
}
