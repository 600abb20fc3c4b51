//! The exit codes of `check-history`, and what it prints.

use std::io::Write;
use std::process::{Command, Output, Stdio};

const GOOD: &str = include_str!("testdata/linearizable.jsonl");
const STALE: &str = include_str!("testdata/stale-read.jsonl");

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_check-history"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A child that refuses its options reads nothing.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("the binary ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn assert_bad(output: &Output, complaint: &str) {
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let stderr = text(&output.stderr);
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.contains(complaint), "{stderr}");
}

#[test]
fn a_linearizable_history_exits_0() {
    let output = run(&["-"], GOOD);
    assert_eq!(output.status.code(), Some(0));
    let line = text(&output.stdout);
    assert!(line.starts_with("linearizable: 7 operations on 2 keys (5 ok, 1 failed, 1 unknown)"), "{line}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_stale_read_exits_1_and_is_explained() {
    let output = run(&["-"], STALE);
    assert_eq!(output.status.code(), Some(1));
    let explanation: Vec<&str> = text(&output.stdout).lines().skip(1).collect();
    assert_eq!(
        explanation,
        [
            r#"key "x": "a" would have to be written before "b", and "b" before "a""#,
            r#"  (1) [10, 20] client 1 seq 0: put "a" ok"#,
            r#"  (2) [30, 40] client 1 seq 1: put "b" ok"#,
            r#"  (3) [50, 60] client 2 seq 0: get -> "a" ok"#,
            r#"  (1) returned at 20 and (2) was called at 30: "a" precedes "b""#,
            r#"  (2) returned at 40 and (3) was called at 50: "b" precedes "a""#,
        ]
    );
}

#[test]
fn the_search_agrees_with_the_zones() {
    assert_eq!(run(&["--search", "-"], GOOD).status.code(), Some(0));
    let output = run(&["--search", "-"], STALE);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("no order exists"), "{}", text(&output.stdout));
}

#[test]
fn an_exhausted_budget_exits_3() {
    for extra in [&["--budget", "1"][..], &["--search", "--memory-mb", "0"]] {
        let output = run(&[extra, &["-"]].concat(), GOOD);
        assert_eq!(output.status.code(), Some(3));
        assert!(text(&output.stdout).starts_with("unknown: "), "{}", text(&output.stdout));
    }
}

#[test]
fn json_is_one_object_with_the_verdict() {
    for (file, verdict) in [(GOOD, "linearizable"), (STALE, "not_linearizable")] {
        let output = run(&["--json", "-"], file);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
        assert_eq!(report["verdict"], verdict);
        assert_eq!(report["explanation"].is_null(), verdict == "linearizable");
    }
}

#[test]
fn bad_options_and_files_exit_2_with_one_line() {
    assert_bad(&run(&[], ""), "<FILE>");
    assert_bad(&run(&["--no-such-option", "-"], ""), "--no-such-option");
    assert_bad(&run(&["--budget", "many", "-"], ""), "--budget");
    assert_bad(&run(&["--seed", "1", "-"], ""), "--self-test");
    assert_bad(&run(&["no/such/file"], ""), "no/such/file");
    assert_bad(&run(&["-"], &format!("{GOOD}nonsense\n")), "line 8");
    assert_bad(&run(&["--line-bytes-max", "20", "-"], GOOD), "line 1: longer than 20 bytes");
    assert_bad(&run(&["--self-test", "-"], ""), "no successful get");
}

#[test]
fn the_self_test_passes_only_if_the_falsified_history_is_rejected() {
    for seed in ["0", "1", "2", "3"] {
        let output = run(&["--self-test", "--seed", seed, "-"], GOOD);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        assert!(text(&output.stdout).starts_with("self-test passed"), "{}", text(&output.stdout));
    }
    assert_eq!(run(&["--self-test", "-"], STALE).status.code(), Some(1));
    assert_eq!(run(&["--self-test", "--budget", "1", "-"], GOOD).status.code(), Some(3));
}
