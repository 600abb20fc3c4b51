//! Fixed-layout, little-endian encoding with bounds checked before anything is allocated.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    ClientId, Command, Entries, Entry, Kind, Loaded, LogIndex, NodeId, Reign, RequestId, Sequence, Stamp,
};

/// A value with a fixed layout on the wire and in hard state.
///
/// `decode` reads exactly what `encode` wrote, and any other bytes give an error: never a panic, and never
/// an allocation larger than the bytes that are there.
pub trait Wire: Sized {
    /// How many bytes [`Wire::encode`] appends.
    fn wire_len(&self) -> usize;

    /// Appends the value.
    fn encode(&self, out: &mut BytesMut);

    /// Reads one value from the front.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes do not stand for a value.
    fn decode(from: &mut WireReader) -> Result<Self, DecodeError>;

    /// The value alone in a buffer of its own.
    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.wire_len());
        self.encode(&mut out);
        out.freeze()
    }

    /// Reads a value that fills `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes do not stand for a value, or stand for more than one.
    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = WireReader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// Why bytes do not stand for a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The value is longer than the bytes.
    #[error("{needed} more bytes are needed and {left} are left")]
    Truncated {
        /// How many bytes the value wants next.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// A tag that stands for nothing.
    #[error("{value} is no {what}")]
    Unknown {
        /// What the tag is for.
        what: &'static str,
        /// What was found.
        value: u64,
    },
    /// Fields that cannot stand together.
    #[error("impossible {what}")]
    Impossible {
        /// Which.
        what: &'static str,
    },
    /// Bytes are left over.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

/// Takes values off the front of a frame. Byte strings are slices of the frame, not copies.
#[derive(Clone, Debug)]
pub struct WireReader {
    bytes: Bytes,
}

impl WireReader {
    /// Reads `bytes` from the front.
    #[must_use]
    pub fn new(bytes: Bytes) -> WireReader {
        WireReader { bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    fn need(&self, needed: usize) -> Result<(), DecodeError> {
        let left = self.bytes.len();
        if needed > left { Err(DecodeError::Truncated { needed, left }) } else { Ok(()) }
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.bytes.get_u8())
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.bytes.get_u32_le())
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.bytes.get_u64_le())
    }

    /// A flag.
    ///
    /// # Errors
    /// [`DecodeError`] if the byte is neither 0 nor 1.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Unknown { what: "flag", value: u64::from(value) }),
        }
    }

    /// A length, then that many bytes, shared with the frame.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u32()? as usize;
        self.need(len)?;
        Ok(self.bytes.split_to(len))
    }

    /// How many items follow, each at least `item_len_min` bytes long: checked against what is left, so
    /// that the count is safe to allocate by.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn count(&mut self, item_len_min: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        self.need(count.saturating_mul(item_len_min.max(1)))?;
        Ok(count)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`].
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.bytes.len())) }
    }
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &Bytes) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("a payload is shorter than 4 GiB"));
    out.put_slice(bytes);
}

/// Appends a count.
pub(crate) fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("a list is shorter than 2^32"));
}

impl Wire for RequestId {
    fn wire_len(&self) -> usize {
        24
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.client.0);
        out.put_u64_le(self.sequence.0);
        out.put_u64_le(self.first_incomplete.0);
    }

    fn decode(from: &mut WireReader) -> Result<RequestId, DecodeError> {
        Ok(RequestId {
            client: ClientId(from.u64()?),
            sequence: Sequence(from.u64()?),
            first_incomplete: Sequence(from.u64()?),
        })
    }
}

impl Wire for Stamp {
    fn wire_len(&self) -> usize {
        16
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.high);
        out.put_u64_le(self.low);
    }

    fn decode(from: &mut WireReader) -> Result<Stamp, DecodeError> {
        Ok(Stamp { high: from.u64()?, low: from.u64()? })
    }
}

impl Wire for Reign {
    fn wire_len(&self) -> usize {
        16
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.number);
        out.put_u64_le(self.leader.0);
    }

    fn decode(from: &mut WireReader) -> Result<Reign, DecodeError> {
        Ok(Reign { number: from.u64()?, leader: NodeId(from.u64()?) })
    }
}

fn decode_kind(from: &mut WireReader) -> Result<Kind, DecodeError> {
    let byte = from.u8()?;
    Kind::from_byte(byte).ok_or(DecodeError::Unknown { what: "entry kind", value: u64::from(byte) })
}

/// The bytes of a command besides its payload.
pub(crate) const COMMAND_LEN_MIN: usize = 1 + 24 + 4;

impl Wire for Command {
    fn wire_len(&self) -> usize {
        COMMAND_LEN_MIN + self.payload.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.kind.to_byte());
        self.request.encode(out);
        put_bytes(out, &self.payload);
    }

    fn decode(from: &mut WireReader) -> Result<Command, DecodeError> {
        Ok(Command { kind: decode_kind(from)?, request: RequestId::decode(from)?, payload: from.bytes()? })
    }
}

/// Run header: count, stamp, whether the stamp rises, reign.
const RUN_LEN: usize = 4 + 16 + 1 + 16;

/// What stands before the runs of consecutive entries.
const ENTRIES_HEADER_LEN: usize = 8 + 4;

// An entry never takes more on the wire than it weighs, even if nothing follows or precedes it.
const _: () = assert!(ENTRIES_HEADER_LEN + RUN_LEN + COMMAND_LEN_MIN <= Entry::OVERHEAD);

/// Splits consecutive entries into runs of one reign whose stamps are constant or rise by one.
fn run_len(entries: &[Entry]) -> (usize, bool) {
    let Some(first) = entries.first() else { return (0, false) };
    let rising = entries.get(1).is_some_and(|second| {
        second.stamp.high == first.stamp.high && Some(second.stamp.low) == first.stamp.low.checked_add(1)
    });
    let len = entries
        .iter()
        .enumerate()
        .take_while(|(offset, entry)| {
            let low = if rising { first.stamp.low.wrapping_add(*offset as u64) } else { first.stamp.low };
            entry.reign == first.reign && entry.stamp.high == first.stamp.high && entry.stamp.low == low
        })
        .count();
    (len, rising)
}

/// A run of entries that is being read.
struct Run {
    /// Entries left of all runs.
    left: usize,
    /// Entries left of this one.
    count: usize,
    stamp: Stamp,
    rising: bool,
    reign: Reign,
}

impl Run {
    /// The entry at `index`, at which the next run begins if this one is at its end.
    fn entry(&mut self, index: LogIndex, from: &mut WireReader) -> Result<Entry, DecodeError> {
        if self.count == 0 {
            self.begin(from)?;
        }
        let Command { kind, request, payload } = Command::decode(from)?;
        let stamp = self.stamp;
        self.left -= 1;
        self.count -= 1;
        if self.rising {
            // Checked for the whole run; one past its last entry may be too large.
            self.stamp.low = self.stamp.low.wrapping_add(1);
        }
        Ok(Entry { index, stamp, reign: self.reign, kind, request, payload })
    }

    fn begin(&mut self, from: &mut WireReader) -> Result<(), DecodeError> {
        let count = from.count(COMMAND_LEN_MIN)?;
        if count == 0 || count > self.left {
            return Err(DecodeError::Impossible { what: "run of entries" });
        }
        let stamp = Stamp::decode(from)?;
        let rising = from.bool()?;
        let reign = Reign::decode(from)?;
        if rising && stamp.low.checked_add(count as u64).is_none() {
            return Err(DecodeError::Impossible { what: "rising stamps" });
        }
        *self = Run { left: self.left, count, stamp, rising, reign };
        Ok(())
    }
}

/// Stands where an entry could not be read.
fn filler(index: LogIndex) -> Entry {
    Entry {
        index,
        stamp: Stamp::default(),
        reign: Reign::default(),
        kind: Kind::Noop,
        request: RequestId::NONE,
        payload: Bytes::new(),
    }
}

/// The first index, then runs: consecutive entries under one header, so that a batch of one leadership
/// costs 29 bytes an entry besides its payload.
impl Wire for Entries {
    fn wire_len(&self) -> usize {
        let mut len = ENTRIES_HEADER_LEN;
        let mut rest = &self[..];
        while !rest.is_empty() {
            let (count, _) = run_len(rest);
            len += RUN_LEN;
            len += rest[..count].iter().map(|entry| COMMAND_LEN_MIN + entry.payload.len()).sum::<usize>();
            rest = &rest[count..];
        }
        len
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.first_index().0);
        put_count(out, self.len());
        let mut rest = &self[..];
        while let Some(first) = rest.first() {
            let (count, rising) = run_len(rest);
            put_count(out, count);
            first.stamp.encode(out);
            out.put_u8(u8::from(rising));
            first.reign.encode(out);
            for entry in &rest[..count] {
                out.put_u8(entry.kind.to_byte());
                entry.request.encode(out);
                put_bytes(out, &entry.payload);
            }
            rest = &rest[count..];
        }
    }

    fn decode(from: &mut WireReader) -> Result<Entries, DecodeError> {
        let mut index = LogIndex(from.u64()?);
        let total = from.count(COMMAND_LEN_MIN)?;
        if index.0.checked_add(total as u64).is_none() || (total > 0 && index == LogIndex::ZERO) {
            return Err(DecodeError::Impossible { what: "entry positions" });
        }
        let mut run =
            Run { left: total, count: 0, stamp: Stamp::default(), rising: false, reign: Reign::default() };
        let mut problem = None;
        // Straight into the memory that the log will share. After a mistake the rest is filled up and all of
        // it thrown away.
        let entries = Entries::collected((0..total).map(|_| {
            let at = index;
            index = index.next();
            if problem.is_some() {
                return filler(at);
            }
            run.entry(at, from).unwrap_or_else(|error| {
                problem = Some(error);
                filler(at)
            })
        }));
        match problem {
            Some(problem) => Err(problem),
            None => Ok(entries),
        }
    }
}

/// A sparse set of entries and how far it reaches: also the shape of a promise's chunk.
impl Wire for Loaded {
    fn wire_len(&self) -> usize {
        8 + 4 + self.segments.iter().map(Wire::wire_len).sum::<usize>()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.to.0);
        put_count(out, self.segments.len());
        for segment in &self.segments {
            segment.encode(out);
        }
    }

    fn decode(from: &mut WireReader) -> Result<Loaded, DecodeError> {
        let to = LogIndex(from.u64()?);
        let count = from.count(12)?;
        let mut segments: Vec<Entries> = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            let segment = Entries::decode(from)?;
            let after = segments.last().is_none_or(|before| before.last_index() < segment.first_index());
            if segment.is_empty() || !after || segment.last_index() >= to {
                return Err(DecodeError::Impossible { what: "segments" });
            }
            segments.push(segment);
        }
        Ok(Loaded { segments, to })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Entries> {
        let entry = (0u64..3, 0u64..3, 0u64..2, 0u8..4, proptest::collection::vec(any::<u8>(), 0..9));
        (1u64..1000, proptest::collection::vec(entry, 0..20)).prop_map(|(first, items)| {
            Entries::numbered(LogIndex(first), items, |index, (high, low, leader, kind, payload)| Entry {
                index,
                stamp: Stamp { high, low: low + index.0 * (high & 1) },
                reign: Reign { number: high, leader: NodeId(leader) },
                kind: Kind::from_byte(kind).unwrap(),
                request: RequestId {
                    client: ClientId(low),
                    sequence: Sequence(index.0),
                    first_incomplete: Sequence(1),
                },
                payload: Bytes::from(payload),
            })
        })
    }

    proptest! {
        #[test]
        fn entries_survive_the_wire_and_their_length_is_foretold(entries in entries()) {
            let bytes = entries.to_bytes();
            prop_assert_eq!(bytes.len(), entries.wire_len());
            prop_assert_eq!(Entries::from_bytes(bytes).unwrap(), entries);
        }

        #[test]
        fn every_cut_and_every_changed_byte_is_an_error_or_another_value(entries in entries(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let bytes = entries.to_bytes();
            let cut = at.index(bytes.len());
            prop_assert!(Entries::from_bytes(bytes.slice(..cut)).is_err());
            let mut changed = bytes.to_vec();
            changed[cut] = to;
            if let Ok(other) = Entries::from_bytes(Bytes::from(changed.clone())) {
                prop_assert_eq!(other.len(), entries.len());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entries::from_bytes(Bytes::from(bytes.clone()));
            let _ = Command::from_bytes(Bytes::from(bytes));
        }
    }

    #[test]
    fn a_sparse_set_survives_the_wire_and_segments_out_of_order_are_refused() {
        let run = |first, count: usize| {
            Entries::numbered(LogIndex(first), vec![(); count], |index, ()| Entry {
                index,
                stamp: Stamp { high: 1, low: index.0 },
                reign: Reign::default(),
                kind: Kind::Noop,
                request: RequestId::NONE,
                payload: Bytes::new(),
            })
        };
        let loaded = |segments| Loaded { segments, to: LogIndex(20) };
        for good in [loaded(vec![]), loaded(vec![run(3, 2), run(9, 11)])] {
            let bytes = good.to_bytes();
            assert_eq!(bytes.len(), good.wire_len());
            assert_eq!(Loaded::from_bytes(bytes).unwrap(), good);
        }
        for bad in
            [loaded(vec![run(9, 2), run(3, 2)]), loaded(vec![run(3, 2), run(4, 2)]), loaded(vec![run(19, 2)])]
        {
            assert!(Loaded::from_bytes(bad.to_bytes()).is_err());
        }
    }

    #[test]
    fn the_layout_of_a_run_is_fixed() {
        let entries = Entries::numbered(LogIndex(5), vec!["ab", "c"], |index, text| Entry {
            index,
            stamp: Stamp { high: 3, low: 0 },
            reign: Reign { number: 3, leader: NodeId(1) },
            kind: Kind::Command,
            request: RequestId {
                client: ClientId(2),
                sequence: Sequence(index.0),
                first_incomplete: Sequence(4),
            },
            payload: Bytes::from_static(text.as_bytes()),
        });
        let mut want: Vec<u8> = Vec::new();
        want.extend(5u64.to_le_bytes());
        want.extend(2u32.to_le_bytes());
        want.extend(2u32.to_le_bytes());
        want.extend([3u64, 0].iter().flat_map(|n| n.to_le_bytes()));
        want.push(0);
        want.extend([3u64, 1].iter().flat_map(|n| n.to_le_bytes()));
        for (sequence, text) in [(5u64, "ab"), (6, "c")] {
            want.push(0);
            want.extend([2, sequence, 4].iter().flat_map(|n: &u64| n.to_le_bytes()));
            want.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            want.extend(text.as_bytes());
        }
        assert_eq!(&entries.to_bytes()[..], &want[..]);
    }

    #[test]
    fn a_count_larger_than_the_frame_is_refused_before_anything_is_allocated() {
        let mut out = BytesMut::new();
        out.put_u64_le(1);
        out.put_u32_le(u32::MAX);
        let error = Entries::from_bytes(out.freeze()).unwrap_err();
        assert!(matches!(error, DecodeError::Truncated { left: 0, .. }));
    }
}
