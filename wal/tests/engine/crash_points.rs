//! Every prefix of what a log did to its disk, with what a crash may leave of it: each recovers.
//!
//! A script of appends, overwrites, truncations, rolls and purges runs once and is recorded. Then for every prefix of
//! the operations images are drawn: what was synced, and any part of the rest, by sectors of 512 bytes and entries of
//! the folder. From each the log must recover as ST1 to ST5 say.

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;
use synod_core::{Incarnation, Write};
use synod_wal::{Engine, Wal, WalError, WalOptions};

use crate::memory_disk::{Contents, MemoryDisk, Operation};
use crate::model::{IDENTITY, Model, Script};

/// What was tried, and how often rare things were met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) units: usize,
    pub(crate) operations: usize,
    pub(crate) images: u64,
    /// Images from which more than the acknowledged units came back.
    pub(crate) more_than_acknowledged: u64,
    /// Images whose first recovery crashed too.
    pub(crate) crashed_again: u64,
    pub(crate) segments_made: u64,
    pub(crate) segments_recycled: u64,
}

/// The recorded script.
struct Recording {
    operations: Vec<Operation>,
    /// `states[n]` is the log after `n` units.
    states: Vec<Model>,
    /// From which operation on so many units were handed over, so many durable, and this life given.
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    operations: usize,
    issued: usize,
    durable: usize,
    life: Incarnation,
}

/// Runs a script of `units` units and tries `images` images of each of its prefixes.
///
/// # Panics
/// With the prefix and the seed of the image that does not recover.
pub(crate) fn run(seed: u64, units: usize, images: u64) -> Tally {
    let recording = record(seed, units);
    let mut tally = Tally { units, operations: recording.operations.len(), ..Tally::default() };
    for operation in &recording.operations {
        if let Operation::Rename { from, .. } = operation {
            tally.segments_made += u64::from(from == "prepared.tmp");
            tally.segments_recycled += u64::from(from == "recycled.tmp");
        }
    }
    let mut contents = Contents::default();
    let mut mark = 0;
    for prefix in 0..=recording.operations.len() {
        if prefix > 0 {
            contents.apply(&recording.operations[prefix - 1]);
        }
        while recording.marks.get(mark + 1).is_some_and(|next| next.operations <= prefix) {
            mark += 1;
        }
        for image in 0..images {
            let image_seed = seed ^ (prefix as u64) << 20 ^ image;
            let mut random = SplitMix64::seed_from_u64(image_seed);
            let image = contents.after_crash(&mut random);
            recording.recovers(image, recording.marks[mark], &mut random, &mut tally).unwrap_or_else(
                |what| panic!("script {seed}, after {prefix} operations, image {image_seed}: {what}"),
            );
            tally.images += 1;
        }
    }
    tally
}

fn engine(disk: &MemoryDisk) -> Engine<MemoryDisk> {
    let options = Wal::options().segment_bytes(WalOptions::SEGMENT_BYTES_MIN);
    Engine::new(disk.clone(), options).expect("the options are fine")
}

fn record(seed: u64, units: usize) -> Recording {
    let disk = MemoryDisk::default();
    disk.record();
    let mut script = Script::new(seed);
    let mut states = vec![Model::default()];
    let mut marks = vec![Mark { operations: 0, issued: 0, durable: 0, life: Incarnation(0) }];
    let mut log = engine(&disk);
    log.create(&IDENTITY).expect("the disk works");
    while states.len() <= units {
        let recovered = log.recover(&IDENTITY).expect("nothing is wrong");
        let done = states.len() - 1;
        let operations = disk.recorded();
        marks.push(Mark { operations, issued: done, durable: done, life: recovered.incarnation });
        for _ in 0..20 {
            let mut batch: Vec<Write> = Vec::new();
            for _ in 0..=script.below(3) {
                let mut state = states.last().expect("the first is empty").clone();
                let unit = script.unit(&state);
                state.apply(&unit);
                states.push(state);
                batch.push(unit);
            }
            let before = *marks.last().expect("there is one");
            let issued = states.len() - 1;
            marks.push(Mark { operations: disk.recorded(), issued, ..before });
            log.write(&batch).expect("the disk works");
            marks.push(Mark { operations: disk.recorded(), issued, durable: issued, ..before });
        }
        if script.below(2) == 0 {
            log.close().expect("the disk works");
        }
        log = engine(&disk);
    }
    Recording { operations: disk.take_record(), states, marks }
}

impl Recording {
    fn recovers(
        &self,
        image: Contents,
        mark: Mark,
        random: &mut SplitMix64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let disk = MemoryDisk::of(image);
        if random.next_u64().is_multiple_of(2) {
            disk.crash_after(random.next_u64() % 12, random.next_u64());
            tally.crashed_again += u64::from(engine(&disk).recover(&IDENTITY).is_err());
            disk.restart();
        }
        let (state, life) = match self.recover(&disk) {
            Ok(found) => found,
            Err(WalError::NoLog { .. }) if mark.life == Incarnation(0) => {
                return engine(&disk).create(&IDENTITY).map_err(|error| error.to_string());
            }
            Err(error) => return Err(error.to_string()),
        };
        if life <= mark.life {
            return Err(format!("{life} was given before"));
        }
        let allowed = &self.states[mark.durable..=mark.issued];
        let Some(units) = allowed.iter().rposition(|allowed| *allowed == state) else {
            return Err(format!(
                "{} to {} units should be there, and this is: {state:?}",
                mark.durable, mark.issued
            ));
        };
        tally.more_than_acknowledged += u64::from(units > 0);
        let (again, next_life) = self.recover(&disk).map_err(|error| format!("the second time: {error}"))?;
        if again != state || next_life.0 != life.0 + 1 {
            return Err(format!("recovered twice: {life} {state:?}, then {next_life} {again:?}"));
        }
        Ok(())
    }

    fn recover(&self, disk: &MemoryDisk) -> Result<(Model, Incarnation), WalError> {
        let mut log = engine(disk);
        let recovered = log.recover(&IDENTITY)?;
        let state = Model::observe(&recovered, &*log.reader())
            .unwrap_or_else(|what| panic!("what was recovered cannot be read: {what}"));
        Ok((state, recovered.incarnation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_recovers() {
        let tally = run(1, 240, 3);
        assert!(tally.units >= 200 && tally.images > 3_000, "{tally:?}");
        assert!(tally.segments_made > 10 && tally.segments_recycled > 3, "{tally:?}");
        assert!(tally.more_than_acknowledged > 20 && tally.crashed_again > 500, "{tally:?}");
    }
}
