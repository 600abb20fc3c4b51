//! Makes the log of one node that is left the log of a cluster of its own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use synod_core::{ClusterId, Entries, Entry, Identity, Kind, LogIndex, RequestId, Stamp, Write, WriteId};

use crate::error::WalError;
use crate::format::Origin;
use crate::lock::Lock;
use crate::reader::for_each_run;
use crate::recovery::{Scan, scan};
use crate::wal::{make_folder, open_log, placed, sync_entry};
use crate::{Disk, Engine, FileDisk, WalOptions};

/// What a new cluster begins with: see [`force_new_cluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forced {
    /// The log that was read, and its last life.
    pub origin: Origin,
    /// Whose the new log is.
    pub identity: Identity,
    /// How many entries it holds.
    pub entries: u64,
    /// The last of them.
    pub last: Option<(LogIndex, Stamp)>,
    /// How many of them said who is a member, and say nothing any more.
    pub memberships: u64,
}

/// Makes a new log in `into`, for the same node in `cluster`, that holds everything the log in `from` does. For the case
/// that **most of the members are lost for good**: the node then stands alone, as the only member of a new cluster.
///
/// This is unsafe in the sense of the protocols, which is why nothing calls it by itself:
///
/// - commands that were decided and acknowledged, and that this node never got, are lost;
/// - commands that were not decided, and that this node has, are decided now, some that clients were told had failed
///   or never heard of again among them;
/// - if the other members are not lost after all, two clusters go on, each with a history of its own.
///
/// The new cluster has another id, so no member of the old one will talk to it. Entries that say who is a member become
/// no-ops: the only member is the one that the node is started with. The log in `from` is read, and stays as it is. The
/// new one says for ever what it was made from: [`Inspection::origin`](crate::Inspection).
///
/// `into` must be missing or empty; the log appears there when it is whole. It is made in a folder of this name with
/// `.partial` behind it, which is left there if something fails on the way.
///
/// # Errors
/// [`WalError::NoLog`], [`WalError::Locked`], [`WalError::Version`] and [`WalError::Corrupt`] for `from`,
/// [`WalError::SameCluster`], [`WalError::Compacted`] for a log that begins behind a snapshot, [`WalError::NotEmpty`] for
/// `into`, [`WalError::Io`].
pub fn force_new_cluster(
    from: impl AsRef<Path>,
    into: impl AsRef<Path>,
    cluster: ClusterId,
) -> Result<Forced, WalError> {
    let (from, into) = (from.as_ref(), into.as_ref());
    open_log(from)?;
    let lock = Lock::shared(from)?;
    let disk = FileDisk::open_read_only(from).map_err(WalError::io("open", &from.display().to_string()))?;
    let partial = partial(into);
    for folder in [into, &partial] {
        is_free(folder)?;
    }
    make_folder(&partial).map_err(WalError::io("make", &partial.display().to_string()))?;
    let new = FileDisk::open(&partial).map_err(WalError::io("open", &partial.display().to_string()))?;
    let outcome = force_new_cluster_on(&disk, new, WalOptions::default(), cluster);
    let forced = outcome.map_err(|error| placed(error, from))?;
    drop(lock);
    let moved = fs::rename(&partial, into).and_then(|()| sync_entry(into));
    moved.map_err(WalError::io("rename", &partial.display().to_string()))?;
    Ok(forced)
}

/// As [`force_new_cluster`], from one disk to an empty one, that nobody else uses. What fails on the way leaves a part
/// of a log on the second.
///
/// # Errors
/// As [`force_new_cluster`], and [`WalError::Options`].
pub fn force_new_cluster_on(
    from: &impl Disk,
    into: impl Disk,
    options: WalOptions,
    cluster: ClusterId,
) -> Result<Forced, WalError> {
    let Scan { identity: old, life, hard_state, index, segments, .. } = scan(from, None)?;
    if old.cluster == cluster {
        return Err(WalError::SameCluster { cluster });
    }
    if let Some((through, _)) = index.compacted() {
        return Err(WalError::Compacted { through });
    }
    let origin = Origin { cluster: old.cluster, node: old.node, incarnation: life };
    let identity = Identity { cluster, ..old };
    let mut engine = Engine::new(into, options)?;
    engine.create_from(&identity, Some(&origin))?;
    engine.recover(&identity)?;

    let mut copy = Copy { engine: &mut engine, unit: Write::default(), bytes: 0, memberships: 0 };
    copy.unit.hard_state.clone_from(&hard_state);
    for_each_run(&index, &segments, |run| copy.take(run))?;
    copy.flush()?;
    let memberships = copy.memberships;
    engine.close()?;
    let last = index.runs().last().map(|run| (run.to, run.stamp_at(run.to)));
    Ok(Forced { origin, identity, entries: index.len(), last, memberships })
}

/// Writes entries in units of a bounded size.
struct Copy<'a, D: Disk> {
    engine: &'a mut Engine<D>,
    unit: Write,
    bytes: usize,
    memberships: u64,
}

impl<D: Disk> Copy<'_, D> {
    const UNIT_BYTES: usize = 1 << 20;

    fn take(&mut self, run: Vec<Entry>) -> Result<(), WalError> {
        let run: Vec<Entry> = run.into_iter().map(|entry| self.without_members(entry)).collect();
        self.bytes += run.iter().map(Entry::weight).sum::<usize>();
        self.unit.puts.extend(Entries::new(run));
        if self.bytes >= Copy::<D>::UNIT_BYTES { self.flush() } else { Ok(()) }
    }

    fn without_members(&mut self, entry: Entry) -> Entry {
        if entry.kind != Kind::Membership {
            return entry;
        }
        self.memberships += 1;
        Entry { kind: Kind::Noop, request: RequestId::NONE, payload: Bytes::new(), ..entry }
    }

    fn flush(&mut self) -> Result<(), WalError> {
        let next = Write { id: WriteId(self.unit.id.0 + 1), forced: true, ..Write::default() };
        let unit = std::mem::replace(&mut self.unit, next);
        self.bytes = 0;
        self.engine.write(&[unit])
    }
}

fn partial(into: &Path) -> PathBuf {
    let mut name = OsString::from(into);
    name.push(".partial");
    PathBuf::from(name)
}

/// Nothing is written over.
fn is_free(folder: &Path) -> Result<(), WalError> {
    let place = folder.display().to_string();
    match fs::read_dir(folder) {
        Ok(mut names) => match names.next() {
            None => Ok(()),
            Some(Ok(found)) => {
                let found = found.file_name().to_string_lossy().into_owned();
                Err(WalError::NotEmpty { place, found })
            }
            Some(Err(error)) => Err(WalError::io("list", &place)(error)),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(WalError::io("list", &place)(error)),
    }
}
