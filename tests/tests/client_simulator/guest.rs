//! Races, locks, nodes that are away, missing rights, images: what the words of Proxmox come down to.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use proximity_commands::ports::{Hypervisor, HypervisorError, TaskState};
use proximity_simulator::{Foreign, NodeConfig, SimulatorConfig};
use proximity_tests::figure;

use crate::host::*;

#[tokio::test]
async fn audit_10_one_of_many_creations_under_a_number_wins() {
    let host = host().await;
    let client = Arc::new(root(&host));
    let mut won = 0;
    for number in 200..220 {
        let racers = (0..5).map(|_| {
            let client = Arc::clone(&client);
            async move { client.create(&node(), &guest(number)).await }
        });
        for result in join_all(racers).await {
            match result {
                Ok(upid) => {
                    assert!(matches!(ended(&client, &upid).await, TaskState::Succeeded { .. }));
                    won += 1;
                }
                Err(error) => {
                    assert!(matches!(error, HypervisorError::VmidTaken { .. }), "{error:?}");
                }
            }
        }
    }
    assert_eq!((won, host.ledger().containers.len()), (20, 20));
    figure!("client: 100 racing creations under 20 numbers: {won} won, the others were told so");
    host.shutdown().await;
}

/// With more at once, all of Proxmox's workers would be busy with our calls.
#[tokio::test]
async fn no_more_than_three_calls_are_in_flight() {
    let host = host().await;
    let client = Arc::new(root(&host));
    let numbers: Vec<i64> = (300..340).collect();
    for number in &numbers[..4] {
        created(&client, *number).await;
    }
    let calls = numbers.iter().map(|number| {
        let (client, number) = (Arc::clone(&client), *number);
        async move {
            client.status(&node(), vmid(number)).await.unwrap();
            client.config(&node(), vmid(number)).await.unwrap()
        }
    });
    let there = join_all(calls).await.into_iter().flatten().count();
    assert_eq!(there, 4);
    assert!(host.busiest() <= 3, "{} at once", host.busiest());
    host.shutdown().await;
}

#[tokio::test]
async fn a_locked_configuration_and_a_locked_file_are_told_as_locked() {
    let host = host().await;
    let client = root(&host);
    let locked = Foreign {
        hostname: Some("theirs".to_owned()),
        lock: Some("backup".to_owned()),
        ..Foreign::default()
    };
    let number = i64::from(host.plant_container(locked).await.unwrap());
    let status = client.status(&node(), vmid(number)).await.unwrap().unwrap();
    assert_eq!(status.lock.as_deref(), Some("backup"));
    let error = client.destroy(&node(), vmid(number)).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Locked { .. }), "{error:?}");
    let config = client.config(&node(), vmid(number)).await.unwrap().unwrap();
    assert_eq!(config.lock.as_deref(), Some("backup"));
    let change = client.set_protection(&node(), vmid(number), true, &config.digest).await;
    assert!(matches!(change, Err(HypervisorError::Locked { .. })), "{change:?}");
    host.shutdown().await;
}

#[tokio::test]
async fn in_a_cluster_a_node_that_is_away_hides_its_tasks_and_a_moved_guest_is_missing_here() {
    let config = SimulatorConfig {
        nodes: vec![NodeConfig::new("pve1"), NodeConfig::new("pve2")],
        cluster: Some("home".to_owned()),
        ..SimulatorConfig::quick()
    };
    let host = started(config).await;
    let client = root(&host);
    let identity = client.identity().await.unwrap();
    assert_eq!((identity.cluster.as_str(), identity.quorate), ("home", true));
    assert_eq!(identity.nodes.len(), 2);

    created(&client, 400).await;
    assert!(client.tasks_of(vmid(400)).await.unwrap().iter().any(|task| task.kind == "vzcreate"));
    host.move_container(400, "pve2").unwrap();
    let other = "pve2".parse().unwrap();
    assert_eq!(client.config(&node(), vmid(400)).await.unwrap(), None);
    assert!(client.config(&other, vmid(400)).await.unwrap().is_some());
    assert!(!client.vmid_is_free(vmid(400)).await.unwrap(), "missing here is not free");

    host.node_down("pve2").await.unwrap();
    let error = client.tasks_of(vmid(400)).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unreachable { .. }), "{error:?}");
    let error = client.config(&other, vmid(400)).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unreachable { .. }), "{error:?}");
    let error = client.start(&other, vmid(400)).await.unwrap_err();
    assert!(
        matches!(error, HypervisorError::Unreachable { .. }),
        "595 is before any effect: {error:?}"
    );
    let guests = client.guests().await.unwrap();
    assert_eq!(guests.iter().find(|guest| guest.vmid == vmid(400)).unwrap().running, None);
    host.shutdown().await;
}

#[tokio::test]
async fn a_token_without_rights_sees_empty_lists_and_is_refused_by_name_of_the_right() {
    let host = host().await;
    created(&root(&host), 500).await;
    drop(host.add_user("ann@pve"));
    let blind = with_token(&host, &host.add_token("ann@pve", "t", true).unwrap());
    assert!(blind.guests().await.unwrap().is_empty(), "silently filtered: concludes nothing");
    let error = blind.config(&node(), vmid(500)).await.unwrap_err();
    assert!(error.to_string().contains("VM.Audit"), "{error}");
    assert!(matches!(error, HypervisorError::Permanent { .. }));
    let error = blind.create(&node(), &guest(501)).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Permanent { .. }), "{error:?}");
    let wrong = with_token(&host, "ann@pve!t=00000000-0000-0000-0000-000000000000");
    let error = wrong.version().await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unauthorized { .. }), "{error:?}");
    host.shutdown().await;
}

#[tokio::test]
async fn an_image_gets_our_variables_over_its_own_before_its_first_start() {
    let host = host().await;
    let client = root(&host);
    let secret = rand::random::<u128>().to_string();
    let mut guest = guest(600);
    guest.process.entrypoint = Some("/ours --flag".to_owned());
    guest.process.environment =
        BTreeMap::from([("A".to_owned(), "1 2".to_owned()), ("B_2".to_owned(), secret.clone())]);
    let upid = client.create(&node(), &guest).await.unwrap();
    assert!(matches!(ended(&client, &upid).await, TaskState::Succeeded { .. }));
    let config = client.config(&node(), vmid(600)).await.unwrap().unwrap();
    let image = config.rest["env"].clone();
    assert!(image.starts_with("PATH=") && config.rest["entrypoint"] != "/ours --flag");
    client.set_process(&node(), vmid(600), &guest.process, &config).await.unwrap();
    let config = client.config(&node(), vmid(600)).await.unwrap().unwrap();
    assert_eq!(config.rest["entrypoint"], "/ours --flag");
    assert_eq!(config.rest["env"], format!("A=1 2\0B_2={secret}\0{image}"));
    assert!(!format!("{config:?} {guest:?}").contains(&secret));

    let before = host.requests_seen().requests.len();
    client.set_process(&node(), vmid(600), &guest.process, &config).await.unwrap();
    assert_eq!(host.requests_seen().requests.len(), before, "it is so already");
    host.shutdown().await;
}
