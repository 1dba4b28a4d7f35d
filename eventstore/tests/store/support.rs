//! A fresh store for each test, builders that hide the irrelevant, and a view that counts.

use std::sync::atomic::{AtomicU32, Ordering};

use proximity_eventstore::{
    Append, Expected, Lane, NewEvent, Options, Recorded, Store, StreamAppend,
};
use sqlx::{Connection as _, Row as _};
use tempfile::TempDir;
use uuid::Uuid;

/// Declares a test that runs once on each store.
#[macro_export]
macro_rules! on_both_stores {
    ($(async fn $name:ident($home:ident: &Home) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn run($home: &$crate::support::Home) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                run(&$crate::support::Home::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                run(&$crate::support::Home::postgres().await).await;
            }
        }
    )*};
}

/// Where one test's log lives; everything is removed at its end.
pub struct Home {
    dir: TempDir,
    database: Option<Database>,
}

struct Database {
    admin: String,
    name: String,
}

impl Home {
    pub fn sqlite() -> Self {
        Self { dir: TempDir::new().unwrap(), database: None }
    }

    /// A migrated database of its own.
    pub async fn postgres() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let admin = std::env::var("PROXIMITY_TEST_POSTGRES").expect(
            "PROXIMITY_TEST_POSTGRES must hold a superuser's URL: make test starts a cluster for it",
        );
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("store_{}_{number}", std::process::id());
        let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
        sqlx::query(&format!("create database {name}")).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let home = Self { dir: TempDir::new().unwrap(), database: Some(Database { admin, name }) };
        Store::migrate(home.options()).await.unwrap();
        home
    }

    pub fn is_sqlite(&self) -> bool {
        self.database.is_none()
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The database's URL; only on PostgreSQL.
    pub fn url(&self) -> String {
        let database = self.database.as_ref().expect("a test for PostgreSQL");
        let (base, _) = database.admin.rsplit_once('/').unwrap();
        format!("{base}/{}", database.name)
    }

    pub fn options(&self) -> Options {
        if self.is_sqlite() { Options::sqlite(self.dir()) } else { Options::postgres(self.url()) }
    }

    pub async fn open(&self) -> Store {
        Store::open(self.options()).await.unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(Database { admin, name }) = self.database.take() else { return };
        // A runtime of its own: the test's may be the thread that drops us.
        let dropped = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
                let sql = format!("drop database {name} with (force)");
                sqlx::query(&sql).execute(&mut connection).await.unwrap();
            });
        });
        dropped.join().unwrap();
    }
}

/// One event with a counter in it.
pub fn event(n: u64) -> NewEvent {
    NewEvent {
        event_type: "thing.counted".to_owned(),
        event_version: "1".to_owned(),
        payload: format!("{{\"n\": {n}}}"),
    }
}

/// An append of nothing yet, by user `u`.
pub fn append() -> Append {
    Append {
        id: Uuid::now_v7(),
        lane: Lane::User("u".to_owned()),
        streams: vec![],
        assertions: vec![],
        side: vec![],
        metadata: "{}".to_owned(),
        fence: None,
        idempotency: None,
    }
}

/// `count` events for `thing/<id>`.
pub fn to_stream(id: &str, expected: Expected, count: u64) -> StreamAppend {
    StreamAppend {
        metadata: None,
        aggregate_type: "thing".to_owned(),
        aggregate_id: id.to_owned(),
        expected,
        events: (0..count).map(event).collect(),
    }
}

/// One event for `thing/<id>`, by user `u`.
pub fn one(id: &str, expected: Expected) -> Append {
    Append { streams: vec![to_stream(id, expected, 1)], ..append() }
}

/// Reads the whole log in pages, as a rebuild does.
pub async fn whole_log(store: &Store, page: usize) -> Vec<Recorded> {
    let mut log: Vec<Recorded> = Vec::new();
    loop {
        let after = log.last().map_or(0, |recorded| recorded.position);
        let mut next = store.feed(after, page).await.unwrap();
        // In one piece of memory it is the same; more may have come meanwhile.
        let mut whole = store.page(after, page).await.unwrap();
        whole.truncate(after + next.len() as u64);
        assert!(whole.iter().eq(next.iter().map(Recorded::stored)), "a page after {after} differs");
        if next.is_empty() {
            return log;
        }
        log.append(&mut next);
    }
}

/// Panics unless positions are 1..n and each stream's sequences 1..m.
pub fn assert_whole(log: &[Recorded]) {
    let mut heads = std::collections::HashMap::new();
    for (recorded, position) in log.iter().zip(1u64..) {
        assert_eq!(recorded.position, position, "a gap in the log");
        let head: &mut u64 = heads
            .entry((recorded.aggregate_type.clone(), recorded.aggregate_id.clone()))
            .or_default();
        *head += 1;
        assert_eq!(recorded.sequence, *head, "a gap in a stream");
    }
}

/// Prints one line of figures, marked so that they can be collected.
#[macro_export]
macro_rules! figures {
    ($home:expr, $($text:tt)*) => {
        println!("figure: {}: {}", $home.name(), format_args!($($text)*))
    };
}

/// Holds the database's write lock, so that appends pile up behind one batch.
pub enum Plug {
    Postgres(sqlx::PgConnection, Stuck),
    Sqlite(rusqlite::Connection, Stuck),
}

/// The append that the writer is stuck with.
type Stuck = tokio::task::JoinHandle<()>;

impl Plug {
    /// Returns once the writer is stuck; nothing of ours is waiting then.
    pub async fn put(home: &Home, store: &Store) -> Self {
        let stick = |store: &Store| {
            let store = store.clone();
            tokio::spawn(async move {
                store.append(one(&Uuid::new_v4().to_string(), Expected::At(0))).await.unwrap();
            })
        };
        let batches = store.stats().batches;
        let plug = if home.is_sqlite() {
            let file = proximity_eventstore::sqlite_file(home.dir());
            let connection = rusqlite::Connection::open(file).unwrap();
            connection.execute_batch("begin immediate").unwrap();
            Self::Sqlite(connection, stick(store))
        } else {
            let mut connection = sqlx::PgConnection::connect(&home.url()).await.unwrap();
            // The key that proximity_append locks.
            sqlx::query("select pg_advisory_lock(5788045172043125)")
                .execute(&mut connection)
                .await
                .unwrap();
            Self::Postgres(connection, stick(store))
        };
        while store.stats().batches == batches {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        plug
    }

    /// Lets the writer go on.
    pub async fn pull(self) {
        match self {
            Self::Postgres(connection, stuck) => {
                connection.close().await.unwrap();
                stuck.await.unwrap();
            }
            Self::Sqlite(connection, stuck) => {
                connection.execute_batch("rollback").unwrap();
                stuck.await.unwrap();
            }
        }
    }
}

impl Home {
    pub fn name(&self) -> &'static str {
        if self.is_sqlite() { "sqlite" } else { "postgres" }
    }

    /// Connections to this database that sit in an open transaction; none on SQLite, whose file
    /// must then accept a writer at once.
    pub async fn idle_in_transaction(&self) -> i64 {
        if self.is_sqlite() {
            let connection =
                rusqlite::Connection::open(proximity_eventstore::sqlite_file(self.dir())).unwrap();
            connection.execute_batch("begin immediate; rollback").unwrap();
            return 0;
        }
        let mut connection = sqlx::PgConnection::connect(&self.url()).await.unwrap();
        sqlx::query(
            "select count(*) from pg_stat_activity \
             where datname = current_database() and state like 'idle in transaction%'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap()
        .get(0)
    }
}
