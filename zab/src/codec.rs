//! The bytes of messages and of the hard state: fixed layout, little-endian, bounds checked first.

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{DecodeError, Entries, LogIndex, NodeId, Wire, WireReader};

use crate::message::{
    Ack, AckEpoch, Attempt, Beat, Commit, Epoch, FollowerInfo, Message, Missing, NewEpoch, NewLeader,
    Notification, Ping, Place, Pong, Proposal, Received, Round, Session, Standing, Vote, Zxid,
};

/// What a replica must never forget beside its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The last epoch that the replica promised: it follows no leader of an earlier one (`f.p` in the paper).
    pub accepted: Epoch,
    /// To whom: one leader an epoch.
    pub promised_to: Option<NodeId>,
    /// The last epoch whose initial history the replica took over in full (`f.a`). At most `accepted`.
    pub current: Epoch,
}

/// A version byte, the accepted epoch, the node promised to (0 for nobody), the current epoch.
impl Wire for HardState {
    fn wire_len(&self) -> usize {
        1 + 8 + 8 + 8
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(HARD_STATE_VERSION);
        out.put_u64_le(self.accepted.0);
        out.put_u64_le(self.promised_to.map_or(0, |node| node.0));
        out.put_u64_le(self.current.0);
    }

    fn decode(from: &mut WireReader) -> Result<HardState, DecodeError> {
        let version = from.u8()?;
        if version != HARD_STATE_VERSION {
            return Err(DecodeError::Unknown { what: "hard state version", value: u64::from(version) });
        }
        let accepted = epoch(from)?;
        let promised_to = Some(NodeId(from.u64()?)).filter(|node| *node != NodeId(0));
        let current = epoch(from)?;
        if current > accepted {
            return Err(DecodeError::Impossible { what: "current epoch" });
        }
        Ok(HardState { accepted, promised_to, current })
    }
}

/// A tag byte, then the fields in the order of the struct.
impl Wire for Message {
    fn wire_len(&self) -> usize {
        1 + match self {
            Message::Notification(m) => 8 + 1 + 1 + if m.vote.is_some() { VOTE_LEN } else { 0 },
            Message::FollowerInfo(_) => 8 + 8,
            Message::NewEpoch(_) => SESSION_LEN,
            Message::AckEpoch(_) => SESSION_LEN + 1 + 8 + PLACE_LEN,
            Message::Proposal(m) => SESSION_LEN + PLACE_LEN + 8 + m.entries.wire_len(),
            Message::NewLeader(_) => SESSION_LEN + PLACE_LEN,
            Message::Received(_) | Message::Ack(_) | Message::Commit(_) | Message::Pong(_) => SESSION_LEN + 8,
            Message::Missing(_) => SESSION_LEN + 8 + PLACE_LEN,
            Message::Ping(_) => SESSION_LEN + 1 + 8 + 8,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Notification(Notification { round, standing, vote }) => {
                out.put_u8(NOTIFICATION);
                out.put_u64_le(round.0);
                out.put_u8(match standing {
                    Standing::Looking => 0,
                    Standing::Following => 1,
                    Standing::Leading => 2,
                    Standing::Established => 3,
                });
                out.put_u8(u8::from(vote.is_some()));
                if let Some(Vote { epoch, last, node }) = vote {
                    out.put_u64_le(epoch.0);
                    put_zxid(out, *last);
                    out.put_u64_le(node.0);
                }
            }
            Message::FollowerInfo(FollowerInfo { attempt, accepted }) => {
                out.put_u8(FOLLOWER_INFO);
                out.put_u64_le(attempt.0);
                out.put_u64_le(accepted.0);
            }
            Message::NewEpoch(NewEpoch { session }) => tagged(out, NEW_EPOCH, *session),
            Message::AckEpoch(AckEpoch { session, promised, current, last }) => {
                tagged(out, ACK_EPOCH, *session);
                out.put_u8(u8::from(*promised));
                out.put_u64_le(current.0);
                put_place(out, *last);
            }
            Message::Proposal(Proposal { session, prev, commit, entries }) => {
                tagged(out, PROPOSAL, *session);
                put_place(out, *prev);
                out.put_u64_le(commit.0);
                entries.encode(out);
            }
            Message::NewLeader(NewLeader { session, last }) => {
                tagged(out, NEW_LEADER, *session);
                put_place(out, *last);
            }
            Message::Received(Received { session, through }) => {
                tagged(out, RECEIVED, *session);
                out.put_u64_le(through.0);
            }
            Message::Ack(Ack { session, through }) => {
                tagged(out, ACK, *session);
                out.put_u64_le(through.0);
            }
            Message::Missing(Missing { session, prev, hint }) => {
                tagged(out, MISSING, *session);
                out.put_u64_le(prev.0);
                put_place(out, *hint);
            }
            Message::Commit(Commit { session, through }) => {
                tagged(out, COMMIT, *session);
                out.put_u64_le(through.0);
            }
            Message::Ping(Ping { session, established, commit, beat }) => {
                tagged(out, PING, *session);
                out.put_u8(u8::from(*established));
                out.put_u64_le(commit.0);
                out.put_u64_le(beat.0);
            }
            Message::Pong(Pong { session, beat }) => {
                tagged(out, PONG, *session);
                out.put_u64_le(beat.0);
            }
        }
    }

    fn decode(from: &mut WireReader) -> Result<Message, DecodeError> {
        let tag = from.u8()?;
        if tag == NOTIFICATION {
            return notification(from).map(Message::Notification);
        }
        if tag == FOLLOWER_INFO {
            let (attempt, accepted) = (Attempt(from.u64()?), epoch(from)?);
            return Ok(Message::FollowerInfo(FollowerInfo { attempt, accepted }));
        }
        if tag > PONG {
            return Err(DecodeError::Unknown { what: "zab message", value: u64::from(tag) });
        }
        let session = Session { epoch: epoch(from)?, attempt: Attempt(from.u64()?) };
        Ok(match tag {
            NEW_EPOCH => Message::NewEpoch(NewEpoch { session }),
            ACK_EPOCH => Message::AckEpoch(AckEpoch {
                session,
                promised: from.bool()?,
                current: epoch(from)?,
                last: place(from)?,
            }),
            PROPOSAL => Message::Proposal(Proposal {
                session,
                prev: place(from)?,
                commit: LogIndex(from.u64()?),
                entries: Entries::decode(from)?,
            }),
            NEW_LEADER => Message::NewLeader(NewLeader { session, last: place(from)? }),
            RECEIVED => Message::Received(Received { session, through: LogIndex(from.u64()?) }),
            ACK => Message::Ack(Ack { session, through: LogIndex(from.u64()?) }),
            MISSING => Message::Missing(Missing { session, prev: LogIndex(from.u64()?), hint: place(from)? }),
            COMMIT => Message::Commit(Commit { session, through: LogIndex(from.u64()?) }),
            PING => Message::Ping(Ping {
                session,
                established: from.bool()?,
                commit: LogIndex(from.u64()?),
                beat: Beat(from.u64()?),
            }),
            PONG => Message::Pong(Pong { session, beat: Beat(from.u64()?) }),
            value => return Err(DecodeError::Unknown { what: "zab message", value: u64::from(value) }),
        })
    }
}

impl HardState {
    /// Reads what a storage gave back; nothing there is the state of a replica that never followed anybody.
    pub(crate) fn recover(bytes: Option<Bytes>) -> Result<HardState, DecodeError> {
        bytes.map_or(Ok(HardState::default()), HardState::from_bytes)
    }
}

fn notification(from: &mut WireReader) -> Result<Notification, DecodeError> {
    let round = Round(from.u64()?);
    let standing = match from.u8()? {
        0 => Standing::Looking,
        1 => Standing::Following,
        2 => Standing::Leading,
        3 => Standing::Established,
        value => return Err(DecodeError::Unknown { what: "standing", value: u64::from(value) }),
    };
    let vote = if from.bool()? {
        Some(Vote { epoch: epoch(from)?, last: zxid(from)?, node: NodeId(from.u64()?) })
    } else {
        None
    };
    Ok(Notification { round, standing, vote })
}

fn tagged(out: &mut BytesMut, tag: u8, session: Session) {
    out.put_u8(tag);
    out.put_u64_le(session.epoch.0);
    out.put_u64_le(session.attempt.0);
}

fn put_zxid(out: &mut BytesMut, zxid: Zxid) {
    out.put_u64_le(zxid.epoch.0);
    out.put_u64_le(zxid.counter);
}

fn put_place(out: &mut BytesMut, place: Place) {
    put_zxid(out, place.zxid);
    out.put_u64_le(place.index.0);
}

fn epoch(from: &mut WireReader) -> Result<Epoch, DecodeError> {
    let epoch = Epoch(from.u64()?);
    if epoch > Epoch::MAX { Err(DecodeError::Impossible { what: "epoch" }) } else { Ok(epoch) }
}

fn zxid(from: &mut WireReader) -> Result<Zxid, DecodeError> {
    Ok(Zxid { epoch: epoch(from)?, counter: from.u64()? })
}

fn place(from: &mut WireReader) -> Result<Place, DecodeError> {
    Ok(Place { zxid: zxid(from)?, index: LogIndex(from.u64()?) })
}

const HARD_STATE_VERSION: u8 = 1;
const SESSION_LEN: usize = 8 + 8;
const PLACE_LEN: usize = 8 + 8 + 8;
const VOTE_LEN: usize = 8 + 16 + 8;

const NOTIFICATION: u8 = 1;
const FOLLOWER_INFO: u8 = 2;
const NEW_EPOCH: u8 = 3;
const ACK_EPOCH: u8 = 4;
const PROPOSAL: u8 = 5;
const NEW_LEADER: u8 = 6;
const RECEIVED: u8 = 7;
const ACK: u8 = 8;
const MISSING: u8 = 9;
const COMMIT: u8 = 10;
const PING: u8 = 11;
const PONG: u8 = 12;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use synod_core::{ClientId, Entry, Kind, Reign, RequestId, Sequence};

    use super::*;

    const SESSION: Session = Session { epoch: Epoch(3), attempt: Attempt(6) };
    const AT: Place = Place { zxid: Zxid { epoch: Epoch(2), counter: 4 }, index: LogIndex(5) };

    fn word(number: u64) -> String {
        number.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn one_entry() -> Entries {
        Entries::numbered(LogIndex(6), vec![()], |index, ()| Entry {
            index,
            stamp: Zxid { epoch: Epoch(3), counter: 1 }.stamp(),
            reign: Reign { number: 3, leader: NodeId(1) },
            kind: Kind::Command,
            request: RequestId { client: ClientId(4), sequence: Sequence(2), first_incomplete: Sequence(1) },
            payload: Bytes::from_static(b"hi"),
        })
    }

    #[test]
    fn the_bytes_of_every_message_are_fixed() {
        let vote = Some(Vote { epoch: Epoch(2), last: AT.zxid, node: NodeId(1) });
        let (round, session) = (Round(7), SESSION);
        let through = LogIndex(6);
        let table: [(Message, Vec<&str>); 13] = [
            (
                Message::Notification(Notification { round, standing: Standing::Leading, vote }),
                vec!["01", "7", "02", "01", "2", "2", "4", "1"],
            ),
            (
                Message::Notification(Notification { round, standing: Standing::Looking, vote: None }),
                vec!["01", "7", "00", "00"],
            ),
            (
                Message::FollowerInfo(FollowerInfo { attempt: Attempt(6), accepted: Epoch(2) }),
                vec!["02", "6", "2"],
            ),
            (Message::NewEpoch(NewEpoch { session }), vec!["03", "3", "6"]),
            (
                Message::AckEpoch(AckEpoch { session, promised: true, current: Epoch(2), last: AT }),
                vec!["04", "3", "6", "01", "2", "2", "4", "5"],
            ),
            (
                Message::Proposal(Proposal { session, prev: AT, commit: LogIndex(4), entries: one_entry() }),
                vec![
                    "05", "3", "6", "2", "4", "5", "4", "6", "01000000", "01000000", "3", "1", "00", "3",
                    "1", "00", "4", "2", "1", "02000000", "6869",
                ],
            ),
            (Message::NewLeader(NewLeader { session, last: AT }), vec!["06", "3", "6", "2", "4", "5"]),
            (Message::Received(Received { session, through }), vec!["07", "3", "6", "6"]),
            (Message::Ack(Ack { session, through }), vec!["08", "3", "6", "6"]),
            (
                Message::Missing(Missing { session, prev: LogIndex(9), hint: AT }),
                vec!["09", "3", "6", "9", "2", "4", "5"],
            ),
            (Message::Commit(Commit { session, through }), vec!["0a", "3", "6", "6"]),
            (
                Message::Ping(Ping { session, established: true, commit: LogIndex(4), beat: Beat(7) }),
                vec!["0b", "3", "6", "01", "4", "7"],
            ),
            (Message::Pong(Pong { session, beat: Beat(7) }), vec!["0c", "3", "6", "7"]),
        ];
        for (message, parts) in table {
            // A part of one digit is a number of eight bytes, any other is hexadecimal.
            let want: String = parts
                .iter()
                .map(|part| if part.len() == 1 { word(part.parse().unwrap()) } else { (*part).to_string() })
                .collect();
            let bytes = message.to_bytes();
            assert_eq!(hex(&bytes), want, "{message}");
            assert_eq!(message.wire_len(), bytes.len(), "{message}");
            assert_eq!(Message::from_bytes(bytes), Ok(message));
        }
    }

    #[test]
    fn the_bytes_of_the_hard_state_are_fixed() {
        let state = HardState { accepted: Epoch(7), promised_to: Some(NodeId(2)), current: Epoch(6) };
        let nobody = HardState { promised_to: None, ..state };
        for (state, want) in [
            (state, format!("01{}{}{}", word(7), word(2), word(6))),
            (nobody, format!("01{}{}{}", word(7), word(0), word(6))),
        ] {
            let bytes = state.to_bytes();
            assert_eq!(hex(&bytes), want);
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
        let ahead = HardState { accepted: Epoch(1), promised_to: None, current: Epoch(2) }.to_bytes();
        assert_eq!(HardState::from_bytes(ahead), Err(DecodeError::Impossible { what: "current epoch" }));
        let mut unknown = Message::NewEpoch(NewEpoch { session: SESSION }).to_bytes().to_vec();
        unknown[0] = 13;
        let tag = DecodeError::Unknown { what: "zab message", value: 13 };
        assert_eq!(Message::from_bytes(Bytes::from(unknown)), Err(tag));
        let session = Session { epoch: Epoch::MAX.next(), attempt: Attempt(1) };
        let beyond = Message::NewEpoch(NewEpoch { session }).to_bytes();
        assert_eq!(Message::from_bytes(beyond), Err(DecodeError::Impossible { what: "epoch" }));
    }

    fn epochs() -> impl Strategy<Value = Epoch> {
        prop_oneof![0u64..9, Just(Epoch::MAX.0)].prop_map(Epoch)
    }

    fn message() -> impl Strategy<Value = Message> {
        let numbers = (epochs(), epochs(), any::<u64>(), any::<u64>(), any::<bool>(), 0usize..5);
        (0u8..12, numbers).prop_map(|(kind, (epoch, other, a, b, yes, count))| {
            let session = Session { epoch, attempt: Attempt(b) };
            let last = Zxid { epoch: other, counter: b };
            let at = Place { zxid: last, index: LogIndex(a) };
            let through = LogIndex(a);
            match kind {
                0 => {
                    let standing = if yes { Standing::Looking } else { Standing::Established };
                    let vote = yes.then_some(Vote { epoch, last, node: NodeId(a) });
                    Message::Notification(Notification { round: Round(b), standing, vote })
                }
                1 => Message::FollowerInfo(FollowerInfo { attempt: Attempt(a), accepted: epoch }),
                2 => Message::NewEpoch(NewEpoch { session }),
                3 => Message::AckEpoch(AckEpoch { session, promised: yes, current: other, last: at }),
                4 => {
                    let entries = Entries::numbered(LogIndex(b >> 1).next(), vec![(); count], |index, ()| {
                        Entry { index, ..one_entry()[0].clone() }
                    });
                    Message::Proposal(Proposal { session, prev: at, commit: LogIndex(b), entries })
                }
                5 => Message::NewLeader(NewLeader { session, last: at }),
                6 => Message::Received(Received { session, through }),
                7 => Message::Ack(Ack { session, through }),
                8 => Message::Missing(Missing { session, prev: LogIndex(b), hint: at }),
                9 => Message::Commit(Commit { session, through }),
                10 => Message::Ping(Ping { session, established: yes, commit: through, beat: Beat(b) }),
                _ => Message::Pong(Pong { session, beat: Beat(b) }),
            }
        })
    }

    proptest! {
        #[test]
        fn a_message_takes_little_more_than_its_entries_weigh(message in message()) {
            let weight: usize = match &message {
                Message::Proposal(proposal) => proposal.entries.weight(),
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
