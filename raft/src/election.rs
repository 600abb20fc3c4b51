//! Elections: pre-vote, vote, and how long a leader is believed in (sections 5.2 and 5.4.1; thesis 9.6).

use synod_core::{Instant, NodeId, NodeSet};

use crate::codec::HardState;
use crate::message::{Message, Position, PreVote, PreVoteReply, Term, Vote, VoteReply};
use crate::raft::{Effects, Raft, State};

impl Raft {
    /// No leader was heard and no vote given for a whole wait, or an election led nowhere.
    pub(crate) fn on_election_due(&mut self, now: Instant, effects: &mut Effects) {
        let vote_is_pending =
            matches!(self.state, State::Candidate { .. }) && !self.disk.holds(self.vote_write);
        if vote_is_pending || self.disk.is_stalled(now, self.config.election_timeout) {
            // Another term would not make the disk faster, and without a disk there is no vote.
            self.draw_election_wait(now);
            return;
        }
        // Each wait is an election timeout or longer from the last word of a leader, and from a start.
        debug_assert!(
            !self.promise.binds(now),
            "a replica keeps its promise to a leader, towards itself too"
        );
        self.become_pre_candidate(now, effects);
    }

    /// Asks whether an election could be won, before any term or vote is spent on it.
    fn become_pre_candidate(&mut self, now: Instant, effects: &mut Effects) {
        self.draw_election_wait(now);
        if !self.may_campaign() {
            return;
        }
        self.counters.pre_votes += 1;
        let votes: NodeSet = [self.node].into_iter().collect();
        if self.could_lead(&votes) {
            self.become_candidate(now, false, effects);
            return;
        }
        self.state = State::PreCandidate { votes };
        let ask = Message::PreVote(PreVote { term: self.term().next(), last: self.log.last() });
        for voter in self.other_voters() {
            self.send_with_term(voter, ask.clone(), effects);
        }
    }

    /// True for a voter, as long as there is a term to campaign in.
    pub(crate) fn may_campaign(&self) -> bool {
        self.voter && self.term() < Term::MAX
    }

    /// Moves to the next term and votes for itself. Both are durable before anybody is asked, and before
    /// the own vote counts. With `transfer` it is the leader's wish.
    pub(crate) fn become_candidate(&mut self, now: Instant, transfer: bool, effects: &mut Effects) {
        assert!(!matches!(self.state, State::Leader(_)), "a leader does not campaign");
        self.counters.elections += 1;
        self.draw_election_wait(now);
        let term = self.term().next();
        self.state = State::Candidate { votes: NodeSet::new(), transfer };
        self.write_hard_state(now, HardState { term, voted_for: Some(self.node) }, effects);
        let ask = Message::Vote(Vote { term, last: self.log.last(), transfer });
        for voter in self.other_voters() {
            self.send_with(self.vote_write, voter, ask.clone(), effects);
        }
    }

    /// Something became durable while this replica is a candidate: perhaps its own vote.
    pub(crate) fn on_vote_durable(&mut self, now: Instant, effects: &mut Effects) {
        if self.disk.holds(self.vote_write) {
            self.count_vote(now, self.node, effects);
        }
    }

    pub(crate) fn on_pre_vote(&mut self, now: Instant, from: NodeId, ask: PreVote, effects: &mut Effects) {
        let PreVote { term: asked, last } = ask;
        if asked > self.term() && self.is_loyal(now) {
            self.counters.requests_ignored += 1;
            return;
        }
        // A denial carries this replica's term: an asker that has fallen behind moves to it.
        let granted = asked > self.term() && self.is_up_to_date(last);
        let reply = Message::PreVoteReply(PreVoteReply { term: self.term(), asked, granted });
        self.send_with_term(from, reply, effects);
    }

    pub(crate) fn on_pre_vote_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        reply: PreVoteReply,
        effects: &mut Effects,
    ) {
        self.adopt_newer(now, reply.term, effects);
        let asked = self.term().next();
        let State::PreCandidate { votes } = &mut self.state else { return };
        if !reply.granted || reply.asked != asked {
            return;
        }
        votes.insert(from);
        let votes = votes.clone();
        if self.could_lead(&votes) {
            self.become_candidate(now, false, effects);
        }
    }

    /// True if these could elect a leader and decide under it. A leader that hears no replication quorum steps
    /// down: campaigning with fewer would begin one term after the other for as long as a partition lasts.
    fn could_lead(&self, supporters: &NodeSet) -> bool {
        self.quorums().is_election_quorum(supporters) && self.quorums().is_replication_quorum(supporters)
    }

    pub(crate) fn on_vote(&mut self, now: Instant, from: NodeId, ask: Vote, effects: &mut Effects) {
        let Vote { term, last, transfer } = ask;
        if term >= self.term() && !transfer && self.is_loyal(now) {
            // Its term is not adopted either: whoever lost touch must not disturb those who have not. A successor was
            // asked by the leader of the term before its own: no later leader was promised anything.
            self.counters.requests_ignored += 1;
            return;
        }
        self.adopt_newer(now, term, effects);
        if term == self.term() && self.is_up_to_date(last) {
            if self.voted_for().is_none() {
                assert!(!matches!(self.state, State::Candidate { .. }), "a candidate has voted for itself");
                // A pre-candidate gives its own attempt up for this one.
                self.become_follower(now, None, effects);
                self.write_hard_state(now, HardState { term, voted_for: Some(from) }, effects);
                self.election_at = now + self.election_wait;
            }
            if self.voted_for() == Some(from) {
                let reply = Message::VoteReply(VoteReply { term, granted: true });
                self.send_with(self.vote_write, from, reply, effects);
                return;
            }
        }
        let reply = Message::VoteReply(VoteReply { term: self.term(), granted: false });
        self.send_with_term(from, reply, effects);
    }

    pub(crate) fn on_vote_reply(
        &mut self,
        now: Instant,
        from: NodeId,
        reply: VoteReply,
        effects: &mut Effects,
    ) {
        self.adopt_newer(now, reply.term, effects);
        if reply.granted && reply.term == self.term() {
            self.count_vote(now, from, effects);
        }
    }

    /// A vote of the current term that is durable where it was given.
    fn count_vote(&mut self, now: Instant, from: NodeId, effects: &mut Effects) {
        let State::Candidate { votes, transfer } = &mut self.state else { return };
        votes.insert(from);
        let transfer = *transfer;
        // Its own vote is one of them: until it is durable, the disk may be too slow to lead.
        if votes.contains(self.node) && self.membership.quorums().is_election_quorum(votes) {
            self.counters.transfers_won += u64::from(transfer);
            self.become_leader(now, effects);
        }
    }

    /// True if this replica votes for nobody: it hears a leader, or promised one that it heard to wait.
    fn is_loyal(&self, now: Instant) -> bool {
        self.hears_leader(now) || self.promise.binds(now)
    }

    /// True if a leader was heard within the shortest election timeout, or is this replica.
    fn hears_leader(&self, now: Instant) -> bool {
        match &self.state {
            State::Leader(_) => true,
            State::Follower(follower) => {
                follower.leader.is_some_and(|leader| now - leader.heard_at < self.config.election_timeout)
            }
            State::PreCandidate { .. } | State::Candidate { .. } => false,
        }
    }

    /// True if a log that ends at `last` holds everything that can be decided as far as this one tells.
    fn is_up_to_date(&self, last: Position) -> bool {
        last >= self.log.last()
    }

    fn other_voters(&self) -> Vec<NodeId> {
        self.quorums().members().iter().filter(|voter| *voter != self.node).collect()
    }
}
