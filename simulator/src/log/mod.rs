//! Clusters whose nodes order one log: what is common to all their protocols, bare and under the full replica.

mod bare;
mod clients;
mod full;
pub mod leases;
mod operator;
pub(crate) mod quorums;
mod registers;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synod_core::{
    Effects, Envelope, Instant, LogEvent, Machine, Membership, NodeId, Packet, Protocol, ProtocolConfig,
    QuorumSystem, Recovered, WriteId,
};
use synod_replica::Probe;

use crate::disk::Disk;
use crate::observer::{Checked, LogObserver, Violation};
use crate::options::Options;
use crate::rare::Rare;
use crate::rng::Rng;

pub(crate) use bare::count_host;
pub use bare::{Bare, BareCall};
pub use full::Full;
pub use leases::LeaseTables;
pub use registers::Registers;

/// What the simulator must know of one log protocol: the whole of what a new one has to bring.
pub trait LogAdapter: Sized + 'static {
    /// Its settings.
    type Config: ProtocolConfig<Protocol = Self::Protocol>;
    /// The protocol.
    type Protocol: Protocol<Config = Self::Config>;
    /// What watches it.
    type Observer: LogObserver<Self::Protocol> + 'static;
    /// What messages are held against.
    type Bounds;

    /// Its name on the command line.
    const NAME: &'static str = Self::Config::NAME;

    /// Settings for a seed: windows, batches and tails small enough that their bounds are met, timeouts of
    /// the scale of [`Options::patience`].
    fn config(options: &Options, rng: &mut Rng) -> (Self::Config, Self::Bounds);

    /// It goes on from snapshots: they are taken in a share of the seeds.
    const SNAPSHOTS: bool = false;

    /// It hands leaderships over: it is asked to in a share of the seeds.
    const TRANSFERS: bool = false;
    /// Any replica proposes by itself, so that clients of the bare protocol turn to all of them.
    const PROPOSERS_ANY: bool = false;

    /// The quorums for a seed.
    fn quorums(members: &[NodeId], rng: &mut Rng) -> QuorumSystem {
        let _ = rng;
        QuorumSystem::majority(members.iter().copied())
    }

    /// An observer that has seen nothing.
    fn observer(membership: &Membership) -> Self::Observer;

    /// A number that tells this message from others.
    fn fingerprint(message: &<Self::Protocol as Machine>::Message) -> u64;

    /// Checks what bounds a message.
    ///
    /// # Errors
    /// `bound`.
    fn check_message(
        bounds: &Self::Bounds,
        node: usize,
        message: &<Self::Protocol as Machine>::Message,
    ) -> Checked;

    /// Checks what a protocol among correct peers can say of itself.
    ///
    /// # Errors
    /// What does not hold.
    fn check_protocol(node: usize, protocol: &Self::Protocol) -> Checked;

    /// Adds what the protocol counts itself.
    fn count(protocol: &Self::Protocol, rare: &mut crate::rare::RareCounts);

    /// The rare paths that a long sweep must have taken.
    const EXPECTED: &'static [Rare];
}

/// The observer, shared between the world and the probes of all nodes. One thread, so no lock ever waits.
pub(crate) struct Watch<A: LogAdapter> {
    shared: Arc<Mutex<Watched<A>>>,
}

pub(crate) struct Watched<A: LogAdapter> {
    pub(crate) observer: A::Observer,
    /// The first violation a probe saw: told at the end of the event.
    violation: Option<Violation>,
}

/// A node's probe.
struct Eye<A: LogAdapter> {
    node: usize,
    shared: Arc<Mutex<Watched<A>>>,
}

impl<A: LogAdapter> Watch<A> {
    pub(crate) fn new(membership: &Membership) -> Watch<A> {
        let watched = Watched { observer: A::observer(membership), violation: None };
        Watch { shared: Arc::new(Mutex::new(watched)) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Watched<A>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn probe(&self, node: usize) -> Box<dyn Probe<A::Protocol>> {
        Box::new(Eye::<A> { node, shared: Arc::clone(&self.shared) })
    }

    pub(crate) fn opened(&self, node: usize, recovered: &Recovered, machine: &A::Protocol) -> Checked {
        self.lock().observer.opened(node, recovered, machine)
    }

    pub(crate) fn durable(&self, node: usize, through: WriteId, disk: &Disk) -> Checked {
        self.lock().observer.durable(node, through, disk.last_index())
    }

    pub(crate) fn crashed(&self, node: usize, kept: WriteId, disk: &Disk) -> Checked {
        self.lock().observer.crashed(node, kept, disk.last_index())
    }

    pub(crate) fn sent(
        &self,
        bounds: &A::Bounds,
        node: usize,
        to: usize,
        envelope: &Envelope<<A::Protocol as Machine>::Message>,
    ) -> Checked {
        let mut watched = self.lock();
        for packet in &envelope.packets {
            if let Packet::Protocol(message) = packet {
                watched.observer.sent(node, to, message)?;
                A::check_message(bounds, node, message)?;
            }
        }
        Ok(())
    }

    /// What the probes have seen since the last event.
    pub(crate) fn verdict(&self) -> Checked {
        match self.lock().violation.take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }
}

impl<A: LogAdapter> Probe<A::Protocol> for Eye<A> {
    fn stepped(
        &mut self,
        _now: Instant,
        machine: &A::Protocol,
        effects: &Effects<<A::Protocol as Machine>::Message, LogEvent>,
    ) {
        let mut watched = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.violation.is_none()
            && let Err(violation) = watched.observer.stepped(self.node, machine, effects)
        {
            watched.violation = Some(violation);
        }
    }
}

/// The members of a seed's cluster.
pub(crate) fn membership<A: LogAdapter>(options: &Options, rng: &mut Rng) -> Membership {
    let members: Vec<NodeId> = (1..=options.replicas as u64).map(NodeId).collect();
    let quorums = A::quorums(&members, rng);
    let members = members.into_iter().map(|id| synod_core::Member { id, address: String::new() }).collect();
    Membership::new(members, quorums, options.clients.sessions).expect("the quorums of an adapter are valid")
}

/// The rare paths of clients that a long sweep of the full replica must have taken.
pub const EXPECTED_OF_REPLICAS: &[Rare] = &[
    Rare::ReadConfirmed,
    Rare::ReadFailed,
    Rare::Forwarded,
    Rare::ProposedElsewhere,
    Rare::DuplicateDropped,
    Rare::ExpiredDropped,
    Rare::SessionExpired,
    Rare::OutOfOrder,
    Rare::QueueFull,
    Rare::TooLarge,
    Rare::Unknown,
    Rare::TimedOut,
    Rare::FollowerRead,
    Rare::OrderedPipelined,
];
