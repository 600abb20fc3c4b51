//! A storage that blocks: writer and reader thread, group commit, errors.

mod support;

use std::task::Poll;
use std::time::Duration;

use synod_core::memory::MemoryNetwork;
use synod_core::{LogIndex, NodeId, StorageError};
use synod_raft::Raft;
use synod_runtime::{Consistency, Node, NodeBuilder, ProposeError, ReplicaConfig, StopReason};

use crate::support::{Lines, Message, SlowStorage, bytes, until};

fn single(storage: &SlowStorage) -> NodeBuilder<synod_raft::RaftConfig, Lines> {
    Node::builder(NodeId(1), Raft::config())
        .members([1])
        .storage(storage.clone())
        .state_machine(Lines::default())
}

async fn replicates_over_threads() {
    let network: MemoryNetwork<Message> = MemoryNetwork::new();
    let storages: Vec<SlowStorage> = (0..3).map(|_| SlowStorage::default()).collect();
    let start = |id: u64| {
        Node::builder(NodeId(id), Raft::config())
            .members([1, 2, 3])
            .storage(storages[id as usize - 1].clone())
            .transport(network.attach(NodeId(id)))
            .state_machine(Lines::default())
            // Nothing durable is kept at hand, so that a restarted peer is served by the reader thread.
            .replica_config(ReplicaConfig { tail_bytes_max: 0, ..ReplicaConfig::default() })
            .start()
    };
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(id).await.unwrap());
    }
    for batch in 0..20 {
        let commands = (0..50).map(|number| bytes(format!("{batch}/{number}")));
        for reply in nodes[batch % 3].propose_many(commands).await {
            reply.unwrap();
        }
    }
    nodes[1].abort().await;
    nodes[1] = start(2).await.unwrap();
    let all = nodes[0].read(bytes("all"), Consistency::Linearizable).await.unwrap();
    assert_eq!(all.split(|byte| *byte == b'\n').count(), 1000);
    assert_eq!(nodes[1].read(bytes("all"), Consistency::Linearizable).await.unwrap(), all);
    let applied = nodes[0].status().applied;
    until(&nodes[1], |status| status.applied >= applied.max(LogIndex(1000))).await;
    assert_eq!(nodes[1].read(bytes("all"), Consistency::Local).await.unwrap(), all);
    for node in &nodes {
        assert!(matches!(node.shutdown().await, StopReason::Shutdown));
    }
}

#[tokio::test]
async fn three_nodes_replicate_over_storage_threads_on_one_thread() {
    replicates_over_threads().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_replicate_over_storage_threads_on_two_threads() {
    replicates_over_threads().await;
}

#[tokio::test]
async fn what_comes_while_the_disk_is_busy_goes_into_one_write() {
    let storage = SlowStorage::default();
    let node = single(&storage).start().await.unwrap();
    node.propose(bytes("open the session")).await.unwrap();
    storage.switch.hold();
    let busy = node.propose(bytes("0"));
    let before = node.metrics();
    until_metrics(&node, |metrics| metrics.units_written > before.units_written).await;
    let mut waiting = Vec::new();
    for number in 1..=20 {
        let units = node.metrics().units_written;
        waiting.push(node.propose(bytes(number.to_string())));
        until_metrics(&node, |metrics| metrics.units_written > units).await;
    }
    storage.switch.release();
    busy.await.unwrap();
    for proposal in waiting {
        proposal.await.unwrap();
    }
    let after = node.metrics();
    let (units, writes) =
        (after.units_written - before.units_written, after.storage_writes - before.storage_writes);
    assert!(units >= 21 && writes <= 3, "{units} units in {writes} writes");
    node.shutdown().await;
}

#[tokio::test]
async fn a_command_is_answered_by_its_own_write_and_not_by_the_one_before() {
    let storage = SlowStorage::default();
    let node = single(&storage).start().await.unwrap();
    node.propose(bytes("open the session")).await.unwrap();
    storage.switch.hold();
    let writes = node.metrics().storage_writes;
    let first = node.propose(bytes("first"));
    until_metrics(&node, |metrics| metrics.storage_writes > writes).await;
    let units = node.metrics().units_written;
    let mut second = std::pin::pin!(node.propose(bytes("second")));
    until_metrics(&node, |metrics| metrics.units_written > units).await;
    storage.switch.release_one();
    first.await.unwrap();
    let look = std::future::poll_fn(|context| Poll::Ready(second.as_mut().poll(context)));
    assert!(look.await.is_pending());
    storage.switch.release();
    second.await.unwrap();
    node.shutdown().await;
}

/// Gives way until the node has counted that far.
async fn until_metrics(node: &Node, wanted: impl Fn(&synod_runtime::Metrics) -> bool) {
    while !wanted(&node.metrics()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failed_write_stops_the_node_and_is_named_in_the_status() {
    let storage = SlowStorage::default();
    let node = single(&storage).start().await.unwrap();
    node.propose(bytes("fine")).await.unwrap();
    storage.switch.fail();
    assert_eq!(node.propose(bytes("lost?")).await, Err(ProposeError::Unknown));
    let reason = node.stopped().await;
    let StopReason::Storage(StorageError::Io { operation, .. }) = &reason else {
        panic!("{reason:?}");
    };
    assert_eq!(*operation, "fdatasync");
    assert_eq!(node.propose(bytes("x")).await, Err(ProposeError::Stopped { command: bytes("x") }));
}

#[tokio::test]
async fn an_abort_waits_for_the_write_under_way_and_for_nothing_else() {
    let storage = SlowStorage::default();
    let node = single(&storage).start().await.unwrap();
    node.propose(bytes("one")).await.unwrap();
    storage.switch.hold();
    let writes = node.metrics().storage_writes;
    let two = node.propose(bytes("two"));
    until_metrics(&node, |metrics| metrics.storage_writes > writes).await;
    let mut aborted = std::pin::pin!(node.abort());
    // The write under way is not torn off: the end waits for it.
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut aborted).await.is_err());
    storage.switch.release();
    assert!(matches!(aborted.await, StopReason::Aborted));
    assert_eq!(two.await, Err(ProposeError::Unknown));
    let again = single(&storage).start().await.unwrap();
    let all = again.read(bytes("all"), Consistency::Linearizable).await.unwrap();
    assert!(all == "one" || all == "one\ntwo", "{all:?}");
    again.shutdown().await;
}

#[tokio::test]
async fn shutdown_waits_for_the_last_write() {
    let storage = SlowStorage::default();
    let node = single(&storage).start().await.unwrap();
    node.propose(bytes("one")).await.unwrap();
    storage.switch.hold();
    let two = node.propose(bytes("two"));
    let mut ended = std::pin::pin!(node.shutdown());
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut ended).await.is_err());
    storage.switch.release();
    assert!(matches!(ended.await, StopReason::Shutdown));
    assert_eq!(two.await.unwrap(), bytes("2"));
}
