//! `If-Match` and `plan=`: what was looked at is changed as it was seen, or not at all.

use futures_util::future::join_all;
use proximity_server::demo::generated_password;
use proximity_simulator::{Fault, FaultRule, Foreign};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Kind, on_both};
use crate::world::{Person, World};

impl World {
    /// A call with the state that it is meant for.
    async fn matching(
        &self,
        who: &Person,
        method: Method,
        path: &str,
        tag: &str,
        body: &Value,
    ) -> Answer {
        self.with_headers(who, method, path, &[("if-match", tag)], body).await
    }

    async fn tag(&self, who: &Person, path: &str) -> String {
        let tag = self.get(who, path).await.header("etag").to_owned();
        assert!(!tag.is_empty(), "{path} has no tag");
        tag
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_has_changed_meanwhile_is_refused() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let memory = |megabytes: u32| {
            json!({ "default_cpu_cores": 1, "default_memory_mb": megabytes,
                    "default_disk_gb": 4, "default_swap_mb": 0 })
        };
        let name = |name: &str| json!({ "first_name": name });
        let host = |name: &str| json!({ "name": name });
        let (resources, user) = ("/api/core/settings/resources", "/api/auth/user");
        let mut network = world.get(&world.admin, "/api/core/settings/network").await.body;
        let first = network.clone();
        network["default_dns_primary"] = json!("9.9.9.9");
        let cases = [
            (&world.admin, Method::POST, resources, memory(1_024), memory(2_048)),
            (&world.admin, Method::POST, "/api/core/settings/network", network, first),
            (&world.owner, Method::PATCH, user, name("Ann"), name("Anna")),
            (&world.owner, Method::PUT, user, name("Annie"), name("Anne")),
            (&world.admin, Method::PUT, "/api/proxmox/hosts/1", host("attic"), host("cellar")),
        ];
        for (who, method, path, one, other) in cases {
            let tag = world.tag(who, path).await;
            let changed = world.matching(who, method.clone(), path, &tag, &one).await;
            assert_eq!(changed.status, 200, "{method} {path}: {}", changed.text);
            let now = world.get(who, path).await.body;
            let late = world.matching(who, method.clone(), path, &tag, &other).await;
            late.problem(412, "precondition.failed");
            assert_eq!(world.get(who, path).await.body, now, "{method} {path}");
            let tag = world.tag(who, path).await;
            let again = world.matching(who, method.clone(), path, &tag, &other).await;
            assert_eq!(again.status, 200, "{method} {path}: {}", again.text);
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_that_changes_something_with_a_version_asks_for_it() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let app = format!("/api/apps/{id}");
        let (clone, backups) = (format!("{app}/clone"), format!("{app}/backups"));
        let made = json!({ "username": "eve", "password": generated_password() });
        let made = world.post(&world.admin, "/api/users", &made).await;
        let user = format!("/api/users/{}", made.body["id"]);
        let reset = format!("{user}/reset-password");
        let (host, none) = ("/api/proxmox/hosts/1", Value::Null);
        let sync = format!("{host}/sync-nodes");
        let test = format!("{host}/test");
        let copy = json!({ "new_hostname": "web-02" });
        let disabled = json!({ "disabled": true });
        let head = world.server.app.store.head().await.unwrap();
        let calls = [
            (&world.owner, Method::POST, &clone, &copy, &app),
            (&world.owner, Method::POST, &backups, &none, &app),
            (&world.admin, Method::PATCH, &user, &disabled, &user),
            (&world.admin, Method::POST, &reset, &none, &user),
            (&world.admin, Method::POST, &sync, &none, &host.to_owned()),
            (&world.admin, Method::POST, &test, &none, &host.to_owned()),
        ];
        for (who, method, path, body, _) in &calls {
            let answer = world.matching(who, method.clone(), path, "\"zz\"", body).await;
            answer.problem(412, "precondition.failed");
        }
        let events = world.server.app.store.feed(head, 100).await.unwrap();
        assert!(events.iter().all(|event| !event.aggregate_id.contains("web-02")), "{events:?}");
        for (who, method, path, body, of) in calls {
            // A user is shown by its changes only.
            let tag = match *of == user {
                true => made.header("etag").to_owned(),
                false => world.tag(who, of).await,
            };
            if path.ends_with("reset-password") {
                continue;
            }
            let answer = world.matching(who, method, path, &tag, body).await;
            assert!(answer.status.is_success(), "{path}: {}", answer.text);
            if let Some(operation) = answer.body["operation"].as_str() {
                let path = format!("/api/operations/{operation}");
                world.until(&path, |answer| answer.body["state"] == "done").await;
            }
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_of_one_state_at_once_one_is_made() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let path = "/api/core/settings/resources";
        for round in 0..5_u32 {
            let tag = world.tag(&world.admin, path).await;
            let bodies: Vec<Value> = (0..16)
                .map(|caller| {
                    json!({ "default_cpu_cores": 1, "default_swap_mb": 0, "default_disk_gb": 4,
                            "default_memory_mb": 1_024 + round * 16 + caller })
                })
                .collect();
            let calls = bodies
                .iter()
                .map(|body| world.matching(&world.admin, Method::POST, path, &tag, body));
            let answers = join_all(calls).await;
            let made: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
            assert_eq!(made.len(), 1, "round {round}: {:?}", made.len());
            for answer in answers.iter().filter(|answer| answer.status != 200) {
                answer.problem(412, "precondition.failed");
            }
            let now = world.get(&world.admin, path).await.body;
            assert_eq!(now["default_memory_mb"], made[0].body["default_memory_mb"]);
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_operation_that_moved_on_is_not_resumed_or_given_up_as_it_was_seen() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let locked = Fault::Status { status: 500, reason: None, after_effect: false };
        let rule = FaultRule::forever("container.destroy", locked);
        let rule = world.simulator.faults().add(rule).unwrap();
        let path = format!("/api/apps/{app}");
        let deletion = world.server.as_person(&world.owner, Method::DELETE, &path, None).await;
        let operation = deletion.header("location").to_owned();
        world.until(&operation, |answer| answer.body["state"] == "stuck").await;
        let seen = world.tag(&world.admin, &operation).await;
        let note = json!({ "note": "the lock is gone" });
        let resume = format!("{operation}/resume");
        let resumed = world.matching(&world.admin, Method::POST, &resume, &seen, &note).await;
        assert_eq!(resumed.status, 202, "{}", resumed.text);
        world.until(&operation, |answer| answer.body["state"] == "stuck").await;
        for call in ["resume", "abandon", "cancel"] {
            let path = format!("{operation}/{call}");
            let late = world.matching(&world.admin, Method::POST, &path, &seen, &note).await;
            late.problem(412, "precondition.failed");
        }
        world.simulator.faults().remove(rule);
        let seen = world.tag(&world.admin, &operation).await;
        let resumed = world.matching(&world.admin, Method::POST, &resume, &seen, &note).await;
        assert_eq!(resumed.status, 202, "{}", resumed.text);
        world.until(&operation, |answer| answer.body["state"] == "done").await;
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_and_a_restore_are_carried_out_as_their_plan_was_seen() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let plan = async |who: &Person, path: &str, body: &Value| {
            let dry = world.post(who, &format!("{path}?dry_run=true"), body).await;
            assert_eq!(dry.status, 200, "{}", dry.text);
            dry.body
        };
        let planned = |path: &str, plan: &Value| {
            format!("{path}?plan={}", plan["plan_hash"].as_str().expect("a plan"))
        };
        let foreign = Foreign {
            vmid: Some(150),
            hostname: Some("legacy".to_owned()),
            image: "debian-12".to_owned(),
            running: true,
            ..Foreign::default()
        };
        world.simulator.plant_container(foreign).await.unwrap();
        let path = "/api/apps/adopt";
        let body = json!({ "vmid": 150, "node_name": "pve1", "hostname": "old" });
        let seen = plan(&world.admin, path, &body).await;
        assert_eq!((&seen["vmid"], &seen["operation"]), (&json!(150), &json!("adopt")), "{seen}");
        let other = json!({ "vmid": 150, "node_name": "pve1", "hostname": "older" });
        let done = world.done().await;
        let wrong = world.post(&world.admin, &planned(path, &seen), &other).await;
        wrong.problem(412, "plan.changed");
        assert_eq!(world.done().await, done, "something was appended");
        let made = world.post(&world.admin, &planned(path, &seen), &body).await;
        assert_eq!(made.status, 202, "{}", made.text);
        world.until(made.header("location"), |answer| answer.body["state"] == "done").await;

        let app = world.deployed(&world.owner, "web-01").await;
        let id = world.backed_up(&world.owner, &app).await;
        let path = format!("/api/apps/{app}/backups/{id}/restore");
        let seen = plan(&world.owner, &path, &json!({})).await;
        let in_place = json!({ "in_place": true });
        let wrong = world.post(&world.owner, &planned(&path, &seen), &in_place).await;
        wrong.problem(412, "plan.changed");
        let theirs = world.post(&world.admin, &planned(&path, &seen), &json!({})).await;
        theirs.problem(412, "plan.changed");
        let made = world.post(&world.owner, &planned(&path, &seen), &json!({})).await;
        assert_eq!(made.status, 202, "{}", made.text);
        world.until(made.header("location"), |answer| answer.body["state"] == "done").await;
        let now = world.get(&world.owner, &format!("/api/apps/{app}")).await.body;
        assert_eq!(now["lxc_id"], seen["vmid"]);
        // The number is taken now, so nobody can have that plan again.
        let again = world.post(&world.owner, &planned(&path, &seen), &json!({})).await;
        again.problem(412, "plan.changed");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_agreed_on_and_taken_by_a_stranger_is_not_replaced() {
    let world = World::start(Kind::Sqlite).await;
    let seen = async |hostname: &str| {
        let body = json!({ "catalog_id": "nginx", "hostname": hostname });
        let dry = world.post(&world.owner, "/api/apps/?dry_run=true", &body).await;
        assert_eq!(dry.status, 200, "{}", dry.text);
        let vmid = u32::try_from(dry.body["vmid"].as_u64().unwrap()).unwrap();
        (body, format!("/api/apps/?plan={}", dry.body["plan_hash"].as_str().unwrap()), vmid)
    };
    let plant = async |vmid: u32| {
        let image = "debian-12".to_owned();
        let foreign = Foreign { vmid: Some(vmid), image, ..Foreign::default() };
        world.simulator.plant_container(foreign).await.unwrap();
    };
    // By hand, a moment before: Proxmox is asked once more.
    let (body, path, vmid) = seen("web-01").await;
    plant(vmid).await;
    world.post(&world.owner, &path, &body).await.problem(412, "plan.changed");

    // A moment after: this is not what was agreed on, so it is not done at all.
    let (body, path, vmid) = seen("web-02").await;
    let silent = Fault::Status { status: 500, reason: None, after_effect: false };
    let rule = FaultRule::forever("cluster.nextid", silent);
    let rule = world.simulator.faults().add(rule).unwrap();
    let made = world.post(&world.owner, &path, &body).await;
    assert_eq!(made.status, 202, "{}", made.text);
    plant(vmid).await;
    world.simulator.faults().remove(rule);
    let operation = made.header("location");
    let ended = world
        .until(operation, |answer| {
            matches!(answer.body["state"].as_str(), Some("done" | "undone" | "stuck"))
        })
        .await;
    assert_eq!(ended.body["state"], "undone", "{}", ended.text);
    assert!(ended.text.contains("agreed"), "{}", ended.text);

    // What is in its way by now is told as that.
    let (body, path, _) = seen("web-03").await;
    let taken = json!({ "catalog_id": "nginx", "hostname": "web-03" });
    assert_eq!(world.post(&world.other, "/api/apps/", &taken).await.status, 202);
    world.post(&world.owner, &path, &body).await.problem(412, "plan.changed");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_tag_of_its_own_matches_none_that_is_named() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let (owner, admin, delete) = (&world.owner, &world.admin, Method::DELETE);
        let wish = json!({ "name": "script", "scopes": ["read"] });
        let token = world.post(owner, "/api/auth/tokens", &wish).await;
        let token = format!("/api/auth/tokens/{}", token.body["id"].as_str().unwrap());
        let user = json!({ "username": "eve", "password": generated_password() });
        let app = json!({ "catalog_id": "nginx", "hostname": "web-01" });
        let none = Value::Null;
        let calls = [
            (owner, &delete, token.as_str(), &none),
            (owner, &Method::POST, "/api/auth/tokens", &wish),
            (admin, &Method::POST, "/api/users", &user),
            (admin, &Method::POST, "/api/catalog/reload", &none),
            (owner, &Method::POST, "/api/apps", &app),
            (owner, &Method::POST, "/api/apps?dry_run=true", &app),
        ];
        let count = async || world.get(owner, "/api/auth/tokens").await.body["total"].clone();
        for (who, method, path, body) in calls {
            for tag in ["\"zz\"", "W/\"zz\"", "zz", ""] {
                let refused = world.matching(who, method.clone(), path, tag, body).await;
                refused.problem(412, "precondition.failed");
            }
        }
        assert_eq!(count().await, 1, "something was done");
        assert_eq!(world.get(admin, "/api/apps").await.body["total"], 0);
        assert_eq!(world.get(admin, "/api/users").await.body["total"], 3);
        let gone = world.matching(owner, delete, &token, "*", &none).await;
        assert_eq!(gone.status, 204, "{}", gone.text);
        assert_eq!(count().await, 0);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_says_what_it_made_whatever_the_client_has_kept() {
    let world = World::start(Kind::Sqlite).await;
    let user = json!({ "username": "eve", "password": generated_password() });
    let kept = [("if-none-match", "*")];
    let made = world.with_headers(&world.admin, Method::POST, "/api/users", &kept, &user).await;
    assert_eq!((made.status.as_u16(), &made.body["username"]), (201, &json!("eve")));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agreed_adoption_of_what_is_gone_is_a_plan_that_has_changed() {
    let world = World::start(Kind::Sqlite).await;
    let image = "debian-12".to_owned();
    let foreign = Foreign { vmid: Some(150), image, ..Foreign::default() };
    world.simulator.plant_container(foreign).await.unwrap();
    let body = json!({ "vmid": 150, "node_name": "pve1", "hostname": "old" });
    let adopt = async |query: &str| {
        world.post(&world.admin, &format!("/api/apps/adopt?{query}"), &body).await
    };
    let seen = adopt("dry_run=true").await;
    let plan = format!("plan={}", seen.body["plan_hash"].as_str().unwrap());
    world.simulator.remove_container(150).await.unwrap();
    let done = world.done().await;
    for query in [plan.clone(), format!("dry_run=true&{plan}")] {
        let late = adopt(&query).await;
        late.problem(412, "plan.changed");
        assert!(
            late.body["detail"].as_str().unwrap().contains("no container 150"),
            "{}",
            late.text
        );
    }
    adopt("").await.problem(422, "container.unknown");
    assert_eq!(world.done().await, done);
    world.stop().await;
}
