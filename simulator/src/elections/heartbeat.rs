//! Heartbeats and nothing else: whoever hears nobody with a lower id leads.

use std::collections::BTreeMap;
use std::time::Duration;

use synod_core::{Effects, Input, Instant, Machine, Membership, NodeId, OpenError, Start};

use super::{Election, ElectionConfig, Say, Told};

/// A node that believes what it hears.
#[derive(Debug)]
pub struct Heartbeat {
    node: NodeId,
    membership: Membership,
    patience: Duration,
    /// Until when each peer counts as alive.
    alive: BTreeMap<NodeId, Instant>,
    leader: Option<NodeId>,
    /// It hears the others out before it says anything of itself.
    listens_until: Instant,
    next: Instant,
}

impl Election for Heartbeat {
    const NAME: &'static str = "heartbeat";
    const EPOCHS: bool = false;
}

impl Machine for Heartbeat {
    type Config = ElectionConfig;
    type Message = Say;
    type Call = ();
    type Event = Told;

    fn open(start: Start<ElectionConfig>) -> Result<Heartbeat, OpenError> {
        let Start { node, membership, config, now, .. } = start;
        Ok(Heartbeat {
            node,
            membership,
            patience: config.patience,
            alive: BTreeMap::new(),
            leader: None,
            listens_until: now + config.patience,
            next: now,
        })
    }

    fn step(&mut self, now: Instant, input: Input<Say, ()>, effects: &mut Effects<Say, Told>) {
        if let Input::Receive { from, message: Say::Alive(_) } = input {
            self.alive.insert(from, now + self.patience);
        }
        self.alive.retain(|_, until| *until > now);
        if self.next <= now {
            self.next = now + self.patience / 4;
            for peer in self.membership.peers_of(self.node) {
                effects.send(peer, Say::Alive(None));
            }
        }
        let lowest = self.alive.keys().next().copied().map_or(self.node, |peer| peer.min(self.node));
        if now < self.listens_until || self.leader == Some(lowest) {
            return;
        }
        self.leader = Some(lowest);
        effects.event(if lowest == self.node { Told::Leads(None) } else { Told::Follows(Some(lowest)) });
    }

    fn next_deadline(&self) -> Option<Instant> {
        let quiet = self.alive.values().min().copied();
        Instant::earlier(Some(self.next), quiet)
    }
}
