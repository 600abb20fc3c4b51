//! Fast rounds, in which acceptors vote for the first value they hear of.
//!
//! | name | what must hold | source |
//! |---|---|---|
//! | F-a | an acceptor votes once in a slot's round, across restarts | Fast Paxos, 2.1 |
//! | F-b | what is decided where values are only in fast rounds, a fast quorum has voted for in one of them | 2.2 |
//! | F-c | whatever election quorum answers the next round, its coordinator is bound to the chosen value | 2.2, figure 2 |
//! | F-d | nothing is proposed or voted for in fast rounds that their coordinator has not opened | 2.2, "any" |

use std::collections::BTreeSet;
use std::fmt;

use synod_core::{Membership, NodeId, NodeSet, QuorumSystem, Stamp};

use crate::observer::{Checked, violation};

/// A round of one slot: the fast one of a ballot, or the classic one, which comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Round {
    /// The ballot; compared first.
    pub ballot: Stamp,
    /// False for the fast one.
    pub classic: bool,
}

impl Round {
    /// The classic round of a ballot: the only one there is without fast rounds.
    #[must_use]
    pub fn classic(ballot: Stamp) -> Round {
        Round { ballot, classic: true }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.classic { "ballot" } else { "fast round of ballot" };
        write!(f, "{kind} {}", self.ballot)
    }
}

/// F-a.
///
/// # Errors
/// F-a if the node has voted for another value in this round.
pub fn one_vote(node: usize, slot: u64, round: Round, voted_otherwise: bool) -> Checked {
    if voted_otherwise {
        return Err(violation("F-a", format!("n{} votes twice in the {round}, slot {slot}", node + 1)));
    }
    Ok(())
}

/// F-d.
///
/// # Errors
/// F-d if a value stands in a fast round that is not open.
pub fn opened(node: usize, slot: u64, round: Round, from: Option<u64>) -> Checked {
    if from.is_some_and(|from| slot >= from) {
        return Ok(());
    }
    Err(violation("F-d", format!("n{}: slot {slot} of the {round} is not open to all", node + 1)))
}

/// What one node's durable vote in a slot means for the round in which something was chosen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// None, or one in a lower round.
    Lower,
    /// One in that round, for this value.
    Same(u64),
    /// One in a higher round: M2 judges it.
    Higher,
}

/// The check of F-c: every pattern of votes once.
#[derive(Debug)]
pub struct Picks {
    quorums: QuorumSystem,
    seen: BTreeSet<Vec<u8>>,
}

impl Picks {
    /// Nothing checked yet.
    #[must_use]
    pub fn new(membership: &Membership) -> Picks {
        Picks { quorums: membership.quorums().clone(), seen: BTreeSet::new() }
    }

    /// Asks `pick` for every election quorum that could answer: the value it is bound to, or none. `answers` has one
    /// for each node.
    ///
    /// # Errors
    /// F-c if it is not bound to `chosen`.
    pub fn check(
        &mut self,
        slot: u64,
        chosen: u64,
        answers: &[Answer],
        pick: impl Fn(&QuorumSystem, &NodeSet, &[(NodeId, u64)]) -> Option<u64>,
    ) -> Checked {
        let pattern = pattern(chosen, answers);
        if self.seen.contains(&pattern) {
            return Ok(());
        }
        let nodes = answers.len();
        for set in 0..1u32 << nodes {
            let members = (0..nodes).filter(|at| set & 1 << at != 0);
            if members.clone().any(|at| answers[at] == Answer::Higher) {
                continue;
            }
            let answered: NodeSet = members.clone().map(|at| NodeId(at as u64 + 1)).collect();
            if !self.quorums.is_election_quorum(&answered) {
                continue;
            }
            let votes: Vec<(NodeId, u64)> = members
                .filter_map(|at| match answers[at] {
                    Answer::Same(value) => Some((NodeId(at as u64 + 1), value)),
                    Answer::Lower | Answer::Higher => None,
                })
                .collect();
            if pick(&self.quorums, &answered, &votes) != Some(chosen) {
                return Err(violation(
                    "F-c",
                    format!("slot {slot}: the answers of {answered} do not bind to the chosen value"),
                ));
            }
        }
        self.seen.insert(pattern);
        Ok(())
    }
}

/// The answers with values in the order of their appearance, the chosen one first.
fn pattern(chosen: u64, answers: &[Answer]) -> Vec<u8> {
    let mut values = vec![chosen];
    let number = |answer: &Answer| match answer {
        Answer::Lower => 0,
        Answer::Higher => 1,
        Answer::Same(value) => {
            let at = values.iter().position(|known| known == value).unwrap_or_else(|| {
                values.push(*value);
                values.len() - 1
            });
            u8::try_from(at + 2).unwrap_or(u8::MAX)
        }
    };
    answers.iter().map(number).collect()
}

/// The least size of fast quorums beside election quorums of at least `election` of `count` nodes, by trying all: such
/// an election quorum and two fast ones have a node in common.
#[must_use]
pub fn least_fast(election: usize, count: usize) -> usize {
    let of = |size: usize| (0u32..1 << count).filter(move |set| set.count_ones() as usize == size);
    let meets = |fast: usize| {
        of(fast).all(|first| of(fast).all(|second| of(election).all(|elects| elects & first & second != 0)))
    };
    (1..=count).find(|fast| meets(*fast)).unwrap_or(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_round_of_a_ballot_follows_its_fast_one() {
        let ballot = |high| Stamp { high, low: 1 };
        let fast = Round { ballot: ballot(2), classic: false };
        assert!(fast < Round::classic(ballot(2)) && fast > Round::classic(ballot(1)));
    }

    #[test]
    fn fast_quorums_are_those_of_the_paper() {
        let sizes = [(2, 3, 3), (3, 4, 3), (3, 5, 4), (4, 6, 5), (4, 7, 6), (5, 9, 7), (3, 3, 2), (4, 5, 4)];
        for (election, count, fast) in sizes {
            assert_eq!(least_fast(election, count), fast, "{election} of {count}");
        }
    }

    #[test]
    fn second_votes_closed_rounds_and_picks_that_stray_are_caught() {
        let round = Round { ballot: Stamp { high: 2, low: 1 }, classic: false };
        assert!(one_vote(0, 1, round, false).is_ok() && one_vote(0, 1, round, true).is_err());
        assert!(opened(0, 5, round, Some(5)).is_ok());
        assert!(opened(0, 4, round, Some(5)).is_err() && opened(0, 4, round, None).is_err());
        let membership = Membership::of_ids(1..=4).expect("a membership");
        let answers = [Answer::Same(7), Answer::Same(7), Answer::Same(7), Answer::Same(8)];
        let mut picks = Picks::new(&membership);
        assert!(picks.check(1, 7, &answers, |_, _, votes| votes.last().map(|(_, value)| *value)).is_err());
        assert!(picks.check(1, 7, &answers, |_, _, _| Some(7)).is_ok());
        // The same pattern needs no second look.
        let renamed = [Answer::Same(3), Answer::Same(3), Answer::Same(3), Answer::Same(9)];
        assert!(picks.check(2, 3, &renamed, |_, _, _| None).is_ok());
    }
}
