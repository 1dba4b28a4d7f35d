//! The store on PostgreSQL: one writer task with a connection of its own, and a pool for reading.

mod batch;
mod claims;
mod copy;
mod fault;
mod present;
mod read;
mod schema;
mod session;
mod writer;

use std::convert::Infallible;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::append::Position;
use crate::error::Error;
use crate::options::Options;
use crate::queue::Queue;
use crate::task::advance;
use present::Present;

pub(crate) use copy::import;
pub use present::{Alone, is_served};
pub(crate) use read::Reader;
pub(crate) use schema::migrate;

/// Where `proximity_append` announces the head.
const CHANNEL: &str = "proximity_head";

/// For the writer's connection: the plans of `proximity_append` are kept, so they must be the ones
/// that suit large tables, and made once.
const PLANNER: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// A connection that was idle for less is used without a question: it can be lost no sooner than in
/// the middle of a query, and the question would be a third of what a short query costs.
const FRESH: Duration = Duration::from_millis(200);

/// Whether a pool's idle connection can be used; for pools whose connections come back with no
/// transaction open.
pub async fn postgres_alive(
    connection: &mut PgConnection,
    idle_for: Duration,
) -> Result<bool, sqlx::Error> {
    if idle_for >= FRESH {
        connection.ping().await?;
    }
    Ok(true)
}

/// An opened database.
pub(crate) struct Postgres {
    pub reader: Reader,
    pub repository: postgres_es::PostgresEventRepository,
    pub incarnation: uuid::Uuid,
    writing: Option<Writing>,
    /// Of a server.
    present: Mutex<Option<Present>>,
}

struct Writing {
    /// Errands are SQLite's; here everything but an append goes through the pool.
    queue: Arc<Queue<Infallible>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Postgres {
    pub async fn open(
        url: &str,
        options: &Options,
        writable: bool,
        head: watch::Sender<Position>,
    ) -> Result<Self, Error> {
        let connect = connect_options(url)?;
        // First: whoever has the log alone may give it another life.
        let present = match options.serving {
            true => Some(Present::begin(url).await?),
            false => None,
        };
        let pool = PgPoolOptions::new()
            .max_connections(options.readers)
            .acquire_timeout(Duration::from_secs(5))
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(postgres_alive(connection, meta.idle_for)))
            .connect_lazy_with(connect.clone().application_name("proximity"));
        let reader = Reader::new(pool.clone());
        schema::check(&pool).await?;
        schema::check_tables(&pool, options.side_tables).await?;
        let incarnation = schema::incarnation(&pool).await?;
        let writing = writable.then(|| {
            let queue = Arc::new(Queue::new(options.queue, options.batch));
            let connect = connect.application_name("proximity-writer").options(PLANNER);
            let writer = writer::Writer::new(connect, options.patience, head);
            let task = tokio::spawn(writer.run(Arc::clone(&queue)));
            Writing { queue, task: Mutex::new(Some(task)) }
        });
        let repository = postgres_es::PostgresEventRepository::new(pool);
        Ok(Self { reader, repository, incarnation, writing, present: Mutex::new(present) })
    }

    pub fn queue(&self) -> Option<&Arc<Queue<Infallible>>> {
        self.writing.as_ref().map(|writing| &writing.queue)
    }

    /// Lets the writer finish what waits, and ends it.
    pub async fn close(&self) {
        let Some(writing) = &self.writing else { return };
        writing.queue.close();
        let task = writing.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the writer ended badly");
        }
        self.present.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(writing) = &self.writing {
            writing.queue.close();
        }
    }
}

/// Connections whose end is noticed by the server even while it waits for a lock, and that do not
/// announce a ROLLBACK without a transaction as a warning.
fn connect_options(url: &str) -> Result<PgConnectOptions, Error> {
    // Every statement reads a few rows by an index: to compile one, which PostgreSQL does when it takes
    // it for a long one, takes a hundred times as long as to run it.
    let options = [
        ("client_connection_check_interval", "1s"),
        ("client_min_messages", "error"),
        ("jit", "off"),
    ];
    Ok(PgConnectOptions::from_str(url)?.options(options))
}

/// Follows the announcements until the task is ended; what is lost while reconnecting, polling finds.
pub(crate) async fn listen(url: String, head: watch::Sender<Position>) {
    loop {
        if let Err(error) = follow(&url, &head).await {
            tracing::warn!(%error, "cannot listen for new events");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn follow(url: &str, head: &watch::Sender<Position>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    loop {
        let notification = listener.recv().await?;
        match notification.payload().parse() {
            Ok(position) => advance(head, position),
            Err(_) => tracing::warn!("an announcement is not a position"),
        }
    }
}
