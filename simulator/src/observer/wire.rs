//! **wire**: what a transport that encodes delivers is what was sent, in as many bytes as were foretold.

use std::fmt::Display;

use synod_core::{Envelope, Packet, Wire};

use super::{Violation, violation};

/// The envelope after its way through bytes, as a node on the other end of a socket gets it.
///
/// Messages are compared by how they are shown and by the bytes that the decoded ones have; all else as it is.
///
/// # Errors
/// It does not come out as it went in.
pub fn round_trip<M: Wire + Display>(node: usize, envelope: &Envelope<M>) -> Result<Envelope<M>, Violation> {
    let broken = |what: String| violation("wire", format!("n{}: {what}", node + 1));
    let bytes = envelope.to_bytes();
    if bytes.len() != envelope.wire_len() {
        return Err(broken(format!(
            "{} bytes were foretold and {} written",
            envelope.wire_len(),
            bytes.len()
        )));
    }
    let arrived = Envelope::<M>::from_bytes(bytes.clone())
        .map_err(|error| broken(format!("an envelope does not decode: {error}")))?;
    let stamps = |e: &Envelope<M>| (e.from, e.from_incarnation, e.to_incarnation, e.group, e.packets.len());
    if stamps(&arrived) != stamps(envelope) {
        return Err(broken(format!("{:?} arrives as {:?}", stamps(envelope), stamps(&arrived))));
    }
    for (sent, got) in envelope.packets.iter().zip(&arrived.packets) {
        if !is_same(sent, got) {
            return Err(broken(format!("`{}` arrives as `{}`", shown(sent), shown(got))));
        }
    }
    if arrived.to_bytes() != bytes {
        return Err(broken("an envelope that was decoded has other bytes".to_owned()));
    }
    Ok(arrived)
}

fn is_same<M: Display>(sent: &Packet<M>, got: &Packet<M>) -> bool {
    match (sent, got) {
        (Packet::Protocol(sent), Packet::Protocol(got)) => sent.to_string() == got.to_string(),
        (Packet::Forward(sent), Packet::Forward(got)) => sent == got,
        (Packet::ForwardReply(sent), Packet::ForwardReply(got)) => sent == got,
        (Packet::SnapshotChunk(sent), Packet::SnapshotChunk(got)) => sent == got,
        (Packet::SnapshotAck(sent), Packet::SnapshotAck(got)) => sent == got,
        _ => false,
    }
}

fn shown<M: Display>(packet: &Packet<M>) -> String {
    match packet {
        Packet::Protocol(message) => message.to_string(),
        Packet::Forward(forward) => format!("{forward:?}"),
        Packet::ForwardReply(reply) => format!("{reply:?}"),
        Packet::SnapshotChunk(chunk) => format!("{chunk:?}"),
        Packet::SnapshotAck(ack) => format!("{ack:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use bytes::{BufMut, BytesMut};
    use synod_core::{DecodeError, GroupId, Incarnation, NodeId, WireReader};

    use super::*;

    /// A message whose bytes hold less than it does.
    struct Forgetful {
        kept: u8,
        forgotten: u8,
    }

    impl fmt::Display for Forgetful {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} {}", self.kept, self.forgotten)
        }
    }

    impl Wire for Forgetful {
        fn wire_len(&self) -> usize {
            1
        }

        fn encode(&self, out: &mut BytesMut) {
            out.put_u8(self.kept);
        }

        fn decode(from: &mut WireReader) -> Result<Forgetful, DecodeError> {
            Ok(Forgetful { kept: from.u8()?, forgotten: 0 })
        }
    }

    #[test]
    fn what_bytes_forget_is_a_violation_and_what_they_hold_arrives() {
        let of = |forgotten| Envelope {
            from: NodeId(1),
            from_incarnation: Incarnation(2),
            to_incarnation: Incarnation(3),
            group: GroupId(0),
            packets: vec![Packet::Protocol(Forgetful { kept: 4, forgotten })],
        };
        let arrived = round_trip(0, &of(0)).unwrap_or_else(|violation| panic!("{violation}"));
        let [Packet::Protocol(Forgetful { kept: 4, .. })] = arrived.packets[..] else {
            panic!("it is there")
        };
        let violation = round_trip(0, &of(9)).err().expect("it lost something");
        assert_eq!(violation.to_string(), "wire: n1: `4 9` arrives as `4 0`");
    }
}
