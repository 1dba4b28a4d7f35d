//! House rules that no compiler checks: dependency arrows, file heads, one place for SQL, licences.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "tidy/findings.rs"]
mod findings;
#[path = "tidy/protections.rs"]
mod protections;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The tracked files that end so, as paths relative to the root.
fn files(ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no file ends with {ending}");
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn fail_with(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The arrows of ARCHITECTURE.md: what each crate may use of ours, outside its tests.
fn allowed(krate: &str) -> &'static [&'static str] {
    match krate {
        "domain" | "eventstore" | "simulator" => &[],
        "catalog" => &["domain"],
        "commands" => &["domain", "eventstore", "catalog"],
        "projections" => &["domain", "eventstore"],
        "proxmox" => &["domain", "commands"],
        "server" => {
            &["domain", "eventstore", "commands", "projections", "proxmox", "simulator", "catalog"]
        }
        "tests" => &[
            "domain",
            "eventstore",
            "commands",
            "projections",
            "proxmox",
            "simulator",
            "catalog",
            "server",
        ],
        other => panic!("the crate {other} has no arrows yet: say here what it may use"),
    }
}

#[test]
fn dependencies_point_inward() {
    let mut complaints = Vec::new();
    for manifest in files("Cargo.toml").iter().filter(|path| path.contains('/')) {
        let krate = manifest.split('/').next().unwrap();
        let text = read(manifest);
        let dependencies = text.split("[dependencies]").nth(1).unwrap_or("");
        let dependencies = dependencies.split("\n[").next().unwrap();
        for line in dependencies.lines().filter(|line| line.starts_with("proximity-")) {
            let used = line["proximity-".len()..].split(['.', ' ', '=']).next().unwrap();
            if !allowed(krate).contains(&used) {
                complaints.push(format!("{manifest}: {krate} must not use {used}"));
            }
        }
    }
    fail_with(&complaints);
}

#[test]
fn the_domain_knows_neither_io_nor_clock_nor_chance() {
    let forbidden = ["sqlx", "tokio", "reqwest", "actix-web", "rand", "time", "rusqlite", "hyper"];
    let manifest = read("domain/Cargo.toml");
    let complaints: Vec<_> = manifest
        .split("[dependencies]")
        .nth(1)
        .unwrap()
        .split("\n[")
        .next()
        .unwrap()
        .lines()
        .filter(|line| forbidden.contains(&line.split(['.', ' ']).next().unwrap()))
        .map(|line| format!("domain/Cargo.toml: {line}"))
        .collect();
    fail_with(&complaints);
}

#[test]
fn versions_stand_in_the_workspace_manifest_only() {
    let mut complaints = Vec::new();
    for manifest in files("Cargo.toml").iter().filter(|path| path.contains('/')) {
        let text = read(manifest);
        for section in text.split("\n[").filter(|section| section.contains("dependencies]")) {
            for line in section.lines().skip(1) {
                let line = line.trim();
                if !(line.is_empty() || line.starts_with('#') || line.contains("workspace = true"))
                {
                    complaints.push(format!("{manifest}: {line}"));
                }
            }
        }
    }
    fail_with(&complaints);
}

#[test]
fn each_file_opens_with_one_sentence() {
    let mut complaints = Vec::new();
    for (ending, mark) in [(".rs", "//! "), (".sql", "-- ")] {
        for path in files(ending) {
            let text = read(&path);
            let head: Vec<&str> = text
                .lines()
                .skip_while(|line| line.is_empty())
                .take_while(|line| line.starts_with(mark.trim_end()))
                .collect();
            // The first paragraph may run over two lines; it has to end as a sentence does.
            let paragraph =
                head.iter().take_while(|line| line.trim() != mark.trim_end()).last().copied();
            match paragraph {
                None => complaints.push(format!("{path}: does not say what it is for")),
                Some(line) if !line.trim_end().ends_with(['.', ':']) => {
                    complaints.push(format!("{path}: its first sentence does not end"));
                }
                Some(_) => {}
            }
        }
    }
    fail_with(&complaints);
}

#[test]
fn files_stay_readable_in_one_sitting() {
    let complaints: Vec<_> = files(".rs")
        .into_iter()
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > 480)
        .map(|(lines, path)| format!("{path}: {lines} lines; give each idea a file of its own"))
        .collect();
    fail_with(&complaints);
}

#[test]
fn sql_lives_where_its_tables_are_owned() {
    let homes = ["eventstore/", "projections/"];
    let marks = ["sqlx::query", "rusqlite::", "prepare_cached("];
    let mut complaints = Vec::new();
    let elsewhere = |path: &&String| {
        !homes.iter().any(|home| path.starts_with(home)) && !path.contains("tests/")
    };
    for path in files(".rs").iter().filter(elsewhere) {
        let text = read(path);
        for mark in marks.iter().filter(|mark| text.contains(**mark)) {
            complaints.push(format!("{path}: {mark}"));
        }
    }
    fail_with(&complaints);
}

/// One line per fixture: its checksum and its name. A released event's shape is a promise.
#[test]
fn stored_events_keep_their_shape() {
    use sha2::{Digest, Sha256};
    let listed: BTreeMap<String, String> = read("domain/fixtures/events/CHECKSUMS")
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect();
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for path in files(".json").iter().filter(|path| path.starts_with("domain/fixtures/events/")) {
        let name = path.rsplit('/').next().unwrap().to_owned();
        let sum: String = Sha256::digest(read(path)).iter().map(|b| format!("{b:02x}")).collect();
        match listed.get(&name) {
            None => complaints.push(format!("{path}: add its line to CHECKSUMS: {sum}  {name}")),
            Some(old) if *old != sum => {
                complaints.push(format!("{path}: a stored event was edited; add a new version"));
            }
            Some(_) => {}
        }
        seen.insert(name);
    }
    for name in listed.keys().filter(|name| !seen.contains(*name)) {
        complaints.push(format!("{name}: a stored event's fixture was removed"));
    }
    fail_with(&complaints);
}

/// A log that was written once is read for ever: one line for each, as for the events' fixtures.
#[test]
fn golden_logs_are_only_added_to() {
    use sha2::{Digest, Sha256};
    let listed: BTreeMap<String, String> = read("tests/tests/golden/CHECKSUMS")
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect();
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for path in files(".ndjson.gz") {
        let Some(name) = path.strip_prefix("tests/tests/golden/") else { continue };
        let bytes = std::fs::read(root().join(&path)).unwrap();
        let sum: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        match listed.get(name) {
            None => complaints.push(format!("{path}: add its line to CHECKSUMS: {sum}  {name}")),
            Some(old) if *old != sum => {
                complaints.push(format!("{path}: a stored log was edited; add a new version's"));
            }
            Some(_) => {}
        }
        seen.insert(name.to_owned());
    }
    for name in listed.keys().filter(|name| !seen.contains(*name)) {
        complaints.push(format!("{name}: a stored log was removed"));
    }
    assert!(!seen.is_empty(), "no golden log is there");
    fail_with(&complaints);
}

#[test]
fn nothing_that_binds_its_users_to_the_gpl_is_linked() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "only {} packages listed", packages.len());
    let complaints: Vec<_> = packages
        .iter()
        .filter(|package| {
            let licence = package["license"].as_str().unwrap_or("none");
            // "A OR B" leaves the choice; one acceptable side is enough.
            !licence.split(" OR ").flat_map(|side| side.split('/')).any(|side| {
                !side.contains("GPL") && (side != "none" || !package["source"].is_string())
            })
        })
        .map(|package| {
            format!("{} {}: {}", package["name"], package["version"], package["license"])
        })
        .collect();
    fail_with(&complaints);
}
