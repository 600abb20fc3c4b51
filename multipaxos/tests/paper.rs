//! One test for each claim of Lamport, "Paxos Made Simple" (2001), by section, and then for the rules that several
//! slots, a watermark and restarts add.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, Letter, TIMEOUT, ballot, entries, vote};
use synod_core::{
    Entry, Loaded, LogEvent, LogIndex, Machine, Membership, NodeId, QuorumSystem, ReadId, Role,
    SessionLimits, Stamp,
};
use synod_multipaxos::synod::{
    Accept as Ask, Accepted, Acceptor, Learner, Prepare, Promise, Proposer, Rejected, Vote,
};
use synod_multipaxos::{Message, MultiPaxos, Promise as Promises};

fn majority() -> QuorumSystem {
    QuorumSystem::majority([1, 2, 3].map(NodeId))
}

fn prepare(round: u64, node: u64) -> Prepare {
    Prepare { ballot: ballot(round, node) }
}

fn ask(round: u64, node: u64, value: &'static str) -> Ask<&'static str> {
    Ask { ballot: ballot(round, node), value }
}

fn promise(round: u64, node: u64, vote: Option<(u64, u64, &'static str)>) -> Promise<&'static str> {
    let vote = vote.map(|(round, node, value)| Vote { ballot: ballot(round, node), value });
    Promise { ballot: ballot(round, node), vote }
}

// --- 2.2 choosing a value: the acceptor ---

#[test]
fn p1_an_acceptor_accepts_the_first_proposal_it_receives() {
    let mut acceptor = Acceptor::default();
    let accepted = acceptor.on_accept(ask(1, 1, "a")).unwrap();
    assert_eq!(accepted.vote, Vote { ballot: ballot(1, 1), value: "a" });
}

#[test]
fn p1a_an_acceptor_accepts_unless_it_has_answered_a_higher_prepare() {
    let mut acceptor: Acceptor<&str> = Acceptor::default();
    acceptor.on_prepare(prepare(2, 1)).unwrap();
    let late = Rejected { ballot: ballot(1, 3), promised: ballot(2, 1) };
    assert_eq!(acceptor.on_accept(ask(1, 3, "a")), Err(late));
    assert!(acceptor.on_accept(ask(2, 1, "b")).is_ok(), "the ballot promised may be voted in");
    assert!(acceptor.on_accept(ask(3, 1, "c")).is_ok(), "and so may a higher one");
}

#[test]
fn a_vote_in_a_ballot_is_a_promise_of_it() {
    let mut acceptor = Acceptor::default();
    acceptor.on_accept(ask(5, 2, "a")).unwrap();
    assert_eq!(acceptor.promised(), ballot(5, 2));
    assert!(acceptor.on_prepare(prepare(5, 1)).is_err() && acceptor.on_accept(ask(4, 9, "b")).is_err());
}

#[test]
fn an_acceptor_promises_and_tells_the_vote_of_the_highest_ballot_it_cast() {
    let mut acceptor = Acceptor::default();
    assert_eq!(acceptor.on_prepare(prepare(1, 1)).unwrap().vote, None);
    acceptor.on_accept(ask(1, 1, "a")).unwrap();
    acceptor.on_accept(ask(2, 2, "b")).unwrap();
    let told = acceptor.on_prepare(prepare(3, 1)).unwrap();
    assert_eq!(told.vote, Some(Vote { ballot: ballot(2, 2), value: "b" }));
    assert!(acceptor.on_prepare(prepare(2, 9)).is_err(), "no lower ballot is promised");
    assert!(acceptor.on_prepare(prepare(3, 1)).is_ok(), "a repeated request is answered again");
}

#[test]
fn section_2_4_a_restart_remembers_promise_and_vote() {
    let mut acceptor = Acceptor::default();
    acceptor.on_accept(ask(1, 1, "a")).unwrap();
    acceptor.on_prepare(prepare(4, 2)).unwrap();
    let mut again = Acceptor::recover(acceptor.promised(), acceptor.vote().cloned());
    assert!(again.on_accept(ask(3, 3, "b")).is_err());
    assert_eq!(again.on_prepare(prepare(5, 1)).unwrap().vote.unwrap().value, "a");
}

// --- 2.2 choosing a value: the proposer ---

#[test]
fn p2c_a_proposer_takes_the_value_of_the_highest_ballot_among_a_quorum_of_promises() {
    let mut proposer = Proposer::new(NodeId(1), majority(), ballot(8, 1));
    assert_eq!(proposer.propose("mine").unwrap().ballot, ballot(9, 1));
    assert_eq!(proposer.on_promise(NodeId(2), promise(9, 1, Some((4, 2, "old")))), None, "one of three");
    let asked = proposer.on_promise(NodeId(3), promise(9, 1, Some((3, 3, "older")))).unwrap();
    assert_eq!((asked.ballot, asked.value), (ballot(9, 1), "old"));
}

#[test]
fn a_proposer_is_free_where_nobody_has_voted() {
    let mut proposer = Proposer::new(NodeId(1), majority(), ballot(0, 0));
    proposer.propose("mine").unwrap();
    proposer.on_promise(NodeId(2), promise(1, 1, None));
    assert_eq!(proposer.on_promise(NodeId(1), promise(1, 1, None)).unwrap().value, "mine");
}

#[test]
fn a_ballot_has_one_value_and_promises_are_counted_once_and_for_their_ballot() {
    let mut proposer = Proposer::new(NodeId(1), majority(), ballot(0, 0));
    proposer.propose("a").unwrap();
    assert_eq!(proposer.on_promise(NodeId(2), promise(1, 1, None)), None);
    assert_eq!(proposer.on_promise(NodeId(2), promise(1, 1, None)), None, "the same acceptor twice");
    proposer.propose("b").unwrap();
    assert_eq!(proposer.on_promise(NodeId(3), promise(1, 1, None)), None, "a promise of the ballot before");
    assert_eq!(proposer.on_promise(NodeId(2), promise(2, 1, None)), None);
    assert!(proposer.on_promise(NodeId(3), promise(2, 1, None)).is_some());
    assert_eq!(proposer.on_promise(NodeId(1), promise(2, 1, Some((1, 1, "c")))), None, "phase 2 has begun");
}

#[test]
fn a_preempted_proposer_goes_above_the_ballot_it_is_told_of() {
    let mut proposer = Proposer::new(NodeId(1), majority(), ballot(0, 0));
    proposer.propose("a").unwrap();
    assert!(proposer.on_rejected(Rejected { ballot: ballot(1, 1), promised: ballot(7, 3) }));
    assert_eq!(proposer.ballot(), None);
    assert_eq!(proposer.propose("a").unwrap().ballot, ballot(8, 1));
    assert!(!proposer.on_rejected(Rejected { ballot: ballot(1, 1), promised: ballot(7, 3) }), "it is stale");
}

// --- 2.3 learning a chosen value ---

#[test]
fn a_value_is_chosen_by_a_quorum_of_votes_in_one_ballot() {
    let accepted = |round, value| Accepted { vote: Vote { ballot: ballot(round, 1), value } };
    let mut learner = Learner::new(majority());
    learner.on_accepted(NodeId(1), accepted(1, "a"));
    learner.on_accepted(NodeId(1), accepted(1, "a"));
    assert_eq!(learner.chosen(), None, "one acceptor twice");
    learner.on_accepted(NodeId(2), accepted(2, "b"));
    assert_eq!(learner.chosen(), None, "votes of two ballots are not added up");
    assert_eq!(learner.on_accepted(NodeId(3), accepted(2, "b")), Some(&"b"));
    learner.on_accepted(NodeId(1), accepted(3, "c"));
    assert_eq!(learner.chosen(), Some(&"b"), "what is chosen stays");
}

// --- 3 many slots: phase 1 ---

fn promised(cluster: &mut Cluster) -> Vec<Promises> {
    let letters = cluster.take_sent().into_iter();
    letters
        .filter_map(
            |letter| if let Message::Promise(promise) = letter.message { Some(promise) } else { None },
        )
        .collect()
}

fn ask_promise(cluster: &mut Cluster, from: u64, to: u64, round: u64, first: u64) {
    let prepare = synod_multipaxos::Prepare { ballot: ballot(round, from), from: LogIndex(first) };
    cluster.receive(from, to, Message::Prepare(prepare));
    cluster.persist(to);
    while cluster.load_one(to) {}
}

#[test]
fn a_promise_tells_votes_above_the_watermark_only_and_what_is_chosen_as_chosen() {
    let chosen = Entry { stamp: Stamp::CHOSEN, ..vote(6, ballot(1, 1), "six") };
    let votes = [1, 2, 3, 5].map(|slot| vote(slot, ballot(1, 1), "v"));
    let disk = Disk::with_votes(&[&votes[..], &[chosen]].concat(), ballot(1, 1)).knowing(2);
    let mut cluster = Cluster::with(3, MultiPaxos::config(), &[(2, disk)]);
    cluster.scripted = true;
    ask_promise(&mut cluster, 1, 2, 4, 1);
    let told = promised(&mut cluster).remove(0);
    assert_eq!((told.decided, told.last, told.votes.to), (LogIndex(2), LogIndex(6), LogIndex(7)));
    let slots = told.votes.segments.iter().flat_map(|segment| segment.iter());
    let slots: Vec<(u64, bool)> = slots.map(|entry| (entry.index.0, entry.stamp == Stamp::CHOSEN)).collect();
    assert_eq!(slots, [(3, false), (5, false), (6, true)]);
}

#[test]
fn a_promise_misses_no_vote_in_flight_and_leaves_after_it() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.node_mut(2).slow_disk = true;
    cluster.propose(1, &["a"]);
    for letter in cluster.take(|letter| letter.to == 2) {
        cluster.deliver(letter);
    }
    cluster.take_sent();
    let prepare = synod_multipaxos::Prepare { ballot: ballot(9, 3), from: LogIndex(1) };
    cluster.receive(3, 2, Message::Prepare(prepare));
    while cluster.load_one(2) {}
    assert_eq!(promised(&mut cluster), [], "neither vote nor promise is durable");
    cluster.persist(2);
    let told = promised(&mut cluster).remove(0);
    assert_eq!(told.votes.segments[0].first_index(), LogIndex(1));
}

#[test]
fn a_large_promise_comes_in_chunks_and_counts_when_it_is_complete() {
    let values = ["0123456789"; 9];
    let votes: Vec<Entry> = entries(1, ballot(1, 1), &values).to_vec();
    let config = MultiPaxos::config().accept_bytes_max(300);
    let disks = [(2, Disk::with_votes(&votes, ballot(1, 1)))];
    let mut cluster = Cluster::with(3, config, &disks);
    cluster.isolate(1);
    cluster.time_out(3);
    cluster.settle();
    assert_eq!(cluster.role(3), Role::Leader);
    assert!(cluster.paxos(3).counters().chunks >= 4, "{:?}", cluster.paxos(3).counters());
    assert_eq!(cluster.paxos(3).counters().proposed_again, 9);
    assert_eq!(cluster.decided(3), 9);
}

#[test]
fn a_chunk_of_an_earlier_campaign_counts_for_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.time_out(1);
    for id in [2, 3] {
        for letter in cluster.take(|letter| letter.to == id) {
            cluster.deliver(letter);
        }
    }
    for letter in cluster.take(|letter| letter.to == 1) {
        cluster.deliver(letter);
    }
    cluster.persist(1);
    assert_eq!((cluster.role(1), cluster.promised(1)), (Role::Candidate, ballot(1, 1)));
    let stale = |round| {
        let zero = LogIndex::ZERO;
        let votes = Loaded { segments: Vec::new(), to: LogIndex(1) };
        let (from, ballot) = (LogIndex(1), ballot(round, 1));
        Message::Promise(Promises { ballot, from, decided: zero, trimmed: zero, last: zero, votes })
    };
    cluster.crash(1);
    cluster.start(1);
    cluster.time_out(1);
    cluster.settle();
    cluster.receive(2, 1, stale(1));
    assert!(cluster.promised(1) > ballot(1, 1), "PX5: another life takes another ballot");
}

#[test]
fn a_candidate_learns_what_others_know_to_be_decided_and_proposes_nothing_there() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.isolate(3);
    cluster.propose(1, &["a", "b", "c"]);
    cluster.advance(2 * HEARTBEAT);
    assert_eq!((cluster.decided(2), cluster.decided(3)), (3, 0));
    cluster.crash(1);
    cluster.heal();
    cluster.now += TIMEOUT;
    cluster.time_out(3);
    cluster.settle();
    assert_eq!(cluster.role(3), Role::Leader);
    assert!(cluster.paxos(3).counters().learned_first > 0);
    assert_eq!(cluster.paxos(3).counters().proposed_again, 0);
    assert_eq!(cluster.rounds(3), [99, 99, 99], "learned, and not voted for");
    cluster.propose(3, &["d"]);
    cluster.settle();
    assert_eq!(cluster.payloads(3), ["a", "b", "c", "d"]);
}

#[test]
fn a_new_leader_proposes_the_highest_ballots_value_again_and_no_ops_in_holes_in_one_burst() {
    let (one, two) = (ballot(1, 1), ballot(2, 2));
    let disks = [
        (1, Disk::with_votes(&[vote(1, one, "a"), vote(3, one, "old")], one)),
        (2, Disk::with_votes(&[vote(3, two, "new")], two)),
    ];
    let mut cluster = Cluster::with(3, MultiPaxos::config(), &disks);
    cluster.isolate(3);
    cluster.time_out(1);
    cluster.settle();
    assert_eq!(cluster.role(1), Role::Leader);
    assert_eq!(cluster.payloads(1), ["a", "new"]);
    let counters = *cluster.paxos(1).counters();
    assert_eq!((counters.proposed_again, counters.holes_filled), (2, 1));
    let again = cluster.take_sent().into_iter().filter(|letter| letter.to == 2);
    let bursts = again
        .filter(|letter| matches!(&letter.message, Message::Accept(accept) if accept.entries.len() == 3));
    assert_eq!(bursts.count(), 1);
}

// --- phase 2 and the watermark ---

fn accept(round: u64, node: u64, first: u64, commit: u64, at: u64, values: &[&str]) -> Message {
    let ballot = ballot(round, node);
    let entries = entries(at, ballot, values);
    Message::Accept(synod_multipaxos::Accept {
        ballot,
        first: LogIndex(first),
        commit: LogIndex(commit),
        to_all: false,
        entries,
    })
}

#[test]
fn a_watermark_decides_only_slots_accepted_in_its_own_ballot() {
    let old =
        Disk::with_votes(&[vote(1, ballot(1, 1), "stale"), vote(2, ballot(1, 1), "stale")], ballot(1, 1));
    let mut cluster = Cluster::with(3, MultiPaxos::config(), &[(3, old)]);
    cluster.scripted = true;
    cluster.receive(2, 3, accept(2, 2, 1, 2, 3, &["c"]));
    assert_eq!(cluster.decided(3), 0, "slots 1 and 2 hold votes of another ballot");
    cluster.receive(2, 3, accept(2, 2, 1, 2, 1, &["a"]));
    assert_eq!(cluster.decided(3), 1);
    cluster.receive(2, 3, accept(2, 2, 1, 3, 2, &["b"]));
    assert_eq!(cluster.decided(3), 3);
}

#[test]
fn what_is_known_to_be_decided_is_not_acknowledged_as_a_vote() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    // Replica 2 leads ballot 2. Somebody tells replica 3 that slot 1 was decided, perhaps in a later ballot.
    cluster.receive(2, 3, accept(2, 2, 1, 0, 2, &["b"]));
    let chosen = entries(1, ballot(9, 1), &["other"]);
    let told = synod_multipaxos::Chosen {
        from: LogIndex(1),
        decided: LogIndex(1),
        trimmed: LogIndex::ZERO,
        entries: chosen,
    };
    cluster.receive(1, 3, Message::Chosen(told));
    cluster.receive(2, 3, accept(2, 2, 1, 0, 1, &["a"]));
    cluster.persist(3);
    let last = cluster.take_sent().into_iter().rev().find_map(|letter| match letter {
        Letter { message: Message::Accepted(accepted), .. } => Some(accepted),
        _ => None,
    });
    let accepted = last.expect("every accept is answered");
    assert_eq!((accepted.through, accepted.decided), (LogIndex(0), LogIndex(1)));
    assert_eq!(cluster.rounds(3)[0], 99, "what is chosen is not overwritten");
}

#[test]
fn votes_of_two_ballots_decide_nothing() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.isolate(1);
    cluster.propose(1, &["a"]);
    cluster.settle();
    assert_eq!(cluster.decided(1), 0);
    cluster.advance(6 * TIMEOUT);
    let leader = cluster.leader().expect("the others elect one");
    assert_ne!(leader, 1);
    cluster.propose(leader, &["b"]);
    cluster.settle();
    cluster.heal();
    cluster.advance(6 * TIMEOUT);
    assert_eq!(cluster.payloads(1), ["b"], "the lone vote for `a` is not added to anything");
}

#[test]
fn an_acceptor_far_behind_learns_before_it_votes() {
    let config = MultiPaxos::config().undecided_entries_max(4).ahead_entries_max(4);
    let mut cluster = Cluster::with(3, config, &[]);
    cluster.scripted = true;
    cluster.receive(2, 3, accept(2, 2, 1, 0, 3, &["c", "d", "e", "f"]));
    assert_eq!(cluster.rounds(3), [0, 0, 2, 2], "no vote more than four slots above the watermark");
    assert_eq!(cluster.paxos(3).counters().too_far_ahead, 1);
}

#[test]
fn a_slot_is_decided_by_a_replication_quorum_and_a_leader_elected_by_an_election_quorum() {
    let ids = [1, 2, 3, 4];
    let quorums = QuorumSystem::small_replication(ids.map(NodeId)).unwrap();
    let members = ids.map(|id| synod_core::Member { id: NodeId(id), address: String::new() }).to_vec();
    let membership = Membership::new(members, quorums, SessionLimits::default()).unwrap();
    let mut cluster = Cluster::of(membership, MultiPaxos::config(), &[]);
    cluster.isolate(3);
    cluster.isolate(4);
    cluster.advance(8 * TIMEOUT);
    assert_eq!(cluster.leader(), None, "two of four elect nobody");
    cluster.heal();
    cluster.isolate(4);
    cluster.advance(8 * TIMEOUT);
    let leader = cluster.leader().expect("three of four elect");
    let other = if leader == 1 { 2 } else { 1 };
    for id in ids.into_iter().filter(|id| *id != leader && *id != other) {
        cluster.isolate(id);
    }
    cluster.propose(leader, &["a"]);
    cluster.settle();
    assert_eq!(cluster.decided(leader), 1, "two of four decide");
}

// --- reads ---

#[test]
fn a_read_is_answered_by_a_round_sent_after_it_came_and_not_before_old_values_are_decided_again() {
    let disks = [(2, Disk::with_votes(&[vote(1, ballot(1, 2), "a")], ballot(1, 2)))];
    let mut cluster = Cluster::with(3, MultiPaxos::config(), &disks);
    cluster.isolate(1);
    cluster.time_out(3);
    for _ in 0..40 {
        if cluster.role(3) == Role::Leader {
            break;
        }
        if let Some(letter) = cluster.network.pop_front() {
            cluster.deliver(letter);
        } else {
            let _ = [2, 3].iter().any(|id| cluster.persist_one(*id) || cluster.load_one(*id));
        }
    }
    assert_eq!((cluster.role(3), cluster.decided(3)), (Role::Leader, 0));
    cluster.read(3, 7);
    let beats = cluster.take(|letter| matches!(letter.message, Message::Heartbeat(_)));
    for letter in beats {
        cluster.deliver(letter);
    }
    for letter in cluster.take(|letter| matches!(letter.message, Message::HeartbeatReply(_))) {
        cluster.deliver(letter);
    }
    let ready = |cluster: &mut Cluster| {
        cluster
            .take_events(3)
            .into_iter()
            .any(|event| matches!(event, LogEvent::ReadReady { id: ReadId(7), .. }))
    };
    assert!(!ready(&mut cluster), "`a` may have been acknowledged and is not decided again yet");
    cluster.settle();
    assert!(ready(&mut cluster));
}

#[test]
fn a_deposed_leader_confirms_no_read() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.isolate(1);
    cluster.advance_only(2, Duration::ZERO);
    cluster.take_events(1);
    cluster.read(1, 7);
    cluster.advance(6 * TIMEOUT);
    let events = cluster.take_events(1);
    assert!(events.iter().any(|event| matches!(event, LogEvent::ReadFailed { .. })), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, LogEvent::ReadReady { .. })), "{events:?}");
}

// --- restarts ---

#[test]
fn a_restart_keeps_votes_and_takes_a_ballot_above_every_promise() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.propose(1, &["a"]);
    cluster.settle();
    cluster.restart(1);
    assert_eq!(cluster.rounds(1), [1]);
    assert!(cluster.paxos(1).next_deadline().is_some());
    cluster.advance(8 * TIMEOUT);
    let leader = cluster.leader().expect("somebody leads again");
    assert!(cluster.promised(leader) > ballot(1, 1));
    assert_eq!(cluster.payloads(leader), ["a"]);
}
