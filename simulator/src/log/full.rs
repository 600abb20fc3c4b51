//! Level `replica`: the full replica with sessions, forwarding, reads and a state machine.

use std::time::Duration;

use synod_core::{
    Compacted, Envelope, GroupId, Inbound, Instant, LoadId, Loaded, LogIndex, Machine, Membership, NodeId,
    Packet, Recovered, Start, WriteId,
};
use synod_replica::{
    Actions, ClientCall, KeptSnapshots, Replica, ReplicaConfig, ReplicaEvent, SnapshotConfig, SnapshotDone,
    SnapshotJob, SnapshotKeeper,
};

use super::bare::{count_host, describe};
use super::clients::Clients;
use super::operator::Operator;
use super::quorums::least_with_both;
use super::{LogAdapter, Registers, Watch, membership};
use crate::clock::Time;
use crate::disk::Disk;
use crate::hash::mix;
use crate::observer::bounds::{self, Progress};
use crate::observer::{Checked, LogObserver, Violation, violation, wire};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::{Chance, Rng};
use crate::shelf::Shelf;
use crate::subject::{Agenda, Moment, NodeState, NodeView, Output, Subject, Tally};

/// A cluster of full replicas.
pub struct Full<A: LogAdapter> {
    membership: Membership,
    config: A::Config,
    bounds: A::Bounds,
    replica_config: ReplicaConfig,
    watch: Watch<A>,
    clients: Clients,
    operator: Operator,
    /// For each node: how many of its applied commands were looked at.
    looked_at: Vec<usize>,
    rare: RareCounts,
    actions: Actions<Message<A>>,
    events: Vec<ReplicaEvent>,
    healed_at: u64,
    /// The stores of snapshots, in a share of the seeds.
    shelves: Vec<Shelf>,
    /// What each node does with its own; ends with its life.
    keepers: Vec<Option<SnapshotKeeper>>,
    /// Where the log on each node's disk ends.
    on_disk: Vec<LogIndex>,
    /// A snapshot that was kept and should not have been.
    ahead: Option<Violation>,
    damages: Chance,
    rng: Rng,
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
        // Of its own, so that the seeds of protocols without snapshots are what they were.
        let mut own = Rng::new(mix(options.seed, SNAPSHOTS));
        let stored = A::SNAPSHOTS && own.below(3) > 0;
        let mut replica_config = replica_config;
        if stored {
            replica_config.snapshots = draw_snapshots(options, &mut own);
        }
        let faulty = stored && !options.faults.is_empty() && own.coin();
        let refuses = if faulty { Chance::percent(own.pick(&[1, 10])) } else { Chance::NEVER };
        let shelf = |_| Shelf::new(Rng::new(own.fork()), refuses);
        let shelves = (0..if stored { options.replicas } else { 0 }).map(shelf).collect();
        Full {
            shelves,
            keepers: (0..options.replicas).map(|_| None).collect(),
            on_disk: vec![LogIndex::ZERO; options.replicas],
            ahead: None,
            damages: if faulty { Chance::percent(20) } else { Chance::NEVER },
            rng: Rng::new(own.fork()),
            config,
            bounds,
            replica_config,
            watch: Watch::new(&membership),
            membership,
            clients: Clients::new(options.clients, options.patience, options.replicas, rng),
            operator: Operator::new::<A>(options),
            looked_at: vec![0; options.replicas],
            rare: RareCounts::default(),
            actions: Actions::default(),
            events: Vec::new(),
            healed_at: 0,
        }
    }

    /// Looks at what a node applied since the last time.
    fn absorb(&mut self, at_node: usize, node: &Node<A>) -> Checked {
        let state = node.state_machine();
        let (applied, skipped) = (state.applied(), state.skipped() as usize);
        if self.looked_at[at_node] < skipped {
            self.looked_at[at_node] = skipped;
            if applied.is_empty() {
                self.clients.once.restored(at_node, state.skipped(), state.chain())?;
            }
        }
        let from = self.looked_at[at_node] - skipped;
        if from == applied.len() {
            return Ok(());
        }
        self.looked_at[at_node] = skipped + applied.len();
        let watched = self.watch.lock();
        for (position, command) in applied.iter().enumerate().skip(from) {
            watched.observer.decisions().applied(at_node, command.index.0, command.entry)?;
            self.clients.once.applied(
                at_node,
                (skipped + position) as u64,
                command.index.0,
                command.chain,
                command.request,
                command.op,
            )?;
        }
        Ok(())
    }

    /// A life begins: what its store kept.
    fn recover_snapshots(&mut self, node: usize) -> Result<Option<KeptSnapshots>, Violation> {
        let Some(shelf) = self.shelves.get(node) else { return Ok(None) };
        let mut keeper = SnapshotKeeper::new(Box::new(shelf.clone()));
        let kept = keeper.recover().map_err(|error| violation("SN1", format!("n{}: {error}", node + 1)))?;
        self.keepers[node] = Some(keeper);
        if shelf.newest() > LogIndex::ZERO {
            self.rare[Rare::SnapshotStarted] += 1;
            self.rare[Rare::SnapshotFellBack] += u64::from(!kept.damaged.is_empty());
        }
        Ok(Some(kept))
    }

    /// SN1: what a log does not hold any more, a snapshot of its node does.
    fn check_compaction(&self, node: usize, disk: &Disk) -> Checked {
        let newest = self.shelves.get(node).map_or(LogIndex::ZERO, Shelf::newest);
        let compacted = disk.compacted();
        if compacted <= newest {
            return Ok(());
        }
        let what = format!("n{}: the log begins after {compacted}, its snapshots end at {newest}", node + 1);
        Err(violation("SN1", what))
    }

    fn count(&mut self, node: &Node<A>) {
        let counters = node.counters();
        count_host(&mut self.rare, counters.host);
        self.rare[Rare::DuplicateDropped] += counters.duplicates;
        self.rare[Rare::ExpiredDropped] += counters.expired;
        self.rare[Rare::OutOfOrder] += counters.out_of_order;
        self.rare[Rare::BeyondWindow] += counters.beyond_window;
        self.rare[Rare::Forwarded] += counters.forwarded_out;
        self.rare[Rare::SnapshotTaken] += counters.snapshots.taken;
        self.rare[Rare::SnapshotInstalled] += counters.snapshots.installed;
        self.rare[Rare::SnapshotDiscarded] += counters.snapshots.discarded;
        A::count(node.protocol(), &mut self.rare);
    }
}

/// Small enough that every bound is met, and long transfers are.
fn draw_snapshots(options: &Options, rng: &mut Rng) -> SnapshotConfig {
    let patience = Duration::from_nanos(options.patience);
    SnapshotConfig {
        entries_max: rng.pick(&[3, 10, 40, 200]),
        bytes_max: rng.pick(&[300, 1 << 20]),
        age_max: patience * rng.pick(&[3, 1_000]),
        chunk_bytes: rng.pick(&[64, 500, 1 << 16]),
        resend_after: patience / rng.pick(&[2, 8]),
        tries_max: rng.pick(&[2, 6]),
    }
}

/// Sets what is drawn for snapshots apart.
const SNAPSHOTS: u64 = 0x5A;

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
        let kept = self.recover_snapshots(moment.node)?;
        let mut replica =
            Replica::open(start, GroupId(0), self.replica_config.clone(), Registers::default(), kept)
                .map_err(|error| violation("ST1", format!("n{} does not open: {error}", moment.node + 1)))?;
        self.watch.opened(moment.node, &recovered, replica.protocol())?;
        replica.set_probe(self.watch.probe(moment.node));
        let state = replica.state_machine();
        self.clients.once.restored(moment.node, state.skipped(), state.chain())?;
        self.looked_at[moment.node] = state.skipped() as usize;
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

    fn keep(&mut self, node: usize, job: SnapshotJob) -> Option<SnapshotDone> {
        let done = self.keepers[node].as_mut()?.run(job);
        let (own, last) = (self.shelves[node].newest_of(NodeId(node as u64 + 1)), self.on_disk[node]);
        if own > last {
            let what = format!("n{} keeps a snapshot through {own}, and its log ends at {last}", node + 1);
            self.ahead = Some(violation("SN3", what));
        }
        Some(done)
    }

    fn kept(&mut self, moment: Moment, node: &mut Node<A>, done: SnapshotDone) {
        node.snapshot_done(moment.now, done);
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
        output.jobs.append(&mut self.actions.snapshots);
        self.watch.verdict()?;
        self.absorb(moment.node, node)?;
        if self.events.is_empty() {
            return self.clients.once.flushed();
        }
        let leads = self.watch.lock().observer.leader() == Some(moment.node);
        let applied = self.looked_at[moment.node] as u64;
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            if let ReplicaEvent::Transferred { token, result } = &event {
                self.operator.answered(moment.node, *token, result)?;
            }
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
        self.on_disk[node] = disk.last_index();
        self.watch.durable(node, through, disk)?;
        self.check_compaction(node, disk)
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
        self.keepers[node] = None;
        self.operator.crashed(node);
        self.clients.crashed(at, node, agenda)?;
        self.on_disk[node] = disk.last_index();
        self.watch.crashed(node, kept, disk)?;
        self.check_compaction(node, disk)?;
        if !self.shelves.is_empty()
            && self.rng.chance(self.damages)
            && self.shelves[node].damage(disk.compacted())
        {
            self.rare[Rare::SnapshotDamaged] += 1;
        }
        Ok(())
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
        let mut calls = self.clients.wake(at, client, nodes, rng, agenda);
        calls.extend(self.operator.call(at, nodes));
        calls
    }

    fn check(&mut self, moment: Moment, node: &Node<A>) -> Checked {
        if let Some(violation) = self.ahead.take() {
            return Err(violation);
        }
        let status = node.status();
        let last = self.watch.lock().observer.last_index(moment.node);
        let progress = Progress { applied: status.applied.0, decided: status.protocol.decided.0, last };
        bounds::check(moment.node, progress)?;
        bounds::held(moment.node, node.held_messages(), self.replica_config.held_messages_max)?;
        self.clients.check_deadlines(moment.node, moment.now)?;
        A::check_protocol(moment.node, node.protocol())
    }

    fn quorum_len(&self, _: usize) -> usize {
        least_with_both(&self.membership)
    }

    fn leader(&self) -> Option<usize> {
        self.watch.lock().observer.leader()
    }

    fn heal(&mut self, at: Time, core: &[usize], rng: &mut Rng, agenda: &mut Agenda) {
        self.healed_at = self.watch.lock().observer.decisions().through();
        self.damages = Chance::NEVER;
        self.shelves.iter().for_each(Shelf::calm);
        self.operator.heal();
        self.clients.heal(at, core, rng, agenda);
    }

    fn is_healed(&self, core: &[(usize, &Node<A>)]) -> bool {
        let nodes: Vec<usize> = core.iter().map(|(node, _)| *node).collect();
        self.clients.is_healed(&nodes)
            && self.operator.is_content(|node| nodes.contains(&node))
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
        rare[Rare::SnapshotRefused] += self.shelves.iter().map(Shelf::refused).sum::<u64>();
        rare += self.clients.rare;
        rare += self.operator.rare;
        rare += watched.observer.rare();
        Tally { decided: watched.observer.decisions().through(), client_ops: self.clients.ended, rare }
    }
}
