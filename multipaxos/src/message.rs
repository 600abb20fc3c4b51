//! What replicas say to each other: one struct per message.

use std::fmt;
use std::time::Duration;

use synod_core::{Entries, Loaded, LogIndex};

use crate::ballot::{Ballot, VoteRound};

/// No slot lies beyond this one: a log that grew by a million entries a second would reach it in a hundred
/// thousand years, and arithmetic on slots cannot overflow.
pub(crate) const SLOT_MAX: LogIndex = LogIndex(1 << 62);

/// A round of asking whether the leader still leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}", self.0)
    }
}

/// What replicas say to each other. `Display` is one stable line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks who would promise.
    Canvass(Canvass),
    /// Answers [`Canvass`].
    CanvassReply(CanvassReply),
    /// Phase 1a.
    Prepare(Prepare),
    /// Phase 1b.
    Promise(Promise),
    /// Phase 2a, with what is decided.
    Accept(Accept),
    /// Phase 2b.
    Accepted(Accepted),
    /// Answers whatever comes in too low a ballot.
    Rejected(Rejected),
    /// Says that the leader lives, and asks whether it still leads.
    Heartbeat(Heartbeat),
    /// Answers [`Heartbeat`].
    HeartbeatReply(HeartbeatReply),
    /// Tells what is decided, when no accept does.
    CommitNotice(CommitNotice),
    /// Asks for decided values.
    Learn(Learn),
    /// Answers [`Learn`].
    Chosen(Chosen),
    /// Has a follower campaign at once.
    Succeed(Succeed),
    /// Fast Paxos: says that the leader lives, and opens its fast rounds.
    Any(Any),
    /// Answers [`Any`].
    Standing(Standing),
    /// Fast Paxos: a proposer's values for fast rounds.
    Suggest(Suggest),
    /// Fast Paxos: phase 2b, to every learner.
    Voted(Voted),
    /// Fast Paxos: phase 2a of the classic rounds of slots in which values collided.
    Resolve(Resolve),
}

/// From a replica that hears no leader to every acceptor: would you promise? Nobody's promise moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvass {
    /// The ballot that the sender would campaign in; it takes a higher one if an answer tells of it.
    pub ballot: Ballot,
    /// The sender's watermark.
    pub decided: LogIndex,
}

/// From an acceptor to whoever canvasses. It promises nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanvassReply {
    /// The ballot that was asked about.
    pub ballot: Ballot,
    /// True if the sender hears no leader.
    pub granted: bool,
    /// The highest ballot that the sender has seen.
    pub seen: Ballot,
    /// The sender's watermark.
    pub decided: LogIndex,
}

/// From a candidate to every acceptor: phase 1a for every slot at or above `from`, without end. Sent again with a
/// higher `from` for the next chunk of the answer, and to everybody while the campaign lasts: who hears it does not
/// campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The candidate's ballot; its own promise of it is durable.
    pub ballot: Ballot,
    /// Votes below this slot need not be told.
    pub from: LogIndex,
}

/// From an acceptor to a candidate: phase 1b, after the promise is durable. Everything is decided at the sender
/// through `decided`; above, `votes` tells all its votes at or above `from` and below `votes.to`. Votes known to
/// be for the chosen value bear [`synod_core::Stamp::CHOSEN`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The ballot promised.
    pub ballot: Ballot,
    /// The [`Prepare::from`] that is answered.
    pub from: LogIndex,
    /// The sender's watermark: it has every value through here.
    pub decided: LogIndex,
    /// Everything through here is gone from the sender's log: only a snapshot holds it.
    pub trimmed: LogIndex,
    /// The last slot that the sender has voted in.
    pub last: LogIndex,
    /// A chunk of the votes. The promise is complete when `votes.to` lies above `last`.
    pub votes: Loaded,
}

/// From a leader to a peer: phase 2a for the slots of `entries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The leader's ballot: the stamp of every entry.
    pub ballot: Ballot,
    /// The first slot of this ballot.
    pub first: LogIndex,
    /// Everything through here is decided; at or above `first` it is what was proposed in this ballot.
    pub commit: LogIndex,
    /// True if the votes are to be told to every replica: see [`crate::MultiPaxosConfig::votes_to_all`].
    pub to_all: bool,
    /// The values; empty for a probe.
    pub entries: Entries,
}

/// From an acceptor to its leader, or to every replica if the leader asks for that: phase 2b, after the votes are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The ballot voted in.
    pub ballot: Ballot,
    /// The sender has voted in this ballot for every slot from [`Accept::first`] through here, but for those that
    /// the leader itself said are decided.
    pub through: LogIndex,
    /// The sender's watermark.
    pub decided: LogIndex,
}

/// From an acceptor to a candidate or leader whose ballot is too low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The ballot that came too late.
    pub ballot: Ballot,
    /// A higher ballot, that the sender has promised or whose leader it hears.
    pub promised: Ballot,
}

/// From a leader to a peer, regularly and for reads; waits for no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The first slot of this ballot.
    pub first: LogIndex,
    /// Everything through here is decided.
    pub commit: LogIndex,
    /// The round that an answer confirms.
    pub round: Round,
}

/// From a follower to its leader: I had promised no higher ballot when this round arrived. Waits for no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The round that is answered.
    pub round: Round,
    /// For how long the sender helps nobody else to lead, from when it heard the round; zero without lease reads.
    /// Nanoseconds on the wire.
    pub loyal_for: Duration,
}

/// From a leader to a peer that no accept has told of the latest watermark. Wants no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitNotice {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The first slot of this ballot.
    pub first: LogIndex,
    /// Everything through here is decided.
    pub commit: LogIndex,
}

/// From a replica that is behind to one that knows more: which values were decided from here on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learn {
    /// The first slot wanted.
    pub from: LogIndex,
}

/// From a replica that has the values to one that is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The [`Learn::from`] that is answered.
    pub from: LogIndex,
    /// The sender's watermark, or less if it cannot help.
    pub decided: LogIndex,
    /// Everything through here is gone from the sender's log; if `from` is, a snapshot is on its way.
    pub trimmed: LogIndex,
    /// Decided entries, the first at `from`; empty if there is a snapshot, or the sender cannot help.
    pub entries: Entries,
}

/// From a leader to the follower that it hands the leadership to, once that has voted for all that was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Succeed {
    /// The leader's ballot.
    pub ballot: Ballot,
}

/// From a leader to a peer, in place of [`Heartbeat`] once its fast rounds are open: phase 2a with the value "any", for
/// every slot at or above `from`, without end. Waits for no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Any {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The first slot of this ballot.
    pub first: LogIndex,
    /// Everything through here is decided.
    pub commit: LogIndex,
    /// The round that an answer confirms.
    pub round: Round,
    /// The first slot whose fast round is open to every proposer.
    pub from: LogIndex,
}

/// From a follower to its leader: I had promised no higher ballot when this round arrived, and no slot above `last`
/// held a vote of mine. Waits for no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The round that is answered.
    pub round: Round,
    /// The sender's watermark.
    pub decided: LogIndex,
    /// The last slot that the sender has voted in.
    pub last: LogIndex,
}

/// From a proposer to every acceptor, or from the coordinator on somebody's behalf: vote for these in the fast rounds
/// of their slots, unless you have voted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggest {
    /// The ballot whose fast rounds are open.
    pub ballot: Ballot,
    /// The values, marked with the fast round.
    pub values: Loaded,
}

/// From an acceptor to every learner: phase 2b, after the votes are durable. A slot whose value the sender knows to be
/// chosen is told as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voted {
    /// The ballot of the votes.
    pub ballot: Ballot,
    /// The sender's watermark.
    pub decided: LogIndex,
    /// The votes, each marked with its round.
    pub votes: Loaded,
}

/// From a coordinator to every acceptor: phase 2a of the classic rounds of slots where the fast round decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// The coordinator's ballot.
    pub ballot: Ballot,
    /// The first slot of this ballot.
    pub first: LogIndex,
    /// Everything through here is decided.
    pub commit: LogIndex,
    /// The values, marked with the classic round.
    pub values: Loaded,
}

impl Message {
    /// The ballot that the message belongs to, if to any.
    #[must_use]
    pub fn ballot(&self) -> Option<Ballot> {
        match self {
            Message::Canvass(Canvass { ballot, .. })
            | Message::CanvassReply(CanvassReply { ballot, .. })
            | Message::Prepare(Prepare { ballot, .. })
            | Message::Promise(Promise { ballot, .. })
            | Message::Accept(Accept { ballot, .. })
            | Message::Accepted(Accepted { ballot, .. })
            | Message::Rejected(Rejected { ballot, .. })
            | Message::Heartbeat(Heartbeat { ballot, .. })
            | Message::HeartbeatReply(HeartbeatReply { ballot, .. })
            | Message::CommitNotice(CommitNotice { ballot, .. })
            | Message::Succeed(Succeed { ballot, .. })
            | Message::Any(Any { ballot, .. })
            | Message::Standing(Standing { ballot, .. })
            | Message::Suggest(Suggest { ballot, .. })
            | Message::Voted(Voted { ballot, .. })
            | Message::Resolve(Resolve { ballot, .. }) => Some(*ballot),
            Message::Learn(_) | Message::Chosen(_) => None,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Canvass(m) => write!(f, "canvass {} decided {}", m.ballot, m.decided),
            Message::CanvassReply(m) => {
                let verdict = if m.granted { "granted" } else { "denied" };
                write!(f, "canvass-reply {} {verdict} seen {} decided {}", m.ballot, m.seen, m.decided)
            }
            Message::Prepare(m) => write!(f, "prepare {} from {}", m.ballot, m.from),
            Message::Promise(m) => {
                write!(f, "promise {} from {} decided {} ", m.ballot, m.from, m.decided)?;
                write!(f, "trimmed {} last {} votes ..{}", m.trimmed, m.last, m.votes.to)?;
                m.votes.segments.iter().try_for_each(|segment| write!(f, " {segment}"))
            }
            Message::Accept(m) => {
                let to_all = if m.to_all { " to-all" } else { "" };
                write!(f, "accept {} first {} commit {}{to_all}", m.ballot, m.first, m.commit)?;
                write!(f, " entries {}", m.entries)
            }
            Message::Accepted(m) => {
                write!(f, "accepted {} through {} decided {}", m.ballot, m.through, m.decided)
            }
            Message::Rejected(m) => write!(f, "rejected {} promised {}", m.ballot, m.promised),
            Message::Heartbeat(m) => {
                write!(f, "heartbeat {} first {} commit {} {}", m.ballot, m.first, m.commit, m.round)
            }
            Message::HeartbeatReply(m) if m.loyal_for.is_zero() => {
                write!(f, "heartbeat-reply {} {}", m.ballot, m.round)
            }
            Message::HeartbeatReply(m) => {
                write!(f, "heartbeat-reply {} {} loyal for {:?}", m.ballot, m.round, m.loyal_for)
            }
            Message::CommitNotice(m) => {
                write!(f, "commit-notice {} first {} commit {}", m.ballot, m.first, m.commit)
            }
            Message::Learn(m) => write!(f, "learn from {}", m.from),
            Message::Chosen(m) => {
                write!(f, "chosen from {} decided {} ", m.from, m.decided)?;
                write!(f, "trimmed {} entries {}", m.trimmed, m.entries)
            }
            Message::Succeed(m) => write!(f, "succeed {}", m.ballot),
            Message::Any(m) => {
                write!(f, "any {} first {} commit {} {} ", m.ballot, m.first, m.commit, m.round)?;
                write!(f, "from {}", m.from)
            }
            Message::Standing(m) => {
                write!(f, "standing {} {} decided {} last {}", m.ballot, m.round, m.decided, m.last)
            }
            Message::Suggest(m) => {
                write!(f, "suggest {}", m.ballot)?;
                write_values(f, &m.values)
            }
            Message::Voted(m) => {
                write!(f, "voted {} decided {}", m.ballot, m.decided)?;
                write_values(f, &m.votes)
            }
            Message::Resolve(m) => {
                write!(f, "resolve {} first {} commit {}", m.ballot, m.first, m.commit)?;
                write_values(f, &m.values)
            }
        }
    }
}

/// Each slot, how its value is marked, and who waits for it.
fn write_values(f: &mut fmt::Formatter<'_>, values: &Loaded) -> fmt::Result {
    values.segments.iter().flat_map(|segment| segment.iter()).try_for_each(|entry| {
        let round = match VoteRound::of_stamp(entry.stamp) {
            Some(VoteRound::CHOSEN) => "chosen",
            Some(VoteRound { classic: true, .. }) => "classic",
            Some(VoteRound { classic: false, .. }) => "fast",
            None => "?",
        };
        write!(f, " {}:{round}:{}", entry.index, entry.request)
    })
}
