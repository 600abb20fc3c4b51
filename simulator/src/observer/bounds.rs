//! **RI8**: applied <= decided <= last written, and decided never goes back within a life (Raft, figure 2:
//! volatile state). With it, the bounds that keep memory finite (DESIGN, section 4, rule 8).

use super::{Checked, violation};

/// How far a node has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Applied through here; 0 where nothing is applied.
    pub applied: u64,
    /// Believed decided through here.
    pub decided: u64,
    /// Asked to be written through here.
    pub last: u64,
}

/// Checks the order of a node's positions.
///
/// # Errors
/// RI8.
pub fn check(node: usize, progress: Progress) -> Checked {
    let Progress { applied, decided, last } = progress;
    if applied <= decided && decided <= last {
        return Ok(());
    }
    Err(violation("RI8", format!("n{}: applied {applied}, decided {decided}, last {last}", node + 1)))
}

/// Checks that a node keeps no more messages behind its disk than it may.
///
/// # Errors
/// `bound`.
pub fn held(node: usize, messages: usize, messages_max: usize) -> Checked {
    bounded("messages to one peer that wait for writes", node, messages as u64, messages_max as u64)
}

/// Checks that a queue, window or message keeps its bound.
///
/// # Errors
/// `bound`.
pub fn bounded(what: &str, node: usize, size: u64, size_max: u64) -> Checked {
    if size <= size_max {
        return Ok(());
    }
    Err(violation("bound", format!("n{}: {what} is {size}, and at most {size_max} is allowed", node + 1)))
}
