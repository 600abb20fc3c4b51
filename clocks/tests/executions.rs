//! Random executions of processes that send messages, with the true happened-before relation beside every clock.

mod random;

use std::time::Duration;

use random::Random;
use synod_clocks::{
    ActorId, Causality, HybridClock, HybridTime, LamportClock, LamportTime, Stamp, VectorClock, VectorTime,
    WallReading,
};

const PROCESSES: usize = 4;
const EVENTS: usize = 100;
/// No wall clock is further ahead of another one, in units of 2^-16 s.
const EPSILON: u64 = 5;

/// An event under every clock.
struct Event {
    /// The events in its past, itself included: the truth.
    past: u128,
    lamport: Stamp<LamportTime>,
    vector: VectorTime,
    hybrid: Stamp<HybridTime>,
    wall: u64,
}

struct Process {
    past: u128,
    lamport: LamportClock,
    vector: VectorClock,
    hybrid: HybridClock,
    wall: u64,
}

/// A process picks up a message, or does something that any other one may hear of later. Wall clocks run as the proofs
/// about hybrid clocks assume: each moves on by at least one between two events, and no two are further apart than
/// epsilon.
fn execution(random: &mut Random) -> Vec<Event> {
    let mut processes: Vec<Process> = (0..PROCESSES as u32)
        .map(|node| Process {
            past: 0,
            lamport: LamportClock::new(ActorId::new(node)),
            vector: VectorClock::new(ActorId::new(node)),
            hybrid: HybridClock::new(ActorId::new(node), Duration::from_secs(1)).unwrap(),
            wall: 1_000_000,
        })
        .collect();
    let mut events: Vec<Event> = Vec::new();
    while events.len() < EVENTS {
        let slowest = processes.iter().map(|process| process.wall).min().unwrap();
        let process = &mut processes[random.below(PROCESSES)];
        if process.wall == slowest + EPSILON {
            continue;
        }
        process.wall += 1;
        process.past |= 1 << events.len();
        let wall = reading(process.wall);
        let heard = (random.below(2) == 0 && !events.is_empty()).then(|| &events[random.below(events.len())]);
        let event = match heard {
            Some(message) => {
                process.past |= message.past;
                Event {
                    past: process.past,
                    lamport: process.lamport.receive(message.lamport.time),
                    vector: process.vector.receive(&message.vector),
                    hybrid: process.hybrid.receive(message.hybrid.time, wall).unwrap(),
                    wall: process.wall,
                }
            }
            None => Event {
                past: process.past,
                lamport: process.lamport.send(),
                vector: process.vector.send(),
                hybrid: process.hybrid.send(wall),
                wall: process.wall,
            },
        };
        events.push(event);
    }
    events
}

/// The reading that is `units` of 2^-16 s.
fn reading(units: u64) -> WallReading {
    let nanos = ((units % 65_536) * 1_000_000_000).div_ceil(65_536);
    WallReading::from_unix(Duration::new(units / 65_536, nanos as u32)).unwrap()
}

fn true_causality(a: &Event, b: &Event) -> Causality {
    match (a.past & !b.past != 0, b.past & !a.past != 0) {
        (false, false) => Causality::Equal,
        (false, true) => Causality::Before,
        (true, false) => Causality::After,
        (true, true) => Causality::Concurrent,
    }
}

fn pairs(check: impl Fn(&Event, &Event)) {
    for seed in 0..60 {
        let events = execution(&mut Random(seed));
        for a in &events {
            for b in &events {
                check(a, b);
            }
        }
    }
}

#[test]
fn vector_time_is_happened_before_exactly() {
    pairs(|a, b| assert_eq!(a.vector.compare(&b.vector), true_causality(a, b)));
}

#[test]
fn lamport_time_never_contradicts_happened_before_and_orders_everything() {
    pairs(|a, b| match true_causality(a, b) {
        Causality::Before => assert!(a.lamport.time < b.lamport.time),
        Causality::After => assert!(a.lamport.time > b.lamport.time),
        Causality::Equal => assert_eq!(a.lamport, b.lamport),
        Causality::Concurrent => assert_ne!(a.lamport, b.lamport),
    });
}

#[test]
fn hybrid_time_never_contradicts_happened_before_and_orders_everything() {
    pairs(|a, b| match true_causality(a, b) {
        Causality::Before => assert!(a.hybrid.time < b.hybrid.time),
        Causality::After => assert!(a.hybrid.time > b.hybrid.time),
        Causality::Equal => assert_eq!(a.hybrid, b.hybrid),
        Causality::Concurrent => assert_ne!(a.hybrid, b.hybrid),
    });
}

#[test]
fn hybrid_time_stays_within_epsilon_of_the_wall_clock_and_its_counter_small() {
    let mut counter_seen = 0;
    for seed in 0..2_000 {
        for event in execution(&mut Random(seed)) {
            let l = event.hybrid.time.to_u64() >> 16;
            assert!(l >= event.wall && l - event.wall <= EPSILON, "seed {seed}: {l} at {}", event.wall);
            let counter = u64::from(event.hybrid.time.counter());
            assert!(counter < PROCESSES as u64 * (EPSILON + 1), "seed {seed}: counter {counter}");
            counter_seen = counter.max(counter_seen);
        }
    }
    assert!(counter_seen > 0, "some l came from a message");
}
