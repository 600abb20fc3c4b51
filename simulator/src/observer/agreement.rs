//! **RI5 State-Machine Safety** (Raft, section 5.4.3): if a node has applied an entry at an index, no node
//! ever applies another entry there. Stronger, and sooner: once an entry is decided at an index, nothing
//! else is decided there, and every node that believes an index decided has that entry.

use std::fmt;

use synod_core::{Entry, Kind, Reign, RequestId};

use super::{Checked, violation};
use crate::hash::{mix, mix_bytes};

/// What is decided, index by index: worked out from durable votes.
#[derive(Debug, Default)]
pub struct Decisions {
    entries: Vec<Digest>,
}

/// What an entry is, in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// The entry and everything before it.
    pub chain: u64,
    /// The entry, without its stamp.
    pub entry: u64,
}

/// Who holds something for decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A node, by its own word.
    Node(usize),
    /// A quorum, by its votes.
    Quorum,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Node(node) => write!(f, "n{}", node + 1),
            Who::Quorum => f.write_str("a quorum"),
        }
    }
}

impl Decisions {
    /// The last decided index; 0 if there is none.
    #[must_use]
    pub fn through(&self) -> u64 {
        self.entries.len() as u64
    }

    /// What is decided at `index`, counted from 1.
    #[must_use]
    pub fn at(&self, index: u64) -> Option<Digest> {
        self.entries.get(usize::try_from(index.checked_sub(1)?).ok()?).copied()
    }

    /// The next index is decided.
    pub fn push(&mut self, digest: Digest) {
        self.entries.push(digest);
    }

    /// An index is decided again, or believed to be: it must be the same history.
    ///
    /// # Errors
    /// RI5 if it is another one.
    pub fn agree(&self, index: u64, chain: u64, who: Who) -> Checked {
        match self.at(index) {
            Some(digest) if digest.chain == chain => Ok(()),
            Some(_) => {
                Err(violation("RI5", format!("{who} holds another history through {index} than was decided")))
            }
            None => Err(violation(
                "RI7",
                format!("{who} holds {index} for decided, and only {} is", self.through()),
            )),
        }
    }

    /// An entry was applied.
    ///
    /// # Errors
    /// RI7 if its index is not decided, RI5 if another entry is.
    pub fn applied(&self, node: usize, index: u64, entry: u64) -> Checked {
        match self.at(index) {
            Some(digest) if digest.entry == entry => Ok(()),
            Some(_) => Err(violation(
                "RI5",
                format!("n{} applied another entry at {index} than was decided", node + 1),
            )),
            None => Err(violation(
                "RI7",
                format!("n{} applied {index}, and only {} is decided", node + 1, self.through()),
            )),
        }
    }
}

/// The hash of an entry, without its place and stamp.
#[must_use]
pub fn entry_digest(entry: &Entry) -> u64 {
    digest_of(entry.kind, entry.reign, entry.request, &entry.payload)
}

/// The hash of what an entry is made of.
#[must_use]
pub fn digest_of(kind: Kind, reign: Reign, request: RequestId, payload: &[u8]) -> u64 {
    let mut hash = u64::from(kind.to_byte());
    hash = mix(hash, reign.number ^ reign.leader.0.rotate_left(48));
    hash = mix(hash, request.client.0 ^ request.first_incomplete.0.rotate_left(32));
    hash = mix(hash, request.sequence.0);
    mix_bytes(hash, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_history_and_an_undecided_index_are_told_apart() {
        let mut decisions = Decisions::default();
        decisions.push(Digest { chain: 7, entry: 70 });
        assert!(decisions.agree(1, 7, Who::Node(0)).is_ok());
        assert_eq!(decisions.agree(1, 8, Who::Quorum).unwrap_err().invariant, "RI5");
        assert_eq!(decisions.agree(2, 9, Who::Node(0)).unwrap_err().invariant, "RI7");
        assert_eq!(decisions.applied(0, 1, 71).unwrap_err().invariant, "RI5");
        assert_eq!(decisions.applied(0, 2, 71).unwrap_err().invariant, "RI7");
    }
}
