//! Fast quorums: which sets of members decide in a round in which every member takes the first value it hears.
//!
//! Two members of such a round may vote for different values. So a later election must be able to tell which of two
//! values may have been decided: every election quorum meets the intersection of any two fast quorums (Lamport, "Fast
//! Paxos", section 2.2; without the requirements that it does not need: "Fast Flexible Paxos", 2021).

use super::{NodeSet, QuorumError, QuorumSystem, weight_of};
use crate::NodeId;

impl QuorumSystem {
    /// True if `nodes` (members or not) hold a fast quorum: the smallest sets that [`QuorumSystem::validate`] would
    /// accept beside the election quorums, or what [`QuorumSystem::Fast`] names.
    #[must_use]
    pub fn is_fast_quorum(&self, nodes: &NodeSet) -> bool {
        match self {
            QuorumSystem::Majority { members } => {
                nodes.count_in(members) >= fast_len(members.len() / 2 + 1, members.len())
            }
            QuorumSystem::Counted { members, election, .. } => {
                nodes.count_in(members) >= fast_len(*election, members.len())
            }
            QuorumSystem::Fast { members, fast, .. } => nodes.count_in(members) >= *fast,
            QuorumSystem::Weighted { members, election, .. } => {
                let total = weight_of(members, |_| true);
                // Twice the weight and the election's exceed twice the total: then the three sets meet.
                2 * weight_of(members, |node| nodes.contains(node)) + election > 2 * total
            }
            QuorumSystem::Grid { rows } => rows.iter().all(|row| 2 * nodes.count_in(row) > row.len()),
            QuorumSystem::Joint { old, new } => old.is_fast_quorum(nodes) && new.is_fast_quorum(nodes),
        }
    }

    /// Fast quorums of `fast` members beside election quorums of `election` and replication quorums of `replication`.
    ///
    /// # Errors
    /// [`QuorumError`]; quorums that do not meet are named.
    pub fn fast(
        members: impl IntoIterator<Item = NodeId>,
        election: usize,
        replication: usize,
        fast: usize,
    ) -> Result<QuorumSystem, QuorumError> {
        let members = members.into_iter().collect();
        let system = QuorumSystem::Fast { members, election, replication, fast };
        system.validate()?;
        Ok(system)
    }
}

/// The least number of members such that any two sets of them and any `election` members have one in common.
fn fast_len(election: usize, members: usize) -> usize {
    (1..=members).find(|fast| three_meet(election, *fast, members)).unwrap_or(members)
}

/// True if any `election` and twice any `fast` of `members` have a member in common: those that one of the three
/// leaves out may be all there are, but not one fewer.
fn three_meet(election: usize, fast: usize, members: usize) -> bool {
    let left_out = members.saturating_sub(election) + 2 * members.saturating_sub(fast);
    left_out < members
}

/// Checks the fast quorums of a counted system.
pub(super) fn validate(members: &NodeSet, election: usize, fast: usize) -> Result<(), QuorumError> {
    if fast == 0 || fast > members.len() {
        return Err(QuorumError::Size { size: fast, members: members.len() });
    }
    if three_meet(election, fast, members.len()) {
        return Ok(());
    }
    // The election leaves out the first members, one fast quorum the next ones, the other the rest.
    let all: Vec<NodeId> = members.iter().collect();
    let without = |from: usize, count: usize| -> NodeSet {
        let gone = from..from + count;
        all.iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, node)| *node).collect()
    };
    let (not_elected, not_fast) = (all.len() - election, all.len() - fast);
    Err(QuorumError::FastDisjoint {
        election: without(0, not_elected),
        first: without(not_elected, not_fast),
        second: without(not_elected + not_fast, not_fast),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{nodes, subsets};
    use super::*;

    /// Brute force: every election quorum meets the intersection of any two fast quorums. Looks at minimal sets only,
    /// which is enough because a superset of a quorum is one.
    fn three_way(system: &QuorumSystem) -> bool {
        let all = subsets(&system.members());
        let minimal = |is: &dyn Fn(&NodeSet) -> bool| -> Vec<NodeSet> {
            let smaller = |set: &NodeSet| {
                set.iter().any(|node| {
                    let mut rest = set.clone();
                    rest.remove(node);
                    is(&rest)
                })
            };
            all.iter().filter(|set| is(set) && !smaller(set)).cloned().collect()
        };
        let elections = minimal(&|set| system.is_election_quorum(set));
        let fasts = minimal(&|set| system.is_fast_quorum(set));
        fasts.iter().enumerate().all(|(at, first)| {
            fasts[at..].iter().all(|second| {
                let both: Vec<NodeId> = first.iter().filter(|node| second.contains(*node)).collect();
                elections.iter().all(|election| both.iter().any(|node| election.contains(*node)))
            })
        })
    }

    #[test]
    fn validation_of_counts_agrees_with_brute_force_for_every_count_up_to_nine() {
        for count in 1..=9usize {
            for election in 1..=count {
                for fast in 1..=count {
                    let members = nodes(count as u64);
                    let system = QuorumSystem::Fast { members, election, replication: count, fast };
                    assert_eq!(system.validate().is_ok(), brute(count, election, fast), "{system}");
                }
            }
        }
    }

    /// As `three_way`, on bits: all sets of nine members are too many for sets of nodes.
    fn brute(count: usize, election: usize, fast: usize) -> bool {
        let of = |size: usize| (0u32..1 << count).filter(move |set| set.count_ones() as usize == size);
        of(fast).all(|a| of(fast).all(|b| of(election).all(|q| q & a & b != 0)))
    }

    #[test]
    fn the_error_names_an_election_quorum_and_two_fast_ones_without_a_common_member() {
        for (count, election, fast) in [(3, 2, 2), (5, 3, 3), (7, 4, 5), (9, 5, 6), (5, 2, 4)] {
            let members = nodes(count);
            let system = QuorumSystem::Fast { members, election, replication: count as usize, fast };
            let Err(QuorumError::FastDisjoint { election, first, second }) = system.validate() else {
                panic!("{system} was accepted");
            };
            assert!(system.is_election_quorum(&election), "{election}");
            assert!(system.is_fast_quorum(&first) && system.is_fast_quorum(&second), "{first} {second}");
            assert!(election.iter().all(|node| !(first.contains(node) && second.contains(node))));
        }
    }

    #[test]
    fn the_fast_quorums_of_every_system_meet_and_of_counts_are_the_smallest_that_do() {
        // Fast Paxos, section 2.3; the smallest that validate, by brute force.
        for (count, least) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 6), (8, 6), (9, 7)] {
            let election = count as usize / 2 + 1;
            assert_eq!(fast_len(election, count as usize), least, "{count}");
            assert!(brute(count as usize, election, least));
            assert!(least == 1 || !brute(count as usize, election, least - 1));
        }
        let grid = |rows: &[&[u64]]| QuorumSystem::Grid {
            rows: rows.iter().map(|row| row.iter().copied().map(NodeId).collect()).collect(),
        };
        let systems = [
            QuorumSystem::majority(nodes(5).iter()),
            QuorumSystem::Counted { members: nodes(5), election: 5, replication: 1 },
            QuorumSystem::Counted { members: nodes(6), election: 5, replication: 2 },
            grid(&[&[1, 2, 3], &[4, 5, 6]]),
            grid(&[&[1, 2], &[3, 4, 5]]),
            QuorumSystem::Weighted {
                members: vec![(NodeId(1), 3), (NodeId(2), 1), (NodeId(3), 1), (NodeId(4), 2)],
                election: 4,
                replication: 4,
            },
            QuorumSystem::Joint {
                old: Box::new(QuorumSystem::majority([1, 2, 3].map(NodeId))),
                new: Box::new(QuorumSystem::majority([2, 3, 4, 5].map(NodeId))),
            },
        ];
        for system in systems {
            assert_eq!(system.validate(), Ok(()), "{system}");
            assert!(three_way(&system), "{system}");
        }
    }
}
