//! ST6: whatever happens to the bytes of a log, it opens with everything that was acknowledged, or is refused.

use std::io;

use bytes::Bytes;
use synod_core::{ClusterId, Identity, IndexRange, LogIndex, NodeId, ReadError, StorageError, Write};
use synod_wal::{Engine, Inspection, Wal, WalError, WalOptions};

use crate::memory_disk::{Contents, MemoryDisk, Operation, SECTOR};
use crate::model::{IDENTITY, Model, Script};

fn engine(disk: &MemoryDisk) -> Engine<MemoryDisk> {
    Engine::new(disk.clone(), Wal::options().segment_bytes(WalOptions::SEGMENT_BYTES_MIN)).unwrap()
}

/// A log of several segments, every unit of it acknowledged.
struct Log {
    contents: Contents,
    state: Model,
    /// The files at earlier times, with their contents.
    past: Vec<(String, Vec<u8>)>,
}

fn log(seed: u64, units: u64, ends_cleanly: bool) -> Log {
    log_of(seed, units, ends_cleanly, |unit| unit)
}

/// A log in which nothing is compacted, so that every segment stays.
fn whole_log(seed: u64, units: u64, ends_cleanly: bool) -> Log {
    log_of(seed, units, ends_cleanly, |unit| Write { install: None, compact_to: None, ..unit })
}

fn log_of(seed: u64, units: u64, ends_cleanly: bool, change: impl Fn(Write) -> Write) -> Log {
    let disk = MemoryDisk::default();
    let mut script = Script::new(seed);
    let mut state = Model::default();
    let mut past: Vec<(String, Vec<u8>)> = Vec::new();
    let mut writer = engine(&disk);
    writer.create(&IDENTITY).unwrap();
    writer.recover(&IDENTITY).unwrap();
    for _ in 0..units {
        let unit = change(script.unit(&state));
        state.apply(&unit);
        writer.write(&[unit]).unwrap();
        for (name, bytes) in disk.contents().files() {
            if past.iter().all(|(_, seen)| seen != bytes) {
                past.push((name.to_owned(), bytes.to_vec()));
            }
        }
    }
    if ends_cleanly {
        writer.close().unwrap();
    }
    Log { contents: disk.contents(), state, past }
}

/// How a damaged log opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    Whole,
    Refused,
}

impl Log {
    fn names(&self) -> Vec<String> {
        self.contents.files().map(|(name, _)| name.to_owned()).collect()
    }

    fn len(&self, name: &str) -> usize {
        self.contents.files().find(|(file, _)| *file == name).map_or(0, |(_, bytes)| bytes.len())
    }

    /// Opens a damaged copy: everything that was acknowledged is there, or a file is named.
    fn opens(&self, what: &str, damage: impl FnOnce(&mut Contents)) -> Opened {
        let mut contents = self.contents.clone();
        damage(&mut contents);
        let disk = MemoryDisk::of(contents);
        let looked = Inspection::of(&disk);
        let mut log = engine(&disk);
        match log.recover(&IDENTITY) {
            Ok(recovered) => {
                let seen = Model::observe(&recovered, &*log.reader()).unwrap();
                assert_eq!(seen, self.state, "{what}: another log opens");
                assert!(looked.is_ok(), "{what}: {looked:?}");
                Opened::Whole
            }
            Err(WalError::Corrupt { file, .. }) => {
                assert!(file.starts_with("segment-"), "{what}: {file} is named");
                assert!(matches!(looked, Err(WalError::Corrupt { .. })), "{what}: {looked:?}");
                Opened::Refused
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

#[test]
fn a_flip_of_any_byte_is_harmless_or_refused() {
    // None of these logs ends in a batch one of whose sectors holds a single byte that is not zero: without that byte
    // the sector is blank, and the batch looks torn.
    for (seed, units, ends_cleanly) in [(1, 30, true), (2, 31, false), (5, 8, false)] {
        let log = log(seed, units, ends_cleanly);
        let mut opened = [0, 0];
        for name in log.names() {
            for at in 0..log.len(&name) {
                let flip = [0xFF, 0x01, 0x80][at % 3];
                let what = format!("log {seed}, {name}, byte {at} flipped by {flip:#x}");
                let outcome = log.opens(&what, |contents| contents.damage(&name, |bytes| bytes[at] ^= flip));
                opened[usize::from(outcome == Opened::Whole)] += 1;
                let what = format!("log {seed}, {name}, byte {at} is 0");
                log.opens(&what, |contents| contents.damage(&name, |bytes| bytes[at] = 0));
            }
        }
        assert!(opened[0] > 500 && opened[1] > 500, "refused and whole: {opened:?}");
    }
}

#[test]
fn a_write_that_stopped_at_any_byte_is_torn_or_whole_and_never_damage() {
    let disk = MemoryDisk::default();
    let mut writer = engine(&disk);
    writer.create(&IDENTITY).unwrap();
    writer.recover(&IDENTITY).unwrap();
    let mut script = Script::new(12);
    let mut states = vec![Model::default()];
    for _ in 0..4 {
        let mut state = states.last().unwrap().clone();
        let unit = script.unit(&state);
        state.apply(&unit);
        let before = disk.contents();
        writer.write(&[unit]).unwrap();
        let after = disk.contents();
        for (name, bytes) in after.files() {
            let Some((_, old)) = before.files().find(|(file, _)| *file == name) else { continue };
            if before.files().count() < after.files().count() {
                // A seal comes after the segment that it names.
                continue;
            }
            let changed: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != old[*at]).collect();
            let (Some(first), Some(last)) = (changed.first(), changed.last()) else { continue };
            for stop in *first..=*last + 1 {
                let mut stopped = before.clone();
                stopped.damage(name, |file| file[..stop].copy_from_slice(&bytes[..stop]));
                let mut log = engine(&MemoryDisk::of(stopped));
                let recovered = log.recover(&IDENTITY).unwrap_or_else(|error| panic!("{stop}: {error}"));
                let seen = Model::observe(&recovered, &*log.reader()).unwrap();
                assert!(seen == state || Some(&seen) == states.last(), "stopped at byte {stop}");
                let next = Write { hard_state: Some(Bytes::from_static(b"next")), ..Write::default() };
                log.write(&[next]).unwrap();
                assert_eq!(log.recover(&IDENTITY).unwrap().hard_state.unwrap(), "next");
            }
        }
        states.push(state);
    }
}

#[test]
fn a_start_that_stopped_at_any_byte_of_its_writes_is_started_again() {
    let disk = MemoryDisk::default();
    let mut writer = engine(&disk);
    writer.create(&IDENTITY).unwrap();
    writer.recover(&IDENTITY).unwrap();
    let acknowledged = Bytes::from_static(b"acknowledged");
    writer.write(&[Write { hard_state: Some(acknowledged.clone()), ..Write::default() }]).unwrap();
    disk.record();
    writer.write(&[Write { hard_state: Some(vec![7; 1500].into()), ..Write::default() }]).unwrap();
    let operations = disk.take_record();
    let [Operation::Write { offset, bytes, .. }, Operation::Sync { .. }] = &operations[..] else {
        panic!("{operations:?}");
    };
    // Torn: all of it arrived but for one sector.
    for lost in (0..bytes.len()).step_by(SECTOR) {
        let torn = disk.contents();
        let at = usize::try_from(*offset).unwrap() + lost;
        let name = torn.files().find(|(name, _)| name.starts_with("segment-")).unwrap().0.to_owned();
        let mut torn = torn.clone();
        torn.damage(&name, |file| file[at..at + SECTOR].fill(0));
        let first = MemoryDisk::of(torn.clone());
        first.record();
        assert_eq!(engine(&first).recover(&IDENTITY).unwrap().hard_state.as_ref(), Some(&acknowledged));
        let mut image = torn;
        for operation in first.take_record() {
            if let Operation::Write { file, offset, bytes } = &operation {
                for stop in 0..bytes.len().min(2 * SECTOR) {
                    let mut stopped = image.clone();
                    let (file, offset, bytes) = (*file, *offset, bytes[..stop].to_vec());
                    stopped.apply(&Operation::Write { file, offset, bytes });
                    let again = engine(&MemoryDisk::of(stopped)).recover(&IDENTITY);
                    let again =
                        again.unwrap_or_else(|error| panic!("{lost} lost, {offset}, {stop}: {error}"));
                    assert_eq!(again.hard_state.as_ref(), Some(&acknowledged));
                }
            }
            image.apply(&operation);
        }
    }
}

#[test]
fn a_flip_after_the_start_is_found_when_the_entry_is_read() {
    let disk = MemoryDisk::default();
    let mut writer = engine(&disk);
    writer.create(&IDENTITY).unwrap();
    writer.recover(&IDENTITY).unwrap();
    let mut script = Script::new(3);
    let mut state = Model::default();
    for _ in 0..10 {
        let unit = script.unit(&state);
        state.apply(&unit);
        writer.write(&[unit]).unwrap();
    }
    let reader = writer.reader();
    let first = state.compacted.map_or(LogIndex(1), |(bound, _)| bound.next());
    let everything = IndexRange::new(first, LogIndex(u64::MAX));
    let expected = reader.read(everything, usize::MAX).unwrap();
    let names: Vec<(String, usize)> =
        disk.contents().files().map(|(name, bytes)| (name.to_owned(), bytes.len())).collect();
    let mut found = 0;
    for (name, len) in names {
        for at in (0..len).step_by(7) {
            disk.damage(&name, |bytes| bytes[at] ^= 0x10);
            match reader.read(everything, usize::MAX) {
                Ok(loaded) => assert_eq!(loaded, expected, "{name}, byte {at}"),
                Err(ReadError::Storage(StorageError::Corrupt { .. })) => found += 1,
                Err(error) => panic!("{name}, byte {at}: {error}"),
            }
            disk.damage(&name, |bytes| bytes[at] ^= 0x10);
        }
    }
    assert!(found > 100, "{found} were found");
}

#[test]
fn a_segment_that_is_missing_or_cut_short_is_refused() {
    for ends_cleanly in [true, false] {
        let log = whole_log(4, 20, ends_cleanly);
        assert!(log.names().len() > 3, "{:?}", log.names());
        for name in log.names().into_iter().filter(|name| name.starts_with("segment-")) {
            let lost = |contents: &mut Contents| contents.lose(&name);
            assert_eq!(log.opens(&format!("{name} is missing"), lost), Opened::Refused);
            for len in (0..log.len(&name)).step_by(256) {
                let cut = |contents: &mut Contents| contents.damage(&name, |bytes| bytes.truncate(len));
                assert_eq!(log.opens(&format!("{name} is cut to {len}"), cut), Opened::Refused);
            }
        }
    }
}

#[test]
fn a_sector_that_was_acknowledged_and_is_blank_is_refused_once_anything_followed() {
    let log = whole_log(4, 20, true);
    for name in log.names() {
        for sector in 0..log.len(&name) / SECTOR {
            let what = format!("{name}, sector {sector} is blank");
            log.opens(&what, |contents| {
                contents.damage(&name, |bytes| bytes[sector * SECTOR..][..SECTOR].fill(0));
            });
        }
    }
}

#[test]
fn a_segment_whose_header_and_the_seal_before_it_are_lost_is_not_taken_for_a_spare() {
    for ends_cleanly in [true, false] {
        let log = whole_log(4, 20, ends_cleanly);
        let used: Vec<&str> = log
            .contents
            .files()
            .filter(|(name, bytes)| {
                name.starts_with("segment-") && bytes[8 * SECTOR..].iter().any(|byte| *byte != 0)
            })
            .map(|(name, _)| name)
            .collect();
        let [.., sealed, newest] = used[..] else { panic!("{used:?}") };
        for header in [0x00, 0xA5] {
            let what = format!("{sealed} has lost its seal, {newest} its header");
            let outcome = log.opens(&what, |contents| {
                contents.damage(sealed, |bytes| {
                    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap() / SECTOR;
                    bytes[last * SECTOR..][..SECTOR].fill(0);
                });
                contents.damage(newest, |bytes| bytes[..SECTOR].fill(header));
            });
            assert_eq!(outcome, Opened::Refused, "{what}");
        }
    }
}

#[test]
fn a_sector_that_begins_like_no_batch_is_not_a_torn_one() {
    let disk = MemoryDisk::default();
    let mut writer = engine(&disk);
    writer.create(&IDENTITY).unwrap();
    writer.recover(&IDENTITY).unwrap();
    let before = disk.contents();
    writer.write(&[Script::new(3).unit(&Model::default())]).unwrap();
    let mut contents = disk.contents();
    let changed = |(name, bytes): (&str, &[u8])| {
        let old = before.files().find(|(file, _)| *file == name)?.1;
        Some((name.to_owned(), (0..bytes.len()).find(|at| bytes[*at] != old[*at])?))
    };
    let (name, at) = contents.files().find_map(changed).expect("a batch was written");
    assert_eq!(at % SECTOR, 0);
    contents.damage(&name, |bytes| {
        bytes[at..at + SECTOR].fill(0);
        bytes[at] = b'X';
    });
    let refused = engine(&MemoryDisk::of(contents)).recover(&IDENTITY);
    assert!(matches!(refused, Err(WalError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn sectors_at_the_wrong_place_are_never_taken_for_others() {
    let log = whole_log(6, 15, true);
    for from_name in log.names() {
        for to_name in log.names() {
            let source = log.contents.files().find(|(name, _)| *name == from_name).unwrap().1.to_vec();
            for sector in 8..source.len() / SECTOR {
                let moved = source[sector * SECTOR..][..SECTOR].to_vec();
                let place = 8 + (sector * 5) % 8;
                log.opens(&format!("{from_name} {sector} at {to_name} {place}"), |contents| {
                    contents.damage(&to_name, |bytes| {
                        bytes[place * SECTOR..][..SECTOR].copy_from_slice(&moved);
                    });
                });
            }
        }
    }
}

#[test]
fn a_stale_segment_that_comes_back_is_ignored_or_refused() {
    let log = log(8, 120, true);
    let mut stale = 0;
    for (name, bytes) in &log.past {
        if log.contents.files().any(|(there, now)| there == name && now == &bytes[..]) {
            continue;
        }
        stale += 1;
        log.opens(&format!("an old {name} is back"), |contents| contents.place(name, bytes.clone()));
        let newest = log.names().into_iter().rfind(|name| name.starts_with("segment-")).unwrap();
        log.opens(&format!("an old {name} stands at {newest}"), |contents| {
            contents.place(&newest, bytes.clone());
        });
        let after = format!("segment-{:010}", newest["segment-".len()..].parse::<u64>().unwrap() + 1);
        log.opens(&format!("an old {name} stands at {after}"), |contents| {
            contents.place(&after, bytes.clone());
        });
    }
    assert!(stale > 50, "{stale} stale files");
}

#[test]
fn a_stranger_is_refused_and_changes_nothing() {
    let log = log(1, 20, true);
    for stranger in [Identity { cluster: ClusterId(1), ..IDENTITY }, Identity { node: NodeId(9), ..IDENTITY }]
    {
        let disk = MemoryDisk::of(log.contents.clone());
        let before = disk.operations();
        let error = engine(&disk).recover(&stranger).unwrap_err();
        assert!(
            matches!(error, WalError::Foreign { expected, found } if expected == stranger && found == IDENTITY)
        );
        assert_eq!(disk.operations(), before);
    }
}

#[test]
fn a_full_disk_or_a_failed_sync_at_any_step_is_final_and_loses_nothing_acknowledged() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let mut failed = 0;
        for point in 0.. {
            let disk = MemoryDisk::default();
            let mut writer = engine(&disk);
            writer.create(&IDENTITY).unwrap();
            writer.recover(&IDENTITY).unwrap();
            disk.fail_once_after(point, kind);
            let mut script = Script::new(9);
            let mut states = vec![Model::default()];
            let mut error = None;
            while error.is_none() && states.len() < 60 {
                let mut state = states.last().unwrap().clone();
                let unit = script.unit(&state);
                state.apply(&unit);
                states.push(state);
                error = writer.write(&[unit]).err();
            }
            let Some(error) = error else { break };
            failed += 1;
            assert!(matches!(&error, WalError::Io { source, .. } if source.kind() == kind), "{error}");
            let later = Write { hard_state: Some(Bytes::from_static(b"later")), ..Write::default() };
            assert!(matches!(writer.write(&[later]), Err(WalError::Poisoned)));
            assert!(matches!(
                writer.reader().read(IndexRange::new(LogIndex(1), LogIndex(2)), 1),
                Err(ReadError::Storage(StorageError::Poisoned))
            ));
            drop(writer);
            disk.restart();
            let mut again = engine(&disk);
            let recovered = again.recover(&IDENTITY).unwrap();
            let seen = Model::observe(&recovered, &*again.reader()).unwrap();
            assert!(states[states.len() - 2..].contains(&seen), "after a failure at operation {point}");
        }
        assert!(failed > 100, "{failed} operations failed");
    }
}

#[test]
fn a_full_disk_while_a_log_is_made_leaves_nothing_that_opens() {
    for point in 0.. {
        let disk = MemoryDisk::default();
        disk.fail_once_after(point, io::ErrorKind::StorageFull);
        if engine(&disk).create(&IDENTITY).is_ok() {
            assert!(point > 4);
            return;
        }
        match engine(&disk).recover(&IDENTITY) {
            // The log was made, and only the sync of the folder failed.
            Ok(_) => {}
            Err(WalError::NoLog { .. }) => engine(&disk).create(&IDENTITY).unwrap(),
            Err(error) => panic!("a failure at operation {point} leaves: {error}"),
        }
    }
}
