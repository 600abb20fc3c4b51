//! The storage on redb, through the suite of the core.

use std::path::PathBuf;

use futures::executor::block_on;
use synod_core::conformance::storage::{StorageHarness, run_all};
use synod_core::{Identity, Storage};
use synod_wal::WalError;
use synod_wal::redb::RedbStorage;

struct OnRedb {
    root: tempfile::TempDir,
    logs: u64,
}

impl OnRedb {
    fn path(&self) -> PathBuf {
        self.root.path().join(format!("{}.redb", self.logs))
    }
}

impl StorageHarness for OnRedb {
    fn create(&mut self, identity: &Identity) -> Box<dyn Storage> {
        self.logs += 1;
        Box::new(RedbStorage::create(self.path(), *identity).unwrap())
    }

    fn reopen(&mut self) -> Box<dyn Storage> {
        Box::new(RedbStorage::open(self.path()).unwrap())
    }
}

#[test]
fn redb_passes() {
    let report = run_all(&mut OnRedb { root: tempfile::tempdir().unwrap(), logs: 0 });
    report.assert_passed();
    assert_eq!(report.passed.len(), 21);
}

#[test]
fn a_missing_file_an_open_one_and_a_second_making_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log.redb");
    assert!(matches!(RedbStorage::open(&path), Err(WalError::NoLog { .. })));
    assert!(!path.exists());
    let mut log = RedbStorage::create(&path, Identity::default()).unwrap();
    block_on(log.recover(&Identity::default())).unwrap();
    assert!(matches!(RedbStorage::open(&path), Err(WalError::Locked { .. })));
    drop(log);
    assert!(matches!(RedbStorage::create(&path, Identity::default()), Err(WalError::NotEmpty { .. })));
    RedbStorage::open(&path).unwrap();
}
