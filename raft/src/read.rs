//! Reads by a read index: heartbeat rounds that confirm a leadership (section 8; thesis 6.4), and those that rest on a
//! lease which the same rounds extend (thesis 6.4.1).

use std::collections::VecDeque;

use synod_core::{Instant, LeaderLease, LogEvent, LogIndex, NodeId, ReadId, ReadMode, Refusal};

use crate::counters::Rejection;
use crate::message::{Heartbeat, HeartbeatReply, Message, Round};
use crate::raft::{Effects, Raft, State};

/// The reads that a leader was asked for and has not answered.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    /// What the heartbeats of this term were answered with, if lease reads are on.
    lease: Option<LeaderLease>,
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
    /// Everything acknowledged before the read arrived lies at or below this index.
    index: LogIndex,
    /// The first round sent after the read arrived: it or a later one confirms the read.
    round: Round,
}

impl Reads {
    pub(crate) fn new(lease: Option<LeaderLease>) -> Reads {
        Reads { lease, round: Round::default(), waiting: Vec::new(), confirming: VecDeque::new() }
    }

    /// Somebody else is asked to lead, and may for the rest of this term: promises to this leader bind nobody any more.
    pub(crate) fn forgo_lease(&mut self) {
        self.lease = None;
    }

    /// The leadership ended: nothing will be confirmed.
    pub(crate) fn give_up(self, effects: &mut Effects) {
        for id in self.confirming.into_iter().map(|read| read.id).chain(self.waiting) {
            effects.event(LogEvent::ReadFailed { id, why: Refusal::LeadershipLost });
        }
    }
}

impl Raft {
    pub(crate) fn on_read(&mut self, now: Instant, id: ReadId, mode: ReadMode, effects: &mut Effects) {
        let index = self.decided;
        let why = self.not_leader();
        let State::Leader(leader) = &mut self.state else {
            effects.event(LogEvent::ReadFailed { id, why });
            return;
        };
        // Before an entry of its own term is decided, a leader does not know what is (section 8). From then on
        // nothing was decided without it at `now`, when the read was there, if nobody else can lead.
        let lease =
            leader.reads.lease.as_ref().filter(|_| mode == ReadMode::Lease && index >= leader.first_index);
        if lease.is_some_and(|lease| lease.holds(now, self.node, self.membership.quorums())) {
            self.counters.lease_reads += 1;
            effects.event(LogEvent::ReadReady { id, index });
        } else {
            leader.reads.waiting.push(id);
        }
    }

    /// Gives the reads that arrived since the last round one of their own. It waits for no earlier round.
    pub(crate) fn start_read_round(&mut self, now: Instant, effects: &mut Effects) {
        let index = self.decided;
        let State::Leader(leader) = &mut self.state else { return };
        // Before an entry of its own term is decided, a leader does not know what is (section 8).
        if leader.reads.waiting.is_empty() || index < leader.first_index {
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
        let term = self.hard_state.term;
        let State::Leader(leader) = &mut self.state else { return };
        leader.reads.round.0 += 1;
        let round = leader.reads.round;
        if let Some(lease) = &mut leader.reads.lease {
            lease.ask(round.0, now);
        }
        for peer in &mut leader.peers {
            // Never beyond what the peer is known to have: it may end in entries of another leader.
            let commit = self.decided.min(peer.matched());
            peer.told = peer.told.max(commit);
            effects.send(peer.node, Message::Heartbeat(Heartbeat { term, commit, round }));
        }
    }

    pub(crate) fn on_heartbeat(
        &mut self,
        now: Instant,
        from: NodeId,
        heartbeat: Heartbeat,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Heartbeat { term, commit, round } = heartbeat;
        if !self.hear_leader(now, from, term, effects)? {
            return Ok(());
        }
        let loyal_for = self.config.loyalty();
        let reply = HeartbeatReply { term, round, loyal_for };
        self.send_with_term(from, Message::HeartbeatReply(reply), effects);
        self.learn_decided(commit)
    }

    pub(crate) fn on_heartbeat_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        reply: HeartbeatReply,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        self.adopt_newer(now, reply.term, effects);
        let term = self.hard_state.term;
        let State::Leader(leader) = &mut self.state else { return Ok(()) };
        if reply.term < term {
            return Ok(());
        }
        if reply.round > leader.reads.round || reply.round == Round::default() {
            return Err(Rejection::Unasked);
        }
        let Some(peer) = leader.peer(from) else { return Err(Rejection::Stranger) };
        peer.heard_at = now;
        peer.confirmed = peer.confirmed.max(reply.round);
        if let Some(lease) = &mut leader.reads.lease {
            lease.promised(from, reply.round.0, reply.loyal_for);
        }
        self.answer_reads(effects);
        Ok(())
    }

    /// Answers the reads whose round, or a later one, a quorum has answered.
    fn answer_reads(&mut self, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.reads.confirming.is_empty() {
            return;
        }
        let latest = leader.reads.round;
        // A later leader needs an election quorum, which meets this replication quorum: while all of it
        // still answered in this term, there was no later leader. (Rounds are counted like indexes.)
        let confirmed = self.membership.quorums().reached_by_replication_quorum(&|node| {
            let round = if node == self.node { latest } else { leader.confirmed(node) };
            LogIndex(round.0)
        });
        while let Some(read) = leader.reads.confirming.front().copied() {
            if read.round.0 > confirmed.0 {
                break;
            }
            leader.reads.confirming.pop_front();
            effects.event(LogEvent::ReadReady { id: read.id, index: read.index });
        }
    }
}
