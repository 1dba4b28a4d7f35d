//! Reads of a PostgreSQL log, each one statement through the pool.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{PgPool, Row as _};
use tokio::sync::watch;

use crate::append::{Position, Recorded};
use crate::claim::KeptAnswer;
use crate::error::Error;
use crate::page::{Page, Stored};
use crate::rights::Rights;
use crate::seal::{Leaf, Link, Seal, Sealable, leaf};
use crate::sealer::Published;
use crate::search::Statement;
use crate::side::{ColumnType, Row, Table, Value};
use crate::side_sql::{self, Dialect};
use crate::task::advance;

const FEED: &str = "select position, aggregate_type, aggregate_id, sequence, event_type, \
    event_version, payload::text, metadata::text, recorded_at \
    from events where position > $1 order by position limit $2";
const PAGE: &str = "select position, aggregate_type, aggregate_id, sequence, event_type, \
    event_version, payload::text, recorded_at \
    from events where position > $1 order by position limit $2";
const STREAM: &str = "select position, aggregate_type, aggregate_id, sequence, event_type, \
    event_version, payload::text, metadata::text, recorded_at \
    from events where aggregate_type = $1 and aggregate_id = $2 order by sequence";
const HEAD: &str = "select coalesce(max(position), 0) from events";
const IDEMPOTENT: &str = "select first_position, fingerprint, answer from appends \
    where actor = $1 and idempotency_key = $2";

const KINDS: &str = "select distinct event_type, event_version from events where position > $1";

const LAST_SEAL: &str = "select block, first_position, last_position, leaves, hash, key_id, \
    signature, sealed_at, incarnation from seals order by block desc limit 1";
const SEALS: &str = "select block, first_position, last_position, leaves, hash, key_id, \
    signature, sealed_at, incarnation from seals where block > $1 order by block limit $2";

const LINKS: &str = "select block, last_position, hash, incarnation from seals \
    where block > $1 order by block limit $2";
const STRAYS: &str = "select count(*) from events where position < 1";
const EXCESS: &str = "select current_user::text, \
    has_table_privilege('events', 'update') or has_any_column_privilege('events', 'update'), \
    has_table_privilege('events', 'delete'), has_table_privilege('events', 'truncate'), \
    pg_has_role(c.relowner, 'usage') from pg_class c where c.oid = 'events'::regclass";

#[derive(Clone)]
pub(crate) struct Reader {
    pool: PgPool,
}

impl Reader {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub async fn feed(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, Error> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows =
            sqlx::query(FEED).bind(after).bind(limit_of(limit)).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(recorded).collect::<Result<_, _>>()?)
    }

    pub async fn page(&self, after: Position, limit: usize) -> Result<Page, Error> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let mut rows = sqlx::query(PAGE).bind(after).bind(limit_of(limit)).fetch(&self.pool);
        let mut page = Page::default();
        while let Some(row) = rows.try_next().await? {
            page.push(Stored {
                position: row.try_get::<i64, _>(0)?.unsigned_abs(),
                aggregate_type: row.try_get(1)?,
                aggregate_id: row.try_get(2)?,
                sequence: row.try_get::<i64, _>(3)?.unsigned_abs(),
                event_type: row.try_get(4)?,
                event_version: row.try_get(5)?,
                payload: row.try_get(6)?,
                recorded_at: row.try_get(7)?,
            });
        }
        Ok(page)
    }

    pub async fn stream(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Result<Vec<Recorded>, Error> {
        let rows = sqlx::query(STREAM)
            .bind(aggregate_type)
            .bind(aggregate_id)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().map(recorded).collect::<Result<_, _>>()?)
    }

    /// What a statement of a search gives.
    pub async fn found(&self, (sql, bound): Statement) -> Result<Vec<Recorded>, Error> {
        let rows = bind_all(sqlx::query(&sql), &bound).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(recorded).collect::<Result<_, _>>()?)
    }

    /// The one column of a statement.
    pub async fn texts(&self, (sql, bound): Statement) -> Result<Vec<String>, Error> {
        let rows = bind_all(sqlx::query(&sql), &bound).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// The one row of a statement, all numbers.
    pub async fn numbers(&self, (sql, bound): Statement) -> Result<Vec<Option<i64>>, Error> {
        let row = bind_all(sqlx::query(&sql), &bound).fetch_one(&self.pool).await?;
        Ok((0..row.len()).map(|column| row.try_get(column)).collect::<Result<_, _>>()?)
    }

    pub async fn head(&self) -> Result<Position, Error> {
        let row = sqlx::query(HEAD).fetch_one(&self.pool).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    /// Looks the head up every `every`, until the task is ended.
    pub async fn poll(self, every: Duration, head: watch::Sender<Position>) {
        loop {
            tokio::time::sleep(every).await;
            match self.head().await {
                Ok(position) => advance(&head, position),
                Err(error) => tracing::warn!(%error, "the head cannot be read"),
            }
        }
    }

    pub async fn idempotent(&self, actor: &str, key: &str) -> Result<Option<KeptAnswer>, Error> {
        let row = sqlx::query(IDEMPOTENT).bind(actor).bind(key).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(KeptAnswer {
            position: row.try_get::<i64, _>(0)?.unsigned_abs(),
            fingerprint: row.try_get(1)?,
            answer: row.try_get(2)?,
        }))
    }

    pub async fn rows(
        &self,
        table: &'static Table,
        filter: Row,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        let sql = side_sql::select(Dialect::Postgres, table, &filter);
        let query = bind_all(sqlx::query(&sql), filter.iter().map(|(_, value)| value));
        let rows = query.bind(limit_of(limit)).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(|row| side_row(table, row)).collect::<Result<_, _>>()?)
    }

    pub async fn kinds(&self, after: Position) -> Result<Vec<(String, String)>, Error> {
        let rows = sqlx::query(KINDS)
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, sqlx::Error>>()?)
    }

    pub async fn count(&self, table: &'static Table, filter: Row) -> Result<u64, Error> {
        let sql = side_sql::count(Dialect::Postgres, table, &filter);
        let query = bind_all(sqlx::query(&sql), filter.iter().map(|(_, value)| value));
        let row = query.fetch_one(&self.pool).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    pub async fn last_seal(&self) -> Result<Option<Seal>, Error> {
        let row = sqlx::query(LAST_SEAL).fetch_optional(&self.pool).await?;
        Ok(row.as_ref().map(seal).transpose()?)
    }

    pub async fn seals(&self, after: u64, limit: usize) -> Result<Vec<Seal>, Error> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows =
            sqlx::query(SEALS).bind(after).bind(limit_of(limit)).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(seal).collect::<Result<_, _>>()?)
    }

    pub async fn links(&self, after: u64, limit: usize) -> Result<Vec<Link>, Error> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows =
            sqlx::query(LINKS).bind(after).bind(limit_of(limit)).fetch_all(&self.pool).await?;
        let link = |row: &PgRow| -> Result<Link, sqlx::Error> {
            Ok(Link {
                block: row.try_get::<i64, _>(0)?.unsigned_abs(),
                last: row.try_get::<i64, _>(1)?.unsigned_abs(),
                hash: row.try_get(2)?,
                incarnation: life(row, 3)?,
            })
        };
        Ok(rows.iter().map(link).collect::<Result<_, _>>()?)
    }

    pub async fn published(&self) -> Result<Vec<Published>, Error> {
        let sql = "select server, incarnation, first_block, each_from, last_block, last_position \
                   from published order by server, incarnation";
        let published = |row: &PgRow| -> Result<Published, sqlx::Error> {
            let number = |index: usize| row.try_get::<i64, _>(index).map(i64::unsigned_abs);
            Ok(Published {
                server: row.try_get(0)?,
                incarnation: life(row, 1)?,
                first_block: number(2)?,
                each_from: number(3)?,
                last_block: number(4)?,
                last_position: number(5)?,
            })
        };
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(published).collect::<Result<_, _>>()?)
    }

    pub async fn sealable(&self, after: Position, limit: usize) -> Result<Vec<Sealable>, Error> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows =
            sqlx::query(FEED).bind(after).bind(limit_of(limit)).fetch_all(&self.pool).await?;
        let sealable = |row: &PgRow| -> Result<Sealable, sqlx::Error> {
            let position: i64 = row.try_get(0)?;
            Ok(Sealable {
                position: position.unsigned_abs(),
                recorded_at: row.try_get(8).ok(),
                leaf: leaf_of(row, position),
            })
        };
        Ok(rows.iter().map(sealable).collect::<Result<_, _>>()?)
    }

    pub async fn leaf_at(
        &self,
        position: Position,
        place: Position,
    ) -> Result<Option<Leaf>, Error> {
        let number = |position| i64::try_from(position).unwrap_or(i64::MAX);
        let before = number(position).saturating_sub(1);
        let row = sqlx::query(FEED).bind(before).bind(1_i64).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        let found: i64 = row.try_get(0)?;
        Ok(if found == number(position) { leaf_of(&row, number(place)) } else { None })
    }

    pub async fn strays(&self) -> Result<u64, Error> {
        let row = sqlx::query(STRAYS).fetch_one(&self.pool).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    pub async fn rights(&self) -> Result<Rights, Error> {
        let row = sqlx::query(EXCESS).fetch_one(&self.pool).await?;
        let mut excess = Vec::new();
        for (index, name) in ["update", "delete", "truncate", "alter"].into_iter().enumerate() {
            if row.try_get(index + 1)? {
                excess.push(name.to_owned());
            }
        }
        Ok(Rights { role: row.try_get(0)?, excess })
    }

    pub async fn sum_login_failures(
        &self,
        column: &'static str,
        value: &str,
        since: i64,
    ) -> Result<u64, Error> {
        let sql = format!(
            "select coalesce(sum(failures), 0)::bigint from login_attempts \
             where \"{column}\" = $1 and window_start >= $2"
        );
        let row = sqlx::query(&sql).bind(value).bind(since).fetch_one(&self.pool).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }
}

/// Binds what is not null, in order.
fn bind_all<'q>(
    query: Query<'q, Postgres, PgArguments>,
    values: impl IntoIterator<Item = &'q Value>,
) -> Query<'q, Postgres, PgArguments> {
    values.into_iter().fold(query, |query, value| match value {
        Value::Null => query,
        Value::Text(text) => query.bind(text),
        Value::Integer(number) => query.bind(number),
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Boolean(yes) => query.bind(yes),
    })
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn recorded(row: &PgRow) -> Result<Recorded, sqlx::Error> {
    Ok(Recorded {
        position: row.try_get::<i64, _>(0)?.unsigned_abs(),
        aggregate_type: row.try_get(1)?,
        aggregate_id: row.try_get(2)?,
        sequence: row.try_get::<i64, _>(3)?.unsigned_abs(),
        event_type: row.try_get(4)?,
        event_version: row.try_get(5)?,
        payload: row.try_get(6)?,
        metadata: row.try_get(7)?,
        recorded_at: row.try_get(8)?,
    })
}

/// Over the bytes as they are stored; `None` when a column is null.
fn leaf_of(row: &PgRow, position: i64) -> Option<Leaf> {
    let text = |index| row.try_get::<&str, _>(index).map(str::as_bytes).ok();
    let texts = [text(1)?, text(2)?, text(4)?, text(5)?, text(6)?, text(7)?];
    Some(leaf(position, row.try_get(3).ok()?, row.try_get(8).ok()?, texts))
}

fn life(row: &PgRow, index: usize) -> Result<uuid::Uuid, sqlx::Error> {
    let text: String = row.try_get(index)?;
    text.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))
}

fn seal(row: &PgRow) -> Result<Seal, sqlx::Error> {
    Ok(Seal {
        block: row.try_get::<i64, _>(0)?.unsigned_abs(),
        first: row.try_get::<i64, _>(1)?.unsigned_abs(),
        last: row.try_get::<i64, _>(2)?.unsigned_abs(),
        leaves: row.try_get(3)?,
        hash: row.try_get(4)?,
        key_id: row.try_get(5)?,
        signature: row.try_get(6)?,
        sealed_at: row.try_get(7)?,
        incarnation: life(row, 8)?,
    })
}

pub(super) fn side_row(table: &'static Table, row: &PgRow) -> Result<Row, sqlx::Error> {
    let mut out = Row::with_capacity(table.columns.len());
    for (n, column) in table.columns.iter().enumerate() {
        let value = match column.kind {
            ColumnType::Text => row.try_get::<Option<String>, _>(n)?.map(Value::Text),
            ColumnType::Integer => row.try_get::<Option<i64>, _>(n)?.map(Value::Integer),
            ColumnType::Bytes => row.try_get::<Option<Vec<u8>>, _>(n)?.map(Value::Bytes),
            ColumnType::Boolean => row.try_get::<Option<bool>, _>(n)?.map(Value::Boolean),
        };
        out.push((column.name, value.unwrap_or(Value::Null)));
    }
    Ok(out)
}
