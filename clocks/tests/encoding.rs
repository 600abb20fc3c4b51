//! The compact encoding: golden bytes, and hostile input.
//!
//! `MUTATIONS=1000000 cargo test --release -p synod-clocks --test encoding -- --nocapture` tries more.

mod random;

use random::Random;
use synod_clocks::{
    ActorId, CausalContext, DecodeError, Dot, DottedVersionVectorSet, HybridTime, MultiVersionRegister,
    Timed, VectorTime, VersionVector,
};

/// `name bytes` for every golden value; `name bytes error` for every input that once was, or might be, trouble.
const GOLDEN: &str = include_str!("testdata/golden.txt");
const CORPUS: &str = include_str!("testdata/corpus.txt");
/// Mutated inputs of one `cargo test`.
const MUTATIONS: u64 = 50_000;

fn dot(node: u32, incarnation: u32, counter: u64) -> Dot {
    Dot::new(ActorId::new(node).with_incarnation(incarnation), counter).unwrap()
}

fn golden_values() -> Vec<(&'static str, Vec<u8>)> {
    let dots = [dot(1, 0, 3), dot(1, 2, 1), dot(300, 0, 128), dot(u32::MAX, u32::MAX, i64::MAX as u64)];
    let time = VectorTime::from_dots(dots).unwrap();
    let version = VersionVector::from_dots(dots).unwrap();
    let three = VersionVector::from_dots((1..=3).map(|node| dot(node, 0, 7))).unwrap();
    let mut texts = MultiVersionRegister::new();
    texts.put(ActorId::new(1), &CausalContext::none(), "gone".to_owned());
    let context = texts.get().context;
    texts.put(ActorId::new(1), &context, "tea".to_owned());
    texts.put(ActorId::new(1), &context, String::new());
    texts.put(ActorId::new(2), &context, "\u{e9}".to_owned());
    let mut tombstone = texts.clone();
    tombstone.delete(&texts.get().context);
    let mut timed = DottedVersionVectorSet::new();
    timed.update(
        ActorId::new(7),
        &VersionVector::new(),
        Timed { time: HybridTime::from_u64(0x0102), value: 9_u64 },
    );
    vec![
        ("vector-time", time.to_bytes()),
        ("version-vector", version.to_bytes()),
        ("version-vector-of-three-replicas", three.to_bytes()),
        ("version-vector-empty", VersionVector::new().to_bytes()),
        ("context", context.to_bytes()),
        ("register", texts.to_bytes()),
        ("register-tombstone", tombstone.to_bytes()),
        ("set-timed", timed.to_bytes()),
    ]
}

#[test]
fn the_bytes_are_the_golden_ones() {
    let written: String =
        golden_values().iter().map(|(name, bytes)| format!("{name} {}\n", hexadecimal(bytes))).collect();
    assert_eq!(written, GOLDEN);
}

#[test]
fn three_replicas_take_eleven_bytes() {
    let golden = golden_values();
    let (_, bytes) = golden.iter().find(|(name, _)| *name == "version-vector-of-three-replicas").unwrap();
    assert_eq!(bytes.len(), 11);
}

#[test]
fn every_input_of_the_corpus_is_refused_for_its_reason() {
    for line in CORPUS.lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        let (bytes, reason) = rest.split_once(' ').unwrap();
        let bytes = from_hexadecimal(if bytes == "-" { "" } else { bytes });
        let kind = bytes.first().map_or(2, |header| header & 0xf);
        let refused = match kind {
            3 => DottedVersionVectorSet::<String>::from_bytes(&bytes).map(drop),
            _ => VersionVector::from_bytes(&bytes).map(drop),
        };
        assert_eq!(refused.unwrap_err().to_string(), reason, "{name}");
    }
}

#[test]
fn every_proper_prefix_is_truncated_and_every_suffix_is_too_much() {
    for (name, bytes) in golden_values() {
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end], &bytes), Err(DecodeError::Truncated), "{name} to {end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode(&longer, &bytes), Err(DecodeError::Trailing { extra: 1 }), "{name}");
    }
}

#[test]
fn a_value_of_another_kind_is_refused() {
    let context = CausalContext::none().to_bytes();
    assert_eq!(VersionVector::from_bytes(&context), Err(DecodeError::Kind { found: 4, expected: 2 }));
}

/// A driver for the decoders: golden values and the corpus, cut, spliced, and with flipped, random and extreme bytes.
/// What is accepted must be the one encoding of its value; nothing panics, and no claimed length is allocated.
#[test]
fn mutated_input_is_refused_or_is_the_encoding_of_what_it_gives() {
    let count = std::env::var("MUTATIONS").map_or(MUTATIONS, |text| text.parse().expect("a number"));
    let mut seeds: Vec<Vec<u8>> = golden_values().into_iter().map(|(_, bytes)| bytes).collect();
    seeds.extend(
        CORPUS.lines().map(|line| from_hexadecimal(line.split(' ').nth(1).unwrap().trim_matches('-'))),
    );
    let mut random = Random(1);
    let mut accepted = 0_u64;
    for _ in 0..count {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..1 + random.below(4) {
            mutate(&mut bytes, &seeds, &mut random);
        }
        accepted += u64::from(decode(&bytes, &bytes).is_ok());
    }
    println!("{count} mutated inputs, {accepted} of them values");
    assert!(accepted > count / 100, "{accepted}: the driver would not notice a value that changes");
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.next() as u8),
        2 => {
            let other = &seeds[random.below(seeds.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        _ if at == bytes.len() => bytes.push([0, 0x7f, 0x80, 0xff][random.below(4)]),
        3 => bytes[at] ^= 1 << random.below(8),
        4 => bytes[at] = random.next() as u8,
        _ => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
    }
}

/// Decodes as every type that `like` may be, and checks that an accepted value encodes to the same bytes.
fn decode(bytes: &[u8], like: &[u8]) -> Result<(), DecodeError> {
    let same = |again: Vec<u8>| assert_eq!(again, bytes, "another encoding of the same value was accepted");
    match like.first().map_or(0, |header| header & 0xf) {
        1 => VectorTime::from_bytes(bytes).map(|value| same(value.to_bytes())),
        4 => CausalContext::from_bytes(bytes).map(|value| same(value.to_bytes())),
        3 => {
            let timed = DottedVersionVectorSet::<Timed<u64>>::from_bytes(bytes);
            if let Ok(value) = timed {
                same(value.to_bytes());
                return Ok(());
            }
            let _ = DottedVersionVectorSet::<u64>::from_bytes(bytes).map(|value| same(value.to_bytes()));
            let _ = DottedVersionVectorSet::<Vec<u8>>::from_bytes(bytes).map(|value| same(value.to_bytes()));
            MultiVersionRegister::<String>::from_bytes(bytes).map(|value| same(value.to_bytes()))
        }
        _ => VersionVector::from_bytes(bytes).map(|value| same(value.to_bytes())),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
