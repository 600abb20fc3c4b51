//! The leader: phase 2 for slot after slot, windows, watermarks.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::{
    Command, Entries, Entry, Instant, LeaderLease, LogEvent, LogIndex, NodeId, NodeSet, Refusal, WriteId,
};

use crate::ballot::Ballot;
use crate::counters::Rejection;
use crate::election::consecutive;
use crate::message::{Accept, Accepted, CommitNotice, Message, Round};
use crate::multipaxos::{Effects, MultiPaxos, State, checked_slot};
use crate::progress::{Progress, Room};
use crate::proposals::{Proposals, Weighed};
use crate::read::Reads;
use crate::transfer::Transfer;

/// What only a leader has.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    pub(crate) ballot: Ballot,
    /// The first slot of the ballot.
    pub(crate) first: LogIndex,
    /// Once everything through here is decided, so is all that any earlier leader acknowledged.
    pub(crate) settled: LogIndex,
    pub(crate) peers: Vec<Progress>,
    /// What was proposed in this ballot.
    pub(crate) proposals: Proposals,
    /// Commands without a slot yet.
    queue: Vec<Command>,
    queue_bytes: usize,
    /// Proposals that are not decided, or not on this replica's own disk yet: last slot and weight of each batch.
    unsettled: VecDeque<(LogIndex, usize)>,
    unsettled_bytes: usize,
    /// This replica's own votes on their way to its disk: the unit, and the last slot it holds.
    votes_in_flight: VecDeque<(WriteId, LogIndex)>,
    /// This replica's own votes are durable through here.
    durable: LogIndex,
    /// True if somebody's votes may have become more since they were counted last.
    progressed: bool,
    heartbeat_at: Instant,
    notice: Option<Notice>,
    pub(crate) reads: Reads,
    pub(crate) transfer: Option<Transfer>,
}

/// A watermark that some peer was not told of yet.
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

    pub(crate) fn peer(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.peers.iter_mut().find(|peer| peer.node == node)
    }

    pub(crate) fn confirmed(&self, node: NodeId) -> Round {
        self.peers.iter().find(|peer| peer.node == node).map_or(Round::default(), |peer| peer.confirmed)
    }

    pub(crate) fn accepted(&self, node: NodeId) -> LogIndex {
        self.peers.iter().find(|peer| peer.node == node).map_or(LogIndex::ZERO, Progress::accepted)
    }

    /// The last slot that something was proposed for in order, that is, not in a fast round.
    pub(crate) fn last_proposed(&self) -> LogIndex {
        self.proposals.last()
    }

    /// What was proposed there in order, if it is still in memory.
    pub(crate) fn proposed(&self, slot: LogIndex) -> Option<&Entry> {
        self.proposals.get(slot)
    }

    /// Those heard within `timeout`, and this replica itself.
    pub(crate) fn heard_within(&self, now: Instant, timeout: Duration, me: NodeId) -> NodeSet {
        let heard = self.peers.iter().filter(|peer| now - peer.heard_at < timeout).map(|peer| peer.node);
        heard.chain([me]).collect()
    }

    pub(crate) fn on_persisted(&mut self, id: WriteId) {
        while let Some((_, through)) = self.votes_in_flight.front().filter(|(unit, _)| *unit <= id) {
            self.durable = *through;
            self.votes_in_flight.pop_front();
            self.progressed = true;
        }
    }

    /// The leadership ends. What has no slot yet is handed back.
    pub(crate) fn give_up(self, effects: &mut Effects) {
        for command in self.queue {
            effects.event(LogEvent::Refused { command, why: Refusal::NotLeader { leader: None } });
        }
        self.reads.give_up(effects);
    }
}

impl MultiPaxos {
    /// Leads from the first slot above the watermark, and proposes `again` what earlier leaders may have had
    /// chosen there, in one burst.
    pub(crate) fn become_leader(
        &mut self,
        now: Instant,
        ballot: Ballot,
        again: Vec<Entry>,
        effects: &mut Effects,
    ) {
        assert!(matches!(self.state, State::Candidate(_)), "only a campaign makes a leader");
        assert_eq!(self.promised.ballot(), ballot, "a leader has promised its own ballot");
        self.counters.campaigns_won += 1;
        let first = self.decided.next();
        let peers = self.membership.peers_of(self.node).map(|node| Progress::new(node, first, now));
        self.state = State::Leader(Box::new(Leader {
            ballot,
            first,
            settled: again.last().map_or(self.decided, |entry| entry.index),
            peers: peers.collect(),
            proposals: Proposals::new(self.decided, self.config.tail_bytes_max),
            queue: Vec::new(),
            queue_bytes: 0,
            unsettled: VecDeque::new(),
            unsettled_bytes: 0,
            votes_in_flight: VecDeque::new(),
            durable: self.decided,
            progressed: true,
            heartbeat_at: now + self.config.heartbeat_interval,
            notice: None,
            reads: Reads::new(
                self.config.lease_reads.map(|clocks| LeaderLease::new(clocks, self.config.loyalty())),
            ),
            transfer: None,
        }));
        self.followed = ballot;
        self.lost = 0;
        self.learning.learned(self.decided);
        if let Some(entries) = consecutive(again) {
            let weight = entries.weight();
            self.propose_entries(now, entries, weight, effects);
        }
        // Whoever has nothing to accept is to hear of the new leader too.
        self.send_heartbeats(now, effects);
    }

    pub(crate) fn on_propose(&mut self, mut commands: Vec<Command>, effects: &mut Effects) {
        if self.open_rounds().is_some() {
            self.enqueue_fast(commands, effects);
            return;
        }
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
        let settled = self.decided.min(leader.durable);
        let unsettled = usize::try_from(leader.proposals.last().distance_from(settled)).unwrap_or(usize::MAX);
        let entries = unsettled.saturating_add(leader.queue.len());
        let bytes = leader.unsettled_bytes.saturating_add(leader.queue_bytes);
        let mut entries_left = self.config.undecided_entries_max.saturating_sub(entries);
        let mut bytes_left = self.config.undecided_bytes_max.saturating_sub(bytes);
        let mut weight: usize = commands.iter().map(command_weight).sum();
        if commands.len() > entries_left || weight > bytes_left {
            let largest = self.config.undecided_bytes_max;
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
        leader.queue_bytes += weight;
        if leader.queue.is_empty() {
            leader.queue = commands;
        } else {
            leader.queue.extend(commands);
        }
    }

    /// What a leader does once for a batch of steps.
    pub(crate) fn flush_leader(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        if !leader.queue.is_empty() {
            let commands = std::mem::take(&mut leader.queue);
            let weight = std::mem::take(&mut leader.queue_bytes);
            let (stamp, reign) = (leader.ballot.stamp(), leader.ballot.reign());
            let first = leader.proposals.last().next();
            let entries = Entries::numbered(first, commands, |index, command| {
                let Command { kind, request, payload } = command;
                Entry { index, stamp, reign, kind, request, payload }
            });
            self.propose_entries(now, entries, weight, effects);
        }
        self.count_votes();
        self.answer_reads(effects);
        self.start_read_round(now, effects);
        self.send_accepts(now, effects);
        self.press_transfer(effects);
        self.arm_notice(now);
    }

    /// Gives values their slots: one segment, shared by memory, write and messages. The leader's own vote counts
    /// once it is durable.
    fn propose_entries(&mut self, now: Instant, entries: Entries, weight: usize, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { unreachable!("only a leader proposes") };
        let (ballot, last) = (leader.ballot, entries.last_index());
        leader.proposals.push(entries.clone(), weight);
        leader.unsettled.push_back((last, weight));
        leader.unsettled_bytes += weight;
        self.cast(now, ballot, ballot.stamp(), entries, effects);
        let unit = self.vote_write;
        let State::Leader(leader) = &mut self.state else { unreachable!("casting a vote changes no role") };
        match leader.votes_in_flight.back_mut() {
            Some((id, through)) if *id == unit => *through = last,
            _ => leader.votes_in_flight.push_back((unit, last)),
        }
    }

    /// A slot is decided when a replication quorum has durably voted in it, in this ballot.
    fn count_votes(&mut self) {
        let me = self.node;
        let State::Leader(leader) = &mut self.state else { return };
        if !std::mem::take(&mut leader.progressed) {
            return;
        }
        let reached = self.membership.quorums().reached_by_replication_quorum(&|node| {
            if node == me { leader.durable } else { leader.accepted(node) }
        });
        self.decide(reached);
        self.settle();
    }

    /// Forgets what is decided and on this replica's own disk.
    pub(crate) fn settle(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        let settled = self.decided.min(leader.durable);
        while let Some((_, weight)) = leader.unsettled.front().filter(|(last, _)| *last <= settled) {
            leader.unsettled_bytes -= weight;
            leader.unsettled.pop_front();
        }
        leader.proposals.settle(settled);
    }

    /// Sends every peer what its window has room for.
    fn send_accepts(&mut self, now: Instant, effects: &mut Effects) {
        let commit = self.decided;
        let window = Room { entries: self.config.window_entries_max, bytes: self.config.window_bytes_max };
        let accept = Room { entries: self.config.accept_entries_max, bytes: self.config.accept_bytes_max };
        let State::Leader(leader) = &mut self.state else { return };
        let (ballot, first, last) = (leader.ballot, leader.first, leader.proposals.last());
        let to_all = self.config.votes_to_all;
        for peer in &mut leader.peers {
            if peer.next() < leader.proposals.first_held() {
                self.counters.skipped += 1;
                peer.skip_to(leader.proposals.first_held());
            }
            while let Some(room) = peer.room(last, window, accept) {
                let segment = if room.entries == 0 {
                    Weighed { entries: Entries::empty(), weight: 0 }
                } else {
                    let held = leader.proposals.collect(peer.next(), room.entries, room.bytes);
                    held.expect("what is not skipped is held")
                };
                let Weighed { entries, weight } = segment;
                peer.sent(peer.next().prev().advance(entries.len() as u64), weight, now);
                peer.told = peer.told.max(commit);
                effects.send(peer.node, Message::Accept(Accept { ballot, first, commit, to_all, entries }));
            }
        }
    }

    /// A watermark that accepts did not carry is told by itself, after a while.
    fn arm_notice(&mut self, now: Instant) {
        let open = self.open_rounds();
        let State::Leader(leader) = &mut self.state else { return };
        let decided = self.decided;
        // In fast rounds votes tell everybody.
        if open.is_some_and(|open| decided >= open.from) {
            return;
        }
        if leader.notice.is_none() && leader.peers.iter().any(|peer| peer.told < decided) {
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
        let heard = leader.heard_within(now, timeout, self.node);
        // While a replication quorum hears this leader, nobody else can be elected without it; without one,
        // nothing can be decided here, and somebody better connected is kept from leading.
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
                peer.retry_probe();
            }
        }
        self.send_heartbeats(now, effects);
    }

    fn on_notice_due(&mut self, decided: LogIndex, effects: &mut Effects) {
        let commit = self.decided;
        let State::Leader(leader) = &mut self.state else { return };
        let (ballot, first) = (leader.ballot, leader.first);
        for peer in &mut leader.peers {
            // Whoever was told something since is left to the accepts.
            if peer.told < decided {
                peer.told = commit;
                self.counters.commit_notices += 1;
                let notice = Message::CommitNotice(CommitNotice { ballot, first, commit });
                effects.send(peer.node, notice);
            }
        }
    }

    pub(crate) fn on_accepted(
        &mut self,
        now: Instant,
        from: NodeId,
        accepted: Accepted,
        _effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Accepted { ballot, through, decided } = accepted;
        checked_slot(decided)?;
        let is_fast = self.fast.is_some();
        if ballot.node != self.node {
            return if is_fast { Err(Rejection::Ballot) } else { self.on_vote_told(now, from, accepted) };
        }
        let State::Leader(leader) = &mut self.state else { return Ok(()) };
        // Votes of different ballots are never added up.
        if ballot != leader.ballot {
            return Ok(());
        }
        if through > leader.proposals.last() && !is_fast {
            return Err(Rejection::Unasked);
        }
        // Beyond what is proposed in order, votes are told slot by slot.
        let through = through.min(leader.proposals.last());
        let Some(peer) = leader.peer(from) else { return Err(Rejection::Stranger) };
        peer.heard_at = now;
        let news = peer.on_accepted(through, now);
        leader.progressed |= news;
        // A peer that knows more has no use for this leader's votes: learn from it.
        self.note_known(now, from, decided);
        Ok(())
    }

    /// A peer knows more decided values than this leader. If they are the ones that it proposed, well; if not,
    /// there is a later leader.
    pub(crate) fn leader_learns(&mut self, now: Instant, news: Entries, effects: &mut Effects) {
        if self.open_rounds().is_some() {
            self.coordinator_learns(now, news, effects);
            return;
        }
        let State::Leader(leader) = &mut self.state else { return };
        self.counters.leader_learned += 1;
        let mine = |entry: &Entry| leader.proposals.get(entry.index).is_some_and(|own| own.same_value(entry));
        if news.iter().all(mine) {
            self.decide(news.last_index());
            self.settle();
        } else {
            self.become_follower(now, None, effects);
            self.take_over(now, news, effects);
        }
    }
}

fn command_weight(command: &Command) -> usize {
    command.payload.len() + Entry::OVERHEAD
}
