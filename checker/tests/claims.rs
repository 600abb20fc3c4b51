//! Hand-made histories, one claim each.

mod brute;

use brute::{both, by_search, by_zones, get, history, operation, put};
use synod_checker::model::{CasRegister, CasStep, Counter, CounterStep};
use synod_checker::search::{Found, Interval, search};
use synod_checker::{
    Action, CheckOptions, ClientId, End, Exhausted, FlipKind, History, KeyId, Nanos, Numbered, Operation,
    Overlap, Reason, Recorder, Sequence, ValueId, Verdict, check, flip_one_read,
};

fn reason(operations: &[Operation]) -> Reason {
    assert!(!both(operations));
    match by_zones(&history(operations)).verdict {
        Verdict::NotLinearizable(violation) => violation.reason,
        other => panic!("{other:?}"),
    }
}

fn unknown_put(client: u32, value: u64, call: u64) -> Operation {
    operation(client, Action::Put(ValueId(value)), call, End::Unknown(None))
}

#[test]
fn an_empty_history_is_linearizable() {
    assert!(both(&[]));
}

#[test]
fn a_stale_read_is_refused() {
    let operations = [put(0, 1, 0, 1), put(1, 2, 2, 3), get(2, Some(1), 4, 5)];
    assert!(matches!(reason(&operations), Reason::Contradiction { .. }));
}

#[test]
fn a_lost_update_is_refused() {
    // Value 2 was written after 1 was there, and nobody wrote 1 again.
    let operations =
        [put(0, 1, 0, 1), get(1, Some(1), 2, 3), put(0, 2, 4, 5), get(1, Some(1), 6, 7)].map(renumbered);
    assert!(matches!(reason(&operations), Reason::Contradiction { .. }));
    // Or as if nobody had ever written.
    let operations = [put(0, 1, 0, 1), get(1, None, 2, 3)];
    assert!(matches!(reason(&operations), Reason::AbsentAfterPut { .. }));
}

#[test]
fn a_phantom_of_a_failed_put_is_refused() {
    let failed = operation(0, Action::Put(ValueId(1)), 0, End::Failed(Nanos(1)));
    assert!(matches!(reason(&[failed, get(1, Some(1), 2, 3)]), Reason::FailedPut { .. }));
    assert!(both(&[failed, get(1, None, 2, 3)]));
}

#[test]
fn a_value_from_nowhere_or_from_the_future_is_refused() {
    assert!(matches!(reason(&[get(0, Some(9), 0, 1)]), Reason::NeverWritten { .. }));
    assert!(matches!(reason(&[get(0, Some(1), 0, 1), put(1, 1, 2, 3)]), Reason::BeforePut { .. }));
}

#[test]
fn reads_on_two_sides_of_a_split_brain_are_refused() {
    // Two leaders each acknowledge a put and serve their own reads.
    let operations = [
        put(0, 1, 0, 9),
        put(1, 2, 0, 9),
        get(2, Some(1), 10, 11),
        get(3, Some(2), 12, 13),
        get(4, Some(1), 14, 15),
    ];
    assert!(matches!(reason(&operations), Reason::Contradiction { .. }));
    assert!(both(&operations[..4]) || both(&operations[..3]));
}

#[test]
fn reads_that_go_back_in_time_are_refused_even_while_the_put_is_open() {
    let operations = [put(0, 1, 0, 100), get(1, Some(1), 10, 20), get(2, None, 30, 40)];
    assert!(matches!(reason(&operations), Reason::AbsentAfterPut { .. }));
    let operations = [put(0, 1, 0, 1), put(1, 2, 2, 100), get(2, Some(2), 10, 20), get(3, Some(1), 30, 40)];
    assert!(matches!(reason(&operations), Reason::Contradiction { .. }));
}

#[test]
fn concurrent_reads_may_see_old_and_new() {
    let operations = [put(0, 1, 0, 1), put(1, 2, 2, 100), get(2, Some(2), 10, 20), get(3, Some(1), 15, 30)];
    assert!(both(&operations));
}

#[test]
fn intervals_that_touch_are_concurrent() {
    assert!(both(&[put(0, 1, 0, 5), get(1, None, 5, 6)]));
    assert!(!both(&[put(0, 1, 0, 5), get(1, None, 6, 7)]));
    assert!(both(&[get(0, Some(1), 0, 5), put(1, 1, 5, 6)]));
    let far = u64::MAX;
    assert!(both(&[put(0, 1, far, far), get(1, Some(1), far, far), get(2, None, far, far)]));
}

#[test]
fn an_unknown_put_may_take_effect_late_or_never() {
    let lost = [unknown_put(0, 1, 0), put(1, 2, 10, 11), get(2, Some(2), 12, 13)];
    assert!(both(&lost));
    let late =
        [unknown_put(0, 1, 0), put(1, 2, 10, 11), get(2, Some(2), 12, 13), get(3, Some(1), 1_000, 1_001)];
    assert!(both(&late));
}

#[test]
fn an_unknown_put_takes_effect_once_at_most_and_not_before_its_call() {
    let twice = [
        unknown_put(0, 1, 0),
        get(1, Some(1), 1, 2),
        put(2, 2, 3, 4),
        get(3, Some(2), 5, 6),
        get(4, Some(1), 7, 8),
    ];
    assert!(!both(&twice));
    assert!(!both(&[get(1, Some(1), 0, 1), unknown_put(0, 1, 2)]));
}

#[test]
fn an_unknown_get_says_nothing() {
    let open = operation(5, Action::Get(None), 2, End::Unknown(None));
    assert!(both(&[put(0, 1, 0, 1), open]));
}

#[test]
fn the_first_key_that_is_wrong_is_named_and_explained() {
    let on = |key: u32, client: u32, action, call: u64| {
        Operation::new(
            ClientId(client),
            Sequence(0),
            KeyId(key),
            action,
            Nanos(call),
            End::Ok(Nanos(call + 1)),
        )
    };
    let operations = [
        on(3, 0, Action::Put(ValueId(1)), 0),
        on(3, 1, Action::Get(Some(ValueId(1))), 2),
        on(7, 2, Action::Get(Some(ValueId(1))), 4),
    ];
    let report = by_zones(&history(&operations));
    let Verdict::NotLinearizable(violation) = report.verdict else { panic!() };
    assert_eq!(violation.key, KeyId(7));
    assert_eq!(
        violation.explain(&Numbered).to_string(),
        "key \"k7\": a get returned \"v1\", which nobody wrote to this key\n  (1) [4, 5] client 2 seq 0: get -> \"v1\" ok"
    );
}

#[test]
fn a_doubt_about_one_key_does_not_hide_a_fault_of_another() {
    // Key 0 repeats a value, and its search runs out; key 1 has a phantom.
    let mut operations: Vec<Operation> = (0..20).map(|i| put(i, 1, 0, 100)).collect();
    operations.push(get(20, Some(2), 200, 201));
    let phantom = Operation::new(
        ClientId(99),
        Sequence(0),
        KeyId(1),
        Action::Get(Some(ValueId(5))),
        Nanos(0),
        End::Ok(Nanos(1)),
    );
    let mut options = CheckOptions::default();
    options.budget.memory_bytes = 100;
    let doubt = check(&history(&operations), &options).verdict;
    assert_eq!(doubt, Verdict::Unknown { why: Exhausted::Memory, key: KeyId(0) });
    operations.push(phantom);
    assert!(matches!(check(&history(&operations), &options).verdict, Verdict::NotLinearizable(_)));
}

#[test]
fn an_exhausted_budget_is_unknown_and_never_fine() {
    let operations = [put(0, 1, 0, 1), get(1, Some(1), 2, 3), get(2, Some(1), 4, 5)];
    for steps in 0..3 {
        let mut options = CheckOptions::default();
        options.budget.steps = steps;
        let report = check(&history(&operations), &options);
        assert_eq!(report.verdict, Verdict::Unknown { why: Exhausted::Steps, key: KeyId(0) });
        assert!(report.steps <= steps);
    }
}

#[test]
fn a_million_operations_on_one_key_are_checked_by_both_algorithms() {
    let mut clients: Vec<Recorder> = (0..4).map(|client| Recorder::new(ClientId(client))).collect();
    for i in 0..250_000u64 {
        let tickets: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(c, client)| match c {
                0 => client.put(KeyId(0), ValueId(i), Nanos(10 * i)),
                _ => client.get(KeyId(0), Nanos(10 * i + c as u64)),
            })
            .collect();
        for (c, (client, ticket)) in clients.iter_mut().zip(tickets).enumerate() {
            let now = Nanos(10 * i + 5 + c as u64);
            match c {
                0 => client.put_ok(ticket, now),
                1 => client.get_ok(ticket, i.checked_sub(1).map(ValueId), now),
                _ => client.get_ok(ticket, Some(ValueId(i)), now),
            }
        }
    }
    let history = Recorder::join(clients).unwrap();
    assert_eq!(by_zones(&history).verdict, Verdict::Linearizable);
    assert_eq!(by_search(&history).verdict, Verdict::Linearizable);
}

#[test]
fn every_flip_of_a_good_history_is_noticed() {
    let mut recorder = Recorder::new(ClientId(0));
    for i in 0..30u64 {
        let put = recorder.put(KeyId(i as u32 % 5), ValueId(i), Nanos(20 * i));
        recorder.put_ok(put, Nanos(20 * i + 5));
        let get = recorder.get(KeyId(i as u32 % 5), Nanos(20 * i + 10));
        recorder.get_ok(get, Some(ValueId(i)), Nanos(20 * i + 15));
    }
    let good = Recorder::join([recorder]).unwrap();
    assert_eq!(by_zones(&good).verdict, Verdict::Linearizable);
    let mut stale = 0;
    for seed in 0..100 {
        let mut flipped = good.clone();
        let flip = flip_one_read(&mut flipped, seed, ValueId(1_000)).unwrap();
        assert_ne!(flip.before, flip.after);
        stale += u32::from(flip.kind == FlipKind::Stale);
        assert!(matches!(by_zones(&flipped).verdict, Verdict::NotLinearizable(_)), "{flip:?}");
        assert!(matches!(by_search(&flipped).verdict, Verdict::NotLinearizable(_)), "{flip:?}");
    }
    assert_eq!(stale, 100);
    let mut only_puts = history(&[put(0, 1, 0, 1)]);
    assert_eq!(flip_one_read(&mut only_puts, 0, ValueId(9)), None);
}

#[test]
fn a_compare_and_set_that_succeeds_twice_on_one_value_is_refused() {
    let cas = |new: u64, swapped: Option<bool>, call: u64| Interval {
        step: CasStep::Cas { expected: None, new: ValueId(new), swapped },
        call: Nanos(call),
        end: Some(Nanos(10)),
    };
    let found = |intervals: &[_]| search(&CasRegister, intervals, &mut 1_000, 1 << 20);
    assert!(matches!(found(&[cas(1, Some(true), 0), cas(2, Some(true), 1)]), Found::Nothing(_)));
    assert_eq!(found(&[cas(1, Some(false), 0), cas(2, Some(true), 1)]), Found::Linearization(vec![1, 0]));
}

#[test]
fn a_counter_whose_unknown_increment_counted_is_accepted_and_twice_is_refused() {
    let unknown = Interval { step: CounterStep::Add { by: 1, sum: None }, call: Nanos(0), end: None };
    let read = |sum| Interval { step: CounterStep::Read(sum), call: Nanos(5), end: Some(Nanos(6)) };
    let found = |sum| search(&Counter, &[unknown, read(sum)], &mut 1_000, 1 << 20);
    assert_eq!(found(0), Found::Linearization(vec![1]));
    assert_eq!(found(1), Found::Linearization(vec![0, 1]));
    assert!(matches!(found(2), Found::Nothing(_)));
}

#[test]
fn overlapping_operations_of_one_client_are_checked_if_allowed() {
    let both_open = [put(0, 1, 0, 10), get(1, Some(1), 5, 15)].map(|o| {
        Operation::new(
            ClientId(0),
            Sequence(o.call().0),
            o.key(),
            o.action(),
            o.call(),
            End::Ok(o.returned().unwrap()),
        )
    });
    let history = History::new(both_open.to_vec(), Overlap::Allow).unwrap();
    assert_eq!(by_zones(&history).verdict, Verdict::Linearizable);
}

/// The same operation with its call as its sequence number, for clients that act more than once.
fn renumbered(o: Operation) -> Operation {
    Operation::new(
        o.client(),
        Sequence(o.call().0),
        o.key(),
        o.action(),
        o.call(),
        End::Ok(o.returned().unwrap()),
    )
}
