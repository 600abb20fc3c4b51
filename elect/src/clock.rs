//! The clock that leases are counted on.

use std::time::Duration;

use synod_core::Instant;

/// Now, on a clock that is never set and counts while the machine is suspended: `CLOCK_BOOTTIME` on Linux. Where there
/// is none, the monotonic clock of the standard library, which may stop in suspension: a holder that wakes up there
/// believes for as long as it slept.
///
/// One clock for the whole process, and for no other one: an [`Instant`] of it says nothing elsewhere.
#[must_use]
pub fn now() -> Instant {
    system::now()
}

/// Waits until `deadline` is past on the clock of [`now`]. Never early; a tenth of a second late at most after a suspension
/// of the machine, through which tokio's timer does not count.
///
/// # Cancel safety
/// Cancel-safe.
pub async fn sleep_until(deadline: Instant) {
    loop {
        let left = deadline.saturating_since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(STEP_MAX)).await;
    }
}

/// [`sleep_until`], or for ever.
pub(crate) async fn sleep_until_due(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// How long a timer runs without a look at the clock.
const STEP_MAX: Duration = Duration::from_millis(100);

#[cfg(target_os = "linux")]
mod system {
    use rustix::time::{ClockId, clock_gettime};
    use synod_core::Instant;

    pub(super) fn now() -> Instant {
        let time = clock_gettime(ClockId::Boottime);
        // Since the start of the machine: neither is negative.
        let (seconds, nanoseconds) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
        Instant(seconds * 1_000_000_000 + nanoseconds)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::sync::OnceLock;

    use synod_core::Instant;

    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();

    pub(super) fn now() -> Instant {
        Instant::ZERO + ORIGIN.get_or_init(std::time::Instant::now).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_is_waited_for_and_never_early() {
        let deadline = now() + Duration::from_millis(120);
        sleep_until(deadline).await;
        assert!(now() >= deadline);
        sleep_until(Instant::ZERO).await;
    }
}
