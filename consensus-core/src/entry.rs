//! Entries, and the cheaply cloned segments that carry them from log to message, write and apply.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::{ClientId, LogIndex, Reign, Sequence, Stamp};

/// What an entry is for. Everything but `Command` is handled below the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A client's command for the state machine.
    Command,
    /// Nothing: fills a hole or opens a leadership period.
    Noop,
    /// A change of the membership.
    Membership,
    /// Opens or closes a client session.
    Session,
    /// A protocol's own record, opaque to everybody else. Numbers 0 to 31 may be decided and mean nothing to
    /// the state machine; 32 to 63 stand for what can never be decided (a promise for one slot, say), and
    /// a replica that finds one at a decided position stops.
    Private(u8),
}

impl Kind {
    /// True for kinds that a machine is shown when it opens: see [`crate::Recovered::marked`].
    #[must_use]
    pub fn is_marked(self) -> bool {
        matches!(self, Kind::Membership | Kind::Private(_))
    }

    /// True for kinds that may stand at a decided position.
    #[must_use]
    pub fn is_decidable(self) -> bool {
        !matches!(self, Kind::Private(32..))
    }

    /// The byte that stands for this kind on disk and wire. A private number above 63 is cut to its low six bits.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        match self {
            Kind::Command => 0,
            Kind::Noop => 1,
            Kind::Membership => 2,
            Kind::Session => 3,
            Kind::Private(number) => 0xC0 | (number & 0x3F),
        }
    }

    /// The kind that `byte` stands for; `None` for a byte that stands for nothing.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            0 => Some(Kind::Command),
            1 => Some(Kind::Noop),
            2 => Some(Kind::Membership),
            3 => Some(Kind::Session),
            0xC0..=0xFF => Some(Kind::Private(byte & 0x3F)),
            _ => None,
        }
    }
}

/// Names one command for ever: the session, its number there, and how far the session is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The session, or 0 for entries that belong to none.
    pub client: ClientId,
    /// The command's number in the session.
    pub sequence: Sequence,
    /// The client has settled every command below this number: their replies may be forgotten.
    pub first_incomplete: Sequence,
}

impl RequestId {
    /// The id of entries that no client waits for.
    pub const NONE: RequestId =
        RequestId { client: ClientId(0), sequence: Sequence(0), first_incomplete: Sequence(0) };
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.client, self.sequence)
    }
}

/// What is proposed: an entry without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// `Command` or `Session`.
    pub kind: Kind,
    /// The command's name; the same on every retry (but for `first_incomplete`).
    pub request: RequestId,
    /// Opaque to a protocol.
    pub payload: Bytes,
}

/// One place of the log, filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub index: LogIndex,
    /// Under what the protocol last wrote it here; differs between replicas of a Paxos log.
    pub stamp: Stamp,
    /// The leadership period in which it was first proposed; the same everywhere.
    pub reign: Reign,
    /// What it is for.
    pub kind: Kind,
    /// Who waits for it.
    pub request: RequestId,
    /// Opaque to a protocol.
    pub payload: Bytes,
}

impl Entry {
    /// What bookkeeping of an entry costs in memory beside its payload, in bytes.
    pub const OVERHEAD: usize = 104;

    /// True if both entries hold the same value, wherever and under whatever stamp they stand: what was
    /// proposed, by whom, for whom and in which leadership period.
    #[must_use]
    pub fn same_value(&self, other: &Entry) -> bool {
        let value = |entry: &Entry| (entry.reign, entry.kind, entry.request);
        value(self) == value(other) && self.payload == other.payload
    }

    /// What the entry weighs against memory bounds, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.payload.len() + Entry::OVERHEAD
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.index, self.stamp)?;
        match self.kind {
            Kind::Command => write!(f, " {}", self.request),
            Kind::Noop => write!(f, " noop"),
            Kind::Membership => write!(f, " membership"),
            Kind::Session => write!(f, " session"),
            Kind::Private(number) => write!(f, " private{number}"),
        }
    }
}

/// Positions `from <= i < to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IndexRange {
    /// The first position.
    pub from: LogIndex,
    /// The position after the last.
    pub to: LogIndex,
}

impl IndexRange {
    /// The range `from <= i < to`.
    #[must_use]
    pub fn new(from: LogIndex, to: LogIndex) -> IndexRange {
        IndexRange { from, to }
    }

    /// True if no position is inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    /// True if `index` is inside.
    #[must_use]
    pub fn contains(&self, index: LogIndex) -> bool {
        self.from <= index && index < self.to
    }
}

impl fmt::Display for IndexRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

/// Entries at consecutive positions, shared: cloning and slicing copy no entry.
#[derive(Clone)]
pub struct Entries {
    segment: Arc<[Entry]>,
    start: u32,
    end: u32,
}

/// The entries given do not stand at consecutive positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entries are not consecutive: {after} follows {before}")]
pub struct NotContiguous {
    /// A position.
    pub before: LogIndex,
    /// The position found after it.
    pub after: LogIndex,
}

impl Entries {
    /// No entries.
    #[must_use]
    pub fn empty() -> Entries {
        Entries { segment: Arc::new([]), start: 0, end: 0 }
    }

    /// A segment of entries whose positions rise by one.
    ///
    /// # Errors
    /// [`NotContiguous`] if they do not.
    pub fn new(segment: impl Into<Arc<[Entry]>>) -> Result<Entries, NotContiguous> {
        let segment = segment.into();
        for pair in segment.windows(2) {
            if pair[0].index.next() != pair[1].index {
                return Err(NotContiguous { before: pair[0].index, after: pair[1].index });
            }
        }
        Ok(Entries::of_contiguous(segment))
    }

    /// Numbers what `fill` makes of each item, from `first`: the positions are consecutive by construction.
    pub fn numbered<T>(
        first: LogIndex,
        items: Vec<T>,
        mut fill: impl FnMut(LogIndex, T) -> Entry,
    ) -> Entries {
        let segment: Arc<[Entry]> = items
            .into_iter()
            .enumerate()
            .map(|(offset, item)| {
                let index = first.advance(offset as u64);
                let mut entry = fill(index, item);
                entry.index = index;
                entry
            })
            .collect();
        Entries::of_contiguous(segment)
    }

    /// Entries at consecutive positions, collected into shared memory without a copy if the iterator knows its
    /// length.
    pub(crate) fn collected(entries: impl Iterator<Item = Entry>) -> Entries {
        let segment: Arc<[Entry]> = entries.collect();
        debug_assert!(segment.windows(2).all(|pair| pair[0].index.next() == pair[1].index));
        Entries::of_contiguous(segment)
    }

    fn of_contiguous(segment: Arc<[Entry]>) -> Entries {
        let end = u32::try_from(segment.len()).expect("a segment holds fewer than 2^32 entries");
        Entries { segment, start: 0, end }
    }

    /// The first position; 0 if empty.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.first().map_or(LogIndex::ZERO, |entry| entry.index)
    }

    /// The last position; 0 if empty.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.last().map_or(LogIndex::ZERO, |entry| entry.index)
    }

    /// The positions covered.
    #[must_use]
    pub fn range(&self) -> IndexRange {
        match self.first() {
            Some(first) => IndexRange::new(first.index, first.index.advance(self.len() as u64)),
            None => IndexRange::new(LogIndex::ZERO, LogIndex::ZERO),
        }
    }

    /// The entry at `index`, if covered.
    #[must_use]
    pub fn at(&self, index: LogIndex) -> Option<&Entry> {
        let first = self.first()?.index;
        let offset = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        self.get(offset)
    }

    /// The part of these entries inside `range`, without copying.
    #[must_use]
    pub fn slice(&self, range: IndexRange) -> Entries {
        let mine = self.range();
        let from = range.from.max(mine.from);
        let to = range.to.min(mine.to);
        if from >= to {
            return Entries::empty();
        }
        let start = self.start + u32::try_from(from.0 - mine.from.0).expect("inside the segment");
        let end = self.start + u32::try_from(to.0 - mine.from.0).expect("inside the segment");
        Entries { segment: Arc::clone(&self.segment), start, end }
    }

    /// The longest prefix that weighs at most `bytes_max` and holds at most `count_max` entries, but at
    /// least one entry if there is one.
    #[must_use]
    pub fn prefix(&self, count_max: usize, bytes_max: usize) -> Entries {
        let mut weight = 0;
        let mut count = 0;
        for entry in self.iter().take(count_max.max(1)) {
            weight += entry.weight();
            if count > 0 && weight > bytes_max {
                break;
            }
            count += 1;
        }
        Entries { segment: Arc::clone(&self.segment), start: self.start, end: self.start + count }
    }

    /// What these entries weigh against memory bounds, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.iter().map(Entry::weight).sum()
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.segment[self.start as usize..self.end as usize]
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        **self == **other
    }
}

impl Eq for Entries {}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Display for Entries {
    /// `-` if empty, otherwise the range and each entry's stamp run: `5..8 [2 2 3]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "-");
        }
        write!(f, "{} [", self.range())?;
        for (offset, entry) in self.iter().enumerate() {
            let gap = if offset == 0 { "" } else { " " };
            write!(f, "{gap}{}", entry.stamp)?;
        }
        write!(f, "]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Entry {
        Entry {
            index: LogIndex(index),
            stamp: Stamp { high: 1, low: 0 },
            reign: Reign::default(),
            kind: Kind::Command,
            request: RequestId::NONE,
            payload: Bytes::from_static(b"0123456789"),
        }
    }

    #[test]
    fn a_gap_between_entries_is_refused() {
        let error = Entries::new(vec![entry(1), entry(3)]).unwrap_err();
        assert_eq!(error, NotContiguous { before: LogIndex(1), after: LogIndex(3) });
    }

    #[test]
    fn slicing_is_clipped_to_what_is_there_and_can_be_repeated() {
        let entries = Entries::new(vec![entry(4), entry(5), entry(6), entry(7)]).unwrap();
        let middle = entries.slice(IndexRange::new(LogIndex(5), LogIndex(100)));
        assert_eq!(middle.range(), IndexRange::new(LogIndex(5), LogIndex(8)));
        let inner = middle.slice(IndexRange::new(LogIndex(0), LogIndex(7)));
        assert_eq!(inner.range(), IndexRange::new(LogIndex(5), LogIndex(7)));
        assert_eq!(inner.at(LogIndex(6)).unwrap().index, LogIndex(6));
        assert!(inner.at(LogIndex(7)).is_none() && inner.at(LogIndex(4)).is_none());
        assert!(entries.slice(IndexRange::new(LogIndex(8), LogIndex(9))).is_empty());
    }

    #[test]
    fn a_prefix_holds_at_least_one_entry_however_small_the_bound() {
        let entries = Entries::new(vec![entry(1), entry(2), entry(3)]).unwrap();
        assert_eq!(entries.prefix(10, 1).len(), 1);
        assert_eq!(entries.prefix(10, 2 * entry(1).weight()).len(), 2);
        assert_eq!(entries.prefix(2, usize::MAX).len(), 2);
        assert!(Entries::empty().prefix(5, 5).is_empty());
    }

    #[test]
    fn every_kind_survives_its_byte_and_unknown_bytes_are_refused() {
        for kind in
            [Kind::Command, Kind::Noop, Kind::Membership, Kind::Session, Kind::Private(0), Kind::Private(63)]
        {
            assert_eq!(Kind::from_byte(kind.to_byte()), Some(kind));
        }
        assert_eq!(Kind::from_byte(4), None);
        assert_eq!(Kind::from_byte(0x80), None);
    }
}
