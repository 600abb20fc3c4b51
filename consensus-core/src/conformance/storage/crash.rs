//! The checks at every crash point of a device.

use futures::executor::block_on;

use super::StorageHarness;
use super::model::Model;
use super::random::Draw;
use super::subject::{IDENTITY, put, recover, run};
use crate::conformance::ConformanceFailure;
use crate::{Incarnation, Recovered, Storage, StorageError, Write, WriteId};

const HISTORIES: u64 = 8;
const BATCHES: usize = 6;

/// No history of the suite asks for more operations of a device.
const POINTS_MAX: u64 = 100_000;

/// A crash at any operation leaves the state after some prefix of the units issued: whole units, every one
/// that was reported durable among them, and the log can be written and opened again. No number of a life
/// is given twice.
///
/// # Errors
/// [`ConformanceFailure`] names the history and the crash point.
pub fn a_crash_leaves_a_prefix_of_whole_units(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    const CHECK: &str = "a_crash_leaves_a_prefix_of_whole_units";
    every_crash_point(CHECK, harness, |harness, history, point| {
        let run = history.run_until_crash(CHECK, harness, point)?;
        let mut storage = harness.reopen();
        let state = run.state_after_crash(CHECK, &mut *storage)?;
        goes_on(CHECK, harness, storage, state)?;
        Ok(run.crashed)
    })
}

/// A crash while a log recovers from a crash leaves what the first one left.
///
/// # Errors
/// [`ConformanceFailure`] names the history and the crash point.
pub fn a_crash_during_recovery_loses_nothing(
    harness: &mut dyn StorageHarness,
) -> Result<(), ConformanceFailure> {
    const CHECK: &str = "a_crash_during_recovery_loses_nothing";
    every_crash_point(CHECK, harness, |harness, history, point| {
        for second in 0..POINTS_MAX {
            let mut run = history.run_until_crash(CHECK, harness, point)?;
            let mut storage = harness.reopen();
            harness.crash_after(second, history.seed ^ second);
            let survived = match block_on(storage.recover(&IDENTITY)) {
                Ok(recovered) => {
                    run.last_life = recovered.incarnation;
                    true
                }
                Err(_) => false,
            };
            drop(storage);
            let mut storage = harness.reopen();
            let state = run.state_after_crash(CHECK, &mut *storage)?;
            goes_on(CHECK, harness, storage, state)?;
            if survived {
                return Ok(run.crashed);
            }
        }
        Err(ConformanceFailure::new(CHECK, "recovery never ends without a crash"))
    })
}

/// After a write failed every later one fails too, although the device works again: what the failed one
/// left is not known.
///
/// # Errors
/// [`ConformanceFailure`] names the operation that failed.
pub fn a_failed_write_is_final(harness: &mut dyn StorageHarness) -> Result<(), ConformanceFailure> {
    const CHECK: &str = "a_failed_write_is_final";
    let history = History::draw(0);
    for point in 0..POINTS_MAX {
        let mut storage = harness.create(&IDENTITY);
        recover(CHECK, &mut *storage, &IDENTITY)?;
        harness.fail_once_after(point);
        let failed = history.batches.iter().position(|batch| block_on(storage.write(batch)).is_err());
        match failed {
            None if point == 0 => {
                return Err(ConformanceFailure::new(CHECK, "no write met the operation that fails"));
            }
            None => return Ok(()),
            Some(batch) => {
                let later = Write { id: WriteId(u64::MAX), ..put([run(1000, 1, 9)]) };
                if block_on(storage.write(&[later])).is_ok() {
                    let what = format!(
                        "operation {point} failed batch {batch}, and a later write was reported durable"
                    );
                    return Err(ConformanceFailure::new(CHECK, what));
                }
            }
        }
    }
    Err(ConformanceFailure::new(CHECK, "the writes never end without a fault"))
}

/// Calls `visit` for every history and crash point, until a history meets its crash point no more.
fn every_crash_point(
    check: &'static str,
    harness: &mut dyn StorageHarness,
    visit: impl Fn(&mut dyn StorageHarness, &History, u64) -> Result<bool, ConformanceFailure>,
) -> Result<(), ConformanceFailure> {
    for seed in 0..HISTORIES {
        let history = History::draw(seed);
        let mut point = 0;
        loop {
            let crashed = visit(harness, &history, point).map_err(|failure| ConformanceFailure {
                what: format!("history {seed}, crash after {point} operations: {}", failure.what),
                ..failure
            })?;
            if !crashed {
                break;
            }
            point += 1;
            if point == POINTS_MAX {
                return Err(ConformanceFailure::new(check, "the writes never end without a crash"));
            }
        }
        if point == 0 {
            return Err(ConformanceFailure::new(check, "no operation met the crash"));
        }
    }
    Ok(())
}

/// Batches of units, and the state after each unit.
struct History {
    seed: u64,
    batches: Vec<Vec<Write>>,
    /// `states[n]` is the state after `n` units.
    states: Vec<Model>,
}

/// What a storage was told before it crashed, and what it promised.
struct Run<'a> {
    history: &'a History,
    crashed: bool,
    /// How many units were handed over.
    issued: usize,
    /// How many of them must survive.
    durable: usize,
    /// The last life that a recovery gave.
    last_life: Incarnation,
}

impl History {
    fn draw(seed: u64) -> History {
        let mut draw = Draw::new(seed);
        let mut history = History { seed, batches: Vec::new(), states: vec![Model::default()] };
        for _ in 0..BATCHES {
            let mut state = history.states.last().expect("the first is empty").clone();
            let mut batch = draw.batch(&state);
            for unit in &mut batch {
                unit.id = WriteId(history.states.len() as u64);
                state.apply(unit);
                history.states.push(state.clone());
            }
            history.batches.push(batch);
        }
        history
    }

    /// Recovers a new log and writes into it until the crash.
    fn run_until_crash(
        &self,
        check: &'static str,
        harness: &mut dyn StorageHarness,
        point: u64,
    ) -> Result<Run<'_>, ConformanceFailure> {
        let mut run = Run { history: self, crashed: false, issued: 0, durable: 0, last_life: Incarnation(0) };
        let mut storage = harness.create(&IDENTITY);
        harness.crash_after(point, self.seed.wrapping_mul(POINTS_MAX) + point);
        match block_on(storage.recover(&IDENTITY)) {
            Ok(recovered) => run.last_life = recovered.incarnation,
            Err(StorageError::Foreign { expected, found }) => {
                let what = format!("a log made for {expected:?} says that it belongs to {found:?}");
                return Err(ConformanceFailure::new(check, what));
            }
            Err(_) => {
                run.crashed = true;
                return Ok(run);
            }
        }
        for batch in &self.batches {
            let before = run.issued;
            run.issued += batch.len();
            if block_on(storage.write(batch)).is_err() {
                run.crashed = true;
                break;
            }
            // Units that nobody waits for may ride on the next write.
            if let Some(last_forced) = batch.iter().rposition(|unit| unit.forced) {
                run.durable = before + last_forced + 1;
            }
        }
        Ok(run)
    }
}

impl Run<'_> {
    /// Recovers after the crash; answers which state was found.
    fn state_after_crash(
        &self,
        check: &'static str,
        storage: &mut dyn Storage,
    ) -> Result<(Model, Incarnation), ConformanceFailure> {
        let recovered = recover(check, storage, &IDENTITY)?;
        if recovered.incarnation <= self.last_life {
            let what = format!("{} was given before: it is given again", recovered.incarnation);
            return Err(ConformanceFailure::new(check, what));
        }
        let seen = observe(check, &recovered, storage)?;
        let allowed = &self.history.states[self.durable..=self.issued];
        if !allowed.contains(&seen) {
            let lost = self.history.states[..self.durable].iter().position(|state| *state == seen);
            let what = match lost {
                Some(units) => {
                    format!("{} units were reported durable and only {units} are there", self.durable)
                }
                None => format!(
                    "this is not the state after {} to {} units; beside the last: {}",
                    self.durable,
                    self.issued,
                    allowed.last().and_then(|state| state.difference(&seen)).unwrap_or_default()
                ),
            };
            return Err(ConformanceFailure::new(check, what));
        }
        Ok((seen, recovered.incarnation))
    }
}

/// A log that recovered from a crash takes writes and keeps them: nothing of the crash comes up again.
fn goes_on(
    check: &'static str,
    harness: &mut dyn StorageHarness,
    mut storage: Box<dyn Storage>,
    (mut state, life): (Model, Incarnation),
) -> Result<(), ConformanceFailure> {
    let unit = Write { id: WriteId(1), ..put([run(state.last_index().next().0, 1, 9)]) };
    block_on(storage.write(std::slice::from_ref(&unit))).map_err(|error| {
        ConformanceFailure::new(check, format!("the first write after the crash failed: {error}"))
    })?;
    state.apply(&unit);
    drop(storage);
    let mut storage = harness.reopen();
    let recovered = recover(check, &mut *storage, &IDENTITY)?;
    if recovered.incarnation <= life {
        return Err(ConformanceFailure::new(
            check,
            format!("{life} is followed by {}", recovered.incarnation),
        ));
    }
    let seen = observe(check, &recovered, &*storage)?;
    match state.difference(&seen) {
        None => Ok(()),
        Some(difference) => Err(ConformanceFailure::new(
            check,
            format!("after the first write after the crash: {difference}"),
        )),
    }
}

fn observe(
    check: &'static str,
    recovered: &Recovered,
    storage: &dyn Storage,
) -> Result<Model, ConformanceFailure> {
    Model::observe(recovered, &*storage.reader()).map_err(|what| ConformanceFailure::new(check, what))
}
