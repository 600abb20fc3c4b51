//! Looks at a log without changing it.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use synod_core::{Identity, Incarnation, LogIndex, Run, Stamp};

use crate::error::WalError;
use crate::format::{Origin, version_for};
use crate::lock::Lock;
use crate::recovery::{Scan, SegmentSummary, scan};
use crate::wal::{open_log, placed};
use crate::{Disk, FileDisk};

/// A log as it lies there: what the next [`crate::Engine::recover`] would find. `Display` is for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Whose it is.
    pub identity: Identity,
    /// The version of the format that it is written in.
    pub version: u32,
    /// The log that it was made from by force, if it was.
    pub origin: Option<Origin>,
    /// The last life that was begun.
    pub incarnation: Incarnation,
    /// The last hard state written.
    pub hard_state: Option<Bytes>,
    /// The compaction bound and the stamp that stood there.
    pub compacted: Option<(LogIndex, Stamp)>,
    /// How many entries there are.
    pub entries: u64,
    /// The entries, as a machine is told about them.
    pub runs: Vec<Run>,
    /// The segments that are needed.
    pub segments: Vec<SegmentSummary>,
    /// What a batch that nobody was told about has left: bytes of the last segment.
    pub torn: Option<Range<u64>>,
    /// Files that are no part of the log; the next start removes them.
    pub leftovers: Vec<String>,
}

impl Inspection {
    /// Reads the log in a folder, which may be read-only, and verifies every checksum.
    ///
    /// # Errors
    /// [`WalError::Locked`] if a process writes it: what it is writing would look damaged. [`WalError::NoLog`],
    /// [`WalError::Corrupt`], [`WalError::Io`].
    pub fn of_folder(folder: impl AsRef<Path>) -> Result<Inspection, WalError> {
        let folder = folder.as_ref();
        open_log(folder)?;
        let lock = Lock::shared(folder)?;
        let shown = folder.display().to_string();
        let disk = FileDisk::open_read_only(folder).map_err(WalError::io("open", &shown))?;
        let inspection = Inspection::of(&disk).map_err(|error| placed(error, folder));
        drop(lock);
        inspection
    }

    /// Reads the log on a disk that nobody writes meanwhile.
    ///
    /// # Errors
    /// As [`Inspection::of_folder`], without the lock.
    pub fn of(disk: &impl Disk) -> Result<Inspection, WalError> {
        let Scan { identity, origin, summaries, index, life, hard_state, torn, leftovers, .. } =
            scan(disk, None)?;
        Ok(Inspection {
            identity,
            version: version_for(origin.as_ref()),
            origin,
            incarnation: life,
            hard_state,
            compacted: index.compacted(),
            entries: index.len(),
            runs: index.runs(),
            segments: summaries,
            torn,
            leftovers,
        })
    }
}

/// How many runs are shown to people.
const RUNS_SHOWN: usize = 20;

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { cluster, node, group } = self.identity;
        writeln!(f, "cluster      {cluster}")?;
        writeln!(f, "node         {node}")?;
        writeln!(f, "group        {group}")?;
        writeln!(f, "format       version {}", self.version)?;
        if let Some(Origin { cluster, node, incarnation }) = self.origin {
            writeln!(f, "forced       from cluster {cluster}, {node}, after its life {}", incarnation.0)?;
        }
        writeln!(f, "incarnation  {}", self.incarnation.0)?;
        match &self.hard_state {
            Some(state) => {
                writeln!(f, "hard state   {} bytes {:?}", state.len(), state.slice(..state.len().min(64)))?;
            }
            None => writeln!(f, "hard state   none")?,
        }
        match self.compacted {
            Some((bound, stamp)) => writeln!(f, "compacted    through {bound}, where {stamp} stood")?,
            None => writeln!(f, "compacted    no")?,
        }
        writeln!(f, "entries      {}", self.entries)?;
        for run in self.runs.iter().take(RUNS_SHOWN) {
            let rising = if run.rising { ", rising" } else { "" };
            writeln!(f, "             {}..={} under {}{rising}", run.from, run.to, run.stamp)?;
        }
        if self.runs.len() > RUNS_SHOWN {
            writeln!(f, "             and {} runs more", self.runs.len() - RUNS_SHOWN)?;
        }
        writeln!(f, "segments     {}", self.segments.len())?;
        for segment in &self.segments {
            let SegmentSummary { name, bytes, used_bytes, batches, entries, sealed, .. } = segment;
            let end = if *sealed { "sealed" } else { "open" };
            writeln!(
                f,
                "             {name}: {batches} batches, {entries} entries, {used_bytes} of {bytes} bytes, {end}"
            )?;
        }
        if let Some(torn) = &self.torn {
            writeln!(
                f,
                "torn         bytes {}..{} of the last segment, never acknowledged",
                torn.start, torn.end
            )?;
        }
        if !self.leftovers.is_empty() {
            writeln!(f, "left over    {}", self.leftovers.join(", "))?;
        }
        Ok(())
    }
}
