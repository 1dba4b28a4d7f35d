//! The two databases that rows live in, behind one door: statements with cells in and cells out.

mod copy;
mod damage;
mod marks;
mod postgres;
mod sqlite;
mod worker;

use std::path::PathBuf;

use async_trait::async_trait;

use crate::cell::{Cell, Kind, Table};
use crate::error::Error;

pub(crate) use damage::{discard, is_damage};
pub use damage::{discard_damaged, sqlite_file};
pub(crate) use marks::{Mark, Move, Slot, WHOLE_AT, position};
pub(crate) use postgres::Postgres;
pub(crate) use sqlite::Sqlite;

/// Where the rows are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// `views.db` in this directory; may be deleted while no server runs.
    Sqlite { dir: PathBuf },
    /// Schema `views` of the log's own database.
    Postgres {
        url: String,
        /// Connections of this process for reading and projecting, at least 2.
        connections: u32,
    },
}

/// Leaves out the URL, which may carry a password.
impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite { dir } => f.debug_struct("Sqlite").field("dir", dir).finish(),
            Self::Postgres { connections, .. } => {
                f.debug_struct("Postgres").field("connections", connections).finish_non_exhaustive()
            }
        }
    }
}

/// What differs in the texts of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Keys and filters compare byte by byte on both, so that ranges and orders agree.
    fn column_type(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Sqlite, Kind::Text) => "text",
            (Self::Sqlite, Kind::Integer) => "integer",
            (Self::Postgres, Kind::Text) => "text collate \"C\"",
            (Self::Postgres, Kind::Integer) => "bigint",
        }
    }

    /// Counts the tables of the name that is the statement's parameter.
    fn table_count(self) -> &'static str {
        match self {
            Self::Sqlite => "select count(*) from sqlite_schema where type = 'table' and name = $1",
            Self::Postgres => {
                "select count(*) from pg_tables \
                               where schemaname = current_schema() and tablename = $1"
            }
        }
    }

    /// SQLite's write transaction has locked everything already.
    fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " for update",
        }
    }
}

/// Rows of cells.
pub(crate) type Rows = Vec<Vec<Cell>>;

/// A database.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// One reading statement; parameters are written `$1`, `$2`, ….
    async fn select(&self, sql: &str, cells: Vec<Cell>, kinds: &[Kind]) -> Result<Rows, Error>;
    /// Key and body of those of these rows that exist, as committed.
    async fn load(&self, physical: &str, keys: Vec<String>)
    -> Result<Vec<(String, String)>, Error>;
    /// A transaction that writes; ends in a rollback unless committed.
    async fn begin(&self) -> Result<Box<dyn Session>, Error>;
    /// A transaction that reads one state of everything.
    async fn snapshot(&self) -> Result<Box<dyn Session>, Error>;
    /// Whether rows were found that the database itself says are damaged.
    fn is_damaged(&self) -> bool {
        false
    }
    /// Closes all connections.
    async fn close(&self);
}

/// An open transaction.
#[async_trait]
pub(crate) trait Session: Send {
    fn dialect(&self) -> Dialect;
    /// Keeps others from creating the same tables at the same time.
    async fn lock_schema(&mut self) -> Result<(), Error>;
    /// Microseconds since 1970 by the database's clock.
    async fn now(&mut self) -> Result<i64, Error>;
    /// One statement that gives no rows; answers how many it touched.
    async fn execute(&mut self, sql: &str, cells: Vec<Cell>) -> Result<u64, Error>;
    async fn select(&mut self, sql: &str, cells: Vec<Cell>, kinds: &[Kind]) -> Result<Rows, Error>;
    /// Inserts rows of all columns, of keys that are not there.
    async fn insert(&mut self, table: &Table, physical: &str, rows: Rows) -> Result<(), Error>;
    /// Inserts rows of all columns; they replace those whose key is there.
    async fn replace(&mut self, table: &Table, physical: &str, rows: Rows) -> Result<(), Error>;
    /// Deletes by text keys.
    async fn delete(&mut self, physical: &str, keys: Vec<String>) -> Result<(), Error>;
    /// Key and body of those of these rows that exist.
    async fn load(
        &mut self,
        physical: &str,
        keys: Vec<String>,
    ) -> Result<Vec<(String, String)>, Error>;
    async fn commit(self: Box<Self>) -> Result<(), Error>;
    async fn rollback(self: Box<Self>) -> Result<(), Error>;
}
