//! Handing the leadership over (thesis, section 3.10): from the leader's side and from that of its successor.

use synod_core::{Instant, LogEvent, NodeId, TransferRefusal};

use crate::counters::Rejection;
use crate::message::{Message, TimeoutNow};
use crate::raft::{Effects, Raft, State};

/// A leadership on its way to another voter. Until it has ended nothing is proposed: the successor would not have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    /// When the leader goes on as before.
    pub(crate) until: Instant,
    /// The successor was told to campaign; told again with the next heartbeat.
    pub(crate) told: bool,
}

impl Raft {
    pub(crate) fn on_transfer(&mut self, now: Instant, to: Option<NodeId>, effects: &mut Effects) {
        let chosen = match to {
            Some(to) => Some(to).filter(|to| *to != self.node && self.quorums().members().contains(*to)),
            None => self.successor(now),
        };
        let not_leader = TransferRefusal::NotLeader { leader: self.leader() };
        let until = now + self.config.election_timeout;
        let why = match (&mut self.state, chosen) {
            (State::Leader(leader), Some(to)) => match leader.transfer {
                None => {
                    self.counters.transfers += 1;
                    leader.transfer = Some(Transfer { to, until, told: false });
                    return;
                }
                Some(transfer) => TransferRefusal::UnderWay { to: transfer.to },
            },
            (State::Leader(_), None) => TransferRefusal::NoSuchVoter,
            _ => not_leader,
        };
        effects.event(LogEvent::TransferFailed { why });
    }

    /// The voter that is furthest, of those that are heard.
    fn successor(&self, now: Instant) -> Option<NodeId> {
        let State::Leader(leader) = &self.state else { return None };
        let heard_within = 2 * self.config.heartbeat_interval;
        let voters = self.quorums().members();
        let heard = leader
            .peers
            .iter()
            .filter(|peer| voters.contains(peer.node) && now - peer.heard_at <= heard_within);
        heard.max_by_key(|peer| (peer.matched(), peer.heard_at)).map(|peer| peer.node)
    }

    /// Once the successor has everything that this leader has, durably: it may win.
    pub(crate) fn press_transfer(&mut self, effects: &mut Effects) {
        let (term, last) = (self.hard_state.term, self.log.last_index());
        let State::Leader(leader) = &mut self.state else { return };
        let Some(Transfer { to, told: false, .. }) = leader.transfer else { return };
        if leader.matched(to) < last {
            return;
        }
        if let Some(transfer) = &mut leader.transfer {
            transfer.told = true;
        }
        // Whoever votes for the successor breaks the promise that a lease rests on; and it may campaign late, when
        // this leader has given up waiting.
        leader.reads.forgo_lease();
        effects.send(to, Message::TimeoutNow(TimeoutNow { term }));
    }

    /// The successor does not lead in time: this leader goes on.
    pub(crate) fn check_transfer(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.transfer.is_some_and(|transfer| now >= transfer.until) {
            leader.transfer = None;
            effects.event(LogEvent::TransferFailed { why: TransferRefusal::TimedOut });
        }
    }

    /// The leader wants this replica to lead: it campaigns, without asking who would vote for it.
    pub(crate) fn on_timeout_now(
        &mut self,
        now: Instant,
        from: NodeId,
        message: TimeoutNow,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        if self.hear_leader(now, from, message.term, effects)?
            && self.may_campaign()
            && !self.disk.is_stalled(now, self.config.election_timeout)
        {
            self.become_candidate(now, true, effects);
        }
        Ok(())
    }
}
