//! PaxosLease: a lease by majority, without a disk.
//!
//! Every replica remembers in memory who holds the lease, and for how long; a proposer that a majority remembers holds
//! it. Nothing is written, and clocks are never compared, only lengths of time. Two round trips, no log, no leader.
//!
//! # Messages
//!
//! | message | from | to | meaning | step |
//! |---|---|---|---|---|
//! | [`Prepare`] | proposer | all | hear no lower ballot, tell what is remembered | 1 |
//! | [`Promise`] | acceptor | proposer | done; who is remembered, if anybody | 2 |
//! | [`Propose`] | proposer | all | remember me, for so long | 3 |
//! | [`Accepted`] | acceptor | proposer | done | 4 |
//! | [`Rejected`] | acceptor | proposer | another promise stands against it | 2, 4 |
//! | [`Release`] | holder | all | forget me: I do not hold it any more | |
//!
//! A proposer goes from step 2 to 3 once a quorum of acceptors remembers nobody, or only the proposer itself; it holds
//! the lease once a quorum has accepted, until its own timer ends.
//!
//! # Where it departs from the paper, and why
//!
//! As published, the algorithm lets two replicas hold the lease at once, with perfect clocks, if an acceptor restarts
//! and messages are slow. This is our finding; we know of no earlier statement of it. With rule 1 below taken away the
//! simulator meets two holders (LI1) within the seeds 0 to 871 of its ordinary sweep:
//!
//! ```sh
//! simulator/plants/run lease-01-published-accept   # found by LI1 after 872 seeds
//! ```
//!
//! and the other rules have plants of their own (`simulator/plants/lease-*`). Without rule 2 so much must coincide that
//! the schedule is a test: `tests/restarts.rs`.
//!
//! Take a lease of 5 s, a silence of 6 s after a restart, and three acceptors A, B, C. At 0 s, *p* prepares ballot 1 at
//! A and C; at 1 s, *q* prepares ballot 2 at A and B; all remember nobody. At 2 s A restarts and is silent until 8 s.
//! Both proposers' next messages are slow. At 9 s *q*'s proposal reaches A and B and is accepted: *q* holds the lease
//! until 14 s. Then *p*'s proposal reaches A and C. A has forgotten that it promised ballot 2, and accepts: *p* holds
//! the lease until 14 s as well.
//!
//! 1. **Exact.** An acceptor accepts a proposal only if it promised *this* ballot in *this* life. The paper accepts if
//!    nothing higher was promised, which an acceptor that forgot its promises cannot know.
//! 2. **Timer.** A proposer counts from before its [`Prepare`] left, not from its [`Propose`]. So whatever was promised
//!    before a restart has ended when the restarted acceptor speaks again.
//! 3. **Own lives.** A proposer extends only what *this life* of it was granted: after a restart its own earlier lease
//!    is somebody else's, and it waits like everybody. A crashed life acts no more, so this is not needed as long as no
//!    node runs twice; it costs a restarted holder the rest of its lease.
//! 4. **Drift.** The lease that the proposer counts is shorter than what acceptors remember by the drift of both clocks
//!    and a guard ([`ClockBound::held`]). The paper assumes clocks of equal rate.
//! 5. The silence after a restart is one full length of what acceptors remember, and an acceptor remembers nothing for
//!    longer.
//!
//! # No fencing token
//!
//! Ballots are ordered, but not by grants: after restarts a later holder may have a lower ballot than an earlier one. So
//! there is no token here; [`FencedLease`](crate::FencedLease) adds one, kept in a place that does not forget.

mod acceptor;
mod codec;
mod message;

use std::time::Duration;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use synod_core::{
    ClockBound, ConfigError, Effects, Incarnation, Input, Instant, Machine, Membership, NodeId, NodeSet,
    OpenError, Start,
};

pub use message::{Accepted, Ballot, Message, Prepare, Promise, Propose, Rejected, Release};

use crate::{Holder, Request};
use acceptor::Acceptor;

/// The settings of [`PaxosLease`]: the same on all replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaxosLeaseConfig {
    length: Duration,
    bound: ClockBound,
    retry: Duration,
}

/// A lease of 10 s, tried again every 500 ms, on clocks that are wrong by at most a thousandth.
impl Default for PaxosLeaseConfig {
    fn default() -> PaxosLeaseConfig {
        PaxosLeaseConfig {
            length: Duration::from_secs(10),
            bound: ClockBound::default(),
            retry: Duration::from_millis(500),
        }
    }
}

impl PaxosLeaseConfig {
    /// How long an acceptor remembers a holder, by its own clock. The holder stops earlier:
    /// [`ClockBound::held`].
    #[must_use]
    pub fn length(mut self, length: Duration) -> PaxosLeaseConfig {
        self.length = length;
        self
    }

    /// What is assumed of clocks.
    #[must_use]
    pub fn clock_bound(mut self, bound: ClockBound) -> PaxosLeaseConfig {
        self.bound = bound;
        self
    }

    /// How long a proposer waits for answers, and the least it waits before it tries again; each wait is drawn
    /// from `[retry, 2 * retry)`, so that two proposers do not go on in step.
    #[must_use]
    pub fn retry(mut self, retry: Duration) -> PaxosLeaseConfig {
        self.retry = retry;
        self
    }

    /// How long a proposer waits for answers.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        self.retry
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`ConfigError`] that names the setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |setting, problem| Err(ConfigError { setting, problem });
        if self.retry.is_zero() {
            return wrong("retry", "must be above zero");
        }
        if self.length > LENGTH_MAX {
            return wrong("length", "must be at most one day");
        }
        if self.bound.held(self.length) < self.retry.saturating_mul(4) {
            return wrong("retry", "must be at most a quarter of what is held of a lease");
        }
        Ok(())
    }
}

/// A lease that nobody can take over for a day is no lease.
const LENGTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What the host asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseCall {
    /// Get the lease, and keep it until told otherwise.
    Acquire,
    /// Give it up, and do not ask for it any more.
    Release,
}

/// What the host is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// The lease is held, or held for longer: whoever acts on it must have stopped by then.
    Held {
        /// By the clock of this node.
        until: Instant,
    },
    /// It is not held any more.
    Lost,
}

/// One replica: acceptor, and proposer once it is told to [`LeaseCall::Acquire`].
#[derive(Clone, Debug)]
pub struct PaxosLease {
    node: NodeId,
    life: Incarnation,
    membership: Membership,
    config: PaxosLeaseConfig,
    random: Xoshiro256PlusPlus,
    acceptor: Acceptor,
    holder: Holder,
    wanted: bool,
    /// The lease was held at the last look: its end is still to be told.
    told_held: bool,
    /// The highest round met.
    round: u64,
    /// The last ballot that was proposed, and the last that was granted.
    proposed: Option<Ballot>,
    granted: Option<Ballot>,
    stage: Stage,
    counters: LeaseCounters,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounters {
    /// Rounds begun.
    pub rounds: u64,
    /// Times the lease was gained or made longer.
    pub grants: u64,
    /// Messages dropped because they make no sense.
    pub rejected: u64,
}

/// Where the proposer is.
#[derive(Clone, Debug)]
enum Stage {
    /// Nothing is under way; the next round begins then, if the lease is wanted.
    Resting { until: Instant },
    /// Step 2: who remembers nobody else.
    Preparing { ballot: Ballot, request: Request, open: NodeSet, deadline: Instant },
    /// Step 4: who has accepted.
    Proposing { ballot: Ballot, request: Request, accepted: NodeSet, deadline: Instant },
}

impl Machine for PaxosLease {
    type Config = PaxosLeaseConfig;
    type Message = Message;
    type Call = LeaseCall;
    type Event = LeaseEvent;

    fn open(start: Start<PaxosLeaseConfig>) -> Result<PaxosLease, OpenError> {
        let Start { node, membership, config, recovered, now, seed } = start;
        config.validate()?;
        if !membership.contains(node) {
            return Err(OpenError::NotAMember { node });
        }
        Ok(PaxosLease {
            node,
            life: recovered.incarnation,
            membership,
            random: Xoshiro256PlusPlus::seed_from_u64(seed ^ node.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            acceptor: Acceptor::new(now, config.length),
            holder: Holder::new(config.bound),
            wanted: false,
            told_held: false,
            round: 0,
            proposed: None,
            granted: None,
            stage: Stage::Resting { until: now },
            counters: LeaseCounters::default(),
            config,
        })
    }

    fn step(
        &mut self,
        now: Instant,
        input: Input<Message, LeaseCall>,
        effects: &mut Effects<Message, LeaseEvent>,
    ) {
        // Whatever comes, what has ended has ended.
        self.tell_end(now, effects);
        match input {
            Input::Receive { from, message } => self.on_message(now, from, message, effects),
            Input::Call(LeaseCall::Acquire) => self.on_acquire(now, effects),
            Input::Call(LeaseCall::Release) => self.on_release_call(now, effects),
            Input::Tick => self.on_tick(now, effects),
            // Nothing is written and nothing loaded.
            Input::Persisted(_) | Input::Loaded { .. } => {}
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let end = if self.told_held { self.holder.until(Instant::ZERO) } else { None };
        let work = match &self.stage {
            Stage::Resting { until } => self.wanted.then_some(*until),
            Stage::Preparing { deadline, .. } | Stage::Proposing { deadline, .. } => Some(*deadline),
        };
        end.into_iter().chain(work).min()
    }
}

impl PaxosLease {
    /// The settings, at their defaults.
    #[must_use]
    pub fn config() -> PaxosLeaseConfig {
        PaxosLeaseConfig::default()
    }

    /// How long this replica may still act on the lease; none if it may not.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.holder.remaining(now)
    }

    /// Whom this replica remembers as the holder, and until when: a hint, for only the holder knows that it is one.
    #[must_use]
    pub fn remembered(&self, now: Instant) -> Option<(NodeId, Instant)> {
        self.acceptor.holder(now).map(|(ballot, until)| (ballot.proposer, until))
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> LeaseCounters {
        self.counters
    }

    // --- the host's calls ---

    fn on_acquire(&mut self, now: Instant, effects: &mut Effects<Message, LeaseEvent>) {
        if !self.wanted {
            self.wanted = true;
            if let Stage::Resting { until } = self.stage
                && until <= now
            {
                self.begin_round(now, effects);
            }
        }
    }

    /// Its own belief goes first; then the others are told.
    fn on_release_call(&mut self, now: Instant, effects: &mut Effects<Message, LeaseEvent>) {
        self.wanted = false;
        self.holder.release();
        if std::mem::take(&mut self.told_held) {
            effects.event(LeaseEvent::Lost);
        }
        self.stage = Stage::Resting { until: now };
        // A quorum may remember the ballot that was granted last, and the one that was proposed since.
        let proposed = self.proposed.take();
        for ballot in
            [self.granted.take().filter(|granted| Some(*granted) != proposed), proposed].into_iter().flatten()
        {
            self.acceptor.on_release(Release { ballot });
            self.to_peers(Message::Release(Release { ballot }), effects);
        }
    }

    fn on_tick(&mut self, now: Instant, effects: &mut Effects<Message, LeaseEvent>) {
        match self.stage {
            Stage::Resting { until } if self.wanted && until <= now => self.begin_round(now, effects),
            Stage::Preparing { deadline, .. } | Stage::Proposing { deadline, .. } if deadline <= now => {
                self.rest(now);
            }
            _ => {}
        }
    }

    // --- the proposer ---

    fn begin_round(&mut self, now: Instant, effects: &mut Effects<Message, LeaseEvent>) {
        // Above whatever others have tried meanwhile: a holder that renews would be refused by those it promised to.
        let seen = self.round.max(self.acceptor.promised().map_or(0, |promised| promised.round));
        // Rounds are only ever used up by a peer that lies about them; then nothing is proposed any more.
        let Some(round) = seen.checked_add(1) else { return self.rest(now) };
        self.round = round;
        self.counters.rounds += 1;
        let ballot = Ballot { round, proposer: self.node, life: self.life };
        // The timer of the lease starts here, before anything leaves.
        let request = self.holder.ask(now);
        let deadline = now + self.config.retry;
        self.stage = Stage::Preparing { ballot, request, open: NodeSet::new(), deadline };
        self.to_peers(Message::Prepare(Prepare { ballot }), effects);
        if let Some(answer) = self.acceptor.on_prepare(now, Prepare { ballot }) {
            self.on_answer(now, self.node, answer, effects);
        }
    }

    fn on_promise(
        &mut self,
        now: Instant,
        from: NodeId,
        promise: Promise,
        effects: &mut Effects<Message, LeaseEvent>,
    ) {
        let Stage::Preparing { ballot, request, open, .. } = &mut self.stage else { return };
        if promise.ballot != *ballot {
            return;
        }
        let (ballot, request) = (*ballot, *request);
        // What an earlier life of this node was granted is somebody else's.
        let own = |accepted: Ballot| accepted.proposer == self.node && accepted.life == self.life;
        if promise.accepted.is_none_or(own) {
            open.insert(from);
        }
        if self.membership.quorums().is_election_quorum(open) {
            self.proposed = Some(ballot);
            let deadline = now + self.config.retry;
            self.stage = Stage::Proposing { ballot, request, accepted: NodeSet::new(), deadline };
            let propose = Propose { ballot, length: self.config.length };
            self.to_peers(Message::Propose(propose), effects);
            if let Some(answer) = self.acceptor.on_propose(now, propose) {
                self.on_answer(now, self.node, answer, effects);
            }
        }
    }

    fn on_accepted(
        &mut self,
        now: Instant,
        from: NodeId,
        answer: Accepted,
        effects: &mut Effects<Message, LeaseEvent>,
    ) {
        let Stage::Proposing { ballot, request, accepted, .. } = &mut self.stage else { return };
        if answer.ballot != *ballot {
            return;
        }
        accepted.insert(from);
        if !self.membership.quorums().is_replication_quorum(accepted) {
            return;
        }
        let (ballot, request) = (*ballot, *request);
        if !self.holder.granted(now, request, self.config.length, None) {
            return self.rest(now);
        }
        self.counters.grants += 1;
        self.granted = Some(ballot);
        self.told_held = true;
        let until = self.holder.until(now).expect("granted just now");
        effects.event(LeaseEvent::Held { until });
        // Half of what is left is enough for several more tries.
        self.stage = Stage::Resting { until: now + (until - now) / 2 };
    }

    fn on_rejected(&mut self, now: Instant, answer: Rejected) {
        let current = match &self.stage {
            Stage::Preparing { ballot, .. } | Stage::Proposing { ballot, .. } => *ballot,
            Stage::Resting { .. } => return,
        };
        if answer.ballot != current {
            return;
        }
        if let Some(promised) = answer.promised {
            self.round = self.round.max(promised.round);
        }
        self.rest(now);
    }

    /// Waits a while before the next round.
    fn rest(&mut self, now: Instant) {
        let shortest = u64::try_from(self.config.retry.as_nanos()).unwrap_or(u64::MAX / 2).max(1);
        let wait = Duration::from_nanos(shortest + self.random.next_u64() % shortest);
        self.stage = Stage::Resting { until: now + wait };
    }

    fn tell_end(&mut self, now: Instant, effects: &mut Effects<Message, LeaseEvent>) {
        if self.told_held && self.holder.remaining(now).is_none() {
            self.told_held = false;
            effects.event(LeaseEvent::Lost);
        }
    }

    // --- messages ---

    fn on_message(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Effects<Message, LeaseEvent>,
    ) {
        let answer = match message {
            // A ballot names its proposer: nobody speaks for another one.
            Message::Prepare(Prepare { ballot })
            | Message::Propose(Propose { ballot, .. })
            | Message::Release(Release { ballot })
                if ballot.proposer != from =>
            {
                self.counters.rejected += 1;
                None
            }
            Message::Prepare(prepare) => self.acceptor.on_prepare(now, prepare),
            Message::Propose(propose) => self.acceptor.on_propose(now, propose),
            Message::Release(release) => {
                self.acceptor.on_release(release);
                None
            }
            answer => return self.on_answer(now, from, answer, effects),
        };
        if let Some(answer) = answer {
            effects.send(from, answer);
        }
    }

    fn on_answer(
        &mut self,
        now: Instant,
        from: NodeId,
        answer: Message,
        effects: &mut Effects<Message, LeaseEvent>,
    ) {
        match answer {
            Message::Promise(promise) => self.on_promise(now, from, promise, effects),
            Message::Accepted(accepted) => self.on_accepted(now, from, accepted, effects),
            Message::Rejected(rejected) => self.on_rejected(now, rejected),
            Message::Prepare(_) | Message::Propose(_) | Message::Release(_) => {}
        }
    }

    fn to_peers(&self, message: Message, effects: &mut Effects<Message, LeaseEvent>) {
        for peer in self.membership.peers_of(self.node) {
            effects.send(peer, message);
        }
    }
}
