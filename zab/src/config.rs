//! The settings of a replica, and their validation.

use std::time::Duration;

use synod_core::{ConfigError, ProtocolConfig, entries_message_bytes_max};

use crate::Zab;

/// The settings of [`Zab`]. Made by [`Zab::config`], changed by setters, checked when a replica is opened.
///
/// ```
/// use std::time::Duration;
/// use synod_core::ProtocolConfig as _;
/// use synod_zab::Zab;
///
/// let config = Zab::config().election_timeout(Duration::from_millis(300));
/// assert!(config.validate().is_ok());
/// let hasty = config.heartbeat_interval(Duration::from_millis(200));
/// assert_eq!(hasty.validate().unwrap_err().setting, "heartbeat_interval");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZabConfig {
    pub(crate) election_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) finalise_wait: Duration,
    pub(crate) commit_delay: Duration,
    pub(crate) window_entries_max: usize,
    pub(crate) window_bytes_max: usize,
    pub(crate) proposal_entries_max: usize,
    pub(crate) proposal_bytes_max: usize,
    pub(crate) uncommitted_entries_max: usize,
    pub(crate) uncommitted_bytes_max: usize,
    pub(crate) tail_bytes_max: usize,
}

impl Default for ZabConfig {
    fn default() -> ZabConfig {
        ZabConfig {
            election_timeout: Duration::from_millis(150),
            heartbeat_interval: Duration::from_millis(50),
            finalise_wait: Duration::from_millis(10),
            commit_delay: Duration::from_millis(5),
            window_entries_max: 16 * 1024,
            window_bytes_max: 16 << 20,
            proposal_entries_max: 4096,
            proposal_bytes_max: 1 << 20,
            uncommitted_entries_max: 64 * 1024,
            uncommitted_bytes_max: 64 << 20,
            tail_bytes_max: 16 << 20,
        }
    }
}

impl ZabConfig {
    /// How long a follower waits for a sign of its leader before it looks for another one, and how long a
    /// leader leads without a quorum of followers. No wait is random: elections do not split votes.
    /// Default 150 ms.
    #[must_use]
    pub fn election_timeout(mut self, timeout: Duration) -> ZabConfig {
        self.election_timeout = timeout;
        self
    }

    /// How often a leader says that it lives. Below half the election timeout; a third is usual. Default 50 ms.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> ZabConfig {
        self.heartbeat_interval = interval;
        self
    }

    /// How long a replica that sees a quorum agree on a vote waits for a better one before it believes the
    /// election. It is part of every fail-over. Zero means no
    /// wait: an election may then end before the best history was heard, and is repeated. Default 10 ms.
    #[must_use]
    pub fn finalise_wait(mut self, wait: Duration) -> ZabConfig {
        self.finalise_wait = wait;
        self
    }

    /// How long a leader waits for a proposal that could carry a new decision to a follower, before it sends a
    /// COMMIT alone. Default 5 ms.
    #[must_use]
    pub fn commit_delay(mut self, delay: Duration) -> ZabConfig {
        self.commit_delay = delay;
        self
    }

    /// How many entries may be on their way to one peer. Default 16,384.
    #[must_use]
    pub fn window_entries_max(mut self, entries: usize) -> ZabConfig {
        self.window_entries_max = entries;
        self
    }

    /// How many bytes of entries may be on their way to one peer. Default 16 MiB.
    #[must_use]
    pub fn window_bytes_max(mut self, bytes: usize) -> ZabConfig {
        self.window_bytes_max = bytes;
        self
    }

    /// How many entries one message brings. Default 4,096.
    #[must_use]
    pub fn proposal_entries_max(mut self, entries: usize) -> ZabConfig {
        self.proposal_entries_max = entries;
        self
    }

    /// How many bytes of entries one message brings; a larger entry travels alone. Default 1 MiB.
    #[must_use]
    pub fn proposal_bytes_max(mut self, bytes: usize) -> ZabConfig {
        self.proposal_bytes_max = bytes;
        self
    }

    /// How many entries may be undecided, or not on its own disk yet, before a leader refuses proposals. Default 65,536.
    #[must_use]
    pub fn uncommitted_entries_max(mut self, entries: usize) -> ZabConfig {
        self.uncommitted_entries_max = entries;
        self
    }

    /// How many bytes of them, before a leader refuses proposals. Default 64 MiB.
    #[must_use]
    pub fn uncommitted_bytes_max(mut self, bytes: usize) -> ZabConfig {
        self.uncommitted_bytes_max = bytes;
        self
    }

    /// How many bytes of the log's end are kept in memory; older entries are loaded from storage for the
    /// peers that need them. Default 16 MiB.
    #[must_use]
    pub fn tail_bytes_max(mut self, bytes: usize) -> ZabConfig {
        self.tail_bytes_max = bytes;
        self
    }
}

impl ProtocolConfig for ZabConfig {
    type Protocol = Zab;

    const NAME: &'static str = "zab";

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
        if self.finalise_wait.saturating_mul(2) > self.election_timeout {
            return wrong("finalise_wait", "must be at most half the election timeout");
        }
        let bounds = [
            ("window_entries_max", self.window_entries_max),
            ("window_bytes_max", self.window_bytes_max),
            ("proposal_entries_max", self.proposal_entries_max),
            ("proposal_bytes_max", self.proposal_bytes_max),
            ("uncommitted_entries_max", self.uncommitted_entries_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("tail_bytes_max", self.tail_bytes_max),
        ];
        match bounds.iter().find(|(_, bound)| *bound == 0) {
            Some((setting, _)) => wrong(setting, "must be above zero"),
            None => Ok(()),
        }
    }

    fn message_bytes_max(&self, payload_bytes_max: usize) -> usize {
        entries_message_bytes_max(self.proposal_bytes_max, payload_bytes_max)
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
        assert_eq!(ZabConfig::default().validate(), Ok(()));
    }

    #[test]
    fn each_setting_that_cannot_be_used_is_named() {
        let ok = ZabConfig::default;
        let ms = Duration::from_millis;
        let wrong = [
            ok().election_timeout(ms(0)),
            ok().election_timeout(Duration::MAX),
            ok().heartbeat_interval(ms(0)),
            ok().heartbeat_interval(ms(75)),
            ok().finalise_wait(ms(76)),
            ok().window_entries_max(0),
            ok().window_bytes_max(0),
            ok().proposal_entries_max(0),
            ok().proposal_bytes_max(0),
            ok().uncommitted_entries_max(0),
            ok().uncommitted_bytes_max(0),
            ok().tail_bytes_max(0),
        ];
        let named: Vec<&str> = wrong.iter().map(|config| config.validate().unwrap_err().setting).collect();
        assert_eq!(
            named,
            [
                "election_timeout",
                "election_timeout",
                "heartbeat_interval",
                "heartbeat_interval",
                "finalise_wait",
                "window_entries_max",
                "window_bytes_max",
                "proposal_entries_max",
                "proposal_bytes_max",
                "uncommitted_entries_max",
                "uncommitted_bytes_max",
                "tail_bytes_max",
            ]
        );
        assert!(ok().heartbeat_interval(ms(74)).validate().is_ok());
    }
}
