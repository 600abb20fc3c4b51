//! One row of the table: load, crash, restart, read everything back, judge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use synod_checker::{CheckOptions, History, Outcome, Overlap, Verdict, check};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::{Client, Pace, Schedule, Tally};
use super::clock::{Clock, cpu_time};
use super::cluster::{Cluster, Traffic};
use super::progress::{Interrupt, Progress};
use super::record::Record;
use super::{PATIENCE, RESTART_AFTER, RunError};
use crate::contenders::Contender;
use crate::measure::{Figures, Intended, Speed, Window, unavailable};
use crate::options::Options;
use crate::row::{Row, rounded};
use crate::state_machine::Replicated;
use crate::workload::{Format, Shape, Workload};

/// Load before anything is measured.
pub const WARM_UP: Duration = Duration::from_secs(1);

/// Seeds the workloads: every protocol meets the same operations.
const SEED: u64 = 0x5EED;

/// What is run.
pub struct Plan<'a> {
    /// The name of the row.
    pub name: &'a str,
    /// The protocol.
    pub contender: &'a dyn Contender,
    /// How many replicas.
    pub replicas: u64,
    /// Whether the leader is crashed half way.
    pub crash: bool,
    /// Everything else.
    pub options: &'a Options,
}

/// What came out.
#[derive(Debug)]
pub struct Outcomes {
    /// The row.
    pub row: Row,
    /// What became of all operations.
    pub account: Account,
    /// Snapshots that replicas took in the measured time.
    pub snapshots: u64,
    /// In an open loop, how many operations were due and never started.
    pub dropped: Option<u64>,
    /// What the clients did and saw.
    pub history: History,
    /// Why the history is not linearizable, if it is not.
    pub explanation: Option<String>,
}

/// What became of all operations of a run, those of the warm-up and the last reads included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Started.
    pub issued: u64,
    /// Ended well.
    pub ok: u64,
    /// Surely without effect.
    pub failed: u64,
    /// Outcome not known at the deadline.
    pub unknown: u64,
    /// Answered with something that makes no sense; also counted as unknown.
    pub contradictory: u64,
}

impl Account {
    /// Counts a history against what the clients counted when they started operations.
    #[must_use]
    pub fn of(history: &History, issued: u64, contradictory: u64) -> Account {
        let mut account = Account { issued, contradictory, ..Account::default() };
        for operation in history.operations() {
            match operation.outcome() {
                Outcome::Ok => account.ok += 1,
                Outcome::Failed => account.failed += 1,
                Outcome::Unknown if operation.returned().is_some() => account.unknown += 1,
                // Never ended: lost.
                Outcome::Unknown => {}
            }
        }
        account
    }

    /// Operations that were started and of which nothing is recorded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.issued.abs_diff(self.ok + self.failed + self.unknown)
    }

    /// Operations that ended failed, lost or contradictory.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.failed + self.lost() + self.contradictory
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Account { issued, ok, failed, unknown, .. } = self;
        write!(f, "{issued} issued = {ok} ok + {failed} failed + {unknown} unknown")?;
        if self.lost() > 0 {
            write!(f, " + {} LOST", self.lost())?;
        }
        if self.contradictory > 0 {
            write!(f, " ({} of them contradictory)", self.contradictory)?;
        }
        Ok(())
    }
}

/// Runs one row on the current tokio runtime.
///
/// # Errors
/// [`RunError`].
pub async fn run(plan: &Plan<'_>, interrupt: &Interrupt) -> Result<Outcomes, RunError> {
    let progress = Progress::start(plan.name, WARM_UP + plan.options.measured(), interrupt);
    progress.say("starting");
    let mut cluster =
        Cluster::start(plan.contender, plan.options.surroundings(), plan.replicas, Replicated::store).await?;
    let outcome = with_cluster(plan, &progress, &mut cluster).await;
    progress.say("shutting down");
    cluster.shutdown().await;
    let (clients, measured, replicas_equal) = outcome?;

    // The nodes have ended: what clients still hold closes nothing.
    let (records, tallies): (Vec<Record>, Vec<Tally>) = clients.into_iter().map(Client::finish).unzip();
    progress.say("checking");
    let checked = tokio::task::spawn_blocking(move || judge(records));
    let (history, verdict) = progress.during(checked).await???;
    let intended = plan.options.rate.map(|_| {
        Intended::of_clients(tallies.iter().map(|tally| (tally.issued as usize, &tally.intended[..])))
    });
    let contradictory = tallies.iter().map(|tally| tally.contradictory).sum();
    let account = Account::of(&history, tallies.iter().map(|tally| tally.issued).sum(), contradictory);
    let linearizable = match &verdict {
        Verdict::Linearizable => Some(true),
        Verdict::NotLinearizable(_) => Some(false),
        Verdict::Unknown { .. } => None,
    };
    let explanation = match &verdict {
        Verdict::NotLinearizable(violation) => Some(violation.explain(&synod_checker::Numbered).to_string()),
        _ => None,
    };
    let speed = Speed::of(&history, measured.window, intended.as_ref());
    let outage = measured.crash.map(|crash| unavailable(&history, measured.load, crash));
    let figures = Judged { speed, outage, linearizable, replicas_equal, account };
    let row = row(plan, &measured, figures);
    let (snapshots, dropped) = (measured.traffic.snapshots, measured.dropped);
    Ok(Outcomes { row, account, snapshots, dropped, history, explanation })
}

/// What was noted while the load ran.
struct Measured {
    load: Window,
    window: Window,
    crash: Option<Window>,
    traffic: Traffic,
    cpu: Duration,
    dropped: Option<u64>,
}

async fn with_cluster(
    plan: &Plan<'_>,
    progress: &Progress,
    cluster: &mut Cluster,
) -> Result<(Vec<Client>, Measured, bool), RunError> {
    progress.within(PATIENCE, cluster.seats().leader()).await?.ok_or(RunError::NoLeader)?;
    let clock = Clock::start();
    let options = plan.options;
    let format = Format::new(options.payload);
    let client =
        |number| Client::new(number, options.clients_at, clock, format.clone(), cluster.seats().watch());
    let mut clients: Vec<Client> = (0..options.clients).map(client).collect();
    let entered = progress.during(join_all(clients.iter_mut().map(Client::enter))).await?;
    if !entered.into_iter().all(|entered| entered) {
        return Err(RunError::NoSession);
    }

    let load = Load::start(clients, clock, options);
    let measured = load_and_crash(plan, progress, cluster, clock).await;
    let (clients, dropped) = load.stop().await?;
    let measured = Measured { dropped, ..measured? };

    progress.say("reading every key back");
    let keys: BTreeSet<u32> = clients.iter().flat_map(|client| client.record().keys_written()).collect();
    let clients = progress.during(read_back(clients, &keys)).await??;
    progress.say("comparing replicas");
    let states = progress.during(cluster.states(PATIENCE)).await?;
    let equal = states.is_some_and(|states| states.windows(2).all(|pair| pair[0] == pair[1]));
    Ok((clients, measured, equal))
}

/// Lets the load run for its time; crashes the leader half way and restarts it.
async fn load_and_crash(
    plan: &Plan<'_>,
    progress: &Progress,
    cluster: &mut Cluster,
    clock: Clock,
) -> Result<Measured, RunError> {
    let started = Instant::now();
    let load_from = clock.now();
    progress.say("warming up");
    progress.pass(started + WARM_UP).await?;

    let (window_from, traffic_before, cpu_before) = (clock.now(), cluster.traffic(), cpu_time());
    let begun = Instant::now();
    let half = plan.options.measured() / 2;
    let mut crash = None;
    progress.say("load");
    if plan.crash {
        progress.pass(begun + half).await?;
        progress.say("leader crashed");
        let leader = progress.within(PATIENCE, cluster.seats().leader()).await?.ok_or(RunError::NoLeader)?;
        let crashed_at = clock.now();
        cluster.crash(leader).await;
        progress.pass(Instant::now() + RESTART_AFTER.min(half / 2)).await?;
        cluster.restart(leader).await?;
        crash = Some(Window { from: crashed_at, to: clock.now() });
        progress.say("leader restarted");
    }
    progress.pass(begun + plan.options.measured()).await?;
    let window = Window { from: window_from, to: clock.now() };
    let traffic = cluster.traffic();
    Ok(Measured {
        load: Window { from: load_from, to: window.to },
        window,
        crash,
        traffic: Traffic {
            messages: traffic.messages - traffic_before.messages,
            bytes: traffic.bytes - traffic_before.bytes,
            syncs: traffic.syncs - traffic_before.syncs,
            snapshots: traffic.snapshots - traffic_before.snapshots,
        },
        cpu: cpu_time().saturating_sub(cpu_before),
        dropped: None,
    })
}

/// Clients at work.
struct Load {
    tasks: Vec<JoinHandle<Client>>,
    stop: Arc<AtomicBool>,
    pacer: Option<std::thread::JoinHandle<u64>>,
}

impl Load {
    fn start(clients: Vec<Client>, clock: Clock, options: &Options) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let shape = Shape { keys: options.keys, payload: options.payload, read_ratio: options.read_ratio };
        let (pace, pacer) = match options.rate {
            None => (Pace::Closed(Arc::clone(&stop)), None),
            Some(rate) => {
                let schedule = Arc::new(Schedule::new(clock.now(), rate));
                let (pacing, stop) = (Arc::clone(&schedule), Arc::clone(&stop));
                let pacer = std::thread::spawn(move || pacing.release(clock, &stop));
                (Pace::Open(schedule), Some(pacer))
            }
        };
        let tasks = clients.into_iter().enumerate().map(|(number, client)| {
            let number = u32::try_from(number).expect("clients are counted in 32 bits");
            tokio::spawn(client.load(pace.clone(), Workload::new(shape, number, SEED)))
        });
        Load { tasks: tasks.collect(), stop, pacer }
    }

    /// Lets every client finish its open operation. Gives how many were due and never started, if the loop
    /// was open.
    async fn stop(self) -> Result<(Vec<Client>, Option<u64>), RunError> {
        self.stop.store(true, Ordering::Relaxed);
        let dropped = match self.pacer {
            // It waits for the clients, which need this thread.
            Some(pacer) => Some(tokio::task::spawn_blocking(move || pacer.join()).await?),
            None => None,
        };
        let dropped = dropped.map(|dropped| dropped.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let clients = join_all(self.tasks).await.into_iter().collect::<Result<Vec<Client>, _>>()?;
        Ok((clients, dropped))
    }
}

/// One linearizable read of every key, shared out among the clients.
async fn read_back(clients: Vec<Client>, keys: &BTreeSet<u32>) -> Result<Vec<Client>, RunError> {
    let count = clients.len();
    let tasks = clients.into_iter().enumerate().map(|(number, client)| {
        let own = keys.iter().copied().skip(number).step_by(count).collect();
        tokio::spawn(client.read_all(own))
    });
    let tasks: Vec<JoinHandle<Client>> = tasks.collect();
    Ok(join_all(tasks).await.into_iter().collect::<Result<_, _>>()?)
}

fn judge(records: Vec<Record>) -> Result<(History, Verdict), RunError> {
    let mut operations = Vec::with_capacity(records.iter().map(Record::len).sum());
    for record in records {
        record.append_to(&mut operations);
    }
    let history = History::new(operations, Overlap::Refuse)?;
    let verdict = check(&history, &CheckOptions::default()).verdict;
    Ok((history, verdict))
}

/// What follows from the history.
struct Judged {
    speed: Speed,
    /// None without a crash; of a crash, none if no put ended well.
    outage: Option<Option<Duration>>,
    linearizable: Option<bool>,
    replicas_equal: bool,
    account: Account,
}

fn row(plan: &Plan<'_>, measured: &Measured, judged: Judged) -> Row {
    let Judged { speed, outage, linearizable, replicas_equal, account } = judged;
    let per_write = |amount: f64| {
        let writes = speed.writes.completed;
        (writes > 0).then(|| rounded(amount / writes as f64))
    };
    let quantile = |figures: &Figures, share| figures.quantile_us(share).map(rounded);
    let operations = speed.writes.completed + speed.reads.completed;
    let options = plan.options;
    Row {
        protocol: plan.name.to_owned(),
        replicas: plan.replicas,
        clients: options.clients,
        payload: options.payload,
        keys: options.keys,
        transport: options.transport.name(),
        storage: options.storage.name(),
        flavour: options.flavour.name(),
        writes_per_s: rounded(speed.writes.per_s),
        reads_per_s: rounded(speed.reads.per_s),
        write_p50_us: quantile(&speed.writes, 0.50),
        write_p99_us: quantile(&speed.writes, 0.99),
        write_p999_us: quantile(&speed.writes, 0.999),
        read_p50_us: quantile(&speed.reads, 0.50),
        read_p99_us: quantile(&speed.reads, 0.99),
        read_p999_us: quantile(&speed.reads, 0.999),
        messages_per_write: per_write(measured.traffic.messages as f64),
        bytes_per_write: per_write(measured.traffic.bytes as f64),
        fsyncs_per_write: per_write(measured.traffic.syncs as f64),
        cpu_s_per_million: (operations > 0)
            .then(|| rounded(measured.cpu.as_secs_f64() * 1e6 / operations as f64)),
        unavailable_ms: match outage {
            None => Some(0.0),
            Some(outage) => outage.map(|outage| rounded(outage.as_secs_f64() * 1e3)),
        },
        linearizable,
        replicas_equal,
        unknown: account.unknown,
        errors: account.errors(),
    }
}

#[cfg(test)]
mod tests {
    use synod_checker::{Action, ClientId, End, KeyId, Nanos, Operation, Overlap, Sequence};

    use super::*;

    #[test]
    fn what_was_issued_and_never_ended_is_lost_and_an_error() {
        let operation = |seq, end| {
            let action = Action::Get(None);
            Operation::new(ClientId(0), Sequence(seq), KeyId(0), action, Nanos(10 * seq), end)
        };
        let history = History::new(
            vec![
                operation(1, End::Ok(Nanos(11))),
                operation(2, End::Ok(Nanos(21))),
                operation(3, End::Failed(Nanos(31))),
                operation(4, End::Unknown(Some(Nanos(41)))),
                operation(5, End::Unknown(None)),
            ],
            Overlap::Refuse,
        )
        .unwrap();
        let account = Account::of(&history, 5, 0);
        assert_eq!((account.ok, account.failed, account.unknown), (2, 1, 1));
        assert_eq!((account.lost(), account.errors()), (1, 2));
        assert_eq!(account.to_string(), "5 issued = 2 ok + 1 failed + 1 unknown + 1 LOST");
        let balanced = Account { issued: 4, ..account };
        assert_eq!((balanced.lost(), balanced.errors()), (0, 1));
        assert_eq!(Account { contradictory: 1, ..balanced }.errors(), 2);
    }
}
