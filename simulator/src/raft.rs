//! Raft, as the simulator sees it: the adapter to read before writing another one.

use std::time::Duration;

use bytes::Bytes;
use synod_core::{Entry, Membership, NodeId, QuorumSystem, Wire};
use synod_raft::{
    Append, AppendRejected, Appended, CommitNotice, HardState as RaftHardState, Heartbeat, HeartbeatReply,
    Message, NewerTerm, PreVote, PreVoteReply, Raft, RaftConfig, Vote, VoteReply,
};

use crate::hash::mix;
use crate::log::LogAdapter;
use crate::log::quorums::meeting;
use crate::observer::terms::{Claim, HardState, TermLedger, Terms};
use crate::observer::{Checked, bounds};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::Rng;

/// The adapter of [`Raft`].
#[derive(Clone, Copy, Debug)]
pub struct RaftAdapter;

/// The bounds of a seed's settings that messages are held against.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    append_entries_max: usize,
    append_bytes_max: usize,
}

impl LogAdapter for RaftAdapter {
    type Config = RaftConfig;
    type Protocol = Raft;
    type Observer = TermLedger<RaftAdapter>;
    type Bounds = Bounds;

    const SNAPSHOTS: bool = true;
    const TRANSFERS: bool = true;

    fn config(options: &Options, rng: &mut Rng) -> (RaftConfig, Bounds) {
        let timeout = Duration::from_nanos(options.patience);
        let bounds = Bounds {
            append_entries_max: rng.pick(&[1, 2, 8, 64, 4_096]),
            append_bytes_max: rng.pick(&[1, 300, 4_000, 1 << 20]),
        };
        let config = Raft::config()
            .election_timeout(timeout)
            .heartbeat_interval(timeout / rng.between(3, 10) as u32)
            .commit_notice_delay(timeout / rng.pick(&[30, 100, 1_000]))
            .window_entries_max(rng.pick(&[1, 3, 16, 256, 16_384]))
            .window_bytes_max(rng.pick(&[1, 1_000, 20_000, 16 << 20]))
            .append_entries_max(bounds.append_entries_max)
            .append_bytes_max(bounds.append_bytes_max)
            .uncommitted_entries_max(rng.pick(&[4, 32, 1_024, 65_536]))
            .uncommitted_bytes_max(rng.pick(&[40_000, 64 << 20]))
            .tail_bytes_max(rng.pick(&[1, 600, 5_000, 32 << 20]));
        let config = match options.node.lease_reads {
            Some(clocks) => config.lease_reads(clocks),
            None => config,
        };
        (config, bounds)
    }

    /// Mostly majorities. Otherwise any sizes that meet as Raft needs, larger for decisions than for elections
    /// included.
    fn quorums(members: &[NodeId], rng: &mut Rng) -> QuorumSystem {
        meeting(members, rng)
    }

    fn observer(membership: &Membership) -> TermLedger<RaftAdapter> {
        TermLedger::new(membership)
    }

    fn fingerprint(message: &Message) -> u64 {
        let (kind, a, b) = match message {
            Message::PreVote(PreVote { last, .. }) => (1, last.term.0, last.index.0),
            Message::PreVoteReply(PreVoteReply { asked, granted, .. }) => (2, asked.0, u64::from(*granted)),
            Message::Vote(Vote { last, transfer, .. }) => {
                (3, last.term.0 ^ u64::from(*transfer) << 63, last.index.0)
            }
            Message::VoteReply(VoteReply { granted, .. }) => (4, u64::from(*granted), 0),
            Message::Append(Append { prev, commit, entries, .. }) => {
                (5, prev.index.0 ^ prev.term.0 << 32, commit.0 ^ (entries.len() as u64) << 32)
            }
            Message::Appended(Appended { through, .. }) => (6, through.0, 0),
            Message::AppendRejected(AppendRejected { prev, hint, .. }) => (7, prev.0, hint.index.0),
            Message::Heartbeat(Heartbeat { commit, round, .. }) => (8, commit.0, round.0),
            Message::HeartbeatReply(HeartbeatReply { round, loyal_for, .. }) => {
                (9, round.0, loyal_for.as_nanos() as u64)
            }
            Message::CommitNotice(CommitNotice { commit, .. }) => (10, commit.0, 0),
            Message::NewerTerm(NewerTerm { .. }) => (11, 0, 0),
            Message::TimeoutNow(_) => (12, 0, 0),
        };
        mix(mix(kind ^ message.term().0 << 8, a), b)
    }

    fn check_message(bounds: &Bounds, node: usize, message: &Message) -> Checked {
        let Message::Append(append) = message else { return Ok(()) };
        let count = append.entries.len() as u64;
        bounds::bounded("entries of one append", node, count, bounds.append_entries_max as u64)?;
        if count > 1 {
            let bytes: usize = append.entries.iter().map(Entry::weight).sum();
            bounds::bounded("bytes of one append", node, bytes as u64, bounds.append_bytes_max as u64)?;
        }
        Ok(())
    }

    fn count(raft: &Raft, rare: &mut RareCounts) {
        let counters = raft.counters();
        rare[Rare::SteppedDownSlowDisk] += counters.disk_stalls;
        rare[Rare::QuorumLost] += counters.quorums_lost;
        rare[Rare::RequestIgnored] += counters.requests_ignored;
        rare[Rare::ProbedAgain] += counters.fallbacks;
        rare[Rare::LoadedForPeer] += counters.loads;
        rare[Rare::ReadRound] += counters.read_rounds;
        rare[Rare::LeaseRead] += counters.lease_reads;
        rare[Rare::Transferred] += counters.transfers_won;
    }

    fn check_protocol(node: usize, raft: &Raft) -> Checked {
        let counters = raft.counters();
        match counters.last_rejection {
            // Every peer here is correct: what it says is never wrong.
            Some(why) => {
                Err(crate::observer::violation("rejected", format!("n{} dropped a message: {why}", node + 1)))
            }
            None => Ok(()),
        }
    }

    const EXPECTED: &'static [Rare] = &[
        Rare::LeaderChanged,
        Rare::SteppedDown,
        Rare::SteppedDownSlowDisk,
        Rare::QuorumLost,
        Rare::Truncated,
        Rare::EntriesLost,
        Rare::HardStateLost,
        Rare::CrashInFlush,
        Rare::AppendRejected,
        Rare::VoteRefused,
        Rare::PreVoteRefused,
        Rare::RequestIgnored,
        Rare::NewerTerm,
        Rare::CommitNotice,
        Rare::ProbedAgain,
        Rare::LoadedForPeer,
        Rare::ReadRound,
        Rare::LeaseRead,
        Rare::Held,
        Rare::StaleSender,
        Rare::StaleReceiver,
        Rare::LoadedFromStorage,
        Rare::LoadedFromTail,
        Rare::Transferred,
        Rare::TransferFailed,
    ];
}

impl Terms for RaftAdapter {
    type Protocol = Raft;

    fn hard_state(bytes: &Bytes) -> Result<HardState, String> {
        let state = RaftHardState::from_bytes(bytes.clone()).map_err(|error| error.to_string())?;
        let vote = state.voted_for.map(|node| (node.0 - 1) as usize);
        Ok(HardState { term: state.term.0, vote })
    }

    fn claims(message: &Message, claim: &mut dyn FnMut(Claim) -> Checked) -> Checked {
        let term = message.term().0;
        match message {
            // Asked of the term after the sender's own.
            Message::PreVote(_) => claim(Claim::Term(term - 1)),
            Message::Vote(Vote { transfer: true, .. }) => claim(Claim::Successor(term)),
            Message::Vote(_) => claim(Claim::Candidate(term)),
            Message::VoteReply(VoteReply { granted: true, .. }) => claim(Claim::Vote(term)),
            Message::Append(Append { commit, .. })
            | Message::Heartbeat(Heartbeat { commit, .. })
            | Message::CommitNotice(CommitNotice { commit, .. }) => {
                claim(Claim::Leads(term))?;
                claim(Claim::Decided(commit.0))
            }
            Message::TimeoutNow(_) => claim(Claim::Succeed(term)),
            Message::Appended(Appended { through, .. }) => {
                claim(Claim::Accepted { term, through: through.0 })
            }
            Message::PreVoteReply(PreVoteReply { asked, granted: true, .. }) => {
                claim(Claim::Term(term))?;
                claim(Claim::Supports(asked.0))
            }
            Message::VoteReply(_)
            | Message::PreVoteReply(_)
            | Message::AppendRejected(_)
            | Message::HeartbeatReply(_)
            | Message::NewerTerm(_) => claim(Claim::Term(term)),
        }
    }

    fn rare(message: &Message) -> Option<Rare> {
        match message {
            Message::PreVoteReply(PreVoteReply { granted: false, .. }) => Some(Rare::PreVoteRefused),
            Message::VoteReply(VoteReply { granted: false, .. }) => Some(Rare::VoteRefused),
            Message::AppendRejected(_) => Some(Rare::AppendRejected),
            Message::CommitNotice(_) => Some(Rare::CommitNotice),
            Message::NewerTerm(_) => Some(Rare::NewerTerm),
            _ => None,
        }
    }
}
