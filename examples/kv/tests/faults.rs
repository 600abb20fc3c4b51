//! Real processes, a few rounds: kills, stops and cuts. `scripts/sweep` runs many.

use std::process::Command;

#[test]
fn a_cluster_of_processes_survives_kills_stops_and_cuts_on_every_protocol() {
    for protocol in ["raft", "multipaxos", "zab"] {
        survives(protocol);
    }
}

fn survives(protocol: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_kv-faults"))
        .args(["--rounds", "3", "--writes", "30", "--snapshot-entries", "40", "--cut", "proxy", "--json"])
        .args(["--protocol", protocol, "--kv", env!("CARGO_BIN_EXE_kv")])
        .output()
        .expect("kv-faults starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let outcome: serde_json::Value = serde_json::from_str(&said).expect("one JSON object");
    assert_eq!(outcome["linearizable"], true);
    assert_eq!(outcome["replicas_equal"], true);
    assert_eq!((&outcome["kills"], &outcome["stops"], &outcome["cuts"]), (&3.into(), &3.into(), &3.into()));
    assert!(outcome["writes_acknowledged"].as_u64() >= Some(3 * 4 * 30), "{said}");
    if protocol != "zab" {
        assert!(outcome["snapshot"].as_u64() > Some(0), "{said}");
        assert!(outcome["snapshots_installed"].as_u64() > Some(0), "{said}");
    }
}

#[test]
fn bad_usage_is_one_clear_line_and_exit_code_2() {
    for (arguments, word) in [
        (vec!["--id", "1"], "--"),
        (vec!["--id", "1", "--peers", "1:127.0.0.1", "--dir", "d"], "ID=ADDR"),
        (vec!["--id", "1", "--peers", "1=127.0.0.1", "--dir", "d"], "no address with a port"),
        (vec!["put", "a", "b"], "--servers"),
        (vec![], "--id"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_kv")).args(&arguments).output().expect("kv starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn a_node_without_a_log_is_refused_and_told_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_kv"))
        .args(["--id", "1", "--peers", "1=127.0.0.1:0", "--clients", "127.0.0.1:0", "--dir"])
        .arg(dir.path())
        .output()
        .expect("kv starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the log in"), "{said}");
}
