//! The suite for storages: what [`crate::Storage`] promises, one check per sentence.

mod checks;
mod crash;
mod model;
mod random;
mod subject;

use super::{Check, ConformanceFailure, Report, checks, run_checks};
use crate::{Identity, Storage};

pub use checks::{
    a_batch_applies_its_units_in_order, a_foreign_identity_is_refused, a_new_log_is_empty,
    a_put_replaces_its_index_and_nothing_else, a_snapshot_stands_for_what_is_at_or_below_it,
    a_superseded_life_is_refused, a_truncation_and_a_put_fit_into_one_unit,
    a_truncation_removes_the_tail_and_nothing_else, a_unit_applies_its_fields_in_order,
    a_write_before_recovery_is_refused, compaction_keeps_the_stamp_at_its_bound,
    compaction_may_end_in_a_hole, compaction_may_pass_the_last_index, empty_and_huge_payloads_survive,
    every_field_of_an_entry_survives, every_life_is_one_higher, puts_are_sparse, reads_are_bounded_prefixes,
    reads_at_or_below_the_compaction_bound_say_so, the_compaction_bound_never_goes_back,
    the_last_hard_state_survives,
};
pub use crash::{
    a_crash_during_recovery_loses_nothing, a_crash_leaves_a_prefix_of_whole_units, a_failed_write_is_final,
};
pub use random::a_random_history_agrees_with_a_map;

/// Makes and reopens the log under test. One log at a time.
///
/// The suite drops every storage it was given before it asks for the next one; the takeover check alone
/// holds two at a time.
pub trait StorageHarness {
    /// A new, empty log for `identity`, not recovered yet. The log made before is not used any more.
    fn create(&mut self, identity: &Identity) -> Box<dyn Storage>;

    /// The log made last, opened again and not recovered yet. After [`StorageHarness::crash_after`] what
    /// the crash lost is gone, and nothing is armed any more.
    fn reopen(&mut self) -> Box<dyn Storage>;

    /// True if [`StorageHarness::crash_after`] works.
    fn crashes(&self) -> bool {
        false
    }

    /// Lets the storage make this many more operations on its device, then fails every one until
    /// [`StorageHarness::reopen`], which loses what was not synced: all of it, or the part that `seed`
    /// chooses (a device may keep any subset, and half of an operation).
    fn crash_after(&mut self, operations: u64, seed: u64) {
        let _ = (operations, seed);
    }

    /// True if [`StorageHarness::fail_once_after`] works.
    fn faults(&self) -> bool {
        false
    }

    /// Lets the storage make this many more operations on its device, then fails one, and none after it.
    fn fail_once_after(&mut self, operations: u64) {
        let _ = operations;
    }

    /// True if a log can be opened while an older storage of it still lives, which is refused its writes
    /// from then on with [`crate::StorageError::Superseded`]. False if the second opening is refused
    /// instead, by a lock on the folder say.
    fn takeover(&self) -> bool {
        false
    }
}

/// What a check needs of its harness.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Crashes,
    Faults,
    Takeover,
}

type Run = fn(&mut dyn StorageHarness) -> Result<(), ConformanceFailure>;

const CHECKS: &[Check<Needs, Run>] = checks![
    Nothing:
        a_new_log_is_empty,
        puts_are_sparse,
        a_put_replaces_its_index_and_nothing_else,
        a_truncation_removes_the_tail_and_nothing_else,
        a_truncation_and_a_put_fit_into_one_unit,
        a_unit_applies_its_fields_in_order,
        a_batch_applies_its_units_in_order,
        compaction_keeps_the_stamp_at_its_bound,
        compaction_may_end_in_a_hole,
        compaction_may_pass_the_last_index,
        the_compaction_bound_never_goes_back,
        a_snapshot_stands_for_what_is_at_or_below_it,
        reads_are_bounded_prefixes,
        reads_at_or_below_the_compaction_bound_say_so,
        the_last_hard_state_survives,
        every_field_of_an_entry_survives,
        empty_and_huge_payloads_survive,
        every_life_is_one_higher,
        a_foreign_identity_is_refused,
        a_write_before_recovery_is_refused,
        a_random_history_agrees_with_a_map;
    Takeover:
        a_superseded_life_is_refused;
    Crashes:
        a_crash_leaves_a_prefix_of_whole_units,
        a_crash_during_recovery_loses_nothing;
    Faults:
        a_failed_write_is_final;
];

/// Runs every check that the harness has the means for, each on a log of its own.
pub fn run_all(harness: &mut dyn StorageHarness) -> Report {
    run_checks(CHECKS, |check| {
        let offered = match check.needs {
            Needs::Nothing => true,
            Needs::Crashes => harness.crashes(),
            Needs::Faults => harness.faults(),
            Needs::Takeover => harness.takeover(),
        };
        offered.then(|| (check.run)(harness))
    })
}
