//! The storage suite of the core: on the engine over a disk that crashes at every operation, and on real files.

use std::io;
use std::path::PathBuf;

use synod_core::conformance::storage::{StorageHarness, run_all};
use synod_core::{Identity, Storage};
use synod_wal::{Engine, Wal, WalOptions};

use crate::memory_disk::{EngineStorage, MemoryDisk};

struct OnMemoryDisk {
    disk: MemoryDisk,
    segment_bytes: u64,
    unsteady: bool,
}

impl OnMemoryDisk {
    fn engine(&self) -> Engine<MemoryDisk> {
        Engine::new(self.disk.clone(), Wal::options().segment_bytes(self.segment_bytes)).unwrap()
    }
}

impl StorageHarness for OnMemoryDisk {
    fn create(&mut self, identity: &Identity) -> Box<dyn Storage> {
        self.disk = MemoryDisk::default();
        if self.unsteady {
            self.disk.be_unsteady();
        }
        let engine = self.engine();
        engine.create(identity).unwrap();
        Box::new(EngineStorage(engine))
    }

    fn reopen(&mut self) -> Box<dyn Storage> {
        self.disk.restart();
        Box::new(EngineStorage(self.engine()))
    }

    fn crashes(&self) -> bool {
        true
    }

    fn crash_after(&mut self, operations: u64, seed: u64) {
        self.disk.crash_after(operations, seed);
    }

    fn faults(&self) -> bool {
        true
    }

    fn fail_once_after(&mut self, operations: u64) {
        self.disk.fail_once_after(operations, io::ErrorKind::StorageFull);
    }
}

#[test]
fn the_engine_passes_at_every_crash_point() {
    for segment_bytes in [WalOptions::SEGMENT_BYTES_MIN, 16 << 10, 1 << 20] {
        let mut harness = OnMemoryDisk { disk: MemoryDisk::default(), segment_bytes, unsteady: false };
        let report = run_all(&mut harness);
        report.assert_passed();
        assert_eq!(report.skipped, ["a_superseded_life_is_refused"]);
    }
}

#[test]
fn short_and_interrupted_writes_change_nothing() {
    let segment_bytes = WalOptions::SEGMENT_BYTES_MIN;
    let mut harness = OnMemoryDisk { disk: MemoryDisk::default(), segment_bytes, unsteady: true };
    run_all(&mut harness).assert_passed();
}

/// A new folder for every log.
struct OnFiles {
    root: tempfile::TempDir,
    logs: u64,
    options: WalOptions,
}

impl OnFiles {
    fn folder(&self) -> PathBuf {
        self.root.path().join(self.logs.to_string())
    }
}

impl StorageHarness for OnFiles {
    fn create(&mut self, identity: &Identity) -> Box<dyn Storage> {
        self.logs += 1;
        Box::new(Wal::create_with(self.folder(), *identity, self.options.clone()).unwrap())
    }

    fn reopen(&mut self) -> Box<dyn Storage> {
        Box::new(Wal::open_with(self.folder(), self.options.clone()).unwrap())
    }
}

#[test]
fn real_files_pass() {
    for segment_bytes in [WalOptions::SEGMENT_BYTES_MIN, 256 << 10] {
        let options = Wal::options().segment_bytes(segment_bytes);
        let mut harness = OnFiles { root: tempfile::tempdir().unwrap(), logs: 0, options };
        let report = run_all(&mut harness);
        report.assert_passed();
        assert_eq!(report.passed.len(), 21);
    }
}
