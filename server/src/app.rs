//! The parts of a running server, put together once and shared by all that serve.

mod background;
mod health;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proximity_catalog::{Library, Origin};
use proximity_commands::keys::{KeyFile, MasterKeys, Purpose};
use proximity_commands::{Actor, Error, Secret};
use proximity_eventstore::{Position, Store, tables};
use proximity_projections::Views;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use self::background::Background;
use crate::config::Config;
use crate::http::call::Call;
use crate::http::csrf::Csrf;
use crate::http::metrics::Metrics;
use crate::http::position::Wanted;
use crate::http::problem::{Problem, chain};
use crate::publish::Problems;
use crate::stores;

/// How long a read waits for a position that the views have not seen yet.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// How long a write's answer waits for the views.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// Everything that handlers reach.
pub struct App {
    pub config: Config,
    pub metrics: Metrics,
    pub csrf: Csrf,
    pub catalog: Arc<Library>,
    pub store: Store,
    pub views: Views,
    pub keys: MasterKeys,
    pub published: Problems,
    incarnation: String,
    ready: AtomicBool,
    health: health::Cache,
    tasks: TaskTracker,
    background: Background,
    runtime: Handle,
}

impl App {
    /// Puts a server together and starts what runs behind it; HTTP is not served yet.
    pub async fn start(config: Config) -> anyhow::Result<Arc<Self>> {
        install_tls_provider();
        config.ensure_data()?;
        let catalog = open_catalog(&config)?;
        let store = stores::open(&config).await?;
        let keys = open_keys(&config, &store).await?;
        let views = stores::views(&config, &store).await?;
        let published = Problems::default();
        let app = Self {
            metrics: Metrics::new(),
            csrf: Csrf::new(*keys.derive(Purpose::Csrf).bytes()),
            catalog,
            incarnation: store.incarnation().simple().to_string(),
            store,
            views,
            keys,
            published,
            ready: AtomicBool::new(true),
            health: health::Cache::default(),
            tasks: TaskTracker::new(),
            background: Background::default(),
            runtime: Handle::current(),
            config,
        };
        let app = Arc::new(app);
        app.background.start(&app);
        Ok(app)
    }

    /// Runs work on the main runtime in a task that no caller can cancel; a panic is an error.
    pub async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        self.tasks.spawn_on(work, &self.runtime).await
    }

    /// Whether new work is welcome.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// From now on `/readyz` says no; what is in flight goes on.
    pub fn stop_being_ready(&self) {
        self.ready.store(false, Ordering::Release);
    }

    /// Requests worked on at once.
    pub fn max_requests(&self) -> i64 {
        i64::try_from(self.config.server.max_requests).unwrap_or(i64::MAX)
    }

    /// The user behind an access token; `None` when it is not valid (any more).
    pub async fn authenticate(
        &self,
        _token: Secret,
        _client: Option<IpAddr>,
        _request_id: &str,
    ) -> Result<Option<Actor>, Problem> {
        Ok(None)
    }

    /// Refuses everybody but administrators.
    pub fn require_admin(&self, _actor: &Actor) -> Result<(), Problem> {
        Err(Error::forbidden("admin.required", "only an administrator may do this").into())
    }

    /// Waits until the views have seen a position, two seconds at most; one that is not in the log
    /// is refused at once.
    pub async fn wait_for(&self, wanted: &Wanted) -> Result<(), Problem> {
        let unknown = |detail: &str| Err(Problem::new("position.unknown", detail));
        if wanted.incarnation.as_ref().is_some_and(|other| *other != self.incarnation) {
            return unknown("this position is of another life of the log");
        }
        if wanted.position > *self.store.watch_head().borrow() {
            // Another replica may have written it a moment ago: the database knows.
            let head = self.store.head().await.map_err(unavailable)?;
            if wanted.position > head {
                return unknown("this position is beyond the end of the log");
            }
        }
        self.views.wait_for(wanted.position, READ_PATIENCE).await;
        Ok(())
    }

    /// Waits, bounded, until whoever wrote up to here can read it.
    pub async fn seen(&self, position: Position) {
        if !self.views.wait_for(position, WRITE_PATIENCE).await {
            tracing::debug!(position, "an answer does not wait for the views any longer");
        }
    }

    /// Where the views stand.
    pub fn viewed(&self) -> Position {
        self.views.position()
    }

    /// Which life of the log this is, as clients see it.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Figures are for this machine, and for whoever has the token.
    pub fn allow_metrics(&self, call: &Call) -> Result<(), Problem> {
        use subtle::ConstantTimeEq as _;
        let near = call.actor.source.is_some_and(|source| source.to_canonical().is_loopback());
        let known = match (&self.config.server.metrics_token, &call.presented.access) {
            (Some(token), Some(shown)) => {
                token.expose().as_bytes().ct_eq(shown.expose().as_bytes()).into()
            }
            _ => false,
        };
        if known || (near && !call.presented.forwarded) {
            Ok(())
        } else {
            Err(Error::Unauthenticated.into())
        }
    }

    /// Ends what runs behind the server, after HTTP has stopped: operations at their next recorded
    /// step, then the views, then the log's writer.
    pub async fn stop(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.background.stop().await;
        self.views.close().await;
        self.store.clone().close().await;
    }
}

/// Reads that the database did not answer: the caller may come back.
pub fn unavailable(error: impl std::error::Error + 'static) -> Problem {
    tracing::error!(error = chain(&error), "a read failed");
    let mut problem = Problem::new("store.unavailable", "the event store is not available");
    problem.retry_after = Some(1);
    problem
}

fn open_catalog(config: &Config) -> anyhow::Result<Arc<Library>> {
    let origin = config.catalog_dir.clone().map_or(Origin::Embedded, Origin::Directory);
    let catalog = Library::open(origin)?;
    for broken in catalog.current().broken() {
        tracing::warn!(
            file = broken.file,
            field = broken.field,
            reason = broken.reason,
            "a catalog file was left out"
        );
    }
    Ok(Arc::new(catalog))
}

/// The master keys; a first one is only made for a database that holds nothing sealed yet.
pub async fn open_keys(config: &Config, store: &Store) -> anyhow::Result<MasterKeys> {
    let sealed = !store.rows(&tables::KEY_SENTINEL, Vec::new(), 1).await?.is_empty();
    let named = config.master_key_file.clone();
    let file = KeyFile::locate(&config.data, |name| match name {
        "PROXIMITY_MASTER_KEY_FILE" => named.clone().map(Into::into),
        other => std::env::var_os(other),
    });
    let opened = tokio::task::spawn_blocking(move || file.open(sealed)).await?;
    Ok(opened?)
}

/// TLS needs a provider of its primitives, once for each process.
pub fn install_tls_provider() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::trace!("another part of this process has chosen the TLS provider");
    }
}
