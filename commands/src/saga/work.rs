//! What a step is given: the plan and its findings, the cluster, and the means to record a task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proximity_domain::application::Application;
use proximity_domain::operation::{Command, Direction, Operation, Progress};
use proximity_domain::plan::{DeployPlan, GuestRef, Plan, PowerPlan};
use proximity_domain::{ApplicationId, OperationId};
use proximity_eventstore::{Fence, Store};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::config::SagaConfig;
use super::step::{Hooks, StepError};
use super::task_log::{self, TaskLog};
use crate::actor::{Actor, Metadata};
use crate::clock::Clock;
use crate::dispatch::{AppendFaults, Retries, Unit, load};
use crate::error::Error;
use crate::marker::Markers;
use crate::ports::{Hypervisor, Hypervisors, Prober, SecretReader, Upid};

/// Everything that operations are carried out with.
#[derive(Clone)]
pub struct Env {
    pub store: Store,
    pub hypervisors: Arc<dyn Hypervisors>,
    pub markers: Markers,
    pub secrets: Arc<dyn SecretReader>,
    pub prober: Arc<dyn Prober>,
    pub clock: Arc<dyn Clock>,
    pub config: SagaConfig,
    /// Tells this runner's claims from others'. The same after a restart, so that it takes its own
    /// operations up again at once.
    pub runner: Uuid,
    pub hooks: Option<Arc<dyn Hooks>>,
}

impl Env {
    /// A unit of work for what was found out.
    pub(super) fn outcome(&self, metadata: Metadata, fence: Option<Fence>) -> Unit<'_> {
        let faults = self.hooks.clone().map(|hooks| hooks as Arc<dyn AppendFaults>);
        Unit::outcome(&self.store, metadata, fence).with_faults(faults)
    }
}

/// A runner's hold on one operation.
pub(super) struct Hold {
    pub(super) operation: OperationId,
    epoch: u64,
    until: Mutex<Instant>,
    lost: AtomicBool,
}

impl Hold {
    /// Takes the claim; `None` when another runner has it.
    pub(super) async fn take(env: &Env, operation: OperationId) -> Result<Option<Self>, Error> {
        let asked = Instant::now();
        let claim = env
            .store
            .claim(&operation.to_string(), env.runner, env.config.claim)
            .await
            .map_err(|error| Error::internal("a claim cannot be taken", error))?;
        Ok(claim.map(|claim| Self {
            operation,
            epoch: claim.epoch,
            until: Mutex::new(asked + claim.expires_in),
            lost: AtomicBool::new(false),
        }))
    }

    /// Sees to it that the claim outlives a call that begins now, by the monotonic clock.
    pub(super) async fn outlive(&self, env: &Env, call: Duration) -> Result<(), StepError> {
        let mut until = self.until.lock().await;
        let now = Instant::now();
        if until.saturating_duration_since(now) > call {
            return Ok(());
        }
        let id = self.operation.to_string();
        match env.store.renew(&id, env.runner, self.epoch, env.config.claim).await {
            Ok(true) => {
                *until = now + env.config.claim;
                Ok(())
            }
            Ok(false) => {
                self.lost.store(true, Ordering::Relaxed);
                Err(StepError::LetGo("another runner has taken the operation over"))
            }
            Err(error) => Err(StepError::Store(Error::internal("a claim cannot be kept", error))),
        }
    }

    /// What makes a stale runner's appends fail.
    pub(super) fn fence(&self) -> Fence {
        Fence { claim: self.operation.to_string(), epoch: self.epoch }
    }

    /// Gives the claim up so that another runner may go on at once.
    pub(super) async fn release(self, env: &Env) {
        let id = self.operation.to_string();
        if let Err(error) = env.store.release(&id, env.runner, self.epoch).await {
            tracing::warn!(operation = %id, %error, "a claim was not given up; it will expire");
        }
    }
}

/// One try of one step.
pub struct Work<'a> {
    pub(super) env: &'a Env,
    pub(super) hold: &'a Hold,
    pub(super) progress: &'a Progress,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) stopping: &'a CancellationToken,
    pub(super) step: &'static str,
    pub(super) direction: Direction,
    /// An earlier try may have had its effect: look before anything else.
    pub(super) recovering: bool,
    /// The task that an earlier try started.
    pub(super) task: Option<Upid>,
    /// What is kept of the tasks that it waited for, to be stored with its outcome.
    pub(super) logs: Mutex<Vec<TaskLog>>,
    /// The operation was found cancelled while it waited: nothing more is begun.
    pub(super) cancelled: AtomicBool,
}

impl Work<'_> {
    pub(super) fn application(&self) -> &ApplicationId {
        &self.progress.application
    }

    pub(super) fn guest(&self) -> Result<&GuestRef, StepError> {
        self.progress.plan.guest().ok_or_else(|| StepError::permanent("the plan names no guest"))
    }

    pub(super) fn deployment(&self) -> Result<&DeployPlan, StepError> {
        match &self.progress.plan {
            Plan::Deploy(plan) => Ok(plan),
            _ => Err(StepError::permanent("this step belongs to a deployment")),
        }
    }

    pub(super) fn power(&self) -> Option<&PowerPlan> {
        match &self.progress.plan {
            Plan::Start(plan) | Plan::Stop(plan) | Plan::Restart(plan) => Some(plan),
            Plan::Deploy(_) | Plan::Delete(_) | Plan::Clone(_) | Plan::Adopt(_) => None,
            Plan::Backup(_) | Plan::BackupDelete(_) | Plan::Restore(_) => None,
        }
    }

    /// Whether it was to start what was recorded as running, or to stop what was recorded as stopped,
    /// since Proxmox could not be asked. Taken back, it leaves the container as it is.
    pub(super) async fn was_so_already(&self) -> Result<bool, StepError> {
        Ok(match &self.progress.plan {
            Plan::Start(_) => ran(self.env, self.progress).await?,
            Plan::Stop(_) => !ran(self.env, self.progress).await?,
            _ => false,
        })
    }

    /// Before an effect: the claim outlives the call, and nobody asked the process or the operation
    /// to end. A stop whose graceful way was broken off by a cancel must not go on to the hard one.
    pub(super) async fn before_effect(&self) -> Result<(), StepError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(StepError::retryable("the operation was cancelled"));
        }
        self.still_ours().await
    }

    /// The same for an effect that is right for a cancelled operation, too.
    pub(super) async fn still_ours(&self) -> Result<(), StepError> {
        self.go_on()?;
        self.hold.outlive(self.env, self.env.config.longest_call).await
    }

    /// Between two looks: whether to go on at all.
    pub(super) fn go_on(&self) -> Result<(), StepError> {
        if self.stopping.is_cancelled() {
            return Err(StepError::LetGo("the server is stopping"));
        }
        Ok(())
    }

    /// A pause between two looks; the claim is kept alive, and a stop ends it at once.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), StepError> {
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        self.go_on()?;
        self.hold.outlive(self.env, self.env.config.longest_call).await
    }

    /// Stores the id of the task that runs for this step, as soon as it is known.
    pub(super) async fn note_task(&self, upid: &Upid) -> Result<(), StepError> {
        let command = Command::NoteTask {
            step: self.step.to_owned(),
            direction: self.direction,
            upid: upid.0.clone(),
        };
        record(self.env, self.hold, self.progress, "operation.note_task", command).await
    }
}

/// What the log says that the application's container did before this operation.
pub(super) async fn ran(env: &Env, progress: &Progress) -> Result<bool, StepError> {
    let state = load::<Application>(&env.store, progress.application.as_str()).await;
    let (state, _) = state.map_err(StepError::Store)?;
    Ok(state.live().is_some_and(|live| live.running))
}

/// What stands beside everything that a runner stores.
pub(super) fn metadata(progress: &Progress, hold: &Hold, command: &'static str) -> Metadata {
    Metadata {
        on_behalf_of: Some(progress.owner),
        ..Actor::system("operations")
            .metadata(command)
            .owned_by(progress.owner)
            .correlated(hold.operation)
    }
}

/// Says that an append follows from the operation's last event that it has seen.
pub(super) fn follows(unit: &mut Unit<'_>, operation: &str) {
    if let Some(sequence) = unit.sequence::<Operation>(operation) {
        unit.caused_by(format!("operation/{operation}/{sequence}"));
    }
}

/// Stores one event of the operation alone, under the claim.
pub(super) async fn record(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    name: &'static str,
    command: Command,
) -> Result<(), StepError> {
    record_with(env, hold, progress, name, command, &[]).await
}

/// The same with what tasks have said.
pub(super) async fn record_with(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    name: &'static str,
    command: Command,
    logs: &[TaskLog],
) -> Result<(), StepError> {
    let id = hold.operation.to_string();
    let mut retries = Retries::default();
    loop {
        let mut unit = env.outcome(metadata(progress, hold, name), Some(hold.fence()));
        unit.apply::<Operation>(&id, command.clone()).await.map_err(|refused| {
            let context = "the operation refused a record";
            StepError::Store(refused.or_else(|error| Error::internal(context, error)))
        })?;
        follows(&mut unit, &id);
        for log in logs {
            unit.write(task_log::row(hold.operation, log));
        }
        match unit.commit().await {
            Ok(_) => return Ok(()),
            Err(error) => retries.again(error.into()).await.map_err(StepError::Store)?,
        }
    }
}
