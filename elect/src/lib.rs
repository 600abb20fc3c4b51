//! Elections that end by themselves.
//!
//! # What it promises
//!
//! A candidate leads until its lease ends, and renews the lease by itself. At most one candidate of a name leads at any
//! moment, as long as clocks keep to a stated bound; and every leader's token is higher than that of every leader before,
//! whatever clocks do.
//!
//! # Example
//!
//! ```no_run
//! # async fn example(election: &dyn synod_elect::Election) -> Result<(), synod_elect::ElectionError> {
//! loop {
//!     let leadership = election.campaign().await?;
//!     tokio::select! {
//!         () = leadership.lost() => {}
//!         () = lead(leadership.token()) => return election.resign().await,
//!     }
//! }
//! # }
//! # async fn lead(token: Option<synod_lease::FencingToken>) {}
//! ```
//!
//! # Elections behind one trait
//!
//! | election | who remembers the leader | token | needs |
//! |---|---|---|---|
//! | [`PaxosLeaseElection`] | a majority of the candidates' nodes, in memory | one durable number for each change of hands | a storage and a transport |
//! | [`ReplicatedElection`] | a table on a log protocol, and the clock of its leader | the position in the log | a [`Node`](synod_runtime::Node) |
//! | `EtcdElection` (feature `etcd`) | etcd | the revision of the key | an etcd cluster |
//! | `ZooKeeperElection` (feature `zookeeper`) | ZooKeeper | the zxid of the node | a ZooKeeper cluster |
//!
//! # A lease is not enough
//!
//! [`Leadership::remaining`] says how long the leader may still act. Between that look at the clock and the act the
//! process can be stopped (by SIGSTOP, a debugger, a paging disk), and go on when somebody else leads. What must not
//! happen then is refused by the resource, which remembers the highest token it has seen
//! ([`synod_lease::FencedResource`]).
//!
//! # Files
//!
//! | file | what it holds |
//! |---|---|
//! | `election.rs` | the trait, and what a candidate gets |
//! | `seat.rs` | between a candidate's task and whoever waits for it |
//! | `paxos_lease.rs`, `replicated.rs` | one task each |
//! | `queued/` | one task for queues that other servers keep: `etcd.rs`, `zookeeper.rs` |
//! | `clock.rs` | a clock that counts through suspension |
//! | `error.rs` | why a candidate cannot go on |
//! | `bin/elect/` | the binary `elect` |
//!
//! The rules are those of `synod-lease`; there are none here.

mod clock;
mod election;
mod error;
mod paxos_lease;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
mod queued;
mod replicated;
mod seat;

pub use clock::{now, sleep_until};
pub use election::{Election, Leader, Leadership};
pub use error::ElectionError;
pub use paxos_lease::{PaxosLeaseElection, PaxosLeaseMember};
#[cfg(feature = "etcd")]
pub use queued::EtcdElection;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
pub use queued::QueuedCandidate;
#[cfg(feature = "zookeeper")]
pub use queued::ZooKeeperElection;
pub use replicated::{ReplicatedCandidate, ReplicatedElection};
