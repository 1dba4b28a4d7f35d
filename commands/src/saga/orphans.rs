//! Volumes that a creation, a copy or a restore leaves when its worker is killed in the middle: no
//! configuration names them, so that nothing but this removes them. What cannot be shown to be the
//! operation's own is named to a person, and stays.

use std::collections::{BTreeMap, BTreeSet};

use proximity_domain::NodeName;
use proximity_domain::operation::Volumes;
use proximity_domain::plan::{GuestRef, Plan};

use super::guest::Found;
use super::left::{HAS_LEFT, Left, TODO, listed, named, with_names};
use super::place::storages_of;
use super::proof::{Begun, Making, SLACK, file_name, is_disk_of};
use super::step::StepError;
use super::task_log;
use super::tasks::Ended;
use super::traces::{Traces, making};
use super::unlisted::{remedy, said, unlisted, unseen};
use super::work::Work;
use crate::clock::SECOND;
use crate::ports::{Guest, Hypervisor, HypervisorError, TaskState, TaskSummary, Upid, Volume};

/// Kinds of tasks that put volumes under the number that they go by. A copy's does not: it goes by the
/// number of its source.
const MAKES: [&str; 4] = ["vzcreate", "vzrestore", "qmcreate", "qmrestore"];
/// Lines of a making task's log that are read: what it makes stands near the beginning.
const LINES: u32 = 500;

/// One of this operation's own tasks.
struct Task {
    upid: String,
    /// Seconds since 1970, where that is known.
    ended: Option<i64>,
    log: Vec<String>,
}

impl Task {
    fn making(&self) -> Option<Making<'_>> {
        Making::of(&self.upid, self.ended, &self.log)
    }
}

/// The tasks of this operation's making.
struct Makings {
    tasks: Vec<Task>,
    /// Somebody else has put volumes under the number since, or may have.
    is_mixed: bool,
    /// One of them was killed, or nobody knows how it ended: of others Proxmox removes what they have made,
    /// but not always what they were to overwrite.
    is_rough: bool,
}

/// What is known of this operation's making.
struct Case {
    traces: Traces,
    left: Vec<Left>,
    makings: Makings,
    /// Storages of which nothing lists what it has left once no container has the number.
    unlisted: BTreeSet<String>,
}

impl Case {
    fn tasks(&self) -> impl Iterator<Item = Making<'_>> {
        self.makings.tasks.iter().filter_map(Task::making)
    }

    /// Whether this operation has made the volume, or has overwritten the container that it was of.
    fn is_ours(&self, left: &Left) -> bool {
        !self.makings.is_mixed
            && self.tasks().any(|made| left.is_replaced || made.has_made(&left.node, &left.volume))
    }

    /// What is left, and where more may be, as a reason goes on.
    fn rest(&self) -> String {
        let left: Vec<&Left> = self.left.iter().collect();
        let left = (!left.is_empty()).then(|| format!("; {HAS_LEFT} {}", listed(&left)));
        let unlisted = self.unlisted.iter().map(|storage| format!("; {}", said(storage)));
        left.into_iter().chain(unlisted).collect()
    }

    /// Why nothing can be told of storages that list nothing, if that matters and was told to nobody yet.
    fn unseen(&self, guest: &GuestRef) -> Option<String> {
        let is_told = |storage: &String| self.traces.was_told(&said(storage));
        if !self.makings.is_rough || self.unlisted.iter().all(is_told) {
            return None;
        }
        let names: BTreeSet<String> = self.tasks().flat_map(Making::into_names).collect();
        let replaced = self.traces.site.iter().flat_map(|site| &site.replaced);
        let known = names.iter().chain(replaced).map(String::as_str).collect();
        Some(unseen(guest, &self.unlisted, &known))
    }
}

impl Work<'_> {
    /// The disks that stand under the number on a storage now. Proxmox lists those of which no container
    /// is there as a virtual machine's.
    pub(super) async fn volumes_under(
        &self,
        node: &NodeName,
        storage: &str,
        guest: &GuestRef,
    ) -> Result<Vec<Volume>, StepError> {
        let list = |content| self.hypervisor.volumes(node, storage, content);
        let (known, unknown) = tokio::try_join!(list("rootdir"), list("images"))?;
        let all = known.into_iter().chain(unknown);
        Ok(all.filter(|volume| is_disk_of(volume, guest.vmid)).collect())
    }

    /// What is under the number that did not stand there before this operation made anything; `None`
    /// when nobody has looked what did, without which nothing is made.
    async fn case(&self, guest: &GuestRef) -> Result<Option<Case>, StepError> {
        if self.progress.stood.is_none() {
            return Ok(None);
        }
        let operation = self.hold.operation.to_string();
        let traces = Traces::read(&self.env.store, &operation).await.map_err(StepError::Store)?;
        let Some(traces) = traces else { return Ok(None) };
        let makings = self.makings(guest, &traces).await?;
        let left = self.left_over(guest, &traces, &makings.tasks).await?;
        let unlisted = self.unlisted_now(guest, &traces, &makings.tasks).await?;
        let mut case = Case { traces, left, makings, unlisted };
        let ours: Vec<bool> = case.left.iter().map(|left| case.is_ours(left)).collect();
        for (left, is_ours) in case.left.iter_mut().zip(ours) {
            left.may_be_older &= !is_ours;
        }
        Ok(Some(case))
    }

    /// Where nothing lists what it has left, as the storages are now.
    async fn unlisted_now(
        &self,
        guest: &GuestRef,
        traces: &Traces,
        tasks: &[Task],
    ) -> Result<BTreeSet<String>, StepError> {
        let Some(stood) = &traces.stood else { return Ok(BTreeSet::new()) };
        let here = traces.site.as_ref().map_or(&guest.node, |site| &site.node);
        let elsewhere = tasks.iter().filter_map(Task::making).map(|made| made.node);
        let nodes: BTreeSet<NodeName> = elsewhere.chain([here.clone()]).collect();
        let mut found = BTreeSet::new();
        for node in nodes {
            let names: BTreeSet<String> = if node == *here {
                stood.keys().cloned().collect()
            } else {
                self.storages_elsewhere(&node, stood).await?.into_iter().collect()
            };
            found.extend(unlisted(self.hypervisor.as_ref(), &node, &names).await?);
        }
        Ok(found)
    }

    /// The tasks that this operation has begun to make its container with: those whose ids it noted, and,
    /// since the reply that names one may have been lost, those of our own token that began after it
    /// looked what stood there. And whether anybody else has made a guest under the number since.
    async fn makings(&self, guest: &GuestRef, traces: &Traces) -> Result<Makings, StepError> {
        let Some((kind, number)) = making(&traces.plan) else {
            return Ok(Makings { tasks: Vec::new(), is_mixed: true, is_rough: false });
        };
        let listed = self.hypervisor.tasks_of(number).await?;
        let is_own = |task: &&TaskSummary| {
            task.own && !task.by_lock && task.kind == kind && task.started >= traces.looked_at
        };
        let mut ours = traces.made.clone();
        ours.extend(listed.iter().filter(is_own).map(|task| task.upid.0.clone()));
        let overwrites = traces.site.as_ref().is_some_and(|site| !site.replaced.is_empty());
        let is_rough = ours.iter().any(|upid| !listed.iter().any(|task| task.upid.0 == *upid))
            || listed.iter().any(|task| match task.state {
                _ if task.kind != kind || task.started < traces.looked_at => false,
                TaskState::Succeeded { .. } | TaskState::Running => false,
                TaskState::Failed(_) => overwrites,
                TaskState::Unknown => true,
            });
        let operation = self.hold.operation.to_string();
        let kept = task_log::of_operation(&self.env.store, &operation).await;
        let kept = kept.map_err(StepError::Store)?;
        let mut tasks = Vec::new();
        for upid in &ours {
            let listed = listed.iter().find(|task| task.upid.0 == *upid);
            let kept = kept.iter().find(|log| log.upid == *upid);
            let ended = listed.and_then(|task| task.ended);
            let ended = ended.or_else(|| kept.map(|log| log.recorded_at / SECOND));
            let log = match self.hypervisor.task_log(&Upid(upid.clone()), LINES).await {
                Ok(lines) if !lines.is_empty() => lines,
                Ok(_) | Err(_) => kept.map(|log| log.lines.clone()).unwrap_or_default(),
            };
            tasks.push(Task { upid: upid.clone(), ended, log });
        }
        let first = ours.iter().filter_map(|upid| Begun::of(upid)).min_by_key(Begun::second);
        let under = if number == guest.vmid {
            listed
        } else {
            self.hypervisor.tasks_of(guest.vmid).await?
        };
        let mut others = under
            .iter()
            .filter(|task| MAKES.contains(&task.kind.as_str()) && !ours.contains(&task.upid.0))
            .map(|task| Begun::of(&task.upid.0));
        let is_mixed = first.is_none_or(|first| {
            others.any(|other| other.is_none_or(|other| !other.is_before(&first)))
        });
        Ok(Makings { tasks, is_mixed, is_rough })
    }

    /// Also on nodes where one of its tasks ran and nobody had looked before: a source may have moved
    /// between the look and the copy. What was there before such a task began is not left by it.
    async fn left_over(
        &self,
        guest: &GuestRef,
        traces: &Traces,
        tasks: &[Task],
    ) -> Result<Vec<Left>, StepError> {
        let Some(stood) = &traces.stood else { return Ok(Vec::new()) };
        let site = traces.site.as_ref();
        let node = site.map_or(&guest.node, |site| &site.node);
        let mut left = Vec::new();
        for (storage, before) in stood {
            for volume in self.volumes_under(node, storage, guest).await? {
                if !before.contains(&volume.id) {
                    let is_replaced = site.is_some_and(|site| site.replaced.contains(&volume.id));
                    let may_be_older = site.is_some_and(|site| site.unlisted.contains(storage));
                    let (node, storage) = (node.clone(), storage.clone());
                    left.push(Left { node, storage, volume, is_replaced, may_be_older });
                }
            }
        }
        let elsewhere = tasks.iter().filter_map(Task::making).filter(|made| made.node != *node);
        let mut since = BTreeMap::<NodeName, i64>::new();
        for made in elsewhere {
            let first = since.entry(made.node).or_insert(i64::MAX);
            *first = (*first).min(made.begun.second());
        }
        for (node, since) in since {
            for storage in self.storages_elsewhere(&node, stood).await? {
                let mut found = self.volumes_under(&node, &storage, guest).await?;
                found.retain(|volume| volume.created.is_none_or(|at| at >= since - SLACK));
                left.extend(found.into_iter().map(|volume| {
                    let (node, storage) = (node.clone(), storage.clone());
                    Left { node, storage, volume, is_replaced: false, may_be_older: false }
                }));
            }
        }
        Ok(left)
    }

    /// Where a task on another node than the one that was looked at may have put volumes. What all nodes
    /// share was looked at there.
    async fn storages_elsewhere(
        &self,
        node: &NodeName,
        stood: &Volumes,
    ) -> Result<Vec<String>, StepError> {
        let mut names: BTreeSet<String> = stood.keys().cloned().collect();
        if let Plan::Clone(plan) = &self.progress.plan
            && let Found::Ours { config, .. } =
                self.find_of(&plan.source, &plan.source_guest).await?
        {
            names.extend(storages_of(&config));
        }
        let there = self.hypervisor.storages(node).await?.into_iter();
        let there = there.filter(|storage| names.contains(&storage.name));
        let unseen = there.filter(|storage| !(storage.shared && stood.contains_key(&storage.name)));
        Ok(unseen.map(|storage| storage.name).collect())
    }

    /// Removes what this operation has left under the number, once nobody has it: what cannot be shown to
    /// be this operation's, may not be removed, or was not named to whoever resumed it, is named.
    pub(super) async fn ensure_no_volumes(&self, guest: &GuestRef) -> Result<(), StepError> {
        if self.progress.stood.is_none() || !self.hypervisor.vmid_is_free(guest.vmid).await? {
            // Whoever has it has volumes of his own.
            return Ok(());
        }
        let Some(case) = self.case(guest).await? else { return Ok(()) };
        let (mut strange, mut untold, mut freed) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (index, left) in case.left.iter().enumerate() {
            let all: Vec<&Left> = case.left[index..].iter().collect();
            let unnamed = |error| with_names(guest, &all, error);
            match self.user_of(left).await.map_err(unnamed)? {
                Some(user) => {
                    let (volume, user) = (&left.volume.id, user.vmid);
                    tracing::info!(operation = %self.hold.operation, volume, %user, "it is a guest's");
                }
                // It holds up nobody who was told of it: it may have nothing to do with the operation.
                None if left.may_be_older && case.traces.has_named(&left.volume.id) => {}
                None if !case.is_ours(left) => strange.push(left),
                None if !case.traces.is_agreed(&left.volume.id) => untold.push(left),
                None => {
                    self.free(guest, left).await.map_err(unnamed)?;
                    freed.insert(left.volume.id.clone());
                }
            }
        }
        if !strange.is_empty() {
            let why = "nothing shows that this operation has made them";
            return Err(StepError::permanent(named(guest, &strange, why)));
        }
        if !untold.is_empty() {
            return Err(StepError::permanent(format!(
                "{HAS_LEFT} {} under number {}, which was named to nobody yet{TODO}see that nobody has \
                 a use for what the reason names, then resume the operation, which removes it",
                listed(&untold),
                guest.vmid
            )));
        }
        if let Some(unseen) = case.unseen(guest) {
            return Err(StepError::permanent(unseen));
        }
        if freed.is_empty() {
            return Ok(());
        }
        let now = self.left_over(guest, &case.traces, &case.makings.tasks).await?;
        let still: Vec<&Left> = now.iter().filter(|left| freed.contains(&left.volume.id)).collect();
        if still.is_empty() {
            return Ok(());
        }
        Err(StepError::retryable(named(guest, &still, "they were removed, and are still there")))
    }

    /// The guest that has the volume, whatever its number: one may have been given another by hand.
    async fn user_of(&self, left: &Left) -> Result<Option<Guest>, StepError> {
        self.go_on()?;
        let user = user_of(self.hypervisor.as_ref(), &left.volume.id).await;
        user.map_err(|error| {
            StepError::retryable(format!("whether a guest has them cannot be told: {error}"))
        })
    }

    async fn free(&self, guest: &GuestRef, left: &Left) -> Result<(), StepError> {
        // A guest that was made under the number since would lose its own.
        if !self.is_absent(guest.vmid).await? {
            return Err(StepError::retryable("whether the number is free cannot be told yet"));
        }
        self.before_effect().await?;
        let Left { node, storage, volume, .. } = left;
        if let Some(upid) = self.hypervisor.delete_volume(node, storage, &volume.id).await? {
            self.note_task(&upid).await?;
            if let Ended::Badly(text) = self.wait(&upid).await? {
                return Err(StepError::retryable(text));
            }
        }
        Ok(())
    }

    /// Only a person may take such a lock off: nothing tells whether the rest of it was made.
    pub(super) async fn broken_off(&self, guest: &GuestRef) -> StepError {
        let locked = "the container is locked by a creation that no task works on";
        match self.case(guest).await {
            Ok(Some(case)) => StepError::retryable(format!("{locked}{}", case.rest())),
            // It is looked for again when the lock is gone.
            Ok(None) | Err(_) => StepError::retryable(locked),
        }
    }

    /// The same of a container that was to be overwritten: its own disks may be among what is left.
    pub(super) async fn broken_off_over(&self, guest: &GuestRef) -> StepError {
        let case = match (self.is_busy(guest.vmid).await, self.case(guest).await) {
            (Ok(false), Ok(Some(case))) if !case.rest().is_empty() => case,
            _ => return self.locked_by_creation(guest).await,
        };
        let GuestRef { node, vmid, .. } = guest;
        let (remedy, removes) = if case.unlisted.is_empty() {
            (String::new(), "removes the volumes that the reason names and ")
        } else {
            (format!("; {}", remedy(*vmid)), "")
        };
        StepError::retryable(format!(
            "the container is locked by a creation that was broken off, and no task works on it{}{TODO}on \
             node {node} run `pct unlock {vmid} && pct destroy {vmid} --purge`{remedy}; then resume the \
             operation, which {removes}restores the archive again; abandoning it instead does not help: \
             what is left stays until that was done",
            case.rest()
        ))
    }
}

/// The guest whose configuration names the volume, on whatever node; its name without storage and folder
/// is enough. What cannot be read is an error: the volume may be in it.
async fn user_of(
    hypervisor: &dyn Hypervisor,
    volume: &str,
) -> Result<Option<Guest>, HypervisorError> {
    const CALL: &str = "GET /cluster/resources";
    if !hypervisor.sees_all_guests().await? {
        let reason = "the credential may not see all guests (VM.Audit on /vms)".into();
        return Err(HypervisorError::Permanent { call: CALL, reason });
    }
    let name = [file_name(volume).to_owned()].into();
    for guest in hypervisor.guests().await? {
        match hypervisor.mentions(&guest, &name).await? {
            Some(named) if !named.is_empty() => return Ok(Some(guest)),
            Some(_) => {}
            None => {
                let reason = format!("guest {} is not where it was listed", guest.vmid).into();
                return Err(HypervisorError::Retryable { call: CALL, reason });
            }
        }
    }
    Ok(None)
}
