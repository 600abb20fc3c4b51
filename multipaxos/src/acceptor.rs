//! The acceptor of every slot: promises, votes, and the watermark that comes with them.

use synod_core::{Compacted, Entries, IndexRange, Instant, Kind, LoadId, Loaded, LogIndex, NodeId, Stamp};

use crate::ballot::{Ballot, VoteRound};
use crate::counters::Rejection;
use crate::message::{Accept, Accepted, Chosen, CommitNotice, Message, Prepare, Promise, Rejected, SLOT_MAX};
use crate::multipaxos::{Effects, Followed, MultiPaxos, State, checked_slot};

/// What waits for entries from the storage: at most one promise and one lesson for each peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    loads: Vec<Service>,
    /// Who could not be sent a snapshot, and until when none is tried again.
    put_off: Vec<(NodeId, Instant)>,
}

/// Entries on their way to somebody.
#[derive(Clone, Copy, Debug)]
struct Service {
    load: LoadId,
    to: NodeId,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A chunk of the promise of this ballot, from this slot on.
    Promise { ballot: Ballot, from: LogIndex },
    /// Decided values from this slot on.
    Lesson { from: LogIndex },
}

impl Serving {
    /// A newer request of the same kind takes the place of an earlier one.
    pub(crate) fn begin(&mut self, load: LoadId, to: NodeId, what: What) {
        let kind = |what: &What| matches!(what, What::Promise { .. });
        self.loads.retain(|service| service.to != to || kind(&service.what) != kind(&what));
        self.loads.push(Service { load, to, what });
    }

    pub(crate) fn put_off(&mut self, to: NodeId, until: Instant) {
        self.put_off.retain(|(peer, _)| *peer != to);
        self.put_off.push((to, until));
    }

    pub(crate) fn is_put_off(&self, now: Instant, to: NodeId) -> bool {
        self.put_off.iter().any(|(peer, until)| *peer == to && now < *until)
    }

    fn end(&mut self, load: LoadId) -> Option<Service> {
        let at = self.loads.iter().position(|service| service.load == load)?;
        Some(self.loads.swap_remove(at))
    }
}

// --- phase 1 ---

impl MultiPaxos {
    pub(crate) fn on_prepare(
        &mut self,
        now: Instant,
        from: NodeId,
        prepare: Prepare,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Prepare { ballot, from: first } = prepare;
        if ballot.node != from {
            return Err(Rejection::Ballot);
        }
        if checked_slot(first)? == LogIndex::ZERO {
            return Err(Rejection::Position);
        }
        if self.loyalty.binds(now) {
            // It would help somebody to lead beside the leader that it heard. Whoever campaigns asks again.
            self.counters.prepares_ignored += 1;
            return Ok(());
        }
        match self.promised.prepare(ballot) {
            Err(late) => {
                let rejected = Rejected { ballot, promised: late.promised };
                self.send_with_promise(from, Message::Rejected(rejected), effects);
                return Ok(());
            }
            Ok(true) => self.promise_raised(now, effects),
            Ok(false) => {}
        }
        // Somebody campaigns: give it the time that it needs.
        self.election_at = self.election_at.max(now + self.election_wait);
        let range = self.votes_from(first);
        if range.is_empty() {
            let votes = Loaded { segments: Vec::new(), to: first.max(range.to) };
            self.send_promise(from, ballot, first, votes, effects);
        } else {
            let load = effects.load(range, self.config.accept_bytes_max);
            self.serving.begin(load, from, What::Promise { ballot, from: first });
        }
        Ok(())
    }

    /// The promise tells every vote that was asked for before it, durable or not; it leaves after the write of
    /// the promise, and so after the writes of the votes.
    fn send_promise(&self, to: NodeId, ballot: Ballot, from: LogIndex, votes: Loaded, effects: &mut Effects) {
        let promise = Promise {
            ballot,
            from,
            decided: self.decided,
            trimmed: self.trimmed,
            last: self.last_index(),
            votes,
        };
        self.send_with(self.promise_write.max(self.vote_write), to, Message::Promise(promise), effects);
    }

    /// Entries came back from the storage.
    pub(crate) fn on_loaded(
        &mut self,
        now: Instant,
        id: LoadId,
        result: Result<Loaded, Compacted>,
        effects: &mut Effects,
    ) {
        if let State::Candidate(candidate) = &self.state
            && candidate.own_load == Some(id)
        {
            self.on_own_votes(now, result, effects);
            return;
        }
        if self.on_own_votes_read(id, &result) {
            return;
        }
        let Some(Service { to, what, .. }) = self.serving.end(id) else { return };
        match (what, result) {
            // A promise of a lower ballot than the last one means nothing any more.
            (What::Promise { ballot, from }, Ok(votes)) if ballot == self.promised.ballot() => {
                self.send_promise(to, ballot, from, votes, effects);
            }
            (What::Promise { .. }, _) => {}
            (What::Lesson { from }, Err(_)) => self.offer_snapshot(now, to, from, effects),
            (What::Lesson { from }, Ok(loaded)) => {
                let entries = dense(loaded, from);
                let entries = entries.slice(IndexRange::new(from, self.decided.next()));
                self.send_lesson(to, from, entries, effects);
            }
        }
    }

    pub(crate) fn send_lesson(&self, to: NodeId, from: LogIndex, entries: Entries, effects: &mut Effects) {
        let (decided, trimmed) = (self.decided, self.trimmed);
        effects.send(to, Message::Chosen(Chosen { from, decided, trimmed, entries }));
    }

    /// Whoever asked is better off with somebody else.
    pub(crate) fn send_no_lesson(&self, to: NodeId, from: LogIndex, effects: &mut Effects) {
        let (decided, trimmed) = (from.prev(), LogIndex::ZERO);
        effects.send(to, Message::Chosen(Chosen { from, decided, trimmed, entries: Entries::empty() }));
    }
}

/// The entries from `from` on, in one piece, up to the first hole.
fn dense(loaded: Loaded, from: LogIndex) -> Entries {
    let mut segments = loaded.segments.into_iter();
    let Some(first) = segments.next().filter(|first| first.first_index() == from) else {
        return Entries::empty();
    };
    let mut following = segments.peekable();
    if following.peek().is_none() {
        return first;
    }
    let mut copied = first.to_vec();
    for segment in following {
        if segment.first_index() != copied[copied.len() - 1].index.next() {
            break;
        }
        copied.extend(segment.iter().cloned());
    }
    Entries::new(copied).unwrap_or_else(|_| Entries::empty())
}

// --- phase 2 ---

impl MultiPaxos {
    /// The sender claims to lead `ballot`. True if this replica follows it from now on.
    pub(crate) fn hear_leader(
        &mut self,
        now: Instant,
        from: NodeId,
        heard: Heard,
        effects: &mut Effects,
    ) -> Result<bool, Rejection> {
        let Heard { ballot, first, commit } = heard;
        if ballot.node != from {
            return Err(Rejection::Ballot);
        }
        if checked_slot(first)? == LogIndex::ZERO || checked_slot(commit)?.next() < first {
            return Err(Rejection::Position);
        }
        let barred = self.promised.ballot().max(self.followed);
        if ballot < barred {
            let rejected = Message::Rejected(Rejected { ballot, promised: barred });
            self.send_with_promise(from, rejected, effects);
            return Ok(false);
        }
        self.seen = self.seen.max(ballot);
        match &mut self.state {
            State::Follower(Some(leader)) if leader.ballot == ballot => {
                if leader.first != first {
                    return Err(Rejection::Position);
                }
                leader.heard_at = now;
                leader.commit = leader.commit.max(commit);
            }
            _ => {
                let leader =
                    Followed { ballot, heard_at: now, first, commit, acknowledge: false, to_all: false };
                self.become_follower(now, Some(leader), effects);
            }
        }
        self.election_at = now + self.election_wait;
        self.loyalty.renew(now);
        Ok(true)
    }

    pub(crate) fn on_accept(
        &mut self,
        now: Instant,
        from: NodeId,
        accept: Accept,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Accept { ballot, first, commit, to_all, entries } = accept;
        check_proposals(ballot, first, &entries)?;
        if !self.hear_leader(now, from, Heard { ballot, first, commit }, effects)? {
            return Ok(());
        }
        match self.promised.accept(ballot) {
            Ok(true) => self.promise_raised(now, effects),
            Ok(false) => {}
            Err(_) => unreachable!("M3: a leader of a lower ballot than the promise is not followed"),
        }
        self.vote(now, ballot, entries, effects);
        self.follow_watermark(now);
        if let State::Follower(Some(leader)) = &mut self.state {
            leader.acknowledge = true;
            leader.to_all = to_all;
        }
        Ok(())
    }

    /// Votes for what is not voted for yet in this ballot. What is known to be chosen is left alone: its stamp
    /// says more than a vote.
    fn vote(&mut self, now: Instant, ballot: Ballot, entries: Entries, effects: &mut Effects) {
        let highest = self.decided.advance(self.config.ahead_entries_max as u64);
        let wanted = entries.range();
        let range = IndexRange::new(wanted.from.max(self.decided.next()), wanted.to.min(highest.next()));
        if wanted.to > range.to {
            self.counters.too_far_ahead += 1;
        }
        if range.is_empty() {
            return;
        }
        let last = self.votes.last().unwrap_or(self.decided);
        if range.from > last.next() && self.votes.runs() >= RUNS_MAX {
            self.counters.too_far_ahead += 1;
            return;
        }
        if range.from > last {
            self.cast(now, ballot, ballot.stamp(), entries.slice(range), effects);
            return;
        }
        let fresh = self.votes.fresh(range, ballot);
        self.counters.repeated += u64::from(fresh.is_empty());
        for part in fresh {
            self.cast(now, ballot, ballot.stamp(), entries.slice(part), effects);
        }
    }

    /// Casts a vote for every slot of `entries`, in the round of `ballot` that `stamp` stands for.
    pub(crate) fn cast(
        &mut self,
        now: Instant,
        ballot: Ballot,
        stamp: Stamp,
        entries: Entries,
        effects: &mut Effects,
    ) {
        assert_eq!(self.promised.ballot(), ballot, "M3: no vote in another ballot than the one promised");
        assert!(entries.first_index() > self.decided, "PX7: a decided slot is never written again");
        self.votes.put(entries.range(), stamp);
        self.vote_write = effects.put(entries);
        self.disk.wrote(self.vote_write, now);
    }

    /// A watermark decides the slots at or below it that hold a vote in the ballot of the leader that told it, or
    /// a value known to be chosen; it says nothing about a vote in another ballot.
    pub(crate) fn follow_watermark(&mut self, now: Instant) {
        let State::Follower(Some(leader)) = self.state else { return };
        while self.decided < leader.commit {
            let reached = self.votes.reach(self.decided.next(), leader.ballot.stamp()).min(leader.commit);
            if reached <= self.decided {
                break;
            }
            self.decide(reached);
        }
        if self.decided < leader.commit {
            self.note_known(now, leader.ballot.node, leader.commit);
        }
    }

    pub(crate) fn on_commit_notice(
        &mut self,
        now: Instant,
        from: NodeId,
        notice: CommitNotice,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let CommitNotice { ballot, first, commit } = notice;
        if self.hear_leader(now, from, Heard { ballot, first, commit }, effects)? {
            self.follow_watermark(now);
        }
        Ok(())
    }

    /// Acknowledges all votes of the batch in one message.
    pub(crate) fn flush_follower(&mut self, now: Instant, effects: &mut Effects) {
        let State::Follower(Some(leader)) = &mut self.state else { return };
        if !std::mem::take(&mut leader.acknowledge) {
            return;
        }
        let Followed { ballot, first, commit, to_all, .. } = *leader;
        // What the leader itself said is decided needs no vote. What somebody else said is decided does: it may
        // have been decided in a later ballot, with another value than this leader's.
        let settled = first.prev().max(commit);
        let through = self.votes.reach(settled.next(), ballot.stamp());
        let votes = Accepted { ballot, through, decided: self.decided };
        let accepted = Message::Accepted(votes);
        self.send_with(self.promise_write.max(self.vote_write), ballot.node, accepted, effects);
        if to_all {
            self.tell_others(now, votes, effects);
        }
    }
}

/// What every message of a leader says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) ballot: Ballot,
    pub(crate) first: LogIndex,
    pub(crate) commit: LogIndex,
}

/// Checks that entries can be what the leader of `ballot` proposes.
fn check_proposals(ballot: Ballot, first: LogIndex, entries: &Entries) -> Result<(), Rejection> {
    let Some(lowest) = entries.first() else { return Ok(()) };
    if lowest.index < first || entries.range().to > SLOT_MAX {
        return Err(Rejection::Position);
    }
    let stamp = ballot.stamp();
    let wrong = |entry: &synod_core::Entry| {
        entry.stamp != stamp || entry.reign > ballot.reign() || !entry.kind.is_decidable()
    };
    if entries.iter().any(wrong) { Err(Rejection::Entries) } else { Ok(()) }
}

/// True if an entry can stand in the log of a peer: voted for in a round (a fast one only where there are `fast`
/// rounds), or known to be chosen.
pub(crate) fn is_vote(stamp: Stamp, kind: Kind, fast: bool) -> bool {
    VoteRound::of_stamp(stamp).is_some_and(|round| round.classic || fast) && kind.is_decidable()
}

/// Holes among the votes above the watermark that an acceptor keeps track of.
pub(crate) const RUNS_MAX: usize = 4096;
