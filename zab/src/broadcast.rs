//! Phase 3, broadcast, from the leader's side: proposals to every follower whose epoch was acknowledged, and
//! the commit rule. Synchronisation sends by the same means.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::{
    Command, Compacted, Entries, Entry, IndexRange, Instant, LoadId, Loaded, LogEvent, LogIndex, NodeId,
    NodeSet, Refusal,
};

use crate::counters::Rejection;
use crate::log::Weighed;
use crate::message::{
    Ack, Beat, Commit, Epoch, Message, NewLeader, Place, Proposal, Session, Vote, Zxid, reign,
};
use crate::progress::{Learner, Room, Stage};
use crate::read::Reads;
use crate::zab::{Effects, State, Zab};

/// What only a leader has.
#[derive(Clone, Debug)]
pub(crate) struct Leading {
    /// The vote that elected it.
    pub(crate) vote: Vote,
    pub(crate) phase: Phase,
    /// The epoch it leads, once it has one.
    pub(crate) epoch: Epoch,
    began: Instant,
    pub(crate) learners: Vec<Learner>,
    /// Proposed since the last flush, and not in the log yet.
    proposed: Vec<Command>,
    proposed_bytes: usize,
    /// Segments of this epoch that are not decided, or not on this replica's own disk yet: last index and
    /// weight of each.
    unsettled: VecDeque<(LogIndex, usize)>,
    unsettled_bytes: usize,
    /// True if somebody's log may have been confirmed further since the commit rule was last applied.
    progressed: bool,
    pub(crate) ping_at: Instant,
    notice: Option<Notice>,
    pub(crate) reads: Reads,
}

/// How far a leader has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Phase 1: until a quorum has said hello.
    Gathering,
    /// Phase 1: until a quorum has promised the epoch.
    Promising,
    /// Phase 2: until a quorum has acknowledged NEWLEADER.
    Synchronisation,
    /// Phase 3.
    Broadcast,
}

/// A decision that some follower was not told of yet.
#[derive(Clone, Copy, Debug)]
struct Notice {
    at: Instant,
    decided: LogIndex,
}

impl Leading {
    pub(crate) fn new(vote: Vote, now: Instant, heartbeat_interval: Duration) -> Leading {
        Leading {
            vote,
            phase: Phase::Gathering,
            epoch: Epoch::ZERO,
            began: now,
            learners: Vec::new(),
            proposed: Vec::new(),
            proposed_bytes: 0,
            unsettled: VecDeque::new(),
            unsettled_bytes: 0,
            progressed: true,
            ping_at: now + heartbeat_interval,
            notice: None,
            reads: Reads::default(),
        }
    }

    pub(crate) fn next_deadline(&self, timeout: Duration) -> Instant {
        let mut next = self.ping_at;
        if self.phase < Phase::Synchronisation {
            next = next.min(self.began + timeout);
        }
        self.notice.map_or(next, |notice| notice.at.min(next))
    }

    pub(crate) fn note_progress(&mut self) {
        self.progressed = true;
    }

    pub(crate) fn learner(&mut self, node: NodeId) -> Option<&mut Learner> {
        self.learners.iter_mut().find(|learner| learner.node == node)
    }

    pub(crate) fn answered(&self) -> Vec<NodeId> {
        let answered = |learner: &&Learner| matches!(learner.stage, Stage::Answered { .. });
        self.learners.iter().filter(answered).map(|learner| learner.node).collect()
    }

    pub(crate) fn confirmed(&self, node: NodeId) -> Beat {
        let learner = self.learners.iter().find(|learner| learner.node == node);
        learner.map_or(Beat::default(), |learner| learner.confirmed)
    }

    fn acked(&self, node: NodeId) -> Option<LogIndex> {
        self.learners.iter().find(|learner| learner.node == node)?.acked
    }

    /// The leadership ends. What is not in the log yet is handed back.
    pub(crate) fn give_up(self, effects: &mut Effects) {
        for command in self.proposed {
            effects.event(LogEvent::Refused { command, why: Refusal::NotLeader { leader: None } });
        }
        self.reads.give_up(effects);
    }
}

impl Zab {
    pub(crate) fn on_propose(&mut self, mut commands: Vec<Command>, effects: &mut Effects) {
        let why = self.not_leader();
        let leading = match &mut self.state {
            State::Leading(leading) if leading.phase == Phase::Broadcast => leading,
            _ => {
                for command in commands {
                    effects.event(LogEvent::Refused { command, why });
                }
                return;
            }
        };
        // What others have decided and this disk has not yet written counts too: its queue is bounded by this.
        let settled = self.decided.min(self.disk.durable());
        let unsettled = usize::try_from(self.log.last_index().distance_from(settled)).unwrap_or(usize::MAX);
        let entries = unsettled.saturating_add(leading.proposed.len());
        let bytes = leading.unsettled_bytes.saturating_add(leading.proposed_bytes);
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
        leading.proposed_bytes += weight;
        if leading.proposed.is_empty() {
            leading.proposed = commands;
        } else {
            leading.proposed.extend(commands);
        }
    }

    /// What a leader does once for a batch of steps.
    pub(crate) fn flush_leader(&mut self, now: Instant, effects: &mut Effects) {
        self.append_own(now, effects);
        self.advance_decided(effects);
        self.start_read_round(effects);
        self.send_proposals(now, effects);
        self.arm_notice(now);
    }

    /// Appends what was proposed under the next zxids: one segment, shared by log, write and messages.
    fn append_own(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leading(leading) = &mut self.state else { return };
        if leading.proposed.is_empty() {
            return;
        }
        let commands = std::mem::take(&mut leading.proposed);
        let weight = std::mem::take(&mut leading.proposed_bytes);
        let (epoch, before) = (leading.epoch, self.log.last());
        let mut counter = if before.zxid.epoch == epoch { before.zxid.counter } else { 0 };
        let reign = reign(epoch, self.node);
        let entries = Entries::numbered(before.index.next(), commands, |index, command| {
            let Command { kind, request, payload } = command;
            counter += 1;
            Entry { index, stamp: Zxid { epoch, counter }.stamp(), reign, kind, request, payload }
        });
        self.log.append(entries.clone(), weight);
        let last = self.log.last_index();
        leading.unsettled.push_back((last, weight));
        leading.unsettled_bytes += weight;
        let unit = effects.put(entries);
        self.disk.wrote(unit, last, now);
    }

    /// The commit rule: a replication quorum acknowledged NEWLEADER, and the history through there.
    fn advance_decided(&mut self, effects: &mut Effects) {
        // This replica acknowledges to itself, like everybody else: its current epoch is durable, then its log.
        let own = self.disk.holds(self.current_write).then(|| self.disk.durable());
        let State::Leading(leading) = &mut self.state else { return };
        if leading.phase < Phase::Synchronisation || !std::mem::take(&mut leading.progressed) {
            return;
        }
        let quorums = self.membership.quorums();
        let acked = |node| if node == self.node { own } else { leading.acked(node) };
        let established = leading.phase == Phase::Broadcast || {
            let mut all = self.membership.members().iter().map(|member| member.id);
            let set: NodeSet = all.by_ref().filter(|node| acked(*node).is_some()).collect();
            quorums.is_replication_quorum(&set)
        };
        if !established {
            return;
        }
        let reached = quorums.reached_by_replication_quorum(&|node| acked(node).unwrap_or(LogIndex::ZERO));
        self.decided = self.decided.max(reached);
        let settled = self.decided.min(self.disk.durable());
        while let Some((_, weight)) = leading.unsettled.front().filter(|(last, _)| *last <= settled) {
            leading.unsettled_bytes -= weight;
            leading.unsettled.pop_front();
        }
        if leading.phase != Phase::Broadcast {
            leading.phase = Phase::Broadcast;
            self.counters.established += 1;
            self.tell_up_to_date(effects);
        }
    }

    /// UPTODATE, to everybody who acknowledged NEWLEADER. It carries the latest decision and not that of the
    /// acknowledgement: what was decided meanwhile must not be missed.
    fn tell_up_to_date(&mut self, effects: &mut Effects) {
        let decided = self.decided;
        let State::Leading(leading) = &mut self.state else { return };
        let epoch = leading.epoch;
        for learner in leading.learners.iter_mut().filter(|learner| learner.stage == Stage::Synchronised) {
            tell_decided(learner, epoch, decided, effects);
        }
    }

    /// Sends every follower what its window has room for, and NEWLEADER after what it lacked.
    fn send_proposals(&mut self, now: Instant, effects: &mut Effects) {
        let commit = self.decided;
        let last = self.log.last_index();
        let window = Room { entries: self.config.window_entries_max, bytes: self.config.window_bytes_max };
        let proposal =
            Room { entries: self.config.proposal_entries_max, bytes: self.config.proposal_bytes_max };
        let State::Leading(leading) = &mut self.state else { return };
        let epoch = leading.epoch;
        for learner in leading.learners.iter_mut().filter(|learner| learner.takes_proposals()) {
            while let Some(room) = learner.room(last, window, proposal) {
                let prev = learner.next().prev();
                let prev_zxid = self.log.zxid_at(prev);
                let Some(prev_zxid) = prev_zxid.filter(|_| prev >= self.log.base().index) else {
                    self.counters.out_of_reach += 1;
                    learner.await_snapshot();
                    effects.event(LogEvent::SendSnapshot { to: learner.node });
                    break;
                };
                let prev = Place { zxid: prev_zxid, index: prev };
                let segment = if room.entries == 0 || learner.next() > last {
                    Some(Weighed { entries: Entries::empty(), weight: 0 })
                } else {
                    self.log.collect(learner.next(), room.entries, room.bytes)
                };
                let Some(segment) = segment else {
                    let to = learner.next().advance(room.entries as u64).min(last.next());
                    self.counters.loads += 1;
                    learner.load = Some(effects.load(IndexRange::new(learner.next(), to), room.bytes));
                    break;
                };
                send_proposal(learner, now, epoch, prev, commit, segment, effects);
            }
            // A snapshot may have brought it all of that at once: then no proposal is left to go before.
            announce(learner, epoch, learner.matched(), effects);
        }
    }

    /// Entries for a follower that is behind came back from storage.
    pub(crate) fn on_loaded(
        &mut self,
        now: Instant,
        id: LoadId,
        result: Result<Loaded, Compacted>,
        effects: &mut Effects,
    ) {
        let commit = self.decided;
        let State::Leading(leading) = &mut self.state else { return };
        let epoch = leading.epoch;
        let Some(learner) = leading.learners.iter_mut().find(|learner| learner.load == Some(id)) else {
            return;
        };
        learner.load = None;
        let next = learner.next();
        let segment = result.ok().and_then(|loaded| join(loaded, next));
        let (Some(segment), Some(zxid)) = (segment, self.log.zxid_at(next.prev())) else {
            self.counters.out_of_reach += 1;
            learner.await_snapshot();
            effects.event(LogEvent::SendSnapshot { to: learner.node });
            return;
        };
        let prev = Place { zxid, index: next.prev() };
        send_proposal(learner, now, epoch, prev, commit, segment, effects);
    }

    /// ACK-LD and ACK.
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Ack,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let (last, decided) = (self.log.last_index(), self.decided);
        let Some((leading, at)) = self.session_with(now, from, message.session) else { return Ok(()) };
        let learner = &mut leading.learners[at];
        let first = match learner.stage {
            // NEWLEADER named more than is acknowledged, or was not sent.
            Stage::Synchronising { target, announced } if !announced || message.through < target.index => {
                return Err(Rejection::Unasked);
            }
            Stage::Hello | Stage::Answered { .. } => return Err(Rejection::Unasked),
            Stage::Synchronising { .. } => true,
            Stage::Synchronised => false,
        };
        if message.through > last {
            return Err(Rejection::Unasked);
        }
        learner.stage = Stage::Synchronised;
        learner.on_received(message.through, now);
        let acked = learner.acked.max(Some(message.through));
        let news = first || acked != learner.acked;
        learner.acked = acked;
        if first && leading.phase == Phase::Broadcast {
            tell_decided(&mut leading.learners[at], message.session.epoch, decided, effects);
        }
        leading.progressed |= news;
        Ok(())
    }

    /// A decision that proposals did not carry is told by itself, after a while.
    fn arm_notice(&mut self, now: Instant) {
        let State::Leading(leading) = &mut self.state else { return };
        let decided = self.decided;
        let untold = |learner: &Learner| {
            learner.stage == Stage::Synchronised && learner.told < learner.matched().min(decided)
        };
        if leading.notice.is_none() && leading.learners.iter().any(untold) {
            leading.notice = Some(Notice { at: now + self.config.commit_delay, decided });
        }
    }

    /// Pings, the reasons to step down, and repetitions.
    pub(crate) fn on_leading_tick(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leading(leading) = &mut self.state else { return };
        if let Some(notice) = leading.notice.filter(|notice| now >= notice.at) {
            leading.notice = None;
            self.on_notice_due(notice.decided, effects);
        }
        let State::Leading(leading) = &mut self.state else { return };
        let timeout = self.config.election_timeout;
        if leading.phase < Phase::Synchronisation && now >= leading.began + timeout {
            self.counters.discoveries_failed += 1;
            self.become_looking(now, effects);
            return;
        }
        if now < leading.ping_at {
            return;
        }
        if self.disk.is_stalled(now, timeout) {
            self.counters.disk_stalls += 1;
            self.become_looking(now, effects);
            return;
        }
        if leading.phase >= Phase::Synchronisation {
            let heard = leading.learners.iter().filter(|learner| now - learner.heard_at < timeout);
            let heard: NodeSet = heard.map(|learner| learner.node).chain([self.node]).collect();
            // While a replication quorum hears this leader, nobody else has a quorum of promises; without one,
            // nothing can be decided here.
            if !self.membership.quorums().is_replication_quorum(&heard) {
                self.counters.quorums_lost += 1;
                self.become_looking(now, effects);
                return;
            }
        }
        leading.ping_at = now + self.config.heartbeat_interval;
        self.repeat(now, effects);
        self.send_pings(effects);
    }

    /// Says again what may have been lost: NEWEPOCH, NEWLEADER, and entries that nobody acknowledged.
    fn repeat(&mut self, now: Instant, effects: &mut Effects) {
        let (promise, promised) = (self.promise_write, self.disk.holds(self.promise_write));
        let State::Leading(leading) = &mut self.state else { return };
        if leading.phase == Phase::Gathering {
            return;
        }
        let epoch = leading.epoch;
        for learner in &mut leading.learners {
            let session = Session { epoch, attempt: learner.attempt };
            match learner.stage {
                Stage::Hello => {
                    let message = Message::NewEpoch(crate::message::NewEpoch { session });
                    if promised {
                        effects.send(learner.node, message);
                    } else {
                        effects.send_after(learner.node, message, promise);
                    }
                }
                Stage::Answered { .. } => {}
                Stage::Synchronising { target: last, announced: true } => {
                    effects.send(learner.node, Message::NewLeader(NewLeader { session, last }));
                }
                Stage::Synchronising { .. } | Stage::Synchronised => {}
            }
            if learner.lose_patience(now, 2 * self.config.heartbeat_interval) {
                self.counters.fallbacks += 1;
            } else {
                learner.retry_probe(now);
            }
        }
    }

    fn on_notice_due(&mut self, decided: LogIndex, effects: &mut Effects) {
        let latest = self.decided;
        let State::Leading(leading) = &mut self.state else { return };
        let epoch = leading.epoch;
        for learner in leading.learners.iter_mut().filter(|learner| learner.stage == Stage::Synchronised) {
            // Whoever was told something since is left to the proposals.
            if learner.told < decided.min(learner.matched()) {
                self.counters.commits += 1;
                tell_decided(learner, epoch, latest, effects);
            }
        }
    }
}

fn tell_decided(learner: &mut Learner, epoch: Epoch, decided: LogIndex, effects: &mut Effects) {
    let through = decided.min(learner.matched());
    learner.told = learner.told.max(through);
    let session = Session { epoch, attempt: learner.attempt };
    effects.send(learner.node, Message::Commit(Commit { session, through }));
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

fn send_proposal(
    learner: &mut Learner,
    now: Instant,
    epoch: Epoch,
    prev: Place,
    commit: LogIndex,
    segment: Weighed,
    effects: &mut Effects,
) {
    let Weighed { entries, weight } = segment;
    let through = prev.index.advance(entries.len() as u64);
    let session = Session { epoch, attempt: learner.attempt };
    learner.sent(through, weight, now);
    if learner.stage == Stage::Synchronised {
        learner.told = learner.told.max(commit.min(through));
    }
    effects.send(learner.node, Message::Proposal(Proposal { session, prev, commit, entries }));
    announce(learner, epoch, through, effects);
}

/// NEWLEADER, strictly after all that it stands for: through `through` everything was sent, or is there.
fn announce(learner: &mut Learner, epoch: Epoch, through: LogIndex, effects: &mut Effects) {
    if let Stage::Synchronising { target, announced: false } = learner.stage
        && through >= target.index
    {
        learner.stage = Stage::Synchronising { target, announced: true };
        let session = Session { epoch, attempt: learner.attempt };
        effects.send(learner.node, Message::NewLeader(NewLeader { session, last: target }));
    }
}
