//! Handing the leadership over, and what shutdown does of it by itself.

mod support;

use std::time::Duration;

use futures::future::join_all;
use synod_core::NodeId;
use synod_core::memory::{KeyValue, MemoryStorage};
use synod_raft::Raft;
use synod_runtime::{Consistency, Node, StopReason, TransferError};

use crate::support::{Cluster, bytes, get, put};

/// Before this no follower campaigns by itself: the default of Raft.
const SHORTEST_ELECTION: Duration = Duration::from_millis(150);

#[tokio::test(start_paused = true)]
async fn a_leadership_goes_where_it_is_sent_and_no_write_fails_meanwhile() {
    let cluster = Cluster::of(3, KeyValue::default).await;
    for round in 0..6 {
        let leader = cluster.leader().await;
        let to = NodeId(leader.0 % 3 + 1);
        let began = tokio::time::Instant::now();
        let writes = cluster.nodes.iter().flat_map(|node| {
            (0..20).map(move |number| {
                node.propose(put(format!("{round}/{}/{number}", node.id()), number.to_string()))
            })
        });
        let writes: Vec<_> = writes.collect();
        assert_eq!(cluster.node(leader).transfer(Some(to)).await, Ok(to));
        assert!(began.elapsed() < SHORTEST_ELECTION, "{:?}", began.elapsed());
        for reply in join_all(writes).await {
            assert!(!reply.unwrap().existed, "each is applied once");
        }
        assert_eq!(cluster.leader().await, to);
    }
    let value = cluster.nodes[0].read(get("5/n3/19"), Consistency::Linearizable).await.unwrap();
    assert_eq!(value, Some(bytes("19")));
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_shut_down_hands_the_leadership_over_first() {
    let cluster = Cluster::of(3, KeyValue::default).await;
    let first = cluster.leader().await;
    let began = tokio::time::Instant::now();
    assert!(matches!(cluster.node(first).shutdown().await, StopReason::Shutdown));
    let second = cluster.leader().await;
    assert!(began.elapsed() < SHORTEST_ELECTION, "{:?}", began.elapsed());
    cluster.node(second).propose(put("a", "b")).await.unwrap();
    assert!(began.elapsed() < SHORTEST_ELECTION, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_shut_down_waits_for_no_successor() {
    let cluster = Cluster::of(3, KeyValue::default).await;
    cluster.leader().await;
    let began = tokio::time::Instant::now();
    join_all(cluster.nodes.iter().map(Node::shutdown)).await;
    assert!(began.elapsed() < 4 * SHORTEST_ELECTION, "{:?}", began.elapsed());

    let cluster = Cluster::of(3, KeyValue::default).await;
    cluster.leader().await;
    let began = tokio::time::Instant::now();
    for node in &cluster.nodes {
        node.shutdown().await;
    }
    assert!(began.elapsed() < 8 * SHORTEST_ELECTION, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_handed_over_has_its_own_error() {
    let cluster = Cluster::of(3, KeyValue::default).await;
    let leader = cluster.leader().await;
    let follower = cluster.node(cluster.follower().await);
    assert_eq!(follower.transfer(None).await, Err(TransferError::NotLeader { leader: Some(leader) }));
    assert_eq!(cluster.node(leader).transfer(Some(NodeId(9))).await, Err(TransferError::NoSuchVoter));
    assert_eq!(cluster.node(leader).transfer(Some(leader)).await, Ok(leader), "it has it");
    for node in &cluster.nodes {
        if node.id() != leader {
            node.abort().await;
        }
    }
    let other = NodeId(leader.0 % 3 + 1);
    assert_eq!(cluster.node(leader).transfer(Some(other)).await, Err(TransferError::TimedOut));
    cluster.node(leader).abort().await;
    assert_eq!(cluster.node(leader).transfer(None).await, Err(TransferError::Stopped));

    let alone = Node::builder(NodeId(1), Raft::config())
        .members([1])
        .storage(MemoryStorage::new())
        .state_machine(KeyValue::default())
        .start()
        .await
        .unwrap();
    support::until(&alone, |status| status.is_leader()).await;
    assert_eq!(alone.transfer(None).await, Err(TransferError::NoSuchVoter));
    assert!(matches!(alone.shutdown().await, StopReason::Shutdown));
}
