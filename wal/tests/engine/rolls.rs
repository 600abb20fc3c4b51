//! Segments that end at inconvenient moments.

use std::io;

use bytes::Bytes;
use synod_core::{Write, WriteId};
use synod_wal::{Engine, Wal, WalError, WalOptions};

use crate::memory_disk::MemoryDisk;
use crate::model::IDENTITY;

fn engine(disk: &MemoryDisk) -> Engine<MemoryDisk> {
    Engine::new(disk.clone(), Wal::options().segment_bytes(WalOptions::SEGMENT_BYTES_MIN)).unwrap()
}

fn hard_state(id: u64, len: usize) -> Write {
    Write { id: WriteId(id), forced: true, hard_state: Some(Bytes::from(vec![7; len])), ..Write::default() }
}

/// A log whose next write rolls into a segment that is exactly long enough for it: its hard state is longer than a
/// segment, and an empty one follows.
fn about_to_roll(len: usize) -> (MemoryDisk, Engine<MemoryDisk>) {
    let disk = MemoryDisk::default();
    let mut log = engine(&disk);
    log.create(&IDENTITY).unwrap();
    log.recover(&IDENTITY).unwrap();
    log.write(&[hard_state(1, len)]).unwrap();
    (disk, log)
}

/// What a log of one unit, and perhaps a second one that was never acknowledged, may say.
fn holds(disk: &MemoryDisk, len: usize, what: &str) {
    let found = engine(disk).recover(&IDENTITY).unwrap_or_else(|error| panic!("{what}: {error}"));
    let state = found.hard_state.map(|state| state.len());
    assert!(state == Some(len) || state == Some(0), "{what}: {state:?}");
}

#[test]
fn a_segment_that_is_sealed_before_its_checkpoint_is_not_all_that_is_needed() {
    let mut sealed_empty = 0;
    // One of these lengths leaves no room for the first batch of a life.
    for len in (3600..3600 + 512).step_by(4) {
        let operations = {
            let (disk, mut log) = about_to_roll(len);
            let before = disk.operations();
            log.write(&[hard_state(2, 0)]).unwrap();
            disk.operations() - before
        };
        // From the seal on: before, nothing of the roll is left.
        for first in operations.saturating_sub(8)..operations {
            let (disk, mut log) = about_to_roll(len);
            disk.crash_after(first, 1);
            assert!(log.write(&[hard_state(2, 0)]).is_err());
            disk.restart();
            let crashed = disk.contents();
            for second in 0.. {
                let disk = MemoryDisk::of(crashed.clone());
                let before = disk.operations();
                disk.crash_after(second, second);
                let whole = engine(&disk).recover(&IDENTITY).is_ok();
                sealed_empty += u64::from(whole && disk.operations() - before > 12);
                disk.restart();
                holds(&disk, len, &format!("{len} bytes, crashes after {first} and {second} operations"));
                if whole {
                    break;
                }
            }
        }
    }
    assert!(sealed_empty > 0, "no life began with a roll");
}

#[test]
fn an_error_while_a_life_begins_is_final() {
    for operation in 0.. {
        let (disk, log) = about_to_roll(100);
        drop(log);
        disk.fail_once_after(operation, io::ErrorKind::StorageFull);
        let mut log = engine(&disk);
        match log.recover(&IDENTITY) {
            Ok(_) => {
                assert!(operation > 3, "a sync of the last batch, one of the folder, a write and its sync");
                return;
            }
            Err(error) => assert!(matches!(error, WalError::Io { .. }), "{error}"),
        }
        let again = log.recover(&IDENTITY);
        assert!(matches!(again, Err(WalError::Poisoned)), "after operation {operation}: {again:?}");
        holds(&disk, 100, "another engine");
    }
}
