//! Golden interactions: scripts under `tests/testdata`, with everything that the replicas wrote, sent and told.
//!
//! `REWRITE=1 cargo test -p synod-multipaxos --test golden` writes them anew; the difference is to be read.
//!
//! ```text
//! cluster nodes=N [votes1=(1,-,2) round1=2 ...] replicas, some with votes in ballots of these rounds
//! time-out node=N                              the deadline of one replica comes
//! settle                                       everything is delivered and written, no time passes
//! advance ms=MS                                time passes, everything is delivered; heartbeats are counted
//! deliver [from=N] [to=N] [max=K]              what is on its way, in order; what that makes stays on its way
//! lose [from=N] [to=N]                         what is on its way
//! cut a=N b=N, isolate node=N, heal            the network
//! propose node=N commands=(a,b), read node=N id=R
//! slow-disk node=N, persist node=N [max=K]     writes stay pending, and are completed
//! crash node=N, start node=N                   lives
//! logs, status                                 what there is
//! ```

mod harness;

use std::fmt::Write as _;
use std::time::Duration;

use datadriven::{TestCase, walk};
use harness::{Cluster, Disk, Letter, ballot, vote};
use synod_core::{Entry, Protocol, Stamp};
use synod_multipaxos::MultiPaxos;

#[test]
fn interactions_are_as_recorded() {
    walk(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata"), |file| {
        let mut cluster = Cluster::new(3);
        file.run(|case| {
            let output = run(&mut cluster, case);
            if output.is_empty() { "ok\n".to_string() } else { output }
        });
    });
}

fn run(cluster: &mut Cluster, case: &TestCase) -> String {
    let mut case = case.clone();
    match case.directive.as_str() {
        "cluster" => *cluster = make(&mut case),
        "settle" => cluster.settle(),
        "advance" => {
            cluster.advance(Duration::from_millis(number(&mut case, "ms")));
            return without_heartbeats(&cluster.take_trace());
        }
        "deliver" => {
            let mut left = case.try_take_arg::<usize>("max").unwrap().unwrap_or(usize::MAX);
            let fits = selection(&mut case);
            let letters = cluster.take(|letter| {
                let taken = left > 0 && fits(letter);
                left -= usize::from(taken);
                taken
            });
            for letter in letters {
                cluster.deliver(letter);
            }
        }
        "lose" => {
            let fits = selection(&mut case);
            cluster.take_trace();
            for letter in cluster.take(fits) {
                let _ = writeln!(cluster.trace, "lost: {letter}");
            }
        }
        "cut" => cluster.cut(number(&mut case, "a"), number(&mut case, "b")),
        "heal" => cluster.heal(),
        "logs" => return logs(cluster),
        "status" => return status(cluster),
        _ => {
            let node = number(&mut case, "node");
            match case.directive.as_str() {
                "time-out" => cluster.time_out(node),
                "isolate" => cluster.isolate(node),
                "propose" => {
                    let commands: Vec<String> = case.take_args("commands").unwrap();
                    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
                    cluster.propose(node, &commands);
                }
                "read" => {
                    let id = number(&mut case, "id");
                    cluster.read(node, id);
                }
                "slow-disk" => cluster.node_mut(node).slow_disk = true,
                "persist" => {
                    let max = case.try_take_arg::<usize>("max").unwrap().unwrap_or(usize::MAX);
                    let _ = (0..max).try_for_each(|_| cluster.persist_one(node).then_some(()));
                }
                "crash" => cluster.crash(node),
                "start" => cluster.start(node),
                other => panic!("{other} is no directive"),
            }
        }
    }
    case.expect_empty().unwrap();
    cluster.take_trace()
}

/// Time brings many heartbeats: they are counted and left out.
fn without_heartbeats(trace: &str) -> String {
    let (beats, lines): (Vec<&str>, Vec<&str>) = trace.lines().partition(|line| line.contains(" heartbeat"));
    let mut output: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if !beats.is_empty() {
        let _ = writeln!(output, "({} heartbeats and answers)", beats.len());
    }
    output
}

fn number(case: &mut TestCase, key: &str) -> u64 {
    case.take_arg(key).unwrap()
}

/// Votes of one replica: for each slot the round of the ballot, `-` for none, or `c` for known to be chosen. Ballots
/// of a round belong to the replica of that number.
fn make(case: &mut TestCase) -> Cluster {
    let nodes = case.take_arg::<u64>("nodes").unwrap();
    let mut disks = Vec::new();
    for id in 1..=nodes {
        let rounds: Option<Vec<String>> = case.try_take_args(&format!("votes{id}")).unwrap();
        let promised = case.try_take_arg::<u64>(&format!("round{id}")).unwrap();
        let Some(rounds) = rounds else { continue };
        let cast = (1..).zip(&rounds).filter(|(_, round)| *round != "-");
        let votes: Vec<Entry> = cast
            .map(|(slot, round)| match round.parse::<u64>() {
                Ok(round) => vote(slot, ballot(round, round), &format!("{slot}.{round}")),
                Err(_) => Entry { stamp: Stamp::CHOSEN, ..vote(slot, ballot(1, 1), &format!("{slot}.1")) },
            })
            .collect();
        let highest = rounds.iter().filter_map(|round| round.parse().ok()).max().unwrap_or(1);
        let promised = promised.unwrap_or(highest);
        disks.push((id, Disk::with_votes(&votes, ballot(promised, promised.min(nodes)))));
    }
    let mut cluster = Cluster::with(nodes, MultiPaxos::config(), &disks);
    cluster.scripted = case.try_take_arg::<bool>("scripted").unwrap().unwrap_or(false);
    cluster
}

fn selection(case: &mut TestCase) -> impl Fn(&Letter) -> bool + use<> {
    let from = case.try_take_arg::<u64>("from").unwrap();
    let to = case.try_take_arg::<u64>("to").unwrap();
    move |letter| from.is_none_or(|id| letter.from == id) && to.is_none_or(|id| letter.to == id)
}

fn logs(cluster: &Cluster) -> String {
    let mut lines = String::new();
    for id in cluster.up() {
        let rounds: Vec<String> = cluster.rounds(id).iter().map(u64::to_string).collect();
        let _ = writeln!(lines, "n{id} [{}] decided {}", rounds.join(" "), cluster.decided(id));
    }
    lines
}

fn status(cluster: &Cluster) -> String {
    let mut lines = String::new();
    for id in cluster.up() {
        let status = cluster.paxos(id).status();
        let route = cluster.paxos(id).route();
        let _ =
            writeln!(lines, "n{id} {} of {} decided {} {route:?}", status.role, status.reign, status.decided);
    }
    lines
}
