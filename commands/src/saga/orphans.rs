//! Volumes that a creation, a copy or a restore leaves when its worker is killed in the middle: no
//! configuration names them, so that nothing but this removes them.

use std::collections::BTreeSet;

use proximity_domain::Vmid;
use proximity_domain::operation::Volumes;
use proximity_domain::plan::GuestRef;

use super::step::StepError;
use super::task_log;
use super::tasks::Ended;
use super::work::Work;
use crate::ports::{GuestConfig, Volume};
use crate::volumes;

/// Kinds of tasks after which a number has volumes. A copy's goes by the number of its source.
const MAKES: [&str; 6] = ["vzcreate", "vzrestore", "vzclone", "qmcreate", "qmrestore", "qmclone"];

/// Where a step makes a container.
pub struct Place {
    guest: GuestRef,
    /// What its volumes are put on.
    storages: BTreeSet<String>,
    /// The disks of the container that it takes the place of; they go with that.
    given_up: BTreeSet<String>,
}

impl Place {
    pub(super) fn on(guest: &GuestRef, storage: &str) -> Self {
        let storages = [storage.to_owned()].into();
        Self { guest: guest.clone(), storages, given_up: BTreeSet::new() }
    }

    /// In place of the container that has the number.
    pub(super) fn over(guest: &GuestRef, storage: &str, container: &GuestConfig) -> Self {
        Self { given_up: disks(container).collect(), ..Self::on(guest, storage) }
    }

    /// A copy has its volumes where its source has them.
    pub(super) fn beside(guest: &GuestRef, source: &GuestConfig) -> Self {
        let storages = disks(source).filter_map(|id| Some(id.split_once(':')?.0.to_owned()));
        Self { guest: guest.clone(), storages: storages.collect(), given_up: BTreeSet::new() }
    }

    /// What stands there and is not given up.
    pub(super) async fn stood(&self, work: &Work<'_>) -> Result<Volumes, StepError> {
        let mut stood = work.volumes_under(&self.guest, self.storages.iter()).await?;
        for volumes in stood.values_mut() {
            volumes.retain(|id| !self.given_up.contains(id));
        }
        Ok(stood)
    }
}

/// The volumes that a container's configuration names, its root's first.
fn disks(container: &GuestConfig) -> impl Iterator<Item = String> {
    let root = container.rest.get("rootfs").and_then(|root| root.split(',').next());
    let root = root.map(str::to_owned);
    let others = volumes::of(container).into_iter().map(|volume| volume.id().to_owned());
    root.into_iter().chain(others)
}

impl Work<'_> {
    /// The disks that stand under the number now. Proxmox lists those of which no container is there as
    /// a virtual machine's.
    async fn volumes_under(
        &self,
        guest: &GuestRef,
        storages: impl Iterator<Item = &String>,
    ) -> Result<Volumes, StepError> {
        let mut found = Volumes::new();
        for storage in storages {
            let list = |content| self.hypervisor.volumes(&guest.node, storage, content);
            let (known, unknown) = tokio::try_join!(list("rootdir"), list("images"))?;
            let all = known.into_iter().chain(unknown);
            let under = all.filter(|volume| is_disk_of(volume, guest.vmid));
            found.insert(storage.clone(), under.map(|volume| volume.id).collect());
        }
        Ok(found)
    }

    /// The disks under the number that did not stand there before this operation made anything.
    async fn left_over(&self, guest: &GuestRef) -> Result<Volumes, StepError> {
        // Without that look nothing was made.
        let Some(stood) = &self.progress.stood else { return Ok(Volumes::new()) };
        let mut left = self.volumes_under(guest, stood.keys()).await?;
        for (storage, volumes) in &mut left {
            volumes.retain(|id| stood.get(storage).is_none_or(|before| !before.contains(id)));
        }
        left.retain(|_, volumes| !volumes.is_empty());
        Ok(left)
    }

    /// Removes what this operation has left under the number, once nobody has it: what cannot be shown to
    /// be this operation's, or may not be removed, is named.
    pub(super) async fn ensure_no_volumes(&self, guest: &GuestRef) -> Result<(), StepError> {
        if !self.hypervisor.vmid_is_free(guest.vmid).await? {
            // Whoever has it has volumes of his own.
            return Ok(());
        }
        let left = self.left_over(guest).await?;
        if left.is_empty() {
            return Ok(());
        }
        if !self.has_made_them(guest.vmid).await? {
            let why = "nothing shows that this operation has made them".to_owned();
            return Err(StepError::permanent(named(guest, &left, &why)));
        }
        for (storage, volumes) in &left {
            for volume in volumes {
                self.free(guest, storage, volume).await.map_err(|error| match error {
                    StepError::Failed(mut failure) => {
                        failure.message = named(guest, &left, &failure.message);
                        StepError::Failed(failure)
                    }
                    other => other,
                })?;
            }
        }
        let still = self.left_over(guest).await?;
        if still.is_empty() {
            return Ok(());
        }
        Err(StepError::retryable(named(guest, &still, "they were removed, and are still there")))
    }

    async fn free(&self, guest: &GuestRef, storage: &str, volume: &str) -> Result<(), StepError> {
        // A guest that was made under the number since would lose its own.
        if !self.is_absent(guest.vmid).await? {
            return Err(StepError::retryable("whether the number is free cannot be told yet"));
        }
        self.before_effect().await?;
        if let Some(upid) = self.hypervisor.delete_volume(&guest.node, storage, volume).await? {
            self.note_task(&upid).await?;
            if let Ended::Badly(text) = self.wait(&upid).await? {
                return Err(StepError::retryable(text));
            }
        }
        Ok(())
    }

    /// Whether a task of ours made something under the number, and nobody else's has since.
    async fn has_made_them(&self, vmid: Vmid) -> Result<bool, StepError> {
        let operation = self.hold.operation.to_string();
        let kept = task_log::of_operation(&self.env.store, &operation).await;
        let kept = kept.map_err(StepError::Store)?;
        let mut ours: BTreeSet<&str> = kept.iter().map(|log| log.upid.as_str()).collect();
        let last = self.progress.attempt.as_ref().and_then(|last| last.upid.as_deref());
        ours.extend(last);
        let tasks = self.hypervisor.tasks_of(vmid).await?;
        let making = tasks.iter().filter(|task| MAKES.contains(&task.kind.as_str()));
        let (own, others): (Vec<_>, Vec<_>) =
            making.partition(|task| task.own || ours.contains(task.upid.0.as_str()));
        let noted = ours.iter().copied().filter(|upid| is_making(upid));
        let listed = own.iter().map(|task| task.upid.0.as_str());
        let Some(first) = noted.chain(listed).filter_map(Begun::of).min_by_key(|made| made.at)
        else {
            return Ok(false);
        };
        let others = others.iter().map(|task| Begun::of(&task.upid.0));
        Ok(others.into_iter().all(|other| other.is_some_and(|other| other.is_before(&first))))
    }

    /// Only a person may take such a lock off: nothing tells whether the rest of it was made.
    pub(super) async fn broken_off(&self, guest: &GuestRef) -> StepError {
        let locked = "the container is locked by a creation that no task works on";
        match self.left_over(guest).await {
            Ok(left) if !left.is_empty() => {
                StepError::retryable(format!("{locked}; {HAS_LEFT} {}", listed(&left)))
            }
            // It is looked for again when the lock is gone.
            Ok(_) | Err(_) => StepError::retryable(locked),
        }
    }
}

/// Stands in a reason before volumes that are removed once the lock is gone.
pub(super) const HAS_LEFT: &str = "it has left";
/// Stands in a reason before what is to be done about volumes.
const TODO: &str = "; to be done: ";

/// What an operator has to do about volumes that are left, if this is the reason.
pub(super) fn rest_of_creation(reason: &str) -> Option<String> {
    reason.split_once(TODO).map(|(_, todo)| todo.to_owned())
}

fn named(guest: &GuestRef, left: &Volumes, why: &str) -> String {
    let GuestRef { node, vmid, .. } = guest;
    let frees = left.values().flatten().map(|volume| format!("`pvesm free {volume}`"));
    let frees = frees.collect::<Vec<_>>().join(", ");
    format!(
        "{} under number {vmid}, which no guest has, is left of a creation that was broken off: \
         {why}{TODO}look on node {node} whose they are; if nobody's, run {frees}, then resume the \
         operation",
        listed(left)
    )
}

fn listed(left: &Volumes) -> String {
    left.values().flatten().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A disk with the name that Proxmox gives by itself.
fn is_disk_of(volume: &Volume, vmid: Vmid) -> bool {
    let name = volume.id.rsplit([':', '/']).next().unwrap_or_default();
    volume.vmid == Some(vmid)
        && ["vm", "subvol"].iter().any(|kind| name.starts_with(&format!("{kind}-{vmid}-disk-")))
}

fn is_making(upid: &str) -> bool {
    upid.split(':').nth(5).is_some_and(|kind| MAKES.contains(&kind))
}

/// When a task began, as its id says.
#[derive(Debug, PartialEq, Eq)]
struct Begun<'a> {
    node: &'a str,
    /// Seconds since 1970 by the node's clock, then its ticks since it was started.
    at: (i64, i64),
}

impl<'a> Begun<'a> {
    fn of(upid: &'a str) -> Option<Self> {
        let mut parts = upid.split(':').skip(1);
        let node = parts.next()?;
        let mut number = || i64::from_str_radix(parts.next()?, 16).ok();
        let (_pid, ticks, second) = (number()?, number()?, number()?);
        Some(Self { node, at: (second, ticks) })
    }

    /// Within one second only a node's own ticks tell.
    fn is_before(&self, other: &Self) -> bool {
        if self.node == other.node { self.at < other.at } else { self.at.0 < other.at.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_that_proxmox_named_itself_are_of_the_number() {
        let volume = |id: &str, vmid: i64| Volume {
            id: id.to_owned(),
            size: None,
            created: None,
            vmid: vmid.try_into().ok(),
            notes: None,
            protected: false,
        };
        let vmid = Vmid::try_from(104).unwrap();
        for (id, owner, is_ours) in [
            ("local:104/vm-104-disk-0.raw", 104, true),
            ("zfs:subvol-104-disk-1", 104, true),
            ("lvm:vm-104-disk-0", 104, true),
            ("lvm:vm-104-disk-0", 105, false),
            ("lvm:vm-104-cloudinit", 104, false),
            ("lvm:vm-104-data", 104, false),
            ("zfs:basevol-104-disk-0", 104, false),
        ] {
            assert_eq!(is_disk_of(&volume(id, owner), vmid), is_ours, "{id} of {owner}");
        }
    }

    #[test]
    fn a_task_id_says_what_it_makes_and_since_when() {
        let upid = "UPID:pve1:00000271:0005EA12:6B049FDA:vzcreate:104:root@pam:";
        assert!(is_making(upid) && !is_making(&upid.replace("vzcreate", "vzstart")));
        let begun = Begun::of(upid).unwrap();
        assert_eq!(begun, Begun { node: "pve1", at: (0x6B04_9FDA, 0x0005_EA12) });
        let later = upid.replace("0005EA12", "0005EA13");
        assert!(begun.is_before(&Begun::of(&later).unwrap()));
        let elsewhere = later.replace("pve1", "pve2");
        assert!(!begun.is_before(&Begun::of(&elsewhere).unwrap()), "nodes count for themselves");
        assert_eq!(Begun::of("UPID:pve1"), None);
    }
}
