//! The connection to one peer: made, looked after, made again.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use synod_core::Incarnation;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::chain::Chain;
use crate::frame::HEARTBEAT;
use crate::greet::{GreetError, read_greeting};
use crate::handshake::{Greeting, Hello, Refusal};
use crate::metrics::Loss;
use crate::outbox::Progress;
use crate::peer::Peer;
use crate::socket::{Socket, would_block};
use crate::tcp::Own;
#[cfg(feature = "tls")]
use crate::tls::{ShakeError, refusal_of};

/// Keeps a connection to a peer for as long as the transport is open.
pub(crate) struct Dialer {
    pub(crate) own: Arc<Own>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) address: String,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("no connection in time")]
    Late,
    #[error("no welcome")]
    Greet(#[source] GreetError),
    #[error("refused by the peer: {0}")]
    RefusedThere(Refusal),
    #[error("refused by the peer for a reason of a later version")]
    RefusedUnknown,
    #[error("the peer that answers is refused: {0}")]
    RefusedHere(Refusal),
    #[cfg(feature = "tls")]
    #[error("TLS cannot begin")]
    Tls(#[source] rustls::Error),
}

impl DialError {
    fn of_greeting(error: GreetError) -> DialError {
        // A peer judges the certificate of its caller when the caller is through with the handshake of TLS.
        #[cfg(feature = "tls")]
        if let GreetError::Io(error) = &error
            && let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>())
        {
            return match refusal_of(error) {
                (reason, true) => DialError::RefusedThere(reason),
                (reason, false) => DialError::RefusedHere(reason),
            };
        }
        DialError::Greet(error)
    }
}

impl Dialer {
    pub(crate) async fn run(self) {
        let options = &self.own.options;
        let mut backoff = Backoff::new(options.backoff_min, options.backoff_max);
        // One line for an outage, not one for each attempt.
        let mut told = false;
        loop {
            self.peer.outbox.dialing();
            let lost_early = match self.dial().await {
                Ok((socket, life)) => {
                    self.own.counters.dialed.add(1);
                    tracing::info!(node = %self.own.node(), peer = %self.peer.id, address = self.address, "connected");
                    told = false;
                    let since = Instant::now();
                    let socket = Arc::new(socket);
                    self.peer.outbox.up(Arc::clone(&socket));
                    let loss = self.attend(&socket, life).await;
                    self.peer.outbox.down();
                    self.own.counters.lost(loss);
                    tracing::warn!(node = %self.own.node(), peer = %self.peer.id, why = %loss, "connection lost");
                    let lasted = since.elapsed() >= options.backoff_max;
                    if lasted {
                        backoff.reset();
                    }
                    (!lasted).then_some(life)
                }
                Err(error) => {
                    self.peer.outbox.down();
                    self.count(&error);
                    let why = Chain(&error);
                    if told {
                        tracing::debug!(node = %self.own.node(), peer = %self.peer.id, %why, "still not connected");
                    } else {
                        tracing::warn!(
                            node = %self.own.node(), peer = %self.peer.id, address = self.address, %why, "not connected"
                        );
                        told = true;
                    }
                    None
                }
            };
            tokio::select! {
                () = sleep(backoff.next()) => {}
                () = self.sign_of(lost_early) => {}
            }
        }
    }

    /// Waits until the peer shows that it is there. A connection to `lost_early` has just been lost soon after it
    /// was made: then only a newer life counts, or two that lose their connections at once would bring each other
    /// back without end.
    async fn sign_of(&self, lost_early: Option<Incarnation>) {
        while lost_early.is_none_or(|life| self.peer.life() <= life) {
            self.peer.called().await;
            if lost_early.is_none() {
                return;
            }
        }
    }

    fn count(&self, error: &DialError) {
        let counters = &self.own.counters;
        match error {
            DialError::RefusedThere(reason) => counters.refused_by_peer(*reason),
            DialError::RefusedHere(reason) | DialError::Greet(GreetError::Refused(reason)) => {
                counters.refused(*reason);
            }
            _ => counters.dials_failed.add(1),
        }
    }

    /// Connects and shakes hands.
    async fn dial(&self) -> Result<(Socket, Incarnation), DialError> {
        let patience = self.own.options.handshake_timeout;
        let connected = timeout(patience, TcpStream::connect(self.address.as_str())).await;
        let stream = connected.map_err(|_| DialError::Late)?.map_err(DialError::Connect)?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        let mut socket = Socket::new(stream);
        let life = timeout(patience, self.greet(&mut socket)).await.map_err(|_| DialError::Late)??;
        Ok((socket, life))
    }

    async fn greet(&self, socket: &mut Socket) -> Result<Incarnation, DialError> {
        #[cfg(feature = "tls")]
        self.secure(socket).await?;
        let mine = self.own.hello(self.peer.id);
        let hello = Greeting::Hello(mine).to_bytes();
        socket.write_all(&hello).await.map_err(DialError::Connect)?;
        match read_greeting(socket).await.map_err(DialError::of_greeting)? {
            Greeting::Welcome(theirs) => {
                self.judge(&mine, &theirs).map_err(DialError::RefusedHere)?;
                Ok(theirs.incarnation)
            }
            Greeting::Refused(Some(reason)) => Err(DialError::RefusedThere(reason)),
            Greeting::Refused(None) => Err(DialError::RefusedUnknown),
            Greeting::Hello(_) => Err(DialError::RefusedHere(Refusal::Malformed)),
        }
    }

    /// Shakes hands by the rules of TLS, if that is spoken here. The certificate of the peer has its name then.
    #[cfg(feature = "tls")]
    async fn secure(&self, socket: &mut Socket) -> Result<(), DialError> {
        let Some(tls) = &self.own.tls else { return Ok(()) };
        let mut session = tls.client(&self.own.identity_of(self.peer.id)).map_err(DialError::Tls)?;
        let shaken = session.shake(socket.tcp(), self.own.options.handshake_bytes_max).await;
        shaken.map_err(|error| match error {
            ShakeError::Here { reason, .. } | ShakeError::NoTls(reason) => DialError::RefusedHere(reason),
            ShakeError::There(Some(reason)) => DialError::RefusedThere(reason),
            ShakeError::There(None) => DialError::RefusedUnknown,
            ShakeError::Io(error) => DialError::Connect(error),
        })?;
        socket.secure(session);
        Ok(())
    }

    fn judge(&self, mine: &Hello, theirs: &Hello) -> Result<(), Refusal> {
        mine.judge(theirs)?;
        if theirs.identity.node != self.peer.id {
            return Err(Refusal::Stranger);
        }
        if theirs.frame_bytes_max < mine.frame_bytes_max {
            return Err(Refusal::FrameLimit);
        }
        self.peer.heard_of(theirs.incarnation)
    }

    /// Writes what sends leave behind and watches for signs of life, until the connection is lost.
    async fn attend(&self, socket: &Socket, life: Incarnation) -> Loss {
        let options = &self.own.options;
        let outbox = &self.peer.outbox;
        let mut heartbeats = interval(options.heartbeat);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answers = Answers::default();
        let mut waiting = outbox.progress() != Progress::Idle;
        let mut heard = Instant::now();
        let mut progressed = (heard, Progress::Idle);
        loop {
            tokio::select! {
                () = outbox.left() => waiting = true,
                ready = socket.writable(), if waiting => match ready.map(|()| outbox.flush()) {
                    Ok(Progress::Idle) => waiting = false,
                    Ok(Progress::Waiting(_)) => {}
                    Ok(Progress::Down) | Err(_) => return Loss::Broken,
                },
                ready = socket.readable() => match ready.and_then(|()| answers.read(socket)) {
                    Ok(Ok(true)) => heard = Instant::now(),
                    Ok(Ok(false)) => {}
                    Ok(Err(loss)) => return loss,
                    Err(_) => return Loss::Broken,
                },
                () = self.peer.called() => {
                    if self.peer.life() > life {
                        return Loss::Replaced;
                    }
                }
                now = heartbeats.tick() => {
                    if now.saturating_duration_since(heard) > options.silence_max {
                        return Loss::Silent;
                    }
                    let progress = outbox.progress();
                    if progress == Progress::Down {
                        return Loss::Broken;
                    }
                    if progress != progressed.1 || progress == Progress::Idle {
                        progressed = (now, progress);
                    } else if now.saturating_duration_since(progressed.0) > options.silence_max {
                        return Loss::Stalled;
                    }
                    outbox.heartbeat();
                }
            }
        }
    }
}

/// Reads the answers to heartbeats: nothing else comes this way.
#[derive(Default)]
struct Answers {
    /// Bytes of an answer that were read already.
    part: usize,
}

impl Answers {
    /// True if an answer came.
    fn read(&mut self, socket: &Socket) -> io::Result<Result<bool, Loss>> {
        let mut bytes = [0; 16 * HEARTBEAT.len()];
        let len = match socket.try_read(&mut &mut bytes[..]) {
            Ok(0) => return Ok(Err(Loss::Closed)),
            Ok(len) => len,
            Err(error) if would_block(&error) => return Ok(Ok(false)),
            Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(Err(Loss::Corrupt)),
            Err(error) => return Err(error),
        };
        for byte in &bytes[..len] {
            if *byte != HEARTBEAT[self.part] {
                return Ok(Err(Loss::Corrupt));
            }
            self.part = (self.part + 1) % HEARTBEAT.len();
        }
        Ok(Ok(true))
    }
}

/// How long to wait before the next attempt.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max, next: min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    /// Half of the wait is random, so that peers do not call all at once.
    fn next(&mut self) -> Duration {
        use std::hash::{BuildHasher, RandomState};
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        // The standard library seeds its hashers from the operating system.
        let random = RandomState::new().hash_one(()) >> 32;
        whole / 2 + (whole / 2).mul_f64(random as f64 / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(35));
        for whole in [10, 20, 35, 35] {
            let wait = backoff.next();
            assert!(
                wait >= Duration::from_millis(whole) / 2 && wait <= Duration::from_millis(whole),
                "{wait:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(10));
    }
}
