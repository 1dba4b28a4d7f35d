//! What the shell does has somebody's name in the log, and an id of its own to be found by.

use std::collections::BTreeSet;

use proximity_tests::database::Kind;
use proximity_tests::lab::Lab;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    each_command_of_the_shell_is_somebodys(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    each_command_of_the_shell_is_somebodys(Kind::Postgres).await;
}

async fn each_command_of_the_shell_is_somebodys(kind: Kind) {
    let lab = Lab::new(kind, 1).await;
    let folder = tempfile::tempdir().unwrap();
    // Through the server, and then without one.
    let (server, _) = lab.start().await;
    let backup = folder.path().join("a.backup");
    lab.site.run(&["backup", "create", backup.to_str().unwrap()]);
    lab.site.run(&["keys", "rotate"]);
    server.terminate();
    lab.site.run(&["user", "add", "ann"]);

    let told = lab.site.run(&["audit", "log", "--actor", "system/cli", "-o", "json"]);
    let events: Vec<Value> = serde_json::from_str(&told).unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let mut requests = BTreeSet::new();
    for event in &events {
        let text =
            |field: &str| event[field].as_str().unwrap_or_else(|| panic!("{field}: {event}"));
        assert!(text("credential").starts_with("shell/"), "{event}");
        assert_eq!(text("source"), host.trim(), "{event}");
        assert_eq!(text("causation"), format!("request/{}", text("request")), "{event}");
        requests.insert(text("request"));
    }
    let has = |what: &str| events.iter().any(|event| event.to_string().contains(what));
    for what in ["backup create", backup.to_str().unwrap(), "keys.rotated", "user.registered"] {
        assert!(has(what), "{what}: {told}");
    }
    assert!(requests.len() >= 3, "{requests:?}");
    let last = events.last().unwrap()["request"].as_str().unwrap();
    let trace = lab.site.run(&["audit", "trace", last, "-o", "json"]);
    assert!(trace.contains("user.registered"), "{trace}");
}
