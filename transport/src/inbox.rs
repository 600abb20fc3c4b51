//! What has arrived and waits for the node: bounded for each peer, so that none can fill it for the others.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Poll, Waker};

use synod_core::{Closed, Envelope, Inbound, NodeId};

use crate::{TcpOptions, lock};

#[derive(Debug)]
pub(crate) struct Inbox<M> {
    envelopes_max: usize,
    bytes_max: usize,
    queue: Mutex<Queue<M>>,
}

#[derive(Debug)]
struct Queue<M> {
    envelopes: Vec<Inbound<M>>,
    lanes: BTreeMap<NodeId, Lane>,
    receiver: Option<Waker>,
    closed: bool,
}

/// What one peer has in the queue.
#[derive(Debug, Default)]
struct Lane {
    envelopes: usize,
    bytes: usize,
    /// The connection that is not read until there is room.
    reader: Option<Waker>,
}

impl<M> Inbox<M> {
    pub(crate) fn new(options: &TcpOptions) -> Inbox<M> {
        let queue = Queue { envelopes: Vec::new(), lanes: BTreeMap::new(), receiver: None, closed: false };
        Inbox {
            envelopes_max: options.inbox_envelopes_max,
            bytes_max: options.inbox_bytes_max,
            queue: Mutex::new(queue),
        }
    }

    /// Adds what one read brought, `bytes` long. True while the peer has room for more.
    pub(crate) fn push(&self, from: NodeId, batch: &mut Vec<Envelope<M>>, bytes: usize) -> bool {
        let mut queue = lock(&self.queue);
        let lane = queue.lanes.entry(from).or_default();
        lane.envelopes += batch.len();
        lane.bytes += bytes;
        let room = lane.envelopes < self.envelopes_max && lane.bytes < self.bytes_max;
        queue.envelopes.extend(batch.drain(..).map(|envelope| Inbound { from, envelope }));
        let receiver = queue.receiver.take();
        drop(queue);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        room
    }

    /// Waits until the peer has room.
    pub(crate) async fn room(&self, from: NodeId) {
        poll_fn(|context| {
            let mut queue = lock(&self.queue);
            let lane = queue.lanes.entry(from).or_default();
            if lane.envelopes < self.envelopes_max && lane.bytes < self.bytes_max {
                return Poll::Ready(());
            }
            lane.reader = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits for envelopes and appends all there are.
    pub(crate) async fn receive(&self, into: &mut Vec<Inbound<M>>) -> Result<(), Closed> {
        poll_fn(|context| {
            let mut queue = lock(&self.queue);
            if queue.envelopes.is_empty() && !queue.closed {
                if !queue.receiver.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    queue.receiver = Some(context.waker().clone());
                }
                return Poll::Pending;
            }
            Poll::Ready(queue.take(into))
        })
        .await
    }

    /// Appends all there are.
    pub(crate) fn take(&self, into: &mut Vec<Inbound<M>>) -> Result<(), Closed> {
        lock(&self.queue).take(into)
    }

    /// Takes nothing more; what is there can still be received.
    pub(crate) fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let receiver = queue.receiver.take();
        drop(queue);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }
}

impl<M> Queue<M> {
    fn take(&mut self, into: &mut Vec<Inbound<M>>) -> Result<(), Closed> {
        if self.envelopes.is_empty() {
            return if self.closed { Err(Closed) } else { Ok(()) };
        }
        into.append(&mut self.envelopes);
        for lane in self.lanes.values_mut() {
            (lane.envelopes, lane.bytes) = (0, 0);
            if let Some(reader) = lane.reader.take() {
                reader.wake();
            }
        }
        Ok(())
    }
}
