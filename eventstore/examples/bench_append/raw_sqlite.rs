//! What SQLite itself can do: the writer's statements in one loop, without queue, channel or checks.

use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use proximity_eventstore::{Options, Store, sqlite_file};
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use crate::cell::{Cell, EVENT_TYPE, METADATA, PAYLOAD};

const HEAD: &str = "select coalesce(max(position), 0) from events";
const STREAM_HEAD: &str = "select coalesce(max(sequence), 0) from events \
     where aggregate_type = ?1 and aggregate_id = ?2";
const INSERT_EVENT: &str = "insert into events (position, aggregate_type, aggregate_id, sequence, \
     event_type, event_version, payload, metadata, recorded_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const INSERT_APPEND: &str = "insert into appends (append_id, actor, idempotency_key, fingerprint, \
     answer, first_position, last_position, recorded_at) \
     values (?1, null, null, null, null, ?2, ?3, ?4) on conflict do nothing";

/// The log's schema in an empty directory, opened with the writer's settings.
fn open(dir: &TempDir) -> Connection {
    let path = dir.path().to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Store::migrate(Options::sqlite(path))).unwrap();
    })
    .join()
    .unwrap();
    let connection = Connection::open(sqlite_file(dir.path())).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.pragma_update(None, "synchronous", "full").unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    connection.pragma_update(None, "cache_size", -16_384).unwrap();
    connection.pragma_update(None, "journal_size_limit", 16 << 20).unwrap();
    connection
}

fn transaction(connection: &Connection, streams: &mut [(String, i64)]) {
    let run = |sql: &str| connection.prepare_cached(sql).unwrap().execute(()).unwrap();
    run("begin immediate");
    let mut head: i64 =
        connection.prepare_cached(HEAD).unwrap().query_row((), |row| row.get(0)).unwrap();
    let mut stream_head = connection.prepare_cached(STREAM_HEAD).unwrap();
    let mut insert_append = connection.prepare_cached(INSERT_APPEND).unwrap();
    let mut insert_event = connection.prepare_cached(INSERT_EVENT).unwrap();
    for (id, sequence) in streams {
        let at: i64 = stream_head.query_row(("operation", &*id), |row| row.get(0)).unwrap();
        assert_eq!(at, *sequence);
        head += 1;
        *sequence += 1;
        insert_append.execute((Uuid::now_v7().into_bytes(), head, head, 1_i64)).unwrap();
        insert_event
            .execute((
                head,
                "operation",
                &*id,
                *sequence,
                EVENT_TYPE,
                "1",
                PAYLOAD,
                METADATA,
                1_i64,
            ))
            .unwrap();
    }
    drop((stream_head, insert_append, insert_event));
    run("commit");
}

fn streams(count: usize) -> Vec<(String, i64)> {
    (0..count).map(|_| (Uuid::now_v7().to_string(), 0)).collect()
}

/// Transactions of `batch` appends each, one after another.
pub fn batches(batch: usize, time: Duration) -> Cell {
    let dir = TempDir::new().unwrap();
    let connection = open(&dir);
    let mut streams = streams(batch);
    let mut batches = 0;
    let begun = Instant::now();
    while begun.elapsed() < time {
        transaction(&connection, &mut streams);
        batches += 1;
    }
    Cell { appends: batches * batch as u64, batches, time: begun.elapsed() }
}

/// As many threads as callers, each with a transaction per append, taking turns at one connection.
pub fn one_per_transaction(callers: usize, time: Duration) -> Cell {
    let dir = TempDir::new().unwrap();
    let connection = Arc::new(Mutex::new(open(&dir)));
    let start = Arc::new(Barrier::new(callers + 1));
    let threads: Vec<_> = (0..callers)
        .map(|_| {
            let (connection, start) = (Arc::clone(&connection), Arc::clone(&start));
            std::thread::spawn(move || {
                let mut stream = streams(1);
                let mut appends = 0;
                start.wait();
                let begun = Instant::now();
                while begun.elapsed() < time {
                    transaction(&connection.lock().unwrap(), &mut stream);
                    appends += 1;
                }
                appends
            })
        })
        .collect();
    start.wait();
    let begun = Instant::now();
    let appends = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    Cell { appends, batches: appends, time: begun.elapsed() }
}

/// One thread, one bare insert of an event per transaction.
pub fn bare_inserts(time: Duration) -> Cell {
    let dir = TempDir::new().unwrap();
    let connection = open(&dir);
    let id = Uuid::now_v7().to_string();
    let mut insert = connection.prepare(INSERT_EVENT).unwrap();
    let mut appends: i64 = 0;
    let begun = Instant::now();
    while begun.elapsed() < time {
        appends += 1;
        insert
            .execute((
                appends,
                "operation",
                &id,
                appends,
                EVENT_TYPE,
                "1",
                PAYLOAD,
                METADATA,
                1_i64,
            ))
            .unwrap();
    }
    Cell { appends: appends.unsigned_abs(), batches: appends.unsigned_abs(), time: begun.elapsed() }
}
