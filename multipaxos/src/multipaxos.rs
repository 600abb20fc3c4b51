//! The replica: its state, its roles, and where each input goes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use synod_core::{
    ConfigError, Described, IndexRange, Input, Instant, LeasePromise, LogCall, LogEvent, LogIndex, Machine,
    Membership, NodeId, NodeSet, OpenError, Protocol, ProtocolConfig, QuorumSystem, Refusal, Reign, Role,
    Route, Stamp, Start, Status, Wire, WriteId,
};

use crate::acceptor::Serving;
use crate::ballot::Ballot;
use crate::codec::HardState;
use crate::config::MultiPaxosConfig;
use crate::counters::{Counters, Rejection};
use crate::election::Candidate;
use crate::fast::Fast;
use crate::leader::Leader;
use crate::learner::Learning;
use crate::message::{Message, Rejected, SLOT_MAX};
use crate::synod::Promised;
use crate::votes::Votes;
use crate::witness::Witnessed;

/// What a replica asks of its host.
pub(crate) type Effects = synod_core::Effects<Message, LogEvent>;

/// One Multi-Paxos replica: proposer, acceptor and learner of every slot. See the [crate's front page](crate) for
/// the loop around it.
#[derive(Clone, Debug)]
pub struct MultiPaxos {
    pub(crate) node: NodeId,
    pub(crate) membership: Arc<Membership>,
    pub(crate) config: MultiPaxosConfig,
    /// False for a member whose voice no quorum counts: it never campaigns.
    pub(crate) voter: bool,
    random: Xoshiro256PlusPlus,

    // The acceptor.
    /// One promise for all slots.
    pub(crate) promised: Promised,
    /// The write that makes the promise durable.
    pub(crate) promise_write: WriteId,
    /// What stands above the watermark.
    pub(crate) votes: Votes,
    /// The last write that put votes: with it all of them are durable.
    pub(crate) vote_write: WriteId,
    /// Everything through here is gone from the log.
    pub(crate) trimmed: LogIndex,
    /// What leaders may rely on for lease reads.
    pub(crate) loyalty: LeasePromise,
    /// Promises and lessons that wait for the storage.
    pub(crate) serving: Serving,
    pub(crate) disk: Disk,

    // The learner.
    /// The watermark: everything through here is decided, and the log holds the decided values.
    pub(crate) decided: LogIndex,
    /// The watermark that the last hard state told.
    hinted: LogIndex,
    pub(crate) learning: Learning,
    pub(crate) witnessed: Witnessed,

    // The proposer.
    pub(crate) state: State,
    /// What only Fast Paxos has.
    pub(crate) fast: Option<Box<Fast>>,
    /// The highest ballot seen.
    pub(crate) seen: Ballot,
    /// The ballot of the leader followed last; this replica itself may have led it.
    pub(crate) followed: Ballot,
    /// When a replica that does not lead campaigns; moved on by every sign of a leader.
    pub(crate) election_at: Instant,
    /// The wait drawn for this election.
    pub(crate) election_wait: Duration,
    /// Campaigns lost since a leader was heard.
    pub(crate) lost: u32,

    /// What the host was told last.
    told: Told,
    pub(crate) counters: Counters,
}

/// What a replica is, with what only such a replica has.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Follower(Option<Followed>),
    /// Asks who would promise.
    Canvasser {
        ballot: Ballot,
        support: NodeSet,
    },
    Candidate(Box<Candidate>),
    Leader(Box<Leader>),
}

/// The leader that a follower hears.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Followed {
    pub(crate) ballot: Ballot,
    pub(crate) heard_at: Instant,
    /// The first slot of the ballot.
    pub(crate) first: LogIndex,
    /// What this leader said is decided.
    pub(crate) commit: LogIndex,
    /// True if the leader is to be told how far the votes reach.
    pub(crate) acknowledge: bool,
    /// True if everybody is.
    pub(crate) to_all: bool,
}

/// This replica's writes on their way to its disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// Issued and not durable, ascending, and when each was.
    in_flight: VecDeque<(WriteId, Instant)>,
    /// Every unit through this one is durable.
    pub(crate) persisted: WriteId,
    /// When the disk last confirmed anything.
    progress_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    role: Role,
    reign: Reign,
    route: Route,
    /// True if any replica may propose by itself.
    open: bool,
    decided: LogIndex,
}

impl MultiPaxos {
    /// The default settings.
    #[must_use]
    pub fn config() -> MultiPaxosConfig {
        MultiPaxosConfig::default()
    }

    /// How often things happened since the replica was opened.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The highest ballot that this replica has promised; it may not be durable yet.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.promised.ballot()
    }

    /// The last slot that holds anything here; it may not be durable yet.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.votes.last().unwrap_or(self.decided).max(self.decided)
    }

    fn role(&self) -> Role {
        match &self.state {
            State::Follower(_) => Role::Follower,
            State::Canvasser { .. } | State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Follower(followed) => followed.map(|leader| leader.ballot.node),
            State::Canvasser { .. } | State::Candidate(_) => None,
            State::Leader(_) => Some(self.node),
        }
    }

    /// The reign of the leader followed; of nobody, in the last round known, while there is none.
    fn reign(&self) -> Reign {
        let ballot = match &self.state {
            State::Follower(Some(leader)) => leader.ballot,
            State::Leader(leader) => leader.ballot,
            _ => Ballot { round: self.followed.round, node: NodeId(0) },
        };
        ballot.reign()
    }

    pub(crate) fn quorums(&self) -> &QuorumSystem {
        self.membership.quorums()
    }

    fn now_told(&self) -> Told {
        let (route, open) = (self.route(), self.open_rounds().is_some());
        Told { role: self.role(), reign: self.reign(), route, open, decided: self.decided }
    }
}

impl MultiPaxos {
    /// Opens a replica with what `fast` makes of its watermark.
    pub(crate) fn open_as(
        start: Start<MultiPaxosConfig>,
        fast: impl FnOnce(LogIndex, Instant) -> Option<Box<Fast>>,
    ) -> Result<MultiPaxos, OpenError> {
        let Start { node, membership, config, recovered, now, seed } = start;
        config.validate()?;
        if !membership.contains(node) {
            return Err(OpenError::NotAMember { node });
        }
        membership.quorums().validate().map_err(|_| ConfigError {
            setting: "quorums",
            problem: "must let every election quorum meet every replication quorum",
        })?;
        let HardState { promised, decided } =
            HardState::recover(recovered.hard_state.clone()).map_err(OpenError::HardState)?;
        let trimmed = recovered.compacted.map_or(LogIndex::ZERO, |(index, _)| index);
        let decided = decided.max(trimmed);
        let fast = fast(decided, now);
        let votes = Votes::recover(&recovered, decided, promised, fast.is_some());
        let votes = votes.map_err(|what| OpenError::Log { what })?;
        let alone = membership.quorums().is_election_quorum(&[node].into_iter().collect());
        let loyalty = LeasePromise::at_start(config.loyalty(), now, recovered.hard_state.is_some() && !alone);
        let mut replica = MultiPaxos {
            node,
            voter: membership.quorums().members().contains(node),
            membership: Arc::new(membership),
            // Replicas that were given the same seed must not draw the same waits.
            random: Xoshiro256PlusPlus::seed_from_u64(seed ^ node.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            promised: Promised::new(promised),
            promise_write: WriteId(0),
            votes,
            vote_write: WriteId(0),
            trimmed,
            loyalty,
            serving: Serving::default(),
            disk: Disk { in_flight: VecDeque::new(), persisted: WriteId(0), progress_at: now },
            decided,
            hinted: decided,
            learning: Learning::default(),
            witnessed: Witnessed::default(),
            state: State::Follower(None),
            fast,
            seen: promised,
            followed: promised,
            election_at: now,
            election_wait: config.election_timeout,
            lost: 0,
            told: Told {
                role: Role::Follower,
                reign: Reign::default(),
                route: Route::Hold,
                open: false,
                decided: trimmed,
            },
            counters: Counters::default(),
            config,
        };
        replica.told.reign = replica.reign();
        replica.pass_chosen();
        // Whoever can elect itself need not wait for anybody.
        if !replica.is_supported(&[node].into_iter().collect()) {
            replica.draw_election_wait(now);
        }
        Ok(replica)
    }

    pub(crate) fn is_voter(&self) -> bool {
        self.voter
    }
}

impl Machine for MultiPaxos {
    type Config = MultiPaxosConfig;
    type Message = Message;
    type Call = LogCall;
    type Event = LogEvent;

    fn open(start: Start<MultiPaxosConfig>) -> Result<MultiPaxos, OpenError> {
        MultiPaxos::open_as(start, |_, _| None)
    }

    fn step(&mut self, now: Instant, input: Input<Message, LogCall>, effects: &mut Effects) {
        match input {
            Input::Receive { from, message } => {
                if let Err(why) = self.on_message(now, from, message, effects) {
                    self.counters.reject(why);
                }
            }
            Input::Persisted(id) => self.on_persisted(now, id, effects),
            Input::Loaded { id, result } => self.on_loaded(now, id, result, effects),
            Input::Call(LogCall::Propose(commands)) => self.on_propose(commands, effects),
            Input::Call(LogCall::Read { id, mode }) => self.on_read(now, id, mode, effects),
            Input::Call(LogCall::Transfer { to }) => self.on_transfer(now, to, effects),
            Input::Call(LogCall::SnapshotTaken { compact_to, .. }) => self.compact_to(compact_to, effects),
            Input::Call(LogCall::SnapshotArrived { id, meta }) => {
                self.on_snapshot_arrived(now, id, &meta, effects);
            }
            Input::Call(LogCall::SnapshotSent { to, outcome }) => self.on_snapshot_sent(now, to, outcome),
            Input::Tick => self.on_tick(now, effects),
        }
    }

    fn flush(&mut self, now: Instant, effects: &mut Effects) {
        match &self.state {
            State::Leader(_) => self.flush_leader(now, effects),
            State::Follower(Some(_)) => self.flush_follower(now, effects),
            _ => {}
        }
        self.flush_fast(now, effects);
        self.hint_watermark(effects);
        let (told, is) = (self.told, self.now_told());
        if told == is {
            return;
        }
        if (told.role, told.reign, told.route, told.open) != (is.role, is.reign, is.route, is.open) {
            effects.event(LogEvent::Role(is.role));
        }
        if told.decided != is.decided {
            assert!(told.decided < is.decided, "PX7: the watermark never falls");
            effects.event(LogEvent::Decided(is.decided));
        }
        self.told = is;
    }

    fn next_deadline(&self) -> Option<Instant> {
        let role = match &self.state {
            State::Leader(leader) => Some(leader.next_deadline()),
            State::Candidate(candidate) => Some(candidate.retry_at.min(self.election_at)),
            _ => self.voter.then_some(self.election_at),
        };
        let fast = self.fast.as_ref().and_then(|fast| fast.next_deadline());
        [role, self.learning.due(), fast].into_iter().flatten().min()
    }
}

impl Protocol for MultiPaxos {
    fn route(&self) -> Route {
        match self.leader() {
            Some(_) if matches!(&self.state, State::Leader(leader) if leader.transfer.is_some()) => {
                Route::Hold
            }
            Some(leader) if leader == self.node => Route::Here,
            Some(leader) => Route::Forward(leader),
            None => Route::Hold,
        }
    }

    fn status(&self) -> Status {
        Status {
            role: self.role(),
            leader: self.leader(),
            reign: self.reign(),
            decided: self.decided,
            membership: Arc::clone(&self.membership),
        }
    }

    /// Replicas hold one decided value under different stamps, so a snapshot says that its last one is chosen.
    fn describe(&self, index: LogIndex) -> Option<Described> {
        let described = Described { stamp: Stamp::CHOSEN, membership: Arc::clone(&self.membership) };
        Some(described).filter(|_| index <= self.decided)
    }
}

impl MultiPaxos {
    fn on_message(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        if from == self.node || !self.membership.contains(from) {
            return Err(Rejection::Stranger);
        }
        if message.ballot().is_some_and(|ballot| !ballot.is_usable()) {
            return Err(Rejection::Ballot);
        }
        match message {
            Message::Canvass(message) => self.on_canvass(now, from, message, effects),
            Message::CanvassReply(message) => self.on_canvass_reply(now, from, message, effects),
            Message::Prepare(message) => self.on_prepare(now, from, message, effects),
            Message::Promise(message) => self.on_promise(now, from, message, effects),
            Message::Accept(message) => self.on_accept(now, from, message, effects),
            Message::Accepted(message) => self.on_accepted(now, from, message, effects),
            Message::Rejected(message) => self.on_rejected(now, message, effects),
            Message::Heartbeat(message) => self.on_heartbeat(now, from, message, effects),
            Message::HeartbeatReply(message) => self.on_heartbeat_reply(now, from, message, effects),
            Message::CommitNotice(message) => self.on_commit_notice(now, from, message, effects),
            Message::Learn(message) => self.on_learn(now, from, message, effects),
            Message::Chosen(message) => self.on_chosen(now, from, message, effects),
            Message::Succeed(message) => self.on_succeed(now, from, message, effects),
            Message::Any(message) => self.on_any(now, from, message, effects),
            Message::Standing(message) => self.on_standing(now, from, message, effects),
            Message::Suggest(message) => self.on_suggest(now, from, message, effects),
            Message::Voted(message) => self.on_voted(now, from, message, effects),
            Message::Resolve(message) => self.on_resolve(now, from, message, effects),
        }
    }

    fn on_persisted(&mut self, now: Instant, id: WriteId, effects: &mut Effects) {
        assert!(id < effects.write_id(), "a unit is durable only after it was issued");
        self.disk.on_persisted(id, now);
        self.fast_persisted(id);
        match &mut self.state {
            State::Leader(leader) => leader.on_persisted(id),
            State::Candidate(_) => self.try_lead(now, effects),
            State::Follower(Some(_)) => self.on_own_votes_durable(now, id),
            _ => {}
        }
    }

    fn on_tick(&mut self, now: Instant, effects: &mut Effects) {
        match &self.state {
            State::Leader(_) => self.on_leader_tick(now, effects),
            _ if self.voter && now >= self.election_at => self.on_election_due(now, effects),
            State::Candidate(_) => self.on_campaign_tick(now, effects),
            _ => {}
        }
        self.on_learning_tick(now, effects);
        self.on_fast_tick(now, effects);
    }

    /// A higher ballot exists.
    fn on_rejected(
        &mut self,
        now: Instant,
        rejected: Rejected,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Rejected { ballot, promised } = rejected;
        if ballot.node != self.node || !promised.is_usable() || promised <= ballot {
            return Err(Rejection::Ballot);
        }
        self.seen = self.seen.max(promised);
        if self.own_ballot().is_some_and(|own| own == ballot) {
            self.counters.preempted += 1;
            self.become_follower(now, None, effects);
        }
        Ok(())
    }

    // --- ballots and what waits for them ---

    /// The ballot in which this replica leads or campaigns.
    pub(crate) fn own_ballot(&self) -> Option<Ballot> {
        match &self.state {
            State::Leader(leader) => Some(leader.ballot),
            State::Candidate(candidate) => Some(candidate.ballot),
            _ => None,
        }
    }

    /// A promise was raised: it becomes part of the unit being assembled, and a lower ballot of this replica's own
    /// ends.
    pub(crate) fn promise_raised(&mut self, now: Instant, effects: &mut Effects) {
        let promised = self.promised.ballot();
        self.seen = self.seen.max(promised);
        let ended = match &self.state {
            State::Follower(followed) => followed.is_some_and(|leader| leader.ballot < promised),
            State::Canvasser { .. } => true,
            State::Candidate(_) | State::Leader(_) => {
                let preempted = self.own_ballot().is_some_and(|own| own < promised);
                self.counters.preempted += u64::from(preempted);
                preempted
            }
        };
        if ended {
            self.become_follower(now, None, effects);
        }
        self.hinted = self.decided;
        self.promise_write = effects.set_hard_state(HardState { promised, decided: self.decided }.to_bytes());
        self.disk.wrote(self.promise_write, now);
    }

    /// Follows the leader of a ballot, or nobody. What only the former role had ends here.
    pub(crate) fn become_follower(&mut self, now: Instant, leader: Option<Followed>, effects: &mut Effects) {
        if let Some(leader) = leader {
            assert!(leader.ballot >= self.followed, "leaders are followed in the order of their ballots");
            self.followed = leader.ballot;
            self.lost = 0;
        }
        match std::mem::replace(&mut self.state, State::Follower(leader)) {
            State::Leader(former) => {
                former.give_up(effects);
                self.draw_election_wait(now);
            }
            State::Candidate(_) => {
                self.lost = if leader.is_some() { 0 } else { self.lost.saturating_add(1) };
                self.draw_election_wait(now);
            }
            State::Canvasser { .. } | State::Follower(_) => {}
        }
    }

    /// Sends what reveals the promise, or rests on it, and nothing else.
    pub(crate) fn send_with_promise(&self, to: NodeId, message: Message, effects: &mut Effects) {
        self.send_with(self.promise_write, to, message, effects);
    }

    /// Sends what reveals what `write` makes durable.
    pub(crate) fn send_with(&self, write: WriteId, to: NodeId, message: Message, effects: &mut Effects) {
        if write <= self.disk.persisted {
            effects.send(to, message);
        } else {
            effects.send_after(to, message, write);
        }
    }

    /// Draws the wait before the next election anew: longer after each campaign that was lost, so that proposers
    /// who preempt each other part.
    pub(crate) fn draw_election_wait(&mut self, now: Instant) {
        let shortest =
            u64::try_from(self.config.election_timeout.as_nanos()).expect("validated: at most a day");
        let spread = shortest << self.lost.min(BACKOFF_DOUBLINGS_MAX);
        self.election_wait = Duration::from_nanos(shortest + self.random.next_u64() % spread);
        self.election_at = now + self.election_wait;
    }

    pub(crate) fn not_leader(&self) -> Refusal {
        Refusal::NotLeader { leader: self.leader() }
    }

    // --- the watermark ---

    /// Everything through `through` is decided, and stands in the log.
    pub(crate) fn decide(&mut self, through: LogIndex) {
        if through > self.decided {
            self.decided = through;
            self.votes.settle(through);
        }
        self.pass_chosen();
    }

    /// Moves the watermark over slots above it that are known to be chosen.
    fn pass_chosen(&mut self) {
        let reached = self.votes.reach(self.decided.next(), Stamp::CHOSEN);
        if reached > self.decided {
            self.decided = reached;
            self.votes.settle(reached);
        }
        self.learning.learned(self.decided);
        self.fast_passed();
    }

    /// Lets the watermark ride on a write that is made anyway: a restart need not learn again what it had.
    fn hint_watermark(&mut self, effects: &mut Effects) {
        if self.decided.distance_from(self.hinted) >= HINT_EVERY && !effects.unit().is_empty() {
            self.hinted = self.decided;
            let state = HardState { promised: self.promised.ballot(), decided: self.decided };
            effects.set_hard_state_unforced(state.to_bytes());
        }
    }

    /// The slots above the watermark that may hold something, from `from` on.
    pub(crate) fn votes_from(&self, from: LogIndex) -> IndexRange {
        IndexRange::new(from.max(self.decided.next()), self.last_index().next())
    }

    /// True if `nodes` could both elect and replicate.
    pub(crate) fn is_supported(&self, nodes: &NodeSet) -> bool {
        self.quorums().is_election_quorum(nodes) && self.quorums().is_replication_quorum(nodes)
    }

    pub(crate) fn other_voters(&self) -> Vec<NodeId> {
        self.quorums().members().iter().filter(|voter| *voter != self.node).collect()
    }
}

impl Disk {
    /// Unit `id` was asked for.
    pub(crate) fn wrote(&mut self, id: WriteId, now: Instant) {
        if self.in_flight.back().is_none_or(|(last, _)| *last < id) {
            self.in_flight.push_back((id, now));
        }
    }

    fn on_persisted(&mut self, id: WriteId, now: Instant) {
        if id > self.persisted {
            self.persisted = id;
            self.progress_at = now;
        }
        while self.in_flight.front().is_some_and(|(first, _)| *first <= id) {
            self.in_flight.pop_front();
        }
    }

    /// True if a write has been waiting for `timeout` while the disk confirmed nothing.
    pub(crate) fn is_stalled(&self, now: Instant, timeout: Duration) -> bool {
        self.in_flight
            .front()
            .is_some_and(|(_, issued_at)| now - (*issued_at).max(self.progress_at) >= timeout)
    }
}

/// A slot that a message may speak of.
pub(crate) fn checked_slot(slot: LogIndex) -> Result<LogIndex, Rejection> {
    if slot > SLOT_MAX { Err(Rejection::Position) } else { Ok(slot) }
}

/// A lost campaign doubles what is drawn at most so often.
const BACKOFF_DOUBLINGS_MAX: u32 = 4;

/// How far the watermark moves before it is worth a hard state.
pub(crate) const HINT_EVERY: u64 = 256;
