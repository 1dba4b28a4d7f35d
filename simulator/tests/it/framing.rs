//! What the HTTP layer itself refuses, in the recorded words.

use std::sync::Arc;

use reqwest::Method;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Caller, Credential, got, quick};
use proximity_simulator::SimulatorHandle;

#[tokio::test]
async fn unknown_paths_and_methods_are_not_implemented() {
    let (_sim, root) = quick().await;
    let nope = root.get("/nope").await;
    assert_eq!((nope.status, nope.reason.as_str()), (501, "Method 'GET /nope' not implemented"));
    assert_eq!(nope.body, json!({"data": null, "message": "Method 'GET /nope' not implemented"}));
    let version = root.post("/version", &[]).await;
    assert_eq!(version.reason, "Method 'POST /version' not implemented");
    let deep = root.get("/nodes/pve1/lxc/131/nope").await;
    assert_eq!(deep.reason, "Method 'GET /nodes/pve1/lxc/131/nope' not implemented");
    let patch = got(root.request(Method::PATCH, "/nodes")).await.unwrap();
    assert_eq!((patch.status, patch.reason.as_str()), (501, "method 'PATCH' not available"));
    assert_eq!(patch.text, "");
}

#[tokio::test]
async fn an_unknown_node_does_not_resolve() {
    let (_sim, root) = quick().await;
    let text = "hostname lookup 'other' failed - failed to get address info for: other: \
                Temporary failure in name resolution";
    root.get("/nodes/other/status").await.refused(500, text);
    root.post("/nodes/other/lxc/100/status/start", &[]).await.refused(500, text);
    root.get("/nodes/bad_node!/status").await.refused(
        500,
        "hostname lookup 'bad_node!' failed - failed to get address info for: bad_node!: Name or \
         service not known",
    );
    assert_eq!(root.get("/nodes/localhost/status").await.status, 200);
}

#[tokio::test]
async fn bodies_are_form_or_json_and_nothing_else() {
    let (_sim, root) = quick().await;
    let post = |path: &str| root.request(Method::POST, path);
    let text = post("/pools").header("Content-Type", "text/plain").body("poolid=pp");
    let refused = got(text).await.unwrap();
    assert_eq!(
        (refused.status, refused.reason.as_str(), refused.text.as_str()),
        (
            506,
            "upload 'Content-Type 'text/plain' not implemented",
            "upload 'Content-Type 'text/plain' not implemented"
        )
    );
    let large = got(post("/pools").form(&[("comment", "x".repeat(600_000))])).await.unwrap();
    assert_eq!((large.status, large.reason.as_str()), (501, "for data too large"));
    let bad = post("/pools").header("Content-Type", "application/json").body("{bad}");
    let bad = got(bad).await.unwrap();
    assert_eq!(bad.status, 500);
    assert_eq!(
        bad.text,
        "'\"' expected, at character offset 1 (before \"bad}\") at \
         /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934."
    );
    let json = post("/pools").json(&json!({"poolid": "json", "comment": "c"}));
    assert_eq!(got(json).await.unwrap().status, 200);
    let body = root.request(Method::DELETE, "/pools/json").form(&[("x", "1")]);
    let body = got(body).await.unwrap();
    assert_eq!(
        (body.status, body.reason.as_str()),
        (501, "Unexpected content for method 'DELETE'")
    );
    assert_eq!(root.delete("/pools/json").await.status, 200);
}

#[tokio::test]
async fn json_booleans_work_and_words_in_forms_do_not() {
    let (_sim, root) = quick().await;
    let create = root.request(Method::POST, "/nodes/pve1/lxc").json(&json!({
        "vmid": 131, "ostemplate": crate::support::ALPINE, "memory": 64, "swap": 0,
        "unprivileged": true, "start": false, "onboot": false,
    }));
    let created = got(create).await.unwrap();
    assert_eq!(root.exit(&created).await, "OK");
    assert_eq!(root.config(131).await["onboot"], json!(0));
    let path = "/nodes/pve1/lxc/131/config";
    let put = |body| root.request(Method::PUT, path).json(&body);
    assert_eq!(
        got(put(json!({"memory": 96, "onboot": true}))).await.unwrap().body,
        json!({"data": null})
    );
    let wrong = got(put(json!({"memory": "x"}))).await.unwrap();
    assert_eq!(wrong.error("memory"), "type check ('integer') failed - got 'x'");
    let word = root.put(path, &[("onboot", "true")]).await;
    assert_eq!(word.error("onboot"), "type check ('boolean') failed - got 'true'");
    let list =
        root.request(Method::POST, "/nodes/pve1/lxc/131/status/start").json(&json!({"a": [1, 2]}));
    assert_eq!(
        got(list).await.unwrap().error("a"),
        "property is not defined in schema and the schema does not allow additional properties"
    );
}

/// Sends bytes over TLS and returns everything that comes back.
async fn raw(sim: &SimulatorHandle, bytes: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_slice(sim.ca_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let stream = TcpStream::connect(sim.address()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A peer that closes without a farewell is an error here and no matter.
    if stream.read_to_end(&mut answer).await.is_err() {
        assert!(!answer.is_empty(), "nothing came back");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn chunked_bodies_are_refused() {
    let (sim, root) = quick().await;
    let Credential::Ticket { ticket, csrf } = root.credential else { unreachable!() };
    let answer = raw(
        &sim,
        &format!(
            "POST /api2/json/nodes/pve1/lxc/131/status/start HTTP/1.1\r\nHost: x\r\n\
             Cookie: PVEAuthCookie={ticket}\r\nCSRFPreventionToken: {csrf}\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 501 chunked transfer encoding not supported\r\n"),
        "{answer}"
    );
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nchunked transfer encoding not supported"), "{answer}");
}

#[tokio::test]
async fn every_error_closes_its_connection() {
    let (sim, root) = quick().await;
    let before = sim.requests_seen().connections;
    for _ in 0..3 {
        assert_eq!(root.get("/version").await.status, 200);
    }
    let kept = sim.requests_seen().connections;
    assert!(kept <= before + 1, "{kept} connections after {before}");
    assert_eq!(root.get("/nodes/pve1/lxc/100/config").await.status, 500);
    assert_eq!(root.get("/version").await.status, 200);
    assert_eq!(sim.requests_seen().connections, kept + 1);
}

#[tokio::test]
async fn plain_http_is_sent_to_https() {
    let (sim, _root) = quick().await;
    let caller = Caller::anonymous(&sim);
    let url = sim.url().replace("https://", "http://");
    let get = caller.http.get(format!("{url}/api2/json/version")).send().await.unwrap();
    assert_eq!(get.status().as_u16(), 301);
    assert_eq!(get.headers()["location"], format!("{}/api2/json/version", sim.url()));
    let post = caller.http.post(format!("{url}/api2/json/pools")).send().await.unwrap();
    assert_eq!(post.status().as_u16(), 308);
}
