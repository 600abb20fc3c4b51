//! Connections that others make: admitted, greeted, read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use synod_core::{Envelope, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::frame::{self, FrameError, HEARTBEAT, Split};
use crate::greet::{GreetError, read_greeting};
use crate::handshake::{Greeting, Refusal};
use crate::lock;
use crate::metrics::Loss;
use crate::peer::Peer;
use crate::tcp::Core;

/// Room for reads, in bytes, and how little of it may be left for one read.
const READ_BYTES: usize = 256 << 10;
const READ_BYTES_MIN: usize = 4 << 10;

/// How much more of a refused connection is read, in bytes.
const LINGER_BYTES: u64 = 64 << 10;

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
                Some(Ok(stream)) => {
                    let pass = gate.admit(core.own.options.handshakes_max);
                    connections.spawn(Caller { core: Arc::clone(&core), stream }.serve(pass));
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
    ends: BTreeMap<u64, Arc<Notify>>,
}

/// One of these connections, until it is dropped.
#[derive(Debug)]
struct Pass {
    gate: Arc<Gate>,
    number: u64,
    end: Arc<Notify>,
}

impl Gate {
    fn admit(self: &Arc<Self>, max: usize) -> Pass {
        let mut waiting = lock(&self.waiting);
        while waiting.ends.len() >= max
            && let Some((_, oldest)) = waiting.ends.pop_first()
        {
            oldest.notify_one();
        }
        waiting.admitted += 1;
        let (number, end) = (waiting.admitted, Arc::new(Notify::new()));
        waiting.ends.insert(number, Arc::clone(&end));
        drop(waiting);
        Pass { gate: Arc::clone(self), number, end }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        lock(&self.gate.waiting).ends.remove(&self.number);
    }
}

/// A connection that somebody made.
struct Caller<M> {
    core: Arc<Core<M>>,
    stream: TcpStream,
}

impl<M: Wire + Send + 'static> Caller<M> {
    async fn serve(mut self, pass: Pass) {
        let patience = self.core.own.options.handshake_timeout;
        let greeted = tokio::select! {
            biased;
            () = pass.end.notified() => Err(Refusal::Busy),
            greeted = timeout(patience, self.greet()) => greeted.unwrap_or(Err(Refusal::Timeout)),
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
            Err(reason) => tokio::select! {
                biased;
                () = self.refuse(reason) => {}
                () = pass.end.notified() => {}
            },
        }
    }

    /// Reads who calls and welcomes them.
    async fn greet(&mut self) -> Result<(Arc<Peer>, Arc<Notify>), Refusal> {
        let theirs = match read_greeting(&mut self.stream).await {
            Ok(Greeting::Hello(hello)) => hello,
            Err(GreetError::Refused(reason)) => return Err(reason),
            // The connection ended before its greeting, or it greeted as one that was called.
            Ok(_) | Err(GreetError::Io(_)) => return Err(Refusal::Malformed),
        };
        let node = theirs.identity.node;
        let mine = self.core.own.hello(node);
        let judged = mine.judge(&theirs).and_then(|_| {
            let peer = self.core.peer(node).ok_or(Refusal::Stranger)?;
            if theirs.frame_bytes_max > mine.frame_bytes_max {
                return Err(Refusal::FrameLimit);
            }
            let end = peer.take_connection(theirs.incarnation)?;
            Ok((peer, end))
        });
        let (peer, end) = judged.inspect_err(|reason| {
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
            self.stream.set_nodelay(true)?;
            self.stream.write_all(&welcome).await
        };
        welcomed.await.map_err(|_| Refusal::Malformed)?;
        Ok((peer, end))
    }

    /// Says why, and ends the connection.
    async fn refuse(mut self, reason: Refusal) {
        self.core.own.counters.refused(reason);
        let refused = Greeting::Refused(Some(reason)).to_bytes();
        // A caller that does not read this does not need to know.
        if self.stream.try_write(&refused).is_err() || matches!(reason, Refusal::Busy | Refusal::Timeout) {
            return;
        }
        // Unread bytes would make the end a reset, which overtakes the reason.
        let drained = async {
            self.stream.shutdown().await?;
            tokio::io::copy(&mut (&mut self.stream).take(LINGER_BYTES), &mut tokio::io::sink()).await
        };
        let _ = timeout(LINGER, drained).await;
    }

    /// Reads frames into the inbox until the connection is lost.
    async fn read(&mut self, peer: &Peer) -> Loss {
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
                read = self.stream.read_buf(&mut buffer) => read,
                () = silence.over() => return Loss::Silent,
            };
            match read {
                Ok(0) => return Loss::Closed,
                Ok(len) => own.counters.bytes_received.add(len),
                Err(_) => return Loss::Broken,
            }
            silence.broken();
        }
    }

    /// Gives a sign of life, once for all that were asked for.
    fn answer(&mut self) -> Result<(), Loss> {
        match self.stream.try_write(&HEARTBEAT) {
            Ok(len) if len == HEARTBEAT.len() => Ok(()),
            // Half an answer cannot be completed later without a queue for it.
            Ok(_) => Err(Loss::Stalled),
            // The caller does not read its answers: it will give the connection up.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
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
