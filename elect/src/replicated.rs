//! The tokio shell of a candidate for a name of a replicated lease table.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use synod_core::{ClockBound, ConfigError, Wire};
use synod_lease::replicated::{
    Ask, AskId, Candidate, CandidateEvent, LENGTH_MAX, LENGTH_MIN, LeaseQuery, LeaseReply, NAME_LEN_MAX,
    NoAnswer, OWNER_LEN_MAX,
};
use synod_runtime::{Consistency, Health, Node};

use crate::clock::{now, sleep_until_due};
use crate::seat::{Chair, Seat, seat};
use crate::{Election, ElectionError, Leader, Leadership};

/// A candidate for one name of a [`LeaseTable`](synod_lease::replicated::LeaseTable), through a node whose state machine
/// is one: any log protocol, thousands of names, waiters in order.
#[derive(Debug)]
pub struct ReplicatedElection {
    seat: Seat,
}

/// What a [`ReplicatedElection`] campaigns for.
#[derive(Clone, Debug)]
pub struct ReplicatedCandidate {
    /// What is held.
    pub name: String,
    /// What the candidate calls itself, for whoever looks.
    pub owner: String,
    /// How long the table remembers a leader that it does not hear of. The leader stops earlier, by the bound.
    pub length: Duration,
    /// How long the candidate waits after a failure.
    pub retry: Duration,
    /// How far clocks may be wrong.
    pub bound: ClockBound,
}

impl ReplicatedCandidate {
    /// A candidate with a lease of 10 s, tries again after 500 ms, and the default bound on clocks.
    #[must_use]
    pub fn new(name: impl Into<String>, owner: impl Into<String>) -> ReplicatedCandidate {
        ReplicatedCandidate {
            name: name.into(),
            owner: owner.into(),
            length: Duration::from_secs(10),
            retry: Duration::from_millis(500),
            bound: ClockBound::default(),
        }
    }

    /// Checks that everything is in its bounds.
    ///
    /// # Errors
    /// [`ConfigError`] for the first that is not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let error = |setting, problem| Err(ConfigError { setting, problem });
        if self.name.len() > NAME_LEN_MAX {
            return error("name", "is too long");
        }
        if self.owner.len() > OWNER_LEN_MAX {
            return error("owner", "is too long");
        }
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&self.length) {
            return error("length", "must be from a millisecond to a day");
        }
        if self.retry.is_zero() {
            return error("retry", "must be above zero");
        }
        if self.bound.held(self.length).is_zero() {
            return error("length", "must be longer than what the bound on clocks takes off");
        }
        Ok(())
    }
}

impl ReplicatedElection {
    /// Starts a candidate on the current tokio runtime.
    ///
    /// # Errors
    /// [`ElectionError::Config`].
    ///
    /// # Panics
    /// Outside a tokio runtime with a timer.
    pub fn start(node: Node, candidate: &ReplicatedCandidate) -> Result<ReplicatedElection, ElectionError> {
        candidate.validate()?;
        let name = Bytes::copy_from_slice(candidate.name.as_bytes());
        let owner = Bytes::copy_from_slice(candidate.owner.as_bytes());
        let ReplicatedCandidate { length, retry, bound, .. } = candidate;
        let (seat, chair) = seat();
        let driver = Driver {
            candidate: Candidate::new(name.clone(), owner, *length, *retry, *bound),
            node,
            name,
            chair,
            asks: FuturesUnordered::new(),
            campaigning: false,
        };
        tokio::spawn(driver.run());
        Ok(ReplicatedElection { seat })
    }
}

#[async_trait]
impl Election for ReplicatedElection {
    async fn campaign(&self) -> Result<Leadership, ElectionError> {
        self.seat.campaign().await
    }

    async fn resign(&self) -> Result<(), ElectionError> {
        self.seat.resign().await
    }

    fn observe(&self) -> BoxStream<'static, Option<Leader>> {
        self.seat.observe()
    }
}

/// The task.
struct Driver {
    candidate: Candidate,
    node: Node,
    name: Bytes,
    chair: Chair,
    /// Questions under way.
    asks: FuturesUnordered<BoxFuture<'static, (AskId, Result<Bytes, NoAnswer>)>>,
    campaigning: bool,
}

impl Driver {
    async fn run(mut self) {
        if let Err(why) = self.work().await {
            self.chair.ended(why);
        }
    }

    async fn work(&mut self) -> Result<(), ElectionError> {
        let mut status = self.node.watch_status();
        status.mark_changed();
        loop {
            let wish = self.chair.wish();
            let campaign = wish.is_some_and(|wish| wish.campaign);
            if campaign != self.campaigning {
                self.campaigning = campaign;
                if campaign { self.candidate.campaign() } else { self.candidate.resign(now()) }
            }
            while let Some(ask) = self.candidate.poll(now()) {
                self.asks.push(asked(self.node.clone(), ask));
            }
            self.tell();
            let done = !campaign && self.asks.is_empty() && self.candidate.next_deadline().is_none();
            match wish {
                None if done => return Ok(()),
                None => {}
                Some(wish) if campaign || done => self.chair.settled(wish.number),
                Some(_) => {}
            }
            let gone = wish.is_none();
            tokio::select! {
                Some((id, answer)) = self.asks.next() => {
                    refused(answer.as_ref())?;
                    self.candidate.answered(now(), id, answer);
                }
                _ = self.chair.wishes.changed(), if !gone => {}
                changed = status.changed() => {
                    let stopped = matches!(status.borrow_and_update().health, Health::Stopped(_));
                    if changed.is_err() || stopped {
                        return Err(ElectionError::NodeStopped);
                    }
                    self.look().await;
                }
                () = sleep_until_due(self.candidate.next_deadline()) => {}
            }
        }
    }

    /// Looks who holds the name as far as this node has applied: whoever waits learns of its turn at once.
    async fn look(&mut self) {
        let query = LeaseQuery::Observe(self.name.clone()).to_bytes();
        let Ok(answer) = self.node.read_within(LOOK_MAX, query, Consistency::Local).await else { return };
        let Ok(LeaseReply::Holder { first, .. }) = LeaseReply::from_bytes(answer) else { return };
        if let Some((lease, _)) = &first {
            self.candidate.look(now(), *lease);
        }
        self.chair.sees(first.map(|(lease, owner)| Leader {
            name: String::from_utf8_lossy(&owner).into_owned(),
            token: Some(lease.token()),
        }));
    }

    fn tell(&mut self) {
        for event in self.candidate.take_events() {
            match event {
                CandidateEvent::Held { until, token } => self.chair.holds(Some(token), until),
                CandidateEvent::Lost => self.chair.lost(),
            }
        }
    }
}

/// How long a look at what this node has applied may take: the node answers it by itself.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// A question on its way.
fn asked(node: Node, ask: Ask) -> BoxFuture<'static, (AskId, Result<Bytes, NoAnswer>)> {
    Box::pin(async move {
        match ask {
            Ask::Propose(id, command, within) => {
                (id, node.propose_within(within, command).await.map_err(|_| NoAnswer))
            }
            Ask::Query(id, query, within) => {
                let answer = node.read_within(within, query, Consistency::Linearizable).await;
                (id, answer.map_err(|_| NoAnswer))
            }
        }
    })
}

/// What the table will always refuse.
fn refused(answer: Result<&Bytes, &NoAnswer>) -> Result<(), ElectionError> {
    match answer.map(|bytes| LeaseReply::from_bytes(bytes.clone())) {
        Ok(Ok(LeaseReply::Refused(why))) => {
            Err(ElectionError::Refused { why: String::from_utf8_lossy(&why).into_owned() })
        }
        _ => Ok(()),
    }
}
