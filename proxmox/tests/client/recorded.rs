//! Replies that a real Proxmox VE 9.1.7 gave, byte for byte, and what the client makes of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use proximity_commands::ports::*;
use proximity_domain::{NodeName, Vmid};
use proximity_proxmox::PveClient;
use serde_json::Value;

use crate::server::{Act, Server};

/// Status line and body of each recorded reply, by name.
fn recorded() -> BTreeMap<String, Act> {
    let list: Vec<Value> = serde_json::from_str(include_str!("../fixtures/recorded.json")).unwrap();
    list.iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            let status = format!("{} {}", entry["status"], text("reason"));
            (text("name"), Act::Reply(status, text("body")))
        })
        .collect()
}

/// A host that answers everything with the one reply it was given last.
struct Host {
    replies: BTreeMap<String, Act>,
    next: Arc<Mutex<Act>>,
    client: PveClient,
    used: Mutex<Vec<String>>,
    _server: Server,
}

impl Host {
    async fn new() -> Self {
        let next = Arc::new(Mutex::new(Act::Close));
        let shared = Arc::clone(&next);
        let server = Server::start(move |_, _| shared.lock().unwrap().clone()).await;
        let client = server.client();
        Self { replies: recorded(), next, client, used: Mutex::default(), _server: server }
    }

    /// The client, for a call that will be answered with this reply.
    fn says(&self, name: &str) -> &PveClient {
        *self.next.lock().unwrap() = self.replies[name].clone();
        self.used.lock().unwrap().push(name.to_owned());
        &self.client
    }
}

fn node() -> NodeName {
    "pve1".parse().unwrap()
}

fn vmid(number: i64) -> Vmid {
    Vmid::try_from(number).unwrap()
}

fn guest(number: i64) -> NewGuest {
    NewGuest {
        vmid: vmid(number),
        hostname: "web".parse().unwrap(),
        archive: "local:vztmpl/mini-3.20_3.20.0_amd64.tar.zst".to_owned(),
        description: "d".to_owned(),
        disk_storage: "local".to_owned(),
        disk: 1.try_into().unwrap(),
        resources: proximity_domain::Resources {
            cores: 1.try_into().unwrap(),
            memory: 64.try_into().unwrap(),
            disk: 1.try_into().unwrap(),
            swap: 0.try_into().unwrap(),
        },
        bridge: "vmbr0".to_owned(),
        address: GuestAddress::Dhcp,
        dns: Vec::new(),
        unprivileged: true,
        features: None,
        protection: false,
        process: Process::default(),
    }
}

async fn audit_22_reads_about_nodes_and_guests_leave_out_what_is_not_known(host: &Host) {
    let nodes = host.says("nodes").nodes().await.unwrap();
    assert_eq!((nodes.len(), nodes[0].name.as_str(), nodes[0].online), (1, "pve1", true));
    assert_eq!((nodes[0].cores, nodes[0].memory_total), (Some(2), Some(25_276_502_016)));
    assert_eq!((nodes[0].disk_used, nodes[0].uptime), (Some(22_920_642_560), Some(3869)));
    let blind = host.says("nodes without the right to their figures").nodes().await.unwrap();
    assert_eq!((blind[0].online, blind[0].cores, blind[0].memory_used), (true, None, None));

    let guests = host.says("guests").guests().await.unwrap();
    assert_eq!((guests[0].vmid, guests[0].running), (vmid(100), Some(true)));
    assert_eq!((guests[0].is_container, guests[0].name.as_deref()), (true, Some("ct100")));
    let guests = host.says("guests of a node that is away").guests().await.unwrap();
    assert_eq!((guests.len(), guests[1].running), (12, Some(false)));
    let lost = guests.last().unwrap();
    assert_eq!((lost.vmid, lost.node.as_str(), lost.running), (vmid(201), "pve2", None));

    let version = host.says("version").version().await.unwrap();
    assert_eq!((version.text.as_str(), version.major, version.minor), ("9.1.7", 9, 1));
    assert!(host.says("nextid, free").vmid_is_free(vmid(100)).await.unwrap());
    assert!(!host.says("nextid, taken").vmid_is_free(vmid(101)).await.unwrap());
    let error = host.says("nextid, no number").vmid_is_free(vmid(101)).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Permanent { .. }));
    let error = host.says("nextid, free").vmid_is_free(vmid(101)).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Malformed { .. }), "another number than asked about");
    let error = host.says("node away").nodes().await.unwrap_err();
    assert!(error.to_string().contains("595 No route to host"));
    assert!(matches!(error, HypervisorError::Retryable { .. }));
    let error = host.says("no ticket").nodes().await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unauthorized { .. }));
}

async fn reads_about_one_guest(host: &Host) {
    let (at, id) = (node(), vmid(101));
    let running = host.says("status, running").status(&at, id).await.unwrap().unwrap();
    assert_eq!(running, GuestStatus { running: true, lock: None, uptime: Some(0) });
    let stopped = host.says("status, stopped").status(&at, id).await.unwrap().unwrap();
    assert!(!stopped.running);
    let new = host.says("status, being created").status(&at, id).await.unwrap().unwrap();
    assert_eq!((new.running, new.lock.as_deref()), (false, Some("create")));
    assert_eq!(host.says("status, no such container").status(&at, id).await.unwrap(), None);
    let error = host.says("status, no right").status(&at, id).await.unwrap_err();
    assert!(error.to_string().contains("VM.Audit"));
    assert!(matches!(error, HypervisorError::Permanent { .. }));

    let config = host.says("config").config(&at, id).await.unwrap().unwrap();
    assert_eq!(config.digest, "3cc90e0522d43edf60daf7c9b53ad40691dc05d5");
    assert_eq!(config.description.as_deref(), Some("hello\nworld é"));
    assert_eq!((config.hostname.as_deref(), config.lock.as_deref()), (Some("ct101"), None));
    assert!(config.unprivileged && !config.protection && !config.is_being_created());
    assert_eq!((config.rest["memory"].as_str(), config.rest.len()), ("64", 8));
    let new = host.says("config, being created").config(&at, id).await.unwrap().unwrap();
    assert!(new.is_being_created());
    assert_eq!(host.says("config, no such container").config(&at, id).await.unwrap(), None);

    let none: Vec<IpAddr> = Vec::new();
    let early = host.says("interfaces without an address").addresses(&at, id).await.unwrap();
    assert_eq!(early, none);
    let found = host.says("interfaces").addresses(&at, id).await.unwrap();
    assert_eq!(found, ["10.99.0.51".parse::<IpAddr>().unwrap()]);
    assert_eq!(host.says("interfaces, stopped").addresses(&at, id).await.unwrap(), none);
}

async fn reads_about_storages_and_tasks(host: &Host) {
    let at = node();
    let templates = host.says("templates").volumes(&at, "local", "vztmpl").await.unwrap();
    assert_eq!(templates[0].id, "local:vztmpl/mini-3.20_3.20.0_amd64.tar.zst");
    assert_eq!((templates[0].size, templates[0].vmid), (Some(1_112_586), None));
    let backups = host.says("backups").volumes(&at, "local", "backup").await.unwrap();
    assert_eq!((backups.len(), backups[0].vmid), (2, Some(vmid(101))));
    assert_eq!(backups[0].created, Some(1_795_465_465));
    let error = host.says("content, no such storage").volumes(&at, "nope", "backup").await;
    assert!(matches!(error, Err(HypervisorError::Permanent { .. })), "{error:?}");

    let upid = Upid("UPID:pve1:00000B2A:0006ADA9:6B04A1CE:imgdel:local:root@pam:".to_owned());
    let ended = host.says("task, ended").task(&upid).await.unwrap();
    assert_eq!(ended, Some(TaskState::Succeeded { warnings: false }));
    assert_eq!(host.says("task, running").task(&upid).await.unwrap(), Some(TaskState::Running));
    assert_eq!(host.says("task, forgotten").task(&upid).await.unwrap(), None);
    let log = host.says("task log").task_log(&upid, 50).await.unwrap();
    assert_eq!(log, ["disk image '/var/lib/vz/template/cache/none.tar.zst' does not exist"]);
    assert!(host.says("task, forgotten").task_log(&upid, 50).await.unwrap().is_empty());
}

async fn writes(host: &Host) {
    let at = node();
    let upid = host.says("create").create(&at, &guest(101)).await.unwrap();
    assert_eq!(upid.0, "UPID:pve1:0000032D:00061B93:6B04A058:vzcreate:101:root@pam:");
    for taken in ["create, number taken", "create, number taken meanwhile"] {
        let error = host.says(taken).create(&at, &guest(100)).await.unwrap_err();
        assert!(matches!(error, HypervisorError::VmidTaken { .. }), "{error:?}");
    }
    for refused in ["create, wrong parameters", "create, feature refused"] {
        let error = host.says(refused).create(&at, &guest(100)).await.unwrap_err();
        assert!(matches!(error, HypervisorError::Permanent { .. }), "{error:?}");
    }
    host.says("start").start(&at, vmid(130)).await.unwrap();
    host.says("shutdown").shutdown(&at, vmid(100), 15).await.unwrap();
    host.says("destroy").destroy(&at, vmid(100)).await.unwrap();
    host.says("config change").set_protection(&at, vmid(100), false, "d").await.unwrap();
    let results = [
        host.says("start, running").start(&at, vmid(100)).await,
        host.says("stop, stopped").stop(&at, vmid(100)).await,
        host.says("shutdown, stopped").shutdown(&at, vmid(100), 60).await,
    ];
    for result in results {
        assert!(matches!(result, Err(HypervisorError::AlreadySo { .. })), "{result:?}");
    }
    for refused in ["destroy, running", "destroy, protected"] {
        let error = host.says(refused).destroy(&at, vmid(100)).await.unwrap_err();
        assert!(matches!(error, HypervisorError::Permanent { .. }), "{error:?}");
    }
    let error = host.says("destroy, no such container").destroy(&at, vmid(100)).await;
    assert!(matches!(error, Err(HypervisorError::NoGuest { .. })), "{error:?}");
    let error = host.says("destroy, locked").destroy(&at, vmid(100)).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Locked { .. }), "{error:?}");
    let change = host.says("config change, stale digest").set_protection(&at, vmid(1000), true, "");
    let error = change.await.unwrap_err();
    assert!(matches!(error, HypervisorError::DigestMismatch { .. }), "{error:?}");
    let change = host.says("config change, file lock").set_description(&at, vmid(1000), "", "");
    let error = change.await.unwrap_err();
    assert!(matches!(error, HypervisorError::Locked { .. }), "{error:?}");
    let error =
        host.says("broken pipe").set_protection(&at, vmid(100), true, "").await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unknown { .. }), "{error:?}");
}

#[tokio::test]
async fn every_recorded_reply_is_understood() {
    let host = Host::new().await;
    audit_22_reads_about_nodes_and_guests_leave_out_what_is_not_known(&host).await;
    reads_about_one_guest(&host).await;
    reads_about_storages_and_tasks(&host).await;
    writes(&host).await;
    let used = host.used.lock().unwrap();
    let unused: Vec<_> = host
        .replies
        .keys()
        .filter(|name| !used.contains(name) && !name.starts_with("tasks,"))
        .collect();
    assert!(unused.is_empty(), "never asked for: {unused:?}");
}

/// The two lists of tasks are one answer of the client's; each comes from its own request.
#[tokio::test]
async fn recorded_task_lists_become_one_list_about_one_number() {
    let replies = recorded();
    let server = Server::start(move |_, seen| {
        let name = match (seen.call().as_str(), seen.param("source").as_deref()) {
            ("GET /nodes", _) => "nodes",
            (call, None) if call.ends_with("/status") => "task, running",
            (_, Some("active")) => "tasks, active",
            _ => "tasks, ended",
        };
        replies[name].clone()
    })
    .await;
    let client = server.client();
    let active = client.tasks_of(vmid(140)).await.unwrap();
    assert_eq!((active.len(), &active[0].state), (1, &TaskState::Running));
    assert_eq!((active[0].kind.as_str(), active[0].started), ("vzdump", 1_795_465_735));
    let ended = client.tasks_of(vmid(101)).await.unwrap();
    assert_eq!(ended.len(), 2);
    assert!(ended[0].started > ended[1].started, "newest first");
    assert_eq!(ended[1].state, TaskState::Failed("job errors".to_owned()));
    assert_eq!((ended[1].node.as_str(), ended[1].user.as_str()), ("pve1", "root@pam"));
}
