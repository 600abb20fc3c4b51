//! The node's clock and its one timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use synod_core::Instant;

/// Monotonic time since the start of the node.
///
/// It is tokio's clock, so that a paused runtime pauses the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { origin: tokio::time::Instant::now() }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    fn at(&self, instant: Instant) -> tokio::time::Instant {
        self.origin + Duration::from_nanos(instant.0)
    }
}

/// A timer that is rarely set: deadlines move away at every message, so it is left where it stands, and
/// only when it fires too early is it set to what is wanted by then.
#[derive(Debug)]
pub(crate) struct Timer {
    clock: Clock,
    sleep: Pin<Box<tokio::time::Sleep>>,
    fires: Instant,
}

impl Timer {
    /// Deadlines further off than this are looked at again on the way.
    const AHEAD_MAX: Duration = Duration::from_secs(3600);

    pub(crate) fn new(clock: Clock) -> Timer {
        let fires = clock.now() + Timer::AHEAD_MAX;
        Timer { clock, sleep: Box::pin(tokio::time::sleep_until(clock.at(fires))), fires }
    }

    /// Ready once `deadline` is past.
    pub(crate) fn poll(&mut self, deadline: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(deadline) = deadline
            && deadline < self.fires
        {
            self.set(deadline);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            let now = self.clock.now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(());
            }
            let furthest = now + Timer::AHEAD_MAX;
            self.set(deadline.map_or(furthest, |deadline| deadline.min(furthest)));
        }
        Poll::Pending
    }

    fn set(&mut self, fires: Instant) {
        self.fires = fires;
        self.sleep.as_mut().reset(self.clock.at(fires));
    }
}
