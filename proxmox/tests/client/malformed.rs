//! Replies that make no sense: never a panic, never an empty list, and for a write never "refused".

use proximity_commands::ports::*;
use proximity_domain::{NodeName, Vmid};
use proximity_proxmox::{Limits, PveClient};

use crate::server::{Act, Server, data, limits};

fn node() -> NodeName {
    "pve1".parse().unwrap()
}

fn vmid() -> Vmid {
    Vmid::try_from(100).unwrap()
}

fn task() -> Upid {
    Upid("UPID:pve1:00000271:0005EA12:6B049FDA:vzstart:100:root@pam:".to_owned())
}

/// Every reading call once; what it answered is dropped, how it ended is kept.
async fn reads(client: &PveClient) -> Vec<(&'static str, Result<(), HypervisorError>)> {
    let at = node();
    vec![
        ("identity", client.identity().await.map(drop)),
        ("version", client.version().await.map(drop)),
        ("nodes", client.nodes().await.map(drop)),
        ("guests", client.guests().await.map(drop)),
        ("vmid_is_free", client.vmid_is_free(vmid()).await.map(drop)),
        ("storages", client.storages(&at).await.map(drop)),
        ("config", client.config(&at, vmid()).await.map(drop)),
        ("status", client.status(&at, vmid()).await.map(drop)),
        ("addresses", client.addresses(&at, vmid()).await.map(drop)),
        ("task", client.task(&task()).await.map(drop)),
        ("task_log", client.task_log(&task(), 10).await.map(drop)),
        ("tasks_of", client.tasks_of(vmid()).await.map(drop)),
        ("volumes", client.volumes(&at, "local", "backup").await.map(drop)),
        ("appliances", client.appliances(&at).await.map(drop)),
    ]
}

/// Every writing call but `create`, whose reply is read as the others' are.
async fn writes(client: &PveClient) -> Vec<(&'static str, Result<(), HypervisorError>)> {
    let at = node();
    vec![
        ("start", client.start(&at, vmid()).await.map(drop)),
        ("stop", client.stop(&at, vmid()).await.map(drop)),
        ("shutdown", client.shutdown(&at, vmid(), 60).await.map(drop)),
        ("reboot", client.reboot(&at, vmid(), 60).await.map(drop)),
        ("destroy", client.destroy(&at, vmid()).await.map(drop)),
        ("download", client.download_appliance(&at, "local", "x.tar.xz").await.map(drop)),
        ("pull", client.pull_oci_image(&at, "local", "a/b:1", "b").await.map(drop)),
    ]
}

#[tokio::test]
async fn audit_30_no_reading_call_takes_nonsense_for_an_answer() {
    let nonsense = [
        "null",
        "5",
        "true",
        "\"text\"",
        "[[]]",
        "[5]",
        "[null]",
        "{}",
        "[{}]",
        r#"{"a":{"b":[]}}"#,
        r#"[{"vmid":"abc","node":"p v","type":"lxc","storage":[],"upid":7}]"#,
        r#"{"version":[],"status":"paused","digest":{}}"#,
        r#"[{"node":"../..","name":{},"type":"node","volid":{},"template":[],"t":[]}]"#,
    ];
    let mut executed = 0;
    for json in nonsense {
        let server = Server::start(move |_, _| data(json)).await;
        for (call, result) in reads(&server.client()).await {
            executed += 1;
            match (call, json) {
                // What a stopped container answers.
                ("addresses", "null") => assert!(result.is_ok()),
                _ => assert!(
                    matches!(result, Err(HypervisorError::Malformed { .. })),
                    "{call} answered {json}: {result:?}"
                ),
            }
        }
    }
    assert_eq!(executed, nonsense.len() * 14);
}

/// 200 with something that is no envelope.
fn broken_envelopes() -> Vec<(&'static str, Act)> {
    let reply = |body: &str| Act::Reply("200 OK".to_owned(), body.to_owned());
    vec![
        ("html", reply("<html><body>It works!</body></html>")),
        ("empty", reply("")),
        ("no data", reply("{\"message\":\"x\"}")),
        ("a list", reply("[]")),
        ("cut JSON", reply("{\"data\":[{\"node\":")),
        ("deep", reply(&format!("{{\"data\":{}", "[".repeat(100_000)))),
        ("no UTF-8", Act::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe".to_vec())),
    ]
}

#[tokio::test]
async fn a_broken_envelope_is_malformed_in_reads_and_unknown_in_writes() {
    for (name, act) in broken_envelopes() {
        let server = Server::start(move |_, _| act.clone()).await;
        let client = server.client();
        for (call, result) in reads(&client).await {
            assert!(
                matches!(result, Err(HypervisorError::Malformed { .. })),
                "{call}, {name}: {result:?}"
            );
        }
        let change = client.set_protection(&node(), vmid(), false, "d").await;
        assert!(matches!(change, Err(HypervisorError::Unknown { .. })), "{name}: {change:?}");
        for (call, result) in writes(&client).await {
            assert!(
                matches!(result, Err(HypervisorError::Unknown { .. })),
                "{call}, {name}: {result:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_write_without_its_own_task_id_is_unknown_and_sent_once() {
    for json in [
        "null",
        "5",
        "[]",
        "\"OK\"",
        "\"UPID:pve1:zzz\"",
        // Another node's task, which is not what was asked for.
        "\"UPID:pve2:00000271:0005EA12:6B049FDA:vzstart:100:root@pam:\"",
    ] {
        let server = Server::start(move |_, _| data(json)).await;
        let results = writes(&server.client()).await;
        assert_eq!(server.calls().len(), results.len(), "each was sent once");
        for (call, result) in results {
            assert!(
                matches!(result, Err(HypervisorError::Unknown { .. })),
                "{call} answered {json}: {result:?}"
            );
        }
    }
    let another = data("\"UPID:pve1:00000271:0005EA12:6B049FDA:vzstart:101:root@pam:\"");
    let server = Server::start(move |_, _| another.clone()).await;
    let result = server.client().start(&node(), vmid()).await;
    assert!(matches!(result, Err(HypervisorError::Unknown { .. })), "another guest: {result:?}");
}

#[tokio::test]
async fn a_reply_beyond_the_limit_is_not_read_to_its_end() {
    let long = format!("{{\"data\":\"{}\"}}", "x".repeat(300_000));
    let server = Server::start(move |_, _| Act::Reply("200 OK".into(), long.clone())).await;
    let small = Limits { body: 100_000, ..limits() };
    let secret = proximity_commands::Secret::new(crate::server::random_secret());
    let spec = server.spec(Credential::Token { id: "t".to_owned(), secret });
    let client = PveClient::connect(&spec, small).unwrap();
    let read = client.version().await.unwrap_err();
    assert!(
        matches!(&read, HypervisorError::Malformed { reason, .. } if reason.contains("100000"))
    );
    let write = client.start(&node(), vmid()).await.unwrap_err();
    assert!(matches!(write, HypervisorError::Unknown { .. }), "{write:?}");
    let roomy = PveClient::connect(&spec, Limits { body: 400_000, ..limits() }).unwrap();
    let error = roomy.version().await.unwrap_err();
    assert!(!error.to_string().contains("more than"), "read to its end: {error}");
}

#[tokio::test]
async fn an_empty_list_without_any_node_is_not_a_lone_node() {
    let server = Server::start(|_, _| data("[]")).await;
    let error = server.client().identity().await.unwrap_err();
    assert!(matches!(error, HypervisorError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_cluster_is_known_by_its_name_and_its_quorum_in_every_spelling() {
    for (spelling, quorate) in
        [("1", true), ("\"1\"", true), ("true", true), ("0", false), ("null", false)]
    {
        let json = format!(
            r#"[{{"type":"cluster","name":"home","quorate":{spelling},"nodes":2}},
                {{"type":"node","name":"b"}},{{"type":"node","name":"a"}}]"#
        );
        let server = Server::start(move |_, _| data(&json)).await;
        let identity = server.client().identity().await.unwrap();
        assert_eq!((identity.cluster.as_str(), identity.quorate), ("home", quorate));
        assert_eq!(identity.nodes, ["a".parse().unwrap(), "b".parse().unwrap()]);
    }
}
