//! Three replicas with a table of leases each, in virtual time: a network and disks that do what a test says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    ClockBound, GroupId, Inbound, Incarnation, Instant, LogIndex, Machine, Membership, NodeId,
    ProtocolConfig, Recovered, Role, Start, Wire, Write,
};
use synod_lease::replicated::{
    Ask, AskId, Candidate, CandidateEvent, LeaseCommand, LeaseId, LeaseQuery, LeaseReply, LeaseTable,
    NoAnswer,
};
use synod_replica::{
    Actions, ClientCall, Consistency, Replica, ReplicaConfig, ReplicaEvent, SessionKey, Token,
};

/// How long every lease here is.
pub(crate) const LENGTH: Duration = Duration::from_secs(2);
/// What every lease here is for.
const NAME: Bytes = Bytes::from_static(b"name");

/// How long a message travels, and the grain of time.
const STEP: Duration = Duration::from_millis(1);

type Message<C> = <<C as ProtocolConfig>::Protocol as Machine>::Message;

/// Replicas 0, 1 and 2 of one protocol.
pub(crate) struct Cluster<C: ProtocolConfig> {
    nodes: Vec<Node<C>>,
    now: Instant,
    tokens: u64,
}

struct Node<C: ProtocolConfig> {
    replica: Replica<C::Protocol, LeaseTable>,
    /// Its clock stands so much ahead of the time.
    ahead: Duration,
    /// Nothing that it writes becomes durable.
    stalled: bool,
    /// It does nothing at all; what is sent to it waits.
    frozen: bool,
    /// What it sends is lost, and what is sent to it.
    cut: bool,
    inbox: VecDeque<(Instant, Inbound<Message<C>>)>,
    writes: VecDeque<Write>,
    /// Leases whose end it has written to its log.
    ends: Vec<LeaseId>,
    answers: BTreeMap<Token, Result<Bytes, NoAnswer>>,
    candidate: Option<Seat>,
}

/// A candidate beside a replica.
struct Seat {
    candidate: Candidate,
    asks: BTreeMap<Token, AskId>,
    events: Vec<CandidateEvent>,
    /// Leases that the table beside it had as the first.
    seen: Vec<LeaseId>,
}

impl<C: ProtocolConfig> Cluster<C> {
    /// Three replicas whose clocks show the time, one of which leads.
    pub(crate) fn of(config: &C) -> Cluster<C> {
        Cluster::with_clocks(config, [Duration::ZERO; 3])
    }

    /// Three replicas whose clocks stand so much ahead, one of which leads.
    pub(crate) fn with_clocks(config: &C, ahead: [Duration; 3]) -> Cluster<C> {
        let now = Instant(1);
        let membership = Membership::of_ids(1..=3).unwrap();
        let nodes = ahead.into_iter().enumerate().map(|(at, ahead)| {
            let start = Start {
                node: NodeId(at as u64 + 1),
                membership: membership.clone(),
                config: config.clone(),
                recovered: Recovered { incarnation: Incarnation(1), ..Recovered::default() },
                now: now + ahead,
                seed: at as u64,
            };
            Node::new(
                Replica::open(start, GroupId(0), ReplicaConfig::default(), LeaseTable::new(), None).unwrap(),
                ahead,
            )
        });
        let mut cluster = Cluster { nodes: nodes.collect(), now, tokens: 0 };
        cluster.run_until(|cluster| cluster.leader().is_some());
        cluster.run(Duration::from_millis(200));
        cluster
    }

    /// Who leads in the newest reign, of those that are not frozen.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| !self.nodes[*at].frozen && self.believes_to_lead(*at);
        (0..3).filter(leads).max_by_key(|at| self.nodes[*at].replica.status().protocol.reign)
    }

    /// One that does not lead.
    pub(crate) fn follower(&self) -> usize {
        let leader = self.leader().expect("somebody leads");
        (leader + 1) % 3
    }

    /// True if it thinks that it leads.
    pub(crate) fn believes_to_lead(&self, node: usize) -> bool {
        self.nodes[node].replica.status().protocol.role == Role::Leader
    }

    /// Whether what it writes becomes durable.
    pub(crate) fn stall(&mut self, node: usize, stalled: bool) {
        self.nodes[node].stalled = stalled;
    }

    /// Whether it does nothing at all, and what is sent to it waits.
    pub(crate) fn freeze(&mut self, node: usize, frozen: bool) {
        self.nodes[node].frozen = frozen;
    }

    /// Lets a frozen node do what it is due to do, before it takes anything of what waits for it.
    pub(crate) fn wake(&mut self, node: usize) {
        self.nodes[node].frozen = false;
        let now = self.now + self.nodes[node].ahead;
        self.nodes[node].replica.tick(now);
        self.flush(node);
    }

    /// Whether it is cut off from the others.
    pub(crate) fn cut(&mut self, node: usize, cut: bool) {
        self.nodes[node].cut = cut;
    }

    /// Lets this much time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Lets time pass until this is so.
    pub(crate) fn run_until(&mut self, mut so: impl FnMut(&Cluster<C>) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while !so(self) {
            assert!(self.now < end, "it has not come to that within a minute");
            self.step();
        }
    }

    /// Has a node propose this; the answer comes by [`Cluster::answer`].
    pub(crate) fn propose(&mut self, node: usize, command: &LeaseCommand) -> Token {
        let deadline = self.now + self.nodes[node].ahead + LENGTH;
        let token = self.token();
        self.nodes[node].replica.call(propose(token, command.to_bytes(), deadline));
        token
    }

    /// Has a node keep a lease alive; the answer comes by [`Cluster::answer`].
    pub(crate) fn keep_alive(&mut self, node: usize, lease: LeaseId) -> Token {
        let deadline = self.now + self.nodes[node].ahead + LENGTH;
        let token = self.token();
        let query = LeaseQuery::KeepAlive(lease).to_bytes();
        self.nodes[node].replica.call(read(token, query, deadline));
        token
    }

    /// What came of a question, once something has.
    pub(crate) fn answer(&self, node: usize, token: Token) -> Option<Result<LeaseReply, NoAnswer>> {
        let answer = self.nodes[node].answers.get(&token)?.clone();
        Some(answer.map(|bytes| LeaseReply::from_bytes(bytes).expect("a reply")))
    }

    /// A lease that a node gets, kept alive by nobody.
    pub(crate) fn granted(&mut self, node: usize) -> LeaseId {
        let token = self.propose(node, &campaign());
        self.run_until(|cluster| cluster.answer(node, token).is_some());
        match self.answer(node, token) {
            Some(Ok(LeaseReply::Granted { lease, .. })) => lease,
            other => panic!("{other:?} instead of a grant"),
        }
    }

    /// Keeps a lease alive through a node for so long, four times in its length; every answer must say so.
    pub(crate) fn kept_alive(&mut self, node: usize, lease: LeaseId, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let token = self.keep_alive(node, lease);
            self.run(LENGTH / 4);
            assert_eq!(self.answer(node, token), Some(Ok(LeaseReply::Alive { before: 0 })));
        }
    }

    /// How far the log of a node is decided.
    pub(crate) fn decided(&self, node: usize) -> LogIndex {
        self.nodes[node].replica.status().protocol.decided
    }

    /// Leases in the table of a node.
    pub(crate) fn leases(&self, node: usize) -> Vec<LeaseId> {
        self.nodes[node].replica.state_machine().iter().map(|(lease, _)| lease).collect()
    }

    /// Leases whose end a node has written to its log, decided or not.
    pub(crate) fn ends_written(&self, node: usize) -> &[LeaseId] {
        &self.nodes[node].ends
    }

    /// Puts a candidate beside a node, and has it campaign.
    pub(crate) fn campaign(&mut self, node: usize) {
        let bound = ClockBound::new(0, Duration::ZERO).unwrap();
        let mut candidate = Candidate::new(NAME, Bytes::new(), LENGTH, LENGTH / 16, bound);
        candidate.campaign();
        let seat = Seat { candidate, asks: BTreeMap::new(), events: Vec::new(), seen: Vec::new() };
        self.nodes[node].candidate = Some(seat);
    }

    /// Has the candidate of a node give up.
    pub(crate) fn resign(&mut self, node: usize) {
        let now = self.now + self.nodes[node].ahead;
        self.seat_mut(node).candidate.resign(now);
    }

    /// The lease of the candidate of a node.
    pub(crate) fn lease_of(&self, node: usize) -> Option<LeaseId> {
        self.seat(node).candidate.lease()
    }

    /// What the candidate of a node has told.
    pub(crate) fn told(&self, node: usize) -> &[CandidateEvent] {
        &self.seat(node).events
    }

    /// Leases that the candidate of a node saw hold the name.
    pub(crate) fn seen(&self, node: usize) -> &[LeaseId] {
        &self.seat(node).seen
    }

    fn seat(&self, node: usize) -> &Seat {
        self.nodes[node].candidate.as_ref().expect("a candidate")
    }

    fn seat_mut(&mut self, node: usize) -> &mut Seat {
        self.nodes[node].candidate.as_mut().expect("a candidate")
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn step(&mut self) {
        self.now += STEP;
        for at in 0..self.nodes.len() {
            if self.nodes[at].frozen {
                continue;
            }
            // What has become due is taken one by one, as a node that wakes up does.
            while let Some((due, _)) = self.nodes[at].inbox.front()
                && *due <= self.now
            {
                let (_, inbound) = self.nodes[at].inbox.pop_front().expect("just seen");
                let now = self.now + self.nodes[at].ahead;
                self.nodes[at].replica.receive(now, inbound);
                self.flush(at);
            }
            let node = &mut self.nodes[at];
            let now = self.now + node.ahead;
            if !node.stalled
                && let Some(last) = node.writes.drain(..).next_back()
            {
                node.replica.persisted(now, last.id);
            }
            node.replica.tick(now);
            self.flush(at);
        }
    }

    fn flush(&mut self, at: usize) {
        let now = self.now + self.nodes[at].ahead;
        loop {
            self.drive(at, now);
            let (mut actions, mut events) = (Actions::default(), Vec::new());
            let node = &mut self.nodes[at];
            node.replica.flush(now, &mut actions, &mut events);
            assert!(actions.loads.is_empty(), "everything is at hand");
            node.take(actions.writes);
            for event in events {
                self.nodes[at].answered(now, event);
            }
            for (to, envelope) in actions.envelopes {
                let (from, to) = (NodeId(at as u64 + 1), to.0 as usize - 1);
                if !self.nodes[at].cut && !self.nodes[to].cut {
                    self.nodes[to].inbox.push_back((self.now + STEP, Inbound { from, envelope }));
                }
            }
            let asks = self.drive(at, now);
            if !self.nodes[at].replica.has_work() && !asks {
                return;
            }
        }
    }

    /// Tells the candidate of a node what its table has, and asks what it wants to know. True if it asked.
    fn drive(&mut self, at: usize, now: Instant) -> bool {
        let node = &mut self.nodes[at];
        let Some(seat) = &mut node.candidate else { return false };
        if let Some((lease, _)) = node.replica.state_machine().first(&NAME) {
            if seat.seen.last() != Some(&lease) {
                seat.seen.push(lease);
            }
            seat.candidate.look(now, lease);
        }
        let mut asked = false;
        while let Some(ask) = seat.candidate.poll(now) {
            self.tokens += 1;
            let token = Token(self.tokens);
            let (id, call) = match ask {
                Ask::Propose(id, payload, within) => (id, propose(token, payload, now + within)),
                Ask::Query(id, query, within) => (id, read(token, query, now + within)),
            };
            seat.asks.insert(token, id);
            node.replica.call(call);
            asked = true;
        }
        seat.events.append(&mut seat.candidate.take_events());
        asked
    }
}

impl<C: ProtocolConfig> Node<C> {
    fn new(replica: Replica<C::Protocol, LeaseTable>, ahead: Duration) -> Node<C> {
        Node {
            replica,
            ahead,
            stalled: false,
            frozen: false,
            cut: false,
            inbox: VecDeque::new(),
            writes: VecDeque::new(),
            ends: Vec::new(),
            answers: BTreeMap::new(),
            candidate: None,
        }
    }

    fn take(&mut self, writes: Vec<Write>) {
        for entry in writes.iter().flat_map(|write| &write.puts).flat_map(|entries| entries.iter()) {
            if let Ok(LeaseCommand::Expire { leases, .. }) = LeaseCommand::from_bytes(entry.payload.clone()) {
                self.ends.extend(leases);
            }
        }
        self.writes.extend(writes);
    }

    fn answered(&mut self, now: Instant, event: ReplicaEvent) {
        let (token, answer) = match event {
            ReplicaEvent::Proposed { token, result } => (token, result.map_err(|_| NoAnswer)),
            ReplicaEvent::Read { token, result } => (token, result.map_err(|_| NoAnswer)),
            ReplicaEvent::Fatal(error) => panic!("{error}"),
            ReplicaEvent::SessionOpened { .. }
            | ReplicaEvent::Transferred { .. }
            | ReplicaEvent::StatusChanged => return,
        };
        match &mut self.candidate {
            Some(seat) if seat.asks.contains_key(&token) => {
                let ask = seat.asks.remove(&token).expect("just seen");
                seat.candidate.answered(now, ask, answer);
            }
            _ => {
                self.answers.insert(token, answer);
            }
        }
    }
}

/// Asks for a lease.
pub(crate) fn campaign() -> LeaseCommand {
    LeaseCommand::Campaign { name: NAME, length: LENGTH, owner: Bytes::new() }
}

fn propose(token: Token, payload: Bytes, deadline: Instant) -> ClientCall {
    ClientCall::Propose { session: SessionKey::OWN, token, payload, deadline }
}

fn read(token: Token, query: Bytes, deadline: Instant) -> ClientCall {
    ClientCall::Read { token, query, consistency: Consistency::Linearizable, deadline }
}
