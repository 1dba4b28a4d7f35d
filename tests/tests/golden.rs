//! Logs of earlier versions, cut off after each event of an operation: this program reads them, rebuilds
//! its views from them, and ends what was under way with nothing left over.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use proximity_projections::Replay;
use proximity_tests::{figure, golden, judged};

/// Cells that run at a time.
const AT_ONCE: usize = 4;

/// All logs of all versions.
fn logs() -> Vec<PathBuf> {
    let root = golden::folder("");
    let mut found = Vec::new();
    for version in std::fs::read_dir(root).unwrap() {
        let version = version.unwrap().path();
        if version.is_dir() {
            found.extend(std::fs::read_dir(version).unwrap().map(|log| log.unwrap().path()));
        }
    }
    found.retain(|path| path.extension().is_some_and(|ending| ending == "gz"));
    found.sort();
    assert!(found.len() >= golden::LOGS.len(), "logs are missing: {found:?}");
    found
}

#[test]
fn every_event_of_every_version_is_known_and_replays() {
    let mut events = 0;
    for path in logs() {
        let mut replay = Replay::default();
        for event in golden::read(&path) {
            let known = proximity_domain::known::is_known(&event.event_type, &event.event_version);
            assert!(known, "{}: {}", path.display(), event.event_type);
            replay.take(event.stored()).unwrap();
            events += 1;
        }
        replay.finish().unwrap();
    }
    figure!("golden logs: {events} events of {} logs replayed into every view", logs().len());
}

#[tokio::test]
async fn no_log_of_any_version_is_accused() {
    for path in logs() {
        let accused = judged::accusations_but_of_names(golden::read(&path)).await;
        assert_eq!(accused, Vec::<String>::new(), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_was_cut_off_after_any_event_ends_with_nothing_left_over() {
    let mut cells = Vec::new();
    for path in logs() {
        let events = golden::read(&path);
        for end in golden::cuts(&events) {
            let part = &events[..end];
            let last = &events[end - 1];
            // Whether the last effect happened is not in the log: both are tried.
            let effects: &[bool] = match last.event_type.as_str() {
                "operation.step_intended" => &[false, true],
                _ => &[false],
            };
            cells.extend(effects.iter().map(|effect| (path.clone(), part.to_vec(), *effect)));
        }
    }
    let count = cells.len();
    let ended: Vec<(String, Vec<String>, Vec<&'static str>)> =
        futures_util::stream::iter(cells.into_iter().map(|(path, part, effect)| async move {
            let name = format!("{} to {}, effect {effect}", name(&path), part.len());
            let (wrong, ends) = golden::go_on(&part, effect).await;
            (name, wrong, ends)
        }))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    let mut complaints = Vec::new();
    for (cell, wrong, how) in &ended {
        for end in how {
            *ends.entry(end).or_default() += 1;
        }
        if !wrong.is_empty() || how.contains(&"stuck") {
            complaints.push(format!("{cell}: {how:?} {wrong:#?}"));
        }
    }
    figure!(
        "golden logs, cut off after each event of an operation: {count} cells, ends {ends:?}, {} with \
         anything left over",
        complaints.len()
    );
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(count > 50, "only {count} cells");
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
