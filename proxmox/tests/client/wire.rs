//! What goes over the wire, how often, and what a broken wire means.

use std::time::{Duration, Instant};

use proximity_commands::ports::*;
use proximity_domain::{NodeName, Vmid};

use crate::server::{Act, Seen, Server, data, limits, refusal};

const VERSION: &str = r#"{"version":"9.1.7","release":"9.1","repoid":"0307225d"}"#;
const START: &str = r#""UPID:pve1:00000271:0005EA12:6B049FDA:vzstart:100:root@pam:""#;

fn node() -> NodeName {
    "pve1".parse().unwrap()
}

fn vmid() -> Vmid {
    Vmid::try_from(100).unwrap()
}

fn version() -> Act {
    data(VERSION)
}

#[tokio::test]
async fn forms_have_a_length_and_deletions_have_a_query() {
    let server = Server::start(|_, _| data(START)).await;
    let client = server.client();
    client.start(&node(), vmid()).await.unwrap();
    client.shutdown(&node(), vmid(), 30).await.unwrap();
    client.destroy(&node(), vmid()).await.unwrap();
    let reply = client.set_description(&node(), vmid(), "a&b=c\nd é", "d1").await;
    assert_eq!(reply, Ok(()));
    let seen = server.seen();
    for request in &seen {
        assert_eq!(request.header("transfer-encoding"), None, "chunked bodies are refused");
        assert!(request.path.starts_with("/api2/json/nodes/pve1/lxc/100"));
    }
    assert_eq!((seen[0].header("content-length"), seen[0].body.as_str()), (Some("0"), ""));
    assert_eq!(seen[1].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!((seen[1].body.as_str(), seen[1].query.as_str()), ("timeout=30", ""));
    assert_eq!((seen[2].method.as_str(), seen[2].query.as_str()), ("DELETE", "purge=1"));
    assert_eq!((seen[2].body.as_str(), seen[2].header("content-type")), ("", None));
    assert_eq!(seen[3].param("description").as_deref(), Some("a&b=c\nd é"));
    assert_eq!(seen[3].param("digest").as_deref(), Some("d1"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_, _| version()).await;
    let target = format!("https://127.0.0.1:{}/api2/json/version", elsewhere.port);
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let head = format!("HTTP/1.1 {status}\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        let server = Server::start(move |_, _| Act::Raw(head.clone().into_bytes())).await;
        let client = server.client();
        let read = client.version().await;
        assert!(matches!(read, Err(HypervisorError::Permanent { .. })), "{read:?}");
        let write = client.start(&node(), vmid()).await;
        assert!(matches!(write, Err(HypervisorError::Permanent { .. })), "{write:?}");
        assert_eq!(server.calls().len(), 2);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_unknown_and_was_sent_once() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"data\":\"UPID:pv".to_vec();
    for (name, act) in [
        ("no reply", Act::Silence),
        ("closed", Act::Close),
        ("cut body", Act::Raw(head)),
        ("half a status line", Act::Raw(b"HTTP/1.1 20".to_vec())),
        ("no HTTP", Act::Raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())),
        ("596", Act::Reply("596 Broken pipe".into(), String::new())),
        ("599", Act::Reply("599 Timeout".into(), String::new())),
    ] {
        let server = Server::start(move |_, _| act.clone()).await;
        let client = server.client();
        let error = client.start(&node(), vmid()).await.unwrap_err();
        assert!(matches!(error, HypervisorError::Unknown { .. }), "{name}: {error:?}");
        assert_eq!(server.calls().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_refusal_whose_body_is_cut_is_still_a_refusal() {
    let cut = "HTTP/1.1 500 CT 100 already running\r\nContent-Length: 90\r\n\r\n{\"da";
    let server = Server::start(move |_, _| Act::Raw(cut.into())).await;
    let error = server.client().start(&node(), vmid()).await.unwrap_err();
    assert!(matches!(error, HypervisorError::AlreadySo { .. }), "{error:?}");
}

#[tokio::test]
async fn nothing_that_was_not_sent_is_unknown() {
    // A port that nobody listens on any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = i64::from(listener.local_addr().unwrap().port());
    drop(listener);
    let server = Server::start(|_, _| version()).await;
    let secret = proximity_commands::Secret::new(crate::server::random_secret());
    let mut spec = server.spec(Credential::Token { id: "t".to_owned(), secret });
    spec.port = port.try_into().unwrap();
    let client = proximity_proxmox::PveClient::connect(&spec, limits()).unwrap();
    let error = client.start(&node(), vmid()).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Retryable { .. }), "{error:?}");
    let refused =
        Server::start(|_, _| Act::Reply("595 Connection refused".into(), "".into())).await;
    let error = refused.client().start(&node(), vmid()).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unreachable { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "POST /nodes/pve1/lxc/{vmid}/status/start: 595 Connection refused"
    );
    assert_eq!(refused.calls().len(), 1);
}

#[tokio::test]
async fn a_read_is_repeated_when_its_connection_broke_and_only_then() {
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"data\"".to_vec();
    for act in [
        Act::Close,
        Act::Raw(cut),
        Act::Reply("595 No route to host".into(), String::new()),
        Act::Reply("596 Broken pipe".into(), String::new()),
        Act::Reply("599 Timeout".into(), String::new()),
    ] {
        let fault = act.clone();
        let twice =
            Server::start(move |number, _| if number < 2 { fault.clone() } else { version() })
                .await;
        assert_eq!(twice.client().version().await.unwrap().major, 9);
        let always = Server::start(move |_, _| act.clone()).await;
        let error = always.client().version().await.unwrap_err();
        assert!(matches!(error, HypervisorError::Retryable { .. }), "{error:?}");
        assert_eq!(always.calls().len(), 3, "a bounded number of times");
    }
    for (status, text) in
        [(403, "Permission check failed (/, Sys.Audit)"), (501, "no"), (400, "no")]
    {
        let server = Server::start(move |_, _| refusal(status, text)).await;
        assert!(server.client().version().await.is_err());
        assert_eq!(server.calls().len(), 1, "an answer is an answer");
    }
}

/// Proxmox closes a connection after each error and after 100 requests, not always saying so.
#[tokio::test]
async fn connections_that_close_without_a_word_disturb_nobody() {
    let reply = format!("{{\"data\":{VERSION}}}");
    let server = Server::start(move |_, seen: &Seen| match seen.method.as_str() {
        "GET" => Act::ReplyAndClose(reply.clone()),
        _ => Act::ReplyAndClose(format!("{{\"data\":{START}}}")),
    })
    .await;
    let client = server.client();
    for _ in 0..20 {
        client.version().await.unwrap();
        client.start(&node(), vmid()).await.unwrap();
    }
    assert_eq!(server.calls().iter().filter(|call| call.starts_with("POST")).count(), 20);
}

#[tokio::test]
async fn a_write_never_travels_on_a_used_connection() {
    let server =
        Server::start(|_, seen| if seen.method == "GET" { version() } else { data(START) }).await;
    let client = server.client();
    for _ in 0..4 {
        client.version().await.unwrap();
    }
    assert_eq!(server.connections(), 1, "reads share one");
    for _ in 0..4 {
        client.start(&node(), vmid()).await.unwrap();
    }
    assert_eq!(server.connections(), 5);
}

#[tokio::test]
async fn contradicting_connection_headers_are_survived() {
    let text = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: Keep-Alive\r\nContent-Length: {}\r\n\r\n{{\"data\":{VERSION}}}",
        VERSION.len() + 9
    );
    let server = Server::start(move |_, _| Act::Raw(text.clone().into_bytes())).await;
    let client = server.client();
    for _ in 0..5 {
        client.version().await.unwrap();
    }
}

#[tokio::test]
async fn audit_23_every_call_has_a_deadline() {
    let server = Server::start(|_, _| Act::Silence).await;
    let client = server.client();
    let started = Instant::now();
    let error = client.version().await.unwrap_err();
    assert!(matches!(error, HypervisorError::Retryable { .. }), "{error:?}");
    assert!(started.elapsed() < limits().read + Duration::from_secs(2));
    assert!(started.elapsed() >= limits().read);
    let started = Instant::now();
    assert!(client.start(&node(), vmid()).await.is_err());
    assert!(started.elapsed() < limits().write + Duration::from_secs(2));
}

#[tokio::test]
async fn a_reply_that_takes_its_time_is_waited_for() {
    let server = Server::start(|_, seen| {
        let body = if seen.method == "GET" { VERSION } else { START };
        let pause = Duration::from_secs(1);
        Act::Slow(pause, "200 OK".to_owned(), format!("{{\"data\":{body}}}"))
    })
    .await;
    let client = server.client();
    client.version().await.unwrap();
    client.start(&node(), vmid()).await.unwrap();
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_has_sent_nothing() {
    let server = Server::start(|_, _| Act::Silence).await;
    let secret = proximity_commands::Secret::new(crate::server::random_secret());
    let spec = server.spec(Credential::Token { id: "t".to_owned(), secret });
    let hasty = proximity_proxmox::Limits { write_wait: Duration::from_millis(300), ..limits() };
    // Two clients of one connector: the limit is the host's, not the client's.
    let connector = proximity_proxmox::PveConnector::new(hasty);
    let (first, second) = (connector.client(&spec).unwrap(), connector.client(&spec).unwrap());
    let (at, id) = (node(), vmid());
    let (a, b, c, late) =
        tokio::join!(first.start(&at, id), first.start(&at, id), second.start(&at, id), async {
            // The three others are on their way as soon as the server saw them.
            while server.calls().len() < 3 {
                tokio::task::yield_now().await;
            }
            second.start(&at, id).await
        });
    for lost in [a, b, c] {
        assert!(matches!(lost, Err(HypervisorError::Unknown { .. })), "{lost:?}");
    }
    assert!(matches!(late, Err(HypervisorError::Retryable { .. })), "{late:?}");
    assert_eq!(server.calls().len(), 3);
}

/// What a claim on an operation rests on: after the wait a write is not sent at all.
#[tokio::test]
async fn a_write_whose_log_in_takes_too_long_is_never_sent() {
    let server =
        Server::start(|_, seen| if seen.is_login() { Act::Silence } else { data(START) }).await;
    let hasty = proximity_proxmox::Limits { write_wait: Duration::from_millis(300), ..limits() };
    let started = Instant::now();
    let error = server.client_with_password(hasty).start(&node(), vmid()).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Retryable { .. }), "{error:?}");
    assert!(started.elapsed() < hasty.longest_write());
    assert_eq!((server.logins(), server.calls().len()), (1, 0));
}

/// Left out is only what the quorate cluster itself calls offline, and what does not answer.
#[tokio::test]
async fn a_node_that_cannot_be_asked_for_its_tasks_is_an_error_unless_the_cluster_has_lost_it() {
    for (quorate, online, answers, left_out) in [
        (1, "0", false, true),
        (1, "0", true, false),
        (1, "1", false, false),
        (1, "null", false, false),
        (0, "0", false, false),
    ] {
        let server = Server::start(move |_, seen| match seen.call().as_str() {
            "GET /nodes" => {
                data(r#"[{"node":"pve1","status":"online"},{"node":"pve2","status":"offline"}]"#)
            }
            "GET /cluster/status" => data(&format!(
                r#"[{{"type":"cluster","name":"lab","quorate":{quorate}}},
                    {{"type":"node","name":"pve1","online":1}},
                    {{"type":"node","name":"pve2","online":{online}}}]"#
            )),
            "GET /nodes/pve1/tasks" => data("[]"),
            _ if answers => Act::Reply("500 it is not well".into(), String::new()),
            _ => Act::Reply("595 No route to host".into(), String::new()),
        })
        .await;
        match server.client().tasks_of(vmid()).await {
            Ok(tasks) => assert!(left_out && tasks.is_empty(), "{quorate} {online} {answers}"),
            Err(error) => {
                assert!(!left_out, "{quorate} {online} {answers}: {error}");
                let named = error.to_string().contains("GET /nodes/pve2/tasks: 595");
                assert_eq!(named, !answers, "{error}");
            }
        }
    }
}

/// A node that does not hold the container answers `OK` and starts nothing.
#[tokio::test]
async fn a_backup_that_was_passed_over_started_nothing_and_is_no_open_outcome() {
    let backup = NewBackup {
        vmid: vmid(),
        storage: "local".to_owned(),
        mode: "snapshot".parse().unwrap(),
        compression: "zstd".parse().unwrap(),
        notes: "operation=1".to_owned(),
    };
    let server = Server::start(|_, _| data(r#""OK""#)).await;
    let error = server.client().back_up(&node(), &backup).await.unwrap_err();
    assert!(matches!(error, HypervisorError::NoGuest { .. }), "{error:?}");
    let server = Server::start(|_, _| data(r#""KO""#)).await;
    let error = server.client().back_up(&node(), &backup).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unknown { .. }), "{error:?}");
}

#[tokio::test]
async fn a_description_that_is_too_long_is_refused_before_it_is_sent() {
    let server = Server::start(|_, _| data("null")).await;
    let client = server.client();
    let long = "é".repeat(8_193);
    let restored = NewRestored {
        vmid: vmid(),
        archive: "local:backup/vzdump-lxc-101-2026_11_29-10_00_00.tar.zst".to_owned(),
        storage: "local".to_owned(),
        description: long.clone(),
        pool: None,
        overwrite: false,
    };
    let copy = NewCopy {
        vmid: vmid(),
        hostname: "copy".parse().unwrap(),
        description: long.clone(),
        snapshot: None,
    };
    for refused in [
        client.restore(&node(), &restored).await.map(drop),
        client.copy(&node(), vmid(), &copy).await.map(drop),
        client.set_description(&node(), vmid(), &long, "d").await,
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, HypervisorError::Permanent { .. }), "{error:?}");
        assert!(error.to_string().contains("longer than 8192 characters"), "{error}");
    }
    assert!(server.calls().is_empty());
    client.set_description(&node(), vmid(), &long[..8_192 * 2], "d").await.unwrap();
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn a_task_that_ends_between_the_two_questions_is_listed_once_as_ended() {
    const UPID: &str = "UPID:pve1:00000271:0005EA12:6B049FDA:vzcreate:100:root@pam!t:";
    let server = Server::start(|_, seen| match seen.param("source").as_deref() {
        None => data(r#"[{"node":"pve1","status":"online"}]"#),
        Some("active") => data(&format!(r#"[{{"upid":"{UPID}","status":"RUNNING"}}]"#)),
        _ => data(&format!(r#"[{{"upid":"{UPID}","status":"WARNINGS: 1","endtime":5}}]"#)),
    })
    .await;
    let tasks = server.client().tasks_of(vmid()).await.unwrap();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].state, TaskState::Succeeded { warnings: true });
    assert_eq!(tasks[0].user, "root@pam!t");
}

/// A node's list says that a task runs until another begins there, or ten seconds have passed.
#[tokio::test]
async fn a_task_that_is_listed_as_running_is_asked_itself() {
    const UPID: &str = "UPID:pve1:00000271:0005EA12:6B049FDA:vzdestroy:100:root@pam!t:";
    for (said, state) in [
        (r#"{"status":"running"}"#, TaskState::Running),
        (r#"{"status":"stopped","exitstatus":"OK"}"#, TaskState::Succeeded { warnings: false }),
        ("", TaskState::Unknown),
    ] {
        let server = Server::start(move |_, seen| match seen.param("source").as_deref() {
            Some("active") => data(&format!(r#"[{{"upid":"{UPID}","status":"RUNNING"}}]"#)),
            Some(_) => data("[]"),
            None if seen.call() == "GET /nodes" => data(r#"[{"node":"pve1","status":"online"}]"#),
            None if said.is_empty() => Act::Reply(
                "400 Parameter verification failed.".into(),
                r#"{"data":null,"errors":{"upid":"no such task"}}"#.into(),
            ),
            None => data(said),
        })
        .await;
        let tasks = server.client().tasks_of(vmid()).await.unwrap();
        assert_eq!((tasks.len(), &tasks[0].state), (1, &state));
        assert_eq!(tasks[0].is_at_work(), state == TaskState::Running);
    }
}

/// Who logs in with a password may be a person at the web interface.
#[tokio::test]
async fn only_a_task_that_the_very_token_started_is_its_own() {
    let server = Server::start(|_, seen| match seen.param("source").as_deref() {
        None => data(r#"[{"node":"pve1","status":"online"}]"#),
        Some("active") => data("[]"),
        Some(_) => {
            let rows = ["root@pam!proximity", "root@pam!t", "root@pam"].map(|user| {
                let upid = format!("UPID:pve1:00000271:0005EA12:6B049FDA:vzdump:100:{user}:");
                format!(r#"{{"upid":"{upid}","status":"OK","endtime":5}}"#)
            });
            data(&format!("[{}]", rows.join(",")))
        }
    })
    .await;
    let tasks = server.client().tasks_of(vmid()).await.unwrap();
    let own: Vec<_> = tasks.iter().filter(|task| task.own).map(|task| &*task.user).collect();
    assert_eq!((tasks.len(), own), (3, vec!["root@pam!proximity"]));
}

#[tokio::test]
async fn the_last_lines_of_a_long_log_are_read_in_two_calls() {
    let server = Server::start(|_, seen| {
        let number = |name| seen.param(name).unwrap().parse::<u64>().unwrap();
        let lines: Vec<String> = (number("start")..123)
            .take(usize::try_from(number("limit")).unwrap())
            .map(|line| format!(r#"{{"n":{},"t":"line {line}"}}"#, line + 1))
            .collect();
        Act::Reply("200 OK".into(), format!(r#"{{"total":123,"data":[{}]}}"#, lines.join(",")))
    })
    .await;
    let upid = Upid("UPID:pve1:00000271:0005EA12:6B049FDA:vzcreate:100:root@pam:".to_owned());
    let lines = server.client().task_log(&upid, 3).await.unwrap();
    assert_eq!(lines, ["line 120", "line 121", "line 122"]);
    assert_eq!(server.calls().len(), 2);
}

#[tokio::test]
async fn every_end_of_a_task_is_told_apart() {
    for (exit, expected) in [
        (r#""OK""#, TaskState::Succeeded { warnings: false }),
        (r#""WARNINGS: 3""#, TaskState::Succeeded { warnings: true }),
        (r#""unexpected status""#, TaskState::Unknown),
        ("null", TaskState::Unknown),
        (
            r#""bridge 'vmbr9' does not exist\n""#,
            TaskState::Failed("bridge 'vmbr9' does not exist".into()),
        ),
    ] {
        let json = format!(r#"{{"status":"stopped","exitstatus":{exit}}}"#);
        let server = Server::start(move |_, _| data(&json)).await;
        let upid = Upid("UPID:pve1:00000271:0005EA12:6B049FDA:vzcreate:100:root@pam:".to_owned());
        assert_eq!(server.client().task(&upid).await.unwrap(), Some(expected));
    }
}

/// A job over several guests names none of them, and a copy its source: it is at work on the one that
/// carries its lock.
#[tokio::test]
async fn a_task_that_does_not_name_a_guest_counts_for_the_one_that_it_has_locked() {
    for (task, running, lock, counts) in [
        ("vzdump:", true, r#""lock":"backup","#, true),
        ("vzdump:", true, r#""lock":"snapshot","#, false),
        ("vzdump:", true, "", false),
        ("vzdump:", false, r#""lock":"backup","#, false),
        ("vzclone:900", true, r#""lock":"create","#, true),
        ("vzclone:900", true, r#""lock":"backup","#, false),
        ("vzclone:900", false, r#""lock":"create","#, false),
        ("vzcreate:900", true, r#""lock":"create","#, false),
    ] {
        let upid = format!("UPID:pve1:00000271:0005EA12:6B049FDA:{task}:root@pam!proximity:");
        let server = Server::start(move |_, seen| match seen.param("source").as_deref() {
            Some("active") if seen.param("vmid").is_none() => {
                data(&format!(r#"[{{"upid":"{upid}","status":"RUNNING"}}]"#))
            }
            Some(_) => data("[]"),
            None if seen.call() == "GET /nodes" => data(r#"[{"node":"pve1","status":"online"}]"#),
            None if seen.call().ends_with("/config") => {
                data(&format!(r#"{{{lock}"digest":"d","hostname":"web"}}"#))
            }
            None if running => data(r#"{"status":"running"}"#),
            None => data(r#"{"status":"stopped","exitstatus":"OK"}"#),
        })
        .await;
        let tasks = server.client().tasks_of(vmid()).await.unwrap();
        assert_eq!(tasks.len(), usize::from(counts), "{task} {running} {lock}: {tasks:?}");
        assert!(tasks.iter().all(|task| task.by_lock && task.is_at_work()));
    }
}
