//! `elect`, three times: started, killed, stopped and woken.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Who gives the lease out.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// `paxoslease` or `replicated`.
    Themselves(&'static str),
    /// `etcd` or `zookeeper`, and where its servers are.
    Servers(&'static str, String),
}

/// The processes of one election.
pub(crate) struct Members {
    kind: Kind,
    ttl: Duration,
    grace: Duration,
    command: Vec<String>,
    peers: String,
    dir: TempDir,
    running: Vec<Option<Child>>,
}

impl Members {
    pub(crate) fn new(
        kind: Kind,
        count: usize,
        ttl: Duration,
        grace: Duration,
        command: Vec<String>,
    ) -> Members {
        let peers = (1..=count).zip(free_ports(count)).map(|(id, port)| format!("{id}=127.0.0.1:{port}"));
        Members {
            kind,
            ttl,
            grace,
            command,
            peers: peers.collect::<Vec<_>>().join(","),
            dir: tempfile::tempdir().unwrap(),
            running: (0..count).map(|_| None).collect(),
        }
    }

    /// The command line of member `id`, from 1.
    pub(crate) fn command(&self, id: u64, init: bool) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elect"));
        let name = self.dir.path().file_name().unwrap();
        command.arg("--name").arg(name).args(["--id", &id.to_string()]);
        command.args(["--ttl", &format!("{}ms", self.ttl.as_millis())]);
        command.args(["--grace", &format!("{}ms", self.grace.as_millis())]);
        match &self.kind {
            Kind::Themselves(election) => {
                command.args(["--election", election, "--peers", &self.peers]);
                command.arg("--dir").arg(self.dir.path().join(id.to_string()));
                if init {
                    command.arg("--init");
                }
            }
            Kind::Servers(election, endpoints) => {
                command.args(["--election", election, "--endpoints", endpoints]);
            }
        }
        command.arg("--").args(&self.command);
        command
    }

    pub(crate) fn start(&mut self, id: u64, init: bool) {
        let said = File::options().create(true).append(true).open(self.said_by(id)).unwrap();
        let mut command = self.command(id, init);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).kill_on_drop(true);
        self.running[place(id)] = Some(command.spawn().unwrap());
    }

    /// `kill -9`; returns when the process is gone.
    pub(crate) async fn kill(&mut self, id: u64) {
        self.running[place(id)].take().unwrap().kill().await.unwrap();
    }

    pub(crate) fn signal(&self, id: u64, signal: Signal) {
        let process = self.running[place(id)].as_ref().and_then(Child::id).unwrap();
        kill_process(Pid::from_raw(i32::try_from(process).unwrap()).unwrap(), signal).unwrap();
    }

    /// Waits for the end of a member; gives its exit code.
    pub(crate) async fn ended(&mut self, id: u64) -> Option<i32> {
        self.running[place(id)].take().unwrap().wait().await.unwrap().code()
    }

    /// What a member has said.
    pub(crate) fn words(&self, id: u64) -> String {
        std::fs::read_to_string(self.said_by(id)).unwrap_or_default()
    }

    fn said_by(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }
}

/// A stopped process does not hear that it should end, but is killed all the same.
impl Drop for Members {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for id in 1..=self.running.len() as u64 {
                eprintln!("--- member {id}\n{}", self.words(id));
            }
        }
    }
}

fn place(id: u64) -> usize {
    usize::try_from(id).unwrap() - 1
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
