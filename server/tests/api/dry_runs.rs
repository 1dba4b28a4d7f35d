//! Whoever asks for a dry run, in whatever spelling, gets one or a refusal, and never the effect.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::on_both;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_asks_for_a_dry_run_in_any_spelling_has_no_effect() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let backup = world.backed_up(&world.owner, &id).await;
        let (app, restore) =
            (format!("/api/apps/{id}"), format!("/api/apps/{id}/backups/{backup}/restore"));
        let new = json!({ "catalog_id": "nginx", "hostname": "web-02" });
        let calls = [
            (Method::POST, "/api/apps/".to_owned(), new),
            (Method::DELETE, app.clone(), Value::Null),
            (Method::POST, format!("{app}/action"), json!({ "action": "stop" })),
            (Method::POST, format!("{app}/clone"), json!({ "new_hostname": "web-03" })),
            (Method::POST, restore, json!({})),
        ];
        let done = world.done().await;
        for (method, path, body) in &calls {
            let call = async |query: &str| {
                let path = format!("{path}?{query}");
                world.with_headers(&world.owner, method.clone(), &path, &[], body).await
            };
            for query in ["dry_run=true", "dry%5Frun=true", "%64ry_run=%74rue"] {
                let answer = call(query).await;
                assert_eq!(answer.status, 200, "{method} {path} {query}: {}", answer.text);
                assert_eq!(answer.body["dry_run"], true, "{}", answer.text);
            }
            for query in [
                "dry_run",
                "dry_run=",
                "dry_run=1",
                "dry_run=yes",
                "dry_run=True",
                "dry_run=false&dry_run=true",
                "dry_run=true&dry%5Frun=true",
            ] {
                let answer = call(query).await;
                answer.problem(422, "value.invalid");
                assert_eq!(answer.body["errors"][0]["pointer"], "?dry_run", "{}", answer.text);
            }
            for query in ["plan=zz", "pl%61n=zz"] {
                call(query).await.problem(412, "plan.changed");
            }
            call("plan=zz&plan=zz").await.problem(422, "value.invalid");
        }
        let user = json!({ "username": "eve" });
        let dry = world.post(&world.admin, "/api/users?dry%5Frun=true", &user).await;
        dry.problem(422, "dry_run.unsupported");
        assert_eq!(world.done().await, done, "something was appended");
        // The same without a wish for a dry run is carried out.
        let made = world.post(&world.owner, "/api/apps/?dry_run=false", &calls[0].2).await;
        assert_eq!(made.status, 202, "{}", made.text);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_under_a_key_says_what_the_call_under_it_would() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        world.deployed(&world.owner, "web-01").await;
        let call = async |path: &str, key: &str, hostname: &str| {
            let body = json!({ "catalog_id": "nginx", "hostname": hostname });
            let headers = [("idempotency-key", key)];
            world.with_headers(&world.owner, Method::POST, path, &headers, &body).await
        };
        let (real, dry) = ("/api/apps/", "/api/apps/?dry_run=true");
        // A refusal leaves the key free, for a dry run as for the call.
        call(real, "k", "web-01").await.problem(409, "hostname.taken");
        call(real, "k", "-").await.problem(422, "hostname.invalid");
        let plan = call(dry, "k", "web-02").await;
        assert_eq!((plan.status.as_u16(), &plan.body["operation"]), (200, &json!("deploy")));
        call(dry, "k", "web-01").await.problem(409, "hostname.taken");
        let made = call(real, "k", "web-02").await;
        assert_eq!(made.status, 202, "{}", made.text);
        // Sent again it would get that answer again, and with another body a refusal.
        let nothing = call(dry, "k", "web-02").await;
        assert_eq!((nothing.status.as_u16(), &nothing.body["events"]), (200, &json!([])));
        assert_eq!(nothing.body["operation"], Value::Null);
        call(dry, "k", "web-03").await.problem(422, "idempotency_key.reused");
        world.stop().await;
    })
    .await;
}
