//! Certificates that change, and tickets that end: seen from the host's side of the wire.

use std::time::Duration;

use proximity_commands::ports::{Connector, Hypervisor, HypervisorError};
use proximity_proxmox::{Limits, PveConnector};
use proximity_simulator::{Presented, Simulator, SimulatorConfig};
use proximity_tests::figure;

use crate::host::*;

#[tokio::test]
async fn to_a_wrong_certificate_not_one_credential_is_sent() {
    let wrong = [
        Presented::Foreign,
        Presented::OriginalBehindForeign,
        Presented::StolenCertificate,
        Presented::Renewed,
        Presented::Expired,
    ];
    let mut handshakes = 0;
    for presented in wrong {
        // Nothing but our client ever speaks to this host.
        let host = Simulator::start(SimulatorConfig::quick()).await.unwrap();
        let token = host.add_token("root@pam", "t", false).unwrap();
        let clients = [root(&host), with_token(&host, &token)];
        host.set_cert(presented).unwrap();
        for client in &clients {
            let read = client.version().await.unwrap_err();
            assert!(matches!(read, HypervisorError::Certificate { .. }), "{presented:?}: {read:?}");
            let write = client.start(&node(), vmid(100)).await.unwrap_err();
            assert!(matches!(write, HypervisorError::Certificate { .. }), "{write:?}");
        }
        let seen = host.requests_seen();
        assert_eq!((seen.credentials, seen.requests.len()), (0, 0), "{presented:?}");
        handshakes += seen.connections;
        host.shutdown().await;
    }
    figure!(
        "client: {handshakes} handshakes with wrong certificates, 0 requests, 0 credentials sent"
    );
}

#[tokio::test]
async fn an_ended_certificate_is_good_when_it_is_the_pinned_one_and_a_probe_names_it() {
    let host = Simulator::start(SimulatorConfig::quick()).await.unwrap();
    let before = root(&host).identity().await.unwrap();
    for presented in [Presented::Expired, Presented::Renewed] {
        let shown = host.set_cert(presented).unwrap();
        let client = root(&host);
        let port = i64::from(host.address().port()).try_into().unwrap();
        let connector = PveConnector::default();
        let probed = connector.probe_fingerprint("127.0.0.1", port).await.unwrap();
        assert_eq!(probed.to_string(), shown);
        assert_eq!(client.identity().await.unwrap(), before, "{presented:?}: the same node");
    }
    let other = Simulator::start(SimulatorConfig::quick()).await.unwrap();
    let another = root(&other).identity().await.unwrap();
    assert_eq!(another.nodes, before.nodes, "two nodes may bear one name");
    assert_ne!(another.cluster, before.cluster, "and still are two");
    other.shutdown().await;
    host.shutdown().await;
}

#[tokio::test]
async fn a_ticket_that_ended_on_the_host_is_replaced_without_anybody_noticing() {
    let host = host().await;
    let client = root(&host);
    created(&client, 700).await;
    let logins = |host: &proximity_simulator::SimulatorHandle| {
        let seen = host.requests_seen();
        seen.requests.iter().filter(|request| request.path.ends_with("/access/ticket")).count()
    };
    let before = logins(&host);
    host.set_clock_offset(121 * 60);
    assert!(client.config(&node(), vmid(700)).await.unwrap().is_some());
    host.set_clock_offset(2 * 121 * 60);
    client.start(&node(), vmid(700)).await.unwrap();
    assert_eq!(logins(&host) - before, 2);
    let started = host.journal().iter().filter(|effect| effect.what == "container.started").count();
    host.idle().await;
    assert!(started <= 1);
    assert!(client.status(&node(), vmid(700)).await.unwrap().unwrap().running);
    host.shutdown().await;
}

#[tokio::test]
async fn a_ticket_is_renewed_with_itself_on_a_host_that_checks_it() {
    let host = host().await;
    let password = proximity_commands::Secret::new(host.root_password().to_owned());
    let spec = spec(&host, "root@pam", proximity_commands::ports::Credential::Password(password));
    let always = Limits { ticket_renew: Duration::ZERO, ..limits() };
    let client = proximity_proxmox::PveClient::connect(&spec, always).unwrap();
    for _ in 0..3 {
        assert_eq!(client.version().await.unwrap().major, 9);
    }
    let refused =
        host.requests_seen().requests.iter().filter(|seen| seen.status == Some(401)).count();
    assert_eq!(refused, 0, "each renewal was taken");
    host.shutdown().await;
}
