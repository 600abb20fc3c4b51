//! Fast Paxos: one test for each claim of Lamport, "Fast Paxos" (2005), by section, and then for the rules that several
//! slots and restarts add.

mod harness;
mod paper;
mod slots;
