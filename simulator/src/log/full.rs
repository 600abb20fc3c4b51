//! Level `replica`: the full replica with sessions, forwarding, reads and a state machine.

use synod_core::{
    Compacted, Envelope, GroupId, Inbound, Instant, LoadId, Loaded, Machine, Membership, NodeId, Packet,
    Recovered, Start, WriteId,
};
use synod_replica::{Actions, ClientCall, Replica, ReplicaConfig, ReplicaEvent, SnapshotConfig};

use super::bare::{count_host, describe};
use super::clients::Clients;
use super::{LogAdapter, Registers, Watch, membership, quorum_len};
use crate::clock::Time;
use crate::disk::Disk;
use crate::observer::bounds::{self, Progress};
use crate::observer::{Checked, LogObserver, Violation, violation, wire};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::Rng;
use crate::subject::{Agenda, Moment, NodeState, NodeView, Output, Subject, Tally};

/// A cluster of full replicas.
pub struct Full<A: LogAdapter> {
    membership: Membership,
    config: A::Config,
    bounds: A::Bounds,
    replica_config: ReplicaConfig,
    watch: Watch<A>,
    clients: Clients,
    /// For each node: how many of its applied commands were looked at.
    looked_at: Vec<usize>,
    rare: RareCounts,
    actions: Actions<Message<A>>,
    events: Vec<ReplicaEvent>,
    healed_at: u64,
}

type Message<A> = <<A as LogAdapter>::Protocol as Machine>::Message;
type Node<A> = Replica<<A as LogAdapter>::Protocol, Registers>;

impl<A: LogAdapter> Full<A> {
    /// The cluster of a seed.
    pub fn new(options: &Options, rng: &mut Rng) -> Full<A> {
        let membership = membership::<A>(options, rng);
        let (config, bounds) = A::config(options, rng);
        let replica_config = ReplicaConfig {
            queue_entries_max: options.clients.queue_entries_max,
            queue_bytes_max: 1 << 20,
            command_bytes_max: options.clients.command_bytes_max,
            batch_entries_max: rng.pick(&[1, 3, 64, 4_096]),
            batch_bytes_max: rng.pick(&[1, 500, 4 << 20]),
            apply_entries_max: rng.pick(&[1, 7, 16_384, 16_384]),
            tail_bytes_max: options.node.tail_bytes_max,
            held_messages_max: options.node.held_messages_max,
            snapshots: SnapshotConfig::default(),
        };
        Full {
            config,
            bounds,
            replica_config,
            watch: Watch::new(&membership),
            membership,
            clients: Clients::new(options.clients, options.patience, options.replicas, rng),
            looked_at: vec![0; options.replicas],
            rare: RareCounts::default(),
            actions: Actions::default(),
            events: Vec::new(),
            healed_at: 0,
        }
    }

    /// Looks at what a node applied since the last time.
    fn absorb(&mut self, at_node: usize, node: &Node<A>) -> Checked {
        let applied = node.state_machine().applied();
        let from = self.looked_at[at_node];
        if from == applied.len() {
            return Ok(());
        }
        self.looked_at[at_node] = applied.len();
        let watched = self.watch.lock();
        for (position, command) in applied.iter().enumerate().skip(from) {
            watched.observer.decisions().applied(at_node, command.index.0, command.entry)?;
            self.clients.once.applied(
                at_node,
                position as u64,
                command.index.0,
                command.chain,
                command.request,
                command.op,
            )?;
        }
        Ok(())
    }

    fn count(&mut self, node: &Node<A>) {
        let counters = node.counters();
        count_host(&mut self.rare, counters.host);
        self.rare[Rare::DuplicateDropped] += counters.duplicates;
        self.rare[Rare::ExpiredDropped] += counters.expired;
        self.rare[Rare::OutOfOrder] += counters.out_of_order;
        self.rare[Rare::BeyondWindow] += counters.beyond_window;
        self.rare[Rare::Forwarded] += counters.forwarded_out;
        A::count(node.protocol(), &mut self.rare);
    }
}

impl<A: LogAdapter> Subject for Full<A> {
    type Message = Message<A>;
    type Node = Node<A>;
    type Call = ClientCall;

    fn open(&mut self, moment: Moment, recovered: Recovered, seed: u64) -> Result<Node<A>, Violation> {
        let start = Start {
            node: NodeId(moment.node as u64 + 1),
            membership: self.membership.clone(),
            config: self.config.clone(),
            recovered: recovered.clone(),
            now: moment.now,
            seed,
        };
        let mut replica =
            Replica::open(start, GroupId(0), self.replica_config.clone(), Registers::default(), None)
                .map_err(|error| violation("ST1", format!("n{} does not open: {error}", moment.node + 1)))?;
        self.watch.opened(moment.node, &recovered, replica.protocol())?;
        replica.set_probe(self.watch.probe(moment.node));
        self.looked_at[moment.node] = 0;
        Ok(replica)
    }

    fn receive(&mut self, moment: Moment, node: &mut Node<A>, inbound: Inbound<Message<A>>) {
        node.receive(moment.now, inbound);
    }

    fn persisted(&mut self, moment: Moment, node: &mut Node<A>, through: WriteId) {
        node.persisted(moment.now, through);
    }

    fn loaded(&mut self, _: Moment, node: &mut Node<A>, id: LoadId, result: Result<Loaded, Compacted>) {
        node.loaded(id, result);
    }

    fn call(&mut self, moment: Moment, node: &mut Node<A>, call: ClientCall) {
        self.clients.taken(moment.now, &call);
        node.call(call);
    }

    fn tick(&mut self, moment: Moment, node: &mut Node<A>) {
        node.tick(moment.now);
    }

    fn settle(&mut self, moment: Moment, node: &mut Node<A>, output: &mut Output<Message<A>>) {
        node.settle(moment.now, &mut self.actions);
        output.writes.append(&mut self.actions.writes);
    }

    fn flush(
        &mut self,
        moment: Moment,
        node: &mut Node<A>,
        output: &mut Output<Message<A>>,
        agenda: &mut Agenda,
    ) -> Checked {
        node.finish(moment.now, &mut self.actions, &mut self.events);
        output.writes.append(&mut self.actions.writes);
        std::mem::swap(&mut output.envelopes, &mut self.actions.envelopes);
        std::mem::swap(&mut output.loads, &mut self.actions.loads);
        self.watch.verdict()?;
        self.absorb(moment.node, node)?;
        if self.events.is_empty() {
            return self.clients.once.flushed();
        }
        let leads = self.watch.lock().observer.leader() == Some(moment.node);
        let applied = self.looked_at[moment.node] as u64;
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.clients.on_event(moment.at, moment.node, leads, event, applied, agenda)?;
        }
        self.events = events;
        self.clients.once.flushed()
    }

    fn has_work(&self, node: &Node<A>) -> bool {
        node.has_work()
    }

    fn next_deadline(&self, node: &Node<A>) -> Option<Instant> {
        node.next_deadline()
    }

    fn durable(&mut self, node: usize, through: WriteId, disk: &Disk) -> Checked {
        self.watch.durable(node, through, disk)
    }

    fn crashed(
        &mut self,
        at: Time,
        node: usize,
        last: &Node<A>,
        kept: WriteId,
        disk: &Disk,
        agenda: &mut Agenda,
    ) -> Checked {
        self.count(last);
        self.clients.crashed(at, node, agenda)?;
        self.watch.crashed(node, kept, disk)
    }

    fn sent(&mut self, node: usize, to: usize, envelope: &Envelope<Message<A>>) -> Checked {
        for packet in &envelope.packets {
            if let Packet::Forward(forward) = packet {
                let commands = forward.commands.len() as u64;
                // A batch, and the closing of sessions beside it.
                let commands_max = self.replica_config.batch_entries_max as u64 + 16;
                bounds::bounded("commands forwarded at once", node, commands, commands_max)?;
            }
        }
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

    fn describe_call(client: u32, call: &ClientCall) -> String {
        super::clients::describe_call(client, call)
    }

    fn wake(
        &mut self,
        at: Time,
        client: u32,
        nodes: &[NodeView],
        rng: &mut Rng,
        agenda: &mut Agenda,
    ) -> Vec<(usize, ClientCall)> {
        self.clients.wake(at, client, nodes, rng, agenda)
    }

    fn check(&mut self, moment: Moment, node: &Node<A>) -> Checked {
        let status = node.status();
        let last = self.watch.lock().observer.last_index(moment.node);
        let progress = Progress { applied: status.applied.0, decided: status.protocol.decided.0, last };
        bounds::check(moment.node, progress)?;
        bounds::held(moment.node, node.held_messages(), self.replica_config.held_messages_max)?;
        self.clients.check_deadlines(moment.node, moment.now)?;
        A::check_protocol(moment.node, node.protocol())
    }

    fn quorum_len(&self, nodes: usize) -> usize {
        quorum_len(&self.membership, nodes)
    }

    fn leader(&self) -> Option<usize> {
        self.watch.lock().observer.leader()
    }

    fn heal(&mut self, at: Time, core: &[usize], rng: &mut Rng, agenda: &mut Agenda) {
        self.healed_at = self.watch.lock().observer.decisions().through();
        self.clients.heal(at, core, rng, agenda);
    }

    fn is_healed(&self, core: &[(usize, &Node<A>)]) -> bool {
        let nodes: Vec<usize> = core.iter().map(|(node, _)| *node).collect();
        self.clients.is_healed(&nodes)
            && core.iter().all(|(_, node)| node.status().applied.0 > self.healed_at)
    }

    fn missing(&self, core: &[(usize, &Node<A>)]) -> String {
        let nodes: Vec<usize> = core.iter().map(|(node, _)| *node).collect();
        let stand: Vec<String> = core
            .iter()
            .map(|(at, node)| {
                let status = node.status();
                let (role, reign) = (status.protocol.role, status.protocol.reign);
                format!(
                    "n{} {role} of {reign} applied {} of {}",
                    at + 1,
                    status.applied,
                    status.protocol.decided
                )
            })
            .collect();
        format!("{}; beyond {} at all; {}", stand.join(", "), self.healed_at, self.clients.missing(&nodes))
    }

    fn finish(&mut self, core: &[(usize, &Node<A>)]) -> Checked {
        for (_, node) in core {
            self.count(node);
        }
        self.watch.verdict()?;
        self.clients.check_history()
    }

    fn describe(&self, node: &Node<A>) -> NodeState {
        let status = node.status();
        describe(&status.protocol, status.applied.0)
    }

    fn tally(&self) -> Tally {
        let watched = self.watch.lock();
        let mut rare = self.rare;
        rare += self.clients.rare;
        rare += watched.observer.rare();
        Tally { decided: watched.observer.decisions().through(), client_ops: self.clients.ended, rare }
    }
}
