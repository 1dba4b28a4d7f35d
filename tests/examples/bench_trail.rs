//! What can be asked of a long log: full replay with checks, an application at a past moment, filters
//! of the audit, an export; with the memory that each takes at most.
//!
//! `cargo run --release -p proximity-tests --example bench_trail [EVENTS]`; PostgreSQL is measured too
//! when `PROXIMITY_TEST_POSTGRES` names an administrator's database. The log holds whole lives of
//! applications, each step an append of its own, one in twenty of those of the first ten thousand still
//! alive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, dead_code, unused_imports)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proximity_domain::application::Event as App;
use proximity_domain::lease::{Event as Lease, Holder};
use proximity_domain::operation::{Direction, Event as Operation};
use proximity_domain::plan::Kind as OperationKind;
use proximity_domain::{OperationId, UserId};
use proximity_eventstore::{Append, Lane, Search, Store, StreamAppend};
use proximity_projections::replay::{self, Until};
use proximity_server::http::events;
use proximity_server::http::export::{Form, Pages};
use proximity_server::past;
use rand::Rng as _;
use serde_json::{Value, json};
use uuid::Uuid;

#[path = "../../projections/tests/views/samples.rs"]
mod samples;
#[path = "../../projections/tests/views/support.rs"]
mod support;

use samples::*;
use support::{Kind, Site, silent, stream};

/// Appends on their way at once.
const IN_FLIGHT: usize = 512;
/// Applications that are worked on at once.
const AT_ONCE: usize = 200;
/// Users who own them.
const USERS: u32 = 500;
/// Looks at the past, and searches, of each kind.
const LOOKS: usize = 200;

#[tokio::main]
async fn main() {
    let wanted = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("a number"));
    println!("| store | what | events | seconds | per second | memory at most, MB |");
    println!("|---|---|---:|---:|---:|---:|");
    measure(Kind::Sqlite, wanted).await;
    if std::env::var_os("PROXIMITY_TEST_POSTGRES").is_some() {
        measure(Kind::Postgres, wanted).await;
    }
}

async fn measure(kind: Kind, wanted: u64) {
    let site = Site::new(kind).await;
    let (took, head) = timed(fill(&site.store, wanted)).await;
    row(kind, "append, 512 on their way", head, took);
    let views = site.views().await;
    let (took, _rebuilt) = timed(async { views.rebuild(&[], silent()).await.unwrap() }).await;
    row(kind, "rebuild of all read models", head, took);
    let (took, report) = timed(replay::judge(site.feed(), Until::Head, silent())).await;
    clean(&report.unwrap());
    row(kind, "judge every event", head, took);
    let (took, report) = timed(views.check(silent())).await;
    let report = report.unwrap();
    clean(&report);
    row(kind, "the same, and hold every row against the log", head, took);
    println!("| {kind:?} | rows compared | {} | | | |", report.rows_compared);
    let (took, state) =
        timed(replay::state(site.feed(), Until::Position(head / 2), silent())).await;
    let live = state.unwrap().rows["applications"].len();
    row(kind, "state of everything at half of it", head / 2, took);
    println!("| {kind:?} | applications alive then | {live} | | | |");
    past_states(kind, &site.store, head).await;
    searches(kind, &site.store, head).await;
    let (took, lines) = timed(export(&site.store)).await;
    assert_eq!(lines, head);
    row(kind, "export as NDJSON", head, took);
    views.close().await;
    site.end().await;
}

fn clean(report: &replay::Report) {
    assert_eq!(report.findings.total, 0, "{:#?}", report.findings.first.first());
}

/// Whole lives of applications, many at once, until the log is as long as asked for.
async fn fill(store: &Store, wanted: u64) -> u64 {
    let mut lives: VecDeque<VecDeque<Append>> = VecDeque::new();
    let (mut number, mut planned) = (0, 0);
    while planned < wanted || !lives.is_empty() {
        while lives.len() < AT_ONCE && planned < wanted {
            number += 1;
            // Ports come round again, and must not meet those of the ones that stay.
            if number > 10_000 && stays(number % 10_000) {
                continue;
            }
            let life = life(number);
            planned += life.iter().map(events_of).sum::<u64>();
            lives.push_back(life);
        }
        // One append of each life at a time: the next rests on it.
        let mut under_way = FuturesUnordered::new();
        for life in lives.iter_mut().take(IN_FLIGHT) {
            if let Some(append) = life.pop_front() {
                under_way.push(store.append(append));
            }
        }
        while let Some(stored) = under_way.next().await {
            stored.unwrap();
        }
        drop(under_way);
        lives.retain(|life| !life.is_empty());
    }
    store.head().await.unwrap()
}

fn events_of(append: &Append) -> u64 {
    append.streams.iter().map(|stream| stream.events.len() as u64).sum()
}

fn stays(number: u32) -> bool {
    number <= 10_000 && number.is_multiple_of(20)
}

/// Deployed, stopped and started a few times, and removed unless it stays.
fn life(number: u32) -> VecDeque<Append> {
    let mut sample = Sample::new(number);
    sample.owner = i64::from(1 + number % USERS);
    let mut life = VecDeque::new();
    let operation = sample.operation();
    life.push_back(asked(&sample, operation, "application.deploy", sample.deployment()));
    let mut sequence = 1;
    for step in STEPS {
        let task = Operation::TaskStarted {
            step: step.to_owned(),
            direction: Direction::Act,
            upid: format!(
                "UPID:pve1:00001234:00005678:65A0B1C2:{step}:{}:root@pam:",
                sample.vmid()
            ),
        };
        for event in [intended(step, Direction::Act, 1), task, succeeded(step, Direction::Act, 1)] {
            sequence += 1;
            life.push_back(found(&sample, operation, sequence, vec![sample.op(&[event])]));
        }
    }
    let ended = App::Deployed { operation, address: Some(address()) };
    let last = vec![sample.app(&[ended]), sample.op(&[Operation::Completed])];
    life.push_back(found(&sample, operation, sequence, last));
    if !stays(number) {
        removal(&sample, &mut life);
    }
    life
}

fn removal(sample: &Sample, life: &mut VecDeque<Append>) {
    let operation = OperationId(Uuid::from_u128(1 << 64 | u128::from(sample.number)));
    let op = |events: &[Operation]| stream("operation", &operation.to_string(), events);
    let planned = Operation::Planned {
        application: sample.application(),
        owner: UserId(sample.owner),
        plan: delete_plan(sample),
        steps: vec!["stop".to_owned(), "destroy".to_owned()],
        deadline: 2_000_000_000_000_000,
    };
    let began = App::OperationBegan { operation, kind: OperationKind::Delete };
    life.push_back(asked(
        sample,
        operation,
        "application.act",
        vec![sample.app(&[began]), op(&[planned])],
    ));
    let mut sequence = 1;
    for step in ["stop", "destroy"] {
        for event in [intended(step, Direction::Act, 1), succeeded(step, Direction::Act, 1)] {
            sequence += 1;
            life.push_back(found(sample, operation, sequence, vec![op(&[event])]));
        }
    }
    let holder = || Holder::Application(sample.application());
    let mut last = vec![sample.app(&[App::Removed { operation }]), op(&[Operation::Completed])];
    for key in sample.holdings().leases(&sample.guest().cluster) {
        last.push(stream("lease", &key.to_string(), &[Lease::Released { holder: holder() }]));
    }
    let reason = format!("it was {}'s", sample.id());
    let quarantined = Lease::Quarantined { holder: holder(), until: 1, reason };
    let vmid = sample.guest().vmid_lease().to_string();
    last.push(stream("lease", &vmid, &[quarantined]));
    life.push_back(found(sample, operation, sequence, last));
    life.push_back(append(
        json!({ "actor": "system/quarantine", "command": "lease.clear", "correlation": Uuid::now_v7() }),
        vec![stream("lease", &vmid, &[Lease::Cleared])],
    ));
}

fn append(metadata: Value, streams: Vec<StreamAppend>) -> Append {
    let lane = Lane::User(metadata["actor"].as_str().unwrap().to_owned());
    Append {
        id: Uuid::now_v7(),
        lane,
        streams,
        assertions: Vec::new(),
        side: Vec::new(),
        metadata: metadata.to_string(),
        fence: None,
        idempotency: None,
    }
}

/// What a user's request appends.
fn asked(
    sample: &Sample,
    operation: OperationId,
    command: &str,
    streams: Vec<StreamAppend>,
) -> Append {
    let request = Uuid::now_v7().simple().to_string();
    let metadata = json!({
        "actor": format!("user/{}", sample.owner),
        "command": command,
        "owner": sample.owner.to_string(),
        "credential": format!("session/{}", Uuid::from_u128(sample.owner as u128)),
        "correlation": operation.to_string(),
        "causation": format!("request/{request}"),
        "request": request,
        "source": "192.0.2.7",
    });
    append(metadata, streams)
}

/// What the runner appends.
fn found(
    sample: &Sample,
    operation: OperationId,
    sequence: u64,
    streams: Vec<StreamAppend>,
) -> Append {
    let metadata = json!({
        "actor": "system/operations",
        "command": "operation.record",
        "on_behalf_of": sample.owner.to_string(),
        "owner": sample.owner.to_string(),
        "correlation": operation.to_string(),
        "causation": format!("operation/{operation}/{sequence}"),
    });
    append(metadata, streams)
}

async fn past_states(kind: Kind, store: &Store, head: u64) {
    let mut times = Vec::new();
    while times.len() < LOOKS {
        let at = rand::rng().random_range(1..=head);
        let event = &store.feed(at - 1, 1).await.unwrap()[0];
        if event.aggregate_type != "application" {
            continue;
        }
        let began = Instant::now();
        let log = events::of_application(store, &event.aggregate_id).await.unwrap();
        let state = past::state(&event.aggregate_id, &log, at).unwrap();
        times.push(began.elapsed());
        assert_eq!(state.is_null(), event.event_type == "application.removed");
    }
    quantiles(kind, "one application at a past moment", &mut times);
}

/// Makes one search after the other.
type Made = Box<dyn Fn() -> Search>;

async fn searches(kind: Kind, store: &Store, head: u64) {
    let middle = store.feed(head / 2, 1).await.unwrap().pop().unwrap();
    let user = || Some(format!("user/{}", rand::rng().random_range(1..=USERS)));
    let any = move || rand::rng().random_range(0..head);
    let mut kinds: Vec<(&str, Made)> = vec![
        (
            "one user's",
            Box::new(move || Search { actor: user(), after: any(), ..Search::default() }),
        ),
        (
            "the runner's",
            Box::new(move || {
                let actor = Some("system/operations".to_owned());
                Search { actor, after: any(), ..Search::default() }
            }),
        ),
        (
            "one owner's leases",
            Box::new(move || {
                let owner = Some(rand::rng().random_range(1..=USERS).to_string());
                let mut search = Search { owner, ..Search::default() };
                search.of_type("lease");
                search
            }),
        ),
    ];
    let (from, to) = (middle.recorded_at, middle.recorded_at + 1_000_000);
    kinds.push((
        "a second's",
        Box::new(move || Search { from: Some(from), to: Some(to), ..Search::default() }),
    ));
    for (what, search) in kinds {
        let mut times = Vec::new();
        for _ in 0..LOOKS {
            let search = search();
            let began = Instant::now();
            store.search(&search, 100).await.unwrap();
            times.push(began.elapsed());
        }
        quantiles(kind, &format!("a page of {what} events"), &mut times);
    }
}

async fn export(store: &Store) -> u64 {
    let mut pages = Pages::begin(store, &Search::default(), u64::MAX).await.unwrap();
    let mut lines = 0;
    while let Some(page) = pages.next().await.unwrap() {
        let shown: Vec<_> = page.iter().map(events::Shown::of).collect();
        let text = Form::Ndjson.lines(&shown).unwrap();
        lines += text.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    lines
}

/// How long it takes, from a fresh count of the memory that is used at most.
async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    // Where that is not allowed, the figure is the most so far.
    let _forgotten = std::fs::write("/proc/self/clear_refs", "5");
    let began = Instant::now();
    let done = work.await;
    (began.elapsed(), done)
}

fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.map_or_else(|| "?".to_owned(), |kilobytes| (kilobytes / 1_024).to_string())
}

fn row(kind: Kind, what: &str, events: u64, took: Duration) {
    let seconds = took.as_secs_f64();
    println!(
        "| {kind:?} | {what} | {events} | {seconds:.1} | {:.0} | {} |",
        events as f64 / seconds,
        peak()
    );
}

fn quantiles(kind: Kind, what: &str, times: &mut [Duration]) {
    times.sort();
    let at =
        |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "| {kind:?} | {what}: half below {:.1} ms, 99 % below {:.1} ms | | | | |",
        at(50),
        at(99)
    );
}
