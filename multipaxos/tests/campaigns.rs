//! Campaigns that take long, and what forged promises may do to them.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, ballot, vote};
use synod_core::{Entries, Entry, Input, Loaded, LogIndex, Machine, Reign, Role, Stamp};
use synod_multipaxos::{Ballot, Message, MultiPaxos, Promise, Rejection};

/// How many votes a replica tells, one in each chunk.
const VOTES: u64 = 1_000;

/// Four replicas, one of which is down: promises of all others are needed, and the one of replica 3 is long.
fn with_a_long_promise() -> Cluster {
    let votes: Vec<Entry> = (1..=VOTES).map(|slot| vote(slot, ballot(1, 3), "x")).collect();
    let disks = [(3, Disk::with_votes(&votes, ballot(1, 3)))];
    let mut cluster = Cluster::with(4, MultiPaxos::config().accept_bytes_max(1), &disks);
    cluster.crash(1);
    cluster
}

/// A millisecond passes: everything under way arrives, and each replica's disk answers one load.
fn pass_a_millisecond(cluster: &mut Cluster) {
    cluster.now += Duration::from_millis(1);
    for letter in cluster.take(|_| true) {
        cluster.deliver(letter);
    }
    for id in cluster.up() {
        cluster.persist(id);
        cluster.load_one(id);
        if cluster.paxos(id).next_deadline().is_some_and(|at| at <= cluster.now) {
            cluster.step(id, Input::Tick);
        }
    }
}

/// How many campaigns it takes until somebody leads, if `first` is the first to hear nobody.
fn campaigns_until_somebody_leads(first: u64) -> u64 {
    let mut cluster = with_a_long_promise();
    cluster.time_out(first);
    // A canvass, its answers, and phase 1a: everybody hears of the campaign before any other begins.
    for _ in 0..3 {
        for letter in cluster.take(|_| true) {
            cluster.deliver(letter);
        }
        cluster.up().into_iter().for_each(|id| cluster.persist(id));
    }
    for _ in 0..20 * VOTES {
        pass_a_millisecond(&mut cluster);
        if cluster.leader().is_some() {
            return cluster.up().into_iter().map(|id| cluster.paxos(id).counters().campaigns).sum();
        }
    }
    panic!("nobody leads");
}

/// Seed 1000051 of four replicas, a vote in each message: those who had told all they knew preempted whoever waited
/// for the others, for ever.
#[test]
fn a_long_promise_is_waited_for_by_those_whose_own_is_told() {
    assert_eq!(campaigns_until_somebody_leads(2), 1);
}

#[test]
fn a_candidate_whose_own_votes_take_long_to_read_goes_on() {
    assert_eq!(campaigns_until_somebody_leads(3), 1);
}

/// Replica 1 of three campaigns in ballot 1.1, its own promise not being durable if its disk is `slow`.
fn candidate(slow: bool) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    cluster.node_mut(1).slow_disk = slow;
    cluster.time_out(1);
    for _ in 0..2 {
        for letter in
            cluster.take(|letter| matches!(letter.message, Message::Canvass(_) | Message::CanvassReply(_)))
        {
            cluster.deliver(letter);
        }
    }
    assert_eq!(cluster.promised(1), ballot(1, 1));
    if !slow {
        cluster.persist(1);
    }
    cluster
}

fn promise(last: u64, to: u64, entries: Vec<Entry>) -> Message {
    let segments = entries.into_iter().map(|entry| Entries::new(vec![entry]).unwrap()).collect();
    let votes = Loaded { segments, to: LogIndex(to) };
    let (from, zero, last) = (LogIndex(1), LogIndex(0), LogIndex(last));
    Message::Promise(Promise { ballot: ballot(1, 1), from, decided: zero, trimmed: zero, last, votes })
}

#[test]
fn a_promise_that_nobody_can_have_given_yet_reveals_no_ballot_early() {
    let mut cluster = candidate(true);
    cluster.take_sent();
    cluster.receive(2, 1, promise(5, 2, vec![]));
    assert_eq!(cluster.take_sent(), []);
    cluster.persist(1);
    assert!(cluster.take_sent().iter().any(|letter| matches!(letter.message, Message::Prepare(_))));
}

#[test]
fn a_value_that_no_acceptor_would_vote_for_again_is_not_taken_over() {
    // A value keeps the reign of its first proposer, and acceptors refuse one of a later reign than the ballot.
    let later = Reign { number: 9, leader: ballot(9, 2).node };
    let of = |stamp| vec![Entry { stamp, reign: later, ..vote(1, ballot(1, 1), "x") }];
    let mut cluster = candidate(false);
    cluster.receive(2, 1, promise(1, 2, of(Ballot { round: 1, ..ballot(1, 1) }.stamp())));
    assert_eq!(cluster.paxos(1).counters().last_rejection, Some(Rejection::Entries));
    assert_eq!(cluster.role(1), Role::Candidate);
    // Chosen in a later ballot: true or not, this campaign is lost, and nobody is to blame.
    let mut cluster = candidate(false);
    cluster.receive(2, 1, promise(1, 2, of(Stamp::CHOSEN)));
    assert_eq!(cluster.paxos(1).counters().last_rejection, None);
    assert_eq!(cluster.role(1), Role::Follower);
}

#[test]
fn a_promise_may_tell_votes_as_far_above_a_watermark_as_a_restart_can_find_them() {
    // The watermark on disk lags by less than 256 behind the one that the votes were bounded by.
    let mut cluster = candidate(false);
    cluster.receive(2, 1, promise((1 << 20) + 255, (1 << 20) + 256, vec![]));
    assert_eq!(cluster.paxos(1).counters().last_rejection, None);
    assert_eq!(cluster.role(1), Role::Leader);
}
