//! A hundred readers of the live stream at once, behind a long log and then beside new events.

use std::time::Instant;

use futures_util::future::join_all;
use proximity_tests::database::Kind;
use proximity_tests::http::Client;
use proximity_tests::lab::{Lab, password};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const READERS: usize = 100;
/// Streams that the server lets one user have open.
const OF_ONE: usize = 16;
/// Events of the past that each reads first.
const BEHIND: u64 = 10_000;
/// Changes that are made while they all read on.
const CHANGES: usize = 500;

/// Measures how soon each reader has what, and what the server needs for all of them.
pub async fn measure(kind: Kind, lab: &Lab, admin: &Client, server: u32) {
    let readers = admins(lab, admin).await;
    let head = change(admin, 0).await;
    let after = head.saturating_sub(BEHIND);
    let before = resident(server);
    let begun = Instant::now();
    let mut streams =
        join_all((0..READERS).map(|number| Stream::open(&readers[number / OF_ONE], after))).await;
    join_all(streams.iter_mut().map(|stream| stream.until(head))).await;
    let took = begun.elapsed().as_secs_f64();
    let events = (head - after) * READERS as u64;
    println!(
        "| {kind:?} | {READERS} live streams catch up with {BEHIND} events each | {events} | {took:.2} | {:.0} | {:+.0} MiB |",
        events as f64 / took,
        resident(server) - before,
    );
    let writing = async {
        for number in 1..=CHANGES {
            change(admin, number).await;
        }
    };
    let reading = join_all(streams.iter_mut().map(|stream| stream.changes(CHANGES)));
    let ((), delays) = tokio::join!(writing, reading);
    let mut delays: Vec<f64> = delays.into_iter().flatten().collect();
    delays.sort_by(f64::total_cmp);
    let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    println!(
        "| {kind:?} | from the log to {READERS} live streams | {} | p50 {:.1} ms | p99 {:.1} ms | {:+.0} MiB |",
        delays.len(),
        at(50),
        at(99),
        resident(server) - before,
    );
}

/// As many administrators as the readers need.
async fn admins(lab: &Lab, admin: &Client) -> Vec<Client> {
    let mut admins = Vec::new();
    for number in 0..READERS.div_ceil(OF_ONE) {
        let (name, secret) = (format!("reader-{number}"), password());
        let body = json!({ "username": name, "password": secret, "is_staff": true });
        admin.post("/api/users", body).await.ok();
        admins.push(Client::login(&lab.site.url(), &name, &secret).await);
    }
    admins
}

/// Changes the administrator's name; where that stands in the log.
async fn change(admin: &Client, number: usize) -> u64 {
    let body = json!({ "first_name": format!("Ann {number}") });
    let changed = admin.try_call(Method::PATCH, "/api/auth/user", Some(&body), &[]).await.unwrap();
    let position = changed.headers["proximity-position"].to_str().unwrap().to_owned();
    changed.ok();
    position.rsplit('.').next().unwrap().parse().unwrap()
}

/// What a process has in memory, in MiB.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

struct Stream {
    answer: reqwest::Response,
    rest: Vec<u8>,
    last: u64,
}

impl Stream {
    async fn open(client: &Client, after: u64) -> Self {
        let answer = client.stream("/api/events/stream", after).await.unwrap();
        assert_eq!(answer.status(), 200);
        Self { answer, rest: Vec::new(), last: after }
    }

    /// The next event; each comes once and in order.
    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.rest.windows(2).position(|bytes| bytes == b"\n\n") {
                let message: Vec<u8> = self.rest.drain(..end + 2).collect();
                let message = std::str::from_utf8(&message).unwrap();
                let Some(data) = message.lines().find_map(|line| line.strip_prefix("data: "))
                else {
                    continue;
                };
                let event: Value = serde_json::from_str(data).unwrap();
                let position = event["position"].as_u64().unwrap();
                assert!(position > self.last, "{position} after {}", self.last);
                self.last = position;
                return event;
            }
            self.rest.extend(self.answer.chunk().await.unwrap().expect("the stream goes on"));
        }
    }

    /// An administrator sees everything, so nothing is left out on the way.
    async fn until(&mut self, head: u64) {
        while self.last < head {
            let before = self.last;
            self.next().await;
            assert_eq!(self.last, before + 1);
        }
    }

    /// How old so many changes are when they arrive, in ms.
    async fn changes(&mut self, count: usize) -> Vec<f64> {
        let mut delays = Vec::new();
        while delays.len() < count {
            let event = self.next().await;
            if event["type"] == "user.profile_changed" {
                let recorded = event["recorded_at"].as_str().unwrap();
                let recorded = OffsetDateTime::parse(recorded, &Rfc3339).unwrap();
                let delay = OffsetDateTime::now_utc() - recorded;
                delays.push(delay.as_seconds_f64() * 1000.0);
            }
        }
        delays
    }
}
