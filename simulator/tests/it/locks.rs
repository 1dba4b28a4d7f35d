//! The two kinds of lock, and the three workers.

use std::time::{Duration, Instant};

use proximity_simulator::{Fault, FaultRule, SimulatorConfig, TaskTimes};
use serde_json::json;

use crate::support::{ALPINE, with};

fn slow(kind: &str, ms: u64) -> SimulatorConfig {
    let mut times = TaskTimes::instant();
    times.by_type.insert(kind.to_owned(), (ms, ms));
    SimulatorConfig { task_times: times, ..SimulatorConfig::quick() }
}

#[tokio::test]
async fn a_container_in_creation_is_a_lock_and_nothing_else() {
    let (_sim, root) = with(slow("vzcreate", 800)).await;
    let created = root.post("/nodes/pve1/lxc", &[("vmid", "141"), ("ostemplate", ALPINE)]).await;
    let config = root.config(141).await;
    assert_eq!(config.keys().collect::<Vec<_>>(), ["digest", "lock"]);
    assert_eq!(config["lock"], "create");
    let current = root.get("/nodes/pve1/lxc/141/status/current").await;
    let data = current.data();
    assert_eq!(data["maxdisk"], json!(4_294_967_296_u64));
    assert_eq!(data["maxmem"], json!(536_870_912));
    assert_eq!((&data["name"], &data["lock"]), (&json!("CT141"), &json!("create")));
    root.delete("/nodes/pve1/lxc/141").await.refused(500, "CT is locked (create)");
    let busy = "can't lock file '/run/lock/lxc/pve-config-141.lock' - got timeout";
    let started = root.post("/nodes/pve1/lxc/141/status/start", &[]).await;
    let asked = Instant::now();
    root.put("/nodes/pve1/lxc/141/config", &[("memory", "80")]).await.refused(500, busy);
    assert!(asked.elapsed() >= Duration::from_millis(290), "it waited first");
    let upid = started.data().as_str().unwrap().to_owned();
    assert_eq!(root.exit(&started).await, busy);
    assert_eq!(root.log(&upid).await[0], "trying to acquire lock...");
    assert_eq!(root.exit(&created).await, "OK");
}

#[tokio::test]
async fn a_copy_in_the_making_has_all_but_its_disks_under_its_lock() {
    let (sim, root) = with(slow("vzclone", 60_000)).await;
    root.container(141, &[("hostname", "source"), ("rootfs", "local:1")]).await;
    let copy = [("newid", "142"), ("description", "mine"), ("hostname", "copy")];
    let cloning = root.post("/nodes/pve1/lxc/141/clone", &copy).await;
    let config = root.config(142).await;
    assert_eq!((&config["lock"], &config["description"]), (&json!("create"), &json!("mine\n")));
    assert_eq!(config["hostname"], "copy");
    assert!(!config.contains_key("rootfs"), "{config:?}");
    let upid = cloning.data().as_str().unwrap();
    assert_eq!(root.delete(&format!("/nodes/pve1/tasks/{upid}")).await.status, 200);
    root.exit_of(upid).await;
    assert!(sim.ledger().container(142).is_none());
    assert_eq!(sim.ledger().disks.len(), 1, "the source's disk is still there");
}

#[tokio::test]
async fn a_backup_locks_its_container_against_everything() {
    let (sim, root) = with(slow("vzdump", 100_000)).await;
    root.container(140, &[]).await;
    root.container(141, &[]).await;
    let job = [("vmid", "140"), ("storage", "local"), ("mode", "stop")];
    let dump = root.post("/nodes/pve1/vzdump", &job).await;
    while root.config(140).await.get("lock") != Some(&json!("backup")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let active = root.get("/nodes/pve1/tasks?source=active").await;
    assert_eq!(active.data()[0]["status"], "RUNNING");
    assert_eq!(active.data()[0]["saved"], "0");
    let locked = "CT is locked (backup)";
    let start = root.post("/nodes/pve1/lxc/140/status/start", &[]).await;
    assert_eq!(root.exit(&start).await, locked);
    root.delete("/nodes/pve1/lxc/140").await.refused(500, locked);
    root.put("/nodes/pve1/lxc/140/config", &[("memory", "80")]).await.refused(500, locked);
    root.post("/nodes/pve1/lxc/140/clone", &[("newid", "150"), ("full", "1")])
        .await
        .refused(500, locked);
    let second = [("vmid", "141"), ("storage", "local"), ("mode", "stop"), ("lockwait", "0")];
    let second = root.post("/nodes/pve1/vzdump", &second).await;
    assert_eq!(root.exit(&second).await, "unexpected status");
    assert_eq!(
        root.log(second.data().as_str().unwrap()).await,
        ["ERROR: can't acquire lock '/var/run/vzdump.lock' (wait = 0)"]
    );
    let upid = dump.data().as_str().unwrap();
    assert_eq!(root.delete(&format!("/nodes/pve1/tasks/{upid}")).await.status, 200);
    assert_eq!(root.exit_of(upid).await, "job errors");
    assert!(!root.config(140).await.contains_key("lock"), "an aborted backup unlocks");
    assert!(sim.ledger().backups.is_empty());
    root.start(140).await;
}

#[tokio::test]
async fn three_workers_block_and_the_rest_waits() {
    let (sim, root) =
        with(SimulatorConfig { lock_wait: Duration::from_millis(500), ..SimulatorConfig::quick() })
            .await;
    root.container(103, &[]).await;
    root.container(104, &[]).await;
    sim.faults()
        .add(FaultRule::once("container.start", Fault::TaskNeverEnds { after_effect: false }))
        .unwrap();
    // The hanging start holds the container's lock file.
    let start = root.post("/nodes/pve1/lxc/103/status/start", &[]).await;
    let upid = start.data().as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    let puts = (0..6).map(|_| root.put("/nodes/pve1/lxc/103/config", &[("memory", "70")]));
    let puts = futures_util::future::join_all(puts);
    let reads = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let asked = Instant::now();
        assert_eq!(root.get("/version").await.status, 200);
        assert_eq!(root.get("/cluster/resources").await.status, 200);
        let unblocked = asked.elapsed();
        assert_eq!(root.get("/nodes/pve1/lxc").await.status, 200);
        (unblocked, asked.elapsed())
    };
    let (puts, (unblocked, listed)) = tokio::join!(puts, reads);
    for got in &puts {
        got.refused(500, "can't lock file '/run/lock/lxc/pve-config-103.lock' - got timeout");
    }
    assert!(unblocked < Duration::from_millis(300), "unprotected calls took {unblocked:?}");
    assert!(listed > Duration::from_millis(300), "the list came through at once: {listed:?}");
    assert!(began.elapsed() >= Duration::from_millis(990), "six calls by three workers");
    assert_eq!(sim.busiest(), 3);
    assert_eq!(root.delete(&format!("/nodes/pve1/tasks/{upid}")).await.status, 200);
    assert_eq!(root.exit_of(&upid).await, "received interrupt");
    root.start(103).await;
}
