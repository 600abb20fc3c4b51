//! Random histories of a log, drawn from fixed seeds.

use bytes::Bytes;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;

use super::StorageHarness;
use super::model::Model;
use super::subject::{Subject, alone, entry, put};
use crate::conformance::ConformanceFailure;
use crate::{Entry, IndexRange, Kind, LogIndex, Stamp, Write};

const HISTORIES: u64 = 24;
const BATCHES: u64 = 30;

/// A log written at random, reopened and read now and then, holds what a map from position to entry does.
///
/// # Errors
/// [`ConformanceFailure`] names the seed of the history.
pub fn a_random_history_agrees_with_a_map(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    for seed in 0..HISTORIES {
        one_history(harness, seed).map_err(|failure| ConformanceFailure {
            what: format!("history {seed}: {}", failure.what),
            ..failure
        })?;
    }
    Ok(())
}

fn one_history(harness: &mut dyn StorageHarness, seed: u64) -> Result<(), ConformanceFailure> {
    let mut log = Subject::create("a_random_history_agrees_with_a_map", harness)?;
    let mut draw = Draw::new(seed);
    for _ in 0..BATCHES {
        let batch = draw.batch(&log.model);
        log.write_batch(batch)?;
        if draw.below(4) == 0 {
            let from = log.model.first_readable().advance(draw.below(20));
            let to = from.advance(draw.below(20));
            let bytes_max = usize::try_from(draw.below(2000)).expect("small");
            log.read(IndexRange::new(from, to), bytes_max)?;
        }
        if draw.below(8) == 0 {
            log.reopen()?;
        }
    }
    log.reopen()
}

/// Draws write units.
pub(super) struct Draw(SplitMix64);

impl Draw {
    pub(super) fn new(seed: u64) -> Draw {
        Draw(SplitMix64::seed_from_u64(seed))
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    /// One to three units for a log that holds what `model` does.
    pub(super) fn batch(&mut self, model: &Model) -> Vec<Write> {
        let mut model = model.clone();
        (0..=self.below(3))
            .map(|_| {
                let unit = self.unit(&model);
                model.apply(&unit);
                unit
            })
            .collect()
    }

    /// A unit that asks for something, above the compaction bound.
    fn unit(&mut self, model: &Model) -> Write {
        let first = model.first_readable();
        let mut unit = put([]);
        let mut first = first;
        if self.below(16) == 0 {
            let bound = LogIndex(first.0 - 1).advance(self.below(20));
            unit.install = Some((bound, Stamp { high: 1 + self.below(4), low: self.below(3) }));
            first = first.max(bound.next());
        }
        if self.below(4) == 0 {
            let span = model.last_index().0.saturating_sub(first.0) + 3;
            unit.truncate_from = Some(first.advance(self.below(span)));
        }
        for _ in 0..self.below(4) {
            let from = first.advance(self.below(30));
            let count = 1 + self.below(6);
            let mut stamp = Stamp { high: 1 + self.below(4), low: self.below(3) };
            let rising = self.below(3) == 0;
            for index in from.0..from.0 + count {
                unit.puts.push(alone(self.entry(index, stamp)));
                stamp.low += u64::from(rising);
            }
        }
        if self.below(10) == 0 {
            unit.compact_to = Some(LogIndex(first.0 - 1).advance(self.below(12)));
        }
        if unit.is_empty() || self.below(4) == 0 {
            unit.hard_state = Some(Bytes::from(self.below(1 << 20).to_string()));
        }
        unit.forced = unit.install.is_some()
            || unit.truncate_from.is_some()
            || !unit.puts.is_empty()
            || self.below(2) == 0;
        unit
    }

    fn entry(&mut self, index: u64, stamp: Stamp) -> Entry {
        let kind = match self.below(8) {
            0 => Kind::Noop,
            1 => Kind::Session,
            2 => Kind::Private(5),
            _ => Kind::Command,
        };
        let size = usize::try_from(self.below(200)).expect("small");
        let salt = u8::try_from(self.below(256)).expect("a byte");
        Entry { stamp, kind, payload: Bytes::from(vec![salt; size]), ..entry(index, 1) }
    }
}
