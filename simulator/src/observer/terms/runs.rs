//! The stamps of one node's log, as runs.

/// A dense log `1..=last` by the terms of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// First index and term of each run, ascending.
    runs: Vec<(u64, u64)>,
    last: u64,
}

impl Runs {
    /// The last index; 0 if the log is empty.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The term at `index`; `None` outside the log, 0 at 0.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == 0 {
            return Some(0);
        }
        if index > self.last {
            return None;
        }
        // Nearly always the last run.
        self.runs.iter().rev().find(|(first, _)| *first <= index).map(|(_, term)| *term)
    }

    /// Removes everything at or above `from`.
    pub fn truncate_from(&mut self, from: u64) {
        self.last = self.last.min(from.saturating_sub(1));
        while self.runs.last().is_some_and(|(first, _)| *first > self.last) {
            self.runs.pop();
        }
    }

    /// Puts `from..=to` under `term`, right after the last index.
    pub fn append(&mut self, from: u64, to: u64, term: u64) {
        debug_assert_eq!(from, self.last + 1);
        if self.runs.last().is_none_or(|(_, last)| *last != term) {
            self.runs.push((from, term));
        }
        self.last = to;
    }

    /// Puts `from..=to` under `term` wherever that is. False if it leaves a hole.
    #[must_use]
    pub fn put(&mut self, from: u64, to: u64, term: u64) -> bool {
        if from > self.last + 1 {
            return false;
        }
        if from == self.last + 1 {
            self.append(from, to, term);
            return true;
        }
        let after: Vec<u64> = (to + 1..=self.last).filter_map(|index| self.term_at(index)).collect();
        self.truncate_from(from);
        self.append(from, to, term);
        for term in after {
            self.append(self.last + 1, self.last + 1, term);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn runs_are_a_log() {
        let mut rng = Rng::new(5);
        for _ in 0..500 {
            let (mut runs, mut plain) = (Runs::default(), Vec::<u64>::new());
            for _ in 0..40 {
                let from = rng.between(1, plain.len() as u64 + 1);
                if rng.below(3) == 0 {
                    runs.truncate_from(from);
                    plain.truncate(from as usize - 1);
                } else {
                    let (to, term) = (from + rng.below(4), rng.between(1, 3));
                    assert!(runs.put(from, to, term));
                    plain.resize(plain.len().max(to as usize), 0);
                    plain[from as usize - 1..to as usize].fill(term);
                }
                let read: Vec<u64> = (1..=runs.last()).map(|index| runs.term_at(index).unwrap()).collect();
                assert_eq!(read, plain);
            }
            assert!(!runs.put(runs.last() + 2, runs.last() + 2, 1));
        }
    }
}
