//! The write-ahead log of Synod: the durable [`Storage`](synod_core::Storage), on segment files.
//!
//! # What it promises
//!
//! - A unit that was reported durable is there after any crash; a unit is there wholly or not at all; and no unit is
//!   there without all before it.
//! - One write and one sync for a batch of units, on bytes that were written before: no file grows and no block is
//!   allocated while the log is written. Hard state and entries are in the same batch.
//! - Everything that is read is verified: at the start the whole log, later each entry that is read back. What was
//!   damaged is refused with [`WalError::Corrupt`], which names file and offset; the log is never silently shorter.
//! - The first error is final. A sync that failed is never tried again, and nothing is written after it.
//! - Memory and the cost of a command do not depend on how long the log is: the index holds one small record for up to
//!   64 entries, and payloads stay in the files.
//!
//! ```
//! use synod_core::{ClusterId, GroupId, Identity, NodeId, Storage};
//! use synod_wal::Wal;
//!
//! # futures::executor::block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().join("log");
//! let identity = Identity { cluster: ClusterId(7), node: NodeId(1), group: GroupId(0) };
//! drop(Wal::create(&folder, identity)?); // once in the life of a node
//!
//! let mut wal = Wal::open(&folder)?; // at every start; refuses an empty folder
//! let recovered = wal.recover(&identity).await?;
//! assert_eq!(recovered.incarnation.0, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is called
//!
//! A node hands [`Wal`] to its builder and calls nothing. Who writes another shell drives an [`Engine`] over a
//! [`Disk`]: `create` once, then in each life `recover`, any number of `write`s, and `close` for a clean end.
//!
//! # How it is written
//!
//! A log is a sequence of batches, cut into segment files. Every write appends one batch, aligned to sectors, so what
//! was acknowledged is never written again. A batch carries its number; its checksums run over the salt of the segment
//! and its offset, so that neither bytes of another segment nor bytes at another place are ever taken for it. It is
//! written after the sync of the batch before it returned. So a batch that has another one behind it was durable.
//!
//! A segment that is full is sealed: its last batch names number and salt of the next one, which is whole and durable
//! before. A segment begins with a checkpoint (life, compaction bound, hard state), so the ones before it are needed
//! for their entries only. A segment that no entry needs is called so by the next batch, and given up once that is
//! durable, oldest first. One is kept and blanked to become a later one.
//!
//! # How it is opened
//!
//! Where the batches end, what stands there is torn or damaged, and the difference is decided by a table over what can
//! be seen (`recovery/cases.rs`; a test runs over every combination). Batches are written over zeros, a sector at a
//! time. So the last batch is torn if something of it is missing, and damaged if everything is there and wrong, or if a
//! later batch exists. A torn one was never acknowledged and is blanked, durably, before anything new is written. A
//! damaged log is refused: wipe the node and let it join under a new id. **Never put an older copy of a log in its
//! place.** It is whole, so it opens; but the node would have forgotten votes that it has cast and entries that it has
//! acknowledged since, and the cluster may lose what it decided. Nothing in the log can tell an older copy from the
//! newest one.
//!
//! The last batch is written again before anything follows it, and everything behind it in its segment is blanked,
//! at every start: after a failed sync the system may show bytes that never reached the disk, or hide some that did.
//!
//! What cannot be told: if the machine goes down right after a batch was acknowledged, and its disk had lied about a
//! sector of it or loses one later, the batch looks torn. Every start and every clean end ([`Engine::close`], dropping a
//! [`Wal`]) writes one batch more, and puts everything before it beyond doubt.
//!
//! # Versions
//!
//! Segments name the version of their format. A log is written in the lowest one that can say what it holds: version 2
//! where it was made from another log by force, version 1 everywhere else. A segment of a later version than
//! [`FORMAT_VERSION`] is refused with [`WalError::Version`], and nothing is changed.
//!
//! # When most members are lost
//!
//! [`force_new_cluster`] makes the log of one node that is left the log of a new cluster, which it is alone in. It may
//! lose what was decided, and decide what was not.
//!
//! # Snapshots
//!
//! [`FileSnapshots`] keeps a node's snapshots, one file each. It is a store of its own: a log knows only its bound.
//!
//! # Invariants
//!
//! | invariant | where it is kept | where it is checked |
//! |---|---|---|
//! | ST1: the recovered log is that after some prefix of the units which holds every acknowledged one | `engine.rs`: one batch, one sync | `tests/engine/crash_points.rs`, `conformance.rs` |
//! | ST2: nothing that was never written appears | `format.rs`: salt, offset and number in every checksum | the same |
//! | ST3: recovering twice gives the same | `engine.rs`, `repair` | the same |
//! | ST4: hard state never goes back | hard state in the batch of its unit, and in every checkpoint | the same |
//! | ST5: the log is complete above its compaction bound | `engine.rs`, `give_up`; `recovery/mod.rs` | the same |
//! | ST6: damage is harmless, or refused | `recovery/cases.rs`, `reader.rs` | `tests/engine/damage.rs` |
//!
//! # Features
//!
//! - `cli` (default): the binary `wal`, which shows and verifies logs, and makes new clusters by force.
//! - `redb`: a second durable storage in the module `redb`, which shows how to write one.

mod disk;
mod engine;
mod error;
mod file_disk;
mod force;
mod format;
mod index;
mod inspect;
mod lock;
mod options;
mod reader;
mod recovery;
#[cfg(feature = "redb")]
pub mod redb;
mod segment;
mod snapshots;
mod wal;

pub use disk::{Disk, DiskFile};
pub use engine::Engine;
pub use error::WalError;
pub use file_disk::FileDisk;
pub use force::{Forced, force_new_cluster, force_new_cluster_on};
pub use format::{FORMAT_VERSION, Origin, SegmentNumber};
pub use inspect::Inspection;
pub use options::{OptionsError, WalOptions};
pub use recovery::SegmentSummary;
pub use snapshots::FileSnapshots;
pub use wal::Wal;
