//! Multi-Paxos, as the simulator sees it; with majorities, and with flexible quorums.

use std::time::Duration;

use bytes::Bytes;
use synod_core::{Entry, Loaded, Membership, NodeId, QuorumSystem, Stamp, Wire};
use synod_multipaxos::{
    Accept, Accepted, Any, Canvass, CanvassReply, Chosen, CommitNotice, Counters, HardState, Heartbeat,
    HeartbeatReply, Learn, Message, MultiPaxos, MultiPaxosConfig, Prepare, Promise, Rejected, Resolve,
    Standing, Succeed, Suggest, Voted,
};

use crate::hash::mix;
use crate::log::LogAdapter;
use crate::observer::ballots::{BallotLedger, Ballots, Claim};
use crate::observer::{Checked, bounds, violation};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::Rng;

/// The adapter of [`MultiPaxos`] deciding by majorities; with `FLEXIBLE`, by quorums drawn for the seed.
#[derive(Clone, Copy, Debug)]
pub struct MultiPaxosAdapter<const FLEXIBLE: bool>;

/// The bounds of a seed's settings that messages are held against.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    accept_entries_max: usize,
    accept_bytes_max: usize,
}

impl<const FLEXIBLE: bool> LogAdapter for MultiPaxosAdapter<FLEXIBLE> {
    type Config = MultiPaxosConfig;
    type Protocol = MultiPaxos;
    type Observer = BallotLedger<MultiPaxosAdapter<FLEXIBLE>>;
    type Bounds = Bounds;

    const SNAPSHOTS: bool = true;
    const TRANSFERS: bool = true;

    const NAME: &'static str = if FLEXIBLE { "flexpaxos" } else { "multipaxos" };

    fn config(options: &Options, rng: &mut Rng) -> (MultiPaxosConfig, Bounds) {
        let (config, bounds) = classic(options, rng);
        let config = config.votes_to_all(rng.pick(&[false, false, true]));
        let config = match options.node.lease_reads {
            Some(clocks) => config.lease_reads(clocks),
            None => config,
        };
        (config, bounds)
    }

    fn quorums(members: &[NodeId], rng: &mut Rng) -> QuorumSystem {
        if FLEXIBLE { flexible(members, rng) } else { QuorumSystem::majority(members.iter().copied()) }
    }

    fn observer(membership: &Membership) -> BallotLedger<MultiPaxosAdapter<FLEXIBLE>> {
        BallotLedger::new(membership)
    }

    fn fingerprint(message: &Message) -> u64 {
        fingerprint(message)
    }

    fn check_message(bounds: &Bounds, node: usize, message: &Message) -> Checked {
        check_message(bounds, node, message)
    }

    fn count(replica: &MultiPaxos, rare: &mut RareCounts) {
        count(replica.counters(), rare);
    }

    fn check_protocol(node: usize, replica: &MultiPaxos) -> Checked {
        match replica.counters().last_rejection {
            // Every peer here is correct: what it says is never wrong.
            Some(why) => Err(violation("rejected", format!("n{} dropped a message: {why}", node + 1))),
            None => Ok(()),
        }
    }

    const EXPECTED: &'static [Rare] = EXPECTED;
}

/// The settings that every kind of Multi-Paxos has, and what they bound.
pub(crate) fn classic(options: &Options, rng: &mut Rng) -> (MultiPaxosConfig, Bounds) {
    let timeout = Duration::from_nanos(options.patience);
    let bounds = Bounds {
        accept_entries_max: rng.pick(&[1, 2, 8, 64, 4_096]),
        accept_bytes_max: rng.pick(&[1, 300, 4_000, 1 << 20]),
    };
    let undecided = rng.pick(&[4, 32, 1_024, 65_536]);
    let config = MultiPaxos::config()
        .election_timeout(timeout)
        .heartbeat_interval(timeout / rng.between(3, 10) as u32)
        .commit_notice_delay(timeout / rng.pick(&[30, 100, 1_000]))
        .learn_delay(timeout / rng.pick(&[10, 30, 1_000]))
        .window_entries_max(rng.pick(&[1, 3, 16, 256, 16_384]))
        .window_bytes_max(rng.pick(&[1, 1_000, 20_000, 16 << 20]))
        .accept_entries_max(bounds.accept_entries_max)
        .accept_bytes_max(bounds.accept_bytes_max)
        .undecided_entries_max(undecided)
        .undecided_bytes_max(rng.pick(&[40_000, 64 << 20]))
        .ahead_entries_max(undecided * rng.pick(&[1, 2, 16]))
        .tail_bytes_max(rng.pick(&[1, 600, 5_000, 32 << 20]));
    (config, bounds)
}

/// A number that tells this message from others.
pub(crate) fn fingerprint(message: &Message) -> u64 {
    let (kind, a, b) = match message {
        Message::Canvass(Canvass { decided, .. }) => (1, decided.0, 0),
        Message::CanvassReply(CanvassReply { granted, seen, .. }) => (2, u64::from(*granted), seen.round),
        Message::Prepare(Prepare { from, .. }) => (3, from.0, 0),
        Message::Promise(Promise { from, decided, last, votes, .. }) => {
            (4, from.0 ^ decided.0 << 32, last.0 ^ votes.to.0 << 32)
        }
        Message::Accept(Accept { first, commit, entries, .. }) => {
            (5, first.0 ^ entries.first_index().0 << 32, commit.0 ^ (entries.len() as u64) << 32)
        }
        Message::Accepted(Accepted { through, decided, .. }) => (6, through.0, decided.0),
        Message::Rejected(Rejected { promised, .. }) => (7, promised.round, promised.node.0),
        Message::Heartbeat(Heartbeat { commit, round, .. }) => (8, commit.0, round.0),
        Message::HeartbeatReply(HeartbeatReply { round, loyal_for, .. }) => {
            (9, round.0, loyal_for.as_nanos() as u64)
        }
        Message::CommitNotice(CommitNotice { commit, .. }) => (10, commit.0, 0),
        Message::Learn(Learn { from }) => (11, from.0, 0),
        Message::Chosen(Chosen { from, entries, .. }) => (12, from.0, entries.len() as u64),
        Message::Succeed(_) => (18, 0, 0),
        Message::Any(Any { commit, round, from, .. }) => (13, commit.0 ^ from.0 << 32, round.0),
        Message::Standing(Standing { round, decided, last, .. }) => (14, round.0 ^ decided.0 << 32, last.0),
        Message::Suggest(Suggest { values, .. }) => (15, first_of(values), values.to.0),
        Message::Voted(Voted { decided, votes, .. }) => (16, decided.0 ^ first_of(votes) << 32, votes.to.0),
        Message::Resolve(Resolve { commit, values, .. }) => {
            (17, commit.0 ^ first_of(values) << 32, values.to.0)
        }
    };
    let ballot = message.ballot().unwrap_or_default();
    mix(mix(kind ^ ballot.round << 8 ^ ballot.node.0 << 40, a), b)
}

fn first_of(values: &Loaded) -> u64 {
    values.segments.first().map_or(0, |segment| segment.first_index().0)
}

/// Checks what bounds a message.
pub(crate) fn check_message(bounds: &Bounds, node: usize, message: &Message) -> Checked {
    let (segments, count_max) = match message {
        Message::Accept(accept) => (std::slice::from_ref(&accept.entries), bounds.accept_entries_max),
        Message::Chosen(chosen) => (std::slice::from_ref(&chosen.entries), usize::MAX),
        Message::Promise(promise) => (promise.votes.segments.as_slice(), usize::MAX),
        Message::Suggest(suggest) => (suggest.values.segments.as_slice(), bounds.accept_entries_max),
        Message::Voted(voted) => (voted.votes.segments.as_slice(), bounds.accept_entries_max),
        Message::Resolve(resolve) => (resolve.values.segments.as_slice(), bounds.accept_entries_max),
        _ => return Ok(()),
    };
    let count: usize = segments.iter().map(|segment| segment.len()).sum();
    bounds::bounded("entries of one message", node, count as u64, count_max as u64)?;
    if count > 1 {
        let bytes: usize = segments.iter().flat_map(|segment| segment.iter()).map(Entry::weight).sum();
        bounds::bounded("bytes of one message", node, bytes as u64, bounds.accept_bytes_max as u64)?;
    }
    Ok(())
}

/// Adds what every replica of the family counts.
pub(crate) fn count(counters: &Counters, rare: &mut RareCounts) {
    rare[Rare::SteppedDownSlowDisk] += counters.disk_stalls;
    rare[Rare::QuorumLost] += counters.quorums_lost;
    rare[Rare::RequestIgnored] += counters.support_denied;
    rare[Rare::ProbedAgain] += counters.fallbacks;
    rare[Rare::ReadRound] += counters.read_rounds;
    rare[Rare::LeaseRead] += counters.lease_reads;
    rare[Rare::Preempted] += counters.preempted;
    rare[Rare::ProposedAgain] += counters.proposed_again;
    rare[Rare::HoleFilled] += counters.holes_filled;
    rare[Rare::PromiseChunk] += counters.chunks;
    rare[Rare::DecidedByVotes] += counters.decided_by_votes;
    rare[Rare::LearnedFirst] += counters.learned_first;
    rare[Rare::Learned] += counters.learned;
    rare[Rare::LeaderLearned] += counters.leader_learned;
    rare[Rare::TooFarAhead] += counters.too_far_ahead;
    rare[Rare::PeerSkipped] += counters.skipped;
    rare[Rare::CommitNotice] += counters.commit_notices;
    rare[Rare::Transferred] += counters.successions_won;
}

/// Counts or weights whose quorums just meet: two that decide, few that elect (so that two elections need not meet),
/// and what lies between.
pub(crate) fn flexible(members: &[NodeId], rng: &mut Rng) -> QuorumSystem {
    let all = members.iter().copied();
    let count = members.len();
    match (rng.below(5), QuorumSystem::small_replication(all.clone())) {
        (0 | 1, Some(small)) => small,
        (2, _) if count > 2 => {
            let election = 1 + rng.index(count / 2);
            QuorumSystem::Counted { members: all.collect(), election, replication: count + 1 - election }
        }
        (3, _) if count > 2 => {
            // Neither a voice that decides alone nor one without which nothing is decided.
            let voices =
                members.iter().map(|node| (*node, 2 + u32::try_from(node.0 % 2).unwrap_or_default()));
            let members: Vec<(NodeId, u32)> = voices.collect();
            let total: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
            QuorumSystem::Weighted { members, election: total - 4, replication: 5 }
        }
        _ => {
            let replication = count / 2;
            if replication == 0 || count < 4 {
                return QuorumSystem::majority(all);
            }
            QuorumSystem::Counted { members: all.collect(), election: count + 1 - replication, replication }
        }
    }
}

/// The rare paths that a long sweep must have taken.
const EXPECTED: &[Rare] = &[
    Rare::LeaderChanged,
    Rare::SteppedDown,
    Rare::SteppedDownSlowDisk,
    Rare::QuorumLost,
    Rare::EntriesLost,
    Rare::HardStateLost,
    Rare::CrashInFlush,
    Rare::RequestIgnored,
    Rare::Preempted,
    Rare::ProposedAgain,
    Rare::HoleFilled,
    Rare::PromiseChunk,
    Rare::ChosenReported,
    Rare::DecidedByVotes,
    Rare::LearnedFirst,
    Rare::Learned,
    Rare::LeaderLearned,
    Rare::TooFarAhead,
    Rare::PeerSkipped,
    Rare::VotedAboveHole,
    Rare::CommitNotice,
    Rare::ProbedAgain,
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

impl<const FLEXIBLE: bool> Ballots for MultiPaxosAdapter<FLEXIBLE> {
    type Protocol = MultiPaxos;

    fn promised(bytes: &Bytes) -> Result<Stamp, String> {
        promised(bytes)
    }

    fn claims(message: &Message, claim: &mut dyn FnMut(Claim<'_>) -> Checked) -> Checked {
        claims(message, claim)
    }
}

/// The ballot that a hard state promises.
pub(crate) fn promised(bytes: &Bytes) -> Result<Stamp, String> {
    let state = HardState::from_bytes(bytes.clone()).map_err(|error| error.to_string())?;
    Ok(state.promised.stamp())
}

/// What a message reveals of its sender.
pub(crate) fn claims(message: &Message, claim: &mut dyn FnMut(Claim<'_>) -> Checked) -> Checked {
    match message {
        Message::Canvass(Canvass { decided, .. }) | Message::CanvassReply(CanvassReply { decided, .. }) => {
            claim(Claim::Decided(decided.0))
        }
        Message::Prepare(Prepare { ballot, .. }) => claim(Claim::Candidate(ballot.stamp())),
        Message::Promise(Promise { ballot, from, decided, last, votes, .. }) => {
            claim(Claim::Decided(decided.0))?;
            claim(Claim::Promise {
                ballot: ballot.stamp(),
                from: from.0,
                to: votes.to.0,
                votes: &votes.segments,
                complete: votes.to > *last,
            })
        }
        Message::Accept(Accept { ballot, commit, entries, .. }) => {
            claim(Claim::Leads(ballot.stamp()))?;
            claim(Claim::Decided(commit.0))?;
            claim(Claim::Proposes(entries))
        }
        Message::Accepted(Accepted { ballot, through, decided }) => {
            claim(Claim::Decided(decided.0))?;
            claim(Claim::Voted { ballot: ballot.stamp(), through: through.0 })
        }
        Message::Heartbeat(Heartbeat { ballot, commit, .. })
        | Message::CommitNotice(CommitNotice { ballot, commit, .. }) => {
            claim(Claim::Leads(ballot.stamp()))?;
            claim(Claim::Decided(commit.0))
        }
        Message::Chosen(Chosen { decided, entries, .. }) => {
            claim(Claim::Decided(decided.0))?;
            claim(Claim::Chosen(entries))
        }
        Message::Any(Any { ballot, commit, from, .. }) => {
            claim(Claim::Leads(ballot.stamp()))?;
            claim(Claim::Decided(commit.0))?;
            claim(Claim::Opens { ballot: ballot.stamp(), from: from.0 })
        }
        Message::Standing(Standing { decided, .. }) => claim(Claim::Decided(decided.0)),
        Message::Suggest(Suggest { values, .. }) => {
            values.segments.iter().try_for_each(|values| claim(Claim::Suggests(values)))
        }
        Message::Voted(Voted { decided, votes, .. }) => {
            claim(Claim::Decided(decided.0))?;
            votes.segments.iter().try_for_each(|votes| claim(Claim::Votes(votes)))
        }
        Message::Resolve(Resolve { ballot, commit, values, .. }) => {
            claim(Claim::Leads(ballot.stamp()))?;
            claim(Claim::Decided(commit.0))?;
            values.segments.iter().try_for_each(|values| claim(Claim::Proposes(values)))
        }
        Message::Succeed(Succeed { ballot }) => claim(Claim::Leads(ballot.stamp())),
        Message::Rejected(_) | Message::HeartbeatReply(_) | Message::Learn(_) => Ok(()),
    }
}
