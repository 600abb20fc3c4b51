//! The quorums of a cluster, worked out once for every set of its nodes.

use synod_core::{Membership, NodeId, NodeSet, QuorumSystem};

use super::ballots::fast::least_fast;

/// How many nodes an observer has room for.
pub const NODES_MAX: usize = 9;

/// For each set of nodes, as bits: what it may do.
#[derive(Debug)]
pub struct Quorums {
    election: Vec<bool>,
    replication: Vec<bool>,
    fast: Vec<bool>,
}

impl Quorums {
    /// The table of a membership.
    ///
    /// # Panics
    /// If there are more than [`NODES_MAX`] members.
    #[must_use]
    pub fn new(membership: &Membership) -> Quorums {
        let count = membership.members().len();
        assert!(count <= NODES_MAX, "an observer has room for {NODES_MAX} nodes");
        let quorums = membership.quorums();
        let table = |is: &dyn Fn(&NodeSet) -> bool| {
            let nodes = |set: u32| (0..count as u32).filter(move |at| set & (1 << at) != 0);
            (0..1u32 << count)
                .map(|set| is(&nodes(set).map(|at| NodeId(u64::from(at) + 1)).collect()))
                .collect()
        };
        Quorums {
            election: table(&|nodes| quorums.is_election_quorum(nodes)),
            replication: table(&|nodes| quorums.is_replication_quorum(nodes)),
            fast: match fast_sizes(quorums, count) {
                Some(least) => (0..1u32 << count).map(|set| set.count_ones() as usize >= least).collect(),
                None => table(&|nodes| quorums.is_fast_quorum(nodes)),
            },
        }
    }

    /// True if these nodes hold an election quorum.
    #[must_use]
    pub fn elect(&self, set: u16) -> bool {
        self.election[usize::from(set)]
    }

    /// True if these nodes hold a replication quorum.
    #[must_use]
    pub fn replicate(&self, set: u16) -> bool {
        self.replication[usize::from(set)]
    }

    /// True if these nodes hold a fast quorum.
    #[must_use]
    pub fn decide_fast(&self, set: u16) -> bool {
        self.fast[usize::from(set)]
    }
}

/// Where members count alike, the size of a fast quorum is found by trying, not asked for.
fn fast_sizes(quorums: &QuorumSystem, count: usize) -> Option<usize> {
    match quorums {
        QuorumSystem::Majority { .. } => Some(least_fast(count / 2 + 1, count)),
        QuorumSystem::Counted { election, .. } => Some(least_fast(*election, count)),
        QuorumSystem::Fast { election, fast, .. } => Some(least_fast(*election, count).max(*fast)),
        _ => None,
    }
}
