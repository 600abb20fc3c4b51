//! `check-history FILE`: is a recorded history linearizable?
//!
//! Exits 0 if it is, 1 if it is not, 3 if the budget ran out, 2 for a bad option or an unreadable file.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;
use synod_checker::{
    Algorithm, Budget, CheckOptions, Exhausted, FlipKind, NamedHistory, Names, Overlap, ReadOptions, Report,
    Tally, Verdict, check, flip_one_read, read_history,
};

/// Check a recorded client history for linearizability.
///
/// FILE holds one JSON object a line: client, seq, op (put or get), key, value, call_ns, return_ns, outcome (ok, failed
/// or unknown). Keys start absent and every written value is unique.
///
/// Exit codes: 0 linearizable, 1 not, 3 unknown because the budget ran out, 2 bad option or file.
#[derive(Parser)]
#[command(name = "check-history")]
struct Options {
    /// The history; `-` is standard input
    file: PathBuf,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,

    /// Steps after which the answer is "unknown"
    #[arg(long, value_name = "STEPS", default_value_t = Budget::default().steps)]
    budget: u64,

    /// Megabytes of visited configurations after which the answer is "unknown"
    #[arg(long, value_name = "MB", default_value_t = Budget::default().memory_bytes >> 20)]
    memory_mb: usize,

    /// Decide every key by the search instead of by zones: slower, and independent of them
    #[arg(long)]
    search: bool,

    /// Let operations of one client overlap
    #[arg(long)]
    allow_overlap: bool,

    /// The longest line accepted, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = ReadOptions::default().line_bytes_max)]
    line_bytes_max: usize,

    /// Test the checker: require a linearizable history, replace one returned value, and require a "no"
    ///
    /// Exits 0 only if the history is linearizable and its falsified copy, kept in memory, is not.
    #[arg(long)]
    self_test: bool,

    /// Which returned value --self-test replaces
    #[arg(long, value_name = "N", default_value_t = 0, requires = "self_test")]
    seed: u64,
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if !error.use_stderr() => {
            say(&error.to_string());
            return ExitCode::SUCCESS;
        }
        Err(error) => return bad(first_paragraph(&error.to_string()).trim_start_matches("error: ")),
    };
    let started = now();
    let named = match read(&options) {
        Ok(named) => named,
        Err(problem) => return bad(&problem),
    };
    let run = Run {
        read_time: started.elapsed(),
        tally: named.history.tally(),
        check_options: check_options(&options),
    };
    if options.self_test { run.self_test(named, &options) } else { run.verdict(&named, &options) }
}

fn read(options: &Options) -> Result<NamedHistory, String> {
    let mut read_options = ReadOptions::default();
    read_options.line_bytes_max = options.line_bytes_max;
    if options.allow_overlap {
        read_options.overlap = Overlap::Allow;
    }
    let name = options.file.display();
    let history = if options.file == Path::new("-") {
        if io::stdin().is_terminal() {
            return Err("standard input is a terminal".to_owned());
        }
        read_history(io::stdin().lock(), &read_options)
    } else {
        let file = File::open(&options.file).map_err(|error| format!("{name}: {error}"))?;
        read_history(BufReader::with_capacity(1 << 20, file), &read_options)
    };
    history.map_err(|error| {
        let source =
            std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{name}: {error}{source}")
    })
}

fn check_options(options: &Options) -> CheckOptions {
    let mut check_options = CheckOptions::default();
    check_options.budget.steps = options.budget;
    check_options.budget.memory_bytes = options.memory_mb.saturating_mul(1 << 20);
    if options.search {
        check_options.algorithm = Algorithm::Search;
    }
    check_options
}

struct Run {
    read_time: Duration,
    tally: Tally,
    check_options: CheckOptions,
}

impl Run {
    fn verdict(&self, named: &NamedHistory, options: &Options) -> ExitCode {
        let started = now();
        let report = check(&named.history, &self.check_options);
        let check_time = started.elapsed();
        let (word, detail, code) = outcome(&report, &named.names);
        if options.json {
            say_json(&self.json(&report, word, detail, check_time));
        } else {
            let Tally { ok, failed, unknown } = self.tally;
            let separator = if detail.is_some() { "\n" } else { "" };
            say(&format!(
                "{}: {} operations on {} keys ({ok} ok, {failed} failed, {unknown} unknown), read in {:.2} s, checked \
                 in {:.2} s{separator}{}",
                word.replace('_', " "),
                report.operations,
                report.keys,
                self.read_time.as_secs_f64(),
                check_time.as_secs_f64(),
                detail.unwrap_or_default(),
            ));
        }
        ExitCode::from(code)
    }

    fn self_test(&self, mut named: NamedHistory, options: &Options) -> ExitCode {
        let report = check(&named.history, &self.check_options);
        let (word, detail, code) = outcome(&report, &named.names);
        if code != LINEARIZABLE {
            return self.tested(
                options,
                &format!("failed: the history itself is {}", word.replace('_', " ")),
                detail,
                code,
            );
        }
        let fresh = named.names.fresh_value_id();
        let Some(flip) = flip_one_read(&mut named.history, options.seed, fresh) else {
            return bad(&format!(
                "{}: no successful get whose value could be replaced",
                options.file.display()
            ));
        };
        let kind = match flip.kind {
            FlipKind::Stale => "a stale value",
            FlipKind::NeverWritten => "a value never written",
        };
        let flipped = format!(
            "the get of client {} seq {} made to return {kind}",
            flip.before.client().0,
            flip.before.seq().0
        );
        let report = check(&named.history, &self.check_options);
        let (_, detail, code) = outcome(&report, &named.names);
        match code {
            NOT_LINEARIZABLE => self.tested(
                options,
                &format!("passed: linearizable, and not so with {flipped}"),
                detail,
                LINEARIZABLE,
            ),
            UNKNOWN => self.tested(options, &format!("failed: unknown with {flipped}"), detail, UNKNOWN),
            _ => self.tested(
                options,
                &format!("failed: still linearizable with {flipped}"),
                None,
                NOT_LINEARIZABLE,
            ),
        }
    }

    fn tested(&self, options: &Options, message: &str, detail: Option<String>, code: u8) -> ExitCode {
        if options.json {
            let passed = code == LINEARIZABLE;
            say_json(&SelfTestJson {
                self_test: if passed { "passed" } else { "failed" },
                message,
                explanation: detail,
            });
        } else {
            let detail = detail.map(|detail| format!("\n{detail}")).unwrap_or_default();
            say(&format!("self-test {message}{detail}"));
        }
        ExitCode::from(code)
    }

    fn json<'a>(
        &self,
        report: &Report,
        verdict: &'a str,
        detail: Option<String>,
        check_time: Duration,
    ) -> Json<'a> {
        Json {
            verdict,
            operations: report.operations,
            keys: report.keys,
            ok: self.tally.ok,
            failed: self.tally.failed,
            unknown: self.tally.unknown,
            steps: report.steps,
            read_ms: self.read_time.as_millis(),
            check_ms: check_time.as_millis(),
            explanation: detail,
        }
    }
}

/// The word for a verdict, its explanation, and its exit code.
fn outcome(report: &Report, names: &impl Names) -> (&'static str, Option<String>, u8) {
    match &report.verdict {
        Verdict::Linearizable => ("linearizable", None, LINEARIZABLE),
        Verdict::NotLinearizable(violation) => {
            ("not_linearizable", Some(violation.explain(names).to_string()), NOT_LINEARIZABLE)
        }
        Verdict::Unknown { why, key } => {
            let what = match why {
                Exhausted::Steps => "steps (--budget)",
                Exhausted::Memory => "memory (--memory-mb)",
            };
            ("unknown", Some(format!("key {:?}: the budget of {what} ran out", names.key(*key))), UNKNOWN)
        }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    verdict: &'a str,
    operations: usize,
    keys: usize,
    ok: u64,
    failed: u64,
    unknown: u64,
    steps: u64,
    read_ms: u128,
    check_ms: u128,
    explanation: Option<String>,
}

#[derive(Serialize)]
struct SelfTestJson<'a> {
    self_test: &'a str,
    message: &'a str,
    explanation: Option<String>,
}

/// Prints to standard output; a reader that went away does not change the verdict.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
}

fn say_json(value: &impl Serialize) {
    say(&serde_json::to_string(value).expect("numbers and strings"));
}

fn bad(problem: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "check-history: {problem}");
    ExitCode::from(BAD)
}

/// What clap has to say before the usage, on one line.
fn first_paragraph(text: &str) -> String {
    text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
}

#[expect(clippy::disallowed_methods, reason = "the binary says how long it took")]
fn now() -> Instant {
    Instant::now()
}

const LINEARIZABLE: u8 = 0;
const NOT_LINEARIZABLE: u8 = 1;
const BAD: u8 = 2;
const UNKNOWN: u8 = 3;
