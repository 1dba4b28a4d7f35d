//! What runs behind the handlers, and how it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proximity_commands::clock::{Clock as _, SystemClock};
use proximity_commands::saga::{Runner, RunnerHandle};
use proximity_commands::schedules::{Scheduler, SchedulerHandle};
use proximity_projections::Views;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::App;
use crate::control;
use crate::publish::{self, Publisher};

/// Handles of everything that runs; empty before the start and after the end.
#[derive(Default)]
pub struct Background {
    views: Mutex<Option<proximity_projections::Runner>>,
    running: Mutex<Option<Running>>,
}

struct Running {
    publisher: Option<publish::Handle>,
    operations: RunnerHandle,
    schedules: SchedulerHandle,
    stopping: CancellationToken,
    watch: JoinHandle<()>,
    reconciler: JoinHandle<()>,
    chores: JoinHandle<()>,
    counts: JoinHandle<()>,
    keys: JoinHandle<()>,
    control: Option<JoinHandle<()>>,
}

/// How often every host is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How often expired sessions are removed, and what could not be written down is tried again.
const CHORES: Duration = Duration::from_secs(30);

impl Background {
    /// The views follow the log from now on.
    pub fn follow(&self, views: &Views) {
        *self.views.lock().unwrap_or_else(PoisonError::into_inner) = Some(views.follow());
    }

    /// Starts everything else.
    pub fn start(&self, app: &Arc<App>) {
        let stopping = CancellationToken::new();
        let (watch, stopped) = (app.commands.watch.clone(), stopping.clone());
        // On PostgreSQL the shell goes to the database itself.
        let embedded = app.config.database_url.is_none();
        let running = Running {
            control: embedded.then(|| tokio::spawn(control::listen(app.clone(), stopping.clone()))),
            operations: Runner::start(app.saga_env()),
            schedules: Scheduler::start(app.commands.schedules.clone()),
            chores: tokio::spawn(chores(app.clone(), stopping.clone())),
            counts: tokio::spawn(counts(app.clone(), stopping.clone())),
            keys: tokio::spawn(keys(app.clone(), stopping.clone())),
            reconciler: tokio::spawn(reconcile(app.clone(), stopping.clone())),
            stopping,
            watch: tokio::spawn(async move { watch.run(LOOK, stopped).await }),
            publisher: Publisher::start(
                app.store.clone(),
                app.views.clone(),
                &app.config.publish,
                app.published.clone(),
            ),
        };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    }

    /// Ends everything but the views, which answers in flight still wait for.
    pub async fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.stop().await;
        }
    }

    /// The views follow the log no more.
    pub async fn unfollow(&self) {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(views) = views {
            views.stop().await;
        }
    }
}

impl Running {
    async fn stop(self) {
        self.stopping.cancel();
        self.schedules.stop().await;
        self.operations.stop().await;
        let tasks = [
            ("watch over hosts", self.watch),
            ("reconciler", self.reconciler),
            ("chores", self.chores),
            ("counts of refusals and of uses of secrets", self.counts),
            ("watch over keys", self.keys),
        ];
        for (what, task) in
            tasks.into_iter().chain(self.control.map(|control| ("control socket", control)))
        {
            if let Err(error) = task.await {
                tracing::error!(what, %error, "a background task did not end by itself");
            }
        }
        if let Some(publisher) = self.publisher {
            publisher.stop().await;
        }
    }
}

/// Compares all hosts with the log, for as long as the server runs.
async fn reconcile(app: Arc<App>, stopping: CancellationToken) {
    let runner = app.runner.id;
    app.commands.reconciler.run(runner, LOOK, stopping).await;
}

/// Takes new master keys up and forgets destroyed ones, wherever that was decided.
async fn keys(app: Arc<App>, stopping: CancellationToken) {
    app.commands.secrets.watch(stopping).await;
}

/// Small things that are done now and then; what fails is done the next time.
async fn chores(app: Arc<App>, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        if let Err(error) = app.sessions.sweep().await {
            tracing::warn!(%error, "expired sessions are not removed yet");
        }
        if let Err(error) = app.tokens.sweep().await {
            tracing::warn!(%error, "API tokens that expired long ago are not removed yet");
        }
        if let Err(error) = app.answers.sweep().await {
            tracing::warn!(%error, "old idempotency keys are not forgotten yet");
        }
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(CHORES) => {}
        }
    }
}

/// Writes down what was counted as soon as its minute is over, which is what `docs/OPERATING.md` promises;
/// nothing that may take long is done in between.
async fn counts(app: Arc<App>, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        if let Err(error) = app.refusals.flush().await {
            tracing::warn!(%error, "refusals are not written down yet");
        }
        let now = SystemClock.now();
        if let Err(error) = app.commands.secrets.uses().flush(&app.store, now).await {
            tracing::warn!(%error, "uses of secrets are not written down yet");
        }
        // Sooner or later than the minute's end, too: the clock may be set meanwhile.
        let pause = app.refusals.next_flush().min(CHORES);
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    if let Err(error) = app.refusals.flush_all().await {
        tracing::warn!(%error, "the last refusals are not written down");
    }
    if let Err(error) = app.commands.secrets.uses().flush(&app.store, i64::MAX).await {
        tracing::warn!(%error, "the last uses of secrets are not written down");
    }
}
