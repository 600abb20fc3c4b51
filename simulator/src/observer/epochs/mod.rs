//! The observer of ZAB: a ledger of every history, promise and epoch, issued and durable.
//!
//! What is decided is worked out from disks alone: a replication quorum whose current epoch is `e`, durably,
//! has decided what all of it holds; a node's history is that of `e`'s leader from then on.

pub mod rules;

use std::collections::VecDeque;

use bytes::Bytes;
use synod_core::{
    Effects, Entries, LogEvent, LogIndex, Membership, Protocol, Recovered, Role, Status, Wire, WriteId,
};
use synod_zab::{AckEpoch, HardState, Message, NewEpoch, Notification, Standing, Zab, Zxid};

use super::agreement::{Decisions, Digest, Who};
use super::bounds::{self, Progress};
use super::quorums::{NODES_MAX, Quorums};
use super::terms::{Runs, log_matching, quorum_commit};
use super::unit::SeenUnit;
use super::{Checked, LogObserver, Violation, recovery, snapshots, violation};
use crate::rare::{Rare, RareCounts};
use rules::{At, Epochs};

/// Epochs beyond this are no accident: somebody tries to lead without end.
const EPOCHS_MAX: u64 = 1 << 20;

/// The ledger. See the module.
#[derive(Debug)]
pub struct EpochLedger {
    quorums: Quorums,
    nodes: Vec<Node>,
    epochs: Vec<Epoch>,
    decisions: Decisions,
    latest_led: u64,
    rare: RareCounts,
}

#[derive(Debug, Default)]
struct Node {
    /// What it asked to write, durable or not.
    log: Runs,
    durable: Runs,
    epochs: Epochs,
    durable_epochs: Epochs,
    /// What is not durable yet, in order.
    in_flight: VecDeque<(WriteId, Op)>,
    unit: SeenUnit,
    reign: u64,
    leads: bool,
    decided: u64,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Truncate(u64),
    Put {
        from: u64,
        to: u64,
        epoch: u64,
    },
    Epochs(Epochs),
    /// A snapshot that ends with this entry stands for the whole history.
    Install {
        epoch: u64,
        index: u64,
    },
}

#[derive(Debug, Default)]
struct Epoch {
    /// Who made it its current epoch as its leader.
    leader: Option<usize>,
    /// The leader's history when it did.
    initial: Runs,
    /// The entries of this epoch, from `first` on.
    first: u64,
    entries: Vec<Digest>,
    /// The epoch of the entry before `first`.
    parent: u64,
    /// For each node: through where it holds the history of this epoch durably, once this is its current one.
    accepted: [u64; NODES_MAX],
    /// For each node: to whom it said it promised the epoch.
    promised: [Option<usize>; NODES_MAX],
}

impl EpochLedger {
    /// The ledger of a cluster in which nothing was written yet.
    ///
    /// # Panics
    /// If there are more than [`NODES_MAX`] members.
    #[must_use]
    pub fn new(membership: &Membership) -> EpochLedger {
        let count = membership.members().len();
        EpochLedger {
            quorums: Quorums::new(membership),
            nodes: (0..count).map(|_| Node::default()).collect(),
            epochs: Vec::new(),
            decisions: Decisions::default(),
            latest_led: 0,
            rare: RareCounts::default(),
        }
    }

    fn epoch(&mut self, epoch: u64) -> Result<&mut Epoch, Violation> {
        if epoch >= EPOCHS_MAX {
            return Err(violation("bound", format!("e{epoch} was reached")));
        }
        let at = epoch as usize;
        if at >= self.epochs.len() {
            self.epochs.resize_with(at + 1, Epoch::default);
        }
        Ok(&mut self.epochs[at])
    }

    fn digest(&self, epoch: u64, index: u64) -> Option<Digest> {
        if index == 0 {
            return Some(Digest::default());
        }
        let slot = self.epochs.get(usize::try_from(epoch).ok()?)?;
        slot.entries.get(usize::try_from(index.checked_sub(slot.first)?).ok()?).copied()
    }

    fn chain_at(&self, log: &Runs, index: u64) -> Option<u64> {
        self.digest(log.term_at(index)?, index).map(|digest| digest.chain)
    }

    /// The epoch of the entry at `index` in the history of the leader of `epoch`.
    fn leader_epoch_at(&self, epoch: u64, index: u64) -> Option<u64> {
        let slot = self.epochs.get(usize::try_from(epoch).ok()?)?;
        if slot.first > 0 && index >= slot.first {
            let made = index - slot.first < slot.entries.len() as u64;
            return made.then_some(epoch);
        }
        slot.initial.term_at(index)
    }

    fn epochs_written(&mut self, node: usize, bytes: &Bytes, unit: WriteId, follows: bool) -> Checked {
        let ledger = &mut self.nodes[node];
        if !ledger.unit.hard_state_changed(bytes) {
            return Ok(());
        }
        let after = read(bytes)?;
        let before = std::mem::replace(&mut ledger.epochs, after);
        rules::follows(node, before, after)?;
        ledger.in_flight.push_back((unit, Op::Epochs(after)));
        // A follower may have promised to itself what another one then came to lead.
        let own = after.current == after.accepted && after.promised_to == Some(node) && !follows;
        if after.current > before.current && own {
            self.led(node, after.current)?;
        }
        Ok(())
    }

    /// A node that promised an epoch to itself makes it its current one: its history is the initial one.
    fn led(&mut self, node: usize, epoch: u64) -> Checked {
        let log = self.nodes[node].log.clone();
        let known = self.epoch(epoch)?.leader;
        rules::one_leader(epoch, known, node)?;
        let slot = self.epoch(epoch)?;
        slot.leader = Some(node);
        slot.initial = log;
        Ok(())
    }

    fn role_changed(&mut self, node: usize, status: &Status) -> Checked {
        let epoch = status.reign.number;
        let ledger = &mut self.nodes[node];
        let led = std::mem::replace(&mut ledger.leads, status.role == Role::Leader);
        let before = std::mem::replace(&mut ledger.reign, epoch);
        if led && !ledger.leads && before == epoch {
            self.rare[Rare::SteppedDown] += 1;
        }
        if !self.nodes[node].leads || (led && before == epoch) {
            return Ok(());
        }
        let known = self.epoch(epoch)?.leader;
        if known != Some(node) {
            rules::one_leader(epoch, known.or(Some(NODES_MAX)), node)?;
        }
        // A quorum has promised the epoch: nothing is decided in an earlier one any more.
        let through = self.decisions.through();
        let earlier = self.epochs[epoch as usize].initial.last().min(through);
        let decided = self.decisions.at(through.min(earlier)).unwrap_or_default().chain;
        let found = self.chain_at(&self.nodes[node].log, earlier);
        rules::has_earlier(node, epoch, earlier, found, decided)?;
        if self.latest_led > 0 && epoch > self.latest_led {
            self.rare[Rare::LeaderChanged] += 1;
        }
        self.latest_led = self.latest_led.max(epoch);
        Ok(())
    }

    fn truncated(&mut self, node: usize, unit: WriteId, from: u64) -> Checked {
        let ledger = &mut self.nodes[node];
        if from <= ledger.log.last() {
            if ledger.leads {
                return Err(violation(
                    "ZI3",
                    format!("n{} leads and removed its entries from {from}", node + 1),
                ));
            }
            self.rare[Rare::Truncated] += 1;
            let put_here =
                |(id, op): &(WriteId, Op)| *id == unit && matches!(op, Op::Put { to, .. } if *to >= from);
            if ledger.in_flight.iter().any(put_here) {
                self.rare[Rare::TruncatedInUnit] += 1;
            }
        }
        ledger.log.truncate_from(from);
        ledger.in_flight.push_back((unit, Op::Truncate(from)));
        Ok(())
    }

    fn put(&mut self, node: usize, unit: WriteId, entries: &Entries) -> Checked {
        let (from, to) = (entries.first_index().0, entries.last_index().0);
        let ledger = &self.nodes[node];
        let (last, accepted) = (ledger.log.last(), ledger.epochs.accepted);
        let (own, decided) = (ledger.leads.then_some(ledger.reign), ledger.decided);
        if from != last + 1 {
            return Err(violation(
                "ZI10",
                format!("n{}: entry {from} put into a log that ends at {last}", node + 1),
            ));
        }
        let mut before = self.place(node, last);
        let mut chain = self.digest(before.epoch, last).unwrap_or_default().chain;
        let mut run = (from, entries[0].stamp.high);
        for entry in entries.iter() {
            let at = At { index: entry.index.0, epoch: entry.stamp.high, counter: entry.stamp.low };
            rules::contiguous(node, before, at)?;
            rules::not_before_promise(node, at.epoch, accepted)?;
            let digest = log_matching::chained(chain, entry);
            let slot = self.epoch(at.epoch)?;
            if slot.entries.is_empty() {
                rules::made(node, at.epoch, at.index, slot.leader.filter(|_| own == Some(at.epoch)))?;
                rules::has_delivered(node, at.epoch, decided, slot.initial.last())?;
                slot.first = at.index;
                slot.parent = before.epoch;
            }
            match slot.entries.get(at.index.wrapping_sub(slot.first) as usize) {
                Some(known) => rules::same(node, at, digest.chain, known.chain)?,
                None => {
                    rules::made(node, at.epoch, at.index, slot.leader.filter(|_| own == Some(at.epoch)))?;
                    if at.index - slot.first != slot.entries.len() as u64 {
                        return rules::contiguous(node, before, At { counter: 0, ..at });
                    }
                    slot.entries.push(digest);
                }
            }
            if at.epoch != run.1 {
                self.put_run(node, unit, run.0, at.index - 1, run.1);
                run = (at.index, at.epoch);
            }
            (chain, before) = (digest.chain, at);
        }
        self.put_run(node, unit, run.0, to, run.1);
        Ok(())
    }

    /// The zxid of a node's entry at `index`.
    fn place(&self, node: usize, index: u64) -> At {
        let epoch = self.nodes[node].log.term_at(index).unwrap_or_default();
        let first = self.epochs.get(epoch as usize).map_or(0, |slot| slot.first);
        let counter = if epoch == 0 { 0 } else { index + 1 - first };
        At { index, epoch, counter }
    }

    fn put_run(&mut self, node: usize, unit: WriteId, from: u64, to: u64, epoch: u64) {
        let ledger = &mut self.nodes[node];
        ledger.log.append(from, to, epoch);
        ledger.in_flight.push_back((unit, Op::Put { from, to, epoch }));
    }

    /// The history that ends with the entry of `epoch` at `index`.
    fn history(&self, mut epoch: u64, index: u64) -> Option<Runs> {
        self.digest(epoch, index)?;
        let mut segments = Vec::new();
        let mut last = index;
        while last > 0 {
            let slot = self.epochs.get(epoch as usize)?;
            segments.push((slot.first, last, epoch));
            (epoch, last) = (slot.parent, slot.first - 1);
        }
        let mut runs = Runs::default();
        for (first, last, epoch) in segments.into_iter().rev() {
            runs.append(first, last, epoch);
        }
        Some(runs)
    }

    /// A snapshot takes the place of the history: what it holds must be what is decided.
    fn installed(&mut self, node: usize, unit: WriteId, index: u64, epoch: u64) -> Checked {
        let chain = self.digest(epoch, index).unwrap_or_default().chain;
        self.decisions.agree(index, chain, Who::Node(node))?;
        snapshots::installed(node, index, self.nodes[node].decided)?;
        rules::not_before_promise(node, epoch, self.nodes[node].epochs.accepted)?;
        if let Some(history) = self.history(epoch, index) {
            self.nodes[node].log = history;
        }
        self.nodes[node].in_flight.push_back((unit, Op::Install { epoch, index }));
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

    /// One whole unit is durable.
    fn unit_durable(&mut self, node: usize, unit: WriteId) -> Checked {
        let next = |node: &Node| node.in_flight.front().copied().filter(|(id, _)| *id == unit);
        while let Some((_, op)) = next(&self.nodes[node]) {
            let ledger = &mut self.nodes[node];
            ledger.in_flight.pop_front();
            match op {
                Op::Truncate(from) => ledger.durable.truncate_from(from),
                Op::Epochs(epochs) => ledger.durable_epochs = epochs,
                Op::Install { epoch, index } => {
                    if let Some(history) = self.history(epoch, index) {
                        self.nodes[node].durable = history;
                    }
                }
                Op::Put { from, to, epoch } => {
                    if !ledger.durable.put(from, to, epoch) {
                        let what = format!("n{}: {from}..={to} left a hole on disk", node + 1);
                        return Err(violation("ST1", what));
                    }
                }
            }
        }
        let ledger = &self.nodes[node];
        let (Epochs { accepted, current: epoch, .. }, last) = (ledger.durable_epochs, ledger.durable.last());
        if epoch == 0 || accepted > epoch {
            // It has left that epoch: its history may be halfway to that of a later one.
            return Ok(());
        }
        let here = self.nodes[node].durable.term_at(last);
        let initial = self.epoch(epoch)?.initial.last();
        rules::whole(node, epoch, last, here, self.leader_epoch_at(epoch, last), initial)?;
        self.accepted(node, epoch, last)
    }

    /// A node holds the history of its current epoch durably: this may decide it.
    fn accepted(&mut self, node: usize, epoch: u64, through: u64) -> Checked {
        let slot = &mut self.epochs[epoch as usize];
        slot.accepted[node] = slot.accepted[node].max(through);
        let accepted = slot.accepted;
        let reached = self.reached(&accepted);
        if reached == 0 {
            return Ok(());
        }
        let stands_in = self.leader_epoch_at(epoch, reached).unwrap_or(epoch);
        self.decide(stands_in, reached)
    }

    /// How far a whole replication quorum has come. Worked out without the core's own arithmetic.
    fn reached(&self, accepted: &[u64; NODES_MAX]) -> u64 {
        let count = self.nodes.len();
        let holds = |through: u64| {
            let set = (0..count).filter(|at| accepted[*at] >= through).fold(0, |set, at| set | 1 << at);
            self.quorums.replicate(set)
        };
        accepted[..count].iter().copied().filter(|through| holds(*through)).max().unwrap_or(0)
    }

    /// Everything through the entry of `epoch` at `index` is decided.
    fn decide(&mut self, mut epoch: u64, index: u64) -> Checked {
        let through = self.decisions.through();
        let mut segments: Vec<(u64, u64, u64)> = Vec::new();
        let mut last = index;
        while last > through {
            let slot = &self.epochs[epoch as usize];
            let first = slot.first.max(through + 1);
            segments.push((epoch, first, last));
            last = first - 1;
            if last < slot.first {
                epoch = slot.parent;
            }
        }
        if last > 0 {
            let chain = self.digest(epoch, last).unwrap_or_default().chain;
            self.decisions.agree(last, chain, Who::Quorum)?;
        }
        for (epoch, first, last) in segments.into_iter().rev() {
            let slot = &self.epochs[epoch as usize];
            for index in first..=last {
                self.decisions.push(slot.entries[(index - slot.first) as usize]);
            }
        }
        Ok(())
    }

    fn told_decided(&self, node: usize, index: LogIndex) -> Checked {
        quorum_commit::told(node, index.0, self.decisions.through())
    }
}

/// The last vote of the batch against what its sender has. Whoever begins to look tells its vote, so the last one is
/// of the election that it is in, and nothing enters its history meanwhile.
fn check_vote(node: usize, machine: &Zab, effects: &Effects<Message, LogEvent>) -> Checked {
    let told = effects.sends().iter().rev().find_map(|send| match &send.message {
        Message::Notification(told) => Some(*told),
        _ => None,
    });
    let Some(Notification { standing: Standing::Looking, vote: Some(vote), .. }) = told else {
        return Ok(());
    };
    let order = |zxid: Zxid| (zxid.epoch.0, zxid.counter);
    let own = (machine.current_epoch().0, order(machine.last_zxid()));
    rules::no_vote_for_less(node, (vote.epoch.0, order(vote.last)), own)
}

fn read(bytes: &Bytes) -> Result<Epochs, Violation> {
    let state = HardState::from_bytes(bytes.clone()).map_err(|error| violation("ST4", error.to_string()))?;
    let promised_to = state.promised_to.map(|node| (node.0 - 1) as usize);
    Ok(Epochs { accepted: state.accepted.0, promised_to, current: state.current.0 })
}

impl LogObserver<Zab> for EpochLedger {
    fn opened(&mut self, node: usize, recovered: &Recovered, machine: &Zab) -> Checked {
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
        let epochs = recovered.hard_state.as_ref().map_or(Ok(Epochs::default()), read)?;
        let ledger = &mut self.nodes[node];
        recovery::log(node, &found, &ledger.durable)?;
        recovery::hard_state(node, &epochs, &ledger.durable_epochs)?;
        ledger.reign = ledger.durable_epochs.current;
        ledger.leads = false;
        ledger.decided = 0;
        ledger.unit = SeenUnit::default();
        self.role_changed(node, &machine.status())
    }

    fn stepped(&mut self, node: usize, machine: &Zab, effects: &Effects<Message, LogEvent>) -> Checked {
        let status = machine.status();
        let unit = effects.unit();
        self.nodes[node].unit.begin(unit);
        // A promise comes before the entries of its epoch, a current epoch after them.
        if let Some(bytes) = &unit.hard_state {
            self.epochs_written(node, bytes, unit.id, status.role == Role::Follower)?;
        }
        if !unit.puts.is_empty() || unit.truncate_from.is_some() || unit.install.is_some() {
            let (removed_from, fresh) = self.nodes[node].unit.changed(unit);
            if let Some(from) = removed_from {
                self.truncated(node, unit.id, from)?;
            }
            if let Some((index, stamp)) = unit.install
                && self.nodes[node].unit.install_changed(index)
            {
                self.installed(node, unit.id, index.0, stamp.high)?;
            }
            for put in &unit.puts[fresh..] {
                self.put(node, unit.id, put)?;
            }
        }
        let ledger = &self.nodes[node];
        if ledger.reign != status.reign.number || ledger.leads != (status.role == Role::Leader) {
            self.role_changed(node, &status)?;
        }
        if status.role == Role::Candidate {
            check_vote(node, machine, effects)?;
        }
        if self.nodes[node].decided != status.decided.0 {
            self.decided_moved(node, status.decided.0)?;
        }
        Ok(())
    }

    fn durable(&mut self, node: usize, through: WriteId, last: LogIndex) -> Checked {
        while let Some((unit, _)) = self.nodes[node].in_flight.front().copied() {
            if unit > through {
                break;
            }
            self.unit_durable(node, unit)?;
        }
        // What the units say and what the machine meant are two ways to the same log.
        recovery::end_of_log(node, last.0, self.nodes[node].durable.last())
    }

    fn crashed(&mut self, node: usize, kept: WriteId, last: LogIndex) -> Checked {
        self.durable(node, kept, last)?;
        let ledger = &mut self.nodes[node];
        for (_, op) in ledger.in_flight.drain(..) {
            match op {
                Op::Epochs(_) => self.rare[Rare::HardStateLost] += 1,
                Op::Put { .. } => self.rare[Rare::EntriesLost] += 1,
                Op::Truncate(_) | Op::Install { .. } => {}
            }
        }
        ledger.log = ledger.durable.clone();
        ledger.epochs = ledger.durable_epochs;
        ledger.leads = false;
        Ok(())
    }

    fn sent(&mut self, node: usize, to: usize, message: &Message) -> Checked {
        let durable = self.nodes[node].durable_epochs;
        let epoch = message.session().map_or(0, |session| session.epoch.0);
        let leads = || rules::promise_durable(node, epoch, Some(node), durable);
        match message {
            Message::Notification(_) => Ok(()),
            Message::FollowerInfo(info) => rules::promise_durable(node, info.accepted.0, None, durable),
            Message::NewEpoch(NewEpoch { .. }) | Message::NewLeader(_) => leads(),
            Message::AckEpoch(AckEpoch { promised, .. }) => {
                if !promised {
                    self.rare[Rare::PromisedElsewhere] += 1;
                    return rules::promise_durable(node, epoch, None, durable);
                }
                let said = &mut self.epoch(epoch)?.promised[node];
                rules::promised(node, epoch, *said, to)?;
                *said = Some(to);
                rules::promise_durable(node, epoch, Some(to), durable)
            }
            Message::Proposal(proposal) => {
                leads()?;
                self.told_decided(node, proposal.commit)
            }
            Message::Commit(commit) => {
                leads()?;
                self.told_decided(node, commit.through)
            }
            Message::Ping(ping) => {
                leads()?;
                self.told_decided(node, ping.commit)
            }
            Message::Ack(ack) => {
                let through = ack.through.0;
                let here = self.nodes[node].durable.term_at(through);
                let leader = self.leader_epoch_at(epoch, through);
                rules::acknowledged(node, epoch, through, durable, here, leader)
            }
            Message::Missing(_) => {
                self.rare[Rare::AppendRejected] += 1;
                rules::promise_durable(node, epoch, None, durable)
            }
            Message::Received(_) | Message::Pong(_) => rules::promise_durable(node, epoch, None, durable),
        }
    }

    fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn last_index(&self, node: usize) -> u64 {
        self.nodes[node].log.last()
    }

    fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.nodes[*at].leads;
        (0..self.nodes.len()).filter(leads).max_by_key(|at| self.nodes[*at].reign)
    }

    fn rare(&self) -> RareCounts {
        self.rare
    }
}
