//! Rows in PostgreSQL: schema `views` of the log's own database.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use proximity_eventstore::postgres_alive;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Executor, PgPool, Row};

use super::copy::copy;
use super::{Backend, Dialect, Rows, Session};
use crate::cell::{Cell, Kind, Table};
use crate::error::Error;

/// Rows in one statement; more gains nothing and holds more memory.
const CHUNK: usize = 5_000;

pub(crate) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    /// Connects, and creates the schema if it is missing.
    pub async fn open(url: &str, connections: u32) -> Result<Self, Error> {
        // A lost tail is projected again, so nobody waits for a flush.
        let this = Self::connect(url, connections, ("synchronous_commit", "off")).await?;
        this.ensure_schema().await?;
        Ok(this)
    }

    /// Connects; whoever tries to write fails.
    pub async fn open_read_only(url: &str, connections: u32) -> Result<Self, Error> {
        Self::connect(url, connections, ("default_transaction_read_only", "on")).await
    }

    async fn connect(url: &str, connections: u32, option: (&str, &str)) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url)?
            .application_name("proximity-views")
            .options([("search_path", "views"), ("jit", "off"), option]);
        let pool = PgPoolOptions::new()
            .max_connections(connections.max(2))
            .acquire_timeout(Duration::from_secs(5))
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(postgres_alive(connection, meta.idle_for)))
            .connect_with(options)
            .await?;
        Ok(Self { pool })
    }

    /// Asks before it creates: the server's role may be allowed to use the schema and not to make it.
    async fn ensure_schema(&self) -> Result<(), Error> {
        let mut session = self.begin().await?;
        session.lock_schema().await?;
        let sql = "select count(*) from pg_namespace where nspname = 'views'";
        let found = session.select(sql, Vec::new(), &[Kind::Integer]).await?;
        if found != [[Cell::Integer(1)]] {
            session.execute("create schema views", Vec::new()).await?;
        }
        session.commit().await
    }
}

fn prepared(sql: &str, cells: Vec<Cell>) -> Query<'_, sqlx::Postgres, PgArguments> {
    cells.into_iter().fold(sqlx::query(sql), |query, cell| match cell {
        Cell::Null => query.bind(None::<String>),
        Cell::Text(text) => query.bind(text),
        Cell::Integer(number) => query.bind(number),
    })
}

fn cells(row: &PgRow, kinds: &[Kind]) -> Result<Vec<Cell>, sqlx::Error> {
    kinds
        .iter()
        .enumerate()
        .map(|(index, kind)| {
            Ok(match kind {
                Kind::Text => row.try_get::<Option<String>, _>(index)?.into(),
                Kind::Integer => integer(row, index)?.into(),
            })
        })
        .collect()
}

/// A literal such as `select 1` is a 4-byte integer.
fn integer(row: &PgRow, index: usize) -> Result<Option<i64>, sqlx::Error> {
    row.try_get::<Option<i64>, _>(index)
        .or_else(|_| Ok(row.try_get::<Option<i32>, _>(index)?.map(i64::from)))
}

async fn load<'c>(
    database: impl sqlx::PgExecutor<'c>,
    physical: &str,
    keys: Vec<String>,
) -> Result<Vec<(String, String)>, Error> {
    let sql = format!("select id, body from {physical} where id = any($1)");
    Ok(sqlx::query_as(&sql).bind(keys).fetch_all(database).await?)
}

#[async_trait]
impl Backend for Postgres {
    async fn select(&self, sql: &str, args: Vec<Cell>, kinds: &[Kind]) -> Result<Rows, Error> {
        let rows = prepared(sql, args).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(|row| cells(row, kinds)).collect::<Result<_, _>>()?)
    }

    async fn load(
        &self,
        physical: &str,
        keys: Vec<String>,
    ) -> Result<Vec<(String, String)>, Error> {
        load(&self.pool, physical, keys).await
    }

    async fn begin(&self) -> Result<Box<dyn Session>, Error> {
        Transaction::open(&self.pool, "begin").await
    }

    async fn snapshot(&self) -> Result<Box<dyn Session>, Error> {
        Transaction::open(&self.pool, "begin isolation level repeatable read read only").await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

struct Transaction {
    connection: PoolConnection<sqlx::Postgres>,
    open: bool,
}

impl Transaction {
    async fn open(pool: &PgPool, sql: &'static str) -> Result<Box<dyn Session>, Error> {
        let mut this = Self { connection: pool.acquire().await?, open: true };
        this.connection.execute(sql).await?;
        Ok(Box::new(this))
    }

    async fn end(&mut self, sql: &'static str) -> Result<(), Error> {
        self.connection.execute(sql).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open {
            // It never goes back to the pool with locks in its hands.
            self.connection.close_on_drop();
        }
    }
}

#[async_trait]
impl Session for Transaction {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    async fn lock_schema(&mut self) -> Result<(), Error> {
        self.connection
            .execute("select pg_advisory_xact_lock(hashtext('proximity.views.schema'))")
            .await?;
        Ok(())
    }

    async fn now(&mut self) -> Result<i64, Error> {
        let sql = "select cast(extract(epoch from clock_timestamp()) * 1000000 as bigint)";
        let rows = self.select(sql, Vec::new(), &[Kind::Integer]).await?;
        Ok(rows.first().and_then(|row| row.first()).and_then(Cell::integer).unwrap_or_default())
    }

    async fn execute(&mut self, sql: &str, args: Vec<Cell>) -> Result<u64, Error> {
        let query = prepared(sql, args);
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    async fn select(&mut self, sql: &str, args: Vec<Cell>, kinds: &[Kind]) -> Result<Rows, Error> {
        let rows = prepared(sql, args).fetch_all(&mut *self.connection).await?;
        Ok(rows.iter().map(|row| cells(row, kinds)).collect::<Result<_, _>>()?)
    }

    async fn insert(&mut self, table: &Table, physical: &str, rows: Rows) -> Result<(), Error> {
        copy(&mut self.connection, table, physical, &rows).await
    }

    async fn replace(&mut self, table: &Table, physical: &str, rows: Rows) -> Result<(), Error> {
        let arrays: Vec<String> = table
            .all_columns()
            .enumerate()
            .map(|(index, column)| match column.kind {
                Kind::Text => format!("${}::text[]", index + 1),
                Kind::Integer => format!("${}::bigint[]", index + 1),
            })
            .collect();
        let set: Vec<String> =
            table.columns.iter().map(|column| format!("{0} = excluded.{0}", column.name)).collect();
        let sql = format!(
            "insert into {physical} ({}) select * from unnest({}) on conflict ({}) do update set {}",
            table.column_list(),
            arrays.join(", "),
            table.key.name,
            set.join(", ")
        );
        let mut rows = rows.into_iter();
        loop {
            let chunk: Rows = rows.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return Ok(());
            }
            columnar(&sql, table, chunk).execute(&mut *self.connection).await?;
        }
    }

    async fn delete(&mut self, physical: &str, keys: Vec<String>) -> Result<(), Error> {
        let sql = format!("delete from {physical} where id = any($1)");
        sqlx::query(&sql).bind(keys).execute(&mut *self.connection).await?;
        Ok(())
    }

    async fn load(
        &mut self,
        physical: &str,
        keys: Vec<String>,
    ) -> Result<Vec<(String, String)>, Error> {
        load(&mut *self.connection, physical, keys).await
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        self.end("commit").await
    }

    async fn rollback(mut self: Box<Self>) -> Result<(), Error> {
        self.end("rollback").await
    }
}

/// Rows turned into one array per column.
fn columnar<'q>(sql: &'q str, table: &Table, rows: Rows) -> Query<'q, sqlx::Postgres, PgArguments> {
    enum Values {
        Texts(Vec<Option<String>>),
        Integers(Vec<Option<i64>>),
    }
    let mut arrays: Vec<Values> = table
        .all_columns()
        .map(|column| match column.kind {
            Kind::Text => Values::Texts(Vec::with_capacity(rows.len())),
            Kind::Integer => Values::Integers(Vec::with_capacity(rows.len())),
        })
        .collect();
    for row in rows {
        for (cell, array) in row.into_iter().zip(&mut arrays) {
            match array {
                Values::Texts(texts) => texts.push(cell.text()),
                Values::Integers(numbers) => numbers.push(cell.integer()),
            }
        }
    }
    arrays.into_iter().fold(sqlx::query(sql), |query, array| match array {
        Values::Texts(texts) => query.bind(texts),
        Values::Integers(numbers) => query.bind(numbers),
    })
}
