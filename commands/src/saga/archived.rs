//! The archive that a restore is made from: that it is the recorded one, what its notes say,
//! and that it holds what is destroyed for it.

use proximity_domain::backup::Backup;
use proximity_domain::plan::{GuestRef, RestorePlan};

use super::step::StepError;
use super::work::Work;
use crate::dispatch::load;
use crate::marker::Belongs;
use crate::ports::GuestConfig;
use crate::volumes;

impl Work<'_> {
    /// Sees that the recorded archive is there, and is of the container that was stored.
    pub(super) async fn ensure_listed(
        &self,
        plan: &RestorePlan,
        stored: &GuestRef,
    ) -> Result<(), StepError> {
        let listed = self.hypervisor.volumes(&plan.guest.node, &plan.storage, "backup").await?;
        match listed.iter().find(|volume| volume.id == plan.archive) {
            None => Err(StepError::permanent(format!(
                "the archive {} is not on its storage",
                plan.archive
            ))),
            Some(volume) if volume.vmid.is_some_and(|vmid| vmid != stored.vmid) => {
                Err(StepError::permanent(format!(
                    "the archive {} is not of container {}",
                    plan.archive, stored.vmid
                )))
            }
            Some(_) => Ok(()),
        }
    }

    /// The container that was stored: restores may have given the application another number since.
    pub(super) async fn stored_guest(&self, plan: &RestorePlan) -> Result<GuestRef, StepError> {
        let loaded = load::<Backup>(&self.env.store, &plan.backup.to_string()).await;
        let (backup, _) = loaded.map_err(StepError::Store)?;
        Ok(backup.kept().map_or(&plan.original, |kept| &kept.requested.guest).clone())
    }

    /// The owner's own notes as the archive has them; none when its marker is of a key that is gone.
    pub(super) async fn notes_in_archive(
        &self,
        plan: &RestorePlan,
        stored: &GuestRef,
    ) -> Result<String, StepError> {
        let config = self.hypervisor.archived(&plan.guest.node, &plan.archive).await?;
        let description = config.description.unwrap_or_default();
        let markers = &self.env.markers;
        Ok(match markers.judge(Some(&description), &stored.cluster, stored.vmid) {
            Belongs::Ours(_) => markers.unmark(&description, &stored.cluster, stored.vmid),
            Belongs::Foreign => String::new(),
        })
    }

    /// Fails before a container is destroyed that has volumes whose contents the archive does not have,
    /// unless somebody agreed to that: it may have got them since the restore was asked for.
    pub(super) async fn loses_nothing(
        &self,
        plan: &RestorePlan,
        config: &GuestConfig,
    ) -> Result<(), StepError> {
        if plan.lose_volumes || volumes::of(config).is_empty() {
            return Ok(());
        }
        let archived = self.hypervisor.archived(&plan.guest.node, &plan.archive).await?;
        let lost = volumes::not_held(config, &archived);
        if lost.is_empty() {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "container {vmid} has volumes whose contents the backup does not hold, and is not \
             destroyed: {}; move them to another container (`pct move-volume {vmid} <key> \
             --target-vmid <number>`) or remove them, then resume this operation",
            volumes::listed(&lost),
            vmid = plan.original.vmid,
        )))
    }
}
