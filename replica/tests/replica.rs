//! What a replica promises its clients and its protocol, on a toy protocol.

mod fixture;

use std::time::Duration;

use bytes::Bytes;
use fixture::{Cluster, SECOND, put};
use synod_core::{Membership, NodeId, QuorumSystem, SessionLimits};
use synod_replica::{
    ClientCall, Consistency, Order, ProposeError, QueryError, ReplicaConfig, SessionKey, Token,
};

const OWN: SessionKey = SessionKey::OWN;

fn is_ok(outcome: Option<&Result<Bytes, ProposeError>>) -> bool {
    matches!(outcome, Some(Ok(_)))
}

#[test]
fn a_command_is_answered_only_once_it_is_durable() {
    let mut cluster = Cluster::of(1);
    cluster.propose(1, OWN, 1, put("k", "v"));
    assert!(cluster.persist_one(1), "the session opens first");
    assert_eq!(cluster.outcome(1, 1), None);
    assert!(cluster.persist_one(1), "then the command is written");
    assert!(is_ok(cluster.outcome(1, 1)));
    assert_eq!(cluster.value(1, "k").unwrap(), "v");
}

#[test]
fn a_held_message_leaves_after_its_write_and_never_after_a_crash_before_it() {
    let mut cluster = Cluster::of(2);
    cluster.propose(1, OWN, 1, put("k", "v"));
    assert!(cluster.wire.is_empty(), "the copy waits for the leader's disk");
    cluster.crash_and_restart(NodeId(1));
    cluster.settle();
    assert_eq!(cluster.entries_of(2), 0);
    cluster.propose(1, OWN, 2, put("k", "w"));
    assert!(cluster.persist_one(1));
    assert!(!cluster.wire.is_empty(), "the copy leaves with durability");
    cluster.settle();
    assert_eq!(cluster.value(2, "k").unwrap(), "w");
}

#[test]
fn a_follower_forwards_and_answers_its_client_once() {
    let mut cluster = Cluster::of(3);
    cluster.propose(2, OWN, 1, put("k", "v"));
    cluster.settle();
    assert!(is_ok(cluster.outcome(2, 1)));
    for id in 1..=3 {
        assert_eq!(cluster.value(id, "k").unwrap(), "v");
    }
    assert_eq!(cluster.node(2).replica.counters().forwarded_out, 2, "the opening and the command");
}

#[test]
fn a_command_forwarded_again_after_a_lost_answer_is_applied_once() {
    let mut cluster = Cluster::of(2);
    cluster.propose(2, OWN, 1, put("warm", "up"));
    cluster.settle();
    cluster.cut = vec![(NodeId(1), NodeId(2))];
    cluster.propose(2, OWN, 2, put("k", "v"));
    cluster.settle();
    assert_eq!(cluster.outcome(2, 2), None);
    cluster.cut.clear();
    cluster.advance(Duration::from_millis(150));
    cluster.settle();
    assert!(is_ok(cluster.outcome(2, 2)));
    let counters = cluster.node(1).replica.counters();
    assert_eq!((counters.applied, counters.duplicates), (2, 1));
}

#[test]
fn proposals_wait_for_a_leader_and_are_handed_back_when_none_comes() {
    let mut cluster = Cluster::of(2);
    cluster.appoint(0);
    cluster.propose(1, OWN, 1, put("k", "v"));
    cluster.settle();
    assert_eq!(cluster.outcome(1, 1), None);
    cluster.advance(11 * SECOND);
    assert_eq!(cluster.outcome(1, 1), Some(&Err(ProposeError::TimedOut { payload: put("k", "v") })));
    cluster.appoint(1);
    cluster.propose(1, OWN, 2, put("k", "w"));
    cluster.settle();
    assert!(is_ok(cluster.outcome(1, 2)));
    assert_eq!(cluster.entries_of(1), 2, "the opening and the second command: the first was never proposed");
}

#[test]
fn a_proposal_under_way_at_its_deadline_has_an_unknown_outcome() {
    let mut cluster = Cluster::of(2);
    cluster.propose(2, OWN, 1, put("warm", "up"));
    cluster.settle();
    cluster.cut = vec![(NodeId(2), NodeId(1))];
    cluster.propose(2, OWN, 2, put("k", "v"));
    cluster.advance(11 * SECOND);
    assert_eq!(cluster.outcome(2, 2), Some(&Err(ProposeError::Unknown)));
}

#[test]
fn an_unknown_command_that_arrives_late_is_not_applied_after_its_client_went_on() {
    let mut cluster = Cluster::of(2);
    cluster.propose(2, OWN, 1, put("k", "zero"));
    cluster.settle();
    cluster.propose(2, OWN, 2, put("k", "late"));
    let late: Vec<_> = cluster.wire.drain(..).collect();
    cluster.advance(11 * SECOND);
    cluster.wire.clear();
    assert_eq!(cluster.outcome(2, 2), Some(&Err(ProposeError::Unknown)));
    cluster.propose(2, OWN, 3, put("k", "new"));
    cluster.settle();
    cluster.wire.extend(late);
    cluster.settle();
    assert_eq!(cluster.value(1, "k").unwrap(), "new");
}

#[test]
fn commands_under_way_are_proposed_again_to_the_next_leader_and_applied_once() {
    let mut cluster = Cluster::of(3);
    cluster.propose(3, OWN, 1, put("warm", "up"));
    cluster.settle();
    cluster.propose(3, OWN, 2, put("k", "v"));
    // The old leader decides and copies the command; its answer is lost with it.
    assert!(cluster.deliver_one());
    assert!(cluster.persist_one(1));
    cluster.cut = vec![(NodeId(1), NodeId(3))];
    cluster.wire.retain(|(to, _)| *to == NodeId(2));
    cluster.settle();
    cluster.appoint(2);
    cluster.settle();
    assert!(is_ok(cluster.outcome(3, 2)));
    assert_eq!(cluster.node(2).replica.counters().duplicates, 1);
}

#[test]
fn an_ordered_session_keeps_its_order_when_commands_overtake_each_other() {
    let mut cluster = Cluster::of(2);
    let deadline = cluster.now + 10 * SECOND;
    let session = SessionKey(7);
    cluster.call(2, ClientCall::OpenSession { session, token: Token(1), order: Order::Ordered, deadline });
    cluster.settle();
    assert!(cluster.node(2).opened[&Token(1)].is_ok());
    cluster.propose(2, session, 2, put("k", "first"));
    let first: Vec<_> = cluster.wire.drain(..).collect();
    cluster.propose(2, session, 3, put("k", "second"));
    cluster.settle();
    assert_eq!(cluster.outcome(2, 3), None, "the second was decided first and not applied");
    assert_eq!(cluster.node(1).replica.counters().out_of_order, 1);
    cluster.wire.extend(first);
    cluster.settle();
    assert!(is_ok(cluster.outcome(2, 2)) && is_ok(cluster.outcome(2, 3)));
    assert_eq!(cluster.value(1, "k").unwrap(), "second");
    assert_eq!(cluster.node(1).replica.counters().applied, 2);
}

#[test]
fn a_session_goes_on_through_another_node_and_repeats_its_open_command_harmlessly() {
    let mut cluster = Cluster::of(3);
    let deadline = cluster.now + 10 * SECOND;
    let (session, order) = (SessionKey(7), Order::Unordered);
    cluster.call(1, ClientCall::OpenSession { session, token: Token(1), order, deadline });
    cluster.settle();
    let client = cluster.node(1).opened[&Token(1)].clone().unwrap();
    cluster.propose(1, session, 2, put("k", "v"));
    cluster.settle();
    // The client did not hear the answer: its node is gone. It repeats number 1 through node 2.
    let next = synod_core::Sequence(1);
    cluster.call(2, ClientCall::AttachSession { session: SessionKey(1), client, order, next });
    cluster.propose(2, SessionKey(1), 1, put("k", "v"));
    cluster.settle();
    assert!(is_ok(cluster.outcome(2, 1)));
    assert_eq!(cluster.node(3).replica.counters().applied, 1);
    assert_eq!(cluster.node(3).replica.counters().duplicates, 1);
}

fn small_sessions(window: u32, sessions_max: u32) -> Cluster {
    let members = Membership::of_ids([1, 2]).unwrap().members().to_vec();
    let quorums = QuorumSystem::majority([NodeId(1), NodeId(2)]);
    let membership = Membership::new(members, quorums, SessionLimits { window, sessions_max }).unwrap();
    Cluster::new(2, membership, ReplicaConfig::default())
}

#[test]
fn an_evicted_session_is_told_and_the_own_session_is_opened_again() {
    let mut cluster = small_sessions(4, 1);
    cluster.propose(1, OWN, 1, put("a", "1"));
    cluster.settle();
    cluster.propose(2, OWN, 1, put("b", "2"));
    cluster.settle();
    // Node 2's session evicted node 1's: the command under way has an unknown outcome, the next one goes on.
    cluster.propose(1, OWN, 2, put("c", "3"));
    cluster.settle();
    assert_eq!(cluster.outcome(1, 2), Some(&Err(ProposeError::SessionExpired)));
    cluster.propose(1, OWN, 3, put("d", "4"));
    cluster.settle();
    assert!(is_ok(cluster.outcome(1, 3)));
    assert_eq!(cluster.value(1, "c"), None);
}

#[test]
fn more_proposals_than_the_window_wait_and_all_are_applied() {
    let mut cluster = small_sessions(4, 8);
    for token in 1..=50 {
        cluster.propose(2, OWN, token, put("k", "v"));
    }
    cluster.settle();
    assert!((1..=50).all(|token| is_ok(cluster.outcome(2, token))));
    assert_eq!(cluster.node(1).replica.counters().beyond_window, 0);
    assert_eq!(cluster.node(1).replica.counters().applied, 50);
}

#[test]
fn a_full_queue_a_large_command_and_a_stopping_node_hand_the_command_back() {
    let config = ReplicaConfig { queue_entries_max: 2, command_bytes_max: 100, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    cluster.appoint(0);
    for token in 1..=3 {
        cluster.propose(1, OWN, token, put("k", "v"));
    }
    assert_eq!(cluster.outcome(1, 3), Some(&Err(ProposeError::Full { payload: put("k", "v") })));
    let large = Bytes::from(vec![0; 101]);
    cluster.propose(1, OWN, 4, large.clone());
    assert_eq!(cluster.outcome(1, 4), Some(&Err(ProposeError::TooLarge { payload: large })));
    cluster.call(1, ClientCall::Stop);
    cluster.propose(1, OWN, 5, put("k", "v"));
    assert_eq!(cluster.outcome(1, 5), Some(&Err(ProposeError::Stopping { payload: put("k", "v") })));
    cluster.appoint(1);
    cluster.settle();
    assert!(is_ok(cluster.outcome(1, 1)) && is_ok(cluster.outcome(1, 2)), "calls taken before go on");
}

#[test]
fn reads_at_a_follower_show_what_the_leader_acknowledged() {
    let mut cluster = Cluster::of(2);
    cluster.propose(1, OWN, 1, put("k", "v"));
    cluster.cut = vec![(NodeId(1), NodeId(2))];
    cluster.settle();
    assert!(is_ok(cluster.outcome(1, 1)));
    cluster.cut.clear();
    cluster.read(2, 1, "k", Consistency::Local);
    cluster.read(2, 2, "k", Consistency::Linearizable);
    cluster.settle();
    assert_eq!(cluster.node(2).read[&Token(1)].as_ref().unwrap(), &Bytes::from_static(&[0]));
    assert_eq!(cluster.node(2).read[&Token(2)].as_ref().unwrap(), &Bytes::from_static(b"\x01v"));
}

#[test]
fn a_forwarded_read_whose_answer_is_lost_is_sent_again_and_times_out_at_last() {
    let mut cluster = Cluster::of(2);
    cluster.cut = vec![(NodeId(1), NodeId(2))];
    cluster.read(2, 1, "k", Consistency::Linearizable);
    cluster.settle();
    cluster.cut.clear();
    cluster.advance(Duration::from_millis(150));
    cluster.settle();
    assert!(cluster.node(2).read[&Token(1)].is_ok());
    cluster.cut = vec![(NodeId(1), NodeId(2))];
    cluster.read(2, 2, "k", Consistency::Linearizable);
    cluster.settle();
    cluster.advance(11 * SECOND);
    assert_eq!(cluster.node(2).read[&Token(2)], Err(QueryError::TimedOut));
    assert!(cluster.node(2).replica.is_idle());
}

#[test]
fn a_restarted_replica_rebuilds_its_state_from_the_log_and_is_a_new_life() {
    let config = ReplicaConfig { tail_bytes_max: 300, apply_entries_max: 3, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    for token in 1..=40 {
        cluster.propose(1, OWN, token, put("k", "v"));
    }
    cluster.settle();
    let digest = cluster.node(1).replica.state_machine().digest();
    cluster.crash_and_restart(NodeId(1));
    assert_eq!(cluster.node(1).replica.status().incarnation.0, 2);
    cluster.appoint(1);
    cluster.settle();
    assert_eq!(cluster.node(1).replica.state_machine().digest(), digest);
    assert_eq!(cluster.node(1).replica.counters().applied, 40);
    assert!(cluster.node(1).replica.counters().host.loads_from_storage > 0);
}

#[test]
fn envelopes_of_an_older_life_are_dropped_and_the_new_life_is_announced() {
    let mut cluster = Cluster::of(2);
    cluster.propose(1, OWN, 1, put("k", "v"));
    assert!(cluster.persist_one(1) && cluster.persist_one(1));
    let old: Vec<_> = cluster.wire.drain(..).collect();
    assert!(!old.is_empty());
    cluster.crash_and_restart(NodeId(1));
    cluster.settle();
    cluster.wire.extend(old);
    cluster.settle();
    let host = cluster.node(2).replica.counters().host;
    assert!(host.stale_sender > 0);
    assert_eq!(cluster.entries_of(2), 0);
    // What is meant for an older life is dropped too, and the sender learns of the new one.
    cluster.propose(2, OWN, 1, put("k", "w"));
    let old: Vec<_> = cluster.wire.drain(..).collect();
    cluster.crash_and_restart(NodeId(1));
    cluster.wire.extend(old);
    assert!(cluster.deliver_one());
    assert!(cluster.node(1).replica.counters().host.stale_receiver > 0);
    cluster.settle();
    cluster.advance(Duration::from_millis(150));
    cluster.settle();
    assert!(is_ok(cluster.outcome(2, 1)));
}

#[test]
fn nodes_and_lives_that_share_a_seed_do_not_share_a_session() {
    let mut cluster = Cluster::of(2);
    cluster.one_seed = true;
    for id in [1, 2] {
        cluster.crash_and_restart(NodeId(id));
    }
    cluster.settle();
    cluster.propose(1, OWN, 1, put("a", "1"));
    cluster.propose(2, OWN, 1, put("b", "2"));
    cluster.settle();
    cluster.crash_and_restart(NodeId(2));
    cluster.settle();
    cluster.propose(2, OWN, 1, put("c", "3"));
    cluster.settle();
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        assert_eq!(cluster.value(1, key).unwrap(), value);
    }
}

#[test]
fn a_message_held_for_a_peers_former_life_is_dropped() {
    let mut cluster = Cluster::of(2);
    cluster.propose(1, OWN, 1, put("k", "v"));
    // The copy waits for the leader's disk; meanwhile its receiver begins a new life and says so.
    cluster.crash_and_restart(NodeId(2));
    cluster.flush(NodeId(2));
    while cluster.deliver_one() {}
    assert!(cluster.persist_one(1));
    assert_eq!(cluster.node(1).replica.counters().host.outlived, 1);
    assert!(cluster.wire.iter().all(|(_, inbound)| inbound.envelope.packets.is_empty()));
}

#[test]
fn a_command_too_large_for_the_leader_is_handed_back_and_its_companions_go_on() {
    let mut cluster = Cluster::of(2);
    cluster.propose(2, OWN, 1, put("warm", "up"));
    cluster.settle();
    cluster.config.command_bytes_max = 20;
    cluster.crash_and_restart(NodeId(1));
    cluster.settle();
    cluster.appoint(0);
    let large = Bytes::from(vec![b'x'; 30]);
    cluster.propose(2, OWN, 2, large.clone());
    cluster.propose(2, OWN, 3, put("k", "v"));
    cluster.appoint(1);
    cluster.settle();
    assert_eq!(cluster.outcome(2, 2), Some(&Err(ProposeError::TooLarge { payload: large })));
    assert!(is_ok(cluster.outcome(2, 3)));
}

#[test]
fn a_leader_does_not_propose_again_what_its_protocol_holds() {
    let mut cluster = Cluster::of(1);
    cluster.propose(1, OWN, 1, put("warm", "up"));
    cluster.settle();
    cluster.propose(1, OWN, 2, put("k", "v"));
    for _ in 0..20 {
        cluster.advance(Duration::from_millis(150));
    }
    cluster.settle();
    assert!(is_ok(cluster.outcome(1, 2)));
    assert_eq!(cluster.entries_of(1), 3);
}

#[test]
fn an_answer_to_a_former_lifes_query_does_not_answer_a_new_one() {
    let mut cluster = Cluster::of(2);
    for (token, key, value) in [(1, "a", "1"), (2, "b", "2")] {
        cluster.propose(1, OWN, token, put(key, value));
    }
    cluster.settle();
    cluster.read(2, 1, "a", Consistency::Linearizable);
    let (_, query_of_former_life) = cluster.wire.pop_front().unwrap();
    cluster.crash_and_restart(NodeId(2));
    cluster.settle();
    cluster.read(2, 1, "b", Consistency::Linearizable);
    cluster.wire.clear();
    // The leader answers the old question under the new life's stamp.
    let mut answer = query_of_former_life;
    answer.envelope.from_incarnation = synod_core::Incarnation(2);
    cluster.wire.push_back((NodeId(1), answer));
    cluster.settle();
    assert!(cluster.node(2).read.is_empty());
    cluster.advance(Duration::from_millis(150));
    cluster.settle();
    assert_eq!(cluster.node(2).read[&Token(1)].as_ref().unwrap(), &Bytes::from_static(b"\x012"));
}
