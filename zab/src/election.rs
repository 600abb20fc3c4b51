//! Phase 0, election: votes by current epoch, last zxid and id, until a quorum agrees.

use std::collections::BTreeMap;
use std::time::Duration;

use synod_core::{Instant, NodeId, NodeSet};

use crate::broadcast::Phase;
use crate::counters::Rejection;
use crate::message::{Epoch, FollowerInfo, Message, Notification, Round, Standing, Vote};
use crate::zab::{Effects, State, Zab};

/// What only a replica that looks for a leader has.
#[derive(Clone, Debug)]
pub(crate) struct Looking {
    /// Its vote; `None` while it knows of nobody who could lead.
    pub(crate) vote: Option<Vote>,
    /// Who was heard since it began to look, itself not included: whoever hears no quorum could not lead.
    heard: NodeSet,
    /// The votes of others in this round.
    votes: BTreeMap<NodeId, Vote>,
    /// Followers that believed the election earlier than this replica.
    callers: BTreeMap<NodeId, FollowerInfo>,
    resend_at: Instant,
    resend_after: Duration,
    /// A quorum agrees on this vote, and a better one is waited for until then.
    agreed: Option<(Vote, Instant)>,
}

impl Looking {
    /// Begins to look as soon as it is ticked.
    pub(crate) fn new(now: Instant) -> Looking {
        Looking {
            vote: None,
            heard: NodeSet::new(),
            votes: BTreeMap::new(),
            callers: BTreeMap::new(),
            resend_at: now,
            resend_after: Duration::ZERO,
            agreed: None,
        }
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.agreed.map_or(self.resend_at, |(_, at)| at.min(self.resend_at))
    }
}

impl Zab {
    /// Leaves whatever it was and begins a new election.
    pub(crate) fn become_looking(&mut self, now: Instant, effects: &mut Effects) {
        self.counters.elections += 1;
        self.round = Round((self.round.0 + 1).min(Round::MAX.0));
        if let State::Leading(former) = std::mem::replace(&mut self.state, State::Looking(Looking::new(now)))
        {
            former.give_up(effects);
        }
        self.vote_for_oneself(now);
        self.tell_vote(now, effects);
        self.check_agreement(now, effects);
    }

    pub(crate) fn on_looking_tick(&mut self, now: Instant, effects: &mut Effects) {
        let State::Looking(looking) = &self.state else { return };
        if let Some((vote, _)) = looking.agreed.filter(|(_, at)| now >= *at) {
            self.believe(now, vote, effects);
            return;
        }
        if now >= looking.resend_at {
            let after = looking.resend_after;
            self.vote_for_oneself(now);
            self.tell_vote(now, effects);
            let (first, most) = (self.first_resend(), self.config.election_timeout * 2);
            if let State::Looking(looking) = &mut self.state {
                looking.resend_after = (2 * after).clamp(first, most);
                looking.resend_at = now + looking.resend_after;
            }
            self.check_agreement(now, effects);
        }
    }

    pub(crate) fn on_notification(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Notification,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Notification { round, standing, vote } = message;
        if round > Round::MAX {
            return Err(Rejection::Epoch);
        }
        let leads = matches!(standing, Standing::Leading | Standing::Established);
        let sensible = vote.is_none_or(|vote| {
            vote.epoch <= Epoch::MAX
                && self.membership.contains(vote.node)
                && self.quorums().members().contains(vote.node)
                && (!leads || vote.node == from)
        });
        if !sensible || (vote.is_none() && standing != Standing::Looking) {
            return Err(Rejection::Vote);
        }
        match &self.state {
            State::Looking(_) => self.on_vote(now, from, message, effects),
            State::Following(following) => {
                if standing != Standing::Looking {
                    return Ok(());
                }
                if from == following.vote.node && round > self.round {
                    // It leads no more: nobody needs to wait for its silence.
                    self.counters.leaders_lost += 1;
                    self.become_looking(now, effects);
                    self.on_vote(now, from, message, effects);
                    return Ok(());
                }
                self.tell_standing(from, effects);
            }
            State::Leading(_) if standing == Standing::Looking => self.tell_standing(from, effects),
            State::Leading(_) => {}
        }
        Ok(())
    }

    fn on_vote(&mut self, now: Instant, from: NodeId, message: Notification, effects: &mut Effects) {
        let Notification { round, standing, vote } = message;
        let State::Looking(looking) = &mut self.state else { return };
        if let (Standing::Established, Some(vote)) = (standing, vote) {
            // Its round is the one that the others are in.
            self.round = round;
            self.become_following(now, vote, effects);
            return;
        }
        if let (Standing::Leading, Some(vote)) = (standing, vote)
            && round >= self.round
            && (vote.epoch, vote.last) >= (self.hard_state.current, self.log.last().zxid)
        {
            // It saw a quorum agree, which somebody with fewer links may never see.
            self.round = round;
            self.become_following(now, vote, effects);
            return;
        }
        let first = looking.heard.insert(from);
        let before = looking.vote;
        let mut changed = false;
        if standing == Standing::Looking && round > self.round {
            self.round = round;
            looking.votes.clear();
            looking.vote = None;
            changed = true;
        }
        self.vote_for_oneself(now);
        let floor = (self.hard_state.current, self.log.last().zxid);
        let State::Looking(looking) = &mut self.state else { return };
        if round == self.round {
            match vote {
                Some(vote) => looking.votes.insert(from, vote),
                None => looking.votes.remove(&from),
            };
            // Never for less than it has itself: that history may hold what is decided.
            if vote > looking.vote && vote.is_some_and(|vote| (vote.epoch, vote.last) >= floor) {
                looking.vote = vote;
            }
        }
        changed |= looking.vote != before;
        let behind = standing == Standing::Looking && round < self.round;
        if changed {
            looking.resend_after = Duration::ZERO;
            self.tell_vote(now, effects);
        } else if standing == Standing::Looking && (first || behind) {
            // Whoever begins to look, or missed a round, has not heard this vote.
            let told = self.looking_notification();
            self.send_with(self.current_write, from, told, effects);
        }
        self.check_agreement(now, effects);
    }

    /// Votes for itself if it could lead and knows of nobody better.
    fn vote_for_oneself(&mut self, now: Instant) {
        let stalled = self.disk.is_stalled(now, self.config.election_timeout);
        let State::Looking(looking) = &mut self.state else { return };
        let own = Vote { epoch: self.hard_state.current, last: self.log.last().zxid, node: self.node };
        let hears = looking.heard.iter().chain([self.node]).collect();
        let could_lead = self.voter && !stalled && self.membership.quorums().is_election_quorum(&hears);
        if could_lead && looking.vote.is_none_or(|vote| vote < own) {
            looking.vote = Some(own);
        }
    }

    /// Sees whether a quorum agrees with its vote, and believes it once nothing better came for a while.
    fn check_agreement(&mut self, now: Instant, effects: &mut Effects) {
        let State::Looking(looking) = &mut self.state else { return };
        let Some(vote) = looking.vote else {
            looking.agreed = None;
            return;
        };
        let alike = looking.votes.iter().filter(|(_, theirs)| **theirs == vote).map(|(node, _)| *node);
        let alike: NodeSet = alike.chain([self.node]).collect();
        if !self.membership.quorums().is_election_quorum(&alike) {
            looking.agreed = None;
            return;
        }
        if self.membership.members().len() == 1 || self.config.finalise_wait.is_zero() {
            // Nobody is there who could know better.
            self.believe(now, vote, effects);
        } else if looking.agreed.is_none_or(|(agreed, _)| agreed != vote) {
            looking.agreed = Some((vote, now + self.config.finalise_wait));
        }
    }

    fn believe(&mut self, now: Instant, vote: Vote, effects: &mut Effects) {
        if vote.node != self.node {
            self.become_following(now, vote, effects);
        } else if self.disk.is_stalled(now, self.config.election_timeout) {
            // Without a disk there is no promise: another one has to lead.
            self.become_looking(now, effects);
        } else {
            let State::Looking(looking) = &mut self.state else { return };
            let callers = std::mem::take(&mut looking.callers);
            self.become_leading(now, vote, callers, effects);
        }
    }

    /// A follower believed the election earlier: it is answered once this replica does, too.
    pub(crate) fn note_caller(&mut self, from: NodeId, info: FollowerInfo) {
        if let State::Looking(looking) = &mut self.state {
            looking.callers.insert(from, info);
        }
    }

    fn tell_vote(&mut self, now: Instant, effects: &mut Effects) {
        let told = self.looking_notification();
        for peer in self.membership.peers_of(self.node) {
            self.send_with(self.current_write, peer, told.clone(), effects);
        }
        let first = self.first_resend();
        let State::Looking(looking) = &mut self.state else { return };
        looking.resend_after = looking.resend_after.max(first);
        looking.resend_at = now + looking.resend_after;
    }

    fn looking_notification(&self) -> Message {
        let State::Looking(looking) = &self.state else { unreachable!("only who looks tells a vote") };
        let (standing, vote) = (Standing::Looking, looking.vote);
        Message::Notification(Notification { round: self.round, standing, vote })
    }

    /// Tells everybody who voted for it, and may still wait for a better vote, that it leads.
    pub(crate) fn tell_leading(&self, effects: &mut Effects) {
        for peer in self.membership.peers_of(self.node) {
            self.tell_standing(peer, effects);
        }
    }

    /// Tells somebody who looks that it has found.
    fn tell_standing(&self, to: NodeId, effects: &mut Effects) {
        let (standing, vote) = match &self.state {
            State::Looking(_) => return,
            State::Following(following) => (Standing::Following, following.vote),
            State::Leading(leading) if leading.phase == Phase::Broadcast => {
                (Standing::Established, leading.vote)
            }
            State::Leading(leading) => (Standing::Leading, leading.vote),
        };
        let told = Message::Notification(Notification { round: self.round, standing, vote: Some(vote) });
        self.send_with(self.current_write, to, told, effects);
    }

    /// How long it waits before it repeats its vote; doubled each time.
    fn first_resend(&self) -> Duration {
        self.config.heartbeat_interval / 2
    }
}
