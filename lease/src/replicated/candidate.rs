//! The client of a lease table: campaigns for a name, keeps its lease alive, and knows until when it may act.

use std::time::Duration;

use bytes::Bytes;
use synod_core::{ClockBound, Instant, Wire};

use super::message::{LeaseCommand, LeaseId, LeaseQuery, LeaseReply};
use crate::{FencingToken, Holder, Request};

/// One candidate for one name, sans-IO.
///
/// Its driver hands what [`Candidate::poll`] gives to the replicated table and each answer to [`Candidate::answered`],
/// calls [`Candidate::poll`] again at [`Candidate::next_deadline`], and tells [`Candidate::look`] whom it sees hold the
/// name, if it sees that sooner than the next keep-alive would.
#[derive(Clone, Debug)]
pub struct Candidate {
    name: Bytes,
    owner: Bytes,
    length: Duration,
    retry: Duration,
    holder: Holder,
    wanted: bool,
    stage: Stage,
    asks: u64,
    /// Leases that are given up, to be told to the table.
    resigning: Vec<LeaseId>,
    told: Option<Instant>,
    events: Vec<CandidateEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Has no lease; asks for one then.
    Out { next: Instant },
    /// Has asked for one.
    Entering { ask: AskId, request: Request },
    /// Has one, and keeps it alive.
    In { lease: LeaseId, first: bool, next: Instant, ask: Option<(AskId, Request)> },
}

/// Names a question; comes back with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What a candidate wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Propose this command; it is worth nothing after this long.
    Propose(AskId, Bytes, Duration),
    /// Ask this, linearizably; it is worth nothing after this long.
    Query(AskId, Bytes, Duration),
}

/// The question was not answered in time, or at all: whether it had an effect is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

/// What a candidate tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateEvent {
    /// It holds the name, or for longer.
    Held {
        /// Whoever acts on it must have stopped by then, by the clock of this node.
        until: Instant,
        /// Higher than that of every holder before; the same after a renewal.
        token: FencingToken,
    },
    /// It does not hold it any more.
    Lost,
}

impl Candidate {
    /// A candidate that is not campaigning. Its leases are `length` long; it waits at least `retry` after a failure.
    #[must_use]
    pub fn new(name: Bytes, owner: Bytes, length: Duration, retry: Duration, bound: ClockBound) -> Candidate {
        Candidate {
            name,
            owner,
            length,
            retry,
            holder: Holder::new(bound),
            wanted: false,
            stage: Stage::Out { next: Instant::ZERO },
            asks: 0,
            resigning: Vec::new(),
            told: None,
            events: Vec::new(),
        }
    }

    /// Campaigns, and keeps what it gets until told otherwise.
    pub fn campaign(&mut self) {
        self.wanted = true;
    }

    /// Gives up what it has, and campaigns no more. Its own belief goes first; then the table is told.
    pub fn resign(&mut self, now: Instant) {
        self.wanted = false;
        self.leave(now, true);
    }

    /// The next thing to be done, if there is one now.
    pub fn poll(&mut self, now: Instant) -> Option<Ask> {
        self.tell_end(now);
        if let Some(lease) = self.resigning.pop() {
            let id = self.next_id();
            return Some(Ask::Propose(id, LeaseCommand::Resign(lease).to_bytes(), self.length));
        }
        match self.stage {
            Stage::Out { next } if self.wanted && next <= now => {
                let (ask, request) = (self.next_id(), self.holder.ask(now));
                self.stage = Stage::Entering { ask, request };
                let command = LeaseCommand::Campaign {
                    name: self.name.clone(),
                    length: self.length,
                    owner: self.owner.clone(),
                };
                Some(Ask::Propose(ask, command.to_bytes(), self.length))
            }
            Stage::In { lease, first, next, ask: None } if next <= now => {
                let (ask, request) = (self.next_id(), self.holder.ask(now));
                self.stage = Stage::In { lease, first, next, ask: Some((ask, request)) };
                Some(Ask::Query(ask, LeaseQuery::KeepAlive(lease).to_bytes(), self.length / 4))
            }
            _ => None,
        }
    }

    /// A question was answered, or was not.
    pub fn answered(&mut self, now: Instant, id: AskId, answer: Result<Bytes, NoAnswer>) {
        self.tell_end(now);
        let reply = answer.ok().and_then(|bytes| LeaseReply::from_bytes(bytes).ok());
        match self.stage {
            Stage::Entering { ask, request } if ask == id => self.on_entered(now, request, reply),
            Stage::In { lease, first, ask: Some((ask, request)), .. } if ask == id => match reply {
                Some(LeaseReply::Alive { before }) => {
                    self.holder.granted(now, request, self.length, Some(lease.token()));
                    self.settle(now, lease, before == 0);
                }
                Some(_) => self.leave(now, false),
                None => {
                    let next = now + self.retry;
                    self.stage = Stage::In { lease, first, next, ask: None };
                }
            },
            // Granted to somebody who has given up meanwhile.
            _ => {
                if let Some(LeaseReply::Granted { lease, .. }) = reply {
                    self.resigning.push(lease);
                }
            }
        }
    }

    fn on_entered(&mut self, now: Instant, request: Request, reply: Option<LeaseReply>) {
        match reply {
            Some(LeaseReply::Granted { lease, before }) => {
                self.holder.granted(now, request, self.length, Some(lease.token()));
                self.settle(now, lease, before == 0);
            }
            _ => self.stage = Stage::Out { next: now + self.retry },
        }
    }

    /// Has a lease, and keeps it alive: four times in its length.
    fn settle(&mut self, now: Instant, lease: LeaseId, first: bool) {
        let next = now + self.length / 4;
        self.stage = Stage::In { lease, first, next, ask: None };
        self.tell_held(now);
    }

    /// This lease is seen to hold the name, at any replica: it has not been handed on since. Whether this candidate may
    /// act is a question of its own lease, which may have ended.
    pub fn look(&mut self, now: Instant, holds: LeaseId) {
        self.tell_end(now);
        if let Stage::In { lease, first: false, next, ask } = self.stage
            && lease == holds
        {
            self.stage = Stage::In { lease, first: true, next, ask };
            self.tell_held(now);
        }
    }

    fn tell_held(&mut self, now: Instant) {
        let Stage::In { lease, first: true, .. } = self.stage else { return };
        // Never success on a lease that has ended (etcd's issue 11456).
        let Some(until) = self.holder.until(now) else { return };
        if self.told != Some(until) {
            self.told = Some(until);
            self.events.push(CandidateEvent::Held { until, token: lease.token() });
        }
    }

    fn tell_end(&mut self, now: Instant) {
        if self.told.is_some_and(|until| until <= now) {
            self.told = None;
            self.events.push(CandidateEvent::Lost);
        }
    }

    fn leave(&mut self, now: Instant, resigns: bool) {
        self.holder.release();
        if self.told.take().is_some() {
            self.events.push(CandidateEvent::Lost);
        }
        if let Stage::In { lease, .. } = self.stage
            && resigns
        {
            self.resigning.push(lease);
        }
        self.stage = Stage::Out { next: if resigns { now } else { now + self.retry } };
    }

    /// Takes what there is to tell.
    pub fn take_events(&mut self) -> Vec<CandidateEvent> {
        std::mem::take(&mut self.events)
    }

    /// When to call [`Candidate::poll`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.resigning.is_empty() {
            return Some(Instant::ZERO);
        }
        let work = match self.stage {
            Stage::Out { next } => self.wanted.then_some(next),
            Stage::Entering { .. } => None,
            Stage::In { next, ask, .. } => ask.is_none().then_some(next),
        };
        Instant::earlier(work, self.told)
    }

    /// Its lease, if it has one.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        match self.stage {
            Stage::In { lease, .. } => Some(lease),
            Stage::Out { .. } | Stage::Entering { .. } => None,
        }
    }

    /// How long it may still act; none if it may not.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        match self.stage {
            Stage::In { first: true, .. } => self.holder.remaining(now),
            _ => None,
        }
    }

    fn next_id(&mut self) -> AskId {
        self.asks += 1;
        AskId(self.asks)
    }
}
