//! A backup of `events.db`, read in one read transaction, and an empty one filled from a backup.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use uuid::Uuid;

use super::batch::now_micros;
use super::read::{COLUMNS, Readers, recorded, side_row};
use super::{FILE, Lock, open_writable, schema};
use crate::backup::{
    BackupReader, Beginning, Digests, FORMAT, Header, Item, Sections, Sink, TABLES, must_equal,
};
use crate::error::Error;
use crate::side::Table;

impl Readers {
    /// Hands everything to `sink`. In WAL mode writers go on meanwhile.
    pub async fn export<S: Sink>(&self, incarnation: Uuid, mut sink: S) -> Result<S, Error> {
        self.read(move |connection| {
            connection.execute_batch("begin")?;
            let read = (|| {
                let head = "select coalesce(max(position), 0) from events";
                let position = connection.query_row(head, (), |row| row.get(0))?;
                sink.begin(&Header {
                    format: FORMAT.to_owned(),
                    incarnation,
                    position,
                    taken_at: now_micros(),
                    program: env!("CARGO_PKG_VERSION").to_owned(),
                })?;
                everything(connection, |item| sink.item(&item))
            })();
            connection.execute_batch("rollback")?;
            read.map(|()| sink)
        })
        .await
    }
}

fn everything(
    connection: &Connection,
    mut take: impl FnMut(Item) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut events =
        connection.prepare(&format!("select {COLUMNS} from events order by position"))?;
    let mut rows = events.query(())?;
    while let Some(row) = rows.next()? {
        take(Item::Event(recorded(row)?))?;
    }
    for table in TABLES {
        let mut statement = connection.prepare(&select(table))?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            take(Item::Row(table, side_row(table, row)?))?;
        }
    }
    Ok(())
}

fn select(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|c| format!("\"{}\"", c.name)).collect();
    let key: Vec<String> = table.key.iter().map(|name| format!("\"{name}\"")).collect();
    format!("select {} from \"{}\" order by {}", columns.join(", "), table.name, key.join(", "))
}

/// Fills an empty database in one transaction; it was migrated before.
pub(crate) fn import(
    dir: &Path,
    mut reader: BackupReader,
    beginning: &Beginning,
) -> Result<Digests, Error> {
    let _lock = Lock::take(dir)?;
    let mut connection = open_writable(&dir.join(FILE))?;
    schema::check(&connection)?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for name in TABLES.iter().map(|table| table.name).chain(["events"]) {
        let sql = format!("select count(*) from \"{name}\"");
        let rows: u64 = tx.query_row(&sql, (), |row| row.get(0))?;
        if rows > 0 {
            return Err(Error::NotEmpty { what: format!("{name} has {rows} rows") });
        }
    }
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event(event) => {
                let sql = format!(
                    "insert into events ({COLUMNS}) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
                );
                tx.prepare_cached(&sql)?.execute((
                    event.position,
                    event.aggregate_type,
                    event.aggregate_id,
                    event.sequence,
                    event.event_type,
                    event.event_version,
                    event.payload,
                    event.metadata,
                    event.recorded_at,
                ))?;
            }
            Item::Row(table, row) => {
                let columns: Vec<String> =
                    row.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                let places: Vec<String> = (1..=row.len()).map(|n| format!("?{n}")).collect();
                let sql = format!(
                    "insert into \"{}\" ({}) values ({})",
                    table.name,
                    columns.join(", "),
                    places.join(", ")
                );
                let values = rusqlite::params_from_iter(row.iter().map(|(_, value)| value));
                tx.prepare_cached(&sql)?.execute(values)?;
            }
        }
    }
    let mut sections = Sections::default();
    everything(&tx, |item| sections.take(&item).map(drop))?;
    let found = sections.finish();
    let trailer = reader.trailer().ok_or(Error::Closed)?;
    must_equal(&trailer.sections, &found)?;
    tx.execute(
        "update meta set value = ?1 where key = 'incarnation'",
        [beginning.incarnation.to_string()],
    )?;
    tx.execute(
        &format!(
            "insert into events ({COLUMNS}) values (
               (select coalesce(max(position), 0) + 1 from events), ?1, ?2,
               (select coalesce(max(sequence), 0) + 1 from events
                where aggregate_type = ?1 and aggregate_id = ?2), ?3, ?4, ?5, ?6, ?7)"
        ),
        (
            &beginning.aggregate_type,
            &beginning.aggregate_id,
            &beginning.event_type,
            &beginning.event_version,
            &beginning.payload,
            &beginning.metadata,
            now_micros(),
        ),
    )?;
    tx.commit()?;
    Ok(found)
}
