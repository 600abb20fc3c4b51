//! The paper, by section: the algorithm (3.1), collisions (3.2), progress (3.3), and what implementations have got wrong.

use std::time::Duration;

use synod_core::{
    Entry, Input, LogIndex, Machine, Member, Membership, NodeId, Protocol, QuorumSystem, Role, SessionLimits,
};
use synod_multipaxos::{Any, CanvassReply, FastPaxos, Message, Prepare, Recovery, Resolve, Round};

use super::harness::{Cluster, Letter, ballot, classic, loaded, promise, suggest, told, value, voted};

fn is_suggest(letter: &Letter) -> bool {
    matches!(letter.message, Message::Suggest(_))
}

fn is_voted(letter: &Letter) -> bool {
    matches!(letter.message, Message::Voted(_))
}

/// The leader of ballot 1.1 opens slots from `from` on, says so to replica 2, and nobody else is heard.
fn any(from: u64) -> Message {
    Message::Any(Any {
        ballot: ballot(1, 1),
        first: LogIndex(1),
        commit: LogIndex::ZERO,
        round: Round(1),
        from: LogIndex(from),
    })
}

// --- 3.1 the basic algorithm ---

#[test]
fn what_any_replica_proposes_is_learned_by_all_after_two_message_delays() {
    for count in [3, 4, 5, 7] {
        for proposer in 1..=count {
            let mut cluster = Cluster::new(count).open_to_all();
            cluster.propose(proposer, &["a"]);
            assert_eq!(cluster.rounds_until(1), 2, "replica {proposer} of {count}");
            assert_eq!(cluster.values(count), ["a"]);
        }
    }
}

#[test]
fn an_acceptor_votes_for_the_first_value_that_it_hears_of_and_for_no_other() {
    let mut cluster = Cluster::new(4);
    cluster.receive(1, 2, any(1));
    cluster.network.clear();
    cluster.receive(3, 2, suggest(ballot(1, 1), vec![value(ballot(1, 1), 1, 1, "a")]));
    assert_eq!(told(&cluster.take_for(4)), ["1:fast:a"]);
    cluster.receive(4, 2, suggest(ballot(1, 1), vec![value(ballot(1, 1), 1, 2, "b")]));
    assert_eq!(told(&cluster.take_for(4)), ["1:fast:a"], "whoever asks again is told the vote there is");
    assert_eq!(cluster.log(2), ["a"]);
}

#[test]
fn a_vote_is_told_when_it_is_durable_and_remembered_by_the_next_life() {
    let mut cluster = Cluster::new(4);
    cluster.receive(1, 2, any(1));
    cluster.network.clear();
    cluster.slow_disk(2, true);
    cluster.receive(3, 2, suggest(ballot(1, 1), vec![value(ballot(1, 1), 1, 1, "a")]));
    assert_eq!(told(&cluster.take_for(4)), [""; 0], "the disk is writing");
    cluster.slow_disk(2, false);
    assert_eq!(told(&cluster.take_for(4)), ["1:fast:a"]);
    cluster.restart(2);
    cluster.receive(1, 2, any(1));
    cluster.network.clear();
    cluster.receive(4, 2, suggest(ballot(1, 1), vec![value(ballot(1, 1), 1, 2, "b")]));
    assert_eq!(told(&cluster.take_for(4)), ["1:fast:a"]);
    assert_eq!(cluster.log(2), ["a"]);
}

#[test]
fn nobody_votes_before_it_has_heard_that_the_round_is_open() {
    let mut cluster = Cluster::new(4);
    cluster.receive(3, 2, suggest(ballot(1, 1), vec![value(ballot(1, 1), 1, 1, "a")]));
    assert_eq!(cluster.log(2), [""; 0]);
    assert_eq!(cluster.paxos(2).counters().not_open, 1);
    // From slot 5 on, and not below.
    cluster.receive(1, 2, any(5));
    cluster.receive(3, 2, suggest(ballot(1, 1), vec![value(ballot(1, 1), 4, 1, "a")]));
    assert_eq!(cluster.log(2), [""; 0]);
    assert_eq!(cluster.paxos(2).counters().rejected, 1);
}

#[test]
fn a_higher_promise_closes_the_rounds_that_were_open() {
    let mut cluster = Cluster::new(4);
    cluster.receive(1, 2, any(1));
    let prepare = Prepare { ballot: ballot(2, 3), from: LogIndex(1) };
    cluster.receive(3, 2, Message::Prepare(prepare));
    cluster.receive(4, 2, suggest(ballot(1, 1), vec![value(ballot(1, 1), 1, 1, "a")]));
    assert_eq!(cluster.log(2), [""; 0]);
    // What the old coordinator says comes too late as well.
    cluster.receive(1, 2, any(1));
    cluster.receive(4, 2, suggest(ballot(1, 1), vec![value(ballot(1, 1), 1, 1, "a")]));
    assert_eq!(cluster.log(2), [""; 0]);
    assert!(!cluster.paxos(2).is_open());
}

/// Replica 1 of five campaigns in ballot `b`, and hears what the others' promises tell.
fn candidate_hears(promises: &[(u64, Vec<Entry>)]) -> Cluster {
    let mut cluster = Cluster::new(5);
    cluster.now = cluster.paxos(1).next_deadline().unwrap();
    cluster.batch(1, vec![Input::Tick]);
    for peer in 2..=5 {
        let reply =
            CanvassReply { ballot: ballot(1, 1), granted: true, seen: ballot(8, 5), decided: LogIndex::ZERO };
        cluster.receive(peer, 1, Message::CanvassReply(reply));
    }
    cluster.network.clear();
    for (peer, votes) in promises {
        cluster.receive(*peer, 1, promise(ballot(9, 1), votes.clone()));
    }
    assert_eq!(cluster.role(1), Role::Leader);
    cluster
}

#[test]
fn the_coordinator_proposes_the_value_that_a_fast_quorum_may_have_chosen() {
    let old = ballot(3, 5);
    let (a, b) = (|| vec![value(old, 1, 1, "a")], || vec![value(old, 1, 2, "b")]);
    // Of its own and two answers, two votes bind: four of five may have voted alike, with those two that did not
    // answer. (Its own answer is no vote.)
    let cluster = candidate_hears(&[(2, a()), (3, a())]);
    assert_eq!(cluster.log(1), ["a"]);
    // One against one: neither can be chosen, since replica 1 has no vote. The lowest voter's is taken.
    let cluster = candidate_hears(&[(3, b()), (2, a())]);
    assert_eq!(cluster.log(1), ["a"]);
    // A single vote alone is proposed as well.
    let cluster = candidate_hears(&[(2, vec![]), (3, b())]);
    assert_eq!(cluster.log(1), ["b"]);
}

#[test]
fn of_two_rounds_the_higher_one_counts_and_a_classic_one_is_above_the_fast_one_of_its_ballot() {
    let old = ballot(3, 5);
    let (a, b) = (value(old, 1, 1, "a"), value(old, 1, 2, "b"));
    let cluster = candidate_hears(&[(2, vec![a.clone()]), (3, vec![classic(&b, old)])]);
    assert_eq!(cluster.log(1), ["b"]);
    let newer = ballot(4, 4);
    let cluster = candidate_hears(&[(2, vec![classic(&a, old)]), (3, vec![value(newer, 1, 2, "b")])]);
    assert_eq!(cluster.log(1), ["b"]);
}

#[test]
fn any_is_sent_only_for_slots_that_no_promise_reports_a_vote_in() {
    let mut cluster = candidate_hears(&[(2, vec![value(ballot(3, 5), 4, 1, "a")]), (3, vec![])]);
    // Slots 1 to 4 are proposed again, three of them as no-ops, and are decided first.
    assert_eq!(cluster.log(1), ["noop", "noop", "noop", "a"]);
    assert!(!cluster.paxos(1).is_open());
    cluster.run(8);
    assert_eq!(cluster.paxos(1).opening(), Some((ballot(9, 1), LogIndex(5))));
    assert_eq!(cluster.values(5), ["noop", "noop", "noop", "a"]);
}

#[test]
fn a_classic_quorum_decides_nothing_in_a_fast_round() {
    // Of five, three elect and four decide fast.
    let mut cluster = Cluster::new(5);
    let a = || voted(ballot(1, 1), 0, vec![value(ballot(1, 1), 1, 1, "a")]);
    for voter in [2, 3, 4] {
        cluster.receive(voter, 1, a());
    }
    assert_eq!(cluster.decided(1), 0);
    cluster.receive(5, 1, a());
    assert_eq!(cluster.decided(1), 1);
    // In a classic round, three do.
    let classic_vote = |word, sequence| {
        voted(ballot(1, 1), 0, vec![classic(&value(ballot(1, 1), 2, sequence, word), ballot(1, 1))])
    };
    for (voter, decided) in [(2, 1), (3, 1), (4, 2)] {
        cluster.receive(voter, 1, classic_vote("b", 2));
        assert_eq!(cluster.decided(1), decided);
    }
}

#[test]
fn votes_of_two_rounds_or_for_two_commands_of_the_same_bytes_are_not_added_up() {
    let mut cluster = Cluster::new(4);
    let (one, two) = (value(ballot(1, 1), 1, 1, "a"), value(ballot(1, 1), 1, 2, "a"));
    cluster.receive(2, 1, voted(ballot(1, 1), 0, vec![one.clone()]));
    cluster.receive(3, 1, voted(ballot(1, 1), 0, vec![one.clone()]));
    cluster.receive(4, 1, voted(ballot(1, 1), 0, vec![two]));
    assert_eq!(cluster.decided(1), 0, "two commands with equal bytes");
    let mut cluster = Cluster::new(4);
    let next = || value(ballot(2, 2), 1, 1, "a");
    cluster.receive(2, 1, voted(ballot(1, 1), 0, vec![one.clone()]));
    cluster.receive(3, 1, voted(ballot(2, 2), 0, vec![next()]));
    cluster.receive(4, 1, voted(ballot(2, 2), 0, vec![next()]));
    assert_eq!(cluster.decided(1), 0, "two ballots");
    cluster.receive(2, 1, voted(ballot(2, 2), 0, vec![next()]));
    assert_eq!(cluster.decided(1), 1);
}

// --- 3.2 collision recovery ---

/// Two replicas propose at the same moment, and each value reaches half of the acceptors first.
fn collide(cluster: &mut Cluster) {
    let count = cluster.membership_len();
    cluster.propose(1, &["a"]);
    cluster.propose(count, &["b"]);
    // Each acceptor hears of the value from its side first.
    cluster.network.sort_by_key(|letter| {
        let low = letter.to <= count / 2;
        (low && letter.from == count) || (!low && letter.from == 1)
    });
}

#[test]
fn with_coordinated_recovery_a_collision_takes_four_message_delays() {
    for count in [4, 5, 7] {
        let mut cluster = Cluster::new(count).open_to_all();
        collide(&mut cluster);
        assert_eq!(cluster.rounds_until(1), 4, "{count} replicas");
        let counters = cluster.paxos(1).counters();
        assert_eq!((counters.collisions, counters.slow_path), (1, 1));
        // The loser proposes again in the next slot, without being asked.
        assert_eq!(cluster.rounds_until(2), 2);
        let mut values = cluster.values(1);
        values.sort();
        assert_eq!(values, ["a", "b"]);
    }
}

#[test]
fn with_a_restart_it_takes_six() {
    let config = FastPaxos::config().recovery(Recovery::Restart);
    let mut cluster = Cluster::with(Membership::of_ids(1..=5).unwrap(), config).open_to_all();
    collide(&mut cluster);
    assert_eq!(cluster.rounds_until_the_leader_has(1), 6);
    assert_eq!(cluster.paxos(1).status().reign.number, 2);
}

#[test]
fn the_classic_round_proposes_the_one_value_that_may_have_been_chosen() {
    // Of four, three decide fast: with two votes and one against, the fourth may have made it three.
    let mut cluster = Cluster::new(4).open_to_all();
    let open = ballot(1, 1);
    let (a, b) = (value(open, 1, 1, "a"), value(open, 1, 2, "b"));
    cluster.receive(2, 1, suggest(open, vec![b.clone()]));
    for (voter, vote) in [(2, &a), (3, &b)] {
        cluster.receive(voter, 1, voted(open, 0, vec![vote.clone()]));
    }
    cluster.lose(|_| true);
    // Nothing is stuck: it may still go either way. Time is what ends the wait.
    cluster.tick_after(1, Duration::from_millis(20));
    let resolved = cluster.take_for(4).into_iter().find_map(|message| match message {
        Message::Resolve(Resolve { values, .. }) => Some(values),
        _ => None,
    });
    assert_eq!(resolved, Some(loaded(vec![classic(&b, open)])));
}

#[test]
fn an_acceptor_leaves_the_fast_round_for_the_classic_one_and_never_returns() {
    let open = ballot(1, 1);
    let mut cluster = Cluster::new(4);
    cluster.receive(1, 2, any(1));
    let (a, b) = (value(open, 1, 1, "a"), value(open, 1, 2, "b"));
    cluster.receive(3, 2, suggest(open, vec![a.clone()]));
    let resolve = |entry| {
        let values = loaded(vec![classic(entry, open)]);
        Message::Resolve(Resolve { ballot: open, first: LogIndex(1), commit: LogIndex::ZERO, values })
    };
    cluster.network.clear();
    cluster.receive(1, 2, resolve(&b));
    assert_eq!(told(&cluster.take_for(3)), ["1:classic:b"]);
    cluster.receive(3, 2, suggest(open, vec![a]));
    assert_eq!(told(&cluster.take_for(3)), ["1:classic:b"]);
    assert_eq!(cluster.log(2), ["b"]);
    // Who comes to the classic round without a vote in the fast one does not vote there any more either.
    cluster.receive(1, 3, any(1));
    cluster.receive(1, 3, resolve(&b));
    cluster.receive(2, 3, suggest(open, vec![value(open, 1, 1, "a")]));
    assert_eq!(cluster.log(3), ["b"]);
}

// --- 3.3 progress ---

#[test]
fn votes_that_are_lost_are_asked_for_again() {
    let mut cluster = Cluster::new(4).open_to_all();
    cluster.propose(2, &["a"]);
    cluster.round();
    cluster.lose(is_voted);
    cluster.tick_after(2, Duration::from_millis(50));
    cluster.run(2);
    assert_eq!(cluster.decided(2), 1);
    assert_eq!(cluster.paxos(2).counters().resent, 1);
}

#[test]
fn a_value_that_reached_one_acceptor_alone_is_offered_to_the_others_not_a_noop() {
    let mut cluster = Cluster::new(4).open_to_all();
    cluster.propose(2, &["a"]);
    // Nobody but its own proposer votes, and it is gone; the coordinator has heard of the vote.
    cluster.lose(is_suggest);
    cluster.run(1);
    cluster.tick_after(1, Duration::from_millis(20));
    cluster.run(2);
    assert_eq!(cluster.values(3), ["a"]);
    assert_eq!(cluster.paxos(1).counters().holes_filled, 0);
}

#[test]
fn with_fewer_than_a_fast_quorum_the_leader_orders_alone() {
    let config = FastPaxos::config();
    let timeout = Duration::from_millis(200);
    let mut cluster = Cluster::with(Membership::of_ids(1..=3).unwrap(), config).open_to_all();
    // Replica 3 is gone, and with it every fast quorum of three.
    for _ in 0..8 {
        cluster.tick_after(1, timeout / 4);
        cluster.lose(|letter| letter.from == 3 || letter.to == 3);
        cluster.run(1);
        cluster.lose(|letter| letter.from == 3 || letter.to == 3);
        cluster.run(3);
    }
    assert!(!cluster.paxos(1).is_open() && !cluster.paxos(2).is_open());
    assert_eq!(cluster.paxos(1).counters().fell_back, 1);
    cluster.propose(1, &["a"]);
    cluster.lose(|letter| letter.to == 3);
    cluster.run(2);
    assert_eq!(cluster.values(1), ["a"]);
}

// --- 3.4 choosing quorums ---

#[test]
fn a_fast_quorum_meets_every_other_one_inside_every_election_quorum() {
    let sizes = [(3, 3), (4, 3), (5, 4), (6, 5), (7, 6), (9, 7), (11, 9)];
    for (count, fast) in sizes {
        let quorums = QuorumSystem::majority((1..=count).map(NodeId));
        let first = |size: u64| (1..=size).map(NodeId).collect();
        assert!(quorums.is_fast_quorum(&first(fast)), "{fast} of {count}");
        assert!(!quorums.is_fast_quorum(&first(fast - 1)), "{} of {count}", fast - 1);
    }
}

#[test]
fn quorums_of_other_sizes_decide_as_they_say() {
    // Every replica elects: then three of five decide fast, and one alone in a classic round.
    let quorums = QuorumSystem::fast((1..=5).map(NodeId), 5, 1, 3).unwrap();
    let members = (1..=5).map(|id| Member { id: NodeId(id), address: String::new() }).collect();
    let membership = Membership::new(members, quorums, SessionLimits::default()).unwrap();
    let mut cluster = Cluster::with(membership, FastPaxos::config()).open_to_all();
    cluster.propose(2, &["a"]);
    cluster.lose(|letter| letter.to > 3);
    cluster.run(2);
    assert_eq!(cluster.decided(2), 1);
    assert!(QuorumSystem::fast((1..=5).map(NodeId), 3, 3, 3).is_err(), "three of five, as some have it");
}
