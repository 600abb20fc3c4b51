//! The protocols there are. A new one is one line in [`all`]; nothing else here names a protocol.

use std::io;

use futures::future::BoxFuture;
use synod_core::memory::{MemoryNetwork, MemorySnapshots};
use synod_core::{
    Machine, Member, Membership, NodeId, OpenError, ProtocolConfig, QuorumSystem, SessionLimits,
};
use synod_multipaxos::{FastPaxos, MultiPaxos};
use synod_raft::Raft;
use synod_replica::{ReplicaConfig, SnapshotConfig};
use synod_runtime::{Node, StartError};
use synod_transport::{Tcp, TcpError, Tls};
use synod_zab::Zab;

use crate::certificates::certificates;
use crate::core_cost::{self, CoreCost, Cost};
use crate::logs::{Log, LogError};
use crate::loopback::Loopback;
use crate::options::TransportKind;
use crate::state_machine::Replicated;

/// Every protocol, in the order of tables.
#[must_use]
pub fn all() -> Vec<Box<dyn Contender>> {
    vec![
        contender("raft", Raft::config, majority, 3),
        contender("multipaxos", MultiPaxos::config, majority, 3),
        // Three replicas have no flexible quorums that are smaller than majorities.
        contender("flexpaxos", MultiPaxos::config, flexible, 4),
        // Three replicas are all needed for a fast quorum.
        contender("fastpaxos", FastPaxos::config, majority, 4),
        contender("zab", Zab::config, majority, 3),
    ]
}

/// The protocol of this name.
#[must_use]
pub fn named(name: &str) -> Option<Box<dyn Contender>> {
    all().into_iter().find(|contender| contender.name() == name)
}

/// The names of all protocols.
#[must_use]
pub fn names() -> Vec<&'static str> {
    all().iter().map(|contender| contender.name()).collect()
}

/// A protocol with its settings and quorums; its type is erased.
pub trait Contender: Send + Sync {
    /// Its name in tables and on command lines.
    fn name(&self) -> &'static str;

    /// How many replicas it runs on unless told otherwise.
    fn replicas(&self) -> u64;

    /// Replicas `1..=replicas` and their quorums.
    fn membership(&self, replicas: u64) -> Membership;

    /// A network of `replicas` nodes that carries its messages.
    ///
    /// # Errors
    /// The operating system's, if it has no ports, and that of certificates that are not to be had.
    fn network(&self, transport: TransportKind, replicas: u64) -> io::Result<Box<dyn Network>>;

    /// What ordering a command costs in its core.
    ///
    /// # Errors
    /// [`OpenError`] if it does not open.
    fn core_cost(&self, plan: CoreCost) -> Result<Cost, OpenError>;
}

/// A network on which nodes of one protocol start.
pub trait Network: Send + Sync {
    /// Starts a node on the current tokio runtime.
    ///
    /// # Errors
    /// [`LifeError`], from the future.
    fn start(&self, life: Life) -> BoxFuture<'_, Result<Node, LifeError>>;
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LifeError {
    /// It says so.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It cannot be reached.
    #[error(transparent)]
    Transport(#[from] TcpError),
    /// Its log cannot be made or opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There are no ports for a network.
    #[error("no ports")]
    Ports(#[source] io::Error),
}

/// What a node starts with.
#[derive(Debug)]
pub struct Life {
    /// Which node.
    pub node: NodeId,
    /// Who takes part.
    pub membership: Membership,
    /// Its log, with what earlier lives left there.
    pub log: Log,
    /// Its snapshots, and after how many entries it takes one.
    pub snapshots: Option<(MemorySnapshots, u64)>,
    /// Its state machine, empty.
    pub state_machine: Replicated,
}

fn contender<C: ProtocolConfig>(
    name: &'static str,
    config: fn() -> C,
    membership: fn(u64) -> Membership,
    replicas: u64,
) -> Box<dyn Contender>
where
    MessageOf<C>: Send,
{
    Box::new(Typed { name, config, membership, replicas })
}

type MessageOf<C> = <<C as ProtocolConfig>::Protocol as Machine>::Message;

struct Typed<C> {
    name: &'static str,
    config: fn() -> C,
    membership: fn(u64) -> Membership,
    replicas: u64,
}

impl<C: ProtocolConfig> Contender for Typed<C>
where
    MessageOf<C>: Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn replicas(&self) -> u64 {
        self.replicas
    }

    fn membership(&self, replicas: u64) -> Membership {
        (self.membership)(replicas)
    }

    fn network(&self, transport: TransportKind, replicas: u64) -> io::Result<Box<dyn Network>> {
        let links = match transport {
            TransportKind::Memory => Links::Memory(MemoryNetwork::new()),
            TransportKind::Tcp => Links::Tcp(Loopback::reserve(replicas)?),
            TransportKind::Tls => {
                Links::Tls(Loopback::reserve(replicas)?, certificates(replicas).map_err(io::Error::other)?)
            }
        };
        Ok(Box::new(TypedNetwork { config: self.config, links }))
    }

    fn core_cost(&self, plan: CoreCost) -> Result<Cost, OpenError> {
        core_cost::measure(&(self.config)(), &self.membership(3), plan)
    }
}

struct TypedNetwork<C: ProtocolConfig> {
    config: fn() -> C,
    links: Links<MessageOf<C>>,
}

enum Links<M> {
    Memory(MemoryNetwork<M>),
    Tcp(Loopback),
    /// With what each replica proves itself, in order.
    Tls(Loopback, Vec<Tls>),
}

impl<C: ProtocolConfig> Network for TypedNetwork<C>
where
    MessageOf<C>: Send,
{
    fn start(&self, life: Life) -> BoxFuture<'_, Result<Node, LifeError>> {
        Box::pin(async move {
            let builder = Node::builder(life.node, (self.config)())
                .membership(life.membership)
                .state_machine(life.state_machine)
                .metering(true)
                .drain_timeout(DRAIN);
            let builder = match life.log {
                Log::Memory(log) => builder.storage(log),
                Log::Wal(log) => builder.storage(log),
                #[cfg(feature = "redb")]
                Log::Redb(log) => builder.storage(log),
            };
            let builder = match life.snapshots {
                Some((store, entries_max)) => {
                    let snapshots = SnapshotConfig { entries_max, ..SnapshotConfig::default() };
                    builder
                        .snapshots(store)
                        .replica_config(ReplicaConfig { snapshots, ..ReplicaConfig::default() })
                }
                None => builder,
            };
            let builder = match &self.links {
                Links::Memory(network) => builder.transport(network.attach(life.node)),
                Links::Tcp(ports) => {
                    builder.transport(Tcp::bind_plaintext(ports.address(life.node), ports.peers()).await?)
                }
                Links::Tls(ports, certificates) => {
                    let tls = certificates[life.node.0 as usize - 1].clone();
                    builder.transport(Tcp::bind(ports.address(life.node), ports.peers(), tls).await?)
                }
            };
            Ok(builder.start().await?)
        })
    }
}

/// Nothing is open when nodes are shut down here.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(1);

fn majority(replicas: u64) -> Membership {
    Membership::of_ids(1..=replicas).expect("ids from 1 to at most 64")
}

/// Two replicas decide, so all but one elect; fewer than three replicas decide by majority.
fn flexible(replicas: u64) -> Membership {
    let Some(quorums) = QuorumSystem::small_replication((1..=replicas).map(NodeId)) else {
        return majority(replicas);
    };
    let members = (1..=replicas).map(|id| Member { id: NodeId(id), address: String::new() }).collect();
    Membership::new(members, quorums, SessionLimits::default()).expect("n - 1 and 2 members meet")
}
