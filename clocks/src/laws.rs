//! The laws of a merge function, checked on values.

use core::fmt;

/// A law that every merge function must keep, or replicas that merge in different orders end differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// `merge(a, a) == a`: the same news twice changes nothing.
    Idempotent,
    /// `merge(a, b) == merge(b, a)`: it does not matter who is asked first.
    Commutative,
    /// `merge(merge(a, b), c) == merge(a, merge(b, c))`: nor who merges with whom before.
    Associative,
}

/// The first law that `merge` breaks on these three values.
///
/// ```
/// use synod_clocks::{Law, broken_law};
/// assert_eq!(broken_law(|a, b| *a.max(b), &1, &2, &3), None);
/// assert_eq!(broken_law(|a, b| a + b, &1, &2, &3), Some(Law::Idempotent));
/// assert_eq!(broken_law(|a, _| *a, &1, &2, &3), Some(Law::Commutative));
/// assert_eq!(broken_law(|a, b| (a + b) / 2, &0, &4, &8), Some(Law::Associative));
/// ```
#[must_use]
pub fn broken_law<T: PartialEq>(merge: impl Fn(&T, &T) -> T, a: &T, b: &T, c: &T) -> Option<Law> {
    let idempotent = [a, b, c].into_iter().all(|value| merge(value, value) == *value);
    let commutative = [(a, b), (b, c), (a, c)].into_iter().all(|(x, y)| merge(x, y) == merge(y, x));
    let associative = merge(&merge(a, b), c) == merge(a, &merge(b, c));
    match (idempotent, commutative, associative) {
        (false, _, _) => Some(Law::Idempotent),
        (_, false, _) => Some(Law::Commutative),
        (_, _, false) => Some(Law::Associative),
        (true, true, true) => None,
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Law::Idempotent => "idempotent",
            Law::Commutative => "commutative",
            Law::Associative => "associative",
        })
    }
}
