//! The bytes of a log: they may not change under one version number, and every version is read.
//!
//! `REWRITE=1 cargo test -p synod-wal --test engine golden` writes the file anew.

use std::fmt::Write as _;
use std::fs;

use bytes::Bytes;
use synod_core::{
    ClientId, ClusterId, Entries, Entry, GroupId, Identity, Kind, LogIndex, NodeId, Reign, RequestId,
    Sequence, Stamp, Write, WriteId,
};
use synod_wal::{Engine, FORMAT_VERSION, Inspection, Wal, WalError, WalOptions, force_new_cluster_on};

use crate::memory_disk::{Contents, MemoryDisk};
use crate::model::Model;

/// A log as most are.
const VERSION_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/format-1.txt");

/// One that was made from another by force.
const VERSION_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/format-2.txt");

const IDENTITY: Identity = Identity {
    cluster: ClusterId(0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10),
    node: NodeId(0x11),
    group: GroupId(0x12),
};

fn engine(disk: &MemoryDisk) -> Engine<MemoryDisk> {
    Engine::new(disk.clone(), Wal::options().segment_bytes(WalOptions::SEGMENT_BYTES_MIN)).unwrap()
}

fn entry(index: u64, kind: Kind, payload: Vec<u8>) -> Entry {
    Entry {
        index: LogIndex(index),
        stamp: Stamp { high: 0x21, low: 0x22 },
        reign: Reign { number: 0x23, leader: NodeId(0x24) },
        kind,
        request: RequestId {
            client: ClientId(0x25),
            sequence: Sequence(0x26),
            first_incomplete: Sequence(0x27),
        },
        payload: Bytes::from(payload),
    }
}

fn units() -> Vec<Vec<Write>> {
    let unit = |id| Write { id: WriteId(id), forced: true, ..Write::default() };
    let put = |entries: Vec<Entry>| vec![Entries::new(entries).unwrap()];
    vec![
        vec![Write {
            puts: put(vec![entry(1, Kind::Command, b"first".to_vec()), entry(2, Kind::Membership, vec![])]),
            hard_state: Some(Bytes::from_static(b"vote")),
            ..unit(1)
        }],
        vec![
            Write {
                truncate_from: Some(LogIndex(2)),
                puts: put(vec![entry(2, Kind::Private(5), vec![0; 1100])]),
                ..unit(2)
            },
            Write { compact_to: Some(LogIndex(1)), ..unit(3) },
        ],
        // Does not fit any more: the segment is sealed.
        vec![Write { puts: put(vec![entry(3, Kind::Noop, vec![7; 1400])]), ..unit(4) }],
    ]
}

/// The files in lines of 32 bytes, without those that are blank.
fn dump(contents: &Contents) -> String {
    let mut text = String::new();
    for (name, bytes) in contents.files() {
        writeln!(text, "{name} {} bytes", bytes.len()).unwrap();
        for (at, line) in bytes.chunks(32).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0))
        {
            write!(text, "{:06x} ", at * 32).unwrap();
            for byte in line {
                write!(text, "{byte:02x}").unwrap();
            }
            text.push('\n');
        }
    }
    text
}

/// The files of a dump.
fn undump(text: &str) -> Contents {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (first, second) = (words.next().unwrap(), words.next().unwrap());
        if words.next() == Some("bytes") {
            files.push((first.to_owned(), vec![0; second.parse().unwrap()]));
            continue;
        }
        let at = usize::from_str_radix(first, 16).unwrap();
        let (_, bytes) = files.last_mut().unwrap();
        for (offset, pair) in second.as_bytes().chunks(2).enumerate() {
            bytes[at + offset] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
    }
    let mut contents = Contents::default();
    for (name, bytes) in files {
        contents.place(&name, bytes);
    }
    contents
}

fn assert_golden(path: &str, disk: &MemoryDisk) {
    let written = dump(&disk.contents());
    if std::env::var_os("REWRITE").is_some() {
        fs::write(path, &written).unwrap();
    }
    assert!(written == fs::read_to_string(path).unwrap(), "the bytes of {path} have changed:\n{written}");
    assert!(written.contains("segment-0000000002"));
}

fn golden(path: &str) -> MemoryDisk {
    MemoryDisk::of(undump(&fs::read_to_string(path).unwrap()))
}

#[test]
fn golden_bytes_of_version_1_are_written() {
    let disk = MemoryDisk::default();
    let mut log = engine(&disk);
    log.create(&IDENTITY).unwrap();
    log.recover(&IDENTITY).unwrap();
    for batch in units() {
        log.write(&batch).unwrap();
    }
    assert_golden(VERSION_1, &disk);
}

/// The log that the golden one of version 2 is made from: nothing of it is compacted.
fn whole() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let mut log = engine(&disk);
    log.create(&IDENTITY).unwrap();
    log.recover(&IDENTITY).unwrap();
    for mut batch in units() {
        batch.retain(|unit| unit.compact_to.is_none());
        log.write(&batch).unwrap();
    }
    let unit = Write { id: WriteId(5), forced: true, ..Write::default() };
    let members = Entries::new(vec![entry(4, Kind::Membership, b"of the old cluster".to_vec())]).unwrap();
    log.write(&[Write { puts: vec![members], ..unit }]).unwrap();
    disk
}

#[test]
fn golden_bytes_of_version_2_are_written() {
    let disk = MemoryDisk::default();
    let options = Wal::options().segment_bytes(WalOptions::SEGMENT_BYTES_MIN);
    let forced = force_new_cluster_on(&whole(), disk.clone(), options, ClusterId(0x99)).unwrap();
    assert_eq!((forced.entries, forced.memberships), (4, 1));
    // What comes later names the origin too: the first segment may be gone one day.
    let mut log = engine(&disk);
    log.recover(&forced.identity).unwrap();
    let later = Entries::new(vec![entry(5, Kind::Command, vec![9; 3000])]).unwrap();
    log.write(&[Write { id: WriteId(1), forced: true, puts: vec![later], ..Write::default() }]).unwrap();
    let unit = Write { id: WriteId(2), forced: true, compact_to: Some(LogIndex(5)), ..Write::default() };
    log.write(&[unit]).unwrap();
    assert_golden(VERSION_2, &disk);
}

#[test]
fn golden_bytes_of_version_1_are_read() {
    let mut expected = Model::default();
    for unit in units().iter().flatten() {
        expected.apply(unit);
    }
    let disk = golden(VERSION_1);
    let found = Inspection::of(&disk).unwrap();
    assert_eq!((found.version, found.origin), (1, None));
    let mut log = engine(&disk);
    let recovered = log.recover(&IDENTITY).unwrap();
    assert_eq!(recovered.incarnation.0, 2);
    assert_eq!(Model::observe(&recovered, &*log.reader()).unwrap(), expected);
}

#[test]
fn golden_bytes_of_version_2_are_read() {
    let disk = golden(VERSION_2);
    let found = Inspection::of(&disk).unwrap();
    assert_eq!(found.version, 2);
    let origin = found.origin.expect("a log made by force says so");
    assert_eq!((origin.cluster, origin.node, origin.incarnation.0), (IDENTITY.cluster, IDENTITY.node, 1));
    assert_eq!(found.identity, Identity { cluster: ClusterId(0x99), ..IDENTITY });
    assert_eq!(found.incarnation.0, 3, "lives go on where those of the old log ended");
    assert_eq!(found.compacted.map(|(bound, _)| bound), Some(LogIndex(5)));
    assert_eq!(found.hard_state.as_deref(), Some(&b"vote"[..]));
}

#[test]
fn a_later_version_is_named_and_refused_and_nothing_is_changed() {
    let mut contents = undump(&fs::read_to_string(VERSION_1).unwrap());
    for name in ["segment-0000000001", "segment-0000000002"] {
        contents.damage(name, |bytes| {
            bytes[8] = 3;
            let checksum = crc32c::crc32c(&bytes[..64]);
            bytes[64..68].copy_from_slice(&checksum.to_le_bytes());
        });
    }
    let disk = MemoryDisk::of(contents);
    let before = dump(&disk.contents());
    for error in [engine(&disk).recover(&IDENTITY).unwrap_err(), Inspection::of(&disk).unwrap_err()] {
        let (name, known) = ("segment-0000000002".to_owned(), FORMAT_VERSION);
        assert!(
            matches!(&error, WalError::Version { file, found: 3, known: read } if *file == name && *read == known),
            "{error:?}"
        );
    }
    assert_eq!(dump(&disk.contents()), before);
}

#[test]
fn what_cannot_be_forced_is_named() {
    let options = || Wal::options().segment_bytes(WalOptions::SEGMENT_BYTES_MIN);
    let force = |from: &MemoryDisk, cluster| {
        force_new_cluster_on(from, MemoryDisk::default(), options(), cluster).unwrap_err()
    };
    let same = force(&whole(), IDENTITY.cluster);
    assert!(matches!(same, WalError::SameCluster { cluster } if cluster == IDENTITY.cluster), "{same:?}");
    let compacted = force(&golden(VERSION_1), ClusterId(0x99));
    assert!(matches!(compacted, WalError::Compacted { through: LogIndex(1) }), "{compacted:?}");
    let taken = force_new_cluster_on(&whole(), whole(), options(), ClusterId(0x99)).unwrap_err();
    assert!(matches!(taken, WalError::NotEmpty { .. }), "{taken:?}");
}
