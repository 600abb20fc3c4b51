//! Transports in memory that break one rule each.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::poll_fn;
use synod_core::conformance::transport::{Letter, LetterTransport, TransportHarness, run_all};
use synod_core::{Closed, Envelope, Identity, Inbound, Incarnation, NodeId, Packet, Peer, Transport, Wire};

use super::assert_rejected_by;

const INBOX_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    SendBlocksWhenFull,
    Unbounded,
    DeliversToEverybody,
    BelievesTheEnvelope,
    CutsBodies,
    DropsTheLongest,
    TakesBeforeItWaits,
    WakesNobody,
    ClearsTheVector,
    RemembersTheOldEndpoint,
    NeverCloses,
}

type Inboxes = BTreeMap<NodeId, Arc<Inbox>>;

#[derive(Default)]
struct Inbox {
    queue: Mutex<Queue>,
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    envelopes: Vec<Inbound<Letter>>,
    waker: Option<Waker>,
    closed: bool,
}

struct End {
    fault: Fault,
    node: NodeId,
    inbox: Arc<Inbox>,
    inboxes: Arc<Mutex<Inboxes>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl End {
    fn push(&self, inbox: &Inbox, mut envelope: Envelope<Letter>) {
        let from = if self.fault == Fault::BelievesTheEnvelope { envelope.from } else { self.node };
        if self.fault == Fault::CutsBodies {
            for packet in &mut envelope.packets {
                if let Packet::Protocol(letter) = packet {
                    letter.body.truncate(1000);
                }
            }
        }
        if self.fault == Fault::DropsTheLongest && envelope.wire_len() > 2 << 20 {
            return;
        }
        let mut queue = lock(&inbox.queue);
        while queue.envelopes.len() >= INBOX_MAX && !queue.closed {
            match self.fault {
                Fault::SendBlocksWhenFull => {
                    queue = inbox.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                Fault::Unbounded => break,
                _ => return,
            }
        }
        queue.envelopes.push(Inbound { from, envelope });
        if self.fault != Fault::WakesNobody
            && let Some(waker) = queue.waker.take()
        {
            waker.wake();
        }
    }

    fn take(&self, into: &mut Vec<Inbound<Letter>>) -> Result<bool, Closed> {
        let mut queue = lock(&self.inbox.queue);
        if queue.envelopes.is_empty() {
            return if queue.closed && self.fault != Fault::NeverCloses { Err(Closed) } else { Ok(false) };
        }
        if self.fault == Fault::ClearsTheVector {
            into.clear();
        }
        into.append(&mut queue.envelopes);
        self.inbox.room.notify_all();
        Ok(true)
    }
}

#[async_trait]
impl Transport<Letter> for End {
    fn send(&self, to: NodeId, envelope: Envelope<Letter>) {
        let inboxes: Vec<Arc<Inbox>> = {
            let all = lock(&self.inboxes);
            let everybody = self.fault == Fault::DeliversToEverybody;
            all.iter()
                .filter(|(node, _)| everybody || **node == to)
                .map(|(_, inbox)| Arc::clone(inbox))
                .collect()
        };
        for inbox in inboxes {
            self.push(&inbox, envelope.clone());
        }
    }

    async fn receive(&self, into: &mut Vec<Inbound<Letter>>) -> Result<(), Closed> {
        if self.fault == Fault::TakesBeforeItWaits {
            // What is taken out of the inbox is kept in the future until it is complete.
            let mut taken = Vec::new();
            poll_fn(|context| {
                let was_empty = taken.is_empty();
                if self.take(&mut taken)? && was_empty {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if taken.is_empty() {
                    lock(&self.inbox.queue).waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Ok(()))
            })
            .await?;
            into.append(&mut taken);
            return Ok(());
        }
        poll_fn(|context| {
            if self.take(into)? {
                return Poll::Ready(Ok(()));
            }
            lock(&self.inbox.queue).waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn try_receive(&self, into: &mut Vec<Inbound<Letter>>) -> Result<(), Closed> {
        self.take(into).map(|_| ())
    }

    fn open(&self, _: &Identity, _: Incarnation) {}

    fn set_peers(&self, _: &[Peer]) {}
}

struct Harness {
    fault: Fault,
    inboxes: Arc<Mutex<Inboxes>>,
}

impl Harness {
    fn new(fault: Fault) -> Harness {
        Harness { fault, inboxes: Arc::default() }
    }
}

impl TransportHarness for Harness {
    fn connect(&mut self, nodes: &[NodeId]) -> Vec<LetterTransport> {
        self.inboxes = Arc::default();
        nodes.iter().map(|node| self.restart(*node)).collect()
    }

    fn restart(&mut self, node: NodeId) -> LetterTransport {
        let inbox = Arc::new(Inbox::default());
        let mut inboxes = lock(&self.inboxes);
        if self.fault != Fault::RemembersTheOldEndpoint || !inboxes.contains_key(&node) {
            inboxes.insert(node, Arc::clone(&inbox));
        }
        Arc::new(End { fault: self.fault, node, inbox, inboxes: Arc::clone(&self.inboxes) })
    }

    fn close(&mut self, node: NodeId) {
        if let Some(inbox) = lock(&self.inboxes).get(&node) {
            let mut queue = lock(&inbox.queue);
            queue.closed = true;
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
    }

    fn settle(&mut self) {}

    fn queue_envelopes_max(&self) -> usize {
        1000
    }

    fn patience(&self) -> Duration {
        if self.fault == Fault::SendBlocksWhenFull {
            Duration::from_millis(200)
        } else {
            Duration::from_secs(20)
        }
    }
}

#[test]
fn the_transport_without_a_fault_passes() {
    run_all(&mut Harness::new(Fault::None)).assert_passed();
}

#[test]
fn each_broken_transport_is_rejected_by_the_check_that_names_its_rule() {
    let cases = [
        (Fault::SendBlocksWhenFull, "a_send_never_blocks"),
        (Fault::Unbounded, "a_receiver_that_does_not_receive_is_bounded"),
        (Fault::DeliversToEverybody, "only_the_addressed_node_receives"),
        (Fault::BelievesTheEnvelope, "the_sender_is_named"),
        (Fault::CutsBodies, "envelopes_arrive_unchanged"),
        (Fault::DropsTheLongest, "what_is_called_the_longest_packet_arrives"),
        (Fault::TakesBeforeItWaits, "an_abandoned_receive_loses_nothing"),
        (Fault::WakesNobody, "a_waiting_receive_is_woken"),
        (Fault::ClearsTheVector, "receiving_appends"),
        (Fault::RemembersTheOldEndpoint, "a_restarted_node_receives_again"),
        (Fault::NeverCloses, "a_closed_transport_says_so"),
    ];
    for (fault, check) in cases {
        assert_rejected_by(&run_all(&mut Harness::new(fault)), check, &format!("{fault:?}"));
    }
}
