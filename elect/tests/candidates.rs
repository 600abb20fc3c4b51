//! Three candidates in one process, on each election that needs nobody else.

use std::time::Duration;

use futures::StreamExt;
use synod_core::memory::{MemoryNetwork, MemoryStorage};
use synod_core::{ClusterId, Membership, NodeId};
use synod_elect::{
    Election, ElectionError, Leader, PaxosLeaseElection, PaxosLeaseMember, ReplicatedCandidate,
    ReplicatedElection, now,
};
use synod_lease::FencingToken;
use synod_lease::paxos_lease::PaxosLease;
use synod_lease::replicated::LeaseTable;
use synod_raft::Raft;
use synod_runtime::Node;

const LENGTH: Duration = Duration::from_millis(1_500);
const RETRY: Duration = Duration::from_millis(50);

/// Candidates on nodes 1, 2 and 3.
struct Group {
    candidates: Vec<Box<dyn Election>>,
    /// Cuts a node off from the others.
    cut_off: Box<dyn Fn(NodeId)>,
}

impl Group {
    fn new<M: Send + 'static>(candidates: Vec<Box<dyn Election>>, network: MemoryNetwork<M>) -> Group {
        let cut_off = move |node| {
            for other in (1..=3).map(NodeId).filter(|other| *other != node) {
                network.cut(node, other);
                network.cut(other, node);
            }
        };
        Group { candidates, cut_off: Box::new(cut_off) }
    }
}

/// By PaxosLease.
async fn paxos_lease() -> Group {
    let network = MemoryNetwork::new();
    let mut candidates: Vec<Box<dyn Election>> = Vec::new();
    for id in 1..=3 {
        let transport = network.attach(NodeId(id));
        let candidate = PaxosLeaseElection::start(member(id), MemoryStorage::new(), transport).await.unwrap();
        candidates.push(Box::new(candidate));
    }
    Group::new(candidates, network)
}

fn member(id: u64) -> PaxosLeaseMember {
    PaxosLeaseMember {
        node: NodeId(id),
        membership: Membership::of_ids(1..=3).unwrap(),
        config: PaxosLease::config().length(LENGTH).retry(RETRY),
        cluster: ClusterId(7),
    }
}

/// By a table on Raft.
async fn replicated() -> Group {
    let network = MemoryNetwork::new();
    let mut candidates: Vec<Box<dyn Election>> = Vec::new();
    for id in 1..=3 {
        let node = Node::builder(NodeId(id), Raft::config())
            .members([1, 2, 3])
            .storage(MemoryStorage::new())
            .transport(network.attach(NodeId(id)))
            .state_machine(LeaseTable::new())
            .start()
            .await
            .unwrap();
        let candidate = ReplicatedCandidate {
            length: LENGTH,
            retry: RETRY,
            ..ReplicatedCandidate::new("name", id.to_string())
        };
        candidates.push(Box::new(ReplicatedElection::start(node, &candidate).unwrap()));
    }
    Group::new(candidates, network)
}

/// The leader resigns, and the next one leads under a higher token, before the lease of the first would have ended.
async fn hands_over(Group { candidates, .. }: Group) {
    let first = candidates[0].campaign().await.unwrap();
    let mut seen = candidates[1].observe();
    while seen.next().await.unwrap().is_none_or(|leader: Leader| leader.name != "1") {}
    let next = async {
        let leadership = candidates[1].campaign().await.unwrap();
        (leadership, now())
    };
    let resign = async {
        let until = first.valid_until().expect("renewed by itself");
        candidates[0].resign().await.unwrap();
        assert_eq!(first.remaining(), None, "its own belief goes first");
        until
    };
    let (until, (second, at)) = tokio::join!(resign, next);
    assert!(second.token() > first.token(), "{second:?} after {first:?}");
    assert!(at < until, "it need not wait for the end of what was given up");
    first.lost().await;
    while seen.next().await.unwrap().is_none_or(|leader| leader.name != "2") {}
}

/// The leader is cut off; another one leads once its lease has ended, and not before.
async fn is_followed(Group { candidates, cut_off }: Group) {
    let first = candidates[0].campaign().await.unwrap();
    cut_off(NodeId(1));
    let second = candidates[1].campaign().await.unwrap();
    assert_eq!(first.remaining(), None);
    assert!(second.token() > first.token(), "{second:?} after {first:?}");
    assert!(first.token() > Some(FencingToken(0)));
    drop(second);
    assert!(candidates[1].campaign().await.unwrap().remaining().is_some(), "dropping it resigns nothing");
}

/// Dropping a candidate gives up what it holds: nobody waits for the end of its lease.
async fn is_dropped(Group { mut candidates, .. }: Group) {
    let first = candidates[0].campaign().await.unwrap();
    let until = first.valid_until().expect("it leads");
    drop(candidates.remove(0));
    candidates[0].campaign().await.unwrap();
    assert!(now() < until);
}

#[tokio::test]
async fn paxos_lease_hands_over_to_whoever_waits() {
    hands_over(paxos_lease().await).await;
}

#[tokio::test]
async fn a_table_hands_over_to_whoever_waits() {
    hands_over(replicated().await).await;
}

#[tokio::test]
async fn a_leader_of_paxos_lease_that_is_cut_off_is_followed_when_its_lease_has_ended() {
    is_followed(paxos_lease().await).await;
}

#[tokio::test]
async fn a_leader_by_a_table_that_is_cut_off_is_followed() {
    is_followed(replicated().await).await;
}

#[tokio::test]
async fn a_candidate_that_is_dropped_gives_up_what_it_holds() {
    is_dropped(paxos_lease().await).await;
    is_dropped(replicated().await).await;
}

#[tokio::test]
async fn a_leader_that_goes_on_is_renewed_under_one_token() {
    for Group { candidates, .. } in [paxos_lease().await, replicated().await] {
        let leadership = candidates[2].campaign().await.unwrap();
        let first = leadership.valid_until().unwrap();
        let mut until = first;
        while until < first + LENGTH {
            until = leadership.changed(Some(until)).await.expect("nobody takes it away");
        }
        assert_eq!(candidates[2].campaign().await.unwrap().token(), leadership.token());
    }
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused_before_anything_starts() {
    let network = MemoryNetwork::new();
    let stranger =
        PaxosLeaseElection::start(member(4), MemoryStorage::new(), network.attach(NodeId(4))).await;
    assert!(matches!(stranger, Err(ElectionError::NotAMember { node: NodeId(4) })));

    let node = Node::builder(NodeId(1), Raft::config())
        .members([1])
        .storage(MemoryStorage::new())
        .state_machine(LeaseTable::new())
        .start()
        .await
        .unwrap();
    let long = ReplicatedCandidate { name: "n".repeat(100_000), ..ReplicatedCandidate::new("", "") };
    assert!(matches!(ReplicatedElection::start(node.clone(), &long), Err(ElectionError::Config(_))));
    let election = ReplicatedElection::start(node.clone(), &ReplicatedCandidate::new("name", "1")).unwrap();
    let leadership = election.campaign().await.unwrap();
    node.shutdown().await;
    leadership.lost().await;
    assert!(matches!(election.campaign().await, Err(ElectionError::Ended(_))));
}
