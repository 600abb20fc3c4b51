//! Three nodes in one process, on both tokio flavours.

mod support;

use synod_core::NodeId;
use synod_core::memory::Previous;
use synod_runtime::Consistency;

use crate::support::{Cluster, bytes, get, put};

async fn elects_replicates_and_reads_everywhere() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let reply = cluster.node(leader).propose(put("k", "v")).await.unwrap();
    assert_eq!(reply, Previous { existed: false });
    for id in 1..=3 {
        let node = cluster.node(NodeId(id));
        let value = node.read(get("k"), Consistency::Linearizable).await.unwrap();
        assert_eq!(value, Some(bytes("v")));
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn three_nodes_elect_replicate_and_read_on_one_thread() {
    elects_replicates_and_reads_everywhere().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_elect_replicate_and_read_on_two_threads() {
    elects_replicates_and_reads_everywhere().await;
}
