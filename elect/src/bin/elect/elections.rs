//! The elections, as the command line asks for them.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use synod_core::{ClusterId, GroupId, Identity, Membership, NodeId, Peer, Wire};
use synod_elect::{Election, PaxosLeaseElection, PaxosLeaseMember, ReplicatedCandidate, ReplicatedElection};
use synod_lease::paxos_lease::PaxosLease;
use synod_lease::replicated::LeaseTable;
use synod_raft::Raft;
use synod_runtime::Node;
use synod_transport::Tcp;
use synod_wal::{Wal, WalOptions};

use crate::{Arguments, Kind};

/// A candidate, and the node under it if it needs one.
pub(crate) struct Started {
    pub(crate) election: Box<dyn Election>,
    node: Option<Node>,
}

impl Started {
    /// Resigns, and hands over what else there is to hand over.
    pub(crate) async fn end(self) {
        // Whoever cannot be told waits for the end of the lease.
        let _ = self.election.resign().await;
        if let Some(node) = self.node {
            node.shutdown().await;
        }
    }
}

pub(crate) async fn start(arguments: &Arguments) -> Result<Started, Box<dyn Error>> {
    let alone = |election: Box<dyn Election>| Ok(Started { election, node: None });
    match arguments.election {
        Kind::Paxoslease => {
            let cluster = ClusterId(digest(&["paxoslease", &arguments.name]));
            let member = PaxosLeaseMember {
                node: NodeId(arguments.id()),
                membership: Membership::of_ids(arguments.peers.iter().map(|(peer, _)| peer.0))?,
                config: PaxosLease::config().length(arguments.ttl).retry(retry(arguments.ttl)),
                cluster,
            };
            let storage = log(arguments, cluster)?;
            alone(Box::new(PaxosLeaseElection::start(member, storage, transport(arguments).await?).await?))
        }
        Kind::Replicated => {
            let cluster = ClusterId(digest(&["replicated"]));
            let node = Node::builder(NodeId(arguments.id()), Raft::config())
                .cluster(cluster)
                .members(arguments.peers.iter().map(|(peer, _)| peer.0))
                .storage(log(arguments, cluster)?)
                .transport(transport(arguments).await?)
                .state_machine(LeaseTable::new())
                .start()
                .await?;
            let candidate = ReplicatedCandidate {
                length: arguments.ttl,
                retry: retry(arguments.ttl),
                ..ReplicatedCandidate::new(&arguments.name, arguments.id().to_string())
            };
            let election = Box::new(ReplicatedElection::start(node.clone(), &candidate)?);
            Ok(Started { election, node: Some(node) })
        }
        #[cfg(feature = "etcd")]
        Kind::Etcd => {
            let candidate = queued(arguments);
            alone(Box::new(synod_elect::EtcdElection::start(&arguments.endpoints, None, &candidate).await?))
        }
        #[cfg(feature = "zookeeper")]
        Kind::Zookeeper => {
            let candidate = queued(arguments);
            alone(Box::new(synod_elect::ZooKeeperElection::start(&arguments.endpoints, &candidate)?))
        }
        #[cfg(not(all(feature = "etcd", feature = "zookeeper")))]
        _ => Err("built without this one: `cargo install synod-elect --features etcd,zookeeper`".into()),
    }
}

#[cfg(any(feature = "etcd", feature = "zookeeper"))]
fn queued(arguments: &Arguments) -> synod_elect::QueuedCandidate {
    synod_elect::QueuedCandidate {
        length: arguments.ttl,
        ..synod_elect::QueuedCandidate::new(&arguments.name, arguments.id().to_string())
    }
}

/// What survives a restart: of PaxosLease the token alone, so small segments do.
fn log(arguments: &Arguments, cluster: ClusterId) -> Result<Wal, Box<dyn Error>> {
    let dir: &Path = arguments.dir.as_deref().unwrap_or(Path::new("."));
    let options = WalOptions::default().segment_bytes(SEGMENT_BYTES);
    if arguments.init {
        let identity = Identity { cluster, node: NodeId(arguments.id()), group: GroupId::default() };
        drop(Wal::create_with(dir, identity, options.clone())?);
    }
    Ok(Wal::open_with(dir, options)?)
}

async fn transport<M: Wire + Send + 'static>(arguments: &Arguments) -> Result<Tcp<M>, Box<dyn Error>> {
    let own = arguments.peers.iter().find(|(peer, _)| peer.0 == arguments.id());
    let (_, address) = own.ok_or("--peers does not name this member")?;
    let peers =
        arguments.peers.iter().map(|(peer, address)| Peer { id: *peer, address: address.to_string() });
    Ok(Tcp::bind_plaintext(*address, peers).await?)
}

/// How long to wait after a failure: a twentieth of the lease.
fn retry(ttl: Duration) -> Duration {
    (ttl / 20).clamp(Duration::from_millis(20), Duration::from_millis(500))
}

/// Tells what is named differently apart: FNV-1a, 128 bits.
fn digest(parts: &[&str]) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    let mut digest: u128 = 0x6C62_272E_07BB_0142_62B8_2175_6295_C58D;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        digest = (digest ^ u128::from(byte)).wrapping_mul(PRIME);
    }
    digest
}

const SEGMENT_BYTES: u64 = 1 << 20;
