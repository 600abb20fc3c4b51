//! Deterministic simulation of Synod replicas.

pub mod clock;
pub mod diagram;
pub mod disk;
pub mod fault;
pub mod hash;
pub mod log;
pub mod nemesis;
pub mod network;
pub mod observer;
pub mod options;
pub mod queue;
pub mod raft;
pub mod rare;
pub mod rng;
pub mod run;
pub mod subject;
pub mod sweep;
pub mod trace;
pub mod world;
