//! What acceptors ever wrote and told about single decrees, and what follows from it: the invariants of
//! [`rules`], with a decree in the place of a slot, and
//!
//! | name | what must hold | source |
//! |---|---|---|
//! | M6 | what is proposed was wished for by a client | Paxos Made Simple, section 1: only a value that has been proposed may be chosen |
//!
//! What is chosen is worked out from durable votes, and from nothing that a process says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use synod_core::{Membership, Stamp, Write, WriteId};
use synod_multipaxos::synod::{Accept, Accepted, Prepare, Promise};

use super::process::{AcceptorState, Body, Decree, Learned, Letter, Process, Value};
use crate::observer::ballots::fast::Round;
use crate::observer::ballots::{Choice, Proposal, rules};
use crate::observer::quorums::Quorums;
use crate::observer::{Checked, violation};

/// The ledger of a cluster.
#[derive(Debug)]
pub struct Ledger {
    quorums: Quorums,
    decrees: BTreeMap<Decree, Story>,
    nodes: Vec<Node>,
    chosen: u64,
}

/// What happened to one decree.
#[derive(Debug, Default)]
struct Story {
    wishes: BTreeSet<Value>,
    proposals: Vec<Proposal>,
    ballots: BTreeMap<Stamp, Used>,
    chosen: Option<Choice>,
}

/// One ballot of a decree.
#[derive(Debug, Default)]
struct Used {
    /// The life of its node that used it first.
    life: u64,
    /// Who said that it promised, as bits.
    promised: u16,
}

#[derive(Debug, Default)]
struct Node {
    life: u64,
    /// What it asked to write, durable or not.
    asked: BTreeMap<Decree, AcceptorState>,
    durable: BTreeMap<Decree, AcceptorState>,
    in_flight: VecDeque<(WriteId, Decree, AcceptorState)>,
}

impl Ledger {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(membership: &Membership) -> Ledger {
        Ledger {
            quorums: Quorums::new(membership),
            decrees: BTreeMap::new(),
            nodes: membership.members().iter().map(|_| Node::default()).collect(),
            chosen: 0,
        }
    }

    /// How many decrees are chosen.
    #[must_use]
    pub fn chosen(&self) -> u64 {
        self.chosen
    }

    /// True if something is chosen there.
    #[must_use]
    pub fn is_chosen(&self, decree: Decree) -> bool {
        self.decrees.get(&decree).is_some_and(|story| story.chosen.is_some())
    }

    /// A client wishes for this.
    pub fn wished(&mut self, decree: Decree, value: Value) {
        self.decrees.entry(decree).or_default().wishes.insert(value);
    }

    /// A process begins a life.
    ///
    /// # Errors
    /// ST1 if its acceptor stands otherwise than its disk.
    pub fn opened(&mut self, node: usize, life: u64, process: &Process) -> Checked {
        let ledger = &mut self.nodes[node];
        ledger.life = life;
        ledger.asked = ledger.durable.clone();
        let found: BTreeMap<Decree, AcceptorState> =
            process.decrees().map(|decree| (decree, process.state(decree))).collect();
        if found == ledger.durable {
            return Ok(());
        }
        let differs = ledger.durable.iter().find(|(decree, state)| found.get(decree) != Some(state));
        Err(violation("ST1", format!("n{} begins a life without {differs:?}", node + 1)))
    }

    /// A process asks for a unit to be written.
    ///
    /// # Errors
    /// M2, M3, M4, M6.
    pub fn asked(&mut self, node: usize, unit: &Write) -> Checked {
        for entry in unit.puts.iter().flat_map(|put| put.iter()) {
            let decree = Decree(entry.index.0);
            let Some(state) = AcceptorState::of(entry) else {
                return Err(violation(
                    "ST2",
                    format!("n{} writes what is no state of an acceptor", node + 1),
                ));
            };
            let before = self.nodes[node].asked.get(&decree).cloned().unwrap_or_default();
            rules::promise_follows(node, before.promised.stamp(), state.promised.stamp())?;
            if state.vote != before.vote {
                let Some(vote) = &state.vote else {
                    return Err(violation("M3", format!("n{} forgets its vote for {decree:?}", node + 1)));
                };
                rules::vote(node, decree.0, vote.ballot.stamp(), state.promised.stamp())?;
                self.proposed(node, decree, vote.ballot.stamp(), vote.value)?;
            }
            let ledger = &mut self.nodes[node];
            ledger.asked.insert(decree, state.clone());
            ledger.in_flight.push_back((unit.id, decree, state));
        }
        Ok(())
    }

    /// Every unit of a process through this one is durable.
    ///
    /// # Errors
    /// M1, M2.
    pub fn durable(&mut self, node: usize, through: WriteId) -> Checked {
        while self.nodes[node].in_flight.front().is_some_and(|(unit, ..)| *unit <= through) {
            let Some((_, decree, state)) = self.nodes[node].in_flight.pop_front() else { break };
            if let Some(vote) = &state.vote {
                self.voted(node, decree, vote.ballot.stamp())?;
            }
            self.nodes[node].durable.insert(decree, state);
        }
        Ok(())
    }

    /// A life ends; units after `kept` are gone.
    ///
    /// # Errors
    /// As [`Ledger::durable`].
    pub fn crashed(&mut self, node: usize, kept: WriteId) -> Checked {
        self.durable(node, kept)?;
        self.nodes[node].in_flight.clear();
        Ok(())
    }

    /// A letter leaves a process.
    ///
    /// # Errors
    /// M2, M4, M6, P1b, PX5, RI9.
    pub fn sent(&mut self, node: usize, letter: &Letter) -> Checked {
        let decree = letter.decree;
        let promised =
            self.nodes[node].durable.get(&decree).map_or(Stamp::ZERO, |state| state.promised.stamp());
        match &letter.body {
            Body::Prepare(Prepare { ballot }) => {
                rules::promise_durable(node, ballot.stamp(), promised)?;
                self.owned(node, decree, ballot.stamp())
            }
            Body::Promise(promise) => {
                rules::promise_durable(node, promise.ballot.stamp(), promised)?;
                self.promised(node, decree, promise)
            }
            Body::Accept(Accept { ballot, value }) => {
                self.owned(node, decree, ballot.stamp())?;
                let story = self.decrees.entry(decree).or_default();
                let promised = story.ballots.get(&ballot.stamp()).map_or(0, |used| used.promised);
                if !self.quorums.elect(promised | 1 << node) {
                    let what = format!("n{} proposes in {ballot} without an election quorum", node + 1);
                    return Err(violation("PX5", what));
                }
                self.proposed(node, decree, ballot.stamp(), *value)
            }
            Body::Accepted(Accepted { vote }) => {
                let proposal = self.proposal(decree, vote.ballot.stamp());
                if proposal.is_some_and(|known| known.entry == vote.value.0 && known.voters & 1 << node != 0)
                {
                    return Ok(());
                }
                let what = format!(
                    "n{} tells of its vote for {} in {}, which is not durable",
                    node + 1,
                    vote.value.0,
                    vote.ballot
                );
                Err(violation("RI9", what))
            }
            Body::Rejected(_) => Ok(()),
        }
    }

    /// A process says what is chosen.
    ///
    /// # Errors
    /// M5 if it is not.
    pub fn learned(&self, node: usize, learned: Learned) -> Checked {
        let chosen = self.decrees.get(&learned.decree).and_then(|story| story.chosen);
        rules::learned(node, learned.decree.0, chosen.map(|choice| choice.entry), learned.value.0)
    }

    fn proposal(&mut self, decree: Decree, ballot: Stamp) -> Option<&mut Proposal> {
        let story = self.decrees.entry(decree).or_default();
        story.proposals.iter_mut().find(|proposal| proposal.round == Round::classic(ballot))
    }

    /// A value stands under a ballot: sent by `node`, or voted for there.
    fn proposed(&mut self, node: usize, decree: Decree, ballot: Stamp, value: Value) -> Checked {
        let known = self.proposal(decree, ballot).map(|proposal| proposal.entry);
        rules::one_value(node, decree.0, ballot, known, value.0)?;
        if known.is_some() {
            return Ok(());
        }
        let story = self.decrees.entry(decree).or_default();
        if !story.wishes.contains(&value) {
            return Err(violation(
                "M6",
                format!("n{} proposes {}, and nobody wished for it", node + 1, value.0),
            ));
        }
        let proposal = Proposal { round: Round::classic(ballot), entry: value.0, voters: 0 };
        if let Some(choice) = story.chosen {
            rules::stable(decree.0, choice, &proposal)?;
        }
        story.proposals.push(proposal);
        Ok(())
    }

    fn owned(&mut self, node: usize, decree: Decree, ballot: Stamp) -> Checked {
        let life = self.nodes[node].life;
        let story = self.decrees.entry(decree).or_default();
        let used = story.ballots.entry(ballot).or_insert(Used { life, promised: 0 });
        rules::owner(node, ballot, life, used.life)
    }

    /// A promise is told: with the sender's last vote in a lower ballot.
    fn promised(&mut self, node: usize, decree: Decree, promise: &Promise<Value>) -> Checked {
        let ballot = promise.ballot.stamp();
        let vote = self.nodes[node].asked.get(&decree).and_then(|state| state.vote.as_ref());
        // A vote in this ballot or a higher one came after the promise.
        let later = vote.is_some_and(|vote| vote.ballot >= promise.ballot);
        if !later && vote != promise.vote.as_ref() {
            let what = format!("n{} promises {} and leaves out its vote {vote:?}", node + 1, promise.ballot);
            return Err(violation("P1b", what));
        }
        let story = self.decrees.entry(decree).or_default();
        if let Some(used) = story.ballots.get_mut(&ballot) {
            used.promised |= 1 << node;
        }
        Ok(())
    }

    fn voted(&mut self, node: usize, decree: Decree, ballot: Stamp) -> Checked {
        let story = self.decrees.entry(decree).or_default();
        let Some(proposal) =
            story.proposals.iter_mut().find(|proposal| proposal.round == Round::classic(ballot))
        else {
            return Ok(());
        };
        proposal.voters |= 1 << node;
        if !self.quorums.replicate(proposal.voters) {
            return Ok(());
        }
        let choice = Choice { round: Round::classic(ballot), entry: proposal.entry };
        rules::one_choice(decree.0, story.chosen, choice)?;
        if story.chosen.is_none_or(|known| choice.round < known.round) {
            self.chosen += u64::from(story.chosen.is_none());
            story.chosen = Some(choice);
            story.proposals.iter().try_for_each(|proposal| rules::stable(decree.0, choice, proposal))?;
        }
        Ok(())
    }
}
