//! Marks a container that someone else made as an application's, and takes the mark off again.

use async_trait::async_trait;
use proximity_domain::operation::Finding;
use proximity_domain::plan::{AdoptPlan, Plan};

use super::guest::Found;
use super::step::{Step, StepError};
use super::work::Work;
use crate::marker::{Belongs, Marker};

/// `mark_container`: our marker below its notes, and nothing else of it.
pub(super) struct MarkContainer;

#[async_trait]
impl Step for MarkContainer {
    fn name(&self) -> &'static str {
        "mark_container"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.adoption()?;
        if !work.is_marked(plan).await? {
            work.mark(plan).await?;
            if !work.is_marked(plan).await? {
                return Err(StepError::retryable("the marker is not in its notes"));
            }
        }
        let (node, vmid) = (&plan.guest.node, plan.guest.vmid);
        // One that is stopped has none, and one that has none now may get one later.
        let addresses = work.hypervisor.addresses(node, vmid).await?;
        Ok(addresses.into_iter().next().map(Finding::Address))
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        work.unmark().await
    }
}

/// `unmark_container`: the end of an adopted application. From its intent on there is no way back,
/// since a container without our marker is not ours to mark again.
pub(super) struct UnmarkContainer;

#[async_trait]
impl Step for UnmarkContainer {
    fn name(&self) -> &'static str {
        "unmark_container"
    }

    fn is_pivot(&self) -> bool {
        true
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        work.unmark().await.map(|()| None)
    }

    /// Never asked for: a pivot is only ever gone forward from.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Err(StepError::permanent("a container that was given back is not ours to mark again"))
    }
}

impl Work<'_> {
    fn adoption(&self) -> Result<&AdoptPlan, StepError> {
        match &self.progress.plan {
            Plan::Adopt(plan) => Ok(plan),
            _ => Err(StepError::permanent("this step belongs to an adoption")),
        }
    }

    /// Whether it carries this application's marker; another application's is refused.
    async fn is_marked(&self, plan: &AdoptPlan) -> Result<bool, StepError> {
        let (node, vmid) = (&plan.guest.node, plan.guest.vmid);
        let Some(config) = self.hypervisor.config(node, vmid).await? else {
            return Err(StepError::permanent("the container is gone, or on another node"));
        };
        let description = config.description.as_deref();
        match self.env.markers.judge(description, &plan.guest.cluster, vmid) {
            Belongs::Ours(marker) if marker.application == *self.application() => Ok(true),
            Belongs::Ours(marker) => Err(StepError::permanent(format!(
                "the container belongs to the application {}",
                marker.application
            ))),
            Belongs::Foreign => Ok(false),
        }
    }

    /// Marks the very configuration that was captured.
    async fn mark(&self, plan: &AdoptPlan) -> Result<(), StepError> {
        let (node, vmid) = (&plan.guest.node, plan.guest.vmid);
        let Some(config) = self.hypervisor.config(node, vmid).await? else {
            return Err(StepError::permanent("the container is gone, or on another node"));
        };
        if let Some(lock) = &config.lock {
            return Err(StepError::retryable(format!("the container is locked ({lock})")));
        }
        if config.digest != plan.digest {
            return Err(StepError::permanent(
                "the container was changed after its configuration was captured: adopt it again",
            ));
        }
        let marker =
            Marker { application: self.application().clone(), operation: self.hold.operation };
        let notes = config.description.as_deref().unwrap_or_default();
        let text = self.env.markers.mark(notes, &marker, &plan.guest.cluster, vmid);
        self.before_effect().await?;
        Ok(self.hypervisor.set_description(node, vmid, &text, &config.digest).await?)
    }

    /// Takes this application's marker off, wherever the container is; a stranger's stays as it is.
    async fn unmark(&self) -> Result<(), StepError> {
        let guest = self.guest()?;
        let Found::Ours { node, config } = self.find(guest).await? else { return Ok(()) };
        let description = config.description.as_deref().unwrap_or_default();
        let notes = self.env.markers.unmark(description, &guest.cluster, guest.vmid);
        self.before_effect().await?;
        self.hypervisor.set_description(&node, guest.vmid, &notes, &config.digest).await?;
        match self.find(guest).await? {
            Found::Ours { .. } => Err(StepError::retryable("the marker is still in its notes")),
            Found::Nothing | Found::Foreign | Found::Creating => Ok(()),
        }
    }
}
