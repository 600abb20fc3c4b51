//! The proposer: phase 1, the choice of a value, phase 2.

use synod_core::{NodeId, NodeSet, QuorumSystem};

use super::acceptor::{Accept, Prepare, Promise, Rejected, Vote};
use crate::ballot::Ballot;

/// One proposer of one value.
///
/// A ballot must not be used twice by two lives of a node: let the acceptor of the same node answer the
/// [`Prepare`], durably, before anybody else receives it, and start a new life above what that acceptor has
/// promised. A node without an acceptor stores its ballot itself.
#[derive(Clone, Debug)]
pub struct Proposer<V> {
    node: NodeId,
    quorums: QuorumSystem,
    /// The highest ballot seen or used.
    seen: Ballot,
    attempt: Option<Attempt<V>>,
}

/// One ballot of a proposer.
#[derive(Clone, Debug)]
struct Attempt<V> {
    ballot: Ballot,
    /// What it would like to have chosen.
    wish: V,
    promised: NodeSet,
    /// The vote of the highest ballot among the promises.
    highest: Option<Vote<V>>,
    /// True once phase 2 has begun: a ballot has one value.
    asked: bool,
}

impl<V: Clone> Proposer<V> {
    /// A proposer that uses ballots above `floor` only.
    #[must_use]
    pub fn new(node: NodeId, quorums: QuorumSystem, floor: Ballot) -> Proposer<V> {
        Proposer { node, quorums, seen: floor, attempt: None }
    }

    /// Begins phase 1 in a new ballot, above every one seen. `None` if there is none left.
    pub fn propose(&mut self, wish: V) -> Option<Prepare> {
        let ballot = self.seen.next_of(self.node)?;
        self.seen = ballot;
        self.attempt = Some(Attempt { ballot, wish, promised: NodeSet::new(), highest: None, asked: false });
        Some(Prepare { ballot })
    }

    /// Counts a promise. Phase 2a once an election quorum has promised, and only then; promises to earlier
    /// ballots count for nothing.
    pub fn on_promise(&mut self, from: NodeId, promise: Promise<V>) -> Option<Accept<V>> {
        let attempt = self.attempt.as_mut().filter(|attempt| attempt.ballot == promise.ballot)?;
        if attempt.asked {
            return None;
        }
        attempt.promised.insert(from);
        if promise.vote.as_ref().map(|vote| vote.ballot) > attempt.highest.as_ref().map(|vote| vote.ballot) {
            attempt.highest = promise.vote;
        }
        if !self.quorums.is_election_quorum(&attempt.promised) {
            return None;
        }
        attempt.asked = true;
        // P2c: the value of the highest ballot among them, or any if nobody has voted.
        let value = attempt.highest.as_ref().map_or(&attempt.wish, |vote| &vote.value).clone();
        Some(Accept { ballot: attempt.ballot, value })
    }

    /// A higher ballot exists. True if it ends the current attempt: try again after a while.
    pub fn on_rejected(&mut self, rejected: Rejected) -> bool {
        self.seen = self.seen.max(rejected.promised);
        let ends = self
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.ballot == rejected.ballot && rejected.promised > attempt.ballot);
        if ends {
            self.attempt = None;
        }
        ends
    }

    /// The ballot of the current attempt.
    #[must_use]
    pub fn ballot(&self) -> Option<Ballot> {
        self.attempt.as_ref().map(|attempt| attempt.ballot)
    }
}
