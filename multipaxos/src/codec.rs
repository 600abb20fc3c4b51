//! The bytes of messages and of the hard state: fixed layout, little-endian, bounds checked first.

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{DecodeError, Entries, Loaded, LogIndex, NodeId, Wire, WireReader};

use crate::ballot::Ballot;
use crate::message::{
    Accept, Accepted, Canvass, CanvassReply, Chosen, CommitNotice, Heartbeat, HeartbeatReply, Learn, Message,
    Prepare, Promise, Rejected, Round, SLOT_MAX,
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
            Message::Canvass(_) | Message::Prepare(_) | Message::HeartbeatReply(_) => BALLOT_LEN + 8,
            Message::CanvassReply(_) => BALLOT_LEN + 1 + BALLOT_LEN + 8,
            Message::Promise(promise) => BALLOT_LEN + 4 * 8 + promise.votes.wire_len(),
            Message::Accept(accept) => BALLOT_LEN + 2 * 8 + accept.entries.wire_len(),
            Message::Accepted(_) | Message::CommitNotice(_) => BALLOT_LEN + 2 * 8,
            Message::Rejected(_) => 2 * BALLOT_LEN,
            Message::Heartbeat(_) => BALLOT_LEN + 3 * 8,
            Message::Learn(_) => 8,
            Message::Chosen(chosen) => 3 * 8 + chosen.entries.wire_len(),
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
            Message::Accept(Accept { ballot, first, commit, entries }) => {
                tagged(out, ACCEPT, *ballot);
                out.put_u64_le(first.0);
                out.put_u64_le(commit.0);
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
            Message::HeartbeatReply(HeartbeatReply { ballot, round }) => {
                tagged(out, HEARTBEAT_REPLY, *ballot);
                out.put_u64_le(round.0);
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
            HEARTBEAT_REPLY => {
                Message::HeartbeatReply(HeartbeatReply { ballot: ballot(from)?, round: Round(from.u64()?) })
            }
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
