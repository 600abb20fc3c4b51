//! A cluster that has lost most of its members: one that is left goes on alone, as another cluster.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use synod_core::memory::{Get, Put};
use synod_core::{ClusterId, NodeId, StorageError};
use synod_kv::node::{Protocol, Setup, SetupError, start};
use synod_runtime::{Consistency, Node, StartError};
use synod_wal::force_new_cluster;

const OLD: ClusterId = ClusterId(1);
const NEW: ClusterId = ClusterId(2);

/// Addresses that nobody listens at, below the ports that systems give to outgoing connections: a node that starts before
/// its peers would otherwise take one of theirs for a connection of its own.
fn free_addresses(count: u64) -> Vec<(NodeId, SocketAddr)> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 16_000) as u16;
    let address = || SocketAddr::from(([127, 0, 0, 1], first + NEXT.fetch_add(1, Relaxed) % 4_000));
    let free = std::iter::repeat_with(address).filter(|address| TcpListener::bind(address).is_ok());
    (1..=count).map(NodeId).zip(free).collect()
}

async fn read(node: &Node, key: &str) -> Option<bytes::Bytes> {
    let get = Get { key: key.as_bytes().to_vec().into() };
    node.read(get, Consistency::Linearizable).await.expect("a leader answers")
}

fn put(key: &str, value: &str) -> Put {
    Put { key: key.as_bytes().to_vec().into(), value: value.as_bytes().to_vec().into() }
}

async fn one_that_is_left_goes_on_alone(protocol: Protocol, root: &Path) {
    let peers = free_addresses(3);
    let setup = |id: u64| Setup {
        cluster: OLD,
        id: NodeId(id),
        peers: peers.clone(),
        dir: root.join(id.to_string()),
        snapshot_entries: 100_000,
        protocol,
        init: true,
        tls: None,
    };
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(&setup(id)).await.expect("a node starts"));
    }
    nodes[0].propose(put("colour", "blue")).await.expect("three of three are there");
    // What is shown to a reader at this node is in its log.
    assert_eq!(read(&nodes[1], "colour").await.as_deref(), Some(&b"blue"[..]));
    for node in nodes {
        node.shutdown().await;
    }

    let (old, new) = (root.join("2"), root.join("2-alone"));
    let forced = force_new_cluster(&old, &new, NEW).expect("a whole log is carried over");
    assert_eq!((forced.origin.cluster, forced.identity.node), (OLD, NodeId(2)));
    let peers = vec![(NodeId(2), peers[1].1)];
    let alone = Setup { cluster: NEW, peers, dir: new, init: false, ..setup(2) };
    // As a member of the old cluster it does not start.
    let refused = start(&Setup { cluster: OLD, ..alone.clone() }).await.expect_err("the log is another's");
    assert!(
        matches!(refused, SetupError::Start(StartError::Storage(StorageError::Foreign { .. }))),
        "{refused:?}"
    );
    let node = start(&alone).await.expect("the node starts alone");
    assert_eq!(read(&node, "colour").await.as_deref(), Some(&b"blue"[..]), "{protocol:?}");
    node.propose(put("colour", "red")).await.expect("one of one is there");
    assert_eq!(read(&node, "colour").await.as_deref(), Some(&b"red"[..]), "{protocol:?}");
    node.shutdown().await;
}

#[tokio::test]
async fn one_member_that_is_left_goes_on_as_a_cluster_of_its_own_on_every_protocol() {
    for protocol in [Protocol::Raft, Protocol::MultiPaxos, Protocol::Zab] {
        let root = tempfile::tempdir().expect("a folder");
        one_that_is_left_goes_on_alone(protocol, root.path()).await;
    }
}
