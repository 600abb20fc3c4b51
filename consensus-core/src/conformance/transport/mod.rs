//! The suite for transports: what [`crate::Transport`] promises, one check per sentence.
//!
//! Order is not promised, and neither is delivery: every check sends again what may have been lost, and
//! allows for repetition.

mod checks;
mod letter;
mod post;

use std::sync::Arc;
use std::time::Duration;

use super::{Check, ConformanceFailure, Report, checks, run_checks};
use crate::{NodeId, Transport};

pub use checks::{
    a_closed_transport_says_so, a_receiver_that_does_not_receive_is_bounded, a_restarted_node_receives_again,
    a_send_never_blocks, a_waiting_receive_is_woken, an_abandoned_receive_loses_nothing,
    envelopes_arrive_unchanged, only_the_addressed_node_receives, receiving_appends, the_sender_is_named,
    what_is_called_the_longest_packet_arrives,
};
pub use letter::Letter;

/// A transport that carries letters.
pub type LetterTransport = Arc<dyn Transport<Letter>>;

/// Connects and restarts the nodes under test, and lets time pass.
pub trait TransportHarness {
    /// A new network of these nodes, opened, every one knowing every other as a peer, in their order. The
    /// network made before is not used any more.
    fn connect(&mut self, nodes: &[NodeId]) -> Vec<LetterTransport>;

    /// The node's endpoint was dropped, as in a crash: a new one in its place, opened for the node's next
    /// life and known to its peers.
    fn restart(&mut self, node: NodeId) -> LetterTransport;

    /// Shuts the node's endpoint down while the suite still holds it.
    fn close(&mut self, node: NodeId);

    /// Returns once what was sent had time to arrive: at once for a transport that delivers in `send`,
    /// after some milliseconds for one with tasks and sockets. Called a hundred times in a row at most.
    fn settle(&mut self);

    /// More envelopes of 1 KiB than all queues from one node to another can hold, the operating system's
    /// included. The suite sends twice as many and expects fewer than this to arrive.
    fn queue_envelopes_max(&self) -> usize {
        100_000
    }

    /// The size of the largest body to be carried, in bytes.
    fn body_bytes_max(&self) -> usize {
        1 << 20
    }

    /// How long sending many envelopes may take before it counts as blocked.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}

/// What a check needs of its harness.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
}

type Run = fn(&mut dyn TransportHarness) -> Result<(), ConformanceFailure>;

const CHECKS: &[Check<Needs, Run>] = checks![
    Nothing:
        envelopes_arrive_unchanged,
        what_is_called_the_longest_packet_arrives,
        only_the_addressed_node_receives,
        the_sender_is_named,
        receiving_appends,
        a_waiting_receive_is_woken,
        an_abandoned_receive_loses_nothing,
        a_restarted_node_receives_again,
        a_closed_transport_says_so,
        a_send_never_blocks,
        a_receiver_that_does_not_receive_is_bounded;
];

/// Runs every check, each on a network of its own.
pub fn run_all(harness: &mut dyn TransportHarness) -> Report {
    run_checks(CHECKS, |check| {
        let Needs::Nothing = check.needs;
        Some((check.run)(harness))
    })
}
