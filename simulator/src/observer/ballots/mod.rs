//! The observer of protocols that vote slot by slot in ballots: a ledger of every promise, vote and proposal, issued
//! and durable. What is chosen is worked out from durable votes and from nothing that a node says.

pub mod fast;
pub mod rules;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use synod_core::{
    Effects, Entries, Entry, LogEvent, LogIndex, Membership, NodeId, NodeSet, Protocol, QuorumSystem,
    Recovered, Role, Stamp, Status, WriteId,
};

use super::agreement::{Decisions, Digest, entry_digest};
use super::bounds::{self, Progress};
use super::quorums::Quorums;
use super::terms::quorum_commit;
use super::unit::SeenUnit;
use super::{Checked, LogObserver, recovery, snapshots, violation};
use crate::hash::mix;
use crate::rare::{Rare, RareCounts};

use fast::{Answer, Picks, Round};

/// Slots beyond this are no accident.
const SLOTS_MAX: u64 = 1 << 20;

/// What the ledger must know of a protocol.
pub trait Ballots: Send + 'static {
    /// The protocol.
    type Protocol: Protocol;

    /// The ballot that a hard state promises.
    ///
    /// # Errors
    /// What is wrong with it.
    fn promised(bytes: &Bytes) -> Result<Stamp, String>;

    /// Ballots have fast rounds: then a coordinator may vote in its ballot and begin another one in one step.
    const FAST_ROUNDS: bool = false;

    /// The round that a stamp stands for.
    fn round(stamp: Stamp) -> Round {
        Round::classic(stamp)
    }

    /// The ballot whose fast rounds this replica knows to be open, and their first slot.
    fn opening(machine: &Self::Protocol) -> Option<(Stamp, u64)> {
        let _ = machine;
        None
    }

    /// The value that a coordinator is bound to by these votes of one fast round, if to any.
    fn pick(quorums: &QuorumSystem, answered: &NodeSet, votes: &[(NodeId, u64)]) -> Option<u64> {
        let _ = (quorums, answered);
        votes.first().map(|(_, value)| *value)
    }

    /// What a message reveals of its sender.
    ///
    /// # Errors
    /// What `claim` returns.
    fn claims(
        message: &<Self::Protocol as synod_core::Machine>::Message,
        claim: &mut dyn FnMut(Claim<'_>) -> Checked,
    ) -> Checked;
}

/// What a message reveals of its sender.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    /// The sender campaigns in this ballot.
    Candidate(Stamp),
    /// The sender has promised this ballot, and all its votes at or above `from` and below `to` are `votes`.
    Promise {
        /// The ballot.
        ballot: Stamp,
        /// The first slot told.
        from: u64,
        /// The slot after the last one told.
        to: u64,
        /// The votes.
        votes: &'a [Entries],
        /// True if it tells the last of them.
        complete: bool,
    },
    /// The sender leads this ballot.
    Leads(Stamp),
    /// The sender proposes these values.
    Proposes(&'a Entries),
    /// The sender has voted in this ballot through here, from the ballot's first slot on.
    Voted {
        /// The ballot.
        ballot: Stamp,
        /// The last slot.
        through: u64,
    },
    /// The sender opens the fast rounds of its ballot.
    Opens {
        /// The ballot.
        ballot: Stamp,
        /// The first slot.
        from: u64,
    },
    /// The sender proposes these in fast rounds.
    Suggests(&'a Entries),
    /// The sender has voted for these, each in the round of its stamp, or knows them to be chosen.
    Votes(&'a Entries),
    /// Everything through here is decided.
    Decided(u64),
    /// These values are chosen.
    Chosen(&'a Entries),
}

/// A value proposed for a slot.
#[derive(Clone, Copy, Debug)]
pub struct Proposal {
    /// The round. A classic one has one proposal.
    pub round: Round,
    /// The value's hash.
    pub entry: u64,
    /// Who has ever durably voted for it, as bits.
    pub voters: u16,
}

/// What was chosen in a slot, and first in which round.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// The round.
    pub round: Round,
    /// The value's hash.
    pub entry: u64,
}

/// The ledger. See the module.
#[derive(Debug)]
pub struct BallotLedger<T> {
    quorums: Quorums,
    picks: Picks,
    nodes: Vec<Node>,
    slots: Vec<Slot>,
    ballots: BTreeMap<Stamp, Ballot>,
    decisions: Decisions,
    latest_led: Stamp,
    rare: RareCounts,
    rules: std::marker::PhantomData<fn() -> T>,
}

#[derive(Debug, Default)]
struct Slot {
    proposals: Vec<Proposal>,
    chosen: Option<Choice>,
}

impl Slot {
    fn proposal(&mut self, round: Round, entry: u64) -> Option<&mut Proposal> {
        self.proposals.iter_mut().find(|proposal| proposal.round == round && proposal.entry == entry)
    }
}

#[derive(Debug, Default)]
struct Ballot {
    /// The life of its node that used it first.
    life: u64,
    /// Who said that it promised, as bits.
    promised: u16,
    /// The first slot of its fast rounds, once they are open.
    open_from: Option<u64>,
}

/// What stands in a slot of one node: nothing if the stamp is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    stamp: Stamp,
    entry: u64,
}

#[derive(Debug, Default)]
struct Node {
    life: u64,
    /// What it asked to write, durable or not.
    log: Vec<Held>,
    durable: Vec<Held>,
    promised: Stamp,
    durable_promised: Stamp,
    hard_state: Option<Bytes>,
    durable_hard_state: Option<Bytes>,
    in_flight: VecDeque<(WriteId, Op)>,
    unit: SeenUnit,
    reign: Stamp,
    leads: bool,
    decided: u64,
    /// The highest watermark of all its lives.
    decided_ever: u64,
    /// The votes through here, in this ballot, were found durable before.
    voted: (Stamp, u64),
}

#[derive(Clone, Debug)]
enum Op {
    Put(Entries),
    HardState(Stamp, Bytes),
    /// A snapshot stands for every slot through here.
    Install(u64),
}

impl<T: Ballots> BallotLedger<T> {
    /// The ledger of a cluster in which nothing was written yet.
    #[must_use]
    pub fn new(membership: &Membership) -> BallotLedger<T> {
        BallotLedger {
            quorums: Quorums::new(membership),
            picks: Picks::new(membership),
            nodes: membership.members().iter().map(|_| Node::default()).collect(),
            slots: Vec::new(),
            ballots: BTreeMap::new(),
            decisions: Decisions::default(),
            latest_led: Stamp::ZERO,
            rare: RareCounts::default(),
            rules: std::marker::PhantomData,
        }
    }

    fn slot(&mut self, slot: u64) -> Result<&mut Slot, super::Violation> {
        if slot == 0 || slot > SLOTS_MAX {
            return Err(violation("bound", format!("slot {slot} was reached")));
        }
        let at = slot as usize - 1;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, Slot::default);
        }
        Ok(&mut self.slots[at])
    }

    fn chosen(&self, slot: u64) -> Option<Choice> {
        self.slots.get(slot as usize - 1).and_then(|slot| slot.chosen)
    }

    fn hard_state_written(&mut self, node: usize, bytes: &Bytes, unit: WriteId) -> Checked {
        let ledger = &mut self.nodes[node];
        if !ledger.unit.hard_state_changed(bytes) {
            return Ok(());
        }
        let promised = T::promised(bytes).map_err(|what| violation("ST4", what))?;
        rules::promise_follows(node, ledger.promised, promised)?;
        ledger.promised = promised;
        ledger.hard_state = Some(bytes.clone());
        ledger.in_flight.push_back((unit, Op::HardState(promised, bytes.clone())));
        Ok(())
    }

    /// A value stands under a stamp: written by `node`, or sent by it.
    fn proposed(&mut self, node: usize, index: u64, stamp: Stamp, entry: u64) -> Checked {
        let round = T::round(stamp);
        let open_from = self.ballots.get(&round.ballot).and_then(|ballot| ballot.open_from);
        let slot = self.slot(index)?;
        if round.classic {
            let known = slot.proposals.iter().find(|proposal| proposal.round == round);
            rules::one_value(node, index, stamp, known.map(|proposal| proposal.entry), entry)?;
        } else {
            fast::opened(node, index, round, open_from)?;
        }
        if slot.proposal(round, entry).is_none() {
            let proposal = Proposal { round, entry, voters: 0 };
            if let Some(choice) = slot.chosen {
                rules::stable(index, choice, &proposal)?;
            }
            slot.proposals.push(proposal);
        }
        Ok(())
    }

    /// Votes are cast by `node`, which had promised `before` when its step began: one step may end a ballot after a last
    /// vote in it.
    fn put(&mut self, node: usize, unit: WriteId, before: Stamp, entries: &Entries) -> Checked {
        for entry in entries.iter() {
            let (index, stamp, digest) = (entry.index.0, entry.stamp, entry_digest(entry));
            if stamp == Stamp::CHOSEN {
                rules::learned(node, index, self.slot(index)?.chosen.map(|choice| choice.entry), digest)?;
            } else {
                let ballot = T::round(stamp).ballot;
                let last = T::FAST_ROUNDS && ballot == before;
                rules::vote(node, index, ballot, if last { before } else { self.nodes[node].promised })?;
                self.proposed(node, index, stamp, digest)?;
            }
            let ledger = &mut self.nodes[node];
            if index <= ledger.decided && held(&ledger.log, index).entry != digest {
                return Err(violation(
                    "RI5",
                    format!("n{} wrote another entry at {index}, which is decided", node + 1),
                ));
            }
            self.rare[Rare::VotedAboveHole] +=
                u64::from(index > 1 && held(&ledger.log, index - 1).stamp == Stamp::ZERO);
            set(&mut ledger.log, index, Held { stamp, entry: digest });
        }
        self.nodes[node].in_flight.push_back((unit, Op::Put(entries.clone())));
        Ok(())
    }

    fn role_changed(&mut self, node: usize, status: &Status) -> Checked {
        let reign = Stamp { high: status.reign.number, low: status.reign.leader.0 };
        let ledger = &mut self.nodes[node];
        let led = std::mem::replace(&mut ledger.leads, status.role == Role::Leader);
        let before = std::mem::replace(&mut ledger.reign, reign);
        if reign.high < before.high {
            return Err(violation("M3", format!("n{} followed {before} and then {reign}", node + 1)));
        }
        if led && !ledger.leads && ledger.promised == before {
            self.rare[Rare::SteppedDown] += 1;
        }
        if self.nodes[node].leads && !(led && before == reign) {
            self.leads(node, reign)?;
            if self.latest_led != Stamp::ZERO && reign > self.latest_led {
                self.rare[Rare::LeaderChanged] += 1;
            }
            self.latest_led = self.latest_led.max(reign);
        }
        Ok(())
    }

    /// A node proposes in a ballot: it is its own, and an election quorum has promised it.
    fn leads(&mut self, node: usize, ballot: Stamp) -> Checked {
        let life = self.nodes[node].life;
        rules::promise_durable(node, ballot, self.nodes[node].durable_promised)?;
        let known = self.ballots.entry(ballot).or_insert(Ballot { life, ..Ballot::default() });
        rules::owner(node, ballot, life, known.life)?;
        if !self.quorums.elect(known.promised | 1 << node) {
            return Err(violation(
                "PX5",
                format!("n{} leads ballot {ballot} without an election quorum", node + 1),
            ));
        }
        Ok(())
    }

    /// F-b: where values stand in fast rounds alone, fewer votes than a fast quorum's decide nothing.
    fn fast_quorums_decide(&self, node: usize, decided: u64) -> Checked {
        let next = self.decisions.through() + 1;
        let Some(slot) = self.slots.get(next as usize - 1).filter(|_| decided >= next) else { return Ok(()) };
        if slot.proposals.is_empty() || slot.proposals.iter().any(|proposal| proposal.round.classic) {
            return Ok(());
        }
        let what = format!("n{} takes slot {next} for decided, and no fast quorum has voted alike", node + 1);
        Err(violation("F-b", what))
    }

    fn decided_moved(&mut self, node: usize, decided: u64) -> Checked {
        let ledger = &mut self.nodes[node];
        let before = std::mem::replace(&mut ledger.decided, decided);
        self.fast_quorums_decide(node, decided)?;
        let ledger = &mut self.nodes[node];
        quorum_commit::check(node, before, decided, self.decisions.through())?;
        bounds::check(node, Progress { applied: 0, decided, last: ledger.log.len() as u64 })?;
        ledger.decided_ever = ledger.decided_ever.max(decided);
        for slot in before + 1..=decided {
            let held = held(&self.nodes[node].log, slot);
            let chosen = self.decisions.at(slot).map(|digest| digest.entry);
            if held.stamp == Stamp::ZERO {
                return Err(violation(
                    "M5",
                    format!("n{} passes over slot {slot}, which it does not hold", node + 1),
                ));
            }
            rules::learned(node, slot, chosen, held.entry)?;
        }
        Ok(())
    }

    fn vote_durable(&mut self, node: usize, entry: &Entry) -> Checked {
        let (index, stamp, digest) = (entry.index.0, entry.stamp, entry_digest(entry));
        set(&mut self.nodes[node].durable, index, Held { stamp, entry: digest });
        if stamp == Stamp::CHOSEN {
            return Ok(());
        }
        let round = T::round(stamp);
        let slot = &mut self.slots[index as usize - 1];
        if !round.classic {
            let mut others =
                slot.proposals.iter().filter(|other| other.round == round && other.entry != digest);
            fast::one_vote(node, index, round, others.any(|other| other.voters & 1 << node != 0))?;
        }
        let Some(proposal) = slot.proposal(round, digest) else { return Ok(()) };
        proposal.voters |= 1 << node;
        let voters = proposal.voters;
        let chooses =
            if round.classic { self.quorums.replicate(voters) } else { self.quorums.decide_fast(voters) };
        if chooses {
            self.choose(index, Choice { round, entry: digest })?;
        }
        if !round.classic {
            self.answers_bind(index)?;
        }
        Ok(())
    }

    fn choose(&mut self, index: u64, choice: Choice) -> Checked {
        let slot = &mut self.slots[index as usize - 1];
        rules::one_choice(index, slot.chosen, choice)?;
        if slot.chosen.is_none_or(|known| choice.round < known.round) {
            slot.chosen = Some(choice);
            slot.proposals.iter().try_for_each(|proposal| rules::stable(index, choice, proposal))?;
        }
        while let Some(choice) =
            self.slots.get(self.decisions.through() as usize).and_then(|slot| slot.chosen)
        {
            let through = self.decisions.through();
            let before = self.decisions.at(through).unwrap_or_default().chain;
            let chain = mix(mix(before, choice.entry), through + 1);
            self.decisions.push(Digest { chain, entry: choice.entry });
        }
        Ok(())
    }

    /// A snapshot takes the place of every slot through `index`: all of it is decided, and not known to the node.
    fn installed(&mut self, node: usize, unit: WriteId, index: u64) -> Checked {
        quorum_commit::told(node, index, self.decisions.through())?;
        snapshots::installed(node, index, self.nodes[node].decided)?;
        replace(&mut self.nodes[node].log, index, &self.decisions);
        self.nodes[node].in_flight.push_back((unit, Op::Install(index)));
        Ok(())
    }

    /// Whoever is asked for the vote that it has now: the next coordinator is bound to what was chosen in a fast round.
    fn answers_bind(&mut self, index: u64) -> Checked {
        let Some(choice) = self.chosen(index).filter(|choice| !choice.round.classic) else { return Ok(()) };
        let answer = |node: &Node| {
            let held = held(&node.durable, index);
            match T::round(held.stamp) {
                _ if held.stamp == Stamp::ZERO => Answer::Lower,
                round if round > choice.round => Answer::Higher,
                round if round == choice.round => Answer::Same(held.entry),
                _ => Answer::Lower,
            }
        };
        let answers: Vec<Answer> = self.nodes.iter().map(answer).collect();
        self.picks.check(index, choice.entry, &answers, T::pick)
    }

    fn op_durable(&mut self, node: usize, op: Op) -> Checked {
        match op {
            Op::Put(entries) => entries.iter().try_for_each(|entry| self.vote_durable(node, entry)),
            Op::Install(index) => {
                replace(&mut self.nodes[node].durable, index, &self.decisions);
                Ok(())
            }
            Op::HardState(promised, bytes) => {
                let ledger = &mut self.nodes[node];
                ledger.durable_promised = promised;
                ledger.durable_hard_state = Some(bytes);
                Ok(())
            }
        }
    }

    /// A promise leaves its sender: every vote it has cast in a lower ballot is in it.
    fn promise_told(&mut self, node: usize, ballot: Stamp, range: (u64, u64), votes: &[Entries]) -> Checked {
        let told = |slot: u64| votes.iter().find_map(|segment| segment.at(LogIndex(slot)));
        let ledger = &self.nodes[node];
        let from = range.0.max(ledger.decided + 1);
        for slot in from..range.1.min(ledger.log.len() as u64 + 1) {
            let held = held(&ledger.log, slot);
            // Votes at or above the ballot came after the promise, and so may a lesson have.
            if held.stamp == Stamp::ZERO || T::round(held.stamp).ballot >= ballot {
                continue;
            }
            if told(slot).is_none_or(|entry| entry.stamp != held.stamp || entry_digest(entry) != held.entry) {
                return Err(violation(
                    "P1b",
                    format!(
                        "n{} promises {ballot} and leaves out its vote {} in slot {slot}",
                        node + 1,
                        held.stamp
                    ),
                ));
            }
        }
        for entry in votes.iter().flat_map(|segment| segment.iter()) {
            let chosen = self.chosen(entry.index.0).map(|choice| choice.entry);
            if entry.stamp == Stamp::CHOSEN {
                self.rare[Rare::ChosenReported] += 1;
                rules::learned(node, entry.index.0, chosen, entry_digest(entry))?;
            }
        }
        Ok(())
    }

    /// Votes are told: they are durable, but for those slots that the ballot's leader knows to be decided, or that are
    /// decided by votes in this ballot.
    fn votes_told(&mut self, node: usize, ballot: Stamp, through: u64) -> Checked {
        let owner = ballot.low as usize - 1;
        let settled = self.nodes.get(owner).map_or(0, |owner| owner.decided_ever);
        let ledger = &mut self.nodes[node];
        rules::promise_durable(node, ballot, ledger.durable_promised)?;
        let checked = if ledger.voted.0 == ballot { ledger.voted.1 } else { 0 };
        for slot in checked.max(settled) + 1..=through {
            let proposals = self.slots.get(slot as usize - 1).map(|slot| slot.proposals.as_slice());
            let round = Round::classic(ballot);
            let proposal = proposals.into_iter().flatten().find(|proposal| proposal.round == round);
            let voters = proposal.map_or(0, |proposal| proposal.voters);
            if voters & 1 << node == 0 && !self.quorums.replicate(voters) {
                return Err(violation(
                    "RI9",
                    format!(
                        "n{} tells of its vote in ballot {ballot} for slot {slot}, which is not durable",
                        node + 1
                    ),
                ));
            }
        }
        ledger.voted = (ballot, checked.max(through));
        Ok(())
    }

    /// Fast rounds are opened where nothing can have been chosen in a lower ballot, and nothing was proposed in this one.
    fn opens(&mut self, node: usize, ballot: Stamp, from: u64) -> Checked {
        if self.ballots.get(&ballot).is_some_and(|known| known.open_from == Some(from)) {
            return Ok(());
        }
        self.leads(node, ballot)?;
        let known = self.ballots.entry(ballot).or_default();
        let round = Round { ballot, classic: false };
        if let Some(other) = known.open_from.replace(from) {
            return Err(violation("F-d", format!("the {round} is open from slot {other}, and from {from}")));
        }
        for (slot, index) in self.slots.iter().skip(from as usize - 1).zip(from..) {
            if let Some(choice) = slot.chosen.filter(|choice| choice.round < round) {
                let what =
                    format!("slot {index} was chosen in {}, and the {round} is open to all", choice.round);
                return Err(violation("M2", what));
            }
            if slot.proposals.iter().any(|proposal| proposal.round == Round::classic(ballot)) {
                let what =
                    format!("slot {index} has a value of ballot {ballot}, whose fast round opens after it");
                return Err(violation("F-d", what));
            }
        }
        Ok(())
    }

    /// A vote is told by itself: it is durable.
    fn vote_told(&mut self, node: usize, entry: &Entry) -> Checked {
        let (index, digest) = (entry.index.0, entry_digest(entry));
        if entry.stamp == Stamp::CHOSEN {
            return rules::learned(node, index, self.chosen(index).map(|choice| choice.entry), digest);
        }
        let round = T::round(entry.stamp);
        match self.slot(index)?.proposal(round, digest) {
            Some(proposal) if proposal.voters & 1 << node != 0 => Ok(()),
            _ => Err(violation(
                "RI9",
                format!(
                    "n{} tells of its vote in the {round} for slot {index}, which is not durable",
                    node + 1
                ),
            )),
        }
    }

    fn claimed(&mut self, node: usize, claim: Claim<'_>) -> Checked {
        match claim {
            Claim::Candidate(ballot) => {
                let ledger = &self.nodes[node];
                rules::promise_durable(node, ballot, ledger.durable_promised)?;
                let life = ledger.life;
                let known = self.ballots.entry(ballot).or_insert(Ballot { life, ..Ballot::default() });
                rules::owner(node, ballot, life, known.life)
            }
            Claim::Promise { ballot, from, to, votes, complete } => {
                rules::promise_durable(node, ballot, self.nodes[node].durable_promised)?;
                if complete && let Some(known) = self.ballots.get_mut(&ballot) {
                    known.promised |= 1 << node;
                }
                self.promise_told(node, ballot, (from, to), votes)
            }
            Claim::Leads(ballot) => self.leads(node, ballot),
            Claim::Proposes(entries) => entries
                .iter()
                .try_for_each(|entry| self.proposed(node, entry.index.0, entry.stamp, entry_digest(entry))),
            Claim::Voted { ballot, through } => self.votes_told(node, ballot, through),
            Claim::Opens { ballot, from } => self.opens(node, ballot, from),
            Claim::Suggests(entries) => entries
                .iter()
                .try_for_each(|entry| self.proposed(node, entry.index.0, entry.stamp, entry_digest(entry))),
            Claim::Votes(entries) => entries.iter().try_for_each(|entry| self.vote_told(node, entry)),
            Claim::Decided(index) => quorum_commit::told(node, index, self.decisions.through()),
            Claim::Chosen(entries) => entries.iter().try_for_each(|entry| {
                let chosen = self.decisions.at(entry.index.0).map(|digest| digest.entry);
                rules::learned(node, entry.index.0, chosen, entry_digest(entry))
            }),
        }
    }
}

fn held(log: &[Held], slot: u64) -> Held {
    log.get(slot as usize - 1).copied().unwrap_or_default()
}

fn set(log: &mut Vec<Held>, slot: u64, held: Held) {
    let at = slot as usize - 1;
    if at >= log.len() {
        log.resize(at + 1, Held::default());
    }
    log[at] = held;
}

/// Every slot through `index` holds what is decided there, known to be chosen.
fn replace(log: &mut Vec<Held>, index: u64, decisions: &Decisions) {
    for slot in 1..=index {
        let entry = decisions.at(slot).unwrap_or_default().entry;
        set(log, slot, Held { stamp: Stamp::CHOSEN, entry });
    }
}

impl<T: Ballots> LogObserver<T::Protocol> for BallotLedger<T> {
    fn opened(&mut self, node: usize, recovered: &Recovered, machine: &T::Protocol) -> Checked {
        let ledger = &self.nodes[node];
        let bound = recovered.compacted.map_or(LogIndex::ZERO, |(index, _)| index);
        if let Some((index, stamp)) = recovered.compacted
            && held(&ledger.durable, index.0).stamp != stamp
        {
            return Err(violation("ST5", format!("n{} recovered {stamp} at its bound {index}", node + 1)));
        }
        // What stood below the bound is known to nobody but this ledger.
        let below = ledger.durable.iter().take(bound.0 as usize).map(|held| held.stamp);
        let mut found: Vec<Stamp> = below.collect();
        for run in &recovered.runs {
            for slot in run.from.0..=run.to.0 {
                found.resize(slot as usize - 1, Stamp::ZERO);
                found.push(run.stamp_at(LogIndex(slot)));
            }
        }
        let ledger = &mut self.nodes[node];
        let expected: Vec<Stamp> = ledger.durable.iter().map(|held| held.stamp).collect();
        recovery::log(node, &found, &expected)?;
        recovery::hard_state(node, &recovered.hard_state, &ledger.durable_hard_state)?;
        ledger.life = recovered.incarnation.0;
        ledger.unit = SeenUnit::default();
        ledger.leads = false;
        ledger.decided = 0;
        let status = machine.status();
        ledger.reign = Stamp::ZERO;
        self.role_changed(node, &status)?;
        self.decided_moved(node, status.decided.0)
    }

    fn stepped(
        &mut self,
        node: usize,
        machine: &T::Protocol,
        effects: &Effects<<T::Protocol as synod_core::Machine>::Message, LogEvent>,
    ) -> Checked {
        let status = machine.status();
        let unit = effects.unit();
        let before = self.nodes[node].promised;
        self.nodes[node].unit.begin(unit);
        if let Some(bytes) = &unit.hard_state {
            self.hard_state_written(node, bytes, unit.id)?;
        }
        if unit.truncate_from.is_some() {
            return Err(violation("M3", format!("n{} removes votes", node + 1)));
        }
        if let Some((index, _)) = unit.install
            && self.nodes[node].unit.install_changed(index)
        {
            self.nodes[node].unit.replaced_through(index);
            self.installed(node, unit.id, index.0)?;
        }
        // A coordinator opens fast rounds before its first message says so.
        if let Some((ballot, from)) = T::opening(machine).filter(|(ballot, _)| ballot.low == node as u64 + 1)
        {
            self.opens(node, ballot, from)?;
        }
        let (_, fresh) = self.nodes[node].unit.changed(unit);
        for put in &unit.puts[fresh..] {
            self.put(node, unit.id, before, put)?;
        }
        let reign = Stamp { high: status.reign.number, low: status.reign.leader.0 };
        let ledger = &self.nodes[node];
        if ledger.reign != reign || ledger.leads != (status.role == Role::Leader) {
            self.role_changed(node, &status)?;
        }
        if self.nodes[node].decided != status.decided.0 {
            self.decided_moved(node, status.decided.0)?;
        }
        Ok(())
    }

    fn durable(&mut self, node: usize, through: WriteId, last: LogIndex) -> Checked {
        while self.nodes[node].in_flight.front().is_some_and(|(unit, _)| *unit <= through) {
            let (_, op) = self.nodes[node].in_flight.pop_front().expect("just seen");
            self.op_durable(node, op)?;
        }
        recovery::end_of_log(node, last.0, self.nodes[node].durable.len() as u64)
    }

    fn crashed(&mut self, node: usize, kept: WriteId, last: LogIndex) -> Checked {
        self.durable(node, kept, last)?;
        let ledger = &mut self.nodes[node];
        for (_, op) in ledger.in_flight.drain(..) {
            match op {
                Op::HardState(..) => self.rare[Rare::HardStateLost] += 1,
                Op::Put(_) => self.rare[Rare::EntriesLost] += 1,
                Op::Install(_) => {}
            }
        }
        ledger.log = ledger.durable.clone();
        ledger.promised = ledger.durable_promised;
        ledger.hard_state = ledger.durable_hard_state.clone();
        ledger.leads = false;
        Ok(())
    }

    fn sent(
        &mut self,
        node: usize,
        _: usize,
        message: &<T::Protocol as synod_core::Machine>::Message,
    ) -> Checked {
        T::claims(message, &mut |claim| self.claimed(node, claim))
    }

    fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn last_index(&self, node: usize) -> u64 {
        self.nodes[node].log.len() as u64
    }

    fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.nodes[*at].leads;
        (0..self.nodes.len()).filter(leads).max_by_key(|at| self.nodes[*at].reign)
    }

    fn rare(&self) -> RareCounts {
        self.rare
    }
}
