//! Runs clusters in virtual time, with faults, and checks every invariant after every event.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;
use synod_simulator::delays;
use synod_simulator::diagram;
use synod_simulator::failover;
use synod_simulator::holders::Clocks;
use synod_simulator::rare::Rare;
use synod_simulator::run::{Level, Run, SIMULATED, Simulated, THREAD_NAME};
use synod_simulator::sweep::{self, Length, Stop, Summary, Sweep};

/// Simulates clusters with faults and checks every invariant after every event.
#[derive(Debug, Parser)]
#[command(name = "simulate", version)]
struct Arguments {
    /// The protocol
    #[arg(long, default_value = "raft")]
    protocol: String,
    /// How many seeds to run (default 1000)
    #[arg(long, conflicts_with = "time")]
    seeds: Option<u64>,
    /// Run seeds for this long, as in 60s or 5m
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Run seeds for this much processor time, summed over threads
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with_all = ["time", "seeds"])]
    cpu: Option<Duration>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Nodes of each cluster
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// The bare protocol or the full replica [default: the protocol's highest]
    #[arg(long, value_name = "protocol|replica")]
    level: Option<String>,
    /// Clocks of leases: each may drift by so many times what is assumed of it
    #[arg(long, value_name = "FACTOR")]
    drift: Option<u64>,
    /// Clocks of leases: allow two holders, and judge the register that checks their tokens
    #[arg(long)]
    fenced: bool,
    /// Threads [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// End at the first violation, or at the first of these invariants (RI1,RI5)
    #[arg(long, value_name = "INVARIANTS", num_args = 0..=1, default_missing_value = "", value_delimiter = ',')]
    first: Option<Vec<String>>,
    /// Run this seed alone and print what happened
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "time", "cpu", "json"])]
    replay: Option<u64>,
    /// With --replay: draw it instead, as a self-contained page
    #[arg(long, value_name = "FILE", requires = "replay")]
    html: Option<std::path::PathBuf>,
    /// With --replay: do not print the trace. Prints its hash as the last word
    #[arg(long)]
    trace_hash: bool,
    /// Print what one decided command costs without faults, for every protocol, size and place of the client
    #[arg(long, conflicts_with_all = ["protocol", "seeds", "time", "cpu", "from", "replicas", "level", "drift", "fenced", "jobs", "first", "replay", "trace_hash"])]
    delays: bool,
    /// Print how long each phase of a fail-over takes, over many seeds, for every protocol
    #[arg(long, conflicts_with_all = ["protocol", "time", "cpu", "from", "level", "drift", "fenced", "jobs", "first", "replay", "trace_hash", "delays"])]
    failover: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    protocol: &'static str,
    level: &'static str,
    replicas: usize,
    seeds: u64,
    events: u64,
    events_per_s: u64,
    simulated_hours: f64,
    faults: serde_json::Map<String, serde_json::Value>,
    decided: u64,
    client_ops: u64,
    violations: u64,
    /// The same, by invariant.
    violated: serde_json::Map<String, serde_json::Value>,
    /// The invariants that this run is there to break.
    expected: &'static [&'static str],
    trace_hash: String,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if !error.use_stderr() => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            return refuse(
                error.to_string().trim_start_matches("error: ").lines().next().unwrap_or_default(),
            );
        }
    };
    let done = if arguments.delays {
        delays(arguments.json)
    } else if arguments.failover {
        failover(&arguments)
    } else {
        simulate(&arguments)
    };
    match done {
        Ok(code) => code,
        Err(problem) => refuse(&problem),
    }
}

fn refuse(problem: &str) -> ExitCode {
    eprintln!("simulate: {problem}");
    ExitCode::from(2)
}

fn simulate(arguments: &Arguments) -> Result<ExitCode, String> {
    let simulated = Simulated::named(&arguments.protocol).ok_or_else(|| {
        let known: Vec<&str> = SIMULATED.iter().map(|simulated| simulated.name).collect();
        format!("unknown protocol `{}`; there is {}", arguments.protocol, known.join(", "))
    })?;
    let level = match arguments.level.as_deref() {
        None => simulated.levels[0],
        Some(name) => *simulated
            .levels
            .iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| format!("unknown level `{name}` for {}", simulated.name))?,
    };
    let clocks = Clocks { drift: arguments.drift, fenced: arguments.fenced };
    let simulated = if clocks == Clocks::default() {
        simulated
    } else {
        if arguments.drift.is_some_and(|drift| drift > Clocks::DRIFT_MAX) {
            return Err(format!("--drift must be at most {}", Clocks::DRIFT_MAX));
        }
        simulated.with_clocks(clocks).ok_or_else(|| format!("{} does not rest on clocks", simulated.name))?
    };
    if !(1..=9).contains(&arguments.replicas) {
        return Err(format!("--replicas must be between 1 and 9, not {}", arguments.replicas));
    }
    if arguments.jobs == Some(0) {
        return Err("--jobs must be at least 1".to_owned());
    }
    if let Some(seed) = arguments.replay {
        return replay(arguments, simulated, level, seed);
    }
    let length = match (arguments.time, arguments.cpu) {
        (Some(time), _) => Length::Time(time),
        (_, Some(time)) => Length::CpuTime(time),
        _ => Length::Seeds(arguments.seeds.unwrap_or(1000)),
    };
    let jobs = arguments
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let sweep = Sweep { simulated, level, replicas: arguments.replicas, from: arguments.from, length, jobs };
    let stop = match &arguments.first {
        None => Stop::Never,
        Some(names) if names.iter().all(String::is_empty) => Stop::AtAny,
        Some(names) => Stop::At(names.clone()),
    };
    let summary = sweep::run(&sweep, &stop, |so_far| {
        eprintln!(
            "{} seeds, {:.1} M events, {:.0} events/s per core, {} violations",
            so_far.seeds,
            so_far.events as f64 / 1e6,
            so_far.events_per_s(),
            so_far.violations_count
        );
    });
    Ok(report(arguments, &sweep, &summary))
}

/// One row a protocol, size and place: as a table, or as one JSON object a line.
fn delays(json: bool) -> Result<ExitCode, String> {
    let rows = delays::rows().map_err(|error| error.to_string())?;
    if json {
        for row in &rows {
            println!("{}", serde_json::to_string(row).expect("a row is JSON"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let cells: Vec<[String; 8]> =
        [delays::COLUMNS.map(str::to_owned)].into_iter().chain(rows.iter().map(delays::Row::cells)).collect();
    let widths = std::array::from_fn(|column| cells.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let widths: [usize; 8] = widths;
    for row in &cells {
        let line: Vec<String> = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 | 2 | 3 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        println!("{}", line.join("  "));
    }
    Ok(ExitCode::SUCCESS)
}

/// One row a protocol and phase, or one JSON object a protocol.
fn failover(arguments: &Arguments) -> Result<ExitCode, String> {
    let (replicas, seeds) = (arguments.replicas, arguments.seeds.unwrap_or(1000));
    if !(3..=9).contains(&replicas) {
        return Err(format!("--failover needs between 3 and 9 replicas, not {replicas}"));
    }
    if seeds == 0 {
        return Err("--failover needs at least 1 seed".to_owned());
    }
    let rows = failover::rows(replicas, seeds).map_err(|error| error.to_string())?;
    if arguments.json {
        for row in &rows {
            println!("{}", serde_json::to_string(row).expect("a row is JSON"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{:<12} {:>8} {:>6}  {:<16} {:>9} {:>9}",
        "protocol", "replicas", "seeds", "phase", "p50 ms", "p99 ms"
    );
    for failover::Row { protocol, replicas, seeds, phases } in rows {
        for failover::Spread { phase, p50_ms, p99_ms } in phases {
            println!("{protocol:<12} {replicas:>8} {seeds:>6}  {phase:<16} {p50_ms:>9.2} {p99_ms:>9.2}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn report(arguments: &Arguments, sweep: &Sweep, summary: &Summary) -> ExitCode {
    let Sweep { simulated, level, replicas, .. } = *sweep;
    let long = summary.seeds >= SEEDS_FOR_RARE_PATHS && replicas >= REPLICAS_FOR_RARE_PATHS;
    let never = if long { summary.never(&simulated.expected(level)) } else { Vec::new() };
    for outcome in &summary.violations {
        let Some(violation) = &outcome.violation else { continue };
        eprintln!("seed {} step {}: {violation}", outcome.seed, outcome.events);
        eprintln!("    {}", replay_line(simulated, level, replicas, outcome.seed));
    }
    for rare in &never {
        eprintln!("never happened: {}", rare.name());
    }
    if arguments.json {
        let faults =
            summary.faults.iter().map(|(fault, count)| (fault.name().to_owned(), count.into())).collect();
        let report = Report {
            protocol: simulated.name,
            level: level.name(),
            replicas,
            seeds: summary.seeds,
            events: summary.events,
            events_per_s: summary.events_per_s() as u64,
            simulated_hours: summary.simulated_s / 3600.0,
            faults,
            decided: summary.decided,
            client_ops: summary.client_ops,
            violations: summary.violations_count,
            violated: summary
                .violated
                .iter()
                .map(|(name, count)| ((*name).to_owned(), (*count).into()))
                .collect(),
            expected: simulated.expected_to_break(),
            trace_hash: format!("{:016x}", summary.hash),
        };
        println!("{}", serde_json::to_string(&report).expect("a report is JSON"));
    } else {
        table(sweep, summary);
    }
    if arguments.trace_hash {
        println!("trace hash {:016x}", summary.hash);
    }
    if summary.violations_count == 0 && never.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(sweep: &Sweep, summary: &Summary) {
    let Sweep { simulated, level, replicas, .. } = *sweep;
    println!("protocol         {}, level {}, {replicas} replicas", simulated.name, level.name());
    println!("seeds            {}", summary.seeds);
    println!("events           {}", summary.events);
    println!("events/s a core  {:.0}", summary.events_per_s());
    println!("simulated hours  {:.3}", summary.simulated_s / 3600.0);
    println!("decided          {}", summary.decided);
    println!("client ops       {}", summary.client_ops);
    for (fault, count) in summary.faults.iter() {
        println!("  {:<20} {count}", fault.name());
    }
    println!("rare paths");
    for rare in Rare::ALL {
        println!("  {:<50} {}", rare.name(), summary.rare[*rare]);
    }
    println!("violations       {}", summary.violations_count);
    for (invariant, count) in &summary.violated {
        let expected = if simulated.expected_to_break().contains(invariant) { ", as expected" } else { "" };
        println!("  {invariant:<20} {count}{expected}");
    }
    println!("trace hash       {:016x}", summary.hash);
}

fn replay_line(simulated: Simulated, level: Level, replicas: usize, seed: u64) -> String {
    let Clocks { drift, fenced } = simulated.clocks();
    let drift = drift.map_or(String::new(), |drift| format!(" --drift {drift}"));
    let fenced = if fenced { " --fenced" } else { "" };
    format!(
        "cargo run --release --bin simulate -- --protocol {} --level {} --replicas {replicas}{drift}{fenced} --replay {seed}",
        simulated.name,
        level.name()
    )
}

fn replay(arguments: &Arguments, simulated: Simulated, level: Level, seed: u64) -> Result<ExitCode, String> {
    let wants_trace = !arguments.trace_hash || arguments.html.is_some();
    let replicas = arguments.replicas;
    let work = move || simulated.run(level, seed, replicas, wants_trace);
    let run = std::thread::Builder::new()
        .name(THREAD_NAME.to_owned())
        .spawn(work)
        .map_err(|error| format!("no thread: {error}"))?
        .join()
        .map_err(|_| "the run panicked".to_owned())?;
    if let (Some(file), Some(trace)) = (&arguments.html, &run.trace) {
        let page = diagram::page(&run, trace);
        std::fs::write(file, page).map_err(|error| format!("{}: {error}", file.display()))?;
        eprintln!("drawn to {}", file.display());
    } else if !arguments.trace_hash {
        let mut out = BufWriter::new(io::stdout().lock());
        let printed = print_trace(&run, &mut out);
        if printed.is_err() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let outcome = &run.outcome;
    let code = match &outcome.violation {
        Some(violation) => {
            eprintln!("seed {seed} step {}: {violation}", outcome.events);
            eprintln!("    {}", replay_line(simulated, level, replicas, seed));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    };
    println!("seed {seed}, {} events, trace hash {:016x}", outcome.events, outcome.hash);
    Ok(code)
}

fn print_trace(run: &Run, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:#?}", run.options)?;
    for line in run.trace.iter().flat_map(|trace| trace.lines()) {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// Sweeps of at least so many seeds, of clusters of at least so many nodes, must have taken every rare path.
const SEEDS_FOR_RARE_PATHS: u64 = 2_000;
const REPLICAS_FOR_RARE_PATHS: usize = 3;

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "a time is a number and s, m or h".to_owned())?;
    let seconds = match &text[digits.len()..] {
        "s" | "" => number,
        "m" => number.saturating_mul(60),
        "h" => number.saturating_mul(3600),
        unit => return Err(format!("unknown unit `{unit}`: use s, m or h")),
    };
    Ok(Duration::from_secs(seconds))
}
