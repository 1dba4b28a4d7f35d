//! Clones, discovery, adoption and release over HTTP.

use proximity_commands::clock::SECOND;
use proximity_server::demo::generated_password;
use proximity_simulator::{Fault, FaultRule, Foreign, LedgerContainer, Times, When};
use reqwest::Method;
use serde_json::json;

use crate::harness::{Kind, on_both};
use crate::world::World;

/// A container of somebody else on the first node.
async fn plant(world: &World, vmid: u32, hostname: &str) {
    let stranger = Foreign {
        vmid: Some(vmid),
        hostname: Some(hostname.to_owned()),
        description: Some("ask Ada first".to_owned()),
        config: [
            ("cores".to_owned(), "1".to_owned()),
            ("net0".to_owned(), "name=eth0,bridge=vmbr0,ip=dhcp".to_owned()),
            ("env".to_owned(), "TOKEN=from-somewhere".to_owned()),
        ]
        .into(),
        running: true,
        ..Foreign::default()
    };
    world.simulator.plant_container(stranger).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_03_an_owner_clones_a_running_application_and_nobody_else_does() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let source = world.deployed(&world.owner, "web-01").await;
        let path = format!("/api/apps/{source}/clone");
        let body = json!({ "new_hostname": "Web-02", "allow_downtime": true });
        let before = world.simulator.ledger();
        let foreign = world.post(&world.other, &path, &body).await;
        foreign.problem(404, "not_found");
        let never = world.post(&world.other, "/api/apps/nginx-00000000/clone", &body).await;
        let plain = |text: &str, id: &str| text.replace(id, "-");
        assert_eq!(
            plain(&foreign.text, foreign.header("x-request-id")),
            plain(&never.text, never.header("x-request-id"))
        );
        assert_eq!(world.simulator.ledger(), before);

        let taken = json!({ "new_hostname": "web-01" });
        let busy = json!({ "new_hostname": "web-01", "allow_downtime": true });
        for body in [taken, busy] {
            let answer = world.post(&world.owner, &path, &body).await;
            assert_eq!(answer.status, 409, "{}", answer.text);
        }
        let wrong = world.post(&world.owner, &path, &json!({ "new_hostname": "a b" })).await;
        wrong.problem(422, "hostname.invalid");
        assert_eq!(wrong.body["errors"][0]["pointer"], "/new_hostname");

        let answer = world.post(&world.owner, &path, &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        assert_eq!(answer.body["source_app_id"], source.as_str());
        assert_eq!(answer.body["new_hostname"], "web-02");
        let copy = answer.body["id"].as_str().unwrap().to_owned();
        world.until(answer.header("location"), |answer| answer.body["state"] == "done").await;
        let original = world.get(&world.owner, &format!("/api/apps/{source}")).await.body;
        let app = world.get(&world.owner, &format!("/api/apps/{copy}")).await.body;
        for app in [&original, &app] {
            assert_eq!(app["status"], "running", "{app}");
        }
        assert_eq!(app["owner"], original["owner"]);
        for different in ["vmid", "hostname", "public_port", "internal_port", "address"] {
            assert_ne!(app[different], original[different], "{different}");
        }
        world.get(&world.other, &format!("/api/apps/{copy}")).await.problem(404, "not_found");
        let ledger = world.simulator.ledger();
        assert_eq!(ledger.containers.len(), 2);
        assert!(ledger.containers.iter().all(|guest| guest.snapshots.is_empty()));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_with_secrets_is_cloned_and_so_is_its_clone() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let body = json!({
            "catalog_id": "linkding", "hostname": "links-0",
            "config": { "LD_SUPERUSER_PASSWORD": generated_password() },
            "environment": { "API_KEY": generated_password() },
        });
        let made = world.post(&world.owner, "/api/apps/", &body).await;
        assert_eq!(made.status, 202, "{}", made.text);
        let mut path = format!("/api/apps/{}", made.body["id"].as_str().unwrap());
        world.until(&path, |app| app.body["status"] == "running").await;
        let source = world.get(&world.owner, &path).await.body;
        for number in 1..=2 {
            let body = json!({ "new_hostname": format!("links-{number}"), "allow_downtime": true });
            let made = world.post(&world.owner, &format!("{path}/clone"), &body).await;
            assert_eq!(made.status, 202, "{}", made.text);
            path = format!("/api/apps/{}", made.body["id"].as_str().unwrap());
            let copy = world.until(&path, |app| app.body["status"] == "running").await.body;
            for values in ["config", "environment"] {
                assert_eq!(copy[values], source[values], "{values}");
            }
            assert_eq!(copy["environment"]["LD_SUPERUSER_PASSWORD"], "[secret]");
        }
        // The containers have the values themselves.
        let guests = world.simulator.ledger().containers;
        let given = |guest: &LedgerContainer| guest.config.get("env").cloned();
        assert!(given(&guests[0]).is_some_and(|env| env.contains("API_KEY=")));
        assert!(guests.iter().all(|guest| given(guest) == given(&guests[0])));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_discovered_adopted_and_given_back_untouched() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        plant(&world, 150, "legacy").await;
        let before = world.simulator.ledger();
        world.get(&world.owner, "/api/apps/discover").await.problem(403, "admin.required");
        let found = world.get(&world.admin, "/api/apps/discover").await;
        assert_eq!(found.body.as_array().unwrap().len(), 1, "{}", found.text);
        let one = &found.body[0];
        assert_eq!((&one["vmid"], &one["name"]), (&json!(150), &json!("legacy")), "{one}");
        assert_eq!((&one["status"], &one["node"]), (&json!("running"), &json!("pve1")), "{one}");

        let body = json!({ "vmid": 150, "node_name": "pve1", "port_to_expose": 8080 });
        world.post(&world.owner, "/api/apps/adopt", &body).await.problem(403, "admin.required");
        let answer = world.post(&world.admin, "/api/apps/adopt", &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        assert_eq!(answer.body["type"], "custom");
        assert_eq!(answer.body["port_detection"], "manual");
        world.until(answer.header("location"), |answer| answer.body["state"] == "done").await;
        let id = answer.body["id"].as_str().unwrap();
        let app = world.get(&world.admin, &format!("/api/apps/{id}")).await.body;
        assert_eq!(
            (&app["status"], &app["public_port"]),
            (&json!("running"), &json!(8080)),
            "{app}"
        );
        assert_eq!((&app["hostname"], &app["origin"]), (&json!("legacy"), &json!("adopted")));
        assert_eq!(app["config"]["env"], "[secret]", "{app}");
        assert_eq!(app["config"]["cores"], "1", "{app}");
        assert_eq!(app["resources"]["disk_gb"], 4, "{app}");
        let guest = world.simulator.ledger().container(150).unwrap().clone();
        let notes = &guest.config["description"];
        assert!(notes.starts_with("ask Ada first") && notes.contains(id), "{notes}");

        let found = world.get(&world.admin, "/api/apps/discover").await;
        assert_eq!(found.body, json!([]), "it is managed now");
        world.post(&world.admin, "/api/apps/adopt", &body).await.problem(409, "container.managed");
        let gone = world
            .server
            .as_person(&world.admin, Method::DELETE, &format!("/api/apps/{id}"), None)
            .await;
        assert_eq!(gone.status, 202, "{}", gone.text);
        world.until(gone.header("location"), |answer| answer.body["state"] == "done").await;
        assert_eq!(world.simulator.ledger(), before, "it is given back as it was");
        let found = world.get(&world.admin, "/api/apps/discover").await;
        assert_eq!(found.body.as_array().unwrap().len(), 1, "{}", found.text);
        let again = world.post(&world.admin, "/api/apps/adopt", &body).await;
        assert_eq!(again.status, 202, "it can be adopted again: {}", again.text);
        world.until(again.header("location"), |answer| answer.body["state"] == "done").await;
        world.stop().await;
    })
    .await;
}

/// Archives keep a number from whoever would meet another guest under it, and not from who has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_kept_is_adopted_again_although_there_are_backups_of_it() {
    on_both(async |kind| {
        let (world, clock) = crate::schedule_runs::world(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        world.backed_up(&world.owner, &id).await;
        let guest = world.simulator.ledger().containers[0].clone();
        let refused = Fault::Status { status: 403, reason: None, after_effect: false };
        let rule = FaultRule::forever("container.destroy", refused);
        world.simulator.faults().add(rule).unwrap();
        let path = format!("/api/apps/{id}");
        let deletion = world.delete_as(&world.owner, &path).await;
        let operation = deletion.header("location").to_owned();
        world.until(&operation, |answer| answer.body["state"] == "stuck").await;
        let body = json!({ "vmid": guest.vmid, "node_name": guest.node });
        let adopt = async || world.post(&world.admin, "/api/apps/adopt", &body).await;
        let theirs = adopt().await;
        theirs.problem(409, "container.managed");
        assert!(theirs.text.contains("is the application"), "{}", theirs.text);
        let note = json!({ "note": "it is kept" });
        let abandoned = world.post(&world.admin, &format!("{operation}/abandon"), &note).await;
        assert_eq!(abandoned.status, 202, "{}", abandoned.text);
        world.simulator.clear_faults();

        let marked = adopt().await;
        marked.problem(409, "container.managed");
        let detail = marked.body["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("{id}, which has no container any more")), "{detail}");
        assert!(detail.contains("the line that starts with `proximity/`"), "{detail}");
        let notes = guest.config["description"].lines();
        let notes: Vec<&str> = notes.filter(|line| !line.starts_with("proximity/")).collect();
        let notes = notes.join("\n");
        world.simulator.edit_container(guest.vmid, "description", Some(&notes)).unwrap();
        // What had been under way when it was given up may still have its effect.
        adopt().await.problem(409, "vmid.taken");
        clock.skip(16 * 60 * SECOND);
        let answer = adopt().await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        world.until(answer.header("location"), |answer| answer.body["state"] == "done").await;
        let found = world.simulator.ledger().container(guest.vmid).unwrap().clone();
        assert!(found.config["description"].contains(answer.body["id"].as_str().unwrap()));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_18_what_an_adoption_cannot_use_is_said_with_what_to_send_instead() {
    let world = World::start(Kind::Sqlite).await;
    plant(&world, 150, "legacy.example.org").await;
    let adopt = async |body| world.post(&world.admin, "/api/apps/adopt", &body).await;
    for port in [0, -1, 65_536] {
        let body = json!({ "vmid": 150, "node_name": "pve1", "port_to_expose": port });
        let answer = adopt(body).await;
        answer.problem(422, "port.invalid");
        assert_eq!(answer.body["errors"][0]["pointer"], "/port_to_expose");
    }
    let unusable = adopt(json!({ "vmid": 150, "node_name": "pve1" })).await;
    unusable.problem(422, "hostname.invalid");
    assert!(unusable.body["detail"].as_str().unwrap().contains("send one as `hostname`"));
    let nobody = adopt(json!({ "vmid": 151, "node_name": "pve1" })).await;
    nobody.problem(422, "container.unknown");
    let nowhere = adopt(json!({ "vmid": 150, "node_name": "pve9" })).await;
    nowhere.problem(422, "node.unknown");
    world.deployed(&world.owner, "web").await;
    let taken = adopt(json!({ "vmid": 150, "node_name": "pve1", "hostname": "WEB" })).await;
    taken.problem(409, "hostname.taken");
    assert!(taken.body["detail"].as_str().unwrap().contains("send another one"));
    world.simulator.edit_container(150, "lock", Some("backup")).unwrap();
    let locked = adopt(json!({ "vmid": 150, "node_name": "pve1", "hostname": "old" })).await;
    locked.problem(409, "container.locked");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_12_an_adoption_whose_configuration_cannot_be_captured_leaves_nothing() {
    let world = World::start(Kind::Sqlite).await;
    plant(&world, 150, "legacy").await;
    let before = world.simulator.ledger();
    let when = When {
        method: Some("GET".to_owned()),
        path: Some("/lxc/150/config$".to_owned()),
        ..When::default()
    };
    let rule = FaultRule { when, times: Times::Forever, fault: Fault::WrongTypes };
    world.simulator.faults().add(rule).unwrap();
    let done = world.done().await;
    let body = json!({ "vmid": 150, "node_name": "pve1" });
    world.post(&world.admin, "/api/apps/adopt", &body).await.problem(502, "proxmox.malformed");
    assert_eq!(world.done().await, done, "nothing was stored");
    assert_eq!(world.simulator.ledger(), before, "nothing was changed");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_or_shows_only_a_part_is_said() {
    let world = World::start(Kind::Sqlite).await;
    plant(&world, 150, "legacy").await;
    let path = "/api/apps/discover?host_id=1";
    let when = |path: &str| When { path: Some(path.to_owned()), ..When::default() };
    let blind = FaultRule {
        when: when("^/access/permissions"),
        times: Times::Once,
        fault: Fault::EmptyList,
    };
    world.simulator.faults().add(blind).unwrap();
    world.get(&world.admin, path).await.problem(502, "proxmox.malformed");
    let away = Fault::Status { status: 595, reason: None, after_effect: false };
    let away = FaultRule { when: when("^/cluster/resources"), times: Times::Forever, fault: away };
    world.simulator.faults().add(away).unwrap();
    let answer = world.get(&world.admin, path).await;
    assert!([502, 504].contains(&answer.status.as_u16()), "{}", answer.text);
    assert!(answer.body["detail"].as_str().unwrap().contains("host lab"), "{}", answer.text);
    world.simulator.clear_faults();
    let found = world.get(&world.admin, path).await;
    assert_eq!(found.body.as_array().unwrap().len(), 1, "{}", found.text);
    let unknown = world.get(&world.admin, "/api/apps/discover?host_id=99").await;
    unknown.problem(422, "host.unknown");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_snapshots_a_copy_is_refused_until_a_downtime_is_allowed() {
    let world = World::start(Kind::Sqlite).await;
    // A stranger's container lies on a directory storage.
    plant(&world, 150, "legacy").await;
    let body = json!({ "vmid": 150, "node_name": "pve1" });
    let answer = world.post(&world.admin, "/api/apps/adopt", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    world.until(answer.header("location"), |answer| answer.body["state"] == "done").await;
    let source = answer.body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/apps/{source}/clone");
    let done = world.done().await;
    let refused = world.post(&world.admin, &path, &json!({ "new_hostname": "copy" })).await;
    refused.problem(409, "clone.needs_downtime");
    assert_eq!(world.done().await, done, "nothing was stored");

    let body = json!({ "new_hostname": "copy", "allow_downtime": true });
    let dry = world.post(&world.admin, &format!("{path}?dry_run=true"), &body).await;
    assert_eq!((dry.status.as_u16(), &dry.body["dry_run"]), (200, &json!(true)), "{}", dry.text);
    assert_eq!(dry.body["steps"][0], "stop_source", "{}", dry.text);
    assert_eq!(world.done().await, done, "nothing was stored");
    let answer = world.post(&world.admin, &path, &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    world.until(answer.header("location"), |answer| answer.body["state"] == "done").await;
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.containers.len(), 2);
    assert!(ledger.containers.iter().all(|guest| guest.status == "running"));
    let copy = answer.body["id"].as_str().unwrap();
    let app = world.get(&world.admin, &format!("/api/apps/{copy}")).await.body;
    assert_eq!((&app["origin"], &app["config"]), (&json!("cloned"), &json!({})), "{app}");
    let notes = &ledger.containers.iter().find(|guest| guest.name == "copy").unwrap().config;
    assert!(!notes["description"].contains(&source), "{notes:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_may_not_see_all_containers_discovers_none_instead_of_some() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        plant(&world, 150, "legacy").await;
        plant(&world, 151, "other").await;
        let simulator = &world.simulator;
        let _password = simulator.add_user("px@pve");
        let credential = simulator.add_token("px@pve", "server", true).unwrap();
        simulator.add_role("Sees", &["Sys.Audit", "Datastore.Audit"]);
        simulator.add_role("SeesAll", &["Sys.Audit", "Datastore.Audit", "VM.Audit"]);
        for id in ["px@pve", "px@pve!server"] {
            simulator.grant("/", id, "Sees");
            simulator.grant("/vms/150", id, "SeesAll");
        }
        let token = json!({
            "token_id": "px@pve!server", "token_secret": credential.split_once('=').unwrap().1,
        });
        let changed = world
            .server
            .as_person(&world.admin, Method::PUT, "/api/proxmox/hosts/1", Some(&token))
            .await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        assert_eq!(changed.body["user"], "px@pve");
        // It sees one of the two, and Proxmox does not say that there is another.
        let refused = world.get(&world.admin, "/api/apps/discover").await;
        refused.problem(502, "proxmox.incomplete");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("lab") && detail.contains("VM.Audit on /vms"), "{detail}");

        for id in ["px@pve", "px@pve!server"] {
            world.simulator.grant("/", id, "SeesAll");
        }
        let found = world.get(&world.admin, "/api/apps/discover").await;
        assert_eq!(found.body.as_array().unwrap().len(), 2, "{}", found.text);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_sees_and_cancels_what_copies_his_application_for_an_administrator() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        let (app, path) = (format!("/api/apps/{id}"), format!("/api/apps/{id}/clone"));
        let refused = Fault::Status { status: 403, reason: None, after_effect: false };
        let rule = FaultRule::forever("container.clone", refused.clone());
        world.simulator.faults().add(rule).unwrap();
        let rule = FaultRule::forever("container.destroy", refused);
        world.simulator.faults().add(rule).unwrap();
        let body = json!({ "new_hostname": "hidden-02", "allow_downtime": true });
        let made = world.post(&world.admin, &path, &body).await;
        assert_eq!(made.status, 202, "{}", made.text);
        let (copy, operation) =
            (made.body["id"].as_str().unwrap(), made.header("location").to_owned());

        let seen = world.get(&world.owner, &operation).await;
        assert_eq!((seen.status.as_u16(), &seen.body["app"]), (200, &json!(copy)), "{}", seen.text);
        for hidden in ["vmid", "node", "host_id", "hostname", "reason"] {
            assert!(seen.body[hidden].is_null(), "{hidden}: {}", seen.text);
        }
        assert!(!seen.text.contains("hidden-02"), "{}", seen.text);
        world.get(&world.owner, &format!("/api/apps/{copy}")).await.problem(404, "not_found");
        world.get(&world.other, &operation).await.problem(404, "not_found");
        world
            .post(&world.other, &format!("{operation}/cancel"), &json!({}))
            .await
            .problem(404, "not_found");
        world
            .post(&world.owner, &format!("{operation}/abandon"), &json!({ "note": "x" }))
            .await
            .problem(403, "admin.required");
        // It may have ended by itself.
        let cancelled = world.post(&world.owner, &format!("{operation}/cancel"), &json!({})).await;
        assert!([202, 409].contains(&cancelled.status.as_u16()), "{}", cancelled.text);
        let ends = ["undone", "stuck"];
        world
            .until(&operation, |answer| {
                ends.contains(&answer.body["state"].as_str().unwrap_or_default())
            })
            .await;
        if world.get(&world.admin, &operation).await.body["state"] == "stuck" {
            let listed =
                world.get(&world.owner, &format!("/api/operations?app={id}&state=stuck")).await;
            assert_eq!(
                listed.body["operations"][0]["id"],
                operation.rsplit('/').next().unwrap(),
                "{}",
                listed.text
            );
            assert!(!listed.text.contains("hidden-02"), "{}", listed.text);
            let busy = world
                .post(&world.owner, &format!("{app}/action"), &json!({ "action": "stop" }))
                .await;
            busy.problem(409, "operation.stuck");
        }
        let theirs = world.get(&world.other, &format!("/api/operations?app={id}")).await;
        assert_eq!(theirs.body["total"], 0, "{}", theirs.text);
        world.stop().await;
    })
    .await;
}
