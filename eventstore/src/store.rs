//! The store: one handle over both databases.

mod sealed;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cqrs_es::persist::{PersistedEventRepository as _, SerializedEvent};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::append::{Append, AppendError, Outcome, Position, Recorded};
use crate::backup::Sink;
use crate::claim::{Claim, KeptAnswer};
use crate::error::Error;
use crate::options::{Location, Options};
use crate::page::Page;
use crate::postgres::{self, Postgres};
use crate::queue::{self, Stats};
use crate::rights::Rights;
use crate::sealer::Sealer;
use crate::search::{self, Found, Search, Statement};
use crate::side::{Row, Table, Value};
use crate::side_sql::{self, Dialect};
use crate::sqlite::{self, Sqlite};
use crate::task::{advance, blocking};

/// A cheap handle on the log; the last one dropped lets the writer finish and end.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Backend,
    head: watch::Receiver<Position>,
    append_bytes: usize,
    /// Tasks that only ever read, ended with the store.
    helpers: Vec<JoinHandle<()>>,
    writable: bool,
    sealer: OnceLock<Sealer>,
    /// Appends that were refused as stale.
    stale: AtomicU64,
    /// When the database last accepted a probe.
    probed: Mutex<Option<Instant>>,
}

enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// What `Store::migrate` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// Versions applied now, in order; empty when nothing was missing.
    pub applied: Vec<i64>,
}

impl Store {
    /// Opens the log for reading and writing.
    ///
    /// SQLite is migrated first. PostgreSQL must have been: the serving role may not. A schema that
    /// a newer program wrote is refused on both.
    pub async fn open(options: Options) -> Result<Self, Error> {
        Self::open_as(options, true).await
    }

    /// Opens the log for reading only, beside a running server or alone; an append is refused as closed.
    pub async fn open_read_only(options: Options) -> Result<Self, Error> {
        Self::open_as(options, false).await
    }

    async fn open_as(options: Options, writable: bool) -> Result<Self, Error> {
        let (head, watched) = watch::channel(0);
        let mut helpers = Vec::new();
        let backend = match options.location.clone() {
            Location::Sqlite { dir } => {
                let (opening, sender, callers) = (options.clone(), head.clone(), Handle::current());
                let sqlite = blocking(move || {
                    if writable {
                        Sqlite::open(&dir, &opening, sender, callers)
                    } else {
                        Sqlite::open_read_only(&dir, &opening)
                    }
                })
                .await?;
                advance(&head, sqlite.readers.head().await?);
                if !writable {
                    // The writer is in another process: polling is the only news of it.
                    let (readers, poll) = (sqlite.readers.clone(), options.poll);
                    helpers.push(tokio::spawn(async move {
                        loop {
                            tokio::time::sleep(poll).await;
                            match readers.head().await {
                                Ok(position) => advance(&head, position),
                                Err(error) => tracing::warn!(%error, "the head cannot be read"),
                            }
                        }
                    }));
                }
                Backend::Sqlite(sqlite)
            }
            Location::Postgres { url } => {
                let postgres = Postgres::open(&url, &options, writable, head.clone()).await?;
                advance(&head, postgres.reader.head().await?);
                helpers.push(tokio::spawn(postgres::listen(url, head.clone())));
                helpers.push(tokio::spawn(postgres.reader.clone().poll(options.poll, head)));
                Backend::Postgres(postgres)
            }
        };
        let inner = Inner {
            backend,
            head: watched,
            append_bytes: options.append_bytes,
            helpers,
            writable,
            sealer: OnceLock::new(),
            stale: AtomicU64::new(0),
            probed: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads everything that belongs into a backup, as it was at one moment, while others write.
    pub async fn export<S: Sink>(&self, sink: S) -> Result<S, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.export(sqlite.incarnation, sink).await,
            Backend::Postgres(pg) => pg.reader.export(pg.incarnation, sink).await,
        }
    }

    /// Brings the schema up to date: on PostgreSQL in the owner's role.
    pub async fn migrate(options: Options) -> Result<MigrationReport, Error> {
        let applied = match options.location {
            Location::Sqlite { dir } => blocking(move || sqlite::migrate(&dir)).await?,
            Location::Postgres { url } => postgres::migrate(&url).await?,
        };
        Ok(MigrationReport { applied })
    }

    /// Stores all of it or none.
    ///
    /// From the first poll on the append belongs to the writer: dropping the future loses the answer,
    /// never half an append. The same `id` may be submitted again, whatever the first answer was.
    pub async fn append(&self, append: Append) -> Result<Outcome, AppendError> {
        for write in &append.side {
            write.check()?;
        }
        let bytes = queue::size(&append);
        if bytes > self.inner.append_bytes {
            return Err(AppendError::Invalid {
                reason: format!("{bytes} bytes, the limit is {}", self.inner.append_bytes),
            });
        }
        let answered = match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.queue().ok_or(AppendError::Closed)?.push(append)?,
            Backend::Postgres(pg) => pg.queue().ok_or(AppendError::Closed)?.push(append)?,
        };
        // The writer answers everything that it took, unless it died; then the outcome is open.
        let answer = answered.await.unwrap_or(Err(AppendError::Unknown));
        if answer.as_ref().is_err_and(AppendError::is_stale) {
            self.inner.stale.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// One stream through the stock repository of cqrs-es; empty when it does not exist.
    pub async fn load<A: cqrs_es::Aggregate>(
        &self,
        id: &str,
    ) -> Result<Vec<SerializedEvent>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.load::<A>(id).await,
            Backend::Postgres(pg) => Ok(pg.repository.get_events::<A>(id).await?),
        }
    }

    /// One stream with positions, in order; empty when it does not exist.
    pub async fn load_stream(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Result<Vec<Recorded>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.stream(aggregate_type, aggregate_id).await,
            Backend::Postgres(pg) => pg.reader.stream(aggregate_type, aggregate_id).await,
        }
    }

    /// At most `limit` events after a position, in order; fewer only at the end of the log.
    pub async fn feed(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.feed(after, limit).await,
            Backend::Postgres(pg) => pg.reader.feed(after, limit).await,
        }
    }

    /// The same as [`Self::feed`] without the events' metadata, which is quicker.
    pub async fn page(&self, after: Position, limit: usize) -> Result<Page, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.page(after, limit).await,
            Backend::Postgres(pg) => pg.reader.page(after, limit).await,
        }
    }

    /// Each type and version of event that is stored after a position.
    pub async fn kinds(&self, after: Position) -> Result<Vec<(String, String)>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.kinds(after).await,
            Backend::Postgres(pg) => pg.reader.kinds(after).await,
        }
    }

    /// At most `limit` events that fit, in order of position, by the indexes on the log.
    pub async fn search(&self, search: &Search, limit: usize) -> Result<Found, Error> {
        search::run(self, search, limit.max(1)).await
    }

    /// The same search up to the present end of the log, with its times turned into positions once
    /// for any number of pages; `None` when nothing was stored in its time.
    pub async fn pinned(&self, search: &Search) -> Result<Option<Search>, Error> {
        let head = self.head().await?;
        search::pin(self, search, head).await
    }

    /// Where the log stood at a moment (µs since 1970): at the last event whose time is not later. What
    /// stands before that had happened by then, whatever time a clock gave it.
    pub async fn place(&self, moment: i64) -> Result<Position, Error> {
        search::place(self, moment).await
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match &self.inner.backend {
            Backend::Sqlite(_) => Dialect::Sqlite,
            Backend::Postgres(_) => Dialect::Postgres,
        }
    }

    pub(crate) async fn found(&self, statement: Statement) -> Result<Vec<Recorded>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.found(statement).await,
            Backend::Postgres(pg) => pg.reader.found(statement).await,
        }
    }

    pub(crate) async fn texts(&self, statement: Statement) -> Result<Vec<String>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.texts(statement).await,
            Backend::Postgres(pg) => pg.reader.texts(statement).await,
        }
    }

    pub(crate) async fn numbers(&self, statement: Statement) -> Result<Vec<Option<i64>>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.numbers(statement).await,
            Backend::Postgres(pg) => pg.reader.numbers(statement).await,
        }
    }

    /// Position of the last stored event, 0 when there is none.
    pub async fn head(&self) -> Result<Position, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.head().await,
            Backend::Postgres(pg) => pg.reader.head().await,
        }
    }

    /// Tells when the head has moved: at once in this process and, with PostgreSQL, through NOTIFY;
    /// `Options::poll` later at worst. It never moves back.
    pub fn watch_head(&self) -> watch::Receiver<Position> {
        self.inner.head.clone()
    }

    /// How busy the writer is; all zero when the store was opened for reading only.
    pub fn stats(&self) -> Stats {
        let queue = match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.queue().map(|queue| queue.stats()),
            Backend::Postgres(pg) => pg.queue().map(|queue| queue.stats()),
        };
        Stats { stale: self.inner.stale.load(Ordering::Relaxed), ..queue.unwrap_or_default() }
    }

    /// Which life of the log this is; a restored backup is another one.
    pub fn incarnation(&self) -> Uuid {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.incarnation,
            Backend::Postgres(pg) => pg.incarnation,
        }
    }

    /// What an earlier append left under an idempotency key.
    pub async fn idempotent(&self, actor: &str, key: &str) -> Result<Option<KeptAnswer>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.idempotent(actor, key).await,
            Backend::Postgres(pg) => pg.reader.idempotent(actor, key).await,
        }
    }

    /// At most `limit` side rows that equal `filter` (all, if it is empty), every column, ordered by key.
    pub async fn rows(
        &self,
        table: &'static Table,
        filter: Row,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        side_sql::check(table, &filter)?;
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.rows(table, filter, limit).await,
            Backend::Postgres(pg) => pg.reader.rows(table, filter, limit).await,
        }
    }

    /// How many side rows equal `filter` (all, if it is empty).
    pub async fn count(&self, table: &'static Table, filter: Row) -> Result<u64, Error> {
        side_sql::check(table, &filter)?;
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.count(table, filter).await,
            Backend::Postgres(pg) => pg.reader.count(table, filter).await,
        }
    }

    /// Claims `id` for `runner` if nobody else holds it; the epoch grows even when the holder claims it again.
    pub async fn claim(
        &self,
        id: &str,
        runner: Uuid,
        ttl: Duration,
    ) -> Result<Option<Claim>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.claim(id, runner, ttl).await,
            Backend::Postgres(pg) => pg.claim(id, runner, ttl).await,
        }
    }

    /// Prolongs a claim; `false` when it was taken over. One that expired unnoticed is revived.
    pub async fn renew(
        &self,
        id: &str,
        runner: Uuid,
        epoch: u64,
        ttl: Duration,
    ) -> Result<bool, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.renew(id, runner, epoch, ttl).await,
            Backend::Postgres(pg) => pg.renew(id, runner, epoch, ttl).await,
        }
    }

    /// Gives a claim up, so that anyone may take it at once; `false` when it was taken over.
    pub async fn release(&self, id: &str, runner: Uuid, epoch: u64) -> Result<bool, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.release(id, runner, epoch).await,
            Backend::Postgres(pg) => pg.release(id, runner, epoch).await,
        }
    }

    /// Writes one row: whether the database accepts writes right now.
    ///
    /// A success stands for a second, so that nobody can make the disk busy by asking.
    pub async fn ping_writable(&self) -> Result<(), Error> {
        let mut probed = self.inner.probed.lock().await;
        if probed.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return Ok(());
        }
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.probe().await?,
            Backend::Postgres(pg) => pg.probe().await?,
        }
        *probed = Some(Instant::now());
        Ok(())
    }

    /// Counts one failed login in a window (microseconds since 1970); returns the window's count.
    pub async fn count_login_failure(
        &self,
        account: &str,
        source: &str,
        window_start: i64,
    ) -> Result<u64, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => {
                sqlite.count_login_failure(account, source, window_start).await
            }
            Backend::Postgres(pg) => pg.count_login_failure(account, source, window_start).await,
        }
    }

    /// Failed logins of an account, from all sources, in windows that start at `since` or later.
    pub async fn login_failures_of_account(&self, account: &str, since: i64) -> Result<u64, Error> {
        self.sum_login_failures("account", account, since).await
    }

    /// Failed logins from a source, for all accounts, in windows that start at `since` or later.
    pub async fn login_failures_of_source(&self, source: &str, since: i64) -> Result<u64, Error> {
        self.sum_login_failures("source", source, since).await
    }

    async fn sum_login_failures(
        &self,
        column: &'static str,
        value: &str,
        since: i64,
    ) -> Result<u64, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => {
                sqlite.readers.sum_login_failures(column, value, since).await
            }
            Backend::Postgres(pg) => pg.reader.sum_login_failures(column, value, since).await,
        }
    }

    /// Deletes side rows whose integer column is less than `before`, e.g. sessions long expired; returns how many.
    pub async fn prune(
        &self,
        table: &'static Table,
        column: &'static str,
        before: i64,
    ) -> Result<u64, Error> {
        side_sql::check(table, &[(column, Value::Integer(before))])?;
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.prune(table, column, before).await,
            Backend::Postgres(pg) => pg.prune(table, column, before).await,
        }
    }

    /// Forgets how appends stored before a time (microseconds since 1970) were identified: their
    /// events stay, their idempotency keys may be used anew. Ids that are not of version 7 stay, and
    /// PostgreSQL keeps a day's whatever it is asked. Returns how many.
    pub async fn forget_appends(&self, before: i64) -> Result<u64, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.forget_appends(before).await,
            Backend::Postgres(pg) => pg.forget_appends(before).await,
        }
    }

    /// What this process's role may do to stored events; `None` on SQLite, which has no roles.
    pub async fn rights(&self) -> Result<Option<Rights>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(_) => Ok(None),
            Backend::Postgres(pg) => pg.reader.rights().await.map(Some),
        }
    }

    /// Seals what is stored, as far as possible; then refuses new appends, stores those that wait,
    /// and ends the writer. What was appended in between is sealed by the next start.
    pub async fn close(self) {
        if let Some(sealer) = self.inner.sealer.get()
            && let Err(error) = sealer.end(&self).await
        {
            tracing::error!(%error, "the log cannot be sealed");
        }
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.close().await,
            Backend::Postgres(pg) => pg.close().await,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for helper in &self.helpers {
            helper.abort();
        }
    }
}

/// The file that holds the log on SQLite, for backups and tools.
pub fn sqlite_file(dir: &std::path::Path) -> PathBuf {
    sqlite::file(dir)
}
