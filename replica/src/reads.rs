//! Reads on their way: waiting for a leader, for its barrier, for the state machine to catch up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use synod_core::{ForwardedQuery, Incarnation, Instant, LogIndex, NodeId, ReadId, ReadMode};

use crate::{QueryError, ReplicaEvent, Token};

/// Barriers that may be under way at a time. There is one for each flush that brought reads.
const BARRIERS_MAX: usize = 256;

/// One read.
pub(crate) struct PendingRead {
    pub(crate) asker: Asker,
    pub(crate) mode: ReadMode,
    pub(crate) query: Bytes,
    /// Under which id it went to a leader, once it did: the same every time, so that any answer will do.
    forward_id: Option<u64>,
}

impl PendingRead {
    pub(crate) fn new(asker: Asker, mode: ReadMode, query: Bytes) -> PendingRead {
        PendingRead { asker, mode, query, forward_id: None }
    }
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Local { token: Token, deadline: Instant },
    Remote { node: NodeId, id: u64 },
}

impl Asker {
    fn is_late(&self, now: Instant) -> bool {
        matches!(self, Asker::Local { deadline, .. } if *deadline <= now)
    }
}

/// The reads of one replica.
pub(crate) struct Reads {
    /// Not under way yet.
    waiting: Vec<PendingRead>,
    /// Under one barrier each.
    barriers: BTreeMap<ReadId, Vec<PendingRead>>,
    /// Confirmed; served once the index is applied.
    confirmed: Vec<(LogIndex, Vec<PendingRead>)>,
    /// With the leader, by the id under which they went, and when each is sent again.
    forwarded: BTreeMap<u64, (Instant, PendingRead)>,
    /// Reads of peers that are under way here.
    remote: BTreeSet<(NodeId, u64)>,
    count: usize,
    bytes: usize,
    /// The last id given. Ids are unique over lives: an answer to a former life may arrive in this one.
    ids: u64,
    next_expiry: Option<Instant>,
    next_retry: Option<Instant>,
    /// A barrier failed: no other is asked for before this instant, unless the route changes.
    paused_until: Option<Instant>,
}

impl Reads {
    pub(crate) fn new(incarnation: Incarnation) -> Reads {
        Reads {
            waiting: Vec::new(),
            barriers: BTreeMap::new(),
            confirmed: Vec::new(),
            forwarded: BTreeMap::new(),
            remote: BTreeSet::new(),
            count: 0,
            bytes: 0,
            ids: incarnation.0 << 40,
            next_expiry: None,
            next_retry: None,
            paused_until: None,
        }
    }

    /// Reads under way.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Bytes of the queries under way.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn enqueue(&mut self, read: PendingRead) {
        match read.asker {
            Asker::Local { deadline, .. } => {
                self.next_expiry = Some(self.next_expiry.map_or(deadline, |at| at.min(deadline)));
            }
            // Asked again because the answer takes long: one answer is enough.
            Asker::Remote { node, id } if !self.remote.insert((node, id)) => return,
            Asker::Remote { .. } => {}
        }
        self.count += 1;
        self.bytes += read.query.len();
        self.waiting.push(read);
    }

    fn leaves(&mut self, read: &PendingRead) {
        self.count -= 1;
        self.bytes -= read.query.len();
        if let Asker::Remote { node, id } = read.asker {
            self.remote.remove(&(node, id));
        }
    }

    /// True if another barrier may be asked for. The number of those that are not answered is bounded, those
    /// whose reads have all expired included: the protocol holds something for each.
    pub(crate) fn may_begin_barrier(&self) -> bool {
        self.has_waiting() && self.barriers.len() < BARRIERS_MAX
    }

    pub(crate) fn has_waiting(&self) -> bool {
        self.paused_until.is_none() && !self.waiting.is_empty()
    }

    /// What the next barrier will be for.
    pub(crate) fn waiting(&self) -> &[PendingRead] {
        &self.waiting
    }

    /// Puts what waits under one barrier: all that may rest on a lease, or else all that may not.
    pub(crate) fn begin_barrier(&mut self) -> (ReadId, ReadMode) {
        self.ids += 1;
        let id = ReadId(self.ids);
        let mode = self.waiting.iter().map(|read| read.mode).max().unwrap_or(ReadMode::Barrier);
        let mut under_way = std::mem::take(&mut self.waiting);
        if under_way.iter().any(|read| read.mode != mode) {
            (under_way, self.waiting) = under_way.into_iter().partition(|read| read.mode == mode);
        }
        self.barriers.insert(id, under_way);
        (id, mode)
    }

    /// Hands what local clients wait for to the leader, up to a count and a size; peers' reads are refused by
    /// the caller.
    pub(crate) fn forward(
        &mut self,
        again_at: Instant,
        (mut count_left, mut bytes_left): (usize, usize),
        queries: &mut Vec<ForwardedQuery>,
        strangers: &mut Vec<(NodeId, u64)>,
    ) {
        for mut read in std::mem::take(&mut self.waiting) {
            match read.asker {
                Asker::Local { .. } if count_left == 0 || bytes_left == 0 => self.waiting.push(read),
                Asker::Local { .. } => {
                    count_left -= 1;
                    bytes_left = bytes_left.saturating_sub(read.query.len());
                    let id = *read.forward_id.get_or_insert_with(|| {
                        self.ids += 1;
                        self.ids
                    });
                    queries.push(ForwardedQuery { id, mode: read.mode, query: read.query.clone() });
                    self.forwarded.insert(id, (again_at, read));
                    self.retry_by(again_at);
                }
                Asker::Remote { node, id } => {
                    self.leaves(&read);
                    strangers.push((node, id));
                }
            }
        }
    }

    fn retry_by(&mut self, at: Instant) {
        self.next_retry = Some(self.next_retry.map_or(at, |before| before.min(at)));
    }

    /// A barrier stands at `index`.
    pub(crate) fn ready(&mut self, id: ReadId, index: LogIndex) {
        if let Some(reads) = self.barriers.remove(&id) {
            self.confirmed.push((index, reads));
        }
    }

    /// A barrier failed: its reads wait for another, for a fraction of the retry time at least.
    pub(crate) fn failed(&mut self, now: Instant, retry_after: Duration, id: ReadId) {
        self.paused_until = Some(now + retry_after / 8);
        if let Some(mut reads) = self.barriers.remove(&id) {
            self.waiting.append(&mut reads);
        }
    }

    /// Takes what may be served now that `applied` is applied.
    pub(crate) fn take_served(&mut self, applied: LogIndex, served: &mut Vec<PendingRead>) {
        let mut position = 0;
        while position < self.confirmed.len() {
            if self.confirmed[position].0 <= applied {
                let (_, mut reads) = self.confirmed.swap_remove(position);
                for read in &reads {
                    self.leaves(read);
                }
                served.append(&mut reads);
            } else {
                position += 1;
            }
        }
    }

    /// The leader answered a forwarded read: who asked for it.
    pub(crate) fn answered(&mut self, id: u64) -> Option<Asker> {
        let (_, read) = self.forwarded.remove(&id)?;
        self.leaves(&read);
        Some(read.asker)
    }

    /// The leader refused a forwarded read: it is sent again after a fraction of the retry time.
    pub(crate) fn put_off(&mut self, now: Instant, retry_after: Duration, id: u64) {
        let soon = now + retry_after / 8;
        if let Some((again_at, _)) = self.forwarded.get_mut(&id) {
            *again_at = soon;
            self.retry_by(soon);
        }
    }

    /// Whoever had the forwarded reads may be gone: they wait for another leader.
    pub(crate) fn recall_forwarded(&mut self) {
        let forwarded = std::mem::take(&mut self.forwarded);
        self.waiting.extend(forwarded.into_values().map(|(_, read)| read));
        self.next_retry = None;
        self.paused_until = None;
    }

    /// What should have been answered by now is sent again.
    pub(crate) fn retry(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.next_retry.is_none_or(|at| at > now) {
            return;
        }
        let late: Vec<u64> =
            self.forwarded.iter().filter(|(_, (at, _))| *at <= now).map(|(id, _)| *id).collect();
        for id in late {
            let (_, read) = self.forwarded.remove(&id).expect("just listed");
            self.waiting.push(read);
        }
        self.next_retry = self.forwarded.values().map(|(at, _)| *at).min();
    }

    /// Ends what nobody waits for any longer.
    pub(crate) fn expire(&mut self, now: Instant, events: &mut Vec<ReplicaEvent>) {
        if self.next_expiry.is_none_or(|at| at > now) {
            return;
        }
        let (mut ended, mut ended_bytes) = (0, 0);
        let mut keep = |read: &PendingRead| {
            if let Asker::Local { token, .. } = read.asker
                && read.asker.is_late(now)
            {
                events.push(ReplicaEvent::Read { token, result: Err(QueryError::TimedOut) });
                ended += 1;
                ended_bytes += read.query.len();
                return false;
            }
            true
        };
        self.waiting.retain(&mut keep);
        for reads in self.barriers.values_mut() {
            reads.retain(&mut keep);
        }
        for (_, reads) in &mut self.confirmed {
            reads.retain(&mut keep);
        }
        self.confirmed.retain(|(_, reads)| !reads.is_empty());
        self.forwarded.retain(|_, (_, read)| keep(read));
        self.count -= ended;
        self.bytes -= ended_bytes;
        let all = self
            .waiting
            .iter()
            .chain(self.barriers.values().flatten())
            .chain(self.confirmed.iter().flat_map(|(_, reads)| reads))
            .chain(self.forwarded.values().map(|(_, read)| read));
        self.next_expiry = all
            .filter_map(|read| match read.asker {
                Asker::Local { deadline, .. } => Some(deadline),
                Asker::Remote { .. } => None,
            })
            .min();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        Instant::earlier(Instant::earlier(self.next_retry, self.next_expiry), self.paused_until)
    }
}
