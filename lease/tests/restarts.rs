//! PaxosLease by a hand-made schedule, in which so much must coincide that a sweep seldom meets it.

use std::time::Duration;

use synod_core::{
    ClockBound, Effects, Incarnation, Input, Instant, Machine, Membership, NodeId, Recovered, Start,
};
use synod_lease::paxos_lease::{LeaseCall, LeaseEvent, Message, PaxosLease, PaxosLeaseConfig};

/// Three replicas with perfect clocks, and messages that arrive when the test says so.
struct Trio {
    replicas: [PaxosLease; 3],
    /// From, to, what.
    wire: Vec<(u64, u64, Message)>,
}

fn at(milliseconds: u64) -> Instant {
    Instant(milliseconds * 1_000_000)
}

/// A lease of 5 s, and a silence of 5 s after a start.
fn config() -> PaxosLeaseConfig {
    let exact = ClockBound::new(0, Duration::ZERO).unwrap();
    PaxosLease::config().length(Duration::from_secs(5)).clock_bound(exact)
}

fn open(node: u64, life: u64, now: Instant) -> PaxosLease {
    let start = Start {
        node: NodeId(node),
        membership: Membership::of_ids(1..=3).unwrap(),
        config: config(),
        recovered: Recovered { incarnation: Incarnation(life), ..Recovered::default() },
        now,
        seed: node,
    };
    PaxosLease::open(start).unwrap()
}

impl Trio {
    /// Started at 0.
    fn new() -> Trio {
        Trio { replicas: [1, 2, 3].map(|node| open(node, 1, at(0))), wire: Vec::new() }
    }

    fn step(&mut self, node: u64, now: Instant, input: Input<Message, LeaseCall>) {
        let mut effects: Effects<Message, LeaseEvent> = Effects::new();
        self.replicas[node as usize - 1].step(now, input, &mut effects);
        self.wire.extend(effects.drain_sends().map(|send| (node, send.to.0, send.message)));
    }

    fn acquire(&mut self, node: u64, now: Instant) {
        self.step(node, now, Input::Call(LeaseCall::Acquire));
    }

    /// Everything under way from one to the other arrives, and what it brings about does not.
    fn arrives(&mut self, from: u64, to: u64, now: Instant) {
        let (due, rest) =
            std::mem::take(&mut self.wire).into_iter().partition(|letter| (letter.0, letter.1) == (from, to));
        self.wire = rest;
        let due: Vec<(u64, u64, Message)> = due;
        assert!(!due.is_empty(), "nothing is under way from {from} to {to}");
        for (_, _, message) in due {
            self.step(to, now, Input::Receive { from: NodeId(from), message });
        }
    }

    fn restart(&mut self, node: u64, now: Instant) {
        self.replicas[node as usize - 1] = open(node, 2, now);
    }

    fn holds(&self, node: u64, now: Instant) -> bool {
        self.replicas[node as usize - 1].remaining(now).is_some()
    }
}

/// Two proposers are promised everything they need, and stand still. An acceptor that promised the higher ballot restarts;
/// when it speaks again it promises the lower one. Both proposers go on: if they counted from their proposals, both
/// would hold the lease.
#[test]
fn who_slept_through_the_restart_of_an_acceptor_gains_nothing() {
    let mut trio = Trio::new();
    // The lower ballot of 2: promised by 3, slow on the way to 1.
    trio.acquire(2, at(5_000));
    trio.arrives(2, 3, at(5_001));
    // The higher ballot of 3: promised by 1, slow on the way to 2.
    trio.acquire(3, at(5_010));
    trio.arrives(3, 1, at(5_011));
    trio.restart(1, at(5_020));

    // 1 speaks again, and knows nothing of the higher ballot.
    trio.arrives(2, 1, at(10_021));
    trio.arrives(3, 2, at(10_022)); // 2 goes on: the promise of 3 is there.
    trio.arrives(2, 1, at(10_023)); // the proposal of 2
    trio.arrives(1, 2, at(10_024));
    trio.arrives(1, 3, at(10_025)); // 3 goes on: the promise of 1's former life is there.
    // Its prepare arrives at 2 at last, and its proposal.
    trio.arrives(3, 2, at(10_026));
    trio.arrives(2, 3, at(10_027));
    assert!(!trio.holds(2, at(10_027)) || !trio.holds(3, at(10_027)), "both hold the lease");
    assert!(!trio.holds(2, at(10_027)) && !trio.holds(3, at(10_027)), "their time is over");
}

/// What the schedule leaves out: nobody restarts and nobody sleeps.
#[test]
fn without_a_restart_the_same_proposer_holds_the_lease() {
    let mut trio = Trio::new();
    trio.acquire(2, at(5_000));
    trio.arrives(2, 3, at(5_001));
    trio.arrives(3, 2, at(5_002));
    trio.arrives(2, 3, at(5_003));
    trio.arrives(3, 2, at(5_004));
    assert!(trio.holds(2, at(9_999)) && !trio.holds(2, at(10_000)));
}
