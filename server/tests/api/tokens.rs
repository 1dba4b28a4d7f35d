//! API tokens and sessions: what they open, what they never open, and that their end is at once.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, on_both};
use crate::world::{Person, World};

impl World {
    async fn token(&self, who: &Person, scopes: &[&str]) -> (Person, String) {
        let body = json!({ "name": "a program", "scopes": scopes });
        let made = self.post(who, "/api/auth/tokens", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let token = made.body["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("pxt_") && token.len() == 47, "{} characters", token.len());
        let person = Person { name: format!("{}'s program", who.name), token };
        (person, made.body["id"].as_str().unwrap().to_owned())
    }

    async fn delete(&self, who: &Person, path: &str) -> Answer {
        self.server.as_person(who, Method::DELETE, path, None).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_scopes_say_and_nothing_that_makes_tokens() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let (reads, _) = world.token(&world.owner, &["read"]).await;
        let (writes, _) = world.token(&world.owner, &["write"]).await;
        let (plain, _) = world.token(&world.admin, &["read", "write"]).await;
        let (rules, _) = world.token(&world.admin, &["read", "write", "admin"]).await;
        let deploy = json!({ "catalog_id": "nginx", "hostname": "web-01" });
        assert_eq!(world.get(&reads, "/api/apps").await.status, 200);
        let missing = "api_token.scope_missing";
        world.post(&reads, "/api/apps", &deploy).await.problem(403, missing);
        world.get(&writes, "/api/apps").await.problem(403, missing);
        let made = world.post(&writes, "/api/apps", &deploy).await;
        assert_eq!((made.status.as_u16(), &made.body["owner"]), (202, &made.body["owner"]));
        let id = made.body["id"].as_str().unwrap();
        assert_eq!(world.get(&reads, &format!("/api/apps/{id}")).await.status, 200);
        // An administrator's token without that scope is a plain user's.
        world.get(&plain, "/api/users").await.problem(403, missing);
        world.get(&plain, &format!("/api/apps/{id}")).await.problem(404, "not_found");
        assert_eq!(world.get(&rules, "/api/users").await.status, 200);
        assert_eq!(world.get(&rules, &format!("/api/apps/{id}")).await.status, 200);
        let wants = json!({ "name": "more", "scopes": ["read"] });
        for path in ["/api/auth/tokens", "/api/auth/password/change"] {
            world.post(&rules, path, &wants).await.problem(403, "api_token.not_accepted");
        }
        world.get(&rules, "/api/auth/sessions").await.problem(403, "api_token.not_accepted");
        let more = json!({ "name": "more", "scopes": ["admin"] });
        world.post(&world.owner, "/api/auth/tokens", &more).await.problem(403, "admin.required");
        // As a cookie it would go around the CSRF rules.
        let cookie = format!("proximity-auth-cookie={}", rules.token);
        let headers = [("cookie", cookie.as_str())];
        let answer = world.server.call(Method::GET, "/api/users", &headers, None).await;
        answer.problem(401, "identity.required");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_listed_without_itself_and_dead_when_it_is_revoked_or_its_user_disabled() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let (first, id) = world.token(&world.owner, &["read"]).await;
        let (second, _) = world.token(&world.owner, &["read", "write"]).await;
        assert_eq!(world.get(&first, "/api/auth/user").await.body["username"], "ann");
        let list = world.get(&world.owner, "/api/auth/tokens").await;
        assert_eq!(list.body["total"], 2, "{}", list.text);
        assert!(!list.text.contains(&first.token) && !list.text.contains(&second.token));
        let used = list.body["tokens"].as_array().unwrap().iter().find(|one| one["id"] == id[..]);
        assert_ne!(used.unwrap()["last_used_at"], Value::Null);
        assert_eq!(world.get(&world.other, "/api/auth/tokens").await.body["total"], 0);
        let path = format!("/api/auth/tokens/{id}");
        world.delete(&world.other, &path).await.problem(404, "not_found");
        assert_eq!(world.delete(&world.owner, &path).await.status, 204);
        world.delete(&world.owner, &path).await.problem(404, "not_found");
        world.get(&first, "/api/apps").await.problem(401, "identity.required");
        assert_eq!(world.get(&second, "/api/apps").await.status, 200);

        let users = world.get(&world.admin, "/api/users").await.body;
        let ann = users["users"].as_array().unwrap().iter().find(|user| user["username"] == "ann");
        let path = format!("/api/users/{}", ann.unwrap()["id"]);
        for disabled in [true, false] {
            let body = json!({ "disabled": disabled });
            let answer =
                world.server.as_person(&world.admin, Method::PATCH, &path, Some(&body)).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            world.get(&second, "/api/apps").await.problem(401, "identity.required");
        }
        let log = world.server.app.store.feed(0, 10_000).await.unwrap();
        let types: Vec<&str> = log
            .iter()
            .filter(|event| event.aggregate_type == "api_token")
            .map(|event| event.event_type.as_str())
            .collect();
        let (issued, revoked) = ("api_token.issued", "api_token.revoked");
        assert_eq!(types, [issued, issued, revoked, revoked]);
        let whole: String = log.iter().map(|event| format!("{event:?}")).collect();
        assert!(!whole.contains(&first.token[4..]) && !whole.contains(&second.token[4..]));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_about_a_wished_token_is_said_at_once() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let wrong = json!({ "name": " ", "scopes": ["root"], "expires_in_days": 367 });
        let answer = world.post(&world.owner, "/api/auth/tokens", &wrong).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        let mut codes: Vec<&str> = answer.body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["code"].as_str().unwrap())
            .collect();
        codes.sort_unstable();
        assert_eq!(
            codes,
            ["api_token.expiry_invalid", "api_token.name_invalid", "api_token.scope_invalid"]
        );
        let none = json!({ "name": "x", "scopes": [] });
        let answer = world.post(&world.owner, "/api/auth/tokens", &none).await;
        answer.problem(422, "api_token.scope_invalid");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_ended_by_its_user_and_by_nobody_else() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let list = world.get(&world.owner, "/api/auth/sessions").await.body;
        assert_eq!((&list["total"], &list["sessions"][0]["current"]), (&json!(1), &json!(true)));
        let path = format!("/api/auth/sessions/{}", list["sessions"][0]["id"].as_str().unwrap());
        world.delete(&world.other, &path).await.problem(404, "not_found");
        world.delete(&world.admin, &path).await.problem(404, "not_found");
        assert_eq!(world.delete(&world.owner, &path).await.status, 204);
        world.get(&world.owner, "/api/auth/user").await.problem(401, "identity.required");
        world.stop().await;
    })
    .await;
}
