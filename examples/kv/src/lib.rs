//! A key-value store on a log in every node, as a process: the pieces of the `kv` binary.
//!
//! - [`node`]: one node put together from a protocol, a write-ahead log, TCP and a state machine.
//! - [`door`]: where the node answers clients.
//! - [`client`]: the other end.
//! - [`wire`]: what the two say to each other.
//! - [`certificates`]: what nodes prove themselves with while a cluster is tried out.

pub mod certificates;
pub mod client;
pub mod door;
pub mod node;
pub mod wire;
