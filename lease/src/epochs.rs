//! A number that rises with every holder, kept by a majority that does not forget: a token for what has none.
//!
//! Whoever has come to hold something by a majority in memory claims the next number before it acts. A replica keeps
//! the highest number it was asked for, and for whom, in its hard state, and takes each number from one claim alone.
//! Two majorities share a replica, so no number is ever claimed twice, and a claim that begins after another one has
//! succeeded ends with a higher number. No clock is read for that: the order stands when every lease has failed.
//!
//! One round trip and one write at a majority for each change of hands; nothing at all for a renewal.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{
    DecodeError, Effects, Incarnation, Instant, Membership, NodeId, NodeSet, OpenError, Wire, WireReader,
    WriteId,
};

use crate::FencingToken;

/// Names one claim: no two are ever the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claimant {
    /// Who claims.
    pub node: NodeId,
    /// In which life.
    pub life: Incarnation,
    /// Which claim of that life.
    pub claim: u64,
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.node.0, self.life.0, self.claim)
    }
}

/// A number, and whose it is: what a replica keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Rises with every claim that succeeds.
    pub number: FencingToken,
    /// Whose it is.
    pub claimant: Claimant,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.number.0, self.claimant)
    }
}

/// What replicas say to each other about epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochMessage {
    /// Asks a replica to keep this epoch.
    Claim(Epoch),
    /// The replica keeps it; sent once it is durable.
    Kept(Epoch),
    /// The replica keeps this number, of another claim or a higher one.
    Taken {
        /// The claim that is answered.
        claim: Epoch,
        /// What is kept.
        kept: FencingToken,
    },
}

impl fmt::Display for EpochMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EpochMessage::Claim(epoch) => write!(f, "claim {epoch}"),
            EpochMessage::Kept(epoch) => write!(f, "kept {epoch}"),
            EpochMessage::Taken { claim, kept } => write!(f, "taken {claim} kept {}", kept.0),
        }
    }
}

/// One replica's part: it keeps an epoch, and claims the next one when it is told to.
///
/// A part of a [`Machine`](synod_core::Machine) rather than one: it writes its epoch as the hard state of the machine
/// that it is part of, and sends its messages wrapped in that machine's own.
#[derive(Clone, Debug)]
pub struct Epochs {
    node: NodeId,
    life: Incarnation,
    membership: Membership,
    retry: Duration,
    kept: Option<Epoch>,
    claims: u64,
    claiming: Option<Claiming>,
}

#[derive(Clone, Debug)]
struct Claiming {
    epoch: Epoch,
    keepers: NodeSet,
    /// This replica keeps it as well, once that is durable.
    own: Option<WriteId>,
    again_at: Instant,
}

impl Epochs {
    /// What a life of a replica begins with; asks again after `retry`.
    ///
    /// # Errors
    /// [`OpenError::HardState`] if the hard state is not one that this wrote.
    pub fn restored(
        node: NodeId,
        life: Incarnation,
        membership: Membership,
        retry: Duration,
        hard_state: Option<Bytes>,
    ) -> Result<Epochs, OpenError> {
        let kept = hard_state.map(Epoch::from_bytes).transpose().map_err(OpenError::HardState)?;
        Ok(Epochs { node, life, membership, retry, kept, claims: 0, claiming: None })
    }

    /// Begins to claim the next number; a claim under way is abandoned. Told to [`Epochs::receive`] and
    /// [`Epochs::persisted`] when it succeeds.
    pub fn claim<M, E>(&mut self, now: Instant, wrap: fn(EpochMessage) -> M, effects: &mut Effects<M, E>) {
        self.claims += 1;
        let claimant = Claimant { node: self.node, life: self.life, claim: self.claims };
        self.ask(now, claimant, FencingToken(0), wrap, effects);
    }

    /// Claims no longer. The number may be kept for it all the same, and is then nobody's.
    pub fn abandon(&mut self) {
        self.claiming = None;
    }

    /// True while a claim is under way.
    #[must_use]
    pub fn is_claiming(&self) -> bool {
        self.claiming.is_some()
    }

    /// A peer says something. The number, if it is claimed now.
    pub fn receive<M, E>(
        &mut self,
        now: Instant,
        from: NodeId,
        message: EpochMessage,
        wrap: fn(EpochMessage) -> M,
        effects: &mut Effects<M, E>,
    ) -> Option<FencingToken> {
        match message {
            EpochMessage::Claim(epoch) if epoch.claimant.node != from => None,
            EpochMessage::Claim(epoch) => {
                match self.keep(epoch, effects) {
                    Ok(()) => effects.send_after_write(from, wrap(EpochMessage::Kept(epoch))),
                    Err(kept) => effects.send(from, wrap(EpochMessage::Taken { claim: epoch, kept })),
                }
                None
            }
            EpochMessage::Kept(epoch) => {
                let claiming = self.claiming.as_mut().filter(|claiming| claiming.epoch == epoch)?;
                claiming.keepers.insert(from);
                self.claimed()
            }
            EpochMessage::Taken { claim, kept } => {
                let claiming = self.claiming.as_ref().filter(|claiming| claiming.epoch == claim)?;
                if kept >= claiming.epoch.number {
                    self.ask(now, claim.claimant, kept, wrap, effects);
                }
                None
            }
        }
    }

    /// What was written through this unit is durable. The number, if it is claimed now.
    pub fn persisted(&mut self, through: WriteId) -> Option<FencingToken> {
        let node = self.node;
        let claiming = self.claiming.as_mut()?;
        if claiming.own.is_none_or(|own| own > through) {
            return None;
        }
        claiming.own = None;
        claiming.keepers.insert(node);
        self.claimed()
    }

    /// Asks again those who have not answered.
    pub fn tick<M, E>(&mut self, now: Instant, wrap: fn(EpochMessage) -> M, effects: &mut Effects<M, E>) {
        let Some(claiming) = &mut self.claiming else { return };
        if claiming.again_at > now {
            return;
        }
        claiming.again_at = now + self.retry;
        let epoch = claiming.epoch;
        for peer in self.membership.peers_of(self.node).filter(|peer| !claiming.keepers.contains(*peer)) {
            effects.send(peer, wrap(EpochMessage::Claim(epoch)));
        }
    }

    /// When [`Epochs::tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.claiming.as_ref().map(|claiming| claiming.again_at)
    }

    /// The highest number that this replica keeps.
    #[must_use]
    pub fn kept(&self) -> FencingToken {
        self.kept.map_or(FencingToken(0), |epoch| epoch.number)
    }

    /// The node that the highest number kept here belongs to; none if none is kept.
    #[must_use]
    pub fn kept_for(&self) -> Option<NodeId> {
        self.kept.map(|epoch| epoch.claimant.node)
    }

    fn ask<M, E>(
        &mut self,
        now: Instant,
        claimant: Claimant,
        above: FencingToken,
        wrap: fn(EpochMessage) -> M,
        effects: &mut Effects<M, E>,
    ) {
        // Numbers are only ever used up by a peer that lies about them; then nothing is claimed any more.
        let Some(number) = self.kept().max(above).0.checked_add(1) else {
            self.claiming = None;
            return;
        };
        let epoch = Epoch { number: FencingToken(number), claimant };
        let own = self.keep(epoch, effects).is_ok().then(|| effects.write_id());
        self.claiming = Some(Claiming { epoch, keepers: NodeSet::new(), own, again_at: now + self.retry });
        for peer in self.membership.peers_of(self.node) {
            effects.send(peer, wrap(EpochMessage::Claim(epoch)));
        }
    }

    /// Keeps the epoch if it is higher than what is kept; one that is kept already is kept. Otherwise what is.
    fn keep<M, E>(&mut self, epoch: Epoch, effects: &mut Effects<M, E>) -> Result<(), FencingToken> {
        match self.kept {
            Some(kept) if kept == epoch => Ok(()),
            Some(kept) if kept.number >= epoch.number => Err(kept.number),
            _ => {
                self.kept = Some(epoch);
                effects.set_hard_state(epoch.to_bytes());
                Ok(())
            }
        }
    }

    fn claimed(&mut self) -> Option<FencingToken> {
        let claiming = self.claiming.as_ref()?;
        if !self.membership.quorums().is_replication_quorum(&claiming.keepers) {
            return None;
        }
        let number = claiming.epoch.number;
        self.claiming = None;
        Some(number)
    }
}

const EPOCH_LEN: usize = 32;

/// Number, node, life, claim.
impl Wire for Epoch {
    fn wire_len(&self) -> usize {
        EPOCH_LEN
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.number.0);
        out.put_u64_le(self.claimant.node.0);
        out.put_u64_le(self.claimant.life.0);
        out.put_u64_le(self.claimant.claim);
    }

    fn decode(from: &mut WireReader) -> Result<Epoch, DecodeError> {
        Ok(Epoch {
            number: FencingToken(from.u64()?),
            claimant: Claimant {
                node: NodeId(from.u64()?),
                life: Incarnation(from.u64()?),
                claim: from.u64()?,
            },
        })
    }
}

const CLAIM: u8 = 1;
const KEPT: u8 = 2;
const TAKEN: u8 = 3;

/// A tag byte, then the epoch, then what is kept.
impl Wire for EpochMessage {
    fn wire_len(&self) -> usize {
        1 + EPOCH_LEN + if matches!(self, EpochMessage::Taken { .. }) { 8 } else { 0 }
    }

    fn encode(&self, out: &mut BytesMut) {
        let (tag, epoch) = match self {
            EpochMessage::Claim(epoch) => (CLAIM, epoch),
            EpochMessage::Kept(epoch) => (KEPT, epoch),
            EpochMessage::Taken { claim, .. } => (TAKEN, claim),
        };
        out.put_u8(tag);
        epoch.encode(out);
        if let EpochMessage::Taken { kept, .. } = self {
            out.put_u64_le(kept.0);
        }
    }

    fn decode(from: &mut WireReader) -> Result<EpochMessage, DecodeError> {
        let tag = from.u8()?;
        let epoch = Epoch::decode(from)?;
        Ok(match tag {
            CLAIM => EpochMessage::Claim(epoch),
            KEPT => EpochMessage::Kept(epoch),
            TAKEN => EpochMessage::Taken { claim: epoch, kept: FencingToken(from.u64()?) },
            value => return Err(DecodeError::Unknown { what: "epoch message", value: u64::from(value) }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Asked = Effects<EpochMessage, ()>;

    const WRAP: fn(EpochMessage) -> EpochMessage = |message| message;

    fn replica(node: u64, hard_state: Option<Bytes>) -> Epochs {
        let membership = Membership::of_ids(1..=3).unwrap();
        Epochs::restored(NodeId(node), Incarnation(1), membership, Duration::from_secs(1), hard_state)
            .unwrap()
    }

    fn epoch(number: u64, node: u64) -> Epoch {
        let claimant = Claimant { node: NodeId(node), life: Incarnation(1), claim: 1 };
        Epoch { number: FencingToken(number), claimant }
    }

    fn told(replica: &mut Epochs, from: u64, message: EpochMessage) -> (Option<FencingToken>, Asked) {
        let mut effects = Asked::new();
        let claimed = replica.receive(Instant::ZERO, NodeId(from), message, WRAP, &mut effects);
        (claimed, effects)
    }

    #[test]
    fn a_number_is_claimed_once_a_majority_keeps_it_this_replica_among_them_when_it_is_durable() {
        let mut replica = replica(1, None);
        let mut effects = Asked::new();
        replica.claim(Instant::ZERO, WRAP, &mut effects);
        let unit = effects.settle().expect("its own is written");
        assert_eq!(effects.sends().len(), 2);
        assert_eq!(told(&mut replica, 2, EpochMessage::Kept(epoch(1, 1))).0, None);
        assert_eq!(replica.persisted(unit.id), Some(FencingToken(1)));
    }

    #[test]
    fn a_number_belongs_to_one_claim_and_its_keeper_says_so_only_when_it_is_durable() {
        let mut keeper = replica(3, None);
        let (_, effects) = told(&mut keeper, 1, EpochMessage::Claim(epoch(1, 1)));
        assert_eq!(effects.sends()[0].after, Some(effects.write_id()));
        let (_, effects) = told(&mut keeper, 2, EpochMessage::Claim(epoch(1, 2)));
        let taken = EpochMessage::Taken { claim: epoch(1, 2), kept: FencingToken(1) };
        assert_eq!(effects.sends()[0].message, taken);
        // Asked again by the one whose it is.
        let (_, effects) = told(&mut keeper, 1, EpochMessage::Claim(epoch(1, 1)));
        assert_eq!(effects.sends()[0].message, EpochMessage::Kept(epoch(1, 1)));
    }

    #[test]
    fn a_claim_goes_on_above_what_it_is_told_and_an_answer_to_the_number_before_counts_no_more() {
        let mut replica = replica(1, None);
        replica.claim(Instant::ZERO, WRAP, &mut Asked::new());
        let taken = EpochMessage::Taken { claim: epoch(1, 1), kept: FencingToken(7) };
        let (_, effects) = told(&mut replica, 2, taken);
        assert_eq!(effects.sends()[0].message, EpochMessage::Claim(epoch(8, 1)));
        assert_eq!(told(&mut replica, 2, EpochMessage::Kept(epoch(1, 1))).0, None);
        assert_eq!(told(&mut replica, 2, EpochMessage::Kept(epoch(8, 1))).0, None);
        assert_eq!(told(&mut replica, 3, EpochMessage::Kept(epoch(8, 1))).0, Some(FencingToken(8)));
    }

    #[test]
    fn nobody_claims_for_another_and_what_is_kept_survives_a_restart() {
        let mut keeper = replica(3, Some(epoch(5, 2).to_bytes()));
        assert_eq!(keeper.kept(), FencingToken(5));
        let (_, effects) = told(&mut keeper, 2, EpochMessage::Claim(epoch(9, 1)));
        assert!(effects.is_empty(), "a claim in the name of another");
        let (_, effects) = told(&mut keeper, 1, EpochMessage::Claim(epoch(5, 1)));
        assert!(matches!(effects.sends()[0].message, EpochMessage::Taken { .. }));
    }

    #[test]
    fn messages_and_the_hard_state_are_read_back() {
        let messages = [
            EpochMessage::Claim(epoch(1, 2)),
            EpochMessage::Kept(epoch(u64::MAX, 3)),
            EpochMessage::Taken { claim: epoch(4, 1), kept: FencingToken(9) },
        ];
        for message in messages {
            let bytes = message.to_bytes();
            assert_eq!(bytes.len(), message.wire_len());
            assert_eq!(EpochMessage::from_bytes(bytes), Ok(message));
        }
        assert!(Epoch::from_bytes(Bytes::from_static(b"short")).is_err());
        let state = Some(Bytes::from_static(b"short"));
        let membership = Membership::of_ids(1..=3).unwrap();
        let opened = Epochs::restored(NodeId(1), Incarnation(1), membership, Duration::from_secs(1), state);
        assert!(matches!(opened, Err(OpenError::HardState(_))));
    }
}
