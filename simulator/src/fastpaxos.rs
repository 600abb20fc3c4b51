//! Fast Paxos, as the simulator sees it.

use std::time::Duration;

use bytes::Bytes;
use synod_core::{Membership, NodeId, NodeSet, QuorumSystem, Stamp};
use synod_multipaxos::{FastPaxos, FastPaxosConfig, Message, Pick, Recovery, VoteRound, pick};

use crate::log::LogAdapter;
use crate::multipaxos::{self, Bounds};
use crate::observer::ballots::fast::Round;
use crate::observer::ballots::{BallotLedger, Ballots, Claim};
use crate::observer::{Checked, violation};
use crate::options::Options;
use crate::rare::{Rare, RareCounts};
use crate::rng::Rng;

/// The adapter of [`FastPaxos`]: majorities and the fast quorums that follow from them, or sizes drawn for the seed.
#[derive(Clone, Copy, Debug)]
pub struct FastPaxosAdapter;

impl LogAdapter for FastPaxosAdapter {
    type Config = FastPaxosConfig;
    type Protocol = FastPaxos;
    type Observer = BallotLedger<FastPaxosAdapter>;
    type Bounds = Bounds;

    const PROPOSERS_ANY: bool = true;

    fn config(options: &Options, rng: &mut Rng) -> (FastPaxosConfig, Bounds) {
        let timeout = Duration::from_nanos(options.patience);
        let undecided = rng.pick(&[4, 32, 1_024, 65_536]);
        let (classic, bounds) = multipaxos::classic(options, rng);
        let classic =
            classic.undecided_entries_max(undecided).ahead_entries_max(undecided * rng.pick(&[1, 2]));
        let config = FastPaxos::config()
            .classic(classic)
            .slots_max(undecided.min(rng.pick(&[1, 3, 64, 1_024])))
            .resend_delay(timeout / rng.pick(&[2, 5, 20]))
            .collision_timeout(timeout / rng.pick(&[3, 10, 50]))
            .fall_back_percent(rng.pick(&[10, 50, 101, 101]))
            .fall_back_window(rng.pick(&[4, 64]))
            .fast_again_after(timeout * rng.pick(&[1, 4]))
            .recovery(rng.pick(&[
                Recovery::Coordinated,
                Recovery::Coordinated,
                Recovery::Coordinated,
                Recovery::Restart,
            ]));
        (config, bounds)
    }

    fn quorums(members: &[NodeId], rng: &mut Rng) -> QuorumSystem {
        let all = members.iter().copied();
        if rng.below(4) > 0 {
            return QuorumSystem::majority(all);
        }
        let count = members.len();
        let election = rng.between(count as u64 / 2 + 1, count as u64) as usize;
        let sizes =
            (1..=count).map(|fast| QuorumSystem::fast(all.clone(), election, count + 1 - election, fast));
        sizes.flatten().next().unwrap_or_else(|| QuorumSystem::majority(all))
    }

    fn observer(membership: &Membership) -> BallotLedger<FastPaxosAdapter> {
        BallotLedger::new(membership)
    }

    fn fingerprint(message: &Message) -> u64 {
        multipaxos::fingerprint(message)
    }

    fn check_message(bounds: &Bounds, node: usize, message: &Message) -> Checked {
        multipaxos::check_message(bounds, node, message)
    }

    fn count(replica: &FastPaxos, rare: &mut RareCounts) {
        let counters = replica.counters();
        multipaxos::count(counters, rare);
        rare[Rare::FastRoundsOpened] += counters.opened;
        rare[Rare::DecidedFast] += counters.fast_path;
        rare[Rare::DecidedSlow] += counters.slow_path;
        rare[Rare::ValuesCollided] += counters.collisions;
        rare[Rare::SlotSwept] += counters.swept;
        rare[Rare::SlotLost] += counters.lost_slots;
        rare[Rare::SuggestedAgain] += counters.resent;
        rare[Rare::NotOpenYet] += counters.not_open;
        rare[Rare::FellBack] += counters.fell_back;
    }

    fn check_protocol(node: usize, replica: &FastPaxos) -> Checked {
        match replica.counters().last_rejection {
            // Every peer here is correct: what it says is never wrong.
            Some(why) => Err(violation("rejected", format!("n{} dropped a message: {why}", node + 1))),
            None => Ok(()),
        }
    }

    const EXPECTED: &'static [Rare] = EXPECTED;
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
    Rare::LearnedFirst,
    Rare::Learned,
    Rare::LeaderLearned,
    Rare::TooFarAhead,
    Rare::VotedAboveHole,
    Rare::CommitNotice,
    Rare::ReadRound,
    Rare::FastRoundsOpened,
    Rare::DecidedFast,
    Rare::DecidedSlow,
    Rare::ValuesCollided,
    Rare::SlotSwept,
    Rare::SlotLost,
    Rare::SuggestedAgain,
    Rare::NotOpenYet,
    Rare::FellBack,
    Rare::Held,
    Rare::StaleSender,
    Rare::StaleReceiver,
    Rare::LoadedFromStorage,
    Rare::LoadedFromTail,
];

impl Ballots for FastPaxosAdapter {
    type Protocol = FastPaxos;

    const FAST_ROUNDS: bool = true;

    fn promised(bytes: &Bytes) -> Result<Stamp, String> {
        multipaxos::promised(bytes)
    }

    fn round(stamp: Stamp) -> Round {
        match VoteRound::of_stamp(stamp) {
            Some(round) if round != VoteRound::CHOSEN => {
                Round { ballot: round.ballot.stamp(), classic: round.classic }
            }
            _ => Round::classic(stamp),
        }
    }

    fn opening(machine: &FastPaxos) -> Option<(Stamp, u64)> {
        machine.opening().map(|(ballot, from)| (ballot.stamp(), from.0))
    }

    fn pick(quorums: &QuorumSystem, answered: &NodeSet, votes: &[(NodeId, u64)]) -> Option<u64> {
        match pick(quorums, answered, votes, |a, b| a == b) {
            Pick::Bound(value) => Some(value),
            Pick::Free => None,
        }
    }

    fn claims(message: &Message, claim: &mut dyn FnMut(Claim<'_>) -> Checked) -> Checked {
        multipaxos::claims(message, claim)
    }
}
