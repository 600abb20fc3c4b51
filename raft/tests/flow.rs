//! How appends flow: windows, batches, probes, old entries from storage, commit notices, reads in rounds.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, Letter, TIMEOUT, at, command};
use synod_core::{
    Compacted, Entry, Input, LogCall, LogEvent, LogIndex, Machine, NodeId, ReadId, ReadMode, Refusal, Role,
};
use synod_raft::{Append, Appended, CommitNotice, HeartbeatReply, Message, Raft, Round, Term};

fn appends(letters: &[Letter], to: u64) -> Vec<(u64, usize)> {
    letters
        .iter()
        .filter(|letter| letter.to == to)
        .filter_map(|letter| match &letter.message {
            Message::Append(Append { prev, entries, .. }) => Some((prev.index.0, entries.len())),
            _ => None,
        })
        .collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:03}")).collect()
}

fn propose_all(cluster: &mut Cluster, payloads: &[String]) {
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    cluster.propose(1, &payloads);
}

fn led_by_one(config: synod_raft::RaftConfig, count: u64) -> Cluster {
    let mut cluster = Cluster::with(count, config, &[]);
    cluster.elect(1);
    cluster.advance(HEARTBEAT);
    cluster.take_sent();
    cluster.take_events(1);
    cluster
}

#[test]
fn proposals_of_one_batch_make_one_segment_and_one_append() {
    let mut cluster = led_by_one(Raft::config(), 3);
    let propose = |payload: &str| Input::Call(LogCall::Propose(vec![command(payload)]));
    cluster.batch(1, ["a", "b", "c"].map(propose).into());
    assert_eq!(appends(&cluster.take_sent(), 2), [(1, 3)]);
    assert_eq!(cluster.node(1).pending[0].puts.len(), 1);
    cluster.settle();
    assert_eq!(cluster.payloads(1), ["a", "b", "c"]);
}

#[test]
fn no_more_than_the_window_is_in_flight() {
    let mut cluster = led_by_one(Raft::config().window_entries_max(4).append_entries_max(3), 2);
    propose_all(&mut cluster, &numbered(10));
    assert_eq!(appends(&cluster.take_sent(), 2), [(1, 3), (4, 1)]);
    let first = cluster.network.pop_front().unwrap();
    cluster.deliver(first);
    cluster.persist(2);
    let ack = cluster.take(|letter| letter.to == 1).remove(0);
    cluster.take_sent();
    cluster.deliver(ack);
    assert_eq!(appends(&cluster.take_sent(), 2), [(5, 3)], "three places came free");
    cluster.settle();
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.payloads(2), numbered(10));
}

#[test]
fn the_window_counts_bytes_too() {
    let entry = Entry::OVERHEAD + 3;
    let mut cluster = led_by_one(Raft::config().window_bytes_max(5 * entry).append_bytes_max(2 * entry), 2);
    propose_all(&mut cluster, &numbered(20));
    assert_eq!(appends(&cluster.take_sent(), 2), [(1, 2), (3, 2), (5, 1)]);
    cluster.settle();
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.payloads(2), numbered(20));
}

#[test]
fn an_entry_larger_than_a_message_travels_alone() {
    let mut cluster = led_by_one(Raft::config().append_bytes_max(1).window_bytes_max(1), 2);
    propose_all(&mut cluster, &numbered(3));
    assert_eq!(appends(&cluster.take_sent(), 2), [(1, 1)]);
    cluster.settle();
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.payloads(2), numbered(3));
}

#[test]
fn proposals_beyond_what_may_be_undecided_are_handed_back_in_order() {
    let mut cluster = led_by_one(Raft::config().uncommitted_entries_max(3), 3);
    cluster.crash(2);
    cluster.crash(3);
    cluster.propose(1, &["a", "b"]);
    cluster.propose(1, &["c", "d", "e"]);
    let refused = |payload: &str| LogEvent::Refused { command: command(payload), why: Refusal::Full };
    assert_eq!(cluster.take_events(1), [refused("d"), refused("e")]);
    assert_eq!(cluster.raft(1).last_index(), LogIndex(4));
}

#[test]
fn bytes_that_may_be_undecided_are_bounded_and_what_never_fits_is_told_apart() {
    let entry = Entry::OVERHEAD + 1;
    let mut cluster = led_by_one(Raft::config().uncommitted_bytes_max(3 * entry), 3);
    cluster.isolate(1);
    let huge = "x".repeat(3 * entry);
    cluster.propose(1, &["a", &huge, "b", "c", "d", "e"]);
    let refused: Vec<_> = cluster
        .take_events(1)
        .into_iter()
        .map(|event| match event {
            LogEvent::Refused { command, why } => (command.payload.len(), why),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(refused, [(huge.len(), Refusal::TooLarge), (1, Refusal::Full), (1, Refusal::Full)]);
    cluster.heal();
    cluster.advance(2 * HEARTBEAT);
    cluster.propose(1, &["d"]);
    assert_eq!(cluster.take_events(1).iter().filter(|e| matches!(e, LogEvent::Refused { .. })).count(), 0);
}

#[test]
fn what_others_decided_and_the_own_disk_has_not_written_counts_as_undecided() {
    let mut cluster = led_by_one(Raft::config().uncommitted_entries_max(2), 3);
    cluster.node_mut(1).slow_disk = true;
    cluster.propose(1, &["a", "b"]);
    cluster.settle();
    assert_eq!(cluster.decided(1), 3);
    cluster.take_events(1);
    cluster.propose(1, &["c"]);
    assert!(matches!(cluster.take_events(1)[0], LogEvent::Refused { why: Refusal::Full, .. }));
    cluster.persist(1);
    cluster.propose(1, &["c"]);
    assert_eq!(cluster.take_events(1), []);
}

#[test]
fn commands_not_in_the_log_yet_are_handed_back_when_the_leadership_ends_in_the_same_batch() {
    let mut cluster = led_by_one(Raft::config(), 3);
    let newer = Message::NewerTerm(synod_raft::NewerTerm { term: Term(5) });
    cluster.batch(
        1,
        vec![
            Input::Call(LogCall::Propose(vec![command("a")])),
            Input::Call(LogCall::Read { id: ReadId(4), mode: ReadMode::Barrier }),
            Input::Receive { from: NodeId(2), message: newer },
        ],
    );
    let events = cluster.take_events(1);
    let why = Refusal::NotLeader { leader: None };
    assert!(events.contains(&LogEvent::Refused { command: command("a"), why }));
    assert!(events.contains(&LogEvent::ReadFailed { id: ReadId(4), why: Refusal::LeadershipLost }));
    assert!(events.contains(&LogEvent::Role(Role::Follower)));
    assert_eq!(cluster.raft(1).last_index(), LogIndex(1));
}

#[test]
fn lost_appends_are_sent_again() {
    let mut cluster = led_by_one(Raft::config(), 3);
    for payload in ["a", "b", "c"] {
        cluster.propose(1, &[payload]);
    }
    cluster.network.clear();
    cluster.advance(4 * HEARTBEAT);
    assert_eq!(cluster.payloads(1), ["a", "b", "c"]);
    assert_eq!(cluster.raft(1).counters().fallbacks, 2);
}

#[test]
fn appends_that_arrive_in_any_order_end_in_the_same_log() {
    for rotation in 0..6 {
        let mut cluster = led_by_one(Raft::config(), 2);
        for payload in ["a", "b", "c", "d", "e", "f"] {
            cluster.propose(1, &[payload]);
        }
        cluster.network.rotate_left(rotation);
        let repeated: Vec<Letter> = cluster.network.iter().rev().cloned().collect();
        cluster.network.extend(repeated);
        cluster.advance(6 * HEARTBEAT);
        assert_eq!(cluster.payloads(2), ["a", "b", "c", "d", "e", "f"]);
    }
}

#[test]
fn a_stale_append_that_arrives_late_cuts_nothing_off() {
    let mut cluster = led_by_one(Raft::config(), 2);
    cluster.propose(1, &["a"]);
    let late = cluster.network.clone();
    cluster.settle();
    cluster.propose(1, &["b"]);
    cluster.propose(1, &["c"]);
    cluster.settle();
    for letter in late {
        cluster.deliver(letter);
    }
    assert_eq!(cluster.raft(2).last_index(), LogIndex(4));
    assert_eq!(cluster.raft(2).counters().truncations, 0);
}

#[test]
fn acknowledgements_reordered_or_repeated_move_nothing_back() {
    let mut cluster = led_by_one(Raft::config(), 3);
    cluster.crash(3);
    cluster.propose(1, &["a"]);
    cluster.propose(1, &["b"]);
    cluster.persist(1);
    cluster.scripted = true;
    let ack = |through| Message::Appended(Appended { term: Term(1), through: LogIndex(through) });
    cluster.receive(2, 1, ack(3));
    assert_eq!(cluster.decided(1), 3);
    cluster.receive(2, 1, ack(2));
    cluster.receive(2, 1, ack(1));
    cluster.take_sent();
    cluster.propose(1, &["c"]);
    assert_eq!(appends(&cluster.take_sent(), 2), [(3, 1)], "it goes on where it was");
}

#[test]
fn an_acknowledgement_of_another_term_moves_nothing() {
    let mut cluster = led_by_one(Raft::config(), 3);
    cluster.isolate(1);
    cluster.propose(1, &["lost"]);
    cluster.advance(3 * TIMEOUT);
    cluster.heal();
    cluster.advance(8 * TIMEOUT);
    let leader = cluster.leader().unwrap();
    let before = cluster.decided(leader);
    cluster.node_mut(leader).slow_disk = true;
    cluster.propose(leader, &["new"]);
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.receive(
            id,
            leader,
            Message::Appended(Appended { term: Term(1), through: LogIndex(before + 1) }),
        );
    }
    assert_eq!(cluster.decided(leader), before);
}

#[test]
fn a_slow_peer_is_not_flooded_with_what_it_already_has() {
    let mut cluster = led_by_one(Raft::config(), 3);
    cluster.node_mut(3).slow_disk = true;
    propose_all(&mut cluster, &numbered(100));
    cluster.advance(Duration::from_secs(2));
    let carried: usize = appends(&cluster.take_sent(), 3).iter().map(|(_, count)| count).sum();
    assert!(carried <= 600, "{carried} entries for 100 in two seconds of a disk that stands still");
    cluster.persist(3);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.payloads(3), numbered(100));
}

#[test]
fn a_peer_far_behind_is_brought_up_from_storage() {
    let tail = 4 * (Entry::OVERHEAD + 3);
    let mut cluster = led_by_one(Raft::config().tail_bytes_max(tail).append_entries_max(10), 3);
    cluster.crash(3);
    for payload in numbered(60) {
        cluster.propose(1, &[&payload]);
        cluster.settle();
    }
    cluster.start(3);
    cluster.take_sent();
    cluster.advance(4 * HEARTBEAT);
    assert_eq!(cluster.payloads(3), numbered(60));
    assert!(cluster.raft(1).counters().loads >= 5);
    let sent = appends(&cluster.take_sent(), 3);
    assert!(sent.len() < 20, "small segments are joined: {sent:?}");
}

#[test]
fn nothing_is_sent_to_a_peer_while_its_entries_are_loaded() {
    let mut cluster = led_by_one(Raft::config().tail_bytes_max(1), 3);
    cluster.isolate(3);
    for payload in numbered(5) {
        cluster.propose(1, &[&payload]);
        cluster.settle();
    }
    cluster.node_mut(1).slow_loads = true;
    cluster.heal();
    cluster.advance(4 * HEARTBEAT);
    assert_eq!(cluster.node(1).loads.len(), 1);
    cluster.propose(1, &["x"]);
    cluster.advance(2 * HEARTBEAT);
    assert_eq!(cluster.node(1).loads.len(), 1, "one at a time");
    assert_eq!(cluster.raft(3).last_index(), LogIndex(1));
    cluster.node_mut(1).slow_loads = false;
    cluster.advance(4 * HEARTBEAT);
    assert_eq!(cluster.raft(3).last_index(), LogIndex(7));
}

#[test]
fn an_answer_to_a_load_that_nobody_waits_for_changes_nothing() {
    let mut cluster = led_by_one(Raft::config(), 3);
    let result = Err(Compacted { through: LogIndex(9) });
    cluster.step(1, Input::Loaded { id: synod_core::LoadId(7), result: result.clone() });
    cluster.step(2, Input::Loaded { id: synod_core::LoadId(7), result });
    assert_eq!(cluster.raft(1).counters().out_of_reach, 0);
}

#[test]
fn a_peer_that_needs_compacted_entries_is_out_of_reach_and_harms_nobody() {
    let mut compacted = Disk::with_log(&[1, 1, 1, 1], 1);
    compacted.compact(3);
    let other = compacted.clone();
    let mut cluster = Cluster::with(3, Raft::config(), &[(1, compacted), (2, other)]);
    cluster.elect(1);
    cluster.propose(1, &["a"]);
    cluster.advance(Duration::from_secs(3));
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!((cluster.decided(1), cluster.decided(2)), (6, 6));
    let tries = cluster.raft(1).counters().out_of_reach;
    assert!((2..=25).contains(&tries), "{tries} tries in three seconds");
    assert_eq!(cluster.raft(3).last_index(), LogIndex(0));
    assert_eq!(cluster.raft(3).counters().pre_votes, 0, "it hears the leader");
}

#[test]
fn what_is_compacted_here_agrees_with_every_leader() {
    let mut compacted = Disk::with_log(&[1, 1, 1, 1], 1);
    compacted.compact(3);
    let disks = [(1, Disk::with_log(&[1, 1, 1, 1, 1], 1)), (2, compacted)];
    let mut cluster = Cluster::with(2, Raft::config(), &disks);
    cluster.receive(1, 2, {
        let entries = harness::entries(2, &[1, 1, 1, 1]);
        Message::Append(Append { term: Term(1), prev: at(1, 1), commit: LogIndex(0), entries })
    });
    cluster.persist(2);
    let sent: Vec<Message> = cluster.take_sent().into_iter().map(|letter| letter.message).collect();
    assert_eq!(sent, [Message::Appended(Appended { term: Term(1), through: LogIndex(5) })]);
    assert_eq!(cluster.raft(2).last_index(), LogIndex(5));
}

#[test]
fn a_decision_is_told_by_itself_when_no_append_carries_it() {
    let mut cluster = led_by_one(Raft::config(), 3);
    cluster.propose(1, &["a"]);
    cluster.settle();
    assert_eq!(cluster.decided(2), 1);
    cluster.take_sent();
    cluster.advance(Duration::from_millis(5));
    let commit = CommitNotice { term: Term(1), commit: LogIndex(2) };
    let notices: Vec<u64> = cluster
        .take_sent()
        .into_iter()
        .filter(|letter| letter.message == Message::CommitNotice(commit))
        .map(|letter| letter.to)
        .collect();
    assert_eq!(notices, [2, 3]);
    assert_eq!((cluster.decided(2), cluster.decided(3)), (2, 2));
}

#[test]
fn no_notice_is_sent_where_an_append_told_the_decision() {
    let mut cluster = led_by_one(Raft::config(), 3);
    for _ in 0..8 {
        cluster.propose(1, &["a"]);
        cluster.advance(Duration::from_millis(2));
    }
    assert_eq!(cluster.raft(1).counters().commit_notices, 2, "only the two for the no-op");
    assert!(cluster.decided(2) >= 8);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.decided(2), 9);
}

#[test]
fn an_idle_leader_stops_asking_to_be_woken_for_notices() {
    let mut cluster = led_by_one(Raft::config(), 3);
    cluster.advance(HEARTBEAT);
    let wait = cluster.raft(1).next_deadline().unwrap() - cluster.now;
    assert!(wait > Duration::from_millis(5), "the next deadline is the heartbeat");
}

#[test]
fn reads_of_one_batch_share_a_round_and_rounds_overtake_nothing() {
    let mut cluster = led_by_one(Raft::config(), 3);
    let read = |id| Input::Call(LogCall::Read { id: ReadId(id), mode: ReadMode::Barrier });
    cluster.batch(1, vec![read(1), read(2)]);
    let first = cluster.take(|_| true);
    cluster.batch(1, vec![read(3)]);
    let second = cluster.take(|_| true);
    assert_eq!((first.len(), second.len()), (2, 2), "the second round did not wait for the first");
    assert_eq!(cluster.raft(1).counters().read_rounds, 2);
    // The later round answers all of them.
    cluster.deliver(second[0].clone());
    cluster.settle();
    let ready = |id| LogEvent::ReadReady { id: ReadId(id), index: LogIndex(1) };
    assert_eq!(cluster.take_events(1), [ready(1), ready(2), ready(3)]);
    for letter in first {
        cluster.deliver(letter);
    }
    cluster.settle();
    assert_eq!(cluster.take_events(1), [], "each is answered once");
}

#[test]
fn a_read_whose_round_is_lost_is_confirmed_by_the_next_heartbeat() {
    let mut cluster = led_by_one(Raft::config(), 3);
    cluster.read(1, 1);
    cluster.network.clear();
    cluster.advance(HEARTBEAT);
    let ready = LogEvent::ReadReady { id: ReadId(1), index: LogIndex(1) };
    assert_eq!(cluster.take_events(1), [ready]);
}

#[test]
fn a_read_index_covers_everything_decided_before_the_read() {
    let mut cluster = led_by_one(Raft::config(), 3);
    cluster.propose(1, &["a", "b"]);
    cluster.settle();
    cluster.take_events(1);
    cluster.read(1, 1);
    cluster.settle();
    assert_eq!(cluster.take_events(1), [LogEvent::ReadReady { id: ReadId(1), index: LogIndex(3) }]);
}

#[test]
fn a_follower_refuses_a_read_and_names_the_leader() {
    let mut cluster = led_by_one(Raft::config(), 3);
    cluster.take_events(2);
    cluster.read(2, 1);
    let why = Refusal::NotLeader { leader: Some(NodeId(1)) };
    assert_eq!(cluster.take_events(2), [LogEvent::ReadFailed { id: ReadId(1), why }]);
}

#[test]
fn a_minority_of_answers_confirms_no_read() {
    let mut cluster = led_by_one(Raft::config(), 5);
    cluster.read(1, 1);
    cluster.network.clear();
    let reply = |round| {
        Message::HeartbeatReply(HeartbeatReply {
            term: Term(1),
            round: Round(round),
            loyal_for: Duration::ZERO,
        })
    };
    let round = 2;
    cluster.receive(2, 1, reply(round));
    cluster.receive(2, 1, reply(round));
    assert_eq!(cluster.take_events(1), []);
    cluster.receive(3, 1, reply(round));
    assert_eq!(cluster.take_events(1).len(), 1);
}

#[test]
fn the_same_inputs_and_seeds_give_the_same_run() {
    let run = || {
        let mut cluster = Cluster::new(5);
        cluster.advance(4 * TIMEOUT);
        let leader = cluster.leader().unwrap();
        cluster.propose(leader, &["a", "b"]);
        cluster.advance(TIMEOUT);
        cluster.crash(leader);
        cluster.advance(8 * TIMEOUT);
        cluster.take_trace()
    };
    assert_eq!(run(), run());
}
