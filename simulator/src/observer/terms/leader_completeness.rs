//! **RI4 Leader Completeness** (Raft, section 5.4): an entry decided in a given term is present in the logs of
//! the leaders of all later terms. Checked when a leader appears.

use crate::observer::{Checked, violation};

/// The new leader of `term` holds, at the last `index` decided before that term, the history `found`.
///
/// # Errors
/// RI4 if it is not the decided one.
pub fn check(node: usize, term: u64, index: u64, found: Option<u64>, decided: u64) -> Checked {
    if found == Some(decided) {
        return Ok(());
    }
    Err(violation(
        "RI4",
        format!("n{} leads term {term} without the entries decided before, through {index}", node + 1),
    ))
}
