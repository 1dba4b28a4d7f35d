//! Each writing call × each fault: what the client says of the outcome is true of the host.
//!
//! "No effect" (everything but `Ok` and `Unknown`) must find none in the journal; a task that was
//! started is either named to the caller or the outcome is unknown. Reads never answer with nonsense.

use proximity_commands::ports::{Hypervisor, HypervisorError, Upid};
use proximity_proxmox::PveClient;
use proximity_simulator::{Fault, FaultRule, SimulatorHandle};
use proximity_tests::figure;

use crate::host::*;

/// The writing calls, by the simulator's name of their effect.
const WRITES: [&str; 8] = [
    "container.create",
    "container.start",
    "container.stop",
    "container.shutdown",
    "container.configure",
    "container.destroy",
    "template.download",
    "oci.pull",
];

/// Faults of one call, and whether its caller can be sure of how it ended.
fn faults() -> Vec<(&'static str, Fault, bool)> {
    let status = |status, after_effect| Fault::Status { status, reason: None, after_effect };
    vec![
        ("400", status(400, false), true),
        ("403", status(403, false), true),
        ("595", status(595, false), true),
        ("401", Fault::Unauthorized, true),
        ("slow", Fault::Slow { ms: 50 }, true),
        ("500", status(500, false), false),
        ("503", status(503, false), false),
        ("596", status(596, false), false),
        ("599", status(599, false), false),
        ("596 after", status(596, true), false),
        ("599 after", status(599, true), false),
        ("no reply before", Fault::NoReplyBeforeEffect, false),
        ("no reply after", Fault::NoReplyAfterEffect, false),
        ("cut", Fault::CutMidBody, false),
        ("malformed", Fault::MalformedJson, false),
        ("html", Fault::HtmlPage, false),
        ("huge", Fault::HugeReply { bytes: 20 << 20 }, false),
    ]
}

/// A host on which each of the calls has something to do, under the number 800.
async fn prepared(effect: &str) -> (SimulatorHandle, PveClient) {
    let host = host().await;
    let client = root(&host);
    if effect == "container.create" {
        return (host, client);
    }
    if effect.starts_with("container.") {
        created(&client, 800).await;
    }
    if matches!(effect, "container.stop" | "container.shutdown") {
        let upid = client.start(&node(), vmid(800)).await.unwrap();
        ended(&client, &upid).await;
    }
    if effect == "container.destroy" {
        host.edit_container(800, "protection", None).unwrap();
    }
    (host, client)
}

async fn write(client: &PveClient, effect: &str) -> Result<Option<Upid>, HypervisorError> {
    let (at, id) = (node(), vmid(800));
    match effect {
        "container.create" => client.create(&at, &guest(800)).await.map(Some),
        "container.start" => client.start(&at, id).await.map(Some),
        "container.stop" => client.stop(&at, id).await.map(Some),
        "container.shutdown" => client.shutdown(&at, id, 5).await.map(Some),
        "container.destroy" => client.destroy(&at, id).await.map(Some),
        "template.download" => {
            let there = client.volumes(&at, "local", "vztmpl").await.unwrap();
            let offered = client.appliances(&at).await.unwrap();
            let missing = |name: &str| !there.iter().any(|volume| volume.id.ends_with(name));
            let new = offered.iter().find(|appliance| missing(&appliance.template)).unwrap();
            client.download_appliance(&at, "local", &new.template).await.map(Some)
        }
        "oci.pull" => client.pull_oci_image(&at, "local", "docker.io/b/c:2", "c_2").await.map(Some),
        "container.configure" => {
            let config = client.config(&at, id).await.unwrap().unwrap();
            client.set_description(&at, id, "changed", &config.digest).await.map(|()| None)
        }
        other => panic!("no call has the effect {other}"),
    }
}

#[tokio::test]
async fn what_the_client_says_of_a_write_is_true_of_the_host() {
    let mut executed = 0;
    let mut unknown = 0;
    for effect in WRITES {
        for (name, fault, sure) in faults() {
            let (host, client) = prepared(effect).await;
            let before = host.journal().len();
            host.faults().add(FaultRule::once(effect, fault)).unwrap();
            let result = write(&client, effect).await;
            assert_eq!(host.faults().fired(), 1, "{effect}, {name}: the fault struck");
            host.idle().await;
            let effects = host.journal().len() - before;
            assert!(effects <= 1, "{effect}, {name}: {effects} effects of one call");
            match &result {
                Ok(upid) => {
                    assert_eq!(effects, 1, "{effect}, {name}");
                    if let Some(upid) = upid {
                        ended(&client, upid).await;
                    }
                }
                Err(HypervisorError::Unknown { .. }) => {
                    assert!(!sure, "{effect}, {name}: {result:?}");
                    unknown += 1;
                }
                Err(error) => assert_eq!(effects, 0, "{effect}, {name}: {error:?}"),
            }
            executed += 1;
            host.shutdown().await;
        }
    }
    assert_eq!(executed, WRITES.len() * faults().len());
    figure!(
        "client: {executed} writes × faults, {unknown} of them unknown, 0 effects denied, 0 doubled"
    );
}

#[tokio::test]
async fn a_task_that_goes_wrong_is_told_apart_by_its_end() {
    use proximity_commands::ports::TaskState;
    let text = "unable to write".to_owned();
    let failed = TaskState::Failed(format!("unable to create CT 800 - {text}"));
    for (fault, expected) in [
        (Fault::TaskWarns, TaskState::Succeeded { warnings: true }),
        (Fault::TaskDies { after_effect: true }, TaskState::Unknown),
        (Fault::TaskDies { after_effect: false }, TaskState::Unknown),
        (Fault::TaskFails { text, after_effect: false }, failed),
    ] {
        let (host, client) = prepared("container.create").await;
        host.faults().add(FaultRule::once("container.create", fault)).unwrap();
        let upid = client.create(&node(), &guest(800)).await.unwrap();
        assert_eq!(ended(&client, &upid).await, expected);
        host.shutdown().await;
    }
    let (host, client) = prepared("container.create").await;
    let hangs = Fault::TaskNeverEnds { after_effect: false };
    host.faults().add(FaultRule::once("container.create", hangs)).unwrap();
    let upid = client.create(&node(), &guest(800)).await.unwrap();
    assert_eq!(client.task(&upid).await.unwrap(), Some(TaskState::Running));
    let active = client.tasks_of(vmid(800)).await.unwrap();
    assert!(active.iter().any(|task| task.upid == upid && task.state == TaskState::Running));
    client.abort_task(&upid).await.unwrap();
    assert!(!matches!(ended(&client, &upid).await, TaskState::Succeeded { .. }));
    host.shutdown().await;
}

/// Every reading call once.
async fn reads(client: &PveClient) -> Vec<(&'static str, Result<(), HypervisorError>)> {
    let (at, id) = (node(), vmid(800));
    vec![
        ("cluster.status", client.identity().await.map(drop)),
        ("version", client.version().await.map(drop)),
        ("node.list", client.nodes().await.map(drop)),
        ("cluster.resources", client.guests().await.map(drop)),
        ("cluster.nextid", client.vmid_is_free(vmid(801)).await.map(drop)),
        ("storage.list", client.storages(&at).await.map(drop)),
        ("container.config", client.config(&at, id).await.map(drop)),
        ("container.status", client.status(&at, id).await.map(drop)),
        ("container.interfaces", client.addresses(&at, id).await.map(drop)),
        ("content.list", client.volumes(&at, "local", "vztmpl").await.map(drop)),
        ("template.index", client.appliances(&at).await.map(drop)),
        ("task.list", client.tasks_of(id).await.map(drop)),
    ]
}

#[tokio::test]
async fn a_read_survives_what_ends_by_itself_and_takes_no_nonsense() {
    let (host, client) = prepared("container.stop").await;
    let names: Vec<&str> = reads(&client).await.into_iter().map(|(name, _)| name).collect();
    let mut executed = 0;
    for fault in [
        Fault::NoReplyBeforeEffect,
        Fault::NoReplyAfterEffect,
        Fault::CutMidBody,
        Fault::Unauthorized,
        Fault::Status { status: 595, reason: None, after_effect: false },
        Fault::Status { status: 596, reason: None, after_effect: false },
        Fault::Status { status: 599, reason: None, after_effect: true },
    ] {
        for name in &names {
            host.faults().add(FaultRule::count(name, 2, fault.clone())).unwrap();
        }
        if matches!(fault, Fault::Unauthorized) {
            // A 401 is answered by one log-in; a second one in a row is the credential's fault.
            host.clear_faults();
            for name in &names {
                host.faults().add(FaultRule::once(name, fault.clone())).unwrap();
            }
        }
        for (name, result) in reads(&client).await {
            assert!(result.is_ok(), "{name}, {fault:?}: {result:?}");
            executed += 1;
        }
        assert!(host.faults().fired() >= u64::try_from(names.len()).unwrap());
        host.clear_faults();
    }
    for fault in [
        Fault::WrongTypes,
        Fault::MalformedJson,
        Fault::HtmlPage,
        Fault::NullData,
        Fault::HugeReply { bytes: 17 << 20 },
    ] {
        for name in &names {
            host.faults().add(FaultRule::forever(name, fault.clone())).unwrap();
        }
        for (name, result) in reads(&client).await {
            executed += 1;
            // What a stopped container answers.
            if name == "container.interfaces" && fault == Fault::NullData {
                assert!(result.is_ok());
                continue;
            }
            assert!(
                matches!(result, Err(HypervisorError::Malformed { .. })),
                "{name}, {fault:?}: {result:?}"
            );
        }
        host.clear_faults();
    }
    assert_eq!(executed, names.len() * 12);
    figure!("client: {executed} reads × faults, 0 wrong answers");
    host.shutdown().await;
}
