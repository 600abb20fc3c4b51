//! A cluster in lockstep: every envelope takes one unit of time, disks and computing take none, nothing fails.
//!
//! What arrives at one node at one moment is taken up together and flushed once, as a driver does that drains what
//! is there.

use std::collections::VecDeque;

use bytes::Bytes;
use synod_core::{
    GroupId, Inbound, Incarnation, Instant, Machine, Membership, NodeId, Protocol, ProtocolConfig, Recovered,
    Role, Start, Wire,
};
use synod_replica::{Actions, ClientCall, Replica, ReplicaConfig, ReplicaEvent, SessionKey, Token};

use crate::clock::{MICROSECOND, SECOND, Time};
use crate::log::Registers;

/// How long an envelope travels. Far below every timer: many commands pass between two heartbeats.
pub const UNIT: Time = MICROSECOND;

/// What left and was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Envelopes: all that one flush sends to one peer is one.
    pub messages: u64,
    /// Their encoded bytes, without what a transport frames them with.
    pub bytes: u64,
    /// Writes to a disk, of all replicas: units that are asked for together become durable together.
    pub durable_writes: u64,
}

/// Why nothing could be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsteady {
    /// The cluster could not be opened.
    #[error("n{node} does not open: {why}")]
    Open {
        /// Which node, from 1.
        node: usize,
        /// What it said.
        why: String,
    },
    /// Nobody came to lead.
    #[error("nobody leads after {0} s")]
    Leaderless(u64),
    /// A command was refused, or its reply never came.
    #[error("a command at n{node} was not answered")]
    Unanswered {
        /// Where it was proposed, from 1.
        node: usize,
    },
    /// Commands cost different amounts, or a timer always came in between.
    #[error("commands at n{node} do not cost the same")]
    Uneven {
        /// Where they were proposed, from 1.
        node: usize,
    },
    /// A node had to read its log, which takes time.
    #[error("n{node} reads its log")]
    Load {
        /// Which node, from 1.
        node: usize,
    },
}

impl std::ops::Sub for Cost {
    type Output = Cost;

    fn sub(self, before: Cost) -> Cost {
        Cost {
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
            durable_writes: self.durable_writes - before.durable_writes,
        }
    }
}

/// The cluster.
pub struct Lockstep<P: Protocol> {
    nodes: Vec<Replica<P, Registers>>,
    at: Time,
    /// When each arrives and where; ascending, since every one takes as long.
    travelling: VecDeque<(Time, usize, Inbound<P::Message>)>,
    /// Everything since the start.
    cost: Cost,
    /// Timers that fired since the start.
    ticks: u64,
    proposed: u64,
    replies: Vec<Token>,
    actions: Actions<P::Message>,
    events: Vec<ReplicaEvent>,
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    token: Token,
    node: usize,
    since: Time,
}

impl<P> Lockstep<P>
where
    P: Protocol,
    P::Config: ProtocolConfig<Protocol = P>,
{
    /// Opens every member and runs until all of them know who leads and nothing travels any more.
    ///
    /// # Errors
    /// [`Unsteady::Open`], [`Unsteady::Leaderless`].
    pub fn start(config: &<P as Machine>::Config, membership: &Membership) -> Result<Lockstep<P>, Unsteady> {
        let mut cluster = Lockstep {
            nodes: Vec::new(),
            at: 0,
            travelling: VecDeque::new(),
            cost: Cost::default(),
            ticks: 0,
            proposed: 0,
            replies: Vec::new(),
            actions: Actions::default(),
            events: Vec::new(),
        };
        for (node, id) in membership.members().iter().map(|member| member.id).enumerate() {
            let start = Start {
                node: id,
                membership: membership.clone(),
                config: config.clone(),
                recovered: Recovered { incarnation: Incarnation(1), ..Recovered::default() },
                now: Instant(0),
                seed: 0,
            };
            let replica =
                Replica::open(start, GroupId(0), ReplicaConfig::default(), Registers::default(), None)
                    .map_err(|error| Unsteady::Open { node: node + 1, why: error.to_string() })?;
            cluster.nodes.push(replica);
        }
        for node in 0..cluster.nodes.len() {
            cluster.flush(node)?;
        }
        while !cluster.is_led() || !cluster.travelling.is_empty() {
            if cluster.at > START_MAX {
                return Err(Unsteady::Leaderless(START_MAX / SECOND));
            }
            cluster.advance()?;
        }
        Ok(cluster)
    }

    /// Who leads, from 0.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.status().protocol.role == Role::Leader)
    }

    /// How many nodes there are.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.nodes.len()
    }

    /// Everything that left and was written since the start.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// How many timers have fired since the start: heartbeats follow one, and nothing that a command costs does.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// A client at this node proposes a command of [`COMMAND_LEN`] bytes.
    ///
    /// # Errors
    /// [`Unsteady::Load`].
    pub fn propose(&mut self, node: usize) -> Result<Pending, Unsteady> {
        Ok(self.propose_together(&[node])?[0])
    }

    /// A client at each of these nodes proposes a command, all at the same moment.
    ///
    /// # Errors
    /// [`Unsteady::Load`].
    pub fn propose_together(&mut self, nodes: &[usize]) -> Result<Vec<Pending>, Unsteady> {
        let mut pending = Vec::new();
        for &node in nodes {
            self.proposed += 1;
            let token = Token(self.proposed);
            self.nodes[node].call(ClientCall::Propose {
                session: SessionKey::OWN,
                token,
                payload: Bytes::from_static(&[0; COMMAND_LEN]),
                deadline: Instant(self.at + ANSWER_MAX),
            });
            pending.push(Pending { token, node, since: self.at });
        }
        for &node in nodes {
            self.flush(node)?;
        }
        Ok(pending)
    }

    /// Runs until the command is answered, and ends with the moment of the answer: how many message delays that took.
    ///
    /// # Errors
    /// [`Unsteady::Unanswered`] if it is refused, or never answered; [`Unsteady::Load`].
    pub fn answer(&mut self, pending: Pending) -> Result<u64, Unsteady> {
        while !self.replies.contains(&pending.token) {
            if self.at > pending.since + ANSWER_MAX {
                return Err(Unsteady::Unanswered { node: pending.node + 1 });
            }
            self.advance()?;
        }
        Ok((self.at - pending.since) / UNIT)
    }

    fn is_led(&self) -> bool {
        let leader = self.leader().map(|at| self.nodes[at].status().protocol.leader);
        leader.is_some_and(|leader| self.nodes.iter().all(|node| node.status().protocol.leader == leader))
    }

    /// The next moment at which anything happens, and all that happens then.
    fn advance(&mut self) -> Result<(), Unsteady> {
        let due = |node: &Replica<P, Registers>| node.next_deadline().map(|at| at.0);
        let arrival = self.travelling.front().map(|(at, ..)| *at);
        let timer = self.nodes.iter().filter_map(due).min();
        let next = arrival.into_iter().chain(timer).min().unwrap_or(self.at + SECOND);
        self.at = self.at.max(next);
        let now = Instant(self.at);
        let mut touched = vec![false; self.nodes.len()];
        while self.travelling.front().is_some_and(|(at, ..)| *at <= self.at) {
            let Some((_, node, inbound)) = self.travelling.pop_front() else { break };
            self.nodes[node].receive(now, inbound);
            touched[node] = true;
        }
        for (node, touched) in touched.iter_mut().enumerate() {
            if due(&self.nodes[node]).is_some_and(|at| at <= self.at) {
                self.ticks += 1;
                self.nodes[node].tick(now);
                *touched = true;
            }
        }
        for node in (0..touched.len()).filter(|node| touched[*node]) {
            self.flush(node)?;
        }
        Ok(())
    }

    fn flush(&mut self, node: usize) -> Result<(), Unsteady> {
        let now = Instant(self.at);
        loop {
            self.nodes[node].settle(now, &mut self.actions);
            self.write_at_once(node);
            self.nodes[node].finish(now, &mut self.actions, &mut self.events);
            self.write_at_once(node);
            if !self.actions.loads.is_empty() {
                return Err(Unsteady::Load { node: node + 1 });
            }
            for (to, envelope) in self.actions.envelopes.drain(..) {
                self.cost.messages += 1;
                self.cost.bytes += envelope.wire_len() as u64;
                let inbound = Inbound { from: envelope.from, envelope };
                self.travelling.push_back((self.at + UNIT, position(to), inbound));
            }
            for event in self.events.drain(..) {
                match event {
                    ReplicaEvent::Proposed { token, result: Ok(_) } => self.replies.push(token),
                    ReplicaEvent::Proposed { .. } => return Err(Unsteady::Unanswered { node: node + 1 }),
                    _ => {}
                }
            }
            if !self.nodes[node].has_work() {
                return Ok(());
            }
        }
    }

    /// Makes durable what the node asks for, and tells it.
    fn write_at_once(&mut self, node: usize) {
        let last = self.actions.writes.last().map(|unit| unit.id);
        self.actions.writes.clear();
        if let Some(last) = last {
            self.cost.durable_writes += 1;
            self.nodes[node].persisted(Instant(self.at), last);
        }
    }
}

/// Members are numbered from 1, nodes from 0.
fn position(member: NodeId) -> usize {
    usize::try_from(member.0 - 1).expect("members are few")
}

/// The payload of a command, in bytes.
pub const COMMAND_LEN: usize = 128;

/// Without a leader until then, there will be none.
const START_MAX: Time = 60 * SECOND;
/// A command without an answer for so long will never have one.
const ANSWER_MAX: Time = 10 * SECOND;
