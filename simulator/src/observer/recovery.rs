//! **ST1** and **ST4**: a restart finds the state after some prefix of the issued units that contains every
//! unit reported durable, hard state included. The model storage must keep this, and so must the machine
//! that opens on it.

use std::fmt::Debug;

use super::{Checked, violation};

/// Checks the log that was found against the one that the surviving units leave.
///
/// # Errors
/// ST1.
pub fn log<T: PartialEq + Debug>(node: usize, found: &T, expected: &T) -> Checked {
    if found == expected {
        return Ok(());
    }
    Err(violation("ST1", format!("n{} recovered {found:?} and should have {expected:?}", node + 1)))
}

/// Checks where the log on disk ends against where it ends after the durable units as their machine meant
/// them: sooner than a restart would show it.
///
/// # Errors
/// ST1.
pub fn end_of_log(node: usize, found: u64, expected: u64) -> Checked {
    if found == expected {
        return Ok(());
    }
    Err(violation(
        "ST1",
        format!("n{}: the log on disk ends at {found} and should end at {expected}", node + 1),
    ))
}

/// Checks the hard state that was found.
///
/// # Errors
/// ST4.
pub fn hard_state<T: PartialEq + Debug>(node: usize, found: &T, expected: &T) -> Checked {
    if found == expected {
        return Ok(());
    }
    Err(violation("ST4", format!("n{} recovered {found:?} and should have {expected:?}", node + 1)))
}
