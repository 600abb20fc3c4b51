//! The binary `wal`: what it prints, and its exit codes.

use std::fs;
use std::path::Path;
use std::process::Command;

use futures::executor::block_on;
use synod_core::{
    ClusterId, Entries, Entry, GroupId, Identity, Kind, LogIndex, NodeId, Reign, RequestId, Stamp, Storage,
    Write, WriteId,
};
use synod_wal::{Inspection, Wal};

const IDENTITY: Identity = Identity { cluster: ClusterId(0xC0FFEE), node: NodeId(4), group: GroupId(0) };

fn wal(task: &str, folder: &Path) -> (Option<i32>, String, String) {
    run(&[task, folder.to_str().unwrap()])
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_wal")).args(args).output().unwrap();
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
        "format       version 1",
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

/// Everything in a folder, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_new_cluster_needs_consent_and_leaves_the_old_log_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    let mut log = Wal::create_with(&old, IDENTITY, Wal::options().segment_bytes(8192)).unwrap();
    block_on(log.recover(&IDENTITY)).unwrap();
    // More than goes into one unit of the copy, with a hole, and with members in it.
    for (id, index) in (1..=40).chain(50..=60).enumerate() {
        let kind = if index == 7 { Kind::Membership } else { Kind::Command };
        let entries = Entries::numbered(LogIndex(index), vec![()], |index, ()| Entry {
            index,
            stamp: Stamp { high: 3, low: index.0 },
            reign: Reign { number: 3, leader: NodeId(4) },
            kind,
            request: RequestId::NONE,
            payload: vec![b'x'; 50_000].into(),
        });
        let hard_state = Some("term 3".into());
        let unit = Write {
            id: WriteId(id as u64 + 1),
            forced: true,
            puts: vec![entries],
            hard_state,
            ..Write::default()
        };
        block_on(log.write(&[unit])).unwrap();
    }
    let force = |consent: bool| {
        let mut args =
            vec!["recover", "--force-new-cluster", old.to_str().unwrap(), "--into", new.to_str().unwrap()];
        args.extend(["--cluster", "77"]);
        args.extend(consent.then_some("--i-accept-that-decided-commands-may-be-lost"));
        run(&args)
    };
    let (code, _, error) = force(true);
    assert_eq!(code, Some(2), "the node still runs: {error}");
    assert!(error.contains("is held by process"), "{error}");
    drop(log);

    let before = files(&old);
    let (code, shown, error) = force(false);
    assert_eq!((code, shown.as_str()), (Some(2), ""));
    assert!(error.starts_with("wal: nothing was done"), "{error}");
    assert!(!new.exists());

    let (code, shown, error) = force(true);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    for line in
        ["new cluster  0000000000000000000000000000004d", "entries      51", "memberships  1 became no-ops"]
    {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert!(files(&old) == before, "the old log was changed");
    let (found, made) = (Inspection::of_folder(&old).unwrap(), Inspection::of_folder(&new).unwrap());
    assert_eq!(made.runs, found.runs);
    assert_eq!(made.hard_state, found.hard_state);
    assert_eq!(made.identity, Identity { cluster: ClusterId(77), ..IDENTITY });
    assert!(made.incarnation > found.incarnation);
    let shown = wal("inspect", &new).1;
    let line = "forced       from cluster 00000000000000000000000000c0ffee, n4, after its life 1";
    assert!(shown.contains(line), "{line} is not in\n{shown}");

    let (code, _, error) = force(true);
    assert_eq!(code, Some(2), "nothing is written over");
    assert!(error.contains("is not empty"), "{error}");
}
