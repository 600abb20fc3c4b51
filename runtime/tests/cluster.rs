//! Three nodes in one process: election, replication, reads, sessions, crashes.

mod support;

use std::time::Duration;

use bytes::Bytes;
use synod_core::memory::{KeyValue, Previous};
use synod_core::{LogIndex, NodeId, Sequence};
use synod_runtime::{Consistency, Order, ProposeError, StopReason};

use crate::support::{Cluster, Lines, bytes, get, put, until};

async fn elects_replicates_and_reads_everywhere() {
    let cluster = Cluster::of(3, KeyValue::default).await;
    let leader = cluster.leader().await;
    for id in 1..=3 {
        let node = cluster.node(NodeId(id));
        let key = format!("k{id}");
        let reply = node.propose(put(&key, "v")).await.unwrap();
        assert_eq!(reply, Previous { existed: false });
        // A linearizable read shows it at once, wherever it is asked.
        for node in &cluster.nodes {
            let value = node.read(get(&key), Consistency::Linearizable).await.unwrap();
            assert_eq!(value, Some(bytes("v")));
        }
    }
    let applied = until(cluster.node(leader), |status| status.applied >= LogIndex(4)).await.applied;
    for node in &cluster.nodes {
        until(node, |status| status.applied >= applied).await;
        assert_eq!(node.read(get("k1"), Consistency::Local).await.unwrap(), Some(bytes("v")));
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

async fn keeps_every_acknowledged_write() {
    let mut cluster = Cluster::of(3, KeyValue::default).await;
    let first = cluster.leader().await;
    // Eight clients at eight handles write until their node is gone.
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let node = cluster.node(first).clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    let key = format!("{client}/{number}");
                    match node.propose(put(&key, &key)).await {
                        Ok(_) => acknowledged.push(key),
                        Err(ProposeError::Unknown | ProposeError::Stopped { .. }) => break,
                        Err(other) => panic!("a crash does not look like {other}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    until(cluster.node(first), |status| status.applied > LogIndex(200)).await;
    assert!(matches!(cluster.node(first).abort().await, StopReason::Aborted));
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    assert!(acknowledged.len() >= 150, "only {} writes came through", acknowledged.len());

    let second = cluster.leader().await;
    assert_ne!(second, first);
    cluster.node(second).propose(put("after", "the crash")).await.unwrap();
    cluster.restart(first).await;
    let back = cluster.node(first);
    assert_eq!(back.status().incarnation.0, 2);
    for node in &cluster.nodes {
        for key in &acknowledged {
            let value = node.read(get(key), Consistency::Linearizable).await.unwrap();
            assert_eq!(value.as_deref(), Some(key.as_bytes()), "{key} at {}", node.id());
        }
    }
    // The restarted node holds them itself, not only its leader.
    let applied = cluster.node(second).status().applied;
    until(back, |status| status.applied >= applied).await;
    for key in &acknowledged {
        let value = back.read(get(key), Consistency::Local).await.unwrap();
        assert_eq!(value.as_deref(), Some(key.as_bytes()));
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_crashed_and_restarted_leader_loses_no_acknowledged_write_on_one_thread() {
    keeps_every_acknowledged_write().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_and_restarted_leader_loses_no_acknowledged_write_on_two_threads() {
    keeps_every_acknowledged_write().await;
}

#[tokio::test(start_paused = true)]
async fn propose_many_answers_in_order_at_leader_and_follower() {
    let cluster = Cluster::of(3, Lines::default).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    for (round, id) in [leader, follower].into_iter().enumerate() {
        let commands = (0..100).map(|number| bytes(format!("{round}/{number}")));
        let replies = cluster.node(id).propose_many(commands).await;
        assert_eq!(replies.len(), 100);
        let mut places: Vec<usize> = Vec::new();
        for reply in replies {
            places.push(std::str::from_utf8(&reply.unwrap()).unwrap().parse().unwrap());
        }
        assert_eq!(places, (1 + 100 * round..=100 + 100 * round).collect::<Vec<_>>());
    }
    assert!(cluster.node(leader).propose_many(Vec::<Bytes>::new()).await.is_empty());
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_ordered_session_keeps_its_order_across_a_change_of_leader() {
    let cluster = Cluster::of(3, Lines::default).await;
    let follower = cluster.follower().await;
    let node = cluster.node(follower).with_deadline(Duration::from_secs(60));
    let session = node.session(Order::Ordered).await.unwrap();
    let lines: Vec<String> = (0..3000).map(|number| format!("line {number}")).collect();
    let mut proposals: Vec<_> = Vec::new();
    let mut places = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        proposals.push(session.propose(bytes(line)));
        if number == 1500 {
            places.push(proposals.remove(0).await.unwrap());
            cluster.node(cluster.leader().await).abort().await;
        }
    }
    for proposal in proposals {
        places.push(proposal.await.unwrap());
    }
    let expected: Vec<Bytes> = (1..=3000).map(|place: u32| bytes(place.to_string())).collect();
    assert_eq!(places, expected);
    let all = node.read(bytes("all"), Consistency::Linearizable).await.unwrap();
    assert_eq!(all, lines.join("\n"));
    drop(session);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_through_another_node_and_a_repeated_command_is_applied_once() {
    let cluster = Cluster::of(3, Lines::default).await;
    let leader = cluster.leader().await;
    let session = cluster.node(leader).session(Order::Ordered).await.unwrap();
    for line in ["one", "two", "three"] {
        session.propose(bytes(line)).await.unwrap();
    }
    cluster.node(leader).abort().await;
    let refused = session.propose(bytes("four")).await.unwrap_err();
    assert_eq!(refused, ProposeError::Stopped { command: bytes("four") });

    let next = cluster.node(cluster.leader().await);
    // As if the reply to the third had not been seen: the same number gives the same reply.
    let session = next.attach_session(session.client(), Order::Ordered, Sequence(3));
    assert_eq!(session.propose(bytes("three")).await.unwrap(), bytes("3"));
    assert_eq!(session.propose(bytes("four")).await.unwrap(), bytes("4"));
    let all = next.read(bytes("all"), Consistency::Linearizable).await.unwrap();
    assert_eq!(all, "one\ntwo\nthree\nfour");
    drop(session);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_a_deadline_gives_the_command_back() {
    let cluster = Cluster::of(3, KeyValue::default).await;
    let leader = cluster.leader().await;
    let survivor = cluster.follower().await;
    for node in &cluster.nodes {
        if node.id() != survivor {
            node.abort().await;
        }
    }
    let node = cluster.node(survivor);
    until(node, |status| status.leader.is_none()).await;
    assert!(!node.status().is_ready());
    let command = put("k", "v");
    let second = Duration::from_secs(1);
    let asked = tokio::time::Instant::now();
    let error = node.propose_within(second, command.clone()).await.unwrap_err();
    assert!(matches!(&error, ProposeError::TimedOut { .. }), "{error:?}, leader was {leader}");
    assert_eq!(error.into_command(), Some(synod_core::Encode::encode(&command)));
    assert!((second..second * 2).contains(&asked.elapsed()), "{:?}", asked.elapsed());

    let read = node.read_within(second, get("k"), Consistency::Linearizable).await;
    assert_eq!(read, Err(synod_runtime::ReadError::TimedOut));
    // What the node has applied itself needs no quorum.
    assert_eq!(node.read(get("k"), Consistency::Local).await, Ok(None));
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_proposal_that_only_the_lost_leader_saw_ends_unknown() {
    let cluster = Cluster::of(3, KeyValue::default).await;
    let leader = cluster.leader().await;
    // The session is open: from here on a command leaves with its number.
    cluster.node(leader).propose(put("k", "u")).await.unwrap();
    for node in &cluster.nodes {
        if node.id() != leader {
            cluster.network.cut(leader, node.id());
            cluster.network.cut(node.id(), leader);
        }
    }
    let error = cluster.node(leader).propose(put("k", "v")).await.unwrap_err();
    assert_eq!(error, ProposeError::Unknown);
    cluster.shutdown().await;
}
