//! The acceptor, and the one rule that it obeys.

use crate::ballot::Ballot;

/// The acceptor's rule (section 2.2, P1a and the promise): the very code that [`Acceptor`] and
/// [`crate::MultiPaxos`] both ask.
///
/// Its ballot never falls, and must be durable before anything that rests on it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promised(Ballot);

impl Promised {
    /// The rule of an acceptor that has promised `ballot`.
    #[must_use]
    pub fn new(ballot: Ballot) -> Promised {
        Promised(ballot)
    }

    /// The highest ballot promised: no part is taken in any lower one.
    #[must_use]
    pub fn ballot(self) -> Ballot {
        self.0
    }

    /// Phase 1: promises `ballot`. True if that is a new promise; a repeated request is answered again.
    ///
    /// # Errors
    /// [`Rejected`] if a higher ballot was promised.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<bool, Rejected> {
        self.join(ballot)
    }

    /// Phase 2: joins `ballot`, to vote in it. True if that is a new promise as well.
    ///
    /// # Errors
    /// [`Rejected`] if a higher ballot was promised.
    pub fn accept(&mut self, ballot: Ballot) -> Result<bool, Rejected> {
        self.join(ballot)
    }

    fn join(&mut self, ballot: Ballot) -> Result<bool, Rejected> {
        if ballot < self.0 {
            return Err(Rejected { ballot, promised: self.0 });
        }
        let raised = ballot > self.0;
        self.0 = ballot;
        Ok(raised)
    }
}

/// From a proposer to every acceptor: take part in no lower ballot, and tell your last vote. (Phase 1a.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The proposer's ballot.
    pub ballot: Ballot,
}

/// From an acceptor to a proposer, after the promise is durable. (Phase 1b.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise<V> {
    /// The ballot promised.
    pub ballot: Ballot,
    /// The vote of the highest ballot that the sender ever cast.
    pub vote: Option<Vote<V>>,
}

/// A vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote<V> {
    /// The ballot it was cast in.
    pub ballot: Ballot,
    /// The value it was cast for.
    pub value: V,
}

/// From a proposer to every acceptor: vote for this. (Phase 2a.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept<V> {
    /// The proposer's ballot.
    pub ballot: Ballot,
    /// The one value of this ballot.
    pub value: V,
}

/// From an acceptor to learners, after the vote is durable. (Phase 2b.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted<V> {
    /// The vote cast.
    pub vote: Vote<V>,
}

/// From an acceptor to a proposer that comes too late. Only a hint: ignoring it is as safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The ballot that was asked for.
    pub ballot: Ballot,
    /// What the sender has promised; higher.
    pub promised: Ballot,
}

/// One acceptor of one value.
///
/// Its whole state, [`Acceptor::promised`] and [`Acceptor::vote`], must be durable before what the methods
/// return is sent, and a restart continues with it: [`Acceptor::recover`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptor<V> {
    promised: Promised,
    vote: Option<Vote<V>>,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Acceptor { promised: Promised::default(), vote: None }
    }
}

impl<V: Clone> Acceptor<V> {
    /// The acceptor that stood like this before a restart.
    #[must_use]
    pub fn recover(promised: Ballot, vote: Option<Vote<V>>) -> Acceptor<V> {
        Acceptor { promised: Promised::new(promised), vote }
    }

    /// The highest ballot promised.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.promised.ballot()
    }

    /// The vote of the highest ballot that was cast.
    #[must_use]
    pub fn vote(&self) -> Option<&Vote<V>> {
        self.vote.as_ref()
    }

    /// Phase 1b.
    ///
    /// # Errors
    /// [`Rejected`], to be sent instead.
    pub fn on_prepare(&mut self, prepare: Prepare) -> Result<Promise<V>, Rejected> {
        self.promised.prepare(prepare.ballot)?;
        Ok(Promise { ballot: prepare.ballot, vote: self.vote.clone() })
    }

    /// Phase 2b.
    ///
    /// # Errors
    /// [`Rejected`], to be sent instead.
    pub fn on_accept(&mut self, accept: Accept<V>) -> Result<Accepted<V>, Rejected> {
        self.promised.accept(accept.ballot)?;
        let vote = Vote { ballot: accept.ballot, value: accept.value };
        self.vote = Some(vote.clone());
        Ok(Accepted { vote })
    }
}
