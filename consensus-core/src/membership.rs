//! Who takes part in a cluster.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::wire::put_count;
use crate::{DecodeError, NodeId, NodeSet, QuorumError, QuorumSystem, Wire, WireReader};

/// One member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Where the transport finds it; read by the transport alone. Empty in process.
    pub address: String,
}

/// Bounds on the session table. They decide what an applied entry does, so all replicas must agree on
/// them: they are part of the membership and not of a node's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// How many commands of one session may be unsettled at a time. A power of two.
    pub window: u32,
    /// How many sessions are kept; beyond it the least recently applied one is evicted.
    pub sessions_max: u32,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits { window: 1024, sessions_max: 4096 }
    }
}

/// The members of a cluster, the quorums among them and what else every replica must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    members: Vec<Member>,
    quorums: QuorumSystem,
    sessions: SessionLimits,
}

/// Why a membership cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// The same id twice.
    #[error("{0} is listed twice")]
    Twice(NodeId),
    /// Id 0 stands for nobody.
    #[error("node id 0 is reserved")]
    Zero,
    /// More members than one cluster may have.
    #[error("{0} members; at most 64 are supported")]
    TooMany(usize),
    /// A quorum counts somebody who is not a member.
    #[error("{0} is counted in a quorum and is not a member")]
    Stranger(NodeId),
    /// The quorums do not do.
    #[error("invalid quorums")]
    Quorum(#[from] QuorumError),
    /// The session window is zero, above 65,536 or no power of two, or no session is kept.
    #[error("the session window must be a power of two up to 65536, and at least one session must be kept")]
    Sessions,
}

impl Membership {
    /// How many members one cluster may have.
    pub const MEMBERS_MAX: usize = 64;

    /// A membership with its quorums and session limits.
    ///
    /// # Errors
    /// [`MembershipError`] names what does not fit.
    pub fn new(
        mut members: Vec<Member>,
        quorums: QuorumSystem,
        sessions: SessionLimits,
    ) -> Result<Membership, MembershipError> {
        members.sort_by_key(|member| member.id);
        if members.len() > Membership::MEMBERS_MAX {
            return Err(MembershipError::TooMany(members.len()));
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(MembershipError::Twice(pair[0].id));
        }
        if members.iter().any(|member| member.id == NodeId(0)) {
            return Err(MembershipError::Zero);
        }
        quorums.validate()?;
        let known: NodeSet = members.iter().map(|member| member.id).collect();
        if let Some(stranger) = quorums.members().iter().find(|node| !known.contains(*node)) {
            return Err(MembershipError::Stranger(stranger));
        }
        if !sessions.window.is_power_of_two() || sessions.window > 1 << 16 || sessions.sessions_max == 0 {
            return Err(MembershipError::Sessions);
        }
        Ok(Membership { members, quorums, sessions })
    }

    /// Members without addresses, deciding by majority.
    ///
    /// # Errors
    /// [`MembershipError`] if there is none, one is listed twice, or one is 0.
    pub fn of_ids(ids: impl IntoIterator<Item = u64>) -> Result<Membership, MembershipError> {
        Membership::of_addresses(ids.into_iter().map(|id| (id, "")))
    }

    /// Members with the addresses under which a transport finds them, deciding by majority.
    ///
    /// # Errors
    /// As [`Membership::of_ids`].
    pub fn of_addresses(
        members: impl IntoIterator<Item = (u64, impl Into<String>)>,
    ) -> Result<Membership, MembershipError> {
        let member = |(id, address): (u64, _)| Member { id: NodeId(id), address: Into::into(address) };
        let members: Vec<Member> = members.into_iter().map(member).collect();
        let quorums = QuorumSystem::majority(members.iter().map(|member| member.id));
        Membership::new(members, quorums, SessionLimits::default())
    }

    /// The members, by ascending id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The quorums.
    #[must_use]
    pub fn quorums(&self) -> &QuorumSystem {
        &self.quorums
    }

    /// The bounds of the session table.
    #[must_use]
    pub fn sessions(&self) -> SessionLimits {
        self.sessions
    }

    /// True if `node` is a member.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.members.binary_search_by_key(&node, |member| member.id).is_ok()
    }

    /// Every member but `me`, by ascending id.
    pub fn peers_of(&self, me: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|member| member.id).filter(move |id| *id != me)
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: NodeSet = self.members.iter().map(|member| member.id).collect();
        write!(f, "{all} deciding by {}", self.quorums)
    }
}

impl Wire for Membership {
    fn wire_len(&self) -> usize {
        let members: usize = self.members.iter().map(|member| 8 + 4 + member.address.len()).sum();
        4 + members + self.quorums.wire_len() + 4 + 4
    }

    fn encode(&self, out: &mut BytesMut) {
        put_count(out, self.members.len());
        for member in &self.members {
            out.put_u64_le(member.id.0);
            put_count(out, member.address.len());
            out.put_slice(member.address.as_bytes());
        }
        self.quorums.encode(out);
        out.put_u32_le(self.sessions.window);
        out.put_u32_le(self.sessions.sessions_max);
    }

    fn decode(from: &mut WireReader) -> Result<Membership, DecodeError> {
        const IMPOSSIBLE: DecodeError = DecodeError::Impossible { what: "membership" };
        let count = from.count(12)?;
        if count > Membership::MEMBERS_MAX {
            return Err(IMPOSSIBLE);
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, address) = (NodeId(from.u64()?), from.bytes()?);
            let address = String::from_utf8(address.to_vec()).map_err(|_| IMPOSSIBLE)?;
            members.push(Member { id, address });
        }
        let quorums = QuorumSystem::decode(from)?;
        let sessions = SessionLimits { window: from.u32()?, sessions_max: from.u32()? };
        Membership::new(members, quorums, sessions).map_err(|_| IMPOSSIBLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_be_wrong_is_named() {
        assert_eq!(Membership::of_ids([1, 2, 2]), Err(MembershipError::Twice(NodeId(2))));
        assert_eq!(Membership::of_ids([0, 1]), Err(MembershipError::Zero));
        assert_eq!(Membership::of_ids(1..=65), Err(MembershipError::TooMany(65)));
        assert_eq!(Membership::of_ids([]), Err(MembershipError::Quorum(QuorumError::NoMembers)));
        let members = vec![Member { id: NodeId(1), address: String::new() }];
        let strangers = QuorumSystem::majority([NodeId(1), NodeId(9)]);
        assert_eq!(
            Membership::new(members.clone(), strangers, SessionLimits::default()),
            Err(MembershipError::Stranger(NodeId(9)))
        );
        let odd = SessionLimits { window: 1000, sessions_max: 1 };
        assert_eq!(
            Membership::new(members, QuorumSystem::majority([NodeId(1)]), odd),
            Err(MembershipError::Sessions)
        );
    }

    #[test]
    fn peers_are_everybody_else() {
        let membership = Membership::of_ids([3, 1, 2]).unwrap();
        assert_eq!(membership.peers_of(NodeId(2)).collect::<Vec<_>>(), [NodeId(1), NodeId(3)]);
        assert_eq!(membership.to_string(), "{n1 n2 n3} deciding by majority(2 of {n1 n2 n3})");
    }

    #[test]
    fn every_membership_survives_the_wire_and_no_cut_of_it_is_one() {
        let mut all = vec![Membership::of_addresses([(1, "a:1"), (2, ""), (7, "[::1]:9")]).unwrap()];
        let members = all[0].members().to_vec();
        let ids = || members.iter().map(|member| member.id);
        let counted = QuorumSystem::Counted { members: ids().collect(), election: 3, replication: 1 };
        let weighted = QuorumSystem::Weighted {
            members: ids().map(|id| (id, 1)).collect(),
            election: 2,
            replication: 2,
        };
        let joint = QuorumSystem::Joint {
            old: Box::new(QuorumSystem::majority(ids())),
            new: Box::new(counted.clone()),
        };
        let fast = QuorumSystem::fast(ids(), 2, 2, 3).unwrap();
        let rows = vec![ids().take(1).collect(), ids().skip(1).collect()];
        for quorums in [counted, weighted, joint, fast, QuorumSystem::Grid { rows }] {
            all.push(Membership::new(members.clone(), quorums, SessionLimits::default()).unwrap());
        }
        for membership in all {
            let bytes = membership.to_bytes();
            assert_eq!(bytes.len(), membership.wire_len());
            assert_eq!(Membership::from_bytes(bytes.clone()).unwrap(), membership);
            for len in 0..bytes.len() {
                assert!(Membership::from_bytes(bytes.slice(..len)).is_err());
            }
        }
    }

    #[test]
    fn joint_systems_without_end_are_refused() {
        let mut bytes = BytesMut::new();
        bytes.put_bytes(3, 1 << 16);
        assert!(QuorumSystem::from_bytes(bytes.freeze()).is_err());
    }
}
