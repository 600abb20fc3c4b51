//! What the binaries `compare` and `core_cost` and the criterion benches share. Not a library to build on.

pub mod certificates;
pub mod contenders;
pub mod logs;
pub mod loopback;
pub mod options;

pub mod compare;
pub mod core_cost;

pub mod measure;
pub mod row;
pub mod state_machine;
pub mod workload;

/// With the feature of that name, instead of the system's.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator in use.
#[must_use]
pub fn allocator() -> &'static str {
    if cfg!(feature = "mimalloc") { "mimalloc" } else { "system" }
}
