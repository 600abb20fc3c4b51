//! Time of a run, and processor time of the process.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use synod_checker::Nanos;

/// Counts from the start of a run. Copies count from the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts to count.
    #[must_use]
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// When `at` is on the runtime's clock.
    #[must_use]
    pub fn instant(&self, at: Nanos) -> Instant {
        self.0 + Duration::from_nanos(at.0)
    }
}

/// Processor time of all threads of this process so far.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
