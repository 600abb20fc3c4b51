//! A hash map with a fixed seed.

#![allow(
    clippy::disallowed_types,
    reason = "the seed is fixed, so the order of iteration is the same in every run"
)]

use std::collections::HashMap;

/// For lookups on the way of every command. Same operations, same order of iteration.
pub(crate) type FixedMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
