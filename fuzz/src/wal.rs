//! What is asked of a log whose files were tampered with.

use std::sync::OnceLock;

use bytes::Bytes;
use synod_core::Write;
use synod_wal::{Engine, Inspection, Wal, WalError, WalOptions};

use memory_disk::{Contents, MemoryDisk, SECTOR};
use model::{IDENTITY, Model, Script};

#[allow(dead_code, reason = "crashes and failures are for the tests of the log")]
#[path = "../../wal/tests/engine/memory_disk.rs"]
mod memory_disk;
#[path = "../../wal/tests/engine/model.rs"]
mod model;

/// A log opens with what some prefix of its units left, or is refused with a typed error; then it goes on. With
/// forged checksums it may hold anything, and still opens or is refused.
///
/// The input: which log, then what happens to its files, one operation after the other.
pub fn wal(data: &[u8]) {
    let Some((which, operations)) = data.split_first() else { return };
    let logs = logs();
    let log = &logs[usize::from(*which) % logs.len()];
    let mut contents = log.contents.clone();
    let mut tampering = Tampering { input: operations, forged: false };
    while tampering.step(&mut contents).is_some() {}
    let disk = MemoryDisk::of(contents);
    let inspected = Inspection::of(&disk);
    let mut engine = engine(&disk);
    let recovered = match engine.recover(&IDENTITY) {
        Ok(recovered) => recovered,
        Err(error) => {
            let typed =
                matches!(error, WalError::Corrupt { .. } | WalError::NoLog { .. } | WalError::Foreign { .. });
            assert!(typed || tampering.forged, "{error}");
            return;
        }
    };
    inspected.expect("what opens can be looked at");
    let seen = Model::observe(&recovered, &*engine.reader());
    if tampering.forged {
        return;
    }
    let seen = seen.expect("what was verified at the start can be read");
    assert!(log.states.contains(&seen), "this log never was: {seen:?}");
    let next = Write { hard_state: Some(Bytes::from_static(b"next")), ..Write::default() };
    engine.write(&[next]).expect("the disk is sound");
    let again = engine.recover(&IDENTITY).expect("what was opened opens again");
    assert_eq!(again.hard_state.as_deref(), Some(&b"next"[..]));
    assert_eq!(again.incarnation.0, recovered.incarnation.0 + 1);
}

/// A sound log, and what it held after each of its units.
struct Log {
    contents: Contents,
    states: Vec<Model>,
}

/// Logs of several segments and of one, some ended cleanly; the last one is an empty folder.
fn logs() -> &'static [Log] {
    static LOGS: OnceLock<Vec<Log>> = OnceLock::new();
    LOGS.get_or_init(|| {
        let mut logs: Vec<Log> = (0..6).map(|seed| log(seed, [3, 12, 40][seed as usize % 3])).collect();
        logs.push(Log { contents: Contents::default(), states: Vec::new() });
        logs
    })
}

fn log(seed: u64, units: u64) -> Log {
    let disk = MemoryDisk::default();
    let mut writer = engine(&disk);
    writer.create(&IDENTITY).expect("the folder is empty");
    writer.recover(&IDENTITY).expect("a new log");
    let mut script = Script::new(seed);
    let mut states = vec![Model::default()];
    for _ in 0..units {
        let mut state = states.last().cloned().unwrap_or_default();
        let unit = script.unit(&state);
        state.apply(&unit);
        writer.write(&[unit]).expect("the disk is sound");
        states.push(state);
    }
    if seed.is_multiple_of(2) {
        writer.close().expect("the disk is sound");
    }
    Log { contents: disk.contents(), states }
}

fn engine(disk: &MemoryDisk) -> Engine<MemoryDisk> {
    let options: WalOptions = Wal::options().segment_bytes(WalOptions::SEGMENT_BYTES_MIN);
    Engine::new(disk.clone(), options).expect("the least that is allowed")
}

/// Reads operations from an input and does them.
struct Tampering<'a> {
    input: &'a [u8],
    /// Checksums were made right for bytes that the log has not written.
    forged: bool,
}

impl Tampering<'_> {
    /// One operation; `None` at the end of the input.
    fn step(&mut self, contents: &mut Contents) -> Option<()> {
        let (operation, file, at) = (self.byte()?, self.byte()?, self.short()?);
        let names: Vec<String> = contents.files().map(|(name, _)| name.to_owned()).collect();
        if operation.is_multiple_of(9) || names.is_empty() {
            // A file of these bytes.
            let bytes = self.take(at);
            contents.place(&format!("segment-{:010}", file % 8), bytes.to_vec());
            return Some(());
        }
        let name = &names[usize::from(file) % names.len()];
        match operation % 9 {
            1 => {
                let bytes = self.byte().map(usize::from).map(|len| self.take(len))?;
                contents.damage(name, |file| overwrite(file, at, bytes));
            }
            2 => {
                let flip = self.byte()?;
                contents.damage(name, |file| file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= flip));
            }
            3 => {
                let len = self.short()?;
                contents.damage(name, |file| file.iter_mut().skip(at).take(len).for_each(|byte| *byte = 0));
            }
            4 => contents.damage(name, |file| file.resize(at, 0)),
            5 => contents.lose(name),
            6 => {
                // A sector comes to another place, maybe of another file.
                let (to, place) = (self.byte()?, self.short()?);
                let from = contents.files().nth(usize::from(file) % names.len()).map(|(_, bytes)| bytes);
                let moved: Vec<u8> =
                    from.into_iter().flatten().skip(at / SECTOR * SECTOR).take(SECTOR).copied().collect();
                let to = &names[usize::from(to) % names.len()];
                contents.damage(to, |file| overwrite(file, place / SECTOR * SECTOR, &moved));
            }
            7 => {
                let copy =
                    contents.files().nth(usize::from(file) % names.len()).map(|(_, bytes)| bytes.to_vec());
                let number = self.byte()? % 16;
                contents.place(&format!("segment-{number:010}"), copy.unwrap_or_default());
            }
            _ => {
                self.forged = true;
                contents.damage(name, |file| forge(file, at));
            }
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.input.split_first()?;
        self.input = rest;
        Some(*first)
    }

    fn short(&mut self) -> Option<usize> {
        Some(usize::from(u16::from_le_bytes([self.byte()?, self.byte()?])))
    }

    fn take(&mut self, len: usize) -> &[u8] {
        let (taken, rest) = self.input.split_at(len.min(self.input.len()));
        self.input = rest;
        taken
    }
}

fn overwrite(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Makes right every checksum of a segment: of its header, and of the batch at or before `until` and all before it,
/// as `synod_wal` describes its bytes.
fn forge(file: &mut [u8], until: usize) {
    if file.len() < HEADER_LEN {
        return;
    }
    let sum = crc32c::crc32c(&file[..64]).to_le_bytes();
    file[64..68].copy_from_slice(&sum);
    let salted = crc32c::crc32c(&file[48..56]);
    let sum_of = |at: usize, bytes: &[u8]| {
        crc32c::crc32c_append(crc32c::crc32c_append(salted, &(at as u64).to_le_bytes()), bytes).to_le_bytes()
    };
    let mut at = HEADER_LEN;
    while at <= until && at + SECTOR <= file.len() {
        let word = |file: &[u8], at: usize| {
            file.get(at..at + 4)
                .map_or(0, |four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize)
        };
        let end = (at + BATCH_HEADER_LEN).saturating_add(word(file, at + 24)).min(file.len());
        let mut record = at + BATCH_HEADER_LEN;
        while record + 12 <= end {
            let body_end = (record + 8).saturating_add(word(file, record + 4));
            if body_end + 4 > end {
                break;
            }
            let sum = sum_of(record, &file[record..body_end]);
            file[body_end..body_end + 4].copy_from_slice(&sum);
            record = body_end + 4;
        }
        let sum = sum_of(at, &file[at + BATCH_HEADER_LEN..end]);
        file[at + 32..at + 36].copy_from_slice(&sum);
        let sum = sum_of(at, &file[at..at + 36]);
        file[at + 36..at + 40].copy_from_slice(&sum);
        at = at.saturating_add(word(file, at + 4).max(SECTOR));
    }
}

/// Where the first batch of a segment stands.
const HEADER_LEN: usize = 4096;
const BATCH_HEADER_LEN: usize = 40;
