//! Votes that acceptors tell every replica, where the leader asks for it: a replica that does not lead decides by them,
//! without waiting for its leader to say so (section 2.3, the first way for learners to find out).

use std::collections::VecDeque;

use synod_core::{Instant, LogIndex, NodeId, WriteId};

use crate::ballot::Ballot;
use crate::counters::Rejection;
use crate::message::{Accepted, Message};
use crate::multipaxos::{Effects, MultiPaxos, State, checked_slot};

/// How far the votes of the acceptors reach in one ballot, as one that does not lead it has heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witnessed {
    ballot: Ballot,
    told: Vec<(NodeId, LogIndex)>,
    /// This replica's own votes on their way to its disk: the unit, and how far they reach with it.
    own_in_flight: VecDeque<(WriteId, LogIndex)>,
    /// This replica's own votes are durable through here.
    durable: LogIndex,
}

impl Witnessed {
    /// Votes of different ballots are never added up.
    fn of(&mut self, ballot: Ballot) -> &mut Witnessed {
        if self.ballot != ballot {
            *self = Witnessed { ballot, ..Witnessed::default() };
        }
        self
    }

    fn note(&mut self, from: NodeId, through: LogIndex) {
        match self.told.iter_mut().find(|(node, _)| *node == from) {
            Some((_, reached)) => *reached = through.max(*reached),
            None => self.told.push((from, through)),
        }
    }

    fn reached(&self, node: NodeId) -> LogIndex {
        self.told.iter().find(|(other, _)| *other == node).map_or(LogIndex::ZERO, |(_, through)| *through)
    }

    /// This replica's own votes reach through `through`, once unit `unit` is durable.
    fn own_votes(&mut self, unit: WriteId, through: LogIndex) {
        match self.own_in_flight.back_mut() {
            Some((last, reached)) if *last == unit => *reached = through.max(*reached),
            _ => self.own_in_flight.push_back((unit, through)),
        }
    }

    fn on_persisted(&mut self, id: WriteId) {
        while let Some((_, through)) = self.own_in_flight.front().filter(|(unit, _)| *unit <= id) {
            self.durable = self.durable.max(*through);
            self.own_in_flight.pop_front();
        }
    }
}

impl MultiPaxos {
    /// Tells everybody but the leader what the leader is told.
    pub(crate) fn tell_others(&mut self, now: Instant, accepted: Accepted, effects: &mut Effects) {
        let write = self.promise_write.max(self.vote_write);
        let leader = accepted.ballot.node;
        for peer in self.membership.peers_of(self.node).filter(|peer| *peer != leader) {
            self.send_with(write, peer, Message::Accepted(accepted), effects);
        }
        self.witnessed.of(accepted.ballot).own_votes(write, accepted.through);
        self.on_own_votes_durable(now, self.disk.persisted);
    }

    /// Everything through unit `id` is durable, and so are the votes in it.
    pub(crate) fn on_own_votes_durable(&mut self, now: Instant, id: WriteId) {
        self.witnessed.on_persisted(id);
        self.count_told_votes(now);
    }

    /// An acceptor tells of its votes in somebody else's ballot.
    pub(crate) fn on_vote_told(
        &mut self,
        now: Instant,
        from: NodeId,
        accepted: Accepted,
    ) -> Result<(), Rejection> {
        let Accepted { ballot, through, .. } = accepted;
        checked_slot(through)?;
        let State::Follower(Some(leader)) = &self.state else { return Ok(()) };
        if ballot == leader.ballot {
            self.witnessed.of(ballot).note(from, through);
            self.count_told_votes(now);
        }
        Ok(())
    }

    /// A slot is decided when a replication quorum has durably voted in it, in one ballot. The leader's own votes do not
    /// count here: nobody tells them.
    fn count_told_votes(&mut self, now: Instant) {
        let (me, witnessed) = (self.node, &self.witnessed);
        let State::Follower(Some(leader)) = &mut self.state else { return };
        if witnessed.ballot != leader.ballot {
            return;
        }
        let reached = self.membership.quorums().reached_by_replication_quorum(&|node| {
            if node == me { witnessed.durable } else { witnessed.reached(node) }
        });
        // As good as if the leader had said it.
        if reached > leader.commit {
            leader.commit = reached;
            self.counters.decided_by_votes += 1;
            self.follow_watermark(now);
        }
    }
}
