//! The archive that a restore is made from: that it is the recorded one, what its notes say, that it can be
//! restored where it is to be, and that it holds what is destroyed for it.

use proximity_domain::NodeName;
use proximity_domain::backup::Backup;
use proximity_domain::host::Host;
use proximity_domain::plan::{GuestRef, RestorePlan};

use super::step::StepError;
use super::work::Work;
use crate::dispatch::load;
use crate::marker::Belongs;
use crate::ports::{ArchivedConfig, GuestConfig, Volume};
use crate::room;
use crate::volumes::{self, Belongings};

impl Work<'_> {
    /// Sees that the recorded archive is there, and is of the container that was stored.
    pub(super) async fn ensure_listed(
        &self,
        plan: &RestorePlan,
        stored: &GuestRef,
    ) -> Result<Volume, StepError> {
        let listed = self.hypervisor.volumes(&plan.guest.node, &plan.storage, "backup").await?;
        match listed.into_iter().find(|volume| volume.id == plan.archive) {
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
            Some(volume) => Ok(volume),
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

    /// Fails where Proxmox restores the archive for nobody but `root@pam`, and the host's credential is
    /// not his: it may have been changed since the restore was asked for.
    pub(super) async fn may_mount(
        &self,
        plan: &RestorePlan,
        archived: &ArchivedConfig,
    ) -> Result<(), StepError> {
        let Some(why) = volumes::needs_root(archived) else { return Ok(()) };
        let loaded = load::<Host>(&self.env.store, &plan.guest.host.to_string()).await;
        let (host, _) = loaded.map_err(StepError::Store)?;
        if host.registration().is_none_or(|host| host.connection.is_root()) {
            return Ok(());
        }
        Err(StepError::permanent(why))
    }

    /// Fails where there is no room for the disks any more; a storage that is not listed concludes nothing.
    pub(super) async fn ensure_room(
        &self,
        plan: &RestorePlan,
        archived: &ArchivedConfig,
        archive: &Volume,
    ) -> Result<(), StepError> {
        let storages = self.hypervisor.storages(&plan.guest.node).await?;
        let takes = storages.iter().find(|storage| storage.name == plan.disk_storage);
        match takes.and_then(|storage| room::missing(storage, archived, archive)) {
            Some(missing) => Err(StepError::permanent(missing)),
            None => Ok(()),
        }
    }

    /// Fails before a container is destroyed that has volumes whose contents the archive does not have,
    /// or snapshots, unless somebody agreed to that: it may have got them since the restore was asked for.
    pub(super) async fn loses_nothing(
        &self,
        plan: &RestorePlan,
        node: &NodeName,
        config: &GuestConfig,
    ) -> Result<(), StepError> {
        if plan.lose_volumes {
            return Ok(());
        }
        let vmid = plan.original.vmid;
        let belongings = Belongings::of(self.hypervisor.as_ref(), node, vmid, config).await?;
        if belongings.is_empty() {
            return Ok(());
        }
        let archived = self.hypervisor.archived(&plan.guest.node, &plan.archive).await?;
        let Some(lost) = belongings.not_held(&archived) else { return Ok(()) };
        Err(StepError::permanent(format!(
            "container {vmid} has what the backup does not hold, and is not destroyed: {lost}; move \
             volumes to another container (`pct move-volume {vmid} <key> --target-vmid <number>`) or \
             remove them, remove snapshots (`pct delsnapshot {vmid} <name>`), then resume this operation"
        )))
    }
}

/// Fails where a container that is to be overwritten is on another node than the one that is asked to.
pub(super) fn not_moved(plan: &RestorePlan, node: &NodeName) -> Result<(), StepError> {
    if *node == plan.guest.node {
        return Ok(());
    }
    Err(StepError::permanent(format!(
        "the container has moved to node {node}, and the restore was planned on {}",
        plan.guest.node
    )))
}
