//! What happened so far, for operators and for tests that must reach rare paths.

use std::fmt;

/// How often things happened since the replica was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages that no correct peer sends. They were dropped.
    pub rejected: u64,
    /// Why the last of them was.
    pub last_rejection: Option<Rejection>,
    /// Rounds of asking who would promise.
    pub canvasses: u64,
    /// Ballots this replica campaigned in.
    pub campaigns: u64,
    /// Campaigns won.
    pub campaigns_won: u64,
    /// Requests for support denied because a leader is heard.
    pub support_denied: u64,
    /// Leaderships given up because no quorum was heard.
    pub quorums_lost: u64,
    /// Leaderships given up because this replica's own disk stood still.
    pub disk_stalls: u64,
    /// Leaderships and campaigns ended by a higher ballot.
    pub preempted: u64,
    /// Values of earlier ballots that a new leader proposed again.
    pub proposed_again: u64,
    /// Holes that a new leader filled with no-ops.
    pub holes_filled: u64,
    /// Chunks of promises asked for beyond the first.
    pub chunks: u64,
    /// Candidates that had to learn before they could lead.
    pub learned_first: u64,
    /// Requests for decided values.
    pub learns: u64,
    /// Entries taken over as chosen.
    pub learned: u64,
    /// Leaders that learned from a peer that more is decided.
    pub leader_learned: u64,
    /// Entries refused because they lie too far above this replica's watermark.
    pub too_far_ahead: u64,
    /// Accepts that arrived again.
    pub repeated: u64,
    /// Peers that stopped acknowledging and are probed again.
    pub fallbacks: u64,
    /// Peers that a leader left to learn what it no longer holds in memory.
    pub skipped: u64,
    /// Requests for values that are compacted.
    pub out_of_reach: u64,
    /// Times values were compacted.
    pub compactions: u64,
    /// Snapshots that took the place of a log.
    pub installs: u64,
    /// Snapshots that no correct peer sends.
    pub snapshots_refused: u64,
    /// Times that votes told to every replica decided something before the leader said so.
    pub decided_by_votes: u64,
    /// Watermarks sent alone.
    pub commit_notices: u64,
    /// Times this leader began to hand its leadership over.
    pub transfers: u64,
    /// Campaigns that a leader asked this replica to begin.
    pub successions: u64,
    /// Campaigns won of those that a leader asked for.
    pub successions_won: u64,
    /// Rounds begun for reads.
    pub read_rounds: u64,
    /// Reads that a lease answered.
    pub lease_reads: u64,
    /// Prepares left unanswered because another leader was promised to wait for.
    pub prepares_ignored: u64,
    /// Fast Paxos: times that fast rounds were opened here.
    pub opened: u64,
    /// Values suggested for slots believed free.
    pub suggested: u64,
    /// Values suggested again because their slot was not decided.
    pub resent: u64,
    /// Suggestions that came before it was known that the round is open.
    pub not_open: u64,
    /// Slots decided in fast rounds, as seen by their coordinator.
    pub fast_path: u64,
    /// Slots decided in classic rounds that followed a fast one, as seen by their coordinator.
    pub slow_path: u64,
    /// Slots in which no value could reach a fast quorum any more.
    pub collisions: u64,
    /// Slots resolved because votes did not come.
    pub swept: u64,
    /// Slots lost to another proposer: the command was proposed again.
    pub lost_slots: u64,
    /// Times that a leader went back to ordering alone.
    pub fell_back: u64,
}

impl Counters {
    pub(crate) fn reject(&mut self, why: Rejection) {
        self.rejected += 1;
        self.last_rejection = Some(why);
    }
}

/// Why a message was dropped as wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The sender is no member, or this replica itself.
    Stranger,
    /// The ballot is not one that the sender can speak of.
    Ballot,
    /// A position beyond the last that there can be, or positions in the wrong order.
    Position,
    /// The entries are not such as the sender can have.
    Entries,
    /// It answers something that was never asked.
    Unasked,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejection::Stranger => "the sender is no peer",
            Rejection::Ballot => "the ballot is not one that the sender can speak of",
            Rejection::Position => "there are no such positions",
            Rejection::Entries => "the entries cannot be the sender's",
            Rejection::Unasked => "nothing like it was asked",
        })
    }
}
