//! Rebuild in events/s beside a bare read of the same rows that only deserialises them.
//!
//! `cargo run --release -p proximity-projections --example bench_rebuild [EVENTS]`; PostgreSQL is
//! measured too when `PROXIMITY_TEST_POSTGRES` names an administrator's database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, dead_code, unused_imports)]

use std::time::Instant;

use proximity_domain::{application, host, lease, operation};

#[path = "../tests/views/samples.rs"]
mod samples;
#[path = "../tests/views/support.rs"]
mod support;

use samples::Sample;
use support::{Kind, Site, silent};

const PAGE: usize = 5_000;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() {
    let events = std::env::args().nth(1).map_or(200_000, |text| text.parse().expect("a number"));
    println!("| store | what | events | seconds | events/s | of the bare read |");
    println!("|---|---|---:|---:|---:|---:|");
    measure(Kind::Sqlite, events).await;
    if std::env::var_os("PROXIMITY_TEST_POSTGRES").is_some() {
        measure(Kind::Postgres, events).await;
    }
}

async fn measure(kind: Kind, events: u64) {
    let site = Site::new(kind).await;
    let mut head = 0;
    let mut number = 0;
    while head < events {
        let mut streams = Vec::new();
        for _ in 0..50 {
            number += 1;
            let sample = Sample::new(number);
            streams.extend(sample.deployment());
            streams.extend(sample.success());
        }
        head = site.append(streams).await;
    }
    let bare = best(3, || bare_read(&site, head)).await;
    line(kind, "bare read", head, bare, bare);
    let views = site.views().await;
    let all = best(3, || async {
        let started = Instant::now();
        views.rebuild(&[], silent()).await.unwrap();
        started.elapsed().as_secs_f64()
    })
    .await;
    line(kind, "rebuild of all four", head, all, bare);
    for name in ["applications", "operations", "leases", "hosts"] {
        let one = best(3, || async {
            let started = Instant::now();
            views.rebuild(&[name], silent()).await.unwrap();
            started.elapsed().as_secs_f64()
        })
        .await;
        line(kind, &format!("rebuild of `{name}`"), head, one, bare);
    }
    read_your_writes(&site, &views).await;
    views.close().await;
    site.end().await;
}

/// How long after its acknowledgement a deployment can be read by whoever waits for it.
async fn read_your_writes(site: &Site, views: &proximity_projections::Views) {
    let runner = views.follow();
    let mut waits = Vec::new();
    for number in 0..300 {
        let position = site.append(Sample::new(3_000_000 + number).deployment()).await;
        let acknowledged = Instant::now();
        support::caught_up(views, position).await;
        waits.push(acknowledged.elapsed());
    }
    waits.sort_unstable();
    let (half, most) = (waits[150], waits[297]);
    println!(
        "| {:?} | acknowledged to readable | 300 appends | p50 {half:?} | p99 {most:?} | |",
        site.kind
    );
    runner.stop().await;
}

async fn best<F: Future<Output = f64>>(times: usize, mut run: impl FnMut() -> F) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..times {
        best = best.min(run().await);
    }
    best
}

/// Pages through the log and reads each payload as its event, nothing else.
async fn bare_read(site: &Site, head: u64) -> f64 {
    let started = Instant::now();
    let mut after = 0;
    while after < head {
        let page = site.store.feed(after, PAGE).await.unwrap();
        for recorded in &page {
            match recorded.aggregate_type.as_str() {
                "application" => read::<application::Event>(&recorded.payload),
                "lease" => read::<lease::Event>(&recorded.payload),
                "operation" => read::<operation::Event>(&recorded.payload),
                _ => read::<host::Event>(&recorded.payload),
            }
        }
        after = page.last().unwrap().position;
    }
    started.elapsed().as_secs_f64()
}

fn read<E: serde::de::DeserializeOwned>(payload: &str) {
    std::hint::black_box(serde_json::from_str::<E>(payload).unwrap());
}

fn line(kind: Kind, what: &str, events: u64, seconds: f64, bare: f64) {
    // Counts of events are far below 2^52, where a double is exact.
    let rate = events as f64 / seconds;
    println!("| {kind:?} | {what} | {events} | {seconds:.2} | {rate:.0} | {:.2} |", bare / seconds);
}
