//! Who is on the other end is settled before a single byte of a request is sent.

use std::time::Duration;

use proximity_commands::Secret;
use proximity_commands::ports::{Connector, Credential, Hypervisor, HypervisorError, Trust};
use proximity_domain::host::Fingerprint;
use proximity_proxmox::{Limits, PveClient, PveConnector, probe_fingerprint};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Act, Authority, Identity, Server, data, limits, random_secret};

const NODE: &str = r#"[{"type":"node","name":"pve1","id":"node/pve1","local":1,"online":1}]"#;
const VERSION: &str = r#"{"version":"9.1.7","release":"9.1","repoid":"0307225d"}"#;

fn good(_: usize, _: &crate::server::Seen) -> Act {
    data(VERSION)
}

/// Reads and a log-in with a password, which is what must not leak.
async fn refused(server: &Server, trust: Trust) {
    for credential in [
        Credential::Password(Secret::new(random_secret())),
        Credential::Token { id: "t".to_owned(), secret: Secret::new(random_secret()) },
    ] {
        let mut spec = server.spec(credential);
        spec.trust = trust;
        let client = PveClient::connect(&spec, limits()).unwrap();
        let error = client.version().await.unwrap_err();
        assert!(matches!(error, HypervisorError::Certificate { .. }), "{error:?}");
        let error = client.start(&"pve1".parse().unwrap(), 100.try_into().unwrap()).await;
        assert!(matches!(error, Err(HypervisorError::Certificate { .. })), "{error:?}");
    }
    assert!(server.connections() >= 4, "the handshakes took place");
    assert_eq!((server.application_bytes(), server.seen().len()), (0, 0));
}

#[tokio::test]
async fn a_pinned_certificate_is_accepted_though_it_ended_and_nobody_knows_its_authority() {
    for version in [&[&TLS13], &[&TLS12]] {
        let ended = Authority::new("PVE Cluster Manager CA").identity(-30);
        let server = Server::with(ended, version, good).await;
        assert_eq!(server.client().version().await.unwrap().text, "9.1.7");
    }
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_gets_not_one_byte() {
    for version in [&[&TLS13], &[&TLS12]] {
        let server = Server::with(Identity::valid(), version, good).await;
        refused(&server, Trust::Pinned(Fingerprint::from_digest(rand::random()))).await;
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_gets_not_one_byte() {
    for version in [&[&TLS13], &[&TLS12]] {
        let server = Server::with(Identity::stolen(), version, good).await;
        refused(&server, Trust::Pinned(server.fingerprint)).await;
    }
}

#[tokio::test]
async fn the_pinned_certificate_behind_a_foreign_one_proves_nothing() {
    let server = Server::with(Identity::genuine_behind_foreign(), &[&TLS13], good).await;
    refused(&server, Trust::Pinned(server.fingerprint)).await;
}

#[tokio::test]
async fn without_a_pin_an_unknown_authority_gets_not_one_byte() {
    let server = Server::start(good).await;
    refused(&server, Trust::Authorities).await;
}

#[tokio::test]
async fn a_probe_sees_the_certificate_and_sends_nothing() {
    let server = Server::start(good).await;
    let connector = PveConnector::new(limits());
    let seen = connector.probe_fingerprint("127.0.0.1", server.port).await.unwrap();
    assert_eq!(seen, server.fingerprint);
    assert_eq!((server.connections(), server.application_bytes()), (1, 0));
}

#[tokio::test]
async fn a_probe_does_not_report_a_certificate_whose_key_the_peer_lacks() {
    let server = Server::with(Identity::stolen(), rustls::ALL_VERSIONS, good).await;
    let within = Duration::from_secs(2);
    let error = probe_fingerprint("127.0.0.1", server.port, within).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Certificate { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_or_nothing_is_told_apart_from_a_wrong_certificate() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = i64::from(listener.local_addr().unwrap().port()).try_into().unwrap();
    tokio::spawn(async move {
        let (mut plain, _) = listener.accept().await.unwrap();
        plain.write_all(b"HTTP/1.1 301 Moved\r\n\r\n").await.unwrap();
        let (mut mute, _) = listener.accept().await.unwrap();
        let mut rest = Vec::new();
        drop(mute.read_to_end(&mut rest).await);
    });
    for within in [Duration::from_secs(2), Duration::from_millis(300)] {
        let error = probe_fingerprint("127.0.0.1", port, within).await.unwrap_err();
        assert!(matches!(error, HypervisorError::Retryable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_address_cannot_smuggle_another_host_or_path_in() {
    let server = Server::start(good).await;
    for address in ["127.0.0.1/x", "user@127.0.0.1", "127.0.0.1:1", "a b", "", "127.0.0.1#", "x?y"]
    {
        let credential = Credential::Password(Secret::new(random_secret()));
        let mut spec = server.spec(credential);
        spec.address = address.to_owned();
        let error = PveClient::connect(&spec, Limits::default()).unwrap_err();
        assert!(matches!(error, HypervisorError::Permanent { .. }), "{address}: {error:?}");
    }
}

/// ADR 0007: the name of a node's own authority tells lone nodes apart and outlives a renewal.
#[tokio::test]
async fn a_lone_node_keeps_its_identity_when_its_certificate_is_renewed() {
    let cluster = |_: usize, _: &crate::server::Seen| data(NODE);
    let authority = Authority::new("PVE Cluster Manager CA");
    let mut names = Vec::new();
    for identity in [
        authority.identity(365),
        authority.identity(730),
        Identity::valid(),
        Authority::new("A Company").identity(365),
    ] {
        let server = Server::with(identity, rustls::ALL_VERSIONS, cluster).await;
        let identity = server.client().identity().await.unwrap();
        assert!(identity.quorate);
        assert_eq!(identity.nodes, ["pve1".parse().unwrap()]);
        assert!(identity.cluster.as_str().starts_with("node-"));
        assert_eq!(identity.cluster.as_str().len(), "node-".len() + 16);
        names.push(identity.cluster);
    }
    assert_eq!(names[0], names[1], "renewed by the same authority");
    names.dedup();
    assert_eq!(names.len(), 3, "other installations are others: {names:?}");
}
