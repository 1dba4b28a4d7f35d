//! The audit: what stands beside every event, what is found in it, and what came of one request.

use std::collections::BTreeSet;

use proximity_eventstore::Recorded;
use proximity_simulator::Foreign;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Kind, on_both};
use crate::world::{Person, World};

impl World {
    async fn log(&self) -> Vec<Recorded> {
        self.server.app.store.feed(0, 100_000).await.unwrap()
    }

    async fn call(&self, who: &Person, method: Method, path: &str, body: &Value) -> Answer {
        let body = Some(body).filter(|body| !body.is_null());
        self.server.as_person(who, method, path, body).await
    }

    /// Waits until nothing is carried out any more.
    async fn quiet(&self) {
        for state in ["planned", "running", "unwinding"] {
            let path = format!("/api/operations?state={state}");
            self.until(&path, |answer| answer.body["total"] == 0).await;
        }
    }
}

fn said(event: &Recorded) -> Value {
    serde_json::from_str(&event.metadata).unwrap()
}

/// One call of each kind, by whom, and the name that the log has for it.
async fn one_of_each(world: &World) -> Vec<(String, String, &'static str)> {
    let (admin, owner) = (&world.admin, &world.owner);
    let id = world.deployed(owner, "web-01").await;
    let app = format!("/api/apps/{id}");
    let backup = world.backed_up(owner, &id).await;
    let get = async |path: &str| world.get(admin, path).await.body;
    let person = get("/api/users").await["users"][1]["id"].clone();
    let stranger = Foreign {
        vmid: Some(9_001),
        hostname: Some("found".to_owned()),
        config: [("net0".to_owned(), "name=eth0,bridge=vmbr0,ip=dhcp".to_owned())].into(),
        running: true,
        ..Foreign::default()
    };
    let stranger = world.simulator.plant_container(stranger).await.unwrap();
    let password = proximity_server::demo::generated_password();
    let mut told = Vec::new();
    let mut did = async |who: &Person, method: Method, path: &str, body: Value, command| {
        let answer = world.call(who, method.clone(), path, &body).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
        told.push((answer.header("x-request-id").to_owned(), who.name.clone(), command));
        world.quiet().await;
        answer
    };
    let (post, put, patch, delete) = (Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    did(
        owner,
        post.clone(),
        &format!("{app}/action"),
        json!({"action": "stop"}),
        "application.act",
    )
    .await;
    did(
        admin,
        post.clone(),
        &format!("{app}/action"),
        json!({"action": "start"}),
        "application.act",
    )
    .await;
    did(
        owner,
        post.clone(),
        &format!("{app}/clone"),
        json!({"new_hostname": "web-02"}),
        "application.clone",
    )
    .await;
    did(owner, post.clone(), &format!("{app}/backups"), json!({}), "backup.create").await;
    did(owner, delete.clone(), &format!("{app}/backups/{backup}"), json!(null), "backup.delete")
        .await;
    did(
        admin,
        post.clone(),
        "/api/apps/adopt",
        json!({"vmid": stranger, "node_name": "pve1", "hostname": "found"}),
        "application.adopt",
    )
    .await;
    let made = did(
        owner,
        post.clone(),
        "/api/backup-schedules",
        json!({"cron": "0 2 * * *"}),
        "backup_schedule.create",
    )
    .await;
    let schedule = format!("/api/backup-schedules/{}", made.body["id"]);
    did(owner, put.clone(), &schedule, json!({"cron": "0 3 * * *"}), "backup_schedule.change")
        .await;
    did(owner, delete.clone(), &schedule, json!(null), "backup_schedule.delete").await;
    did(owner, delete.clone(), &app, json!(null), "application.act").await;
    did(
        owner,
        patch.clone(),
        "/api/auth/user",
        json!({"first_name": "Ann"}),
        "user.change_profile",
    )
    .await;
    let made = did(
        owner,
        post.clone(),
        "/api/auth/tokens",
        json!({"name": "ci", "scopes": ["read"]}),
        "api_token.issue",
    )
    .await;
    let token = format!("/api/auth/tokens/{}", made.body["id"].as_str().unwrap());
    did(owner, delete.clone(), &token, json!(null), "api_token.revoke").await;
    did(
        admin,
        post.clone(),
        "/api/users",
        json!({"username": "carol", "password": password}),
        "user.create",
    )
    .await;
    did(
        admin,
        patch.clone(),
        &format!("/api/users/{person}"),
        json!({"disabled": true}),
        "user.change",
    )
    .await;
    did(
        admin,
        patch.clone(),
        &format!("/api/users/{person}"),
        json!({"disabled": false}),
        "user.change",
    )
    .await;
    let network = get("/api/core/settings/network").await;
    let mut network = network.as_object().unwrap().clone();
    network.retain(|_, value| !value.is_null());
    network.remove("updated_at");
    network.insert("default_bridge".to_owned(), json!("vmbr1"));
    did(
        admin,
        post.clone(),
        "/api/core/settings/network",
        Value::Object(network),
        "settings.network",
    )
    .await;
    did(admin, put.clone(), "/api/proxmox/hosts/1", json!({"name": "lab-2"}), "host.change").await;
    did(
        admin,
        post.clone(),
        "/api/proxmox/hosts/1/test",
        json!({}),
        "Post /api/proxmox/hosts/{id}/test",
    )
    .await;
    did(admin, post.clone(), "/api/catalog/reload", json!({}), "Post /api/catalog/reload").await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_says_who_did_it_for_whom_with_what_from_where_and_why() {
    let world = World::start(Kind::Sqlite).await;
    let calls = one_of_each(&world).await;
    let log = world.log().await;
    for (request, who, command) in &calls {
        let own: Vec<Value> =
            log.iter().map(said).filter(|said| said["request"] == json!(request)).collect();
        assert!(!own.is_empty(), "{command} of {who} is not in the log");
        for said in own {
            assert_eq!(said["command"], json!(command));
            assert!(said["actor"].as_str().unwrap().starts_with("user/"), "{said}");
            let credential = said["credential"].as_str().unwrap();
            assert!(credential.starts_with("session/"), "{said}");
            assert_eq!(said["source"], "127.0.0.1");
            assert!(said["correlation"].is_string(), "{said}");
            assert_eq!(said["causation"], format!("request/{request}"));
            // On someone else's behalf, or for oneself.
            let owner = said["owner"].as_str().map(|owner| format!("user/{owner}"));
            let own = owner.as_ref() == said["actor"].as_str().map(str::to_owned).as_ref();
            let about_a_thing =
                ["application", "backup"].iter().any(|kind| command.starts_with(kind));
            if about_a_thing {
                assert!(owner.is_some(), "{said}");
                assert_eq!(said["on_behalf_of"].is_string(), !own, "{said}");
            }
        }
    }
    let mut kinds = BTreeSet::new();
    for event in &log {
        let said = said(event);
        let has = |field: &str| said[field].as_str().is_some_and(|text| !text.is_empty());
        let actor = said["actor"].as_str().unwrap();
        kinds.insert(format!("{} by {}", event.event_type, actor.split('/').next().unwrap()));
        let mut wanted = vec!["actor", "command", "correlation"];
        match actor.split('/').next().unwrap() {
            "user" => wanted.extend(["credential", "source", "request", "causation"]),
            // Whoever is refused is nobody still.
            "anonymous" if event.aggregate_type == "refusal" => {
                wanted.extend(["source", "request", "causation"]);
            }
            "anonymous" => wanted.extend(["source", "request", "causation", "on_behalf_of"]),
            _ if actor == "system/operations" => {
                wanted.extend(["owner", "on_behalf_of", "causation"]);
            }
            _ => {}
        }
        for field in wanted {
            assert!(
                has(field),
                "position {} ({}) lacks {field}: {said}",
                event.position,
                event.event_type
            );
        }
    }
    println!(
        "figure: {} calls of {} kinds left {} events of {} kinds, each with its metadata",
        calls.len(),
        calls.iter().map(|call| call.2).collect::<BTreeSet<_>>().len(),
        log.len(),
        kinds.len()
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_used_is_in_the_log_once_a_minute_and_not_its_value() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        world.deployed(&world.owner, "web-01").await;
        for _ in 0..5 {
            let tested = world.post(&world.admin, "/api/proxmox/hosts/1/test", &json!({})).await;
            assert_eq!(tested.status, 200, "{}", tested.text);
        }
        let store = world.server.app.store.clone();
        let uses = &world.server.app.commands.secrets;
        uses.uses().flush(&store, i64::MAX).await.unwrap();
        let path = "/api/audit/events?type=secret_use";
        let found = world.get(&world.admin, path).await.body["events"].clone();
        let of_host: Vec<&Value> = found
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["payload"]["counted"]["table"] == "host_connections")
            .collect();
        let times: u64 = of_host
            .iter()
            .map(|event| event["payload"]["counted"]["times"].as_u64().unwrap())
            .sum();
        assert!(times >= 6, "{found}");
        // Of each actor once a minute, and a minute may have ended meanwhile.
        assert!(of_host.len() <= 4, "{found}");
        assert!(!found.to_string().contains(world.simulator.root_password()));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_requests_and_credentials() {
    let world = World::start(Kind::Sqlite).await;
    let refused = world.post(&world.other, "/api/users", &json!({ "username": "x" })).await;
    assert_eq!(refused.status, 403);
    world.server.app.refusals.flush_all().await.unwrap();
    let found = world.get(&world.admin, "/api/audit/events?type=refusal").await.body;
    let counted = &found["events"][0]["payload"]["counted"];
    assert_eq!(counted["requests"], json!([refused.header("x-request-id")]), "{found}");
    assert!(counted["credentials"][0].as_str().unwrap().starts_with("session/"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_filtered_and_exported_as_lines() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let me = world.get(&world.owner, "/api/auth/user").await.body["id"].to_string();
        let lines = async |who: &Person, path: &str, accept: &str| {
            let bearer = format!("Bearer {}", who.token);
            let headers = [("authorization", bearer.as_str()), ("accept", accept)];
            let answer = world.server.call(Method::GET, path, &headers, None).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer
        };
        let log = world.log().await;
        let all = lines(&world.admin, "/api/audit/events", "application/x-ndjson").await;
        assert_eq!(all.header("content-type"), "application/x-ndjson");
        let events: Vec<Value> =
            all.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(events.len() >= log.len());
        for (event, stored) in events.iter().zip(&log) {
            assert_eq!(event["position"], stored.position);
            assert_eq!(event["type"], stored.event_type);
        }
        let csv =
            lines(&world.owner, &format!("/api/audit/events?format=csv&app={id}"), "*/*").await;
        assert!(csv.header("content-type").starts_with("text/csv"));
        let name = "attachment; filename=\"events.csv\"";
        assert_eq!(csv.header("content-disposition"), name);
        let rows = csv.text.lines().count() - 1;
        let history = world.get(&world.owner, &format!("/api/apps/{id}/history")).await.body;
        assert_eq!(history["total"], rows, "{}", csv.text);
        assert!(history["events"].to_string().contains("lease.acquired"), "{history}");
        // Whoever it belongs to sees it, and not where an administrator came from.
        let own = lines(&world.owner, "/api/audit/events", "application/x-ndjson").await;
        for line in own.text.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["owner"], me);
            let is_login = event["actor"] == "anonymous" && event["on_behalf_of"] == me;
            let own = is_login || event["actor"] == format!("user/{me}");
            assert_eq!(event["source"].is_string(), own, "{event}");
        }
        let page =
            world.get(&world.admin, "/api/audit/events?type=lease.acquired&limit=2").await.body;
        assert_eq!(
            (&page["complete"], page["events"].as_array().unwrap().len()),
            (&json!(false), 2)
        );
        let query = "/api/audit/events?format=xml";
        world.get(&world.admin, query).await.problem(400, "query.malformed");
        let query = "/api/audit/events?format=csv&limit=0";
        world.get(&world.admin, query).await.problem(422, "query.out_of_range");
        let foreign = format!("/api/audit/events?format=csv&app={id}");
        world.get(&world.other, &foreign).await.problem(404, "not_found");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_traced_to_the_end_of_its_tasks_logs() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let body = json!({ "catalog_id": "nginx", "hostname": "web-01" });
        let answer = world.post(&world.owner, "/api/apps/", &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let request = answer.header("x-request-id").to_owned();
        let id = answer.body["id"].as_str().unwrap().to_owned();
        world.until(&format!("/api/apps/{id}"), |answer| answer.body["status"] == "running").await;
        let path = format!("/api/audit/trace/{request}");
        let trace = world.get(&world.owner, &path).await;
        assert_eq!(trace.status, 200, "{}", trace.text);
        let command = &trace.body["commands"][0];
        assert_eq!(command["command"], "application.deploy");
        assert_eq!(command["events"][0]["type"], "application.requested");
        let operation = &command["operations"][0];
        assert_eq!((&operation["state"], &operation["app"]), (&json!("done"), &json!(id)));
        let steps = operation["steps"].as_array().unwrap();
        let create = steps.iter().find(|step| step["step"] == "create_container").unwrap();
        assert_eq!(
            create["calls"][0]["call"],
            format!("POST /nodes/{}/lxc", answer.body["node"].as_str().unwrap())
        );
        let task = &create["tasks"][0];
        assert!(task["upid"].as_str().unwrap().contains(":vzcreate:"), "{task}");
        assert_eq!(task["outcome"], "OK");
        let log = task["log"].as_array().unwrap();
        assert!(log.last().unwrap().as_str().unwrap().contains("TASK OK"), "{task}");
        let last = operation["events"].as_array().unwrap().last().unwrap();
        assert!(last["causation"].as_str().unwrap().starts_with("operation/"), "{last}");
        assert_eq!(world.get(&world.admin, &path).await.status, 200);
        let hidden = world.get(&world.other, &path).await;
        hidden.problem(404, "not_found");
        let never = world.get(&world.other, "/api/audit/trace/0197f3a2").await;
        never.problem(404, "not_found");
        assert_eq!(hidden.body["detail"], never.body["detail"]);
        world.stop().await;
    })
    .await;
}
