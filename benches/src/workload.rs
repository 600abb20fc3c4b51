//! What clients do: puts of unique values and gets, on uniformly chosen keys.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use synod_checker::ValueId;

use crate::state_machine::{ABSENT, PRESENT};

/// One client's endless stream of operations: the same for the same seed and client.
#[derive(Clone, Debug)]
pub struct Workload {
    random: Xoshiro256PlusPlus,
    shape: Shape,
    /// A get if the next draw is below this.
    reads_below: u64,
    client: u32,
    puts: u64,
}

/// What all clients of a run share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// How many keys there are.
    pub keys: u32,
    /// Bytes of a value, at least eight.
    pub payload: usize,
    /// The share of gets.
    pub read_ratio: f64,
}

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this value to this key.
    Put(u32, ValueId),
    /// Read this key.
    Get(u32),
}

impl Workload {
    /// The operations of `client`.
    #[must_use]
    pub fn new(shape: Shape, client: u32, seed: u64) -> Workload {
        // The cast saturates: a ratio of one reads always.
        let reads_below = (shape.read_ratio * 2f64.powi(64)) as u64;
        let random = Xoshiro256PlusPlus::seed_from_u64(
            seed ^ u64::from(client + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        );
        Workload { random, shape, reads_below, client, puts: 0 }
    }

    /// The next operation. Values are unique in the run: the client's number above a count.
    pub fn step(&mut self) -> Step {
        let draw = self.random.next_u64();
        // The high half of a product of 32-bit numbers: uniform, without a division.
        let key = ((u64::from(self.random.next_u32()) * u64::from(self.shape.keys)) >> 32) as u32;
        if draw < self.reads_below || self.shape.read_ratio >= 1.0 {
            return Step::Get(key);
        }
        self.puts += 1;
        Step::Put(key, ValueId(u64::from(self.client) << VALUE_COUNT_BITS | self.puts))
    }
}

/// Puts of one client, before its values would run into the next client's.
const VALUE_COUNT_BITS: u32 = 40;

/// Encodes commands and queries of a run for the store, and reads its answers.
#[derive(Clone, Debug)]
pub struct Format {
    /// A value but for its first eight bytes.
    filler: Bytes,
}

impl Format {
    /// Values of `payload` bytes, at least eight.
    #[must_use]
    pub fn new(payload: usize) -> Format {
        assert!(payload >= 8, "a value starts with its number");
        Format { filler: vec![FILLER; payload - 8].into() }
    }

    /// The command that writes `value` to `key`.
    #[must_use]
    pub fn put(&self, key: u32, value: ValueId) -> Bytes {
        in_chunk(4 + 8 + self.filler.len(), |out| {
            out.put_u32_le(key);
            out.put_u64_le(value.0);
            out.put_slice(&self.filler);
        })
    }

    /// The query for the value of `key`.
    #[must_use]
    pub fn get(&self, key: u32) -> Bytes {
        in_chunk(4, |out| out.put_u32_le(key))
    }

    /// The value that a query returned; none if the key was absent.
    ///
    /// # Errors
    /// [`NotAValue`] for bytes that no [`Format::put`] of this run wrote.
    pub fn returned(&self, answer: &[u8]) -> Result<Option<ValueId>, NotAValue> {
        let value = match answer {
            [ABSENT] => return Ok(None),
            [PRESENT, value @ ..] => value,
            _ => return Err(NotAValue),
        };
        match value.split_first_chunk::<8>() {
            Some((number, filler)) if filler == self.filler => Ok(Some(ValueId(u64::from_le_bytes(*number)))),
            _ => Err(NotAValue),
        }
    }
}

/// Encodes `len` bytes. What one thread encodes shares allocations, as a client that cares would have it:
/// one for some hundred commands, and consecutive memory for consecutive commands.
fn in_chunk(len: usize, encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    thread_local! {
        static CHUNK: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    }
    CHUNK.with_borrow_mut(|chunk| {
        if chunk.capacity() < len {
            *chunk = BytesMut::with_capacity(len.max(CHUNK_LEN));
        }
        encode(chunk);
        chunk.split_to(len).freeze()
    })
}

const CHUNK_LEN: usize = 64 << 10;

/// A query returned what nobody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAValue;

const FILLER: u8 = 0x5A;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn workload(read_ratio: f64, client: u32) -> Workload {
        Workload::new(Shape { keys: 100, payload: 8, read_ratio }, client, 7)
    }

    #[test]
    fn values_are_unique_over_all_clients_and_the_stream_repeats_with_its_seed() {
        let mut values = BTreeSet::new();
        for client in 0..4 {
            let (mut steps, mut again) = (workload(0.0, client), workload(0.0, client));
            for _ in 0..1_000 {
                let step = steps.step();
                assert_eq!(step, again.step());
                let Step::Put(_, value) = step else { panic!("a get without gets") };
                assert!(values.insert(value));
            }
        }
    }

    #[test]
    fn reads_come_in_the_share_asked_for_and_keys_cover_their_range() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.5, 4_700, 5_300), (1.0, 10_000, 10_000)] {
            let mut steps = workload(ratio, 1);
            let mut keys = BTreeSet::new();
            let mut gets = 0;
            for _ in 0..10_000 {
                let (key, get) = match steps.step() {
                    Step::Get(key) => (key, 1),
                    Step::Put(key, _) => (key, 0),
                };
                gets += get;
                keys.insert(key);
            }
            assert!((least..=most).contains(&gets), "{gets} gets at a ratio of {ratio}");
            assert_eq!(keys, (0..100).collect());
        }
    }

    #[test]
    fn commands_larger_than_an_allocation_and_those_that_share_one_are_whole() {
        for payload in [8, 1_000, 2 * CHUNK_LEN] {
            let format = Format::new(payload);
            let puts: Vec<Bytes> = (0..200).map(|key| format.put(key, ValueId(7))).collect();
            for (key, put) in puts.iter().enumerate() {
                assert_eq!(put.len(), 4 + payload);
                assert_eq!(put[..4], u32::try_from(key).unwrap().to_le_bytes());
            }
        }
    }

    #[test]
    fn a_returned_value_is_told_from_what_nobody_wrote() {
        let format = Format::new(20);
        let put = format.put(3, ValueId(99));
        let mut answer = vec![PRESENT];
        answer.extend_from_slice(&put[put.len() - 20..]);
        assert_eq!(format.returned(&answer), Ok(Some(ValueId(99))));
        assert_eq!(format.returned(&[ABSENT]), Ok(None));
        let mut damaged = answer.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let short = answer[..answer.len() - 1].to_vec();
        for wrong in [damaged, short, vec![1], vec![]] {
            assert_eq!(format.returned(&wrong), Err(NotAValue));
        }
    }
}
