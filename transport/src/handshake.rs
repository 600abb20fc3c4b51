//! The handshake: who calls whom, and what both can speak.
//!
//! The node that dials sends [`Greeting::Hello`]; the other answers [`Greeting::Welcome`], and frames follow
//! from the one that dialed, or [`Greeting::Refused`], and nothing follows. Each greeting is
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 1 | 1 hello, 2 welcome, 3 refused |
//! | 2 | length of the body, at most [`BODY_LEN_MAX`] |
//! | 2, 2 | hello and welcome: the first and the last version of the frames that the sender speaks |
//! | 16 | its cluster |
//! | 8 | its node |
//! | 8 | the node that it means to talk to |
//! | 8 | its incarnation |
//! | 4 | its group |
//! | 4 | the longest frame body that it sends and takes |
//! | 4 | CRC-32C of everything before |
//!
//! with little-endian numbers; a refusal has two bytes, [`Refusal::code`], in the place of all those fields.
//! A later version may put more fields before the checksum, and earlier ones skip them; so the layout up to
//! there never changes.
//!
//! Where TLS is spoken, all this happens within it. Only a refusal may come in plaintext while the handshake of TLS
//! is not over: to a caller that speaks plaintext, above all.

use bytes::{BufMut, BytesMut};
use synod_core::{ClusterId, GroupId, Identity, Incarnation, NodeId};

/// How every greeting begins.
pub const MAGIC: [u8; 8] = *b"SYNODTCP";

/// How the first message of TLS begins: a handshake record, of any version.
const TLS_BEGINS: [u8; 2] = [0x16, 0x03];

/// The bytes before the body of a greeting.
pub const PREFIX_LEN: usize = 8 + 1 + 2;

/// The longest body.
pub const BODY_LEN_MAX: usize = 512;

/// The body of a hello of this version, with its checksum.
const HELLO_LEN: usize = 2 + 2 + 16 + 8 + 8 + 8 + 4 + 4 + 4;

/// The body of a refusal, with its checksum.
const REFUSED_LEN: usize = 2 + 4;

/// Versions of the frames and of what they hold, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first.
    pub min: u16,
    /// The last.
    pub max: u16,
}

impl Versions {
    /// What this crate speaks.
    pub const SPOKEN: Versions = Versions { min: 1, max: 1 };

    /// The lowest version that both speak. While a cluster is upgraded, everybody keeps to the old version,
    /// so that any node can still go back to it.
    #[must_use]
    pub fn lowest_common(self, other: Versions) -> Option<u16> {
        let lowest = self.min.max(other.min);
        (lowest <= self.max && lowest <= other.max).then_some(lowest)
    }
}

/// What one end says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What it speaks.
    pub versions: Versions,
    /// Its cluster, node and group.
    pub identity: Identity,
    /// Whom it means to talk to.
    pub to: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The longest frame body that it sends and takes.
    pub frame_bytes_max: u32,
}

/// One message of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The first one, from the node that dials.
    Hello(Hello),
    /// The answer: frames may follow.
    Welcome(Hello),
    /// The answer: the connection ends here. None for a reason that this version does not know.
    Refused(Option<Refusal>),
}

/// Why a connection ends before its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Bytes that are no greeting.
    #[error("the greeting makes no sense")]
    Malformed,
    /// No version is spoken by both.
    #[error("no common version")]
    Version,
    /// The other is of another cluster.
    #[error("another cluster")]
    Cluster,
    /// The other means to talk to another node.
    #[error("another node was meant")]
    Node,
    /// The other is no peer.
    #[error("not a peer")]
    Stranger,
    /// The other speaks for another log of its node.
    #[error("another group")]
    Group,
    /// The other is an older life of a node than one heard of before.
    #[error("an older incarnation than one heard of before")]
    Incarnation,
    /// Who dials would send longer frames than the other takes.
    #[error("frames longer than those taken")]
    FrameLimit,
    /// Too many connections that have not said who they are; this one was the oldest.
    #[error("too many handshakes at once")]
    Busy,
    /// The greeting did not come in time.
    #[error("the greeting did not come in time")]
    Timeout,
    /// The other speaks plaintext, and this end TLS.
    #[error("plaintext where TLS is spoken")]
    TlsWanted,
    /// The other speaks TLS, and this end plaintext.
    #[error("TLS where plaintext is spoken")]
    PlaintextWanted,
    /// The other shows no certificate.
    #[error("no certificate")]
    NoCertificate,
    /// The certificate is of no authority that this end knows.
    #[error("a certificate of another authority")]
    Authority,
    /// The certificate is not valid any more.
    #[error("an expired certificate")]
    Expired,
    /// The certificate is not valid yet.
    #[error("a certificate that is not valid yet")]
    NotYetValid,
    /// The certificate is that of another node or cluster.
    #[error("a certificate with another name")]
    Name,
    /// The authority has revoked the certificate.
    #[error("a revoked certificate")]
    Revoked,
    /// The certificate is not accepted for another reason.
    #[error("a certificate that is not accepted")]
    Certificate,
    /// The other breaks the rules of TLS, or speaks none of its versions and suites that this end does.
    #[error("no common TLS")]
    Tls,
}

impl Refusal {
    /// Every reason, in the order of their codes.
    pub const ALL: [Refusal; 20] = [
        Refusal::Malformed,
        Refusal::Version,
        Refusal::Cluster,
        Refusal::Node,
        Refusal::Stranger,
        Refusal::Group,
        Refusal::Incarnation,
        Refusal::FrameLimit,
        Refusal::Busy,
        Refusal::Timeout,
        Refusal::TlsWanted,
        Refusal::PlaintextWanted,
        Refusal::NoCertificate,
        Refusal::Authority,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::Name,
        Refusal::Revoked,
        Refusal::Certificate,
        Refusal::Tls,
    ];

    /// The number on the wire; the first is 1.
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16 + 1
    }

    /// The reason with this number on the wire.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Refusal> {
        Refusal::ALL.get(usize::from(code.checked_sub(1)?)).copied()
    }
}

impl Greeting {
    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(PREFIX_LEN + HELLO_LEN);
        out.put_slice(&MAGIC);
        match self {
            Greeting::Hello(hello) | Greeting::Welcome(hello) => {
                out.put_u8(if matches!(self, Greeting::Hello(_)) { 1 } else { 2 });
                out.put_u16_le(HELLO_LEN as u16);
                out.put_u16_le(hello.versions.min);
                out.put_u16_le(hello.versions.max);
                out.put_u128_le(hello.identity.cluster.0);
                out.put_u64_le(hello.identity.node.0);
                out.put_u64_le(hello.to.0);
                out.put_u64_le(hello.incarnation.0);
                out.put_u32_le(hello.identity.group.0);
                out.put_u32_le(hello.frame_bytes_max);
            }
            Greeting::Refused(reason) => {
                out.put_u8(3);
                out.put_u16_le(REFUSED_LEN as u16);
                out.put_u16_le(reason.map_or(0, Refusal::code));
            }
        }
        let sum = crc32c::crc32c(&out);
        out.put_u32_le(sum);
        out
    }

    /// The length of the body that follows `prefix`.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if it is no greeting's, or the body is too long; [`Refusal::PlaintextWanted`] if TLS
    /// begins so.
    pub fn body_len(prefix: &[u8; PREFIX_LEN]) -> Result<usize, Refusal> {
        if prefix.starts_with(&TLS_BEGINS) {
            return Err(Refusal::PlaintextWanted);
        }
        let [magic @ .., kind, low, high] = *prefix;
        let len = usize::from(u16::from_le_bytes([low, high]));
        let len_min = match kind {
            1 | 2 => HELLO_LEN,
            3 => REFUSED_LEN,
            _ => return Err(Refusal::Malformed),
        };
        if magic != MAGIC || len < len_min || len > BODY_LEN_MAX {
            return Err(Refusal::Malformed);
        }
        Ok(len)
    }

    /// Reads a greeting that fills `bytes`.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Greeting, Refusal> {
        let prefix = bytes.first_chunk().ok_or(Refusal::Malformed)?;
        let len = Greeting::body_len(prefix)?;
        if bytes.len() != PREFIX_LEN + len {
            return Err(Refusal::Malformed);
        }
        let (rest, sum) = bytes.split_last_chunk::<4>().ok_or(Refusal::Malformed)?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*sum) {
            return Err(Refusal::Malformed);
        }
        let mut fields = Fields(&rest[PREFIX_LEN..]);
        if prefix[8] == 3 {
            return Ok(Greeting::Refused(Refusal::from_code(u16::from_le_bytes(fields.next()?))));
        }
        let versions =
            Versions { min: u16::from_le_bytes(fields.next()?), max: u16::from_le_bytes(fields.next()?) };
        let cluster = ClusterId(u128::from_le_bytes(fields.next()?));
        let node = NodeId(u64::from_le_bytes(fields.next()?));
        let to = NodeId(u64::from_le_bytes(fields.next()?));
        let incarnation = Incarnation(u64::from_le_bytes(fields.next()?));
        let group = GroupId(u32::from_le_bytes(fields.next()?));
        let frame_bytes_max = u32::from_le_bytes(fields.next()?);
        if versions.min > versions.max || node == NodeId(0) || incarnation == Incarnation(0) {
            return Err(Refusal::Malformed);
        }
        let identity = Identity { cluster, node, group };
        let hello = Hello { versions, identity, to, incarnation, frame_bytes_max };
        Ok(if prefix[8] == 1 { Greeting::Hello(hello) } else { Greeting::Welcome(hello) })
    }
}

/// Takes fields of a known length off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(*field)
    }
}

impl Hello {
    /// Whether this end, `self`, may talk to `other`, which sent what it takes to be true; the version that
    /// is spoken then. Whether the other is a peer, and its incarnation, are judged by whoever knows the peers.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies.
    pub fn judge(&self, other: &Hello) -> Result<u16, Refusal> {
        let version = self.versions.lowest_common(other.versions).ok_or(Refusal::Version)?;
        if other.identity.cluster != self.identity.cluster {
            return Err(Refusal::Cluster);
        }
        if other.to != self.identity.node {
            return Err(Refusal::Node);
        }
        if other.identity.group != self.identity.group {
            return Err(Refusal::Group);
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: Versions { min: 1, max: 2 },
            identity: Identity {
                cluster: ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
                node: NodeId(0x11),
                group: GroupId(0x22),
            },
            to: NodeId(0x33),
            incarnation: Incarnation(0x44),
            frame_bytes_max: 0x55,
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let mut want = b"SYNODTCP\x01\x38\x00\x01\x00\x02\x00".to_vec();
        want.extend(0..16);
        want.extend(b"\x11\0\0\0\0\0\0\0\x33\0\0\0\0\0\0\0\x44\0\0\0\0\0\0\0\x22\0\0\0\x55\0\0\0");
        want.extend(b"\x66\xfc\x6f\xec");
        assert_eq!(&Greeting::Hello(hello()).to_bytes()[..], &want[..]);
        want[8] = 2;
        want.truncate(want.len() - 4);
        want.extend(b"\xf3\x0e\x97\x86");
        assert_eq!(&Greeting::Welcome(hello()).to_bytes()[..], &want[..]);
        assert_eq!(
            &Greeting::Refused(Some(Refusal::Cluster)).to_bytes()[..],
            b"SYNODTCP\x03\x06\x00\x03\x00\xae\x0a\x98\x86"
        );
    }

    #[test]
    fn greetings_survive_the_wire_and_every_cut_or_changed_bit_is_malformed() {
        let refusals = Refusal::ALL.map(|reason| Greeting::Refused(Some(reason)));
        for greeting in [Greeting::Hello(hello()), Greeting::Welcome(hello())].into_iter().chain(refusals) {
            let bytes = greeting.to_bytes();
            assert_eq!(Greeting::from_bytes(&bytes), Ok(greeting));
            for cut in 0..bytes.len() {
                assert_eq!(Greeting::from_bytes(&bytes[..cut]), Err(Refusal::Malformed));
            }
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Greeting::from_bytes(&bad), Err(Refusal::Malformed));
            }
        }
    }

    #[test]
    fn fields_of_a_later_version_are_skipped() {
        let bytes = Greeting::Hello(hello()).to_bytes();
        let mut longer = bytes[..bytes.len() - 4].to_vec();
        longer.extend(b"of a later version");
        longer[9..11].copy_from_slice(&(56u16 + 18).to_le_bytes());
        longer.extend(crc32c::crc32c(&longer).to_le_bytes());
        assert_eq!(Greeting::from_bytes(&longer), Ok(Greeting::Hello(hello())));
    }

    #[test]
    fn a_body_longer_than_the_limit_is_refused_by_its_prefix() {
        let mut prefix = *b"SYNODTCP\x01\x00\x02";
        assert_eq!(Greeting::body_len(&prefix), Ok(512));
        prefix[9] = 1;
        assert_eq!(Greeting::body_len(&prefix), Err(Refusal::Malformed));
    }

    #[test]
    fn nobody_is_node_0_or_lives_life_0() {
        let nobody = Hello { identity: Identity { node: NodeId(0), ..hello().identity }, ..hello() };
        let unborn = Hello { incarnation: Incarnation(0), ..hello() };
        let inside_out = Hello { versions: Versions { min: 2, max: 1 }, ..hello() };
        for bad in [nobody, unborn, inside_out] {
            let bytes = Greeting::Hello(bad).to_bytes();
            assert_eq!(Greeting::from_bytes(&bytes), Err(Refusal::Malformed));
        }
    }

    #[test]
    fn the_lowest_common_version_is_spoken() {
        let versions = |min, max| Versions { min, max };
        assert_eq!(versions(1, 3).lowest_common(versions(2, 5)), Some(2));
        assert_eq!(versions(2, 5).lowest_common(versions(1, 3)), Some(2));
        assert_eq!(versions(1, 3).lowest_common(versions(1, 3)), Some(1));
        assert_eq!(versions(1, 1).lowest_common(versions(2, 2)), None);
        assert_eq!(versions(2, 2).lowest_common(versions(1, 1)), None);
    }

    #[test]
    fn each_way_not_to_belong_together_is_named() {
        let me = Hello {
            identity: Identity { node: NodeId(0x33), ..hello().identity },
            to: NodeId(0x11),
            ..hello()
        };
        let other = hello();
        assert_eq!(me.judge(&other), Ok(1));
        assert_eq!(other.judge(&me), Ok(1));
        let identity = other.identity;
        let cases = [
            (Hello { versions: Versions { min: 3, max: 3 }, ..other }, Refusal::Version),
            (Hello { identity: Identity { cluster: ClusterId(1), ..identity }, ..other }, Refusal::Cluster),
            (Hello { to: NodeId(9), ..other }, Refusal::Node),
            (Hello { identity: Identity { group: GroupId(1), ..identity }, ..other }, Refusal::Group),
        ];
        for (other, refusal) in cases {
            assert_eq!(me.judge(&other), Err(refusal));
        }
    }

    #[test]
    fn codes_of_reasons_never_change() {
        for (code, reason) in (1..).zip(Refusal::ALL) {
            assert_eq!((reason.code(), Refusal::from_code(code)), (code, Some(reason)));
        }
        assert_eq!((Refusal::from_code(0), Refusal::from_code(21)), (None, None));
    }
}
