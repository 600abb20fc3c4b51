//! Golden interactions: scripts under `tests/testdata`, with everything that the replicas wrote, sent and told.
//!
//! `REWRITE=1 cargo test -p synod-zab --test golden` writes them anew; the difference is to be read.
//!
//! ```text
//! cluster nodes=N [log1=(1,1,2) promised1=3 current1=2 ...]   replicas, some with a history
//! settle                                       everything is delivered and written, no time passes
//! advance ms=MS                                time passes, everything is delivered; pings are counted
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
use harness::{Cluster, Disk, Letter};
use synod_core::Protocol;
use synod_zab::Zab;

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
            return without_pings(&cluster.take_trace());
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

/// Time brings many pings: they are counted and left out.
fn without_pings(trace: &str) -> String {
    let (beats, lines): (Vec<&str>, Vec<&str>) =
        trace.lines().partition(|line| line.contains(" ping ") || line.contains(" pong "));
    let mut output: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if !beats.is_empty() {
        let _ = writeln!(output, "({} pings and answers)", beats.len());
    }
    output
}

fn number(case: &mut TestCase, key: &str) -> u64 {
    case.take_arg(key).unwrap()
}

fn make(case: &mut TestCase) -> Cluster {
    let nodes = case.take_arg::<u64>("nodes").unwrap();
    let mut disks = Vec::new();
    for id in 1..=nodes {
        let log: Option<Vec<u64>> = case.try_take_args(&format!("log{id}")).unwrap();
        let promised = case.try_take_arg::<u64>(&format!("promised{id}")).unwrap();
        let current = case.try_take_arg::<u64>(&format!("current{id}")).unwrap();
        if log.is_some() || promised.is_some() {
            let log = log.unwrap_or_default();
            let current = current.unwrap_or(log.last().copied().unwrap_or(0));
            disks.push((id, Disk::with_history(&log, promised.unwrap_or(current), current)));
        }
    }
    Cluster::with(nodes, Zab::config(), &disks)
}

fn selection(case: &mut TestCase) -> impl Fn(&Letter) -> bool + use<> {
    let from = case.try_take_arg::<u64>("from").unwrap();
    let to = case.try_take_arg::<u64>("to").unwrap();
    move |letter| from.is_none_or(|id| letter.from == id) && to.is_none_or(|id| letter.to == id)
}

fn logs(cluster: &Cluster) -> String {
    let mut lines = String::new();
    for id in cluster.up() {
        let epochs: Vec<String> = cluster.epochs(id).iter().map(u64::to_string).collect();
        let _ = writeln!(lines, "n{id} [{}] decided {}", epochs.join(" "), cluster.decided(id));
    }
    lines
}

fn status(cluster: &Cluster) -> String {
    let mut lines = String::new();
    for id in cluster.up() {
        let status = cluster.zab(id).status();
        let route = cluster.zab(id).route();
        let _ =
            writeln!(lines, "n{id} {} of {} decided {} {route:?}", status.role, status.reign, status.decided);
    }
    lines
}
