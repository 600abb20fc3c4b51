//! The documents name what is there.

use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];

#[test]
fn every_room_is_in_the_readme_and_in_the_code_map() {
    let rooms = rooms();
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = read(document);
        for room in rooms.iter().filter(|room| *room != "workspace-tests") {
            assert!(text.contains(&format!("`{room}`")), "{document} does not name `{room}`");
        }
    }
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let rooms = rooms();
    let readmes = rooms.iter().map(|room| format!("{room}/README.md"));
    let documents = DOCUMENTS.iter().map(|name| (*name).to_owned()).chain(readmes);
    for document in documents.filter(|document| root().join(document).exists()) {
        let text = read(&document);
        let folder = root().join(&document).parent().expect("a file has a folder").to_path_buf();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            assert!(folder.join(path).exists(), "{document} links to {path}, which is not there");
        }
    }
}

#[test]
fn every_source_file_of_the_core_is_in_the_code_map() {
    let text = read("ARCHITECTURE.md");
    let mut folders = vec![root().join("consensus-core/src")];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).expect("a folder of the core").map(|entry| entry.expect("an entry"))
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(root().join("consensus-core/src")).expect("below the folder");
            let whole = inside.to_str().expect("a plain path");
            let name = inside.file_name().and_then(|name| name.to_str()).expect("a plain name");
            let named = if name == "mod.rs" { whole } else { name };
            assert!(text.contains(&format!("`{named}`")), "ARCHITECTURE.md does not name {whole}");
        }
    }
}

/// The members, as the workspace manifest lists them.
fn rooms() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split("\n]").next());
    let lines = members.expect("the manifest lists its members").lines();
    lines.filter_map(|line| line.trim().strip_prefix('"')?.split('"').next()).map(str::to_owned).collect()
}

fn read(document: &str) -> String {
    let path = root().join(document);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_path_buf()
}
