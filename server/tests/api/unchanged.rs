//! Calls that were accepted and changed nothing, and calls that were answered again: each is found.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Kind, on_both};
use crate::world::{Person, World};

const ME: &str = "/api/auth/user";

impl World {
    async fn patched(&self, who: &Person, headers: &[(&str, &str)], body: &Value) -> Answer {
        let answer = self.with_headers(who, Method::PATCH, ME, headers, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer
    }

    async fn traced(&self, who: &Person, of: &Answer) -> Value {
        let path = format!("/api/audit/trace/{}", of.header("x-request-id"));
        let trace = self.get(who, &path).await;
        assert_eq!(trace.status, 200, "{}", trace.text);
        trace.body
    }

    async fn noted(&self) {
        self.server.app.refusals.flush_all().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_changed_nothing_is_found_by_its_request() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let body = json!({ "first_name": "Ada" });
        let changed = world.patched(&world.owner, &[], &body).await;
        let again = world.patched(&world.owner, &[], &body).await;
        world.noted().await;
        let trace = world.traced(&world.owner, &changed).await;
        assert_eq!(trace["commands"][0]["events"].as_array().unwrap().len(), 1, "{trace}");
        assert_eq!(trace["commands"][0]["events"][0]["type"], "user.profile_changed", "{trace}");
        let trace = world.traced(&world.owner, &again).await;
        let event = &trace["commands"][0]["events"][0];
        assert_eq!(event["type"], "call.changed_nothing", "{trace}");
        assert_eq!(event["command"], "Patch /api/auth/user");
        assert!(event["credential"].as_str().unwrap().starts_with("session/"), "{trace}");
        assert_eq!(event["owner"], trace["actor"].as_str().unwrap().trim_start_matches("user/"));
        // Others know nothing of it, and whoever only looks leaves nothing.
        let path = format!("/api/audit/trace/{}", again.header("x-request-id"));
        world.get(&world.other, &path).await.problem(404, "not_found");
        world.noted().await;
        let head = world.server.app.store.head().await.unwrap();
        let token = json!({ "token": world.owner.token });
        let looked = world.post(&world.owner, "/api/auth/token/verify", &token).await;
        assert_eq!(looked.status, 200);
        world.noted().await;
        assert_eq!(world.server.app.store.head().await.unwrap(), head);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_answered_again_leads_to_the_first() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let body = json!({ "first_name": "Ada" });
        // The first one changes something; under another key there is nothing left to change.
        for (key, found) in [("k1", "user.profile_changed"), ("k2", "call.changed_nothing")] {
            let headers = [("idempotency-key", key)];
            let first = world.patched(&world.owner, &headers, &body).await;
            let again = world.patched(&world.owner, &headers, &body).await;
            assert_eq!(first.text, again.text);
            world.noted().await;
            let trace = world.traced(&world.owner, &again).await;
            assert_eq!(trace["repeats"], json!([first.header("x-request-id")]), "{trace}");
            let commands = trace["commands"].as_array().unwrap();
            assert_eq!(commands.len(), 2, "{trace}");
            assert_eq!(commands[0]["events"][0]["type"], "call.repeated", "{trace}");
            assert_eq!(commands[1]["events"][0]["type"], found, "{trace}");
            let trace = world.traced(&world.owner, &first).await;
            assert_eq!(trace["repeats"], json!([]), "{trace}");
            assert_eq!(trace["commands"][0]["events"][0]["type"], found, "{trace}");
        }
        world.stop().await;
    })
    .await;
}

/// How many calls that changed nothing are told after a position, and in how many events.
async fn told(world: &World, after: u64) -> (u64, usize) {
    world.noted().await;
    let (mut times, mut events) = (0, 0);
    for event in world.server.app.store.feed(after, 10_000).await.unwrap() {
        let told: Value = serde_json::from_str(&event.payload).unwrap();
        times += told["changed_nothing"]["times"].as_u64().unwrap_or_default();
        events += usize::from(event.event_type == "call.changed_nothing");
    }
    (times, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_that_change_nothing_are_a_few_events() {
    let world = World::start(Kind::Sqlite).await;
    let body = json!({ "first_name": "Ada" });
    world.patched(&world.owner, &[], &body).await;
    let before = world.server.app.store.head().await.unwrap();
    for _ in 0..1_000 {
        world.patched(&world.owner, &[], &body).await;
    }
    let (times, events) = told(&world, before).await;
    assert_eq!(times, 1_000);
    assert!(events <= 6 * 5, "{events} events");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_are_as_many_under_keys_and_each_repeat_knows_its_first() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let body = json!({ "first_name": "Ada" });
        world.patched(&world.owner, &[], &body).await;
        let before = world.server.app.store.head().await.unwrap();
        let mut first = Vec::new();
        for number in 0..300 {
            let key = format!("k{number}");
            let headers = [("idempotency-key", key.as_str())];
            first.push(world.patched(&world.owner, &headers, &body).await);
        }
        let (times, events) = told(&world, before).await;
        assert_eq!(times, 300);
        assert!(events <= 6 * 5, "{events} events");
        for number in [0, 100, 299] {
            let key = format!("k{number}");
            let headers = [("idempotency-key", key.as_str())];
            let again = world.patched(&world.owner, &headers, &body).await;
            assert_eq!(again.text, first[number].text);
            world.noted().await;
            let trace = world.traced(&world.owner, &again).await;
            let wanted = json!([first[number].header("x-request-id")]);
            assert_eq!(trace["repeats"], wanted, "{number}: {trace}");
            // The key is as good as any other: nothing else can be done under it.
            let other = json!({ "first_name": "Eve" });
            let reused =
                world.with_headers(&world.owner, Method::PATCH, ME, &headers, &other).await;
            reused.problem(422, "idempotency_key.reused");
        }
        assert_eq!(told(&world, before).await.0, 300, "a repeat counts as none");
        world.stop().await;
    })
    .await;
}
