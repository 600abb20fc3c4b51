//! Paxos as sans-IO state machines: Basic Paxos ([`synod`]), Multi-Paxos ([`MultiPaxos`]) with majorities or with
//! flexible quorums, and Fast Paxos ([`FastPaxos`]).
//!
//! # What it promises
//!
//! [`MultiPaxos`] is one replica of a replicated log, after Lamport, "Paxos Made Simple" (2001; "section" below means
//! that paper), and "Flexible Paxos" (Howard, Malkhi, Spiegelman 2016). Replicas that crash and restart, lose
//! everything volatile, and hear each other over a network that loses, repeats and reorders messages never decide two
//! different entries in one slot. While a replication quorum and an election quorum hear each other, something is
//! decided, whatever links between the others are cut for ever.
//!
//! It performs no I/O and reads no clock: time and a seed are given, and it answers with what to write, what to send
//! and what to tell ([`synod_core::Effects`]). The same inputs give the same effects, to the byte.
//!
//! # Example
//!
//! Three replicas in one thread, with a network and disks that are queues:
//!
//! ```
//! use std::collections::VecDeque;
//! use bytes::Bytes;
//! use synod_core::*;
//! use synod_multipaxos::{Message, MultiPaxos};
//!
//! struct Node { paxos: MultiPaxos, effects: Effects<Message, LogEvent>, decided: LogIndex }
//!
//! let membership = Membership::of_ids([1, 2, 3])?;
//! let mut nodes: Vec<Node> = Vec::new();
//! for id in 1..=3 {
//!     let (node, membership, config) = (NodeId(id), membership.clone(), MultiPaxos::config());
//!     let recovered = Recovered::default(); // what the storage gave back
//!     let paxos = MultiPaxos::open(Start { node, membership, config, recovered, now: Instant(0), seed: 7 })?;
//!     nodes.push(Node { paxos, effects: Effects::new(), decided: LogIndex(0) });
//! }
//!
//! // Replica 1 is the first to hear nobody.
//! let now = nodes[0].paxos.next_deadline().expect("a follower waits for a leader");
//! let mut inbox: VecDeque<(usize, Input<Message, LogCall>)> = VecDeque::from([(0, Input::Tick)]);
//! let command = Command { kind: Kind::Command, request: RequestId::NONE, payload: Bytes::from_static(b"x") };
//! let mut proposal = Some(Input::Call(LogCall::Propose(vec![command])));
//!
//! loop {
//!     while let Some((at, input)) = inbox.pop_front() {
//!         let Node { paxos, effects, decided } = &mut nodes[at];
//!         paxos.step(now, input, effects); // any number of steps,
//!         paxos.flush(now, effects); // one flush,
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
//! assert_eq!(nodes[0].paxos.status().role, Role::Leader);
//! assert_eq!(nodes[0].decided, LogIndex(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The loop a host writes
//!
//! As above, with a real disk: issue the write, send at once what waits for nothing, keep what names a write in
//! [`synod_core::Send::after`] until that write is durable, then give [`synod_core::Input::Persisted`]. Give
//! [`synod_core::Input::Tick`] when [`synod_core::Machine::next_deadline`] is due. Answer loads, with every write asked
//! for before in the answer, durable or not. The crate `synod-replica` is such a host.
//!
//! # How a command, an election and a restart go
//!
//! - *A command* takes the leader's next slot. The leader votes for it and asks its peers to ([`Accept`]), at once; a
//!   slot is decided when a replication quorum has durably voted for it in the leader's ballot. The watermark travels
//!   with the next accept.
//! - *An election*: who hears no leader asks who would promise ([`Canvass`]), and campaigns if both kinds of quorum
//!   would. Its own promise is durable before anybody sees the ballot ([`Prepare`], for every slot at once). A
//!   [`Promise`] tells the acceptor's watermark and its votes above that, in chunks; it counts when it is complete. The
//!   candidate learns what is decided through the highest watermark told, proposes nothing at or below it, and above
//!   it, in one burst, the value of the highest ballot told for each slot, with no-ops in holes.
//! - *A restart* finds promise, votes and a watermark that may lag. What was decided since is told by the leader where
//!   the votes are of its ballot, and learned ([`Learn`]) from any replica that knows where they are not.
//!
//! # Flexible quorums
//!
//! Only election and replication quorums must meet, not two of a kind. [`synod_core::QuorumSystem::Counted`] and
//! [`synod_core::QuorumSystem::Weighted`] say which are which; [`synod_core::Membership::new`] refuses a system whose
//! quorums do not meet and names two of them.
//!
//! # Fast Paxos
//!
//! [`FastPaxos`] is a [`MultiPaxos`] replica whose ballots have *fast rounds* (Lamport, "Fast Paxos", 2005). Elections,
//! promises, catch-up and everything that a leader orders alone are the same code.
//!
//! - *Opening.* A leader that has had decided what it had to propose again, and hears a fast quorum, tells everybody that
//!   every slot from some slot on is open ([`Any`]). From then on each replica proposes by itself ([`Suggest`]), in the slot
//!   that it believes free; an acceptor votes for the first value that it hears of in a slot and tells every replica
//!   ([`Voted`]). A fast quorum of equal votes decides: two message delays, from any replica. Who loses a slot proposes again
//!   in a later one; sessions make sure that a command decided twice is applied once.
//! - *Collisions.* Each ballot has two rounds in a slot: the fast one, then a classic one. Where no value can reach a fast
//!   quorum any more, or votes do not come, the leader takes the votes of an election quorum for promises of the classic
//!   round and proposes there what [`pick`] says ([`Resolve`]): two delays more. Other slots go on. Where fewer votes are
//!   known, it has the value with most of them suggested to everybody else, and a no-op where there is none: whoever has
//!   voted tells its vote instead. So no promise for one slot without a vote is ever needed, and none is written.
//! - *Falling back.* A leader begins another ballot, and does not open it, when it does not hear a fast quorum, or when of a
//!   window of slots too many took the slow path; after a pause, longer each time, it opens again
//!   ([`FastPaxosConfig::fall_back_percent`]).
//! - *Reads* are answered by the leader, which waits for every slot that anybody of an election quorum had voted in when it
//!   was asked: others decide without it.
//!
//! Fast quorums follow from the election quorums ([`synod_core::QuorumSystem::is_fast_quorum`]): three of 3 or 4 replicas, four of
//! 5, six of 7. **Three replicas have no fault tolerance on the fast path.** [`synod_core::QuorumSystem::fast`] takes other
//! sizes, and refuses those that do not meet.
//!
//! # Messages
//!
//! | message | from, to | meaning | source |
//! |---|---|---|---|
//! | [`Canvass`] | who hears no leader, acceptors | would you promise this ballot? | - |
//! | [`CanvassReply`] | acceptor, asker | yes or no; promises nothing | - |
//! | [`Prepare`] | candidate, acceptors | phase 1a for all slots; after its own promise is durable | 2.2 |
//! | [`Promise`] | acceptor, candidate | phase 1b: watermark and votes; after the promise is durable | 2.2 |
//! | [`Accept`] | leader, peer | phase 2a for consecutive slots, and what is decided | 2.2, 3 |
//! | [`Accepted`] | acceptor, leader (or all) | phase 2b: voted through here; after the votes are durable | 2.2, 2.3 |
//! | [`Rejected`] | acceptor, anybody | there is a higher ballot | 2.4 |
//! | [`Heartbeat`] | leader, peer | I lead; what is decided; a round to answer | 3 |
//! | [`HeartbeatReply`] | follower, leader | no higher ballot was promised when this round came | - |
//! | [`CommitNotice`] | leader, peer | what is decided, when no accept tells it | 2.3 |
//! | [`Learn`] | who is behind, anybody | which values were chosen from here on? | 2.3 |
//! | [`Chosen`] | who knows, asker | these; or: not here | 2.3 |
//! | [`Succeed`] | leader, its successor | campaign now | - |
//!
//! Fast Paxos alone:
//!
//! | message | from, to | meaning | source |
//! |---|---|---|---|
//! | [`Any`] | leader, peer | I lead; slots from here on are open; a round to answer | 3.1 |
//! | [`Standing`] | follower, leader | no higher ballot was promised when this round came, and no later slot voted in | - |
//! | [`Suggest`] | proposer, acceptors | vote for these in fast rounds | 3.1 |
//! | [`Voted`] | acceptor, everybody | phase 2b; after the votes are durable | 3.1 |
//! | [`Resolve`] | leader, acceptors | phase 2a of classic rounds, after collisions | 3.2 |
//!
//! # Invariants, and where each is kept
//!
//! The names are those of the simulator's observer, which works them out from durable votes.
//!
//! | invariant | kept in | checked in |
//! |---|---|---|
//! | M1 at most one value is chosen in a slot | all of it | simulator, harness of the tests |
//! | M2 once chosen, every higher ballot proposes that value | `election.rs` (`gather`, `choose_values`) | simulator, `tests/paper.rs` |
//! | M3 no vote below a promise, across restarts | `synod/acceptor.rs` (`Promised`), `acceptor.rs` (assertion) | simulator, `tests/paper.rs` |
//! | M4 one value for each ballot and slot | `leader.rs`, `proposals.rs` (assertion) | simulator |
//! | M5 a watermark decides only what stands there in its own ballot, or is known to be chosen | `acceptor.rs` (`follow_watermark`) | simulator, `tests/paper.rs` |
//! | PX5 a ballot belongs to one life of one node | `election.rs` (assertion) | simulator, `tests/paper.rs` |
//! | P1b a promise misses no vote, in flight or not | `acceptor.rs` (`on_prepare`) | simulator, `tests/paper.rs` |
//! | A snapshot replaces the slots that it holds, and no vote above | `snapshot.rs` | simulator, `tests/snapshots.rs` |
//! | F-a an acceptor votes once in a slot's round, across restarts | `fast/acceptor.rs` (`vote_fast`) | simulator, `tests/fast` |
//! | F-b a fast round is decided by a fast quorum alone | `fast/tally.rs` | simulator, `tests/fast` |
//! | F-c whatever election quorum answers, its coordinator is bound to what was chosen | `fast/pick.rs` | simulator, every pattern of votes up to five acceptors |
//! | F-d nothing is proposed or voted for in fast rounds that are not open | `fast/acceptor.rs` (`on_suggest`), `fast/coordinator.rs` (`try_open`) | simulator, `tests/fast` |
//! | Persist before reveal | `multipaxos.rs` (`send_with`) | simulator, harness |
//! | A read index is confirmed by a round sent after the read came | `read.rs` | simulator, `tests/paper.rs` |
//! | A wrong message is counted and dropped | everywhere | `tests/hostile.rs` |
//!
//! # Departures from the papers, and decisions they leave open
//!
//! - *Acknowledgements are cumulative* per ballot. A slot that the leader itself said is decided needs no vote; one
//!   that somebody else said is decided does, because it may have been decided in a later ballot with another value. A
//!   peer that knows more than its leader says so, and the leader learns like anybody else.
//! - *A learner never falsifies its vote*: what was learned is stored under [`synod_core::Stamp::CHOSEN`], and a promise
//!   reports it as chosen.
//! - *Snapshots* are the host's: it takes them, and carries them to a learner that needs compacted values
//!   ([`synod_core::LogEvent::SendSnapshot`]). A value has no stamp that all replicas agree on, so a snapshot ends with
//!   [`synod_core::Stamp::CHOSEN`]. It takes the place of every slot that it holds, and votes above it stay. A promise
//!   tells nothing at or below the watermark, so no election misses what is compacted; a candidate that needs it gives up
//!   until it has a snapshot, and others may lead meanwhile.
//! - *An acceptor votes at most [`MultiPaxosConfig::ahead_entries_max`] slots above its watermark*, so what a promise
//!   can report, and what an election proposes again, is bounded.
//! - *Acceptors tell the leader* (section 2.3, a distinguished learner), or every replica if the leader asks for that
//!   ([`MultiPaxosConfig::votes_to_all`]). Then another replica may decide, and acknowledge, before its leader does: so a
//!   read at that leader waits for all that was proposed before it, decided or not.
//! - *No heartbeat waits for a disk*: a reply says that no higher ballot was promised, and raises no promise. A leader
//!   whose own disk confirms nothing for an election timeout steps down.
//! - *Elections are sticky*: who hears a leader supports nobody else, and a leader that hears no replication quorum
//!   steps down. So a replica that can reach everybody leads, and one that cannot disturbs nobody. Campaigns that are
//!   lost double the spread of the next wait.
//! - *Lease reads* (Paxos Made Live, 5.2) rest on promises that are said: who hears a leader answers a heartbeat with how
//!   long it will promise nobody a ballot, and promises nobody one for as long after a restart. The leader counts from
//!   before it asked, less what the bound on clocks takes off. Off by default ([`MultiPaxosConfig::lease_reads`]).
//! - *Leadership transfer*: the leader stops proposing, waits until its successor has voted for everything, and has it
//!   campaign ([`Succeed`]), again with every heartbeat; after one election timeout it goes on. Not with lease reads on:
//!   then nobody would promise the successor anything.
//! - *A new leader decides no slot of its own before it serves reads*: it waits only for what it proposed again.
//!
//! # Not here yet
//!
//! - *Membership change, leadership transfer with lease reads on*; leadership transfer and snapshots of Fast Paxos.
//!
//! # Features
//!
//! None.

mod ballot;
mod config;
mod message;

mod codec;
mod counters;

pub mod synod;

mod progress;
mod proposals;
mod votes;

mod acceptor;
mod election;
mod leader;
mod learner;
mod read;
mod snapshot;
mod transfer;
mod witness;

mod multipaxos;

mod fast;

pub use ballot::{Ballot, VoteRound};
pub use codec::HardState;
pub use config::MultiPaxosConfig;
pub use counters::{Counters, Rejection};
pub use fast::pick::{Pick, pick};
pub use fast::{FastPaxos, FastPaxosConfig, Recovery};
pub use message::{
    Accept, Accepted, Any, Canvass, CanvassReply, Chosen, CommitNotice, Heartbeat, HeartbeatReply, Learn,
    Message, Prepare, Promise, Rejected, Resolve, Round, Standing, Succeed, Suggest, Voted,
};
pub use multipaxos::MultiPaxos;
