//! Somebody who has leaderships handed over, now and then, in a share of the seeds.

use std::collections::BTreeMap;

use synod_core::{Instant, NodeId};
use synod_replica::{ClientCall, Token, TransferError};

use super::LogAdapter;
use crate::clock::Time;
use crate::hash::mix;
use crate::observer::{Checked, violation};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::Rng;
use crate::subject::NodeView;

/// Whoever runs the cluster.
pub(crate) struct Operator {
    /// Of its own, so that seeds without it are what they were.
    rng: Rng,
    patience: Time,
    /// How long it waits, on average; never again, if it is not there.
    interval: Option<Time>,
    next: Time,
    asked: u64,
    /// What it waits for, and where.
    open: BTreeMap<Token, usize>,
    pub(crate) rare: RareCounts,
}

/// What it asks, of one node.
pub(crate) struct Wish {
    pub(crate) node: usize,
    pub(crate) to: Option<NodeId>,
}

impl Operator {
    pub(crate) fn new<A: LogAdapter>(options: &Options) -> Operator {
        let mut rng = Rng::new(mix(options.seed, TRANSFERS));
        let there = A::TRANSFERS && !options.faults.is_empty() && rng.below(3) == 0;
        let interval = there.then(|| options.patience * rng.log_between(1, 64));
        Operator {
            rng,
            patience: options.patience,
            interval,
            next: 0,
            asked: 0,
            open: BTreeMap::new(),
            rare: RareCounts::default(),
        }
    }

    /// Some time has passed: what it wants now.
    pub(crate) fn wake(&mut self, at: Time, nodes: &[NodeView]) -> Option<Wish> {
        let interval = self.interval.filter(|_| at >= self.next)?;
        self.next = at + 1 + self.rng.exponential(interval);
        let somebody = self.rng.index(nodes.len());
        let mut around = (0..nodes.len()).map(|step| (somebody + step) % nodes.len());
        let node = around.find(|node| nodes[*node].leads && self.rng.below(8) > 0).unwrap_or(somebody);
        if !nodes[node].up || !nodes[node].open {
            return None;
        }
        // Now and then itself, or somebody who is not there.
        let to = (self.rng.below(3) > 0).then(|| NodeId(1 + self.rng.below(nodes.len() as u64 + 1)));
        Some(Wish { node, to })
    }

    /// The same, of the full replica: it wants an answer.
    pub(crate) fn call(&mut self, at: Time, nodes: &[NodeView]) -> Option<(usize, ClientCall)> {
        let Wish { node, to } = self.wake(at, nodes)?;
        self.asked += 1;
        let token = Token(TOKENS + self.asked);
        self.open.insert(token, node);
        let deadline = Instant(nodes[node].clock.read(at).0 + self.patience * self.rng.between(1, 8));
        Some((node, ClientCall::Transfer { token, to, deadline }))
    }

    /// An answer: the first, and from the node that was asked.
    pub(crate) fn answered(
        &mut self,
        node: usize,
        token: Token,
        result: &Result<NodeId, TransferError>,
    ) -> Checked {
        self.rare[Rare::TransferFailed] += u64::from(result.is_err());
        if self.open.remove(&token) == Some(node) {
            return Ok(());
        }
        Err(violation("answers", format!("n{} answers a transfer that it was not asked for", node + 1)))
    }

    pub(crate) fn crashed(&mut self, node: usize) {
        self.open.retain(|_, at| *at != node);
    }

    /// Faults are over: from now on the cluster is left alone.
    pub(crate) fn heal(&mut self) {
        self.interval = None;
    }

    /// True once everything that was asked of these nodes was answered.
    pub(crate) fn is_content(&self, mut core: impl FnMut(usize) -> bool) -> bool {
        !self.open.values().any(|node| core(*node))
    }
}

/// Sets what is drawn for transfers apart.
const TRANSFERS: u64 = 0x7A;

/// Tokens of transfers; those of clients count from zero.
const TOKENS: u64 = 1 << 40;
