//! The command: started, told to end, killed.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, getppid, kill_process_group};
use synod_core::Instant;
use synod_elect::{Leadership, now, sleep_until};
use tokio::process::{Child, Command};

use crate::Told;

/// What is run, and how it is ended.
pub(crate) struct Plan<'a> {
    pub(crate) command: &'a [String],
    pub(crate) name: &'a str,
    pub(crate) id: u64,
    pub(crate) grace: Duration,
}

/// Why it ended. Nothing of it is left in any case.
pub(crate) enum Ending {
    /// By itself.
    Itself(u8),
    /// This process was told to end.
    Told(u8),
    /// The lease was not renewed in time.
    Lost,
}

/// Runs the command as long as the leadership lasts.
pub(crate) async fn run(leadership: Leadership, plan: &Plan<'_>, told: &mut Told) -> io::Result<Ending> {
    // What has no more left than the grace would be told to end at once.
    let mut until = leadership.valid_until();
    while until.is_some_and(|until| until <= now() + plan.grace) {
        tokio::select! {
            changed = leadership.changed(until) => until = changed,
            signal = told.next() => return Ok(Ending::Told(signal)),
        }
    }
    if until.is_none() {
        return Ok(Ending::Lost);
    }
    let mut running = Running::start(&leadership, plan)?;
    while let Some(end) = until {
        let terminate_at = Instant(end.0.saturating_sub(nanoseconds(plan.grace)));
        tokio::select! {
            // What is due is done before a renewal that comes with it is looked at.
            biased;
            status = running.child.wait() => {
                let code = exit_code(status?);
                running.kill().await?;
                return Ok(Ending::Itself(code));
            }
            signal = told.next() => {
                running.end(end, plan.grace).await?;
                return Ok(Ending::Told(signal));
            }
            () = sleep_until(terminate_at) => {
                tracing::warn!("the lease was not renewed: the command is told to end");
                running.end(end, plan.grace).await?;
                return Ok(Ending::Lost);
            }
            changed = leadership.changed(until) => until = changed,
        }
    }
    // It was taken away before its time.
    running.kill().await?;
    Ok(Ending::Lost)
}

/// The command and its process group.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn start(leadership: &Leadership, plan: &Plan<'_>) -> io::Result<Running> {
        let mut command = Command::new(OWN_PROGRAM);
        command.arg(BECOME).arg(getpid().as_raw_nonzero().to_string()).args(plan.command);
        command.env("ELECT_NAME", plan.name).env("ELECT_ID", plan.id.to_string()).env_remove("ELECT_TOKEN");
        if let Some(token) = leadership.token() {
            command.env("ELECT_TOKEN", token.0.to_string());
        }
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Running { child, group: id.and_then(Pid::from_raw) })
    }

    /// SIGTERM, and SIGKILL before the lease ends.
    async fn end(&mut self, until: Instant, grace: Duration) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        let spare = (grace / 4).min(SPARE_MAX);
        let kill_at = Instant(until.0.min((now() + grace).0).saturating_sub(nanoseconds(spare)));
        tokio::select! {
            _ = self.child.wait() => {}
            () = sleep_until(kill_at) => tracing::warn!("the command has not ended: it is killed"),
        }
        self.kill().await
    }

    /// SIGKILL to everything that is left of it.
    async fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.group.map(|group| kill_process_group(group, signal)) {
            // Nothing is left of it.
            None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.signal(Signal::KILL);
    }
}

/// How long before the end of the lease the command is killed, at most.
const SPARE_MAX: Duration = Duration::from_millis(250);

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// This program, even if its file was replaced meanwhile.
#[cfg(target_os = "linux")]
const OWN_PROGRAM: &str = "/proc/self/exe";
#[cfg(not(target_os = "linux"))]
const OWN_PROGRAM: &str = "elect";

/// The first argument of the process that turns into the command.
pub(crate) const BECOME: &str = "--become";

/// Between fork and command: asks the kernel to kill this process when its parent is gone, and turns into the command.
/// So a command does not outlive a killed `elect` (on Linux).
pub(crate) fn become_command(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = arguments.next().and_then(|parent| parent.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let Some(program) = arguments.next() else { return ExitCode::from(2) };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("elect: the command would outlive this process: {error}");
        return ExitCode::FAILURE;
    }
    // It may be gone already.
    if getppid() != parent {
        return ExitCode::FAILURE;
    }
    let error = std::process::Command::new(&program).args(arguments).exec();
    eprintln!("elect: {}: {error}", program.display());
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}
