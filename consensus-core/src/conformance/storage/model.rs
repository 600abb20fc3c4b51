//! What a log must hold: the simplest thing that can be right.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::{Entry, IndexRange, LogIndex, LogReader, Recovered, Stamp, Write};

/// The contents of a log, as a map from position to entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) entries: BTreeMap<LogIndex, Entry>,
    pub(super) compacted: Option<(LogIndex, Stamp)>,
    pub(super) hard_state: Option<Bytes>,
}

impl Model {
    /// Applies the fields of a unit in their order.
    pub(super) fn apply(&mut self, unit: &Write) {
        if let Some((through, stamp)) = unit.install
            && self.compacted.is_none_or(|(bound, _)| bound < through)
        {
            self.compacted = Some((through, stamp));
            self.entries.retain(|index, _| *index > through);
        }
        if let Some(from) = unit.truncate_from {
            self.entries.retain(|index, _| *index < from);
        }
        for entry in unit.puts.iter().flat_map(|put| put.iter()) {
            self.entries.insert(entry.index, entry.clone());
        }
        if let Some(through) = unit.compact_to
            && self.compacted.is_none_or(|(bound, _)| bound < through)
        {
            let stamp = self.entries.get(&through).map_or(Stamp::ZERO, |entry| entry.stamp);
            self.compacted = Some((through, stamp));
            self.entries.retain(|index, _| *index > through);
        }
        if let Some(state) = &unit.hard_state {
            self.hard_state = Some(state.clone());
        }
    }

    /// The position after the compaction bound: the first one that may be read.
    pub(super) fn first_readable(&self) -> LogIndex {
        self.compacted.map_or(LogIndex(1), |(bound, _)| bound.next())
    }

    /// The highest position known.
    pub(super) fn last_index(&self) -> LogIndex {
        let bound = self.compacted.map_or(LogIndex::ZERO, |(bound, _)| bound);
        self.entries.keys().next_back().map_or(bound, |last| *last)
    }

    /// What a storage shows of itself, if its parts agree with each other.
    pub(super) fn observe(recovered: &Recovered, reader: &dyn LogReader) -> Result<Model, String> {
        let compacted = recovered.compacted;
        let mut seen =
            Model { entries: BTreeMap::new(), compacted, hard_state: recovered.hard_state.clone() };
        seen.entries = read_all(reader, seen.first_readable(), usize::MAX)?;
        let mut stamps = BTreeMap::new();
        let mut before = LogIndex::ZERO;
        for run in &recovered.runs {
            if run.from <= before || run.to < run.from {
                return Err(format!(
                    "the recovered runs are not ascending and disjoint: {:?}",
                    recovered.runs
                ));
            }
            before = run.to;
            if run.to.distance_from(run.from) >= seen.entries.len() as u64 {
                return Err(format!("run {}..={} covers entries that cannot be read", run.from, run.to));
            }
            stamps.extend(
                (run.from.0..=run.to.0).map(|index| (LogIndex(index), run.stamp_at(LogIndex(index)))),
            );
        }
        let read: BTreeMap<LogIndex, Stamp> =
            seen.entries.iter().map(|(index, entry)| (*index, entry.stamp)).collect();
        if stamps != read {
            return Err(format!("the recovered runs say {stamps:?}, reading says {read:?}"));
        }
        let marked: Vec<&Entry> = seen.entries.values().filter(|entry| entry.kind.is_marked()).collect();
        if marked != recovered.marked.iter().collect::<Vec<_>>() {
            return Err(format!(
                "recovered as marked: {}; read: {}",
                list(recovered.marked.iter()),
                list(marked.into_iter())
            ));
        }
        Ok(seen)
    }

    /// What is different in `seen`, or `None`.
    pub(super) fn difference(&self, seen: &Model) -> Option<String> {
        if self.compacted != seen.compacted {
            return Some(format!(
                "expected the compaction bound {:?}, found {:?}",
                self.compacted, seen.compacted
            ));
        }
        if self.hard_state != seen.hard_state {
            return Some(format!(
                "expected the hard state {}, found {}",
                brief(self.hard_state.as_ref()),
                brief(seen.hard_state.as_ref())
            ));
        }
        self.difference_of_entries(&seen.entries)
    }

    /// The lowest position at which `seen` holds something else, or `None`.
    pub(super) fn difference_of_entries(&self, seen: &BTreeMap<LogIndex, Entry>) -> Option<String> {
        let index = self
            .entries
            .keys()
            .chain(seen.keys())
            .filter(|index| self.entries.get(index) != seen.get(index))
            .min()?;
        let (expected, found) = (Shown(self.entries.get(index)), Shown(seen.get(index)));
        Some(format!("at index {index} expected {expected}, found {found}"))
    }
}

/// Everything from `from` on, read piece by piece; each piece is held to what [`LogReader::read`] promises.
pub(super) fn read_all(
    reader: &dyn LogReader,
    from: LogIndex,
    bytes_max: usize,
) -> Result<BTreeMap<LogIndex, Entry>, String> {
    let mut entries = BTreeMap::new();
    let end = LogIndex(u64::MAX);
    let mut next = from;
    while next < end {
        let range = IndexRange::new(next, end);
        let loaded = reader.read(range, bytes_max).map_err(|error| format!("reading {range}: {error}"))?;
        let mut weight = 0;
        let mut count = 0;
        let mut last = None;
        for entry in loaded.segments.iter().flat_map(|segment| segment.iter()) {
            if entry.index < next || entry.index >= loaded.to || last.is_some_and(|last| last >= entry.index)
            {
                return Err(format!(
                    "reading {range} up to {} gave index {} after {last:?}",
                    loaded.to, entry.index
                ));
            }
            last = Some(entry.index);
            weight += entry.weight();
            count += 1;
            entries.insert(entry.index, entry.clone());
        }
        if count > 1 && weight > bytes_max {
            return Err(format!(
                "reading {range} within {bytes_max} bytes gave {count} entries of {weight} bytes"
            ));
        }
        if loaded.to > end || (loaded.to < end && count == 0) {
            return Err(format!("reading {range} gave no entry and reached only {}", loaded.to));
        }
        next = loaded.to;
    }
    Ok(entries)
}

struct Shown<'a>(Option<&'a Entry>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(entry) => {
                write!(f, "{entry} of reign {} with {}", entry.reign, brief(Some(&entry.payload)))
            }
            None => f.write_str("no entry"),
        }
    }
}

/// A byte string, cut where it grows too long to be read.
fn brief(bytes: Option<&Bytes>) -> String {
    match bytes {
        Some(bytes) if bytes.len() > 32 => format!("{} bytes {:?}..", bytes.len(), bytes.slice(..32)),
        Some(bytes) => format!("{} bytes {bytes:?}", bytes.len()),
        None => "none".to_owned(),
    }
}

fn list<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let shown: Vec<String> = entries.map(Entry::to_string).collect();
    format!("[{}]", shown.join(", "))
}
