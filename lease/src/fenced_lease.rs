//! PaxosLease with a token: a lease in memory, and one durable number for each change of hands.

use std::fmt;

use bytes::{BufMut, BytesMut};
use synod_core::{DecodeError, Effects, Input, Instant, Machine, NodeId, OpenError, Start, Wire, WireReader};

use crate::FencingToken;
use crate::epochs::{EpochMessage, Epochs};
use crate::paxos_lease::{LeaseCall, LeaseCounters, LeaseEvent, Message, PaxosLease, PaxosLeaseConfig};

/// [`PaxosLease`], whose holder claims the next epoch of a majority before it is told that it holds the lease.
///
/// The lease itself stays as it is: no renewal waits for a disk. Where a clock breaks its bound two replicas may hold
/// the lease at once; their tokens differ, and a resource that checks them is safe.
#[derive(Clone, Debug)]
pub struct FencedLease {
    lease: PaxosLease,
    epochs: Epochs,
    /// What the lease asks for, on its way out.
    inner: Effects<Message, LeaseEvent>,
    tenure: Tenure,
}

/// How this replica stands to the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tenure {
    None,
    /// Held, and the token is being claimed: nobody was told.
    Claiming {
        until: Instant,
    },
    Told {
        token: FencingToken,
    },
}

/// What the host is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FencedEvent {
    /// The lease is held, or held for longer.
    Held {
        /// Whoever acts on it must have stopped by then, by the clock of this node.
        until: Instant,
        /// Higher than that of every holder before; a renewal keeps it.
        token: FencingToken,
    },
    /// It is not held any more.
    Lost,
}

/// Everything replicas say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FencedMessage {
    /// About the lease.
    Lease(Message),
    /// About the token.
    Epoch(EpochMessage),
}

impl fmt::Display for FencedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FencedMessage::Lease(message) => message.fmt(f),
            FencedMessage::Epoch(message) => message.fmt(f),
        }
    }
}

type Asked = Effects<FencedMessage, FencedEvent>;

const EPOCH: fn(EpochMessage) -> FencedMessage = FencedMessage::Epoch;

impl Machine for FencedLease {
    type Config = PaxosLeaseConfig;
    type Message = FencedMessage;
    type Call = LeaseCall;
    type Event = FencedEvent;

    fn open(mut start: Start<PaxosLeaseConfig>) -> Result<FencedLease, OpenError> {
        let hard_state = start.recovered.hard_state.take();
        let epochs = Epochs::restored(
            start.node,
            start.recovered.incarnation,
            start.membership.clone(),
            start.config.retry_after(),
            hard_state,
        )?;
        let lease = PaxosLease::open(start)?;
        Ok(FencedLease { lease, epochs, inner: Effects::new(), tenure: Tenure::None })
    }

    fn step(&mut self, now: Instant, input: Input<FencedMessage, LeaseCall>, effects: &mut Asked) {
        let claimed = match input {
            Input::Receive { from, message: FencedMessage::Lease(message) } => {
                self.lease(now, Input::Receive { from, message }, effects);
                None
            }
            Input::Receive { from, message: FencedMessage::Epoch(message) } => {
                self.lease(now, Input::Tick, effects);
                self.epochs.receive(now, from, message, EPOCH, effects)
            }
            Input::Persisted(through) => {
                self.lease(now, Input::Tick, effects);
                self.epochs.persisted(through)
            }
            Input::Call(call) => {
                self.lease(now, Input::Call(call), effects);
                None
            }
            Input::Tick => {
                self.lease(now, Input::Tick, effects);
                self.epochs.tick(now, EPOCH, effects);
                None
            }
            // Nothing is loaded.
            Input::Loaded { .. } => None,
        };
        if let (Some(token), Tenure::Claiming { until }) = (claimed, self.tenure) {
            self.tenure = Tenure::Told { token };
            effects.event(FencedEvent::Held { until, token });
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        Instant::earlier(self.lease.next_deadline(), self.epochs.next_deadline())
    }
}

impl FencedLease {
    /// Steps the lease and passes on what it asks for.
    fn lease(&mut self, now: Instant, input: Input<Message, LeaseCall>, effects: &mut Asked) {
        let mut inner = std::mem::replace(&mut self.inner, Effects::new());
        self.lease.step(now, input, &mut inner);
        for send in inner.drain_sends() {
            effects.send(send.to, FencedMessage::Lease(send.message));
        }
        for event in inner.drain_events() {
            self.on_event(now, event, effects);
        }
        self.inner = inner;
    }

    fn on_event(&mut self, now: Instant, event: LeaseEvent, effects: &mut Asked) {
        match (event, self.tenure) {
            (LeaseEvent::Held { until }, Tenure::Told { token }) => {
                effects.event(FencedEvent::Held { until, token });
            }
            (LeaseEvent::Held { until }, Tenure::Claiming { .. }) => self.tenure = Tenure::Claiming { until },
            (LeaseEvent::Held { until }, Tenure::None) => {
                self.tenure = Tenure::Claiming { until };
                self.epochs.claim(now, EPOCH, effects);
            }
            (LeaseEvent::Lost, tenure) => {
                self.epochs.abandon();
                self.tenure = Tenure::None;
                if let Tenure::Told { .. } = tenure {
                    effects.event(FencedEvent::Lost);
                }
            }
        }
    }

    /// The token under which this replica holds the lease now; none if it may not act.
    #[must_use]
    pub fn token(&self, now: Instant) -> Option<FencingToken> {
        match self.tenure {
            Tenure::Told { token } if self.lease.remaining(now).is_some() => Some(token),
            _ => None,
        }
    }

    /// Until when this replica holds the lease, whether or not it has a token yet; none if it does not.
    #[must_use]
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.lease.remaining(now).map(|remaining| now + remaining)
    }

    /// Whom this replica remembers as the holder, and until when; with the token if this replica keeps that too. A hint:
    /// only the holder knows that it is one.
    #[must_use]
    pub fn remembered(&self, now: Instant) -> Option<(NodeId, Instant, Option<FencingToken>)> {
        let (node, until) = self.lease.remembered(now)?;
        let token = (self.epochs.kept_for() == Some(node)).then(|| self.epochs.kept());
        Some((node, until, token))
    }

    /// The highest token that this replica keeps, whoever holds it.
    #[must_use]
    pub fn epoch(&self) -> FencingToken {
        self.epochs.kept()
    }

    /// What happened to the lease so far.
    #[must_use]
    pub fn counters(&self) -> LeaseCounters {
        self.lease.counters()
    }
}

const LEASE: u8 = 0;
const TOKEN: u8 = 1;

/// A byte that says what it is about, then the message.
impl Wire for FencedMessage {
    fn wire_len(&self) -> usize {
        1 + match self {
            FencedMessage::Lease(message) => message.wire_len(),
            FencedMessage::Epoch(message) => message.wire_len(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            FencedMessage::Lease(message) => {
                out.put_u8(LEASE);
                message.encode(out);
            }
            FencedMessage::Epoch(message) => {
                out.put_u8(TOKEN);
                message.encode(out);
            }
        }
    }

    fn decode(from: &mut WireReader) -> Result<FencedMessage, DecodeError> {
        Ok(match from.u8()? {
            LEASE => FencedMessage::Lease(Message::decode(from)?),
            TOKEN => FencedMessage::Epoch(EpochMessage::decode(from)?),
            value => {
                return Err(DecodeError::Unknown { what: "fenced lease message", value: u64::from(value) });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use synod_core::{Membership, Recovered};

    use super::*;

    fn alone() -> FencedLease {
        let start = Start {
            node: NodeId(1),
            membership: Membership::of_ids([1]).unwrap(),
            config: PaxosLease::config().length(Duration::from_secs(5)),
            recovered: Recovered::default(),
            now: Instant::ZERO,
            seed: 1,
        };
        FencedLease::open(start).unwrap()
    }

    fn step(machine: &mut FencedLease, at_ms: u64, input: Input<FencedMessage, LeaseCall>) -> Asked {
        let mut effects = Asked::new();
        machine.step(Instant(at_ms * 1_000_000), input, &mut effects);
        effects
    }

    #[test]
    fn the_holder_is_told_once_its_token_is_durable_and_a_renewal_keeps_it() {
        let mut machine = alone();
        let mut effects = step(&mut machine, 7_000, Input::Call(LeaseCall::Acquire));
        let unit = effects.settle().expect("the epoch is written");
        assert_eq!(effects.drain_events().count(), 0, "not before it is durable");
        assert_eq!(machine.token(Instant(7_000_000_000)), None);

        let mut effects = step(&mut machine, 7_001, Input::Persisted(unit.id));
        let events: Vec<FencedEvent> = effects.drain_events().collect();
        assert!(matches!(events[..], [FencedEvent::Held { token: FencingToken(1), .. }]), "{events:?}");
        let remembered = machine.remembered(Instant(7_001_000_000));
        assert_eq!(remembered, Some((NodeId(1), Instant(12_000_000_000), Some(FencingToken(1)))));

        let mut effects = step(&mut machine, 10_000, Input::Tick);
        assert!(effects.settle().is_none(), "a renewal writes nothing");
        let events: Vec<FencedEvent> = effects.drain_events().collect();
        assert!(matches!(events[..], [FencedEvent::Held { token: FencingToken(1), .. }]), "{events:?}");
    }

    #[test]
    fn a_token_that_comes_after_the_lease_has_ended_is_nobodys() {
        let mut machine = alone();
        let mut effects = step(&mut machine, 7_000, Input::Call(LeaseCall::Acquire));
        let unit = effects.settle().expect("the epoch is written");
        step(&mut machine, 7_100, Input::Call(LeaseCall::Release));
        let mut effects = step(&mut machine, 7_200, Input::Persisted(unit.id));
        assert_eq!(effects.drain_events().count(), 0);
        assert_eq!(machine.epoch(), FencingToken(1));
    }

    #[test]
    fn messages_are_read_back() {
        let mut machine = alone();
        machine.epochs = Epochs::restored(
            NodeId(1),
            synod_core::Incarnation(1),
            Membership::of_ids([1, 2]).unwrap(),
            Duration::from_secs(1),
            None,
        )
        .unwrap();
        let mut effects = Asked::new();
        machine.epochs.claim(Instant::ZERO, EPOCH, &mut effects);
        let message = effects.sends()[0].message;
        assert_eq!(FencedMessage::from_bytes(message.to_bytes()), Ok(message));
        assert!(FencedMessage::from_bytes(bytes::Bytes::from_static(&[2])).is_err());
    }
}
