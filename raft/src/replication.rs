//! Replication: the leader's side and the follower's side of appends, and the commit rule (sections 5.3, 5.4).

use std::collections::VecDeque;

use synod_core::{
    Command, Compacted, Entries, Entry, IndexRange, Instant, Kind, LeaderLease, LoadId, Loaded, LogEvent,
    LogIndex, NodeId, NodeSet, Refusal, RequestId,
};

use crate::counters::Rejection;
use crate::log::Weighed;
use crate::message::{
    Append, AppendRejected, Appended, CommitNotice, Message, NewerTerm, Position, Round, Term, reign,
};
use crate::progress::{Progress, Room};
use crate::raft::{Effects, Raft, State};
use crate::read::Reads;
use crate::transfer::Transfer;

/// What only a leader has.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    pub(crate) peers: Vec<Progress>,
    /// Where the term begins in the log: the no-op.
    pub(crate) first_index: LogIndex,
    /// Proposed since the last flush, and not in the log yet.
    proposed: Vec<Command>,
    proposed_bytes: usize,
    /// Segments of this term that are not decided, or not on this replica's own disk yet: last index and
    /// weight of each.
    unsettled: VecDeque<(LogIndex, usize)>,
    unsettled_bytes: usize,
    /// True if somebody's log may have been confirmed further since the commit rule was last applied.
    progressed: bool,
    heartbeat_at: Instant,
    notice: Option<Notice>,
    pub(crate) reads: Reads,
    pub(crate) transfer: Option<Transfer>,
}

/// A decision that some peer was not told of yet.
#[derive(Clone, Copy, Debug)]
struct Notice {
    at: Instant,
    decided: LogIndex,
}

impl Leader {
    pub(crate) fn next_deadline(&self) -> Instant {
        let others = [self.notice.map(|notice| notice.at), self.transfer.map(|transfer| transfer.until)];
        others.into_iter().flatten().fold(self.heartbeat_at, Instant::min)
    }

    pub(crate) fn note_progress(&mut self) {
        self.progressed = true;
    }

    pub(crate) fn peer(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.peers.iter_mut().find(|peer| peer.node == node)
    }

    pub(crate) fn confirmed(&self, node: NodeId) -> Round {
        self.peers.iter().find(|peer| peer.node == node).map_or(Round::default(), |peer| peer.confirmed)
    }

    pub(crate) fn matched(&self, node: NodeId) -> LogIndex {
        self.peers.iter().find(|peer| peer.node == node).map_or(LogIndex::ZERO, Progress::matched)
    }

    /// The leadership ends. What is not in the log yet is handed back.
    pub(crate) fn give_up(self, effects: &mut Effects) {
        for command in self.proposed {
            effects.event(LogEvent::Refused { command, why: Refusal::NotLeader { leader: None } });
        }
        self.reads.give_up(effects);
    }
}

// --- the leader ---

impl Raft {
    /// Begins the term with an entry of its own, so that what earlier leaders left becomes decided.
    pub(crate) fn become_leader(&mut self, now: Instant, effects: &mut Effects) {
        assert!(matches!(self.state, State::Candidate { .. }), "only an election makes a leader");
        let last = self.log.last_index();
        assert_eq!(self.disk.durable(), last, "a vote is durable only with the log before it");
        self.counters.elections_won += 1;
        let first_index = last.next();
        self.state = State::Leader(Box::new(Leader {
            peers: self
                .membership
                .peers_of(self.node)
                .map(|node| Progress::new(node, first_index, now))
                .collect(),
            first_index,
            proposed: Vec::new(),
            proposed_bytes: 0,
            unsettled: VecDeque::new(),
            unsettled_bytes: 0,
            progressed: true,
            heartbeat_at: now + self.config.heartbeat_interval,
            notice: None,
            reads: Reads::new(
                self.config.lease_reads.map(|clocks| LeaderLease::new(clocks, self.config.loyalty())),
            ),
            transfer: None,
        }));
        let noop = Command { kind: Kind::Noop, request: RequestId::NONE, payload: bytes::Bytes::new() };
        self.append_own(now, vec![noop], Entry::OVERHEAD, effects);
    }

    pub(crate) fn on_propose(&mut self, mut commands: Vec<Command>, effects: &mut Effects) {
        let why = self.not_leader();
        let (leader, why) = match &mut self.state {
            State::Leader(leader) if leader.transfer.is_none() => (Some(leader), why),
            State::Leader(_) => (None, Refusal::Transferring),
            _ => (None, why),
        };
        let Some(leader) = leader else {
            for command in commands {
                effects.event(LogEvent::Refused { command, why });
            }
            return;
        };
        // What others have decided and this disk has not yet written counts too: its queue is bounded by this.
        let settled = self.decided.min(self.disk.durable());
        let unsettled = usize::try_from(self.log.last_index().distance_from(settled)).unwrap_or(usize::MAX);
        let entries = unsettled.saturating_add(leader.proposed.len());
        let bytes = leader.unsettled_bytes.saturating_add(leader.proposed_bytes);
        let mut entries_left = self.config.uncommitted_entries_max.saturating_sub(entries);
        let mut bytes_left = self.config.uncommitted_bytes_max.saturating_sub(bytes);
        let mut weight: usize = commands.iter().map(command_weight).sum();
        if commands.len() > entries_left || weight > bytes_left {
            let largest = self.config.uncommitted_bytes_max;
            commands.retain(|command| {
                let weight = command_weight(command);
                let fits = entries_left > 0 && weight <= bytes_left;
                if fits {
                    entries_left -= 1;
                    bytes_left -= weight;
                    return true;
                }
                let why = if weight > largest { Refusal::TooLarge } else { Refusal::Full };
                if why == Refusal::Full {
                    // Nothing overtakes a refused command of the same call.
                    entries_left = 0;
                }
                effects.event(LogEvent::Refused { command: command.clone(), why });
                false
            });
            weight = commands.iter().map(command_weight).sum();
        }
        leader.proposed_bytes += weight;
        if leader.proposed.is_empty() {
            leader.proposed = commands;
        } else {
            leader.proposed.extend(commands);
        }
    }

    /// What a leader does once for a batch of steps.
    pub(crate) fn flush_leader(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        if !leader.proposed.is_empty() {
            let commands = std::mem::take(&mut leader.proposed);
            let weight = std::mem::take(&mut leader.proposed_bytes);
            self.append_own(now, commands, weight, effects);
        }
        self.advance_decided();
        self.start_read_round(now, effects);
        self.send_appends(now, effects);
        self.press_transfer(effects);
        self.arm_notice(now);
    }

    /// Appends entries of the current term: one segment, shared by log, write and messages.
    fn append_own(&mut self, now: Instant, commands: Vec<Command>, weight: usize, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { unreachable!("only a leader appends its own") };
        let (stamp, reign) = (self.hard_state.term.stamp(), reign(self.hard_state.term, self.node));
        let entries = Entries::numbered(self.log.last_index().next(), commands, |index, command| {
            let Command { kind, request, payload } = command;
            Entry { index, stamp, reign, kind, request, payload }
        });
        self.log.append(entries.clone(), weight);
        let last = self.log.last_index();
        leader.unsettled.push_back((last, weight));
        leader.unsettled_bytes += weight;
        self.disk.wrote(effects.write_id(), last, now);
        effects.put(entries);
    }

    /// The commit rule: a replication quorum holds it durably, and the entry there is of this term.
    fn advance_decided(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        if !std::mem::take(&mut leader.progressed) {
            return;
        }
        let durable = self.disk.durable();
        let reached = self.membership.quorums().reached_by_replication_quorum(&|node| {
            if node == self.node { durable } else { leader.matched(node) }
        });
        // Entries of earlier terms are never counted by themselves (section 5.4.2, figure 8).
        if reached > self.decided && self.log.term_at(reached) == Some(self.hard_state.term) {
            self.decided = reached;
        }
        let settled = self.decided.min(durable);
        while let Some((_, weight)) = leader.unsettled.front().filter(|(last, _)| *last <= settled) {
            leader.unsettled_bytes -= weight;
            leader.unsettled.pop_front();
        }
    }

    /// Sends every peer what its window has room for.
    fn send_appends(&mut self, now: Instant, effects: &mut Effects) {
        let term = self.hard_state.term;
        let commit = self.decided;
        let last = self.log.last_index();
        let window = Room { entries: self.config.window_entries_max, bytes: self.config.window_bytes_max };
        let append = Room { entries: self.config.append_entries_max, bytes: self.config.append_bytes_max };
        let State::Leader(leader) = &mut self.state else { return };
        for peer in &mut leader.peers {
            while let Some(room) = peer.room(last, window, append) {
                let prev = peer.next().prev();
                let prev_term = self.log.term_at(prev);
                let Some(prev_term) = prev_term.filter(|_| prev >= self.log.base().index) else {
                    self.counters.out_of_reach += 1;
                    peer.await_snapshot();
                    effects.event(LogEvent::SendSnapshot { to: peer.node });
                    break;
                };
                let prev = Position { term: prev_term, index: prev };
                let segment = if room.entries == 0 || peer.next() > last {
                    Some(Weighed { entries: Entries::empty(), weight: 0 })
                } else {
                    self.log.collect(peer.next(), room.entries, room.bytes)
                };
                let Some(segment) = segment else {
                    let to = peer.next().advance(room.entries as u64).min(last.next());
                    self.counters.loads += 1;
                    peer.load = Some(effects.load(IndexRange::new(peer.next(), to), room.bytes));
                    break;
                };
                send_append(peer, now, term, prev, commit, segment, effects);
            }
        }
    }

    /// Entries for a peer that is behind came back from storage.
    pub(crate) fn on_loaded(
        &mut self,
        now: Instant,
        id: LoadId,
        result: Result<Loaded, Compacted>,
        effects: &mut Effects,
    ) {
        let (term, commit) = (self.hard_state.term, self.decided);
        let State::Leader(leader) = &mut self.state else { return };
        let Some(peer) = leader.peers.iter_mut().find(|peer| peer.load == Some(id)) else { return };
        peer.load = None;
        let next = peer.next();
        let segment = result.ok().and_then(|loaded| join(loaded, next));
        let (Some(segment), Some(prev_term)) = (segment, self.log.term_at(next.prev())) else {
            self.counters.out_of_reach += 1;
            peer.await_snapshot();
            effects.event(LogEvent::SendSnapshot { to: peer.node });
            return;
        };
        let prev = Position { term: prev_term, index: next.prev() };
        send_append(peer, now, term, prev, commit, segment, effects);
    }

    /// A decision that appends did not carry is told by itself, after a while.
    fn arm_notice(&mut self, now: Instant) {
        let State::Leader(leader) = &mut self.state else { return };
        let decided = self.decided;
        if leader.notice.is_none() && leader.peers.iter().any(|peer| peer.told < peer.matched().min(decided))
        {
            leader.notice = Some(Notice { at: now + self.config.commit_notice_delay, decided });
        }
    }

    /// Heartbeats, the two reasons to step down, and repetitions.
    pub(crate) fn on_leader_tick(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        if let Some(notice) = leader.notice.filter(|notice| now >= notice.at) {
            leader.notice = None;
            self.on_notice_due(notice.decided, effects);
        }
        self.check_transfer(now, effects);
        let State::Leader(leader) = &mut self.state else { return };
        if now < leader.heartbeat_at {
            return;
        }
        let timeout = self.config.election_timeout;
        if self.disk.is_stalled(now, timeout) {
            self.counters.disk_stalls += 1;
            self.become_follower(now, None, effects);
            return;
        }
        let heard = leader.peers.iter().filter(|peer| now - peer.heard_at < timeout).map(|peer| peer.node);
        let heard: NodeSet = heard.chain([self.node]).collect();
        // While a replication quorum hears this leader, nobody else can be elected; without one, nothing
        // can be decided here, and somebody else might hear one.
        if !self.membership.quorums().is_replication_quorum(&heard) {
            self.counters.quorums_lost += 1;
            self.become_follower(now, None, effects);
            return;
        }
        leader.heartbeat_at = now + self.config.heartbeat_interval;
        if let Some(transfer) = &mut leader.transfer {
            transfer.told = false;
        }
        for peer in &mut leader.peers {
            if peer.lose_patience(now, 2 * self.config.heartbeat_interval) {
                self.counters.fallbacks += 1;
            } else {
                peer.retry_probe(now);
            }
        }
        self.send_heartbeats(now, effects);
    }

    fn on_notice_due(&mut self, decided: LogIndex, effects: &mut Effects) {
        let term = self.hard_state.term;
        let State::Leader(leader) = &mut self.state else { return };
        for peer in &mut leader.peers {
            // Whoever was told something since is left to the appends.
            if peer.told < decided.min(peer.matched()) {
                let commit = self.decided.min(peer.matched());
                peer.told = commit;
                self.counters.commit_notices += 1;
                effects.send(peer.node, Message::CommitNotice(CommitNotice { term, commit }));
            }
        }
    }

    pub(crate) fn on_appended(
        &mut self,
        now: Instant,
        from: NodeId,
        reply: Appended,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        self.adopt_newer(now, reply.term, effects);
        let term = self.hard_state.term;
        let last = self.log.last_index();
        let State::Leader(leader) = &mut self.state else { return Ok(()) };
        if reply.term < term {
            return Ok(());
        }
        if reply.through > last {
            return Err(Rejection::Unasked);
        }
        let Some(peer) = leader.peer(from) else { return Err(Rejection::Stranger) };
        peer.heard_at = now;
        leader.progressed |= peer.on_appended(reply.through, now);
        Ok(())
    }

    pub(crate) fn on_append_rejected(
        &mut self,
        now: Instant,
        from: NodeId,
        reply: AppendRejected,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        self.adopt_newer(now, reply.term, effects);
        let term = self.hard_state.term;
        let State::Leader(leader) = &mut self.state else { return Ok(()) };
        if reply.term < term {
            return Ok(());
        }
        if reply.prev > self.log.last_index() || reply.prev == LogIndex::ZERO {
            return Err(Rejection::Unasked);
        }
        // The logs can match only at an entry of a term that both have: jump over the others.
        let resume = self.log.last_not_above(reply.hint);
        let Some(peer) = leader.peer(from) else { return Err(Rejection::Stranger) };
        peer.heard_at = now;
        self.counters.conflicts += u64::from(peer.on_rejected(reply.prev, resume));
        Ok(())
    }
}

fn command_weight(command: &Command) -> usize {
    command.payload.len() + Entry::OVERHEAD
}

/// The entries from `next` on, in one piece; `None` if they are not what was asked for.
fn join(loaded: Loaded, next: LogIndex) -> Option<Weighed> {
    let mut segments = loaded.segments.into_iter();
    let first = segments.next().filter(|first| first.first_index() == next)?;
    let mut following = segments.peekable();
    let entries = if following.peek().is_none() {
        first
    } else {
        let mut copied = first.to_vec();
        copied.extend(following.flat_map(|segment| segment.to_vec()));
        Entries::new(copied).ok()?
    };
    let weight = entries.weight();
    Some(Weighed { entries, weight })
}

fn send_append(
    peer: &mut Progress,
    now: Instant,
    term: Term,
    prev: Position,
    commit: LogIndex,
    segment: Weighed,
    effects: &mut Effects,
) {
    let Weighed { entries, weight } = segment;
    let through = prev.index.advance(entries.len() as u64);
    peer.sent(through, weight, now);
    peer.told = peer.told.max(commit.min(through));
    effects.send(peer.node, Message::Append(Append { term, prev, commit, entries }));
}

// --- the follower ---

impl Raft {
    /// The sender claims to lead `term`. True if this replica follows it from now on.
    pub(crate) fn hear_leader(
        &mut self,
        now: Instant,
        from: NodeId,
        term: Term,
        effects: &mut Effects,
    ) -> Result<bool, Rejection> {
        if term < self.term() {
            // Silence would leave it leading for as long as nobody else is elected.
            self.send_with_term(from, Message::NewerTerm(NewerTerm { term: self.term() }), effects);
            return Ok(false);
        }
        self.adopt_newer(now, term, effects);
        match &mut self.state {
            State::Leader(_) => return Err(Rejection::SecondLeader),
            State::Follower(follower) => match &mut follower.leader {
                Some(leader) if leader.node == from => leader.heard_at = now,
                Some(_) => return Err(Rejection::SecondLeader),
                None => self.become_follower(now, Some(from), effects),
            },
            State::PreCandidate { .. } | State::Candidate { .. } => {
                self.become_follower(now, Some(from), effects);
            }
        }
        self.election_at = now + self.election_wait;
        self.promise.renew(now);
        Ok(true)
    }

    pub(crate) fn on_append(
        &mut self,
        now: Instant,
        from: NodeId,
        append: Append,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Append { term, prev, commit, entries } = append;
        let weight = check_entries(term, prev, &entries)?;
        if !self.hear_leader(now, from, term, effects)? {
            return Ok(());
        }
        let base = self.log.base().index;
        if prev.index >= base && self.log.term_at(prev.index) != Some(prev.term) {
            if prev.index <= self.decided {
                return Err(Rejection::Decided);
            }
            let hint = self.log.last_not_above(prev);
            let reply = AppendRejected { term, prev: prev.index, hint };
            self.send_with_term(from, Message::AppendRejected(reply), effects);
            return Ok(());
        }
        let proven = prev.index.advance(entries.len() as u64);
        self.accept(now, entries, weight, effects)?;
        self.decided = self.decided.max(commit.min(proven));
        let State::Follower(follower) = &mut self.state else { unreachable!("it follows the sender") };
        follower.acknowledge = follower.acknowledge.max(Some(proven));
        Ok(())
    }

    /// Takes over the entries that are not here yet. Cuts the log off only where they contradict it: an
    /// earlier append that arrives late must not remove what a later one brought.
    fn accept(
        &mut self,
        now: Instant,
        entries: Entries,
        weight: usize,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let base = self.log.base();
        if entries.at(base.index).is_some_and(|entry| Term(entry.stamp.high) != base.term) {
            return Err(Rejection::Decided);
        }
        let mut fresh = first.index.max(base.index.next());
        let overlap = last.index.min(self.log.last_index());
        while fresh <= overlap
            && self.log.term_at(fresh) == entries.at(fresh).map(|entry| Term(entry.stamp.high))
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
            self.truncate_from(fresh, effects);
        }
        let (entries, weight) = if fresh == first.index {
            (entries, weight)
        } else {
            let rest = entries.slice(IndexRange::new(fresh, entries.range().to));
            let weight = rest.weight();
            (rest, weight)
        };
        self.log.append(entries.clone(), weight);
        self.disk.wrote(effects.write_id(), self.log.last_index(), now);
        effects.put(entries);
        Ok(())
    }

    fn truncate_from(&mut self, from: LogIndex, effects: &mut Effects) {
        assert!(from > self.decided, "Leader Completeness: a decided entry is never removed");
        assert!(!matches!(self.state, State::Leader(_)), "Leader Append-Only");
        self.counters.truncations += 1;
        self.log.truncate_from(from);
        self.disk.truncated_from(from);
        effects.truncate_from(from);
    }

    pub(crate) fn on_commit_notice(
        &mut self,
        now: Instant,
        from: NodeId,
        notice: CommitNotice,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        if !self.hear_leader(now, from, notice.term, effects)? {
            return Ok(());
        }
        self.learn_decided(notice.commit)
    }

    /// The leader knows that everything through `commit` is decided and, durably, here.
    pub(crate) fn learn_decided(&mut self, commit: LogIndex) -> Result<(), Rejection> {
        if commit > self.log.last_index() {
            return Err(Rejection::Commit);
        }
        self.decided = self.decided.max(commit);
        Ok(())
    }

    /// Acknowledges everything that the batch proved, in one message.
    pub(crate) fn flush_follower(&mut self, effects: &mut Effects) {
        let term = self.hard_state.term;
        let State::Follower(follower) = &mut self.state else { return };
        let (Some(through), Some(leader)) = (follower.acknowledge.take(), follower.leader) else { return };
        let message = Message::Appended(Appended { term, through });
        if through <= self.disk.durable() {
            self.send_with_term(leader.node, message, effects);
        } else {
            effects.send_after_write(leader.node, message);
        }
    }
}

/// The weight of entries that the leader of `term` can have after `prev`.
fn check_entries(term: Term, prev: Position, entries: &Entries) -> Result<usize, Rejection> {
    let starts_well = (prev.index == LogIndex::ZERO) == (prev.term == Term::ZERO) && prev.term <= term;
    let follows = entries.first().is_none_or(|first| first.index.0.checked_sub(1) == Some(prev.index.0));
    let ends = prev.index.0.checked_add(entries.len() as u64 + 1).is_some();
    if !starts_well || !follows || !ends {
        return Err(Rejection::Entries);
    }
    let mut known = prev.term.0.max(1);
    let mut weight = 0;
    for entry in entries.iter() {
        let stamp = entry.stamp.high;
        if stamp < known || !entry.kind.is_decidable() || entry.stamp.low != 0 || entry.reign.number != stamp
        {
            return Err(Rejection::Entries);
        }
        known = stamp;
        weight += entry.weight();
    }
    if known > term.0 { Err(Rejection::Entries) } else { Ok(weight) }
}
