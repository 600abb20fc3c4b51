//! The learner's count of votes, slot by slot: acceptors tell every learner directly.

use std::collections::BTreeMap;

use synod_core::{Entry, LogIndex, NodeId, NodeSet, QuorumSystem, Stamp};

use crate::ballot::{Ballot, VoteRound};
use crate::fast::pick::{Pick, most_voted, pick};

/// The votes of one ballot in the slots above the watermark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// The ballot whose votes are counted: the highest that was heard of. Votes of two ballots are never added up.
    ballot: Ballot,
    slots: BTreeMap<LogIndex, Slot>,
}

/// What is known of one slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// What this replica's log holds, if this life wrote or read it.
    pub(crate) held: Option<Entry>,
    /// The value that was chosen.
    pub(crate) chosen: Option<Entry>,
    /// Votes in the fast round: one of each acceptor.
    fast: Vec<(NodeId, usize)>,
    /// What they are for, each value once.
    values: Vec<Entry>,
    /// The value of the classic round, and who voted for it.
    classic: Option<(Entry, NodeSet)>,
    /// What this replica, as coordinator, proposes in the classic round: once, and never another value.
    pub(crate) resolved: Option<Entry>,
}

/// What a vote told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing new, or nothing that counts.
    Nothing,
    /// One more vote.
    Vote,
    /// A value is chosen now.
    Chosen,
    /// No correct acceptor votes like this.
    Wrong,
}

impl Tally {
    pub(crate) fn slot(&self, slot: LogIndex) -> Option<&Slot> {
        self.slots.get(&slot)
    }

    pub(crate) fn slot_mut(&mut self, slot: LogIndex) -> &mut Slot {
        self.slots.entry(slot).or_default()
    }

    /// Takes away everything at or below `through`.
    pub(crate) fn settle(&mut self, through: LogIndex) -> BTreeMap<LogIndex, Slot> {
        let rest = self.slots.split_off(&through.next());
        std::mem::replace(&mut self.slots, rest)
    }

    pub(crate) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Votes of `ballot` are counted from now on, unless those of a higher one are.
    pub(crate) fn enter_at_least(&mut self, ballot: Ballot) {
        if ballot > self.ballot {
            self.enter(ballot);
        }
    }

    /// Votes of a higher ballot take the place of those counted so far. What is chosen stays so.
    fn enter(&mut self, ballot: Ballot) {
        self.ballot = ballot;
        for slot in self.slots.values_mut() {
            let (held, chosen) = (slot.held.take(), slot.chosen.take());
            *slot = Slot { held, chosen, ..Slot::default() };
        }
    }

    /// `node` has durably voted for `entry`, in the round of its stamp.
    pub(crate) fn record(&mut self, quorums: &QuorumSystem, node: NodeId, entry: &Entry) -> Heard {
        let Some(round) = VoteRound::of_stamp(entry.stamp) else { return Heard::Wrong };
        if round == VoteRound::CHOSEN {
            let slot = self.slot_mut(entry.index);
            if slot.chosen.is_some() {
                return Heard::Nothing;
            }
            slot.chosen = Some(entry.clone());
            return Heard::Chosen;
        }
        if round.ballot < self.ballot {
            return Heard::Nothing;
        }
        if round.ballot > self.ballot {
            self.enter(round.ballot);
        }
        let slot = self.slot_mut(entry.index);
        if slot.chosen.is_some() {
            return Heard::Nothing;
        }
        if round.classic {
            slot.record_classic(quorums, node, entry)
        } else {
            slot.record_fast(quorums, node, entry)
        }
    }
}

impl Slot {
    fn record_fast(&mut self, quorums: &QuorumSystem, node: NodeId, entry: &Entry) -> Heard {
        let known = self.values.iter().position(|value| value.same_value(entry));
        if let Some((_, voted)) = self.fast.iter().find(|(voter, _)| *voter == node) {
            // F-a: one vote for each acceptor, round and slot.
            return if known == Some(*voted) { Heard::Nothing } else { Heard::Wrong };
        }
        let value = known.unwrap_or_else(|| {
            self.values.push(entry.clone());
            self.values.len() - 1
        });
        self.fast.push((node, value));
        let voters = self.fast.iter().filter(|(_, voted)| *voted == value).map(|(voter, _)| *voter).collect();
        if !quorums.is_fast_quorum(&voters) {
            return Heard::Vote;
        }
        self.chosen = Some(self.values[value].clone());
        Heard::Chosen
    }

    fn record_classic(&mut self, quorums: &QuorumSystem, node: NodeId, entry: &Entry) -> Heard {
        let (value, voters) = self.classic.get_or_insert_with(|| (entry.clone(), NodeSet::new()));
        if !value.same_value(entry) {
            return Heard::Wrong;
        }
        if !voters.insert(node) {
            return Heard::Nothing;
        }
        if !quorums.is_replication_quorum(voters) {
            return Heard::Vote;
        }
        self.chosen = Some(value.clone());
        Heard::Chosen
    }

    /// Those whose vote in the fast round is known.
    pub(crate) fn fast_voters(&self) -> NodeSet {
        self.fast.iter().map(|(node, _)| *node).collect()
    }

    /// True if the vote of `node` in the last round there is is known.
    pub(crate) fn has_vote_of(&self, node: NodeId) -> bool {
        match (&self.resolved, &self.classic) {
            (Some(_), classic) => classic.as_ref().is_some_and(|(_, voters)| voters.contains(node)),
            (None, _) => self.fast.iter().any(|(voter, _)| *voter == node),
        }
    }

    fn votes(&self) -> Vec<(NodeId, &Entry)> {
        self.fast.iter().map(|(node, value)| (*node, &self.values[*value])).collect()
    }

    /// True if no value can reach a fast quorum any more, whatever the others vote: a collision (Fast Paxos, section 3.2).
    pub(crate) fn is_stuck(&self, quorums: &QuorumSystem) -> bool {
        let voters = self.fast_voters();
        let rest: Vec<NodeId> = quorums.members().iter().filter(|node| !voters.contains(*node)).collect();
        let can_win = |value: usize| {
            let own = self.fast.iter().filter(|(_, voted)| *voted == value).map(|(node, _)| *node);
            quorums.is_fast_quorum(&own.chain(rest.iter().copied()).collect())
        };
        !self.values.is_empty() && !(0..self.values.len()).any(can_win)
    }

    /// What the coordinator proposes in the classic round that follows the fast one. Each vote counts as a promise
    /// of it (Fast Paxos, section 3.2, coordinated recovery): both rounds are the same coordinator's, there is none between them,
    /// and who has voted in the fast one cannot vote in it, or in a lower one, again. `None` while no election
    /// quorum's votes are known.
    pub(crate) fn resolution(&self, quorums: &QuorumSystem) -> Option<Entry> {
        let answered = self.fast_voters();
        if !quorums.is_election_quorum(&answered) {
            return None;
        }
        let votes = self.votes();
        match pick(quorums, &answered, &votes, Entry::same_value) {
            Pick::Bound(value) => Some(value.clone()),
            Pick::Free => self.most_voted().cloned(),
        }
    }

    /// The value with the most votes in the fast round.
    pub(crate) fn most_voted(&self) -> Option<&Entry> {
        most_voted(&self.votes(), Entry::same_value)
    }

    /// True if the log of this replica holds the chosen value already.
    pub(crate) fn holds_chosen(&self, stamp: Option<Stamp>) -> bool {
        match (&self.held, &self.chosen) {
            (Some(held), Some(chosen)) => stamp == Some(held.stamp) && held.same_value(chosen),
            _ => false,
        }
    }
}
