//! The replicated state of a comparison, with questions that show it whole.

use std::collections::{BTreeSet, HashMap, hash_map};
use std::hash::BuildHasher;
use std::io::{self, Read, Write};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};
use synod_core::{
    Applied, LogIndex, NodeId, Outputs, Reign, SnapshotSource, StateMachine, StateMachineError,
};

/// What a replica of a comparison runs: one type, so that whoever starts replicas need not be generic.
#[derive(Clone, Debug)]
pub struct Replicated {
    content: Content,
    /// The index of the last command that was applied.
    through: LogIndex,
}

#[derive(Clone, Debug)]
enum Content {
    Store(Store),
    Lines(Lines),
}

/// The query that asks for the state as a whole; the answer is a [`State`]. No key is empty.
pub const STATE_QUERY: Bytes = Bytes::new();

/// A state as a whole, and which one it is: between two replicas only states of one index can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The index of the last command in it; 0 if there is none.
    pub through: LogIndex,
    /// A digest of it. Of lines, a [`Summary`].
    pub content: Bytes,
}

impl State {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(8 + self.content.len());
        out.put_u64_le(self.through.0);
        out.put_slice(&self.content);
        out.freeze()
    }

    /// Reads the answer to [`STATE_QUERY`]; `None` if it is not one.
    #[must_use]
    pub fn decode(mut answer: Bytes) -> Option<State> {
        let through = LogIndex(answer.try_get_u64_le().ok()?);
        Some(State { through, content: answer })
    }
}

impl Replicated {
    /// Keys and values, none yet.
    #[must_use]
    pub fn store() -> Replicated {
        Replicated { content: Content::Store(Store::default()), through: LogIndex(0) }
    }

    /// A sequence of lines, none yet.
    #[must_use]
    pub fn lines() -> Replicated {
        Replicated { content: Content::Lines(Lines::default()), through: LogIndex(0) }
    }
}

impl StateMachine for Replicated {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        if let Some(last) = batch.last() {
            self.through = last.index;
        }
        match &mut self.content {
            Content::Store(store) => store.apply(batch, out),
            Content::Lines(lines) => lines.apply(batch, out),
        }
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, StateMachineError> {
        let answer = match &self.content {
            Content::Store(store) => store.query(query)?,
            Content::Lines(lines) => lines.query(query)?,
        };
        if query != STATE_QUERY {
            return Ok(answer);
        }
        Ok(State { through: self.through, content: answer }.encode())
    }

    fn snapshot(&mut self) -> Option<Box<dyn SnapshotSource>> {
        Some(Box::new(self.clone()))
    }

    fn restore(&mut self, mut from: &mut dyn Read) -> Result<(), StateMachineError> {
        self.read_from(&mut from).map_err(|source| StateMachineError {
            message: "the snapshot is of something else".to_owned(),
            source: Some(Box::new(source)),
        })
    }
}

/// A copy is small beside what is measured, and made at once; it is written down elsewhere: the index of the last command,
/// then the content. Numbers are little-endian.
impl SnapshotSource for Replicated {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.through.0.to_le_bytes())?;
        match &self.content {
            Content::Store(store) => store.write_to(out),
            Content::Lines(lines) => lines.write_to(out),
        }
    }
}

impl Replicated {
    fn read_from(&mut self, from: &mut impl Read) -> io::Result<()> {
        self.through = LogIndex(read_u64(from)?);
        match &mut self.content {
            Content::Store(store) => *store = Store::read_from(&mut io::BufReader::new(from))?,
            Content::Lines(lines) => *lines = Lines::read_from(from)?,
        }
        Ok(())
    }
}

fn read_u64(from: &mut impl Read) -> io::Result<u64> {
    let mut number = [0; 8];
    from.read_exact(&mut number)?;
    Ok(u64::from_le_bytes(number))
}

/// Keys of four bytes with values in memory.
///
/// A put is the key and the value, and is answered [`ABSENT`] or [`PRESENT`]: whether the key had a value
/// before. A query is the key, answered [`ABSENT`], or [`PRESENT`] and the value. Values are copied out of
/// the log and overwritten in place, so that a put costs neither an allocation nor a look at a foreign one:
/// what is compared here is the way to the state machine.
#[derive(Clone, Debug, Default)]
pub struct Store {
    slots: HashMap<[u8; 4], Slot, foldhash::fast::FixedState>,
    values: Vec<u8>,
}

/// Where a value lies among all values.
#[derive(Clone, Copy, Debug)]
struct Slot {
    at: usize,
    len: u32,
}

/// The key had no value.
pub const ABSENT: u8 = 0;
/// The key had a value.
pub const PRESENT: u8 = 1;

impl Store {
    fn put(&mut self, key: [u8; 4], value: &[u8]) -> Bytes {
        const REPLY_ABSENT: Bytes = Bytes::from_static(&[ABSENT]);
        const REPLY_PRESENT: Bytes = Bytes::from_static(&[PRESENT]);
        match self.slots.entry(key) {
            hash_map::Entry::Occupied(mut slot) => {
                let slot = slot.get_mut();
                match self.values[slot.at..][..slot.len as usize].get_mut(..value.len()) {
                    Some(place) => place.copy_from_slice(value),
                    // Values that grow leave their place behind. Those of one run do not.
                    None => slot.at = append(&mut self.values, value),
                }
                slot.len = length(value);
                REPLY_PRESENT
            }
            hash_map::Entry::Vacant(slot) => {
                slot.insert(Slot { at: append(&mut self.values, value), len: length(value) });
                REPLY_ABSENT
            }
        }
    }

    /// How many keys, then each key, the length of its value (four bytes) and the value.
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(self.slots.len() as u64).to_le_bytes())?;
        for (key, slot) in &self.slots {
            out.write_all(key)?;
            out.write_all(&slot.len.to_le_bytes())?;
            out.write_all(self.value(*slot))?;
        }
        Ok(())
    }

    fn read_from(from: &mut impl Read) -> io::Result<Store> {
        let mut store = Store::default();
        let mut value = Vec::new();
        for _ in 0..read_u64(from)? {
            let (mut key, mut len) = ([0; 4], [0; 4]);
            from.read_exact(&mut key)?;
            from.read_exact(&mut len)?;
            value.clear();
            let len = u64::from(u32::from_le_bytes(len));
            if from.take(len).read_to_end(&mut value)? as u64 != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            store.put(key, &value);
        }
        Ok(store)
    }

    fn value(&self, slot: Slot) -> &[u8] {
        &self.values[slot.at..][..slot.len as usize]
    }

    /// A number that equal states share, whatever the order in which they were built.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let hash = foldhash::quality::FixedState::with_seed(0);
        let entries = self.slots.iter().map(|(key, slot)| hash.hash_one((key, self.value(*slot))));
        entries.fold(0, u64::wrapping_add)
    }
}

fn append(values: &mut Vec<u8>, value: &[u8]) -> usize {
    let at = values.len();
    values.extend_from_slice(value);
    at
}

fn length(value: &[u8]) -> u32 {
    u32::try_from(value.len()).expect("a command is smaller than 4 GiB")
}

impl StateMachine for Store {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        for applied in batch {
            out.reply(match applied.payload.split_first_chunk::<4>() {
                Some((key, value)) => self.put(*key, value),
                // A command that is no put was decided all the same: it changes nothing and says so.
                None => Bytes::new(),
            });
        }
        Ok(())
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, StateMachineError> {
        let Ok(key) = <[u8; 4]>::try_from(query) else {
            let mut answer = BytesMut::with_capacity(16);
            answer.put_u64_le(self.digest());
            answer.put_u64_le(self.slots.len() as u64);
            return Ok(answer.freeze());
        };
        Ok(match self.slots.get(&key) {
            Some(slot) => {
                let value = self.value(*slot);
                let mut answer = BytesMut::with_capacity(1 + value.len());
                answer.put_u8(PRESENT);
                answer.put_slice(value);
                answer.freeze()
            }
            None => Bytes::from_static(&[ABSENT]),
        })
    }
}

/// The lines applied so far, as the SHA-256 of each followed by a line feed.
///
/// A line holds no line feed, so different sequences have different digests; and the digest of a file that
/// ends in a line feed is what `sha256sum` says.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    hash: Sha256,
    count: u64,
    reigns: BTreeSet<Reign>,
}

impl Lines {
    /// Adds one line.
    pub fn push(&mut self, line: &[u8]) {
        self.hash.update(line);
        self.hash.update(b"\n");
        self.count += 1;
    }

    /// The state of the hash, how many lines, how many reigns, and each of them.
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.hash.serialize())?;
        out.write_all(&self.count.to_le_bytes())?;
        out.write_all(&(self.reigns.len() as u64).to_le_bytes())?;
        for reign in &self.reigns {
            out.write_all(&reign.number.to_le_bytes())?;
            out.write_all(&reign.leader.0.to_le_bytes())?;
        }
        Ok(())
    }

    fn read_from(from: &mut impl Read) -> io::Result<Lines> {
        let mut hash = SerializedState::<Sha256>::default();
        from.read_exact(&mut hash)?;
        let hash = Sha256::deserialize(&hash).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut lines = Lines { hash, count: read_u64(from)?, reigns: BTreeSet::new() };
        for _ in 0..read_u64(from)? {
            lines.reigns.insert(Reign { number: read_u64(from)?, leader: NodeId(read_u64(from)?) });
        }
        Ok(lines)
    }

    /// What was added so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            digest: self.hash.clone().finalize().into(),
            lines: self.count,
            reigns: self.reigns.len() as u64,
        }
    }
}

impl StateMachine for Lines {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        for applied in batch {
            self.push(applied.payload);
            self.reigns.insert(applied.reign);
            out.reply(Bytes::new());
        }
        Ok(())
    }

    fn query(&self, _query: &[u8]) -> Result<Bytes, StateMachineError> {
        Ok(self.summary().encode())
    }
}

/// A sequence of lines, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// SHA-256 of the lines.
    pub digest: [u8; 32],
    /// How many there are.
    pub lines: u64,
    /// In how many leadership periods they were first proposed.
    pub reigns: u64,
}

impl Summary {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(48);
        out.put_slice(&self.digest);
        out.put_u64_le(self.lines);
        out.put_u64_le(self.reigns);
        out.freeze()
    }

    /// Reads the answer of [`Lines`] to a query; `None` if it is not one.
    #[must_use]
    pub fn decode(answer: &[u8]) -> Option<Summary> {
        let (digest, mut rest) = answer.split_first_chunk::<32>()?;
        if rest.len() != 16 {
            return None;
        }
        Some(Summary { digest: *digest, lines: rest.get_u64_le(), reigns: rest.get_u64_le() })
    }

    /// The digest as 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The lines of a file: what stands before each line feed, and what follows the last one if it is not empty.
#[must_use]
pub fn lines_of(file: &Bytes) -> Vec<Bytes> {
    let mut lines: Vec<Bytes> = file.split(|byte| *byte == b'\n').map(|line| file.slice_ref(line)).collect();
    if lines.last().is_some_and(Bytes::is_empty) {
        lines.pop();
    }
    lines
}

#[cfg(test)]
mod tests {
    use synod_checker::ValueId;
    use synod_core::{NodeId, RequestId};

    use super::*;
    use crate::workload::Format;

    fn digest(lines: &[&[u8]]) -> String {
        let mut all = Lines::default();
        lines.iter().for_each(|line| all.push(line));
        all.summary().hex()
    }

    #[test]
    fn the_digest_of_a_file_that_ends_in_a_line_feed_is_its_sha256() {
        // printf 'one\n\ntwo\n' | sha256sum
        let known = "ca48018cd69ec26f9206d26f99b5019ba6075d5482c587a072361987ae3179dd";
        assert_eq!(digest(&[b"one", b"", b"two"]), known);
    }

    #[test]
    fn sequences_that_differ_in_order_count_or_split_have_different_digests() {
        let base = digest(&[b"a", b"b", b""]);
        for other in [&[&b"b"[..], b"a", b""][..], &[b"a", b"b"], &[b"ab", b""], &[b"a", b"", b"b"]] {
            assert_ne!(digest(other), base);
        }
    }

    #[test]
    fn empty_and_non_utf8_lines_count_and_a_last_line_feed_opens_no_line() {
        let lines = |file: &'static [u8]| lines_of(&Bytes::from_static(file));
        assert_eq!(lines(b"a\n\n\xff\xfe\nlast"), [&b"a"[..], b"", b"\xff\xfe", b"last"]);
        assert_eq!(lines(b"a\r\nb\n"), [&b"a\r"[..], b"b"]);
        assert_eq!(lines(b"\n\n"), [&b""[..], b""]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_replica_tells_its_lines_and_the_reigns_they_were_proposed_in() {
        let mut machine = Replicated::lines();
        let mut out = Outputs::new();
        let payloads = [Bytes::from_static(b"x"), Bytes::new()];
        for (number, payload) in payloads.iter().enumerate() {
            let reign = Reign { number: number as u64, leader: NodeId(1) };
            let applied = Applied { index: LogIndex(3), reign, request: RequestId::NONE, payload };
            machine.apply(&[applied], &mut out).unwrap();
        }
        let state = State::decode(machine.query(&STATE_QUERY).unwrap()).unwrap();
        assert_eq!(state.through, LogIndex(3));
        let summary = Summary::decode(&state.content).unwrap();
        assert_eq!((summary.lines, summary.reigns, out.len()), (2, 2, 2));
        assert_eq!(summary.hex(), digest(&[b"x", b""]));
        assert_eq!(Summary::decode(b"short"), None);
        assert_eq!(State::decode(Bytes::from_static(b"short")), None);
    }

    fn apply(store: &mut Replicated, payload: &Bytes) -> Bytes {
        let applied =
            Applied { index: LogIndex(1), reign: Reign::default(), request: RequestId::NONE, payload };
        let mut out = Outputs::new();
        store.apply(&[applied], &mut out).unwrap();
        out.drain().next().unwrap()
    }

    #[test]
    fn a_get_returns_what_the_last_put_wrote() {
        let format = Format::new(8);
        let mut store = Replicated::store();
        let query = format.get(5);
        assert_eq!(format.returned(&store.query(&query).unwrap()), Ok(None));
        for (value, before) in [(7, ABSENT), (8, PRESENT), (9, PRESENT)] {
            assert_eq!(apply(&mut store, &format.put(5, ValueId(value)))[..], [before]);
            assert_eq!(format.returned(&store.query(&query).unwrap()), Ok(Some(ValueId(value))));
        }
        assert!(apply(&mut store, &Bytes::from_static(b"abc")).is_empty());
        let same_key = Format::new(8).get(5);
        for value in [&b"longer than eight bytes"[..], b"", b"short", b"a little longer"] {
            let mut put = same_key.to_vec();
            put.extend_from_slice(value);
            assert_eq!(apply(&mut store, &put.into())[..], [PRESENT]);
            assert_eq!(store.query(&query).unwrap()[1..], *value);
        }
    }

    #[test]
    fn a_snapshot_becomes_the_state_of_its_moment_and_no_cut_of_it_does() {
        let puts = [&b"key1value"[..], b"key2", b"key1other", b"key3 is longer"];
        for make in [Replicated::store, Replicated::lines] {
            let mut machine = make();
            for put in puts {
                apply(&mut machine, &Bytes::from_static(put));
            }
            let state = machine.query(&STATE_QUERY).unwrap();
            let source = machine.snapshot().unwrap();
            apply(&mut machine, &Bytes::from_static(b"key9later"));
            let mut bytes = Vec::new();
            source.write_to(&mut bytes).unwrap();

            let mut other = make();
            apply(&mut other, &Bytes::from_static(b"key8gone"));
            other.restore(&mut &bytes[..]).unwrap();
            assert_eq!(other.query(&STATE_QUERY).unwrap(), state);
            apply(&mut other, &Bytes::from_static(b"key9later"));
            assert_eq!(other.query(&STATE_QUERY).unwrap(), machine.query(&STATE_QUERY).unwrap());
            for cut in 0..bytes.len() {
                assert!(other.restore(&mut &bytes[..cut]).is_err(), "{cut} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn the_state_query_tells_states_apart_and_not_the_ways_to_them() {
        let state = |puts: &[(u32, u64)]| {
            let format = Format::new(8);
            let mut store = Replicated::store();
            for &(key, value) in puts {
                apply(&mut store, &format.put(key, ValueId(value)));
            }
            store.query(&STATE_QUERY).unwrap()
        };
        let base = state(&[(1, 10), (2, 20)]);
        assert_eq!(state(&[(2, 30), (2, 20), (1, 10)]), base);
        for other in [&[(1, 10), (2, 21)][..], &[(1, 10), (3, 20)], &[(1, 20), (2, 10)], &[(1, 10)]] {
            assert_ne!(state(other), base);
        }
    }
}
