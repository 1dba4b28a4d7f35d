//! Measures how long a start takes until the server is ready, with a log of 100,000 events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, dead_code, unused_imports)]

use std::time::{Duration, Instant};

use proximity_eventstore::{Options, Store};
use proximity_tests::database::Kind;
use proximity_tests::process::Site;

#[path = "../../projections/tests/views/samples.rs"]
mod samples;
#[path = "../../projections/tests/views/support.rs"]
mod support;

const EVENTS: u64 = 100_000;

#[tokio::main]
async fn main() {
    println!("| store | start-up to ready | events | seconds |\n|---|---|---:|---:|");
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let folder = tempfile::tempdir().unwrap();
        let mut site = Site::new(kind, folder.path()).await;
        site.set("PROXIMITY_PUBLISH__ENABLED", "false");
        let empty = start(&site).await;
        row(kind, "an empty log", 0, empty);
        let head = fill(&site).await;
        let behind = start(&site).await;
        row(kind, "views have all of it to catch up", head, behind);
        let current = start(&site).await;
        row(kind, "views are up to date", head, current);
    }
}

/// Starts the server, returns how long that took, and stops it again.
async fn start(site: &Site) -> Duration {
    let began = Instant::now();
    let server = site.serve().await;
    let took = began.elapsed();
    server.terminate();
    took
}

/// Appends deployments that succeeded until the log is as long as asked for.
async fn fill(site: &Site) -> u64 {
    let options = match site.database_url() {
        Some(url) => Options::postgres(url),
        None => Options::sqlite(&site.data),
    };
    let store = Store::open(options).await.unwrap();
    let (mut head, mut number) = (0, 0);
    while head < EVENTS {
        let mut streams = Vec::new();
        for _ in 0..50 {
            number += 1;
            let sample = samples::Sample::new(number);
            streams.extend(sample.deployment());
            streams.extend(sample.success());
        }
        head = support::append(&store, streams).await;
    }
    store.close().await;
    head
}

fn row(kind: Kind, what: &str, events: u64, took: Duration) {
    println!("| {kind:?} | {what} | {events} | {:.2} |", took.as_secs_f64());
}
