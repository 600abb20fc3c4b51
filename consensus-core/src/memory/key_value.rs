//! A key-value state machine.

#[allow(
    clippy::disallowed_types,
    reason = "the hash seed is fixed, and the order of iteration never leaves"
)]
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::put_bytes;
use crate::{
    Applied, Decode, DecodeError, Encode, Operation, Outputs, SnapshotSource, StateMachine,
    StateMachineError, WireReader,
};

/// Maps keys to values in memory. Commands are [`Put`], queries are [`Get`].
///
/// Keys and values are copied out of the frames they arrive in, so an entry of the map keeps nothing else
/// alive; see [`KeyValue::sharing`] for the other choice.
///
/// A snapshot shares the map until either side changes: it lies in parts, and a command that meets a shared one copies
/// that part.
#[derive(Clone, Debug)]
pub struct KeyValue {
    parts: Vec<Part>,
    hasher: foldhash::fast::FixedState,
    shares: bool,
}

#[allow(clippy::disallowed_types, reason = "the hash seed is fixed, and the order of iteration never leaves")]
type Map = HashMap<Bytes, Bytes, foldhash::fast::FixedState>;

#[derive(Clone, Debug)]
enum Part {
    Own(Map),
    /// A snapshot may be reading it.
    Shared(Arc<Map>),
}

impl Part {
    fn map(&self) -> &Map {
        match self {
            Part::Own(map) => map,
            Part::Shared(map) => map,
        }
    }

    fn own(&mut self) -> &mut Map {
        if let Part::Shared(map) = self {
            *self = Part::Own(Arc::unwrap_or_clone(std::mem::take(map)));
        }
        match self {
            Part::Own(map) => map,
            Part::Shared(_) => unreachable!("just taken over"),
        }
    }

    fn share(&mut self) -> Arc<Map> {
        match self {
            Part::Own(map) => {
                let map = Arc::new(std::mem::take(map));
                *self = Part::Shared(Arc::clone(&map));
                map
            }
            Part::Shared(map) => Arc::clone(map),
        }
    }
}

/// How many parts there are: a power of two. A copy of one must not be felt.
const PARTS: usize = 256;

impl Default for KeyValue {
    fn default() -> KeyValue {
        let part = || Part::Own(Map::default());
        KeyValue {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            hasher: foldhash::fast::FixedState::default(),
            shares: false,
        }
    }
}

/// Sets a key; answered by [`Previous`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
}

/// Asks for a key's value; answered by the value, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// The key.
    pub key: Bytes,
}

/// What a [`Put`] answers: whether the key had a value before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// True if the key had a value.
    pub existed: bool,
}

impl KeyValue {
    /// An empty map that keeps values as slices of the payloads they came in: no copy per command.
    ///
    /// Right where each command is an allocation of its own, as in one process; over a network a single
    /// value may keep a whole received frame alive.
    #[must_use]
    pub fn sharing() -> KeyValue {
        KeyValue { shares: true, ..KeyValue::default() }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.parts[self.part_of(key)].map().get(key)
    }

    /// How many keys have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.map().len()).sum()
    }

    /// True if no key has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.map().is_empty())
    }

    /// A number that equal states share, whatever the order in which they were built.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let hash = foldhash::quality::FixedState::with_seed(0);
        let entries = self.parts.iter().flat_map(|part| part.map().iter());
        entries.map(|(key, value)| hash.hash_one((&key[..], &value[..]))).fold(0, u64::wrapping_add)
    }

    /// Bits that the maps themselves do not place entries by.
    fn part_of(&self, key: &[u8]) -> usize {
        (self.hasher.hash_one(key) >> 40) as usize % PARTS
    }
}

impl StateMachine for KeyValue {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        const NEW: Bytes = Bytes::from_static(&[0]);
        const EXISTED: Bytes = Bytes::from_static(&[1]);
        for applied in batch {
            // A command that does not decode was decided all the same: it changes nothing and says so.
            let reply = match split_put(applied.payload) {
                Some((key, value)) => {
                    let value = if self.shares {
                        applied.payload.slice_ref(value)
                    } else {
                        Bytes::copy_from_slice(value)
                    };
                    let part = self.part_of(key);
                    let map = self.parts[part].own();
                    match map.get_mut(key) {
                        Some(slot) => {
                            *slot = value;
                            EXISTED
                        }
                        None => {
                            map.insert(Bytes::copy_from_slice(key), value);
                            NEW
                        }
                    }
                }
                None => Bytes::new(),
            };
            out.reply(reply);
        }
        Ok(())
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, StateMachineError> {
        Ok(match self.get(query) {
            Some(value) => {
                let mut out = BytesMut::with_capacity(1 + value.len());
                out.put_u8(1);
                out.put_slice(value);
                out.freeze()
            }
            None => Bytes::from_static(&[0]),
        })
    }

    fn snapshot(&mut self) -> Option<Box<dyn SnapshotSource>> {
        Some(Box::new(Shared(self.parts.iter_mut().map(Part::share).collect())))
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), StateMachineError> {
        *self = KeyValue { shares: self.shares, ..KeyValue::default() };
        self.read_from(from).map_err(|source| StateMachineError {
            message: "the snapshot is no map of keys and values".to_owned(),
            source: Some(Box::new(source)),
        })
    }
}

impl KeyValue {
    fn read_from(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut from = io::BufReader::new(from);
        let mut count = [0; 8];
        from.read_exact(&mut count)?;
        for _ in 0..u64::from_le_bytes(count) {
            let (key, value) = (read_bytes(&mut from)?, read_bytes(&mut from)?);
            let part = self.part_of(&key);
            self.parts[part].own().insert(key, value);
        }
        Ok(())
    }
}

/// The map as it was: how many keys (eight bytes, little-endian), then each key and its value, each after its length
/// (four bytes).
struct Shared(Vec<Arc<Map>>);

impl SnapshotSource for Shared {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
        let count: usize = self.0.iter().map(|part| part.len()).sum();
        out.write_all(&(count as u64).to_le_bytes())?;
        for part in self.0 {
            for text in part.iter().flat_map(|(key, value)| [key, value]) {
                let len = u32::try_from(text.len()).map_err(io::Error::other)?;
                out.write_all(&len.to_le_bytes())?;
                out.write_all(text)?;
            }
        }
        Ok(())
    }
}

/// A length, and as many bytes as there are of it: a length alone allocates nothing.
fn read_bytes(from: &mut impl Read) -> io::Result<Bytes> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    let mut text = Vec::new();
    from.take(u64::from(len)).read_to_end(&mut text)?;
    if text.len() == len as usize { Ok(Bytes::from(text)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Key length (four bytes, little-endian), key, value.
fn split_put(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = payload.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
}

impl Encode for Put {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(4 + self.key.len() + self.value.len());
        put_bytes(&mut out, &self.key);
        out.put_slice(&self.value);
        out.freeze()
    }
}

impl Operation for Put {
    type Reply = Previous;
}

impl Decode for Previous {
    fn decode(bytes: Bytes) -> Result<Previous, DecodeError> {
        let mut reader = WireReader::new(bytes);
        let existed = reader.bool()?;
        reader.finish()?;
        Ok(Previous { existed })
    }
}

impl Encode for Get {
    fn encode(&self) -> Bytes {
        self.key.clone()
    }
}

impl Operation for Get {
    type Reply = Option<Bytes>;
}

impl Decode for Option<Bytes> {
    fn decode(bytes: Bytes) -> Result<Option<Bytes>, DecodeError> {
        match bytes.first() {
            Some(0) if bytes.len() == 1 => Ok(None),
            Some(1) => Ok(Some(bytes.slice(1..))),
            Some(tag) => Err(DecodeError::Unknown { what: "option", value: u64::from(*tag) }),
            None => Err(DecodeError::Truncated { needed: 1, left: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogIndex, Reign, RequestId};

    fn apply(state: &mut KeyValue, payload: &Bytes) -> Bytes {
        let applied =
            Applied { index: LogIndex(1), reign: Reign::default(), request: RequestId::NONE, payload };
        let mut out = Outputs::new();
        state.apply(&[applied], &mut out).unwrap();
        out.drain().next().unwrap()
    }

    #[test]
    fn a_get_answers_what_the_last_put_wrote() {
        let mut state = KeyValue::default();
        let key = Bytes::from_static(b"k");
        let ask = |state: &KeyValue| {
            Option::<Bytes>::decode(state.query(&Get { key: key.clone() }.encode()).unwrap())
        };
        assert_eq!(ask(&state).unwrap(), None);
        for (value, existed) in [("one", false), ("", true), ("three", true)] {
            let put = Put { key: key.clone(), value: Bytes::from_static(value.as_bytes()) };
            assert_eq!(Previous::decode(apply(&mut state, &put.encode())).unwrap(), Previous { existed });
            assert_eq!(ask(&state).unwrap().unwrap(), value);
        }
    }

    #[test]
    fn a_command_that_does_not_decode_changes_nothing() {
        let mut state = KeyValue::default();
        let before = state.digest();
        for junk in [&b""[..], b"abc", &[9, 0, 0, 0, 1]] {
            assert!(apply(&mut state, &Bytes::from_static(junk)).is_empty());
        }
        assert_eq!((state.len(), state.digest()), (0, before));
    }

    #[test]
    fn a_snapshot_shows_the_moment_it_was_taken_at() {
        let put = |key: u64, value: &'static str| {
            let key = Bytes::copy_from_slice(&key.to_le_bytes());
            Put { key, value: Bytes::from_static(value.as_bytes()) }.encode()
        };
        let mut state = KeyValue::default();
        for key in 0..1_000 {
            apply(&mut state, &put(key, "before"));
        }
        let digest = state.digest();
        let source = state.snapshot().unwrap();
        for key in 500..2_000 {
            apply(&mut state, &put(key, "after"));
        }
        let mut bytes = Vec::new();
        source.write_to(&mut bytes).unwrap();
        let mut restored = KeyValue::default();
        apply(&mut restored, &put(1 << 40, "gone"));
        restored.restore(&mut &bytes[..]).unwrap();
        assert_eq!((restored.len(), restored.digest()), (1_000, digest));
        assert_eq!(state.len(), 2_000);
        for cut in [0, 7, 8, 11, bytes.len() - 1] {
            assert!(restored.restore(&mut &bytes[..cut]).is_err());
        }
    }

    #[test]
    fn the_digest_depends_on_the_state_and_not_on_its_history() {
        let put = |key: &'static str, value: &'static str| {
            Put { key: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(value.as_bytes()) }
                .encode()
        };
        let (mut a, mut b) = (KeyValue::default(), KeyValue::default());
        for payload in [put("x", "1"), put("y", "2")] {
            apply(&mut a, &payload);
        }
        for payload in [put("y", "3"), put("y", "2"), put("x", "1")] {
            apply(&mut b, &payload);
        }
        assert_eq!(a.digest(), b.digest());
        apply(&mut b, &put("x", "2"));
        assert_ne!(a.digest(), b.digest());
    }
}
