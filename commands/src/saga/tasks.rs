//! Waiting for Proxmox's tasks: those that a step started, and any other about the same number.

use std::future::Future;
use std::time::{Duration, Instant};

use super::step::StepError;
use super::work::Work;
use crate::ports::{HypervisorError, TaskState, Upid};
use proximity_domain::Vmid;
use proximity_domain::plan::Plan;

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

    /// Waits for a task of ours, and keeps the end of its log.
    pub(super) async fn wait(&self, upid: &Upid) -> Result<Ended, StepError> {
        let ended = self.outwait(upid).await?;
        self.keep_log(upid, &ended).await;
        Ok(ended)
    }

    /// Waits for a task; one that runs past its time is asked to end, and waited for a little more.
    async fn outwait(&self, upid: &Upid) -> Result<Ended, StepError> {
        let config = &self.env.config;
        let patience = self.patience();
        let mut deadline = Instant::now() + patience;
        let mut aborted = false;
        let mut deaf = 0;
        loop {
            match self.hypervisor.task(upid).await {
                Ok(Some(TaskState::Running)) => deaf = 0,
                Ok(Some(TaskState::Succeeded { .. })) => return Ok(Ended::Well),
                Ok(Some(TaskState::Failed(text))) => return Ok(Ended::Badly(text)),
                Ok(Some(TaskState::Unknown) | None) => return Ok(Ended::Unknown),
                // The task runs on whether we hear of it or not; a few deaf moments are no outcome.
                Err(error) => {
                    deaf += 1;
                    if deaf > config.act_attempts * 4 {
                        return Err(StepError::unknown(error.to_string()));
                    }
                }
            }
            if Instant::now() >= deadline {
                if aborted {
                    return Err(StepError::unknown(format!("task {upid} does not end")));
                }
                tracing::warn!(operation = %self.hold.operation, task = %upid, "a task runs too long");
                self.before_effect().await?;
                self.hypervisor.abort_task(upid).await?;
                aborted = true;
                deadline = Instant::now() + patience;
            }
            self.pause(config.poll).await?;
        }
    }

    /// How long a task may run before it is asked to end.
    fn patience(&self) -> Duration {
        match self.progress.plan {
            Plan::Clone(_) | Plan::Backup(_) | Plan::Restore(_) => self.env.config.disks_patience,
            _ => self.env.config.task_patience,
        }
    }

    /// Before a step is tried again: waits until no task about this number runs on any node.
    pub(super) async fn settle(&self, vmid: Vmid) -> Result<(), StepError> {
        if let Some(upid) = &self.task {
            // How it ended is for the guest to tell; here it only has to be over.
            self.wait(upid).await?;
        }
        for task in self.hypervisor.tasks_of(vmid).await? {
            if task.state == TaskState::Running {
                self.outwait(&task.upid).await?;
            }
        }
        Ok(())
    }

    /// Whether a task about this number runs anywhere.
    pub(super) async fn is_busy(&self, vmid: Vmid) -> Result<bool, StepError> {
        let tasks = self.hypervisor.tasks_of(vmid).await?;
        Ok(tasks.iter().any(|task| task.state == TaskState::Running))
    }
}
