//! TCP between the nodes of a Synod cluster.
//!
//! # What it promises
//!
//! - [`Tcp`] is a [`Transport`](synod_core::Transport) on tokio sockets, of either flavour. It may lose envelopes
//!   and does not repeat them; it never changes one, and never interprets one.
//! - **A send never blocks and never waits.** The envelope is encoded into the buffer of its peer and, if nothing
//!   waits there, written at once. A buffer is bounded in envelopes and in bytes; **the newest envelope is
//!   dropped** when it is full, and what waits is dropped when a connection is lost or an attempt to connect
//!   fails: it would be stale.
//! - **Whoever is at the other end cannot hurt.** The length of a frame is checked before anything is allocated
//!   by it, every frame has a checksum, a connection that breaks a rule is closed and no other suffers. Memory
//!   is bounded for each peer, and so are connections that have not said who they are.
//! - **Payloads are slices of the received frame**, from the socket to the state machine.
//! - Connections are made again by themselves, with a back-off that is random by half, and at once when a peer
//!   calls that could not be reached or that has a new life. One that gives no sign of life is given up.
//! - Dropping or [closing](Tcp::close) it ends every task and frees the port.
//!
//! It is **plaintext**: the id that a caller claims is believed. Use it where the network is trusted.
//!
//! # Example
//!
//! ```
//! use synod_core::memory::{Get, KeyValue, MemoryStorage, Put};
//! use synod_core::{Membership, NodeId};
//! use synod_raft::Raft;
//! use synod_runtime::{Consistency, Node};
//! use synod_transport::Tcp;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // In earnest every node is a process of its own, and the addresses come from its settings.
//!     let mut transports = Vec::new();
//!     for _ in 0..3 {
//!         transports.push(Tcp::bind_plaintext("127.0.0.1:0", []).await?);
//!     }
//!     let addresses = transports.iter().map(|tcp| tcp.local_addr().to_string());
//!     let membership = Membership::of_addresses((1..).zip(addresses))?;
//!     let mut nodes = Vec::new();
//!     for (id, transport) in (1..).zip(transports) {
//!         let node = Node::builder(NodeId(id), Raft::config())
//!             .membership(membership.clone())
//!             .storage(MemoryStorage::new())
//!             .transport(transport)
//!             .state_machine(KeyValue::default())
//!             .start()
//!             .await?;
//!         nodes.push(node);
//!     }
//!     nodes[0].propose(Put { key: "colour".into(), value: "blue".into() }).await?;
//!     let value = nodes[2].read(Get { key: "colour".into() }, Consistency::Linearizable).await?;
//!     assert_eq!(value.as_deref(), Some(&b"blue"[..]));
//!     Ok(())
//! }
//! ```
//!
//! Addresses may stand in the membership, as here, or be given to [`Tcp::bind_plaintext`]; those of the membership win.
//! [`TcpOptions`] has the bounds, [`TcpMonitor`] tells what happened, and `tracing` events tell an operator when
//! connections come and go.
//!
//! # Connections
//!
//! **One for each ordered pair of nodes**: a node sends over the connections that it makes, and receives over those
//! that others make to it. So there is no tie to break when two nodes call each other at once, a node that comes
//! back sends as soon as it is there instead of waiting for the back-off of the other, and a queue, its
//! connection and its reconnects belong to one task. It costs a second socket for each pair.
//!
//! The maker of a connection asks for a sign of life every [`heartbeat`](TcpOptions::heartbeat) and gives the
//! connection up if none comes for [`silence_max`](TcpOptions::silence_max), or if the other end takes nothing of what
//! waits for so long; the other end gives it up after the same silence. This finds half-open connections without
//! help of the operating system. `TCP_NODELAY` is set at both ends.
//!
//! | what | from | to | where it is described |
//! |---|---|---|---|
//! | hello | who dials | who listens | [`handshake`] |
//! | welcome, or refused with a reason | who listens | who dials | [`handshake`] |
//! | frame: an envelope | who dials | who listens | [`frame`] |
//! | frame without a body: a sign of life is asked for | who dials | who listens | [`frame`] |
//! | frame without a body: the sign of life | who listens | who dials | [`frame`] |
//!
//! A caller is refused if it speaks no common version, is of another cluster or group, means another node, is no
//! peer, is an older life of a peer than one heard of before, or would send longer frames than are taken. A newer life
//! takes the place of an older one, and a newer connection that of an older one.
//!
//! # What is kept, and what checks it
//!
//! | rule | checked by |
//! |---|---|
//! | everything that `Transport` promises | `tests/conformance.rs` |
//! | each refusal is told to the caller and counted | `tests/handshake.rs` |
//! | hostile bytes close one connection and hurt no other | `tests/hostile.rs`, the targets of `fuzz/` |
//! | connections come back, in a new life too; half-open ones are found | `tests/reconnect.rs` |
//! | queues are bounded, and drop | `tests/bounds.rs` |
//! | the layout of greetings and frames | golden bytes in `src/handshake.rs` and `src/frame.rs` |
//! | a cluster works over it | `tests/cluster.rs` |

mod accept;
mod dial;
pub mod frame;
mod greet;
pub mod handshake;
mod inbox;
mod metrics;
mod options;
mod outbox;
mod peer;
mod tcp;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use metrics::{Loss, Losses, Refusals, TcpMetrics};
pub use options::TcpOptions;
pub use tcp::{Tcp, TcpError, TcpMonitor};

/// Nothing that is done under these locks panics half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// The example of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
