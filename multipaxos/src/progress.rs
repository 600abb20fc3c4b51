//! What a leader knows of one peer, and how fast it may send to it.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::{Instant, LogIndex, NodeId};

use crate::message::Round;

/// One peer as its leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) node: NodeId,
    /// The peer has durably voted for every slot of this ballot through here, but for decided ones. Never falls.
    accepted: LogIndex,
    /// The next slot to send; above `accepted`.
    next: LogIndex,
    flow: Flow,
    /// Accepts sent and not acknowledged: last slot and weight of each.
    in_flight: VecDeque<(LogIndex, usize)>,
    in_flight_bytes: usize,
    /// When an acknowledgement last moved `accepted`, or the first of the accepts in flight was sent.
    progress_at: Instant,
    /// How often patience was lost since `accepted` last moved: it doubles each time, because the peer may only
    /// be slow.
    fallbacks: u32,
    /// When the peer last answered anything in this ballot.
    pub(crate) heard_at: Instant,
    /// The latest round that the peer answered.
    pub(crate) confirmed: Round,
    /// The last slot that the peer has told of having voted in, in an answer to a round (Fast Paxos).
    pub(crate) last: LogIndex,
    /// The highest watermark that a message to the peer told.
    pub(crate) told: LogIndex,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Accepts are sent ahead of their acknowledgements.
    Stream,
    /// Some were not acknowledged for long: the peer may be gone, and is asked with empty accepts where it is.
    Probe {
        /// One was sent and not answered.
        waiting: bool,
    },
}

/// How much one accept to a peer may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl Progress {
    /// A peer that has voted for nothing yet in a ballot whose first slot is `first`.
    pub(crate) fn new(node: NodeId, first: LogIndex, now: Instant) -> Progress {
        Progress {
            node,
            accepted: first.prev(),
            next: first,
            flow: Flow::Stream,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            progress_at: now,
            fallbacks: 0,
            heard_at: now,
            confirmed: Round::default(),
            last: LogIndex::ZERO,
            told: LogIndex::ZERO,
        }
    }

    pub(crate) fn accepted(&self) -> LogIndex {
        self.accepted
    }

    pub(crate) fn next(&self) -> LogIndex {
        self.next
    }

    /// How much may be sent now, given the last slot there is; `None` for nothing at all. Room for no entries
    /// stands for a probe.
    pub(crate) fn room(&self, last: LogIndex, window: Room, accept: Room) -> Option<Room> {
        match self.flow {
            Flow::Probe { waiting: true } => None,
            Flow::Probe { waiting: false } => Some(Room { entries: 0, bytes: 0 }),
            Flow::Stream => {
                let sent = usize::try_from(self.next.distance_from(self.accepted)).unwrap_or(usize::MAX) - 1;
                let bytes = window.bytes.saturating_sub(self.in_flight_bytes);
                if self.next > last || sent >= window.entries || bytes == 0 {
                    return None;
                }
                Some(Room {
                    entries: accept.entries.min(window.entries - sent),
                    bytes: accept.bytes.min(bytes),
                })
            }
        }
    }

    /// An accept was sent that ends at `through` and weighs `weight`; a probe if it carries nothing.
    pub(crate) fn sent(&mut self, through: LogIndex, weight: usize, now: Instant) {
        match &mut self.flow {
            Flow::Probe { waiting } => *waiting = true,
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

    /// Slots below `first` are decided and no longer at hand: the peer will learn them.
    pub(crate) fn skip_to(&mut self, first: LogIndex) {
        self.advance(first.prev());
    }

    /// The peer has voted through `through`.
    pub(crate) fn on_accepted(&mut self, through: LogIndex, now: Instant) -> bool {
        let news = through > self.accepted;
        if news {
            self.progress_at = now;
            self.fallbacks = 0;
        }
        self.flow = Flow::Stream;
        self.advance(through);
        news
    }

    fn advance(&mut self, through: LogIndex) {
        self.accepted = self.accepted.max(through);
        self.next = self.next.max(self.accepted.next());
        while let Some((_, weight)) = self.in_flight.front().filter(|(last, _)| *last <= self.accepted) {
            self.in_flight_bytes -= weight;
            self.in_flight.pop_front();
        }
    }

    /// Nothing was acknowledged for `patience` although accepts are in flight: they may be lost. True if the peer
    /// is probed from now on.
    pub(crate) fn lose_patience(&mut self, now: Instant, patience: Duration) -> bool {
        let patience = patience * (1 << self.fallbacks.min(FALLBACKS_COUNTED));
        if self.in_flight.is_empty() || now - self.progress_at < patience {
            return false;
        }
        self.fallbacks += 1;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.flow = Flow::Probe { waiting: false };
        self.next = self.accepted.next();
        true
    }

    /// A probe that was not answered until now may be repeated.
    pub(crate) fn retry_probe(&mut self) {
        if let Flow::Probe { waiting } = &mut self.flow {
            *waiting = false;
        }
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

    fn slot(slot: u64) -> LogIndex {
        LogIndex(slot)
    }

    fn peer() -> Progress {
        Progress::new(NodeId(2), slot(5), NOW)
    }

    #[test]
    fn accepts_are_sent_ahead_until_the_window_is_full_in_entries_or_bytes() {
        let mut peer = peer();
        let window = Room { entries: 3, bytes: 100 };
        assert_eq!(peer.room(slot(4), window, WIDE), None);
        assert_eq!(peer.room(slot(9), window, WIDE), Some(Room { entries: 3, bytes: 100 }));
        peer.sent(slot(6), 40, NOW);
        assert_eq!(peer.room(slot(9), window, WIDE), Some(Room { entries: 1, bytes: 60 }));
        peer.sent(slot(7), 60, NOW);
        assert_eq!(peer.room(slot(9), window, WIDE), None);
        assert!(peer.on_accepted(slot(6), NOW));
        assert_eq!(peer.room(slot(9), window, WIDE), Some(Room { entries: 2, bytes: 40 }));
    }

    #[test]
    fn what_is_accepted_never_falls() {
        let mut peer = peer();
        peer.sent(slot(9), 1, NOW);
        assert!(peer.on_accepted(slot(8), NOW));
        assert!(!peer.on_accepted(slot(6), NOW));
        assert_eq!((peer.accepted(), peer.next()), (slot(8), slot(10)));
    }

    #[test]
    fn a_silent_peer_is_probed_and_then_sent_what_it_did_not_acknowledge() {
        let mut peer = peer();
        peer.sent(slot(9), 10, NOW);
        assert!(!peer.lose_patience(NOW + PATIENCE / 2, PATIENCE));
        assert!(peer.lose_patience(NOW + PATIENCE, PATIENCE));
        assert_eq!(peer.room(slot(9), WIDE, WIDE), Some(Room { entries: 0, bytes: 0 }));
        peer.sent(slot(4), 0, NOW);
        assert_eq!(peer.room(slot(9), WIDE, WIDE), None);
        peer.retry_probe();
        assert!(peer.room(slot(9), WIDE, WIDE).is_some());
        assert!(!peer.on_accepted(slot(4), NOW));
        assert_eq!(peer.next(), slot(5));
        assert_eq!(peer.room(slot(9), WIDE, WIDE), Some(WIDE));
    }

    #[test]
    fn patience_doubles_until_something_is_acknowledged() {
        let mut peer = peer();
        let mut now = NOW;
        peer.sent(slot(9), 10, now);
        assert!(peer.lose_patience(now + PATIENCE, PATIENCE));
        now += PATIENCE;
        peer.on_accepted(slot(4), now);
        peer.sent(slot(9), 10, now);
        assert!(!peer.lose_patience(now + PATIENCE, PATIENCE));
        assert!(peer.lose_patience(now + PATIENCE * 2, PATIENCE));
        peer.on_accepted(slot(5), now);
        peer.sent(slot(9), 10, now);
        assert!(peer.lose_patience(now + PATIENCE, PATIENCE));
    }

    #[test]
    fn what_a_peer_must_learn_is_skipped() {
        let mut peer = peer();
        peer.sent(slot(6), 10, NOW);
        peer.skip_to(slot(20));
        assert_eq!((peer.accepted(), peer.next()), (slot(19), slot(20)));
        assert_eq!(peer.room(slot(25), WIDE, WIDE), Some(WIDE));
    }
}
