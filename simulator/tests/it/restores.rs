//! What a restore makes of the disks: new ones for every volume of the archive's configuration.

use proximity_simulator::SimulatorHandle;
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
