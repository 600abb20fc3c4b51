//! Snapshots in files: crashes at every operation, damage to every byte.

use synod_core::conformance::snapshots::{SnapshotHarness, run_all};
use synod_core::{
    Incarnation, LogIndex, Membership, NodeId, Reign, SnapshotError, SnapshotHead, SnapshotId, SnapshotMeta,
    SnapshotStore, Stamp,
};
use synod_wal::{Disk, DiskFile, FileSnapshots};

use crate::memory_disk::MemoryDisk;

fn head(index: u64, contents: &[u8]) -> SnapshotHead {
    let meta = SnapshotMeta {
        index: LogIndex(index),
        stamp: Stamp { high: 3, low: 0 },
        reign: Reign::default(),
        membership: Membership::of_ids([1, 2, 3]).unwrap(),
    };
    let id = SnapshotId { index: LogIndex(index), taken_by: NodeId(1), life: Incarnation(2) };
    SnapshotHead { id, meta, len: contents.len() as u64, checksum: crc32c::crc32c(contents) }
}

fn write(store: &mut impl SnapshotStore, index: u64, contents: &[u8]) -> Result<(), SnapshotError> {
    let head = head(index, contents);
    let mut writer = store.create(head.id)?;
    for part in contents.chunks(7) {
        writer.write(part)?;
    }
    writer.finish(&head)
}

fn read(store: &mut impl SnapshotStore, id: SnapshotId) -> Result<Vec<u8>, SnapshotError> {
    let mut reader = store.open(id)?;
    let mut contents = Vec::new();
    let mut part = [0; 5];
    loop {
        match reader.read_at(contents.len() as u64, &mut part)? {
            0 => return Ok(contents),
            len => contents.extend_from_slice(&part[..len]),
        }
    }
}

/// The suite of the core, on a disk that crashes, fails and changes bytes.
#[derive(Default)]
struct OnMemoryDisk(MemoryDisk);

impl SnapshotHarness for OnMemoryDisk {
    fn create(&mut self) -> Box<dyn SnapshotStore> {
        self.0 = MemoryDisk::default();
        self.reopen()
    }

    fn reopen(&mut self) -> Box<dyn SnapshotStore> {
        self.0.restart();
        Box::new(FileSnapshots::on(self.0.clone()).unwrap())
    }

    fn crashes(&self) -> bool {
        true
    }

    fn crash_after(&mut self, operations: u64, seed: u64) {
        self.0.crash_after(operations, seed);
    }

    fn faults(&self) -> bool {
        true
    }

    fn fail_once_after(&mut self, operations: u64) {
        self.0.fail_once_after(operations, std::io::ErrorKind::StorageFull);
    }

    fn damages(&self) -> bool {
        true
    }

    fn damage(&mut self, id: SnapshotId, place: u64, mask: u8) -> bool {
        let of = format!("{:016x}-", id.index.0);
        let name = self.0.list().unwrap().into_iter().find(|name| name.starts_with(&of)).unwrap();
        let mut there = false;
        self.0.damage(&name, |bytes| {
            if let Some(byte) = bytes.get_mut(place as usize) {
                *byte ^= mask;
                there = true;
            }
        });
        there
    }
}

#[test]
fn the_suite_of_the_core_passes_on_a_disk_that_crashes_fails_and_changes_bytes() {
    let report = run_all(&mut OnMemoryDisk::default());
    report.assert_passed();
    assert_eq!(report.skipped, [""; 0]);
}

/// A new folder for every store.
struct OnFiles {
    root: tempfile::TempDir,
    stores: u64,
}

impl SnapshotHarness for OnFiles {
    fn create(&mut self) -> Box<dyn SnapshotStore> {
        self.stores += 1;
        self.reopen()
    }

    fn reopen(&mut self) -> Box<dyn SnapshotStore> {
        Box::new(FileSnapshots::open(self.root.path().join(self.stores.to_string())).unwrap())
    }
}

#[test]
fn real_files_pass() {
    let report = run_all(&mut OnFiles { root: tempfile::tempdir().unwrap(), stores: 0 });
    report.assert_passed();
    assert_eq!(report.passed.len(), 8);
}

const OLD: &[u8] = b"what was before";
const NEW: &[u8] = b"what comes after, and is a little longer than the other";

#[test]
fn what_is_finished_is_listed_read_and_deleted() {
    let disk = MemoryDisk::default();
    let mut store = FileSnapshots::on(disk.clone()).unwrap();
    write(&mut store, 9, NEW).unwrap();
    write(&mut store, 4, OLD).unwrap();
    write(&mut store, 5, b"").unwrap();
    drop(store.create(head(30, NEW).id).unwrap());
    let mut store = FileSnapshots::on(disk.clone()).unwrap();
    let listed: Vec<SnapshotHead> = store.list().unwrap();
    assert_eq!(listed, [head(4, OLD), head(5, b""), head(9, NEW)]);
    assert_eq!(read(&mut store, listed[0].id).unwrap(), OLD);
    assert_eq!(read(&mut store, listed[1].id).unwrap(), b"");
    assert_eq!(read(&mut store, listed[2].id).unwrap(), NEW);
    for head in &listed {
        store.delete(head.id).unwrap();
        store.delete(head.id).unwrap();
        assert!(matches!(store.open(head.id), Err(SnapshotError::Missing(id)) if id == head.id));
    }
    assert_eq!(disk.list().unwrap(), [""; 0]);
}

#[test]
fn every_changed_or_missing_byte_is_noticed_when_it_is_opened() {
    let disk = MemoryDisk::default();
    let mut store = FileSnapshots::on(disk.clone()).unwrap();
    write(&mut store, 9, NEW).unwrap();
    let id = head(9, NEW).id;
    let name = disk.list().unwrap().pop().unwrap();
    let file = disk.open(&name).unwrap();
    let len = file.len().unwrap();
    for offset in 0..len {
        let mut byte = [0];
        file.read_at(offset, &mut byte).unwrap();
        file.write_at(offset, &[byte[0] ^ 0x10]).unwrap();
        assert!(matches!(store.open(id), Err(SnapshotError::Corrupt { .. })), "byte {offset}");
        file.write_at(offset, &byte).unwrap();
    }
    assert!(store.open(id).is_ok());
    for cut in (0..len).rev() {
        file.set_len(cut).unwrap();
        assert!(matches!(store.open(id), Err(SnapshotError::Corrupt { .. })), "{cut} bytes");
        assert!(store.list().unwrap().is_empty());
    }
}

#[test]
fn after_a_crash_at_any_operation_a_snapshot_is_whole_or_not_there() {
    let contents: Vec<u8> = (0..3_000_u32).map(|at| at as u8).collect();
    let (mut lost, mut kept) = (0, 0);
    for operations in 0..500 {
        let mut came_through = false;
        for seed in 0..6 {
            let disk = MemoryDisk::default();
            write(&mut FileSnapshots::on(disk.clone()).unwrap(), 4, OLD).unwrap();
            disk.crash_after(operations, seed);
            let mut store = FileSnapshots::on(disk.clone()).unwrap();
            let finished = write(&mut store, 9, &contents).is_ok();
            drop(store);
            disk.restart();
            let mut store = FileSnapshots::on(disk).unwrap();
            let listed: Vec<SnapshotId> = store.list().unwrap().iter().map(|head| head.id).collect();
            assert_eq!(listed[0].index, LogIndex(4), "the one before stays");
            assert_eq!(read(&mut store, listed[0]).unwrap(), OLD);
            match listed.get(1) {
                Some(id) => assert_eq!(read(&mut store, *id).unwrap(), contents),
                None => assert!(!finished, "it was said to be durable"),
            }
            came_through |= finished;
            *if listed.len() > 1 { &mut kept } else { &mut lost } += 1;
        }
        if came_through {
            break;
        }
    }
    assert!(lost > 100 && kept > 6, "{lost} lost, {kept} kept");
}

#[test]
fn short_and_interrupted_operations_and_a_full_disk_are_survived() {
    let disk = MemoryDisk::default();
    disk.be_unsteady();
    let mut store = FileSnapshots::on(disk.clone()).unwrap();
    write(&mut store, 9, NEW).unwrap();
    assert_eq!(read(&mut store, head(9, NEW).id).unwrap(), NEW);
    for operations in 0..12 {
        disk.fail_once_after(operations, std::io::ErrorKind::StorageFull);
        let _ = write(&mut store, 10, OLD);
        let listed = store.list().unwrap();
        assert_eq!(listed[0], head(9, NEW));
        for head in listed {
            assert!(read(&mut store, head.id).is_ok());
        }
        write(&mut store, 11, OLD).unwrap();
    }
}
