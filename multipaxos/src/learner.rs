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
    /// True if it was asked before, so that the next one to ask is somebody else.
    asked: bool,
}

impl Learning {
    pub(crate) fn due(&self) -> Option<Instant> {
        self.gap.map(|gap| gap.due)
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
                self.learning.gap = Some(Gap { known, source: node, due, asked: false });
            }
        }
    }

    /// `node` has what is needed next: it is asked at once, unless somebody is being asked.
    pub(crate) fn learn_now(&mut self, now: Instant, node: NodeId, known: LogIndex, effects: &mut Effects) {
        self.note_known(now, node, known);
        if let Some(gap) = &mut self.learning.gap
            && !gap.asked
        {
            (gap.source, gap.due) = (node, now);
            self.on_learning_tick(now, effects);
        }
    }

    pub(crate) fn on_learning_tick(&mut self, now: Instant, effects: &mut Effects) {
        let retry = 2 * self.config.heartbeat_interval;
        let me = self.node;
        let Some(gap) = self.learning.gap.as_mut().filter(|gap| now >= gap.due) else { return };
        if gap.asked {
            // It did not answer: ask the next one.
            let mut peers = self.membership.peers_of(me);
            let after = self.membership.peers_of(me).find(|peer| *peer > gap.source);
            gap.source = after.or_else(|| peers.next()).unwrap_or(gap.source);
        }
        gap.asked = true;
        gap.due = now + retry;
        self.counters.learns += 1;
        effects.send(gap.source, Message::Learn(Learn { from: self.decided.next() }));
    }

    pub(crate) fn on_learn(
        &mut self,
        from: NodeId,
        learn: Learn,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let first = checked_slot(learn.from)?;
        if first == LogIndex::ZERO {
            return Err(Rejection::Position);
        }
        if first > self.decided || first <= self.trimmed {
            self.counters.out_of_reach += u64::from(first <= self.trimmed);
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
        let Chosen { from: first, decided, trimmed, entries } = chosen;
        let wrong = |entry: &Entry| !is_vote(entry.stamp, entry.kind);
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
            self.on_no_lesson(now, from, first, decided);
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
            (gap.source, gap.due, gap.asked) = (from, now, false);
        }
        self.on_learning_tick(now, effects);
        if let State::Candidate(_) = self.state {
            self.extend_campaign(now);
            self.try_lead(now, effects);
        }
        Ok(())
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
        self.vote_write = effects.put(entries);
        self.disk.wrote(self.vote_write, now);
        self.decide(last);
    }

    /// The one that was asked has nothing: somebody else is asked next. If it was the one that is said to know,
    /// nobody does.
    fn on_no_lesson(&mut self, now: Instant, from: NodeId, first: LogIndex, decided: LogIndex) {
        if first != self.decided.next() {
            return;
        }
        if let Some(gap) = self.learning.gap.as_mut().filter(|gap| gap.asked && gap.source == from)
            && decided < first
        {
            gap.due = gap.due.min(now + self.config.learn_delay.max(self.config.heartbeat_interval));
        }
    }
}
