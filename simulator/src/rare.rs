//! Rare paths: a sweep that never takes one does not test it.

use std::ops::{AddAssign, Index, IndexMut};

macro_rules! rare {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// A path that must be taken now and then.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rare {
            $($(#[$doc])* $name,)*
        }

        impl Rare {
            /// Every one.
            pub const ALL: &'static [Rare] = &[$(Rare::$name,)*];

            /// Its name in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Rare::$name => $word,)*
                }
            }
        }
    };
}

rare! {
    /// Somebody was elected although somebody had been before.
    LeaderChanged = "leader changed",
    /// A leader gave up within its own term: it had lost its quorum, or its disk stood still.
    SteppedDown = "leader stepped down by itself",
    /// The same, while its disk had not answered for as long as a node is patient.
    SteppedDownSlowDisk = "leader stepped down while its disk stood still",
    /// A leader stepped down because it heard no quorum.
    QuorumLost = "leader stepped down for want of a quorum",
    /// A request for a vote was ignored because a leader was heard.
    RequestIgnored = "request for a vote ignored",
    /// A peer that stopped answering was probed again.
    ProbedAgain = "silent peer probed again",
    /// Entries were read back for a peer that is behind.
    LoadedForPeer = "entries read back for a peer",
    /// Leadership was confirmed for reads.
    ReadRound = "leadership confirmed for reads",
    /// A leader answered a read under its lease.
    LeaseRead = "read answered under a lease",
    /// A follower removed entries that a new leader did not have.
    Truncated = "conflicting entries removed",
    /// A unit put entries and removed them again.
    TruncatedInUnit = "entries put and removed in one unit",
    /// A crash took entries that had been written and were not durable.
    EntriesLost = "entries lost in a crash",
    /// A crash took a vote or term that was not durable.
    HardStateLost = "hard state lost in a crash",
    /// A node crashed between the actions of one flush.
    CrashInFlush = "crash between the actions of a flush",
    /// An append found no match.
    AppendRejected = "append rejected",
    /// A leader or candidate met a higher ballot.
    Preempted = "ballot ended by a higher one",
    /// A new leader proposed again what an earlier one may have had chosen.
    ProposedAgain = "value of an earlier ballot proposed again",
    /// A new leader filled a hole.
    HoleFilled = "hole filled with a no-op",
    /// A promise came in several chunks.
    PromiseChunk = "promise in chunks",
    /// A promise told a value that was known to be chosen.
    ChosenReported = "chosen value told by a promise",
    /// A replica that does not lead decided by votes that it was told.
    DecidedByVotes = "decided by votes told to all",
    /// A candidate had to learn before it could lead.
    LearnedFirst = "candidate learned before it led",
    /// A value was learned rather than voted for.
    Learned = "value learned",
    /// A leader learned from a peer that its values are decided.
    LeaderLearned = "leader learned what is decided",
    /// An acceptor that is far behind did not vote.
    TooFarAhead = "vote refused too far ahead",
    /// A peer was left to learn what its leader no longer held.
    PeerSkipped = "peer left to learn",
    /// A vote was cast above a hole.
    VotedAboveHole = "vote above a hole",
    /// A vote was refused.
    VoteRefused = "vote refused",
    /// A pre-vote was refused.
    PreVoteRefused = "pre-vote refused",
    /// A leader of an earlier term was told so.
    NewerTerm = "leader of an earlier term told",
    /// A decision travelled alone.
    CommitNotice = "decision sent alone",
    /// A prospective leader gave up because a follower had more than it.
    Outdone = "prospective leader behind a follower",
    /// A leader gave up because a follower had promised a later epoch.
    Outrun = "leader outrun by a later promise",
    /// A prospective leader found no quorum in time.
    DiscoveryFailed = "discovery without a quorum",
    /// A follower joined an epoch that it had promised to another one.
    PromisedElsewhere = "epoch promised to another leader",
    /// A message waited for a write.
    Held = "message waited for a write",
    /// A message was dropped because too many waited for writes.
    HeldTooMany = "message dropped behind a slow disk",
    /// An envelope of an earlier life was dropped.
    StaleSender = "envelope of an earlier life dropped",
    /// An envelope to an earlier life was dropped.
    StaleReceiver = "envelope to an earlier life dropped",
    /// Entries were read back from the storage.
    LoadedFromStorage = "entries read back from storage",
    /// A load was answered from the tail.
    LoadedFromTail = "load answered from the tail",
    /// A read was confirmed.
    ReadConfirmed = "read confirmed",
    /// A read failed.
    ReadFailed = "read not confirmed",
    /// A proposal was refused.
    Refused = "proposal refused",
    /// A command was forwarded to the leader.
    Forwarded = "command forwarded",
    /// A client proposed a command of unknown outcome again, under the same number, perhaps elsewhere.
    ProposedElsewhere = "command proposed again by its client",
    /// A decided copy of a command was not applied again.
    DuplicateDropped = "decided copy not applied again",
    /// A command of a session that is gone was decided.
    ExpiredDropped = "command of a session that is gone",
    /// A client was told that its session is gone.
    SessionExpired = "session expired",
    /// A command of an ordered session came too early.
    OutOfOrder = "command of an ordered session out of order",
    /// A command came too far ahead of its session.
    BeyondWindow = "command beyond the window",
    /// A proposal was refused because too many wait.
    QueueFull = "proposal queue full",
    /// A command was refused for its size.
    TooLarge = "command too large",
    /// A proposal ended with an unknown outcome.
    Unknown = "outcome unknown",
    /// A proposal ended at its deadline and surely had no effect.
    TimedOut = "no leader in time",
    /// A follower answered a linearizable read.
    FollowerRead = "linearizable read at a follower",
    /// An ordered session had several commands open.
    OrderedPipelined = "ordered session pipelined",
    /// A leadership was handed over.
    Transferred = "leadership handed over",
    /// A leadership was to be handed over, and was not.
    TransferFailed = "leadership not handed over",
    /// A lease went from one node to another.
    LeaseHandedOver = "lease handed over",
    /// The holder of a lease crashed.
    LeaseHolderCrashed = "holder of a lease crashed",
    /// Two nodes held a lease at once, where clocks may break their bound.
    LeaseTwoHolders = "two holders of a lease at once",
    /// Two nodes led at once, in different epochs.
    TwoLeaders = "two leaders at once, of different epochs",
    /// A register refused the token of a holder that another one had followed.
    StaleTokenRefused = "stale token refused",
    /// A recovery cut a torn batch off.
    TornTail = "torn batch cut off",
    /// A recovery refused a damaged log.
    LogRefused = "damaged log refused",
    /// A recovery opened a log although its device had been damaged: what was hit is not needed.
    DamageHarmless = "log opened in spite of damage",
    /// A recovery was cut short by a crash.
    CrashInRecovery = "crash inside a recovery",
    /// A crash came in the middle of what the engine does to its device.
    CrashInWrite = "crash inside a write of the engine",
    /// An error of a device stopped its node.
    StoppedByDevice = "node stopped by an error of its device",
    /// A log went on in a new segment.
    SegmentRolled = "segment begun",
    /// A log went on in a segment that had been given up.
    SegmentRecycled = "segment used again",
    /// A snapshot was taken.
    SnapshotTaken = "snapshot taken",
    /// A snapshot arrived and took the place of a log and a state.
    SnapshotInstalled = "snapshot taken over from a peer",
    /// A snapshot arrived that brought nothing new.
    SnapshotDiscarded = "snapshot of no use",
    /// A node started from a snapshot.
    SnapshotStarted = "start from a snapshot",
    /// A node started from the snapshot before the newest, which was damaged.
    SnapshotFellBack = "start from the snapshot before a damaged one",
    /// A store of snapshots refused to begin, write or finish one.
    SnapshotRefused = "snapshot not written",
    /// The newest snapshot was damaged at rest.
    SnapshotDamaged = "snapshot damaged at rest",
    /// A leader opened the fast rounds of its ballot.
    FastRoundsOpened = "fast rounds opened",
    /// A coordinator saw a slot decided in its fast round.
    DecidedFast = "slot decided in its fast round",
    /// A coordinator saw a slot decided in the classic round after the fast one.
    DecidedSlow = "slot decided in the classic round after the fast one",
    /// No value could reach a fast quorum any more.
    ValuesCollided = "values collided in a fast round",
    /// A coordinator saw to a slot because votes did not come.
    SlotSwept = "slot resolved for want of votes",
    /// A proposer lost its slot to another one.
    SlotLost = "slot lost to another proposer",
    /// A proposer sent its value again.
    SuggestedAgain = "value suggested again",
    /// A value came to an acceptor that had not heard of an open round.
    NotOpenYet = "value suggested before the round was known to be open",
    /// A leader went back to ordering alone.
    FellBack = "leader went back to ordering alone",
    /// More nodes than a cluster survives lost their logs: it stands still.
    Halted = "cluster halted beyond the limit",
}

/// A number for each rare path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RareCounts([u64; Rare::ALL.len()]);

impl Default for RareCounts {
    fn default() -> RareCounts {
        RareCounts([0; Rare::ALL.len()])
    }
}

impl Index<Rare> for RareCounts {
    type Output = u64;

    fn index(&self, rare: Rare) -> &u64 {
        &self.0[rare as usize]
    }
}

impl IndexMut<Rare> for RareCounts {
    fn index_mut(&mut self, rare: Rare) -> &mut u64 {
        &mut self.0[rare as usize]
    }
}

impl AddAssign for RareCounts {
    fn add_assign(&mut self, other: RareCounts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}
