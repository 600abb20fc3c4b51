//! Snapshots of a replica: taken, compacted for, sent, taken over and started from.

mod fixture;

use std::time::Duration;

use bytes::Bytes;
use fixture::{Cluster, SECOND, Shelf, put};
use synod_core::{ClientId, LogIndex, Membership, NodeId, OpenError, Packet, Sequence, SnapshotStore};
use synod_replica::{ClientCall, Order, ReplicaConfig, SessionKey, SnapshotConfig, Token};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn config(entries_max: u64) -> ReplicaConfig {
    let snapshots = SnapshotConfig { entries_max, chunk_bytes: 7, ..SnapshotConfig::default() };
    ReplicaConfig { snapshots, ..ReplicaConfig::default() }
}

fn cluster(nodes: u64, entries_max: u64) -> Cluster {
    Cluster::new(nodes, Membership::of_ids(1..=nodes).unwrap(), config(entries_max))
}

/// Proposes so many commands at node 1, one after the other.
fn work(cluster: &mut Cluster, tokens: std::ops::Range<u64>) {
    for token in tokens {
        cluster.propose(1, SessionKey::OWN, token, put(KEYS[token as usize % KEYS.len()], "value"));
        cluster.settle();
        assert!(cluster.outcome(1, token).unwrap().is_ok());
    }
}

fn heads(snapshots: &Shelf) -> Vec<u64> {
    snapshots.clone().list().unwrap().iter().map(|head| head.id.index.0).collect()
}

fn digest(cluster: &Cluster, id: u64) -> u64 {
    cluster.nodes[&NodeId(id)].replica.state_machine().digest()
}

#[test]
fn the_log_is_bounded_by_what_is_applied_between_two_snapshots() {
    let mut cluster = cluster(2, 10);
    work(&mut cluster, 0..200);
    for id in [1, 2] {
        let taken = cluster.node(id).replica.counters().snapshots.taken;
        assert!((15..=21).contains(&taken), "{taken}");
        assert!(cluster.entries_left(id) <= 25, "{} entries", cluster.entries_left(id));
        assert_eq!(heads(&cluster.node(id).snapshots).len(), 2);
        assert_eq!(cluster.node(id).replica.counters().snapshots.failed, 0);
    }
}

#[test]
fn a_replica_starts_from_its_newest_snapshot_and_the_log_behind_it() {
    let mut cluster = cluster(2, 10);
    work(&mut cluster, 0..37);
    let before = digest(&cluster, 1);
    let applied = cluster.node(1).replica.status().applied;
    let snapshot = cluster.node(1).replica.status().snapshot;
    cluster.crash_and_restart(NodeId(1));
    assert_eq!(cluster.node(1).replica.status().applied, snapshot);
    cluster.appoint(1);
    cluster.settle();
    assert_eq!((cluster.node(1).replica.status().applied, digest(&cluster, 1)), (applied, before));
}

#[test]
fn the_session_table_is_part_of_a_snapshot() {
    let mut cluster = cluster(2, 1_000);
    let session = SessionKey(3);
    let deadline = cluster.now + 10 * SECOND;
    cluster.call(1, ClientCall::OpenSession { session, token: Token(9), order: Order::Unordered, deadline });
    cluster.settle();
    let client: ClientId = *cluster.node(1).opened[&Token(9)].as_ref().unwrap();
    cluster.propose(1, session, 10, put("a", "first"));
    cluster.settle();
    let reply = cluster.outcome(1, 10).unwrap().clone().unwrap();
    cluster.advance(601 * SECOND);
    cluster.settle();
    assert_eq!(cluster.node(1).replica.counters().snapshots.taken, 1, "by its age");
    cluster.crash_and_restart(NodeId(1));
    cluster.appoint(1);
    let next = Sequence(1);
    cluster.call(1, ClientCall::AttachSession { session, client, order: Order::Unordered, next });
    cluster.propose(1, session, 11, put("a", "second"));
    cluster.settle();
    assert_eq!(*cluster.outcome(1, 11).unwrap(), Ok(reply), "the same number: the same command");
    assert_eq!(cluster.value(1, "a").unwrap(), "first");
}

/// Node 2 missed what node 1 has only as a snapshot.
fn one_is_behind() -> Cluster {
    let mut cluster = cluster(2, 10);
    work(&mut cluster, 0..3);
    cluster.cut = vec![(NodeId(1), NodeId(2))];
    work(&mut cluster, 3..40);
    cluster.cut.clear();
    cluster
}

#[test]
fn a_replica_that_is_behind_the_log_is_sent_a_snapshot_in_pieces() {
    let mut cluster = one_is_behind();
    work(&mut cluster, 40..41);
    let (sender, receiver) =
        (cluster.node(1).replica.counters().snapshots, cluster.node(2).replica.counters().snapshots);
    assert_eq!((sender.sent, receiver.received, receiver.installed), (1, 1, 1));
    assert!(sender.bytes_sent > 100);
    let applied = cluster.node(2).replica.status().applied;
    assert_eq!(applied, cluster.node(1).replica.status().snapshot);
    assert_eq!(digest(&cluster, 2), digest(&cluster, 1));
    cluster.crash_and_restart(NodeId(2));
    assert_eq!(cluster.node(2).replica.status().applied, applied);
}

#[test]
fn pieces_that_are_lost_repeated_and_reordered_come_to_the_same_snapshot() {
    for seed in 1..30_u64 {
        let mut cluster = one_is_behind();
        cluster.propose(1, SessionKey::OWN, 40, put("a", "value"));
        let mut random = seed;
        for _ in 0..2_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match random >> 60 {
                0..3 => drop(cluster.wire.pop_front()),
                3..5 => {
                    let copy = cluster.wire.front().cloned();
                    cluster.wire.extend(copy);
                }
                5..7 => {
                    let first = cluster.wire.pop_front();
                    cluster.wire.extend(first);
                }
                7 => cluster.advance(Duration::from_millis(300)),
                _ => drop(cluster.deliver_one()),
            }
            for id in [1, 2] {
                while cluster.persist_one(id) || cluster.keep_one(id) {}
            }
            if cluster.node(2).replica.counters().snapshots.installed > 0 {
                break;
            }
            if cluster.wire.is_empty() {
                cluster.advance(SECOND);
            }
        }
        assert!(!cluster.node(2).fatal);
        let counters = cluster.node(2).replica.counters().snapshots;
        if counters.installed == 0 {
            // Whatever asked for it was lost; it is asked for again.
            work(&mut cluster, 41..42);
        }
        assert_eq!(cluster.node(2).replica.counters().snapshots.installed, 1, "seed {seed}");
    }
}

#[test]
fn a_receiver_that_starts_anew_gets_it_from_the_start() {
    let mut cluster = one_is_behind();
    cluster.hold_jobs = true;
    cluster.propose(1, SessionKey::OWN, 40, put("a", "value"));
    cluster.settle();
    for _ in 0..4 {
        cluster.keep_one(1);
        cluster.settle();
        cluster.keep_one(2);
        cluster.settle();
    }
    cluster.crash_and_restart(NodeId(2));
    cluster.hold_jobs = false;
    cluster.settle();
    cluster.advance(SECOND);
    cluster.settle();
    assert_eq!(cluster.node(2).replica.counters().snapshots.installed, 1);
    assert_eq!(digest(&cluster, 2), digest(&cluster, 1));
}

#[test]
fn a_crash_before_a_snapshot_was_taken_over_repeats_it() {
    let mut cluster = one_is_behind();
    cluster.propose(1, SessionKey::OWN, 40, put("a", "value"));
    for _ in 0..10_000 {
        // Node 2 writes its snapshot, and its log never.
        let moved =
            cluster.deliver_one() | cluster.persist_one(1) | cluster.keep_one(1) | cluster.keep_one(2);
        if !moved {
            break;
        }
    }
    let index = cluster.node(2).replica.status().applied;
    assert_eq!(cluster.node(2).replica.counters().snapshots.installed, 1);
    assert!(!cluster.node(2).writes.is_empty(), "the install is not durable");
    cluster.crash_and_restart(NodeId(2));
    cluster.settle();
    assert_eq!(cluster.node(2).replica.status().applied, index);
    cluster.crash_and_restart(NodeId(2));
    assert_eq!(cluster.node(2).replica.status().applied, index);
    assert_eq!(cluster.node(2).replica.protocol().last(), index);
}

#[test]
fn a_snapshot_waits_until_the_log_through_it_is_on_this_disk() {
    let mut cluster = cluster(2, 10);
    work(&mut cluster, 0..5);
    for token in 5..12 {
        cluster.propose(1, SessionKey::OWN, token, put("a", "value"));
        while cluster.persist_one(1) {}
        while cluster.deliver_one() {}
    }
    assert!(cluster.node(2).replica.status().applied >= LogIndex(10), "decided elsewhere, applied here");
    assert!(!cluster.node(2).writes.is_empty());
    assert!(cluster.node(2).jobs.is_empty() && cluster.keep_one(1));
    while cluster.persist_one(2) {}
    assert_eq!(cluster.node(2).jobs.len(), 1);
}

#[test]
fn a_damaged_snapshot_is_named_and_the_one_before_is_started_from() {
    let mut cluster = cluster(2, 10);
    work(&mut cluster, 0..45);
    let before = digest(&cluster, 1);
    let kept = heads(&cluster.node(1).snapshots);
    cluster.node(1).snapshots.damage_newest();
    cluster.crash_and_restart(NodeId(1));
    assert_eq!(cluster.node(1).replica.status().applied, LogIndex(kept[0]));
    cluster.appoint(1);
    cluster.settle();
    assert_eq!(digest(&cluster, 1), before);
}

#[test]
fn a_compacted_log_without_a_snapshot_is_refused() {
    let mut cluster = cluster(1, 10);
    work(&mut cluster, 0..45);
    let storage = cluster.nodes.remove(&NodeId(1)).unwrap().storage;
    let refused = cluster.try_start(NodeId(1), storage, Shelf::default());
    assert!(matches!(refused, Err(OpenError::Log { .. })), "{refused:?}");
}

#[test]
fn a_store_that_fails_stops_nothing_and_nothing_is_compacted() {
    let mut cluster = cluster(1, 10);
    cluster.node(1).snapshots.full.set(true);
    work(&mut cluster, 0..100);
    let failed = cluster.node(1).replica.counters().snapshots.failed;
    assert!((1..5).contains(&failed), "{failed} tries in no time");
    assert_eq!(cluster.entries_of(1), 101);
    cluster.node(1).snapshots.full.set(false);
    cluster.advance(60 * SECOND);
    work(&mut cluster, 100..130);
    assert!(cluster.node(1).replica.counters().snapshots.taken >= 2);
    assert!(cluster.entries_left(1) < 40);
}

#[test]
fn damaged_pieces_are_not_staged() {
    let mut cluster = one_is_behind();
    cluster.propose(1, SessionKey::OWN, 40, put("a", "value"));
    let mut damaged = 0;
    for _ in 0..10_000 {
        if let Some((_, inbound)) = cluster.wire.front_mut() {
            for packet in &mut inbound.envelope.packets {
                if let Packet::SnapshotChunk(chunk) = packet
                    && damaged < 3
                {
                    let mut bytes = chunk.bytes.to_vec();
                    bytes[0] ^= 1;
                    chunk.bytes = Bytes::from(bytes);
                    damaged += 1;
                }
            }
        }
        let moved = cluster.deliver_one() | cluster.persist_one(1) | cluster.persist_one(2);
        if !(moved | cluster.keep_one(1) | cluster.keep_one(2)) {
            cluster.advance(SECOND);
        }
        if cluster.node(2).replica.counters().snapshots.installed > 0 {
            break;
        }
    }
    assert_eq!(cluster.node(2).replica.counters().rejected, 3);
    assert_eq!(digest(&cluster, 2), digest(&cluster, 1));
}

#[test]
fn a_snapshot_that_is_not_what_was_announced_is_not_offered() {
    let mut cluster = one_is_behind();
    cluster.propose(1, SessionKey::OWN, 40, put("a", "value"));
    let mut falsified = false;
    for _ in 0..10_000 {
        if let Some((_, inbound)) = cluster.wire.front_mut() {
            for packet in &mut inbound.envelope.packets {
                if let Packet::SnapshotChunk(chunk) = packet
                    && !falsified
                    && chunk.offset > 20
                {
                    let mut bytes = chunk.bytes.to_vec();
                    bytes[0] ^= 1;
                    chunk.checksum = crc32c::crc32c(&bytes);
                    chunk.bytes = Bytes::from(bytes);
                    falsified = true;
                }
            }
        }
        let moved = cluster.deliver_one() | cluster.persist_one(1) | cluster.persist_one(2);
        if !(moved | cluster.keep_one(1) | cluster.keep_one(2)) {
            break;
        }
    }
    assert!(falsified);
    let counters = cluster.node(2).replica.counters();
    assert_eq!((counters.rejected, counters.snapshots.failed, counters.snapshots.received), (0, 1, 0));
    assert!(heads(&cluster.node(2).snapshots).iter().all(|index| *index < 10), "it was not kept");
    work(&mut cluster, 41..42);
    assert_eq!(cluster.node(2).replica.counters().snapshots.installed, 1);
    assert_eq!(digest(&cluster, 2), digest(&cluster, 1));
}
