//! The acceptor's rules, with nothing around them.

use std::time::Duration;

use synod_core::Instant;

use super::message::{Accepted, Ballot, Message, Prepare, Promise, Propose, Rejected, Release};

/// What one replica remembers, in memory alone.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    /// No lease is remembered for longer, so that the silence after a restart covers every one.
    length_max: Duration,
    /// What a life before this one promised and accepted is not known; until then all of it has ended.
    silent_until: Instant,
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Instant)>,
}

impl Acceptor {
    pub(crate) fn new(now: Instant, length_max: Duration) -> Acceptor {
        Acceptor { length_max, silent_until: now + length_max, promised: None, accepted: None }
    }

    /// Promises to hear no lower ballot; none while it is silent.
    pub(crate) fn on_prepare(&mut self, now: Instant, prepare: Prepare) -> Option<Message> {
        let Prepare { ballot } = prepare;
        if now < self.silent_until {
            return None;
        }
        if self.promised.is_some_and(|promised| promised > ballot) {
            return Some(Message::Rejected(Rejected { ballot, promised: self.promised }));
        }
        self.promised = Some(ballot);
        Some(Message::Promise(Promise { ballot, accepted: self.remembered(now) }))
    }

    /// Remembers the proposer, if this very ballot was promised in this life.
    pub(crate) fn on_propose(&mut self, now: Instant, propose: Propose) -> Option<Message> {
        let Propose { ballot, length } = propose;
        if now < self.silent_until {
            return None;
        }
        let exact = self.promised == Some(ballot);
        if !exact || length > self.length_max {
            return Some(Message::Rejected(Rejected { ballot, promised: self.promised }));
        }
        self.accepted = Some((ballot, now + length));
        Some(Message::Accepted(Accepted { ballot }))
    }

    /// Forgets the holder, if it is this one and this lease of it.
    pub(crate) fn on_release(&mut self, release: Release) {
        if self.accepted.is_some_and(|(ballot, _)| ballot == release.ballot) {
            self.accepted = None;
        }
    }

    fn remembered(&self, now: Instant) -> Option<Ballot> {
        self.holder(now).map(|(ballot, _)| ballot)
    }

    /// The highest ballot promised in this life.
    pub(crate) fn promised(&self) -> Option<Ballot> {
        self.promised
    }

    /// Who is remembered, and until when.
    pub(crate) fn holder(&self, now: Instant) -> Option<(Ballot, Instant)> {
        self.accepted.filter(|(_, until)| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use synod_core::{Incarnation, NodeId};

    use super::*;

    const LENGTH: Duration = Duration::from_secs(5);

    fn ballot(round: u64, proposer: u64) -> Ballot {
        Ballot { round, proposer: NodeId(proposer), life: Incarnation(1) }
    }

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn prepare(round: u64, proposer: u64) -> Prepare {
        Prepare { ballot: ballot(round, proposer) }
    }

    fn propose(round: u64, proposer: u64) -> Propose {
        Propose { ballot: ballot(round, proposer), length: LENGTH }
    }

    #[test]
    fn an_acceptor_is_silent_for_one_full_lease_after_its_start() {
        let mut acceptor = Acceptor::new(at(0), LENGTH);
        assert_eq!(acceptor.on_prepare(at(4), prepare(1, 1)), None);
        assert_eq!(acceptor.on_propose(at(4), propose(1, 1)), None);
        assert!(acceptor.on_prepare(at(5), prepare(1, 1)).is_some());
    }

    #[test]
    fn a_lower_ballot_is_rejected_and_told_why() {
        let mut acceptor = Acceptor::new(at(0), LENGTH);
        acceptor.on_prepare(at(5), prepare(2, 1));
        let rejected = Rejected { ballot: ballot(1, 9), promised: Some(ballot(2, 1)) };
        assert_eq!(acceptor.on_prepare(at(5), prepare(1, 9)), Some(Message::Rejected(rejected)));
    }

    #[test]
    fn a_proposal_whose_promise_was_forgotten_is_rejected() {
        let mut acceptor = Acceptor::new(at(0), LENGTH);
        // The paper's rule would accept: nothing was promised in this life, so nothing higher was.
        let rejected = Rejected { ballot: ballot(1, 1), promised: None };
        assert_eq!(acceptor.on_propose(at(9), propose(1, 1)), Some(Message::Rejected(rejected)));
    }

    #[test]
    fn a_higher_ballot_than_promised_is_rejected_too() {
        let mut acceptor = Acceptor::new(at(0), LENGTH);
        acceptor.on_prepare(at(5), prepare(1, 1));
        assert!(matches!(acceptor.on_propose(at(5), propose(2, 2)), Some(Message::Rejected(_))));
    }

    #[test]
    fn the_holder_is_told_to_whoever_prepares_until_its_time_is_over() {
        let mut acceptor = Acceptor::new(at(0), LENGTH);
        acceptor.on_prepare(at(5), prepare(1, 1));
        acceptor.on_propose(at(6), propose(1, 1));
        let promise =
            |round, accepted| Some(Message::Promise(Promise { ballot: ballot(round, 2), accepted }));
        assert_eq!(acceptor.on_prepare(at(10), prepare(2, 2)), promise(2, Some(ballot(1, 1))));
        assert_eq!(acceptor.on_prepare(at(11), prepare(3, 2)), promise(3, None));
    }

    #[test]
    fn a_late_release_of_an_earlier_lease_changes_nothing() {
        let mut acceptor = Acceptor::new(at(0), LENGTH);
        acceptor.on_prepare(at(5), prepare(2, 1));
        acceptor.on_propose(at(5), propose(2, 1));
        acceptor.on_release(Release { ballot: ballot(1, 1) });
        assert_eq!(acceptor.remembered(at(6)), Some(ballot(2, 1)));
        acceptor.on_release(Release { ballot: ballot(2, 1) });
        assert_eq!(acceptor.remembered(at(6)), None);
    }

    #[test]
    fn a_lease_longer_than_the_silence_after_a_restart_is_refused() {
        let mut acceptor = Acceptor::new(at(0), LENGTH);
        acceptor.on_prepare(at(5), prepare(1, 1));
        let long = Propose { ballot: ballot(1, 1), length: LENGTH + Duration::from_nanos(1) };
        assert!(matches!(acceptor.on_propose(at(5), long), Some(Message::Rejected(_))));
    }
}
