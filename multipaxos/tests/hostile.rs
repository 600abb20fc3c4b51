//! Peers may say anything. No sequence of messages makes a replica panic, take a promise back, move its watermark
//! back, reveal what is not durable, or ask for memory without bound.

mod harness;

use harness::{Cluster, Letter, ballot};
use proptest::prelude::*;
use synod_core::{
    Entries, Entry, Input, Kind, Loaded, LogCall, LogIndex, Machine, Membership, NodeId, Protocol, ReadId,
    ReadMode, Reign, RequestId, Role, SnapshotMeta, SnapshotOutcome, Stamp,
};
use synod_multipaxos::{
    Accept, Accepted, Ballot, Canvass, CanvassReply, Chosen, CommitNotice, Heartbeat, HeartbeatReply, Learn,
    Message, Prepare, Promise, Rejected, Rejection, Round, Succeed,
};

/// Mostly small numbers, so that they meet, and sometimes the ends of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => 0u64..8,
        1 => Just(u64::MAX),
        1 => Just(1u64 << 62),
        1 => Just((1u64 << 62) - 1),
        1 => any::<u64>(),
    ]
}

fn some_ballot() -> impl Strategy<Value = Ballot> {
    (number(), 0u64..4).prop_map(|(round, node)| Ballot { round, node: NodeId(node) })
}

fn some_entries() -> impl Strategy<Value = (Entries, Ballot)> {
    let stamp = prop_oneof![6 => Just(0u8), 2 => Just(1), 1 => Just(2)];
    (number(), some_ballot(), proptest::collection::vec((stamp, any::<bool>()), 0..5)).prop_map(
        |(first, of, items)| {
            // Wherever numbering would pass the end of the range, it does not begin there.
            let first = first.min(u64::MAX - 8);
            let entries = Entries::numbered(LogIndex(first), items, |index, (stamp, odd)| Entry {
                index,
                stamp: [of.stamp(), Stamp::CHOSEN, Stamp { high: index.0, low: 1 }][usize::from(stamp)],
                reign: of.reign(),
                kind: if odd && stamp > 0 { Kind::Private(40) } else { Kind::Command },
                request: RequestId::NONE,
                payload: bytes::Bytes::new(),
            });
            (entries, of)
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let numbers = (number(), number(), number(), any::<bool>());
    (0u8..18, some_ballot(), some_ballot(), numbers, some_entries()).prop_map(
        |(kind, ballot, other, (a, b, c, yes), (entries, of))| {
            let (first, commit, last) = (LogIndex(a), LogIndex(b), LogIndex(c));
            match kind {
                0 => Message::Canvass(Canvass { ballot, decided: first }),
                1 => {
                    Message::CanvassReply(CanvassReply { ballot, granted: yes, seen: other, decided: first })
                }
                2 | 3 => Message::Prepare(Prepare { ballot, from: first }),
                4..7 => {
                    let to = if yes { entries.range().to } else { LogIndex(a) };
                    let segments = if yes { vec![entries] } else { vec![] };
                    let votes = Loaded { segments, to };
                    Message::Promise(Promise {
                        ballot,
                        from: last,
                        decided: commit,
                        trimmed: commit,
                        last: first,
                        votes,
                    })
                }
                // Most of the time the entries are of the ballot that brings them, as they should be.
                7..11 => {
                    let first = if yes { LogIndex(1) } else { first };
                    Message::Accept(Accept { ballot: of, first, commit, to_all: yes, entries })
                }
                11 => Message::Accepted(Accepted { ballot, through: first, decided: commit }),
                12 => Message::Rejected(Rejected { ballot, promised: other }),
                13 => Message::Heartbeat(Heartbeat { ballot, first, commit, round: Round(c) }),
                14 => Message::HeartbeatReply(HeartbeatReply {
                    ballot,
                    round: Round(a),
                    loyal_for: std::time::Duration::from_nanos(c),
                }),
                15 if yes => Message::CommitNotice(CommitNotice { ballot, first, commit }),
                15 => Message::Learn(Learn { from: first }),
                16 => Message::Succeed(Succeed { ballot }),
                _ => {
                    let from = if yes { entries.first_index() } else { last };
                    Message::Chosen(Chosen { from, decided: commit, trimmed: LogIndex(c.min(b)), entries })
                }
            }
        },
    )
}

#[derive(Clone, Debug)]
enum Event {
    Says(u64, Message),
    Batch(Vec<(u64, Message)>),
    Persist,
    Load,
    Tick,
    Wait(u64),
    Propose(u8),
    Read,
    Restart,
    Settle,
    Offer { by: u64, index: u64, chosen: bool },
    Compact(u64),
    Sent(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0u64..5, message()).prop_map(|(from, message)| Event::Says(from, message)),
        2 => proptest::collection::vec((2u64..4, message()), 1..4).prop_map(Event::Batch),
        4 => Just(Event::Persist),
        2 => Just(Event::Load),
        3 => Just(Event::Tick),
        1 => (0u64..400).prop_map(Event::Wait),
        1 => (1u8..4).prop_map(Event::Propose),
        1 => Just(Event::Read),
        1 => Just(Event::Restart),
        2 => Just(Event::Settle),
        1 => (1u64..4, number(), any::<bool>())
            .prop_map(|(by, index, chosen)| Event::Offer { by, index, chosen }),
        1 => number().prop_map(Event::Compact),
        1 => any::<bool>().prop_map(Event::Sent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_sequence_of_messages_breaks_a_replica(events in proptest::collection::vec(event(), 1..60)) {
        let mut cluster = Cluster::new(3);
        cluster.scripted = true;
        cluster.node_mut(1).slow_disk = true;
        let mut promised = Ballot::ZERO;
        let mut decided = 0;
        for (step, event) in events.into_iter().enumerate() {
            match event {
                Event::Says(from, message) => cluster.receive(from, 1, message),
                Event::Batch(letters) => {
                    let input = |(from, message)| Input::Receive { from: NodeId(from), message };
                    cluster.batch(1, letters.into_iter().map(input).collect());
                }
                Event::Persist => { cluster.persist_one(1); }
                Event::Load => { cluster.load_one(1); }
                Event::Tick => if cluster.paxos(1).next_deadline().is_some() { cluster.time_out(1) },
                Event::Wait(ms) => cluster.now += std::time::Duration::from_millis(ms),
                Event::Propose(count) => cluster.propose(1, &vec!["x"; usize::from(count)]),
                Event::Read => cluster.step(1, Input::Call(LogCall::Read { id: ReadId(step as u64), mode: ReadMode::Barrier })),
                Event::Restart => { cluster.restart(1); decided = 0; }
                Event::Offer { by, index, chosen } => {
                    let stamp = if chosen { Stamp::CHOSEN } else { ballot(1, 1).stamp() };
                    let (reign, membership) = (Reign::default(), Membership::of_ids([1, 2, 3]).unwrap());
                    cluster.offer(1, by, SnapshotMeta { index: LogIndex(index), stamp, reign, membership });
                }
                Event::Compact(index) => cluster.compact(1, index, index),
                Event::Sent(arrived) => {
                    let taken = SnapshotOutcome::Taken(LogIndex(decided));
                    let outcome = if arrived { taken } else { SnapshotOutcome::Failed };
                    cluster.step(1, Input::Call(LogCall::SnapshotSent { to: NodeId(2), outcome }));
                }
                // The two others are honest, and may be talked into following anybody too.
                Event::Settle => {
                    let round: Vec<Letter> = cluster.take(|letter| letter.to != 1);
                    for letter in round { cluster.deliver(letter); }
                    for id in [2, 3] { cluster.persist(id); }
                    for letter in cluster.take(|letter| letter.to == 1) { cluster.deliver(letter); }
                }
            }
            // The disk of the harness asserts that promises and watermarks never fall; this, that none is forgotten.
            let state = cluster.node(1).disk.state();
            prop_assert!(state.promised >= promised);
            promised = state.promised;
            let status = cluster.paxos(1).status();
            prop_assert!(status.decided.0 >= decided, "decided went back");
            decided = status.decided.0;
        }
    }
}

#[test]
fn each_kind_of_nonsense_is_counted_by_its_name() {
    let mut cluster = Cluster::led_by_one(3);
    let beat = |ballot, first, commit| {
        Message::Heartbeat(Heartbeat {
            ballot,
            first: LogIndex(first),
            commit: LogIndex(commit),
            round: Round(1),
        })
    };
    let mine = ballot(1, 1);
    let accepted = |through| {
        Message::Accepted(Accepted { ballot: mine, through: LogIndex(through), decided: LogIndex(0) })
    };
    let table = [
        (9, beat(ballot(5, 9), 1, 0), Rejection::Stranger),
        (1, beat(ballot(5, 1), 1, 0), Rejection::Stranger),
        (2, beat(ballot(5, 3), 1, 0), Rejection::Ballot),
        (2, beat(ballot(0, 2), 1, 0), Rejection::Ballot),
        (2, beat(ballot(u64::MAX, 2), 1, 0), Rejection::Ballot),
        (2, beat(ballot(5, 2), 0, 0), Rejection::Position),
        (2, beat(ballot(5, 2), 9, 3), Rejection::Position),
        (2, beat(ballot(5, 2), 1, u64::MAX), Rejection::Position),
        (2, Message::Learn(Learn { from: LogIndex(0) }), Rejection::Position),
        (2, accepted(99), Rejection::Unasked),
        (
            2,
            Message::HeartbeatReply(HeartbeatReply {
                ballot: mine,
                round: Round(99),
                loyal_for: std::time::Duration::ZERO,
            }),
            Rejection::Unasked,
        ),
        (2, Message::Rejected(Rejected { ballot: mine, promised: ballot(0, 2) }), Rejection::Ballot),
    ];
    for (from, message, why) in table {
        let before = cluster.paxos(1).counters().rejected;
        cluster.receive(from, 1, message.clone());
        let counters = *cluster.paxos(1).counters();
        assert_eq!((counters.rejected, counters.last_rejection), (before + 1, Some(why)), "{message}");
        assert_eq!((cluster.role(1), cluster.promised(1)), (Role::Leader, mine), "{message}");
    }
}

#[test]
fn a_promise_that_reaches_too_far_is_refused() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    cluster.time_out(1);
    let promise = |decided: u64, last: u64| {
        let votes = Loaded { segments: Vec::new(), to: LogIndex(last + 1) };
        let trimmed = LogIndex(0);
        let (from, decided, last) = (LogIndex(1), LogIndex(decided), LogIndex(last));
        Message::Promise(Promise { ballot: ballot(1, 1), from, decided, trimmed, last, votes })
    };
    for message in [promise(0, 1 << 40), promise(9, 3)] {
        cluster.receive(2, 1, message.clone());
        assert_eq!(cluster.paxos(1).counters().last_rejection, Some(Rejection::Position), "{message}");
    }
}
