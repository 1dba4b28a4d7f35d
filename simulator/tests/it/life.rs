//! The life of a container, call by call as it was recorded.

use serde_json::{Value, json};

use crate::support::{ALPINE, quick};

#[tokio::test]
async fn a_container_is_created_with_the_recorded_defaults() {
    let (sim, root) = quick().await;
    let form = [
        ("vmid", "101"),
        ("ostemplate", ALPINE),
        ("hostname", "ct101"),
        ("rootfs", "local-btrfs:1"),
        ("memory", "64"),
        ("swap", "0"),
        ("cores", "1"),
        ("unprivileged", "1"),
        ("net0", "name=eth0,bridge=vmbr0,ip=10.99.0.51/24,gw=10.99.0.1"),
        ("tags", "proximity;Demo"),
        ("description", "hello\nworld \u{e9}"),
    ];
    let created = root.post("/nodes/pve1/lxc", &form).await;
    let upid = created.data().as_str().unwrap().to_owned();
    assert!(upid.starts_with("UPID:pve1:"), "{upid}");
    assert!(upid.ends_with(":vzcreate:101:root@pam:"), "{upid}");
    assert_eq!(root.exit(&created).await, "OK");
    assert_eq!(root.log(&upid).await.last().unwrap(), "TASK OK");
    let config = root.config(101).await;
    assert_eq!(config["description"], "hello\nworld \u{e9}\n");
    assert_eq!(config["tags"], "demo;proximity");
    assert_eq!(config["rootfs"], "local-btrfs:101/vm-101-disk-0.raw,size=1G");
    assert_eq!(config["memory"], json!(64));
    assert_eq!(config["unprivileged"], json!(1));
    assert_eq!(config["ostype"], "alpine");
    assert_eq!(config["digest"].as_str().unwrap().len(), 40);
    let net = config["net0"].as_str().unwrap();
    let (before, after) = net.split_once("hwaddr=BC:24:11:").unwrap();
    assert_eq!(before, "name=eth0,bridge=vmbr0,gw=10.99.0.1,");
    assert_eq!(&after[8..], ",ip=10.99.0.51/24,type=veth");
    root.container(123, &[]).await;
    let plain = root.config(123).await;
    assert_eq!(plain["hostname"], "CT123");
    assert_eq!((&plain["memory"], &plain["swap"]), (&json!(512), &json!(512)));
    assert_eq!(plain["rootfs"], "local:123/vm-123-disk-0.raw,size=4G");
    assert_eq!(plain["unprivileged"], json!(1), "the default since PVE 9");
    assert_eq!(sim.ledger().disks.len(), 2);
    sim.shutdown().await;
}

#[tokio::test]
async fn wrong_parameters_are_refused_in_the_recorded_words() {
    let (sim, root) = quick().await;
    let missing = root.post("/nodes/pve1/lxc", &[]).await;
    assert_eq!(missing.error("vmid"), "property is missing and it is not optional");
    assert_eq!(missing.error("ostemplate"), "property is missing and it is not optional");
    let cases = [
        ("vmid", "99", "invalid format - value does not look like a valid VM ID\n"),
        ("vmid", "abc", "type check ('integer') failed - got 'abc'"),
        (
            "bogus",
            "1",
            "property is not defined in schema and the schema does not allow additional properties",
        ),
        ("memory", "8", "value must have a minimum value of 16"),
        ("hostname", "bad_host!", "invalid format - value does not look like a valid DNS name\n"),
        (
            "net0",
            "name=eth0,bridge=vmbr0,ip=300.1.1.1/24",
            "invalid format - format error\nnet0.ip: invalid format - value does not look like a \
             valid ipv4 network configuration\n\n",
        ),
        (
            "net0",
            "bridge=vmbr0",
            "invalid format - format error\nnet0.name: property is missing and it is not optional\n",
        ),
        ("start", "maybe", "type check ('boolean') failed - got 'maybe'"),
        ("password", "abc", "value must be at least 5 characters long"),
        (
            "features",
            "nesting=2",
            "invalid format - format error\nfeatures.nesting: type check ('boolean') failed - got '2'\n",
        ),
        ("tags", "bad tag!", "invalid format - invalid characters in tag\n"),
    ];
    for (name, value, text) in cases {
        let mut form = vec![("vmid", "130"), ("ostemplate", ALPINE)];
        form.retain(|(key, _)| *key != name);
        form.push((name, value));
        let got = root.post("/nodes/pve1/lxc", &form).await;
        assert_eq!(got.error(name), text, "{name}={value}");
    }
    let unique = root
        .post("/nodes/pve1/lxc", &[("vmid", "130"), ("ostemplate", ALPINE), ("unique", "1")])
        .await;
    assert_eq!(unique.error("restore"), "missing property - 'unique' requires this property");
    let storage = [("vmid", "130"), ("ostemplate", ALPINE), ("rootfs", "nope:1")];
    root.post("/nodes/pve1/lxc", &storage).await.refused(500, "storage 'nope' does not exist");
    let kind = [("vmid", "130"), ("ostemplate", "local:backup/vzdump-lxc-1.tar.zst")];
    root.post("/nodes/pve1/lxc", &kind).await.refused(
        500,
        "unable to use volume local:backup/vzdump-lxc-1.tar.zst - content type needs to be 'vztmpl'",
    );
    assert!(sim.ledger().containers.is_empty());
}

#[tokio::test]
async fn a_failed_create_leaves_nothing_behind() {
    let (sim, root) = quick().await;
    let baseline = sim.ledger();
    let huge = [("vmid", "130"), ("ostemplate", ALPINE), ("rootfs", "local:999999")];
    let created = root.post("/nodes/pve1/lxc", &huge).await;
    assert_eq!(
        root.exit(&created).await,
        "unable to create CT 130 - unable to create image: qemu-img: \
         /var/lib/vz/images/130/vm-130-disk-0.raw: The image size is too large for file format 'raw'"
    );
    root.delete("/nodes/pve1/lxc/130")
        .await
        .refused(500, "Configuration file 'nodes/pve1/lxc/130.conf' does not exist");
    let missing = [("vmid", "130"), ("ostemplate", "local:vztmpl/missing.tar.zst")];
    let created = root.post("/nodes/pve1/lxc", &missing).await;
    assert!(root.exit(&created).await.ends_with("does not exist"));
    assert_eq!(sim.ledger(), baseline);
    assert!(sim.ledger().leftovers(&baseline).is_empty());
}

#[tokio::test]
async fn nextid_reserves_nothing_and_create_is_the_arbiter() {
    let (sim, root) = quick().await;
    let ids = futures_util::future::join_all((0..5).map(|_| root.get("/cluster/nextid"))).await;
    assert!(ids.iter().all(|got| got.data() == &json!("100")), "a text, and the same for all");
    let form = [("vmid", "140"), ("ostemplate", ALPINE)];
    let racers =
        futures_util::future::join_all((0..10).map(|_| root.post("/nodes/pve1/lxc", &form))).await;
    let (won, lost): (Vec<_>, Vec<_>) = racers.iter().partition(|got| got.status == 200);
    assert_eq!(won.len(), 1);
    for got in lost {
        let plain = "CT 140 already exists on node 'pve1'";
        assert!(
            got.reason == plain || got.reason == format!("unable to create CT 140 - {plain}"),
            "{got:?}"
        );
        assert_eq!(got.status, 500);
    }
    assert_eq!(root.exit(won[0]).await, "OK");
    let forced = [("vmid", "140"), ("ostemplate", ALPINE), ("force", "1")];
    root.post("/nodes/pve1/lxc", &forced)
        .await
        .refused(500, "CT 140 already exists on node 'pve1'");
    let taken = root.get("/cluster/nextid?vmid=140").await;
    assert_eq!(taken.error("vmid"), "VM 140 already exists");
    assert_eq!(root.get("/cluster/nextid?vmid=141").await.data(), &json!("141"));
    let low = root.get("/cluster/nextid?vmid=50").await;
    assert_eq!(low.error("vmid"), "invalid format - value does not look like a valid VM ID\n");
    root.container(100, &[]).await;
    assert_eq!(root.get("/cluster/nextid").await.data(), &json!("101"));
    let gone = root.delete("/nodes/pve1/lxc/100").await;
    assert_eq!(root.exit(&gone).await, "OK");
    assert_eq!(root.get("/cluster/nextid").await.data(), &json!("100"), "reused at once");
    drop(sim);
}

#[tokio::test]
async fn power_calls_refuse_what_is_already_so() {
    let (_sim, root) = quick().await;
    root.container(100, &[("net0", "name=eth0,bridge=vmbr0,ip=dhcp")]).await;
    let path = |verb: &str| format!("/nodes/pve1/lxc/100/status/{verb}");
    for verb in ["stop", "shutdown", "reboot"] {
        root.post(&path(verb), &[]).await.refused(500, "CT 100 not running");
    }
    root.start(100).await;
    root.post(&path("start"), &[]).await.refused(500, "CT 100 already running");
    root.delete("/nodes/pve1/lxc/100")
        .await
        .refused(500, "unable to destroy CT 100 - container is running");
    let current = root.get(&path("current")).await;
    assert_eq!(current.data()["status"], "running");
    assert_eq!(current.data()["ha"], json!({"managed": 0}));
    assert!(current.data()["pid"].is_u64());
    assert_eq!(current.data()["pressurecpufull"], Value::Null);
    for verb in ["reboot", "shutdown"] {
        let got = root.post(&path(verb), &[("timeout", "4")]).await;
        assert_eq!(root.exit(&got).await, "OK");
    }
    let stopped = root.get(&path("current")).await;
    assert_eq!(stopped.data()["status"], "stopped");
    assert!(stopped.data().get("pid").is_none());
    assert_eq!(stopped.data()["uptime"], 0);
    root.start(100).await;
    let gone = root.delete("/nodes/pve1/lxc/100?force=1&purge=1").await;
    let upid = gone.data().as_str().unwrap().to_owned();
    assert_eq!(root.exit(&gone).await, "OK");
    assert_eq!(
        root.log(&upid).await,
        [
            "forced to stop CT 100 before destroying!",
            "purging CT 100 from related configurations..",
            "TASK OK"
        ]
    );
    let missing = "Configuration file 'nodes/pve1/lxc/100.conf' does not exist";
    root.get(&path("current")).await.refused(500, missing);
    root.get("/nodes/pve1/lxc/100/config").await.refused(500, missing);
    root.delete("/nodes/pve1/lxc/100").await.refused(500, missing);
    let start = root.post(&path("start"), &[]).await;
    assert_eq!(root.exit(&start).await, missing, "a start finds out in its task");
}

#[tokio::test]
async fn a_missing_bridge_shows_in_the_start_and_start_1_hides_it() {
    let (_sim, root) = quick().await;
    root.container(130, &[("net0", "name=eth0,bridge=vmbr9")]).await;
    let start = root.post("/nodes/pve1/lxc/130/status/start", &[]).await;
    assert_eq!(root.exit(&start).await, "bridge 'vmbr9' does not exist");
    let form = [
        ("vmid", "180"),
        ("ostemplate", ALPINE),
        ("net0", "name=eth0,bridge=vmbr9"),
        ("start", "1"),
    ];
    let created = root.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(root.exit(&created).await, "OK", "the create itself went well");
    let hidden = loop {
        let list = root.get("/nodes/pve1/tasks?vmid=180").await;
        let tasks = list.data().as_array().unwrap().clone();
        if let Some(task) = tasks.iter().find(|task| task["type"] == "vzstart") {
            break task.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(hidden["status"], "bridge 'vmbr9' does not exist");
    let current = root.get("/nodes/pve1/lxc/180/status/current").await;
    assert_eq!(current.data()["status"], "stopped");
}

#[tokio::test]
async fn a_configuration_is_guarded_by_digest_and_protection() {
    let (_sim, root) = quick().await;
    root.container(131, &[]).await;
    let path = "/nodes/pve1/lxc/131/config";
    root.put(path, &[]).await.refused(500, "no options specified");
    let stale = [("delete", "onboot"), ("digest", "0000000000000000000000000000000000000000")];
    root.put(path, &stale)
        .await
        .refused(500, "detected modified configuration - file changed by other user? Try again.");
    root.put(path, &[("delete", "rootfs")])
        .await
        .refused(500, "unable to delete required option 'rootfs'");
    let digest = root.config(131).await["digest"].as_str().unwrap().to_owned();
    let good = [("protection", "1"), ("description", "x"), ("digest", digest.as_str())];
    assert_eq!(root.put(path, &good).await.body, json!({"data": null}));
    assert_ne!(root.config(131).await["digest"], json!(digest));
    root.delete("/nodes/pve1/lxc/131")
        .await
        .refused(500, "can't remove CT 131 - protection mode enabled");
    root.delete("/nodes/pve1/lxc/131?force=1")
        .await
        .refused(500, "can't remove CT 131 - protection mode enabled");
    assert_eq!(root.put(path, &[("protection", "0")]).await.status, 200);
    let pending = root.get("/nodes/pve1/lxc/131/pending").await;
    let rows = pending.data().as_array().unwrap();
    assert!(rows.contains(&json!({"key": "description", "value": "x\n"})), "{rows:?}");
    root.start(131).await;
    assert_eq!(root.put(path, &[("features", "nesting=1")]).await.status, 200);
    let now = root.get("/nodes/pve1/lxc/131/config?current=1").await;
    assert!(now.data().get("features").is_none(), "it waits for the next start");
    assert_eq!(root.config(131).await["features"], "nesting=1");
    let grow = root.put("/nodes/pve1/lxc/131/resize", &[("disk", "rootfs"), ("size", "+1G")]).await;
    assert_eq!(root.exit(&grow).await, "OK");
    assert_eq!(root.config(131).await["rootfs"], "local:131/vm-131-disk-0.raw,size=5G");
    root.put("/nodes/pve1/lxc/131/resize", &[("disk", "rootfs"), ("size", "1G")])
        .await
        .refused(500, "unable to shrink disk size");
}

#[tokio::test]
async fn an_ended_task_is_listed_as_running_until_another_begins_on_its_node() {
    let (_sim, root) = quick().await;
    let listed = async |source: &str| {
        let list = root.get(&format!("/nodes/pve1/tasks?source={source}")).await;
        let rows = list.data().as_array().unwrap().clone();
        rows.into_iter().map(|row| (row["id"].clone(), row["status"].clone())).collect::<Vec<_>>()
    };
    root.container(100, &[]).await;
    assert_eq!(listed("active").await, [(json!("100"), json!("RUNNING"))]);
    assert_eq!(listed("archive").await, []);
    let all = root.get("/nodes/pve1/tasks?source=all").await;
    let upid = all.data()[0]["upid"].as_str().unwrap();
    let own = root.get(&format!("/nodes/pve1/tasks/{upid}/status")).await;
    assert_eq!(own.data()["status"], "stopped", "its own status is never behind");
    root.container(101, &[]).await;
    assert_eq!(listed("active").await, [(json!("101"), json!("RUNNING"))]);
    assert_eq!(listed("archive").await, [(json!("100"), json!("OK"))]);
}

#[tokio::test]
async fn task_calls_answer_as_recorded() {
    let (_sim, root) = quick().await;
    let active = root.get("/nodes/pve1/tasks?source=active").await;
    assert_eq!(active.body, json!({"data": []}), "not even their number");
    root.container(100, &[]).await;
    // Only when another begins is the end of the first one listed.
    root.container(101, &[]).await;
    let garbage = root.get("/nodes/pve1/tasks/garbage/status").await;
    assert_eq!(garbage.error("upid"), "unable to parse worker upid");
    let unknown = "UPID:pve1:0000FFFF:00065FA1:6B04A107:vzcreate:999:root@pam:";
    let got = root.get(&format!("/nodes/pve1/tasks/{unknown}/status")).await;
    assert_eq!(got.error("upid"), "no such task");
    let list = root.get("/nodes/pve1/tasks?limit=1").await;
    assert_eq!(list.body["total"], 1);
    let task = &list.data()[0];
    assert_eq!((&task["status"], &task["type"]), (&json!("OK"), &json!("vzcreate")));
    assert!(task["endtime"].is_i64());
    let upid = task["upid"].as_str().unwrap();
    let encoded = upid.replace(':', "%3A").replace('@', "%40");
    let log = root.get(&format!("/nodes/pve1/tasks/{encoded}/log?start=0&limit=1")).await;
    assert_eq!(log.data().as_array().unwrap().len(), 1);
    assert!(log.body["total"].as_u64().unwrap() > 3);
    let past = root.get(&format!("/nodes/pve1/tasks/{encoded}/log?start=100")).await;
    assert_eq!(past.data(), &json!([]));
    assert_eq!(
        root.delete(&format!("/nodes/pve1/tasks/{encoded}")).await.body,
        json!({"data": null})
    );
    let bad = root.get("/nodes/pve1/lxc/100/rrddata?timeframe=minute").await;
    assert_eq!(
        bad.error("timeframe"),
        "value 'minute' does not have a value in the enumeration 'hour, day, week, month, year'"
    );
    let rows = root.get("/nodes/pve1/lxc/100/rrddata?timeframe=hour").await;
    assert_eq!(rows.data().as_array().unwrap().len(), 60);
    assert_eq!(rows.data()[0].as_object().unwrap().len(), 1, "no samples: nothing but the time");
}
