//! The replica: its state, its roles, and where each input goes.

use std::sync::Arc;

use synod_core::{
    ConfigError, Described, Durability, Input, Instant, LogCall, LogEvent, LogIndex, Machine, Membership,
    NodeId, OpenError, Protocol, ProtocolConfig, QuorumSystem, Refusal, Role, Route, Start, Status,
    TransferRefusal, Wire, WriteId,
};

use crate::broadcast::{Leading, Phase};
use crate::codec::HardState;
use crate::config::ZabConfig;
use crate::counters::{Counters, Rejection};
use crate::discovery::Following;
use crate::election::Looking;
use crate::log::Log;
use crate::message::{Attempt, Epoch, Message, Round, Zxid, reign};

/// What a ZAB replica asks of its host.
pub(crate) type Effects = synod_core::Effects<Message, LogEvent>;

/// One ZAB replica. See the [crate's front page](crate) for the loop around it.
#[derive(Clone, Debug)]
pub struct Zab {
    pub(crate) node: NodeId,
    pub(crate) membership: Arc<Membership>,
    pub(crate) config: ZabConfig,
    /// False for a member whose voice no quorum counts: it never leads.
    pub(crate) voter: bool,

    pub(crate) hard_state: HardState,
    /// The write that makes the accepted epoch durable.
    pub(crate) promise_write: WriteId,
    /// The write that makes the current epoch durable.
    pub(crate) current_write: WriteId,
    pub(crate) log: Log,
    pub(crate) disk: Durability,

    /// Everything through here is decided. Forgotten by a restart.
    pub(crate) decided: LogIndex,
    pub(crate) state: State,
    /// The election this replica is in, or was in last.
    pub(crate) round: Round,
    /// The latest epoch that anybody is known to have promised. Forgotten by a restart.
    pub(crate) promised_anywhere: Epoch,
    /// The latest try to follow somebody.
    pub(crate) attempt: Attempt,

    /// What the host was told last.
    told: Told,
    pub(crate) counters: Counters,
}

/// What a replica is, with what only such a replica has.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Phase 0.
    Looking(Looking),
    /// Phases 1 to 3, from the follower's side.
    Following(Following),
    /// Phases 1 to 3, from the leader's side.
    Leading(Box<Leading>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    role: Role,
    leader: Option<NodeId>,
    epoch: Epoch,
    decided: LogIndex,
}

impl Zab {
    /// The default settings.
    #[must_use]
    pub fn config() -> ZabConfig {
        ZabConfig::default()
    }

    /// How often things happened since the replica was opened.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The last epoch that this replica promised to follow; it may not be durable yet.
    #[must_use]
    pub fn accepted_epoch(&self) -> Epoch {
        self.hard_state.accepted
    }

    /// The last epoch whose initial history this replica took over; it may not be durable yet.
    #[must_use]
    pub fn current_epoch(&self) -> Epoch {
        self.hard_state.current
    }

    /// The zxid of the last entry; it may not be durable yet.
    #[must_use]
    pub fn last_zxid(&self) -> Zxid {
        self.log.last().zxid
    }

    /// The last position of the log; it may not be durable yet.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.log.last_index()
    }

    fn role(&self) -> Role {
        match &self.state {
            State::Leading(leading) if leading.phase == Phase::Broadcast => Role::Leader,
            State::Looking(_) | State::Leading(_) => Role::Candidate,
            State::Following(_) => Role::Follower,
        }
    }

    /// The established leader, as far as this replica knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Looking(_) => None,
            State::Following(following) => following.established.then_some(following.vote.node),
            State::Leading(leading) => (leading.phase == Phase::Broadcast).then_some(self.node),
        }
    }

    pub(crate) fn quorums(&self) -> &QuorumSystem {
        self.membership.quorums()
    }

    fn now_told(&self) -> Told {
        let epoch = self.hard_state.current;
        Told { role: self.role(), leader: self.leader(), epoch, decided: self.decided }
    }
}

impl Machine for Zab {
    type Config = ZabConfig;
    type Message = Message;
    type Call = LogCall;
    type Event = LogEvent;

    fn open(start: Start<ZabConfig>) -> Result<Zab, OpenError> {
        let Start { node, membership, config, recovered, now, seed: _ } = start;
        config.validate()?;
        if !membership.contains(node) {
            return Err(OpenError::NotAMember { node });
        }
        if !elections_meet(membership.quorums()) {
            let problem = "must make any two election quorums meet, or an epoch could have two leaders";
            return Err(ConfigError { setting: "quorums", problem }.into());
        }
        let hard_state = HardState::recover(recovered.hard_state.clone()).map_err(OpenError::HardState)?;
        let log = Log::recover(&recovered, config.tail_bytes_max).map_err(|what| OpenError::Log { what })?;
        // The end of the history may be of a later epoch than the current one: a synchronisation in several
        // writes was cut short. It is never of a later one than was promised.
        if log.last().zxid.epoch > hard_state.accepted {
            return Err(OpenError::Log { what: "an entry is of a later epoch than any that was promised" });
        }
        Ok(Zab {
            node,
            voter: membership.quorums().members().contains(node),
            membership: Arc::new(membership),
            hard_state,
            promise_write: WriteId(0),
            current_write: WriteId(0),
            disk: Durability::new(log.last_index(), now),
            decided: log.base().index,
            state: State::Looking(Looking::new(now)),
            round: Round(1),
            promised_anywhere: hard_state.accepted,
            attempt: Attempt(recovered.incarnation.0 << 32),
            told: Told {
                role: Role::Candidate,
                leader: None,
                epoch: hard_state.current,
                decided: log.base().index,
            },
            counters: Counters::default(),
            log,
            config,
        })
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
            Input::Call(LogCall::Read { id, .. }) => self.on_read(id, effects),
            Input::Call(LogCall::Transfer { .. }) => {
                effects.event(LogEvent::TransferFailed { why: TransferRefusal::Unsupported });
            }
            Input::Call(LogCall::SnapshotTaken { compact_to, .. }) => self.compact_to(compact_to, effects),
            Input::Call(LogCall::SnapshotArrived { id, meta }) => {
                self.on_snapshot_arrived(now, id, &meta, effects);
            }
            Input::Call(LogCall::SnapshotSent { to, outcome }) => self.on_snapshot_sent(now, to, outcome),
            Input::Tick => match &self.state {
                State::Looking(_) => self.on_looking_tick(now, effects),
                State::Following(_) => self.on_following_tick(now, effects),
                State::Leading(_) => self.on_leading_tick(now, effects),
            },
        }
    }

    fn flush(&mut self, now: Instant, effects: &mut Effects) {
        match &self.state {
            State::Looking(_) => {}
            State::Following(_) => self.flush_follower(now, effects),
            State::Leading(_) => self.flush_leader(now, effects),
        }
        let (told, is) = (self.told, self.now_told());
        if told == is {
            return;
        }
        if (told.role, told.leader, told.epoch) != (is.role, is.leader, is.epoch) {
            effects.event(LogEvent::Role(is.role));
        }
        if told.decided != is.decided {
            assert!(told.decided < is.decided, "what is decided never falls");
            assert!(is.decided <= self.log.last_index(), "what is decided here is in the log");
            effects.event(LogEvent::Decided(is.decided));
        }
        self.told = is;
    }

    fn next_deadline(&self) -> Option<Instant> {
        Some(match &self.state {
            State::Looking(looking) => looking.next_deadline(),
            State::Following(following) => following.next_deadline(self.config.election_timeout),
            State::Leading(leading) => leading.next_deadline(self.config.election_timeout),
        })
    }
}

impl Protocol for Zab {
    fn route(&self) -> Route {
        match self.leader() {
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
            reign: reign(self.hard_state.current, leader.unwrap_or_default()),
            decided: self.decided,
            membership: Arc::clone(&self.membership),
        }
    }

    fn describe(&self, index: LogIndex) -> Option<Described> {
        let zxid = self.log.zxid_at(index).filter(|_| index <= self.decided)?;
        Some(Described { stamp: zxid.stamp(), membership: Arc::clone(&self.membership) })
    }
}

impl Zab {
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
        let epoch = message.session().map(|session| session.epoch);
        if epoch.is_some_and(|epoch| epoch == Epoch::ZERO || epoch > Epoch::MAX) {
            return Err(Rejection::Epoch);
        }
        match message {
            Message::Notification(message) => self.on_notification(now, from, message, effects),
            Message::FollowerInfo(message) => self.on_follower_info(now, from, message, effects),
            Message::NewEpoch(message) => self.on_new_epoch(now, from, message, effects),
            Message::AckEpoch(message) => self.on_ack_epoch(now, from, message, effects),
            Message::Proposal(message) => self.on_proposal(now, from, message, effects),
            Message::NewLeader(message) => self.on_new_leader(now, from, message),
            Message::Received(message) => self.on_received(now, from, message),
            Message::Ack(message) => self.on_ack(now, from, message, effects),
            Message::Missing(message) => self.on_missing(now, from, message),
            Message::Commit(message) => self.on_commit(now, from, message),
            Message::Ping(message) => self.on_ping(now, from, message, effects),
            Message::Pong(message) => self.on_pong(now, from, message, effects),
        }
    }

    fn on_persisted(&mut self, now: Instant, id: WriteId, effects: &mut Effects) {
        assert!(id < effects.write_id(), "a unit is durable only after it was issued");
        self.disk.on_persisted(id, now);
        if let State::Leading(leading) = &mut self.state {
            leading.note_progress();
            self.check_promises(now, effects);
        }
    }

    // --- hard state and what waits for it ---

    /// Makes a new promise or current epoch part of the unit being assembled.
    pub(crate) fn write_hard_state(&mut self, now: Instant, next: HardState, effects: &mut Effects) {
        let before = self.hard_state;
        assert!(next.current <= next.accepted, "ZI8: nobody follows an epoch that it did not promise");
        assert!(next.accepted >= before.accepted && next.current >= before.current, "ZI8: epochs never fall");
        let id = effects.set_hard_state(next.to_bytes());
        if next.accepted != before.accepted {
            self.promise_write = id;
        } else {
            assert_eq!(next.promised_to, before.promised_to, "ZI8: one promise in an epoch");
        }
        if next.current != before.current {
            self.current_write = id;
        }
        self.hard_state = next;
        self.disk.wrote(id, self.log.last_index(), now);
    }

    /// Sends what reveals this replica's promise and nothing else: it waits for no other write.
    pub(crate) fn send_with_promise(&self, to: NodeId, message: Message, effects: &mut Effects) {
        self.send_with(self.promise_write, to, message, effects);
    }

    /// Sends what reveals what `write` makes durable.
    pub(crate) fn send_with(&self, write: WriteId, to: NodeId, message: Message, effects: &mut Effects) {
        if self.disk.holds(write) {
            effects.send(to, message);
        } else {
            effects.send_after(to, message, write);
        }
    }

    pub(crate) fn not_leader(&self) -> Refusal {
        Refusal::NotLeader { leader: self.leader() }
    }
}

/// True if any two election quorums share a member. The core asks only that election and replication quorums
/// meet; one leader in an epoch needs this too.
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
