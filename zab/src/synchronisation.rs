//! Phase 2, synchronisation: the leader's history, then NEWLEADER, acknowledged once all of it is durable; and
//! the follower's side of phase 3, which takes entries in the same way.

use synod_core::{Entries, IndexRange, Instant, LogIndex, NodeId};

use crate::codec::HardState;
use crate::counters::Rejection;
use crate::discovery::{Following, Joined};
use crate::message::{
    Ack, Commit, Epoch, Message, Missing, NewLeader, Place, Proposal, Received, Session, Zxid,
};
use crate::progress::Stage;
use crate::zab::{Effects, State, Zab};

// --- the leader ---

impl Zab {
    /// Begins to bring a follower that answered NEWEPOCH to this leader's history: from the end of its own if
    /// that is here (DIFF), from the last place that can be in both otherwise (TRUNC).
    pub(crate) fn synchronise(&mut self, follower: NodeId) {
        let target = self.log.last();
        let State::Leading(leading) = &mut self.state else { return };
        let Some(learner) = leading.learner(follower) else { return };
        let Stage::Answered { last, .. } = learner.stage else { return };
        learner.synchronise(self.log.last_not_above(last), target);
    }

    pub(crate) fn on_received(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Received,
    ) -> Result<(), Rejection> {
        let last = self.log.last_index();
        let Some((leading, at)) = self.session_with(now, from, message.session) else { return Ok(()) };
        if message.through > last || !leading.learners[at].takes_proposals() {
            return Err(Rejection::Unasked);
        }
        leading.learners[at].on_received(message.through, now);
        Ok(())
    }

    pub(crate) fn on_missing(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Missing,
    ) -> Result<(), Rejection> {
        let Missing { session, prev, hint } = message;
        // The histories can part only after a place that is in both: jump over the others.
        let (last, resume) = (self.log.last_index(), self.log.last_not_above(hint));
        // Only in its session: a later life of this leader may have lost what the follower was asked for.
        let Some((leading, at)) = self.session_with(now, from, session) else { return Ok(()) };
        let learner = &mut leading.learners[at];
        if prev > last || prev == LogIndex::ZERO || !hint.is_possible() || !learner.takes_proposals() {
            return Err(Rejection::Unasked);
        }
        let news = learner.on_missing(prev, resume);
        self.counters.gaps += u64::from(news);
        Ok(())
    }
}

// --- the follower ---

impl Following {
    /// The session that a leader's message belongs to; `None` if that is over or never was.
    fn joined_in(&mut self, now: Instant, from: NodeId, session: Session) -> Option<&mut Joined> {
        if self.vote.node != from || self.session() != Some(session) {
            return None;
        }
        self.heard_at = now;
        self.joined.as_mut()
    }
}

impl Zab {
    /// The session that a leader's message belongs to.
    pub(crate) fn joined(&mut self, now: Instant, from: NodeId, session: Session) -> Option<&mut Joined> {
        match &mut self.state {
            State::Following(following) => following.joined_in(now, from, session),
            State::Looking(_) | State::Leading(_) => None,
        }
    }

    pub(crate) fn on_proposal(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Proposal,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Proposal { session, prev, commit, entries } = message;
        let weight = check_entries(session.epoch, prev, &entries)?;
        let decided = self.decided;
        let Some(joined) = self.joined(now, from, session) else { return Ok(()) };
        let (matched, synchronised) = (joined.matched, joined.synchronised);
        if prev.index >= self.log.base().index && !self.log.holds(prev) {
            if prev.index <= decided {
                return Err(Rejection::Decided);
            }
            // A gap is never appended: it goes on where this history is the leader's, or may be.
            let limit = match matched.and_then(|index| Some(Place { zxid: self.log.zxid_at(index)?, index }))
            {
                Some(contiguous) => contiguous,
                None => prev,
            };
            let hint = self.log.last_not_above(limit);
            self.counters.gaps += 1;
            let missing = Missing { session, prev: prev.index, hint };
            self.send_with_promise(from, Message::Missing(missing), effects);
            return Ok(());
        }
        let proven = prev.index.advance(entries.len() as u64);
        self.accept(now, session.epoch, matched, entries, weight, effects)?;
        let Some(joined) = self.joined(now, from, session) else { return Ok(()) };
        joined.matched = joined.matched.max(Some(proven));
        joined.acknowledge = true;
        if synchronised {
            self.decided = self.decided.max(commit.min(proven));
        }
        Ok(())
    }

    /// Takes over the entries that are not here yet. What contradicts them is cut off, which a synchronised
    /// history never does; what is here already is not touched (a joiner gets some entries twice).
    fn accept(
        &mut self,
        now: Instant,
        epoch: Epoch,
        matched: Option<LogIndex>,
        entries: Entries,
        weight: usize,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let base = self.log.base();
        if entries.at(base.index).is_some_and(|entry| Zxid::of(entry.stamp) != base.zxid) {
            return Err(Rejection::Decided);
        }
        let mut fresh = first.index.max(base.index.next());
        let overlap = last.index.min(self.log.last_index());
        while fresh <= overlap
            && self.log.zxid_at(fresh) == entries.at(fresh).map(|entry| Zxid::of(entry.stamp))
        {
            fresh = fresh.next();
        }
        if fresh > last.index {
            return Ok(());
        }
        if fresh <= overlap {
            if fresh <= self.decided {
                return Err(Rejection::Decided);
            }
            // Neither a leader's history nor what it has said of it changes within its epoch.
            if self.hard_state.current == epoch || Some(fresh) <= matched {
                return Err(Rejection::Entries);
            }
            self.cut_off(fresh, effects);
        }
        let (entries, weight) = if fresh == first.index {
            (entries, weight)
        } else {
            let rest = entries.slice(IndexRange::new(fresh, entries.range().to));
            let weight = rest.weight();
            (rest, weight)
        };
        self.log.append(entries.clone(), weight);
        let unit = effects.put(entries);
        self.disk.wrote(unit, self.log.last_index(), now);
        Ok(())
    }

    fn cut_off(&mut self, from: LogIndex, effects: &mut Effects) {
        assert!(from > self.decided, "ZI3: a decided entry is never removed");
        assert!(matches!(self.state, State::Following(_)), "a leader only appends");
        self.counters.truncations += 1;
        self.log.truncate_from(from);
        self.disk.truncated_from(from);
        effects.truncate_from(from);
    }

    pub(crate) fn on_new_leader(
        &mut self,
        now: Instant,
        from: NodeId,
        message: NewLeader,
    ) -> Result<(), Rejection> {
        let NewLeader { session, last } = message;
        if !last.is_possible() || last.zxid.epoch > session.epoch {
            return Err(Rejection::Place);
        }
        let Some(joined) = self.joined(now, from, session) else { return Ok(()) };
        if joined.synchronised {
            // The acknowledgement was lost.
            joined.acknowledge = true;
        } else {
            joined.new_leader = Some(last);
        }
        Ok(())
    }

    /// NEWLEADER takes effect once the whole history that it names is here: what stands beyond from before is
    /// cut off, and the epoch becomes the current one, both in the unit that holds the last of the entries or
    /// a later one. So no crash leaves a current epoch with less than its history.
    fn take_over(&mut self, now: Instant, effects: &mut Effects) -> Result<(), Rejection> {
        let (decided, last_index) = (self.decided, self.log.last_index());
        let State::Following(Following { joined: Some(joined), .. }) = &mut self.state else { return Ok(()) };
        let (Some(matched), Some(last)) = (joined.matched, joined.new_leader) else { return Ok(()) };
        if joined.synchronised || matched < last.index {
            return Ok(());
        }
        joined.new_leader = None;
        let epoch = joined.epoch;
        let compacted = last.index < self.log.base().index;
        if !(compacted || self.log.holds(last)) || matched < decided {
            return Err(Rejection::Place);
        }
        joined.synchronised = true;
        joined.acknowledge = true;
        if self.hard_state.current < epoch {
            if last_index > matched {
                self.cut_off(matched.next(), effects);
            }
            self.write_hard_state(now, HardState { current: epoch, ..self.hard_state }, effects);
        }
        Ok(())
    }

    /// Acknowledges everything that the batch brought, in one message.
    pub(crate) fn flush_follower(&mut self, now: Instant, effects: &mut Effects) {
        if let Err(why) = self.take_over(now, effects) {
            self.counters.reject(why);
        }
        let State::Following(following) = &mut self.state else { return };
        let (leader, session) = (following.vote.node, following.session());
        let (Some(joined), Some(session)) = (&mut following.joined, session) else { return };
        let Some(through) = joined.matched.filter(|_| joined.acknowledge) else { return };
        joined.acknowledge = false;
        // An acknowledgement of entries implies that of NEWLEADER: it cannot come before it.
        let message = if joined.synchronised {
            Message::Ack(Ack { session, through })
        } else {
            Message::Received(Received { session, through })
        };
        let epochs = self.promise_write.max(self.current_write);
        if through <= self.disk.durable() {
            self.send_with(epochs, leader, message, effects);
        } else {
            effects.send_after_write(leader, message);
        }
    }

    pub(crate) fn on_commit(&mut self, now: Instant, from: NodeId, message: Commit) -> Result<(), Rejection> {
        self.learn_decided(now, from, message.session, true, message.through)
    }

    /// The leader knows that everything through `through` is decided and, durably, here.
    pub(crate) fn learn_decided(
        &mut self,
        now: Instant,
        from: NodeId,
        session: Session,
        established: bool,
        through: LogIndex,
    ) -> Result<(), Rejection> {
        let Some(joined) = self.joined(now, from, session) else { return Ok(()) };
        if !joined.synchronised || !established {
            return Ok(());
        }
        if Some(through) > joined.matched {
            return Err(Rejection::Commit);
        }
        self.decided = self.decided.max(through);
        if let State::Following(following) = &mut self.state {
            following.established = true;
        }
        Ok(())
    }
}

/// The weight of entries that the leader of `epoch` can have after `prev`.
fn check_entries(epoch: Epoch, prev: Place, entries: &Entries) -> Result<usize, Rejection> {
    let follows = entries.first().is_none_or(|first| {
        first.index.0.checked_sub(1) == Some(prev.index.0) && first.stamp.high > Epoch::ZERO.0
    });
    let ends = prev.index.0.checked_add(entries.len() as u64 + 1).is_some();
    if !prev.is_possible() || !follows || !ends {
        return Err(Rejection::Entries);
    }
    // Nearly every entry is the next one of its epoch. A counter is never above its index, so none comes to its end.
    let mut next = prev.zxid.advance(1);
    let mut weight = 0;
    for entry in entries.iter() {
        let zxid = Zxid::of(entry.stamp);
        let before = Zxid { counter: next.counter.wrapping_sub(1), ..next };
        let wrong = zxid != next && !zxid.follows(before);
        if wrong || !entry.kind.is_decidable() || entry.reign.number != zxid.epoch.0 {
            return Err(Rejection::Entries);
        }
        next = Zxid { counter: zxid.counter.wrapping_add(1), ..zxid };
        weight += entry.weight();
    }
    if next.epoch > epoch { Err(Rejection::Entries) } else { Ok(weight) }
}
