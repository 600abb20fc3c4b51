//! **RI7** (Raft, sections 5.3 and 5.4.2): a node takes an entry for decided only if a replication quorum
//! accepted it, durably, in the term of some entry at or above it. Decided never goes back within a life.

use crate::observer::{Checked, violation};

/// A node moved its decided index.
///
/// # Errors
/// RI7.
pub fn check(node: usize, before: u64, after: u64, decided: u64) -> Checked {
    if after < before {
        return Err(violation("RI7", format!("n{}: decided went back from {before} to {after}", node + 1)));
    }
    if after > decided {
        return Err(violation(
            "RI7",
            format!("n{} takes {after} for decided, and a quorum holds only {decided} durably", node + 1),
        ));
    }
    Ok(())
}

/// A message says that everything through `index` is decided.
///
/// # Errors
/// RI7.
pub fn told(node: usize, index: u64, decided: u64) -> Checked {
    if index <= decided {
        return Ok(());
    }
    Err(violation("RI7", format!("n{} tells that {index} is decided, and only {decided} is", node + 1)))
}
