//! What one decided command costs, exactly: message delays, messages, bytes and durable writes, for every protocol,
//! size and place of the client.
//!
//! The replicas that ship run in [lockstep]: every envelope takes one unit, disks and computing take no
//! time, nothing is lost. One client proposes one command at a time, the next one at the moment of the reply. So
//! what a protocol says about command `i` with the messages of command `i + 1` (a watermark, a commit index) costs no
//! message of its own, as under any load. No heartbeat is counted: a unit is a microsecond, and a series of commands
//! in which any timer fired is measured again. A row is printed only if all commands of its series cost the same.
//!
//! | column | what it says |
//! |---|---|
//! | `protocol`, `replicas` | of which cluster |
//! | `client_at` | the client's node: the `leader` (of Fast Paxos the coordinator), or a `follower` |
//! | `case` | `normal`: nothing special; `direct_reply`: acceptors answer the client's replica themselves |
//! | `message_delays` | from the client's call to its reply, both at its node |
//! | `messages` | envelopes between replicas: all that one flush sends to one peer is one |
//! | `bytes` | of these, encoded, without the transport's framing; the command has [`COMMAND_LEN`] bytes |
//! | `durable_writes` | of all replicas; a unit that nobody waits for rides on the next one |
//!
//! A protocol has the cases that it has: there is no row for a way that its code does not go.
//!
//! # How to add a protocol
//!
//! One line in [`CONTENDERS`]. Cases beyond the steady state are driven by hand with [`lockstep::Lockstep`].

use std::fmt;

use serde::{Serialize, Serializer};
use synod_core::{Member, Membership, NodeId, ProtocolConfig, QuorumSystem, SessionLimits};
use synod_multipaxos::{FastPaxos, MultiPaxos};
use synod_raft::Raft;
use synod_zab::Zab;

pub mod lockstep;

pub use lockstep::{COMMAND_LEN, Cost, Lockstep, Unsteady};

/// What one decided command costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The protocol.
    pub protocol: &'static str,
    /// How many replicas.
    pub replicas: usize,
    /// Where the client is.
    pub client_at: Place,
    /// What is special.
    pub case: Case,
    /// From the call to the reply.
    pub message_delays: u64,
    /// Envelopes.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Writes of all replicas.
    pub durable_writes: u64,
}

/// Where the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the leader's node.
    Leader,
    /// At another one.
    Follower,
}

/// What is special about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Nothing.
    Normal,
    /// Acceptors tell their votes to every replica, so the client's own counts them.
    DirectReply,
}

/// The columns, in order.
pub const COLUMNS: [&str; 8] =
    ["protocol", "replicas", "client_at", "case", "message_delays", "messages", "bytes", "durable_writes"];

/// A protocol whose costs are shown.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// Its name.
    pub protocol: &'static str,
    /// The rows of a cluster of so many replicas.
    rows: fn(&'static str, usize) -> Result<Vec<Row>, Unsteady>,
}

/// Every protocol. A new one is one line here.
pub const CONTENDERS: &[Contender] = &[
    Contender { protocol: "raft", rows: |name, size| steady(name, Raft::config(), majority(size)) },
    Contender { protocol: "multipaxos", rows: |name, size| paxos(name, majority(size)) },
    Contender { protocol: "flexpaxos", rows: |name, size| paxos(name, flexible(size)) },
    Contender { protocol: "fastpaxos", rows: |name, size| steady(name, FastPaxos::config(), majority(size)) },
    Contender { protocol: "zab", rows: |name, size| steady(name, Zab::config(), majority(size)) },
];

/// The sizes of clusters that are shown.
pub const SIZES: [usize; 4] = [3, 4, 5, 7];

/// The rows of every protocol at every size.
///
/// # Errors
/// [`Unsteady`] if a protocol does not come to a steady state.
pub fn rows() -> Result<Vec<Row>, Unsteady> {
    let mut rows = Vec::new();
    for contender in CONTENDERS {
        for size in SIZES {
            rows.extend(contender.rows(size)?);
        }
    }
    Ok(rows)
}

impl Contender {
    /// The rows of a cluster of `replicas`.
    ///
    /// # Errors
    /// [`Unsteady`] if it does not come to a steady state.
    pub fn rows(&self, replicas: usize) -> Result<Vec<Row>, Unsteady> {
        (self.rows)(self.protocol, replicas)
    }
}

/// Multi-Paxos with votes for the leader alone, and, for a client elsewhere, with votes for all.
fn paxos(protocol: &'static str, quorums: QuorumSystem) -> Result<Vec<Row>, Unsteady> {
    let mut rows = steady(protocol, MultiPaxos::config(), quorums.clone())?;
    let direct = steady(protocol, MultiPaxos::config().votes_to_all(true), quorums)?;
    let elsewhere = direct.into_iter().filter(|row| row.client_at == Place::Follower);
    rows.extend(elsewhere.map(|row| Row { case: Case::DirectReply, ..row }));
    Ok(rows)
}

/// The steady state of a protocol with a leader, for a client at the leader and one at a follower.
///
/// # Errors
/// [`Unsteady`].
pub fn steady<C: ProtocolConfig>(
    protocol: &'static str,
    config: C,
    quorums: QuorumSystem,
) -> Result<Vec<Row>, Unsteady> {
    let members = quorums.members().iter().map(|id| Member { id, address: String::new() }).collect();
    let membership = Membership::new(members, quorums, SessionLimits::default())
        .expect("majorities and small replication quorums meet");
    let mut rows = Vec::new();
    for client_at in [Place::Leader, Place::Follower] {
        let mut cluster = Lockstep::<C::Protocol>::start(&config, &membership)?;
        let leader = cluster.leader().expect("a cluster in lockstep starts with a leader");
        let node = match client_at {
            Place::Leader => leader,
            Place::Follower => (leader + 1) % cluster.replicas(),
        };
        let (message_delays, cost) = series(&mut cluster, node)?;
        rows.push(Row {
            protocol,
            replicas: cluster.replicas(),
            client_at,
            case: Case::Normal,
            message_delays,
            messages: cost.messages,
            bytes: cost.bytes,
            durable_writes: cost.durable_writes,
        });
    }
    Ok(rows)
}

/// What every command of a series at one node costs.
///
/// # Errors
/// [`Unsteady::Uneven`] if they differ in every attempt.
fn series<P>(cluster: &mut Lockstep<P>, node: usize) -> Result<(u64, Cost), Unsteady>
where
    P: synod_core::Protocol,
    P::Config: ProtocolConfig<Protocol = P>,
{
    for _ in 0..ATTEMPTS {
        let ticks = cluster.ticks();
        let mut costs = Vec::new();
        for _ in 0..WARM_UP + MEASURED {
            let before = cluster.cost();
            let pending = cluster.propose(node)?;
            let delays = cluster.answer(pending)?;
            costs.push((delays, cluster.cost() - before));
        }
        let measured = &costs[WARM_UP..];
        if cluster.ticks() == ticks && measured.iter().all(|cost| *cost == measured[0]) {
            return Ok(measured[0]);
        }
    }
    Err(Unsteady::Uneven { node: node + 1 })
}

/// Commands before the measured ones: they open the client's session and carry away what an idle time left.
const WARM_UP: usize = 4;
/// Commands that must all cost the same.
const MEASURED: usize = 100;
/// Series in which a timer may fire.
const ATTEMPTS: usize = 8;

fn majority(replicas: usize) -> QuorumSystem {
    QuorumSystem::majority(members(replicas))
}

/// Two decide, all but one elect.
fn flexible(replicas: usize) -> QuorumSystem {
    QuorumSystem::small_replication(members(replicas)).unwrap_or_else(|| majority(replicas))
}

fn members(replicas: usize) -> impl Iterator<Item = NodeId> {
    (1..=replicas as u64).map(NodeId)
}

impl Row {
    /// The values in the order of [`COLUMNS`].
    #[must_use]
    pub fn cells(&self) -> [String; 8] {
        [
            self.protocol.to_owned(),
            self.replicas.to_string(),
            self.client_at.to_string(),
            self.case.to_string(),
            self.message_delays.to_string(),
            self.messages.to_string(),
            self.bytes.to_string(),
            self.durable_writes.to_string(),
        ]
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Leader => "leader",
            Place::Follower => "follower",
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Case::Normal => "normal",
            Case::DirectReply => "direct_reply",
        })
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
