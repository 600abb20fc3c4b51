//! The replica as the host of a service: a state machine that does something of its own accord.

use bytes::Bytes;
use synod_core::{Instant, Protocol, ProtocolConfig, Role, StateMachine};

use crate::routes::Routes;
use crate::{Replica, ReplicaEvent, SessionKey, Token};

/// Names of proposals of the service: no shell gives names from here on.
const SERVICE_TOKENS: u64 = 1 << 63;

/// Proposals of the service that may be open at a time; the service proposes again what it still wants.
const OPEN_MAX: usize = 64;

/// What a replica keeps of its service.
#[derive(Debug, Default)]
pub(crate) struct Hosted {
    /// The route and reign that the service was told of.
    seen: Option<Routes>,
    /// When it wants to be called.
    pub(crate) deadline: Option<Instant>,
    /// True while the service has queries wait.
    pub(crate) queries_wait: bool,
    proposed: u64,
    open: usize,
    proposals: Vec<Bytes>,
}

impl Hosted {
    /// Takes what became of the service's own proposals out of what the shell is told.
    pub(crate) fn settle(&mut self, events: &mut Vec<ReplicaEvent>) {
        if self.open == 0 {
            return;
        }
        events.retain(|event| match event {
            ReplicaEvent::Proposed { token, .. } if token.0 >= SERVICE_TOKENS => {
                self.open -= 1;
                false
            }
            _ => true,
        });
    }
}

impl<P, S> Replica<P, S>
where
    P: Protocol,
    P::Config: ProtocolConfig,
    S: StateMachine,
{
    /// Before anything is handed on: tells the service how the replica stands and what time it is, and proposes what
    /// it asks for.
    pub(crate) fn step_service(&mut self, now: Instant) {
        let Some(service) = self.state_machine.service() else { return };
        if self.hosted.seen != Some(self.seen) {
            self.hosted.seen = Some(self.seen);
            let leads = self.host.machine().status().role == Role::Leader;
            service.on_role(now, leads.then_some(self.seen.reign));
        }
        if service.next_deadline().is_some_and(|at| at <= now) {
            service.on_tick(now);
        }
        let mut proposals = std::mem::take(&mut self.hosted.proposals);
        service.take_proposals(&mut proposals);
        self.hosted.deadline = service.next_deadline();
        self.hosted.queries_wait = !service.may_answer();
        for payload in proposals.drain(..) {
            if self.hosted.open == OPEN_MAX {
                break;
            }
            self.hosted.open += 1;
            self.hosted.proposed += 1;
            let token = Token(SERVICE_TOKENS + self.hosted.proposed);
            let deadline = now + self.retry_after.saturating_mul(DEADLINE_RETRIES);
            self.on_propose(SessionKey::OWN, token, payload, deadline);
        }
        self.hosted.proposals = proposals;
    }

    /// Queries that are about to be confirmed are shown to the service first.
    pub(crate) fn show_queries(&mut self, now: Instant) {
        let Some(service) = self.state_machine.service() else { return };
        for read in self.reads.waiting() {
            service.on_query(now, &read.query);
        }
        self.hosted.deadline = service.next_deadline();
    }

    /// Something was applied.
    pub(crate) fn tell_applied(&mut self, now: Instant) {
        if let Some(service) = self.state_machine.service() {
            service.on_applied(now);
            self.hosted.deadline = service.next_deadline();
            self.hosted.queries_wait = !service.may_answer();
        }
    }
}

/// How long a proposal of the service is tried, in times of the protocol's own patience.
const DEADLINE_RETRIES: u32 = 8;
