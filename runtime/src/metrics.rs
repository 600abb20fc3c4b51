//! What a node counts.

use std::sync::atomic::{AtomicU64, Ordering};

use synod_replica::SnapshotCounters;

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
    /// Snapshots taken here. This and what follows is a few milliseconds old at most, as the status is.
    pub snapshots_taken: u64,
    /// Snapshots sent whole to a peer.
    pub snapshots_sent: u64,
    /// Bytes of snapshots sent, repetitions included.
    pub snapshot_bytes_sent: u64,
    /// Snapshots of peers that took the place of the log here.
    pub snapshots_installed: u64,
    /// Attempts to take, send, receive or delete a snapshot that failed. They are tried again.
    pub snapshots_failed: u64,
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
    snapshots_taken: Counter,
    snapshots_sent: Counter,
    snapshot_bytes_sent: Counter,
    pub(crate) snapshots_installed: Counter,
    snapshots_failed: Counter,
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
            snapshots_taken: self.snapshots_taken.value(),
            snapshots_sent: self.snapshots_sent.value(),
            snapshot_bytes_sent: self.snapshot_bytes_sent.value(),
            snapshots_installed: self.snapshots_installed.value(),
            snapshots_failed: self.snapshots_failed.value(),
        }
    }

    pub(crate) fn count_snapshots(&self, counted: &SnapshotCounters) {
        self.snapshots_taken.set(counted.taken);
        self.snapshots_sent.set(counted.sent);
        self.snapshot_bytes_sent.set(counted.bytes_sent);
        self.snapshots_installed.set(counted.installed);
        self.snapshots_failed.set(counted.failed);
    }
}

/// A number that one thread raises and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// With a single writer, a load and a store are enough, and cheaper than a locked addition.
    pub(crate) fn add(&self, amount: usize) {
        self.set(self.value() + amount as u64);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
