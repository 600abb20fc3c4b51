//! Replicated leases: a lease table on a log protocol, its leader's memory of time, and a candidate beside each replica.
//!
//! | invariant | what must hold |
//! |---|---|
//! | LI1, LI2, LI7 | see [`crate::holders`] |
//! | LI6 | once faults are over, somebody holds the name (`liveness`) |
//! | X2 | equal tables at equal applied index |

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    ClockBound, Compacted, Envelope, GroupId, Inbound, Instant, LoadId, Loaded, LogIndex, Machine,
    Membership, NodeId, Recovered, Start, Wire, WriteId,
};
use synod_lease::replicated::{
    Ask, AskId, Candidate, CandidateEvent, LeaseCommand, LeaseId, LeaseTable, NoAnswer,
};
use synod_replica::{
    Actions, ClientCall, Consistency, Replica, ReplicaConfig, ReplicaEvent, SessionKey, SnapshotConfig, Token,
};

use super::bare::{count_host, describe};
use super::quorums::least_with_both;
use super::{LogAdapter, Watch, membership};
use crate::clock::Time;
use crate::disk::Disk;
use crate::hash::mix;
use crate::holders::Holders;
use crate::observer::{Checked, LogObserver, Violation, violation, wire};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::{Chance, Rng};
use crate::subject::{Agenda, Moment, NodeState, NodeView, Output, Subject, Tally};

/// A cluster of replicas with a table of leases, and a candidate for one name on each.
pub struct LeaseTables<A: LogAdapter> {
    membership: Membership,
    config: A::Config,
    bounds: A::Bounds,
    replica_config: ReplicaConfig,
    watch: Watch<A>,
    bound: ClockBound,
    length: Duration,
    retry: Duration,
    think_mean: Time,
    resigns: Chance,
    revokes: Chance,
    holders: Holders,
    /// What the table was, as whoever was first there had it.
    tables: BTreeMap<LogIndex, u64>,
    rare: RareCounts,
    actions: Actions<Message<A>>,
    events: Vec<ReplicaEvent>,
    healing: Option<Vec<usize>>,
    gained: bool,
}

/// A replica, and the candidate that asks it.
pub struct LeaseNode<A: LogAdapter> {
    replica: Replica<A::Protocol, LeaseTable>,
    candidate: Candidate,
    asks: BTreeMap<Token, AskId>,
    tokens: u64,
    applied: LogIndex,
}

/// What a client has a node do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAct {
    /// Have its candidate campaign.
    Campaign,
    /// Have its candidate give up.
    Resign,
    /// Have whatever it sees hold the name come to its end.
    Revoke,
}

type Message<A> = <<A as LogAdapter>::Protocol as Machine>::Message;

/// What all candidates want.
const NAME: Bytes = Bytes::from_static(b"name");

impl<A: LogAdapter> LeaseTables<A> {
    /// The cluster of a seed; it assumes of clocks that they drift by so many parts of a million at most.
    ///
    /// # Panics
    /// If clocks are assumed to be of no use.
    pub fn new(options: &Options, rng: &mut Rng, assumed_ppm: u64, fenced: bool) -> LeaseTables<A> {
        let membership = membership::<A>(options, rng);
        let (config, bounds) = A::config(options, rng);
        LeaseTables {
            config,
            bounds,
            replica_config: ReplicaConfig {
                tail_bytes_max: options.node.tail_bytes_max,
                held_messages_max: options.node.held_messages_max,
                snapshots: SnapshotConfig::default(),
                ..ReplicaConfig::default()
            },
            watch: Watch::new(&membership),
            membership,
            bound: ClockBound::new(assumed_ppm as u32, Duration::ZERO)
                .expect("clocks of the simulation drift by less"),
            length: Duration::from_nanos(options.patience * rng.log_between(2, 16)),
            retry: Duration::from_nanos(options.patience / 8),
            think_mean: options.patience / 2,
            resigns: rng.pick(&[Chance::percent(5), Chance::percent(30)]),
            revokes: rng.pick(&[Chance::NEVER, Chance::percent(5)]),
            holders: Holders::new(options.replicas, fenced, options.patience / 10),
            tables: BTreeMap::new(),
            rare: RareCounts::default(),
            actions: Actions::default(),
            events: Vec::new(),
            healing: None,
            gained: false,
        }
    }

    /// Equal tables at equal index, whoever has them.
    fn compare(&mut self, moment: Moment, node: &mut LeaseNode<A>) -> Checked {
        let applied = node.replica.status().applied;
        if applied == node.applied {
            return Ok(());
        }
        node.applied = applied;
        let table = node.replica.state_machine();
        let holder = table.first(&NAME).map_or(0, |(lease, _)| lease.0.0);
        let digest = table.iter().fold(holder, |hash, (lease, _)| mix(hash, lease.0.0));
        match self.tables.insert(applied, digest) {
            Some(other) if other != digest => {
                let what =
                    format!("n{} has another table at {applied} than another node had", moment.node + 1);
                Err(violation("X2", what))
            }
            _ => Ok(()),
        }
    }

    fn on_event(&mut self, moment: Moment, event: CandidateEvent) -> Checked {
        let node = moment.node;
        match event {
            CandidateEvent::Held { until, token } => {
                self.holders.held(moment, until, token)?;
                let core = self.healing.as_ref().is_some_and(|core| core.contains(&node));
                self.gained |= core && self.holders.believes(node);
            }
            CandidateEvent::Lost => self.holders.lost(node),
        }
        Ok(())
    }
}

impl<A: LogAdapter> LeaseNode<A> {
    fn answered(&mut self, now: Instant, event: ReplicaEvent) {
        let (token, answer) = match event {
            ReplicaEvent::Proposed { token, result } => (token, result.map_err(|_| NoAnswer)),
            ReplicaEvent::Read { token, result } => (token, result.map_err(|_| NoAnswer)),
            _ => return,
        };
        if let Some(ask) = self.asks.remove(&token) {
            self.candidate.answered(now, ask, answer);
        }
    }

    /// Tells the candidate what its replica has applied, and hands on what it asks.
    fn drive(&mut self, now: Instant) {
        if let Some((lease, _)) = self.replica.state_machine().first(&NAME) {
            self.candidate.look(now, lease);
        }
        while let Some(ask) = self.candidate.poll(now) {
            self.tokens += 1;
            let token = Token(self.tokens);
            let (id, call) = match ask {
                Ask::Propose(id, payload, timeout) => (id, propose(token, payload, now + timeout)),
                Ask::Query(id, query, timeout) => {
                    let (consistency, deadline) = (Consistency::Linearizable, now + timeout);
                    (id, ClientCall::Read { token, query, consistency, deadline })
                }
            };
            self.asks.insert(token, id);
            self.replica.call(call);
        }
    }
}

fn propose(token: Token, payload: Bytes, deadline: Instant) -> ClientCall {
    ClientCall::Propose { session: SessionKey::OWN, token, payload, deadline }
}

impl<A: LogAdapter> Subject for LeaseTables<A> {
    type Message = Message<A>;
    type Node = LeaseNode<A>;
    type Call = LeaseAct;

    fn open(&mut self, moment: Moment, recovered: Recovered, seed: u64) -> Result<LeaseNode<A>, Violation> {
        let start = Start {
            node: NodeId(moment.node as u64 + 1),
            membership: self.membership.clone(),
            config: self.config.clone(),
            recovered: recovered.clone(),
            now: moment.now,
            seed,
        };
        let mut replica =
            Replica::open(start, GroupId(0), self.replica_config.clone(), LeaseTable::new(), None)
                .map_err(|error| violation("ST1", format!("n{} does not open: {error}", moment.node + 1)))?;
        self.watch.opened(moment.node, &recovered, replica.protocol())?;
        replica.set_probe(self.watch.probe(moment.node));
        let owner = Bytes::from(format!("n{}", moment.node + 1));
        let candidate = Candidate::new(NAME, owner, self.length, self.retry, self.bound);
        Ok(LeaseNode { replica, candidate, asks: BTreeMap::new(), tokens: 0, applied: LogIndex::ZERO })
    }

    fn receive(&mut self, moment: Moment, node: &mut LeaseNode<A>, inbound: Inbound<Message<A>>) {
        node.replica.receive(moment.now, inbound);
    }

    fn persisted(&mut self, moment: Moment, node: &mut LeaseNode<A>, through: WriteId) {
        node.replica.persisted(moment.now, through);
    }

    fn loaded(&mut self, _: Moment, node: &mut LeaseNode<A>, id: LoadId, result: Result<Loaded, Compacted>) {
        node.replica.loaded(id, result);
    }

    fn call(&mut self, moment: Moment, node: &mut LeaseNode<A>, call: LeaseAct) {
        match call {
            LeaseAct::Campaign => node.candidate.campaign(),
            LeaseAct::Resign => node.candidate.resign(moment.now),
            LeaseAct::Revoke => {
                let first: Option<LeaseId> =
                    node.replica.state_machine().first(&NAME).map(|(lease, _)| lease);
                if let Some(lease) = first {
                    node.tokens += 1;
                    let payload = LeaseCommand::Revoke(lease).to_bytes();
                    node.replica.call(propose(Token(node.tokens), payload, moment.now + self.length));
                }
            }
        }
    }

    fn tick(&mut self, moment: Moment, node: &mut LeaseNode<A>) {
        node.replica.tick(moment.now);
    }

    fn settle(&mut self, moment: Moment, node: &mut LeaseNode<A>, output: &mut Output<Message<A>>) {
        node.drive(moment.now);
        node.replica.settle(moment.now, &mut self.actions);
        output.writes.append(&mut self.actions.writes);
    }

    fn flush(
        &mut self,
        moment: Moment,
        node: &mut LeaseNode<A>,
        output: &mut Output<Message<A>>,
        agenda: &mut Agenda,
    ) -> Checked {
        node.replica.finish(moment.now, &mut self.actions, &mut self.events);
        output.writes.append(&mut self.actions.writes);
        std::mem::swap(&mut output.envelopes, &mut self.actions.envelopes);
        std::mem::swap(&mut output.loads, &mut self.actions.loads);
        self.watch.verdict()?;
        self.compare(moment, node)?;
        for event in std::mem::take(&mut self.events) {
            if let ReplicaEvent::Fatal(error) = event {
                return Err(violation("RI5", format!("n{} cannot go on: {error}", moment.node + 1)));
            }
            node.answered(moment.now, event);
        }
        node.drive(moment.now);
        for event in node.candidate.take_events() {
            agenda.note(moment.node, || format!("{event:?}"));
            self.on_event(moment, event)?;
        }
        Ok(())
    }

    fn has_work(&self, node: &LeaseNode<A>) -> bool {
        node.replica.has_work()
    }

    fn next_deadline(&self, node: &LeaseNode<A>) -> Option<Instant> {
        Instant::earlier(node.replica.next_deadline(), node.candidate.next_deadline())
    }

    fn durable(&mut self, node: usize, through: WriteId, disk: &Disk) -> Checked {
        self.watch.durable(node, through, disk)
    }

    fn crashed(
        &mut self,
        _: Time,
        node: usize,
        last: &LeaseNode<A>,
        kept: WriteId,
        disk: &Disk,
        _: &mut Agenda,
    ) -> Checked {
        count_host(&mut self.rare, last.replica.counters().host);
        A::count(last.replica.protocol(), &mut self.rare);
        self.holders.crashed(node);
        self.watch.crashed(node, kept, disk)
    }

    fn sent(&mut self, node: usize, to: usize, envelope: &Envelope<Message<A>>) -> Checked {
        self.watch.sent(&self.bounds, node, to, envelope)
    }

    fn encoded(
        &self,
        node: usize,
        envelope: Envelope<Self::Message>,
    ) -> Result<Envelope<Self::Message>, Violation> {
        wire::round_trip(node, &envelope)
    }

    fn fingerprint(message: &Message<A>) -> u64 {
        A::fingerprint(message)
    }

    fn describe_call(client: u32, call: &LeaseAct) -> String {
        format!("client {client}: {call:?}")
    }

    fn wake(
        &mut self,
        at: Time,
        client: u32,
        nodes: &[NodeView],
        rng: &mut Rng,
        agenda: &mut Agenda,
    ) -> Vec<(usize, LeaseAct)> {
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
        let call = if self.healing.is_none() && rng.chance(self.resigns) {
            LeaseAct::Resign
        } else if self.healing.is_none() && rng.chance(self.revokes) {
            LeaseAct::Revoke
        } else {
            LeaseAct::Campaign
        };
        vec![(node, call)]
    }

    fn check(&mut self, moment: Moment, node: &LeaseNode<A>) -> Checked {
        A::check_protocol(moment.node, node.replica.protocol())
    }

    fn quorum_len(&self, _: usize) -> usize {
        least_with_both(&self.membership)
    }

    fn leader(&self) -> Option<usize> {
        self.watch.lock().observer.leader()
    }

    fn heal(&mut self, _: Time, core: &[usize], _: &mut Rng, _: &mut Agenda) {
        self.healing = Some(core.to_vec());
    }

    fn is_healed(&self, _: &[(usize, &LeaseNode<A>)]) -> bool {
        self.gained
    }

    fn missing(&self, core: &[(usize, &LeaseNode<A>)]) -> String {
        let nodes: Vec<String> = core
            .iter()
            .map(|(at, node)| {
                let status = node.replica.status();
                let table = node.replica.state_machine();
                format!(
                    "n{} {} of {} applied {} of {}, {} leases, {:?}",
                    at + 1,
                    status.protocol.role,
                    status.protocol.reign,
                    status.applied,
                    status.protocol.decided,
                    table.len(),
                    node.candidate.lease()
                )
            })
            .collect();
        format!("none of them gained the name: {}", nodes.join("; "))
    }

    fn finish(&mut self, core: &[(usize, &LeaseNode<A>)]) -> Checked {
        for (_, node) in core {
            count_host(&mut self.rare, node.replica.counters().host);
            A::count(node.replica.protocol(), &mut self.rare);
        }
        self.watch.verdict()?;
        self.holders.finish()
    }

    fn describe(&self, node: &LeaseNode<A>) -> NodeState {
        let status = node.replica.status();
        describe(&status.protocol, status.applied.0)
    }

    fn tally(&self) -> Tally {
        let watched = self.watch.lock();
        let mut rare = self.rare;
        rare += self.holders.rare;
        rare += watched.observer.rare();
        Tally { decided: watched.observer.decisions().through(), client_ops: self.holders.grants, rare }
    }
}

/// The rare paths that a long sweep must have taken.
pub const EXPECTED: &[Rare] = &[
    Rare::LeaderChanged,
    Rare::LeaseHandedOver,
    Rare::LeaseHolderCrashed,
    Rare::StaleTokenRefused,
    Rare::Held,
    Rare::StaleSender,
    Rare::StaleReceiver,
];
