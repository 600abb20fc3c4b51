//! **PV** (Raft thesis, section 9.6): a node campaigns in a term only after an election quorum, itself included,
//! said that it would vote for it there. So a node that lost touch never disturbs those who have not. And they hold
//! a replication quorum too: a leader that can decide nothing steps down again, and elections would follow each other.
//! Who says that it campaigns because the leader wants it to was asked by the leader of the term before (section 3.10).

use synod_core::{NodeId, NodeSet, QuorumSystem};

use crate::observer::{Checked, violation};

/// A node campaigns in `term`; `supporters` has a bit for each node that said it would vote for it there.
///
/// # Errors
/// PV if they are no election quorum, or no replication quorum.
pub fn check(node: usize, term: u64, supporters: u16, quorums: &QuorumSystem) -> Checked {
    let all = supporters | 1 << node;
    let members: NodeSet = (0..16).filter(|at| all & (1 << at) != 0).map(|at| NodeId(at + 1)).collect();
    if quorums.is_election_quorum(&members) && quorums.is_replication_quorum(&members) {
        return Ok(());
    }
    Err(violation("PV", format!("n{} campaigns in term {term} without the support of a quorum", node + 1)))
}

/// A node campaigns in `term` as the successor of its leader; `successors` has a bit for each node that was asked to.
///
/// # Errors
/// PV if it was not.
pub fn check_successor(node: usize, term: u64, successors: u16) -> Checked {
    if successors & (1 << node) != 0 {
        return Ok(());
    }
    Err(violation(
        "PV",
        format!("n{} campaigns in term {term} as a successor, and nobody asked it", node + 1),
    ))
}
