//! Three processes on each election, killed and stopped again and again, and a resource that checks their tokens.
//!
//! `ROUNDS` says how many rounds there are of each election; `-- --nocapture` shows how long hand-overs took.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use synod_lease::FencingToken;

use support::members::{Kind, Members};
use support::register::{PACE, Register, What};

const TTL: Duration = Duration::from_millis(1_000);
const GRACE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn paxos_lease_never_lets_two_act_out_of_order() {
    rounds(Kind::Themselves("paxoslease"), TTL).await;
}

#[tokio::test]
async fn a_replicated_lease_never_lets_two_act_out_of_order() {
    rounds(Kind::Themselves("replicated"), TTL).await;
}

/// Where the servers are is told by `scripts/elect-servers`, which starts them.
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
async fn rounds_by_servers(election: &'static str, variable: &str) {
    match std::env::var(variable) {
        Ok(endpoints) => rounds(Kind::Servers(election, endpoints), 2 * TTL).await,
        Err(_) => println!("skipped: {variable} names no servers; `scripts/elect-servers` starts some"),
    }
}

#[cfg(feature = "etcd")]
#[tokio::test]
async fn etcd_never_lets_two_act_out_of_order() {
    rounds_by_servers("etcd", "ELECT_ETCD").await;
}

#[cfg(feature = "zookeeper")]
#[tokio::test]
async fn zookeeper_never_lets_two_act_out_of_order() {
    rounds_by_servers("zookeeper", "ELECT_ZOOKEEPER").await;
}

/// Kills or stops the leader, again and again.
async fn rounds(kind: Kind, ttl: Duration) {
    let rounds: usize = std::env::var("ROUNDS").map_or(4, |rounds| rounds.parse().unwrap());
    let shown = format!("{kind:?}");
    let register = Register::open().await;
    let mut members = Members::new(kind, 3, ttl, GRACE, register.command());
    for id in 1..=3 {
        members.start(id, true);
    }
    let first = register.wait_for(0, "a first leader", |visit| visit.what == What::Accepted).await;
    let (mut token, mut leader) = (first.token, first.id);
    let mut after_kill = Vec::new();
    let mut after_stop = Vec::new();
    let mut refused = 0;
    for round in 0..rounds {
        let seen = register.seen();
        let began = Instant::now();
        let stops = round % 2 == 1;
        if stops {
            members.signal(leader, Signal::STOP);
        } else {
            members.kill(leader).await;
        }
        let next = register
            .wait_for(seen, "a next leader", |visit| visit.what == What::Accepted && visit.token > token)
            .await;
        let took = next.at.duration_since(began);
        assert_ne!(next.id, leader, "it is gone");
        if stops {
            after_stop.push(took);
            // Nobody has ended its command: only the token protects now.
            let stale =
                |visit: &support::register::Visit| visit.what == What::Refused && visit.token == token;
            register.wait_for(seen, "a refusal", stale).await;
            refused += 1;
            members.signal(leader, Signal::CONT);
            let left = |visit: &support::register::Visit| visit.what == What::Left && visit.token == token;
            register.wait_for(seen, "the end of the command", left).await;
        } else {
            after_kill.push(took);
            members.start(leader, false);
        }
        (token, leader) = (next.token, next.id);
        // Who was restarted by PaxosLease is silent for one lease: the next round begins with three.
        let mut seen = register.seen();
        for _ in 0..(ttl * 3 / 2).as_nanos() / PACE.as_nanos() {
            let accepted =
                register.wait_for(seen, "the leader goes on", |visit| visit.what == What::Accepted).await;
            seen = register.seen();
            (token, leader) = (accepted.token, accepted.id);
        }
    }
    judge(&register);
    assert!(token > first.token, "nothing was handed over");
    println!("{shown}: {rounds} rounds, {refused} stopped commands refused, lease {ttl:?}");
    print("killed", &mut after_kill, ttl);
    print("stopped", &mut after_stop, ttl);
}

/// Tokens never go back, and each is one member's.
fn judge(register: &Register) {
    let mut owners: BTreeMap<FencingToken, u64> = BTreeMap::new();
    let mut highest = FencingToken(0);
    let visits = register.visits();
    for visit in &visits {
        assert_eq!(
            *owners.entry(visit.token).or_insert(visit.id),
            visit.id,
            "{} has two owners",
            visit.token
        );
        match visit.what {
            What::Accepted => {
                assert!(visit.token >= highest, "{} after {highest}", visit.token);
                highest = visit.token;
            }
            What::Refused => assert!(visit.token < highest, "{} was refused below {highest}", visit.token),
            What::Said(_) | What::Left => {}
        }
    }
}

/// How long it took until another member's command changed the resource. In theory that is at most the lease and one
/// election: what is printed as past the lease is the election's.
fn print(what: &str, times: &mut [Duration], ttl: Duration) {
    times.sort();
    let Some(last) = times.len().checked_sub(1) else { return };
    let at = |percent: usize| times[last * percent / 100];
    let past = |percent: usize| at(percent).as_millis() as i128 - ttl.as_millis() as i128;
    println!(
        "  {what}: {} hand-overs, p50 {} ms, p90 {} ms, max {} ms; past the lease p50 {} ms, p90 {} ms, max {} ms",
        times.len(),
        at(50).as_millis(),
        at(90).as_millis(),
        at(100).as_millis(),
        past(50),
        past(90),
        past(100),
    );
}

#[tokio::test]
async fn a_command_that_does_not_end_when_told_is_killed_before_the_lease_ends() {
    let register = Register::open().await;
    let mut members = Members::new(Kind::Themselves("paxoslease"), 3, TTL, GRACE, register.command());
    for id in 1..=3 {
        members.start(id, true);
    }
    let first = register.wait_for(0, "a leader", |visit| visit.what == What::Accepted).await;
    for other in (1..=3).filter(|id| *id != first.id) {
        members.signal(other, Signal::STOP);
    }
    let told = register.wait_for(0, "SIGTERM", |visit| visit.what == What::Said("told".into())).await;
    let left = register.wait_for(0, "SIGKILL", |visit| visit.what == What::Left).await;
    assert!(left.at - told.at <= GRACE, "{:?} after SIGTERM", left.at - told.at);
    // Once they go on, so does the command: of the same leader, if its lease had not ended meanwhile.
    let seen = register.seen();
    for other in (1..=3).filter(|id| *id != first.id) {
        members.signal(other, Signal::CONT);
    }
    register.wait_for(seen, "a leader again", |visit| visit.what == What::Accepted).await;
    judge(&register);
}

#[tokio::test]
async fn the_command_finds_its_token_and_its_exit_code_is_passed_on() {
    let script = "test \"$ELECT_TOKEN\" -ge 1 && test \"$ELECT_ID\" = 1 && exit 7";
    let command = vec!["bash".into(), "-c".into(), script.into()];
    for election in ["paxoslease", "replicated"] {
        let mut members = Members::new(Kind::Themselves(election), 1, TTL, GRACE, command.clone());
        members.start(1, true);
        assert_eq!(members.ended(1).await, Some(7), "{}", members.words(1));
    }
    let command = vec!["/nowhere/at/all".to_owned()];
    let mut members = Members::new(Kind::Themselves("paxoslease"), 1, TTL, GRACE, command);
    members.start(1, true);
    assert_eq!(members.ended(1).await, Some(127), "{}", members.words(1));
}

#[tokio::test]
async fn who_is_told_to_end_ends_its_command_and_hands_over_at_once() {
    let register = Register::open().await;
    // Long leases: whoever had to wait for the end of one would be seen.
    let ttl = 4 * TTL;
    let mut members = Members::new(Kind::Themselves("replicated"), 3, ttl, GRACE, register.command());
    for id in 1..=3 {
        members.start(id, true);
    }
    let first = register.wait_for(0, "a leader", |visit| visit.what == What::Accepted).await;
    let began = Instant::now();
    members.signal(first.id, Signal::TERM);
    let next = register
        .wait_for(0, "a next leader", |visit| visit.what == What::Accepted && visit.token > first.token)
        .await;
    assert_ne!(next.id, first.id);
    assert!(next.at.duration_since(began) < ttl, "{:?}", next.at.duration_since(began));
    assert_eq!(members.ended(first.id).await, Some(128 + 15));
    judge(&register);
}

#[tokio::test]
async fn a_member_that_has_lost_its_folder_and_bad_usage_are_refused() {
    let nothing = || vec!["true".to_owned()];
    let mut members = Members::new(Kind::Themselves("paxoslease"), 1, TTL, GRACE, nothing());
    members.start(1, false);
    assert_eq!(members.ended(1).await, Some(1));
    assert!(members.words(1).starts_with("elect: "), "{}", members.words(1));

    let mut long = Members::new(Kind::Themselves("paxoslease"), 1, TTL, TTL, nothing());
    long.start(1, true);
    assert_eq!(long.ended(1).await, Some(2));
    assert!(long.words(1).contains("--grace"), "{}", long.words(1));
}
