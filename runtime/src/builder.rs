//! How a node is put together and started.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use synod_core::{
    Closed, ClusterId, ConfigError, Envelope, GroupId, Identity, Inbound, Incarnation, Machine, Membership,
    MembershipError, NodeId, Packet, Peer, ProtocolConfig, Recovered, SnapshotStore, Start, StateMachine,
    Storage, Transport,
};
use synod_replica::{KeptSnapshots, Replica, ReplicaConfig, ReplicaStatus, SnapshotKeeper};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::StartError;
use crate::archive::Archive;
use crate::clock::{Clock, Timer};
use crate::driver::{Driver, Work};
use crate::journal::Journal;
use crate::metrics::Counters;
use crate::node::{Ending, Node, Shared};
use crate::status::{Health, NodeStatus};

type MessageOf<C> = <<C as ProtocolConfig>::Protocol as Machine>::Message;

/// Puts a node together; made by [`Node::builder`].
///
/// `members` (or `membership`), `storage`, `transport` and `state_machine` must be given; a cluster of one
/// needs no transport. The order does not matter.
#[must_use = "a builder does nothing until it is started"]
pub struct NodeBuilder<C: ProtocolConfig, S = NoStateMachine> {
    node: NodeId,
    protocol: C,
    state_machine: S,
    membership: Option<Result<Membership, MembershipError>>,
    storage: Option<Box<dyn Storage>>,
    snapshots: Option<Box<dyn SnapshotStore>>,
    transport: Option<Box<dyn Transport<MessageOf<C>>>>,
    replica: ReplicaConfig,
    cluster: ClusterId,
    seed: Option<u64>,
    deadline: Duration,
    drain_timeout: Duration,
    metering: bool,
    gathering: Option<bool>,
}

/// Stands in a [`NodeBuilder`] for the state machine that was not given yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStateMachine;

impl<C: ProtocolConfig> NodeBuilder<C> {
    pub(crate) fn new(node: NodeId, protocol: C) -> NodeBuilder<C> {
        NodeBuilder {
            node,
            protocol,
            state_machine: NoStateMachine,
            membership: None,
            storage: None,
            snapshots: None,
            transport: None,
            replica: ReplicaConfig::default(),
            cluster: ClusterId::default(),
            seed: None,
            deadline: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            metering: false,
            gathering: None,
        }
    }
}

impl<C: ProtocolConfig, S> NodeBuilder<C, S> {
    /// The members, this node among them, without addresses and deciding by majority.
    pub fn members(mut self, ids: impl IntoIterator<Item = u64>) -> Self {
        self.membership = Some(Membership::of_ids(ids));
        self
    }

    /// The members with addresses, quorums and session limits. The same on every node.
    pub fn membership(mut self, membership: Membership) -> Self {
        self.membership = Some(Ok(membership));
        self
    }

    /// Where the log is kept. It is recovered by [`NodeBuilder::start`].
    pub fn storage(mut self, storage: impl Storage + 'static) -> Self {
        self.storage = Some(Box::new(storage));
        self
    }

    /// Where snapshots are kept, beside the log or elsewhere; [`ReplicaConfig::snapshots`] says when one is taken. Without
    /// a store none is taken, the log grows for ever, and a peer whose log was cut off cannot be helped by this node.
    pub fn snapshots(mut self, store: impl SnapshotStore + 'static) -> Self {
        self.snapshots = Some(Box::new(store));
        self
    }

    /// How the peers are reached.
    pub fn transport(mut self, transport: impl Transport<MessageOf<C>> + 'static) -> Self {
        self.transport = Some(Box::new(transport));
        self
    }

    /// What the log drives: empty at the start, and rebuilt from the newest snapshot and the log.
    pub fn state_machine<T: StateMachine>(self, state_machine: T) -> NodeBuilder<C, T> {
        NodeBuilder {
            node: self.node,
            protocol: self.protocol,
            state_machine,
            membership: self.membership,
            storage: self.storage,
            snapshots: self.snapshots,
            transport: self.transport,
            replica: self.replica,
            cluster: self.cluster,
            seed: self.seed,
            deadline: self.deadline,
            drain_timeout: self.drain_timeout,
            metering: self.metering,
            gathering: self.gathering,
        }
    }

    /// Which cluster this is; a storage refuses another one's log. 0 by default.
    pub fn cluster(mut self, cluster: ClusterId) -> Self {
        self.cluster = cluster;
        self
    }

    /// Bounds of queues, batches and memory. The inbox of the node has the bounds of its queue.
    pub fn replica_config(mut self, config: ReplicaConfig) -> Self {
        self.replica = config;
        self
    }

    /// Seeds the node's one random generator. By default the operating system is asked for a seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long calls of the node's handle wait by default: 10 s. See [`Node::with_deadline`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long [`Node::shutdown`] lets open calls go on: 10 s by default.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Counts bytes sent and written in [`Node::metrics`], for a few per cent of the rate. Off by default.
    pub fn metering(mut self, on: bool) -> Self {
        self.metering = on;
        self
    }

    /// Whether the node gives way to other tasks once after it woke up, so that a batch can gather before it
    /// works. By default it does on a multi-threaded runtime, where it would often wake up for the first
    /// command of many, and does not on a current-thread runtime, where the run queue gathers already.
    pub fn gathering(mut self, on: bool) -> Self {
        self.gathering = Some(on);
        self
    }
}

impl<C, S> NodeBuilder<C, S>
where
    C: ProtocolConfig,
    MessageOf<C>: Send,
    S: StateMachine,
{
    /// Recovers the storage, opens the replica and spawns the node on the current tokio runtime.
    ///
    /// The node runs on return; it may not know a leader yet, and calls wait for one.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    ///
    /// # Panics
    /// If the runtime was built without its timer, or if the storage panics.
    ///
    /// # Cancel safety
    /// Not cancel-safe: the storage may have recovered, which begins a new life of the node.
    pub async fn start(self) -> Result<Node, StartError> {
        let runtime = Handle::try_current().map_err(StartError::NoRuntime)?;
        let node = self.node;
        let membership = self.membership.ok_or(StartError::Missing { what: "members" })??;
        if !membership.contains(node) {
            return Err(StartError::NotAMember { node });
        }
        self.protocol.validate()?;
        validate(&self.replica)?;
        let storage = self.storage.ok_or(StartError::Missing { what: "storage" })?;
        let transport = match self.transport {
            Some(transport) => transport,
            None if membership.members().len() == 1 => Box::new(NoPeers),
            None => return Err(StartError::Missing { what: "transport" }),
        };

        fits(&self.protocol, &self.replica, transport.packet_bytes_max())?;

        let identity = Identity { cluster: self.cluster, node, group: GroupId::default() };
        let (storage, recovered) = recover(storage, identity).await?;
        let (keeper, kept) = match self.snapshots {
            Some(store) => {
                let (keeper, kept) = list_snapshots(node, store).await?;
                (Some(keeper), Some(kept))
            }
            None => (None, None),
        };
        let peers = membership.members().iter().filter(|member| member.id != node);
        let peers: Vec<Peer> =
            peers.map(|member| Peer { id: member.id, address: member.address.clone() }).collect();
        transport.open(&identity, recovered.incarnation);
        transport.set_peers(&peers);

        let counters = Arc::new(Counters::default());
        let clock = Clock::start();
        let inbox_max = (self.replica.queue_entries_max, self.replica.queue_bytes_max);
        let start = Start {
            node,
            membership,
            config: self.protocol,
            recovered,
            now: clock.now(),
            seed: self.seed.unwrap_or_else(|| seed_of(node)),
        };
        let (config, state_machine) = (self.replica, self.state_machine);
        let open = move || Replica::open(start, identity.group, config, state_machine, kept);
        // A state that is read back from a snapshot may be as large as the disk.
        let replica: Replica<C::Protocol, S> = match keeper {
            Some(_) => where_it_may_block(open).await.ok_or(StartError::RuntimeGone)??,
            None => open()?,
        };
        let journal = Journal::new(storage, Arc::clone(&counters)).map_err(StartError::Thread)?;
        let archive = keeper.map(Archive::start).transpose().map_err(StartError::Thread)?;
        let status = first_status(node, replica.status());
        tracing::info!(
            %node,
            protocol = C::NAME,
            incarnation = %status.incarnation,
            membership = %status.membership,
            "started",
        );

        let shared = Arc::new(Shared::new(node, inbox_max, counters, status));
        let driver = Driver {
            shared: Arc::clone(&shared),
            replica,
            transport,
            journal,
            archive,
            clock,
            timer: Timer::new(clock),
            gathers: self
                .gathering
                .unwrap_or_else(|| runtime.runtime_flavor() != RuntimeFlavor::CurrentThread),
            meters: self.metering,
            drain_timeout: self.drain_timeout,
            work: Work::default(),
        };
        let ending = Ending::of(Arc::clone(&shared));
        runtime.spawn(async move {
            // Declared first, dropped last: callers and watchers hear of the end when it is complete.
            let mut ending = ending;
            ending.reason = driver.run().await;
        });
        Ok(Node::new(shared, self.deadline))
    }
}

/// Recovers the storage where it may block.
async fn recover(
    mut storage: Box<dyn Storage>,
    identity: Identity,
) -> Result<(Box<dyn Storage>, Recovered), StartError> {
    if !storage.blocking() {
        let recovered = storage.recover(&identity).await?;
        return Ok((storage, recovered));
    }
    let runtime = Handle::current();
    let recovery = where_it_may_block(move || {
        let recovered = runtime.block_on(storage.recover(&identity))?;
        Ok((storage, recovered))
    });
    recovery.await.unwrap_or(Err(StartError::RuntimeGone))
}

/// Looks for the newest snapshot that is whole.
async fn list_snapshots(
    node: NodeId,
    store: Box<dyn SnapshotStore>,
) -> Result<(SnapshotKeeper, KeptSnapshots), StartError> {
    let listing = where_it_may_block(move || {
        let mut keeper = SnapshotKeeper::new(store);
        let kept = keeper.recover()?;
        Ok((keeper, kept))
    });
    let (keeper, kept) = listing.await.unwrap_or(Err(StartError::RuntimeGone))?;
    for (id, error) in &kept.damaged {
        tracing::warn!(%node, snapshot = %id, %error, "a snapshot is damaged and not used");
    }
    Ok((keeper, kept))
}

/// Runs `work` on a thread that may block; its panics go on here. `None` if the runtime is shut down meanwhile.
async fn where_it_may_block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Some(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

fn validate(config: &ReplicaConfig) -> Result<(), ConfigError> {
    let positive = [
        ("queue_entries_max", config.queue_entries_max),
        ("queue_bytes_max", config.queue_bytes_max),
        ("command_bytes_max", config.command_bytes_max),
        ("batch_entries_max", config.batch_entries_max),
        ("batch_bytes_max", config.batch_bytes_max),
        ("apply_entries_max", config.apply_entries_max),
        ("snapshots.bytes_max", config.snapshots.bytes_max),
        ("snapshots.chunk_bytes", config.snapshots.chunk_bytes),
    ];
    let also_positive = [
        ("snapshots.entries_max", config.snapshots.entries_max > 0),
        ("snapshots.age_max", !config.snapshots.age_max.is_zero()),
        ("snapshots.resend_after", !config.snapshots.resend_after.is_zero()),
        ("snapshots.tries_max", config.snapshots.tries_max > 0),
    ];
    let all = positive.into_iter().map(|(setting, value)| (setting, value > 0)).chain(also_positive);
    match all.into_iter().find(|(_, is_positive)| !is_positive) {
        Some((setting, _)) => Err(ConfigError { setting, problem: "must be above zero" }),
        None => Ok(()),
    }
}

/// Nothing that these settings send is longer than what the transport carries.
fn fits<C: ProtocolConfig>(protocol: &C, replica: &ReplicaConfig, carried: usize) -> Result<(), StartError> {
    let message = protocol.message_bytes_max(replica.command_bytes_max);
    let packets = [
        (
            message.saturating_add(Packet::<MessageOf<C>>::TAG_LEN),
            "the protocol's bounds or command_bytes_max",
        ),
        (replica.packet_bytes_max(), "batch_bytes_max, command_bytes_max or snapshots.chunk_bytes"),
    ];
    match packets.into_iter().find(|(needed, _)| *needed > carried) {
        Some((needed, setting)) => Err(StartError::PacketTooLong { needed, carried, setting }),
        None => Ok(()),
    }
}

fn first_status(node: NodeId, status: ReplicaStatus) -> NodeStatus {
    NodeStatus {
        node,
        incarnation: status.incarnation,
        role: status.protocol.role,
        leader: status.protocol.leader,
        reign: status.protocol.reign,
        decided: status.protocol.decided,
        applied: status.applied,
        snapshot: status.snapshot,
        membership: status.protocol.membership,
        health: Health::Running,
    }
}

/// A number that no other start of a node is likely to draw. The standard library seeds its hashers from
/// the operating system.
fn seed_of(node: NodeId) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(node)
}

/// The transport of a cluster of one.
struct NoPeers;

#[async_trait]
impl<M: Send + 'static> Transport<M> for NoPeers {
    fn send(&self, _to: NodeId, _envelope: Envelope<M>) {}

    async fn receive(&self, _into: &mut Vec<Inbound<M>>) -> Result<(), Closed> {
        pending().await
    }

    fn try_receive(&self, _into: &mut Vec<Inbound<M>>) -> Result<(), Closed> {
        Ok(())
    }

    fn open(&self, _identity: &Identity, _incarnation: Incarnation) {}

    fn set_peers(&self, _peers: &[Peer]) {}
}
