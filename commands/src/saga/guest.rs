//! Whose guest is it, is it there at all, and making it go: the only place that destroys anything.

use proximity_domain::plan::GuestRef;
use proximity_domain::{ApplicationId, NodeName, Vmid};

use super::step::StepError;
use super::tasks::Ended;
use super::work::Work;
use crate::marker::Belongs;
use crate::ports::GuestConfig;

/// What stands under a number.
#[derive(Debug)]
pub(super) enum Found {
    /// The cluster holds no guest under it. Alone this concludes nothing: see `ensure_absent`.
    Nothing,
    /// Ours: its marker verifies, and it is this application's.
    Ours { node: NodeName, config: GuestConfig },
    /// A creation runs or was broken off: the config says nobody's name, its task decides.
    Creating,
    /// Someone else's.
    Foreign,
}

impl Work<'_> {
    /// Looks for the guest on its node, and on all others when it is not there.
    pub(super) async fn find(&self, guest: &GuestRef) -> Result<Found, StepError> {
        self.find_of(self.application(), guest).await
    }

    /// The same for another application's guest that the operation is about.
    pub(super) async fn find_of(
        &self,
        application: &ApplicationId,
        guest: &GuestRef,
    ) -> Result<Found, StepError> {
        let lost = match self.hypervisor.config(&guest.node, guest.vmid).await {
            Ok(Some(config)) => {
                return self.judge(application, guest, guest.node.clone(), config).await;
            }
            Ok(None) => None,
            // Its node is down: the others know whether anything stands under the number, and where.
            Err(error) if self.is_lost(&error).await => Some(error),
            Err(error) => return Err(error.into()),
        };
        if self.hypervisor.vmid_is_free(guest.vmid).await? {
            return Ok(Found::Nothing);
        }
        // It is somewhere: migrated, or a stranger's on another node.
        let guests = self.hypervisor.guests().await?;
        let Some(there) = guests.into_iter().find(|other| other.vmid == guest.vmid) else {
            return Err(StepError::retryable("the guest is neither listed nor is its number free"));
        };
        if !there.is_container {
            return Ok(Found::Foreign);
        }
        if let Some(error) = lost.filter(|_| there.node == guest.node) {
            return Err(error.into());
        }
        match self.hypervisor.config(&there.node, guest.vmid).await? {
            Some(config) => self.judge(application, guest, there.node, config).await,
            None => Err(StepError::retryable("the guest is on the move")),
        }
    }

    /// What a destruction of ours has left over is no outcome but a failure: nothing can be done with
    /// it, and it is not gone. Of others' leftovers it is only said that they are not ours.
    async fn judge(
        &self,
        application: &ApplicationId,
        guest: &GuestRef,
        node: NodeName,
        config: GuestConfig,
    ) -> Result<Found, StepError> {
        if config.is_being_created() {
            return Ok(Found::Creating);
        }
        if config.is_destroyed() && self.has_begun_to_destroy(guest.vmid).await? {
            return Err(half_destroyed(&node, guest.vmid));
        }
        let description = config.description.as_deref();
        Ok(match self.env.markers.judge(description, &guest.cluster, guest.vmid) {
            Belongs::Ours(marker) if marker.application == *application => {
                Found::Ours { node, config }
            }
            Belongs::Ours(_) | Belongs::Foreign => Found::Foreign,
        })
    }

    /// The guest's node, for steps that need it to be there and ours.
    pub(super) async fn ours(&self, guest: &GuestRef) -> Result<NodeName, StepError> {
        match self.find(guest).await? {
            Found::Ours { node, .. } => Ok(node),
            Found::Creating => Err(self.locked_by_creation(guest).await),
            Found::Nothing => Err(StepError::permanent("the container is gone")),
            Found::Foreign => Err(not_ours(guest.vmid)),
        }
    }

    /// Why nothing can be done with a container that is a creation's lock and nothing else, and what has
    /// to be done when no task works on it: Proxmox itself destroys nothing that is locked.
    pub(super) async fn locked_by_creation(&self, guest: &GuestRef) -> StepError {
        let GuestRef { node, vmid, .. } = guest;
        match self.is_busy(*vmid).await {
            Ok(true) => StepError::retryable("the container is being created"),
            Ok(false) => StepError::retryable(format!(
                "the container is locked by a creation that was broken off, and no task works on it: on \
                 node {node} run `pct unlock {vmid} && pct destroy {vmid} --purge`"
            )),
            Err(error) => error,
        }
    }

    /// Whether our guest runs.
    pub(super) async fn runs(&self, node: &NodeName, vmid: Vmid) -> Result<bool, StepError> {
        match self.hypervisor.status(node, vmid).await? {
            Some(status) => Ok(status.running),
            None => Err(StepError::retryable("the container has no status")),
        }
    }

    /// Absent means: a quorate cluster takes the number for free, and no task about it runs. A guest
    /// on a node that is down is not absent: its number is taken.
    pub(super) async fn is_absent(&self, vmid: Vmid) -> Result<bool, StepError> {
        if !self.hypervisor.identity().await?.quorate {
            let why = "the cluster has no quorum, so whether the container is gone cannot be told";
            return Err(StepError::retryable(why));
        }
        Ok(!self.is_busy(vmid).await? && self.hypervisor.vmid_is_free(vmid).await?)
    }

    /// Makes sure that no guest of this application is left under the number. A stranger's stays
    /// untouched, and counts as nothing of ours.
    pub(super) async fn ensure_gone(&self, guest: &GuestRef) -> Result<(), StepError> {
        self.settle(guest.vmid).await?;
        match self.find(guest).await? {
            Found::Foreign => Ok(()),
            Found::Nothing => {
                if self.is_absent(guest.vmid).await? {
                    Ok(())
                } else {
                    Err(StepError::retryable("whether the container is gone cannot be told yet"))
                }
            }
            Found::Creating => Err(self.broken_off(guest).await),
            // A copy carries its marker from its first moment.
            Found::Ours { config, .. } if config.lock.as_deref() == Some("create") => {
                Err(self.broken_off(guest).await)
            }
            Found::Ours { node, config } => {
                self.ensure_stopped(&node, guest.vmid, true).await?;
                self.ensure_unprotected(&node, guest.vmid, &config).await?;
                self.destroy(guest).await
            }
        }
    }

    /// Stops our guest: gracefully first, unless `hard`.
    pub(super) async fn ensure_stopped(
        &self,
        node: &NodeName,
        vmid: Vmid,
        hard: bool,
    ) -> Result<(), StepError> {
        if !self.runs(node, vmid).await? {
            return Ok(());
        }
        if !hard {
            let timeout = self.env.config.shutdown_s;
            match self.run(self.hypervisor.shutdown(node, vmid, timeout)).await {
                // One that does not listen ends as a task error; its power is cut below.
                Ok(_) => {}
                Err(StepError::Failed(failure)) => {
                    tracing::info!(operation = %self.hold.operation, failure.message, "no graceful stop");
                }
                Err(other) => return Err(other),
            }
            if !self.runs(node, vmid).await? {
                return Ok(());
            }
        }
        let ended = self.run(self.hypervisor.stop(node, vmid)).await?;
        if self.runs(node, vmid).await? {
            return Err(StepError::retryable(format!("the container still runs: {}", said(ended))));
        }
        Ok(())
    }

    /// Starts our guest.
    pub(super) async fn ensure_started(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<(), StepError> {
        if self.runs(node, vmid).await? {
            return Ok(());
        }
        let ended = self.run(self.hypervisor.start(node, vmid)).await?;
        if self.runs(node, vmid).await? {
            return Ok(());
        }
        Err(StepError::retryable(format!("the container does not run: {}", said(ended))))
    }

    /// Takes the protection off the very configuration whose marker was read.
    pub(super) async fn ensure_unprotected(
        &self,
        node: &NodeName,
        vmid: Vmid,
        config: &GuestConfig,
    ) -> Result<(), StepError> {
        if config.protection { self.protect(node, vmid, config, false).await } else { Ok(()) }
    }

    /// Sets or takes off the protection, if the configuration is still the one that was read.
    pub(super) async fn protect(
        &self,
        node: &NodeName,
        vmid: Vmid,
        config: &GuestConfig,
        on: bool,
    ) -> Result<(), StepError> {
        self.before_effect().await?;
        Ok(self.hypervisor.set_protection(node, vmid, on, &config.digest).await?)
    }

    /// Destroys a stopped, unprotected guest after one more look that it is ours.
    pub(super) async fn destroy(&self, guest: &GuestRef) -> Result<(), StepError> {
        let node = match self.find(guest).await? {
            Found::Ours { node, .. } => node,
            Found::Nothing if self.is_absent(guest.vmid).await? => return Ok(()),
            Found::Nothing => {
                return Err(StepError::retryable(
                    "whether the container is gone cannot be told yet",
                ));
            }
            Found::Creating => return Err(self.locked_by_creation(guest).await),
            Found::Foreign => return Err(not_ours(guest.vmid)),
        };
        let ended = self.run(self.hypervisor.destroy(&node, guest.vmid)).await?;
        if self.is_absent(guest.vmid).await? {
            return Ok(());
        }
        Err(StepError::retryable(format!("the container is still there: {}", said(ended))))
    }
}

pub(super) fn not_ours(vmid: Vmid) -> StepError {
    StepError::permanent(format!("container {vmid} {NO_MARKER}, so it is not touched"))
}

/// Said of a container that is not this application's.
const NO_MARKER: &str = "does not carry the marker of this application";

/// Whether this is why nothing was done with a container.
pub(super) fn is_not_ours(reason: &str) -> bool {
    reason.starts_with("container ") && reason.contains(NO_MARKER)
}

/// What is known of a task's end, for a message.
pub(super) fn said(ended: Option<Ended>) -> String {
    match ended {
        None => "Proxmox says that it was so already".to_owned(),
        Some(Ended::Well) => "its task ended well".to_owned(),
        Some(Ended::Badly(text)) => text,
        Some(Ended::Unknown) => "its task was broken off".to_owned(),
    }
}

/// What stands before the words of what is to be done, in a failure and in what is made of it.
const HALF_DESTROYED: &str = "its destruction was broken off";

/// Its disks are gone, and Proxmox refuses to destroy what is locked.
fn half_destroyed(node: &NodeName, vmid: Vmid) -> StepError {
    StepError::retryable(format!(
        "{HALF_DESTROYED}: on node {node} run `pct unlock {vmid} && pct destroy {vmid} --purge`, then \
         resume the operation"
    ))
}

/// What an operator has to do about what a destruction has left over, if this is the reason.
pub(super) fn rest_of_destruction(reason: &str) -> Option<String> {
    let (_, todo) = reason.split_once(HALF_DESTROYED)?;
    todo.strip_prefix(": ").map(str::to_owned)
}
