//! One run after the other, side by side.

pub mod client;
pub mod clock;
pub mod cluster;
pub mod input;
pub mod progress;
pub mod record;
pub mod run;

use crate::contenders::LifeError;

/// How long after its crash a node is started again.
pub const RESTART_AFTER: std::time::Duration = std::time::Duration::from_millis(300);

/// How long replicas may take to find a leader, or to come to rest at one applied index.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Why a run has no row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Somebody pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// A node did not start.
    #[error("a node did not start")]
    Start(#[from] LifeError),
    /// Nobody was elected.
    #[error("no leader within {} s", PATIENCE.as_secs())]
    NoLeader,
    /// Clients opened no session.
    #[error("a client opened no session within {} s", client::DEADLINE.as_secs())]
    NoSession,
    /// What the clients recorded is no history: a mistake of this program.
    #[error("the recorded history is wrong")]
    History(#[from] synod_checker::HistoryError),
    /// A line found no way into the log.
    #[error("line {line} was not replicated: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What its proposal was answered last.
        why: String,
    },
    /// A task of this program ended in a panic.
    #[error("a task panicked")]
    Panicked(#[from] tokio::task::JoinError),
}
