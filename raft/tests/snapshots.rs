//! Compaction and snapshots (extended paper, section 7), and what is known to have gone wrong with them elsewhere.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, at, entries};
use synod_core::{Entries, LogEvent, LogIndex, NodeId, Protocol, Role};
use synod_raft::{Append, Message, Raft, Term};

fn append(term: u64, prev: (u64, u64), commit: u64, entries: Entries) -> Message {
    let prev = at(prev.0, prev.1);
    Message::Append(Append { term: Term(term), prev, commit: LogIndex(commit), entries })
}

/// Replica 1 leads, 3 is cut off, and the log of the others begins behind what 3 has.
fn leader_that_compacted() -> Cluster {
    let mut cluster = Cluster::led_by_one(3);
    cluster.snapshots = true;
    cluster.isolate(3);
    cluster.propose(1, &["a", "b", "c", "d"]);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.decided(1), 5);
    cluster.compact(1, 5, 4);
    cluster.settle();
    assert_eq!(cluster.node(1).disk.compacted.unwrap().0, LogIndex(4));
    cluster
}

fn discards(cluster: &mut Cluster, id: u64) -> usize {
    cluster.take_events(id).iter().filter(|event| matches!(event, LogEvent::DiscardSnapshot(_))).count()
}

#[test]
fn a_follower_behind_the_leaders_log_goes_on_from_a_snapshot() {
    let mut cluster = leader_that_compacted();
    cluster.heal();
    cluster.advance(Duration::from_secs(1));
    assert_eq!((cluster.decided(3), cluster.raft(3).last_index()), (5, LogIndex(5)));
    assert_eq!(cluster.raft(3).counters().installs, 1);
    cluster.propose(1, &["e"]);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.payloads(3), ["e"]);
    assert_eq!(cluster.decided(3), 6);
    cluster.restart(3);
    cluster.propose(1, &["f"]);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.decided(3), 7, "it recovers from where the snapshot ends");
}

#[test]
fn a_follower_within_the_kept_tail_needs_no_snapshot() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.isolate(3);
    cluster.propose(1, &["a", "b", "c", "d"]);
    cluster.advance(HEARTBEAT);
    cluster.compact(1, 5, 1);
    cluster.heal();
    cluster.advance(Duration::from_secs(1));
    assert_eq!((cluster.decided(3), cluster.raft(3).counters().installs), (5, 0));
}

#[test]
fn a_snapshot_that_does_not_arrive_is_asked_for_again_after_a_while() {
    let mut cluster = leader_that_compacted();
    cluster.snapshots = false;
    cluster.heal();
    cluster.advance(Duration::from_secs(3));
    let asked = |event: &LogEvent| *event == LogEvent::SendSnapshot { to: NodeId(3) };
    let asked = cluster.take_events(1).iter().filter(|event| asked(event)).count();
    assert!((2..=25).contains(&asked), "{asked} times in three seconds");
    cluster.snapshots = true;
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.decided(3), 5);
}

/// Section 7: if the log holds the entry at which the snapshot ends, what follows it stays.
#[test]
fn a_snapshot_of_what_is_in_the_log_removes_nothing() {
    let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(&[1, 1, 2, 2], 2))]);
    cluster.scripted = true;
    let meta = ending_at(2, 3);
    cluster.offer(1, meta);
    assert_eq!(discards(&mut cluster, 1), 1);
    assert_eq!((cluster.decided(1), cluster.raft(1).last_index()), (3, LogIndex(4)));
}

/// Section 7: otherwise the snapshot stands for the whole log.
#[test]
fn a_snapshot_of_another_history_replaces_the_whole_log_in_one_unit() {
    let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(&[1, 1, 1, 1, 1, 1], 2))]);
    cluster.scripted = true;
    cluster.node_mut(1).slow_disk = true;
    cluster.offer(1, ending_at(2, 4));
    assert_eq!((cluster.decided(1), cluster.raft(1).last_index()), (4, LogIndex(4)));
    assert_eq!(cluster.node(1).disk.last_index(), 6);
    assert!(cluster.persist_one(1));
    assert_eq!(cluster.node(1).disk.last_index(), 4);
    assert!(!cluster.persist_one(1), "one unit");
    cluster.receive(2, 1, append(2, (2, 4), 4, entries(5, &[2])));
    cluster.persist(1);
    cluster.restart(1);
    assert_eq!(cluster.raft(1).last_index(), LogIndex(5));
}

#[test]
fn what_was_written_before_a_snapshot_proves_nothing_behind_it() {
    let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(&[1], 2))]);
    cluster.scripted = true;
    cluster.node_mut(1).slow_disk = true;
    cluster.receive(2, 1, append(2, (1, 1), 0, entries(2, &[2, 2, 2, 2, 2])));
    cluster.offer(1, ending_at(3, 3));
    cluster.receive(3, 1, append(3, (3, 3), 3, entries(4, &[3])));
    cluster.persist_one(1);
    let acknowledged = |cluster: &mut Cluster| {
        let sent = cluster.take_sent();
        sent.iter().any(|letter| letter.to == 3 && matches!(letter.message, Message::Appended(_)))
    };
    assert!(!acknowledged(&mut cluster), "the first unit is durable, and its entries are gone");
    cluster.persist(1);
    assert!(acknowledged(&mut cluster));
}

#[test]
fn a_snapshot_below_what_is_decided_is_discarded() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.propose(1, &["a", "b"]);
    cluster.advance(HEARTBEAT);
    let meta = cluster.snapshot_of(1, 2).unwrap();
    for id in [1, 2, 3] {
        cluster.offer(id, meta.clone());
        assert_eq!(discards(&mut cluster, id), 1);
        assert_eq!(cluster.raft(id).last_index(), LogIndex(3));
    }
}

#[test]
fn a_leader_is_not_talked_out_of_its_log() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.offer(1, ending_at(1, 40));
    assert_eq!(discards(&mut cluster, 1), 1);
    assert_eq!(cluster.raft(1).counters().snapshots_refused, 1);
    assert_eq!(cluster.role(1), Role::Leader);
    cluster.offer(1, ending_at(u64::MAX, 41));
    assert_eq!(discards(&mut cluster, 1), 1);
    assert_eq!(cluster.raft(1).last_index(), LogIndex(1));
}

#[test]
fn a_candidate_that_goes_on_from_a_snapshot_does_not_win_with_its_former_log() {
    let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(&[1, 1], 1))]);
    cluster.scripted = true;
    cluster.node_mut(1).slow_disk = true;
    cluster.time_out(1);
    cluster.offer(1, ending_at(1, 7));
    assert_eq!(cluster.role(1), Role::Follower);
    cluster.settle();
    assert_ne!(cluster.role(1), Role::Leader);
    assert_eq!(cluster.decided(1), 7);
}

#[test]
fn nothing_is_compacted_that_is_not_on_this_disk_or_not_decided() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.propose(1, &["a", "b", "c"]);
    cluster.settle();
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.decided(1), 4, "the others hold it");
    cluster.compact(1, 4, 4);
    cluster.node_mut(1).slow_disk = false;
    cluster.settle();
    assert_eq!(cluster.node(1).disk.compacted.unwrap().0, LogIndex(1));
    cluster.compact(1, 4, 900);
    cluster.settle();
    assert_eq!(cluster.node(1).disk.compacted.unwrap().0, LogIndex(4));
    assert!(cluster.raft(1).describe(LogIndex(3)).is_none(), "its term is not known any more");
    assert_eq!(cluster.raft(1).describe(LogIndex(4)).unwrap().stamp.high, 1);
    assert!(cluster.raft(1).describe(LogIndex(5)).is_none(), "it is not decided");
}

/// What a snapshot that ends with an entry of `term` at `index` says.
fn ending_at(term: u64, index: u64) -> synod_core::SnapshotMeta {
    synod_core::SnapshotMeta {
        index: LogIndex(index),
        stamp: synod_core::Stamp { high: term, low: 0 },
        reign: synod_core::Reign::default(),
        membership: synod_core::Membership::of_ids([1, 2, 3]).unwrap(),
    }
}
