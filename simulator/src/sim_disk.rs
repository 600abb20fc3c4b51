//! A device with one folder of files: what the log engine of `synod-wal` is given instead of an operating system.
//!
//! It keeps two versions of everything: what the system shows, and what the medium holds. A write goes to the first;
//! a sync carries it to the second, a sector of 512 bytes at a time. When a process is killed the first stays; when the
//! power fails only the second does, and of what was under way each sector in any of its versions, each size and each
//! directory entry by itself.
//!
//! What can be wrong with a device beside that happens by chance at its operations, as far as [`DeviceFaults`] allows:
//! refused writes, short writes, interrupted calls, a sync that fails once and calls the lost pages clean afterwards, a
//! bit that is read wrongly. What destroys data that may have been acknowledged is done by [`SimDisk::damage`] when
//! the world says so, because it must not happen to more nodes than a cluster survives.
//!
//! The newest sectors are never made to be lost or misplaced after the fact: a log without a second copy cannot tell a
//! device that lied about its last batch from a batch that was torn (front page of `synod-wal`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synod_wal::{Disk, DiskFile};

use crate::fault::{Fault, FaultCounts};
use crate::rng::{Chance, Rng};

/// What a device writes wholly or not at all, in bytes.
pub const SECTOR: usize = 512;

/// How often operations go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceFaults {
    /// A bit of what is read is wrong; it is right again the next time.
    pub bit_rot: Chance,
    /// A sync fails once, and what it should have made durable is called clean.
    pub sync_error: Chance,
    /// A write or a change of the folder is refused; of a write a part may be done.
    pub write_error: Chance,
    /// A write or read does less than asked for, or is interrupted.
    pub short: Chance,
    /// A power failure keeps any part of what was under way; otherwise nothing of files.
    pub torn: bool,
    /// A power failure loses any part of the changes of the folder; otherwise none.
    pub lost_entry: bool,
}

/// How a life of the engine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process dies; what the system shows stays.
    Kill,
    /// The power fails: what is not durable is lost, or some of it.
    PowerLoss,
}

/// A device; clones are the same one.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<Device>>);

/// A file of a device that is open.
#[derive(Debug)]
pub struct SimFile {
    device: SimDisk,
    inode: u64,
}

#[derive(Debug)]
struct Device {
    rng: Rng,
    faults: DeviceFaults,
    /// Nothing goes wrong while this is set.
    quiet: bool,
    inodes: BTreeMap<u64, Inode>,
    inodes_made: u64,
    shown: BTreeMap<String, u64>,
    kept: BTreeMap<String, u64>,
    /// Changes of the folder that are not durable.
    changes: Vec<NameChange>,
    /// Segments that were given up: name and contents.
    graveyard: Vec<(String, Vec<u8>)>,
    /// So many operations are still done.
    operations_left: Option<u64>,
    /// Nothing answers any more.
    down: bool,
    /// Syncs so far of files that are in use: what is still being made is under a name of its own.
    syncs: u64,
    damaged: bool,
    misread: bool,
    counts: FaultCounts,
    renames: Renames,
}

/// How files got the names of segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Renames {
    /// All of them.
    pub prepared: u64,
    /// Segments that had been given up and are made into others.
    pub recycled: u64,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String, u64),
}

impl NameChange {
    fn inode(&self) -> u64 {
        let (NameChange::Create(_, inode) | NameChange::Rename(_, _, inode) | NameChange::Remove(_, inode)) =
            self;
        *inode
    }
}

#[derive(Debug, Default)]
struct Inode {
    /// What the system shows.
    shown: Vec<u8>,
    /// What the medium holds.
    kept: Vec<u8>,
    /// What the medium held before each sector was last synced.
    before: Vec<u8>,
    /// For each sector of the medium: the number of the sync that brought it.
    synced: Vec<u64>,
    /// Sectors that are not durable, each with the contents it had since it was.
    dirty: BTreeMap<usize, Vec<[u8; SECTOR]>>,
}

impl SimDisk {
    /// An empty device.
    #[must_use]
    pub fn new(rng: Rng, faults: DeviceFaults) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(Device {
            rng,
            faults,
            quiet: false,
            inodes: BTreeMap::new(),
            inodes_made: 0,
            shown: BTreeMap::new(),
            kept: BTreeMap::new(),
            changes: Vec::new(),
            graveyard: Vec::new(),
            operations_left: None,
            down: false,
            syncs: 0,
            damaged: false,
            misread: false,
            counts: FaultCounts::default(),
            renames: Renames::default(),
        })))
    }

    // One thread, so no lock ever waits.
    fn lock(&self) -> MutexGuard<'_, Device> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything goes well from now on, or may go wrong again.
    pub fn set_quiet(&self, quiet: bool) {
        self.lock().quiet = quiet;
    }

    /// Goes down after so many operations more: each later one fails, until [`SimDisk::end_life`].
    pub fn go_down_after(&self, operations: u64) {
        self.lock().operations_left = Some(operations);
    }

    /// True if it went down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.lock().down
    }

    /// The engine is gone. What is there when the next one comes depends on how.
    pub fn end_life(&self, ending: Ending) {
        self.lock().end_life(ending);
    }

    /// Destroys something that may have been acknowledged, in the way of this kind. False if there is nothing yet.
    pub fn damage(&self, kind: Fault) -> bool {
        self.lock().damage(kind)
    }

    /// True if [`SimDisk::damage`] ever did something.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.lock().damaged
    }

    /// True if something was read wrongly since this was last asked.
    #[must_use]
    pub fn take_misread(&self) -> bool {
        std::mem::take(&mut self.lock().misread)
    }

    /// What went wrong.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.lock().counts
    }

    /// How files got the names of segments.
    #[must_use]
    pub fn renames(&self) -> Renames {
        self.lock().renames
    }

    /// It will not go down, however many operations come.
    pub fn stay_up(&self) {
        self.lock().operations_left = None;
    }
}

impl Device {
    /// Counts one operation; an error if the device is down.
    fn begin(&mut self) -> io::Result<()> {
        if !self.down && self.operations_left == Some(0) {
            self.down = true;
        }
        if self.down {
            return Err(io::Error::other("the machine is down"));
        }
        if let Some(left) = &mut self.operations_left {
            *left -= 1;
        }
        Ok(())
    }

    fn happens(&mut self, chance: Chance) -> bool {
        !self.quiet && self.rng.chance(chance)
    }

    /// A change of the folder begins; it may be refused.
    fn begin_change(&mut self) -> io::Result<()> {
        self.begin()?;
        if self.happens(self.faults.write_error) {
            self.counts[Fault::WriteError] += 1;
            return Err(io_error());
        }
        Ok(())
    }

    fn named(&self, name: &str) -> io::Result<u64> {
        self.shown.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn bury(&mut self, name: &str, inode: u64) {
        // What is still being prepared was never given up.
        if let Some(inode) = self.inodes.get(&inode).filter(|_| name.starts_with(SEGMENT)) {
            self.graveyard.push((name.to_owned(), inode.kept.clone()));
        }
        if self.graveyard.len() > GRAVES_MAX {
            let at = self.rng.index(GRAVES_MAX);
            self.graveyard.swap_remove(at);
        }
    }

    // --- the end of a life ---

    fn end_life(&mut self, ending: Ending) {
        self.down = false;
        self.operations_left = None;
        if ending == Ending::PowerLoss {
            self.lose_power();
        }
        // A name that is gone may be back after the next power failure, for as long as the folder is not synced.
        let pending = self.changes.iter().map(NameChange::inode);
        let named: BTreeSet<u64> =
            self.shown.values().chain(self.kept.values()).copied().chain(pending).collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    fn lose_power(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            if self.faults.lost_entry && self.rng.coin() {
                self.counts[Fault::LostEntry] += 1;
            } else {
                apply(&mut self.kept, &change);
            }
        }
        self.shown.clone_from(&self.kept);
        let survives = if self.faults.torn {
            self.rng.pick(&[Chance::NEVER, Chance::percent(20), Chance::percent(50), Chance::percent(90)])
        } else {
            Chance::NEVER
        };
        for inode in self.inodes.values_mut() {
            let (mut some, mut none) = (false, false);
            let grown = inode.shown.len() > inode.kept.len();
            if inode.shown.len() != inode.kept.len() && self.rng.chance(survives) {
                inode.resize_kept(inode.shown.len());
            }
            let dirty = std::mem::take(&mut inode.dirty);
            for (sector, mut versions) in dirty {
                if !self.rng.chance(survives) {
                    none = true;
                    continue;
                }
                versions.push(sector_of(&inode.shown, sector));
                // Mostly the newest.
                let version =
                    if self.rng.below(4) == 0 { self.rng.index(versions.len()) } else { versions.len() - 1 };
                inode.keep(sector, &versions[version], self.syncs);
                some = true;
            }
            if some && none && !grown {
                self.counts[Fault::TornWrite] += 1;
            }
            inode.shown.clone_from(&inode.kept);
        }
    }

    // --- damage ---

    fn damage(&mut self, kind: Fault) -> bool {
        let done = match kind {
            Fault::BitRot => self.rot(),
            Fault::LostWrite => self.lose_write(false),
            Fault::MisdirectedWrite => self.lose_write(true),
            Fault::StaleSegment => self.resurrect(),
            Fault::TruncatedFile => self.truncate(),
            _ => false,
        };
        if done {
            self.damaged = true;
            self.counts[kind] += 1;
        }
        done
    }

    fn some_file(&mut self) -> Option<u64> {
        let named: Vec<u64> =
            self.kept.values().copied().filter(|inode| !self.inodes[inode].kept.is_empty()).collect();
        (!named.is_empty()).then(|| self.rng.pick(&named))
    }

    /// A sector that holds something, more often than not.
    fn some_sector(&mut self, inode: u64, wanted: impl Fn(&Inode, usize) -> bool) -> Option<usize> {
        let inode = &self.inodes[&inode];
        let sectors = inode.kept.len().div_ceil(SECTOR);
        let all: Vec<usize> = (0..sectors)
            .filter(|sector| !inode.dirty.contains_key(sector) && wanted(inode, *sector))
            .collect();
        let full: Vec<usize> =
            all.iter().copied().filter(|sector| sector_of(&inode.kept, *sector) != [0; SECTOR]).collect();
        let from = if !full.is_empty() && self.rng.below(8) != 0 { full } else { all };
        (!from.is_empty()).then(|| self.rng.pick(&from))
    }

    fn rot(&mut self) -> bool {
        let Some(file) = self.some_file() else { return false };
        let Some(sector) = self.some_sector(file, |_, _| true) else { return false };
        let bit = self.rng.index(SECTOR * 8);
        let Some(inode) = self.inodes.get_mut(&file) else { return false };
        let at = sector * SECTOR + bit / 8;
        if at >= inode.kept.len() {
            return false;
        }
        inode.kept[at] ^= 1 << (bit % 8);
        if let Some(shown) = inode.shown.get_mut(at) {
            *shown ^= 1 << (bit % 8);
        }
        true
    }

    /// A sector goes back to what it held before it was last written; perhaps what it held stands elsewhere.
    fn lose_write(&mut self, misdirected: bool) -> bool {
        let settled = self.syncs.saturating_sub(SYNCS_SPARED);
        let Some(file) = self.some_file() else { return false };
        let lost = |inode: &Inode, sector: usize| {
            inode.synced.get(sector).is_some_and(|sync| *sync <= settled)
                && sector_of(&inode.kept, sector) != sector_of(&inode.before, sector)
        };
        let Some(sector) = self.some_sector(file, lost) else { return false };
        let contents = sector_of(&self.inodes[&file].kept, sector);
        if misdirected {
            // Another sector of the same file, or the same one of another.
            let other = if self.rng.coin() { file } else { self.some_file().unwrap_or(file) };
            let to = if other == file {
                match self.some_sector(file, |_, to| to != sector) {
                    Some(to) => to,
                    None => return false,
                }
            } else {
                sector
            };
            let there = &self.inodes[&other];
            if other != file && there.kept.len() < (to + 1) * SECTOR {
                return false;
            }
            // In the place of the newest, a sector whose end is blank is what a torn or short write leaves.
            if contents.ends_with(&[0; 8]) && there.synced.get(to).is_some_and(|sync| *sync > settled) {
                return false;
            }
            self.put(other, to, &contents);
        }
        if !misdirected || self.rng.below(4) != 0 {
            let before = sector_of(&self.inodes[&file].before, sector);
            self.put(file, sector, &before);
        }
        true
    }

    /// Puts contents on the medium and shows them.
    fn put(&mut self, inode: u64, sector: usize, contents: &[u8; SECTOR]) {
        let Some(inode) = self.inodes.get_mut(&inode) else { return };
        inode.dirty.remove(&sector);
        for bytes in [&mut inode.kept, &mut inode.shown] {
            let end = bytes.len().min((sector + 1) * SECTOR);
            if let Some(place) = bytes.get_mut(sector * SECTOR..end) {
                place.copy_from_slice(&contents[..place.len()]);
            }
        }
    }

    /// A segment that was given up is there again: under its name, or in the place of another.
    fn resurrect(&mut self) -> bool {
        if self.graveyard.is_empty() {
            return false;
        }
        let grave = self.rng.index(self.graveyard.len());
        let (name, contents) = self.graveyard[grave].clone();
        let name = match self.some_name() {
            Some(other) if self.rng.below(3) == 0 => other,
            _ => name,
        };
        // A log of which the newest batches are gone with their file is an older log, and whole.
        let settled = self.syncs.saturating_sub(SYNCS_SPARED);
        let replaced = self.kept.get(&name).map(|inode| &self.inodes[inode]);
        if replaced.is_some_and(|inode| inode.synced.iter().any(|sync| *sync > settled)) {
            return false;
        }
        self.inodes_made += 1;
        let inode = Inode {
            shown: contents.clone(),
            before: contents.clone(),
            synced: vec![0; contents.len().div_ceil(SECTOR)],
            kept: contents,
            dirty: BTreeMap::new(),
        };
        self.inodes.insert(self.inodes_made, inode);
        self.shown.insert(name.clone(), self.inodes_made);
        self.kept.insert(name, self.inodes_made);
        true
    }

    fn some_name(&mut self) -> Option<String> {
        let at = self.rng.index(self.kept.len());
        self.kept.keys().nth(at).cloned()
    }

    fn truncate(&mut self) -> bool {
        let Some(file) = self.some_file() else { return false };
        let len = self.inodes[&file].kept.len();
        let mut to = self.rng.index(len);
        if self.rng.coin() {
            to -= to % SECTOR;
        }
        let Some(inode) = self.inodes.get_mut(&file) else { return false };
        inode.resize_kept(to);
        inode.shown.truncate(to);
        inode.dirty.retain(|sector, _| sector * SECTOR < to);
        true
    }
}

impl Inode {
    fn resize_kept(&mut self, len: usize) {
        self.kept.resize(len, 0);
        self.before.resize(len, 0);
        self.synced.resize(len.div_ceil(SECTOR), 0);
    }

    /// The medium holds this in a sector from now on.
    fn keep(&mut self, sector: usize, contents: &[u8; SECTOR], sync: u64) {
        let end = self.kept.len().min((sector + 1) * SECTOR);
        let range = sector * SECTOR..end;
        if range.start >= end {
            return;
        }
        self.before[range.clone()].copy_from_slice(&self.kept[range.clone()]);
        let len = range.len();
        self.kept[range].copy_from_slice(&contents[..len]);
        self.synced[sector] = sync;
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            match self.dirty.get_mut(&sector) {
                // A sector that grew page by page has no version worth keeping.
                Some(versions) if versions.len() < VERSIONS_MAX => {
                    versions.push(sector_of(&self.shown, sector));
                }
                Some(_) => {}
                None => {
                    self.dirty.insert(sector, Vec::new());
                }
            }
        }
        if self.shown.len() < end {
            self.shown.resize(end, 0);
        }
        self.shown[offset..end].copy_from_slice(bytes);
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut guard = self.lock();
        let device = &mut *guard;
        device.begin()?;
        let mut names: Vec<String> = device.shown.keys().cloned().collect();
        // A system lists in any order.
        device.rng.shuffle(&mut names);
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut guard = self.lock();
        let device = &mut *guard;
        device.begin_change()?;
        if device.shown.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        device.inodes_made += 1;
        let inode = device.inodes_made;
        device.inodes.insert(inode, Inode::default());
        device.shown.insert(name.to_owned(), inode);
        device.changes.push(NameChange::Create(name.to_owned(), inode));
        Ok(SimFile { device: self.clone(), inode })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut guard = self.lock();
        let device = &mut *guard;
        device.begin()?;
        let inode = device.named(name)?;
        Ok(SimFile { device: self.clone(), inode })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut guard = self.lock();
        let device = &mut *guard;
        device.begin_change()?;
        let inode = device.named(from)?;
        device.bury(from, inode);
        device.renames.prepared += u64::from(to.starts_with(SEGMENT));
        device.renames.recycled += u64::from(from == RECYCLED);
        let change = NameChange::Rename(from.to_owned(), to.to_owned(), inode);
        apply(&mut device.shown, &change);
        device.changes.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut guard = self.lock();
        let device = &mut *guard;
        device.begin_change()?;
        let inode = device.named(name)?;
        device.bury(name, inode);
        let change = NameChange::Remove(name.to_owned(), inode);
        apply(&mut device.shown, &change);
        device.changes.push(change);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut guard = self.lock();
        let device = &mut *guard;
        device.begin()?;
        if device.happens(device.faults.sync_error) {
            device.counts[Fault::SyncError] += 1;
            return Err(io_error());
        }
        for change in std::mem::take(&mut device.changes) {
            apply(&mut device.kept, &change);
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut guard = self.device.lock();
        let device = &mut *guard;
        device.begin()?;
        Ok(device.inode(self.inode)?.shown.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut guard = self.device.lock();
        let device = &mut *guard;
        device.begin()?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = device.inode(self.inode)?.shown.len().saturating_sub(offset);
        let mut len = into.len().min(there);
        if device.happens(device.faults.short) {
            device.counts[Fault::ShortWrite] += 1;
            if device.rng.coin() || len < 2 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            len = 1 + device.rng.index(len - 1);
        }
        let shown = &device.inode(self.inode)?.shown;
        into[..len].copy_from_slice(shown.get(offset..offset + len).unwrap_or_default());
        if len > 0 && device.happens(device.faults.bit_rot) {
            device.counts[Fault::BitRot] += 1;
            device.misread = true;
            let bit = device.rng.index(len * 8);
            into[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut guard = self.device.lock();
        let device = &mut *guard;
        let offset = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let begun = device.begin();
        if begun.is_err() {
            // The last thing a process does may be done in part.
            if device.operations_left.take().is_some() && device.rng.coin() {
                let part = device.rng.index(bytes.len() + 1);
                device.inode(self.inode)?.write(offset, &bytes[..part]);
            }
            begun?;
        }
        if device.happens(device.faults.write_error) {
            device.counts[Fault::WriteError] += 1;
            let part = device.rng.index(bytes.len() + 1);
            device.inode(self.inode)?.write(offset, &bytes[..part]);
            return Err(io_error());
        }
        let mut len = bytes.len();
        if device.happens(device.faults.short) {
            device.counts[Fault::ShortWrite] += 1;
            if device.rng.coin() || len < 2 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            len = 1 + device.rng.index(len - 1);
        }
        device.inode(self.inode)?.write(offset, &bytes[..len]);
        Ok(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut guard = self.device.lock();
        let device = &mut *guard;
        device.begin_change()?;
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let inode = device.inode(self.inode)?;
        inode.shown.resize(len, 0);
        inode.dirty.retain(|sector, _| sector * SECTOR < len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = self.device.lock();
        let device = &mut *guard;
        device.begin()?;
        if device.shown.iter().any(|(name, inode)| *inode == self.inode && !name.ends_with(".tmp")) {
            device.syncs += 1;
        }
        let sync = device.syncs;
        let fails = device.happens(device.faults.sync_error);
        let Device { inodes, rng, counts, .. } = device;
        let inode = inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        inode.resize_kept(inode.shown.len());
        for sector in std::mem::take(&mut inode.dirty).into_keys() {
            // After a failed sync the pages that were lost are called clean, and are shown as if they were there.
            if !fails || rng.coin() {
                let contents = sector_of(&inode.shown, sector);
                inode.keep(sector, &contents, sync);
            }
        }
        if fails {
            counts[Fault::SyncError] += 1;
            return Err(io_error());
        }
        Ok(())
    }
}

impl Device {
    fn inode(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// How the names of segments begin.
const SEGMENT: &str = "segment-";
/// The name of one that waits to be used again.
const RECYCLED: &str = "recycled.tmp";
/// Given-up segments that are remembered.
const GRAVES_MAX: usize = 8;
/// Versions of an unsynced sector that are remembered.
const VERSIONS_MAX: usize = 3;
/// What the newest syncs brought is not lost after the fact: of the last batch no log could tell.
const SYNCS_SPARED: u64 = 4;

fn io_error() -> io::Error {
    io::Error::other("the device failed (EIO)")
}

fn apply(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Create(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename(from, to, inode) => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
        NameChange::Remove(name, inode) => {
            if names.get(name) == Some(inode) {
                names.remove(name);
            }
        }
    }
}

/// A sector, with zeros where the bytes end.
fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR] {
    let mut contents = [0; SECTOR];
    if let Some(there) = bytes.get(sector * SECTOR..) {
        let len = there.len().min(SECTOR);
        contents[..len].copy_from_slice(&there[..len]);
    }
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(seed: u64, faults: DeviceFaults) -> SimDisk {
        SimDisk::new(Rng::new(seed), faults)
    }

    const ALL: DeviceFaults = DeviceFaults {
        bit_rot: Chance::NEVER,
        sync_error: Chance::NEVER,
        write_error: Chance::NEVER,
        short: Chance::NEVER,
        torn: true,
        lost_entry: true,
    };

    fn contents(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        let file = disk.open(name).ok()?;
        let mut bytes = vec![0; file.len().unwrap() as usize];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
        Some(bytes)
    }

    fn synced(disk: &SimDisk, name: &str, bytes: &[u8]) -> SimFile {
        let file = disk.create(name).unwrap();
        assert_eq!(file.write_at(0, bytes).unwrap(), bytes.len());
        file.sync().unwrap();
        disk.sync_dir().unwrap();
        file
    }

    #[test]
    fn a_power_failure_keeps_what_was_synced_and_any_sectors_of_the_rest() {
        let mut images = BTreeSet::new();
        for seed in 0..400 {
            let disk = device(seed, ALL);
            let file = synced(&disk, "a", &[1; 4 * SECTOR]);
            file.write_at(SECTOR as u64, &[2; 2 * SECTOR]).unwrap();
            disk.end_life(Ending::PowerLoss);
            let bytes = contents(&disk, "a").unwrap();
            assert_eq!((bytes.len(), bytes[0], bytes[4 * SECTOR - 1]), (4 * SECTOR, 1, 1));
            let sectors: Vec<u8> = bytes.chunks(SECTOR).map(|sector| sector[0]).collect();
            assert!(bytes.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            images.insert(sectors);
        }
        assert_eq!(images.len(), 4, "nothing, either alone, and both: {images:?}");
    }

    #[test]
    fn a_killed_process_leaves_everything_that_was_written() {
        let disk = device(1, ALL);
        let file = synced(&disk, "a", &[1; SECTOR]);
        file.write_at(0, &[2; SECTOR]).unwrap();
        disk.create("b").unwrap();
        disk.end_life(Ending::Kill);
        assert_eq!(contents(&disk, "a").unwrap(), [2; SECTOR]);
        assert!(contents(&disk, "b").is_some());
    }

    #[test]
    fn a_folder_that_was_not_synced_loses_any_of_its_changes() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let disk = device(seed, ALL);
            synced(&disk, "a", &[1; SECTOR]);
            disk.rename("a", "b").unwrap();
            disk.create("c").unwrap().sync().unwrap();
            disk.end_life(Ending::PowerLoss);
            let mut names = disk.list().unwrap();
            names.sort();
            assert!(names.contains(&"a".to_owned()) != names.contains(&"b".to_owned()));
            seen.insert(names);
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_file_whose_names_a_killed_process_took_away_is_back_whole_after_a_power_failure() {
        let mut back = 0;
        for seed in 0..50 {
            let disk = device(seed, ALL);
            disk.set_quiet(true);
            synced(&disk, "a", &[1; SECTOR]);
            disk.rename("a", "b").unwrap();
            disk.sync_dir().unwrap();
            disk.rename("b", "c").unwrap();
            disk.remove("c").unwrap();
            disk.end_life(Ending::Kill);
            assert_eq!(disk.list().unwrap(), [""; 0]);
            disk.end_life(Ending::PowerLoss);
            for name in disk.list().unwrap() {
                assert_eq!(contents(&disk, &name).unwrap(), [1; SECTOR]);
                back += 1;
            }
        }
        assert!((10..50).contains(&back), "{back}");
    }

    #[test]
    fn a_failed_sync_shows_what_is_not_there_and_calls_it_clean() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = device(seed, DeviceFaults { sync_error: Chance::percent(100), ..ALL });
            disk.set_quiet(true);
            let file = synced(&disk, "a", &[1; 2 * SECTOR]);
            file.write_at(0, &[2; 2 * SECTOR]).unwrap();
            disk.set_quiet(false);
            assert!(file.sync().is_err());
            disk.set_quiet(true);
            file.sync().unwrap();
            assert_eq!(contents(&disk, "a").unwrap(), [2; 2 * SECTOR]);
            disk.end_life(Ending::PowerLoss);
            lost += u64::from(contents(&disk, "a").unwrap() != [2; 2 * SECTOR]);
        }
        assert!(lost > 25, "{lost}");
    }

    #[test]
    fn a_device_goes_down_in_the_middle_and_answers_nobody_until_the_next_life() {
        let disk = device(1, ALL);
        let file = synced(&disk, "a", &[1; SECTOR]);
        disk.go_down_after(1);
        file.write_at(0, &[2; SECTOR]).unwrap();
        assert!(file.sync().is_err() && disk.list().is_err() && disk.is_down());
        disk.end_life(Ending::Kill);
        assert_eq!(contents(&disk, "a").unwrap(), [2; SECTOR]);
    }

    #[test]
    fn every_kind_of_damage_is_done_and_counted_and_spares_what_is_newest() {
        let mut counts = FaultCounts::default();
        for seed in 0..60 {
            let disk = device(seed, ALL);
            synced(&disk, "segment-0", &[9; 2 * SECTOR]);
            let file = synced(&disk, "segment-1", &[0; 8 * SECTOR]);
            for sector in 0..8_u8 {
                file.write_at(u64::from(sector) * SECTOR as u64, &[sector + 1; SECTOR]).unwrap();
                file.sync().unwrap();
            }
            disk.remove("segment-0").unwrap();
            for kind in [Fault::LostWrite, Fault::MisdirectedWrite] {
                assert!((0..100).any(|_| disk.damage(kind)), "{kind}");
                let bytes = contents(&disk, "segment-1").unwrap();
                assert!(kind == Fault::MisdirectedWrite || bytes[7 * SECTOR..] == [8; SECTOR]);
            }
            for kind in [Fault::BitRot, Fault::StaleSegment, Fault::TruncatedFile] {
                assert!((0..100).any(|_| disk.damage(kind)), "{kind}");
            }
            assert!(disk.is_damaged());
            counts += disk.counts();
        }
        assert_eq!(counts[Fault::TruncatedFile], 60);
    }
}
