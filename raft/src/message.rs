//! What replicas say to each other: one struct per message, one enum for all.

use std::fmt;
use std::time::Duration;

use synod_core::{Entries, LogIndex, Reign, Stamp};

/// A term: one attempt to have a leader, and the reign of the leader if there comes one (section 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// Before the first election.
    pub const ZERO: Term = Term(0);
    /// The last term there can be. A message of a later one is wrong and is dropped, so that no peer can
    /// push a replica to where numbers end.
    pub const MAX: Term = Term(1 << 62);

    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }

    /// The stamp under which entries of this term are stored.
    #[must_use]
    pub fn stamp(self) -> Stamp {
        Stamp { high: self.0, low: 0 }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// A place in a log and the term of the entry there.
///
/// Ordered as section 5.4.1 orders logs by their last entry: the later term wins, then the longer log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term of the entry.
    pub term: Term,
    /// Where it stands.
    pub index: LogIndex,
}

impl Position {
    /// Before the first entry of every log.
    pub const ZERO: Position = Position { term: Term::ZERO, index: LogIndex::ZERO };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.index, self.term)
    }
}

/// One round of heartbeats of one leadership, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}", self.0)
    }
}

/// Everything that one replica says to another. `Display` is one stable line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks whether a vote would be granted.
    PreVote(PreVote),
    /// Answers [`PreVote`].
    PreVoteReply(PreVoteReply),
    /// Asks for a vote: the paper's RequestVote.
    Vote(Vote),
    /// Answers [`Vote`].
    VoteReply(VoteReply),
    /// Brings entries: the paper's AppendEntries.
    Append(Append),
    /// Answers [`Append`]: success.
    Appended(Appended),
    /// Answers [`Append`]: no match at the previous entry.
    AppendRejected(AppendRejected),
    /// Says that the leader lives, and asks whether it still leads.
    Heartbeat(Heartbeat),
    /// Answers [`Heartbeat`].
    HeartbeatReply(HeartbeatReply),
    /// Tells what is decided, when no append does.
    CommitNotice(CommitNotice),
    /// Answers anything that a leader of an earlier term says.
    NewerTerm(NewerTerm),
    /// Has a follower campaign at once.
    TimeoutNow(TimeoutNow),
}

/// From a pre-candidate to every voter: would you vote for me? (Thesis, section 9.6.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreVote {
    /// The term that the sender would campaign in: one above its own. Nobody moves to it.
    pub term: Term,
    /// The sender's last entry.
    pub last: Position,
}

/// From a voter to a pre-candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreVoteReply {
    /// The sender's own term: above the asker's if the asker has fallen behind.
    pub term: Term,
    /// The term that was asked about, so that an answer to an earlier question is told apart.
    pub asked: Term,
    /// True if the sender would vote for the asker. It promises nothing.
    pub granted: bool,
}

/// From a candidate to every voter: vote for me. (Figure 2, RequestVote.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The candidate's term.
    pub term: Term,
    /// The candidate's last entry.
    pub last: Position,
    /// True if the leader itself wants the candidate to lead: belief in that leader is no reason to ignore it.
    pub transfer: bool,
}

/// From a voter to a candidate. (Figure 2, RequestVote results.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteReply {
    /// The sender's term.
    pub term: Term,
    /// True if the sender's one vote of this term is the receiver's, durably.
    pub granted: bool,
}

/// From a leader to a peer: entries. (Figure 2, AppendEntries.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The leader's term.
    pub term: Term,
    /// The entry before the first of `entries`.
    pub prev: Position,
    /// Everything through this index is decided.
    pub commit: LogIndex,
    /// What follows `prev`; empty for a probe.
    pub entries: Entries,
}

/// From a follower to its leader: the log matches through here, durably. (Figure 2, AppendEntries results.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The sender's term.
    pub term: Term,
    /// The last index that the leader's messages proved, not the last index of the sender's log.
    pub through: LogIndex,
}

/// From a follower to its leader: there is no such previous entry here. (Section 5.3.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendRejected {
    /// The sender's term.
    pub term: Term,
    /// The index of the previous entry that was asked for.
    pub prev: LogIndex,
    /// The sender's last entry at or below `prev` whose term is not above that of the entry asked for: the
    /// logs match nowhere between it and `prev`.
    pub hint: Position,
}

/// From a leader to a peer, regularly and for reads; waits for no disk. (Sections 5.2 and 8.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The leader's term.
    pub term: Term,
    /// Everything through this index is decided, and known to be in the receiver's log.
    pub commit: LogIndex,
    /// The round that an answer confirms.
    pub round: Round,
}

/// From a follower to its leader; waits for no disk once the term is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The sender's term.
    pub term: Term,
    /// The round that is answered.
    pub round: Round,
    /// For how long the sender helps nobody else to lead, from when it heard the round; zero without lease reads.
    /// Nanoseconds on the wire.
    pub loyal_for: Duration,
}

/// From a leader to a peer that no append has told of the latest decision. Wants no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitNotice {
    /// The leader's term.
    pub term: Term,
    /// Everything through this index is decided, and known to be in the receiver's log.
    pub commit: LogIndex,
}

/// From a leader to the follower that it hands the leadership to, once their logs are the same. (Thesis, section 3.10.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
}

/// From anybody to a leader of an earlier term, which steps down. (Section 5.1.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewerTerm {
    /// The sender's term.
    pub term: Term,
}

impl Message {
    /// The term that the message speaks of: the sender's own, but for [`PreVote`].
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Message::PreVote(PreVote { term, .. })
            | Message::PreVoteReply(PreVoteReply { term, .. })
            | Message::Vote(Vote { term, .. })
            | Message::VoteReply(VoteReply { term, .. })
            | Message::Append(Append { term, .. })
            | Message::Appended(Appended { term, .. })
            | Message::AppendRejected(AppendRejected { term, .. })
            | Message::Heartbeat(Heartbeat { term, .. })
            | Message::HeartbeatReply(HeartbeatReply { term, .. })
            | Message::CommitNotice(CommitNotice { term, .. })
            | Message::NewerTerm(NewerTerm { term })
            | Message::TimeoutNow(TimeoutNow { term }) => *term,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::PreVote(m) => write!(f, "pre-vote {} last {}", m.term, m.last),
            Message::PreVoteReply(m) => {
                write!(f, "pre-vote-reply {} asked {} {}", m.term, m.asked, verdict(m.granted))
            }
            Message::Vote(m) => {
                let why = if m.transfer { " transfer" } else { "" };
                write!(f, "vote {} last {}{why}", m.term, m.last)
            }
            Message::VoteReply(m) => write!(f, "vote-reply {} {}", m.term, verdict(m.granted)),
            Message::Append(m) => {
                write!(f, "append {} prev {} commit {} entries {}", m.term, m.prev, m.commit, m.entries)
            }
            Message::Appended(m) => write!(f, "appended {} through {}", m.term, m.through),
            Message::AppendRejected(m) => {
                write!(f, "append-rejected {} prev {} hint {}", m.term, m.prev, m.hint)
            }
            Message::Heartbeat(m) => write!(f, "heartbeat {} commit {} {}", m.term, m.commit, m.round),
            Message::HeartbeatReply(m) if m.loyal_for.is_zero() => {
                write!(f, "heartbeat-reply {} {}", m.term, m.round)
            }
            Message::HeartbeatReply(m) => {
                write!(f, "heartbeat-reply {} {} loyal for {:?}", m.term, m.round, m.loyal_for)
            }
            Message::CommitNotice(m) => write!(f, "commit-notice {} commit {}", m.term, m.commit),
            Message::NewerTerm(m) => write!(f, "newer-term {}", m.term),
            Message::TimeoutNow(m) => write!(f, "timeout-now {}", m.term),
        }
    }
}

fn verdict(granted: bool) -> &'static str {
    if granted { "granted" } else { "denied" }
}

/// The reign of `leader` in `term`.
pub(crate) fn reign(term: Term, leader: synod_core::NodeId) -> Reign {
    Reign { number: term.0, leader }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_term_wins_and_then_the_longer_log() {
        let at = |term, index| Position { term: Term(term), index: LogIndex(index) };
        assert!(at(3, 1) > at(2, 9));
        assert!(at(2, 9) > at(2, 8));
        assert!(at(1, 1) > Position::ZERO);
    }

    #[test]
    fn every_message_is_one_line_that_begins_with_its_name() {
        let at = Position { term: Term(2), index: LogIndex(5) };
        let messages = [
            Message::PreVote(PreVote { term: Term(3), last: at }),
            Message::PreVoteReply(PreVoteReply { term: Term(2), asked: Term(3), granted: true }),
            Message::Vote(Vote { term: Term(3), last: at, transfer: false }),
            Message::Vote(Vote { term: Term(3), last: at, transfer: true }),
            Message::VoteReply(VoteReply { term: Term(3), granted: false }),
            Message::Append(Append {
                term: Term(3),
                prev: at,
                commit: LogIndex(4),
                entries: Entries::empty(),
            }),
            Message::Appended(Appended { term: Term(3), through: LogIndex(5) }),
            Message::AppendRejected(AppendRejected { term: Term(3), prev: LogIndex(9), hint: at }),
            Message::Heartbeat(Heartbeat { term: Term(3), commit: LogIndex(4), round: Round(7) }),
            Message::HeartbeatReply(HeartbeatReply {
                term: Term(3),
                round: Round(7),
                loyal_for: Duration::ZERO,
            }),
            Message::CommitNotice(CommitNotice { term: Term(3), commit: LogIndex(4) }),
            Message::NewerTerm(NewerTerm { term: Term(3) }),
            Message::TimeoutNow(TimeoutNow { term: Term(3) }),
        ];
        let lines: Vec<String> = messages.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "pre-vote t3 last 5:t2",
                "pre-vote-reply t2 asked t3 granted",
                "vote t3 last 5:t2",
                "vote t3 last 5:t2 transfer",
                "vote-reply t3 denied",
                "append t3 prev 5:t2 commit 4 entries -",
                "appended t3 through 5",
                "append-rejected t3 prev 9 hint 5:t2",
                "heartbeat t3 commit 4 round 7",
                "heartbeat-reply t3 round 7",
                "commit-notice t3 commit 4",
                "newer-term t3",
                "timeout-now t3",
            ]
        );
    }
}
