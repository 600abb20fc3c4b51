//! Elections: who hears no leader asks who would promise, then campaigns (phase 1 for every slot), learns what is
//! decided, and leads.

use std::collections::BTreeMap;

use bytes::Bytes;
use synod_core::{
    Compacted, Entries, Entry, Instant, Kind, LoadId, Loaded, LogIndex, NodeId, NodeSet, QuorumSystem,
    RequestId,
};

use crate::acceptor::is_vote;
use crate::ballot::{Ballot, VoteRound};
use crate::config::AHEAD_ENTRIES_MAX;
use crate::counters::Rejection;
use crate::fast::pick::{Pick, most_voted, pick};
use crate::message::{Canvass, CanvassReply, Message, Prepare, Promise, SLOT_MAX};
use crate::multipaxos::{Effects, HINT_EVERY, MultiPaxos, State, checked_slot};

/// What only a candidate has.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) ballot: Ballot,
    /// The leader asked for this campaign.
    transfer: bool,
    /// How far each acceptor's promise has come, this replica's own included.
    pledges: Vec<Pledge>,
    /// The load of this replica's own votes.
    pub(crate) own_load: Option<LoadId>,
    /// The highest watermark that a promise reported, and whose it was.
    watermark: (LogIndex, NodeId),
    /// For each slot above the watermark, the votes of the highest round that promises reported.
    gathered: BTreeMap<LogIndex, Gathered>,
    /// When unanswered requests are sent again.
    pub(crate) retry_at: Instant,
}

/// The votes of one round for one slot.
#[derive(Clone, Debug)]
struct Gathered {
    round: VoteRound,
    votes: Vec<(NodeId, Entry)>,
}

#[derive(Clone, Copy, Debug)]
struct Pledge {
    node: NodeId,
    /// Votes below this slot have been told.
    next: LogIndex,
    complete: bool,
}

impl Candidate {
    fn pledge(&mut self, node: NodeId) -> Option<&mut Pledge> {
        self.pledges.iter_mut().find(|pledge| pledge.node == node)
    }

    /// Takes over a chunk of votes: of the votes for a slot, those of the highest round count, and what is known to
    /// be chosen counts most.
    fn gather(&mut self, node: NodeId, votes: &Loaded) {
        for entry in votes.segments.iter().flat_map(|segment| segment.iter()) {
            if entry.index <= self.watermark.0 {
                continue;
            }
            let round = VoteRound::of_stamp(entry.stamp).expect("a promise is checked");
            match self.gathered.get_mut(&entry.index) {
                Some(known) if known.round > round => {}
                Some(known) if known.round == round => {
                    // A classic round has one value.
                    if !round.classic {
                        known.votes.push((node, entry.clone()));
                    }
                }
                _ => {
                    let votes = vec![(node, entry.clone())];
                    self.gathered.insert(entry.index, Gathered { round, votes });
                }
            }
        }
    }

    /// Those who have told their vote in a slot, or that they have none.
    fn answered(&self, slot: LogIndex) -> NodeSet {
        let told = self.pledges.iter().filter(|pledge| pledge.complete || pledge.next > slot);
        told.map(|pledge| pledge.node).collect()
    }

    fn raise_watermark(&mut self, decided: LogIndex, node: NodeId) {
        if decided > self.watermark.0 {
            self.watermark = (decided, node);
            self.gathered = self.gathered.split_off(&decided.next());
        }
    }

    /// Those whose promises are complete.
    fn promised(&self) -> NodeSet {
        self.pledges.iter().filter(|pledge| pledge.complete).map(|pledge| pledge.node).collect()
    }
}

// --- before a campaign ---

impl MultiPaxos {
    /// Nobody was heard for long: asks who would promise, so that a ballot is used only where it can win, and a
    /// leader that is heard by enough is left alone.
    pub(crate) fn on_election_due(&mut self, now: Instant, effects: &mut Effects) {
        // Each wait is an election timeout or longer from the last word of a leader, and from a start.
        debug_assert!(
            !self.loyalty.binds(now),
            "a replica keeps its promise to a leader, towards itself too"
        );
        self.become_follower(now, None, effects);
        self.draw_election_wait(now);
        if self.learning.awaits_snapshot() {
            // It could not lead before the snapshot is here, and would keep others from leading.
            return;
        }
        let Some(ballot) = self.seen.next_of(self.node) else { return };
        let support: NodeSet = [self.node].into_iter().collect();
        if self.is_supported(&support) {
            self.campaign(now, ballot, false, effects);
            return;
        }
        self.counters.canvasses += 1;
        self.state = State::Canvasser { ballot, support };
        for to in self.other_voters() {
            effects.send(to, Message::Canvass(Canvass { ballot, decided: self.decided }));
        }
    }

    pub(crate) fn on_canvass(
        &mut self,
        now: Instant,
        from: NodeId,
        canvass: Canvass,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Canvass { ballot, decided } = canvass;
        if ballot.node != from {
            return Err(Rejection::Ballot);
        }
        checked_slot(decided)?;
        let hears = self.hears_leader(now) || self.loyalty.binds(now);
        self.counters.support_denied += u64::from(hears);
        // A ballot that is too low is no reason to deny: the asker will take one above all that it is told of.
        let reply = CanvassReply { ballot, granted: !hears, seen: self.seen, decided: self.decided };
        effects.send(from, Message::CanvassReply(reply));
        // Replicas that no leader reaches learn from each other.
        self.note_known(now, from, decided);
        Ok(())
    }

    pub(crate) fn on_canvass_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        reply: CanvassReply,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let CanvassReply { ballot: asked, granted, seen, decided } = reply;
        if asked.node != self.node {
            return Err(Rejection::Ballot);
        }
        checked_slot(decided)?;
        if seen.is_usable() {
            self.seen = self.seen.max(seen);
        }
        self.note_known(now, from, decided);
        let State::Canvasser { ballot, support } = &mut self.state else { return Ok(()) };
        let ballot = *ballot;
        if !granted || asked != ballot {
            return Ok(());
        }
        support.insert(from);
        let support = support.clone();
        if self.is_supported(&support) {
            // Somebody may have seen a higher one since.
            if let Some(ballot) = self.seen.next_of(self.node) {
                self.campaign(now, ballot.max(asked), false, effects);
            }
        }
        Ok(())
    }

    /// True if this replica leads, or has heard the leader it follows within the election timeout.
    fn hears_leader(&self, now: Instant) -> bool {
        match &self.state {
            State::Leader(_) => true,
            State::Follower(Some(leader)) => now - leader.heard_at < self.config.election_timeout,
            _ => false,
        }
    }

    // --- the campaign: phase 1 ---

    /// Promises its own ballot, durably, before anybody hears of it: so no life of a node uses a ballot of
    /// another one. With `transfer` it is the leader's wish.
    pub(crate) fn campaign(&mut self, now: Instant, ballot: Ballot, transfer: bool, effects: &mut Effects) {
        let raised = self.promised.prepare(ballot);
        assert_eq!(raised, Ok(true), "PX5: a ballot is used once");
        self.state = State::Follower(None);
        self.promise_raised(now, effects);
        self.counters.campaigns += 1;
        let from = self.decided.next();
        let range = self.votes_from(from);
        let own_load = (!range.is_empty()).then(|| effects.load(range, self.config.accept_bytes_max));
        let voters = self.quorums().members();
        let pledges = voters.iter().map(|node| Pledge {
            node,
            next: from,
            complete: node == self.node && own_load.is_none(),
        });
        let candidate = Candidate {
            ballot,
            transfer,
            pledges: pledges.collect(),
            own_load,
            watermark: (self.decided, self.node),
            gathered: BTreeMap::new(),
            retry_at: now + self.config.heartbeat_interval,
        };
        self.state = State::Candidate(Box::new(candidate));
        for to in self.other_voters() {
            self.send_with_promise(to, Message::Prepare(Prepare { ballot, from }), effects);
        }
    }

    /// A campaign that moves is given more time.
    pub(crate) fn extend_campaign(&mut self, now: Instant) {
        self.election_at = self.election_at.max(now + self.election_wait);
    }

    /// Asks again for what was not answered, and lets those who have told all hear that the campaign goes on: it
    /// may wait for somebody's long promise.
    pub(crate) fn on_campaign_tick(&mut self, now: Instant, effects: &mut Effects) {
        let interval = self.config.heartbeat_interval;
        let State::Candidate(candidate) = &mut self.state else { return };
        if now < candidate.retry_at {
            return;
        }
        candidate.retry_at = now + interval;
        let ballot = candidate.ballot;
        let others = candidate.pledges.iter().filter(|pledge| pledge.node != self.node);
        let others: Vec<(NodeId, LogIndex)> = others.map(|pledge| (pledge.node, pledge.next)).collect();
        for (to, from) in others {
            self.send_with_promise(to, Message::Prepare(Prepare { ballot, from }), effects);
        }
    }

    pub(crate) fn on_promise(
        &mut self,
        now: Instant,
        from: NodeId,
        promise: Promise,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        if promise.ballot.node != self.node {
            return Err(Rejection::Ballot);
        }
        check_promise(&promise, self.fast.is_some())?;
        let Promise { ballot, from: first, decided, last, votes, .. } = promise;
        let State::Candidate(candidate) = &mut self.state else { return Ok(()) };
        // A promise counts for the ballot that it was given in, chunk by chunk, and once.
        if candidate.ballot != ballot {
            return Ok(());
        }
        // What was chosen in a later reign was chosen in a later ballot: this one cannot win any more.
        let reigns = votes.segments.iter().flat_map(|segment| segment.iter()).map(|entry| entry.reign);
        if reigns.max().is_some_and(|latest| latest > ballot.reign()) {
            self.become_follower(now, None, effects);
            return Ok(());
        }
        let Some(pledge) = candidate.pledge(from) else { return Err(Rejection::Stranger) };
        if pledge.complete || pledge.next != first {
            return Ok(());
        }
        pledge.next = votes.to;
        pledge.complete = votes.to > last;
        let complete = pledge.complete;
        candidate.raise_watermark(decided, from);
        candidate.gather(from, &votes);
        if !complete {
            self.counters.chunks += 1;
            let candidate_next = votes.to.max(candidate.watermark.0.next());
            if let Some(pledge) = candidate.pledge(from) {
                pledge.next = candidate_next;
            }
            self.send_with_promise(from, Message::Prepare(Prepare { ballot, from: candidate_next }), effects);
        }
        self.extend_campaign(now);
        self.try_lead(now, effects);
        Ok(())
    }

    /// This replica's own votes came back from its storage.
    pub(crate) fn on_own_votes(
        &mut self,
        now: Instant,
        result: Result<Loaded, Compacted>,
        effects: &mut Effects,
    ) {
        let (me, last, bytes_max) = (self.node, self.last_index(), self.config.accept_bytes_max);
        let from = match &result {
            Ok(loaded) => loaded.to,
            Err(_) => self.decided.next(),
        };
        let range = self.votes_from(from);
        let State::Candidate(candidate) = &mut self.state else { return };
        if let Ok(loaded) = result {
            candidate.gather(me, &loaded);
        }
        let own_load = (!range.is_empty()).then(|| effects.load(range, bytes_max));
        candidate.own_load = own_load;
        if own_load.is_none() {
            let pledge = candidate.pledge(me).expect("a candidate is a voter");
            (pledge.next, pledge.complete) = (last.next(), true);
        }
        self.extend_campaign(now);
        self.try_lead(now, effects);
    }

    /// Leads once an election quorum's promises are complete, its own among them and durable, and everything
    /// through the highest watermark that any of them reported is known here.
    pub(crate) fn try_lead(&mut self, now: Instant, effects: &mut Effects) {
        let State::Candidate(candidate) = &mut self.state else { return };
        let promised = candidate.promised();
        let own = promised.contains(self.node) && self.promise_write <= self.disk.persisted;
        if !own || !self.membership.quorums().is_election_quorum(&promised) {
            return;
        }
        let (watermark, teacher) = candidate.watermark;
        if self.decided < watermark {
            self.counters.learned_first += 1;
            self.learn_now(now, teacher, watermark, effects);
            return;
        }
        let candidate = candidate.clone();
        let ballot = candidate.ballot;
        self.counters.successions_won += u64::from(candidate.transfer);
        let again = self.choose_values(*candidate);
        self.become_leader(now, ballot, again, effects);
    }

    /// For each slot above the watermark up to the last that anybody voted in: the value that the votes of the highest
    /// round among the promises bind this ballot to, or a no-op where there are none (P2c; Fast Paxos, section 3.1).
    fn choose_values(&mut self, mut candidate: Candidate) -> Vec<Entry> {
        let first = self.decided.next();
        let ballot = candidate.ballot;
        let mut gathered = candidate.gathered.split_off(&first);
        let Some((last, _)) = gathered.last_key_value() else { return Vec::new() };
        let count = last.next().distance_from(first);
        let mut again = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
        for slot in (0..count).map(|offset| first.advance(offset)) {
            let quorums = self.membership.quorums();
            let entry = gathered.remove(&slot).map(|told| told.value(quorums, || candidate.answered(slot)));
            self.counters.proposed_again += u64::from(entry.is_some());
            self.counters.holes_filled += u64::from(entry.is_none());
            again.push(
                entry.map_or_else(|| noop(slot, ballot), |entry| Entry { stamp: ballot.stamp(), ..entry }),
            );
        }
        again
    }
}

impl Gathered {
    /// The value to propose.
    fn value(self, quorums: &QuorumSystem, answered: impl Fn() -> NodeSet) -> Entry {
        let Gathered { mut votes, .. } = self;
        if votes.len() == 1 {
            return votes.remove(0).1;
        }
        let told: Vec<(NodeId, &Entry)> = votes.iter().map(|(node, entry)| (*node, entry)).collect();
        let value = match pick(quorums, &answered(), &told, Entry::same_value) {
            Pick::Bound(value) => value,
            Pick::Free => most_voted(&told, Entry::same_value).expect("there are votes"),
        };
        value.clone()
    }
}

/// Nothing, for a slot in which no value can have been chosen.
pub(crate) fn noop(index: LogIndex, ballot: Ballot) -> Entry {
    Entry {
        index,
        stamp: ballot.stamp(),
        reign: ballot.reign(),
        kind: Kind::Noop,
        request: RequestId::NONE,
        payload: Bytes::new(),
    }
}

/// Checks that a chunk can be what the acceptor was asked for.
fn check_promise(promise: &Promise, fast: bool) -> Result<(), Rejection> {
    let Promise { ballot, from, decided, trimmed, last, votes } = promise;
    let highest = decided.advance(AHEAD_ENTRIES_MAX as u64 + HINT_EVERY);
    for slot in [*from, *decided, *trimmed, *last, votes.to] {
        checked_slot(slot)?;
    }
    let starts = *from > LogIndex::ZERO && trimmed <= decided && decided <= last && *last <= highest;
    // An unfinished chunk brings something, or asking for the next one would never end.
    let moves = votes.to > *from || votes.to > *last;
    if !starts || !moves || votes.to < *from || votes.to > SLOT_MAX {
        return Err(Rejection::Position);
    }
    let mut next = *from;
    for segment in &votes.segments {
        if segment.first_index() < next || segment.range().to > votes.to || segment.last_index() > *last {
            return Err(Rejection::Entries);
        }
        next = segment.range().to;
        let wrong = |entry: &Entry| {
            let vote = VoteRound::of_stamp(entry.stamp).filter(|round| *round != VoteRound::CHOSEN);
            let late = vote.is_some_and(|round| round.ballot > *ballot);
            late || !is_vote(entry.stamp, entry.kind, fast)
                || vote.is_some_and(|round| entry.reign > round.ballot.reign())
        };
        if segment.iter().any(wrong) {
            return Err(Rejection::Entries);
        }
    }
    Ok(())
}

/// The values a new leader proposes again, as entries of consecutive slots.
pub(crate) fn consecutive(again: Vec<Entry>) -> Option<Entries> {
    if again.is_empty() {
        None
    } else {
        Some(Entries::new(again).expect("slots were taken one after the other"))
    }
}
