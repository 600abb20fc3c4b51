//! Replicas in one thread: every message takes one round, and the test says which of them arrive.

#![allow(unreachable_pub)] // One test binary.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    ClientId, Command, Effects, Entries, Entry, Incarnation, Input, Instant, Kind, Loaded, LogCall, LogEvent,
    LogIndex, Machine, Membership, NodeId, Protocol, ReadId, ReadMode, Recovered, RequestId, Role, Run,
    Sequence, SparseLog, Start, Write, WriteId,
};
use synod_multipaxos::{Ballot, FastPaxos, FastPaxosConfig, Message, Promise, Suggest, VoteRound, Voted};

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Letter {
    pub from: u64,
    pub to: u64,
    pub message: Message,
}

/// One replica, and its disk.
struct Node {
    paxos: FastPaxos,
    effects: Effects<Message, LogEvent>,
    hard_state: Option<Bytes>,
    log: SparseLog,
    /// Asked for and not durable.
    pending: VecDeque<Write>,
    held: Vec<(WriteId, Letter)>,
    persisted: WriteId,
    slow_disk: bool,
    life: u64,
    events: Vec<LogEvent>,
}

pub struct Cluster {
    pub now: Instant,
    config: FastPaxosConfig,
    membership: Membership,
    nodes: Vec<Node>,
    /// On their way: they arrive with the next round.
    pub network: Vec<Letter>,
    proposed: u64,
}

impl Cluster {
    pub fn new(count: u64) -> Cluster {
        Cluster::with(Membership::of_ids(1..=count).unwrap(), FastPaxos::config())
    }

    pub fn with(membership: Membership, config: FastPaxosConfig) -> Cluster {
        let mut cluster = Cluster {
            now: Instant(1_000_000_000),
            config,
            nodes: Vec::new(),
            network: Vec::new(),
            proposed: 0,
            membership,
        };
        for id in 1..=cluster.membership.members().len() as u64 {
            let paxos = cluster.open(id, Recovered { incarnation: Incarnation(1), ..Recovered::default() });
            cluster.nodes.push(Node {
                paxos,
                effects: Effects::new(),
                hard_state: None,
                log: SparseLog::default(),
                pending: VecDeque::new(),
                held: Vec::new(),
                persisted: WriteId(0),
                slow_disk: false,
                life: 1,
                events: Vec::new(),
            });
        }
        cluster
    }

    /// Replica 1 leads, everybody knows that its fast rounds are open, and nothing is on its way.
    pub fn open_to_all(mut self) -> Cluster {
        self.elect(1);
        self.run(20);
        assert!(self.nodes.iter().all(|node| node.paxos.is_open()), "fast rounds are open");
        self
    }

    fn open(&self, id: u64, recovered: Recovered) -> FastPaxos {
        let (membership, config) = (self.membership.clone(), self.config.clone());
        let start = Start { node: NodeId(id), membership, config, recovered, now: self.now, seed: id };
        FastPaxos::open(start).unwrap()
    }

    // --- replicas ---

    pub fn paxos(&self, id: u64) -> &FastPaxos {
        &self.nodes[id as usize - 1].paxos
    }

    pub fn decided(&self, id: u64) -> u64 {
        self.paxos(id).status().decided.0
    }

    pub fn role(&self, id: u64) -> Role {
        self.paxos(id).status().role
    }

    pub fn slow_disk(&mut self, id: u64, slow: bool) {
        self.nodes[id as usize - 1].slow_disk = slow;
        self.batch(id, Vec::new());
    }

    pub fn events(&mut self, id: u64) -> Vec<LogEvent> {
        std::mem::take(&mut self.nodes[id as usize - 1].events)
    }

    /// What the log of a replica holds, slot by slot, in words.
    pub fn log(&self, id: u64) -> Vec<String> {
        let log = &self.nodes[id as usize - 1].log;
        let last = log.last_index().map_or(0, |index| index.0);
        (1..=last).map(|slot| log.get(LogIndex(slot)).map_or("-".to_owned(), word)).collect()
    }

    /// The decided values that replica `id` holds, in words.
    pub fn values(&self, id: u64) -> Vec<String> {
        self.log(id)[..self.decided(id) as usize].to_vec()
    }

    pub fn membership_len(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Loses everything that is not durable, and begins another life; messages of the old one are lost.
    pub fn restart(&mut self, id: u64) {
        let node = &mut self.nodes[id as usize - 1];
        node.life += 1;
        let mut runs = Vec::new();
        for entry in node.log.segments().flat_map(|segment| segment.iter()) {
            Run::extend(&mut runs, entry.index, entry.stamp);
        }
        let (incarnation, hard_state) = (Incarnation(node.life), node.hard_state.clone());
        let recovered = Recovered { incarnation, hard_state, runs, ..Recovered::default() };
        let paxos = self.open(id, recovered);
        let node = &mut self.nodes[id as usize - 1];
        (node.paxos, node.effects, node.persisted) = (paxos, Effects::new(), WriteId(0));
        node.pending.clear();
        node.held.clear();
        self.network.retain(|letter| letter.to != id && letter.from != id);
        self.batch(id, Vec::new());
    }

    // --- inputs ---

    /// Several inputs and one flush; then whatever its disk has to do, unless it is slow.
    pub fn batch(&mut self, id: u64, inputs: Vec<Input<Message, LogCall>>) {
        let now = self.now;
        let node = &mut self.nodes[id as usize - 1];
        inputs.into_iter().for_each(|input| node.paxos.step(now, input, &mut node.effects));
        loop {
            node.paxos.flush(now, &mut node.effects);
            node.pending.extend(node.effects.settle());
            node.events.extend(node.effects.drain_events());
            for send in node.effects.drain_sends() {
                let letter = Letter { from: id, to: send.to.0, message: send.message };
                match send.after.filter(|write| *write > node.persisted) {
                    Some(write) => node.held.push((write, letter)),
                    None => self.network.push(letter),
                }
            }
            let loads: Vec<_> = node.effects.drain_loads().collect();
            for load in loads {
                let mut log = node.log.clone();
                node.pending.iter().flat_map(|unit| unit.puts.iter()).for_each(|put| log.put(put.clone()));
                let result = Ok(log.read(load.range, load.bytes_max));
                node.paxos.step(now, Input::Loaded { id: load.id, result }, &mut node.effects);
            }
            if node.slow_disk {
                return;
            }
            let Some(unit) = node.pending.pop_front() else { return };
            unit.puts.iter().for_each(|put| node.log.put(put.clone()));
            node.hard_state = unit.hard_state.or(node.hard_state.take());
            node.persisted = unit.id;
            let held = std::mem::take(&mut node.held);
            let (due, held): (Vec<_>, Vec<_>) = held.into_iter().partition(|(write, _)| *write <= unit.id);
            node.held = held;
            self.network.extend(due.into_iter().map(|(_, letter)| letter));
            node.paxos.step(now, Input::Persisted(unit.id), &mut node.effects);
        }
    }

    /// A client at `id` proposes: each word is a command of its own.
    pub fn propose(&mut self, id: u64, words: &[&'static str]) {
        let commands = words
            .iter()
            .map(|word| {
                self.proposed += 1;
                command(self.proposed, word)
            })
            .collect();
        self.batch(id, vec![Input::Call(LogCall::Propose(commands))]);
    }

    pub fn read(&mut self, id: u64, read: u64) {
        self.batch(id, vec![Input::Call(LogCall::Read { id: ReadId(read), mode: ReadMode::Barrier })]);
    }

    pub fn receive(&mut self, from: u64, to: u64, message: Message) {
        self.batch(to, vec![Input::Receive { from: NodeId(from), message }]);
    }

    /// Time passes for one replica, and it ticks.
    pub fn tick_after(&mut self, id: u64, time: Duration) {
        self.now += time;
        self.batch(id, vec![Input::Tick]);
    }

    /// Time passes for everybody in steps of 10 ms, and every message arrives.
    pub fn pass(&mut self, time: Duration) {
        let step = Duration::from_millis(10);
        for _ in 0..time.as_millis() / step.as_millis() {
            self.now += step;
            for id in 1..=self.membership_len() {
                self.batch(id, vec![Input::Tick]);
            }
            self.run(3);
        }
    }

    /// Replica `id` is the first to hear nobody.
    pub fn elect(&mut self, id: u64) {
        self.now = self.now.max(self.paxos(id).next_deadline().unwrap());
        self.batch(id, vec![Input::Tick]);
        self.run(20);
        assert_eq!(self.role(id), Role::Leader);
    }

    // --- the network ---

    /// Everything on its way arrives, what arrives at one replica in one batch: one message delay.
    pub fn round(&mut self) {
        for to in 1..=self.nodes.len() as u64 {
            let arriving = |letter: &Letter| letter.to == to;
            let letters: Vec<Letter> =
                self.network.iter().filter(|letter| arriving(letter)).cloned().collect();
            let inputs = letters
                .into_iter()
                .map(|Letter { from, message, .. }| Input::Receive { from: NodeId(from), message });
            let inputs: Vec<_> = inputs.collect();
            let before = self.network.len();
            if !inputs.is_empty() {
                self.batch(to, inputs);
            }
            // What it sent in turn is for the next round.
            let sent = self.network.split_off(before);
            self.network.retain(|letter| !arriving(letter));
            self.nodes[to as usize - 1].held.extend(sent.into_iter().map(|letter| (WriteId(0), letter)));
        }
        for node in &mut self.nodes {
            let held = std::mem::take(&mut node.held);
            let (sent, held): (Vec<_>, Vec<_>) =
                held.into_iter().partition(|(write, _)| *write == WriteId(0));
            node.held = held;
            self.network.extend(sent.into_iter().map(|(_, letter)| letter));
        }
    }

    /// So many rounds.
    pub fn run(&mut self, rounds: usize) {
        (0..rounds).for_each(|_| self.round());
    }

    /// Rounds until every replica has decided `slot`, at most 40.
    pub fn rounds_until(&mut self, slot: u64) -> usize {
        self.rounds_while(|cluster| (1..=cluster.membership_len()).any(|id| cluster.decided(id) < slot))
    }

    /// Rounds until the leader, replica 1, has.
    pub fn rounds_until_the_leader_has(&mut self, slot: u64) -> usize {
        self.rounds_while(|cluster| cluster.decided(1) < slot)
    }

    fn rounds_while(&mut self, waits: impl Fn(&Cluster) -> bool) -> usize {
        let mut rounds = 0;
        while rounds < 40 && waits(self) {
            self.round();
            rounds += 1;
        }
        rounds
    }

    /// Loses what fits.
    pub fn lose(&mut self, mut fits: impl FnMut(&Letter) -> bool) {
        self.network.retain(|letter| !fits(letter));
    }

    /// Takes what is on its way to `to`.
    pub fn take_for(&mut self, to: u64) -> Vec<Message> {
        let (taken, left) = std::mem::take(&mut self.network).into_iter().partition(|letter| letter.to == to);
        self.network = left;
        let taken: Vec<Letter> = taken;
        taken.into_iter().map(|letter| letter.message).collect()
    }
}

// --- words for what is said ---

pub fn ballot(round: u64, node: u64) -> Ballot {
    Ballot { round, node: NodeId(node) }
}

pub fn command(sequence: u64, word: &'static str) -> Command {
    let request =
        RequestId { client: ClientId(1), sequence: Sequence(sequence), first_incomplete: Sequence(1) };
    Command { kind: Kind::Command, request, payload: Bytes::from_static(word.as_bytes()) }
}

/// A value of a fast round, as a proposer suggests it.
pub fn value(ballot: Ballot, slot: u64, sequence: u64, word: &'static str) -> Entry {
    let Command { kind, request, payload } = command(sequence, word);
    let (stamp, reign) = (ballot.fast_stamp(), ballot.reign());
    Entry { index: LogIndex(slot), stamp, reign, kind, request, payload }
}

/// The same, voted for in the classic round that follows.
pub fn classic(entry: &Entry, ballot: Ballot) -> Entry {
    Entry { stamp: ballot.stamp(), ..entry.clone() }
}

pub fn loaded(entries: Vec<Entry>) -> Loaded {
    let to = entries.last().map_or(LogIndex(1), |last| last.index.next());
    let segments = entries.into_iter().map(|entry| Entries::new(vec![entry]).unwrap()).collect();
    Loaded { segments, to }
}

pub fn suggest(ballot: Ballot, entries: Vec<Entry>) -> Message {
    Message::Suggest(Suggest { ballot, values: loaded(entries) })
}

pub fn voted(ballot: Ballot, decided: u64, entries: Vec<Entry>) -> Message {
    Message::Voted(Voted { ballot, decided: LogIndex(decided), votes: loaded(entries) })
}

pub fn promise(ballot: Ballot, entries: Vec<Entry>) -> Message {
    let votes = loaded(entries);
    let last = votes.to.prev();
    let (from, zero) = (LogIndex(1), LogIndex::ZERO);
    Message::Promise(Promise { ballot, from, decided: zero, trimmed: zero, last, votes })
}

/// `a` for a command, `noop` for one that does nothing.
pub fn word(entry: &Entry) -> String {
    match entry.kind {
        Kind::Noop => "noop".to_owned(),
        _ => String::from_utf8(entry.payload.to_vec()).unwrap(),
    }
}

/// The votes that messages tell, as `slot:round:word`.
pub fn told(messages: &[Message]) -> Vec<String> {
    let votes = messages.iter().filter_map(|message| match message {
        Message::Voted(voted) => Some(&voted.votes),
        _ => None,
    });
    votes
        .flat_map(|votes| votes.segments.iter().flat_map(|segment| segment.iter()))
        .map(|entry| format!("{}:{}:{}", entry.index, round(entry), word(entry)))
        .collect()
}

fn round(entry: &Entry) -> &'static str {
    match VoteRound::of_stamp(entry.stamp) {
        Some(VoteRound::CHOSEN) => "chosen",
        Some(VoteRound { classic: true, .. }) => "classic",
        Some(_) => "fast",
        None => "none",
    }
}
