//! Zones and search against the definition, on every small history.

mod brute;

use brute::{both, history, operation, register_intervals, register_linearizable, search_with_proof};
use synod_checker::model::Register;
use synod_checker::{Action, End, Nanos, Operation, Reason, ValueId, Verdict};

#[test]
fn every_history_of_up_to_4_operations_is_judged_as_by_definition() {
    let mut tally = Tally::default();
    for count in 0..=4 {
        for times in interleavings(count) {
            for operations in histories(&times, 3, &KINDS) {
                tally.judge(&operations);
            }
        }
    }
    assert_eq!((tally.linearizable, tally.not), (58_350, 128_229));
}

#[test]
fn every_history_of_5_operations_with_2_puts_is_judged_as_by_definition() {
    let mut tally = Tally::default();
    for times in interleavings(5) {
        for operations in histories(&times, 2, &[Kind::PutOk, Kind::PutUnknown, Kind::Get]) {
            if operations.iter().filter(|o| matches!(o.action(), Action::Put(_))).count() == 2 {
                tally.judge(&operations);
            }
        }
    }
    assert!(tally.linearizable > 50_000 && tally.not > 500_000, "{tally:?}");
}

#[test]
fn every_history_of_3_operations_with_equal_times_is_judged_as_by_definition() {
    let intervals: Vec<(u64, u64)> = (0..4).flat_map(|call| (call..4).map(move |end| (call, end))).collect();
    let mut tally = Tally::default();
    for &a in &intervals {
        for &b in &intervals {
            for &c in &intervals {
                for operations in histories(&[a, b, c], 3, &KINDS) {
                    tally.judge(&operations);
                }
            }
        }
    }
    assert!(tally.linearizable > 10_000 && tally.not > 50_000, "{tally:?}");
}

#[test]
fn every_history_of_4_operations_that_repeats_values_is_judged_as_by_definition() {
    let steps = [Action::Put(ValueId(0)), Action::Put(ValueId(1)), Action::Get(None)];
    let steps: Vec<Action> = steps.into_iter().chain([0, 1].map(|v| Action::Get(Some(ValueId(v))))).collect();
    let mut answers = [0, 0];
    for times in interleavings(4) {
        for number in 0..steps.len().pow(4) {
            let operations: Vec<Operation> = times
                .iter()
                .enumerate()
                .map(|(i, &(call, end))| {
                    let step = steps[number / steps.len().pow(i as u32) % steps.len()];
                    operation(i as u32, step, call, End::Ok(Nanos(end)))
                })
                .collect();
            let expected = register_linearizable(&operations);
            assert_eq!(both(&operations), expected, "{operations:#?}");
            answers[usize::from(expected)] += 1;
        }
    }
    assert!(answers[0] > 10_000 && answers[1] > 5_000, "{answers:?}");
}

#[derive(Debug, Default)]
struct Tally {
    linearizable: u64,
    not: u64,
}

impl Tally {
    /// Zones, search and definition agree; a linearization found is one; what the zones blame is to blame by itself.
    fn judge(&mut self, operations: &[Operation]) {
        let expected = register_linearizable(operations);
        assert_eq!(both(operations), expected, "{operations:#?}");
        assert_eq!(search_with_proof(&Register, &register_intervals(operations)), expected);
        if expected {
            self.linearizable += 1;
            return;
        }
        self.not += 1;
        let Verdict::NotLinearizable(violation) = brute::by_zones(&history(operations)).verdict else {
            panic!("the zones said no before");
        };
        assert!(violation.operations.iter().all(|operation| operations.contains(operation)));
        assert!(!register_linearizable(&violation.operations), "{violation:#?}");
        assert!(!matches!(violation.reason, Reason::Stuck { .. }), "zones decide unique values");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    PutOk,
    PutFailed,
    PutUnknown,
    Get,
}

const KINDS: [Kind; 4] = [Kind::PutOk, Kind::PutFailed, Kind::PutUnknown, Kind::Get];

/// Every order of the calls and returns of `count` operations, as intervals; operations are numbered by call.
fn interleavings(count: usize) -> Vec<Vec<(u64, u64)>> {
    fn extend(count: usize, now: u64, times: &mut Vec<(u64, u64)>, all: &mut Vec<Vec<(u64, u64)>>) {
        if now == 2 * count as u64 {
            all.push(times.clone());
            return;
        }
        if times.len() < count {
            times.push((now, u64::MAX));
            extend(count, now + 1, times, all);
            times.pop();
        }
        for i in 0..times.len() {
            if times[i].1 == u64::MAX {
                times[i].1 = now;
                extend(count, now + 1, times, all);
                times[i].1 = u64::MAX;
            }
        }
    }
    let mut all = Vec::new();
    extend(count, 0, &mut Vec::new(), &mut all);
    all
}

/// Every history with these times: the puts write 0, 1, 2 and so on, at most `puts_max` of them; a get returns
/// nothing, one of these, or a value nobody writes.
fn histories(times: &[(u64, u64)], puts_max: u64, kinds: &[Kind]) -> Vec<Vec<Operation>> {
    let mut all = Vec::new();
    for number in 0..kinds.len().pow(times.len() as u32) {
        let kind = |i: usize| kinds[number / kinds.len().pow(i as u32) % kinds.len()];
        let puts = (0..times.len()).filter(|&i| kind(i) != Kind::Get).count() as u64;
        if puts <= puts_max {
            fill(times, &kind, puts, &mut Vec::new(), &mut all);
        }
    }
    all
}

fn fill(
    times: &[(u64, u64)],
    kind: &dyn Fn(usize) -> Kind,
    puts: u64,
    operations: &mut Vec<Operation>,
    all: &mut Vec<Vec<Operation>>,
) {
    let i = operations.len();
    if i == times.len() {
        all.push(operations.clone());
        return;
    }
    let (call, end) = (times[i].0, Nanos(times[i].1));
    let written = operations.iter().filter(|o| matches!(o.action(), Action::Put(_))).count() as u64;
    let put = Action::Put(ValueId(written));
    let choices: Vec<(Action, End)> = match kind(i) {
        Kind::PutOk => vec![(put, End::Ok(end))],
        Kind::PutFailed => vec![(put, End::Failed(end))],
        Kind::PutUnknown => vec![(put, End::Unknown(None))],
        Kind::Get => [None]
            .into_iter()
            .chain((0..=puts).map(|value| Some(ValueId(value))))
            .map(|value| (Action::Get(value), End::Ok(end)))
            .collect(),
    };
    for (action, end) in choices {
        operations.push(operation(i as u32, action, call, end));
        fill(times, kind, puts, operations, all);
        operations.pop();
    }
}
