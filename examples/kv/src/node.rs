//! One node, put together.

use std::net::SocketAddr;
use std::path::PathBuf;

use synod_core::memory::KeyValue;
use synod_core::{ClusterId, GroupId, Identity, Machine, NodeId, Peer, ProtocolConfig, SnapshotError, Wire};
use synod_multipaxos::MultiPaxos;
use synod_raft::Raft;
use synod_runtime::{Node, ReplicaConfig, SnapshotConfig, StartError};
use synod_transport::{Tcp, TcpError, Tls};
use synod_wal::{FileSnapshots, Wal, WalError};
use synod_zab::Zab;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The cluster; a log of another one is refused.
    pub cluster: ClusterId,
    /// Which member this is.
    pub id: NodeId,
    /// Every member, this one among them, and where its peers find it.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// Where its log lies; snapshots lie in the folder `snapshots` below it.
    pub dir: PathBuf,
    /// A snapshot is taken after so many entries, and the log is cut off behind the one before.
    pub snapshot_entries: u64,
    /// What orders the log.
    pub protocol: Protocol,
    /// Makes the log first; without it the log must be there.
    pub init: bool,
    /// What it proves itself with to its peers; without it nothing between nodes is encrypted, and whoever reaches
    /// the port can claim to be a peer.
    pub tls: Option<Tls>,
}

/// The protocols a node can speak. All members speak the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Raft.
    Raft,
    /// Multi-Paxos.
    #[value(name = "multipaxos")]
    MultiPaxos,
    /// ZAB.
    Zab,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The node is not in the list of its peers.
    #[error("--peers does not name node {0}")]
    NotAmongPeers(NodeId),
    /// The log cannot be made or opened.
    #[error("the log in {} cannot be used", dir.display())]
    Log {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: WalError,
    },
    /// The folder of snapshots cannot be made or opened.
    #[error("the snapshots cannot be used")]
    Snapshots(#[from] SnapshotError),
    /// The address for peers cannot be used.
    #[error("peers cannot be reached")]
    Transport(#[from] TcpError),
    /// The node itself.
    #[error("the node did not start")]
    Start(#[from] StartError),
}

/// Starts the node. Its calls wait for a leader.
///
/// # Errors
/// [`SetupError`]; nothing is left running then.
pub async fn start(setup: &Setup) -> Result<Node, SetupError> {
    match setup.protocol {
        Protocol::Raft => start_with(setup, Raft::config()).await,
        Protocol::MultiPaxos => start_with(setup, MultiPaxos::config()).await,
        Protocol::Zab => start_with(setup, Zab::config()).await,
    }
}

/// The whole of it: a protocol, a log, snapshots, a transport and a state machine.
async fn start_with<C>(setup: &Setup, protocol: C) -> Result<Node, SetupError>
where
    C: ProtocolConfig,
    <C::Protocol as Machine>::Message: Wire,
{
    let Setup { cluster, id, peers, dir, snapshot_entries, .. } = setup;
    let (_, address) = *peers.iter().find(|(peer, _)| peer == id).ok_or(SetupError::NotAmongPeers(*id))?;
    let log = |source| SetupError::Log { dir: dir.clone(), source };
    if setup.init {
        let identity = Identity { cluster: *cluster, node: *id, group: GroupId::default() };
        Wal::create(dir, identity).map_err(log)?;
    }
    let storage = Wal::open(dir).map_err(log)?;
    // After the log: its lock keeps another process from the snapshots as well.
    let snapshots = FileSnapshots::open(dir.join("snapshots"))?;
    let when = SnapshotConfig { entries_max: *snapshot_entries, ..SnapshotConfig::default() };
    let members = peers.iter().map(|(peer, address)| Peer { id: *peer, address: address.to_string() });
    let transport = match &setup.tls {
        Some(tls) => Tcp::bind(address, members, tls.clone()).await?,
        None => Tcp::bind_plaintext(address, members).await?,
    };
    let node = Node::builder(*id, protocol)
        .cluster(*cluster)
        .members(peers.iter().map(|(peer, _)| peer.0))
        .storage(storage)
        .snapshots(snapshots)
        .replica_config(ReplicaConfig { snapshots: when, ..ReplicaConfig::default() })
        .transport(transport)
        .state_machine(KeyValue::default())
        .start()
        .await?;
    Ok(node)
}
