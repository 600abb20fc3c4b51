//! The learner: counts votes until a value is chosen.

use std::collections::BTreeMap;

use synod_core::{NodeId, NodeSet, QuorumSystem};

use super::acceptor::Accepted;
use crate::ballot::Ballot;

/// One learner of one value.
///
/// Votes of different ballots are never added up: a value is chosen when a replication quorum has voted for it
/// in one ballot. Keeps the last vote of each acceptor, so its memory is bounded by their number.
#[derive(Clone, Debug)]
pub struct Learner<V> {
    quorums: QuorumSystem,
    votes: BTreeMap<NodeId, Ballot>,
    chosen: Option<V>,
}

impl<V: Clone> Learner<V> {
    /// A learner that has heard nothing.
    #[must_use]
    pub fn new(quorums: QuorumSystem) -> Learner<V> {
        Learner { quorums, votes: BTreeMap::new(), chosen: None }
    }

    /// Counts a vote. The value, once it is chosen.
    pub fn on_accepted(&mut self, from: NodeId, accepted: Accepted<V>) -> Option<&V> {
        let Accepted { vote } = accepted;
        if self.chosen.is_none() && self.votes.get(&from).is_none_or(|known| *known < vote.ballot) {
            self.votes.insert(from, vote.ballot);
            let voters: NodeSet = self
                .votes
                .iter()
                .filter(|(_, ballot)| **ballot == vote.ballot)
                .map(|(node, _)| *node)
                .collect();
            if self.quorums.is_replication_quorum(&voters) {
                self.chosen = Some(vote.value);
            }
        }
        self.chosen.as_ref()
    }

    /// Takes over what another learner knows to be chosen.
    pub fn on_chosen(&mut self, value: V) {
        self.chosen.get_or_insert(value);
    }

    /// The chosen value, if it is known.
    #[must_use]
    pub fn chosen(&self) -> Option<&V> {
        self.chosen.as_ref()
    }
}
