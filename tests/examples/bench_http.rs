//! Measures the whole program over HTTP on both stores: deployments accepted, lists, start-up, memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proximity_tests::database::Kind;
use proximity_tests::http::Client;
use proximity_tests::process::Site;
use serde_json::{Value, json};

/// How long each row is measured.
const WINDOW: Duration = Duration::from_secs(8);

struct Demo {
    child: Child,
    facts: Value,
}

impl Demo {
    fn start(site: &Site) -> Self {
        let mut child = site
            .command(&["demo", "--json", "--listen", &site.listen])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, facts: serde_json::from_str(&line).expect("demo --json prints one line") }
    }

    fn text(&self, key: &str) -> &str {
        self.facts[key].as_str().unwrap()
    }

    /// Resident memory in MiB.
    fn resident(&self) -> f64 {
        resident(self.child.id())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Calls per second and the latencies of `callers` callers who each repeat `call` for a window.
async fn measure<F, Fut>(callers: usize, call: F) -> (f64, Duration, Duration, usize)
where
    F: Fn(usize) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = bool> + Send,
{
    let (number, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (number, refused, call) = (number.clone(), refused.clone(), call.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while started.elapsed() < WINDOW {
                    let began = Instant::now();
                    if call(number.fetch_add(1, Ordering::Relaxed)).await {
                        times.push(began.elapsed());
                    } else {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    times.sort();
    let at = |percent: usize| {
        times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    };
    (rate, at(50), at(99), refused.load(Ordering::Relaxed))
}

fn print_row(what: &str, (rate, p50, p99, refused): (f64, Duration, Duration, usize)) {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("| {what} | {rate:.0} | {:.1} | {:.1} | {refused} |", ms(p50), ms(p99));
}

async fn deployments(kind: Kind, callers: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(kind, folder.path()).await;
    widen(&mut site);
    let demo = Demo::start(&site);
    let client =
        Client::login(demo.text("url"), demo.text("username"), demo.text("password")).await;
    let idle = demo.resident();
    let poster = client.clone();
    let row = measure(callers, move |number| {
        let client = poster.clone();
        async move {
            let body = json!({ "catalog_id": "alpine", "hostname": format!("bench-{number}") });
            client.post("/api/apps/", body).await.status == 202
        }
    })
    .await;
    print_row(&format!("{kind:?}: deployments accepted, {callers} callers"), row);
    if callers == 1 {
        println!("| {kind:?}: resident memory, idle, simulator included | {idle:.0} MiB | | | |");
    }
}

async fn lists(kind: Kind, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(kind, folder.path()).await;
    widen(&mut site);
    let demo = Demo::start(&site);
    let client =
        Client::login(demo.text("url"), demo.text("username"), demo.text("password")).await;
    for number in 0..count {
        let body = json!({ "catalog_id": "alpine", "hostname": format!("list-{number}") });
        client.post("/api/apps/", body).await.ok();
    }
    let settled = |answer: &proximity_tests::http::Answer| answer.body["total"] == 0;
    client.wait_until("/api/apps/?status=deploying", Duration::from_secs(900), settled).await;
    let per_page = count.min(100);
    let row = measure(16, move |_| {
        let client = client.clone();
        async move { client.get(&format!("/api/apps/?per_page={per_page}")).await.status == 200 }
    })
    .await;
    print_row(&format!("{kind:?}: lists, {per_page} of {count} applications, 16 callers"), row);
}

/// Port ranges wide enough for every deployment of a run.
fn widen(site: &mut Site) {
    site.set("PROXIMITY_PORTS__PUBLIC", "20000-39999");
    site.set("PROXIMITY_PORTS__INTERNAL", "40000-59999");
    site.set("PROXIMITY_PUBLISH__ENABLED", "false");
}

#[tokio::main]
async fn main() {
    println!("| what | per second | p50 ms | p99 ms | refused |\n|---|---|---|---|---|");
    for kind in [Kind::Sqlite, Kind::Postgres] {
        for callers in [1, 16, 64] {
            deployments(kind, callers).await;
        }
        for count in [20, 1_000] {
            lists(kind, count).await;
        }
    }
}
