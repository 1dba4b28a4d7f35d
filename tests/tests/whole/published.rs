//! Published ports of real servers: what reaches an application's container through them, what does not,
//! and what a thousand connections cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::http::{Client, plain};
use proximity_tests::lab::Lab;
use proximity_tests::process::Server;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const IDLE: usize = 1_000;
const BUSY: usize = 50;
/// What a server may grow by for them. Each byte that is passed on has its place in a buffer of 8 KiB,
/// two for each connection; hyper's connections take some more.
const BOUND_KIB: u64 = 64 * 1024;

async fn publishing(ports: Option<[u16; 2]>) -> (Lab, Server, Client) {
    let mut lab = Lab::new(Kind::Sqlite, 2).await;
    lab.site.set("PROXIMITY_PUBLISH__ENABLED", "true");
    if let Some([public, internal]) = ports {
        lab.site.set("PROXIMITY_PORTS__PUBLIC", &format!("{public}-{public}"));
        lab.site.set("PROXIMITY_PORTS__INTERNAL", &format!("{internal}-{internal}"));
    }
    let (server, client) = lab.start().await;
    (lab, server, client)
}

/// A running application, as it is shown.
async fn deployed(client: &Client, catalog_id: &str, hostname: &str) -> Value {
    let body = json!({ "catalog_id": catalog_id, "hostname": hostname });
    let answer = client.post("/api/apps/", body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let path = format!("/api/apps/{}", answer.body["id"].as_str().unwrap());
    let runs = |answer: &proximity_tests::http::Answer| answer.body["status"] == "running";
    client.wait_until(&path, Duration::from_secs(60), runs).await.body
}

fn port(app: &Value, name: &str) -> u16 {
    u16::try_from(app[name].as_u64().unwrap()).unwrap()
}

/// Connects as soon as the publisher has followed the log.
async fn connected(port: u16) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "port {port}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until nobody listens there any more.
async fn refused(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        assert!(Instant::now() < deadline, "port {port} is still listened on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn act(client: &Client, app: &Value, action: &str, status: &str) {
    let path = format!("/api/apps/{}", app["id"].as_str().unwrap());
    client.post(&format!("{path}/action"), json!({ "action": action })).await.ok();
    let so = |answer: &proximity_tests::http::Answer| answer.body["status"] == status;
    client.wait_until(&path, Duration::from_secs(60), so).await;
}

/// `VmRSS` of a process in KiB.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_and_raw_bytes_reach_an_application_on_both_ports_and_end_when_it_stops() {
    let (_lab, server, client) = publishing(None).await;
    let web = deployed(&client, "nginx", "web").await;
    let (public, internal) = (port(&web, "public_port"), port(&web, "internal_port"));
    drop((connected(public).await, connected(internal).await));

    // The same page on both; framing is forbidden on one of them only.
    let http = plain();
    for (port, forbids) in [(public, true), (internal, false)] {
        let answer = http.get(format!("http://127.0.0.1:{port}/")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let headers = answer.headers().clone();
        assert_eq!(headers.contains_key("x-frame-options"), forbids, "{port}: {headers:?}");
        let policy = headers.get("content-security-policy").expect("the rest of the policy stays");
        let policy = policy.to_str().unwrap();
        assert_eq!(policy.contains("frame-ancestors"), forbids, "{port}: {policy}");
        assert!(policy.contains("default-src 'self'"), "{port}: {policy}");
        assert!(answer.text().await.unwrap().contains("web"));
    }

    // What is no HTTP is passed on byte for byte, on both.
    let sql = deployed(&client, "postgresql", "sql").await;
    for name in ["public_port", "internal_port"] {
        let mut stream = connected(port(&sql, name)).await;
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut reading, mut writing) = stream.split();
        let mut echoed = vec![0; sent.len()];
        let (written, read) =
            tokio::join!(writing.write_all(&sent), reading.read_exact(&mut echoed));
        written.unwrap();
        read.unwrap();
        assert!(echoed == sent, "{name}: other bytes came back");
    }

    // A stopped application has no port, and what was open on it ends; started again, it is back.
    let mut open = connected(port(&sql, "public_port")).await;
    act(&client, &sql, "stop", "stopped").await;
    for name in ["public_port", "internal_port"] {
        refused(port(&sql, name)).await;
    }
    let ended = tokio::time::timeout(Duration::from_secs(10), open.read(&mut [0; 8])).await;
    assert!(!matches!(ended.expect("the connection ends"), Ok(count) if count > 0));
    act(&client, &sql, "start", "running").await;
    let mut stream = connected(port(&sql, "public_port")).await;
    stream.write_all(b"again").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"again");
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_cannot_be_listened_on_is_said_and_stops_nothing() {
    // A stranger has the port; the other one was free a moment ago.
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let public = stranger.local_addr().unwrap().port();
    let internal = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (_lab, server, client) = publishing(Some([public, internal])).await;
    let web = deployed(&client, "nginx", "web").await;
    assert_eq!((port(&web, "public_port"), port(&web, "internal_port")), (public, internal));
    let path = format!("/api/apps/{}", web["id"].as_str().unwrap());
    let told = |answer: &proximity_tests::http::Answer| {
        answer.body["problem"]
            .as_str()
            .is_some_and(|text| text.contains(&format!("port {public} ")))
    };
    let shown = client.wait_until(&path, Duration::from_secs(10), told).await.body;
    assert_eq!(shown["status"], "running");
    // Its `url` leads past the port that is not there; the embedded view is reached as ever.
    let url = shown["url"].as_str().unwrap();
    assert!(!url.contains(&format!(":{public}")), "{url}");
    for url in [url, shown["iframe_url"].as_str().unwrap()] {
        assert_eq!(plain().get(url).send().await.unwrap().status(), 200, "{url}");
    }

    drop(stranger);
    drop(connected(public).await);
    let well = |answer: &proximity_tests::http::Answer| answer.body["problem"].is_null();
    client.wait_until(&path, Duration::from_secs(15), well).await;
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_and_fifty_busy_connections_cost_bounded_memory() {
    let (_lab, server, client) = publishing(None).await;
    let web = deployed(&client, "nginx", "web").await;
    let sql = deployed(&client, "postgresql", "sql").await;
    let (public, internal) = (port(&web, "public_port"), port(&web, "internal_port"));
    let raw = port(&sql, "public_port");
    drop((connected(public).await, connected(internal).await, connected(raw).await));
    let before = resident(&server);

    // Idle ones, all on one port and half of them on the other face.
    let mut idle = Vec::with_capacity(IDLE);
    for number in 0..IDLE {
        let port = if number % 2 == 0 { public } else { internal };
        idle.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    // Busy ones: half ask for pages, half write and never read what comes back.
    let stop = Arc::new(AtomicBool::new(false));
    let (pages, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let busy: Vec<_> = (0..BUSY)
        .map(|number| {
            let (stop, pages, bytes) = (stop.clone(), pages.clone(), bytes.clone());
            tokio::spawn(async move {
                if number % 2 == 0 {
                    let port = if number % 4 == 0 { public } else { internal };
                    let (http, url) = (plain(), format!("http://127.0.0.1:{port}/"));
                    while !stop.load(Ordering::Relaxed) {
                        let answer = http.get(&url).send().await.unwrap();
                        assert_eq!(answer.status(), 200);
                        assert!(answer.text().await.unwrap().contains("web"));
                        pages.fetch_add(1, Ordering::Relaxed);
                    }
                } else {
                    let mut stream = connected(raw).await;
                    let chunk = vec![7; 64 * 1024];
                    while !stop.load(Ordering::Relaxed) {
                        // Nobody reads, so the writing stalls once all buffers on the way are full.
                        let write = stream.write(&chunk);
                        if let Ok(written) =
                            tokio::time::timeout(Duration::from_millis(200), write).await
                        {
                            bytes.fetch_add(written.unwrap() as u64, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    let mut most = before;
    let deadline = Instant::now() + Duration::from_secs(4);
    while Instant::now() < deadline {
        most = most.max(resident(&server));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The server answers beside them, and each idle connection still works.
    client.get("/api/health").await.ok();
    stop.store(true, Ordering::Relaxed);
    for one in busy {
        one.await.unwrap();
    }
    let mut alive = 0;
    for stream in &mut idle {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        alive += usize::from(answer.starts_with(b"HTTP/1.1 200"));
    }
    let grown = most - before;
    figure!(
        "published ports, {IDLE} idle and {BUSY} busy connections: the server grew by {} KiB at most ({before} before), \
         {} pages, {} MiB written by {} that never read, {alive} of {IDLE} idle ones work afterwards",
        grown,
        pages.load(Ordering::Relaxed),
        bytes.load(Ordering::Relaxed) >> 20,
        BUSY / 2,
    );
    assert!(grown < BOUND_KIB, "{grown} KiB");
    assert_eq!(alive, IDLE);
    assert!(pages.load(Ordering::Relaxed) > 100);
    server.terminate();
}
