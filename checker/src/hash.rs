//! Maps with a fixed seed: the same history gives the same answer in the same number of steps.

use foldhash::fast::FixedState;

/// A hash map whose hash does not depend on the process.
#[expect(clippy::disallowed_types, reason = "the one place where the fixed seed is put in")]
pub(crate) type FixedMap<K, V> = std::collections::HashMap<K, V, FixedState>;

/// The hasher of values and of visited configurations.
pub(crate) const HASHER: FixedState = FixedState::with_seed(0);
