//! Restores that Proxmox could not carry out, because of room, of rights or of a move: refused at the door,
//! and taken back where that came about after the call.

use std::time::{Duration, Instant};

use proximity_simulator::{Fault, FaultRule, NodeConfig, StorageConfig, StorageKind, Times, When};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Kind, on_both};
use crate::restored_volumes::{adopted, assert_restored, backed_up, ended};
use crate::world::World;

const GIBIBYTE: u64 = 1 << 30;

/// A node whose containers are on a storage of this kind, and its archives elsewhere.
fn node(kind: StorageKind) -> Vec<NodeConfig> {
    let storage = |name: &str, kind, content: &[&str]| StorageConfig {
        name: name.to_owned(),
        kind,
        content: content.iter().map(|content| (*content).to_owned()).collect(),
        total: 1 << 40,
    };
    let storages = vec![
        storage("local", StorageKind::Dir, &["vztmpl", "backup"]),
        storage("thick", kind, &["rootdir"]),
    ];
    vec![NodeConfig { storages, ..NodeConfig::new("pve1") }]
}

/// Holds the second look into an archive up: the first is the call's, this one `check_archive`'s.
fn hold_check(world: &World) {
    let when = When {
        method: Some("GET".to_owned()),
        path: Some("extractconfig$".to_owned()),
        nth: Some(2),
        ..When::default()
    };
    let rule = FaultRule { when, times: Times::Once, fault: Fault::Slow { ms: 1_500 } };
    world.simulator.faults().add(rule).unwrap();
}

/// Has the API log in by a token instead of a password.
async fn by_token(world: &World) {
    let credential = world.simulator.add_token("root@pam", "server", false).unwrap();
    let (token, secret) = credential.split_once('=').unwrap();
    let token = json!({ "token_id": token, "token_secret": secret });
    let path = "/api/proxmox/hosts/1";
    let changed = world.server.as_person(&world.admin, Method::PUT, path, Some(&token)).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
}

async fn accepted(world: &World, path: &str, in_place: bool) -> Value {
    let answer = world.post(&world.admin, path, &json!({ "in_place": in_place })).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.body["operation"].clone()
}

/// Asks for a restore until the answer is as wanted.
async fn until(world: &World, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = world.post(&world.admin, path, &json!({})).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "after a minute it still answers {}", answer.text);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The container as it was, and nothing beside it.
async fn assert_untouched(world: &World, operation: &Value, node: &str, why: &str) {
    let end = ended(world, operation).await;
    assert_eq!(end["state"], "undone", "{end:#}");
    assert!(end.to_string().contains(why), "{end:#}");
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.containers.len(), 1);
    let guest = &ledger.containers[0];
    assert_eq!((guest.vmid, guest.node.as_str(), guest.status.as_str()), (150, node, "running"));
}

/// Proxmox makes the disks of the archive's configuration, whatever the container has by now.
#[tokio::test(flavor = "multi_thread")]
async fn room_is_needed_for_the_disks_of_the_backup_and_not_for_those_of_the_container() {
    on_both(async |kind| {
        for in_place in [false, true] {
            let world = World::start_on(kind, node(StorageKind::Lvm)).await;
            let app = adopted(&world).await;
            world.simulator.edit_container(150, "mp0", None).unwrap();
            world.simulator.add_volume(150, "mp0", "mp=/data,backup=1", 100 * GIBIBYTE).unwrap();
            let path = backed_up(&world, &world.admin, &app).await;
            let disk = world.simulator.ledger().container(150).unwrap().config["mp0"].clone();
            let (disk, _) = disk.split_once(',').unwrap();
            world.simulator.edit_container(150, "mp0", None).unwrap();
            world.simulator.remove_volume(disk).unwrap();
            world.simulator.leave_free(20 * GIBIBYTE);
            let answer = world.post(&world.admin, &path, &json!({ "in_place": in_place })).await;
            answer.problem(409, "restore.no_space");
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(
                detail.contains("storage thick (lvm)") && detail.contains("105 GiB"),
                "{detail}"
            );

            world.simulator.leave_free(110 * GIBIBYTE);
            if in_place {
                hold_check(&world);
                let operation = accepted(&world, &path, true).await;
                world.simulator.leave_free(20 * GIBIBYTE);
                assert_untouched(&world, &operation, "pve1", "it allocates the disks").await;
                world.simulator.clear_faults();
                world.simulator.leave_free(110 * GIBIBYTE);
            }
            let body = json!({ "in_place": in_place });
            assert_restored(&world, &world.admin, &path, &body).await;
            world.stop().await;
        }
    })
    .await;
}

/// A disk on such a storage takes what is written to it, so its size says little.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_a_thin_storage_has_room_for_is_carried_out() {
    for kind in [StorageKind::Dir, StorageKind::ZfsPool] {
        let world = World::start_on(Kind::Sqlite, node(kind)).await;
        let app = world.deployed(&world.admin, "web-01").await;
        let path = backed_up(&world, &world.admin, &app).await;
        world.simulator.leave_free(1 << 20);
        let dry = format!("{path}?dry_run=true");
        let answer = world.post(&world.admin, &dry, &json!({})).await;
        if kind == StorageKind::ZfsPool {
            // It may compress better than the archive.
            assert_eq!(answer.status, 200, "{}", answer.text);
        } else {
            answer.problem(409, "restore.no_space");
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains("the archive alone"), "{detail}");
        }
        world.simulator.leave_free(GIBIBYTE);
        for in_place in [false, true] {
            let body = json!({ "in_place": in_place });
            assert_restored(&world, &world.admin, &path, &body).await;
        }
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_root_restores_what_mounts_a_directory_of_the_node() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = adopted(&world).await;
        world.simulator.edit_container(150, "mp0", None).unwrap();
        world.simulator.edit_container(150, "mp7", Some("/srv/share,mp=/srv")).unwrap();
        let path = backed_up(&world, &world.admin, &app).await;
        hold_check(&world);
        let operation = accepted(&world, &path, true).await;
        by_token(&world).await;
        assert_untouched(&world, &operation, "pve1", "mp7 (/srv/share)").await;
        for in_place in [false, true] {
            let answer = world.post(&world.admin, &path, &json!({ "in_place": in_place })).await;
            answer.problem(409, "restore.needs_root");
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains("mp7 (/srv/share)"), "{detail}");
        }
        let password = json!({ "password": world.simulator.root_password() });
        let host = "/api/proxmox/hosts/1";
        let changed =
            world.server.as_person(&world.admin, Method::PUT, host, Some(&password)).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        for in_place in [true, false] {
            let body = json!({ "in_place": in_place });
            assert_restored(&world, &world.admin, &path, &body).await;
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_moves_before_it_is_overwritten_is_left_alone() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = adopted(&world).await;
        world.simulator.edit_container(150, "mp0", None).unwrap();
        let path = backed_up(&world, &world.admin, &app).await;
        hold_check(&world);
        let operation = accepted(&world, &path, true).await;
        world.simulator.move_container(150, "pve2").unwrap();
        assert_untouched(&world, &operation, "pve2", "has moved to node pve2").await;
        world.stop().await;
    })
    .await;
}

/// As it is wanted on the day on which a node is gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_on_a_shared_storage_is_restored_without_the_node_that_made_it() {
    on_both(async |kind| {
        // With two of three the cluster still has a quorum, without which nothing is concluded.
        let nodes = ["pve1", "pve2", "pve3"].map(NodeConfig::new).to_vec();
        let world = World::start_on(kind, nodes).await;
        let app = adopted(&world).await;
        world.simulator.edit_container(150, "mp0", None).unwrap();
        let look = async |wanted: &str| {
            let path = "/api/proxmox/hosts/1/reconcile";
            let looked = world.post(&world.admin, path, &json!({})).await;
            assert_eq!(looked.status, 200, "{}", looked.text);
            let shown = format!("/api/apps/{app}");
            world.until(&shown, |answer| answer.body["node"] == wanted).await;
        };
        world.simulator.move_container(150, "pve2").unwrap();
        look("pve2").await;
        let path = backed_up(&world, &world.admin, &app).await;
        world.simulator.move_container(150, "pve1").unwrap();
        look("pve1").await;
        world.simulator.node_down("pve2").await.unwrap();
        // What hosts say is kept for some seconds.
        until(&world, &path, |answer| {
            assert_ne!(answer.status, 202, "{}", answer.text);
            answer.status == 503 && answer.body["code"] == "nodes.none_online"
        })
        .await;
        world.simulator.share_storage("local");
        let answer = until(&world, &path, |answer| answer.status != 503).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let end = ended(&world, &answer.body["operation"]).await;
        assert_eq!(end["state"], "done", "{end:#}");
        assert_eq!(world.simulator.ledger().containers[0].node, "pve1");
        // It can be removed there as well.
        let backup = path.strip_suffix("/restore").unwrap();
        let removal = world.delete_as(&world.admin, backup).await;
        assert_eq!(removal.status, 202, "{}", removal.text);
        let end = ended(&world, &removal.body["operation"]).await;
        assert_eq!(end["state"], "done", "{end:#}");
        world.get(&world.admin, backup).await.problem(404, "not_found");
        let left = world.simulator.ledger().backups;
        assert!(left.iter().all(|archive| archive.node != "pve1"), "{left:?}");
        world.stop().await;
    })
    .await;
}
