//! Starts and stops an application's container.

use async_trait::async_trait;
use proximity_domain::operation::Finding;
use proximity_domain::plan::{GuestRef, Plan};

use super::guest::Found;
use super::step::{Step, StepError};
use super::work::Work;

/// `start`: the last step but one of a deployment, the first of a start.
pub(super) struct Start;

#[async_trait]
impl Step for Start {
    fn name(&self) -> &'static str {
        "start"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        start(work).await
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        if work.was_so_already().await? {
            return Ok(());
        }
        stop_if_there(work, work.guest()?).await
    }
}

/// `stop`: gracefully, then by cutting the power, or at once when asked to.
pub(super) struct Stop;

#[async_trait]
impl Step for Stop {
    fn name(&self) -> &'static str {
        "stop"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        stop(work).await
    }

    /// An application that would not stop is left running.
    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        if work.was_so_already().await? {
            return Ok(());
        }
        start_if_there(work).await
    }
}

/// `stop` of a restart.
pub(super) struct StopFirst;

#[async_trait]
impl Step for StopFirst {
    fn name(&self) -> &'static str {
        "stop"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        stop(work).await
    }

    /// It ran before the restart, so it runs after a restart that failed.
    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        start_if_there(work).await
    }
}

/// `start` of a restart.
pub(super) struct StartAgain;

#[async_trait]
impl Step for StartAgain {
    fn name(&self) -> &'static str {
        "start"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        start(work).await
    }

    /// Left to the undo of `stop`, which wants it running.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

async fn start(work: &Work<'_>) -> Result<Option<Finding>, StepError> {
    let guest = work.guest()?;
    if work.recovering {
        work.settle(guest.vmid).await?;
    }
    let node = work.ours(guest).await?;
    work.ensure_started(&node, guest.vmid).await?;
    Ok(None)
}

async fn stop(work: &Work<'_>) -> Result<Option<Finding>, StepError> {
    let guest = work.guest()?;
    if work.recovering {
        work.settle(guest.vmid).await?;
    }
    let node = work.ours(guest).await?;
    let hard = work.power().is_some_and(|plan| plan.force);
    work.ensure_stopped(&node, guest.vmid, hard).await?;
    Ok(None)
}

/// Stops our guest if there is one; a stranger's stays as it is.
pub(super) async fn stop_if_there(work: &Work<'_>, guest: &GuestRef) -> Result<(), StepError> {
    work.settle(guest.vmid).await?;
    match work.find(guest).await? {
        Found::Ours { node, .. } => work.ensure_stopped(&node, guest.vmid, true).await,
        // What is being created does not run; a deployment's next undo deals with it.
        Found::Nothing | Found::Foreign | Found::Creating => Ok(()),
    }
}

/// Starts our guest if there is one and the plan says that it ran before.
pub(super) async fn start_if_there(work: &Work<'_>) -> Result<(), StepError> {
    let guest = work.guest()?;
    work.settle(guest.vmid).await?;
    let ran = match &work.progress.plan {
        Plan::Delete(plan) => plan.was_running,
        Plan::Backup(plan) => plan.was_running,
        Plan::BackupDelete(plan) => plan.was_running,
        Plan::Restore(plan) => plan.was_running,
        Plan::Deploy(_)
        | Plan::Start(_)
        | Plan::Stop(_)
        | Plan::Restart(_)
        | Plan::Clone(_)
        | Plan::Adopt(_) => true,
    };
    match work.find(guest).await? {
        Found::Ours { node, .. } if ran => work.ensure_started(&node, guest.vmid).await,
        Found::Ours { .. } | Found::Nothing | Found::Foreign | Found::Creating => Ok(()),
    }
}
