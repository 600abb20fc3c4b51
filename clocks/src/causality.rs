//! The one relation between histories.

use core::fmt;

/// How one history relates to another.
///
/// This is a partial order: two histories may be unordered. It is a type of its own, and the vectors here implement no
/// `PartialOrd`: with that trait, `!(a < b)` reads as "not older" and also means "concurrent".
///
/// ```text
///   a.compare(&b)   what a has seen, what b has seen      what to keep of two versions
///   Equal           the same                              either
///   Before          b has seen all of a, and more         b
///   After           a has seen all of b, and more         a
///   Concurrent      each has seen what the other has not  both: it is a conflict
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Causality {
    /// The same events.
    Equal,
    /// A proper subset: happened before.
    Before,
    /// A proper superset: happened after.
    After,
    /// Neither contains the other.
    Concurrent,
}

impl Causality {
    /// The relation, from what each side lacks.
    pub(crate) const fn from_lacks(left_lacks: bool, right_lacks: bool) -> Self {
        match (left_lacks, right_lacks) {
            (false, false) => Causality::Equal,
            (true, false) => Causality::Before,
            (false, true) => Causality::After,
            (true, true) => Causality::Concurrent,
        }
    }

    /// The relation seen from the other side.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Causality::Before => Causality::After,
            Causality::After => Causality::Before,
            same => same,
        }
    }

    /// True if the left side has seen everything that the right side has: equal or after.
    #[must_use]
    pub const fn descends(self) -> bool {
        matches!(self, Causality::Equal | Causality::After)
    }
}

impl fmt::Display for Causality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Causality::Equal => "equal",
            Causality::Before => "before",
            Causality::After => "after",
            Causality::Concurrent => "concurrent",
        })
    }
}
