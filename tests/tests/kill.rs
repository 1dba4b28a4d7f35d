//! `kill -9` of the server, again and again under load: nothing acknowledged is lost or done twice.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proximity_tests::checker;
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::http::Client;
use proximity_tests::lab::Lab;
use reqwest::Method;
use serde_json::{Value, json};

/// How often the server is killed.
const KILLS: usize = 50;
/// Callers at a time.
const CALLERS: usize = 6;

/// What the callers know for certain.
#[derive(Default)]
struct Acknowledged {
    /// Idempotency key → application id, for each 202 that arrived whole.
    deployments: Mutex<BTreeMap<String, String>>,
    /// Keys whose call got no answer: they may or may not have happened, but never twice.
    unknown: Mutex<Vec<String>>,
    number: AtomicUsize,
}

/// Posts deployments until told to stop, or until a call gets no answer.
async fn load(client: Client, known: Arc<Acknowledged>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let number = known.number.fetch_add(1, Ordering::Relaxed);
        let (key, hostname) = (format!("key-{number}"), format!("kill-{number}"));
        let body = json!({ "catalog_id": "alpine", "hostname": hostname });
        match post(&client, &key, &body).await {
            Some(id) => {
                known.deployments.lock().unwrap().insert(key, id);
            }
            // The server is gone: this caller's part of the round is over.
            None => return known.unknown.lock().unwrap().push(key),
        }
    }
}

async fn post(client: &Client, key: &str, body: &Value) -> Option<String> {
    let headers = [("idempotency-key", key)];
    let answer = client.try_call(Method::POST, "/api/apps/", Some(body), &headers).await.ok()?;
    (answer.status == 202).then(|| answer.body["id"].as_str().unwrap().to_owned())
}

async fn nothing_acknowledged_is_lost(kind: Kind) {
    let lab = Lab::new(kind, 2).await;
    let known = Arc::new(Acknowledged::default());
    let (mut server, mut client) = lab.start().await;
    let mut slowest = Duration::ZERO;
    for round in 0..KILLS {
        let stop = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| tokio::spawn(load(client.clone(), known.clone(), stop.clone())))
            .collect();
        // A different moment each time: between the first answers and well into the sagas.
        let before = known.deployments.lock().unwrap().len();
        let wanted = 1 + (round * 7) % 13;
        let deadline = Instant::now() + Duration::from_secs(20);
        while known.deployments.lock().unwrap().len() < before + wanted {
            assert!(Instant::now() < deadline, "no deployment is accepted in round {round}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.kill();
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.unwrap();
        }
        let started = Instant::now();
        server = lab.site.serve().await;
        slowest = slowest.max(started.elapsed());
        client = Client::login(&lab.site.url(), &lab.admin, &lab.password).await;
        // Exit code 0 says that a fold of the log equals the live rows.
        lab.site.run(&["projections", "verify"]);
    }
    // A repeated call with the key of a lost answer gives the first answer, or does it once now.
    let unknown = std::mem::take(&mut *known.unknown.lock().unwrap());
    for key in &unknown {
        let hostname = key.replace("key-", "kill-");
        let body = json!({ "catalog_id": "alpine", "hostname": hostname });
        let id = post(&client, key, &body).await.expect("a repeated call is answered");
        known.deployments.lock().unwrap().insert(key.clone(), id);
    }
    lab.settle(&client, Duration::from_secs(300)).await;
    let events = lab.events().await;
    let known = known.deployments.lock().unwrap();
    let mut requested: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events.iter().filter(|event| event.event_type == "application.requested") {
        *requested.entry(event.aggregate_id.as_str()).or_default() += 1;
    }
    let missing = known.values().filter(|id| !requested.contains_key(id.as_str())).count();
    let twice = requested.values().filter(|count| **count != 1).count();
    let extra = requested.len() - known.len();
    let found = checker::check(&events, &lab.guests());
    figure!(
        "kill -9, {kind:?}: {KILLS} kills under load, {} deployments acknowledged ({} after a repeated call), \
         {missing} missing, {twice} twice, {extra} unasked, slowest start {} ms, {} anomalies",
        known.len(),
        unknown.len(),
        slowest.as_millis(),
        found.anomalies.len()
    );
    assert_eq!((missing, twice, extra), (0, 0, 0));
    assert!(found.anomalies.is_empty(), "{:#?}", found.anomalies);
    assert_eq!(
        found.live.len(),
        known.len(),
        "every deployment ends running: no fault but the kills"
    );
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_on_sqlite() {
    nothing_acknowledged_is_lost(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_on_postgresql() {
    nothing_acknowledged_is_lost(Kind::Postgres).await;
}
