//! A network in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use futures::future::poll_fn;

use crate::{Closed, Envelope, Identity, Inbound, Incarnation, NodeId, Peer, Transport};

/// Envelopes that one inbox holds before it drops more.
const INBOX_MAX: usize = 4096;

/// Connects the nodes of one process. Clones share one network.
///
/// Envelopes are delivered in order and at once, or dropped when an inbox is full, a link is cut or
/// nobody is attached under the id.
#[derive(Debug)]
pub struct MemoryNetwork<M> {
    shared: Arc<Mutex<Links<M>>>,
}

#[derive(Debug)]
struct Links<M> {
    inboxes: BTreeMap<NodeId, Arc<Inbox<M>>>,
    cut: BTreeSet<(NodeId, NodeId)>,
}

#[derive(Debug)]
struct Inbox<M> {
    queue: Mutex<Queue<M>>,
}

#[derive(Debug)]
struct Queue<M> {
    envelopes: Vec<Inbound<M>>,
    waker: Option<Waker>,
    closed: bool,
}

impl<M> Clone for MemoryNetwork<M> {
    fn clone(&self) -> Self {
        MemoryNetwork { shared: Arc::clone(&self.shared) }
    }
}

impl<M> Default for MemoryNetwork<M> {
    fn default() -> Self {
        MemoryNetwork::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M> MemoryNetwork<M> {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> MemoryNetwork<M> {
        let links = Links { inboxes: BTreeMap::new(), cut: BTreeSet::new() };
        MemoryNetwork { shared: Arc::new(Mutex::new(links)) }
    }

    /// Attaches a node. An endpoint attached earlier under the same id is closed: what it had not
    /// received is lost.
    #[must_use]
    pub fn attach(&self, node: NodeId) -> MemoryTransport<M> {
        let queue = Queue { envelopes: Vec::new(), waker: None, closed: false };
        let inbox = Arc::new(Inbox { queue: Mutex::new(queue) });
        let mut links = lock(&self.shared);
        let before = links.inboxes.insert(node, Arc::clone(&inbox));
        drop(links);
        if let Some(before) = before {
            before.close();
        }
        MemoryTransport { node, shared: Arc::clone(&self.shared), inbox }
    }

    /// Cuts the link from one node to another; envelopes sent over it are dropped.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        lock(&self.shared).cut.insert((from, to));
    }

    /// Mends every link.
    pub fn heal(&self) {
        lock(&self.shared).cut.clear();
    }
}

impl<M> Inbox<M> {
    /// Whom to wake, if anybody waits.
    #[must_use]
    fn push(&self, inbound: Inbound<M>) -> Option<Waker> {
        let mut queue = lock(&self.queue);
        if queue.closed || queue.envelopes.len() >= INBOX_MAX {
            return None;
        }
        queue.envelopes.push(inbound);
        queue.waker.take()
    }

    fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        queue.envelopes.clear();
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take(&self, into: &mut Vec<Inbound<M>>) -> Result<bool, Closed> {
        let mut queue = lock(&self.queue);
        if queue.envelopes.is_empty() {
            return if queue.closed { Err(Closed) } else { Ok(false) };
        }
        into.append(&mut queue.envelopes);
        Ok(true)
    }
}

/// One node's end of a [`MemoryNetwork`]. Dropping it detaches the node.
#[derive(Debug)]
pub struct MemoryTransport<M> {
    node: NodeId,
    shared: Arc<Mutex<Links<M>>>,
    inbox: Arc<Inbox<M>>,
}

impl<M> Drop for MemoryTransport<M> {
    fn drop(&mut self) {
        self.inbox.close();
        let mut links = lock(&self.shared);
        if links.inboxes.get(&self.node).is_some_and(|inbox| Arc::ptr_eq(inbox, &self.inbox)) {
            links.inboxes.remove(&self.node);
        }
    }
}

#[async_trait]
impl<M: Send + 'static> Transport<M> for MemoryTransport<M> {
    fn send(&self, to: NodeId, envelope: Envelope<M>) {
        let links = lock(&self.shared);
        if links.cut.contains(&(self.node, to)) {
            return;
        }
        let waker =
            links.inboxes.get(&to).and_then(|inbox| inbox.push(Inbound { from: self.node, envelope }));
        drop(links);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn receive(&self, into: &mut Vec<Inbound<M>>) -> Result<(), Closed> {
        poll_fn(|context| {
            let mut queue = lock(&self.inbox.queue);
            if !queue.envelopes.is_empty() {
                into.append(&mut queue.envelopes);
                return Poll::Ready(Ok(()));
            }
            if queue.closed {
                return Poll::Ready(Err(Closed));
            }
            if !queue.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                queue.waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn try_receive(&self, into: &mut Vec<Inbound<M>>) -> Result<(), Closed> {
        self.inbox.take(into).map(|_| ())
    }

    fn open(&self, _identity: &Identity, _incarnation: Incarnation) {}

    fn set_peers(&self, _peers: &[Peer]) {}
}
