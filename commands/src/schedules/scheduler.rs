//! Looks again and again at what is due and at the runs that are open. It may run in any number of
//! servers at once: what it remembers says only where to look.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use proximity_domain::ApplicationId;
use proximity_domain::backup_run::{BackupRun, Open, RunId, Stage};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Schedules;
use super::run::Step;
use super::seen::Seen;
use crate::dispatch::{Tried, load};
use crate::error::Error;
use crate::restored::Restoration;

/// Fires schedules and carries their runs on, until it is stopped.
pub struct Scheduler {
    schedules: Arc<Schedules>,
    seen: Seen,
    /// After a restoration from a backup, nothing is done before a person says so.
    restoration: Restoration,
    /// Occupied applications are not looked at before this moment.
    later: BTreeMap<(RunId, ApplicationId), Instant>,
}

/// Stops a scheduler.
pub struct SchedulerHandle {
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl SchedulerHandle {
    /// Ends it after the step that it is at.
    pub async fn stop(self) {
        self.stopping.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the scheduler did not end by itself");
        }
    }
}

impl Scheduler {
    /// Starts it in the background.
    pub fn start(schedules: Arc<Schedules>) -> SchedulerHandle {
        let stopping = CancellationToken::new();
        let (stopped, look) = (stopping.clone(), schedules.patience.look);
        let restoration = Restoration::new(schedules.applications.store.clone());
        let (seen, later) = (Seen::default(), BTreeMap::new());
        let mut scheduler = Self { schedules, seen, restoration, later };
        let task = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                if let Err(error) = scheduler.pass(&stopped).await {
                    tracing::warn!(?error, "schedules cannot be looked at");
                }
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = tokio::time::sleep(look) => {}
                }
            }
        });
        SchedulerHandle { stopping, task }
    }

    /// One look: whatever fails is looked at again next time.
    async fn pass(&mut self, stopped: &CancellationToken) -> Result<(), Error> {
        if !self.restoration.may_act().await {
            return Ok(());
        }
        let schedules = self.schedules.clone();
        self.seen.catch_up(&schedules.applications.store).await?;
        for id in self.seen.orphans() {
            note("a schedule cannot be ended", id, schedules.end_orphan(id).await);
        }
        for id in self.seen.due(schedules.now()) {
            if stopped.is_cancelled() {
                return Ok(());
            }
            note("a schedule cannot fire", id, schedules.fire(id).await);
        }
        let runs = self.seen.runs();
        self.later.retain(|(id, _), _| runs.iter().any(|(run, _)| run == id));
        for (id, run) in runs {
            if let Some(open) = run.open() {
                self.advance(id, open.clone(), stopped).await?;
            }
        }
        Ok(())
    }

    /// The next step for each application of a run, of which only so many are worked on at once.
    async fn advance(
        &mut self,
        id: RunId,
        mut open: Open,
        stopped: &CancellationToken,
    ) -> Result<(), Error> {
        let applications: Vec<ApplicationId> = open.targets.keys().cloned().collect();
        for application in applications {
            if stopped.is_cancelled() {
                return Ok(());
            }
            let Some(stage) = open.targets.get(&application) else { continue };
            let key = (id, application.clone());
            let rests = self.later.get(&key).is_some_and(|moment| *moment > Instant::now());
            let at_work = open.targets.values().filter(|stage| stage.is_at_work()).count();
            let full = at_work >= self.schedules.patience.at_once;
            if rests
                || matches!(stage, Stage::Closed(_))
                || (full && matches!(stage, Stage::Waiting { .. }))
            {
                continue;
            }
            let made = self.seen.made(id.schedule, &application);
            match self.schedules.step(id, &open, &application, made).await {
                Ok(Step::Waits) => continue,
                Ok(Step::Occupied) => {
                    self.later.insert(key, Instant::now() + self.schedules.patience.pause);
                }
                Ok(Step::Taken) => {}
                Err(tried) => note("a run cannot go on", id, Err(tried)),
            }
            let store = &self.schedules.applications.store;
            let (now, _) = load::<BackupRun>(store, &id.to_string()).await?;
            match now.open() {
                Some(now) => open = now.clone(),
                None => return Ok(()),
            }
        }
        if open.is_over() {
            note("a run cannot be ended", id, self.schedules.end_run(id).await);
        }
        Ok(())
    }
}

/// Another server was faster: that is no trouble. Anything else is told, and tried again.
fn note(what: &'static str, id: impl std::fmt::Display, outcome: Result<(), Tried>) {
    match outcome {
        Ok(()) => {}
        Err(Tried::Stale(error)) => tracing::debug!(%id, %error, "another server was faster"),
        Err(Tried::Failed(error @ Error::Conflict { .. })) => {
            tracing::debug!(%id, %error, "another server was faster");
        }
        Err(Tried::Failed(error)) => tracing::warn!(%id, ?error, what),
    }
}
