//! Copies an application's container: from a snapshot while it runs, or while it is stopped.

use async_trait::async_trait;
use proximity_domain::operation::Finding;
use proximity_domain::plan::{ClonePlan, CloneWay, Plan};
use proximity_domain::{AddressMode, NodeName, Vmid};

use super::guest::{Found, not_ours, said};
use super::place::Place;
use super::step::{Step, StepError};
use super::work::Work;
use crate::marker::Marker;
use crate::network;
use crate::ports::{GuestConfig, NewCopy};

/// Locks that a broken-off step of a copy leaves on the source.
const OUR_LOCKS: [&str; 3] = ["snapshot", "snapshot-delete", "disk"];

/// `snapshot_source`: what the copy is made from while the source runs on.
pub(super) struct SnapshotSource;

#[async_trait]
impl Step for SnapshotSource {
    fn name(&self) -> &'static str {
        "snapshot_source"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.cloning()?;
        let (vmid, name) = (plan.source_guest.vmid, snapshot(plan)?);
        if work.recovering {
            work.settle(vmid).await?;
        }
        let (node, _) = work.source(plan).await?;
        if work.has_snapshot(&node, plan, name).await? {
            return Ok(None);
        }
        let ended = work.run(work.hypervisor.create_snapshot(&node, vmid, name)).await?;
        if work.has_snapshot(&node, plan, name).await? {
            return Ok(None);
        }
        let said = said(ended);
        let why = format!("no snapshot came of it: {said}");
        // Asked before; its storage was changed since.
        if said.contains("snapshot feature is not available") {
            return Err(StepError::permanent(why));
        }
        Err(StepError::retryable(why))
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        work.ensure_no_snapshot(work.cloning()?).await
    }
}

/// `clone_container`: the copy, stopped, under its own marker.
pub(super) struct CloneContainer;

#[async_trait]
impl Step for CloneContainer {
    fn name(&self) -> &'static str {
        "clone_container"
    }

    async fn makes(&self, work: &Work<'_>) -> Result<Option<Place>, StepError> {
        let plan = work.cloning()?;
        let (node, config) = work.source(plan).await?;
        Ok(Some(Place::beside(&plan.guest, node, &config)))
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.cloning()?;
        let source = plan.source_guest.vmid;
        if work.recovering {
            work.settle(source).await?;
        }
        if work.has_copy(plan).await? {
            return Ok(None);
        }
        if work.recovering {
            work.ensure_no_volumes(&plan.guest).await?;
        }
        let (node, _) = work.source(plan).await?;
        let marker =
            Marker { application: work.application().clone(), operation: work.hold.operation };
        let copy = NewCopy {
            vmid: plan.guest.vmid,
            hostname: plan.holdings.hostname.clone(),
            description: work.env.markers.describe(&marker, &plan.guest.cluster, plan.guest.vmid),
            snapshot: match &plan.way {
                CloneWay::Snapshot { name } => Some(name.clone()),
                CloneWay::Stopped | CloneWay::Downtime => None,
            },
        };
        let ended = match work.run(work.hypervisor.copy(&node, source, &copy)).await {
            // Taken a moment after the look: by whom, the next look says, when no task works on it.
            Err(StepError::VmidTaken) => {
                work.settle(source).await?;
                None
            }
            other => other?,
        };
        if work.has_copy(plan).await? {
            return Ok(None);
        }
        Err(StepError::retryable(format!("no container came of it: {}", said(ended))))
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        let plan = work.cloning()?;
        // A copy's task goes by the number of its source.
        work.settle(plan.source_guest.vmid).await?;
        work.ensure_gone(&plan.guest).await?;
        work.ensure_no_volumes(&plan.guest).await
    }
}

/// `remove_snapshot`: the copy does not need it any more.
pub(super) struct RemoveSnapshot;

#[async_trait]
impl Step for RemoveSnapshot {
    fn name(&self) -> &'static str {
        "remove_snapshot"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        work.ensure_no_snapshot(work.cloning()?).await.map(|()| None)
    }

    /// Nobody needs it: the undo of `snapshot_source` sees to it that it is gone.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

/// `stop_source`: for the time of the copy, as its owner has allowed.
pub(super) struct StopSource;

#[async_trait]
impl Step for StopSource {
    fn name(&self) -> &'static str {
        "stop_source"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.cloning()?;
        if work.recovering {
            work.settle(plan.source_guest.vmid).await?;
        }
        let (node, _) = work.source(plan).await?;
        work.ensure_stopped(&node, plan.source_guest.vmid, false).await?;
        Ok(None)
    }

    /// It ran before the copy, so it runs after a copy that failed.
    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        let plan = work.cloning()?;
        work.settle(plan.source_guest.vmid).await?;
        match work.find_of(&plan.source, &plan.source_guest).await? {
            Found::Ours { node, .. } => work.ensure_started(&node, plan.source_guest.vmid).await,
            Found::Nothing | Found::Foreign | Found::Creating => Ok(()),
        }
    }
}

/// `start_source`: as soon as the copy is there.
pub(super) struct StartSource;

#[async_trait]
impl Step for StartSource {
    fn name(&self) -> &'static str {
        "start_source"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.cloning()?;
        if work.recovering {
            work.settle(plan.source_guest.vmid).await?;
        }
        let (node, _) = work.source(plan).await?;
        work.ensure_started(&node, plan.source_guest.vmid).await?;
        Ok(None)
    }

    /// Left to the undo of `stop_source`, which wants it running.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

/// `configure_clone`: an address of its own instead of the source's, and protection.
pub(super) struct ConfigureClone;

#[async_trait]
impl Step for ConfigureClone {
    fn name(&self) -> &'static str {
        "configure_clone"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.cloning()?;
        let (node, config) = match work.find(&plan.guest).await? {
            Found::Ours { node, config } => (node, config),
            Found::Creating => return Err(StepError::retryable("the copy is still being made")),
            Found::Nothing => return Err(StepError::permanent("the copy is gone")),
            Found::Foreign => return Err(not_ours(plan.guest.vmid)),
        };
        let address = plan
            .holdings
            .address
            .filter(|_| plan.network.mode() == AddressMode::Static)
            .map(|address| (address, &plan.network));
        let nets = network::readdressed(&config.rest, address);
        if nets.is_empty() && config.protection {
            return Ok(None);
        }
        work.before_effect().await?;
        work.hypervisor.set_networks(&node, plan.guest.vmid, &nets, &config.digest).await?;
        Ok(None)
    }

    /// The copy is removed as a whole.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

fn snapshot(plan: &ClonePlan) -> Result<&str, StepError> {
    match &plan.way {
        CloneWay::Snapshot { name } => Ok(name),
        CloneWay::Stopped | CloneWay::Downtime => {
            Err(StepError::permanent("this copy is made without a snapshot"))
        }
    }
}

impl Work<'_> {
    pub(super) fn cloning(&self) -> Result<&ClonePlan, StepError> {
        match &self.progress.plan {
            Plan::Clone(plan) => Ok(plan),
            _ => Err(StepError::permanent("this step belongs to a clone")),
        }
    }

    /// The source's node and configuration, for steps that need it to be there and its application's.
    async fn source(&self, plan: &ClonePlan) -> Result<(NodeName, GuestConfig), StepError> {
        match self.find_of(&plan.source, &plan.source_guest).await? {
            Found::Ours { node, config } => Ok((node, config)),
            Found::Creating => Err(StepError::retryable("the source is being created")),
            Found::Nothing => Err(StepError::permanent("the source's container is gone")),
            Found::Foreign => Err(not_ours(plan.source_guest.vmid)),
        }
    }

    async fn has_snapshot(
        &self,
        node: &NodeName,
        plan: &ClonePlan,
        name: &str,
    ) -> Result<bool, StepError> {
        let names = self.hypervisor.snapshots(node, plan.source_guest.vmid).await?;
        Ok(names.iter().any(|known| known == name))
    }

    /// Whether the copy is there and whole.
    async fn has_copy(&self, plan: &ClonePlan) -> Result<bool, StepError> {
        match self.find(&plan.guest).await? {
            Found::Ours { config, .. } if config.lock.is_none() => Ok(true),
            Found::Ours { .. } | Found::Creating => {
                Err(StepError::retryable("the copy is locked by a creation that no task works on"))
            }
            Found::Foreign => Err(StepError::VmidTaken),
            Found::Nothing => Ok(false),
        }
    }

    /// Sees to it that the source has neither our snapshot nor a lock that making or removing it left.
    async fn ensure_no_snapshot(&self, plan: &ClonePlan) -> Result<(), StepError> {
        let (vmid, name) = (plan.source_guest.vmid, snapshot(plan)?);
        self.settle(vmid).await?;
        let node = match self.find_of(&plan.source, &plan.source_guest).await? {
            Found::Ours { node, .. } => node,
            // Its snapshots went with it.
            Found::Nothing => return Ok(()),
            Found::Foreign => return self.ensure_anothers(vmid, name).await,
            Found::Creating => return Err(StepError::retryable("the source is being created")),
        };
        if self.has_snapshot(&node, plan, name).await? {
            let ended = self.run(self.hypervisor.delete_snapshot(&node, vmid, name)).await?;
            if self.has_snapshot(&node, plan, name).await? {
                let why = format!("the snapshot {name} is still there: {}", said(ended));
                return Err(StepError::retryable(why));
            }
        }
        let (_, config) = self.source(plan).await?;
        match config.lock.as_deref().filter(|lock| OUR_LOCKS.contains(lock)) {
            None => Ok(()),
            Some(lock) => Err(StepError::retryable(format!(
                "container {vmid} carries the lock `{lock}`, and no task works on it"
            ))),
        }
    }

    /// Sees to it that what does not carry the source's marker is another container: one with our snapshot
    /// is the source all the same, and nothing of it is touched while its notes do not say so.
    async fn ensure_anothers(&self, vmid: Vmid, snapshot: &str) -> Result<(), StepError> {
        let guests = self.hypervisor.guests().await?;
        let Some(there) = guests.into_iter().find(|guest| guest.vmid == vmid) else {
            return Err(StepError::retryable("whether the source is gone cannot be told yet"));
        };
        if !there.is_container {
            return Ok(());
        }
        let names = self.hypervisor.snapshots(&there.node, vmid).await?;
        if names.iter().all(|known| known != snapshot) {
            return Ok(());
        }
        Err(StepError::retryable(format!(
            "the snapshot {snapshot} is on container {vmid}, which does not carry the marker of the source \
             now, so it is not touched"
        )))
    }
}
