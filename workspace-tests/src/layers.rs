//! Which room may see which.
//!
//! A room is a folder that holds one package. [`violations`] judges the packages that `cargo metadata`
//! lists; it knows nothing of the file system, so it can be tested on made-up workspaces.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;

/// The part of `cargo metadata --no-deps` that the rules read.
#[derive(Clone, Debug, Deserialize)]
pub struct Workspace {
    /// The members.
    pub packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    /// Its published name.
    pub name: String,
    /// Where its manifest lies; the folder around it is the room.
    pub manifest_path: String,
    /// The registries it may be published to: `None` for any, empty for none.
    pub publish: Option<Vec<String>>,
    /// What it depends on, directly.
    pub dependencies: Vec<Dependency>,
}

/// A dependency as the manifest declares it, optional or not.
#[derive(Clone, Debug, Deserialize)]
pub struct Dependency {
    /// The name of the package.
    pub name: String,
    /// `None` for a normal dependency, otherwise `dev` or `build`.
    pub kind: Option<String>,
}

/// A dependency that must not be, or a room that has no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A room sees another one that its layer does not allow.
    Sees {
        /// Who depends.
        room: String,
        /// On whom.
        other: String,
        /// In tests only.
        dev: bool,
    },
    /// A sans-IO room names a crate for tasks, sockets or files.
    Shell {
        /// The room.
        room: String,
        /// The crate.
        krate: String,
        /// In tests only.
        dev: bool,
    },
    /// A published package depends on one that is not.
    Unpublished {
        /// Who depends.
        room: String,
        /// On whom.
        other: String,
    },
    /// The published name does not follow from the folder.
    Name {
        /// The room.
        room: String,
        /// The name found.
        name: String,
    },
    /// A folder that the layers do not know.
    Unknown {
        /// The folder.
        room: String,
    },
}

/// What a room may see.
struct Layer {
    room: &'static str,
    /// Rooms it may depend on.
    sees: &'static [&'static str],
    /// Rooms its tests may see beside those.
    tests_see: &'static [&'static str],
    /// True if it names no crate for tasks, sockets or the operating system, in its tests neither.
    sans_io: bool,
}

/// `sees` of a room that stands on top of all others.
const EVERYTHING: &[&str] = &["*"];

const LAYERS: &[Layer] = &[
    layer("consensus-core", &[], &[], true),
    layer("clocks", &[], &[], true),
    layer("checker", &[], &[], true),
    layer("raft", &["consensus-core"], &[], true),
    layer("multipaxos", &["consensus-core"], &[], true),
    layer("zab", &["consensus-core"], &[], true),
    layer("lease", &["consensus-core"], &[], true),
    layer("atomic-commit", &["consensus-core", "multipaxos"], &[], true),
    layer("wal", &["consensus-core"], &[], false),
    layer("transport", &["consensus-core"], &["raft", "runtime"], false),
    layer("replica", &["consensus-core"], &[], true),
    layer("runtime", &["consensus-core", "replica"], &["raft", "multipaxos", "zab", "checker"], false),
    layer("eventual", &["consensus-core", "clocks"], &[], false),
    // Its binary is a whole node: a protocol, a log and a transport, behind the feature `cli`.
    layer(
        "elect",
        &["consensus-core", "lease", "replica", "runtime", "raft", "wal", "transport"],
        &["multipaxos", "zab"],
        false,
    ),
    layer(
        "coordination",
        &["consensus-core", "replica", "runtime"],
        &["raft", "multipaxos", "zab", "checker"],
        false,
    ),
    layer("simulator", EVERYTHING, &[], false),
    layer("benches", EVERYTHING, &[], false),
    layer("kv", EVERYTHING, &[], false),
    layer("workspace-tests", &[], EVERYTHING, false),
];

/// Rooms that nothing else may see: they stand on top, and neither benches nor the example take the simulator.
const NEVER_SEEN: &[&str] = &["simulator", "benches", "kv", "workspace-tests"];

/// Crates that a sans-IO room has no use for. `tokio` stands for every name that begins with it.
const SHELL_CRATES: &[&str] = &["async-std", "mio", "polling", "rustix", "smol", "socket2", "tokio"];

const fn layer(
    room: &'static str,
    sees: &'static [&'static str],
    tests_see: &'static [&'static str],
    sans_io: bool,
) -> Layer {
    Layer { room, sees, tests_see, sans_io }
}

/// Every dependency of the workspace that its layers do not allow.
#[must_use]
pub fn violations(workspace: &Workspace) -> Vec<Violation> {
    let packages = &workspace.packages;
    let rooms: BTreeMap<&str, &str> =
        packages.iter().map(|package| (package.name.as_str(), package.room())).collect();
    let unpublished: Vec<&str> =
        packages.iter().filter(|p| !p.is_published()).map(|package| package.name.as_str()).collect();
    let mut found = Vec::new();
    for package in packages {
        let room = package.room();
        let expected = if room == "consensus-core" { "synod-core".into() } else { format!("synod-{room}") };
        if package.name != expected {
            found.push(Violation::Name { room: room.to_owned(), name: package.name.clone() });
        }
        let Some(layer) = LAYERS.iter().find(|layer| layer.room == room) else {
            found.push(Violation::Unknown { room: room.to_owned() });
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.name != package.name) {
            let dev = dependency.kind.as_deref() == Some("dev");
            match rooms.get(dependency.name.as_str()) {
                Some(other) if !layer.may_see(other, dev) => {
                    let (room, other) = (room.to_owned(), (*other).to_owned());
                    found.push(Violation::Sees { room, other, dev });
                }
                None if layer.sans_io && is_shell(&dependency.name) => {
                    let (room, krate) = (room.to_owned(), dependency.name.clone());
                    found.push(Violation::Shell { room, krate, dev });
                }
                _ => {}
            }
            if package.is_published() && !dev && unpublished.contains(&dependency.name.as_str()) {
                let (room, other) = (room.to_owned(), dependency.name.clone());
                found.push(Violation::Unpublished { room, other });
            }
        }
    }
    found
}

impl Layer {
    fn may_see(&self, other: &str, dev: bool) -> bool {
        let lists = |allowed: &[&str]| allowed == EVERYTHING || allowed.contains(&other);
        if self.room == "workspace-tests" {
            return dev;
        }
        !NEVER_SEEN.contains(&other) && (lists(self.sees) || (dev && lists(self.tests_see)))
    }
}

impl Package {
    /// The folder of the package.
    #[must_use]
    pub fn room(&self) -> &str {
        let folder = Path::new(&self.manifest_path).parent().and_then(Path::file_name);
        folder.and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// True unless the manifest says `publish = false`.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.publish.as_ref().is_none_or(|registries| !registries.is_empty())
    }
}

fn is_shell(krate: &str) -> bool {
    SHELL_CRATES.contains(&krate) || krate.starts_with("tokio-")
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tests = |dev: bool| if dev { " in its tests" } else { "" };
        match self {
            Violation::Sees { room, other, dev } => write!(f, "{room} sees {other}{}", tests(*dev)),
            Violation::Shell { room, krate, dev } => {
                write!(f, "{room} is sans-IO and names {krate}{}", tests(*dev))
            }
            Violation::Unpublished { room, other } => {
                write!(f, "{room} is published and depends on {other}, which is not")
            }
            Violation::Name { room, name } => write!(f, "{room} holds a package named {name}"),
            Violation::Unknown { room } => write!(f, "{room} stands in no layer"),
        }
    }
}
