//! ZAB, the protocol of ZooKeeper, as a sans-IO state machine.
//!
//! # What it promises
//!
//! [`Zab`] is one replica of a replicated log, after Junqueira, Reed and Serafini, "Zab: High-performance
//! broadcast for primary-backup systems" (DSN 2011; "phase" and "section" below mean that paper), with
//! ZooKeeper's fast leader election as phase 0. Replicas that crash and restart, lose everything volatile, and
//! hear each other over a network that loses, repeats and reorders messages never decide two different entries
//! at one index; what the leader of an epoch broadcasts is decided in its order, after everything that was
//! decided in earlier epochs (primary order). An ordered client session keeps its order across leaders.
//!
//! It performs no I/O and reads no clock: time is given, and it answers with what to write, what to send and
//! what to tell ([`synod_core::Effects`]). The same inputs give the same effects, to the byte; nothing is drawn
//! at random. Proposals are batched and pipelined in a window; reads are a true `sync`, confirmed by pings sent
//! after the read came; no ping waits for a disk; a zxid has 64 bits of epoch and 64 of counter and never
//! rolls over.
//!
//! # Example
//!
//! Three replicas in one thread, with a network and disks that are queues:
//!
//! ```
//! use std::collections::VecDeque;
//! use bytes::Bytes;
//! use synod_core::*;
//! use synod_zab::{Message, Zab};
//!
//! struct Node { zab: Zab, effects: Effects<Message, LogEvent>, decided: LogIndex }
//!
//! let membership = Membership::of_ids([1, 2, 3])?;
//! let mut nodes: Vec<Node> = Vec::new();
//! for id in 1..=3 {
//!     let (node, membership, config) = (NodeId(id), membership.clone(), Zab::config());
//!     let recovered = Recovered::default(); // what the storage gave back
//!     let zab = Zab::open(Start { node, membership, config, recovered, now: Instant(0), seed: 7 })?;
//!     nodes.push(Node { zab, effects: Effects::new(), decided: LogIndex(0) });
//! }
//!
//! // Everybody looks for a leader; among equals the highest id wins, once the finalise wait is over.
//! let mut inbox: VecDeque<(usize, Input<Message, LogCall>)> = VecDeque::new();
//! let command = Command { kind: Kind::Command, request: RequestId::NONE, payload: Bytes::from_static(b"x") };
//! let mut proposal = Some(Input::Call(LogCall::Propose(vec![command])));
//!
//! for round in 0..3 {
//!     let now = Instant(round * 20_000_000);
//!     match round {
//!         0 | 1 => inbox.extend((0..3).map(|at| (at, Input::Tick))),
//!         _ => inbox.extend(proposal.take().map(|propose| (2, propose))),
//!     }
//!     while let Some((at, input)) = inbox.pop_front() {
//!         let Node { zab, effects, decided } = &mut nodes[at];
//!         zab.step(now, input, effects); // any number of steps,
//!         zab.flush(now, effects); // one flush,
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
//! }
//! assert_eq!(nodes[2].zab.status().role, Role::Leader);
//! assert_eq!(nodes[2].decided, LogIndex(1));
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
//! | message | from, to | meaning | the paper's name |
//! |---|---|---|---|
//! | [`Notification`] | anybody, anybody | my vote; or, to who looks, whom I follow | phase 0 |
//! | [`FollowerInfo`] | follower, leader | I follow you; this is the last epoch I promised | CEPOCH, phase 1 |
//! | [`NewEpoch`] | leader, follower | promise me this epoch | NEWEPOCH, phase 1 |
//! | [`AckEpoch`] | follower, leader | promised, durably; this is my history | ACK-E, phase 1 |
//! | [`Proposal`] | leader, follower | entries after `prev`, and what is decided | PROPOSE, phase 3; DIFF, TRUNC |
//! | [`Missing`] | follower, leader | no such `prev` here; go on there | - |
//! | [`NewLeader`] | leader, follower | the history ends here; make the epoch yours | NEWLEADER, phase 2 |
//! | [`Received`] | follower, leader | the same through here; counts for nothing | - |
//! | [`Ack`] | follower, leader | the epoch and the history through here, durably | ACK-LD, ACK |
//! | [`Commit`] | leader, follower | decided through here | COMMIT-LD, COMMIT; UPTODATE |
//! | [`Ping`] | leader, follower | I lead; a round to answer | - |
//! | [`Pong`] | follower, leader | I have promised no later epoch | - |
//!
//! DIFF and TRUNC are no messages of their own: both are proposals that begin at the last place that leader and
//! follower share. It is found from the end of the follower's history, jumping over whole epochs; what
//! contradicts an entry is cut off with it, what stands beyond the last one is cut off by NEWLEADER.
//!
//! SNAP is no message either: where that place lies below the leader's log, the host is told to send a snapshot
//! ([`LogEvent::SendSnapshot`](synod_core::LogEvent::SendSnapshot)), and proposals go on where it ends. A snapshot holds
//! what is decided and nothing else, so whoever receives one may go on from it whether it still looks for a leader or
//! follows one, in the epoch that the snapshot came from or a later one. If none arrives, the follower hears pings and
//! is tried again once per election timeout.
//!
//! # Sessions
//!
//! The transport gives no order. A leader and a follower talk in a session of epoch and attempt; within it the
//! sequence is the dense position of entries: a proposal names the place before its first entry, is never
//! appended after a gap, and the follower answers with its last contiguous place. What belongs to another
//! session is dropped on both sides.
//!
//! # Writes
//!
//! The accepted epoch (with the leader it was promised to) and the current epoch are one hard state beside the
//! history, in the same atomic write. A promise is durable before it is told. A synchronisation may take many
//! writes, and a snapshot may be one of them; only the last holds the current epoch, so no crash leaves an epoch with
//! less than its history (`ZOOKEEPER-4643`), nor a state that cannot be opened (`ZOOKEEPER-1653`). An [`Ack`] waits for all of it, and
//! stands for NEWLEADER and proposals alike: the one cannot be acknowledged before the other (`4685`).
//!
//! # Kinship with Bully
//!
//! The election is Garcia-Molina's Bully in what it looks for: the highest wins, first by what it knows (epoch,
//! then zxid), then by id, and a better vote takes over from a lesser one. What the quorum adds: a vote stands
//! only once an election quorum shares it, so two sides of a partition never both elect; and a leader counts only
//! once a quorum promised its epoch, so even a wrong election does no harm.
//!
//! # Ambiguities of the paper, and how they are settled
//!
//! Named as in ZooKeeper's own TLA+ work.
//!
//! | ambiguity | here | shown by (`tests/paper.rs`) |
//! |---|---|---|
//! | S1: to whom proposals go | to everybody whose epoch was acknowledged | `proposals_go_to_everybody_who_acknowledged_the_epoch` |
//! | S2: history and proposals overlap at a joiner | what is there already is not taken again | `an_entry_that_comes_twice_is_taken_once` |
//! | S3: what COMMIT-LD commits | the leader's latest decision, never less | `up_to_date_carries_the_latest_decision` |
//! | S4: a weak election | the leader gives up if a follower has a later epoch or longer history | `a_prospective_leader_that_is_behind_a_follower_gives_up` |
//!
//! # Invariants, and where each is kept
//!
//! | invariant | kept in | checked in |
//! |---|---|---|
//! | one established leader an epoch | `discovery.rs` (promises), `zab.rs` (assertion) | harness, simulator (ZL, ZI8) |
//! | integrity, total order, agreement (ZI1 to ZI3) | `synchronisation.rs`, `broadcast.rs` | harness, simulator |
//! | local and global primary order, causal order (ZI4, ZI5, ZI7) | `log.rs`, sessions | `tests/paper.rs`, simulator |
//! | primary integrity (ZI6) | `broadcast.rs` (no proposal before NEWLEADER's quorum) | `tests/paper.rs`, simulator |
//! | epochs never fall, one promise an epoch (ZI8) | `zab.rs` (assertions) | harness, simulator |
//! | NEWLEADER is acknowledged with its whole history (ZI9) | `synchronisation.rs` (`take_over`) | `tests/jira.rs`, simulator |
//! | zxids have no holes (ZI10) | `log.rs` (assertions) | `tests/jira.rs`, simulator |
//! | a read is confirmed by a round sent after it came | `read.rs` | `tests/paper.rs`, `tests/random.rs` |
//! | nobody votes for less than it has (ZV) | `election.rs` (`on_vote`) | `tests/paper.rs`, simulator |
//! | a snapshot takes back nothing that is decided or acknowledged (SN2, ZI9) | `snapshot.rs` | `tests/snapshots.rs`, `tests/jira.rs`, simulator |
//! | a wrong message is counted and dropped | `check_entries`, sessions | `tests/hostile.rs` |
//!
//! # Departures from the paper and from ZooKeeper
//!
//! - *A promise names its leader*, so that it can be repeated to that leader when an answer was lost. A follower
//!   that promised the same epoch to another one may be synchronised (a quorum promised it elsewhere) and does not
//!   elect: ZooKeeper's "-1".
//! - *Nobody votes for itself before it heard a quorum*: a replica that could reach no quorum as leader is not
//!   elected for ever by those who can. So quorum loss and chains of links are survived; under a constrained
//!   election (the only replica that reaches a quorum is behind) nobody is elected until the links heal.
//! - *A prospective leader tells everybody that it leads*: whoever voted for it follows without a wait of its own,
//!   and without having seen the whole quorum itself.
//! - *A leader whom a follower tells of a later promise gives up*, so that the follower can take part again
//!   (`1732`); ZooKeeper leaves it out.
//! - *Decisions ride on proposals and pings*; a COMMIT is sent alone after a while.
//! - *Pings are apart from everything that waits for disks.* A leader that hears no replication quorum for an
//!   election timeout, or whose own disk confirms nothing for as long, gives up.
//! - *No epoch leaps.* A message whose epoch is more than [`Epoch::LEAP_MAX`] ahead of the receiver's own promise is
//!   dropped and counted: one wrong hello, or one wrong leader, cannot use up all epochs. A member that goes on lying
//!   can still disturb elections for as long as it does so; the protocol is for crashes.
//! - *Quorums* come from the membership. Two election quorums must meet; [`Zab`] refuses to open otherwise.
//!
//! - *No leader lease*, nor has ZooKeeper one: [`ReadMode::Lease`](synod_core::ReadMode) is answered like a barrier. A
//!   lease needs followers who elect nobody else for a while, whatever they hear; here they vote anew at once when
//!   their leader says that it leads no more, which is what keeps fail-overs short, and no time is part of any promise.
//!
//! # Not here yet
//!
//! - *Membership change, observers that take INFORM, leadership transfer.*
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

mod discovery;

mod synchronisation;

mod broadcast;
mod read;
mod snapshot;

mod zab;

pub use codec::HardState;
pub use config::ZabConfig;
pub use counters::{Counters, Rejection};
pub use message::{
    Ack, AckEpoch, Attempt, Beat, Commit, Epoch, FollowerInfo, Message, Missing, NewEpoch, NewLeader,
    Notification, Ping, Place, Pong, Proposal, Received, Round, Session, Standing, Vote, Zxid,
};
pub use zab::Zab;
