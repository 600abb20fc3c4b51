//! Compaction and snapshots: what a replica needs that is gone from the logs of others, and what a snapshot replaces.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, ballot, entries, vote};
use synod_core::{LogEvent, LogIndex, Membership, NodeId, Protocol, Reign, Role, SnapshotMeta, Stamp};
use synod_multipaxos::{Accept, Chosen, CommitNotice, Learn, Message, MultiPaxos, Prepare};

/// Replica 1 leads, 3 is cut off, and the logs of the others begin behind what 3 has.
fn compacted_without_three() -> Cluster {
    let mut cluster = Cluster::led_by_one(3);
    cluster.snapshots = true;
    cluster.isolate(3);
    cluster.propose(1, &["a", "b", "c", "d"]);
    cluster.advance(4 * HEARTBEAT);
    for id in [1, 2] {
        assert_eq!(cluster.decided(id), 4);
        cluster.compact(id, 4, 3);
    }
    cluster.settle();
    for id in [1, 2] {
        assert_eq!(cluster.node(id).disk.compacted.unwrap().0, LogIndex(3));
    }
    cluster.take_events(1);
    cluster
}

fn discards(cluster: &mut Cluster, id: u64) -> usize {
    cluster.take_events(id).iter().filter(|event| matches!(event, LogEvent::DiscardSnapshot(_))).count()
}

fn asked_for(cluster: &mut Cluster, from: u64, to: u64) -> usize {
    let asked = LogEvent::SendSnapshot { to: NodeId(to) };
    cluster.take_events(from).iter().filter(|event| **event == asked).count()
}

/// What a snapshot through `index` says.
fn through(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        index: LogIndex(index),
        stamp: Stamp::CHOSEN,
        reign: Reign::default(),
        membership: Membership::of_ids([1, 2, 3]).unwrap(),
    }
}

/// Votes of ballot 1.2 in slots 1 to 4, of 1.2 in slots 6 and 7.
fn disk_with_a_hole() -> Disk {
    let of = ballot(1, 2);
    let votes = [1, 2, 3, 4, 6, 7].map(|slot| vote(slot, of, "old"));
    Disk::with_votes(&votes, of)
}

#[test]
fn a_learner_behind_what_is_compacted_goes_on_from_a_snapshot() {
    let mut cluster = compacted_without_three();
    cluster.heal();
    cluster.advance(Duration::from_secs(1));
    assert_eq!((cluster.decided(3), cluster.paxos(3).counters().installs), (4, 1));
    cluster.propose(1, &["e"]);
    cluster.advance(2 * HEARTBEAT);
    assert_eq!((cluster.decided(3), cluster.payloads(3)), (5, vec!["e".to_owned()]));
    cluster.restart(3);
    cluster.propose(1, &["f"]);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.decided(3), 6, "it recovers from where the snapshot ends");
}

#[test]
fn a_learner_within_the_kept_tail_needs_no_snapshot() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.propose(1, &["a"]);
    cluster.advance(4 * HEARTBEAT);
    cluster.isolate(3);
    cluster.propose(1, &["b", "c", "d"]);
    cluster.advance(4 * HEARTBEAT);
    for id in [1, 2] {
        cluster.compact(id, 4, 1);
    }
    cluster.heal();
    cluster.advance(Duration::from_secs(1));
    assert_eq!((cluster.decided(3), cluster.paxos(3).counters().installs), (4, 0));
}

#[test]
fn a_snapshot_that_does_not_arrive_is_asked_for_again_after_a_while() {
    let mut cluster = compacted_without_three();
    cluster.snapshots = false;
    cluster.heal();
    cluster.advance(Duration::from_secs(3));
    let asked = asked_for(&mut cluster, 1, 3) + asked_for(&mut cluster, 2, 3);
    assert!((4..=40).contains(&asked), "{asked} times in three seconds");
    cluster.snapshots = true;
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.decided(3), 4);
}

#[test]
fn while_a_snapshot_is_on_its_way_nobody_else_is_asked_for_one() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    let none = |from: u64| {
        let (from, decided, trimmed) = (LogIndex(from), LogIndex(9), LogIndex(5));
        Message::Chosen(Chosen { from, decided, trimmed, entries: entries(1, ballot(1, 1), &[]) })
    };
    cluster.receive(1, 3, commit_notice(1, 9));
    let mut asked = Vec::new();
    for _ in 0..40 {
        cluster.advance_only(3, HEARTBEAT / 2);
        cluster.receive(1, 3, commit_notice(1, 9));
        let learns = cluster.take(|letter| matches!(letter.message, Message::Learn(_)));
        for letter in learns {
            asked.push(letter.to);
            cluster.receive(letter.to, 3, none(1));
        }
    }
    assert!((2..=12).contains(&asked.len()) && asked.iter().all(|to| *to == 1), "{asked:?}");
}

fn commit_notice(by: u64, commit: u64) -> Message {
    Message::CommitNotice(CommitNotice {
        ballot: ballot(1, by),
        first: LogIndex(1),
        commit: LogIndex(commit),
    })
}

/// Where a snapshot could not be sent, the learner hears that there is nothing to be had, and asks somebody else.
#[test]
fn whoever_could_not_send_a_snapshot_sends_the_learner_to_others() {
    let mut cluster = compacted_without_three();
    cluster.snapshots = false;
    let learn = Message::Learn(Learn { from: LogIndex(1) });
    let answer = |cluster: &mut Cluster| {
        cluster.take_sent();
        cluster.receive(3, 1, learn.clone());
        let sent = cluster.take_sent();
        let chosen = sent.iter().find_map(|letter| match &letter.message {
            Message::Chosen(chosen) => Some((chosen.decided.0, chosen.trimmed.0, chosen.entries.len())),
            _ => None,
        });
        chosen.unwrap()
    };
    cluster.heal();
    assert_eq!(answer(&mut cluster), (4, 3, 0));
    assert_eq!(answer(&mut cluster), (0, 0, 0));
    assert_eq!(asked_for(&mut cluster, 1, 3), 1);
    cluster.advance(harness::TIMEOUT);
    cluster.take_events(1);
    assert_eq!(answer(&mut cluster), (4, 3, 0));
}

/// An acceptor's votes above a snapshot may have chosen something.
#[test]
fn a_snapshot_replaces_what_it_holds_and_no_vote_above() {
    let mut cluster = Cluster::with(3, MultiPaxos::config(), &[(3, disk_with_a_hole())]);
    cluster.scripted = true;
    cluster.node_mut(3).slow_disk = true;
    cluster.offer(3, 1, through(5));
    assert_eq!((cluster.decided(3), cluster.paxos(3).last_index()), (5, LogIndex(7)));
    assert!(cluster.persist_one(3) && !cluster.persist_one(3), "one unit");
    assert_eq!(cluster.node(3).disk.compacted, Some((LogIndex(5), Stamp::CHOSEN)));
    cluster.restart(3);
    assert_eq!((cluster.decided(3), cluster.paxos(3).last_index()), (5, LogIndex(7)));
    cluster.receive(1, 3, Message::Prepare(Prepare { ballot: ballot(2, 1), from: LogIndex(1) }));
    cluster.node_mut(3).slow_disk = false;
    while cluster.load_one(3) || cluster.persist_one(3) {}
    let told = cluster.take_sent().into_iter().find_map(|letter| match letter.message {
        Message::Promise(promise) => Some(promise),
        _ => None,
    });
    let told = told.unwrap();
    let slots: Vec<u64> =
        told.votes.segments.iter().flat_map(|segment| segment.iter()).map(|entry| entry.index.0).collect();
    assert_eq!((told.decided.0, told.trimmed.0, slots), (5, 5, vec![6, 7]));
}

#[test]
fn what_a_snapshot_holds_is_never_voted_for_again() {
    let mut cluster = Cluster::with(3, MultiPaxos::config(), &[(3, disk_with_a_hole())]);
    cluster.scripted = true;
    cluster.offer(3, 1, through(5));
    let (of, first) = (ballot(2, 1), LogIndex(1));
    let again = entries(1, of, &["a", "b", "c", "d", "e", "f"]);
    let accept = Accept { ballot: of, first, commit: LogIndex(0), to_all: false, entries: again };
    cluster.receive(1, 3, Message::Accept(accept));
    cluster.settle();
    assert_eq!(cluster.rounds(3), [0, 0, 0, 0, 0, 2, 1]);
}

#[test]
fn a_snapshot_below_the_watermark_is_discarded() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.propose(1, &["a", "b"]);
    cluster.advance(4 * HEARTBEAT);
    let meta = cluster.snapshot_of(1, 2).unwrap();
    for id in [1, 2, 3] {
        cluster.offer(id, 1, meta.clone());
        assert_eq!(discards(&mut cluster, id), 1);
        assert_eq!((cluster.paxos(id).counters().installs, cluster.payloads(id).len()), (0, 2));
    }
}

#[test]
fn a_snapshot_of_something_else_than_paxos_is_refused() {
    let mut cluster = Cluster::led_by_one(3);
    let wrong = SnapshotMeta { stamp: ballot(1, 1).stamp(), ..through(40) };
    for meta in [wrong, through(u64::MAX)] {
        cluster.offer(3, 1, meta);
        assert_eq!(discards(&mut cluster, 3), 1);
    }
    assert_eq!((cluster.paxos(3).counters().snapshots_refused, cluster.decided(3)), (2, 0));
}

/// What a life took a snapshot of stands in its log, decided: the next one needs to replace nothing.
#[test]
fn a_replica_that_starts_from_its_own_snapshot_keeps_its_log() {
    let of = ballot(1, 2);
    let log = Disk::with_votes(&entries(1, of, &["a", "b", "c", "d"]), of);
    let mut cluster = Cluster::with(3, MultiPaxos::config(), &[(1, log.clone()), (3, log)]);
    cluster.scripted = true;
    cluster.offer(1, 1, through(3));
    assert_eq!((discards(&mut cluster, 1), cluster.decided(1)), (1, 3));
    assert_eq!(cluster.payloads(1), ["a", "b", "c"]);
    // Of somebody else's, it cannot tell whether they are the same values.
    cluster.offer(3, 1, through(3));
    assert_eq!((discards(&mut cluster, 3), cluster.decided(3)), (0, 3));
    assert_eq!(cluster.paxos(3).counters().installs, 1);
}

#[test]
fn its_own_snapshot_replaces_a_log_with_a_hole() {
    let mut cluster = Cluster::with(3, MultiPaxos::config(), &[(3, disk_with_a_hole())]);
    cluster.scripted = true;
    cluster.offer(3, 3, through(6));
    assert_eq!((cluster.decided(3), cluster.paxos(3).counters().installs), (6, 1));
}

/// It may have proposed something else there, and must not say that this was decided.
#[test]
fn a_leader_that_goes_on_from_a_snapshot_leads_no_more() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.scripted = true;
    cluster.isolate(1);
    cluster.propose(1, &["a", "b", "c"]);
    cluster.settle();
    cluster.offer(1, 2, through(2));
    assert_ne!(cluster.role(1), Role::Leader);
    assert_eq!((cluster.decided(1), cluster.paxos(1).last_index()), (2, LogIndex(3)));
}

#[test]
fn a_candidate_that_needs_a_snapshot_lets_others_lead_and_leads_itself_afterwards() {
    let mut cluster = compacted_without_three();
    cluster.snapshots = false;
    cluster.isolate(1);
    // Only the one that is behind hears time pass.
    cluster.cut(1, 3);
    cluster.heal_between(2, 3);
    cluster.now += Duration::from_secs(1);
    cluster.time_out(3);
    cluster.settle();
    assert_eq!(cluster.role(3), Role::Follower, "it gave up, since 2 is to send it a snapshot");
    cluster.advance(Duration::from_secs(2));
    assert_eq!(cluster.leader(), Some(2));
    cluster.snapshots = true;
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.decided(3), cluster.decided(2));
    cluster.crash(2);
    cluster.heal();
    cluster.isolate(2);
    cluster.advance(Duration::from_secs(3));
    assert!(cluster.leader().is_some());
}

#[test]
fn nothing_is_compacted_that_is_not_decided() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.isolate(1);
    cluster.propose(1, &["a", "b", "c"]);
    cluster.settle();
    cluster.compact(1, 3, 3);
    cluster.settle();
    assert_eq!(cluster.node(1).disk.compacted, None);
    assert!(cluster.paxos(1).describe(LogIndex(1)).is_none(), "it is not decided");
    cluster.heal();
    cluster.advance(Duration::from_secs(1));
    cluster.compact(1, 3, 900);
    cluster.settle();
    assert_eq!(cluster.node(1).disk.compacted.unwrap().0, LogIndex(3));
    assert_eq!(cluster.paxos(1).describe(LogIndex(3)).unwrap().stamp, Stamp::CHOSEN);
}
