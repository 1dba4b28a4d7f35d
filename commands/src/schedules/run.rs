//! A run goes on: each application in turn is backed up, and what came of it is written down.
//!
//! Every step is one append on the run's stream. A runner that was killed has done it or has not;
//! another one goes on from what the streams say.

use proximity_domain::application::Application;
use proximity_domain::backup::{Backup, Event as BackupEvent, Outcome as BackupOutcome, Scheduled};
use proximity_domain::backup_run::{BackupRun, Command, Open, RunId, Stage};
use proximity_domain::backup_schedule::{
    BackupSchedule, Command as ScheduleCommand, Outcome, RunResult,
};
use proximity_domain::user::User;
use proximity_domain::{ApplicationId, BackupId, OperationId};

use super::{Schedules, on_behalf};
use crate::applications::BackupWish;
use crate::clock::Micros;
use crate::dispatch::{Tried, Unit, load};
use crate::error::Error;
use crate::numbers;

/// What became of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The log holds it.
    Taken,
    /// Nothing to do yet.
    Waits,
    /// The application is occupied.
    Occupied,
}

/// How an application is found before something is begun on it.
pub(super) enum Found {
    Free,
    /// Another operation works on it, or was given up half-way.
    Occupied(String),
    /// Nothing can be done: why.
    Never(String),
}

impl Schedules {
    /// One step for one application of a run.
    pub(super) async fn step(
        &self,
        run: RunId,
        open: &Open,
        application: &ApplicationId,
        made: Vec<BackupId>,
    ) -> Result<Step, Tried> {
        match open.targets.get(application) {
            None | Some(Stage::Closed(_)) => Ok(Step::Waits),
            Some(Stage::Waiting { until }) => self.begin(run, open, application, *until).await,
            Some(Stage::Making { backup, operation, .. }) => {
                let (backup, operation) = (*backup, *operation);
                if let Some(problem) = self.is_stuck(application, operation).await? {
                    let outcome = failed(application, Some(backup), problem);
                    return self.close(run, open, outcome).await;
                }
                match self.outcome(backup).await? {
                    Made::NotYet => Ok(Step::Waits),
                    Made::Failed(problem) => {
                        let outcome = failed(application, Some(backup), problem);
                        self.close(run, open, outcome).await
                    }
                    Made::Well => self.prune(run, open, application, made).await,
                }
            }
            Some(Stage::Pruning { asked, operation, .. }) => {
                let last = asked.last().copied();
                if let Some(problem) = self.is_stuck(application, *operation).await? {
                    return self.close_pruned(run, open, application, Some(problem)).await;
                }
                match last {
                    Some(last) if self.is_in_use(last).await? => Ok(Step::Waits),
                    _ => self.prune(run, open, application, made).await,
                }
            }
        }
    }

    /// Ends a run whose last application is closed.
    pub(super) async fn end_run(&self, run: RunId) -> Result<(), Tried> {
        let (state, _) = load::<BackupRun>(&self.applications.store, &run.to_string()).await?;
        let Some(open) = state.open().filter(|open| open.is_over()) else { return Ok(()) };
        for outcome in open.outcomes().iter().filter(|one| one.result != RunResult::Completed) {
            let (result, problem) = (outcome.result.as_str(), outcome.problem.as_deref());
            tracing::warn!(%run, application = %outcome.application, result, problem, "no backup");
        }
        let mut unit = self.unit(run, open, "backup_schedule.end_run").await?;
        unit.correlate(run);
        judge(&mut unit, run, Command::End).await?;
        // One that was deleted meanwhile is not told.
        if is_scheduled(&mut unit, run).await? {
            let end = ScheduleCommand::EndRun { due: run.due, outcomes: open.outcomes() };
            let judged = unit.apply::<BackupSchedule>(&run.schedule.to_string(), end).await;
            judged.map_err(|refused| refused.or_else(Error::from))?;
        }
        unit.commit().await?;
        Ok(())
    }

    /// Asks for the backup of an application; or says that it has to wait, or why there is none.
    async fn begin(
        &self,
        run: RunId,
        open: &Open,
        application: &ApplicationId,
        until: Option<Micros>,
    ) -> Result<Step, Tried> {
        let mut unit = self.unit(run, open, "backup.create").await?;
        let skip = |problem: String| Outcome {
            application: application.clone(),
            result: RunResult::Skipped,
            backup: None,
            problem: Some(problem),
            pruned: Vec::new(),
        };
        if !is_scheduled(&mut unit, run).await? {
            let outcome = skip("the schedule was deleted".to_owned());
            return self.close(run, open, outcome).await;
        }
        let owner = unit.load::<User>(&open.planned.owner.to_string()).await?;
        if owner.account().is_none_or(|account| account.disabled) {
            let outcome = skip("the owner's account is disabled".to_owned());
            return self.close(run, open, outcome).await;
        }
        match found(&mut unit, application).await? {
            Found::Never(problem) => return self.close(run, open, skip(problem)).await,
            Found::Occupied(reason) => {
                return self.defer_or(run, open, until, skip(reason)).await;
            }
            Found::Free => {}
        }
        let settings = &open.planned.settings;
        let wish = BackupWish { mode: settings.mode, compression: settings.compression };
        let scheduled = Scheduled { schedule: run.schedule, due: run.due, at: self.now() };
        let begun = self.applications.begin_backup(&mut unit, application, wish, Some(scheduled));
        match begun.await {
            Ok(accepted) => {
                let (backup, operation) = (accepted.backup, accepted.operation);
                let application = application.clone();
                judge(&mut unit, run, Command::Begin { application, backup, operation }).await?;
                unit.commit().await.map_err(numbers::tried)?;
                Ok(Step::Taken)
            }
            // The node is away, say: it may come back.
            Err(Tried::Failed(Error::Unavailable { detail, .. })) => {
                self.defer_or(run, open, until, skip(detail)).await
            }
            Err(Tried::Failed(Error::Conflict { detail, .. })) => {
                self.close(run, open, failed(application, None, detail)).await
            }
            Err(other) => Err(other),
        }
    }

    /// Tries again later; or closes with this outcome when it was tried for long enough.
    pub(super) async fn defer_or(
        &self,
        run: RunId,
        open: &Open,
        until: Option<Micros>,
        outcome: Outcome,
    ) -> Result<Step, Tried> {
        let now = self.now();
        match until {
            Some(until) if until <= now => self.close(run, open, outcome).await,
            Some(_) => Ok(Step::Occupied),
            None => {
                let occupied = self.patience.occupied.as_micros();
                let until = now.saturating_add(Micros::try_from(occupied).unwrap_or(Micros::MAX));
                let reason = outcome.problem.unwrap_or_default();
                let mut unit = self.unit(run, open, "backup_schedule.defer").await?;
                unit.correlate(run);
                let defer = Command::Defer { application: outcome.application, reason, until };
                judge(&mut unit, run, defer).await?;
                if !unit.is_empty() {
                    unit.commit().await?;
                }
                Ok(Step::Occupied)
            }
        }
    }

    /// Writes down what came of an application.
    pub(super) async fn close(
        &self,
        run: RunId,
        open: &Open,
        outcome: Outcome,
    ) -> Result<Step, Tried> {
        let mut unit = self.unit(run, open, "backup_schedule.close").await?;
        unit.correlate(run);
        judge(&mut unit, run, Command::Close { outcome }).await?;
        unit.commit().await?;
        Ok(Step::Taken)
    }

    /// A unit of work of the run, in its owner's name. It holds for the run as it was seen: when the
    /// run has moved on meanwhile, there is none.
    pub(super) async fn unit(
        &self,
        run: RunId,
        open: &Open,
        command: &'static str,
    ) -> Result<Unit<'_>, Error> {
        let mut meta = on_behalf(run.schedule, open.planned.owner, command);
        meta.causation = Some(format!("backup_run/{run}"));
        let mut unit = Unit::new(&self.applications.store, meta);
        unit.owned_by(open.planned.owner);
        let now = unit.load::<BackupRun>(&run.to_string()).await?;
        if now.open() == Some(open) {
            Ok(unit)
        } else {
            Err(Error::conflict("backup_schedule.state", "the run has moved on"))
        }
    }

    async fn outcome(&self, backup: BackupId) -> Result<Made, Error> {
        let (state, _) = load::<Backup>(&self.applications.store, &backup.to_string()).await?;
        Ok(match state {
            Backup::Absent => Made::NotYet,
            // Somebody removed it at once: it was made.
            Backup::Deleted => Made::Well,
            Backup::Kept(kept) => match kept.outcome {
                BackupOutcome::Open => Made::NotYet,
                BackupOutcome::Completed(_) => Made::Well,
                BackupOutcome::Failed { .. } => Made::Failed(self.problem(backup).await?),
            },
        })
    }

    /// Why a backup failed, as its stream says.
    async fn problem(&self, backup: BackupId) -> Result<String, Error> {
        let id = backup.to_string();
        let events = self.applications.store.load_stream("backup", &id).await;
        let events = events.map_err(crate::rows::unreadable)?;
        for event in events.iter().rev().filter(|event| event.event_type == "backup.failed") {
            let read = serde_json::from_str(&event.payload);
            let context = "an event of a backup cannot be read";
            if let BackupEvent::Failed { problem, .. } =
                read.map_err(|error| Error::internal(context, error))?
            {
                return Ok(problem);
            }
        }
        Ok("it could not be made".to_owned())
    }

    /// Whether an operation makes, uses or removes a backup.
    async fn is_in_use(&self, backup: BackupId) -> Result<bool, Error> {
        let (state, _) = load::<Backup>(&self.applications.store, &backup.to_string()).await?;
        Ok(state.kept().is_some_and(|kept| kept.current.is_some()))
    }

    /// What to say when this operation waits for an operator.
    async fn is_stuck(
        &self,
        application: &ApplicationId,
        operation: OperationId,
    ) -> Result<Option<String>, Error> {
        let (state, _) =
            load::<Application>(&self.applications.store, application.as_str()).await?;
        let stuck = state.current().is_some_and(|now| now.operation == operation && now.stuck);
        Ok(stuck.then(|| format!("operation {operation} is stuck and waits for an operator")))
    }
}

/// What became of a backup that was asked for.
enum Made {
    NotYet,
    Well,
    Failed(String),
}

/// Whether the schedule of a run is there: for one that was deleted nothing more is begun.
pub(super) async fn is_scheduled(unit: &mut Unit<'_>, run: RunId) -> Result<bool, Error> {
    let schedule = unit.load::<BackupSchedule>(&run.schedule.to_string()).await?;
    Ok(schedule.live().is_some())
}

/// Looks at an application before something is begun on it.
pub(super) async fn found(
    unit: &mut Unit<'_>,
    application: &ApplicationId,
) -> Result<Found, Error> {
    let state = unit.load::<Application>(application.as_str()).await?;
    Ok(match (&state, state.current()) {
        (Application::Absent | Application::Removed, _) => {
            Found::Never("the application is gone".to_owned())
        }
        (Application::Failed(_), _) => {
            Found::Never("the application failed to deploy and holds nothing".to_owned())
        }
        (Application::Live(_), None) => Found::Free,
        (Application::Live(_), Some(current)) => {
            let kind = current.kind.as_str();
            let state = if current.stuck { "is stuck" } else { "was still running" };
            Found::Occupied(format!("operation {} ({kind}) {state}", current.operation))
        }
    })
}

pub(super) async fn judge(unit: &mut Unit<'_>, run: RunId, command: Command) -> Result<(), Error> {
    let judged = unit.apply::<BackupRun>(&run.to_string(), command).await;
    judged.map(drop).map_err(|refused| {
        refused.or_else(|why| Error::conflict("backup_schedule.state", why.to_string()))
    })
}

fn failed(application: &ApplicationId, backup: Option<BackupId>, problem: String) -> Outcome {
    Outcome {
        application: application.clone(),
        result: RunResult::Failed,
        backup,
        problem: Some(problem),
        pruned: Vec::new(),
    }
}
