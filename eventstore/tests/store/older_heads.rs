//! An older copy of the heads directory in its place: nothing is made anew there, and once the right one is
//! back, what was sealed meanwhile is published in it.

use std::path::Path;

use ed25519_dalek::SigningKey;
use proximity_eventstore::{Expected, FaultKind, HeadsDir, Sealing, Store, reached};
use tempfile::TempDir;

use crate::heads_dir::trouble;
use crate::on_both_stores;
use crate::sealing::{check, kinds, new_key, restored, sealed_to, sealing};
use crate::support::{Home, one};

async fn begin(home: &Home, key: &SigningKey, heads: &Path) -> Store {
    let store = home.open().await;
    store.seal_with(sealing(key, heads)).unwrap();
    store
}

/// Adds the event behind `before` of the stream, sealed in a block of its own.
async fn add(store: &Store, before: u64) {
    store.append(one("a", Expected::At(before))).await.unwrap();
    sealed_to(store, before + 1).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target)
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// All that is in the files below a directory.
fn content(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path))
        } else {
            found.push(std::fs::read_to_string(&path).unwrap())
        }
    }
    found.sort();
    found
}

/// That all is published, once each, and nothing is missed.
async fn is_whole(store: &Store, key: &SigningKey, heads: &Path) {
    assert_eq!(trouble(store, false).await, "");
    let report = check(store, key, heads).await;
    assert_eq!(
        (kinds(&report), report.heads, &report.warnings),
        (vec![], report.blocks, &vec![]),
        "{report:?}"
    );
    assert_eq!(report.lives[0].published_to, report.head);
}

on_both_stores! {
    async fn a_server_that_starts_on_an_older_copy_waits_for_the_right_directory(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let [heads, disk, under] = ["heads", "disk", "under"].map(|name| outside.path().join(name));
        let store = begin(home, &key, &heads).await;
        add(&store, 0).await;
        store.close().await;
        copy(&heads, &under);
        let store = begin(home, &key, &heads).await;
        for n in [1, 2] {
            add(&store, n).await;
        }
        store.close().await;
        std::fs::rename(&heads, &disk).unwrap();
        std::fs::rename(&under, &heads).unwrap();
        let before = content(&heads);
        for n in [3, 5] {
            let store = begin(home, &key, &heads).await;
            add(&store, n).await;
            let why = trouble(&store, true).await;
            assert!(why.contains("is it mounted?"), "{why}");
            add(&store, n + 1).await;
            store.close().await;
            assert_eq!(content(&heads), before, "nothing was made anew");
        }
        let store = begin(home, &key, &heads).await;
        trouble(&store, true).await;
        // The mount is back, while it runs.
        std::fs::rename(&heads, &under).unwrap();
        std::fs::rename(&disk, &heads).unwrap();
        is_whole(&store, &key, &heads).await;
        add(&store, 7).await;
        is_whole(&store, &key, &heads).await;
        store.close().await;
        let store = begin(home, &key, &heads).await;
        add(&store, 8).await;
        is_whole(&store, &key, &heads).await;
        store.close().await;
    }

    async fn an_older_copy_that_comes_while_a_server_runs_is_not_gone_on_with(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let [heads, disk, under] = ["heads", "disk", "under"].map(|name| outside.path().join(name));
        let mut store = begin(home, &key, &heads).await;
        add(&store, 0).await;
        // The file in use is in the copy, too, and shorter; or nothing was published since the start.
        copy(&heads, &under);
        add(&store, 1).await;
        for n in [2, 5] {
            std::fs::rename(&heads, &disk).unwrap();
            std::fs::rename(&under, &heads).unwrap();
            let before = content(&heads);
            for n in [n, n + 1] {
                add(&store, n).await;
                assert!(trouble(&store, true).await.contains("is it mounted?"));
            }
            assert_eq!(content(&heads), before);
            std::fs::rename(&heads, &under).unwrap();
            std::fs::rename(&disk, &heads).unwrap();
            is_whole(&store, &key, &heads).await;
            add(&store, n + 2).await;
            is_whole(&store, &key, &heads).await;
            store.close().await;
            store = begin(home, &key, &heads).await;
            sealed_to(&store, n + 3).await;
        }
        store.close().await;
    }

    async fn an_older_copy_is_gone_on_with_once_somebody_has_signed_that_the_rest_is_lost(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let [heads, copied] = ["heads", "copied"].map(|name| outside.path().join(name));
        let store = begin(home, &key, &heads).await;
        add(&store, 0).await;
        copy(&heads, &copied);
        add(&store, 1).await;
        store.close().await;
        let store = begin(home, &key, &copied).await;
        add(&store, 2).await;
        trouble(&store, true).await;
        store.close().await;
        let store = home.open().await;
        restored(&store, &key, &copied, "the disk failed", None, true).await.unwrap();
        store.close().await;
        let store = begin(home, &key, &copied).await;
        add(&store, 3).await;
        assert_eq!(trouble(&store, false).await, "");
        assert_eq!(kinds(&check(&store, &key, &copied).await), []);
        store.close().await;
    }

    async fn what_a_key_published_that_was_destroyed_since_is_not_missed(home: &Home) {
        let (old, new, outside) = (new_key(), new_key(), TempDir::new().unwrap());
        let store = begin(home, &old, outside.path()).await;
        add(&store, 0).await;
        store.close().await;
        let store = home.open().await;
        let gone = vec![old.verifying_key()];
        let after = Sealing { earlier: gone.clone(), destroyed: gone, ..sealing(&new, outside.path()) };
        store.seal_with(after).unwrap();
        add(&store, 1).await;
        assert_eq!(trouble(&store, false).await, "");
        assert_eq!(HeadsDir::new(outside.path()).latest(store.incarnation()).unwrap().unwrap().statement.block, 2);
        store.close().await;
    }

    async fn heads_that_are_missed_in_the_middle_are_found_without_a_verification(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = begin(home, &key, outside.path()).await;
        for n in 0..4 {
            add(&store, n).await;
        }
        store.close().await;
        let store = home.open().await;
        let folder = outside.path().join(store.incarnation().to_string());
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<String> = whole.lines().map(|line| format!("{line}\n")).collect();
        for (kept, gone) in [
            (lines.concat(), None),
            ([&lines[..1], &lines[3..]].concat().concat(), Some((2, 3))),
            (lines[2..].concat(), Some((1, 2))),
        ] {
            std::fs::write(&file, kept).unwrap();
            let found = reached(&store, HeadsDir::new(outside.path()), Some("one".to_owned())).await.unwrap();
            assert_eq!((found.gone, found.here.unwrap().block), (gone, 4));
            let missed = kinds(&check(&store, &key, outside.path()).await);
            assert_eq!(missed, gone.map(|(first, _)| (FaultKind::NoHeads, first)).into_iter().collect::<Vec<_>>());
        }
        store.close().await;
    }
}
