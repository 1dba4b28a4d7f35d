//! What does not fit is refused by its place, in the body and in the query.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Kind, on_both};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn audit_29_no_list_takes_more_of_a_page_or_a_query_than_the_others() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let backups = format!("/api/apps/{id}/backups");
        let lists =
            ["/api/apps", "/api/operations", "/api/backups", &backups, "/api/backup-schedules"];
        for list in lists {
            for query in [
                "per_page=101",
                "per_page=0",
                "per_page=-1",
                "page=0",
                "page=10000001",
                "page=18446744073709551615",
                "per_page=-9223372036854775809",
            ] {
                let answer = world.get(&world.owner, &format!("{list}?{query}")).await;
                answer.problem(422, "query.out_of_range");
                let name = query.split('=').next().unwrap();
                assert_eq!(answer.body["errors"][0]["pointer"], format!("?{name}"), "{list}");
            }
            for query in ["", "per_page=1", "per_page=100&page=10000000"] {
                let answer = world.get(&world.owner, &format!("{list}?{query}")).await;
                assert_eq!(answer.status, 200, "{list}?{query}: {}", answer.text);
            }
            let answer = world.get(&world.owner, &format!("{list}?page=x")).await;
            answer.problem(400, "query.malformed");
            assert_eq!(answer.body["detail"], "page is a whole number");
        }
        for (list, name, words) in [
            ("/api/apps", "status", "running"),
            ("/api/apps", "status", "error"),
            ("/api/operations", "state", "done"),
            ("/api/operations", "state", "planned"),
        ] {
            for word in [words, ""] {
                let answer = world.get(&world.owner, &format!("{list}?{name}={word}")).await;
                assert_eq!(answer.status, 200, "{word}: {}", answer.text);
            }
            for word in ["bogus", "RUNNING", "Done"] {
                let answer = world.get(&world.owner, &format!("{list}?{name}={word}")).await;
                answer.problem(422, "query.out_of_range");
                assert_eq!(answer.body["errors"][0]["pointer"], format!("?{name}"));
                let detail = answer.body["detail"].as_str().unwrap();
                assert!(detail.contains(words), "{detail}");
            }
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_in_a_body_is_named_by_its_place() {
    let world = World::start(Kind::Sqlite).await;
    let post = async |body: &str| {
        let bearer = format!("Bearer {}", world.owner.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let path = "/api/apps/?dry_run=true";
        world.server.call(Method::POST, path, &headers, Some(body.as_bytes())).await
    };
    post("{} {}").await.problem(400, "body.malformed");
    post(r#"{"hostname": 7} x"#).await.problem(400, "body.malformed");
    for (body, pointer) in [
        (r#"{"catalog_id":"nginx"}"#, "/hostname"),
        (r#"{"catalog_id":"nginx","hostname":7}"#, "/hostname"),
        (r#"{"catalog_id":"nginx","hostname":"web-01","host_id":"1"}"#, "/host_id"),
        (r#"{"catalog_id":"nginx","hostname":"web-01","config":[]}"#, "/config"),
        ("7", ""),
        ("[]", ""),
    ] {
        let answer = post(body).await;
        answer.problem(422, "value.invalid");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{}", answer.text);
        for word in ["struct", "expected", "i64", "CreateApp", "line"] {
            assert!(!answer.text.contains(word), "{}", answer.text);
        }
    }
    let ports = |ports: Value| {
        json!({ "catalog_id": "nginx", "hostname": "web-01", "ports": ports }).to_string()
    };
    for (wrong, pointer) in [
        (json!({ "80": 0 }), "/ports/80"),
        (json!({ "80": 65_536 }), "/ports/80"),
        (json!({ "80": "x" }), "/ports/80"),
        (json!({ "0": 80 }), "/ports/0"),
        (json!([80]), "/ports"),
        (json!(8_105), "/ports"),
    ] {
        let answer = post(&ports(wrong)).await;
        answer.problem(422, "port.invalid");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{}", answer.text);
    }
    for fine in [json!({}), json!({ "80": 8_105 }), Value::Null] {
        let answer = post(&ports(fine)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    // A key that stands for another body is no place in this one.
    let keyed = async |hostname: &str| {
        let body = json!({ "catalog_id": "nginx", "hostname": hostname });
        let key = [("idempotency-key", "k")];
        world.with_headers(&world.owner, Method::POST, "/api/apps/", &key, &body).await
    };
    assert_eq!(keyed("web-01").await.status, 202);
    let reused = keyed("web-02").await;
    reused.problem(422, "idempotency_key.reused");
    assert_eq!(reused.body["errors"][0]["pointer"], "", "{}", reused.text);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_there_twice_and_a_note_of_several_lines_are_refused() {
    let world = World::start(Kind::Sqlite).await;
    let twice = world.get(&world.owner, "/api/apps?min_position=1&min_position=1").await;
    twice.problem(400, "query.malformed");
    assert_eq!(twice.body["detail"], "min_position is there twice");
    world.get(&world.owner, "/api/apps?page=1&page=1").await.problem(400, "query.malformed");
    assert_eq!(world.get(&world.owner, "/api/apps?min_position=1").await.status, 200);

    let body = json!({ "catalog_id": "nginx", "hostname": "web-01" });
    let made = world.post(&world.owner, "/api/apps", &body).await;
    let operation = made.header("location").to_owned();
    let note = |note: &str| json!({ "note": note });
    for call in ["cancel", "resume", "abandon"] {
        for wrong in ["a\0b", "a\nb", "\u{7f}", "a\u{85}b"] {
            let path = format!("{operation}/{call}");
            let refused = world.post(&world.admin, &path, &note(wrong)).await;
            refused.problem(422, "note.invalid");
            assert_eq!(refused.body["errors"][0]["pointer"], "/note");
        }
    }
    let ended = world.until(&operation, |answer| answer.body["state"] == "done").await;
    assert_eq!(ended.body["state"], "done", "{}", ended.text);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_changed_is_read_as_strictly_as_a_new_one() {
    let world = World::start(Kind::Sqlite).await;
    let path = "/api/proxmox/hosts/1";
    let put = async |body: Value| {
        world.server.as_person(&world.admin, Method::PUT, path, Some(&body)).await
    };
    for (body, code) in [
        (json!({ "name": "" }), "host.name_invalid"),
        (json!({ "host": "a b" }), "host.address_invalid"),
        (json!({ "user": "root" }), "host.user_invalid"),
        (json!({ "port": 0 }), "port.invalid"),
        (json!({ "fingerprint": "x" }), "fingerprint.invalid"),
        // Asked for before anybody looks whether that address answers.
        (json!({ "host": "nowhere.invalid" }), "host.credential_required"),
        (json!({ "host": "nowhere.invalid", "verify_ssl": false }), "host.credential_required"),
        (json!({ "port": 1 }), "host.credential_required"),
    ] {
        put(body).await.problem(422, code);
    }
    // A certificate that is looked at anew and is the same one changes nothing.
    let same = put(json!({ "fingerprint": "" })).await;
    assert_eq!(same.status, 200, "{}", same.text);

    let adopt = json!({ "vmid": 150, "node_name": "pve1", "host_id": 99 });
    let unknown = world.post(&world.admin, "/api/apps/adopt", &adopt).await;
    unknown.problem(422, "host.unknown");
    assert_eq!(unknown.body["errors"][0]["pointer"], "/host_id");
    let adopt = json!({ "vmid": 150, "node_name": "pve9", "host_id": 1 });
    let unknown = world.post(&world.admin, "/api/apps/adopt", &adopt).await;
    unknown.problem(422, "node.unknown");
    assert_eq!(unknown.body["errors"][0]["pointer"], "/node_name");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_that_ends_before_it_begins_is_refused_as_the_document_says() {
    let world = World::start(Kind::Sqlite).await;
    let id = world.deployed(&world.owner, "web-01").await;
    let path = format!("/api/apps/{id}/diff?from=30&to=1");
    world.get(&world.owner, &path).await.problem(422, "query.out_of_range");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_a_call_does_not_have_is_refused_and_nothing_is_done() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let done = world.done().await;
        let body = json!({ "catalog_id": "nginx", "hostname": "web-02" });
        let refused = world.post(&world.owner, "/api/apps/?dryrun=true", &body).await;
        refused.problem(422, "query.unknown");
        assert_eq!(refused.body["errors"][0]["pointer"], "?dryrun");
        assert!(
            refused.body["detail"].as_str().unwrap().contains("dry_run, plan"),
            "{}",
            refused.text
        );
        let app = format!("/api/apps/{id}");
        let delete = format!("{app}?dry-run=true");
        world
            .server
            .as_person(&world.owner, Method::DELETE, &delete, None)
            .await
            .problem(422, "query.unknown");
        for path in [
            format!("{app}?At=3"),
            format!("{app}/diff?from=1&until=3"),
            "/api/apps?statuss=running".to_owned(),
            "/api/operations?stat=stuck".to_owned(),
            "/api/backups?app=zz".to_owned(),
            "/api/catalog?_=1700000000".to_owned(),
        ] {
            world.get(&world.owner, &path).await.problem(422, "query.unknown");
        }
        world
            .get(&world.admin, "/api/audit/events?actor=system/x")
            .await
            .problem(422, "value.invalid");
        assert_eq!(world.done().await, done, "something was appended");
        assert_eq!(world.get(&world.owner, &app).await.body["status"], "running");
        world.stop().await;
    })
    .await;
}
