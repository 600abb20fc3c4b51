//! A cluster in one thread, with virtual time, a network and disks that the test controls.
//!
//! After every step it checks what must hold at all times: one leader in an epoch, one decision at an index,
//! epochs that never go back, and no message that leaves before what it reveals is durable.

#![allow(dead_code, unreachable_pub)] // Each test binary uses a part of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    ClientId, Command, Compacted, Effects, Entries, Entry, Incarnation, Input, Instant, Kind, Load, LogCall,
    LogEvent, LogIndex, Machine, Membership, NodeId, Protocol, ReadId, ReadMode, Recovered, Reign, RequestId,
    Role, Run, Sequence, SnapshotId, SnapshotMeta, SnapshotOutcome, SparseLog, Stamp, Start, Wire, Write,
    WriteId,
};
use synod_zab::{Epoch, HardState, Message, Place, Zab, ZabConfig, Zxid};

/// The default election timeout.
pub const TIMEOUT: Duration = Duration::from_millis(150);
/// The default heartbeat interval.
pub const HEARTBEAT: Duration = Duration::from_millis(50);

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub from: u64,
    pub to: u64,
    pub message: Message,
}

impl std::fmt::Display for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "n{} -> n{} {}", self.from, self.to, self.message)
    }
}

/// What completed writes left.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard_state: Option<Bytes>,
    pub log: SparseLog,
    pub compacted: Option<(LogIndex, Stamp)>,
}

impl Disk {
    /// A disk that holds entries of these epochs, from index 1, and these epochs as promised and taken over.
    pub fn with_history(epochs: &[u64], accepted: u64, current: u64) -> Disk {
        let mut disk = Disk::default();
        disk.log.put(entries(Place::ZERO, epochs));
        let state = HardState {
            accepted: Epoch(accepted),
            promised_to: (accepted > 0).then_some(NodeId(9)),
            current: Epoch(current),
        };
        disk.hard_state = Some(state.to_bytes());
        disk
    }

    pub fn state(&self) -> HardState {
        self.hard_state.clone().map_or(HardState::default(), |bytes| HardState::from_bytes(bytes).unwrap())
    }

    pub fn last_index(&self) -> u64 {
        self.log.last_index().or(self.compacted.map(|(index, _)| index)).map_or(0, |index| index.0)
    }

    /// Removes everything through `index`.
    pub fn compact(&mut self, index: u64) {
        let stamp = self.log.get(LogIndex(index)).unwrap().stamp;
        self.log.compact_to(LogIndex(index));
        self.compacted = Some((LogIndex(index), stamp));
    }

    fn apply(&mut self, unit: &Write) {
        if let Some((index, stamp)) = unit.install {
            self.log.compact_to(index);
            self.compacted = Some((index, stamp));
        }
        if let Some(from) = unit.truncate_from {
            self.log.truncate_from(from);
        }
        for put in &unit.puts {
            self.log.put(put.clone());
        }
        if let Some(through) = unit.compact_to {
            self.compact(through.0);
        }
        if let Some(state) = &unit.hard_state {
            let (old, new) = (self.state(), HardState::from_bytes(state.clone()).unwrap());
            let kept = old.accepted < new.accepted || old.promised_to == new.promised_to;
            assert!(
                kept && old.accepted <= new.accepted && old.current <= new.current,
                "epochs never go back: {old:?} -> {new:?}"
            );
            self.hard_state = Some(state.clone());
        }
    }

    fn recovered(&self, life: u64) -> Recovered {
        let mut runs = Vec::new();
        let all: Vec<&Entry> = self.log.segments().flat_map(|segment| segment.iter()).collect();
        for entry in &all {
            Run::extend(&mut runs, entry.index, entry.stamp);
        }
        Recovered {
            incarnation: Incarnation(life),
            hard_state: self.hard_state.clone(),
            compacted: self.compacted,
            runs,
            marked: all.into_iter().filter(|entry| entry.kind != Kind::Command).cloned().collect(),
        }
    }
}

/// One replica and its surroundings.
pub struct Node {
    pub zab: Option<Zab>,
    effects: Effects<Message, LogEvent>,
    /// What a crash leaves.
    pub disk: Disk,
    /// What a load observes: everything issued.
    issued: Disk,
    pub pending: VecDeque<Write>,
    held: Vec<(WriteId, Letter)>,
    pub persisted: WriteId,
    /// True: writes stay pending until the test completes them.
    pub slow_disk: bool,
    /// True: loads stay pending until the test answers them.
    pub slow_loads: bool,
    pub loads: VecDeque<Load>,
    pub events: Vec<LogEvent>,
    life: u64,
}

/// Everything.
pub struct Cluster {
    pub now: Instant,
    pub config: ZabConfig,
    membership: Membership,
    pub nodes: BTreeMap<u64, Node>,
    pub network: VecDeque<Letter>,
    /// Ordered pairs that lose everything.
    cuts: BTreeSet<(u64, u64)>,
    /// Everything that left, for assertions.
    pub sent: Vec<Letter>,
    leaders: BTreeMap<u64, u64>,
    decided: BTreeMap<LogIndex, Entry>,
    /// One line for each thing that happened, for golden files.
    pub trace: String,
    /// True: the test speaks for some replicas, and may lie: there is nothing to agree on, and what is decided
    /// need not be durable at theirs.
    pub scripted: bool,
    /// True: whoever is to be sent a snapshot gets one at once. False: none arrives.
    pub snapshots: bool,
    /// `Some`: snapshots are on their way until the test takes them from here.
    pub parcels: Option<Vec<Parcel>>,
}

/// A snapshot on its way.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub from: u64,
    pub to: u64,
    pub meta: SnapshotMeta,
    /// Of the sender: whoever began anew knows of no parcel.
    pub life: u64,
}

impl Cluster {
    pub fn new(count: u64) -> Cluster {
        Cluster::with(count, Zab::config(), &[])
    }

    /// Replicas 1 to `count`, some of which have a history.
    pub fn with(count: u64, config: ZabConfig, disks: &[(u64, Disk)]) -> Cluster {
        let membership = Membership::of_ids(1..=count).unwrap();
        Cluster::of(membership, config, disks)
    }

    pub fn of(membership: Membership, config: ZabConfig, disks: &[(u64, Disk)]) -> Cluster {
        let mut cluster = Cluster {
            now: Instant(1_000_000_000),
            config,
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            cuts: BTreeSet::new(),
            sent: Vec::new(),
            leaders: BTreeMap::new(),
            decided: BTreeMap::new(),
            trace: String::new(),
            scripted: false,
            snapshots: false,
            parcels: None,
            membership,
        };
        let ids: Vec<u64> = cluster.membership.members().iter().map(|member| member.id.0).collect();
        for id in ids {
            let disk = disks.iter().find(|(node, _)| *node == id).map_or(Disk::default(), |(_, d)| d.clone());
            let node = Node {
                zab: None,
                effects: Effects::new(),
                issued: disk.clone(),
                disk,
                pending: VecDeque::new(),
                held: Vec::new(),
                persisted: WriteId(0),
                slow_disk: false,
                slow_loads: false,
                loads: VecDeque::new(),
                events: Vec::new(),
                life: 0,
            };
            cluster.nodes.insert(id, node);
            cluster.start(id);
        }
        cluster
    }

    // --- replicas ---

    /// Opens a replica on what its disk holds.
    pub fn start(&mut self, id: u64) {
        let config = self.config.clone();
        let membership = self.membership.clone();
        let now = self.now;
        let node = self.node_mut(id);
        node.life += 1;
        let recovered = node.disk.recovered(node.life);
        let seed = node.life;
        let start = Start { node: NodeId(id), membership, config, recovered, now, seed };
        node.zab = Some(Zab::open(start).unwrap());
        node.effects = Effects::new();
        node.issued = node.disk.clone();
        node.persisted = WriteId(0);
    }

    /// Loses everything volatile, the writes that were not completed included.
    pub fn crash(&mut self, id: u64) {
        let node = self.node_mut(id);
        node.zab = None;
        node.pending.clear();
        node.held.clear();
        node.loads.clear();
        // A new life drops what was on its way to the old one.
        self.network.retain(|letter| letter.to != id && letter.from != id);
    }

    pub fn restart(&mut self, id: u64) {
        self.crash(id);
        self.start(id);
    }

    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    pub fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    pub fn zab(&self, id: u64) -> &Zab {
        self.node(id).zab.as_ref().expect("the replica is up")
    }

    pub fn up(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| node.zab.is_some()).map(|(id, _)| *id).collect()
    }

    pub fn role(&self, id: u64) -> Role {
        self.zab(id).status().role
    }

    pub fn decided(&self, id: u64) -> u64 {
        self.zab(id).status().decided.0
    }

    pub fn accepted(&self, id: u64) -> u64 {
        self.zab(id).accepted_epoch().0
    }

    pub fn current(&self, id: u64) -> u64 {
        self.zab(id).current_epoch().0
    }

    pub fn leader(&self) -> Option<u64> {
        let leaders = self.up().into_iter().filter(|id| self.role(*id) == Role::Leader);
        leaders.max_by_key(|id| self.current(*id))
    }

    /// The epochs of the entries issued to the disk of a replica, from index 1.
    pub fn epochs(&self, id: u64) -> Vec<u64> {
        self.node(id).issued.log.segments().flat_map(|s| s.iter()).map(|entry| entry.stamp.high).collect()
    }

    /// The payloads a replica holds as decided, no-ops left out.
    pub fn payloads(&self, id: u64) -> Vec<String> {
        let decided = self.decided(id);
        let all = self.node(id).issued.log.segments().flat_map(|s| s.iter());
        all.filter(|entry| entry.index.0 <= decided && entry.kind == Kind::Command)
            .map(|entry| String::from_utf8(entry.payload.to_vec()).unwrap())
            .collect()
    }

    // --- inputs ---

    /// One input, one flush.
    pub fn step(&mut self, id: u64, input: Input<Message, LogCall>) {
        self.batch(id, vec![input]);
    }

    /// Several inputs, one flush.
    pub fn batch(&mut self, id: u64, inputs: Vec<Input<Message, LogCall>>) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(zab) = &mut node.zab else { return };
        for input in inputs {
            zab.step(now, input, &mut node.effects);
        }
        zab.flush(now, &mut node.effects);
        let seen = self.nodes[&id].events.len();
        self.drain(id);
        self.check(id);
        let asked = self.nodes[&id].events[seen..].iter().filter_map(|event| match event {
            LogEvent::SendSnapshot { to } => Some(to.0),
            _ => None,
        });
        for to in asked.collect::<Vec<_>>() {
            self.send_snapshot(id, to);
        }
    }

    /// The host's part of sending a snapshot.
    fn send_snapshot(&mut self, from: u64, to: u64) {
        let index = self.zab(from).status().decided;
        let meta = self.snapshot_of(from, index.0).filter(|_| self.snapshots);
        let life = self.node(from).life;
        if let (Some(parcels), Some(meta)) = (&mut self.parcels, &meta) {
            parcels.push(Parcel { from, to, meta: meta.clone(), life });
            return;
        }
        let outcome = match meta {
            Some(meta) if self.node(to).zab.is_some() => {
                self.offer(to, meta);
                SnapshotOutcome::Taken(index)
            }
            _ => SnapshotOutcome::Failed,
        };
        self.step(from, Input::Call(LogCall::SnapshotSent { to: NodeId(to), outcome }));
    }

    /// Tells the sender of a parcel what became of it.
    pub fn parcel_ended(&mut self, parcel: &Parcel, taken: bool) {
        let Parcel { from, to, ref meta, life } = *parcel;
        let outcome = if taken { SnapshotOutcome::Taken(meta.index) } else { SnapshotOutcome::Failed };
        if self.node(from).life == life {
            self.step(from, Input::Call(LogCall::SnapshotSent { to: NodeId(to), outcome }));
        }
    }

    /// What a snapshot of `id` through `index` would say.
    pub fn snapshot_of(&self, id: u64, index: u64) -> Option<SnapshotMeta> {
        let described = self.zab(id).describe(LogIndex(index))?;
        Some(SnapshotMeta {
            index: LogIndex(index),
            stamp: described.stamp,
            reign: Reign::default(),
            membership: Membership::clone(&described.membership),
        })
    }

    /// Offers a snapshot to a replica.
    pub fn offer(&mut self, to: u64, meta: SnapshotMeta) {
        self.step(to, arrived(meta));
    }

    /// Takes a snapshot through `index` and has everything at or below `compact_to` removed.
    pub fn compact(&mut self, id: u64, index: u64, compact_to: u64) {
        let call = LogCall::SnapshotTaken { index: LogIndex(index), compact_to: LogIndex(compact_to) };
        self.step(id, Input::Call(call));
    }

    fn drain(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        let unit = node.effects.settle();
        if let Some(unit) = unit {
            let _ = write!(self.trace, "n{id} write {}", unit.id);
            if let Some(state) = &unit.hard_state {
                let state = HardState::from_bytes(state.clone()).unwrap();
                let to = state.promised_to.map_or("-".to_string(), |node| node.to_string());
                let _ = write!(self.trace, " accepted {} of {to} current {}", state.accepted, state.current);
            }
            if let Some((index, _)) = unit.install {
                let _ = write!(self.trace, " install {index}");
            }
            if let Some(from) = unit.truncate_from {
                let _ = write!(self.trace, " truncate {from}");
            }
            for put in &unit.puts {
                let _ = write!(self.trace, " put {put}");
            }
            if let Some(through) = unit.compact_to {
                let _ = write!(self.trace, " compact {through}");
            }
            self.trace.push('\n');
            node.issued.apply(&unit);
            node.pending.push_back(unit);
        }
        let sends: Vec<_> = node.effects.drain_sends().collect();
        node.loads.extend(node.effects.drain_loads());
        let events: Vec<LogEvent> = node.effects.drain_events().collect();
        for event in &events {
            let _ = writeln!(self.trace, "n{id} {}", event_line(event));
        }
        node.events.extend(events);
        for send in sends {
            let letter = Letter { from: id, to: send.to.0, message: send.message };
            match send.after {
                Some(write) if write > self.nodes[&id].persisted => {
                    let _ = writeln!(self.trace, "{letter} (after {write})");
                    self.node_mut(id).held.push((write, letter));
                }
                _ => {
                    let _ = writeln!(self.trace, "{letter}");
                    self.release(letter);
                }
            }
        }
    }

    /// A message leaves: everything it reveals must be durable.
    fn release(&mut self, letter: Letter) {
        let disk = &self.nodes[&letter.from].disk;
        let state = disk.state();
        if let Some(session) = letter.message.session() {
            assert!(state.accepted >= session.epoch, "reveals its promise early: {letter}");
        }
        match &letter.message {
            Message::FollowerInfo(info) => {
                assert!(state.accepted >= info.accepted, "reveals its promise early: {letter}");
            }
            Message::AckEpoch(ack) if ack.promised => assert!(
                state.accepted > ack.session.epoch || state.promised_to == Some(NodeId(letter.to)),
                "reveals its promise early: {letter}"
            ),
            Message::Ack(ack) => assert!(
                state.accepted > ack.session.epoch
                    || (state.current == ack.session.epoch && disk.last_index() >= ack.through.0),
                "acknowledges what is not durable: {letter}"
            ),
            _ => {}
        }
        self.sent.push(letter.clone());
        if !self.cuts.contains(&(letter.from, letter.to)) {
            self.network.push_back(letter);
        }
    }

    /// Completes the oldest pending write of a replica: first its messages leave, then it is told.
    pub fn persist_one(&mut self, id: u64) -> bool {
        let node = self.node_mut(id);
        let Some(unit) = node.pending.pop_front() else { return false };
        node.disk.apply(&unit);
        node.persisted = unit.id;
        let (due, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut node.held).into_iter().partition(|(write, _)| *write <= unit.id);
        node.held = held;
        let _ = writeln!(self.trace, "n{id} durable {}", unit.id);
        for (_, letter) in due {
            self.release(letter);
        }
        self.step(id, Input::Persisted(unit.id));
        true
    }

    /// Completes all pending writes of a replica.
    pub fn persist(&mut self, id: u64) {
        while self.persist_one(id) {}
    }

    /// Answers the oldest pending load from what was issued.
    pub fn load_one(&mut self, id: u64) -> bool {
        let node = self.node_mut(id);
        let Some(load) = node.loads.pop_front() else { return false };
        let result = match node.issued.compacted {
            Some((through, _)) if load.range.from <= through => Err(Compacted { through }),
            _ => Ok(node.issued.log.read(load.range, load.bytes_max)),
        };
        self.step(id, Input::Loaded { id: load.id, result });
        true
    }

    // --- the network ---

    /// Loses everything from `from` to `to`.
    pub fn cut_one_way(&mut self, from: u64, to: u64) {
        self.cuts.insert((from, to));
    }

    pub fn cut(&mut self, a: u64, b: u64) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    pub fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.cut(id, other);
        }
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Delivers one message that was taken out of, or never was in, the network.
    pub fn deliver(&mut self, letter: Letter) {
        let Letter { from, to, message } = letter;
        self.step(to, Input::Receive { from: NodeId(from), message });
    }

    pub fn receive(&mut self, from: u64, to: u64, message: Message) {
        self.deliver(Letter { from, to, message });
    }

    /// Takes the messages that fit out of the network.
    pub fn take(&mut self, mut fits: impl FnMut(&Letter) -> bool) -> Vec<Letter> {
        let (taken, left): (Vec<_>, Vec<_>) = self.network.drain(..).partition(|letter| fits(letter));
        self.network = left.into();
        taken
    }

    /// Delivers messages and completes writes and loads until nothing moves, in no virtual time.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if let Some(letter) = self.network.pop_front() {
                self.deliver(letter);
                continue;
            }
            let ids = self.up();
            if ids.iter().any(|id| !self.node(*id).slow_disk && self.persist_one(*id)) {
                continue;
            }
            if ids.iter().any(|id| !self.node(*id).slow_loads && self.load_one(*id)) {
                continue;
            }
            return;
        }
        panic!("a message storm: nothing settles");
    }

    // --- time ---

    /// Lets time pass, with every deadline met and every message delivered at once.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        loop {
            let due = self.up().into_iter().filter_map(|id| Some((self.zab(id).next_deadline()?, id))).min();
            match due {
                Some((at, id)) if at <= end => {
                    self.now = self.now.max(at);
                    self.step(id, Input::Tick);
                    self.settle();
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Lets time pass for one replica only: nobody else is ticked, nothing is delivered.
    pub fn advance_only(&mut self, id: u64, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.zab(id).next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(id, Input::Tick);
        }
        self.now = end;
    }

    /// Waits until the replica's deadline and ticks it alone. Nothing is delivered.
    pub fn time_out(&mut self, id: u64) {
        let at = self.zab(id).next_deadline().unwrap();
        self.now = self.now.max(at);
        self.step(id, Input::Tick);
    }

    /// Lets the replicas that are up elect one of them.
    pub fn elect(&mut self) -> u64 {
        for _ in 0..100 {
            if let Some(leader) = self.leader() {
                self.advance(HEARTBEAT);
                return leader;
            }
            self.advance(Duration::from_millis(10));
        }
        panic!("nobody was elected\n{}", self.trace);
    }

    /// A cluster in which the highest id leads, as it does among equals.
    pub fn led(count: u64) -> Cluster {
        let mut cluster = Cluster::new(count);
        assert_eq!(cluster.elect(), count);
        cluster
    }

    // --- calls ---

    pub fn propose(&mut self, id: u64, payloads: &[&str]) {
        let commands = payloads.iter().map(|payload| command(payload)).collect();
        self.step(id, Input::Call(LogCall::Propose(commands)));
    }

    pub fn read(&mut self, id: u64, read: u64) {
        self.step(id, Input::Call(LogCall::Read { id: ReadId(read), mode: ReadMode::Barrier }));
    }

    /// The events of a replica since they were taken last.
    pub fn take_events(&mut self, id: u64) -> Vec<LogEvent> {
        std::mem::take(&mut self.node_mut(id).events)
    }

    /// The messages that left since they were taken last.
    pub fn take_sent(&mut self) -> Vec<Letter> {
        std::mem::take(&mut self.sent)
    }

    pub fn take_trace(&mut self) -> String {
        std::mem::take(&mut self.trace)
    }

    // --- what must hold at all times ---

    fn check(&mut self, id: u64) {
        let status = self.zab(id).status();
        if self.scripted {
            return;
        }
        if status.role == Role::Leader {
            let known = *self.leaders.entry(status.reign.number).or_insert(id);
            assert_eq!(known, id, "two leaders are established in epoch {}", status.reign.number);
        }
        let issued = &self.nodes[&id].issued.log;
        let compacted = self.nodes[&id].issued.compacted.map_or(LogIndex::ZERO, |(index, _)| index);
        let first = compacted.next();
        let known = self.decided.last_key_value().map_or(LogIndex::ZERO, |(index, _)| *index);
        let mut index = first.max(LogIndex(status.decided.0.min(known.0).saturating_sub(8)));
        while index <= status.decided {
            let entry = issued.get(index).expect("a decided entry is in the log");
            let agreed = self.decided.entry(index).or_insert_with(|| entry.clone());
            assert_eq!(agreed, entry, "ZI3: n{id} decided something else");
            index = index.next();
        }
        // What is decided is durable at a majority.
        let newest = self.decided.last_key_value().map(|(index, entry)| (*index, entry.stamp));
        if let Some((index, stamp)) = newest.filter(|(index, _)| *index > known) {
            let holds = |disk: &Disk| {
                disk.log.get(index).is_some_and(|entry| entry.stamp == stamp)
                    || disk.compacted.is_some_and(|(through, _)| through >= index)
            };
            let holders = self.nodes.iter().filter(|(_, node)| holds(&node.disk));
            let holders: synod_core::NodeSet = holders.map(|(id, _)| NodeId(*id)).collect();
            assert!(
                self.membership.quorums().is_replication_quorum(&holders),
                "n{id} decided {index}, which is durable at {holders} only"
            );
        }
    }
}

/// A command that names itself.
pub fn command(payload: &str) -> Command {
    Command {
        kind: Kind::Command,
        request: RequestId { client: ClientId(1), sequence: Sequence(1), first_incomplete: Sequence(1) },
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

/// Entries of these epochs, right after `prev`.
pub fn entries(prev: Place, epochs: &[u64]) -> Entries {
    let mut last = prev.zxid;
    Entries::numbered(prev.index.next(), epochs.to_vec(), |index, epoch| {
        let counter = if Epoch(epoch) == last.epoch { last.counter + 1 } else { 1 };
        last = Zxid { epoch: Epoch(epoch), counter };
        Entry {
            index,
            stamp: last.stamp(),
            reign: synod_core::Reign { number: epoch, leader: NodeId(1) },
            kind: Kind::Command,
            request: RequestId::NONE,
            payload: Bytes::from(format!("{last}")),
        }
    })
}

/// A snapshot that ends with this entry.
pub fn ending_at(last: Place) -> SnapshotMeta {
    SnapshotMeta {
        index: last.index,
        stamp: last.zxid.stamp(),
        reign: Reign::default(),
        membership: Membership::of_ids([1, 2, 3]).unwrap(),
    }
}

/// The call that offers a snapshot.
pub fn arrived(meta: SnapshotMeta) -> Input<Message, LogCall> {
    let id = SnapshotId { index: meta.index, taken_by: NodeId(9), life: Incarnation(1) };
    Input::Call(LogCall::SnapshotArrived { id, meta })
}

/// The entry `epoch.counter`, at `index`.
pub fn at(epoch: u64, counter: u64, index: u64) -> Place {
    Place { zxid: Zxid { epoch: Epoch(epoch), counter }, index: LogIndex(index) }
}

/// One stable line for an event.
pub fn event_line(event: &LogEvent) -> String {
    match event {
        LogEvent::Decided(index) => format!("decided {index}"),
        LogEvent::ReadReady { id, index } => format!("read {id} ready at {index}"),
        LogEvent::ReadFailed { id, why } => format!("read {id} failed: {why}"),
        LogEvent::Refused { command, why } => {
            format!("refused {}: {why}", String::from_utf8_lossy(&command.payload))
        }
        LogEvent::Role(role) => format!("is {role}"),
        LogEvent::TransferFailed { why } => format!("transfer failed: {why}"),
        LogEvent::SendSnapshot { to } => format!("send a snapshot to {to}"),
        LogEvent::DiscardSnapshot(id) => format!("discard {id}"),
    }
}
