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
    /// Pre-votes begun.
    pub pre_votes: u64,
    /// Elections begun: terms this replica campaigned in.
    pub elections: u64,
    /// Elections won.
    pub elections_won: u64,
    /// Vote and pre-vote requests ignored because a leader is heard.
    pub requests_ignored: u64,
    /// Leaderships given up because no quorum was heard.
    pub quorums_lost: u64,
    /// Leaderships given up because this replica's own disk stood still.
    pub disk_stalls: u64,
    /// Leaderships given up because somebody has a newer term.
    pub deposed: u64,
    /// Conflicting ends of the log that were cut off.
    pub truncations: u64,
    /// Appends that this leader saw rejected.
    pub conflicts: u64,
    /// Peers that stopped acknowledging and are probed again.
    pub fallbacks: u64,
    /// Reads of older entries from storage, for a peer that is behind.
    pub loads: u64,
    /// Times a peer needed entries that are compacted: it cannot catch up from the log.
    pub out_of_reach: u64,
    /// Times entries were compacted.
    pub compactions: u64,
    /// Snapshots that took the place of the log.
    pub installs: u64,
    /// Snapshots that no correct peer sends.
    pub snapshots_refused: u64,
    /// Commit notices sent.
    pub commit_notices: u64,
    /// Times this leader began to hand its leadership over.
    pub transfers: u64,
    /// Elections won that a leader asked this replica to begin.
    pub transfers_won: u64,
    /// Heartbeat rounds begun for reads.
    pub read_rounds: u64,
    /// Reads that a lease answered.
    pub lease_reads: u64,
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
    /// The term is zero or above [`crate::Term::MAX`].
    Term,
    /// Somebody else leads the term that the sender claims to lead.
    SecondLeader,
    /// The entries are not such as the leader of that term can have.
    Entries,
    /// The entries contradict decided ones.
    Decided,
    /// More is called decided than the sender can know to be here.
    Commit,
    /// It answers something that was never asked.
    Unasked,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejection::Stranger => "the sender is no peer",
            Rejection::Term => "there is no such term",
            Rejection::SecondLeader => "the term has another leader",
            Rejection::Entries => "the entries cannot be those of a leader of this term",
            Rejection::Decided => "the entries contradict decided ones",
            Rejection::Commit => "more is called decided than can be known to be here",
            Rejection::Unasked => "nothing like it was asked",
        })
    }
}
