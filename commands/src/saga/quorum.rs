//! A cluster without quorum takes no change: nothing is begun on it that would end half-way.

use proximity_domain::operation::{Operation, Progress};
use proximity_domain::plan::Plan;
use tokio_util::sync::CancellationToken;

use super::step::StepError;
use super::work::{Env, Hold};
use crate::dispatch::load;

/// Why an operation ends before its first step.
const NO_QUORUM: &str = "the cluster has no quorum, so nothing can be changed on it until more of its \
                         nodes are up";

/// Before the first step: waits a while for the quorum that the operation needs. Why it has to end, when
/// there is none then; nothing was begun, so there is nothing to take back.
pub(super) async fn missing(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    stopping: &CancellationToken,
) -> Result<Option<String>, StepError> {
    let Some(guest) = progress.plan.guest().filter(|_| changes_configurations(&progress.plan))
    else {
        return Ok(None);
    };
    for number in 1..=env.config.act_attempts {
        // A host that cannot be asked is for the step to say, and to try again.
        let Ok(hypervisor) = env.hypervisors.of(guest.host).await else { return Ok(None) };
        match hypervisor.identity().await {
            Ok(identity) if !identity.quorate => {}
            _ => return Ok(None),
        }
        tracing::info!(operation = %hold.operation, number, "its cluster has no quorum");
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(env.config.pause(number)) => {}
        }
        if stopping.is_cancelled() {
            return Err(StepError::LetGo("the server is stopping"));
        }
        hold.outlive(env, env.config.longest_call).await?;
        let now = load::<Operation>(&env.store, &hold.operation.to_string()).await;
        let (operation, _) = now.map_err(StepError::Store)?;
        if operation.progress().is_none_or(|now| now.cancel.is_some()) {
            return Ok(None);
        }
    }
    Ok(Some(NO_QUORUM.to_owned()))
}

/// A container stops, and an archive goes, without a word in the cluster's files.
fn changes_configurations(plan: &Plan) -> bool {
    !matches!(plan, Plan::Stop(_) | Plan::BackupDelete(_))
}
