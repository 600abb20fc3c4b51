//! A cluster in one thread, with virtual time, a network and disks that the test controls.
//!
//! After every step it checks what must hold at all times: one decision in a slot, chosen by durable votes of one
//! ballot; a promise that never falls; and no message that leaves before what it reveals is durable.

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
use synod_multipaxos::{
    Accept, Ballot, CommitNotice, HardState, Heartbeat, Message, MultiPaxos, MultiPaxosConfig,
};

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
    /// A disk with these votes, and the highest ballot of them (or of `round`) promised.
    pub fn with_votes(votes: &[Entry], promised: Ballot) -> Disk {
        let mut disk = Disk::default();
        for vote in votes {
            disk.log.put(Entries::new(vec![vote.clone()]).unwrap());
        }
        disk.hard_state = Some(HardState { promised, decided: LogIndex::ZERO }.to_bytes());
        disk
    }

    /// The same, knowing that everything through `decided` is.
    pub fn knowing(mut self, decided: u64) -> Disk {
        let HardState { promised, .. } = self.state();
        self.hard_state = Some(HardState { promised, decided: LogIndex(decided) }.to_bytes());
        self
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
        assert_eq!(unit.truncate_from, None, "an acceptor removes no vote");
        if let Some((index, stamp)) = unit.install {
            self.log.compact_to(index);
            self.compacted = Some((index, stamp));
        }
        for put in &unit.puts {
            self.log.put(put.clone());
        }
        if let Some(through) = unit.compact_to {
            self.compact(through.0);
        }
        if let Some(state) = &unit.hard_state {
            let (old, new) = (self.state(), HardState::from_bytes(state.clone()).unwrap());
            assert!(old.promised <= new.promised, "M3: a promise falls: {old:?} -> {new:?}");
            assert!(old.decided <= new.decided, "PX7: a watermark falls: {old:?} -> {new:?}");
            self.hard_state = Some(state.clone());
        }
    }

    /// What a storage gives back.
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
    pub paxos: Option<MultiPaxos>,
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
    pub config: MultiPaxosConfig,
    membership: Membership,
    pub nodes: BTreeMap<u64, Node>,
    pub network: VecDeque<Letter>,
    /// Ordered pairs that lose everything.
    cuts: BTreeSet<(u64, u64)>,
    /// Everything that left, for assertions.
    pub sent: Vec<Letter>,
    /// For each slot and stamp: the value, and who has durably voted for it.
    votes: BTreeMap<(LogIndex, Stamp), (Entry, synod_core::NodeSet)>,
    decided: BTreeMap<LogIndex, Entry>,
    /// For each ballot: what its leader said is decided.
    commits: BTreeMap<Ballot, LogIndex>,
    /// One line for each thing that happened, for golden files.
    pub trace: String,
    /// True: the test speaks for some replicas, and may lie: there is nothing to agree on, and what is decided
    /// need not be durable at theirs.
    pub scripted: bool,
    /// True: whoever is to be sent a snapshot gets one at once. False: none arrives.
    pub snapshots: bool,
}

impl Cluster {
    pub fn new(count: u64) -> Cluster {
        Cluster::with(count, MultiPaxos::config(), &[])
    }

    /// Replicas 1 to `count`, some of which have a history.
    pub fn with(count: u64, config: MultiPaxosConfig, disks: &[(u64, Disk)]) -> Cluster {
        let membership = Membership::of_ids(1..=count).unwrap();
        Cluster::of(membership, config, disks)
    }

    pub fn of(membership: Membership, config: MultiPaxosConfig, disks: &[(u64, Disk)]) -> Cluster {
        let mut cluster = Cluster {
            now: Instant(1_000_000_000),
            config,
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            cuts: BTreeSet::new(),
            sent: Vec::new(),
            votes: BTreeMap::new(),
            decided: BTreeMap::new(),
            commits: BTreeMap::new(),
            trace: String::new(),
            scripted: false,
            snapshots: false,
            membership,
        };
        let ids: Vec<u64> = cluster.membership.members().iter().map(|member| member.id.0).collect();
        for id in ids {
            let disk = disks.iter().find(|(node, _)| *node == id).map_or(Disk::default(), |(_, d)| d.clone());
            let node = Node {
                paxos: None,
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
            for entry in node.disk.log.segments().flat_map(|segment| segment.iter()) {
                let fresh = || (entry.clone(), synod_core::NodeSet::new());
                cluster.votes.entry((entry.index, entry.stamp)).or_insert_with(fresh).1.insert(NodeId(id));
            }
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
        node.paxos = Some(MultiPaxos::open(start).unwrap());
        node.effects = Effects::new();
        node.issued = node.disk.clone();
        node.persisted = WriteId(0);
    }

    /// Loses everything volatile, the writes that were not completed included.
    pub fn crash(&mut self, id: u64) {
        let node = self.node_mut(id);
        node.paxos = None;
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

    pub fn paxos(&self, id: u64) -> &MultiPaxos {
        self.node(id).paxos.as_ref().expect("the replica is up")
    }

    pub fn up(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| node.paxos.is_some()).map(|(id, _)| *id).collect()
    }

    pub fn role(&self, id: u64) -> Role {
        self.paxos(id).status().role
    }

    pub fn decided(&self, id: u64) -> u64 {
        self.paxos(id).status().decided.0
    }

    /// The highest ballot that a replica has promised.
    pub fn promised(&self, id: u64) -> Ballot {
        self.paxos(id).promised()
    }

    pub fn leader(&self) -> Option<u64> {
        let leaders = self.up().into_iter().filter(|id| self.role(*id) == Role::Leader);
        leaders.max_by_key(|id| self.paxos(*id).status().reign)
    }

    /// The rounds of the votes issued to the disk of a replica, slot by slot: 0 for none, 99 for known to be chosen.
    pub fn rounds(&self, id: u64) -> Vec<u64> {
        let log = &self.node(id).issued.log;
        let last = log.last_index().map_or(0, |index| index.0);
        let round = |entry: &Entry| if entry.stamp == Stamp::CHOSEN { 99 } else { entry.stamp.high };
        (1..=last).map(|slot| log.get(LogIndex(slot)).map_or(0, round)).collect()
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
        let Some(paxos) = &mut node.paxos else { return };
        for input in inputs {
            paxos.step(now, input, &mut node.effects);
        }
        paxos.flush(now, &mut node.effects);
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
        let index = self.paxos(from).status().decided;
        let meta = self.snapshot_of(from, index.0).filter(|_| self.snapshots);
        let outcome = match meta {
            Some(meta) if self.node(to).paxos.is_some() => {
                self.offer(to, from, meta);
                SnapshotOutcome::Taken(index)
            }
            _ => SnapshotOutcome::Failed,
        };
        self.step(from, Input::Call(LogCall::SnapshotSent { to: NodeId(to), outcome }));
    }

    /// What a snapshot of `id` through `index` would say.
    pub fn snapshot_of(&self, id: u64, index: u64) -> Option<SnapshotMeta> {
        let described = self.paxos(id).describe(LogIndex(index))?;
        Some(SnapshotMeta {
            index: LogIndex(index),
            stamp: described.stamp,
            reign: Reign::default(),
            membership: Membership::clone(&described.membership),
        })
    }

    /// Offers a snapshot that `by` took to a replica.
    pub fn offer(&mut self, to: u64, by: u64, meta: SnapshotMeta) {
        let id = SnapshotId { index: meta.index, taken_by: NodeId(by), life: Incarnation(1) };
        self.step(to, Input::Call(LogCall::SnapshotArrived { id, meta }));
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
                let _ = write!(self.trace, " promised {} decided {}", state.promised, state.decided);
            }
            if let Some((index, _)) = unit.install {
                let _ = write!(self.trace, " install {index}");
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
        let Letter { from, message, .. } = &letter;
        let node = &self.nodes[from];
        let promised = node.disk.state().promised;
        match message {
            Message::Prepare(prepare) => {
                assert!(
                    promised >= prepare.ballot,
                    "PX5: campaigns before its own promise is durable: {letter}"
                );
            }
            Message::Promise(promise) => {
                assert!(promised >= promise.ballot, "reveals its promise early: {letter}");
            }
            Message::Accepted(accepted) => {
                assert!(promised >= accepted.ballot, "reveals its vote early: {letter}");
                let settled = self.commits.get(&accepted.ballot).copied().unwrap_or_default();
                let mut slot = settled.next();
                // A scripted peer may have said that anything is decided.
                while !self.scripted && slot <= accepted.through {
                    let voters = self.votes.get(&(slot, accepted.ballot.stamp())).map(|(_, voters)| voters);
                    let voted = voters.is_some_and(|voters| {
                        // Or it is decided in this very ballot.
                        let quorums = self.membership.quorums();
                        voters.contains(NodeId(*from)) || quorums.is_replication_quorum(voters)
                    });
                    assert!(
                        voted || self.scripted,
                        "acknowledges slot {slot}, which is not durable: {letter}"
                    );
                    slot = slot.next();
                }
            }
            Message::Accept(Accept { ballot, first, commit, .. })
            | Message::Heartbeat(Heartbeat { ballot, first, commit, .. })
            | Message::CommitNotice(CommitNotice { ballot, first, commit }) => {
                let settled = self.commits.entry(*ballot).or_default();
                *settled = (*settled).max(first.prev()).max(*commit);
            }
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
        for entry in unit.puts.iter().flat_map(|put| put.iter()).filter(|entry| entry.stamp != Stamp::CHOSEN)
        {
            let fresh = || (entry.clone(), synod_core::NodeSet::new());
            let (value, voters) = self.votes.entry((entry.index, entry.stamp)).or_insert_with(fresh);
            assert!(value.same_value(entry), "M4: two values for {entry}");
            voters.insert(NodeId(id));
        }
        let node = self.node_mut(id);
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

    pub fn heal_between(&mut self, a: u64, b: u64) {
        self.cuts.remove(&(a, b));
        self.cuts.remove(&(b, a));
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
            let due =
                self.up().into_iter().filter_map(|id| Some((self.paxos(id).next_deadline()?, id))).min();
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
        while let Some(at) = self.paxos(id).next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(id, Input::Tick);
        }
        self.now = end;
    }

    /// Waits until the replica's deadline and ticks it alone. Nothing is delivered.
    pub fn time_out(&mut self, id: u64) {
        let at = self.paxos(id).next_deadline().unwrap();
        self.now = self.now.max(at);
        self.step(id, Input::Tick);
    }

    /// Makes a replica the leader, everything being delivered.
    pub fn elect(&mut self, id: u64) {
        self.time_out(id);
        self.settle();
        assert_eq!(self.role(id), Role::Leader, "n{id} was not elected\n{}", self.trace);
    }

    /// A cluster whose replica 1 leads.
    pub fn led_by_one(count: u64) -> Cluster {
        let mut cluster = Cluster::new(count);
        cluster.elect(1);
        cluster.advance(HEARTBEAT);
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
        let status = self.paxos(id).status();
        if self.scripted {
            return;
        }
        let issued = &self.nodes[&id].issued.log;
        let compacted = self.nodes[&id].issued.compacted.map_or(LogIndex::ZERO, |(index, _)| index);
        let first = compacted.next();
        let known = self.decided.last_key_value().map_or(LogIndex::ZERO, |(index, _)| *index);
        let mut slot = first.max(LogIndex(status.decided.0.min(known.0).saturating_sub(8)));
        while slot <= status.decided {
            let entry = issued.get(slot).expect("PX7: a decided slot is filled");
            let agreed = self.decided.entry(slot).or_insert_with(|| entry.clone());
            assert!(agreed.same_value(entry), "M1: n{id} decided something else in slot {slot}");
            slot = slot.next();
        }
        // What is decided is chosen: a replication quorum has durably voted for it in one ballot.
        let mut slot = known.next();
        while slot <= status.decided {
            let ballots = self.votes.range((slot, Stamp::ZERO)..(slot.next(), Stamp::ZERO));
            let quorums = self.membership.quorums();
            let mut chosen = ballots.filter(|(_, (_, voters))| quorums.is_replication_quorum(voters));
            assert!(
                chosen.any(|(_, (value, _))| value.same_value(&self.decided[&slot])),
                "n{id} takes slot {slot} for decided, and nobody chose it"
            );
            slot = slot.next();
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

/// Ballot `round` of replica `node`.
pub fn ballot(round: u64, node: u64) -> Ballot {
    Ballot { round, node: NodeId(node) }
}

/// A vote in `ballot` for a value that names itself.
pub fn vote(slot: u64, ballot: Ballot, value: &str) -> Entry {
    Entry {
        index: LogIndex(slot),
        stamp: ballot.stamp(),
        reign: ballot.reign(),
        kind: Kind::Command,
        request: RequestId::NONE,
        payload: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// Votes in `ballot` for consecutive slots.
pub fn entries(first: u64, ballot: Ballot, values: &[&str]) -> Entries {
    let votes: Vec<Entry> = (first..).zip(values).map(|(slot, value)| vote(slot, ballot, value)).collect();
    Entries::new(votes).unwrap()
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
