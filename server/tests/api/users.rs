//! Users as administrators handle them: roles by either of their names.

use proximity_server::demo::generated_password;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, on_both};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_given_and_taken_by_either_of_its_names() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let create = async |name: &str, rights: Value| {
            let mut body = json!({ "username": name, "password": generated_password() });
            body.as_object_mut().unwrap().extend(rights.as_object().unwrap().clone());
            world.post(&world.admin, "/api/users", &body).await
        };
        let is = |answer: &Answer, role: &str| {
            assert!(answer.status.is_success(), "{}", answer.text);
            assert_eq!(answer.body["role"], role, "{}", answer.text);
            assert_eq!(answer.body["is_staff"], role == "admin", "{}", answer.text);
        };
        is(&create("u1", json!({})).await, "user");
        is(&create("u2", json!({ "role": "user" })).await, "user");
        is(&create("u3", json!({ "is_staff": true, "role": "admin" })).await, "admin");
        let second = create("u4", json!({ "role": "admin" })).await;
        is(&second, "admin");
        let path = format!("/api/users/{}", second.body["id"]);
        let change = async |rights: Value| {
            world.server.as_person(&world.admin, Method::PATCH, &path, Some(&rights)).await
        };
        is(&change(json!({ "role": "user" })).await, "user");
        is(&change(json!({ "disabled": false })).await, "user");
        is(&change(json!({ "is_staff": true })).await, "admin");
        is(&change(json!({ "is_staff": false, "role": "user" })).await, "user");

        for rights in [
            json!({ "role": "king" }),
            json!({ "role": "Admin" }),
            json!({ "role": 1 }),
            json!({ "role": "admin", "is_staff": false }),
            json!({ "role": "user", "is_staff": true }),
        ] {
            for answer in [create("u5", rights.clone()).await, change(rights.clone()).await] {
                answer.problem(422, "value.invalid");
                assert_eq!(answer.body["errors"][0]["pointer"], "/role", "{}", answer.text);
            }
        }
        is(&change(json!({})).await, "user");
        let all = world.get(&world.admin, "/api/users").await.body;
        assert_eq!(all["total"], 7, "a refused one was made: {all}");
        world.stop().await;
    })
    .await;
}
