//! Restores over HTTP: another container takes the old one's place, or the old one is overwritten.

use proximity_commands::saga::task_log;
use proximity_server::demo::generated_password;
use proximity_simulator::{Fault, FaultRule, NodeConfig, StorageKind};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::on_both;
use crate::world::{Person, World};

async fn restored(world: &World, who: &Person, path: &str, body: &Value) -> String {
    let answer = world.post(who, &format!("{path}/restore"), body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.body["status"], "restoring");
    let operation = answer.body["operation"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/api/operations/{operation}"));
    operation.to_owned()
}

async fn ended(world: &World, operation: &str) -> Value {
    let ends = ["done", "undone", "stuck", "abandoned"];
    let over = |state: &str| ends.contains(&state);
    let path = format!("/api/operations/{operation}");
    world.until(&path, |answer| over(answer.body["state"].as_str().unwrap_or(""))).await.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_application_is_restored_into_a_new_container_and_runs_on() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let id = world.backed_up(&world.owner, &app).await;
        let path = format!("/api/apps/{app}/backups/{id}");
        let before = world.get(&world.owner, &format!("/api/apps/{app}")).await.body;
        let old = before["lxc_id"].as_u64().unwrap();

        let dry =
            world.post(&world.owner, &format!("{path}/restore?dry_run=true"), &json!({})).await;
        assert_eq!(dry.status, 200, "{}", dry.text);
        assert_eq!(dry.body["operation"], "restore");
        let last = dry.body["leases"].as_array().unwrap().last().unwrap();
        assert_eq!(last, &json!({ "lease": format!("vmid/lab/{old}"), "change": "released" }));

        let operation = restored(&world, &world.owner, &path, &json!({})).await;
        assert_eq!(ended(&world, &operation).await["state"], "done");
        let after = world.get(&world.owner, &format!("/api/apps/{app}")).await.body;
        let new = after["lxc_id"].as_u64().unwrap();
        assert_ne!(new, old);
        assert_eq!((&after["status"], &after["operation"]), (&json!("running"), &json!(null)));
        for same in ["id", "hostname", "public_port", "internal_port", "node", "url", "created_at"]
        {
            assert_eq!(after[same], before[same], "{same}");
        }
        let ledger = world.simulator.ledger();
        let numbers: Vec<u64> = ledger.containers.iter().map(|guest| guest.vmid.into()).collect();
        assert_eq!(numbers, [new], "the old container is gone");
        let backup = world.get(&world.owner, &path).await.body;
        assert_eq!(
            (&backup["status"], &backup["is_in_progress"]),
            (&json!("completed"), &json!(false))
        );

        // What it is now can be stored and restored again, and stopped, started and deleted.
        let second = world.backed_up(&world.owner, &app).await;
        let path = format!("/api/apps/{app}/backups/{second}");
        let operation = restored(&world, &world.admin, &path, &json!({})).await;
        assert_eq!(ended(&world, &operation).await["state"], "done");
        let logs = world.get(&world.owner, &format!("/api/apps/{app}/logs")).await.text;
        assert!(logs.contains("Putting the restored container in the old one's place"), "{logs}");
        let gone = world
            .post(&world.owner, &format!("/api/apps/{app}/action"), &json!({ "action": "delete" }))
            .await;
        assert_eq!(gone.status, 202, "{}", gone.text);
        world.until(&format!("/api/apps/{app}"), |answer| answer.status == 404).await;
        assert!(world.simulator.ledger().containers.is_empty());
        let late = world.post(&world.owner, &format!("{path}/restore"), &json!({})).await;
        late.problem(409, "backup.application_gone");
        world.stop().await;
    })
    .await;
}

/// Proxmox lets nobody but root restore raw lines of a configuration, and the environment is such.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_by_a_token_brings_the_process_back() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let credential = world.simulator.add_token("root@pam", "server", false).unwrap();
        let (token, secret) = credential.split_once('=').unwrap();
        let token = json!({ "token_id": token, "token_secret": secret });
        let changed = world
            .server
            .as_person(&world.admin, Method::PUT, "/api/proxmox/hosts/1", Some(&token))
            .await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        // No word in its name or around it says that it is a secret.
        let value = generated_password();
        let wish = json!({
            "catalog_id": "nginx", "hostname": "web-01", "environment": { "GREETING": value },
        });
        let made = world.post(&world.owner, "/api/apps/", &wish).await;
        assert_eq!(made.status, 202, "{}", made.text);
        let app = made.body["id"].as_str().unwrap().to_owned();
        let shown = format!("/api/apps/{app}");
        world.until(&shown, |answer| answer.body["status"] == "running").await;
        let guest = || world.simulator.ledger().containers[0].clone();
        let before = guest();
        let variables = &before.config["env"];
        assert!(variables.contains("PATH=") && variables.contains(&format!("GREETING={value}")));

        let id = world.backed_up(&world.owner, &app).await;
        let path = format!("{shown}/backups/{id}");
        for in_place in [false, true] {
            let body = json!({ "in_place": in_place });
            let vmid = guest().vmid;
            let operation = restored(&world, &world.owner, &path, &body).await;
            let end = ended(&world, &operation).await;
            assert_eq!(end["state"], "done", "{end:#}");
            let after = guest();
            assert_eq!((after.vmid == vmid, after.status.as_str()), (in_place, "running"));
            assert!(!after.config.contains_key("lxc"), "what cannot be set again is gone");
            for same in ["env", "entrypoint"] {
                assert_eq!(after.config[same], before.config[same], "{same}, in place: {in_place}");
            }
            // Proxmox writes what it left out into the log of its task.
            let logs = task_log::of_operation(&world.server.app.store, &operation).await.unwrap();
            let lines: Vec<&String> = logs.iter().flat_map(|log| &log.lines).collect();
            assert!(lines.iter().any(|line| line.contains("GREETING=[redacted]")), "{lines:#?}");
            assert!(!lines.iter().any(|line| line.contains(&value)));
        }

        // An archive of a container that was restored without: what it was deployed with stands in.
        world.simulator.edit_container(guest().vmid, "env", None).unwrap();
        let id = world.backed_up(&world.owner, &app).await;
        let path = format!("{shown}/backups/{id}");
        let operation = restored(&world, &world.owner, &path, &json!({})).await;
        assert_eq!(ended(&world, &operation).await["state"], "done");
        assert_eq!(guest().config["env"], format!("GREETING={value}"));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_application_is_seen_healthy_and_stopped_again() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let id = world.backed_up(&world.owner, &app).await;
        let stop = json!({ "action": "stop", "force": true });
        let stopped = world.post(&world.owner, &format!("/api/apps/{app}/action"), &stop).await;
        assert_eq!(stopped.status, 202, "{}", stopped.text);
        let shown = format!("/api/apps/{app}");
        world.until(&shown, |answer| answer.body["status"] == "stopped").await;
        for in_place in [false, true] {
            let path = format!("/api/apps/{app}/backups/{id}");
            let before = world.get(&world.owner, &shown).await.body["lxc_id"].clone();
            let operation =
                restored(&world, &world.owner, &path, &json!({ "in_place": in_place })).await;
            let end = ended(&world, &operation).await;
            assert_eq!(end["state"], "done", "{end:#}");
            let after = world.get(&world.owner, &shown).await.body;
            assert_eq!(after["status"], "stopped");
            assert_eq!(after["lxc_id"] == before, in_place);
            let ledger = world.simulator.ledger();
            assert_eq!(ledger.containers.len(), 1);
            assert_eq!(ledger.containers[0].status, "stopped");
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_application_that_does_not_answer_leaves_the_old_one_running() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let id = world.backed_up(&world.owner, &app).await;
        let before = world.get(&world.owner, &format!("/api/apps/{app}")).await.body;
        let ledger = world.simulator.ledger();
        world
            .simulator
            .faults()
            .add(FaultRule::forever(
                "container.create",
                Fault::Status { status: 403, reason: None, after_effect: false },
            ))
            .unwrap();
        let path = format!("/api/apps/{app}/backups/{id}");
        let operation = restored(&world, &world.owner, &path, &json!({})).await;
        let end = ended(&world, &operation).await;
        assert_eq!(end["state"], "undone", "{end:#}");
        world.simulator.clear_faults();
        let after = world.get(&world.owner, &format!("/api/apps/{app}")).await.body;
        assert_eq!(after["lxc_id"], before["lxc_id"]);
        assert_eq!(after["status"], "running");
        assert!(after["problem"].as_str().unwrap().contains("restore_container"), "{after:#}");
        let backup = world.get(&world.owner, &path).await.body;
        assert_eq!(backup["status"], "completed");
        assert!(
            backup["error_message"].as_str().unwrap().contains("restore_container"),
            "{backup:#}"
        );
        assert_eq!(world.simulator.ledger().leftovers(&ledger), Vec::<String>::new());
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_cannot_end_well_is_refused_before_anything_happens() {
    on_both(async |kind| {
        let mut node = NodeConfig::new("pve1");
        node.storages.retain(|storage| storage.kind == StorageKind::Dir);
        let world = World::start_on(kind, vec![node]).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let id = world.backed_up(&world.owner, &app).await;
        let path = format!("/api/apps/{app}/backups/{id}");
        let refused = async |body: Value, code: &str| {
            let done = world.done().await;
            let answer = world.post(&world.owner, &format!("{path}/restore"), &body).await;
            answer.problem(409, code);
            assert_eq!(world.done().await, done, "nothing is stored");
        };
        let ledger = world.simulator.ledger();
        // Less than the archive has.
        world.simulator.leave_free(1 << 20);
        refused(json!({}), "restore.no_space").await;
        // Proxmox makes the new disks before it destroys the old ones.
        refused(json!({ "in_place": true }), "restore.no_space").await;
        world.simulator.leave_free(1 << 40);
        world.simulator.remove_volume(&ledger.backups[0].volid).unwrap();
        refused(json!({}), "backup.archive_missing").await;
        refused(json!({ "in_place": true }), "backup.archive_missing").await;
        let foreign = world.post(&world.other, &format!("{path}/restore"), &json!({})).await;
        foreign.problem(404, "not_found");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_16_of_two_restores_at_once_one_wins_and_one_is_refused() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let id = world.backed_up(&world.owner, &app).await;
        let path = format!("/api/apps/{app}/backups/{id}/restore");
        let body = json!({});
        let posts = (0..4).map(|_| world.post(&world.owner, &path, &body));
        let answers = futures_util::future::join_all(posts).await;
        let accepted: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
        let busy = answers.iter().filter(|answer| answer.status == 409).count();
        assert_eq!((accepted.len(), busy), (1, 3), "{answers:#?}");
        let operation = accepted[0].body["operation"].as_str().unwrap();
        assert_eq!(ended(&world, operation).await["state"], "done");
        assert_eq!(world.simulator.ledger().containers.len(), 1);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_container_is_gone_is_brought_back() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let id = world.backed_up(&world.owner, &app).await;
        // A host that lists nothing at all concludes nothing.
        world.deployed(&world.other, "web-02").await;
        let shown = format!("/api/apps/{app}");
        let before = world.get(&world.owner, &shown).await.body;
        let vmid = u32::try_from(before["lxc_id"].as_u64().unwrap()).unwrap();
        world.simulator.remove_container(vmid).await.unwrap();
        let look = world.post(&world.admin, "/api/proxmox/hosts/1/reconcile", &json!({})).await;
        assert_eq!(look.status, 200, "{}", look.text);
        world.until(&shown, |answer| answer.body["status"] == "error").await;
        let path = format!("/api/apps/{app}/backups/{id}");
        let nothing = world
            .post(&world.owner, &format!("{path}/restore"), &json!({ "in_place": true }))
            .await;
        nothing.problem(409, "application.container_missing");
        let operation = restored(&world, &world.owner, &path, &json!({})).await;
        let end = ended(&world, &operation).await;
        assert_eq!(end["state"], "done", "{end:#}");
        let after = world.get(&world.owner, &shown).await.body;
        assert_eq!((&after["status"], &after["problem"]), (&json!("running"), &json!(null)));
        assert_ne!(after["lxc_id"], before["lxc_id"]);
        world.stop().await;
    })
    .await;
}
