//! The control surface, as a script in another process uses it.

use proximity_simulator::{FaultRule, Foreign, Ledger};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{ALPINE, quick};

#[tokio::test]
async fn the_ledger_and_the_journal_can_be_read_from_outside() {
    let (sim, root) = quick().await;
    root.container(100, &[("description", "marker")]).await;
    let base = sim.control_url();
    let ledger: Ledger =
        root.http.get(format!("{base}/ledger")).send().await.unwrap().json().await.unwrap();
    assert_eq!(ledger, sim.ledger());
    assert_eq!(ledger.container(100).unwrap().config["description"], "marker");
    let journal: Value =
        root.http.get(format!("{base}/journal")).send().await.unwrap().json().await.unwrap();
    assert_eq!(journal[0]["what"], "container.created");
    assert_eq!(journal[0]["description"], "marker");
    let text =
        root.http.get(format!("{base}/requests")).send().await.unwrap().text().await.unwrap();
    assert!(!text.contains(sim.root_password()), "no credential is kept");
    let foreign = root.http.get(format!("{base}/ledger")).header("Host", "evil.example");
    assert_eq!(foreign.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(
        root.http.get(format!("{base}/nope")).send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn faults_nodes_and_strangers_can_be_scripted_from_outside() {
    let (sim, root) = quick().await;
    let base = sim.control_url();
    let rule = json!({"when": {"effect": "container.list"}, "fault": {"kind": "html_page"}});
    let posted = root.http.post(format!("{base}/faults")).json(&json!([rule, rule])).send();
    assert_eq!(posted.await.unwrap().status(), StatusCode::CREATED);
    assert!(root.get("/nodes/pve1/lxc").await.text.starts_with("<!DOCTYPE"));
    assert_eq!(sim.faults().list()[0].fired, 1);
    let rules: Vec<FaultRule> = sim.faults().list().into_iter().map(|state| state.rule).collect();
    assert_eq!(rules.len(), 2);
    let bad = root.http.post(format!("{base}/faults")).json(&json!({"fault": {"kind": "nope"}}));
    assert_eq!(bad.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    root.http.delete(format!("{base}/faults")).send().await.unwrap();
    assert!(sim.faults().list().is_empty());
    let planted = root.http.post(format!("{base}/containers")).json(&json!({
        "vmid": 300, "hostname": "theirs", "description": "do not touch", "running": true,
    }));
    assert_eq!(planted.send().await.unwrap().status(), StatusCode::CREATED);
    let line = sim.ledger().container(300).unwrap().clone();
    assert_eq!((line.name.as_str(), line.status.as_str()), ("theirs", "running"));
    assert!(sim.plant_container(Foreign { vmid: Some(300), ..Foreign::default() }).await.is_err());
    root.http.post(format!("{base}/nodes/pve1/down")).send().await.unwrap();
    assert!(root.request(reqwest::Method::GET, "/version").send().await.is_err());
    root.http.post(format!("{base}/nodes/pve1/up")).send().await.unwrap();
    assert_eq!(root.get("/version").await.status, 200);
    assert_eq!(sim.ledger().container(300).unwrap().status, "stopped", "it does not start at boot");
}

#[tokio::test]
async fn a_planted_leak_shows_in_the_leftovers() {
    let (sim, root) = quick().await;
    let baseline = sim.ledger();
    root.container(100, &[]).await;
    let gone = root.delete("/nodes/pve1/lxc/100").await;
    assert_eq!(root.exit(&gone).await, "OK");
    assert_eq!(sim.ledger(), baseline);
    assert!(sim.ledger().leftovers(&baseline).is_empty());
    let vmid = sim.plant_container(Foreign::default()).await.unwrap();
    let found = sim.ledger().leftovers(&baseline);
    assert_eq!(found.len(), 2, "the container and its disk: {found:?}");
    sim.edit_container(vmid, "lock", Some("disk")).unwrap();
    assert!(sim.ledger().leftovers(&baseline).contains(&format!("lock disk on container {vmid}")));
    sim.remove_container(vmid).await.unwrap();
    assert_eq!(sim.ledger(), baseline);
}

#[tokio::test]
async fn a_shut_down_simulator_leaves_no_port_and_no_task() {
    let (sim, root) = quick().await;
    sim.faults()
        .add(FaultRule::once(
            "container.create",
            proximity_simulator::Fault::TaskNeverEnds { after_effect: false },
        ))
        .unwrap();
    let created = root.post("/nodes/pve1/lxc", &[("vmid", "100"), ("ostemplate", ALPINE)]).await;
    assert_eq!(created.status, 200);
    let address = sim.address();
    sim.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

/// As Proxmox does: a disk of which no container is there counts as a virtual machine's, and of a kind
/// that the storage does not take nothing is listed.
#[tokio::test]
async fn a_disk_without_a_container_is_listed_only_where_the_storage_takes_images() {
    let (sim, root) = quick().await;
    let disk = sim.plant_disk("pve1", "local-btrfs", 100).unwrap();
    let listed = async || {
        let rows = root.get("/nodes/pve1/storage/local-btrfs/content").await;
        rows.data().as_array().unwrap().iter().any(|row| row["volid"] == json!(disk))
    };
    assert!(listed().await);
    let base = sim.control_url();
    let content = root.http.post(format!("{base}/storages/local-btrfs/content"));
    let answer = content.json(&json!(["rootdir"])).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!listed().await);
    root.container(100, &[]).await;
    assert!(listed().await, "of a number that a container has all are");
    assert!(sim.set_content("nope", &["rootdir"]).is_err());
}

#[tokio::test]
async fn a_person_destroys_nothing_that_proxmox_refuses_to() {
    let (sim, root) = quick().await;
    root.container(100, &[("protection", "1")]).await;
    let why = sim.destroy_container(100).await.unwrap_err().to_string();
    assert!(why.contains("protection mode enabled"), "{why}");
    sim.edit_container(100, "protection", None).unwrap();
    sim.edit_container(100, "lock", Some("create")).unwrap();
    let why = sim.destroy_container(100).await.unwrap_err().to_string();
    assert!(why.contains("CT is locked (create)"), "{why}");
    sim.edit_container(100, "lock", None).unwrap();
    sim.destroy_container(100).await.unwrap();
    assert!(sim.destroy_container(100).await.is_err(), "it is gone");
}
