//! What of a machine's own log its disk has confirmed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Instant, LogIndex, WriteId};

/// The writes of a machine on their way to its disk, and how much of a log without holes is safe there.
///
/// The news of an old write never proves an entry that replaced one of its own: a machine that appends tells
/// [`Durability::wrote`] what each unit covers, and [`Durability::truncated_from`] what of that is void.
///
/// ```
/// use synod_core::{Durability, Instant, LogIndex, WriteId};
///
/// let mut disk = Durability::new(LogIndex(2), Instant(0));
/// disk.wrote(WriteId(1), LogIndex(5), Instant(0));
/// disk.truncated_from(LogIndex(4));
/// disk.wrote(WriteId(2), LogIndex(6), Instant(0));
/// disk.on_persisted(WriteId(1), Instant(1));
/// assert_eq!(disk.durable(), LogIndex(3));
/// ```
#[derive(Clone, Debug)]
pub struct Durability {
    /// Issued and not yet durable, ascending by id.
    in_flight: VecDeque<Unit>,
    /// Every unit through this one is durable.
    persisted: WriteId,
    /// The entries that now stand at or below this index are durable.
    durable: LogIndex,
    /// When the disk last confirmed anything.
    progress_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Unit {
    id: WriteId,
    /// With this unit the entries that now stand at or below this index are durable.
    through: LogIndex,
    issued_at: Instant,
}

impl Durability {
    /// Everything recovered is durable.
    #[must_use]
    pub fn new(recovered_through: LogIndex, now: Instant) -> Durability {
        Durability {
            in_flight: VecDeque::new(),
            persisted: WriteId(0),
            durable: recovered_through,
            progress_at: now,
        }
    }

    /// Unit `id` now also makes the log durable through `through`, its last index.
    pub fn wrote(&mut self, id: WriteId, through: LogIndex, now: Instant) {
        match self.in_flight.back_mut() {
            Some(unit) if unit.id == id => unit.through = through,
            _ => self.in_flight.push_back(Unit { id, through, issued_at: now }),
        }
    }

    /// Entries at and above `from` are replaced: no earlier write speaks of what will stand there.
    pub fn truncated_from(&mut self, from: LogIndex) {
        let kept = from.prev();
        self.durable = self.durable.min(kept);
        for unit in &mut self.in_flight {
            unit.through = unit.through.min(kept);
        }
    }

    /// Unit `id` and every one before it are durable.
    pub fn on_persisted(&mut self, id: WriteId, now: Instant) {
        if id > self.persisted {
            self.persisted = id;
            self.progress_at = now;
        }
        while let Some(unit) = self.in_flight.front().copied().filter(|unit| unit.id <= id) {
            self.durable = self.durable.max(unit.through);
            self.in_flight.pop_front();
        }
    }

    /// The entries that now stand at or below this index are durable.
    #[must_use]
    pub fn durable(&self) -> LogIndex {
        self.durable
    }

    /// True if unit `id` is durable.
    #[must_use]
    pub fn holds(&self, id: WriteId) -> bool {
        id <= self.persisted
    }

    /// True if a write has been waiting for `timeout` while the disk confirmed nothing.
    #[must_use]
    pub fn is_stalled(&self, now: Instant, timeout: Duration) -> bool {
        self.in_flight.front().is_some_and(|unit| now - unit.issued_at.max(self.progress_at) >= timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn confirmation_is_cumulative() {
        let mut disk = Durability::new(LogIndex(2), ms(0));
        disk.wrote(WriteId(1), LogIndex(4), ms(0));
        disk.wrote(WriteId(2), LogIndex(6), ms(0));
        disk.wrote(WriteId(3), LogIndex(9), ms(0));
        assert_eq!(disk.durable(), LogIndex(2));
        disk.on_persisted(WriteId(2), ms(1));
        assert_eq!(disk.durable(), LogIndex(6));
        assert!(disk.holds(WriteId(2)) && !disk.holds(WriteId(3)));
    }

    #[test]
    fn an_old_write_never_proves_a_newer_entry_at_the_same_index() {
        let mut disk = Durability::new(LogIndex(0), ms(0));
        disk.wrote(WriteId(1), LogIndex(5), ms(0));
        disk.truncated_from(LogIndex(3));
        disk.wrote(WriteId(2), LogIndex(8), ms(0));
        disk.on_persisted(WriteId(1), ms(1));
        assert_eq!(disk.durable(), LogIndex(2));
        disk.on_persisted(WriteId(2), ms(2));
        assert_eq!(disk.durable(), LogIndex(8));
    }

    #[test]
    fn truncating_durable_entries_makes_their_places_open_again() {
        let mut disk = Durability::new(LogIndex(5), ms(0));
        disk.truncated_from(LogIndex(3));
        disk.wrote(WriteId(1), LogIndex(7), ms(0));
        assert_eq!(disk.durable(), LogIndex(2));
    }

    #[test]
    fn a_slow_disk_that_moves_is_not_stalled() {
        let timeout = Duration::from_millis(100);
        let mut disk = Durability::new(LogIndex(0), ms(0));
        assert!(!disk.is_stalled(ms(1000), timeout), "nothing is asked of it");
        disk.wrote(WriteId(1), LogIndex(1), ms(1000));
        disk.wrote(WriteId(2), LogIndex(2), ms(1001));
        assert!(!disk.is_stalled(ms(1099), timeout));
        assert!(disk.is_stalled(ms(1100), timeout));
        disk.on_persisted(WriteId(1), ms(1100));
        assert!(!disk.is_stalled(ms(1199), timeout));
        assert!(disk.is_stalled(ms(1200), timeout));
    }
}
