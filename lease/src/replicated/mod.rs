//! A table of leases on any log protocol: thousands of them, kept alive without a log entry each.
//!
//! What is replicated is who has a lease, and in which order they wait for a name. When a lease ends is not: the leader
//! alone measures time, by its own clock, and what it decides goes through the log like everything else.
//!
//! | what | how |
//! |---|---|
//! | grant, and a place in the queue for a name | [`LeaseCommand::Campaign`]: an entry; its position is the lease's id and its token |
//! | keep alive | [`LeaseQuery::KeepAlive`]: no entry, no disk; the leader confirms that it still leads after it heard of it |
//! | end it as its owner | [`LeaseCommand::Resign`]: an entry |
//! | let it end | [`LeaseCommand::Revoke`]: an entry; it is kept alive no more |
//! | expire | [`LeaseCommand::Expire`]: an entry, by the leader in its reign; ignored once a newer reign was applied |
//! | wait | leases queue for a name in the order of the log; the first one holds it |
//! | look | [`LeaseQuery::Observe`], or [`LeaseTable::first`] at any replica |
//!
//! [`LeaseTable`] is the state machine and its [`Service`]; [`Candidate`] is the client, sans-IO as well.
//!
//! # Why at most one holds
//!
//! A leader expires a lease a full length after the last of: it began to lead, it applied the grant, a keep-alive reached
//! it. A keep-alive is answered only if a quorum confirmed *after it arrived* that no later leader had been elected; so
//! every later leader begins to lead after that, and gives the lease its full length again. The owner counts from
//! before it asked, and less than the full length by what the clocks may differ ([`synod_core::ClockBound`]). An expiry
//! that an earlier leader decided and that a later one finds in its log is applied before the later one answers
//! anybody; one that comes after that is ignored.
//!
//! So a leader that is cut off, or whose disk stands still, neither renews (nobody confirms) nor expires (nothing is
//! decided, or it counts no more), and a renewal waits for no disk. etcd's lessor is leader-local as well and had to
//! learn this (its issues 15247, 12528). What happened to it and others is asked of this table, on every log protocol of
//! the workspace, by the tests of the simulator (`tests/lease_incidents.rs`).

mod candidate;
mod message;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Applied, Instant, Outputs, Reign, Service, SnapshotSource, StateMachine, StateMachineError, Wire,
};

pub use candidate::{Ask, AskId, Candidate, CandidateEvent, NoAnswer};
pub use message::{
    LENGTH_MAX, LENGTH_MIN, LeaseCommand, LeaseId, LeaseQuery, LeaseReply, NAME_LEN_MAX, OWNER_LEN_MAX,
};

/// The leases there are, in the order of the log; the leader's memory of when each ends lies beside it.
#[derive(Debug, Default)]
pub struct LeaseTable {
    leases: BTreeMap<LeaseId, Lease>,
    /// Who waits for each name, in order; the first one holds it.
    queues: BTreeMap<Bytes, VecDeque<LeaseId>>,
    /// The newest reign that was applied.
    reign: Reign,
    leading: Option<Leading>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    name: Bytes,
    owner: Bytes,
    length: Duration,
    /// It is kept alive no more.
    revoked: bool,
}

/// What only a leader knows, for one reign.
#[derive(Debug)]
struct Leading {
    reign: Reign,
    deadlines: BTreeMap<LeaseId, Instant>,
    order: BTreeSet<(Instant, LeaseId)>,
    /// Proposed to expire in this reign: not kept alive any more. Proposed again if nothing comes of it.
    expiring: BTreeMap<LeaseId, Instant>,
    proposals: Vec<Bytes>,
    /// Granted since the service was last asked.
    fresh: Vec<LeaseId>,
}

/// Leases that one entry lets expire at most.
const EXPIRED_AT_ONCE_MAX: usize = 1_000;

/// How long after a proposal to expire it is made again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl LeaseTable {
    /// No leases.
    #[must_use]
    pub fn new() -> LeaseTable {
        LeaseTable::default()
    }

    /// Who holds a name, as far as is applied here: the first of its queue, and its owner. It may have ended long ago;
    /// it has not been handed on.
    #[must_use]
    pub fn first(&self, name: &[u8]) -> Option<(LeaseId, &Bytes)> {
        let lease = *self.queues.get(name)?.front()?;
        Some((lease, &self.leases[&lease].owner))
    }

    /// True if this lease is there, as far as is applied here: it has not expired and was not given up.
    #[must_use]
    pub fn contains(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    /// How many leases there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// The leases there are, with their names: what is replicated.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Bytes)> + '_ {
        self.leases.iter().map(|(id, lease)| (*id, &lease.name))
    }

    fn apply_one(&mut self, applied: &Applied<'_>) -> LeaseReply {
        let command = LeaseCommand::from_bytes(applied.payload.clone());
        self.reign = self.reign.max(applied.reign);
        match command {
            Ok(LeaseCommand::Campaign { name, length, owner }) => {
                self.campaign(LeaseId(applied.index), name, length, owner)
            }
            Ok(LeaseCommand::Resign(lease)) => self.end(lease),
            Ok(LeaseCommand::Revoke(lease)) => match self.leases.get_mut(&lease) {
                Some(lease) => {
                    lease.revoked = true;
                    LeaseReply::Done
                }
                None => LeaseReply::Gone,
            },
            Ok(LeaseCommand::Expire { reign, leases }) => {
                // A leader of a newer reign may have kept them alive.
                if reign < self.reign {
                    return LeaseReply::Gone;
                }
                for lease in leases {
                    self.end(lease);
                }
                LeaseReply::Done
            }
            Err(_) => refused("the command cannot be read"),
        }
    }

    fn campaign(&mut self, id: LeaseId, name: Bytes, length: Duration, owner: Bytes) -> LeaseReply {
        if name.len() > NAME_LEN_MAX {
            return refused("the name is too long");
        }
        if owner.len() > OWNER_LEN_MAX {
            return refused("the description of the owner is too long");
        }
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
            return refused("a lease is from a millisecond to a day long");
        }
        // What a frame holds besides is let go.
        let (name, owner) = (Bytes::copy_from_slice(&name), Bytes::copy_from_slice(&owner));
        let queue = self.queues.entry(name.clone()).or_default();
        let before = queue.len() as u64;
        queue.push_back(id);
        self.leases.insert(id, Lease { name, owner, length, revoked: false });
        if let Some(leading) = &mut self.leading {
            leading.fresh.push(id);
        }
        LeaseReply::Granted { lease: id, before }
    }

    fn end(&mut self, id: LeaseId) -> LeaseReply {
        let Some(lease) = self.leases.remove(&id) else { return LeaseReply::Gone };
        if let Some(queue) = self.queues.get_mut(&lease.name) {
            queue.retain(|other| *other != id);
            if queue.is_empty() {
                self.queues.remove(&lease.name);
            }
        }
        if let Some(leading) = &mut self.leading {
            leading.forget(id);
        }
        LeaseReply::Done
    }

    /// How many are before it in its queue.
    fn before(&self, id: LeaseId) -> Option<u64> {
        let lease = self.leases.get(&id)?;
        // Queues are in the order of the log, and so of ids.
        self.queues.get(&lease.name)?.binary_search(&id).ok().map(|place| place as u64)
    }
}

impl Leading {
    /// The full length again, from now.
    fn prolong(&mut self, id: LeaseId, until: Instant) {
        if let Some(before) = self.deadlines.insert(id, until) {
            self.order.remove(&(before, id));
        }
        self.order.insert((until, id));
    }

    fn forget(&mut self, id: LeaseId) {
        if let Some(before) = self.deadlines.remove(&id) {
            self.order.remove(&(before, id));
        }
        self.expiring.remove(&id);
    }

    fn propose_expiry(&mut self, now: Instant, leases: Vec<LeaseId>) {
        for batch in leases.chunks(EXPIRED_AT_ONCE_MAX) {
            for lease in batch {
                self.expiring.insert(*lease, now + AGAIN_AFTER);
            }
            let command = LeaseCommand::Expire { reign: self.reign, leases: batch.to_vec() };
            self.proposals.push(command.to_bytes());
        }
    }
}

fn refused(why: &'static str) -> LeaseReply {
    LeaseReply::Refused(Bytes::from_static(why.as_bytes()))
}

impl StateMachine for LeaseTable {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        for applied in batch {
            let reply = self.apply_one(applied);
            out.reply(reply.to_bytes());
        }
        Ok(())
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, StateMachineError> {
        let query = LeaseQuery::from_bytes(Bytes::copy_from_slice(query))
            .map_err(|error| StateMachineError::new(format!("the query cannot be read: {error}")))?;
        let reply = match query {
            LeaseQuery::KeepAlive(lease) => self.kept_alive(lease)?,
            LeaseQuery::Observe(name) => LeaseReply::Holder {
                first: self.first(&name).map(|(lease, owner)| (lease, owner.clone())),
                waiting: self.queues.get(&name).map_or(0, |queue| queue.len() as u64 - 1),
            },
        };
        Ok(reply.to_bytes())
    }

    fn snapshot(&mut self) -> Option<Box<dyn SnapshotSource>> {
        Some(Box::new(self.written_down()))
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), StateMachineError> {
        *self = LeaseTable::read_from(from).map_err(|source| StateMachineError {
            message: "the snapshot is no table of leases".to_owned(),
            source: Some(Box::new(source)),
        })?;
        Ok(())
    }

    fn service(&mut self) -> Option<&mut dyn Service> {
        Some(self)
    }
}

impl LeaseTable {
    /// The answer to a keep-alive that was seen by [`Service::on_query`] before, and confirmed since.
    fn kept_alive(&self, id: LeaseId) -> Result<LeaseReply, StateMachineError> {
        let ended = || StateMachineError::new("the leadership ended before the lease was kept alive");
        let leading = self.leading.as_ref().ok_or_else(ended)?;
        let revoked = self.leases.get(&id).is_some_and(|lease| lease.revoked);
        Ok(match self.before(id) {
            Some(before) if !revoked && !leading.expiring.contains_key(&id) => LeaseReply::Alive { before },
            _ => LeaseReply::Gone,
        })
    }
}

impl Service for LeaseTable {
    /// Every lease has its full length again: an earlier leader may have kept it alive until just now.
    fn on_role(&mut self, now: Instant, leads: Option<Reign>) {
        self.leading = leads.map(|reign| Leading {
            reign,
            deadlines: BTreeMap::new(),
            order: BTreeSet::new(),
            expiring: BTreeMap::new(),
            proposals: Vec::new(),
            fresh: Vec::new(),
        });
        if let Some(leading) = &mut self.leading {
            for (id, lease) in &self.leases {
                leading.prolong(*id, now + lease.length);
            }
            // An expiry that an earlier leader wanted and nobody saw decided may still be, after leases were kept alive
            // in this reign without an entry: once an entry of this reign is applied it comes too late.
            let first = LeaseCommand::Expire { reign: leading.reign, leases: Vec::new() };
            leading.proposals.push(first.to_bytes());
        }
    }

    fn may_answer(&self) -> bool {
        self.leading.as_ref().is_none_or(|leading| leading.reign == self.reign)
    }

    fn on_query(&mut self, now: Instant, query: &[u8]) {
        let Ok(LeaseQuery::KeepAlive(id)) = LeaseQuery::from_bytes(Bytes::copy_from_slice(query)) else {
            return;
        };
        let (Some(leading), Some(lease)) = (&mut self.leading, self.leases.get(&id)) else { return };
        if !lease.revoked && !leading.expiring.contains_key(&id) {
            leading.prolong(id, now + lease.length);
        }
    }

    fn on_applied(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        for id in std::mem::take(&mut leading.fresh) {
            if let Some(lease) = self.leases.get(&id) {
                leading.prolong(id, now + lease.length);
            }
        }
    }

    fn on_tick(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        let mut over = Vec::new();
        while let Some((until, id)) = leading.order.first().copied()
            && until <= now
        {
            leading.order.pop_first();
            leading.deadlines.remove(&id);
            over.push(id);
        }
        let again = leading.expiring.iter().filter(|(_, again_at)| **again_at <= now).map(|(id, _)| *id);
        over.extend(again.collect::<Vec<_>>());
        leading.propose_expiry(now, over);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let leading = self.leading.as_ref()?;
        if !leading.proposals.is_empty() {
            return Some(Instant::ZERO);
        }
        let first = leading.order.first().map(|(until, _)| *until);
        let again = leading.expiring.values().min().copied();
        Instant::earlier(first, again)
    }

    fn take_proposals(&mut self, into: &mut Vec<Bytes>) {
        if let Some(leading) = &mut self.leading {
            into.append(&mut leading.proposals);
        }
    }
}

#[cfg(test)]
mod tests;
