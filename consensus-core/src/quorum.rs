//! Quorum systems: which sets of members may elect, and which may decide.

mod fast;

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::wire::put_count;
use crate::{DecodeError, LogIndex, NodeId, Wire, WireReader};

/// A set of members, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeSet(Vec<NodeId>);

impl NodeSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> NodeSet {
        NodeSet::default()
    }

    /// Adds a member; false if it was there.
    pub fn insert(&mut self, node: NodeId) -> bool {
        match self.0.binary_search(&node) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, node);
                true
            }
        }
    }

    /// Removes a member; false if it was not there.
    pub fn remove(&mut self, node: NodeId) -> bool {
        match self.0.binary_search(&node) {
            Ok(at) => {
                self.0.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// True if `node` is in the set.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.0.binary_search(&node).is_ok()
    }

    /// How many members the set has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.iter().copied()
    }

    fn count_in(&self, members: &NodeSet) -> usize {
        self.iter().filter(|node| members.contains(*node)).count()
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> NodeSet {
        let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        NodeSet(nodes)
    }
}

impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (position, node) in self.iter().enumerate() {
            let gap = if position == 0 { "" } else { " " };
            write!(f, "{gap}{node}")?;
        }
        f.write_str("}")
    }
}

/// Which sets of members may elect a leader and which may decide an entry.
///
/// Safety needs one thing only: every election quorum meets every replication quorum (Howard, Malkhi,
/// Spiegelman 2016, section 4). Protocols that also need two election quorums to meet (Raft: one vote
/// per term) get it from [`QuorumSystem::Majority`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuorumSystem {
    /// More than half, for both purposes.
    Majority {
        /// The voters.
        members: NodeSet,
    },
    /// Any `election` members elect, any `replication` members decide.
    Counted {
        /// The voters.
        members: NodeSet,
        /// How many elect (q1).
        election: usize,
        /// How many decide (q2).
        replication: usize,
    },
    /// Members of weight `election` in sum elect, members of weight `replication` decide.
    Weighted {
        /// The voters and the weight of each voice.
        members: Vec<(NodeId, u32)>,
        /// The least weight that elects.
        election: u64,
        /// The least weight that decides.
        replication: u64,
    },
    /// As [`QuorumSystem::Counted`], and any `fast` members decide where members take the first value they hear.
    Fast {
        /// The voters.
        members: NodeSet,
        /// How many elect (q1).
        election: usize,
        /// How many decide (q2).
        replication: usize,
        /// How many decide in a fast round (q2f).
        fast: usize,
    },
    /// Members in rows: a full row elects, one of each row decides (Flexible Paxos, section 6).
    Grid {
        /// The rows: disjoint, none of them empty.
        rows: Vec<NodeSet>,
    },
    /// Both systems must agree, while one takes over from the other.
    Joint {
        /// The system that is left.
        old: Box<QuorumSystem>,
        /// The system that is entered.
        new: Box<QuorumSystem>,
    },
}

/// Why a quorum system cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// Nobody could decide anything.
    #[error("a quorum system needs at least one member")]
    NoMembers,
    /// A quorum size outside `1..=members`.
    #[error("a quorum of {size} cannot be drawn from {members} members")]
    Size {
        /// The size asked for.
        size: usize,
        /// How many members there are.
        members: usize,
    },
    /// A voter without a voice, a voter listed twice, or more weight in sum than [`QuorumSystem::WEIGHT_MAX`].
    #[error(
        "weights must be above zero, one for each member, and at most {} in sum",
        QuorumSystem::WEIGHT_MAX
    )]
    Weights,
    /// An election could miss a decision.
    #[error("election quorum {election} and replication quorum {replication} do not meet")]
    Disjoint {
        /// An election quorum.
        election: NodeSet,
        /// A replication quorum disjoint from it.
        replication: NodeSet,
    },
    /// An election could not tell which of two values was decided in a fast round.
    #[error("election quorum {election} and fast quorums {first} and {second} have no member in common")]
    FastDisjoint {
        /// An election quorum.
        election: NodeSet,
        /// A fast quorum.
        first: NodeSet,
        /// Another one, such that nobody is in all three.
        second: NodeSet,
    },
    /// A grid without rows, with an empty row, or with a member in two of them.
    #[error("the rows of a grid must be disjoint and none of them empty")]
    Rows,
}

impl QuorumSystem {
    /// The majority system over `members`.
    pub fn majority(members: impl IntoIterator<Item = NodeId>) -> QuorumSystem {
        QuorumSystem::Majority { members: members.into_iter().collect() }
    }

    /// The largest sum of weights that is validated.
    pub const WEIGHT_MAX: u64 = 1 << 16;

    /// The smallest replication quorums that outlive a crash: any two members decide, so all but one must elect
    /// (Flexible Paxos, section 5). `None` for fewer than three members.
    pub fn small_replication(members: impl IntoIterator<Item = NodeId>) -> Option<QuorumSystem> {
        let members: NodeSet = members.into_iter().collect();
        let election = members.len().checked_sub(1).filter(|election| *election >= 2)?;
        Some(QuorumSystem::Counted { members, election, replication: 2 })
    }

    /// Checks that every election quorum meets every replication quorum.
    ///
    /// # Errors
    /// [`QuorumError`]; a failure to intersect names two disjoint quorums.
    pub fn validate(&self) -> Result<(), QuorumError> {
        match self {
            QuorumSystem::Majority { members } if members.is_empty() => Err(QuorumError::NoMembers),
            QuorumSystem::Majority { .. } => Ok(()),
            QuorumSystem::Fast { members, election, replication, fast } => {
                let (members, election, replication) = (members.clone(), *election, *replication);
                QuorumSystem::Counted { members: members.clone(), election, replication }.validate()?;
                fast::validate(&members, election, *fast)
            }
            QuorumSystem::Grid { rows } => {
                let count: usize = rows.iter().map(NodeSet::len).sum();
                let disjoint = self.members().len() == count;
                if rows.is_empty() || rows.iter().any(NodeSet::is_empty) || !disjoint {
                    return Err(QuorumError::Rows);
                }
                Ok(())
            }
            QuorumSystem::Counted { members, election, replication } => {
                if members.is_empty() {
                    return Err(QuorumError::NoMembers);
                }
                for size in [*election, *replication] {
                    if size == 0 || size > members.len() {
                        return Err(QuorumError::Size { size, members: members.len() });
                    }
                }
                if election + replication <= members.len() {
                    return Err(QuorumError::Disjoint {
                        election: members.iter().take(*election).collect(),
                        replication: members.iter().skip(*election).take(*replication).collect(),
                    });
                }
                Ok(())
            }
            QuorumSystem::Weighted { members, election, replication } => {
                validate_weights(members, *election, *replication)?;
                match disjoint(members, *election, *replication) {
                    Some((election, replication)) => Err(QuorumError::Disjoint { election, replication }),
                    None => Ok(()),
                }
            }
            QuorumSystem::Joint { old, new } => {
                old.validate()?;
                new.validate()
            }
        }
    }

    /// True if `nodes` (members or not) hold an election quorum.
    #[must_use]
    pub fn is_election_quorum(&self, nodes: &NodeSet) -> bool {
        match self {
            QuorumSystem::Majority { members } => nodes.count_in(members) > members.len() / 2,
            QuorumSystem::Counted { members, election, .. }
            | QuorumSystem::Fast { members, election, .. } => nodes.count_in(members) >= *election,
            QuorumSystem::Grid { rows } => rows.iter().any(|row| nodes.count_in(row) == row.len()),
            QuorumSystem::Weighted { members, election, .. } => {
                weight_of(members, |node| nodes.contains(node)) >= *election
            }
            QuorumSystem::Joint { old, new } => {
                old.is_election_quorum(nodes) && new.is_election_quorum(nodes)
            }
        }
    }

    /// True if `nodes` (members or not) hold a replication quorum.
    #[must_use]
    pub fn is_replication_quorum(&self, nodes: &NodeSet) -> bool {
        match self {
            QuorumSystem::Majority { members } => nodes.count_in(members) > members.len() / 2,
            QuorumSystem::Counted { members, replication, .. }
            | QuorumSystem::Fast { members, replication, .. } => nodes.count_in(members) >= *replication,
            QuorumSystem::Grid { rows } => rows.iter().all(|row| nodes.count_in(row) > 0),
            QuorumSystem::Weighted { members, replication, .. } => {
                weight_of(members, |node| nodes.contains(node)) >= *replication
            }
            QuorumSystem::Joint { old, new } => {
                old.is_replication_quorum(nodes) && new.is_replication_quorum(nodes)
            }
        }
    }

    /// The highest index that a whole replication quorum has reached, given how far each member is.
    #[must_use]
    pub fn reached_by_replication_quorum(&self, progress: &impl Fn(NodeId) -> LogIndex) -> LogIndex {
        match self {
            QuorumSystem::Majority { members } => nth_highest(members, members.len() / 2 + 1, progress),
            QuorumSystem::Counted { members, replication, .. }
            | QuorumSystem::Fast { members, replication, .. } => nth_highest(members, *replication, progress),
            QuorumSystem::Grid { rows } => {
                let highest = rows.iter().map(|row| nth_highest(row, 1, progress));
                highest.min().unwrap_or(LogIndex::ZERO)
            }
            QuorumSystem::Weighted { members, replication, .. } => heaviest(members, *replication, progress),
            QuorumSystem::Joint { old, new } => {
                old.reached_by_replication_quorum(progress).min(new.reached_by_replication_quorum(progress))
            }
        }
    }

    /// Everybody whose voice counts.
    #[must_use]
    pub fn members(&self) -> NodeSet {
        match self {
            QuorumSystem::Majority { members }
            | QuorumSystem::Counted { members, .. }
            | QuorumSystem::Fast { members, .. } => members.clone(),
            QuorumSystem::Grid { rows } => rows.iter().flat_map(NodeSet::iter).collect(),
            QuorumSystem::Weighted { members, .. } => members.iter().map(|(node, _)| *node).collect(),
            QuorumSystem::Joint { old, new } => old.members().iter().chain(new.members().iter()).collect(),
        }
    }
}

fn weight_of(members: &[(NodeId, u32)], holds: impl Fn(NodeId) -> bool) -> u64 {
    members.iter().filter(|(node, _)| holds(*node)).map(|(_, weight)| u64::from(*weight)).sum()
}

fn validate_weights(members: &[(NodeId, u32)], election: u64, replication: u64) -> Result<(), QuorumError> {
    if members.is_empty() {
        return Err(QuorumError::NoMembers);
    }
    let distinct: NodeSet = members.iter().map(|(node, _)| *node).collect();
    let total = weight_of(members, |_| true);
    let mute = members.iter().any(|(_, weight)| *weight == 0);
    if mute || distinct.len() != members.len() || total > QuorumSystem::WEIGHT_MAX {
        return Err(QuorumError::Weights);
    }
    let within = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    match [election, replication].into_iter().find(|size| *size == 0 || *size > total) {
        Some(size) => Err(QuorumError::Size { size: within(size), members: within(total) }),
        None => Ok(()),
    }
}

/// A set of at least `first` weight whose complement has at least `second`, and that complement. Exact: goes
/// through every sum of weights that some set has.
fn disjoint(members: &[(NodeId, u32)], first: u64, second: u64) -> Option<(NodeSet, NodeSet)> {
    let total = weight_of(members, |_| true);
    let highest = total.checked_sub(second).filter(|highest| *highest >= first)?;
    // For each sum: the member that was added last on the way there.
    let mut added: Vec<Option<usize>> = vec![None; usize::try_from(highest).ok()? + 1];
    let mut reached = vec![0usize];
    for (at, (_, weight)) in members.iter().enumerate() {
        for from in 0..reached.len() {
            let sum = reached[from] + *weight as usize;
            if sum < added.len() && sum > 0 && added[sum].is_none() {
                added[sum] = Some(at);
                reached.push(sum);
            }
        }
    }
    let wanted = usize::try_from(first).ok()?;
    let mut sum = (wanted..added.len()).find(|sum| added[*sum].is_some())?;
    let mut inside = NodeSet::new();
    while let Some(at) = added[sum] {
        inside.insert(members[at].0);
        sum -= members[at].1 as usize;
    }
    let outside = members.iter().map(|(node, _)| *node).filter(|node| !inside.contains(*node)).collect();
    Some((inside, outside))
}

/// The highest value that members of weight `least` in sum have reached or passed.
fn heaviest(members: &[(NodeId, u32)], least: u64, progress: &impl Fn(NodeId) -> LogIndex) -> LogIndex {
    let mut values: Vec<(LogIndex, u32)> =
        members.iter().map(|(node, weight)| (progress(*node), *weight)).collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    let mut weight = 0;
    for (index, voice) in values {
        weight += u64::from(voice);
        if weight >= least {
            return index;
        }
    }
    LogIndex::ZERO
}

/// The value that `rank` members have reached or passed. Up to eight members need no allocation.
fn nth_highest(members: &NodeSet, rank: usize, progress: &impl Fn(NodeId) -> LogIndex) -> LogIndex {
    if rank == 0 || rank > members.len() {
        return LogIndex::ZERO;
    }
    let mut few = [LogIndex::ZERO; 8];
    let mut many = Vec::new();
    let values: &mut [LogIndex] = if members.len() <= few.len() {
        &mut few[..members.len()]
    } else {
        many.resize(members.len(), LogIndex::ZERO);
        &mut many
    };
    for (value, node) in values.iter_mut().zip(members.iter()) {
        *value = progress(node);
    }
    values.sort_unstable();
    values[values.len() - rank]
}

impl fmt::Display for QuorumSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuorumSystem::Majority { members } => {
                write!(f, "majority({} of {members})", members.len() / 2 + 1)
            }
            QuorumSystem::Counted { members, election, replication } => {
                write!(f, "counted(elect {election}, replicate {replication} of {members})")
            }
            QuorumSystem::Weighted { members, election, replication } => {
                write!(f, "weighted(elect {election}, replicate {replication} of")?;
                members.iter().try_for_each(|(node, weight)| write!(f, " {node}:{weight}"))?;
                f.write_str(")")
            }
            QuorumSystem::Fast { members, election, replication, fast } => {
                write!(f, "fast(elect {election}, replicate {replication}, fast {fast} of {members})")
            }
            QuorumSystem::Grid { rows } => {
                f.write_str("grid(")?;
                for (at, row) in rows.iter().enumerate() {
                    write!(f, "{}{row}", if at == 0 { "" } else { " " })?;
                }
                f.write_str(")")
            }
            QuorumSystem::Joint { old, new } => write!(f, "joint({old} and {new})"),
        }
    }
}

impl Wire for QuorumSystem {
    fn wire_len(&self) -> usize {
        1 + match self {
            QuorumSystem::Majority { members } => 4 + 8 * members.len(),
            QuorumSystem::Counted { members, .. } => 4 + 8 * members.len() + 16,
            QuorumSystem::Weighted { members, .. } => 4 + 12 * members.len() + 16,
            QuorumSystem::Fast { members, .. } => 4 + 8 * members.len() + 24,
            QuorumSystem::Grid { rows } => 4 + rows.iter().map(|row| 4 + 8 * row.len()).sum::<usize>(),
            QuorumSystem::Joint { old, new } => old.wire_len() + new.wire_len(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        let put_members = |out: &mut BytesMut, members: &NodeSet| {
            put_count(out, members.len());
            for member in members.iter() {
                out.put_u64_le(member.0);
            }
        };
        match self {
            QuorumSystem::Majority { members } => {
                out.put_u8(0);
                put_members(out, members);
            }
            QuorumSystem::Counted { members, election, replication } => {
                out.put_u8(1);
                put_members(out, members);
                out.put_u64_le(*election as u64);
                out.put_u64_le(*replication as u64);
            }
            QuorumSystem::Weighted { members, election, replication } => {
                out.put_u8(2);
                put_count(out, members.len());
                for (member, weight) in members {
                    out.put_u64_le(member.0);
                    out.put_u32_le(*weight);
                }
                out.put_u64_le(*election);
                out.put_u64_le(*replication);
            }
            QuorumSystem::Joint { old, new } => {
                out.put_u8(3);
                old.encode(out);
                new.encode(out);
            }
            QuorumSystem::Fast { members, election, replication, fast } => {
                out.put_u8(4);
                put_members(out, members);
                for size in [*election, *replication, *fast] {
                    out.put_u64_le(size as u64);
                }
            }
            QuorumSystem::Grid { rows } => {
                out.put_u8(5);
                put_count(out, rows.len());
                rows.iter().for_each(|row| put_members(out, row));
            }
        }
    }

    fn decode(from: &mut WireReader) -> Result<QuorumSystem, DecodeError> {
        decode_within(from, JOINTS_MAX)
    }
}

/// How deep joint systems may lie in each other on the wire: no reader may be made to recurse without end.
const JOINTS_MAX: usize = 4;

fn decode_within(from: &mut WireReader, joints: usize) -> Result<QuorumSystem, DecodeError> {
    const IMPOSSIBLE: DecodeError = DecodeError::Impossible { what: "quorum system" };
    let nodes = |from: &mut WireReader| -> Result<NodeSet, DecodeError> {
        let count = from.count(8)?;
        (0..count).map(|_| Ok(NodeId(from.u64()?))).collect()
    };
    let size = |from: &mut WireReader| usize::try_from(from.u64()?).map_err(|_| IMPOSSIBLE);
    Ok(match from.u8()? {
        0 => QuorumSystem::Majority { members: nodes(from)? },
        1 => QuorumSystem::Counted { members: nodes(from)?, election: size(from)?, replication: size(from)? },
        2 => {
            let count = from.count(12)?;
            let members = (0..count)
                .map(|_| Ok((NodeId(from.u64()?), from.u32()?)))
                .collect::<Result<_, DecodeError>>()?;
            QuorumSystem::Weighted { members, election: from.u64()?, replication: from.u64()? }
        }
        3 if joints > 0 => QuorumSystem::Joint {
            old: Box::new(decode_within(from, joints - 1)?),
            new: Box::new(decode_within(from, joints - 1)?),
        },
        3 => return Err(IMPOSSIBLE),
        4 => QuorumSystem::Fast {
            members: nodes(from)?,
            election: size(from)?,
            replication: size(from)?,
            fast: size(from)?,
        },
        5 => {
            let rows = from.count(4)?;
            QuorumSystem::Grid { rows: (0..rows).map(|_| nodes(from)).collect::<Result<_, DecodeError>>()? }
        }
        value => return Err(DecodeError::Unknown { what: "quorum system", value: u64::from(value) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn nodes(count: u64) -> NodeSet {
        (1..=count).map(NodeId).collect()
    }

    pub(super) fn subsets(members: &NodeSet) -> Vec<NodeSet> {
        let all: Vec<NodeId> = members.iter().collect();
        (0u32..1 << all.len())
            .map(|mask| {
                all.iter()
                    .enumerate()
                    .filter(|(bit, _)| mask & (1 << bit) != 0)
                    .map(|(_, node)| *node)
                    .collect()
            })
            .collect()
    }

    /// Brute force: no election quorum misses a replication quorum.
    fn intersects(system: &QuorumSystem) -> bool {
        let all = subsets(&system.members());
        all.iter().filter(|a| system.is_election_quorum(a)).all(|a| {
            all.iter()
                .filter(|b| system.is_replication_quorum(b))
                .all(|b| a.iter().any(|node| b.contains(node)))
        })
    }

    #[test]
    fn validation_agrees_with_brute_force_for_every_count_up_to_six() {
        for count in 1..=6 {
            assert!(intersects(&QuorumSystem::Majority { members: nodes(count) }));
            for election in 0..=count as usize + 1 {
                for replication in 0..=count as usize + 1 {
                    let system = QuorumSystem::Counted { members: nodes(count), election, replication };
                    let sound = (1..=count as usize).contains(&election)
                        && (1..=count as usize).contains(&replication)
                        && intersects(&system);
                    assert_eq!(system.validate().is_ok(), sound, "{system}");
                }
            }
        }
    }

    #[test]
    fn the_error_names_two_quorums_that_are_quorums_and_disjoint() {
        let system = QuorumSystem::Counted { members: nodes(5), election: 2, replication: 3 };
        let Err(QuorumError::Disjoint { election, replication }) = system.validate() else {
            panic!("2 + 3 of 5 do not intersect");
        };
        assert!(system.is_election_quorum(&election) && system.is_replication_quorum(&replication));
        assert!(election.iter().all(|node| !replication.contains(node)));
    }

    #[test]
    fn validation_of_weights_agrees_with_brute_force_and_names_two_disjoint_quorums() {
        let shapes: [&[u32]; 6] =
            [&[1], &[1, 1, 1], &[3, 1, 1], &[5, 4, 3, 2, 1], &[2, 2, 2, 2], &[10, 1, 1, 1, 1]];
        for weights in shapes {
            let members: Vec<(NodeId, u32)> = (1..).map(NodeId).zip(weights.iter().copied()).collect();
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for election in 0..=total + 1 {
                for replication in 0..=total + 1 {
                    let system = QuorumSystem::Weighted { members: members.clone(), election, replication };
                    let sized = (1..=total).contains(&election) && (1..=total).contains(&replication);
                    let verdict = system.validate();
                    assert_eq!(verdict.is_ok(), sized && intersects(&system), "{system}");
                    if let Err(QuorumError::Disjoint { election, replication }) = verdict {
                        assert!(system.is_election_quorum(&election), "{system}: {election}");
                        assert!(system.is_replication_quorum(&replication), "{system}: {replication}");
                        assert!(election.iter().all(|node| !replication.contains(node)));
                    }
                }
            }
        }
        let of =
            |members: Vec<(NodeId, u32)>| QuorumSystem::Weighted { members, election: 1, replication: 1 };
        assert_eq!(of(vec![(NodeId(1), 0)]).validate(), Err(QuorumError::Weights));
        assert_eq!(of(vec![(NodeId(1), 1), (NodeId(1), 1)]).validate(), Err(QuorumError::Weights));
        assert_eq!(of(vec![(NodeId(1), 1 << 17)]).validate(), Err(QuorumError::Weights));
        assert_eq!(of(vec![]).validate(), Err(QuorumError::NoMembers));
    }

    #[test]
    fn two_of_any_number_decide_where_all_but_one_elect() {
        assert_eq!(QuorumSystem::small_replication((1..=2).map(NodeId)), None);
        for count in 3..=9 {
            let system = QuorumSystem::small_replication((1..=count).map(NodeId)).expect("three or more");
            assert_eq!(system.validate(), Ok(()), "{system}");
            assert!(system.is_replication_quorum(&[1, 2].map(NodeId).into_iter().collect()));
        }
    }

    #[test]
    fn a_grid_elects_by_a_row_and_decides_by_one_of_each() {
        let grid = |rows: &[&[u64]]| QuorumSystem::Grid {
            rows: rows.iter().map(|row| row.iter().copied().map(NodeId).collect()).collect(),
        };
        let system = grid(&[&[1, 2], &[3, 4, 5]]);
        assert!(system.validate().is_ok() && intersects(&system));
        assert!(system.is_election_quorum(&[1, 2].map(NodeId).into_iter().collect()));
        assert!(!system.is_election_quorum(&[1, 3, 4].map(NodeId).into_iter().collect()));
        assert!(system.is_replication_quorum(&[2, 5].map(NodeId).into_iter().collect()));
        assert_eq!(system.to_string(), "grid({n1 n2} {n3 n4 n5})");
        for wrong in [grid(&[]), grid(&[&[1], &[]]), grid(&[&[1, 2], &[2, 3]])] {
            assert_eq!(wrong.validate(), Err(QuorumError::Rows));
        }
    }

    #[test]
    fn a_joint_quorum_needs_both_systems() {
        let joint = QuorumSystem::Joint {
            old: Box::new(QuorumSystem::majority([1, 2, 3].map(NodeId))),
            new: Box::new(QuorumSystem::majority([3, 4, 5].map(NodeId))),
        };
        assert!(joint.validate().is_ok() && intersects(&joint));
        assert!(!joint.is_election_quorum(&[1, 2].map(NodeId).into_iter().collect()));
        assert!(!joint.is_election_quorum(&[4, 5].map(NodeId).into_iter().collect()));
        assert!(joint.is_election_quorum(&[1, 3, 4].map(NodeId).into_iter().collect()));
        assert_eq!(joint.to_string(), "joint(majority(2 of {n1 n2 n3}) and majority(2 of {n3 n4 n5}))");
    }

    #[test]
    fn the_index_reached_is_the_highest_that_some_replication_quorum_has() {
        let systems = [
            QuorumSystem::Majority { members: nodes(4) },
            QuorumSystem::Counted { members: nodes(5), election: 4, replication: 2 },
            QuorumSystem::Joint {
                old: Box::new(QuorumSystem::majority([1, 2, 3].map(NodeId))),
                new: Box::new(QuorumSystem::majority([2, 3, 4, 5].map(NodeId))),
            },
            QuorumSystem::Majority { members: nodes(9) },
            QuorumSystem::Fast { members: nodes(7), election: 5, replication: 3, fast: 5 },
            QuorumSystem::Grid { rows: vec![nodes(3), [4, 5].map(NodeId).into_iter().collect()] },
            QuorumSystem::Weighted {
                members: vec![(NodeId(1), 5), (NodeId(2), 3), (NodeId(3), 3), (NodeId(4), 1)],
                election: 7,
                replication: 6,
            },
        ];
        for system in systems {
            for shape in 0u64..200 {
                let at = |node: NodeId| LogIndex((shape * (node.0 * 7 + 3) + node.0 * node.0) % 11);
                let reached = system.reached_by_replication_quorum(&at);
                let holders =
                    |index| system.members().iter().filter(|n| at(*n) >= index).collect::<NodeSet>();
                assert!(system.is_replication_quorum(&holders(reached)), "{system}");
                assert!(!system.is_replication_quorum(&holders(reached.next())), "{system}");
            }
        }
    }
}
