//! What PostgreSQL itself can do: `proximity_append` in one loop, without queue, channel or checks.

use std::time::{Duration, Instant};

use proximity_eventstore::{Options, Store};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::cell::{Cell, EVENT_TYPE, METADATA, PAYLOAD};

const CALL: &str = "select status, first_position, last_position, item, actual, detail \
    from proximity_append($1::text[]::uuid[], $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
    $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)";

/// As the writer's own connection.
const PLANNER: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// A migrated database of the benchmark's own.
pub struct Database {
    admin: String,
    pub name: String,
}

impl Database {
    pub async fn create(admin: &str) -> Self {
        let name = format!("bench_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(admin).await.unwrap();
        sqlx::query(&format!("create database {name}")).execute(&mut connection).await.unwrap();
        let this = Self { admin: admin.to_owned(), name };
        Store::migrate(Options::postgres(this.url())).await.unwrap();
        this
    }

    pub fn url(&self) -> String {
        let (base, _) = self.admin.rsplit_once('/').unwrap();
        format!("{base}/{}", self.name)
    }

    async fn connect(&self) -> PgConnection {
        let options: PgConnectOptions = self.url().parse().unwrap();
        PgConnection::connect_with(&options.options(PLANNER)).await.unwrap()
    }

    pub async fn drop(self) {
        let mut connection = PgConnection::connect(&self.admin).await.unwrap();
        let sql = format!("drop database {} with (force)", self.name);
        sqlx::query(&sql).execute(&mut connection).await.unwrap();
    }
}

/// A batch of appends of one event each, every array but the ids and the sequences made once.
struct Batch {
    ids: Vec<String>,
    nothing: Vec<Option<&'static str>>,
    no_epochs: Vec<Option<i64>>,
    metadata: Vec<&'static str>,
    /// 1, 2, 3, …
    numbers: Vec<i32>,
    zeros: Vec<i32>,
    ones: Vec<i32>,
    types: Vec<&'static str>,
    streams: Vec<String>,
    expected: Vec<i64>,
    event_types: Vec<&'static str>,
    versions: Vec<&'static str>,
    payloads: Vec<&'static str>,
    no_sql: Vec<String>,
    no_rows: Vec<serde_json::Value>,
    no_counts: Vec<i64>,
}

impl Batch {
    fn of(size: usize) -> Self {
        Self {
            ids: vec![String::new(); size],
            nothing: vec![None; size],
            no_epochs: vec![None; size],
            metadata: vec![METADATA; size],
            numbers: (1..).take(size).collect(),
            zeros: vec![0; size],
            ones: vec![1; size],
            types: vec!["operation"; size],
            streams: (0..size).map(|_| Uuid::now_v7().to_string()).collect(),
            expected: vec![0; size],
            event_types: vec![EVENT_TYPE; size],
            versions: vec!["1"; size],
            payloads: vec![PAYLOAD; size],
            no_sql: vec![],
            no_rows: vec![],
            no_counts: vec![],
        }
    }

    async fn append(&mut self, connection: &mut PgConnection) {
        for id in &mut self.ids {
            *id = Uuid::now_v7().to_string();
        }
        let rows = sqlx::query(CALL)
            .bind(&self.ids)
            .bind(&self.nothing)
            .bind(&self.nothing)
            .bind(&self.nothing)
            .bind(&self.nothing)
            .bind(&self.nothing)
            .bind(&self.no_epochs)
            .bind(&self.metadata)
            .bind(&self.numbers)
            .bind(&self.zeros)
            .bind(&self.types)
            .bind(&self.streams)
            .bind(&self.numbers)
            .bind(&self.numbers)
            .bind(&self.expected)
            .bind(&self.ones)
            .bind(&self.numbers)
            .bind(&self.zeros)
            .bind(&self.event_types)
            .bind(&self.versions)
            .bind(&self.payloads)
            .bind(&self.no_sql)
            .bind(&self.no_rows)
            .bind(&self.no_counts)
            .fetch_all(connection)
            .await
            .unwrap();
        assert_eq!(rows.len(), self.ids.len());
        for expected in &mut self.expected {
            *expected += 1;
        }
    }
}

/// Calls of `batch` appends each, one after another on one connection.
pub async fn batches(database: &Database, batch: usize, time: Duration) -> Cell {
    let mut connection = database.connect().await;
    let mut calls = Batch::of(batch);
    let mut batches = 0;
    let begun = Instant::now();
    while begun.elapsed() < time {
        calls.append(&mut connection).await;
        batches += 1;
    }
    let time = begun.elapsed();
    let stored: i64 =
        sqlx::query_scalar("select count(*) from events where aggregate_id = any ($1)")
            .bind(&calls.streams)
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(stored.unsigned_abs(), batches * batch as u64, "the raw loop stored nothing");
    Cell { appends: batches * batch as u64, batches, time }
}

/// As many connections as callers, each with a call per append, taking turns at the log's lock.
pub async fn one_per_transaction(database: &Database, callers: usize, time: Duration) -> Cell {
    let mut connections = Vec::new();
    for _ in 0..callers {
        connections.push(database.connect().await);
    }
    let begun = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            tokio::spawn(async move {
                let mut call = Batch::of(1);
                let mut appends = 0;
                while begun.elapsed() < time {
                    call.append(&mut connection).await;
                    appends += 1;
                }
                appends
            })
        })
        .collect();
    let mut appends = 0;
    for task in tasks {
        appends += task.await.unwrap();
    }
    Cell { appends, batches: appends, time: begun.elapsed() }
}
