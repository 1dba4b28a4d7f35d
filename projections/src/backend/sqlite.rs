//! Rows in SQLite: `views.db` beside the log, one writing connection, a few reading ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use proximity_eventstore::{Error as StoreError, Still, open_sqlite_for_reading};
use rusqlite::types::{ToSql, ToSqlOutput};
use rusqlite::{Connection, params_from_iter};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::worker::{Connected, Workers};
use super::{Backend, Dialect, Rows, Session, damage};
use crate::cell::{Cell, Kind, Table};
use crate::error::Error;

/// Reading connections; a list is quick, so a few serve many callers.
const READERS: usize = 3;
/// Rows written since the last checkpoint after which one is made beside the writing.
const CHECKPOINT_ROWS: usize = 10_000;
/// What a commit counts as at least: it writes whole pages of a table and its indexes, however few rows.
const COMMIT_ROWS: usize = 100;
/// Bytes of a page of a new file: rows of a kilobyte or two fill it better than SQLite's own 4 KiB, and
/// a rebuild writes them in three quarters of the time. A file that is there keeps what it has.
const PAGE_SIZE: u32 = 16 << 10;
/// Pages of the write-ahead log after which the writer makes one itself, and waits for it; 256 MiB.
const MOST_PAGES: u32 = (256 << 20) / PAGE_SIZE;
/// KiB of pages that a connection keeps.
const CACHE_KIB: i32 = 16 << 10;
/// What is left of the write-ahead log's file after a checkpoint.
const WAL_BYTES: u32 = 16 << 20;
/// Keys looked up in one statement.
const LOOKUP: usize = 500;

/// Opens a connection to the file.
type Connect = fn(&Path) -> Result<Connected, Error>;

pub(crate) struct Sqlite {
    path: PathBuf,
    connect: Connect,
    /// Set when it is read as a file that nobody changes: what it was before the first look at it.
    still: Option<Arc<Still>>,
    readers: Workers,
    writer: Arc<Mutex<Workers>>,
    checkpoints: Arc<Checkpoints>,
}

/// Brings the write-ahead log into the database while others write: each checkpoint is flushed to the
/// disk, and a writer that made it in its commit would wait for that.
struct Checkpoints {
    workers: Workers,
    /// Written since the last one was asked for.
    rows: AtomicUsize,
    /// One is asked for and not made yet.
    is_due: Arc<AtomicBool>,
}

impl Checkpoints {
    fn committed(&self, rows: usize) {
        let since = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        if since < CHECKPOINT_ROWS || self.is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        self.rows.store(0, Ordering::Relaxed);
        let is_due = Arc::clone(&self.is_due);
        let sent = self.workers.send(move |connection| {
            let made = connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()));
            is_due.store(false, Ordering::Release);
            if let Err(error) = made {
                // The writer makes one itself before the log is too long.
                tracing::debug!(%error, "no checkpoint of views.db");
            }
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "no checkpoint of a closed views.db");
        }
    }
}

impl Sqlite {
    /// Opens or creates `views.db`; one that is damaged is replaced if the caller `mends`, since the log
    /// has it all.
    pub fn open(dir: &Path, mends: bool) -> Result<Self, Error> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(damage::NAME);
        proximity_eventstore::make_private(&path)?;
        let writer = match connect(&path) {
            Err(error) if mends && damage::is_damage(&error) => {
                damage::discard(dir, &error)?;
                proximity_eventstore::make_private(&path)?;
                connect(&path)
            }
            other => other,
        }?;
        Self::around(path, writer.into(), |path| Ok(connect(path)?.into()))
    }

    /// Opens `views.db` if it is there; whoever tries to write fails.
    pub fn open_read_only(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(damage::NAME);
        if !path.try_exists()? {
            return Ok(None);
        }
        let writer = connect_read_only(&path)?;
        Self::around(path, writer, connect_read_only).map(Some)
    }

    fn around(path: PathBuf, writer: Connected, connect: Connect) -> Result<Self, Error> {
        let readers = (0..READERS).map(|_| connect(&path)).collect::<Result<_, _>>()?;
        let still = writer.still.clone();
        let checkpoints = Checkpoints {
            workers: Workers::start("views-checkpoint", vec![connect(&path)?])?,
            rows: AtomicUsize::new(0),
            is_due: Arc::default(),
        };
        Ok(Self {
            path,
            connect,
            still,
            readers: Workers::start("views-read", readers)?,
            writer: Arc::new(Mutex::new(Workers::start("views-write", vec![writer])?)),
            checkpoints: Arc::new(checkpoints),
        })
    }
}

fn connect_read_only(path: &Path) -> Result<Connected, Error> {
    let (connection, still) = open_sqlite_for_reading(path).map_err(|error| match error {
        StoreError::Sqlite(error) => Error::Sqlite(error),
        other => Error::File(other),
    })?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(Connected { connection, still: still.map(Arc::new) })
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // Consistent after a power cut; a lost tail is projected again.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", MOST_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    connection.set_prepared_statement_cache_capacity(128);
    // The first read of the file shows whether it is a database at all, and its smallest table whether
    // that can be used.
    let sql = "select count(*) from sqlite_schema where type = 'table' and name = 'checkpoints'";
    if connection.query_row(sql, [], |row| row.get(0))? {
        connection.query_row("select count(*) from checkpoints", [], |_| Ok(()))?;
    }
    Ok(connection)
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Null => Ok(ToSqlOutput::Owned(rusqlite::types::Value::Null)),
            Self::Text(text) => text.to_sql(),
            Self::Integer(number) => number.to_sql(),
        }
    }
}

/// SQLite numbers parameters with `?`; our texts hold no other `$`.
fn numbered(sql: &str) -> String {
    sql.replace('$', "?")
}

fn query(
    connection: &Connection,
    sql: &str,
    cells: &[Cell],
    kinds: &[Kind],
) -> Result<Rows, Error> {
    let mut statement = connection.prepare_cached(&numbered(sql))?;
    let rows = statement.query_map(params_from_iter(cells), |row| {
        kinds
            .iter()
            .enumerate()
            .map(|(index, kind)| {
                Ok(match kind {
                    Kind::Text => row.get::<_, Option<String>>(index)?.into(),
                    Kind::Integer => row.get::<_, Option<i64>>(index)?.into(),
                })
            })
            .collect::<rusqlite::Result<Vec<Cell>>>()
    })?;
    Ok(rows.collect::<rusqlite::Result<Rows>>()?)
}

fn load(
    connection: &Connection,
    physical: &str,
    keys: &[String],
) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for keys in keys.chunks(LOOKUP) {
        let marks = vec!["?"; keys.len()].join(", ");
        let sql = format!("select id, body from {physical} where id in ({marks})");
        let mut statement = connection.prepare(&sql)?;
        let rows =
            statement.query_map(params_from_iter(keys), |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            found.push(row?);
        }
    }
    Ok(found)
}

#[async_trait]
impl Backend for Sqlite {
    async fn select(&self, sql: &str, cells: Vec<Cell>, kinds: &[Kind]) -> Result<Rows, Error> {
        let (sql, kinds) = (sql.to_owned(), kinds.to_owned());
        self.readers.run(move |connection| query(connection, &sql, &cells, &kinds)).await
    }

    async fn load(
        &self,
        physical: &str,
        keys: Vec<String>,
    ) -> Result<Vec<(String, String)>, Error> {
        let physical = physical.to_owned();
        self.readers.run(move |connection| load(connection, &physical, &keys)).await
    }

    async fn begin(&self) -> Result<Box<dyn Session>, Error> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        // Made first: a caller that goes away while it begins leaves a rollback behind.
        let owner = Owner::Shared(writer, Arc::clone(&self.checkpoints));
        let transaction = Transaction { workers: owner, open: true, rows: 0 };
        let begin = |connection: &mut Connection| Ok(connection.execute_batch("begin immediate")?);
        transaction.workers().run(begin).await?;
        Ok(Box::new(transaction))
    }

    async fn snapshot(&self) -> Result<Box<dyn Session>, Error> {
        let (path, connect, still) = (self.path.clone(), self.connect, self.still.clone());
        // Its own connection: it may take long, and is then closed.
        let opened = tokio::task::spawn_blocking(move || -> Result<Connected, Error> {
            let mut connected = connect(&path)?;
            // Of several, the first one knows whether all of them have read the same.
            connected.still = still.or(connected.still);
            connected.connection.execute_batch("begin deferred")?;
            Ok(connected)
        });
        let connected = opened.await.map_err(|_| Error::Closed)??;
        let workers = Workers::start("views-snapshot", vec![connected])?;
        Ok(Box::new(Transaction { workers: Owner::Own(workers), open: true, rows: 0 }))
    }

    fn is_damaged(&self) -> bool {
        damage::is_noted(&self.path)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.checkpoints.workers.close().await;
        self.writer.lock().await.close().await;
    }
}

enum Owner {
    Shared(OwnedMutexGuard<Workers>, Arc<Checkpoints>),
    Own(Workers),
}

struct Transaction {
    workers: Owner,
    open: bool,
    /// Written and deleted so far.
    rows: usize,
}

impl Transaction {
    fn workers(&self) -> &Workers {
        match &self.workers {
            Owner::Shared(workers, _) => workers,
            Owner::Own(workers) => workers,
        }
    }

    async fn end(&mut self, sql: &'static str) -> Result<(), Error> {
        let ended = self.workers().run(move |connection| Ok(connection.execute_batch(sql)?)).await;
        // A commit that failed leaves the transaction open; dropping rolls it back.
        self.open = ended.is_err();
        if let (Owner::Own(workers), false) = (&self.workers, self.open) {
            workers.close().await;
        }
        ended
    }

    async fn put(
        &mut self,
        verb: &str,
        table: &Table,
        physical: &str,
        rows: Rows,
    ) -> Result<(), Error> {
        let columns = table.column_list();
        let marks = vec!["?"; table.all_columns().count()].join(", ");
        let sql = format!("{verb} into {physical} ({columns}) values ({marks})");
        self.rows += rows.len();
        self.workers()
            .run(move |connection| {
                // One prepared statement a row is what SQLite does fastest.
                let mut statement = connection.prepare_cached(&sql)?;
                for row in &rows {
                    statement.execute(params_from_iter(row))?;
                }
                Ok(())
            })
            .await
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let rolled_back = self.workers().send(|connection| {
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("rollback")
            {
                tracing::error!(%error, "a transaction on views.db could not be rolled back");
            }
        });
        if let Err(error) = rolled_back {
            // Closed: the connection is gone, and the transaction with it.
            tracing::debug!(%error, "no rollback on a closed views.db");
        }
    }
}

#[async_trait]
impl Session for Transaction {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    async fn lock_schema(&mut self) -> Result<(), Error> {
        // `begin immediate` has locked the file already.
        Ok(())
    }

    async fn now(&mut self) -> Result<i64, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
    }

    async fn execute(&mut self, sql: &str, cells: Vec<Cell>) -> Result<u64, Error> {
        let sql = numbered(sql);
        self.workers()
            .run(move |connection| {
                let touched = connection.execute(&sql, params_from_iter(&cells))?;
                Ok(u64::try_from(touched).unwrap_or(u64::MAX))
            })
            .await
    }

    async fn select(&mut self, sql: &str, cells: Vec<Cell>, kinds: &[Kind]) -> Result<Rows, Error> {
        let (sql, kinds) = (sql.to_owned(), kinds.to_owned());
        self.workers().run(move |connection| query(connection, &sql, &cells, &kinds)).await
    }

    async fn insert(&mut self, table: &Table, physical: &str, rows: Rows) -> Result<(), Error> {
        self.put("insert", table, physical, rows).await
    }

    async fn replace(&mut self, table: &Table, physical: &str, rows: Rows) -> Result<(), Error> {
        self.put("insert or replace", table, physical, rows).await
    }

    async fn delete(&mut self, physical: &str, keys: Vec<String>) -> Result<(), Error> {
        let sql = format!("delete from {physical} where id = ?");
        self.rows += keys.len();
        self.workers()
            .run(move |connection| {
                let mut statement = connection.prepare_cached(&sql)?;
                for key in &keys {
                    statement.execute([key])?;
                }
                Ok(())
            })
            .await
    }

    async fn load(
        &mut self,
        physical: &str,
        keys: Vec<String>,
    ) -> Result<Vec<(String, String)>, Error> {
        let physical = physical.to_owned();
        self.workers().run(move |connection| load(connection, &physical, &keys)).await
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        self.end("commit").await?;
        if let Owner::Shared(_, checkpoints) = &self.workers {
            checkpoints.committed(self.rows.max(COMMIT_ROWS));
        }
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) -> Result<(), Error> {
        self.end("rollback").await
    }
}
