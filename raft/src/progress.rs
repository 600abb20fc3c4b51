//! What a leader knows of one peer, and how fast it may send to it.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::{Instant, LoadId, LogIndex, NodeId};

use crate::message::{Position, Round};

/// One peer as its leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) node: NodeId,
    /// The peer's log matches this leader's through here, durably. Never falls (figure 2, matchIndex).
    matched: LogIndex,
    /// The next entry to send; above `matched` (figure 2, nextIndex).
    next: LogIndex,
    flow: Flow,
    /// Appends sent in [`Flow::Replicate`] and not acknowledged: last index and weight of each.
    in_flight: VecDeque<(LogIndex, usize)>,
    in_flight_bytes: usize,
    /// When an acknowledgement last moved `matched`, or the first of the appends in flight was sent.
    progress_at: Instant,
    /// How often patience was lost since `matched` last moved: it doubles each time, because the peer may
    /// only be slow.
    fallbacks: u32,
    /// When the peer last answered anything in this term.
    pub(crate) heard_at: Instant,
    /// The latest round that the peer answered.
    pub(crate) confirmed: Round,
    /// The highest decision that a message to the peer told.
    pub(crate) told: LogIndex,
    /// Entries that are being read back from storage for this peer: nothing is sent meanwhile.
    pub(crate) load: Option<LoadId>,
    /// The peer needs compacted entries and could not be sent a snapshot: nothing is tried before this instant.
    pub(crate) blocked_until: Option<Instant>,
    /// The peer needs compacted entries: a snapshot is on its way.
    awaits_snapshot: bool,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Where the logs match is not known: one append at a time.
    Probe {
        /// One was sent and not answered.
        waiting: bool,
        /// The next one carries no entries: an earlier one was not answered, so the peer may be gone.
        bare: bool,
    },
    /// The logs match: appends are sent ahead of their acknowledgements.
    Replicate,
}

/// How much one append to a peer may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl Progress {
    /// A peer of which nothing is known but that its log may end where this one ends.
    pub(crate) fn new(node: NodeId, next: LogIndex, now: Instant) -> Progress {
        Progress {
            node,
            matched: LogIndex::ZERO,
            next,
            flow: Flow::Probe { waiting: false, bare: false },
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            progress_at: now,
            fallbacks: 0,
            heard_at: now,
            confirmed: Round::default(),
            told: LogIndex::ZERO,
            load: None,
            blocked_until: None,
            awaits_snapshot: false,
        }
    }

    pub(crate) fn matched(&self) -> LogIndex {
        self.matched
    }

    pub(crate) fn next(&self) -> LogIndex {
        self.next
    }

    /// How much may be sent now, given the last index there is; `None` for nothing at all. Room for no
    /// entries stands for a bare probe.
    pub(crate) fn room(&self, last: LogIndex, window: Room, append: Room) -> Option<Room> {
        if self.load.is_some() || self.blocked_until.is_some() || self.awaits_snapshot {
            return None;
        }
        match self.flow {
            Flow::Probe { waiting: true, .. } => None,
            Flow::Probe { bare: true, .. } => Some(Room { entries: 0, bytes: 0 }),
            Flow::Probe { .. } => Some(append),
            Flow::Replicate => {
                let sent = usize::try_from(self.next.distance_from(self.matched)).unwrap_or(usize::MAX) - 1;
                let bytes = window.bytes.saturating_sub(self.in_flight_bytes);
                if self.next > last || sent >= window.entries || bytes == 0 {
                    return None;
                }
                Some(Room {
                    entries: append.entries.min(window.entries - sent),
                    bytes: append.bytes.min(bytes),
                })
            }
        }
    }

    /// An append was sent that ends at `through` and weighs `weight`.
    pub(crate) fn sent(&mut self, through: LogIndex, weight: usize, now: Instant) {
        match &mut self.flow {
            Flow::Probe { waiting, .. } => *waiting = true,
            Flow::Replicate => {
                if self.in_flight.is_empty() {
                    self.progress_at = now;
                }
                self.in_flight.push_back((through, weight));
                self.in_flight_bytes += weight;
                self.next = through.next();
            }
        }
    }

    /// The peer's log matches through `through`. True if that is news.
    pub(crate) fn on_appended(&mut self, through: LogIndex, now: Instant) -> bool {
        let news = through > self.matched;
        if news {
            self.matched = through;
            self.progress_at = now;
            self.fallbacks = 0;
        }
        self.awaits_snapshot = false;
        let planned = self.next;
        if self.flow == Flow::Replicate {
            while let Some((_, weight)) = self.in_flight.front().filter(|(last, _)| *last <= self.matched) {
                self.in_flight_bytes -= weight;
                self.in_flight.pop_front();
            }
            self.next = self.next.max(self.matched.next());
        } else {
            self.flow = Flow::Replicate;
            self.next = self.matched.next();
        }
        if self.next != planned {
            self.load = None;
        }
        news
    }

    /// The peer has no such entry at `prev`; `resume` is the last place where the logs may match. True if
    /// that is news.
    pub(crate) fn on_rejected(&mut self, prev: LogIndex, resume: Position) -> bool {
        let current = match self.flow {
            Flow::Probe { .. } => prev.next() == self.next,
            Flow::Replicate => prev < self.next,
        };
        if prev <= self.matched || !current {
            return false;
        }
        self.forget_in_flight();
        self.flow = Flow::Probe { waiting: false, bare: false };
        self.next = resume.index.min(prev.prev()).max(self.matched).next();
        true
    }

    /// Nothing was acknowledged for `patience` although appends are in flight: they may be lost. True if
    /// the peer is probed from now on.
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

    /// The peer needs entries that are compacted, and a snapshot is sent to it. Nothing else is until that ends.
    pub(crate) fn await_snapshot(&mut self) {
        self.forget_in_flight();
        self.flow = Flow::Probe { waiting: false, bare: false };
        self.awaits_snapshot = true;
    }

    /// The peer took a snapshot over that ends at `index`, so the logs may match there. Only its answer to an append
    /// tells that they do.
    pub(crate) fn resume_after(&mut self, index: LogIndex) {
        if self.awaits_snapshot {
            self.awaits_snapshot = false;
            self.next = self.next.max(index.next());
        }
    }

    /// The peer needs entries that are compacted, and could not be sent a snapshot.
    pub(crate) fn block(&mut self, until: Instant) {
        self.forget_in_flight();
        self.awaits_snapshot = false;
        self.flow = Flow::Probe { waiting: false, bare: false };
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

    fn progress() -> Progress {
        Progress::new(NodeId(2), LogIndex(10), NOW)
    }

    fn replicating() -> Progress {
        let mut peer = progress();
        peer.sent(LogIndex(10), 10, NOW);
        assert!(peer.on_appended(LogIndex(10), NOW));
        peer
    }

    fn hint(index: u64) -> Position {
        Position { index: LogIndex(index), ..Position::ZERO }
    }

    #[test]
    fn a_probe_waits_for_its_answer_and_is_repeated_without_entries() {
        let mut peer = progress();
        assert_eq!(peer.room(LogIndex(10), WIDE, WIDE), Some(WIDE));
        peer.sent(LogIndex(10), 10, NOW);
        assert_eq!(peer.room(LogIndex(10), WIDE, WIDE), None);
        peer.retry_probe(NOW);
        assert_eq!(peer.room(LogIndex(10), WIDE, WIDE), Some(Room { entries: 0, bytes: 0 }));
    }

    #[test]
    fn the_window_bounds_entries_and_bytes_in_flight() {
        let mut peer = replicating();
        let window = Room { entries: 5, bytes: 100 };
        assert_eq!(peer.room(LogIndex(99), window, WIDE), Some(Room { entries: 5, bytes: 100 }));
        peer.sent(LogIndex(12), 70, NOW);
        assert_eq!(peer.room(LogIndex(99), window, WIDE), Some(Room { entries: 3, bytes: 30 }));
        peer.sent(LogIndex(13), 30, NOW);
        assert_eq!(peer.room(LogIndex(99), window, WIDE), None, "no bytes are left");
        peer.on_appended(LogIndex(12), NOW);
        assert_eq!(peer.room(LogIndex(99), window, WIDE), Some(Room { entries: 4, bytes: 70 }));
        peer.sent(LogIndex(17), 1, NOW);
        assert_eq!(peer.room(LogIndex(99), window, WIDE), None, "no entries are left");
        peer.on_appended(LogIndex(17), NOW);
        assert_eq!(peer.room(LogIndex(17), window, WIDE), None, "nothing is left to send");
    }

    #[test]
    fn what_is_matched_never_falls() {
        let mut peer = replicating();
        assert!(!peer.on_appended(LogIndex(7), NOW));
        assert_eq!((peer.matched(), peer.next()), (LogIndex(10), LogIndex(11)));
        assert!(!peer.on_rejected(LogIndex(10), hint(3)), "a late rejection of what matches by now");
        assert_eq!(peer.next(), LogIndex(11));
        peer.sent(LogIndex(15), 10, NOW);
        assert!(peer.on_rejected(LogIndex(14), hint(3)));
        assert_eq!((peer.matched(), peer.next()), (LogIndex(10), LogIndex(11)));
    }

    #[test]
    fn a_rejection_that_answers_another_probe_changes_nothing() {
        let mut peer = progress();
        peer.sent(LogIndex(10), 10, NOW);
        assert!(!peer.on_rejected(LogIndex(8), hint(2)));
        assert!(peer.on_rejected(LogIndex(9), hint(4)));
        assert_eq!(peer.next(), LogIndex(5));
        peer.sent(LogIndex(10), 10, NOW);
        assert!(!peer.on_rejected(LogIndex(9), hint(2)), "the same again");
        assert!(peer.on_rejected(LogIndex(4), hint(99)), "a hint that leads nowhere still leads down");
        assert_eq!(peer.next(), LogIndex(4));
    }

    #[test]
    fn a_peer_that_stops_acknowledging_is_probed_from_what_matches() {
        let mut peer = replicating();
        assert!(!peer.lose_patience(NOW + 9 * PATIENCE, PATIENCE), "nothing is in flight");
        peer.sent(LogIndex(15), 10, NOW + 9 * PATIENCE);
        assert!(!peer.lose_patience(NOW + 9 * PATIENCE, PATIENCE));
        assert!(peer.lose_patience(NOW + 10 * PATIENCE, PATIENCE));
        assert_eq!(peer.next(), LogIndex(11));
        assert_eq!(peer.room(LogIndex(15), WIDE, WIDE), Some(Room { entries: 0, bytes: 0 }));
        peer.on_appended(LogIndex(10), NOW);
        assert_eq!(peer.room(LogIndex(15), WIDE, WIDE), Some(WIDE));
        let again = NOW + 10 * PATIENCE;
        peer.sent(LogIndex(15), 10, again);
        assert!(!peer.lose_patience(again + PATIENCE, PATIENCE), "it may only be slow");
        assert!(peer.lose_patience(again + 2 * PATIENCE, PATIENCE));
    }

    #[test]
    fn nothing_is_sent_while_entries_are_loaded_or_out_of_reach() {
        let mut peer = replicating();
        peer.load = Some(LoadId(1));
        assert_eq!(peer.room(LogIndex(15), WIDE, WIDE), None);
        peer.block(NOW + PATIENCE);
        assert_eq!(peer.load, None);
        peer.retry_probe(NOW);
        assert_eq!(peer.room(LogIndex(15), WIDE, WIDE), None);
        peer.retry_probe(NOW + PATIENCE);
        assert_eq!(peer.room(LogIndex(15), WIDE, WIDE), Some(WIDE));
    }
}
