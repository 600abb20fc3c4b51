//! What a leader knows of one follower, and how fast it may send to it.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::{Instant, LoadId, LogIndex, NodeId};

use crate::message::{Attempt, Beat, Place};

/// One session with a follower, as its leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Learner {
    pub(crate) node: NodeId,
    pub(crate) attempt: Attempt,
    pub(crate) stage: Stage,
    /// Through here its current epoch and this leader's history are durable there: what counts. `None` until
    /// NEWLEADER is acknowledged. Never falls.
    pub(crate) acked: Option<LogIndex>,
    /// Its history is this leader's through here. Never falls.
    matched: LogIndex,
    /// The next entry to send; above `matched`.
    next: LogIndex,
    flow: Flow,
    /// Proposals sent in [`Flow::Stream`] and not acknowledged: last index and weight of each.
    in_flight: VecDeque<(LogIndex, usize)>,
    in_flight_bytes: usize,
    /// When an acknowledgement last moved `matched`, or the first of the proposals in flight was sent.
    progress_at: Instant,
    /// How often patience was lost since `matched` last moved: it doubles each time, because the follower may
    /// only be slow.
    fallbacks: u32,
    /// When the follower last said anything in this session.
    pub(crate) heard_at: Instant,
    /// The latest round of pings that it answered.
    pub(crate) confirmed: Beat,
    /// The highest decision that a message told it.
    pub(crate) told: LogIndex,
    /// Entries that are being read back from storage for it: nothing is sent meanwhile.
    pub(crate) load: Option<LoadId>,
    /// It needs compacted entries and could not be sent a snapshot: nothing is tried before this instant.
    pub(crate) blocked_until: Option<Instant>,
    /// It needs compacted entries: a snapshot is on its way.
    awaits_snapshot: bool,
}

/// How far a follower has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It wants to follow, and has not acknowledged the epoch.
    Hello,
    /// It acknowledged the epoch: with its promise, or without.
    Answered { promised: bool, last: Place },
    /// It gets what it lacks, and then NEWLEADER, which names `target`.
    Synchronising { target: Place, announced: bool },
    /// It acknowledged NEWLEADER.
    Synchronised,
}

/// How a leader sends to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Where the histories part is not known: one proposal at a time.
    Probe {
        /// One was sent and not answered.
        waiting: bool,
        /// The next one carries no entries: an earlier one was not answered, so the peer may be gone.
        bare: bool,
    },
    /// It is known: proposals are sent ahead of their acknowledgements.
    Stream,
}

/// How much one proposal may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl Learner {
    /// A follower of which only its first words are known.
    pub(crate) fn new(node: NodeId, attempt: Attempt, now: Instant) -> Learner {
        Learner {
            node,
            attempt,
            stage: Stage::Hello,
            acked: None,
            matched: LogIndex::ZERO,
            next: LogIndex(1),
            flow: Flow::Probe { waiting: false, bare: false },
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            progress_at: now,
            fallbacks: 0,
            heard_at: now,
            confirmed: Beat::default(),
            told: LogIndex::ZERO,
            load: None,
            blocked_until: None,
            awaits_snapshot: false,
        }
    }

    /// Synchronisation begins: the histories may be the same through `resume`, and what is to be reached
    /// before NEWLEADER is acknowledged is `target`.
    pub(crate) fn synchronise(&mut self, resume: Place, target: Place) {
        self.stage = Stage::Synchronising { target, announced: false };
        self.next = resume.index.next();
    }

    /// True if entries are sent to it.
    pub(crate) fn takes_proposals(&self) -> bool {
        matches!(self.stage, Stage::Synchronising { .. } | Stage::Synchronised)
    }

    /// True if it acknowledged the epoch.
    pub(crate) fn has_answered(&self) -> bool {
        self.stage != Stage::Hello
    }

    pub(crate) fn matched(&self) -> LogIndex {
        self.matched
    }

    pub(crate) fn next(&self) -> LogIndex {
        self.next
    }

    /// How much may be sent now, given the last index there is; `None` for nothing at all. Room for no
    /// entries stands for a bare probe.
    pub(crate) fn room(&self, last: LogIndex, window: Room, proposal: Room) -> Option<Room> {
        if self.load.is_some() || self.blocked_until.is_some() || self.awaits_snapshot {
            return None;
        }
        match self.flow {
            Flow::Probe { waiting: true, .. } => None,
            Flow::Probe { bare: true, .. } => Some(Room { entries: 0, bytes: 0 }),
            Flow::Probe { .. } => Some(proposal),
            Flow::Stream => {
                let sent = usize::try_from(self.next.distance_from(self.matched)).unwrap_or(usize::MAX) - 1;
                let bytes = window.bytes.saturating_sub(self.in_flight_bytes);
                if self.next > last || sent >= window.entries || bytes == 0 {
                    return None;
                }
                Some(Room {
                    entries: proposal.entries.min(window.entries - sent),
                    bytes: proposal.bytes.min(bytes),
                })
            }
        }
    }

    /// A proposal was sent that ends at `through` and weighs `weight`.
    pub(crate) fn sent(&mut self, through: LogIndex, weight: usize, now: Instant) {
        match &mut self.flow {
            Flow::Probe { waiting, .. } => *waiting = true,
            Flow::Stream => {
                if self.in_flight.is_empty() {
                    self.progress_at = now;
                }
                self.in_flight.push_back((through, weight));
                self.in_flight_bytes += weight;
                self.next = through.next();
            }
        }
    }

    /// The follower's history is the leader's through `through`. True if that is news.
    pub(crate) fn on_received(&mut self, through: LogIndex, now: Instant) -> bool {
        let news = through > self.matched;
        if news {
            self.matched = through;
            self.progress_at = now;
            self.fallbacks = 0;
        }
        self.awaits_snapshot = false;
        let planned = self.next;
        if self.flow == Flow::Stream {
            while let Some((_, weight)) = self.in_flight.front().filter(|(last, _)| *last <= self.matched) {
                self.in_flight_bytes -= weight;
                self.in_flight.pop_front();
            }
            self.next = self.next.max(self.matched.next());
        } else {
            self.flow = Flow::Stream;
            self.next = self.matched.next();
        }
        if self.next != planned {
            self.load = None;
        }
        news
    }

    /// The follower has no such entry at `prev`; `resume` is the last place where the histories may be the same. True if
    /// that is news.
    pub(crate) fn on_missing(&mut self, prev: LogIndex, resume: Place) -> bool {
        let current = match self.flow {
            Flow::Probe { .. } => prev.next() == self.next,
            Flow::Stream => prev < self.next,
        };
        if prev <= self.matched || !current {
            return false;
        }
        self.forget_in_flight();
        self.flow = Flow::Probe { waiting: false, bare: false };
        self.next = resume.index.min(prev.prev()).max(self.matched).next();
        true
    }

    /// Nothing was acknowledged for `patience` although proposals are in flight: they may be lost. True if
    /// the follower is probed from now on.
    pub(crate) fn lose_patience(&mut self, now: Instant, patience: Duration) -> bool {
        let patience = patience * (1 << self.fallbacks.min(FALLBACKS_COUNTED));
        if self.in_flight.is_empty() || now - self.progress_at < patience {
            return false;
        }
        self.fallbacks += 1;
        self.forget_in_flight();
        self.flow = Flow::Probe { waiting: false, bare: true };
        self.next = self.matched.next();
        true
    }

    /// A probe that was not answered until now may be repeated, without entries.
    pub(crate) fn retry_probe(&mut self, now: Instant) {
        if let Flow::Probe { waiting, bare } = &mut self.flow {
            *bare |= *waiting;
            *waiting = false;
        }
        self.blocked_until = self.blocked_until.filter(|until| *until > now);
    }

    /// The follower needs entries that are compacted, and a snapshot is sent to it. Nothing else is until that ends.
    pub(crate) fn await_snapshot(&mut self) {
        self.forget_in_flight();
        self.flow = Flow::Probe { waiting: false, bare: false };
        self.awaits_snapshot = true;
    }

    /// The follower took a snapshot over that ends at `index`. Only its answer to a proposal tells that nothing was lost
    /// since.
    pub(crate) fn resume_after(&mut self, index: LogIndex) {
        if self.awaits_snapshot {
            self.awaits_snapshot = false;
            self.next = self.next.max(index.next());
        }
    }

    /// The follower needs entries that are compacted, and could not be sent a snapshot.
    pub(crate) fn block(&mut self, until: Instant) {
        self.forget_in_flight();
        self.flow = Flow::Probe { waiting: false, bare: false };
        self.awaits_snapshot = false;
        self.blocked_until = Some(until);
    }

    fn forget_in_flight(&mut self) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.load = None;
    }
}

/// Patience grows to at most sixteen times what it was.
const FALLBACKS_COUNTED: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000_000_000);
    const PATIENCE: Duration = Duration::from_millis(100);
    const WIDE: Room = Room { entries: 100, bytes: 1000 };

    fn at(index: u64) -> Place {
        Place { index: LogIndex(index), ..Place::ZERO }
    }

    fn learner() -> Learner {
        let mut learner = Learner::new(NodeId(2), Attempt(1), NOW);
        learner.synchronise(at(9), at(15));
        learner
    }

    fn streaming() -> Learner {
        let mut learner = learner();
        learner.sent(LogIndex(10), 10, NOW);
        assert!(learner.on_received(LogIndex(10), NOW));
        learner
    }

    #[test]
    fn a_probe_waits_for_its_answer_and_is_repeated_without_entries() {
        let mut peer = learner();
        assert_eq!(peer.room(LogIndex(10), WIDE, WIDE), Some(WIDE));
        peer.sent(LogIndex(10), 10, NOW);
        assert_eq!(peer.room(LogIndex(10), WIDE, WIDE), None);
        peer.retry_probe(NOW);
        assert_eq!(peer.room(LogIndex(10), WIDE, WIDE), Some(Room { entries: 0, bytes: 0 }));
    }

    #[test]
    fn the_window_bounds_entries_and_bytes_in_flight() {
        let mut peer = streaming();
        let window = Room { entries: 5, bytes: 100 };
        assert_eq!(peer.room(LogIndex(99), window, WIDE), Some(Room { entries: 5, bytes: 100 }));
        peer.sent(LogIndex(12), 70, NOW);
        assert_eq!(peer.room(LogIndex(99), window, WIDE), Some(Room { entries: 3, bytes: 30 }));
        peer.sent(LogIndex(13), 30, NOW);
        assert_eq!(peer.room(LogIndex(99), window, WIDE), None, "no bytes are left");
        peer.on_received(LogIndex(12), NOW);
        assert_eq!(peer.room(LogIndex(99), window, WIDE), Some(Room { entries: 4, bytes: 70 }));
    }

    #[test]
    fn what_is_matched_never_falls() {
        let mut peer = streaming();
        assert!(!peer.on_received(LogIndex(7), NOW));
        assert_eq!((peer.matched(), peer.next()), (LogIndex(10), LogIndex(11)));
        assert!(!peer.on_missing(LogIndex(10), at(3)), "a late answer to what is known by now");
        peer.sent(LogIndex(15), 10, NOW);
        assert!(peer.on_missing(LogIndex(14), at(3)));
        assert_eq!((peer.matched(), peer.next()), (LogIndex(10), LogIndex(11)));
    }

    #[test]
    fn an_answer_to_another_probe_changes_nothing() {
        let mut peer = learner();
        peer.sent(LogIndex(10), 10, NOW);
        assert!(!peer.on_missing(LogIndex(8), at(2)));
        assert!(peer.on_missing(LogIndex(9), at(4)));
        assert_eq!(peer.next(), LogIndex(5));
        assert!(peer.on_missing(LogIndex(4), at(99)), "a hint that leads nowhere still leads down");
        assert_eq!(peer.next(), LogIndex(4));
    }

    #[test]
    fn a_follower_that_stops_acknowledging_is_probed_from_what_matches() {
        let mut peer = streaming();
        assert!(!peer.lose_patience(NOW + 9 * PATIENCE, PATIENCE), "nothing is in flight");
        peer.sent(LogIndex(15), 10, NOW + 9 * PATIENCE);
        assert!(!peer.lose_patience(NOW + 9 * PATIENCE, PATIENCE));
        assert!(peer.lose_patience(NOW + 10 * PATIENCE, PATIENCE));
        assert_eq!(peer.next(), LogIndex(11));
        assert_eq!(peer.room(LogIndex(15), WIDE, WIDE), Some(Room { entries: 0, bytes: 0 }));
    }
}
