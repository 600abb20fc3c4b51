//! What it costs to keep thousands of leases alive on one cluster, and how exactly they end.
//!
//! Three replicas and the owners of all leases in one process, connected by queues, logs in memory. Every owner keeps its
//! lease alive four times in its length; then a tenth of them stop, and the leader lets theirs expire.
//!
//! ```sh
//! cargo run --release -p synod-elect --example keep_alive -- 1000 2500 5000 10000
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::time::{ClockId, clock_gettime};
use synod_core::memory::{MemoryNetwork, MemoryStorage};
use synod_core::{
    Applied, ClockBound, Instant, NodeId, Outputs, Reign, Service, StateMachine, StateMachineError, Wire,
};
use synod_elect::now;
use synod_lease::replicated::{Ask, AskId, Candidate, LeaseId, LeaseQuery, LeaseTable, NoAnswer};
use synod_raft::Raft;
use synod_runtime::{Consistency, Metrics, Node};
use tokio::sync::watch;

/// How long each lease is.
const LENGTH: Duration = Duration::from_secs(10);

/// How long the steady state is looked at.
const WINDOW: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut counts = Vec::new();
    for word in std::env::args().skip(1) {
        counts.push(
            word.parse::<usize>().map_err(|error| format!("`{word}` is no number of leases: {error}"))?,
        );
    }
    if counts.is_empty() {
        counts = vec![1_000, 2_500, 5_000, 10_000];
    }
    println!("3 replicas of Raft and all owners on one thread, lease {LENGTH:?}, kept alive 4 times in it");
    println!(
        "| leases | kept alive/s | CPU | CPU us each | envelopes/s | packets/s | log entries/s | not alive | expired | late p50 ms | p99 ms |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for leases in counts {
        row(leases).await?;
    }
    Ok(())
}

/// One cluster with so many leases.
async fn row(leases: usize) -> Result<(), Box<dyn Error>> {
    let network = MemoryNetwork::new();
    let ends = Arc::new(Mutex::new(Ends::default()));
    let mut nodes = Vec::new();
    for id in [1, 2, 3] {
        let table = Watched { table: LeaseTable::new(), ends: Arc::clone(&ends), leads: false };
        let node = Node::builder(NodeId(id), Raft::config())
            .members([1, 2, 3])
            .storage(MemoryStorage::new())
            .transport(network.attach(NodeId(id)))
            .state_machine(table)
            .start()
            .await?;
        nodes.push(node);
    }
    let (tell, told) = watch::channel(Phase::Keeping);
    let mut owners = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let mine = (at..leases).step_by(nodes.len()).collect();
        owners.push(tokio::spawn(Owners::new(node.clone(), mine, told.clone()).run()));
    }
    // Everybody has entered and kept its lease alive once.
    tokio::time::sleep(LENGTH).await;
    let before = Reading::take(&nodes, &ends);
    tokio::time::sleep(WINDOW).await;
    let after = Reading::take(&nodes, &ends);
    let alive = locked(&ends).alive;

    tell.send(Phase::ATenthStops)?;
    tokio::time::sleep(LENGTH + Duration::from_secs(2)).await;
    let mut late = std::mem::take(&mut locked(&ends).late);
    late.sort();
    tell.send(Phase::Over)?;
    for owners in owners {
        owners.await?;
    }
    for node in &nodes {
        node.shutdown().await;
    }

    let seconds = WINDOW.as_secs_f64();
    let kept = (after.kept - before.kept) as f64 / seconds;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    let rate = |of: fn(&Metrics) -> u64| {
        let sum = |metrics: &[Metrics]| metrics.iter().map(of).sum::<u64>();
        (sum(&after.metrics) - sum(&before.metrics)) as f64 / seconds
    };
    let late_at = |percent: usize| match late.len().checked_sub(1) {
        Some(last) => format!("{:.1}", late[last * percent / 100].as_secs_f64() * 1e3),
        None => "-".to_owned(),
    };
    println!(
        "| {leases} | {kept:.0} | {:.1} % | {:.1} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {} |",
        100.0 * cpu / seconds,
        1e6 * cpu / seconds / kept,
        rate(|metrics| metrics.envelopes_sent),
        rate(|metrics| metrics.packets_sent),
        (after.applied - before.applied) as f64 / seconds,
        leases - alive.min(leases),
        late.len(),
        late_at(50),
        late_at(99),
    );
    Ok(())
}

/// What was counted up to some moment.
struct Reading {
    cpu: Duration,
    kept: u64,
    applied: u64,
    metrics: Vec<Metrics>,
}

impl Reading {
    fn take(nodes: &[Node], ends: &Mutex<Ends>) -> Reading {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Reading {
            cpu: Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32),
            kept: locked(ends).kept,
            applied: nodes[0].status().applied.0,
            metrics: nodes.iter().map(Node::metrics).collect(),
        }
    }
}

/// What the leader's lease table did, by the leader's clock.
#[derive(Debug, Default)]
struct Ends {
    /// The last keep-alive of each lease that reached the leader in this reign.
    heard: BTreeMap<LeaseId, Instant>,
    kept: u64,
    /// Leases in the leader's table.
    alive: usize,
    /// How long after its full length each expired lease was gone from the leader's table.
    late: Vec<Duration>,
}

fn locked(ends: &Mutex<Ends>) -> MutexGuard<'_, Ends> {
    ends.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lease table that is looked at.
struct Watched {
    table: LeaseTable,
    ends: Arc<Mutex<Ends>>,
    leads: bool,
}

impl StateMachine for Watched {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        self.table.apply(batch, out)
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, StateMachineError> {
        self.table.query(query)
    }

    fn service(&mut self) -> Option<&mut dyn Service> {
        Some(self)
    }
}

impl Service for Watched {
    fn on_role(&mut self, now: Instant, leads: Option<Reign>) {
        self.leads = leads.is_some();
        if self.leads {
            locked(&self.ends).heard.clear();
        }
        self.table.on_role(now, leads);
    }

    fn on_query(&mut self, now: Instant, query: &[u8]) {
        if let Ok(LeaseQuery::KeepAlive(lease)) = LeaseQuery::from_bytes(Bytes::copy_from_slice(query)) {
            let mut ends = locked(&self.ends);
            ends.kept += 1;
            ends.heard.insert(lease, now);
        }
        self.table.on_query(now, query);
    }

    fn on_applied(&mut self, now: Instant) {
        self.table.on_applied(now);
        if self.leads {
            let mut ends = locked(&self.ends);
            let Ends { heard, late, alive, .. } = &mut *ends;
            *alive = self.table.len();
            heard.retain(|lease, at| {
                let there = self.table.contains(*lease);
                if !there {
                    late.push(now.saturating_since(*at + LENGTH));
                }
                there
            });
        }
    }

    fn on_tick(&mut self, now: Instant) {
        self.table.on_tick(now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.table.next_deadline()
    }

    fn take_proposals(&mut self, into: &mut Vec<Bytes>) {
        self.table.take_proposals(into);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Keeping,
    ATenthStops,
    Over,
}

/// The answer to what a candidate asked, and which candidate that was.
type Answered = (usize, AskId, Result<Bytes, NoAnswer>);

/// The owners at one node: as many candidates, each for a name of its own.
struct Owners {
    node: Node,
    candidates: Vec<Candidate>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    asks: FuturesUnordered<BoxFuture<'static, Answered>>,
    told: watch::Receiver<Phase>,
}

impl Owners {
    fn new(node: Node, names: Vec<usize>, told: watch::Receiver<Phase>) -> Owners {
        let count = names.len().max(1) as u32;
        let mut due = BinaryHeap::new();
        let mut candidates = Vec::new();
        for (place, name) in names.into_iter().enumerate() {
            let name = Bytes::from(format!("name {name}"));
            let mut candidate =
                Candidate::new(name, Bytes::new(), LENGTH, Duration::from_millis(500), ClockBound::default());
            candidate.campaign();
            // They enter one after the other, and so do their keep-alives come.
            due.push(Reverse((now() + LENGTH / 4 * place as u32 / count, place)));
            candidates.push(candidate);
        }
        Owners { node, candidates, due, asks: FuturesUnordered::new(), told }
    }

    async fn run(mut self) {
        loop {
            let phase = *self.told.borrow_and_update();
            if phase == Phase::Over {
                return;
            }
            while let Some(Reverse((at, place))) = self.due.peek().copied()
                && at <= now()
            {
                self.due.pop();
                if phase == Phase::Keeping || place % 10 != 0 {
                    self.poll(place);
                }
            }
            let next = self.due.peek().map_or(now() + LENGTH, |Reverse((at, _))| *at);
            tokio::select! {
                Some((place, id, answer)) = self.asks.next() => {
                    let candidate = &mut self.candidates[place];
                    candidate.answered(now(), id, answer);
                    candidate.take_events();
                    if let Some(at) = candidate.next_deadline() {
                        self.due.push(Reverse((at, place)));
                    }
                }
                () = tokio::time::sleep(next.saturating_since(now())) => {}
                _ = self.told.changed() => {}
            }
        }
    }

    fn poll(&mut self, place: usize) {
        while let Some(ask) = self.candidates[place].poll(now()) {
            let node = self.node.clone();
            self.asks.push(Box::pin(async move {
                match ask {
                    Ask::Propose(id, command, within) => {
                        (place, id, node.propose_within(within, command).await.map_err(|_| NoAnswer))
                    }
                    Ask::Query(id, query, within) => {
                        let answer = node.read_within(within, query, Consistency::Linearizable).await;
                        (place, id, answer.map_err(|_| NoAnswer))
                    }
                }
            }));
        }
    }
}
