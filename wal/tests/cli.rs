//! The binary `wal`: what it prints, and its exit codes.

use std::fs;
use std::path::Path;
use std::process::Command;

use futures::executor::block_on;
use synod_core::{ClusterId, GroupId, Identity, NodeId, Storage, Write, WriteId};
use synod_wal::Wal;

const IDENTITY: Identity = Identity { cluster: ClusterId(0xC0FFEE), node: NodeId(4), group: GroupId(0) };

fn wal(task: &str, folder: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_wal")).arg(task).arg(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn log(folder: &Path) {
    let mut wal = Wal::create_with(folder, IDENTITY, Wal::options().segment_bytes(8192)).unwrap();
    block_on(wal.recover(&IDENTITY)).unwrap();
    let state = Write { id: WriteId(1), forced: true, hard_state: Some("vote 3".into()), ..Write::default() };
    block_on(wal.write(&[state])).unwrap();
}

#[test]
fn a_good_log_is_shown_and_verified() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("log");
    log(&folder);
    let (code, shown, _) = wal("inspect", &folder);
    assert_eq!(code, Some(0));
    for line in [
        "cluster      00000000000000000000000000c0ffee",
        "node         n4",
        "incarnation  1",
        "hard state   6 bytes b\"vote 3\"",
        "compacted    no",
        "entries      0",
        "segment-0000000001: 4 batches, 0 entries, 6144 of 8192 bytes, open",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert_eq!(
        wal("verify", &folder),
        (Some(0), "good: 0 entries in 1 segments\n".to_owned(), String::new())
    );
}

#[test]
fn a_damaged_log_names_file_and_offset() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("log");
    log(&folder);
    let segment = folder.join("segment-0000000001");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    for task in ["inspect", "verify"] {
        let (code, shown, error) = wal(task, &folder);
        assert_eq!((code, shown.as_str()), (Some(1), ""));
        assert!(error.starts_with("wal: segment-0000000001 is corrupt at byte 4096: "), "{error}");
    }
}

#[test]
fn what_is_no_log_or_is_held_is_bad_usage() {
    let root = tempfile::tempdir().unwrap();
    let (code, _, error) = wal("verify", root.path());
    assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.ends_with("holds no log\n"), "{error}");
    assert_eq!(wal("verify", &root.path().join("none")).0, Some(2));
    assert_eq!(wal("repair", root.path()).0, Some(2));

    // This process holds it, and another one asks.
    let folder = root.path().join("log");
    let held = Wal::create_with(&folder, IDENTITY, Wal::options().segment_bytes(8192)).unwrap();
    let (code, _, error) = wal("inspect", &folder);
    assert_eq!(code, Some(2));
    assert!(error.ends_with(&format!("lock is held by process {}\n", std::process::id())), "{error}");
    drop(held);
    assert_eq!(wal("inspect", &folder).0, Some(0));
}
