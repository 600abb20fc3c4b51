//! The bytes of messages and of the hard state: fixed layout, little-endian, bounds checked first.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{DecodeError, Entries, Loaded, LogIndex, NodeId, Wire, WireReader};

use crate::ballot::Ballot;
use crate::message::{
    Accept, Accepted, Any, Canvass, CanvassReply, Chosen, CommitNotice, Heartbeat, HeartbeatReply, Learn,
    Message, Prepare, Promise, Rejected, Resolve, Round, SLOT_MAX, Standing, Succeed, Suggest, Voted,
};

/// What a replica must never forget beside its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The highest ballot that the replica, as an acceptor, has promised.
    pub promised: Ballot,
    /// Everything through here is decided, and the log holds the decided values. A hint that may lag.
    pub decided: LogIndex,
}

/// A version byte, the ballot, and the watermark.
impl Wire for HardState {
    fn wire_len(&self) -> usize {
        1 + BALLOT_LEN + 8
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(HARD_STATE_VERSION);
        put_ballot(out, self.promised);
        out.put_u64_le(self.decided.0);
    }

    fn decode(from: &mut WireReader) -> Result<HardState, DecodeError> {
        let version = from.u8()?;
        if version != HARD_STATE_VERSION {
            return Err(DecodeError::Unknown { what: "hard state version", value: u64::from(version) });
        }
        Ok(HardState { promised: ballot(from)?, decided: slot(from)? })
    }
}

impl HardState {
    /// Reads what a storage gave back; nothing there is the state of a replica that never promised.
    pub(crate) fn recover(bytes: Option<Bytes>) -> Result<HardState, DecodeError> {
        bytes.map_or(Ok(HardState::default()), HardState::from_bytes)
    }
}

/// A tag byte, then the fields in the order of the struct.
impl Wire for Message {
    fn wire_len(&self) -> usize {
        1 + match self {
            Message::Canvass(_) | Message::Prepare(_) => BALLOT_LEN + 8,
            Message::HeartbeatReply(_) => BALLOT_LEN + 8 + 8,
            Message::CanvassReply(_) => BALLOT_LEN + 1 + BALLOT_LEN + 8,
            Message::Promise(promise) => BALLOT_LEN + 4 * 8 + promise.votes.wire_len(),
            Message::Accept(accept) => BALLOT_LEN + 2 * 8 + 1 + accept.entries.wire_len(),
            Message::Accepted(_) | Message::CommitNotice(_) => BALLOT_LEN + 2 * 8,
            Message::Rejected(_) => 2 * BALLOT_LEN,
            Message::Heartbeat(_) => BALLOT_LEN + 3 * 8,
            Message::Learn(_) => 8,
            Message::Succeed(_) => BALLOT_LEN,
            Message::Chosen(chosen) => 3 * 8 + chosen.entries.wire_len(),
            Message::Any(_) => BALLOT_LEN + 4 * 8,
            Message::Standing(_) => BALLOT_LEN + 3 * 8,
            Message::Suggest(suggest) => BALLOT_LEN + suggest.values.wire_len(),
            Message::Voted(voted) => BALLOT_LEN + 8 + voted.votes.wire_len(),
            Message::Resolve(resolve) => BALLOT_LEN + 2 * 8 + resolve.values.wire_len(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Canvass(Canvass { ballot, decided }) => {
                tagged(out, CANVASS, *ballot);
                out.put_u64_le(decided.0);
            }
            Message::CanvassReply(CanvassReply { ballot, granted, seen, decided }) => {
                tagged(out, CANVASS_REPLY, *ballot);
                out.put_u8(u8::from(*granted));
                put_ballot(out, *seen);
                out.put_u64_le(decided.0);
            }
            Message::Prepare(Prepare { ballot, from }) => {
                tagged(out, PREPARE, *ballot);
                out.put_u64_le(from.0);
            }
            Message::Promise(Promise { ballot, from, decided, trimmed, last, votes }) => {
                tagged(out, PROMISE, *ballot);
                for index in [from, decided, trimmed, last] {
                    out.put_u64_le(index.0);
                }
                votes.encode(out);
            }
            Message::Accept(Accept { ballot, first, commit, to_all, entries }) => {
                tagged(out, ACCEPT, *ballot);
                out.put_u64_le(first.0);
                out.put_u64_le(commit.0);
                out.put_u8(u8::from(*to_all));
                entries.encode(out);
            }
            Message::Accepted(Accepted { ballot, through, decided }) => {
                tagged(out, ACCEPTED, *ballot);
                out.put_u64_le(through.0);
                out.put_u64_le(decided.0);
            }
            Message::Rejected(Rejected { ballot, promised }) => {
                tagged(out, REJECTED, *ballot);
                put_ballot(out, *promised);
            }
            Message::Heartbeat(Heartbeat { ballot, first, commit, round }) => {
                tagged(out, HEARTBEAT, *ballot);
                out.put_u64_le(first.0);
                out.put_u64_le(commit.0);
                out.put_u64_le(round.0);
            }
            Message::HeartbeatReply(HeartbeatReply { ballot, round, loyal_for }) => {
                tagged(out, HEARTBEAT_REPLY, *ballot);
                out.put_u64_le(round.0);
                out.put_u64_le(u64::try_from(loyal_for.as_nanos()).unwrap_or(u64::MAX));
            }
            Message::CommitNotice(CommitNotice { ballot, first, commit }) => {
                tagged(out, COMMIT_NOTICE, *ballot);
                out.put_u64_le(first.0);
                out.put_u64_le(commit.0);
            }
            Message::Learn(Learn { from }) => {
                out.put_u8(LEARN);
                out.put_u64_le(from.0);
            }
            Message::Chosen(Chosen { from, decided, trimmed, entries }) => {
                out.put_u8(CHOSEN);
                for index in [from, decided, trimmed] {
                    out.put_u64_le(index.0);
                }
                entries.encode(out);
            }
            Message::Succeed(Succeed { ballot }) => tagged(out, SUCCEED, *ballot),
            Message::Any(Any { ballot, first, commit, round, from }) => {
                tagged(out, ANY, *ballot);
                for number in [first.0, commit.0, round.0, from.0] {
                    out.put_u64_le(number);
                }
            }
            Message::Standing(Standing { ballot, round, decided, last }) => {
                tagged(out, STANDING, *ballot);
                for number in [round.0, decided.0, last.0] {
                    out.put_u64_le(number);
                }
            }
            Message::Suggest(Suggest { ballot, values }) => {
                tagged(out, SUGGEST, *ballot);
                values.encode(out);
            }
            Message::Voted(Voted { ballot, decided, votes }) => {
                tagged(out, VOTED, *ballot);
                out.put_u64_le(decided.0);
                votes.encode(out);
            }
            Message::Resolve(Resolve { ballot, first, commit, values }) => {
                tagged(out, RESOLVE, *ballot);
                out.put_u64_le(first.0);
                out.put_u64_le(commit.0);
                values.encode(out);
            }
        }
    }

    fn decode(from: &mut WireReader) -> Result<Message, DecodeError> {
        Ok(match from.u8()? {
            CANVASS => Message::Canvass(Canvass { ballot: ballot(from)?, decided: slot(from)? }),
            CANVASS_REPLY => Message::CanvassReply(CanvassReply {
                ballot: ballot(from)?,
                granted: from.bool()?,
                seen: ballot(from)?,
                decided: slot(from)?,
            }),
            PREPARE => Message::Prepare(Prepare { ballot: ballot(from)?, from: slot(from)? }),
            PROMISE => Message::Promise(Promise {
                ballot: ballot(from)?,
                from: slot(from)?,
                decided: slot(from)?,
                trimmed: slot(from)?,
                last: slot(from)?,
                votes: Loaded::decode(from)?,
            }),
            ACCEPT => Message::Accept(Accept {
                ballot: ballot(from)?,
                first: slot(from)?,
                commit: slot(from)?,
                to_all: from.bool()?,
                entries: Entries::decode(from)?,
            }),
            ACCEPTED => Message::Accepted(Accepted {
                ballot: ballot(from)?,
                through: slot(from)?,
                decided: slot(from)?,
            }),
            REJECTED => Message::Rejected(Rejected { ballot: ballot(from)?, promised: ballot(from)? }),
            HEARTBEAT => Message::Heartbeat(Heartbeat {
                ballot: ballot(from)?,
                first: slot(from)?,
                commit: slot(from)?,
                round: Round(from.u64()?),
            }),
            HEARTBEAT_REPLY => Message::HeartbeatReply(HeartbeatReply {
                ballot: ballot(from)?,
                round: Round(from.u64()?),
                loyal_for: Duration::from_nanos(from.u64()?),
            }),
            COMMIT_NOTICE => Message::CommitNotice(CommitNotice {
                ballot: ballot(from)?,
                first: slot(from)?,
                commit: slot(from)?,
            }),
            LEARN => Message::Learn(Learn { from: slot(from)? }),
            CHOSEN => Message::Chosen(Chosen {
                from: slot(from)?,
                decided: slot(from)?,
                trimmed: slot(from)?,
                entries: Entries::decode(from)?,
            }),
            SUCCEED => Message::Succeed(Succeed { ballot: ballot(from)? }),
            ANY => Message::Any(Any {
                ballot: ballot(from)?,
                first: slot(from)?,
                commit: slot(from)?,
                round: Round(from.u64()?),
                from: slot(from)?,
            }),
            STANDING => Message::Standing(Standing {
                ballot: ballot(from)?,
                round: Round(from.u64()?),
                decided: slot(from)?,
                last: slot(from)?,
            }),
            SUGGEST => Message::Suggest(Suggest { ballot: ballot(from)?, values: Loaded::decode(from)? }),
            VOTED => Message::Voted(Voted {
                ballot: ballot(from)?,
                decided: slot(from)?,
                votes: Loaded::decode(from)?,
            }),
            RESOLVE => Message::Resolve(Resolve {
                ballot: ballot(from)?,
                first: slot(from)?,
                commit: slot(from)?,
                values: Loaded::decode(from)?,
            }),
            value => {
                return Err(DecodeError::Unknown { what: "multi-paxos message", value: u64::from(value) });
            }
        })
    }
}

fn tagged(out: &mut BytesMut, tag: u8, ballot: Ballot) {
    out.put_u8(tag);
    put_ballot(out, ballot);
}

fn put_ballot(out: &mut BytesMut, ballot: Ballot) {
    out.put_u64_le(ballot.round);
    out.put_u64_le(ballot.node.0);
}

fn ballot(from: &mut WireReader) -> Result<Ballot, DecodeError> {
    let ballot = Ballot { round: from.u64()?, node: NodeId(from.u64()?) };
    if ballot == Ballot::ZERO || ballot.is_usable() {
        Ok(ballot)
    } else {
        Err(DecodeError::Impossible { what: "ballot" })
    }
}

fn slot(from: &mut WireReader) -> Result<LogIndex, DecodeError> {
    let slot = LogIndex(from.u64()?);
    if slot > SLOT_MAX { Err(DecodeError::Impossible { what: "slot" }) } else { Ok(slot) }
}

const HARD_STATE_VERSION: u8 = 1;
const BALLOT_LEN: usize = 16;

const CANVASS: u8 = 1;
const CANVASS_REPLY: u8 = 2;
const PREPARE: u8 = 3;
const PROMISE: u8 = 4;
const ACCEPT: u8 = 5;
const ACCEPTED: u8 = 6;
const REJECTED: u8 = 7;
const HEARTBEAT: u8 = 8;
const HEARTBEAT_REPLY: u8 = 9;
const COMMIT_NOTICE: u8 = 10;
const LEARN: u8 = 11;
const CHOSEN: u8 = 12;
const SUCCEED: u8 = 13;
const ANY: u8 = 14;
const STANDING: u8 = 15;
const SUGGEST: u8 = 16;
const VOTED: u8 = 17;
const RESOLVE: u8 = 18;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use synod_core::{ClientId, Entry, Kind, RequestId, Sequence};

    use super::*;

    const BALLOT: Ballot = Ballot { round: 3, node: NodeId(1) };

    fn some_entries(first: u64, count: usize) -> Entries {
        Entries::numbered(LogIndex(first), vec![(); count], |index, ()| Entry {
            index,
            stamp: BALLOT.stamp(),
            reign: BALLOT.reign(),
            kind: Kind::Command,
            request: RequestId { client: ClientId(4), sequence: Sequence(2), first_incomplete: Sequence(1) },
            payload: Bytes::from_static(b"hi"),
        })
    }

    fn word(value: u64) -> String {
        value.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_and_the_line_of_every_message_are_fixed() {
        let (ballot, seen) = (BALLOT, Ballot { round: 5, node: NodeId(2) });
        let (first, commit, round) = (LogIndex(6), LogIndex(7), Round(8));
        let values = || Loaded { segments: vec![some_entries(6, 1)], to: LogIndex(7) };
        let entry =
            ["6", "01000000", "01000000", "3", "1", "00", "3", "1", "00", "4", "2", "1", "02000000", "6869"];
        let table = [
            (
                Message::Canvass(Canvass { ballot, decided: commit }),
                vec!["01", "3", "1", "7"],
                "canvass 3.1 decided 7",
            ),
            (
                Message::CanvassReply(CanvassReply { ballot, granted: true, seen, decided: commit }),
                vec!["02", "3", "1", "01", "5", "2", "7"],
                "canvass-reply 3.1 granted seen 5.2 decided 7",
            ),
            (
                Message::Prepare(Prepare { ballot, from: first }),
                vec!["03", "3", "1", "6"],
                "prepare 3.1 from 6",
            ),
            (
                Message::Promise(Promise {
                    ballot,
                    from: first,
                    decided: LogIndex(5),
                    trimmed: LogIndex(4),
                    last: LogIndex(9),
                    votes: Loaded { segments: vec![some_entries(6, 1)], to: commit },
                }),
                [&["04", "3", "1", "6", "5", "4", "9", "7", "01000000"][..], &entry].concat(),
                "promise 3.1 from 6 decided 5 trimmed 4 last 9 votes ..7 6..7 [3.1]",
            ),
            (
                Message::Accept(Accept { ballot, first, commit, to_all: true, entries: some_entries(6, 1) }),
                [&["05", "3", "1", "6", "7", "01"][..], &entry].concat(),
                "accept 3.1 first 6 commit 7 to-all entries 6..7 [3.1]",
            ),
            (
                Message::Accepted(Accepted { ballot, through: first, decided: commit }),
                vec!["06", "3", "1", "6", "7"],
                "accepted 3.1 through 6 decided 7",
            ),
            (
                Message::Rejected(Rejected { ballot, promised: seen }),
                vec!["07", "3", "1", "5", "2"],
                "rejected 3.1 promised 5.2",
            ),
            (
                Message::Heartbeat(Heartbeat { ballot, first, commit, round }),
                vec!["08", "3", "1", "6", "7", "8"],
                "heartbeat 3.1 first 6 commit 7 round 8",
            ),
            (
                Message::HeartbeatReply(HeartbeatReply { ballot, round, loyal_for: Duration::from_nanos(4) }),
                vec!["09", "3", "1", "8", "4"],
                "heartbeat-reply 3.1 round 8 loyal for 4ns",
            ),
            (
                Message::CommitNotice(CommitNotice { ballot, first, commit }),
                vec!["0a", "3", "1", "6", "7"],
                "commit-notice 3.1 first 6 commit 7",
            ),
            (Message::Learn(Learn { from: first }), vec!["0b", "6"], "learn from 6"),
            (
                Message::Chosen(Chosen {
                    from: first,
                    decided: commit,
                    trimmed: LogIndex(4),
                    entries: some_entries(6, 1),
                }),
                [&["0c", "6", "7", "4"][..], &entry].concat(),
                "chosen from 6 decided 7 trimmed 4 entries 6..7 [3.1]",
            ),
            (Message::Succeed(Succeed { ballot }), vec!["0d", "3", "1"], "succeed 3.1"),
            (
                Message::Any(Any { ballot, first, commit, round, from: LogIndex(9) }),
                vec!["0e", "3", "1", "6", "7", "8", "9"],
                "any 3.1 first 6 commit 7 round 8 from 9",
            ),
            (
                Message::Standing(Standing { ballot, round, decided: commit, last: LogIndex(9) }),
                vec!["0f", "3", "1", "8", "7", "9"],
                "standing 3.1 round 8 decided 7 last 9",
            ),
            (
                Message::Suggest(Suggest { ballot, values: values() }),
                [&["10", "3", "1", "7", "01000000"][..], &entry].concat(),
                "suggest 3.1 6:classic:c4#2",
            ),
            (
                Message::Voted(Voted { ballot, decided: LogIndex(5), votes: values() }),
                [&["11", "3", "1", "5", "7", "01000000"][..], &entry].concat(),
                "voted 3.1 decided 5 6:classic:c4#2",
            ),
            (
                Message::Resolve(Resolve { ballot, first, commit, values: values() }),
                [&["12", "3", "1", "6", "7", "7", "01000000"][..], &entry].concat(),
                "resolve 3.1 first 6 commit 7 6:classic:c4#2",
            ),
        ];
        for (message, parts, line) in table {
            // A part of one digit is a number of eight bytes, any other is hexadecimal.
            let part =
                |part: &&str| if part.len() == 1 { word(part.parse().unwrap()) } else { (*part).to_string() };
            let want: String = parts.iter().map(part).collect();
            let bytes = message.to_bytes();
            assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), want, "{message}");
            assert_eq!((message.wire_len(), message.to_string().as_str()), (bytes.len(), line));
            assert_eq!(Message::from_bytes(bytes), Ok(message));
        }
    }

    #[test]
    fn the_bytes_of_the_hard_state_are_fixed() {
        let state = HardState { promised: BALLOT, decided: LogIndex(9) };
        let bytes = state.to_bytes();
        let want = format!("01{}{}{}", word(3), word(1), word(9));
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), want);
        assert_eq!(bytes.len(), state.wire_len());
        assert_eq!(HardState::from_bytes(bytes), Ok(state));
        assert_eq!(HardState::recover(None), Ok(HardState::default()));
    }

    #[test]
    fn what_stands_for_nothing_is_an_error() {
        let mut later = HardState::default().to_bytes().to_vec();
        later[0] = 2;
        let version = DecodeError::Unknown { what: "hard state version", value: 2 };
        assert_eq!(HardState::from_bytes(Bytes::from(later)), Err(version));
        let mut unknown = Message::Learn(Learn { from: LogIndex(1) }).to_bytes().to_vec();
        unknown[0] = 19;
        let tag = DecodeError::Unknown { what: "multi-paxos message", value: 19 };
        assert_eq!(Message::from_bytes(Bytes::from(unknown)), Err(tag));
        let beyond = Message::Learn(Learn { from: SLOT_MAX.next() }).to_bytes();
        assert_eq!(Message::from_bytes(beyond), Err(DecodeError::Impossible { what: "slot" }));
        let nobody = Ballot { round: 1, node: NodeId(0) };
        let prepare = Message::Prepare(Prepare { ballot: nobody, from: LogIndex(1) }).to_bytes();
        assert_eq!(Message::from_bytes(prepare), Err(DecodeError::Impossible { what: "ballot" }));
    }

    fn message() -> impl Strategy<Value = Message> {
        let numbers = (1u64..9, 1u64..9, 0u64..1 << 60, 0u64..1 << 60, any::<bool>(), 0usize..5);
        (0u8..18, numbers).prop_map(|(kind, (round, node, a, b, granted, count))| {
            let ballot = Ballot { round, node: NodeId(node) };
            let (first, commit) = (LogIndex(a), LogIndex(b));
            let entries = some_entries(a + 1, count);
            let values = Loaded { to: LogIndex(a + 9), segments: vec![some_entries(a + 1, count + 1)] };
            match kind {
                0 => Message::Canvass(Canvass { ballot, decided: commit }),
                1 => Message::CanvassReply(CanvassReply { ballot, granted, seen: ballot, decided: commit }),
                2 => Message::Prepare(Prepare { ballot, from: first }),
                3 => {
                    let votes =
                        Loaded { to: LogIndex(a + 9), segments: vec![some_entries(a + 1, count + 1)] };
                    Message::Promise(Promise {
                        ballot,
                        from: first,
                        decided: commit,
                        trimmed: first,
                        last: commit,
                        votes,
                    })
                }
                4 => Message::Accept(Accept { ballot, first, commit, to_all: granted, entries }),
                5 => Message::Accepted(Accepted { ballot, through: first, decided: commit }),
                6 => Message::Rejected(Rejected { ballot, promised: ballot }),
                7 => Message::Heartbeat(Heartbeat { ballot, first, commit, round: Round(b) }),
                8 => Message::HeartbeatReply(HeartbeatReply {
                    ballot,
                    round: Round(b),
                    loyal_for: Duration::from_nanos(a),
                }),
                9 => Message::CommitNotice(CommitNotice { ballot, first, commit }),
                10 => Message::Learn(Learn { from: first }),
                11 => Message::Any(Any { ballot, first, commit, round: Round(b), from: first }),
                12 => Message::Standing(Standing { ballot, round: Round(b), decided: first, last: commit }),
                13 => Message::Suggest(Suggest { ballot, values }),
                14 => Message::Voted(Voted { ballot, decided: commit, votes: values }),
                15 => Message::Resolve(Resolve { ballot, first, commit, values }),
                16 => Message::Chosen(Chosen { from: first, decided: commit, trimmed: first, entries }),
                _ => Message::Succeed(Succeed { ballot }),
            }
        })
    }

    proptest! {
        #[test]
        fn a_message_takes_little_more_than_its_entries_weigh(message in message()) {
            let weight: usize = match &message {
                Message::Promise(promise) => promise.votes.segments.iter().map(Entries::weight).sum(),
                Message::Accept(accept) => accept.entries.weight(),
                Message::Chosen(chosen) => chosen.entries.weight(),
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
