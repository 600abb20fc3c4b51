//! What replicas say to each other.

use std::fmt;
use std::time::Duration;

use synod_core::{Incarnation, NodeId};

/// A round of one life of one proposer: no two rounds ever share a ballot.
///
/// Ordered by round, then proposer, then life. The life takes the place of the paper's restart counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Rises with every try.
    pub round: u64,
    /// Whose it is.
    pub proposer: NodeId,
    /// In which life.
    pub life: Incarnation,
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.round, self.proposer.0, self.life.0)
    }
}

/// Asks an acceptor to hear no lower ballot, and what it has accepted (step 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The proposer's ballot.
    pub ballot: Ballot,
}

/// Promises, and tells what was accepted and has not ended (step 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The ballot that is answered.
    pub ballot: Ballot,
    /// The ballot under which somebody holds the lease, as this acceptor remembers; it names the holder.
    pub accepted: Option<Ballot>,
}

/// Asks an acceptor to remember the proposer as the holder (step 3). There is nobody else to propose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propose {
    /// The proposer's ballot.
    pub ballot: Ballot,
    /// How long the acceptor shall remember, by its own clock, from when it gets this.
    pub length: Duration,
}

/// The acceptor remembers the proposer (step 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The ballot that is answered.
    pub ballot: Ballot,
}

/// The acceptor has promised otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The ballot that is answered.
    pub ballot: Ballot,
    /// The promise that stands against it; none if there is none in this life.
    pub promised: Option<Ballot>,
}

/// The holder does not hold the lease any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The ballot under which it was accepted.
    pub ballot: Ballot,
}

/// Everything replicas say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Step 1.
    Prepare(Prepare),
    /// Step 2.
    Promise(Promise),
    /// Step 3.
    Propose(Propose),
    /// Step 4.
    Accepted(Accepted),
    /// A no, to step 1 or 3.
    Rejected(Rejected),
    /// The end before its time.
    Release(Release),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |ballot: &Option<Ballot>| ballot.map_or("none".to_owned(), |ballot| ballot.to_string());
        match self {
            Message::Prepare(Prepare { ballot }) => write!(f, "prepare {ballot}"),
            Message::Promise(Promise { ballot, accepted }) => {
                write!(f, "promise {ballot} accepted {}", or_none(accepted))
            }
            Message::Propose(Propose { ballot, length }) => {
                write!(f, "propose {ballot} for {} ms", length.as_millis())
            }
            Message::Accepted(Accepted { ballot }) => write!(f, "accepted {ballot}"),
            Message::Rejected(Rejected { ballot, promised }) => {
                write!(f, "rejected {ballot} promised {}", or_none(promised))
            }
            Message::Release(Release { ballot }) => write!(f, "release {ballot}"),
        }
    }
}
