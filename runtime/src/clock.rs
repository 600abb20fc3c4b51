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

/// A timer that is rarely touched.
///
/// Deadlines move away at every message, so it is left where it stands, and only when it fires too early is
/// it set to what is wanted by then. And once it knows whom to wake, it is asked again only when it may be
/// what woke the task.
#[derive(Debug)]
pub(crate) struct Timer {
    clock: Clock,
    sleep: Pin<Box<tokio::time::Sleep>>,
    fires: Instant,
    /// It was asked since it was last set: it will wake the task, the one task that ever asks.
    armed: bool,
}

impl Timer {
    /// Deadlines further off than this are looked at again on the way.
    const AHEAD_MAX: Duration = Duration::from_secs(3600);

    pub(crate) fn new(clock: Clock) -> Timer {
        let fires = clock.now() + Timer::AHEAD_MAX;
        Timer { clock, sleep: Box::pin(tokio::time::sleep_until(clock.at(fires))), fires, armed: false }
    }

    /// Before the task parks: sees to it that the task is woken at `deadline`. False if it may be past already.
    pub(crate) fn arm(&mut self, deadline: Option<Instant>, now: Instant, context: &mut Context<'_>) -> bool {
        if let Some(deadline) = deadline
            && deadline < self.fires
        {
            self.set(deadline);
        }
        if self.armed && now < self.fires {
            return true;
        }
        self.poll(deadline, context).is_pending()
    }

    /// Ready once `deadline` is past.
    pub(crate) fn poll(&mut self, deadline: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        self.armed = true;
        while self.sleep.as_mut().poll(context).is_ready() {
            let now = self.clock.now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(());
            }
            let furthest = now + Timer::AHEAD_MAX;
            self.set(deadline.map_or(furthest, |deadline| deadline.min(furthest)));
            self.armed = true;
        }
        Poll::Pending
    }

    fn set(&mut self, fires: Instant) {
        self.fires = fires;
        self.armed = false;
        self.sleep.as_mut().reset(self.clock.at(fires));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wait(timer: &mut Timer, deadline: Instant) -> Instant {
        let now = timer.clock.now();
        let mut first = true;
        std::future::poll_fn(|context| {
            if std::mem::take(&mut first) {
                if timer.arm(Some(deadline), now, context) { Poll::Pending } else { Poll::Ready(()) }
            } else {
                timer.poll(Some(deadline), context)
            }
        })
        .await;
        timer.clock.now()
    }

    #[tokio::test(start_paused = true)]
    async fn it_fires_at_the_deadline_whether_the_last_one_was_later_earlier_or_past() {
        let clock = Clock::start();
        let mut timer = Timer::new(clock);
        for ahead_ms in [50, 10, 200, 0, 1, 7_300_000, 3] {
            let deadline = clock.now() + Duration::from_millis(ahead_ms);
            let late = wait(&mut timer, deadline).await.saturating_since(deadline);
            assert!(late <= Duration::from_millis(2), "{ahead_ms} ms: {late:?} late");
            assert!(clock.now() >= deadline, "never early");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_away_leaves_the_timer_where_it_stands() {
        let clock = Clock::start();
        let mut timer = Timer::new(clock);
        let near = clock.now() + Duration::from_millis(100);
        std::future::poll_fn(|context| Poll::Ready(timer.arm(Some(near), clock.now(), context))).await;
        assert_eq!(timer.fires, near);
        let far = near + Duration::from_millis(400);
        std::future::poll_fn(|context| Poll::Ready(timer.arm(Some(far), clock.now(), context))).await;
        assert_eq!(timer.fires, near);
        assert!(wait(&mut timer, far).await >= far);
    }
}
