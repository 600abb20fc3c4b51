//! The observer of protocols with one leader a term: a ledger of every log, vote and term, issued and durable.

pub mod append_only;
pub mod election_safety;
pub mod leader_completeness;
pub mod log_matching;
pub mod pre_vote;
pub mod quorum_commit;
pub mod reveal;
mod runs;
pub mod votes;

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use synod_core::{
    Effects, Entries, LogEvent, LogIndex, Membership, Protocol, QuorumSystem, Recovered, Role, Status,
    WriteId,
};

use super::agreement::{Decisions, Digest, Who};
use super::bounds::{self, Progress};
use super::quorums::{NODES_MAX, Quorums};
use super::unit::SeenUnit;
use super::{Checked, LogObserver, recovery, snapshots, violation};
use crate::rare::{Rare, RareCounts};
pub use runs::Runs;

/// Terms beyond this are no accident: somebody campaigns without end.
const TERMS_MAX: u64 = 1 << 20;

/// What the ledger must know of a protocol.
pub trait Terms: Send + 'static {
    /// The protocol.
    type Protocol: Protocol;

    /// Reads a hard state.
    ///
    /// # Errors
    /// What is wrong with it.
    fn hard_state(bytes: &Bytes) -> Result<HardState, String>;

    /// What a message reveals of its sender.
    fn claims(
        message: &<Self::Protocol as synod_core::Machine>::Message,
        claim: &mut dyn FnMut(Claim) -> Checked,
    ) -> Checked;

    /// The rare path that this message stands for, if any.
    fn rare(message: &<Self::Protocol as synod_core::Machine>::Message) -> Option<Rare>;
}

/// Term and vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The term.
    pub term: u64,
    /// The node voted for in it.
    pub vote: Option<usize>,
}

impl fmt::Display for HardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vote {
            Some(node) => write!(f, "term {} with a vote for n{}", self.term, node + 1),
            None => write!(f, "term {} without a vote", self.term),
        }
    }
}

/// What a message reveals of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The sender is in this term.
    Term(u64),
    /// The sender campaigns in this term, with its own vote.
    Candidate(u64),
    /// The same, because the leader of the term before asked the sender to.
    Successor(u64),
    /// The sender voted for the receiver in this term.
    Vote(u64),
    /// The sender would vote for the receiver in this term.
    Supports(u64),
    /// The sender leads this term.
    Leads(u64),
    /// The sender leads this term, and asks the receiver to lead the next one.
    Succeed(u64),
    /// The sender holds what the leader of `term` has through `through`.
    Accepted {
        /// The leader's term.
        term: u64,
        /// The last index held.
        through: u64,
    },
    /// Everything through here is decided.
    Decided(u64),
}

/// The ledger. See the module.
#[derive(Debug)]
pub struct TermLedger<T> {
    quorums: QuorumSystem,
    table: Quorums,
    nodes: Vec<Node>,
    terms: Vec<Term>,
    decisions: Decisions,
    /// Terms in which something was decided, and how far, ascending.
    decided: Vec<(u64, u64)>,
    latest_term_led: u64,
    rare: RareCounts,
    rules: std::marker::PhantomData<fn() -> T>,
}

#[derive(Debug, Default)]
struct Node {
    /// What it asked to write, durable or not.
    log: Runs,
    durable: Runs,
    hard_state: HardState,
    durable_hard_state: HardState,
    /// What is not durable yet, in order.
    in_flight: VecDeque<(WriteId, Op)>,
    unit: SeenUnit,
    term: u64,
    leads: bool,
    decided: u64,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Truncate(u64),
    Put {
        from: u64,
        to: u64,
        term: u64,
        accepted: bool,
    },
    HardState(HardState),
    /// A snapshot that ends with this entry stands for the whole log.
    Install {
        term: u64,
        index: u64,
    },
}

#[derive(Debug, Default)]
struct Term {
    leader: Option<usize>,
    /// The leader's log when it was elected.
    leader_log: Runs,
    /// The entries of this term, from `first` on.
    first: u64,
    entries: Vec<Digest>,
    /// The term of the entry before `first`.
    parent: u64,
    /// For each node: through where it has durably accepted entries of this term, in this term.
    accepted: [u64; NODES_MAX],
    /// For each node: whom it said it voted for.
    voted: [Option<usize>; NODES_MAX],
    /// For each node: a bit for everybody who said that they would vote for it.
    supporters: [u16; NODES_MAX],
    /// The nodes that the leader of the term before asked to campaign in this one.
    successors: u16,
}

impl<T: Terms> TermLedger<T> {
    /// The ledger of a cluster in which nothing was written yet.
    ///
    /// # Panics
    /// If there are more than [`NODES_MAX`] members.
    #[must_use]
    pub fn new(membership: &Membership) -> TermLedger<T> {
        let count = membership.members().len();
        TermLedger {
            quorums: membership.quorums().clone(),
            table: Quorums::new(membership),
            nodes: (0..count).map(|_| Node::default()).collect(),
            terms: Vec::new(),
            decisions: Decisions::default(),
            decided: Vec::new(),
            latest_term_led: 0,
            rare: RareCounts::default(),
            rules: std::marker::PhantomData,
        }
    }

    fn term(&mut self, term: u64) -> Result<&mut Term, super::Violation> {
        if term >= TERMS_MAX {
            return Err(violation("bound", format!("term {term} was reached")));
        }
        let at = term as usize;
        if at >= self.terms.len() {
            self.terms.resize_with(at + 1, Term::default);
        }
        Ok(&mut self.terms[at])
    }

    fn digest(&self, term: u64, index: u64) -> Option<Digest> {
        if index == 0 {
            return Some(Digest::default());
        }
        let term = self.terms.get(usize::try_from(term).ok()?)?;
        term.entries.get(usize::try_from(index.checked_sub(term.first)?).ok()?).copied()
    }

    fn chain_at(&self, log: &Runs, index: u64) -> Option<u64> {
        self.digest(log.term_at(index)?, index).map(|digest| digest.chain)
    }

    fn hard_state_written(&mut self, node: usize, bytes: &Bytes, unit: WriteId) -> Checked {
        let ledger = &mut self.nodes[node];
        if !ledger.unit.hard_state_changed(bytes) {
            return Ok(());
        }
        let state = T::hard_state(bytes).map_err(|what| violation("ST4", what))?;
        votes::follows(node, ledger.hard_state, state)?;
        ledger.hard_state = state;
        ledger.in_flight.push_back((unit, Op::HardState(state)));
        Ok(())
    }

    fn role_changed(&mut self, node: usize, status: &Status) -> Checked {
        let term = status.reign.number;
        let ledger = &mut self.nodes[node];
        votes::term(node, ledger.term, term)?;
        let led = std::mem::replace(&mut ledger.leads, status.role == Role::Leader);
        let before = std::mem::replace(&mut ledger.term, term);
        if led && !ledger.leads && before == term {
            self.rare[Rare::SteppedDown] += 1;
        }
        if !self.nodes[node].leads || (led && before == term) {
            return Ok(());
        }
        let known = self.term(term)?.leader;
        election_safety::check(term, known, node)?;
        let earlier =
            self.decided.iter().take_while(|(decided_in, _)| *decided_in < term).max_by_key(|(_, at)| *at);
        if let Some((decided_in, index)) = earlier.copied() {
            let found = self.chain_at(&self.nodes[node].log, index);
            let decided = self.digest(decided_in, index).unwrap_or_default().chain;
            leader_completeness::check(node, term, index, found, decided)?;
        }
        if self.latest_term_led > 0 && term > self.latest_term_led {
            self.rare[Rare::LeaderChanged] += 1;
        }
        self.latest_term_led = self.latest_term_led.max(term);
        let log = self.nodes[node].log.clone();
        let entry = self.term(term)?;
        entry.leader = Some(node);
        entry.leader_log = log;
        Ok(())
    }

    fn truncated(&mut self, node: usize, unit: WriteId, from: u64, leading: bool) -> Checked {
        let ledger = &mut self.nodes[node];
        if leading {
            append_only::truncated(node, ledger.term, from, ledger.log.last())?;
        }
        if from <= ledger.log.last() {
            self.rare[Rare::Truncated] += 1;
            if ledger
                .in_flight
                .iter()
                .any(|(id, op)| *id == unit && matches!(op, Op::Put { to, .. } if *to >= from))
            {
                self.rare[Rare::TruncatedInUnit] += 1;
            }
        }
        ledger.log.truncate_from(from);
        ledger.in_flight.push_back((unit, Op::Truncate(from)));
        Ok(())
    }

    fn put(&mut self, node: usize, unit: WriteId, entries: &Entries, leading: bool) -> Checked {
        let (from, to) = (entries.first_index().0, entries.last_index().0);
        let last = self.nodes[node].log.last();
        log_matching::hole(node, from, last)?;
        if leading {
            append_only::put(node, self.nodes[node].term, from, last)?;
        }
        let mut parent = self.nodes[node].log.term_at(from - 1).unwrap_or_default();
        let mut chain = self.digest(parent, from - 1).unwrap_or_default().chain;
        let mut run = (from, entries[0].stamp.high);
        let mut replaced = false;
        for entry in entries.iter() {
            let (index, term) = (entry.index.0, entry.stamp.high);
            let digest = log_matching::chained(chain, entry);
            let slot = self.term(term)?;
            if slot.entries.is_empty() {
                append_only::made(node, term, index, slot.leader)?;
                slot.first = index;
                slot.parent = parent;
            }
            let at = index.wrapping_sub(slot.first) as usize;
            match slot.entries.get(at) {
                Some(known) => log_matching::same(node, entry, digest, *known)?,
                None => {
                    append_only::made(node, term, index, slot.leader)?;
                    if at != slot.entries.len() {
                        return log_matching::hole(node, index, index.saturating_sub(2));
                    }
                    slot.entries.push(digest);
                }
            }
            if index <= last {
                replaced |= self.nodes[node].log.term_at(index) != Some(term);
            }
            if term != run.1 {
                self.put_run(node, unit, run.0, index - 1, run.1);
                run = (index, term);
            }
            (chain, parent) = (digest.chain, term);
        }
        self.put_run(node, unit, run.0, to, run.1);
        if replaced { log_matching::orphaned(node, to, last) } else { Ok(()) }
    }

    fn put_run(&mut self, node: usize, unit: WriteId, from: u64, to: u64, term: u64) {
        let ledger = &mut self.nodes[node];
        let accepted = ledger.term == term;
        let whole = ledger.log.put(from, to, term);
        debug_assert!(whole, "holes were refused before");
        ledger.in_flight.push_back((unit, Op::Put { from, to, term, accepted }));
    }

    /// Follows the unit being assembled. A step may remove what an earlier step of the same unit put.
    fn unit_changed(
        &mut self,
        node: usize,
        effects: &Effects<<T::Protocol as synod_core::Machine>::Message, LogEvent>,
        leading: bool,
    ) -> Checked {
        let unit = effects.unit();
        let (removed_from, fresh) = self.nodes[node].unit.changed(unit);
        self.follow(node, unit, removed_from, fresh, leading)
    }

    fn follow(
        &mut self,
        node: usize,
        unit: &synod_core::Write,
        removed_from: Option<u64>,
        next: usize,
        leading: bool,
    ) -> Checked {
        if let Some(from) = removed_from {
            self.truncated(node, unit.id, from, leading)?;
        }
        if let Some((index, stamp)) = unit.install
            && self.nodes[node].unit.install_changed(index)
        {
            self.installed(node, unit.id, index.0, stamp.high)?;
        }
        for put in &unit.puts[next..] {
            self.put(node, unit.id, put, leading)?;
        }
        Ok(())
    }

    fn decided_moved(&mut self, node: usize, decided: u64) -> Checked {
        let ledger = &mut self.nodes[node];
        let before = std::mem::replace(&mut ledger.decided, decided);
        quorum_commit::check(node, before, decided, self.decisions.through())?;
        bounds::check(node, Progress { applied: 0, decided, last: ledger.log.last() })?;
        let chain = self.chain_at(&self.nodes[node].log, decided).unwrap_or_default();
        self.decisions.agree(decided, chain, Who::Node(node))
    }

    /// The log that ends with the entry of `term` at `index`.
    fn history(&self, term: u64, index: u64) -> Option<Runs> {
        self.digest(term, index)?;
        let mut segments = Vec::new();
        let (mut term, mut last) = (term, index);
        while last > 0 {
            let slot = self.terms.get(term as usize)?;
            segments.push((slot.first, last, term));
            (term, last) = (slot.parent, slot.first - 1);
        }
        let mut runs = Runs::default();
        for (first, last, term) in segments.into_iter().rev() {
            runs.append(first, last, term);
        }
        Some(runs)
    }

    /// A snapshot takes the place of the log: what it holds must be what is decided.
    fn installed(&mut self, node: usize, unit: WriteId, index: u64, term: u64) -> Checked {
        let chain = self.digest(term, index).unwrap_or_default().chain;
        self.decisions.agree(index, chain, Who::Node(node))?;
        snapshots::installed(node, index, self.nodes[node].decided)?;
        if let Some(history) = self.history(term, index) {
            self.nodes[node].log = history;
        }
        self.nodes[node].in_flight.push_back((unit, Op::Install { term, index }));
        Ok(())
    }

    fn op_durable(&mut self, node: usize, op: Op) -> Checked {
        let ledger = &mut self.nodes[node];
        match op {
            Op::Truncate(from) => ledger.durable.truncate_from(from),
            Op::HardState(state) => ledger.durable_hard_state = state,
            Op::Install { term, index } => {
                if let Some(history) = self.history(term, index) {
                    self.nodes[node].durable = history;
                }
            }
            Op::Put { from, to, term, accepted } => {
                if !ledger.durable.put(from, to, term) {
                    return Err(violation(
                        "ST1",
                        format!("n{}: {from}..={to} left a hole on disk", node + 1),
                    ));
                }
                if accepted {
                    return self.accepted(node, term, to);
                }
            }
        }
        Ok(())
    }

    /// A node has durably accepted entries of the term that it was in: this may decide them, and with them
    /// everything before them (Raft, section 5.4.2).
    fn accepted(&mut self, node: usize, term: u64, through: u64) -> Checked {
        let slot = &mut self.terms[term as usize];
        slot.accepted[node] = slot.accepted[node].max(through);
        let accepted = slot.accepted;
        let first = slot.first.max(1);
        let reached = self.reached(&accepted);
        if reached < first {
            return Ok(());
        }
        let at = match self.decided.binary_search_by_key(&term, |(term, _)| *term) {
            Ok(at) => at,
            Err(at) => {
                self.decided.insert(at, (term, 0));
                at
            }
        };
        if reached <= self.decided[at].1 {
            return Ok(());
        }
        self.decided[at].1 = reached;
        self.decide(term, reached)
    }

    /// How far a whole replication quorum has come. Worked out without the core's own arithmetic.
    fn reached(&self, accepted: &[u64; NODES_MAX]) -> u64 {
        let count = self.nodes.len();
        let holds = |through: u64| {
            let set = (0..count).filter(|at| accepted[*at] >= through).fold(0, |set, at| set | 1 << at);
            self.table.replicate(set)
        };
        accepted[..count].iter().copied().filter(|through| holds(*through)).max().unwrap_or(0)
    }

    /// Everything through the entry of `term` at `index` is decided.
    fn decide(&mut self, term: u64, index: u64) -> Checked {
        let through = self.decisions.through();
        let mut segments: Vec<(u64, u64, u64)> = Vec::new();
        let (mut term, mut last) = (term, index);
        while last > through {
            let slot = &self.terms[term as usize];
            let first = slot.first.max(through + 1);
            segments.push((term, first, last));
            last = first - 1;
            if last < slot.first {
                term = slot.parent;
            }
        }
        let base = last.min(index);
        if base > 0 {
            let chain = self.digest(term, base).unwrap_or_default().chain;
            self.decisions.agree(base, chain, Who::Quorum)?;
        }
        for (term, first, last) in segments.into_iter().rev() {
            let slot = &self.terms[term as usize];
            for index in first..=last {
                self.decisions.push(slot.entries[(index - slot.first) as usize]);
            }
        }
        Ok(())
    }
}

impl<T: Terms> LogObserver<T::Protocol> for TermLedger<T> {
    fn opened(&mut self, node: usize, recovered: &Recovered, machine: &T::Protocol) -> Checked {
        let mut found = match recovered.compacted {
            Some((index, stamp)) => self.history(stamp.high, index.0).ok_or_else(|| {
                violation("ST5", format!("n{} recovered {stamp} at its bound {index}", node + 1))
            })?,
            None => Runs::default(),
        };
        for run in &recovered.runs {
            if !found.put(run.from.0, run.to.0, run.stamp.high) {
                return Err(violation("ST1", format!("n{} recovered a log with holes", node + 1)));
            }
        }
        let state = match &recovered.hard_state {
            Some(bytes) => T::hard_state(bytes).map_err(|what| violation("ST4", what))?,
            None => HardState::default(),
        };
        let ledger = &mut self.nodes[node];
        recovery::log(node, &found, &ledger.durable)?;
        recovery::hard_state(node, &state, &ledger.durable_hard_state)?;
        let status = machine.status();
        ledger.term = ledger.durable_hard_state.term;
        ledger.leads = false;
        ledger.decided = 0;
        ledger.unit = SeenUnit::default();
        self.role_changed(node, &status)
    }

    fn stepped(
        &mut self,
        node: usize,
        machine: &T::Protocol,
        effects: &Effects<<T::Protocol as synod_core::Machine>::Message, LogEvent>,
    ) -> Checked {
        let status = machine.status();
        let unit = effects.unit();
        let ledger = &mut self.nodes[node];
        ledger.unit.begin(unit);
        let leading = ledger.leads && status.role == Role::Leader && ledger.term == status.reign.number;
        if let Some(bytes) = &unit.hard_state {
            self.hard_state_written(node, bytes, unit.id)?;
        }
        let ledger = &self.nodes[node];
        if ledger.term != status.reign.number || ledger.leads != (status.role == Role::Leader) {
            self.role_changed(node, &status)?;
        }
        if !unit.puts.is_empty() || unit.truncate_from.is_some() || unit.install.is_some() {
            self.unit_changed(node, effects, leading)?;
        }
        if self.nodes[node].decided != status.decided.0 {
            self.decided_moved(node, status.decided.0)?;
        }
        Ok(())
    }

    fn durable(&mut self, node: usize, through: WriteId, last: LogIndex) -> Checked {
        while let Some((unit, op)) = self.nodes[node].in_flight.front().copied() {
            if unit > through {
                break;
            }
            self.nodes[node].in_flight.pop_front();
            self.op_durable(node, op)?;
        }
        // What the units say and what the machine meant are two ways to the same log.
        recovery::end_of_log(node, last.0, self.nodes[node].durable.last())
    }

    fn crashed(&mut self, node: usize, kept: WriteId, last: LogIndex) -> Checked {
        self.durable(node, kept, last)?;
        let ledger = &mut self.nodes[node];
        for (_, op) in ledger.in_flight.drain(..) {
            match op {
                Op::HardState(_) => self.rare[Rare::HardStateLost] += 1,
                Op::Put { .. } => self.rare[Rare::EntriesLost] += 1,
                Op::Truncate(_) | Op::Install { .. } => {}
            }
        }
        ledger.log = ledger.durable.clone();
        ledger.hard_state = ledger.durable_hard_state;
        ledger.leads = false;
        Ok(())
    }

    fn sent(
        &mut self,
        node: usize,
        to: usize,
        message: &<T::Protocol as synod_core::Machine>::Message,
    ) -> Checked {
        if let Some(rare) = T::rare(message) {
            self.rare[rare] += 1;
        }
        T::claims(message, &mut |claim| {
            let ledger = &self.nodes[node];
            let mut durable = reveal::Durable {
                hard_state: ledger.durable_hard_state,
                term_there: None,
                leader_term_there: None,
            };
            match claim {
                Claim::Decided(index) => quorum_commit::told(node, index, self.decisions.through())?,
                Claim::Vote(term) => {
                    let voted = &mut self.term(term)?.voted[node];
                    votes::said(node, term, *voted, to)?;
                    *voted = Some(to);
                }
                Claim::Supports(term) => self.term(term)?.supporters[to] |= 1 << node,
                Claim::Succeed(term) => self.term(term + 1)?.successors |= 1 << to,
                Claim::Candidate(term) | Claim::Successor(term) => {
                    let Term { supporters, successors, .. } = self.term(term)?;
                    if let Claim::Successor(_) = claim {
                        pre_vote::check_successor(node, term, *successors)?;
                    } else {
                        let supporters = supporters[node];
                        pre_vote::check(node, term, supporters, &self.quorums)?;
                    }
                    let voted = &mut self.term(term)?.voted[node];
                    votes::said(node, term, *voted, node)?;
                    *voted = Some(node);
                }
                Claim::Accepted { term, through } => {
                    durable.term_there = ledger.durable.term_at(through);
                    durable.leader_term_there = self.terms.get(term as usize).and_then(|slot| {
                        let of_term = slot.first > 0 && through >= slot.first;
                        if of_term { Some(term) } else { slot.leader_log.term_at(through) }
                    });
                }
                Claim::Term(_) | Claim::Leads(_) => {}
            }
            reveal::check(node, to, claim, durable)
        })
    }

    fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn last_index(&self, node: usize) -> u64 {
        self.nodes[node].log.last()
    }

    fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.nodes[*at].leads;
        (0..self.nodes.len()).filter(leads).max_by_key(|at| self.nodes[*at].term)
    }

    fn rare(&self) -> RareCounts {
        self.rare
    }
}
