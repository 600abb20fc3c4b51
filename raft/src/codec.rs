//! The bytes of messages and of the hard state: fixed layout, little-endian, bounds checked first.

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{DecodeError, Entries, LogIndex, NodeId, Wire, WireReader};

use crate::message::{
    Append, AppendRejected, Appended, CommitNotice, Heartbeat, HeartbeatReply, Message, NewerTerm, Position,
    PreVote, PreVoteReply, Round, Term, Vote, VoteReply,
};

/// What a replica must never forget beside its log (figure 2, persistent state).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term the replica has seen.
    pub term: Term,
    /// Who received its vote in that term.
    pub voted_for: Option<NodeId>,
}

/// A version byte, the term, and the node voted for (0 for nobody).
impl Wire for HardState {
    fn wire_len(&self) -> usize {
        1 + 8 + 8
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(HARD_STATE_VERSION);
        out.put_u64_le(self.term.0);
        out.put_u64_le(self.voted_for.map_or(0, |node| node.0));
    }

    fn decode(from: &mut WireReader) -> Result<HardState, DecodeError> {
        let version = from.u8()?;
        if version != HARD_STATE_VERSION {
            return Err(DecodeError::Unknown { what: "hard state version", value: u64::from(version) });
        }
        let term = term(from)?;
        let voted_for = Some(NodeId(from.u64()?)).filter(|node| *node != NodeId(0));
        Ok(HardState { term, voted_for })
    }
}

/// A tag byte, then the fields in the order of the struct.
impl Wire for Message {
    fn wire_len(&self) -> usize {
        1 + match self {
            Message::PreVote(_) | Message::Vote(_) => 8 + POSITION_LEN,
            Message::PreVoteReply(_) => 8 + 8 + 1,
            Message::VoteReply(_) => 8 + 1,
            Message::Append(append) => 8 + POSITION_LEN + 8 + append.entries.wire_len(),
            Message::Appended(_) | Message::HeartbeatReply(_) | Message::CommitNotice(_) => 8 + 8,
            Message::AppendRejected(_) => 8 + 8 + POSITION_LEN,
            Message::Heartbeat(_) => 8 + 8 + 8,
            Message::NewerTerm(_) => 8,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::PreVote(PreVote { term, last }) => {
                tagged(out, PRE_VOTE, *term);
                put_position(out, *last);
            }
            Message::PreVoteReply(PreVoteReply { term, asked, granted }) => {
                tagged(out, PRE_VOTE_REPLY, *term);
                out.put_u64_le(asked.0);
                out.put_u8(u8::from(*granted));
            }
            Message::Vote(Vote { term, last }) => {
                tagged(out, VOTE, *term);
                put_position(out, *last);
            }
            Message::VoteReply(VoteReply { term, granted }) => {
                tagged(out, VOTE_REPLY, *term);
                out.put_u8(u8::from(*granted));
            }
            Message::Append(Append { term, prev, commit, entries }) => {
                tagged(out, APPEND, *term);
                put_position(out, *prev);
                out.put_u64_le(commit.0);
                entries.encode(out);
            }
            Message::Appended(Appended { term, through }) => {
                tagged(out, APPENDED, *term);
                out.put_u64_le(through.0);
            }
            Message::AppendRejected(AppendRejected { term, prev, hint }) => {
                tagged(out, APPEND_REJECTED, *term);
                out.put_u64_le(prev.0);
                put_position(out, *hint);
            }
            Message::Heartbeat(Heartbeat { term, commit, round }) => {
                tagged(out, HEARTBEAT, *term);
                out.put_u64_le(commit.0);
                out.put_u64_le(round.0);
            }
            Message::HeartbeatReply(HeartbeatReply { term, round }) => {
                tagged(out, HEARTBEAT_REPLY, *term);
                out.put_u64_le(round.0);
            }
            Message::CommitNotice(CommitNotice { term, commit }) => {
                tagged(out, COMMIT_NOTICE, *term);
                out.put_u64_le(commit.0);
            }
            Message::NewerTerm(NewerTerm { term }) => tagged(out, NEWER_TERM, *term),
        }
    }

    fn decode(from: &mut WireReader) -> Result<Message, DecodeError> {
        let tag = from.u8()?;
        let term = term(from)?;
        Ok(match tag {
            PRE_VOTE => Message::PreVote(PreVote { term, last: position(from)? }),
            PRE_VOTE_REPLY => {
                Message::PreVoteReply(PreVoteReply { term, asked: self::term(from)?, granted: from.bool()? })
            }
            VOTE => Message::Vote(Vote { term, last: position(from)? }),
            VOTE_REPLY => Message::VoteReply(VoteReply { term, granted: from.bool()? }),
            APPEND => Message::Append(Append {
                term,
                prev: position(from)?,
                commit: LogIndex(from.u64()?),
                entries: Entries::decode(from)?,
            }),
            APPENDED => Message::Appended(Appended { term, through: LogIndex(from.u64()?) }),
            APPEND_REJECTED => Message::AppendRejected(AppendRejected {
                term,
                prev: LogIndex(from.u64()?),
                hint: position(from)?,
            }),
            HEARTBEAT => Message::Heartbeat(Heartbeat {
                term,
                commit: LogIndex(from.u64()?),
                round: Round(from.u64()?),
            }),
            HEARTBEAT_REPLY => Message::HeartbeatReply(HeartbeatReply { term, round: Round(from.u64()?) }),
            COMMIT_NOTICE => Message::CommitNotice(CommitNotice { term, commit: LogIndex(from.u64()?) }),
            NEWER_TERM => Message::NewerTerm(NewerTerm { term }),
            value => return Err(DecodeError::Unknown { what: "raft message", value: u64::from(value) }),
        })
    }
}

impl HardState {
    /// Reads what a storage gave back; nothing there is the state of a replica that never voted.
    pub(crate) fn recover(bytes: Option<Bytes>) -> Result<HardState, DecodeError> {
        bytes.map_or(Ok(HardState::default()), HardState::from_bytes)
    }
}

fn tagged(out: &mut BytesMut, tag: u8, term: Term) {
    out.put_u8(tag);
    out.put_u64_le(term.0);
}

fn put_position(out: &mut BytesMut, position: Position) {
    out.put_u64_le(position.term.0);
    out.put_u64_le(position.index.0);
}

fn position(from: &mut WireReader) -> Result<Position, DecodeError> {
    Ok(Position { term: term(from)?, index: LogIndex(from.u64()?) })
}

fn term(from: &mut WireReader) -> Result<Term, DecodeError> {
    let term = Term(from.u64()?);
    if term > Term::MAX { Err(DecodeError::Impossible { what: "term" }) } else { Ok(term) }
}

const HARD_STATE_VERSION: u8 = 1;
const POSITION_LEN: usize = 16;

const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const VOTE: u8 = 3;
const VOTE_REPLY: u8 = 4;
const APPEND: u8 = 5;
const APPENDED: u8 = 6;
const APPEND_REJECTED: u8 = 7;
const HEARTBEAT: u8 = 8;
const HEARTBEAT_REPLY: u8 = 9;
const COMMIT_NOTICE: u8 = 10;
const NEWER_TERM: u8 = 11;
