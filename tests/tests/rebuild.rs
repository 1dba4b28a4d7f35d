//! A rebuild beside a server that answers: killed, gone on with, switched, switched back.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unused_imports)]

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proximity_eventstore::{Options, Store};
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::http::Client;
use proximity_tests::lab::Lab;
use proximity_tests::process::Site;
use serde_json::Value;
use sqlx::Connection as _;

#[path = "../../projections/tests/views/samples.rs"]
mod samples;
#[path = "../../projections/tests/views/support.rs"]
mod support;

/// Applications in the log before the server starts: so many that a rebuild keeps something long before it
/// is at the end.
const APPLICATIONS: u32 = 3_000;

async fn fill(site: &Site) {
    let options =
        site.database_url().map_or_else(|| Options::sqlite(&site.data), Options::postgres);
    let store = Store::open(options).await.unwrap();
    let numbers: Vec<u32> = (1..=APPLICATIONS).collect();
    for chunk in numbers.chunks(50) {
        let mut streams = Vec::new();
        for number in chunk {
            let sample = samples::Sample::new(*number);
            streams.extend(sample.deployment());
            streams.extend(sample.success());
        }
        support::append(&store, streams).await;
    }
    store.close().await;
}

/// The positions that builds under way have kept, past the program's own reading.
async fn kept(site: &Site) -> Vec<u64> {
    let sql = "select position from checkpoints where slot = 'next'";
    match site.database_url() {
        None => {
            let views = rusqlite::Connection::open(site.data.join("views.db")).unwrap();
            views.busy_timeout(Duration::from_secs(10)).unwrap();
            let mut statement = views.prepare(sql).unwrap();
            let rows = statement.query_map((), |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        }
        Some(url) => {
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            sqlx::raw_sql("set search_path = views").execute(&mut connection).await.unwrap();
            let rows: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            rows.into_iter().map(i64::unsigned_abs).collect()
        }
    }
}

/// Asks for lists until told to stop: every answer has to be whole.
async fn read(client: Client, stop: Arc<AtomicBool>) -> (u64, Duration) {
    let (mut answers, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        for path in ["/api/apps/?per_page=5", "/api/operations?per_page=5"] {
            let answer = client.get(path).await.ok();
            assert_eq!(answer["total"], APPLICATIONS, "{path}: {answer}");
        }
        slowest = slowest.max(begun.elapsed());
        answers += 2;
    }
    (answers, slowest)
}

async fn a_rebuild_disturbs_nobody(kind: Kind) {
    let lab = Lab::new(kind, 1).await;
    fill(&lab.site).await;
    let server = lab.site.serve().await;
    let client = Client::login(&lab.site.url(), &lab.admin, &lab.password).await;
    let whole = |answer: &proximity_tests::http::Answer| answer.body["total"] == APPLICATIONS;
    client.wait_until("/api/apps/?per_page=5", Duration::from_secs(60), whole).await;
    client.wait_until("/api/operations?per_page=5", Duration::from_secs(60), whole).await;
    let stop = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(read(client.clone(), stop.clone()));

    let rebuild = ["projections", "rebuild", "-o", "json", "--checkpoint", "2000"];
    let mut killed = lab.site.command(&rebuild).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let at = loop {
        // All of them have a checkpoint and none has been switched.
        let kept = kept(&lab.site).await;
        if kept.len() == 6 && kept.iter().all(|position| *position > 0) {
            break kept.into_iter().min().unwrap();
        }
        assert!(killed.try_wait().unwrap().is_none(), "it ended before it was killed");
        assert!(Instant::now() < deadline, "nothing is kept: {kept:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    killed.kill().unwrap();
    killed.wait().unwrap();

    let begun = Instant::now();
    let rebuilt: Value = serde_json::from_str(&lab.site.run(&rebuild)).unwrap();
    let took = begun.elapsed();
    let from: Vec<u64> =
        rebuilt.as_array().unwrap().iter().map(|one| one["from"].as_u64().unwrap()).collect();
    assert!(from.len() == 6 && from.iter().all(|from| *from >= at), "{rebuilt:#}");
    lab.site.run(&["projections", "verify"]);
    let names: Vec<&str> =
        rebuilt.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    let begun = Instant::now();
    lab.site.run(&[&["projections", "switch-back"], names.as_slice()].concat());
    let back = begun.elapsed();
    lab.site.run(&["projections", "verify"]);
    lab.site.run(&["projections", "switch-back", names[0]]);
    lab.site.run(&["projections", "drop-previous"]);
    let refused = lab.site.command(&["projections", "switch-back", names[0]]).output().unwrap();
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    lab.site.run(&["projections", "verify"]);

    stop.store(true, Ordering::Relaxed);
    let (answers, slowest) = reading.await.unwrap();
    figure!(
        "{kind:?}: a rebuild killed at {at} went on from there and ended after {took:?} (10 s of it to be sure that \
         the other is dead); six projections switched back in {back:?}; {answers} lists read meanwhile, 0 failed, \
         0 half, the slowest two took {slowest:?}"
    );
    server.terminate();
    nothing_is_read_from_a_part(&lab, &client).await;
}

/// A server that has to build its read models from nothing answers with all of it or says that it waits.
async fn nothing_is_read_from_a_part(lab: &Lab, client: &Client) {
    match lab.site.database_url() {
        None => {
            for end in ["", "-wal", "-shm"] {
                let path = lab.site.data.join(format!("views.db{end}"));
                if path.exists() {
                    std::fs::remove_file(path).unwrap();
                }
            }
        }
        Some(url) => support::run(url, "drop schema views cascade").await,
    }
    let mut waited = 0;
    let poll = async {
        loop {
            let path = "/api/apps/?per_page=5";
            let Ok(answer) = client.try_call(reqwest::Method::GET, path, None, &[]).await else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            if answer.status == 200 {
                assert_eq!(answer.body["total"], APPLICATIONS, "{}", answer.body);
                break;
            }
            assert_eq!((answer.status.as_u16(), answer.code()), (503, "views.filling"));
            waited += 1;
        }
    };
    let (server, ()) = tokio::join!(lab.site.serve(), poll);
    assert!(waited > 0, "nothing was asked before it was whole");
    server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_disturbs_nobody_on_sqlite() {
    a_rebuild_disturbs_nobody(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_disturbs_nobody_on_postgres() {
    a_rebuild_disturbs_nobody(Kind::Postgres).await;
}
