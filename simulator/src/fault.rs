//! The kinds of faults, and how often each really happened.

use std::fmt;
use std::ops::{AddAssign, Index, IndexMut};

/// A kind of fault. Its name is the word used in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A message was lost (N1).
    Loss,
    /// A message was delivered again, perhaps much later (N2).
    Duplicate,
    /// A message overtook an earlier one of its link (N3).
    Reorder,
    /// Groups that cannot hear each other cost a message (N4).
    Partition,
    /// Links that carry one way only cost a message (N5).
    OneWay,
    /// Two nodes that cannot hear each other while others hear both cost a message (N6, N7).
    PartialPartition,
    /// A link held its messages back and then let them go (N8).
    Clog,
    /// A crash took writes that were not durable yet (D1).
    UnsyncedLoss,
    /// A node crashed and came back after a while (P1).
    Crash,
    /// A node crashed and was back at once, its old messages still under way (P2).
    CrashRestart,
    /// A node was away until others had moved far ahead (P3).
    Outage,
    /// A node stood still and then went on (P4).
    Pause,
    /// A clock that runs fast or slow was read (C1).
    Drift,
    /// A monotonic clock jumped forward (C2).
    ClockJump,
    /// A power failure kept some sectors of a write and not others (D2).
    TornWrite,
    /// A bit was read wrongly, or changed at rest (D3).
    BitRot,
    /// A write went to another place, and its own kept what it had (D4).
    MisdirectedWrite,
    /// A write was acknowledged and never reached the medium (D5).
    LostWrite,
    /// A sync failed once, and the pages it lost are called clean (D6).
    SyncError,
    /// A write or a change of the folder was refused (D7).
    WriteError,
    /// A write or read did less than asked for, or was interrupted (D7).
    ShortWrite,
    /// A sync stood still (D9).
    SyncStall,
    /// A power failure took a change of the folder that was not durable (D10).
    LostEntry,
    /// A segment that was given up was there again (D12).
    StaleSegment,
    /// A file was shorter than it had been (D13).
    TruncatedFile,
    /// A store of snapshots refused to begin, write or finish one (D8).
    SnapshotError,
    /// The newest snapshot was damaged at rest (D16).
    SnapshotDamage,
    /// No fault, and counted with them: a node went on from a snapshot that it was sent.
    SnapshotInstall,
    /// No fault, and counted with them: a leader answered a read under its lease.
    LeaseRead,
    /// No fault either: a leader handed its leadership over.
    Transfer,
}

impl Fault {
    /// Every kind, in the order of reports.
    pub const ALL: [Fault; 30] = [
        Fault::Loss,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::Partition,
        Fault::OneWay,
        Fault::PartialPartition,
        Fault::Clog,
        Fault::UnsyncedLoss,
        Fault::Crash,
        Fault::CrashRestart,
        Fault::Outage,
        Fault::Pause,
        Fault::Drift,
        Fault::ClockJump,
        Fault::TornWrite,
        Fault::BitRot,
        Fault::MisdirectedWrite,
        Fault::LostWrite,
        Fault::SyncError,
        Fault::WriteError,
        Fault::ShortWrite,
        Fault::SyncStall,
        Fault::LostEntry,
        Fault::StaleSegment,
        Fault::TruncatedFile,
        Fault::SnapshotError,
        Fault::SnapshotDamage,
        Fault::SnapshotInstall,
        Fault::LeaseRead,
        Fault::Transfer,
    ];

    /// Those that happen to any cluster.
    #[must_use]
    pub fn of_clusters() -> &'static [Fault] {
        &Fault::ALL[..Fault::TornWrite as usize]
    }

    /// Those that happen to a device, and so only where the log engine runs.
    #[must_use]
    pub fn of_devices() -> &'static [Fault] {
        &Fault::ALL[Fault::TornWrite as usize..Fault::SnapshotError as usize]
    }

    /// Those that end a life.
    pub const LIVES: [Fault; 3] = [Fault::Crash, Fault::CrashRestart, Fault::Outage];

    /// Those that may destroy what was acknowledged: only a minority of a cluster may suffer them.
    pub const DESTRUCTIVE: [Fault; 5] =
        [Fault::BitRot, Fault::MisdirectedWrite, Fault::LostWrite, Fault::StaleSegment, Fault::TruncatedFile];

    /// The word for it in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::Loss => "loss",
            Fault::Duplicate => "duplicate",
            Fault::Reorder => "reorder",
            Fault::Partition => "partition",
            Fault::OneWay => "one_way",
            Fault::PartialPartition => "partial_partition",
            Fault::Clog => "clog",
            Fault::UnsyncedLoss => "unsynced_loss",
            Fault::Crash => "crash",
            Fault::CrashRestart => "crash_restart",
            Fault::Outage => "outage",
            Fault::Pause => "pause",
            Fault::Drift => "drift",
            Fault::ClockJump => "clock_jump",
            Fault::TornWrite => "torn_write",
            Fault::BitRot => "bit_rot",
            Fault::MisdirectedWrite => "misdirected_write",
            Fault::LostWrite => "lost_write",
            Fault::SyncError => "sync_error",
            Fault::WriteError => "write_error",
            Fault::ShortWrite => "short_write",
            Fault::SyncStall => "sync_stall",
            Fault::LostEntry => "lost_entry",
            Fault::StaleSegment => "stale_segment",
            Fault::TruncatedFile => "truncated_file",
            Fault::SnapshotError => "snapshot_error",
            Fault::SnapshotDamage => "snapshot_damage",
            Fault::SnapshotInstall => "snapshot_install",
            Fault::LeaseRead => "lease_read",
            Fault::Transfer => "transfer",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number for each kind of fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts([u64; Fault::ALL.len()]);

impl FaultCounts {
    /// Kinds and numbers, in the order of reports.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.into_iter().map(|fault| (fault, self[fault]))
    }
}

impl Index<Fault> for FaultCounts {
    type Output = u64;

    fn index(&self, fault: Fault) -> &u64 {
        &self.0[fault as usize]
    }
}

impl IndexMut<Fault> for FaultCounts {
    fn index_mut(&mut self, fault: Fault) -> &mut u64 {
        &mut self.0[fault as usize]
    }
}

impl AddAssign for FaultCounts {
    fn add_assign(&mut self, other: FaultCounts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

/// A set of kinds of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(u32);

impl FaultSet {
    /// None.
    pub const NONE: FaultSet = FaultSet(0);

    /// All.
    #[must_use]
    pub fn all() -> FaultSet {
        Fault::ALL.into_iter().collect()
    }

    /// True if it has this kind.
    #[must_use]
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }

    /// With this kind.
    #[must_use]
    pub fn with(self, fault: Fault) -> FaultSet {
        FaultSet(self.0 | 1 << fault as u32)
    }

    /// True if it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds it has.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }
}

impl FromIterator<Fault> for FaultSet {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> FaultSet {
        faults.into_iter().fold(FaultSet::NONE, FaultSet::with)
    }
}
