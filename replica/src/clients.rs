//! The sessions that this replica's own clients use: numbering, windows, retries and deadlines.
//!
//! Nothing here is replicated. A proposal keeps its number until its outcome is seen, so it may be
//! proposed again and again, here or through another replica, and is applied once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use synod_core::{ClientId, Command, Incarnation, Instant, Kind, NodeId, RequestId, Sequence, Wire};

use crate::fixed_map::FixedMap;
use crate::sessions::SessionOp;
use crate::{Order, ProposeError, ReplicaEvent, SessionKey, Token};

pub(crate) struct Clients {
    sessions: Slab<LocalSession>,
    by_key: FixedMap<SessionKey, usize>,
    by_client: FixedMap<ClientId, usize>,
    by_nonce: BTreeMap<u64, usize>,
    /// Sessions that may have something to propose; some may be gone.
    ready: VecDeque<usize>,
    window: usize,
    entries: usize,
    bytes: usize,
    retry_after: Duration,
    next_retry: Option<Instant>,
    next_expiry: Option<Instant>,
}

struct LocalSession {
    key: SessionKey,
    order: Order,
    stage: Stage,
    /// The number of the front of `slots`: everything below is settled.
    base: Sequence,
    slots: VecDeque<Slot>,
    /// No slot before this offset wants to be proposed.
    pending_from: usize,
    /// Not numbered yet: the session is not open, or its window is full.
    waiting: VecDeque<Proposal>,
    in_ready: bool,
}

enum Stage {
    /// Asked for, under this nonce.
    Opening {
        nonce: u64,
        asker: Option<(Token, Instant)>,
        attempt: Attempt,
    },
    Open(ClientId),
}

struct Proposal {
    token: Token,
    payload: Bytes,
    deadline: Instant,
}

struct Slot {
    /// `None` once the outcome was told.
    proposal: Option<Proposal>,
    attempt: Attempt,
}

/// How far a proposal got.
#[derive(Clone, Copy)]
struct Attempt {
    /// It wants to be proposed.
    pending: bool,
    /// It was, at least once.
    proposed: bool,
    /// More than once: an earlier copy may be in somebody's log.
    repeated: bool,
    /// Decided before its predecessor: it is proposed again once that is settled.
    parked: bool,
    /// When it wants to be proposed again if nothing is heard before.
    again_at: Option<Instant>,
}

impl Attempt {
    const FIRST: Attempt =
        Attempt { pending: true, proposed: false, repeated: false, parked: false, again_at: None };

    fn made(&mut self, again_at: Option<Instant>) {
        *self = Attempt { pending: false, proposed: true, repeated: self.proposed, parked: false, again_at };
    }

    fn again(&mut self) {
        self.pending = true;
        self.parked = false;
        self.again_at = None;
    }
}

/// How much of a batch is still free.
pub(crate) struct Room {
    /// Who opens sessions.
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// When to try again without having heard; for batches that may be lost on their way.
    pub(crate) again_at: Option<Instant>,
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl Clients {
    pub(crate) fn new(window: u32, retry_after: Duration) -> Clients {
        Clients {
            sessions: Slab::new(),
            by_key: FixedMap::default(),
            by_client: FixedMap::default(),
            by_nonce: BTreeMap::new(),
            ready: VecDeque::new(),
            window: window as usize,
            entries: 0,
            bytes: 0,
            retry_after,
            next_retry: None,
            next_expiry: None,
        }
    }

    /// Open proposals.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Sessions that are being opened.
    pub(crate) fn opening(&self) -> usize {
        self.by_nonce.len()
    }

    /// Sessions that clients of this replica use.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Payload bytes of open proposals.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_known(&self, key: SessionKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Begins to open a session; `asker` is told when it is open.
    pub(crate) fn open(
        &mut self,
        key: SessionKey,
        nonce: u64,
        order: Order,
        asker: Option<(Token, Instant)>,
    ) {
        if let Some((_, deadline)) = asker {
            self.expire_at(deadline);
        }
        let stage = Stage::Opening { nonce, asker, attempt: Attempt::FIRST };
        let at = self.insert(LocalSession::new(key, order, stage, Sequence(1)));
        self.by_nonce.insert(nonce, at);
        self.mark_ready(at);
    }

    /// Takes over a session opened elsewhere.
    pub(crate) fn attach(&mut self, key: SessionKey, client: ClientId, order: Order, next: Sequence) {
        let at = self.insert(LocalSession::new(key, order, Stage::Open(client), next));
        self.by_client.insert(client, at);
    }

    fn insert(&mut self, session: LocalSession) -> usize {
        let key = session.key;
        let at = self.sessions.insert(session);
        self.by_key.insert(key, at);
        at
    }

    /// Forgets a session: open proposals end with an unknown outcome. Returns its replicated id, if open.
    pub(crate) fn close(&mut self, key: SessionKey, events: &mut Vec<ReplicaEvent>) -> Option<ClientId> {
        let at = self.by_key.remove(&key)?;
        let session = self.sessions.remove(at);
        let client = match session.stage {
            Stage::Open(client) => {
                if self.by_client.get(&client) == Some(&at) {
                    self.by_client.remove(&client);
                }
                Some(client)
            }
            Stage::Opening { nonce, asker, .. } => {
                self.by_nonce.remove(&nonce);
                if let Some((token, _)) = asker {
                    events.push(ReplicaEvent::SessionOpened {
                        token,
                        result: Err(ProposeError::SessionExpired),
                    });
                }
                None
            }
        };
        for slot in session.slots {
            if let Some(proposal) = slot.proposal {
                let proposed = slot.attempt.proposed;
                self.tell(
                    proposal,
                    |payload| {
                        if proposed {
                            ProposeError::SessionExpired
                        } else {
                            ProposeError::NoSession { payload }
                        }
                    },
                    events,
                );
            }
        }
        for proposal in session.waiting {
            self.tell(proposal, |payload| ProposeError::NoSession { payload }, events);
        }
        client
    }

    /// Takes a proposal into its session, which must be known.
    pub(crate) fn enqueue(&mut self, key: SessionKey, token: Token, payload: Bytes, deadline: Instant) {
        self.entries += 1;
        self.bytes += payload.len();
        self.expire_at(deadline);
        let at = self.by_key[&key];
        self.sessions[at].waiting.push_back(Proposal { token, payload, deadline });
        self.mark_ready(at);
    }

    fn expire_at(&mut self, deadline: Instant) {
        self.next_expiry = Instant::earlier(self.next_expiry, Some(deadline));
    }

    fn mark_ready(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        if !session.in_ready {
            session.in_ready = true;
            self.ready.push_back(at);
        }
    }

    /// True if something wants to be proposed.
    pub(crate) fn has_pending(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes what wants to be proposed, as far as there is room. Commands of one session come in order.
    pub(crate) fn collect(&mut self, room: &mut Room, commands: &mut Vec<Command>) {
        let before = commands.len();
        while room.entries > 0 && room.bytes > 0 {
            let Some(at) = self.ready.pop_front() else { break };
            let Some(session) = self.sessions.get_mut(at) else { continue };
            session.in_ready = false;
            session.collect(self.window, room, commands);
            if session.wants_more(self.window) {
                self.mark_ready(at);
                break;
            }
        }
        if commands.len() > before {
            self.retry_by(room.again_at);
        }
    }

    fn retry_by(&mut self, at: Option<Instant>) {
        self.next_retry = Instant::earlier(self.next_retry, at);
    }

    /// Everything proposed and not answered wants to be proposed again: whoever had it may be gone.
    pub(crate) fn propose_all_again(&mut self) {
        let mut again = Vec::new();
        for (at, session) in &mut self.sessions {
            if session.propose_again(|attempt| attempt.proposed) {
                again.push(at);
            }
        }
        for at in again {
            self.mark_ready(at);
        }
    }

    /// What should have been heard of by now wants to be proposed again.
    pub(crate) fn retry(&mut self, now: Instant) {
        if self.next_retry.is_none_or(|at| at > now) {
            return;
        }
        let mut next: Option<Instant> = None;
        let mut again = Vec::new();
        for (at, session) in &mut self.sessions {
            if session.propose_again(|attempt| attempt.again_at.is_some_and(|at| at <= now)) {
                again.push(at);
            }
            next = Instant::earlier(next, session.next_again());
        }
        self.next_retry = next;
        for at in again {
            self.mark_ready(at);
        }
    }

    /// This command is proposed again after a fraction of the retry time: whoever was asked cannot take it now.
    /// False if it is not one of ours.
    pub(crate) fn put_off(&mut self, now: Instant, client: ClientId, sequence: Sequence) -> bool {
        let again_at = now + self.retry_after / 8;
        let Some((_, session)) = self.find(client, sequence) else { return false };
        let Some(attempt) = session.attempt(sequence) else { return true };
        attempt.again_at = Some(again_at);
        self.retry_by(Some(again_at));
        true
    }

    /// Surely not proposed: it wants to be again. False if the command is not one of ours.
    pub(crate) fn refused(&mut self, client: ClientId, sequence: Sequence) -> bool {
        let Some((at, session)) = self.find(client, sequence) else { return false };
        session.want_again(sequence);
        self.mark_ready(at);
        true
    }

    /// Decided before its predecessor: proposed again once that is settled, or after a while.
    pub(crate) fn out_of_order(&mut self, now: Instant, client: ClientId, sequence: Sequence) {
        let Some(at) = self.by_client.get(&client).copied() else { return };
        let session = &mut self.sessions[at];
        if sequence == session.base {
            session.want_again(sequence);
            self.mark_ready(at);
        } else if let Some(attempt) =
            session.attempt(sequence).filter(|attempt| attempt.proposed && !attempt.pending)
        {
            attempt.parked = true;
            self.put_off(now, client, sequence);
        }
    }

    /// Ends a proposal; its waiter's token. `None` if the command is not one of ours, or was ended before.
    pub(crate) fn complete(&mut self, client: ClientId, sequence: Sequence) -> Option<Token> {
        let at = *self.by_client.get(&client)?;
        let session = &mut self.sessions[at];
        let proposal = session.slot(sequence)?.proposal.take()?;
        self.entries -= 1;
        self.bytes -= proposal.payload.len();
        if session.advance() {
            self.mark_ready(at);
        }
        Some(proposal.token)
    }

    /// Ends a proposal with an error that may hand the payload back.
    pub(crate) fn fail(
        &mut self,
        client: ClientId,
        sequence: Sequence,
        error: impl FnOnce(Bytes) -> ProposeError,
        events: &mut Vec<ReplicaEvent>,
    ) {
        let Some(at) = self.by_client.get(&client).copied() else { return };
        let session = &mut self.sessions[at];
        let Some(slot) = session.slot(sequence) else { return };
        let repeated = slot.attempt.repeated;
        let Some(proposal) = slot.proposal.take() else { return };
        if session.advance() {
            self.mark_ready(at);
        }
        self.tell(proposal, |payload| if repeated { ProposeError::Unknown } else { error(payload) }, events);
    }

    /// A session of ours was opened.
    pub(crate) fn opened(&mut self, nonce: u64, client: ClientId, events: &mut Vec<ReplicaEvent>) -> bool {
        let Some(at) = self.by_nonce.remove(&nonce) else { return false };
        let session = &mut self.sessions[at];
        if let Stage::Opening { asker: Some((token, _)), .. } = session.stage {
            events.push(ReplicaEvent::SessionOpened { token, result: Ok(client) });
        }
        session.stage = Stage::Open(client);
        self.by_client.insert(client, at);
        self.mark_ready(at);
        true
    }

    /// A session was found gone. Proposals that were proposed have an unknown outcome; the replica's own
    /// session is opened again under `nonce` for the rest, any other session is forgotten.
    pub(crate) fn expired(&mut self, client: ClientId, nonce: u64, events: &mut Vec<ReplicaEvent>) {
        let Some(at) = self.by_client.get(&client).copied() else { return };
        let key = self.sessions[at].key;
        if key != SessionKey::OWN {
            self.close(key, events);
            return;
        }
        let mut session = self.sessions.remove(at);
        self.by_client.remove(&client);
        self.open(key, nonce, session.order, None);
        let mut unproposed = VecDeque::new();
        for slot in session.slots.drain(..) {
            match slot.proposal {
                Some(proposal) if !slot.attempt.proposed => unproposed.push_back(proposal),
                Some(proposal) => self.tell(proposal, |_| ProposeError::SessionExpired, events),
                None => {}
            }
        }
        unproposed.append(&mut session.waiting);
        let fresh = self.by_key[&key];
        self.sessions[fresh].waiting = unproposed;
    }

    /// Ends what nobody waits for any longer.
    pub(crate) fn expire(&mut self, now: Instant, events: &mut Vec<ReplicaEvent>) {
        if self.next_expiry.is_none_or(|at| at > now) {
            return;
        }
        let mut late: Vec<(Proposal, bool)> = Vec::new();
        let mut never_opened: Vec<(usize, Token, bool)> = Vec::new();
        let mut next: Option<Instant> = None;
        let mut freed = Vec::new();
        for (at, session) in &mut self.sessions {
            let before = late.len();
            for slot in &mut session.slots {
                if slot.proposal.as_ref().is_some_and(|proposal| proposal.deadline <= now) {
                    let proposal = slot.proposal.take().expect("just seen");
                    late.push((proposal, slot.attempt.proposed));
                }
            }
            let wants = session.advance();
            for proposal in std::mem::take(&mut session.waiting) {
                if proposal.deadline <= now {
                    late.push((proposal, false));
                } else {
                    session.waiting.push_back(proposal);
                }
            }
            if wants || late.len() > before {
                freed.push(at);
            }
            let open = session.slots.iter().filter_map(|slot| slot.proposal.as_ref()).chain(&session.waiting);
            next = open.map(|proposal| proposal.deadline).chain(next).min();
            if let Stage::Opening { asker: Some((token, deadline)), attempt, .. } = session.stage {
                if deadline <= now {
                    never_opened.push((at, token, attempt.proposed));
                } else {
                    next = Some(next.map_or(deadline, |at| at.min(deadline)));
                }
            }
        }
        self.next_expiry = next;
        for at in freed {
            self.mark_ready(at);
        }
        for (at, token, proposed) in never_opened {
            let session = &mut self.sessions[at];
            if let Stage::Opening { asker, .. } = &mut session.stage {
                *asker = None;
            }
            let key = session.key;
            self.close(key, events);
            let error = if proposed {
                ProposeError::Unknown
            } else {
                ProposeError::TimedOut { payload: Bytes::new() }
            };
            events.push(ReplicaEvent::SessionOpened { token, result: Err(error) });
        }
        for (proposal, proposed) in late {
            self.tell(
                proposal,
                |payload| if proposed { ProposeError::Unknown } else { ProposeError::TimedOut { payload } },
                events,
            );
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        Instant::earlier(self.next_retry, self.next_expiry)
    }

    fn tell(
        &mut self,
        proposal: Proposal,
        error: impl FnOnce(Bytes) -> ProposeError,
        events: &mut Vec<ReplicaEvent>,
    ) {
        self.entries -= 1;
        self.bytes -= proposal.payload.len();
        events.push(ReplicaEvent::Proposed { token: proposal.token, result: Err(error(proposal.payload)) });
    }

    /// The session that a command of ours belongs to: by client id, or by nonce for an opening.
    fn find(&mut self, client: ClientId, sequence: Sequence) -> Option<(usize, &mut LocalSession)> {
        let at = if client == ClientId(0) {
            *self.by_nonce.get(&sequence.0)?
        } else {
            *self.by_client.get(&client)?
        };
        Some((at, &mut self.sessions[at]))
    }
}

impl LocalSession {
    fn new(key: SessionKey, order: Order, stage: Stage, base: Sequence) -> LocalSession {
        LocalSession {
            key,
            order,
            stage,
            base,
            slots: VecDeque::new(),
            pending_from: 0,
            waiting: VecDeque::new(),
            in_ready: false,
        }
    }

    fn collect(&mut self, window: usize, room: &mut Room, commands: &mut Vec<Command>) {
        let client = match &mut self.stage {
            Stage::Opening { nonce, attempt, .. } => {
                if attempt.pending {
                    attempt.made(room.again_at);
                    room.entries -= 1;
                    commands.push(Command {
                        kind: Kind::Session,
                        request: RequestId {
                            client: ClientId(0),
                            sequence: Sequence(*nonce),
                            first_incomplete: Sequence(0),
                        },
                        payload: SessionOp::Open {
                            order: self.order,
                            node: room.node,
                            incarnation: room.incarnation,
                        }
                        .to_bytes(),
                    });
                }
                return;
            }
            Stage::Open(client) => *client,
        };
        while self.slots.len() < window
            && let Some(proposal) = self.waiting.pop_front()
        {
            self.slots.push_back(Slot { proposal: Some(proposal), attempt: Attempt::FIRST });
        }
        let mut offset = self.pending_from;
        while let Some(slot) = self.slots.get_mut(offset) {
            if slot.attempt.pending
                && let Some(proposal) = &slot.proposal
            {
                if room.entries == 0 || room.bytes == 0 {
                    break;
                }
                room.entries -= 1;
                room.bytes = room.bytes.saturating_sub(proposal.payload.len());
                slot.attempt.made(room.again_at);
                commands.push(Command {
                    kind: Kind::Command,
                    request: RequestId {
                        client,
                        sequence: Sequence(self.base.0 + offset as u64),
                        first_incomplete: self.base,
                    },
                    payload: proposal.payload.clone(),
                });
            }
            offset += 1;
        }
        self.pending_from = offset;
    }

    /// True if `collect` left something that could go at once, had there been room.
    fn wants_more(&self, window: usize) -> bool {
        match &self.stage {
            Stage::Opening { attempt, .. } => attempt.pending,
            Stage::Open(_) => {
                self.pending_from < self.slots.len()
                    || (self.slots.len() < window && !self.waiting.is_empty())
            }
        }
    }

    fn slot(&mut self, sequence: Sequence) -> Option<&mut Slot> {
        let at = usize::try_from(sequence.0.checked_sub(self.base.0)?).ok()?;
        self.slots.get_mut(at)
    }

    /// Steps over what was told. True if something may be proposed now that could not before.
    fn advance(&mut self) -> bool {
        let before = self.base;
        while self.slots.front().is_some_and(|slot| slot.proposal.is_none()) {
            self.slots.pop_front();
            self.base = self.base.next();
            self.pending_from = self.pending_from.saturating_sub(1);
        }
        let moved = self.base != before;
        let parked = moved && self.slots.front().is_some_and(|slot| slot.attempt.parked);
        if parked {
            self.propose_again(|attempt| attempt.parked);
        }
        parked || (moved && !self.waiting.is_empty())
    }

    /// How far the proposal of this number, or the opening of the session, got.
    fn attempt(&mut self, sequence: Sequence) -> Option<&mut Attempt> {
        if let Stage::Opening { attempt, .. } = &mut self.stage {
            return Some(attempt);
        }
        let at = usize::try_from(sequence.0.checked_sub(self.base.0)?).ok()?;
        self.slots.get_mut(at).map(|slot| &mut slot.attempt)
    }

    fn want_again(&mut self, sequence: Sequence) {
        let offset = sequence.0.checked_sub(self.base.0).and_then(|at| usize::try_from(at).ok());
        if let Some(attempt) = self.attempt(sequence) {
            attempt.again();
            self.pending_from = self.pending_from.min(offset.unwrap_or(0));
        }
    }

    /// Marks what `due` accepts; true if anything was.
    fn propose_again(&mut self, due: impl Fn(&Attempt) -> bool) -> bool {
        match &mut self.stage {
            Stage::Opening { attempt, .. } => {
                if due(attempt) {
                    attempt.again();
                }
                attempt.pending
            }
            Stage::Open(_) => {
                let mut first = None;
                for (offset, slot) in self.slots.iter_mut().enumerate() {
                    if slot.proposal.is_some() && due(&slot.attempt) {
                        slot.attempt.again();
                        first = first.or(Some(offset));
                    }
                }
                self.pending_from = first.map_or(self.pending_from, |at| at.min(self.pending_from));
                first.is_some()
            }
        }
    }

    /// When the next proposal wants to be proposed again.
    fn next_again(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Opening { attempt, .. } => attempt.again_at,
            Stage::Open(_) => {
                let open = self.slots.iter().filter(|slot| slot.proposal.is_some());
                open.filter_map(|slot| slot.attempt.again_at).min()
            }
        }
    }
}
