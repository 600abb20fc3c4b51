//! The binary `core_cost` as its users meet it.

use std::process::{Command, Output};

fn core_cost(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_core_cost")).args(args).output().expect("the binary runs")
}

#[test]
fn every_level_orders_every_command_and_reports_the_documented_fields() {
    for level in
        [&["--level", "protocol"][..], &["--level", "replica"], &["--level", "replica", "--state-machine"]]
    {
        for window in ["1", "256"] {
            let args = ["--protocol", "raft", "--window", window, "--commands", "1000", "--json"];
            let output = core_cost(&[&args[..], level].concat());
            assert!(output.status.success(), "{output:?}");
            let line = std::str::from_utf8(&output.stdout).expect("UTF-8");
            let names: Vec<&str> = line
                .trim()
                .trim_matches(['{', '}'])
                .split(',')
                .map(|field| field.split(':').next().expect("a name").trim_matches('"'))
                .collect();
            assert_eq!(names, ["protocol", "level", "window", "commands", "ns_per_command"]);
            let report: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(report["level"], level[1]);
            // Whole windows.
            assert_eq!(report["commands"], if window == "1" { 1_000 } else { 1_024 });
            assert!(report["ns_per_command"].as_f64().expect("a number") > 0.0);
        }
    }
}

#[test]
fn a_bad_option_is_one_line_on_standard_error_and_exit_code_2() {
    for args in [
        &["--protocol", "nobody"][..],
        &["--window", "0"],
        &["--commands", "0"],
        &["--state-machine"],
        &["--level", "x"],
    ] {
        let output = core_cost(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert_eq!(output.stderr.iter().filter(|byte| **byte == b'\n').count(), 1, "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}
