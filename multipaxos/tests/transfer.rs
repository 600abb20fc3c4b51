//! Handing the leadership over.

mod harness;

use std::time::Duration;

use harness::{Cluster, HEARTBEAT, Letter, TIMEOUT, ballot};
use synod_core::{
    ClockBound, Input, LogCall, LogEvent, NodeId, Protocol, Refusal, Role, Route, TransferRefusal,
};
use synod_multipaxos::{Message, MultiPaxos, Rejection, Succeed};

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
    let told = |letter: &&Letter| matches!(letter.message, Message::Succeed(_));
    letters.iter().filter(told).map(|letter| letter.to).collect()
}

#[test]
fn the_successor_leads_at_once_with_everything_that_was_decided() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.propose(1, &["a"]);
    cluster.settle();
    let (began, former) = (cluster.now, cluster.promised(1));
    transfer(&mut cluster, 1, Some(3));
    cluster.settle();
    assert_eq!(cluster.now, began, "nobody waited");
    assert_eq!(cluster.leader(), Some(3));
    assert!(cluster.promised(1) > former && cluster.promised(1) == cluster.promised(2));
    assert_eq!(failures(&mut cluster, 1), []);
    assert_eq!(cluster.paxos(3).counters().successions_won, 1);
    cluster.propose(3, &["b"]);
    cluster.settle();
    let of_commands: Vec<String> = cluster.payloads(3).into_iter().filter(|text| !text.is_empty()).collect();
    assert_eq!(of_commands, ["a", "b"]);
}

#[test]
fn a_successor_that_is_behind_is_brought_up_to_date_first() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.isolate(3);
    cluster.propose(1, &["a", "b"]);
    cluster.settle();
    cluster.take_sent();
    transfer(&mut cluster, 1, Some(3));
    assert_eq!(told_to_campaign(&cluster.take_sent()), [], "it would have to learn first");
    cluster.heal();
    cluster.advance(TIMEOUT - Duration::from_millis(1));
    assert_eq!(cluster.leader(), Some(3));
}

#[test]
fn a_leader_that_hands_over_takes_nothing_and_goes_on_after_one_election_timeout() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.take_events(1);
    cluster.isolate(3);
    transfer(&mut cluster, 1, Some(3));
    assert!(cluster.take_events(1).contains(&LogEvent::Role(Role::Leader)), "the host is told to look");
    assert_eq!(cluster.paxos(1).route(), Route::Hold);
    cluster.propose(1, &["x"]);
    let refused = |event: &LogEvent| matches!(event, LogEvent::Refused { why: Refusal::Transferring, .. });
    assert!(cluster.take_events(1).iter().any(refused));
    cluster.advance(TIMEOUT - Duration::from_millis(1));
    assert_eq!(failures(&mut cluster, 1), []);
    cluster.advance(Duration::from_millis(1));
    assert_eq!(failures(&mut cluster, 1), [TransferRefusal::TimedOut]);
    assert_eq!((cluster.role(1), cluster.paxos(1).route()), (Role::Leader, Route::Here));
}

#[test]
fn a_word_that_was_lost_is_said_again_with_the_next_heartbeat() {
    let mut cluster = Cluster::led_by_one(3);
    transfer(&mut cluster, 1, Some(2));
    let lost = cluster.take(|letter| matches!(letter.message, Message::Succeed(_)));
    assert_eq!(told_to_campaign(&lost), [2]);
    cluster.settle();
    assert_eq!(cluster.role(1), Role::Leader);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.role(2), Role::Leader);
}

#[test]
fn what_cannot_be_handed_over_is_refused_at_once() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.advance(HEARTBEAT);
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
}

#[test]
fn under_leases_a_leadership_stays_where_it_is() {
    let leases = MultiPaxos::config().lease_reads(ClockBound::new(0, Duration::ZERO).unwrap());
    let mut cluster = Cluster::with(3, leases, &[]);
    cluster.elect(1);
    transfer(&mut cluster, 1, Some(3));
    assert_eq!(failures(&mut cluster, 1), [TransferRefusal::Unsupported]);
    assert_eq!(cluster.paxos(1).route(), Route::Here);
    let leads = cluster.promised(3);
    cluster.receive(1, 3, Message::Succeed(Succeed { ballot: leads }));
    assert_eq!(cluster.role(3), Role::Follower, "it keeps its own promise");
}

#[test]
fn only_the_leader_that_is_followed_has_anybody_campaign() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.advance(HEARTBEAT);
    let leads = cluster.promised(2);
    let campaigns = cluster.paxos(2).counters().campaigns;
    for (from, said) in [(3, ballot(leads.round + 1, 3)), (1, ballot(leads.round + 1, 1))] {
        cluster.receive(from, 2, Message::Succeed(Succeed { ballot: said }));
        assert_eq!((cluster.role(2), cluster.paxos(2).counters().campaigns), (Role::Follower, campaigns));
    }
    cluster.receive(3, 2, Message::Succeed(Succeed { ballot: leads }));
    assert_eq!(cluster.paxos(2).counters().last_rejection, Some(Rejection::Ballot));
    assert_eq!(cluster.role(2), Role::Follower);
}
