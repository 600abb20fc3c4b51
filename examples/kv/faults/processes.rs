//! The nodes as processes: started, killed, stopped and woken.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use synod_core::{ClusterId, NodeId};
use synod_kv::certificates::{self, CertificatesError};
use synod_kv::client::Connection;
use synod_kv::wire::{Request, Response, Standing};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::wires::{NodeNumber, Wires};

/// How long a node may take to answer after its start.
const START_MAX: Duration = Duration::from_secs(60);

/// Three processes, their folders and their network.
pub(crate) struct Processes {
    pub(crate) wires: Wires,
    kv: PathBuf,
    /// What every node is started with beside its number, addresses and folder.
    arguments: Vec<String>,
    dir: PathBuf,
    /// Where their certificates are, if they encrypt.
    certificates: Option<PathBuf>,
    running: Vec<Option<Child>>,
}

impl Processes {
    /// Nothing started yet. Logs and what the nodes say go into `dir`.
    pub(crate) fn new(
        wires: Wires,
        nodes: usize,
        kv: &Path,
        arguments: Vec<String>,
        dir: &Path,
    ) -> Processes {
        Processes {
            wires,
            kv: kv.to_owned(),
            arguments,
            dir: dir.to_owned(),
            certificates: None,
            running: (0..nodes).map(|_| None).collect(),
        }
    }

    /// From now on nodes encrypt what they say to each other.
    pub(crate) fn encrypt(&mut self) -> Result<(), CertificatesError> {
        let dir = self.dir.join("certificates");
        let nodes: Vec<NodeId> = (1..=self.running.len() as u64).map(NodeId).collect();
        certificates::write(&dir, ClusterId::default(), &nodes)?;
        self.certificates = Some(dir);
        Ok(())
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Starts a node and waits until it answers; `init` makes its log.
    pub(crate) async fn start(&mut self, node: NodeNumber, init: bool) -> io::Result<()> {
        let said = File::options().create(true).append(true).open(self.said_by(node))?;
        let mut command = self.wires.command(node, &self.kv);
        command
            .args(["--id", &(node + 1).to_string()])
            .args(&self.arguments)
            .args(["--peers", &self.wires.peers_of(node)])
            .args(["--clients", &self.wires.client_address(node).to_string()])
            .arg("--dir")
            .arg(self.dir.join((node + 1).to_string()));
        if let Some(dir) = &self.certificates {
            let file = |name: String| dir.join(name);
            command
                .arg("--tls-cert")
                .arg(file(format!("node-{}.pem", node + 1)))
                .arg("--tls-key")
                .arg(file(format!("node-{}.key", node + 1)))
                .arg("--tls-ca")
                .arg(file("authority.pem".to_owned()));
        }
        if init {
            command.arg("--init");
        }
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).kill_on_drop(true).spawn()?;
        self.running[node] = Some(child);
        let started = Instant::now();
        while self.standing(node).await.is_none() {
            if let Some(status) = self.running[node].as_mut().and_then(|child| child.try_wait().transpose()) {
                return Err(io::Error::other(format!("node {} ended: {}", node + 1, status?)));
            }
            if started.elapsed() > START_MAX {
                return Err(io::Error::other(format!("node {} does not answer after its start", node + 1)));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// `kill -9`; returns when the process is gone.
    pub(crate) async fn kill(&mut self, node: NodeNumber) -> io::Result<()> {
        match self.running[node].take() {
            Some(mut child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, node: NodeNumber, signal: Signal) -> io::Result<()> {
        let id = self.running[node].as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(Pid::from_raw).ok_or_else(|| io::Error::other("the process is gone"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// How a node says it stands; `None` if it does not answer soon.
    pub(crate) async fn standing(&self, node: NodeNumber) -> Option<Standing> {
        let ask = async {
            let mut connection = Connection::open(self.wires.client_address(node)).await.ok()?;
            match connection.ask(&Request::Status).await.ok()? {
                Response::Status(standing) => Some(standing),
                _ => None,
            }
        };
        timeout(Duration::from_millis(500), ask).await.ok().flatten()
    }

    /// The node that leads in the highest reign, as far as the nodes that answer know.
    pub(crate) async fn leader(&self) -> Option<NodeNumber> {
        let mut best: Option<(u64, NodeNumber)> = None;
        for node in 0..self.len() {
            if let Some(standing) = self.standing(node).await
                && standing.role == "leader"
                && best.is_none_or(|(reign, _)| reign < standing.reign)
            {
                best = Some((standing.reign, node));
            }
        }
        best.map(|(_, node)| node)
    }

    /// Where a node's own words are kept.
    pub(crate) fn said_by(&self, node: NodeNumber) -> PathBuf {
        self.dir.join(format!("{}.log", node + 1))
    }
}
