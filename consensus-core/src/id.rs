//! Newtypes for every number with a meaning.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number! {
    /// One member of a cluster. Unique in the cluster for ever: a wiped member returns under a new id.
    NodeId, "n"
}
number! {
    /// One life of a node: persisted, and one higher at every start. `0` means unknown.
    Incarnation, "life"
}
number! {
    /// A position in the log. The first entry stands at 1; 0 is the position before it.
    LogIndex, ""
}
number! {
    /// A write unit of one incarnation, counted from 1 in issue order. 0 is "before the first".
    WriteId, "w"
}
number! {
    /// One request of a machine to read a range of its log back from storage.
    LoadId, "l"
}
number! {
    /// One barrier read asked of a protocol.
    ReadId, "r"
}
number! {
    /// A client session: the log index of the entry that opened it. 0 stands for "no session".
    ClientId, "c"
}
number! {
    /// The number of a command within its session, from 1.
    Sequence, "#"
}

/// One replicated log among several on the same nodes. Always 0 for now; on the wire from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// A cluster, drawn at random once when the cluster is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl LogIndex {
    /// The position before the first entry.
    pub const ZERO: LogIndex = LogIndex(0);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The position before this one; 0 stays 0.
    #[must_use]
    pub fn prev(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }

    /// The position `count` entries further on, at most `u64::MAX`.
    #[must_use]
    pub fn advance(self, count: u64) -> LogIndex {
        LogIndex(self.0.saturating_add(count))
    }

    /// How many positions `self` lies beyond `earlier`; 0 if it does not.
    #[must_use]
    pub fn distance_from(self, earlier: LogIndex) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl WriteId {
    /// The unit issued before this one; 0 stays 0.
    #[must_use]
    pub fn prev(self) -> WriteId {
        WriteId(self.0.saturating_sub(1))
    }

    /// The unit issued after this one.
    #[must_use]
    pub fn next(self) -> WriteId {
        WriteId(self.0 + 1)
    }
}

impl Sequence {
    /// The next command of the session.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// The storage layer's neutral mark on an entry: the 128 bits under which a protocol last wrote it.
///
/// It holds a Raft term (in `high`), a Paxos ballot (round in `high`, proposer in `low`) or a ZAB zxid
/// (epoch in `high`, counter in `low`). Storages compare and compress it, and read nothing into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The more significant half.
    pub high: u64,
    /// The less significant half.
    pub low: u64,
}

impl Stamp {
    /// Below every stamp that a protocol writes.
    pub const ZERO: Stamp = Stamp { high: 0, low: 0 };
    /// The reserved stamp of a value that was learned as chosen rather than voted for. Above all others.
    pub const CHOSEN: Stamp = Stamp { high: u64::MAX, low: u64::MAX };
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == 0 { write!(f, "{}", self.high) } else { write!(f, "{}.{}", self.high, self.low) }
    }
}

/// One leadership period, ordered, as replicas and services see it: a number and the node that leads.
///
/// Set in an entry by its first proposer and kept when the entry is proposed again, so (unlike
/// [`Stamp`]) it is the same on every replica and state machines may use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reign {
    /// The period: a Raft term, the round of a Paxos ballot, a ZAB epoch.
    pub number: u64,
    /// The node that leads it; breaks ties between equal numbers.
    pub leader: NodeId,
}

impl fmt::Display for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.number, self.leader)
    }
}
