//! Leadership transfer (thesis, section 3.10).

mod harness;

use std::time::Duration;

use harness::{Cluster, HEARTBEAT, Letter, TIMEOUT, at};
use synod_core::{Input, LogCall, LogEvent, NodeId, Protocol, Refusal, Role, Route, TransferRefusal};
use synod_raft::{Message, Raft, Term, TimeoutNow, Vote};

/// Replica 1 of so many leads, and everybody knows.
fn led_by_one(count: u64) -> Cluster {
    let mut cluster = Cluster::with(count, Raft::config(), &[]);
    cluster.elect(1);
    cluster.advance(HEARTBEAT);
    cluster.take_sent();
    cluster.take_events(1);
    cluster
}

fn transfer(cluster: &mut Cluster, id: u64, to: Option<u64>) {
    cluster.step(id, Input::Call(LogCall::Transfer { to: to.map(NodeId) }));
}

fn failures(cluster: &mut Cluster, id: u64) -> Vec<TransferRefusal> {
    let events = cluster.take_events(id);
    let why = |event: &LogEvent| match event {
        LogEvent::TransferFailed { why } => Some(*why),
        _ => None,
    };
    events.iter().filter_map(why).collect()
}

fn told_to_campaign(letters: &[Letter]) -> Vec<u64> {
    let told = |letter: &&Letter| matches!(letter.message, Message::TimeoutNow(_));
    letters.iter().filter(told).map(|letter| letter.to).collect()
}

#[test]
fn the_successor_leads_the_next_term_at_once_with_everything_that_was_decided() {
    let mut cluster = led_by_one(3);
    cluster.propose(1, &["a"]);
    cluster.settle();
    let (began, term) = (cluster.now, cluster.term(1));
    transfer(&mut cluster, 1, Some(3));
    cluster.settle();
    assert_eq!(cluster.now, began, "nobody waited");
    assert_eq!((cluster.leader(), cluster.term(3)), (Some(3), term + 1));
    assert_eq!(failures(&mut cluster, 1), []);
    assert_eq!(cluster.raft(3).counters().transfers_won, 1);
    cluster.propose(3, &["b"]);
    cluster.settle();
    assert_eq!(cluster.payloads(3), ["a", "b"]);
}

#[test]
fn a_successor_that_is_behind_is_brought_up_to_date_first() {
    let mut cluster = led_by_one(3);
    cluster.isolate(3);
    cluster.propose(1, &["a", "b"]);
    cluster.settle();
    cluster.take_sent();
    transfer(&mut cluster, 1, Some(3));
    assert_eq!(told_to_campaign(&cluster.take_sent()), [], "it could not win");
    cluster.heal();
    cluster.advance(TIMEOUT - Duration::from_millis(1));
    assert_eq!(cluster.leader(), Some(3));
    assert_eq!(cluster.payloads(3), ["a", "b"]);
}

#[test]
fn a_leader_that_hands_over_takes_nothing_and_its_route_says_so() {
    let mut cluster = led_by_one(3);
    cluster.isolate(3);
    transfer(&mut cluster, 1, Some(3));
    assert!(cluster.take_events(1).contains(&LogEvent::Role(Role::Leader)), "the host is told to look");
    assert_eq!(cluster.raft(1).route(), Route::Hold);
    let last = cluster.raft(1).last_index();
    cluster.propose(1, &["x"]);
    let refused = |event: &LogEvent| matches!(event, LogEvent::Refused { why: Refusal::Transferring, .. });
    assert!(cluster.take_events(1).iter().any(refused));
    assert_eq!(cluster.raft(1).last_index(), last);
}

#[test]
fn after_one_election_timeout_the_leader_goes_on() {
    let mut cluster = led_by_one(3);
    let term = cluster.term(1);
    cluster.isolate(3);
    transfer(&mut cluster, 1, Some(3));
    cluster.advance(TIMEOUT - Duration::from_millis(1));
    assert_eq!(failures(&mut cluster, 1), []);
    cluster.advance(Duration::from_millis(1));
    assert_eq!(failures(&mut cluster, 1), [TransferRefusal::TimedOut]);
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), term));
    assert_eq!(cluster.raft(1).route(), Route::Here);
    cluster.propose(1, &["a"]);
    cluster.settle();
    assert_eq!(cluster.payloads(1), ["a"]);
}

#[test]
fn a_word_that_was_lost_is_said_again_with_the_next_heartbeat() {
    let mut cluster = led_by_one(3);
    transfer(&mut cluster, 1, Some(2));
    let lost = cluster.take(|letter| matches!(letter.message, Message::TimeoutNow(_)));
    assert_eq!(told_to_campaign(&lost), [2]);
    cluster.settle();
    assert_eq!(cluster.leader(), Some(1));
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.leader(), Some(2));
}

#[test]
fn whom_nobody_named_is_the_one_that_is_furthest() {
    let mut cluster = led_by_one(3);
    cluster.isolate(2);
    cluster.propose(1, &["a"]);
    cluster.settle();
    transfer(&mut cluster, 1, None);
    cluster.settle();
    cluster.heal();
    assert_eq!(cluster.leader(), Some(3));
}

#[test]
fn what_cannot_be_handed_over_is_refused_at_once() {
    let mut cluster = led_by_one(3);
    let leader = Some(NodeId(1));
    transfer(&mut cluster, 2, Some(3));
    assert_eq!(failures(&mut cluster, 2), [TransferRefusal::NotLeader { leader }]);
    for to in [1, 4] {
        transfer(&mut cluster, 1, Some(to));
        assert_eq!(failures(&mut cluster, 1), [TransferRefusal::NoSuchVoter], "n{to}");
    }
    cluster.isolate(3);
    transfer(&mut cluster, 1, Some(3));
    transfer(&mut cluster, 1, Some(2));
    assert_eq!(failures(&mut cluster, 1), [TransferRefusal::UnderWay { to: NodeId(3) }]);

    let mut alone = led_by_one(1);
    transfer(&mut alone, 1, None);
    assert_eq!(failures(&mut alone, 1), [TransferRefusal::NoSuchVoter]);
}

#[test]
fn only_the_leader_can_make_others_forget_that_they_hear_it() {
    let mut cluster = led_by_one(3);
    let term = Term(cluster.term(1));
    let vote = |transfer| Message::Vote(Vote { term: term.next(), last: at(term.0, 1), transfer });
    cluster.receive(3, 2, vote(false));
    assert_eq!(cluster.term(2), term.0, "it hears the leader");
    // Somebody else says that it leads this term: it does not.
    cluster.receive(3, 2, Message::TimeoutNow(TimeoutNow { term }));
    assert_eq!((cluster.role(2), cluster.raft(2).counters().rejected), (Role::Follower, 1));
    // A word from an earlier term comes late.
    cluster.receive(1, 2, Message::TimeoutNow(TimeoutNow { term: Term(term.0 - 1) }));
    assert_eq!((cluster.role(2), cluster.term(2)), (Role::Follower, term.0));
}
