//! The arithmetic of leases: how long a promise may be relied on when two clocks measure it.

use std::time::Duration;

use crate::ConfigError;

/// How far clocks may be wrong, and what is kept free on top.
///
/// The assumption about clocks that every lease rests on, as a value: between any two moments of real time
/// `d` apart, the clock of each node advances by at least `d (1 - drift)` and at most `d (1 + drift)`. Such a
/// clock counts through the suspension of its machine and is never set; on Linux that is `CLOCK_BOOTTIME`.
/// Clocks need not agree on the time: only lengths of time are ever compared.
///
/// The holder of a lease begins to count *before* its request leaves, the grantor *after* it arrived. Then the
/// lease is safe if the holder stops, by its own clock, after [`ClockBound::held`] of what the grantor
/// remembers, by its own: a holder whose clock is slow acts for at most `held / (1 - drift)` of real time, a
/// grantor whose clock is fast forgets after no less than `granted / (1 + drift)`, and so
/// `held <= granted (1 - drift) / (1 + drift)`. The guard is taken off on top of that: for what lies between
/// a look at the clock and the act that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClockBound {
    drift_ppm: u32,
    guard: Duration,
}

impl ClockBound {
    /// No clock that is worth a lease is wrong by more, in parts of a million.
    pub const DRIFT_PPM_MAX: u32 = 500_000;

    /// A bound on the drift, in parts of a million, and a guard.
    ///
    /// # Errors
    /// [`ConfigError`] if the drift is above [`ClockBound::DRIFT_PPM_MAX`].
    pub fn new(drift_ppm: u32, guard: Duration) -> Result<ClockBound, ConfigError> {
        if drift_ppm > Self::DRIFT_PPM_MAX {
            return Err(ConfigError { setting: "drift_ppm", problem: "must be at most 500,000" });
        }
        Ok(ClockBound { drift_ppm, guard })
    }

    /// How much a clock may gain or lose, in parts of a million.
    #[must_use]
    pub fn drift_ppm(&self) -> u32 {
        self.drift_ppm
    }

    /// What is kept free on top of the drift.
    #[must_use]
    pub fn guard(&self) -> Duration {
        self.guard
    }

    /// How long a holder may act, by its clock and from before it asked, on a lease that its grantor
    /// remembers for `granted` by its own. Zero if nothing is left.
    #[must_use]
    pub fn held(&self, granted: Duration) -> Duration {
        let (slow, fast) = self.rates();
        nanoseconds(granted.as_nanos() * slow / fast).saturating_sub(self.guard)
    }

    /// How long a grantor must remember, by its clock and from after it was asked, a lease on which its
    /// holder acts for `held` by its own. The shortest time for which [`ClockBound::held`] gives `held`.
    #[must_use]
    pub fn granted(&self, held: Duration) -> Duration {
        let (slow, fast) = self.rates();
        nanoseconds(((held + self.guard).as_nanos() * fast).div_ceil(slow))
    }

    /// The slowest and the fastest clock, in millionths of the right one.
    fn rates(&self) -> (u128, u128) {
        (u128::from(1_000_000 - self.drift_ppm), u128::from(1_000_000 + self.drift_ppm))
    }
}

/// One part in a thousand, and 5 ms: crystals are wrong by 20 to 100 parts in a million, and a clock that is
/// being disciplined by up to 500.
impl Default for ClockBound {
    fn default() -> ClockBound {
        ClockBound { drift_ppm: 1_000, guard: Duration::from_millis(5) }
    }
}

/// Saturates at 584 years.
fn nanoseconds(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_takes_a_thousandth_twice_and_five_milliseconds() {
        let held = ClockBound::default().held(Duration::from_secs(10));
        // 10 s * 999,000 / 1,001,000 - 5 ms.
        assert_eq!(held, Duration::from_nanos(9_980_019_980 - 5_000_000));
    }

    #[test]
    fn a_lease_shorter_than_the_guard_is_never_held() {
        assert_eq!(ClockBound::default().held(Duration::from_millis(5)), Duration::ZERO);
        assert_eq!(ClockBound::default().held(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_drift_that_no_clock_has_is_refused() {
        assert!(ClockBound::new(500_001, Duration::ZERO).is_err());
        assert!(ClockBound::new(500_000, Duration::ZERO).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_the_clocks_within_the_bound_the_holder_stops_first(
            granted in 0_u64..1 << 50, drift in 0_u32..=500_000, guard in 0_u64..1 << 40,
            holder in -1.0_f64..=1.0, grantor in -1.0_f64..=1.0,
        ) {
            let bound = ClockBound::new(drift, Duration::from_nanos(guard)).unwrap();
            let granted = Duration::from_nanos(granted);
            let held = bound.held(granted);
            let rate = |share: f64| 1.0 + share * f64::from(drift) / 1e6;
            // Real time until each has counted to its end, for any rates within the bound.
            let (stops, forgets) = (held.as_nanos() as f64 / rate(holder), granted.as_nanos() as f64 / rate(grantor));
            prop_assert!(stops <= forgets * (1.0 + 1e-9));
        }

        #[test]
        fn what_must_be_remembered_is_the_least_that_allows_what_is_held(
            held in 1_u64..1 << 50, drift in 0_u32..=500_000, guard in 0_u64..1 << 40,
        ) {
            let bound = ClockBound::new(drift, Duration::from_nanos(guard)).unwrap();
            let held = Duration::from_nanos(held);
            let granted = bound.granted(held);
            prop_assert!(bound.held(granted) >= held);
            prop_assert!(bound.held(granted - Duration::from_nanos(1)) < held);
        }
    }
}
