//! The phases and properties of ZAB, one test per rule. "Section" and "phase" mean Junqueira, Reed, Serafini,
//! "Zab: High-performance broadcast for primary-backup systems" (DSN 2011).

mod harness;

use harness::{Cluster, Disk, HEARTBEAT, TIMEOUT, at, entries};
use std::time::Duration;
use synod_core::{Input, LogCall, LogEvent, LogIndex, NodeId, ReadId, ReadMode, Refusal, Role};
use synod_zab::{
    Ack, AckEpoch, Attempt, Commit, Epoch, FollowerInfo, Message, Missing, NewEpoch, NewLeader, Proposal,
    Rejection, Session, Zab,
};

/// What left, as lines.
fn lines(cluster: &mut Cluster) -> Vec<String> {
    cluster.take_sent().iter().map(ToString::to_string).collect()
}

fn commands(cluster: &mut Cluster, leader: u64, count: usize) {
    for number in 0..count {
        cluster.propose(leader, &[&number.to_string()]);
        cluster.settle();
    }
    cluster.advance(HEARTBEAT);
}

#[test]
fn among_equal_histories_the_highest_id_leads_as_with_bully() {
    let cluster = Cluster::led(5);
    assert_eq!(cluster.leader(), Some(5));
    assert_eq!(cluster.current(1), 1);
}

#[test]
fn the_later_current_epoch_wins_over_a_longer_history_and_a_higher_id() {
    let disks = [
        (1, Disk::with_history(&[1, 2], 2, 2)),
        (2, Disk::with_history(&[1, 1, 1, 1], 2, 1)),
        (3, Disk::with_history(&[1, 1, 1], 2, 1)),
    ];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    assert_eq!(cluster.elect(), 1);
    for id in 1..=3 {
        assert_eq!(cluster.epochs(id), [1, 2], "the others take over its history");
    }
}

#[test]
fn in_the_same_epoch_the_longer_history_wins() {
    let disks = [
        (1, Disk::with_history(&[1, 1, 1], 1, 1)),
        (2, Disk::with_history(&[1, 1], 1, 1)),
        (3, Disk::with_history(&[1], 1, 1)),
    ];
    assert_eq!(Cluster::with(3, Zab::config(), &disks).elect(), 1);
}

#[test]
fn a_minority_elects_nobody() {
    let mut cluster = Cluster::new(5);
    cluster.cut(1, 3);
    for (a, b) in [(1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)] {
        cluster.cut(a, b);
    }
    cluster.advance(20 * TIMEOUT);
    assert_eq!(cluster.leader(), Some(5));
    for id in [1, 2] {
        assert_eq!((cluster.role(id), cluster.accepted(id)), (Role::Candidate, 0), "not even prospective");
    }
}

#[test]
fn a_leader_takes_an_epoch_above_all_that_a_quorum_promised() {
    // Phase 1, step 2.
    let disks = [(1, Disk::with_history(&[1], 7, 1)), (2, Disk::with_history(&[1], 4, 1))];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    cluster.elect();
    cluster.advance(6 * TIMEOUT);
    assert_eq!(cluster.accepted(1), 8);
}

#[test]
fn a_promise_is_durable_before_it_is_told() {
    // Phase 1, step 3: the harness checks every message; here the write is seen to be waited for.
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.node_mut(2).slow_disk = true;
    cluster.advance(Duration::from_millis(40));
    assert!(!lines(&mut cluster).iter().any(|line| line.contains("ack-epoch")));
    cluster.persist(1);
    assert!(lines(&mut cluster).iter().any(|line| line.starts_with("n1 -> n3 ack-epoch e1")));
}

#[test]
fn a_promise_survives_a_restart_and_is_given_once() {
    // Phase 1, step 3: "if e' > f.p".
    let mut cluster = Cluster::led(3);
    cluster.isolate(3);
    cluster.advance(2 * TIMEOUT);
    assert_eq!(cluster.accepted(1), 2);
    cluster.restart(1);
    assert_eq!((cluster.accepted(1), cluster.current(1)), (2, 2));
}

/// Replica 1 follows 3, which the test speaks for, in a cluster of which it is told what to believe.
fn following_a_script(disk: Disk) -> (Cluster, Session) {
    let mut cluster = Cluster::with(3, Zab::config(), &[(1, disk)]);
    cluster.scripted = true;
    cluster.isolate(1);
    let last = cluster.zab(1).last_zxid();
    let epoch = cluster.zab(1).current_epoch().max(Epoch(1));
    let vote = synod_zab::Vote { epoch, last, node: NodeId(3) };
    let told = synod_zab::Notification {
        round: synod_zab::Round(1),
        standing: synod_zab::Standing::Established,
        vote: Some(vote),
    };
    cluster.receive(3, 1, Message::Notification(told));
    let sent = cluster.take_sent();
    let attempt = sent.iter().find_map(|letter| match letter.message {
        Message::FollowerInfo(FollowerInfo { attempt, .. }) => Some(attempt),
        _ => None,
    });
    let epoch = cluster.zab(1).accepted_epoch().next();
    (cluster, Session { epoch, attempt: attempt.expect("it says hello") })
}

fn joined(disk: Disk) -> (Cluster, Session) {
    let (mut cluster, session) = following_a_script(disk);
    cluster.receive(3, 1, Message::NewEpoch(NewEpoch { session }));
    cluster.persist(1);
    cluster.take_sent();
    (cluster, session)
}

#[test]
fn an_acknowledged_epoch_tells_the_current_one_and_the_end_of_the_history() {
    // Phase 1, step 3: ACK-E(f.a, h_f).
    let (mut cluster, session) = following_a_script(Disk::with_history(&[1, 2, 2], 4, 2));
    cluster.receive(3, 1, Message::NewEpoch(NewEpoch { session }));
    cluster.persist(1);
    let ack = AckEpoch { session, promised: true, current: Epoch(2), last: at(2, 2, 3) };
    assert_eq!(cluster.take_sent()[0].message, Message::AckEpoch(ack));
}

#[test]
fn a_prospective_leader_that_is_behind_a_follower_gives_up() {
    // Phase 1, end, with the history of the paper's phase 2 chosen by election: ambiguity S4.
    let mut cluster = Cluster::new(3);
    cluster.isolate(3);
    cluster.scripted = true;
    // The test speaks for 1 and 2, which vote for 3 and turn out to have more.
    let mut attempt = None;
    for _ in 0..4 {
        cluster.time_out(3);
        let vote = synod_zab::Vote { epoch: Epoch(0), last: synod_zab::Zxid::ZERO, node: NodeId(3) };
        for id in [1, 2] {
            let told = synod_zab::Notification {
                round: synod_zab::Round(1),
                standing: synod_zab::Standing::Looking,
                vote: Some(vote),
            };
            cluster.receive(id, 3, Message::Notification(told));
        }
        if cluster.zab(3).counters().elections_won > 0 {
            attempt = Some(Attempt(1));
            break;
        }
    }
    let attempt = attempt.expect("it believes its election");
    cluster.receive(1, 3, Message::FollowerInfo(FollowerInfo { attempt, accepted: Epoch(1) }));
    cluster.persist(3);
    let session = Session { epoch: Epoch(2), attempt };
    let ahead = AckEpoch { session, promised: true, current: Epoch(1), last: at(1, 1, 1) };
    cluster.receive(1, 3, Message::AckEpoch(ahead));
    assert_eq!(cluster.zab(3).counters().outdone, 1);
    assert_eq!(cluster.current(3), 0, "it never made the epoch its own");
}

#[test]
fn a_vote_for_a_history_that_a_crash_shortened_loses_nothing() {
    // Its voters know of entries that the elected one voted with and no longer has: only ACK-E tells (S4).
    let mut cluster = Cluster::led(3);
    cluster.advance(2 * HEARTBEAT);
    cluster.node_mut(3).slow_disk = true;
    cluster.propose(3, &["a"]);
    cluster.settle();
    cluster.propose(3, &["b"]);
    cluster.settle();
    assert_eq!([1, 2, 3].map(|id| cluster.decided(id)), [1, 1, 2], "the two others decided and do not know");
    cluster.isolate(3);
    cluster.propose(3, &["c"]);
    cluster.advance(HEARTBEAT);
    cluster.persist_one(3);
    // Its disk moves, so it votes for itself, with what is not durable there.
    while cluster.role(3) == Role::Leader {
        cluster.advance(HEARTBEAT / 10);
    }
    cluster.heal();
    let voted = |cluster: &Cluster| {
        let lost = synod_zab::Zxid { epoch: Epoch(1), counter: 3 };
        [1, 2].map(|id| {
            cluster.sent.iter().any(|letter| {
                letter.from == id
                    && matches!(&letter.message, Message::Notification(synod_zab::Notification { vote: Some(vote), .. })
                        if vote.last == lost && vote.node == NodeId(3))
            })
        })
    };
    for _ in 0..100 {
        if voted(&cluster) == [true, true] {
            break;
        }
        // One step of the election at a time: nobody believes it yet.
        match cluster.network.pop_front() {
            Some(letter) => cluster.deliver(letter),
            None => {
                for id in 1..=3 {
                    cluster.time_out(id);
                }
            }
        }
    }
    assert_eq!(voted(&cluster), [true, true], "both have voted for it");
    cluster.restart(3);
    cluster.node_mut(3).slow_disk = false;
    assert_eq!(cluster.zab(3).last_index(), LogIndex(1), "a alone is left of a, b and c");
    cluster.advance(20 * TIMEOUT);
    for id in 1..=3 {
        assert_eq!(cluster.payloads(id), ["a", "b"], "n{id}");
    }
    assert!(cluster.zab(3).counters().outdone > 0, "it was elected with a history that it no longer has");
}

#[test]
fn an_answer_to_what_a_leader_lost_in_a_crash_is_late_and_not_wrong() {
    let mut cluster = Cluster::led(3);
    cluster.node_mut(3).slow_disk = true;
    cluster.propose(3, &["a"]);
    cluster.settle();
    let session = Session { epoch: Epoch(1), attempt: Attempt(1 << 32 | 1) };
    cluster.restart(3);
    assert_eq!(cluster.zab(3).last_index(), LogIndex(0));
    let missing = Missing { session, prev: LogIndex(1), hint: at(0, 0, 0) };
    cluster.receive(1, 3, Message::Missing(missing));
    assert_eq!(cluster.zab(3).counters().rejected, 0);
}

#[test]
fn a_leader_that_contradicts_what_it_said_is_not_believed() {
    let (mut cluster, session) = joined(Disk::with_history(&[], 3, 3));
    let first = at(0, 0, 0);
    let proposal = |epochs: &[u64]| {
        let entries = entries(first, epochs);
        Message::Proposal(Proposal { session, prev: first, commit: LogIndex(0), entries })
    };
    cluster.receive(3, 1, proposal(&[2, 2, 2]));
    cluster.receive(3, 1, proposal(&[3]));
    assert_eq!(cluster.zab(1).counters().last_rejection, Some(Rejection::Entries));
    cluster.receive(3, 1, Message::NewLeader(NewLeader { session, last: at(3, 1, 1) }));
    cluster.persist(1);
    cluster.receive(3, 1, Message::Commit(Commit { session, through: LogIndex(3) }));
    assert_eq!((cluster.epochs(1), cluster.current(1), cluster.decided(1)), (vec![2, 2, 2], 3, 0));
}

#[test]
fn diff_brings_what_a_follower_lacks() {
    // Phase 2.
    let disks = [
        (1, Disk::with_history(&[1, 1, 2], 2, 2)),
        (2, Disk::with_history(&[1], 1, 1)),
        (3, Disk::default()),
    ];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    cluster.elect();
    for id in [2, 3] {
        assert_eq!(cluster.epochs(id), [1, 1, 2]);
        assert_eq!(cluster.decided(id), 3, "a synchronised history is decided");
    }
}

#[test]
fn trunc_cuts_off_what_the_leader_does_not_have() {
    let disks = [
        (1, Disk::with_history(&[1, 1, 3], 3, 3)),
        (2, Disk::with_history(&[1, 1, 2, 2, 2], 3, 2)),
        (3, Disk::with_history(&[1, 1, 1, 1], 3, 1)),
    ];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    assert_eq!(cluster.elect(), 1);
    for id in 1..=3 {
        assert_eq!(cluster.epochs(id), [1, 1, 3]);
    }
}

#[test]
fn a_tail_beyond_the_leaders_history_is_cut_off_by_new_leader_alone() {
    let disks = [
        (1, Disk::with_history(&[1, 1], 3, 3)),
        (2, Disk::with_history(&[1, 1, 2, 2], 3, 2)),
        (3, Disk::with_history(&[1, 1], 3, 2)),
    ];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    assert_eq!(cluster.elect(), 1);
    assert_eq!(cluster.epochs(2), [1, 1]);
    assert_eq!(cluster.zab(2).counters().truncations, 1);
}

#[test]
fn new_leader_names_its_last_zxid_and_is_sent_after_the_payload() {
    let disks = [(3, Disk::with_history(&[1, 1, 1], 1, 1))];
    let config = Zab::config().proposal_entries_max(1);
    let mut cluster = Cluster::with(3, config, &disks);
    cluster.elect();
    let sent = lines(&mut cluster);
    let to_one: Vec<&String> = sent.iter().filter(|line| line.starts_with("n3 -> n1")).collect();
    let announced = to_one.iter().position(|line| line.contains("new-leader")).unwrap();
    let last = to_one.iter().position(|line| line.contains("entries 3..4")).unwrap();
    assert!(last < announced);
    assert!(to_one[announced].ends_with("last 3:1.3"));
}

#[test]
fn a_synchronisation_of_several_writes_holds_the_current_epoch_in_the_last() {
    let (mut cluster, session) = joined(Disk::with_history(&[1], 1, 1));
    let proposal = |prev, epochs: &[u64]| {
        let entries = entries(prev, epochs);
        Message::Proposal(Proposal { session, prev, commit: LogIndex(0), entries })
    };
    cluster.receive(3, 1, proposal(at(1, 1, 1), &[1, 1]));
    cluster.receive(3, 1, Message::NewLeader(NewLeader { session, last: at(1, 5, 5) }));
    cluster.receive(3, 1, proposal(at(1, 3, 3), &[1]));
    assert_eq!(cluster.current(1), 1);
    cluster.receive(3, 1, proposal(at(1, 4, 4), &[1]));
    let states: Vec<bool> = cluster.node(1).pending.iter().map(|unit| unit.hard_state.is_some()).collect();
    assert_eq!(states, [false, false, true]);
    assert_eq!(cluster.zab(1).current_epoch(), session.epoch);
    assert!(!lines(&mut cluster).iter().any(|line| line.contains(" ack ")), "nothing is durable yet");
    cluster.persist(1);
    let last = cluster.take_sent().pop().unwrap().message;
    assert_eq!(last, Message::Ack(Ack { session, through: LogIndex(5) }));
}

#[test]
fn proposals_go_to_everybody_who_acknowledged_the_epoch() {
    // Ambiguity S1: a follower that has not acknowledged NEWLEADER gets them too.
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.isolate(1);
    cluster.elect();
    cluster.heal();
    // Its promise becomes durable, and what it gets in the synchronisation does not.
    cluster.advance(2 * TIMEOUT);
    while cluster.persist_one(1) && cluster.accepted(1) == 0 {}
    cluster.settle();
    cluster.take_sent();
    commands(&mut cluster, 3, 1);
    let sent = lines(&mut cluster);
    assert!(sent.iter().any(|line| line.starts_with("n3 -> n1 proposal") && line.contains("entries 1..2")));
    cluster.node_mut(1).slow_disk = false;
    cluster.advance(TIMEOUT);
    assert_eq!(cluster.decided(1), 1);
}

#[test]
fn an_entry_that_comes_twice_is_taken_once() {
    // Ambiguity S2: the initial history and the first proposals overlap at a joiner.
    let (mut cluster, session) = joined(Disk::default());
    let proposal = |prev, epochs: &[u64]| {
        let entries = entries(prev, epochs);
        Message::Proposal(Proposal { session, prev, commit: LogIndex(0), entries })
    };
    cluster.receive(3, 1, proposal(synod_zab::Place::ZERO, &[1, 1]));
    cluster.receive(3, 1, Message::NewLeader(NewLeader { session, last: at(1, 2, 2) }));
    cluster.receive(3, 1, proposal(at(1, 1, 1), &[1, 1]));
    cluster.receive(3, 1, proposal(synod_zab::Place::ZERO, &[1]));
    cluster.persist(1);
    assert_eq!(cluster.epochs(1), [1, 1, 1]);
    assert_eq!(cluster.zab(1).counters().truncations, 0);
}

#[test]
fn up_to_date_carries_the_latest_decision() {
    // Ambiguity S3: what was decided between NEWLEADER and its acknowledgement is not missed.
    let mut cluster = Cluster::led(3);
    commands(&mut cluster, 3, 2);
    cluster.crash(1);
    cluster.start(1);
    cluster.node_mut(1).slow_disk = true;
    cluster.advance(Duration::from_millis(60));
    cluster.propose(3, &["meanwhile"]);
    cluster.advance(Duration::from_millis(20));
    assert_eq!(cluster.decided(3), 3);
    cluster.take_sent();
    cluster.node_mut(1).slow_disk = false;
    cluster.advance(Duration::from_millis(60));
    assert_eq!(cluster.decided(1), 3);
}

#[test]
fn entries_are_decided_by_a_quorum_and_in_zxid_order() {
    // Phase 3, step 2.
    let mut cluster = Cluster::led(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.node_mut(2).slow_disk = true;
    cluster.propose(3, &["a"]);
    cluster.settle();
    cluster.propose(3, &["b"]);
    cluster.settle();
    assert_eq!(cluster.decided(3), 0, "a leader alone is no quorum");
    cluster.persist(2);
    cluster.settle();
    assert_eq!(cluster.decided(3), 2);
    assert_eq!(cluster.payloads(3), ["a", "b"]);
}

#[test]
fn a_leader_does_not_count_itself_before_its_disk_does() {
    let mut cluster = Cluster::led(3);
    cluster.node_mut(3).slow_disk = true;
    cluster.node_mut(1).slow_disk = true;
    cluster.propose(3, &["a"]);
    cluster.settle();
    assert_eq!(cluster.decided(3), 0);
    cluster.persist(3);
    assert_eq!(cluster.decided(3), 1);
}

#[test]
fn the_counter_begins_anew_with_each_epoch_and_has_no_holes() {
    // Section 4: zxid = (epoch, counter).
    let mut cluster = Cluster::led(3);
    commands(&mut cluster, 3, 2);
    cluster.isolate(3);
    cluster.advance(3 * TIMEOUT);
    let leader = cluster.leader().filter(|id| *id != 3).unwrap();
    commands(&mut cluster, leader, 2);
    let zxids: Vec<String> = cluster
        .node(leader)
        .disk
        .log
        .segments()
        .flat_map(|s| s.iter())
        .map(|entry| entry.stamp.to_string())
        .collect();
    assert_eq!(zxids, ["1.1", "1.2", "2.1", "2.2"]);
}

#[test]
fn a_leader_broadcasts_only_after_it_delivered_all_earlier_epochs() {
    // Section 4.3, primary integrity.
    let disks = [
        (1, Disk::with_history(&[1, 1], 1, 1)),
        (2, Disk::with_history(&[1, 1], 1, 1)),
        (3, Disk::with_history(&[1, 1], 1, 1)),
    ];
    let mut cluster = Cluster::with(3, Zab::config(), &disks);
    cluster.node_mut(1).slow_disk = true;
    cluster.node_mut(2).slow_disk = true;
    cluster.advance(Duration::from_millis(40));
    cluster.persist_one(1);
    cluster.settle();
    assert_eq!((cluster.role(3), cluster.current(3)), (Role::Candidate, 2), "it synchronises");
    cluster.propose(3, &["early"]);
    let refused = cluster
        .take_events(3)
        .into_iter()
        .any(|event| matches!(event, LogEvent::Refused { why: Refusal::NotLeader { leader: None }, .. }));
    assert!(refused);
    cluster.persist(1);
    cluster.settle();
    assert_eq!((cluster.role(3), cluster.decided(3)), (Role::Leader, 2));
}

#[test]
fn a_deposed_leaders_entries_are_not_taken_in_a_later_epoch() {
    // Section 4.3, global primary order.
    let mut cluster = Cluster::led(3);
    cluster.isolate(3);
    cluster.propose(3, &["lost"]);
    cluster.settle();
    cluster.advance(3 * TIMEOUT);
    let leader = cluster.leader().unwrap();
    cluster.propose(leader, &["kept"]);
    cluster.settle();
    cluster.heal();
    cluster.advance(3 * TIMEOUT);
    for id in 1..=3 {
        assert_eq!(cluster.payloads(id), ["kept"]);
    }
}

#[test]
fn a_read_is_a_true_sync_confirmed_by_pings_sent_after_it_came() {
    let mut cluster = Cluster::led(3);
    commands(&mut cluster, 3, 1);
    cluster.take_events(3);
    cluster.isolate(3);
    cluster.read(3, 1);
    cluster.settle();
    assert!(!cluster.take_events(3).iter().any(|event| matches!(event, LogEvent::ReadReady { .. })));
    cluster.heal();
    cluster.read(3, 2);
    cluster.settle();
    let ready: Vec<LogEvent> = cluster.take_events(3);
    assert!(ready.contains(&LogEvent::ReadReady { id: ReadId(2), index: LogIndex(1) }));
}

#[test]
fn a_read_that_may_rest_on_a_lease_is_confirmed_like_any_other() {
    let mut cluster = Cluster::led(3);
    commands(&mut cluster, 3, 1);
    cluster.settle();
    cluster.take_events(3);
    cluster.take_sent();
    let ready = LogEvent::ReadReady { id: ReadId(1), index: LogIndex(1) };
    cluster.step(3, Input::Call(LogCall::Read { id: ReadId(1), mode: ReadMode::Lease }));
    assert!(!cluster.take_events(3).contains(&ready), "not before anybody was asked");
    cluster.settle();
    assert!(cluster.take_events(3).contains(&ready));
    let pings = cluster.take_sent().into_iter().filter(|letter| matches!(letter.message, Message::Ping(_)));
    assert_eq!(pings.count(), 2);
}

#[test]
fn a_leader_without_a_quorum_steps_down_and_fails_its_reads() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(3);
    cluster.read(3, 1);
    cluster.advance(3 * TIMEOUT);
    assert_eq!(cluster.role(3), Role::Candidate);
    let failed = LogEvent::ReadFailed { id: ReadId(1), why: Refusal::LeadershipLost };
    assert!(cluster.take_events(3).contains(&failed));
}
