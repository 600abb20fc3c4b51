//! Bully: the highest id that answers leads. With epochs, only once a majority has kept one for it.

use std::time::Duration;

use synod_core::{Effects, Input, Instant, Machine, Membership, NodeId, OpenError, Start};
use synod_lease::FencingToken;
use synod_lease::epochs::Epochs;

use super::{Election, ElectionConfig, Say, Told};

/// A node of Bully; `EPOCHS`: inside the epoch of a quorum.
#[derive(Debug)]
pub struct Bully<const EPOCHS: bool> {
    node: NodeId,
    membership: Membership,
    patience: Duration,
    epochs: Epochs,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Hears a leader, or waits to.
    Following { leader: Option<NodeId>, until: Instant },
    /// Has asked those with higher ids.
    Asking { until: Instant },
    /// One of them has answered, and is to lead.
    Answered { until: Instant },
    /// Nobody has answered; claims an epoch.
    Claiming { until: Instant },
    /// Leads.
    Leading { epoch: Option<FencingToken>, next: Instant },
}

type Asked = Effects<Say, Told>;

impl<const EPOCHS: bool> Election for Bully<EPOCHS> {
    const NAME: &'static str = if EPOCHS { "bully" } else { "bully-plain" };
    const EPOCHS: bool = EPOCHS;
}

impl<const EPOCHS: bool> Machine for Bully<EPOCHS> {
    type Config = ElectionConfig;
    type Message = Say;
    type Call = ();
    type Event = Told;

    fn open(start: Start<ElectionConfig>) -> Result<Bully<EPOCHS>, OpenError> {
        let Start { node, membership, config, recovered, now, .. } = start;
        let epochs = Epochs::restored(
            node,
            recovered.incarnation,
            membership.clone(),
            config.patience,
            recovered.hard_state,
        )?;
        let until = now + config.patience;
        let stage = Stage::Following { leader: None, until };
        Ok(Bully { node, membership, patience: config.patience, epochs, stage })
    }

    fn step(&mut self, now: Instant, input: Input<Say, ()>, effects: &mut Asked) {
        match input {
            Input::Receive { from, message } => self.on_message(now, from, message, effects),
            Input::Persisted(through) => {
                let claimed = self.epochs.persisted(through);
                self.on_claimed(now, claimed, effects);
            }
            Input::Tick => self.on_tick(now, effects),
            Input::Loaded { .. } | Input::Call(()) => {}
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Following { until, .. }
            | Stage::Asking { until }
            | Stage::Answered { until }
            | Stage::Claiming { until } => until,
            Stage::Leading { next, .. } => next,
        };
        Instant::earlier(Some(stage), self.epochs.next_deadline())
    }
}

impl<const EPOCHS: bool> Bully<EPOCHS> {
    fn on_message(&mut self, now: Instant, from: NodeId, message: Say, effects: &mut Asked) {
        match message {
            Say::Election if from < self.node => {
                effects.send(from, Say::Answer);
                match self.stage {
                    Stage::Leading { epoch, .. } => effects.send(from, Say::Coordinator(epoch)),
                    Stage::Following { .. } => self.ask(now, effects),
                    Stage::Asking { .. } | Stage::Answered { .. } | Stage::Claiming { .. } => {}
                }
            }
            Say::Answer => {
                if let Stage::Asking { .. } = self.stage {
                    self.stage = Stage::Answered { until: now + self.patience * 2 };
                }
            }
            Say::Coordinator(epoch) | Say::Alive(epoch) => self.on_leader(now, from, epoch, effects),
            Say::Epoch(message) => {
                let claimed = self.epochs.receive(now, from, message, Say::Epoch, effects);
                self.on_claimed(now, claimed, effects);
                self.on_later(now, Some(self.epochs.kept()), effects);
            }
            Say::Later(epoch) => self.on_later(now, Some(epoch), effects),
            Say::Election => {}
        }
    }

    fn on_leader(&mut self, now: Instant, from: NodeId, epoch: Option<FencingToken>, effects: &mut Asked) {
        // A leader of an epoch that a later one has followed, or will.
        if epoch.is_some_and(|epoch| epoch < self.epochs.kept()) {
            return effects.send(from, Say::Later(self.epochs.kept()));
        }
        if from > self.node {
            return self.follow(now, Some(from), effects);
        }
        match self.stage {
            Stage::Following { .. } => self.ask(now, effects),
            _ => self.on_later(now, epoch, effects),
        }
    }

    /// There is a later epoch than the one led in, perhaps of somebody whom this node outranks: it needs another.
    fn on_later(&mut self, now: Instant, later: Option<FencingToken>, effects: &mut Asked) {
        if let Stage::Leading { epoch, .. } = self.stage
            && later > epoch
        {
            self.follow(now, None, effects);
            self.ask(now, effects);
        }
    }

    fn on_tick(&mut self, now: Instant, effects: &mut Asked) {
        self.epochs.tick(now, Say::Epoch, effects);
        match self.stage {
            Stage::Following { until, .. } | Stage::Answered { until } | Stage::Claiming { until }
                if until <= now =>
            {
                self.ask(now, effects);
            }
            Stage::Asking { until } if until <= now => self.won(now, effects),
            Stage::Leading { epoch, next } if next <= now => {
                self.stage = Stage::Leading { epoch, next: now + self.patience / 4 };
                self.to_all(Say::Alive(epoch), effects);
            }
            _ => {}
        }
    }

    /// Begins an election: those with higher ids go first.
    fn ask(&mut self, now: Instant, effects: &mut Asked) {
        self.epochs.abandon();
        self.stage = Stage::Asking { until: now + self.patience };
        let mut asked = false;
        for peer in self.membership.peers_of(self.node).filter(|peer| *peer > self.node) {
            effects.send(peer, Say::Election);
            asked = true;
        }
        if !asked {
            self.won(now, effects);
        }
    }

    fn won(&mut self, now: Instant, effects: &mut Asked) {
        if EPOCHS {
            self.stage = Stage::Claiming { until: now + self.patience * 4 };
            self.epochs.claim(now, Say::Epoch, effects);
        } else {
            self.lead(now, None, effects);
        }
    }

    fn on_claimed(&mut self, now: Instant, claimed: Option<FencingToken>, effects: &mut Asked) {
        if let (Some(epoch), Stage::Claiming { .. }) = (claimed, self.stage) {
            self.lead(now, Some(epoch), effects);
        }
    }

    fn lead(&mut self, now: Instant, epoch: Option<FencingToken>, effects: &mut Asked) {
        self.stage = Stage::Leading { epoch, next: now + self.patience / 4 };
        effects.event(Told::Leads(epoch));
        self.to_all(Say::Coordinator(epoch), effects);
    }

    fn follow(&mut self, now: Instant, leader: Option<NodeId>, effects: &mut Asked) {
        let before = match self.stage {
            Stage::Following { leader, .. } => leader,
            _ => None,
        };
        self.epochs.abandon();
        self.stage = Stage::Following { leader, until: now + self.patience };
        if leader.is_none() || leader != before {
            effects.event(Told::Follows(leader));
        }
    }

    fn to_all(&self, message: Say, effects: &mut Asked) {
        for peer in self.membership.peers_of(self.node) {
            effects.send(peer, message);
        }
    }
}
