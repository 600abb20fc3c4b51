//! Level `protocol`: a bare log protocol on its host. No sessions, no state machine; the simulator proposes,
//! and what the protocol calls decided is held against what is.

use std::collections::BTreeMap;

use bytes::Bytes;
use synod_core::{
    ClientId, Command, Compacted, Envelope, GroupId, Inbound, Input, Instant, Kind, LoadId, Loaded, LogCall,
    LogEvent, Machine, Membership, NodeId, Protocol, ReadId, ReadMode, Recovered, RequestId, Role, Sequence,
    Start, WriteId,
};
use synod_replica::{Actions, Host};

use super::operator::{Operator, Wish};
use super::quorums::least_with_both;
use super::{LogAdapter, Watch, membership};
use crate::clock::Time;
use crate::disk::Disk;
use crate::observer::read_index::ReadIndexes;
use crate::observer::{Checked, LogObserver, Violation, bounds, violation, wire};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::{Chance, Rng};
use crate::subject::{Agenda, Moment, NodeState, NodeView, Output, Subject, Tally};

/// A cluster of bare protocols.
pub struct Bare<A: LogAdapter> {
    membership: Membership,
    config: A::Config,
    bounds: A::Bounds,
    think_mean: Time,
    patience: Time,
    reads: Chance,
    lease_reads: Chance,
    tail_bytes_max: usize,
    held_messages_max: usize,
    watch: Watch<A>,
    read_indexes: ReadIndexes,
    /// The reads under way: where, and the least index that may answer.
    open_reads: BTreeMap<ReadId, (usize, u64)>,
    sequences: Vec<u64>,
    operator: Operator,
    reads_asked: u64,
    client_ops: u64,
    rare: RareCounts,
    others: Vec<(NodeId, synod_core::Packet<Message<A>>)>,
    actions: Actions<Message<A>>,
    events: Vec<LogEvent>,
    healing: Option<Healing>,
}

type Message<A> = <<A as LogAdapter>::Protocol as Machine>::Message;

struct Healing {
    /// Everything through here must be decided at every core node.
    through: u64,
    /// Reads through this one must have ended.
    reads: u64,
}

/// What a client of a bare protocol asks.
#[derive(Clone, Debug)]
pub enum BareCall {
    /// Order these.
    Propose(Vec<Command>),
    /// Tell an index to read at.
    Read(ReadId, ReadMode),
    /// Hand the leadership over.
    Transfer(Option<NodeId>),
}

/// Entries decided after faults ended, before a cluster counts as healed: more than elections leave by themselves.
const HEALED_ENTRIES: u64 = 20;

impl<A: LogAdapter> Bare<A> {
    /// The cluster of a seed.
    pub fn new(options: &Options, rng: &mut Rng) -> Bare<A> {
        let membership = membership::<A>(options, rng);
        let (config, bounds) = A::config(options, rng);
        Bare {
            config,
            bounds,
            think_mean: options.clients.think_mean,
            patience: options.patience,
            reads: options.clients.reads,
            lease_reads: options.clients.lease_reads,
            tail_bytes_max: options.node.tail_bytes_max,
            held_messages_max: options.node.held_messages_max,
            watch: Watch::new(&membership),
            membership,
            read_indexes: ReadIndexes::default(),
            open_reads: BTreeMap::new(),
            sequences: vec![0; options.clients.clients as usize],
            operator: Operator::new::<A>(options),
            reads_asked: 0,
            client_ops: 0,
            rare: RareCounts::default(),
            others: Vec::new(),
            actions: Actions::default(),
            events: Vec::new(),
            healing: None,
        }
    }

    fn on_event(&mut self, moment: Moment, event: LogEvent) -> Checked {
        match event {
            LogEvent::Decided(index) => {
                self.client_ops += 1;
                self.read_indexes.acknowledge(index.0);
            }
            LogEvent::ReadReady { id, index } => {
                let Some((node, floor)) = self.open_reads.remove(&id) else {
                    return Err(violation(
                        "RI11",
                        format!("n{}: {id} answered, and nobody asks it", moment.node + 1),
                    ));
                };
                self.rare[Rare::ReadConfirmed] += 1;
                self.client_ops += 1;
                ReadIndexes::answered(node, index.0, floor)?;
            }
            LogEvent::ReadFailed { id, .. } => {
                self.open_reads.remove(&id);
                self.rare[Rare::ReadFailed] += 1;
            }
            LogEvent::TransferFailed { .. } => self.rare[Rare::TransferFailed] += 1,
            LogEvent::Refused { .. } => self.rare[Rare::Refused] += 1,
            LogEvent::SendSnapshot { .. } | LogEvent::DiscardSnapshot(_) => {
                let what = format!("n{}: {event:?}, and nothing was compacted", moment.node + 1);
                return Err(violation("bound", what));
            }
            LogEvent::Role(_) => {}
        }
        Ok(())
    }
}

impl<A: LogAdapter> Subject for Bare<A> {
    type Message = Message<A>;
    type Node = Host<A::Protocol>;
    type Call = BareCall;

    fn open(&mut self, moment: Moment, recovered: Recovered, seed: u64) -> Result<Self::Node, Violation> {
        let start = Start {
            node: NodeId(moment.node as u64 + 1),
            membership: self.membership.clone(),
            config: self.config.clone(),
            recovered: recovered.clone(),
            now: moment.now,
            seed,
        };
        let mut host = Host::open(start, GroupId(0), self.tail_bytes_max)
            .map_err(|error| violation("ST1", format!("n{} does not open: {error}", moment.node + 1)))?;
        self.watch.opened(moment.node, &recovered, host.machine())?;
        host.hold_at_most(self.held_messages_max);
        host.set_probe(self.watch.probe(moment.node));
        Ok(host)
    }

    fn receive(&mut self, moment: Moment, node: &mut Self::Node, inbound: Inbound<Self::Message>) {
        node.receive(moment.now, inbound, &mut self.others);
        self.others.clear();
    }

    fn persisted(&mut self, moment: Moment, node: &mut Self::Node, through: WriteId) {
        node.persisted(moment.now, through);
    }

    fn loaded(&mut self, _: Moment, node: &mut Self::Node, id: LoadId, result: Result<Loaded, Compacted>) {
        node.loaded(id, result);
    }

    fn call(&mut self, moment: Moment, node: &mut Self::Node, call: BareCall) {
        let call = match call {
            BareCall::Propose(commands) => LogCall::Propose(commands),
            BareCall::Read(id, mode) => LogCall::Read { id, mode },
            BareCall::Transfer(to) => LogCall::Transfer { to },
        };
        node.step(moment.now, Input::Call(call));
    }

    fn tick(&mut self, moment: Moment, node: &mut Self::Node) {
        node.step(moment.now, Input::Tick);
    }

    fn settle(&mut self, moment: Moment, node: &mut Self::Node, output: &mut Output<Self::Message>) {
        node.settle(moment.now, &mut self.actions);
        output.writes.append(&mut self.actions.writes);
    }

    fn flush(
        &mut self,
        moment: Moment,
        node: &mut Self::Node,
        output: &mut Output<Self::Message>,
        _: &mut Agenda,
    ) -> Checked {
        node.sort(moment.now, &mut self.actions, &mut self.events);
        node.finish(&mut self.actions);
        output.writes.append(&mut self.actions.writes);
        std::mem::swap(&mut output.envelopes, &mut self.actions.envelopes);
        std::mem::swap(&mut output.loads, &mut self.actions.loads);
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.on_event(moment, event)?;
        }
        self.events = events;
        Ok(())
    }

    fn has_work(&self, node: &Self::Node) -> bool {
        node.has_work()
    }

    fn next_deadline(&self, node: &Self::Node) -> Option<Instant> {
        node.next_deadline()
    }

    fn durable(&mut self, node: usize, through: WriteId, disk: &Disk) -> Checked {
        self.watch.durable(node, through, disk)
    }

    fn crashed(
        &mut self,
        _: Time,
        node: usize,
        last: &Self::Node,
        kept: WriteId,
        disk: &Disk,
        _: &mut Agenda,
    ) -> Checked {
        count_host(&mut self.rare, last.counters());
        A::count(last.machine(), &mut self.rare);
        self.open_reads.retain(|_, (at, _)| *at != node);
        self.watch.crashed(node, kept, disk)
    }

    fn sent(&mut self, node: usize, to: usize, envelope: &Envelope<Self::Message>) -> Checked {
        self.watch.sent(&self.bounds, node, to, envelope)
    }

    fn encoded(
        &self,
        node: usize,
        envelope: Envelope<Self::Message>,
    ) -> Result<Envelope<Self::Message>, Violation> {
        wire::round_trip(node, &envelope)
    }

    fn fingerprint(message: &Self::Message) -> u64 {
        A::fingerprint(message)
    }

    fn describe_call(client: u32, call: &BareCall) -> String {
        match call {
            BareCall::Propose(commands) => {
                let names: Vec<String> = commands.iter().map(|command| command.request.to_string()).collect();
                format!("client {client} proposes {}", names.join(" "))
            }
            BareCall::Read(id, mode) => format!("client {client} reads {id} by {mode:?}"),
            BareCall::Transfer(to) => format!("the leadership is to go to {to:?}"),
        }
    }

    fn wake(
        &mut self,
        at: Time,
        client: u32,
        nodes: &[NodeView],
        rng: &mut Rng,
        agenda: &mut Agenda,
    ) -> Vec<(usize, BareCall)> {
        if let Some(Wish { node, to }) = self.operator.wake(at, nodes) {
            agenda.wakes.push((at + 1, client));
            return vec![(node, BareCall::Transfer(to))];
        }
        let leader = self.leader();
        // Without a leader there is little to ask for.
        let rest = if leader.is_none() { self.patience / 8 } else { 0 };
        agenda.wakes.push((at + rest + rng.exponential(self.think_mean) + 1, client));
        let leader = leader.filter(|_| !A::PROPOSERS_ANY && rng.below(16) > 0);
        let somebody = rng.index(nodes.len());
        let node = leader.unwrap_or_else(|| {
            // Often somebody who still says that it leads.
            let mut around = (0..nodes.len()).map(|step| (somebody + step) % nodes.len());
            around.find(|node| nodes[*node].leads && rng.coin()).unwrap_or(somebody)
        });
        if !nodes[node].up || !nodes[node].open {
            return Vec::new();
        }
        if rng.chance(self.reads) {
            let leased = self.lease_reads != Chance::NEVER && rng.chance(self.lease_reads);
            let mode = if leased { ReadMode::Lease } else { ReadMode::Barrier };
            // Often from somebody who says that it leads, and perhaps does no more.
            let leads = |at: &usize| nodes[*at].leads && nodes[*at].up && nodes[*at].open;
            let leading: Vec<usize> = (0..nodes.len()).filter(leads).collect();
            let node = if leased && !leading.is_empty() && rng.coin() { rng.pick(&leading) } else { node };
            self.reads_asked += 1;
            let id = ReadId(self.reads_asked);
            self.open_reads.insert(id, (node, self.read_indexes.begin()));
            return vec![(node, BareCall::Read(id, mode))];
        }
        let commands = (0..=rng.exponential(2).min(15))
            .map(|_| {
                let sequence = &mut self.sequences[client as usize];
                *sequence += 1;
                let request = RequestId {
                    client: ClientId(u64::from(client) + 1),
                    sequence: Sequence(*sequence),
                    first_incomplete: Sequence(1),
                };
                Command {
                    kind: Kind::Command,
                    request,
                    payload: Bytes::from_static(&FILLING[..rng.index(24)]),
                }
            })
            .collect();
        vec![(node, BareCall::Propose(commands))]
    }

    fn check(&mut self, moment: Moment, node: &Self::Node) -> Checked {
        self.watch.verdict()?;
        bounds::held(moment.node, node.held_messages(), self.held_messages_max)?;
        A::check_protocol(moment.node, node.machine())
    }

    fn quorum_len(&self, _: usize) -> usize {
        least_with_both(&self.membership)
    }

    fn leader(&self) -> Option<usize> {
        self.watch.lock().observer.leader()
    }

    fn heal(&mut self, at: Time, _: &[usize], _: &mut Rng, agenda: &mut Agenda) {
        let through = self.watch.lock().observer.decisions().through() + HEALED_ENTRIES;
        self.operator.heal();
        self.healing = Some(Healing { through, reads: self.reads_asked });
        let clients = self.sequences.len() as u32;
        // Often enough that there is something to decide.
        self.think_mean = 5 * crate::clock::MILLISECOND;
        agenda.wakes.push((at, clients.saturating_sub(1)));
    }

    fn is_healed(&self, core: &[(usize, &Self::Node)]) -> bool {
        let Some(healing) = &self.healing else { return false };
        core.iter().all(|(_, node)| node.machine().status().decided.0 >= healing.through)
            && !self
                .open_reads
                .iter()
                .any(|(id, (node, _))| id.0 <= healing.reads && core.iter().any(|(member, _)| member == node))
    }

    fn missing(&self, core: &[(usize, &Self::Node)]) -> String {
        let wanted = self.healing.as_ref().map_or(0, |healing| healing.through);
        let stand: Vec<String> = core
            .iter()
            .map(|(at, node)| {
                let status = node.machine().status();
                format!("n{} {} of {} decided {}", at + 1, status.role, status.reign, status.decided)
            })
            .collect();
        format!(
            "{} should all have decided {wanted}, {} reads are open",
            stand.join(", "),
            self.open_reads.len()
        )
    }

    fn finish(&mut self, core: &[(usize, &Self::Node)]) -> Checked {
        for (_, node) in core {
            count_host(&mut self.rare, node.counters());
            A::count(node.machine(), &mut self.rare);
        }
        self.watch.verdict()
    }

    fn describe(&self, node: &Self::Node) -> NodeState {
        describe(&node.machine().status(), 0)
    }

    fn tally(&self) -> Tally {
        let watched = self.watch.lock();
        let mut rare = self.rare;
        rare += watched.observer.rare();
        Tally { decided: watched.observer.decisions().through(), client_ops: self.client_ops, rare }
    }
}

pub(super) fn describe(status: &synod_core::Status, applied: u64) -> NodeState {
    let role = match status.role {
        Role::Leader => "leader",
        Role::Candidate => "candidate",
        Role::Follower => "follower",
    };
    NodeState { role, reign: status.reign.number, decided: status.decided.0, applied }
}

pub(crate) fn count_host(rare: &mut RareCounts, counters: synod_replica::HostCounters) {
    rare[Rare::StaleSender] += counters.stale_sender;
    rare[Rare::StaleReceiver] += counters.stale_receiver;
    rare[Rare::Held] += counters.held;
    rare[Rare::HeldTooMany] += counters.held_too_many;
    rare[Rare::LoadedFromTail] += counters.loads_from_tail;
    rare[Rare::LoadedFromStorage] += counters.loads_from_storage;
}

static FILLING: [u8; 24] = [0x5A; 24];
