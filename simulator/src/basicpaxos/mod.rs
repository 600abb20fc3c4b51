//! Basic Paxos: the proposer, the acceptor and the learner of `synod-multipaxos` under the whole world. Several propose
//! different values for one decree at the same time, acceptors crash and come back with what was durable, letters are
//! lost, repeated and reordered; half of the seeds have flexible quorums.
//!
//! A run decides many decrees, one after the other and now and then an old one again: everything about each of them
//! happens early, so one decree a seed would test next to nothing.
//!
//! What must hold is in [`ledger`]: M1 to M6, PX5, P1b and RI9, worked out from durable votes; and once faults are over,
//! whoever asks learns what is chosen (`liveness`).

pub mod ledger;
pub mod process;

use std::time::Duration;

use synod_core::{
    Compacted, Envelope, GroupId, Inbound, Input, Instant, LoadId, Loaded, Member, Membership, NodeId,
    Packet, QuorumSystem, Recovered, SessionLimits, Start, WriteId,
};
use synod_replica::{Actions, Host};

use self::ledger::Ledger;
use self::process::{Ask, Body, Decree, Learned, Letter, Process, ProcessConfig, Value};
use crate::clock::{MILLISECOND, Time};
use crate::disk::Disk;
use crate::hash::mix;
use crate::log::count_host;
use crate::log::quorums::least_with_both;
use crate::multipaxos::flexible;
use crate::observer::{Checked, Violation, violation};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::Rng;
use crate::subject::{Agenda, Moment, NodeState, NodeView, Output, Subject, Tally};

/// A cluster that decides decrees.
#[derive(Debug)]
pub struct Synod {
    membership: Membership,
    config: ProcessConfig,
    held_messages_max: usize,
    think_mean: Time,
    ledger: Ledger,
    /// The last decree that anybody was asked about.
    newest: Decree,
    wishes: u64,
    learned: u64,
    /// Who spoke in the last new ballot: what faults are aimed at.
    proposer: Option<usize>,
    rare: RareCounts,
    others: Vec<(NodeId, Packet<Letter>)>,
    actions: Actions<Letter>,
    events: Vec<Learned>,
    /// What the first half of a flush showed, until the second.
    broken: Option<Violation>,
    /// Once faults are over: what everybody who goes on must learn.
    healing: Option<(Decree, Vec<usize>)>,
}

impl Synod {
    /// The cluster of a seed.
    ///
    /// # Panics
    /// If there is no node.
    #[must_use]
    pub fn new(options: &Options, rng: &mut Rng) -> Synod {
        let ids: Vec<NodeId> = (1..=options.replicas as u64).map(NodeId).collect();
        let quorums =
            if rng.coin() { flexible(&ids, rng) } else { QuorumSystem::majority(ids.iter().copied()) };
        let members = ids.into_iter().map(|id| Member { id, address: String::new() }).collect();
        let membership =
            Membership::new(members, quorums, SessionLimits::default()).expect("the quorums are valid");
        Synod {
            ledger: Ledger::new(&membership),
            membership,
            config: ProcessConfig { retry: Duration::from_nanos(retry_of(options) * rng.between(1, 4)) },
            held_messages_max: options.node.held_messages_max,
            think_mean: options.clients.think_mean.max(retry_of(options) / 4),
            newest: Decree(1),
            wishes: 0,
            learned: 0,
            proposer: None,
            rare: RareCounts::default(),
            others: Vec::new(),
            actions: Actions::default(),
            events: Vec::new(),
            broken: None,
            healing: None,
        }
    }

    fn record(&mut self, node: usize, output: &mut Output<Letter>) -> Checked {
        for unit in &self.actions.writes {
            self.ledger.asked(node, unit)?;
        }
        output.writes.append(&mut self.actions.writes);
        Ok(())
    }

    fn count(&mut self, node: &Host<Process>) {
        count_host(&mut self.rare, node.counters());
        self.rare[Rare::Preempted] += node.machine().preempted;
        self.rare[Rare::ProposedAgain] += node.machine().proposed_again;
    }

    /// Mostly the newest decree, or the next one once it is chosen; sometimes an old one again.
    fn draw_decree(&mut self, rng: &mut Rng) -> Decree {
        if let Some((decree, _)) = &self.healing {
            return *decree;
        }
        // At most two are open at a time: more would only wait for each other's writes.
        let before = Decree(self.newest.0 - 1);
        let settled = before == Decree(0) || self.ledger.is_chosen(before);
        if (self.ledger.is_chosen(self.newest) && rng.coin()) || (settled && rng.below(32) == 0) {
            self.newest.0 += 1;
        }
        match rng.below(8) {
            0 => Decree(rng.between(1, self.newest.0)),
            1 => Decree(self.newest.0.saturating_sub(1).max(1)),
            _ => self.newest,
        }
    }
}

impl Subject for Synod {
    type Message = Letter;
    type Node = Host<Process>;
    type Call = Ask;

    fn open(&mut self, moment: Moment, recovered: Recovered, seed: u64) -> Result<Host<Process>, Violation> {
        let life = recovered.incarnation.0;
        let start = Start {
            node: NodeId(moment.node as u64 + 1),
            membership: self.membership.clone(),
            config: self.config,
            recovered,
            now: moment.now,
            seed,
        };
        let mut host = Host::open(start, GroupId(0), 0)
            .map_err(|error| violation("ST1", format!("n{} does not open: {error}", moment.node + 1)))?;
        host.hold_at_most(self.held_messages_max);
        self.ledger.opened(moment.node, life, host.machine())?;
        Ok(host)
    }

    fn receive(&mut self, moment: Moment, node: &mut Host<Process>, inbound: Inbound<Letter>) {
        node.receive(moment.now, inbound, &mut self.others);
    }

    fn persisted(&mut self, moment: Moment, node: &mut Host<Process>, through: WriteId) {
        node.persisted(moment.now, through);
    }

    fn loaded(&mut self, _: Moment, node: &mut Host<Process>, id: LoadId, result: Result<Loaded, Compacted>) {
        node.loaded(id, result);
    }

    fn call(&mut self, moment: Moment, node: &mut Host<Process>, call: Ask) {
        node.step(moment.now, Input::Call(call));
    }

    fn tick(&mut self, moment: Moment, node: &mut Host<Process>) {
        node.step(moment.now, Input::Tick);
    }

    fn settle(&mut self, moment: Moment, node: &mut Host<Process>, output: &mut Output<Letter>) {
        node.settle(moment.now, &mut self.actions);
        let recorded = self.record(moment.node, output);
        self.broken = self.broken.take().or(recorded.err());
    }

    fn flush(
        &mut self,
        moment: Moment,
        node: &mut Host<Process>,
        output: &mut Output<Letter>,
        agenda: &mut Agenda,
    ) -> Checked {
        self.broken.take().map_or(Ok(()), Err)?;
        node.sort(moment.now, &mut self.actions, &mut self.events);
        node.finish(&mut self.actions);
        self.record(moment.node, output)?;
        std::mem::swap(&mut output.envelopes, &mut self.actions.envelopes);
        std::mem::swap(&mut output.loads, &mut self.actions.loads);
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            agenda.note(moment.node, || format!("{event:?}"));
            self.learned += 1;
            self.ledger.learned(moment.node, event)?;
        }
        self.events = events;
        Ok(())
    }

    fn has_work(&self, node: &Host<Process>) -> bool {
        node.has_work()
    }

    fn next_deadline(&self, node: &Host<Process>) -> Option<Instant> {
        node.next_deadline()
    }

    fn durable(&mut self, node: usize, through: WriteId, _: &Disk) -> Checked {
        self.ledger.durable(node, through)
    }

    fn crashed(
        &mut self,
        _: Time,
        node: usize,
        last: &Host<Process>,
        kept: WriteId,
        _: &Disk,
        _: &mut Agenda,
    ) -> Checked {
        self.count(last);
        self.ledger.crashed(node, kept)
    }

    fn sent(&mut self, node: usize, _: usize, envelope: &Envelope<Letter>) -> Checked {
        for packet in &envelope.packets {
            if let Packet::Protocol(letter) = packet {
                if matches!(letter.body, Body::Prepare(_)) {
                    self.proposer = Some(node);
                }
                self.ledger.sent(node, letter)?;
            }
        }
        Ok(())
    }

    fn fingerprint(message: &Letter) -> u64 {
        let (kind, ballot, value) = match &message.body {
            Body::Prepare(prepare) => (1, prepare.ballot, 0),
            Body::Promise(promise) => {
                (2, promise.ballot, promise.vote.as_ref().map_or(0, |vote| vote.value.0))
            }
            Body::Accept(accept) => (3, accept.ballot, accept.value.0),
            Body::Accepted(accepted) => (4, accepted.vote.ballot, accepted.vote.value.0),
            Body::Rejected(rejected) => (5, rejected.ballot, rejected.promised.round),
        };
        mix(mix(kind ^ ballot.round << 8 ^ ballot.node.0 << 40, message.decree.0), value)
    }

    fn describe_call(client: u32, ask: &Ask) -> String {
        format!("client {client} wishes for {} in decree {}", ask.value.0, ask.decree.0)
    }

    fn wake(
        &mut self,
        at: Time,
        client: u32,
        nodes: &[NodeView],
        rng: &mut Rng,
        agenda: &mut Agenda,
    ) -> Vec<(usize, Ask)> {
        agenda.wakes.push((at + 1 + rng.exponential(self.think_mean), client));
        let decree = self.draw_decree(rng);
        let mut calls = Vec::new();
        // Often two at once: that is what Paxos is for.
        for _ in 0..rng.between(1, 2) {
            let node = match &self.healing {
                Some((_, core)) => core[rng.index(core.len())],
                None => rng.index(nodes.len()),
            };
            if nodes[node].up && nodes[node].open {
                self.wishes += 1;
                let value = Value(self.wishes);
                self.ledger.wished(decree, value);
                calls.push((node, Ask { decree, value }));
            }
        }
        calls
    }

    fn check(&mut self, _: Moment, _: &Host<Process>) -> Checked {
        Ok(())
    }

    fn quorum_len(&self, _: usize) -> usize {
        least_with_both(&self.membership)
    }

    fn leader(&self) -> Option<usize> {
        self.proposer
    }

    fn heal(&mut self, _: Time, core: &[usize], _: &mut Rng, _: &mut Agenda) {
        self.newest.0 += 1;
        self.healing = Some((self.newest, core.to_vec()));
        self.think_mean = 5 * MILLISECOND;
    }

    fn is_healed(&self, core: &[(usize, &Host<Process>)]) -> bool {
        let Some((decree, _)) = &self.healing else { return false };
        core.iter()
            .all(|(_, node)| node.machine().chosen(*decree).is_some() && !node.machine().is_proposing())
    }

    fn missing(&self, core: &[(usize, &Host<Process>)]) -> String {
        let nodes: Vec<String> = core
            .iter()
            .map(|(at, node)| {
                let process = node.machine();
                let decree = self.newest;
                format!(
                    "n{} knows {:?} of decree {} and {}",
                    at + 1,
                    process.chosen(decree).map(|value| value.0),
                    decree.0,
                    if process.is_proposing() { "still proposes" } else { "proposes nothing" }
                )
            })
            .collect();
        nodes.join(", ")
    }

    fn finish(&mut self, core: &[(usize, &Host<Process>)]) -> Checked {
        for (_, node) in core {
            self.count(node);
        }
        Ok(())
    }

    fn describe(&self, node: &Host<Process>) -> NodeState {
        let role = if node.machine().is_proposing() { "candidate" } else { "follower" };
        NodeState { role, ..NodeState::default() }
    }

    fn tally(&self) -> Tally {
        Tally { decided: self.ledger.chosen(), client_ops: self.learned, rare: self.rare }
    }
}

/// What phase 1 and phase 2 take, with a write at both ends of each. Who tries again sooner preempts itself and others.
fn retry_of(options: &Options) -> Time {
    let delay = options.weather.delay_min + options.weather.delay_mean;
    let sync = options.disk.sync_min + options.disk.sync_mean;
    4 * (delay + sync)
}

/// The rare paths that a long sweep must have taken.
pub const EXPECTED: &[Rare] =
    &[Rare::Preempted, Rare::ProposedAgain, Rare::Held, Rare::StaleSender, Rare::StaleReceiver];
