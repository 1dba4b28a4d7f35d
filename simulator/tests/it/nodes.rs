//! Several nodes behind one address, and nodes that fail.

use proximity_simulator::{NodeConfig, SimulatorConfig, TaskTimes};
use serde_json::json;

use crate::support::{ALPINE, with};

fn cluster(names: &[&str]) -> SimulatorConfig {
    SimulatorConfig {
        nodes: names.iter().map(|name| NodeConfig::new(name)).collect(),
        cluster: Some("lab".to_owned()),
        ..SimulatorConfig::quick()
    }
}

#[tokio::test]
async fn a_cluster_names_itself_and_a_lone_node_does_not() {
    let (sim, root) = with(cluster(&["pve1", "pve2", "pve3"])).await;
    let status = root.get("/cluster/status").await;
    assert_eq!(status.data()[0]["type"], "cluster");
    assert_eq!(
        (&status.data()[0]["name"], &status.data()[0]["quorate"]),
        (&json!("lab"), &json!(1))
    );
    assert_eq!(status.data().as_array().unwrap().len(), 4);
    let nodes = root.get("/nodes").await;
    assert_eq!(nodes.data()[0]["ssl_fingerprint"], json!(sim.fingerprint()));
    assert_eq!(nodes.data()[2]["node"], "pve3");
    let (_lone, root) = with(SimulatorConfig::quick()).await;
    let status = root.get("/cluster/status").await;
    let types: Vec<_> =
        status.data().as_array().unwrap().iter().map(|r| r["type"].clone()).collect();
    assert_eq!(types, [json!("node")]);
}

#[tokio::test]
async fn a_guest_is_known_to_its_own_node_only() {
    let (sim, root) = with(cluster(&["pve1", "pve2", "pve3"])).await;
    let created = root.post("/nodes/pve2/lxc", &[("vmid", "201"), ("ostemplate", ALPINE)]).await;
    assert_eq!(root.exit(&created).await, "OK");
    root.get("/nodes/pve1/lxc/201/config")
        .await
        .refused(500, "Configuration file 'nodes/pve1/lxc/201.conf' does not exist");
    root.post("/nodes/pve1/lxc", &[("vmid", "201"), ("ostemplate", ALPINE)])
        .await
        .refused(500, "CT 201 already exists on node 'pve2'");
    sim.move_container(201, "pve3").unwrap();
    root.get("/nodes/pve2/lxc/201/config")
        .await
        .refused(500, "Configuration file 'nodes/pve2/lxc/201.conf' does not exist");
    assert_eq!(root.get("/nodes/pve3/lxc/201/config").await.status, 200);
    let resources = root.get("/cluster/resources?type=vm").await;
    assert_eq!(resources.data()[0]["node"], "pve3");
}

#[tokio::test]
async fn a_backup_of_a_guest_of_another_node_is_passed_over_in_silence() {
    let (sim, root) = with(cluster(&["pve1", "pve2"])).await;
    root.container(201, &[]).await;
    let job = [("vmid", "201"), ("storage", "local")];
    assert_eq!(root.post("/nodes/pve2/vzdump", &job).await.body, json!({"data": "OK"}));
    let unknown = root.post("/nodes/pve2/vzdump", &[("vmid", "999"), ("storage", "local")]).await;
    assert_eq!(root.exit(&unknown).await, "job errors");
    assert!(sim.ledger().backups.is_empty());
}

#[tokio::test]
async fn a_node_that_is_down_is_unreachable_and_its_tasks_died_with_their_locks() {
    let (sim, root) = with(cluster(&["pve1", "pve2", "pve3"])).await;
    let mut times = TaskTimes::instant();
    times.by_type.insert("vzcreate".to_owned(), (60_000, 60_000));
    sim.set_task_times(times);
    let created = root.post("/nodes/pve2/lxc", &[("vmid", "201"), ("ostemplate", ALPINE)]).await;
    let upid = created.data().as_str().unwrap().to_owned();
    sim.node_down("pve2").await.unwrap();
    let down = root.get("/nodes/pve2/lxc").await;
    assert_eq!(
        (down.status, down.reason.as_str(), down.text.as_str()),
        (595, "No route to host", "")
    );
    let resources = root.get("/cluster/resources?type=vm").await;
    assert_eq!(
        resources.data(),
        &json!([{"id": "lxc/201", "type": "lxc", "vmid": 201, "node": "pve2", "status": "unknown"}])
    );
    assert_eq!(root.get("/cluster/status").await.data()[0]["quorate"], 1);
    sim.node_down("pve3").await.unwrap();
    assert_eq!(root.get("/cluster/status").await.data()[0]["quorate"], 0);
    root.post("/nodes/pve1/lxc", &[("vmid", "300"), ("ostemplate", ALPINE)])
        .await
        .refused(500, "cluster not ready - no quorum?");
    sim.node_up("pve2").await.unwrap();
    assert_eq!(root.exit_of(&upid).await, "unexpected status");
    let config = root.get("/nodes/pve2/lxc/201/config").await;
    assert_eq!(config.data()["lock"], "create", "nobody was left to clean up");
    root.delete("/nodes/pve2/lxc/201").await.refused(500, "CT is locked (create)");
    for name in ["pve1", "pve2"] {
        sim.node_down(name).await.unwrap();
    }
    assert!(root.request(reqwest::Method::GET, "/version").send().await.is_err());
    assert!(sim.node_down("nope").await.is_err());
}
