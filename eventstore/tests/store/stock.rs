//! The stock framework: what it reads of ours, and what it loses, which shows that the checker can tell.

use std::time::Instant;

use async_trait::async_trait;
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{
    GenericQuery, PersistedEventRepository as _, PersistedEventStore, ViewRepository as _,
};
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, EventStore as _, View};
use postgres_es::{PostgresEventRepository, PostgresViewRepository};
use proximity_eventstore::{Expected, sqlite_file};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Row as _;

use crate::child::{Second, ready};
use crate::support::{Home, append, to_stream};
use crate::{figures, on_both_stores};

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Thing {
    counted: u64,
}

struct Count;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    n: u64,
}

impl DomainEvent for Counted {
    fn event_type(&self) -> String {
        "thing.counted".to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl Aggregate for Thing {
    const TYPE: &'static str = "thing";
    type Command = Count;
    type Event = Counted;
    type Error = std::fmt::Error;
    type Services = ();

    async fn handle(
        &mut self,
        _: Count,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), std::fmt::Error> {
        let n = self.counted;
        sink.write(Counted { n }, self).await;
        Ok(())
    }

    fn apply(&mut self, _: Counted) {
        self.counted += 1;
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct CountView {
    counted: u64,
}

impl View<Thing> for CountView {
    fn update(&mut self, _: &EventEnvelope<Thing>) {
        self.counted += 1;
    }
}

on_both_stores! {
    async fn the_unmodified_crates_read_our_tables(home: &Home) {
        let store = home.open().await;
        let append = proximity_eventstore::Append {
            streams: vec![to_stream("a", Expected::At(0), 7), to_stream("b", Expected::At(0), 2)],
            metadata: "{\"actor\": \"u1\"}".to_owned(),
            ..append()
        };
        store.append(append).await.unwrap();

        let loaded = store.load::<Thing>("a").await.unwrap();
        let sequences: Vec<_> = loaded.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(loaded[3].payload, json!({"n": 3}));
        assert_eq!(loaded[3].metadata, json!({"actor": "u1"}));

        let (aggregate, streamed) = if home.is_sqlite() {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(sqlite_file(home.dir()));
            let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
            let repository = sqlite_es::SqliteEventRepository::new(pool.clone());
            let streamed = count(repository.stream_all_events::<Thing>().await.unwrap()).await;
            let repository = sqlite_es::SqliteEventRepository::new(pool);
            let events = PersistedEventStore::<_, Thing>::new_event_store(repository);
            (events.load_aggregate("a").await.unwrap().aggregate, streamed)
        } else {
            let pool = sqlx::PgPool::connect(&home.url()).await.unwrap();
            let repository = PostgresEventRepository::new(pool.clone());
            let streamed = count(repository.stream_all_events::<Thing>().await.unwrap()).await;
            let repository = PostgresEventRepository::new(pool);
            let events = PersistedEventStore::<_, Thing>::new_event_store(repository);
            (events.load_aggregate("a").await.unwrap().aggregate, streamed)
        };
        assert_eq!(aggregate, Thing { counted: 7 });
        assert_eq!(streamed, 9);
    }
}

async fn count(mut stream: cqrs_es::persist::ReplayStream) -> usize {
    let mut events = 0;
    while let Some(event) = stream.next::<Thing>(&[]).await {
        event.unwrap();
        events += 1;
    }
    events
}

/// Tables as postgres-es 0.5.0 documents them.
const STOCK_TABLES: &str = "
    create schema stock;
    create table stock.events (
      aggregate_type text not null, aggregate_id text not null, sequence bigint not null,
      event_type text not null, event_version text not null, payload json not null,
      metadata json not null, primary key (aggregate_type, aggregate_id, sequence));
    create table stock.view (
      view_id text not null primary key, version bigint not null, payload json not null);";

const CLIENTS: usize = 20;
const COMMANDS: usize = 25;
const AGGREGATES: usize = 10;

/// Ignores what the framework's own handler would print.
struct Quiet;

#[async_trait]
impl cqrs_es::Query<Thing> for Quiet {
    async fn dispatch(&self, _: &str, _: &[EventEnvelope<Thing>]) {}
}

/// Twenty clients of the stock framework; returns how many commands it acknowledged.
async fn clients(url: &str) -> u64 {
    let url = format!("{url}?options=-csearch_path%3Dstock");
    let pool = postgres_es::default_postgress_pool(&url).await;
    let views =
        std::sync::Arc::new(PostgresViewRepository::<CountView, Thing>::new("view", pool.clone()));
    let mut query = GenericQuery::new(views);
    query.use_error_handler(Box::new(|_| {}));
    let cqrs = std::sync::Arc::new(postgres_es::postgres_cqrs(
        pool,
        vec![Box::new(query), Box::new(Quiet)],
        (),
    ));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let cqrs = std::sync::Arc::clone(&cqrs);
            tokio::spawn(async move {
                let mut acknowledged = 0u64;
                for n in 0..COMMANDS {
                    let id = format!("s{}", (client + n) % AGGREGATES);
                    while cqrs.execute(&id, Count).await.is_err() {}
                    acknowledged += 1;
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = 0;
    for client in clients {
        acknowledged += client.await.unwrap();
    }
    acknowledged
}

/// Argument: the database's URL.
pub async fn second_clients(url: &str) -> serde_json::Value {
    ready();
    json!(clients(url).await)
}

/// The positive control of `a_view_counts_every_acknowledged_command`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_framework_loses_counts_and_the_checker_sees_it() {
    let home = Home::postgres().await;
    let pool = sqlx::PgPool::connect(&home.url()).await.unwrap();
    sqlx::raw_sql(STOCK_TABLES).execute(&pool).await.unwrap();
    let begun = Instant::now();
    let mut second = Second::start("stock", &home.url());
    second.go();
    let acknowledged = clients(&home.url()).await + second.result().as_u64().unwrap();
    let stored: i64 =
        sqlx::query("select count(*) from stock.events").fetch_one(&pool).await.unwrap().get(0);
    let url = format!("{}?options=-csearch_path%3Dstock", home.url());
    let views = PostgresViewRepository::<CountView, Thing>::new(
        "view",
        postgres_es::default_postgress_pool(&url).await,
    );
    let mut counted = 0;
    for aggregate in 0..AGGREGATES {
        let view = views.load(&format!("s{aggregate}")).await.unwrap();
        counted += view.map_or(0, |view| view.counted);
    }
    figures!(
        home,
        "stock framework, 2 × {CLIENTS} clients: {acknowledged} acknowledged, {stored} stored, the view counts {counted}, {:?}",
        begun.elapsed()
    );
    assert_eq!((acknowledged, stored), (1_000, 1_000));
    assert!(counted < 1_000, "the control found nothing: the checker proves nothing");
}
