//! Fast Paxos: what a replica of it has beside a Multi-Paxos replica, and where both meet.
//!
//! A leader that has completed phase 1 and proposed again what earlier ballots may have chosen opens the *fast rounds* of
//! its ballot for every slot from there on ([`crate::Any`]). Then any replica proposes to the acceptors itself
//! ([`crate::Suggest`]), in the slot that it believes free; an acceptor votes for the first value it hears of in a
//! slot and tells every learner ([`crate::Voted`]): two message delays. Where proposers collide, or votes are lost,
//! the leader has the slot decided in the *classic round* of its ballot ([`crate::Resolve`]).

mod acceptor;
mod config;
mod coordinator;
mod machine;
pub(crate) mod pick;
mod proposer;
mod tally;

use synod_core::{Entries, Entry, Instant, LogIndex};

use crate::ballot::Ballot;
use crate::counters::Rejection;
use crate::message::SLOT_MAX;
use crate::multipaxos::{Effects, MultiPaxos, State};
use synod_core::{Loaded, NodeId};

use acceptor::Voting;
use coordinator::Coordinator;
use proposer::Proposer;
use tally::Tally;

pub(crate) use config::Tuning;
pub use config::{FastPaxosConfig, Recovery};
pub use machine::FastPaxos;

/// What only a replica of Fast Paxos has.
#[derive(Clone, Debug)]
pub(crate) struct Fast {
    pub(crate) tuning: Tuning,
    /// The last opening of fast rounds that was heard of. It says nothing once another ballot is followed.
    pub(crate) any: Option<Open>,
    /// The last slot that anybody is known to use in the fast rounds that are open.
    horizon: LogIndex,
    /// What was decided through here was seen to.
    passed: LogIndex,
    proposer: Proposer,
    voting: Voting,
    tally: Tally,
    /// True if more may be chosen than was looked at.
    progressed: bool,
    coordinator: Coordinator,
}

/// Fast rounds that are open to every proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) ballot: Ballot,
    /// The first slot.
    pub(crate) from: LogIndex,
}

impl Fast {
    pub(crate) fn new(tuning: Tuning, decided: LogIndex, now: Instant) -> Fast {
        Fast {
            tuning,
            any: None,
            horizon: decided,
            passed: decided,
            proposer: Proposer::default(),
            voting: Voting::new(decided),
            tally: Tally::default(),
            progressed: false,
            coordinator: Coordinator::new(now),
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        Instant::earlier(self.proposer.resend_at(), self.coordinator.sweep_at())
    }

    /// A value is known to be chosen, and stands in the log as such.
    pub(crate) fn taken_over(&mut self, entries: &Entries) {
        for entry in entries.iter() {
            let slot = self.tally.slot_mut(entry.index);
            (slot.held, slot.chosen) = (Some(entry.clone()), Some(entry.clone()));
        }
    }

    /// What this replica, as coordinator, proposed in the classic round of a slot.
    pub(crate) fn resolved(&self, slot: LogIndex) -> Option<&Entry> {
        self.tally.slot(slot).and_then(|slot| slot.resolved.as_ref())
    }
}

impl MultiPaxos {
    /// The fast rounds that are open, as far as this replica knows: those of the leader that it follows, or its own.
    pub(crate) fn open_rounds(&self) -> Option<Open> {
        let any = self.fast.as_ref()?.any?;
        let ballot = match &self.state {
            State::Follower(Some(leader)) => leader.ballot,
            State::Leader(leader) => leader.ballot,
            _ => return None,
        };
        Some(any).filter(|any| any.ballot == ballot)
    }

    /// What a replica of Fast Paxos does once for a batch of steps.
    pub(crate) fn flush_fast(&mut self, now: Instant, effects: &mut Effects) {
        if self.fast.is_none() {
            return;
        }
        self.try_open(now, effects);
        self.close_opening();
        self.follow_opening();
        self.load_own_votes(effects);
        self.pass_what_is_chosen(now, effects);
        self.suggest_queued(now, effects);
        self.resolve_collisions(now, effects);
        self.tell_votes(effects);
        self.answer_covered_reads(effects);
        self.fall_back_if_slow(now, effects);
        self.arm_sweep(now);
    }

    pub(crate) fn on_fast_tick(&mut self, now: Instant, effects: &mut Effects) {
        if self.fast.is_some() {
            self.follow_opening();
            self.on_resend_due(now, effects);
            self.on_sweep_due(now, effects);
        }
    }

    /// Proposes in the fast rounds that are open now. What was proposed under another opening is not pursued: the host
    /// proposes it again, because route or reign have changed.
    pub(crate) fn follow_opening(&mut self) {
        let Some(open) = self.open_rounds() else { return };
        let decided = self.decided;
        let Some(fast) = &mut self.fast else { return };
        if fast.proposer.open() == Some(open) {
            return;
        }
        fast.proposer = Proposer::under(Some(open));
        fast.horizon = decided.max(open.from.prev());
        fast.tally.enter_at_least(open.ballot);
    }

    /// Ends what this replica proposes once it knows of no open rounds at the end of a batch: that is when its host is
    /// told.
    fn close_opening(&mut self) {
        let closed = self.open_rounds().is_none();
        if let Some(fast) = &mut self.fast
            && closed
            && fast.proposer.open().is_some()
        {
            fast.proposer = Proposer::default();
        }
    }

    /// Moves the watermark over what the votes say is chosen. The log must hold it: where this replica has voted for
    /// something else, or not at all, the value is stored as chosen.
    fn pass_what_is_chosen(&mut self, now: Instant, effects: &mut Effects) {
        if !self.fast.as_mut().is_some_and(|fast| std::mem::take(&mut fast.progressed)) {
            return;
        }
        loop {
            let slot = self.decided.next();
            let stamp = self.votes.stamp_at(slot);
            let Some(tally) = self.fast.as_ref().and_then(|fast| fast.tally.slot(slot)) else { break };
            let Some(chosen) = tally.chosen.clone() else { break };
            let stands = tally.holds_chosen(stamp);
            if self.contradicts(&chosen) {
                self.become_follower(now, None, effects);
            }
            if stands {
                self.decide(slot);
            } else {
                let news = Entries::new(vec![chosen]).expect("one entry");
                self.take_over(now, news, effects);
            }
        }
        // A candidate may have waited for just these values.
        if let State::Candidate(_) = self.state {
            self.try_lead(now, effects);
        }
    }

    /// True if a chosen value tells this leader that there is a later one: where it orders alone, it has not proposed that
    /// value; in its fast rounds, it has proposed another one in the classic round that follows.
    pub(crate) fn contradicts(&self, chosen: &Entry) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        if self.open_rounds().is_none_or(|open| chosen.index < open.from) {
            return !leader.proposed(chosen.index).is_some_and(|own| own.same_value(chosen));
        }
        let resolved = self.fast.as_ref().and_then(|fast| fast.resolved(chosen.index));
        resolved.is_some_and(|own| !own.same_value(chosen))
    }

    /// Everything through the watermark is decided: what was proposed there has won or lost its slot.
    pub(crate) fn fast_passed(&mut self) {
        let decided = self.decided;
        let open = self.open_rounds();
        let leads = matches!(self.state, State::Leader(_));
        let Some(fast) = &mut self.fast else { return };
        if decided <= fast.passed {
            return;
        }
        fast.passed = decided;
        // The slot that comes next may have been chosen long ago.
        fast.progressed = true;
        fast.horizon = fast.horizon.max(decided);
        let slots = fast.tally.settle(decided);
        if leads && let Some(open) = open {
            for tally in slots.range(open.from..).map(|(_, tally)| tally) {
                let slow = tally.resolved.is_some();
                fast.coordinator.count(slow);
                self.counters.slow_path += u64::from(slow);
                self.counters.fast_path += u64::from(!slow);
            }
        }
        for (slot, own) in fast.proposer.settle(decided) {
            let value = slots.get(&slot).and_then(|tally| tally.chosen.as_ref().or(tally.held.as_ref()));
            if value.is_none_or(|value| !value.same_value(&own)) {
                self.counters.lost_slots += 1;
                fast.proposer.again(own);
            }
        }
    }
}

/// Checks that values can be what was proposed or voted for in a ballot: in `rounds` of it, with reigns that end with
/// its own.
fn check_values(ballot: Ballot, values: &Loaded, round: impl Fn(&Entry) -> bool) -> Result<(), Rejection> {
    if values.to > SLOT_MAX || values.segments.iter().any(|segment| segment.first_index() == LogIndex::ZERO) {
        return Err(Rejection::Position);
    }
    let mut next = LogIndex::ZERO;
    for segment in &values.segments {
        if segment.is_empty() || segment.first_index() < next || segment.range().to > values.to {
            return Err(Rejection::Position);
        }
        next = segment.range().to;
        let wrong = |entry: &Entry| {
            let chosen = entry.stamp == synod_core::Stamp::CHOSEN;
            !entry.kind.is_decidable() || !round(entry) || (!chosen && entry.reign > ballot.reign())
        };
        if segment.iter().any(wrong) {
            return Err(Rejection::Entries);
        }
    }
    Ok(())
}

/// Values in ascending order, in as many parts as the bounds of a message ask for.
fn parts(values: impl IntoIterator<Item = Entry>, entries_max: usize, bytes_max: usize) -> Vec<Loaded> {
    let mut parts: Vec<Vec<Entry>> = Vec::new();
    let mut weight = 0;
    for entry in values {
        match parts.last_mut() {
            Some(part) if part.len() < entries_max && weight + entry.weight() <= bytes_max => {
                weight += entry.weight();
                part.push(entry);
            }
            _ => {
                weight = entry.weight();
                parts.push(vec![entry]);
            }
        }
    }
    parts.into_iter().map(segmented).collect()
}

/// Entries in ascending order, as consecutive segments.
fn segmented(entries: Vec<Entry>) -> Loaded {
    let mut segments: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        match segments.last_mut() {
            Some(segment) if segment[segment.len() - 1].index.next() == entry.index => segment.push(entry),
            _ => segments.push(vec![entry]),
        }
    }
    let to = segments.last().and_then(|segment| segment.last()).map_or(LogIndex(1), |last| last.index.next());
    let segments = segments.into_iter().map(|segment| Entries::new(segment).expect("consecutive")).collect();
    Loaded { segments, to }
}

impl MultiPaxos {
    /// Sends values to a peer, in as many messages as it takes.
    fn send_values(
        &self,
        to: NodeId,
        values: impl IntoIterator<Item = Entry>,
        message: impl Fn(Loaded) -> crate::Message,
        effects: &mut Effects,
    ) {
        for part in parts(values, self.config.accept_entries_max, self.config.accept_bytes_max) {
            effects.send(to, message(part));
        }
    }
}
