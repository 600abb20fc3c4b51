//! The transport: what a node sends and receives, and the tasks behind it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::task::Poll;

use async_trait::async_trait;
use synod_core::{
    Closed, ConfigError, Envelope, Identity, Inbound, Incarnation, NodeId, Peer as Member, Transport, Wire,
};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::accept::accept;
use crate::dial::Dialer;
use crate::handshake::{Hello, Versions};
use crate::inbox::Inbox;
use crate::metrics::Counters;
use crate::outbox::Outbox;
use crate::peer::Peer;
#[cfg(feature = "tls")]
use crate::tls::{Tls, certificate_name};
use crate::{TcpMetrics, TcpOptions, lock};

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TcpError {
    /// Bounds that do not fit together.
    #[error("invalid options")]
    Options(#[from] ConfigError),
    /// Nothing can be received at the address.
    #[error("cannot listen")]
    Listen(#[source] io::Error),
}

/// TCP between nodes, encrypted or not.
///
/// See the [front page](crate) for what it promises.
#[derive(Debug)]
pub struct Tcp<M> {
    core: Arc<Core<M>>,
    runtime: Handle,
    /// Addresses of members whose membership entry has none.
    addresses: BTreeMap<NodeId, String>,
    local: SocketAddr,
    tasks: Mutex<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    accepting: Option<AbortHandle>,
    dialing: BTreeMap<NodeId, (String, AbortHandle)>,
    closed: bool,
}

/// What the tasks of a transport share.
#[derive(Debug)]
pub(crate) struct Core<M> {
    pub(crate) own: Arc<Own>,
    pub(crate) inbox: Inbox<M>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// Here and not in the task that accepts, so that closing frees the port at once.
    listener: Mutex<Option<TcpListener>>,
}

/// What a transport says of itself and counts.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) options: TcpOptions,
    pub(crate) counters: Arc<Counters>,
    /// What is spoken with peers; plaintext if nothing.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
    life: OnceLock<(Identity, Incarnation)>,
}

impl Own {
    pub(crate) fn node(&self) -> NodeId {
        self.life.get().map_or(NodeId(0), |(identity, _)| identity.node)
    }

    /// Who is meant by a node of this cluster.
    #[cfg(feature = "tls")]
    pub(crate) fn identity_of(&self, node: NodeId) -> Identity {
        self.life.get().map_or_else(Identity::default, |(identity, _)| Identity { node, ..*identity })
    }

    /// What is said to a peer.
    pub(crate) fn hello(&self, to: NodeId) -> Hello {
        let (identity, incarnation) = *self.life.get().expect("tasks start after the transport is opened");
        let frame_bytes_max = u32::try_from(self.options.frame_bytes_max).expect("options are validated");
        Hello { versions: Versions::SPOKEN, identity, to, incarnation, frame_bytes_max }
    }
}

impl<M> Core<M> {
    pub(crate) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// The next connection; none once the listener is closed.
    pub(crate) async fn accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        std::future::poll_fn(|context| match &*lock(&self.listener) {
            Some(listener) => listener.poll_accept(context).map(Some),
            None => Poll::Ready(None),
        })
        .await
    }
}

impl<M: Wire + Send + 'static> Tcp<M> {
    /// Listens at `address`, with mutual TLS on every connection.
    ///
    /// `peers` tells where members are found whose membership entry has no address; [`Tcp::local_addr`] tells
    /// the port if `address` leaves it to the operating system. Nothing is accepted before the node that the
    /// transport is given to has started.
    ///
    /// # Errors
    /// [`TcpError::Listen`] if the address is not to be had.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if it was built without its sockets and timer.
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is left listening.
    #[cfg(feature = "tls")]
    pub async fn bind(
        address: impl ToSocketAddrs,
        peers: impl IntoIterator<Item = Member>,
        tls: Tls,
    ) -> Result<Tcp<M>, TcpError> {
        Tcp::bind_with(address, peers, tls, TcpOptions::default()).await
    }

    /// [`Tcp::bind`] with other bounds than the default ones.
    ///
    /// # Errors
    /// [`TcpError`].
    ///
    /// # Panics
    /// As [`Tcp::bind`].
    ///
    /// # Cancel safety
    /// As [`Tcp::bind`].
    #[cfg(feature = "tls")]
    pub async fn bind_with(
        address: impl ToSocketAddrs,
        peers: impl IntoIterator<Item = Member>,
        tls: Tls,
        options: TcpOptions,
    ) -> Result<Tcp<M>, TcpError> {
        let mut tcp = Tcp::listen(address, peers, options).await?;
        let core = Arc::get_mut(&mut tcp.core).expect("nobody else has it yet");
        Arc::get_mut(&mut core.own).expect("nobody else has it yet").tls = Some(tls);
        Ok(tcp)
    }

    /// Listens at `address`, without encryption and without proof of who calls: whoever reaches the port can read,
    /// and can claim to be a peer. For networks in which nobody else is, and for tests.
    ///
    /// `peers` and `address` are as those of `Tcp::bind` (feature `tls`).
    ///
    /// # Errors
    /// [`TcpError::Listen`] if the address is not to be had.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if it was built without its sockets and timer.
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is left listening.
    pub async fn bind_plaintext(
        address: impl ToSocketAddrs,
        peers: impl IntoIterator<Item = Member>,
    ) -> Result<Tcp<M>, TcpError> {
        Tcp::bind_plaintext_with(address, peers, TcpOptions::default()).await
    }

    /// [`Tcp::bind_plaintext`] with other bounds than the default ones.
    ///
    /// # Errors
    /// [`TcpError`].
    ///
    /// # Panics
    /// As [`Tcp::bind_plaintext`].
    ///
    /// # Cancel safety
    /// As [`Tcp::bind_plaintext`].
    pub async fn bind_plaintext_with(
        address: impl ToSocketAddrs,
        peers: impl IntoIterator<Item = Member>,
        options: TcpOptions,
    ) -> Result<Tcp<M>, TcpError> {
        let tcp = Tcp::listen(address, peers, options).await?;
        tracing::warn!(address = %tcp.local, "plaintext between nodes: whoever reaches the port can claim to be a peer");
        Ok(tcp)
    }

    async fn listen(
        address: impl ToSocketAddrs,
        peers: impl IntoIterator<Item = Member>,
        options: TcpOptions,
    ) -> Result<Tcp<M>, TcpError> {
        options.validate()?;
        let listener = TcpListener::bind(address).await.map_err(TcpError::Listen)?;
        let local = listener.local_addr().map_err(TcpError::Listen)?;
        let inbox = Inbox::new(&options);
        let own = Own {
            options,
            counters: Arc::default(),
            #[cfg(feature = "tls")]
            tls: None,
            life: OnceLock::new(),
        };
        let core = Core {
            own: Arc::new(own),
            inbox,
            peers: RwLock::default(),
            listener: Mutex::new(Some(listener)),
        };
        let addresses = peers.into_iter().map(|peer| (peer.id, peer.address)).collect();
        let tasks = Mutex::default();
        Ok(Tcp { core: Arc::new(core), runtime: Handle::current(), addresses, local, tasks })
    }
}

impl<M> Tcp<M> {
    /// Where this end listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Tells the counters of this transport, also after it went into a node.
    #[must_use]
    pub fn monitor(&self) -> TcpMonitor {
        TcpMonitor(Arc::clone(&self.core.own.counters))
    }

    /// Stops listening and ends every connection; the port is free on return. What has arrived can still be
    /// received. Dropping the transport does the same.
    pub fn close(&self) {
        let mut tasks = lock(&self.tasks);
        tasks.closed = true;
        drop(lock(&self.core.listener).take());
        let dialing = std::mem::take(&mut tasks.dialing);
        for task in tasks.accepting.take().into_iter().chain(dialing.into_values().map(|(_, task)| task)) {
            task.abort();
        }
        drop(tasks);
        let peers = std::mem::take(&mut *self.core.peers.write().unwrap_or_else(PoisonError::into_inner));
        peers.values().for_each(|peer| peer.remove());
        self.core.inbox.close();
    }
}

impl<M> Drop for Tcp<M> {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl<M: Wire + Send + 'static> Transport<M> for Tcp<M> {
    fn send(&self, to: NodeId, envelope: Envelope<M>) {
        match self.core.peer(to) {
            Some(peer) => peer.outbox.send(envelope),
            None => self.core.own.counters.dropped_down.add(1),
        }
    }

    async fn receive(&self, into: &mut Vec<Inbound<M>>) -> Result<(), Closed> {
        self.core.inbox.receive(into).await
    }

    fn try_receive(&self, into: &mut Vec<Inbound<M>>) -> Result<(), Closed> {
        self.core.inbox.take(into)
    }

    /// # Panics
    /// If it was opened before.
    fn open(&self, identity: &Identity, incarnation: Incarnation) {
        let opened = self.core.own.life.set((*identity, incarnation));
        assert!(opened.is_ok(), "a transport is opened once");
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.core.own.tls
            && !tls.is_of(identity)
        {
            let name = certificate_name(identity.cluster, identity.node);
            tracing::error!(node = %identity.node, name, "the certificate has not the name of this node: every peer will refuse it");
        }
    }

    /// # Panics
    /// If it was not opened.
    fn set_peers(&self, peers: &[Member]) {
        let own = &self.core.own;
        assert!(own.life.get().is_some(), "a transport is opened before it is told its peers");
        let mut tasks = lock(&self.tasks);
        if tasks.closed {
            return;
        }
        let wanted: BTreeMap<NodeId, Option<&str>> = peers
            .iter()
            .filter(|peer| peer.id != own.node())
            .map(|peer| (peer.id, self.address_of(peer)))
            .collect();
        let mut known = self.core.peers.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|id, peer| {
            let stays = wanted.contains_key(id);
            if !stays {
                if let Some((_, task)) = tasks.dialing.remove(id) {
                    task.abort();
                }
                peer.remove();
            }
            stays
        });
        for (id, address) in wanted {
            let peer = known.entry(id).or_insert_with(|| {
                Arc::new(Peer::new(id, Outbox::new(&own.options, Arc::clone(&own.counters))))
            });
            let Some(address) = address else {
                tracing::error!(node = %own.node(), peer = %id, "a peer has no address: nothing can be sent to it");
                continue;
            };
            if tasks.dialing.get(&id).is_some_and(|(before, _)| before == address) {
                continue;
            }
            let address = address.to_owned();
            let dialer = Dialer { own: Arc::clone(own), peer: Arc::clone(peer), address: address.clone() };
            // What is sent before the task runs waits for it.
            peer.outbox.dialing();
            let task = self.runtime.spawn(dialer.run()).abort_handle();
            if let Some((_, before)) = tasks.dialing.insert(id, (address, task)) {
                before.abort();
            }
        }
        drop(known);
        if tasks.accepting.is_none() {
            tasks.accepting = Some(self.runtime.spawn(accept(Arc::clone(&self.core))).abort_handle());
        }
    }

    fn packet_bytes_max(&self) -> usize {
        self.core.own.options.frame_bytes_max - Envelope::<M>::HEADER_LEN
    }
}

impl<M> Tcp<M> {
    fn address_of<'a>(&'a self, peer: &'a Member) -> Option<&'a str> {
        let stated = Some(peer.address.as_str()).filter(|address| !address.is_empty());
        stated.or_else(|| self.addresses.get(&peer.id).map(String::as_str))
    }
}

/// Tells the counters of a [`Tcp`].
#[derive(Clone, Debug)]
pub struct TcpMonitor(Arc<Counters>);

impl TcpMonitor {
    /// What the transport has done so far.
    #[must_use]
    pub fn metrics(&self) -> TcpMetrics {
        self.0.snapshot()
    }
}
