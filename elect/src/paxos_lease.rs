//! The tokio shell of PaxosLease with a token.

use async_trait::async_trait;
use futures::stream::BoxStream;
use synod_core::{
    ClusterId, GroupId, Identity, Inbound, Input, Instant, Membership, NodeId, Peer, Start, Storage,
    StorageError, Transport, Write, WriteId,
};
use synod_lease::paxos_lease::{LeaseCall, PaxosLeaseConfig};
use synod_lease::{FencedEvent, FencedLease, FencedMessage};
use synod_replica::{Actions, Host};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::clock::{now, sleep_until_due};
use crate::seat::{Chair, Seat, seat};
use crate::{Election, ElectionError, Leader, Leadership};

/// A candidate for the one lease of a group of nodes, by [PaxosLease](synod_lease::paxos_lease): no log, no leader, two
/// round trips; and one write at a majority for each change of hands, for the token.
///
/// A restarted node is silent for one lease. Renewals wait for no disk.
#[derive(Debug)]
pub struct PaxosLeaseElection {
    seat: Seat,
}

/// Who a [`PaxosLeaseElection`] is among.
#[derive(Clone, Debug)]
pub struct PaxosLeaseMember {
    /// Which node this is.
    pub node: NodeId,
    /// Every node, this one among them; the same on all.
    pub membership: Membership,
    /// The lease; the same on all.
    pub config: PaxosLeaseConfig,
    /// Tells one group of nodes, and so one lease, from another. A storage of another one is refused.
    pub cluster: ClusterId,
}

impl PaxosLeaseElection {
    /// Recovers the storage and starts the candidate on the current tokio runtime. It answers the other candidates from
    /// now on, and campaigns when it is told to.
    ///
    /// # Errors
    /// [`ElectionError`]; nothing is left running then.
    ///
    /// # Panics
    /// Outside a tokio runtime with a timer.
    ///
    /// # Cancel safety
    /// Not cancel-safe: the storage may have recovered, which begins a new life of the node.
    pub async fn start(
        member: PaxosLeaseMember,
        storage: impl Storage + 'static,
        transport: impl Transport<FencedMessage> + 'static,
    ) -> Result<PaxosLeaseElection, ElectionError> {
        let PaxosLeaseMember { node, membership, config, cluster } = member;
        config.validate()?;
        if !membership.contains(node) {
            return Err(ElectionError::NotAMember { node });
        }
        let identity = Identity { cluster, node, group: GroupId::default() };
        let mut storage: Box<dyn Storage> = Box::new(storage);
        let handle = Handle::current();
        let recovery = tokio::task::spawn_blocking(move || {
            let recovered = handle.block_on(storage.recover(&identity));
            (storage, recovered)
        });
        let (storage, recovered) = recovery.await.map_err(|_| StorageError::Poisoned)?;
        let recovered = recovered?;
        transport.open(&identity, recovered.incarnation);
        let peers = membership.members().iter().filter(|peer| peer.id != node);
        let peers: Vec<Peer> =
            peers.map(|peer| Peer { id: peer.id, address: peer.address.clone() }).collect();
        transport.set_peers(&peers);
        let start = Start { node, membership, config, recovered, now: now(), seed: seed_of(node) };
        let host = Host::open(start, identity.group, 0)?;
        let (seat, chair) = seat();
        let journal = Journal { idle: Some(storage), writing: None, queued: Vec::new() };
        let driver = Driver { host, transport: Box::new(transport), journal, chair, campaigning: false };
        tokio::spawn(driver.run());
        Ok(PaxosLeaseElection { seat })
    }
}

#[async_trait]
impl Election for PaxosLeaseElection {
    async fn campaign(&self) -> Result<Leadership, ElectionError> {
        self.seat.campaign().await
    }

    async fn resign(&self) -> Result<(), ElectionError> {
        self.seat.resign().await
    }

    fn observe(&self) -> BoxStream<'static, Option<Leader>> {
        self.seat.observe()
    }
}

/// The task.
struct Driver {
    host: Host<FencedLease>,
    transport: Box<dyn Transport<FencedMessage>>,
    journal: Journal,
    chair: Chair,
    campaigning: bool,
}

/// What to write, on a thread that may block: neither renewals nor answers wait for it.
struct Journal {
    idle: Option<Box<dyn Storage>>,
    writing: Option<JoinHandle<Written>>,
    queued: Vec<Write>,
}

/// The storage back, and the last unit that it made durable.
type Written = (Box<dyn Storage>, Result<WriteId, StorageError>);

impl Driver {
    async fn run(mut self) {
        if let Err(why) = self.work().await {
            self.chair.ended(why);
        }
    }

    async fn work(&mut self) -> Result<(), ElectionError> {
        let mut inbound: Vec<Inbound<FencedMessage>> = Vec::new();
        let mut others = Vec::new();
        let mut actions = Actions::default();
        let mut events = Vec::new();
        loop {
            let now = now();
            for envelope in inbound.drain(..) {
                self.host.receive(now, envelope, &mut others);
                // Nobody forwards anything here.
                others.clear();
            }
            let wish = self.chair.wish();
            let campaign = wish.is_some_and(|wish| wish.campaign);
            if campaign != self.campaigning {
                self.campaigning = campaign;
                let call = if campaign { LeaseCall::Acquire } else { LeaseCall::Release };
                self.host.step(now, Input::Call(call));
            }
            if self.host.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.host.step(now, Input::Tick);
            }
            self.flush(now, &mut actions, &mut events);
            let Some(wish) = wish else { return Ok(()) };
            self.chair.settled(wish.number);
            let seen_until = self.look(now);
            self.journal.begin();
            let due = Instant::earlier(self.host.next_deadline(), seen_until);
            tokio::select! {
                received = self.transport.receive(&mut inbound) => {
                    received.map_err(|_| ElectionError::TransportClosed)?;
                }
                durable = self.journal.written() => self.host.persisted(crate::now(), durable?),
                // An error says that nobody holds the other end: the next round sees it.
                _ = self.chair.wishes.changed() => {}
                () = sleep_until_due(due) => {}
            }
        }
    }

    fn flush(&mut self, now: Instant, actions: &mut Actions<FencedMessage>, events: &mut Vec<FencedEvent>) {
        self.host.flush(now, actions, events);
        self.journal.queued.append(&mut actions.writes);
        for (to, envelope) in actions.envelopes.drain(..) {
            self.transport.send(to, envelope);
        }
        for event in events.drain(..) {
            match event {
                FencedEvent::Held { until, token } => self.chair.holds(Some(token), until),
                FencedEvent::Lost => self.chair.lost(),
            }
        }
    }

    /// Tells whom this node remembers; returns when that ends.
    fn look(&self, now: Instant) -> Option<Instant> {
        let remembered = self.host.machine().remembered(now);
        self.chair.sees(remembered.map(|(node, _, token)| Leader { name: node.0.to_string(), token }));
        remembered.map(|(_, until, _)| until)
    }
}

impl Journal {
    /// Begins to write what is queued, unless something is being written.
    fn begin(&mut self) {
        if self.queued.is_empty() {
            return;
        }
        let Some(mut storage) = self.idle.take() else { return };
        let units = std::mem::take(&mut self.queued);
        let handle = Handle::current();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let result = handle.block_on(storage.write(&units));
            let last = units.last().map_or(WriteId(0), |unit| unit.id);
            (storage, result.map(|()| last))
        }));
    }

    /// Waits for the end of what is being written; for ever if nothing is. Cancel-safe.
    async fn written(&mut self) -> Result<WriteId, StorageError> {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let (storage, result) = writing.await.map_err(|_| StorageError::Poisoned)?;
        self.writing = None;
        self.idle = Some(storage);
        result
    }
}

/// Differs from node to node and from start to start.
fn seed_of(node: NodeId) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(node)
}
