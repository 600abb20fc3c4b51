//! Compaction, and going on from a snapshot (section 7).

use synod_core::{Instant, LogEvent, LogIndex, NodeId, SnapshotId, SnapshotMeta, SnapshotOutcome};

use crate::message::{Position, Term};
use crate::raft::{Effects, Raft, State};

impl Raft {
    /// A durable snapshot holds everything through `index` and more: the entries there may go.
    pub(crate) fn compact_to(&mut self, index: LogIndex, effects: &mut Effects) {
        // What is not on this disk yet could come back after a crash, without its place.
        let bound = index.min(self.decided).min(self.disk.durable());
        if bound > self.log.base().index {
            self.counters.compactions += 1;
            self.log.compact_to(bound);
            effects.compact_to(bound);
        }
    }

    /// A snapshot is here and durable. Whatever it holds is decided; the question is whether this log has it.
    pub(crate) fn on_snapshot_arrived(
        &mut self,
        now: Instant,
        id: SnapshotId,
        meta: &SnapshotMeta,
        effects: &mut Effects,
    ) {
        let last = Position { term: Term(meta.stamp.high), index: meta.index };
        let possible = meta.stamp.low == 0 && last.term > Term::ZERO && last.term <= Term::MAX;
        if !possible || last.index <= self.decided {
            effects.event(LogEvent::DiscardSnapshot(id));
            return;
        }
        if self.log.term_at(last.index) == Some(last.term) {
            // Log Matching: everything before it is the same as well, and what follows it stays.
            self.decided = last.index;
            effects.event(LogEvent::DiscardSnapshot(id));
            return;
        }
        if last.term > self.term() {
            self.adopt(now, last.term, effects);
        }
        match self.state {
            State::Leader(_) => {
                // Leader Completeness: a leader of that term or a later one has the entry. No correct peer sent this.
                self.counters.snapshots_refused += 1;
                effects.event(LogEvent::DiscardSnapshot(id));
                return;
            }
            // It asked for votes with another log.
            State::PreCandidate { .. } | State::Candidate { .. } => self.become_follower(now, None, effects),
            State::Follower(_) => {}
        }
        self.install(now, last, effects);
    }

    /// Lets the snapshot stand for the log. Nothing that stands here can follow `last`: an entry behind it would be
    /// of a leader that had it.
    fn install(&mut self, now: Instant, last: Position, effects: &mut Effects) {
        assert!(last.index > self.decided, "a snapshot never takes back what is decided");
        self.counters.installs += 1;
        if last.index < self.log.last_index() {
            effects.truncate_from(last.index.next());
        }
        self.disk.truncated_from(self.log.base().index.next());
        self.log.restart_after(last);
        let id = effects.install(last.index, last.term.stamp());
        self.disk.wrote(id, last.index, now);
        self.decided = last.index;
        if let State::Follower(follower) = &mut self.state {
            // It spoke of entries that are gone. The leader asks again.
            follower.acknowledge = None;
        }
    }

    /// A peer that needed compacted entries has them now, or has not.
    pub(crate) fn on_snapshot_sent(&mut self, now: Instant, to: NodeId, outcome: SnapshotOutcome) {
        let (last, again_at) = (self.log.last_index(), now + self.config.election_timeout);
        let State::Leader(leader) = &mut self.state else { return };
        let Some(peer) = leader.peer(to) else { return };
        match outcome {
            SnapshotOutcome::Taken(index) => peer.resume_after(index.min(last)),
            SnapshotOutcome::Failed => peer.block(again_at),
        }
    }
}
