//! The embedded store: one file, one writer thread, a few read-only connections.

mod batch;
mod chain;
mod claims;
mod copy;
mod read;
mod reading;
mod schema;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use cqrs_es::persist::{PersistedEventRepository as _, SerializedEvent};
use rusqlite::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::append::{AppendError, Position};
use crate::error::Error;
use crate::options::Options;
use crate::private::make_private;
use crate::queue::Queue;

pub(crate) use copy::import;
pub(crate) use read::Readers;
pub use reading::{Still, faults, open_for_reading};
pub(crate) use writer::Writer;

/// The log's file in the data directory.
const FILE: &str = "events.db";
/// Held while a server or a migration runs.
const LOCK_FILE: &str = "events.lock";

/// Keeps a second server out of the data directory for as long as it lives.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    fn take(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let path = dir.join(LOCK_FILE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
            Err(std::fs::TryLockError::Error(error)) => Err(Error::io(&path)(error)),
        }
    }
}

/// An opened `events.db`.
pub(crate) struct Sqlite {
    pub readers: Readers,
    repository: sqlite_es::SqliteEventRepository,
    pub incarnation: uuid::Uuid,
    writing: Option<Writing>,
}

struct Writing {
    queue: Arc<Queue<Writer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Applies the migrations; returns the versions that were missing.
pub(crate) fn migrate(dir: &Path) -> Result<Vec<i64>, Error> {
    let _lock = Lock::take(dir)?;
    schema::migrate(&mut open_writable(&dir.join(FILE))?)
}

impl Sqlite {
    /// Opens for writing, after bringing the schema up to date.
    pub fn open(
        dir: &Path,
        options: &Options,
        head: watch::Sender<Position>,
        callers: Handle,
    ) -> Result<Self, Error> {
        let lock = Lock::take(dir)?;
        let path = dir.join(FILE);
        let mut connection = open_writable(&path)?;
        schema::migrate(&mut connection)?;
        let mut this = Self::open_readers(&path, options)?;
        let writer = Writer::new(connection, head, callers, lock)?;
        let queue = Arc::new(Queue::new(options.queue, options.batch));
        let thread = std::thread::Builder::new()
            .name("eventstore-writer".to_owned())
            .spawn({
                let queue = Arc::clone(&queue);
                move || writer.run(&queue)
            })
            .map_err(Error::io(&path))?;
        this.writing = Some(Writing { queue, thread: Mutex::new(Some(thread)) });
        Ok(this)
    }

    /// Opens for reading beside a running server, or alone.
    pub fn open_read_only(dir: &Path, options: &Options) -> Result<Self, Error> {
        Self::open_readers(&dir.join(FILE), options)
    }

    fn open_readers(path: &Path, options: &Options) -> Result<Self, Error> {
        let readers = Readers::new(path.to_owned(), options.readers);
        let connection = readers.open()?;
        let checked = schema::check(&connection)
            .and_then(|()| schema::check_tables(&connection, options.side_tables))
            .and_then(|()| schema::incarnation(&connection));
        let incarnation = readers.judged(checked)?;
        readers.give_back(connection);
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(readers.is_immutable());
        let pool = SqlitePoolOptions::new()
            .max_connections(options.readers)
            // It reads single statements from a file: nothing is left open, and nobody hangs up.
            .test_before_acquire(false)
            .connect_lazy_with(connect);
        let repository = sqlite_es::SqliteEventRepository::new(pool);
        Ok(Self { readers, repository, incarnation, writing: None })
    }

    /// One stream through the stock repository of cqrs-es.
    pub async fn load<A: cqrs_es::Aggregate>(
        &self,
        id: &str,
    ) -> Result<Vec<SerializedEvent>, Error> {
        let loaded = self.repository.get_events::<A>(id).await;
        self.readers.judged(loaded.map_err(Error::from))
    }

    pub fn queue(&self) -> Option<&Arc<Queue<Writer>>> {
        self.writing.as_ref().map(|writing| &writing.queue)
    }

    /// Runs `errand` on the writer's connection, between two batches.
    pub async fn with_writer<T: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Writer) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let queue = self.queue().ok_or(Error::ReadOnly)?;
        let (answer, answered) = oneshot::channel();
        queue
            .errand(Box::new(move |writer| {
                // A caller that went away does not need the answer.
                drop(answer.send(errand(writer)));
            }))
            .map_err(|error| match error {
                AppendError::Closed => Error::Closed,
                other => Error::Refused(other),
            })?;
        Ok(answered.await.map_err(|_| Error::Closed)??)
    }

    /// Lets the writer finish what waits, and ends it.
    pub async fn close(&self) {
        let Some(writing) = &self.writing else { return };
        writing.queue.close();
        let thread = writing.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let ended = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("the writer thread panicked");
            }
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        if let Some(writing) = &self.writing {
            writing.queue.close();
        }
    }
}

/// Every commit reaches the disk before it is answered (`synchronous=FULL`).
fn open_writable(path: &Path) -> Result<Connection, Error> {
    make_private(path).map_err(Error::io(path))?;
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// Path of the log's file, for tools that copy or inspect it.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}
