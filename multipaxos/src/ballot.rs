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

    /// The leadership period of this ballot's proposer.
    #[must_use]
    pub fn reign(self) -> Reign {
        Reign { number: self.round, leader: self.node }
    }
}

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
        for stamp in [Stamp::CHOSEN, Stamp::ZERO, Stamp { high: 1, low: 0 }, Stamp { high: 0, low: 1 }] {
            assert_eq!(Ballot::of_stamp(stamp), None, "{stamp}");
        }
    }
}
