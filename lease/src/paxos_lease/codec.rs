//! The bytes of messages: fixed layout, little-endian, bounds checked first.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use synod_core::{DecodeError, Incarnation, NodeId, Wire, WireReader};

use super::message::{Accepted, Ballot, Message, Prepare, Promise, Propose, Rejected, Release};

const PREPARE: u8 = 1;
const PROMISE: u8 = 2;
const PROPOSE: u8 = 3;
const ACCEPTED: u8 = 4;
const REJECTED: u8 = 5;
const RELEASE: u8 = 6;

const BALLOT_LEN: usize = 24;

/// Round, proposer, life.
impl Wire for Ballot {
    fn wire_len(&self) -> usize {
        BALLOT_LEN
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.round);
        out.put_u64_le(self.proposer.0);
        out.put_u64_le(self.life.0);
    }

    fn decode(from: &mut WireReader) -> Result<Ballot, DecodeError> {
        Ok(Ballot { round: from.u64()?, proposer: NodeId(from.u64()?), life: Incarnation(from.u64()?) })
    }
}

/// A tag byte, then the fields in the order of the struct.
impl Wire for Message {
    fn wire_len(&self) -> usize {
        1 + BALLOT_LEN
            + match self {
                Message::Promise(Promise { accepted: other, .. })
                | Message::Rejected(Rejected { promised: other, .. }) => 1 + other.map_or(0, |_| BALLOT_LEN),
                Message::Propose(_) => 8,
                Message::Prepare(_) | Message::Accepted(_) | Message::Release(_) => 0,
            }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Prepare(Prepare { ballot }) => tagged(out, PREPARE, ballot),
            Message::Promise(Promise { ballot, accepted }) => {
                tagged(out, PROMISE, ballot);
                optional(out, accepted.as_ref());
            }
            Message::Propose(Propose { ballot, length }) => {
                tagged(out, PROPOSE, ballot);
                out.put_u64_le(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX));
            }
            Message::Accepted(Accepted { ballot }) => tagged(out, ACCEPTED, ballot),
            Message::Rejected(Rejected { ballot, promised }) => {
                tagged(out, REJECTED, ballot);
                optional(out, promised.as_ref());
            }
            Message::Release(Release { ballot }) => tagged(out, RELEASE, ballot),
        }
    }

    fn decode(from: &mut WireReader) -> Result<Message, DecodeError> {
        let tag = from.u8()?;
        let ballot = Ballot::decode(from)?;
        Ok(match tag {
            PREPARE => Message::Prepare(Prepare { ballot }),
            PROMISE => Message::Promise(Promise { ballot, accepted: decode_optional(from)? }),
            PROPOSE => Message::Propose(Propose { ballot, length: Duration::from_nanos(from.u64()?) }),
            ACCEPTED => Message::Accepted(Accepted { ballot }),
            REJECTED => Message::Rejected(Rejected { ballot, promised: decode_optional(from)? }),
            RELEASE => Message::Release(Release { ballot }),
            value => return Err(DecodeError::Unknown { what: "lease message", value: u64::from(value) }),
        })
    }
}

fn tagged(out: &mut BytesMut, tag: u8, ballot: &Ballot) {
    out.put_u8(tag);
    ballot.encode(out);
}

fn optional(out: &mut BytesMut, ballot: Option<&Ballot>) {
    out.put_u8(u8::from(ballot.is_some()));
    if let Some(ballot) = ballot {
        ballot.encode(out);
    }
}

fn decode_optional(from: &mut WireReader) -> Result<Option<Ballot>, DecodeError> {
    Ok(if from.bool()? { Some(Ballot::decode(from)?) } else { None })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn ballot(round: u64) -> Ballot {
        Ballot { round, proposer: NodeId(2), life: Incarnation(3) }
    }

    fn one_of_each() -> Vec<Message> {
        vec![
            Message::Prepare(Prepare { ballot: ballot(1) }),
            Message::Promise(Promise { ballot: ballot(1), accepted: None }),
            Message::Promise(Promise { ballot: ballot(1), accepted: Some(ballot(9)) }),
            Message::Propose(Propose { ballot: ballot(1), length: Duration::from_nanos(5) }),
            Message::Accepted(Accepted { ballot: ballot(1) }),
            Message::Rejected(Rejected { ballot: ballot(1), promised: Some(ballot(9)) }),
            Message::Release(Release { ballot: ballot(1) }),
        ]
    }

    #[test]
    fn messages_survive_the_wire_and_their_length_is_foretold() {
        for message in one_of_each() {
            let bytes = message.to_bytes();
            assert_eq!(bytes.len(), message.wire_len(), "{message}");
            assert_eq!(Message::from_bytes(bytes), Ok(message));
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes =
            Message::Propose(Propose { ballot: ballot(1), length: Duration::from_nanos(5) }).to_bytes();
        let expected: Vec<u8> =
            [3].into_iter().chain([1_u64, 2, 3, 5].into_iter().flat_map(u64::to_le_bytes)).collect();
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Message::from_bytes(Bytes::from(bytes));
        }
    }
}
