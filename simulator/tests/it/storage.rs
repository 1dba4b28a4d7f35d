//! Snapshots, clones, backups, restores and the content of storages.

use proximity_simulator::{Fault, FaultRule};
use serde_json::json;

use crate::support::{ALPINE, Caller, quick};

const FIXED: (&str, &str) = ("net0", "name=eth0,bridge=vmbr0,ip=127.62.0.51/24");

async fn exit(root: &Caller, path: &str, form: &[(&str, &str)]) -> String {
    let got = root.post(path, form).await;
    root.exit(&got).await
}

#[tokio::test]
async fn snapshots_work_where_the_storage_can_and_fail_in_the_task_elsewhere() {
    let (sim, root) = quick().await;
    root.container(100, &[]).await;
    root.container(101, &[("rootfs", "local-btrfs:1"), ("memory", "64")]).await;
    let feature = |vmid: u32| format!("/nodes/pve1/lxc/{vmid}/feature?feature=snapshot");
    assert_eq!(root.get(&feature(100)).await.data(), &json!({"hasFeature": 0}));
    assert_eq!(root.get(&feature(101)).await.data(), &json!({"hasFeature": 1}));
    let plain = exit(&root, "/nodes/pve1/lxc/100/snapshot", &[("snapname", "s1")]).await;
    assert_eq!(plain, "snapshot feature is not available");
    let path = "/nodes/pve1/lxc/101/snapshot";
    let s1 = [("snapname", "s1"), ("description", "first")];
    assert_eq!(exit(&root, path, &s1).await, "OK");
    assert_eq!(exit(&root, path, &s1).await, "snapshot name 's1' already used");
    let bad = root.post(path, &[("snapname", "1bad")]).await;
    assert_eq!(bad.error("snapname"), "invalid format - invalid configuration ID '1bad'\n");
    let short = root.post(path, &[("snapname", "x")]).await;
    assert_eq!(short.error("snapname"), "invalid format - invalid configuration ID 'x'\n");
    root.post(path, &[("snapname", "current")])
        .await
        .refused(500, "unable to use snapshot name 'current' (reserved name)");
    let list = root.get(path).await;
    assert_eq!(
        (&list.data()[0]["name"], &list.data()[0]["description"]),
        (&json!("s1"), &json!("first\n"))
    );
    let current = &list.data()[1];
    assert_eq!((&current["name"], &current["parent"]), (&json!("current"), &json!("s1")));
    assert_eq!(current["description"], "You are here!");
    root.get(&format!("{path}/nope/config")).await.refused(500, "snapshot 'nope' does not exist");
    assert_eq!(root.get(&format!("{path}/s1/config")).await.data()["memory"], 64);
    assert_eq!(root.put("/nodes/pve1/lxc/101/config", &[("memory", "96")]).await.status, 200);
    root.start(101).await;
    let nope = exit(&root, &format!("{path}/nope/rollback"), &[]).await;
    assert_eq!(nope, "snapshot 'nope' does not exist");
    assert_eq!(exit(&root, &format!("{path}/s1/rollback"), &[]).await, "OK");
    assert_eq!(root.config(101).await["memory"], 64);
    let state = root.get("/nodes/pve1/lxc/101/status/current").await;
    assert_eq!(state.data()["status"], "stopped", "a rollback stops");
    assert_eq!(exit(&root, &format!("{path}/s1/rollback"), &[("start", "1")]).await, "OK");
    sim.idle().await;
    let state = root.get("/nodes/pve1/lxc/101/status/current").await;
    assert_eq!(state.data()["status"], "running", "its hidden start has ended");
    let gone = root.delete(&format!("{path}/nope")).await;
    assert_eq!(root.exit(&gone).await, "snapshot 'nope' does not exist");
    let gone = root.delete(&format!("{path}/s1")).await;
    assert_eq!(root.exit(&gone).await, "OK");
    assert_eq!(root.get(path).await.data().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_clone_keeps_everything_but_its_hardware_address() {
    let (sim, root) = quick().await;
    root.container(
        101,
        &[
            FIXED,
            ("rootfs", "local-btrfs:1"),
            ("tags", "t1"),
            ("description", "owner=somebody"),
            ("hostname", "source"),
        ],
    )
    .await;
    let path = "/nodes/pve1/lxc/101/clone";
    assert_eq!(exit(&root, path, &[("newid", "106"), ("hostname", "copy")]).await, "OK");
    let (source, copy) = (root.config(101).await, root.config(106).await);
    assert_eq!(copy["description"], source["description"], "and with it a marker");
    assert_eq!(copy["tags"], source["tags"]);
    assert_eq!(copy["hostname"], "copy");
    assert_ne!(copy["net0"], source["net0"]);
    assert!(copy["net0"].as_str().unwrap().contains("ip=127.62.0.51/24"));
    assert!(!source.contains_key("lock"), "the source is free again");
    let own = [("newid", "107"), ("description", "mine")];
    assert_eq!(exit(&root, path, &own).await, "OK");
    assert_eq!(root.config(107).await["description"], "mine\n");
    root.post(path, &[("newid", "106")]).await.refused(500, "CT 106 already exists on node 'pve1'");
    root.start(101).await;
    let full = "Full clone of a running container is only possible from a snapshot";
    root.post(path, &[("newid", "102")]).await.refused(500, full);
    assert_eq!(exit(&root, "/nodes/pve1/lxc/101/snapshot", &[("snapname", "s1")]).await, "OK");
    let from = [("newid", "103"), ("snapname", "s1"), ("full", "1")];
    assert_eq!(exit(&root, path, &from).await, "OK");
    assert_eq!(root.post("/nodes/pve1/lxc/106/template", &[]).await.body, json!({"data": null}));
    assert_eq!(root.config(106).await["rootfs"], "local-btrfs:106/base-106-disk-0.raw,size=1G");
    let linked = [("newid", "163"), ("full", "0")];
    assert_eq!(exit(&root, path, &linked).await, "OK", "of one that runs, too, on btrfs");
    assert_eq!(exit(&root, "/nodes/pve1/lxc/106/clone", &[("newid", "165")]).await, "OK");
    root.container(108, &[("rootfs", "local:1")]).await;
    root.post("/nodes/pve1/lxc/108/clone", &[("newid", "166"), ("full", "0")])
        .await
        .refused(500, "Linked clone feature for 'local:108/vm-108-disk-0.raw' is not available");
    let start = exit(&root, "/nodes/pve1/lxc/106/status/start", &[]).await;
    assert_eq!(start, "you can't start a CT if it's a template");
    let baseline = sim.ledger();
    sim.faults()
        .add(FaultRule::once(
            "container.clone",
            Fault::TaskFails { text: "no space".to_owned(), after_effect: false },
        ))
        .unwrap();
    let failed = exit(&root, "/nodes/pve1/lxc/107/clone", &[("newid", "164")]).await;
    assert_eq!(failed, "clone failed: no space");
    assert_eq!(sim.ledger(), baseline);
}

#[tokio::test]
async fn a_backup_can_be_restored_to_a_new_number_and_over_the_old_one() {
    let (sim, root) = quick().await;
    root.container(
        101,
        &[FIXED, ("rootfs", "local-btrfs:1"), ("memory", "64"), ("hostname", "ct101")],
    )
    .await;
    let job = [
        ("vmid", "101"),
        ("storage", "local"),
        ("mode", "snapshot"),
        ("compress", "zstd"),
        ("notes-template", "{{guestname}} {{vmid}} note"),
        ("protected", "1"),
    ];
    let dump = root.post("/nodes/pve1/vzdump", &job).await;
    assert_eq!(root.exit(&dump).await, "OK");
    let log = root.log(dump.data().as_str().unwrap()).await;
    assert!(log.iter().any(|line| line == "INFO: backup mode: stop"), "it was stopped: {log:?}");
    let list = root.get("/nodes/pve1/storage/local/content?content=backup&vmid=101").await;
    let entry = &list.data()[0];
    let volid = entry["volid"].as_str().unwrap().to_owned();
    assert!(volid.starts_with("local:backup/vzdump-lxc-101-20") && volid.ends_with(".tar.zst"));
    assert_eq!(entry["notes"], "ct101 101 note");
    assert_eq!((&entry["protected"], &entry["subtype"]), (&json!(1), &json!("lxc")));
    let config = root.get(&format!("/nodes/pve1/vzdump/extractconfig?volume={volid}")).await;
    assert!(config.data().as_str().unwrap().contains("hostname: ct101\n"));
    let restore = |vmid: &'static str, more: &[(&'static str, &'static str)]| {
        let mut form: Vec<(&str, String)> = vec![
            ("vmid", vmid.to_owned()),
            ("ostemplate", volid.clone()),
            ("restore", "1".to_owned()),
        ];
        form.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let root = root.clone();
        async move {
            let form: Vec<(&str, &str)> = form.iter().map(|(k, v)| (*k, v.as_str())).collect();
            root.post("/nodes/pve1/lxc", &form).await
        }
    };
    let fresh =
        restore("160", &[("hostname", "restored"), ("memory", "96"), ("unique", "1")]).await;
    assert!(fresh.data().as_str().unwrap().contains(":vzrestore:160:"));
    assert_eq!(root.exit(&fresh).await, "OK");
    let config = root.config(160).await;
    assert_eq!((&config["hostname"], &config["memory"]), (&json!("restored"), &json!(96)));
    assert_eq!(config["rootfs"], "local:160/vm-160-disk-0.raw,size=1G", "local, not where it was");
    assert_ne!(config["net0"], root.config(101).await["net0"]);
    restore("101", &[]).await.refused(500, "CT 101 already exists on node 'pve1'");
    root.start(101).await;
    restore("101", &[("force", "1")]).await.refused(500, "can't overwrite running container");
    assert_eq!(exit(&root, "/nodes/pve1/lxc/101/status/stop", &[]).await, "OK");
    let over = restore("101", &[("force", "1"), ("storage", "local-btrfs")]).await;
    assert_eq!(root.exit(&over).await, "OK");
    let missing = [
        ("vmid", "111"),
        ("restore", "1"),
        ("storage", "local"),
        ("ostemplate", "local:backup/vzdump-lxc-111-2026_01_01-00_00_00.tar.zst"),
    ];
    assert_eq!(
        exit(&root, "/nodes/pve1/lxc", &missing).await,
        "unable to restore CT 111 - volume \
         'local:backup/vzdump-lxc-111-2026_01_01-00_00_00.tar.zst' does not exist"
    );
    assert!(sim.ledger().container(111).is_none());
    let path = format!("/nodes/pve1/storage/local/content/{}", volid.replace('/', "%2F"));
    let kept = root.delete(&path).await;
    assert_eq!(
        root.exit(&kept).await,
        format!("cannot remove protected volume '{}' on 'local'", &volid["local:".len()..])
    );
    assert_eq!(root.put(&path, &[("protected", "0"), ("notes", "changed")]).await.status, 200);
    let gone = root.delete(&path).await;
    assert!(gone.data().as_str().unwrap().contains(":imgdel:101@local:"));
    assert_eq!(root.exit(&gone).await, "OK");
    let again = root.delete(&path).await;
    assert_eq!(root.exit(&again).await, "OK", "deleting what is gone succeeds");
    assert!(root.log(again.data().as_str().unwrap()).await[0].ends_with("does not exist"));
}

#[tokio::test]
async fn a_storage_with_a_retention_refuses_one_backup_more_unless_the_job_prunes() {
    let (sim, root) = quick().await;
    let defaults = "/nodes/pve1/vzdump/defaults?storage=local";
    assert_eq!(root.get(defaults).await.data().get("prune-backups"), None);
    sim.set_retention("local", Some("keep-last=1,keep-daily=1")).unwrap();
    assert_eq!(root.get(defaults).await.data()["prune-backups"], "keep-last=1,keep-daily=1");
    root.container(101, &[]).await;
    let keeping = [("vmid", "101"), ("storage", "local"), ("remove", "0")];
    for _ in 0..2 {
        assert_eq!(exit(&root, "/nodes/pve1/vzdump", &keeping).await, "OK");
    }
    let third = root.post("/nodes/pve1/vzdump", &keeping).await;
    assert_eq!(root.exit(&third).await, "job errors");
    let log = root.log(third.data().as_str().unwrap()).await;
    let refused = "ERROR: Backup of VM 101 failed - There is a max backup limit of 2 enforced by the \
                   target storage or the vzdump parameters. Either increase the limit or delete old \
                   backups.";
    assert!(log.iter().any(|line| line == refused), "{log:?}");
    // The job's own words stand over the storage's.
    let all = [keeping.as_slice(), &[("prune-backups", "keep-all=1")]].concat();
    assert_eq!(exit(&root, "/nodes/pve1/vzdump", &all).await, "OK");
    assert_eq!(sim.ledger().backups.len(), 3);
    let pruning = [("vmid", "101"), ("storage", "local"), ("prune-backups", "keep-last=2")];
    assert_eq!(exit(&root, "/nodes/pve1/vzdump", &pruning).await, "OK");
    assert_eq!(sim.ledger().backups.len(), 2);
    assert!(sim.set_retention("nope", None).is_err());
    assert!(sim.set_retention("local", Some("keep-first=1")).is_err());
}

#[tokio::test]
async fn a_failed_backup_says_why_in_its_log_only() {
    let (sim, root) = quick().await;
    let unknown = root.post("/nodes/pve1/vzdump", &[("vmid", "999"), ("storage", "local")]).await;
    assert_eq!(root.exit(&unknown).await, "job errors");
    let log = root.log(unknown.data().as_str().unwrap()).await;
    assert!(log.contains(&"ERROR: Backup of VM 999 failed - unable to find VM '999'".to_owned()));
    root.container(101, &[]).await;
    let wrong = [("vmid", "101"), ("storage", "local-btrfs")];
    assert_eq!(
        exit(&root, "/nodes/pve1/vzdump", &wrong).await,
        "could not get storage information for 'local-btrfs': can't use storage 'local-btrfs' for \
         backups - wrong content type"
    );
    root.start(101).await;
    let dump = root.post("/nodes/pve1/vzdump", &[("vmid", "101"), ("storage", "local")]).await;
    assert_eq!(root.exit(&dump).await, "OK");
    let log = root.log(dump.data().as_str().unwrap()).await;
    assert!(log.contains(&"INFO: trying 'suspend' mode instead".to_owned()), "{log:?}");
    assert_eq!(sim.ledger().backups.len(), 1);
}

#[tokio::test]
async fn a_forced_restore_that_fails_late_has_lost_the_container() {
    let (sim, root) = quick().await;
    root.container(101, &[]).await;
    assert_eq!(
        exit(&root, "/nodes/pve1/vzdump", &[("vmid", "101"), ("storage", "local")]).await,
        "OK"
    );
    let volid = sim.ledger().backups[0].volid.clone();
    sim.faults()
        .add(FaultRule::once(
            "container.create",
            Fault::TaskFails { text: "tar failed".to_owned(), after_effect: false },
        ))
        .unwrap();
    let form = [("vmid", "101"), ("ostemplate", volid.as_str()), ("restore", "1"), ("force", "1")];
    assert_eq!(
        exit(&root, "/nodes/pve1/lxc", &form).await,
        "unable to restore CT 101 - tar failed"
    );
    let ledger = sim.ledger();
    assert!(ledger.disks.is_empty(), "the old disk went first");
    assert!(ledger.container(101).is_none(), "and the configuration with the new one");

    // Nothing holds the number any more, so it takes no force.
    let anew = [("vmid", "101"), ("ostemplate", volid.as_str()), ("restore", "1")];
    assert_eq!(exit(&root, "/nodes/pve1/lxc", &anew).await, "OK");
    let missing = [
        ("vmid", "101"),
        ("ostemplate", "local:backup/vzdump-lxc-101-2026_01_01-00_00_00.tar.zst"),
        ("restore", "1"),
        ("force", "1"),
    ];
    let before = sim.ledger();
    assert!(exit(&root, "/nodes/pve1/lxc", &missing).await.ends_with("does not exist"));
    assert_eq!(sim.ledger(), before, "what fails before the disks go changes nothing");

    // A worker that dies cleans nothing up.
    let dies = Fault::TaskDies { after_effect: false };
    sim.faults().add(FaultRule::once("container.create", dies)).unwrap();
    assert_eq!(exit(&root, "/nodes/pve1/lxc", &form).await, "unexpected status");
    let config = root.config(101).await;
    let keys: Vec<&str> = config.keys().map(String::as_str).collect();
    assert_eq!((keys, &config["lock"]), (vec!["digest", "lock"], &json!("create")));
}

#[tokio::test]
async fn a_protected_container_is_not_restored_over() {
    let (sim, root) = quick().await;
    root.container(101, &[("protection", "1")]).await;
    let dump = [("vmid", "101"), ("storage", "local")];
    assert_eq!(exit(&root, "/nodes/pve1/vzdump", &dump).await, "OK");
    let volid = sim.ledger().backups[0].volid.clone();
    let form = [("vmid", "101"), ("ostemplate", volid.as_str()), ("restore", "1"), ("force", "1")];
    let refused = root.post("/nodes/pve1/lxc", &form).await;
    refused.refused(500, "unable to restore CT 101 - protection mode enabled");
}

#[tokio::test]
async fn a_restore_by_a_token_leaves_the_raw_lines_out_and_says_so() {
    let (sim, root) = quick().await;
    let pull = [("reference", "docker.io/library/caddy:2.10"), ("filename", "caddy")];
    let pulled = root.post("/nodes/pve1/storage/local/oci-registry-pull", &pull).await;
    assert_eq!(root.exit(&pulled).await, "OK");
    let image = [("vmid", "100"), ("ostemplate", "local:vztmpl/caddy.tar")];
    assert_eq!(exit(&root, "/nodes/pve1/lxc", &image).await, "OK");
    let env = [("env", "PATH=/bin\0A=1"), ("entrypoint", "/run"), ("description", "a: b")];
    assert_eq!(root.put("/nodes/pve1/lxc/100/config", &env).await.status, 200);
    let before = root.config(100).await;
    assert_eq!(before["lxc"], json!([["lxc.init.cwd", "/"], ["lxc.signal.halt", "SIGTERM"]]));
    let dump = [("vmid", "100"), ("storage", "local")];
    assert_eq!(exit(&root, "/nodes/pve1/vzdump", &dump).await, "OK");
    let volid = sim.ledger().backups[0].volid.clone();
    let token = Caller::token(&sim, &sim.add_token("root@pam", "t", false).unwrap());

    let inside = token.get(&format!("/nodes/pve1/vzdump/extractconfig?volume={volid}")).await;
    let text = inside.data().as_str().unwrap();
    assert!(text.starts_with("#a%3A b\n"), "{text}");
    for line in ["lxc.environment.runtime: A=1\n", "entrypoint: /run\n", "lxc.init.cwd: /\n"] {
        assert!(text.contains(line), "{text}");
    }
    let restore = |vmid| [("vmid", vmid), ("ostemplate", volid.as_str()), ("restore", "1")];
    let whole = root.post("/nodes/pve1/lxc", &restore("150")).await;
    assert_eq!(root.exit(&whole).await, "OK");
    let config = root.config(150).await;
    assert_eq!((&config["env"], &config["lxc"]), (&before["env"], &before["lxc"]));

    let reduced = token.post("/nodes/pve1/lxc", &restore("151")).await;
    assert_eq!(token.exit(&reduced).await, "WARNINGS: 1");
    let config = root.config(151).await;
    assert_eq!((config.get("env"), config.get("lxc")), (None, None));
    assert_eq!((&config["entrypoint"], &config["memory"]), (&json!("/run"), &before["memory"]));
    let log = root.log(reduced.data().as_str().unwrap()).await;
    let warned = "WARN: skipping custom lxc options, restore manually as root:";
    let at = log.iter().position(|line| line == warned).expect("it is said");
    assert!(log[at..].contains(&"lxc.environment.runtime: A=1".to_owned()), "{log:?}");
    assert_eq!(log.last().unwrap(), "TASK WARNINGS: 1");
}

#[tokio::test]
async fn templates_come_from_the_index() {
    let (sim, root) = quick().await;
    let index = root.get("/nodes/pve1/aplinfo").await;
    let files: Vec<&str> = index
        .data()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["template"].as_str().unwrap())
        .collect();
    assert!(files.contains(&"debian-12-turnkey-core_18.1-1_amd64.tar.gz"));
    let debian = files.iter().find(|file| file.starts_with("debian-13")).unwrap();
    let before = root.get("/nodes/pve1/storage/local/content?content=vztmpl").await;
    assert_eq!(before.data().as_array().unwrap().len(), 1);
    assert_eq!(before.data()[0]["volid"], ALPINE);
    assert_eq!(before.data()[0]["format"], "txz");
    let form = [("storage", "local"), ("template", *debian)];
    assert_eq!(exit(&root, "/nodes/pve1/aplinfo", &form).await, "OK");
    assert_eq!(exit(&root, "/nodes/pve1/aplinfo", &form).await, "OK", "having it is no error");
    assert_eq!(sim.ledger().templates.len(), 2);
    let unknown = root
        .post("/nodes/pve1/aplinfo", &[("storage", "local"), ("template", "nope.tar.zst")])
        .await;
    assert_eq!(unknown.error("template"), "no such template");
    let missing =
        root.delete("/nodes/pve1/storage/local/content/local:vztmpl%2Fnone.tar.zst").await;
    assert!(missing.data().as_str().unwrap().contains(":imgdel:local:"));
    assert_eq!(root.exit(&missing).await, "OK");
    root.get("/nodes/pve1/storage/nope/content")
        .await
        .refused(500, "storage 'nope' does not exist");
    let status = root.get("/nodes/pve1/storage/local/status").await;
    assert_eq!(status.data()["type"], "dir");
}
