//! What API tokens may do: lists that leave out, calls that refuse, and the smallest role that suffices.

use proximity_simulator::SimulatorHandle;
use serde_json::json;

use crate::support::{ALPINE, Caller, quick};

fn permission(text: &str) -> String {
    format!("Permission check failed ({text})")
}

#[tokio::test]
async fn a_separated_token_sees_empty_lists_and_is_refused_by_name() {
    let (sim, root) = quick().await;
    root.container(101, &[]).await;
    let token = sim.add_token("root@pam", "rp", true).unwrap();
    let token = Caller::token(&sim, &token);
    assert_eq!(token.get("/nodes/pve1/lxc").await.data(), &json!([]));
    assert_eq!(token.get("/cluster/resources?type=vm").await.data(), &json!([]));
    token
        .get("/nodes/pve1/lxc/101/status/current")
        .await
        .refused(403, &permission("/vms/101, VM.Audit"));
    token
        .post("/nodes/pve1/lxc/101/status/stop", &[])
        .await
        .refused(403, &permission("/vms/101, VM.PowerMgmt"));
    token.get("/nodes/pve1/status").await.refused(403, &permission("/nodes/pve1, Sys.Audit"));
    assert_eq!(token.get("/cluster/nextid").await.data(), &json!("100"));
    let nodes = token.get("/nodes").await;
    assert_eq!(nodes.data()[0]["status"], "online");
    assert!(nodes.data()[0].get("maxmem").is_none());
    sim.grant("/vms", "root@pam!rp", "PVEAuditor");
    assert_eq!(token.get("/nodes/pve1/lxc").await.data().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_token_of_root_is_not_root() {
    let (sim, root) = quick().await;
    let token = Caller::token(&sim, &sim.add_token("root@pam", "rt", false).unwrap());
    let try_it = async |more: &[(&str, &str)], text: &str| {
        let mut form = vec![("vmid", "120"), ("ostemplate", ALPINE), ("rootfs", "local:1")];
        form.extend_from_slice(more);
        token.post("/nodes/pve1/lxc", &form).await.refused(403, &permission(text));
    };
    let nesting = "changing feature flags (except nesting) is only allowed for root@pam";
    try_it(&[("unprivileged", "1"), ("features", "nesting=1,keyctl=1")], nesting).await;
    try_it(&[("features", "mount=nfs")], nesting).await;
    let privileged = "changing feature flags for privileged container is only allowed for root@pam";
    try_it(&[("unprivileged", "0"), ("features", "keyctl=1")], privileged).await;
    try_it(&[("mp0", "/srv,mp=/srv")], "mount point type bind is only allowed for root@pam").await;
    let form = [("vmid", "121"), ("ostemplate", ALPINE), ("unprivileged", "0")];
    let created = token.post("/nodes/pve1/lxc", &form).await;
    assert!(created.data().as_str().unwrap().ends_with(":vzcreate:121:root@pam!rt:"));
    assert_eq!(token.exit(&created).await, "OK");
    let upid = created.data().as_str().unwrap();
    let status = root.get(&format!("/nodes/pve1/tasks/{upid}/status")).await;
    assert_eq!(
        (&status.data()["user"], &status.data()["tokenid"]),
        (&json!("root@pam"), &json!("rt"))
    );
    let keyctl = [("vmid", "122"), ("ostemplate", ALPINE), ("features", "nesting=1,keyctl=1")];
    let by_root = root.post("/nodes/pve1/lxc", &keyctl).await;
    assert_eq!(root.exit(&by_root).await, "OK");
    let skip = token.post("/nodes/pve1/lxc/121/status/start", &[("skiplock", "1")]).await;
    assert_eq!(skip.error("skiplock"), "Only root may use this option.");
}

/// A token of `prox@pve` with a role that `privileges` replaces each time.
async fn limited(sim: &SimulatorHandle, root: &Caller) -> Caller {
    let user = [("userid", "prox@pve"), ("password", &*sim.add_user("other@pve"))];
    assert_eq!(root.post("/access/users", &user).await.status, 200);
    let made = root.post("/access/users/prox@pve/token/m3", &[("privsep", "0")]).await;
    assert_eq!(made.data()["full-tokenid"], "prox@pve!m3");
    assert_eq!(made.data()["info"], json!({"privsep": "0"}));
    let secret = made.data()["value"].as_str().unwrap();
    assert_eq!(
        root.post("/access/roles", &[("roleid", "Prox"), ("privs", "VM.Allocate")]).await.status,
        200
    );
    let acl = [("path", "/"), ("users", "prox@pve"), ("roles", "Prox")];
    assert_eq!(root.put("/access/acl", &acl).await.status, 200);
    Caller::token(sim, &format!("prox@pve!m3={secret}"))
}

#[tokio::test]
async fn each_missing_privilege_is_named_until_the_recorded_role_is_complete() {
    let (sim, root) = quick().await;
    let token = limited(&sim, &root).await;
    let mut granted = vec!["VM.Allocate"];
    let form = [
        ("vmid", "190"),
        ("ostemplate", ALPINE),
        ("rootfs", "local:1"),
        ("memory", "64"),
        ("swap", "0"),
        ("hostname", "p190"),
        ("net0", "name=eth0,bridge=vmbr0,ip=dhcp"),
        ("features", "nesting=1"),
        ("onboot", "1"),
        ("tags", "a"),
    ];
    let sequence = [
        ("/vms/190", "VM.Config.Options"),
        ("/vms/190", "VM.Config.Memory"),
        ("/vms/190", "VM.Config.Network"),
        ("/vms/190", "VM.Config.Disk"),
        ("/sdn/zones/localnetwork/vmbr0", "SDN.Use"),
        ("/storage/local", "Datastore.AllocateSpace"),
    ];
    for (path, privilege) in sequence {
        let got = token.post("/nodes/pve1/lxc", &form).await;
        got.refused(403, &permission(&format!("{path}, {privilege}")));
        granted.push(privilege);
        let role = [("privs", granted.join(","))];
        let role: Vec<(&str, &str)> = role.iter().map(|(k, v)| (*k, v.as_str())).collect();
        assert_eq!(root.put("/access/roles/Prox", &role).await.status, 200);
    }
    let created = token.post("/nodes/pve1/lxc", &form).await;
    assert_eq!(token.exit(&created).await, "OK");
    token
        .post("/nodes/pve1/lxc/190/status/start", &[])
        .await
        .refused(403, &permission("/vms/190, VM.PowerMgmt"));
    token
        .post("/nodes/pve1/lxc/190/snapshot", &[("snapname", "s1")])
        .await
        .refused(403, &permission("/vms/190, VM.Snapshot"));
    token
        .post("/nodes/pve1/lxc/190/clone", &[("newid", "191")])
        .await
        .refused(403, &permission("/vms/190, VM.Clone"));
    let dump = token.post("/nodes/pve1/vzdump", &[("vmid", "190"), ("storage", "local")]).await;
    assert_eq!(
        token.exit(&dump).await,
        "403 Permission check failed (/vms/190, VM.Backup)",
        "some rights are missed only in the task"
    );
    let backups = token.get("/nodes/pve1/storage/local/content?content=backup").await;
    assert_eq!(backups.data(), &json!([]));
    token
        .put("/nodes/pve1/lxc/190/config", &[("cores", "1")])
        .await
        .refused(403, &permission("/vms/190, VM.Config.CPU"));
    let gone = token.delete("/nodes/pve1/lxc/190").await;
    assert_eq!(token.exit(&gone).await, "OK");
    let journal = sim.journal();
    assert_eq!(journal.last().unwrap().what, "container.destroyed");
    assert_eq!(journal.last().unwrap().by, "prox@pve!m3");
}

#[tokio::test]
async fn a_pool_lends_its_rights_to_its_members() {
    let (sim, root) = quick().await;
    assert_eq!(root.post("/pools", &[("poolid", "apps")]).await.status, 200);
    root.container(100, &[("pool", "apps")]).await;
    root.container(101, &[]).await;
    let token = sim.add_token("root@pam", "p", true).unwrap();
    sim.grant("/pool/apps", "root@pam!p", "PVEAuditor");
    let token = Caller::token(&sim, &token);
    let list = token.get("/nodes/pve1/lxc").await;
    let vmids: Vec<_> =
        list.data().as_array().unwrap().iter().map(|row| row["vmid"].clone()).collect();
    assert_eq!(vmids, [json!(100)]);
    assert_eq!(root.put("/pools/apps", &[("vms", "101")]).await.status, 200);
    let pool = root.get("/pools/apps").await;
    assert_eq!(pool.data()["members"].as_array().unwrap().len(), 2);
    assert_eq!(sim.ledger().pools["apps"], [100, 101]);
    assert_eq!(root.delete("/pools/apps").await.status, 500);
    assert_eq!(
        root.put("/pools", &[("poolid", "apps"), ("vms", "101"), ("delete", "1")]).await.status,
        200
    );
    let gone = root.delete("/nodes/pve1/lxc/100").await;
    assert_eq!(root.exit(&gone).await, "OK");
    assert_eq!(sim.ledger().pools["apps"], Vec::<u32>::new());
    assert_eq!(root.delete("/pools/apps").await.status, 200);
}
