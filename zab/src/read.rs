//! Pings, and reads by a true `sync`: rounds of pings, sent after a read arrived, confirm the leadership.

use std::collections::VecDeque;

use synod_core::{Instant, LogEvent, LogIndex, NodeId, ReadId, Refusal};

use crate::broadcast::Phase;
use crate::counters::Rejection;
use crate::message::{Beat, Message, Ping, Pong, Session};
use crate::progress::Stage;
use crate::zab::{Effects, State, Zab};

/// The reads that a leader was asked for and has not answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    /// The latest round that was sent.
    beat: Beat,
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
    beat: Beat,
}

impl Reads {
    /// The leadership ended: nothing will be confirmed.
    pub(crate) fn give_up(self, effects: &mut Effects) {
        for id in self.confirming.into_iter().map(|read| read.id).chain(self.waiting) {
            effects.event(LogEvent::ReadFailed { id, why: Refusal::LeadershipLost });
        }
    }
}

impl Zab {
    /// Whatever the read may rest on: a leader has no lease here.
    pub(crate) fn on_read(&mut self, id: ReadId, effects: &mut Effects) {
        let why = self.not_leader();
        match &mut self.state {
            State::Leading(leading) if leading.phase == Phase::Broadcast => leading.reads.waiting.push(id),
            _ => effects.event(LogEvent::ReadFailed { id, why }),
        }
    }

    /// Gives the reads that arrived since the last round one of their own. It waits for no earlier round.
    ///
    /// An established leader knows everything that was decided before its epoch: a quorum acknowledged
    /// NEWLEADER, and with it the whole initial history.
    pub(crate) fn start_read_round(&mut self, effects: &mut Effects) {
        let index = self.decided;
        let State::Leading(leading) = &mut self.state else { return };
        if leading.reads.waiting.is_empty() {
            return;
        }
        let beat = Beat(leading.reads.beat.0 + 1);
        let reads = leading.reads.waiting.drain(..);
        leading.reads.confirming.extend(reads.map(|id| Confirming { id, index, beat }));
        self.counters.read_rounds += 1;
        self.send_pings(effects);
        self.answer_reads(effects);
    }

    /// Sends the next round to every follower that acknowledged the epoch. Pings wait for no disk.
    pub(crate) fn send_pings(&mut self, effects: &mut Effects) {
        let decided = self.decided;
        let State::Leading(leading) = &mut self.state else { return };
        if leading.phase < Phase::Synchronisation {
            return;
        }
        leading.reads.beat.0 += 1;
        let (beat, epoch) = (leading.reads.beat, leading.epoch);
        let established = leading.phase == Phase::Broadcast;
        for learner in leading.learners.iter_mut().filter(|learner| learner.has_answered()) {
            // Never beyond what the follower is known to have: it may end in entries of another leader.
            let commit = decided.min(learner.matched());
            if learner.stage == Stage::Synchronised {
                learner.told = learner.told.max(commit);
            }
            let session = Session { epoch, attempt: learner.attempt };
            effects.send(learner.node, Message::Ping(Ping { session, established, commit, beat }));
        }
    }

    pub(crate) fn on_ping(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Ping,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Ping { session, established, commit, beat } = message;
        if self.joined(now, from, session).is_none() {
            return Ok(());
        }
        self.send_with_promise(from, Message::Pong(Pong { session, beat }), effects);
        self.learn_decided(now, from, session, established, commit)
    }

    pub(crate) fn on_pong(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Pong,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Some((leading, at)) = self.session_with(now, from, message.session) else { return Ok(()) };
        if message.beat > leading.reads.beat || message.beat == Beat::default() {
            return Err(Rejection::Unasked);
        }
        let learner = &mut leading.learners[at];
        learner.confirmed = learner.confirmed.max(message.beat);
        self.answer_reads(effects);
        Ok(())
    }

    /// Answers the reads whose round, or a later one, a quorum has answered.
    fn answer_reads(&mut self, effects: &mut Effects) {
        let State::Leading(leading) = &mut self.state else { return };
        if leading.reads.confirming.is_empty() {
            return;
        }
        let latest = leading.reads.beat;
        // A later leader needs an election quorum of promises, which meets this replication quorum: while all
        // of it still answered in this epoch, there was no later leader. (Rounds are counted like indexes.)
        let confirmed = self.membership.quorums().reached_by_replication_quorum(&|node| {
            let beat = if node == self.node { latest } else { leading.confirmed(node) };
            LogIndex(beat.0)
        });
        while let Some(read) = leading.reads.confirming.front().copied() {
            if read.beat.0 > confirmed.0 {
                break;
            }
            leading.reads.confirming.pop_front();
            effects.event(LogEvent::ReadReady { id: read.id, index: read.index });
        }
    }
}
