//! A progress bar, and the wish to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::RunError;

/// Whether Ctrl-C was pressed. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    set: AtomicBool,
    changed: Notify,
}

impl Interrupt {
    /// Waits for Ctrl-C on a thread of its own. A second one ends the process at once.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn install(&self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let interrupt = self.clone();
        std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    if interrupt.is_set() {
                        std::process::exit(EXIT_INTERRUPTED.into());
                    }
                    interrupt.set();
                }
            });
        })?;
        Ok(())
    }

    /// Asks everything to stop.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::Relaxed);
        self.0.changed.notify_waiters();
    }

    /// True once Ctrl-C was pressed.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Relaxed)
    }

    /// Waits for `work`, or for Ctrl-C.
    ///
    /// # Errors
    /// [`RunError::Interrupted`]; `work` is dropped then.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, RunError> {
        let changed = self.0.changed.notified();
        if self.is_set() {
            return Err(RunError::Interrupted);
        }
        tokio::select! {
            biased;
            () = changed => Err(RunError::Interrupted),
            done = work => Ok(done),
        }
    }
}

/// The exit code after Ctrl-C: 128 and the number of its signal.
pub const EXIT_INTERRUPTED: u8 = 130;

/// A bar on standard error, if that is a terminal.
pub struct Progress {
    bar: ProgressBar,
    interrupt: Interrupt,
}

impl Progress {
    /// A bar for the run of `name`, `length` long.
    #[must_use]
    pub fn start(name: &str, length: Duration, interrupt: &Interrupt) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(millis(length)), ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{prefix:14} [{bar:30}] {percent:>3}%  {msg}");
        bar.set_style(style.expect("a fixed template").progress_chars("=> "));
        bar.set_prefix(name.to_owned());
        Progress { bar, interrupt: interrupt.clone() }
    }

    /// Says what goes on.
    pub fn say(&self, what: &'static str) {
        self.bar.set_message(what);
    }

    /// Lets time pass until `until`, moving the bar.
    ///
    /// # Errors
    /// [`RunError::Interrupted`].
    pub async fn pass(&self, until: Instant) -> Result<(), RunError> {
        loop {
            let begun = Instant::now();
            if begun >= until {
                return Ok(());
            }
            let step = until.min(begun + Duration::from_millis(100));
            self.interrupt.or(sleep_until(step)).await?;
            self.bar.inc(millis(begun.elapsed()));
        }
    }

    /// Moves the bar to a share of its length.
    pub fn reach(&self, share: f64) {
        let length = self.bar.length().unwrap_or(0) as f64;
        self.bar.set_position((length * share) as u64);
    }

    /// Waits for `work`, or for Ctrl-C.
    ///
    /// # Errors
    /// [`RunError::Interrupted`].
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> Result<T, RunError> {
        self.interrupt.or(work).await
    }

    /// Waits for `work` for so long, or for Ctrl-C; none if that was not long enough.
    ///
    /// # Errors
    /// [`RunError::Interrupted`].
    pub async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, RunError> {
        Ok(self.interrupt.or(timeout(patience, work)).await?.ok())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    #[test]
    fn a_wait_ends_when_ctrl_c_comes_before_or_during_it() {
        block_on(async {
            let interrupt = Interrupt::default();
            let waiting = interrupt.or(std::future::pending::<()>());
            let pressing = async { interrupt.set() };
            let (waited, ()) = tokio::join!(waiting, pressing);
            assert!(matches!(waited, Err(RunError::Interrupted)));
            assert!(matches!(interrupt.or(async {}).await, Err(RunError::Interrupted)));
        });
    }

    #[test]
    fn time_passes_without_a_terminal() {
        block_on(async {
            let progress = Progress::start("test", Duration::from_millis(30), &Interrupt::default());
            let begun = Instant::now();
            progress.pass(begun + Duration::from_millis(20)).await.unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(20));
        });
    }
}
