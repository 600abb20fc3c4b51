//! The checks of a transport.

use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;

use super::post::{ATTEMPTS, Post, Woken, poll_once, shown};
use super::{Letter, TransportHarness};
use crate::conformance::ConformanceFailure;
use crate::{
    ClientId, Closed, Command, Envelope, Forward, ForwardReply, ForwardedQuery, GroupId, Inbound,
    Incarnation, Kind, NodeId, Packet, QueryOutcome, ReadMode, RequestId, RequestOutcome, Sequence, Wire,
};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const STRANGER: NodeId = NodeId(77);

/// Every kind of packet arrives as it was sent, byte by byte: empty and large bodies, a greeting without
/// packets, and numbers at their extremes.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn envelopes_arrive_unchanged(harness: &mut dyn TransportHarness) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("envelopes_arrive_unchanged", harness)?;
    let every_byte = Bytes::from((0..=255_u8).collect::<Vec<u8>>());
    let large = Bytes::from((0..=250_u8).cycle().take(post.body_bytes_max()).collect::<Vec<u8>>());
    let mut envelopes = Vec::new();
    for body in [Bytes::new(), Bytes::from_static(b"\0"), every_byte.clone(), large] {
        envelopes.push(post.letter(N1, body));
    }
    let greeting = Envelope { packets: Vec::new(), ..post.letter(N1, Bytes::new()) };
    envelopes.push(Envelope { from_incarnation: Incarnation(3), ..greeting.clone() });
    envelopes.push(Envelope {
        from: N1,
        from_incarnation: Incarnation(u64::MAX),
        to_incarnation: Incarnation(0),
        group: GroupId(u32::MAX),
        packets: every_packet(&every_byte),
    });
    for envelope in &envelopes {
        post.deliver(N1, N2, envelope)?;
    }
    Ok(())
}

/// A packet as long as the transport says that it carries arrives; of one without a limit, one of 16 MiB.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn what_is_called_the_longest_packet_arrives(
    harness: &mut dyn TransportHarness,
) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("what_is_called_the_longest_packet_arrives", harness)?;
    let limit = post.end(N1).packet_bytes_max().min(LONGEST_TRIED);
    let empty = Packet::Protocol(Letter { number: 0, body: Bytes::new() }).wire_len();
    let Some(len) = limit.checked_sub(empty) else {
        return post.fail(format!("packets of more than {limit} bytes are not carried: no message fits"));
    };
    let envelope = post.letter(N1, Bytes::from((0..=250_u8).cycle().take(len).collect::<Vec<u8>>()));
    post.deliver(N1, N2, &envelope)?;
    Ok(())
}

/// In bytes on the wire.
const LONGEST_TRIED: usize = 16 << 20;

/// What is sent to one node reaches no other.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn only_the_addressed_node_receives(
    harness: &mut dyn TransportHarness,
) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("only_the_addressed_node_receives", harness)?;
    for (from, to) in [(N1, N2), (N2, N3), (N3, N1), (N2, N1)] {
        let envelope = post.letter(from, Bytes::from_static(b"for one"));
        post.deliver(from, to, &envelope)?;
        for other in Post::NODES {
            for inbound in post.drain(other)? {
                if other != to || inbound.envelope != envelope {
                    return post.fail(format!("{other} received what was sent to {to}: {}", shown(&inbound)));
                }
            }
        }
    }
    post.end(N1).send(STRANGER, post_to_nobody());
    for node in Post::NODES {
        if let Some(inbound) = post.drain(node)?.first() {
            return post.fail(format!("{node} received what was sent to {STRANGER}: {}", shown(inbound)));
        }
    }
    Ok(())
}

/// The transport tells the node it received from, whatever the envelope says.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn the_sender_is_named(harness: &mut dyn TransportHarness) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("the_sender_is_named", harness)?;
    for from in [N1, N3, N1] {
        let envelope = post.letter(from, Bytes::from_static(b"signed"));
        for inbound in post.deliver(from, N2, &envelope)? {
            if inbound.from != inbound.envelope.from {
                return post.fail(format!("sent by {}, received {}", inbound.envelope.from, shown(&inbound)));
            }
        }
    }
    post.drain(N2)?;
    // It may refuse an envelope that lies about its sender, or name the true one.
    let lie = post.letter(N3, Bytes::from_static(b"forged"));
    post.end(N1).send(N2, lie);
    post.settle();
    for inbound in post.drain(N2)? {
        if inbound.from != N1 {
            return post.fail(format!("sent by {N1} in the name of {N3}, received {}", shown(&inbound)));
        }
    }
    Ok(())
}

/// Receiving leaves alone what the caller's vector already holds.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn receiving_appends(harness: &mut dyn TransportHarness) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("receiving_appends", harness)?;
    let kept = post.letter(N3, Bytes::from_static(b"kept"));
    let mut into = vec![Inbound { from: N3, envelope: kept.clone() }];
    let end = post.end(N2);
    for attempt in 0..ATTEMPTS {
        let envelope = post.letter(N1, Bytes::from_static(b"added"));
        post.end(N1).send(N2, envelope);
        post.settle();
        let open = if attempt % 2 == 0 {
            end.try_receive(&mut into).is_ok()
        } else {
            poll_once(&end, &mut into) != Poll::Ready(Err(Closed))
        };
        if !open {
            return post.fail(format!("{N2} is open and says that it is closed"));
        }
        if into.first().is_none_or(|first| first.envelope != kept) {
            return post.fail("what the vector held before is gone");
        }
    }
    if into.len() == 1 { post.fail("nothing was received") } else { Ok(()) }
}

/// A receive that waits is woken by what arrives, and then gives it.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_waiting_receive_is_woken(harness: &mut dyn TransportHarness) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("a_waiting_receive_is_woken", harness)?;
    let (sender, receiver) = (post.end(N1), post.end(N2));
    let mut into = Vec::new();
    let woken = Woken::new();
    {
        let mut receive = pin!(receiver.receive(&mut into));
        if woken.poll(receive.as_mut()).is_ready() {
            return post.fail("a receive ends although nothing was sent");
        }
        let mut outcome = Poll::Pending;
        for _ in 0..ATTEMPTS {
            let envelope = post.letter(N1, Bytes::from_static(b"wake up"));
            sender.send(N2, envelope);
            post.settle();
            if woken.take() {
                outcome = woken.poll(receive.as_mut());
            }
            if outcome.is_ready() {
                break;
            }
        }
        if outcome != Poll::Ready(Ok(())) {
            return post.fail(format!("after {ATTEMPTS} sends or fewer a waiting receive gives {outcome:?}"));
        }
    }
    if into.is_empty() { post.fail("a receive ended without an envelope") } else { Ok(()) }
}

/// A receive may be dropped at any time: what it had not handed over is received later.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn an_abandoned_receive_loses_nothing(
    harness: &mut dyn TransportHarness,
) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("an_abandoned_receive_loses_nothing", harness)?;
    let (sender, receiver) = (post.end(N1), post.end(N2));
    // The transport itself may lose, but not every time.
    for _ in 0..ATTEMPTS {
        let envelope = post.letter(N1, Bytes::from_static(b"not lost"));
        let mut into = Vec::new();
        {
            // Dropped while it waited, after something had arrived for it.
            let mut receive = pin!(receiver.receive(&mut into));
            if Woken::new().poll(receive.as_mut()).is_ready() {
                continue;
            }
            sender.send(N2, envelope.clone());
            post.settle();
        }
        // Dropped unpolled, and dropped after every poll.
        drop(receiver.receive(&mut into));
        for _ in 0..3 {
            if poll_once(&receiver, &mut into).is_ready() {
                break;
            }
            post.settle();
        }
        if into.iter().any(|inbound| inbound.envelope == envelope) {
            return Ok(());
        }
    }
    post.fail(format!("what arrived for an abandoned receive was lost, in each of {ATTEMPTS} attempts"))
}

/// Sends to a node that is down are lost without harm; once it is back, envelopes reach it again, and its
/// own reach the others.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_restarted_node_receives_again(harness: &mut dyn TransportHarness) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("a_restarted_node_receives_again", harness)?;
    for round in 0..3 {
        for (from, to) in [(N1, N2), (N2, N1), (N3, N2)] {
            let envelope = post.letter(from, Bytes::from(format!("round {round}")));
            post.deliver(from, to, &envelope)?;
        }
        post.stop(N2);
        post.settle();
        let lost = post.letter(N1, Bytes::from_static(b"to a node that is down"));
        post.send_many(N1, N2, &lost, 100)?;
        post.settle();
        let beside = post.letter(N1, Bytes::from_static(b"beside it"));
        post.deliver(N1, N3, &beside)?;
        post.restart(N2);
    }
    for (from, to) in [(N1, N2), (N2, N1), (N2, N3)] {
        let envelope = post.letter(from, Bytes::from_static(b"after all"));
        post.deliver(from, to, &envelope)?;
    }
    Ok(())
}

/// A transport that is shut down and drained says [`Closed`], to a receive that waits as well, and takes
/// sends without harm.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_closed_transport_says_so(harness: &mut dyn TransportHarness) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("a_closed_transport_says_so", harness)?;
    let end = post.end(N2);
    let mut into = Vec::new();
    {
        let woken = Woken::new();
        let mut receive = pin!(end.receive(&mut into));
        if woken.poll(receive.as_mut()) != Poll::Pending {
            return post.fail("a receive ends although nothing was sent");
        }
        post.close(N2);
        for _ in 0..ATTEMPTS {
            if woken.take() {
                break;
            }
            post.settle();
        }
        match woken.poll(receive.as_mut()) {
            Poll::Ready(Err(Closed)) => {}
            other => return post.fail(format!("a receive that waits while it is closed gives {other:?}")),
        }
    }
    let late = post.letter(N2, Bytes::from_static(b"too late"));
    post.send_many(N2, N1, &late, 10)?;
    for _ in 0..2 {
        if poll_once(&end, &mut into) != Poll::Ready(Err(Closed)) {
            return post.fail("a receive after the end does not say that the transport is closed");
        }
        if end.try_receive(&mut into).is_ok() {
            return post.fail("try_receive after the end does not say that the transport is closed");
        }
    }
    if into.is_empty() {
        Ok(())
    } else {
        post.fail(format!("nothing was sent, received {}", shown(&into[0])))
    }
}

/// A send returns whether its receiver receives, is down, or does not exist.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_send_never_blocks(harness: &mut dyn TransportHarness) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("a_send_never_blocks", harness)?;
    let count = 2 * post.queue_envelopes_max();
    let letter = post.letter(N1, Bytes::from(vec![1; 1024]));
    post.send_many(N1, STRANGER, &letter, count)?;
    post.stop(N3);
    post.send_many(N1, N3, &letter, count)?;
    post.send_many(N1, N2, &letter, count)
}

/// A node that does not receive costs a bounded amount: what does not fit is dropped. Once it receives,
/// new envelopes reach it.
///
/// # Errors
/// [`ConformanceFailure`] if the claim does not hold.
pub fn a_receiver_that_does_not_receive_is_bounded(
    harness: &mut dyn TransportHarness,
) -> Result<(), ConformanceFailure> {
    let mut post = Post::connect("a_receiver_that_does_not_receive_is_bounded", harness)?;
    let bound = post.queue_envelopes_max();
    let letter = post.letter(N1, Bytes::from(vec![1; 1024]));
    post.send_many(N1, N2, &letter, 2 * bound)?;
    post.settle();
    let kept = post.drain(N2)?.len();
    if kept >= bound {
        return post.fail(format!(
            "{} envelopes were sent while nobody received, and {kept} were kept; at most {bound} may be",
            2 * bound
        ));
    }
    let after = post.letter(N1, Bytes::from_static(b"after the jam"));
    post.deliver(N1, N2, &after)?;
    Ok(())
}

/// One packet of every kind and outcome.
fn every_packet(bytes: &Bytes) -> Vec<Packet<Letter>> {
    let request = RequestId {
        client: ClientId(u64::MAX),
        sequence: Sequence(u64::MAX - 1),
        first_incomplete: Sequence(1),
    };
    let command = |kind| Command { kind, request, payload: bytes.clone() };
    let forward = Forward {
        origin: N1,
        hops_left: u8::MAX,
        commands: vec![command(Kind::Command), command(Kind::Session)],
        queries: vec![
            ForwardedQuery { id: u64::MAX, mode: ReadMode::Lease, query: bytes.clone() },
            ForwardedQuery { id: 0, mode: ReadMode::Barrier, query: Bytes::new() },
        ],
    };
    let outcomes = [
        RequestOutcome::Applied(bytes.clone()),
        RequestOutcome::Applied(Bytes::new()),
        RequestOutcome::SessionExpired,
        RequestOutcome::OutOfOrder,
        RequestOutcome::BeyondWindow,
        RequestOutcome::Refused,
        RequestOutcome::TooLarge,
        RequestOutcome::ReplyTooLong,
    ];
    let answers =
        [QueryOutcome::Answer(bytes.clone()), QueryOutcome::Failed(Bytes::new()), QueryOutcome::Refused];
    let reply = ForwardReply {
        commands: (1..).zip(outcomes).map(|(at, outcome)| (ClientId(at), Sequence(at), outcome)).collect(),
        queries: (1..).zip(answers).collect(),
    };
    vec![
        Packet::Protocol(Letter { number: u64::MAX, body: bytes.clone() }),
        Packet::Forward(forward),
        Packet::ForwardReply(reply),
        Packet::ForwardReply(ForwardReply::default()),
        Packet::Protocol(Letter { number: 0, body: Bytes::new() }),
    ]
}

fn post_to_nobody() -> Envelope<Letter> {
    Envelope {
        from: N1,
        from_incarnation: Incarnation(1),
        to_incarnation: Incarnation(1),
        group: GroupId(0),
        packets: vec![Packet::Protocol(Letter { number: 0, body: Bytes::from_static(b"to nobody") })],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wire;

    #[test]
    fn the_envelopes_of_the_suite_can_be_carried_as_bytes() {
        let envelope = Envelope { packets: every_packet(&Bytes::from_static(b"\0\xff")), ..post_to_nobody() };
        assert_eq!(Envelope::from_bytes(envelope.to_bytes()), Ok(envelope));
    }
}
