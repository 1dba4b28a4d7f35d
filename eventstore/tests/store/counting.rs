//! Two processes × 20 clients: a view with a checkpoint counts every acknowledged command.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use proximity_eventstore::{AppendError, Expected, Options, Store};
use serde_json::json;
use sqlx::Row as _;

use crate::child::{Second, ready};
use crate::support::{Home, assert_whole, one, whole_log};
use crate::{figures, on_both_stores};

const CLIENTS: usize = 20;
const COMMANDS: usize = 25;
const STREAMS: usize = 10;

/// Counts events for each stream: rows and checkpoint in one transaction, the checkpoint compared and set.
pub enum View {
    Postgres(sqlx::PgPool),
    Sqlite(Arc<Mutex<rusqlite::Connection>>),
}

const SCHEMA: &str = "
    create table counts (id text not null primary key, n bigint not null);
    create table checkpoint (position bigint not null);
    insert into checkpoint values (0);";

impl View {
    /// An empty view.
    pub async fn open(home: &Home) -> Self {
        if home.is_sqlite() {
            let connection = rusqlite::Connection::open_in_memory().unwrap();
            connection.execute_batch(SCHEMA).unwrap();
            Self::Sqlite(Arc::new(Mutex::new(connection)))
        } else {
            let view = Self::at(&home.url()).await;
            let Self::Postgres(pool) = &view else { unreachable!() };
            sqlx::raw_sql("drop table if exists counts, checkpoint").execute(pool).await.unwrap();
            sqlx::raw_sql(SCHEMA).execute(pool).await.unwrap();
            view
        }
    }

    /// The view that another process opened.
    pub async fn at(url: &str) -> Self {
        Self::Postgres(
            sqlx::postgres::PgPoolOptions::new().max_connections(2).connect(url).await.unwrap(),
        )
    }

    /// Applies the feed until its end; a page that another runner has applied meanwhile is rolled back.
    pub async fn catch_up(&self, store: &Store) {
        loop {
            let checkpoint = self.checkpoint().await;
            let page = store.feed(checkpoint, 50).await.unwrap();
            let Some(last) = page.last() else { return };
            let ids: Vec<&str> = page.iter().map(|r| r.aggregate_id.as_str()).collect();
            self.apply(&ids, checkpoint, last.position).await;
        }
    }

    async fn checkpoint(&self) -> u64 {
        match self {
            Self::Postgres(pool) => {
                let row = sqlx::query("select position from checkpoint").fetch_one(pool).await;
                row.unwrap().get::<i64, _>(0).unsigned_abs()
            }
            Self::Sqlite(view) => view
                .lock()
                .unwrap()
                .query_row("select position from checkpoint", (), |row| row.get(0))
                .unwrap(),
        }
    }

    async fn apply(&self, ids: &[&str], from: u64, to: u64) {
        const COUNT: &str = "insert into counts (id, n) values ($1, 1)
            on conflict (id) do update set n = counts.n + 1";
        const MOVE: &str = "update checkpoint set position = position + $1 where position = $2";
        let (by, from) = (i64::try_from(to - from).unwrap(), i64::try_from(from).unwrap());
        match self {
            Self::Postgres(pool) => {
                let mut tx = sqlx::Acquire::begin(pool).await.unwrap();
                let moved = sqlx::query(MOVE).bind(by).bind(from).execute(&mut *tx).await.unwrap();
                if moved.rows_affected() == 1 {
                    for id in ids {
                        sqlx::query(COUNT).bind(id).execute(&mut *tx).await.unwrap();
                    }
                    tx.commit().await.unwrap();
                } else {
                    tx.rollback().await.unwrap();
                }
            }
            Self::Sqlite(view) => {
                let mut view = view.lock().unwrap();
                let tx = view.transaction().unwrap();
                if tx.execute(MOVE, (by, from)).unwrap() == 1 {
                    for id in ids {
                        tx.execute(COUNT, [id]).unwrap();
                    }
                    tx.commit().unwrap();
                }
            }
        }
    }

    pub async fn total(&self) -> u64 {
        self.counts().await.iter().map(|(_, n)| n).sum()
    }

    pub async fn counts(&self) -> Vec<(String, u64)> {
        const COUNTS: &str = "select id, n from counts order by id";
        match self {
            Self::Postgres(pool) => {
                let rows = sqlx::query(COUNTS).fetch_all(pool).await.unwrap();
                rows.iter().map(|r| (r.get(0), r.get::<i64, _>(1).unsigned_abs())).collect()
            }
            Self::Sqlite(view) => {
                let view = view.lock().unwrap();
                let mut statement = view.prepare(COUNTS).unwrap();
                let rows = statement.query_map((), |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
                rows.collect::<Result<_, _>>().unwrap()
            }
        }
    }
}

impl Clone for View {
    fn clone(&self) -> Self {
        match self {
            Self::Postgres(pool) => Self::Postgres(pool.clone()),
            Self::Sqlite(view) => Self::Sqlite(Arc::clone(view)),
        }
    }
}

/// Twenty clients that all count on the same ten streams, the view running beside them; returns
/// how many commands were acknowledged.
async fn clients(store: &Store, view: &View) -> u64 {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (store, view) = (store.clone(), view.clone());
            tokio::spawn(async move {
                let mut acknowledged = 0u64;
                for n in 0..COMMANDS {
                    let id = format!("s{}", (client + n) % STREAMS);
                    loop {
                        let head = store.load_stream("thing", &id).await.unwrap().len() as u64;
                        match store.append(one(&id, Expected::At(head))).await {
                            Ok(_) => break,
                            Err(AppendError::Conflict { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    acknowledged += 1;
                    view.catch_up(&store).await;
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
    let store = Store::open(Options::postgres(url)).await.unwrap();
    let view = View::at(url).await;
    ready();
    let acknowledged = clients(&store, &view).await;
    store.close().await;
    json!(acknowledged)
}

on_both_stores! {
    async fn a_view_counts_every_acknowledged_command(home: &Home) {
        let store = home.open().await;
        let view = View::open(home).await;
        let begun = Instant::now();
        let acknowledged = if home.is_sqlite() {
            let (a, b) = tokio::join!(clients(&store, &view), clients(&store, &view));
            a + b
        } else {
            let mut second = Second::start("clients", &home.url());
            second.go();
            clients(&store, &view).await + second.result().as_u64().unwrap()
        };
        view.catch_up(&store).await;
        let (counted, live) = (view.total().await, view.counts().await);
        let rebuilt = View::open(home).await;
        rebuilt.catch_up(&store).await;
        figures!(
            home,
            "2 × {CLIENTS} clients: {acknowledged} acknowledged, the view counts {counted}, a rebuild {}, {:?}",
            rebuilt.total().await, begun.elapsed()
        );
        assert_eq!((acknowledged, counted), (1_000, 1_000));
        assert_eq!(rebuilt.counts().await, live);
        assert_whole(&whole_log(&store, 100).await);
    }
}
