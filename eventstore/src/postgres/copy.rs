//! A backup of a PostgreSQL log, read in one snapshot, and an empty one filled from a backup.

use futures_util::TryStreamExt as _;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use super::connect_options;
use super::read::{Reader, recorded, side_row};
use crate::append::Recorded;
use crate::backup::{
    BackupReader, Beginning, Digests, FORMAT, Header, Item, Sections, Sink, TABLES, must_equal,
};
use crate::error::Error;
use crate::side::{Row, Table};
use crate::side_sql::object;

const NOW: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint, \
    (select coalesce(max(position), 0) from events)";
const EVENTS: &str = "select position, aggregate_type, aggregate_id, sequence, event_type, \
    event_version, payload::text, metadata::text, recorded_at from events order by position";
const INSERT_EVENTS: &str = "insert into events (position, aggregate_type, aggregate_id, sequence, \
    event_type, event_version, payload, metadata, recorded_at) \
    select p, t, i, s, e, v, payload::json, metadata::json, r \
    from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], \
    $7::text[], $8::text[], $9::bigint[]) as u(p, t, i, s, e, v, payload, metadata, r)";
const BEGIN_LIFE: &str = "insert into events (position, aggregate_type, aggregate_id, sequence, \
    event_type, event_version, payload, metadata, recorded_at) \
    select (select coalesce(max(position), 0) + 1 from events), $1, $2, \
    (select coalesce(max(sequence), 0) + 1 from events \
     where aggregate_type = $1 and aggregate_id = $2), $3, $4, $5::json, $6::json, \
    (extract(epoch from clock_timestamp()) * 1000000)::bigint";
/// Rows written in one statement.
const AT_ONCE: usize = 1_000;

impl Reader {
    /// Hands everything to `sink`, as one snapshot saw it; nobody waits for that.
    pub async fn export<S: Sink>(&self, incarnation: Uuid, mut sink: S) -> Result<S, Error> {
        // Not the pool's any more: given up half-way, its transaction must not be the next reader's.
        let mut connection = self.pool().acquire().await?.detach();
        let mut tx = connection.begin().await?;
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *tx)
            .await?;
        let row = sqlx::query(NOW).fetch_one(&mut *tx).await?;
        sink.begin(&Header {
            format: FORMAT.to_owned(),
            incarnation,
            position: row.try_get::<i64, _>(1)?.unsigned_abs(),
            taken_at: row.try_get(0)?,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        })?;
        everything(&mut tx, |item| sink.item(&item)).await?;
        tx.rollback().await?;
        Ok(sink)
    }
}

async fn everything(
    connection: &mut PgConnection,
    mut take: impl FnMut(Item) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut events = sqlx::query(EVENTS).fetch(&mut *connection);
    while let Some(row) = events.try_next().await? {
        take(Item::Event(recorded(&row)?))?;
    }
    drop(events);
    for table in TABLES {
        let sql = select(table);
        let mut rows = sqlx::query(&sql).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            take(Item::Row(table, side_row(table, &row)?))?;
        }
    }
    Ok(())
}

/// Keys are ordered by their bytes, as SQLite does; ids of appends are bytes everywhere.
fn select(table: &Table) -> String {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| match column.name {
            "append_id" => "uuid_send(append_id)".to_owned(),
            name => format!("\"{name}\""),
        })
        .collect();
    let key: Vec<String> = table
        .key
        .iter()
        .map(|name| {
            let kind = table.columns.iter().find(|c| c.name == *name).map(|c| c.kind);
            let collate = kind == Some(crate::side::ColumnType::Text);
            format!("\"{name}\"{}", if collate { " collate \"C\"" } else { "" })
        })
        .collect();
    format!("select {} from \"{}\" order by {}", columns.join(", "), table.name, key.join(", "))
}

/// Fills an empty database in one transaction; it was migrated before.
pub(crate) async fn import(
    url: &str,
    mut reader: BackupReader,
    beginning: &Beginning,
) -> Result<Digests, Error> {
    let mut connection = PgConnection::connect_with(&connect_options(url)?).await?;
    let mut tx = connection.begin().await?;
    // The log's lock: nobody appends meanwhile.
    sqlx::query("select pg_advisory_xact_lock(5788045172043125)").execute(&mut *tx).await?;
    for name in TABLES.iter().map(|table| table.name).chain(["events"]) {
        let sql = format!("select count(*) from \"{name}\"");
        let rows: i64 = sqlx::query(&sql).fetch_one(&mut *tx).await?.try_get(0)?;
        if rows > 0 {
            return Err(Error::NotEmpty { what: format!("{name} has {rows} rows") });
        }
    }
    let mut held = Held::default();
    while let Some(item) = reader.next_item()? {
        held.take(item, &mut tx).await?;
    }
    held.write(&mut tx).await?;
    let mut sections = Sections::default();
    everything(&mut tx, |item| sections.take(&item).map(drop)).await?;
    let found = sections.finish();
    let trailer = reader.trailer().ok_or(Error::Closed)?;
    must_equal(&trailer.sections, &found)?;
    sqlx::query("update meta set value = $1 where key = 'incarnation'")
        .bind(beginning.incarnation.to_string())
        .execute(&mut *tx)
        .await?;
    sqlx::query(BEGIN_LIFE)
        .bind(&beginning.aggregate_type)
        .bind(&beginning.aggregate_id)
        .bind(&beginning.event_type)
        .bind(&beginning.event_version)
        .bind(&beginning.payload)
        .bind(&beginning.metadata)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    connection.close().await?;
    Ok(found)
}

/// Items that wait to be written together.
#[derive(Default)]
struct Held {
    events: Vec<Recorded>,
    rows: Vec<Row>,
    table: Option<&'static Table>,
}

impl Held {
    async fn take(&mut self, item: Item, connection: &mut PgConnection) -> Result<(), Error> {
        match item {
            Item::Event(event) => self.events.push(event),
            Item::Row(table, row) => {
                if self.table.is_some_and(|held| held.name != table.name) {
                    self.write(connection).await?;
                }
                self.table = Some(table);
                self.rows.push(row);
            }
        }
        if self.events.len() + self.rows.len() >= AT_ONCE {
            self.write(connection).await?;
        }
        Ok(())
    }

    async fn write(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        let events = std::mem::take(&mut self.events);
        if !events.is_empty() {
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let text =
                |of: fn(&Recorded) -> &String| -> Vec<&String> { events.iter().map(of).collect() };
            let positions: Vec<i64> = events.iter().map(|event| number(event.position)).collect();
            let sequences: Vec<i64> = events.iter().map(|event| number(event.sequence)).collect();
            let times: Vec<i64> = events.iter().map(|event| event.recorded_at).collect();
            sqlx::query(INSERT_EVENTS)
                .bind(positions)
                .bind(text(|event| &event.aggregate_type))
                .bind(text(|event| &event.aggregate_id))
                .bind(sequences)
                .bind(text(|event| &event.event_type))
                .bind(text(|event| &event.event_version))
                .bind(text(|event| &event.payload))
                .bind(text(|event| &event.metadata))
                .bind(times)
                .execute(&mut *connection)
                .await?;
        }
        let rows = std::mem::take(&mut self.rows);
        let Some(table) = self.table.filter(|_| !rows.is_empty()) else { return Ok(()) };
        let columns: Vec<String> =
            table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let columns = columns.join(", ");
        let sql = format!(
            "insert into \"{0}\" ({columns}) select {columns} \
             from jsonb_populate_recordset(null::\"{0}\", $1)",
            table.name
        );
        let rows: Vec<serde_json::Value> = rows.iter().map(json).collect();
        sqlx::query(&sql).bind(Json(rows)).execute(connection).await?;
        Ok(())
    }
}

/// A row as PostgreSQL reads it from JSON; ids of appends are UUIDs there.
fn json(row: &Row) -> serde_json::Value {
    let mut json = object(row);
    if let Some(serde_json::Value::String(id)) = json.get_mut("append_id")
        && let Some(digits) = id.strip_prefix("\\x")
    {
        *id = digits.to_owned();
    }
    json
}
