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
    /// Elections begun: times this replica began to look for a leader.
    pub elections: u64,
    /// Elections that made this replica a prospective leader.
    pub elections_won: u64,
    /// Leaderships that a quorum acknowledged.
    pub established: u64,
    /// Leaderships given up because a follower is ahead in epoch or history.
    pub outdone: u64,
    /// Leaderships given up because somebody has promised a later epoch.
    pub outrun: u64,
    /// Leaderships given up in discovery because no quorum answered in time.
    pub discoveries_failed: u64,
    /// Leaderships given up because no quorum was heard.
    pub quorums_lost: u64,
    /// Leaderships given up because this replica's own disk stood still.
    pub disk_stalls: u64,
    /// Leaders left because they said so, or said nothing for a whole timeout.
    pub leaders_lost: u64,
    /// Ends of the history that were cut off in a synchronisation.
    pub truncations: u64,
    /// Proposals, as leader or follower, that did not follow what is there.
    pub gaps: u64,
    /// Followers that stopped acknowledging and are probed again.
    pub fallbacks: u64,
    /// Reads of older entries from storage, for a follower that is behind.
    pub loads: u64,
    /// Times a follower needed entries that are compacted: it is sent a snapshot.
    pub out_of_reach: u64,
    /// Times entries were compacted.
    pub compactions: u64,
    /// Snapshots that took the place of the history.
    pub installs: u64,
    /// Snapshots that no correct peer sends.
    pub snapshots_refused: u64,
    /// Commits sent alone.
    pub commits: u64,
    /// Rounds of pings begun for reads.
    pub read_rounds: u64,
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
    /// The epoch is zero, above [`crate::Epoch::MAX`] or further ahead than [`crate::Epoch::LEAP_MAX`], or the round
    /// is above its own bound.
    Epoch,
    /// The vote names nobody who could be voted for.
    Vote,
    /// The place named is in no history.
    Place,
    /// The entries are not such as the leader of that epoch can have.
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
            Rejection::Epoch => "there is no such epoch or round",
            Rejection::Vote => "nobody can be voted for like that",
            Rejection::Place => "no history has such a place",
            Rejection::Entries => "the entries cannot be those of a leader of this epoch",
            Rejection::Decided => "the entries contradict decided ones",
            Rejection::Commit => "more is called decided than can be known to be here",
            Rejection::Unasked => "nothing like it was asked",
        })
    }
}
