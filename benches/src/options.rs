//! The command line of `compare`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::compare::cluster::Surroundings;

/// Run consensus protocols side by side on one workload, crash the leader, and check what the clients saw.
///
/// For each protocol: replicas in one process, a key-value state machine, clients that put and get. Half
/// way the leader is crashed (everything volatile is lost, its storage survives) and restarted. The client
/// history is checked for linearizability and the replicas for equal state. An unreplicated node, never
/// crashed, stands beside the protocols as the ceiling.
///
/// Exit codes: 0 all verdicts are good, 1 one is not, 2 bad option or file, 130 interrupted.
#[derive(Clone, Debug, Parser)]
#[command(name = "compare")]
pub struct Options {
    /// Protocols to run, separated by commas; all there are unless told
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub protocols: Vec<String>,

    /// Replicas of each protocol [default: 3, and 4 for flexpaxos and fastpaxos]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u64>,

    /// Clients, each with one operation open at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub clients: u32,

    /// Size of a value; key and header come on top
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub payload: usize,

    /// Keys, chosen uniformly
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub keys: u32,

    /// Where clients sit: all at the leader, or spread over the replicas
    #[arg(long, value_enum, default_value_t = ClientsAt::Leader)]
    pub clients_at: ClientsAt,

    /// Open loop: start N operations a second on a fixed schedule, and time each from its intended start;
    /// without it each client calls again as soon as it is answered (closed loop)
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,

    /// Share of operations that are reads, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub read_ratio: f64,

    /// Seconds measured; one second of warm-up comes before them
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub seconds: f64,

    /// What carries messages between replicas
    #[arg(long, value_enum, default_value_t = TransportKind::Tcp)]
    pub transport: TransportKind,

    /// Run each protocol on TCP in plaintext and again with TLS, and print what TLS costs
    #[arg(long, conflicts_with_all = ["transport", "input", "history"])]
    pub tls: bool,

    /// What holds the log
    #[arg(long, value_enum, default_value_t = StorageKind::Wal)]
    pub storage: StorageKind,

    /// Take a snapshot of each replica after so many entries, in memory, and cut its log off behind the one before;
    /// without it logs grow through the whole run
    #[arg(long, value_name = "N")]
    pub snapshot_entries: Option<u64>,

    /// The tokio runtime that everything runs on
    #[arg(long, value_enum, default_value_t = Flavour::CurrentThread)]
    pub flavour: Flavour,

    /// Crash nobody
    #[arg(long)]
    pub no_faults: bool,

    /// Write the client history of the one protocol run to FILE, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,

    /// Replicate every line of FILE as a command in order instead of the key-value load, and print each
    /// replica's SHA-256 of the resulting sequence and that of the file (each line with a line feed)
    #[arg(long, value_name = "FILE", conflicts_with = "history")]
    pub input: Option<PathBuf>,

    /// Print one JSON object a line instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Where clients sit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientsAt {
    /// All at the leader; they follow it when it changes.
    Leader,
    /// Client `i` at replica `i` modulo the replicas; those of a crashed replica move to the leader.
    Spread,
}

/// What carries messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportKind {
    /// Queues in one process.
    Memory,
    /// TCP on the loopback interface.
    Tcp,
    /// The same with mutual TLS, on certificates that are made at the start.
    Tls,
}

/// What holds the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageKind {
    /// Memory that survives a node's crash, not the process.
    Memory,
    /// A write-ahead log on disk, in a temporary folder.
    Wal,
    /// A database of redb on disk, in a temporary folder.
    #[cfg(feature = "redb")]
    Redb,
}

/// The tokio runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flavour {
    /// One thread for replicas and clients.
    CurrentThread,
    /// A worker thread for each core.
    MultiThread,
}

impl TransportKind {
    /// The name on the command line and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TransportKind::Memory => "memory",
            TransportKind::Tcp => "tcp",
            TransportKind::Tls => "tls",
        }
    }
}

impl StorageKind {
    /// The name on the command line and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StorageKind::Memory => "memory",
            StorageKind::Wal => "wal",
            #[cfg(feature = "redb")]
            StorageKind::Redb => "redb",
        }
    }
}

impl Flavour {
    /// The name on the command line and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Flavour::CurrentThread => "current-thread",
            Flavour::MultiThread => "multi-thread",
        }
    }
}

impl Options {
    /// Reads and checks the arguments of this process.
    ///
    /// # Errors
    /// What to print, and whether it is an answer (`--help`) or a complaint.
    pub fn from_args(known: &[&str]) -> Result<Options, Stop> {
        Options::parse_from(std::env::args_os(), known)
    }

    /// Reads and checks arguments; the first is the program's name. An empty `--protocols` is filled with
    /// every `known` one.
    ///
    /// # Errors
    /// As [`Options::from_args`].
    pub fn parse_from<A>(args: A, known: &[&str]) -> Result<Options, Stop>
    where
        A: IntoIterator,
        A::Item: Into<std::ffi::OsString> + Clone,
    {
        let mut options = Options::try_parse_from(args).map_err(Stop::of_clap)?;
        if options.protocols.is_empty() {
            options.protocols = known.iter().map(|&name| name.to_owned()).collect();
        }
        match options.problem(known) {
            Some(problem) => Err(Stop::Bad(problem)),
            None => Ok(options),
        }
    }

    /// What carries messages, what holds logs, and how far they grow.
    #[must_use]
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            transport: self.transport,
            storage: self.storage,
            snapshot_entries: self.snapshot_entries,
        }
    }

    /// The time measured.
    #[must_use]
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// What is wrong with the options, if anything is.
    fn problem(&self, known: &[&str]) -> Option<String> {
        for (position, name) in self.protocols.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Some(format!(
                    "--protocols: unknown protocol `{name}`; there are: {}",
                    known.join(", ")
                ));
            }
            if self.protocols[..position].contains(name) {
                return Some(format!("--protocols: `{name}` is listed twice"));
            }
        }
        if self.history.is_some() && self.protocols.len() > 1 {
            return Some(format!(
                "--history holds one protocol's run; choose one of them with --protocols ({})",
                self.protocols.join(", ")
            ));
        }
        within("--replicas", self.replicas.unwrap_or(1), 1, Self::REPLICAS_MAX)
            .or_else(|| within("--clients", u64::from(self.clients), 1, Self::CLIENTS_MAX))
            .or_else(|| within("--payload", self.payload as u64, Self::PAYLOAD_MIN, Self::PAYLOAD_MAX))
            .or_else(|| within("--keys", u64::from(self.keys), 1, Self::KEYS_MAX))
            .or_else(|| {
                within("--snapshot-entries", self.snapshot_entries.unwrap_or(1), 1, Self::ENTRIES_MAX)
            })
            .or_else(|| positive("--rate", self.rate.unwrap_or(1.0), Self::RATE_MAX))
            .or_else(|| positive("--seconds", self.seconds, Self::SECONDS_MAX))
            .or_else(|| {
                let share = self.read_ratio;
                (!(0.0..=1.0).contains(&share))
                    .then(|| format!("--read-ratio {share} is not between 0 and 1"))
            })
    }

    /// A cluster has at most this many replicas here.
    pub const REPLICAS_MAX: u64 = 64;
    /// Each client holds a replicated session, and a cluster keeps 4,096 of them.
    pub const CLIENTS_MAX: u64 = 4_000;
    /// A value starts with eight bytes that make it unique.
    pub const PAYLOAD_MIN: u64 = 8;
    /// Larger values are no command any more.
    pub const PAYLOAD_MAX: u64 = 512 << 10;
    /// The state machine holds every key on each replica.
    pub const KEYS_MAX: u64 = 100_000_000;
    /// A run that long takes no snapshot.
    pub const ENTRIES_MAX: u64 = 1 << 40;
    /// Beyond what any machine does.
    pub const RATE_MAX: f64 = 1e9;
    /// A day.
    pub const SECONDS_MAX: f64 = 86_400.0;
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The answer to `--help`, for standard output.
    Answer(String),
    /// A bad option, as one line for standard error.
    Bad(String),
}

impl Stop {
    /// What clap has to say: an answer, or a complaint on one line.
    #[must_use]
    pub fn of_clap(error: clap::Error) -> Stop {
        let text = error.to_string();
        if error.use_stderr() {
            let first = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            let line = first.collect::<Vec<_>>().join(" ");
            Stop::Bad(line.trim_start_matches("error: ").to_owned())
        } else {
            Stop::Answer(text)
        }
    }
}

fn within(option: &str, value: u64, min: u64, max: u64) -> Option<String> {
    (value < min || value > max).then(|| format!("{option} {value} is not between {min} and {max}"))
}

fn positive(option: &str, value: f64, max: f64) -> Option<String> {
    (!(value > 0.0 && value <= max)).then(|| format!("{option} {value} is not above 0 and at most {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options, Stop> {
        Options::parse_from(["compare"].into_iter().chain(args.split_whitespace()), &["raft", "zab"])
    }

    fn complaint(args: &str) -> String {
        match parse(args) {
            Err(Stop::Bad(line)) => line,
            other => panic!("{args:?} gave {other:?}"),
        }
    }

    #[test]
    fn without_options_every_protocol_runs_on_the_documented_workload() {
        let options = parse("").unwrap();
        assert_eq!(options.protocols, ["raft", "zab"]);
        assert_eq!(
            (options.replicas, options.clients, options.payload, options.keys),
            (None, 64, 128, 10_000)
        );
        assert_eq!((options.clients_at, options.rate), (ClientsAt::Leader, None));
        assert_eq!((options.read_ratio, options.flavour), (0.5, Flavour::CurrentThread));
        assert_eq!((options.transport, options.storage), (TransportKind::Tcp, StorageKind::Wal));
        assert!(!options.no_faults && !options.json && options.history.is_none() && options.input.is_none());
    }

    #[test]
    fn every_option_of_the_command_line_is_understood() {
        let options = parse(
            "--protocols zab --replicas 5 --clients 9 --payload 64 --keys 7 --clients-at spread --rate 1000 \
             --read-ratio 0.9 --seconds 2.5 --transport tcp --storage memory --flavour multi-thread \
             --no-faults --history h.jsonl --json",
        )
        .unwrap();
        assert_eq!(options.protocols, ["zab"]);
        assert_eq!((options.replicas, options.clients, options.payload, options.keys), (Some(5), 9, 64, 7));
        assert_eq!((options.clients_at, options.rate), (ClientsAt::Spread, Some(1000.0)));
        assert_eq!((options.read_ratio, options.seconds), (0.9, 2.5));
        assert_eq!((options.transport, options.flavour), (TransportKind::Tcp, Flavour::MultiThread));
        assert!(options.no_faults && options.json && options.history.is_some());
        assert!(parse("--input lines.txt").unwrap().input.is_some());
        assert!(parse("--tls").unwrap().tls);
        assert_eq!(parse("--transport tls").unwrap().transport, TransportKind::Tls);
    }

    #[test]
    fn a_bad_option_is_one_line_that_names_it() {
        for (args, word) in [
            ("--transport pigeon", "pigeon"),
            ("--protocols paxos", "unknown protocol `paxos`"),
            ("--protocols raft,raft", "twice"),
            ("--history h", "--protocols"),
            ("--protocols raft --history h --input i", "--input"),
            ("--tls --transport memory", "--tls"),
            ("--tls --input i", "--tls"),
            ("--replicas 0", "--replicas 0"),
            ("--clients 0", "--clients 0"),
            ("--clients 1e3", "--clients"),
            ("--payload 7", "--payload 7"),
            ("--keys 0", "--keys 0"),
            ("--snapshot-entries 0", "--snapshot-entries 0"),
            ("--rate 0", "--rate 0"),
            ("--seconds NaN", "--seconds NaN"),
            ("--seconds inf", "--seconds inf"),
            ("--read-ratio 1.5", "--read-ratio 1.5"),
            ("--flavour fast", "fast"),
            ("--frobnicate", "--frobnicate"),
            ("stray", "stray"),
        ] {
            let line = complaint(args);
            assert!(line.contains(word), "{args:?} gave {line:?}");
            assert_eq!(line.lines().count(), 1, "{args:?} gave {line:?}");
            assert!(!line.starts_with("error"), "{line:?}");
        }
    }

    #[test]
    fn help_is_an_answer_and_not_a_complaint() {
        let Err(Stop::Answer(help)) = parse("--help") else { panic!("no answer") };
        for option in
            ["--protocols", "--clients-at", "--rate", "--history", "--input", "--json", "--no-faults"]
        {
            assert!(help.contains(option), "{option} is missing");
        }
    }
}
