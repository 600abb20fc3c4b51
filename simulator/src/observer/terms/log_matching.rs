//! **RI3 Log Matching** (Raft, section 5.3): if two logs hold an entry with the same index and term, the logs
//! are identical in all entries up through that index. Checked in constant time per entry by a hash that
//! covers the entry and everything before it, kept once for each (term, index) ever seen.

use synod_core::Entry;

use crate::hash::mix;
use crate::observer::agreement::{Digest, entry_digest};
use crate::observer::{Checked, violation};

/// The hash of an entry and everything before it.
#[must_use]
pub fn chained(before: u64, entry: &Entry) -> Digest {
    let digest = entry_digest(entry);
    let place = entry.index.0 ^ entry.stamp.high.rotate_left(40) ^ entry.stamp.low.rotate_left(20);
    Digest { chain: mix(mix(before, digest), place), entry: digest }
}

/// An entry of a (term, index) seen before.
///
/// # Errors
/// RI3 if it, or anything before it, is not the same.
pub fn same(node: usize, entry: &Entry, found: Digest, known: Digest) -> Checked {
    if found.chain == known.chain {
        return Ok(());
    }
    let what = if found.entry == known.entry { "stands on another history" } else { "is another entry" };
    Err(violation("RI3", format!("n{}: {entry} {what} than where it was first written", node + 1)))
}

/// Entries must follow the log they are put into.
///
/// # Errors
/// RI3.
pub fn hole(node: usize, from: u64, last: u64) -> Checked {
    if from <= last + 1 {
        return Ok(());
    }
    Err(violation("RI3", format!("n{}: entry {from} put into a log that ends at {last}", node + 1)))
}

/// An overwritten entry must take everything after it along.
///
/// # Errors
/// RI3.
pub fn orphaned(node: usize, to: u64, last: u64) -> Checked {
    if to >= last {
        return Ok(());
    }
    Err(violation(
        "RI3",
        format!("n{}: entry {to} was replaced and {}..={last} left standing", node + 1, to + 1),
    ))
}
