//! The shell and the log: what it does is written down, what it asks is refused where it cannot be, and
//! a check that says that it only reads changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use proximity_tests::database::Kind;
use proximity_tests::lab::Lab;
use serde_json::Value;

/// Runs a command; its exit code, and all that it said.
fn tried(lab: &Lab, arguments: &[&str]) -> (i32, String) {
    let output = lab.site.command(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    (output.status.code().unwrap(), said.concat())
}

fn acts(lab: &Lab) -> Vec<(String, String)> {
    let told = lab.site.run(&["audit", "log", "--type", "admin_action", "-o", "json"]);
    let events: Vec<Value> = serde_json::from_str(&told).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let act = |event: &Value| (text(&event["actor"]), text(&event["payload"]["performed"]["call"]));
    events.iter().map(act).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_shell_does_is_in_the_log_beside_a_server_and_without_one() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (server, _) = lab.start().await;
    lab.site.run(&["keys", "export-recovery", &file("beside.keys")]);
    lab.site.run(&["backup", "create", &file("beside.backup")]);
    lab.site.run(&["projections", "rebuild", "hosts"]);
    lab.site.run(&["projections", "switch-back", "hosts"]);
    server.terminate();
    lab.site.run(&["keys", "export-recovery", &file("without.keys")]);
    let calls = ["keys export-recovery", "backup create", "projections rebuild"];
    let calls = [calls.as_slice(), &["projections switch-back", "keys export-recovery"]].concat();
    let wanted: Vec<(String, String)> =
        calls.into_iter().map(|call| ("system/cli".to_owned(), call.to_owned())).collect();
    assert_eq!(acts(&lab), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_no_log_can_answer_is_refused() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    for (arguments, code) in [
        (["audit", "log", "--actor", "nobody"], 2),
        (["audit", "log", "--owner", "abc"], 2),
        (["audit", "log", "--type", "nothing"], 2),
        (["audit", "log", "--stream", "application"], 2),
        (["audit", "log", "--after", "99999999"], 5),
        (["audit", "replay", "--until", "99999999"], 5),
    ] {
        let (found, said) = tried(&lab, &arguments);
        assert_eq!(found, code, "{arguments:?}: {said}");
    }
    let diff = ["audit", "diff", "--app", "nginx-0a1b2c3d", "--from", "99999999"];
    let (code, said) = tried(&lab, &diff);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("no position 99999999"), "{said}");
}

fn change(views: &Path, sql: &str) -> i64 {
    let views = rusqlite::Connection::open(views).unwrap();
    views.execute_batch(sql).unwrap();
    let count = "select (select count(*) from checkpoints) + (select count(*) from hosts)";
    views.query_row(count, [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_changes_nothing_and_passes_over_nothing() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, _) = lab.start().await;
    server.terminate();
    let check = ["audit", "replay", "--check"];
    let (code, said) = tried(&lab, &check);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("hosts up to position"), "{said}");

    let views = lab.site.data.join("views.db");
    let left = change(&views, "delete from checkpoints where name = 'hosts'");
    assert!(left > 1);
    let (code, said) = tried(&lab, &check);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("there is no such read model; it was not compared"), "{said}");
    assert_eq!(change(&views, ""), left, "the check has changed something");

    for end in ["", "-wal", "-shm"] {
        let file = format!("{}{end}", views.display());
        if Path::new(&file).exists() {
            std::fs::remove_file(file).unwrap();
        }
    }
    let (code, said) = tried(&lab, &check);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("6 findings"), "{said}");
    assert!(!views.exists(), "the check has made it");
}
