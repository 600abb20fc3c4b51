//! The log in folders of the operating system: who may open it, and what a full or read-only file system does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures::executor::block_on;
use synod_core::{
    ClusterId, Entries, Entry, GroupId, Identity, Incarnation, IndexRange, Kind, LogIndex, NodeId, Reign,
    RequestId, Stamp, Storage, StorageError, Write, WriteId,
};
use synod_wal::{Inspection, Wal, WalError, WalOptions};

const IDENTITY: Identity = Identity { cluster: ClusterId(11), node: NodeId(2), group: GroupId(0) };

fn small() -> WalOptions {
    Wal::options().segment_bytes(16 << 10)
}

fn put(index: u64, bytes: usize) -> Write {
    let entries = Entries::numbered(LogIndex(index), vec![()], |index, ()| Entry {
        index,
        stamp: Stamp { high: 1, low: 0 },
        reign: Reign::default(),
        kind: Kind::Command,
        request: RequestId::NONE,
        payload: Bytes::from(vec![b'x'; bytes]),
    });
    Write { id: WriteId(index), forced: true, puts: vec![entries], ..Write::default() }
}

#[test]
fn a_log_is_made_once_and_reopened() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("some/where/log");
    let mut wal = Wal::create(&folder, IDENTITY).unwrap();
    assert!(wal.blocking());
    assert_eq!(block_on(wal.recover(&IDENTITY)).unwrap().incarnation.0, 1);
    block_on(wal.write(&[put(1, 100), put(2, 0)])).unwrap();
    drop(wal);
    assert!(
        matches!(Wal::create(&folder, IDENTITY), Err(WalError::NotEmpty { found, .. }) if found.starts_with("segment-"))
    );
    let mut wal = Wal::open(&folder).unwrap();
    let recovered = block_on(wal.recover(&IDENTITY)).unwrap();
    assert_eq!((recovered.incarnation.0, recovered.last_index()), (2, LogIndex(2)));
}

#[test]
fn a_folder_without_a_log_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let missing = root.path().join("missing");
    assert!(matches!(Wal::open(&missing), Err(WalError::NoLog { found: None, .. })));
    assert!(!missing.exists());
    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(Wal::open(&empty), Err(WalError::NoLog { found: None, .. })));
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    fs::write(empty.join("holiday.jpg"), b"beach").unwrap();
    assert!(
        matches!(Wal::open(&empty), Err(WalError::NoLog { found: Some(name), .. }) if name == "holiday.jpg")
    );
    assert!(matches!(Wal::create(&empty, IDENTITY), Err(WalError::NotEmpty { .. })));
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 1);
    let file = empty.join("holiday.jpg");
    assert!(matches!(Wal::open(&file), Err(WalError::Io { .. })));
}

#[test]
fn a_wiped_folder_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("log");
    let mut wal = Wal::create(&folder, IDENTITY).unwrap();
    block_on(wal.recover(&IDENTITY)).unwrap();
    drop(wal);
    for entry in fs::read_dir(&folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(matches!(Wal::open(&folder), Err(WalError::NoLog { .. })));
}

#[test]
fn the_log_of_another_node_or_cluster_is_refused_and_still_good() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("log");
    drop(Wal::create(&folder, IDENTITY).unwrap());
    for stranger in [
        Identity { node: NodeId(3), ..IDENTITY },
        Identity { cluster: ClusterId(12), ..IDENTITY },
        Identity { group: GroupId(1), ..IDENTITY },
    ] {
        let mut wal = Wal::open(&folder).unwrap();
        let refused = block_on(wal.recover(&stranger));
        assert!(matches!(refused, Err(StorageError::Foreign { found, .. }) if found == IDENTITY));
    }
    let mut wal = Wal::open(&folder).unwrap();
    assert_eq!(block_on(wal.recover(&IDENTITY)).unwrap().incarnation.0, 1);
}

#[test]
fn a_log_is_open_once_and_its_holder_is_named() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("log");
    let wal = Wal::create(&folder, IDENTITY).unwrap();
    let me = std::process::id();
    for second in [Wal::open(&folder).map(|_| ()), Inspection::of_folder(&folder).map(|_| ())] {
        let error = second.unwrap_err();
        assert!(matches!(&error, WalError::Locked { holder: Some(holder), .. } if *holder == me), "{error}");
        assert!(error.to_string().ends_with(&format!("lock is held by process {me}")), "{error}");
    }
    drop(wal);
    drop(Wal::open(&folder).unwrap());
    Inspection::of_folder(&folder).unwrap();
}

#[test]
fn a_damaged_log_names_its_file_and_offset() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("log");
    let mut wal = Wal::create_with(&folder, IDENTITY, small()).unwrap();
    block_on(wal.recover(&IDENTITY)).unwrap();
    block_on(wal.write(&[put(1, 100)])).unwrap();
    drop(wal);
    let segment = folder.join("segment-0000000001");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4096 + 1024 + 100] ^= 4;
    fs::write(&segment, bytes).unwrap();
    let mut wal = Wal::open(&folder).unwrap();
    match block_on(wal.recover(&IDENTITY)) {
        Err(StorageError::Corrupt { place, .. }) => assert_eq!(place, "segment-0000000001 at byte 5120"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_longer_than_memory_is_read_as_far_as_it_was_written() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("log");
    let mut wal = Wal::create_with(&folder, IDENTITY, small()).unwrap();
    block_on(wal.recover(&IDENTITY)).unwrap();
    block_on(wal.write(&[put(1, 100)])).unwrap();
    drop(wal);
    // Of nothing: it takes no room on the disk.
    let segment = fs::OpenOptions::new().write(true).open(folder.join("segment-0000000001")).unwrap();
    segment.set_len(1 << 40).unwrap();
    let mut wal = Wal::open(&folder).unwrap();
    assert_eq!(block_on(wal.recover(&IDENTITY)).unwrap().last_index(), LogIndex(1));
}

#[test]
fn an_older_copy_of_a_log_opens_and_gives_a_life_that_was_given_before() {
    let root = tempfile::tempdir().unwrap();
    let (folder, copy) = (root.path().join("log"), root.path().join("copy"));
    drop(Wal::create_with(&folder, IDENTITY, small()).unwrap());
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let life = |folder: &Path| {
        let mut wal = Wal::open(folder).unwrap();
        block_on(wal.recover(&IDENTITY)).unwrap().incarnation
    };
    // What the front page warns of: nothing tells the two apart but those who have heard of the newer life.
    assert_eq!((life(&folder), life(&folder), life(&copy)), (Incarnation(1), Incarnation(2), Incarnation(1)));
}

#[test]
fn the_next_segment_is_ready_before_it_is_needed_and_old_ones_are_given_up() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("log");
    let mut wal = Wal::create_with(&folder, IDENTITY, small()).unwrap();
    block_on(wal.recover(&IDENTITY)).unwrap();
    for index in 1..=400 {
        let compact_to = (index % 10 == 0).then(|| LogIndex(index - 5));
        block_on(wal.write(&[Write { compact_to, ..put(index, 300) }])).unwrap();
        assert!(fs::read_dir(&folder).unwrap().count() <= 8);
    }
    let reader = wal.reader();
    let loaded = reader.read(IndexRange::new(LogIndex(396), LogIndex(500)), usize::MAX).unwrap();
    assert_eq!(loaded.segments.iter().map(|segment| segment.len()).sum::<usize>(), 5);
    drop(wal);
    let found = Inspection::of_folder(&folder).unwrap();
    assert_eq!(found.entries, 5);
    assert!(found.segments.len() <= 2 && found.segments.last().unwrap().number.0 > 8, "{found}");
}

/// A file system of its own in memory, if this user may mount one.
struct SmallDisk {
    place: tempfile::TempDir,
}

impl SmallDisk {
    fn of(kilobytes: u64) -> Option<SmallDisk> {
        let place = tempfile::tempdir().unwrap();
        let options = format!("size={kilobytes}k");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(place.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk { place }),
            Ok(output) => {
                eprintln!(
                    "cannot mount a small disk here: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                None
            }
            Err(error) => {
                eprintln!("cannot mount a small disk here: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn remount(&self, options: &str) {
        // A process that another test is starting has copies of all open files for a moment.
        let remounted = (0..100).any(|_| {
            let mut mount = Command::new("mount");
            mount.args(["-o", &format!("remount,{options}")]).arg(self.path());
            mount.output().unwrap().status.success()
        });
        assert!(remounted, "cannot mount again with {options}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// Where no file system can be mounted, `damage.rs` has the same on a disk in memory, at every operation.
#[test]
fn a_full_file_system_is_a_typed_error_and_what_was_acknowledged_survives() {
    let mut full = 0;
    for kilobytes in (12..140).step_by(8) {
        let Some(disk) = SmallDisk::of(kilobytes) else { return };
        let folder = disk.path().join("log");
        let mut acknowledged = 0;
        let mut wal = match Wal::create_with(&folder, IDENTITY, small()) {
            Ok(wal) => wal,
            Err(WalError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                assert!(kilobytes < 32, "16 KiB do not fit into {kilobytes} KiB");
                disk.remount("size=1024k");
                drop(Wal::create_with(&folder, IDENTITY, small()).unwrap());
                continue;
            }
            Err(error) => panic!("{kilobytes} KiB: {error}"),
        };
        block_on(wal.recover(&IDENTITY)).unwrap();
        let error = loop {
            match block_on(wal.write(&[put(acknowledged + 1, 700)])) {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        match &error {
            StorageError::Io { source, .. } => assert_eq!(source.kind(), io::ErrorKind::StorageFull),
            other => panic!("{kilobytes} KiB: {other}"),
        }
        assert!(matches!(block_on(wal.write(&[put(999, 1)])), Err(StorageError::Poisoned)));
        drop(wal);
        disk.remount("size=1024k");
        let mut wal = Wal::open_with(&folder, small()).unwrap();
        let recovered = block_on(wal.recover(&IDENTITY)).unwrap();
        let last = recovered.last_index().0;
        assert!(
            (acknowledged..=acknowledged + 1).contains(&last),
            "{acknowledged} acknowledged, {last} there"
        );
        block_on(wal.write(&[put(last + 1, 700)])).unwrap();
        full += 1;
    }
    assert!(full > 5, "{full} disks became full while the log was written");
}

#[test]
fn a_read_only_folder_is_a_typed_error_and_can_be_looked_at() {
    // Permissions do not bind the superuser, a read-only file system does.
    let disk = SmallDisk::of(1024);
    let plain = tempfile::tempdir().unwrap();
    let root = disk.as_ref().map_or(plain.path(), SmallDisk::path);
    let folder = root.join("log");
    let mut wal = Wal::create_with(&folder, IDENTITY, small()).unwrap();
    block_on(wal.recover(&IDENTITY)).unwrap();
    block_on(wal.write(&[put(1, 10)])).unwrap();
    drop(wal);
    match &disk {
        Some(disk) => disk.remount("ro"),
        None => set_writable(&folder, false),
    }
    let kind = |error| match error {
        WalError::Io { source, .. } => source.kind(),
        other => panic!("{other}"),
    };
    let refused = [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
    assert!(refused.contains(&kind(Wal::open(&folder).unwrap_err())));
    assert_eq!(Inspection::of_folder(&folder).unwrap().entries, 1);
    match &disk {
        Some(disk) => {
            let error = Wal::create(disk.path().join("new"), IDENTITY).unwrap_err();
            assert!(refused.contains(&kind(error)));
        }
        None => set_writable(&folder, true),
    }
}

fn set_writable(folder: &Path, yes: bool) {
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in files.into_iter().chain([folder.to_owned()]) {
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(!yes);
        fs::set_permissions(&path, permissions).unwrap();
    }
}
