//! `wal`: looks at a write-ahead log, and makes one that is left the log of a new cluster.
//!
//! `wal inspect DIR` shows it, `wal verify DIR` checks it; nothing is changed. `wal recover --force-new-cluster DIR` is for
//! a lost quorum, and unsafe. Exit codes: 0 good, 1 damaged (file and offset on stderr), 2 bad usage: no log there, one
//! that somebody holds, one that cannot be read, or no consent.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use synod_core::ClusterId;
use synod_wal::{Inspection, WalError, force_new_cluster};

/// Looks at a write-ahead log.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 good, 1 damaged (names file and offset), 2 no log, a log that somebody holds, \
                        one that cannot be read, or no consent."
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show segments, entries, hard state, incarnation and bounds. Changes nothing.
    Inspect {
        /// The folder of the log.
        dir: PathBuf,
    },
    /// Read everything and verify every checksum. Changes nothing.
    Verify {
        /// The folder of the log.
        dir: PathBuf,
    },
    /// UNSAFE. Make a new cluster of one node out of the log of a member that is left.
    Recover(Recover),
}

/// UNSAFE. For a cluster that has lost most of its members for good: makes a log for a new cluster, with the node of the
/// old log as its only member.
///
/// Commands that were decided and acknowledged, and that this node never got, are lost. Commands that were not decided,
/// and that this node has, are decided now. If the other members are not lost after all, two clusters go on. Choose the
/// member whose log reaches furthest: `wal inspect` shows the stamp of the last entry.
///
/// The old log is only read. The new one appears in a folder of its own when it is whole. Start the node on it with the
/// new cluster id and itself as the only member.
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct Recover {
    /// The log of the member that is left; the node must not run
    #[arg(long, value_name = "DIR")]
    force_new_cluster: PathBuf,

    /// Where the new log goes: a folder that is missing or empty
    #[arg(long, value_name = "NEW")]
    into: PathBuf,

    /// The id of the new cluster, another one than the old: a number, or 32 hexadecimal digits as `wal inspect` shows
    #[arg(long, value_name = "ID", value_parser = cluster)]
    cluster: ClusterId,

    /// Needed: nothing is done without it
    #[arg(long)]
    i_accept_that_decided_commands_may_be_lost: bool,
}

fn main() -> ExitCode {
    let task = Arguments::parse().task;
    if let Task::Recover(recover) = &task
        && !recover.i_accept_that_decided_commands_may_be_lost
    {
        eprintln!("wal: {NO_CONSENT}");
        return ExitCode::from(2);
    }
    match run(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wal: {}", chain(&error));
            ExitCode::from(if matches!(error, WalError::Corrupt { .. }) { 1 } else { 2 })
        }
    }
}

const NO_CONSENT: &str = "nothing was done: a new cluster by force may lose commands that were acknowledged, and decide \
                          commands that were not. If most members are lost for good, say \
                          --i-accept-that-decided-commands-may-be-lost";

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
        Task::Recover(Recover { force_new_cluster: from, into, cluster, .. }) => {
            let forced = force_new_cluster(from, into, *cluster)?;
            let node = forced.identity.node;
            println!("old cluster  {}, of which {} is unchanged", forced.origin.cluster, from.display());
            println!("new cluster  {cluster}, in {}", into.display());
            println!("entries      {}", forced.entries);
            if let Some((index, stamp)) = forced.last {
                println!("last         {index} under {stamp}");
            }
            println!("memberships  {} became no-ops", forced.memberships);
            println!("Start {node} as its only member. Never start the old members again.");
        }
    }
    Ok(())
}

fn cluster(text: &str) -> Result<ClusterId, String> {
    let id = if text.len() == 32 { u128::from_str_radix(text, 16) } else { text.parse() };
    id.map(ClusterId).map_err(|_| format!("`{text}` is neither a number nor 32 hexadecimal digits"))
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
