//! Schedules of backups over HTTP: made, seen, changed and deleted, by their owners and by nobody else.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, on_both};
use crate::world::{Person, World};

const ALL: &str = "/api/backup-schedules";

impl World {
    pub async fn put_as(&self, who: &Person, path: &str, body: &Value) -> Answer {
        self.with_headers(who, Method::PUT, path, &[], body).await
    }

    pub async fn delete_as(&self, who: &Person, path: &str) -> Answer {
        self.with_headers(who, Method::DELETE, path, &[], &Value::Null).await
    }
}

/// A refusal but for its request's id.
fn bare(answer: &Answer) -> (u16, Value) {
    let mut body = answer.body.clone();
    body["request_id"] = Value::Null;
    (answer.status.as_u16(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_made_seen_changed_and_deleted() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let body = json!({
            "application_id": app, "cron": "0  2 * * *", "timezone": "Europe/Berlin",
            "backup_type": "stop", "compression": "gzip",
            "keep_last": 1, "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 12,
        });
        let made = world.post(&world.owner, ALL, &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let one = format!("{ALL}/{}", made.body["id"]);
        assert_eq!(made.header("location"), one);
        assert!(!made.header("proximity-position").is_empty());
        for (field, wanted) in [
            ("application_id", json!(app)),
            ("cron", json!("0 2 * * *")),
            ("timezone", json!("Europe/Berlin")),
            ("backup_type", json!("stop")),
            ("compression", json!("gzip")),
            ("keep_monthly", json!(12)),
            ("enabled", json!(true)),
            ("last_run", Value::Null),
            ("last_result", Value::Null),
            ("is_running", json!(false)),
        ] {
            assert_eq!(made.body[field], wanted, "{field} in {}", made.text);
        }
        let next = made.body["next_run"].as_str().unwrap();
        assert!(next.ends_with("T01:00:00Z") || next.ends_with("T00:00:00Z"), "{next}");
        let seen = world.get(&world.owner, &one).await;
        assert_eq!(seen.body, made.body);

        let off =
            world.put_as(&world.owner, &one, &json!({ "enabled": false, "keep_last": 5 })).await;
        assert_eq!(off.status, 200, "{}", off.text);
        assert_eq!(
            (&off.body["enabled"], &off.body["next_run"], &off.body["keep_last"]),
            (&json!(false), &Value::Null, &json!(5))
        );
        assert_eq!(off.body["keep_daily"], 7, "what is left out stays");
        // As a client does that sends back what it has read.
        let mut back = off.body.clone();
        back["enabled"] = json!(true);
        let on = world.put_as(&world.owner, &one, &back).await;
        assert_eq!((on.status.as_u16(), &on.body["next_run"]), (200, &made.body["next_run"]));
        let other = json!({ "application_id": "nginx-00000000" });
        world
            .put_as(&world.owner, &one, &other)
            .await
            .problem(422, "backup_schedule.application_fixed");

        let listed = world.get(&world.owner, ALL).await.body;
        assert_eq!((&listed["total"], &listed["schedules"][0]), (&json!(1), &on.body));
        assert_eq!(world.get(&world.admin, ALL).await.body["total"], 1);
        assert_eq!(world.get(&world.other, ALL).await.body["total"], 0);
        assert_eq!(world.delete_as(&world.owner, &one).await.status, 204);
        world.get(&world.owner, &one).await.problem(404, "not_found");
        world.delete_as(&world.owner, &one).await.problem(404, "not_found");
        assert_eq!(world.get(&world.owner, ALL).await.body["total"], 0);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_of_a_schedule_is_named() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.other, "web-01").await;
        let body = json!({
            "application_id": app, "cron": "0 2 30 2 *", "timezone": "Mars/Olympus",
            "backup_type": "full", "compression": "rar",
            "keep_last": -1, "keep_daily": 1001, "keep_weekly": -1, "keep_monthly": 5000,
        });
        let refused = world.post(&world.owner, ALL, &body).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        let told: Vec<_> = refused.body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| (error["pointer"].as_str().unwrap(), error["code"].as_str().unwrap()))
            .collect();
        let expected = [
            ("/cron", "backup_schedule.cron_invalid"),
            ("/timezone", "backup_schedule.timezone_invalid"),
            ("/backup_type", "backup.type_invalid"),
            ("/compression", "backup.compression_invalid"),
            ("/keep_last", "backup_schedule.keep_invalid"),
            ("/keep_daily", "backup_schedule.keep_invalid"),
            ("/keep_weekly", "backup_schedule.keep_invalid"),
            ("/keep_monthly", "backup_schedule.keep_invalid"),
            ("/application_id", "backup_schedule.application_unknown"),
        ];
        assert_eq!(told, expected);
        for cron in ["", "@daily", "* * * *", "61 * * * *", "0 2 * * * *", "0 2 * * MONDAY-"] {
            let refused = world.post(&world.owner, ALL, &json!({ "cron": cron })).await;
            refused.problem(422, "backup_schedule.cron_invalid");
        }
        world
            .post(&world.owner, ALL, &json!({}))
            .await
            .problem(422, "backup_schedule.cron_invalid");
        let number = json!({ "cron": "0 2 * * *", "keep_last": "three" });
        world.post(&world.owner, ALL, &number).await.problem(422, "value.invalid");
        assert_eq!(world.get(&world.admin, ALL).await.body["total"], 0);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_06_a_foreign_schedule_or_application_answers_as_one_that_never_was() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let body = json!({ "cron": "0 2 * * *", "application_id": app });
        let made = world.post(&world.owner, ALL, &body).await;
        let one = format!("{ALL}/{}", made.body["id"]);
        let head = world.server.app.store.head().await.unwrap();
        for never in ["4711", "0", "-1", "1e3", "01", "x", "9223372036854775808"] {
            let never = format!("{ALL}/{never}");
            let both = [
                (world.get(&world.other, &one).await, world.get(&world.other, &never).await),
                (
                    world.delete_as(&world.other, &one).await,
                    world.delete_as(&world.other, &never).await,
                ),
                (
                    world.put_as(&world.other, &one, &json!({ "enabled": false })).await,
                    world.put_as(&world.other, &never, &json!({ "enabled": false })).await,
                ),
            ];
            for (foreign, never) in both {
                foreign.problem(404, "not_found");
                assert_eq!(bare(&foreign), bare(&never));
            }
        }
        let foreign = world.post(&world.other, ALL, &body).await;
        let never = json!({ "cron": "0 2 * * *", "application_id": "nginx-00000000" });
        let never = world.post(&world.other, ALL, &never).await;
        foreign.problem(422, "backup_schedule.application_unknown");
        assert_eq!(bare(&foreign), bare(&never));
        let after = world.server.app.store.feed(head, 1_000).await.unwrap();
        assert!(after.iter().all(|event| event.aggregate_type != "backup_schedule"), "{after:?}");

        // An administrator acts on the owner's behalf: the schedule is the application's owner's.
        let made = world.post(&world.admin, ALL, &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert_eq!(world.get(&world.owner, ALL).await.body["total"], 2);
        let path = format!("{ALL}/{}", made.body["id"]);
        assert_eq!(world.put_as(&world.admin, &path, &json!({ "keep_last": 2 })).await.status, 200);
        let audit = world.get(&world.owner, "/api/audit/events?type=backup_schedule.changed").await;
        let event = &audit.body["events"][0];
        assert_eq!((&event["actor"], &event["on_behalf_of"]), (&json!("user/1"), &json!("2")));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_tried_without_effect_and_made_once_under_a_key() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let body = json!({ "cron": "0 2 * * *" });
        let done = world.done().await;
        let dry = world.post(&world.owner, &format!("{ALL}?dry_run=true"), &body).await;
        assert_eq!(dry.status, 200, "{}", dry.text);
        assert_eq!(dry.body["events"][0]["event_type"], "backup_schedule.created");
        assert_eq!(dry.body["operation"], Value::Null);
        assert_eq!(world.done().await, done, "something was appended");

        let key = [("idempotency-key", "k1")];
        let make = async || world.with_headers(&world.owner, Method::POST, ALL, &key, &body).await;
        let (first, again) = (make().await, make().await);
        assert_eq!(first.status, 201, "{}", first.text);
        assert_eq!((again.status, &again.text), (first.status, &first.text));
        assert_eq!(world.get(&world.owner, ALL).await.body["total"], 1);

        let one = format!("{ALL}/{}", first.body["id"]);
        let dry = format!("{one}?dry_run=true");
        let done = world.done().await;
        let changed = world.put_as(&world.owner, &dry, &json!({ "enabled": false })).await;
        assert_eq!(changed.body["events"][0]["event_type"], "backup_schedule.changed");
        let nothing = world.put_as(&world.owner, &dry, &json!({ "enabled": true })).await;
        assert_eq!(nothing.body["events"], json!([]), "{}", nothing.text);
        world
            .put_as(&world.owner, &dry, &json!({ "cron": "x" }))
            .await
            .problem(422, "backup_schedule.cron_invalid");
        world
            .put_as(&world.other, &dry, &json!({ "enabled": false }))
            .await
            .problem(404, "not_found");
        let gone = world.delete_as(&world.owner, &dry).await;
        assert_eq!(gone.body["events"][0]["event_type"], "backup_schedule.deleted");
        assert_eq!(world.done().await, done, "something was appended");
        assert_eq!(world.get(&world.owner, &one).await.status, 200);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_state_that_was_not_read_is_refused() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let made = world.post(&world.owner, ALL, &json!({ "cron": "0 2 * * *" })).await;
        let one = format!("{ALL}/{}", made.body["id"]);
        let tag = world.get(&world.owner, &one).await.header("etag").to_owned();
        assert!(!tag.is_empty());
        let call = async |method, header: &str, tag: &str| {
            let headers = [(header, tag)];
            world.with_headers(&world.owner, method, &one, &headers, &Value::Null).await
        };
        assert_eq!(call(Method::GET, "if-none-match", &tag).await.status, 304);
        let put = async |tag: &str, keep: u32| {
            let body = json!({ "keep_last": keep });
            world.with_headers(&world.owner, Method::PUT, &one, &[("if-match", tag)], &body).await
        };
        assert_eq!(put(&tag, 3).await.status, 200);
        put(&tag, 4).await.problem(412, "precondition.failed");
        call(Method::DELETE, "if-match", &tag).await.problem(412, "precondition.failed");
        let now = world.get(&world.owner, &one).await;
        assert_eq!(now.body["keep_last"], 3);
        let now = now.header("etag").to_owned();
        assert_eq!(call(Method::DELETE, "if-match", &now).await.status, 204);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_a_limited_number_of_schedules() {
    let world = World::start(crate::harness::Kind::Sqlite).await;
    let body = json!({ "cron": "0 2 * * *" });
    for _ in 0..90 {
        assert_eq!(world.post(&world.owner, ALL, &body).await.status, 201);
    }
    // Also when the last of them are made at once.
    let made = (0..40).map(|_| world.post(&world.owner, ALL, &body));
    let made = futures_util::future::join_all(made).await;
    assert_eq!(made.iter().filter(|answer| answer.status == 201).count(), 10);
    world.post(&world.owner, ALL, &body).await.problem(409, "backup_schedule.too_many");
    assert_eq!(world.post(&world.other, ALL, &body).await.status, 201);
    let page = world.get(&world.owner, &format!("{ALL}?page=2&per_page=30")).await.body;
    assert_eq!((&page["total"], page["schedules"].as_array().unwrap().len()), (&json!(100), 30));
    assert_eq!(page["schedules"][0]["id"], 31);
    world
        .get(&world.owner, &format!("{ALL}?per_page=101"))
        .await
        .problem(422, "query.out_of_range");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_as_are_made_at_once_get_a_number_each() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let body = json!({ "cron": "0 2 * * *", "enabled": false });
        let made = (0..50).flat_map(|_| [&world.owner, &world.other]);
        let made = made.map(|who| world.post(who, ALL, &body));
        let made = futures_util::future::join_all(made).await;
        for answer in &made {
            assert_eq!(answer.status, 201, "{}", answer.text);
        }
        let numbers: std::collections::BTreeSet<i64> =
            made.iter().map(|answer| answer.body["id"].as_i64().unwrap()).collect();
        println!("figure: {kind:?}: 100 schedules made at once: {} numbers", numbers.len());
        assert_eq!(numbers, (1..=100).collect());
        world.stop().await;
    })
    .await;
}
