//! Peers may say anything. No sequence of messages makes a replica panic, take its hard state back, remove a
//! decided entry, reveal what is not durable, or ask for memory without bound.

mod harness;

use std::time::Duration;

use harness::{Cluster, HEARTBEAT, Letter, TIMEOUT, at};
use proptest::prelude::*;
use synod_core::{
    Entries, Entry, Input, Kind, LogCall, LogIndex, Machine, NodeId, Protocol, ReadId, ReadMode, Reign,
    RequestId, Role, Stamp,
};
use synod_raft::{
    Append, AppendRejected, Appended, CommitNotice, Heartbeat, HeartbeatReply, Message, NewerTerm, PreVote,
    PreVoteReply, Rejection, Round, Term, TimeoutNow, Vote, VoteReply,
};

/// Mostly small numbers, so that they meet, and sometimes the ends of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => 0u64..8,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(Term::MAX.0),
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
    let numbers = (number(), number(), number(), number(), any::<bool>());
    (0u8..17, numbers, entries()).prop_map(|(kind, (term, t, a, b, granted), entries)| {
        let term = Term(term);
        match kind {
            0 => Message::PreVote(PreVote { term, last: at(t, a) }),
            1 => Message::PreVoteReply(PreVoteReply { term, asked: Term(t), granted }),
            2 => Message::Vote(Vote { term, last: at(t, a), transfer: granted }),
            3 => Message::VoteReply(VoteReply { term, granted }),
            4..9 => {
                // Half of the time the entries follow the previous one, as they should.
                let index = if granted { entries.first_index().0.saturating_sub(1) } else { a };
                Message::Append(Append { term, prev: at(t.min(index), index), commit: LogIndex(b), entries })
            }
            9 | 10 => Message::Appended(Appended { term, through: LogIndex(a) }),
            11 => Message::AppendRejected(AppendRejected { term, prev: LogIndex(b), hint: at(t, a) }),
            12 => Message::Heartbeat(Heartbeat { term, commit: LogIndex(a), round: Round(b) }),
            13 => Message::HeartbeatReply(HeartbeatReply {
                term,
                round: Round(b),
                loyal_for: Duration::from_nanos(a),
            }),
            14 => Message::CommitNotice(CommitNotice { term, commit: LogIndex(a) }),
            15 => Message::NewerTerm(NewerTerm { term }),
            _ => Message::TimeoutNow(TimeoutNow { term }),
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
                Event::Tick => if cluster.raft(1).next_deadline().is_some() { cluster.time_out(1) },
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
            prop_assert!(state.term >= known.term);
            prop_assert!(state.term > known.term || known.voted_for.is_none() || state.voted_for == known.voted_for);
            known = state;
            let status = cluster.raft(1).status();
            prop_assert!(status.decided.0 >= decided, "decided went back");
            decided = status.decided.0;
            prop_assert!(cluster.raft(1).term() <= Term::MAX);
            prop_assert!(cluster.raft(1).last_index().0 < 1000, "the log grew beyond what was said");
        }
    }
}

fn rejected(cluster: &mut Cluster, from: u64, message: Message) -> Option<Rejection> {
    let before = *cluster.raft(1).counters();
    cluster.receive(from, 1, message);
    let after = *cluster.raft(1).counters();
    (after.rejected > before.rejected).then(|| after.last_rejection.unwrap())
}

#[test]
fn each_kind_of_nonsense_is_counted_by_its_name() {
    let mut cluster = Cluster::led_by_one(3);
    let beat = |term, commit| Heartbeat { term: Term(term), commit: LogIndex(commit), round: Round(1) };
    let table = [
        (9, Message::Heartbeat(beat(5, 0)), Rejection::Stranger),
        (1, Message::Heartbeat(beat(5, 0)), Rejection::Stranger),
        (2, Message::Heartbeat(beat(0, 0)), Rejection::Term),
        (2, Message::Heartbeat(beat(u64::MAX, 0)), Rejection::Term),
        (2, Message::Heartbeat(beat(1, 0)), Rejection::SecondLeader),
        (2, Message::Appended(Appended { term: Term(1), through: LogIndex(99) }), Rejection::Unasked),
        (
            2,
            Message::AppendRejected(AppendRejected { term: Term(1), prev: LogIndex(99), hint: at(1, 1) }),
            Rejection::Unasked,
        ),
        (
            2,
            Message::HeartbeatReply(HeartbeatReply {
                term: Term(1),
                round: Round(99),
                loyal_for: Duration::ZERO,
            }),
            Rejection::Unasked,
        ),
    ];
    for (from, message, why) in table {
        assert_eq!(rejected(&mut cluster, from, message.clone()), Some(why), "{message}");
        assert_eq!((cluster.role(1), cluster.term(1)), (Role::Leader, 1), "{message}");
    }
}

#[test]
fn entries_that_no_leader_has_are_refused_whole() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    let append = |prev: (u64, u64), entries: Entries| {
        let prev = at(prev.0, prev.1);
        Message::Append(Append { term: Term(3), prev, commit: LogIndex(0), entries })
    };
    assert_eq!(rejected(&mut cluster, 2, append((0, 0), harness::entries(1, &[1, 3, 3]))), None);
    let mut reign_lies = harness::entries(4, &[3]).to_vec();
    reign_lies[0].reign.number = 2;
    let mut low = harness::entries(4, &[3]).to_vec();
    low[0].stamp.low = 1;
    let wrong = [
        append((3, 3), harness::entries(4, &[4])),
        append((3, 3), harness::entries(4, &[2])),
        append((3, 3), harness::entries(4, &[3, 2])),
        append((3, 3), harness::entries(5, &[3])),
        append((4, 3), Entries::empty()),
        append((0, 3), Entries::empty()),
        append((3, 0), Entries::empty()),
        append((3, u64::MAX), Entries::empty()),
        append((3, 3), Entries::new(reign_lies).unwrap()),
        append((3, 3), Entries::new(low).unwrap()),
    ];
    for message in wrong {
        assert_eq!(rejected(&mut cluster, 2, message.clone()), Some(Rejection::Entries), "{message}");
        assert_eq!(cluster.terms(1), [1, 3, 3]);
    }
}

#[test]
fn what_is_decided_is_never_removed_whoever_asks() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    let append = |term, prev: (u64, u64), commit, terms: &[u64]| {
        let entries = harness::entries(prev.1 + 1, terms);
        Message::Append(Append {
            term: Term(term),
            prev: at(prev.0, prev.1),
            commit: LogIndex(commit),
            entries,
        })
    };
    cluster.receive(2, 1, append(1, (0, 0), 2, &[1, 1, 1]));
    assert_eq!(cluster.decided(1), 2);
    assert_eq!(rejected(&mut cluster, 3, append(2, (1, 1), 0, &[2])), Some(Rejection::Decided));
    assert_eq!(rejected(&mut cluster, 3, append(2, (2, 2), 0, &[2])), Some(Rejection::Decided));
    assert_eq!(cluster.terms(1), [1, 1, 1]);
    assert_eq!(rejected(&mut cluster, 3, append(2, (1, 2), 0, &[2])), None, "the undecided end may go");
    assert_eq!(cluster.terms(1), [1, 1, 2]);
}

#[test]
fn a_decision_beyond_the_log_is_not_believed() {
    let mut cluster = Cluster::new(3);
    let beat = Heartbeat { term: Term(1), commit: LogIndex(u64::MAX), round: Round(1) };
    assert_eq!(rejected(&mut cluster, 2, Message::Heartbeat(beat)), Some(Rejection::Commit));
    let notice = CommitNotice { term: Term(1), commit: LogIndex(1) };
    assert_eq!(rejected(&mut cluster, 2, Message::CommitNotice(notice)), Some(Rejection::Commit));
    assert_eq!(cluster.decided(1), 0);
}

#[test]
fn nobody_is_pushed_to_where_terms_end() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, Message::NewerTerm(NewerTerm { term: Term::MAX }));
    assert_eq!(cluster.raft(1).term(), Term::MAX);
    for _ in 0..3 {
        cluster.time_out(1);
    }
    assert_eq!(cluster.role(1), Role::Follower, "there is no term left to campaign in");
}

/// Terms are believed: a member can end elections, and nothing else.
#[test]
fn a_member_that_claims_the_last_term_ends_elections_and_takes_nothing_back() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.propose(1, &["a"]);
    cluster.advance(HEARTBEAT);
    cluster.receive(3, 1, Message::NewerTerm(NewerTerm { term: Term::MAX }));
    cluster.advance(20 * TIMEOUT);
    assert_eq!(cluster.leader(), None);
    assert_eq!(cluster.term(1), Term::MAX.0);
    assert_eq!(cluster.payloads(1), ["a"]);
    cluster.restart(1);
    cluster.advance(20 * TIMEOUT);
    assert_eq!((cluster.leader(), cluster.term(1)), (None, Term::MAX.0));
    assert_eq!(cluster.node(1).disk.last_index(), 2, "the no-op and the command");
}
