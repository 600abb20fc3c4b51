//! Bounds, repeated answers and peers that get things wrong: what must neither leak, starve nor be believed.

mod fixture;

use std::time::Duration;

use bytes::Bytes;
use fixture::{Cluster, SECOND, hold_reads, put};
use synod_core::{Membership, NodeId, Packet, QuorumSystem, SessionLimits, Wire};
use synod_replica::{
    ClientCall, Consistency, Order, ProposeError, QueryError, ReplicaConfig, SessionKey, Token,
};

const OWN: SessionKey = SessionKey::OWN;

fn is_ok(outcome: Option<&Result<Bytes, ProposeError>>) -> bool {
    matches!(outcome, Some(Ok(_)))
}

#[test]
fn answer_of_a_former_life_read_is_not_taken_for_another_read() {
    let mut cluster = Cluster::of(2);
    cluster.propose(1, OWN, 1, put("a", "one"));
    cluster.propose(1, OWN, 2, put("b", "two"));
    cluster.settle();
    hold_reads(true); // The leader's barrier takes its time.
    cluster.read(2, 1, "a", Consistency::Linearizable);
    cluster.settle();
    cluster.crash_and_restart(NodeId(2));
    cluster.settle(); // greets
    cluster.read(2, 2, "b", Consistency::Linearizable);
    hold_reads(false);
    // The leader flushes before the second read reaches it.
    let wire: Vec<_> = cluster.wire.drain(..).collect();
    cluster.flush(NodeId(1));
    cluster.settle();
    cluster.wire.extend(wire);
    cluster.settle();
    assert_eq!(cluster.node(2).read[&Token(2)].as_ref().unwrap(), &Bytes::from_static(b"\x01two"));
}

#[test]
fn answers_that_no_frame_could_hold_together_travel_in_several_packets() {
    let config = ReplicaConfig { batch_bytes_max: 100, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    cluster.propose(1, OWN, 1, put("k", "a value of some thirty characters"));
    cluster.settle();
    hold_reads(true); // All wait at the leader for one barrier.
    for token in 1..=40 {
        cluster.read(2, token, "k", Consistency::Linearizable);
    }
    cluster.settle();
    hold_reads(false);
    cluster.flush(NodeId(1));
    let mut longest = 0;
    for _ in 0..1000 {
        for (_, inbound) in &cluster.wire {
            let replies = |packet: &Packet<_>| match packet {
                Packet::ForwardReply(reply) => reply.wire_len(),
                _ => 0,
            };
            longest = inbound.envelope.packets.iter().map(replies).max().unwrap_or(0).max(longest);
        }
        while cluster.persist_one(1) {}
        cluster.deliver_one();
    }
    assert!(longest > 0 && longest <= 100, "a packet of {longest} bytes");
    cluster.settle();
    assert_eq!(cluster.node(2).read.len(), 40);
}

#[test]
fn closed_sessions_do_not_use_up_the_forwarding_room() {
    let config = ReplicaConfig { queue_entries_max: 4, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    for n in 1..=8 {
        let (session, order, deadline) = (SessionKey(n), Order::Unordered, cluster.now + 10 * SECOND);
        cluster.call(2, ClientCall::OpenSession { session, token: Token(n), order, deadline });
        cluster.settle();
        if !cluster.node(2).opened.contains_key(&Token(n)) {
            break;
        }
        cluster.call(2, ClientCall::CloseSession { session });
        cluster.settle();
    }
    cluster.propose(2, OWN, 100, put("k", "v"));
    for _ in 0..40 {
        cluster.settle();
        cluster.advance(Duration::from_millis(200));
    }
    cluster.settle();
    assert!(is_ok(cluster.outcome(2, 100)), "{:?}", cluster.outcome(2, 100));
}

/// An earlier copy is in the log: the outcome is unknown.
#[test]
fn too_large_for_the_second_leader_is_not_surely_without_effect() {
    let mut cluster = Cluster::of(3);
    cluster.propose(3, OWN, 1, put("warm", "up"));
    cluster.settle();
    // Node 2 takes only small commands.
    cluster.config.command_bytes_max = 20;
    cluster.crash_and_restart(NodeId(2));
    cluster.settle();
    let value = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    cluster.propose(3, OWN, 2, put("k", value));
    assert!(cluster.deliver_one());
    cluster.cut = vec![(NodeId(1), NodeId(3))]; // the old leader's answer and copy to 3 are lost
    assert!(cluster.persist_one(1));
    while cluster.deliver_one() {}
    while cluster.persist_one(2) {}
    cluster.appoint(2);
    cluster.cut.clear();
    cluster.settle();
    cluster.propose(1, OWN, 9, put("other", "x"));
    cluster.settle();
    let applied = cluster.value(2, "k").is_some();
    let outcome = cluster.outcome(3, 2).cloned();
    assert!(
        !(applied && matches!(outcome, Some(Err(ProposeError::TooLarge { .. })))),
        "handed back as surely without effect, and applied"
    );
}

#[test]
fn commands_behind_a_too_large_one_go_on() {
    let members = Membership::of_ids([1, 2]).unwrap().members().to_vec();
    let quorums = QuorumSystem::majority([NodeId(1), NodeId(2)]);
    let membership = Membership::new(members, quorums, SessionLimits { window: 1, sessions_max: 8 }).unwrap();
    let mut cluster = Cluster::new(2, membership, ReplicaConfig::default());
    cluster.propose(2, OWN, 1, put("warm", "up"));
    cluster.settle();
    cluster.config.command_bytes_max = 20;
    cluster.crash_and_restart(NodeId(1));
    cluster.settle();
    cluster.appoint(0);
    cluster.propose(2, OWN, 2, Bytes::from(vec![b'x'; 30]));
    cluster.propose(2, OWN, 3, put("k", "v"));
    cluster.appoint(1);
    for _ in 0..40 {
        cluster.settle();
        cluster.advance(Duration::from_millis(200));
    }
    assert!(is_ok(cluster.outcome(2, 3)), "{:?}", cluster.outcome(2, 3));
}

/// Reads have a bound in bytes as proposals have.
#[test]
fn reads_are_bounded_in_bytes() {
    let config = ReplicaConfig { queue_bytes_max: 1000, command_bytes_max: 100, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    cluster.appoint(0);
    for token in 1..=100 {
        let (deadline, query) = (cluster.now + 10 * SECOND, Bytes::from(vec![b'q'; 1 << 16]));
        let consistency = Consistency::Linearizable;
        cluster.call(1, ClientCall::Read { token: Token(token), query, consistency, deadline });
    }
    assert!(!cluster.node(1).read.is_empty(), "6.5 MB of queries were taken where 1000 bytes are the bound");
}

#[test]
fn a_retrying_origin_does_not_fill_the_leaders_read_queue() {
    let config = ReplicaConfig { queue_entries_max: 10, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    hold_reads(true);
    cluster.read(2, 1, "k", Consistency::Linearizable); // one single read of one client
    for _ in 0..30 {
        cluster.settle();
        cluster.advance(Duration::from_millis(150));
    }
    cluster.settle();
    let deadline = cluster.now + 10 * SECOND;
    let (token, query) = (Token(50), Bytes::from_static(b"k"));
    cluster.call(1, ClientCall::Read { token, query, consistency: Consistency::Linearizable, deadline });
    let full = cluster.node(1).read.get(&token).cloned();
    hold_reads(false);
    assert_eq!(full, None, "one open read of a peer used up the leader's queue of ten");
}

/// Fails at its first command.
struct Failing(bool);

impl synod_core::StateMachine for Failing {
    fn apply(
        &mut self,
        batch: &[synod_core::Applied<'_>],
        out: &mut synod_core::Outputs,
    ) -> Result<(), synod_core::StateMachineError> {
        if !batch.is_empty() {
            self.0 = true;
            return Err(synod_core::StateMachineError::new("broken"));
        }
        let _ = out;
        Ok(())
    }

    fn query(&self, _: &[u8]) -> Result<Bytes, synod_core::StateMachineError> {
        Ok(Bytes::from_static(b"state without the decided command"))
    }
}

/// After the state machine failed on a decided entry no linearizable read is answered.
#[test]
fn no_read_is_served_by_a_state_machine_that_failed() {
    use synod_core::*;
    use synod_replica::{Actions, Replica, ReplicaEvent};
    let start = Start {
        node: NodeId(1),
        membership: Membership::of_ids([1]).unwrap(),
        config: fixture::ToyConfig { leader: NodeId(1) },
        recovered: Recovered { incarnation: Incarnation(1), ..Recovered::default() },
        now: Instant(1),
        seed: 1,
    };
    let mut replica: Replica<fixture::Toy, Failing> =
        Replica::open(start, GroupId(0), ReplicaConfig::default(), Failing(false), None).unwrap();
    let (mut actions, mut events) = (Actions::default(), Vec::new());
    let deadline = Instant(1) + 10 * SECOND;
    let (session, payload) = (OWN, Bytes::from_static(b"x"));
    replica.call(ClientCall::Propose { session, token: Token(1), payload, deadline });
    for _ in 0..10 {
        replica.flush(Instant(1), &mut actions, &mut events);
        for unit in actions.writes.drain(..) {
            replica.persisted(Instant(1), unit.id);
            // The read arrives together with the durability of the command.
            if unit.id == WriteId(2) {
                replica.call(ClientCall::Read {
                    token: Token(3),
                    query: Bytes::new(),
                    consistency: Consistency::Linearizable,
                    deadline,
                });
            }
        }
    }
    let fatal = events.iter().any(|e| matches!(e, ReplicaEvent::Fatal(_)));
    let served = events.iter().any(|e| matches!(e, ReplicaEvent::Read { result: Ok(_), .. }));
    assert!(fatal);
    assert!(!served, "a linearizable read was answered after the decided command failed to apply");
}

/// Settings "differ between replicas without harm".
#[test]
fn a_leader_with_a_smaller_queue_still_serves_a_followers_reads() {
    let mut cluster = Cluster::of(2);
    cluster.config.queue_entries_max = 10;
    cluster.crash_and_restart(NodeId(1));
    cluster.settle();
    cluster.appoint(0);
    for token in 1..=20 {
        cluster.read(2, token, "k", Consistency::Linearizable);
    }
    cluster.appoint(1);
    for _ in 0..40 {
        cluster.settle();
        cluster.advance(Duration::from_millis(200));
    }
    assert!(!cluster.node(2).read.is_empty(), "not one of 20 reads was served in 8 s");
}

#[test]
fn a_leader_with_a_smaller_queue_still_takes_a_followers_commands() {
    let mut cluster = Cluster::of(2);
    cluster.propose(2, OWN, 100, put("warm", "up"));
    cluster.settle();
    cluster.config.queue_entries_max = 10;
    cluster.crash_and_restart(NodeId(1));
    cluster.settle();
    cluster.appoint(0);
    for token in 1..=20 {
        cluster.propose(2, OWN, token, put("k", "v"));
    }
    cluster.appoint(1);
    for _ in 0..40 {
        cluster.settle();
        cluster.advance(Duration::from_millis(200));
    }
    assert!((1..=20).any(|t| is_ok(cluster.outcome(2, t))), "not one of 20 commands was taken in 8 s");
}

#[test]
fn a_lost_head_of_an_ordered_session_costs_a_bounded_number_of_entries() {
    let mut cluster = Cluster::of(2);
    let (session, deadline) = (SessionKey(7), cluster.now + 10 * SECOND);
    cluster.call(2, ClientCall::OpenSession { session, token: Token(1), order: Order::Ordered, deadline });
    cluster.settle();
    for n in 0..100 {
        cluster.propose(2, session, 10 + n, put("k", "v"));
        if n == 0 {
            cluster.wire.clear();
        }
    }
    // Deliver each forward by itself, and flush after each, as a busy leader does; the disk is quick.
    let mut steps = 0;
    while (cluster.deliver_one() | cluster.persist_one(1) | cluster.persist_one(2)) && steps < 100_000 {
        steps += 1;
    }
    for _ in 0..40 {
        cluster.settle();
        cluster.advance(Duration::from_millis(200));
    }
    let entries = cluster.entries_of(1);
    assert!(entries < 500, "{entries} entries for 100 commands");
}

/// Peers' commands that wait at a leader are bounded in bytes (config: 1,000 bytes).
#[test]
fn commands_of_peers_that_wait_for_room_are_bounded_in_bytes() {
    use synod_core::*;
    let config = ReplicaConfig { queue_bytes_max: 1000, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    let mut taken = 0;
    // One flush has not come yet: what piles up before it is what `incoming` holds (or, while the
    // protocol is full, what it keeps until there is room).
    for n in 0..100u64 {
        let command = Command {
            kind: Kind::Command,
            request: RequestId { client: ClientId(1), sequence: Sequence(n), first_incomplete: Sequence(0) },
            payload: Bytes::from(vec![b'x'; 1 << 16]),
        };
        let forward = Forward { origin: NodeId(2), hops_left: 3, commands: vec![command], queries: vec![] };
        let incarnation = cluster.nodes[&NodeId(2)].replica.status().incarnation;
        let envelope = Envelope {
            from: NodeId(2),
            from_incarnation: incarnation,
            to_incarnation: Incarnation(0),
            group: GroupId(0),
            packets: vec![Packet::Forward(forward)],
        };
        let now = cluster.now;
        cluster.node(1).replica.receive(now, Inbound { from: NodeId(2), envelope });
        taken = cluster.node(1).replica.counters().forwarded_in;
    }
    assert!(taken < 100, "{taken} commands of 64 KiB wait where 1000 bytes are the bound");
}

#[test]
fn a_session_entry_with_a_client_leaves_no_origin() {
    use synod_core::*;
    let config = ReplicaConfig { queue_entries_max: 4, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    for n in 0..4u64 {
        let command = Command {
            kind: Kind::Session,
            request: RequestId { client: ClientId(77), sequence: Sequence(n), first_incomplete: Sequence(0) },
            payload: Bytes::from_static(b"?"),
        };
        let forward = Forward { origin: NodeId(2), hops_left: 3, commands: vec![command], queries: vec![] };
        let incarnation = cluster.nodes[&NodeId(2)].replica.status().incarnation;
        let envelope = Envelope {
            from: NodeId(2),
            from_incarnation: incarnation,
            to_incarnation: Incarnation(0),
            group: GroupId(0),
            packets: vec![Packet::Forward(forward)],
        };
        let now = cluster.now;
        cluster.node(1).replica.receive(now, Inbound { from: NodeId(2), envelope });
        cluster.settle();
    }
    cluster.propose(2, OWN, 100, put("k", "v"));
    for _ in 0..40 {
        cluster.settle();
        cluster.advance(Duration::from_millis(200));
    }
    assert!(is_ok(cluster.outcome(2, 100)), "four wrong entries of one peer shut every follower out");
}

/// Answers that take longer than the retry time (100 ms here) still arrive, for commands and for reads.
fn with_round_trip(cluster: &mut Cluster, round_trip_ms: u64, total_ms: u64) {
    let mut on_the_way: std::collections::VecDeque<(u64, _)> = Default::default();
    for now in (0..total_ms).step_by(10) {
        for letter in cluster.wire.drain(..) {
            on_the_way.push_back((now + round_trip_ms / 2, letter));
        }
        while on_the_way.front().is_some_and(|(at, _)| *at <= now) {
            cluster.wire.push_back(on_the_way.pop_front().unwrap().1);
            // deliver exactly this one, which is the last of the wire
            let letter = cluster.wire.pop_back().unwrap();
            cluster.wire.push_front(letter);
            cluster.deliver_one();
            let fresh: Vec<_> = cluster.wire.drain(..).collect();
            for letter in fresh {
                on_the_way.push_back((now + round_trip_ms / 2, letter));
            }
        }
        cluster.advance(Duration::from_millis(10));
        for id in [1, 2] {
            while cluster.persist_one(id) {}
        }
    }
}

#[test]
fn a_read_that_takes_longer_than_the_retry_time_is_answered() {
    let mut cluster = Cluster::of(2);
    cluster.propose(2, OWN, 1, put("k", "v"));
    with_round_trip(&mut cluster, 160, 2000);
    assert!(is_ok(cluster.outcome(2, 1)), "a command is");
    cluster.read(2, 1, "k", Consistency::Linearizable);
    with_round_trip(&mut cluster, 160, 8000);
    assert!(cluster.node(2).read.contains_key(&Token(1)), "not answered in 8 s at a round trip of 160 ms");
}

/// The barrier of a leader takes its time, and its reads expire before it stands.
#[test]
fn reads_that_expire_do_not_pile_up_barriers() {
    let mut cluster = Cluster::of(2);
    cluster.settle();
    hold_reads(true);
    for token in 1..=2_000 {
        let (deadline, query) = (cluster.now + Duration::from_millis(1), Bytes::from_static(b"k"));
        let consistency = Consistency::Linearizable;
        cluster.call(1, ClientCall::Read { token: Token(token), query, consistency, deadline });
        cluster.advance(Duration::from_millis(2));
        assert_eq!(cluster.node(1).read[&Token(token)], Err(QueryError::TimedOut));
    }
    let asked = cluster.node(1).replica.counters().barriers;
    assert!(asked <= 256, "the protocol was asked for {asked} barriers and has answered none");
    cluster.read(1, 5_000, "k", Consistency::Linearizable);
    hold_reads(false);
    cluster.settle();
    assert!(cluster.node(1).read[&Token(5_000)].is_ok(), "a read that waited for room is served");
}

#[test]
fn sessions_being_opened_are_bounded_as_proposals_are() {
    let config = ReplicaConfig { queue_entries_max: 3, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    cluster.appoint(0);
    let open = |cluster: &mut Cluster, n: u64| {
        let (session, order, deadline) = (SessionKey(n), Order::Unordered, cluster.now + 10 * SECOND);
        cluster.call(1, ClientCall::OpenSession { session, token: Token(n), order, deadline });
    };
    (1..=5).for_each(|n| open(&mut cluster, n));
    let refused: Vec<Token> = cluster.node(1).opened.keys().copied().collect();
    assert_eq!(refused, [Token(4), Token(5)]);
    assert!(matches!(cluster.node(1).opened[&Token(4)], Err(ProposeError::Full { .. })));
    cluster.appoint(1);
    cluster.settle();
    assert!((1..=3).all(|n| cluster.node(1).opened[&Token(n)].is_ok()));
    open(&mut cluster, 6);
    cluster.settle();
    assert!(cluster.node(1).opened[&Token(6)].is_ok(), "those that are open use up no room");
}

/// The disk of the leader stands still while it goes on to speak.
#[test]
fn messages_behind_a_disk_that_stands_still_are_bounded_and_the_first_of_them_leave() {
    let config = ReplicaConfig { held_messages_max: 8, ..ReplicaConfig::default() };
    let mut cluster = Cluster::new(2, Membership::of_ids([1, 2]).unwrap(), config);
    cluster.propose(1, OWN, 1, put("warm", "up"));
    cluster.settle();
    cluster.wire.clear();
    for token in 10..40 {
        cluster.propose(1, OWN, token, put("k", "v"));
    }
    assert_eq!(cluster.node(1).replica.held_messages(), 8);
    assert_eq!(cluster.node(1).replica.counters().host.held_too_many, 22);
    let copies = |cluster: &Cluster| {
        cluster.wire.iter().map(|(_, inbound)| inbound.envelope.packets.len()).sum::<usize>()
    };
    assert_eq!(copies(&cluster), 0);
    while cluster.persist_one(1) {}
    assert_eq!(copies(&cluster), 8);
    assert_eq!(cluster.node(1).replica.held_messages(), 0);
}
