//! Compaction and SNAP: a follower that the leader's log does not reach goes on from a snapshot.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, arrived, at, ending_at, entries};
use synod_core::{Input, LogEvent, LogIndex, NodeId, Protocol, Role};
use synod_zab::{
    Ack, AckEpoch, Attempt, FollowerInfo, Message, NewEpoch, NewLeader, Notification, Place, Proposal,
    Received, Round, Session, Standing, Vote, Zab,
};

/// Replica 3 leads, 1 is cut off, and the log of the leader begins behind what 1 has.
fn leader_that_compacted() -> Cluster {
    let mut cluster = Cluster::led(3);
    cluster.snapshots = true;
    cluster.isolate(1);
    cluster.propose(3, &["a", "b", "c", "d", "e"]);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.decided(3), 5);
    cluster.compact(3, 5, 4);
    cluster.settle();
    assert_eq!(cluster.node(3).disk.compacted.unwrap().0, LogIndex(4));
    cluster
}

fn discards(cluster: &mut Cluster, id: u64) -> usize {
    cluster.take_events(id).iter().filter(|event| matches!(event, LogEvent::DiscardSnapshot(_))).count()
}

/// Replica 1 in a session with 3, which the test speaks for, in the epoch after all that it has promised.
fn joined(disk: Disk) -> (Cluster, Session) {
    let mut cluster = Cluster::with(3, Zab::config(), &[(1, disk)]);
    cluster.scripted = true;
    cluster.isolate(1);
    let vote =
        Vote { epoch: cluster.zab(1).current_epoch(), last: cluster.zab(1).last_zxid(), node: NodeId(3) };
    let told = Notification { round: Round(1), standing: Standing::Established, vote: Some(vote) };
    cluster.receive(3, 1, Message::Notification(told));
    let hello = cluster.take_sent().into_iter().find_map(|letter| match letter.message {
        Message::FollowerInfo(FollowerInfo { attempt, .. }) => Some(attempt),
        _ => None,
    });
    let epoch = cluster.zab(1).accepted_epoch().next();
    let session = Session { epoch, attempt: hello.expect("it says hello") };
    cluster.receive(3, 1, Message::NewEpoch(NewEpoch { session }));
    cluster.persist(1);
    cluster.take_sent();
    (cluster, session)
}

fn proposal(session: Session, prev: Place, epochs: &[u64], commit: u64) -> Message {
    let entries = entries(prev, epochs);
    Message::Proposal(Proposal { session, prev, commit: LogIndex(commit), entries })
}

fn acks(cluster: &mut Cluster) -> Vec<u64> {
    let ack = |message| match message {
        Message::Ack(ack) => Some(ack.through.0),
        _ => None,
    };
    cluster.take_sent().into_iter().filter_map(|letter| ack(letter.message)).collect()
}

#[test]
fn a_follower_behind_the_leaders_log_goes_on_from_a_snapshot() {
    let mut cluster = leader_that_compacted();
    cluster.heal();
    cluster.advance(Duration::from_secs(1));
    assert_eq!((cluster.decided(1), cluster.zab(1).last_index()), (5, LogIndex(5)));
    assert_eq!((cluster.zab(1).counters().installs, cluster.current(1)), (1, cluster.current(3)));
    cluster.propose(3, &["f"]);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.payloads(1), ["f"]);
    cluster.restart(1);
    cluster.propose(3, &["g"]);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.decided(1), 7, "it recovers from where the snapshot ends");
}

#[test]
fn a_follower_within_the_kept_tail_needs_no_snapshot() {
    let mut cluster = Cluster::led(3);
    cluster.propose(3, &["a"]);
    cluster.advance(HEARTBEAT);
    cluster.isolate(1);
    cluster.propose(3, &["b", "c", "d", "e"]);
    cluster.advance(HEARTBEAT);
    cluster.compact(3, 5, 1);
    cluster.heal();
    cluster.advance(Duration::from_secs(1));
    assert_eq!((cluster.decided(1), cluster.zab(1).counters().installs), (5, 0));
}

#[test]
fn a_history_that_parts_from_the_leaders_below_its_log_is_replaced_by_a_snapshot() {
    let mut whole = Disk::with_history(&[1, 3, 3, 3], 3, 3);
    whole.compact(3);
    let disks = [(1, Disk::with_history(&[1, 2, 2], 2, 2)), (2, whole.clone()), (3, whole)];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    cluster.snapshots = true;
    assert_eq!(cluster.elect(), 3);
    cluster.propose(3, &["on"]);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.zab(1).counters().installs, 1);
    assert_eq!((cluster.decided(1), cluster.current(1)), (5, cluster.current(3)));
}

#[test]
fn a_snapshot_that_does_not_arrive_is_asked_for_again_after_a_while() {
    let mut cluster = leader_that_compacted();
    cluster.snapshots = false;
    cluster.heal();
    cluster.advance(Duration::from_secs(3));
    let asked = |event: &LogEvent| *event == LogEvent::SendSnapshot { to: NodeId(1) };
    let asked = cluster.take_events(3).iter().filter(|event| asked(event)).count();
    assert!((2..=25).contains(&asked), "{asked} times in three seconds");
    assert_eq!(cluster.leader(), Some(3), "the follower waits and disturbs nobody");
    cluster.snapshots = true;
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.decided(1), 5);
}

#[test]
fn a_follower_that_falls_behind_the_log_in_its_session_goes_on_from_a_snapshot() {
    let mut cluster = Cluster::led(3);
    cluster.snapshots = true;
    // Proposals to it are lost, pings are not.
    cluster.propose(3, &["a", "b", "c"]);
    cluster.settle();
    cluster.propose(3, &["d", "e", "f"]);
    cluster.take(|letter| letter.to == 1 && matches!(letter.message, Message::Proposal(_)));
    cluster.settle();
    cluster.compact(3, 6, 5);
    cluster.advance(Duration::from_secs(1));
    assert_eq!((cluster.decided(1), cluster.zab(1).counters().installs), (6, 1));
    assert_eq!((cluster.current(1), cluster.zab(3).counters().elections), (1, 0));
}

/// A snapshot of an earlier leader ends a synchronisation in the middle of it (seed 103303 of the simulator).
#[test]
fn a_follower_that_has_all_of_it_from_elsewhere_is_told_of_the_new_leader() {
    let whole = Disk::with_history(&[1; 6], 1, 1);
    let config = Zab::config().proposal_entries_max(1);
    let mut cluster = Cluster::with(3, config, &[(2, whole.clone()), (3, whole)]);
    cluster.crash(1);
    assert_eq!(cluster.elect(), 3);
    cluster.take_sent();
    cluster.scripted = true;
    let attempt = Attempt(1);
    let session = Session { epoch: cluster.zab(3).current_epoch(), attempt };
    let last = at(1, 1, 1);
    cluster.receive(1, 3, Message::FollowerInfo(FollowerInfo { attempt, accepted: session.epoch }));
    let answer = AckEpoch { session, promised: true, current: last.zxid.epoch, last };
    cluster.receive(1, 3, Message::AckEpoch(answer));
    let announced = |cluster: &mut Cluster| {
        cluster.take_sent().iter().any(|letter| matches!(letter.message, Message::NewLeader(_)))
    };
    assert!(!announced(&mut cluster), "entries are to be sent first");
    cluster.receive(1, 3, Message::Received(Received { session, through: LogIndex(6) }));
    assert!(announced(&mut cluster));
    cluster.receive(1, 3, Message::Ack(Ack { session, through: LogIndex(6) }));
    assert_eq!(cluster.zab(3).counters().rejected, 0);
}

/// What stands in the history already stays, and what follows it too.
#[test]
fn a_snapshot_of_what_is_in_the_history_removes_nothing() {
    let (mut cluster, _) = joined(Disk::with_history(&[1, 1, 2, 2], 2, 2));
    cluster.take_events(1);
    cluster.offer(1, ending_at(at(2, 1, 3)));
    assert_eq!(discards(&mut cluster, 1), 1);
    assert_eq!((cluster.decided(1), cluster.epochs(1)), (3, vec![1, 1, 2, 2]));
}

#[test]
fn a_snapshot_of_another_history_replaces_all_of_it_in_one_unit_and_no_epoch_is_taken_over() {
    let (mut cluster, session) = joined(Disk::with_history(&[1, 1, 1, 1, 1, 1], 2, 1));
    cluster.node_mut(1).slow_disk = true;
    cluster.offer(1, ending_at(at(2, 2, 4)));
    assert_eq!((cluster.decided(1), cluster.zab(1).last_index()), (4, LogIndex(4)));
    assert_eq!(cluster.node(1).disk.last_index(), 6);
    assert!(cluster.persist_one(1));
    assert_eq!(cluster.node(1).disk.last_index(), 4);
    assert!(!cluster.persist_one(1), "one unit");
    assert_eq!(cluster.current(1), 1);
    cluster.receive(3, 1, proposal(session, at(2, 2, 4), &[2], 4));
    cluster.receive(3, 1, Message::NewLeader(NewLeader { session, last: at(2, 3, 5) }));
    assert_eq!(cluster.current(1), session.epoch.0);
    cluster.persist(1);
    assert_eq!(acks(&mut cluster), [5]);
    cluster.restart(1);
    assert_eq!((cluster.zab(1).last_index(), cluster.current(1)), (LogIndex(5), session.epoch.0));
}

#[test]
fn what_was_written_before_a_snapshot_proves_nothing_behind_it() {
    let (mut cluster, session) = joined(Disk::with_history(&[1], 3, 1));
    cluster.receive(3, 1, proposal(session, at(1, 1, 1), &[2, 2, 2], 0));
    cluster.receive(3, 1, proposal(session, at(2, 3, 4), &[2, 2], 0));
    // The session ends, and with it what was matched: the snapshot is of a leader that had another history.
    cluster.advance_only(1, 2 * harness::TIMEOUT);
    cluster.take_sent();
    cluster.offer(1, ending_at(at(3, 1, 3)));
    assert_eq!(cluster.zab(1).last_zxid(), at(3, 1, 3).zxid);
    cluster.persist_one(1);
    cluster.persist_one(1);
    cluster.compact(1, 3, 3);
    assert!(cluster.node(1).pending.iter().all(|unit| unit.compact_to.is_none()), "not before it is durable");
    cluster.persist(1);
    cluster.restart(1);
    assert_eq!(cluster.zab(1).last_index(), LogIndex(3));
}

#[test]
fn a_snapshot_that_ends_beyond_new_leader_stands_for_all_that_it_names() {
    let (mut cluster, session) = joined(Disk::with_history(&[1], 2, 1));
    cluster.receive(3, 1, Message::NewLeader(NewLeader { session, last: at(1, 3, 3) }));
    assert_eq!(cluster.current(1), 1);
    cluster.offer(1, ending_at(at(2, 2, 7)));
    assert_eq!(cluster.current(1), session.epoch.0, "in the unit that holds the snapshot");
    assert_eq!(cluster.node(1).pending.len(), 1);
    assert_eq!(acks(&mut cluster), [0u64; 0]);
    cluster.persist(1);
    assert_eq!(acks(&mut cluster), [7]);
}

#[test]
fn proposals_that_overlap_with_a_snapshot_are_taken_from_its_end_on() {
    let (mut cluster, session) = joined(Disk::with_history(&[1], 2, 1));
    cluster.offer(1, ending_at(at(1, 3, 3)));
    cluster.receive(3, 1, proposal(session, at(1, 1, 1), &[1, 1, 1, 1], 0));
    assert_eq!(cluster.zab(1).last_index(), LogIndex(5));
    // The snapshot's end is compared: another history is not taken for the leader's.
    cluster.receive(3, 1, proposal(session, at(1, 1, 1), &[2, 2, 2], 0));
    assert_eq!(cluster.zab(1).counters().rejected, 1);
    assert_eq!(cluster.epochs(1), [1, 1]);
}

#[test]
fn a_snapshot_below_what_is_decided_is_discarded() {
    let mut cluster = Cluster::led(3);
    cluster.propose(3, &["a", "b", "c"]);
    cluster.advance(HEARTBEAT);
    let meta = cluster.snapshot_of(1, 2).unwrap();
    for id in [1, 2, 3] {
        cluster.offer(id, meta.clone());
        assert_eq!(discards(&mut cluster, id), 1);
        assert_eq!(cluster.zab(id).last_index(), LogIndex(3));
    }
}

#[test]
fn what_no_correct_peer_sends_is_refused() {
    let mut cluster = Cluster::led(3);
    cluster.propose(3, &["a"]);
    cluster.advance(HEARTBEAT);
    cluster.take_events(3);
    cluster.offer(3, ending_at(at(1, 40, 40)));
    assert_eq!((discards(&mut cluster, 3), cluster.role(3)), (1, Role::Leader), "to its leader");
    assert_eq!((cluster.decided(3), cluster.zab(3).counters().snapshots_refused), (1, 1));

    let (mut follower, _) = joined(Disk::with_history(&[1, 3, 3], 3, 3));
    let wrong = [
        ("an epoch that was never promised", at(5, 1, 9)),
        ("no place of any history", at(3, 9, 8)),
        ("a later zxid without an earlier one that is decided", at(2, 1, 9)),
        ("the same", at(3, 2, 9)),
    ];
    for (what, place) in wrong {
        follower.take_events(1);
        let refused = follower.zab(1).counters().snapshots_refused;
        follower.offer(1, ending_at(place));
        assert_eq!(follower.zab(1).counters().snapshots_refused, refused + 1, "{what}");
        assert_eq!((discards(&mut follower, 1), follower.epochs(1)), (1, vec![1, 3, 3]), "{what}");
    }
}

#[test]
fn whoever_looks_votes_anew_with_what_a_snapshot_brought() {
    let mut cluster = Cluster::with(3, Zab::config(), &[(1, Disk::with_history(&[1, 1], 2, 1))]);
    cluster.scripted = true;
    cluster.isolate(1);
    cluster.time_out(1);
    let vote = Vote { epoch: cluster.zab(1).current_epoch(), last: at(1, 2, 2).zxid, node: NodeId(3) };
    let told = Notification { round: Round(1), standing: Standing::Looking, vote: Some(vote) };
    let told_again = Notification { round: Round(2), ..told };
    // Hears a vote and goes on from a snapshot in one batch: what leaves with it votes for no less.
    cluster.take_sent();
    let heard = Input::Receive { from: NodeId(3), message: Message::Notification(told) };
    cluster.batch(1, vec![heard, arrived(ending_at(at(2, 1, 7)))]);
    assert_eq!((cluster.decided(1), cluster.role(1)), (7, Role::Candidate));
    let told = |cluster: &mut Cluster| {
        let told = cluster.take_sent().into_iter().filter_map(|letter| match letter.message {
            Message::Notification(Notification { vote, .. }) => Some(vote.map(|vote| vote.last)),
            _ => None,
        });
        told.last()
    };
    assert_eq!(told(&mut cluster), Some(None), "a new election, in which it heard nobody yet");
    cluster.receive(3, 1, Message::Notification(told_again));
    assert_eq!(told(&mut cluster), Some(Some(at(2, 1, 7).zxid)));
}

#[test]
fn a_cluster_that_starts_from_a_snapshot_alone_leads_epochs_beyond_it() {
    let mut cluster = Cluster::new(3);
    cluster.snapshots = true;
    for id in 1..=3 {
        cluster.offer(id, ending_at(at(7, 12, 100)));
        assert_eq!((cluster.accepted(id), cluster.current(id), cluster.decided(id)), (7, 0, 100));
    }
    cluster.settle();
    cluster.restart(2);
    assert_eq!((cluster.accepted(2), cluster.zab(2).last_index()), (7, LogIndex(100)));
    let leader = cluster.elect();
    cluster.propose(leader, &["on"]);
    cluster.advance(Duration::from_secs(1));
    for id in 1..=3 {
        assert_eq!((cluster.current(id), cluster.decided(id)), (8, 101));
        assert_eq!(cluster.zab(id).counters().rejected, 0);
    }
}

#[test]
fn a_prospective_leader_that_goes_on_from_a_snapshot_is_elected_anew() {
    let disks = [1, 2, 3].map(|id| (id, Disk::with_history(&[1, 1], 2, 1)));
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    cluster.snapshots = true;
    cluster.node_mut(3).slow_disk = true;
    for _ in 0..20 {
        cluster.advance(Duration::from_millis(2));
    }
    assert_eq!(
        (cluster.role(3), cluster.accepted(3)),
        (Role::Candidate, 3),
        "its promise is not on its disk"
    );
    cluster.scripted = true;
    cluster.offer(3, ending_at(at(2, 1, 7)));
    assert_eq!((cluster.role(3), cluster.decided(3)), (Role::Candidate, 7));
    assert_eq!(cluster.zab(3).counters().elections, 1);
    cluster.node_mut(3).slow_disk = false;
    cluster.advance(Duration::from_secs(1));
    let leads = cluster.leader();
    assert_eq!((leads, cluster.current(1) > 3), (Some(3), true));
}

#[test]
fn nothing_is_compacted_that_is_not_on_this_disk_or_not_decided() {
    let mut cluster = Cluster::led(3);
    cluster.propose(3, &["a"]);
    cluster.advance(HEARTBEAT);
    cluster.node_mut(3).slow_disk = true;
    cluster.propose(3, &["b", "c", "d"]);
    cluster.settle();
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.decided(3), 4, "the others hold it");
    cluster.compact(3, 4, 4);
    cluster.node_mut(3).slow_disk = false;
    cluster.settle();
    assert_eq!(cluster.node(3).disk.compacted.unwrap().0, LogIndex(1));
    cluster.compact(3, 4, 900);
    cluster.settle();
    assert_eq!(cluster.node(3).disk.compacted.unwrap().0, LogIndex(4));
    assert!(cluster.zab(3).describe(LogIndex(3)).is_none(), "its zxid is not known any more");
    assert_eq!(cluster.zab(3).describe(LogIndex(4)).unwrap().stamp, at(1, 4, 4).zxid.stamp());
    assert!(cluster.zab(3).describe(LogIndex(5)).is_none(), "it is not decided");
}

#[test]
fn an_acknowledged_epoch_tells_where_a_snapshot_ends() {
    let (mut cluster, session) = joined(Disk::with_history(&[1], 2, 1));
    cluster.offer(1, ending_at(at(2, 1, 7)));
    cluster.persist(1);
    cluster.receive(3, 1, Message::NewEpoch(NewEpoch { session }));
    let told = cluster.take_sent().into_iter().find_map(|letter| match letter.message {
        Message::AckEpoch(AckEpoch { current, last, .. }) => Some((current.0, last)),
        _ => None,
    });
    assert_eq!(told, Some((1, at(2, 1, 7))));
}
