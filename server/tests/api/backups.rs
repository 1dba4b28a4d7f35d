//! Backups over HTTP: made, seen, counted, removed, by their owner and by nobody else.

use proximity_simulator::{Fault, FaultRule, NodeConfig, StorageConfig, StorageKind};
use reqwest::Method;
use serde_json::json;

use crate::harness::{Kind, on_both};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_seen_counted_and_removed() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let all = format!("/api/apps/{app}/backups");
        let accepted = world
            .post(&world.owner, &all, &json!({ "backup_type": "stop", "compression": "gzip" }))
            .await;
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        assert_eq!(accepted.body["status"], "creating");
        let id = accepted.body["id"].as_i64().unwrap();
        let one = format!("{all}/{id}");
        let made = world.until(&one, |answer| answer.body["is_completed"] == true).await.body;
        assert_eq!((&made["backup_type"], &made["compression"]), (&json!("stop"), &json!("gzip")));
        assert_eq!(
            (&made["status"], &made["is_in_progress"]),
            (&json!("completed"), &json!(false))
        );
        let stored = world.simulator.ledger().backups;
        assert_eq!(stored.len(), 1);
        assert!(stored[0].volid.ends_with(made["file_name"].as_str().unwrap()), "{made}");
        assert!(stored[0].volid.ends_with(".tar.gz"), "{made}");
        assert_eq!(made["size"], stored[0].size);
        // The application is again as it was before.
        let shown = world.get(&world.owner, &format!("/api/apps/{app}")).await.body;
        assert_eq!((&shown["status"], &shown["operation"]), (&json!("running"), &json!(null)));

        let listed = world.get(&world.owner, &all).await.body;
        assert_eq!((&listed["total"], &listed["backups"][0]), (&json!(1), &made));
        assert_eq!(world.get(&world.owner, "/api/backups/").await.body["total"], 1);
        assert_eq!(world.get(&world.other, "/api/backups/").await.body["total"], 0);
        let stats = world.get(&world.owner, &format!("{all}/stats")).await.body;
        assert_eq!((&stats["total_backups"], &stats["completed_backups"]), (&json!(1), &json!(1)));
        assert!(stats["average_size_mb"].as_f64().unwrap() > 1.0, "{stats}");

        let gone = world.server.as_person(&world.owner, Method::DELETE, &one, None).await;
        assert_eq!(gone.status, 202, "{}", gone.text);
        world.until(&one, |answer| answer.status == 404).await;
        assert!(world.simulator.ledger().backups.is_empty());
        assert_eq!(world.get(&world.owner, &all).await.body["total"], 0);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_06_a_foreign_backup_does_not_exist() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let theirs = world.deployed(&world.other, "web-02").await;
        let id = world.backed_up(&world.owner, &app).await;
        for (who, path, status) in [
            (&world.other, format!("/api/apps/{app}/backups/{id}"), 404),
            // Not even under the path of one's own application.
            (&world.other, format!("/api/apps/{theirs}/backups/{id}"), 404),
            (&world.admin, format!("/api/apps/{theirs}/backups/{id}"), 404),
            (&world.owner, format!("/api/apps/{app}/backups/{id}"), 200),
            (&world.admin, format!("/api/apps/{app}/backups/{id}"), 200),
        ] {
            let answer = world.get(who, &path).await;
            assert_eq!(answer.status, status, "{} {path}: {}", who.name, answer.text);
            if status == 404 {
                let answer = world.server.as_person(who, Method::DELETE, &path, None).await;
                assert_eq!(answer.status, 404, "{} {path}: {}", who.name, answer.text);
            }
        }
        assert_eq!(world.simulator.ledger().backups.len(), 1);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_16_of_many_backups_at_once_one_is_made_and_the_others_are_refused() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let all = format!("/api/apps/{app}/backups");
        let body = json!({});
        let posts = (0..8).map(|_| world.post(&world.owner, &all, &body));
        let answers = futures_util::future::join_all(posts).await;
        let accepted = answers.iter().filter(|answer| answer.status == 202).count();
        let busy = answers
            .iter()
            .filter(|answer| answer.status == 409 && answer.body["code"] == "application.busy");
        // One that came late may have found the first one done.
        assert!(accepted >= 1 && accepted + busy.count() == 8, "{answers:#?}");
        let done = world
            .until(&all, |answer| {
                let list = answer.body["backups"].as_array().unwrap();
                list.iter().all(|backup| backup["is_completed"] == true)
            })
            .await;
        assert_eq!(done.body["total"], accepted);
        assert_eq!(world.simulator.ledger().backups.len(), accepted);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_outlives_its_application_and_can_still_be_removed() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let id = world.backed_up(&world.owner, &app).await;
        let path = format!("/api/apps/{app}");
        let gone = world.server.as_person(&world.owner, Method::DELETE, &path, None).await;
        assert_eq!(gone.status, 202, "{}", gone.text);
        world.until(&path, |answer| answer.status == 404).await;
        assert_eq!(world.get(&world.owner, "/api/backups").await.body["total"], 1);
        let one = format!("{path}/backups/{id}");
        let removed = world.server.as_person(&world.owner, Method::DELETE, &one, None).await;
        assert_eq!(removed.status, 202, "{}", removed.text);
        world.until(&one, |answer| answer.status == 404).await;
        assert!(world.simulator.ledger().backups.is_empty());
        world.stop().await;
    })
    .await;
}

/// A host stays while something works on it, and what it has left is reached by the one that is registered
/// for the same cluster later.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_outlives_its_host_and_is_removed_by_the_next_one_of_its_cluster() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let first = world.backed_up(&world.owner, &app).await;
        let second = world.backed_up(&world.owner, &app).await;
        let path = format!("/api/apps/{app}");
        assert_eq!(world.delete_as(&world.owner, &path).await.status, 202);
        world.until(&path, |answer| answer.status == 404).await;

        let hang = Fault::TaskNeverEnds { after_effect: false };
        world.simulator.faults().add(FaultRule::once("content.delete", hang)).unwrap();
        let one = format!("{path}/backups/{first}");
        assert_eq!(world.delete_as(&world.owner, &one).await.status, 202);
        let host = "/api/proxmox/hosts/1";
        let refused = world.delete_as(&world.admin, host).await;
        assert_eq!((refused.status.as_u16(), &refused.body["code"]), (409, &json!("host.in_use")));
        world.simulator.clear_faults();
        world.until(&one, |answer| answer.status == 404).await;
        // Its end and the removal of its record are one append.
        let removed = world.delete_as(&world.admin, host).await;
        assert_eq!(removed.status, 204, "{}", removed.text);

        let two = format!("{path}/backups/{second}");
        let refused = world.delete_as(&world.owner, &two).await;
        assert_eq!((refused.status.as_u16(), &refused.body["code"]), (409, &json!("host.gone")));
        let again = json!({
            "name": "again",
            "host": "127.0.0.1",
            "port": world.simulator.address().port(),
            "password": world.simulator.root_password(),
            "fingerprint": world.simulator.fingerprint(),
        });
        let made = world.post(&world.admin, "/api/proxmox/hosts", &again).await;
        assert_eq!((made.status.as_u16(), &made.body["id"]), (201, &json!(2)), "{}", made.text);
        assert_eq!(world.delete_as(&world.owner, &two).await.status, 202);
        world.until(&two, |answer| answer.status == 404).await;
        assert!(world.simulator.ledger().backups.is_empty());
        let removed = world.delete_as(&world.admin, "/api/proxmox/hosts/2").await;
        assert_eq!(removed.status, 204, "{}", removed.text);
        world.stop().await;
    })
    .await;
}

/// A node with these storages and no others.
fn node(storages: &[(&str, StorageKind, &[&str], u64)]) -> Vec<NodeConfig> {
    let storages = storages.iter().map(|(name, kind, content, total)| StorageConfig {
        name: (*name).to_owned(),
        kind: *kind,
        content: content.iter().map(|content| (*content).to_owned()).collect(),
        total: *total,
    });
    vec![NodeConfig { storages: storages.collect(), ..NodeConfig::new("pve1") }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_says_when_proxmox_fell_back_from_a_snapshot_to_suspending() {
    let directory = ("local", StorageKind::Dir, &["vztmpl", "rootdir", "backup"][..], 1 << 40);
    let world = World::start_on(Kind::Sqlite, node(&[directory])).await;
    let app = world.deployed(&world.owner, "web-01").await;
    let all = format!("/api/apps/{app}/backups");
    let accepted = world.post(&world.owner, &all, &json!({ "backup_type": "snapshot" })).await.body;
    let one = format!("{all}/{}", accepted["id"]);
    let made = world.until(&one, |answer| answer.body["is_completed"] == true).await.body;
    assert_eq!((&made["status"], &made["backup_type"]), (&json!("completed"), &json!("suspend")));
    let shown = world.get(&world.owner, &format!("/api/apps/{app}")).await.body;
    assert_eq!(shown["status"], "running", "{shown}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_says_why_and_not_only_that_there_were_job_errors() {
    let world = World::start_on(
        Kind::Sqlite,
        node(&[
            ("local", StorageKind::Dir, &["vztmpl", "rootdir"], 1 << 40),
            ("tiny", StorageKind::Dir, &["backup"], 1_000_000),
        ]),
    )
    .await;
    let app = world.deployed(&world.owner, "web-01").await;
    let all = format!("/api/apps/{app}/backups");
    let accepted = world.post(&world.owner, &all, &json!({})).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let one = format!("{all}/{}", accepted.body["id"]);
    let failed = world.until(&one, |answer| answer.body["status"] == "failed").await.body;
    let why = failed["error_message"].as_str().unwrap();
    assert!(why.contains("No space left on device") && !why.contains("job errors"), "{why}");
    // Nothing is left of it, and the application is as it was.
    assert!(world.simulator.ledger().backups.is_empty());
    let path = format!("/api/apps/{app}");
    world.until(&path, |answer| answer.body["operation"].is_null()).await;
    assert_eq!(world.get(&world.owner, &path).await.body["status"], "running");
    world.stop().await;
}
