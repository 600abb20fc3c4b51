//! The binary `simulate`: what it prints and how it ends.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulate")).args(arguments).output().expect("simulate runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it prints text")
}

#[test]
fn a_bad_option_is_one_clear_line_and_exit_code_2() {
    for bad in [
        &["--protocol", "chain"][..],
        &["--level", "disk"],
        &["--replicas", "0"],
        &["--replicas", "many"],
        &["--seeds", "3", "--for", "2s"],
        &["--for", "2 fortnights"],
        &["--html", "file"],
        &["--delays", "--protocol", "raft"],
        &["--delays", "--seeds", "3"],
        &["--failover", "--protocol", "zab"],
        &["--failover", "--replicas", "2"],
        &["--failover", "--seeds", "0"],
        &["--nonsense"],
    ] {
        let output = simulate(bad);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(output.stdout.is_empty() && stderr.lines().count() == 1, "{bad:?}: {stderr}");
    }
}

#[test]
fn the_report_is_one_json_object_with_its_fields_in_order_and_every_fault() {
    let output = simulate(&["--protocol", "raft", "--level", "protocol", "--seeds", "3", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 1);
    let fields = [
        "protocol",
        "level",
        "replicas",
        "seeds",
        "events",
        "events_per_s",
        "simulated_hours",
        "faults",
        "decided",
        "client_ops",
        "violations",
        "violated",
        "expected",
        "trace_hash",
    ];
    let places: Vec<usize> =
        fields.iter().map(|field| text.find(&format!("\"{field}\":")).unwrap()).collect();
    assert!(places.is_sorted());
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let faults: Vec<&str> = report["faults"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut words = [
        "loss",
        "duplicate",
        "reorder",
        "partition",
        "one_way",
        "partial_partition",
        "clog",
        "unsynced_loss",
        "crash",
        "crash_restart",
        "outage",
        "pause",
        "drift",
        "clock_jump",
        "torn_write",
        "transfer",
        "bit_rot",
        "misdirected_write",
        "lost_write",
        "sync_error",
        "write_error",
        "short_write",
        "sync_stall",
        "lost_entry",
        "stale_segment",
        "truncated_file",
        "snapshot_error",
        "snapshot_damage",
        "snapshot_install",
        "lease_read",
    ];
    words.sort_unstable();
    let mut found = faults.clone();
    found.sort_unstable();
    assert_eq!(found, words);
    assert_eq!((&report["seeds"], &report["violations"]), (&3.into(), &0.into()));
}

#[test]
fn the_trace_hash_is_the_last_word_and_the_same_every_time() {
    let last = |arguments: &[&str]| stdout(&simulate(arguments)).split_whitespace().last().map(str::to_owned);
    let hash = last(&["--replay", "5", "--trace-hash"]).unwrap();
    assert!(hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()));
    assert_eq!(last(&["--replay", "5", "--trace-hash"]), Some(hash.clone()));
    assert_eq!(last(&["--replay", "5"]), Some(hash));
    assert_ne!(last(&["--replay", "6", "--trace-hash"]), last(&["--replay", "5", "--trace-hash"]));
    let sweep = ["--seeds", "4", "--trace-hash", "--json"];
    assert_eq!(last(&sweep), last(&sweep));
}

#[test]
fn what_is_there_to_fail_fails_with_exit_code_1_and_the_report_says_that_it_was_expected() {
    for (arguments, invariant) in [
        (&["--protocol", "bully-plain"][..], "B1"),
        (&["--protocol", "heartbeat"], "B1"),
        (&["--protocol", "paxoslease", "--drift", "10"], "LI1"),
    ] {
        let output = simulate(&[arguments, &["--seeds", "200", "--json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(report["violated"][invariant].as_u64().unwrap() > 0, "{arguments:?}");
        assert!(report["expected"].as_array().unwrap().contains(&invariant.into()), "{arguments:?}");
        let expected: u64 = report["expected"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|name| report["violated"][name.as_str().unwrap()].as_u64())
            .sum();
        assert_eq!(report["violations"].as_u64(), Some(expected), "{arguments:?}: nothing else broke");
    }
}

#[test]
fn leases_keep_their_promise_up_to_the_bound_on_clocks_and_tokens_beyond_it() {
    for arguments in [
        &["--protocol", "bully"][..],
        &["--protocol", "paxoslease", "--drift", "1"],
        &["--protocol", "paxoslease", "--drift", "10", "--fenced"],
    ] {
        let output = simulate(&[arguments, &["--seeds", "200"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stdout(&output));
    }
    assert_eq!(simulate(&["--protocol", "raft", "--drift", "10"]).status.code(), Some(2));
}

#[test]
fn delays_are_one_json_object_a_row_with_its_columns_in_order_or_a_table_of_the_same() {
    let columns = [
        "protocol",
        "replicas",
        "client_at",
        "case",
        "message_delays",
        "messages",
        "bytes",
        "durable_writes",
    ];
    let output = simulate(&["--delays", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let json = stdout(&output);
    for line in json.lines() {
        let places: Vec<usize> =
            columns.iter().map(|column| line.find(&format!("\"{column}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{line}");
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(row.as_object().unwrap().len(), columns.len());
        assert!(["leader", "follower"].contains(&row["client_at"].as_str().unwrap()));
        assert!(columns[4..].iter().all(|column| row[column].is_u64()));
    }
    let table = stdout(&simulate(&["--delays"]));
    assert_eq!(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), columns);
    assert_eq!(table.lines().count(), json.lines().count() + 1);
}
