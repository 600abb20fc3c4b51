//! What a caller is told that hands the leadership over.

mod fixture;

use std::time::Duration;

use fixture::{Cluster, SECOND};
use synod_core::NodeId;
use synod_replica::{ClientCall, Token, TransferError};

fn transfer(cluster: &mut Cluster, id: u64, token: u64, to: Option<u64>) {
    let deadline = cluster.now + 10 * SECOND;
    cluster.call(id, ClientCall::Transfer { token: Token(token), to: to.map(NodeId), deadline });
}

fn answer(cluster: &mut Cluster, id: u64, token: u64) -> Option<Result<NodeId, TransferError>> {
    cluster.node(id).transferred.get(&Token(token)).cloned()
}

#[test]
fn who_leads_next_is_told_whoever_was_named() {
    let mut cluster = Cluster::of(3);
    transfer(&mut cluster, 1, 1, Some(2));
    assert_eq!(answer(&mut cluster, 1, 1), None, "nobody else leads yet");
    cluster.appoint(2);
    assert_eq!(answer(&mut cluster, 1, 1), Some(Ok(NodeId(2))));
    transfer(&mut cluster, 2, 2, None);
    cluster.appoint(3);
    assert_eq!(answer(&mut cluster, 2, 2), Some(Ok(NodeId(3))));
    transfer(&mut cluster, 3, 3, Some(2));
    cluster.appoint(1);
    let elsewhere = TransferError::Elsewhere { leader: NodeId(1) };
    assert_eq!(answer(&mut cluster, 3, 3), Some(Err(elsewhere)));
}

#[test]
fn a_leader_that_is_to_have_what_it_has_is_done() {
    let mut cluster = Cluster::of(3);
    transfer(&mut cluster, 1, 1, Some(1));
    assert_eq!(answer(&mut cluster, 1, 1), Some(Ok(NodeId(1))));
}

#[test]
fn what_cannot_be_handed_over_is_answered_at_once() {
    let mut cluster = Cluster::of(3);
    transfer(&mut cluster, 2, 1, Some(3));
    let not_leader = TransferError::NotLeader { leader: Some(NodeId(1)) };
    assert_eq!(answer(&mut cluster, 2, 1), Some(Err(not_leader)));
    transfer(&mut cluster, 1, 2, Some(9));
    assert_eq!(answer(&mut cluster, 1, 2), Some(Err(TransferError::NoSuchVoter)));
    transfer(&mut cluster, 1, 3, Some(2));
    transfer(&mut cluster, 1, 4, Some(3));
    assert_eq!(answer(&mut cluster, 1, 4), Some(Err(TransferError::UnderWay)));
    assert_eq!(answer(&mut cluster, 1, 3), None, "the first one goes on");
}

#[test]
fn a_caller_waits_until_its_deadline_and_a_replica_that_stops_hands_over_first() {
    let mut cluster = Cluster::of(3);
    cluster.call(1, ClientCall::Stop);
    transfer(&mut cluster, 1, 1, None);
    assert!(!cluster.node(1).replica.is_idle());
    cluster.advance(10 * SECOND - Duration::from_millis(1));
    assert_eq!(answer(&mut cluster, 1, 1), None);
    cluster.advance(Duration::from_millis(1));
    assert_eq!(answer(&mut cluster, 1, 1), Some(Err(TransferError::TimedOut)));
    assert!(cluster.node(1).replica.is_idle());
}
