//! What may become of the directory of heads: strange things in it, no room, another one in its place.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proximity_eventstore::{
    Expected, FaultKind, Head, Options, Sealing, Signed, Store, sqlite_file,
};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::json;
use tempfile::TempDir;

use crate::child::{Second, ready};
use crate::full_disk::with_small_disk;
use crate::on_both_stores;
use crate::sealing::{check, kinds, new_key, sealed_to, sealing};
use crate::support::{Home, one};

/// Waits until sealing is in trouble, or is so no more; returns what it is.
pub async fn trouble(store: &Store, wanted: bool) -> String {
    let begun = Instant::now();
    loop {
        let state = store.seal_state().unwrap();
        if state.trouble.is_some() == wanted {
            return state.trouble.unwrap_or_default();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{state:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lies_beside_the_heads_stops_neither_the_sealing_nor_a_verification() {
    let directory = |path: &Path| std::fs::create_dir_all(path).unwrap();
    let file = |path: &Path| std::fs::write(path, "x").unwrap();
    let nowhere = |path: &Path| std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap();
    let endless = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    let life = "00000000-0000-4000-8000-000000000009";
    type Case<'a> = (&'a str, &'a dyn Fn(&Path));
    let cases: [Case<'_>; 12] = [
        ("LIFE/99999999999999999999-x.heads", &directory),
        ("LIFE/99999999999999999999-x.heads", &nowhere),
        ("LIFE/99999999999999999999-x.heads", &endless),
        ("LIFE/99999999999999999999-x.heads", &fifo),
        ("lives/x.json", &directory),
        ("lives/x.json", &fifo),
        ("keys/x.json", &directory),
        ("keys/x.json", &nowhere),
        ("lives", &file),
        ("lives", &fifo),
        (life, &file),
        (life, &fifo),
    ];
    for (number, (name, make)) in cases.into_iter().enumerate() {
        let (home, key, outside) = (Home::sqlite(), new_key(), TempDir::new().unwrap());
        let begin = async || {
            let store = home.open().await;
            store.seal_with(sealing(&key, outside.path())).unwrap();
            store
        };
        let store = begin().await;
        store.append(one("a", Expected::At(0))).await.unwrap();
        sealed_to(&store, 1).await;
        let name = name.replace("LIFE", &store.incarnation().to_string());
        store.close().await;
        let path = outside.path().join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        make(&path);
        let store = begin().await;
        store.append(one("a", Expected::At(1))).await.unwrap();
        sealed_to(&store, 2).await;
        assert_eq!(trouble(&store, false).await, "", "{number}: {name}");
        let report = check(&store, &key, outside.path()).await;
        let told = &report.faults[0];
        assert_eq!(
            (report.faults.len(), told.kind),
            (1, FaultKind::ForgedHead),
            "{number}: {name}"
        );
        assert!(told.detail.contains(path.to_str().unwrap()), "{told:?}");
        assert_eq!(report.lives[0].published_to, 2, "{number}: {name}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_place_of_the_keys_stops_the_publishing_alone() {
    let (home, key, outside) = (Home::sqlite(), new_key(), TempDir::new().unwrap());
    std::fs::write(outside.path().join("keys"), "x").unwrap();
    let store = home.open().await;
    store.seal_with(sealing(&key, outside.path())).unwrap();
    store.append(one("a", Expected::At(0))).await.unwrap();
    sealed_to(&store, 1).await;
    assert!(trouble(&store, true).await.contains("keys"));
    std::fs::remove_file(outside.path().join("keys")).unwrap();
    trouble(&store, false).await;
    assert_eq!(kinds(&check(&store, &key, outside.path()).await), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_heads_is_not_littered_and_catches_up() {
    let (home, small) = (Home::sqlite(), TempDir::new().unwrap());
    let argument = [home.dir(), small.path()].map(|dir| dir.to_str().unwrap()).join("\n");
    let mut second = Second::start_with(with_small_disk(small.path()), "full-heads", &argument);
    second.go();
    let result = second.result();
    assert_eq!((&result["faults"], &result["unpublished"]), (&json!([]), &json!(0)), "{result}");
    let [before, full, after] =
        ["before", "full", "after"].map(|when| result[when].as_u64().unwrap());
    assert!(full <= before + 1 && after <= before + 1, "one that was cut short at most: {result}");
}

/// Arguments: where the log goes, and an empty directory on a small file system for its heads.
pub async fn on_a_full_disk(argument: &str) -> serde_json::Value {
    let (dir, small) = argument.split_once('\n').unwrap();
    let (key, small) = (new_key(), Path::new(small));
    ready();
    let heads = small.join("heads");
    let store = Store::open(Options::sqlite(dir)).await.unwrap();
    store.seal_with(sealing(&key, &heads)).unwrap();
    let count = || files(&heads).iter().filter(|file| file.extension().unwrap() == "heads").count();
    store.append(one("a", Expected::At(0))).await.unwrap();
    sealed_to(&store, 1).await;
    let before = count();
    let filler = small.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4_096]).is_ok() {}
    // Until no line fits into the last block of the file, and twenty rounds more.
    let mut n = 1;
    while store.seal_state().unwrap().trouble.is_none() {
        store.append(one("a", Expected::At(n))).await.unwrap();
        n += 1;
        assert!(n < 1_000, "it never ran full");
        sealed_to(&store, n).await;
    }
    for _ in 0..20 {
        store.append(one("a", Expected::At(n))).await.unwrap();
        n += 1;
        sealed_to(&store, n).await;
    }
    let full = count();
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    trouble(&store, false).await;
    let report = check(&store, &key, &heads).await;
    let faults: Vec<String> = report.faults.iter().map(|fault| fault.detail.clone()).collect();
    let unpublished = report.blocks - report.heads;
    let after = count();
    store.close().await;
    assert!(sqlite_file(Path::new(dir)).exists());
    json!({ "before": before, "full": full, "after": after, "faults": faults, "unpublished": unpublished })
}

on_both_stores! {
    async fn a_directory_of_heads_that_is_away_is_waited_for_and_not_made_anew(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let [mount, away] = ["mount", "away"].map(|name| outside.path().join(name));
        let heads = mount.join("heads");
        let begin = async || {
            let store = home.open().await;
            store.seal_with(sealing(&key, &heads)).unwrap();
            store
        };
        let hide = || {
            std::fs::rename(&mount, &away).unwrap();
            std::fs::create_dir(&mount).unwrap();
        };
        let show = || {
            std::fs::remove_dir(&mount).expect("nothing was made under the mount point");
            std::fs::rename(&away, &mount).unwrap();
        };
        std::fs::create_dir(&mount).unwrap();
        let mut store = begin().await;
        store.append(one("a", Expected::At(0))).await.unwrap();
        sealed_to(&store, 1).await;
        // It is away for a while, while the server runs, and while one starts.
        for n in [1, 4] {
            hide();
            store.append(one("a", Expected::At(n))).await.unwrap();
            sealed_to(&store, n + 1).await;
            let why = trouble(&store, true).await;
            assert!(why.contains("is it mounted?"), "{why}");
            if n == 4 {
                store.close().await;
                store = begin().await;
            }
            store.append(one("a", Expected::At(n + 1))).await.unwrap();
            sealed_to(&store, n + 2).await;
            trouble(&store, true).await;
            show();
            assert_eq!(trouble(&store, false).await, "");
            store.append(one("a", Expected::At(n + 2))).await.unwrap();
            sealed_to(&store, n + 3).await;
            let report = check(&store, &key, &heads).await;
            assert_eq!((kinds(&report), report.heads), (vec![], report.blocks), "{report:?}");
            assert_eq!(report.lives[0].published_to, n + 3);
        }
        store.close().await;
    }

    async fn a_directory_that_cannot_be_used_stops_the_publishing_alone_and_nothing_is_left_out(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let heads = outside.path().join("heads");
        std::fs::write(&heads, "a file").unwrap();
        let store = home.open().await;
        store.seal_with(sealing(&key, &heads)).unwrap();
        for n in 0..3 {
            store.append(one("a", Expected::At(n))).await.unwrap();
            sealed_to(&store, n + 1).await;
            assert!(trouble(&store, true).await.contains(heads.to_str().unwrap()));
        }
        std::fs::remove_file(&heads).unwrap();
        assert_eq!(trouble(&store, false).await, "");
        let report = check(&store, &key, &heads).await;
        assert_eq!((kinds(&report), report.heads, report.warnings), (vec![], 3, vec![]));
        store.close().await;
    }

    async fn a_file_that_has_more_than_its_server_added_is_not_gone_on_with(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        for n in 0..4 {
            store.append(one("a", Expected::At(n))).await.unwrap();
            sealed_to(&store, n + 1).await;
            if n == 1 {
                // Where the mount's own host lost its power, say, and came back.
                let mut kept = files(outside.path());
                kept.retain(|file| file.extension().is_some_and(|ending| ending == "heads"));
                let mut file = std::fs::File::options().append(true).open(&kept[0]).unwrap();
                std::io::Write::write_all(&mut file, &[0; 6_000]).unwrap();
            }
        }
        assert_eq!(trouble(&store, false).await, "");
        let report = check(&store, &key, outside.path()).await;
        assert_eq!((kinds(&report), report.heads), (vec![], report.blocks), "{report:?}");
        store.close().await;
    }

    async fn a_server_that_began_under_a_mount_point_goes_on_in_the_mount_when_it_is_there(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let [mount, away, under] = ["mount", "away", "under"].map(|name| outside.path().join(name));
        let heads = mount.join("heads");
        let begin = async |server: &str| {
            let store = home.open().await;
            store.seal_with(Sealing { server: server.to_owned(), ..sealing(&key, &heads) }).unwrap();
            store
        };
        let store = begin("one").await;
        store.append(one("a", Expected::At(0))).await.unwrap();
        sealed_to(&store, 1).await;
        store.close().await;
        std::fs::rename(&mount, &away).unwrap();
        let store = begin("two").await;
        for n in [1, 2] {
            store.append(one("a", Expected::At(n))).await.unwrap();
            sealed_to(&store, n + 1).await;
        }
        assert_eq!(trouble(&store, false).await, "", "nothing tells it from a directory of its own");
        std::fs::rename(&mount, &under).unwrap();
        std::fs::rename(&away, &mount).unwrap();
        store.append(one("a", Expected::At(3))).await.unwrap();
        sealed_to(&store, 4).await;
        assert_eq!(trouble(&store, false).await, "");
        let report = check(&store, &key, &heads).await;
        assert_eq!((kinds(&report), report.warnings, report.blocks), (vec![], vec![], 4));
        assert_eq!(report.lives[0].published_to, 4);
        store.close().await;
        let store = begin("two").await;
        store.append(one("a", Expected::At(4))).await.unwrap();
        sealed_to(&store, 5).await;
        assert_eq!(kinds(&check(&store, &key, &heads).await), []);
        store.close().await;
    }

    async fn a_mount_with_heads_of_another_chain_is_not_gone_on_with(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let [heads, away] = ["heads", "away"].map(|name| outside.path().join(name));
        let store = home.open().await;
        store.seal_with(sealing(&key, &heads)).unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        sealed_to(&store, 1).await;
        std::fs::rename(&heads, &away).unwrap();
        let head = Head {
            incarnation: store.incarnation(), block: 1, position: 1, hash: "00".repeat(32), sealed_at: 1,
        };
        let folder = heads.join(store.incarnation().to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let line = serde_json::to_string(&Signed::new(head, &key).unwrap()).unwrap() + "\n";
        std::fs::write(folder.join("00000000000000000001-other.heads"), line).unwrap();
        store.append(one("a", Expected::At(1))).await.unwrap();
        sealed_to(&store, 2).await;
        assert!(trouble(&store, true).await.contains("is it mounted?"));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        store.close().await;
    }

    async fn what_a_command_published_that_did_not_know_the_directory_is_published_there_too(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let [usual, named] = ["usual", "named"].map(|name| outside.path().join(name));
        let store = home.open().await;
        store.seal_with(sealing(&key, &usual)).unwrap();
        for n in 0..2 {
            store.append(one("a", Expected::At(n))).await.unwrap();
            sealed_to(&store, n + 1).await;
        }
        store.close().await;
        let begin = async || {
            let store = home.open().await;
            store.seal_with(Sealing { elsewhere: Some(usual.clone()), ..sealing(&key, &named) }).unwrap();
            store
        };
        let store = begin().await;
        store.append(one("a", Expected::At(2))).await.unwrap();
        sealed_to(&store, 3).await;
        assert_eq!(trouble(&store, false).await, "");
        let report = check(&store, &key, &named).await;
        assert_eq!((kinds(&report), report.heads, report.warnings), (vec![], 3, vec![]));
        store.close().await;
        // The same of what one publishes later.
        let store = home.open().await;
        store.seal_with(sealing(&key, &usual)).unwrap();
        store.append(one("a", Expected::At(3))).await.unwrap();
        sealed_to(&store, 4).await;
        store.close().await;
        let store = begin().await;
        store.append(one("a", Expected::At(4))).await.unwrap();
        sealed_to(&store, 5).await;
        let report = check(&store, &key, &named).await;
        assert_eq!((kinds(&report), report.heads, report.warnings), (vec![], 5, vec![]));
        store.close().await;
        // From then on it is missed like any other directory, and the place of the first ones is named.
        std::fs::remove_dir_all(&named).unwrap();
        let store = begin().await;
        store.append(one("a", Expected::At(5))).await.unwrap();
        sealed_to(&store, 6).await;
        let why = trouble(&store, true).await;
        assert!(why.contains("is it mounted?") && why.contains(usual.to_str().unwrap()), "{why}");
        store.close().await;
    }
}
