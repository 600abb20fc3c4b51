//! **RI11** (Raft, section 8; thesis 6.4): a read index is at or above every index whose decision was
//! acknowledged to anybody before the read began.

use super::{Checked, violation};

/// Reads under way, and what had been acknowledged when they began.
#[derive(Debug, Default)]
pub struct ReadIndexes {
    acknowledged: u64,
}

impl ReadIndexes {
    /// A node says that everything through `index` is decided: from now on a client may know.
    pub fn acknowledge(&mut self, index: u64) {
        self.acknowledged = self.acknowledged.max(index);
    }

    /// A read begins: the least index that may answer it.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.acknowledged
    }

    /// A read is answered.
    ///
    /// # Errors
    /// RI11 if the index is too low.
    pub fn answered(node: usize, index: u64, index_min: u64) -> Checked {
        if index >= index_min {
            return Ok(());
        }
        Err(violation(
            "RI11",
            format!(
                "n{}: read index {index}, and {index_min} was acknowledged before the read began",
                node + 1
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_index_below_an_earlier_acknowledgement_is_caught() {
        let mut reads = ReadIndexes::default();
        reads.acknowledge(5);
        let floor = reads.begin();
        reads.acknowledge(9);
        assert!(ReadIndexes::answered(0, 5, floor).is_ok());
        assert_eq!(ReadIndexes::answered(0, 4, floor).unwrap_err().invariant, "RI11");
    }
}
