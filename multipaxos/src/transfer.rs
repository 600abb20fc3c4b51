//! Handing the leadership over: from the leader's side and from that of its successor. Whoever campaigns in a higher
//! ballot ends a leadership anyhow; what is here sees to it that only one does, that it has little to learn, and that
//! nothing is proposed meanwhile.

use synod_core::{Instant, LogEvent, NodeId, TransferRefusal};

use crate::counters::Rejection;
use crate::message::{Message, Succeed};
use crate::multipaxos::{Effects, MultiPaxos, State};

/// A leadership on its way to another voter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    /// When the leader goes on as before.
    pub(crate) until: Instant,
    /// The successor was told to campaign; told again with the next heartbeat.
    pub(crate) told: bool,
}

impl MultiPaxos {
    pub(crate) fn on_transfer(&mut self, now: Instant, to: Option<NodeId>, effects: &mut Effects) {
        let chosen = match to {
            Some(to) => Some(to).filter(|to| *to != self.node && self.quorums().members().contains(*to)),
            None => self.successor(now),
        };
        let not_leader = TransferRefusal::NotLeader { leader: self.leader() };
        // Fast Paxos: others propose while it hands over, and who succeeds must have seen all of that.
        let refused = self.config.lease_reads.is_some() || self.fast.is_some();
        let until = now + self.config.election_timeout;
        let why = match (&mut self.state, chosen) {
            // Whoever heard this leader has promised it to help nobody else for a while, the successor included.
            (State::Leader(_), _) if refused => TransferRefusal::Unsupported,
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

    /// The voter that has voted furthest, of those that are heard.
    fn successor(&self, now: Instant) -> Option<NodeId> {
        let State::Leader(leader) = &self.state else { return None };
        let heard_within = 2 * self.config.heartbeat_interval;
        let voters = self.quorums().members();
        let heard = leader
            .peers
            .iter()
            .filter(|peer| voters.contains(peer.node) && now - peer.heard_at <= heard_within);
        heard.max_by_key(|peer| (peer.accepted(), peer.heard_at)).map(|peer| peer.node)
    }

    /// Once the successor has voted for everything that this leader proposed: it need not learn that first.
    pub(crate) fn press_transfer(&mut self, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(Transfer { to, told: false, .. }) = leader.transfer else { return };
        if leader.accepted(to) < leader.proposals.last() {
            return;
        }
        if let Some(transfer) = &mut leader.transfer {
            transfer.told = true;
        }
        effects.send(to, Message::Succeed(Succeed { ballot: leader.ballot }));
    }

    /// The successor does not lead in time: this leader goes on.
    pub(crate) fn check_transfer(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.transfer.is_some_and(|transfer| now >= transfer.until) {
            leader.transfer = None;
            effects.event(LogEvent::TransferFailed { why: TransferRefusal::TimedOut });
        }
    }

    /// The leader wants this replica to lead: it campaigns, without asking who would promise.
    pub(crate) fn on_succeed(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Succeed,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Succeed { ballot } = message;
        if ballot.node != from {
            return Err(Rejection::Ballot);
        }
        let follows = matches!(self.state, State::Follower(Some(leader)) if leader.ballot == ballot);
        // A word of an earlier leader, or one that has overtaken the first word of its leader, is said again if it is
        // still meant.
        if !follows
            || !self.voter
            || self.promised.ballot() > ballot
            || self.loyalty.binds(now)
            || self.learning.awaits_snapshot()
            || self.disk.is_stalled(now, self.config.election_timeout)
        {
            return Ok(());
        }
        if let Some(ballot) = self.seen.next_of(self.node) {
            self.draw_election_wait(now);
            self.counters.successions += 1;
            self.campaign(now, ballot, true, effects);
        }
        Ok(())
    }
}
