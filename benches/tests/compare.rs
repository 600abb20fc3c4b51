//! The binary `compare` as its users meet it.

use std::path::PathBuf;
use std::process::{Command, Output};

use synod_benches::state_machine::Lines;

fn compare(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_compare")).args(args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A file of this test's own that goes away with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Scratch {
        let path = std::env::temp_dir().join(format!("synod-compare-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("the temporary folder is writable");
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_crashed_leader_leaves_a_linearizable_history_equal_replicas_and_no_errors() {
    crashed_leader("memory", "memory", "current-thread");
}

#[test]
fn a_crashed_leader_over_tcp_leaves_the_same() {
    crashed_leader("tcp", "memory", "current-thread");
    crashed_leader("tcp", "memory", "multi-thread");
}

#[test]
fn a_crashed_leader_over_tls_leaves_the_same() {
    crashed_leader("tls", "memory", "current-thread");
}

#[test]
fn a_crashed_leader_on_a_write_ahead_log_leaves_the_same_and_every_write_was_synced() {
    let [raft, alone] = crashed_leader("tcp", "wal", "current-thread");
    // A batch is synced at two replicas at least before one of its writes is answered.
    assert!(raft["fsyncs_per_write"].as_f64().expect("a number") > 0.0);
    assert!(alone["fsyncs_per_write"].as_f64().expect("a number") > 0.0);
}

fn crashed_leader(transport: &str, storage: &str, flavour: &str) -> [serde_json::Value; 2] {
    let history = Scratch::new(&format!("history-{transport}-{storage}-{flavour}"), b"");
    let args = ["--protocols", "raft", "--seconds", "1", "--clients", "8", "--keys", "100", "--json"];
    let args = [&args[..], &["--transport", transport, "--storage", storage, "--flavour", flavour]].concat();
    let output = compare(&[&args[..], &["--history", history.path()]].concat());
    assert!(output.status.success(), "{output:?}");
    let rows: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 2);
    for (row, protocol, replicas) in [(&rows[0], "raft", 3), (&rows[1], "unreplicated", 1)] {
        assert_eq!(row["protocol"], protocol);
        assert_eq!(row["replicas"], replicas);
        assert_eq!(row["clients"], 8);
        assert_eq!(row["linearizable"], true);
        assert_eq!(row["replicas_equal"], true);
        assert_eq!((&row["unknown"], &row["errors"]), (&0.into(), &0.into()));
        assert!(row["writes_per_s"].as_f64().expect("a number") > 0.0);
        assert!(row["read_p99_us"].as_f64().expect("a number") > 0.0);
    }
    // Nobody is elected before an election timeout has passed.
    assert!(rows[0]["unavailable_ms"].as_f64().expect("a number") > 50.0);
    assert_eq!(rows[1]["unavailable_ms"], 0.0);
    assert!(rows[0]["messages_per_write"].as_f64().expect("a number") > 0.0);
    assert_eq!(rows[1]["messages_per_write"], 0.0);

    let account = text(&output.stderr).lines().find(|line| line.contains("raft: ")).expect("an account");
    let issued: u64 = account.split(' ').nth(2).expect("a number").parse().expect("a number");
    let recorded = std::fs::read_to_string(&history.0).expect("the history");
    assert_eq!(recorded.lines().count() as u64, issued, "the history holds every operation");
    let first: serde_json::Value =
        serde_json::from_str(recorded.lines().next().expect("a line")).expect("JSON");
    for field in ["client", "seq", "op", "key", "value", "call_ns", "return_ns", "outcome"] {
        assert!(first.get(field).is_some(), "{field} is missing");
    }
    <[_; 2]>::try_from(rows).expect("two rows")
}

#[test]
fn a_crashed_leader_whose_log_was_cut_off_leaves_the_same() {
    let args = ["--protocols", "raft", "--seconds", "1", "--clients", "8", "--keys", "100"];
    let output = compare(
        &[&args[..], &["--transport", "memory", "--storage", "memory", "--snapshot-entries", "500"]].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    let out = text(&output.stdout);
    let account = out.lines().find(|line| line.starts_with("raft: ")).expect("an account");
    assert!(account.ends_with("snapshots taken"), "{account}");
}

#[test]
fn every_replica_makes_the_same_of_a_file_as_the_file_itself() {
    let mut content = b"\n\xff\xfe\r\n\n".to_vec();
    for line in 0..5_000 {
        content.extend_from_slice(format!("line {line}\n").as_bytes());
    }
    content.extend_from_slice(b"no line feed at the end");
    let file = Scratch::new("input", &content);
    let output = compare(&["--protocols", "raft", "--input", file.path()]);
    assert!(output.status.success(), "{output:?}");

    let mut direct = Lines::default();
    content.split(|byte| *byte == b'\n').for_each(|line| direct.push(line));
    let digests: Vec<&str> = text(&output.stdout)
        .split_whitespace()
        .filter(|word| word.len() >= 16 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
        .collect();
    assert_eq!(digests, vec![direct.summary().hex(); 4]);
    assert!(text(&output.stdout).lines().last().expect("a line").starts_with("file"));
    assert!(text(&output.stderr).contains("5004 lines"), "{output:?}");
}

#[test]
fn open_loops_spread_clients_and_runs_without_faults_are_good_too() {
    let args =
        ["--seconds", "0.5", "--clients", "6", "--keys", "50", "--rate", "2000", "--clients-at", "spread"];
    let output =
        compare(&[&args[..], &["--no-faults", "--flavour", "multi-thread", "--read-ratio", "0.9"]].concat());
    assert!(output.status.success(), "{output:?}");
    let out = text(&output.stdout);
    assert!(out.contains("2000/s offered") && out.contains("never started"), "{out}");
    assert!(out.contains("multi-thread") && out.contains("90% reads"), "{out}");
}

#[test]
fn a_bad_option_or_file_is_one_line_on_standard_error_and_exit_code_2() {
    let single = Scratch::new("single", b"one line\n");
    for args in [
        &["--protocols", "nobody"][..],
        &["--clients", "many"],
        &["--unheard-of"],
        &["--input", "/nowhere/at/all"],
        &["--input", single.path()],
        &["--history", "/nowhere/at/all"],
    ] {
        let output = compare(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    }
}
