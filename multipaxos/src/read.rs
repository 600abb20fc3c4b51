//! Barrier reads: a round of messages confirms the ballot; and reads that rest on a lease which the same rounds extend.

use std::collections::VecDeque;

use synod_core::{Instant, LeaderLease, LogEvent, LogIndex, NodeId, ReadId, ReadMode, Refusal};

use crate::acceptor::Heard;
use crate::counters::Rejection;
use crate::message::{Heartbeat, HeartbeatReply, Message, Round};
use crate::multipaxos::{Effects, MultiPaxos, State};

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
    /// Under a lease when they arrived; their slot may not be decided here yet. In the order of their slots.
    leased: VecDeque<(ReadId, LogIndex)>,
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
    pub(crate) fn new(lease: Option<LeaderLease>) -> Reads {
        Reads {
            lease,
            round: Round::default(),
            waiting: Vec::new(),
            confirming: VecDeque::new(),
            leased: VecDeque::new(),
        }
    }

    /// The leadership ended: nothing will be confirmed.
    pub(crate) fn give_up(self, effects: &mut Effects) {
        let leased = self.leased.into_iter().map(|(id, _)| id);
        for id in leased.chain(self.confirming.into_iter().map(|read| read.id)).chain(self.waiting) {
            effects.event(LogEvent::ReadFailed { id, why: Refusal::LeadershipLost });
        }
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
        leader.reads.leased.push_back((id, index));
        self.answer_leased(effects);
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
        let State::Leader(leader) = &mut self.state else { return };
        leader.reads.round.0 += 1;
        let (ballot, first, round) = (leader.ballot, leader.first, leader.reads.round);
        if let Some(lease) = &mut leader.reads.lease {
            lease.ask(round.0, now);
        }
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
        if let Some(lease) = &mut leader.reads.lease {
            lease.promised(from, round.0, loyal_for);
        }
        self.answer_reads(effects);
        Ok(())
    }

    /// Answers the reads whose round, or a later one, a quorum has answered, and whose slot is decided.
    pub(crate) fn answer_reads(&mut self, effects: &mut Effects) {
        self.answer_leased(effects);
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

    /// Answers the reads that a lease covers, once their slot is decided.
    fn answer_leased(&mut self, effects: &mut Effects) {
        let decided = self.decided;
        let State::Leader(leader) = &mut self.state else { return };
        while let Some((id, index)) =
            leader.reads.leased.front().copied().filter(|(_, index)| *index <= decided)
        {
            leader.reads.leased.pop_front();
            effects.event(LogEvent::ReadReady { id, index });
        }
    }
}
