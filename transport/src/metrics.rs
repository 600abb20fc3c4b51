//! What a transport has done and refused, counted since it was bound.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::handshake::Refusal;

/// Counters at one moment; from [`TcpMonitor::metrics`](crate::TcpMonitor::metrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpMetrics {
    /// Connections made to peers.
    pub dialed: u64,
    /// Attempts to connect that failed before any answer.
    pub dials_failed: u64,
    /// Connections taken from peers.
    pub accepted: u64,
    /// Connections refused here, by reason.
    pub refused: Refusals,
    /// Connections to peers that were refused there, by the reason they gave.
    pub refused_by_peers: Refusals,
    /// Connections that came to an end after the handshake, by cause.
    pub lost: Losses,
    /// Envelopes written to a connection or queued for it.
    pub frames_sent: u64,
    /// Bytes handed to the operating system, or to encryption.
    pub bytes_sent: u64,
    /// Writes by which they were handed over.
    pub writes: u64,
    /// Envelopes received.
    pub frames_received: u64,
    /// Bytes received, decrypted.
    pub bytes_received: u64,
    /// Envelopes dropped because a queue was full.
    pub dropped_full: u64,
    /// Envelopes dropped because there is no connection, or it came to an end before they were written.
    pub dropped_down: u64,
    /// Packets dropped because they are longer than a frame may be.
    pub dropped_too_long: u64,
}

/// Why a connection came to an end after its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// The other end closed it.
    #[error("closed by the peer")]
    Closed,
    /// The operating system says so.
    #[error("reset, or another error of the socket")]
    Broken,
    /// It gave no sign of life.
    #[error("no sign of life")]
    Silent,
    /// It took nothing of what waited for it.
    #[error("the peer does not read")]
    Stalled,
    /// A frame was longer than the limit.
    #[error("a frame above the limit")]
    TooLong,
    /// A checksum did not match.
    #[error("a corrupt frame")]
    Corrupt,
    /// The bytes of a frame were no envelope.
    #[error("a frame that is no envelope")]
    Undecodable,
    /// A newer connection or a newer life of the peer took its place, or it is no peer any more.
    #[error("replaced")]
    Replaced,
}

impl Loss {
    /// Every cause.
    pub const ALL: [Loss; 8] = [
        Loss::Closed,
        Loss::Broken,
        Loss::Silent,
        Loss::Stalled,
        Loss::TooLong,
        Loss::Corrupt,
        Loss::Undecodable,
        Loss::Replaced,
    ];
}

/// How often each [`Refusal`] was given.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals([u64; Refusal::ALL.len()]);

impl Refusals {
    /// How often this one.
    #[must_use]
    pub fn of(&self, reason: Refusal) -> u64 {
        self.0[reason as usize]
    }

    /// How often any.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Refusal::ALL.iter().zip(self.0).filter(|(_, count)| *count > 0)).finish()
    }
}

/// How often each [`Loss`] happened.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses([u64; Loss::ALL.len()]);

impl Losses {
    /// How often this one.
    #[must_use]
    pub fn of(&self, cause: Loss) -> u64 {
        self.0[cause as usize]
    }

    /// How often any.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Debug for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Loss::ALL.iter().zip(self.0).filter(|(_, count)| *count > 0)).finish()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dialed: Counter,
    pub(crate) dials_failed: Counter,
    pub(crate) accepted: Counter,
    refused: [Counter; Refusal::ALL.len()],
    refused_by_peers: [Counter; Refusal::ALL.len()],
    lost: [Counter; Loss::ALL.len()],
    pub(crate) frames_sent: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) writes: Counter,
    pub(crate) frames_received: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) dropped_full: Counter,
    pub(crate) dropped_down: Counter,
    pub(crate) dropped_too_long: Counter,
}

impl Counters {
    pub(crate) fn refused(&self, reason: Refusal) {
        self.refused[reason as usize].add(1);
    }

    pub(crate) fn refused_by_peer(&self, reason: Refusal) {
        self.refused_by_peers[reason as usize].add(1);
    }

    pub(crate) fn lost(&self, cause: Loss) {
        self.lost[cause as usize].add(1);
    }

    pub(crate) fn snapshot(&self) -> TcpMetrics {
        TcpMetrics {
            dialed: self.dialed.read(),
            dials_failed: self.dials_failed.read(),
            accepted: self.accepted.read(),
            refused: Refusals(self.refused.each_ref().map(Counter::read)),
            refused_by_peers: Refusals(self.refused_by_peers.each_ref().map(Counter::read)),
            lost: Losses(self.lost.each_ref().map(Counter::read)),
            frames_sent: self.frames_sent.read(),
            bytes_sent: self.bytes_sent.read(),
            writes: self.writes.read(),
            frames_received: self.frames_received.read(),
            bytes_received: self.bytes_received.read(),
            dropped_full: self.dropped_full.read(),
            dropped_down: self.dropped_down.read(),
            dropped_too_long: self.dropped_too_long.read(),
        }
    }
}
