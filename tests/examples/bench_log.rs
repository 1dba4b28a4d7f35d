//! Measures what is done with a long log: verified, rebuilt beside a bare read, read meanwhile, followed
//! by a hundred readers; memory.
//!
//! `bench_log [EVENTS] [sqlite|postgres]`, 1,000,000 and both unless it says otherwise; each store is
//! measured at a tenth of them first, which shows whether memory grows with the log. PostgreSQL is
//! measured when `PROXIMITY_TEST_POSTGRES` names an administrator's database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, dead_code, unused_imports)]

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proximity_domain::{application, lease, operation};
use proximity_eventstore::{Options, Store};
use proximity_tests::database::Kind;
use proximity_tests::http::Client;
use proximity_tests::lab::Lab;
use proximity_tests::process::Site;
use serde_json::Value;

#[path = "../../projections/tests/views/samples.rs"]
mod samples;
#[path = "bench_log_parts/streams.rs"]
mod streams;
#[path = "../../projections/tests/views/support.rs"]
mod support;

/// Events read at once by the bare read, as by a rebuild.
const PAGE: usize = 5_000;
/// The best of so many runs counts; the lists of so many rounds are taken together.
const RUNS: usize = 3;
/// How long lists are read in a round while nothing else happens.
const IDLE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    let events: u64 =
        std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("a number of events"));
    println!("| store | what | events | seconds | events/s | peak memory |");
    println!("|---|---|---:|---:|---:|---:|");
    let only = std::env::args().nth(2);
    let asked = |store: &str| only.as_deref().is_none_or(|only| only == store);
    if asked("sqlite") {
        measure(Kind::Sqlite, events).await;
    }
    if asked("postgres") && std::env::var_os("PROXIMITY_TEST_POSTGRES").is_some() {
        measure(Kind::Postgres, events).await;
    }
}

async fn measure(kind: Kind, events: u64) {
    let lab = Lab::new(kind, 1).await;
    let mut number = 0;
    for size in [events / 10, events] {
        let head = fill(&lab.site, &mut number, size).await;
        let begun = Instant::now();
        let server = lab.site.serve().await;
        let client = Client::login(&lab.site.url(), &lab.admin, &lab.password).await;
        let head = sealed(&client, head).await;
        row(
            kind,
            "seal and project what was added",
            head,
            begun.elapsed(),
            Some(memory(server.pid())),
        );
        current(&client, head).await;
        if size == events {
            reads(kind, &lab.site, &client).await;
            streams::measure(kind, &lab, &client, server.pid()).await;
        }
        server.terminate();

        let (report, took, peak) = best(|| run(&lab.site, &["audit", "verify", "-o", "json"]));
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!((&report["clean"], &report["events"]), (&true.into(), &report["head"].clone()));
        row(kind, "audit verify", head, took, Some(peak));
        let bare = bare_read(&lab.site, head).await;
        row(kind, "bare read that only deserialises", head, bare, None);
        let (_, took, peak) = best(|| run(&lab.site, &["projections", "rebuild"]));
        row(kind, "rebuild of all projections in one pass", head, took, Some(peak));
        let ratio = bare.as_secs_f64() / took.as_secs_f64();
        println!("| {kind:?} | rebuild ÷ bare read (goal: 0.5) | {head} | | {ratio:.2} | |");
    }
}

/// Appends deployments that succeeded until the log is as long as asked for.
async fn fill(site: &Site, number: &mut u32, events: u64) -> u64 {
    let store = Store::open(options(site)).await.unwrap();
    let mut head = store.head().await.unwrap();
    while head < events {
        let mut streams = Vec::new();
        for _ in 0..50 {
            *number += 1;
            let sample = samples::Sample::new(*number);
            streams.extend(sample.deployment());
            streams.extend(sample.success());
        }
        head = support::append(&store, streams).await;
    }
    store.close().await;
    head
}

fn options(site: &Site) -> Options {
    site.database_url().map_or_else(|| Options::sqlite(&site.data), Options::postgres)
}

/// Waits until everything is sealed; the position of that.
async fn sealed(client: &Client, head: u64) -> u64 {
    loop {
        let metrics = client.get("/metrics").await.body;
        let text = metrics.as_str().unwrap();
        let line =
            text.lines().find(|line| line.starts_with("proximity_sealed_position ")).unwrap();
        let position: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        if position >= head {
            return position;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the views have seen all of it.
async fn current(client: &Client, head: u64) {
    loop {
        let metrics = client.get("/metrics").await.body;
        let text = metrics.as_str().unwrap();
        let line = text.lines().find(|line| line.starts_with("proximity_views_position ")).unwrap();
        if line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() >= head {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lists read while nothing happens, and while all projections are rebuilt.
async fn reads(kind: Kind, site: &Site, client: &Client) {
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    // In turn, so that a machine that is slow for a while is so for both.
    for _ in 0..RUNS {
        let stop = Arc::new(AtomicBool::new(false));
        let reading = tokio::spawn(read(client.clone(), stop.clone()));
        tokio::time::sleep(IDLE).await;
        stop.store(true, Ordering::Relaxed);
        idle.extend(reading.await.unwrap());

        let stop = Arc::new(AtomicBool::new(false));
        let reading = tokio::spawn(read(client.clone(), stop.clone()));
        let mut child =
            site.command(&["projections", "rebuild"]).stdout(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(child.wait().unwrap().success());
        stop.store(true, Ordering::Relaxed);
        busy.extend(reading.await.unwrap());
    }
    idle.sort();
    busy.sort();
    let ms = |times: &[Duration], percent: usize| {
        times.get((times.len().saturating_sub(1)) * percent / 100).unwrap().as_secs_f64() * 1000.0
    };
    for (what, times) in [("nothing else", &idle), ("a rebuild of all", &busy)] {
        println!(
            "| {kind:?} | lists of 20 beside {what} | {} lists | p50 {:.1} ms | p99 {:.1} ms | |",
            times.len(),
            ms(times, 50),
            ms(times, 99)
        );
    }
    let ratio = ms(&busy, 99) / ms(&idle, 99);
    println!("| {kind:?} | p99 beside a rebuild ÷ idle (goal: at most 2) | | | {ratio:.2} | |");
}

async fn read(client: Client, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        client.get("/api/apps/?per_page=20").await.ok();
        times.push(begun.elapsed());
    }
    times
}

/// Output, time and peak memory in MiB of a command.
fn run(site: &Site, arguments: &[&str]) -> (String, Duration, f64) {
    let begun = Instant::now();
    let child = site.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let output = std::thread::spawn(move || child.wait_with_output().unwrap());
    let mut peak: f64 = 0.0;
    while !output.is_finished() {
        peak = peak.max(peak_of(pid).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = begun.elapsed();
    let output = output.join().unwrap();
    assert!(output.status.success(), "{arguments:?} ended with {}", output.status);
    (String::from_utf8(output.stdout).unwrap(), took, peak)
}

fn best(mut run: impl FnMut() -> (String, Duration, f64)) -> (String, Duration, f64) {
    let mut best = run();
    for _ in 1..RUNS {
        let (text, took, peak) = run();
        best = (text, took.min(best.1), peak.max(best.2));
    }
    best
}

fn memory(pid: u32) -> f64 {
    peak_of(pid).unwrap_or_default()
}

/// The most memory that a process has had so far, in MiB; nothing once it is gone.
fn peak_of(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Pages through the log and reads each payload as its event, nothing else; the best of three.
async fn bare_read(site: &Site, head: u64) -> Duration {
    let store = Store::open_read_only(options(site)).await.unwrap();
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let begun = Instant::now();
        let mut after = 0;
        while after < head {
            let page = store.feed(after, PAGE).await.unwrap();
            for recorded in &page {
                match recorded.aggregate_type.as_str() {
                    "application" => parse::<application::Event>(&recorded.payload),
                    "lease" => parse::<lease::Event>(&recorded.payload),
                    "operation" => parse::<operation::Event>(&recorded.payload),
                    _ => parse::<Value>(&recorded.payload),
                }
            }
            after = page.last().unwrap().position;
        }
        best = best.min(begun.elapsed());
    }
    store.close().await;
    best
}

fn parse<E: serde::de::DeserializeOwned>(payload: &str) {
    std::hint::black_box(serde_json::from_str::<E>(payload).unwrap());
}

fn row(kind: Kind, what: &str, events: u64, took: Duration, peak: Option<f64>) {
    // Counts of events are far below 2^52, where a double is exact.
    let (seconds, rate) = (took.as_secs_f64(), events as f64 / took.as_secs_f64());
    let peak = peak.map(|peak| format!("{peak:.0} MiB")).unwrap_or_default();
    println!("| {kind:?} | {what} | {events} | {seconds:.2} | {rate:.0} | {peak} |");
}
