//! Handing the leadership over: what was asked, until it is known what became of it.

use synod_core::{Input, Instant, LogCall, NodeId, Protocol, ProtocolConfig, Reign, Role, StateMachine};

use crate::{Replica, ReplicaEvent, Token, TransferError};

/// A leadership that is to be handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingTransfer {
    token: Token,
    to: Option<NodeId>,
    pub(crate) deadline: Instant,
    /// The reign in which the protocol was asked.
    asked: Option<Reign>,
}

impl PendingTransfer {
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }
}

impl<P, S> Replica<P, S>
where
    P: Protocol,
    P::Config: ProtocolConfig,
    S: StateMachine,
{
    pub(crate) fn on_transfer(&mut self, token: Token, to: Option<NodeId>, deadline: Instant) {
        if self.transfer.is_some() {
            let result = Err(TransferError::UnderWay);
            self.events.push(ReplicaEvent::Transferred { token, result });
            return;
        }
        self.transfer = Some(PendingTransfer { token, to, deadline, asked: None });
    }

    /// Before anything is handed on: asks the protocol, or stops waiting for it.
    pub(crate) fn step_transfer(&mut self, now: Instant) {
        let Some(transfer) = &mut self.transfer else { return };
        if transfer.deadline <= now {
            self.end_transfer(Err(TransferError::TimedOut));
        } else if transfer.asked.is_none() {
            let status = self.host.machine().status();
            let (me, to) = (self.host.node(), transfer.to);
            transfer.asked = Some(status.reign);
            if to == Some(me) && status.leader == to {
                self.end_transfer(Ok(me));
            } else {
                self.host.step(now, Input::Call(LogCall::Transfer { to }));
            }
        }
    }

    /// Role, leader or reign changed: perhaps somebody else leads now.
    pub(crate) fn check_transfer(&mut self) {
        let Some(PendingTransfer { to, asked: Some(reign), .. }) = self.transfer else { return };
        let status = self.host.machine().status();
        if status.role == Role::Candidate {
            // It has waited for a leader as long as anybody does. Whoever stops should not be kept by that.
            self.end_transfer(Err(TransferError::TimedOut));
            return;
        }
        let Some(leader) = status.leader.filter(|_| status.reign != reign) else { return };
        let wanted = to.map_or(leader != self.host.node(), |to| to == leader);
        self.end_transfer(if wanted { Ok(leader) } else { Err(TransferError::Elsewhere { leader }) });
    }

    pub(crate) fn end_transfer(&mut self, result: Result<NodeId, TransferError>) {
        if let Some(PendingTransfer { token, .. }) = self.transfer.take() {
            self.events.push(ReplicaEvent::Transferred { token, result });
        }
    }
}
