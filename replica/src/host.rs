//! Persistence rules, held messages, loads and envelopes for any machine.

use std::collections::{BTreeMap, VecDeque};

use synod_core::{
    Compacted, Effects, Entries, Envelope, GroupId, Inbound, Incarnation, IndexRange, Input, Instant, Load,
    LoadId, Loaded, LogIndex, Machine, Membership, NodeId, OpenError, Packet, Send, Start, Write, WriteId,
};

use crate::Actions;
use crate::tail::Tail;

/// Units nobody waits for that may pile up before they are written all the same, and their bytes.
const UNFORCED_UNITS_MAX: usize = 64;
const UNFORCED_BYTES_MAX: usize = 1 << 20;

/// A vector of packets that has room for more is not kept.
const REUSED_PACKETS_MAX: usize = 64;

/// Messages to one peer that may wait for writes, by default.
pub(crate) const HELD_MESSAGES_MAX: usize = 1_024;

/// Binds one machine to its surroundings: what every host owes every machine, and nothing about logs,
/// clients or state machines.
///
/// - Units are issued in order; a message leaves only once the unit it names is durable.
/// - A load observes every write asked for before it.
/// - Envelopes are stamped with the lives of both ends; stale and foreign ones are dropped and counted.
/// - One flush makes at most one envelope per peer.
/// - What waits for a disk is bounded: [`Host::hold_at_most`].
pub struct Host<M: Machine> {
    node: NodeId,
    group: GroupId,
    incarnation: Incarnation,
    machine: M,
    effects: Effects<M::Message, M::Event>,
    peers: Vec<Link<M::Message>>,
    tail: Tail,
    tail_bytes_max: usize,
    durable: WriteId,
    issued: WriteId,
    unforced: Vec<Write>,
    unforced_bytes: usize,
    /// Messages that wait for a write, with the life of the receiver that each is meant for.
    held: Vec<(Incarnation, Send<M::Message>)>,
    held_messages_max: usize,
    loads: BTreeMap<LoadId, PendingLoad>,
    loads_issued: u64,
    answers: VecDeque<(LoadId, Result<Loaded, Compacted>)>,
    /// Answers for the owner of the host, by the id that [`Host::load`] gave.
    owner_answers: VecDeque<(LoadId, Result<Loaded, Compacted>)>,
    loads_to_start: Vec<Load>,
    /// The machine was stepped since its last flush.
    stepped: bool,
    probe: Option<Box<dyn Probe<M>>>,
    counters: HostCounters,
}

/// Sees every single step of a machine before the next one, with the effects gathered since the last drain.
pub trait Probe<M: Machine>: std::marker::Send {
    /// Called after each [`Machine::step`] and each [`Machine::flush`].
    fn stepped(&mut self, now: Instant, machine: &M, effects: &Effects<M::Message, M::Event>);
}

/// What a host has dropped and done; counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Envelopes dropped because they came from an older life of a peer.
    pub stale_sender: u64,
    /// Envelopes dropped because they were meant for another life of this node.
    pub stale_receiver: u64,
    /// Envelopes dropped because the sender is no member, lies about its id, or means another group.
    pub foreign: u64,
    /// Messages that waited for a write.
    pub held: u64,
    /// Messages dropped because too many to the same peer waited for writes already.
    pub held_too_many: u64,
    /// Messages dropped because their receiver began a new life while they waited.
    pub outlived: u64,
    /// Messages dropped because the machine addressed somebody who is no peer.
    pub unroutable: u64,
    /// Loads answered from the write-through tail.
    pub loads_from_tail: u64,
    /// Loads that read the storage.
    pub loads_from_storage: u64,
}

struct Link<M> {
    id: NodeId,
    incarnation: Incarnation,
    greet: bool,
    /// How many messages to it wait for writes.
    held: usize,
    packets: Vec<Packet<M>>,
}

struct PendingLoad {
    range: IndexRange,
    bytes_max: usize,
    /// The machine's own name for it; `None` if the owner of the host asked.
    machine: Option<LoadId>,
}

impl<M: Machine> Host<M> {
    /// Opens the machine. Keeps up to about `tail_bytes_max` of durable entries at hand.
    ///
    /// # Errors
    /// [`OpenError`] of the machine.
    pub fn open(
        start: Start<M::Config>,
        group: GroupId,
        tail_bytes_max: usize,
    ) -> Result<Host<M>, OpenError> {
        let (node, incarnation) = (start.node, start.recovered.incarnation);
        let compacted = start.recovered.compacted.map_or(LogIndex::ZERO, |(index, _)| index);
        let peers = links(&start.membership, node);
        let machine = M::open(start)?;
        Ok(Host {
            node,
            group,
            incarnation,
            machine,
            effects: Effects::new(),
            peers,
            tail: Tail::new(compacted),
            tail_bytes_max,
            durable: WriteId(0),
            issued: WriteId(0),
            unforced: Vec::new(),
            unforced_bytes: 0,
            held: Vec::new(),
            held_messages_max: HELD_MESSAGES_MAX,
            loads: BTreeMap::new(),
            loads_issued: 0,
            answers: VecDeque::new(),
            owner_answers: VecDeque::new(),
            loads_to_start: Vec::new(),
            stepped: true,
            probe: None,
            counters: HostCounters::default(),
        })
    }

    /// Takes an envelope: steps the machine for its messages and hands the other packets out.
    pub fn receive(
        &mut self,
        now: Instant,
        inbound: Inbound<M::Message>,
        others: &mut Vec<(NodeId, Packet<M::Message>)>,
    ) {
        let Inbound { from, envelope } = inbound;
        let group = self.group;
        let Some(link) = self.peers.iter_mut().find(|link| link.id == from) else {
            self.counters.foreign += 1;
            return;
        };
        if envelope.from != from || envelope.group != group || envelope.from_incarnation == Incarnation(0) {
            self.counters.foreign += 1;
            return;
        }
        if envelope.from_incarnation < link.incarnation {
            self.counters.stale_sender += 1;
            return;
        }
        if envelope.from_incarnation > link.incarnation {
            if link.incarnation != Incarnation(0) {
                // What waits in the outbox was meant for the life before.
                self.counters.outlived += link.packets.len() as u64;
                link.packets.clear();
            }
            link.incarnation = envelope.from_incarnation;
        }
        if envelope.to_incarnation != Incarnation(0) && envelope.to_incarnation != self.incarnation {
            self.counters.stale_receiver += 1;
            link.greet = true;
            return;
        }
        let mut packets = envelope.packets;
        for packet in packets.drain(..) {
            match packet {
                Packet::Protocol(message) => self.step(now, Input::Receive { from, message }),
                other => others.push((from, other)),
            }
        }
        self.reuse(from, packets);
    }

    /// What brought packets from a peer carries the next ones to it.
    fn reuse(&mut self, peer: NodeId, packets: Vec<Packet<M::Message>>) {
        if let Some(link) = self.peers.iter_mut().find(|link| link.id == peer)
            && link.packets.capacity() == 0
            && packets.capacity() <= REUSED_PACKETS_MAX
        {
            link.packets = packets;
        }
    }

    /// Feeds the machine one input. Durability and loads have methods of their own.
    pub fn step(&mut self, now: Instant, input: Input<M::Message, M::Call>) {
        self.stepped = true;
        self.machine.step(now, input, &mut self.effects);
        if let Some(probe) = &mut self.probe {
            probe.stepped(now, &self.machine, &self.effects);
        }
    }

    /// Every unit through `through` is durable.
    ///
    /// # Panics
    /// If the unit was never issued: the storage would have invented a write.
    pub fn persisted(&mut self, now: Instant, through: WriteId) {
        assert!(through <= self.issued, "persist-before-reveal: {through} is durable and was never issued");
        if through <= self.durable {
            return;
        }
        self.durable = through;
        self.tail.persisted(through);
        self.step(now, Input::Persisted(through));
    }

    /// A read of the storage ended.
    pub fn loaded(&mut self, id: LoadId, result: Result<Loaded, Compacted>) {
        let Some(load) = self.loads.remove(&id) else { return };
        if let Some(answer) = self.tail.read_ended(id, load.range, load.bytes_max, result) {
            self.deliver(id, load.machine, answer);
        }
    }

    fn deliver(&mut self, id: LoadId, machine: Option<LoadId>, answer: Result<Loaded, Compacted>) {
        match machine {
            Some(id) => self.answers.push_back((id, answer)),
            None => self.owner_answers.push_back((id, answer)),
        }
    }

    /// Asks for a range of the log on behalf of the owner of the host; answered by
    /// [`Host::take_owner_answer`].
    pub fn load(&mut self, range: IndexRange, bytes_max: usize) -> LoadId {
        self.start_load(None, range, bytes_max)
    }

    fn start_load(&mut self, machine: Option<LoadId>, range: IndexRange, bytes_max: usize) -> LoadId {
        self.loads_issued += 1;
        let id = LoadId(self.loads_issued);
        if let Some(answer) = self.tail.answer(range, bytes_max) {
            self.counters.loads_from_tail += 1;
            self.deliver(id, machine, answer);
        } else {
            self.counters.loads_from_storage += 1;
            self.tail.read_began(id);
            self.loads.insert(id, PendingLoad { range, bytes_max, machine });
            self.loads_to_start.push(Load { id, range, bytes_max });
        }
        id
    }

    /// Takes an answer to [`Host::load`].
    pub fn take_owner_answer(&mut self) -> Option<(LoadId, Result<Loaded, Compacted>)> {
        self.owner_answers.pop_front()
    }

    /// Queues a packet of the owner's own for a peer; leaves with the next [`Host::finish`].
    pub fn send(&mut self, to: NodeId, packet: Packet<M::Message>) {
        if let Some(link) = self.peers.iter_mut().find(|link| link.id == to) {
            link.packets.push(packet);
        }
    }

    /// First part of a flush: gives the machine its answers and its own flush, takes its unit into the tail,
    /// and asks for the writes that somebody waits for.
    ///
    /// Whoever can write at once does so now and tells [`Host::persisted`]: then nothing has to wait.
    pub fn settle(&mut self, now: Instant, actions: &mut Actions<M::Message>) {
        while let Some((id, result)) = self.answers.pop_front() {
            self.step(now, Input::Loaded { id, result });
        }
        self.flush_machine(now, actions);
    }

    /// Second part of a flush: sorts the machine's messages by whether they may leave, and starts its loads.
    /// Events are appended to `events`.
    pub fn sort(&mut self, now: Instant, actions: &mut Actions<M::Message>, events: &mut Vec<M::Event>) {
        if self.stepped {
            self.flush_machine(now, actions);
        }
        self.effects.move_events(events);
        self.release_held();
        self.sort_sends();
        if self.effects.has_loads() {
            let loads: Vec<Load> = self.effects.drain_loads().collect();
            for load in loads {
                self.start_load(Some(load.id), load.range, load.bytes_max);
            }
        }
        self.tail.evict(self.tail_bytes_max);
    }

    /// Last part of a flush: one envelope per peer, and the reads to start.
    pub fn finish(&mut self, actions: &mut Actions<M::Message>) {
        for link in &mut self.peers {
            if link.packets.is_empty() && !link.greet {
                continue;
            }
            link.greet = false;
            let envelope = Envelope {
                from: self.node,
                from_incarnation: self.incarnation,
                to_incarnation: link.incarnation,
                group: self.group,
                packets: std::mem::take(&mut link.packets),
            };
            actions.envelopes.push((link.id, envelope));
        }
        actions.loads.append(&mut self.loads_to_start);
    }

    /// All parts, for a machine whose owner adds nothing in between.
    pub fn flush(&mut self, now: Instant, actions: &mut Actions<M::Message>, events: &mut Vec<M::Event>) {
        self.settle(now, actions);
        self.sort(now, actions, events);
        self.finish(actions);
    }

    fn flush_machine(&mut self, now: Instant, actions: &mut Actions<M::Message>) {
        self.stepped = false;
        self.machine.flush(now, &mut self.effects);
        if let Some(probe) = &mut self.probe {
            probe.stepped(now, &self.machine, &self.effects);
        }
        if let Some(unit) = self.effects.settle() {
            self.tail.write(&unit);
            self.unforced_bytes += unit.puts.iter().map(|put| put.weight()).sum::<usize>();
            self.unforced.push(unit);
        }
        self.issue(actions);
    }

    fn release_held(&mut self) {
        let durable = self.durable;
        if self.held.is_empty() || self.held.iter().all(|(_, send)| send.after > Some(durable)) {
            return;
        }
        for (life, send) in std::mem::take(&mut self.held) {
            if send.after > Some(durable) {
                self.held.push((life, send));
                continue;
            }
            let Some(link) = self.peers.iter_mut().find(|link| link.id == send.to) else { continue };
            link.held -= 1;
            if life == Incarnation(0) || life == link.incarnation {
                link.packets.push(Packet::Protocol(send.message));
            } else {
                self.counters.outlived += 1;
            }
        }
    }

    fn sort_sends(&mut self) {
        if self.effects.sends().is_empty() {
            return;
        }
        for send in self.effects.drain_sends() {
            let Some(link) = self.peers.iter_mut().find(|link| link.id == send.to) else {
                self.counters.unroutable += 1;
                continue;
            };
            if send.after.is_none_or(|write| write <= self.durable) {
                link.packets.push(Packet::Protocol(send.message));
            } else if link.held >= self.held_messages_max {
                // A disk that stands still must not collect what its machine goes on to say. The machine survives
                // the loss as it survives that of a network, and the earlier messages leave the sooner.
                self.counters.held_too_many += 1;
            } else {
                self.counters.held += 1;
                link.held += 1;
                self.held.push((link.incarnation, send));
            }
        }
    }

    /// Issues the pending units if one of them is forced, a message waits for one, or they grow large.
    fn issue(&mut self, actions: &mut Actions<M::Message>) {
        let Some(first) = self.unforced.first().map(|unit| unit.id) else { return };
        let waits = |send: &Send<M::Message>| send.after >= Some(first);
        let wanted = self.unforced.iter().any(|unit| unit.forced)
            || self.unforced_bytes > UNFORCED_BYTES_MAX
            || self.unforced.len() > UNFORCED_UNITS_MAX
            || self.effects.sends().iter().any(waits)
            || self.held.iter().any(|(_, send)| waits(send));
        if wanted {
            self.issued = self.unforced.last().map_or(self.issued, |unit| unit.id);
            actions.writes.append(&mut self.unforced);
            self.unforced_bytes = 0;
        }
    }

    /// True if a flush would do something although no input came. The first flush after opening greets the
    /// peers and is due in any case.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.answers.is_empty() || !self.owner_answers.is_empty()
    }

    /// When the machine wants [`Input::Tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.machine.next_deadline()
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// This life of the node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The last unit that was handed out to be written.
    #[must_use]
    pub fn issued(&self) -> WriteId {
        self.issued
    }

    /// The last unit known to be durable.
    #[must_use]
    pub fn durable(&self) -> WriteId {
        self.durable
    }

    /// What the write-through tail holds, in bytes.
    #[must_use]
    pub fn tail_weight(&self) -> usize {
        self.tail.weight()
    }

    /// What was dropped and done so far.
    #[must_use]
    pub fn counters(&self) -> HostCounters {
        self.counters
    }

    /// Bounds the messages to one peer that wait for writes, from now on: further ones are dropped and counted.
    /// 1,024 unless set.
    pub fn hold_at_most(&mut self, messages_max: usize) {
        self.held_messages_max = messages_max;
    }

    /// Messages that wait for writes, to whichever peer the most of them do.
    #[must_use]
    pub fn held_messages(&self) -> usize {
        self.peers.iter().map(|link| link.held).max().unwrap_or(0)
    }

    /// Lets `probe` see every single step from now on.
    pub fn set_probe(&mut self, probe: Box<dyn Probe<M>>) {
        self.probe = Some(probe);
    }

    /// Consecutive entries from `from` on that are at hand; empty if the one at `from` is not.
    pub(crate) fn run_from(&self, from: LogIndex) -> Entries {
        self.tail.run_from(from)
    }
}

/// Every peer is greeted once at the start, so that it learns of this life.
fn links<M>(membership: &Membership, node: NodeId) -> Vec<Link<M>> {
    membership
        .peers_of(node)
        .map(|id| Link { id, incarnation: Incarnation(0), greet: true, held: 0, packets: Vec::new() })
        .collect()
}
