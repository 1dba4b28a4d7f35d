//! Restores an application from an archive: into a container of its own that takes the old one's place
//! once it has been seen healthy, or over the old one when asked to.

use async_trait::async_trait;
use proximity_domain::NodeName;
use proximity_domain::operation::{FailureClass, Finding};
use proximity_domain::plan::{GuestRef, Plan, RestorePlan};

use super::archived::not_moved;
use super::backup::classed;
use super::finish;
use super::guest::{Found, not_ours, said};
use super::place::Place;
use super::step::{Step, StepError};
use super::tasks::Ended;
use super::work::Work;
use crate::marker::{Belongs, Marker};
use crate::ports::{GuestConfig, NewRestored};

/// `check_archive`: it is listed, can be read, and can be restored over the container as far as that can
/// be told, before anything is overwritten for it.
pub(super) struct CheckArchive;

#[async_trait]
impl Step for CheckArchive {
    fn name(&self) -> &'static str {
        "check_archive"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.restoring()?;
        let archive = work.ensure_listed(plan, &work.stored_guest(plan).await?).await?;
        // One whose configuration cannot be read can be restored by nobody.
        let archived = work.hypervisor.archived(&plan.guest.node, &plan.archive).await?;
        work.may_mount(plan, &archived).await?;
        work.ensure_room(plan, &archived, &archive).await?;
        not_moved(plan, &work.ours(&plan.guest).await?)?;
        Ok(None)
    }

    /// A look has nothing to take back.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

/// `restore_container`: the archive in a new container, stopped, under its own marker and with its
/// process.
pub(super) struct RestoreContainer;

#[async_trait]
impl Step for RestoreContainer {
    fn name(&self) -> &'static str {
        "restore_container"
    }

    async fn makes(&self, work: &Work<'_>) -> Result<Option<Place>, StepError> {
        let plan = work.restoring()?;
        Ok(Some(Place::on(&plan.guest, &plan.disk_storage)))
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.restoring()?;
        if work.recovering {
            work.settle(plan.guest.vmid).await?;
        }
        if work.is_restored_anew(plan).await? {
            work.ensure_restored_process(plan).await?;
            return Ok(None);
        }
        if work.recovering {
            work.ensure_no_volumes(&plan.guest).await?;
        }
        let (notes, pool) = match work.find(&plan.original).await? {
            Found::Ours { config, .. } => {
                (work.notes(&plan.original, &config), work.pool_of(&plan.original).await?)
            }
            Found::Nothing | Found::Foreign | Found::Creating => {
                let stored = work.stored_guest(plan).await?;
                (work.notes_in_archive(plan, &stored).await?, None)
            }
        };
        let ended = work.extract_anew(plan, &notes, pool).await?;
        if work.is_restored_anew(plan).await? {
            work.ensure_restored_process(plan).await?;
            return Ok(None);
        }
        Err(match ended {
            Some(Ended::Badly(text)) => classed(text),
            other => StepError::retryable(format!("no container came of it: {}", said(other))),
        })
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        let guest = &work.restoring()?.guest;
        work.ensure_gone(guest).await?;
        work.ensure_no_volumes(guest).await
    }
}

/// `stop_original`: two of one application never run at once.
pub(super) struct StopOriginal;

#[async_trait]
impl Step for StopOriginal {
    fn name(&self) -> &'static str {
        "stop_original"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.restoring()?;
        let original = &plan.original;
        if work.recovering {
            work.settle(original.vmid).await?;
        }
        match work.find(original).await? {
            Found::Ours { node, config } => {
                // It can still be taken back here.
                work.loses_nothing(plan, &node, &config).await?;
                work.ensure_stopped(&node, original.vmid, false).await?;
            }
            // Removed by hand meanwhile: nothing of it runs.
            Found::Nothing | Found::Foreign => {}
            Found::Creating => return Err(work.locked_by_creation(original).await),
        }
        Ok(None)
    }

    /// It ran before the restore, so it runs after one that failed.
    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        let plan = work.restoring()?;
        work.settle(plan.original.vmid).await?;
        match work.find(&plan.original).await? {
            Found::Ours { node, .. } if plan.was_running => {
                work.ensure_started(&node, plan.original.vmid).await
            }
            Found::Ours { .. } | Found::Nothing | Found::Foreign | Found::Creating => Ok(()),
        }
    }
}

/// `stop_restored`: the application was stopped, and is again once it has been seen healthy.
pub(super) struct StopRestored;

#[async_trait]
impl Step for StopRestored {
    fn name(&self) -> &'static str {
        "stop_restored"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let guest = &work.restoring()?.guest;
        if work.recovering {
            work.settle(guest.vmid).await?;
        }
        let node = work.ours(guest).await?;
        work.ensure_stopped(&node, guest.vmid, false).await?;
        Ok(None)
    }

    /// The restored container is removed as a whole.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

/// `swap`: from here on the restored container is the application's, and there is no way back.
pub(super) struct Swap;

#[async_trait]
impl Step for Swap {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn is_pivot(&self) -> bool {
        true
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.restoring()?;
        let node = work.ours(&plan.guest).await?;
        let to = GuestRef { node, ..plan.guest.clone() };
        finish::swap(work.env, work.hold, work.progress, to).await.map(|()| None)
    }

    /// Never asked for: a pivot is only ever gone forward from.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Err(StepError::permanent("the restored container is the application's already"))
    }
}

/// `destroy_original`, which nobody needs any more.
pub(super) struct DestroyOriginal;

#[async_trait]
impl Step for DestroyOriginal {
    fn name(&self) -> &'static str {
        "destroy_original"
    }

    fn is_pivot(&self) -> bool {
        true
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.restoring()?;
        if let Found::Ours { node, config } = work.find(&plan.original).await? {
            work.loses_nothing(plan, &node, &config).await?;
        }
        work.ensure_gone(&plan.original).await.map(|()| None)
    }

    /// Never asked for: a pivot is only ever gone forward from.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Err(StepError::permanent("a destroyed container cannot be brought back"))
    }
}

/// `unprotect_original`: Proxmox overwrites no container that is protected.
pub(super) struct UnprotectOriginal;

#[async_trait]
impl Step for UnprotectOriginal {
    fn name(&self) -> &'static str {
        "unprotect_original"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.restoring()?;
        let original = &plan.original;
        match work.find(original).await? {
            Found::Ours { node, config } => {
                not_moved(plan, &node)?;
                work.ensure_unprotected(&node, original.vmid, &config).await?;
                Ok(None)
            }
            Found::Nothing => Err(StepError::permanent("the container is gone")),
            Found::Foreign => Err(not_ours(original.vmid)),
            Found::Creating => Err(work.locked_by_creation(original).await),
        }
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        let original = &work.restoring()?.original;
        match work.find(original).await? {
            Found::Ours { node, config } if !config.protection => {
                work.protect(&node, original.vmid, &config, true).await
            }
            Found::Ours { .. } | Found::Nothing | Found::Foreign | Found::Creating => Ok(()),
        }
    }
}

/// `overwrite`: from its intent on there is no way back, since Proxmox destroys the old disks before it
/// extracts anything. When
/// the restore fails then, the container is gone as a whole, and the archive is restored anew under the
/// same number.
pub(super) struct Overwrite;

#[async_trait]
impl Step for Overwrite {
    fn name(&self) -> &'static str {
        "overwrite"
    }

    fn is_pivot(&self) -> bool {
        true
    }

    async fn makes(&self, work: &Work<'_>) -> Result<Option<Place>, StepError> {
        let plan = work.restoring()?;
        Ok(match work.find(&plan.guest).await? {
            Found::Ours { config, .. } => {
                Some(Place::over(&plan.guest, &plan.disk_storage, &config))
            }
            Found::Nothing | Found::Foreign | Found::Creating => None,
        })
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.restoring()?;
        if work.recovering {
            work.settle(plan.guest.vmid).await?;
        }
        let ended = match work.standing(plan).await? {
            Standing::Overwritten => {
                return work.ensure_restored_process(plan).await.map(|()| None);
            }
            Standing::Before(node, config) => {
                not_moved(plan, &node)?;
                work.loses_nothing(plan, &node, &config).await?;
                // Started or protected by hand since the steps before, or by a try that failed.
                work.ensure_stopped(&node, plan.guest.vmid, false).await?;
                work.ensure_unprotected(&node, plan.guest.vmid, &config).await?;
                work.extract(plan, &work.notes(&plan.guest, &config), None, true).await?
            }
            Standing::Lost => {
                // Disks of a try that was broken off; the container's own went with it.
                work.ensure_no_volumes(&plan.guest).await?;
                let stored = work.stored_guest(plan).await?;
                work.ensure_listed(plan, &stored).await?;
                let notes = work.notes_in_archive(plan, &stored).await?;
                work.extract_anew(plan, &notes, None).await?
            }
        };
        match (work.standing(plan).await?, ended) {
            (Standing::Overwritten, _) => work.ensure_restored_process(plan).await.map(|()| None),
            (_, Some(Ended::Badly(text))) => Err(classed(text)),
            (_, other) => {
                Err(StepError::retryable(format!("nothing was restored: {}", said(other))))
            }
        }
    }

    /// Never asked for: a pivot is only ever gone forward from.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Err(StepError::permanent("what was overwritten cannot be brought back"))
    }
}

/// What stands under the number of a container that is restored in place.
enum Standing {
    /// The container as it was before, and its node.
    Before(NodeName, GuestConfig),
    /// This operation has overwritten it.
    Overwritten,
    /// Nothing: a restore that failed has destroyed it.
    Lost,
}

impl Work<'_> {
    fn restoring(&self) -> Result<&RestorePlan, StepError> {
        match &self.progress.plan {
            Plan::Restore(plan) => Ok(plan),
            _ => Err(StepError::permanent("this step belongs to a restore")),
        }
    }

    /// The owner's own notes of a container of this application.
    fn notes(&self, guest: &GuestRef, config: &GuestConfig) -> String {
        let description = config.description.as_deref().unwrap_or_default();
        self.env.markers.unmark(description, &guest.cluster, guest.vmid)
    }

    /// The resource pool of a container, which a new number is not in by itself.
    async fn pool_of(&self, guest: &GuestRef) -> Result<Option<String>, StepError> {
        let guests = self.hypervisor.guests().await?;
        Ok(guests.into_iter().find(|other| other.vmid == guest.vmid).and_then(|other| other.pool))
    }

    /// Restores into a number under which nothing stands.
    async fn extract_anew(
        &self,
        plan: &RestorePlan,
        notes: &str,
        pool: Option<String>,
    ) -> Result<Option<Ended>, StepError> {
        let pooled = pool.is_some();
        let asked = match self.extract(plan, notes, pool, false).await {
            // The pool may be gone, or closed to the credential: the data matters more.
            Err(StepError::Failed(refused))
                if pooled && refused.class == FailureClass::Permanent =>
            {
                tracing::warn!(operation = %self.hold.operation, refused.message, "not into its pool");
                self.extract(plan, notes, None, false).await
            }
            other => other,
        };
        match asked {
            // Taken a moment after the look: by whom, the next look says.
            Err(StepError::VmidTaken) => {
                self.settle(plan.guest.vmid).await?;
                Ok(None)
            }
            other => other,
        }
    }

    /// Asks Proxmox to restore the archive under our own description; the archive has another one's.
    async fn extract(
        &self,
        plan: &RestorePlan,
        notes: &str,
        pool: Option<String>,
        overwrite: bool,
    ) -> Result<Option<Ended>, StepError> {
        let marker =
            Marker { application: self.application().clone(), operation: self.hold.operation };
        let GuestRef { cluster, node, vmid, .. } = &plan.guest;
        let wanted = NewRestored {
            vmid: *vmid,
            archive: plan.archive.clone(),
            storage: plan.disk_storage.clone(),
            description: self.env.markers.mark(notes, &marker, cluster, *vmid),
            pool,
            overwrite,
        };
        self.run(self.hypervisor.restore(node, &wanted)).await
    }

    /// Whether the new container is there and whole.
    async fn is_restored_anew(&self, plan: &RestorePlan) -> Result<bool, StepError> {
        match self.find(&plan.guest).await? {
            Found::Ours { config, .. } if config.lock.is_none() => Ok(true),
            Found::Ours { .. } | Found::Creating => Err(StepError::retryable(
                "the restored container is locked by a creation that no task works on",
            )),
            Found::Foreign => Err(StepError::VmidTaken),
            Found::Nothing => Ok(false),
        }
    }

    /// How far a restore in place has come.
    async fn standing(&self, plan: &RestorePlan) -> Result<Standing, StepError> {
        let GuestRef { cluster, vmid, .. } = &plan.guest;
        match self.find(&plan.guest).await? {
            Found::Ours { node, config } => {
                if let Some(lock) = &config.lock {
                    return Err(StepError::retryable(format!(
                        "the container carries the lock `{lock}`, and no task works on it"
                    )));
                }
                let belongs = self.env.markers.judge(config.description.as_deref(), cluster, *vmid);
                let done = matches!(belongs, Belongs::Ours(marker) if marker.operation == self.hold.operation);
                Ok(if done { Standing::Overwritten } else { Standing::Before(node, config) })
            }
            Found::Creating => Err(self.broken_off_over(&plan.guest).await),
            Found::Nothing if self.is_absent(*vmid).await? => Ok(Standing::Lost),
            Found::Nothing => {
                Err(StepError::retryable("whether the container is gone cannot be told yet"))
            }
            Found::Foreign => Err(not_ours(*vmid)),
        }
    }
}
