//! Votes that acceptors tell every replica: what they decide, and what a leader's reads wait for.

mod harness;

use harness::{Cluster, HEARTBEAT, ballot, entries};
use synod_core::{LogEvent, LogIndex, ReadId};
use synod_multipaxos::{Accept, Accepted, Ballot, Message, MultiPaxos};

/// A cluster whose replica 1 leads and asks for votes to all.
fn open_cluster(count: u64) -> Cluster {
    let mut cluster = Cluster::with(count, MultiPaxos::config().votes_to_all(true), &[]);
    cluster.elect(1);
    cluster.advance(HEARTBEAT);
    cluster
}

fn accept(of: Ballot, value: &str) -> Message {
    let (first, commit) = (LogIndex(1), LogIndex::ZERO);
    Message::Accept(Accept { ballot: of, first, commit, to_all: true, entries: entries(1, of, &[value]) })
}

fn accepted(of: Ballot, through: u64) -> Message {
    Message::Accepted(Accepted { ballot: of, through: LogIndex(through), decided: LogIndex::ZERO })
}

fn is_accepted_of(message: &Message, of: Ballot) -> bool {
    matches!(message, Message::Accepted(accepted) if accepted.ballot == of)
}

#[test]
fn a_follower_decides_before_its_leader_says_so() {
    let mut cluster = open_cluster(3);
    let before = cluster.decided(3);
    cluster.cut_one_way(2, 1);
    cluster.cut_one_way(3, 1);
    cluster.propose(1, &["a"]);
    cluster.settle();
    assert_eq!(
        (cluster.decided(1), cluster.decided(2), cluster.decided(3)),
        (before, before + 1, before + 1)
    );
    assert_eq!(cluster.paxos(3).counters().decided_by_votes, 1);
    cluster.heal();
    cluster.advance(4 * HEARTBEAT);
    assert_eq!(cluster.decided(1), before + 1);
}

#[test]
fn without_the_option_votes_go_to_the_leader_alone() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.take_sent();
    cluster.propose(1, &["a"]);
    cluster.settle();
    let mine = cluster.promised(1);
    let votes = cluster.take_sent().into_iter().filter(|letter| is_accepted_of(&letter.message, mine));
    assert!(votes.map(|letter| letter.to).eq([1, 1]));
}

#[test]
fn votes_of_two_ballots_are_not_added_up_by_who_is_told_of_them() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    cluster.receive(2, 3, accept(ballot(1, 2), "a"));
    cluster.persist(3);
    cluster.receive(1, 3, accept(ballot(2, 1), "b"));
    cluster.persist(3);
    cluster.receive(2, 3, accepted(ballot(1, 2), 1));
    assert_eq!(cluster.decided(3), 0, "its own vote is in another ballot");
    cluster.receive(2, 3, accepted(ballot(2, 1), 1));
    assert_eq!(cluster.decided(3), 1);
}

#[test]
fn a_vote_told_in_an_earlier_ballot_does_not_count_in_the_next() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    cluster.receive(1, 3, accept(ballot(1, 1), "a"));
    cluster.receive(2, 3, accepted(ballot(1, 1), 1));
    cluster.receive(2, 3, accept(ballot(2, 2), "b"));
    cluster.persist(3);
    assert_eq!(cluster.decided(3), 0);
}

#[test]
fn a_follower_counts_its_own_vote_once_it_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    cluster.receive(1, 3, accept(ballot(1, 1), "a"));
    cluster.receive(2, 3, accepted(ballot(1, 1), 1));
    assert_eq!(cluster.decided(3), 0);
    cluster.persist(3);
    assert_eq!(cluster.decided(3), 1);
}

#[test]
fn a_read_waits_for_what_another_replica_may_have_acknowledged() {
    let mut cluster = open_cluster(3);
    let before = cluster.decided(1);
    cluster.propose(1, &["a"]);
    // The votes that are told to the leader are late; the others are not.
    let mine = cluster.promised(1);
    let late = |cluster: &mut Cluster| {
        for _ in 0..9 {
            let held = cluster.take(|letter| letter.to == 1 && is_accepted_of(&letter.message, mine));
            let next = cluster.take(|_| true);
            next.into_iter().for_each(|letter| cluster.deliver(letter));
            (1..=3).for_each(|id| cluster.persist(id));
            if !held.is_empty() {
                return held;
            }
        }
        panic!("nobody votes");
    };
    let held = late(&mut cluster);
    assert_eq!((cluster.decided(1), held.is_empty()), (before, false));
    cluster.read(1, 7);
    let is_ready = |cluster: &mut Cluster| {
        cluster.take_events(1).into_iter().find_map(|event| match event {
            LogEvent::ReadReady { id: ReadId(7), index } => Some(index.0),
            _ => None,
        })
    };
    let round = cluster.take(|letter| !is_accepted_of(&letter.message, mine));
    round.into_iter().for_each(|letter| cluster.deliver(letter));
    let replies = cluster.take(|letter| !is_accepted_of(&letter.message, mine));
    replies.into_iter().for_each(|letter| cluster.deliver(letter));
    assert_eq!(is_ready(&mut cluster), None, "its round is confirmed, and the slot may be decided elsewhere");
    held.into_iter().for_each(|letter| cluster.deliver(letter));
    cluster.settle();
    assert_eq!(is_ready(&mut cluster), Some(before + 1));
}
