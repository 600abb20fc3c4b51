//! Barrier reads: a round of messages confirms the ballot.

use std::collections::VecDeque;

use synod_core::{Instant, LogEvent, LogIndex, NodeId, ReadId, Refusal};

use crate::acceptor::Heard;
use crate::counters::Rejection;
use crate::message::{Heartbeat, HeartbeatReply, Message, Round};
use crate::multipaxos::{Effects, MultiPaxos, State};

/// The reads that a leader was asked for and has not answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    /// The latest round that was sent.
    round: Round,
    /// Arrived after the latest round was sent: no round confirms them yet.
    waiting: Vec<ReadId>,
    /// In the order of their rounds.
    confirming: VecDeque<Confirming>,
}

#[derive(Clone, Copy, Debug)]
struct Confirming {
    id: ReadId,
    /// Everything acknowledged before the read arrived lies at or below this slot.
    index: LogIndex,
    /// The first round sent after the read arrived: it or a later one confirms the read.
    round: Round,
}

impl Reads {
    /// The leadership ended: nothing will be confirmed.
    pub(crate) fn give_up(self, effects: &mut Effects) {
        for id in self.confirming.into_iter().map(|read| read.id).chain(self.waiting) {
            effects.event(LogEvent::ReadFailed { id, why: Refusal::LeadershipLost });
        }
    }
}

impl MultiPaxos {
    pub(crate) fn on_read(&mut self, id: ReadId, effects: &mut Effects) {
        match &mut self.state {
            State::Leader(leader) => leader.reads.waiting.push(id),
            _ => effects.event(LogEvent::ReadFailed { id, why: self.not_leader() }),
        }
    }

    /// Gives the reads that arrived since the last round one of their own. It waits for no earlier round.
    pub(crate) fn start_read_round(&mut self, effects: &mut Effects) {
        let decided = self.decided;
        let State::Leader(leader) = &mut self.state else { return };
        // Where every replica counts votes, another one may have acknowledged what is not decided here yet.
        let index = if self.config.votes_to_all { leader.proposals.last() } else { decided };
        // Until what earlier leaders may have had chosen is decided again, a leader does not know all that was
        // acknowledged.
        if leader.reads.waiting.is_empty() || decided < leader.settled {
            return;
        }
        let round = Round(leader.reads.round.0 + 1);
        let reads = leader.reads.waiting.drain(..);
        leader.reads.confirming.extend(reads.map(|id| Confirming { id, index, round }));
        self.counters.read_rounds += 1;
        self.send_heartbeats(effects);
        self.answer_reads(effects);
    }

    /// Sends the next round to every peer. Heartbeats wait for no disk.
    pub(crate) fn send_heartbeats(&mut self, effects: &mut Effects) {
        let commit = self.decided;
        let State::Leader(leader) = &mut self.state else { return };
        leader.reads.round.0 += 1;
        let (ballot, first, round) = (leader.ballot, leader.first, leader.reads.round);
        for peer in &mut leader.peers {
            peer.told = peer.told.max(commit);
            effects.send(peer.node, Message::Heartbeat(Heartbeat { ballot, first, commit, round }));
        }
    }

    /// A reply says that no higher ballot was promised here when the round arrived. It raises no promise, so it
    /// waits for no write.
    pub(crate) fn on_heartbeat(
        &mut self,
        now: Instant,
        from: NodeId,
        heartbeat: Heartbeat,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Heartbeat { ballot, first, commit, round } = heartbeat;
        if self.hear_leader(now, from, Heard { ballot, first, commit }, effects)? {
            effects.send(from, Message::HeartbeatReply(HeartbeatReply { ballot, round }));
            self.follow_watermark(now);
        }
        Ok(())
    }

    pub(crate) fn on_heartbeat_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        reply: HeartbeatReply,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let HeartbeatReply { ballot, round } = reply;
        if ballot.node != self.node {
            return Err(Rejection::Ballot);
        }
        let State::Leader(leader) = &mut self.state else { return Ok(()) };
        if ballot != leader.ballot {
            return Ok(());
        }
        if round > leader.reads.round || round == Round::default() {
            return Err(Rejection::Unasked);
        }
        let Some(peer) = leader.peer(from) else { return Err(Rejection::Stranger) };
        peer.heard_at = now;
        peer.confirmed = peer.confirmed.max(round);
        self.answer_reads(effects);
        Ok(())
    }

    /// Answers the reads whose round, or a later one, a quorum has answered, and whose slot is decided.
    pub(crate) fn answer_reads(&mut self, effects: &mut Effects) {
        let (me, decided) = (self.node, self.decided);
        let State::Leader(leader) = &mut self.state else { return };
        if leader.reads.confirming.is_empty() {
            return;
        }
        let latest = leader.reads.round;
        // A later leader needs an election quorum, which meets this replication quorum: while all of it had
        // promised no higher ballot, there was no later leader. (Rounds are counted like slots.)
        let confirmed = self.membership.quorums().reached_by_replication_quorum(&|node| {
            let round = if node == me { latest } else { leader.confirmed(node) };
            LogIndex(round.0)
        });
        while let Some(read) = leader.reads.confirming.front().copied() {
            if read.round.0 > confirmed.0 || read.index > decided {
                break;
            }
            leader.reads.confirming.pop_front();
            effects.event(LogEvent::ReadReady { id: read.id, index: read.index });
        }
    }
}
