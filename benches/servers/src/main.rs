//! Puts a closed loop of writes on the leader of an etcd or ZooKeeper cluster and prints one JSON object.
//!
//! The workload is that of `compare --read-ratio 0`: uniform keys, unique values of a fixed size, each client
//! with one write open, a second of warm-up. Clients share a few connections to the leader, as those systems'
//! own benchmarks do. Unlike the clients of `compare`, these cross a socket.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use zookeeper_client::{Acls, CreateMode};

const WARM_UP: Duration = Duration::from_secs(1);

/// Write to the leader of a cluster in a closed loop.
#[derive(Debug, Parser)]
#[command(name = "synod-server-load")]
struct Options {
    /// What is loaded
    #[arg(long, value_enum)]
    system: System,
    /// Client addresses of all members, the leader's first; for `disk`, a folder
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Clients, each with one write open
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Connections that the clients share
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Size of a value
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    payload: usize,
    /// Keys, chosen uniformly
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    /// Seconds measured
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    Etcd,
    Zookeeper,
    /// No server: the time of one 4 KiB overwrite with fdatasync, the unit of every durable write
    Disk,
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// One client's way to the leader.
trait Store: Clone + Send + Sync + 'static {
    fn put(&self, key: u32, value: Vec<u8>) -> impl Future<Output = Result<(), Problem>> + Send;
}

#[derive(Clone)]
struct Etcd(etcd_client::KvClient);

impl Store for Etcd {
    async fn put(&self, key: u32, value: Vec<u8>) -> Result<(), Problem> {
        self.0.clone().put(format!("k{key}"), value, None).await?;
        Ok(())
    }
}

#[derive(Clone)]
struct ZooKeeper(zookeeper_client::Client);

impl Store for ZooKeeper {
    async fn put(&self, key: u32, value: Vec<u8>) -> Result<(), Problem> {
        self.0.set_data(&format!("/k{key}"), &value, None).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let measured = match options.system {
        System::Etcd => etcd(&options).await,
        System::Zookeeper => zookeeper(&options).await,
        System::Disk => disk(&options),
    };
    match measured {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("synod-server-load: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn etcd(options: &Options) -> Result<String, Problem> {
    let mut leader = None;
    for endpoint in &options.endpoints {
        let mut client = etcd_client::Client::connect([endpoint], None).await?;
        let status = client.status().await?;
        if status.header().is_some_and(|header| header.member_id() == status.leader()) {
            leader = Some(endpoint);
        }
    }
    let leader = leader.ok_or("no endpoint leads")?;
    let mut stores = Vec::new();
    for _ in 0..options.connections {
        stores.push(Etcd(etcd_client::Client::connect([leader], None).await?.kv_client()));
    }
    measure(options, &stores).await
}

/// The first endpoint is the leader; the script that starts the servers asked them.
async fn zookeeper(options: &Options) -> Result<String, Problem> {
    let leader = &options.endpoints[0];
    let mut stores = Vec::new();
    for _ in 0..options.connections {
        stores.push(ZooKeeper(zookeeper_client::Client::connect(leader).await?));
    }
    let create = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let keys: Vec<u32> = (0..options.keys).collect();
    for some in keys.chunks(256) {
        let paths: Vec<String> = some.iter().map(|key| format!("/k{key}")).collect();
        let made = paths.iter().map(|path| stores[0].0.create(path, b"", &create));
        for result in futures::future::join_all(made).await {
            match result {
                Ok(_) | Err(zookeeper_client::Error::NodeExists) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    measure(options, &stores).await
}

/// Overwrites a file that was written before, block by block, each with an fdatasync.
fn disk(options: &Options) -> Result<String, Problem> {
    use std::os::unix::fs::FileExt;
    const BLOCK: usize = 4 << 10;
    const BLOCKS: u64 = 1024;
    let path = std::path::Path::new(&options.endpoints[0]).join("fdatasync");
    let file = std::fs::File::create(&path)?;
    file.write_all_at(&vec![1; BLOCK * BLOCKS as usize], 0)?;
    file.sync_all()?;
    let mut latencies = Histogram::<u64>::new(3)?;
    let began = Instant::now();
    let mut at = 0;
    while began.elapsed() < Duration::from_secs(options.seconds) {
        let write = Instant::now();
        file.write_all_at(&[2; BLOCK], at % BLOCKS * BLOCK as u64)?;
        file.sync_data()?;
        latencies.record(write.elapsed().as_nanos() as u64)?;
        at += 1;
    }
    std::fs::remove_file(&path)?;
    let line = serde_json::json!({
        "system": "disk",
        "clients": 1,
        "writes_per_s": latencies.len() as f64 / began.elapsed().as_secs_f64(),
        "write_p50_us": latencies.value_at_quantile(0.5) as f64 / 1_000.0,
        "write_p99_us": latencies.value_at_quantile(0.99) as f64 / 1_000.0,
    });
    Ok(line.to_string())
}

/// Writes in a closed loop; what is measured begins after the warm-up.
async fn measure<S: Store>(options: &Options, stores: &[S]) -> Result<String, Problem> {
    const WARMING: u8 = 0;
    const MEASURING: u8 = 1;
    const ENDED: u8 = 2;
    let phase = Arc::new(AtomicU8::new(WARMING));
    let clients: Vec<_> = (0..options.clients)
        .map(|client| {
            let (store, phase) = (stores[client % stores.len()].clone(), Arc::clone(&phase));
            let (keys, payload) = (options.keys, options.payload);
            tokio::spawn(async move {
                let mut random = Xoshiro256PlusPlus::seed_from_u64(client as u64);
                let mut latencies = Histogram::<u64>::new(3)?;
                loop {
                    let key = ((u64::from(random.next_u32()) * u64::from(keys)) >> 32) as u32;
                    let mut value = vec![0; payload.max(8)];
                    random.fill_bytes(&mut value);
                    let began = Instant::now();
                    store.put(key, value).await?;
                    match phase.load(Ordering::Relaxed) {
                        MEASURING => latencies.record(began.elapsed().as_nanos() as u64)?,
                        ENDED => return Ok::<_, Problem>(latencies),
                        _ => {}
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(WARM_UP).await;
    let began = Instant::now();
    phase.store(MEASURING, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    phase.store(ENDED, Ordering::Relaxed);
    let measured = began.elapsed();
    let mut all = Histogram::<u64>::new(3)?;
    for client in clients {
        all.add(client.await??)?;
    }
    let microseconds = |quantile: f64| all.value_at_quantile(quantile) as f64 / 1_000.0;
    let line = serde_json::json!({
        "system": format!("{:?}", options.system).to_lowercase(),
        "clients": options.clients,
        "connections": options.connections,
        "payload": options.payload,
        "keys": options.keys,
        "writes_per_s": all.len() as f64 / measured.as_secs_f64(),
        "write_p50_us": microseconds(0.5),
        "write_p99_us": microseconds(0.99),
    });
    Ok(line.to_string())
}
