//! The layers of the workspace as it is, and the rules themselves on made-up workspaces.

use std::process::Command;

use synod_workspace_tests::layers::{Dependency, Package, Violation, Workspace, violations};

#[test]
fn every_room_sees_only_what_its_layer_allows() {
    let found = violations(&this_workspace());
    let lines: Vec<String> = found.iter().map(Violation::to_string).collect();
    assert!(found.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn a_protocol_room_that_names_another_is_found() {
    for (room, other) in [("raft", "zab"), ("zab", "raft"), ("multipaxos", "raft"), ("lease", "raft")] {
        for kind in [None, Some("dev"), Some("build")] {
            let found = violations(&workspace(&[(room, &[(other, kind)]), (other, &[])]));
            let expected =
                Violation::Sees { room: room.to_owned(), other: other.to_owned(), dev: kind == Some("dev") };
            assert_eq!(found, [expected]);
        }
    }
}

#[test]
fn a_protocol_room_sees_neither_replica_nor_runtime_nor_tokio() {
    let everything = [("consensus-core", None), ("replica", None), ("runtime", None), ("tokio", None)];
    let found = violations(&workspace(&[
        ("consensus-core", &[]),
        ("raft", &everything),
        ("replica", &[("consensus-core", None), ("tokio-util", Some("dev"))]),
        ("runtime", &[("consensus-core", None), ("replica", None), ("tokio", None)]),
    ]));
    let lines: Vec<String> = found.iter().map(Violation::to_string).collect();
    assert_eq!(
        lines,
        [
            "raft sees replica",
            "raft sees runtime",
            "raft is sans-IO and names tokio",
            "replica is sans-IO and names tokio-util in its tests",
        ]
    );
}

#[test]
fn replica_sees_no_protocol_and_only_tests_of_the_runtime_do() {
    let found = violations(&workspace(&[
        ("raft", &[]),
        ("replica", &[("raft", Some("dev"))]),
        ("runtime", &[("replica", None), ("raft", None), ("raft", Some("dev"))]),
    ]));
    let lines: Vec<String> = found.iter().map(Violation::to_string).collect();
    assert_eq!(lines, ["replica sees raft in its tests", "runtime sees raft"]);
}

#[test]
fn checker_and_clocks_stand_alone_and_nothing_sees_the_simulator() {
    let found = violations(&workspace(&[
        ("consensus-core", &[("clocks", Some("dev"))]),
        ("clocks", &[("consensus-core", None)]),
        ("checker", &[("consensus-core", Some("dev")), ("serde", None)]),
        ("simulator", &[("consensus-core", None), ("checker", None), ("benches", None)]),
        ("benches", &[("checker", None), ("simulator", Some("dev")), ("tokio", None)]),
        ("runtime", &[("simulator", Some("dev"))]),
        ("workspace-tests", &[("simulator", None), ("runtime", Some("dev"))]),
    ]));
    let lines: Vec<String> = found.iter().map(Violation::to_string).collect();
    assert_eq!(
        lines,
        [
            "consensus-core sees clocks in its tests",
            "clocks sees consensus-core",
            "checker sees consensus-core in its tests",
            "simulator sees benches",
            "benches sees simulator in its tests",
            "runtime sees simulator in its tests",
            "workspace-tests sees simulator",
        ]
    );
}

#[test]
fn a_published_package_needs_published_dependencies_a_name_and_a_place() {
    let mut made_up = workspace(&[("raft", &[("consensus-core", None)]), ("consensus-core", &[])]);
    made_up.packages[1].publish = Some(Vec::new());
    made_up.packages.push(package("attic", &[]));
    made_up.packages.push(Package { name: "synod-log".to_owned(), ..package("wal", &[]) });
    let lines: Vec<String> = violations(&made_up).iter().map(Violation::to_string).collect();
    assert_eq!(
        lines,
        [
            "raft is published and depends on synod-core, which is not",
            "attic stands in no layer",
            "wal holds a package named synod-log",
        ]
    );
}

#[test]
fn a_package_may_name_itself_to_switch_on_a_feature_in_its_tests() {
    let itself = [("consensus-core", Some("dev"))];
    assert_eq!(violations(&workspace(&[("consensus-core", &itself)])), []);
}

fn this_workspace() -> Workspace {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let workspace: Workspace = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    assert!(workspace.packages.len() > 5, "the workspace has more than a few members");
    workspace
}

type Edges<'a> = &'a [(&'a str, Option<&'a str>)];

fn workspace(rooms: &[(&str, Edges<'_>)]) -> Workspace {
    Workspace { packages: rooms.iter().map(|(room, edges)| package(room, edges)).collect() }
}

fn package(room: &str, edges: Edges<'_>) -> Package {
    let rooms =
        ["consensus-core", "clocks", "checker", "raft", "zab", "replica", "runtime", "simulator", "benches"];
    let dependencies = edges
        .iter()
        .map(|(name, kind)| Dependency {
            name: if rooms.contains(name) { published(name) } else { (*name).to_owned() },
            kind: kind.map(str::to_owned),
        })
        .collect();
    let manifest_path = format!("somewhere/{room}/Cargo.toml");
    Package { name: published(room), manifest_path, publish: None, dependencies }
}

fn published(room: &str) -> String {
    format!("synod-{}", room.strip_prefix("consensus-").unwrap_or(room))
}
