//! The log on a disk in memory that crashes, and on real files.

mod conformance;
mod crash_points;
mod damage;
mod golden;
mod memory_disk;
mod model;
mod rolls;
mod snapshots;
