//! Connections that others make: admitted, greeted, read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use synod_core::{Envelope, Wire};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::frame::{self, FrameError, HEARTBEAT, Split};
use crate::greet::{GreetError, read_greeting};
use crate::handshake::{Greeting, Hello, Refusal};
use crate::lock;
use crate::metrics::Loss;
use crate::options::TcpOptions;
use crate::peer::Peer;
use crate::socket::{Socket, would_block};
use crate::tcp::Core;
#[cfg(feature = "tls")]
use crate::{chain::Chain, tls::ShakeError};

/// Room for reads, in bytes, and how little of it may be left for one read.
const READ_BYTES: usize = 256 << 10;
const READ_BYTES_MIN: usize = 4 << 10;

/// How much more of a refused connection is read, in bytes.
const LINGER_BYTES: usize = 64 << 10;

/// How long a refused connection is kept open, so that the reason arrives before the end.
const LINGER: Duration = Duration::from_millis(200);

/// How long nothing is accepted after the operating system could not: it is out of descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes connections until the listener is closed.
pub(crate) async fn accept<M: Wire + Send + 'static>(core: Arc<Core<M>>) {
    let gate = Arc::new(Gate::default());
    // Ends every connection together with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = core.accept() => match accepted {
                Some(Ok((stream, address))) => {
                    let pass = gate.admit(address.ip(), &core.own.options);
                    let socket = Socket::new(stream);
                    connections.spawn(Caller { core: Arc::clone(&core), socket }.serve(pass));
                }
                Some(Err(error)) => {
                    tracing::warn!(node = %core.own.node(), %error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
                None => return,
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Counts the connections that have not said who they are, and ends the oldest if there are too many.
#[derive(Debug, Default)]
struct Gate {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    admitted: u64,
    ends: BTreeMap<u64, (Origin, Arc<Notify>)>,
    /// The same connections by where they come from; none is empty.
    origins: BTreeMap<Origin, BTreeSet<u64>>,
}

/// Where connections come from that count as one caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin(u64);

impl Origin {
    /// An IPv4 address, or the network of 64 bits that a single machine may have all of.
    fn of(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V4(address) => Origin(u64::from(address.to_bits())),
            IpAddr::V6(address) => Origin((address.to_bits() >> 64) as u64),
        }
    }
}

/// One of these connections, until it is dropped.
#[derive(Debug)]
struct Pass {
    gate: Arc<Gate>,
    number: u64,
    end: Arc<Notify>,
}

impl Gate {
    fn admit(self: &Arc<Self>, address: IpAddr, options: &TcpOptions) -> Pass {
        let origin = Origin::of(address);
        let mut waiting = lock(&self.waiting);
        while let Some(of_origin) = waiting.origins.get(&origin)
            && of_origin.len() >= options.handshakes_per_address_max
            && let Some(oldest) = of_origin.first().copied()
        {
            waiting.end(oldest);
        }
        while waiting.ends.len() >= options.handshakes_max
            && let Some(oldest) = waiting.ends.keys().next().copied()
        {
            waiting.end(oldest);
        }
        waiting.admitted += 1;
        let (number, end) = (waiting.admitted, Arc::new(Notify::new()));
        waiting.ends.insert(number, (origin, Arc::clone(&end)));
        waiting.origins.entry(origin).or_default().insert(number);
        drop(waiting);
        Pass { gate: Arc::clone(self), number, end }
    }
}

impl Waiting {
    fn end(&mut self, number: u64) {
        if let Some(end) = self.remove(number) {
            end.notify_one();
        }
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Notify>> {
        let (origin, end) = self.ends.remove(&number)?;
        if let Some(of_origin) = self.origins.get_mut(&origin) {
            of_origin.remove(&number);
            if of_origin.is_empty() {
                self.origins.remove(&origin);
            }
        }
        Some(end)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        lock(&self.gate.waiting).remove(self.number);
    }
}

/// A connection that somebody made.
struct Caller<M> {
    core: Arc<Core<M>>,
    socket: Socket,
}

/// Why a caller is not welcome.
enum Rejected {
    /// It is yet to be told.
    Here(Refusal),
    /// TLS has told it, as far as that can.
    #[cfg(feature = "tls")]
    Told(Refusal),
    /// It goes by itself; none for a reason of a later version.
    #[cfg(feature = "tls")]
    There(Option<Refusal>),
}

impl From<Refusal> for Rejected {
    fn from(reason: Refusal) -> Rejected {
        Rejected::Here(reason)
    }
}

impl<M: Wire + Send + 'static> Caller<M> {
    async fn serve(mut self, pass: Pass) {
        let patience = self.core.own.options.handshake_timeout;
        let greeted = tokio::select! {
            biased;
            () = pass.end.notified() => Err(Refusal::Busy.into()),
            greeted = timeout(patience, self.greet()) => greeted.unwrap_or(Err(Refusal::Timeout.into())),
        };
        match greeted {
            Ok((peer, end)) => {
                drop(pass);
                self.core.own.counters.accepted.add(1);
                tracing::debug!(node = %self.core.own.node(), peer = %peer.id, "called by a peer");
                let loss = tokio::select! {
                    biased;
                    () = end.notified() => Loss::Replaced,
                    loss = self.read(&peer) => loss,
                };
                self.core.own.counters.lost(loss);
                if !matches!(loss, Loss::Closed | Loss::Replaced) {
                    tracing::warn!(
                        node = %self.core.own.node(), peer = %peer.id, why = %loss, "a connection of a peer is lost"
                    );
                }
            }
            // It waits to be gone as it waited to be known, and has to make room for others all the same.
            Err(rejected) => tokio::select! {
                biased;
                () = self.reject(rejected) => {}
                () = pass.end.notified() => {}
            },
        }
    }

    /// Reads who calls and welcomes them.
    async fn greet(&mut self) -> Result<(Arc<Peer>, Arc<Notify>), Rejected> {
        #[cfg(feature = "tls")]
        self.secure().await?;
        let theirs = match read_greeting(&self.socket).await {
            Ok(Greeting::Hello(hello)) => hello,
            Err(GreetError::Refused(reason)) => return Err(reason.into()),
            // The connection ended before its greeting, or it greeted as one that was called.
            Ok(_) | Err(GreetError::Io(_)) => return Err(Refusal::Malformed.into()),
        };
        let node = theirs.identity.node;
        let mine = self.core.own.hello(node);
        let judged = self.judge(&mine, &theirs).inspect_err(|reason| {
            tracing::warn!(
                node = %self.core.own.node(),
                caller = %node,
                incarnation = %theirs.incarnation,
                cluster = %format_args!("{:032x}", theirs.identity.cluster.0),
                why = %reason,
                "a caller is refused",
            );
        })?;
        let welcome = Greeting::Welcome(mine).to_bytes();
        let welcomed = async {
            self.socket.tcp().set_nodelay(true)?;
            self.socket.write_all(&welcome).await
        };
        welcomed.await.map_err(|_| Refusal::Malformed)?;
        Ok(judged)
    }

    fn judge(&self, mine: &Hello, theirs: &Hello) -> Result<(Arc<Peer>, Arc<Notify>), Refusal> {
        // Before anything else: nobody is told anything by way of another's name.
        #[cfg(feature = "tls")]
        if !self.socket.certified(|session| session.is_of(&theirs.identity)) {
            return Err(Refusal::Name);
        }
        mine.judge(theirs)?;
        let peer = self.core.peer(theirs.identity.node).ok_or(Refusal::Stranger)?;
        if theirs.frame_bytes_max > mine.frame_bytes_max {
            return Err(Refusal::FrameLimit);
        }
        let end = peer.take_connection(theirs.incarnation)?;
        Ok((peer, end))
    }

    /// Shakes hands by the rules of TLS, if that is spoken here.
    #[cfg(feature = "tls")]
    async fn secure(&mut self) -> Result<(), Rejected> {
        let own = &self.core.own;
        let Some(tls) = &own.tls else { return Ok(()) };
        let mut session = tls.server().map_err(|_| Rejected::Here(Refusal::Tls))?;
        let shaken = session.shake(self.socket.tcp(), own.options.handshake_bytes_max).await;
        match shaken {
            Ok(()) => {
                self.socket.secure(session);
                Ok(())
            }
            Err(error) => {
                let caller = self.socket.tcp().peer_addr().ok();
                tracing::debug!(node = %own.node(), ?caller, error = %Chain(&error), "no TLS with a caller");
                Err(match error {
                    ShakeError::Here { reason, .. } => Rejected::Told(reason),
                    ShakeError::NoTls(reason) => Rejected::Here(reason),
                    ShakeError::There(reason) => Rejected::There(reason),
                    ShakeError::Io(_) => Rejected::Told(Refusal::Malformed),
                })
            }
        }
    }

    /// Says why, if that is still to be done, and ends the connection.
    async fn reject(mut self, rejected: Rejected) {
        let counters = &self.core.own.counters;
        match rejected {
            Rejected::Here(reason) => {
                counters.refused(reason);
                let refused = Greeting::Refused(Some(reason)).to_bytes();
                // A caller that does not read this does not need to know.
                let told = self.socket.try_write(&refused).is_ok();
                if !told || matches!(reason, Refusal::Busy | Refusal::Timeout) {
                    return;
                }
            }
            #[cfg(feature = "tls")]
            Rejected::Told(reason) => counters.refused(reason),
            #[cfg(feature = "tls")]
            Rejected::There(reason) => {
                if let Some(reason) = reason {
                    counters.refused_by_peer(reason);
                }
                return;
            }
        }
        // Unread bytes would make the end a reset, which overtakes the reason.
        let drained = async {
            self.socket.shut().await?;
            let mut left = LINGER_BYTES;
            while left > 0 {
                let mut bytes = [0; 4 << 10];
                match self.socket.tcp().try_read(&mut bytes) {
                    Ok(0) => break,
                    Ok(len) => left = left.saturating_sub(len),
                    Err(error) if would_block(&error) => self.socket.tcp().readable().await?,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let _ = timeout(LINGER, drained).await;
    }

    /// Reads frames into the inbox until the connection is lost.
    async fn read(&self, peer: &Peer) -> Loss {
        let own = Arc::clone(&self.core.own);
        let mut silence = Silence::new(own.options.silence_max);
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut batch = Vec::new();
        loop {
            let (mut bytes, mut heartbeats) = (0, 0);
            let needs = loop {
                match frame::split(&mut buffer, own.options.frame_bytes_max) {
                    Ok(Split::Needs(needs)) => break needs,
                    Ok(Split::Body(body)) if body.is_empty() => heartbeats += 1,
                    Ok(Split::Body(body)) => {
                        bytes += body.len();
                        match decode(body) {
                            Ok(envelope) => batch.push(envelope),
                            Err(loss) => return loss,
                        }
                    }
                    Err(FrameError::TooLong { .. }) => return Loss::TooLong,
                    Err(FrameError::Checksum) => return Loss::Corrupt,
                }
            };
            if heartbeats > 0
                && let Err(loss) = self.answer()
            {
                return loss;
            }
            if !batch.is_empty() {
                own.counters.frames_received.add(batch.len());
                if !self.core.inbox.push(peer.id, &mut batch, bytes) {
                    self.core.inbox.room(peer.id).await;
                }
            }
            // The length of the frame is checked. Memory that is shared with envelopes is filled to its end
            // before there is new one: what is kept of a small frame would keep a large buffer alive.
            let rest = needs - buffer.len();
            if buffer.capacity() - buffer.len() < rest.max(READ_BYTES_MIN) {
                buffer.reserve(rest.max(READ_BYTES));
            }
            let read = tokio::select! {
                biased;
                read = self.socket.read(&mut buffer) => read,
                () = silence.over() => return Loss::Silent,
            };
            match read {
                Ok(0) => return Loss::Closed,
                Ok(len) => own.counters.bytes_received.add(len),
                Err(error) if error.kind() == ErrorKind::InvalidData => return Loss::Corrupt,
                Err(_) => return Loss::Broken,
            }
            silence.broken();
        }
    }

    /// Gives a sign of life, once for all that were asked for.
    fn answer(&self) -> Result<(), Loss> {
        match self.socket.try_write(&HEARTBEAT) {
            Ok(len) if len == HEARTBEAT.len() => Ok(()),
            // Half an answer cannot be completed later without a queue for it.
            Ok(_) => Err(Loss::Stalled),
            // The caller does not read its answers: it will give the connection up.
            Err(error) if would_block(&error) => Ok(()),
            Err(_) => Err(Loss::Broken),
        }
    }
}

fn decode<M: Wire>(body: Bytes) -> Result<Envelope<M>, Loss> {
    Envelope::from_bytes(body).map_err(|error| {
        tracing::warn!(%error, "a frame is no envelope");
        Loss::Undecodable
    })
}

/// Notices that nothing was read for some time: between that and a quarter more, without a look at the clock
/// for each read.
struct Silence {
    ticks: tokio::time::Interval,
    quiet: u32,
}

impl Silence {
    const TICKS: u32 = 4;

    fn new(max: Duration) -> Silence {
        let mut ticks = tokio::time::interval(max / Silence::TICKS);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Silence { ticks, quiet: 0 }
    }

    fn broken(&mut self) {
        self.quiet = 0;
    }

    async fn over(&mut self) {
        while self.quiet <= Silence::TICKS {
            self.ticks.tick().await;
            self.quiet += 1;
        }
    }
}
