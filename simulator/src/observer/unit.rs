//! What a step did to the write unit that is being assembled: observers follow every step of every unit, so a
//! vote that is overwritten inside one flush still counts.

use bytes::Bytes;
use synod_core::{Entries, Entry, LogIndex, Write, WriteId};

/// What was seen of the unit being assembled.
#[derive(Debug, Default)]
pub struct SeenUnit {
    id: WriteId,
    truncate_from: Option<LogIndex>,
    puts: Vec<SeenPut>,
    hard_state: Option<Bytes>,
    install: Option<LogIndex>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeenPut {
    /// Where its first entry lies in memory: compared, never followed.
    address: usize,
    len: usize,
    first: u64,
    stamp: u64,
}

impl SeenUnit {
    /// Another look at the unit: if it is a new one, nothing of it was seen yet.
    pub fn begin(&mut self, unit: &Write) {
        if self.id != unit.id {
            self.id = unit.id;
            self.truncate_from = None;
            self.puts.clear();
            self.hard_state = None;
            self.install = None;
        }
    }

    /// True if this is another snapshot than was seen in the unit.
    pub fn install_changed(&mut self, index: LogIndex) -> bool {
        self.install.replace(index) != Some(index)
    }

    /// A snapshot took the place of everything through `index`, and of what this unit was to put there.
    pub fn replaced_through(&mut self, index: LogIndex) {
        for put in &mut self.puts {
            let gone = (index.0 + 1).saturating_sub(put.first).min(put.len as u64);
            put.first += gone;
            put.len -= gone as usize;
            put.address += gone as usize * size_of::<Entry>();
        }
        self.puts.retain(|put| put.len > 0);
    }

    /// True if this is another hard state than was seen in the unit.
    pub fn hard_state_changed(&mut self, bytes: &Bytes) -> bool {
        let changed = self.hard_state.as_ref() != Some(bytes);
        if changed {
            self.hard_state = Some(bytes.clone());
        }
        changed
    }

    /// From where entries were removed since the last look, and which put is the first new one. A step may
    /// remove what an earlier step of the same unit put.
    pub fn changed(&mut self, unit: &Write) -> (Option<u64>, usize) {
        let seen = &self.puts;
        let known = unit.puts.iter().zip(seen).take_while(|(put, seen)| SeenPut::of(put) == **seen).count();
        let mut removed_from = None;
        let mut fresh = known;
        if known < seen.len() {
            // This put was cut short, or is gone.
            let old = seen[known];
            removed_from = Some(old.first);
            if let Some(put) = unit.puts.get(known) {
                let now = SeenPut::of(put);
                if now.address == old.address && now.stamp == old.stamp && now.len < old.len {
                    removed_from = Some(old.first + now.len as u64);
                    fresh += 1;
                }
            }
        }
        if unit.truncate_from != self.truncate_from {
            self.truncate_from = unit.truncate_from;
            let from = unit.truncate_from.map_or(u64::MAX, |from| from.0);
            removed_from = Some(removed_from.map_or(from, |removed| removed.min(from)));
        }
        self.puts.clear();
        self.puts.extend(unit.puts.iter().map(SeenPut::of));
        (removed_from, fresh)
    }
}

impl SeenPut {
    fn of(put: &Entries) -> SeenPut {
        SeenPut {
            address: put.as_ptr().addr(),
            len: put.len(),
            first: put.first_index().0,
            stamp: put.first().map_or(0, |entry| entry.stamp.high),
        }
    }
}
