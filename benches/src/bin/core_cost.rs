//! What ordering one command costs in a protocol's core.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde::Serialize;
use synod_benches::contenders;
use synod_benches::core_cost::{CoreCost, Level};
use synod_benches::options::Stop;

/// Measure what ordering one command costs in a protocol's core: three replicas with logs in memory, driven
/// in one thread by direct calls.
///
/// Commands of 132 bytes are proposed a window at a time, in one call; the next window follows when the last
/// command of one is done. Time depends on the machine; `core_cost.sh` counts instructions, which do not.
///
/// Exit codes: 0 measured, 2 bad option.
#[derive(Parser)]
#[command(name = "core_cost")]
struct Options {
    /// The protocol
    #[arg(long, value_name = "NAME", default_value = "raft")]
    protocol: String,

    /// Commands proposed at once
    #[arg(long, value_name = "N", default_value_t = 256)]
    window: usize,

    /// The protocol alone, or the whole replica with its session
    #[arg(long, value_enum, default_value_t = LevelName::Protocol)]
    level: LevelName,

    /// Apply commands to a key-value state machine on each replica, not to one that does nothing; with
    /// --level replica
    #[arg(long)]
    state_machine: bool,

    /// Commands measured, at least
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    commands: u64,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LevelName {
    Protocol,
    Replica,
}

#[derive(Serialize)]
struct Report<'a> {
    protocol: &'a str,
    level: &'a str,
    window: usize,
    commands: u64,
    ns_per_command: f64,
}

fn main() -> ExitCode {
    let options = match Options::try_parse().map_err(Stop::of_clap) {
        Ok(options) => options,
        Err(Stop::Answer(text)) => {
            say(&text);
            return ExitCode::SUCCESS;
        }
        Err(Stop::Bad(problem)) => return bad(&problem),
    };
    match run(&options) {
        Ok(line) => {
            say(&line);
            ExitCode::SUCCESS
        }
        Err(problem) => bad(&problem),
    }
}

fn run(options: &Options) -> Result<String, String> {
    let name = &options.protocol;
    let Some(contender) = contenders::named(name) else {
        return Err(format!(
            "--protocol: unknown protocol `{name}`; there are: {}",
            contenders::names().join(", ")
        ));
    };
    if !(1..=WINDOW_MAX).contains(&options.window) {
        return Err(format!("--window {} is not between 1 and {WINDOW_MAX}", options.window));
    }
    if !(1..=COMMANDS_MAX).contains(&options.commands) {
        return Err(format!("--commands {} is not between 1 and {COMMANDS_MAX}", options.commands));
    }
    let (level, level_name) = match options.level {
        LevelName::Protocol if options.state_machine => {
            return Err("--state-machine goes with --level replica".to_owned());
        }
        LevelName::Protocol => (Level::Protocol, "protocol"),
        LevelName::Replica => (Level::Replica { state_machine: options.state_machine }, "replica"),
    };
    let plan = CoreCost { level, window: options.window, commands: options.commands };
    let cost = contender.core_cost(plan).map_err(|error| format!("{name} did not open: {error}"))?;
    let ns_per_command = cost.elapsed.as_secs_f64() * 1e9 / cost.commands as f64;
    let ns_per_command = synod_benches::row::rounded(ns_per_command);
    if options.json {
        let report = Report {
            protocol: name,
            level: level_name,
            window: options.window,
            commands: cost.commands,
            ns_per_command,
        };
        return Ok(serde_json::to_string(&report).expect("numbers and strings"));
    }
    Ok(format!(
        "{name}, {level_name} level, window {}: {ns_per_command:.1} ns a command for all three replicas ({} commands)",
        options.window, cost.commands
    ))
}

/// The log of every command stays in memory.
const COMMANDS_MAX: u64 = 50_000_000;
/// A protocol may hold this many undecided commands, by default.
const WINDOW_MAX: usize = 1_024;

/// Prints to standard output; a reader that went away is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn bad(problem: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "core_cost: {problem}");
    ExitCode::from(2)
}
