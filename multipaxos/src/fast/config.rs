//! The settings of a replica of Fast Paxos.

use std::time::Duration;

use synod_core::{ConfigError, ProtocolConfig};

use crate::MultiPaxosConfig;
use crate::fast::FastPaxos;

/// The settings of one replica of [`FastPaxos`]: those of its classic side, and its own. Replicas of a cluster may
/// differ in all of them.
///
/// ```
/// use std::time::Duration;
/// use synod_core::ProtocolConfig;
/// use synod_multipaxos::FastPaxos;
///
/// let config = FastPaxos::config().collision_timeout(Duration::from_millis(80));
/// assert!(config.validate().is_ok());
/// assert_eq!(config.slots_max(0).validate().unwrap_err().setting, "slots_max");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FastPaxosConfig {
    pub(crate) classic: MultiPaxosConfig,
    pub(crate) tuning: Tuning,
}

/// What the classic side knows nothing of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tuning {
    pub(crate) slots_max: usize,
    pub(crate) resend_delay: Duration,
    pub(crate) collision_timeout: Duration,
    pub(crate) fall_back_percent: u64,
    pub(crate) fall_back_window: u64,
    pub(crate) fast_again_after: Duration,
    pub(crate) recovery: Recovery,
}

/// What a coordinator does about a slot in which values collided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// Takes the votes of the fast round for promises of the classic one that follows it, and proposes there: two more
    /// message delays (Fast Paxos, section 3.2).
    #[default]
    Coordinated,
    /// Begins a ballot anew, for every slot: four more. There to be compared with; it stops every proposer.
    Restart,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            slots_max: 1024,
            resend_delay: Duration::from_millis(50),
            collision_timeout: Duration::from_millis(20),
            fall_back_percent: 50,
            fall_back_window: 64,
            fast_again_after: Duration::from_secs(1),
            recovery: Recovery::Coordinated,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        impl FastPaxosConfig {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, $name: $type) -> FastPaxosConfig {
                    self.tuning.$name = $name;
                    self
                }
            )*
        }
    };
}

setters! {
    /// How many slots one replica proposes in at a time. Default 1,024.
    slots_max: usize,
    /// How long a proposer waits for a slot of its own to be decided before it sends its value again. Above the
    /// longest round trip between replicas. Default 50 ms.
    resend_delay: Duration,
    /// How long a coordinator waits for votes that would decide a slot, or for a value in a slot below one in use,
    /// before it sees to the slot: silence cannot be told from a lost message. Above the longest round trip between
    /// replicas. Default 20 ms.
    collision_timeout: Duration,
    /// Of a window of decided slots, how many in a hundred may have taken the slow path before the leader orders
    /// alone; above 100 for never. Default 50.
    fall_back_percent: u64,
    /// How many decided slots are looked at together. Default 64.
    fall_back_window: u64,
    /// How long a leader that has fallen back orders alone before it opens fast rounds again. Doubled, up to sixteen
    /// times, as long as no window passes at less than half of `fall_back_percent`. Default 1 s.
    fast_again_after: Duration,
    /// What is done about collisions. Default [`Recovery::Coordinated`].
    recovery: Recovery,
}

impl FastPaxosConfig {
    /// Sets what a Multi-Paxos replica has as well: elections, windows, bounds. The bounds of accepts hold for the
    /// messages of fast rounds, and undecided entries for the commands that one replica has open.
    #[must_use]
    pub fn classic(mut self, classic: MultiPaxosConfig) -> FastPaxosConfig {
        self.classic = classic;
        self
    }
}

impl ProtocolConfig for FastPaxosConfig {
    type Protocol = FastPaxos;

    const NAME: &'static str = "fastpaxos";

    fn validate(&self) -> Result<(), ConfigError> {
        self.classic.validate()?;
        let wrong = |setting, problem| Err(ConfigError { setting, problem });
        let Tuning { slots_max, fall_back_window, .. } = self.tuning;
        if self.classic.votes_to_all {
            return wrong(
                "votes_to_all",
                "must be off: acceptors of fast rounds tell everybody by themselves",
            );
        }
        if self.classic.lease_reads.is_some() {
            return wrong("lease_reads", "must be off: others decide in fast rounds without the leader");
        }
        if slots_max == 0 {
            return wrong("slots_max", "must be above zero");
        }
        if slots_max > self.classic.undecided_entries_max {
            return wrong("slots_max", "must be at most undecided_entries_max");
        }
        if fall_back_window == 0 {
            return wrong("fall_back_window", "must be above zero");
        }
        let delays = [
            ("resend_delay", self.tuning.resend_delay),
            ("collision_timeout", self.tuning.collision_timeout),
            ("fast_again_after", self.tuning.fast_again_after),
        ];
        for (setting, delay) in delays {
            if delay.is_zero() {
                return wrong(setting, "must be above zero");
            }
            if delay > DELAY_MAX {
                return wrong(setting, "must be at most one day");
            }
        }
        Ok(())
    }

    fn message_bytes_max(&self, payload_bytes_max: usize) -> usize {
        self.classic.message_bytes_max(payload_bytes_max)
    }

    fn retry_after(&self) -> Duration {
        self.classic.retry_after()
    }
}

/// Beyond this, arithmetic on delays would need care and nobody would wait.
const DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use synod_core::ClockBound;

    use super::*;

    #[test]
    fn each_setting_that_cannot_be_used_is_named() {
        let ok = FastPaxosConfig::default;
        let clocks = ClockBound::new(0, Duration::ZERO).unwrap();
        assert_eq!(ok().validate(), Ok(()));
        let wrong = [
            (ok().slots_max(0), "slots_max"),
            (ok().slots_max(65_537), "slots_max"),
            (ok().fall_back_window(0), "fall_back_window"),
            (ok().resend_delay(Duration::ZERO), "resend_delay"),
            (ok().collision_timeout(Duration::MAX), "collision_timeout"),
            (ok().fast_again_after(Duration::ZERO), "fast_again_after"),
            (ok().classic(MultiPaxosConfig::default().tail_bytes_max(0)), "tail_bytes_max"),
            (ok().classic(MultiPaxosConfig::default().votes_to_all(true)), "votes_to_all"),
            (ok().classic(MultiPaxosConfig::default().lease_reads(clocks)), "lease_reads"),
        ];
        for (config, setting) in wrong {
            assert_eq!(config.validate().unwrap_err().setting, setting);
        }
    }
}
