//! Creating in unusual ways: from OCI images, with mount points, two hundred at once, for a caller that hung up.

use proximity_simulator::SimulatorConfig;
use reqwest::Method;
use serde_json::json;

use crate::support::{ALPINE, got, quick, with};

#[tokio::test]
async fn an_oci_image_is_pulled_and_brings_its_own_environment() {
    let (sim, root) = quick().await;
    let pull = root.post(
        "/nodes/pve1/storage/local/oci-registry-pull",
        &[("reference", "docker.io/library/caddy:2.10"), ("filename", "caddy_2.10")],
    );
    let pulled = pull.await;
    assert_eq!(root.exit(&pulled).await, "OK");
    let volid = "local:vztmpl/caddy_2.10.tar";
    let content = root.get("/nodes/pve1/storage/local/content?content=vztmpl").await;
    assert!(content.data().as_array().unwrap().iter().any(|row| row["volid"] == volid));
    let wrong =
        root.post("/nodes/pve1/storage/local/oci-registry-pull", &[("reference", "no tag")]).await;
    assert_eq!(wrong.error("reference"), "value does not match the regex pattern");
    let env = "PATH=/bin\0A=1";
    let form = [("vmid", "100"), ("ostemplate", volid), ("env", env)];
    let created = root.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(root.exit(&created).await, "OK");
    assert_ne!(root.config(100).await["env"], json!(env), "the image's own wins at create");
    assert_eq!(root.put("/nodes/pve1/lxc/100/config", &[("env", env)]).await.status, 200);
    assert_eq!(root.config(100).await["env"], json!(env));
    for (name, value) in [
        ("env", "A=1\nlxc.mount.entry: /etc etc none bind 0 0"),
        ("env", "A=1\0B=2\r"),
        ("env", "a-b=1"),
        ("entrypoint", "/run\nlxc.cap.drop:"),
    ] {
        let refused = root.put("/nodes/pve1/lxc/100/config", &[(name, value)]).await;
        assert_eq!(refused.error(name), "value does not match the regex pattern");
    }
    assert_eq!(root.put("/nodes/pve1/lxc/100/config", &[("env", "A=a\tb")]).await.status, 200);
    assert_eq!(sim.ledger().container(100).unwrap().image, volid);
    let config = SimulatorConfig { oci_image_wins: false, ..SimulatorConfig::quick() };
    let (_other, root) = with(config).await;
    let pulled = root
        .post("/nodes/pve1/storage/local/oci-registry-pull", &[("reference", "caddy:2.10")])
        .await;
    assert_eq!(root.exit(&pulled).await, "OK");
    let created = root.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(root.exit(&created).await, "OK");
    assert_eq!(root.config(100).await["env"], json!(env));
}

#[tokio::test]
async fn a_mount_point_needs_a_root_and_a_bare_number_is_a_size() {
    let (sim, root) = quick().await;
    let form = [("vmid", "100"), ("ostemplate", ALPINE), ("mp0", "local:1,mp=/data")];
    root.post("/nodes/pve1/lxc", &form)
        .await
        .refused(500, "mount points configured, but 'rootfs' not set - aborting");
    root.container(100, &[("rootfs", "2"), ("mp0", "local-btrfs:1,mp=/data")]).await;
    let config = root.config(100).await;
    assert_eq!(config["rootfs"], "local:100/vm-100-disk-0.raw,size=2G");
    assert_eq!(config["mp0"], "local-btrfs:100/vm-100-disk-0.raw,mp=/data,size=1G");
    let gone = root.delete("/nodes/pve1/lxc/100").await;
    assert_eq!(root.exit(&gone).await, "OK");
    assert!(sim.ledger().disks.is_empty(), "both disks go");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_callers_at_once_each_get_a_guest_and_leave_nothing() {
    let config = SimulatorConfig {
        lock_wait: std::time::Duration::from_secs(10),
        guest_ports: vec![proximity_simulator::GuestPorts {
            image_contains: "alpine".to_owned(),
            ports: vec![(8_080, proximity_simulator::Speaks::Http)],
        }],
        ..SimulatorConfig::quick()
    };
    let (sim, root) = with(config).await;
    let baseline = sim.ledger();
    let lives = (0..200).map(|n| {
        let root = root.clone();
        async move {
            let vmid = 1_000 + n;
            root.container(vmid, &[("net0", "name=eth0,bridge=vmbr0,ip=dhcp")]).await;
            root.start(vmid).await;
            let shown = root.get(&format!("/nodes/pve1/lxc/{vmid}/interfaces")).await;
            let inet = shown.data()[1]["inet"].as_str().unwrap().to_owned();
            let address = inet.split('/').next().unwrap().to_owned();
            let page = root.http.get(format!("http://{address}:8080/")).send().await.unwrap();
            assert!(page.text().await.unwrap().contains(&format!("CT{vmid}")));
            let gone = root.delete(&format!("/nodes/pve1/lxc/{vmid}?force=1")).await;
            assert_eq!(root.exit(&gone).await, "OK");
        }
    });
    futures_util::future::join_all(lives).await;
    assert_eq!(sim.ledger(), baseline);
    assert!((1..=3).contains(&sim.busiest()), "never more than the workers there are");
}

#[tokio::test]
async fn what_was_ordered_is_carried_out_although_its_caller_hangs_up() {
    let (sim, root) = quick().await;
    sim.faults()
        .add(proximity_simulator::FaultRule::once(
            "container.create",
            proximity_simulator::Fault::Slow { ms: 200 },
        ))
        .unwrap();
    let request = root
        .request(Method::POST, "/nodes/pve1/lxc")
        .form(&[("vmid", "100"), ("ostemplate", ALPINE)]);
    let hung_up = tokio::time::timeout(std::time::Duration::from_millis(20), got(request)).await;
    assert!(hung_up.is_err());
    let claimed = async {
        while sim.ledger().containers.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), claimed).await.unwrap();
    sim.idle().await;
    assert_eq!(sim.ledger().container(100).unwrap().lock, None);
    let seen = sim.requests_seen();
    let create = seen.requests.iter().find(|request| request.path.ends_with("/lxc"));
    assert!(create.is_none(), "nobody was left to be answered: {create:?}");
}
