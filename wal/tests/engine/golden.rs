//! The bytes of a log: they may not change under one version number.
//!
//! `REWRITE=1 cargo test -p synod-wal --test engine golden` writes the file anew.

use std::fmt::Write as _;
use std::fs;

use bytes::Bytes;
use synod_core::{
    ClientId, ClusterId, Entries, Entry, GroupId, Identity, Kind, LogIndex, NodeId, Reign, RequestId,
    Sequence, Stamp, Write, WriteId,
};
use synod_wal::{Engine, Inspection, Wal, WalError, WalOptions};

use crate::memory_disk::{Contents, MemoryDisk};
use crate::model::Model;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/format-1.txt");

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

#[test]
fn golden_bytes_are_written() {
    let disk = MemoryDisk::default();
    let mut log = engine(&disk);
    log.create(&IDENTITY).unwrap();
    log.recover(&IDENTITY).unwrap();
    for batch in units() {
        log.write(&batch).unwrap();
    }
    let written = dump(&disk.contents());
    if std::env::var_os("REWRITE").is_some() {
        fs::write(GOLDEN, &written).unwrap();
    }
    assert!(
        written == fs::read_to_string(GOLDEN).unwrap(),
        "the bytes of version 1 have changed:\n{written}"
    );
    assert!(written.contains("segment-0000000002"));
}

#[test]
fn golden_bytes_are_read() {
    let mut expected = Model::default();
    for unit in units().iter().flatten() {
        expected.apply(unit);
    }
    let disk = MemoryDisk::of(undump(&fs::read_to_string(GOLDEN).unwrap()));
    let mut log = engine(&disk);
    let recovered = log.recover(&IDENTITY).unwrap();
    assert_eq!(recovered.incarnation.0, 2);
    assert_eq!(Model::observe(&recovered, &*log.reader()).unwrap(), expected);
}

#[test]
fn another_version_is_named() {
    let mut contents = undump(&fs::read_to_string(GOLDEN).unwrap());
    for name in ["segment-0000000001", "segment-0000000002"] {
        contents.damage(name, |bytes| {
            bytes[8] = 2;
            let checksum = crc32c::crc32c(&bytes[..64]);
            bytes[64..68].copy_from_slice(&checksum.to_le_bytes());
        });
    }
    match Inspection::of(&MemoryDisk::of(contents)) {
        Err(WalError::Corrupt { offset: 0, what, .. }) => {
            assert_eq!(what, "this is format version 2, and this program reads version 1");
        }
        other => panic!("{other:?}"),
    }
}
