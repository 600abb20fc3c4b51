//! The coordinator: a leader opens fast rounds, sees to slots that they do not decide, and orders alone while that is
//! better.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use synod_core::{Entries, Entry, Instant, LogIndex, NodeId, NodeSet};

use crate::counters::Rejection;
use crate::election::noop;
use crate::fast::{Open, Recovery, Tuning, segmented};
use crate::message::{Message, Resolve, Standing, Suggest};
use crate::multipaxos::{Effects, MultiPaxos, State};
use crate::read::RoundAnswer;

/// What a replica remembers of coordinating.
#[derive(Clone, Debug)]
pub(crate) struct Coordinator {
    /// Slots with a new vote that decided nothing.
    suspects: BTreeSet<LogIndex>,
    /// When undecided slots are looked after, and the last of them: they were in use when the wait began.
    sweep: Option<(Instant, LogIndex)>,
    /// Slots decided since the window began: in fast rounds, and in classic ones.
    window: (u64, u64),
    /// No fast rounds are opened before.
    fast_at: Instant,
    /// How often it fell back without a good window since.
    strikes: u32,
}

impl Coordinator {
    pub(crate) fn new(now: Instant) -> Coordinator {
        Coordinator { suspects: BTreeSet::new(), sweep: None, window: (0, 0), fast_at: now, strikes: 0 }
    }

    pub(crate) fn sweep_at(&self) -> Option<Instant> {
        self.sweep.map(|(at, _)| at)
    }

    pub(crate) fn suspect(&mut self, slot: LogIndex) {
        self.suspects.insert(slot);
    }

    /// A slot of the open rounds was decided.
    pub(crate) fn count(&mut self, slow: bool) {
        if slow {
            self.window.1 += 1;
        } else {
            self.window.0 += 1;
        }
    }

    /// Judges a window once it is full. True if too much of it took the slow path.
    fn judge(&mut self, tuning: &Tuning) -> bool {
        let (fast, slow) = self.window;
        let total = fast + slow;
        if total < tuning.fall_back_window {
            return false;
        }
        self.window = (0, 0);
        if 100 * slow > tuning.fall_back_percent.saturating_mul(total) {
            return true;
        }
        if 200 * slow < tuning.fall_back_percent.saturating_mul(total) {
            self.strikes = 0;
        }
        false
    }

    /// Orders alone from now on, for longer each time.
    fn strike(&mut self, now: Instant, tuning: &Tuning) {
        self.fast_at = now + tuning.fast_again_after * (1 << self.strikes.min(STRIKES_COUNTED));
        self.strikes = self.strikes.saturating_add(1);
        self.window = (0, 0);
        self.sweep = None;
        self.suspects.clear();
    }
}

impl MultiPaxos {
    /// Opens the fast rounds of this leader's ballot, for every slot above what it has proposed. Phase 1 has found
    /// nothing there, so any value may be proposed: also "any". What it had to propose again is decided first: nothing
    /// above could be applied before, and a ballot that ends soon must leave less to propose again than it found.
    pub(crate) fn try_open(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leader(leader) = &self.state else { return };
        if self.decided < leader.settled {
            return;
        }
        let (ballot, from) = (leader.ballot, leader.last_proposed().next());
        let heard = leader.heard_within(now, self.config.election_timeout, self.node);
        let Some(fast) = &mut self.fast else { return };
        let is_open = fast.any.is_some_and(|open| open.ballot == ballot);
        if is_open || now < fast.coordinator.fast_at || !self.membership.quorums().is_fast_quorum(&heard) {
            return;
        }
        fast.any = Some(Open { ballot, from });
        fast.coordinator.window = (0, 0);
        self.counters.opened += 1;
        self.send_heartbeats(now, effects);
    }

    pub(crate) fn on_standing(
        &mut self,
        now: Instant,
        from: NodeId,
        standing: Standing,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Standing { ballot, round, decided, last } = standing;
        if self.fast.is_none() {
            return Err(Rejection::Unasked);
        }
        // Others decide without the coordinator in fast rounds: no lease would do.
        let answer = RoundAnswer { round, last, loyal_for: Duration::ZERO };
        self.on_round_answered(now, from, ballot, answer, effects)?;
        self.note_known(now, from, decided);
        Ok(())
    }

    /// Looks at slots with new votes: where no value can reach a fast quorum any more, the coordinator decides.
    pub(crate) fn resolve_collisions(&mut self, now: Instant, effects: &mut Effects) {
        let Some(fast) = &mut self.fast else { return };
        let suspects = std::mem::take(&mut fast.coordinator.suspects);
        if !matches!(self.state, State::Leader(_)) {
            return;
        }
        let Some(open) = self.open_rounds() else { return };
        let Some(fast) = &self.fast else { return };
        let quorums = self.membership.quorums();
        let stuck: Vec<LogIndex> = suspects
            .into_iter()
            .filter(|slot| {
                fast.tally.slot(*slot).is_some_and(|tally| {
                    tally.chosen.is_none() && tally.resolved.is_none() && tally.is_stuck(quorums)
                })
            })
            .collect();
        self.counters.collisions += stuck.len() as u64;
        self.resolve(now, open, &stuck, effects);
    }

    /// Has these slots decided in their classic rounds, as far as an election quorum's votes are known. One value for
    /// each, for ever: it is remembered until the slot is decided.
    fn resolve(&mut self, now: Instant, open: Open, slots: &[LogIndex], effects: &mut Effects) {
        let Some(fast) = &mut self.fast else { return };
        // The votes counted are those of this very ballot, or they promise nothing.
        if fast.tally.ballot() != open.ballot || slots.is_empty() {
            return;
        }
        let quorums = self.membership.quorums();
        let mut values = Vec::new();
        for slot in slots {
            let tally = fast.tally.slot_mut(*slot);
            if tally.resolved.is_none()
                && let Some(value) = tally.resolution(quorums)
            {
                let value = Entry { stamp: open.ballot.stamp(), ..value };
                tally.resolved = Some(value.clone());
                values.push(value);
            }
        }
        if values.is_empty() {
            return;
        }
        if fast.tuning.recovery == Recovery::Restart {
            self.campaign_again(now, effects);
            return;
        }
        for to in self.other_voters() {
            self.send_resolve(to, values.clone(), effects);
        }
        self.vote_classic(now, self.node, open.ballot, &segmented(values), effects);
    }

    fn send_resolve(&self, to: NodeId, values: Vec<Entry>, effects: &mut Effects) {
        let State::Leader(leader) = &self.state else { return };
        let (ballot, first, commit) = (leader.ballot, leader.first, self.decided);
        let message = |values| Message::Resolve(Resolve { ballot, first, commit, values });
        self.send_values(to, values, message, effects);
    }

    // --- slots that nothing decides by itself ---

    /// While slots in use are undecided, they are looked after in a while.
    pub(crate) fn arm_sweep(&mut self, now: Instant) {
        let leads = matches!(self.state, State::Leader(_)) && self.open_rounds().is_some();
        let decided = self.decided;
        let Some(fast) = &mut self.fast else { return };
        if !leads {
            fast.coordinator.sweep = None;
        } else if fast.coordinator.sweep.is_none() && fast.horizon > decided {
            fast.coordinator.sweep = Some((now + fast.tuning.collision_timeout, fast.horizon));
        }
    }

    /// Slots that were in use a while ago and are undecided: an election quorum's votes suffice for the classic
    /// round; where there are fewer, the value with the most of them is suggested to the others, and a no-op where
    /// nobody is known to have voted. Both compete in the fast round like any other value: whoever has voted there
    /// for something else stays with it.
    pub(crate) fn on_sweep_due(&mut self, now: Instant, effects: &mut Effects) {
        let Some(fast) = &mut self.fast else { return };
        let Some((_, through)) = fast.coordinator.sweep.filter(|(at, _)| *at <= now) else { return };
        fast.coordinator.sweep = None;
        let Some(open) = self.open_rounds() else { return };
        let Some(fast) = &self.fast else { return };
        if !matches!(self.state, State::Leader(_)) || fast.tally.ballot() != open.ballot {
            return;
        }
        let quorums = self.membership.quorums();
        let voters = quorums.members();
        let first = self.decided.next().max(open.from);
        let count = (through.0 + 1).saturating_sub(first.0).min(SWEPT_MAX);
        let mut resolve = Vec::new();
        let mut resent: BTreeMap<NodeId, Vec<Entry>> = BTreeMap::new();
        let mut suggested: BTreeMap<NodeId, Vec<Entry>> = BTreeMap::new();
        for slot in (0..count).map(|offset| first.advance(offset)) {
            let tally = fast.tally.slot(slot);
            if tally.is_some_and(|tally| tally.chosen.is_some()) {
                continue;
            }
            let missing = voters.iter().filter(|node| tally.is_none_or(|tally| !tally.has_vote_of(*node)));
            if let Some(resolved) = tally.and_then(|tally| tally.resolved.as_ref()) {
                missing.for_each(|node| resent.entry(node).or_default().push(resolved.clone()));
            } else if tally.is_some_and(|tally| tally.resolution(quorums).is_some()) {
                resolve.push(slot);
            } else {
                let voted = tally.and_then(|tally| tally.most_voted()).cloned();
                self.counters.holes_filled += u64::from(voted.is_none());
                let stamp = open.ballot.fast_stamp();
                let value = voted.unwrap_or_else(|| Entry { stamp, ..noop(slot, open.ballot) });
                missing.for_each(|node| suggested.entry(node).or_default().push(value.clone()));
            }
        }
        self.counters.swept += resolve.len() as u64;
        self.resolve(now, open, &resolve, effects);
        // That may have begun another ballot.
        if self.open_rounds() != Some(open) {
            return;
        }
        for (to, values) in resent {
            if to == self.node {
                self.vote_classic(now, to, open.ballot, &segmented(values), effects);
            } else {
                self.send_resolve(to, values, effects);
            }
        }
        for (to, values) in suggested {
            if to == self.node {
                self.vote_fast(now, to, open, &segmented(values), effects);
            } else {
                let message = |values| Message::Suggest(Suggest { ballot: open.ballot, values });
                self.send_values(to, values, message, effects);
            }
        }
    }

    // --- fast rounds or not ---

    /// Orders alone when too many slots take the slow path, or nobody can take the fast one. Fast rounds end with
    /// their ballot: so the leader begins another one, and does not open it.
    pub(crate) fn fall_back_if_slow(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leader(leader) = &self.state else { return };
        if self.open_rounds().is_none() {
            return;
        }
        let heard = leader.heard_within(now, self.config.election_timeout, self.node);
        let Some(fast) = &mut self.fast else { return };
        let unreachable = !self.membership.quorums().is_fast_quorum(&heard);
        if !fast.coordinator.judge(&fast.tuning) && !unreachable {
            return;
        }
        fast.coordinator.strike(now, &fast.tuning);
        self.counters.fell_back += 1;
        self.campaign_again(now, effects);
    }

    /// A peer knows more decided values than this coordinator: whoever hears votes may decide. Unless this replica
    /// has proposed something else in the classic round of such a slot, it leads on.
    pub(crate) fn coordinator_learns(&mut self, now: Instant, news: Entries, effects: &mut Effects) {
        self.counters.leader_learned += 1;
        if news.iter().any(|entry| self.contradicts(entry)) {
            self.become_follower(now, None, effects);
        }
        self.take_over(now, news, effects);
        self.settle();
    }

    /// A leader begins another ballot.
    fn campaign_again(&mut self, now: Instant, effects: &mut Effects) {
        self.become_follower(now, None, effects);
        if let Some(ballot) = self.seen.next_of(self.node) {
            self.campaign(now, ballot, false, effects);
        }
    }

    /// Everything chosen before these replicas answered lies at or below this slot: they hold an election quorum,
    /// so some of them voted for it.
    pub(crate) fn last_that_may_be_chosen(&mut self, lasts: &[(NodeId, LogIndex)]) -> Option<LogIndex> {
        let open = self.open_rounds()?;
        let answered: NodeSet = lasts.iter().map(|(node, _)| *node).chain([self.node]).collect();
        if !self.is_supported(&answered) {
            return None;
        }
        let last = lasts.iter().map(|(_, last)| *last).max().unwrap_or_default();
        let last = last.max(self.last_vote_in(open.ballot));
        if let Some(fast) = &mut self.fast {
            let highest = self.decided.advance(crate::config::AHEAD_ENTRIES_MAX as u64);
            fast.horizon = fast.horizon.max(last.min(highest));
        }
        Some(last)
    }
}

/// Slots that one sweep looks after.
const SWEPT_MAX: u64 = 256;

/// A leader orders alone for at most sixteen times what it did first.
const STRIKES_COUNTED: u32 = 4;
