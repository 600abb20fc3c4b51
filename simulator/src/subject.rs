//! What the world must know of what it runs.

use std::fmt::Display;

use synod_core::{
    Compacted, Envelope, Inbound, Instant, Load, LoadId, Loaded, NodeId, Recovered, Write, WriteId,
};
use synod_replica::{SnapshotDone, SnapshotJob};

use crate::clock::{Clock, Time};
use crate::disk::Disk;
use crate::observer::{Checked, Violation};
use crate::rare::RareCounts;
use crate::rng::Rng;

/// The time, for everybody and for one node.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time of the simulation.
    pub at: Time,
    /// What the node's clock shows.
    pub now: Instant,
    /// The node.
    pub node: usize,
}

/// What a flush asks of the world.
#[derive(Debug)]
pub struct Output<M> {
    /// Units for the disk, in order.
    pub writes: Vec<Write>,
    /// Envelopes that leave.
    pub envelopes: Vec<(NodeId, Envelope<M>)>,
    /// Reads to start.
    pub loads: Vec<Load>,
    /// What is to be done with the node's store of snapshots, in order.
    pub jobs: Vec<SnapshotJob>,
}

impl<M> Default for Output<M> {
    fn default() -> Self {
        Output { writes: Vec::new(), envelopes: Vec::new(), loads: Vec::new(), jobs: Vec::new() }
    }
}

/// When clients want to act next.
#[derive(Debug, Default)]
pub struct Agenda {
    /// Time and client.
    pub wakes: Vec<(Time, u32)>,
    /// What clients were told, by which node, in words: only while somebody reads along.
    pub notes: Option<Vec<(usize, String)>>,
}

impl Agenda {
    /// Says something to whoever reads along.
    pub fn note(&mut self, node: usize, text: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.push((node, text()));
        }
    }
}

/// What clients can see of the nodes.
#[derive(Clone, Copy, Debug)]
pub struct NodeView {
    /// False while it is crashed.
    pub up: bool,
    /// Its clock.
    pub clock: Clock,
    /// True if clients may turn to it.
    pub open: bool,
    /// True if it says that it leads. Several may, and none of them may be right.
    pub leads: bool,
}

/// A kind of cluster: what runs on each node, its clients, and the observer of both.
///
/// Implemented once for a bare log protocol ([`crate::log::Bare`]) and once for the full replica
/// ([`crate::log::Full`]); a machine without a log implements it in its own file. Nodes are numbered from 0.
pub trait Subject: Sized {
    /// What nodes say to each other.
    type Message: Clone + Display + Send + 'static;
    /// What runs on one node.
    type Node;
    /// What clients ask.
    type Call;

    /// A life begins.
    ///
    /// # Errors
    /// What does not hold.
    fn open(&mut self, moment: Moment, recovered: Recovered, seed: u64) -> Result<Self::Node, Violation>;

    /// An envelope arrives.
    fn receive(&mut self, moment: Moment, node: &mut Self::Node, inbound: Inbound<Self::Message>);

    /// The node is told that these units are durable.
    fn persisted(&mut self, moment: Moment, node: &mut Self::Node, through: WriteId);

    /// A read ends.
    fn loaded(
        &mut self,
        moment: Moment,
        node: &mut Self::Node,
        id: LoadId,
        result: Result<Loaded, Compacted>,
    );

    /// A job of the node's store of snapshots is done.
    fn keep(&mut self, node: usize, job: SnapshotJob) -> Option<SnapshotDone> {
        let _ = (node, job);
        None
    }

    /// The node is told what became of a job.
    fn kept(&mut self, moment: Moment, node: &mut Self::Node, done: SnapshotDone) {
        let _ = (moment, node, done);
    }

    /// A client asks.
    fn call(&mut self, moment: Moment, node: &mut Self::Node, call: Self::Call);

    /// A deadline is due.
    fn tick(&mut self, moment: Moment, node: &mut Self::Node);

    /// Begins to end a batch of inputs: what is to be written. A world whose writes take no time makes them
    /// durable before [`Subject::flush`].
    fn settle(&mut self, moment: Moment, node: &mut Self::Node, output: &mut Output<Self::Message>);

    /// Ends a batch of inputs: what else the world has to do, and what clients are told.
    ///
    /// # Errors
    /// What does not hold.
    fn flush(
        &mut self,
        moment: Moment,
        node: &mut Self::Node,
        output: &mut Output<Self::Message>,
        agenda: &mut Agenda,
    ) -> Checked;

    /// True if another flush would do something.
    fn has_work(&self, node: &Self::Node) -> bool;

    /// When the node wants a tick.
    fn next_deadline(&self, node: &Self::Node) -> Option<Instant>;

    /// The disk made these units durable; the node may not know yet.
    ///
    /// # Errors
    /// What does not hold.
    fn durable(&mut self, node: usize, through: WriteId, disk: &Disk) -> Checked;

    /// The node's life ended; `last` is what was left of it, units after `kept` are gone.
    ///
    /// # Errors
    /// What does not hold.
    fn crashed(
        &mut self,
        at: Time,
        node: usize,
        last: &Self::Node,
        kept: WriteId,
        disk: &Disk,
        agenda: &mut Agenda,
    ) -> Checked;

    /// An envelope leaves the node.
    ///
    /// # Errors
    /// What does not hold.
    fn sent(&mut self, node: usize, to: usize, envelope: &Envelope<Self::Message>) -> Checked;

    /// The envelope as it arrives after its way through bytes; as it was, if its messages have none.
    ///
    /// # Errors
    /// It would not arrive as it was sent.
    fn encoded(
        &self,
        node: usize,
        envelope: Envelope<Self::Message>,
    ) -> Result<Envelope<Self::Message>, Violation> {
        let _ = node;
        Ok(envelope)
    }

    /// A number that tells this message from others, for the trace hash.
    fn fingerprint(message: &Self::Message) -> u64;

    /// A call in words.
    fn describe_call(client: u32, call: &Self::Call) -> String;

    /// A client wants to act. Pushes when it wants to act again.
    fn wake(
        &mut self,
        at: Time,
        client: u32,
        nodes: &[NodeView],
        rng: &mut Rng,
        agenda: &mut Agenda,
    ) -> Vec<(usize, Self::Call)>;

    /// Checks what must hold after every event; `node` is the one it happened to.
    ///
    /// # Errors
    /// What does not hold.
    fn check(&mut self, moment: Moment, node: &Self::Node) -> Checked;

    /// So many of `nodes` nodes, whichever they are, hold every quorum that progress needs.
    fn quorum_len(&self, nodes: usize) -> usize {
        nodes / 2 + 1
    }

    /// Who leads, if anybody does: what faults are aimed at.
    fn leader(&self) -> Option<usize>;

    /// True once there is something to disturb: seeds are counted from here.
    fn has_begun(&self) -> bool {
        self.leader().is_some()
    }

    /// Faults are over; only the nodes of `core` take part from now on. Clients turn to them, and to more
    /// than they did before.
    fn heal(&mut self, at: Time, core: &[usize], rng: &mut Rng, agenda: &mut Agenda);

    /// True once everything that must happen after faults are over has happened.
    fn is_healed(&self, core: &[(usize, &Self::Node)]) -> bool;

    /// What is still missing, for a report.
    fn missing(&self, core: &[(usize, &Self::Node)]) -> String;

    /// Checks the run as a whole.
    ///
    /// # Errors
    /// What does not hold.
    fn finish(&mut self, core: &[(usize, &Self::Node)]) -> Checked;

    /// Something about the node for a diagram: changes when its role, reign or progress does.
    fn describe(&self, node: &Self::Node) -> NodeState;

    /// What happened, in numbers.
    fn tally(&self) -> Tally;
}

/// How a node stands, for diagrams and traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// `leader`, `candidate`, `follower` or what else there is.
    pub role: &'static str,
    /// The reign's number.
    pub reign: u64,
    /// Decided through here.
    pub decided: u64,
    /// Applied through here.
    pub applied: u64,
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Entries decided.
    pub decided: u64,
    /// Operations of clients that ended.
    pub client_ops: u64,
    /// Rare paths.
    pub rare: RareCounts,
}
