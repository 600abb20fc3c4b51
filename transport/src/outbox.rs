//! What waits to be written to one peer: encoded frames, bounded in envelopes and in bytes.
//!
//! A send encodes into the buffer of its peer and, if nothing waited before, writes at once: no task has to
//! wake up for it. What the socket does not take waits for the task of the connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::{Buf, BytesMut};
use synod_core::{Envelope, Wire};
use tokio::sync::Notify;

use crate::frame::{self, HEADER_LEN, HEARTBEAT};
use crate::metrics::Counters;
use crate::socket::{Socket, would_block};
use crate::{TcpOptions, lock};

/// An empty buffer that is larger than this is given back.
const KEPT_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Outbox {
    envelopes_max: usize,
    bytes_max: usize,
    frame_bytes_max: usize,
    counters: Arc<Counters>,
    queue: Mutex<Queue>,
    /// Told when a send leaves bytes behind, or finds the connection broken.
    left: Notify,
}

#[derive(Debug)]
struct Queue {
    link: Link,
    buffer: BytesMut,
    /// Bytes that were ever appended to the buffer, and taken off it.
    appended: u64,
    written: u64,
    /// Where the envelopes in the buffer end, counted as `appended` is.
    ends: VecDeque<u64>,
}

#[derive(Debug)]
enum Link {
    /// Nothing is taken.
    Down,
    /// What is sent waits.
    Dialing,
    Up(Arc<Socket>),
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is broken.
    Down,
    /// Nothing waits.
    Idle,
    /// Something waits; a count of bytes that grows with everything that is written.
    Waiting(u64),
}

impl Outbox {
    pub(crate) fn new(options: &TcpOptions, counters: Arc<Counters>) -> Outbox {
        let queue = Queue {
            link: Link::Down,
            buffer: BytesMut::new(),
            appended: 0,
            written: 0,
            ends: VecDeque::new(),
        };
        Outbox {
            envelopes_max: options.queue_envelopes_max,
            bytes_max: options.queue_bytes_max,
            frame_bytes_max: options.frame_bytes_max,
            counters,
            queue: Mutex::new(queue),
            left: Notify::new(),
        }
    }

    /// Takes an envelope, or drops it: never waits.
    pub(crate) fn send<M: Wire>(&self, mut envelope: Envelope<M>) {
        let len = envelope.wire_len();
        if len <= self.frame_bytes_max {
            self.put(&envelope, len);
            return;
        }
        if envelope.packets.len() < 2 {
            self.counters.dropped_too_long.add(1);
            tracing::warn!(len, max = self.frame_bytes_max, "a packet is longer than a frame may be");
            return;
        }
        let rest = envelope.packets.split_off(envelope.packets.len() / 2);
        let second = Envelope { packets: rest, ..envelope };
        let first = Envelope { packets: envelope.packets, ..second };
        self.send(first);
        self.send(second);
    }

    fn put<M: Wire>(&self, envelope: &Envelope<M>, len: usize) {
        let mut queue = lock(&self.queue);
        if matches!(queue.link, Link::Down) {
            self.counters.dropped_down.add(1);
            return;
        }
        if queue.ends.len() >= self.envelopes_max || queue.buffer.len() + HEADER_LEN + len > self.bytes_max {
            self.counters.dropped_full.add(1);
            return;
        }
        let idle = queue.buffer.is_empty();
        queue.buffer.reserve(HEADER_LEN + len);
        frame::put(&mut queue.buffer, |out| envelope.encode(out));
        queue.appended += (HEADER_LEN + len) as u64;
        let end = queue.appended;
        queue.ends.push_back(end);
        self.counters.frames_sent.add(1);
        if idle {
            self.write(&mut queue);
        }
    }

    /// Asks for a sign of life.
    pub(crate) fn heartbeat(&self) {
        let mut queue = lock(&self.queue);
        if !matches!(queue.link, Link::Up(_)) {
            return;
        }
        let idle = queue.buffer.is_empty();
        queue.buffer.extend_from_slice(&HEARTBEAT);
        queue.appended += HEARTBEAT.len() as u64;
        if idle {
            self.write(&mut queue);
        }
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&self) -> Progress {
        let mut queue = lock(&self.queue);
        self.write(&mut queue);
        queue.progress()
    }

    pub(crate) fn progress(&self) -> Progress {
        lock(&self.queue).progress()
    }

    /// Waits until a send has left something behind.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }

    /// From now on what is sent waits for a connection.
    pub(crate) fn dialing(&self) {
        let mut queue = lock(&self.queue);
        if matches!(queue.link, Link::Up(_)) {
            // Its first frame may be written in part.
            self.drop_all(&mut queue);
        }
        queue.link = Link::Dialing;
    }

    /// There is a connection; what waited is written to it.
    pub(crate) fn up(&self, socket: Arc<Socket>) {
        lock(&self.queue).link = Link::Up(socket);
        self.flush();
    }

    /// There is none; what waited for it is lost.
    pub(crate) fn down(&self) {
        self.drop_all(&mut lock(&self.queue));
    }

    fn drop_all(&self, queue: &mut Queue) {
        self.counters.dropped_down.add(queue.ends.len());
        queue.link = Link::Down;
        queue.ends.clear();
        queue.buffer = BytesMut::new();
        queue.written = queue.appended;
    }

    fn write(&self, queue: &mut Queue) {
        let Link::Up(socket) = &queue.link else { return };
        let socket = Arc::clone(socket);
        // Until it would block: only then the next readiness is told.
        loop {
            let written = match &queue.buffer[..] {
                [] if socket.unsent().0 => socket.try_flush().map(|()| 0),
                [] => return,
                waiting => socket.try_write(waiting),
            };
            match written {
                Ok(len) => {
                    self.counters.writes.add(1);
                    self.counters.bytes_sent.add(len);
                    queue.took(len);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if would_block(&error) => {
                    self.left.notify_one();
                    return;
                }
                Err(_) => {
                    self.drop_all(queue);
                    self.left.notify_one();
                    return;
                }
            }
        }
    }
}

impl Queue {
    fn took(&mut self, len: usize) {
        self.written += len as u64;
        if len < self.buffer.len() {
            self.buffer.advance(len);
            while self.ends.front().is_some_and(|end| *end <= self.written) {
                self.ends.pop_front();
            }
            return;
        }
        self.ends.clear();
        // The whole buffer is free again, unless a burst made it large.
        if self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = BytesMut::new();
        } else {
            self.buffer.clear();
        }
    }

    fn progress(&self) -> Progress {
        match &self.link {
            Link::Up(socket) => match socket.unsent() {
                (false, _) if self.buffer.is_empty() => Progress::Idle,
                (_, encrypted) => Progress::Waiting(self.written + encrypted),
            },
            Link::Down | Link::Dialing => Progress::Down,
        }
    }
}
