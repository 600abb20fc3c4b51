//! `kv-faults`: three `kv` processes, clients, and what goes wrong on real machines.
//!
//! Each round kills a node with SIGKILL and starts it again, stops one with SIGSTOP and wakes it, and cuts
//! the network, in random order, with acknowledged writes before, between and after. In every third round
//! the victim is the leader. At the end every key is read, the replicas are compared, and the history of
//! all clients is checked for linearizability.
//!
//! SIGKILL takes a process away and leaves the page cache: this proves nothing about fsync. What a crash of
//! the machine leaves is shown by the crash-point test of the log, and by the simulator.

mod load;
mod processes;
mod wires;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rustix::process::Signal;
use serde::Serialize;
use synod_checker::{CheckOptions, History, HistoryWriter, Numbered, Recorder, Verdict, check};
use synod_kv::client::Connection;
use synod_kv::wire::{Request, Response};
use tokio::time::sleep;

use crate::load::Shared;
use crate::processes::Processes;
use crate::wires::{Cut, Inside, Namespaces, NodeNumber, Proxies, Wires};

/// How long the cluster may take to acknowledge the writes that are waited for.
const PROGRESS_MAX: Duration = Duration::from_secs(60);
/// The longest time a node is away, asleep or cut off.
const AWAY_MAX_MS: u64 = 1_200;
const NODES: usize = 3;

/// Kill, stop and cut the nodes of a real `kv` cluster, and check what its clients saw.
///
/// Exit codes: 0 the history is linearizable and nothing acknowledged is lost, 1 it is not, or the cluster
/// did not go on, 2 bad usage.
#[derive(Debug, Parser)]
#[command(name = "kv-faults")]
struct Options {
    /// Rounds; each has a kill, a stop and a cut
    #[arg(long, value_name = "N", default_value_t = 300)]
    rounds: u32,

    /// Writes acknowledged before, between and after the faults of a round, at least
    #[arg(long, value_name = "N", default_value_t = 100)]
    writes: u64,

    /// Clients
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients: u32,

    /// Seeds the faults and the clients
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// What orders the log
    #[arg(long, value_name = "NAME", default_value = "raft")]
    protocol: String,

    /// Nodes take a snapshot after so many entries
    #[arg(long, value_name = "N", default_value_t = 500)]
    snapshot_entries: u64,

    /// The nodes speak TLS to each other
    #[arg(long)]
    tls: bool,

    /// How the network is cut
    #[arg(long, value_enum, default_value_t = Means::Auto)]
    cut: Means,

    /// The `kv` binary; the one beside this one unless told
    #[arg(long, value_name = "FILE")]
    kv: Option<PathBuf>,

    /// Write the history of all clients to FILE, as JSON lines
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,

    /// Namespaces are made, and this process is in that of the clients
    #[arg(long, value_name = "PREFIX", hide = true)]
    inside: Option<String>,
}

/// How the network is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Means {
    /// Network namespaces where they can be made, otherwise a proxy.
    Auto,
    /// Network namespaces; needs `ip` and the right to make them.
    Namespaces,
    /// A proxy between every two nodes.
    Proxy,
}

/// What came out.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    protocol: String,
    cut: &'static str,
    rounds: u32,
    kills: u32,
    stops: u32,
    cuts: u32,
    leader_victims: u32,
    writes_acknowledged: u64,
    operations: usize,
    ok: u64,
    failed: u64,
    unknown: u64,
    reigns: u64,
    /// The newest snapshot of the node that has the oldest one.
    snapshot: u64,
    snapshots_installed: u64,
    replicas_equal: bool,
    linearizable: Option<bool>,
    seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&options).await {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(problem) => {
            eprintln!("kv-faults: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<bool, String> {
    if let Some(prefix) = &options.inside {
        let wires = Wires::Namespaces(Inside { prefix: prefix.clone(), nodes: NODES });
        return conduct(options, wires, "namespaces").await;
    }
    if options.cut != Means::Proxy {
        match Namespaces::make(&format!("synod-kv-{}", std::process::id()), NODES).await {
            Ok(namespaces) => return run_inside(&namespaces).await,
            Err(error) if options.cut == Means::Namespaces => return Err(error.to_string()),
            Err(error) => eprintln!("kv-faults: {error}; the network is cut by a proxy"),
        }
    }
    let proxies = Proxies::start(NODES).await.map_err(|error| error.to_string())?;
    conduct(options, Wires::Proxies(proxies), "proxy").await
}

/// Runs this program again where the clients live, with the same arguments.
async fn run_inside(namespaces: &Namespaces) -> Result<bool, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = namespaces.inside(&program);
    command.args(std::env::args_os().skip(1)).arg("--inside").arg(namespaces.prefix());
    let mut child = command.kill_on_drop(true).spawn().map_err(|error| error.to_string())?;
    tokio::select! {
        status = child.wait() => Ok(status.map_err(|error| error.to_string())?.success()),
        _ = tokio::signal::ctrl_c() => {
            // The child was told as well; it ends its nodes.
            let _ = child.wait().await;
            Err("interrupted".to_owned())
        }
    }
}

async fn conduct(options: &Options, wires: Wires, cut: &'static str) -> Result<bool, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let kv = match &options.kv {
        Some(kv) => kv.clone(),
        None => std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("kv"),
    };
    let arguments = [
        "--protocol".to_owned(),
        options.protocol.clone(),
        "--snapshot-entries".to_owned(),
        options.snapshot_entries.to_string(),
    ];
    let mut processes = Processes::new(wires, NODES, &kv, arguments.into(), dir.path());
    if options.tls {
        processes.encrypt().map_err(|error| error.to_string())?;
    }
    let mut run = Run {
        random: Xoshiro256PlusPlus::seed_from_u64(options.seed),
        shared: Shared::new((0..NODES).map(|node| processes.wires.client_address(node)).collect()),
        outcome: Outcome { protocol: options.protocol.clone(), cut, ..Outcome::default() },
        processes,
        options,
    };
    let conducted = tokio::select! {
        conducted = run.conduct() => conducted,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    if let Err(problem) = conducted {
        let kept = dir.keep();
        return Err(format!("{problem}; logs and what the nodes said are in {}", kept.display()));
    }
    let outcome = &run.outcome;
    let good = outcome.linearizable == Some(true) && outcome.replicas_equal;
    let text = serde_json::to_string(outcome).map_err(|error| error.to_string())?;
    if options.json {
        println!("{text}");
    } else {
        println!("{}", outcome.describe());
    }
    if !good {
        eprintln!("kv-faults: logs and what the nodes said are in {}", dir.keep().display());
    }
    Ok(good)
}

struct Run<'a> {
    options: &'a Options,
    processes: Processes,
    shared: Arc<Shared>,
    random: Xoshiro256PlusPlus,
    outcome: Outcome,
}

impl Run<'_> {
    async fn conduct(&mut self) -> Result<(), String> {
        let started = Instant::now();
        for node in 0..NODES {
            self.processes.start(node, true).await.map_err(|error| error.to_string())?;
        }
        let clients: Vec<_> = (0..self.options.clients)
            .map(|client| tokio::spawn(load::run(client, self.options.seed, Arc::clone(&self.shared))))
            .collect();
        for round in 0..self.options.rounds {
            self.round(round).await.map_err(|problem| format!("round {round}: {problem}"))?;
            if (round + 1) % 10 == 0 {
                self.shared.move_keys();
                eprintln!("{} rounds, {} writes acknowledged", round + 1, self.acknowledged());
            }
        }
        self.shared.ended.store(true, Ordering::Relaxed);
        let mut recorders = Vec::new();
        for client in clients {
            recorders.push(client.await.map_err(|error| error.to_string())?);
        }
        recorders.push(load::read_all(self.options.clients, &self.shared).await?);
        self.outcome.rounds = self.options.rounds;
        self.outcome.writes_acknowledged = self.acknowledged();
        self.outcome.replicas_equal = self.compare_replicas().await?;
        self.judge(recorders)?;
        self.outcome.seconds = started.elapsed().as_secs();
        Ok(())
    }

    /// A kill, a stop and a cut in random order, with acknowledged writes before, between and after.
    async fn round(&mut self, round: u32) -> Result<(), String> {
        let mut faults = [Fault::Kill, Fault::Stop, Fault::Cut];
        for last in (1..faults.len()).rev() {
            faults.swap(last, self.below(last as u64 + 1) as usize);
        }
        for fault in faults {
            self.wait_for_writes().await?;
            let victim = if round.is_multiple_of(3) {
                self.outcome.leader_victims += 1;
                self.wait_for_leader().await?
            } else {
                self.below(NODES as u64) as usize
            };
            self.strike(fault, victim)
                .await
                .map_err(|error| format!("{fault:?} of {}: {error}", victim + 1))?;
        }
        self.wait_for_writes().await
    }

    async fn strike(&mut self, fault: Fault, victim: NodeNumber) -> std::io::Result<()> {
        let away = Duration::from_millis(self.below(AWAY_MAX_MS));
        match fault {
            Fault::Kill => {
                self.outcome.snapshots_installed += self.installed(victim).await;
                self.processes.kill(victim).await?;
                sleep(away).await;
                self.processes.start(victim, false).await?;
                self.outcome.kills += 1;
            }
            Fault::Stop => {
                self.processes.signal(victim, Signal::STOP)?;
                sleep(away).await;
                self.processes.signal(victim, Signal::CONT)?;
                self.outcome.stops += 1;
            }
            Fault::Cut => {
                let cut = if self.below(3) == 0 {
                    Cut::Pair(victim, (victim + 1 + self.below(NODES as u64 - 1) as usize) % NODES)
                } else {
                    Cut::Alone(victim)
                };
                self.processes.wires.set(cut, false).await?;
                sleep(away).await;
                self.processes.wires.set(cut, true).await?;
                self.outcome.cuts += 1;
            }
        }
        Ok(())
    }

    /// Snapshots of others that a node started from in this life.
    async fn installed(&self, node: NodeNumber) -> u64 {
        self.processes.standing(node).await.map_or(0, |standing| standing.snapshots_installed)
    }

    async fn wait_for_writes(&self) -> Result<(), String> {
        let from = self.acknowledged();
        let started = Instant::now();
        while self.acknowledged() < from + self.options.writes {
            if started.elapsed() > PROGRESS_MAX {
                let done = self.acknowledged() - from;
                return Err(format!("{done} writes were acknowledged in {} s", PROGRESS_MAX.as_secs()));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn wait_for_leader(&self) -> Result<NodeNumber, String> {
        let started = Instant::now();
        loop {
            if let Some(leader) = self.processes.leader().await {
                return Ok(leader);
            }
            if started.elapsed() > PROGRESS_MAX {
                return Err(format!("nobody led within {} s", PROGRESS_MAX.as_secs()));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all replicas have applied the same log, and compares every key on each.
    async fn compare_replicas(&mut self) -> Result<bool, String> {
        let started = Instant::now();
        loop {
            let mut applied = Vec::new();
            for node in 0..NODES {
                let standing = self.processes.standing(node).await;
                self.outcome.reigns = standing.as_ref().map_or(0, |s| s.reign).max(self.outcome.reigns);
                applied.push(standing.map(|standing| standing.applied));
            }
            if applied.iter().all(|index| index.is_some() && *index == applied[0]) {
                break;
            }
            if started.elapsed() > PROGRESS_MAX {
                return Err(format!("the replicas have applied through {applied:?}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.outcome.snapshot = u64::MAX;
        let mut states = Vec::new();
        for node in 0..NODES {
            let standing = self.processes.standing(node).await;
            let snapshot = standing.as_ref().map_or(0, |standing| standing.snapshot);
            self.outcome.snapshot = self.outcome.snapshot.min(snapshot);
            self.outcome.snapshots_installed += standing.map_or(0, |standing| standing.snapshots_installed);
            states.push(self.state_of(node).await.map_err(|error| error.to_string())?);
        }
        Ok(states.iter().all(|state| *state == states[0]))
    }

    async fn state_of(&self, node: NodeNumber) -> std::io::Result<Vec<Response>> {
        let mut connection = Connection::open(self.processes.wires.client_address(node)).await?;
        let mut state = Vec::new();
        for key in self.shared.keys() {
            let key = load::key_name(synod_checker::KeyId(key));
            state.push(connection.ask(&Request::Get { key, local: true }).await?);
        }
        Ok(state)
    }

    fn judge(&mut self, recorders: Vec<Recorder>) -> Result<(), String> {
        let history = Recorder::join(recorders).map_err(|error| error.to_string())?;
        let tally = history.tally();
        self.outcome.operations = history.len();
        (self.outcome.ok, self.outcome.failed, self.outcome.unknown) =
            (tally.ok, tally.failed, tally.unknown);
        if let Some(file) = &self.options.history {
            write_history(file, &history).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        self.outcome.linearizable = match check(&history, &CheckOptions::default()).verdict {
            Verdict::Linearizable => Some(true),
            Verdict::NotLinearizable(violation) => {
                eprintln!("{}", violation.explain(&Numbered));
                Some(false)
            }
            Verdict::Unknown { .. } => None,
        };
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Stop,
    Cut,
}

impl Outcome {
    fn describe(&self) -> String {
        let verdict = match self.linearizable {
            Some(true) => "linearizable",
            Some(false) => "NOT LINEARIZABLE",
            None => "not decided within the budget",
        };
        format!(
            "{}: {} rounds in {} s: {} kills, {} stops, {} cuts ({}), {} of them of the leader; reign {}\n\
             {} writes acknowledged; {} operations: {} ok, {} failed, {} unknown\n\
             every node has a snapshot through {} or later; {} snapshots took the place of a log\n\
             history {verdict}; replicas {}",
            self.protocol,
            self.rounds,
            self.seconds,
            self.kills,
            self.stops,
            self.cuts,
            self.cut,
            self.leader_victims,
            self.reigns,
            self.writes_acknowledged,
            self.operations,
            self.ok,
            self.failed,
            self.unknown,
            self.snapshot,
            self.snapshots_installed,
            if self.replicas_equal { "equal" } else { "DIFFER" },
        )
    }
}

fn write_history(file: &Path, history: &History) -> std::io::Result<()> {
    let mut writer = HistoryWriter::new(BufWriter::new(File::create(file)?));
    writer.write_all(history, &Numbered)?;
    writer.finish()?.flush()
}
