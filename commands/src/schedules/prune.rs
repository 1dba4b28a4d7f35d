//! After a scheduled backup: which older ones of the same schedule and application go.
//!
//! The choice rests on the records themselves, which are loaded into the append that begins a
//! removal: when one of them changed meanwhile, the append is stale and the choice is made anew.

use std::collections::BTreeSet;

use proximity_domain::backup::{Backup, Outcome as BackupOutcome};
use proximity_domain::backup_run::{Command, Open, RunId, Stage};
use proximity_domain::backup_schedule::retention::{Candidate, excess};
use proximity_domain::backup_schedule::{Outcome, RunResult};
use proximity_domain::{ApplicationId, BackupId};

use super::run::{Found, Step, found, is_scheduled, judge};
use super::{Schedules, calendar};
use crate::dispatch::{Tried, Unit, load};
use crate::error::Error;

impl Schedules {
    /// Begins the next removal, or closes the application when none is left. `made`: the backups of
    /// the schedule and application that there is a record of.
    pub(super) async fn prune(
        &self,
        run: RunId,
        open: &Open,
        application: &ApplicationId,
        made: Vec<BackupId>,
    ) -> Result<Step, Tried> {
        let stage = open.targets.get(application);
        let asked: &[BackupId] = match stage {
            Some(Stage::Pruning { asked, .. }) => asked,
            _ => &[],
        };
        let mut unit = self.unit(run, open, "backup.prune").await?;
        if !is_scheduled(&mut unit, run).await? {
            return self.close_pruned(run, open, application, None).await;
        }
        let candidates = self.candidates(&mut unit, run, open, application, &made).await?;
        let keep = open.planned.settings.keep;
        let next = excess(keep, &candidates).into_iter().find(|backup| !asked.contains(backup));
        let Some(next) = next else {
            return self.close_pruned(run, open, application, None).await;
        };
        match found(&mut unit, application).await? {
            Found::Occupied(reason) => {
                let problem = format!("older backups were not removed: {reason}");
                let outcome = self.pruned(open, application, Some(problem)).await?;
                let until = stage.and_then(Stage::until);
                return self.defer_or(run, open, until, outcome).await;
            }
            // The application is gone or holds nothing: its backups are its owner's to remove.
            Found::Never(_) => return self.close_pruned(run, open, application, None).await,
            Found::Free => {}
        }
        let accepted = self.applications.begin_backup_deletion(&mut unit, next).await?;
        let begin = Command::BeginPruning {
            application: application.clone(),
            backup: next,
            operation: accepted.operation,
        };
        judge(&mut unit, run, begin).await?;
        unit.commit().await?;
        Ok(Step::Taken)
    }

    /// Closes an application whose backup was made.
    pub(super) async fn close_pruned(
        &self,
        run: RunId,
        open: &Open,
        application: &ApplicationId,
        problem: Option<String>,
    ) -> Result<Step, Tried> {
        let outcome = self.pruned(open, application, problem).await?;
        self.close(run, open, outcome).await
    }

    /// The completed backups of this schedule and application, as their own streams say.
    async fn candidates(
        &self,
        unit: &mut Unit<'_>,
        run: RunId,
        open: &Open,
        application: &ApplicationId,
        made: &[BackupId],
    ) -> Result<Vec<Candidate>, Error> {
        if open.planned.settings.keep.keeps_all() {
            return Ok(Vec::new());
        }
        let calendar = calendar(&open.planned.settings)?;
        // What the log had shown a moment ago, and in any case the one that this run made.
        let own = match open.targets.get(application) {
            Some(Stage::Making { backup, .. } | Stage::Pruning { made: backup, .. }) => {
                Some(backup)
            }
            Some(Stage::Waiting { .. } | Stage::Closed(_)) | None => None,
        };
        let all: BTreeSet<&BackupId> = made.iter().chain(own).collect();
        let mut candidates = Vec::new();
        for backup in all {
            let state = unit.load::<Backup>(&backup.to_string()).await?;
            let Some(kept) = state.kept() else { continue };
            let Some(scheduled) = kept.requested.scheduled else { continue };
            let is_ours =
                scheduled.schedule == run.schedule && kept.requested.application == *application;
            if is_ours && matches!(kept.outcome, BackupOutcome::Completed(_)) {
                let in_use = kept.current.is_some();
                let (backup, at) = (*backup, scheduled.at);
                let one = Candidate { backup, at, day: 0, week: 0, month: 0, in_use };
                candidates.push(calendar.placed(one));
            }
        }
        Ok(candidates)
    }

    /// The outcome for an application whose backup was made: which of the removals that were asked
    /// for have ended well.
    async fn pruned(
        &self,
        open: &Open,
        application: &ApplicationId,
        problem: Option<String>,
    ) -> Result<Outcome, Error> {
        let (backup, asked): (BackupId, &[BackupId]) = match open.targets.get(application) {
            Some(Stage::Making { backup, .. }) => (*backup, &[]),
            Some(Stage::Pruning { made, asked, .. }) => (*made, asked),
            Some(Stage::Waiting { .. } | Stage::Closed(_)) | None => {
                return Err(Error::internal("no backup was made", application.to_string()));
            }
        };
        let (mut pruned, mut left) = (Vec::new(), Vec::new());
        for backup in asked {
            let (state, _) = load::<Backup>(&self.applications.store, &backup.to_string()).await?;
            if state == Backup::Deleted { pruned.push(*backup) } else { left.push(*backup) }
        }
        let problem = problem.or_else(|| {
            let left: Vec<String> = left.iter().map(BackupId::to_string).collect();
            (!left.is_empty())
                .then(|| format!("these backups could not be removed: {}", left.join(", ")))
        });
        Ok(Outcome {
            application: application.clone(),
            result: RunResult::Completed,
            backup: Some(backup),
            problem,
            pruned,
        })
    }
}
