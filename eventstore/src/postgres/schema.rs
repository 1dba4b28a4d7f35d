//! Migrations, in the owner's role, and the checks that the serving role makes at start.

use sqlx::{Connection as _, PgConnection, PgPool, Row as _};

use super::connect_options;
use crate::error::Error;
use crate::migrations::{self, POSTGRES};
use crate::side::Table;

const CREATE: &str = "create table if not exists schema_migrations (
  version    bigint      not null primary key,
  name       text        not null,
  checksum   text        not null,
  applied_at timestamptz not null default now()
)";
/// Held while migrating, so that two migrations do not mix.
const LOCK: &str = "select pg_advisory_lock(5788045172043126)";

/// Applies what is missing, each in its own transaction; returns the versions applied.
pub(crate) async fn migrate(url: &str) -> Result<Vec<i64>, Error> {
    let mut connection = PgConnection::connect_with(&connect_options(url)?).await?;
    sqlx::query(LOCK).execute(&mut connection).await?;
    sqlx::query(CREATE).execute(&mut connection).await?;
    let rows = sqlx::query("select version, checksum from schema_migrations")
        .fetch_all(&mut connection)
        .await?;
    let mut versions = Vec::new();
    for migration in migrations::missing(POSTGRES, &applied(&rows)?)? {
        // Name and checksum are our own constants; a failure leaves the transaction to be rolled
        // back with its connection.
        let sql = format!(
            "begin;\n{}\n;insert into schema_migrations (version, name, checksum) \
             values ({}, '{}', '{}');\ncommit",
            migration.sql,
            migration.version,
            migration.name,
            migration.checksum()
        );
        sqlx::raw_sql(&sql).execute(&mut connection).await?;
        versions.push(migration.version);
    }
    connection.close().await?;
    Ok(versions)
}

/// Refuses a schema that is not exactly the one this program carries.
pub(super) async fn check(pool: &PgPool) -> Result<(), Error> {
    let exists: bool = sqlx::query("select to_regclass('schema_migrations') is not null")
        .fetch_one(pool)
        .await?
        .try_get(0)?;
    let rows = if exists {
        sqlx::query("select version, checksum from schema_migrations").fetch_all(pool).await?
    } else {
        Vec::new()
    };
    let applied = applied(&rows)?;
    if migrations::missing(POSTGRES, &applied)?.is_empty() {
        return Ok(());
    }
    let found = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    Err(Error::OlderSchema { found, known: migrations::newest(POSTGRES) })
}

fn applied(rows: &[sqlx::postgres::PgRow]) -> Result<Vec<(i64, String)>, sqlx::Error> {
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Every declared column must exist, and this role must have rights on it.
pub(super) async fn check_tables(pool: &PgPool, tables: &[&'static Table]) -> Result<(), Error> {
    let rows = sqlx::query(
        "select table_name::text, column_name::text from information_schema.columns \
         where table_schema = current_schema()",
    )
    .fetch_all(pool)
    .await?;
    let found: std::collections::HashSet<(String, String)> = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, sqlx::Error>>()?;
    for table in tables {
        for column in table.columns {
            if !found.contains(&(table.name.to_owned(), column.name.to_owned())) {
                return Err(Error::Undeclared { table: table.name, column: column.name });
            }
        }
    }
    Ok(())
}

pub(super) async fn incarnation(pool: &PgPool) -> Result<uuid::Uuid, Error> {
    let text: String = sqlx::query("select value from meta where key = 'incarnation'")
        .fetch_one(pool)
        .await?
        .try_get(0)?;
    text.parse().map_err(|_| Error::malformed("the incarnation"))
}
