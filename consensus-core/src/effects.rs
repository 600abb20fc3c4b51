//! What a machine asks of its host.

use bytes::Bytes;

use crate::{Entries, IndexRange, LoadId, LogIndex, NodeId, Stamp, WriteId};

/// One atomic write. Storages apply its fields in order; after a crash all of it is there, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// Its number; rises by one from unit to unit within an incarnation.
    pub id: WriteId,
    /// False: nobody waits for it, so it may ride on the next write.
    pub forced: bool,
    /// First, every entry at or below this position is replaced by a snapshot: it is removed, and the compaction
    /// bound stands here, with this stamp. Entries above stay. Without effect at or below the bound.
    pub install: Option<(LogIndex, Stamp)>,
    /// Then every entry at or above this position is removed.
    pub truncate_from: Option<LogIndex>,
    /// Then these are put at their positions, in order.
    pub puts: Vec<Entries>,
    /// Then every entry at or below this position is removed.
    pub compact_to: Option<LogIndex>,
    /// At last the hard state is replaced.
    pub hard_state: Option<Bytes>,
}

impl Write {
    /// True if there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.install.is_none()
            && self.truncate_from.is_none()
            && self.puts.is_empty()
            && self.compact_to.is_none()
            && self.hard_state.is_none()
    }
}

/// A message and the write it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send<M> {
    /// The receiver.
    pub to: NodeId,
    /// The message.
    pub message: M,
    /// The message reveals a fact that this write makes durable: it never leaves before.
    pub after: Option<WriteId>,
}

/// A range of the log that a machine wants to see again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Names the answer.
    pub id: LoadId,
    /// What is wanted; the answer may cover a prefix.
    pub range: IndexRange,
    /// The answer weighs at most this many bytes, or holds one entry.
    pub bytes_max: usize,
}

/// What the steps since the last flush ask for: one write unit, messages, loads and events.
///
/// Filled by a [`crate::Machine`], drained by its host once per flush with [`Effects::settle`].
///
/// # Merging within one flush
/// A put after a truncation normalises, `truncate_from(i)` drops buffered puts at or above `i`, `install(i)` drops
/// what was buffered for positions at or below `i` and nothing above, and the last hard state wins. An empty unit is
/// not written, and a message held on it waits for the previous one that was forced.
#[derive(Clone, Debug)]
pub struct Effects<M, E> {
    unit: Write,
    sends: Vec<Send<M>>,
    loads: Vec<Load>,
    events: Vec<E>,
    loads_issued: u64,
    /// The last unit taken that somebody may wait for.
    forced_last: WriteId,
}

impl<M, E> Default for Effects<M, E> {
    fn default() -> Self {
        Effects::new()
    }
}

impl<M, E> Effects<M, E> {
    /// Nothing asked for yet; the first write unit is 1.
    #[must_use]
    pub fn new() -> Effects<M, E> {
        Effects {
            unit: Write { id: WriteId(1), ..Write::default() },
            sends: Vec::new(),
            loads: Vec::new(),
            events: Vec::new(),
            loads_issued: 0,
            forced_last: WriteId(0),
        }
    }

    // --- for the machine ---

    /// The id of the unit being assembled. It stays the id of the open unit while that is empty: a machine
    /// that remembers what it wrote keeps what [`Effects::put`] and its like return.
    #[must_use]
    pub fn write_id(&self) -> WriteId {
        self.unit.id
    }

    /// Puts entries at their positions, replacing what stands there and nothing else. Positions at or below
    /// the compaction bound are not put. Returns the unit that makes them durable.
    pub fn put(&mut self, entries: Entries) -> WriteId {
        if !entries.is_empty() {
            self.unit.puts.push(entries);
            self.unit.forced = true;
        }
        self.unit.id
    }

    /// Removes every entry at or above `from`, puts of this unit included. `from` lies above the compaction
    /// bound. Returns the unit that makes it durable.
    pub fn truncate_from(&mut self, from: LogIndex) -> WriteId {
        let below = IndexRange::new(LogIndex::ZERO, from);
        for put in &mut self.unit.puts {
            *put = put.slice(below);
        }
        self.unit.puts.retain(|put| !put.is_empty());
        let lowest = self.unit.truncate_from.map_or(from, |earlier| earlier.min(from));
        self.unit.truncate_from = Some(lowest);
        self.unit.forced = true;
        self.unit.id
    }

    /// Lets a snapshot that is durable stand for every entry at or below `index`, the last of which had `stamp`.
    /// What stands above stays, what is put above later as well. Returns the unit that makes it durable.
    ///
    /// # Panics
    /// If this unit installs a later snapshot already: a log never goes back.
    pub fn install(&mut self, index: LogIndex, stamp: Stamp) -> WriteId {
        assert!(
            self.unit.install.is_none_or(|(earlier, _)| earlier <= index),
            "a snapshot replaces an earlier one, never a later one"
        );
        self.unit.install = Some((index, stamp));
        let first = index.next();
        let above = IndexRange::new(first, LogIndex(u64::MAX));
        for put in &mut self.unit.puts {
            *put = put.slice(above);
        }
        self.unit.puts.retain(|put| !put.is_empty());
        // Fields apply in their order, and a truncation lies above the bound.
        self.unit.truncate_from = self.unit.truncate_from.map(|from| from.max(first));
        self.unit.compact_to = self.unit.compact_to.filter(|through| *through > index);
        self.unit.forced = true;
        self.unit.id
    }

    /// Removes every entry at or below `through`. Nobody waits for it.
    pub fn compact_to(&mut self, through: LogIndex) {
        if self.unit.install.is_some_and(|(bound, _)| bound >= through) {
            return;
        }
        let highest = self.unit.compact_to.map_or(through, |earlier| earlier.max(through));
        self.unit.compact_to = Some(highest);
    }

    /// Replaces the hard state. Returns the unit that makes it durable.
    pub fn set_hard_state(&mut self, state: Bytes) -> WriteId {
        self.unit.hard_state = Some(state);
        self.unit.forced = true;
        self.unit.id
    }

    /// Replaces the hard state whenever something else is written: for hints that may be lost.
    pub fn set_hard_state_unforced(&mut self, state: Bytes) {
        self.unit.hard_state = Some(state);
    }

    /// Sends at the end of this flush.
    pub fn send(&mut self, to: NodeId, message: M) {
        self.sends.push(Send { to, message, after: None });
    }

    /// Sends once the unit being assembled, and so everything asked for before, is durable.
    pub fn send_after_write(&mut self, to: NodeId, message: M) {
        self.send_after(to, message, self.unit.id);
    }

    /// Sends once `write` is durable.
    pub fn send_after(&mut self, to: NodeId, message: M, write: WriteId) {
        if write == self.unit.id && !self.unit.is_empty() {
            self.unit.forced = true;
        }
        self.sends.push(Send { to, message, after: Some(write) });
    }

    /// Asks for entries of the log. The answer observes every write asked for before, durable or not.
    pub fn load(&mut self, range: IndexRange, bytes_max: usize) -> LoadId {
        self.loads_issued += 1;
        let id = LoadId(self.loads_issued);
        self.loads.push(Load { id, range, bytes_max });
        id
    }

    /// Tells the host something.
    pub fn event(&mut self, event: E) {
        self.events.push(event);
    }

    // --- for the host ---

    /// Closes the unit being assembled and opens the next. `None` if it is empty: then it stays open under
    /// the same id, and messages held on it are turned to wait for the last one that was forced: nobody
    /// waits for a hint.
    pub fn settle(&mut self) -> Option<Write> {
        if self.unit.is_empty() {
            let open = self.unit.id;
            for send in &mut self.sends {
                if send.after == Some(open) {
                    send.after = Some(self.forced_last);
                }
            }
            return None;
        }
        if self.unit.forced {
            self.forced_last = self.unit.id;
        }
        let next = Write { id: self.unit.id.next(), ..Write::default() };
        Some(std::mem::replace(&mut self.unit, next))
    }

    /// The messages, in the order asked for.
    #[must_use]
    pub fn sends(&self) -> &[Send<M>] {
        &self.sends
    }

    /// Takes the messages. Call after [`Effects::settle`].
    pub fn drain_sends(&mut self) -> std::vec::Drain<'_, Send<M>> {
        self.sends.drain(..)
    }

    /// True if a load was asked for since the last drain.
    #[must_use]
    pub fn has_loads(&self) -> bool {
        !self.loads.is_empty()
    }

    /// Takes the loads.
    pub fn drain_loads(&mut self) -> std::vec::Drain<'_, Load> {
        self.loads.drain(..)
    }

    /// Moves the events to the end of `into`.
    pub fn move_events(&mut self, into: &mut Vec<E>) {
        into.append(&mut self.events);
    }

    /// Takes the events.
    pub fn drain_events(&mut self) -> std::vec::Drain<'_, E> {
        self.events.drain(..)
    }

    /// The unit being assembled, for observers.
    #[must_use]
    pub fn unit(&self) -> &Write {
        &self.unit
    }

    /// True if nothing was asked for since the last drain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unit.is_empty() && self.sends.is_empty() && self.loads.is_empty() && self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, Kind, Reign, RequestId, Stamp};

    fn run(first: u64, count: usize, stamp: u64) -> Entries {
        Entries::numbered(LogIndex(first), vec![(); count], |index, ()| Entry {
            index,
            stamp: Stamp { high: stamp, low: 0 },
            reign: Reign::default(),
            kind: Kind::Noop,
            request: RequestId::NONE,
            payload: Bytes::new(),
        })
    }

    #[test]
    fn a_truncation_drops_buffered_puts_and_a_later_put_stands() {
        let mut effects: Effects<(), ()> = Effects::new();
        effects.put(run(5, 4, 1));
        effects.truncate_from(LogIndex(7));
        effects.put(run(7, 1, 2));
        effects.truncate_from(LogIndex(9));
        let unit = effects.settle().unwrap();
        assert_eq!(unit.truncate_from, Some(LogIndex(7)));
        assert_eq!(unit.puts, [run(5, 2, 1), run(7, 1, 2)]);
        assert!(unit.forced);
    }

    const STAMP: Stamp = Stamp { high: 9, low: 0 };

    #[test]
    fn an_install_drops_what_was_buffered_at_or_below_it_and_nothing_above() {
        let mut effects: Effects<(), ()> = Effects::new();
        effects.put(run(5, 6, 1));
        effects.compact_to(LogIndex(4));
        effects.install(LogIndex(7), STAMP);
        effects.put(run(11, 1, 2));
        effects.compact_to(LogIndex(6));
        let unit = effects.settle().unwrap();
        assert_eq!(unit.install, Some((LogIndex(7), STAMP)));
        assert_eq!(unit.puts, [run(8, 3, 1), run(11, 1, 2)]);
        assert_eq!((unit.truncate_from, unit.compact_to), (None, None));
        assert!(unit.forced, "somebody restores from it");
    }

    #[test]
    fn a_truncation_before_an_install_still_removes_what_stood_above_it() {
        let mut effects: Effects<(), ()> = Effects::new();
        effects.truncate_from(LogIndex(3));
        effects.install(LogIndex(7), STAMP);
        assert_eq!(effects.unit().truncate_from, Some(LogIndex(8)));
        effects.truncate_from(LogIndex(12));
        assert_eq!(effects.unit().truncate_from, Some(LogIndex(8)));
    }

    #[test]
    fn a_compaction_above_an_install_stands_and_the_later_snapshot_wins() {
        let mut effects: Effects<(), ()> = Effects::new();
        effects.install(LogIndex(7), STAMP);
        effects.compact_to(LogIndex(9));
        effects.install(LogIndex(8), STAMP);
        assert_eq!(effects.unit().compact_to, Some(LogIndex(9)));
        assert_eq!(effects.unit().install, Some((LogIndex(8), STAMP)));
        effects.install(LogIndex(9), STAMP);
        assert_eq!(effects.unit().compact_to, None);
    }

    #[test]
    #[should_panic(expected = "never a later one")]
    fn an_earlier_snapshot_does_not_replace_a_later_one() {
        let mut effects: Effects<(), ()> = Effects::new();
        effects.install(LogIndex(7), STAMP);
        effects.install(LogIndex(6), STAMP);
    }

    #[test]
    fn the_last_hard_state_wins() {
        let mut effects: Effects<(), ()> = Effects::new();
        effects.set_hard_state(Bytes::from_static(b"1"));
        effects.set_hard_state(Bytes::from_static(b"2"));
        assert_eq!(effects.settle().unwrap().hard_state.unwrap(), "2");
    }

    #[test]
    fn a_message_held_on_an_empty_unit_waits_for_the_previous_one() {
        let mut effects: Effects<&str, ()> = Effects::new();
        effects.put(run(1, 1, 1));
        assert_eq!(effects.settle().unwrap().id, WriteId(1));
        effects.send_after_write(NodeId(2), "ack of a duplicate");
        assert_eq!(effects.settle(), None);
        assert_eq!(effects.sends()[0].after, Some(WriteId(1)));
        effects.drain_sends();
        effects.put(run(2, 1, 1));
        assert_eq!(effects.settle().unwrap().id, WriteId(2));
    }

    #[test]
    fn a_message_held_on_an_empty_unit_does_not_wait_for_a_hint() {
        let mut effects: Effects<&str, ()> = Effects::new();
        effects.put(run(1, 1, 1));
        effects.settle();
        effects.set_hard_state_unforced(Bytes::from_static(b"hint"));
        assert!(!effects.settle().unwrap().forced);
        effects.send_after_write(NodeId(2), "ack of a duplicate");
        effects.settle();
        assert_eq!(effects.sends()[0].after, Some(WriteId(1)));
    }

    #[test]
    fn a_unit_nobody_waits_for_is_not_forced_until_somebody_does() {
        let mut effects: Effects<&str, ()> = Effects::new();
        effects.set_hard_state_unforced(Bytes::from_static(b"hint"));
        assert!(!effects.unit().forced);
        effects.send_after_write(NodeId(2), "reveals it");
        assert!(effects.settle().unwrap().forced);
    }
}
