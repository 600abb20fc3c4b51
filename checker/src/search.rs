//! The reference: a search for a linearization, over any [`Model`].
//!
//! Wing and Gong's algorithm with Lowe's memoisation. Calls and returns stand in one doubly linked list in order of
//! time. The search linearizes the first call it can, takes its call and return out of the list, and starts again at
//! the front; at a return whose call is still in the list it has gone wrong, and undoes the last step. A configuration
//! (the set of linearized operations, the state) that was visited is never entered again.
//!
//! Three additions keep it exact:
//!
//! - An operation of unknown outcome has a call and no return, so nothing ever forces it.
//! - A step that never changes any state (a get, [`Model::is_read_only`]) is taken as soon as it can be and not put off:
//!   whatever comes before it in a linearization could as well come after it.
//! - Operations are numbered by call, those of unknown outcome apart, so that a set is a long run of ones and a short
//!   window: only the window is stored, and memory follows the concurrency rather than the length.

use std::hash::BuildHasher;

use crate::hash::{FixedMap, HASHER};
use crate::history::Nanos;
use crate::model::Model;

/// An operation on a modelled object, with the interval in which it took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval<S> {
    /// What was asked and seen.
    pub step: S,
    /// When it was called.
    pub call: Nanos,
    /// When it returned; none if it may take effect at any time after its call, or never.
    pub end: Option<Nanos>,
}

/// What a check may use before it answers "unknown".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Steps: operations looked at by the zone test, transitions tried by the search.
    pub steps: u64,
    /// Bytes of visited configurations that the search keeps for one key.
    pub memory_bytes: usize,
}

impl Default for Budget {
    /// 4 billion steps and 1 GiB.
    fn default() -> Budget {
        Budget { steps: 1 << 32, memory_bytes: 1 << 30 }
    }
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// [`Budget::steps`].
    Steps,
    /// [`Budget::memory_bytes`].
    Memory,
}

/// The outcome of a [`search`]. Positions are those of the intervals given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An order in which the object could have done it all. Operations of unknown outcome that are not in it had no
    /// effect.
    Linearization(Vec<usize>),
    /// There is none.
    Nothing(DeadEnd),
    /// The budget ran out first.
    Unknown(Exhausted),
}

/// How far a search without success came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadEnd {
    /// The most operations that could be ordered.
    pub linearized: usize,
    /// The last of them, at most 8, in that order.
    pub last: Vec<usize>,
    /// The operation that had to come next and could not.
    pub blocked: usize,
}

/// Looks for an order of `intervals` that `model` allows and real time allows: one operation precedes another if it
/// returned strictly before the other was called.
///
/// Spends from `steps_left`, one for each transition tried, and keeps at most `memory_bytes_max` of configurations.
///
/// # Panics
///
/// If there are more than 2 billion intervals.
///
/// # Examples
///
/// ```
/// use synod_checker::model::{Counter, CounterStep};
/// use synod_checker::search::{search, Found, Interval};
/// use synod_checker::Nanos;
///
/// let add = |sum, call, end| Interval {
///     step: CounterStep::Add { by: 1, sum: Some(sum) },
///     call: Nanos(call),
///     end: Some(Nanos(end)),
/// };
/// let mut steps_left = 1_000;
/// let concurrent = search(&Counter, &[add(2, 0, 9), add(1, 1, 8)], &mut steps_left, 1 << 20);
/// assert_eq!(concurrent, Found::Linearization(vec![1, 0]));
/// let in_turn = search(&Counter, &[add(2, 0, 3), add(1, 4, 8)], &mut steps_left, 1 << 20);
/// assert!(matches!(in_turn, Found::Nothing(_)));
/// ```
pub fn search<M: Model>(
    model: &M,
    intervals: &[Interval<M::Step>],
    steps_left: &mut u64,
    memory_bytes_max: usize,
) -> Found {
    let mut events = Events::new(intervals);
    let mut done = Done::new(intervals);
    let mut visited = Visited::default();
    let mut taken: Vec<Taken<M::State>> = Vec::new();
    let mut state = model.initial();
    let mut forced = intervals.iter().filter(|interval| interval.end.is_some()).count();
    let mut dead_end = DeadEnd { linearized: 0, last: Vec::new(), blocked: 0 };
    let mut event = events.first();

    while forced > 0 {
        let position = events.interval(event);
        if events.is_call(event) {
            if *steps_left == 0 {
                return Found::Unknown(Exhausted::Steps);
            }
            *steps_left -= 1;
            let next = model.apply(&state, &intervals[position].step);
            let optional = intervals[position].end.is_none();
            // An open operation that changes nothing here is as good as one that has not happened yet.
            if let Some(next) = next.filter(|next| !optional || *next != state) {
                done.insert(position);
                if visited.insert(&done, &next) {
                    if visited.memory_bytes() > memory_bytes_max {
                        return Found::Unknown(Exhausted::Memory);
                    }
                    let before = std::mem::replace(&mut state, next);
                    taken.push(Taken { event, before });
                    forced -= usize::from(!optional);
                    events.lift(event);
                    event = events.first();
                    continue;
                }
                done.remove(position);
            }
            event = events.next(event);
            continue;
        }
        // A return whose call is still in the list: this branch cannot go on.
        if taken.len() > dead_end.linearized || dead_end.last.is_empty() {
            let last = taken.len().saturating_sub(8);
            dead_end = DeadEnd {
                linearized: taken.len(),
                last: taken[last..].iter().map(|taken| events.interval(taken.event)).collect(),
                blocked: position,
            };
        }
        loop {
            let Some(last) = taken.pop() else {
                return Found::Nothing(dead_end);
            };
            let position = events.interval(last.event);
            state = last.before;
            done.remove(position);
            forced += usize::from(intervals[position].end.is_some());
            events.unlift(last.event);
            if !model.is_read_only(&intervals[position].step) {
                event = events.next(last.event);
                break;
            }
        }
    }
    Found::Linearization(taken.iter().map(|taken| events.interval(taken.event)).collect())
}

/// A step taken, and what it takes to undo it.
struct Taken<S> {
    event: u32,
    before: S,
}

/// Calls and returns in order of time, linked so that a pair can be taken out and put back in place.
struct Events {
    /// By event: the interval, and for a call its return (`NONE` for a return, and for a call that is open for ever).
    entries: Vec<(u32, u32)>,
    calls: Vec<bool>,
    next: Vec<u32>,
    previous: Vec<u32>,
}

impl Events {
    fn new<S>(intervals: &[Interval<S>]) -> Events {
        assert!(intervals.len() < (NONE / 2) as usize, "more intervals than events can be numbered");
        // At equal times calls come first: closed intervals that touch are concurrent.
        let mut order: Vec<(Nanos, bool, u32)> = Vec::with_capacity(2 * intervals.len());
        for (position, interval) in intervals.iter().enumerate() {
            order.push((interval.call, false, position as u32));
            order.extend(interval.end.map(|end| (end, true, position as u32)));
        }
        order.sort_unstable();
        let mut entries: Vec<(u32, u32)> = order.iter().map(|&(_, _, position)| (position, NONE)).collect();
        let calls: Vec<bool> = order.iter().map(|&(_, is_return, _)| !is_return).collect();
        let mut call_of = vec![NONE; intervals.len()];
        for (event, &(_, is_return, position)) in order.iter().enumerate() {
            if is_return {
                entries[call_of[position as usize] as usize].1 = event as u32;
            } else {
                call_of[position as usize] = event as u32;
            }
        }
        // The last slot is the head of the ring.
        let count = entries.len() as u32;
        let next = (0..=count).map(|event| if event == count { 0 } else { event + 1 }).collect();
        let previous = (0..=count).map(|event| if event == 0 { count } else { event - 1 }).collect();
        Events { entries, calls, next, previous }
    }

    fn first(&self) -> u32 {
        self.next[self.entries.len()]
    }

    fn next(&self, event: u32) -> u32 {
        self.next[event as usize]
    }

    fn interval(&self, event: u32) -> usize {
        self.entries[event as usize].0 as usize
    }

    fn is_call(&self, event: u32) -> bool {
        self.calls[event as usize]
    }

    fn lift(&mut self, call: u32) {
        self.unlink(call);
        let end = self.entries[call as usize].1;
        if end != NONE {
            self.unlink(end);
        }
    }

    fn unlift(&mut self, call: u32) {
        let end = self.entries[call as usize].1;
        if end != NONE {
            self.relink(end);
        }
        self.relink(call);
    }

    fn unlink(&mut self, event: u32) {
        let (before, after) = (self.previous[event as usize], self.next[event as usize]);
        self.next[before as usize] = after;
        self.previous[after as usize] = before;
    }

    fn relink(&mut self, event: u32) {
        let (before, after) = (self.previous[event as usize], self.next[event as usize]);
        self.next[before as usize] = event;
        self.previous[after as usize] = event;
    }
}

const NONE: u32 = u32::MAX;

/// The set of linearized operations.
struct Done {
    /// By interval: its number within its own set.
    number: Vec<u32>,
    optional: Vec<bool>,
    forced_bits: Window,
    optional_bits: Window,
}

impl Done {
    fn new<S>(intervals: &[Interval<S>]) -> Done {
        let mut by_call: Vec<u32> = (0..intervals.len() as u32).collect();
        by_call.sort_by_key(|&position| intervals[position as usize].call);
        let mut number = vec![0; intervals.len()];
        let mut counts = [0, 0];
        for position in by_call {
            let count = &mut counts[usize::from(intervals[position as usize].end.is_none())];
            number[position as usize] = *count;
            *count += 1;
        }
        let optional = intervals.iter().map(|interval| interval.end.is_none()).collect();
        Done { number, optional, forced_bits: Window::new(counts[0]), optional_bits: Window::new(counts[1]) }
    }

    fn insert(&mut self, position: usize) {
        let number = self.number[position] as usize;
        self.set_of(position).insert(number);
    }

    fn remove(&mut self, position: usize) {
        let number = self.number[position] as usize;
        self.set_of(position).remove(number);
    }

    fn set_of(&mut self, position: usize) -> &mut Window {
        if self.optional[position] { &mut self.optional_bits } else { &mut self.forced_bits }
    }
}

/// A bitset that knows where its leading full words end and where its trailing empty words begin.
struct Window {
    words: Vec<u64>,
    low: usize,
    high: usize,
}

impl Window {
    fn new(count: u32) -> Window {
        Window { words: vec![0; count.div_ceil(64) as usize], low: 0, high: 0 }
    }

    fn insert(&mut self, number: usize) {
        self.words[number / 64] |= 1 << (number % 64);
        self.high = self.high.max(number / 64 + 1);
        while self.words.get(self.low) == Some(&u64::MAX) {
            self.low += 1;
        }
    }

    fn remove(&mut self, number: usize) {
        self.words[number / 64] &= !(1 << (number % 64));
        self.low = self.low.min(number / 64);
        while self.high > 0 && self.words[self.high - 1] == 0 {
            self.high -= 1;
        }
    }

    /// Where the window starts, and its words: together they determine the set.
    fn window(&self) -> (usize, &[u64]) {
        (self.low, &self.words[self.low.min(self.high)..self.high])
    }
}

/// The configurations met so far, compared in full.
struct Visited<S> {
    words: Vec<u64>,
    entries: Vec<Configuration<S>>,
    newest: FixedMap<u64, u32>,
    scratch: Vec<u64>,
}

struct Configuration<S> {
    words_end: usize,
    state: S,
    /// The next older configuration with the same hash, by number plus one; 0 ends the chain.
    older: u32,
}

impl<S> Default for Visited<S> {
    fn default() -> Visited<S> {
        Visited { words: Vec::new(), entries: Vec::new(), newest: FixedMap::default(), scratch: Vec::new() }
    }
}

impl<S: Clone + Eq + std::hash::Hash> Visited<S> {
    /// True if it was not there.
    fn insert(&mut self, done: &Done, state: &S) -> bool {
        let (forced_low, forced) = done.forced_bits.window();
        let (optional_low, optional) = done.optional_bits.window();
        self.scratch.clear();
        self.scratch.extend([forced_low as u64, optional_low as u64, forced.len() as u64]);
        self.scratch.extend_from_slice(forced);
        self.scratch.extend_from_slice(optional);

        let hash = HASHER.hash_one((&self.scratch, state));
        let newest = self.newest.get(&hash).copied().unwrap_or(0);
        let mut link = newest;
        while link != 0 {
            let number = link as usize - 1;
            let start = if number == 0 { 0 } else { self.entries[number - 1].words_end };
            let entry = &self.entries[number];
            if self.words[start..entry.words_end] == self.scratch && entry.state == *state {
                return false;
            }
            link = entry.older;
        }
        self.words.extend_from_slice(&self.scratch);
        self.entries.push(Configuration { words_end: self.words.len(), state: state.clone(), older: newest });
        let number = u32::try_from(self.entries.len()).expect("the memory bound comes first");
        self.newest.insert(hash, number);
        true
    }

    fn memory_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
            + self.entries.capacity() * size_of::<Configuration<S>>()
            + self.newest.capacity() * (size_of::<(u64, u32)>() + 1) * 8 / 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, ValueId};
    use crate::model::Register;

    fn put(value: u64, call: u64, end: Option<u64>) -> Interval<Action> {
        Interval { step: Action::Put(ValueId(value)), call: Nanos(call), end: end.map(Nanos) }
    }

    fn get(value: u64, call: u64, end: u64) -> Interval<Action> {
        Interval { step: Action::Get(Some(ValueId(value))), call: Nanos(call), end: Some(Nanos(end)) }
    }

    #[test]
    fn the_stored_window_stays_short_over_a_long_history() {
        let mut intervals = vec![put(1_000_000, 0, None)];
        for i in 0..5_000 {
            intervals.push(put(i, 10 * i + 1, Some(10 * i + 2)));
            intervals.push(get(i, 10 * i + 3, 10 * i + 4));
        }
        let mut steps_left = 1_000_000;
        let found = search(&Register, &intervals, &mut steps_left, 4 << 20);
        assert!(matches!(found, Found::Linearization(_)), "{found:?}");
    }

    #[test]
    fn steps_and_memory_that_run_out_are_told_apart() {
        // The last get sees a value that was overwritten: every order of the concurrent puts has to be tried.
        let mut intervals: Vec<_> = (0..24).map(|i| put(i, i, Some(1_000))).collect();
        intervals.extend([put(100, 2_000, Some(2_001)), get(3, 3_000, 3_001)]);
        let run = |mut steps: u64, bytes| search(&Register, &intervals, &mut steps, bytes);
        assert_eq!(run(1_000, 1 << 30), Found::Unknown(Exhausted::Steps));
        assert_eq!(run(u64::MAX, 10_000), Found::Unknown(Exhausted::Memory));
    }

    #[test]
    fn a_dead_end_names_the_operation_that_could_not_follow() {
        let intervals = [put(1, 0, Some(1)), put(2, 2, Some(3)), get(1, 4, 5)];
        let found = search(&Register, &intervals, &mut 100, 1 << 20);
        assert_eq!(found, Found::Nothing(DeadEnd { linearized: 2, last: vec![0, 1], blocked: 2 }));
    }

    #[test]
    fn a_window_determines_its_set() {
        let mut window = Window::new(300);
        let mut members = [false; 300];
        let mut random = 1u64;
        for round in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (random >> 33) as usize % 300;
            // Phases that fill and phases that empty, so that both ends of the window move.
            let insert = (random >> 20) % 16 < if round / 2_500 % 2 == 0 { 15 } else { 1 };
            members[number] = insert;
            match insert {
                true => window.insert(number),
                false => window.remove(number),
            }

            let (low, words) = window.window();
            let told = |number: usize| match (number / 64).checked_sub(low) {
                None => true,
                Some(word) => words.get(word).is_some_and(|word| word >> (number % 64) & 1 == 1),
            };
            assert!((0..300).all(|number| told(number) == members[number]));
        }
    }

    #[test]
    fn nothing_is_linearizable() {
        assert_eq!(search(&Register, &[], &mut 0, 0), Found::Linearization(Vec::new()));
    }
}
