//! Compaction, and SNAP: going on from a snapshot where the leader's log no longer reaches back (phase 2).
//!
//! The host carries snapshots; here is decided what one replaces. Two facts carry all of it. A follower takes a session
//! only of an epoch at or above the one in which a snapshot was decided that it can have been sent, and whoever leads an
//! epoch has everything that was decided in earlier ones: so a snapshot never contradicts the leader that is followed.
//! And a history with a later zxid holds every decided entry of an earlier one: so a snapshot that is not in a history
//! ends beyond it.

use synod_core::{Instant, LogEvent, LogIndex, NodeId, SnapshotId, SnapshotMeta, SnapshotOutcome};

use crate::broadcast::Phase;
use crate::codec::HardState;
use crate::message::{Place, Zxid};
use crate::zab::{Effects, State, Zab};

impl Zab {
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

    /// A snapshot is here and durable. Whatever it holds is decided; the question is whether this history has it.
    pub(crate) fn on_snapshot_arrived(
        &mut self,
        now: Instant,
        id: SnapshotId,
        meta: &SnapshotMeta,
        effects: &mut Effects,
    ) {
        let last = Place { zxid: Zxid::of(meta.stamp), index: meta.index };
        if last.index <= self.decided {
            effects.event(LogEvent::DiscardSnapshot(id));
        } else if last.is_possible() && self.log.holds(last) {
            // What follows it stays.
            self.decided = last.index;
            self.count_as_matched(last.index);
            effects.event(LogEvent::DiscardSnapshot(id));
        } else if self.may_go_on_from(last) {
            self.install(now, last, effects);
        } else {
            self.counters.snapshots_refused += 1;
            effects.event(LogEvent::DiscardSnapshot(id));
        }
    }

    /// True if a correct peer can have sent a snapshot that ends with this entry, which is not in this history.
    fn may_go_on_from(&self, last: Place) -> bool {
        let (accepted, epoch) = (self.hard_state.accepted, last.zxid.epoch);
        let fits = match &self.state {
            // Only who starts from a snapshot that was put there, of a cluster that it was no member of, promised less.
            State::Looking(_) => accepted.may_be_followed_by(epoch),
            State::Following(_) => epoch <= accepted,
            // A leader has everything that was decided before its epoch, and decides in its epoch itself.
            State::Leading(leading) => epoch <= accepted && leading.phase < Phase::Synchronisation,
        };
        last.is_possible() && fits && last.zxid > self.log.last().zxid
    }

    /// Lets the snapshot stand for the whole history. What stands here beyond it contradicts it.
    ///
    /// The current epoch stays: it is taken over with NEWLEADER, in the last write of a synchronisation as ever.
    fn install(&mut self, now: Instant, last: Place, effects: &mut Effects) {
        assert!(last.index > self.decided, "ZI3: a snapshot never takes back what is decided");
        self.counters.installs += 1;
        if last.index < self.log.last_index() {
            effects.truncate_from(last.index.next());
        }
        self.disk.truncated_from(self.log.base().index.next());
        self.log.restart_after(last);
        let unit = effects.install(last.index, last.zxid.stamp());
        self.disk.wrote(unit, last.index, now);
        self.decided = last.index;
        if last.zxid.epoch > self.hard_state.accepted {
            let next = HardState { accepted: last.zxid.epoch, promised_to: None, ..self.hard_state };
            self.write_hard_state(now, next, effects);
        }
        match &self.state {
            State::Following(_) => self.count_as_matched(last.index),
            // It voted, or was voted for, with less than it has now.
            State::Looking(_) | State::Leading(_) => self.become_looking(now, effects),
        }
    }

    /// What a snapshot holds is in the history of the leader that is followed.
    fn count_as_matched(&mut self, through: LogIndex) {
        if let State::Following(following) = &mut self.state
            && let Some(joined) = &mut following.joined
        {
            joined.matched = joined.matched.max(Some(through));
        }
    }

    /// A follower that needed compacted entries has them now, or has not.
    pub(crate) fn on_snapshot_sent(&mut self, now: Instant, to: NodeId, outcome: SnapshotOutcome) {
        let (last, again_at) = (self.log.last_index(), now + self.config.election_timeout);
        let State::Leading(leading) = &mut self.state else { return };
        let Some(learner) = leading.learner(to) else { return };
        match outcome {
            SnapshotOutcome::Taken(index) => learner.resume_after(index.min(last)),
            SnapshotOutcome::Failed => learner.block(again_at),
        }
    }
}
