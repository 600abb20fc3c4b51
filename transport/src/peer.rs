//! A peer: what waits for it, which life of it is known, and the connection that it made.

use std::sync::{Arc, Mutex};

use synod_core::{Incarnation, NodeId};
use tokio::sync::Notify;

use crate::handshake::Refusal;
use crate::lock;
use crate::outbox::Outbox;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) outbox: Outbox,
    called: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest life that is known.
    life: Incarnation,
    /// Ends the connection that the peer made last.
    inbound: Option<Arc<Notify>>,
    removed: bool,
}

impl Peer {
    pub(crate) fn new(id: NodeId, outbox: Outbox) -> Peer {
        Peer { id, outbox, called: Notify::new(), state: Mutex::default() }
    }

    /// The newest life that is known.
    pub(crate) fn life(&self) -> Incarnation {
        lock(&self.state).life
    }

    /// Waits until the peer has called: it is there, and perhaps in a new life.
    pub(crate) async fn called(&self) {
        self.called.notified().await;
    }

    /// Notes a life of the peer.
    pub(crate) fn heard_of(&self, life: Incarnation) -> Result<(), Refusal> {
        lock(&self.state).heard_of(life)
    }

    /// Takes a connection that the peer made, in the place of the one before it. What comes back ends it.
    pub(crate) fn take_connection(&self, life: Incarnation) -> Result<Arc<Notify>, Refusal> {
        let end = Arc::new(Notify::new());
        let mut state = lock(&self.state);
        if state.removed {
            return Err(Refusal::Stranger);
        }
        state.heard_of(life)?;
        let before = state.inbound.replace(Arc::clone(&end));
        drop(state);
        if let Some(before) = before {
            before.notify_one();
        }
        self.called.notify_one();
        Ok(end)
    }

    /// Nothing comes from it or goes to it any more.
    pub(crate) fn remove(&self) {
        let mut state = lock(&self.state);
        state.removed = true;
        let inbound = state.inbound.take();
        drop(state);
        if let Some(inbound) = inbound {
            inbound.notify_one();
        }
        self.outbox.down();
    }
}

impl State {
    fn heard_of(&mut self, life: Incarnation) -> Result<(), Refusal> {
        if life < self.life {
            return Err(Refusal::Incarnation);
        }
        self.life = life;
        Ok(())
    }
}
