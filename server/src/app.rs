//! The parts of a running server, put together once and shared by all that serve.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proximity_catalog::{Library, Origin};
use proximity_commands::{Actor, Error, Secret};
use proximity_eventstore::Position;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::http::call::Call;
use crate::http::csrf::Csrf;
use crate::http::handlers::health::Health;
use crate::http::metrics::Metrics;
use crate::http::position::Wanted;
use crate::http::problem::Problem;

/// Everything that handlers reach.
pub struct App {
    pub config: Config,
    pub metrics: Metrics,
    pub csrf: Csrf,
    pub catalog: Library,
    ready: AtomicBool,
    tasks: TaskTracker,
    runtime: Handle,
}

impl App {
    /// Puts a server together; it serves nothing yet.
    pub async fn start(config: Config) -> anyhow::Result<Arc<Self>> {
        install_tls_provider();
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
        let app = Self {
            metrics: Metrics::new(),
            csrf: Csrf::new(rand::random()),
            catalog,
            ready: AtomicBool::new(true),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            config,
        };
        Ok(Arc::new(app))
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

    /// Waits until the views have seen a position.
    pub async fn wait_for(&self, _wanted: &Wanted) -> Result<(), Problem> {
        Ok(())
    }

    /// Where the views stand.
    pub fn viewed(&self) -> Option<Position> {
        None
    }

    /// Which life of the log this is.
    pub fn incarnation(&self) -> Option<&str> {
        None
    }

    /// How this server and what it rests on are.
    pub async fn health(&self) -> Health {
        Health {
            status: "healthy",
            service: "proximity",
            version: env!("CARGO_PKG_VERSION"),
            database: "connected",
            cache: "connected",
        }
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

    /// Waits until every detached task has ended.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// TLS needs a provider of its primitives, once for each process.
pub fn install_tls_provider() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::trace!("another part of this process has chosen the TLS provider");
    }
}
