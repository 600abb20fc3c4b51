//! Reads under a lease: when a leader may answer by itself, and what its followers owe it for that.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, TIMEOUT};
use synod_core::{ClockBound, Input, LogCall, LogEvent, LogIndex, NodeId, ReadId, ReadMode, TransferRefusal};
use synod_raft::{
    HeartbeatReply, Message, NewerTerm, Position, PreVote, Raft, RaftConfig, Round, Term, Vote,
};

fn leases() -> RaftConfig {
    Raft::config().lease_reads(ClockBound::new(0, Duration::ZERO).unwrap())
}

/// Replica 1 leads, and its round of heartbeats was just answered.
fn leased(count: u64) -> Cluster {
    let mut cluster = Cluster::with(count, leases(), &[]);
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

/// A vote that any log here is willing to give.
fn vote(term: u64) -> Message {
    let last = Position { term: Term(term - 1), index: LogIndex(99) };
    Message::Vote(Vote { term: Term(term), last, transfer: false })
}

/// True if replica 2 votes for replica 3 in `term`.
fn grants(cluster: &mut Cluster, term: u64) -> bool {
    cluster.receive(3, 2, vote(term));
    cluster.persist(2);
    let sent = cluster.take(|letter| letter.from == 2 && letter.to == 3);
    sent.iter().any(|letter| matches!(&letter.message, Message::VoteReply(reply) if reply.granted))
}

#[test]
fn a_leader_with_a_lease_answers_at_once_and_asks_nobody() {
    let mut cluster = leased(3);
    cluster.propose(1, &["a"]);
    cluster.settle();
    cluster.take_events(1);
    read(&mut cluster, 1);
    assert_eq!(cluster.take_events(1), [ready(1, 2)]);
    assert!(cluster.network.is_empty(), "{:?}", cluster.network);
    assert_eq!(cluster.raft(1).counters().lease_reads, 1);
}

#[test]
fn a_lease_ends_one_election_timeout_after_its_round_was_sent_and_then_a_quorum_is_asked() {
    let mut cluster = leased(3);
    let sent = cluster.now;
    cluster.isolate(1);
    cluster.now = sent + (TIMEOUT - Duration::from_nanos(1));
    read(&mut cluster, 1);
    assert_eq!(cluster.take_events(1), [ready(1, 1)]);
    cluster.now = sent + TIMEOUT;
    cluster.take_sent();
    read(&mut cluster, 2);
    assert_eq!(cluster.take_events(1), []);
    let sent = cluster.take_sent();
    let asks = sent.iter().filter(|letter| matches!(letter.message, Message::Heartbeat(_)));
    assert_eq!(asks.count(), 2, "{sent:?}");
}

#[test]
fn a_lease_is_shorter_by_what_clocks_may_differ() {
    let clocks = ClockBound::new(100_000, Duration::from_millis(1)).unwrap();
    let mut cluster = Cluster::with(3, Raft::config().lease_reads(clocks), &[]);
    cluster.elect(1);
    cluster.advance(HEARTBEAT);
    cluster.take_events(1);
    let sent = cluster.now;
    cluster.isolate(1);
    let held = clocks.held(TIMEOUT);
    assert!(
        held < TIMEOUT * 9 / 11,
        "a follower's clock may be a tenth too fast, and the leader's a tenth too slow"
    );
    cluster.now = sent + (held - Duration::from_nanos(1));
    read(&mut cluster, 1);
    assert_eq!(cluster.take_events(1), [ready(1, 1)]);
    cluster.now = sent + held;
    read(&mut cluster, 2);
    assert_eq!(cluster.take_events(1), []);
}

#[test]
fn an_answer_that_took_long_makes_the_lease_no_longer() {
    let mut cluster = leased(3);
    cluster.now += HEARTBEAT;
    let sent = cluster.now;
    cluster.step(1, Input::Tick);
    let rounds = cluster.take(|_| true);
    for letter in rounds {
        cluster.deliver(letter);
    }
    let answers = cluster.take(|letter| letter.to == 1);
    cluster.now = sent + (TIMEOUT - Duration::from_nanos(1));
    for letter in answers {
        cluster.deliver(letter);
    }
    read(&mut cluster, 1);
    assert_eq!(cluster.take_events(1), [ready(1, 1)]);
    cluster.now = sent + TIMEOUT;
    read(&mut cluster, 2);
    assert_eq!(cluster.take_events(1), []);
}

#[test]
fn a_leader_that_has_decided_nothing_in_its_term_asks_a_quorum_although_it_has_a_lease() {
    let mut cluster = Cluster::with(3, leases(), &[]);
    let settle_without_appends = |cluster: &mut Cluster| loop {
        cluster.take(|letter| matches!(letter.message, Message::Append(_)));
        match cluster.network.pop_front() {
            Some(letter) => cluster.deliver(letter),
            None if (1..=3).any(|id| cluster.persist_one(id)) => {}
            None => return,
        }
    };
    cluster.time_out(1);
    settle_without_appends(&mut cluster);
    assert_eq!(cluster.leader(), Some(1));
    cluster.time_out(1);
    settle_without_appends(&mut cluster);
    read(&mut cluster, 1);
    settle_without_appends(&mut cluster);
    assert!(!cluster.take_events(1).contains(&ready(1, 0)));
    cluster.advance(HEARTBEAT);
    assert!(cluster.take_events(1).contains(&ready(1, 1)));
}

#[test]
fn whoever_heard_a_leader_votes_for_nobody_in_no_term_for_an_election_timeout() {
    for (config, waits) in [(leases(), true), (Raft::config(), false)] {
        let mut cluster = Cluster::with(3, config, &[]);
        cluster.elect(1);
        cluster.advance(HEARTBEAT);
        // A later term makes it forget its leader, and not what it owes.
        cluster.receive(3, 2, Message::NewerTerm(NewerTerm { term: Term(7) }));
        let before = cluster.raft(2).counters().requests_ignored;
        let ask = PreVote { term: Term(8), last: Position { term: Term(7), index: LogIndex(99) } };
        cluster.receive(3, 2, Message::PreVote(ask));
        assert_eq!(cluster.raft(2).counters().requests_ignored > before, waits);
        assert_eq!(grants(&mut cluster, 8), !waits);
        if waits {
            cluster.now += TIMEOUT - Duration::from_nanos(1);
            assert!(!grants(&mut cluster, 8));
            cluster.now += Duration::from_nanos(1);
            assert!(grants(&mut cluster, 8));
        }
    }
}

#[test]
fn whoever_heard_a_leader_does_not_campaign_before_its_promise_ends() {
    let mut cluster = leased(3);
    let heard = cluster.now;
    cluster.crash(1);
    let due = cluster.raft(2).counters().pre_votes;
    while cluster.raft(2).counters().pre_votes == due {
        cluster.time_out(2);
    }
    assert!(cluster.now >= heard + TIMEOUT);
}

#[test]
fn a_replica_that_was_started_again_votes_for_nobody_for_an_election_timeout() {
    let disks = [(2, Disk::with_log(&[1], 1))];
    let mut cluster = Cluster::with(3, leases(), &disks);
    assert!(!grants(&mut cluster, 5));
    cluster.now += TIMEOUT;
    assert!(grants(&mut cluster, 5));
    let mut new = Cluster::with(3, leases(), &[]);
    assert!(grants(&mut new, 5), "who never lived before promised nothing");
    let mut alone = Cluster::with(1, leases(), &[(1, Disk::with_log(&[1], 1))]);
    alone.time_out(1);
    alone.settle();
    assert_eq!(alone.leader(), Some(1), "who elects itself waits for nobody");
}

#[test]
fn a_quorum_that_promises_nothing_gives_no_lease() {
    let mut cluster = Cluster::with(3, leases(), &[]);
    cluster.elect(1);
    cluster.time_out(1);
    cluster.network.clear();
    cluster.take_events(1);
    let silent = HeartbeatReply { term: Term(1), round: Round(1), loyal_for: Duration::ZERO };
    cluster.receive(2, 1, Message::HeartbeatReply(silent));
    read(&mut cluster, 1);
    assert_eq!(cluster.take_events(1), []);
    let loyal = HeartbeatReply { loyal_for: TIMEOUT, ..silent };
    cluster.receive(3, 1, Message::HeartbeatReply(loyal));
    read(&mut cluster, 2);
    assert!(cluster.take_events(1).contains(&ready(2, 1)));
}

/// Whoever votes for the successor breaks its promise, and the successor may campaign at any time from then on.
#[test]
fn a_leader_that_has_told_another_to_lead_has_no_lease_for_the_rest_of_its_term() {
    let mut cluster = leased(3);
    let term = cluster.term(1);
    // 3 campaigns, and nobody hears it.
    cluster.cut_one_way(3, 1);
    cluster.cut_one_way(3, 2);
    read(&mut cluster, 1);
    assert_eq!(cluster.take_events(1), [ready(1, 1)]);
    cluster.step(1, Input::Call(LogCall::Transfer { to: Some(NodeId(3)) }));
    cluster.take_events(1);
    read(&mut cluster, 2);
    assert_eq!(cluster.take_events(1), [], "the word has left");
    cluster.advance(TIMEOUT);
    let timed_out = LogEvent::TransferFailed { why: TransferRefusal::TimedOut };
    assert!(cluster.take_events(1).contains(&timed_out));
    assert_eq!((cluster.leader(), cluster.term(1), cluster.term(3)), (Some(1), term, term + 1));
    cluster.advance(HEARTBEAT);
    read(&mut cluster, 3);
    assert_eq!(
        cluster.take_events(1),
        [],
        "2 answers its heartbeats as ever, and would vote for 3 all the same"
    );
    cluster.settle();
    assert_eq!(cluster.take_events(1), [ready(3, 1)], "a quorum was asked");
}
