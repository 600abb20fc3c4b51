//! Start, status, cancellation, shutdown, abort, and the ways a node ends by itself.

mod support;

use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use synod_core::memory::{KeyValue, MemoryNetwork, MemoryStorage};
use synod_core::{
    Closed, ClusterId, Envelope, Identity, Inbound, Incarnation, LogIndex, NodeId, Peer, Role, StorageError,
    Transport,
};
use synod_raft::Raft;
use synod_runtime::{
    Consistency, Health, Node, Order, ProposeError, ReadError, ReplicaConfig, SessionError, StartError,
    StopReason,
};

use crate::support::{Cluster, Lines, Message, bytes, put, until};

async fn single(storage: MemoryStorage) -> Node {
    Node::builder(NodeId(1), Raft::config())
        .members([1])
        .storage(storage)
        .state_machine(Lines::default())
        .start()
        .await
        .expect("a cluster of one needs nothing else")
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_one_needs_no_transport_and_finds_its_log_again() {
    let storage = MemoryStorage::new();
    for life in 1..=3_u64 {
        let node = single(storage.clone()).await;
        let place = node.propose(bytes(format!("life {life}"))).await.unwrap();
        assert_eq!(place, bytes(life.to_string()));
        let status = until(&node, |status| status.is_leader()).await;
        assert_eq!((status.incarnation.0, status.is_ready()), (life, true));
        assert!(matches!(node.shutdown().await, StopReason::Shutdown));
    }
    let node = single(storage).await;
    let all = node.read(bytes("all"), Consistency::Linearizable).await.unwrap();
    assert_eq!(all, "life 1\nlife 2\nlife 3");
}

#[tokio::test]
async fn each_way_not_to_start_has_its_own_error() {
    let network: MemoryNetwork<Message> = MemoryNetwork::new();
    let builder = || Node::builder(NodeId(1), Raft::config()).state_machine(KeyValue::default());

    let error = builder().storage(MemoryStorage::new()).start().await.unwrap_err();
    assert!(matches!(error, StartError::Missing { what: "members" }), "{error:?}");
    let error = builder().members([1, 2, 3]).start().await.unwrap_err();
    assert!(matches!(error, StartError::Missing { what: "storage" }), "{error:?}");
    let error = builder().members([1, 2, 3]).storage(MemoryStorage::new()).start().await.unwrap_err();
    assert!(matches!(error, StartError::Missing { what: "transport" }), "{error:?}");

    let complete = || builder().storage(MemoryStorage::new()).transport(network.attach(NodeId(1)));
    let error = complete().members([1, 1]).start().await.unwrap_err();
    assert!(matches!(error, StartError::Membership(_)), "{error:?}");
    let error = complete().members([2, 3]).start().await.unwrap_err();
    assert!(matches!(error, StartError::NotAMember { node: NodeId(1) }), "{error:?}");
    let config = ReplicaConfig { batch_entries_max: 0, ..ReplicaConfig::default() };
    let error = complete().members([1, 2]).replica_config(config).start().await.unwrap_err();
    assert!(matches!(&error, StartError::Config(e) if e.setting == "batch_entries_max"), "{error:?}");
    let hasty = Raft::config().heartbeat_interval(Duration::from_secs(9));
    let error = Node::builder(NodeId(1), hasty)
        .members([1])
        .storage(MemoryStorage::new())
        .state_machine(KeyValue::default())
        .start()
        .await
        .unwrap_err();
    assert!(matches!(&error, StartError::Config(e) if e.setting == "heartbeat_interval"), "{error:?}");

    let wide = ReplicaConfig { batch_bytes_max: 9 << 20, ..ReplicaConfig::default() };
    let error = complete().transport(Narrow).members([1, 2]).replica_config(wide).start().await.unwrap_err();
    assert!(
        matches!(error, StartError::PacketTooLong { carried: NARROW, needed: 9_437_185, .. }),
        "{error:?}"
    );
    let config = Raft::config().append_bytes_max(NARROW);
    let error = Node::builder(NodeId(1), config)
        .members([1, 2])
        .storage(MemoryStorage::new())
        .transport(Narrow)
        .state_machine(KeyValue::default())
        .start()
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::PacketTooLong { carried: NARROW, .. }), "{error:?}");
    complete().transport(Narrow).members([1, 2]).start().await.unwrap().abort().await;

    let storage = MemoryStorage::new();
    let node = builder().members([1]).storage(storage.clone()).start().await.unwrap();
    node.shutdown().await;
    let error = builder().members([1]).cluster(ClusterId(7)).storage(storage).start().await.unwrap_err();
    assert!(matches!(error, StartError::Storage(StorageError::Foreign { .. })), "{error:?}");
}

const NARROW: usize = 8 << 20;

/// Says that it carries packets of up to so many bytes, and loses everything.
struct Narrow;

#[async_trait]
impl Transport<Message> for Narrow {
    fn send(&self, _to: NodeId, _envelope: Envelope<Message>) {}

    async fn receive(&self, _into: &mut Vec<Inbound<Message>>) -> Result<(), Closed> {
        std::future::pending().await
    }

    fn try_receive(&self, _into: &mut Vec<Inbound<Message>>) -> Result<(), Closed> {
        Ok(())
    }

    fn open(&self, _identity: &Identity, _incarnation: Incarnation) {}

    fn set_peers(&self, _peers: &[Peer]) {}

    fn packet_bytes_max(&self) -> usize {
        NARROW
    }
}

#[test]
fn outside_of_a_runtime_a_node_does_not_start() {
    let builder = Node::builder(NodeId(1), Raft::config())
        .members([1])
        .storage(MemoryStorage::new())
        .state_machine(KeyValue::default());
    let error = futures::executor::block_on(builder.start()).unwrap_err();
    assert!(matches!(error, StartError::NoRuntime(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_what_is_open_and_refuses_what_is_new() {
    let storage = MemoryStorage::new();
    let node = single(storage.clone()).await;
    let other = node.clone();
    let open: Vec<_> = (0..10).map(|number| other.propose(bytes(number.to_string()))).collect();
    let ended = node.shutdown();
    let mut ended = std::pin::pin!(ended);
    assert!((&mut ended).now_or_never().is_none());
    let refused = other.propose(bytes("late")).await;
    assert_eq!(refused, Err(ProposeError::Stopped { command: bytes("late") }));
    assert!(matches!(ended.await, StopReason::Shutdown));
    for (number, proposal) in open.into_iter().enumerate() {
        assert_eq!(proposal.await.unwrap(), bytes((number + 1).to_string()));
    }
    let many = other.propose_many([bytes("a"), bytes("b")]).await;
    assert_eq!(many[1], Err(ProposeError::Stopped { command: bytes("b") }));
    assert_eq!(other.read(bytes("all"), Consistency::Local).await, Err(ReadError::Stopped));
    assert_eq!(other.session(Order::Ordered).await.unwrap_err(), SessionError::Stopped);
    let status = other.status();
    assert!(matches!(status.health, Health::Stopped(StopReason::Shutdown)));
    assert!(!status.is_ready() && status.leader.is_none());
    // Twice is as good as once.
    assert!(matches!(other.shutdown().await, StopReason::Shutdown));
    let again = single(storage).await;
    let all = again.read(bytes("all"), Consistency::Linearizable).await.unwrap();
    assert_eq!(all, "0\n1\n2\n3\n4\n5\n6\n7\n8\n9");
}

#[tokio::test(start_paused = true)]
async fn shutdown_without_a_quorum_ends_at_the_drain_timeout() {
    let cluster = Cluster::of(3, Lines::default).await;
    let leader = cluster.leader().await;
    for node in &cluster.nodes {
        if node.id() != leader {
            node.abort().await;
        }
    }
    let node = cluster.node(leader).with_deadline(Duration::from_secs(3600));
    let open = node.propose(bytes("never decided"));
    let asked = tokio::time::Instant::now();
    assert!(matches!(node.shutdown().await, StopReason::Shutdown));
    assert!(asked.elapsed() < Duration::from_secs(11), "{:?}", asked.elapsed());
    assert_eq!(open.await, Err(ProposeError::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_node_without_handles_ends() {
    let storage = MemoryStorage::new();
    let node = single(storage.clone()).await;
    let mut status = node.watch_status();
    let session = node.session(Order::Unordered).await.unwrap();
    drop(node);
    // A session is a handle, too.
    session.propose(bytes("x")).await.unwrap();
    // Nobody waits for it, and it is applied all the same.
    drop(session.node().propose(bytes("y")));
    drop(session);
    let last = status.wait_for(|status| status.stopped().is_some()).await.unwrap().clone();
    assert!(matches!(last.stopped(), Some(StopReason::Dropped)));
    let again = single(storage).await;
    assert_eq!(again.read(bytes("all"), Consistency::Linearizable).await.unwrap(), "x\ny");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_harms_nobody() {
    let cluster = Cluster::of(3, Lines::default).await;
    let node = cluster.node(cluster.leader().await);
    for number in 0..100 {
        // Never polled.
        drop(node.propose(bytes(format!("{number}a"))));
        // Polled once.
        assert!(node.propose(bytes(format!("{number}b"))).now_or_never().is_none());
        assert!(node.read(bytes("all"), Consistency::Linearizable).now_or_never().is_none());
        assert!(node.propose_many([bytes(format!("{number}c"))]).now_or_never().is_none());
        assert!(node.session(Order::Ordered).now_or_never().is_none());
    }
    node.propose(bytes("last")).await.unwrap();
    let all = node.read(bytes("all"), Consistency::Linearizable).await.unwrap();
    assert_eq!(all.split(|byte| *byte == b'\n').count(), 301, "what was proposed is applied, awaited or not");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn aborted_proposals_end_unknown_and_later_ones_are_handed_back() {
    let cluster = Cluster::of(3, Lines::default).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    // Nothing is decided any more, so these stay open.
    cluster.network.cut(leader, NodeId(leader.0 % 3 + 1));
    cluster.network.cut(leader, NodeId((leader.0 + 1) % 3 + 1));
    let one = node.propose(bytes("one"));
    let many = node.propose_many([bytes("two"), bytes("three")]);
    let read = node.read(bytes("all"), Consistency::Linearizable);
    tokio::task::yield_now().await;
    assert!(matches!(node.abort().await, StopReason::Aborted));
    assert_eq!(one.await, Err(ProposeError::Unknown));
    assert_eq!(many.await, [Err(ProposeError::Unknown), Err(ProposeError::Unknown)]);
    assert_eq!(read.await, Err(ReadError::Stopped));
    assert_eq!(node.propose(bytes("x")).await, Err(ProposeError::Stopped { command: bytes("x") }));
    assert!(matches!(node.shutdown().await, StopReason::Aborted));
}

#[tokio::test(start_paused = true)]
async fn a_failing_state_machine_stops_the_node_and_says_why() {
    let node = Node::builder(NodeId(1), Raft::config())
        .members([1])
        .storage(MemoryStorage::new())
        .state_machine(Lines { poison: Some("poison"), ..Lines::default() })
        .start()
        .await
        .unwrap();
    node.propose(bytes("fine")).await.unwrap();
    assert_eq!(node.propose(bytes("poison")).await, Err(ProposeError::Unknown));
    let reason = node.stopped().await;
    assert!(matches!(&reason, StopReason::Replica(_)) && !reason.is_orderly(), "{reason:?}");
    assert_eq!(node.propose(bytes("x")).await, Err(ProposeError::Stopped { command: bytes("x") }));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_state_machine_leaves_nobody_waiting() {
    let node = Node::builder(NodeId(1), Raft::config())
        .members([1])
        .storage(MemoryStorage::new())
        .state_machine(Lines { bomb: Some("bomb"), ..Lines::default() })
        .start()
        .await
        .unwrap();
    let two = node.propose_many([bytes("bomb"), bytes("after")]);
    assert_eq!(two.await, [Err(ProposeError::Unknown), Err(ProposeError::Unknown)]);
    assert!(matches!(node.stopped().await, StopReason::Panicked));
    assert_eq!(node.read(bytes("all"), Consistency::Local).await, Err(ReadError::Stopped));
}

#[test]
fn a_runtime_that_goes_away_takes_its_nodes_with_it_and_callers_are_told() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let node = runtime.block_on(single(MemoryStorage::new()));
    drop(runtime);
    let outcome = futures::executor::block_on(node.propose(bytes("x")));
    assert_eq!(outcome, Err(ProposeError::Stopped { command: bytes("x") }));
    assert!(matches!(node.status().stopped(), Some(StopReason::RuntimeGone)));
}

#[test]
fn a_handle_works_from_any_executor() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let node = runtime.block_on(single(MemoryStorage::new()));
    let place = futures::executor::block_on(node.propose(bytes("x"))).unwrap();
    assert_eq!(place, bytes("1"));
    assert!(matches!(futures::executor::block_on(node.shutdown()), StopReason::Shutdown));
}

#[tokio::test(start_paused = true)]
async fn a_closed_transport_stops_the_node() {
    let cluster = Cluster::of(3, KeyValue::default).await;
    let node = cluster.node(NodeId(2));
    // A second endpoint under the same id takes the first one's place.
    let _usurper = cluster.network.attach(NodeId(2));
    assert!(matches!(node.stopped().await, StopReason::TransportClosed));
    cluster.node(cluster.leader().await).propose(put("k", "v")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_query_and_a_command_too_large_say_so() {
    let config = ReplicaConfig { command_bytes_max: 10, ..ReplicaConfig::default() };
    let node = Node::builder(NodeId(1), Raft::config())
        .members([1])
        .storage(MemoryStorage::new())
        .state_machine(Lines::default())
        .replica_config(config)
        .start()
        .await
        .unwrap();
    let error = node.read(bytes("none"), Consistency::Local).await.unwrap_err();
    assert!(matches!(&error, ReadError::Refused { message } if message.contains("`all`")), "{error:?}");
    let large = bytes("0123456789a");
    assert_eq!(node.propose(large.clone()).await, Err(ProposeError::TooLarge { command: large }));
    // A reply that does not decode: the command was applied all the same.
    assert!(matches!(node.propose(put("k", "v")).await, Err(ProposeError::Reply(_))));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_hands_the_command_back_at_once() {
    let config = ReplicaConfig { queue_entries_max: 3, ..ReplicaConfig::default() };
    let cluster = Cluster::of(1, Lines::default).await;
    cluster.nodes[0].shutdown().await;
    let node = cluster.builder(NodeId(1)).replica_config(config).start().await.unwrap();
    let open: Vec<_> = (0..5).map(|number| node.propose(bytes(number.to_string()))).collect();
    let outcomes = futures::future::join_all(open).await;
    let full: Vec<_> = outcomes.iter().filter(|outcome| outcome.is_err()).collect();
    assert_eq!(full.len(), 2);
    assert_eq!(*full[0], Err(ProposeError::Full { command: bytes("3") }));
}

#[tokio::test(start_paused = true)]
async fn the_status_shows_roles_and_the_metrics_count() {
    let cluster = Cluster::of(3, KeyValue::default).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    assert_eq!(cluster.node(leader).status().role, Role::Leader);
    let status = cluster.node(follower).status();
    assert_eq!((status.role, status.leader), (Role::Follower, Some(leader)));
    assert_eq!(status.reign.leader, leader);
    assert_eq!(status.membership.members().len(), 3);

    let before = cluster.node(leader).metrics();
    for number in 0..10 {
        cluster.node(leader).propose(put(number.to_string(), "v")).await.unwrap();
    }
    let after = cluster.node(leader).metrics();
    assert_eq!(after.calls - before.calls, 10);
    assert!(after.envelopes_sent >= before.envelopes_sent + 20);
    assert!(after.storage_writes > before.storage_writes && after.units_written > before.units_written);
    assert_eq!((after.bytes_sent, after.bytes_written), (0, 0), "metering is off");

    cluster.node(follower).shutdown().await;
    let metered = cluster.builder(follower).metering(true).start().await.unwrap();
    cluster.node(leader).propose(put("more", "v")).await.unwrap();
    // Before it: a no-op, the opening of the session, ten commands.
    until(&metered, |status| status.applied > LogIndex(12)).await;
    let metrics = metered.metrics();
    assert!(metrics.bytes_sent > 0 && metrics.bytes_written > 0, "{metrics:?}");
}
