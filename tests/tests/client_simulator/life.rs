//! A container's whole life, by password and by token, on a new and on an old release.

use proximity_commands::ports::{Hypervisor, HypervisorError, TaskState};
use proximity_proxmox::PveClient;
use proximity_simulator::{SimulatorConfig, SimulatorHandle};

use crate::host::*;

/// The rights that the sheet found to be enough.
const ROLE: [&str; 15] = [
    "VM.Allocate",
    "VM.Audit",
    "VM.Config.CPU",
    "VM.Config.Disk",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.PowerMgmt",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "SDN.Use",
    "Sys.Audit",
    "Sys.AccessNetwork",
    "VM.Clone",
];

async fn whole_life(host: &SimulatorHandle, client: &PveClient) {
    let at = node();
    let before = host.ledger();

    let identity = client.identity().await.unwrap();
    assert!(identity.quorate && identity.cluster.as_str().starts_with("node-"));
    assert_eq!(identity.nodes, std::slice::from_ref(&at));
    assert_eq!(client.version().await.unwrap().text, "9.1.7");
    let nodes = client.nodes().await.unwrap();
    assert!(nodes[0].online && nodes[0].memory_total.is_some());
    let storages = client.storages(&at).await.unwrap();
    let local = storages.iter().find(|storage| storage.name == "local").unwrap();
    assert!(local.active && local.content.iter().any(|kind| kind == "vztmpl"));

    let offered = client.appliances(&at).await.unwrap();
    let download = client.download_appliance(&at, "local", &offered[0].template).await.unwrap();
    assert_eq!(ended(client, &download).await, TaskState::Succeeded { warnings: false });
    let there = client.volumes(&at, "local", "vztmpl").await.unwrap();
    let file = format!("local:vztmpl/{}", offered[0].template);
    assert!(there.iter().any(|volume| volume.id == file));

    let id = vmid(104);
    assert!(client.vmid_is_free(id).await.unwrap());
    assert_eq!(client.config(&at, id).await.unwrap(), None);
    assert_eq!(client.status(&at, id).await.unwrap(), None);
    let mut guest = guest(104);
    guest.archive = file;
    let upid = client.create(&at, &guest).await.unwrap();
    assert_eq!(ended(client, &upid).await, TaskState::Succeeded { warnings: false });
    assert!(!client.task_log(&upid, 5).await.unwrap().is_empty());
    assert!(!client.vmid_is_free(id).await.unwrap());
    let taken = client.create(&at, &guest).await.unwrap_err();
    assert!(matches!(taken, HypervisorError::VmidTaken { .. }), "{taken:?}");

    let config = client.config(&at, id).await.unwrap().unwrap();
    assert_eq!(config.description.as_deref(), Some("marker of 104"));
    assert!(config.protection && config.unprivileged);
    assert_eq!(config.hostname.as_deref(), Some("web-104"));
    assert_eq!(config.rest["onboot"], "1");
    assert_eq!(config.rest["nameserver"], "10.0.0.1 10.0.0.2");

    let upid = client.start(&at, id).await.unwrap();
    assert_eq!(ended(client, &upid).await, TaskState::Succeeded { warnings: false });
    let again = client.start(&at, id).await.unwrap_err();
    assert!(matches!(again, HypervisorError::AlreadySo { .. }), "{again:?}");
    assert!(client.status(&at, id).await.unwrap().unwrap().running);
    assert_eq!(client.addresses(&at, id).await.unwrap().len(), 1);
    let listed = client.guests().await.unwrap();
    let listed = listed.iter().find(|guest| guest.vmid == id).unwrap();
    assert_eq!((listed.running, listed.is_container), (Some(true), true));
    let running = client.destroy(&at, id).await.unwrap_err();
    assert!(matches!(running, HypervisorError::Permanent { .. }), "{running:?}");

    let upid = client.reboot(&at, id, 10).await.unwrap();
    ended(client, &upid).await;
    let upid = client.shutdown(&at, id, 10).await.unwrap();
    assert_eq!(ended(client, &upid).await, TaskState::Succeeded { warnings: false });
    for again in [client.stop(&at, id).await, client.shutdown(&at, id, 10).await] {
        assert!(matches!(again, Err(HypervisorError::AlreadySo { .. })), "{again:?}");
    }

    let kept = client.destroy(&at, id).await.unwrap_err();
    assert!(matches!(kept, HypervisorError::Permanent { .. }), "protected: {kept:?}");
    let stale = client.set_protection(&at, id, false, &"0".repeat(40)).await.unwrap_err();
    assert!(matches!(stale, HypervisorError::DigestMismatch { .. }), "{stale:?}");
    client.set_description(&at, id, "another\nmarker", &config.digest).await.unwrap();
    let config = client.config(&at, id).await.unwrap().unwrap();
    assert_eq!(config.description.as_deref(), Some("another\nmarker"));
    client.set_protection(&at, id, false, &config.digest).await.unwrap();
    let upid = client.destroy(&at, id).await.unwrap();
    assert_eq!(ended(client, &upid).await, TaskState::Succeeded { warnings: false });
    let gone = client.destroy(&at, id).await.unwrap_err();
    assert!(matches!(gone, HypervisorError::NoGuest { .. }), "{gone:?}");
    assert!(client.vmid_is_free(id).await.unwrap());

    let kinds: Vec<_> =
        client.tasks_of(id).await.unwrap().into_iter().map(|task| task.kind).collect();
    for kind in ["vzcreate", "vzstart", "vzreboot", "vzshutdown", "vzdestroy"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind} is not among {kinds:?}");
    }
    let after = host.ledger();
    assert_eq!((before.containers, before.disks), (after.containers, after.disks));
}

#[tokio::test]
async fn by_password_on_a_new_and_on_an_old_release() {
    for message_in_body in [true, false] {
        let host = started(SimulatorConfig { message_in_body, ..SimulatorConfig::quick() }).await;
        whole_life(&host, &root(&host)).await;
        host.shutdown().await;
    }
}

#[tokio::test]
async fn by_a_token_with_just_the_rights_that_it_takes() {
    let host = host().await;
    let password = host.add_user("proximity@pve");
    drop(password);
    host.add_role("Proximity", &ROLE);
    let token = host.add_token("proximity@pve", "deploy", true).unwrap();
    host.grant("/", "proximity@pve", "Proximity");
    host.grant("/", "proximity@pve!deploy", "Proximity");
    whole_life(&host, &with_token(&host, &token)).await;
    host.shutdown().await;
}
