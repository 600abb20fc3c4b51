//! Phase 1, discovery: a quorum promises a new epoch to one leader, and no follower is ahead of it.

use std::collections::BTreeMap;
use std::time::Duration;

use synod_core::{Instant, LogIndex, NodeId, NodeSet};

use crate::broadcast::{Leading, Phase};
use crate::codec::HardState;
use crate::counters::Rejection;
use crate::message::{AckEpoch, Attempt, Epoch, FollowerInfo, Message, NewEpoch, Place, Session, Vote};
use crate::progress::{Learner, Stage};
use crate::zab::{Effects, State, Zab};

/// What only a follower has.
#[derive(Clone, Debug)]
pub(crate) struct Following {
    /// The vote that made it follow: its node is the leader.
    pub(crate) vote: Vote,
    /// This try to follow it.
    attempt: Attempt,
    /// When the leader was last heard, or this try began.
    pub(crate) heard_at: Instant,
    /// When to say hello again, until the leader answers.
    hello_at: Instant,
    /// True once the leader is known to have a quorum and this replica has acknowledged NEWLEADER.
    pub(crate) established: bool,
    /// `None` until the leader named its epoch.
    pub(crate) joined: Option<Joined>,
}

/// A session with a leader whose epoch is known, as the follower sees it.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) epoch: Epoch,
    /// The history is the leader's through here; `None` while it is unknown where they part.
    pub(crate) matched: Option<LogIndex>,
    /// NEWLEADER arrived, and is acknowledged once the history reaches through here.
    pub(crate) new_leader: Option<Place>,
    /// NEWLEADER is acknowledged, at the latest with the unit being assembled.
    pub(crate) synchronised: bool,
    /// The leader is to be told how far the history is its own.
    pub(crate) acknowledge: bool,
}

impl Following {
    pub(crate) fn next_deadline(&self, timeout: Duration) -> Instant {
        let silent_at = self.heard_at + timeout;
        if self.joined.is_none() { silent_at.min(self.hello_at) } else { silent_at }
    }

    pub(crate) fn session(&self) -> Option<Session> {
        self.joined.as_ref().map(|joined| Session { epoch: joined.epoch, attempt: self.attempt })
    }
}

// --- the follower ---

impl Zab {
    /// Follows the node that the vote names, from phase 1 on.
    pub(crate) fn become_following(&mut self, now: Instant, vote: Vote, effects: &mut Effects) {
        assert_ne!(vote.node, self.node, "nobody follows itself");
        self.attempt = Attempt(self.attempt.0 + 1);
        self.state = State::Following(Following {
            vote,
            attempt: self.attempt,
            heard_at: now,
            hello_at: now,
            established: false,
            joined: None,
        });
        self.say_hello(now, effects);
    }

    /// CEPOCH, repeated until it is answered: the leader may believe the election later than its followers.
    fn say_hello(&mut self, now: Instant, effects: &mut Effects) {
        let State::Following(following) = &mut self.state else { return };
        following.hello_at = now + self.config.heartbeat_interval / 2;
        let leader = following.vote.node;
        let info = FollowerInfo { attempt: following.attempt, accepted: self.hard_state.accepted };
        self.send_with_promise(leader, Message::FollowerInfo(info), effects);
    }

    pub(crate) fn on_following_tick(&mut self, now: Instant, effects: &mut Effects) {
        let State::Following(following) = &self.state else { return };
        if now >= following.heard_at + self.config.election_timeout {
            self.counters.leaders_lost += 1;
            self.become_looking(now, effects);
        } else if following.joined.is_none() && now >= following.hello_at {
            self.say_hello(now, effects);
        }
    }

    /// NEWEPOCH: promises the epoch, once, durably, before it says so.
    pub(crate) fn on_new_epoch(
        &mut self,
        now: Instant,
        from: NodeId,
        message: NewEpoch,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let Session { epoch, attempt } = message.session;
        let State::Following(following) = &mut self.state else { return Ok(()) };
        if following.vote.node != from || following.attempt != attempt {
            return Ok(());
        }
        if !self.hard_state.accepted.may_be_followed_by(epoch) {
            return Err(Rejection::Epoch);
        }
        match &following.joined {
            Some(joined) if epoch < joined.epoch => return Ok(()),
            Some(joined) if epoch > joined.epoch => {
                // It lost its epoch and was elected again, and an old hello reached it late.
                following.joined = None;
                following.established = false;
            }
            _ => {}
        }
        following.heard_at = now;
        if epoch < self.hard_state.accepted {
            // Promised to another one since the hello: another hello tells this leader to go on.
            self.say_hello(now, effects);
            return Ok(());
        }
        if following.joined.is_none() {
            following.joined = Some(Joined {
                epoch,
                matched: None,
                new_leader: None,
                synchronised: false,
                acknowledge: false,
            });
        }
        if epoch > self.hard_state.accepted {
            let next = HardState { accepted: epoch, promised_to: Some(from), ..self.hard_state };
            self.write_hard_state(now, next, effects);
        }
        let answer = AckEpoch {
            session: message.session,
            promised: self.hard_state.promised_to == Some(from),
            current: self.hard_state.current,
            last: self.log.last(),
        };
        // Whoever counts this answer compares the current epoch, so that is durable, too.
        let write = self.promise_write.max(self.current_write);
        self.send_with(write, from, Message::AckEpoch(answer), effects);
        Ok(())
    }
}

// --- the leader ---

impl Zab {
    /// A quorum voted for this replica: it tries to lead.
    pub(crate) fn become_leading(
        &mut self,
        now: Instant,
        vote: Vote,
        callers: BTreeMap<NodeId, FollowerInfo>,
        effects: &mut Effects,
    ) {
        assert_eq!(vote.node, self.node, "only an election makes a leader");
        self.counters.elections_won += 1;
        self.state = State::Leading(Box::new(Leading::new(vote, now, self.config.heartbeat_interval)));
        self.tell_leading(effects);
        for (caller, info) in callers {
            self.greet(now, caller, info, effects);
        }
        self.check_hellos(now, effects);
    }

    pub(crate) fn on_follower_info(
        &mut self,
        now: Instant,
        from: NodeId,
        message: FollowerInfo,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        // Against the durable promise, which moves only with elections: many such hellos leap no further than one.
        if !self.hard_state.accepted.may_be_followed_by(message.accepted) {
            return Err(Rejection::Epoch);
        }
        self.promised_anywhere = self.promised_anywhere.max(message.accepted);
        match &self.state {
            State::Looking(_) => self.note_caller(from, message),
            State::Following(_) => {}
            State::Leading(_) => {
                self.greet(now, from, message, effects);
                self.check_hellos(now, effects);
            }
        }
        Ok(())
    }

    /// Begins a session with a follower, or repeats its beginning.
    fn greet(&mut self, now: Instant, from: NodeId, info: FollowerInfo, effects: &mut Effects) {
        let FollowerInfo { attempt, accepted } = info;
        let State::Leading(leading) = &mut self.state else { return };
        if leading.phase != Phase::Gathering && accepted > leading.epoch {
            // Somebody tried to lead a later epoch: this one may never have that follower.
            self.counters.outrun += 1;
            self.become_looking(now, effects);
            return;
        }
        match leading.learner(from) {
            Some(known) if attempt < known.attempt => return,
            Some(known) if attempt == known.attempt => known.heard_at = now,
            Some(known) => *known = Learner::new(from, attempt, now),
            None => leading.learners.push(Learner::new(from, attempt, now)),
        }
        if leading.phase != Phase::Gathering {
            let session = Session { epoch: leading.epoch, attempt };
            self.send_with_promise(from, Message::NewEpoch(NewEpoch { session }), effects);
        }
    }

    /// Once a quorum said hello: an epoch above all that it has promised.
    fn check_hellos(&mut self, now: Instant, effects: &mut Effects) {
        let State::Leading(leading) = &mut self.state else { return };
        if leading.phase != Phase::Gathering {
            return;
        }
        let present: NodeSet = leading.learners.iter().map(|peer| peer.node).chain([self.node]).collect();
        if !self.membership.quorums().is_election_quorum(&present) {
            return;
        }
        // Above those that were heard of earlier, too: who promised one may be slower than a quorum of others.
        let epoch = self.promised_anywhere.max(self.hard_state.accepted).next();
        if epoch > Epoch::MAX {
            return;
        }
        leading.phase = Phase::Promising;
        leading.epoch = epoch;
        let followers: Vec<(NodeId, Attempt)> =
            leading.learners.iter().map(|peer| (peer.node, peer.attempt)).collect();
        let next = HardState { accepted: epoch, promised_to: Some(self.node), ..self.hard_state };
        self.write_hard_state(now, next, effects);
        for (follower, attempt) in followers {
            let session = Session { epoch, attempt };
            self.send_with_promise(follower, Message::NewEpoch(NewEpoch { session }), effects);
        }
    }

    /// ACK-E: a follower's promise, and its history.
    pub(crate) fn on_ack_epoch(
        &mut self,
        now: Instant,
        from: NodeId,
        message: AckEpoch,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let AckEpoch { session, promised, current, last } = message;
        if current > session.epoch || last.zxid.epoch > session.epoch || !last.is_possible() {
            return Err(Rejection::Place);
        }
        let mine = (self.hard_state.current, self.log.last().zxid);
        let Some((leading, at)) = self.session_with(now, from, session) else { return Ok(()) };
        let learner = &mut leading.learners[at];
        if learner.stage != Stage::Hello {
            return Ok(());
        }
        if leading.phase == Phase::Promising && (current, last.zxid) > mine {
            // What it has and this replica lacks may be decided.
            self.counters.outdone += 1;
            self.become_looking(now, effects);
            return Ok(());
        }
        learner.stage = Stage::Answered { promised, last };
        if leading.phase == Phase::Promising {
            self.check_promises(now, effects);
        } else {
            self.synchronise(from);
        }
        Ok(())
    }

    /// Once a quorum promised, this replica durably included: its history is the initial one of the epoch.
    pub(crate) fn check_promises(&mut self, now: Instant, effects: &mut Effects) {
        let own = self.disk.holds(self.promise_write);
        let State::Leading(leading) = &mut self.state else { return };
        if leading.phase != Phase::Promising || !own {
            return;
        }
        let promised = |peer: &&Learner| matches!(peer.stage, Stage::Answered { promised: true, .. });
        let promises = leading.learners.iter().filter(promised).map(|peer| peer.node);
        let promises: NodeSet = promises.chain([self.node]).collect();
        if !self.membership.quorums().is_election_quorum(&promises) {
            return;
        }
        leading.phase = Phase::Synchronisation;
        leading.ping_at = now;
        let (current, answered) = (leading.epoch, leading.answered());
        self.write_hard_state(now, HardState { current, ..self.hard_state }, effects);
        for follower in answered {
            self.synchronise(follower);
        }
    }

    /// The session that a follower's message belongs to; `None` if that is over or never was.
    pub(crate) fn session_with(
        &mut self,
        now: Instant,
        from: NodeId,
        session: Session,
    ) -> Option<(&mut Leading, usize)> {
        let State::Leading(leading) = &mut self.state else { return None };
        if leading.phase == Phase::Gathering || leading.epoch != session.epoch {
            return None;
        }
        let same = |peer: &Learner| peer.node == from && peer.attempt == session.attempt;
        let at = leading.learners.iter().position(same)?;
        leading.learners[at].heard_at = now;
        Some((leading, at))
    }
}
