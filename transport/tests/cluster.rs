//! Three nodes with Raft over real sockets: they decide, serve reads, lose one of them and take it back.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use synod_core::memory::{Get, KeyValue, MemoryStorage, Put};
use synod_core::{Incarnation, LogIndex, Membership, NodeId, Peer};
use synod_raft::Raft;
use synod_runtime::{Consistency, Node, StopReason};
use synod_transport::{Tcp, TcpMonitor};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::support::{PATIENCE, reserve, until};

struct Cluster {
    ports: Vec<TcpSocket>,
    storages: Vec<MemoryStorage>,
    nodes: Vec<Node>,
    monitors: Vec<TcpMonitor>,
}

impl Cluster {
    async fn start() -> Cluster {
        let mut cluster = Cluster {
            ports: (0..3).map(|_| reserve()).collect(),
            storages: (0..3).map(|_| MemoryStorage::new()).collect(),
            nodes: Vec::new(),
            monitors: Vec::new(),
        };
        for at in 0..3 {
            let (node, monitor) = cluster.life(at).await;
            cluster.nodes.push(node);
            cluster.monitors.push(monitor);
        }
        cluster
    }

    fn address(&self, at: usize) -> SocketAddr {
        self.ports[at].local_addr().expect("it is bound")
    }

    async fn life(&self, at: usize) -> (Node, TcpMonitor) {
        let peer = |at: usize| Peer { id: id(at), address: self.address(at).to_string() };
        let tcp = Tcp::bind_plaintext(self.address(at), (0..3).map(peer)).await.expect("the port is free");
        let monitor = tcp.monitor();
        let node = Node::builder(id(at), Raft::config())
            .membership(Membership::of_ids(1..=3).expect("three members"))
            .storage(self.storages[at].clone())
            .transport(tcp)
            .state_machine(KeyValue::default())
            .start()
            .await
            .expect("the node starts");
        (node, monitor)
    }

    async fn leader(&self) -> usize {
        let leads = async {
            let waits = self.nodes.iter().map(|node| {
                let mut status = node.watch_status();
                Box::pin(async move {
                    let led =
                        status.wait_for(|status| status.is_leader() && status.stopped().is_none()).await;
                    led.is_ok()
                })
            });
            first_true(waits.collect()).await
        };
        timeout(PATIENCE, leads).await.expect("somebody leads in time")
    }

    async fn put(&self, at: usize, key: &str, value: &str) {
        let put = Put { key: text(key), value: text(value) };
        self.nodes[at].propose(put).await.expect("a majority is up");
    }

    async fn get(&self, at: usize, key: &str) -> Option<Bytes> {
        self.nodes[at]
            .read(Get { key: text(key) }, Consistency::Linearizable)
            .await
            .expect("a majority is up")
    }
}

fn id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

fn text(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

/// The place of the first future that gives true.
async fn first_true<F: Future<Output = bool> + Unpin>(mut futures: Vec<F>) -> usize {
    std::future::poll_fn(|context| {
        for (at, future) in futures.iter_mut().enumerate() {
            if std::pin::Pin::new(future).poll(context) == std::task::Poll::Ready(true) {
                return std::task::Poll::Ready(at);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

async fn decides_loses_a_node_and_takes_it_back() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    for at in 0..3 {
        cluster.put(at, &format!("key {at}"), "before").await;
    }
    for at in 0..3 {
        assert_eq!(cluster.get(at, "key 0").await, Some(text("before")));
    }

    assert!(matches!(cluster.nodes[leader].abort().await, StopReason::Aborted));
    let other = (leader + 1) % 3;
    for number in 0..100 {
        cluster.put(other, &format!("key {number}"), "without it").await;
    }
    assert_eq!(cluster.get((leader + 2) % 3, "key 99").await, Some(text("without it")));

    let (node, monitor) = cluster.life(leader).await;
    assert_eq!(node.status().incarnation, Incarnation(2));
    cluster.nodes[leader] = node;
    cluster.monitors[leader] = monitor;
    assert_eq!(cluster.get(leader, "key 99").await, Some(text("without it")));
    let decided = cluster.nodes[other].status().decided;
    let mut status = cluster.nodes[leader].watch_status();
    let caught_up = status.wait_for(|status| status.applied >= decided.max(LogIndex(1)));
    timeout(PATIENCE, caught_up).await.expect("it catches up in time").expect("it runs");
    cluster.put(leader, "after", "all").await;
    assert_eq!(cluster.get(other, "after").await, Some(text("all")));

    for (at, monitor) in cluster.monitors.iter().enumerate() {
        let metrics = monitor.metrics();
        assert!(metrics.frames_sent > 0 && metrics.frames_received > 0, "n{}: {metrics:?}", at + 1);
        assert_eq!(metrics.refused.total(), 0, "n{}: {metrics:?}", at + 1);
    }
    for node in &cluster.nodes {
        timeout(PATIENCE, node.shutdown()).await.expect("it ends in time");
    }
    // Nobody listens any more.
    for at in 0..3 {
        let address = cluster.address(at);
        until("the port is closed", || std::net::TcpStream::connect(address).is_err()).await;
    }
}

#[tokio::test]
async fn a_cluster_decides_loses_a_node_and_takes_it_back_on_one_thread() {
    timeout(Duration::from_secs(60), decides_loses_a_node_and_takes_it_back()).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_decides_loses_a_node_and_takes_it_back_on_two_threads() {
    timeout(Duration::from_secs(60), decides_loses_a_node_and_takes_it_back()).await.expect("in time");
}
