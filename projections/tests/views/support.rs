//! A log and a place for views on each store, and the few things that tests do with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cqrs_es::DomainEvent;
use proximity_eventstore::{
    Append, Expected, Lane, NewEvent, Options, Outcome, Position, Recorded, Store, StreamAppend,
};
use proximity_projections::{
    AnyProjection, At, BuildProgress, Cannot, Cell, Column, Error, Feed, Location, OnProgress,
    Projection, State, Status, Table, Views, boxed,
};
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;
use tokio::sync::watch;
use uuid::Uuid;

/// Which store a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A log of its own.
pub struct Site {
    pub kind: Kind,
    pub store: Store,
    pub location: Location,
    dir: tempfile::TempDir,
    database: Option<(String, String)>,
}

impl Site {
    pub async fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (options, location, database) = match kind {
            Kind::Sqlite => {
                let location = Location::Sqlite { dir: dir.path().to_owned() };
                (Options::sqlite(dir.path()), location, None)
            }
            Kind::Postgres => {
                let admin = std::env::var("PROXIMITY_TEST_POSTGRES")
                    .expect("PROXIMITY_TEST_POSTGRES names the administrator's database");
                let name = format!("views_{}", Uuid::new_v4().simple());
                run(&admin, &format!("create database {name}")).await;
                let (base, _) = admin.rsplit_once('/').unwrap();
                let url = format!("{base}/{name}");
                let options = Options::postgres(&url);
                Store::migrate(options.clone()).await.unwrap();
                let location = Location::Postgres { url, connections: 6 };
                (options, location, Some((admin, name)))
            }
        };
        let store = Store::open(options).await.unwrap();
        Self { kind, store, location, dir, database }
    }

    pub fn feed(&self) -> Arc<dyn Feed> {
        Arc::new(self.store.clone())
    }

    pub async fn views(&self) -> Views {
        Views::open(&self.location, self.feed()).await.unwrap()
    }

    pub async fn views_of(&self, projections: Vec<Box<dyn AnyProjection>>) -> Views {
        Views::open_with(&self.location, self.feed(), projections).await.unwrap()
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Appends events to streams, wherever they stand; answers the last position.
    pub async fn append(&self, streams: Vec<StreamAppend>) -> Position {
        append(&self.store, streams).await
    }

    /// Changes rows behind the projections' back.
    pub async fn tamper(&self, sql: &str) {
        match &self.location {
            Location::Sqlite { dir } => {
                let views = rusqlite::Connection::open(dir.join("views.db")).unwrap();
                views.busy_timeout(Duration::from_secs(10)).unwrap();
                views.execute_batch(sql).unwrap();
            }
            Location::Postgres { url, .. } => {
                run(url, &format!("set search_path = views; {sql}")).await;
            }
        }
    }

    /// Leaves nothing behind.
    pub async fn end(self) {
        self.store.close().await;
        if let Some((admin, name)) = self.database {
            run(&admin, &format!("drop database {name} with (force)")).await;
        }
    }
}

pub async fn run(url: &str, sql: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

pub async fn append(store: &Store, streams: Vec<StreamAppend>) -> Position {
    let append = Append {
        id: Uuid::new_v4(),
        lane: Lane::User("test".to_owned()),
        streams,
        assertions: Vec::new(),
        side: Vec::new(),
        metadata: "{}".to_owned(),
        fence: None,
        idempotency: None,
    };
    match store.append(append).await.unwrap() {
        Outcome::Stored(appended) => appended.last,
        Outcome::Replayed { .. } => panic!("nothing was replayed"),
    }
}

/// Events of the domain for one stream.
pub fn stream<E: DomainEvent>(aggregate_type: &str, id: &str, events: &[E]) -> StreamAppend {
    StreamAppend {
        metadata: None,
        aggregate_type: aggregate_type.to_owned(),
        aggregate_id: id.to_owned(),
        expected: Expected::Any,
        events: events
            .iter()
            .map(|event| NewEvent {
                event_type: event.event_type(),
                event_version: event.event_version(),
                payload: serde_json::to_string(event).unwrap(),
            })
            .collect(),
    }
}

/// One event as raw text.
pub fn raw(aggregate_type: &str, id: &str, event_type: &str, payload: &str) -> StreamAppend {
    StreamAppend {
        metadata: None,
        aggregate_type: aggregate_type.to_owned(),
        aggregate_id: id.to_owned(),
        expected: Expected::Any,
        events: vec![NewEvent {
            event_type: event_type.to_owned(),
            event_version: "1".to_owned(),
            payload: payload.to_owned(),
        }],
    }
}

/// A counter: the least that can be counted wrong. `FACTOR` is what another version changes.
pub struct Counter<const VERSION: i32, const KNOWS_RESET: bool>;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CounterEvent {
    Added(i64),
    Reset,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    pub count: i64,
    /// Events that it was counted from.
    pub events: i64,
}

impl<const V: i32, const KNOWS_RESET: bool> Projection for Counter<V, KNOWS_RESET> {
    const NAME: &'static str = "counter";
    const VERSION: i32 = V;
    const STREAM: &'static str = "counter";
    const TABLE: Table = Table {
        name: "counter",
        key: Column::text("id"),
        columns: &[Column::integer("count"), Column::integer("events"), Column::text("body")],
        indexes: &["count"],
    };
    const RETIRED: &'static [&'static str] = &["counted"];
    type Event = CounterEvent;
    type Row = CounterRow;

    fn apply(row: &mut Option<CounterRow>, event: CounterEvent, _: At<'_>) -> Result<(), Cannot> {
        match event {
            CounterEvent::Added(number) => {
                // Version 2 counts twice as fast, so that its rows can be told apart.
                let row = row.get_or_insert(CounterRow { count: 0, events: 0 });
                row.count += number * i64::from(V);
                row.events += 1;
            }
            CounterEvent::Reset if KNOWS_RESET => *row = None,
            CounterEvent::Reset => return Err(Cannot("nobody said what a reset is".to_owned())),
        }
        Ok(())
    }

    fn columns(row: &CounterRow) -> Vec<Cell> {
        vec![row.count.into(), row.events.into()]
    }
}

pub fn counter() -> Vec<Box<dyn AnyProjection>> {
    vec![boxed::<Counter<1, false>>()]
}

pub fn added(id: &str, number: i64) -> StreamAppend {
    raw("counter", id, "counter.added", &format!("{{\"added\":{number}}}"))
}

pub fn reset(id: &str) -> StreamAppend {
    raw("counter", id, "counter.reset", "\"reset\"")
}

/// The counters' sum, their number, and the events that they were counted from, read past the query layer.
pub async fn counts(site: &Site) -> (i64, i64, i64) {
    const SQL: &str = "select (select cast(coalesce(sum(count), 0) as bigint) from counter), \
                       (select count(*) from counter), (select cast(coalesce(sum(events), 0) as bigint) from counter)";
    match &site.location {
        Location::Sqlite { dir } => {
            let views = rusqlite::Connection::open(dir.join("views.db")).unwrap();
            views.query_row(SQL, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
        }
        Location::Postgres { url, .. } => {
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            sqlx::raw_sql("set search_path = views").execute(&mut connection).await.unwrap();
            let row = sqlx::query_as(SQL).fetch_one(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            row
        }
    }
}

/// Waits for a condition that must come true; panics when it does not within two minutes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(120), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the live rows of all projections hold this position.
pub async fn caught_up(views: &Views, position: Position) {
    assert!(
        views.wait_for(position, Duration::from_secs(120)).await,
        "not caught up: {:?}",
        views.status().await
    );
}

pub async fn status(views: &Views, name: &str) -> Status {
    let all = views.status().await.unwrap();
    all.into_iter().find(|status| status.name == name).unwrap()
}

pub async fn until_state(views: &Views, name: &str, state: State) -> Status {
    until(&format!("{name} is {state:?}"), || async { status(views, name).await.state == state })
        .await;
    status(views, name).await
}

pub fn silent() -> OnProgress {
    Arc::new(|_: BuildProgress| {})
}

/// A log whose reader can be cut, shortened or held up.
pub struct Fault {
    pub log: Arc<dyn Feed>,
    /// Pages after this position fail.
    pub cut_after: Option<Position>,
    /// Pages after this position are empty, as if the log ended.
    pub end_after: Option<Position>,
    /// Pages after 0 wait until this is true.
    pub open: watch::Receiver<bool>,
    pub small_pages: Option<usize>,
    pub read: AtomicU64,
    /// So many times, whoever reads panics.
    pub panics: AtomicU64,
}

impl Fault {
    pub fn new(log: Arc<dyn Feed>) -> Self {
        let (_, open) = watch::channel(true);
        Self {
            log,
            cut_after: None,
            end_after: None,
            open,
            small_pages: None,
            read: 0.into(),
            panics: 0.into(),
        }
    }
}

#[async_trait]
impl Feed for Fault {
    async fn events(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, Error> {
        let mut open = self.open.clone();
        if !*open.borrow() {
            open.wait_for(|open| *open).await.map_err(|error| Error::Feed(error.into()))?;
        }
        let left =
            self.panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        assert!(left.is_err(), "a reader that panics");
        if self.cut_after.is_some_and(|cut| after >= cut) {
            return Err(Error::Feed("connection reset by peer".into()));
        }
        if self.end_after.is_some_and(|end| after >= end) {
            return Ok(Vec::new());
        }
        let page = self.log.events(after, self.small_pages.unwrap_or(limit).min(limit)).await?;
        self.read.fetch_add(page.len() as u64, Ordering::Relaxed);
        Ok(page)
    }

    async fn stream(&self, aggregate_type: &str, id: &str) -> Result<Vec<Recorded>, Error> {
        self.log.stream(aggregate_type, id).await
    }

    async fn head(&self) -> Result<Position, Error> {
        self.log.head().await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.log.watch()
    }

    fn incarnation(&self) -> String {
        self.log.incarnation()
    }
}

/// Makes a test of each store from one body.
#[macro_export]
macro_rules! on_both {
    ($(#[$meta:meta])* $name:ident($site:ident) $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn body($site: $crate::support::Site) {
                $body
                $site.end().await;
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                body($crate::support::Site::new($crate::support::Kind::Sqlite).await).await;
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                body($crate::support::Site::new($crate::support::Kind::Postgres).await).await;
            }
        }
    };
}
