//! Compact bytes for vectors, contexts and siblings.
//!
//! ```text
//!   value    = header body                          nothing may follow
//!   header   = version (high 4 bits, now 1), kind (low 4 bits): 1 vector time, 2 version vector,
//!              3 dotted set or register, 4 causal context
//!   body     = number of entries, then the entries, ascending by actor
//!   entry    = node, less that of the entry before
//!              incarnation; if the node is the same as before: less that of the entry before
//!              counter, from 1 to 2^63 - 1
//!              in kind 3: number of values, at most the counter; then for each its length and bytes, oldest first
//!   number   = LEB128: 7 bits a byte, low ones first, high bit set on all but the last; shortest form only
//! ```
//!
//! Every value has exactly one encoding, and the decoder takes nothing else: what it accepts encodes to the same bytes.
//! It allocates in proportion to the length of its input, never to a number that the input claims.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use crate::actor::{ActorId, Dot};
use crate::counts::Counts;
use crate::dotted::{DottedVersionVectorSet, Entry};
use crate::hybrid::HybridTime;
use crate::register::{CausalContext, MultiVersionRegister};
use crate::resolve::Timed;
use crate::vector::VectorTime;
use crate::version::VersionVector;

/// Why bytes are no such value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Written by a later version of this crate, or by something else.
    #[error("unknown version {version} of the encoding")]
    Version {
        /// What the header says.
        version: u8,
    },
    /// Another kind of value.
    #[error("a value of kind {found} instead of {expected}")]
    Kind {
        /// What the header says.
        found: u8,
        /// What was asked for.
        expected: u8,
    },
    /// The bytes end too early.
    #[error("the bytes end too early")]
    Truncated,
    /// Bytes follow the value.
    #[error("{extra} bytes follow the value")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A number that is too large for its place, or not in its shortest form.
    #[error("a number is too large or not in its shortest form")]
    Number,
    /// The entries are not in ascending order of actors.
    #[error("the actors are not in ascending order")]
    Order,
    /// A counter that is 0 or above 2^63 - 1, or fewer events than values.
    #[error("a counter is out of range")]
    Counter,
    /// The bytes of a value are not what the type of the value expects.
    #[error("a value inside is malformed")]
    Value,
}

/// A value that can stand in an encoded set.
pub trait EncodeValue: Sized {
    /// Appends the bytes of the value; their length is kept beside them.
    fn encode_value(&self, out: &mut Vec<u8>);

    /// The value that these bytes are, all of them; `None` if they are none. Must not panic on any input.
    fn decode_value(bytes: &[u8]) -> Option<Self>;
}

const VERSION: u8 = 1;
const VECTOR_TIME: u8 = 1;
const VERSION_VECTOR: u8 = 2;
const DOTTED_SET: u8 = 3;
const CAUSAL_CONTEXT: u8 = 4;

/// The least bytes that an entry can have: node, incarnation, counter.
const ENTRY_BYTES_MIN: usize = 3;

impl VectorTime {
    /// The compact encoding: one byte of header, one of length, and some three for each actor.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode_counts(VECTOR_TIME, &self.0)
    }

    /// Reads the compact encoding.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for every input that [`to_bytes`](Self::to_bytes) would not have written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_counts(VECTOR_TIME, bytes).map(Self)
    }
}

impl VersionVector {
    /// The compact encoding: one byte of header, one of length, and some three for each actor.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode_counts(VERSION_VECTOR, &self.0)
    }

    /// Reads the compact encoding.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for every input that [`to_bytes`](Self::to_bytes) would not have written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_counts(VERSION_VECTOR, bytes).map(Self)
    }
}

impl CausalContext {
    /// The context as opaque bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode_counts(CAUSAL_CONTEXT, &self.0.0)
    }

    /// Reads what a client hands back.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for every input that [`to_bytes`](Self::to_bytes) would not have written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_counts(CAUSAL_CONTEXT, bytes).map(|counts| Self(VersionVector(counts)))
    }
}

impl<T: EncodeValue> DottedVersionVectorSet<T> {
    /// The compact encoding of the siblings and their history.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries = self.entries();
        let mut out = open(DOTTED_SET, entries.len());
        let mut before = None;
        let mut bytes = Vec::new();
        for entry in entries {
            put_dot(&mut out, &mut before, entry.last);
            put_number(&mut out, entry.values.len() as u64);
            for value in &entry.values {
                bytes.clear();
                value.encode_value(&mut bytes);
                put_number(&mut out, bytes.len() as u64);
                out.extend_from_slice(&bytes);
            }
        }
        out
    }

    /// Reads the compact encoding.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for every input that [`to_bytes`](Self::to_bytes) would not have written, as far as the values
    /// have one encoding each.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes, DOTTED_SET)?;
        let mut entries = Vec::new();
        let mut before = None;
        for _ in 0..reader.length(ENTRY_BYTES_MIN + 1)? {
            let last = reader.dot(&mut before)?;
            let mut values = Vec::new();
            let count = reader.length(1)?;
            if count as u64 > last.counter {
                return Err(DecodeError::Counter);
            }
            for _ in 0..count {
                let length = reader.length(1)?;
                values.push(T::decode_value(reader.take(length)?).ok_or(DecodeError::Value)?);
            }
            entries.push(Entry { last, values });
        }
        reader.close()?;
        Ok(Self::from_entries(entries))
    }
}

impl<T: EncodeValue> MultiVersionRegister<T> {
    /// The compact encoding of the siblings and their history.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// Reads the compact encoding.
    ///
    /// # Errors
    ///
    /// As for [`DottedVersionVectorSet::from_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        DottedVersionVectorSet::from_bytes(bytes).map(Self)
    }
}

impl EncodeValue for Vec<u8> {
    fn encode_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl EncodeValue for String {
    fn encode_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        core::str::from_utf8(bytes).ok().map(Into::into)
    }
}

/// Eight bytes, low ones first.
impl EncodeValue for u64 {
    fn encode_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(u64::from_le_bytes)
    }
}

/// The time in eight bytes, low ones first, then the value.
impl<T: EncodeValue> EncodeValue for Timed<T> {
    fn encode_value(&self, out: &mut Vec<u8>) {
        self.time.to_u64().encode_value(out);
        self.value.encode_value(out);
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        let (time, value) = bytes.split_at_checked(8)?;
        let time = HybridTime::from_u64(u64::decode_value(time)?);
        Some(Self { time, value: T::decode_value(value)? })
    }
}

fn encode_counts(kind: u8, counts: &Counts) -> Vec<u8> {
    let dots = counts.as_slice();
    let mut out = open(kind, dots.len());
    let mut before = None;
    for dot in dots {
        put_dot(&mut out, &mut before, *dot);
    }
    out
}

fn decode_counts(kind: u8, bytes: &[u8]) -> Result<Counts, DecodeError> {
    let mut reader = Reader::open(bytes, kind)?;
    let mut counts = Counts::default();
    let mut before = None;
    for _ in 0..reader.length(ENTRY_BYTES_MIN)? {
        counts.push(reader.dot(&mut before)?);
    }
    reader.close()?;
    Ok(counts)
}

/// The header and the number of entries.
fn open(kind: u8, entries: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + entries * (ENTRY_BYTES_MIN + 1));
    out.push(VERSION << 4 | kind);
    put_number(&mut out, entries as u64);
    out
}

fn put_dot(out: &mut Vec<u8>, before: &mut Option<ActorId>, dot: Dot) {
    let (node, incarnation) = (dot.actor.node(), dot.actor.incarnation());
    let (node_before, incarnation_before) =
        before.map_or((0, 0), |actor| (actor.node(), actor.incarnation()));
    put_number(out, u64::from(node - node_before));
    let same_node = before.is_some() && node == node_before;
    put_number(out, u64::from(if same_node { incarnation - incarnation_before } else { incarnation }));
    put_number(out, dot.counter);
    *before = Some(dot.actor);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What is left of the input.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn open(bytes: &'a [u8], kind: u8) -> Result<Self, DecodeError> {
        let (&header, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        match (header >> 4, header & 0xf) {
            (VERSION, found) if found == kind => Ok(Self(rest)),
            (VERSION, found) => Err(DecodeError::Kind { found, expected: kind }),
            (version, _) => Err(DecodeError::Version { version }),
        }
    }

    fn close(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { extra: self.0.len() }) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            let lost = shift == 63 && bits > 1;
            let padded = byte == 0 && shift > 0;
            if lost || padded {
                return Err(DecodeError::Number);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Number)
    }

    /// A number of things of at least `bytes_min` bytes each: refused if the rest of the input cannot hold them.
    fn length(&mut self, bytes_min: usize) -> Result<usize, DecodeError> {
        let length = self.number()?;
        let most = self.0.len() / bytes_min;
        if length > most as u64 { Err(DecodeError::Truncated) } else { Ok(length as usize) }
    }

    /// The next entry's actor, which must be above the one `before`, and its counter.
    fn dot(&mut self, before: &mut Option<ActorId>) -> Result<Dot, DecodeError> {
        let part = |number: u64| u32::try_from(number).map_err(|_| DecodeError::Number);
        let (node_step, incarnation) = (part(self.number()?)?, part(self.number()?)?);
        let actor = match *before {
            None => ActorId::new(node_step).with_incarnation(incarnation),
            Some(before) if node_step == 0 => {
                let raised = before.incarnation().checked_add(incarnation).ok_or(DecodeError::Number)?;
                if incarnation == 0 {
                    return Err(DecodeError::Order);
                }
                before.with_incarnation(raised)
            }
            Some(before) => {
                let node = before.node().checked_add(node_step).ok_or(DecodeError::Number)?;
                ActorId::new(node).with_incarnation(incarnation)
            }
        };
        *before = Some(actor);
        Dot::new(actor, self.number()?).map_err(|_| DecodeError::Counter)
    }
}
