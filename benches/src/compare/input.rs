//! `compare --input`: every line of a file, in order, once, on every replica, through a crash of the leader.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use synod_core::Sequence;
use synod_runtime::{Order, ProposeError, Session};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::DEADLINE;
use super::cluster::{Cluster, Seats, Surroundings};
use super::progress::{Interrupt, Progress};
use super::{PATIENCE, RESTART_AFTER, RunError};
use crate::contenders::Contender;
use crate::state_machine::{Replicated, Summary};

/// Lines proposed in one call. Two calls' worth fit into the window of a session.
const BATCH: usize = 256;

/// What each replica made of the file.
#[derive(Clone, Debug)]
pub struct Replicas {
    /// By replica; none if they did not come to rest at one applied index.
    pub summaries: Option<Vec<Summary>>,
    /// Whether the leader was crashed.
    pub crashed: bool,
}

impl Replicas {
    /// What speaks against the run, given the file's own summary.
    #[must_use]
    pub fn problem(&self, file: &Summary) -> Option<String> {
        let Some(summaries) = &self.summaries else {
            return Some(format!(
                "the replicas did not reach one applied index within {} s",
                PATIENCE.as_secs()
            ));
        };
        let digests: BTreeSet<_> = summaries.iter().map(|summary| summary.digest).collect();
        if digests.len() > 1 || !digests.contains(&file.digest) {
            let counts: Vec<String> = summaries.iter().map(|summary| summary.lines.to_string()).collect();
            return Some(format!("digests differ; lines applied: {} of {}", counts.join(", "), file.lines));
        }
        match summaries.iter().map(|summary| summary.reigns).min() {
            Some(reigns) if self.crashed && reigns < 2 => {
                Some(format!("all lines were decided in {reigns} reign, although the leader was crashed"))
            }
            _ => None,
        }
    }
}

/// Replicates the lines on the current tokio runtime, and asks every replica what it has.
///
/// With `crash`, there must be two lines at least: the leader is crashed when half of them are acknowledged,
/// the last quarter is held back until then, and the node is started again on what its log had.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    contender: &dyn Contender,
    surroundings: Surroundings,
    replicas: u64,
    lines: &[Bytes],
    crash: bool,
    interrupt: &Interrupt,
) -> Result<Replicas, RunError> {
    let progress = Progress::start(contender.name(), Duration::from_secs(1), interrupt);
    progress.say("starting");
    let mut cluster = Cluster::start(contender, surroundings, replicas, Replicated::lines).await?;
    let outcome = with_cluster(&mut cluster, lines, crash, &progress).await;
    progress.say("shutting down");
    cluster.shutdown().await;
    let states = outcome?;
    let summaries = states.map(|states| {
        let decode =
            |state: &Bytes| Summary::decode(state).expect("the state machine answers with its summary");
        states.iter().map(decode).collect()
    });
    Ok(Replicas { summaries, crashed: crash })
}

async fn with_cluster(
    cluster: &mut Cluster,
    lines: &[Bytes],
    crash: bool,
    progress: &Progress,
) -> Result<Option<Vec<Bytes>>, RunError> {
    progress.within(PATIENCE, cluster.seats().leader()).await?.ok_or(RunError::NoLeader)?;
    progress.say("replicating");
    let seats = cluster.seats().clone();
    let (acknowledged, watched) = watch::channel(0);
    let (gone, crashed) = watch::channel(!crash);
    let last_before_crash = lines.len() - (lines.len() / 4).max(usize::from(crash));
    let feeding = feed(&seats, lines, last_before_crash, acknowledged, crashed, progress);
    let crashing = crash_at(cluster, lines.len() / 2, watched, gone);
    progress
        .during(async { tokio::try_join!(feeding, async { if crash { crashing.await } else { Ok(()) } }) })
        .await??;
    progress.say("comparing replicas");
    progress.during(cluster.states(PATIENCE)).await
}

/// Crashes the leader once this many lines are acknowledged, and restarts it.
async fn crash_at(
    cluster: &mut Cluster,
    lines: usize,
    mut acknowledged: watch::Receiver<usize>,
    gone: watch::Sender<bool>,
) -> Result<(), RunError> {
    if acknowledged.wait_for(|count| *count >= lines).await.is_err() {
        return Ok(());
    }
    let leader = cluster.seats().leader().await;
    cluster.crash(leader).await;
    gone.send_replace(true);
    sleep(RESTART_AFTER).await;
    Ok(cluster.restart(leader).await?)
}

/// Proposes every line in order, those from `hold` on only after the crash, and waits for their replies.
async fn feed(
    seats: &Seats,
    lines: &[Bytes],
    hold: usize,
    acknowledged: watch::Sender<usize>,
    mut crashed: watch::Receiver<bool>,
    progress: &Progress,
) -> Result<(), RunError> {
    let mut feeder = Feeder { seats, session: None, broken: false, left: Vec::new() };
    let mut done = 0;
    let mut deadline = Instant::now() + DEADLINE;
    let mut why = String::from("no leader");
    while done < lines.len() {
        let to = if *crashed.borrow() { lines.len() } else { hold };
        if done == to {
            // The sender is dropped with the crash, which has then happened.
            let _ = crashed.wait_for(|crashed| *crashed).await;
            deadline = Instant::now() + DEADLINE;
            continue;
        }
        if Instant::now() >= deadline {
            return Err(RunError::Line { line: done + 1, why });
        }
        let Some(session) = feeder.session_at_leader(done, deadline).await else { continue };
        let batch = &lines[done..to.min(done + BATCH)];
        let replies = session.propose_many(batch.iter().cloned()).await;
        let answered = replies.iter().take_while(|reply| reply.is_ok()).count();
        if answered > 0 {
            done += answered;
            acknowledged.send_replace(done);
            progress.reach(done as f64 / lines.len() as f64);
            deadline = Instant::now() + DEADLINE;
        }
        if let Some(Err(error)) = replies.get(answered) {
            why = error.to_string();
            if let ProposeError::TooLarge { .. } | ProposeError::SessionExpired | ProposeError::Reply(_) =
                error
            {
                return Err(RunError::Line { line: done + 1, why });
            }
            // The session goes on at whoever leads: from the first unanswered line, under the same numbers.
            feeder.broken = true;
            sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

struct Feeder<'a> {
    seats: &'a Seats,
    /// The session, and the life of the node it is held at.
    session: Option<(Session, u64)>,
    /// A line was not answered: what number the session gives next here is not known for sure.
    broken: bool,
    /// Dropping a session would close it, if its node still ran.
    left: Vec<Session>,
}

impl Feeder<'_> {
    /// The session, at the leader there is now: the next line proposed through it is number `done + 1`. None
    /// if there was no leader before the deadline, or it was gone again.
    async fn session_at_leader(&mut self, done: usize, deadline: Instant) -> Option<&Session> {
        let (node, life) = {
            let mut seating = self.seats.watch();
            let leads = seating.wait_for(|seating| seating.leader().is_some());
            let leads = timeout_at(deadline, leads).await.ok()?.ok()?;
            let (_, seat) = leads.leader()?;
            (seat.node.clone(), seat.life)
        };
        let session = match self.session.take() {
            Some((session, at)) if at == life && !self.broken => session,
            Some((session, _)) => {
                let client = session.client();
                self.left.push(session);
                node.attach_session(client, Order::Ordered, Sequence(done as u64 + 1))
            }
            None => timeout_at(deadline, node.session(Order::Ordered)).await.ok()?.ok()?,
        };
        self.broken = false;
        Some(&self.session.insert((session, life)).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::Lines;

    fn summary(lines: &[&str], reigns: u64) -> Summary {
        let mut all = Lines::default();
        lines.iter().for_each(|line| all.push(line.as_bytes()));
        Summary { reigns, ..all.summary() }
    }

    #[test]
    fn replicas_that_differ_from_the_file_in_anything_are_a_problem() {
        let file = summary(&["a", "b"], 0);
        let good = summary(&["a", "b"], 2);
        let run = |summaries: Option<Vec<Summary>>| Replicas { summaries, crashed: true };
        assert_eq!(run(Some(vec![good, good, good])).problem(&file), None);
        let early = summary(&["a", "b"], 1);
        let uncrashed = Replicas { summaries: Some(vec![early]), crashed: false };
        assert_eq!(uncrashed.problem(&file), None);
        for (replicas, word) in [
            (run(None), "one applied index"),
            (run(Some(vec![good, good, summary(&["b", "a"], 2)])), "digests differ"),
            (run(Some(vec![summary(&["a", "b", "b"], 2); 3])), "3 of 2"),
            (run(Some(vec![early; 3])), "1 reign"),
        ] {
            let problem = replicas.problem(&file).unwrap();
            assert!(problem.contains(word), "{problem}");
        }
    }
}
