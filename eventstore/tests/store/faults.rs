//! What the database refuses, what the network cuts, and what a flood may not hold up.

use std::time::{Duration, Instant};

use proximity_eventstore::{
    Append, AppendError, Error, Expected, Lane, NewEvent, Options, Outcome, Recorded, SideWrite,
    Store, StreamAppend, Value, sqlite_file, tables,
};
use rand::Rng as _;

use crate::proxy::Proxy;
use crate::support::{Home, Plug, append, assert_whole, event, one, to_stream, whole_log};
use crate::{figures, on_both_stores};

/// What a rebuild does: reads on until the feed is at its end.
async fn rebuild(store: &Store, page: usize) -> Result<usize, Error> {
    let mut log: Vec<Recorded> = Vec::new();
    loop {
        let after = log.last().map_or(0, |recorded| recorded.position);
        let mut next = store.feed(after, page).await?;
        if next.is_empty() {
            return Ok(log.len());
        }
        log.append(&mut next);
    }
}

/// `count` events in appends of a thousand.
async fn fill(store: &Store, count: u64) {
    for n in 0..count / 1_000 {
        let streams = vec![to_stream("long", Expected::At(n * 1_000), 1_000)];
        store.append(Append { streams, ..append() }).await.unwrap();
    }
}

fn with_payload(payload: &str) -> Append {
    let event = NewEvent { payload: payload.to_owned(), ..event(0) };
    Append {
        streams: vec![StreamAppend {
            metadata: None,
            aggregate_type: "thing".to_owned(),
            aggregate_id: uuid::Uuid::new_v4().to_string(),
            expected: Expected::At(0),
            events: vec![event],
        }],
        ..append()
    }
}

fn through(home: &Home, proxy: &Proxy) -> Options {
    let url = home.url();
    let (head, database) = url.rsplit_once('/').unwrap();
    let (user, _) = head.rsplit_once('@').unwrap();
    Options::postgres(format!("{user}@{}/{database}", proxy.address))
}

async fn proxy_of(home: &Home) -> Proxy {
    let url = home.url();
    let (head, _) = url.rsplit_once('/').unwrap();
    let (_, server) = head.rsplit_once('@').unwrap();
    Proxy::start(server).await
}

on_both_stores! {
    async fn one_bad_append_in_a_batch_fails_alone(home: &Home) {
        let store = home.open().await;
        let secret = SideWrite::Insert {
            table: &tables::INSTALLATION,
            row: vec![("key", Value::Text("k\0".to_owned())), ("value", Value::Text(String::new()))],
        };
        let mut nul_in_id = with_payload("{}");
        nul_in_id.streams[0].aggregate_id = "a\0b".to_owned();
        for (what, bad) in [
            ("a NUL byte in a payload", with_payload("{\"n\": \"\0\"}")),
            ("a payload that is no JSON", with_payload("{\"n\": ")),
            ("metadata that is no JSON", Append { metadata: "{".to_owned(), ..with_payload("{}") }),
            ("a NUL byte in an id", nul_in_id),
            ("a NUL byte in a side row", Append { side: vec![secret], ..with_payload("{}") }),
        ] {
            let plug = Plug::put(home, &store).await;
            let (before, head) = (store.stats(), store.head().await.unwrap());
            let place = rand::rng().random_range(0..512);
            let waiting: Vec<_> = (0..512)
                .map(|n| {
                    let append = if n == place { bad.clone() } else { with_payload("{}") };
                    let store = store.clone();
                    tokio::spawn(async move { store.append(append).await })
                })
                .collect();
            while store.stats().waiting < 512 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let begun = Instant::now();
            plug.pull().await;
            let (mut stored, mut refused) = (0, vec![]);
            for append in waiting {
                match append.await.unwrap() {
                    Ok(_) => stored += 1,
                    Err(error) => refused.push(error),
                }
            }
            let batches = store.stats().batches - before.batches;
            let grown = store.head().await.unwrap() - head;
            figures!(
                home,
                "{what}, in {batches} batch of 512: {stored} stored, {} refused, {:?}",
                refused.len(), begun.elapsed()
            );
            assert_eq!((batches, stored, refused.len(), grown), (1, 511, 1, 512));
            assert!(matches!(refused[0], AppendError::Invalid { .. }), "{}", refused[0]);
        }
        assert_whole(&whole_log(&store, 1_000).await);
    }

    async fn a_flood_does_not_hold_up_an_outcome(home: &Home) {
        const QUEUE: usize = 2_000;
        const BATCH: usize = 100;
        let store =
            Store::open(Options { queue: QUEUE, batch: BATCH, ..home.options() }).await.unwrap();
        let plug = Plug::put(home, &store).await;
        let flood: Vec<_> = (0..QUEUE + 500)
            .map(|n| {
                let store = store.clone();
                let lane = Lane::User(format!("flooder-{}", n % 3));
                tokio::spawn(async move { store.append(Append { lane, ..with_payload("{}") }).await })
            })
            .collect();
        // All are in the queue or refused: one that came later would find room again.
        while flood.iter().filter(|append| append.is_finished()).count() < 500 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let outcome = tokio::spawn({
            let store = store.clone();
            async move { store.append(Append { lane: Lane::Outcome, ..one("op", Expected::At(0)) }).await }
        });
        while store.stats().waiting < QUEUE + 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = store.stats().batches;
        plug.pull().await;
        let Outcome::Stored(appended) = outcome.await.unwrap().unwrap() else { panic!("not stored") };
        let (mut stored, mut busy) = (0, 0);
        for append in flood {
            match append.await.unwrap() {
                Ok(_) => stored += 1,
                Err(AppendError::Busy { retry_after }) => {
                    assert!(retry_after > Duration::ZERO);
                    busy += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        figures!(
            home,
            "a flood of {}: {stored} stored in {} batches of {BATCH}, {busy} refused as busy; the outcome stands at {} behind the 1 under way",
            QUEUE + 500, store.stats().batches - before, appended.first
        );
        assert_eq!((stored, busy), (QUEUE, 500));
        assert_eq!(appended.first, 2, "the outcome waited for more than the batch under way");
    }

    async fn users_take_turns_behind_a_flooder(home: &Home) {
        let store = Store::open(Options { batch: 10, ..home.options() }).await.unwrap();
        let plug = Plug::put(home, &store).await;
        let by = |user: &str| {
            let append = Append { lane: Lane::User(user.to_owned()), ..with_payload("{}") };
            let store = store.clone();
            tokio::spawn(async move { store.append(append).await })
        };
        let flood: Vec<_> = (0..500).map(|_| by("flooder")).collect();
        while store.stats().waiting < 500 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let modest = by("modest");
        while store.stats().waiting < 501 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        plug.pull().await;
        let Outcome::Stored(appended) = modest.await.unwrap().unwrap() else { panic!("not stored") };
        for append in flood {
            append.await.unwrap().unwrap();
        }
        figures!(home, "500 waiting of one user, then 1 of another: it is number {}", appended.first - 1);
        assert!(appended.first <= 3, "its turn came only at {}", appended.first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_whose_connection_is_cut_is_an_error() {
    const EVENTS: u64 = 20_000;
    let home = Home::postgres().await;
    let direct = home.open().await;
    fill(&direct, EVENTS).await;
    let (mut errors, mut short) = (0, 0);
    for cut in 1..=20 {
        let proxy = proxy_of(&home).await;
        let store = Store::open_read_only(through(&home, &proxy)).await.unwrap();
        // Some 110 bytes an event: from the first page to beyond the last.
        proxy.cut_after(cut * 100_000);
        let page = if cut % 2 == 0 { 1_000 } else { 50_000 };
        match rebuild(&store, page).await {
            Err(_) => errors += 1,
            Ok(read) if read as u64 == EVENTS => {}
            Ok(_) => short += 1,
        }
        let loaded = store.load_stream("thing", "long").await;
        assert!(loaded.map_or(true, |l| l.len() as u64 == EVENTS), "a stream was cut short");
    }
    figures!(
        home,
        "20 rebuilds of {EVENTS} events, cut midway: {errors} errors, {short} short successes"
    );
    assert!(errors >= 15, "hardly any was cut");
    assert_eq!(short, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_meets_a_damaged_page_is_an_error() {
    const EVENTS: u64 = 20_000;
    let home = Home::sqlite();
    let store = home.open().await;
    fill(&store, EVENTS).await;
    store.close().await;
    let file = sqlite_file(home.dir());
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.query_row("pragma wal_checkpoint(truncate)", (), |_| Ok(())).unwrap();
    drop(connection);
    // A stretch in the middle, so that pages of the table itself are among them.
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 20 * 4_096].fill(0xAA);
    std::fs::write(&file, bytes).unwrap();
    let store = Store::open_read_only(home.options()).await.unwrap();
    let read = rebuild(&store, 1_000).await;
    figures!(home, "a rebuild of {EVENTS} events over a damaged page: {read:?}");
    assert!(read.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_commit_is_resolved_by_submitting_it_again() {
    const EACH: usize = 25;
    let home = Home::postgres().await;
    let proxy = proxy_of(&home).await;
    let store = Store::open(through(&home, &proxy)).await.unwrap();
    let words = ["lose-reply-", "lose-both-", "lose-request-", "none-"];
    let mut callers = Vec::new();
    for n in 0..EACH * words.len() {
        let payload = format!("{{\"n\": \"{}{n} \"}}", words[n % words.len()]);
        let mut append = with_payload(&payload);
        // Nothing but the append's own id keeps these from being stored twice.
        append.streams[0].expected = Expected::Any;
        append.streams[0].aggregate_id = format!("s{n}");
        let store = store.clone();
        callers.push(tokio::spawn(async move { store.append(append).await }));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut answers = Vec::new();
    for caller in callers {
        answers.push(caller.await.unwrap());
    }
    let stored = answers.iter().filter(|a| matches!(a, Ok(Outcome::Stored(_)))).count();
    let log = whole_log(&home.open().await, 1_000).await;
    assert_whole(&log);
    let twice = log.iter().filter(|recorded| recorded.sequence > 1).count();
    let idle = home.idle_in_transaction().await;
    figures!(
        home,
        "{} appends, connections cut {:?}: {stored} answered as stored, {} in the log, {twice} twice, {idle} idle in transaction",
        answers.len(),
        proxy.cuts(),
        log.len()
    );
    assert_eq!((stored, log.len(), twice, idle), (answers.len(), answers.len(), 0, 0));
    assert!(proxy.cuts().iter().take(3).all(|(_, cuts)| *cuts >= 5), "too few were cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_learnt_is_called_unknown_and_settled_later() {
    let home = Home::postgres().await;
    let proxy = proxy_of(&home).await;
    let patience = Duration::from_millis(500);
    let store = Store::open(Options { patience, ..through(&home, &proxy) }).await.unwrap();
    store.append(one("a", Expected::At(0))).await.unwrap();
    let mut append = with_payload("{\"n\": \"swallow-1 \"}");
    append.streams[0].expected = Expected::Any;
    let begun = Instant::now();
    let unknown = store.append(append.clone()).await.unwrap_err();
    let waited = begun.elapsed();
    assert!(matches!(unknown, AppendError::Unknown), "{unknown}");
    let settled = store.append(append).await.unwrap();
    figures!(home, "a black hole: unknown after {waited:?}, then {settled:?}");
    assert!(matches!(settled, Outcome::Stored(_)));
    assert_eq!(store.head().await.unwrap(), 2);
    assert_eq!(home.idle_in_transaction().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_database_is_said_to_be_unavailable_and_found_again() {
    let home = Home::postgres().await;
    let proxy = proxy_of(&home).await;
    let store = Store::open(through(&home, &proxy)).await.unwrap();
    // Ends the writer's server process under way, as a restart of the database does.
    store.append(one("a", Expected::At(0))).await.unwrap();
    let mut admin = <sqlx::PgConnection as sqlx::Connection>::connect(&home.url()).await.unwrap();
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    store.append(one("a", Expected::At(1))).await.unwrap();
    // A connection that was in use a moment ago is not asked first: each may fail one read.
    let mut head = store.head().await;
    for _ in 0..through(&home, &proxy).readers {
        if head.is_err() {
            head = store.head().await;
        }
    }
    assert_eq!(head.unwrap(), 2);

    proxy.cut_after(0);
    let mut reasons = Vec::new();
    for _ in 0..3 {
        match store.append(one("a", Expected::At(2))).await {
            Err(AppendError::Unavailable { retry_after, .. }) => {
                assert!(retry_after > Duration::ZERO);
                reasons.push("unavailable");
            }
            Err(AppendError::Unknown) => reasons.push("unknown"),
            other => panic!("{other:?}"),
        }
    }
    figures!(home, "with the database gone: {reasons:?}");
    assert_eq!(reasons.last(), Some(&"unavailable"));
}
