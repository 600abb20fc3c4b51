//! The network under test, and the patience to use one that may lose.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Builder;

use bytes::Bytes;

use super::{Letter, LetterTransport, TransportHarness};
use crate::conformance::ConformanceFailure;
use crate::{Closed, Envelope, GroupId, Inbound, Incarnation, NodeId, Packet};

/// How often something that may be lost is tried.
pub(super) const ATTEMPTS: usize = 100;

/// Three connected nodes.
pub(super) struct Post<'a> {
    check: &'static str,
    harness: &'a mut dyn TransportHarness,
    ends: [Option<LetterTransport>; 3],
    letters: u64,
}

impl<'a> Post<'a> {
    /// The nodes.
    pub(super) const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    pub(super) fn connect(
        check: &'static str,
        harness: &'a mut dyn TransportHarness,
    ) -> Result<Post<'a>, ConformanceFailure> {
        let ends = harness.connect(&Post::NODES);
        let Ok(ends) = <[LetterTransport; 3]>::try_from(ends) else {
            return Err(ConformanceFailure::new(check, "the harness connects another number of nodes"));
        };
        Ok(Post { check, harness, ends: ends.map(Some), letters: 0 })
    }

    /// The node's end.
    pub(super) fn end(&self, node: NodeId) -> LetterTransport {
        let end = &self.ends[place(node)];
        Arc::clone(end.as_ref().expect("a check does not use a node that is down"))
    }

    /// Drops the node's end.
    pub(super) fn stop(&mut self, node: NodeId) {
        self.ends[place(node)] = None;
    }

    /// Attaches a node that is down again.
    pub(super) fn restart(&mut self, node: NodeId) {
        self.ends[place(node)] = Some(self.harness.restart(node));
    }

    pub(super) fn close(&mut self, node: NodeId) {
        self.harness.close(node);
    }

    pub(super) fn settle(&mut self) {
        self.harness.settle();
    }

    /// An envelope with one letter, numbered as no other.
    pub(super) fn letter(&mut self, from: NodeId, body: Bytes) -> Envelope<Letter> {
        self.letters += 1;
        let letter = Letter { number: self.letters, body };
        Envelope {
            from,
            from_incarnation: Incarnation(1),
            to_incarnation: Incarnation(1),
            group: GroupId(0),
            packets: vec![Packet::Protocol(letter)],
        }
    }

    /// Sends an envelope until it arrives; answers everything that arrived meanwhile, the envelope last.
    pub(super) fn deliver(
        &mut self,
        from: NodeId,
        to: NodeId,
        envelope: &Envelope<Letter>,
    ) -> Result<Vec<Inbound<Letter>>, ConformanceFailure> {
        let (sender, receiver) = (self.end(from), self.end(to));
        let mut arrived = Vec::new();
        for _ in 0..ATTEMPTS {
            sender.send(to, envelope.clone());
            self.harness.settle();
            let already = arrived.len();
            if receiver.try_receive(&mut arrived).is_err() {
                return self.fail(format!("{to} is open and says that it is closed"));
            }
            if let Some(at) = arrived[already..].iter().position(|inbound| inbound.envelope == *envelope) {
                let last = arrived.remove(already + at);
                arrived.push(last);
                return Ok(arrived);
            }
        }
        self.fail(format!(
            "an envelope from {from} to {to} never arrived in {ATTEMPTS} attempts; {} others did: {}",
            arrived.len(),
            arrived.last().map_or("none".to_owned(), shown)
        ))
    }

    /// Everything that can be had without waiting, until nothing more comes.
    pub(super) fn drain(&mut self, node: NodeId) -> Result<Vec<Inbound<Letter>>, ConformanceFailure> {
        let end = self.end(node);
        let mut arrived = Vec::new();
        let mut silent = 0;
        while silent < 3 {
            let before = arrived.len();
            if end.try_receive(&mut arrived).is_err() {
                return self.fail(format!("{node} is open and says that it is closed"));
            }
            if arrived.len() == before {
                silent += 1;
                self.harness.settle();
            } else {
                silent = 0;
            }
        }
        Ok(arrived)
    }

    /// Sends `count` copies on a thread of its own, and watches that it comes to an end.
    #[allow(
        clippy::disallowed_methods,
        reason = "a send that blocks can only be watched from another thread"
    )]
    pub(super) fn send_many(
        &mut self,
        from: NodeId,
        to: NodeId,
        envelope: &Envelope<Letter>,
        count: usize,
    ) -> Result<(), ConformanceFailure> {
        let sender = self.end(from);
        let envelope = envelope.clone();
        let (done, waiting) = channel();
        let thread = Builder::new().name(format!("sends to {to}")).spawn(move || {
            for _ in 0..count {
                sender.send(to, envelope.clone());
            }
            drop(sender);
            // The suite has gone on if nobody waits any more.
            let _ = done.send(());
        });
        if let Err(error) = thread {
            return self.fail(format!("no thread could be started: {error}"));
        }
        match waiting.recv_timeout(self.harness.patience()) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => self.fail("a send panicked"),
            Err(RecvTimeoutError::Timeout) => {
                self.fail(format!("{count} sends to {to} take longer than {:?}", self.harness.patience()))
            }
        }
    }

    /// The upper bound on envelopes under way that the harness states.
    pub(super) fn queue_envelopes_max(&self) -> usize {
        self.harness.queue_envelopes_max()
    }

    pub(super) fn body_bytes_max(&self) -> usize {
        self.harness.body_bytes_max()
    }

    /// The claim does not hold.
    pub(super) fn fail<T>(&self, what: impl Into<String>) -> Result<T, ConformanceFailure> {
        Err(ConformanceFailure::new(self.check, what))
    }
}

/// A receive that is polled by hand.
pub(super) struct Woken(AtomicBool);

impl Woken {
    pub(super) fn new() -> Arc<Woken> {
        Arc::new(Woken(AtomicBool::new(false)))
    }

    /// Polls once.
    pub(super) fn poll(
        self: &Arc<Self>,
        receive: std::pin::Pin<&mut impl Future<Output = Result<(), Closed>>>,
    ) -> Poll<Result<(), Closed>> {
        let waker = Waker::from(Arc::clone(self));
        receive.poll(&mut Context::from_waker(&waker))
    }

    /// True if the task was woken since it was asked last.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls a receive once and abandons it.
pub(super) fn poll_once(end: &LetterTransport, into: &mut Vec<Inbound<Letter>>) -> Poll<Result<(), Closed>> {
    Woken::new().poll(pin!(end.receive(into)))
}

/// An inbound envelope in a line.
pub(super) fn shown(inbound: &Inbound<Letter>) -> String {
    let envelope = &inbound.envelope;
    let packets: Vec<String> = envelope
        .packets
        .iter()
        .map(|packet| match packet {
            Packet::Protocol(letter) => letter.to_string(),
            Packet::Forward(forward) => format!("a forward of {} commands", forward.commands.len()),
            Packet::SnapshotChunk(chunk) => format!("{} bytes of {}", chunk.bytes.len(), chunk.head.id),
            Packet::SnapshotAck(ack) => format!("an answer to {}", ack.id),
            Packet::ForwardReply(reply) => format!("a reply to {} commands", reply.commands.len()),
        })
        .collect();
    format!("from {} (says {}): [{}]", inbound.from, envelope.from, packets.join(", "))
}

fn place(node: NodeId) -> usize {
    Post::NODES.iter().position(|one| *one == node).expect("a node of the suite")
}
