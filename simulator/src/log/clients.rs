//! The clients of the full replica: what they ask, what they are told, and the history of both.

use bytes::Bytes;
use synod_checker as checker;
use synod_checker::{KeyId, Nanos, Recorder, Ticket, ValueId};
use synod_core::{ClientId, Instant, Sequence};
use synod_replica::{
    ClientCall, Consistency, Order, ProposeError, QueryError, ReplicaEvent, SessionKey, Token,
};

use super::registers;
use crate::clock::{SECOND, Time};
use crate::observer::once::{AppliedOnce, End};
use crate::observer::{Checked, violation};
use crate::options::ClientOptions;
use crate::rare::{Rare, RareCounts};
use crate::rng::{Chance, Rng};
use crate::subject::{Agenda, NodeView};

/// All clients of a seed, and what they were told.
pub(crate) struct Clients {
    options: ClientOptions,
    patience: Time,
    clients: Vec<Client>,
    /// Clients have one command open at a time, know its number, and take it elsewhere when its node is gone.
    resume: bool,
    attempts: Vec<Attempt>,
    /// Open attempts of each node.
    open: Vec<Vec<u64>>,
    ops: Vec<Op>,
    recorders: Vec<Recorder>,
    keys_given: u64,
    pub(crate) once: AppliedOnce,
    pub(crate) rare: RareCounts,
    pub(crate) ended: u64,
    healing: Option<Healing>,
}

struct Client {
    node: usize,
    /// How often it reads. Some only read: a client that also writes is soon stuck at a leader that is cut off.
    reads: Chance,
    session: Session,
    /// Attempts that wait.
    open: u32,
    /// It waits for an answer before it acts again.
    blocked: bool,
    /// It was refused: it waits longer than usual before it asks again.
    rest: bool,
    /// An operation of unknown outcome, to be proposed again under the same number.
    again: Option<u64>,
    answers_after_heal: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    /// The replica's own.
    Own,
    /// It wants one of its own.
    Wanted,
    Opening,
    Open {
        key: SessionKey,
        client: ClientId,
        order: Order,
        /// The number of the next command; kept only by clients with one command open at a time.
        next: u64,
        /// False: opened through a node that is gone, or another one than the client's.
        attached: bool,
    },
}

struct Attempt {
    client: u32,
    node: usize,
    what: What,
    /// When it must have been answered, on the node's clock.
    deadline: Instant,
    /// When the node took it up, on its clock: one that sleeps has not yet.
    taken: Option<Instant>,
    is_open: bool,
}

#[derive(Debug)]
enum What {
    Put { op: u64 },
    Empty,
    Get { ticket: Ticket },
    LocalGet { register: u8 },
    OpenSession { key: SessionKey, order: Order },
}

struct Op {
    client: u32,
    payload: Bytes,
    /// Taken when the operation ends.
    ticket: Option<Ticket>,
    attempts: u32,
    /// It has an attempt whose outcome is unknown.
    doubtful: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Healing {
    /// Attempts below this one must be answered.
    attempts: u64,
    puts: u64,
    gets: u64,
}

/// Puts that must succeed after faults have ended.
const HEALED_PUTS: u64 = 5;
/// Answers that each client must get after faults have ended.
const HEALED_ANSWERS: u32 = 3;

impl Clients {
    pub(crate) fn new(options: ClientOptions, patience: Time, replicas: usize, rng: &mut Rng) -> Clients {
        let clients = (0..options.clients)
            .map(|_| Client {
                node: rng.index(replicas),
                reads: rng.pick(&[options.reads, options.reads, Chance::percent(5), Chance::percent(100)]),
                session: if rng.chance(options.own_sessions) { Session::Wanted } else { Session::Own },
                open: 0,
                blocked: false,
                rest: false,
                again: None,
                answers_after_heal: 0,
            })
            .collect();
        Clients {
            patience,
            clients,
            resume: options.open_max == 1,
            attempts: Vec::new(),
            open: vec![Vec::new(); replicas],
            ops: Vec::new(),
            recorders: (0..options.clients).map(|client| Recorder::new(checker::ClientId(client))).collect(),
            keys_given: 0,
            once: AppliedOnce::default(),
            rare: RareCounts::default(),
            ended: 0,
            healing: None,
            options,
        }
    }

    // --- what they ask ---

    pub(crate) fn wake(
        &mut self,
        at: Time,
        client: u32,
        nodes: &[NodeView],
        rng: &mut Rng,
        agenda: &mut Agenda,
    ) -> Vec<(usize, ClientCall)> {
        let mut calls = Vec::new();
        if !self.find_node(client, nodes, rng) {
            agenda.wakes.push((at + 1 + rng.below(self.patience), client));
            return calls;
        }
        let me = &mut self.clients[client as usize];
        if me.open >= self.options.open_max {
            me.blocked = true;
            return calls;
        }
        let node = me.node;
        let now = nodes[node].clock.read(at);
        let timeout = if self.healing.is_some() {
            30 * SECOND
        } else {
            rng.between(self.options.timeout_min, self.options.timeout_max)
        };
        let deadline = Instant(now.0 + timeout);
        if me.session == Session::Wanted && self.healing.is_some() {
            me.session = Session::Own;
        }
        match me.session {
            Session::Opening => {}
            Session::Wanted => {
                let order = if rng.coin() { Order::Ordered } else { Order::Unordered };
                self.keys_given += 1;
                let session = SessionKey(self.keys_given);
                self.clients[client as usize].session = Session::Opening;
                let token = self.attempt(client, node, What::OpenSession { key: session, order }, deadline);
                calls.push((node, ClientCall::OpenSession { session, token, order, deadline }));
            }
            Session::Open { key, .. }
                if me.again.is_none() && me.open == 0 && rng.chance(self.options.renew) =>
            {
                me.session = Session::Wanted;
                calls.push((node, ClientCall::CloseSession { session: key }));
            }
            Session::Own | Session::Open { .. } => self.ask(at, client, deadline, rng, &mut calls),
        }
        let me = &mut self.clients[client as usize];
        if me.open >= self.options.open_max || me.session == Session::Opening {
            me.blocked = true;
        } else {
            let rest = if std::mem::take(&mut me.rest) { self.patience / 4 } else { 0 };
            agenda.wakes.push((at + 1 + rest + rng.exponential(self.options.think_mean), client));
        }
        calls
    }

    /// Turns to another node if its own is gone, or now and then. False if nobody is there.
    fn find_node(&mut self, client: u32, nodes: &[NodeView], rng: &mut Rng) -> bool {
        let me = &mut self.clients[client as usize];
        let usable = |node: usize| nodes[node].up && nodes[node].open;
        if usable(me.node) && (me.open > 0 || !rng.chance(self.options.roam)) {
            return true;
        }
        // Who looks for a leader believes whoever says that it leads, also one that has been replaced.
        let wants_leader = rng.coin();
        let first = rng.index(nodes.len());
        let mut around = (0..nodes.len()).map(|step| (first + step) % nodes.len());
        let found = around.clone().find(|node| usable(*node) && nodes[*node].leads && wants_leader);
        let Some(node) = found.or_else(|| around.find(|node| usable(*node))) else { return false };
        if node != me.node || !usable(me.node) {
            me.node = node;
            match &mut me.session {
                Session::Open { attached, .. } if self.resume => *attached = false,
                Session::Open { .. } => me.session = Session::Wanted,
                Session::Own | Session::Wanted | Session::Opening => {}
            }
        }
        true
    }

    fn ask(
        &mut self,
        at: Time,
        client: u32,
        deadline: Instant,
        rng: &mut Rng,
        calls: &mut Vec<(usize, ClientCall)>,
    ) {
        let node = self.clients[client as usize].node;
        if let Session::Open { client: id, order, next, attached: attached @ false, key } =
            &mut self.clients[client as usize].session
        {
            self.keys_given += 1;
            *key = SessionKey(self.keys_given);
            *attached = true;
            let (session, client, next) = (*key, *id, Sequence(*next));
            calls.push((node, ClientCall::AttachSession { session, client, order: *order, next }));
        }
        let me = &mut self.clients[client as usize];
        if let Some(op) = me.again.take() {
            self.propose(client, op, deadline, calls);
            return;
        }
        let register = rng.index(self.options.keys as usize) as u8;
        let reads =
            if self.healing.is_some() { Chance::percent(50) } else { self.clients[client as usize].reads };
        if rng.chance(reads) {
            let local = rng.chance(self.options.local_reads);
            let (what, consistency) = if local {
                (What::LocalGet { register }, Consistency::Local)
            } else {
                let ticket = self.recorders[client as usize].get(KeyId(u32::from(register)), Nanos(at));
                let leased =
                    self.options.lease_reads != Chance::NEVER && rng.chance(self.options.lease_reads);
                let consistency = if leased { Consistency::Lease } else { Consistency::Linearizable };
                (What::Get { ticket }, consistency)
            };
            let token = self.attempt(client, node, what, deadline);
            let query = registers::read_query(register);
            calls.push((node, ClientCall::Read { token, query, consistency, deadline }));
            return;
        }
        if rng.chance(self.options.odd_size) && rng.coin() {
            let session = self.session_key(client);
            self.step_number(client);
            let token = self.attempt(client, node, What::Empty, deadline);
            calls.push((node, ClientCall::Propose { session, token, payload: Bytes::new(), deadline }));
            return;
        }
        let filling = if rng.chance(self.options.odd_size) {
            rng.log_between(64, 2 * self.options.command_bytes_max as u64) as usize
        } else {
            rng.index(24)
        };
        let op = self.once.issue();
        let ticket = self.recorders[client as usize].put(KeyId(u32::from(register)), ValueId(op), Nanos(at));
        let payload = registers::write_payload(op, register, filling);
        self.ops.push(Op { client, payload, ticket: Some(ticket), attempts: 0, doubtful: false });
        if let Session::Open { client: id, order: Order::Ordered, .. } = self.clients[client as usize].session
        {
            self.once.issue_ordered(id, op);
            if self.clients[client as usize].open > 0 {
                self.rare[Rare::OrderedPipelined] += 1;
            }
        }
        self.propose(client, op, deadline, calls);
    }

    fn propose(&mut self, client: u32, op: u64, deadline: Instant, calls: &mut Vec<(usize, ClientCall)>) {
        let node = self.clients[client as usize].node;
        let session = self.session_key(client);
        let known = &mut self.ops[op as usize];
        known.attempts += 1;
        if known.attempts > 1 {
            self.rare[Rare::ProposedElsewhere] += 1;
        }
        let payload = known.payload.clone();
        let token = self.attempt(client, node, What::Put { op }, deadline);
        calls.push((node, ClientCall::Propose { session, token, payload, deadline }));
    }

    fn session_key(&self, client: u32) -> SessionKey {
        match self.clients[client as usize].session {
            Session::Open { key, .. } => key,
            _ => SessionKey::OWN,
        }
    }

    /// A command of the client's session ended, or will end without being asked for again.
    fn step_number(&mut self, client: u32) {
        if let Session::Open { next, .. } = &mut self.clients[client as usize].session {
            *next += 1;
        }
    }

    fn attempt(&mut self, client: u32, node: usize, what: What, deadline: Instant) -> Token {
        let token = self.attempts.len() as u64;
        self.attempts.push(Attempt { client, node, what, deadline, taken: None, is_open: true });
        self.open[node].push(token);
        self.clients[client as usize].open += 1;
        Token(token)
    }

    // --- what they are told ---

    pub(crate) fn on_event(
        &mut self,
        at: Time,
        node: usize,
        leads: bool,
        event: ReplicaEvent,
        applied: u64,
        agenda: &mut Agenda,
    ) -> Checked {
        agenda.note(node, || describe_event(&event));
        match event {
            ReplicaEvent::Proposed { token, result } => {
                self.close(at, node, token, agenda)?;
                self.on_proposed(at, token, result)
            }
            ReplicaEvent::Read { token, result } => {
                self.close(at, node, token, agenda)?;
                self.on_read(at, node, leads, token, result, applied)
            }
            ReplicaEvent::SessionOpened { token, result } => {
                self.close(at, node, token, agenda)?;
                self.on_opened(node, token, result);
                Ok(())
            }
            ReplicaEvent::StatusChanged | ReplicaEvent::Transferred { .. } => Ok(()),
            ReplicaEvent::Fatal(error) => Err(violation("fatal", format!("n{} stops: {error}", node + 1))),
        }
    }

    /// An attempt was answered: exactly once, and by the node that was asked.
    fn close(&mut self, at: Time, node: usize, token: Token, agenda: &mut Agenda) -> Checked {
        let Some(attempt) = self.attempts.get_mut(token.0 as usize) else {
            return Err(violation(
                "answers",
                format!("n{} answers call {}, which nobody made", node + 1, token.0),
            ));
        };
        if !attempt.is_open || attempt.node != node {
            return Err(violation("answers", format!("n{} answers call {} again", node + 1, token.0)));
        }
        attempt.is_open = false;
        let client = attempt.client;
        let open = &mut self.open[node];
        if let Some(position) = open.iter().position(|other| *other == token.0) {
            open.swap_remove(position);
        }
        self.ended += 1;
        self.release(at, client, agenda);
        Ok(())
    }

    fn release(&mut self, at: Time, client: u32, agenda: &mut Agenda) {
        let me = &mut self.clients[client as usize];
        // What it left behind at a node that takes no part any more is not counted.
        me.open = me.open.saturating_sub(1);
        if self.healing.is_some() {
            me.answers_after_heal += 1;
        }
        if std::mem::take(&mut me.blocked) {
            agenda.wakes.push((at + 1 + self.options.think_mean / 2, client));
        }
    }

    fn on_proposed(&mut self, at: Time, token: Token, result: Result<Bytes, ProposeError>) -> Checked {
        let attempt = &self.attempts[token.0 as usize];
        let client = attempt.client;
        let op = match attempt.what {
            What::Put { op } => op,
            What::Empty => return self.on_empty(at, client, result),
            _ => return Err(violation("answers", format!("call {} was no proposal", token.0))),
        };
        match result {
            Ok(reply) => {
                self.step_number(client);
                self.end(at, op, End::Done)?;
                if let Some(healing) = &mut self.healing {
                    healing.puts += 1;
                }
                let position = self.once.position(op).unwrap_or_default();
                if reply == registers::reply(op, position) {
                    return Ok(());
                }
                Err(violation("CL7", format!("operation {op} was answered with the reply to another")))
            }
            Err(ProposeError::Unknown) => {
                self.rare[Rare::Unknown] += 1;
                let me = &mut self.clients[client as usize];
                if self.resume
                    && let Session::Open { attached, .. } = &mut me.session
                {
                    *attached = false;
                    me.again = Some(op);
                    self.ops[op as usize].doubtful = true;
                    return Ok(());
                }
                self.end(at, op, End::GivenUp)
            }
            Err(ProposeError::SessionExpired) => {
                self.rare[Rare::SessionExpired] += 1;
                self.lose_session(at, client)?;
                self.end(at, op, End::GivenUp)
            }
            Err(refused) => self.on_refused(at, client, op, refused),
        }
    }

    /// Surely without effect, as far as this attempt goes.
    fn on_refused(&mut self, at: Time, client: u32, op: u64, refused: ProposeError) -> Checked {
        let rare = match &refused {
            ProposeError::Full { .. } => Some(Rare::QueueFull),
            ProposeError::TooLarge { .. } => Some(Rare::TooLarge),
            ProposeError::TimedOut { .. } => Some(Rare::TimedOut),
            _ => None,
        };
        if let Some(rare) = rare {
            self.rare[rare] += 1;
        }
        if rare == Some(Rare::QueueFull) {
            self.clients[client as usize].rest = true;
        }
        // Whether it took a number is not known here.
        if matches!(refused, ProposeError::TimedOut { .. } | ProposeError::NoSession { .. }) {
            self.lose_session(at, client)?;
        }
        let known = &self.ops[op as usize];
        if let ProposeError::Full { payload }
        | ProposeError::TooLarge { payload }
        | ProposeError::TimedOut { payload }
        | ProposeError::Stopping { payload }
        | ProposeError::NoSession { payload } = refused
            && payload != known.payload
        {
            return Err(violation("answers", format!("operation {op} was handed back as something else")));
        }
        if !known.doubtful {
            return self.end(at, op, End::Failed);
        }
        let me = &mut self.clients[client as usize];
        if matches!(me.session, Session::Open { .. }) {
            me.again = Some(op);
            return Ok(());
        }
        self.end(at, op, End::GivenUp)
    }

    fn on_empty(&mut self, at: Time, client: u32, result: Result<Bytes, ProposeError>) -> Checked {
        match result {
            Ok(reply) if reply.is_empty() => Ok(()),
            Ok(_) => Err(violation("CL7", "an empty command was answered with the reply to another")),
            Err(_) => self.lose_session(at, client),
        }
    }

    /// The client gives its session up, and with it what it meant to propose again.
    fn lose_session(&mut self, at: Time, client: u32) -> Checked {
        let me = &mut self.clients[client as usize];
        if matches!(me.session, Session::Open { .. }) {
            me.session = Session::Wanted;
        }
        match me.again.take() {
            Some(op) => self.end(at, op, End::GivenUp),
            None => Ok(()),
        }
    }

    /// The client knows as much as it will ever know.
    fn end(&mut self, at: Time, op: u64, end: End) -> Checked {
        let known = &mut self.ops[op as usize];
        if let Some(ticket) = known.ticket.take() {
            let recorder = &mut self.recorders[known.client as usize];
            match end {
                End::Done => recorder.put_ok(ticket, Nanos(at)),
                End::Failed => recorder.failed(ticket, Nanos(at)),
                _ => recorder.unknown(ticket, Nanos(at)),
            }
        }
        self.once.ended(op, end)
    }

    fn on_read(
        &mut self,
        at: Time,
        node: usize,
        leads: bool,
        token: Token,
        result: Result<Bytes, QueryError>,
        applied: u64,
    ) -> Checked {
        let attempt = &mut self.attempts[token.0 as usize];
        let recorder = &mut self.recorders[attempt.client as usize];
        match std::mem::replace(&mut attempt.what, What::Empty) {
            What::Get { ticket } => match result {
                Ok(answer) => {
                    recorder.get_ok(ticket, registers::read_answer(&answer).map(ValueId), Nanos(at));
                    self.rare[Rare::ReadConfirmed] += 1;
                    if !leads {
                        self.rare[Rare::FollowerRead] += 1;
                    }
                    if let Some(healing) = &mut self.healing {
                        healing.gets += 1;
                    }
                }
                Err(error) => {
                    recorder.failed(ticket, Nanos(at));
                    self.rare[Rare::ReadFailed] += 1;
                    self.clients[attempt.client as usize].rest = error == QueryError::Full;
                }
            },
            What::LocalGet { register } => {
                let seen = result.ok().and_then(|answer| registers::read_answer(&answer));
                let is_there = |op: u64| self.once.position(op).is_some_and(|position| position < applied);
                if seen.is_some_and(|op| !is_there(op)) {
                    let what = format!("n{} shows for register {register} what it has not applied", node + 1);
                    return Err(violation("CL1", what));
                }
            }
            _ => return Err(violation("answers", format!("call {} was no read", token.0))),
        }
        Ok(())
    }

    fn on_opened(&mut self, node: usize, token: Token, result: Result<ClientId, ProposeError>) {
        let attempt = &self.attempts[token.0 as usize];
        let What::OpenSession { key, order } = attempt.what else { return };
        let me = &mut self.clients[attempt.client as usize];
        me.session = match result {
            Ok(client) => Session::Open { key, client, order, next: 1, attached: me.node == node },
            Err(_) => Session::Wanted,
        };
    }

    /// A node is gone, and with it every answer it owed.
    pub(crate) fn crashed(&mut self, at: Time, node: usize, agenda: &mut Agenda) -> Checked {
        for token in std::mem::take(&mut self.open[node]) {
            let attempt = &mut self.attempts[token as usize];
            attempt.is_open = false;
            let client = attempt.client;
            match std::mem::replace(&mut attempt.what, What::Empty) {
                What::Put { op } => {
                    let me = &mut self.clients[client as usize];
                    if self.resume && matches!(me.session, Session::Open { .. }) {
                        me.again = Some(op);
                        self.ops[op as usize].doubtful = true;
                    } else {
                        self.end(at, op, End::Orphaned)?;
                    }
                }
                What::Get { ticket } => self.recorders[client as usize].failed(ticket, Nanos(at)),
                What::OpenSession { .. } => self.clients[client as usize].session = Session::Wanted,
                What::Empty => self.lose_session(at, client)?,
                What::LocalGet { .. } => {}
            }
            self.release(at, client, agenda);
        }
        for me in self.clients.iter_mut().filter(|me| me.node == node) {
            match &mut me.session {
                Session::Open { attached, .. } if self.resume => *attached = false,
                Session::Open { .. } => me.session = Session::Wanted,
                _ => {}
            }
        }
        Ok(())
    }

    // --- after faults ---

    pub(crate) fn heal(&mut self, at: Time, core: &[usize], rng: &mut Rng, agenda: &mut Agenda) {
        self.healing = Some(Healing { attempts: self.attempts.len() as u64, puts: 0, gets: 0 });
        // Often enough to see, and not so often that the least lucky client never gets its turn.
        self.options.think_mean = 20 * crate::clock::MILLISECOND;
        for client in 0..self.clients.len() as u32 {
            // Who waits for a node that does not take part turns to another one, and takes nothing along.
            let me = &mut self.clients[client as usize];
            if !core.contains(&me.node) && me.open > 0 {
                me.session = Session::Own;
                me.open = 0;
                me.blocked = true;
            }
            if !std::mem::take(&mut me.blocked) {
                continue;
            }
            agenda.wakes.push((at + rng.below(self.options.think_mean + 1), client));
        }
    }

    pub(crate) fn is_healed(&self, core: &[usize]) -> bool {
        let Some(healing) = &self.healing else { return false };
        healing.puts >= HEALED_PUTS
            && healing.gets >= 1
            && self.clients.iter().all(|me| me.answers_after_heal >= HEALED_ANSWERS)
            && !core.iter().any(|node| self.open[*node].iter().any(|token| *token < healing.attempts))
    }

    pub(crate) fn missing(&self, core: &[usize]) -> String {
        let healing = self.healing.unwrap_or_default();
        let open: Vec<u64> = core
            .iter()
            .flat_map(|node| &self.open[*node])
            .copied()
            .filter(|token| *token < healing.attempts)
            .collect();
        let fewest = self.clients.iter().map(|me| me.answers_after_heal).min().unwrap_or(0);
        format!(
            "{} of {HEALED_PUTS} puts and {} gets succeeded, the least served client had {fewest} answers, \
             open calls from before: {open:?}",
            healing.puts, healing.gets
        )
    }

    /// The node takes a call up.
    pub(crate) fn taken(&mut self, now: Instant, call: &ClientCall) {
        if let ClientCall::Propose { token, .. }
        | ClientCall::Read { token, .. }
        | ClientCall::OpenSession { token, .. } = call
        {
            self.attempts[token.0 as usize].taken = Some(now);
        }
    }

    /// Checks that no call was forgotten: each is answered soon after its deadline, or after it was taken up.
    pub(crate) fn check_deadlines(&self, node: usize, now: Instant) -> Checked {
        let slack = self.patience * 64;
        let late = |token: &&u64| {
            let Attempt { deadline, taken, .. } = &self.attempts[**token as usize];
            taken.is_some_and(|taken| deadline.0.max(taken.0) + slack < now.0)
        };
        match self.open[node].iter().find(late) {
            Some(token) => {
                let what = &self.attempts[*token as usize].what;
                Err(violation("answers", format!("n{} never answered call {token}, {what:?}", node + 1)))
            }
            None => Ok(()),
        }
    }

    /// Checks the history of all clients (invariant CL1).
    pub(crate) fn check_history(&mut self) -> Checked {
        let recorders = std::mem::take(&mut self.recorders);
        let operations =
            recorders.iter().flat_map(|recorder| recorder.operations().iter().copied()).collect();
        let history = checker::History::new(operations, checker::Overlap::Allow)
            .map_err(|error| violation("CL1", format!("the history is no history: {error}")))?;
        match checker::check(&history, &checker::CheckOptions::default()).verdict {
            checker::Verdict::Linearizable => Ok(()),
            checker::Verdict::NotLinearizable(why) => {
                Err(violation("CL1", why.explain(&checker::Numbered).to_string()))
            }
            checker::Verdict::Unknown { why, .. } => {
                Err(violation("CL1", format!("no verdict within the budget: {why:?}")))
            }
        }
    }
}

/// A call in words.
pub(crate) fn describe_call(client: u32, call: &ClientCall) -> String {
    let call = match call {
        ClientCall::Propose { session, token, payload, .. } => match payload.first_chunk::<9>() {
            Some(write) => {
                let (op, register) = (registers::op_of(write), write[8]);
                let len = payload.len();
                format!("call {}: put k{register} v{op}, {len} bytes, session key {}", token.0, session.0)
            }
            None => format!("call {}: nothing, session key {}", token.0, session.0),
        },
        ClientCall::Read { token, query, consistency, .. } => {
            let register = query.first().copied().unwrap_or_default();
            format!("call {}: get k{register}, {consistency:?}", token.0)
        }
        ClientCall::OpenSession { session, token, order, .. } => {
            format!("call {}: open session key {} {order:?}", token.0, session.0)
        }
        ClientCall::AttachSession { session, client, next, .. } => {
            format!("attach {client} as session key {}, next {next}", session.0)
        }
        ClientCall::CloseSession { session } => format!("close session key {}", session.0),
        ClientCall::Transfer { to, .. } => match to {
            Some(to) => format!("hand the leadership to {to}"),
            None => "hand the leadership over".to_owned(),
        },
        ClientCall::Stop => "stop".to_owned(),
    };
    format!("client {client}, {call}")
}

fn describe_event(event: &ReplicaEvent) -> String {
    match event {
        ReplicaEvent::Proposed { token, result: Ok(_) } => format!("call {} done", token.0),
        ReplicaEvent::Proposed { token, result: Err(error) } => format!("call {}: {error}", token.0),
        ReplicaEvent::Read { token, result: Ok(answer) } => match registers::read_answer(answer) {
            Some(op) => format!("call {}: v{op}", token.0),
            None => format!("call {}: absent", token.0),
        },
        ReplicaEvent::Read { token, result: Err(error) } => format!("call {}: {error}", token.0),
        ReplicaEvent::SessionOpened { token, result: Ok(client) } => {
            format!("call {}: session {client}", token.0)
        }
        ReplicaEvent::SessionOpened { token, result: Err(error) } => format!("call {}: {error}", token.0),
        other => format!("{other:?}"),
    }
}
