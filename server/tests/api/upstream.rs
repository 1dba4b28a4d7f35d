//! What a client is told when Proxmox fails a call that waits for it: our words, and no library's.

use std::net::TcpListener;

use proximity_server::demo::generated_password;
use proximity_simulator::{Fault, FaultRule, Times, When};
use reqwest::Method;
use serde_json::json;

use crate::harness::{Answer, Kind};
use crate::world::World;

/// Parts of the texts of hyper, rustls, reqwest and the operating system.
const FOREIGN: [&str; 9] = [
    "hyper",
    "rustls",
    "client error",
    "SendRequest",
    "Connect",
    "os error",
    "tcp connect",
    "close_notify",
    "https://",
];

fn in_our_words(answer: &Answer) {
    let detail = answer.body["detail"].as_str().unwrap();
    for foreign in FOREIGN {
        assert!(!detail.contains(foreign), "{foreign}: {}", answer.text);
    }
}

fn rule(path: &str, fault: Fault) -> FaultRule {
    let when = When { path: Some(path.to_owned()), ..When::default() };
    FaultRule { when, times: Times::Forever, fault }
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_21_what_a_library_says_of_a_broken_connection_is_told_to_nobody() {
    let world = World::start(Kind::Sqlite).await;
    let id = world.deployed(&world.owner, "web-01").await;
    let cut = rule(".*", Fault::NoReplyBeforeEffect);
    world.simulator.faults().add(cut).unwrap();
    let clone = format!("/api/apps/{id}/clone?dry_run=true");
    let body = json!({ "new_hostname": "web-02" });
    let answer = world.post(&world.owner, &clone, &body).await;
    answer.problem(504, "proxmox.unreachable");
    in_our_words(&answer);
    let answer = world.post(&world.admin, "/api/proxmox/hosts/1/test", &json!({})).await;
    answer.problem(504, "proxmox.unreachable");
    in_our_words(&answer);
    world.simulator.clear_faults();

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut host = json!({
        "name": "away", "host": "127.0.0.1", "port": closed, "password": generated_password(),
    });
    for pinned in [false, true] {
        if pinned {
            host["fingerprint"] = json!(world.simulator.fingerprint());
        }
        let answer = world.post(&world.admin, "/api/proxmox/hosts", &host).await;
        answer.problem(504, "proxmox.unreachable");
        in_our_words(&answer);
        assert!(answer.text.contains("the connection was refused"), "{}", answer.text);
    }
    // Signed by itself, where an authority is asked for.
    host["port"] = json!(world.simulator.address().port());
    host["verify_ssl"] = json!(true);
    host.as_object_mut().unwrap().remove("fingerprint");
    let answer = world.post(&world.admin, "/api/proxmox/hosts", &host).await;
    answer.problem(502, "proxmox.certificate");
    in_our_words(&answer);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_21_what_proxmox_says_of_an_error_is_told_to_administrators_of_hosts_only() {
    let world = World::start(Kind::Sqlite).await;
    let id = world.deployed(&world.owner, "web-01").await;
    const SAID: &str = "CANARYCAP /etc/pve/priv/secret";
    let status =
        |status| Fault::Status { status, reason: Some(SAID.to_owned()), after_effect: false };
    let clone = format!("/api/apps/{id}/clone?dry_run=true");
    let body = json!({ "new_hostname": "web-02" });
    // Proxmox answered, so it is no 504, whatever it answered.
    for code in [500, 403, 400, 595, 599] {
        world.simulator.faults().add(rule(".*", status(code))).unwrap();
        let answer = world.post(&world.owner, &clone, &body).await;
        answer.problem(502, "proxmox.refused");
        assert!(!answer.text.contains("CANARY"), "{}", answer.text);
        let test = "/api/proxmox/hosts/1/test";
        let answer = world.server.as_person(&world.admin, Method::POST, test, None).await;
        answer.problem(502, "proxmox.refused");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(SAID) && detail.contains(&code.to_string()), "{}", answer.text);
        world.simulator.clear_faults();
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_any_guest_is_no_answer_while_applications_are_there() {
    let world = World::start(Kind::Sqlite).await;
    let discover = "/api/apps/discover/";
    assert_eq!(world.get(&world.admin, discover).await.status, 200, "nothing is there yet");
    world.deployed(&world.owner, "web-01").await;
    world.simulator.faults().add(rule(".*/cluster/resources", Fault::EmptyList)).unwrap();
    let answer = world.get(&world.admin, discover).await;
    answer.problem(502, "proxmox.incomplete");
    world.simulator.clear_faults();
    assert_eq!(world.get(&world.admin, discover).await.status, 200);
    world.stop().await;
}
