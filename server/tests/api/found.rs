//! What the audit finds: refusals by whoever was refused, acts of administrators by whose things they
//! are about, no secret in what Proxmox says, and no search that quietly looks for something else.

use std::collections::BTreeSet;

use proximity_domain::refusal::{Event, STREAM};
use proximity_server::demo::generated_password;
use proximity_simulator::{Fault, FaultRule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Kind, on_both};
use crate::world::{Person, World};

const EVENTS: &str = "/api/audit/events";

impl World {
    async fn own_id(&self, who: &Person) -> String {
        self.get(who, "/api/auth/user").await.body["id"].to_string()
    }

    async fn found(&self, who: &Person, query: &str) -> Vec<Value> {
        let answer = self.get(who, &format!("{EVENTS}?limit=1000&{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body["events"].as_array().unwrap().clone()
    }
}

fn request_of(answer: &Answer) -> String {
    answer.header("x-request-id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proxmox_says_is_in_no_event_with_its_secrets() {
    let world = World::start(Kind::Sqlite).await;
    let secret = generated_password();
    let text = format!("the hook failed: --password={secret} was refused");
    let fault = Fault::TaskFails { text, after_effect: false };
    world.simulator.faults().add(FaultRule::count("container.start", 1, fault)).unwrap();
    let body = json!({ "catalog_id": "nginx", "hostname": "web-01" });
    let answer = world.post(&world.owner, "/api/apps/", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let app = format!("/api/apps/{}", answer.body["id"].as_str().unwrap());
    world.until(&app, |app| app.body["status"] == "running").await;
    let log = world.server.app.store.feed(0, 100_000).await.unwrap();
    let failed = log.iter().find(|event| event.event_type == "operation.step_failed").unwrap();
    assert!(failed.payload.contains("--password=[redacted] was refused"), "{}", failed.payload);
    assert!(!log.iter().any(|event| event.payload.contains(&secret)));
    let trace = format!("/api/audit/trace/{}", request_of(&answer));
    let trace = world.get(&world.owner, &trace).await;
    assert!(trace.text.contains("[redacted]") && !trace.text.contains(&secret), "{}", trace.text);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_is_found_by_who_made_it_and_traced_by_its_request() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let path = format!("/api/apps/{app}");
        let mut refused = Vec::new();
        for _ in 0..8 {
            let answer = world.server.as_person(&world.other, Method::DELETE, &path, None).await;
            answer.problem(404, "not_found");
            refused.push(request_of(&answer));
        }
        world.server.app.refusals.flush_all().await.unwrap();
        let other = world.own_id(&world.other).await;
        let found = world.found(&world.admin, &format!("actor=user/{other}&type=refusal")).await;
        // A minute may have ended in between.
        assert!((6..=8).contains(&found.len()), "{found:#?}");
        let times: u64 =
            found.iter().map(|e| e["payload"]["counted"]["times"].as_u64().unwrap()).sum();
        assert_eq!(times, 8);
        assert!(found.iter().all(|event| event["payload"]["counted"]["paths"] == json!([path])));
        assert_eq!(found[0]["command"], "Delete /api/apps/{id}");
        assert!(found[0]["credential"].as_str().unwrap().starts_with("session/"));
        assert_eq!(found[0]["source"], "127.0.0.1");
        let first = &refused[0];
        assert_eq!(world.found(&world.admin, &format!("request={first}")).await.len(), 1);
        for (who, status) in [(&world.admin, 200), (&world.other, 200), (&world.owner, 404)] {
            let trace = world.get(who, &format!("/api/audit/trace/{first}")).await;
            assert_eq!(trace.status, status, "{}", trace.text);
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_refusal_is_in_the_log() {
    let world = World::start(Kind::Sqlite).await;
    let app = world.deployed(&world.owner, "web-01").await;
    let foreign = format!("/api/apps/{app}");
    let (new, garbage) = (generated_password(), format!("Bearer {}", generated_password()));
    let change =
        json!({ "old_password": generated_password(), "new_password1": new, "new_password2": new });
    let changed = world.post(&world.other, "/api/auth/password/change", &change).await;
    changed.problem(422, "password.wrong");
    let unknown = json!({ "catalog_id": "nothing", "hostname": "x" });
    let unknown = world.post(&world.other, "/api/apps", &unknown).await;
    unknown.problem(422, "catalog.unknown");
    world.get(&world.other, &foreign).await.problem(404, "not_found");
    let json_type = ("content-type", "application/json");
    let call = async |method: Method, path: &str, headers: &[(&str, &str)], body: &str| {
        let body = Some(body.as_bytes()).filter(|body| !body.is_empty());
        world.server.call(method, path, headers, body).await
    };
    call(Method::GET, "/api/apps", &[], "").await.problem(401, "identity.required");
    let wrong = [("authorization", garbage.as_str())];
    call(Method::GET, "/api/users", &wrong, "").await.problem(401, "identity.required");
    let refresh = json!({ "refresh": generated_password() }).to_string();
    let refreshed = call(Method::POST, "/api/auth/token/refresh", &[json_type], &refresh).await;
    assert_eq!(refreshed.status, 401, "{}", refreshed.text);
    let login = json!({ "username": "ann", "password": new }).to_string();
    let foreign_page = [json_type, ("origin", "https://elsewhere.example")];
    let answer = call(Method::POST, "/api/auth/login", &foreign_page, &login).await;
    answer.problem(403, "origin.refused");
    let own_page = [json_type, ("origin", world.server.url.as_str())];
    let answer = call(Method::POST, "/api/auth/login", &own_page, &login).await;
    answer.problem(403, "csrf.failed");
    let answer = call(Method::POST, "/api/auth/login", &[json_type], &login).await;
    answer.problem(400, "login.failed");
    // What cannot be read asks for nothing, and what everybody may read is hidden from nobody.
    world.post(&world.other, "/api/apps", &json!([])).await;
    let broken = [json_type, ("authorization", &format!("Bearer {}", world.other.token))];
    call(Method::POST, "/api/apps", &broken, "{").await.problem(400, "body.malformed");
    call(Method::GET, "/api/catalog/nothing", &[], "").await.problem(404, "not_found");
    world.server.app.refusals.flush_all().await.unwrap();

    let other = format!("user/{}", world.own_id(&world.other).await);
    let mut counted = BTreeSet::new();
    for event in world.server.app.store.feed(0, 100_000).await.unwrap() {
        if event.aggregate_type == STREAM {
            let Event::Counted(one) = serde_json::from_str(&event.payload).unwrap();
            let who = if one.caller == other { "other" } else { "anonymous" };
            assert!(who == "other" || one.caller == "anonymous/127.0.0.1", "{}", one.caller);
            assert_eq!(one.source.as_deref(), Some("127.0.0.1"));
            counted.insert((who, one.code, one.commands.concat()));
        }
    }
    let rows = [
        ("anonymous", "csrf.failed", "Post /api/auth/login"),
        ("anonymous", "identity.required", "Get /api/apps"),
        ("anonymous", "identity.required", "Get /api/users"),
        ("anonymous", "identity.required", "Post /api/auth/token/refresh"),
        ("anonymous", "login.failed", "user.login"),
        ("anonymous", "origin.refused", "Post /api/auth/login"),
        ("other", "catalog.unknown", "Post /api/apps"),
        ("other", "not_found", "Get /api/apps/{id}"),
        ("other", "password.wrong", "Post /api/auth/password/change"),
        ("other", "value.invalid", "Post /api/apps"),
    ];
    let rows = rows.map(|(who, code, call)| (who, code.to_owned(), call.to_owned()));
    assert_eq!(counted, BTreeSet::from(rows));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_what_cannot_be_is_refused_and_names_the_parameter() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        for (query, name) in [
            ("acter=user/2", "acter"),
            ("type=nothing", "type"),
            ("type=lea", "type"),
            ("actor=nobody", "actor"),
            ("owner=abc", "owner"),
            ("until=9223372036854775808", "until"),
            ("until=3&after=5", "until"),
            ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
            ("request=", "request"),
        ] {
            let answer = world.get(&world.admin, &format!("{EVENTS}?{query}")).await;
            assert_eq!(answer.status, 422, "{query}: {}", answer.text);
            assert_eq!(answer.body["errors"][0]["pointer"], format!("?{name}"), "{query}");
        }
        let beyond = world.get(&world.admin, &format!("{EVENTS}?after=99999999")).await;
        beyond.problem(400, "position.unknown");
        assert!(beyond.body["detail"].as_str().unwrap().starts_with("after: "), "{}", beyond.text);
        let other = world.get(&world.admin, &format!("{EVENTS}?until=0123abcd.5")).await;
        other.problem(400, "position.unknown");
        assert!(other.body["detail"].as_str().unwrap().starts_with("until: "), "{}", other.text);
        let here = world.server.app.incarnation();
        let until = world.get(&world.admin, &format!("{EVENTS}?until={here}.99999999")).await;
        assert_eq!(until.status, 200, "{}", until.text);
        let page = world.get(&world.admin, &format!("{EVENTS}?until=5&limit=1000")).await.body;
        assert_eq!((&page["next"], &page["complete"]), (&json!(5), &json!(true)));
        let ended = world.get(&world.admin, &format!("{EVENTS}?until=5&after=5")).await.body;
        assert_eq!((&ended["events"], &ended["complete"]), (&json!([]), &json!(true)));
        let rest = world.get(&world.admin, &format!("{EVENTS}?after=5&limit=1")).await.body;
        assert_eq!(rest["events"][0]["position"], 6);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_character_is_refused_whatever_the_store() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        for query in [
            "/api/audit/events?actor=%00",
            "/api/audit/events?app=a%00",
            "/api/audit/events?type=%00",
            "/api/audit/events?owner=%00",
            "/api/audit/events?request=%00",
            "/api/apps?search=%00",
            "/api/operations?app=%00",
            "/api/apps?%00=1",
        ] {
            let answer = world.get(&world.owner, query).await;
            answer.problem(400, "query.malformed");
        }
        for path in [
            "/api/apps/%00",
            "/api/apps/%00/history",
            "/api/apps/%00/diff?from=1",
            "/api/apps/a%00b?at=1",
            "/api/audit/trace/%00",
            "/api/operations/%00",
            "/api/apps/%00/backups",
        ] {
            world.get(&world.owner, path).await.problem(404, "not_found");
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrators_act_on_an_owners_application_is_among_the_owners_events() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let body = json!({ "new_hostname": "web-02" });
        let answer = world.post(&world.admin, &format!("/api/apps/{id}/clone"), &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let copy = answer.body["id"].as_str().unwrap().to_owned();
        world.until(&format!("/api/apps/{copy}"), |app| app.body["status"] == "running").await;
        let (owner, admin) = (world.own_id(&world.owner).await, world.own_id(&world.admin).await);
        let of = |events: &[Value], stream: &str| -> Vec<Value> {
            let stream = format!("application/{stream}");
            events.iter().filter(|event| event["stream"] == stream).cloned().collect()
        };
        let own = of(&world.found(&world.owner, "type=application").await, &id);
        let types: Vec<&str> = own.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert!(types.contains(&"application.cloned"), "{types:?}");
        let began =
            own.iter().find(|event| event["type"] == "application.operation_began").unwrap();
        assert_eq!(began["owner"], owner);
        assert_eq!(began["actor"], format!("user/{admin}"));
        assert_eq!(began["on_behalf_of"], owner);
        assert_eq!(began["source"], Value::Null, "where an administrator came from");
        for event in of(&world.found(&world.admin, "type=application").await, &copy) {
            assert_eq!(event["owner"], admin, "{event}");
        }
        let trace = format!("/api/audit/trace/{}", request_of(&answer));
        let told = world.get(&world.owner, &trace).await;
        assert_eq!(told.status, 200, "{}", told.text);
        assert!(!told.text.contains("web-02"), "{}", told.text);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_the_backups_of_a_gone_application_is_found_with_it() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let backup = world.backed_up(&world.owner, &id).await;
        let app = format!("/api/apps/{id}");
        let ask = async |method: Method, path: &str| {
            world.server.as_person(&world.owner, method, path, None).await
        };
        assert_eq!(ask(Method::DELETE, &app).await.status, 202);
        world.until(&app, |app| app.status == 404).await;
        let gone = ask(Method::DELETE, &format!("{app}/backups/{backup}")).await;
        assert_eq!(gone.status, 202, "{}", gone.text);
        world.until("/api/operations?state=done&per_page=100", |all| all.body["total"] == 4).await;
        let history = world.get(&world.owner, &format!("{app}/history")).await.body;
        let has = |events: &Value| events.to_string().contains("backup.deleted");
        assert!(has(&history["events"]), "{history}");
        assert!(has(&Value::Array(world.found(&world.owner, &format!("app={id}")).await)));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_secret_says_who_used_it_and_is_found_with_its_application() {
    let world = World::start(Kind::Sqlite).await;
    let body = json!({ "catalog_id": "grafana", "hostname": "graphs", "node": "pve1" });
    let answer = world.post(&world.owner, "/api/apps", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = answer.body["id"].as_str().unwrap().to_owned();
    world.until(&format!("/api/apps/{id}"), |app| app.body["status"] == "running").await;
    let tested = world.post(&world.admin, "/api/proxmox/hosts/1/test", &json!({})).await;
    assert_eq!(tested.status, 200, "{}", tested.text);
    let uses = world.server.app.commands.secrets.uses();
    uses.flush(&world.server.app.store, i64::MAX).await.unwrap();

    let admin = format!("user/{}", world.own_id(&world.admin).await);
    let of_host = world.found(&world.admin, &format!("actor={admin}&type=secret_use")).await;
    assert_eq!(of_host[0]["payload"]["counted"]["actors"], json!([admin]), "{of_host:?}");
    assert_eq!(of_host[0]["request"], request_of(&tested));
    assert!(of_host[0]["credential"].as_str().unwrap().starts_with("session/"));
    let of_app = world.found(&world.owner, &format!("app={id}&type=secret_use")).await;
    assert_eq!(of_app[0]["payload"]["counted"]["record"], id, "{of_app:?}");
    let history = world.get(&world.owner, &format!("/api/apps/{id}/history")).await;
    assert!(history.text.contains("secret_use.counted"), "{}", history.text);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_tells_what_was_asked_of_proxmox_to_take_a_step_back() {
    let world = World::start(Kind::Sqlite).await;
    let refused = Fault::Status { status: 403, reason: None, after_effect: false };
    world.simulator.faults().add(FaultRule::forever("container.start", refused)).unwrap();
    let body = json!({ "catalog_id": "alpine", "hostname": "bad" });
    let answer = world.post(&world.owner, "/api/apps/", &body).await;
    world.until(answer.header("location"), |operation| operation.body["state"] == "undone").await;
    let trace = format!("/api/audit/trace/{}", request_of(&answer));
    let trace = world.get(&world.owner, &trace).await.body;
    let steps = trace["commands"][0]["operations"][0]["steps"].as_array().unwrap().clone();
    let undone = steps
        .iter()
        .find(|step| step["step"] == "create_container" && step["direction"] == "undo")
        .unwrap();
    let calls = undone["calls"].to_string();
    assert!(calls.contains("DELETE /nodes/"), "{undone}");
    world.stop().await;
}
