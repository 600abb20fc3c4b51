//! Quorums of a seed.

use synod_core::{Membership, NodeId, NodeSet, QuorumSystem};

use crate::rng::Rng;

/// For protocols whose leaders need any two election quorums to meet: majorities, and now and then other numbers,
/// voices of unequal weight, or a member without a voice.
pub(crate) fn meeting(members: &[NodeId], rng: &mut Rng) -> QuorumSystem {
    let all = members.iter().copied();
    let count = members.len();
    if rng.below(8) > 0 || count == 1 {
        return QuorumSystem::majority(all);
    }
    match rng.below(3) {
        0 => {
            let election = rng.between(count as u64 / 2 + 1, count as u64) as usize;
            let replication = rng.between((count + 1 - election) as u64, count as u64) as usize;
            QuorumSystem::Counted { members: all.collect(), election, replication }
        }
        1 => {
            let heavy = members[rng.index(count)];
            let members: Vec<(NodeId, u32)> = all.map(|node| (node, 1 + u32::from(node == heavy))).collect();
            let total = count as u64 + 1;
            let election = total / 2 + 1;
            QuorumSystem::Weighted { members, election, replication: total + 1 - election }
        }
        _ => {
            let listens = members[rng.index(count)];
            QuorumSystem::majority(all.filter(|node| *node != listens))
        }
    }
}

/// The least number of nodes that hold an election and a replication quorum, whichever nodes they are.
pub(crate) fn least_with_both(membership: &Membership) -> usize {
    let quorums = membership.quorums();
    let nodes: Vec<NodeId> = membership.members().iter().map(|member| member.id).collect();
    let lacking = (0..1u32 << nodes.len()).filter_map(|chosen| {
        let set: NodeSet = (0..nodes.len()).filter(|at| chosen & 1 << at != 0).map(|at| nodes[at]).collect();
        let both = quorums.is_election_quorum(&set) && quorums.is_replication_quorum(&set);
        (!both).then_some(set.len())
    });
    lacking.max().map_or(0, |most| most + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_election_quorums_meet_and_every_kind_of_quorum_is_drawn() {
        let members: Vec<NodeId> = (1..=5).map(NodeId).collect();
        let mut kinds = [0; 4];
        for seed in 0..400 {
            let quorums = meeting(&members, &mut Rng::new(seed));
            kinds[match &quorums {
                QuorumSystem::Majority { members } if members.len() == 5 => 0,
                QuorumSystem::Majority { .. } => 1,
                QuorumSystem::Counted { .. } => 2,
                QuorumSystem::Weighted { .. } => 3,
                other => panic!("{other:?}"),
            }] += 1;
            assert_eq!(quorums.validate(), Ok(()));
            for chosen in 0..1u32 << 5 {
                let side = |inside: bool| {
                    let nodes = (0..5).filter(|at| (chosen & 1 << at != 0) == inside);
                    let set: NodeSet = nodes.map(|at| members[at]).collect();
                    quorums.is_election_quorum(&set)
                };
                assert!(!(side(true) && side(false)), "{quorums:?}");
            }
        }
        assert!(kinds.iter().all(|drawn| *drawn > 5), "{kinds:?}");
    }

    #[test]
    fn the_least_number_counts_on_the_worst_choice_of_nodes() {
        let of = |count: u64, quorums| {
            let members = (1..=count).map(|id| synod_core::Member { id: NodeId(id), address: String::new() });
            let membership = Membership::new(members.collect(), quorums, Default::default()).unwrap();
            least_with_both(&membership)
        };
        let nodes = |count| (1..=count).map(NodeId);
        assert_eq!(of(5, QuorumSystem::majority(nodes(5))), 3);
        assert_eq!(of(5, QuorumSystem::majority(nodes(3))), 4, "two of four may have no voice");
        let counted = QuorumSystem::Counted { members: nodes(3).collect(), election: 3, replication: 1 };
        assert_eq!(of(3, counted), 3);
        let heavy = nodes(5).map(|node| (node, 1 + u32::from(node.0 == 1))).collect();
        assert_eq!(of(5, QuorumSystem::Weighted { members: heavy, election: 4, replication: 3 }), 4);
    }
}
