//! `kv`: one node of a replicated key-value store, or a client of it.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use synod_core::{ClusterId, NodeId};
use synod_kv::client::Connection;
use synod_kv::node::{Protocol, Setup};
use synod_kv::wire::{Request, Response};
use synod_kv::{certificates, door, node};
use synod_transport::{Tls, TlsError, TlsPem};
use tokio::net::TcpListener;

/// A replicated key-value store: run one node of it, or ask it something.
///
/// Three nodes on one machine, each in a terminal of its own, --init only the first time:
///
///   kv --id 1 --peers 1=127.0.0.1:7101,2=127.0.0.1:7102,3=127.0.0.1:7103 --dir data/1 --init
///   kv --id 2 --peers 1=127.0.0.1:7101,2=127.0.0.1:7102,3=127.0.0.1:7103 --dir data/2 --init
///   kv --id 3 --peers 1=127.0.0.1:7101,2=127.0.0.1:7102,3=127.0.0.1:7103 --dir data/3 --init
///
/// Clients are answered at the peer port + 1000:
///
///   kv put colour blue --servers 127.0.0.1:8101
///   kv get colour --servers 127.0.0.1:8101,127.0.0.1:8102
///
/// Exit codes: 0 done, 1 it failed or the outcome is unknown, 2 bad usage.
#[derive(Debug, Parser)]
#[command(
    name = "kv",
    verbatim_doc_comment,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Command {
    #[command(flatten)]
    node: Option<NodeArgs>,

    #[command(subcommand)]
    client: Option<ClientArgs>,
}

/// Run a node.
#[derive(Debug, Args)]
struct NodeArgs {
    /// Which member this node is
    #[arg(long, value_name = "N")]
    id: u64,

    /// Every member and where its peers find it, this node among them
    #[arg(long, value_name = "ID=ADDR,...", value_delimiter = ',', value_parser = peer)]
    peers: Vec<(NodeId, SocketAddr)>,

    /// Where its log lies; snapshots are kept in DIR/snapshots
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Take a snapshot after so many entries, and cut the log off behind the one before
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    snapshot_entries: u64,

    /// What orders the log; the same on all members
    #[arg(long, value_enum, default_value_t = Protocol::Raft)]
    protocol: Protocol,

    /// Make the log in DIR first; once in the life of a member
    #[arg(long)]
    init: bool,

    /// Where clients are answered; the node's own address in --peers with the port + 1000 unless told
    #[arg(long, value_name = "ADDR")]
    clients: Option<SocketAddr>,

    /// A number that all members share; a log of another cluster is refused
    #[arg(long, value_name = "N", default_value_t = 0)]
    cluster: u64,

    /// Encrypt between nodes: the node's certificate, in PEM, which names node and cluster. SIGHUP reads this file
    /// and the next two again; without them nothing is encrypted
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,

    /// The key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The authority that certifies peers
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
}

/// Where a node finds what it proves itself with.
struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

impl TlsFiles {
    fn read(&self) -> Result<TlsPem, TlsError> {
        TlsPem::read(&self.certificate, &self.key, &self.authority)
    }
}

#[derive(Debug, Subcommand)]
enum ClientArgs {
    /// Set a key
    Put {
        /// The key
        key: String,
        /// Its new value
        value: String,
        #[command(flatten)]
        servers: Servers,
    },
    /// Print a key's value; exit code 1 if it has none
    Get {
        /// The key
        key: String,
        /// Take what the node asked has applied, which may be stale
        #[arg(long)]
        local: bool,
        #[command(flatten)]
        servers: Servers,
    },
    /// Make certificates to try a cluster out with, and an authority if DIR has none
    Certificates {
        /// Where files are written; none is written over
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The nodes
        #[arg(long, value_name = "N,...", value_delimiter = ',', required = true)]
        nodes: Vec<u64>,
        /// The cluster
        #[arg(long, value_name = "N", default_value_t = 0)]
        cluster: u64,
    },
    /// Print how each node stands, one JSON object a line
    Status {
        #[command(flatten)]
        servers: Servers,
    },
}

#[derive(Debug, Args)]
struct Servers {
    /// Client addresses of nodes, tried in order
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', required = true)]
    servers: Vec<SocketAddr>,

    /// How long one node is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    timeout: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match command {
        Command { client: Some(client), .. } => ask(client).await,
        Command { node: Some(node), .. } => run(node).await,
        Command { .. } => {
            eprintln!("kv: --id, --peers and --dir run a node; `kv --help` tells the rest");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text += &format!(": {cause}");
                source = cause.source();
            }
            eprintln!("kv: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the node until it is told to end, or cannot go on.
async fn run(args: NodeArgs) -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let files = match (args.tls_cert, args.tls_key, args.tls_ca) {
        (Some(certificate), Some(key), Some(authority)) => Some(TlsFiles { certificate, key, authority }),
        _ => None,
    };
    let setup = Setup {
        cluster: ClusterId(args.cluster.into()),
        id: NodeId(args.id),
        peers: args.peers,
        dir: args.dir,
        snapshot_entries: args.snapshot_entries,
        protocol: args.protocol,
        init: args.init,
        tls: files.as_ref().map(|files| Tls::new(&files.read()?)).transpose()?,
    };
    let own = setup.peers.iter().find(|(peer, _)| *peer == setup.id).map(|(_, address)| *address);
    let clients = args
        .clients
        .or_else(|| own.and_then(|own| Some(SocketAddr::new(own.ip(), own.port().checked_add(1000)?))));
    let clients = clients.ok_or("there is no address for clients: give one with --clients")?;
    let listener = TcpListener::bind(clients).await.map_err(|error| format!("{clients}: {error}"))?;
    let node = node::start(&setup).await?;
    tracing::info!(id = setup.id.0, %clients, "answers clients");
    tokio::spawn(door::serve(listener, node.clone()));
    if let (Some(files), Some(tls)) = (files, setup.tls) {
        tokio::spawn(renew(files, tls));
    }
    let reason = tokio::select! {
        reason = node.stopped() => reason,
        () = told_to_end() => node.shutdown().await,
    };
    if reason.is_orderly() { Ok(ExitCode::SUCCESS) } else { Err(reason.into()) }
}

/// Reads certificates again at each SIGHUP. What cannot be used changes nothing.
async fn renew(files: TlsFiles, tls: Tls) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        match files.read().and_then(|pem| tls.replace(&pem)) {
            Ok(()) => tracing::info!("new certificates are in use"),
            Err(error) => {
                let why = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                tracing::error!("the old certificates stay in use: {error}{why}");
            }
        }
    }
}

/// Waits for SIGTERM or Ctrl-C.
async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Asks nodes in order until one answers. A put of unknown outcome is not asked again.
async fn ask(args: ClientArgs) -> Result<ExitCode, Box<dyn Error>> {
    let (request, servers) = match args {
        ClientArgs::Put { key, value, servers } => (Request::Put { key, value }, servers),
        ClientArgs::Get { key, local, servers } => (Request::Get { key, local }, servers),
        ClientArgs::Status { servers } => return status(&servers).await,
        ClientArgs::Certificates { dir, nodes, cluster } => {
            let nodes: Vec<NodeId> = nodes.into_iter().map(NodeId).collect();
            certificates::write(&dir, ClusterId(cluster.into()), &nodes)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut last = String::new();
    for server in &servers.servers {
        let Some(mut connection) = connect(*server, &servers, &mut last).await else { continue };
        let answer =
            tokio::time::timeout(Duration::from_secs(servers.timeout), connection.ask(&request)).await;
        match answer {
            Ok(Ok(Response::Ok)) => return Ok(ExitCode::SUCCESS),
            Ok(Ok(Response::Value { value: Some(value) })) => {
                println!("{value}");
                return Ok(ExitCode::SUCCESS);
            }
            Ok(Ok(Response::Value { value: None })) => return Err("the key has no value".into()),
            Ok(Ok(Response::Failed { error })) => last = format!("{server}: {error}"),
            Ok(Ok(Response::Unknown { error })) => return Err(format!("{server}: {error}").into()),
            Ok(Ok(Response::Status(_))) => return Err(format!("{server} answered something else").into()),
            Ok(Err(_)) | Err(_) if matches!(request, Request::Put { .. }) => {
                return Err(format!("{server} did not answer: the outcome is unknown").into());
            }
            Ok(Err(error)) => last = format!("{server}: {error}"),
            Err(_) => last = format!("{server} did not answer in time"),
        }
    }
    Err(last.into())
}

async fn status(servers: &Servers) -> Result<ExitCode, Box<dyn Error>> {
    let mut answered = 0;
    for server in &servers.servers {
        let mut problem = String::new();
        if let Some(mut connection) = connect(*server, servers, &mut problem).await {
            match tokio::time::timeout(Duration::from_secs(servers.timeout), connection.ask(&Request::Status))
                .await
            {
                Ok(Ok(Response::Status(standing))) => {
                    println!("{}", serde_json::to_string(&standing)?);
                    answered += 1;
                    continue;
                }
                Ok(Ok(other)) => problem = format!("{server} answered {other:?}"),
                Ok(Err(error)) => problem = format!("{server}: {error}"),
                Err(_) => problem = format!("{server} did not answer in time"),
            }
        }
        eprintln!("kv: {problem}");
    }
    Ok(if answered == servers.servers.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn connect(server: SocketAddr, servers: &Servers, problem: &mut String) -> Option<Connection> {
    match tokio::time::timeout(Duration::from_secs(servers.timeout), Connection::open(server)).await {
        Ok(Ok(connection)) => return Some(connection),
        Ok(Err(error)) => *problem = format!("{server}: {error}"),
        Err(_) => *problem = format!("{server} did not answer in time"),
    }
    None
}

/// `ID=ADDR`.
fn peer(text: &str) -> Result<(NodeId, SocketAddr), String> {
    let (id, address) = text.split_once('=').ok_or("a peer is written ID=ADDR, as in 1=127.0.0.1:7101")?;
    let id = id.parse().map_err(|_| format!("`{id}` is no node id"))?;
    let address = address.parse().map_err(|_| format!("`{address}` is no address with a port"))?;
    Ok((NodeId(id), address))
}
