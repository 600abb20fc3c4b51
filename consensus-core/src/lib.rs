//! The shared core of the Synod consensus crates: vocabulary, quorum systems and the traits that every
//! protocol, storage, transport and state machine stands behind.
//!
//! # What it promises
//!
//! This crate decides nothing and performs no I/O. It fixes *what a protocol is* ([`Machine`],
//! [`Protocol`]), *what a protocol may ask for* ([`Effects`]) and *what its surroundings owe it*
//! ([`Storage`], [`Transport`], [`StateMachine`]), so that a difference between two protocols is a
//! difference between two protocols. In-memory implementations live in [`memory`], test suites for
//! people who write their own in `conformance` (feature `conformance`).
//!
//! # The loop a host writes
//!
//! A [`Machine`] is a deterministic state machine without clock, socket, disk or thread. Its host calls
//! [`Machine::step`] once per input, then [`Machine::flush`] once, and then drains the [`Effects`]:
//! first the write unit, then the messages. A message that reveals a durable fact names the write it
//! waits for and leaves only after that write is durable. The crate `synod-replica` is such a host.
//!
//! ```
//! use bytes::Bytes;
//! use synod_core::{ClientId, Command, Effects, Kind, RequestId, Sequence};
//!
//! // A message held on a write that turns out empty waits for the previous write instead.
//! let mut effects: Effects<&str, ()> = Effects::new();
//! effects.set_hard_state(Bytes::from_static(b"term 7"));
//! effects.send_after_write(synod_core::NodeId(2), "vote granted");
//! let unit = effects.settle().expect("the unit holds a hard state");
//! assert_eq!(effects.sends()[0].after, Some(unit.id));
//! # let _ = Command { kind: Kind::Command, request: RequestId { client: ClientId(1), sequence: Sequence(1), first_incomplete: Sequence(1) }, payload: Bytes::new() };
//! ```
//!
//! # Rules every implementation keeps
//!
//! 1. *Persist before you reveal.* See [`Send::after`].
//! 2. *Storage is a sparse map* from index to entry, not a list. See [`Storage`].
//! 3. *No safety argument rests on message order.* See [`Transport`].
//! 4. *A restarted node is a new [`Incarnation`]*; envelopes from or to an older one are dropped.
//!
//! # Features
//!
//! - `memory` (default): [`memory`].
//! - `conformance`: test suites for storages and transports.

mod id;
mod leader_lease;
mod lease;
mod time;

mod entry;
mod sparse_log;

mod membership;
mod quorum;

mod durability;
mod effects;
mod machine;
mod protocol;
mod recovered;

mod service;
mod snapshot;
mod state_machine;
mod storage;
mod transport;
mod wire;

#[cfg(feature = "memory")]
pub mod memory;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use durability::Durability;
pub use effects::{Effects, Load, Send, Write};
pub use entry::{Command, Entries, Entry, IndexRange, Kind, NotContiguous, RequestId};
pub use id::{
    ClientId, ClusterId, GroupId, Incarnation, LoadId, LogIndex, NodeId, ReadId, Reign, Sequence, Stamp,
    WriteId,
};
pub use leader_lease::{LeaderLease, LeasePromise};
pub use lease::ClockBound;
pub use machine::{ConfigError, Input, Machine, OpenError, Start};
pub use membership::{Member, Membership, MembershipError, SessionLimits};
pub use protocol::{
    Described, LogCall, LogEvent, MESSAGE_OVERHEAD, Protocol, ProtocolConfig, ReadMode, Refusal, Role, Route,
    SnapshotOutcome, Status, TransferRefusal, entries_message_bytes_max,
};
pub use quorum::{NodeSet, QuorumError, QuorumSystem};
pub use recovered::{Identity, Recovered, Run};
pub use service::Service;
pub use snapshot::{
    SnapshotAck, SnapshotChunk, SnapshotContents, SnapshotError, SnapshotHead, SnapshotId, SnapshotMeta,
    SnapshotProgress, SnapshotReader, SnapshotSource, SnapshotStore, SnapshotWriter,
};
pub use sparse_log::SparseLog;
pub use state_machine::{Applied, Decode, Encode, Operation, Outputs, StateMachine, StateMachineError};
pub use storage::{Compacted, Loaded, LogReader, ReadError, Storage, StorageError};
pub use time::Instant;
pub use transport::{
    Closed, Envelope, Forward, ForwardReply, ForwardedQuery, Inbound, Packet, Peer, QueryOutcome,
    RequestOutcome, Transport,
};
pub use wire::{DecodeError, Wire, WireReader};
