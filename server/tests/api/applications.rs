//! An application from the request to the page it serves, and back to nothing.

use proximity_simulator::{Fault, FaultRule};
use reqwest::Method;
use serde_json::json;

use crate::harness::on_both;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn one_call_deploys_an_application_that_opens_and_a_deletion_leaves_nothing() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let before = world.simulator.ledger();
        let id = world.deployed(&world.owner, "Web-01").await;
        let app = world.get(&world.owner, &format!("/api/apps/{id}")).await.body;
        assert_eq!(app["hostname"], "web-01");
        assert_eq!(app["lxc_id"], app["vmid"]);
        assert_eq!(world.simulator.ledger().containers.len(), 1);
        for face in ["url", "iframe_url"] {
            // The publisher follows the log: it is there moments after the application runs.
            let url = app[face].as_str().unwrap().to_owned();
            let page = open(&url).await;
            assert!(page.contains("web-01"), "{face}: {page}");
        }
        let logs = world.get(&world.owner, &format!("/api/apps/{id}/logs?limit=1")).await.body;
        assert_eq!(logs["logs"][0]["level"], "SUCCESS", "{logs}");
        assert!(logs["total"].as_u64().unwrap() > 3);

        let path = format!("/api/apps/{id}/action/");
        let again = world.post(&world.owner, &path, &json!({ "action": "START" })).await;
        assert_eq!((again.status.as_u16(), &again.body["operation"]), (200, &json!(null)));
        let deleted = world.post(&world.owner, &path, &json!({ "action": "Delete" })).await;
        assert_eq!(deleted.status, 202, "{}", deleted.text);
        assert_eq!(deleted.body["success"], true);
        let location = deleted.header("location").to_owned();
        world.until(&location, |answer| answer.body["state"] == "done").await;
        world.get(&world.owner, &format!("/api/apps/{id}")).await.problem(404, "not_found");
        let after = world.simulator.ledger();
        assert_eq!((&after.containers, &after.disks), (&before.containers, &before.disks));
        world.stop().await;
    })
    .await;
}

async fn open(url: &str) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match reqwest::get(url).await {
            Ok(answer) if answer.status() == 200 => return answer.text().await.unwrap(),
            other => assert!(std::time::Instant::now() < deadline, "{url}: {other:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The log may be a minute behind, and "it is so already" would be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_stopped_by_hand_a_moment_ago_is_started_and_the_other_way_round() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let vmid = world.simulator.ledger().containers[0].vmid;
        let act = async |action: &str| {
            let path = format!("/api/apps/{id}/action");
            world.post(&world.owner, &path, &json!({ "action": action, "force": true })).await
        };
        world.simulator.power_container(vmid, false).await.unwrap();
        for (action, now) in [("start", "running"), ("stop", "stopped")] {
            world.simulator.power_container(vmid, action == "stop").await.unwrap();
            let begun = act(action).await;
            assert_eq!(begun.status, 202, "{action}: {}", begun.text);
            let operation = begun.header("location").to_owned();
            world.until(&operation, |answer| answer.body["state"] == "done").await;
            assert_eq!(world.simulator.ledger().containers[0].status, now);
            let done = world.done().await;
            assert_eq!(act(action).await.status, 200, "it is so already");
            assert_eq!(world.done().await, done, "that is no event");
            let shown = world.get(&world.owner, &format!("/api/apps/{id}")).await;
            assert_eq!(shown.body["status"], now);
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_or_does_not_answer_is_not_taken_for_so_already() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let container = || world.simulator.ledger().containers[0].clone();
        let vmid = container().vmid;
        let act = async |action: &str| {
            let path = format!("/api/apps/{id}/action");
            let begun =
                world.post(&world.owner, &path, &json!({ "action": action, "force": true })).await;
            assert_eq!(begun.status, 202, "{action}: {}", begun.text);
            begun.header("location").to_owned()
        };
        for (action, now) in [("start", "running"), ("stop", "stopped")] {
            let other = if container().node == "pve1" { "pve2" } else { "pve1" };
            world.simulator.move_container(vmid, other).unwrap();
            world.simulator.power_container(vmid, action == "stop").await.unwrap();
            let operation = act(action).await;
            world.until(&operation, |answer| answer.body["state"] == "done").await;
            assert_eq!((&*container().node, &*container().status), (other, now));
        }
        // Nobody can tell now: the operation finds out, and one that is taken back changes nothing.
        let silent = Fault::Status { status: 596, reason: None, after_effect: false };
        let silent = || FaultRule::forever("container.status", silent.clone());
        world.simulator.faults().add(silent()).unwrap();
        let operation = act("stop").await;
        let cancelled = world.post(&world.owner, &format!("{operation}/cancel"), &json!({})).await;
        assert!(cancelled.status.is_success(), "{}", cancelled.text);
        world.until(&operation, |answer| answer.body["state"] == "undone").await;
        world.simulator.clear_faults();
        assert_eq!(container().status, "stopped");
        let shown = world.get(&world.owner, &format!("/api/apps/{id}")).await;
        assert_eq!(shown.body["status"], "stopped");
        world.simulator.power_container(vmid, true).await.unwrap();
        world.simulator.faults().add(silent()).unwrap();
        let operation = act("stop").await;
        world.simulator.clear_faults();
        world.until(&operation, |answer| answer.body["state"] == "done").await;
        assert_eq!(container().status, "stopped");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_removed_by_hand_a_moment_ago_is_neither_started_nor_stopped() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        for (hostname, action) in [("web-01", "start"), ("web-02", "stop")] {
            let id = world.deployed(&world.owner, hostname).await;
            let path = format!("/api/apps/{id}/action");
            let wish = json!({ "action": action, "force": true });
            if action == "stop" {
                let begun = world.post(&world.owner, &path, &wish).await;
                let operation = begun.header("location").to_owned();
                world.until(&operation, |answer| answer.body["state"] == "done").await;
            }
            let vmid = world.simulator.ledger().containers[0].vmid;
            world.simulator.remove_container(vmid).await.unwrap();
            let gone = world.post(&world.owner, &path, &wish).await;
            gone.problem(409, "application.container_missing");
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_wish_is_said_field_by_field() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let post = async |body| world.post(&world.owner, "/api/apps/", &body).await;
        let wrong = post(json!({ "catalog_id": "none", "hostname": "-", "node": "a b" })).await;
        assert_eq!(wrong.status, 422, "{}", wrong.text);
        let mut pointers: Vec<&str> = wrong.body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/catalog_id", "/hostname", "/node"]);
        post(json!({ "hostname": "a" })).await.problem(422, "value.invalid");
        // Proxmox would take the second line for an option of its own.
        let line = "x\nlxc.mount.entry: /etc etc none bind 0 0";
        let smuggled = json!({
            "catalog_id": "memos", "hostname": "nlb",
            "environment": { "EVIL": line }, "config": { "MEMOS_MODE": line },
        });
        let wrong = post(smuggled).await;
        assert_eq!(wrong.status, 422, "{}", wrong.text);
        let named: Vec<&str> = wrong.body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(named, ["/config/MEMOS_MODE", "/environment/EVIL"]);
        assert!(!wrong.text.contains("lxc."), "{}", wrong.text);
        world.deployed(&world.owner, "web-01").await;
        post(json!({ "catalog_id": "nginx", "hostname": "WEB-01." }))
            .await
            .problem(409, "hostname.taken");
        let list = world.get(&world.owner, "/api/apps?per_page=101").await;
        list.problem(422, "query.out_of_range");
        world.get(&world.owner, "/api/apps?page=x").await.problem(400, "query.malformed");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_body_deploy_once_and_another_body_is_refused() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let bearer = format!("Bearer {}", world.owner.token);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", "first"),
        ];
        let call = async |hostname: &str| {
            let body = json!({ "catalog_id": "nginx", "hostname": hostname }).to_string();
            let body = Some(body.as_bytes());
            world.server.call(Method::POST, "/api/apps/", &headers, body).await
        };
        let first = call("web-01").await;
        let second = call("web-01").await;
        assert_eq!((first.status.as_u16(), second.status.as_u16()), (202, 202), "{}", second.text);
        assert_eq!(first.body["id"], second.body["id"]);
        assert_eq!(first.header("location"), second.header("location"));
        call("web-02").await.problem(422, "idempotency_key.reused");
        let list = world.get(&world.owner, "/api/apps").await.body;
        assert_eq!(list["total"], 1, "{list}");
        world.stop().await;
    })
    .await;
}
