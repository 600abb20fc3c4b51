//! The checks of a store of snapshots.

use super::SnapshotHarness;
use crate::conformance::ConformanceFailure;
use crate::{
    Incarnation, LogIndex, Membership, NodeId, Reign, SnapshotError, SnapshotHead, SnapshotId, SnapshotMeta,
    SnapshotStore, Stamp,
};

/// Where a crash or a failure is tried at the latest, counted in operations.
const OPERATIONS_MAX: u64 = 1_000;

/// What a crash may keep is drawn so often at every operation.
const SEEDS: u64 = 4;

/// A store that was just made holds nothing, and says so of what is asked for.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_new_store_is_empty(harness: &mut dyn SnapshotHarness) -> Result<(), ConformanceFailure> {
    let claim = Claim("a_new_store_is_empty");
    let mut store = harness.create();
    claim.lists(&mut *store, &[])?;
    claim.is_missing(&mut *store, id(1, 1))?;
    claim.done("delete what is not there", store.delete(id(1, 1)))
}

/// Finished snapshots are listed by ascending id, with the heads they were finished with, also after the store was opened
/// again.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn what_is_finished_is_listed_in_order(
    harness: &mut dyn SnapshotHarness,
) -> Result<(), ConformanceFailure> {
    let claim = Claim("what_is_finished_is_listed_in_order");
    let mut store = harness.create();
    let kept = [snapshot(4, 1, 10), snapshot(4, 2, 20), snapshot(300, 1, 5), snapshot(1 << 40, 1, 1)];
    for place in [2, 0, 3, 1] {
        claim.write(&mut *store, &kept[place], 8)?;
    }
    claim.lists(&mut *store, &kept)?;
    drop(store);
    claim.lists(&mut *harness.reopen(), &kept)
}

/// Contents are read back as they were written, in pieces of any size, none and many of them.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn contents_survive(harness: &mut dyn SnapshotHarness) -> Result<(), ConformanceFailure> {
    let claim = Claim("contents_survive");
    let mut store = harness.create();
    let kept = [snapshot(1, 1, 0), snapshot(2, 1, 1), snapshot(3, 1, 4_096), snapshot(4, 1, 3 << 20)];
    for (written, piece) in kept.iter().zip([1, 1, 7, 1 << 16]) {
        claim.write(&mut *store, written, piece)?;
    }
    claim.holds(&mut *store, &kept)?;
    drop(store);
    claim.holds(&mut *harness.reopen(), &kept)
}

/// A read fills a prefix of what it is given, from any offset; nothing at the end and behind it, and only there.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn reads_begin_anywhere_and_end_at_the_end(
    harness: &mut dyn SnapshotHarness,
) -> Result<(), ConformanceFailure> {
    let claim = Claim("reads_begin_anywhere_and_end_at_the_end");
    let mut store = harness.create();
    let kept = snapshot(9, 1, 1_000);
    claim.write(&mut *store, &kept, 300)?;
    let mut reader = claim.done("open", store.open(kept.head.id))?;
    for (offset, room) in [(0, 1), (0, 4_000), (999, 5), (500, 499), (1_000, 5), (1_001, 5), (u64::MAX, 5)] {
        let mut into = vec![0; room];
        let len = claim.done("read", reader.read_at(offset, &mut into))?;
        let left =
            usize::try_from(offset).ok().and_then(|from| kept.contents.get(from..)).unwrap_or_default();
        if len > room || (len == 0) != left.is_empty() || !left.starts_with(&into[..len]) {
            return claim.fails(format!("{len} bytes were read at {offset} into {room}"));
        }
    }
    Ok(())
}

/// What was begun and not finished is never listed or opened: not while it is written, not once it was given up, and not
/// after the store was opened again.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn what_is_not_finished_is_never_listed(
    harness: &mut dyn SnapshotHarness,
) -> Result<(), ConformanceFailure> {
    let claim = Claim("what_is_not_finished_is_never_listed");
    let mut store = harness.create();
    let kept = [snapshot(1, 1, 10)];
    claim.write(&mut *store, &kept[0], 10)?;
    let unfinished = snapshot(2, 1, 100);
    let mut writer = claim.done("create", store.create(unfinished.head.id))?;
    claim.done("write", writer.write(&unfinished.contents))?;
    claim.lists(&mut *store, &kept)?;
    claim.is_missing(&mut *store, unfinished.head.id)?;
    drop(writer);
    claim.lists(&mut *store, &kept)?;
    let mut writer = claim.done("create what was given up", store.create(unfinished.head.id))?;
    claim.done("write", writer.write(&unfinished.contents))?;
    // As after a crash: nobody gives the writer up.
    drop(store);
    let mut store = harness.reopen();
    std::mem::forget(writer);
    claim.lists(&mut *store, &kept)?;
    claim.is_missing(&mut *store, unfinished.head.id)?;
    claim.write(&mut *store, &unfinished, 33)?;
    claim.holds(&mut *store, &[kept[0].clone(), unfinished])
}

/// A snapshot of the name of an earlier one takes its place.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_snapshot_may_replace_one_of_its_name(
    harness: &mut dyn SnapshotHarness,
) -> Result<(), ConformanceFailure> {
    let claim = Claim("a_snapshot_may_replace_one_of_its_name");
    let mut store = harness.create();
    claim.write(&mut *store, &snapshot(7, 1, 100), 10)?;
    let newer = snapshot(7, 1, 50);
    claim.write(&mut *store, &newer, 10)?;
    claim.holds(&mut *store, std::slice::from_ref(&newer))?;
    drop(store);
    claim.holds(&mut *harness.reopen(), &[newer])
}

/// One may be received while another one is taken.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn two_may_be_written_at_once(harness: &mut dyn SnapshotHarness) -> Result<(), ConformanceFailure> {
    let claim = Claim("two_may_be_written_at_once");
    let mut store = harness.create();
    let both = [snapshot(5, 1, 64), snapshot(5, 2, 64)];
    let mut first = claim.done("create", store.create(both[0].head.id))?;
    let mut second = claim.done("create", store.create(both[1].head.id))?;
    for (one, other) in both[0].contents.chunks(16).zip(both[1].contents.chunks(16)) {
        claim.done("write", first.write(one))?;
        claim.done("write", second.write(other))?;
    }
    claim.done("finish", second.finish(&both[1].head))?;
    claim.done("finish", first.finish(&both[0].head))?;
    claim.holds(&mut *store, &both)
}

/// A deleted snapshot is gone for good, and deleting it again is no error.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_deleted_snapshot_is_missing(harness: &mut dyn SnapshotHarness) -> Result<(), ConformanceFailure> {
    let claim = Claim("a_deleted_snapshot_is_missing");
    let mut store = harness.create();
    let kept = [snapshot(1, 1, 10), snapshot(2, 1, 20), snapshot(3, 1, 30)];
    for written in &kept {
        claim.write(&mut *store, written, 10)?;
    }
    for _ in 0..2 {
        claim.done("delete", store.delete(kept[1].head.id))?;
    }
    claim.is_missing(&mut *store, kept[1].head.id)?;
    claim.holds(&mut *store, &[kept[0].clone(), kept[2].clone()])?;
    claim.write(&mut *store, &kept[1], 10)?;
    claim.holds(&mut *store, &kept)
}

/// A crash at any operation leaves a snapshot whole or not there; there for sure once `finish` returned; and it leaves
/// those from before.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_crash_leaves_a_snapshot_whole_or_not_there(
    harness: &mut dyn SnapshotHarness,
) -> Result<(), ConformanceFailure> {
    let claim = Claim("a_crash_leaves_a_snapshot_whole_or_not_there");
    let (before, during) = (snapshot(4, 1, 50), snapshot(9, 1, 3_000));
    for operations in 0..OPERATIONS_MAX {
        let mut came_through = false;
        for seed in 0..SEEDS {
            let mut store = harness.create();
            claim.write(&mut *store, &before, 50)?;
            harness.crash_after(operations, seed);
            let finished = claim.write(&mut *store, &during, 700).is_ok();
            drop(store);
            let mut store = harness.reopen();
            let listed = claim.done("list", store.list())?;
            let there = listed.len() > 1;
            if finished && !there {
                return claim.fails(format!("a crash after {operations} operations lost what was finished"));
            }
            let kept = [before.clone(), during.clone()];
            claim.holds(&mut *store, if there { &kept } else { &kept[..1] })?;
            came_through |= finished;
        }
        if came_through {
            return Ok(());
        }
    }
    claim.fails("no snapshot is finished within a thousand operations".to_owned())
}

/// An operation of the device that fails once may fail a snapshot, and harms no other; the next one succeeds.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_failure_harms_no_other(harness: &mut dyn SnapshotHarness) -> Result<(), ConformanceFailure> {
    let claim = Claim("a_failure_harms_no_other");
    let (before, during, after) = (snapshot(4, 1, 50), snapshot(9, 1, 3_000), snapshot(9, 2, 70));
    for operations in 0..OPERATIONS_MAX {
        let mut store = harness.create();
        claim.write(&mut *store, &before, 50)?;
        harness.fail_once_after(operations);
        let finished = claim.write(&mut *store, &during, 700).is_ok();
        let listed = claim.done("list", store.list()).or_else(|_| claim.done("list again", store.list()))?;
        let there = listed.contains(&during.head);
        if finished && !there {
            return claim.fails("what was finished is not listed".to_owned());
        }
        // What still waits to fail must not meet the next one.
        drop(store);
        let mut store = harness.reopen();
        claim.write(&mut *store, &after, 70)?;
        let mut kept = vec![before.clone()];
        if claim.done("list", store.list())?.contains(&during.head) {
            kept.push(during.clone());
        } else if finished {
            return claim.fails("what was finished is gone".to_owned());
        }
        kept.push(after.clone());
        claim.holds(&mut *store, &kept)?;
        if finished {
            return Ok(());
        }
    }
    claim.fails("no snapshot is finished within a thousand operations".to_owned())
}

/// Whatever byte is changed: what is listed has its head, and what is opened has its contents, or is refused.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn damage_is_noticed(harness: &mut dyn SnapshotHarness) -> Result<(), ConformanceFailure> {
    let claim = Claim("damage_is_noticed");
    let (other, damaged) = (snapshot(4, 1, 50), snapshot(9, 1, 200));
    let mut store = harness.create();
    claim.write(&mut *store, &other, 50)?;
    claim.write(&mut *store, &damaged, 50)?;
    let mut place = 0;
    while harness.damage(damaged.head.id, place, 0x10) {
        for head in claim.done("list", store.list())? {
            if head != other.head && head != damaged.head {
                return claim.fails(format!("byte {place} is changed, and {} is listed", head.id));
            }
        }
        if store.open(damaged.head.id).is_ok()
            && claim.read(&mut *store, damaged.head.id)? != damaged.contents
        {
            return claim.fails(format!("byte {place} is changed, and nobody is told"));
        }
        harness.damage(damaged.head.id, place, 0x10);
        place += 1;
    }
    if place < 200 {
        return claim.fails(format!("{place} bytes are kept of 200"));
    }
    claim.holds(&mut *store, &[other, damaged])
}

/// A snapshot of the suite.
#[derive(Clone)]
struct Snapshot {
    head: SnapshotHead,
    contents: Vec<u8>,
}

fn id(index: u64, taken_by: u64) -> SnapshotId {
    SnapshotId { index: LogIndex(index), taken_by: NodeId(taken_by), life: Incarnation(3) }
}

fn snapshot(index: u64, taken_by: u64, len: usize) -> Snapshot {
    let mut state = (index << 8) ^ taken_by ^ (len as u64) << 32;
    let contents: Vec<u8> = (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let meta = SnapshotMeta {
        index: LogIndex(index),
        stamp: Stamp { high: index, low: 5 },
        reign: Reign { number: index, leader: NodeId(taken_by) },
        membership: Membership::of_addresses([(1, "a:1"), (2, ""), (3, "[::1]:9")])
            .unwrap_or_else(|error| unreachable!("three members: {error}")),
    };
    let (len, checksum) = (contents.len() as u64, crc32c::crc32c(&contents));
    Snapshot { head: SnapshotHead { id: id(index, taken_by), meta, len, checksum }, contents }
}

/// The name of a check, for what it finds.
#[derive(Clone, Copy)]
struct Claim(&'static str);

impl Claim {
    fn fails<T>(self, what: String) -> Result<T, ConformanceFailure> {
        Err(ConformanceFailure::new(self.0, what))
    }

    fn done<T>(self, action: &str, result: Result<T, SnapshotError>) -> Result<T, ConformanceFailure> {
        result.or_else(|error| self.fails(format!("cannot {action}: {error}")))
    }

    fn write(
        self,
        store: &mut dyn SnapshotStore,
        snapshot: &Snapshot,
        piece: usize,
    ) -> Result<(), ConformanceFailure> {
        let mut writer = self.done("create", store.create(snapshot.head.id))?;
        for piece in snapshot.contents.chunks(piece) {
            self.done("write", writer.write(piece))?;
        }
        self.done("finish", writer.finish(&snapshot.head))
    }

    fn read(self, store: &mut dyn SnapshotStore, id: SnapshotId) -> Result<Vec<u8>, ConformanceFailure> {
        let mut reader = self.done("open", store.open(id))?;
        let mut contents = Vec::new();
        let mut piece = vec![0; 1 << 16];
        loop {
            match self.done("read", reader.read_at(contents.len() as u64, &mut piece))? {
                0 => return Ok(contents),
                len => contents.extend_from_slice(&piece[..len]),
            }
        }
    }

    fn is_missing(self, store: &mut dyn SnapshotStore, id: SnapshotId) -> Result<(), ConformanceFailure> {
        match store.open(id) {
            Err(SnapshotError::Missing(named)) if named == id => Ok(()),
            Err(error) => self.fails(format!("{id} is not said to be missing: {error}")),
            Ok(_) => self.fails(format!("{id} can be opened")),
        }
    }

    fn lists(self, store: &mut dyn SnapshotStore, kept: &[Snapshot]) -> Result<(), ConformanceFailure> {
        let listed = self.done("list", store.list())?;
        if listed.iter().ne(kept.iter().map(|kept| &kept.head)) {
            let ids: Vec<SnapshotId> = listed.iter().map(|head| head.id).collect();
            return self.fails(format!("{ids:?} are listed, or others than were finished"));
        }
        Ok(())
    }

    /// All of them are listed, and whole.
    fn holds(self, store: &mut dyn SnapshotStore, kept: &[Snapshot]) -> Result<(), ConformanceFailure> {
        self.lists(store, kept)?;
        for Snapshot { head, contents } in kept {
            let reader = self.done("open", store.open(head.id))?;
            if reader.head() != head {
                return self.fails(format!("{} is opened with another head", head.id));
            }
            drop(reader);
            if self.read(store, head.id)? != *contents {
                return self.fails(format!("{} has other contents than were written", head.id));
            }
        }
        Ok(())
    }
}
