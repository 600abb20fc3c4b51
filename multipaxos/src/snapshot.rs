//! Compaction, and going on from a snapshot: all that one holds is chosen, whatever was voted for here.

use synod_core::{
    Entries, IndexRange, Instant, LogEvent, LogIndex, NodeId, SnapshotId, SnapshotMeta, SnapshotOutcome,
    Stamp,
};

use crate::message::SLOT_MAX;
use crate::multipaxos::{Effects, MultiPaxos, State};

impl MultiPaxos {
    /// A durable snapshot holds everything through `index` and more: the values there may go.
    pub(crate) fn compact_to(&mut self, index: LogIndex, effects: &mut Effects) {
        // A vote above the watermark stays: a promise has to tell it.
        let bound = index.min(self.decided);
        if bound > self.trimmed {
            self.counters.compactions += 1;
            self.trimmed = bound;
            effects.compact_to(bound);
        }
    }

    /// A snapshot is here and durable. Whatever it holds is chosen; what stands here in its slots need not be.
    pub(crate) fn on_snapshot_arrived(
        &mut self,
        now: Instant,
        id: SnapshotId,
        meta: &SnapshotMeta,
        effects: &mut Effects,
    ) {
        let index = meta.index;
        if meta.stamp != Stamp::CHOSEN || index > SLOT_MAX {
            self.counters.snapshots_refused += 1;
            effects.event(LogEvent::DiscardSnapshot(id));
            return;
        }
        if index <= self.decided {
            effects.event(LogEvent::DiscardSnapshot(id));
            return;
        }
        if self.took(id) {
            self.decide(index);
            effects.event(LogEvent::DiscardSnapshot(id));
        } else {
            self.install(now, index, effects);
        }
        self.follow_watermark(now);
        self.go_on_learning(now, effects);
    }

    /// True if this replica took the snapshot in an earlier life, and the log that it was taken of is here. It was
    /// decided through there then, and any vote cast since was for the same values, since they are chosen.
    fn took(&self, id: SnapshotId) -> bool {
        let range = IndexRange::new(self.decided.next(), id.index.next());
        id.taken_by == self.node && self.votes.is_dense(range)
    }

    /// Lets the snapshot stand for every slot through `index`. Votes above it stay: they may have chosen something.
    fn install(&mut self, now: Instant, index: LogIndex, effects: &mut Effects) {
        assert!(index > self.decided, "PX7: a snapshot never takes back what is decided");
        if let State::Leader(_) = self.state {
            // It may have proposed something else, in vain, and must not say that this was decided.
            self.become_follower(now, None, effects);
        }
        self.counters.installs += 1;
        self.vote_write = effects.install(index, Stamp::CHOSEN);
        self.disk.wrote(self.vote_write, now);
        self.trimmed = index;
        self.decide(index);
    }

    /// `to` needs values that are compacted: it is sent a snapshot. For a while after one did not arrive, it is better
    /// off with somebody else.
    pub(crate) fn offer_snapshot(
        &mut self,
        now: Instant,
        to: NodeId,
        first: LogIndex,
        effects: &mut Effects,
    ) {
        self.counters.out_of_reach += 1;
        if self.serving.is_put_off(now, to) {
            self.send_no_lesson(to, first, effects);
        } else {
            effects.event(LogEvent::SendSnapshot { to });
            self.send_lesson(to, first, Entries::empty(), effects);
        }
    }

    /// A peer that needed compacted values has them now, or has not.
    pub(crate) fn on_snapshot_sent(&mut self, now: Instant, to: NodeId, outcome: SnapshotOutcome) {
        let until = match outcome {
            SnapshotOutcome::Taken(_) => now,
            SnapshotOutcome::Failed => now + self.config.election_timeout,
        };
        self.serving.put_off(to, until);
    }
}
