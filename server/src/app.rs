//! The parts of a running server, put together once and shared by all that serve.

mod background;
pub mod commands;
mod health;
pub mod installation;
mod known;
mod lives;
mod prober;
pub mod sealing;
pub mod verification;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use proximity_catalog::{Library, Origin};
use proximity_commands::accounts::{Accounts, NewUser, Registration};
use proximity_commands::answers::Answers;
use proximity_commands::clock::{Clock, Micros, SystemClock};
use proximity_commands::keys::{KeyFile, Keyring, MasterKeys, Purpose};
use proximity_commands::marker::Markers;
use proximity_commands::passwords::{HashingLimits, Passwords};
use proximity_commands::policy::Admin;
use proximity_commands::refusals::Refusals;
use proximity_commands::restored::Restoration;
use proximity_commands::saga::Env;
use proximity_commands::secrets::Secrets;
use proximity_commands::sessions::{Lifetimes, Sessions};
use proximity_commands::tokens::ApiTokens;
use proximity_commands::{Actor, Error, Secret};
use proximity_domain::user::Role;
use proximity_eventstore::{Position, Store, tables};
use proximity_projections::Views;
use sha2::Sha256;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::background::Background;
use self::commands::Commands;
use self::installation::RunnerId;
use self::lives::Lives;
use self::verification::Verification;
use crate::config::{self, Config};
use crate::http::Listening;
use crate::http::call::Call;
use crate::http::csrf::Csrf;
use crate::http::metrics::{Figures, Metrics};
use crate::http::once::Turns;
use crate::http::position::Wanted;
use crate::http::problem::{Problem, chain};
use crate::http::streams::Streams;
use crate::publish::Problems;
use crate::stores;

/// How long a read waits for a position that the views have not seen yet.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// How long a write's answer waits for the views.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// The longest token that is looked at: ours have 43 characters.
const TOKEN: usize = 512;

/// Everything that handlers reach.
pub struct App {
    pub config: Config,
    pub metrics: Metrics,
    pub csrf: Csrf,
    pub catalog: Arc<Library>,
    pub store: Store,
    pub views: Views,
    pub keys: Keyring,
    pub commands: Commands,
    pub accounts: Accounts,
    pub sessions: Sessions,
    pub tokens: ApiTokens,
    pub answers: Answers,
    pub refusals: Arc<Refusals>,
    pub restoration: Restoration,
    pub published: Problems,
    installation: String,
    runner: RunnerId,
    incarnation: String,
    pub lives: Lives,
    ready: AtomicBool,
    /// Cancelled when the server begins to stop.
    pub stopping: CancellationToken,
    pub streams: Streams,
    pub turns: Turns,
    pub verification: Verification,
    health: health::Cache,
    tasks: TaskTracker,
    background: Background,
    runtime: Handle,
}

impl App {
    /// Puts a server together and starts what runs behind it; HTTP is not served yet.
    pub async fn start(config: Config) -> anyhow::Result<Arc<Self>> {
        let app = Self::assemble(config).await?;
        app.begin();
        Ok(app)
    }

    /// Puts a server together. Its views follow the log; nothing acts by itself before [`begin`].
    ///
    /// [`begin`]: Self::begin
    pub async fn assemble(config: Config) -> anyhow::Result<Arc<Self>> {
        Self::assemble_at(config, SystemClock::shared()).await
    }

    /// The same by another clock than the machine's.
    pub async fn assemble_at(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<Self>> {
        install_tls_provider();
        config.ensure_data()?;
        let catalog = open_catalog(&config)?;
        let store = stores::open_to_serve(&config).await?;
        known::check(&config, &store).await?;
        let keys = open_keys(&config, &store).await?;
        let secrets = Secrets::new(store.clone(), keys.clone()).await?;
        let runner = RunnerId::take(&config.data)?;
        // Only now: a wrong master key, which would sign with a wrong one, has been refused.
        sealing::start(&config, &store, &secrets, runner.id)?;
        let installation = installation::id(&store).await?;
        stores::mend_views(&config)?;
        let views = stores::views(&config, &store).await?;
        let commands =
            Commands::new(&config, &store, secrets, catalog.clone(), &installation, clock);
        let refusals = Arc::new(Refusals::new(store.clone(), commands.clock.clone()));
        let sessions = Sessions::new(store.clone(), commands.clock.clone(), Lifetimes::default());
        let tokens = ApiTokens::new(store.clone(), commands.clock.clone());
        let answers = Answers::new(store.clone(), commands.clock.clone());
        let clock = commands.clock.clone();
        let accounts = accounts(&config, &store, &keys.keys(), &sessions, &refusals, clock)?;
        let app = Self {
            metrics: Metrics::new(),
            csrf: Csrf::new(keys.clone()),
            catalog,
            restoration: Restoration::new(store.clone()),
            incarnation: store.incarnation().simple().to_string(),
            lives: Lives::of(&store).await?,
            store,
            views,
            keys,
            commands,
            accounts,
            sessions,
            tokens,
            answers,
            refusals,
            published: Problems::default(),
            installation,
            runner,
            ready: AtomicBool::new(true),
            stopping: CancellationToken::new(),
            streams: Streams::default(),
            turns: Turns::default(),
            verification: Verification::default(),
            health: health::Cache::default(),
            tasks: TaskTracker::new(),
            background: Background::default(),
            runtime: Handle::current(),
            config,
        };
        app.background.follow(&app.views);
        Ok(Arc::new(app))
    }

    /// Carries operations out, watches hosts, publishes ports; once for a server.
    pub fn begin(self: &Arc<Self>) {
        self.background.start(self);
    }

    /// Runs work on the main runtime in a task that no caller can cancel; a panic is an error.
    pub async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        self.tasks.spawn_on(work, &self.runtime).await
    }

    /// Runs work on the main runtime that answers nobody; the end of the server waits for it, so it
    /// has to end when [`Self::stopping`] says so.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(work, &self.runtime);
    }

    /// Whether new work is welcome.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// From now on `/readyz` says no; what is in flight goes on.
    pub fn stop_being_ready(&self) {
        self.ready.store(false, Ordering::Release);
        self.stopping.cancel();
    }

    /// Requests worked on at once.
    pub fn max_requests(&self) -> i64 {
        i64::try_from(self.config.server.max_requests).unwrap_or(i64::MAX)
    }

    /// The user behind an access token, and until when it is valid at most; `None` when it is not (any
    /// more).
    pub async fn authenticate(
        self: &Arc<Self>,
        token: Secret,
        client: Option<IpAddr>,
        request_id: &str,
    ) -> Result<Option<(Actor, Micros)>, Problem> {
        // Longer than any token of ours: not even hashed.
        if token.expose().len() > TOKEN {
            return Ok(None);
        }
        let (app, request) = (self.clone(), request_id.to_owned());
        let work = async move {
            if ApiTokens::looks_like_one(&token) {
                app.tokens.authenticate(&token, client, Some(request)).await
            } else {
                app.sessions.authenticate(&token, client, Some(request)).await
            }
        };
        match self.detached(work.in_current_span()).await {
            Ok(actor) => Ok(actor?),
            Err(panic) => {
                tracing::error!(%panic, "looking up an identity panicked");
                Err(Problem::internal())
            }
        }
    }

    /// Makes an administrator, as the operator's shell does.
    pub async fn create_admin(&self, username: &str, password: Secret) -> Result<(), Error> {
        let asked = NewUser {
            username: username.to_owned(),
            password: Some(password),
            ..NewUser::default()
        };
        let shell = Admin::prove(&Actor::system("cli"))?;
        self.accounts.create_user(&shell, asked, Role::Admin).await.map(drop)
    }

    /// Refuses everybody but administrators.
    pub fn require_admin(&self, actor: &Actor) -> Result<(), Problem> {
        Ok(Admin::prove(actor).map(drop)?)
    }

    /// Tells requests apart without keeping their bodies, which may hold secrets.
    pub fn fingerprint(&self, parts: &[&[u8]]) -> String {
        // The same before and after a rotation: a request may be repeated across it.
        let key = self.keys.keys().derive_lasting(Purpose::Idempotency);
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.bytes()) else {
            return String::new();
        };
        for part in parts {
            mac.update(&part.len().to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Everything that operations are carried out with.
    fn saga_env(&self) -> Env {
        Env {
            store: self.store.clone(),
            hypervisors: self.commands.directory.clone(),
            markers: Markers::of(self.installation.clone(), self.keys.clone()),
            secrets: Arc::new(self.commands.secrets.clone()),
            prober: Arc::new(prober::Knocker),
            clock: self.commands.clock.clone(),
            config: self.commands.saga.clone(),
            runner: self.runner.id,
            hooks: None,
        }
    }

    /// Refuses a position that is not in the log, or may be of another life of it.
    pub async fn knows(&self, wanted: &Wanted) -> Result<(), Problem> {
        self.lives.check(wanted)?;
        if wanted.position > *self.store.watch_head().borrow() {
            // Another replica may have written it a moment ago: the database knows.
            let head = self.store.head().await.map_err(unavailable)?;
            if wanted.position > head {
                return Err(wanted.unknown("this position is beyond the end of the log"));
            }
        }
        Ok(())
    }

    /// Waits until the views have seen a position, two seconds at most; one that is not in the log
    /// is refused at once.
    pub async fn wait_for(&self, wanted: &Wanted) -> Result<(), Problem> {
        self.knows(wanted).await?;
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

    /// Ends in order: nothing new is accepted and operations end at their next recorded step; what
    /// is in flight is finished; then the views and the log's writer end.
    pub async fn stop(&self, listening: Listening) {
        self.stop_being_ready();
        tokio::join!(listening.stop(), self.background.stop());
        self.tasks.close();
        self.tasks.wait().await;
        // What was stored last is in the read models, too, before nothing follows any more.
        match self.store.head().await {
            Ok(head) => self.seen(head).await,
            Err(error) => tracing::debug!(%error, "the read models may be behind"),
        }
        self.background.unfollow().await;
        self.views.close().await;
        self.store.clone().close().await;
    }

    /// The figures of this moment, for `/metrics`.
    pub fn figures(&self) -> Figures {
        let stats = self.store.stats();
        Figures {
            log_position: *self.store.watch_head().borrow(),
            views_position: self.views.position(),
            waiting: stats.waiting as u64,
            batches: stats.batches,
            appends: stats.appends,
            stale: stats.stale,
            sealed_position: self.store.seal_state().unwrap_or_default().sealed_to,
            live_streams: self.streams.open() as u64,
        }
    }
}

/// Everything about accounts, over one store.
pub fn accounts(
    config: &Config,
    store: &Store,
    keys: &MasterKeys,
    sessions: &Sessions,
    refusals: &Arc<Refusals>,
    clock: Arc<dyn Clock>,
) -> Result<Accounts, Error> {
    let registration = match config.registration {
        config::Registration::Closed => Registration::Closed,
        config::Registration::Open => Registration::Open,
    };
    Ok(Accounts::new(
        store.clone(),
        clock,
        keys,
        Passwords::new(HashingLimits::default())?,
        sessions.clone(),
        refusals.clone(),
        registration,
    ))
}

/// Reads that the database did not answer: the caller may come back.
pub fn unavailable(error: impl std::error::Error + 'static) -> Problem {
    tracing::error!(error = chain(&error), "a read failed");
    let mut problem = Problem::new("store.unavailable", "the event store is not available");
    problem.retry_after = Some(1);
    problem
}

/// The catalog of the settings; broken files are logged and left out.
pub fn open_catalog(config: &Config) -> anyhow::Result<Arc<Library>> {
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
pub async fn open_keys(config: &Config, store: &Store) -> anyhow::Result<Keyring> {
    let sealed = is_sealed(store).await?;
    let file = key_file(config);
    let opening = file.clone();
    let opened = tokio::task::spawn_blocking(move || opening.open(sealed)).await??;
    Ok(Keyring::new(file, opened, config.database_url.is_some()))
}

/// The same for whoever only looks, and makes none: `None` when there is no key yet.
pub async fn existing_keys(config: &Config, store: &Store) -> anyhow::Result<Option<Keyring>> {
    let sealed = is_sealed(store).await?;
    let file = key_file(config);
    let opening = file.clone();
    let opened = tokio::task::spawn_blocking(move || opening.open_existing(sealed)).await??;
    Ok(opened.map(|keys| Keyring::new(file, keys, config.database_url.is_some())))
}

async fn is_sealed(store: &Store) -> anyhow::Result<bool> {
    Ok(!store.rows(&tables::KEY_SENTINEL, Vec::new(), 1).await?.is_empty())
}

/// Where the settings and the environment say that the master keys are.
pub fn key_file(config: &Config) -> KeyFile {
    KeyFile::locate(&config.data, |name| match name {
        "PROXIMITY_MASTER_KEY_FILE" => config.master_key_file.clone().map(Into::into),
        other => std::env::var_os(other),
    })
}

/// TLS needs a provider of its primitives, once for each process.
pub fn install_tls_provider() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::trace!("another part of this process has chosen the TLS provider");
    }
}
