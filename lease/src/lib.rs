//! Leases whose assumption about clocks is a value, fencing tokens, and PaxosLease: sans-IO.
//!
//! # What it promises
//!
//! This crate performs no I/O and reads no clock: time is passed in. It promises that
//!
//! - *at most one holder acts at any moment of real time*, as long as every clock keeps to the
//!   [`ClockBound`](synod_core::ClockBound) that the lease was made with, whatever messages, pauses and restarts do;
//! - *a holder is told how long it may still act*, not only that it may ([`Holder::remaining`]);
//! - *tokens rise with every holder* where a grantor has a memory ([`FencingToken`]), so that a resource that checks
//!   them is safe even when a clock breaks its bound.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use synod_core::{ClockBound, Instant};
//! use synod_lease::{FencedResource, FencingToken, Grantor, Holder};
//!
//! let lease = Duration::from_secs(10);
//! let mut grantor = Grantor::restored(Instant::ZERO, lease, FencingToken(0), None);
//! let mut holder = Holder::new(ClockBound::default());
//!
//! // The holder counts from before the request, the grantor from after it.
//! let request = holder.ask(Instant(0));
//! let grant = grantor.grant(Instant(3_000_000), "worker 1")?;
//! assert!(holder.granted(Instant(7_000_000), request, grant.granted, Some(grant.token)));
//!
//! // A thousandth of drift on either side, and 5 ms: the holder stops before the grantor forgets.
//! let now = Instant(9_000_000_000);
//! assert_eq!(holder.remaining(now).unwrap().as_millis(), 975);
//! let mut resource = FencedResource::new(0);
//! *resource.admit(holder.token(now).unwrap())? += 1;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which lease for what
//!
//! | who remembers | here | token | a crash of the memory |
//! |---|---|---|---|
//! | one grantor | [`Holder`] and [`Grantor`] | yes | silent for one lease, or durable grants |
//! | a majority, in memory | [`paxos_lease`] | none: its ballots are not ordered by grants | silent for one lease |
//! | the same, and a majority on disk for the token | [`FencedLease`] | one durable number for each change of hands | silent for one lease |
//! | a log, and its leader's clock | [`replicated`] | yes: the position in the log | full length again under the next leader |
//!
//! A lease alone is safe only for acts whose effect ends before it does: a process can be stopped between its look at
//! the clock and its act. Everything else needs the token, checked at the resource ([`FencedResource`]).
//!
//! # What the caller writes
//!
//! A clock that counts through the suspension of the machine and is never set (on Linux `CLOCK_BOOTTIME`): a clock that
//! stops while the machine sleeps leaves a holder that wakes up believing. [`paxos_lease`] is a
//! [`Machine`](synod_core::Machine) and is driven as one; the crate `synod-replica` has a host for it.
//!
//! # Invariants
//!
//! | name | what holds | where it is checked |
//! |---|---|---|
//! | LI1 | at most one holder at any moment of real time | `tests/two_clocks.rs`; for PaxosLease the simulator and `tests/restarts.rs` |
//! | LI2 | tokens rise; a resource never takes a smaller one after a larger | `tests/two_clocks.rs`, `fencing.rs` |
//! | LI3 | the holder stops before the grantor forgets | `synod-core`, `lease.rs` |
//! | LI4 | a lease survives the restart of its grantor | `grantor.rs`, the simulator |
//! | LI5 | a renewal never reaches beyond its own request | `holder.rs` |
//!
//! # Sources
//!
//! Gray and Cheriton, *Leases* (SOSP 1989); Trencseni, Gazso and Reinhardt, *PaxosLease: Diskless Paxos for Leases*
//! (2012); where the latter is departed from, and why, stands in [`paxos_lease`].

mod fenced_lease;
mod fencing;
mod grantor;
mod holder;

pub mod epochs;
pub mod paxos_lease;
pub mod replicated;

pub use fenced_lease::{FencedEvent, FencedLease, FencedMessage};
pub use fencing::{FencedResource, FencingToken, StaleToken};
pub use grantor::{Grant, Grantor, Refusal};
pub use holder::{Holder, Request};
