//! The tokio runtime of Synod: a replica, its storage and its transport as one [`Node`].
//!
//! # What it promises
//!
//! This crate performs the I/O that the crates below it only ask for, and decides nothing: order is the
//! protocol's business, sessions and forwarding are `synod-replica`'s. What it adds is a task, a timer, a
//! clock and, for storages that block and for snapshots, threads. It promises that
//!
//! - *every call is answered*: by a reply, by an error that hands the command back, or by
//!   [`ProposeError::Unknown`], whatever ends the node (a panic and a runtime that goes away included);
//! - *a cancelled future harms nobody*: calls take effect when they are made, futures only wait;
//! - *an error of the storage or of the state machine stops the node*, and [`NodeStatus::health`] says why;
//! - *both tokio flavours work*, and a handle works from any thread and any executor.
//!
//! # Example
//!
//! ```
//! use synod_core::NodeId;
//! use synod_core::memory::{Get, KeyValue, MemoryNetwork, MemoryStorage, Put};
//! use synod_raft::Raft;
//! use synod_runtime::{Consistency, Node};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let network = MemoryNetwork::new();
//!     let mut nodes = Vec::new();
//!     for id in [1, 2, 3] {
//!         let node = Node::builder(NodeId(id), Raft::config())
//!             .members([1, 2, 3])
//!             .storage(MemoryStorage::new())
//!             .transport(network.attach(NodeId(id)))
//!             .state_machine(KeyValue::default())
//!             .start()
//!             .await?;
//!         nodes.push(node);
//!     }
//!     // It does not matter which node is asked, nor whether there is a leader yet.
//!     nodes[0].propose(Put { key: "colour".into(), value: "blue".into() }).await?;
//!     let value = nodes[2].read(Get { key: "colour".into() }, Consistency::Linearizable).await?;
//!     assert_eq!(value.as_deref(), Some(&b"blue"[..]));
//!     for node in nodes {
//!         node.shutdown().await;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Another protocol is another config in the place of `Raft::config()`, and nothing else.
//!
//! # What you bring
//!
//! | you implement | to |
//! |---|---|
//! | [`synod_core::StateMachine`] | say what commands do |
//! | [`synod_core::Operation`] | propose and read typed values; [`bytes::Bytes`] is one already |
//! | [`synod_core::Storage`], [`synod_core::Transport`] | keep the log elsewhere, reach peers otherwise |
//! | [`synod_core::SnapshotStore`] | keep snapshots elsewhere |
//!
//! # Calls
//!
//! | call | answered when | fails with |
//! |---|---|---|
//! | [`Node::propose`], [`Session::propose`] | the command is applied | [`ProposeError`] |
//! | [`Node::propose_many`] | all are applied; worth it from about 16 commands on | one [`ProposeError`] each |
//! | [`Node::read`] | a quorum has confirmed the leader; its lease holds ([`Consistency::Lease`]); at once ([`Consistency::Local`]) | [`ReadError`] |
//! | [`Node::session`] | the session is replicated | [`SessionError`] |
//! | [`Node::transfer`] | somebody else leads | [`TransferError`] |
//! | [`Node::shutdown`] | the leadership, if it was here, is handed over; open calls are answered, writes durable, threads joined | - |
//! | [`Node::abort`] | everything volatile is dropped: a crash | - |
//!
//! # The loop
//!
//! One task per node waits for calls, envelopes, finished writes and its timer; drains them all; reads the
//! clock once; feeds the replica; flushes it until it has nothing more to do; and carries out what it asks
//! for. A storage that does not block ([`synod_core::Storage::blocking`]) is written inline. For one that
//! does, a thread makes everything that is queued durable with one call, while messages travel and the
//! replica works on.
//!
//! A command is cheapest on a current-thread runtime that node and callers share, where no wake-up crosses
//! threads. On a multi-threaded one the task gives way once before it drains, so that a batch can gather
//! ([`NodeBuilder::gathering`]): it would often wake up for the first command of many.
//!
//! # Snapshots
//!
//! Without a store of snapshots ([`NodeBuilder::snapshots`]) the log grows for ever, and a start applies all of it. With
//! one, the state machine is written down now and then ([`SnapshotConfig`]: by entries, bytes or age), on a thread
//! of its own and while it goes on; the log is cut off behind the older of the two newest snapshots, a start goes on from
//! the newest, and a peer that is too far behind for the log is sent one. A snapshot that fails is logged, counted and
//! tried again, and stops nothing.
//!
//! # Files, in reading order
//!
//! | file | what it holds | invariant |
//! |---|---|---|
//! | `node.rs` | handles, sessions, the futures of calls | the end is told to every caller and watcher |
//! | `builder.rs` | putting a node together | an error leaves nothing running |
//! | `calls.rs` | the inbox, and the slots of answers | every promise is kept, or answered `Lost` |
//! | `waiting.rs` | who waits for which token | a token is answered once |
//! | `driver.rs` | the loop | one clock reading per round, after the inputs |
//! | `journal.rs` | storage inline or on threads | units in order, `persisted` only after `write` |
//! | `archive.rs` | the store of snapshots on a thread | jobs in order, none in the driver |
//! | `clock.rs` | tokio's clock, and a timer that is rarely set | never fires early |
//! | `status.rs`, `metrics.rs`, `error.rs` | what operators and callers see | |
//!
//! # What is not in it
//!
//! Protocols, persistence rules, sessions and forwarding (`synod-replica` and below), sockets and files
//! (`synod-transport`, `synod-wal`), and anything that the simulator should have seen.

mod node;

mod builder;

mod calls;
mod waiting;

mod driver;

mod archive;
mod journal;

mod clock;

mod error;
mod metrics;
mod status;

pub use builder::{NoStateMachine, NodeBuilder};
pub use error::{ProposeError, ReadError, SessionError, StartError, TransferError};
pub use metrics::Metrics;
pub use node::{Node, Proposal, Proposals, Read, Session};
pub use status::{Health, NodeStatus, StopReason};
pub use synod_replica::{Consistency, Order, ReplicaConfig, ReplicaError, SnapshotConfig};

/// The README's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
