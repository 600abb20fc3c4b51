//! ZAB, as the simulator sees it.

use std::time::Duration;

use synod_core::{Entry, Membership, NodeId, QuorumSystem};
use synod_zab::{
    Ack, AckEpoch, Commit, FollowerInfo, Message, Missing, NewEpoch, NewLeader, Notification, Ping, Pong,
    Proposal, Received, Standing, Zab, ZabConfig,
};

use crate::hash::mix;
use crate::log::LogAdapter;
use crate::log::quorums::meeting;
use crate::observer::epochs::EpochLedger;
use crate::observer::{Checked, bounds};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::Rng;

/// The adapter of [`Zab`].
#[derive(Clone, Copy, Debug)]
pub struct ZabAdapter;

/// The bounds of a seed's settings that messages are held against.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    proposal_entries_max: usize,
    proposal_bytes_max: usize,
}

impl LogAdapter for ZabAdapter {
    type Config = ZabConfig;
    type Protocol = Zab;
    type Observer = EpochLedger;
    type Bounds = Bounds;

    const SNAPSHOTS: bool = true;

    fn config(options: &Options, rng: &mut Rng) -> (ZabConfig, Bounds) {
        let timeout = Duration::from_nanos(options.patience);
        let bounds = Bounds {
            proposal_entries_max: rng.pick(&[1, 2, 8, 64, 4_096]),
            proposal_bytes_max: rng.pick(&[1, 300, 4_000, 1 << 20]),
        };
        let config = Zab::config()
            .election_timeout(timeout)
            .heartbeat_interval(timeout / rng.between(3, 10) as u32)
            .finalise_wait(timeout / rng.pick(&[2, 5, 20, 1_000]))
            .commit_delay(timeout / rng.pick(&[30, 100, 1_000]))
            .window_entries_max(rng.pick(&[1, 3, 16, 256, 16_384]))
            .window_bytes_max(rng.pick(&[1, 1_000, 20_000, 16 << 20]))
            .proposal_entries_max(bounds.proposal_entries_max)
            .proposal_bytes_max(bounds.proposal_bytes_max)
            .uncommitted_entries_max(rng.pick(&[4, 32, 1_024, 65_536]))
            .uncommitted_bytes_max(rng.pick(&[40_000, 64 << 20]))
            .tail_bytes_max(rng.pick(&[1, 600, 5_000, 32 << 20]));
        (config, bounds)
    }

    fn quorums(members: &[NodeId], rng: &mut Rng) -> QuorumSystem {
        meeting(members, rng)
    }

    fn observer(membership: &Membership) -> EpochLedger {
        EpochLedger::new(membership)
    }

    fn fingerprint(message: &Message) -> u64 {
        let (kind, a, b) = match message {
            Message::Notification(Notification { round, standing, vote }) => {
                let standing = match standing {
                    Standing::Looking => 0,
                    Standing::Following => 1,
                    Standing::Leading => 2,
                    Standing::Established => 3,
                };
                let vote = vote.map_or(0, |vote| mix(vote.epoch.0 << 8 | vote.node.0, vote.last.counter));
                (1 | standing << 4, round.0, vote)
            }
            Message::FollowerInfo(FollowerInfo { attempt, accepted }) => (2, attempt.0, accepted.0),
            Message::NewEpoch(NewEpoch { .. }) => (3, 0, 0),
            Message::AckEpoch(AckEpoch { current, last, .. }) => (4, current.0, last.index.0),
            Message::Proposal(Proposal { prev, commit, entries, .. }) => {
                (5, prev.index.0 ^ prev.zxid.epoch.0 << 32, commit.0 ^ (entries.len() as u64) << 32)
            }
            Message::NewLeader(NewLeader { last, .. }) => (6, last.index.0, 0),
            Message::Received(Received { through, .. }) => (7, through.0, 0),
            Message::Ack(Ack { through, .. }) => (8, through.0, 0),
            Message::Missing(Missing { prev, hint, .. }) => (9, prev.0, hint.index.0),
            Message::Commit(Commit { through, .. }) => (10, through.0, 0),
            Message::Ping(Ping { commit, beat, .. }) => (11, commit.0, beat.0),
            Message::Pong(Pong { beat, .. }) => (12, beat.0, 0),
        };
        let session = message.session().map_or(0, |session| mix(session.epoch.0, session.attempt.0));
        mix(mix(kind ^ session << 8, a), b)
    }

    fn check_message(bounds: &Bounds, node: usize, message: &Message) -> Checked {
        let Message::Proposal(proposal) = message else { return Ok(()) };
        let count = proposal.entries.len() as u64;
        bounds::bounded("entries of one proposal", node, count, bounds.proposal_entries_max as u64)?;
        if count > 1 {
            let bytes: usize = proposal.entries.iter().map(Entry::weight).sum();
            bounds::bounded("bytes of one proposal", node, bytes as u64, bounds.proposal_bytes_max as u64)?;
        }
        Ok(())
    }

    fn count(zab: &Zab, rare: &mut RareCounts) {
        let counters = zab.counters();
        rare[Rare::SteppedDownSlowDisk] += counters.disk_stalls;
        rare[Rare::QuorumLost] += counters.quorums_lost;
        rare[Rare::ProbedAgain] += counters.fallbacks;
        rare[Rare::LoadedForPeer] += counters.loads;
        rare[Rare::ReadRound] += counters.read_rounds;
        rare[Rare::Outdone] += counters.outdone;
        rare[Rare::Outrun] += counters.outrun;
        rare[Rare::DiscoveryFailed] += counters.discoveries_failed;
        rare[Rare::CommitNotice] += counters.commits;
    }

    fn check_protocol(node: usize, zab: &Zab) -> Checked {
        // Every peer here is correct: what it says is never wrong, nor is a snapshot that it sends.
        let counters = zab.counters();
        let wrong = match counters.last_rejection {
            Some(why) => format!("n{} dropped a message: {why}", node + 1),
            None if counters.snapshots_refused > 0 => format!("n{} refused a snapshot", node + 1),
            None => return Ok(()),
        };
        Err(crate::observer::violation("rejected", wrong))
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
        Rare::CommitNotice,
        Rare::ProbedAgain,
        Rare::LoadedForPeer,
        Rare::ReadRound,
        Rare::Outrun,
        Rare::DiscoveryFailed,
        Rare::PromisedElsewhere,
        Rare::Held,
        Rare::StaleSender,
        Rare::StaleReceiver,
        Rare::LoadedFromStorage,
        Rare::LoadedFromTail,
    ];
}
