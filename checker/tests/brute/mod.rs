//! Linearizability by its definition: every order of every choice of the open operations.

#![allow(dead_code, reason = "each test binary uses its part")]

use synod_checker::model::{Model, Register};
use synod_checker::search::{Interval, search};
use synod_checker::{
    Action, Algorithm, CheckOptions, ClientId, End, History, KeyId, Nanos, Operation, Outcome, Overlap,
    Report, Sequence, ValueId, Verdict, check,
};

/// True if some order of all closed intervals and some of the open ones is allowed by model and real time.
pub(crate) fn linearizable<M: Model>(model: &M, intervals: &[Interval<M::Step>]) -> bool {
    let open: Vec<usize> = (0..intervals.len()).filter(|&i| intervals[i].end.is_none()).collect();
    (0..1u32 << open.len()).any(|chosen| {
        let in_it = |i: &usize| match open.iter().position(|o| o == i) {
            Some(bit) => chosen >> bit & 1 == 1,
            None => true,
        };
        let mut order: Vec<usize> = (0..intervals.len()).filter(in_it).collect();
        some_permutation(&mut order, 0, &|order| allowed(model, intervals, order))
    })
}

/// True if `order` respects real time and the model answers as observed.
pub(crate) fn allowed<M: Model>(model: &M, intervals: &[Interval<M::Step>], order: &[usize]) -> bool {
    let mut latest_call = Nanos(0);
    let mut state = model.initial();
    for &i in order {
        if intervals[i].end.is_some_and(|end| end < latest_call) {
            return false;
        }
        latest_call = latest_call.max(intervals[i].call);
        match model.apply(&state, &intervals[i].step) {
            Some(next) => state = next,
            None => return false,
        }
    }
    true
}

/// True if `accept` takes every beginning of some order of the elements after the first `fixed`.
fn some_permutation(order: &mut [usize], fixed: usize, accept: &dyn Fn(&[usize]) -> bool) -> bool {
    // An order that fails already at its beginning fails however it goes on.
    if !accept(&order[..fixed]) {
        return false;
    }
    if fixed == order.len() {
        return true;
    }
    (fixed..order.len()).any(|i| {
        order.swap(fixed, i);
        let accepted = some_permutation(order, fixed + 1, accept);
        order.swap(fixed, i);
        accepted
    })
}

/// The intervals of one key that a linearization can hold.
pub(crate) fn register_intervals(operations: &[Operation]) -> Vec<Interval<Action>> {
    let relevant = operations.iter().filter(|operation| match operation.action() {
        Action::Put(_) => operation.outcome() != Outcome::Failed,
        Action::Get(_) => operation.outcome() == Outcome::Ok,
    });
    relevant.map(|o| Interval { step: o.action(), call: o.call(), end: o.effect_end() }).collect()
}

/// The definition, for operations on one key.
pub(crate) fn register_linearizable(operations: &[Operation]) -> bool {
    linearizable(&Register, &register_intervals(operations))
}

pub(crate) fn history(operations: &[Operation]) -> History {
    History::new(operations.to_vec(), Overlap::Refuse).expect("a history")
}

/// An operation of its own client on key 0.
pub(crate) fn operation(client: u32, action: Action, call: u64, end: End) -> Operation {
    Operation::new(ClientId(client), Sequence(0), KeyId(0), action, Nanos(call), end)
}

pub(crate) fn put(client: u32, value: u64, call: u64, end: u64) -> Operation {
    operation(client, Action::Put(ValueId(value)), call, End::Ok(Nanos(end)))
}

pub(crate) fn get(client: u32, value: Option<u64>, call: u64, end: u64) -> Operation {
    operation(client, Action::Get(value.map(ValueId)), call, End::Ok(Nanos(end)))
}

pub(crate) fn by_zones(history: &History) -> Report {
    check(history, &CheckOptions::default())
}

pub(crate) fn by_search(history: &History) -> Report {
    let mut options = CheckOptions::default();
    options.algorithm = Algorithm::Search;
    check(history, &options)
}

/// Checks by zones and by search, requires them to agree, and gives the common answer.
pub(crate) fn both(operations: &[Operation]) -> bool {
    let history = history(operations);
    let (zones, search) = (by_zones(&history).verdict, by_search(&history).verdict);
    let answer = |verdict: &Verdict| match verdict {
        Verdict::Linearizable => true,
        Verdict::NotLinearizable(_) => false,
        Verdict::Unknown { .. } => panic!("the budget is large"),
    };
    assert_eq!(answer(&zones), answer(&search), "zones {zones:?}, search {search:?}, {operations:?}");
    answer(&zones)
}

/// Searches, and holds a linearization that is found against the definition.
pub(crate) fn search_with_proof<M: Model>(model: &M, intervals: &[Interval<M::Step>]) -> bool {
    use synod_checker::search::Found;
    match search(model, intervals, &mut 1_000_000, 1 << 24) {
        Found::Linearization(order) => {
            let mut once = order.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), order.len(), "an operation is in it twice");
            let closed = (0..intervals.len()).filter(|&i| intervals[i].end.is_some());
            assert!({ closed }.all(|i| order.contains(&i)), "a closed operation is missing");
            assert!(allowed(model, intervals, &order), "the order is not allowed");
            true
        }
        Found::Nothing(_) => false,
        Found::Unknown(why) => panic!("{why:?}"),
    }
}
