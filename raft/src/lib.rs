//! The Raft consensus protocol as a sans-IO state machine.
//!
//! # What it promises
//!
//! [`Raft`] is one replica of a replicated log, after Ongaro and Ousterhout, "In Search of an Understandable
//! Consensus Algorithm" (extended version; "section" and "figure" below mean that paper) and Ongaro's thesis.
//! Replicas that crash and restart, lose everything volatile, and hear each other over a network that loses,
//! repeats and reorders messages never decide two different entries at one index.
//!
//! It performs no I/O and reads no clock: time and a seed are given, and it answers with what to write, what
//! to send and what to tell ([`synod_core::Effects`]). The same inputs give the same effects, to the byte.
//! Elections use randomised timeouts, pre-vote and check-quorum, always; appends are batched and pipelined in
//! a window; reads are confirmed by heartbeat rounds (ReadIndex); no heartbeat waits for a disk.
//!
//! # Example
//!
//! Three replicas in one thread, with a network and disks that are queues:
//!
//! ```
//! use std::collections::VecDeque;
//! use bytes::Bytes;
//! use synod_core::*;
//! use synod_raft::{Message, Raft};
//!
//! struct Node { raft: Raft, effects: Effects<Message, LogEvent>, decided: LogIndex }
//!
//! let membership = Membership::of_ids([1, 2, 3])?;
//! let mut nodes: Vec<Node> = Vec::new();
//! for id in 1..=3 {
//!     let (node, membership, config) = (NodeId(id), membership.clone(), Raft::config());
//!     let recovered = Recovered::default(); // what the storage gave back
//!     let raft = Raft::open(Start { node, membership, config, recovered, now: Instant(0), seed: 7 })?;
//!     nodes.push(Node { raft, effects: Effects::new(), decided: LogIndex(0) });
//! }
//!
//! // Replica 1 is the first to hear nobody.
//! let now = nodes[0].raft.next_deadline().expect("a follower waits for a leader");
//! let mut inbox: VecDeque<(usize, Input<Message, LogCall>)> = VecDeque::from([(0, Input::Tick)]);
//! let command = Command { kind: Kind::Command, request: RequestId::NONE, payload: Bytes::from_static(b"x") };
//! let mut proposal = Some(Input::Call(LogCall::Propose(vec![command])));
//!
//! loop {
//!     while let Some((at, input)) = inbox.pop_front() {
//!         let Node { raft, effects, decided } = &mut nodes[at];
//!         raft.step(now, input, effects); // any number of steps,
//!         raft.flush(now, effects); // one flush,
//!         let unit = effects.settle(); // one write.
//!         for event in effects.drain_events() {
//!             if let LogEvent::Decided(index) = event {
//!                 *decided = index; // entries through here go to the state machine
//!             }
//!         }
//!         // This disk is quick: the unit is durable here, so whatever was held on it may leave.
//!         for send in effects.drain_sends() {
//!             let from = NodeId(at as u64 + 1);
//!             inbox.push_back((send.to.0 as usize - 1, Input::Receive { from, message: send.message }));
//!         }
//!         if let Some(unit) = unit {
//!             inbox.push_back((at, Input::Persisted(unit.id)));
//!         }
//!     }
//!     match proposal.take() {
//!         Some(propose) => inbox.push_back((0, propose)),
//!         None => break,
//!     }
//! }
//! assert_eq!(nodes[0].raft.status().role, Role::Leader);
//! assert_eq!(nodes[0].decided, LogIndex(2)); // the no-op of the term, and the command
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The loop a host writes
//!
//! As above, with a real disk: issue the write, send at once what waits for nothing, keep what names a write in
//! [`synod_core::Send::after`] until that write is durable, then give [`synod_core::Input::Persisted`]. Give
//! [`synod_core::Input::Tick`] when [`synod_core::Machine::next_deadline`] is due. Answer loads. The crate
//! `synod-replica` is such a host.
//!
//! # Messages
//!
//! | message | from, to | meaning | source |
//! |---|---|---|---|
//! | [`PreVote`] | pre-candidate, voters | would you vote for me in the next term? | thesis 9.6 |
//! | [`PreVoteReply`] | voter, pre-candidate | yes or no; its term, if the asker fell behind | thesis 9.6 |
//! | [`Vote`] | candidate, voters | vote for me; after the own vote is durable | 5.2, RequestVote |
//! | [`VoteReply`] | voter, candidate | after its vote is durable | 5.2, RequestVote |
//! | [`Append`] | leader, peer | entries after `prev`, and what is decided | 5.3, AppendEntries |
//! | [`Appended`] | follower, leader | matches through here, durably | 5.3, AppendEntries |
//! | [`AppendRejected`] | follower, leader | no such `prev` here; where to try | 5.3 |
//! | [`Heartbeat`] | leader, peer | I lead; what is decided; a round to answer | 5.2, 8 |
//! | [`HeartbeatReply`] | follower, leader | you led when this round arrived | 8, thesis 6.4 |
//! | [`CommitNotice`] | leader, peer | what is decided, when no append tells it | 5.3 |
//! | [`NewerTerm`] | anybody, stale leader | your term is over | 5.1 |
//! | [`TimeoutNow`] | leader, its successor | campaign at once | thesis 3.10 |
//!
//! What reveals a vote waits for the write of the vote, what acknowledges entries waits for their write, and
//! everything else waits for the write of the term, if that is still on its way. `AppendRejected` reveals
//! entries that may not be durable; it promises nothing about them.
//!
//! # Invariants, and where each is kept
//!
//! | invariant | kept in | checked in |
//! |---|---|---|
//! | Election Safety: at most one leader in a term | `election.rs` (votes), `raft.rs` (hard state, assertion) | `tests/paper.rs`, `tests/durability.rs`, harness |
//! | Leader Append-Only; Leader Completeness: a decided entry is never removed | `replication.rs` (assertions) | `tests/paper.rs`, `tests/hostile.rs` |
//! | Log Matching: no holes, one entry for each index and term | `log.rs` (assertion), `replication.rs` | `tests/paper.rs`, unit tests of `log.rs` |
//! | State Machine Safety: one decision at an index | `replication.rs` (commit rule) | harness, `tests/random.rs` |
//! | Only what is durable counts; an old write proves no newer entry | [`Durability`](synod_core::Durability) of the core | `tests/durability.rs` and its unit tests |
//! | Persist before reveal | `raft.rs` (`send_with`) | harness, at every message of every test |
//! | What is matched never falls | `progress.rs` | its unit tests, `tests/flow.rs` |
//! | A read index is confirmed by a round sent after the read came | `read.rs` | `tests/paper.rs`, `tests/flow.rs`, `tests/random.rs` |
//! | A wrong message is counted and dropped | `raft.rs`, `replication.rs` | `tests/hostile.rs` |
//!
//! # What is defended, and what is not
//!
//! The fault model is that of the paper: replicas crash, disks lose what was not durable, networks do what they
//! like, and *members follow the protocol*. A message that no correct member would send is counted and dropped and
//! never makes a replica panic, lose what is decided or allocate without bound ([`Counters`], `tests/hostile.rs`).
//! Safety and progress against a member that lies are not promised. In particular, terms are believed: a member
//! may claim any term up to [`Term::MAX`], everybody moves there, and at [`Term::MAX`] nobody campaigns any more.
//! A limit on how far a term may jump would not help: the member could jump again, and honest members on both
//! sides of the limit would refuse each other for ever. Keeping strangers out is the transport's part.
//!
//! # Departures from the paper
//!
//! - *Heartbeats are messages of their own*, not empty appends, so that they wait for no disk: a leader whose
//!   followers' disks are slow still knows that it leads. In return a leader whose own disk confirms nothing
//!   for an election timeout steps down.
//! - *Pre-vote and check-quorum* (thesis 9.6, 6.2) cannot be switched off. Who hears a leader ignores requests
//!   for votes and their terms; to lock nobody out, a leader of an earlier term is answered with [`NewerTerm`]
//!   and a denied pre-vote carries the denier's term. A leader checks for a *replication* quorum, with which
//!   nobody else can be elected and without which it decides nothing, and a pre-candidate campaigns only with the
//!   support of both quorums: otherwise replicas that can elect and not decide would elect for ever. With
//!   majorities all of them are the same.
//! - *A rejection's hint* is the follower's last entry at or below the one asked for whose term is not above
//!   it, and the leader skips likewise. Section 5.3 offers the first index of the conflicting term, which jumps
//!   over the follower's terms only; this one jumps over terms on both sides.
//! - *The candidate's own vote is required*, and counts once durable: a replica whose disk cannot write a
//!   vote should not lead.
//! - *A vote request is not repeated* within an election: the next election asks again.
//! - *Leadership transfer* (thesis 3.10) repeats its [`TimeoutNow`] with every heartbeat, and the successor's [`Vote`] says
//!   why it comes, so that those who hear the leader answer it. After one election timeout the leader goes on, but
//!   without a lease: it gives that up before the message leaves, for the rest of its term.
//! - *Quorums* come from the membership. Two election quorums must meet, or a term could have two leaders;
//!   [`Raft`] refuses to open otherwise.
//! - *Lease reads* (thesis 6.4.1) rest on promises that are said, not on the belief in a leader alone: who hears a leader
//!   answers a heartbeat with how long it will vote for nobody, in no term, and is silent for as long after a
//!   restart. The leader counts from before it asked, less what the bound on clocks takes off. Off by default
//!   ([`RaftConfig::lease_reads`]).
//! - *Snapshots* (section 7) are the host's: it takes them, and carries them to a peer that needs compacted entries
//!   ([`LogEvent::SendSnapshot`](synod_core::LogEvent::SendSnapshot)). The peer's replica decides what one replaces.
//!   Meanwhile the peer hears heartbeats; if no snapshot arrives, it is tried again once per election timeout.
//!
//! # Not here yet
//!
//! - *Membership change*: the membership is that of [`synod_core::Start`]. It will follow the log's end:
//!   taken over where entries are appended, given back where they are truncated. Votes, commits and rounds
//!   are counted by its [`synod_core::QuorumSystem`] already.
//!
//! # Features
//!
//! None.

mod config;
mod message;

mod codec;
mod counters;

mod log;
mod progress;

mod election;
mod read;
mod replication;
mod snapshot;
mod transfer;

mod raft;

pub use codec::HardState;
pub use config::RaftConfig;
pub use counters::{Counters, Rejection};
pub use message::{
    Append, AppendRejected, Appended, CommitNotice, Heartbeat, HeartbeatReply, Message, NewerTerm, Position,
    PreVote, PreVoteReply, Round, Term, TimeoutNow, Vote, VoteReply,
};
pub use raft::Raft;
