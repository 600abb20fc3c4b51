//! What the field tried before leases and quorums: Bully and mere heartbeats. Two leaders under a partition, shown; and
//! Bully inside the epoch of a quorum, which never has two leaders in one epoch.
//!
//! None of this ships: an election of this kind is a hint at best. Two of the three are here to fail.
//!
//! | run as | what it is | what must hold |
//! |---|---|---|
//! | `bully-plain` | Bully (Garcia-Molina, *Elections in a Distributed Computing System*, 1982) | B1, which breaks |
//! | `heartbeat` | whoever hears nobody with a lower id leads | B1, which breaks |
//! | `bully` | Bully, whose winner claims an epoch at a majority before it leads | BE1 |
//!
//! | invariant | what must hold |
//! |---|---|
//! | B1 | when a node begins to lead, no other one leads |
//! | BE1 | an epoch has one leader, one life of one node, for ever |
//! | B2 | once faults are over, everybody follows one of them (`liveness`) |

mod bully;
mod heartbeat;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use synod_core::{
    Compacted, Envelope, GroupId, Inbound, Incarnation, Input, Instant, LoadId, Loaded, Machine, Membership,
    NodeId, Packet, Recovered, Start, WriteId,
};
use synod_lease::FencingToken;
use synod_lease::epochs::EpochMessage;
use synod_replica::{Actions, Host};

use crate::clock::Time;
use crate::disk::Disk;
use crate::log::count_host;
use crate::observer::{Checked, Violation, violation};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::Rng;
use crate::subject::{Agenda, Moment, NodeState, NodeView, Output, Subject, Tally};

pub use bully::Bully;
pub use heartbeat::Heartbeat;

/// How patient nodes are, and what a leader needs.
#[derive(Clone, Copy, Debug)]
pub struct ElectionConfig {
    /// How long a node waits for an answer, or for a sign of life.
    pub patience: Duration,
    /// The winner claims an epoch at a majority before it leads.
    pub epochs: bool,
}

/// What nodes say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// To those with higher ids: would you lead?
    Election,
    /// I would: leave it to me.
    Answer,
    /// I lead, in this epoch if there are any.
    Coordinator(Option<FencingToken>),
    /// I am alive; as a leader in this epoch, if there are any.
    Alive(Option<FencingToken>),
    /// I keep a later epoch than yours.
    Later(FencingToken),
    /// About epochs.
    Epoch(EpochMessage),
}

impl fmt::Display for Say {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of =
            |epoch: &Option<FencingToken>| epoch.map_or(String::new(), |epoch| format!(" in {}", epoch.0));
        match self {
            Say::Election => f.write_str("election"),
            Say::Answer => f.write_str("answer"),
            Say::Coordinator(epoch) => write!(f, "coordinator{}", of(epoch)),
            Say::Alive(epoch) => write!(f, "alive{}", of(epoch)),
            Say::Later(epoch) => write!(f, "later {}", epoch.0),
            Say::Epoch(message) => message.fmt(f),
        }
    }
}

/// What a node tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It leads, in this epoch if there are any.
    Leads(Option<FencingToken>),
    /// It follows this one, or does not know whom.
    Follows(Option<NodeId>),
}

/// An election that is simulated.
pub trait Election: Machine<Config = ElectionConfig, Message = Say, Call = (), Event = Told> {
    /// Its name on the command line.
    const NAME: &'static str;
    /// Its winner claims an epoch.
    const EPOCHS: bool;
}

/// A cluster that elects.
#[derive(Debug)]
pub struct Elections<E: Election> {
    membership: Membership,
    config: ElectionConfig,
    /// How each node stands, as it told.
    told: Vec<Told>,
    lives: Vec<Incarnation>,
    /// Who led in each epoch.
    epochs: BTreeMap<FencingToken, (usize, Incarnation)>,
    elected: u64,
    rare: RareCounts,
    others: Vec<(NodeId, Packet<Say>)>,
    actions: Actions<Say>,
    events: Vec<Told>,
    _election: std::marker::PhantomData<E>,
}

impl<E: Election> Elections<E> {
    /// The cluster of a seed.
    ///
    /// # Panics
    /// If there is no node.
    #[must_use]
    pub fn new(options: &Options) -> Elections<E> {
        Elections {
            membership: Membership::of_ids(1..=options.replicas as u64).expect("there are nodes"),
            config: ElectionConfig { patience: Duration::from_nanos(options.patience), epochs: E::EPOCHS },
            told: vec![Told::Follows(None); options.replicas],
            lives: vec![Incarnation(0); options.replicas],
            epochs: BTreeMap::new(),
            elected: 0,
            rare: RareCounts::default(),
            others: Vec::new(),
            actions: Actions::default(),
            events: Vec::new(),
            _election: std::marker::PhantomData,
        }
    }

    fn on_event(&mut self, moment: Moment, told: Told) -> Checked {
        let node = moment.node;
        self.told[node] = told;
        let Told::Leads(epoch) = told else { return Ok(()) };
        self.elected += 1;
        if self.elected > 1 {
            self.rare[Rare::LeaderChanged] += 1;
        }
        let other = self.others_leading(node).next();
        match epoch {
            Some(epoch) => {
                self.rare[Rare::TwoLeaders] += u64::from(other.is_some());
                let led_by = (node, self.lives[node]);
                if let Some((theirs, _)) = self.epochs.insert(epoch, led_by) {
                    let (node, theirs) = (node + 1, theirs + 1);
                    let what = format!("n{node} leads in epoch {}, and so did n{theirs}", epoch.0);
                    return Err(violation("BE1", what));
                }
                Ok(())
            }
            None => match other {
                Some(other) => {
                    Err(violation("B1", format!("n{} leads, and so does n{}", node + 1, other + 1)))
                }
                None => Ok(()),
            },
        }
    }

    fn others_leading(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.told.len())
            .filter(move |other| *other != node && matches!(self.told[*other], Told::Leads(_)))
    }
}

impl<E: Election> Subject for Elections<E> {
    type Message = Say;
    type Node = Host<E>;
    type Call = ();

    fn open(&mut self, moment: Moment, recovered: Recovered, seed: u64) -> Result<Host<E>, Violation> {
        self.lives[moment.node] = recovered.incarnation;
        let start = Start {
            node: NodeId(moment.node as u64 + 1),
            membership: self.membership.clone(),
            config: self.config,
            recovered,
            now: moment.now,
            seed,
        };
        Host::open(start, GroupId(0), 0)
            .map_err(|error| violation("ST1", format!("n{} does not open: {error}", moment.node + 1)))
    }

    fn receive(&mut self, moment: Moment, node: &mut Host<E>, inbound: Inbound<Say>) {
        node.receive(moment.now, inbound, &mut self.others);
    }

    fn persisted(&mut self, moment: Moment, node: &mut Host<E>, through: WriteId) {
        node.persisted(moment.now, through);
    }

    fn loaded(&mut self, _: Moment, node: &mut Host<E>, id: LoadId, result: Result<Loaded, Compacted>) {
        node.loaded(id, result);
    }

    fn call(&mut self, _: Moment, _: &mut Host<E>, (): ()) {}

    fn tick(&mut self, moment: Moment, node: &mut Host<E>) {
        node.step(moment.now, Input::Tick);
    }

    fn settle(&mut self, moment: Moment, node: &mut Host<E>, output: &mut Output<Say>) {
        node.settle(moment.now, &mut self.actions);
        output.writes.append(&mut self.actions.writes);
    }

    fn flush(
        &mut self,
        moment: Moment,
        node: &mut Host<E>,
        output: &mut Output<Say>,
        agenda: &mut Agenda,
    ) -> Checked {
        node.sort(moment.now, &mut self.actions, &mut self.events);
        node.finish(&mut self.actions);
        output.writes.append(&mut self.actions.writes);
        std::mem::swap(&mut output.envelopes, &mut self.actions.envelopes);
        std::mem::swap(&mut output.loads, &mut self.actions.loads);
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            agenda.note(moment.node, || format!("{event:?}"));
            self.on_event(moment, event)?;
        }
        self.events = events;
        Ok(())
    }

    fn has_work(&self, node: &Host<E>) -> bool {
        node.has_work()
    }

    fn next_deadline(&self, node: &Host<E>) -> Option<Instant> {
        node.next_deadline()
    }

    fn durable(&mut self, _: usize, _: WriteId, _: &Disk) -> Checked {
        Ok(())
    }

    fn crashed(
        &mut self,
        _: Time,
        node: usize,
        last: &Host<E>,
        _: WriteId,
        _: &Disk,
        _: &mut Agenda,
    ) -> Checked {
        count_host(&mut self.rare, last.counters());
        self.told[node] = Told::Follows(None);
        Ok(())
    }

    fn sent(&mut self, _: usize, _: usize, _: &Envelope<Say>) -> Checked {
        Ok(())
    }

    fn fingerprint(message: &Say) -> u64 {
        message.to_string().bytes().fold(0, |hash, byte| crate::hash::mix(hash, u64::from(byte)))
    }

    fn describe_call(client: u32, (): &()) -> String {
        format!("client {client}")
    }

    fn wake(&mut self, _: Time, _: u32, _: &[NodeView], _: &mut Rng, _: &mut Agenda) -> Vec<(usize, ())> {
        Vec::new()
    }

    fn check(&mut self, _: Moment, _: &Host<E>) -> Checked {
        Ok(())
    }

    fn leader(&self) -> Option<usize> {
        self.told.iter().position(|told| matches!(told, Told::Leads(_)))
    }

    fn has_begun(&self) -> bool {
        true
    }

    fn heal(&mut self, _: Time, _: &[usize], _: &mut Rng, _: &mut Agenda) {}

    fn is_healed(&self, core: &[(usize, &Host<E>)]) -> bool {
        let leads = |node: &&usize| matches!(self.told[**node], Told::Leads(_));
        let nodes: Vec<usize> = core.iter().map(|(node, _)| *node).collect();
        let Some(leader) = nodes.iter().find(leads) else { return false };
        let follows = Told::Follows(Some(NodeId(*leader as u64 + 1)));
        nodes.iter().all(|node| node == leader || self.told[*node] == follows)
    }

    fn missing(&self, core: &[(usize, &Host<E>)]) -> String {
        let nodes: Vec<String> =
            core.iter().map(|(node, _)| format!("n{} {:?}", node + 1, self.told[*node])).collect();
        format!("they do not follow one of them: {}", nodes.join(", "))
    }

    fn finish(&mut self, core: &[(usize, &Host<E>)]) -> Checked {
        for (_, node) in core {
            count_host(&mut self.rare, node.counters());
        }
        Ok(())
    }

    fn describe(&self, node: &Host<E>) -> NodeState {
        match self.told[node.node().0 as usize - 1] {
            Told::Leads(epoch) => {
                NodeState { role: "leader", reign: epoch.map_or(0, |epoch| epoch.0), ..NodeState::default() }
            }
            Told::Follows(_) => NodeState { role: "follower", ..NodeState::default() },
        }
    }

    fn tally(&self) -> Tally {
        Tally { decided: self.elected, client_ops: self.elected, rare: self.rare }
    }
}

/// The rare paths that a long sweep of Bully inside an epoch must have taken.
pub const EXPECTED: &[Rare] =
    &[Rare::LeaderChanged, Rare::TwoLeaders, Rare::Held, Rare::StaleSender, Rare::StaleReceiver];
