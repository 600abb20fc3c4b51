//! How long a cluster is without a leader that decides, and which part of it takes how long.
//!
//! Every seed starts a cluster, lets it decide, crashes its leader at a random moment between two heartbeats, and
//! proposes a command at the first survivor that takes one. Nothing else goes wrong. The bare protocols run with their
//! default settings but for the same election timeout and heartbeat interval; messages and disks take a random time
//! between the bounds below. All of it follows from the seed.
//!
//! | phase | ends when | of |
//! |---|---|---|
//! | `detection` | a survivor looks for another leader, for the first time | all |
//! | `election` | the next leader is chosen: it has the votes, the support of a quorum, an agreed vote | all |
//! | `discovery` | it knows that no earlier leader decides any more, and what may be decided | ZAB (a quorum promised its epoch), Multi-Paxos (phase 1) |
//! | `synchronisation` | it takes commands | ZAB (a quorum acknowledged NEWLEADER) |
//! | `decision` | the command is decided at it | all |
//!
//! A phase that a protocol does not have takes no time. Attempts that failed count for the election.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use synod_core::{
    Command, Effects, Incarnation, Input, Instant, Kind, LogCall, LogEvent, LogIndex, Machine, Membership,
    NodeId, Protocol, ProtocolConfig, Recovered, RequestId, Role, Route, Send, Start, WriteId,
};
use synod_multipaxos::{MultiPaxos, MultiPaxosConfig};
use synod_raft::{Raft, RaftConfig};
use synod_zab::{Notification, Standing, Zab, ZabConfig};

use crate::clock::{MICROSECOND, MILLISECOND, SECOND, Time};
use crate::rng::Rng;

/// The election timeout of every protocol.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(150);
/// The heartbeat interval of every protocol.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(50);
/// How long a message travels: at least, at most.
pub const DELAY: (Time, Time) = (250 * MICROSECOND, 750 * MICROSECOND);
/// How long a write takes: at least, at most.
pub const SYNC: (Time, Time) = (200 * MICROSECOND, 400 * MICROSECOND);

/// The phases of one fail-over, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases(pub [Time; 5]);

impl Phases {
    /// Their names, in order.
    pub const NAMES: [&'static str; 5] =
        ["detection", "election", "discovery", "synchronisation", "decision"];

    /// From the crash to the decision.
    #[must_use]
    pub fn total(self) -> Time {
        self.0.iter().sum()
    }
}

/// What many seeds of one protocol show, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The protocol.
    pub protocol: &'static str,
    /// How many replicas.
    pub replicas: usize,
    /// How many fail-overs.
    pub seeds: u64,
    /// One for each phase, by name, and the `total` of the same fail-overs.
    pub phases: Vec<Spread>,
}

/// How one phase is spread over seeds, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The phase.
    pub phase: &'static str,
    /// Half of the seeds took at most this.
    pub p50_ms: f64,
    /// Ninety-nine of a hundred did.
    pub p99_ms: f64,
}

/// Why a fail-over has no phases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stuck {
    /// A node did not open.
    #[error("n{node} does not open: {why}")]
    Open {
        /// Which node, from 1.
        node: usize,
        /// What it said.
        why: String,
    },
    /// Nothing was decided in time.
    #[error("seed {seed}: nothing is decided {waited_s} s after the {after}")]
    Undecided {
        /// The seed.
        seed: u64,
        /// For so long.
        waited_s: u64,
        /// Since what.
        after: &'static str,
    },
}

/// A protocol whose fail-over is shown: what its messages say of the phase that the sender is in.
pub trait Elects: ProtocolConfig {
    /// The default settings with the timeouts of all.
    fn contender() -> Self;

    /// What the sender of this message shows to have reached.
    fn mark(message: &<Self::Protocol as Machine>::Message) -> Option<Mark>;
}

/// What a message shows of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It looks for another leader.
    Looks,
    /// It was chosen, and has more to do before it leads.
    Chosen,
    /// It begins to synchronise others.
    Synchronises,
}

impl Elects for RaftConfig {
    fn contender() -> RaftConfig {
        Raft::config().election_timeout(ELECTION_TIMEOUT).heartbeat_interval(HEARTBEAT_INTERVAL)
    }

    fn mark(message: &synod_raft::Message) -> Option<Mark> {
        matches!(message, synod_raft::Message::PreVote(_)).then_some(Mark::Looks)
    }
}

impl Elects for MultiPaxosConfig {
    fn contender() -> MultiPaxosConfig {
        MultiPaxos::config().election_timeout(ELECTION_TIMEOUT).heartbeat_interval(HEARTBEAT_INTERVAL)
    }

    fn mark(message: &synod_multipaxos::Message) -> Option<Mark> {
        match message {
            synod_multipaxos::Message::Canvass(_) => Some(Mark::Looks),
            synod_multipaxos::Message::Prepare(_) => Some(Mark::Chosen),
            _ => None,
        }
    }
}

impl Elects for ZabConfig {
    fn contender() -> ZabConfig {
        Zab::config().election_timeout(ELECTION_TIMEOUT).heartbeat_interval(HEARTBEAT_INTERVAL)
    }

    fn mark(message: &synod_zab::Message) -> Option<Mark> {
        match message {
            synod_zab::Message::Notification(Notification { standing, .. }) => match standing {
                Standing::Looking => Some(Mark::Looks),
                Standing::Leading => Some(Mark::Chosen),
                Standing::Following | Standing::Established => None,
            },
            synod_zab::Message::Proposal(_) | synod_zab::Message::NewLeader(_) => Some(Mark::Synchronises),
            _ => None,
        }
    }
}

/// The rows of every protocol: `seeds` fail-overs each.
///
/// # Errors
/// [`Stuck`] if one does not end.
pub fn rows(replicas: usize, seeds: u64) -> Result<Vec<Row>, Stuck> {
    Ok(vec![
        row::<RaftConfig>(replicas, seeds)?,
        row::<MultiPaxosConfig>(replicas, seeds)?,
        row::<ZabConfig>(replicas, seeds)?,
    ])
}

/// What `seeds` fail-overs of one protocol show.
///
/// # Errors
/// [`Stuck`] if one does not end.
pub fn row<C: Elects>(replicas: usize, seeds: u64) -> Result<Row, Stuck> {
    let runs =
        (0..seeds).map(|seed| fail_over::<C>(replicas, seed)).collect::<Result<Vec<Phases>, Stuck>>()?;
    let mut phases: Vec<Spread> = Phases::NAMES
        .into_iter()
        .enumerate()
        .map(|(at, phase)| spread(phase, runs.iter().map(|run| run.0[at]).collect()))
        .collect();
    phases.push(spread("total", runs.iter().map(|run| run.total()).collect()));
    Ok(Row { protocol: C::NAME, replicas, seeds, phases })
}

fn spread(phase: &'static str, mut times: Vec<Time>) -> Spread {
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1) - 1;
        times.get(rank).map_or(0.0, |time| *time as f64 / MILLISECOND as f64)
    };
    Spread { phase, p50_ms: at(50), p99_ms: at(99) }
}

/// One fail-over.
///
/// # Errors
/// [`Stuck`] if it does not end.
pub fn fail_over<C: Elects>(replicas: usize, seed: u64) -> Result<Phases, Stuck> {
    let mut cluster = Cluster::<C>::open(replicas, seed)?;
    let first = cluster.decide("start")?;
    let interval = HEARTBEAT_INTERVAL.as_nanos() as u64;
    let crash_at = cluster.at + 3 * interval + cluster.rng.below(interval);
    cluster.run_until(crash_at);
    cluster.nodes[first] = None;
    cluster.marks.clear();
    let next = cluster.decide("crash")?;
    let end = cluster.at;

    let led = cluster.led_at;
    let of_next = |mark, until: Time| {
        let said = |m: &&Marked| m.node == next && m.mark == mark && m.at <= until;
        cluster.marks.iter().rev().find(said).map(|marked| marked.at)
    };
    let looks = cluster.marks.iter().find(|marked| marked.mark == Mark::Looks).map(|marked| marked.at);
    let detected = looks.unwrap_or(led);
    let chosen = of_next(Mark::Chosen, led).unwrap_or(led);
    let synchronises = cluster
        .marks
        .iter()
        .find(|marked| marked.node == next && marked.mark == Mark::Synchronises && marked.at >= chosen)
        .map_or(led, |marked| marked.at.min(led));
    Ok(Phases([detected - crash_at, chosen - detected, synchronises - chosen, led - synchronises, end - led]))
}

type Message<C> = <<C as ProtocolConfig>::Protocol as Machine>::Message;

/// What comes to which node.
type Due<C> = (usize, Input<Message<C>, LogCall>);

struct Node<C: Elects> {
    machine: C::Protocol,
    effects: Effects<Message<C>, LogEvent>,
    persisted: WriteId,
    /// When the disk has done all that it was asked for.
    disk_free_at: Time,
    /// Messages that wait for writes.
    held: VecDeque<Send<Message<C>>>,
    decided: LogIndex,
}

struct Cluster<C: Elects> {
    nodes: Vec<Option<Node<C>>>,
    at: Time,
    seed: u64,
    rng: Rng,
    /// By moment, then in the order in which they were caused.
    due: BTreeMap<(Time, u64), Due<C>>,
    caused: u64,
    marks: Vec<Marked>,
    /// When somebody first took the command that [`Cluster::decide`] waits for.
    led_at: Time,
    /// The command: its proposer and where it stands.
    proposed: Option<(usize, LogIndex)>,
}

#[derive(Clone, Copy, Debug)]
struct Marked {
    at: Time,
    node: usize,
    mark: Mark,
}

impl<C: Elects> Cluster<C> {
    fn open(replicas: usize, seed: u64) -> Result<Cluster<C>, Stuck> {
        let mut rng = Rng::new(seed);
        let membership = Membership::of_ids(1..=replicas as u64).expect("distinct members make a majority");
        let mut nodes = Vec::new();
        for node in 0..replicas {
            let machine = C::Protocol::open(Start {
                node: NodeId(node as u64 + 1),
                membership: membership.clone(),
                config: C::contender(),
                recovered: Recovered { incarnation: Incarnation(1), ..Recovered::default() },
                now: Instant(0),
                seed: rng.fork(),
            })
            .map_err(|error| Stuck::Open { node: node + 1, why: error.to_string() })?;
            nodes.push(Some(Node {
                machine,
                effects: Effects::new(),
                persisted: WriteId(0),
                disk_free_at: 0,
                held: VecDeque::new(),
                decided: LogIndex::ZERO,
            }));
        }
        Ok(Cluster {
            nodes,
            at: 0,
            seed,
            rng,
            due: BTreeMap::new(),
            caused: 0,
            marks: Vec::new(),
            led_at: 0,
            proposed: None,
        })
    }

    /// Has a command decided by whoever comes to take it, and says who that was.
    fn decide(&mut self, after: &'static str) -> Result<usize, Stuck> {
        let until = self.at + WAIT_MAX;
        self.proposed = None;
        while self.at < until {
            if let Some((node, index)) = self.proposed {
                match &self.nodes[node] {
                    Some(proposer) if proposer.machine.status().role != Role::Leader => self.proposed = None,
                    Some(proposer) if proposer.decided >= index => return Ok(node),
                    _ => {}
                }
            }
            if self.proposed.is_none()
                && let Some(node) = self.nodes.iter().position(Cluster::<C>::takes_commands)
            {
                self.led_at = self.at;
                let command = Command {
                    kind: Kind::Command,
                    request: RequestId::NONE,
                    payload: Bytes::from_static(PAYLOAD),
                };
                self.step(node, Input::Call(LogCall::Propose(vec![command])));
                continue;
            }
            self.advance();
        }
        Err(Stuck::Undecided { seed: self.seed, waited_s: WAIT_MAX / SECOND, after })
    }

    fn takes_commands(node: &Option<Node<C>>) -> bool {
        node.as_ref().is_some_and(|node| node.machine.route() == Route::Here)
    }

    fn run_until(&mut self, until: Time) {
        while self.next_at() <= until {
            self.advance();
        }
        self.at = until;
    }

    fn next_timer(&self) -> Option<(Time, usize)> {
        let due = |(at, node): (usize, &Option<Node<C>>)| {
            node.as_ref()?.machine.next_deadline().map(|deadline| (deadline.0, at))
        };
        self.nodes.iter().enumerate().filter_map(due).min()
    }

    fn next_at(&self) -> Time {
        let arrival = self.due.first_key_value().map(|((at, _), _)| *at);
        let timer = self.next_timer().map(|(at, _)| at);
        arrival.into_iter().chain(timer).min().unwrap_or(self.at + SECOND)
    }

    /// The next thing that happens.
    fn advance(&mut self) {
        self.at = self.at.max(self.next_at());
        let arrived = self.due.first_key_value().is_some_and(|((at, _), _)| *at <= self.at);
        if arrived && let Some((_, (node, input))) = self.due.pop_first() {
            self.step(node, input);
        } else if let Some((_, node)) = self.next_timer().filter(|(at, _)| *at <= self.at) {
            self.step(node, Input::Tick);
        }
    }

    fn step(&mut self, at_node: usize, input: Input<Message<C>, LogCall>) {
        let now = Instant(self.at);
        let Some(node) = &mut self.nodes[at_node] else { return };
        if let Input::Persisted(id) = &input {
            node.persisted = node.persisted.max(*id);
        }
        node.machine.step(now, input, &mut node.effects);
        node.machine.flush(now, &mut node.effects);
        let unit = node.effects.settle();
        for event in node.effects.drain_events() {
            if let LogEvent::Decided(index) = event {
                node.decided = index;
            }
        }
        let mut sends: Vec<Send<Message<C>>> = node.effects.drain_sends().collect();
        for send in &sends {
            if let Some(mark) = C::mark(&send.message) {
                self.marks.push(Marked { at: self.at, node: at_node, mark });
            }
        }
        let persisted = node.persisted;
        let free = |send: &Send<Message<C>>| send.after.is_none_or(|write| write <= persisted);
        let mut leaving = Vec::new();
        for send in node.held.drain(..).collect::<Vec<_>>().into_iter().chain(sends.drain(..)) {
            if free(&send) { leaving.push(send) } else { node.held.push_back(send) }
        }
        if let Some(unit) = unit {
            let commands = unit.puts.iter().flat_map(|put| put.iter());
            let own = commands.filter(|entry| entry.payload == PAYLOAD).map(|entry| entry.index).last();
            if node.machine.status().role == Role::Leader
                && let Some(index) = own
            {
                self.proposed = Some((at_node, index));
            }
            node.disk_free_at = node.disk_free_at.max(self.at) + self.rng.between(SYNC.0, SYNC.1);
            let at = node.disk_free_at;
            self.cause(at, at_node, Input::Persisted(unit.id));
        }
        for send in leaving {
            let at = self.at + self.rng.between(DELAY.0, DELAY.1);
            let to = usize::try_from(send.to.0 - 1).expect("members are few");
            let from = NodeId(at_node as u64 + 1);
            self.cause(at, to, Input::Receive { from, message: send.message });
        }
    }

    fn cause(&mut self, at: Time, node: usize, input: Input<Message<C>, LogCall>) {
        self.caused += 1;
        self.due.insert((at, self.caused), (node, input));
    }
}

/// The command.
const PAYLOAD: &[u8] = &[7; 128];
/// Without a decision until then there will be none.
const WAIT_MAX: Time = 60 * SECOND;
