//! `Idempotency-Key` on whatever changes something: one effect, and the first answer again.

use futures_util::future::join_all;
use proximity_server::demo::generated_password;
use proximity_simulator::{Fault, FaultRule, Times, When};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Kind, on_both};
use crate::world::{Person, World};

impl World {
    async fn keyed(
        &self,
        who: &Person,
        method: Method,
        path: &str,
        key: &str,
        body: &Value,
    ) -> Answer {
        self.with_headers(who, method, path, &[("idempotency-key", key)], body).await
    }
}

fn same(first: &Answer, again: &Answer) {
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    assert_eq!(first.header("location"), again.header("location"));
    assert_eq!(first.header("content-type"), again.header("content-type"));
}

async fn users(world: &World) -> u64 {
    world.get(&world.admin, "/api/users").await.body["total"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_sent_again_has_no_second_effect_and_the_first_answer() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let before = users(&world).await;
        let body = json!({ "username": "eve", "password": generated_password() });
        let post = async |who: &Person, key: &str, body: &Value| {
            world.keyed(who, Method::POST, "/api/users", key, body).await
        };
        let first = post(&world.admin, "k1", &body).await;
        assert_eq!(first.status, 201, "{}", first.text);
        same(&first, &post(&world.admin, "k1", &body).await);
        assert!(!first.header("proximity-position").is_empty());
        let other = json!({ "username": "mallory", "password": generated_password() });
        post(&world.admin, "k1", &other).await.problem(422, "idempotency_key.reused");
        // Whoever may not make users learns nothing from a key that someone else used.
        post(&world.owner, "k1", &body).await.problem(403, "admin.required");
        // A refusal is not kept: the key is still free for what is right.
        post(&world.admin, "k2", &body).await.problem(409, "user.username_taken");
        post(&world.admin, "k2", &body).await.problem(409, "user.username_taken");
        let second = post(&world.admin, "k2", &other).await;
        assert_eq!(second.status, 201, "{}", second.text);
        same(&second, &post(&world.admin, "k2", &other).await);
        post(&world.admin, "k2", &body).await.problem(422, "idempotency_key.reused");
        assert_eq!(users(&world).await, before + 2);

        // An old answer does not bring an old state back.
        let path = "/api/core/settings/resources";
        let change = |cores: u32| {
            json!({ "default_cpu_cores": cores, "default_memory_mb": 1024,
                    "default_disk_gb": 10, "default_swap_mb": 0 })
        };
        let four = world.keyed(&world.admin, Method::POST, path, "s1", &change(4)).await;
        assert_eq!(four.status, 200, "{}", four.text);
        world.keyed(&world.admin, Method::POST, path, "s2", &change(6)).await;
        same(&four, &world.keyed(&world.admin, Method::POST, path, "s1", &change(4)).await);
        assert_eq!(world.get(&world.admin, path).await.body["default_cpu_cores"], 6);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_at_once_under_one_key_are_one() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let before = users(&world).await;
        let body = json!({ "username": "eve", "password": generated_password() });
        let calls =
            (0..16).map(|_| world.keyed(&world.admin, Method::POST, "/api/users", "burst", &body));
        let answers = join_all(calls).await;
        for answer in &answers {
            assert_eq!(answer.status, 201, "{}", answer.text);
            same(&answers[0], answer);
        }
        assert_eq!(users(&world).await, before + 1);
        let body = json!({ "catalog_id": "nginx", "hostname": "burst-01" });
        let calls =
            (0..16).map(|_| world.keyed(&world.owner, Method::POST, "/api/apps", "burst", &body));
        let answers = join_all(calls).await;
        for answer in &answers {
            assert_eq!(answer.status, 202, "{}", answer.text);
            assert_eq!(answer.body["id"], answers[0].body["id"]);
        }
        assert_eq!(world.get(&world.owner, "/api/apps").await.body["total"], 1);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_beside_a_slow_first_request_is_told_that_nothing_is_known_yet() {
    let world = World::start(Kind::Sqlite).await;
    let slow = FaultRule {
        when: When { path: Some("^/version".to_owned()), ..When::default() },
        times: Times::Once,
        fault: Fault::Slow { ms: 8_000 },
    };
    world.simulator.faults().add(slow).unwrap();
    let path = "/api/proxmox/hosts/1/test";
    let call = async || world.keyed(&world.admin, Method::POST, path, "k", &Value::Null).await;
    let (one, other) = tokio::join!(call(), call());
    let (first, second) = if one.status == 200 { (one, other) } else { (other, one) };
    assert_eq!(first.status, 200, "{}", first.text);
    second.problem(409, "idempotency_key.in_progress");
    same(&first, &call().await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_showed_a_secret_is_not_given_twice() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let all = world.get(&world.admin, "/api/users").await.body;
        let bob = all["users"].as_array().unwrap().iter().find(|user| user["username"] == "bob");
        let path = format!("/api/users/{}/reset-password", bob.unwrap()["id"]);
        let first = world.keyed(&world.admin, Method::POST, &path, "r", &Value::Null).await;
        assert_eq!(first.status, 200, "{}", first.text);
        let again = world.keyed(&world.admin, Method::POST, &path, "r", &Value::Null).await;
        again.problem(409, "idempotency_key.answer_gone");
        world.server.sign_in("bob", first.body["password"].as_str().unwrap()).await;
        let filter = vec![];
        let table = &proximity_eventstore::tables::KEPT_ANSWERS;
        let rows = world.server.app.store.rows(table, filter, 10).await.unwrap();
        let shown = first.body["password"].as_str().unwrap();
        let leaks = rows.iter().flatten().any(|(_, value)| match value {
            proximity_eventstore::Value::Bytes(bytes) => {
                String::from_utf8_lossy(bytes).contains(shown)
            }
            proximity_eventstore::Value::Text(text) => text.contains(shown),
            _ => false,
        });
        assert!(rows.len() == 1 && !leaks, "{} rows", rows.len());
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_answers_the_same_when_the_thing_is_gone_and_only_to_whom_it_was_answered() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let path = format!("/api/apps/{id}");
        let delete =
            async |who: &Person| world.keyed(who, Method::DELETE, &path, "d", &Value::Null).await;
        delete(&world.other).await.problem(404, "not_found");
        let first = delete(&world.owner).await;
        assert_eq!(first.status, 202, "{}", first.text);
        same(&first, &delete(&world.owner).await);
        world.until(&path, |answer| answer.status == 404).await;
        same(&first, &delete(&world.owner).await);
        delete(&world.other).await.problem(404, "not_found");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_administrator_has_done_once_is_written_down_once() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let head = world.server.app.store.head().await.unwrap();
        let paths = [
            "/api/proxmox/hosts/1/test",
            "/api/proxmox/hosts/1/sync-nodes",
            "/api/proxmox/hosts/1/reconcile",
            "/api/catalog/reload",
        ];
        for path in paths {
            let calls =
                (0..8).map(|_| world.keyed(&world.admin, Method::POST, path, "k", &Value::Null));
            let answers = join_all(calls).await;
            for answer in &answers {
                assert!(answer.status.is_success(), "{path}: {}", answer.text);
                same(&answers[0], answer);
            }
            same(
                &answers[0],
                &world.keyed(&world.admin, Method::POST, path, "k", &Value::Null).await,
            );
        }
        let noted = world.server.app.store.feed(head, 10_000).await.unwrap();
        let noted = noted.iter().filter(|event| event.event_type == "admin_action.performed");
        let noted: Vec<&str> = noted.map(|event| &*event.payload).collect();
        for path in paths {
            let times = noted.iter().filter(|payload| payload.contains(path)).count();
            assert!(times <= 1, "{path} {times} times in {noted:?}");
        }
        assert!(noted.iter().any(|payload| payload.contains("/test")), "{noted:?}");
        // Another key, or none, is another deed.
        let before = noted.len();
        for key in ["k2", "k3"] {
            world.keyed(&world.admin, Method::POST, paths[0], key, &Value::Null).await;
        }
        world.post(&world.admin, paths[0], &Value::Null).await;
        let later = world.server.app.store.feed(head, 10_000).await.unwrap();
        let later = later.iter().filter(|event| event.event_type == "admin_action.performed");
        assert_eq!(later.count(), before + 3);
        world.stop().await;
    })
    .await;
}
