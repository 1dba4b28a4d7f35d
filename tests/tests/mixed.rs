//! A hundred and a thousand callers at once on two servers over one PostgreSQL: the log that they leave
//! is one that calls made one after the other could have left, and says so to each of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "mixed/controls.rs"]
mod controls;
#[path = "mixed/small.rs"]
mod small;
#[path = "mixed/workload.rs"]
mod workload;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proximity_commands::once::{OnceKey, is_refusal};
use proximity_eventstore::{Options, Recorded, Store};
use proximity_simulator::{NodeConfig, Simulator, SimulatorConfig};
use proximity_tests::checker;
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::history::{Call, Command, Outcome, judge};
use proximity_tests::http::Client;
use proximity_tests::lab::{Lab, password};
use serde_json::{Value, json};
use workload::{Person, World};

/// Applications that are there before the callers begin.
const BASE: usize = 24;
/// Chooses what the callers do; what comes of it depends on who is faster.
const SEED: u64 = 20_261_129;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_on_two_servers_leave_a_log_that_answers_for_each_of_them() {
    let lab = Lab::new(Kind::Postgres, 3).await;
    let (first, admin) = lab.start().await;
    let annex = Simulator::start(SimulatorConfig {
        cluster: Some("annex".to_owned()),
        nodes: vec![NodeConfig::new("pve9")],
        ..SimulatorConfig::quick()
    })
    .await
    .unwrap();
    let replica = lab.replica("b");
    let second = replica.serve().await;
    let urls = [lab.site.url(), replica.url()];
    let hosts = vec![1, register(&admin, &annex).await];
    let people = people(&lab, &admin, &urls).await;
    let from = lab.events().await.last().unwrap().position;

    let world = World::new(people, hosts, SEED);
    world.base(BASE).await;
    lab.settle(&admin, Duration::from_secs(120)).await;
    let found = small::rounds(&lab, &world).await;
    figure!("{found}");
    for callers in [100, 1_000] {
        let before = world.calls().len();
        let started = Instant::now();
        let stale_before = stale(&urls).await;
        world.rush(callers).await;
        let rushed = started.elapsed();
        let stale = stale(&urls).await - stale_before;
        lab.settle(&admin, Duration::from_secs(240)).await;
        let settled = started.elapsed();

        let mut calls = world.calls();
        let made = calls.len() - before;
        let late = look_up(&lab, &mut calls).await;
        let log = lab.events().await;
        let verdict = judge(&log, &calls, from);
        let found = checker::check(&log, &lab.guests());
        checkpoints_are_at_the_head(&lab);
        // Exit code 0 says that a fold of the whole log equals the live rows, row by row.
        lab.site.run(&["projections", "verify"]);

        let anomalies: Vec<&String> = verdict.anomalies.iter().chain(&found.anomalies).collect();
        let mine = &calls[before..];
        figure!(
            "{callers} callers at once, two servers, one PostgreSQL: {made} operations in {:.1} s (settled after {:.1} s), \
             {} anomalies; {stale} appends lost to a faster one, after which {} calls gave up and the others were \
             decided anew; {}",
            rushed.as_secs_f64(),
            settled.as_secs_f64(),
            anomalies.len(),
            mine.iter().filter(|call| call.code() == Some("store.contended")).count(),
            latencies(mine),
        );
        figure!(
            "history until then (seed {SEED}): {} accepted, {} already so, {} refused ({}), {} turned away, {} reads, \
             {} without an answer of which {} happened, {late} of them after a repeat of theirs was refused; {} pairs in real time, {} events, {} held leases",
            verdict.accepted,
            verdict.already_so,
            verdict.refused,
            codes(&calls),
            verdict.turned_away,
            verdict.shown,
            verdict.unknown.0 + verdict.unknown.1,
            verdict.unknown.0,
            verdict.ordered,
            log.len(),
            found.held.len(),
        );
        assert!(anomalies.is_empty(), "seed {SEED}: {anomalies:#?}");
        assert!(found.stuck.is_empty(), "{:?}", found.stuck);
        assert_eq!(made, 2 * callers);
        assert!(verdict.turned_away * 10 < calls.len(), "{} turned away", verdict.turned_away);
        if callers == 1_000 {
            let planted = controls::all(&log, &calls, &lab.guests(), from);
            figure!(
                "faults planted in that history and log: {planted}, each found by the rule it breaks"
            );
        }
    }
    second.terminate();
    first.terminate();
}

async fn register(admin: &Client, simulator: &proximity_simulator::SimulatorHandle) -> i64 {
    let address = simulator.address();
    let host = json!({
        "name": "annex", "host": address.ip().to_string(), "port": address.port(),
        "user": "root@pam", "password": simulator.root_password(), "verify_ssl": false,
        "fingerprint": simulator.fingerprint(),
    });
    admin.post("/api/proxmox/hosts", host).await.ok()["id"].as_i64().unwrap()
}

/// The admin and three users, each signed in once; a session is good at either server.
async fn people(lab: &Lab, admin: &Client, urls: &[String; 2]) -> Vec<Person> {
    let at = |client: &Client| [client.at(&urls[0]), client.at(&urls[1])];
    let me = admin.get("/api/auth/user/").await.ok();
    let mut people = vec![Person { id: number(&me), is_admin: true, at: at(admin) }];
    for name in ["ada", "bob", "cyd"] {
        let secret = password();
        let body = json!({ "username": name, "password": secret });
        let user = admin.post("/api/users", body).await.ok();
        let client = Client::login(&lab.site.url(), name, &secret).await;
        people.push(Person { id: number(&user), is_admin: false, at: at(&client) });
    }
    people
}

fn number(user: &Value) -> i64 {
    user["id"].as_i64().unwrap()
}

/// Appends of both servers so far that came too late for what they rest on.
async fn stale(urls: &[String; 2]) -> u64 {
    let mut sum = 0;
    for url in urls {
        let text = Client::anonymous(url).get("/metrics").await.ok();
        let line = text
            .as_str()
            .unwrap()
            .lines()
            .find(|line| line.starts_with("proximity_appends_stale "));
        sum += line.unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    }
    sum
}

/// Asks the store which append it keeps under each call's key.
///
/// A caller that hangs up and asks again has two tries under way. The first can be so late on its way
/// that a server begins with it when the other one was refused already: it is another request then, as
/// if the caller had asked a third time. Those become calls of their own, of which no answer was heard;
/// returns how many there are.
async fn look_up(lab: &Lab, calls: &mut Vec<Call>) -> usize {
    let store = Store::open_read_only(Options::postgres(lab.site.database_url().unwrap())).await;
    let store = store.unwrap();
    let mut late = Vec::new();
    for call in calls.iter_mut() {
        let Some(route) = workload::route(&call.command) else { continue };
        let key = OnceKey { key: format!("{route} {}", call.key), fingerprint: String::new() };
        // A first try may have been refused without its caller's learning of it.
        for refusals in 0.. {
            let key = key.after(refusals).key;
            let kept = store.idempotent(&format!("user/{}", call.caller), &key).await.unwrap();
            let is_refusal = kept.as_ref().is_some_and(|kept| is_refusal(kept.answer.as_deref()));
            call.kept = kept.map(|kept| kept.position).filter(|_| !is_refusal);
            if is_refusal {
                continue;
            }
            // Under the key's first number it would have been carried out in spite of the refusal.
            let after =
                refusals > 0 && call.repeated && matches!(call.outcome, Outcome::Fail { .. });
            if after && call.kept.is_some() {
                late.push(Call { returned: None, outcome: Outcome::Info, ..call.clone() });
                call.kept = None;
            }
            break;
        }
    }
    store.close().await;
    let count = late.len();
    calls.append(&mut late);
    count
}

fn checkpoints_are_at_the_head(lab: &Lab) {
    let list: Value =
        serde_json::from_str(&lab.site.run(&["projections", "list", "-o", "json"])).unwrap();
    let list = list.as_array().unwrap();
    assert!(!list.is_empty());
    for one in list {
        assert_eq!(one["lag"], 0, "{one}");
        assert_eq!(one["state"], "running", "{one}");
    }
}

fn latencies(calls: &[Call]) -> String {
    let of = |reads: bool| {
        let mut took: Vec<u128> = calls
            .iter()
            .filter(|call| matches!(call.command, Command::Read { .. }) == reads && !call.repeated)
            .filter_map(|call| Some((call.returned? - call.invoked).as_millis()))
            .collect();
        took.sort_unstable();
        let at = |share: usize| took[(took.len() - 1) * share / 100];
        format!("p50 {} ms, p99 {} ms", at(50), at(99))
    };
    format!("changes {}; reads {}", of(false), of(true))
}

fn codes(calls: &[Call]) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for call in calls {
        if let Some(code) = call.code() {
            *counts.entry(code).or_default() += 1;
        }
    }
    let texts: Vec<_> = counts.into_iter().map(|(code, count)| format!("{code} {count}")).collect();
    texts.join(", ")
}

/// What controls need of the world besides the history.
type Guests = BTreeSet<String>;

/// A log and a history in which something was planted.
struct Planted {
    log: Vec<Recorded>,
    calls: Vec<Call>,
}
