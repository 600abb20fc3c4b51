//! What is revealed, counted and decided in which order with the writes to disk; and disks that stand still.

mod harness;

use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, TIMEOUT, at, entries};
use synod_core::{Entries, Input, LogEvent, LogIndex, Membership, NodeId, ReadId, Role, WriteId};
use synod_raft::{
    Append, Appended, Heartbeat, HeartbeatReply, Message, NewerTerm, PreVoteReply, Raft, Round, Term, Vote,
    VoteReply,
};

fn append(term: u64, prev: (u64, u64), entries: Entries) -> Message {
    Message::Append(Append { term: Term(term), prev: at(prev.0, prev.1), commit: LogIndex(0), entries })
}

fn from_one(cluster: &mut Cluster) -> Vec<Message> {
    cluster.take_sent().into_iter().filter(|letter| letter.from == 1).map(|letter| letter.message).collect()
}

#[test]
fn a_candidate_asks_for_votes_and_counts_its_own_only_when_its_vote_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.time_out(1);
    cluster.settle();
    let asked = |cluster: &mut Cluster| {
        let sent = from_one(cluster);
        sent.iter().filter(|message| matches!(message, Message::Vote(_))).count()
    };
    assert_eq!((cluster.term(1), asked(&mut cluster)), (1, 0));
    // Even two votes of others do not make a leader of a replica whose own is not safe.
    for id in [2, 3] {
        cluster.receive(id, 1, Message::VoteReply(VoteReply { term: Term(1), granted: true }));
    }
    assert_eq!(cluster.role(1), Role::Candidate);
    cluster.persist_one(1);
    assert_eq!(asked(&mut cluster), 2);
    assert_eq!(cluster.role(1), Role::Leader);
}

#[test]
fn a_vote_lost_with_the_disk_was_never_revealed() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.receive(2, 1, Message::Vote(Vote { term: Term(1), last: at(0, 0), transfer: false }));
    assert_eq!(cluster.raft(1).voted_for(), Some(NodeId(2)));
    assert_eq!(from_one(&mut cluster), []);
    cluster.restart(1);
    assert_eq!(cluster.raft(1).voted_for(), None, "so another may have it");
}

#[test]
fn a_repeated_vote_waits_for_the_same_write() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).slow_disk = true;
    for _ in 0..2 {
        cluster.receive(2, 1, Message::Vote(Vote { term: Term(1), last: at(0, 0), transfer: false }));
    }
    assert_eq!(from_one(&mut cluster), []);
    assert_eq!(cluster.node(1).pending.len(), 1);
    cluster.persist(1);
    assert_eq!(from_one(&mut cluster).len(), 2);
}

#[test]
fn a_duplicate_append_is_not_acknowledged_before_the_first_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).slow_disk = true;
    for _ in 0..2 {
        cluster.receive(2, 1, append(1, (0, 0), entries(1, &[1])));
    }
    assert_eq!(from_one(&mut cluster), []);
    cluster.persist(1);
    let ack = Message::Appended(Appended { term: Term(1), through: LogIndex(1) });
    assert_eq!(from_one(&mut cluster), [ack.clone(), ack]);
}

#[test]
fn several_appends_of_one_batch_are_acknowledged_once() {
    let mut cluster = Cluster::new(3);
    let inputs = [append(1, (0, 0), entries(1, &[1])), append(1, (1, 1), entries(2, &[1, 1]))]
        .map(|message| Input::Receive { from: NodeId(2), message });
    cluster.batch(1, inputs.into());
    cluster.persist(1);
    assert_eq!(from_one(&mut cluster), [Message::Appended(Appended { term: Term(1), through: LogIndex(3) })]);
}

#[test]
fn what_one_leader_proved_is_not_acknowledged_to_the_next() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    let one = Input::Receive { from: NodeId(2), message: append(1, (0, 0), entries(1, &[1, 1])) };
    let next = Input::Receive { from: NodeId(3), message: append(2, (0, 0), Entries::empty()) };
    cluster.batch(1, vec![one, next]);
    cluster.persist(1);
    assert_eq!(from_one(&mut cluster), [Message::Appended(Appended { term: Term(2), through: LogIndex(0) })]);
}

#[test]
fn heartbeats_are_answered_while_entries_wait_for_the_disk() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, append(1, (0, 0), entries(1, &[1])));
    cluster.persist(1);
    cluster.take_sent();
    cluster.node_mut(1).slow_disk = true;
    cluster.receive(2, 1, append(1, (1, 1), entries(2, &[1])));
    let beat = Heartbeat { term: Term(1), commit: LogIndex(0), round: Round(4) };
    cluster.receive(2, 1, Message::Heartbeat(beat));
    assert_eq!(
        from_one(&mut cluster),
        [Message::HeartbeatReply(HeartbeatReply {
            term: Term(1),
            round: Round(4),
            loyal_for: Duration::ZERO
        })]
    );
}

#[test]
fn what_reveals_a_new_term_waits_for_the_term_and_for_nothing_else() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.receive(2, 1, append(5, (0, 0), Entries::empty()));
    let beat =
        |term| Message::Heartbeat(Heartbeat { term: Term(term), commit: LogIndex(0), round: Round(1) });
    cluster.receive(2, 1, beat(5));
    cluster.receive(3, 1, beat(4));
    cluster.receive(2, 1, append(5, (5, 9), Entries::empty()));
    cluster.receive(2, 1, append(5, (0, 0), entries(1, &[5])));
    assert_eq!(from_one(&mut cluster), [], "term 5 is not durable");
    cluster.persist_one(1);
    let sent = from_one(&mut cluster);
    assert!(sent.contains(&Message::NewerTerm(NewerTerm { term: Term(5) })), "{sent:?}");
    assert!(sent.iter().any(|message| matches!(message, Message::HeartbeatReply(_))), "{sent:?}");
    assert!(sent.iter().any(|message| matches!(message, Message::AppendRejected(_))), "{sent:?}");
    let acks: Vec<_> = sent.iter().filter(|message| matches!(message, Message::Appended(_))).collect();
    assert_eq!(
        acks,
        [&Message::Appended(Appended { term: Term(5), through: LogIndex(0) })],
        "entry 1 still waits"
    );
}

#[test]
fn the_write_of_a_replaced_entry_does_not_prove_its_replacement() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    cluster.node_mut(1).slow_disk = true;
    cluster.receive(2, 1, append(1, (0, 0), entries(1, &[1, 1, 1])));
    cluster.receive(3, 1, append(2, (1, 1), entries(2, &[2, 2])));
    cluster.persist_one(1);
    cluster.take_sent();
    // The first write reported entries 2 and 3; those are gone.
    cluster.receive(3, 1, append(2, (2, 3), Entries::empty()));
    assert_eq!(from_one(&mut cluster), [], "entry 3 of term 2 is not durable yet");
    cluster.persist_one(1);
    let through = |index| Message::Appended(Appended { term: Term(2), through: LogIndex(index) });
    assert_eq!(from_one(&mut cluster), [through(3), through(3)]);
}

#[test]
fn a_leader_sends_while_its_own_disk_writes_and_counts_itself_only_afterwards() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.isolate(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.propose(1, &["a"]);
    cluster.settle();
    assert_eq!(cluster.node(2).disk.last_index(), 2, "replica 2 has it durably");
    assert_eq!(cluster.decided(1), 1, "one durable copy is no majority of three");
    cluster.persist(1);
    assert_eq!(cluster.decided(1), 2);
}

#[test]
fn others_decide_while_the_leaders_own_disk_is_slow() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.propose(1, &["a"]);
    cluster.settle();
    assert_eq!(cluster.decided(1), 2, "durable at 2 and 3");
}

#[test]
fn a_single_voter_decides_only_after_its_own_write_is_durable() {
    let mut cluster = Cluster::new(1);
    cluster.node_mut(1).slow_disk = true;
    cluster.time_out(1);
    assert_eq!(cluster.role(1), Role::Candidate, "its vote is not durable");
    cluster.persist_one(1);
    assert_eq!((cluster.role(1), cluster.decided(1)), (Role::Leader, 0));
    cluster.persist_one(1);
    assert_eq!(cluster.decided(1), 1);
    cluster.propose(1, &["a"]);
    cluster.settle();
    assert_eq!(cluster.decided(1), 1);
    cluster.persist_one(1);
    assert_eq!(cluster.payloads(1), ["a"]);
    cluster.read(1, 3);
    let index = LogIndex(2);
    assert!(cluster.take_events(1).contains(&LogEvent::ReadReady { id: ReadId(3), index }));
}

#[test]
fn a_single_voter_with_a_disk_slower_than_its_timeout_still_comes_to_lead() {
    let mut cluster = Cluster::new(1);
    cluster.node_mut(1).slow_disk = true;
    cluster.advance(20 * TIMEOUT);
    assert_eq!(cluster.term(1), 1, "no new term while the vote of the last is on its way");
    cluster.persist(1);
    assert_eq!(cluster.role(1), Role::Leader);
}

#[test]
fn a_candidate_whose_vote_waits_behind_other_writes_starts_no_further_term() {
    let mut cluster = Cluster::new(3);
    cluster.scripted = true;
    cluster.node_mut(1).slow_disk = true;
    cluster.receive(2, 1, append(1, (0, 0), entries(1, &[1])));
    cluster.receive(2, 1, append(1, (1, 1), entries(2, &[1])));
    // The disk moves once in a while, so it does not stand still; each election wait is less than two timeouts.
    cluster.now += TIMEOUT;
    cluster.persist_one(1);
    cluster.time_out(1);
    let granted = PreVoteReply { term: Term(1), asked: Term(2), granted: true };
    cluster.receive(2, 1, Message::PreVoteReply(granted));
    assert_eq!((cluster.role(1), cluster.term(1)), (Role::Candidate, 2));
    cluster.now += TIMEOUT;
    cluster.persist_one(1);
    assert_eq!(cluster.node(1).pending.len(), 1, "the vote is on its way");
    cluster.time_out(1);
    assert_eq!(cluster.raft(1).counters().pre_votes, 1);
    cluster.persist_one(1);
    cluster.receive(2, 1, Message::VoteReply(VoteReply { term: Term(2), granted: true }));
    assert_eq!(cluster.role(1), Role::Leader);
}

#[test]
fn a_leader_whose_disk_stands_still_steps_down_and_another_leads() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.propose(1, &["a"]);
    cluster.advance(TIMEOUT + HEARTBEAT);
    assert_eq!(cluster.raft(1).counters().disk_stalls, 1);
    cluster.advance(6 * TIMEOUT);
    let leader = cluster.leader().expect("another leads");
    assert_ne!(leader, 1);
    cluster.propose(leader, &["b"]);
    cluster.advance(2 * HEARTBEAT);
    assert_eq!(cluster.payloads(leader), ["a", "b"]);
    assert_eq!(cluster.raft(1).counters().elections, 1, "and it does not campaign without a disk");
    cluster.persist(1);
    cluster.advance(4 * HEARTBEAT);
    assert_eq!(cluster.payloads(1), ["a", "b"]);
}

#[test]
fn a_leader_whose_disk_is_slow_but_moves_stays() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.node_mut(1).slow_disk = true;
    for _ in 0..40 {
        cluster.propose(1, &["a"]);
        cluster.advance(TIMEOUT / 3);
        if cluster.node(1).pending.len() > 1 {
            cluster.persist_one(1);
        }
    }
    assert_eq!(cluster.raft(1).counters().disk_stalls, 0);
    assert_eq!(cluster.leader(), Some(1));
}

#[test]
fn a_restarted_replica_has_exactly_what_was_durable() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.node_mut(2).slow_disk = true;
    cluster.propose(1, &["a"]);
    cluster.settle();
    cluster.propose(1, &["b"]);
    cluster.settle();
    cluster.persist_one(2);
    cluster.restart(2);
    assert_eq!(cluster.raft(2).last_index(), LogIndex(2));
    cluster.node_mut(2).slow_disk = false;
    cluster.advance(6 * HEARTBEAT);
    assert_eq!(cluster.payloads(2), ["a", "b"]);
}

#[test]
fn an_election_started_by_a_slow_voter_waits_for_its_disk() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(2).slow_disk = true;
    cluster.node_mut(3).slow_disk = true;
    cluster.time_out(1);
    cluster.settle();
    assert_eq!(cluster.role(1), Role::Candidate, "no vote has left");
    cluster.persist(3);
    cluster.settle();
    assert_eq!(cluster.role(1), Role::Leader);
}

#[test]
fn an_answer_to_a_pre_vote_reveals_no_term_that_is_not_durable() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).slow_disk = true;
    cluster.receive(3, 1, Message::NewerTerm(NewerTerm { term: Term(6) }));
    let ask = synod_raft::PreVote { term: Term(2), last: at(0, 0) };
    cluster.receive(2, 1, Message::PreVote(ask));
    assert_eq!(from_one(&mut cluster), []);
    cluster.persist(1);
    let reply = PreVoteReply { term: Term(6), asked: Term(2), granted: false };
    assert_eq!(from_one(&mut cluster), [Message::PreVoteReply(reply)]);
}

#[test]
fn a_replica_does_not_open_on_what_it_cannot_have_written() {
    use bytes::Bytes;
    use synod_core::{Instant, Machine, OpenError, Recovered, Run, Start};
    let open = |ids: &[u64], recovered: Recovered| {
        let membership = Membership::of_ids(ids.iter().copied()).unwrap();
        let (node, config, now) = (NodeId(1), Raft::config(), Instant(0));
        Raft::open(Start { node, membership, config, recovered, now, seed: 1 }).map(|_| ())
    };
    assert_eq!(open(&[1, 2, 3], Recovered::default()), Ok(()));
    assert_eq!(open(&[2, 3], Recovered::default()), Err(OpenError::NotAMember { node: NodeId(1) }));
    let torn = Recovered { hard_state: Some(Bytes::from_static(b"\x01")), ..Recovered::default() };
    assert!(matches!(open(&[1], torn), Err(OpenError::HardState(_))));
    let run = Run { from: LogIndex(1), to: LogIndex(4), stamp: Term(2).stamp(), rising: false };
    let forgotten = Recovered { runs: vec![run], ..Recovered::default() };
    assert!(
        matches!(open(&[1], forgotten), Err(OpenError::Log { .. })),
        "entries of a term that was never seen"
    );
    let disk = Disk::with_log(&[1, 2], 2);
    assert_eq!(disk.last_index(), 2);
    assert_eq!(WriteId(0).next(), WriteId(1));
}

#[test]
fn quorums_that_could_elect_two_leaders_of_one_term_are_refused() {
    use synod_core::{Instant, Machine, Member, NodeSet, QuorumSystem, Recovered, SessionLimits, Start};
    let members = |count: u64| {
        (1..=count).map(|id| Member { id: NodeId(id), address: String::new() }).collect::<Vec<_>>()
    };
    let open = |quorums| {
        let membership = Membership::new(members(5), quorums, SessionLimits::default()).unwrap();
        let (node, config, recovered) = (NodeId(1), Raft::config(), Recovered::default());
        Raft::open(Start { node, membership, config, recovered, now: Instant(0), seed: 1 }).is_ok()
    };
    let all: NodeSet = (1..=5).map(NodeId).collect();
    let counted =
        |election, replication| QuorumSystem::Counted { members: all.clone(), election, replication };
    assert!(open(counted(3, 3)) && open(counted(4, 2)));
    assert!(!open(counted(2, 4)), "it decides safely, and elects two leaders");
    let old = Box::new(counted(2, 4));
    assert!(open(QuorumSystem::Joint { old: old.clone(), new: Box::new(counted(3, 3)) }));
    assert!(!open(QuorumSystem::Joint { old: old.clone(), new: old }));
}
