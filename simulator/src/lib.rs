//! Deterministic simulation of Synod clusters: the protocols and the replica that ship, in virtual time, with
//! faults, every invariant checked after every event.
//!
//! # What it promises
//!
//! One `u64` seed decides everything: which faults there are, how network, disks, clocks and clients behave, and
//! every choice after that. The same seed gives the same run and the same [trace hash](world::Outcome::hash) on
//! every machine, in debug and in release. Nothing here performs I/O but the binary that reports. Nothing that is
//! shipped depends on this crate.
//!
//! ```
//! use synod_simulator::run::{Level, Simulated};
//!
//! let raft = Simulated::named("raft").expect("raft is simulated");
//! let run = raft.run(Level::Replica, 1, 3, false);
//! assert!(run.outcome.violation.is_none());
//! assert_eq!(run.outcome.hash, raft.run(Level::Replica, 1, 3, false).outcome.hash);
//! ```
//!
//! # How to read a failure
//!
//! The binary `simulate` prints the seed, the step, the invariant, what was seen, and a command. That command
//! replays the seed: its options, then one line a thing, or with `--html FILE` a space-time diagram that opens at
//! the violation. The table of invariants is in [`observer`]; the crate's README explains the other words.
//!
//! # Files, in reading order
//!
//! | file | what it holds |
//! |---|---|
//! | [`options`] | what is drawn for a seed |
//! | [`world`] | the loop: events, lives, flushes and what they ask for, phases |
//! | [`nemesis`], [`fault`] | what goes wrong, and how often it did |
//! | [`network`], [`clock`], [`queue`], [`rng`] | the surroundings of a node |
//! | [`disk`], [`model`], [`sim_disk`] | its storage: the model, and beside it in some seeds the log engine on a device |
//! | [`subject`] | what the world must know of what it runs |
//! | [`log`] | clusters that order one log: bare, or under the full replica with clients |
//! | [`raft`], [`multipaxos`], [`mod@zab`] | the adapters of protocols |
//! | [`basicpaxos`] | proposer, acceptor and learner of single decrees |
//! | [`scribe`] | a machine that orders nothing and tests what a host owes any machine |
//! | [`holders`] | who holds a lease at any moment, and the register that holders change |
//! | [`lease`] | PaxosLease under drifting clocks |
//! | [`elections`] | Bully and heartbeats, which fail, and Bully inside the epoch of a quorum |
//! | [`wal`] | the log engine alone, crashed and damaged without end |
//! | [`observer`] | the ghost that sees every step, and the invariants |
//! | [`rare`] | paths that a sweep must have taken |
//! | [`run`], [`sweep`] | one seed; many, on all cores |
//! | [`delays`] | what one command costs without faults: message delays, messages, bytes, durable writes |
//! | [`failover`] | how long each phase of a fail-over takes |
//! | [`trace`], [`diagram`] | a run for people to look at |
//!
//! # How to add a protocol
//!
//! Implement [`log::LogAdapter`] in one file, as [`raft`] does, and add one line to [`run::SIMULATED`] and one
//! to [`delays::CONTENDERS`]. Nothing else names a protocol. A protocol with one leader a term implements [`observer::terms::Terms`] and shares the
//! ledger behind it; one whose votes are per slot implements [`observer::ballots::Ballots`]; a machine without a
//! log implements [`subject::Subject`].
//!
//! # How to plant a bug
//!
//! Write a file as `plants/README.md` describes and run `plants/run NAME`. The simulator must find it by an
//! invariant that the file names, with the options of every sweep.

pub mod run;
pub mod sweep;

pub mod delays;
pub mod failover;

pub mod options;
pub mod world;

pub mod fault;
pub mod nemesis;

pub mod clock;
pub mod disk;
pub mod model;
pub mod network;
pub mod queue;
pub mod rng;
pub mod shelf;
mod siege;
pub mod sim_disk;

pub mod basicpaxos;
pub mod elections;
pub mod fastpaxos;
pub mod holders;
pub mod lease;
pub mod log;
pub mod multipaxos;
pub mod raft;
pub mod scribe;
pub mod subject;
pub mod wal;
pub mod zab;

pub mod hash;
pub mod observer;
pub mod rare;

pub mod diagram;
pub mod trace;
