//! A key-value state machine.

#[allow(
    clippy::disallowed_types,
    reason = "the hash seed is fixed, and the order of iteration never leaves"
)]
use std::collections::HashMap;
use std::hash::BuildHasher;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::put_bytes;
use crate::{
    Applied, Decode, DecodeError, Encode, Operation, Outputs, StateMachine, StateMachineError, WireReader,
};

/// Maps keys to values in memory. Commands are [`Put`], queries are [`Get`].
///
/// Keys and values are copied out of the frames they arrive in, so an entry of the map keeps nothing else
/// alive; see [`KeyValue::sharing`] for the other choice.
#[derive(Clone, Debug, Default)]
#[allow(clippy::disallowed_types, reason = "the hash seed is fixed, and the order of iteration never leaves")]
pub struct KeyValue {
    map: HashMap<Bytes, Bytes, foldhash::fast::FixedState>,
    shares: bool,
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
        self.map.get(key)
    }

    /// How many keys have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True if no key has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// A number that equal states share, whatever the order in which they were built.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let hash = foldhash::quality::FixedState::with_seed(0);
        self.map.iter().map(|(key, value)| hash.hash_one((&key[..], &value[..]))).fold(0, u64::wrapping_add)
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
                    match self.map.get_mut(key) {
                        Some(slot) => {
                            *slot = value;
                            EXISTED
                        }
                        None => {
                            self.map.insert(Bytes::copy_from_slice(key), value);
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
        Ok(match self.map.get(query) {
            Some(value) => {
                let mut out = BytesMut::with_capacity(1 + value.len());
                out.put_u8(1);
                out.put_slice(value);
                out.freeze()
            }
            None => Bytes::from_static(&[0]),
        })
    }
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
