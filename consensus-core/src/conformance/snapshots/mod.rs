//! The suite for stores of snapshots: what [`crate::SnapshotStore`] promises, one check per sentence.

mod checks;

use super::{Check, ConformanceFailure, Report, checks, run_checks};
use crate::{SnapshotId, SnapshotStore};

pub use checks::{
    a_crash_leaves_a_snapshot_whole_or_not_there, a_deleted_snapshot_is_missing, a_failure_harms_no_other,
    a_new_store_is_empty, a_snapshot_may_replace_one_of_its_name, contents_survive, damage_is_noticed,
    reads_begin_anywhere_and_end_at_the_end, two_may_be_written_at_once, what_is_finished_is_listed_in_order,
    what_is_not_finished_is_never_listed,
};

/// Makes and reopens the store under test. One store at a time: the suite drops every store it was given before it asks for
/// the next one. Of one writer it forgets that it has it, as a crash would.
pub trait SnapshotHarness {
    /// A new, empty store. The one made before is not used any more.
    fn create(&mut self) -> Box<dyn SnapshotStore>;

    /// The store made last, opened again. After [`SnapshotHarness::crash_after`] what the crash lost is gone, and
    /// nothing is armed any more.
    fn reopen(&mut self) -> Box<dyn SnapshotStore>;

    /// True if [`SnapshotHarness::crash_after`] works.
    fn crashes(&self) -> bool {
        false
    }

    /// Lets the store make this many more operations on its device, then fails every one until
    /// [`SnapshotHarness::reopen`], which loses what was not synced: all of it, or the part that `seed` chooses.
    fn crash_after(&mut self, operations: u64, seed: u64) {
        let _ = (operations, seed);
    }

    /// True if [`SnapshotHarness::fail_once_after`] works.
    fn faults(&self) -> bool {
        false
    }

    /// Lets the store make this many more operations on its device, then fails one, and none after it.
    fn fail_once_after(&mut self, operations: u64) {
        let _ = operations;
    }

    /// True if [`SnapshotHarness::damage`] works.
    fn damages(&self) -> bool {
        false
    }

    /// Changes the byte at `place` of what is kept of a finished snapshot, whatever it stands for there: flips the bits
    /// in `mask`, so that the same call mends it. False if fewer bytes are kept.
    fn damage(&mut self, id: SnapshotId, place: u64, mask: u8) -> bool {
        let _ = (id, place, mask);
        false
    }
}

/// What a check needs of its harness.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Crashes,
    Faults,
    Damages,
}

type Run = fn(&mut dyn SnapshotHarness) -> Result<(), ConformanceFailure>;

const CHECKS: &[Check<Needs, Run>] = checks![
    Nothing:
        a_new_store_is_empty,
        what_is_finished_is_listed_in_order,
        contents_survive,
        reads_begin_anywhere_and_end_at_the_end,
        what_is_not_finished_is_never_listed,
        a_snapshot_may_replace_one_of_its_name,
        two_may_be_written_at_once,
        a_deleted_snapshot_is_missing;
    Crashes:
        a_crash_leaves_a_snapshot_whole_or_not_there;
    Faults:
        a_failure_harms_no_other;
    Damages:
        damage_is_noticed;
];

/// Runs every check that the harness has the means for, each on a store of its own.
pub fn run_all(harness: &mut dyn SnapshotHarness) -> Report {
    run_checks(CHECKS, |check| {
        let offered = match check.needs {
            Needs::Nothing => true,
            Needs::Crashes => harness.crashes(),
            Needs::Faults => harness.faults(),
            Needs::Damages => harness.damages(),
        };
        offered.then(|| (check.run)(harness))
    })
}
