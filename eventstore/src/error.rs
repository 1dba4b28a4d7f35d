//! Why the store could not be opened, read or maintained; refusals of an append are `AppendError`.

use std::path::{Path, PathBuf};

use crate::append::Position;

/// What can go wrong outside an append.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another server holds the data directory.
    #[error("another process is using {}", dir.display())]
    Locked { dir: PathBuf },
    /// What needs the log alone found a server on the PostgreSQL database.
    #[error("a server runs on this database: stop every server of it first")]
    Served,
    /// A server found the PostgreSQL database in the hands of one that needs it alone.
    #[error(
        "`proximity audit restored` is at work on this database, and no server may run beside it: start \
         again when it has ended"
    )]
    Reserved,
    /// The schema was written by a newer version of this program.
    #[error(
        "the database is at schema version {found}, this program knows only {known}: it was written by a \
         newer version; start that one, or restore a backup from before the upgrade"
    )]
    NewerSchema { found: i64, known: i64 },
    /// Migrations are missing, and this role does not run them.
    #[error(
        "the database is at schema version {found}, this program needs {known}: run `proximity migrate`"
    )]
    OlderSchema { found: i64, known: i64 },
    /// A migration that was applied is not the one that this program carries.
    #[error("migration {version} was applied with another text")]
    MigrationChanged { version: i64 },
    /// A declared side table does not match the database.
    #[error("table {table} lacks column {column}")]
    Undeclared { table: &'static str, column: &'static str },
    /// A backup is restored into an empty database only.
    #[error("the target is not empty: {what}")]
    NotEmpty { what: String },
    /// The data directory, lock file or publish directory cannot be used.
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A write-ahead log is read only where SQLite can write beside it.
    #[error(
        "{} holds what is not in the file beside it yet, and can be read only where its directory can \
         be written: copy both files into one that can be",
        wal.display()
    )]
    UnmergedLog { wal: PathBuf },
    /// What was read as a file that nobody changes was changed: what was read of it says nothing.
    #[error(
        "{} was changed while it was read: a server has started meanwhile; run it again",
        path.display()
    )]
    ChangedMeanwhile { path: PathBuf },
    /// Heads that this server has published are gone, most likely with all others: nothing is written in
    /// their place until they are back, or somebody has signed that they are lost.
    #[error(
        "the heads directory is not what it was, {} is gone, or a part of what this server published \
         there: is it mounted? What is sealed meanwhile is published when it is back; if it is lost, see \"When heads are lost\" in OPERATING.md{}",
        path.display(),
        published_in(elsewhere.as_deref())
    )]
    HeadsGone { path: PathBuf, elsewhere: Option<PathBuf> },
    /// Stored data is not what this program writes.
    #[error("stored data is malformed: {what}")]
    Malformed { what: String },
    /// The sealed chain is not the one that was published: nobody extends it until it was looked into.
    #[error(
        "the sealed chain is not the one whose head was published (block {block}, position \
         {position}): run `proximity audit verify`"
    )]
    Forked { block: u64, position: Position },
    /// The sealed chain ends with a block that no server of ours made: nobody goes on behind it.
    #[error(
        "the sealed chain ends with what is no block of this log, at position {}: {}; nothing is sealed or \
         published behind it: run `proximity audit verify`",
        fault.position, fault.detail
    )]
    NotOurs { fault: Box<crate::verify::Fault> },
    /// What follows the sealed events cannot be sealed: positions are missing, or a row is damaged.
    #[error("the events after position {after} cannot be sealed: run `proximity audit verify`")]
    Unsealable { after: Position },
    /// The key that signs cannot be learnt, or was replaced and its successor is not here.
    #[error("no key may seal the log here: {reason}")]
    NoSealKey { reason: String },
    /// The log was given another life while this process had it open.
    #[error("life {incarnation} of the log has ended: start this process anew")]
    Ended { incarnation: uuid::Uuid },
    /// A restore is not signed for a log that is not what was sealed and published.
    #[error(
        "the log is not as it was sealed: {} at position {}: {} ({breaks} in all)",
        first.kind.as_str(), first.position, first.detail
    )]
    NotAsSealed { first: Box<crate::verify::Fault>, breaks: u64 },
    /// Sealing was switched on before, or the store was opened for reading only.
    #[error("sealing cannot be switched on")]
    Sealing,
    /// The database refuses or cannot be reached.
    #[error("the database failed")]
    Postgres(#[from] sqlx::Error),
    /// SQLite refuses; a full or read-only disk, usually.
    #[error("the embedded database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// The stock repositories failed to load a stream.
    #[error("loading a stream failed")]
    Load(#[from] cqrs_es::persist::PersistenceError),
    /// A write outside an append did not get through; the reason says whether a retry helps.
    #[error("a write was not accepted")]
    Refused(#[from] crate::AppendError),
    /// The store was opened for reading only.
    #[error("the store was opened for reading only")]
    ReadOnly,
    /// The store is shutting down.
    #[error("the event store is closed")]
    Closed,
}

/// Where heads are that are missed in another place.
fn published_in(elsewhere: Option<&Path>) -> String {
    let said = |dir: &Path| {
        format!(
            ". This server has heads in {}, where commands put them that do not know the directory: copy \
             all that is there into it",
            dir.display()
        )
    };
    elsewhere.map(said).unwrap_or_default()
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }
}
