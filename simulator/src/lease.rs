//! PaxosLease under drifting clocks: at most one holder at any moment of real time.
//!
//! | invariant | what must hold |
//! |---|---|
//! | LI1, LI2, LI7 | see [`crate::holders`] |
//! | LI5 | nobody holds it for longer than the bound on clocks leaves of it, counted from before it asked |
//! | LI6 | once faults are over, somebody holds it (`liveness`) |

use std::time::Duration;

use synod_core::{
    ClockBound, Compacted, Envelope, GroupId, Inbound, Input, Instant, LoadId, Loaded, Membership, NodeId,
    Packet, Recovered, Start, WriteId,
};
use synod_lease::paxos_lease::{LeaseCall, PaxosLease, PaxosLeaseConfig};
use synod_lease::{FencedEvent, FencedLease, FencedMessage as Message};
use synod_replica::{Actions, Host};

use crate::clock::Time;
use crate::disk::Disk;
use crate::fault::{Fault, FaultSet};
use crate::holders::Holders;
use crate::log::count_host;
use crate::observer::{Checked, Violation, violation, wire};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::{Chance, Rng};
use crate::subject::{Agenda, Moment, NodeState, NodeView, Output, Subject, Tally};

/// A cluster of replicas that share one lease.
#[derive(Debug)]
pub struct Leases {
    membership: Membership,
    config: PaxosLeaseConfig,
    /// How long a holder may act, by its own clock.
    held: Duration,
    think_mean: Time,
    releases: Chance,
    holders: Holders,
    rare: RareCounts,
    others: Vec<(NodeId, Packet<Message>)>,
    actions: Actions<Message>,
    events: Vec<FencedEvent>,
    healing: Option<Healing>,
}

#[derive(Debug)]
struct Healing {
    core: Vec<usize>,
    /// Somebody of the core has gained the lease since.
    gained: bool,
}

/// The faults that a lease is proof against: all but a clock that jumps, which breaks every bound on clocks.
#[must_use]
pub fn survivable(faults: FaultSet) -> FaultSet {
    faults.iter().filter(|fault| *fault != Fault::ClockJump).collect()
}

impl Leases {
    /// The cluster of a seed; it assumes of clocks that they drift by so many parts of a million at most.
    ///
    /// # Panics
    /// If there is no node.
    #[must_use]
    pub fn new(options: &Options, rng: &mut Rng, assumed_ppm: u64, fenced: bool) -> Leases {
        let bound = ClockBound::new(assumed_ppm as u32, Duration::ZERO)
            .expect("clocks of the simulation drift by less");
        let retry = Duration::from_nanos(options.patience / 8);
        let length = Duration::from_nanos(options.patience * rng.log_between(2, 16));
        Leases {
            membership: Membership::of_ids(1..=options.replicas as u64).expect("there are nodes"),
            held: bound.held(length),
            config: PaxosLease::config().length(length).retry(retry).clock_bound(bound),
            think_mean: options.patience / 2,
            releases: rng.pick(&[Chance::percent(5), Chance::percent(30)]),
            holders: Holders::new(options.replicas, fenced, options.patience / 10),
            rare: RareCounts::default(),
            others: Vec::new(),
            actions: Actions::default(),
            events: Vec::new(),
            healing: None,
        }
    }

    fn on_event(&mut self, moment: Moment, event: FencedEvent) -> Checked {
        let node = moment.node;
        let FencedEvent::Held { until, token } = event else {
            self.holders.lost(node);
            return Ok(());
        };
        if until > moment.now && until - moment.now > self.held {
            let what = format!("n{} holds until {until}, it is {} there", node + 1, moment.now);
            return Err(violation("LI5", what));
        }
        self.holders.held(moment, until, token)?;
        if let Some(healing) = &mut self.healing {
            healing.gained |= self.holders.believes(node) && healing.core.contains(&node);
        }
        Ok(())
    }
}

impl Subject for Leases {
    type Message = Message;
    type Node = Host<FencedLease>;
    type Call = LeaseCall;

    fn open(
        &mut self,
        moment: Moment,
        recovered: Recovered,
        seed: u64,
    ) -> Result<Host<FencedLease>, Violation> {
        let start = Start {
            node: NodeId(moment.node as u64 + 1),
            membership: self.membership.clone(),
            config: self.config.clone(),
            recovered,
            now: moment.now,
            seed,
        };
        Host::open(start, GroupId(0), 0)
            .map_err(|error| violation("assertion", format!("n{} does not open: {error}", moment.node + 1)))
    }

    fn receive(&mut self, moment: Moment, node: &mut Host<FencedLease>, inbound: Inbound<Message>) {
        node.receive(moment.now, inbound, &mut self.others);
    }

    fn persisted(&mut self, moment: Moment, node: &mut Host<FencedLease>, through: WriteId) {
        node.persisted(moment.now, through);
    }

    fn loaded(
        &mut self,
        _: Moment,
        node: &mut Host<FencedLease>,
        id: LoadId,
        result: Result<Loaded, Compacted>,
    ) {
        node.loaded(id, result);
    }

    fn call(&mut self, moment: Moment, node: &mut Host<FencedLease>, call: LeaseCall) {
        node.step(moment.now, Input::Call(call));
    }

    fn tick(&mut self, moment: Moment, node: &mut Host<FencedLease>) {
        node.step(moment.now, Input::Tick);
    }

    fn settle(&mut self, moment: Moment, node: &mut Host<FencedLease>, output: &mut Output<Message>) {
        node.settle(moment.now, &mut self.actions);
        output.writes.append(&mut self.actions.writes);
    }

    fn flush(
        &mut self,
        moment: Moment,
        node: &mut Host<FencedLease>,
        output: &mut Output<Message>,
        agenda: &mut Agenda,
    ) -> Checked {
        node.sort(moment.now, &mut self.actions, &mut self.events);
        node.finish(&mut self.actions);
        output.writes.append(&mut self.actions.writes);
        std::mem::swap(&mut output.envelopes, &mut self.actions.envelopes);
        std::mem::swap(&mut output.loads, &mut self.actions.loads);
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            agenda.note(moment.node, || format!("{event:?}"));
            self.on_event(moment, event)?;
        }
        self.events = events;
        // The lease itself is judged from the first moment on, not from when the holder has its token.
        match node.machine().until(moment.now) {
            Some(until) => self.holders.believes_until(moment, until),
            None => {
                self.holders.lost(moment.node);
                Ok(())
            }
        }
    }

    fn has_work(&self, node: &Host<FencedLease>) -> bool {
        node.has_work()
    }

    fn next_deadline(&self, node: &Host<FencedLease>) -> Option<Instant> {
        node.next_deadline()
    }

    fn durable(&mut self, _: usize, _: WriteId, _: &Disk) -> Checked {
        Ok(())
    }

    fn crashed(
        &mut self,
        _: Time,
        node: usize,
        last: &Host<FencedLease>,
        _: WriteId,
        _: &Disk,
        _: &mut Agenda,
    ) -> Checked {
        count_host(&mut self.rare, last.counters());
        self.holders.crashed(node);
        Ok(())
    }

    fn sent(&mut self, _: usize, _: usize, _: &Envelope<Message>) -> Checked {
        Ok(())
    }

    fn encoded(
        &self,
        node: usize,
        envelope: Envelope<Self::Message>,
    ) -> Result<Envelope<Self::Message>, Violation> {
        wire::round_trip(node, &envelope)
    }

    fn fingerprint(message: &Message) -> u64 {
        message.to_string().bytes().fold(0, |hash, byte| crate::hash::mix(hash, u64::from(byte)))
    }

    fn describe_call(client: u32, call: &LeaseCall) -> String {
        format!("client {client}: {call:?}")
    }

    fn wake(
        &mut self,
        at: Time,
        client: u32,
        nodes: &[NodeView],
        rng: &mut Rng,
        agenda: &mut Agenda,
    ) -> Vec<(usize, LeaseCall)> {
        self.holders.see(nodes);
        if self.holders.wake(at, client, rng, agenda) {
            return Vec::new();
        }
        agenda.wakes.push((at + 1 + rng.exponential(self.think_mean), client));
        let node = rng.index(nodes.len());
        if !nodes[node].up || !nodes[node].open {
            return Vec::new();
        }
        self.holders.act(at, node, rng, agenda);
        let call = if self.healing.is_none() && rng.chance(self.releases) {
            LeaseCall::Release
        } else {
            LeaseCall::Acquire
        };
        vec![(node, call)]
    }

    fn check(&mut self, _: Moment, _: &Host<FencedLease>) -> Checked {
        Ok(())
    }

    fn leader(&self) -> Option<usize> {
        self.holders.leader()
    }

    fn has_begun(&self) -> bool {
        true
    }

    fn heal(&mut self, _: Time, core: &[usize], _: &mut Rng, _: &mut Agenda) {
        self.healing = Some(Healing { core: core.to_vec(), gained: false });
    }

    fn is_healed(&self, _: &[(usize, &Host<FencedLease>)]) -> bool {
        self.healing.as_ref().is_some_and(|healing| healing.gained)
    }

    fn missing(&self, core: &[(usize, &Host<FencedLease>)]) -> String {
        let nodes: Vec<String> = core.iter().map(|(at, _)| format!("n{}", at + 1)).collect();
        format!("none of {} gained the lease", nodes.join(", "))
    }

    fn finish(&mut self, core: &[(usize, &Host<FencedLease>)]) -> Checked {
        for (_, node) in core {
            count_host(&mut self.rare, node.counters());
        }
        self.holders.finish()
    }

    fn describe(&self, node: &Host<FencedLease>) -> NodeState {
        let at = node.node().0 as usize - 1;
        let role = if self.holders.believes(at) { "leader" } else { "follower" };
        NodeState { role, reign: node.machine().counters().grants, ..NodeState::default() }
    }

    fn tally(&self) -> Tally {
        let mut rare = self.rare;
        rare += self.holders.rare;
        Tally { decided: self.holders.grants, client_ops: self.holders.grants, rare }
    }
}

/// The rare paths that a long sweep must have taken.
pub const EXPECTED: &[Rare] = &[
    Rare::LeaseHandedOver,
    Rare::LeaseHolderCrashed,
    Rare::StaleTokenRefused,
    Rare::StaleSender,
    Rare::StaleReceiver,
];
