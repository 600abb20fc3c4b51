//! The settings of a replica.

use std::time::Duration;

use synod_core::{ClockBound, ConfigError, ProtocolConfig, entries_message_bytes_max};

use crate::MultiPaxos;

/// The settings of one replica. Replicas of a cluster may differ in all of them.
///
/// ```
/// use std::time::Duration;
/// use synod_core::ProtocolConfig;
/// use synod_multipaxos::MultiPaxos;
///
/// let config = MultiPaxos::config().election_timeout(Duration::from_millis(300));
/// assert!(config.validate().is_ok());
/// let hasty = config.heartbeat_interval(Duration::from_millis(200));
/// assert_eq!(hasty.validate().unwrap_err().setting, "heartbeat_interval");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiPaxosConfig {
    pub(crate) election_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) commit_notice_delay: Duration,
    pub(crate) learn_delay: Duration,
    pub(crate) window_entries_max: usize,
    pub(crate) window_bytes_max: usize,
    pub(crate) accept_entries_max: usize,
    pub(crate) accept_bytes_max: usize,
    pub(crate) undecided_entries_max: usize,
    pub(crate) undecided_bytes_max: usize,
    pub(crate) ahead_entries_max: usize,
    pub(crate) tail_bytes_max: usize,
    pub(crate) votes_to_all: bool,
    pub(crate) lease_reads: Option<ClockBound>,
}

impl Default for MultiPaxosConfig {
    fn default() -> MultiPaxosConfig {
        MultiPaxosConfig {
            election_timeout: Duration::from_millis(150),
            heartbeat_interval: Duration::from_millis(50),
            commit_notice_delay: Duration::from_millis(5),
            learn_delay: Duration::from_millis(5),
            window_entries_max: 16 * 1024,
            window_bytes_max: 16 << 20,
            accept_entries_max: 4096,
            accept_bytes_max: 1 << 20,
            undecided_entries_max: 64 * 1024,
            undecided_bytes_max: 64 << 20,
            ahead_entries_max: 256 * 1024,
            tail_bytes_max: 16 << 20,
            votes_to_all: false,
            lease_reads: None,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        impl MultiPaxosConfig {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, $name: $type) -> MultiPaxosConfig {
                    self.$name = $name;
                    self
                }
            )*
        }
    };
}

setters! {
    /// The shortest time without a leader after which a replica campaigns. Each wait is drawn from
    /// `[timeout, 2 * timeout)`; every campaign that was lost doubles what is drawn, up to sixteen times. A
    /// leader that hears no replication quorum for this long steps down. Default 150 ms.
    election_timeout: Duration,
    /// How often a leader says that it lives, and a candidate asks again. Below half the election timeout; a
    /// third is usual. Default 50 ms.
    heartbeat_interval: Duration,
    /// How long a leader waits for an accept that could carry a new watermark to a peer, before it sends the
    /// watermark alone. Default 5 ms.
    commit_notice_delay: Duration,
    /// How long a replica waits for votes under way that would close a hole below a watermark it was told,
    /// before it asks a peer for the decided values. Default 5 ms.
    learn_delay: Duration,
    /// How many entries may be on their way to one peer. Default 16,384.
    window_entries_max: usize,
    /// How many bytes of entries may be on their way to one peer. Default 16 MiB.
    window_bytes_max: usize,
    /// How many entries one accept brings. Default 4,096.
    accept_entries_max: usize,
    /// How many bytes of entries one accept, one chunk of a promise or one answer to a learner brings; a larger
    /// entry travels alone. Default 1 MiB.
    accept_bytes_max: usize,
    /// How many entries may be undecided, or not on its own disk yet, before a leader refuses proposals.
    /// Default 65,536.
    undecided_entries_max: usize,
    /// How many bytes of them, before a leader refuses proposals. Default 64 MiB.
    undecided_bytes_max: usize,
    /// How many slots above its own watermark an acceptor votes: a replica that is further behind learns first.
    /// It bounds what a promise can report. At least `undecided_entries_max`. Default 262,144.
    ahead_entries_max: usize,
    /// How many bytes of entries that it proposed a leader keeps in memory for slow peers once they are decided;
    /// a peer that needs older ones learns them instead. Default 16 MiB.
    tail_bytes_max: usize,
    /// True if acceptors are asked to tell their votes to every replica and not to this one alone, while this one leads.
    /// A command proposed elsewhere is then answered there after three message delays and not four, for `(n - 1)(n - 2)`
    /// more messages; a read waits for all that was proposed before it. Default false.
    votes_to_all: bool,
}

impl MultiPaxosConfig {
    /// Lets a leader answer [`ReadMode::Lease`](synod_core::ReadMode) without asking anybody, for as long as it knows from
    /// its heartbeats that nobody else can be elected: about one election timeout from the start of a round that a
    /// quorum answered, less what `clocks` takes off. Off by default.
    ///
    /// Such a read is linearizable if every clock keeps to `clocks`; any other read and every write is whatever clocks
    /// do. To be turned on at every replica, with one election timeout: then each replica that heard a leader promises
    /// nothing to anybody else for an election timeout, in no ballot, and one that was started again promises nothing
    /// for as long. A replica where it is off gives no lease. (Paxos Made Live, section 5.2.)
    #[must_use]
    pub fn lease_reads(mut self, clocks: ClockBound) -> MultiPaxosConfig {
        self.lease_reads = Some(clocks);
        self
    }

    /// For how long a replica that heard a leader helps nobody else to lead; zero without lease reads.
    pub(crate) fn loyalty(&self) -> Duration {
        if self.lease_reads.is_some() { self.election_timeout } else { Duration::ZERO }
    }
}

impl ProtocolConfig for MultiPaxosConfig {
    type Protocol = MultiPaxos;

    const NAME: &'static str = "multipaxos";

    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |setting, problem| Err(ConfigError { setting, problem });
        if self.election_timeout.is_zero() {
            return wrong("election_timeout", "must be above zero");
        }
        if self.election_timeout > TIMEOUT_MAX {
            return wrong("election_timeout", "must be at most one day");
        }
        if self.heartbeat_interval.is_zero() {
            return wrong("heartbeat_interval", "must be above zero");
        }
        if self.heartbeat_interval.saturating_mul(2) >= self.election_timeout {
            return wrong("heartbeat_interval", "must be below half the election timeout");
        }
        let bounds = [
            ("window_entries_max", self.window_entries_max),
            ("window_bytes_max", self.window_bytes_max),
            ("accept_entries_max", self.accept_entries_max),
            ("accept_bytes_max", self.accept_bytes_max),
            ("undecided_entries_max", self.undecided_entries_max),
            ("undecided_bytes_max", self.undecided_bytes_max),
            ("tail_bytes_max", self.tail_bytes_max),
        ];
        if let Some((setting, _)) = bounds.iter().find(|(_, bound)| *bound == 0) {
            return wrong(setting, "must be above zero");
        }
        if self.ahead_entries_max < self.undecided_entries_max {
            return wrong("ahead_entries_max", "must be at least undecided_entries_max");
        }
        if self.ahead_entries_max > AHEAD_ENTRIES_MAX {
            return wrong("ahead_entries_max", "must be at most 2^20");
        }
        if self.lease_reads.is_some_and(|clocks| clocks.held(self.election_timeout).is_zero()) {
            return wrong("lease_reads", "must leave something of an election timeout");
        }
        Ok(())
    }

    fn message_bytes_max(&self, payload_bytes_max: usize) -> usize {
        entries_message_bytes_max(self.accept_bytes_max, payload_bytes_max)
    }

    fn retry_after(&self) -> Duration {
        self.election_timeout * 4
    }
}

/// Beyond this, arithmetic on timeouts would need care and nobody would wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// No acceptor votes further above its watermark than this; so a promise that tells of votes further above than this
/// and what a restart may forget of a watermark is wrong.
pub(crate) const AHEAD_ENTRIES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_cannot_be_used_is_named() {
        let ok = MultiPaxosConfig::default;
        assert_eq!(ok().validate(), Ok(()));
        assert!(ok().heartbeat_interval(Duration::from_millis(74)).validate().is_ok());
        let ms = Duration::from_millis;
        let wrong = [
            (ok().election_timeout(ms(0)), "election_timeout"),
            (ok().election_timeout(Duration::MAX), "election_timeout"),
            (ok().heartbeat_interval(ms(0)), "heartbeat_interval"),
            (ok().heartbeat_interval(ms(75)), "heartbeat_interval"),
            (ok().window_entries_max(0), "window_entries_max"),
            (ok().window_bytes_max(0), "window_bytes_max"),
            (ok().accept_entries_max(0), "accept_entries_max"),
            (ok().accept_bytes_max(0), "accept_bytes_max"),
            (ok().undecided_entries_max(0), "undecided_entries_max"),
            (ok().undecided_bytes_max(0), "undecided_bytes_max"),
            (ok().tail_bytes_max(0), "tail_bytes_max"),
            (ok().ahead_entries_max(65_535), "ahead_entries_max"),
            (ok().ahead_entries_max(usize::MAX), "ahead_entries_max"),
            (ok().lease_reads(ClockBound::new(0, ms(150)).unwrap()), "lease_reads"),
        ];
        for (config, setting) in wrong {
            assert_eq!(config.validate().unwrap_err().setting, setting);
        }
    }
}
