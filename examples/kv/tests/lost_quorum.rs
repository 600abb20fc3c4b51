//! A cluster that has lost most of its members: one that is left goes on alone, as another cluster.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use synod_core::memory::{Get, Put};
use synod_core::{ClusterId, NodeId, StorageError};
use synod_kv::node::{Protocol, Setup, SetupError, start};
use synod_runtime::{Consistency, Node, StartError};
use synod_wal::force_new_cluster;

const OLD: ClusterId = ClusterId(1);
const NEW: ClusterId = ClusterId(2);

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

async fn read(node: &Node, key: &str) -> Option<bytes::Bytes> {
    let get = Get { key: key.as_bytes().to_vec().into() };
    node.read(get, Consistency::Linearizable).await.expect("a leader answers")
}

fn put(key: &str, value: &str) -> Put {
    Put { key: key.as_bytes().to_vec().into(), value: value.as_bytes().to_vec().into() }
}

async fn one_that_is_left_goes_on_alone(protocol: Protocol, root: &Path) {
    let peers: Vec<_> = (1..=3).map(|id| (NodeId(id), free_address())).collect();
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
