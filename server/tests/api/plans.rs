//! Dry runs and figures: what would be done is what is then done, and what is used is shown.

use std::collections::BTreeSet;

use proximity_simulator::SimulatorHandle;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::on_both;
use crate::world::World;

fn texts<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|item| item[field].as_str().unwrap()).collect()
}

/// The calls with an effect that arrived after the first `after` requests.
fn effects(simulator: &SimulatorHandle, after: usize) -> BTreeSet<String> {
    let seen = simulator.requests_seen().requests;
    seen[after..]
        .iter()
        .filter(|request| request.method != "GET" && !request.path.contains("/access/"))
        .map(|request| {
            let path = request.path.split('?').next().unwrap();
            format!("{} {}", request.method, path.trim_start_matches("/api2/json"))
        })
        .collect()
}

/// A path's container number and node are chosen anew for real.
fn shape(call: &str) -> String {
    call.split('/')
        .map(|part| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if is_number || part.starts_with("pve") { "*" } else { part }
        })
        .collect::<Vec<_>>()
        .join("/")
}

fn told(plan: &Value) -> BTreeSet<String> {
    texts(&plan["calls"], "call").into_iter().map(shape).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_decides_as_for_real_and_stores_nothing() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let body = json!({ "catalog_id": "nginx", "hostname": "dry-01" });
        let store = world.server.app.store.clone();
        let (head, done) = (store.head().await.unwrap(), world.done().await);
        let dry = world.post(&world.owner, "/api/apps/?dry_run=true", &body).await;
        assert_eq!(dry.status, 200, "{}", dry.text);
        let plan = &dry.body;
        assert_eq!((&plan["dry_run"], &plan["operation"]), (&json!(true), &json!("deploy")));
        assert!(plan["node"].as_str().unwrap().starts_with("pve"), "{plan}");
        let leases = texts(&plan["leases"], "lease");
        assert!(leases.contains(&"hostname/dry-01") && leases.len() == 4, "{leases:?}");
        assert_eq!(world.done().await, done, "something was appended");
        assert_eq!(world.get(&world.owner, "/api/apps").await.body["total"], 0);

        let before = world.simulator.requests_seen().requests.len();
        let id = world.deployed(&world.owner, "dry-01").await;
        let events = world.acts(head).await;
        let stored: BTreeSet<&str> = events
            .iter()
            .take_while(|event| event.event_type != "operation.step_intended")
            .map(|event| event.event_type.as_str())
            .collect();
        let drafted: BTreeSet<&str> = texts(&plan["events"], "event_type").into_iter().collect();
        assert_eq!(drafted, stored);
        let made: BTreeSet<String> =
            effects(&world.simulator, before).iter().map(|call| shape(call)).collect();
        assert!(made.is_subset(&told(plan)), "{made:?} beside {plan}");
        assert!(made.contains("POST /nodes/*/lxc"), "{made:?}");

        // Refused as it would be for real.
        let taken = world.post(&world.owner, "/api/apps/?dry_run=true", &body).await;
        taken.problem(409, "hostname.taken");
        let wrong = json!({ "catalog_id": "nginx", "hostname": "-" });
        let wrong = world.post(&world.owner, "/api/apps/?dry_run=true", &wrong).await;
        wrong.problem(422, "hostname.invalid");

        let path = format!("/api/apps/{id}?dry_run=true");
        let delete = async |who| world.server.as_person(who, Method::DELETE, &path, None).await;
        delete(&world.other).await.problem(404, "not_found");
        let done = world.done().await;
        let dry = delete(&world.owner).await;
        assert_eq!(dry.status, 200, "{}", dry.text);
        let plan = dry.body;
        assert_eq!(texts(&plan["leases"], "change"), ["released"; 4], "{plan}");
        assert_eq!(world.done().await, done);
        assert_eq!(
            world.get(&world.owner, &format!("/api/apps/{id}")).await.body["operation"],
            Value::Null
        );
        let start = json!({ "action": "start" });
        let action = format!("/api/apps/{id}/action?dry_run=true");
        let nothing = world.post(&world.owner, &action, &start).await.body;
        assert_eq!((&nothing["events"], &nothing["operation"]), (&json!([]), &Value::Null));
        let before = world.simulator.requests_seen().requests.len();
        let gone = format!("/api/apps/{id}");
        world.server.as_person(&world.owner, Method::DELETE, &gone, None).await;
        world.until(&gone, |answer| answer.status == 404).await;
        let made: BTreeSet<String> =
            effects(&world.simulator, before).iter().map(|call| shape(call)).collect();
        assert!(made.is_subset(&told(&plan)), "{made:?} beside {plan}");
        assert!(made.contains("DELETE /nodes/*/lxc/*"), "{made:?}");

        // A call that cannot be tried is not made for real instead.
        let user =
            json!({ "username": "eve", "password": proximity_server::demo::generated_password() });
        let dry = world.post(&world.admin, "/api/users?dry_run=true", &user).await;
        dry.problem(422, "dry_run.unsupported");
        assert_eq!(world.get(&world.admin, "/api/users").await.body["total"], 3);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_shows_what_it_uses_and_nothing_when_that_is_not_known() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let (app, stats) = (format!("/api/apps/{id}"), format!("/api/apps/{id}/stats"));
        world.server.app.commands.watch.look().await;
        let seen = world.get(&world.owner, &app).await;
        let (used, total) = (&seen.body["memory_used"], &seen.body["memory_total"]);
        assert!(total.as_u64().unwrap() >= used.as_u64().unwrap(), "{}", seen.text);
        assert!(
            seen.body["cpu_usage"].as_f64().is_some() && seen.body["disk_total"].as_u64() > Some(0)
        );
        let figures = world.get(&world.owner, &format!("{stats}?timeframe=hour")).await;
        assert_eq!(figures.status, 200, "{}", figures.text);
        assert_eq!(&figures.body["current"]["memory_total"], total);
        let samples = figures.body["samples"].as_array().unwrap();
        assert!(samples.len() >= 60, "{} samples", samples.len());
        assert_eq!(samples[0]["memory_used"], Value::Null, "an hour ago it was not there");
        world.get(&world.other, &stats).await.problem(404, "not_found");
        let wrong = world.get(&world.owner, &format!("{stats}?timeframe=ever")).await;
        wrong.problem(422, "query.out_of_range");

        // Figures that differ make no change of the application: If-Match holds on.
        let tag = seen.header("etag").to_owned();
        let bearer = format!("Bearer {}", world.owner.token);
        let state = tag.trim_matches('"').split('-').next().unwrap().to_owned();
        let stop = json!({ "action": "stop" }).to_string();
        for (matching, status) in
            [(format!("\"{state}-00000000\""), 202), ("\"other\"".to_owned(), 412)]
        {
            let headers = [
                ("authorization", bearer.as_str()),
                ("content-type", "application/json"),
                ("if-match", matching.as_str()),
            ];
            let path = format!("{app}/action");
            let answer =
                world.server.call(Method::POST, &path, &headers, Some(stop.as_bytes())).await;
            assert_eq!(answer.status.as_u16(), status, "{matching}: {}", answer.text);
        }
        world.until(&app, |answer| answer.body["status"] == "stopped").await;

        // A host that does not answer leaves nothing that could be taken for a figure.
        let World { server, simulator, owner, .. } = world;
        simulator.shutdown().await;
        server.app.commands.watch.look().await;
        let seen = server.as_person(&owner, Method::GET, &app, None).await;
        for field in ["cpu_usage", "memory_used", "memory_total", "disk_used", "disk_total"] {
            assert_eq!(seen.body[field], Value::Null, "{field}: {}", seen.text);
        }
        let figures = server.as_person(&owner, Method::GET, &stats, None).await;
        assert_eq!((figures.status.as_u16(), &figures.body["samples"]), (200, &Value::Null));
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_seen_is_carried_out_exactly_or_not_at_all() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let store = world.server.app.store.clone();
        let dry = async |who, path: &str, body: &Value| {
            let answer = world.post(who, &format!("{path}?dry_run=true"), body).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer.body
        };
        let numbers = |events: &Value| {
            let mut leases: Vec<String> = events
                .as_array()
                .unwrap()
                .iter()
                .filter(|event| event["event_type"] == "lease.acquired")
                .map(|event| event["stream"].as_str().unwrap().to_owned())
                // That one is the runner's, which may be at work already.
                .filter(|lease| !lease.starts_with("lease/template/"))
                .collect();
            leases.sort();
            leases
        };
        let body = json!({ "catalog_id": "nginx", "hostname": "web-01" });
        let plan = dry(&world.owner, "/api/apps/", &body).await;
        let other = dry(&world.owner, "/api/apps/", &json!({ "catalog_id": "nginx", "hostname": "web-02" })).await;
        let (hash, otherwise) = (plan["plan_hash"].as_str().unwrap(), other["plan_hash"].as_str().unwrap());
        let path = |hash: &str| format!("/api/apps/?plan={hash}");
        let (head, done) = (store.head().await.unwrap(), world.done().await);
        // Another one's, another request's, a forged one: none of them is this plan.
        world.post(&world.other, &path(hash), &body).await.problem(412, "plan.changed");
        world.post(&world.owner, &path(otherwise), &body).await.problem(412, "plan.changed");
        let (picks, seal) = hash.split_once('.').unwrap();
        let theirs = otherwise.split_once('.').unwrap().0;
        world.post(&world.owner, &path(&format!("{theirs}.{seal}")), &body).await.problem(412, "plan.changed");
        for wrong in [picks, "x", "..", &format!("{picks}."), &"a".repeat(5_000)] {
            world.post(&world.owner, &path(wrong), &body).await.problem(412, "plan.changed");
        }
        assert_eq!(world.done().await, done, "something was appended");

        let made = world.post(&world.owner, &path(hash), &body).await;
        assert_eq!(made.status, 202, "{}", made.text);
        assert_eq!((&made.body["vmid"], &made.body["node"]), (&plan["vmid"], &plan["node"]));
        let id = made.body["id"].as_str().unwrap().to_owned();
        let stored: Vec<Value> = world
            .acts(head)
            .await
            .iter()
            .map(|event| json!({ "event_type": event.event_type, "stream": format!("{}/{}", event.aggregate_type, event.aggregate_id) }))
            .collect();
        assert_eq!(numbers(&Value::Array(stored)), numbers(&plan["events"]));
        // It holds its numbers now, and so nobody can have that plan again.
        world.post(&world.owner, &path(hash), &body).await.problem(412, "plan.changed");

        // A setting that it rests on has changed.
        world.until(&format!("/api/apps/{id}"), |app| app.body["status"] == "running").await;
        let mut network = world.get(&world.admin, "/api/core/settings/network").await.body;
        network["default_dns_primary"] = json!("9.9.9.9");
        let settings = "/api/core/settings/network";
        let changed = world.post(&world.admin, settings, &network).await;
        assert!(changed.status.is_success(), "{}", changed.text);
        let second = json!({ "catalog_id": "nginx", "hostname": "web-02" });
        world.post(&world.owner, &path(otherwise), &second).await.problem(412, "plan.changed");

        let clone = format!("/api/apps/{id}/clone");
        let body = json!({ "new_hostname": "web-03" });
        let plan = dry(&world.owner, &clone, &body).await;
        let hash = plan["plan_hash"].as_str().unwrap();
        let made = world.post(&world.owner, &format!("{clone}?plan={hash}"), &body).await;
        assert_eq!(made.status, 202, "{}", made.text);
        let copy = format!("/api/apps/{}", made.body["id"].as_str().unwrap());
        world.until(&copy, |app| app.body["status"] == "running").await;
        assert_eq!(world.get(&world.owner, &copy).await.body["vmid"], plan["vmid"]);

        // A deletion that was seen while it ran is not the one of a stopped application.
        let app = format!("/api/apps/{id}");
        let delete = async |query: &str| {
            world.server.as_person(&world.owner, Method::DELETE, &format!("{app}?{query}"), None).await
        };
        let seen = delete("dry_run=true").await.body["plan_hash"].as_str().unwrap().to_owned();
        let (stop, action) = (json!({ "action": "stop" }), format!("{app}/action"));
        let stopping = dry(&world.owner, &action, &stop).await["plan_hash"].as_str().unwrap().to_owned();
        world.post(&world.owner, &action, &stop).await;
        world.until(&app, |app| app.body["status"] == "stopped").await;
        // What is so already is not done exactly so; without a plan it is no error.
        for query in [format!("plan={stopping}"), format!("dry_run=true&plan={stopping}")] {
            let again = world.post(&world.owner, &format!("{action}?{query}"), &stop).await;
            again.problem(412, "plan.changed");
        }
        assert_eq!(world.post(&world.owner, &action, &stop).await.status, 200);
        delete(&format!("plan={seen}")).await.problem(412, "plan.changed");
        delete(&format!("dry_run=true&plan={seen}")).await.problem(412, "plan.changed");
        let seen = delete("dry_run=true").await.body["plan_hash"].as_str().unwrap().to_owned();
        let still = delete(&format!("dry_run=true&plan={seen}")).await;
        assert_eq!(still.body["plan_hash"], json!(seen), "{}", still.text);
        assert_eq!(delete(&format!("plan={seen}")).await.status, 202);
        world.until(&app, |app| app.status == 404).await;
        let user = json!({ "username": "eve" });
        world.post(&world.admin, "/api/users?plan=x", &user).await.problem(422, "dry_run.unsupported");
        world.stop().await;
    })
    .await;
}
