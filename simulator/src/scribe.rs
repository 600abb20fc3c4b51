//! A machine that orders nothing. It writes, overwrites, cuts off, compacts, loads and tells at random, and knows
//! what it must see: what [`synod_replica::Host`] owes *any* machine, with nothing else in the way.
//!
//! It is also the shape of an adapter for machines without a log: the machine, and a [`Subject`] around it.
//!
//! | invariant | what must hold |
//! |---|---|
//! | `load` | a load shows every write asked for before it, durable or not |
//! | RI9 | a message that waits for a write leaves once that write and all before it are durable |
//! | ST1, ST4 | a restart finds the state after a prefix of the units that holds every durable one |
//! | `bound` | no more messages wait for writes than may |
//! | `lives` | once a peer's later life was heard, nothing of an earlier one is; nothing meant for an earlier life is |

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;
use synod_core::{
    Compacted, Effects, Entries, Entry, Envelope, GroupId, Inbound, Incarnation, IndexRange, Input, Instant,
    Kind, LoadId, Loaded, LogIndex, Machine, Membership, NodeId, OpenError, Recovered, Reign, RequestId,
    Stamp, Start, WriteId,
};
use synod_replica::{Actions, Host};

use crate::clock::Time;
use crate::disk::Disk;
use crate::log::count_host;
use crate::observer::{Checked, Violation, bounds, recovery, violation};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::{Chance, Rng};
use crate::subject::{Agenda, Moment, NodeState, NodeView, Output, Subject, Tally};

/// The machine.
#[derive(Debug)]
pub struct Scribe {
    life: Incarnation,
    /// What it asked to be written, each with its unit.
    written: Vec<(WriteId, Change)>,
    /// How many of those somebody may wait for.
    changes: u64,
    /// Messages it was given.
    heard: u64,
    loads: BTreeMap<LoadId, u64>,
}

/// A change of the log or of the hard state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts so many entries from here on, under a stamp of their own.
    Put {
        /// The first position.
        from: u64,
        /// How many.
        count: u64,
        /// Names this put for ever.
        stamp: u64,
    },
    /// Removes everything from here on.
    Truncate(u64),
    /// Removes everything through here.
    Compact(u64),
    /// Replaces the hard state.
    HardState(u64),
}

impl Change {
    /// False for what may be written whenever it suits the host.
    fn is_waited_for(self) -> bool {
        !matches!(self, Change::Compact(_))
    }
}

/// What the simulator has the machine do.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// Ask for a change.
    Write(Change),
    /// Load positions; the answer is named so.
    Load {
        /// Its name.
        tag: u64,
        /// What to load.
        range: IndexRange,
        /// How much at most.
        bytes_max: usize,
    },
    /// Tell a peer that everything asked for so far is durable.
    Tell(NodeId),
}

/// Everything that its sender had asked to be written is durable there; compaction, which nobody waits for, apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The sender's life.
    pub life: Incarnation,
    /// How many changes those are.
    pub changes: u64,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "told {} changes of {}", self.changes, self.life)
    }
}

/// What the machine tells the simulator.
#[derive(Debug)]
pub enum Said {
    /// A load was answered.
    Loaded {
        /// Its name.
        tag: u64,
        /// The answer.
        result: Result<Loaded, Compacted>,
    },
    /// A peer told something.
    Heard {
        /// The peer.
        from: NodeId,
        /// What.
        told: Told,
    },
}

impl Machine for Scribe {
    type Config = ();
    type Message = Told;
    type Call = Vec<Task>;
    type Event = Said;

    fn open(start: Start<()>) -> Result<Scribe, OpenError> {
        Ok(Scribe {
            life: start.recovered.incarnation,
            written: Vec::new(),
            changes: 0,
            heard: 0,
            loads: BTreeMap::new(),
        })
    }

    fn step(&mut self, _: Instant, input: Input<Told, Vec<Task>>, effects: &mut Effects<Told, Said>) {
        match input {
            Input::Receive { from, message } => {
                self.heard += 1;
                effects.event(Said::Heard { from, told: message });
            }
            Input::Loaded { id, result } => {
                if let Some(tag) = self.loads.remove(&id) {
                    effects.event(Said::Loaded { tag, result });
                }
            }
            Input::Call(tasks) => {
                for task in tasks {
                    self.carry_out(task, effects);
                }
            }
            Input::Persisted(_) | Input::Tick => {}
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

impl Scribe {
    fn carry_out(&mut self, task: Task, effects: &mut Effects<Told, Said>) {
        match task {
            Task::Write(change) => {
                self.written.push((effects.write_id(), change));
                self.changes += u64::from(change.is_waited_for());
                match change {
                    Change::Put { from, count, stamp } => {
                        effects.put(entries(from, count, stamp));
                    }
                    Change::Truncate(from) => {
                        effects.truncate_from(LogIndex(from));
                    }
                    Change::Compact(through) => {
                        effects.compact_to(LogIndex(through));
                    }
                    Change::HardState(number) => {
                        effects.set_hard_state(Bytes::copy_from_slice(&number.to_le_bytes()));
                    }
                }
            }
            Task::Load { tag, range, bytes_max } => {
                self.loads.insert(effects.load(range, bytes_max), tag);
            }
            Task::Tell(to) => {
                effects.send_after_write(to, Told { life: self.life, changes: self.changes });
            }
        }
    }
}

fn entries(from: u64, count: u64, stamp: u64) -> Entries {
    Entries::numbered(LogIndex(from), vec![(); count as usize], |index, ()| Entry {
        index,
        stamp: Stamp { high: stamp, low: 0 },
        reign: Reign::default(),
        kind: Kind::Command,
        request: RequestId::NONE,
        payload: Bytes::new(),
    })
}

/// What a log and a hard state are after some changes: the plain way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    log: BTreeMap<u64, u64>,
    compacted: u64,
    hard_state: u64,
}

impl State {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Put { from, count, stamp } => self.log.extend((from..from + count).map(|at| (at, stamp))),
            Change::Truncate(from) => {
                self.log.split_off(&from);
            }
            Change::Compact(through) => {
                self.compacted = self.compacted.max(through);
                self.log = self.log.split_off(&(through + 1));
            }
            Change::HardState(number) => self.hard_state = number,
        }
    }
}

/// What the observer knows of one node.
#[derive(Debug, Default)]
struct Node {
    /// After everything asked for.
    asked: State,
    durable: State,
    /// Asked for and not durable.
    in_flight: VecDeque<(WriteId, Change)>,
    /// Changes of this life, and how many of them are durable.
    changes: u64,
    durable_changes: u64,
    /// The loads that were not answered yet: what the log held when they were asked for, and since.
    loads: BTreeMap<u64, Pending>,
    /// The latest life heard of each peer, in this life.
    heard: BTreeMap<NodeId, Incarnation>,
}

#[derive(Debug)]
struct Pending {
    range: IndexRange,
    /// For each position of the range: every stamp it has had since the load was asked for; 0 for none.
    seen: BTreeMap<u64, Vec<u64>>,
}

/// A cluster of scribes.
#[derive(Debug)]
pub struct Scribes {
    membership: Membership,
    tail_bytes_max: usize,
    held_messages_max: usize,
    think_mean: Time,
    /// Positions in use.
    places: u64,
    compacts: Chance,
    nodes: Vec<Node>,
    stamps: u64,
    tags: u64,
    rare: RareCounts,
    answered: u64,
    others: Vec<(NodeId, synod_core::Packet<Told>)>,
    actions: Actions<Told>,
    events: Vec<Said>,
    /// What an input showed, until the event ends.
    broken: Option<Violation>,
    /// Once faults have ended: loads below this one must be answered, changes below these be durable.
    healing: Option<(u64, Vec<u64>)>,
}

impl Scribes {
    /// The cluster of a seed.
    ///
    /// # Panics
    /// If there is no node.
    #[must_use]
    pub fn new(options: &Options, rng: &mut Rng) -> Scribes {
        Scribes {
            membership: Membership::of_ids(1..=options.replicas as u64).expect("there are nodes"),
            tail_bytes_max: options.node.tail_bytes_max,
            held_messages_max: options.node.held_messages_max,
            think_mean: options.clients.think_mean.max(options.disk.sync_mean / 16),
            places: rng.log_between(4, 64),
            compacts: rng.pick(&[Chance::NEVER, Chance::percent(1)]),
            nodes: (0..options.replicas).map(|_| Node::default()).collect(),
            stamps: 0,
            tags: 0,
            rare: RareCounts::default(),
            answered: 0,
            others: Vec::new(),
            actions: Actions::default(),
            events: Vec::new(),
            broken: None,
            healing: None,
        }
    }

    fn draw_task(&mut self, node: usize, rng: &mut Rng) -> Task {
        let compacted = self.nodes[node].asked.compacted;
        let place = compacted + rng.between(1, self.places);
        match rng.below(16) {
            0..6 => {
                self.stamps += 1;
                Task::Write(Change::Put { from: place, count: rng.between(1, 6), stamp: self.stamps })
            }
            6..8 => Task::Write(Change::Truncate(place)),
            8 => {
                self.stamps += 1;
                Task::Write(Change::HardState(self.stamps))
            }
            9 if rng.chance(self.compacts) => {
                Task::Write(Change::Compact(compacted + rng.below(self.places / 2)))
            }
            9..14 => {
                self.tags += 1;
                let range = IndexRange::new(LogIndex(place), LogIndex(place + rng.between(1, 12)));
                Task::Load { tag: self.tags, range, bytes_max: rng.pick(&[1, 400, 1 << 20]) }
            }
            _ => Task::Tell(NodeId(rng.between(1, self.nodes.len() as u64))),
        }
    }

    /// The node carries out what it was asked: the observer notes the same.
    fn note(&mut self, node: usize, tasks: &[Task], machine: &Scribe) {
        let ledger = &mut self.nodes[node];
        let new = tasks.iter().filter(|task| matches!(task, Task::Write(_))).count();
        let mut units = machine.written[machine.written.len() - new..].iter();
        for task in tasks {
            match *task {
                Task::Write(change) => {
                    let unit = units.next().map_or(WriteId(0), |(unit, _)| *unit);
                    ledger.asked.apply(change);
                    ledger.changes += u64::from(change.is_waited_for());
                    if let Change::Truncate(from) = change {
                        let cut = |(id, change): &(WriteId, Change)| {
                            *id == unit
                                && matches!(change, Change::Put { from: put, count, .. } if put + count > from)
                        };
                        self.rare[Rare::TruncatedInUnit] += u64::from(ledger.in_flight.iter().any(cut));
                    }
                    ledger.in_flight.push_back((unit, change));
                    if matches!(change, Change::HardState(_)) {
                        continue;
                    }
                    for pending in ledger.loads.values_mut() {
                        for (place, seen) in &mut pending.seen {
                            let stamp = ledger.asked.log.get(place).copied().unwrap_or(0);
                            if seen.last() != Some(&stamp) {
                                seen.push(stamp);
                            }
                        }
                    }
                }
                Task::Load { tag, range, .. } => {
                    let stamp = |place: u64| ledger.asked.log.get(&place).copied().unwrap_or(0);
                    let seen = (range.from.0..range.to.0).map(|place| (place, vec![stamp(place)])).collect();
                    ledger.loads.insert(tag, Pending { range, seen });
                }
                Task::Tell(_) => {}
            }
        }
    }

    fn on_said(&mut self, node: usize, said: Said) -> Checked {
        let ledger = &mut self.nodes[node];
        match said {
            Said::Heard { from, told } => {
                let latest = ledger.heard.entry(from).or_default();
                if told.life < *latest {
                    let what = format!("n{} heard {} of {from} after {latest}", node + 1, told.life);
                    return Err(violation("lives", what));
                }
                *latest = told.life;
                Ok(())
            }
            Said::Loaded { tag, result } => {
                let Some(pending) = ledger.loads.remove(&tag) else {
                    return Err(violation("load", format!("n{}: load {tag} was answered twice", node + 1)));
                };
                self.answered += 1;
                check_answer(node, &pending, &result, ledger.asked.compacted)
            }
        }
    }
}

fn check_answer(
    node: usize,
    pending: &Pending,
    result: &Result<Loaded, Compacted>,
    compacted: u64,
) -> Checked {
    let range = pending.range;
    let loaded = match result {
        Err(_) if range.from.0 <= compacted => return Ok(()),
        Err(Compacted { through }) => {
            return Err(violation(
                "load",
                format!("n{}: {range} is called compacted through {through}", node + 1),
            ));
        }
        Ok(loaded) => loaded,
    };
    let found: BTreeMap<u64, u64> = loaded
        .segments
        .iter()
        .flat_map(|segment| segment.iter())
        .map(|entry| (entry.index.0, entry.stamp.high))
        .collect();
    for place in range.from.0..loaded.to.0.min(range.to.0) {
        let stamp = found.get(&place).copied().unwrap_or(0);
        // A position that was compacted since may be shown or not.
        if place > compacted && !pending.seen[&place].contains(&stamp) {
            return Err(violation(
                "load",
                format!(
                    "n{}: at {place} a load shows {stamp}, and since it was asked there was only {:?}",
                    node + 1,
                    pending.seen[&place]
                ),
            ));
        }
    }
    Ok(())
}

impl Subject for Scribes {
    type Message = Told;
    type Node = Host<Scribe>;
    type Call = Vec<Task>;

    fn open(&mut self, moment: Moment, recovered: Recovered, seed: u64) -> Result<Host<Scribe>, Violation> {
        let ledger = &mut self.nodes[moment.node];
        let mut found =
            State { compacted: recovered.compacted.map_or(0, |(index, _)| index.0), ..State::default() };
        for run in &recovered.runs {
            let places = run.from.0..=run.to.0;
            found.log.extend(places.map(|place| (place, run.stamp_at(LogIndex(place)).high)));
        }
        let hard_state = recovered.hard_state.as_ref().and_then(|bytes| bytes.first_chunk::<8>());
        found.hard_state = hard_state.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        recovery::hard_state(moment.node, &found.hard_state, &ledger.durable.hard_state)?;
        recovery::log(moment.node, &found, &ledger.durable)?;
        ledger.asked = ledger.durable.clone();
        let start = Start {
            node: NodeId(moment.node as u64 + 1),
            membership: self.membership.clone(),
            config: (),
            recovered,
            now: moment.now,
            seed,
        };
        let mut host = Host::open(start, GroupId(0), self.tail_bytes_max)
            .map_err(|error| violation("ST1", format!("n{} does not open: {error}", moment.node + 1)))?;
        host.hold_at_most(self.held_messages_max);
        Ok(host)
    }

    fn receive(&mut self, moment: Moment, node: &mut Host<Scribe>, inbound: Inbound<Told>) {
        let meant_for = inbound.envelope.to_incarnation;
        let outlived = meant_for != Incarnation(0) && meant_for != node.incarnation();
        let before = node.machine().heard;
        node.receive(moment.now, inbound, &mut self.others);
        if outlived && node.machine().heard != before {
            let what = format!(
                "n{} in {} heard what was meant for {meant_for}",
                moment.node + 1,
                node.incarnation()
            );
            self.broken = Some(violation("lives", what));
        }
    }

    fn persisted(&mut self, moment: Moment, node: &mut Host<Scribe>, through: WriteId) {
        node.persisted(moment.now, through);
    }

    fn loaded(&mut self, _: Moment, node: &mut Host<Scribe>, id: LoadId, result: Result<Loaded, Compacted>) {
        node.loaded(id, result);
    }

    fn call(&mut self, moment: Moment, node: &mut Host<Scribe>, mut tasks: Vec<Task>) {
        // Since the tasks were drawn, what they write to may have been compacted: nobody does that.
        let mut compacted = self.nodes[moment.node].asked.compacted;
        tasks.retain(|task| match *task {
            Task::Write(Change::Put { from: place, .. } | Change::Truncate(place)) => place > compacted,
            Task::Write(Change::Compact(through)) => {
                compacted = compacted.max(through);
                true
            }
            _ => true,
        });
        node.step(moment.now, Input::Call(tasks.clone()));
        self.note(moment.node, &tasks, node.machine());
    }

    fn tick(&mut self, moment: Moment, node: &mut Host<Scribe>) {
        node.step(moment.now, Input::Tick);
    }

    fn settle(&mut self, moment: Moment, node: &mut Host<Scribe>, output: &mut Output<Told>) {
        node.settle(moment.now, &mut self.actions);
        output.writes.append(&mut self.actions.writes);
    }

    fn flush(
        &mut self,
        moment: Moment,
        node: &mut Host<Scribe>,
        output: &mut Output<Told>,
        _: &mut Agenda,
    ) -> Checked {
        node.sort(moment.now, &mut self.actions, &mut self.events);
        node.finish(&mut self.actions);
        output.writes.append(&mut self.actions.writes);
        std::mem::swap(&mut output.envelopes, &mut self.actions.envelopes);
        std::mem::swap(&mut output.loads, &mut self.actions.loads);
        let mut events = std::mem::take(&mut self.events);
        for said in events.drain(..) {
            self.on_said(moment.node, said)?;
        }
        self.events = events;
        Ok(())
    }

    fn has_work(&self, node: &Host<Scribe>) -> bool {
        node.has_work()
    }

    fn next_deadline(&self, node: &Host<Scribe>) -> Option<Instant> {
        node.next_deadline()
    }

    fn durable(&mut self, node: usize, through: WriteId, _: &Disk) -> Checked {
        let ledger = &mut self.nodes[node];
        while let Some((_, change)) = ledger.in_flight.front().copied().filter(|(unit, _)| *unit <= through) {
            ledger.in_flight.pop_front();
            ledger.durable.apply(change);
            ledger.durable_changes += u64::from(change.is_waited_for());
        }
        Ok(())
    }

    fn crashed(
        &mut self,
        _: Time,
        node: usize,
        last: &Host<Scribe>,
        kept: WriteId,
        disk: &Disk,
        _: &mut Agenda,
    ) -> Checked {
        self.durable(node, kept, disk)?;
        count_host(&mut self.rare, last.counters());
        let ledger = &mut self.nodes[node];
        self.rare[Rare::EntriesLost] += ledger.in_flight.len() as u64;
        ledger.in_flight.clear();
        ledger.loads.clear();
        ledger.heard.clear();
        (ledger.changes, ledger.durable_changes) = (0, 0);
        Ok(())
    }

    fn sent(&mut self, node: usize, _: usize, envelope: &Envelope<Told>) -> Checked {
        for packet in &envelope.packets {
            if let synod_core::Packet::Protocol(told) = packet
                && told.changes > self.nodes[node].durable_changes
            {
                let durable = self.nodes[node].durable_changes;
                return Err(violation(
                    "RI9",
                    format!("n{} tells of {} changes, {durable} are durable", node + 1, told.changes),
                ));
            }
        }
        Ok(())
    }

    fn fingerprint(message: &Told) -> u64 {
        message.changes ^ message.life.0 << 40
    }

    fn describe_call(client: u32, tasks: &Vec<Task>) -> String {
        format!("client {client}: {tasks:?}")
    }

    fn wake(
        &mut self,
        at: Time,
        client: u32,
        nodes: &[NodeView],
        rng: &mut Rng,
        agenda: &mut Agenda,
    ) -> Vec<(usize, Vec<Task>)> {
        agenda.wakes.push((at + 1 + rng.exponential(self.think_mean), client));
        let node = rng.index(nodes.len());
        if !nodes[node].up || !nodes[node].open {
            return Vec::new();
        }
        vec![(node, (0..=rng.below(4)).map(|_| self.draw_task(node, rng)).collect())]
    }

    fn check(&mut self, moment: Moment, node: &Host<Scribe>) -> Checked {
        self.broken.take().map_or(Ok(()), Err)?;
        bounds::held(moment.node, node.held_messages(), self.held_messages_max)
    }

    fn leader(&self) -> Option<usize> {
        None
    }

    fn has_begun(&self) -> bool {
        true
    }

    fn heal(&mut self, _: Time, _: &[usize], _: &mut Rng, _: &mut Agenda) {
        self.think_mean = self.think_mean.min(crate::clock::MILLISECOND);
        let changes = self.nodes.iter().map(|node| node.changes).collect();
        self.healing = Some((self.tags, changes));
    }

    fn is_healed(&self, core: &[(usize, &Host<Scribe>)]) -> bool {
        let Some((tags, changes)) = &self.healing else { return false };
        core.iter().all(|(at, _)| {
            let node = &self.nodes[*at];
            // A node that restarted since has less to make durable, and then some.
            node.durable_changes >= changes[*at].min(16) && node.loads.keys().all(|tag| tag > tags)
        })
    }

    fn missing(&self, core: &[(usize, &Host<Scribe>)]) -> String {
        let stand: Vec<String> = core
            .iter()
            .map(|(at, _)| {
                let node = &self.nodes[*at];
                format!(
                    "n{}: {} of {} changes durable, {} loads open",
                    at + 1,
                    node.durable_changes,
                    node.changes,
                    node.loads.len()
                )
            })
            .collect();
        stand.join("; ")
    }

    fn finish(&mut self, core: &[(usize, &Host<Scribe>)]) -> Checked {
        for (_, node) in core {
            count_host(&mut self.rare, node.counters());
        }
        Ok(())
    }

    fn describe(&self, _: &Host<Scribe>) -> NodeState {
        NodeState { role: "scribe", ..NodeState::default() }
    }

    fn tally(&self) -> Tally {
        Tally { decided: 0, client_ops: self.answered, rare: self.rare }
    }
}

/// The rare paths that a long sweep must have taken.
pub const EXPECTED: &[Rare] = &[
    Rare::TruncatedInUnit,
    Rare::EntriesLost,
    Rare::CrashInFlush,
    Rare::Held,
    Rare::HeldTooMany,
    Rare::StaleSender,
    Rare::StaleReceiver,
    Rare::LoadedFromStorage,
    Rare::LoadedFromTail,
];
