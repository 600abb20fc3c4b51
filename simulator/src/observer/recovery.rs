//! **ST1** to **ST6**: a restart finds the state after some prefix of the issued units that contains every
//! unit reported durable (ST1), hard state included (ST4) and contiguous with the compaction bound (ST5), and nothing
//! else (ST2); a second one finds the same (ST3); damage is harmless or refused (ST6). The model storage must keep
//! this, the log engine, and the machine that opens on it.

use std::fmt::Debug;

use synod_core::{Compacted, IndexRange, Loaded, Recovered};

use super::{Checked, Violation, violation};
use crate::disk::{describe, entries, stamps};

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

/// Says which invariant a recovery broke that found the state after no prefix of the units: `durable` is what was
/// reported durable, `handed` what the engine was given.
#[must_use]
pub fn explain(node: usize, found: &Recovered, durable: &Recovered, handed: &Recovered) -> Violation {
    let told = format!(
        "n{} recovered {}; durable is {}; written was {}",
        node + 1,
        describe(found),
        describe(durable),
        describe(handed)
    );
    let invariant = if found.hard_state != durable.hard_state && found.hard_state != handed.hard_state {
        "ST4"
    } else if found.compacted != durable.compacted && found.compacted != handed.compacted {
        "ST5"
    } else if stamps(found).any(|entry| !stamps(durable).chain(stamps(handed)).any(|known| known == entry)) {
        "ST2"
    } else {
        "ST1"
    };
    violation(invariant, told)
}

/// Checks what the engine read against what is durable.
///
/// # Errors
/// ST1 if something is missing, ST2 if something else is there.
pub fn read(
    node: usize,
    range: IndexRange,
    found: &Result<Loaded, Compacted>,
    expected: &Result<Loaded, Compacted>,
) -> Checked {
    match (found, expected) {
        (Err(found), Err(expected)) if found == expected => Ok(()),
        (Ok(found), Ok(expected)) if found.to == expected.to && entries(found).eq(entries(expected)) => {
            Ok(())
        }
        (Ok(found), Ok(expected)) => {
            let foreign = entries(found).find(|entry| !entries(expected).any(|known| known == *entry));
            let (count, wanted) = (entries(found).count(), entries(expected).count());
            let told = format!(
                "n{} reads {count} entries of {range} up to {} and should read {wanted} up to {}; {foreign:?} was not written",
                node + 1,
                found.to,
                expected.to
            );
            Err(violation(if foreign.is_some() { "ST2" } else { "ST1" }, told))
        }
        _ => Err(violation("ST5", format!("n{} reads {range}: {found:?} and not {expected:?}", node + 1))),
    }
}
