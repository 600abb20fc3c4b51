//! Logical clocks, version vectors, and what to do about conflicts.
//!
//! Two things happened on two machines. Did one of them know of the other? Each clock here answers a part of that
//! question, for its price. The crate is a set of plain values: it performs no I/O, reads no clock, draws no random
//! number, and needs no std (`no_std` with `alloc`).
//!
//! # Two replicas write at once
//!
//! ```
//! use core::time::Duration;
//! use synod_clocks::*;
//!
//! let (paris, tokyo) = (ActorId::new(1), ActorId::new(2));
//!
//! // Both write to the same object, and neither has heard of the other.
//! let (mut lamport_paris, mut lamport_tokyo) = (LamportClock::new(paris), LamportClock::new(tokyo));
//! lamport_tokyo.local();
//! let (a, b) = (lamport_paris.local(), lamport_tokyo.local());
//! // Lamport time orders them. It would say the same if Tokyo had read what Paris wrote: it cannot tell.
//! assert!(a.time < b.time);
//!
//! // A vector clock can tell.
//! let (mut vector_paris, mut vector_tokyo) = (VectorClock::new(paris), VectorClock::new(tokyo));
//! let (a, b) = (vector_paris.local(), vector_tokyo.local());
//! assert_eq!(a.compare(&b), Causality::Concurrent);
//!
//! // A version vector tells it of two versions of one object: this is a conflict.
//! let (mut version_paris, mut version_tokyo) = (VersionVector::new(), VersionVector::new());
//! version_paris.record(paris);
//! version_tokyo.record(tokyo);
//! assert_eq!(version_paris.compare(&version_tokyo), Causality::Concurrent);
//!
//! // A register keeps both values. Tokyo's wall clock is a second behind.
//! let wall = |ms| WallReading::from_unix(Duration::from_millis(ms));
//! let mut clock_paris = HybridClock::new(paris, Duration::from_secs(5))?;
//! let mut clock_tokyo = HybridClock::new(tokyo, Duration::from_secs(5))?;
//! let (mut left, mut right) = (MultiVersionRegister::new(), MultiVersionRegister::new());
//! let write = |value, time| Timed { value, time };
//! left.put(paris, &CausalContext::none(), write(30, clock_paris.local(wall(9_000)?).time));
//! right.put(tokyo, &CausalContext::none(), write(50, clock_tokyo.local(wall(8_000)?).time));
//! left.merge(&right);
//! right.merge(&left);
//!
//! // Three policies resolve it in three ways, each alike on both replicas.
//! let greater = MergeWith(|a: &Timed<u32>, b: &Timed<u32>| if a.value > b.value { *a } else { *b });
//! for replica in [&left, &right] {
//!     let Answer::Conflict(both) = replica.resolve(&ReturnToClient).answer else { panic!("a conflict") };
//!     assert_eq!(both.iter().map(|written| written.value).collect::<Vec<_>>(), [30, 50]);
//!     let Answer::Value(last) = replica.resolve(&LastWriterWins).answer else { panic!("one value") };
//!     assert_eq!(last.value, 30);
//!     let Answer::Value(greatest) = replica.resolve(&greater).answer else { panic!("one value") };
//!     assert_eq!(greatest.value, 50);
//! }
//!
//! // Writing an answer back, with the context of the read, settles it.
//! let resolved = left.resolve(&LastWriterWins);
//! if let Answer::Value(value) = resolved.answer {
//!     left.put(paris, &resolved.context, value);
//! }
//! right.merge(&left);
//! assert_eq!(right.get().siblings.len(), 1);
//! # Ok::<(), ClockError>(())
//! ```
//!
//! # Which one
//!
//! | you want | take | it costs | it cannot |
//! |---|---|---|---|
//! | one order of all events that respects causality | [`LamportClock`] | 8 bytes | tell concurrent from ordered |
//! | the same, close to wall time | [`HybridClock`] | 8 bytes, and wall clocks within a bound | the same |
//! | to know which event happened before which | [`VectorClock`] | 16 bytes an actor, in every message | see clients behind a server |
//! | to know which replica's copy is newer | [`VersionVector`] | 16 bytes an actor, for each object | tell two clients of one replica apart |
//! | to keep exactly the values that nobody replaced | [`DottedVersionVectorSet`] | the same, and the siblings | decide between them |
//! | that, as a register with contexts and deletes | [`MultiVersionRegister`] with a [`Resolver`] | the same | be atomic over several objects |
//!
//! Each type's page has its diagram, its source, and its limits.
//!
//! ```text
//!              one number                                a number for each actor
//!       +--------------------------+         +-------------------------------------------------+
//!       | Lamport --> hybrid       |         | vector clock --> version vector --> dotted      |
//!       | total order, constant    |         | of events        of an object       set: of its |
//!       | size, order of all       |         |                                     values      |
//!       +--------------------------+         +-------------------------------------------------+
//!          a -> b  implies  t(a) < t(b)         a -> b  exactly if  v(a) Before v(b)
//! ```
//!
//! # What the caller does
//!
//! - Gives each process an [`ActorId`] with an incarnation that is raised, durably, before the first event of every
//!   life. A restarted or restored replica that goes on under its old name uses a dot twice, and loses writes silently.
//! - Clocks: one call for every event: `local`, `send`, `receive`. The time that `send` returns travels with the message.
//! - Registers: hands the context of a read to the write that follows, unchanged; merges states that arrive, in any order,
//!   as often as they come.
//! - Wall clocks: reads one, and passes the reading in.
//! - Treats [`ClockError`] and [`DecodeError`] as what they are: input that must not take effect. Nothing has changed.
//!
//! # Invariants
//!
//! | what holds | where it is checked |
//! |---|---|
//! | comparison is a partial order, merge its least upper bound; both are what their definitions on maps say | `tests/laws.rs` |
//! | vector time is happened-before exactly; Lamport and hybrid time never contradict it, and order everything | `tests/executions.rs` |
//! | hybrid time is within epsilon of the wall clock, its counter below n (epsilon + 1), for n actors | `tests/executions.rs` |
//! | siblings are the maximal writes of the true causal order, through writes, deletes, synchronisations and restored backups | `tests/oracle.rs` |
//! | 101 interleaved writes leave 2 siblings, where a version vector leaves 101 | `tests/explosion.rs` |
//! | every policy ends in one value on all replicas | `tests/conflict.rs` |
//! | what a decoder accepts is the one encoding of its value; no input panics or allocates what it merely claims | `tests/encoding.rs` |
//! | Lamport's conditions I to III of mutual exclusion, in every reachable state | `examples/mutual_exclusion.rs` |
//!
//! # Where it departs from the papers
//!
//! - Counters are never zero and vectors are sorted, so that equal histories are equal values. There is no `PartialOrd`:
//!   see [`Causality`].
//! - Hybrid time is one number, so a full counter carries into the wall part instead of failing. Readings are rounded
//!   down.
//! - A dotted set has no anonymous values, and deleting is a discard without an event of its own: it needs no dot, and
//!   two replicas that delete at once agree.
//! - Interval tree clocks, and pruning by age as in Riak, are not here. [`VersionVector::prune`] says what forgetting costs.
//!
//! # Bytes
//!
//! `to_bytes` and `from_bytes` of vectors, contexts, sets and registers: one byte of version and kind, then variable-length
//! numbers, the nodes as differences; a vector of three replicas takes 11 bytes. The grammar stands at the top of
//! `encoding.rs`, golden bytes in `tests/testdata/golden.txt`. Lamport and hybrid times are plain numbers.
//!
//! # Features
//!
//! - `serde`: `Serialize` and `Deserialize` for every value; what is read is checked as in the encoding.
//! - `proptest`: module `strategy`, with random values and the laws of a merge function as a property test. Needs std.

#![no_std]

extern crate alloc;

mod actor;
mod causality;
mod counts;
mod stamp;

mod hybrid;
mod lamport;
mod vector;
mod version;

mod dotted;
mod register;
mod resolve;

mod encoding;
mod error;
mod laws;
#[cfg(feature = "proptest")]
pub mod strategy;

pub use actor::{ActorId, COUNTER_MAX, Dot};
pub use causality::Causality;
pub use dotted::{DottedVersionVectorSet, Sibling};
pub use encoding::{DecodeError, EncodeValue};
pub use error::ClockError;
pub use hybrid::{HybridClock, HybridTime, WallReading};
pub use lamport::{LamportClock, LamportTime};
pub use laws::{Law, broken_law};
pub use register::{Answer, CausalContext, MultiVersionRegister, Read, Resolved};
pub use resolve::{LastWriterWins, Maximum, MergeWith, Resolution, Resolver, ReturnToClient, Timed};
pub use stamp::Stamp;
pub use vector::{VectorClock, VectorTime};
pub use version::VersionVector;

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
