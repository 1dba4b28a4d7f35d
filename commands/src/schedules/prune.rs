//! After a scheduled backup: which older ones of the same schedule and application go.
//!
//! The choice rests on the records themselves, which are loaded into the append that begins a
//! removal: when one of them changed meanwhile, the append is stale and the choice is made anew. A record
//! whose archive is not there keeps nothing: before a removal the storages are asked.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use proximity_domain::application::Application;
use proximity_domain::backup::{Backup, Outcome as BackupOutcome};
use proximity_domain::backup_run::{Command, Open, RunId, Stage};
use proximity_domain::backup_schedule::retention::{Candidate, Retention, excess};
use proximity_domain::backup_schedule::{Outcome, RunResult};
use proximity_domain::plan::GuestRef;
use proximity_domain::{ApplicationId, BackupId, HostId, NodeName};

use super::run::{Found, Step, found, is_scheduled, judge};
use super::{Schedules, calendar};
use crate::dispatch::{Tried, Unit, load};
use crate::error::Error;

/// A backup that may be kept or not, and where its archive was stored.
struct Stored {
    candidate: Candidate,
    guest: GuestRef,
    storage: String,
    volume: String,
}

/// A node, and the host by which it is reached.
type GuestNode = (HostId, NodeName);

/// A storage as it was read.
struct Place {
    /// The node that was asked.
    node: NodeName,
    /// The ids of all archives on it, or why they cannot be read.
    archives: Result<BTreeSet<String>, String>,
}

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
        let stored = self.recorded(&mut unit, run, open, application, &made).await?;
        let keep = open.planned.settings.keep;
        // Leaving some out only ever keeps more: where there is nothing to remove, none is looked for.
        if next(keep, stored.iter().map(|one| one.candidate), asked).is_none() {
            let problem = match asked {
                [] => None,
                _ => self.listed(&mut unit, application, stored).await?.1,
            };
            return self.close_pruned(run, open, application, problem).await;
        }
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
        let (listed, problem) = self.listed(&mut unit, application, stored).await?;
        let Some(next) = next(keep, listed, asked) else {
            return self.close_pruned(run, open, application, problem).await;
        };
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
    async fn recorded(
        &self,
        unit: &mut Unit<'_>,
        run: RunId,
        open: &Open,
        application: &ApplicationId,
        made: &[BackupId],
    ) -> Result<Vec<Stored>, Error> {
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
        let mut stored = Vec::new();
        for backup in all {
            let state = unit.load::<Backup>(&backup.to_string()).await?;
            let Some(kept) = state.kept() else { continue };
            let Some(scheduled) = kept.requested.scheduled else { continue };
            let is_ours =
                scheduled.schedule == run.schedule && kept.requested.application == *application;
            if let (true, BackupOutcome::Completed(archive)) = (is_ours, &kept.outcome) {
                let in_use = kept.current.is_some();
                let (backup, at) = (*backup, scheduled.at);
                let one = Candidate { backup, at, day: 0, week: 0, month: 0, in_use };
                stored.push(Stored {
                    candidate: calendar.placed(one),
                    guest: kept.requested.guest.clone(),
                    storage: kept.requested.storage.clone(),
                    volume: archive.volume.clone(),
                });
            }
        }
        Ok(stored)
    }

    /// Those whose archives are seen to be there, and what is to be said of the others: these neither
    /// count as kept nor are removed.
    async fn listed(
        &self,
        unit: &mut Unit<'_>,
        application: &ApplicationId,
        stored: Vec<Stored>,
    ) -> Result<(Vec<Candidate>, Option<String>), Error> {
        let state = unit.load::<Application>(application.as_str()).await?;
        let present = state.live().map(|live| &live.requested.guest.node);
        let mut places: BTreeMap<(GuestNode, String), Place> = BTreeMap::new();
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for Stored { candidate, guest, storage, volume } in stored {
            let place = match places.entry(((guest.host, guest.node.clone()), storage.clone())) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let at = self.applications.reached(guest, &storage, present).await?;
                    let archives = self.archives(&at, &storage).await;
                    unknown.insert(Place { node: at.node, archives })
                }
            };
            match &place.archives {
                Ok(volumes) if volumes.contains(&volume) => there.push(candidate),
                // What is being removed may be gone already.
                Ok(_) if !candidate.in_use => gone.push(candidate.backup.to_string()),
                Ok(_) | Err(_) => {}
            }
        }
        let mut problems: Vec<String> = Vec::new();
        for ((_, storage), Place { node, archives }) in places {
            if let Err(why) = archives {
                problems.push(format!(
                    "nothing was removed from storage {storage} of node {node}, which could not be \
                     read: {why}"
                ));
            }
        }
        if !gone.is_empty() {
            problems.push(format!(
                "the archives of these backups are not on their storages, so they do not count as kept: \
                 {}; delete those that are lost",
                gone.join(", ")
            ));
        }
        Ok((there, (!problems.is_empty()).then(|| problems.join("; "))))
    }

    async fn archives(&self, at: &GuestRef, storage: &str) -> Result<BTreeSet<String>, String> {
        let hypervisor = self.applications.hypervisors.of(at.host).await;
        let hypervisor = hypervisor.map_err(|error| error.to_string())?;
        let volumes = hypervisor.volumes(&at.node, storage, "backup").await;
        let volumes = volumes.map_err(|error| error.to_string())?;
        Ok(volumes.into_iter().map(|volume| volume.id).collect())
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
        let left: Vec<String> = left.iter().map(BackupId::to_string).collect();
        let left = (!left.is_empty())
            .then(|| format!("these backups could not be removed: {}", left.join(", ")));
        let problems: Vec<String> = problem.into_iter().chain(left).collect();
        Ok(Outcome {
            application: application.clone(),
            result: RunResult::Completed,
            backup: Some(backup),
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
            pruned,
        })
    }
}

/// The oldest one that no rule keeps and that was not asked for yet.
fn next(
    keep: Retention,
    candidates: impl IntoIterator<Item = Candidate>,
    asked: &[BackupId],
) -> Option<BackupId> {
    let candidates: Vec<Candidate> = candidates.into_iter().collect();
    excess(keep, &candidates).into_iter().find(|backup| !asked.contains(backup))
}
