//! Findings of the audit over HTTP: what the old product let anyone do, asked of this one.

use std::collections::BTreeSet;

use proximity_domain::refusal::STREAM;
use proximity_server::config::Range;
use proximity_server::demo::generated_password;
use proximity_simulator::{Fault, FaultRule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Kind, on_both};
use crate::world::{Person, World};

/// A problem without its request id.
fn told(answer: &Answer) -> (u16, Value) {
    let mut body = answer.body.clone();
    body["request_id"] = Value::Null;
    (answer.status.as_u16(), body)
}

/// Panics unless a stranger is told the same of the owner's thing as of one that never was.
async fn hidden(world: &World, path: &str, id: &str, method: Method, body: Option<&Value>) {
    let never = format!("nginx-{:08x}", rand::random::<u32>());
    let ask =
        async |path: &str| world.server.as_person(&world.other, method.clone(), path, body).await;
    let (theirs, none) = (ask(path).await, ask(&path.replace(id, &never)).await);
    theirs.problem(404, "not_found");
    assert_eq!(told(&theirs), told(&none), "{method} {path}");
}

/// Everything in the log but the noted refusals, and what the server sees of the nodes by itself.
async fn events(world: &World) -> Vec<(String, String)> {
    let events = world.server.app.store.feed(0, 10_000).await.unwrap();
    events
        .into_iter()
        .filter(|event| event.aggregate_type != STREAM)
        .filter(|event| event.event_type != "host.nodes_observed")
        .map(|event| (event.aggregate_id, event.event_type))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_01_nobody_reads_the_application_of_another() {
    let world = World::start(Kind::Sqlite).await;
    let id = world.deployed(&world.owner, "web-01").await;
    let path = format!("/api/apps/{id}");
    hidden(&world, &path, &id, Method::GET, None).await;
    let list = world.get(&world.other, "/api/apps/").await;
    assert_eq!((&list.body["apps"], &list.body["total"]), (&json!([]), &json!(0)));
    for who in [&world.owner, &world.admin] {
        assert_eq!(world.get(who, &path).await.body["id"], json!(id));
        assert_eq!(world.get(who, "/api/apps/").await.body["total"], 1);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_02_nobody_starts_stops_restarts_or_deletes_the_application_of_another() {
    let world = World::start(Kind::Sqlite).await;
    let id = world.deployed(&world.owner, "web-01").await;
    let (log, ledger) = (events(&world).await, world.simulator.ledger());
    let path = format!("/api/apps/{id}/action");
    for action in ["start", "stop", "restart", "delete"] {
        let body = json!({ "action": action });
        hidden(&world, &path, &id, Method::POST, Some(&body)).await;
    }
    hidden(&world, &format!("/api/apps/{id}"), &id, Method::DELETE, None).await;
    assert_eq!(events(&world).await, log, "a refused call changed something");
    assert_eq!(world.simulator.ledger().containers, ledger.containers);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_04_nobody_reads_the_deployment_log_of_another() {
    let world = World::start(Kind::Sqlite).await;
    let id = world.deployed(&world.owner, "web-01").await;
    hidden(&world, &format!("/api/apps/{id}/logs?limit=50"), &id, Method::GET, None).await;
    let own = world.get(&world.owner, &format!("/api/apps/{id}/logs")).await;
    assert!(own.body["total"].as_u64().unwrap() > 0, "{}", own.text);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_05_only_an_admin_reloads_the_catalog() {
    let world = World::start(Kind::Sqlite).await;
    let path = "/api/catalog/reload";
    world.server.call(Method::POST, path, &[], None).await.problem(401, "identity.required");
    world.post(&world.owner, path, &json!({})).await.problem(403, "admin.required");
    assert_eq!(world.post(&world.admin, path, &json!({})).await.status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_09_a_hundred_names_at_once_are_a_hundred_and_one_name_is_one() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let post = async |hostnames: Vec<String>| {
            let calls = hostnames.into_iter().map(|hostname| {
                let body = json!({ "catalog_id": "alpine", "hostname": hostname });
                let world = &world;
                async move { world.post(&world.owner, "/api/apps/", &body).await }
            });
            futures_util::future::join_all(calls).await
        };
        let count = |answers: &[Answer], status: u16| {
            answers.iter().filter(|answer| answer.status.as_u16() == status).count()
        };
        let different = post((0..100).map(|n| format!("web-{n}")).collect()).await;
        let accepted = count(&different, 202);
        let same = post((0..100).map(|_| "one-name".to_owned()).collect()).await;
        let (won, lost) = (count(&same, 202), count(&same, 409));
        for refused in same.iter().filter(|answer| answer.status != 202) {
            refused.problem(409, "hostname.taken");
        }
        println!("figure: {kind:?}: 100 different hostnames at once: {accepted} accepted; 100 times one: {won} and {lost}");
        assert_eq!((accepted, won, lost), (100, 1, 99));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_11_a_failed_deployment_gives_its_ports_back() {
    let world = World::start_with(Kind::Sqlite, |config| {
        config.public_ports = Range { first: 8_100, last: 8_101 };
        config.internal_ports = Range { first: 9_100, last: 9_101 };
    })
    .await;
    let refused = Fault::Status { status: 403, reason: None, after_effect: false };
    world.simulator.faults().add(FaultRule::forever("container.create", refused)).unwrap();
    // Three times as many failures as there are ports.
    for number in 0..6 {
        let body = json!({ "catalog_id": "alpine", "hostname": format!("bad-{number}") });
        let answer = world.post(&world.owner, "/api/apps/", &body).await;
        assert_eq!(answer.status, 202, "number {number}: {}", answer.text);
        let end = world.until(answer.header("location"), ended).await;
        assert_eq!(end.body["state"], "undone", "{}", end.text);
    }
    world.simulator.clear_faults();
    let good = world.deployed(&world.owner, "bad-0").await;
    assert_eq!(
        world.get(&world.owner, &format!("/api/apps/{good}")).await.body["status"],
        "running"
    );
    assert_eq!(world.simulator.ledger().containers.len(), 1);
    world.stop().await;
}

fn ended(answer: &Answer) -> bool {
    matches!(answer.body["state"].as_str(), Some("done" | "undone" | "stuck"))
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_13_no_error_is_shown_while_attempts_remain() {
    let world = World::start(Kind::Sqlite).await;
    let busy = Fault::Status { status: 500, reason: None, after_effect: false };
    world.simulator.faults().add(FaultRule::count("container.create", 2, busy)).unwrap();
    let body = json!({ "catalog_id": "alpine", "hostname": "again" });
    let answer = world.post(&world.owner, "/api/apps/", &body).await;
    let id = answer.body["id"].as_str().unwrap().to_owned();
    let mut seen = BTreeSet::new();
    loop {
        let app = world.get(&world.owner, &format!("/api/apps/{id}")).await;
        let status = app.body["status"].as_str().unwrap().to_owned();
        let over = status == "running" || status == "error";
        seen.insert(status);
        if over {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["deploying", "running"]);
    let operation = world.get(&world.owner, answer.header("location")).await;
    let steps = operation.body["steps"].as_array().unwrap();
    let create = steps.iter().find(|step| step["name"] == "create_container").unwrap();
    assert_eq!(create["attempts"], 3, "{create}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_14_17_a_port_and_a_hostname_that_are_none_are_refused_by_field() {
    let world = World::start(Kind::Sqlite).await;
    let pointer = |answer: &Answer| {
        assert_eq!(answer.status, 422, "{}", answer.text);
        answer.body["errors"][0]["pointer"].as_str().unwrap().to_owned()
    };
    for port in [json!(0), json!(65_536), json!(-1), json!("many")] {
        let body = json!({ "name": "b", "host": "127.0.0.1", "port": port, "password": generated_password() });
        let answer = world.post(&world.admin, "/api/proxmox/hosts", &body).await;
        assert_eq!(pointer(&answer), "/port", "{port}");
    }
    let long = "a".repeat(64);
    for name in ["", "-a", "a-", "a_b", "a b", "ü", "a\n", "a..b", &long] {
        let body = json!({ "catalog_id": "nginx", "hostname": name });
        let answer = world.post(&world.owner, "/api/apps/", &body).await;
        assert_eq!(pointer(&answer), "/hostname", "{name:?}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_20_every_error_has_the_one_shape() {
    let world = World::start(Kind::Sqlite).await;
    let token = format!("Bearer {}", world.owner.token);
    let json_type = ("content-type", "application/json");
    let signed = [("authorization", token.as_str()), json_type];
    let large = vec![b' '; 4 << 20];
    let call = |method, path, headers, body| world.server.call(method, path, headers, body);
    for (answer, status) in [
        (call(Method::GET, "/api/no/such/route", &signed, None).await, 404),
        (call(Method::DELETE, "/api/catalog", &signed, None).await, 405),
        (call(Method::POST, "/api/apps/", &signed, Some(b"{")).await, 400),
        (call(Method::POST, "/api/apps/", &signed, Some(&large)).await, 413),
        (call(Method::POST, "/api/apps/", &signed[..1], Some(b"a=b")).await, 415),
        (call(Method::GET, "/api/apps/", &[], None).await, 401),
        (call(Method::GET, "/api/users", &signed, None).await, 403),
        (call(Method::GET, "/api/apps?page=x", &signed, None).await, 400),
    ] {
        let code = answer.body["code"].as_str().unwrap_or("none").to_owned();
        answer.problem(status, &code);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_25_26_only_an_admin_changes_tests_syncs_or_removes_a_host() {
    let world = World::start(Kind::Sqlite).await;
    let log = events(&world).await;
    let host = json!({ "name": "mine", "host": "127.0.0.1", "password": generated_password(), "port": 8006 });
    for (method, path) in [
        (Method::POST, "/api/proxmox/hosts"),
        (Method::PUT, "/api/proxmox/hosts/1"),
        (Method::DELETE, "/api/proxmox/hosts/1"),
        (Method::POST, "/api/proxmox/hosts/1/test"),
        (Method::POST, "/api/proxmox/hosts/1/sync-nodes"),
    ] {
        let ask = async |who: &Person| {
            world.server.as_person(who, method.clone(), path, Some(&host)).await
        };
        ask(&world.owner).await.problem(403, "admin.required");
    }
    assert_eq!(events(&world).await, log, "a refused call changed something");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_28_29_a_list_is_never_longer_than_it_may_be() {
    let world = World::start(Kind::Sqlite).await;
    let id = world.deployed(&world.owner, "web-01").await;
    let logs = format!("/api/apps/{id}/logs?limit=");
    for (path, good) in [
        (format!("{logs}1"), true),
        (format!("{logs}1000"), true),
        (format!("{logs}0"), false),
        (format!("{logs}1001"), false),
        (format!("{logs}-1"), false),
        ("/api/apps?page=1&per_page=100".to_owned(), true),
        ("/api/apps?page=0".to_owned(), false),
        ("/api/apps?per_page=0".to_owned(), false),
        ("/api/apps?per_page=101".to_owned(), false),
    ] {
        let answer = world.get(&world.owner, &path).await;
        if good {
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        } else {
            answer.problem(422, "query.out_of_range");
        }
    }
    world.stop().await;
}
