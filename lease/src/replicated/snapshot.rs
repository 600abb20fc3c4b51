//! A table of leases as bytes: the newest reign, how many leases there are, and each of them, by ascending id. The leader's
//! memory of when they end is no part of it: whoever leads next gives each its full length again.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{DecodeError, NodeId, Reign, SnapshotSource, Wire, WireReader};

use super::message::{LENGTH_MAX, LENGTH_MIN, NAME_LEN_MAX, OWNER_LEN_MAX, put_bytes};
use super::{Lease, LeaseId, LeaseTable};

/// The bytes, made at once: a table is small.
pub(super) struct WrittenDown(Bytes);

impl SnapshotSource for WrittenDown {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.0)
    }
}

impl LeaseTable {
    pub(super) fn written_down(&self) -> WrittenDown {
        let mut out = BytesMut::new();
        out.put_u64_le(self.reign.number);
        out.put_u64_le(self.reign.leader.0);
        out.put_u64_le(self.leases.len() as u64);
        for (id, lease) in &self.leases {
            id.encode(&mut out);
            put_bytes(&mut out, &lease.name);
            put_bytes(&mut out, &lease.owner);
            out.put_u64_le(u64::try_from(lease.length.as_nanos()).unwrap_or(u64::MAX));
            out.put_u8(u8::from(lease.revoked));
        }
        WrittenDown(out.freeze())
    }

    pub(super) fn read_from(from: &mut dyn Read) -> io::Result<LeaseTable> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        decode(Bytes::from(bytes)).map_err(io::Error::other)
    }
}

fn decode(bytes: Bytes) -> Result<LeaseTable, DecodeError> {
    const IMPOSSIBLE: DecodeError = DecodeError::Impossible { what: "lease" };
    let mut from = WireReader::new(bytes);
    let reign = Reign { number: from.u64()?, leader: NodeId(from.u64()?) };
    let mut table = LeaseTable { reign, ..LeaseTable::default() };
    for _ in 0..from.u64()? {
        let id = LeaseId::decode(&mut from)?;
        // Copies, so that a lease does not keep the whole table alive.
        let (name, owner) = (Bytes::copy_from_slice(&from.bytes()?), Bytes::copy_from_slice(&from.bytes()?));
        let length = Duration::from_nanos(from.u64()?);
        let revoked = from.bool()?;
        let ascends = table.leases.last_key_value().is_none_or(|(last, _)| *last < id);
        if !ascends
            || name.len() > NAME_LEN_MAX
            || owner.len() > OWNER_LEN_MAX
            || !(LENGTH_MIN..=LENGTH_MAX).contains(&length)
        {
            return Err(IMPOSSIBLE);
        }
        // Queues are in the order of ids.
        table.queues.entry(name.clone()).or_default().push_back(id);
        table.leases.insert(id, Lease { name, owner, length, revoked });
    }
    from.finish()?;
    Ok(table)
}
