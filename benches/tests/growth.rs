//! The binary `growth` as its users meet it.

use std::process::{Command, Output};

use serde_json::Value;

fn growth(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_growth")).args(args).output().expect("the binary runs")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_cluster_outlives_a_crash_and_a_restart_and_keeps_snapshots() {
    let output = growth(&["--entries", "30000", "--every", "10000", "--snapshot-entries", "1000", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    let last = lines.last().expect("a last line");
    assert_eq!(last["entries"], 30_000);
    assert!(last["note"].as_str().expect("a note").starts_with("all started again"), "{last}");
    assert!(last["snapshot"].as_u64() > Some(20_000), "{last}");
    for field in ["resident_mib", "log_mib", "snapshots_mib", "seconds"] {
        assert!(last[field].as_f64() > Some(0.0), "{field} of {last}");
    }
}

#[test]
fn a_restart_is_measured_with_and_without_snapshots() {
    let output = growth(&["--restart", "2000", "--snapshot-entries", "500", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    assert_eq!(lines.iter().map(|line| &line["snapshot_entries"]).collect::<Vec<_>>(), [0, 500]);
    assert!(lines[0]["snapshots_mib"] == 0.0 && lines[1]["snapshots_mib"].as_f64() > Some(0.0));
}

#[test]
fn a_bad_option_is_named_and_exit_code_2() {
    for args in [&["--protocol", "nobody"][..], &["--payload", "7"], &["--restart", "x"]] {
        let output = growth(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    }
}
