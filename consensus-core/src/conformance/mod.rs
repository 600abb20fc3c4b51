//! Test suites for people who write their own storage, store of snapshots or transport (feature `conformance`).
//!
//! # What they promise
//!
//! A storage that passes [`storage::run_all`] keeps every rule of [`crate::Storage`] that the suite names;
//! a store of snapshots that passes [`snapshots::run_all`] keeps those of [`crate::SnapshotStore`], and a transport that
//! passes [`transport::run_all`] those of [`crate::Transport`]. Each check is a
//! function whose name is the claim it tests. The suites depend on no async runtime: storages are driven
//! by a thread that blocks, transports are polled by hand, and time passes only where a harness says so.
//! Everything random is drawn from fixed seeds, so a failure repeats.
//!
//! # What the caller implements
//!
//! A harness: [`storage::StorageHarness`] makes and reopens logs, [`snapshots::SnapshotHarness`] stores of snapshots,
//! [`transport::TransportHarness`] connects and restarts nodes. What a harness cannot do (lose unsynced data, say) it does not offer, and the checks
//! that need it are listed as skipped.
//!
//! ```
//! use synod_core::conformance::storage::{StorageHarness, run_all};
//! use synod_core::memory::MemoryStorage;
//! use synod_core::{Identity, Storage};
//!
//! /// The log in memory; its clones share one log, as two openings of one folder would.
//! #[derive(Default)]
//! struct Memory(MemoryStorage);
//!
//! impl StorageHarness for Memory {
//!     fn create(&mut self, _: &Identity) -> Box<dyn Storage> {
//!         self.0 = MemoryStorage::new();
//!         self.reopen()
//!     }
//!
//!     fn reopen(&mut self) -> Box<dyn Storage> {
//!         Box::new(self.0.clone())
//!     }
//! }
//!
//! run_all(&mut Memory::default()).assert_passed();
//! ```
//!
//! # What is not in them
//!
//! Speed, recovery from damaged bytes (what a storage must refuse depends on its format), and the order of
//! delivery (no safety argument of a protocol may rest on it).

use std::fmt;

pub mod snapshots;
pub mod storage;
pub mod transport;

// The example of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// A rule that an implementation breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {what}")]
pub struct ConformanceFailure {
    /// The check that found it: the name of its function.
    pub check: &'static str,
    /// What was expected and what was seen.
    pub what: String,
}

impl ConformanceFailure {
    fn new(check: &'static str, what: impl Into<String>) -> ConformanceFailure {
        ConformanceFailure { check, what: what.into() }
    }
}

/// What a suite found. `Display` is one line per check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The checks whose claim holds.
    pub passed: Vec<&'static str>,
    /// The checks that need something the harness does not offer.
    pub skipped: Vec<&'static str>,
    /// The rules that are broken.
    pub failed: Vec<ConformanceFailure>,
}

impl Report {
    /// Asserts that no rule is broken.
    ///
    /// # Panics
    /// With the whole report if one is.
    pub fn assert_passed(&self) {
        assert!(self.failed.is_empty(), "{} rules are broken\n{self}", self.failed.len());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.passed {
            writeln!(f, "passed   {check}")?;
        }
        for check in &self.skipped {
            writeln!(f, "skipped  {check}")?;
        }
        for failure in &self.failed {
            writeln!(f, "FAILED   {failure}")?;
        }
        Ok(())
    }
}

/// A check as a suite lists it.
struct Check<N, R> {
    name: &'static str,
    /// What the harness must offer.
    needs: N,
    run: R,
}

/// Lists checks under the names of their functions: `[Nothing: a, b; Crashes: c]`.
macro_rules! checks {
    ($($needs:ident: $($name:ident),+);+ $(;)?) => {
        &[$($(Check { name: stringify!($name), needs: Needs::$needs, run: $name }),+),+]
    };
}
use checks;

/// Runs what the harness has the means for; `run` answers `None` for the rest.
fn run_checks<N, R>(
    checks: &[Check<N, R>],
    mut run: impl FnMut(&Check<N, R>) -> Option<Result<(), ConformanceFailure>>,
) -> Report {
    let mut report = Report::default();
    for check in checks {
        match run(check) {
            Some(Ok(())) => report.passed.push(check.name),
            Some(Err(failure)) => report.failed.push(failure),
            None => report.skipped.push(check.name),
        }
    }
    report
}
