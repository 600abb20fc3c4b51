//! Dotted version vector sets against an oracle that keeps every event with its whole causal history.
//!
//! `HISTORIES=1000000 cargo test --release -p synod-clocks --test oracle -- --nocapture` runs more histories, and
//! `FROM=1000000` others.

mod random;

use random::Random;
use synod_clocks::{ActorId, DottedVersionVectorSet, VersionVector};

const REPLICAS: usize = 3;
const CLIENTS: usize = 4;
const STEPS: usize = 40;
/// Histories of one `cargo test`.
const HISTORIES: u64 = 10_000;

/// A set of events, one bit each.
type Events = u64;

/// The truth: what every event had seen.
#[derive(Default)]
struct Oracle {
    /// Of each event, the events it has seen.
    histories: Vec<Events>,
    /// The events that wrote a value; the others deleted.
    writes: Events,
}

impl Oracle {
    /// A new event of somebody who has seen `seen`.
    fn event(&mut self, seen: Events, write: bool) -> Events {
        let event = 1 << self.histories.len();
        self.histories.push(seen);
        self.writes |= if write { event } else { 0 };
        event
    }

    /// The writes among `known` that no known event has seen: what must be kept.
    fn maximal(&self, known: Events) -> Events {
        let seen = self.histories.iter().enumerate().filter(|(event, _)| known & 1 << event != 0);
        known & self.writes & !seen.fold(0, |all, (_, history)| all | history)
    }
}

#[derive(Clone)]
struct Replica {
    set: DottedVersionVectorSet<u32>,
    /// For the oracle: every event whose effect has reached this replica.
    known: Events,
}

/// What became of one history.
struct Outcome {
    operations: u64,
    /// What differed first.
    difference: Option<String>,
}

/// Writes, deletes, synchronisations, and replicas restored from an older state, checked after every step.
///
/// With `reuse`, a restored replica goes on under its old name, which is the mistake that incarnations prevent.
fn history(seed: u64, reuse: bool) -> Outcome {
    let mut random = Random(seed);
    let mut oracle = Oracle::default();
    let new = Replica { set: DottedVersionVectorSet::new(), known: 0 };
    let mut replicas = vec![new.clone(); REPLICAS];
    let mut backups = replicas.clone();
    let mut lives = [0; REPLICAS];
    let mut contexts = vec![(VersionVector::new(), 0); CLIENTS];
    // Some histories are of one busy server, some of many.
    let replicas_used = 1 + random.below(REPLICAS);
    let mut operations = 0;
    for _ in 0..STEPS {
        let (here, there) = (random.below(replicas_used), random.below(replicas_used));
        let client = random.below(CLIENTS);
        let actor = ActorId::new(here as u32).with_incarnation(if reuse { 0 } else { lives[here] });
        operations += 1;
        match random.below(16) {
            0..4 => contexts[client] = (replicas[here].set.join(), replicas[here].known),
            4..9 => {
                let (context, seen) = contexts[client].clone();
                let event = oracle.event(seen, true);
                let dot = replicas[here].set.update(actor, &context, event.trailing_zeros());
                replicas[here].known |= seen | event;
                if !replicas[here].set.siblings().any(|sibling| sibling.dot == dot) {
                    return Outcome { operations, difference: Some(format!("write {dot} is not there")) };
                }
            }
            9 => {
                let (context, seen) = contexts[client].clone();
                let event = oracle.event(seen, false);
                replicas[here].set.discard(&context);
                replicas[here].known |= seen | event;
            }
            10 => {
                let all = replicas[here].known;
                let event = oracle.event(all, true);
                if replicas[here].set.reconcile(actor, |_| event.trailing_zeros()).is_some() {
                    replicas[here].known |= event;
                }
            }
            11..14 => {
                let other = replicas[there].clone();
                replicas[here].set.sync(&other.set);
                replicas[here].known |= other.known;
            }
            14 => backups[here] = replicas[here].clone(),
            _ => {
                replicas[here] = backups[here].clone();
                lives[here] += 1;
            }
        }
        if let Some(difference) = difference(&oracle, &replicas[here]) {
            return Outcome { operations, difference: Some(difference) };
        }
    }
    let all = replicas.clone();
    for replica in &mut replicas {
        for other in &all {
            replica.set.sync(&other.set);
            replica.known |= other.known;
        }
        if let Some(difference) = difference(&oracle, replica) {
            return Outcome { operations, difference: Some(difference) };
        }
    }
    let converged = replicas.iter().all(|replica| replica.set == replicas[0].set);
    Outcome { operations, difference: (!converged).then(|| "the replicas did not converge".to_owned()) }
}

fn difference(oracle: &Oracle, replica: &Replica) -> Option<String> {
    let kept = replica.set.values().fold(0_u64, |all, value| all | 1 << value);
    let expected = oracle.maximal(replica.known);
    let twice = replica.set.len() != kept.count_ones() as usize;
    (kept != expected || twice).then(|| format!("{:?} instead of {expected:b}", replica.set))
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn siblings_are_the_maximal_writes_of_the_true_causal_order() {
    let (from, count) = (number("FROM", 0), number("HISTORIES", HISTORIES));
    let mut operations = 0;
    for seed in from..from + count {
        let outcome = history(seed, false);
        assert_eq!(outcome.difference, None, "history {seed}");
        operations += outcome.operations;
    }
    println!("{count} histories, {operations} operations, 0 differences");
}

#[test]
fn a_restored_replica_that_keeps_its_name_loses_writes() {
    let wrong = (0..HISTORIES).filter(|seed| history(*seed, true).difference.is_some()).count();
    assert!(wrong > 1_000, "{wrong} of {HISTORIES}: the oracle would not notice a dot that is used twice");
}
