//! Peers may say anything. No sequence of messages makes a replica panic, take its hard state back, remove a
//! decided entry, reveal what is not durable, or ask for memory without bound.

mod harness;

use harness::{Cluster, Letter, at};
use proptest::prelude::*;
use synod_core::{
    Entries, Entry, Input, Kind, LogCall, LogIndex, Machine, NodeId, Protocol, ReadId, ReadMode, Reign,
    RequestId, Role, Stamp,
};
use synod_zab::{
    Ack, AckEpoch, Attempt, Beat, Commit, Epoch, FollowerInfo, Message, Missing, NewEpoch, NewLeader,
    Notification, Ping, Place, Pong, Proposal, Received, Rejection, Round, Session, Standing, Vote, Zxid,
};

/// Mostly small numbers, so that they meet, and sometimes the ends of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => 0u64..8,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(Epoch::MAX.0),
        1 => any::<u64>(),
    ]
}

fn entries() -> impl Strategy<Value = Entries> {
    let entry = (number(), prop_oneof![9 => Just(0u64), 1 => number()], any::<bool>());
    (number(), proptest::collection::vec(entry, 0..5)).prop_map(|(first, items)| {
        // Wherever numbering would pass the end of the range, it does not begin there.
        let first = first.min(u64::MAX - 8);
        Entries::numbered(LogIndex(first), items, |index, (high, low, lies)| Entry {
            index,
            stamp: Stamp { high, low },
            reign: Reign { number: if lies && low > 0 { low } else { high }, leader: NodeId(2) },
            kind: Kind::Command,
            request: RequestId::NONE,
            payload: bytes::Bytes::new(),
        })
    })
}

fn message() -> impl Strategy<Value = Message> {
    let numbers = (number(), number(), number(), number(), any::<bool>(), number());
    (0u8..18, numbers, entries()).prop_map(|(kind, (epoch, e, a, b, yes, attempt), entries)| {
        // Half of the sessions are the first that replica 1 can be in.
        let attempt = Attempt(if yes { 1 << 32 | 1 } else { attempt });
        let session = Session { epoch: Epoch(epoch), attempt };
        let place = at(e, a.min(b), a);
        let through = LogIndex(a);
        match kind {
            0..3 => {
                let last = Zxid { epoch: Epoch(e), counter: a };
                let standing = match a % 4 {
                    0 => Standing::Looking,
                    1 => Standing::Following,
                    2 => Standing::Leading,
                    _ => Standing::Established,
                };
                let vote = (b % 5 > 0).then_some(Vote { epoch: Epoch(epoch), last, node: NodeId(b % 5) });
                Message::Notification(Notification { round: Round(epoch), standing, vote })
            }
            3 | 4 => Message::FollowerInfo(FollowerInfo { attempt, accepted: Epoch(e) }),
            5 => Message::NewEpoch(NewEpoch { session }),
            6 => Message::AckEpoch(AckEpoch { session, promised: yes, current: Epoch(e), last: place }),
            7..11 => {
                // Half of the time the entries follow the previous one, as they should.
                let index = if yes { entries.first_index().0.saturating_sub(1) } else { a };
                let prev = if index == 0 { Place::ZERO } else { at(e, b.min(index), index) };
                Message::Proposal(Proposal { session, prev, commit: LogIndex(b), entries })
            }
            11 | 12 => {
                Message::NewLeader(NewLeader { session, last: if a == 0 { Place::ZERO } else { place } })
            }
            13 => Message::Received(Received { session, through }),
            14 => Message::Ack(Ack { session, through }),
            15 => Message::Missing(Missing { session, prev: LogIndex(b), hint: place }),
            16 if yes => Message::Commit(Commit { session, through }),
            16 => Message::Pong(Pong { session, beat: Beat(b) }),
            _ => Message::Ping(Ping { session, established: a % 2 == 0, commit: through, beat: Beat(b) }),
        }
    })
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
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0u64..5, message()).prop_map(|(from, message)| Event::Says(from, message)),
        2 => proptest::collection::vec((2u64..4, message()), 1..4).prop_map(Event::Batch),
        4 => Just(Event::Persist),
        1 => Just(Event::Load),
        3 => Just(Event::Tick),
        1 => (0u64..400).prop_map(Event::Wait),
        1 => (1u8..4).prop_map(Event::Propose),
        1 => Just(Event::Read),
        1 => Just(Event::Restart),
        2 => Just(Event::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_sequence_of_messages_breaks_a_replica(events in proptest::collection::vec(event(), 1..60)) {
        let mut cluster = Cluster::new(3);
        cluster.scripted = true;
        cluster.node_mut(1).slow_disk = true;
        let mut known = cluster.node(1).disk.state();
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
                Event::Tick => if cluster.zab(1).next_deadline().is_some() { cluster.time_out(1) },
                Event::Wait(ms) => cluster.now += std::time::Duration::from_millis(ms),
                Event::Propose(count) => cluster.propose(1, &vec!["x"; usize::from(count)]),
                Event::Read => cluster.step(1, Input::Call(LogCall::Read { id: ReadId(step as u64), mode: ReadMode::Barrier })),
                Event::Restart => { cluster.restart(1); decided = 0; }
                // The two others are honest, and may be talked into following anybody too.
                Event::Settle => {
                    let round: Vec<Letter> = cluster.take(|letter| letter.to != 1);
                    for letter in round { cluster.deliver(letter); }
                    for id in [2, 3] { cluster.persist(id); }
                    for letter in cluster.take(|letter| letter.to == 1) { cluster.deliver(letter); }
                }
            }
            // The disk of the harness asserts that hard state never goes back; this, that none is forgotten.
            let state = cluster.node(1).disk.state();
            prop_assert!(state.accepted >= known.accepted && state.current >= known.current);
            let kept = state.accepted > known.accepted || state.promised_to == known.promised_to;
            prop_assert!(kept && state.current <= state.accepted);
            known = state;
            let status = cluster.zab(1).status();
            prop_assert!(status.decided.0 >= decided, "decided went back");
            decided = status.decided.0;
            prop_assert!(cluster.zab(1).accepted_epoch() <= Epoch::MAX);
            prop_assert!(cluster.zab(1).last_index().0 < 1000, "the log grew beyond what was said");
        }
    }
}

#[test]
fn each_kind_of_nonsense_is_counted_by_its_name() {
    let mut cluster = Cluster::led(3);
    let session = |epoch| Session { epoch: Epoch(epoch), attempt: Attempt(1 << 32 | 1) };
    let told = |node, standing| {
        let vote = Some(Vote { epoch: Epoch(1), last: Zxid::ZERO, node: NodeId(node) });
        Message::Notification(Notification { round: Round(1), standing, vote })
    };
    let table = [
        (9, told(1, Standing::Looking), Rejection::Stranger),
        (3, told(1, Standing::Looking), Rejection::Stranger),
        (2, Message::NewEpoch(NewEpoch { session: session(0) }), Rejection::Epoch),
        (2, Message::NewEpoch(NewEpoch { session: session(u64::MAX) }), Rejection::Epoch),
        (2, told(9, Standing::Looking), Rejection::Vote),
        (2, told(1, Standing::Established), Rejection::Vote),
        (2, Message::Ack(Ack { session: session(1), through: LogIndex(99) }), Rejection::Unasked),
        (2, Message::Pong(Pong { session: session(1), beat: Beat(u64::MAX) }), Rejection::Unasked),
        (
            2,
            Message::Missing(Missing { session: session(1), prev: LogIndex(99), hint: at(1, 1, 1) }),
            Rejection::Unasked,
        ),
    ];
    for (from, message, why) in table {
        let before = cluster.zab(3).counters().rejected;
        cluster.receive(from, 3, message.clone());
        assert_eq!(cluster.zab(3).counters().rejected, before + 1, "{message}");
        assert_eq!(cluster.zab(3).counters().last_rejection, Some(why), "{message}");
        assert_eq!((cluster.role(3), cluster.current(3)), (Role::Leader, 1), "{message}");
    }
}

#[test]
fn entries_that_no_leader_has_are_refused_whole() {
    let mut cluster = Cluster::led(3);
    cluster.propose(3, &["a", "b"]);
    cluster.advance(harness::HEARTBEAT);
    cluster.scripted = true;
    let session = Session { epoch: Epoch(1), attempt: Attempt(1 << 32 | 1) };
    let proposal = |prev: Place, entries: Entries| {
        Message::Proposal(Proposal { session, prev, commit: LogIndex(0), entries })
    };
    let here = at(1, 2, 2);
    let mut reign_lies = harness::entries(here, &[1]).to_vec();
    reign_lies[0].reign.number = 2;
    let mut hole = harness::entries(here, &[1]).to_vec();
    hole[0].stamp.low = 4;
    let wrong = [
        proposal(here, harness::entries(here, &[2])),
        proposal(here, harness::entries(at(1, 3, 3), &[1])),
        proposal(at(1, 3, 2), Entries::empty()),
        proposal(at(0, 0, 2), Entries::empty()),
        proposal(at(1, 1, 0), Entries::empty()),
        proposal(at(1, 1, u64::MAX), Entries::empty()),
        proposal(here, Entries::new(reign_lies).unwrap()),
        proposal(here, Entries::new(hole).unwrap()),
    ];
    for message in wrong {
        let before = cluster.zab(1).counters().rejected;
        cluster.receive(3, 1, message.clone());
        let counters = *cluster.zab(1).counters();
        assert_eq!(
            (counters.rejected, counters.last_rejection),
            (before + 1, Some(Rejection::Entries)),
            "{message}"
        );
        assert_eq!(cluster.epochs(1), [1, 1]);
    }
}

#[test]
fn no_hello_pushes_a_leader_to_where_epochs_end() {
    for accepted in [Epoch(u64::MAX), Epoch::MAX, Epoch(2 + Epoch::LEAP_MAX)] {
        let mut cluster = Cluster::led(3);
        let attempt = Attempt(1 << 32 | 9);
        cluster.receive(2, 3, Message::FollowerInfo(FollowerInfo { attempt, accepted }));
        assert_eq!(cluster.role(3), Role::Leader);
        assert_eq!(cluster.zab(3).counters().last_rejection, Some(Rejection::Epoch));
        cluster.crash(3);
        cluster.advance(8 * harness::TIMEOUT);
        let leader = cluster.leader().expect("elections go on");
        assert_eq!(
            cluster.current(leader),
            2,
            "from the epoch that was promised and not the one that was told"
        );
    }
}

#[test]
fn no_promise_is_given_to_an_epoch_that_leaps() {
    let mut cluster = Cluster::led(3);
    let session = |epoch| Session { epoch, attempt: Attempt(1 << 32 | 1) };
    cluster.receive(3, 1, Message::NewEpoch(NewEpoch { session: session(Epoch::MAX) }));
    assert_eq!(cluster.zab(1).counters().last_rejection, Some(Rejection::Epoch));
    assert_eq!((cluster.accepted(1), cluster.leader()), (1, Some(3)));
    cluster.propose(3, &["on"]);
    cluster.advance(harness::TIMEOUT);
    assert_eq!(cluster.decided(1), cluster.decided(3), "and its session goes on");
}
