//! What a transport owes a replica, and what it carries.

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::{COMMAND_LEN_MIN, put_bytes, put_count};
use crate::{
    ClientId, Command, DecodeError, GroupId, Identity, Incarnation, NodeId, ReadMode, Sequence, SnapshotAck,
    SnapshotChunk, Wire, WireReader,
};

/// Carries envelopes between nodes. It may lose, repeat and reorder them; it never changes one.
#[async_trait]
pub trait Transport<M: Send + 'static>: Send + Sync {
    /// Hands an envelope over. Never blocks: what does not fit into a bounded queue is dropped.
    fn send(&self, to: NodeId, envelope: Envelope<M>);

    /// Waits for at least one envelope, then appends all there are, up to a bound of the transport's own.
    /// One caller at a time.
    ///
    /// # Errors
    /// [`Closed`] once the transport is shut down and drained.
    ///
    /// # Cancel safety
    /// Cancel-safe: an envelope is either in `into` or still to be received.
    async fn receive(&self, into: &mut Vec<Inbound<M>>) -> Result<(), Closed>;

    /// Appends what can be had without waiting; returns at once.
    ///
    /// # Errors
    /// [`Closed`] as for [`Transport::receive`].
    fn try_receive(&self, into: &mut Vec<Inbound<M>>) -> Result<(), Closed>;

    /// Tells the transport whose it is, so that it can say so to peers. Called once, before
    /// [`Transport::set_peers`]; nothing is sent or received before.
    fn open(&self, identity: &Identity, incarnation: Incarnation);

    /// Sets who the peers are and where they are found; addresses follow the membership.
    fn set_peers(&self, peers: &[Peer]);

    /// The longest packet that is carried, in bytes on the wire; an envelope of more than one may be cut between them.
    /// What is longer is dropped whenever it is sent, so a host compares its settings with this before it starts.
    fn packet_bytes_max(&self) -> usize {
        usize::MAX
    }
}

/// A member as a transport sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Where it is found; the transport's own notation.
    pub address: String,
}

/// The transport is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transport is closed")]
pub struct Closed;

/// An envelope and the node that the transport knows it came from.
#[derive(Clone, Debug)]
pub struct Inbound<M> {
    /// The sender, as far as the transport can vouch for it.
    pub from: NodeId,
    /// What arrived.
    pub envelope: Envelope<M>,
}

/// Everything one flush sends to one peer, stamped with the lives of both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<M> {
    /// The sender.
    pub from: NodeId,
    /// The sender's life. An envelope of an older life than the last one heard of is dropped.
    pub from_incarnation: Incarnation,
    /// The receiver's life as the sender knows it, or 0. An envelope to another life is dropped.
    pub to_incarnation: Incarnation,
    /// The log among several.
    pub group: GroupId,
    /// What is carried; empty for a greeting that only tells the sender's life.
    pub packets: Vec<Packet<M>>,
}

/// One thing carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<M> {
    /// A message of the protocol.
    Protocol(M),
    /// Proposals and queries on their way to the leader.
    Forward(Forward),
    /// Answers on their way back.
    ForwardReply(ForwardReply),
    /// A piece of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// Answers a piece of a snapshot.
    SnapshotAck(SnapshotAck),
}

/// Proposals and queries that a replica hands on because it does not lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where the answers go.
    pub origin: NodeId,
    /// How many more times it may be handed on.
    pub hops_left: u8,
    /// Commands under the ids that their origin gave them.
    pub commands: Vec<Command>,
    /// Linearizable queries.
    pub queries: Vec<ForwardedQuery>,
}

impl Forward {
    /// What a packet takes on the wire that hands on a single command or query, beside its payload, at most, in bytes.
    pub const OVERHEAD_OF_ONE: usize = 1 + (8 + 1 + 4 + 4) + COMMAND_LEN_MIN;
}

/// A linearizable query on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedQuery {
    /// The origin's name for it.
    pub id: u64,
    /// What the answer may rest on.
    pub mode: ReadMode,
    /// Opaque to everybody but the state machine.
    pub query: Bytes,
}

/// Answers to a [`Forward`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardReply {
    /// What became of commands, by session and number.
    pub commands: Vec<(ClientId, Sequence, RequestOutcome)>,
    /// What became of queries, by the origin's name.
    pub queries: Vec<(u64, QueryOutcome)>,
}

impl ForwardReply {
    /// What a packet takes on the wire that brings a single answer, beside the answer itself, at most, in bytes.
    pub const OVERHEAD_OF_ONE: usize = 1 + (4 + 4) + 16 + 1 + 4;
}

/// What became of a forwarded command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Applied; the state machine's reply.
    Applied(Bytes),
    /// Decided, but its session is gone: whether it was applied before is unknown.
    SessionExpired,
    /// Decided before its predecessor in an ordered session; not applied, may be decided again.
    OutOfOrder,
    /// Decided too far ahead of its session; not applied, may be decided again.
    BeyondWindow,
    /// Not proposed: this replica does not lead, or cannot take more.
    Refused,
    /// Not proposed, and never will be here: it is larger than the leader takes.
    TooLarge,
    /// Applied; the state machine's reply is longer than what is handed on.
    ReplyTooLong,
}

/// What became of a forwarded query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryOutcome {
    /// The state machine's answer.
    Answer(Bytes),
    /// The state machine refused it; what it said.
    Failed(Bytes),
    /// Not answered: this replica does not lead, or no longer.
    Refused,
}

impl<M> Envelope<M> {
    /// What an envelope takes on the wire beside its packets, in bytes.
    pub const HEADER_LEN: usize = 8 + 8 + 8 + 4 + 4;
}

impl<M: Wire> Wire for Envelope<M> {
    fn wire_len(&self) -> usize {
        Self::HEADER_LEN + self.packets.iter().map(Wire::wire_len).sum::<usize>()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.from.0);
        out.put_u64_le(self.from_incarnation.0);
        out.put_u64_le(self.to_incarnation.0);
        out.put_u32_le(self.group.0);
        put_count(out, self.packets.len());
        for packet in &self.packets {
            packet.encode(out);
        }
    }

    fn decode(from: &mut WireReader) -> Result<Envelope<M>, DecodeError> {
        Ok(Envelope {
            from: NodeId(from.u64()?),
            from_incarnation: Incarnation(from.u64()?),
            to_incarnation: Incarnation(from.u64()?),
            group: GroupId(from.u32()?),
            packets: decode_list(from, 1, Packet::decode)?,
        })
    }
}

impl<M> Packet<M> {
    /// What a packet takes on the wire beside what it holds, in bytes.
    pub const TAG_LEN: usize = 1;
}

impl<M: Wire> Wire for Packet<M> {
    fn wire_len(&self) -> usize {
        1 + match self {
            Packet::Protocol(message) => message.wire_len(),
            Packet::Forward(forward) => forward.wire_len(),
            Packet::ForwardReply(reply) => reply.wire_len(),
            Packet::SnapshotChunk(chunk) => chunk.wire_len(),
            Packet::SnapshotAck(ack) => ack.wire_len(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Packet::Protocol(message) => {
                out.put_u8(0);
                message.encode(out);
            }
            Packet::Forward(forward) => {
                out.put_u8(1);
                forward.encode(out);
            }
            Packet::ForwardReply(reply) => {
                out.put_u8(2);
                reply.encode(out);
            }
            Packet::SnapshotChunk(chunk) => {
                out.put_u8(3);
                chunk.encode(out);
            }
            Packet::SnapshotAck(ack) => {
                out.put_u8(4);
                ack.encode(out);
            }
        }
    }

    fn decode(from: &mut WireReader) -> Result<Packet<M>, DecodeError> {
        match from.u8()? {
            0 => Ok(Packet::Protocol(M::decode(from)?)),
            1 => Ok(Packet::Forward(Forward::decode(from)?)),
            2 => Ok(Packet::ForwardReply(ForwardReply::decode(from)?)),
            3 => Ok(Packet::SnapshotChunk(SnapshotChunk::decode(from)?)),
            4 => Ok(Packet::SnapshotAck(SnapshotAck::decode(from)?)),
            value => Err(DecodeError::Unknown { what: "packet", value: u64::from(value) }),
        }
    }
}

/// The shortest query on the wire: its id, its mode and the length of nothing.
const QUERY_LEN_MIN: usize = 8 + 1 + 4;

impl Wire for Forward {
    fn wire_len(&self) -> usize {
        let queries: usize = self.queries.iter().map(|query| QUERY_LEN_MIN + query.query.len()).sum();
        8 + 1 + 4 + self.commands.iter().map(Wire::wire_len).sum::<usize>() + 4 + queries
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.origin.0);
        out.put_u8(self.hops_left);
        put_count(out, self.commands.len());
        for command in &self.commands {
            command.encode(out);
        }
        put_count(out, self.queries.len());
        for query in &self.queries {
            out.put_u64_le(query.id);
            out.put_u8(match query.mode {
                ReadMode::Barrier => 0,
                ReadMode::Lease => 1,
            });
            put_bytes(out, &query.query);
        }
    }

    fn decode(from: &mut WireReader) -> Result<Forward, DecodeError> {
        Ok(Forward {
            origin: NodeId(from.u64()?),
            hops_left: from.u8()?,
            commands: decode_list(from, COMMAND_LEN_MIN, Command::decode)?,
            queries: decode_list(from, QUERY_LEN_MIN, |from| {
                let id = from.u64()?;
                let mode = match from.u8()? {
                    0 => ReadMode::Barrier,
                    1 => ReadMode::Lease,
                    value => {
                        return Err(DecodeError::Unknown { what: "read mode", value: u64::from(value) });
                    }
                };
                Ok(ForwardedQuery { id, mode, query: from.bytes()? })
            })?,
        })
    }
}

impl Wire for ForwardReply {
    fn wire_len(&self) -> usize {
        let commands: usize = self.commands.iter().map(|(_, _, outcome)| 16 + outcome.wire_len()).sum();
        let queries: usize = self.queries.iter().map(|(_, outcome)| 8 + outcome.wire_len()).sum();
        4 + commands + 4 + queries
    }

    fn encode(&self, out: &mut BytesMut) {
        put_count(out, self.commands.len());
        for (client, sequence, outcome) in &self.commands {
            out.put_u64_le(client.0);
            out.put_u64_le(sequence.0);
            outcome.encode(out);
        }
        put_count(out, self.queries.len());
        for (id, outcome) in &self.queries {
            out.put_u64_le(*id);
            outcome.encode(out);
        }
    }

    fn decode(from: &mut WireReader) -> Result<ForwardReply, DecodeError> {
        Ok(ForwardReply {
            commands: decode_list(from, 17, |from| {
                Ok((ClientId(from.u64()?), Sequence(from.u64()?), RequestOutcome::decode(from)?))
            })?,
            queries: decode_list(from, 9, |from| Ok((from.u64()?, QueryOutcome::decode(from)?)))?,
        })
    }
}

impl Wire for RequestOutcome {
    fn wire_len(&self) -> usize {
        match self {
            RequestOutcome::Applied(reply) => 1 + 4 + reply.len(),
            _ => 1,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            RequestOutcome::Applied(reply) => {
                out.put_u8(0);
                put_bytes(out, reply);
            }
            RequestOutcome::SessionExpired => out.put_u8(1),
            RequestOutcome::OutOfOrder => out.put_u8(2),
            RequestOutcome::BeyondWindow => out.put_u8(3),
            RequestOutcome::Refused => out.put_u8(4),
            RequestOutcome::TooLarge => out.put_u8(5),
            RequestOutcome::ReplyTooLong => out.put_u8(6),
        }
    }

    fn decode(from: &mut WireReader) -> Result<RequestOutcome, DecodeError> {
        Ok(match from.u8()? {
            0 => RequestOutcome::Applied(from.bytes()?),
            1 => RequestOutcome::SessionExpired,
            2 => RequestOutcome::OutOfOrder,
            3 => RequestOutcome::BeyondWindow,
            4 => RequestOutcome::Refused,
            5 => RequestOutcome::TooLarge,
            6 => RequestOutcome::ReplyTooLong,
            value => return Err(DecodeError::Unknown { what: "request outcome", value: u64::from(value) }),
        })
    }
}

impl Wire for QueryOutcome {
    fn wire_len(&self) -> usize {
        match self {
            QueryOutcome::Answer(answer) | QueryOutcome::Failed(answer) => 1 + 4 + answer.len(),
            QueryOutcome::Refused => 1,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            QueryOutcome::Answer(answer) => {
                out.put_u8(0);
                put_bytes(out, answer);
            }
            QueryOutcome::Failed(why) => {
                out.put_u8(1);
                put_bytes(out, why);
            }
            QueryOutcome::Refused => out.put_u8(2),
        }
    }

    fn decode(from: &mut WireReader) -> Result<QueryOutcome, DecodeError> {
        Ok(match from.u8()? {
            0 => QueryOutcome::Answer(from.bytes()?),
            1 => QueryOutcome::Failed(from.bytes()?),
            2 => QueryOutcome::Refused,
            value => return Err(DecodeError::Unknown { what: "query outcome", value: u64::from(value) }),
        })
    }
}

fn decode_list<T>(
    from: &mut WireReader,
    item_len_min: usize,
    mut decode: impl FnMut(&mut WireReader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = from.count(item_len_min)?;
    // The count fits the bytes on the wire; what it stands for in memory may still be larger, so grow by need.
    let mut items = Vec::with_capacity(count.min(1024));
    for _ in 0..count {
        items.push(decode(from)?);
    }
    Ok(items)
}
