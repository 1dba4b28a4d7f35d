//! What a restore makes of the disks: new ones for every volume of the archive's configuration.

use proximity_simulator::{
    NodeConfig, Simulator, SimulatorConfig, SimulatorHandle, StorageConfig, StorageKind,
};
use serde_json::json;

use crate::support::{Caller, quick};

async fn stored(sim: &SimulatorHandle, root: &Caller) -> (String, Vec<String>) {
    let dump = root.post("/nodes/pve1/vzdump", &[("vmid", "101"), ("storage", "local")]).await;
    assert_eq!(root.exit(&dump).await, "OK");
    let log = root.log(dump.data().as_str().unwrap()).await;
    (sim.ledger().backups[0].volid.clone(), log)
}

fn disks(sim: &SimulatorHandle) -> Vec<String> {
    sim.ledger().disks.into_iter().map(|disk| disk.volid).collect()
}

#[tokio::test]
async fn every_volume_is_made_anew_and_none_is_of_another_number() {
    let (sim, root) = quick().await;
    let mounts = [
        ("rootfs", "local:1"),
        ("mp0", "local:2,mp=/data"),
        ("mp1", "local:3,mp=/kept,backup=1"),
        ("mp2", "/srv,mp=/srv"),
    ];
    root.container(101, &mounts).await;
    let (volid, log) = stored(&sim, &root).await;
    for line in [
        "INFO: including mount point rootfs ('/') in backup",
        "INFO: excluding volume mount point mp0 ('/data') from backup (disabled)",
        "INFO: including mount point mp1 ('/kept') in backup",
        "INFO: excluding bind mount point mp2 ('/srv') from backup (not a volume)",
    ] {
        assert!(log.iter().any(|said| said == line), "{line}: {log:#?}");
    }
    let form = [
        ("vmid", "160"),
        ("ostemplate", volid.as_str()),
        ("restore", "1"),
        ("storage", "local-btrfs"),
    ];
    let made = root.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(root.exit(&made).await, "OK");
    let config = root.config(160).await;
    for (key, value) in [
        ("mp0", "local-btrfs:160/vm-160-disk-0.raw,mp=/data,size=2G"),
        ("mp1", "local-btrfs:160/vm-160-disk-1.raw,backup=1,mp=/kept,size=3G"),
        ("mp2", "/srv,mp=/srv"),
        ("rootfs", "local-btrfs:160/vm-160-disk-2.raw,size=1G"),
    ] {
        assert_eq!(config[key], json!(value));
    }
    let gone = root.delete("/nodes/pve1/lxc/101").await;
    assert_eq!(root.exit(&gone).await, "OK");
    assert_eq!(disks(&sim).len(), 3, "the restored one's stay: {:?}", disks(&sim));

    let token = Caller::token(&sim, &sim.add_token("root@pam", "rt", false).unwrap());
    let form = [("vmid", "161"), ("ostemplate", volid.as_str()), ("restore", "1")];
    let refused = token.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(
        token.exit(&refused).await,
        "unable to restore CT 161 - restoring 'mp2' to bind mount is only possible for root"
    );
    assert_eq!((disks(&sim).len(), sim.ledger().container(161)), (3, None));
}

#[tokio::test]
async fn where_new_disks_do_not_fit_the_old_ones_stay_without_a_configuration() {
    let (sim, root) = quick().await;
    root.container(101, &[("rootfs", "local:4"), ("mp0", "local:4,mp=/data")]).await;
    let (volid, _) = stored(&sim, &root).await;
    let before = disks(&sim);
    // Enough for the first of them.
    sim.leave_free((4 << 30) / 32 + (1 << 20));
    let form = [("vmid", "101"), ("ostemplate", volid.as_str()), ("restore", "1"), ("force", "1")];
    let failed = root.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(
        root.exit(&failed).await,
        "unable to restore CT 101 - unable to create image: No space left on device"
    );
    assert_eq!((sim.ledger().container(101), disks(&sim)), (None, before));
    sim.leave_free(1 << 40);
    let form = [("vmid", "101"), ("ostemplate", volid.as_str()), ("restore", "1")];
    let again = root.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(root.exit(&again).await, "OK");
    assert_eq!(disks(&sim).len(), 4, "nobody removes what nobody owns");
}

#[tokio::test]
async fn a_restore_over_a_container_makes_the_new_disks_first() {
    let (sim, root) = quick().await;
    root.container(101, &[("rootfs", "local:1"), ("mp0", "local:1,mp=/data")]).await;
    let (volid, _) = stored(&sim, &root).await;
    let form = [("vmid", "101"), ("ostemplate", volid.as_str()), ("restore", "1"), ("force", "1")];
    let over = root.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(root.exit(&over).await, "OK");
    assert_eq!(disks(&sim), ["local:101/vm-101-disk-2.raw", "local:101/vm-101-disk-3.raw"]);
}

#[tokio::test]
async fn a_mount_point_goes_from_a_running_container_at_its_next_start_and_its_volume_stays() {
    let (sim, root) = quick().await;
    root.container(101, &[("rootfs", "local:1"), ("mp0", "local:2,mp=/data")]).await;
    root.start(101).await;
    let path = "/nodes/pve1/lxc/101/config";
    assert_eq!(root.put(path, &[("delete", "mp0")]).await.status, 200);
    assert!(!root.config(101).await.contains_key("mp0"), "as it is once that is done");
    let now = root.get(&format!("{path}?current=1")).await;
    assert_eq!(now.data()["mp0"], "local:101/vm-101-disk-0.raw,mp=/data,size=2G");
    let stopped = root.post("/nodes/pve1/lxc/101/status/stop", &[]).await;
    assert_eq!(root.exit(&stopped).await, "OK");
    root.start(101).await;
    let config = root.config(101).await;
    assert_eq!(config["unused0"], "local:101/vm-101-disk-0.raw");
    assert!(!config.contains_key("mp0") && disks(&sim).len() == 2, "{config:?}");
    // What nothing mounts goes at once, with its volume.
    assert_eq!(root.put(path, &[("delete", "unused0")]).await.status, 200);
    assert_eq!(disks(&sim), ["local:101/vm-101-disk-1.raw"]);
}

#[tokio::test]
async fn a_logical_volume_takes_all_of_its_size_at_once() {
    let kinds = [("local", StorageKind::Dir), ("thick", StorageKind::Lvm)];
    let storages = kinds.map(|(name, kind)| StorageConfig {
        name: name.to_owned(),
        kind,
        content: ["vztmpl", "backup", "rootdir"].map(str::to_owned).to_vec(),
        total: 1 << 40,
    });
    let node = NodeConfig { storages: storages.to_vec(), ..NodeConfig::new("pve1") };
    let sim = Simulator::start(SimulatorConfig { nodes: vec![node], ..SimulatorConfig::quick() });
    let sim = sim.await.unwrap();
    let root = Caller::root(&sim).await;
    root.container(101, &[("rootfs", "local:4")]).await;
    let (volid, _) = stored(&sim, &root).await;
    sim.leave_free(3 << 30);
    for (vmid, storage, exit) in [
        (
            "160",
            "thick",
            "unable to restore CT 160 - unable to create image: No space left on device",
        ),
        ("161", "local", "OK"),
    ] {
        let archive = volid.as_str();
        let form =
            [("vmid", vmid), ("ostemplate", archive), ("restore", "1"), ("storage", storage)];
        let made = root.post("/nodes/pve1/lxc", &form).await;
        assert_eq!(root.exit(&made).await, exit);
    }
    sim.leave_free(5 << 30);
    let form = [("vmid", "160"), ("ostemplate", &*volid), ("restore", "1"), ("storage", "thick")];
    let made = root.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(root.exit(&made).await, "OK");
    assert_eq!(root.config(160).await["rootfs"], "thick:vm-160-disk-0,size=4G");
}
