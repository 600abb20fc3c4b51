//! What a node counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a node has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// How often the driver woke up to work.
    pub rounds: u64,
    /// Commands and reads taken up from handles.
    pub calls: u64,
    /// Envelopes handed to the transport: at most one per peer and flush.
    pub envelopes_sent: u64,
    /// Packets in them: messages of the protocol, forwarded commands, answers.
    pub packets_sent: u64,
    /// Bytes these envelopes take on the wire, framing excluded. 0 unless metering is on.
    pub bytes_sent: u64,
    /// Envelopes received.
    pub envelopes_received: u64,
    /// Write units handed to the storage.
    pub units_written: u64,
    /// Calls of [`synod_core::Storage::write`]: on a disk, each is one sync.
    pub storage_writes: u64,
    /// Bytes of entries and hard states in these units, framing excluded. 0 unless metering is on.
    pub bytes_written: u64,
}

/// The shared side of [`Metrics`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rounds: Counter,
    pub(crate) calls: Counter,
    pub(crate) envelopes_sent: Counter,
    pub(crate) packets_sent: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) envelopes_received: Counter,
    pub(crate) units_written: Counter,
    pub(crate) storage_writes: Counter,
    pub(crate) bytes_written: Counter,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Metrics {
        Metrics {
            rounds: self.rounds.value(),
            calls: self.calls.value(),
            envelopes_sent: self.envelopes_sent.value(),
            packets_sent: self.packets_sent.value(),
            bytes_sent: self.bytes_sent.value(),
            envelopes_received: self.envelopes_received.value(),
            units_written: self.units_written.value(),
            storage_writes: self.storage_writes.value(),
            bytes_written: self.bytes_written.value(),
        }
    }
}

/// A number that one thread raises and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// With a single writer, a load and a store are enough, and cheaper than a locked addition.
    pub(crate) fn add(&self, amount: usize) {
        self.0.store(self.value() + amount as u64, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
