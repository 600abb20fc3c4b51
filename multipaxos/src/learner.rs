//! The learner: a replica that is behind asks whoever knows more.

use synod_core::{Entries, Entry, IndexRange, Instant, LogIndex, NodeId, Stamp};

use crate::acceptor::{What, is_vote};
use crate::counters::Rejection;
use crate::message::{Chosen, Learn, Message, SLOT_MAX};
use crate::multipaxos::{Effects, MultiPaxos, State, checked_slot};

/// What others know and this replica does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learning {
    gap: Option<Gap>,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    /// Somebody has every value through here.
    known: LogIndex,
    /// Who is asked next.
    source: NodeId,
    /// When it is asked.
    due: Instant,
    asking: Asking,
}

/// How far asking the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    /// It was not asked yet.
    Ahead,
    /// It was, and the next one to ask is somebody else.
    Asked,
    /// It sends a snapshot, and is asked again if that takes long: it may be gone.
    Snapshot,
}

impl Learning {
    pub(crate) fn due(&self) -> Option<Instant> {
        self.gap.map(|gap| gap.due)
    }

    /// True if somebody sends a snapshot, without which nothing more can be learned.
    pub(crate) fn awaits_snapshot(&self) -> bool {
        self.gap.is_some_and(|gap| gap.asking == Asking::Snapshot)
    }

    /// Everything through `decided` is known here.
    pub(crate) fn learned(&mut self, decided: LogIndex) {
        self.gap = self.gap.filter(|gap| gap.known > decided);
    }
}

impl MultiPaxos {
    /// `node` has every decided value through `known`.
    pub(crate) fn note_known(&mut self, now: Instant, node: NodeId, known: LogIndex) {
        if known <= self.decided {
            return;
        }
        match &mut self.learning.gap {
            Some(gap) => gap.known = gap.known.max(known),
            None => {
                let due = now + self.config.learn_delay;
                self.learning.gap = Some(Gap { known, source: node, due, asking: Asking::Ahead });
            }
        }
    }

    /// `node` has what is needed next: it is asked at once, unless somebody is being asked.
    pub(crate) fn learn_now(&mut self, now: Instant, node: NodeId, known: LogIndex, effects: &mut Effects) {
        self.note_known(now, node, known);
        if let Some(gap) = &mut self.learning.gap
            && gap.asking == Asking::Ahead
        {
            (gap.source, gap.due) = (node, now);
            self.on_learning_tick(now, effects);
        }
    }

    pub(crate) fn on_learning_tick(&mut self, now: Instant, effects: &mut Effects) {
        let retry = 2 * self.config.heartbeat_interval;
        let me = self.node;
        let Some(gap) = self.learning.gap.as_mut().filter(|gap| now >= gap.due) else { return };
        if gap.asking == Asking::Asked {
            // It did not answer: ask the next one.
            let mut peers = self.membership.peers_of(me);
            let after = self.membership.peers_of(me).find(|peer| *peer > gap.source);
            gap.source = after.or_else(|| peers.next()).unwrap_or(gap.source);
        }
        gap.asking = Asking::Asked;
        gap.due = now + retry;
        self.counters.learns += 1;
        effects.send(gap.source, Message::Learn(Learn { from: self.decided.next() }));
    }

    pub(crate) fn on_learn(
        &mut self,
        now: Instant,
        from: NodeId,
        learn: Learn,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let first = checked_slot(learn.from)?;
        if first == LogIndex::ZERO {
            return Err(Rejection::Position);
        }
        if first <= self.trimmed {
            self.offer_snapshot(now, from, first, effects);
            return Ok(());
        }
        if first > self.decided {
            self.send_lesson(from, first, Entries::empty(), effects);
            return Ok(());
        }
        let range = IndexRange::new(first, self.decided.next());
        let load = effects.load(range, self.config.accept_bytes_max);
        self.serving.begin(load, from, What::Lesson { from: first });
        Ok(())
    }

    pub(crate) fn on_chosen(
        &mut self,
        now: Instant,
        from: NodeId,
        chosen: Chosen,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Chosen { from: first, decided, trimmed, ref entries } = chosen;
        let fast = self.fast.is_some();
        let wrong = |entry: &Entry| !is_vote(entry.stamp, entry.kind, fast);
        if checked_slot(first)? == LogIndex::ZERO || checked_slot(decided)? < trimmed {
            return Err(Rejection::Position);
        }
        if !entries.is_empty() && (entries.first_index() != first || entries.range().to > SLOT_MAX) {
            return Err(Rejection::Position);
        }
        if entries.iter().any(wrong) || entries.last_index() > decided {
            return Err(Rejection::Entries);
        }
        if entries.is_empty() {
            self.on_no_lesson(now, from, &chosen, effects);
            return Ok(());
        }
        let news = entries.slice(IndexRange::new(self.decided.next(), entries.range().to));
        if news.is_empty() || news.first_index() != self.decided.next() {
            return Ok(());
        }
        if let State::Leader(_) = self.state {
            self.leader_learns(now, news, effects);
        } else {
            self.take_over(now, news, effects);
        }
        self.follow_watermark(now);
        self.note_known(now, from, decided);
        // There is more where this came from.
        if let Some(gap) = &mut self.learning.gap {
            gap.source = from;
        }
        self.go_on_learning(now, effects);
        Ok(())
    }

    /// More is known here than before: asks for what is still missing, and a candidate may have waited for it.
    pub(crate) fn go_on_learning(&mut self, now: Instant, effects: &mut Effects) {
        if let Some(gap) = &mut self.learning.gap {
            (gap.due, gap.asking) = (now, Asking::Ahead);
        }
        self.on_learning_tick(now, effects);
        if let State::Candidate(_) = self.state {
            self.extend_campaign(now);
            self.try_lead(now, effects);
        }
    }

    /// Chosen values are stored as such: a learner has cast no vote for them.
    pub(crate) fn take_over(&mut self, now: Instant, news: Entries, effects: &mut Effects) {
        assert_eq!(news.first_index(), self.decided.next(), "PX7: values are learned without a gap");
        let last = news.last_index();
        self.counters.learned += news.len() as u64;
        let entries = Entries::numbered(news.first_index(), news.to_vec(), |_, entry| Entry {
            stamp: Stamp::CHOSEN,
            ..entry
        });
        self.votes.put(entries.range(), Stamp::CHOSEN);
        if let Some(fast) = &mut self.fast {
            fast.taken_over(&entries);
        }
        self.vote_write = effects.put(entries);
        self.disk.wrote(self.vote_write, now);
        self.decide(last);
    }

    /// The one that was asked has nothing: somebody else is asked next. If it was the one that is said to know,
    /// nobody does. Or it sends a snapshot: that takes a while, and nobody else is to send one as well.
    fn on_no_lesson(&mut self, now: Instant, from: NodeId, chosen: &Chosen, effects: &mut Effects) {
        let first = chosen.from;
        if first != self.decided.next() {
            return;
        }
        let asked = |gap: &&mut Gap| gap.asking == Asking::Asked && gap.source == from;
        let Some(gap) = self.learning.gap.as_mut().filter(asked) else { return };
        if chosen.trimmed >= first {
            (gap.due, gap.asking) = (now + self.config.election_timeout, Asking::Snapshot);
            if let State::Candidate(_) = self.state {
                // Whoever has what is missing may lead meanwhile.
                self.become_follower(now, None, effects);
            }
        } else if chosen.decided < first {
            gap.due = gap.due.min(now + self.config.learn_delay.max(self.config.heartbeat_interval));
        }
    }
}
