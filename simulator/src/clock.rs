//! Virtual time, and what each node takes it for.

use synod_core::Instant;

/// A moment of the simulation, in nanoseconds since its start: the time nobody inside can see.
pub type Time = u64;

/// One microsecond.
pub const MICROSECOND: Time = 1_000;
/// One millisecond.
pub const MILLISECOND: Time = 1_000_000;
/// One second.
pub const SECOND: Time = 1_000_000_000;
/// Later than every event.
pub const NEVER: Time = Time::MAX;

/// A node's monotonic clock: runs a little fast or slow, and may jump forward.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    set_at: Time,
    local: u64,
    /// How much it is fast, in parts of a million.
    drift_ppm: i64,
}

impl Clock {
    /// A clock that starts at `local` at time 0.
    #[must_use]
    pub fn new(local: u64, drift_ppm: i64) -> Clock {
        Clock { set_at: 0, local, drift_ppm }
    }

    /// What the clock shows at `at`.
    #[must_use]
    pub fn read(&self, at: Time) -> Instant {
        let passed = at.saturating_sub(self.set_at);
        let rate = (1_000_000 + self.drift_ppm) as u64;
        // Exact enough and never backwards: whole seconds first, so that nothing overflows.
        let local = (passed / SECOND) * (rate * 1_000) + (passed % SECOND) * rate / 1_000_000;
        Instant(self.local + local)
    }

    /// The first moment at which the clock shows at least `local`.
    #[must_use]
    pub fn when(&self, local: Instant) -> Time {
        let wanted = local.0.saturating_sub(self.local);
        if wanted > 1_000_000 * SECOND {
            return NEVER;
        }
        let rate = (1_000_000 + self.drift_ppm) as u128;
        let passed = (u128::from(wanted) * 1_000_000).div_ceil(rate) as u64;
        let mut at = self.set_at + passed;
        while self.read(at) < local {
            at += 1;
        }
        at
    }

    /// Jumps forward at `at`.
    pub fn jump(&mut self, at: Time, forward: u64) {
        self.local = self.read(at).0 + forward;
        self.set_at = at;
    }

    /// True if it runs at another speed than time.
    #[must_use]
    pub fn drifts(&self) -> bool {
        self.drift_ppm != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_due_exactly_when_the_clock_shows_it() {
        for drift in [-50_000, -1_000, 0, 999, 50_000] {
            let mut clock = Clock::new(77, drift);
            clock.jump(5 * SECOND, 3 * MILLISECOND);
            for wait in [0, 1, 999, 150 * MILLISECOND, 3_600 * SECOND] {
                let deadline = Instant(clock.read(6 * SECOND).0 + wait);
                let due = clock.when(deadline);
                assert!(clock.read(due) >= deadline);
                assert!(clock.read(due - 1) < deadline || wait == 0);
            }
        }
    }

    #[test]
    fn a_clock_never_runs_backwards() {
        let mut clock = Clock::new(0, -50_000);
        let mut last = clock.read(0);
        for step in 1..10_000u64 {
            let at = step * 99_991;
            if step % 1_000 == 0 {
                clock.jump(at, 5);
            }
            let now = clock.read(at);
            assert!(now >= last);
            last = now;
        }
    }
}
