//! What a cluster weighs while its log grows, and how long a node takes to start.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use serde::Serialize;
use synod_benches::state_machine::{Replicated, STATE_QUERY, State};
use synod_benches::workload::{Format, Shape, Step, Workload};
use synod_core::memory::MemoryNetwork;
use synod_core::{ClusterId, GroupId, Identity, Machine, NodeId, ProtocolConfig};
use synod_multipaxos::MultiPaxos;
use synod_raft::Raft;
use synod_runtime::{Consistency, Node, ReplicaConfig, SnapshotConfig};
use synod_wal::{FileSnapshots, Wal};
use synod_zab::Zab;
use tempfile::TempDir;

/// Show that memory and disk of a cluster are bounded while its log grows, and what a start costs.
///
/// Three replicas in one process, each with a write-ahead log and snapshots in a temporary folder, and clients that write
/// as fast as they can. After three tenths of the entries a follower is crashed, after six it starts again: by then the
/// others' logs do not reach back to what it has. In the end all of them are stopped and started again.
///
/// With --restart it is one replica, filled to each length and started again, without snapshots and with them.
///
/// Exit codes: 0 done, and all replicas are equal; 1 they are not, or something failed; 2 bad option.
#[derive(Clone, Parser)]
#[command(name = "growth")]
struct Options {
    /// What orders the log
    #[arg(long, value_enum, default_value_t = Protocol::Raft)]
    protocol: Protocol,

    /// Commands written
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    entries: u64,

    /// A line is printed after so many
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    every: u64,

    /// A snapshot is taken after so many entries; 0 takes none
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    snapshot_entries: u64,

    /// Keys
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keys: u32,

    /// Bytes of a value, at least 8
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=1 << 16))]
    payload: u32,

    /// Measure starts instead, after so many entries each
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    restart: Vec<u64>,

    /// Print each line as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Raft,
    #[value(name = "multipaxos")]
    MultiPaxos,
    Zab,
}

/// What the cluster weighs at one moment. Bytes on disk are those of the replica that has most of them.
#[derive(Serialize)]
struct Line {
    entries: u64,
    seconds: f64,
    resident_mib: f64,
    log_mib: f64,
    snapshots_mib: f64,
    snapshot: u64,
    note: String,
}

/// What one start costs.
#[derive(Serialize)]
struct Restart {
    entries: u64,
    snapshot_entries: u64,
    log_mib: f64,
    snapshots_mib: f64,
    start_ms: f64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Commands of one call.
const BATCH: u64 = 256;
const CLIENTS: u32 = 4;
const MIB: f64 = (1 << 20) as f64;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let done = match options.protocol {
        Protocol::Raft => run(&options, Raft::config).await,
        Protocol::MultiPaxos => run(&options, MultiPaxos::config).await,
        Protocol::Zab => run(&options, Zab::config).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("growth: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run<C: ProtocolConfig>(options: &Options, config: fn() -> C) -> Result<(), Failure>
where
    <C::Protocol as Machine>::Message: Send,
{
    if options.restart.is_empty() {
        return grow(options, config).await;
    }
    if !options.json {
        say(&format!(
            "{:>12} {:>12} {:>10} {:>10} {:>10}",
            "entries", "snapshots", "log MiB", "snap MiB", "start ms"
        ));
    }
    for entries in &options.restart {
        for snapshot_entries in [0, options.snapshot_entries] {
            let options = Options { entries: *entries, snapshot_entries, ..options.clone() };
            say_restart(&options, &restart(&options, config).await?);
        }
    }
    Ok(())
}

async fn grow<C: ProtocolConfig>(options: &Options, config: fn() -> C) -> Result<(), Failure>
where
    <C::Protocol as Machine>::Message: Send,
{
    let mut cluster = Cluster::create(options, config, 3)?;
    for at in 0..3 {
        cluster.start(at).await?;
    }
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    if !options.json {
        say(&format!(
            "{:>12} {:>8} {:>13} {:>8} {:>9} {:>12}",
            "entries", "seconds", "resident MiB", "log MiB", "snap MiB", "snapshot at"
        ));
    }
    let began = Instant::now();
    let load = Load::begin(options, &cluster.nodes[leader].1);
    let (mut next, mut down_at, mut behind) = (options.every, Some(options.entries * 3 / 10), None);
    while !load.is_done() {
        let written = load.written();
        let mut note = String::new();
        if down_at.is_some_and(|at| written >= at) {
            down_at = None;
            behind = Some(options.entries * 6 / 10);
            cluster.nodes[follower].1.abort().await;
            note = "a follower is crashed".to_owned();
        } else if behind.is_some_and(|at| written >= at) {
            behind = None;
            note = cluster.rejoin(leader, follower).await?;
        }
        if !note.is_empty() || written >= next {
            next = (written / options.every + 1) * options.every;
            say_line(options, &cluster.line(written, began, note)?);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    load.end().await?;
    cluster.agree().await?;
    say_line(options, &cluster.line(options.entries, began, "all replicas are equal".to_owned())?);

    for (_, node) in &cluster.nodes {
        node.shutdown().await;
    }
    let again = Instant::now();
    for at in 0..3 {
        cluster.start(at).await?;
    }
    cluster.agree().await?;
    let note = format!("all started again and equal after {:.0} ms", millis(again.elapsed()));
    say_line(options, &cluster.line(options.entries, began, note)?);
    for (_, node) in &cluster.nodes {
        node.shutdown().await;
    }
    Ok(())
}

/// Fills one replica, stops it, and starts it again: until it has answered a read.
async fn restart<C: ProtocolConfig>(options: &Options, config: fn() -> C) -> Result<Restart, Failure>
where
    <C::Protocol as Machine>::Message: Send,
{
    let mut cluster = Cluster::create(options, config, 1)?;
    cluster.start(0).await?;
    Load::begin(options, &cluster.nodes[0].1).end().await?;
    cluster.nodes[0].1.shutdown().await;
    let (log, snapshots) = cluster.on_disk()?;
    let began = Instant::now();
    cluster.start(0).await?;
    cluster.nodes[0].1.read(STATE_QUERY, Consistency::Linearizable).await?;
    let start_ms = millis(began.elapsed());
    cluster.nodes[0].1.shutdown().await;
    Ok(Restart {
        entries: options.entries,
        snapshot_entries: options.snapshot_entries,
        log_mib: log as f64 / MIB,
        snapshots_mib: snapshots as f64 / MIB,
        start_ms,
    })
}

struct Cluster<C: ProtocolConfig> {
    config: fn() -> C,
    network: MemoryNetwork<<C::Protocol as Machine>::Message>,
    folder: TempDir,
    size: u64,
    snapshot_entries: u64,
    nodes: Vec<(NodeId, Node)>,
}

impl<C: ProtocolConfig> Cluster<C>
where
    <C::Protocol as Machine>::Message: Send,
{
    fn create(options: &Options, config: fn() -> C, size: u64) -> Result<Cluster<C>, Failure> {
        let folder = tempfile::Builder::new().prefix("synod-growth").tempdir()?;
        for node in (1..=size).map(NodeId) {
            let identity = Identity { cluster: ClusterId::default(), node, group: GroupId::default() };
            Wal::create(place(&folder, node), identity)?;
        }
        let network = MemoryNetwork::new();
        let snapshot_entries = options.snapshot_entries;
        Ok(Cluster { config, network, folder, size, snapshot_entries, nodes: Vec::new() })
    }

    /// Starts the node at this place, for the first time or again.
    async fn start(&mut self, at: usize) -> Result<(), Failure> {
        let id = NodeId(at as u64 + 1);
        let place = place(&self.folder, id);
        let mut builder = Node::builder(id, (self.config)())
            .members(1..=self.size)
            .storage(Wal::open(&place)?)
            .transport(self.network.attach(id))
            .deadline(Duration::from_secs(60))
            .state_machine(Replicated::store());
        if self.snapshot_entries > 0 {
            let snapshots =
                SnapshotConfig { entries_max: self.snapshot_entries, ..SnapshotConfig::default() };
            builder = builder
                .snapshots(FileSnapshots::open(place.join(SNAPSHOTS))?)
                .replica_config(ReplicaConfig { snapshots, ..ReplicaConfig::default() });
        }
        let node = builder.start().await?;
        match self.nodes.get_mut(at) {
            Some(place) => *place = (id, node),
            None => self.nodes.push((id, node)),
        }
        Ok(())
    }

    async fn leader(&self) -> usize {
        loop {
            if let Some(at) = self.nodes.iter().position(|(_, node)| node.status().is_leader()) {
                return at;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts a node that was away, and waits until it has what the leader had at that moment; what it took, in words.
    async fn rejoin(&mut self, leader: usize, at: usize) -> Result<String, Failure> {
        let applied = self.nodes[leader].1.status().applied;
        let missed = applied.0.saturating_sub(self.nodes[at].1.status().applied.0);
        let began = Instant::now();
        self.start(at).await?;
        let node = &self.nodes[at].1;
        let mut status = node.watch_status();
        status.wait_for(|status| status.applied >= applied).await?;
        let took = millis(began.elapsed());
        let installed = node.metrics().snapshots_installed;
        Ok(format!("it is back, {missed} entries later, in {took:.0} ms and by {installed} snapshots"))
    }

    /// Waits until all replicas have one state.
    async fn agree(&self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            let mut states = Vec::new();
            for (_, node) in &self.nodes {
                let answer = node.read(STATE_QUERY, Consistency::Local).await?;
                states.push(State::decode(answer).ok_or("a state that is none")?);
            }
            let same_index = states.iter().all(|state| state.through == states[0].through);
            if same_index && states[0].through.0 > 0 {
                let equal = states.iter().all(|state| state.content == states[0].content);
                return if equal { Ok(()) } else { Err("the replicas differ".into()) };
            }
            if began.elapsed() > Duration::from_secs(60) {
                return Err("the replicas do not come to rest at one index".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn line(&self, entries: u64, began: Instant, note: String) -> Result<Line, Failure> {
        let (log, snapshots) = self.on_disk()?;
        Ok(Line {
            entries,
            seconds: began.elapsed().as_secs_f64(),
            resident_mib: resident_bytes()? as f64 / MIB,
            log_mib: log as f64 / MIB,
            snapshots_mib: snapshots as f64 / MIB,
            snapshot: self.nodes.iter().map(|(_, node)| node.status().snapshot.0).max().unwrap_or(0),
            note,
        })
    }

    /// Bytes of log and of snapshots, each of the replica that has most.
    fn on_disk(&self) -> io::Result<(u64, u64)> {
        let (mut log, mut snapshots) = (0, 0);
        for (id, _) in &self.nodes {
            let place = place(&self.folder, *id);
            log = log.max(bytes_in(&place)?);
            snapshots = snapshots.max(bytes_in(&place.join(SNAPSHOTS))?);
        }
        Ok((log, snapshots))
    }
}

/// Clients that write so many commands between them, as fast as they can.
struct Load {
    wanted: u64,
    written: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Result<(), String>>>,
}

impl Load {
    fn begin(options: &Options, node: &Node) -> Load {
        let (begun, written) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let shape = Shape { keys: options.keys, payload: options.payload as usize, read_ratio: 0.0 };
        let wanted = options.entries;
        let client = |client| {
            let (node, begun, written) = (node.clone(), Arc::clone(&begun), Arc::clone(&written));
            tokio::spawn(async move {
                let format = Format::new(shape.payload);
                let mut workload = Workload::new(shape, client, 1);
                loop {
                    let first = begun.fetch_add(BATCH, Ordering::Relaxed);
                    let count = BATCH.min(wanted.saturating_sub(first));
                    if count == 0 {
                        return Ok(());
                    }
                    let puts: Vec<Bytes> = (0..count)
                        .map(|_| match workload.step() {
                            Step::Put(key, value) => format.put(key, value),
                            Step::Get(key) => format.get(key),
                        })
                        .collect();
                    for reply in node.propose_many(puts).await {
                        reply.map_err(|error| error.to_string())?;
                    }
                    written.fetch_add(count, Ordering::Relaxed);
                }
            })
        };
        Load { wanted, clients: (0..CLIENTS).map(client).collect(), written }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// True if there is nothing more to wait for.
    fn is_done(&self) -> bool {
        self.written() >= self.wanted || self.clients.iter().all(|client| client.is_finished())
    }

    async fn end(self) -> Result<(), Failure> {
        for client in self.clients {
            client.await??;
        }
        Ok(())
    }
}

const SNAPSHOTS: &str = "snapshots";

fn place(folder: &TempDir, node: NodeId) -> PathBuf {
    folder.path().join(node.0.to_string())
}

/// What the files of a folder weigh, those of folders in it excluded. Files come and go meanwhile.
fn bytes_in(folder: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        match entry?.metadata() {
            Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(bytes)
}

/// What this process holds of the machine's memory: clients and all replicas.
fn resident_bytes() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn say_line(options: &Options, line: &Line) {
    if options.json {
        return say(&serde_json::to_string(line).expect("numbers and a string"));
    }
    let Line { entries, seconds, resident_mib, log_mib, snapshots_mib, snapshot, note } = line;
    say(&format!(
        "{entries:>12} {seconds:>8.1} {resident_mib:>13.0} {log_mib:>8.0} {snapshots_mib:>9.1} {snapshot:>12}  {note}"
    ));
}

fn say_restart(options: &Options, restart: &Restart) {
    if options.json {
        return say(&serde_json::to_string(restart).expect("numbers"));
    }
    let Restart { entries, snapshot_entries, log_mib, snapshots_mib, start_ms } = restart;
    let snapshots = if *snapshot_entries == 0 { "none".to_owned() } else { snapshot_entries.to_string() };
    say(&format!("{entries:>12} {snapshots:>12} {log_mib:>10.0} {snapshots_mib:>10.1} {start_ms:>10.1}"));
}

/// Prints to standard output; a reader that went away is no error.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
}
