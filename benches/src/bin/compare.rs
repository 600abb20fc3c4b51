//! Consensus protocols side by side on one workload, with a crash half way.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use serde::Serialize;
use synod_benches::compare::input::{self, Replicas};
use synod_benches::compare::progress::{EXIT_INTERRUPTED, Interrupt};
use synod_benches::compare::run::{self, Outcomes, Plan};
use synod_benches::compare::{RESTART_AFTER, RunError};
use synod_benches::contenders::{self, Contender};
use synod_benches::options::{ClientsAt, Flavour, Options, Stop, TransportKind};
use synod_benches::row::{Row, table};
use synod_benches::state_machine::{Lines, Summary, lines_of};
use synod_checker::{History, HistoryWriter, Numbered};
use tokio::runtime::{Builder, Runtime};

/// The name of the ceiling's row.
const UNREPLICATED: &str = "unreplicated";

fn main() -> ExitCode {
    let options = match Options::from_args(&contenders::names()) {
        Ok(options) => options,
        Err(Stop::Answer(help)) => {
            say(&help);
            return ExitCode::SUCCESS;
        }
        Err(Stop::Bad(problem)) => return bad(&problem),
    };
    let interrupt = Interrupt::default();
    if let Err(error) = interrupt.install() {
        complain(&format!("Ctrl-C will not end the run in order: {error}"));
    }
    let end = match &options.input {
        Some(file) => replicate_file(&options, file, &interrupt),
        None => compare(&options, &interrupt),
    };
    match end {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(End::Bad(problem)) => bad(&problem),
        Err(End::Run(_, RunError::Interrupted)) => {
            complain("interrupted");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(End::Run(name, error)) => {
            let source =
                std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            complain(&format!("{name}: {error}{source}"));
            ExitCode::FAILURE
        }
    }
}

/// Why the program ends early.
enum End {
    /// A bad option or file.
    Bad(String),
    /// A run that came to nothing, by name.
    Run(String, RunError),
}

fn compare(options: &Options, interrupt: &Interrupt) -> Result<bool, End> {
    let chosen: Vec<Box<dyn Contender>> =
        options.protocols.iter().filter_map(|name| contenders::named(name)).collect();
    let file = match &options.history {
        Some(path) => {
            Some(File::create(path).map_err(|error| End::Bad(format!("{}: {error}", path.display())))?)
        }
        None => None,
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut notes = Vec::new();
    let encrypted = Options { transport: TransportKind::Tls, ..options.clone() };
    for contender in &chosen {
        let with_tls = format!("{}+tls", contender.name());
        let plan = Plan {
            name: contender.name(),
            contender: &**contender,
            replicas: options.replicas.unwrap_or_else(|| contender.replicas()),
            crash: !options.no_faults,
            options,
        };
        let outcomes = one(&plan, interrupt)?;
        if let (Some(file), Some(path)) = (&file, &options.history) {
            write_history(file, path, &outcomes.history)?;
        }
        note(outcomes, options, &mut rows, &mut notes);
        if contender.name() == "fastpaxos" && plan.replicas == 3 {
            let remark =
                "fastpaxos: of 3 replicas all are needed for a fast quorum: the fast path tolerates no fault";
            if options.json {
                complain(remark);
            }
            notes.push(remark.to_owned());
        }
        if options.tls {
            let plan = Plan { name: &with_tls, options: &encrypted, ..plan };
            note(one(&plan, interrupt)?, options, &mut rows, &mut notes);
            if let [.., plain, tls] = &rows[..] {
                notes.push(format!(
                    "{}: TLS costs {:.1} % of the operations a second",
                    plain.protocol,
                    tls.loss_against(plain) * 100.0
                ));
                if options.json {
                    complain(notes.last().map_or("", String::as_str));
                }
            }
        }
    }
    let ceiling = Plan { name: UNREPLICATED, contender: &*chosen[0], replicas: 1, crash: false, options };
    note(one(&ceiling, interrupt)?, options, &mut rows, &mut notes);
    if !options.json {
        say(&format!("{}\n{}\n{}", table(&rows), notes.join("\n"), legend(options)));
    }
    Ok(rows.iter().all(Row::is_good))
}

fn one(plan: &Plan<'_>, interrupt: &Interrupt) -> Result<Outcomes, End> {
    let runtime = runtime(plan.options.flavour);
    let outcomes = runtime.block_on(run::run(plan, interrupt));
    // A check that Ctrl-C has overtaken is not waited for.
    runtime.shutdown_background();
    outcomes.map_err(|error| End::Run(plan.name.to_owned(), error))
}

/// Prints a row as JSON, or keeps it for the table; notes what a row has no column for.
fn note(outcomes: Outcomes, options: &Options, rows: &mut Vec<Row>, notes: &mut Vec<String>) {
    let Outcomes { row, account, snapshots, dropped, explanation, .. } = outcomes;
    let pace = match dropped {
        Some(dropped) => format!("open loop; {dropped} were due and never started"),
        None => "closed loop".to_owned(),
    };
    let mut note = format!("{}: {account}; {pace}", row.protocol);
    if snapshots > 0 {
        note.push_str(&format!("; {snapshots} snapshots taken"));
    }
    if let Some(explanation) = explanation {
        note.push_str(&format!("\n  not linearizable: {explanation}"));
    }
    if options.json {
        say(&row.json());
        complain(&note);
    }
    notes.push(note);
    rows.push(row);
}

/// What the table does not say by itself.
fn legend(options: &Options) -> String {
    let pace = match options.rate {
        Some(rate) => format!("open loop, {rate}/s offered, timed from the intended start"),
        None => "closed loop".to_owned(),
    };
    let at = match options.clients_at {
        ClientsAt::Leader => "at the leader",
        ClientsAt::Spread => "spread over the replicas",
    };
    let faults = if options.no_faults {
        "no crash".to_owned()
    } else {
        format!("leader crashed half way and restarted after {} ms", RESTART_AFTER.as_millis())
    };
    format!(
        "{pace}; {} clients {at}; {} keys, {}-byte values, {:.0}% reads, all linearizable; {} s measured after 1 s of \
         warm-up\n{} transport, {} log, {} runtime, {} allocator; {faults}; messages and bytes are all that replicas \
         sent, for reads too",
        options.clients,
        options.keys,
        options.payload,
        options.read_ratio * 100.0,
        options.seconds,
        if options.tls { "tcp, then tls" } else { options.transport.name() },
        options.storage.name(),
        options.flavour.name(),
        synod_benches::allocator(),
    )
}

fn write_history(file: &File, path: &Path, history: &History) -> Result<(), End> {
    let mut writer = HistoryWriter::new(BufWriter::with_capacity(1 << 20, file));
    let written = writer.write_all(history, &Numbered).and_then(|()| writer.finish().map(drop));
    written.map_err(|error| End::Bad(format!("{}: {error}", path.display())))
}

/// One protocol's digests as JSON.
#[derive(Serialize)]
struct Digests<'a> {
    protocol: &'a str,
    lines: u64,
    reigns: u64,
    replicas: Vec<String>,
    file: String,
}

fn replicate_file(options: &Options, path: &Path, interrupt: &Interrupt) -> Result<bool, End> {
    let bytes = std::fs::read(path).map_err(|error| End::Bad(format!("{}: {error}", path.display())))?;
    let lines = lines_of(&Bytes::from(bytes));
    let crash = !options.no_faults;
    if crash && lines.len() < 2 {
        let count = lines.len();
        let name = path.display();
        return Err(End::Bad(format!("{name}: a crash half way needs two lines, and there are {count}")));
    }
    if let Some(long) = lines.iter().position(|line| line.len() > LINE_BYTES_MAX) {
        return Err(End::Bad(format!(
            "{}: line {} is longer than {LINE_BYTES_MAX} bytes",
            path.display(),
            long + 1
        )));
    }
    let mut direct = Lines::default();
    lines.iter().for_each(|line| direct.push(line));
    let file = direct.summary();

    let mut good = true;
    for contender in options.protocols.iter().filter_map(|name| contenders::named(name)) {
        let name = contender.name();
        let runtime = runtime(options.flavour);
        let count = options.replicas.unwrap_or_else(|| contender.replicas());
        let run = input::run(&*contender, options.surroundings(), count, &lines, crash, interrupt);
        let replicas = runtime.block_on(run);
        runtime.shutdown_background();
        let replicas = replicas.map_err(|error| End::Run(name.to_owned(), error))?;
        print_digests(name, &replicas, &file, options.json);
        if let Some(problem) = replicas.problem(&file) {
            complain(&format!("{name}: {problem}"));
            good = false;
        }
    }
    if !options.json {
        say(&format!("{:<14} {}", "file", file.hex()));
    }
    Ok(good)
}

fn print_digests(name: &str, replicas: &Replicas, file: &Summary, json: bool) {
    let summaries = replicas.summaries.as_deref().unwrap_or_default();
    if json {
        let digests = Digests {
            protocol: name,
            lines: file.lines,
            reigns: summaries.iter().map(|summary| summary.reigns).min().unwrap_or(0),
            replicas: summaries.iter().map(Summary::hex).collect(),
            file: file.hex(),
        };
        say(&serde_json::to_string(&digests).expect("numbers and strings"));
        return;
    }
    for (at, summary) in summaries.iter().enumerate() {
        say(&format!("{:<14} {}", format!("{name} n{}", at + 1), summary.hex()));
    }
    let reigns = summaries.iter().map(|summary| summary.reigns).min().unwrap_or(0);
    complain(&format!("{name}: {} lines, decided in {reigns} reigns", file.lines));
}

/// The largest command that a replica takes.
const LINE_BYTES_MAX: usize = 1 << 20;

fn runtime(flavour: Flavour) -> Runtime {
    let mut builder = match flavour {
        Flavour::CurrentThread => Builder::new_current_thread(),
        Flavour::MultiThread => Builder::new_multi_thread(),
    };
    builder.enable_all().build().expect("threads for a runtime")
}

/// Prints to standard output; a reader that went away is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "compare: {text}");
}

fn bad(problem: &str) -> ExitCode {
    complain(problem);
    ExitCode::from(2)
}
