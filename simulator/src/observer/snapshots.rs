//! **SN2**: a snapshot never takes the place of a log that is decided as far.

use super::{Checked, violation};

/// A node lets a snapshot through `index` stand for a log that it knows to be decided through `decided`.
///
/// # Errors
/// SN2.
pub fn installed(node: usize, index: u64, decided: u64) -> Checked {
    if index > decided {
        return Ok(());
    }
    let what = format!("n{}: a snapshot through {index} over a log decided through {decided}", node + 1);
    Err(violation("SN2", what))
}
