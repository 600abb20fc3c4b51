//! `wal`: looks at a write-ahead log.
//!
//! `wal inspect DIR` shows it, `wal verify DIR` checks it. Nothing is changed. Exit codes: 0 good, 1 damaged (file
//! and offset on stderr), 2 bad usage: no log there, one that somebody holds, one that cannot be read.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use synod_wal::{Inspection, WalError};

/// Looks at a write-ahead log; changes nothing.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 good, 1 damaged (names file and offset), 2 no log, a log that somebody holds, \
                        or one that cannot be read."
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show segments, entries, hard state, incarnation and bounds.
    Inspect {
        /// The folder of the log.
        dir: PathBuf,
    },
    /// Read everything and verify every checksum.
    Verify {
        /// The folder of the log.
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wal: {}", chain(&error));
            ExitCode::from(if matches!(error, WalError::Corrupt { .. }) { 1 } else { 2 })
        }
    }
}

fn run(task: &Task) -> Result<(), WalError> {
    match task {
        Task::Inspect { dir } => print!("{}", Inspection::of_folder(dir)?),
        Task::Verify { dir } => {
            let found = Inspection::of_folder(dir)?;
            let (entries, segments) = (found.entries, found.segments.len());
            let torn =
                if found.torn.is_some() { ", and a torn batch that nobody was told about" } else { "" };
            println!("good: {entries} entries in {segments} segments{torn}");
        }
    }
    Ok(())
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    line
}
