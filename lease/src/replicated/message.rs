//! What clients and leaders say to a lease table, and its answers: commands, queries, replies, and their bytes.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{DecodeError, LogIndex, NodeId, Reign, Wire, WireReader};

use crate::FencingToken;

/// Names a lease for ever: the position in the log of the command that asked for it. It is its fencing token as well:
/// whoever gets a name later has a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub LogIndex);

impl LeaseId {
    /// The token of its holder.
    #[must_use]
    pub fn token(self) -> FencingToken {
        FencingToken(self.0.0)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {}", self.0.0)
    }
}

/// What changes a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseCommand {
    /// A lease of this length, and a place at the end of the queue for a name: whoever is first holds it. Answered by
    /// [`LeaseReply::Granted`].
    Campaign {
        /// What is held; at most [`NAME_LEN_MAX`] bytes.
        name: Bytes,
        /// How long the leader remembers the lease after it heard of its owner; from 1 ms to a day.
        length: Duration,
        /// Who asks, for whoever looks; at most [`OWNER_LEN_MAX`] bytes.
        owner: Bytes,
    },
    /// Ends a lease at once. For its owner alone, who has stopped to act on it before. Answered by
    /// [`LeaseReply::Done`], or [`LeaseReply::Gone`].
    Resign(LeaseId),
    /// Lets a lease end: it is not kept alive any more, and its owner may act until it would have ended without.
    /// Answered as [`LeaseCommand::Resign`].
    Revoke(LeaseId),
    /// Ends leases that nobody kept alive: the leader's own decision, which counts in its reign alone.
    Expire {
        /// In which it was made.
        reign: Reign,
        /// Which.
        leases: Vec<LeaseId>,
    },
}

/// What is asked of a table, or of the leader's memory beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseQuery {
    /// Keeps a lease alive for its full length, from when the query reached the leader. Nothing is written. Answered by
    /// [`LeaseReply::Alive`] or [`LeaseReply::Gone`].
    KeepAlive(LeaseId),
    /// Who holds this name. Answered by [`LeaseReply::Holder`].
    Observe(Bytes),
}

/// The table's answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseReply {
    /// The lease was granted; so many are before it in its queue.
    Granted {
        /// Its name.
        lease: LeaseId,
        /// None: it holds.
        before: u64,
    },
    /// The lease is alive; so many are before it in its queue.
    Alive {
        /// None: it holds.
        before: u64,
    },
    /// Done.
    Done,
    /// There is no such lease, or it is ending and cannot be kept.
    Gone,
    /// The command makes no sense: what is wrong with it.
    Refused(Bytes),
    /// Who holds, and how many wait.
    Holder {
        /// The first of the queue and its owner.
        first: Option<(LeaseId, Bytes)>,
        /// How many are behind it.
        waiting: u64,
    },
}

/// The longest name, in bytes.
pub const NAME_LEN_MAX: usize = 256;
/// The longest description of an owner, in bytes.
pub const OWNER_LEN_MAX: usize = 1_024;
/// The shortest lease.
pub const LENGTH_MIN: Duration = Duration::from_millis(1);
/// The longest lease.
pub const LENGTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const CAMPAIGN: u8 = 1;
const RESIGN: u8 = 2;
const REVOKE: u8 = 3;
const EXPIRE: u8 = 4;

impl Wire for LeaseId {
    fn wire_len(&self) -> usize {
        8
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.0.0);
    }

    fn decode(from: &mut WireReader) -> Result<LeaseId, DecodeError> {
        Ok(LeaseId(LogIndex(from.u64()?)))
    }
}

/// A tag byte, then the fields in their order.
impl Wire for LeaseCommand {
    fn wire_len(&self) -> usize {
        1 + match self {
            LeaseCommand::Campaign { name, owner, .. } => 4 + name.len() + 8 + 4 + owner.len(),
            LeaseCommand::Resign(_) | LeaseCommand::Revoke(_) => 8,
            LeaseCommand::Expire { leases, .. } => 16 + 4 + 8 * leases.len(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            LeaseCommand::Campaign { name, length, owner } => {
                out.put_u8(CAMPAIGN);
                put_bytes(out, name);
                out.put_u64_le(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX));
                put_bytes(out, owner);
            }
            LeaseCommand::Resign(lease) => {
                out.put_u8(RESIGN);
                lease.encode(out);
            }
            LeaseCommand::Revoke(lease) => {
                out.put_u8(REVOKE);
                lease.encode(out);
            }
            LeaseCommand::Expire { reign, leases } => {
                out.put_u8(EXPIRE);
                out.put_u64_le(reign.number);
                out.put_u64_le(reign.leader.0);
                out.put_u32_le(leases.len() as u32);
                for lease in leases {
                    lease.encode(out);
                }
            }
        }
    }

    fn decode(from: &mut WireReader) -> Result<LeaseCommand, DecodeError> {
        Ok(match from.u8()? {
            CAMPAIGN => LeaseCommand::Campaign {
                name: from.bytes()?,
                length: Duration::from_nanos(from.u64()?),
                owner: from.bytes()?,
            },
            RESIGN => LeaseCommand::Resign(LeaseId::decode(from)?),
            REVOKE => LeaseCommand::Revoke(LeaseId::decode(from)?),
            EXPIRE => {
                let reign = Reign { number: from.u64()?, leader: NodeId(from.u64()?) };
                let count = from.count(8)?;
                let leases = (0..count).map(|_| LeaseId::decode(from)).collect::<Result<_, _>>()?;
                LeaseCommand::Expire { reign, leases }
            }
            value => return Err(DecodeError::Unknown { what: "lease command", value: u64::from(value) }),
        })
    }
}

const KEEP_ALIVE: u8 = 1;
const OBSERVE: u8 = 2;

/// A tag byte, then the field.
impl Wire for LeaseQuery {
    fn wire_len(&self) -> usize {
        1 + match self {
            LeaseQuery::KeepAlive(_) => 8,
            LeaseQuery::Observe(name) => 4 + name.len(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            LeaseQuery::KeepAlive(lease) => {
                out.put_u8(KEEP_ALIVE);
                lease.encode(out);
            }
            LeaseQuery::Observe(name) => {
                out.put_u8(OBSERVE);
                put_bytes(out, name);
            }
        }
    }

    fn decode(from: &mut WireReader) -> Result<LeaseQuery, DecodeError> {
        Ok(match from.u8()? {
            KEEP_ALIVE => LeaseQuery::KeepAlive(LeaseId::decode(from)?),
            OBSERVE => LeaseQuery::Observe(from.bytes()?),
            value => return Err(DecodeError::Unknown { what: "lease query", value: u64::from(value) }),
        })
    }
}

const GRANTED: u8 = 1;
const ALIVE: u8 = 2;
const DONE: u8 = 3;
const GONE: u8 = 4;
const REFUSED: u8 = 5;
const HOLDER: u8 = 6;

/// A tag byte, then the fields in their order.
impl Wire for LeaseReply {
    fn wire_len(&self) -> usize {
        1 + match self {
            LeaseReply::Granted { .. } => 16,
            LeaseReply::Alive { .. } => 8,
            LeaseReply::Done | LeaseReply::Gone => 0,
            LeaseReply::Refused(why) => 4 + why.len(),
            LeaseReply::Holder { first, .. } => {
                1 + first.as_ref().map_or(0, |(_, owner)| 8 + 4 + owner.len()) + 8
            }
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            LeaseReply::Granted { lease, before } => {
                out.put_u8(GRANTED);
                lease.encode(out);
                out.put_u64_le(*before);
            }
            LeaseReply::Alive { before } => {
                out.put_u8(ALIVE);
                out.put_u64_le(*before);
            }
            LeaseReply::Done => out.put_u8(DONE),
            LeaseReply::Gone => out.put_u8(GONE),
            LeaseReply::Refused(why) => {
                out.put_u8(REFUSED);
                put_bytes(out, why);
            }
            LeaseReply::Holder { first, waiting } => {
                out.put_u8(HOLDER);
                out.put_u8(u8::from(first.is_some()));
                if let Some((lease, owner)) = first {
                    lease.encode(out);
                    put_bytes(out, owner);
                }
                out.put_u64_le(*waiting);
            }
        }
    }

    fn decode(from: &mut WireReader) -> Result<LeaseReply, DecodeError> {
        Ok(match from.u8()? {
            GRANTED => LeaseReply::Granted { lease: LeaseId::decode(from)?, before: from.u64()? },
            ALIVE => LeaseReply::Alive { before: from.u64()? },
            DONE => LeaseReply::Done,
            GONE => LeaseReply::Gone,
            REFUSED => LeaseReply::Refused(from.bytes()?),
            HOLDER => {
                let first = if from.bool()? { Some((LeaseId::decode(from)?, from.bytes()?)) } else { None };
                LeaseReply::Holder { first, waiting: from.u64()? }
            }
            value => return Err(DecodeError::Unknown { what: "lease reply", value: u64::from(value) }),
        })
    }
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &Bytes) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back<T: Wire + PartialEq + fmt::Debug>(values: &[T]) {
        for value in values {
            let bytes = value.to_bytes();
            assert_eq!(bytes.len(), value.wire_len());
            assert_eq!(T::from_bytes(bytes.clone()).as_ref(), Ok(value));
            for len in 0..bytes.len() {
                assert!(T::from_bytes(bytes.slice(..len)).is_err(), "{len} bytes of {value:?}");
            }
        }
    }

    #[test]
    fn everything_is_read_back_and_nothing_from_a_part_of_it() {
        let (lease, name, owner) =
            (LeaseId(LogIndex(7)), Bytes::from_static(b"name"), Bytes::from_static(b"me"));
        back(&[
            LeaseCommand::Campaign {
                name: name.clone(),
                length: Duration::from_secs(3),
                owner: owner.clone(),
            },
            LeaseCommand::Resign(lease),
            LeaseCommand::Revoke(lease),
            LeaseCommand::Expire {
                reign: Reign { number: 3, leader: NodeId(2) },
                leases: vec![lease, LeaseId(LogIndex(9))],
            },
        ]);
        back(&[LeaseQuery::KeepAlive(lease), LeaseQuery::Observe(name)]);
        back(&[
            LeaseReply::Granted { lease, before: 2 },
            LeaseReply::Alive { before: 0 },
            LeaseReply::Done,
            LeaseReply::Gone,
            LeaseReply::Refused(owner.clone()),
            LeaseReply::Holder { first: Some((lease, owner)), waiting: 4 },
            LeaseReply::Holder { first: None, waiting: 0 },
        ]);
    }
}
