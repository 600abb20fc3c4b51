//! Falsifying a history on purpose: a checker that cannot say no proves nothing.

use crate::History;
use crate::history::{Action, Operation, Outcome, ValueId};

/// One returned value that was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flip {
    /// The get as it was.
    pub before: Operation,
    /// The get as it is now.
    pub after: Operation,
    /// What the new value is.
    pub kind: FlipKind,
}

/// What a flipped get returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlipKind {
    /// A value whose put had returned before the put of another value was called, which in turn had returned before
    /// the get was called: a stale read.
    Stale,
    /// A value that nobody wrote.
    NeverWritten,
}

/// Replaces the value that one successful get returned, chosen by `seed`, such that no linearization can remain.
///
/// Prefers a stale value, the harder lie to notice; where no get near the chosen one has such a value, it becomes
/// `fresh`, which nobody may have written. None if no get succeeded.
///
/// # Examples
///
/// ```
/// use synod_checker::{check, flip_one_read, CheckOptions, ClientId, KeyId, Nanos, Recorder, ValueId, Verdict};
///
/// let mut recorder = Recorder::new(ClientId(0));
/// for i in 0..2 {
///     let put = recorder.put(KeyId(0), ValueId(i), Nanos(20 * i));
///     recorder.put_ok(put, Nanos(20 * i + 10));
/// }
/// let get = recorder.get(KeyId(0), Nanos(40));
/// recorder.get_ok(get, Some(ValueId(1)), Nanos(50));
/// let mut history = Recorder::join([recorder])?;
///
/// flip_one_read(&mut history, 7, ValueId(99)).expect("there is a get");
/// assert!(matches!(check(&history, &CheckOptions::default()).verdict, Verdict::NotLinearizable(_)));
/// # Ok::<(), synod_checker::HistoryError>(())
/// ```
pub fn flip_one_read(history: &mut History, seed: u64, fresh: ValueId) -> Option<Flip> {
    let operations = history.operations();
    let gets: Vec<u32> =
        (0..operations.len()).filter(|&i| operations[i].is_ok_get()).map(|i| i as u32).collect();
    let start = spread(seed).checked_rem(gets.len() as u64)? as usize;
    let near = gets.iter().cycle().skip(start).take(gets.len().min(CANDIDATES_MAX));
    let stale = near.copied().find_map(|get| Some((get, stale_value(history, &operations[get as usize])?)));
    let (position, value, kind) = match stale {
        Some((get, value)) => (get as usize, value, FlipKind::Stale),
        None => (gets[start] as usize, fresh, FlipKind::NeverWritten),
    };
    let before = operations[position];
    history.replace_returned(position, Some(value));
    Some(Flip { before, after: history.operations()[position], kind })
}

/// The value of a put of the same key that was overwritten for sure before `get` was called.
fn stale_value(history: &History, get: &Operation) -> Option<ValueId> {
    let puts = || {
        let same_key = history.operations().iter().filter(|operation| operation.key() == get.key());
        same_key.filter_map(|operation| match operation.action() {
            Action::Put(value) if operation.outcome() == Outcome::Ok => Some((operation, value)),
            _ => None,
        })
    };
    let over =
        puts().filter(|(put, _)| put.effect_end() < Some(get.call())).max_by_key(|(put, _)| put.call())?;
    puts().find(|(put, _)| put.effect_end() < Some(over.0.call())).map(|(_, value)| value)
}

/// One step of SplitMix64: neighbouring seeds give distant numbers.
fn spread(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Each candidate costs a pass over the history.
const CANDIDATES_MAX: usize = 64;
