//! One process of Basic Paxos: proposer, acceptor and learner of every decree, as they ship, made a machine.
//!
//! The three types of [`synod_multipaxos::synod`] keep no queue, no clock and no disk. What is added here is what their
//! page asks of whoever uses them: an acceptor's state is durable before its answer is sent, a ballot is promised by
//! the proposer's own acceptor before anybody else hears of it, and who was preempted waits a random, growing time.
//! Decrees are independent of each other; a process keeps one entry for each, with its acceptor's state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rand_core::{Rng as _, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use synod_core::{
    Effects, Entries, Entry, Input, Instant, Kind, LogIndex, Machine, NodeId, OpenError, QuorumSystem, Reign,
    RequestId, Start, WireReader, WriteId,
};
use synod_multipaxos::Ballot;
use synod_multipaxos::synod::{
    Accept, Accepted, Acceptor, Learner, Prepare, Promise, Proposer, Rejected, Vote,
};

/// One question that is decided once; from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decree(pub u64);

/// One answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

/// What processes say to each other about one decree.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Which.
    pub decree: Decree,
    /// What.
    pub body: Body,
}

/// A message of the paper.
#[derive(Clone, Debug)]
pub enum Body {
    /// Phase 1a.
    Prepare(Prepare),
    /// Phase 1b.
    Promise(Promise<Value>),
    /// Phase 2a.
    Accept(Accept<Value>),
    /// Phase 2b, to every learner.
    Accepted(Accepted<Value>),
    /// To a proposer that comes too late.
    Rejected(Rejected),
}

/// A client's wish: have this value chosen, or learn which one is.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Of which decree.
    pub decree: Decree,
    /// The wish.
    pub value: Value,
}

/// What was chosen, as a process found out.
#[derive(Clone, Copy, Debug)]
pub struct Learned {
    /// Of which decree.
    pub decree: Decree,
    /// What.
    pub value: Value,
}

/// How a process is set up.
#[derive(Clone, Copy, Debug)]
pub struct ProcessConfig {
    /// How long it waits before it tries again, at first: several round trips.
    pub retry: Duration,
}

/// What an acceptor must not forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptorState {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The vote of the highest ballot.
    pub vote: Option<Vote<Value>>,
}

/// A process. See the module.
#[derive(Debug)]
pub struct Process {
    node: NodeId,
    peers: Vec<NodeId>,
    quorums: QuorumSystem,
    retry: Duration,
    random: Xoshiro256PlusPlus,
    roles: BTreeMap<Decree, Roles>,
    /// The decrees of which somebody here wants to know.
    wanted: BTreeSet<Decree>,
    /// What the acceptor here tells the proposer and the learner here, once it is durable.
    own: VecDeque<(WriteId, Letter)>,
    /// Ballots ended by a higher one.
    pub preempted: u64,
    /// Ballots that proposed what an earlier one had been voted for.
    pub proposed_again: u64,
}

/// The three roles for one decree.
#[derive(Debug)]
struct Roles {
    acceptor: Acceptor<Value>,
    proposer: Proposer<Value>,
    learner: Learner<Value>,
    wish: Option<Value>,
    retry_at: Instant,
    attempts: u32,
}

impl Machine for Process {
    type Config = ProcessConfig;
    type Message = Letter;
    type Call = Ask;
    type Event = Learned;

    fn open(start: Start<ProcessConfig>) -> Result<Process, OpenError> {
        let Start { node, membership, config, recovered, seed, .. } = start;
        let mut process = Process {
            node,
            peers: membership.peers_of(node).collect(),
            quorums: membership.quorums().clone(),
            retry: config.retry,
            random: Xoshiro256PlusPlus::seed_from_u64(seed ^ node.0),
            roles: BTreeMap::new(),
            wanted: BTreeSet::new(),
            own: VecDeque::new(),
            preempted: 0,
            proposed_again: 0,
        };
        for entry in &recovered.marked {
            let state = AcceptorState::of(entry).ok_or(OpenError::Log { what: "no state of an acceptor" })?;
            let acceptor = Acceptor::recover(state.promised, state.vote);
            process.roles.insert(Decree(entry.index.0), Roles::new(node, &process.quorums, acceptor));
        }
        Ok(process)
    }

    fn step(&mut self, now: Instant, input: Input<Letter, Ask>, effects: &mut Effects<Letter, Learned>) {
        match input {
            Input::Receive { from, message } => self.on_letter(now, from, message, effects),
            Input::Persisted(through) => {
                while self.own.front().is_some_and(|(write, _)| *write <= through) {
                    let Some((_, letter)) = self.own.pop_front() else { break };
                    self.on_letter(now, self.node, letter, effects);
                }
            }
            Input::Call(Ask { decree, value }) => self.on_ask(now, decree, value, effects),
            Input::Tick => {
                for decree in self.wanted.clone() {
                    if self.roles(decree).retry_at <= now {
                        self.campaign(now, decree, effects);
                    }
                }
            }
            Input::Loaded { .. } => {}
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.wanted.iter().filter_map(|decree| Some(self.roles.get(decree)?.retry_at)).min()
    }
}

impl Process {
    /// How its acceptor stands.
    #[must_use]
    pub fn state(&self, decree: Decree) -> AcceptorState {
        self.roles.get(&decree).map_or_else(AcceptorState::default, |roles| roles.state())
    }

    /// The decrees that it has heard of.
    pub fn decrees(&self) -> impl Iterator<Item = Decree> + '_ {
        self.roles.keys().copied()
    }

    /// What it knows to be chosen.
    #[must_use]
    pub fn chosen(&self, decree: Decree) -> Option<Value> {
        self.roles.get(&decree).and_then(|roles| roles.learner.chosen()).copied()
    }

    /// True while it tries to have something chosen.
    #[must_use]
    pub fn is_proposing(&self) -> bool {
        !self.wanted.is_empty()
    }

    fn roles(&mut self, decree: Decree) -> &mut Roles {
        let (node, quorums) = (self.node, &self.quorums);
        self.roles.entry(decree).or_insert_with(|| Roles::new(node, quorums, Acceptor::default()))
    }

    fn on_ask(&mut self, now: Instant, decree: Decree, value: Value, effects: &mut Effects<Letter, Learned>) {
        let roles = self.roles(decree);
        if roles.learner.chosen().is_some() || roles.wish.is_some() {
            return;
        }
        roles.wish = Some(value);
        roles.attempts = 0;
        self.wanted.insert(decree);
        self.campaign(now, decree, effects);
    }

    /// Phase 1a, in a ballot that its own acceptor promises first.
    fn campaign(&mut self, now: Instant, decree: Decree, effects: &mut Effects<Letter, Learned>) {
        let wait = self.retry + self.draw_wait(decree);
        let roles = self.roles(decree);
        let Some(wish) = roles.wish else { return };
        roles.retry_at = now + wait;
        roles.attempts += 1;
        let (prepare, promise) = loop {
            let Some(prepare) = roles.proposer.propose(wish) else { return };
            match roles.acceptor.on_prepare(prepare) {
                Ok(promise) => break (prepare, promise),
                Err(rejected) => roles.proposer.on_rejected(rejected),
            };
        };
        let write = self.keep(decree, effects);
        self.own.push_back((write, Letter { decree, body: Body::Promise(promise) }));
        for &peer in &self.peers {
            effects.send_after(peer, Letter { decree, body: Body::Prepare(prepare) }, write);
        }
    }

    /// A random time that grows with every attempt: two that preempt each other do not meet for ever.
    fn draw_wait(&mut self, decree: Decree) -> Duration {
        let part = (self.random.next_u64() % 1_000) as f64 / 1_000.0;
        let most = self.retry.saturating_mul(1 << self.roles(decree).attempts.min(6));
        most.mul_f64(part)
    }

    fn on_letter(
        &mut self,
        now: Instant,
        from: NodeId,
        letter: Letter,
        effects: &mut Effects<Letter, Learned>,
    ) {
        let Letter { decree, body } = letter;
        match body {
            Body::Prepare(prepare) => {
                let answer = match self.roles(decree).acceptor.on_prepare(prepare) {
                    Ok(promise) => {
                        self.keep(decree, effects);
                        Body::Promise(promise)
                    }
                    Err(rejected) => Body::Rejected(rejected),
                };
                effects.send_after_write(from, Letter { decree, body: answer });
            }
            Body::Promise(promise) => {
                let roles = self.roles(decree);
                let Some(accept) = roles.proposer.on_promise(from, promise) else { return };
                let again = roles.wish.is_some_and(|wish| wish != accept.value);
                self.proposed_again += u64::from(again);
                for &peer in &self.peers {
                    effects.send(peer, Letter { decree, body: Body::Accept(accept.clone()) });
                }
                self.vote(self.node, decree, accept, effects);
            }
            Body::Accept(accept) => self.vote(from, decree, accept, effects),
            Body::Accepted(accepted) => {
                let roles = self.roles(decree);
                let known = roles.learner.chosen().is_some();
                if let Some(&value) = roles.learner.on_accepted(from, accepted)
                    && !known
                {
                    roles.wish = None;
                    self.wanted.remove(&decree);
                    effects.event(Learned { decree, value });
                }
            }
            Body::Rejected(rejected) => {
                if self.roles(decree).proposer.on_rejected(rejected) {
                    let wait = self.draw_wait(decree);
                    self.roles(decree).retry_at = now + wait;
                    self.preempted += 1;
                }
            }
        }
    }

    /// Phase 2b: votes for what `from` proposes, and tells every learner.
    fn vote(
        &mut self,
        from: NodeId,
        decree: Decree,
        accept: Accept<Value>,
        effects: &mut Effects<Letter, Learned>,
    ) {
        match self.roles(decree).acceptor.on_accept(accept) {
            Ok(accepted) => {
                let write = self.keep(decree, effects);
                for &peer in &self.peers {
                    let body = Body::Accepted(accepted.clone());
                    effects.send_after(peer, Letter { decree, body }, write);
                }
                self.own.push_back((write, Letter { decree, body: Body::Accepted(accepted) }));
            }
            Err(rejected) if from == self.node => {
                self.roles(decree).proposer.on_rejected(rejected);
            }
            Err(rejected) => effects.send(from, Letter { decree, body: Body::Rejected(rejected) }),
        }
    }

    /// Writes the acceptor's state down.
    fn keep(&mut self, decree: Decree, effects: &mut Effects<Letter, Learned>) -> WriteId {
        let state = self.roles(decree).state();
        let entries = Entries::new(vec![state.entry(decree)]).expect("one entry is consecutive");
        effects.put(entries)
    }
}

impl Roles {
    /// A proposer begins above what its acceptor has promised, so that no two lives share a ballot.
    fn new(node: NodeId, quorums: &QuorumSystem, acceptor: Acceptor<Value>) -> Roles {
        Roles {
            proposer: Proposer::new(node, quorums.clone(), acceptor.promised()),
            learner: Learner::new(quorums.clone()),
            acceptor,
            wish: None,
            retry_at: Instant(0),
            attempts: 0,
        }
    }

    fn state(&self) -> AcceptorState {
        AcceptorState { promised: self.acceptor.promised(), vote: self.acceptor.vote().cloned() }
    }
}

/// What an acceptor keeps of one decree: nobody decides such an entry.
const STATE: Kind = Kind::Private(32);

impl AcceptorState {
    /// The entry that holds it.
    #[must_use]
    pub fn entry(&self, decree: Decree) -> Entry {
        let mut payload = BytesMut::new();
        put_ballot(&mut payload, self.promised);
        if let Some(vote) = &self.vote {
            put_ballot(&mut payload, vote.ballot);
            payload.put_u64_le(vote.value.0);
        }
        Entry {
            index: LogIndex(decree.0),
            stamp: self.promised.stamp(),
            reign: Reign::default(),
            kind: STATE,
            request: RequestId::NONE,
            payload: payload.freeze(),
        }
    }

    /// What an entry holds; `None` if it was not made here.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<AcceptorState> {
        let payload = Some(&entry.payload).filter(|_| entry.kind == STATE)?;
        let mut reader = WireReader::new(Bytes::clone(payload));
        let promised = take_ballot(&mut reader)?;
        let vote = if reader.left() == 0 {
            None
        } else {
            Some(Vote { ballot: take_ballot(&mut reader)?, value: Value(reader.u64().ok()?) })
        };
        reader.finish().ok()?;
        Some(AcceptorState { promised, vote })
    }
}

fn put_ballot(out: &mut BytesMut, ballot: Ballot) {
    out.put_u64_le(ballot.round);
    out.put_u64_le(ballot.node.0);
}

fn take_ballot(from: &mut WireReader) -> Option<Ballot> {
    Some(Ballot { round: from.u64().ok()?, node: NodeId(from.u64().ok()?) })
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "decree {} ", self.decree.0)?;
        match &self.body {
            Body::Prepare(prepare) => write!(f, "prepare {}", prepare.ballot),
            Body::Promise(Promise { ballot, vote: None }) => write!(f, "promise {ballot} voted for nothing"),
            Body::Promise(Promise { ballot, vote: Some(vote) }) => {
                write!(f, "promise {ballot} voted {} in {}", vote.value.0, vote.ballot)
            }
            Body::Accept(Accept { ballot, value }) => write!(f, "accept {ballot} {}", value.0),
            Body::Accepted(Accepted { vote }) => write!(f, "accepted {} {}", vote.ballot, vote.value.0),
            Body::Rejected(Rejected { ballot, promised }) => {
                write!(f, "rejected {ballot} promised {promised}")
            }
        }
    }
}
