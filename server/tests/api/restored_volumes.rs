//! Restores of containers with data volumes, which a backup need not hold, with snapshots, which none
//! holds, and with a resource pool.

use proximity_simulator::{Foreign, TaskTimes};
use serde_json::{Value, json};

use crate::harness::on_both;
use crate::world::{Person, World};

pub async fn ended(world: &World, operation: &Value) -> Value {
    let path = format!("/api/operations/{}", operation.as_str().unwrap());
    let over = |state: &Value| ["done", "undone", "stuck"].contains(&state.as_str().unwrap_or(""));
    world.until(&path, |answer| over(&answer.body["state"])).await.body
}

/// Backs an application up; where the backup is restored.
pub async fn backed_up(world: &World, who: &Person, app: &str) -> String {
    let id = world.backed_up(who, app).await;
    format!("/api/apps/{app}/backups/{id}/restore")
}

/// Restores what is there to its end.
pub async fn assert_restored(world: &World, who: &Person, path: &str, body: &Value) {
    let answer = world.post(who, path, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let end = ended(world, &answer.body["operation"]).await;
    assert_eq!(end["state"], "done", "{end:#}");
}

/// Container 150 with `/data` on a volume that no backup holds and `/kept` on one that they do, adopted.
pub async fn adopted(world: &World) -> String {
    let stranger = Foreign {
        vmid: Some(150),
        hostname: Some("legacy".to_owned()),
        config: [
            ("cores".to_owned(), "1".to_owned()),
            ("net0".to_owned(), "name=eth0,bridge=vmbr0,ip=dhcp".to_owned()),
        ]
        .into(),
        image: "debian-12".to_owned(),
        running: true,
        ..Foreign::default()
    };
    world.simulator.plant_container(stranger).await.unwrap();
    world.simulator.add_volume(150, "mp0", "mp=/data", 2 << 30).unwrap();
    world.simulator.add_volume(150, "mp1", "mp=/kept,backup=1", 1 << 30).unwrap();
    world.simulator.put_into_pool(150, "customers").unwrap();
    let body = json!({ "vmid": 150, "node_name": "pve1" });
    let adopted = world.post(&world.admin, "/api/apps/adopt", &body).await;
    assert_eq!(adopted.status, 202, "{}", adopted.text);
    world.until(adopted.header("location"), |answer| answer.body["state"] == "done").await;
    adopted.body["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_the_backup_does_not_hold_is_not_destroyed_unless_that_is_agreed_to() {
    on_both(async |kind| {
        for in_place in [false, true] {
            let world = World::start(kind).await;
            let app = adopted(&world).await;
            let path = backed_up(&world, &world.admin, &app).await;
            let before = world.simulator.ledger();
            let body = json!({ "in_place": in_place });
            let answer = world.post(&world.admin, &path, &body).await;
            answer.problem(409, "restore.would_lose_volumes");
            let volume = &before.disks.iter().find(|disk| disk.size == 2 << 30).unwrap().volid;
            let named = format!("mp0 ({volume} at /data)");
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains(&named) && !detail.contains("/kept"), "{detail}");
            assert_eq!(world.simulator.ledger(), before, "nothing was done");

            let body = json!({ "in_place": in_place, "lose_volumes": true });
            assert_restored(&world, &world.admin, &path, &body).await;
            let after = world.simulator.ledger();
            assert_eq!((after.containers.len(), after.disks.len()), (1, 3), "{after:#?}");
            let guest = &after.containers[0];
            assert_eq!((guest.vmid == 150, guest.pool.as_deref()), (in_place, Some("customers")));
            for key in ["rootfs", "mp0", "mp1"] {
                let own = format!("vm-{}-disk-", guest.vmid);
                assert!(guest.config[key].contains(&own), "{key}: {}", guest.config[key]);
            }
            world.stop().await;
        }
    })
    .await;
}

/// What was marked when the backup was made is in it, whatever the configuration says now.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_volumes_are_all_in_the_backup_is_restored_without_a_word() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = adopted(&world).await;
        let at = |key: &str| world.simulator.ledger().container(150).unwrap().config[key].clone();
        let marked = format!("{},backup=1", at("mp0"));
        world.simulator.edit_container(150, "mp0", Some(&marked)).unwrap();
        let path = backed_up(&world, &world.admin, &app).await;
        let unmarked = at("mp1").replace("backup=1", "backup=0");
        world.simulator.edit_container(150, "mp1", Some(&unmarked)).unwrap();
        world.simulator.edit_container(150, "mp7", Some("/srv,mp=/srv")).unwrap();
        assert_restored(&world, &world.admin, &path, &json!({})).await;
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_cannot_be_entered_keeps_nobody_from_a_restore() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let vmid = world.simulator.ledger().containers[0].vmid;
        world.simulator.put_into_pool(vmid, "gone").unwrap();
        world.simulator.remove_pool("gone");
        let path = backed_up(&world, &world.owner, &app).await;
        assert_restored(&world, &world.owner, &path, &json!({})).await;
        assert_eq!(world.simulator.ledger().containers[0].pool, None);
        world.stop().await;
    })
    .await;
}

/// Proxmox leaves it out of the configuration that it shows by default, and destroys its volume all the
/// same.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_mount_point_is_being_taken_away_is_not_destroyed_either() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = adopted(&world).await;
        world.simulator.edit_container(150, "mp0", None).unwrap();
        let path = backed_up(&world, &world.admin, &app).await;
        // Its contents are in the backup, but whoever takes it away may want to keep the volume.
        world.simulator.unmount(150, "mp1").unwrap();
        let volume = world.simulator.ledger().container(150).unwrap().config["mp1"].clone();
        let (volume, _) = volume.split_once(',').unwrap();
        for in_place in [false, true] {
            let answer = world.post(&world.admin, &path, &json!({ "in_place": in_place })).await;
            answer.problem(409, "restore.would_lose_volumes");
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains(&format!("mp1 ({volume})")), "{detail}");
        }
        // After a restart it is an unused one, and counts as such.
        world.simulator.power_container(150, false).await.unwrap();
        world.simulator.power_container(150, true).await.unwrap();
        assert_eq!(world.simulator.ledger().container(150).unwrap().config["unused0"], volume);
        let answer = world.post(&world.admin, &path, &json!({})).await;
        answer.problem(409, "restore.would_lose_volumes");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_not_destroyed_unless_that_is_agreed_to() {
    on_both(async |kind| {
        for in_place in [false, true] {
            let world = World::start(kind).await;
            let app = world.deployed(&world.owner, "web-01").await;
            let vmid = world.simulator.ledger().containers[0].vmid;
            let path = backed_up(&world, &world.owner, &app).await;
            // Of a copy that was broken off: nobody has to miss it.
            let passing = format!("px{}", "0123456789abcdef".repeat(2));
            world.simulator.plant_snapshot(vmid, &passing).unwrap();
            world.simulator.plant_snapshot(vmid, "before-upgrade").unwrap();
            let body = json!({ "in_place": in_place });
            let answer = world.post(&world.owner, &path, &body).await;
            answer.problem(409, "restore.would_lose_volumes");
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains("snapshot before-upgrade"), "{detail}");
            assert!(!detail.contains(&passing), "{detail}");

            let body = json!({ "in_place": in_place, "lose_volumes": true });
            assert_restored(&world, &world.owner, &path, &body).await;
            world.stop().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_taken_after_the_call_undoes_the_restore() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let vmid = world.simulator.ledger().containers[0].vmid;
        let path = backed_up(&world, &world.owner, &app).await;
        let slow = [("vzrestore".to_owned(), (1_500, 1_500))].into();
        world.simulator.set_task_times(TaskTimes { by_type: slow, ..TaskTimes::instant() });
        let answer = world.post(&world.owner, &path, &json!({})).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        world.simulator.plant_snapshot(vmid, "before-restore").unwrap();
        let end = ended(&world, &answer.body["operation"]).await;
        assert_eq!(end["state"], "undone", "{end:#}");
        assert!(end.to_string().contains("snapshot before-restore"), "{end:#}");
        let ledger = world.simulator.ledger();
        assert_eq!((ledger.containers.len(), ledger.containers[0].vmid), (1, vmid));
        assert_eq!(ledger.containers[0].status, "running");
        world.stop().await;
    })
    .await;
}
