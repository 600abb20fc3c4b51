//! The log on a disk in memory that crashes, and on real files.

mod conformance;
#[allow(dead_code, reason = "damage and recording are for the tests that follow")]
mod memory_disk;
