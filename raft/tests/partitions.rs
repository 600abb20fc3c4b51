//! Pre-vote, check-quorum and the belief in a leader, under partitions (thesis 9.6 and 6.2).

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, TIMEOUT, at};
use synod_core::{
    LogIndex, Machine, Member, Membership, NodeId, Protocol, QuorumSystem, Role, Route, SessionLimits,
};
use synod_raft::{Heartbeat, Message, NewerTerm, PreVote, PreVoteReply, Raft, Round, Term, Vote};

fn pre_vote(term: u64, last: (u64, u64)) -> Message {
    Message::PreVote(PreVote { term: Term(term), last: at(last.0, last.1) })
}

#[test]
fn a_replica_that_was_cut_off_comes_back_without_disturbing_the_leader() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.isolate(3);
    cluster.advance(Duration::from_secs(5));
    assert_eq!(cluster.term(3), 1, "pre-votes spend no terms");
    assert!(cluster.raft(3).counters().pre_votes > 10);
    cluster.heal();
    cluster.advance(4 * TIMEOUT);
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), 1));
    assert_eq!(cluster.raft(3).route(), Route::Forward(NodeId(1)));
}

#[test]
fn a_pre_vote_moves_nobody_and_is_not_written() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, pre_vote(9, (0, 0)));
    cluster.receive(3, 1, pre_vote(9, (0, 0)));
    assert_eq!(cluster.term(1), 0);
    assert!(cluster.node(1).pending.is_empty());
    let granted = PreVoteReply { term: Term(0), asked: Term(9), granted: true };
    let sent: Vec<_> = cluster.take_sent().into_iter().map(|letter| letter.message).collect();
    assert_eq!(
        sent,
        [Message::PreVoteReply(granted), Message::PreVoteReply(granted)],
        "it may say yes to many"
    );
}

#[test]
fn a_pre_vote_is_denied_to_a_stale_log_and_to_a_stale_term() {
    let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(&[1, 2], 4))]);
    cluster.receive(2, 1, pre_vote(5, (1, 9)));
    cluster.receive(2, 1, pre_vote(4, (2, 2)));
    cluster.receive(2, 1, pre_vote(5, (2, 2)));
    let verdicts: Vec<bool> = cluster
        .take_sent()
        .into_iter()
        .map(|letter| match letter.message {
            Message::PreVoteReply(reply) => reply.granted && reply.term == Term(4),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(verdicts, [false, false, true]);
}

#[test]
fn whoever_hears_a_leader_ignores_requests_for_votes_and_their_terms() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.take_sent();
    for id in [1, 2] {
        cluster.receive(3, id, pre_vote(9, (8, 8)));
        cluster.receive(3, id, Message::Vote(Vote { term: Term(9), last: at(8, 8), transfer: false }));
        assert_eq!(cluster.term(id), 1);
    }
    assert_eq!(cluster.take_sent(), []);
    cluster.crash(1);
    cluster.now += TIMEOUT;
    cluster.receive(3, 2, pre_vote(9, (8, 8)));
    assert_eq!(cluster.take_sent().len(), 1, "the leader was not heard for the shortest timeout");
}

#[test]
fn an_answer_to_an_earlier_pre_vote_counts_for_nothing() {
    let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(&[], 4))]);
    cluster.time_out(1);
    let granted =
        |asked| Message::PreVoteReply(PreVoteReply { term: Term(4), asked: Term(asked), granted: true });
    cluster.receive(2, 1, granted(4));
    assert_eq!(cluster.term(1), 4);
    cluster.receive(2, 1, granted(5));
    assert_eq!(cluster.term(1), 5);
}

#[test]
fn a_leader_that_hears_no_quorum_steps_down() {
    let mut cluster = Cluster::led_by_one(5);
    for id in [3, 4, 5] {
        cluster.crash(id);
    }
    cluster.advance(TIMEOUT + 2 * HEARTBEAT);
    assert_eq!(cluster.role(2), Role::Follower);
    assert_ne!(cluster.role(1), Role::Leader);
    assert_eq!(cluster.raft(1).counters().quorums_lost, 1);
    assert_eq!(cluster.raft(1).route(), Route::Hold);
}

#[test]
fn a_leader_that_speaks_and_is_not_answered_steps_down_and_its_proposals_find_another() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.cut_one_way(2, 1);
    cluster.cut_one_way(3, 1);
    cluster.propose(1, &["a"]);
    cluster.advance(10 * TIMEOUT);
    let leader = cluster.leader().expect("another leads");
    assert_ne!(leader, 1);
    assert_eq!(cluster.payloads(leader), ["a"], "it was in their logs");
}

#[test]
fn a_leader_that_hears_and_cannot_speak_is_replaced() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.cut_one_way(1, 2);
    cluster.cut_one_way(1, 3);
    cluster.advance(10 * TIMEOUT);
    let leader = cluster.leader().expect("another leads");
    assert_ne!(leader, 1);
    assert_eq!(cluster.raft(1).route(), Route::Forward(NodeId(leader)));
}

#[test]
fn a_cut_between_leader_and_one_follower_makes_nothing_flap() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.cut(1, 2);
    for step in 0..40 {
        cluster.propose(1, &[&step.to_string()]);
        cluster.advance(TIMEOUT);
    }
    assert_eq!((cluster.leader(), cluster.term(1), cluster.term(3)), (Some(1), 1, 1));
    assert_eq!(cluster.payloads(1).len(), 40);
}

#[test]
fn a_chain_keeps_a_leader_and_decides() {
    let mut cluster = Cluster::new(3);
    cluster.cut(1, 3);
    cluster.advance(10 * TIMEOUT);
    let leader = cluster.leader().expect("somebody leads");
    let term = cluster.term(leader);
    cluster.propose(leader, &["a"]);
    cluster.advance(Duration::from_secs(10));
    assert_eq!(cluster.payloads(leader), ["a"]);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term));
}

/// Quorum loss: only replica 3 still reaches a majority, and it is not the leader.
#[test]
fn the_one_replica_that_still_reaches_a_majority_comes_to_lead() {
    let mut cluster = Cluster::led_by_one(5);
    cluster.propose(1, &["a"]);
    cluster.advance(HEARTBEAT);
    for (a, b) in [(1, 2), (1, 4), (1, 5), (2, 4), (2, 5), (4, 5)] {
        cluster.cut(a, b);
    }
    cluster.advance(Duration::from_secs(10));
    assert_eq!(cluster.leader(), Some(3));
    cluster.propose(3, &["b"]);
    cluster.advance(TIMEOUT);
    assert_eq!(cluster.payloads(3), ["a", "b"]);
    let term = cluster.term(3);
    cluster.advance(Duration::from_secs(10));
    assert_eq!(cluster.term(3), term, "and stays");
}

/// Constrained election: the leader is gone and only a replica with an older log reaches a majority.
#[test]
fn a_constrained_election_may_stop_the_cluster_but_spends_no_terms_and_heals() {
    let mut cluster = Cluster::led_by_one(5);
    cluster.isolate(3);
    cluster.propose(1, &["a"]);
    cluster.advance(HEARTBEAT);
    cluster.heal();
    cluster.isolate(1);
    for (a, b) in [(2, 4), (2, 5), (4, 5)] {
        cluster.cut(a, b);
    }
    cluster.advance(Duration::from_secs(10));
    let terms: u64 = (1..=5).map(|id| cluster.term(id)).max().unwrap();
    assert!(terms <= 2, "it went through {terms} terms");
    cluster.heal();
    cluster.advance(10 * TIMEOUT);
    let leader = cluster.leader().expect("it heals");
    assert_eq!(cluster.payloads(leader), ["a"]);
}

/// A replica with a later term and an older log neither leads nor stops the others.
#[test]
fn a_later_term_with_an_older_log_locks_nobody_out() {
    let disks = [
        (1, Disk::with_log(&[1, 2, 2], 2)),
        (2, Disk::with_log(&[1, 2, 2], 2)),
        (3, Disk::with_log(&[1], 9)),
    ];
    let mut cluster = Cluster::with(3, Raft::config(), &disks);
    cluster.isolate(3);
    cluster.elect(1);
    cluster.heal();
    cluster.advance(12 * TIMEOUT);
    let leader = cluster.leader().expect("somebody leads");
    assert_ne!(leader, 3);
    assert!(cluster.term(leader) >= 10);
    cluster.propose(leader, &["a"]);
    cluster.advance(2 * HEARTBEAT);
    assert_eq!(cluster.decided(3), cluster.decided(leader));
    assert_eq!(cluster.terms(3), cluster.terms(leader));
}

/// The same with only two replicas left, each of which needs the other.
#[test]
fn two_replicas_that_need_each_other_agree_on_a_term() {
    let disks = [(1, Disk::with_log(&[1, 2, 2], 2)), (2, Disk::with_log(&[1], 9))];
    let mut cluster = Cluster::with(3, Raft::config(), &disks);
    cluster.crash(3);
    cluster.advance(20 * TIMEOUT);
    assert_eq!(cluster.leader(), Some(1));
    assert!(cluster.term(1) >= 10);
}

#[test]
fn a_leader_of_an_earlier_term_is_told_so() {
    let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(&[], 5))]);
    let beat = Heartbeat { term: Term(4), commit: LogIndex(0), round: Round(1) };
    cluster.receive(2, 1, Message::Heartbeat(beat));
    let sent: Vec<_> = cluster.take_sent().into_iter().map(|letter| letter.message).collect();
    assert_eq!(sent, [Message::NewerTerm(NewerTerm { term: Term(5) })]);
}

#[test]
fn a_member_whose_voice_does_not_count_follows_and_never_campaigns() {
    let members = (1..=4).map(|id| Member { id: NodeId(id), address: String::new() }).collect();
    let quorums = QuorumSystem::majority([1, 2, 3].map(NodeId));
    let membership = Membership::new(members, quorums, SessionLimits::default()).unwrap();
    let mut cluster = Cluster::of(membership, Raft::config(), &[]);
    assert_eq!(cluster.raft(4).next_deadline(), None);
    cluster.elect(1);
    cluster.crash(3);
    cluster.propose(1, &["a"]);
    cluster.advance(2 * HEARTBEAT);
    assert_eq!(cluster.payloads(4), ["a"]);
    cluster.crash(2);
    cluster.propose(1, &["b"]);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.payloads(1), ["a"], "two copies, one of which does not count");
    cluster.advance(4 * TIMEOUT);
    assert_eq!(cluster.leader(), None);
    cluster.crash(1);
    cluster.advance(10 * TIMEOUT);
    assert_eq!(cluster.role(4), Role::Follower);
}

#[test]
fn a_replica_that_elects_itself_waits_for_nobody() {
    let mut cluster = Cluster::new(1);
    let start = cluster.now;
    cluster.advance(Duration::ZERO);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.now, start);
}

/// Any three of five elect and four decide, or the other way round.
fn counted(election: usize, replication: usize) -> Cluster {
    let members = (1..=5).map(|id| Member { id: NodeId(id), address: String::new() }).collect();
    let voters = (1..=5).map(NodeId).collect();
    let quorums = QuorumSystem::Counted { members: voters, election, replication };
    let membership = Membership::new(members, quorums, SessionLimits::default()).unwrap();
    let mut cluster = Cluster::of(membership, Raft::config(), &[]);
    cluster.elect(1);
    cluster.advance(HEARTBEAT);
    cluster
}

#[test]
fn replicas_that_could_elect_and_not_decide_wait_instead_of_electing_for_ever() {
    let mut cluster = counted(3, 4);
    for (a, b) in [(1, 4), (1, 5), (2, 4), (2, 5), (3, 4), (3, 5)] {
        cluster.cut(a, b);
    }
    cluster.advance(Duration::from_secs(10));
    assert_eq!(cluster.leader(), None, "it could decide nothing");
    let terms: Vec<u64> = (1..=5).map(|id| cluster.term(id)).collect();
    assert_eq!(terms, [1; 5], "and spent no terms");
    cluster.heal();
    cluster.advance(4 * TIMEOUT);
    let leader = cluster.leader().expect("it heals");
    cluster.propose(leader, &["a"]);
    cluster.advance(HEARTBEAT);
    assert_eq!(cluster.payloads(leader), ["a"]);
}

#[test]
fn a_leader_with_its_replication_quorum_stays_where_nobody_could_be_elected() {
    let mut cluster = counted(4, 2);
    for id in [3, 4, 5] {
        cluster.crash(id);
    }
    cluster.advance(Duration::from_secs(10));
    cluster.propose(1, &["a"]);
    cluster.advance(HEARTBEAT);
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), 1));
    assert_eq!(cluster.payloads(1), ["a"]);
}
