//! One test for each claim of the extended Raft paper (Ongaro and Ousterhout, "In Search of an
//! Understandable Consensus Algorithm", extended version): figure 2, section 5 and section 8.
//!
//! Each doc comment names the place; the test's name is the claim.

mod harness;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Cluster, Disk, HEARTBEAT, TIMEOUT, at, entries};
use synod_core::{Entries, Input, LogEvent, LogIndex, NodeId, Protocol, Refusal, Role, Route};
use synod_raft::{
    Append, AppendRejected, Appended, Heartbeat, HeartbeatReply, Message, NewerTerm, PreVoteReply, Raft,
    Round, Term, Vote, VoteReply,
};

fn append(term: u64, prev: (u64, u64), commit: u64, entries: Entries) -> Message {
    let prev = at(prev.0, prev.1);
    Message::Append(Append { term: Term(term), prev, commit: LogIndex(commit), entries })
}

fn vote(term: u64, last: (u64, u64)) -> Message {
    Message::Vote(Vote { term: Term(term), last: at(last.0, last.1), transfer: false })
}

fn replies(cluster: &mut Cluster, from: u64) -> Vec<Message> {
    cluster
        .take_sent()
        .into_iter()
        .filter(|letter| letter.from == from)
        .map(|letter| letter.message)
        .collect()
}

fn denied(term: u64) -> Message {
    Message::VoteReply(VoteReply { term: Term(term), granted: false })
}

fn granted(term: u64) -> Message {
    Message::VoteReply(VoteReply { term: Term(term), granted: true })
}

fn appended(term: u64, through: u64) -> Message {
    Message::Appended(Appended { term: Term(term), through: LogIndex(through) })
}

/// A follower that holds entries of these terms, in a cluster of three. Replica 1, with nobody else talking.
fn follower_with(terms: &[u64], term: u64) -> Cluster {
    let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(terms, term))]);
    cluster.scripted = true;
    cluster
}

mod figure_2_state {
    use super::*;

    /// Figure 2, persistent state: updated on stable storage before responding.
    #[test]
    fn a_vote_is_on_stable_storage_before_the_answer_leaves() {
        let mut cluster = Cluster::new(3);
        cluster.node_mut(1).slow_disk = true;
        cluster.receive(2, 1, vote(1, (0, 0)));
        assert!(replies(&mut cluster, 1).is_empty(), "the disk has not confirmed the vote");
        cluster.persist(1);
        assert_eq!(replies(&mut cluster, 1), [granted(1)]);
        assert_eq!(cluster.node(1).disk.state().voted_for, Some(NodeId(2)));
    }

    /// Figure 2, persistent state: log entries too.
    #[test]
    fn entries_are_on_stable_storage_before_they_are_acknowledged() {
        let mut cluster = Cluster::new(3);
        cluster.node_mut(1).slow_disk = true;
        cluster.receive(2, 1, append(1, (0, 0), 0, entries(1, &[1, 1])));
        assert!(replies(&mut cluster, 1).is_empty());
        cluster.persist(1);
        assert_eq!(replies(&mut cluster, 1), [appended(1, 2)]);
        assert_eq!(cluster.node(1).disk.last_index(), 2);
    }

    /// Figure 2, currentTerm and votedFor: kept over a restart.
    #[test]
    fn term_and_vote_survive_a_restart() {
        let mut cluster = Cluster::new(3);
        cluster.receive(2, 1, vote(7, (0, 0)));
        cluster.settle();
        cluster.restart(1);
        assert_eq!(cluster.term(1), 7);
        assert_eq!(cluster.raft(1).voted_for(), Some(NodeId(2)));
        cluster.receive(3, 1, vote(7, (0, 0)));
        cluster.settle();
        assert_eq!(replies(&mut cluster, 1), [granted(7), denied(7)], "one vote a term, over restarts too");
    }

    /// Figure 2, commitIndex: volatile, and it only increases.
    #[test]
    fn the_commit_index_begins_anew_after_a_restart_and_never_falls() {
        let mut cluster = follower_with(&[1, 1, 1], 1);
        assert_eq!(cluster.decided(1), 0);
        cluster.receive(2, 1, append(1, (1, 3), 3, Entries::empty()));
        assert_eq!(cluster.decided(1), 3);
        cluster.receive(2, 1, append(1, (1, 3), 1, Entries::empty()));
        assert_eq!(cluster.decided(1), 3);
        cluster.settle();
        cluster.restart(1);
        assert_eq!(cluster.decided(1), 0);
    }

    /// Figure 2, nextIndex: begins behind the leader's last entry.
    #[test]
    fn a_new_leader_first_tries_behind_its_own_last_entry() {
        let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(&[1, 1, 2], 2))]);
        cluster.elect(1);
        let first = cluster.sent.iter().find(|letter| matches!(letter.message, Message::Append(_))).unwrap();
        let Message::Append(append) = &first.message else { unreachable!() };
        assert_eq!(append.prev, at(2, 3));
    }

    /// Figure 2, matchIndex: begins at zero and only increases: what an earlier term's leader heard is void.
    #[test]
    fn a_new_leader_believes_no_log_matches_until_it_is_told_so() {
        let mut cluster = Cluster::with(3, Raft::config(), &[(1, Disk::with_log(&[1, 1, 2], 2))]);
        cluster.isolate(3);
        cluster.time_out(1);
        while cluster.role(1) != Role::Leader {
            assert!(
                cluster.network.pop_front().map(|letter| cluster.deliver(letter)).is_some()
                    || cluster.persist_one(1)
                    || cluster.persist_one(2)
            );
        }
        cluster.persist(1);
        cluster.receive(2, 1, appended(2, 3));
        assert_eq!(cluster.decided(1), 0, "an acknowledgement of another term counts for nothing");
    }
}

mod figure_2_append_entries {
    use super::*;

    /// Figure 2, AppendEntries 1: a leader of an earlier term is answered with the current one.
    #[test]
    fn an_append_of_an_earlier_term_is_refused() {
        let mut cluster = follower_with(&[1], 3);
        cluster.receive(2, 1, append(2, (1, 1), 1, entries(2, &[2])));
        cluster.settle();
        assert_eq!(replies(&mut cluster, 1), [Message::NewerTerm(NewerTerm { term: Term(3) })]);
        assert_eq!(cluster.terms(1), [1]);
        assert_eq!(cluster.decided(1), 0);
    }

    /// Figure 2, AppendEntries 2: no entry at prevLogIndex.
    #[test]
    fn an_append_behind_the_end_of_the_log_is_refused() {
        let mut cluster = follower_with(&[1], 1);
        cluster.receive(2, 1, append(1, (1, 3), 0, entries(4, &[1])));
        cluster.settle();
        let reply = AppendRejected { term: Term(1), prev: LogIndex(3), hint: at(1, 1) };
        assert_eq!(replies(&mut cluster, 1), [Message::AppendRejected(reply)]);
        assert_eq!(cluster.terms(1), [1]);
    }

    /// Figure 2, AppendEntries 2: an entry of another term at prevLogIndex.
    #[test]
    fn an_append_behind_an_entry_of_another_term_is_refused() {
        let mut cluster = follower_with(&[1, 2], 3);
        cluster.receive(2, 1, append(3, (3, 2), 0, entries(3, &[3])));
        cluster.settle();
        let reply = AppendRejected { term: Term(3), prev: LogIndex(2), hint: at(2, 2) };
        assert_eq!(replies(&mut cluster, 1), [Message::AppendRejected(reply)]);
        assert_eq!(cluster.terms(1), [1, 2], "a mismatch before the entries removes nothing");
    }

    /// Figure 2, AppendEntries 3: a conflicting entry and all that follow it go.
    #[test]
    fn a_conflicting_entry_and_all_that_follow_are_removed() {
        let mut cluster = follower_with(&[1, 2, 2, 2], 3);
        cluster.receive(2, 1, append(3, (1, 1), 0, entries(2, &[3])));
        cluster.settle();
        assert_eq!(cluster.terms(1), [1, 3]);
        assert_eq!(replies(&mut cluster, 1), [appended(3, 2)]);
        assert_eq!(cluster.node(1).disk.last_index(), 2);
    }

    /// Figure 2, AppendEntries 3: only if there is a conflict. A late, shorter append must not cut a longer log.
    #[test]
    fn entries_that_agree_are_not_removed() {
        let mut cluster = follower_with(&[1, 1, 1, 1], 1);
        cluster.receive(2, 1, append(1, (1, 1), 0, entries(2, &[1])));
        cluster.receive(2, 1, append(1, (1, 2), 0, Entries::empty()));
        cluster.settle();
        assert_eq!(cluster.terms(1), [1, 1, 1, 1]);
        assert_eq!(cluster.raft(1).counters().truncations, 0);
    }

    /// Figure 2, AppendEntries 4: new entries that are not in the log yet.
    #[test]
    fn only_entries_that_are_not_there_yet_are_appended() {
        let mut cluster = follower_with(&[1, 1], 1);
        cluster.receive(2, 1, append(1, (1, 1), 0, entries(2, &[1, 1, 1])));
        let written: Vec<_> = cluster.node(1).pending.iter().flat_map(|unit| unit.puts.clone()).collect();
        assert_eq!(written, [entries(3, &[1, 1])]);
        assert_eq!(cluster.terms(1), [1, 1, 1, 1]);
    }

    /// Figure 2, AppendEntries 5: the commit index is bounded by the last *new* entry, not by the last one.
    #[test]
    fn a_follower_decides_no_further_than_the_message_proved() {
        let mut cluster = follower_with(&[1, 1, 1, 1], 2);
        cluster.receive(2, 1, append(2, (1, 1), 4, entries(2, &[1])));
        assert_eq!(cluster.decided(1), 2, "entries 3 and 4 may be another leader's");
        cluster.receive(2, 1, append(2, (1, 2), 1, Entries::empty()));
        assert_eq!(cluster.decided(1), 2);
    }

    /// Figure 2, AppendEntries results: what is acknowledged is what matched, not the follower's last index.
    #[test]
    fn an_acknowledgement_covers_what_the_message_proved_and_no_more() {
        let mut cluster = follower_with(&[1, 1, 1, 1], 2);
        cluster.receive(2, 1, append(2, (1, 1), 0, entries(2, &[1])));
        cluster.settle();
        assert_eq!(replies(&mut cluster, 1), [appended(2, 2)]);
    }
}

mod figure_2_request_vote {
    use super::*;

    /// Figure 2, RequestVote 1.
    #[test]
    fn a_candidate_of_an_earlier_term_is_denied() {
        let mut cluster = follower_with(&[], 3);
        cluster.receive(2, 1, vote(2, (2, 9)));
        assert_eq!(replies(&mut cluster, 1), [denied(3)]);
    }

    /// Figure 2, RequestVote 2: votedFor is the candidate.
    #[test]
    fn the_same_candidate_gets_the_same_vote_again() {
        let mut cluster = Cluster::new(3);
        cluster.receive(2, 1, vote(1, (0, 0)));
        cluster.receive(2, 1, vote(1, (0, 0)));
        cluster.settle();
        assert_eq!(replies(&mut cluster, 1), [granted(1), granted(1)]);
    }

    /// Figure 2, RequestVote 2: votedFor is somebody else.
    #[test]
    fn a_second_candidate_of_the_same_term_is_denied() {
        let mut cluster = Cluster::new(3);
        cluster.receive(2, 1, vote(1, (0, 0)));
        cluster.receive(3, 1, vote(1, (5, 5)));
        cluster.settle();
        assert_eq!(replies(&mut cluster, 1), [granted(1), denied(1)]);
        assert_eq!(cluster.raft(1).voted_for(), Some(NodeId(2)));
    }

    /// Figure 2, RequestVote 2: the log must be at least as up to date.
    #[test]
    fn a_candidate_with_an_older_log_is_denied() {
        for (last, wins) in [
            ((2, 3), true),
            ((2, 4), true),
            ((3, 1), true),
            ((2, 2), false),
            ((1, 9), false),
            ((0, 0), false),
        ] {
            let mut cluster = follower_with(&[1, 2, 2], 2);
            cluster.receive(2, 1, vote(4, last));
            cluster.settle();
            let want = if wins { granted(4) } else { denied(4) };
            assert_eq!(replies(&mut cluster, 1), [want], "a log that ends at {last:?}");
        }
    }
}

mod figure_2_rules_for_servers {
    use super::*;

    /// Figure 2, all servers: what is committed is applied: the host is told.
    #[test]
    fn the_host_is_told_how_far_the_log_is_decided_once_a_batch() {
        let mut cluster = follower_with(&[], 0);
        let message =
            |prev: u64, commit| append(1, (u64::from(prev > 0), prev), commit, entries(prev + 1, &[1]));
        let inputs = [message(0, 0), message(1, 1), message(2, 2)]
            .map(|message| Input::Receive { from: NodeId(2), message });
        cluster.batch(1, inputs.into());
        let decided =
            cluster.take_events(1).into_iter().filter(|event| matches!(event, LogEvent::Decided(_)));
        assert_eq!(decided.collect::<Vec<_>>(), [LogEvent::Decided(LogIndex(2))]);
    }

    /// Figure 2, all servers: a later term in any message makes a follower of that term.
    #[test]
    fn every_role_moves_to_a_later_term_and_follows() {
        for role in [Role::Follower, Role::Candidate, Role::Leader] {
            let mut cluster = Cluster::new(3);
            match role {
                Role::Follower => {}
                Role::Candidate => cluster.time_out(1),
                Role::Leader => cluster.elect(1),
            }
            assert_eq!(cluster.role(1), role);
            cluster.receive(2, 1, append(9, (0, 0), 0, Entries::empty()));
            assert_eq!((cluster.role(1), cluster.term(1)), (Role::Follower, 9));
        }
    }

    /// Figure 2, all servers: replies too.
    #[test]
    fn a_later_term_in_a_reply_deposes_a_leader() {
        let later = [
            appended(9, 1),
            denied(9),
            Message::NewerTerm(NewerTerm { term: Term(9) }),
            Message::HeartbeatReply(HeartbeatReply {
                term: Term(9),
                round: Round(1),
                loyal_for: Duration::ZERO,
            }),
            Message::AppendRejected(AppendRejected { term: Term(9), prev: LogIndex(1), hint: at(0, 0) }),
            Message::PreVoteReply(PreVoteReply { term: Term(9), asked: Term(2), granted: false }),
        ];
        for message in later {
            let mut cluster = Cluster::led_by_one(3);
            cluster.receive(2, 1, message.clone());
            assert_eq!((cluster.role(1), cluster.term(1)), (Role::Follower, 9), "{message}");
        }
    }

    /// Figure 2, followers: no sign of a leader and no vote given for a timeout: it campaigns.
    #[test]
    fn a_follower_that_hears_nobody_for_a_timeout_campaigns() {
        let mut cluster = Cluster::new(3);
        let start = cluster.now;
        cluster.time_out(1);
        assert!(cluster.now - start >= TIMEOUT && cluster.now - start < 2 * TIMEOUT);
        assert_eq!(cluster.role(1), Role::Candidate);
    }

    /// Figure 2, followers: a vote given moves the timeout on; one refused does not.
    #[test]
    fn a_vote_given_moves_the_timeout_on_and_a_vote_refused_does_not() {
        let mut cluster = follower_with(&[1, 1], 1);
        let before = cluster.raft(1).counters().pre_votes;
        let due = |cluster: &Cluster| synod_core::Machine::next_deadline(cluster.raft(1)).unwrap();
        let first = due(&cluster);
        cluster.now += TIMEOUT / 2;
        cluster.receive(2, 1, vote(2, (1, 1)));
        assert_eq!(due(&cluster), first, "refused");
        cluster.receive(3, 1, vote(2, (1, 2)));
        assert!(due(&cluster) > first, "given");
        assert_eq!(cluster.raft(1).counters().pre_votes, before);
    }

    /// Figure 2, candidates: the new term, the own vote, the timer and the requests, in this order.
    #[test]
    fn a_candidate_moves_to_the_next_term_votes_for_itself_and_asks_everybody() {
        let mut cluster = Cluster::new(5);
        cluster.time_out(1);
        let asked = cluster.take(|_| true);
        assert!(asked.iter().all(|letter| matches!(letter.message, Message::PreVote(_))) && asked.len() == 4);
        for id in [2, 3] {
            let reply = PreVoteReply { term: Term(0), asked: Term(1), granted: true };
            cluster.receive(id, 1, Message::PreVoteReply(reply));
        }
        assert_eq!((cluster.term(1), cluster.raft(1).voted_for()), (1, Some(NodeId(1))));
        cluster.take_sent();
        cluster.persist(1);
        let asked: BTreeSet<u64> = cluster.take_sent().iter().map(|letter| letter.to).collect();
        assert_eq!(asked, BTreeSet::from([2, 3, 4, 5]));
    }

    /// Figure 2, candidates: votes of a majority make a leader, and not one vote fewer.
    #[test]
    fn votes_of_a_majority_elect() {
        let mut cluster = Cluster::new(5);
        cluster.isolate(4);
        cluster.isolate(5);
        cluster.time_out(1);
        let held_back = |letter: &harness::Letter| matches!(letter.message, Message::VoteReply(_));
        for _ in 0..9 {
            cluster.take(held_back);
            if let Some(letter) = cluster.network.pop_front() {
                cluster.deliver(letter);
            }
            cluster.persist(1);
        }
        assert_eq!(cluster.role(1), Role::Candidate);
        cluster.receive(2, 1, granted(1));
        cluster.receive(2, 1, granted(1));
        assert_eq!(cluster.role(1), Role::Candidate, "its own and one other, counted once");
        cluster.receive(3, 1, granted(1));
        assert_eq!(cluster.role(1), Role::Leader);
    }

    /// Figure 2, candidates: votes count in the term they were given in.
    #[test]
    fn votes_of_an_earlier_term_count_for_nothing() {
        let mut cluster = follower_with(&[], 4);
        cluster.time_out(1);
        let reply = PreVoteReply { term: Term(4), asked: Term(5), granted: true };
        cluster.receive(2, 1, Message::PreVoteReply(reply));
        cluster.persist(1);
        cluster.receive(2, 1, granted(4));
        cluster.receive(3, 1, granted(3));
        assert_eq!((cluster.role(1), cluster.term(1)), (Role::Candidate, 5));
        cluster.receive(2, 1, granted(5));
        assert_eq!(cluster.role(1), Role::Leader);
    }

    /// Figure 2, candidates: an append of a new leader makes a follower.
    #[test]
    fn a_candidate_that_hears_the_leader_of_its_term_follows_it() {
        let mut cluster = Cluster::new(3);
        cluster.receive(3, 1, vote(1, (0, 0)));
        cluster.settle();
        cluster.time_out(1);
        assert_eq!(cluster.role(1), Role::Candidate);
        cluster.receive(2, 1, append(1, (0, 0), 0, Entries::empty()));
        assert_eq!(cluster.role(1), Role::Follower);
        assert_eq!(cluster.raft(1).route(), Route::Forward(NodeId(2)));
    }

    /// Figure 2, candidates: an election that leads nowhere is followed by another.
    #[test]
    fn an_election_that_leads_nowhere_is_followed_by_another() {
        let mut cluster = Cluster::new(3);
        cluster.time_out(1);
        let granted = PreVoteReply { term: Term(0), asked: Term(1), granted: true };
        cluster.network.clear();
        cluster.receive(2, 1, Message::PreVoteReply(granted));
        cluster.persist(1);
        cluster.network.clear();
        assert_eq!((cluster.role(1), cluster.term(1)), (Role::Candidate, 1));
        cluster.time_out(1);
        let asks = cluster.take(|letter| matches!(letter.message, Message::PreVote(_)));
        assert_eq!(asks.len(), 2);
        let Message::PreVote(ask) = &asks[0].message else { unreachable!() };
        assert_eq!(ask.term, Term(2));
    }

    /// Figure 2, leaders: something is sent at once upon election, and again while idle.
    #[test]
    fn a_leader_speaks_at_once_and_again_while_idle() {
        let mut cluster = Cluster::new(3);
        cluster.elect(1);
        let first: BTreeSet<u64> = cluster
            .take_sent()
            .iter()
            .filter(|letter| letter.from == 1 && matches!(letter.message, Message::Append(_)))
            .map(|letter| letter.to)
            .collect();
        assert_eq!(first, BTreeSet::from([2, 3]));
        cluster.advance(TIMEOUT * 20);
        let beats = cluster.take_sent().into_iter();
        let beats = beats.filter(|letter| matches!(letter.message, Message::Heartbeat(_))).count();
        assert_eq!(beats, 2 * 60, "every 50 ms for 3 s, to two peers");
        assert_eq!((cluster.term(1), cluster.role(1)), (1, Role::Leader), "and nobody campaigned");
    }

    /// Figure 2, leaders: a command is appended to the own log.
    #[test]
    fn a_leader_appends_what_is_proposed_in_one_segment() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.take_sent();
        cluster.propose(1, &["a", "b", "c"]);
        assert_eq!(cluster.terms(1), [1, 1, 1, 1]);
        let sent = cluster.take_sent();
        assert_eq!(sent.len(), 2, "one append to each peer");
        let put = &cluster.node(1).pending[0].puts[0];
        for letter in sent {
            let Message::Append(append) = letter.message else { panic!("{letter}") };
            assert_eq!(append.entries.len(), 3);
            assert!(std::ptr::eq(&raw const append.entries[0], &raw const put[0]), "shared, not copied");
        }
    }

    /// Figure 2, leaders: from nextIndex on, without waiting for the answer to what was sent before.
    #[test]
    fn appends_go_out_ahead_of_their_acknowledgements() {
        let mut cluster = Cluster::led_by_one(2);
        cluster.take_sent();
        for payload in ["a", "b", "c"] {
            cluster.propose(1, &[payload]);
        }
        let sent = cluster.take_sent();
        let prevs: Vec<u64> = sent
            .iter()
            .map(|letter| match &letter.message {
                Message::Append(append) => append.prev.index.0,
                _ => panic!("{letter}"),
            })
            .collect();
        assert_eq!(prevs, [1, 2, 3]);
    }

    /// Figure 2, leaders: a failed consistency check lowers nextIndex, and the append is tried again.
    #[test]
    fn a_rejected_append_is_tried_again_further_down() {
        let mut cluster = Cluster::with(
            2,
            Raft::config(),
            &[(1, Disk::with_log(&[1, 1, 1], 1)), (2, Disk::with_log(&[1], 1))],
        );
        cluster.elect(1);
        assert_eq!(cluster.terms(2), [1, 1, 1, 2]);
        assert_eq!(cluster.raft(1).counters().conflicts, 1);
        assert_eq!(cluster.decided(1), 4);
    }

    /// Figure 2, leaders: a majority of matchIndex decides.
    #[test]
    fn an_entry_at_a_majority_is_decided() {
        let mut cluster = Cluster::led_by_one(5);
        for id in [3, 4, 5] {
            cluster.isolate(id);
        }
        cluster.propose(1, &["a"]);
        cluster.settle();
        assert_eq!(cluster.decided(1), 1, "at two of five");
        cluster.receive(3, 1, appended(1, 1));
        assert_eq!(cluster.decided(1), 1, "an old acknowledgement adds nothing");
        cluster.heal();
        cluster.isolate(4);
        cluster.isolate(5);
        cluster.advance(4 * HEARTBEAT);
        assert_eq!(cluster.decided(1), 2, "at three of five");
    }

    /// Figure 2, leaders: log\[N\].term must be the current term.
    #[test]
    fn only_entries_of_the_own_term_are_decided_by_counting() {
        let disks: Vec<(u64, Disk)> = [1, 2, 3].map(|id| (id, Disk::with_log(&[1, 1], 1))).into();
        let mut cluster = Cluster::with(3, Raft::config(), &disks);
        cluster.time_out(1);
        let keep_noop_back = |letter: &harness::Letter| match &letter.message {
            Message::Append(append) => !append.entries.is_empty(),
            _ => false,
        };
        for _ in 0..50 {
            cluster.take(keep_noop_back);
            match cluster.network.pop_front() {
                Some(letter) => cluster.deliver(letter),
                None => (1..=3).for_each(|id| cluster.persist(id)),
            }
        }
        assert_eq!(cluster.role(1), Role::Leader);
        // The followers' logs match through 2, which is of an earlier term.
        cluster.scripted = true;
        cluster.receive(2, 1, appended(2, 2));
        cluster.receive(3, 1, appended(2, 2));
        assert_eq!(cluster.decided(1), 0);
        cluster.receive(2, 1, appended(2, 3));
        assert_eq!(cluster.decided(1), 3, "and with an entry of its own all before it");
    }
}

mod section_5_1_terms {
    use super::*;

    /// Section 5.1: a stale leader or candidate reverts to follower as soon as it learns of a later term.
    #[test]
    fn a_leader_cut_off_and_back_steps_down_at_the_first_word_it_says() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.isolate(1);
        cluster.advance_only(1, HEARTBEAT);
        cluster.time_out(2);
        cluster.now += TIMEOUT;
        cluster.time_out(2);
        cluster.settle();
        assert_eq!(cluster.role(2), Role::Leader);
        assert_eq!(cluster.role(1), Role::Leader, "it does not know");
        cluster.heal();
        cluster.receive(
            1,
            3,
            Message::Heartbeat(Heartbeat { term: Term(1), commit: LogIndex(0), round: Round(9) }),
        );
        cluster.settle();
        assert_eq!(cluster.role(1), Role::Follower);
        assert_eq!(cluster.term(1), cluster.term(2));
    }

    /// Section 5.1: in some terms an election ends in a split vote, and then the term has no leader.
    #[test]
    fn a_split_vote_gives_a_term_without_leader_and_the_next_one_has_one() {
        let mut cluster = Cluster::new(2);
        let ask = |term| PreVoteReply { term: Term(term), asked: Term(1), granted: true };
        cluster.time_out(1);
        cluster.time_out(2);
        cluster.network.clear();
        cluster.receive(2, 1, Message::PreVoteReply(ask(0)));
        cluster.receive(1, 2, Message::PreVoteReply(ask(0)));
        cluster.settle();
        assert_eq!((cluster.term(1), cluster.term(2), cluster.leader()), (1, 1, None));
        cluster.advance(TIMEOUT * 6);
        assert!(cluster.leader().is_some());
        assert!(cluster.term(1) >= 2);
    }
}

mod section_5_2_elections {
    use super::*;

    /// Section 5.2: servers start as followers.
    #[test]
    fn a_replica_starts_as_a_follower_of_nobody() {
        let cluster = Cluster::new(3);
        for id in 1..=3 {
            assert_eq!(cluster.role(id), Role::Follower);
            assert_eq!(cluster.raft(id).route(), Route::Hold);
        }
    }

    /// Section 5.2: and remain so as long as they hear a leader or candidate.
    #[test]
    fn a_follower_that_hears_a_leader_does_not_campaign() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.advance(TIMEOUT * 30);
        assert_eq!(cluster.leader(), Some(1));
        assert_eq!(cluster.raft(2).counters().pre_votes + cluster.raft(3).counters().pre_votes, 0);
    }

    /// Section 5.2: every server votes for at most one candidate in a term, so a term has at most one leader.
    #[test]
    fn two_candidates_of_one_term_do_not_both_win() {
        let mut cluster = Cluster::new(3);
        cluster.time_out(1);
        cluster.time_out(2);
        // The harness asserts that no term has two leaders.
        cluster.settle();
        cluster.advance(TIMEOUT * 4);
        assert!(cluster.leader().is_some());
    }

    /// Section 5.2: a candidate rejects a leader of an earlier term and stays a candidate.
    #[test]
    fn a_candidate_rejects_a_leader_of_an_earlier_term() {
        let mut cluster = follower_with(&[], 4);
        cluster.time_out(1);
        cluster.take_sent();
        cluster.receive(2, 1, append(3, (0, 0), 0, Entries::empty()));
        assert_eq!(cluster.role(1), Role::Candidate);
        assert_eq!(replies(&mut cluster, 1), [Message::NewerTerm(NewerTerm { term: Term(4) })]);
    }

    /// Section 5.2: timeouts are drawn from a fixed interval, anew for each election.
    #[test]
    fn waits_are_spread_over_the_interval_and_drawn_anew() {
        let mut cluster = Cluster::new(3);
        cluster.isolate(1);
        let mut waits = BTreeSet::new();
        for _ in 0..200 {
            let before = cluster.now;
            cluster.time_out(1);
            waits.insert(cluster.now - before);
        }
        assert!(waits.len() > 190, "all the same: {waits:?}");
        assert!(*waits.first().unwrap() >= TIMEOUT && *waits.last().unwrap() < 2 * TIMEOUT);
        assert!(
            *waits.first().unwrap() < TIMEOUT.mul_f64(1.1) && *waits.last().unwrap() > TIMEOUT.mul_f64(1.9)
        );
    }

    /// Section 5.2: replicas draw differently even from one seed, so split votes are rare.
    #[test]
    fn replicas_with_one_seed_wait_differently() {
        let cluster = Cluster::new(5);
        let waits: BTreeSet<_> =
            (1..=5).map(|id| synod_core::Machine::next_deadline(cluster.raft(id)).unwrap()).collect();
        assert_eq!(waits.len(), 5);
    }
}

mod section_5_3_replication {
    use super::*;

    /// Section 5.3: a decided entry takes all entries before it along.
    #[test]
    fn deciding_an_entry_decides_all_before_it() {
        let disks = [(1, Disk::with_log(&[1, 2, 2], 2)), (2, Disk::with_log(&[1], 1))];
        let mut cluster = Cluster::with(3, Raft::config(), &disks);
        cluster.isolate(3);
        cluster.elect(1);
        assert_eq!(cluster.decided(1), 4);
        assert_eq!(cluster.terms(2), [1, 2, 2, 3]);
    }

    /// Section 5.3: followers learn the commit index from later messages.
    #[test]
    fn followers_learn_what_is_decided_from_the_next_append() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.propose(1, &["a"]);
        cluster.settle();
        assert_eq!((cluster.decided(1), cluster.decided(2)), (2, 1));
        cluster.propose(1, &["b"]);
        cluster.settle();
        assert_eq!((cluster.decided(1), cluster.decided(2)), (3, 2));
    }

    /// Section 5.3: the leader retries for as long as it takes, even after it has answered its clients.
    #[test]
    fn a_follower_that_comes_back_is_brought_up_to_date() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.crash(3);
        for payload in ["a", "b", "c"] {
            cluster.propose(1, &[payload]);
            cluster.advance(TIMEOUT);
        }
        assert_eq!(cluster.decided(1), 4);
        cluster.start(3);
        cluster.advance(TIMEOUT);
        assert_eq!(cluster.payloads(3), ["a", "b", "c"]);
    }

    /// Section 5.3, Leader Append-Only and Log Matching: figure 7, each follower against the leader of term 8.
    #[test]
    fn every_log_of_figure_7_is_made_like_the_leaders() {
        let logs: [(&str, &[u64]); 6] = [
            ("a", &[1, 1, 1, 4, 4, 5, 5, 6, 6]),
            ("b", &[1, 1, 1, 4]),
            ("c", &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]),
            ("d", &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]),
            ("e", &[1, 1, 1, 4, 4, 4, 4]),
            ("f", &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]),
        ];
        let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
        for (name, follower) in logs {
            let disks = [(1, Disk::with_log(&leader, 7)), (2, Disk::with_log(follower, 7))];
            let mut cluster = Cluster::with(3, Raft::config(), &disks);
            // Replica 3 elects; replica 2 may not, if its log is longer.
            cluster.cut(1, 2);
            cluster.elect(1);
            cluster.heal();
            cluster.advance(2 * HEARTBEAT);
            let want: Vec<u64> = leader.iter().copied().chain([8]).collect();
            assert_eq!(cluster.terms(1), want, "Leader Append-Only, against follower {name}");
            assert_eq!(cluster.terms(2), want, "follower {name}");
            let rejected = cluster.take_sent().into_iter().filter(|letter| letter.from == 2);
            let rejected =
                rejected.filter(|letter| matches!(letter.message, Message::AppendRejected(_))).count();
            assert!(rejected <= 2, "follower {name} needed {rejected} rejections");
        }
    }

    /// Section 5.3: a rejection tells enough to skip all conflicting entries of a term at once.
    #[test]
    fn one_rejection_skips_a_whole_term() {
        let leader: Vec<u64> = [1; 3].into_iter().chain([3; 40]).collect();
        let follower: Vec<u64> = [1; 3].into_iter().chain([2; 60]).collect();
        let disks = [(1, Disk::with_log(&leader, 3)), (2, Disk::with_log(&follower, 3))];
        let mut cluster = Cluster::with(2, Raft::config(), &disks);
        cluster.elect(1);
        assert_eq!(cluster.raft(1).counters().conflicts, 1);
        assert_eq!(cluster.terms(2), cluster.terms(1));
    }
}

mod section_5_4_safety {
    use super::*;

    /// Section 5.4.1: a candidate without all decided entries cannot win.
    #[test]
    fn a_candidate_that_misses_a_decided_entry_cannot_win() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.isolate(3);
        cluster.propose(1, &["a"]);
        cluster.settle();
        assert_eq!(cluster.decided(1), 2);
        cluster.crash(1);
        cluster.heal();
        cluster.now += 2 * TIMEOUT;
        for _ in 0..5 {
            cluster.time_out(3);
            cluster.settle();
            assert_ne!(cluster.role(3), Role::Leader);
        }
        cluster.advance(4 * TIMEOUT);
        assert_eq!(cluster.leader(), Some(2));
        assert_eq!(cluster.payloads(2), ["a"]);
    }

    /// Section 5.4.2, figure 8 (a) to (d): an entry of term 2 at a majority is not decided in term 4, and may
    /// be overwritten.
    #[test]
    fn figure_8_an_old_entry_at_a_majority_is_not_decided_and_may_be_lost() {
        let disks = [
            (1, Disk::with_log(&[1, 2], 3)),
            (2, Disk::with_log(&[1, 2], 3)),
            (3, Disk::with_log(&[1], 3)),
            (4, Disk::with_log(&[1], 3)),
            (5, Disk::with_log(&[1, 3], 3)),
        ];
        let mut cluster = Cluster::with(5, Raft::config(), &disks);
        // (c): replica 1 leads term 4 and brings entry 2 to replica 3, but its own entry to nobody.
        cluster.cut(1, 5);
        cluster.time_out(1);
        for _ in 0..400 {
            for letter in cluster.take(|letter| matches!(letter.message, Message::Append(_))) {
                let Message::Append(mut append) = letter.message else { unreachable!() };
                let old =
                    append.entries.iter().filter(|entry| entry.stamp.high < 4).cloned().collect::<Vec<_>>();
                append.entries = Entries::new(old).unwrap();
                cluster.deliver(harness::Letter { message: Message::Append(append), ..letter });
            }
            match cluster.network.pop_front() {
                Some(letter) => cluster.deliver(letter),
                None => (1..=5).for_each(|id| {
                    cluster.persist(id);
                    while cluster.load_one(id) {}
                }),
            }
        }
        assert_eq!((cluster.role(1), cluster.term(1)), (Role::Leader, 4));
        assert_eq!(cluster.terms(3), [1, 2], "entry 2 stands at three of five");
        assert_eq!(cluster.decided(1), 0, "and is not decided");
        // (d): replica 5 can still win, and overwrites it.
        cluster.crash(1);
        cluster.heal();
        cluster.now += 2 * TIMEOUT;
        cluster.time_out(5);
        cluster.settle();
        assert_eq!(cluster.term(5), 4, "its pre-vote was denied with the term it had missed");
        cluster.elect(5);
        cluster.advance(HEARTBEAT);
        for id in [2, 3, 4, 5] {
            assert_eq!(cluster.terms(id)[..2], [1, 3]);
            assert!(cluster.decided(id) >= 2);
        }
    }

    /// Section 5.4.2, figure 8 (e): with an entry of its own term at a majority, replica 5 cannot win any more.
    #[test]
    fn figure_8_an_entry_of_the_own_term_at_a_majority_decides_the_old_one() {
        let disks = [
            (1, Disk::with_log(&[1, 2], 3)),
            (2, Disk::with_log(&[1, 2], 3)),
            (3, Disk::with_log(&[1], 3)),
            (4, Disk::with_log(&[1], 3)),
            (5, Disk::with_log(&[1, 3], 3)),
        ];
        let mut cluster = Cluster::with(5, Raft::config(), &disks);
        cluster.isolate(5);
        cluster.elect(1);
        assert_eq!(cluster.decided(1), 3);
        cluster.crash(1);
        cluster.heal();
        cluster.now += 2 * TIMEOUT;
        for _ in 0..5 {
            cluster.time_out(5);
            cluster.settle();
            assert_ne!(cluster.role(5), Role::Leader);
        }
        cluster.advance(4 * TIMEOUT);
        for id in [2, 3, 4, 5] {
            assert_eq!(cluster.terms(id)[..3], [1, 2, 4]);
        }
    }
}

mod section_5_5_crashes {
    use super::*;

    /// Section 5.5: requests are idempotent.
    #[test]
    fn an_append_that_arrives_twice_changes_nothing_the_second_time() {
        let mut cluster = follower_with(&[1], 1);
        for _ in 0..2 {
            cluster.receive(2, 1, append(1, (1, 1), 2, entries(2, &[1, 1])));
            cluster.settle();
            assert_eq!(cluster.terms(1), [1, 1, 1]);
        }
        assert_eq!(replies(&mut cluster, 1), [appended(1, 3), appended(1, 3)]);
        assert_eq!(cluster.node(1).persisted.0, 1, "nothing was written for the second");
    }

    /// Section 5.5: a follower that crashes after it wrote and before it answered gets the request again.
    #[test]
    fn a_follower_that_crashed_before_it_answered_is_asked_again() {
        let mut cluster = Cluster::led_by_one(2);
        cluster.propose(1, &["a"]);
        let lost = cluster.take(|letter| letter.to == 2);
        for letter in lost {
            cluster.deliver(letter);
        }
        cluster.persist(2);
        cluster.restart(2);
        cluster.advance(4 * HEARTBEAT);
        assert_eq!(cluster.payloads(2), ["a"]);
        assert_eq!(cluster.decided(1), 2);
    }
}

mod section_5_6_timing {
    use super::*;

    /// Section 5.6: safety does not depend on timing: a clock that stands still or leaps only delays.
    #[test]
    fn a_leap_of_the_clock_loses_nothing() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.propose(1, &["a"]);
        cluster.settle();
        cluster.now += Duration::from_secs(3600);
        cluster.advance(10 * TIMEOUT);
        let leader = cluster.leader().expect("somebody leads again");
        cluster.propose(leader, &["b"]);
        cluster.advance(HEARTBEAT);
        assert_eq!(cluster.payloads(leader), ["a", "b"]);
    }
}

mod section_8_clients {
    use super::*;

    /// Section 8: a server that does not lead turns clients away and names the leader.
    #[test]
    fn a_follower_hands_a_command_back_and_names_the_leader() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.take_events(2);
        cluster.propose(2, &["a"]);
        let why = Refusal::NotLeader { leader: Some(NodeId(1)) };
        assert_eq!(cluster.take_events(2), [LogEvent::Refused { command: harness::command("a"), why }]);
        assert_eq!(cluster.raft(2).route(), Route::Forward(NodeId(1)));
        assert_eq!(cluster.raft(1).route(), Route::Here);
    }

    /// Section 8: a leader begins its term with a no-op, so that it learns what is decided.
    #[test]
    fn a_leader_begins_its_term_with_a_no_op() {
        let mut cluster = Cluster::new(3);
        cluster.elect(1);
        let disk = &cluster.node(1).disk;
        assert_eq!(disk.log.get(LogIndex(1)).unwrap().kind, synod_core::Kind::Noop);
        assert_eq!(cluster.decided(1), 1);
    }

    /// Section 8: before that no-op is decided it answers no read.
    #[test]
    fn a_read_waits_until_an_entry_of_the_term_is_decided() {
        let disks: Vec<(u64, Disk)> = [1, 2, 3].map(|id| (id, Disk::with_log(&[1, 1], 1))).into();
        let mut cluster = Cluster::with(3, Raft::config(), &disks);
        cluster.node_mut(2).slow_disk = true;
        cluster.isolate(3);
        cluster.time_out(1);
        cluster.settle();
        cluster.persist(2);
        cluster.settle();
        assert_eq!(cluster.role(1), Role::Leader);
        cluster.read(1, 7);
        cluster.advance(2 * HEARTBEAT);
        let ready = |event: &LogEvent| matches!(event, LogEvent::ReadReady { .. });
        assert!(
            !cluster.take_events(1).iter().any(ready),
            "heartbeats are answered; the no-op is not decided"
        );
        cluster.persist(2);
        cluster.settle();
        let events = cluster.take_events(1);
        let index = LogIndex(3);
        assert!(events.contains(&LogEvent::ReadReady { id: synod_core::ReadId(7), index }), "{events:?}");
    }

    /// Section 8: it hears from a majority, after the read arrived, before it answers.
    #[test]
    fn a_read_is_answered_only_after_a_majority_answered_a_later_heartbeat() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.take_events(1);
        cluster.advance_only(1, HEARTBEAT);
        let early = cluster.take(|_| true);
        assert!(!early.is_empty(), "heartbeats that left before the read");
        cluster.read(1, 7);
        let late = cluster.take(|_| true);
        for letter in early {
            cluster.deliver(letter);
        }
        let answers = cluster.take(|_| true);
        assert_eq!(answers.len(), 2);
        for letter in answers {
            cluster.deliver(letter);
        }
        assert_eq!(cluster.take_events(1), [], "answers to earlier heartbeats prove nothing");
        for letter in late {
            cluster.deliver(letter);
        }
        cluster.settle();
        let id = synod_core::ReadId(7);
        assert_eq!(cluster.take_events(1), [LogEvent::ReadReady { id, index: LogIndex(1) }]);
    }

    /// Section 8: a deposed leader answers no read.
    #[test]
    fn a_deposed_leader_answers_no_read() {
        let mut cluster = Cluster::led_by_one(3);
        cluster.isolate(1);
        cluster.now += 2 * TIMEOUT;
        cluster.time_out(2);
        cluster.settle();
        assert_eq!(cluster.role(2), Role::Leader);
        cluster.propose(2, &["new"]);
        cluster.settle();
        cluster.take_events(1);
        cluster.read(1, 7);
        cluster.advance(4 * TIMEOUT);
        let events = cluster.take_events(1);
        let id = synod_core::ReadId(7);
        assert!(events.contains(&LogEvent::ReadFailed { id, why: Refusal::LeadershipLost }), "{events:?}");
        assert!(!events.iter().any(|event| matches!(event, LogEvent::ReadReady { .. })));
    }
}
