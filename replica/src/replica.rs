//! The way of a command: propose, decide, apply, reply.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use synod_core::{
    Applied, ClientId, Command, Compacted, Entries, Forward, ForwardReply, ForwardedQuery, GroupId, Inbound,
    Incarnation, IndexRange, Input, Instant, Kind, LoadId, Loaded, LogCall, LogEvent, LogIndex, NodeId,
    OpenError, Outputs, Packet, Protocol, ProtocolConfig, QueryOutcome, ReadMode, Refusal, Reign, RequestId,
    RequestOutcome, Route, Sequence, SparseLog, Start, StateMachine, Status, Wire, WriteId,
};

use crate::clients::{Clients, Room};
use crate::cut;
use crate::host::HELD_MESSAGES_MAX;
use crate::reads::{Asker, PendingRead, Reads};
use crate::routes::Routes;
use crate::service::Hosted;
use crate::sessions::{Opener, SessionOp, Sessions, Verdict};
use crate::snapshots::{KeptSnapshots, PIECE_OVERHEAD, SnapshotConfig, SnapshotCounters, Snapshots};
use crate::transfer::PendingTransfer;
use crate::{
    Actions, ClientCall, Consistency, Host, HostCounters, Order, Probe, ProposeError, QueryError,
    ReplicaError, ReplicaEvent, SessionKey, Token,
};

/// How often a forwarded proposal may be handed on.
const FORWARD_HOPS: u8 = 3;

/// Sessions that the clients of one replica may have at a time.
const LOCAL_SESSIONS_MAX: usize = 1 << 16;

/// Bounds of one replica. They differ between replicas without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// Open proposals, open reads, and sessions being opened, beyond which calls are refused: each by itself.
    pub queue_entries_max: usize,
    /// Payload bytes of open proposals beyond which calls are refused.
    pub queue_bytes_max: usize,
    /// The largest command, and the largest query.
    pub command_bytes_max: usize,
    /// Commands proposed per flush.
    pub batch_entries_max: usize,
    /// Payload bytes proposed per flush, and what a packet to another replica weighs at most unless one item alone is
    /// longer: a transport must carry packets of this size.
    pub batch_bytes_max: usize,
    /// Entries applied per flush.
    pub apply_entries_max: usize,
    /// Durable entries kept at hand, in bytes.
    pub tail_bytes_max: usize,
    /// Messages to one peer that may wait for writes; further ones are dropped, as a network may.
    pub held_messages_max: usize,
    /// When snapshots are taken, and how they travel.
    pub snapshots: SnapshotConfig,
}

impl Default for ReplicaConfig {
    fn default() -> ReplicaConfig {
        ReplicaConfig {
            queue_entries_max: 1 << 16,
            queue_bytes_max: 64 << 20,
            command_bytes_max: 1 << 20,
            batch_entries_max: 4096,
            batch_bytes_max: 4 << 20,
            apply_entries_max: 16_384,
            tail_bytes_max: 4 << 20,
            held_messages_max: HELD_MESSAGES_MAX,
            snapshots: SnapshotConfig::default(),
        }
    }
}

impl ReplicaConfig {
    /// The longest packet that a replica of these bounds hands on or answers, beside those of its protocol, in bytes on
    /// the wire. A transport must carry it.
    #[must_use]
    pub fn packet_bytes_max(&self) -> usize {
        let single = Forward::OVERHEAD_OF_ONE.max(ForwardReply::OVERHEAD_OF_ONE);
        self.batch_bytes_max
            .saturating_add(Packet::<()>::TAG_LEN)
            .max(self.command_bytes_max.saturating_add(single))
            .max(self.snapshots.chunk_bytes.saturating_add(PIECE_OVERHEAD))
    }
}

/// How a replica stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// How its protocol stands.
    pub protocol: Status,
    /// Everything through this index is applied.
    pub applied: LogIndex,
    /// This life of the node.
    pub incarnation: Incarnation,
    /// Sessions there are, as applied here.
    pub sessions: usize,
    /// What the replies that they keep weigh, in bytes.
    pub session_reply_bytes: usize,
    /// What the newest snapshot kept here holds.
    pub snapshot: LogIndex,
}

/// What a replica has done; counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What its host has dropped and done.
    pub host: HostCounters,
    /// Commands handed to the state machine.
    pub applied: u64,
    /// Decided commands that were applied before.
    pub duplicates: u64,
    /// Decided commands of sessions that are gone.
    pub expired: u64,
    /// Decided commands that came before their predecessor.
    pub out_of_order: u64,
    /// Decided commands too far ahead of their session.
    pub beyond_window: u64,
    /// Commands that peers handed on to this replica.
    pub forwarded_in: u64,
    /// Commands that this replica handed on.
    pub forwarded_out: u64,
    /// Barriers asked of the protocol.
    pub barriers: u64,
    /// Packets of peers that made no sense here.
    pub rejected: u64,
    /// What was done about snapshots.
    pub snapshots: SnapshotCounters,
}

/// One replica: a protocol behind a [`Host`], clients before it, a state machine behind it.
pub struct Replica<P: Protocol, S: StateMachine> {
    pub(crate) host: Host<P>,
    config: ReplicaConfig,
    pub(crate) retry_after: Duration,
    rng: Xoshiro256PlusPlus,

    pub(crate) state_machine: S,
    pub(crate) hosted: Hosted,
    pub(crate) sessions: Sessions,
    pub(crate) decided: LogIndex,
    pub(crate) applied: LogIndex,
    /// The leadership period of the entry applied last.
    pub(crate) applied_reign: Reign,
    /// Decided entries read back from the storage, and the read that is under way.
    pub(crate) backlog: SparseLog,
    pub(crate) backlog_load: Option<LoadId>,
    pub(crate) snapshots: Snapshots,
    outputs: Outputs,
    /// Always empty between batches: kept for its memory.
    batch: Vec<Applied<'static>>,

    clients: Clients,
    pub(crate) reads: Reads,
    pub(crate) transfer: Option<PendingTransfer>,
    served: Vec<PendingRead>,
    /// Commands that peers handed on, waiting for the next flush.
    incoming: Vec<Command>,
    incoming_bytes: usize,
    /// Where the outcome of a peer's command goes.
    pub(crate) origins: BTreeMap<(ClientId, Sequence), NodeId>,
    replies: BTreeMap<NodeId, ForwardReply>,

    /// How what is under way was sent.
    pub(crate) seen: Routes,
    /// The protocol refused for want of room: wait until something is decided or durable, or this instant.
    full_until: Option<Instant>,
    stopping: bool,
    failed: bool,
    log_events: Vec<LogEvent>,
    pub(crate) events: Vec<ReplicaEvent>,
    others: Vec<(NodeId, Packet<P::Message>)>,
    pub(crate) counters: Counters,
}

impl<P, S> Replica<P, S>
where
    P: Protocol,
    P::Config: ProtocolConfig,
    S: StateMachine,
{
    /// Opens a replica with an empty state machine: it is rebuilt from the newest snapshot that was kept, and from the
    /// log as entries are decided anew. Without a store of snapshots (`None`) nothing is ever compacted.
    ///
    /// # Errors
    /// [`OpenError`] if a setting or the recovered state cannot be used.
    pub fn open(
        start: Start<P::Config>,
        group: GroupId,
        config: ReplicaConfig,
        state_machine: S,
        kept: Option<KeptSnapshots>,
    ) -> Result<Replica<P, S>, OpenError> {
        start.config.validate()?;
        if !start.membership.contains(start.node) {
            return Err(OpenError::NotAMember { node: start.node });
        }
        let retry_after = start.config.retry_after();
        let limits = start.membership.sessions();
        let incarnation = start.recovered.incarnation;
        let rng = generator(start.seed, start.node, incarnation);
        let compacted = start.recovered.compacted.map(|(index, _)| index);
        let snapshots = Snapshots::new(config.snapshots.clone(), kept.as_ref(), start.now);
        let mut host: Host<P> = Host::open(start, group, config.tail_bytes_max)?;
        host.hold_at_most(config.held_messages_max);
        let seen = Routes::of(host.machine());
        let mut replica = Replica {
            host,
            config,
            retry_after,
            rng,
            state_machine,
            hosted: Hosted::default(),
            sessions: Sessions::new(limits),
            decided: LogIndex::ZERO,
            applied: LogIndex::ZERO,
            applied_reign: Reign::default(),
            backlog: SparseLog::new(),
            backlog_load: None,
            snapshots,
            outputs: Outputs::new(),
            batch: Vec::new(),
            clients: Clients::new(limits.window, retry_after),
            reads: Reads::new(incarnation),
            transfer: None,
            served: Vec::new(),
            incoming: Vec::new(),
            incoming_bytes: 0,
            origins: BTreeMap::new(),
            replies: BTreeMap::new(),
            seen,
            full_until: None,
            stopping: false,
            failed: false,
            log_events: Vec::new(),
            events: Vec::new(),
            others: Vec::new(),
            counters: Counters::default(),
        };
        replica.start_from(kept, compacted)?;
        Ok(replica)
    }

    // --- inputs ---

    /// An envelope arrived.
    pub fn receive(&mut self, now: Instant, inbound: Inbound<P::Message>) {
        let mut others = std::mem::take(&mut self.others);
        self.host.receive(now, inbound, &mut others);
        for (from, packet) in others.drain(..) {
            match packet {
                Packet::Forward(forward) => self.on_forward(from, forward),
                Packet::ForwardReply(reply) => self.on_forward_reply(now, reply),
                Packet::SnapshotChunk(chunk) => self.on_snapshot_chunk(now, from, chunk),
                Packet::SnapshotAck(ack) => self.on_snapshot_ack(now, from, ack),
                Packet::Protocol(_) => {}
            }
        }
        self.others = others;
    }

    /// Every write unit through `through` is durable.
    pub fn persisted(&mut self, now: Instant, through: WriteId) {
        self.full_until = None;
        self.host.persisted(now, through);
    }

    /// A read of the storage ended.
    pub fn loaded(&mut self, id: LoadId, result: Result<Loaded, Compacted>) {
        self.host.loaded(id, result);
    }

    /// A client asks for something.
    pub fn call(&mut self, call: ClientCall) {
        match call {
            ClientCall::Propose { session, token, payload, deadline } => {
                self.on_propose(session, token, payload, deadline);
            }
            ClientCall::Read { token, query, consistency, deadline } => {
                self.on_read(token, query, consistency, deadline);
            }
            ClientCall::OpenSession { session, token, order, deadline } => {
                if self.stopping {
                    let result = Err(ProposeError::Stopping { payload: Bytes::new() });
                    self.events.push(ReplicaEvent::SessionOpened { token, result });
                } else if session == SessionKey::OWN || self.clients.is_known(session) {
                    let result = Err(ProposeError::NoSession { payload: Bytes::new() });
                    self.events.push(ReplicaEvent::SessionOpened { token, result });
                } else if self.clients.opening() >= self.config.queue_entries_max
                    || self.clients.sessions() >= LOCAL_SESSIONS_MAX
                {
                    let result = Err(ProposeError::Full { payload: Bytes::new() });
                    self.events.push(ReplicaEvent::SessionOpened { token, result });
                } else {
                    let nonce = self.rng.next_u64();
                    self.clients.open(session, nonce, order, Some((token, deadline)));
                }
            }
            ClientCall::AttachSession { session, client, order, next } => {
                if !self.clients.is_known(session) && self.clients.sessions() < LOCAL_SESSIONS_MAX {
                    self.clients.attach(session, client, order, next);
                }
            }
            ClientCall::CloseSession { session } => self.on_close_session(session),
            ClientCall::Transfer { token, to, deadline } => self.on_transfer(token, to, deadline),
            ClientCall::Stop => self.stopping = true,
        }
    }

    /// A deadline may be due.
    pub fn tick(&mut self, now: Instant) {
        if self.host.next_deadline().is_some_and(|at| at <= now) {
            self.host.step(now, Input::Tick);
        }
    }

    pub(crate) fn on_propose(
        &mut self,
        session: SessionKey,
        token: Token,
        payload: Bytes,
        deadline: Instant,
    ) {
        if session == SessionKey::OWN && !self.clients.is_known(session) && !self.stopping {
            let nonce = self.rng.next_u64();
            self.clients.open(session, nonce, Order::Unordered, None);
        }
        let error = if self.stopping {
            ProposeError::Stopping { payload }
        } else if payload.len() > self.config.command_bytes_max {
            ProposeError::TooLarge { payload }
        } else if self.clients.entries() >= self.config.queue_entries_max
            || self.clients.bytes() + payload.len() > self.config.queue_bytes_max
        {
            ProposeError::Full { payload }
        } else if !self.clients.is_known(session) {
            ProposeError::NoSession { payload }
        } else {
            self.clients.enqueue(session, token, payload, deadline);
            return;
        };
        self.events.push(ReplicaEvent::Proposed { token, result: Err(error) });
    }

    fn on_read(&mut self, token: Token, query: Bytes, consistency: Consistency, deadline: Instant) {
        let error = if self.stopping {
            QueryError::Stopping
        } else if query.len() > self.config.command_bytes_max {
            QueryError::TooLarge
        } else if !self.reads_fit(query.len()) {
            QueryError::Full
        } else {
            let read = |mode| PendingRead::new(Asker::Local { token, deadline }, mode, query);
            match consistency {
                Consistency::Linearizable => self.reads.enqueue(read(ReadMode::Barrier)),
                Consistency::Lease => self.reads.enqueue(read(ReadMode::Lease)),
                Consistency::Local => self.served.push(read(ReadMode::Barrier)),
            }
            return;
        };
        self.events.push(ReplicaEvent::Read { token, result: Err(error) });
    }

    fn reads_fit(&self, bytes: usize) -> bool {
        self.reads.len() < self.config.queue_entries_max
            && self.reads.bytes() + bytes <= self.config.queue_bytes_max
    }

    fn on_close_session(&mut self, session: SessionKey) {
        // Without a leader this waits. Where too much does, the session ends by not being used instead.
        if let Some(client) = self.clients.close(session, &mut self.events)
            && self.incoming.len() < self.config.queue_entries_max
        {
            let nonce = self.rng.next_u64();
            self.incoming.push(Command {
                kind: Kind::Session,
                request: RequestId {
                    client: ClientId(0),
                    sequence: Sequence(nonce),
                    first_incomplete: Sequence(0),
                },
                payload: SessionOp::Close { client }.to_bytes(),
            });
        }
    }

    /// A peer hands proposals and queries on.
    fn on_forward(&mut self, from: NodeId, forward: Forward) {
        self.follow_route();
        let Forward { origin, hops_left, commands, queries } = forward;
        if origin == self.host.node() {
            self.counters.rejected += 1;
            return;
        }
        let commands = self.sound(origin, commands);
        for (route, forward) in self.seen.split(Forward { origin, hops_left, commands, queries }) {
            match route {
                Route::Here => self.take_in_all(forward),
                Route::Forward(to) if hops_left > 0 && to != from && to != origin => {
                    let hops_left = hops_left.min(FORWARD_HOPS) - 1;
                    self.host.send(to, Packet::Forward(Forward { hops_left, ..forward }));
                }
                Route::Forward(_) | Route::Hold => self.refuse_all(forward),
            }
        }
    }

    /// Takes what a peer handed on for the next flush.
    fn take_in_all(&mut self, forward: Forward) {
        let Forward { origin, commands, queries, .. } = forward;
        for command in commands {
            self.take_in(origin, command);
        }
        for ForwardedQuery { id, mode, query } in queries {
            if self.reads_fit(query.len()) {
                self.reads.enqueue(PendingRead::new(Asker::Remote { node: origin, id }, mode, query));
            } else {
                self.replies.entry(origin).or_default().queries.push((id, QueryOutcome::Refused));
            }
        }
    }

    /// Sends what a peer handed on back to it.
    fn refuse_all(&mut self, forward: Forward) {
        let Forward { origin, commands, queries, .. } = forward;
        let reply = self.replies.entry(origin).or_default();
        let refused = commands.iter().map(|command| &command.request);
        let refused = refused.map(|request| (request.client, request.sequence, RequestOutcome::Refused));
        reply.commands.extend(refused);
        reply.queries.extend(queries.iter().map(|query| (query.id, QueryOutcome::Refused)));
    }

    /// Takes a peer's command for the next flush, if there is room.
    fn take_in(&mut self, origin: NodeId, command: Command) {
        let (client, sequence) = (command.request.client, command.request.sequence);
        if let Some(known) = self.origins.get_mut(&(client, sequence)) {
            // Under way already, and held by the protocol: only its answer's way may have changed.
            *known = origin;
            return;
        }
        let bytes = self.incoming_bytes + command.payload.len();
        if self.origins.len() >= self.config.queue_entries_max || bytes > self.config.queue_bytes_max {
            let reply = self.replies.entry(origin).or_default();
            reply.commands.push((client, sequence, RequestOutcome::Refused));
            return;
        }
        self.counters.forwarded_in += 1;
        self.origins.insert((client, sequence), origin);
        self.incoming_bytes = bytes;
        self.incoming.push(command);
    }

    /// Drops what cannot be an entry, and answers what is too large for this replica.
    fn sound(&mut self, origin: NodeId, mut commands: Vec<Command>) -> Vec<Command> {
        commands.retain(|command| {
            let (client, sequence) = (command.request.client, command.request.sequence);
            if !matches!(command.kind, Kind::Command | Kind::Session)
                || (command.kind == Kind::Session) != (client == ClientId(0))
            {
                self.counters.rejected += 1;
                return false;
            }
            if command.payload.len() > self.config.command_bytes_max {
                let reply = self.replies.entry(origin).or_default();
                reply.commands.push((client, sequence, RequestOutcome::TooLarge));
                return false;
            }
            true
        });
        commands
    }

    /// The leader answers what this replica handed on.
    fn on_forward_reply(&mut self, now: Instant, reply: ForwardReply) {
        for (client, sequence, outcome) in reply.commands {
            self.conclude(now, client, sequence, outcome);
        }
        for (id, outcome) in reply.queries {
            if outcome == QueryOutcome::Refused {
                self.reads.put_off(now, self.retry_after, id);
            } else if let Some(asker) = self.reads.answered(id) {
                self.answer(asker, outcome);
            }
        }
    }

    // --- flush ---

    /// Does what the inputs since the last flush ask for, and says what the shell has to do.
    pub fn flush(&mut self, now: Instant, actions: &mut Actions<P::Message>, events: &mut Vec<ReplicaEvent>) {
        self.settle(now, actions);
        self.finish(now, actions, events);
    }

    /// First half of a flush: hands on what clients want, and asks for writes.
    ///
    /// A shell whose storage writes at once makes them durable now, tells [`Replica::persisted`], and so lets
    /// everything that waits for them leave with the second half. Other shells carry writes out afterwards.
    pub fn settle(&mut self, now: Instant, actions: &mut Actions<P::Message>) {
        if self.failed {
            return;
        }
        self.clients.expire(now, &mut self.events);
        self.reads.expire(now, &mut self.events);
        self.clients.retry(now);
        self.reads.retry(now);
        self.settle_snapshots(now);
        self.step_service(now);
        self.step_transfer(now);
        self.pump(now);
        self.host.settle(now, actions);
    }

    /// Second half of a flush, after [`Replica::settle`]: applies, answers, and says what else the shell has to
    /// do. It may ask for more writes if something became durable in between.
    pub fn finish(
        &mut self,
        now: Instant,
        actions: &mut Actions<P::Message>,
        events: &mut Vec<ReplicaEvent>,
    ) {
        if self.failed {
            return;
        }
        self.host.sort(now, actions, &mut self.log_events);
        self.take_log_events(now);
        let before = self.applied;
        if let Err(error) = self.take_over_snapshot(now).and_then(|()| self.apply(now)) {
            self.failed = true;
            self.events.push(ReplicaEvent::Fatal(error));
        } else {
            if self.applied > before {
                self.tell_applied(now);
            }
            self.serve_reads();
            self.finish_snapshots(now, &mut actions.snapshots);
        }
        while let Some((node, reply)) = self.replies.pop_first() {
            let reply = cut::shorten(reply, self.config.packet_bytes_max());
            for part in cut::reply(reply, self.config.batch_bytes_max) {
                self.host.send(node, Packet::ForwardReply(part));
            }
        }
        self.host.finish(actions);
        self.hosted.settle(&mut self.events);
        events.append(&mut self.events);
    }

    /// Hands what clients want to whoever takes it.
    fn pump(&mut self, now: Instant) {
        let Routes { commands, queries, .. } = self.seen;
        if commands == Route::Here {
            self.propose_here(now);
        }
        if queries == Route::Here {
            self.read_here(now);
        }
        match (commands, queries) {
            (Route::Forward(to), _) => self.forward_to(now, to, true, queries == commands),
            (_, Route::Forward(to)) => self.forward_to(now, to, false, true),
            _ => {}
        }
    }

    fn read_here(&mut self, now: Instant) {
        if self.hosted.queries_wait {
            return;
        }
        if self.reads.may_begin_barrier() {
            self.show_queries(now);
        }
        while self.reads.may_begin_barrier() {
            let (id, mode) = self.reads.begin_barrier();
            self.counters.barriers += 1;
            self.host.step(now, Input::Call(LogCall::Read { id, mode }));
        }
    }

    fn propose_here(&mut self, now: Instant) {
        if self.full_until.is_some_and(|until| until > now) {
            return;
        }
        self.full_until = None;
        let mut commands = self.take_incoming();
        // The protocol holds what it does not refuse: nothing is lost on the way.
        let mut room = self.room(None);
        self.clients.collect(&mut room, &mut commands);
        if !commands.is_empty() {
            self.host.step(now, Input::Call(LogCall::Propose(commands)));
        }
    }

    fn forward_to(&mut self, now: Instant, leader: NodeId, with_commands: bool, with_queries: bool) {
        let mut commands = Vec::new();
        if with_commands {
            commands = self.take_incoming();
            let mut room = self.room(Some(now + self.retry_after));
            self.clients.collect(&mut room, &mut commands);
        }
        let mut queries = Vec::new();
        let mut strangers = Vec::new();
        if with_queries {
            let bounds = (self.config.batch_entries_max, self.config.batch_bytes_max);
            self.reads.forward(now + self.retry_after, bounds, &mut queries, &mut strangers);
        }
        for (node, id) in strangers {
            self.replies.entry(node).or_default().queries.push((id, QueryOutcome::Refused));
        }
        if !commands.is_empty() || !queries.is_empty() {
            self.counters.forwarded_out += commands.len() as u64;
            let origin = self.host.node();
            let forward = Forward { origin, hops_left: FORWARD_HOPS, commands, queries };
            for part in cut::forward(forward, self.config.batch_bytes_max) {
                self.host.send(leader, Packet::Forward(part));
            }
        }
    }

    fn take_incoming(&mut self) -> Vec<Command> {
        self.incoming_bytes = 0;
        std::mem::take(&mut self.incoming)
    }

    fn room(&self, again_at: Option<Instant>) -> Room {
        Room {
            node: self.host.node(),
            incarnation: self.host.incarnation(),
            again_at,
            entries: self.config.batch_entries_max,
            bytes: self.config.batch_bytes_max,
        }
    }

    /// When proposals go another way than before, everything under way is proposed again.
    fn follow_route(&mut self) {
        let now = Routes::of(self.host.machine());
        if now != self.seen {
            // A leader that hands over, or has stopped trying to, still holds what it has not refused.
            let goes_on = now.reign == self.seen.reign && now.reign.leader == self.host.node();
            self.seen = now;
            self.full_until = None;
            if goes_on {
                return;
            }
            // What peers handed on under the old route finds the new leader by its origin's retries.
            let origins = std::mem::take(&mut self.origins);
            self.incoming.retain(|c| !origins.contains_key(&(c.request.client, c.request.sequence)));
            self.clients.propose_all_again();
            self.reads.recall_forwarded();
        }
    }

    fn take_log_events(&mut self, now: Instant) {
        if self.log_events.is_empty() {
            return;
        }
        let mut events = std::mem::take(&mut self.log_events);
        for event in events.drain(..) {
            match event {
                LogEvent::Decided(index) => {
                    assert!(index >= self.decided, "decided never goes back: {index} after {}", self.decided);
                    self.decided = index;
                    self.full_until = None;
                }
                LogEvent::ReadReady { id, index } => self.reads.ready(id, index),
                LogEvent::ReadFailed { id, .. } => self.reads.failed(now, self.retry_after, id),
                LogEvent::Refused { command, why } => self.on_refused(now, command, why),
                LogEvent::TransferFailed { why } => self.end_transfer(Err(why.into())),
                LogEvent::SendSnapshot { to } => self.on_send_snapshot(now, to),
                LogEvent::DiscardSnapshot(id) => self.on_discard_snapshot(id),
                LogEvent::Role(_) => {
                    self.events.push(ReplicaEvent::StatusChanged);
                    self.follow_route();
                    self.check_transfer();
                }
            }
        }
        self.log_events = events;
    }

    fn on_refused(&mut self, now: Instant, command: Command, why: Refusal) {
        let RequestId { client, sequence, .. } = command.request;
        let origin = self.origins.get(&(client, sequence)).copied();
        match (why, origin) {
            (Refusal::Full, _) => {
                self.full_until = Some(now + self.retry_after / 8);
                // A peer's command keeps its place before those of this replica's own clients, which would
                // otherwise fill every gap before the peer asks again.
                if origin.is_some() || !self.clients.refused(client, sequence) {
                    self.incoming_bytes += command.payload.len();
                    self.incoming.push(command);
                }
            }
            (_, Some(origin)) => {
                self.origins.remove(&(client, sequence));
                let too_large = why == Refusal::TooLarge;
                let outcome = if too_large { RequestOutcome::TooLarge } else { RequestOutcome::Refused };
                self.replies.entry(origin).or_default().commands.push((client, sequence, outcome));
            }
            (Refusal::TooLarge, None) => self.conclude(now, client, sequence, RequestOutcome::TooLarge),
            (_, None) => {
                self.clients.put_off(now, client, sequence);
            }
        }
    }

    // --- apply ---

    fn apply(&mut self, now: Instant) -> Result<(), ReplicaError> {
        while let Some((id, answer)) = self.host.take_owner_answer() {
            if self.backlog_load == Some(id) {
                self.backlog_load = None;
                for segment in answer.map_err(|_| ReplicaError::Compacted)?.segments {
                    self.backlog.put(segment);
                }
                let next = self.applied.next();
                if self.backlog.get(next).is_none() && self.host.run_from(next).is_empty() {
                    return Err(ReplicaError::Missing { index: next });
                }
            }
        }
        let mut left = self.config.apply_entries_max;
        while self.applied < self.decided && left > 0 {
            let wanted = IndexRange::new(self.applied.next(), self.decided.next());
            let mut run = self.host.run_from(wanted.from);
            if run.is_empty() {
                run = self.backlog.run_from(wanted.from);
            }
            if run.len() > left || run.last_index() > self.decided {
                run = run.slice(wanted).prefix(left, usize::MAX);
            }
            if run.is_empty() {
                if self.backlog_load.is_none() {
                    let id = self.host.load(wanted, self.config.tail_bytes_max.max(1));
                    self.backlog_load = Some(id);
                }
                break;
            }
            left -= run.len();
            self.apply_run(now, &run)?;
            self.backlog.evict_to(self.applied, 0);
        }
        Ok(())
    }

    /// Applies consecutive decided entries, the first of which is the next one.
    fn apply_run(&mut self, now: Instant, run: &Entries) -> Result<(), ReplicaError> {
        assert_eq!(run.first_index(), self.applied.next(), "entries are applied in order, once");
        let mut batch: Vec<Applied<'_>> = emptied(std::mem::take(&mut self.batch));
        batch.reserve(run.len());
        let mut bytes = 0;
        for entry in run.iter() {
            bytes += entry.payload.len();
            match entry.kind {
                Kind::Command => match self.sessions.judge(entry.index, entry.request) {
                    Verdict::Apply => batch.push(Applied {
                        index: entry.index,
                        reign: entry.reign,
                        request: entry.request,
                        payload: &entry.payload,
                    }),
                    verdict => self.on_not_applied(now, entry.request, verdict),
                },
                Kind::Session => self.on_session_entry(entry.index, entry.request, &entry.payload),
                kind if !kind.is_decidable() => return Err(ReplicaError::Undecidable { index: entry.index }),
                Kind::Noop | Kind::Membership | Kind::Private(_) => {}
            }
        }
        self.applied = run.last_index();
        self.applied_reign = run.last().map_or(self.applied_reign, |entry| entry.reign);
        self.snapshots.bytes_since += bytes;
        self.counters.applied += batch.len() as u64;
        self.state_machine.apply(&batch, &mut self.outputs)?;
        if self.outputs.len() != batch.len() {
            return Err(ReplicaError::Replies { commands: batch.len(), replies: self.outputs.len() });
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        for (applied, reply) in batch.iter().zip(outputs.drain()) {
            self.sessions.store(applied.request, &reply);
            self.conclude_applied(applied.request.client, applied.request.sequence, reply);
        }
        self.outputs = outputs;
        self.batch = emptied(batch);
        Ok(())
    }

    fn on_session_entry(&mut self, index: LogIndex, request: RequestId, payload: &Bytes) {
        // An entry that does not decode was decided all the same, and changes nothing on any replica.
        let Ok(op) = SessionOp::from_bytes(payload.clone()) else {
            self.origins.remove(&(ClientId(0), request.sequence));
            return;
        };
        match op {
            SessionOp::Open { order, node, incarnation } => {
                let opener = Opener { node, incarnation, nonce: request.sequence.0 };
                let client = self.sessions.open(index, opener, order);
                // A nonce may come up twice; node and life make it unique.
                let mine = node == self.host.node() && incarnation == self.host.incarnation();
                if !(mine && self.clients.opened(request.sequence.0, client, &mut self.events))
                    && let Some(origin) = self.origins.remove(&(ClientId(0), request.sequence))
                {
                    let id = Bytes::copy_from_slice(&client.0.to_le_bytes());
                    let reply = self.replies.entry(origin).or_default();
                    reply.commands.push((ClientId(0), request.sequence, RequestOutcome::Applied(id)));
                }
            }
            SessionOp::Close { client } => {
                // Nobody waits for the end of a session.
                self.origins.remove(&(ClientId(0), request.sequence));
                self.sessions.close(client);
            }
        }
    }

    fn on_not_applied(&mut self, now: Instant, request: RequestId, verdict: Verdict) {
        let outcome = match verdict {
            Verdict::Apply | Verdict::Known(None) => return,
            Verdict::Known(Some(reply)) => {
                self.counters.duplicates += 1;
                RequestOutcome::Applied(reply)
            }
            Verdict::Settled => {
                self.counters.duplicates += 1;
                self.origins.remove(&(request.client, request.sequence));
                return;
            }
            Verdict::Expired => {
                self.counters.expired += 1;
                RequestOutcome::SessionExpired
            }
            Verdict::OutOfOrder => {
                self.counters.out_of_order += 1;
                RequestOutcome::OutOfOrder
            }
            Verdict::BeyondWindow => {
                self.counters.beyond_window += 1;
                RequestOutcome::BeyondWindow
            }
        };
        self.conclude_for_peer(request.client, request.sequence, &outcome);
        self.conclude(now, request.client, request.sequence, outcome);
    }

    fn conclude_applied(&mut self, client: ClientId, sequence: Sequence, reply: Bytes) {
        if !self.origins.is_empty() {
            self.conclude_for_peer(client, sequence, &RequestOutcome::Applied(reply.clone()));
        }
        if let Some(token) = self.clients.complete(client, sequence) {
            self.events.push(ReplicaEvent::Proposed { token, result: Ok(reply) });
        }
    }

    /// Tells the peer that handed a command on, if one did. Its client may have moved here meanwhile.
    fn conclude_for_peer(&mut self, client: ClientId, sequence: Sequence, outcome: &RequestOutcome) {
        if let Some(origin) = self.origins.remove(&(client, sequence)) {
            self.replies.entry(origin).or_default().commands.push((client, sequence, outcome.clone()));
        }
    }

    /// Tells a client of this replica what became of its command.
    fn conclude(&mut self, now: Instant, client: ClientId, sequence: Sequence, outcome: RequestOutcome) {
        match outcome {
            RequestOutcome::Applied(reply) if client == ClientId(0) => {
                if let Some(id) = reply.first_chunk::<8>() {
                    let opened = ClientId(u64::from_le_bytes(*id));
                    self.clients.opened(sequence.0, opened, &mut self.events);
                }
            }
            RequestOutcome::Applied(reply) => {
                if let Some(token) = self.clients.complete(client, sequence) {
                    self.events.push(ReplicaEvent::Proposed { token, result: Ok(reply) });
                }
            }
            RequestOutcome::ReplyTooLong => {
                if let Some(token) = self.clients.complete(client, sequence) {
                    let result = Err(ProposeError::ReplyTooLong);
                    self.events.push(ReplicaEvent::Proposed { token, result });
                }
            }
            RequestOutcome::SessionExpired => {
                let nonce = self.rng.next_u64();
                self.clients.expired(client, nonce, &mut self.events);
            }
            RequestOutcome::OutOfOrder => {
                self.clients.out_of_order(now, client, sequence);
            }
            RequestOutcome::TooLarge => {
                let error = |payload| ProposeError::TooLarge { payload };
                self.clients.fail(client, sequence, error, &mut self.events);
            }
            // Retried under the same id after a while: by then earlier commands are settled, or somebody leads.
            RequestOutcome::BeyondWindow | RequestOutcome::Refused => {
                self.clients.put_off(now, client, sequence);
            }
        }
    }

    // --- reads ---

    fn serve_reads(&mut self) {
        self.reads.take_served(self.applied, &mut self.served);
        if self.served.is_empty() {
            return;
        }
        let mut served = std::mem::take(&mut self.served);
        for read in served.drain(..) {
            let outcome = match self.state_machine.query(&read.query) {
                Ok(answer) => QueryOutcome::Answer(answer),
                Err(error) => QueryOutcome::Failed(Bytes::from(error.to_string())),
            };
            self.answer(read.asker, outcome);
        }
        self.served = served;
    }

    fn answer(&mut self, asker: Asker, outcome: QueryOutcome) {
        match asker {
            Asker::Remote { node, id } => self.replies.entry(node).or_default().queries.push((id, outcome)),
            Asker::Local { token, .. } => {
                let result = match outcome {
                    QueryOutcome::Answer(answer) => Ok(answer),
                    QueryOutcome::Failed(why) => {
                        Err(QueryError::StateMachine { message: String::from_utf8_lossy(&why).into_owned() })
                    }
                    QueryOutcome::Refused => Err(QueryError::TimedOut),
                };
                self.events.push(ReplicaEvent::Read { token, result });
            }
        }
    }

    // --- what a shell may ask ---

    /// True if a flush would do something although no input came.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let commands = self.clients.has_pending() || !self.incoming.is_empty();
        let proposes = match self.seen.commands {
            Route::Here => commands && self.full_until.is_none(),
            Route::Forward(_) => commands,
            Route::Hold => false,
        };
        let reads = match self.seen.queries {
            Route::Here => self.reads.may_begin_barrier() && !self.hosted.queries_wait,
            Route::Forward(_) => self.reads.has_waiting(),
            Route::Hold => false,
        };
        let routed = proposes || reads;
        let behind = self.applied < self.decided && self.backlog_load.is_none();
        let to_ask = self.transfer.is_some_and(|transfer| !transfer.is_asked());
        !self.failed && (self.host.has_work() || routed || behind || to_ask || !self.served.is_empty())
    }

    /// When to call [`Replica::tick`] and flush.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let mine = Instant::earlier(self.clients.next_deadline(), self.reads.next_deadline());
        let theirs = Instant::earlier(self.host.next_deadline(), self.full_until);
        let theirs = Instant::earlier(theirs, self.snapshots.deadline(self.applied));
        let mine = Instant::earlier(mine, self.transfer.map(|transfer| transfer.deadline));
        Instant::earlier(Instant::earlier(mine, theirs), self.hosted.deadline)
    }

    /// How the replica stands.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            protocol: self.host.machine().status(),
            applied: self.applied,
            incarnation: self.host.incarnation(),
            sessions: self.sessions.len(),
            session_reply_bytes: self.sessions.reply_bytes(),
            snapshot: self.snapshots.index(),
        }
    }

    /// True if no call of a client is open.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.clients.entries() == 0
            && self.reads.len() == 0
            && self.served.is_empty()
            && self.transfer.is_none()
    }

    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> &P {
        self.host.machine()
    }

    /// The state machine.
    #[must_use]
    pub fn state_machine(&self) -> &S {
        &self.state_machine
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { host: self.host.counters(), snapshots: self.snapshots.counters(), ..self.counters }
    }

    /// What the write-through tail holds, in bytes.
    #[must_use]
    pub fn tail_weight(&self) -> usize {
        self.host.tail_weight()
    }

    /// Messages that wait for writes, to whichever peer the most of them do.
    #[must_use]
    pub fn held_messages(&self) -> usize {
        self.host.held_messages()
    }

    /// Lets `probe` see every single step of the protocol from now on.
    pub fn set_probe(&mut self, probe: Box<dyn Probe<P>>) {
        self.host.set_probe(probe);
    }
}

/// Replicas that were given one seed, and lives of one replica, draw different numbers.
fn generator(seed: u64, node: NodeId, incarnation: Incarnation) -> Xoshiro256PlusPlus {
    let mixed = [node.0, incarnation.0].into_iter().fold(seed, |mixed, part| {
        let product = (mixed ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        product ^ (product >> 32)
    });
    Xoshiro256PlusPlus::seed_from_u64(mixed)
}

/// An empty vector for another lifetime in the memory of `batch`: collecting in place keeps the allocation.
fn emptied<'b>(mut batch: Vec<Applied<'_>>) -> Vec<Applied<'b>> {
    batch.clear();
    batch.into_iter().map(|_| -> Applied<'b> { unreachable!("the batch is empty") }).collect()
}
