//! Migrations and start-up checks of `events.db`.

use std::collections::HashMap;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::Error;
use crate::migrations::{self, SQLITE};
use crate::side::Table;

const CREATE: &str = "create table if not exists schema_migrations (
  version    integer primary key,
  name       text    not null,
  checksum   text    not null,
  applied_at integer not null default (unixepoch())
) strict";

/// Applies what is missing, each in its own transaction; returns the versions applied.
pub(super) fn migrate(connection: &mut Connection) -> Result<Vec<i64>, Error> {
    connection.execute_batch(CREATE)?;
    let missing = migrations::missing(SQLITE, &applied(connection)?)?;
    let mut versions = Vec::new();
    for migration in missing {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(migration.sql)?;
        tx.execute(
            "insert into schema_migrations (version, name, checksum) values (?1, ?2, ?3)",
            (migration.version, migration.name, migration.checksum()),
        )?;
        tx.commit()?;
        versions.push(migration.version);
    }
    Ok(versions)
}

/// Refuses a schema that is not exactly the one this program carries.
pub(super) fn check(connection: &Connection) -> Result<(), Error> {
    let applied = applied(connection)?;
    if migrations::missing(SQLITE, &applied)?.is_empty() {
        return Ok(());
    }
    let found = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    Err(Error::OlderSchema { found, known: migrations::newest(SQLITE) })
}

fn applied(connection: &Connection) -> Result<Vec<(i64, String)>, Error> {
    let mut statement = connection.prepare("select version, checksum from schema_migrations")?;
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Every declared column must exist.
pub(super) fn check_tables(
    connection: &Connection,
    tables: &[&'static Table],
) -> Result<(), Error> {
    let mut statement = connection.prepare("select name from pragma_table_info(?1)")?;
    for table in tables {
        let found: Vec<String> =
            statement.query_map([table.name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        if let Some(column) = table.columns.iter().find(|c| !found.iter().any(|f| f == c.name)) {
            return Err(Error::Undeclared { table: table.name, column: column.name });
        }
    }
    Ok(())
}

pub(super) fn incarnation(connection: &Connection) -> Result<uuid::Uuid, Error> {
    let text: String =
        connection
            .query_row("select value from meta where key = 'incarnation'", (), |row| row.get(0))?;
    text.parse().map_err(|_| Error::malformed("the incarnation"))
}

/// SQLite names the columns of a violated unique index, not the index: this maps
/// `users.username` (or `ownership.kind, ownership.id`) to the constraint's name.
pub(super) fn unique_names(connection: &Connection) -> Result<HashMap<String, String>, Error> {
    let mut statement = connection.prepare(
        "select t.name, i.name, i.origin, c.name
         from sqlite_schema t
         join pragma_index_list(t.name) i
         join pragma_index_info(i.name) c
         where t.type = 'table' and i.\"unique\" = 1
         order by t.name, i.name, c.seqno",
    )?;
    let rows = statement.query_map((), |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, String>(3)?,
        ))
    })?;
    let mut columns: HashMap<(String, String), String> = HashMap::new();
    for row in rows {
        let (table, index, origin, column) = row?;
        let name = if origin == "pk" { format!("{table}_pkey") } else { index };
        let list = columns.entry((table.clone(), name)).or_default();
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(&format!("{table}.{column}"));
    }
    Ok(columns.into_iter().map(|((_, name), columns)| (columns, name)).collect())
}
