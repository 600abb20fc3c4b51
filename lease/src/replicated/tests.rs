//! The table and its leader's memory, without a replica around them.

use synod_core::{ClientId, ClockBound, LogIndex, NodeId, RequestId, Sequence};

use super::*;
use crate::FencingToken;

const SECOND: Duration = Duration::from_secs(1);

fn at(milliseconds: u64) -> Instant {
    Instant(milliseconds * 1_000_000)
}

fn reign(number: u64) -> Reign {
    Reign { number, leader: NodeId(1) }
}

fn apply(table: &mut LeaseTable, index: u64, in_reign: u64, command: &LeaseCommand) -> LeaseReply {
    let payload = command.to_bytes();
    let request = RequestId { client: ClientId(1), sequence: Sequence(index), first_incomplete: Sequence(0) };
    let applied = Applied { index: LogIndex(index), reign: reign(in_reign), request, payload: &payload };
    let mut out = Outputs::new();
    table.apply(&[applied], &mut out).unwrap();
    let reply = out.drain().next().expect("one reply");
    LeaseReply::from_bytes(reply).unwrap()
}

fn campaign(name: &'static str) -> LeaseCommand {
    LeaseCommand::Campaign {
        name: Bytes::from_static(name.as_bytes()),
        length: SECOND,
        owner: Bytes::from_static(b"me"),
    }
}

fn lease(index: u64) -> LeaseId {
    LeaseId(LogIndex(index))
}

fn keep(table: &mut LeaseTable, now: Instant, id: LeaseId) -> LeaseReply {
    let query = LeaseQuery::KeepAlive(id).to_bytes();
    table.on_query(now, &query);
    LeaseReply::from_bytes(table.query(&query).unwrap()).unwrap()
}

/// What the leader proposes at `now`.
fn due(table: &mut LeaseTable, now: Instant) -> Vec<LeaseCommand> {
    table.on_tick(now);
    let mut proposals = Vec::new();
    table.take_proposals(&mut proposals);
    proposals.into_iter().map(|bytes| LeaseCommand::from_bytes(bytes).unwrap()).collect()
}

/// The replica leads from `now` on, and the first entry of its reign is applied: until then queries wait.
fn lead(table: &mut LeaseTable, now: Instant, in_reign: u64) {
    table.on_role(now, Some(reign(in_reign)));
    assert!(!table.may_answer());
    let mut proposals = Vec::new();
    table.take_proposals(&mut proposals);
    assert_eq!(proposals, [expire(in_reign, &[]).to_bytes()]);
}

fn expire(in_reign: u64, leases: &[u64]) -> LeaseCommand {
    LeaseCommand::Expire { reign: reign(in_reign), leases: leases.iter().copied().map(lease).collect() }
}

/// A table whose replica leads in reign 1 from 0 on, with these leases granted.
fn led(names: &[&'static str]) -> LeaseTable {
    let mut table = LeaseTable::new();
    lead(&mut table, at(0), 1);
    for (index, name) in names.iter().enumerate() {
        apply(&mut table, index as u64 + 1, 1, &campaign(name));
    }
    table.on_applied(at(0));
    table
}

#[test]
fn waiters_hold_in_the_order_of_the_log_and_tokens_rise_with_them() {
    let mut table = LeaseTable::new();
    for (index, before) in [(1, 0), (2, 1), (3, 2)] {
        let granted = LeaseReply::Granted { lease: lease(index), before };
        assert_eq!(apply(&mut table, index, 1, &campaign("a")), granted);
    }
    assert_eq!(apply(&mut table, 4, 1, &campaign("b")), LeaseReply::Granted { lease: lease(4), before: 0 });
    assert_eq!(apply(&mut table, 5, 1, &LeaseCommand::Resign(lease(2))), LeaseReply::Done);
    assert_eq!(table.first(b"a").unwrap().0, lease(1));
    assert_eq!(apply(&mut table, 6, 1, &LeaseCommand::Resign(lease(1))), LeaseReply::Done);
    assert_eq!(table.first(b"a").unwrap().0, lease(3));
    assert!(lease(3).token() > lease(1).token());
    assert_eq!(apply(&mut table, 7, 1, &LeaseCommand::Resign(lease(1))), LeaseReply::Gone);
}

#[test]
fn the_leader_proposes_the_end_of_what_nobody_kept_alive_and_of_nothing_else() {
    let mut table = led(&["a", "b"]);
    assert_eq!(table.next_deadline(), Some(at(1_000)));
    assert_eq!(keep(&mut table, at(600), lease(1)), LeaseReply::Alive { before: 0 });
    assert_eq!(due(&mut table, at(1_000)), [expire(1, &[2])]);
    // What is to end is kept alive no more.
    assert_eq!(keep(&mut table, at(1_100), lease(2)), LeaseReply::Gone);
    assert_eq!(due(&mut table, at(1_600)), [expire(1, &[1])]);
    assert_eq!(apply(&mut table, 3, 1, &expire(1, &[1, 2])), LeaseReply::Done);
    assert!(table.is_empty());
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn an_expiry_is_proposed_again_until_it_is_applied() {
    let mut table = led(&["a"]);
    assert_eq!(due(&mut table, at(1_000)).len(), 1);
    assert_eq!(due(&mut table, at(1_900)).len(), 0);
    assert_eq!(due(&mut table, at(2_000)), [expire(1, &[1])]);
}

#[test]
fn an_expiry_of_an_earlier_reign_is_ignored_once_a_newer_one_was_applied() {
    let mut table = led(&["a"]);
    apply(&mut table, 2, 2, &campaign("b"));
    assert_eq!(apply(&mut table, 3, 1, &expire(1, &[1])), LeaseReply::Gone);
    // Handed on to the new leader and proposed by it, the entry itself is of the newer reign.
    let mut other = led(&["a"]);
    assert_eq!(apply(&mut other, 2, 2, &expire(1, &[1])), LeaseReply::Gone);
    assert_eq!((table.len(), other.len()), (2, 1));
    assert_eq!(apply(&mut other, 3, 2, &expire(2, &[1])), LeaseReply::Done);
}

#[test]
fn a_new_leader_gives_every_lease_its_full_length_again() {
    let mut table = led(&["a"]);
    table.on_role(at(900), None);
    assert_eq!(table.next_deadline(), None, "who does not lead measures nothing");
    lead(&mut table, at(900), 2);
    assert_eq!(table.next_deadline(), Some(at(1_900)));
}

#[test]
fn who_does_not_lead_keeps_nothing_alive() {
    let mut table = led(&["a"]);
    table.on_role(at(100), None);
    let query = LeaseQuery::KeepAlive(lease(1)).to_bytes();
    table.on_query(at(200), &query);
    assert!(table.query(&query).is_err(), "nor says that it is gone");
}

#[test]
fn a_revoked_lease_is_not_kept_alive_and_ends_in_its_own_time() {
    let mut table = led(&["a", "a"]);
    assert_eq!(keep(&mut table, at(500), lease(1)), LeaseReply::Alive { before: 0 });
    assert_eq!(apply(&mut table, 3, 1, &LeaseCommand::Revoke(lease(1))), LeaseReply::Done);
    assert_eq!(table.first(b"a").unwrap().0, lease(1), "its owner may still act");
    assert_eq!(keep(&mut table, at(900), lease(1)), LeaseReply::Gone);
    assert_eq!(keep(&mut table, at(900), lease(2)), LeaseReply::Alive { before: 1 });
    assert_eq!(due(&mut table, at(1_499)), []);
    assert_eq!(due(&mut table, at(1_500)), [expire(1, &[1])]);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut table = LeaseTable::new();
    let too_long = Bytes::from(vec![0; 2_000]);
    let (name, owner) = (Bytes::from_static(b"a"), Bytes::new());
    for (name, length, owner) in [
        (too_long.clone(), SECOND, owner.clone()),
        (name.clone(), SECOND, too_long),
        (name.clone(), Duration::ZERO, owner.clone()),
        (name, Duration::from_secs(90_000), owner),
    ] {
        let command = LeaseCommand::Campaign { name, length, owner };
        assert!(matches!(apply(&mut table, 1, 1, &command), LeaseReply::Refused(_)));
    }
    assert!(table.is_empty());
    assert!(table.query(b"nonsense").is_err());
}

fn candidate() -> Candidate {
    let bound = ClockBound::new(0, Duration::ZERO).unwrap();
    let (name, owner) = (Bytes::from_static(b"a"), Bytes::from_static(b"me"));
    let mut candidate = Candidate::new(name, owner, SECOND, Duration::from_millis(50), bound);
    candidate.campaign();
    candidate
}

fn granted(index: u64, before: u64) -> Result<Bytes, NoAnswer> {
    Ok(LeaseReply::Granted { lease: lease(index), before }.to_bytes())
}

fn alive(before: u64) -> Result<Bytes, NoAnswer> {
    Ok(LeaseReply::Alive { before }.to_bytes())
}

fn ask_id(ask: Option<Ask>) -> AskId {
    match ask {
        Some(Ask::Propose(id, ..) | Ask::Query(id, ..)) => id,
        None => panic!("nothing is asked"),
    }
}

#[test]
fn a_candidate_counts_from_before_it_asked() {
    let mut candidate = candidate();
    let ask = ask_id(candidate.poll(at(0)));
    candidate.answered(at(400), ask, granted(7, 0));
    let held = CandidateEvent::Held { until: at(1_000), token: FencingToken(7) };
    assert_eq!(candidate.take_events(), [held]);
    let ask = ask_id(candidate.poll(at(650)));
    candidate.answered(at(700), ask, alive(0));
    let held = CandidateEvent::Held { until: at(1_650), token: FencingToken(7) };
    assert_eq!(candidate.take_events(), [held]);
    assert_eq!(candidate.poll(at(900)), None);
}

/// etcd's issue 11456: the lock was reported to a waiter whose own lease had ended.
#[test]
fn success_is_never_reported_after_the_waiters_own_lease_has_ended() {
    let mut candidate = candidate();
    let ask = ask_id(candidate.poll(at(0)));
    candidate.answered(at(100), ask, granted(7, 1));
    assert_eq!(candidate.take_events(), []);
    // The one before it is gone, and this is heard of when its own lease has ended.
    candidate.look(at(1_000), lease(7));
    assert_eq!(candidate.take_events(), []);
    assert_eq!(candidate.remaining(at(1_000)), None);
    // The table still has it, as a keep-alive shows: now it is held.
    let ask = ask_id(candidate.poll(at(1_001)));
    candidate.answered(at(1_002), ask, alive(0));
    let held = CandidateEvent::Held { until: at(2_001), token: FencingToken(7) };
    assert_eq!(candidate.take_events(), [held]);
}

#[test]
fn a_waiter_is_told_as_soon_as_it_is_seen_to_be_first() {
    let mut candidate = candidate();
    let ask = ask_id(candidate.poll(at(0)));
    candidate.answered(at(100), ask, granted(7, 1));
    candidate.look(at(150), lease(6));
    assert_eq!(candidate.take_events(), []);
    candidate.look(at(200), lease(7));
    let held = CandidateEvent::Held { until: at(1_000), token: FencingToken(7) };
    assert_eq!(candidate.take_events(), [held]);
}

#[test]
fn a_candidate_that_resigns_stops_first_and_tells_the_table_of_a_grant_that_comes_late() {
    let mut candidate = candidate();
    let ask = ask_id(candidate.poll(at(0)));
    candidate.resign(at(10));
    candidate.answered(at(100), ask, granted(7, 0));
    assert_eq!(candidate.take_events(), []);
    let Some(Ask::Propose(_, bytes, _)) = candidate.poll(at(100)) else { panic!("nothing is proposed") };
    assert_eq!(LeaseCommand::from_bytes(bytes), Ok(LeaseCommand::Resign(lease(7))));
}

#[test]
fn a_candidate_whose_lease_is_gone_stops_at_once_and_begins_anew() {
    let mut candidate = candidate();
    let ask = ask_id(candidate.poll(at(0)));
    candidate.answered(at(1), ask, granted(7, 0));
    candidate.take_events();
    let ask = ask_id(candidate.poll(at(300)));
    candidate.answered(at(310), ask, Ok(LeaseReply::Gone.to_bytes()));
    assert_eq!(candidate.take_events(), [CandidateEvent::Lost]);
    assert_eq!(candidate.poll(at(320)), None);
    assert!(matches!(candidate.poll(at(360)), Some(Ask::Propose(..))));
}

#[test]
fn a_table_read_back_holds_the_same_leases_in_the_same_queues_and_no_cut_of_it_is_one() {
    let mut table = led(&["a", "b", "a", "a"]);
    apply(&mut table, 5, 1, &LeaseCommand::Revoke(lease(3)));
    apply(&mut table, 6, 2, &LeaseCommand::Resign(lease(1)));
    let source = table.snapshot().unwrap();
    apply(&mut table, 7, 2, &campaign("later"));
    let mut bytes = Vec::new();
    source.write_to(&mut bytes).unwrap();

    let mut other = led(&["gone"]);
    other.restore(&mut &bytes[..]).unwrap();
    apply(&mut other, 7, 2, &campaign("later"));
    assert_eq!((&other.leases, &other.queues, other.reign), (&table.leases, &table.queues, table.reign));
    assert_eq!(other.first(b"a").unwrap().0, lease(3));
    // An expiry of the reign before still counts for nothing, and whoever leads next gives each its full length.
    assert_eq!(apply(&mut other, 8, 1, &expire(1, &[2])), LeaseReply::Gone);
    lead(&mut other, at(10_000), 3);
    assert_eq!(due(&mut other, at(10_999)), []);
    assert_eq!(due(&mut other, at(11_000)), [expire(3, &[2, 3, 4, 7])]);
    for cut in 0..bytes.len() {
        assert!(other.restore(&mut &bytes[..cut]).is_err(), "{cut} of {}", bytes.len());
    }
}
