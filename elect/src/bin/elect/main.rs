//! `elect`: runs a command while it leads.

mod child;
mod elections;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use synod_core::NodeId;
use synod_elect::Election;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::child::{Ending, Plan};

/// Runs COMMAND while this process leads the election, and on one machine at a time.
///
/// Three of them, that elect among themselves, --init only the first time:
///
///   elect --election paxoslease --name cron --id 1 --peers 1=10.0.0.1:7201,2=10.0.0.2:7201,3=10.0.0.3:7201 \
///       --dir /var/lib/elect --init -- ./nightly
///
/// COMMAND finds its fencing token in ELECT_TOKEN: a number that is higher than that of every COMMAND before. Hand it on
/// with everything that you change, and let what is changed refuse lower ones than it has seen: if this process is stopped
/// (SIGSTOP), its COMMAND runs on while another one is started elsewhere, and only the token tells them apart.
///
/// When the lease is not renewed, COMMAND and its process group get SIGTERM --grace before its end, and SIGKILL before its
/// end. COMMAND is started again when this process leads again. When COMMAND ends by itself, this process resigns and
/// ends with its exit code.
///
/// Exit codes: COMMAND's own (128 and its number if by a signal), 1 it failed, 2 bad usage, 126 and 127 as from a shell.
#[derive(Debug, Parser)]
#[command(name = "elect", verbatim_doc_comment)]
struct Arguments {
    /// Who gives the lease out
    #[arg(long, value_enum)]
    election: Kind,

    /// What is led; one leader for each name
    #[arg(long, value_name = "NAME")]
    name: String,

    /// Which member this is; of etcd and zookeeper what it calls itself [its process id]
    #[arg(long, value_name = "N")]
    id: Option<u64>,

    /// Every member and where its peers find it, this one among them
    #[arg(long, value_name = "ID=ADDR,...", value_delimiter = ',', value_parser = peer)]
    peers: Vec<(NodeId, SocketAddr)>,

    /// The servers of etcd (http://127.0.0.1:2379,...) or of ZooKeeper (127.0.0.1:2181,...)
    #[arg(long, value_name = "SERVER,...", value_delimiter = ',', conflicts_with_all = ["peers", "dir", "init"])]
    endpoints: Vec<String>,

    /// Where what must survive a restart is kept
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Make what is kept in DIR first; once in the life of a member
    #[arg(long)]
    init: bool,

    /// How long others wait for a leader that they do not hear of: 10s, 1500ms
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    ttl: Duration,

    /// How long before the end of the lease COMMAND is told to end
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    grace: Duration,

    /// What is run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Who gives the lease out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The members, in memory, by majority
    Paxoslease,
    /// A table on a replicated log of the members
    Replicated,
    /// An etcd cluster
    Etcd,
    /// A ZooKeeper cluster
    Zookeeper,
}

impl Kind {
    /// True if the members elect among themselves.
    fn is_of_members(self) -> bool {
        matches!(self, Kind::Paxoslease | Kind::Replicated)
    }

    /// The shortest lease.
    fn ttl_min(self) -> Duration {
        if self.is_of_members() { TTL_MIN } else { Duration::from_secs(1) }
    }

    /// What part of the lease is left whenever it is renewed in time.
    fn grace_max(self, ttl: Duration) -> Duration {
        match self {
            Kind::Zookeeper => ttl / 5,
            _ => ttl * 2 / 5,
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if let (_, Some(first)) = (arguments.next(), arguments.next())
        && first == child::BECOME
    {
        return child::become_command(arguments);
    }
    let arguments = match Arguments::try_parse().map(Arguments::checked) {
        Ok(Ok(arguments)) => arguments,
        Ok(Err(problem)) => {
            eprintln!("elect: {problem}");
            return ExitCode::from(2);
        }
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    // One thread: the kernel ends a command with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ending = match runtime {
        Ok(runtime) => {
            let ending = runtime.block_on(run(arguments));
            // A disk that stands still holds nobody up.
            runtime.shutdown_background();
            ending
        }
        Err(error) => Err(error.into()),
    };
    match ending {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text += &format!(": {cause}");
                source = cause.source();
            }
            eprintln!("elect: {text}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    /// The member, or what the candidate calls itself.
    fn id(&self) -> u64 {
        self.id.unwrap_or_else(|| std::process::id().into())
    }

    /// What no single argument shows.
    fn checked(self) -> Result<Arguments, String> {
        if !self.election.is_of_members() {
            if self.endpoints.is_empty() {
                return Err("--endpoints is needed".into());
            }
        } else {
            let (Some(id), Some(_), [_, ..]) = (self.id, &self.dir, &self.peers[..]) else {
                return Err("--id, --peers and --dir are needed".into());
            };
            if !self.peers.iter().any(|(peer, _)| peer.0 == id) {
                return Err(format!("--peers does not name member {id}"));
            }
        }
        if self.ttl < self.election.ttl_min() {
            return Err(format!("--ttl must be at least {} ms", self.election.ttl_min().as_millis()));
        }
        // Leases are renewed while more than that is left.
        let grace_max = self.election.grace_max(self.ttl);
        if self.grace > grace_max {
            return Err(format!(
                "--grace must be at most {} ms of this --ttl: renewals come in between",
                grace_max.as_millis()
            ));
        }
        Ok(self)
    }
}

/// Runs the command whenever this process leads; gives the exit code.
async fn run(arguments: Arguments) -> Result<u8, Box<dyn Error>> {
    let mut told = Told::new()?;
    let started = elections::start(&arguments).await?;
    let plan = Plan {
        command: &arguments.command,
        name: &arguments.name,
        id: arguments.id(),
        grace: arguments.grace,
    };
    let ending = lead(started.election.as_ref(), &plan, &mut told).await;
    // Told or not, the command has ended: nobody need wait for the end of the lease.
    let _ = tokio::time::timeout(arguments.grace.max(TTL_MIN), started.end()).await;
    ending
}

async fn lead(election: &dyn Election, plan: &Plan<'_>, told: &mut Told) -> Result<u8, Box<dyn Error>> {
    loop {
        let leadership = tokio::select! {
            leadership = election.campaign() => leadership?,
            signal = told.next() => return Ok(128 + signal),
        };
        match child::run(leadership, plan, told).await? {
            Ending::Itself(code) => return Ok(code),
            Ending::Told(signal) => return Ok(128 + signal),
            Ending::Lost => tracing::info!("campaigns again"),
        }
    }
}

/// The signals that end this process.
pub(crate) struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Told {
    fn new() -> std::io::Result<Told> {
        Ok(Told { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The number of the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}

/// The shortest lease that timers of a busy machine keep up with.
const TTL_MIN: Duration = Duration::from_millis(300);

/// `ID=ADDR`.
fn peer(text: &str) -> Result<(NodeId, SocketAddr), String> {
    let (id, address) = text.split_once('=').ok_or("a peer is written ID=ADDR, as in 1=127.0.0.1:7201")?;
    let id = id.parse().map_err(|_| format!("`{id}` is no member id"))?;
    let address = address.parse().map_err(|_| format!("`{address}` is no address with a port"))?;
    Ok((NodeId(id), address))
}

/// `10s` or `1500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("`{text}` is no time: write 10s or 1500ms");
    let number = |digits: &str| digits.parse::<u32>().map_err(|_| problem());
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => Ok(Duration::from_millis(number(digits)?.into())),
        (None, Some(digits)) => Ok(Duration::from_secs(number(digits)?.into())),
        (None, None) => Err(problem()),
    }
}
