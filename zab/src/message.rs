//! What replicas say to each other: one struct per message, one enum for all.

use std::fmt;

use synod_core::{Entries, LogIndex, NodeId, Reign, Stamp};

/// An epoch: one leadership, of one leader, with one initial history. 64 bits of its own: nothing rolls over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before the first leadership.
    pub const ZERO: Epoch = Epoch(0);
    /// The last epoch there can be. A message of a later one is wrong and is dropped, so that no peer can push
    /// a replica to where numbers end.
    pub const MAX: Epoch = Epoch(1 << 62);
    /// How many epochs one message may be ahead of what a replica has promised itself: about two years of a new
    /// leader every second. Without this bound one wrong message could use up all epochs, and no leader would ever
    /// have a next one. A replica that missed more leaderships than that cannot follow any more and is replaced.
    pub const LEAP_MAX: u64 = 1 << 26;

    /// True if a peer may have come to `later` while this one was the last promised here.
    pub(crate) fn may_be_followed_by(self, later: Epoch) -> bool {
        later <= Epoch::MAX && later.0.saturating_sub(self.0) <= Epoch::LEAP_MAX
    }

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

/// Names one entry for ever: the epoch whose leader broadcast it first, and its number there, from 1.
///
/// Ordered as the paper orders transactions: the later epoch wins, then the higher counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid {
    /// The epoch.
    pub epoch: Epoch,
    /// The number within the epoch. The first entry of an epoch has 1.
    pub counter: u64,
}

impl Zxid {
    /// Before the first entry of every history.
    pub const ZERO: Zxid = Zxid { epoch: Epoch::ZERO, counter: 0 };

    /// The zxid that an entry was stored under.
    #[must_use]
    pub fn of(stamp: Stamp) -> Zxid {
        Zxid { epoch: Epoch(stamp.high), counter: stamp.low }
    }

    /// The stamp under which an entry of this zxid is stored.
    #[must_use]
    pub fn stamp(self) -> Stamp {
        Stamp { high: self.epoch.0, low: self.counter }
    }

    /// The zxid `count` entries further on in the same epoch.
    #[must_use]
    pub(crate) fn advance(self, count: u64) -> Zxid {
        Zxid { epoch: self.epoch, counter: self.counter.saturating_add(count) }
    }

    /// True if an entry of this zxid may stand right after one of `before`: no hole within an epoch (ZK-4925).
    pub(crate) fn follows(self, before: Zxid) -> bool {
        if self.epoch == before.epoch {
            self.epoch > Epoch::ZERO && before.counter.checked_add(1) == Some(self.counter)
        } else {
            self.epoch > before.epoch && self.counter == 1
        }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.counter)
    }
}

/// A place in a history: a zxid, and the dense position where its entry stands in every log that holds it.
///
/// Two histories that share a zxid share everything before it, so they have it at the same position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The zxid of the entry.
    pub zxid: Zxid,
    /// Where it stands.
    pub index: LogIndex,
}

impl Place {
    /// Before the first entry of every history.
    pub const ZERO: Place = Place { zxid: Zxid::ZERO, index: LogIndex::ZERO };

    /// True if some history may hold this place.
    pub(crate) fn is_possible(self) -> bool {
        let Place { zxid, index } = self;
        if index == LogIndex::ZERO {
            return zxid == Zxid::ZERO;
        }
        zxid.epoch > Epoch::ZERO && zxid.counter > 0 && zxid.counter <= index.0 && zxid.epoch <= Epoch::MAX
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.index, self.zxid)
    }
}

/// One try of a follower to follow: the life of the follower in the upper half, its tries there in the lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a{}.{}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// One leader and one follower, together: what a connection is in ZooKeeper. What belongs to another session
/// is dropped on both sides. Within a session the *sequence* is the dense position of entries itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The follower's try.
    pub attempt: Attempt,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.attempt)
    }
}

/// One election, as a number that all who look for a leader agree on. Forgotten by a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

impl Round {
    /// The last round there can be.
    pub const MAX: Round = Round(1 << 62);
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}", self.0)
    }
}

/// A vote: who should lead, and with which history. The greatest wins: the later epoch, then the longer
/// history, then the higher id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    /// The last epoch whose leader the proposed one followed, or was.
    pub epoch: Epoch,
    /// The last entry of its history.
    pub last: Zxid,
    /// The proposed leader.
    pub node: NodeId,
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} {}", self.node, self.epoch, self.last)
    }
}

/// How the sender of a [`Notification`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It looks for a leader.
    Looking,
    /// It follows the one it votes for.
    Following,
    /// It leads, and a quorum has not yet acknowledged its history.
    Leading,
    /// It leads.
    Established,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Looking => "looking",
            Standing::Following => "following",
            Standing::Leading => "leading",
            Standing::Established => "established",
        })
    }
}

/// A number of one round of pings of one leadership, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Beat(pub u64);

impl fmt::Display for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "beat {}", self.0)
    }
}

/// Everything that one replica says to another. `Display` is one stable line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Election: a vote.
    Notification(Notification),
    /// Discovery: I want to follow you.
    FollowerInfo(FollowerInfo),
    /// Discovery: the epoch I want to lead.
    NewEpoch(NewEpoch),
    /// Discovery: I follow nobody of an earlier epoch any more.
    AckEpoch(AckEpoch),
    /// Synchronisation and broadcast: entries.
    Proposal(Proposal),
    /// Synchronisation: where the initial history ends.
    NewLeader(NewLeader),
    /// Synchronisation: entries are here. Counts for nothing.
    Received(Received),
    /// Synchronisation and broadcast: the history is here, durably.
    Ack(Ack),
    /// Synchronisation and broadcast: a gap.
    Missing(Missing),
    /// Broadcast: what is decided.
    Commit(Commit),
    /// The leader lives.
    Ping(Ping),
    /// So does the follower.
    Pong(Pong),
}

/// Between replicas, while one of them looks for a leader. (ZooKeeper's fast leader election.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The election: the current one of a sender that looks, the last one of any other.
    pub round: Round,
    /// How the sender stands.
    pub standing: Standing,
    /// Whom it votes for, follows or is; `None` while it looks and knows of nobody who could lead.
    pub vote: Option<Vote>,
}

/// From a follower to the leader it elected: CEPOCH. (Phase 1, step 1.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerInfo {
    /// Names the session that begins.
    pub attempt: Attempt,
    /// The last epoch that the sender promised (`f.p` in the paper).
    pub accepted: Epoch,
}

/// From a prospective leader to a follower: NEWEPOCH. (Phase 1, step 2.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEpoch {
    /// Its epoch is above what a quorum had promised.
    pub session: Session,
}

/// From a follower to its leader: ACK-E. (Phase 1, step 3.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckEpoch {
    /// The session.
    pub session: Session,
    /// True if the sender's one promise of this epoch is the receiver's, durably. False: it once promised the
    /// same epoch to another, so this answer does not elect; it may still be synchronised.
    pub promised: bool,
    /// The last epoch whose NEWLEADER the sender acknowledged (`f.a`).
    pub current: Epoch,
    /// The end of its history (`f.h`).
    pub last: Place,
}

/// From a leader to a follower: entries. (Phase 3, step 1; in phase 2 it is what DIFF and TRUNC bring.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The session.
    pub session: Session,
    /// The entry before the first of `entries`.
    pub prev: Place,
    /// Everything through this index is decided.
    pub commit: LogIndex,
    /// What follows `prev`; empty to ask where the histories part.
    pub entries: Entries,
}

/// From a leader to a follower, after the entries it needs: NEWLEADER. (Phase 2, step 1.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewLeader {
    /// The session.
    pub session: Session,
    /// The last entry of the history to have. Whatever stands beyond it from before is cut off.
    pub last: Place,
}

/// From a follower that is not synchronised yet: entries are here. It keeps the window moving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The session.
    pub session: Session,
    /// The histories are the same through here, on this disk too.
    pub through: LogIndex,
}

/// From a follower to its leader: ACK-LD and ACK. (Phase 2, step 2; phase 3, step 2.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The session. That its epoch is the sender's current one is durable.
    pub session: Session,
    /// So is the leader's history through here.
    pub through: LogIndex,
}

/// From a follower to its leader: there is no such previous entry here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The session.
    pub session: Session,
    /// The index of the previous entry that the leader named.
    pub prev: LogIndex,
    /// Where to go on: the last contiguous place, or, while it is unknown where the histories part, the
    /// sender's last entry at or below `prev` whose zxid is not above the one asked for.
    pub hint: Place,
}

/// From an established leader to a follower: COMMIT, and UPTODATE as its first. (Phase 2, step 3; phase 3.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The session.
    pub session: Session,
    /// Everything through this index is decided, and known to be in the receiver's log.
    pub through: LogIndex,
}

/// From a leader to a follower, regularly and for reads; waits for no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// The session.
    pub session: Session,
    /// True once a quorum has acknowledged the leader's history.
    pub established: bool,
    /// Everything through this index is decided, and known to be in the receiver's log.
    pub commit: LogIndex,
    /// The round that an answer confirms.
    pub beat: Beat,
}

/// From a follower to its leader; waits for no disk once the epoch is promised durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The session. The sender has promised no later epoch.
    pub session: Session,
    /// The round that is answered.
    pub beat: Beat,
}

impl Message {
    /// The session that the message belongs to; elections and a first hello belong to none.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        match self {
            Message::Notification(_) | Message::FollowerInfo(_) => None,
            Message::NewEpoch(NewEpoch { session })
            | Message::AckEpoch(AckEpoch { session, .. })
            | Message::Proposal(Proposal { session, .. })
            | Message::NewLeader(NewLeader { session, .. })
            | Message::Received(Received { session, .. })
            | Message::Ack(Ack { session, .. })
            | Message::Missing(Missing { session, .. })
            | Message::Commit(Commit { session, .. })
            | Message::Ping(Ping { session, .. })
            | Message::Pong(Pong { session, .. }) => Some(*session),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Notification(m) => {
                write!(f, "notification {} {}", m.round, m.standing)?;
                match m.vote {
                    Some(vote) => write!(f, " vote {vote}"),
                    None => write!(f, " vote -"),
                }
            }
            Message::FollowerInfo(m) => write!(f, "follower-info {} accepted {}", m.attempt, m.accepted),
            Message::NewEpoch(m) => write!(f, "new-epoch {}", m.session),
            Message::AckEpoch(m) => {
                let promised = if m.promised { "promised" } else { "not promised" };
                write!(f, "ack-epoch {} {promised} current {} last {}", m.session, m.current, m.last)
            }
            Message::Proposal(m) => {
                write!(f, "proposal {} prev {} commit {} entries {}", m.session, m.prev, m.commit, m.entries)
            }
            Message::NewLeader(m) => write!(f, "new-leader {} last {}", m.session, m.last),
            Message::Received(m) => write!(f, "received {} through {}", m.session, m.through),
            Message::Ack(m) => write!(f, "ack {} through {}", m.session, m.through),
            Message::Missing(m) => write!(f, "missing {} prev {} hint {}", m.session, m.prev, m.hint),
            Message::Commit(m) => write!(f, "commit {} through {}", m.session, m.through),
            Message::Ping(m) => {
                let word = if m.established { "established" } else { "leading" };
                write!(f, "ping {} {word} commit {} {}", m.session, m.commit, m.beat)
            }
            Message::Pong(m) => write!(f, "pong {} {}", m.session, m.beat),
        }
    }
}

/// The reign of `leader` in `epoch`.
pub(crate) fn reign(epoch: Epoch, leader: NodeId) -> Reign {
    Reign { number: epoch.0, leader }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn zxid(epoch: u64, counter: u64) -> Zxid {
        Zxid { epoch: Epoch(epoch), counter }
    }

    #[test]
    fn the_later_epoch_wins_then_the_longer_history_then_the_higher_id() {
        let vote = |epoch, last, node| Vote { epoch: Epoch(epoch), last, node: NodeId(node) };
        assert!(vote(3, zxid(1, 1), 1) > vote(2, zxid(2, 9), 3));
        assert!(vote(3, zxid(2, 1), 1) > vote(3, zxid(1, 9), 3));
        assert!(vote(3, zxid(2, 2), 1) > vote(3, zxid(2, 1), 3));
        assert!(vote(3, zxid(2, 2), 2) > vote(3, zxid(2, 2), 1));
    }

    #[test]
    fn zxids_are_contiguous_within_an_epoch_and_begin_with_one() {
        assert!(zxid(2, 4).follows(zxid(2, 3)) && zxid(5, 1).follows(zxid(2, 3)));
        assert!(!zxid(2, 5).follows(zxid(2, 3)) && !zxid(5, 2).follows(zxid(2, 3)));
        assert!(!zxid(2, 3).follows(zxid(2, 3)) && !zxid(1, 1).follows(zxid(2, 3)));
        assert!(!zxid(2, 0).follows(zxid(2, u64::MAX)), "nothing rolls over");
    }

    #[test]
    fn every_message_is_one_line_that_begins_with_its_name() {
        let session = Session { epoch: Epoch(3), attempt: Attempt(2 << 32 | 1) };
        let at = Place { zxid: zxid(2, 4), index: LogIndex(5) };
        let vote = Some(Vote { epoch: Epoch(2), last: at.zxid, node: NodeId(1) });
        let (standing, round) = (Standing::Looking, Round(7));
        let messages = [
            Message::Notification(Notification { round, standing, vote }),
            Message::Notification(Notification { round, standing, vote: None }),
            Message::FollowerInfo(FollowerInfo { attempt: session.attempt, accepted: Epoch(2) }),
            Message::NewEpoch(NewEpoch { session }),
            Message::AckEpoch(AckEpoch { session, promised: true, current: Epoch(2), last: at }),
            Message::Proposal(Proposal { session, prev: at, commit: LogIndex(4), entries: Entries::empty() }),
            Message::NewLeader(NewLeader { session, last: at }),
            Message::Received(Received { session, through: LogIndex(5) }),
            Message::Ack(Ack { session, through: LogIndex(5) }),
            Message::Missing(Missing { session, prev: LogIndex(9), hint: at }),
            Message::Commit(Commit { session, through: LogIndex(4) }),
            Message::Ping(Ping { session, established: true, commit: LogIndex(4), beat: Beat(7) }),
            Message::Pong(Pong { session, beat: Beat(7) }),
        ];
        let lines: Vec<String> = messages.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "notification round 7 looking vote n1 with e2 2.4",
                "notification round 7 looking vote -",
                "follower-info a2.1 accepted e2",
                "new-epoch e3/a2.1",
                "ack-epoch e3/a2.1 promised current e2 last 5:2.4",
                "proposal e3/a2.1 prev 5:2.4 commit 4 entries -",
                "new-leader e3/a2.1 last 5:2.4",
                "received e3/a2.1 through 5",
                "ack e3/a2.1 through 5",
                "missing e3/a2.1 prev 9 hint 5:2.4",
                "commit e3/a2.1 through 4",
                "ping e3/a2.1 established commit 4 beat 7",
                "pong e3/a2.1 beat 7",
            ]
        );
    }
}
