//! Makes a backup and removes one: archives are known by the operation in their notes and by their
//! recorded volume id, never by a listing of a number.

use async_trait::async_trait;
use proximity_domain::backup::{Archive, Mode};
use proximity_domain::operation::{Direction, Event, FailureClass, Finding, Progress};
use proximity_domain::plan::{BackupDeletePlan, BackupPlan, Plan};
use proximity_domain::{NodeName, OperationId};

use super::guest::{Found, not_ours};
use super::step::{Step, StepError};
use super::tasks::Ended;
use super::work::Work;
use crate::error::Error;
use crate::ports::{HypervisorError, NewBackup, Upid, Volume};

/// Lines of a task's log that are read for the cause of a failure and the archive's name.
const LOG_LINES: u32 = 500;
/// Jobs whose logs are looked at when it is not known which one made the archive.
const JOBS: usize = 5;

/// The archive that the steps came to.
pub(super) fn found(progress: &Progress) -> Option<Archive> {
    progress.findings.values().find_map(|finding| match finding {
        Finding::Backup(archive) => Some(archive.clone()),
        Finding::Archive { .. } | Finding::Address(_) => None,
    })
}

/// What stands in an archive's notes, and in no other's.
fn mark(operation: OperationId) -> String {
    format!("operation={operation}")
}

/// `create_backup`.
pub(super) struct CreateBackup;

#[async_trait]
impl Step for CreateBackup {
    fn name(&self) -> &'static str {
        "create_backup"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.backup()?;
        if work.recovering {
            work.settle(plan.guest.vmid).await?;
        }
        let node = match work.find(&plan.guest).await? {
            Found::Ours { node, config } => {
                work.not_left_locked(config.lock.as_deref())?;
                node
            }
            Found::Creating => return Err(StepError::retryable("the container is being created")),
            Found::Nothing => return Err(StepError::permanent("the container is gone")),
            Found::Foreign => return Err(not_ours(plan.guest.vmid)),
        };
        if node != plan.guest.node {
            return Err(StepError::permanent(format!(
                "the container has moved to node {node}, and the storage was chosen on {}",
                plan.guest.node
            )));
        }
        let operation = work.hold.operation;
        let mut task = work.task.clone();
        if work.stored(plan, operation).await?.is_empty() {
            let wanted = NewBackup {
                vmid: plan.guest.vmid,
                storage: plan.storage.clone(),
                mode: plan.mode,
                compression: plan.compression,
                notes: format!("proximity backup={} {}", plan.backup, mark(operation)),
            };
            work.before_effect().await?;
            let asked = work.hypervisor.back_up(&node, &wanted).await;
            let upid = asked.map_err(|error| match error {
                // An answer that nobody understands is none.
                HypervisorError::Malformed { .. } => StepError::unknown(error.to_string()),
                clear => clear.into(),
            })?;
            work.note_task(&upid).await?;
            let ended = work.wait(&upid).await?;
            // A request that was carried out twice has a second job behind this one.
            work.settle(plan.guest.vmid).await?;
            if let Ended::Badly(text) = ended {
                let failed = work.why(&upid, plan, text).await;
                work.as_it_was(plan).await?;
                return Err(failed);
            }
            task = Some(upid);
        }
        work.as_it_was(plan).await?;
        let mut stored = work.stored(plan, operation).await?;
        let Some(archive) = stored.pop() else {
            return Err(StepError::retryable("no archive came of the backup"));
        };
        for surplus in stored {
            work.ensure_no_volume(&plan.guest.node, &plan.storage, &surplus.id).await?;
        }
        let mode = work.mode_of(&archive, plan, task).await?;
        Ok(Some(Finding::Backup(Archive { volume: archive.id, size: archive.size, mode })))
    }

    /// Leaves no archive, half or whole, and the container as it was.
    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        let plan = work.backup()?;
        if !work.may_have_begun().await? {
            // Whatever lock the container carries is another's, and so is what works under it.
            return Ok(());
        }
        work.settle(plan.guest.vmid).await?;
        for volume in work.stored(plan, work.hold.operation).await? {
            work.ensure_no_volume(&plan.guest.node, &plan.storage, &volume.id).await?;
        }
        if let Found::Ours { config, .. } = work.find(&plan.guest).await? {
            work.not_left_locked(config.lock.as_deref())?;
        }
        work.as_it_was(plan).await
    }
}

/// `check_backup`: the storage answers, and nobody protects the archive.
pub(super) struct CheckBackup;

#[async_trait]
impl Step for CheckBackup {
    fn name(&self) -> &'static str {
        "check_backup"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.backup_deletion()?;
        let (_, listed) = work.archives_of(plan).await?;
        match listed.iter().find(|volume| volume.protected) {
            Some(volume) => Err(StepError::permanent(format!(
                "{} was protected on Proxmox; take its protection off first",
                volume.id
            ))),
            None => Ok(None),
        }
    }

    /// A look has nothing to take back.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

/// `delete_backup`: from its intent on there is no way back.
pub(super) struct DeleteBackup;

#[async_trait]
impl Step for DeleteBackup {
    fn name(&self) -> &'static str {
        "delete_backup"
    }

    fn is_pivot(&self) -> bool {
        true
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.backup_deletion()?;
        if let Some(upid) = work.task.as_ref().filter(|_| work.recovering) {
            work.wait(upid).await?;
        }
        // Not only what is listed: a credential with too few rights is shown an empty list, and its
        // deletion is refused instead of taken for done.
        let (node, listed) = work.archives_of(plan).await?;
        let mut volumes: Vec<String> = listed.into_iter().map(|volume| volume.id).collect();
        volumes.extend(plan.archive.clone());
        volumes.sort_unstable();
        volumes.dedup();
        for volume in volumes {
            work.ensure_no_volume(&node, &plan.storage, &volume).await?;
        }
        Ok(None)
    }

    /// Never asked for: a pivot is only ever gone forward from.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Err(StepError::permanent("a removed archive cannot be brought back"))
    }
}

impl Work<'_> {
    fn backup(&self) -> Result<&BackupPlan, StepError> {
        match &self.progress.plan {
            Plan::Backup(plan) => Ok(plan),
            _ => Err(StepError::permanent("this step belongs to a backup")),
        }
    }

    fn backup_deletion(&self) -> Result<&BackupDeletePlan, StepError> {
        match &self.progress.plan {
            Plan::BackupDelete(plan) => Ok(plan),
            _ => Err(StepError::permanent("this step belongs to the removal of a backup")),
        }
    }

    /// The archives that this operation has made, the newest last.
    async fn stored(
        &self,
        plan: &BackupPlan,
        operation: OperationId,
    ) -> Result<Vec<Volume>, StepError> {
        let listed = self.hypervisor.volumes(&plan.guest.node, &plan.storage, "backup").await?;
        let mark = mark(operation);
        let mut ours: Vec<Volume> = listed
            .into_iter()
            .filter(|volume| volume.vmid.is_none_or(|vmid| vmid == plan.guest.vmid))
            .filter(|volume| volume.notes.as_deref().is_some_and(|notes| notes.contains(&mark)))
            .collect();
        ours.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(ours)
    }

    /// The listed archives that belong to the backup, the recorded one and any of its creation, and the
    /// node that lists them: the plan's or, when that has gone, another one with the same storage.
    async fn archives_of(
        &self,
        plan: &BackupDeletePlan,
    ) -> Result<(NodeName, Vec<Volume>), StepError> {
        let (planned, storage) = (&plan.guest.node, &plan.storage);
        let (node, listed) = match self.hypervisor.volumes(planned, storage, "backup").await {
            Ok(listed) => (planned.clone(), listed),
            Err(error) => match self.sharing(planned, storage).await {
                Some(node) => {
                    let listed = self.hypervisor.volumes(&node, storage, "backup").await?;
                    (node, listed)
                }
                None => return Err(error.into()),
            },
        };
        let mark = mark(plan.made_by);
        let belongs = |volume: &Volume| {
            Some(&volume.id) == plan.archive.as_ref()
                || volume.notes.as_deref().is_some_and(|notes| notes.contains(&mark))
        };
        Ok((node, listed.into_iter().filter(belongs).collect()))
    }

    /// Another node that has a storage as a shared one, when this one is not online.
    async fn sharing(&self, away: &NodeName, storage: &str) -> Option<NodeName> {
        let nodes = self.hypervisor.nodes().await.ok()?;
        let online = nodes.into_iter().filter(|node| node.online).map(|node| node.name);
        let online: Vec<NodeName> = online.collect();
        if online.contains(away) {
            return None;
        }
        for node in online {
            // One that cannot be asked is none that lists the archive.
            let Ok(storages) = self.hypervisor.storages(&node).await else { continue };
            if storages.iter().any(|one| one.shared && one.active && one.name == *storage) {
                return Some(node);
            }
        }
        None
    }

    /// Removes a volume and looks that it is gone; one that is not there is removed as well.
    async fn ensure_no_volume(
        &self,
        node: &NodeName,
        storage: &str,
        volume: &str,
    ) -> Result<(), StepError> {
        self.before_effect().await?;
        if let Some(upid) = self.hypervisor.delete_volume(node, storage, volume).await? {
            self.note_task(&upid).await?;
            if let Ended::Badly(text) = self.wait(&upid).await? {
                return Err(classed(text));
            }
        }
        let listed = self.hypervisor.volumes(node, storage, "backup").await?;
        if listed.iter().any(|there| there.id == volume) {
            return Err(StepError::retryable(format!("{volume} is still there")));
        }
        Ok(())
    }

    /// What ran before runs again: a backup in mode stop that was broken off leaves it stopped.
    async fn as_it_was(&self, plan: &BackupPlan) -> Result<(), StepError> {
        if !plan.was_running {
            return Ok(());
        }
        match self.find(&plan.guest).await? {
            Found::Ours { node, config } if config.lock.is_none() => {
                self.ensure_started(&node, plan.guest.vmid).await
            }
            Found::Ours { .. } | Found::Nothing | Found::Creating | Found::Foreign => Ok(()),
        }
    }

    /// Whether a job of this operation may be there, or have been: one was noted, or a try ended
    /// without its outcome being known. What was refused has begun nothing.
    async fn may_have_begun(&self) -> Result<bool, StepError> {
        let unread = "a stream cannot be read";
        let operation = self.hold.operation.to_string();
        let stream = self.env.store.load_stream("operation", &operation).await;
        let stream = stream.map_err(|error| StepError::Store(Error::internal(unread, error)))?;
        let mut open = false;
        for recorded in &stream {
            let event: Event = serde_json::from_str(&recorded.payload)
                .map_err(|error| StepError::Store(Error::internal(unread, error)))?;
            match event {
                Event::StepIntended { direction: Direction::Act, .. } if open => return Ok(true),
                Event::StepIntended { direction: Direction::Act, .. } => open = true,
                Event::StepFailed { direction: Direction::Act, failure, .. }
                    if failure.class != FailureClass::Unknown =>
                {
                    open = false;
                }
                Event::TaskStarted { .. } | Event::StepSucceeded { .. } => return Ok(true),
                _ => {}
            }
        }
        Ok(open)
    }

    /// A lock without a task that works under it is only an operator's to take off.
    fn not_left_locked(&self, lock: Option<&str>) -> Result<(), StepError> {
        match lock {
            Some(lock) => {
                Err(StepError::retryable(format!("the container carries the lock `{lock}`")))
            }
            None => Ok(()),
        }
    }

    /// The mode in which an archive was really made: Proxmox falls back from `snapshot` to `suspend`
    /// where a disk's storage has no snapshots, and says so only in the log of the job.
    async fn mode_of(
        &self,
        archive: &Volume,
        plan: &BackupPlan,
        task: Option<Upid>,
    ) -> Result<Mode, StepError> {
        if let Some(upid) = &task {
            let lines = self.hypervisor.task_log(upid, LOG_LINES).await?;
            if let Some(mode) = mode_in(&lines, &archive.id) {
                return Ok(mode);
            }
        }
        let tasks = self.hypervisor.tasks_of(plan.guest.vmid).await?;
        let jobs = tasks.into_iter().filter(|task| task.kind == "vzdump").map(|task| task.upid);
        for upid in jobs.take(JOBS) {
            let lines = self.hypervisor.task_log(&upid, LOG_LINES).await?;
            if let Some(mode) = mode_in(&lines, &archive.id) {
                return Ok(mode);
            }
        }
        // Its log is gone: a stopped container needs no other mode, and nothing is known of a fallback.
        Ok(if plan.was_running { plan.mode } else { Mode::Stop })
    }

    /// The real cause of a job that failed, from its log; `job errors` alone says nothing.
    async fn why(&self, upid: &Upid, plan: &BackupPlan, text: String) -> StepError {
        let lines = match self.hypervisor.task_log(upid, LOG_LINES).await {
            Ok(lines) => lines,
            Err(error) => {
                tracing::warn!(task = %upid, %error, "the log of a failed backup cannot be read");
                return classed(text);
            }
        };
        let start = format!("ERROR: Backup of VM {} failed - ", plan.guest.vmid);
        let cause = lines.iter().rev().find_map(|line| line.strip_prefix(&start));
        let other = || lines.iter().rev().find_map(|line| line.strip_prefix("ERROR: "));
        classed(cause.or_else(other).map_or(text, |cause| cause.trim().to_owned()))
    }
}

/// The mode of the job with this log, if it made this archive: `local:backup/vzdump-lxc-101-….tar.zst`,
/// or `pbs:backup/ct/101/2026-11-29T10:00:00Z` on a Proxmox Backup Server.
fn mode_in(lines: &[String], archive: &str) -> Option<Mode> {
    let name = archive.split_once(':').map_or(archive, |(_, name)| name);
    let end = format!("{}'", name.strip_prefix("backup/").unwrap_or(name));
    let made = |line: &String| {
        let kinds = ["creating vzdump archive '", "creating Proxmox Backup Server archive '"];
        kinds.iter().any(|kind| line.contains(kind)) && line.trim_end().ends_with(&end)
    };
    if !lines.iter().any(made) {
        return None;
    }
    let mode = lines.iter().rev().find_map(|line| line.split_once("backup mode: "))?.1;
    mode.trim().parse().ok()
}

/// What a task said about its failure, and whether trying again can help.
pub(super) fn classed(text: String) -> StepError {
    // Said by a job that does not prune, as ours: what is kept is decided by our own records.
    if text.contains("There is a max backup limit of") {
        return StepError::permanent(format!(
            "the storage's own retention (`prune-backups`, its keep-… settings) limits the number of \
             backups of a guest, and they are there: raise it on Proxmox, delete backups of this \
             container, or let its schedule keep fewer. Proxmox says: {text}"
        ));
    }
    let hopeless = [
        "Permission check failed",
        "wrong content type",
        "does not exist",
        "unable to find",
        "cannot remove protected",
        "No space left",
        "is only possible for root",
    ];
    if hopeless.iter().any(|words| text.contains(words)) {
        StepError::permanent(text)
    } else {
        StepError::retryable(text)
    }
}

#[cfg(test)]
mod tests {
    use proximity_domain::operation::FailureClass;

    use super::*;

    fn class(text: &str) -> FailureClass {
        match classed(text.to_owned()) {
            StepError::Failed(failure) => failure.class,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lock_passes_and_a_missing_right_does_not() {
        assert_eq!(class("CT is locked (snapshot)"), FailureClass::Retryable);
        assert_eq!(
            class("403 Permission check failed (/vms/1, VM.Backup)"),
            FailureClass::Permanent
        );
        assert_eq!(class("unable to find VM '101'"), FailureClass::Permanent);
        let limit = "There is a max backup limit of 2 enforced by the target storage or the vzdump \
                     parameters. Either increase the limit or delete old backups.";
        assert_eq!(class(limit), FailureClass::Permanent);
    }

    #[test]
    fn the_mode_is_found_in_the_log_of_either_kind_of_storage() {
        let log = |line: &str| {
            ["INFO: Starting Backup of VM 101 (lxc)", "INFO: backup mode: suspend", line]
                .map(str::to_owned)
        };
        let file = "vzdump-lxc-101-2026_11_29-10_00_00.tar.zst";
        for (line, archive, found) in [
            (
                format!("INFO: creating vzdump archive '/var/lib/vz/dump/{file}'"),
                format!("local:backup/{file}"),
                Some(Mode::Suspend),
            ),
            (
                "INFO: creating Proxmox Backup Server archive 'ct/101/2026-11-29T10:00:00Z'".into(),
                "pbs:backup/ct/101/2026-11-29T10:00:00Z".into(),
                Some(Mode::Suspend),
            ),
            (
                "INFO: creating Proxmox Backup Server archive 'ct/101/2026-11-28T10:00:00Z'".into(),
                "pbs:backup/ct/101/2026-11-29T10:00:00Z".into(),
                None,
            ),
            (format!("INFO: removing '{file}'"), format!("local:backup/{file}"), None),
        ] {
            assert_eq!(mode_in(&log(&line), &archive), found, "{line}");
        }
    }
}
