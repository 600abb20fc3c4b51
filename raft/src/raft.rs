//! The replica: its state, its roles, and where each input goes.

use std::sync::Arc;
use std::time::Duration;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use synod_core::{
    ConfigError, Described, Durability, Input, Instant, LeasePromise, LogCall, LogEvent, LogIndex, Machine,
    Membership, NodeId, NodeSet, OpenError, Protocol, ProtocolConfig, QuorumSystem, Refusal, Role, Route,
    Start, Status, Wire, WriteId,
};

use crate::codec::HardState;
use crate::config::RaftConfig;
use crate::counters::{Counters, Rejection};
use crate::log::Log;
use crate::message::{Message, NewerTerm, Term, reign};
use crate::replication::Leader;

/// What a Raft replica asks of its host.
pub(crate) type Effects = synod_core::Effects<Message, LogEvent>;

/// One Raft replica. See the [crate's front page](crate) for the loop around it.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) node: NodeId,
    pub(crate) membership: Arc<Membership>,
    pub(crate) config: RaftConfig,
    /// False for a member whose voice no quorum counts: it never campaigns.
    pub(crate) voter: bool,
    random: Xoshiro256PlusPlus,

    /// The latest term seen, and this replica's vote in it (figure 2, persistent state).
    pub(crate) hard_state: HardState,
    /// The write that makes the term durable.
    term_write: WriteId,
    /// The write that makes the vote durable.
    pub(crate) vote_write: WriteId,
    pub(crate) log: Log,
    pub(crate) disk: Durability,

    /// Everything through here is decided (figure 2, commitIndex). Forgotten by a restart.
    pub(crate) decided: LogIndex,
    pub(crate) state: State,
    /// When a replica that does not lead campaigns; moved on by every sign of a leader and every vote given.
    pub(crate) election_at: Instant,
    /// The wait drawn for this election.
    pub(crate) election_wait: Duration,
    /// What leaders may rely on for lease reads.
    pub(crate) promise: LeasePromise,

    /// What the host was told last.
    told: Told,
    pub(crate) counters: Counters,
}

/// What a replica is, with what only such a replica has.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Follower(Follower),
    /// Asks whether it would be elected.
    PreCandidate {
        votes: NodeSet,
    },
    Candidate {
        votes: NodeSet,
        /// The leader asked for this election.
        transfer: bool,
    },
    Leader(Box<Leader>),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Follower {
    pub(crate) leader: Option<KnownLeader>,
    /// The log matches the leader's through here, and the leader is to be told.
    pub(crate) acknowledge: Option<LogIndex>,
}

/// The leader of this term.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownLeader {
    pub(crate) node: NodeId,
    pub(crate) heard_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    role: Role,
    leader: Option<NodeId>,
    term: Term,
    route: Route,
    decided: LogIndex,
}

impl Raft {
    /// The default settings.
    #[must_use]
    pub fn config() -> RaftConfig {
        RaftConfig::default()
    }

    /// How often things happened since the replica was opened.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The latest term that this replica has seen.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Who has this replica's vote in the current term.
    #[must_use]
    pub fn voted_for(&self) -> Option<NodeId> {
        self.hard_state.voted_for
    }

    /// The last position of the log; it may not be durable yet.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.log.last_index()
    }

    fn role(&self) -> Role {
        match &self.state {
            State::Follower(_) => Role::Follower,
            State::PreCandidate { .. } | State::Candidate { .. } => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Follower(follower) => follower.leader.map(|leader| leader.node),
            State::PreCandidate { .. } | State::Candidate { .. } => None,
            State::Leader(_) => Some(self.node),
        }
    }

    pub(crate) fn quorums(&self) -> &QuorumSystem {
        self.membership.quorums()
    }

    fn now_told(&self) -> Told {
        Told {
            role: self.role(),
            leader: self.leader(),
            term: self.term(),
            route: self.route(),
            decided: self.decided,
        }
    }
}

impl Machine for Raft {
    type Config = RaftConfig;
    type Message = Message;
    type Call = LogCall;
    type Event = LogEvent;

    fn open(start: Start<RaftConfig>) -> Result<Raft, OpenError> {
        let Start { node, membership, config, recovered, now, seed } = start;
        config.validate()?;
        if !membership.contains(node) {
            return Err(OpenError::NotAMember { node });
        }
        if !elections_meet(membership.quorums()) {
            let problem = "must make any two election quorums meet, or a term could have two leaders";
            return Err(ConfigError { setting: "quorums", problem }.into());
        }
        let hard_state = HardState::recover(recovered.hard_state.clone()).map_err(OpenError::HardState)?;
        let log = Log::recover(&recovered, config.tail_bytes_max).map_err(|what| OpenError::Log { what })?;
        if log.last().term > hard_state.term {
            return Err(OpenError::Log { what: "an entry is of a later term than the hard state" });
        }
        // Whoever can elect itself need not wait for anybody.
        let alone = membership.quorums().is_election_quorum(&[node].into_iter().collect());
        let promise = LeasePromise::at_start(config.loyalty(), now, recovered.hard_state.is_some() && !alone);
        let mut raft = Raft {
            node,
            voter: membership.quorums().members().contains(node),
            membership: Arc::new(membership),
            // Replicas that were given the same seed must not draw the same waits.
            random: Xoshiro256PlusPlus::seed_from_u64(seed ^ node.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            hard_state,
            term_write: WriteId(0),
            vote_write: WriteId(0),
            disk: Durability::new(log.last_index(), now),
            decided: log.base().index,
            state: State::Follower(Follower::default()),
            election_at: now,
            election_wait: config.election_timeout,
            promise,
            told: Told {
                role: Role::Follower,
                leader: None,
                term: hard_state.term,
                route: Route::Hold,
                decided: log.base().index,
            },
            counters: Counters::default(),
            log,
            config,
        };
        if !alone {
            raft.draw_election_wait(now);
        }
        Ok(raft)
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
            State::Follower(_) => self.flush_follower(effects),
            State::PreCandidate { .. } | State::Candidate { .. } => {}
        }
        let (told, is) = (self.told, self.now_told());
        if told == is {
            return;
        }
        if (told.role, told.leader, told.term, told.route) != (is.role, is.leader, is.term, is.route) {
            effects.event(LogEvent::Role(is.role));
        }
        if told.decided != is.decided {
            assert!(told.decided < is.decided, "the commit index never falls");
            assert!(is.decided <= self.log.last_index(), "what is decided here is in the log");
            effects.event(LogEvent::Decided(is.decided));
        }
        self.told = is;
    }

    fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Leader(leader) => Some(leader.next_deadline()),
            _ => self.voter.then_some(self.election_at),
        }
    }
}

impl Protocol for Raft {
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
        let leader = self.leader();
        Status {
            role: self.role(),
            leader,
            reign: reign(self.term(), leader.unwrap_or_default()),
            decided: self.decided,
            membership: Arc::clone(&self.membership),
        }
    }

    fn describe(&self, index: LogIndex) -> Option<Described> {
        let term = self.log.term_at(index).filter(|_| index <= self.decided)?;
        Some(Described { stamp: term.stamp(), membership: Arc::clone(&self.membership) })
    }
}

impl Raft {
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
        // Only who never took part in an election speaks of term zero: when it answers a pre-vote.
        let (term, newcomer) = (message.term(), matches!(message, Message::PreVoteReply(_)));
        if term > Term::MAX || (term == Term::ZERO && !newcomer) {
            return Err(Rejection::Term);
        }
        match message {
            Message::PreVote(message) => self.on_pre_vote(now, from, message, effects),
            Message::PreVoteReply(message) => self.on_pre_vote_reply(now, from, message, effects),
            Message::Vote(message) => self.on_vote(now, from, message, effects),
            Message::VoteReply(message) => self.on_vote_reply(now, from, message, effects),
            Message::Append(message) => return self.on_append(now, from, message, effects),
            Message::Appended(message) => return self.on_appended(now, from, message, effects),
            Message::AppendRejected(message) => return self.on_append_rejected(now, from, message, effects),
            Message::Heartbeat(message) => return self.on_heartbeat(now, from, message, effects),
            Message::HeartbeatReply(message) => return self.on_heartbeat_reply(now, from, message, effects),
            Message::CommitNotice(message) => return self.on_commit_notice(now, from, message, effects),
            Message::NewerTerm(NewerTerm { term }) => self.adopt_newer(now, term, effects),
            Message::TimeoutNow(message) => return self.on_timeout_now(now, from, message, effects),
        }
        Ok(())
    }

    fn on_persisted(&mut self, now: Instant, id: WriteId, effects: &mut Effects) {
        assert!(id < effects.write_id(), "a unit is durable only after it was issued");
        self.disk.on_persisted(id, now);
        match &mut self.state {
            State::Leader(leader) => leader.note_progress(),
            State::Candidate { .. } => self.on_vote_durable(now, effects),
            State::PreCandidate { .. } | State::Follower(_) => {}
        }
    }

    fn on_tick(&mut self, now: Instant, effects: &mut Effects) {
        if let State::Leader(_) = self.state {
            self.on_leader_tick(now, effects);
        } else if self.voter && now >= self.election_at {
            self.on_election_due(now, effects);
        }
    }

    // --- terms, hard state and what waits for it ---

    /// Moves to a later term, as a follower of nobody yet (section 5.1).
    pub(crate) fn adopt(&mut self, now: Instant, term: Term, effects: &mut Effects) {
        assert!(term > self.term(), "the current term never falls");
        if let State::Leader(_) = self.state {
            self.counters.deposed += 1;
        }
        self.become_follower(now, None, effects);
        self.write_hard_state(now, HardState { term, voted_for: None }, effects);
    }

    /// Moves to `term` if it is later than the current one; true if it is.
    pub(crate) fn adopt_newer(&mut self, now: Instant, term: Term, effects: &mut Effects) {
        if term > self.term() {
            self.adopt(now, term, effects);
        }
    }

    /// Follows `leader` in the current term, or nobody. What only the former role had ends here.
    pub(crate) fn become_follower(&mut self, now: Instant, leader: Option<NodeId>, effects: &mut Effects) {
        let leader = leader.map(|node| KnownLeader { node, heard_at: now });
        let follower = State::Follower(Follower { leader, acknowledge: None });
        if let State::Leader(former) = std::mem::replace(&mut self.state, follower) {
            former.give_up(effects);
            self.draw_election_wait(now);
        }
    }

    /// Makes a new term or vote part of the unit being assembled.
    pub(crate) fn write_hard_state(&mut self, now: Instant, next: HardState, effects: &mut Effects) {
        let id = effects.write_id();
        if next.term != self.hard_state.term {
            assert!(next.term > self.hard_state.term, "the current term never falls");
            self.term_write = id;
        } else {
            assert!(self.hard_state.voted_for.is_none(), "Election Safety: one vote in a term");
        }
        self.vote_write = id;
        self.hard_state = next;
        effects.set_hard_state(next.to_bytes());
        self.disk.wrote(id, self.log.last_index(), now);
    }

    /// Sends what reveals this replica's term and nothing else: it waits for no other write.
    pub(crate) fn send_with_term(&self, to: NodeId, message: Message, effects: &mut Effects) {
        self.send_with(self.term_write, to, message, effects);
    }

    /// Sends what reveals what `write` makes durable.
    pub(crate) fn send_with(&self, write: WriteId, to: NodeId, message: Message, effects: &mut Effects) {
        if self.disk.holds(write) {
            effects.send(to, message);
        } else {
            effects.send_after(to, message, write);
        }
    }

    /// Draws the wait before the next election anew (section 5.2).
    pub(crate) fn draw_election_wait(&mut self, now: Instant) {
        let shortest =
            u64::try_from(self.config.election_timeout.as_nanos()).expect("validated: at most a day");
        self.election_wait = Duration::from_nanos(shortest + self.random.next_u64() % shortest);
        self.election_at = now + self.election_wait;
    }

    pub(crate) fn not_leader(&self) -> Refusal {
        Refusal::NotLeader { leader: self.leader() }
    }
}

/// True if any two election quorums share a member. The core asks only that election and replication quorums
/// meet; one leader in a term needs this too.
fn elections_meet(quorums: &QuorumSystem) -> bool {
    match quorums {
        QuorumSystem::Majority { .. } => true,
        QuorumSystem::Counted { members, election, .. } | QuorumSystem::Fast { members, election, .. } => {
            2 * election > members.len()
        }
        QuorumSystem::Grid { rows } => rows.len() == 1,
        QuorumSystem::Weighted { members, election, .. } => {
            // Two election quorums meet exactly if such a system that decided with the same weight were valid.
            let (members, election) = (members.clone(), *election);
            QuorumSystem::Weighted { members, election, replication: election }.validate().is_ok()
        }
        QuorumSystem::Joint { old, new } => elections_meet(old) || elections_meet(new),
    }
}
