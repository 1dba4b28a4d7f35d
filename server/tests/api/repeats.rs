//! Repeats under an idempotency key, of those who have lost a right and of those who come together.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use proximity_server::demo::generated_password;
use proximity_simulator::{Fault, FaultRule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, on_both};
use crate::world::{Person, World};

impl World {
    /// A second administrator, and the path of the account.
    pub async fn another_admin(&self, name: &str) -> (Person, String) {
        let password = generated_password();
        let body = json!({ "username": name, "password": password, "is_staff": true });
        let made = self.post(&self.admin, "/api/users", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let who = self.server.sign_in(name, &password).await;
        (who, format!("/api/users/{}", made.body["id"]))
    }

    pub async fn demoted(&self, account: &str) {
        let body = json!({ "is_staff": false });
        let done = self.server.as_person(&self.admin, Method::PATCH, account, Some(&body)).await;
        assert_eq!(done.status, 200, "{}", done.text);
    }

    /// Copies somebody's application for an administrator, slowly; the operation's path.
    pub async fn copied_slowly(&self, admin: &Person, source: &str, hostname: &str) -> String {
        let rule = FaultRule::count("container.clone", 1, Fault::Slow { ms: 3_000 });
        self.simulator.faults().add(rule).unwrap();
        let body = json!({ "new_hostname": hostname, "allow_downtime": true });
        let made = self.post(admin, &format!("/api/apps/{source}/clone"), &body).await;
        assert_eq!(made.status, 202, "{}", made.text);
        made.header("location").to_owned()
    }

    async fn under(&self, who: &Person, method: Method, path: &str, body: &Value) -> Answer {
        self.with_headers(who, method, path, &[("idempotency-key", "k")], body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_administrator_any_more_is_not_told_again_of_the_schedules_of_others() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let nightly = json!({ "cron": "0 2 * * *", "application_id": id });
        let made = world.post(&world.owner, "/api/backup-schedules", &nightly).await;
        let schedule = format!("/api/backup-schedules/{}", made.body["id"]);
        let (dora, account) = world.another_admin("dora").await;
        let later = json!({ "cron": "0 3 * * *" });
        let calls = [
            (Method::PUT, schedule.as_str(), &later, 200, 404, "not_found"),
            (
                Method::POST,
                "/api/backup-schedules",
                &nightly,
                201,
                422,
                "backup_schedule.application_unknown",
            ),
        ];
        for (method, path, body, first, _, _) in &calls {
            for _ in 0..2 {
                let answer = world.under(&dora, method.clone(), path, body).await;
                assert_eq!(answer.status, *first, "{}", answer.text);
                assert_eq!(answer.body["application_id"], id.as_str());
            }
        }
        world.demoted(&account).await;
        for (method, path, body, _, status, code) in &calls {
            let again = world.under(&dora, method.clone(), path, body).await;
            again.problem(*status, code);
            assert!(!again.text.contains(&id), "{}", again.text);
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_was_told_in_full_is_told_again_by_the_rights_of_now() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let (dora, account) = world.another_admin("dora").await;
        let id = world.deployed(&dora, "web-01").await;
        let operation = world.copied_slowly(&world.admin, &id, "hidden-02").await;
        let path = format!("{operation}/cancel");
        let first = world.under(&dora, Method::POST, &path, &json!({})).await;
        assert_eq!((first.status.as_u16(), &first.body["hostname"]), (202, &json!("hidden-02")));
        let again = world.under(&dora, Method::POST, &path, &json!({})).await;
        assert_eq!((again.status, &again.text), (first.status, &first.text));
        world.demoted(&account).await;
        let again = world.under(&dora, Method::POST, &path, &json!({})).await;
        assert_eq!((again.status.as_u16(), &again.body["id"]), (202, &first.body["id"]));
        for hidden in ["vmid", "node", "host_id", "hostname"] {
            assert!(again.body[hidden].is_null(), "{hidden}: {}", again.text);
        }
        let operation = operation.as_str();
        world.until(operation, |answer| answer.body["state"] == "undone").await;
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_looked_at_again_under_a_key_too() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let path = "/api/auth/token/verify";
        let token = json!({ "token": world.other.token });
        let look = async || world.under(&world.owner, Method::POST, path, &token).await;
        assert_eq!(look().await.status, 200);
        world.post(&world.other, "/api/auth/logout", &Value::Null).await;
        look().await.problem(401, "identity.required");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_calls_that_come_together_each_leads_to_the_one_that_had_the_effect() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let schedule = json!({ "cron": "0 2 * * *" });
        let deploy = json!({ "catalog_id": "nginx", "hostname": "web-01" });
        let name = json!({ "first_name": "Ada" });
        for (method, path, body) in [
            (Method::POST, "/api/backup-schedules", &schedule),
            (Method::POST, "/api/apps", &deploy),
            (Method::PATCH, "/api/auth/user", &name),
        ] {
            let calls = (0..12).map(|_| world.under(&world.owner, method.clone(), path, body));
            let answers = join_all(calls).await;
            world.server.app.refusals.flush_all().await.unwrap();
            let mut firsts = BTreeSet::new();
            for answer in &answers {
                assert!(answer.status.is_success(), "{path}: {}", answer.text);
                let request = answer.header("x-request-id");
                let trace = format!("/api/audit/trace/{request}");
                let trace = world.get(&world.admin, &trace).await;
                // Beyond the first few of a minute they are counted together.
                if trace.status == 404 {
                    continue;
                }
                let repeats = trace.body["repeats"].as_array().unwrap();
                let is_first = trace.body["commands"].as_array().unwrap().iter().all(|command| {
                    command["events"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|event| event["type"] != "call.repeated")
                });
                assert_eq!(repeats.is_empty(), is_first, "{}", trace.text);
                firsts.insert(
                    repeats.first().map_or(request, |one| one.as_str().unwrap()).to_owned(),
                );
            }
            assert_eq!(firsts.len(), 1, "{path}: {firsts:?}");
        }
        let found = world.get(&world.admin, "/api/audit/events?type=call.repeated").await.body;
        for event in found["events"].as_array().unwrap() {
            assert_eq!(
                event["payload"]["repeated"]["firsts"].as_array().unwrap().len(),
                1,
                "{event}"
            );
        }
        world.stop().await;
    })
    .await;
}
