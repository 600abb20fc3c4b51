//! Every policy ends in the same value on every replica, whatever the order of news.

mod random;

use std::collections::BTreeSet;
use std::time::Duration;

use random::Random;
use synod_clocks::strategy::check_merge;
use synod_clocks::{
    ActorId, Answer, CausalContext, Causality, HybridClock, LastWriterWins, Maximum, MergeWith,
    MultiVersionRegister, Resolver, ReturnToClient, Timed, WallReading,
};

type Items = BTreeSet<u8>;

const REPLICAS: usize = 4;

fn union(a: &Items, b: &Items) -> Items {
    a | b
}

fn actor(node: usize) -> ActorId {
    ActorId::new(node as u32)
}

/// Replicas that wrote and deleted at once, with wall clocks that differ; no news has been exchanged at the end.
fn replicas(random: &mut Random) -> Vec<MultiVersionRegister<Timed<Items>>> {
    let mut registers = vec![MultiVersionRegister::new(); REPLICAS];
    let mut clocks: Vec<HybridClock> =
        (0..REPLICAS).map(|node| HybridClock::new(actor(node), Duration::from_secs(1)).unwrap()).collect();
    for _ in 0..20 {
        let here = random.below(REPLICAS);
        // Few different readings, so that equal times occur.
        let wall = WallReading::from_unix(Duration::from_millis(random.below(3) as u64)).unwrap();
        let context = match random.below(3) {
            0 => CausalContext::none(),
            _ => registers[here].get().context,
        };
        match random.below(6) {
            0 => registers[here].delete(&context),
            1 => {
                let other = registers[random.below(REPLICAS)].clone();
                registers[here].merge(&other);
            }
            _ => {
                let time = clocks[here].local(wall).time;
                let value = Items::from([random.below(5) as u8]);
                registers[here].put(actor(here), &context, Timed { time, value });
            }
        }
    }
    registers
}

/// Everybody hears of everybody, in a random order.
fn exchange<T: Clone>(registers: &mut [MultiVersionRegister<T>], random: &mut Random) {
    for _ in 0..REPLICAS {
        let start = registers.to_vec();
        for register in registers.iter_mut() {
            let first = random.below(REPLICAS);
            (0..REPLICAS).for_each(|step| register.merge(&start[(first + step) % REPLICAS]));
        }
    }
}

/// Lets every replica settle the conflict by itself, at once, again and again; returns the value that all end with.
fn settle<T, R>(mut registers: Vec<MultiVersionRegister<T>>, resolver: &R, random: &mut Random) -> Answer<T>
where
    T: Clone + PartialEq + std::fmt::Debug,
    R: Resolver<T>,
{
    exchange(&mut registers, random);
    let answer = registers[0].resolve(resolver).answer;
    for _ in 0..3 {
        for (node, register) in registers.iter_mut().enumerate() {
            let resolved = register.resolve(resolver);
            assert_eq!(resolved.answer, answer, "replica {node}");
            if let Answer::Value(value) = resolved.answer {
                register.put(actor(node), &resolved.context, value);
            }
        }
        exchange(&mut registers, random);
    }
    assert!(registers.iter().all(|register| register.compare(&registers[0]) == Causality::Equal));
    answer
}

#[test]
fn every_policy_ends_in_one_value_on_all_replicas() {
    let mut kept = BTreeSet::new();
    for seed in 0..500 {
        let mut random = Random(seed);
        let start = replicas(&mut random);
        let merge = MergeWith(|a: &Timed<Items>, b: &Timed<Items>| Timed {
            time: a.time.max(b.time),
            value: union(&a.value, &b.value),
        });
        let last = settle(start.clone(), &LastWriterWins, &mut random);
        let merged = settle(start.clone(), &merge, &mut random);

        let mut all = start;
        exchange(&mut all, &mut random);
        let siblings = all[0].get().siblings;
        kept.insert(siblings.len());
        let everything =
            siblings.iter().fold(Items::new(), |items, sibling| union(&items, &sibling.value.value));
        let newest = siblings.iter().map(|sibling| sibling.value.time).max();
        match (&last, &merged) {
            (Answer::Value(last), Answer::Value(merged)) => {
                assert_eq!(Some(last.time), newest);
                assert_eq!(merged.value, everything);
            }
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(kept.contains(&1) && kept.len() > 4, "too alike to prove anything: {kept:?}");
}

#[test]
fn the_maximum_is_one_value_on_all_replicas() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut registers = vec![MultiVersionRegister::new(); REPLICAS];
        let values: Vec<usize> = (0..REPLICAS).map(|_| random.below(3)).collect();
        for (node, value) in values.iter().enumerate() {
            registers[node].put(actor(node), &CausalContext::none(), *value);
        }
        assert_eq!(settle(registers, &Maximum, &mut random), Answer::Value(*values.iter().max().unwrap()));
    }
}

#[test]
fn a_conflict_left_to_the_client_ends_with_its_write() {
    let (mut left, mut right) = (MultiVersionRegister::new(), MultiVersionRegister::new());
    left.put(actor(1), &CausalContext::none(), "a");
    right.put(actor(2), &CausalContext::none(), "b");
    left.merge(&right);
    let read = left.resolve(&ReturnToClient);
    assert_eq!(read.answer, Answer::Conflict(vec!["a", "b"]));
    // The client may write to another replica than it has read from.
    right.put(actor(2), &read.context, "c");
    left.merge(&right);
    assert_eq!(left.resolve(&ReturnToClient).answer, Answer::Value("c"));
}

#[test]
fn a_tombstone_keeps_a_value_away_that_a_lagging_replica_still_has() {
    let mut here = MultiVersionRegister::new();
    here.put(actor(1), &CausalContext::none(), "a");
    let lagging = here.clone();
    let context = here.get().context;
    here.delete(&context);
    here.merge(&lagging);
    assert!(here.is_tombstone() && !lagging.is_tombstone());
    assert_eq!(here.resolve(&ReturnToClient).answer, Answer::Absent);
}

/// Why a set may not be dropped while another replica holds it: what the limits of the type say.
#[test]
fn a_dropped_tombstone_costs_the_next_write_unless_the_actor_changes() {
    let mut elsewhere = MultiVersionRegister::new();
    elsewhere.put(actor(1), &CausalContext::none(), "old");
    let context = elsewhere.get().context;
    elsewhere.delete(&context);

    let mut dropped = MultiVersionRegister::new();
    dropped.put(actor(1), &CausalContext::none(), "new");
    dropped.merge(&elsewhere);
    assert_eq!(dropped.resolve(&ReturnToClient).answer, Answer::Absent, "the dot was used before");

    let mut dropped = MultiVersionRegister::new();
    dropped.put(actor(1).with_incarnation(1), &CausalContext::none(), "new");
    dropped.merge(&elsewhere);
    assert_eq!(dropped.resolve(&ReturnToClient).answer, Answer::Value("new"));
}

#[test]
fn the_laws_of_a_merge_function_can_be_checked_by_a_user() {
    let items = || proptest::collection::btree_set(0..4_u8, 0..4);
    assert_eq!(check_merge(items(), union), Ok(()));
    let broken = check_merge(items(), |a, b| a - b).unwrap_err();
    assert!(broken.contains("the merge function is not idempotent"), "{broken}");
}
