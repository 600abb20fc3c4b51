//! The bytes of messages and of the hard state: fixed layout, little-endian, bounds checked first.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{DecodeError, Entries, LogIndex, NodeId, Wire, WireReader};

use crate::message::{
    Append, AppendRejected, Appended, CommitNotice, Heartbeat, HeartbeatReply, Message, NewerTerm, Position,
    PreVote, PreVoteReply, Round, Term, TimeoutNow, Vote, VoteReply,
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
            Message::PreVote(_) => 8 + POSITION_LEN,
            Message::Vote(_) => 8 + POSITION_LEN + 1,
            Message::PreVoteReply(_) => 8 + 8 + 1,
            Message::VoteReply(_) => 8 + 1,
            Message::Append(append) => 8 + POSITION_LEN + 8 + append.entries.wire_len(),
            Message::Appended(_) | Message::CommitNotice(_) => 8 + 8,
            Message::AppendRejected(_) => 8 + 8 + POSITION_LEN,
            Message::Heartbeat(_) | Message::HeartbeatReply(_) => 8 + 8 + 8,
            Message::NewerTerm(_) | Message::TimeoutNow(_) => 8,
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
            Message::Vote(Vote { term, last, transfer }) => {
                tagged(out, VOTE, *term);
                put_position(out, *last);
                out.put_u8(u8::from(*transfer));
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
            Message::HeartbeatReply(HeartbeatReply { term, round, loyal_for }) => {
                tagged(out, HEARTBEAT_REPLY, *term);
                out.put_u64_le(round.0);
                out.put_u64_le(u64::try_from(loyal_for.as_nanos()).unwrap_or(u64::MAX));
            }
            Message::CommitNotice(CommitNotice { term, commit }) => {
                tagged(out, COMMIT_NOTICE, *term);
                out.put_u64_le(commit.0);
            }
            Message::NewerTerm(NewerTerm { term }) => tagged(out, NEWER_TERM, *term),
            Message::TimeoutNow(TimeoutNow { term }) => tagged(out, TIMEOUT_NOW, *term),
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
            VOTE => Message::Vote(Vote { term, last: position(from)?, transfer: from.bool()? }),
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
            HEARTBEAT_REPLY => Message::HeartbeatReply(HeartbeatReply {
                term,
                round: Round(from.u64()?),
                loyal_for: Duration::from_nanos(from.u64()?),
            }),
            COMMIT_NOTICE => Message::CommitNotice(CommitNotice { term, commit: LogIndex(from.u64()?) }),
            NEWER_TERM => Message::NewerTerm(NewerTerm { term }),
            TIMEOUT_NOW => Message::TimeoutNow(TimeoutNow { term }),
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
const TIMEOUT_NOW: u8 = 12;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use synod_core::{ClientId, Entry, Kind, RequestId, Sequence};

    use super::*;
    use crate::message::reign;

    const AT: Position = Position { term: Term(2), index: LogIndex(5) };

    fn one_entry() -> Entries {
        Entries::numbered(LogIndex(6), vec![()], |index, ()| Entry {
            index,
            stamp: Term(3).stamp(),
            reign: reign(Term(3), NodeId(1)),
            kind: Kind::Command,
            request: RequestId { client: ClientId(4), sequence: Sequence(2), first_incomplete: Sequence(1) },
            payload: Bytes::from_static(b"hi"),
        })
    }

    fn word(value: u64) -> String {
        value.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_every_message_are_fixed() {
        let (term, prev, commit) = (Term(3), AT, LogIndex(4));
        let loyal_for = Duration::from_nanos(5);
        let entries = one_entry();
        let table = [
            (Message::PreVote(PreVote { term, last: AT }), vec!["01", "3", "2", "5"]),
            (
                Message::PreVoteReply(PreVoteReply { term, asked: Term(4), granted: true }),
                vec!["02", "3", "4", "01"],
            ),
            (Message::Vote(Vote { term, last: AT, transfer: true }), vec!["03", "3", "2", "5", "01"]),
            (Message::VoteReply(VoteReply { term, granted: false }), vec!["04", "3", "00"]),
            (
                Message::Append(Append { term, prev, commit, entries }),
                vec![
                    "05", "3", "2", "5", "4", "6", "01000000", "01000000", "3", "0", "00", "3", "1", "00",
                    "4", "2", "1", "02000000", "6869",
                ],
            ),
            (Message::Appended(Appended { term, through: LogIndex(6) }), vec!["06", "3", "6"]),
            (
                Message::AppendRejected(AppendRejected { term, prev: LogIndex(9), hint: AT }),
                vec!["07", "3", "9", "2", "5"],
            ),
            (Message::Heartbeat(Heartbeat { term, commit, round: Round(7) }), vec!["08", "3", "4", "7"]),
            (
                Message::HeartbeatReply(HeartbeatReply { term, round: Round(7), loyal_for }),
                vec!["09", "3", "7", "5"],
            ),
            (Message::CommitNotice(CommitNotice { term, commit }), vec!["0a", "3", "4"]),
            (Message::NewerTerm(NewerTerm { term }), vec!["0b", "3"]),
            (Message::TimeoutNow(TimeoutNow { term }), vec!["0c", "3"]),
        ];
        for (message, parts) in table {
            // A part of one digit is a number of eight bytes, any other is hexadecimal.
            let want: String = parts
                .iter()
                .map(|part| if part.len() == 1 { word(part.parse().unwrap()) } else { (*part).to_string() })
                .collect();
            let bytes = message.to_bytes();
            let got: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(got, want, "{message}");
            assert_eq!(message.wire_len(), bytes.len(), "{message}");
            assert_eq!(Message::from_bytes(bytes), Ok(message));
        }
    }

    #[test]
    fn the_bytes_of_the_hard_state_are_fixed() {
        let states = [
            (HardState { term: Term(7), voted_for: Some(NodeId(2)) }, format!("01{}{}", word(7), word(2))),
            (HardState { term: Term(7), voted_for: None }, format!("01{}{}", word(7), word(0))),
        ];
        for (state, want) in states {
            let bytes = state.to_bytes();
            assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), want);
            assert_eq!(bytes.len(), state.wire_len());
            assert_eq!(HardState::from_bytes(bytes), Ok(state));
        }
        assert_eq!(HardState::recover(None), Ok(HardState::default()));
    }

    #[test]
    fn what_stands_for_nothing_is_an_error() {
        let mut later = HardState::default().to_bytes().to_vec();
        later[0] = 2;
        let version = DecodeError::Unknown { what: "hard state version", value: 2 };
        assert_eq!(HardState::from_bytes(Bytes::from(later)), Err(version));
        let mut unknown = Message::NewerTerm(NewerTerm { term: Term(1) }).to_bytes().to_vec();
        unknown[0] = 13;
        let tag = DecodeError::Unknown { what: "raft message", value: 13 };
        assert_eq!(Message::from_bytes(Bytes::from(unknown)), Err(tag));
        let beyond = Message::NewerTerm(NewerTerm { term: Term::MAX.next() }).to_bytes();
        assert_eq!(Message::from_bytes(beyond), Err(DecodeError::Impossible { what: "term" }));
        let mut trailing = HardState::default().to_bytes().to_vec();
        trailing.push(0);
        assert_eq!(HardState::from_bytes(Bytes::from(trailing)), Err(DecodeError::Trailing(1)));
    }

    fn term() -> impl Strategy<Value = Term> {
        prop_oneof![0u64..9, Just(Term::MAX.0)].prop_map(Term)
    }

    fn message() -> impl Strategy<Value = Message> {
        let numbers = (term(), term(), any::<u64>(), any::<u64>(), any::<bool>(), 0usize..5);
        (0u8..12, numbers).prop_map(|(kind, (term, other, a, b, granted, count))| {
            let at = Position { term: other, index: LogIndex(a) };
            match kind {
                0 => Message::PreVote(PreVote { term, last: at }),
                1 => Message::PreVoteReply(PreVoteReply { term, asked: other, granted }),
                2 => Message::Vote(Vote { term, last: at, transfer: granted }),
                3 => Message::VoteReply(VoteReply { term, granted }),
                4 => {
                    let entries = Entries::numbered(LogIndex(b >> 1).next(), vec![(); count], |index, ()| {
                        Entry { index, ..one_entry()[0].clone() }
                    });
                    Message::Append(Append { term, prev: at, commit: LogIndex(b), entries })
                }
                5 => Message::Appended(Appended { term, through: LogIndex(a) }),
                6 => Message::AppendRejected(AppendRejected { term, prev: LogIndex(b), hint: at }),
                7 => Message::Heartbeat(Heartbeat { term, commit: LogIndex(a), round: Round(b) }),
                8 => {
                    let loyal_for = Duration::from_nanos(a);
                    Message::HeartbeatReply(HeartbeatReply { term, round: Round(b), loyal_for })
                }
                9 => Message::CommitNotice(CommitNotice { term, commit: LogIndex(a) }),
                10 => Message::NewerTerm(NewerTerm { term }),
                _ => Message::TimeoutNow(TimeoutNow { term }),
            }
        })
    }

    proptest! {
        #[test]
        fn a_message_takes_little_more_than_its_entries_weigh(message in message()) {
            let weight: usize = match &message {
                Message::Append(append) => append.entries.weight(),
                _ => 0,
            };
            prop_assert!(message.wire_len() <= weight + synod_core::MESSAGE_OVERHEAD, "{message}");
        }

        #[test]
        fn every_message_survives_the_wire(message in message()) {
            let bytes = message.to_bytes();
            prop_assert_eq!(bytes.len(), message.wire_len());
            prop_assert_eq!(Message::from_bytes(bytes), Ok(message));
        }

        #[test]
        fn a_cut_message_is_an_error_and_a_changed_one_no_panic(
            message in message(), at in any::<prop::sample::Index>(), to in any::<u8>(),
        ) {
            let bytes = message.to_bytes();
            let at = at.index(bytes.len());
            prop_assert!(Message::from_bytes(bytes.slice(..at)).is_err());
            let mut changed = bytes.to_vec();
            changed[at] = to;
            let _ = Message::from_bytes(Bytes::from(changed));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = HardState::from_bytes(Bytes::from(bytes.clone()));
            let _ = Message::from_bytes(Bytes::from(bytes));
        }
    }
}
