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
//! [`Tcp::bind`] speaks **mutual TLS**, version 1.3 only (feature `tls`, on by default): see [below](#security).
//! [`Tcp::bind_plaintext`] does not: the id that a caller claims is believed there. Use it where the network is
//! trusted.
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
//! # Security
//!
//! With TLS, both ends of a connection show a certificate of an authority that the other was given, and the
//! certificate holds the name of the node **and** the cluster that its owner claims in the handshake: `certificate_name`
//! tells it, a DNS name as `node-3.0000000000000000000000000000002a.synod`. So a stolen certificate is good for one
//! node of one cluster, and two clusters can share an authority. An authority says who somebody is, the membership who
//! is a peer: a node that is taken out of it loses its connections at once, whatever its certificate says.
//!
//! [`Tls::replace`] brings new certificates without a restart: handshakes from then on use them. No session is
//! resumed, so none outlives a certificate that was replaced. Lists of revoked certificates are taken in the same way.
//!
//! Every refusal has a type, is counted at both ends where the other end listens ([`TcpMetrics::refused`],
//! [`TcpMetrics::refused_by_peers`]), and is logged. TLS tells the other end by an alert, which has fewer words: a
//! certificate that is not valid yet is told as an expired one.
//!
//! | bound on whom is not known yet | option |
//! |---|---|
//! | time, that of TLS included | [`handshake_timeout`](TcpOptions::handshake_timeout) |
//! | bytes | [`handshake_bytes_max`](TcpOptions::handshake_bytes_max) for TLS, then one greeting |
//! | connections, overall and of one address: with one more, the oldest is refused | [`handshakes_max`](TcpOptions::handshakes_max), [`handshakes_per_address_max`](TcpOptions::handshakes_per_address_max) |
//!
//! A peer that is known is bounded too: [`TcpOptions::peer_bytes_max`]. It is trusted to follow the protocol: these
//! crates survive crashes, not members that lie.
//!
//! # What is kept, and what checks it
//!
//! | rule | checked by |
//! |---|---|
//! | everything that `Transport` promises | `tests/conformance.rs` |
//! | each refusal is told to the caller and counted | `tests/handshake.rs` |
//! | certificates are judged, and replaced | `tests/tls.rs` |
//! | hostile bytes close one connection and hurt no other | `tests/hostile.rs`, the targets of `fuzz/` |
//! | connections come back, in a new life too; half-open ones are found | `tests/reconnect.rs` |
//! | queues are bounded, and drop | `tests/bounds.rs` |
//! | 10,000 half-open connections and a million frames of garbage neither fill memory nor end service | `examples/siege.rs` prints it |
//! | the layout of greetings and frames | golden bytes in `src/handshake.rs` and `src/frame.rs` |
//! | a cluster works over it | `tests/cluster.rs` |

mod accept;
mod chain;
mod dial;
pub mod frame;
mod greet;
pub mod handshake;
mod inbox;
mod metrics;
mod options;
mod outbox;
mod peer;
mod socket;
mod tcp;
#[cfg(feature = "tls")]
mod tls;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use metrics::{Loss, Losses, Refusals, TcpMetrics};
pub use options::TcpOptions;
pub use tcp::{Tcp, TcpError, TcpMonitor};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError, TlsPem, certificate_name};

/// Nothing that is done under these locks panics half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// The example of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
