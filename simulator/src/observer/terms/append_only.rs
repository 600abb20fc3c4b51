//! **RI2 Leader Append-Only** (Raft, section 5.3): a leader never overwrites or deletes entries in its log; it
//! only appends. With it: only the leader of a term makes entries of that term.

use crate::observer::{Checked, violation};

/// A leader removed everything from `from` on.
///
/// # Errors
/// RI2 if anything stood there.
pub fn truncated(node: usize, term: u64, from: u64, last: u64) -> Checked {
    if from > last {
        return Ok(());
    }
    Err(violation("RI2", format!("n{} leads term {term} and removed its entries {from}..={last}", node + 1)))
}

/// A leader put entries from `from` on.
///
/// # Errors
/// RI2 if something stood there.
pub fn put(node: usize, term: u64, from: u64, last: u64) -> Checked {
    if from > last {
        return Ok(());
    }
    Err(violation("RI2", format!("n{} leads term {term} and overwrote entry {from} of {last}", node + 1)))
}

/// An entry of `term` appears for the first time, at `node`.
///
/// # Errors
/// RI2 if that node does not lead the term.
pub fn made(node: usize, term: u64, index: u64, leader: Option<usize>) -> Checked {
    if leader == Some(node) {
        return Ok(());
    }
    Err(violation("RI2", format!("n{} made entry {index} of term {term}, which it does not lead", node + 1)))
}
