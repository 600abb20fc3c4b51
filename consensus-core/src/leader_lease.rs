//! The lease of a leader: how long nobody else can lead, so that it may answer reads without asking anybody.
//!
//! Whoever hears a leader promises to help nobody else to lead for a while, by its own clock and from after it
//! heard; the leader counts each promise by its own clock and from before it asked, and less by what
//! [`ClockBound::held`] takes off. While a quorum that meets every election quorum is bound, no other leader can be
//! elected. (Thesis of Raft, section 6.4.1; Paxos Made Live, section 5.2.)

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::{ClockBound, Instant, LogIndex, NodeId, QuorumSystem};

/// What a replica owes to the leaders that it heard. It outlives the leader's term: a promise is about time, and a
/// later term that somebody speaks of does not shorten it.
#[derive(Clone, Copy, Debug)]
pub struct LeasePromise {
    length: Duration,
    until: Instant,
}

impl LeasePromise {
    /// The promise of a replica that starts. Each promise is for `length`; none is ever made if that is zero. A life
    /// before this one may have promised something that is forgotten: with `forgotten`, one is in force from now.
    #[must_use]
    pub fn at_start(length: Duration, now: Instant, forgotten: bool) -> LeasePromise {
        LeasePromise { length, until: if forgotten { now + length } else { now } }
    }

    /// A leader was heard. Returns for how long it is promised that nobody else gets help.
    pub fn renew(&mut self, now: Instant) -> Duration {
        self.until = self.until.max(now + self.length);
        self.length
    }

    /// True if this replica may help nobody else to lead, itself included.
    #[must_use]
    pub fn binds(&self, now: Instant) -> bool {
        now < self.until
    }
}

/// What a leader was promised, in one reign of its own.
#[derive(Clone, Debug)]
pub struct LeaderLease {
    bound: ClockBound,
    length: Duration,
    /// Rounds in which promises were asked for, and when, in order; not every round has a place of its own.
    asked: VecDeque<(u64, Instant)>,
    until: BTreeMap<NodeId, Instant>,
}

/// How many rounds of one length are remembered.
const ROUNDS: u32 = 64;

impl LeaderLease {
    /// A lease that nobody has promised anything for. Promises are counted for `length` at most, whatever is promised.
    #[must_use]
    pub fn new(bound: ClockBound, length: Duration) -> LeaderLease {
        LeaderLease { bound, length, asked: VecDeque::new(), until: BTreeMap::new() }
    }

    /// A message leaves that asks for promises; `round` rises.
    pub fn ask(&mut self, round: u64, now: Instant) {
        while self.asked.front().is_some_and(|(_, at)| *at + self.length <= now) {
            self.asked.pop_front();
        }
        // A round that follows soon shares the place of the one before: its promises count from that moment.
        if self.asked.back().is_none_or(|(_, at)| *at + self.length / ROUNDS <= now) {
            self.asked.push_back((round, now));
        }
    }

    /// `by` answered `round` and promised to be loyal for `promised` from then on.
    pub fn promised(&mut self, by: NodeId, round: u64, promised: Duration) {
        let held = self.bound.held(promised.min(self.length));
        let asked = self.asked.iter().rev().find(|(asked, _)| *asked <= round);
        let Some((_, at)) = asked.filter(|_| !held.is_zero()) else { return };
        let until = self.until.entry(by).or_insert(*at);
        *until = (*until).max(*at + held);
    }

    /// True if nobody else can lead at `now`, given that this replica (`own`) helps nobody else as long as it leads.
    #[must_use]
    pub fn holds(&self, now: Instant, own: NodeId, quorums: &QuorumSystem) -> bool {
        let until = |node| match self.until.get(&node) {
            _ if node == own => LogIndex(u64::MAX),
            Some(until) => LogIndex(until.0),
            None => LogIndex::ZERO,
        };
        // Moments are counted like indexes here: the latest that a quorum's promises reach.
        now.0 < quorums.reached_by_replication_quorum(&until).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_millis(100);
    const START: Instant = Instant(1_000_000_000);

    fn at(milliseconds: u64) -> Instant {
        START + Duration::from_millis(milliseconds)
    }

    fn lease(drift_ppm: u32) -> LeaderLease {
        LeaderLease::new(ClockBound::new(drift_ppm, Duration::ZERO).unwrap(), LENGTH)
    }

    fn holds(lease: &LeaderLease, milliseconds: u64) -> bool {
        lease.holds(at(milliseconds), NodeId(1), &QuorumSystem::majority([1, 2, 3, 4, 5].map(NodeId)))
    }

    #[test]
    fn a_lease_counts_from_when_it_was_asked_for_and_needs_a_quorum() {
        let mut lease = lease(0);
        lease.ask(1, at(0));
        lease.promised(NodeId(2), 1, LENGTH);
        assert!(!holds(&lease, 1), "two of five");
        lease.ask(2, at(40));
        lease.promised(NodeId(3), 2, LENGTH);
        assert!(holds(&lease, 99), "three of five, the shortest until 100");
        assert!(!holds(&lease, 100));
        lease.promised(NodeId(2), 2, LENGTH);
        assert!(holds(&lease, 139) && !holds(&lease, 140));
    }

    #[test]
    fn a_late_answer_to_an_early_round_takes_nothing_back_and_gives_nothing_new() {
        let mut lease = lease(0);
        lease.ask(1, at(0));
        lease.ask(2, at(50));
        for node in [2, 3] {
            lease.promised(NodeId(node), 2, LENGTH);
            lease.promised(NodeId(node), 1, LENGTH);
        }
        assert!(holds(&lease, 149) && !holds(&lease, 150));
    }

    #[test]
    fn who_promises_less_or_nothing_is_believed_and_who_promises_more_is_not() {
        for (promised, until) in [(Duration::ZERO, 0), (LENGTH / 2, 50), (Duration::MAX, 100)] {
            let mut lease = lease(0);
            lease.ask(1, at(0));
            lease.promised(NodeId(2), 1, LENGTH);
            lease.promised(NodeId(3), 1, promised);
            assert_eq!((holds(&lease, until.max(1) - 1), holds(&lease, until)), (until > 0, false));
        }
    }

    #[test]
    fn the_bound_on_clocks_is_taken_off() {
        let mut lease = lease(100_000);
        lease.ask(1, at(0));
        for node in [2, 3] {
            lease.promised(NodeId(node), 1, LENGTH);
        }
        // 100 ms * 0.9 / 1.1
        assert!(holds(&lease, 81) && !holds(&lease, 82));
    }

    #[test]
    fn rounds_in_quick_succession_take_bounded_room_and_count_from_the_first_of_them() {
        let mut lease = lease(0);
        for round in 1..=100_000 {
            lease.ask(round, START + Duration::from_micros(2 * round));
        }
        assert!(lease.asked.len() <= 2 * ROUNDS as usize, "{}", lease.asked.len());
        for node in [2, 3] {
            lease.promised(NodeId(node), 100_000, LENGTH);
        }
        assert!(holds(&lease, 295) && !holds(&lease, 300));
    }

    #[test]
    fn a_promise_that_may_have_been_forgotten_is_kept() {
        assert!(!LeasePromise::at_start(LENGTH, at(0), false).binds(at(0)));
        let mut promise = LeasePromise::at_start(LENGTH, at(0), true);
        assert!(promise.binds(at(99)) && !promise.binds(at(100)));
        assert_eq!(promise.renew(at(70)), LENGTH);
        assert!(promise.binds(at(169)) && !promise.binds(at(170)));
        let mut none = LeasePromise::at_start(Duration::ZERO, at(0), true);
        assert_eq!((none.renew(at(5)), none.binds(at(5))), (Duration::ZERO, false));
    }
}
