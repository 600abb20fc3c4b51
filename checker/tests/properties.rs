//! Random histories: zones against search, search against the definition, reader against writer.

mod brute;

use proptest::prelude::*;
use synod_checker::model::{CasRegister, CasStep, Counter, CounterStep};
use synod_checker::search::Interval;
use synod_checker::{
    Action, ClientId, End, HistoryWriter, Interner, KeyId, Nanos, Operation, ReadOptions, Sequence, ValueId,
    Verdict, read_history,
};

/// What one client does next, in a real execution over real registers.
#[derive(Clone, Copy, Debug)]
struct Deed {
    client: u32,
    key: u32,
    put: bool,
    /// Idle time before the call, time until it takes effect, time until it returns.
    delays: [u64; 3],
    /// 0 to 7 ok, 8 failed, 9 unknown without effect, 10 unknown with its effect, 11 unknown with a late effect.
    fate: u8,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = (0..6u32, 0..3u32, any::<bool>(), [0..8u64, 0..10, 0..10], 0..12u8)
        .prop_map(|(client, key, put, delays, fate)| Deed { client, key, put, delays, fate });
    prop::collection::vec(deed, 1..80)
}

/// Carries the deeds out: every operation takes effect at one moment between its call and its return.
fn execute(deeds: &[Deed]) -> Vec<Operation> {
    let mut clocks = [0u64; 6];
    let mut effects = Vec::new();
    let mut operations = Vec::new();
    for (i, deed) in deeds.iter().enumerate() {
        let call = clocks[deed.client as usize] + deed.delays[0];
        let effect = call + deed.delays[1];
        let end = effect + deed.delays[2];
        clocks[deed.client as usize] = end;
        let (moment, end) = match deed.fate {
            0..8 => (Some(effect), End::Ok(Nanos(end))),
            8 => (None, End::Failed(Nanos(end))),
            9 => (None, End::Unknown(None)),
            10 => (Some(effect), End::Unknown(Some(Nanos(end)))),
            _ => (Some(effect + 50), End::Unknown(None)),
        };
        effects.extend(moment.map(|moment| (moment, i)));
        let action = if deed.put { Action::Put(ValueId(i as u64)) } else { Action::Get(None) };
        let (client, seq) = (ClientId(deed.client), Sequence(i as u64));
        operations.push((client, seq, KeyId(deed.key), action, Nanos(call), end));
    }
    effects.sort_unstable();
    let mut registers = [None; 3];
    for (_, i) in effects {
        let (_, _, key, action, ..) = &mut operations[i];
        match action {
            Action::Put(value) => registers[key.0 as usize] = Some(*value),
            Action::Get(value) => *value = registers[key.0 as usize],
        }
    }
    operations
        .into_iter()
        .map(|(client, seq, key, action, call, end)| Operation::new(client, seq, key, action, call, end))
        .collect()
}

/// Another value for one get.
fn mutate(operations: &mut [Operation], which: prop::sample::Index, value: prop::sample::Index) {
    let gets: Vec<usize> =
        (0..operations.len()).filter(|&i| matches!(operations[i].action(), Action::Get(_))).collect();
    if gets.is_empty() {
        return;
    }
    let o = operations[*which.get(&gets)];
    let value = ValueId(value.index(operations.len()) as u64);
    let end = o.effect_end().map_or(End::Unknown(None), End::Ok);
    operations[*which.get(&gets)] =
        Operation::new(o.client(), o.seq(), o.key(), Action::Get(Some(value)), o.call(), end);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_real_execution_is_always_linearizable(deeds in deeds()) {
        prop_assert!(brute::both(&execute(&deeds)));
    }

    #[test]
    fn zones_and_search_agree_on_executions_with_changed_answers(
        deeds in deeds(),
        changes in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 1..4),
    ) {
        let mut operations = execute(&deeds);
        for (which, value) in changes {
            mutate(&mut operations, which, value);
        }
        brute::both(&operations);
    }

    #[test]
    fn what_the_zones_blame_is_not_linearizable_by_itself(
        deeds in deeds(),
        which in any::<prop::sample::Index>(),
        value in any::<prop::sample::Index>(),
    ) {
        let mut operations = execute(&deeds);
        mutate(&mut operations, which, value);
        if let Verdict::NotLinearizable(violation) = brute::by_zones(&brute::history(&operations)).verdict {
            prop_assert!(violation.operations.len() <= 6);
            prop_assert!(!brute::both(&violation.operations));
        }
    }

    #[test]
    fn a_history_survives_its_file(deeds in deeds()) {
        let operations = execute(&deeds);
        let mut names = Interner::default();
        for key in 0..3 {
            names.key_id(&format!("key \"{key}\"\n"));
        }
        for value in 0..operations.len() {
            names.value_id(&format!("{value} \u{1F980}\\"));
        }
        let written = |names: &Interner, operations: &[Operation]| {
            let mut writer = HistoryWriter::new(Vec::new());
            for operation in operations {
                writer.write(operation, names).unwrap();
            }
            writer.finish().unwrap()
        };
        let file = written(&names, &operations);
        let read = read_history(&file[..], &ReadOptions::default()).unwrap();
        prop_assert_eq!(written(&read.names, read.history.operations()), file);
        prop_assert_eq!(brute::by_zones(&read.history).verdict, Verdict::Linearizable);
    }

    #[test]
    fn the_search_judges_compare_and_set_as_by_definition(
        steps in prop::collection::vec((0..4u8, 0..3u64, 0..3u64, 0..6u64, 0..4u64, 0..5u8), 0..6),
    ) {
        let value = |v: u64| (v > 0).then_some(ValueId(v));
        let intervals: Vec<Interval<CasStep>> = steps.into_iter().map(|(kind, a, b, call, length, fate)| Interval {
            step: match kind {
                0 => CasStep::Put(ValueId(a)),
                1 => CasStep::Get(value(a)),
                _ => CasStep::Cas {
                    expected: value(a),
                    new: ValueId(b),
                    swapped: (fate > 0).then_some(kind == 2),
                },
            },
            call: Nanos(call),
            end: (fate > 0).then_some(Nanos(call + length)),
        }).collect();
        prop_assert_eq!(brute::search_with_proof(&CasRegister, &intervals), brute::linearizable(&CasRegister, &intervals));
    }

    #[test]
    fn the_search_judges_counters_as_by_definition(
        steps in prop::collection::vec((any::<bool>(), 0..6u64, 0..6u64, 0..4u64, 0..5u8), 0..6),
    ) {
        let intervals: Vec<Interval<CounterStep>> = steps.into_iter().map(|(add, sum, call, length, fate)| Interval {
            step: match add {
                true => CounterStep::Add { by: 1, sum: (fate > 1).then_some(sum) },
                false => CounterStep::Read(sum),
            },
            call: Nanos(call),
            end: (fate > 0).then_some(Nanos(call + length)),
        }).collect();
        prop_assert_eq!(brute::search_with_proof(&Counter, &intervals), brute::linearizable(&Counter, &intervals));
    }
}
