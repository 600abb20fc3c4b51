//! Snapshots: a log that is cut off, a start from one, a peer that is sent one, stores and state machines that fail.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use synod_core::memory::{KeyValue, MemorySnapshots, MemoryStorage};
use synod_core::{
    Applied, LogIndex, NodeId, OpenError, Outputs, SnapshotError, SnapshotHead, SnapshotId, SnapshotReader,
    SnapshotSource, SnapshotStore, SnapshotWriter, StateMachine, StateMachineError,
};
use synod_raft::{Raft, RaftConfig};
use synod_runtime::{
    Consistency, Metrics, Node, NodeBuilder, ReplicaConfig, SnapshotConfig, StartError, StopReason,
};

use crate::support::{Cluster, bytes, get, put, until};

/// A snapshot after every twenty entries.
fn often() -> ReplicaConfig {
    let snapshots = SnapshotConfig {
        entries_max: 20,
        chunk_bytes: 64,
        resend_after: Duration::from_millis(5),
        ..SnapshotConfig::default()
    };
    ReplicaConfig { tail_bytes_max: 0, snapshots, ..ReplicaConfig::default() }
}

fn alone(log: &MemoryStorage) -> NodeBuilder<RaftConfig, KeyValue> {
    Node::builder(NodeId(1), Raft::config())
        .members([1])
        .storage(log.clone())
        .state_machine(KeyValue::default())
        .replica_config(often())
}

/// Keys of their own for every batch.
async fn fill(node: &Node, batch: u64) {
    let puts = (0..10).map(|number| put(format!("{batch}/{number}"), format!("{batch}")));
    for reply in node.propose_many(puts).await {
        reply.expect("the put is applied");
    }
}

/// Fills until so many snapshots were taken; tells how many batches there are then.
async fn fill_until_taken(node: &Node, mut batches: u64, taken: u64) -> u64 {
    while node.metrics().snapshots_taken < taken {
        fill(node, batches).await;
        batches += 1;
    }
    batches
}

async fn holds_all(node: &Node, batches: u64, consistency: Consistency) {
    for batch in 0..batches {
        let value = node.read(get(format!("{batch}/9")), consistency).await.expect("the read is answered");
        assert_eq!(value, Some(bytes(batch.to_string())), "batch {batch}");
    }
}

/// Gives way until the node has counted that far.
async fn until_counted(node: &Node, wanted: impl Fn(&Metrics) -> bool) {
    while !wanted(&node.metrics()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_starts_from_its_snapshot_when_the_log_before_it_is_gone() {
    let (log, shelf) = (MemoryStorage::new(), MemorySnapshots::new());
    let node = alone(&log).snapshots(shelf.clone()).start().await.unwrap();
    let batches = fill_until_taken(&node, 0, 3).await;
    let snapshot = until(&node, |status| status.snapshot > LogIndex(40)).await.snapshot;
    assert!(matches!(node.shutdown().await, StopReason::Shutdown));

    let kept = shelf.clone().list().unwrap();
    assert!(kept.len() <= 3 && kept.last().unwrap().meta.index >= snapshot, "{kept:?}");
    let error = alone(&log).start().await.unwrap_err();
    assert!(matches!(error, StartError::Open(OpenError::Log { .. })), "{error:?}");

    let again = alone(&log).snapshots(shelf).start().await.unwrap();
    assert!(again.status().applied >= snapshot, "nothing below the snapshot is applied again");
    holds_all(&again, batches, Consistency::Linearizable).await;
    again.shutdown().await;
}

async fn a_peer_is_sent_one() {
    let mut cluster = Cluster::of(0, KeyValue::default).await;
    let shelves = [(); 3].map(|()| MemorySnapshots::new());
    cluster.storages = shelves.iter().map(|_| MemoryStorage::new()).collect();
    let start = |cluster: &Cluster<KeyValue>, id: u64| {
        let shelf = shelves[id as usize - 1].clone();
        cluster.builder(NodeId(id)).replica_config(often()).snapshots(shelf).start()
    };
    for id in 1..=3 {
        let node = start(&cluster, id).await.unwrap();
        cluster.nodes.push(node);
    }
    fill(&cluster.nodes[0], 0).await;
    let leader = cluster.leader().await;
    let behind = cluster.follower().await;
    cluster.node(behind).abort().await;
    let batches = fill_until_taken(cluster.node(leader), 1, 3).await;
    let node = start(&cluster, behind.0).await.unwrap();
    let applied = cluster.node(leader).status().applied;
    until(&node, |status| status.applied >= applied).await;
    until_counted(&node, |metrics| metrics.snapshots_installed > 0).await;
    holds_all(&node, batches, Consistency::Local).await;
    cluster.nodes[behind.0 as usize - 1] = node;
    let sent =
        |cluster: &Cluster<KeyValue>| cluster.nodes.iter().any(|node| node.metrics().snapshots_sent > 0);
    while !sent(&cluster) {
        tokio::task::yield_now().await;
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_is_too_far_behind_is_sent_a_snapshot_on_one_thread() {
    a_peer_is_sent_one().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_too_far_behind_is_sent_a_snapshot_on_two_threads() {
    a_peer_is_sent_one().await;
}

/// A store that refuses while it is told to.
#[derive(Clone, Default)]
struct Refusing {
    inner: MemorySnapshots,
    refuses: Arc<AtomicBool>,
}

impl SnapshotStore for Refusing {
    fn list(&mut self) -> Result<Vec<SnapshotHead>, SnapshotError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(full("list"));
        }
        self.inner.list()
    }

    fn create(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotWriter>, SnapshotError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(full("create"));
        }
        self.inner.create(id)
    }

    fn open(&mut self, id: SnapshotId) -> Result<Box<dyn SnapshotReader>, SnapshotError> {
        self.inner.open(id)
    }

    fn delete(&mut self, id: SnapshotId) -> Result<(), SnapshotError> {
        self.inner.delete(id)
    }
}

fn full(action: &str) -> SnapshotError {
    SnapshotError::Io { action: action.to_owned(), source: io::ErrorKind::StorageFull.into() }
}

#[tokio::test]
async fn a_store_that_refuses_stops_nothing_and_is_tried_again() {
    let (log, store) = (MemoryStorage::new(), Refusing::default());
    store.refuses.store(true, Ordering::SeqCst);
    let error = alone(&log).snapshots(store.clone()).start().await.unwrap_err();
    assert!(matches!(error, StartError::Snapshots(SnapshotError::Io { .. })), "{error:?}");

    store.refuses.store(false, Ordering::SeqCst);
    let node = alone(&log).snapshots(store.clone()).start().await.unwrap();
    store.refuses.store(true, Ordering::SeqCst);
    for batch in 0..10 {
        fill(&node, batch).await;
    }
    until_counted(&node, |metrics| metrics.snapshots_failed > 0).await;
    assert_eq!((node.metrics().snapshots_taken, node.status().snapshot), (0, LogIndex::ZERO));
    store.refuses.store(false, Ordering::SeqCst);
    let applied = node.status().applied;
    until(&node, |status| status.snapshot >= applied).await;
    assert_eq!(node.metrics().snapshots_taken, 1);
    holds_all(&node, 10, Consistency::Linearizable).await;
    node.shutdown().await;
}

/// A state that panics when it is written down.
#[derive(Default)]
struct Bomb;

impl StateMachine for Bomb {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        batch.iter().for_each(|_| out.reply(Bytes::new()));
        Ok(())
    }

    fn query(&self, _query: &[u8]) -> Result<Bytes, StateMachineError> {
        Ok(Bytes::new())
    }

    fn snapshot(&mut self) -> Option<Box<dyn SnapshotSource>> {
        Some(Box::new(Bomb))
    }
}

impl SnapshotSource for Bomb {
    fn write_to(self: Box<Self>, _out: &mut dyn io::Write) -> io::Result<()> {
        panic!("the bomb of the test");
    }
}

#[tokio::test]
async fn a_state_that_panics_while_it_is_written_down_stops_the_node() {
    let node = alone(&MemoryStorage::new())
        .state_machine(Bomb)
        .snapshots(MemorySnapshots::new())
        .start()
        .await
        .unwrap();
    // The node may end before the last of them is answered.
    let _ = node.propose_many((0..30).map(|number| bytes(number.to_string()))).await;
    assert!(matches!(node.stopped().await, StopReason::Panicked));
}

#[tokio::test]
async fn settings_that_would_never_take_or_send_one_are_refused() {
    let default = SnapshotConfig::default;
    let zero = Duration::ZERO;
    for (setting, snapshots) in [
        ("snapshots.entries_max", SnapshotConfig { entries_max: 0, ..default() }),
        ("snapshots.bytes_max", SnapshotConfig { bytes_max: 0, ..default() }),
        ("snapshots.age_max", SnapshotConfig { age_max: zero, ..default() }),
        ("snapshots.chunk_bytes", SnapshotConfig { chunk_bytes: 0, ..default() }),
        ("snapshots.resend_after", SnapshotConfig { resend_after: zero, ..default() }),
        ("snapshots.tries_max", SnapshotConfig { tries_max: 0, ..default() }),
    ] {
        let config = ReplicaConfig { snapshots, ..ReplicaConfig::default() };
        let error = alone(&MemoryStorage::new()).replica_config(config).start().await.unwrap_err();
        assert!(matches!(&error, StartError::Config(error) if error.setting == setting), "{error:?}");
    }
}
