//! Barrier reads: a round of messages confirms the ballot; and reads that rest on a lease which the same rounds extend.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::{Instant, LeaderLease, LogEvent, LogIndex, NodeId, ReadId, ReadMode, Refusal};

use crate::acceptor::Heard;
use crate::ballot::Ballot;
use crate::counters::Rejection;
use crate::fast::Open;
use crate::message::{Any, Heartbeat, HeartbeatReply, Message, Round};
use crate::multipaxos::{Effects, MultiPaxos, State, checked_slot};

/// The reads that a leader was asked for and has not answered.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    /// What the heartbeats of this ballot were answered with, if lease reads are on.
    lease: Option<LeaderLease>,
    /// The latest round that was sent.
    round: Round,
    /// Arrived after the latest round was sent: no round confirms them yet.
    waiting: Vec<ReadId>,
    /// In the order of their rounds.
    confirming: VecDeque<Confirming>,
    /// Confirmed, or under a lease when they arrived; served once everything through this slot is decided here.
    covering: VecDeque<(ReadId, LogIndex)>,
}

#[derive(Clone, Copy, Debug)]
struct Confirming {
    id: ReadId,
    /// Everything acknowledged before the read arrived lies at or below this slot.
    index: LogIndex,
    /// The first round sent after the read arrived: it or a later one confirms the read.
    round: Round,
}

/// What a peer says when it answers a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundAnswer {
    pub(crate) round: Round,
    /// It had voted in no slot above this one.
    pub(crate) last: LogIndex,
    /// For how long it helps nobody else to lead.
    pub(crate) loyal_for: Duration,
}

impl Reads {
    pub(crate) fn new(lease: Option<LeaderLease>) -> Reads {
        Reads {
            lease,
            round: Round::default(),
            waiting: Vec::new(),
            confirming: VecDeque::new(),
            covering: VecDeque::new(),
        }
    }

    /// The leadership ended: nothing will be confirmed.
    pub(crate) fn give_up(self, effects: &mut Effects) {
        let covering = self.covering.into_iter().map(|(id, _)| id);
        for id in covering.chain(self.confirming.into_iter().map(|read| read.id)).chain(self.waiting) {
            effects.event(LogEvent::ReadFailed { id, why: Refusal::LeadershipLost });
        }
    }

    /// Takes the confirmed reads that a watermark covers.
    pub(crate) fn covered_by(&mut self, decided: LogIndex) -> Vec<(ReadId, LogIndex)> {
        let count = self.covering.iter().take_while(|(_, index)| *index <= decided).count();
        self.covering.drain(..count).collect()
    }
}

impl MultiPaxos {
    pub(crate) fn on_read(&mut self, now: Instant, id: ReadId, mode: ReadMode, effects: &mut Effects) {
        let (index, decided, why) = (self.read_index(), self.decided, self.not_leader());
        let State::Leader(leader) = &mut self.state else {
            effects.event(LogEvent::ReadFailed { id, why });
            return;
        };
        // As in a round. Nothing was decided without this leader at `now`, when the read was there, if nobody else can
        // lead.
        let lease =
            leader.reads.lease.as_ref().filter(|_| mode == ReadMode::Lease && decided >= leader.settled);
        if !lease.is_some_and(|lease| lease.holds(now, self.node, self.membership.quorums())) {
            leader.reads.waiting.push(id);
            return;
        }
        self.counters.lease_reads += 1;
        leader.reads.covering.push_back((id, index));
        self.answer_covered_reads(effects);
    }

    /// Everything acknowledged to anybody by now lies at or below this slot, if this replica leads.
    fn read_index(&self) -> LogIndex {
        match &self.state {
            // Where every replica counts votes, another one may have acknowledged what is not decided here yet.
            State::Leader(leader) if self.config.votes_to_all => leader.proposals.last(),
            _ => self.decided,
        }
    }

    /// Gives the reads that arrived since the last round one of their own. It waits for no earlier round.
    pub(crate) fn start_read_round(&mut self, now: Instant, effects: &mut Effects) {
        let (index, decided) = (self.read_index(), self.decided);
        let State::Leader(leader) = &mut self.state else { return };
        // Until what earlier leaders may have had chosen is decided again, a leader does not know all that was
        // acknowledged.
        if leader.reads.waiting.is_empty() || decided < leader.settled {
            return;
        }
        let round = Round(leader.reads.round.0 + 1);
        let reads = leader.reads.waiting.drain(..);
        leader.reads.confirming.extend(reads.map(|id| Confirming { id, index, round }));
        self.counters.read_rounds += 1;
        self.send_heartbeats(now, effects);
        self.answer_reads(effects);
    }

    /// Sends the next round to every peer. Heartbeats wait for no disk.
    pub(crate) fn send_heartbeats(&mut self, now: Instant, effects: &mut Effects) {
        let commit = self.decided;
        let open = self.open_rounds();
        let State::Leader(leader) = &mut self.state else { return };
        leader.reads.round.0 += 1;
        let (ballot, first, round) = (leader.ballot, leader.first, leader.reads.round);
        if let Some(lease) = &mut leader.reads.lease {
            lease.ask(round.0, now);
        }
        for peer in &mut leader.peers {
            peer.told = peer.told.max(commit);
            effects.send(
                peer.node,
                match open {
                    Some(Open { from, .. }) => Message::Any(Any { ballot, first, commit, round, from }),
                    None => Message::Heartbeat(Heartbeat { ballot, first, commit, round }),
                },
            );
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
            effects.send(
                from,
                Message::HeartbeatReply(HeartbeatReply { ballot, round, loyal_for: self.config.loyalty() }),
            );
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
        let HeartbeatReply { ballot, round, loyal_for } = reply;
        self.on_round_answered(
            now,
            from,
            ballot,
            RoundAnswer { round, last: LogIndex::ZERO, loyal_for },
            effects,
        )
    }

    /// A peer had promised no higher ballot when this round came.
    pub(crate) fn on_round_answered(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        answer: RoundAnswer,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let RoundAnswer { round, last, loyal_for } = answer;
        checked_slot(last)?;
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
        peer.last = peer.last.max(last);
        if let Some(lease) = &mut leader.reads.lease {
            lease.promised(from, round.0, loyal_for);
        }
        self.answer_reads(effects);
        Ok(())
    }

    /// Answers the reads whose round, or a later one, a quorum has answered, and whose slot is decided.
    pub(crate) fn answer_reads(&mut self, effects: &mut Effects) {
        self.answer_covered_reads(effects);
        if self.open_rounds().is_some() {
            self.cover_reads();
            return;
        }
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

    /// Reads that need no round any more are served once everything is decided that may have been acknowledged when they
    /// came.
    pub(crate) fn answer_covered_reads(&mut self, effects: &mut Effects) {
        let decided = self.decided;
        let State::Leader(leader) = &mut self.state else { return };
        for (id, index) in leader.reads.covered_by(decided) {
            effects.event(LogEvent::ReadReady { id, index });
        }
    }

    /// While fast rounds are open, others decide and acknowledge without this leader: a read waits for the last slot
    /// that anybody of an election quorum had voted in when it was asked.
    fn cover_reads(&mut self) {
        while let State::Leader(leader) = &self.state
            && let Some(read) = leader.reads.confirming.front().copied()
        {
            let confirmed = leader.peers.iter().filter(|peer| peer.confirmed >= read.round);
            let lasts: Vec<(NodeId, LogIndex)> = confirmed.map(|peer| (peer.node, peer.last)).collect();
            let Some(last) = self.last_that_may_be_chosen(&lasts) else { return };
            let State::Leader(leader) = &mut self.state else { return };
            leader.reads.confirming.pop_front();
            leader.reads.covering.push_back((read.id, last.max(read.index)));
        }
    }
}
