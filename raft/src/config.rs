//! The settings of a replica, and their validation.

use std::time::Duration;

use synod_core::{ClockBound, ConfigError, ProtocolConfig, entries_message_bytes_max};

use crate::Raft;

/// The settings of [`Raft`]. Made by [`Raft::config`], changed by setters, checked when a replica is opened.
///
/// ```
/// use std::time::Duration;
/// use synod_core::ProtocolConfig as _;
/// use synod_raft::Raft;
///
/// let config = Raft::config().election_timeout(Duration::from_millis(300));
/// assert!(config.validate().is_ok());
/// let hasty = config.heartbeat_interval(Duration::from_millis(200));
/// assert_eq!(hasty.validate().unwrap_err().setting, "heartbeat_interval");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    pub(crate) election_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) commit_notice_delay: Duration,
    pub(crate) window_entries_max: usize,
    pub(crate) window_bytes_max: usize,
    pub(crate) append_entries_max: usize,
    pub(crate) append_bytes_max: usize,
    pub(crate) uncommitted_entries_max: usize,
    pub(crate) uncommitted_bytes_max: usize,
    pub(crate) tail_bytes_max: usize,
    pub(crate) lease_reads: Option<ClockBound>,
}

impl Default for RaftConfig {
    fn default() -> RaftConfig {
        RaftConfig {
            election_timeout: Duration::from_millis(150),
            heartbeat_interval: Duration::from_millis(50),
            commit_notice_delay: Duration::from_millis(5),
            window_entries_max: 16 * 1024,
            window_bytes_max: 16 << 20,
            append_entries_max: 4096,
            append_bytes_max: 1 << 20,
            uncommitted_entries_max: 64 * 1024,
            uncommitted_bytes_max: 64 << 20,
            tail_bytes_max: 2 << 20,
            lease_reads: None,
        }
    }
}

impl RaftConfig {
    /// For how long a replica that heard a leader promises to elect nobody else; zero without lease reads.
    pub(crate) fn loyalty(&self) -> Duration {
        if self.lease_reads.is_some() { self.election_timeout } else { Duration::ZERO }
    }

    /// The shortest time without a leader after which a replica campaigns; each wait is drawn from
    /// `[timeout, 2 * timeout)`. A leader that hears no quorum for this long steps down. Default 150 ms.
    #[must_use]
    pub fn election_timeout(mut self, timeout: Duration) -> RaftConfig {
        self.election_timeout = timeout;
        self
    }

    /// Lets a leader answer [`ReadMode::Lease`](synod_core::ReadMode) without asking anybody, for as long as it knows from
    /// its heartbeats that nobody else can be elected: about one election timeout from the start of a round that a
    /// quorum answered, less what `clocks` takes off. Off by default.
    ///
    /// Such a read is linearizable if every clock keeps to `clocks`; any other read and every write is whatever clocks
    /// do. To be turned on at every replica, with one election timeout: then each replica that heard a leader votes for
    /// nobody for an election timeout, in no term, and one that was started again votes for nobody for as long. A
    /// replica where it is off promises nothing, and a quorum that needs it gives no lease. (Thesis, section 6.4.1.)
    #[must_use]
    pub fn lease_reads(mut self, clocks: ClockBound) -> RaftConfig {
        self.lease_reads = Some(clocks);
        self
    }

    /// How often a leader says that it lives. Below half the election timeout; a third is usual. Default 50 ms.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> RaftConfig {
        self.heartbeat_interval = interval;
        self
    }

    /// How long a leader waits for an append that could carry a new decision to a peer, before it sends the
    /// decision alone. Default 5 ms.
    #[must_use]
    pub fn commit_notice_delay(mut self, delay: Duration) -> RaftConfig {
        self.commit_notice_delay = delay;
        self
    }

    /// How many entries may be on their way to one peer. Default 16,384.
    #[must_use]
    pub fn window_entries_max(mut self, entries: usize) -> RaftConfig {
        self.window_entries_max = entries;
        self
    }

    /// How many bytes of entries may be on their way to one peer. Default 16 MiB.
    #[must_use]
    pub fn window_bytes_max(mut self, bytes: usize) -> RaftConfig {
        self.window_bytes_max = bytes;
        self
    }

    /// How many entries one message brings. Default 4,096.
    #[must_use]
    pub fn append_entries_max(mut self, entries: usize) -> RaftConfig {
        self.append_entries_max = entries;
        self
    }

    /// How many bytes of entries one message brings; a larger entry travels alone. Default 1 MiB.
    #[must_use]
    pub fn append_bytes_max(mut self, bytes: usize) -> RaftConfig {
        self.append_bytes_max = bytes;
        self
    }

    /// How many entries may be undecided, or not on its own disk yet, before a leader refuses proposals. Default 65,536.
    #[must_use]
    pub fn uncommitted_entries_max(mut self, entries: usize) -> RaftConfig {
        self.uncommitted_entries_max = entries;
        self
    }

    /// How many bytes of them, before a leader refuses proposals. Default 64 MiB.
    #[must_use]
    pub fn uncommitted_bytes_max(mut self, bytes: usize) -> RaftConfig {
        self.uncommitted_bytes_max = bytes;
        self
    }

    /// How many bytes of the log's end are kept in memory; older entries are loaded from storage for the
    /// peers that need them, which asks the host first. A peer that keeps up needs little, and what fits into the
    /// caches of a processor is dropped without a look at cold memory. Default 2 MiB.
    #[must_use]
    pub fn tail_bytes_max(mut self, bytes: usize) -> RaftConfig {
        self.tail_bytes_max = bytes;
        self
    }
}

impl ProtocolConfig for RaftConfig {
    type Protocol = Raft;

    const NAME: &'static str = "raft";

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
            ("append_entries_max", self.append_entries_max),
            ("append_bytes_max", self.append_bytes_max),
            ("uncommitted_entries_max", self.uncommitted_entries_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("tail_bytes_max", self.tail_bytes_max),
        ];
        if let Some((setting, _)) = bounds.iter().find(|(_, bound)| *bound == 0) {
            return wrong(setting, "must be above zero");
        }
        if self.lease_reads.is_some_and(|clocks| clocks.held(self.election_timeout).is_zero()) {
            return wrong("lease_reads", "must leave something of an election timeout");
        }
        Ok(())
    }

    fn message_bytes_max(&self, payload_bytes_max: usize) -> usize {
        entries_message_bytes_max(self.append_bytes_max, payload_bytes_max)
    }

    fn retry_after(&self) -> Duration {
        self.election_timeout * 4
    }
}

/// Beyond this, arithmetic on timeouts would need care and nobody would wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(RaftConfig::default().validate(), Ok(()));
    }

    #[test]
    fn each_setting_that_cannot_be_used_is_named() {
        let ok = RaftConfig::default;
        let ms = Duration::from_millis;
        let wrong = [
            ok().election_timeout(ms(0)),
            ok().election_timeout(Duration::MAX),
            ok().heartbeat_interval(ms(0)),
            ok().heartbeat_interval(ms(75)),
            ok().window_entries_max(0),
            ok().window_bytes_max(0),
            ok().append_entries_max(0),
            ok().append_bytes_max(0),
            ok().uncommitted_entries_max(0),
            ok().uncommitted_bytes_max(0),
            ok().tail_bytes_max(0),
            ok().lease_reads(ClockBound::new(0, ms(150)).unwrap()),
        ];
        let named: Vec<&str> = wrong.iter().map(|config| config.validate().unwrap_err().setting).collect();
        assert_eq!(
            named,
            [
                "election_timeout",
                "election_timeout",
                "heartbeat_interval",
                "heartbeat_interval",
                "window_entries_max",
                "window_bytes_max",
                "append_entries_max",
                "append_bytes_max",
                "uncommitted_entries_max",
                "uncommitted_bytes_max",
                "tail_bytes_max",
                "lease_reads",
            ]
        );
        assert!(ok().heartbeat_interval(ms(74)).validate().is_ok());
    }
}
