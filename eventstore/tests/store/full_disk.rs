//! SQLite on a file system of 8 MiB that runs full: clear refusals, nothing acknowledged is lost.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use proximity_eventstore::{Append, AppendError, Expected, NewEvent, Options, Store, StreamAppend};
use serde_json::json;

use crate::child::{Second, ready};
use crate::figures;
use crate::support::{Home, append, assert_whole, whole_log};

/// Runs as a second process, whose mount of 8 MiB on `dir` only it and its own children see.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_clearly_and_loses_nothing() {
    let home = Home::sqlite();
    let command = with_small_disk(home.dir());
    let mut second = Second::start_with(command, "full-disk", home.dir().to_str().unwrap());
    second.go();
    let result = second.result();
    figures!(home, "8 MiB file system: {result}");
    assert_eq!(result["lost"], 0);
    assert_eq!(result["integrity_check"], "ok");
    assert!(result["refused_while_full"].as_u64().unwrap() >= 100);
    assert_eq!(result["stored_after_space_was_freed"], 100);
}

/// Runs this binary where `dir` is a file system of 8 MiB.
pub fn with_small_disk(dir: &Path) -> Command {
    let mut command = Command::new("unshare");
    // Root of a user namespace of its own: nobody needs to be root for it.
    command.args(["--map-root-user", "--mount", "--", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=8m proximity-test \"$0\" && exec \"$@\"");
    command.arg(dir).arg(std::env::current_exe().unwrap());
    let probe = Command::new("unshare")
        .args(["--map-root-user", "--mount", "--", "sh", "-c"])
        .arg("mount -t tmpfs -o size=8m proximity-test \"$0\"")
        .arg(dir)
        .status()
        .expect("`unshare` of util-linux is needed to mount a small file system");
    assert!(
        probe.success(),
        "this test mounts a tmpfs of 8 MiB in a user namespace, and this machine does not allow it: \
         enable unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1), or run as root"
    );
    command
}

fn large(n: usize) -> Append {
    let payload = json!({ "n": n, "filler": "x".repeat(3_000) }).to_string();
    Append {
        streams: vec![StreamAppend {
            metadata: None,
            aggregate_type: "thing".to_owned(),
            aggregate_id: format!("large-{n}"),
            expected: Expected::At(0),
            events: vec![NewEvent {
                event_type: "thing.grown".to_owned(),
                event_version: "1".to_owned(),
                payload,
            }],
        }],
        ..append()
    }
}

/// Argument: an empty directory on a small file system.
pub async fn on_a_small_disk(argument: &str) -> serde_json::Value {
    let dir = Path::new(argument);
    ready();
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let store = Store::open(Options::sqlite(dir)).await.unwrap();
    let mut acknowledged = Vec::new();
    let mut reasons = std::collections::BTreeSet::new();
    let mut refused = 0;
    let mut n = 0;
    while refused < 100 {
        n += 1;
        assert!(n < 10_000, "8 MiB never ran full");
        match store.append(large(n)).await {
            Ok(_) => acknowledged.push(format!("large-{n}")),
            Err(AppendError::Unavailable { reason, .. }) => {
                refused += 1;
                reasons.insert(reason);
                if refused == 1 {
                    // To the last byte.
                    let mut file = std::fs::File::create(dir.join("last-bytes")).unwrap();
                    while file.write_all(&[0]).is_ok() {}
                }
            }
            Err(other) => panic!("not a clear error: {other}"),
        }
    }
    let ping_while_full = store.ping_writable().await.is_err();
    let read_while_full = whole_log(&store, 100).await.len();
    std::fs::remove_file(&ballast).unwrap();
    std::fs::remove_file(dir.join("last-bytes")).unwrap();
    let mut after = 0;
    for _ in 0..100 {
        n += 1;
        store.append(large(n)).await.unwrap();
        acknowledged.push(format!("large-{n}"));
        after += 1;
    }
    store.ping_writable().await.unwrap();
    store.close().await;

    let store = Store::open(Options::sqlite(dir)).await.unwrap();
    let log = whole_log(&store, 100).await;
    assert_whole(&log);
    let stored: std::collections::HashSet<_> =
        log.iter().map(|recorded| recorded.aggregate_id.clone()).collect();
    let lost = acknowledged.iter().filter(|id| !stored.contains(*id)).count();
    let connection = rusqlite::Connection::open(proximity_eventstore::sqlite_file(dir)).unwrap();
    let integrity: String =
        connection.query_row("pragma integrity_check", (), |row| row.get(0)).unwrap();
    json!({
        "acknowledged": acknowledged.len(),
        "refused_while_full": refused,
        "reasons": reasons,
        "readiness_failed_while_full": ping_while_full,
        "read_while_full": read_while_full,
        "stored_after_space_was_freed": after,
        "lost": lost,
        "stored_but_refused": log.len() - acknowledged.len(),
        "integrity_check": integrity,
    })
}
