//! Reads under a lease: when a leader may answer by itself, and what its followers owe it for that.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, TIMEOUT, ballot, vote as voted};
use synod_core::{ClockBound, Input, LogCall, LogEvent, LogIndex, ReadId, ReadMode};
use synod_multipaxos::{Canvass, Heartbeat, Message, MultiPaxos, MultiPaxosConfig, Prepare};

fn leases() -> MultiPaxosConfig {
    MultiPaxos::config().lease_reads(ClockBound::new(0, Duration::ZERO).unwrap())
}

/// Replica 1 leads, and its round of heartbeats was just answered.
fn leased(config: MultiPaxosConfig) -> Cluster {
    let mut cluster = Cluster::with(3, config, &[]);
    cluster.elect(1);
    cluster.advance(HEARTBEAT);
    cluster.take_events(1);
    cluster
}

fn read(cluster: &mut Cluster, id: u64) {
    cluster.step(1, Input::Call(LogCall::Read { id: ReadId(id), mode: ReadMode::Lease }));
}

fn ready(id: u64, index: u64) -> LogEvent {
    LogEvent::ReadReady { id: ReadId(id), index: LogIndex(index) }
}

/// True if replica 2 promises replica 3 a ballot.
fn promises(cluster: &mut Cluster, round: u64) -> bool {
    cluster.receive(3, 2, Message::Prepare(Prepare { ballot: ballot(round, 3), from: LogIndex(1) }));
    cluster.persist(2);
    while cluster.load_one(2) {}
    let sent = cluster.take(|letter| letter.from == 2 && letter.to == 3);
    sent.iter().any(|letter| matches!(&letter.message, Message::Promise(_)))
}

#[test]
fn a_leader_with_a_lease_answers_at_once_and_asks_nobody() {
    let mut cluster = leased(leases());
    cluster.propose(1, &["a"]);
    cluster.settle();
    cluster.take_events(1);
    read(&mut cluster, 1);
    assert_eq!(cluster.take_events(1), [ready(1, 1)]);
    assert!(cluster.network.is_empty(), "{:?}", cluster.network);
    assert_eq!(cluster.paxos(1).counters().lease_reads, 1);
}

#[test]
fn a_lease_ends_one_election_timeout_after_its_round_was_sent_and_then_a_quorum_is_asked() {
    let mut cluster = leased(leases());
    let sent = cluster.now;
    cluster.isolate(1);
    cluster.now = sent + (TIMEOUT - Duration::from_nanos(1));
    read(&mut cluster, 1);
    assert_eq!(cluster.take_events(1), [ready(1, 0)]);
    cluster.now = sent + TIMEOUT;
    cluster.take_sent();
    read(&mut cluster, 2);
    assert_eq!(cluster.take_events(1), []);
    let sent = cluster.take_sent();
    let asks = sent.iter().filter(|letter| matches!(letter.message, Message::Heartbeat(_)));
    assert_eq!(asks.count(), 2, "{sent:?}");
}

#[test]
fn where_every_replica_counts_votes_a_leased_read_waits_for_all_that_was_proposed_before_it() {
    let mut cluster = leased(leases().votes_to_all(true));
    cluster.propose(1, &["a"]);
    read(&mut cluster, 1);
    assert_eq!(cluster.take_events(1), []);
    cluster.settle();
    assert!(cluster.take_events(1).contains(&ready(1, 1)));
}

#[test]
fn a_leased_read_fails_with_the_leadership() {
    let mut cluster = leased(leases().votes_to_all(true));
    cluster.scripted = true;
    cluster.propose(1, &["a"]);
    read(&mut cluster, 1);
    cluster.receive(
        3,
        1,
        Message::Heartbeat(Heartbeat {
            ballot: ballot(9, 3),
            first: LogIndex(1),
            commit: LogIndex(0),
            round: synod_multipaxos::Round(1),
        }),
    );
    let events = cluster.take_events(1);
    assert!(
        events.iter().any(|event| matches!(event, LogEvent::ReadFailed { id: ReadId(1), .. })),
        "{events:?}"
    );
}

#[test]
fn a_leader_that_is_not_settled_asks_a_quorum_although_it_has_a_lease() {
    // An earlier leader may have had the value chosen, and somebody may know.
    let disk = || Disk::with_votes(&[voted(1, ballot(1, 3), "a")], ballot(1, 3));
    let mut cluster = Cluster::with(3, leases(), &[(1, disk()), (2, disk())]);
    cluster.isolate(3);
    let settle_without_accepts = |cluster: &mut Cluster| loop {
        cluster.take(|letter| matches!(letter.message, Message::Accept(_)));
        match cluster.network.pop_front() {
            Some(letter) => cluster.deliver(letter),
            None if (1..=2).any(|id| cluster.persist_one(id) || cluster.load_one(id)) => {}
            None => return,
        }
    };
    while cluster.leader() != Some(1) {
        cluster.time_out(1);
        settle_without_accepts(&mut cluster);
    }
    cluster.time_out(1);
    settle_without_accepts(&mut cluster);
    read(&mut cluster, 1);
    settle_without_accepts(&mut cluster);
    assert!(!cluster.take_events(1).iter().any(|event| matches!(event, LogEvent::ReadReady { .. })));
    assert_eq!(cluster.paxos(1).counters().lease_reads, 0);
    cluster.heal();
    cluster.advance(HEARTBEAT);
    assert!(cluster.take_events(1).contains(&ready(1, 1)));
}

#[test]
fn whoever_heard_a_leader_promises_nobody_a_ballot_for_an_election_timeout() {
    for (config, waits) in [(leases(), true), (MultiPaxos::config(), false)] {
        let mut cluster = leased(config);
        cluster.scripted = true;
        let before = cluster.paxos(2).counters().prepares_ignored;
        assert_eq!(promises(&mut cluster, 8), !waits);
        assert_eq!(cluster.paxos(2).counters().prepares_ignored > before, waits);
        if waits {
            cluster.now += TIMEOUT - Duration::from_nanos(1);
            assert!(!promises(&mut cluster, 8));
            cluster.now += Duration::from_nanos(1);
            assert!(promises(&mut cluster, 8));
        }
    }
}

#[test]
fn a_replica_that_was_started_again_promises_nobody_a_ballot_for_an_election_timeout() {
    let disks = [(2, Disk::with_votes(&[voted(1, ballot(1, 1), "a")], ballot(1, 1)))];
    let mut cluster = Cluster::with(3, leases(), &disks);
    cluster.scripted = true;
    let ask = Canvass { ballot: ballot(8, 3), decided: LogIndex(0) };
    cluster.receive(3, 2, Message::Canvass(ask));
    let granted = |cluster: &mut Cluster| {
        let sent = cluster.take(|letter| letter.from == 2);
        sent.iter().any(|letter| matches!(&letter.message, Message::CanvassReply(reply) if reply.granted))
    };
    assert!(!granted(&mut cluster) && !promises(&mut cluster, 8));
    cluster.now += TIMEOUT;
    cluster.receive(3, 2, Message::Canvass(ask));
    assert!(granted(&mut cluster) && promises(&mut cluster, 8));
    let mut new = Cluster::with(3, leases(), &[]);
    new.scripted = true;
    assert!(promises(&mut new, 8), "who never lived before promised nothing");
    let one = Disk::with_votes(&[voted(1, ballot(1, 1), "a")], ballot(1, 1));
    let mut alone = Cluster::with(1, leases(), &[(1, one)]);
    alone.time_out(1);
    alone.settle();
    assert_eq!(alone.leader(), Some(1), "who elects itself waits for nobody");
}
