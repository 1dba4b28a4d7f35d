//! Whose application is copied for somebody else finds that he took the copy back, and nothing else.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::on_both;
use crate::world::{Person, World};

const ACT: &str = "operation.cancel_requested";

impl World {
    /// The events of a search, page by page.
    async fn looked_up(&self, who: &Person, query: &str, limit: usize) -> Vec<Value> {
        let (mut after, mut events) = (json!(0), Vec::new());
        loop {
            let path = format!("/api/audit/events?limit={limit}&after={after}&{query}");
            let page = self.get(who, &path).await;
            assert_eq!(page.status, 200, "{}", page.text);
            events.extend(page.body["events"].as_array().unwrap().clone());
            after = page.body["next"].clone();
            if page.body["complete"] == true {
                return events;
            }
        }
    }

    async fn me(&self, who: &Person) -> String {
        self.get(who, "/api/auth/user").await.body["id"].to_string()
    }
}

fn acts(events: &[Value]) -> usize {
    events.iter().filter(|event| event["type"] == ACT).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_taken_a_copy_of_his_application_back_finds_that_and_nothing_of_the_copy() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let operation = world.copied_slowly(&world.admin, &id, "hidden-02").await;
        let note = json!({ "note": "it is mine" });
        let cancelled = world.post(&world.owner, &format!("{operation}/cancel"), &note).await;
        assert_eq!(cancelled.status, 202, "{}", cancelled.text);
        world.until(&operation, |answer| answer.body["state"] == "undone").await;
        let request = cancelled.header("x-request-id");
        let (me, path) = (world.me(&world.owner).await, format!("/api/audit/trace/{request}"));

        let trace = world.get(&world.owner, &path).await;
        assert_eq!(trace.status, 200, "{}", trace.text);
        assert_eq!(trace.body["actor"], format!("user/{me}"));
        let command = &trace.body["commands"][0];
        assert_eq!(command["command"], "operation.cancel", "{}", trace.text);
        let event = &command["events"][0];
        assert_eq!((&event["type"], &event["request"]), (&json!(ACT), &json!(request)));
        assert!(event["payload"].to_string().contains("it is mine"), "{event}");
        assert_eq!(command["events"].as_array().unwrap().len(), 1);
        assert_eq!(command["operations"], json!([]), "{}", trace.text);
        world.get(&world.other, &path).await.problem(404, "not_found");
        let all = world.get(&world.admin, &path).await;
        assert_eq!(all.body["commands"][0]["operations"][0]["state"], "undone", "{}", all.text);

        let all = world.looked_up(&world.owner, "", 1_000).await;
        let is_own = |event: &&Value| event["owner"] == me.as_str();
        assert_eq!(all.iter().filter(is_own).count() + 1, all.len());
        let places: Vec<u64> = all.iter().map(|one| one["position"].as_u64().unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        // Page by page it is the same, wherever a page ends.
        for limit in [1, 2, 7] {
            assert_eq!(world.looked_up(&world.owner, "", limit).await, all, "by {limit}");
        }
        for query in [
            format!("request={request}"),
            format!("actor=user/{me}"),
            format!("type={ACT}"),
            "type=operation".to_owned(),
            format!("owner={}", world.me(&world.admin).await),
        ] {
            let found = world.looked_up(&world.owner, &query, 100).await;
            assert_eq!(acts(&found), 1, "{query}: {found:?}");
            assert!(!json!(found).to_string().contains("hidden-02"), "{query}: {found:?}");
            assert_eq!(acts(&world.looked_up(&world.other, &query, 100).await), 0, "{query}");
        }
        for query in ["type=lease".to_owned(), format!("actor=user/{me}0")] {
            assert_eq!(acts(&world.looked_up(&world.owner, &query, 100).await), 0, "{query}");
        }
        let lines = world.get(&world.owner, "/api/audit/events?format=ndjson").await;
        assert_eq!(lines.text.matches(ACT).count(), 1, "{}", lines.text);
        assert_eq!(lines.text.lines().count(), all.len());
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_by_an_administrators_right_is_hidden_when_the_right_is_gone() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let (dora, account) = world.another_admin("dora").await;
        let id = world.deployed(&world.owner, "web-01").await;
        let operation = world.copied_slowly(&world.admin, &id, "web-02").await;
        let path = format!("{operation}/cancel");
        let cancelled = world.post(&dora, &path, &json!({ "note": "I may" })).await;
        assert_eq!(cancelled.status, 202, "{}", cancelled.text);
        world.until(&operation, |answer| answer.body["state"] == "undone").await;
        let body = json!({ "action": "stop" });
        let stopped = world.post(&dora, &format!("/api/apps/{id}/action"), &body).await;
        assert_eq!(stopped.status, 202, "{}", stopped.text);
        let tested = world.post(&dora, "/api/proxmox/hosts/1/test", &json!({})).await;
        assert_eq!(tested.status, 200, "{}", tested.text);
        let me = world.me(&dora).await;
        assert!(world.looked_up(&dora, &format!("actor=user/{me}"), 100).await.len() > 3);

        world.demoted(&account).await;
        for done in [&cancelled, &stopped, &tested] {
            let path = format!("/api/audit/trace/{}", done.header("x-request-id"));
            world.get(&dora, &path).await.problem(404, "not_found");
            let query = format!("request={}", done.header("x-request-id"));
            assert_eq!(world.looked_up(&dora, &query, 100).await, Vec::<Value>::new());
        }
        for event in world.looked_up(&dora, "", 100).await {
            assert_eq!(event["owner"], me.as_str(), "{event}");
        }
        let bearer = format!("Bearer {}", dora.token);
        let headers = [("authorization", bearer.as_str())];
        let path = "/api/audit/events?format=csv";
        let lines = world.server.call(Method::GET, path, &headers, None).await;
        assert!(!lines.text.contains(ACT), "{}", lines.text);
        world.stop().await;
    })
    .await;
}
