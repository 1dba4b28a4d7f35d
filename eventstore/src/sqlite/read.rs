//! Reads of `events.db`, each one statement on a blocking thread that nobody can cancel midway.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params_from_iter};
use tokio::sync::Semaphore;

use super::reading::{self, Reading, Still};
use crate::append::{Position, Recorded};
use crate::claim::KeptAnswer;
use crate::error::Error;
use crate::page::{Page, Stored};
use crate::search::Statement;
use crate::side::{ColumnType, Row, Table, Value};
use crate::side_sql::{self, Dialect};

pub(super) const COLUMNS: &str = "position, aggregate_type, aggregate_id, sequence, event_type, \
     event_version, payload, metadata, recorded_at";

/// A few read-only connections; each is used by one thread at a time.
#[derive(Clone)]
pub(crate) struct Readers {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    /// What the file was, when it is read as one that nobody changes.
    still: Arc<OnceLock<Still>>,
}

impl Readers {
    pub fn new(path: PathBuf, most: u32) -> Self {
        Self {
            path: Arc::new(path),
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(1).max(1))),
            still: Arc::default(),
        }
    }

    /// Opens another connection.
    pub fn open(&self) -> Result<Connection, Error> {
        let Reading { connection, still } = reading::open(&self.path)?;
        if let Some(still) = still {
            // Of several, the first one knows whether all of them have read the same.
            self.still.get_or_init(|| still);
        }
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }

    /// Whether the file is read as one that nobody changes.
    pub fn is_immutable(&self) -> bool {
        self.still.get().is_some()
    }

    /// Passes on what a read came to, unless the file has changed that nobody was to change.
    pub fn judged<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        match self.still.get() {
            Some(still) => still.judged(result),
            None => result,
        }
    }

    /// Keeps a connection for the next read.
    pub fn give_back(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// Runs `read` on a thread of its own; dropping the future does not stop it.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Closed)?;
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let kept = this.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            // Every reading of the log comes by here, with its errors, too.
            this.judged(kept.map_or_else(|| this.open(), Ok).and_then(|connection| {
                let result = read(&connection);
                if result.is_ok() {
                    this.give_back(connection);
                }
                result
            }))
        });
        match done.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Closed),
            },
        }
    }

    pub async fn feed(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, Error> {
        // Beyond what the column can hold there is nothing.
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let sql = format!(
                "select {COLUMNS} from events where position > ?1 order by position limit ?2"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map((after, limit_of(limit)), recorded)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn page(&self, after: Position, limit: usize) -> Result<Page, Error> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "select position, aggregate_type, aggregate_id, sequence, event_type, \
                 event_version, payload, recorded_at \
                 from events where position > ?1 order by position limit ?2",
            )?;
            let mut rows = statement.query((after, limit_of(limit)))?;
            let mut page = Page::default();
            while let Some(row) = rows.next()? {
                let text =
                    |index| -> Result<&str, rusqlite::Error> { Ok(row.get_ref(index)?.as_str()?) };
                page.push(Stored {
                    position: row.get(0)?,
                    aggregate_type: text(1)?,
                    aggregate_id: text(2)?,
                    sequence: row.get(3)?,
                    event_type: text(4)?,
                    event_version: text(5)?,
                    payload: text(6)?,
                    recorded_at: row.get(7)?,
                });
            }
            Ok(page)
        })
        .await
    }

    pub async fn stream(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Result<Vec<Recorded>, Error> {
        let key = (aggregate_type.to_owned(), aggregate_id.to_owned());
        self.read(move |connection| {
            let sql = format!(
                "select {COLUMNS} from events \
                 where aggregate_type = ?1 and aggregate_id = ?2 order by sequence"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(key, recorded)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// What a statement of a search gives.
    pub async fn found(&self, (sql, bound): Statement) -> Result<Vec<Recorded>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params_from_iter(&bound), recorded)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The one column of a statement.
    pub async fn texts(&self, (sql, bound): Statement) -> Result<Vec<String>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params_from_iter(&bound), |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The one row of a statement, all numbers.
    pub async fn numbers(&self, (sql, bound): Statement) -> Result<Vec<Option<i64>>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let columns = statement.column_count();
            Ok(statement.query_row(params_from_iter(&bound), |row| {
                (0..columns).map(|column| row.get(column)).collect()
            })?)
        })
        .await
    }

    pub async fn head(&self) -> Result<Position, Error> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("select coalesce(max(position), 0) from events")?;
            Ok(statement.query_row((), |row| row.get(0))?)
        })
        .await
    }

    pub async fn idempotent(&self, actor: &str, key: &str) -> Result<Option<KeptAnswer>, Error> {
        let key = (actor.to_owned(), key.to_owned());
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "select first_position, fingerprint, answer from appends \
                 where actor = ?1 and idempotency_key = ?2",
            )?;
            let kept = statement.query_row(key, |row| {
                Ok(KeptAnswer {
                    position: row.get(0)?,
                    fingerprint: row.get(1)?,
                    answer: row.get(2)?,
                })
            });
            Ok(kept.optional()?)
        })
        .await
    }

    pub async fn rows(
        &self,
        table: &'static Table,
        filter: Row,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        self.read(move |connection| {
            let sql = side_sql::select(Dialect::Sqlite, table, &filter);
            let mut statement = connection.prepare_cached(&sql)?;
            let mut place = 0;
            for (_, value) in filter.iter().filter(|(_, value)| *value != Value::Null) {
                place += 1;
                statement.raw_bind_parameter(place, value)?;
            }
            statement.raw_bind_parameter(place + 1, limit_of(limit))?;
            let mut found = statement.raw_query();
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                rows.push(side_row(table, row)?);
            }
            Ok(rows)
        })
        .await
    }

    pub async fn kinds(&self, after: Position) -> Result<Vec<(String, String)>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "select distinct event_type, event_version from events where position > ?1",
            )?;
            let rows = statement.query_map([after], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn count(&self, table: &'static Table, filter: Row) -> Result<u64, Error> {
        self.read(move |connection| {
            let sql = side_sql::count(Dialect::Sqlite, table, &filter);
            let values = filter.iter().map(|(_, value)| value);
            let values = rusqlite::params_from_iter(values.filter(|value| **value != Value::Null));
            Ok(connection.prepare_cached(&sql)?.query_row(values, |row| row.get(0))?)
        })
        .await
    }

    pub async fn sum_login_failures(
        &self,
        column: &'static str,
        value: &str,
        since: i64,
    ) -> Result<u64, Error> {
        let value = value.to_owned();
        let sql = format!(
            "select coalesce(sum(failures), 0) from login_attempts \
             where \"{column}\" = ?1 and window_start >= ?2"
        );
        self.read(move |connection| {
            Ok(connection.prepare_cached(&sql)?.query_row((value, since), |row| row.get(0))?)
        })
        .await
    }
}

pub(super) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn recorded(row: &SqlRow<'_>) -> Result<Recorded, rusqlite::Error> {
    Ok(Recorded {
        position: row.get(0)?,
        aggregate_type: row.get(1)?,
        aggregate_id: row.get(2)?,
        sequence: row.get(3)?,
        event_type: row.get(4)?,
        event_version: row.get(5)?,
        payload: row.get(6)?,
        metadata: row.get(7)?,
        recorded_at: row.get(8)?,
    })
}

pub(super) fn side_row(table: &'static Table, row: &SqlRow<'_>) -> Result<Row, Error> {
    let mut out = Row::with_capacity(table.columns.len());
    for (n, column) in table.columns.iter().enumerate() {
        let value = match (column.kind, row.get::<_, SqlValue>(n)?) {
            (_, SqlValue::Null) => Value::Null,
            (ColumnType::Text, SqlValue::Text(text)) => Value::Text(text),
            (ColumnType::Integer, SqlValue::Integer(number)) => Value::Integer(number),
            (ColumnType::Boolean, SqlValue::Integer(number)) => Value::Boolean(number != 0),
            (ColumnType::Bytes, SqlValue::Blob(bytes)) => Value::Bytes(bytes),
            _ => return Err(Error::malformed(format!("{}.{}", table.name, column.name))),
        };
        out.push((column.name, value));
    }
    Ok(out)
}
