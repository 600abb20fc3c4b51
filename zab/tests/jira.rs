//! Known faults of ZooKeeper's implementation, by their numbers, each as a scenario that this one passes.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, TIMEOUT, at, ending_at, entries};
use synod_core::{LogIndex, NodeId};
use synod_zab::{
    AckEpoch, Epoch, FollowerInfo, Message, NewEpoch, NewLeader, Notification, Place, Proposal, Rejection,
    Round, Session, Standing, Vote, Zab,
};

/// Replica 1 in a session with 3, which the test speaks for.
fn joined(disk: Disk) -> (Cluster, Session) {
    let mut cluster = Cluster::with(3, Zab::config(), &[(1, disk)]);
    cluster.scripted = true;
    cluster.isolate(1);
    let session = join_again(&mut cluster);
    (cluster, session)
}

fn join_again(cluster: &mut Cluster) -> Session {
    let vote = Vote { epoch: Epoch(9), last: cluster.zab(1).last_zxid(), node: NodeId(3) };
    let told = Notification { round: Round(1), standing: Standing::Established, vote: Some(vote) };
    cluster.receive(3, 1, Message::Notification(told));
    let hello = cluster.take_sent().into_iter().find_map(|letter| match letter.message {
        Message::FollowerInfo(FollowerInfo { attempt, .. }) => Some(attempt),
        _ => None,
    });
    let session =
        Session { epoch: cluster.zab(1).accepted_epoch().next(), attempt: hello.expect("it says hello") };
    cluster.receive(3, 1, Message::NewEpoch(NewEpoch { session }));
    cluster.persist(1);
    cluster.take_sent();
    session
}

fn proposal(session: Session, prev: Place, epochs: &[u64], commit: u64) -> Message {
    let entries = entries(prev, epochs);
    Message::Proposal(Proposal { session, prev, commit: LogIndex(commit), entries })
}

fn new_leader(session: Session, last: Place) -> Message {
    Message::NewLeader(NewLeader { session, last })
}

fn acks(cluster: &mut Cluster) -> Vec<u64> {
    let ack = |message| match message {
        Message::Ack(ack) => Some(ack.through.0),
        _ => None,
    };
    cluster.take_sent().into_iter().filter_map(|letter| ack(letter.message)).collect()
}

#[test]
fn zk3911_new_leader_is_acknowledged_only_with_its_history() {
    let (mut cluster, session) = joined(Disk::default());
    cluster.receive(3, 1, proposal(session, Place::ZERO, &[1, 1], 0));
    cluster.receive(3, 1, new_leader(session, at(1, 2, 2)));
    assert_eq!(acks(&mut cluster), [0u64; 0]);
    cluster.persist(1);
    assert_eq!(acks(&mut cluster), [2]);
}

#[test]
fn zk3023_the_acknowledgement_waits_for_the_sync_and_not_for_its_start() {
    let (mut cluster, session) = joined(Disk::default());
    cluster.receive(3, 1, proposal(session, Place::ZERO, &[1], 0));
    cluster.receive(3, 1, proposal(session, at(1, 1, 1), &[1], 0));
    cluster.receive(3, 1, new_leader(session, at(1, 2, 2)));
    cluster.persist_one(1);
    cluster.persist_one(1);
    assert_eq!(acks(&mut cluster), [0u64; 0], "the entries are durable, the epoch is not");
    cluster.persist_one(1);
    assert_eq!(acks(&mut cluster), [2]);
}

#[test]
fn zk4646_a_crash_before_the_write_leaves_nothing_acknowledged() {
    let (mut cluster, session) = joined(Disk::with_history(&[1], 1, 1));
    cluster.receive(3, 1, proposal(session, at(1, 1, 1), &[1], 0));
    cluster.receive(3, 1, new_leader(session, at(1, 2, 2)));
    assert_eq!(acks(&mut cluster), [0u64; 0]);
    cluster.restart(1);
    assert_eq!((cluster.current(1), cluster.epochs(1)), (1, vec![1]));
}

#[test]
fn zk4643_epoch_before_history() {
    // Whatever prefix of the writes survives, the current epoch is never there without its history.
    for survive in 0..4 {
        let (mut cluster, session) = joined(Disk::with_history(&[1], 1, 1));
        cluster.receive(3, 1, new_leader(session, at(1, 3, 3)));
        cluster.receive(3, 1, proposal(session, at(1, 1, 1), &[1], 0));
        cluster.receive(3, 1, proposal(session, at(1, 2, 2), &[1], 0));
        for _ in 0..survive {
            cluster.persist_one(1);
        }
        cluster.restart(1);
        let whole = cluster.epochs(1) == [1, 1, 1];
        assert_eq!(cluster.current(1) == session.epoch.0, whole, "after {survive} writes");
    }
}

#[test]
fn zk4394_decisions_told_before_the_end_of_a_synchronisation_do_no_harm() {
    let (mut cluster, session) = joined(Disk::default());
    cluster.receive(3, 1, proposal(session, Place::ZERO, &[1, 1], 2));
    assert_eq!(cluster.decided(1), 0, "not before NEWLEADER is acknowledged");
    cluster.receive(3, 1, new_leader(session, at(1, 2, 2)));
    cluster.receive(3, 1, proposal(session, at(1, 2, 2), &[1], 2));
    assert_eq!(cluster.decided(1), 2);
}

#[test]
fn zk4685_an_acknowledgement_of_a_proposal_never_comes_before_that_of_new_leader() {
    let (mut cluster, session) = joined(Disk::default());
    // The proposal that follows NEWLEADER overtakes it.
    cluster.receive(3, 1, proposal(session, Place::ZERO, &[1], 0));
    cluster.receive(3, 1, proposal(session, at(1, 1, 1), &[1], 0));
    cluster.persist(1);
    assert_eq!(acks(&mut cluster), [0u64; 0]);
    cluster.receive(3, 1, new_leader(session, at(1, 1, 1)));
    cluster.persist(1);
    assert_eq!(acks(&mut cluster), [2], "one message stands for both");
}

#[test]
fn zk4785_entries_written_by_an_earlier_unit_are_waited_for() {
    let (mut cluster, session) = joined(Disk::default());
    cluster.receive(3, 1, proposal(session, Place::ZERO, &[1, 1], 0));
    // All entries are issued; NEWLEADER adds its own unit behind theirs.
    cluster.receive(3, 1, new_leader(session, at(1, 2, 2)));
    cluster.persist_one(1);
    assert_eq!(acks(&mut cluster), [0u64; 0]);
    cluster.persist_one(1);
    assert_eq!(acks(&mut cluster), [2]);
}

#[test]
fn zk4712_what_an_earlier_session_sent_is_not_written_after_a_new_one_began() {
    let (mut cluster, before) = joined(Disk::default());
    cluster.receive(3, 1, proposal(before, Place::ZERO, &[1], 0));
    cluster.persist(1);
    cluster.advance_only(1, 2 * TIMEOUT);
    cluster.take_sent();
    let now = join_again(&mut cluster);
    assert_ne!(before, now);
    cluster.receive(3, 1, proposal(before, at(1, 1, 1), &[1], 0));
    cluster.receive(3, 1, new_leader(before, at(1, 1, 1)));
    cluster.persist(1);
    assert_eq!(cluster.epochs(1), [1]);
    assert!(acks(&mut cluster).is_empty() && cluster.zab(1).current_epoch() < now.epoch);
}

#[test]
fn zk4925_a_gap_is_never_appended_and_is_asked_for_again() {
    let (mut cluster, session) = joined(Disk::default());
    cluster.receive(3, 1, proposal(session, Place::ZERO, &[1], 0));
    cluster.receive(3, 1, new_leader(session, at(1, 1, 1)));
    cluster.persist(1);
    cluster.take_sent();
    cluster.receive(3, 1, proposal(session, at(1, 2, 2), &[1], 0));
    cluster.persist(1);
    assert_eq!(cluster.epochs(1), [1]);
    let sent: Vec<String> = cluster.take_sent().iter().map(ToString::to_string).collect();
    assert_eq!(sent, [format!("n1 -> n3 missing {session} prev 2 hint 1:1.1")]);
}

#[test]
fn zk2845_an_undecided_tail_of_another_epoch_is_never_taken_for_the_leaders() {
    // The position is within the leader's history; the zxid is not in it.
    let disks = [
        (1, Disk::with_history(&[1, 2, 2, 2], 3, 2)),
        (2, Disk::with_history(&[1, 3, 3, 3, 3, 3], 3, 3)),
        (3, Disk::with_history(&[1, 3, 3, 3, 3, 3], 3, 3)),
    ];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    cluster.elect();
    assert_eq!(cluster.epochs(1), [1, 3, 3, 3, 3, 3]);
}

#[test]
fn zk5094_an_interrupted_truncation_leaves_no_gap() {
    for survive in 0..3 {
        let (mut cluster, session) = joined(Disk::with_history(&[1, 2, 2], 2, 2));
        cluster.receive(3, 1, proposal(session, at(1, 1, 1), &[3], 0));
        cluster.receive(3, 1, new_leader(session, at(3, 1, 2)));
        for _ in 0..survive {
            cluster.persist_one(1);
        }
        cluster.restart(1);
        let want: &[u64] = if survive == 0 { &[1, 2, 2] } else { &[1, 3] };
        assert_eq!(cluster.epochs(1), want, "after {survive} writes");
        assert_eq!(cluster.zab(1).last_index().0 as usize, want.len());
    }
}

#[test]
fn zk3104_new_leader_that_overtakes_its_payload_waits_for_it() {
    let (mut cluster, session) = joined(Disk::default());
    cluster.receive(3, 1, new_leader(session, at(1, 2, 2)));
    cluster.persist(1);
    assert_eq!(cluster.zab(1).current_epoch(), Epoch(0));
    cluster.receive(3, 1, proposal(session, Place::ZERO, &[1, 1], 0));
    cluster.persist(1);
    assert_eq!(acks(&mut cluster), [2]);
}

#[test]
fn zk3104_new_leader_that_overtakes_a_snapshot_waits_for_it_and_for_what_follows_it() {
    let (mut cluster, session) = joined(Disk::with_history(&[1, 1], 2, 1));
    cluster.receive(3, 1, new_leader(session, at(2, 4, 9)));
    cluster.persist(1);
    assert_eq!(cluster.zab(1).current_epoch(), Epoch(1));
    cluster.offer(1, ending_at(at(2, 2, 7)));
    cluster.persist(1);
    assert_eq!((cluster.zab(1).current_epoch(), acks(&mut cluster)), (Epoch(1), vec![]));
    cluster.receive(3, 1, proposal(session, at(2, 2, 7), &[2, 2], 0));
    cluster.persist_one(1);
    assert_eq!((cluster.zab(1).current_epoch(), acks(&mut cluster)), (session.epoch, vec![9]));
}

#[test]
fn zk3642_an_interrupted_snapshot_leaves_the_former_history_or_its_own_and_no_mixture() {
    // Whatever prefix of the writes survives: what follows is put on the snapshot alone, and the epoch comes last.
    for survive in 0..5 {
        let (mut cluster, session) = joined(Disk::with_history(&[1, 2, 2, 2, 2, 2], 3, 2));
        cluster.offer(1, ending_at(at(3, 1, 3)));
        cluster.receive(3, 1, proposal(session, at(3, 1, 3), &[3], 0));
        cluster.receive(3, 1, proposal(session, at(3, 2, 4), &[3], 0));
        cluster.receive(3, 1, new_leader(session, at(3, 3, 5)));
        for _ in 0..survive {
            cluster.persist_one(1);
        }
        cluster.restart(1);
        let epochs: &[u64] = match survive {
            0 => &[1, 2, 2, 2, 2, 2],
            1 => &[],
            2 => &[3],
            _ => &[3, 3],
        };
        assert_eq!(cluster.epochs(1), epochs, "after {survive} writes");
        let current = if survive > 3 { session.epoch.0 } else { 2 };
        assert_eq!((cluster.current(1), cluster.decided(1) == 3), (current, survive > 0));
    }
}

#[test]
fn zk4837_nothing_is_cut_off_below_a_snapshot_that_a_start_begins_with() {
    // Its snapshot ends in the middle of its log; the host offers it after the start.
    let (mut cluster, session) = joined(Disk::with_history(&[1, 2, 2, 2], 2, 2));
    cluster.offer(1, ending_at(at(2, 2, 3)));
    assert_eq!(cluster.decided(1), 3);
    // No leader that a quorum promised an epoch lacks it.
    cluster.receive(3, 1, proposal(session, at(1, 1, 1), &[3], 0));
    cluster.persist(1);
    assert_eq!((cluster.epochs(1), acks(&mut cluster)), (vec![1, 2, 2, 2], vec![]));
    assert_eq!(cluster.zab(1).counters().last_rejection, Some(Rejection::Decided));
    // What stands beyond it may go.
    cluster.receive(3, 1, proposal(session, at(2, 2, 3), &[3], 0));
    cluster.receive(3, 1, new_leader(session, at(3, 1, 4)));
    cluster.persist(1);
    assert_eq!((cluster.epochs(1), acks(&mut cluster)), (vec![1, 2, 2, 3], vec![4]));
}

#[test]
fn zk2846_entries_brought_by_a_synchronisation_are_not_taken_for_decided() {
    let (mut cluster, session) = joined(Disk::default());
    cluster.receive(3, 1, proposal(session, Place::ZERO, &[1, 1, 1], 1));
    cluster.receive(3, 1, new_leader(session, at(1, 3, 3)));
    cluster.persist(1);
    assert_eq!(cluster.decided(1), 0);
}

#[test]
fn zk3526_zk4352_what_is_compacted_bounds_what_can_be_synchronised() {
    // A follower that needs a snapshot gets no difference in its place, and while none arrives it disturbs nobody.
    let mut whole = Disk::with_history(&[1, 1, 1, 1], 1, 1);
    whole.compact(2);
    let disks = [(2, whole.clone()), (3, whole)];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    assert_eq!(cluster.elect(), 3);
    cluster.propose(3, &["on"]);
    cluster.advance(4 * TIMEOUT);
    assert_eq!((cluster.epochs(1).len(), cluster.current(1)), (0, 0));
    assert!(cluster.zab(3).counters().out_of_reach > 0);
    assert_eq!((cluster.leader(), cluster.decided(2)), (Some(3), 5));
    cluster.snapshots = true;
    cluster.advance(4 * TIMEOUT);
    assert_eq!((cluster.current(1), cluster.decided(1)), (cluster.current(3), 5));
}

#[test]
fn zk1653_a_crash_between_the_history_and_the_epoch_starts_again() {
    // The end of the history is of a later epoch than the current one: it opens, and is synchronised anew.
    let disks = [(1, Disk::with_history(&[1, 2], 3, 1))];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    cluster.elect();
    cluster.propose(cluster.leader().unwrap(), &["on"]);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.decided(1), cluster.decided(2));
}

#[test]
fn zk1732_a_replica_that_promised_a_later_epoch_elsewhere_comes_back() {
    let mut cluster = Cluster::led(3);
    cluster.crash(1);
    let mut disk = cluster.node(1).disk.clone();
    disk.hard_state = Disk::with_history(&[], 5, 1).hard_state;
    cluster.node_mut(1).disk = disk;
    cluster.start(1);
    cluster.advance(8 * TIMEOUT);
    let leader = cluster.leader().expect("a leader of a later epoch");
    assert!(cluster.current(leader) > 5);
    assert_eq!(cluster.current(1), cluster.current(leader));
}

#[test]
fn zk1277_zxids_do_not_roll_over() {
    let high = synod_zab::Zxid { epoch: Epoch(1), counter: u64::from(u32::MAX) };
    assert_eq!(synod_zab::Zxid::of(high.stamp()), high);
    let next = synod_zab::Zxid { counter: high.counter + 1, ..high };
    assert!(next > high && synod_zab::Zxid { epoch: Epoch(2), counter: 1 } > next);
}

#[test]
fn a_promise_given_to_another_leader_of_the_same_epoch_elects_nobody_else() {
    let mut state = Disk::with_history(&[], 1, 0);
    state.hard_state = Some(synod_core::Wire::to_bytes(&synod_zab::HardState {
        accepted: Epoch(1),
        promised_to: Some(NodeId(2)),
        current: Epoch(0),
    }));
    let mut cluster = Cluster::with(3, Zab::config(), &[(1, state)]);
    cluster.scripted = true;
    cluster.isolate(1);
    let session = join_again(&mut cluster);
    assert_eq!(session.epoch, Epoch(2));
    cluster.advance_only(1, Duration::from_millis(1));
    // A second one, of the epoch that was promised to another.
    let session = Session { epoch: Epoch(1), ..session };
    cluster.receive(3, 1, Message::NewEpoch(NewEpoch { session }));
    let promised = cluster.take_sent().into_iter().any(|letter| {
        matches!(letter.message, Message::AckEpoch(AckEpoch { promised: true, session, .. }) if session.epoch == Epoch(1))
    });
    assert!(!promised);
}
