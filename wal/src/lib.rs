//! The write-ahead log of Synod: a durable storage on segment files.

mod disk;
mod file_disk;

pub use disk::{Disk, DiskFile};
pub use file_disk::FileDisk;
