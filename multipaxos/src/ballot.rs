//! Ballots: the numbers under which values are proposed.

use std::fmt;

use synod_core::{NodeId, Reign, Stamp};

/// A ballot (the paper's proposal number): a round, and the proposer that owns it.
///
/// Two proposers never share a ballot. One proposer never uses a ballot twice, not even in another life of its
/// node: its own acceptor has durably promised a ballot before anybody else hears of it, and a proposer starts
/// above that promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// The round; compared first.
    pub round: u64,
    /// The proposer; tells ballots of one round apart.
    pub node: NodeId,
}

impl Ballot {
    /// Below every ballot that is used.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId(0) };

    /// No round is higher: one that campaigned a million times a second would reach it in a hundred thousand years.
    pub const ROUND_MAX: u64 = 1 << 62;

    /// The lowest ballot of `node` that is in a later round than this one. `None` beyond [`Ballot::ROUND_MAX`].
    #[must_use]
    pub fn next_of(self, node: NodeId) -> Option<Ballot> {
        let round = self.round.checked_add(1).filter(|round| *round <= Ballot::ROUND_MAX)?;
        Some(Ballot { round, node })
    }

    /// True for a ballot that some proposer can own.
    #[must_use]
    pub fn is_usable(self) -> bool {
        (1..=Ballot::ROUND_MAX).contains(&self.round) && self.node != NodeId(0)
    }

    /// The mark on entries that were voted for in this ballot.
    #[must_use]
    pub fn stamp(self) -> Stamp {
        Stamp { high: self.round, low: self.node.0 }
    }

    /// The ballot that a stamp stands for; `None` for [`Stamp::CHOSEN`] and for what stands for none.
    #[must_use]
    pub fn of_stamp(stamp: Stamp) -> Option<Ballot> {
        Some(Ballot { round: stamp.high, node: NodeId(stamp.low) }).filter(|ballot| ballot.is_usable())
    }

    /// The mark on entries that were voted for in this ballot's fast round (Fast Paxos), which comes before its
    /// classic one: a bit that no round has.
    #[must_use]
    pub fn fast_stamp(self) -> Stamp {
        Stamp { high: self.round | FAST, low: self.node.0 }
    }

    /// The leadership period of this ballot's proposer.
    #[must_use]
    pub fn reign(self) -> Reign {
        Reign { number: self.round, leader: self.node }
    }
}

/// The round in which a vote was cast. Each slot has up to two for a ballot, both coordinated by the ballot's owner:
/// a fast one, in which acceptors take the first value they hear, and then a classic one. Multi-Paxos uses classic
/// ones alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VoteRound {
    /// The ballot; compared first.
    pub ballot: Ballot,
    /// True for the classic round, which comes after the fast one.
    pub classic: bool,
}

impl VoteRound {
    /// Above every round: what bears [`Stamp::CHOSEN`] needs no other vote beside it.
    pub const CHOSEN: VoteRound =
        VoteRound { ballot: Ballot { round: u64::MAX, node: NodeId(u64::MAX) }, classic: true };

    /// The round that a stamp stands for; `None` for one that stands for no round.
    #[must_use]
    pub fn of_stamp(stamp: Stamp) -> Option<VoteRound> {
        if stamp == Stamp::CHOSEN {
            return Some(VoteRound::CHOSEN);
        }
        let classic = stamp.high & FAST == 0;
        let ballot = Ballot::of_stamp(Stamp { high: stamp.high & !FAST, ..stamp })?;
        Some(VoteRound { ballot, classic })
    }
}

/// Set in the stamps of fast rounds; [`Ballot::ROUND_MAX`] lies below.
const FAST: u64 = 1 << 63;

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_counts_first_and_then_the_proposer() {
        let of = |round, node| Ballot { round, node: NodeId(node) };
        assert!(of(2, 1) > of(1, 9) && of(2, 2) > of(2, 1));
        assert_eq!(of(4, 3).next_of(NodeId(1)), Some(of(5, 1)));
        assert_eq!(of(Ballot::ROUND_MAX, 3).next_of(NodeId(1)), None);
    }

    #[test]
    fn a_stamp_that_is_no_ballot_is_told_apart() {
        let ballot = Ballot { round: 7, node: NodeId(2) };
        assert_eq!(Ballot::of_stamp(ballot.stamp()), Some(ballot));
        assert_eq!(Ballot::of_stamp(ballot.fast_stamp()), None);
        for stamp in [Stamp::CHOSEN, Stamp::ZERO, Stamp { high: 1, low: 0 }, Stamp { high: 0, low: 1 }] {
            assert_eq!(Ballot::of_stamp(stamp), None, "{stamp}");
        }
    }

    #[test]
    fn the_rounds_of_a_ballot_are_neighbours() {
        let (ballot, other) = (Ballot { round: 7, node: NodeId(2) }, Ballot { round: 7, node: NodeId(3) });
        let rounds = [ballot.fast_stamp(), ballot.stamp(), other.fast_stamp(), other.stamp(), Stamp::CHOSEN];
        let rounds = rounds.map(|stamp| VoteRound::of_stamp(stamp).expect("a round"));
        assert!(rounds.windows(2).all(|pair| pair[0] < pair[1]), "{rounds:?}");
        assert_eq!(rounds[0], VoteRound { ballot, classic: false });
        assert_eq!(VoteRound::of_stamp(Stamp { high: FAST, low: 2 }), None);
    }
}
