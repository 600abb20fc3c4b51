//! **RI6** (Raft, figure 2): a node's term never goes back and it votes once a term, across restarts. Checked
//! on what is written, on what is recovered, and on what is said.

use super::HardState;
use crate::observer::{Checked, violation};

/// A hard state follows another one of the same node.
///
/// # Errors
/// RI6.
pub fn follows(node: usize, before: HardState, after: HardState) -> Checked {
    let same_vote = before.vote.is_none() || before.vote == after.vote;
    if after.term > before.term || (after.term == before.term && same_vote) {
        return Ok(());
    }
    Err(violation("RI6", format!("n{} replaced {before} by {after}", node + 1)))
}

/// A node's term in memory goes on from another one.
///
/// # Errors
/// RI6.
pub fn term(node: usize, before: u64, after: u64) -> Checked {
    if after >= before {
        return Ok(());
    }
    Err(violation("RI6", format!("n{} went back from term {before} to {after}", node + 1)))
}

/// A node says that it voted for `candidate`, having said so of `said` before.
///
/// # Errors
/// RI6 if that was somebody else.
pub fn said(node: usize, term: u64, said: Option<usize>, candidate: usize) -> Checked {
    match said {
        Some(other) if other != candidate => Err(violation(
            "RI6",
            format!("n{} voted for n{} and for n{} in term {term}", node + 1, other + 1, candidate + 1),
        )),
        _ => Ok(()),
    }
}
