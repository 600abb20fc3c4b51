//! The acceptor in fast rounds: votes for the first value it hears of, and tells every learner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use synod_core::{Compacted, Entries, Entry, Instant, LoadId, Loaded, LogIndex, NodeId, Stamp, WriteId};

use crate::acceptor::{Heard, RUNS_MAX};
use crate::ballot::{Ballot, VoteRound};
use crate::config::AHEAD_ENTRIES_MAX;
use crate::counters::Rejection;
use crate::fast::{Open, check_values, parts, tally};
use crate::message::{Any, Message, Resolve, Standing, Suggest, Voted};
use crate::multipaxos::{Effects, MultiPaxos, State, checked_slot};

/// Votes that are to be told, and votes that are not durable.
#[derive(Clone, Debug)]
pub(crate) struct Voting {
    /// The ballot of `fresh`.
    ballot: Ballot,
    /// Cast since the last flush.
    fresh: BTreeMap<LogIndex, Entry>,
    /// Votes that were asked for again. Nothing is asked of a slot that is decided: the watermark is the answer.
    asked: BTreeMap<NodeId, BTreeSet<LogIndex>>,
    /// This replica's own votes on their way to its disk.
    in_flight: VecDeque<(WriteId, Entries)>,
    /// Votes of an earlier life, from here on, are to be read: they may be asked for again.
    unread: Option<LogIndex>,
    load: Option<LoadId>,
}

impl Voting {
    pub(crate) fn new(decided: LogIndex) -> Voting {
        Voting {
            ballot: Ballot::ZERO,
            fresh: BTreeMap::new(),
            asked: BTreeMap::new(),
            in_flight: VecDeque::new(),
            unread: Some(decided.next()),
            load: None,
        }
    }
}

impl MultiPaxos {
    /// Fast rounds are open: every slot from `from` on takes the first value that comes. (Phase 2a.)
    pub(crate) fn on_any(
        &mut self,
        now: Instant,
        from: NodeId,
        any: Any,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Any { ballot, first, commit, round, from: open_from } = any;
        if self.fast.is_none() {
            return Err(Rejection::Unasked);
        }
        if checked_slot(open_from)? < first {
            return Err(Rejection::Position);
        }
        if !self.hear_leader(now, from, Heard { ballot, first, commit }, effects)? {
            return Ok(());
        }
        let open = Open { ballot, from: open_from };
        let Some(fast) = &mut self.fast else { return Err(Rejection::Unasked) };
        if fast.any.is_some_and(|known| known.ballot == ballot && known != open) {
            return Err(Rejection::Position);
        }
        fast.any = Some(open);
        let last = self.last_vote_in(ballot);
        let standing = Standing { ballot, round, decided: self.decided, last };
        effects.send(from, Message::Standing(standing));
        self.follow_watermark(now);
        Ok(())
    }

    /// The last slot that this replica has voted in in this ballot, or that is decided.
    pub(crate) fn last_vote_in(&self, ballot: Ballot) -> LogIndex {
        let in_ballot = |stamp| VoteRound::of_stamp(stamp).is_some_and(|round| round.ballot == ballot);
        self.votes.last_where(in_ballot).unwrap_or(self.decided).max(self.decided)
    }

    pub(crate) fn on_suggest(
        &mut self,
        now: Instant,
        from: NodeId,
        suggest: Suggest,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Suggest { ballot, values } = suggest;
        if self.fast.is_none() {
            return Err(Rejection::Unasked);
        }
        let stamp = ballot.fast_stamp();
        check_values(ballot, &values, |entry| entry.stamp == stamp && entry.reign == ballot.reign())?;
        // Who has not heard that the round is open must not vote in it. The proposer will ask again.
        let Some(open) = self.open_rounds().filter(|open| open.ballot == ballot) else {
            self.counters.not_open += 1;
            return Ok(());
        };
        if values.segments.first().is_some_and(|segment| segment.first_index() < open.from) {
            return Err(Rejection::Position);
        }
        self.follow_opening();
        self.vote_fast(now, from, open, &values, effects);
        Ok(())
    }

    /// Votes where this replica has not voted in this ballot. One vote for each round: whatever else is suggested
    /// later is answered with that.
    pub(crate) fn vote_fast(
        &mut self,
        now: Instant,
        from: NodeId,
        open: Open,
        values: &Loaded,
        effects: &mut Effects,
    ) {
        let free = |round: VoteRound| round.ballot < open.ballot;
        self.vote_where(now, from, (open.ballot, open.ballot.fast_stamp()), values, free, effects);
    }

    /// Votes where the last vote of this replica, if any, is in a round that `may` be followed.
    fn vote_where(
        &mut self,
        now: Instant,
        from: NodeId,
        (ballot, stamp): (Ballot, Stamp),
        values: &Loaded,
        may: impl Fn(VoteRound) -> bool,
        effects: &mut Effects,
    ) {
        if !self.is_voter() {
            return;
        }
        let highest = self.decided.advance(self.config.ahead_entries_max as u64);
        let mut cast = Vec::new();
        for entry in values.segments.iter().flat_map(|segment| segment.iter()) {
            let slot = entry.index;
            let Some(fast) = &mut self.fast else { return };
            if slot <= self.decided {
                fast.voting.asked.entry(from).or_default();
                continue;
            }
            let last = self.votes.last().unwrap_or(self.decided);
            if slot > highest || (slot > last.next() && self.votes.runs() >= RUNS_MAX) {
                self.counters.too_far_ahead += 1;
                continue;
            }
            fast.horizon = fast.horizon.max(slot);
            if self.votes.stamp_at(slot).and_then(VoteRound::of_stamp).is_none_or(&may) {
                cast.push(entry.clone());
            } else {
                self.counters.repeated += 1;
                fast.voting.asked.entry(from).or_default().insert(slot);
            }
        }
        for segment in parts(cast, usize::MAX, usize::MAX).into_iter().flat_map(|part| part.segments) {
            self.cast_and_tell(now, ballot, stamp, segment, effects);
        }
    }

    fn cast_and_tell(
        &mut self,
        now: Instant,
        ballot: Ballot,
        stamp: Stamp,
        entries: Entries,
        effects: &mut Effects,
    ) {
        match self.promised.accept(ballot) {
            Ok(true) => self.promise_raised(now, effects),
            Ok(false) => {}
            Err(_) => unreachable!("M3: a leader of a lower ballot than the promise is not followed"),
        }
        self.cast(now, ballot, stamp, entries.clone(), effects);
        let unit = self.vote_write;
        let Some(fast) = &mut self.fast else { return };
        if fast.voting.ballot != ballot {
            fast.voting.ballot = ballot;
            fast.voting.fresh.clear();
        }
        for entry in entries.iter() {
            fast.tally.slot_mut(entry.index).held = Some(entry.clone());
            fast.voting.fresh.insert(entry.index, entry.clone());
        }
        fast.voting.in_flight.push_back((unit, entries));
    }

    /// This replica's own votes count once they are durable.
    pub(crate) fn fast_persisted(&mut self, id: WriteId) {
        while let Some(fast) = &mut self.fast
            && fast.voting.in_flight.front().is_some_and(|(unit, _)| *unit <= id)
            && let Some((_, entries)) = fast.voting.in_flight.pop_front()
        {
            for entry in entries.iter() {
                let heard = self.record_vote(self.node, entry);
                assert_ne!(heard, tally::Heard::Wrong, "F-a: one vote in a round");
            }
        }
    }

    /// Counts a durable vote.
    fn record_vote(&mut self, node: NodeId, entry: &Entry) -> tally::Heard {
        let highest = self.decided.advance(AHEAD_ENTRIES_MAX as u64);
        let Some(fast) = &mut self.fast else { return tally::Heard::Nothing };
        if entry.index <= self.decided || entry.index > highest {
            return tally::Heard::Nothing;
        }
        let heard = fast.tally.record(self.membership.quorums(), node, entry);
        match heard {
            tally::Heard::Chosen => fast.progressed = true,
            tally::Heard::Vote => fast.coordinator.suspect(entry.index),
            tally::Heard::Nothing | tally::Heard::Wrong => {}
        }
        heard
    }

    pub(crate) fn on_voted(
        &mut self,
        now: Instant,
        from: NodeId,
        voted: Voted,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Voted { ballot, decided, votes } = voted;
        if self.fast.is_none() {
            return Err(Rejection::Unasked);
        }
        checked_slot(decided)?;
        let rounds = [ballot.fast_stamp(), ballot.stamp(), Stamp::CHOSEN];
        check_values(ballot, &votes, |entry| rounds.contains(&entry.stamp))?;
        if !votes.segments.is_empty() && !self.quorums().members().contains(from) {
            return Err(Rejection::Stranger);
        }
        self.seen = self.seen.max(ballot);
        // The votes of a higher ballot take the place of those of this leader's: with them goes what it has proposed in
        // classic rounds, without which it must not tell what is decided.
        if matches!(self.state, State::Leader(_)) && self.own_ballot().is_some_and(|own| own < ballot) {
            self.counters.preempted += 1;
            self.become_follower(now, None, effects);
        }
        let open = self.open_rounds();
        for entry in votes.segments.iter().flat_map(|segment| segment.iter()) {
            if self.record_vote(from, entry) == tally::Heard::Wrong {
                return Err(Rejection::Entries);
            }
            let highest = self.decided.advance(AHEAD_ENTRIES_MAX as u64);
            if let Some(fast) = &mut self.fast
                && open.is_some_and(|open| open.ballot == ballot)
            {
                fast.horizon = fast.horizon.max(entry.index.min(highest));
            }
        }
        self.note_known(now, from, decided);
        Ok(())
    }

    /// Phase 2a of classic rounds that follow fast ones: a vote takes the place of the one in the fast round.
    pub(crate) fn on_resolve(
        &mut self,
        now: Instant,
        from: NodeId,
        resolve: Resolve,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Resolve { ballot, first, commit, values } = resolve;
        if self.fast.is_none() {
            return Err(Rejection::Unasked);
        }
        let stamp = ballot.stamp();
        check_values(ballot, &values, |entry| entry.stamp == stamp)?;
        if values.segments.first().is_some_and(|segment| segment.first_index() < first) {
            return Err(Rejection::Position);
        }
        if self.hear_leader(now, from, Heard { ballot, first, commit }, effects)? {
            self.vote_classic(now, from, ballot, &values, effects);
            self.follow_watermark(now);
        }
        Ok(())
    }

    pub(crate) fn vote_classic(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        values: &Loaded,
        effects: &mut Effects,
    ) {
        let classic = VoteRound { ballot, classic: true };
        self.vote_where(now, from, (ballot, ballot.stamp()), values, |round| round < classic, effects);
    }

    /// Tells every learner what was voted, after it is durable, and whoever asked again what it asked for.
    pub(crate) fn tell_votes(&mut self, effects: &mut Effects) {
        let Some(fast) = &mut self.fast else { return };
        let (ballot, fresh) = (fast.voting.ballot, std::mem::take(&mut fast.voting.fresh));
        let asked = std::mem::take(&mut fast.voting.asked);
        if !fresh.is_empty() {
            let peers: Vec<NodeId> = self.membership.peers_of(self.node).collect();
            for to in peers {
                self.send_votes(to, ballot, fresh.values().cloned(), effects);
            }
        }
        // Whoever has not voted in it may still know what was chosen in the ballot that it follows.
        let current = self.promised.ballot().max(self.followed);
        for (to, slots) in asked {
            if to == self.node {
                continue;
            }
            let again: Vec<Entry> = slots
                .into_iter()
                .filter(|slot| !fresh.contains_key(slot))
                .filter_map(|slot| self.vote_again(slot, current))
                .collect();
            if again.is_empty() {
                let nothing = Loaded { segments: Vec::new(), to: LogIndex(1) };
                let voted = Voted { ballot: current, decided: self.decided, votes: nothing };
                self.send_with_promise(to, Message::Voted(voted), effects);
            }
            self.send_votes(to, current, again, effects);
        }
    }

    /// What this replica can tell of a slot that it has voted in: the chosen value if it knows it, or else its vote.
    fn vote_again(&self, slot: LogIndex, ballot: Ballot) -> Option<Entry> {
        let tally = self.fast.as_ref()?.tally.slot(slot)?;
        if let Some(chosen) = &tally.chosen {
            return Some(Entry { stamp: Stamp::CHOSEN, ..chosen.clone() });
        }
        let held = tally.held.as_ref()?;
        let in_ballot = VoteRound::of_stamp(held.stamp).is_some_and(|round| round.ballot == ballot);
        let stands = self.votes.stamp_at(slot) == Some(held.stamp);
        (in_ballot && stands).then(|| held.clone())
    }

    fn send_votes(
        &self,
        to: NodeId,
        ballot: Ballot,
        votes: impl IntoIterator<Item = Entry>,
        effects: &mut Effects,
    ) {
        let after = self.promise_write.max(self.vote_write);
        for votes in parts(votes, self.config.accept_entries_max, self.config.accept_bytes_max) {
            let voted = Voted { ballot, decided: self.decided, votes };
            self.send_with(after, to, Message::Voted(voted), effects);
        }
    }

    // --- votes of an earlier life ---

    /// Reads the votes that an earlier life left: a coordinator may need them, and they are asked for by message.
    pub(crate) fn load_own_votes(&mut self, effects: &mut Effects) {
        let Some(fast) = &self.fast else { return };
        let (Some(from), None) = (fast.voting.unread, fast.voting.load) else { return };
        let range = self.votes_from(from);
        let load = (!range.is_empty()).then(|| effects.load(range, self.config.accept_bytes_max));
        let Some(fast) = &mut self.fast else { return };
        fast.voting.load = load;
        if load.is_none() {
            fast.voting.unread = None;
        }
    }

    /// True if the load was one of these.
    pub(crate) fn on_own_votes_read(&mut self, id: LoadId, result: &Result<Loaded, Compacted>) -> bool {
        let durable = self.vote_write <= self.disk.persisted;
        let Some(fast) = self.fast.as_mut().filter(|fast| fast.voting.load == Some(id)) else { return false };
        fast.voting.load = None;
        let Ok(loaded) = result else {
            fast.voting.unread = None;
            return true;
        };
        fast.voting.unread = Some(loaded.to);
        for entry in loaded.segments.iter().flat_map(|segment| segment.iter()) {
            let stands = self.votes.stamp_at(entry.index) == Some(entry.stamp);
            let Some(fast) = &mut self.fast else { break };
            if entry.index <= self.decided
                || !stands
                || fast.tally.slot(entry.index).is_some_and(|s| s.held.is_some())
            {
                continue;
            }
            fast.tally.slot_mut(entry.index).held = Some(entry.clone());
            if durable && self.is_voter() {
                let _ = self.record_vote(self.node, entry);
            }
        }
        true
    }
}
