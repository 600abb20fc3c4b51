//! A sans-IO replica: one protocol, its log, its clients and its state machine, bound together.
//!
//! # What it promises
//!
//! This crate performs no I/O, reads no clock and knows no protocol. [`Replica`] is generic over
//! [`synod_core::Protocol`] and decides nothing about order; it makes sure that
//!
//! - *nothing is revealed before it is durable*: messages that name a write wait for it ([`Host`]);
//! - *a command is applied once*, however often it was proposed, forwarded, retried or decided;
//! - *a proposal is never silently lost*: a reply, a typed refusal that hands the command back, or
//!   "outcome unknown";
//! - *a restarted node is a new life*: envelopes from and to older lives are dropped.
//!
//! The same code runs under the tokio shell of `synod-runtime` and in the deterministic simulator.
//!
//! # The loop a shell writes
//!
//! Feed it inputs as they come ([`Replica::receive`], [`Replica::persisted`], [`Replica::loaded`],
//! [`Replica::call`], [`Replica::tick`]), any number of them, then [`Replica::flush`] once, and carry out
//! the [`Actions`]: hand the writes to the storage, send the envelopes, start the loads, let a [`SnapshotKeeper`] do
//! the jobs ([`Replica::snapshot_done`]). Flush again while [`Replica::has_work`]; tick at
//! [`Replica::next_deadline`].
//!
//! # Files, in reading order
//!
//! | file | what it holds |
//! |---|---|
//! | `call.rs` | what a shell asks and is told |
//! | `replica.rs` | the way of a command: propose, decide, apply, reply |
//! | `host.rs` | persistence rules, held messages, loads and envelopes for *any* machine |
//! | `tail.rs` | the write-through tail: a load observes every write in flight |
//! | `snapshots/` | when a snapshot is taken, how one travels, what is done with a store of them |
//! | `sessions.rs` | the replicated session table: exactly once |
//! | `clients.rs` | this replica's own sessions: numbers, windows, retries, deadlines |
//! | `reads.rs` | reads on their way |
//! | `transfer.rs` | a leadership that is to be handed over, until it is known what became of it |
//! | `service.rs` | the host of a state machine that does something of its own accord |
//! | `cut.rs` | what is handed on and answered, in packets of a bounded size |
//!
//! # Sessions
//!
//! A session is opened by an entry; that entry's index is the client id. A command carries (client,
//! sequence, first incomplete). When it is applied:
//!
//! | the entry | what happens |
//! |---|---|
//! | below the session's first incomplete | nothing |
//! | applied before | the stored reply again |
//! | of a session that is gone | not applied; `SessionExpired`, outcome unknown |
//! | beyond the window | not applied, nothing changes, may be decided again |
//! | early in an ordered session | not applied, nothing changes, may be decided again |
//! | otherwise | applied; the reply is stored until the client has settled it |
//!
//! # Snapshots
//!
//! With a store, a snapshot of state machine and session table is taken after so many entries or bytes, or after a while
//! ([`SnapshotConfig`]); it is written down elsewhere while commands are applied, and never before the log through it is
//! on this replica's own disk. The two newest are kept, and the log from the older one on. A peer that needs what is no
//! longer in the log is sent the newest, one summed piece after the other; it stages them, compares the whole with its
//! sum, asks its protocol, and takes the state over. What fails is counted and tried again later, and stops nothing.
//!
//! The one call that may take long is [`StateMachine::restore`](synod_core::StateMachine::restore), at a start and when a
//! snapshot was received: nothing else goes on at this replica meanwhile.
//!
//! # What is bounded
//!
//! | what | by | beyond it |
//! |---|---|---|
//! | open proposals, their bytes, the largest | [`ReplicaConfig`] `queue_*`, `command_bytes_max` | refused, the command handed back |
//! | open reads and their bytes | [`ReplicaConfig`] `queue_*` | refused |
//! | barriers that no protocol has answered | 256 | reads wait under the next one |
//! | sessions being opened; sessions in use here | [`ReplicaConfig`] `queue_entries_max`; 65,536 | refused |
//! | messages to one peer that wait for writes | [`ReplicaConfig`] `held_messages_max` | dropped and counted |
//! | a packet that is handed on or answered | [`ReplicaConfig`] `batch_bytes_max` | cut into several, down to one item |
//! | a query | [`ReplicaConfig`] `command_bytes_max` | refused |
//! | a reply or an answer to another replica | [`ReplicaConfig::packet_bytes_max`] | it says that it is too long |
//! | the log | what is applied between three snapshots: [`SnapshotConfig`] | compacted |
//! | snapshots kept; received at a time; pieces on their way to one peer | 2; 1; 1 | deleted; refused; one after the other |
//! | durable entries kept at hand | [`ReplicaConfig`] `tail_bytes_max` | read back from the storage |
//! | sessions, and unsettled commands of each | [`synod_core::SessionLimits`], the same on all replicas | the least recent ends; not applied |
//! | bytes of stored replies | the two above times the largest reply; [`ReplicaStatus::session_reply_bytes`] tells | `sessions.rs` says why |
//!
//! # What is not in it
//!
//! Protocol decisions (they are the protocol's), tasks, sockets, files and clocks (`synod-runtime`).

mod call;
mod replica;

mod host;
mod tail;

mod clients;
mod cut;
mod fixed_map;
mod reads;
mod routes;
mod service;
mod sessions;
mod snapshots;
mod transfer;

pub use call::{
    Actions, ClientCall, Consistency, Order, ProposeError, QueryError, ReplicaError, ReplicaEvent,
    SessionKey, Token, TransferError,
};
pub use host::{Host, HostCounters, Probe};
pub use replica::{Counters, Replica, ReplicaConfig, ReplicaStatus};
pub use snapshots::{
    KeptSnapshots, SnapshotConfig, SnapshotCounters, SnapshotDone, SnapshotJob, SnapshotKeeper,
};
