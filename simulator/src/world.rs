//! One seed: virtual time, the nodes with their disks and clocks, the network, and what goes wrong.

use synod_core::{Compacted, Packet};
use synod_core::{Envelope, Inbound, LoadId, Loaded, NodeId, Write, WriteId};
use synod_replica::{SnapshotDone, SnapshotJob};

use crate::clock::{Clock, MICROSECOND, MILLISECOND, NEVER, SECOND, Time};
use crate::disk::{Disk, OrStopped, Stopped};
use crate::fault::{Fault, FaultCounts};
use crate::hash::mix;
use crate::nemesis;
use crate::network::{CutId, Fate, Network, Weather};
use crate::observer::{Checked, Violation, violation};
use crate::options::Options;
use crate::queue::Queue;
use crate::rare::{Rare, RareCounts};
use crate::rng::{Chance, Rng};
use crate::siege;
use crate::subject::{Agenda, Moment, NodeState, NodeView, Output, Subject, Tally};
use crate::trace::{Kind, Trace, What};

/// One run of one seed.
pub struct World<S: Subject> {
    pub(crate) options: Options,
    pub(crate) subject: S,
    pub(crate) nodes: Vec<Slot<S>>,
    pub(crate) network: Network,
    pub(crate) rng: Rng,
    queue: Queue<Event<S>>,
    pub(crate) at: Time,
    pub(crate) counts: FaultCounts,
    rare: RareCounts,
    agenda: Agenda,
    output: Output<S::Message>,
    views: Vec<NodeView>,
    /// Steps that delivered something.
    events: u64,
    first_leader: Option<u64>,
    hash: u64,
    messages: u64,
    phase: Phase,
    replayed: u64,
    pub(crate) trace: Option<Trace>,
}

/// A node and everything around it.
pub(crate) struct Slot<S: Subject> {
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    /// Boxed, because it is taken out and put back for every event.
    pub(crate) node: Option<Box<S::Node>>,
    /// Counts lives: what was meant for an earlier one is dropped.
    life: u32,
    /// When the timer event that counts will come.
    timer_at: Time,
    /// The store of snapshots is busy until then.
    keep_at: Time,
    /// Inputs were taken since the last flush.
    dirty: bool,
    gathering: bool,
    pub(crate) paused: bool,
    backlog: Vec<Event<S>>,
    shown: NodeState,
}

impl<S: Subject> Slot<S> {
    /// False if its storage refused to start: it stays down.
    fn may_start(&self) -> bool {
        !self.disk.is_refused()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Anything may go wrong.
    Faults,
    /// These nodes must go on: until then, or something is wrong.
    Healing {
        core: Vec<usize>,
        deadline: Time,
    },
    Done,
}

/// What happens at a moment.
pub(crate) enum Event<S: Subject> {
    Deliver { to: u8, from: u8, id: u64, envelope: Envelope<S::Message> },
    Timer { node: u8, life: u32, at: Time },
    Flush { node: u8, life: u32 },
    Synced { node: u8, life: u32 },
    Report { node: u8, life: u32, through: WriteId },
    Read { node: u8, life: u32, load: synod_core::Load },
    Loaded { node: u8, life: u32, id: LoadId, result: Result<Loaded, Compacted> },
    Call { node: u8, life: u32, call: S::Call },
    Keep { node: u8, life: u32, job: SnapshotJob },
    Kept { node: u8, life: u32, done: SnapshotDone },
    Wake { client: u32 },
    Restart { node: u8, life: u32 },
    Resume { node: u8 },
    Mend { cut: CutId },
    Nemesis,
    Adversary,
    Storm { leader: u8, loyal: Vec<u8> },
}

/// How a seed went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Steps that delivered something.
    pub events: u64,
    /// How long it took inside.
    pub simulated: Time,
    /// The hash of every event and effect.
    pub hash: u64,
    /// Faults that happened.
    pub faults: FaultCounts,
    /// What happened, in numbers.
    pub tally: Tally,
    /// What did not hold.
    pub violation: Option<Violation>,
}

impl<S: Subject> World<S> {
    /// A world in which nothing has happened.
    pub fn new(options: Options, subject: S, rng: Rng, trace: bool) -> World<S> {
        let mut rng = rng;
        let replicas = options.replicas;
        let nodes = (0..replicas)
            .map(|node| {
                let drift = options.node.drift_ppm_max as i64;
                let drift = if drift == 0 { 0 } else { rng.between(0, 2 * drift as u64) as i64 - drift };
                Slot {
                    disk: match options.engine {
                        Some(engine) => Disk::of_engine(node, engine, mix(options.seed, node as u64 + 1)),
                        None => Disk::of_model(),
                    },
                    clock: Clock::new(rng.below(SECOND), drift),
                    node: None,
                    life: 0,
                    timer_at: NEVER,
                    keep_at: 0,
                    dirty: false,
                    gathering: false,
                    paused: false,
                    backlog: Vec::new(),
                    shown: NodeState::default(),
                }
            })
            .collect();
        World {
            network: Network::new(replicas, options.weather),
            subject,
            nodes,
            rng,
            queue: Queue::default(),
            at: 0,
            counts: FaultCounts::default(),
            rare: RareCounts::default(),
            agenda: Agenda { wakes: Vec::new(), notes: trace.then(Vec::new) },
            output: Output::default(),
            views: Vec::new(),
            events: 0,
            first_leader: None,
            hash: options.seed,
            messages: 0,
            phase: Phase::Faults,
            replayed: 0,
            trace: trace.then(Trace::default),
            options,
        }
    }

    /// Runs the seed to its end or to the first violation.
    pub fn run(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            let at = self.rng.below(self.options.patience);
            self.queue.push(at, Event::Restart { node: node as u8, life: 0 });
        }
        for client in 0..self.options.clients.clients {
            let at = self.rng.below(self.options.patience * 2);
            self.queue.push(at, Event::Wake { client });
        }
        if !self.options.faults.is_empty() {
            let at = self.rng.exponential(self.options.fault_interval);
            self.queue.push(at, Event::Nemesis);
        }
        if self.options.adversary {
            let at = self.rng.exponential(self.options.adversary_interval);
            self.queue.push(at, Event::Adversary);
        }
        while self.phase != Phase::Done {
            let Some((at, event)) = self.queue.pop() else {
                return Err(violation("liveness", "nothing will ever happen again"));
            };
            self.at = at;
            self.handle(event)?;
            self.step_phase()?;
        }
        Ok(())
    }

    /// What the run amounts to.
    pub fn outcome(&self, violation: Option<Violation>) -> Outcome {
        let mut tally = self.subject.tally();
        tally.rare += self.rare;
        let mut faults = self.counts;
        for slot in &self.nodes {
            faults += slot.disk.faults();
            tally.rare += slot.disk.rare();
        }
        faults[Fault::SnapshotInstall] += tally.rare[Rare::SnapshotInstalled];
        faults[Fault::LeaseRead] += tally.rare[Rare::LeaseRead];
        faults[Fault::Transfer] += tally.rare[Rare::Transferred];
        faults[Fault::SnapshotError] += tally.rare[Rare::SnapshotRefused];
        faults[Fault::SnapshotDamage] += tally.rare[Rare::SnapshotDamaged];
        Outcome {
            seed: self.options.seed,
            events: self.events,
            simulated: self.at,
            hash: self.hash,
            faults,
            tally,
            violation,
        }
    }

    /// Steps so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The trace, if one was wanted.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    fn moment(&self, node: usize) -> Moment {
        Moment { at: self.at, now: self.nodes[node].clock.read(self.at), node }
    }

    fn mark(&mut self, kind: u64, node: usize, detail: u64) {
        self.hash = mix(self.hash ^ (kind << 56 | (node as u64) << 48), mix(self.at, detail));
    }

    fn note(&mut self, node: usize, kind: Kind, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(self.at, self.events, What::Node { node, kind, text: text() });
        }
    }

    pub(crate) fn note_world(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(self.at, self.events, What::World { text: text() });
        }
    }

    // --- events ---

    fn handle(&mut self, event: Event<S>) -> Checked {
        match event {
            Event::Wake { client } => self.on_wake(client),
            Event::Restart { node, life } => self.on_restart(node.into(), life),
            Event::Synced { node, life } => self.on_synced(node.into(), life),
            Event::Keep { node, life, job } => self.on_keep(node.into(), life, job),
            Event::Read { node, life, load } => self.on_read(node.into(), life, load),
            Event::Resume { node } => self.on_resume(node.into()),
            Event::Mend { cut } => {
                self.network.mend(cut);
                self.note_world(|| "links mended".to_owned());
                Ok(())
            }
            Event::Nemesis => self.on_nemesis(),
            Event::Adversary => self.on_adversary(),
            Event::Storm { leader, loyal } => self.on_storm(leader, &loyal),
            event => self.on_input(event),
        }
    }

    /// Something for a node: taken now, kept until it goes on, or lost with an earlier life.
    fn on_input(&mut self, event: Event<S>) -> Checked {
        let (node, life) = match &event {
            Event::Deliver { to, .. } => (usize::from(*to), None),
            Event::Timer { node, life, .. }
            | Event::Flush { node, life }
            | Event::Report { node, life, .. }
            | Event::Loaded { node, life, .. }
            | Event::Kept { node, life, .. }
            | Event::Call { node, life, .. } => (usize::from(*node), Some(*life)),
            _ => return Ok(()),
        };
        let slot = &mut self.nodes[node];
        if slot.node.is_none() || life.is_some_and(|life| life != slot.life) {
            if let (Event::Deliver { id, to, .. }, Some(trace)) = (&event, &mut self.trace) {
                trace.push(
                    self.at,
                    self.events,
                    What::Delivered { id: *id, to: usize::from(*to), taken: false },
                );
            }
            return Ok(());
        }
        if slot.paused {
            slot.backlog.push(event);
            return Ok(());
        }
        self.take(node, event)
    }

    fn take(&mut self, at_node: usize, event: Event<S>) -> Checked {
        let moment = self.moment(at_node);
        let Some(mut node) = self.nodes[at_node].node.take() else { return Ok(()) };
        let mut steps = 1;
        let kind = match event {
            Event::Deliver { from, id, envelope, .. } => {
                steps = envelope.packets.len() as u64;
                self.mark(1, at_node, id);
                if let Some(trace) = &mut self.trace {
                    trace.push(self.at, self.events, What::Delivered { id, to: at_node, taken: true });
                }
                let inbound = Inbound { from: NodeId(u64::from(from) + 1), envelope };
                self.subject.receive(moment, &mut node, inbound);
                true
            }
            Event::Timer { at, .. } => {
                let due = self.on_timer(at_node, at, &node);
                if due {
                    self.mark(2, at_node, moment.now.0);
                    self.note(at_node, Kind::Tick, || format!("clock {}", moment.now));
                    self.subject.tick(moment, &mut node);
                }
                due
            }
            Event::Report { through, .. } => {
                self.mark(3, at_node, through.0);
                self.subject.persisted(moment, &mut node, through);
                true
            }
            Event::Loaded { id, result, .. } => {
                self.mark(4, at_node, id.0);
                self.note(at_node, Kind::Load, || format!("{id} answered"));
                self.subject.loaded(moment, &mut node, id, result);
                true
            }
            Event::Kept { done, .. } => {
                self.mark(15, at_node, u64::from(done.error().is_some()));
                self.subject.kept(moment, &mut node, done);
                true
            }
            Event::Call { call, .. } => {
                self.mark(5, at_node, 0);
                self.subject.call(moment, &mut node, call);
                true
            }
            Event::Flush { .. } => {
                self.nodes[at_node].gathering = false;
                steps = 0;
                self.nodes[at_node].dirty
            }
            _ => false,
        };
        self.nodes[at_node].node = Some(node);
        if !kind {
            return Ok(());
        }
        self.events += steps;
        self.nodes[at_node].dirty = true;
        if steps > 0 && self.gather(at_node) { Ok(()) } else { self.flush(at_node) }
    }

    /// True if the node waits for more inputs before it flushes.
    fn gather(&mut self, node: usize) -> bool {
        if self.nodes[node].gathering {
            return true;
        }
        if !self.rng.chance(self.options.node.gather) {
            return false;
        }
        self.nodes[node].gathering = true;
        let at = self.at + self.rng.exponential(self.options.node.gather_mean);
        let life = self.nodes[node].life;
        self.queue.push(at, Event::Flush { node: node as u8, life });
        true
    }

    fn flush(&mut self, at_node: usize) -> Checked {
        self.nodes[at_node].dirty = false;
        for _ in 0..FLUSHES_MAX {
            let moment = self.moment(at_node);
            let Some(mut node) = self.nodes[at_node].node.take() else { return Ok(()) };
            let mut output = std::mem::take(&mut self.output);
            self.subject.settle(moment, &mut node, &mut output);
            let written = self.write_at_once(moment, &mut node, &mut output);
            let flushed =
                written.and_then(|()| self.subject.flush(moment, &mut node, &mut output, &mut self.agenda));
            let more = self.subject.has_work(&node);
            let checked = flushed.and_then(|()| self.subject.check(moment, &node));
            if self.first_leader.is_none() && self.subject.has_begun() {
                self.first_leader = Some(self.events);
            }
            if self.trace.is_some() {
                self.show(at_node, &node);
            }
            self.nodes[at_node].node = Some(node);
            self.schedule_wakes();
            checked?;
            let alive = self.carry_out(at_node, &mut output)?;
            self.output = output;
            if !alive {
                return Ok(());
            }
            if !more {
                self.arm_timer(at_node);
                return Ok(());
            }
        }
        Err(violation("liveness", format!("n{} has work without end", at_node + 1)))
    }

    /// Where writes take no time, makes them durable and tells the node in the middle of its flush.
    fn write_at_once(
        &mut self,
        moment: Moment,
        node: &mut S::Node,
        output: &mut Output<S::Message>,
    ) -> Checked {
        let at_node = moment.node;
        if !self.options.disk.at_once || output.writes.is_empty() || self.nodes[at_node].disk.pending() > 0 {
            return Ok(());
        }
        for unit in output.writes.drain(..) {
            self.issue(at_node, unit);
        }
        self.nodes[at_node].disk.begin_sync(usize::MAX);
        // Only the model writes at once, and it does not stop.
        let Ok(through) = self.complete_sync(at_node)? else { return Ok(()) };
        self.events += 1;
        self.subject.persisted(moment, node, through);
        Ok(())
    }

    fn issue(&mut self, node: usize, unit: Write) {
        let puts = unit.puts.iter().fold(0, |sum, put| mix(sum, put.last_index().0));
        self.mark(6, node, mix(unit.id.0, puts));
        self.note(node, Kind::Write, || describe_write(&unit));
        self.nodes[node].disk.issue(unit);
    }

    fn complete_sync(&mut self, node: usize) -> OrStopped<WriteId> {
        let through = match self.nodes[node].disk.end_sync()? {
            Ok(through) => through,
            Err(stopped) => return Ok(Err(stopped)),
        };
        self.mark(8, node, through.0);
        self.note(node, Kind::Durable, || format!("through {through}"));
        self.subject.durable(node, through, &self.nodes[node].disk)?;
        Ok(Ok(through))
    }

    /// Does what a flush asks for: writes, envelopes, loads. A crash may come anywhere in between.
    fn carry_out(&mut self, node: usize, output: &mut Output<S::Message>) -> Result<bool, Violation> {
        let asked = output.writes.len() + output.envelopes.len();
        let crash_after = if asked > 0
            && matches!(self.phase, Phase::Faults)
            && self.rng.chance(self.options.node.crash_in_flush)
            && self.may_crash(node)
        {
            self.rng.index(asked + 1)
        } else {
            usize::MAX
        };
        let mut done = 0;
        for unit in output.writes.drain(..) {
            if done == crash_after {
                break;
            }
            done += 1;
            self.issue(node, unit);
        }
        self.begin_sync(node);
        let mut envelopes = std::mem::take(&mut output.envelopes);
        for (to, envelope) in envelopes.drain(..) {
            if done >= crash_after {
                break;
            }
            done += 1;
            self.send(node, to, envelope)?;
        }
        output.envelopes = envelopes;
        if crash_after != usize::MAX {
            output.loads.clear();
            output.jobs.clear();
            self.rare[Rare::CrashInFlush] += 1;
            let kind = if self.rng.coin() { Fault::CrashRestart } else { Fault::Crash };
            self.crash_and_return(node, kind)?;
            return Ok(false);
        }
        for load in output.loads.drain(..) {
            let at = self.at + self.rng.exponential(self.options.disk.read_mean);
            let life = self.nodes[node].life;
            self.note(node, Kind::Load, || format!("{} {}", load.id, load.range));
            self.queue.push(at, Event::Read { node: node as u8, life, load });
        }
        for job in output.jobs.drain(..) {
            let slot = &mut self.nodes[node];
            slot.keep_at = slot.keep_at.max(self.at) + self.rng.exponential(self.options.disk.sync_mean) + 1;
            let event = Event::Keep { node: node as u8, life: slot.life, job };
            self.queue.push(slot.keep_at, event);
        }
        Ok(true)
    }

    fn schedule_wakes(&mut self) {
        if let (Some(notes), Some(trace)) = (&mut self.agenda.notes, &mut self.trace) {
            for (node, text) in notes.drain(..) {
                trace.push(self.at, self.events, What::Node { node, kind: Kind::Answer, text });
            }
        }
        for (at, client) in self.agenda.wakes.drain(..) {
            self.queue.push(at.max(self.at), Event::Wake { client });
        }
    }

    // --- messages ---

    fn send(&mut self, from: usize, to: NodeId, envelope: Envelope<S::Message>) -> Checked {
        let to = (to.0 - 1) as usize;
        self.subject.sent(from, to, &envelope)?;
        self.messages += 1;
        let id = self.messages;
        let mut print = envelope.from_incarnation.0 ^ envelope.to_incarnation.0.rotate_left(32);
        for packet in &envelope.packets {
            print = mix(
                print,
                match packet {
                    Packet::Protocol(message) => S::fingerprint(message),
                    Packet::Forward(forward) => forward.commands.len() as u64,
                    Packet::ForwardReply(reply) => reply.commands.len() as u64 + (1 << 32),
                    Packet::SnapshotChunk(chunk) => mix(chunk.head.id.index.0, chunk.offset) ^ (1 << 33),
                    Packet::SnapshotAck(ack) => ack.id.index.0 ^ (1 << 34),
                },
            );
        }
        self.mark(7, from, mix(print, to as u64));
        let fate = self.network.send(from, to, self.at, &mut self.rng, &mut self.counts);
        if let Some(trace) = &mut self.trace {
            let lost = match fate {
                Fate::Lost(fault) => Some(fault.name()),
                Fate::Arrives { .. } => None,
            };
            let text = describe_envelope(&envelope);
            trace.push(self.at, self.events, What::Message { from, to, id, text, lost });
        }
        let Fate::Arrives { at, again } = fate else { return Ok(()) };
        let envelope = if self.options.encoded { self.subject.encoded(from, envelope)? } else { envelope };
        let (from, to) = (from as u8, to as u8);
        if let Some(again) = again {
            self.queue.push(again, Event::Deliver { to, from, id, envelope: envelope.clone() });
        }
        self.queue.push(at, Event::Deliver { to, from, id, envelope });
        Ok(())
    }

    // --- timers ---

    fn arm_timer(&mut self, node: usize) {
        let slot = &mut self.nodes[node];
        let Some(deadline) = slot.node.as_deref().and_then(|node| self.subject.next_deadline(node)) else {
            return;
        };
        let due = slot.clock.when(deadline).max(self.at + 1);
        if due >= slot.timer_at || due == NEVER {
            return;
        }
        slot.timer_at = due;
        let late = self.rng.below(self.options.node.timer_late_max + 1);
        self.queue.push(due + late, Event::Timer { node: node as u8, life: slot.life, at: due });
    }

    /// True if the node's deadline is due; otherwise the timer is set anew.
    fn on_timer(&mut self, node: usize, at: Time, machine: &S::Node) -> bool {
        let slot = &mut self.nodes[node];
        if slot.timer_at != at {
            return false;
        }
        slot.timer_at = NEVER;
        let Some(deadline) = self.subject.next_deadline(machine) else { return false };
        if slot.clock.read(self.at) >= deadline {
            if slot.clock.drifts() && self.counts[Fault::Drift] < self.options.replicas as u64 {
                self.counts[Fault::Drift] += 1;
            }
            return true;
        }
        let due = slot.clock.when(deadline).max(self.at + 1);
        slot.timer_at = due;
        let event = Event::Timer { node: node as u8, life: slot.life, at: due };
        self.queue.push(due, event);
        false
    }

    // --- disks ---

    fn begin_sync(&mut self, node: usize) {
        let options = self.options.disk;
        let slot = &mut self.nodes[node];
        if slot.disk.pending() == 0 || !slot.disk.is_idle() {
            return;
        }
        let units =
            if options.units_max == usize::MAX { usize::MAX } else { 1 + self.rng.index(options.units_max) };
        slot.disk.begin_sync(units);
        let mut delay = options.sync_min + self.rng.exponential(options.sync_mean);
        if let Some((_, factor)) = options.slow.filter(|(slow, _)| *slow == node) {
            delay = (delay * factor).min(self.options.patience);
        }
        if self.rng.chance(options.stall) {
            self.counts[Fault::SyncStall] += 1;
            delay += self.rng.below(options.stall_max);
        }
        let event = Event::Synced { node: node as u8, life: slot.life };
        self.queue.push(self.at + delay, event);
    }

    fn on_synced(&mut self, node: usize, life: u32) -> Checked {
        let slot = &self.nodes[node];
        if slot.life != life || slot.node.is_none() {
            return Ok(());
        }
        let through = match self.complete_sync(node)? {
            Ok(through) => through,
            Err(stopped) => return self.stop(node, &stopped),
        };
        self.begin_sync(node);
        let report = Event::Report { node: node as u8, life, through };
        if self.rng.chance(self.options.disk.late_report) {
            let at = self.at + self.rng.exponential(self.options.disk.sync_mean / 4);
            self.queue.push(at, report);
            return Ok(());
        }
        self.on_input(report)
    }

    fn on_read(&mut self, node: usize, life: u32, load: synod_core::Load) -> Checked {
        let slot = &mut self.nodes[node];
        if slot.life != life || slot.node.is_none() {
            return Ok(());
        }
        let result = match slot.disk.read(load.range, load.bytes_max)? {
            Ok(result) => result,
            Err(stopped) => return self.stop(node, &stopped),
        };
        let at = self.at + self.rng.exponential(self.options.disk.read_mean);
        self.queue.push(at, Event::Loaded { node: node as u8, life, id: load.id, result });
        Ok(())
    }

    fn on_keep(&mut self, node: usize, life: u32, job: SnapshotJob) -> Checked {
        let slot = &self.nodes[node];
        if slot.life != life || slot.node.is_none() {
            return Ok(());
        }
        let text = self.trace.is_some().then(|| format!("{job:?}"));
        let Some(done) = self.subject.keep(node, job) else { return Ok(()) };
        self.note(node, Kind::Load, || {
            let error = done.error().map(|error| format!(": {error}"));
            format!("{}{}", text.unwrap_or_default(), error.unwrap_or_default())
        });
        self.on_input(Event::Kept { node: node as u8, life, done })
    }

    /// The storage cannot go on: the node stops, and is started again by whoever looks after it.
    fn stop(&mut self, node: usize, stopped: &Stopped) -> Checked {
        self.note(node, Kind::Fault, || stopped.0.clone());
        self.crash_and_return(node, Fault::Crash)
    }

    // --- clients ---

    fn on_wake(&mut self, client: u32) -> Checked {
        if matches!(self.phase, Phase::Done) {
            return Ok(());
        }
        self.views.clear();
        let core = match &self.phase {
            Phase::Healing { core, .. } => Some(core),
            _ => None,
        };
        for (at, slot) in self.nodes.iter().enumerate() {
            let open = core.is_none_or(|core| core.contains(&at));
            let leads = slot.node.as_deref().is_some_and(|node| self.subject.describe(node).role == "leader");
            self.views.push(NodeView { up: slot.node.is_some(), clock: slot.clock, open, leads });
        }
        let calls = self.subject.wake(self.at, client, &self.views, &mut self.rng, &mut self.agenda);
        self.schedule_wakes();
        for (node, call) in calls {
            let life = self.nodes[node].life;
            self.note(node, Kind::Call, || S::describe_call(client, &call));
            self.on_input(Event::Call { node: node as u8, life, call })?;
        }
        Ok(())
    }

    // --- lives ---

    fn on_restart(&mut self, node: usize, life: u32) -> Checked {
        let slot = &mut self.nodes[node];
        if slot.life != life || slot.node.is_some() {
            return Ok(());
        }
        slot.life += 1;
        slot.keep_at = 0;
        slot.timer_at = NEVER;
        slot.dirty = false;
        slot.gathering = false;
        let recovered = match slot.disk.recover()? {
            Ok(recovered) => recovered,
            Err(refused) => {
                self.note(node, Kind::Fault, || format!("does not start: {}", refused.0));
                return Ok(());
            }
        };
        let incarnation = recovered.incarnation;
        self.replayed += recovered.last_index().0;
        self.mark(9, node, recovered.last_index().0);
        let moment = self.moment(node);
        let seed = self.rng.fork();
        let opened = self.subject.open(moment, recovered, seed)?;
        self.nodes[node].node = Some(Box::new(opened));
        self.note(node, Kind::Start, || format!("{incarnation}"));
        self.flush(node)
    }

    /// True if a crash is allowed: long logs are costly to apply again.
    pub(crate) fn may_crash(&self, node: usize) -> bool {
        let log = self.nodes[node].disk.last_index().0;
        self.nodes[node].node.is_some() && self.replayed + log <= self.options.node.replayed_max
    }

    /// The node's life ends now.
    pub(crate) fn crash(&mut self, node: usize, kind: Fault) -> Checked {
        let loses = self.options.faults.has(Fault::UnsyncedLoss);
        let slot = &mut self.nodes[node];
        let Some(last) = slot.node.take() else { return Ok(()) };
        let extra = if loses { self.rng.index(slot.disk.pending() + 1) } else { slot.disk.pending() };
        let crashed = slot.disk.crash(extra)?;
        slot.life += 1;
        slot.paused = false;
        slot.backlog.clear();
        slot.shown = NodeState::default();
        self.counts[kind] += 1;
        if crashed.lost > 0 && loses {
            self.counts[Fault::UnsyncedLoss] += 1;
        }
        self.mark(10, node, crashed.kept.0);
        self.note(node, Kind::Crash, || {
            format!("{kind}: kept through {}, lost {} units", crashed.kept, crashed.lost)
        });
        let disk = &self.nodes[node].disk;
        self.subject.crashed(self.at, node, &last, crashed.kept, disk, &mut self.agenda)?;
        self.schedule_wakes();
        Ok(())
    }

    /// The node crashes and comes back as this kind of fault wants it.
    pub(crate) fn crash_and_return(&mut self, node: usize, kind: Fault) -> Checked {
        self.crash(node, kind)?;
        let patience = self.options.patience;
        // Without a quorum nothing happens that could be wrong: such times are short.
        let up = self.nodes.iter().filter(|slot| slot.node.is_some()).count();
        let away = match kind {
            Fault::CrashRestart => self.rng.below(2) * self.rng.below(MILLISECOND),
            _ if up <= self.nodes.len() / 2 => self.rng.exponential(patience),
            Fault::Outage => patience * self.rng.between(10, 40),
            _ => self.rng.exponential(patience * 3),
        };
        let life = self.nodes[node].life;
        self.queue.push(self.at + away, Event::Restart { node: node as u8, life });
        Ok(())
    }

    /// The node stands still for a while.
    pub(crate) fn pause(&mut self, node: usize, length: Time) {
        let slot = &mut self.nodes[node];
        if slot.node.is_none() || slot.paused {
            return;
        }
        slot.paused = true;
        self.counts[Fault::Pause] += 1;
        self.mark(11, node, length);
        self.note(node, Kind::Pause, || format!("for {:.3} ms", length as f64 / 1e6));
        self.queue.push(self.at + length, Event::Resume { node: node as u8 });
    }

    fn on_resume(&mut self, node: usize) -> Checked {
        let slot = &mut self.nodes[node];
        if !slot.paused {
            return Ok(());
        }
        slot.paused = false;
        let mut backlog = std::mem::take(&mut slot.backlog);
        self.note(node, Kind::Resume, || format!("{} inputs wait", backlog.len()));
        // As a driver does, it often drains one source after the other, in any order.
        if self.rng.coin() {
            let mut ranks = [0, 1, 2, 3];
            self.rng.shuffle(&mut ranks);
            backlog.sort_by_key(|event| ranks[source(event)]);
        }
        // And often it takes a whole source, or everything, before it flushes.
        let life = self.nodes[node].life;
        let gathers = self.rng.coin();
        let mut last = None;
        for event in backlog.drain(..) {
            if self.nodes[node].life != life {
                return Ok(());
            }
            let now = source(&event);
            if gathers && last.is_some_and(|last| last != now) && self.rng.coin() {
                self.flush(node)?;
                if self.nodes[node].life != life {
                    return Ok(());
                }
            }
            last = Some(now);
            self.nodes[node].gathering |= gathers;
            self.take(node, event)?;
        }
        if gathers && self.nodes[node].life == life {
            self.nodes[node].gathering = false;
            return self.flush(node);
        }
        Ok(())
    }

    /// The node's device destroys something.
    pub(crate) fn damage(&mut self, node: usize, kind: Fault) {
        if self.nodes[node].disk.damage(kind) {
            self.mark(14, node, kind as u64);
            self.note(node, Kind::Fault, || kind.to_string());
        }
    }

    /// The node's clock jumps forward.
    pub(crate) fn jump_clock(&mut self, node: usize, forward: Time) {
        let at = self.at;
        let slot = &mut self.nodes[node];
        slot.clock.jump(at, forward);
        self.counts[Fault::ClockJump] += 1;
        self.mark(12, node, forward);
        self.note(node, Kind::Fault, || format!("clock jumps {:.3} ms", forward as f64 / 1e6));
        if self.nodes[node].node.is_some() {
            self.arm_timer(node);
        }
    }

    /// Something happens after a while.
    pub(crate) fn schedule(&mut self, after: Time, event: Event<S>) {
        self.queue.push(self.at + after, event);
    }

    /// Links stop carrying for a while.
    pub(crate) fn cut(&mut self, kind: Fault, links: Vec<(usize, usize)>, length: Time) {
        if let Some(trace) = &mut self.trace {
            let (links, until) = (links.clone(), self.at + length);
            trace.push(self.at, self.events, What::Cut { kind: kind.name(), links, until });
        }
        self.mark(13, links.len(), length);
        let cut = self.network.cut(kind, links);
        if length < NEVER - self.at {
            self.queue.push(self.at + length, Event::Mend { cut });
        }
    }

    // --- faults ---

    fn on_nemesis(&mut self) -> Checked {
        if !matches!(self.phase, Phase::Faults) {
            return Ok(());
        }
        let done = nemesis::strike(self);
        let at = self.at + self.rng.exponential(self.options.fault_interval) + MICROSECOND;
        self.queue.push(at, Event::Nemesis);
        done
    }

    fn on_adversary(&mut self) -> Checked {
        if !matches!(self.phase, Phase::Faults) {
            return Ok(());
        }
        let done = if siege::is_possible(self) && self.rng.coin() {
            siege::begin(self)
        } else {
            nemesis::harass(self)
        };
        let at = self.at + self.rng.exponential(self.options.adversary_interval) + MICROSECOND;
        self.queue.push(at, Event::Adversary);
        done
    }

    fn on_storm(&mut self, leader: u8, loyal: &[u8]) -> Checked {
        if !matches!(self.phase, Phase::Faults) {
            return Ok(());
        }
        let loyal: Vec<usize> = loyal.iter().copied().map(usize::from).collect();
        siege::storm(self, leader.into(), &loyal)
    }

    // --- phases ---

    fn step_phase(&mut self) -> Checked {
        match &self.phase {
            Phase::Faults => {
                let enough =
                    self.first_leader.is_some_and(|first| self.events >= first + self.options.events_min);
                // Nobody was elected for very long: let the faults end and see.
                let hopeless = self.first_leader.is_none() && self.at > self.options.patience * 2_000;
                if enough || hopeless || self.at > self.options.patience * 200_000 {
                    self.heal()?;
                }
                Ok(())
            }
            Phase::Healing { core, deadline } => {
                if self.at > *deadline {
                    let missing = self.subject.missing(&self.core_nodes(core));
                    return Err(violation("liveness", format!("after faults had ended: {missing}")));
                }
                let core = self.core_nodes(core);
                if core.len() < self.core_len() || !self.subject.is_healed(&core) {
                    return Ok(());
                }
                self.finish()
            }
            Phase::Done => Ok(()),
        }
    }

    fn core_len(&self) -> usize {
        match &self.phase {
            Phase::Healing { core, .. } => core.len(),
            _ => 0,
        }
    }

    fn core_nodes(&self, core: &[usize]) -> Vec<(usize, &S::Node)> {
        core.iter().filter_map(|at| Some((*at, self.nodes[*at].node.as_deref()?))).collect()
    }

    fn finish(&mut self) -> Checked {
        let Phase::Healing { core, .. } = std::mem::replace(&mut self.phase, Phase::Done) else {
            return Ok(());
        };
        let nodes: Vec<(usize, &S::Node)> =
            core.iter().filter_map(|at| Some((*at, self.nodes[*at].node.as_deref()?))).collect();
        self.subject.finish(&nodes)
    }

    /// Faults end: a random set that holds both quorums goes on, in fair weather. The others are gone.
    fn heal(&mut self) -> Checked {
        for slot in &mut self.nodes {
            slot.disk.calm();
        }
        // Whose device lost something, and who does not know yet, may be gone at any moment.
        let (mut core, mut outside): (Vec<usize>, Vec<usize>) = (0..self.nodes.len())
            .partition(|node| self.nodes[*node].may_start() && !self.nodes[*node].disk.is_damaged());
        self.rng.shuffle(&mut core);
        let quorum = self.subject.quorum_len(self.nodes.len());
        if core.len() < quorum {
            // Beyond the limit a cluster stands still, and nothing more is asked of it.
            self.rare[Rare::Halted] += 1;
            self.note_world(|| "beyond the limit: the cluster stands still".to_owned());
            self.phase = Phase::Done;
            return Ok(());
        }
        let size =
            if self.rng.coin() { core.len() } else { quorum + self.rng.index(core.len() - quorum + 1) };
        outside.extend(core.split_off(size));
        core.sort_unstable();
        self.note_world(|| format!("faults end; {} go on", describe_nodes(&core)));
        self.network.heal();
        self.network.weather = Weather::fair();
        self.options.disk.sync_mean = self.options.disk.sync_mean.min(MILLISECOND);
        self.options.disk.sync_min = self.options.disk.sync_min.min(MILLISECOND);
        self.options.disk.stall = Chance::NEVER;
        self.options.disk.slow = None;
        let patience = self.options.patience;
        let log = (0..self.nodes.len()).map(|node| self.nodes[node].disk.last_index().0).max().unwrap_or(0);
        // Forty elections, and time to send the longest log entry by entry.
        let deadline = self.at + patience * 80 + 30 * SECOND + log * 20 * MILLISECOND;
        self.phase = Phase::Healing { core: core.clone(), deadline };
        for node in outside {
            if self.rng.coin() {
                self.crash(node, Fault::Outage)?;
                // One that is down already does not come back either.
                self.nodes[node].life += 1;
            } else {
                let all = (0..self.nodes.len()).filter(|other| *other != node);
                let links: Vec<(usize, usize)> =
                    all.flat_map(|other| [(node, other), (other, node)]).collect();
                self.network.cut(Fault::Partition, links);
            }
        }
        for &node in &core {
            if self.nodes[node].paused {
                self.on_resume(node)?;
            }
            if self.nodes[node].node.is_none() {
                let life = self.nodes[node].life;
                self.queue.push(self.at, Event::Restart { node: node as u8, life });
            }
        }
        self.subject.heal(self.at, &core, &mut self.rng, &mut self.agenda);
        self.schedule_wakes();
        Ok(())
    }

    fn show(&mut self, at_node: usize, node: &S::Node) {
        let state = self.subject.describe(node);
        let shown = std::mem::replace(&mut self.nodes[at_node].shown, state);
        if (shown.role, shown.reign) != (state.role, state.reign) {
            self.note(at_node, Kind::Role, || format!("{} of {}", state.role, state.reign));
        }
        if shown.decided != state.decided {
            self.note(at_node, Kind::Decided, || {
                format!("through {}, applied {}", state.decided, state.applied)
            });
        }
    }
}

/// Where an input comes from: clients, peers, the disk, the clock.
fn source<S: Subject>(event: &Event<S>) -> usize {
    match event {
        Event::Call { .. } => 0,
        Event::Deliver { .. } => 1,
        Event::Timer { .. } => 3,
        _ => 2,
    }
}

/// A node that has work after so many flushes in a row goes round in circles.
const FLUSHES_MAX: usize = 100_000;

pub(crate) fn describe_write(unit: &synod_core::Write) -> String {
    let mut text = unit.id.to_string();
    if let Some((index, stamp)) = unit.install {
        text += &format!(" install {index} of {stamp}");
    }
    if let Some(from) = unit.truncate_from {
        text += &format!(" truncate {from}");
    }
    for put in &unit.puts {
        text += &format!(" put {put}");
    }
    if let Some(through) = unit.compact_to {
        text += &format!(" compact to {through}");
    }
    if unit.hard_state.is_some() {
        text += " hard state";
    }
    text
}

fn describe_envelope<M: std::fmt::Display>(envelope: &Envelope<M>) -> String {
    if envelope.packets.is_empty() {
        return "greeting".to_owned();
    }
    let packets: Vec<String> = envelope
        .packets
        .iter()
        .map(|packet| match packet {
            Packet::Protocol(message) => message.to_string(),
            Packet::Forward(forward) => {
                format!("forward {} commands, {} queries", forward.commands.len(), forward.queries.len())
            }
            Packet::SnapshotChunk(chunk) => {
                let (from, to) = (chunk.offset, chunk.offset + chunk.bytes.len() as u64);
                format!("bytes {from} to {to} of {} of {}", chunk.head.len, chunk.head.id)
            }
            Packet::SnapshotAck(ack) => format!("{:?} {}", ack.progress, ack.id),
            Packet::ForwardReply(reply) => {
                format!("answers to {} commands, {} queries", reply.commands.len(), reply.queries.len())
            }
        })
        .collect();
    packets.join("; ")
}

fn describe_nodes(nodes: &[usize]) -> String {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("n{}", node + 1)).collect();
    nodes.join(" ")
}
