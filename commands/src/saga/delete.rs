//! Removes an application's container: stop, unprotect, destroy.

use async_trait::async_trait;
use proximity_domain::operation::Finding;

use super::guest::{Found, not_ours};
use super::power::start_if_there;
use super::step::{Step, StepError};
use super::work::Work;

/// `stop` of a deletion.
pub(super) struct StopGuest;

#[async_trait]
impl Step for StopGuest {
    fn name(&self) -> &'static str {
        "stop"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let guest = work.guest()?;
        if work.recovering {
            work.settle(guest.vmid).await?;
        }
        match work.find(guest).await? {
            Found::Ours { node, .. } => work.ensure_stopped(&node, guest.vmid, false).await?,
            // Deleted by hand: the last step makes sure of it.
            Found::Nothing => {}
            Found::Creating => return Err(work.locked_by_creation(guest).await),
            Found::Foreign => return Err(not_ours(guest.vmid)),
        }
        Ok(None)
    }

    /// What ran before runs again.
    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        start_if_there(work).await
    }
}

/// `unprotect`.
pub(super) struct Unprotect;

#[async_trait]
impl Step for Unprotect {
    fn name(&self) -> &'static str {
        "unprotect"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let guest = work.guest()?;
        match work.find(guest).await? {
            Found::Ours { node, config } => {
                work.ensure_unprotected(&node, guest.vmid, &config).await?;
            }
            Found::Nothing => {}
            Found::Creating => return Err(work.locked_by_creation(guest).await),
            Found::Foreign => return Err(not_ours(guest.vmid)),
        }
        Ok(None)
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        let guest = work.guest()?;
        match work.find(guest).await? {
            Found::Ours { node, config } if !config.protection => {
                work.protect(&node, guest.vmid, &config, true).await
            }
            Found::Ours { .. } | Found::Nothing | Found::Foreign | Found::Creating => Ok(()),
        }
    }
}

/// `destroy`: from its intent on there is no way back.
pub(super) struct Destroy;

#[async_trait]
impl Step for Destroy {
    fn name(&self) -> &'static str {
        "destroy"
    }

    fn is_pivot(&self) -> bool {
        true
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let guest = work.guest()?;
        if work.recovering {
            work.settle(guest.vmid).await?;
        }
        // A try before this one may have lost its protection's removal to a change by hand.
        if let Found::Ours { node, config } = work.find(guest).await? {
            work.ensure_unprotected(&node, guest.vmid, &config).await?;
        }
        work.destroy(guest).await?;
        Ok(None)
    }

    /// Never asked for: a pivot is only ever gone forward from.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Err(StepError::permanent("a destroyed container cannot be brought back"))
    }
}
