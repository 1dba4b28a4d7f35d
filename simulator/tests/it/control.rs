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
