//! Waiting for Proxmox's tasks: those that a step started, and any other about the same number.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proximity_domain::Vmid;
use proximity_domain::operation::{Direction, Operation, Phase};
use proximity_domain::plan::Plan;
use proximity_eventstore::Position;
use tokio::sync::watch;

use super::is_past_pivot;
use super::step::StepError;
use super::task_log::{self, TaskLog};
use super::work::Work;
use crate::dispatch::load;
use crate::ports::{HypervisorError, TaskState, TaskSummary, Upid};

/// Kinds of tasks after which a number has a guest or has none.
const MAKES_OR_DESTROYS: [&str; 3] = ["vzcreate", "vzrestore", "vzdestroy"];

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    /// With this text.
    Badly(String),
    /// Its worker died, or Proxmox has forgotten it: only the guest can tell.
    Unknown,
}

impl Work<'_> {
    /// Makes a call that starts a task, stores the task's id and waits for its end.
    /// `Ok(None)`: it was already so, and there was nothing to do.
    pub(super) async fn run(
        &self,
        call: impl Future<Output = Result<Upid, HypervisorError>> + Send,
    ) -> Result<Option<Ended>, StepError> {
        self.before_effect().await?;
        match call.await {
            Ok(upid) => {
                self.note_task(&upid).await?;
                self.wait(&upid).await.map(Some)
            }
            Err(HypervisorError::AlreadySo { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a task of ours, and keeps the end of its log. When its operation is cancelled it is
    /// asked to end at once: whatever the step then comes to, it is taken back.
    pub(super) async fn wait(&self, upid: &Upid) -> Result<Ended, StepError> {
        let ended = self.outwait(upid, || self.hypervisor.task(upid), None).await?;
        self.keep_log(upid, &ended).await;
        Ok(ended)
    }

    /// Waits for a task. One of ours that runs past its time is asked to end, and waited for a little
    /// more; another's is never touched, and the step fails for now.
    async fn outwait<F>(
        &self,
        upid: &Upid,
        ask: impl Fn() -> F + Send,
        another: Option<&TaskSummary>,
    ) -> Result<Ended, StepError>
    where
        F: Future<Output = Result<Option<TaskState>, HypervisorError>> + Send,
    {
        let config = &self.env.config;
        let patience = self.patience();
        let mut deadline = Instant::now() + patience;
        let mut head = self.env.store.watch_head();
        if another.is_some() {
            // It may have been waited for others before this one: a cancel of that time counts.
            head.mark_changed();
        }
        let mut aborted = false;
        let mut deaf = 0;
        loop {
            match ask().await {
                Ok(Some(TaskState::Running)) => deaf = 0,
                Ok(Some(TaskState::Succeeded { .. })) => return Ok(Ended::Well),
                Ok(Some(TaskState::Failed(text))) => return Ok(Ended::Badly(text)),
                Ok(Some(TaskState::Unknown) | None) => return Ok(Ended::Unknown),
                // Whatever ran on a node that is down has ended with it, or can change nothing.
                Err(error) if self.is_lost(&error).await => return Ok(Ended::Unknown),
                // The task runs on whether we hear of it or not; a few deaf moments are no outcome.
                Err(error) => {
                    deaf += 1;
                    if deaf > config.act_attempts * 4 {
                        return Err(StepError::unknown(error.to_string()));
                    }
                }
            }
            let overdue = Instant::now() >= deadline;
            if overdue && aborted {
                return Err(StepError::unknown(format!("task {upid} does not end")));
            }
            if self.is_cancelled(&mut head).await {
                self.cancelled.store(true, Ordering::Relaxed);
            }
            let cancelled = self.cancelled.load(Ordering::Relaxed);
            if let Some(another) = another {
                if cancelled {
                    return Err(StepError::retryable("the operation was cancelled"));
                }
                if overdue {
                    return Err(works_still(another));
                }
            }
            if (overdue || cancelled) && !aborted {
                tracing::warn!(operation = %self.hold.operation, task = %upid, overdue, "a task is asked to end");
                self.still_ours().await?;
                match self.hypervisor.abort_task(upid).await {
                    Ok(()) => {
                        aborted = true;
                        deadline = Instant::now() + patience;
                    }
                    Err(error) if overdue => return Err(error.into()),
                    // It is asked again, and may end by itself meanwhile.
                    Err(error) => {
                        tracing::info!(operation = %self.hold.operation, task = %upid, %error, "it was not asked");
                    }
                }
            }
            self.pause(config.poll).await?;
        }
    }

    /// Whether the operation was cancelled since its step began. Looked at when the log has moved.
    async fn is_cancelled(&self, head: &mut watch::Receiver<Position>) -> bool {
        if self.direction == Direction::Undo || !head.has_changed().unwrap_or(false) {
            return false;
        }
        head.mark_unchanged();
        match load::<Operation>(&self.env.store, &self.hold.operation.to_string()).await {
            Ok((operation, _)) => operation.progress().is_some_and(|now| {
                now.phase == Phase::Forward && now.cancel.is_some() && !is_past_pivot(now)
            }),
            Err(error) => {
                tracing::info!(operation = %self.hold.operation, %error, "whether it was cancelled cannot be read");
                false
            }
        }
    }

    /// Whether a call failed because the cluster has lost the node that it was for (ADR 0024).
    pub(super) async fn is_lost(&self, error: &HypervisorError) -> bool {
        let HypervisorError::Unreachable { node, .. } = error else { return false };
        match self.hypervisor.identity().await {
            Ok(identity) => identity.has_lost(node),
            Err(unasked) => {
                tracing::info!(operation = %self.hold.operation, %unasked, "its cluster cannot be asked");
                false
            }
        }
    }

    /// How long a task may run before it is asked to end.
    fn patience(&self) -> Duration {
        match self.progress.plan {
            Plan::Clone(_) | Plan::Backup(_) | Plan::Restore(_) => self.env.config.disks_patience,
            _ => self.env.config.task_patience,
        }
    }

    /// Before a step is tried again: waits until no task that may change the guest with this number
    /// runs on any node.
    pub(super) async fn settle(&self, vmid: Vmid) -> Result<(), StepError> {
        if let Some(upid) = &self.task {
            // How it ended is for the guest to tell; here it only has to be over.
            self.wait(upid).await?;
        }
        for task in self.hypervisor.tasks_of(vmid).await? {
            if !task.is_at_work() {
                continue;
            }
            let another = (!self.is_own(&task)).then_some(&task);
            if task.by_lock {
                // Over for this guest once that carries its lock no more.
                let here = || self.state_here(&task.upid, vmid);
                self.outwait(&task.upid, here, another).await?;
            } else {
                let itself = || self.hypervisor.task(&task.upid);
                self.outwait(&task.upid, itself, another).await?;
            }
        }
        Ok(())
    }

    /// How a task is listed for the guest with this number; `None` once it is not.
    async fn state_here(
        &self,
        upid: &Upid,
        vmid: Vmid,
    ) -> Result<Option<TaskState>, HypervisorError> {
        let tasks = self.hypervisor.tasks_of(vmid).await?;
        Ok(tasks.into_iter().find(|task| task.upid == *upid).map(|task| task.state))
    }

    /// Whether a task is this operation's: its id was noted, or, since the reply that named it may
    /// have been lost, nobody but this program has the token that started it. A job over several
    /// guests is never ours: we ask for one at a time; and what a copy makes is told by its source.
    fn is_own(&self, task: &TaskSummary) -> bool {
        (task.own && !task.by_lock) || self.noted().is_some_and(|noted| noted == task.upid.0)
    }

    /// The id of the last task that this step is known to have started, in this direction.
    fn noted(&self) -> Option<&str> {
        let attempt = self.progress.attempt.as_ref();
        let last = attempt.filter(|a| a.step == self.step && a.direction == self.direction);
        last.and_then(|last| last.upid.as_deref())
    }

    /// Whether a destruction of the guest with this number was begun by this operation: its id was
    /// noted, or kept with its log; or, when the reply was lost, the last that Proxmox knows of is of
    /// our own token and did not end well.
    pub(super) async fn has_begun_to_destroy(&self, vmid: Vmid) -> Result<bool, StepError> {
        let kind = format!(":vzdestroy:{vmid}:");
        if self.noted().is_some_and(|noted| noted.contains(&kind)) {
            return Ok(true);
        }
        let operation = self.hold.operation.to_string();
        let kept = task_log::of_operation(&self.env.store, &operation).await;
        let broken_off = |log: &TaskLog| log.upid.contains(&kind) && log.outcome != "OK";
        if kept.map_err(StepError::Store)?.iter().any(broken_off) {
            return Ok(true);
        }
        let tasks = self.hypervisor.tasks_of(vmid).await?;
        let last = tasks.iter().find(|task| MAKES_OR_DESTROYS.contains(&task.kind.as_str()));
        Ok(last.is_some_and(|last| {
            let well = matches!(last.state, TaskState::Succeeded { .. });
            last.own && last.kind == "vzdestroy" && !well
        }))
    }

    /// Whether a task that may change the guest with this number runs anywhere.
    pub(super) async fn is_busy(&self, vmid: Vmid) -> Result<bool, StepError> {
        let tasks = self.hypervisor.tasks_of(vmid).await?;
        Ok(tasks.iter().any(TaskSummary::is_at_work))
    }
}

/// Said of somebody else's task, which is not ours to end.
fn works_still(task: &TaskSummary) -> StepError {
    let TaskSummary { upid, node, kind, user, .. } = task;
    StepError::retryable(format!("a task of {user} still runs on node {node}: {kind} ({upid})"))
}
