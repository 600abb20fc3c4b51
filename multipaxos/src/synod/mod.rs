//! Basic Paxos: processes that agree on one value (Lamport, "Paxos Made Simple", 2001, section 2; section numbers
//! below are that paper's).
//!
//! Three plain types, usable alone: a [`Proposer`] tries to get a value chosen, an [`Acceptor`] votes, a
//! [`Learner`] finds out what was chosen. They keep no queue and no clock; whoever uses them carries the messages.
//!
//! # Phase 1: what may have been chosen?
//!
//! A proposer picks a ballot above all it knows of and asks the acceptors ([`Prepare`]). An acceptor that has
//! promised no higher ballot promises to take part in no lower one from now on, and tells the last vote it cast
//! ([`Promise`]). The promise must be durable before it is told.
//!
//! # Phase 2: have it chosen
//!
//! Once an *election quorum* has promised, the proposer knows: either no value is, or ever will be, chosen in a
//! lower ballot, and it may propose any; or the vote of the highest ballot among the promises is for the only
//! value that can have been, and it must propose that one. It asks for votes ([`Accept`]); an acceptor votes
//! unless it has promised a higher ballot ([`Accepted`], after the vote is durable). A value is *chosen* when a
//! *replication quorum* has voted for it in one ballot. Since every election quorum meets every replication
//! quorum (Howard, Malkhi, Spiegelman 2016, section 4), the proposer of any higher ballot hears of it in phase 1.
//!
//! Two proposers may preempt each other for ever ([`Rejected`] tells each the other's ballot); so a preempted
//! proposer waits a random, growing time. That is for whoever owns the clock.
//!
//! # Example
//!
//! ```
//! use synod_core::{NodeId, QuorumSystem};
//! use synod_multipaxos::synod::{Acceptor, Learner, Proposer};
//!
//! let quorums = QuorumSystem::majority([1, 2, 3].map(NodeId));
//! let mut acceptors: Vec<Acceptor<&str>> = (0..3).map(|_| Acceptor::default()).collect();
//! let mut learner = Learner::new(quorums.clone());
//!
//! // Replica 1 proposes; only it and replica 2 hear the first phase.
//! let mut proposer = Proposer::new(NodeId(1), quorums, acceptors[0].promised());
//! let prepare = proposer.propose("tea").expect("there are ballots left");
//! let mut accept = None;
//! for at in 0..2 {
//!     // Here the promise would be made durable.
//!     let promise = acceptors[at].on_prepare(prepare).expect("nobody promised a higher ballot");
//!     accept = accept.or(proposer.on_promise(NodeId(at as u64 + 1), promise));
//! }
//! let accept = accept.expect("two of three are an election quorum");
//! for at in [0, 2] {
//!     // Here the vote would be made durable.
//!     let accepted = acceptors[at].on_accept(accept.clone()).expect("nobody promised a higher ballot");
//!     learner.on_accepted(NodeId(at as u64 + 1), accepted);
//! }
//! assert_eq!(learner.chosen(), Some(&"tea"));
//! ```

mod acceptor;
mod learner;
mod proposer;

pub use acceptor::{Accept, Accepted, Acceptor, Prepare, Promise, Promised, Rejected, Vote};
pub use learner::Learner;
pub use proposer::Proposer;
