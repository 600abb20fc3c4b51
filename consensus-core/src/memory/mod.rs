//! In-memory implementations: a storage, a network and a key-value state machine (feature `memory`).
//!
//! They are complete, fast, and what tests, examples and comparisons run on. A [`MemoryStorage`] survives
//! the node that used it, like a disk; it does not survive the process.

mod key_value;
mod network;
mod snapshots;
mod storage;

pub use key_value::{Get, KeyValue, Previous, Put};
pub use network::{MemoryNetwork, MemoryTransport};
pub use snapshots::MemorySnapshots;
pub use storage::MemoryStorage;
