//! The proposer: any replica, while fast rounds are open. A proposal names the slot that its proposer believes free;
//! who loses a slot proposes again in a later one.

use std::collections::{BTreeMap, VecDeque};

use synod_core::{Command, Entries, Entry, Instant, LogEvent, LogIndex, Refusal};

use crate::fast::{Open, segmented};
use crate::message::{Message, Suggest};
use crate::multipaxos::{Effects, MultiPaxos};

/// What this replica proposes under one opening.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proposer {
    open: Option<Open>,
    /// Commands without a slot.
    queue: VecDeque<Command>,
    /// Values in slots that are not decided, and when each was sent last.
    in_flight: BTreeMap<LogIndex, (Entry, Instant)>,
    /// Payload bytes of all of them.
    bytes: usize,
    resend_at: Option<Instant>,
}

impl Proposer {
    pub(crate) fn under(open: Option<Open>) -> Proposer {
        Proposer { open, ..Proposer::default() }
    }

    pub(crate) fn open(&self) -> Option<Open> {
        self.open
    }

    pub(crate) fn resend_at(&self) -> Option<Instant> {
        self.resend_at
    }

    fn entries(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// Takes away what was proposed at or below `through`.
    pub(crate) fn settle(&mut self, through: LogIndex) -> Vec<(LogIndex, Entry)> {
        let rest = self.in_flight.split_off(&through.next());
        let settled = std::mem::replace(&mut self.in_flight, rest);
        let values: Vec<_> = settled.into_iter().map(|(slot, (entry, _))| (slot, entry)).collect();
        self.bytes -= values.iter().map(|(_, entry)| entry.weight()).sum::<usize>();
        values
    }

    /// The slot of `lost` went to somebody else. It was proposed nowhere else.
    pub(crate) fn again(&mut self, lost: Entry) {
        self.bytes += lost.weight();
        let Entry { kind, request, payload, .. } = lost;
        self.queue.push_back(Command { kind, request, payload });
    }
}

impl MultiPaxos {
    /// Takes commands that this replica proposes by itself.
    pub(crate) fn enqueue_fast(&mut self, commands: Vec<Command>, effects: &mut Effects) {
        self.follow_opening();
        let (entries_max, bytes_max) = (self.config.undecided_entries_max, self.config.undecided_bytes_max);
        let Some(fast) = &mut self.fast else { return };
        let mut full = false;
        for command in commands {
            let weight = command.payload.len() + Entry::OVERHEAD;
            let too_large = weight > bytes_max;
            full |= fast.proposer.entries() >= entries_max
                || fast.proposer.bytes.saturating_add(weight) > bytes_max;
            if too_large || full {
                // Nothing overtakes a refused command of the same call.
                full |= !too_large;
                let why = if too_large { Refusal::TooLarge } else { Refusal::Full };
                effects.event(LogEvent::Refused { command, why });
                continue;
            }
            fast.proposer.bytes += weight;
            fast.proposer.queue.push_back(command);
        }
    }

    /// Gives queued commands slots above all that are known to be in use, one each, and sends them to every acceptor.
    pub(crate) fn suggest_queued(&mut self, now: Instant, effects: &mut Effects) {
        let highest = self.decided.advance(self.config.ahead_entries_max as u64);
        let opened = self.open_rounds();
        let Some(fast) = &mut self.fast else { return };
        let Some(open) = fast.proposer.open.filter(|open| opened == Some(*open)) else { return };
        let first = fast.horizon.max(self.decided).max(open.from.prev()).next();
        let room = fast.tuning.slots_max.saturating_sub(fast.proposer.in_flight.len());
        let reach = usize::try_from((highest.0 + 1).saturating_sub(first.0)).unwrap_or(usize::MAX);
        let count = fast.proposer.queue.len().min(room).min(reach);
        if count == 0 {
            return;
        }
        let commands: Vec<Command> = fast.proposer.queue.drain(..count).collect();
        let (stamp, reign) = (open.ballot.fast_stamp(), open.ballot.reign());
        let entries = Entries::numbered(first, commands, |index, command| {
            let Command { kind, request, payload } = command;
            Entry { index, stamp, reign, kind, request, payload }
        });
        fast.horizon = entries.last_index();
        let own = entries.iter().map(|entry| (entry.index, (entry.clone(), now)));
        fast.proposer.in_flight.extend(own);
        let due = now + fast.tuning.resend_delay;
        fast.proposer.resend_at = Some(fast.proposer.resend_at.map_or(due, |at| at.min(due)));
        self.counters.suggested += entries.len() as u64;
        self.suggest(open, entries.to_vec(), effects);
        self.vote_fast(now, self.node, open, &segmented(entries.to_vec()), effects);
    }

    fn suggest(&self, open: Open, values: Vec<Entry>, effects: &mut Effects) {
        for to in self.other_voters() {
            let message = |values| Message::Suggest(Suggest { ballot: open.ballot, values });
            self.send_values(to, values.iter().cloned(), message, effects);
        }
    }

    /// Sends again what is undecided for long: a message may be lost, and whoever voted tells its vote again.
    pub(crate) fn on_resend_due(&mut self, now: Instant, effects: &mut Effects) {
        let opened = self.open_rounds();
        let Some(fast) = &mut self.fast else { return };
        if fast.proposer.resend_at.is_none_or(|at| at > now) {
            return;
        }
        let Some(open) = fast.proposer.open.filter(|open| opened == Some(*open)) else { return };
        let delay = fast.tuning.resend_delay;
        let mut late = Vec::new();
        for (entry, sent_at) in fast.proposer.in_flight.values_mut() {
            if now - *sent_at >= delay {
                *sent_at = now;
                late.push(entry.clone());
            }
        }
        let next = fast.proposer.in_flight.values().map(|(_, sent_at)| *sent_at + delay).min();
        fast.proposer.resend_at = next;
        self.counters.resent += late.len() as u64;
        self.suggest(open, late, effects);
    }
}
