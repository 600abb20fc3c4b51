//! Which value the next round must propose, given what a phase-1 quorum answered: the heart of the protocol, as a pure
//! function (Fast Paxos, section 3.1 and figure 2, "observation 4").

use synod_core::{NodeId, NodeSet, QuorumSystem};

/// What a coordinator may propose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick<V> {
    /// This value, and no other: it may have been chosen.
    Bound(V),
    /// Any proposed value: none can have been chosen.
    Free,
}

/// Picks from the answers of `answered`, who hold an election quorum: `votes` are all that they cast in the highest
/// round that any of them voted in. Answerers that voted in lower rounds only, or not at all, are in `answered` alone.
///
/// One value is picked even if it has a single vote: the round may have been a classic one. Two values are of a fast
/// round; then a value may have been chosen only if some fast quorum can have voted for it whole: each of its members
/// either did, or did not answer. How many votes that takes depends on how many answered.
///
/// # Panics
/// If two values may both have been chosen. Validated quorums leave room for one.
pub fn pick<V: Copy>(
    quorums: &QuorumSystem,
    answered: &NodeSet,
    votes: &[(NodeId, V)],
    same: impl Fn(V, V) -> bool,
) -> Pick<V> {
    let Some((_, first)) = votes.first() else { return Pick::Free };
    if votes.iter().all(|(_, value)| same(*value, *first)) {
        return Pick::Bound(*first);
    }
    let silent: Vec<NodeId> = quorums.members().iter().filter(|node| !answered.contains(*node)).collect();
    let mut picked: Option<V> = None;
    for (_, value) in votes {
        if picked.is_some_and(|picked| same(picked, *value)) {
            continue;
        }
        let voters = votes.iter().filter(|(_, other)| same(*other, *value)).map(|(node, _)| *node);
        let possible: NodeSet = voters.chain(silent.iter().copied()).collect();
        if quorums.is_fast_quorum(&possible) {
            assert!(picked.is_none(), "F-c: two values of one round may both have been chosen");
            picked = Some(*value);
        }
    }
    picked.map_or(Pick::Free, Pick::Bound)
}

/// Where the choice is free: the value with the most votes, of equals the one with the lowest voter, so that as few
/// proposers as possible have to try again.
pub(crate) fn most_voted<V: Copy>(votes: &[(NodeId, V)], same: impl Fn(V, V) -> bool) -> Option<V> {
    let count = |value: V| votes.iter().filter(|(_, other)| same(*other, value)).count();
    let lowest =
        |value: V| votes.iter().filter(|(_, other)| same(*other, value)).map(|(node, _)| *node).min();
    votes
        .iter()
        .map(|(_, value)| *value)
        .max_by_key(|value| (count(*value), std::cmp::Reverse(lowest(*value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bits: u32) -> NodeSet {
        (0..9u64).filter(|at| bits & 1 << at != 0).map(|at| NodeId(at + 1)).collect()
    }

    fn majority(count: u64) -> QuorumSystem {
        QuorumSystem::majority((1..=count).map(NodeId))
    }

    /// The oracle: is there an execution in which a fast quorum votes for `value`, and those who answered voted as
    /// they said? Whoever did not answer may have voted for it.
    fn may_be_chosen(quorums: &QuorumSystem, answered: u32, votes: &[Option<u8>], value: u8) -> bool {
        (0..1u32 << votes.len()).any(|fast| {
            let consistent = |at: usize| answered & 1 << at == 0 || votes[at] == Some(value);
            quorums.is_fast_quorum(&set(fast))
                && (0..votes.len()).all(|at| fast & 1 << at == 0 || consistent(at))
        })
    }

    /// Every vote pattern of up to `count` acceptors over three values and no vote, every election quorum.
    fn exhaust(quorums: &QuorumSystem, count: u32) -> u64 {
        let mut patterns = 0;
        for answered in (0..1u32 << count).filter(|bits| quorums.is_election_quorum(&set(*bits))) {
            for pattern in 0..4u32.pow(count) {
                let vote = |at: u32| Some((pattern / 4u32.pow(at) % 4) as u8).filter(|vote| *vote > 0);
                let votes: Vec<Option<u8>> = (0..count).map(vote).collect();
                // What did not answer is not seen.
                if (0..count).any(|at| answered & 1 << at == 0 && votes[at as usize].is_some()) {
                    continue;
                }
                let told: Vec<(NodeId, u8)> = (0..count)
                    .filter_map(|at| votes[at as usize].map(|value| (NodeId(u64::from(at) + 1), value)))
                    .collect();
                let picked = pick(quorums, &set(answered), &told, |a, b| a == b);
                let possible: Vec<u8> =
                    (1..=3).filter(|value| may_be_chosen(quorums, answered, &votes, *value)).collect();
                let seen: Vec<u8> =
                    possible.iter().copied().filter(|value| told.iter().any(|(_, v)| v == value)).collect();
                patterns += 1;
                match picked {
                    Pick::Free => assert_eq!(seen, [], "{answered:b} {votes:?}"),
                    // One value alone is picked without asking: the round may have been classic.
                    Pick::Bound(value) if told.iter().all(|(_, other)| *other == value) => {
                        assert!(seen.iter().all(|other| *other == value), "{answered:b} {votes:?}");
                    }
                    Pick::Bound(value) => assert_eq!(seen, [value], "{answered:b} {votes:?}"),
                }
                // A fast quorum that no answerer has a vote of could choose a value that nobody saw.
                assert!(told.is_empty() || possible.len() == seen.len(), "{answered:b} {votes:?}");
            }
        }
        patterns
    }

    #[test]
    fn picks_what_some_fast_quorum_may_have_chosen_for_every_pattern_up_to_five_acceptors() {
        let mut patterns = 0;
        for count in 1..=5u32 {
            patterns += exhaust(&majority(u64::from(count)), count);
        }
        let fast = |election, fast| {
            QuorumSystem::fast((1..=5).map(NodeId), election, 6 - election, fast).expect("they meet")
        };
        patterns += exhaust(&fast(4, 4), 5) + exhaust(&fast(5, 3), 5);
        let rows = vec![set(0b11), set(0b11100)];
        patterns += exhaust(&QuorumSystem::Grid { rows }, 5);
        assert!(patterns > 5_000, "{patterns}");
    }

    #[test]
    fn the_threshold_depends_on_how_many_answered() {
        // For each cluster and number of answers: the least votes for one of two values that bind.
        let table: [(u64, &[(usize, usize)]); 4] = [
            (4, &[(3, 2), (4, 3)]),
            (5, &[(3, 2), (4, 3), (5, 4)]),
            (7, &[(4, 3), (5, 4), (6, 5), (7, 6)]),
            (9, &[(5, 3), (6, 4), (7, 5), (8, 6), (9, 7)]),
        ];
        for (count, rows) in table {
            for (answers, least) in rows {
                let answered: NodeSet = (1..=*answers as u64).map(NodeId).collect();
                for votes in 1..*answers {
                    // The other answers are all different: they bind nothing.
                    let value = |at: usize| if at < votes { 0 } else { at };
                    let told: Vec<(NodeId, usize)> =
                        (0..*answers).map(|at| (NodeId(at as u64 + 1), value(at))).collect();
                    let bound = pick(&majority(count), &answered, &told, |a, b| a == b) == Pick::Bound(0);
                    assert_eq!(bound, votes >= *least, "{votes} of {answers} answers of {count}");
                }
            }
        }
    }

    #[test]
    fn where_the_choice_is_free_most_votes_win_and_then_the_lowest_voter() {
        let votes = [(NodeId(1), 7), (NodeId(2), 8), (NodeId(3), 8), (NodeId(4), 7), (NodeId(5), 9)];
        assert_eq!(most_voted(&votes, |a, b| a == b), Some(7));
        assert_eq!(most_voted(&votes[1..], |a, b| a == b), Some(8));
        assert_eq!(most_voted::<u8>(&[], |a, b| a == b), None);
    }

    #[test]
    #[should_panic(expected = "two values")]
    fn quorums_that_do_not_meet_are_not_papered_over() {
        // Three of five, as some implementations have it: two values look chosen.
        let members = (1..=5).map(NodeId).collect();
        let unsafe_quorums = QuorumSystem::Fast { members, election: 3, replication: 3, fast: 3 };
        let votes = [(NodeId(1), 1), (NodeId(2), 1), (NodeId(3), 2), (NodeId(4), 2)];
        let answered = [1, 2, 3, 4].map(NodeId).into_iter().collect();
        let _ = pick(&unsafe_quorums, &answered, &votes, |a, b| a == b);
    }
}
