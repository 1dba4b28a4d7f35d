//! A backup: everything that the log's database holds, in one file, the same for both stores.
//!
//! The file is a gzip stream of lines, each a JSON value: a [`Header`], the events in their order, the
//! rows of each table in the order of their keys, and a [`Trailer`] with a SHA-256 of each of these
//! sections and of all lines before it. Read models are not in it (they follow from the events), nor
//! logins and claims (they end with the server they were made on), nor any master key.

mod draft;
mod file;
mod line;
mod sections;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::append::{Position, Recorded};
use crate::error::Error;
use crate::options::Location;
use crate::side::ColumnType::{Bytes, Integer, Text};
use crate::side::{Column, Row, Table};
use crate::store::Store;
use crate::{postgres, sqlite, tables};

pub use file::{BackupFile, BackupReader};
pub use sections::{Digests, Section};

pub(crate) use sections::Sections;

/// What the format is called in the first line.
pub(crate) const FORMAT: &str = "proximity-backup-1";

/// The first line: what was backed up, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub format: String,
    /// The life of the log that it was taken from.
    pub incarnation: Uuid,
    /// Position of the last event in it.
    pub position: Position,
    /// Microseconds since 1970, the database host's clock.
    pub taken_at: i64,
    /// Version of the program that wrote it.
    pub program: String,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    pub sections: Digests,
    /// What a replay of the events came to, by read model, as its maker says.
    pub state: Digests,
    /// Lines before this one.
    pub lines: u64,
    /// SHA-256 of the lines before this one, in hexadecimal digits.
    pub sha256: String,
}

/// One thing in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Event(Recorded),
    Row(&'static Table, Row),
}

/// Takes what an export reads.
pub trait Sink: Send + 'static {
    fn begin(&mut self, header: &Header) -> Result<(), Error>;
    fn item(&mut self, item: &Item) -> Result<(), Error>;
}

/// How a restored log's new life begins: an event, stored with the new incarnation.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub incarnation: Uuid,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub event_type: String,
    pub event_version: String,
    pub payload: String,
    pub metadata: String,
}

/// Accepted appends, so that a request that is repeated across a restoration has one effect.
static APPENDS: Table = Table {
    name: "appends",
    key: &["append_id"],
    columns: &[
        column("append_id", Bytes),
        column("actor", Text),
        column("idempotency_key", Text),
        column("fingerprint", Text),
        column("answer", Text),
        column("first_position", Integer),
        column("last_position", Integer),
        column("recorded_at", Integer),
    ],
};

/// The sealed chain as it was.
static SEALS: Table = Table {
    name: "seals",
    key: &["block"],
    columns: &[
        column("block", Integer),
        column("first_position", Integer),
        column("last_position", Integer),
        column("leaves", Bytes),
        column("hash", Bytes),
        column("key_id", Text),
        column("signature", Bytes),
        column("sealed_at", Integer),
        column("incarnation", Text),
    ],
};

const fn column(name: &'static str, kind: crate::side::ColumnType) -> Column {
    Column { name, kind }
}

/// What is backed up beside the events; a table comes after those that it refers to.
pub(crate) static TABLES: &[&Table] = &[
    &APPENDS,
    &SEALS,
    &tables::INSTALLATION,
    &tables::KEY_SENTINEL,
    &tables::SECRETS,
    &tables::USERS,
    &tables::OWNERSHIP,
    &tables::HOST_CONNECTIONS,
    &tables::HOST_USAGE,
    &tables::API_TOKENS,
    &tables::KEPT_ANSWERS,
    &tables::REFUSED_TRIES,
    &tables::TASK_LOGS,
];

/// What is not: logins, counters and claims end with the server; a key under way is not at rest.
#[cfg(test)]
static LEFT_OUT: &[&str] = &[
    "sessions",
    "spent_refresh",
    "setup_tokens",
    "login_attempts",
    "key_transit",
    "session_users",
    "api_token_users",
];

/// Refuses a database that holds something; its schema is brought up to date.
pub async fn must_be_empty(location: &Location) -> Result<(), Error> {
    let options = crate::Options::new(location.clone());
    Store::migrate(options.clone()).await?;
    let store = Store::open_read_only(options).await?;
    let mut found = None;
    for table in TABLES {
        match store.count(table, Row::new()).await? {
            0 => {}
            rows => found = Some(format!("{} has {rows} rows", table.name)),
        }
    }
    match store.head().await? {
        0 => {}
        head => found = Some(format!("events has {head} rows")),
    }
    store.close().await;
    found.map_or(Ok(()), |what| Err(Error::NotEmpty { what }))
}

/// Puts a backup into an empty database, all of it or nothing, and begins a new life of the log.
///
/// What was written is read again before it is committed, and has to be what the file says.
pub async fn restore(
    location: &Location,
    file: &Path,
    beginning: Beginning,
) -> Result<Digests, Error> {
    Store::migrate(crate::Options::new(location.clone())).await?;
    let reader = BackupReader::open(file)?;
    match location {
        Location::Sqlite { dir } => {
            let dir = dir.clone();
            crate::task::blocking(move || sqlite::import(&dir, reader, &beginning)).await
        }
        Location::Postgres { url } => postgres::import(url, reader, &beginning).await,
    }
}

/// Refuses what was read again when it is not what was to be written.
pub(crate) fn must_equal(file: &Digests, found: &Digests) -> Result<(), Error> {
    let names: std::collections::BTreeSet<&String> = file.0.keys().chain(found.0.keys()).collect();
    let none = Section::default();
    for name in names {
        let (wanted, got) = (file.0.get(name).unwrap_or(&none), found.0.get(name).unwrap_or(&none));
        if wanted != got && (wanted.rows, got.rows) != (0, 0) {
            return Err(Error::malformed(format!(
                "{name} has {} rows with digest {} where the backup has {} with {}",
                got.rows, got.sha256, wanted.rows, wanted.sha256
            )));
        }
    }
    Ok(())
}

/// A table that is part of backups, by its name.
pub(crate) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().copied().find(|table| table.name == name)
}

/// Names to digests, ordered.
pub(crate) type ByName = BTreeMap<String, Section>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_table_is_backed_up_or_left_out_for_a_reason() {
        for side in tables::ALL {
            let left_out = LEFT_OUT.contains(&side.name);
            assert!(table(side.name).is_some() != left_out, "{} is neither or both", side.name);
        }
    }
}
