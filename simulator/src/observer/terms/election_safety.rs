//! **RI1 Election Safety** (Raft, section 5.2): at most one leader can be elected in a given term.

use crate::observer::{Checked, violation};

/// A node leads a term that `known` may lead already.
///
/// # Errors
/// RI1 if that is somebody else.
pub fn check(term: u64, known: Option<usize>, node: usize) -> Checked {
    match known {
        Some(other) if other != node => {
            Err(violation("RI1", format!("n{} and n{} both lead term {term}", other + 1, node + 1)))
        }
        _ => Ok(()),
    }
}
