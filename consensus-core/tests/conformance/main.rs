//! The conformance suites against the in-memory implementations, which pass, and against implementations
//! broken on purpose, each of which is rejected by the check that names its rule.

mod broken_snapshots;
mod broken_storage;
mod broken_transport;
mod journal;

use synod_core::conformance::snapshots::{self, SnapshotHarness};
use synod_core::conformance::storage::{self, StorageHarness};
use synod_core::conformance::transport::{self, LetterTransport, TransportHarness};
use synod_core::conformance::{ConformanceFailure, Report};
use synod_core::memory::{MemoryNetwork, MemorySnapshots, MemoryStorage};
use synod_core::{Identity, NodeId, SnapshotStore, Storage};

#[derive(Default)]
struct Memory(MemoryStorage);

impl StorageHarness for Memory {
    fn create(&mut self, _: &Identity) -> Box<dyn Storage> {
        self.0 = MemoryStorage::new();
        self.reopen()
    }

    fn reopen(&mut self) -> Box<dyn Storage> {
        Box::new(self.0.clone())
    }

    fn takeover(&self) -> bool {
        true
    }
}

#[derive(Default)]
struct Network(MemoryNetwork<transport::Letter>);

impl TransportHarness for Network {
    fn connect(&mut self, nodes: &[NodeId]) -> Vec<LetterTransport> {
        self.0 = MemoryNetwork::new();
        nodes.iter().map(|node| self.restart(*node)).collect()
    }

    fn restart(&mut self, node: NodeId) -> LetterTransport {
        std::sync::Arc::new(self.0.attach(node))
    }

    fn close(&mut self, node: NodeId) {
        // Attaching another endpoint closes the one before.
        drop(self.0.attach(node));
    }

    fn settle(&mut self) {}
}

#[test]
fn the_storage_in_memory_passes() {
    let report = storage::run_all(&mut Memory::default());
    report.assert_passed();
    assert_eq!(report.passed.len(), 22);
    assert_eq!(
        report.skipped,
        [
            "a_crash_leaves_a_prefix_of_whole_units",
            "a_crash_during_recovery_loses_nothing",
            "a_failed_write_is_final"
        ]
    );
}

#[derive(Default)]
struct Shelf(MemorySnapshots);

impl SnapshotHarness for Shelf {
    fn create(&mut self) -> Box<dyn SnapshotStore> {
        self.0 = MemorySnapshots::new();
        self.reopen()
    }

    fn reopen(&mut self) -> Box<dyn SnapshotStore> {
        Box::new(self.0.clone())
    }
}

#[test]
fn the_store_of_snapshots_in_memory_passes() {
    let report = snapshots::run_all(&mut Shelf::default());
    report.assert_passed();
    assert_eq!(report.passed.len(), 8);
    assert_eq!(
        report.skipped,
        ["a_crash_leaves_a_snapshot_whole_or_not_there", "a_failure_harms_no_other", "damage_is_noticed"]
    );
}

#[test]
fn the_transport_in_memory_passes() {
    let report = transport::run_all(&mut Network::default());
    report.assert_passed();
    assert_eq!(report.passed.len(), 11);
    assert_eq!(report.skipped, [""; 0]);
}

#[test]
fn a_failing_report_shows_the_rule_and_panics_when_it_is_asserted() {
    let failure = ConformanceFailure { check: "puts_are_sparse", what: "a hole was filled".to_owned() };
    let report = Report { passed: vec!["a_new_log_is_empty"], skipped: Vec::new(), failed: vec![failure] };
    assert_eq!(
        report.to_string(),
        "passed   a_new_log_is_empty\nFAILED   puts_are_sparse: a hole was filled\n"
    );
    assert!(std::panic::catch_unwind(|| report.assert_passed()).is_err());
}

/// Asserts that a check is among the rules found broken.
fn assert_rejected_by(report: &Report, check: &str, broken: &str) {
    assert!(
        report.failed.iter().any(|failure| failure.check == check),
        "{broken} is not rejected by {check}\n{report}"
    );
}
