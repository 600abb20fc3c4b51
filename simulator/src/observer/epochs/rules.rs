//! The invariants of ZAB (Junqueira, Reed, Serafini 2011, section 4, and the rules of its phases), as checks.

use std::fmt;

use crate::observer::{Checked, violation};

/// What a node must never forget beside its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// The last epoch it promised.
    pub accepted: u64,
    /// To which node.
    pub promised_to: Option<usize>,
    /// The last epoch whose history it took over.
    pub current: u64,
}

impl fmt::Display for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted e{}", self.accepted)?;
        if let Some(node) = self.promised_to {
            write!(f, " of n{}", node + 1)?;
        }
        write!(f, " current e{}", self.current)
    }
}

/// A node that looks for a leader tells a vote for a history of `voted`, its epoch and its last zxid, and has `own`.
///
/// Discovery turns a leader away that lacks what a follower has, so a wrong vote loses nothing and costs elections:
/// only a look at votes themselves finds it.
///
/// # Errors
/// ZV if it votes for less than it has, by epoch first.
pub fn no_vote_for_less(node: usize, voted: (u64, (u64, u64)), own: (u64, (u64, u64))) -> Checked {
    if voted >= own {
        return Ok(());
    }
    let told = |(epoch, (of, counter)): (u64, (u64, u64))| format!("e{epoch} {of}.{counter}");
    Err(violation("ZV", format!("n{} votes for {} and has {}", node + 1, told(voted), told(own))))
}

/// Another state of a node's epochs follows.
///
/// # Errors
/// ZI8.
pub fn follows(node: usize, before: Epochs, after: Epochs) -> Checked {
    let promise_kept = after.accepted > before.accepted
        || (after.accepted == before.accepted && after.promised_to == before.promised_to);
    if promise_kept && after.current >= before.current && after.current <= after.accepted {
        return Ok(());
    }
    Err(violation("ZI8", format!("n{} replaced {before} by {after}", node + 1)))
}

/// A node says that it promised `epoch` to `leader`, having promised it to `said` before.
///
/// # Errors
/// ZI8.
pub fn promised(node: usize, epoch: u64, said: Option<usize>, leader: usize) -> Checked {
    match said {
        Some(other) if other != leader => Err(violation(
            "ZI8",
            format!("n{} promised e{epoch} to n{} and to n{}", node + 1, other + 1, leader + 1),
        )),
        _ => Ok(()),
    }
}

/// A message says that its sender promised `epoch`, to `leader` if it says so.
///
/// # Errors
/// ZI8 if that is not durable.
pub fn promise_durable(node: usize, epoch: u64, leader: Option<usize>, durable: Epochs) -> Checked {
    let named = leader.is_none() || durable.promised_to == leader;
    if durable.accepted > epoch || (durable.accepted == epoch && named) {
        return Ok(());
    }
    Err(violation("ZI8", format!("n{} tells its promise of e{epoch}, and holds durably {durable}", node + 1)))
}

/// `node` leads `epoch`, which `known` may lead.
///
/// # Errors
/// ZL.
pub fn one_leader(epoch: u64, known: Option<usize>, node: usize) -> Checked {
    match known {
        Some(other) if other != node => {
            Err(violation("ZL", format!("n{} and n{} both lead e{epoch}", other + 1, node + 1)))
        }
        _ => Ok(()),
    }
}

/// The leader of `epoch` holds the history `found` where the history decided before reads `decided`.
///
/// # Errors
/// ZI6.
pub fn has_earlier(node: usize, epoch: u64, index: u64, found: Option<u64>, decided: u64) -> Checked {
    if found == Some(decided) {
        return Ok(());
    }
    Err(violation(
        "ZI6",
        format!("n{} leads e{epoch} without what was decided before, through {index}", node + 1),
    ))
}

/// A leader broadcasts the first entry of its epoch with `decided` of an initial history of `initial` entries.
///
/// # Errors
/// ZI6.
pub fn has_delivered(node: usize, epoch: u64, decided: u64, initial: u64) -> Checked {
    if decided >= initial {
        return Ok(());
    }
    Err(violation(
        "ZI6",
        format!("n{} broadcasts in e{epoch} with {decided} of {initial} earlier entries decided", node + 1),
    ))
}

/// A place in a history, for checks of zxids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The position.
    pub index: u64,
    /// The epoch.
    pub epoch: u64,
    /// The counter.
    pub counter: u64,
}

/// An entry is written after another one.
///
/// # Errors
/// ZI10 if its zxid is not the next one.
pub fn contiguous(node: usize, before: At, entry: At) -> Checked {
    let At { index, epoch, counter } = entry;
    let next = if epoch == before.epoch {
        counter == before.counter + 1
    } else {
        epoch > before.epoch && counter == 1
    };
    if next && index == before.index + 1 {
        return Ok(());
    }
    Err(violation(
        "ZI10",
        format!(
            "n{} wrote {index}:{epoch}.{counter} after {}:{}.{}",
            node + 1,
            before.index,
            before.epoch,
            before.counter
        ),
    ))
}

/// An entry appears for the first time.
///
/// # Errors
/// ZI1 if its maker does not lead its epoch.
pub fn made(node: usize, epoch: u64, index: u64, leader: Option<usize>) -> Checked {
    if leader == Some(node) {
        return Ok(());
    }
    Err(violation("ZI1", format!("n{} made entry {index} of e{epoch}, which it does not lead", node + 1)))
}

/// An entry of a zxid seen before is written.
///
/// # Errors
/// ZI2 if it stands on another history, or is another entry.
pub fn same(node: usize, at: At, found: u64, known: u64) -> Checked {
    if found == known {
        return Ok(());
    }
    let At { index, epoch, counter } = at;
    Err(violation("ZI2", format!("n{}: {index}:{epoch}.{counter} stands on another history", node + 1)))
}

/// A node takes entries of `epoch` into its history, having promised `accepted`.
///
/// # Errors
/// ZI5.
pub fn not_before_promise(node: usize, epoch: u64, accepted: u64) -> Checked {
    if epoch <= accepted {
        return Ok(());
    }
    Err(violation("ZI5", format!("n{} takes an entry of e{epoch}, and promised only e{accepted}", node + 1)))
}

/// A node's current epoch is durable: so is this much of the leader's history.
///
/// # Errors
/// ZI9 if it is not a whole one: the initial history, and nothing that the leader does not have.
pub fn whole(
    node: usize,
    epoch: u64,
    last: u64,
    here: Option<u64>,
    leader: Option<u64>,
    initial: u64,
) -> Checked {
    if last >= initial && here.is_some() && here == leader {
        return Ok(());
    }
    Err(violation(
        "ZI9",
        format!(
            "n{} has e{epoch} as its current epoch on disk with a history through {last} of {here:?}; the leader's \
             begins with {initial} entries and has {leader:?} there",
            node + 1
        ),
    ))
}

/// An acknowledgement leaves a node that holds `durable` and whose entry at `through` is of epoch `here`.
///
/// # Errors
/// ZI9 if it is not covered.
pub fn acknowledged(
    node: usize,
    epoch: u64,
    through: u64,
    durable: Epochs,
    here: Option<u64>,
    leader: Option<u64>,
) -> Checked {
    // In a later epoch the entries may be gone again, which is no fault of this message.
    let covered = durable.accepted > epoch || (durable.current == epoch && here.is_some() && here == leader);
    if covered {
        return Ok(());
    }
    Err(violation(
        "ZI9",
        format!(
            "n{} acknowledges e{epoch} through {through}, and holds durably {durable}, there {here:?}",
            node + 1
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISED: Epochs = Epochs { accepted: 3, promised_to: Some(1), current: 2 };

    #[test]
    fn epochs_that_fall_and_second_promises_are_caught() {
        assert!(follows(0, PROMISED, Epochs { current: 3, ..PROMISED }).is_ok());
        assert!(follows(0, PROMISED, Epochs { promised_to: Some(0), ..PROMISED }).is_err());
        assert!(follows(0, PROMISED, Epochs { current: 1, ..PROMISED }).is_err());
        assert!(follows(0, PROMISED, Epochs { current: 4, ..PROMISED }).is_err());
        assert!(promised(0, 3, Some(1), 1).is_ok() && promised(0, 3, Some(1), 2).is_err());
        assert!(promise_durable(0, 3, Some(1), PROMISED).is_ok());
        assert!(promise_durable(0, 3, Some(2), PROMISED).is_err());
        assert!(promise_durable(0, 4, None, PROMISED).is_err());
    }

    #[test]
    fn a_hole_or_a_repetition_among_zxids_is_caught() {
        let at = |index, epoch, counter| At { index, epoch, counter };
        assert!(contiguous(0, at(3, 2, 3), at(4, 2, 4)).is_ok());
        assert!(contiguous(0, at(3, 2, 3), at(4, 5, 1)).is_ok());
        assert!(contiguous(0, at(3, 2, 3), at(4, 2, 5)).is_err());
        assert!(contiguous(0, at(3, 2, 3), at(4, 5, 2)).is_err());
        assert!(contiguous(0, at(3, 2, 3), at(4, 1, 1)).is_err());
        assert!(contiguous(0, at(3, 2, 3), at(5, 2, 4)).is_err());
    }

    #[test]
    fn a_current_epoch_with_less_than_its_history_is_caught() {
        assert!(whole(0, 3, 9, Some(2), Some(2), 9).is_ok());
        assert!(whole(0, 3, 8, Some(2), Some(2), 9).is_err(), "too short");
        assert!(whole(0, 3, 9, Some(1), Some(2), 9).is_err(), "another history");
        assert!(whole(0, 3, 12, Some(1), None, 9).is_err(), "a tail that should be gone");
        let current = Epochs { current: 3, ..PROMISED };
        assert!(acknowledged(0, 3, 9, current, Some(2), Some(2)).is_ok());
        assert!(acknowledged(0, 3, 9, PROMISED, Some(2), Some(2)).is_err());
        assert!(acknowledged(0, 3, 9, current, None, Some(2)).is_err());
    }

    #[test]
    fn a_vote_for_a_longer_history_of_an_earlier_epoch_is_caught() {
        assert!(no_vote_for_less(0, (5, (4, 5)), (5, (4, 5))).is_ok());
        assert!(no_vote_for_less(0, (5, (4, 5)), (4, (4, 9))).is_ok());
        assert!(no_vote_for_less(0, (4, (4, 9)), (5, (4, 5))).is_err());
        assert!(no_vote_for_less(0, (5, (4, 4)), (5, (4, 5))).is_err());
    }

    #[test]
    fn leaders_without_the_past_are_caught() {
        assert!(has_earlier(0, 3, 9, Some(5), 5).is_ok() && has_earlier(0, 3, 9, None, 5).is_err());
        assert!(has_delivered(0, 3, 9, 9).is_ok() && has_delivered(0, 3, 8, 9).is_err());
        assert!(one_leader(3, Some(1), 0).is_err() && made(0, 3, 9, Some(1)).is_err());
        assert!(not_before_promise(0, 3, 2).is_err() && not_before_promise(0, 3, 3).is_ok());
    }
}
