//! One call restores a backup: whether there is an archive and room for it is asked before anything is
//! stored, and all of the restore is one append.

use std::time::Duration;

use proximity_domain::application::{Application, Command as App, Live};
use proximity_domain::backup::{Archive, Backup, Command, Error as BackupRefusal, Kept, Outcome};
use proximity_domain::host::Host;
use proximity_domain::lease::Holder;
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{GuestRef, Kind, Plan, RestorePlan, RestoreWay};
use proximity_domain::{BackupId, OperationId};
use uuid::Uuid;

use super::capture::bytes;
use super::clone::host_gone;
use super::deploy::{Losses, Lost, judged, lost, take};
use super::{Applications, BackupAccepted};
use crate::dispatch::{Unit, load};
use crate::error::Error;
use crate::once::{self, Done, OnceKey};
use crate::policy::{Owned, give};
use crate::ports::{ClusterView, GuestConfig, Hypervisor};
use crate::saga;
use crate::volumes;

const GIBIBYTE: u64 = 1 << 30;

/// How a backup is to be restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreWish {
    /// Overwrite the container that is there instead of putting another one in its place.
    pub in_place: bool,
    /// Destroy volumes of the container whose contents the backup does not hold.
    pub lose_volumes: bool,
}

impl RestoreWish {
    fn way(self) -> RestoreWay {
        if self.in_place { RestoreWay::InPlace } else { RestoreWay::Swap }
    }
}

/// What was read before the decision; the append is refused if it is not so any more.
struct Known<'a> {
    backup: Backup,
    kept: &'a Kept,
    archive: &'a Archive,
    application: Application,
    live: &'a Live,
}

/// What Proxmox was asked.
struct Site {
    /// The node that the archive is restored on; a lost number is not known yet.
    at: GuestRef,
    disk_storage: String,
}

impl Applications {
    /// Accepts the restore of a backup over, or in the place of, its application's container.
    pub async fn restore(
        &self,
        backup: &Owned<BackupId>,
        wish: RestoreWish,
        key: Option<&OnceKey>,
    ) -> Result<Done<BackupAccepted>, Error> {
        let mut losses = Losses::default();
        loop {
            if let Some(first) = once::kept(&self.store, backup.actor(), key).await? {
                return Ok(first);
            }
            match self.attempt_restore(backup, wish, key).await {
                Ok(done) => return Ok(done),
                Err(Lost::Pick) if backup.actor().agreed.is_some() => {
                    return Err(crate::agreed::changed());
                }
                Err(lost) => losses.again(lost).await?,
            }
        }
    }

    async fn attempt_restore(
        &self,
        owned: &Owned<BackupId>,
        wish: RestoreWish,
        key: Option<&OnceKey>,
    ) -> Result<Done<BackupAccepted>, Lost> {
        let operation = OperationId(Uuid::now_v7());
        let number = owned.id().to_string();
        let (backup, _) = load::<Backup>(&self.store, &number).await?;
        let kept = backup.kept().ok_or(Error::NotFound)?;
        let id = kept.requested.application.clone();
        let (application, _) = load::<Application>(&self.store, id.as_str()).await?;
        if matches!(application, Application::Removed | Application::Absent) {
            return Err(Error::conflict(
                "backup.application_gone",
                "its application was deleted, so there is nothing to restore it to",
            )
            .into());
        }
        // Refused before Proxmox is asked anything.
        let begin = App::BeginOperation { operation, kind: Kind::Restore };
        let reserve = Command::Begin { operation, kind: Kind::Restore };
        application.decide(begin.clone()).map_err(Error::from)?;
        backup.decide(reserve.clone()).map_err(Error::from)?;
        let Outcome::Completed(archive) = &kept.outcome else {
            return Err(Error::from(BackupRefusal::OnlyDeletable).into());
        };
        let live = application.live().ok_or(Error::NotFound)?;
        let known =
            Known { kept, archive, live, backup: backup.clone(), application: application.clone() };
        let site = self.site(&known, wish).await?;

        let original = live.requested.guest.clone();
        let clusters = self.clusters.seen().await?;
        let cluster = view(&clusters, &site.at)?;
        // Held until the append is answered, so that no other call of this process picks the same.
        let picked = match wish.way() {
            RestoreWay::Swap => Some(self.pools.pick_vmid(cluster, owned.actor().picks()).await?),
            RestoreWay::InPlace => None,
        };
        let vmid = picked.as_ref().map_or(original.vmid, |picked| picked.vmid);
        let guest = GuestRef { vmid, ..site.at };
        if picked.is_some() {
            self.confirm(owned.actor(), guest.host, vmid).await?;
        }

        let owner = live.requested.owner;
        let meta = owned.actor().metadata("backup.restore").owned_by(owner);
        let mut unit = Unit::new(&self.store, meta.correlated(operation));
        // Read only: the append is refused if the host is removed or changed meanwhile.
        let host = unit.load::<Host>(&guest.host.to_string()).await?;
        if host.registration().is_none_or(|host| !host.is_active || host.suspended.is_some()) {
            return Err(host_gone().into());
        }
        if unit.load::<Application>(id.as_str()).await? != known.application
            || unit.load::<Backup>(&number).await? != known.backup
        {
            return Err(Lost::Pick);
        }
        judged(unit.apply::<Application>(id.as_str(), begin).await)?;
        judged(unit.apply::<Backup>(&number, reserve).await)?;
        if wish.way() == RestoreWay::Swap {
            take(&mut unit, &guest.vmid_lease(), Holder::Application(id.clone())).await?;
        }
        let patience = Duration::from_secs(live.requested.health.within_s.into());
        let plan = Plan::Restore(Box::new(RestorePlan {
            guest,
            original,
            lost: live.lost,
            way: wish.way(),
            backup: *owned.id(),
            storage: kept.requested.storage.clone(),
            archive: archive.volume.clone(),
            disk_storage: site.disk_storage,
            // Nobody stopped one whose container went away.
            was_running: live.running || live.lost.is_some(),
            health: live.requested.health.clone(),
            agreed: owned.actor().agreed.is_some(),
            lose_volumes: wish.lose_volumes,
        }));
        let planned = Op::Plan {
            application: id.clone(),
            owner,
            steps: saga::step_names(&plan),
            plan: Box::new(plan),
            deadline: self.deadline(self.limits.disks + patience),
        };
        judged(unit.apply::<Operation>(&operation.to_string(), planned).await)?;
        unit.write(give(&operation, owner));
        let accepted = BackupAccepted { backup: *owned.id(), application: id, operation };
        unit.idempotent(once::keep(owned.actor(), key, &accepted)?);
        let committed = unit.commit().await.map_err(lost)?;
        Ok(once::done(committed, accepted)?)
    }

    /// Asks Proxmox whether the archive is there, and where its disks can go.
    async fn site(&self, known: &Known<'_>, wish: RestoreWish) -> Result<Site, Error> {
        let Known { kept, archive, live, .. } = known;
        let original = &live.requested.guest;
        if wish.in_place && live.lost.is_some() {
            return Err(Error::conflict(
                "application.container_missing",
                "its container is gone, so there is nothing to restore in place; leave `in_place` out",
            ));
        }
        // Another container is made where the archive was stored, since a storage may be a node's own.
        let at = if wish.in_place { original } else { &kept.requested.guest };
        let at = GuestRef { vmid: original.vmid, ..at.clone() };
        let clusters = self.clusters.seen().await?;
        if !view(&clusters, &at)?.nodes.iter().any(|node| node.name == at.node && node.online) {
            return Err(Error::Unavailable {
                code: "nodes.none_online",
                detail: format!("node {} is not online", at.node),
                retry_after: Duration::from_secs(30),
            });
        }
        let hypervisor = self.hypervisors.of(at.host).await?;
        let storage = &kept.requested.storage;
        let listed = hypervisor.volumes(&at.node, storage, "backup").await?;
        if !listed.iter().any(|volume| volume.id == archive.volume) {
            return Err(Error::conflict(
                "backup.archive_missing",
                format!("the archive is not on storage {storage} of node {}", at.node),
            ));
        }
        let config = hypervisor.config(&original.node, original.vmid).await?;
        if config.is_none() && live.lost.is_none() {
            return Err(Error::conflict(
                "application.container_missing",
                format!("its container {} is not on node {}", original.vmid, original.node),
            ));
        }
        let config = config.filter(|_| live.lost.is_none());
        if let Some(config) = config.as_ref().filter(|_| !wish.lose_volumes) {
            keeps_volumes(hypervisor.as_ref(), &at, archive, config).await?;
        }
        let disk_storage = disk_storage(hypervisor.as_ref(), &at, live, config).await?;
        Ok(Site { at, disk_storage })
    }
}

fn view<'a>(clusters: &'a [ClusterView], at: &GuestRef) -> Result<&'a ClusterView, Error> {
    clusters.iter().find(|view| view.host == at.host).ok_or_else(host_gone)
}

/// Refuses when the container has volumes whose contents the archive does not hold: the restored one
/// would have them anew and empty, or not at all.
async fn keeps_volumes(
    hypervisor: &dyn Hypervisor,
    at: &GuestRef,
    archive: &Archive,
    config: &GuestConfig,
) -> Result<(), Error> {
    if volumes::of(config).is_empty() {
        return Ok(());
    }
    let archived = hypervisor.archived(&at.node, &archive.volume).await?;
    let lost = volumes::not_held(config, &archived);
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::conflict(
        "restore.would_lose_volumes",
        format!(
            "the backup does not hold what is on these volumes of container {}, which the restore \
             destroys: {}; send `lose_volumes: true` if they may go",
            at.vmid,
            volumes::listed(&lost)
        ),
    ))
}

/// The storage that has the disks now or, where it is not there, the one with the most room. What is
/// restored needs as much room again, also in place: Proxmox makes the new disks before it destroys
/// the old ones.
async fn disk_storage(
    hypervisor: &dyn Hypervisor,
    at: &GuestRef,
    live: &Live,
    config: Option<GuestConfig>,
) -> Result<String, Error> {
    let mut storages = hypervisor.storages(&at.node).await?;
    storages
        .retain(|storage| storage.active && storage.content.iter().any(|kind| kind == "rootdir"));
    let own = config.as_ref().and_then(|config| config.rest.get("rootfs")?.split_once(':'));
    let chosen = own
        .and_then(|(name, _)| storages.iter().find(|storage| storage.name == name))
        .or_else(|| {
            storages.iter().max_by_key(|s| (s.available, std::cmp::Reverse(s.name.clone())))
        })
        .ok_or_else(|| {
            let detail = format!("no storage of node {} takes containers", at.node);
            Error::conflict("restore.no_storage", detail)
        })?;
    let least = u64::from(live.requested.resources.disk.get()) * GIBIBYTE;
    let needed = config.as_ref().map_or(least, |config| sizes(config).max(least));
    match chosen.available {
        Some(available) if available < needed => Err(Error::conflict(
            "restore.no_space",
            format!(
                "storage {} of node {} has {} GiB free, and the restored disks need {} GiB beside \
                 those that are there",
                chosen.name,
                at.node,
                available / GIBIBYTE,
                needed.div_ceil(GIBIBYTE)
            ),
        )),
        _ => Ok(chosen.name.clone()),
    }
}

/// Bytes of all disks that a restore makes: the root disk, and every volume that is mounted. What a
/// backup does not hold is made all the same, and stays empty.
fn sizes(config: &GuestConfig) -> u64 {
    let made = config.rest.iter().filter(|(key, value)| {
        *key == "rootfs" || key.starts_with("mp") && !value.starts_with('/')
    });
    made.filter_map(|(_, value)| value.split(',').find_map(|part| part.strip_prefix("size=")))
        .filter_map(bytes)
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_that_a_restore_makes_are_counted_and_no_others() {
        let rest = [
            ("rootfs", "local-zfs:subvol-104-disk-0,size=8G"),
            ("mp0", "local-zfs:subvol-104-disk-1,mp=/data,backup=1,size=512M"),
            ("mp1", "local-zfs:subvol-104-disk-2,mp=/cache,size=100G"),
            ("mp2", "/srv,mp=/srv,backup=1,size=1T"),
            ("unused0", "local-zfs:subvol-104-disk-3"),
            ("net0", "name=eth0,size=1T,backup=1"),
        ];
        let config = GuestConfig {
            digest: String::new(),
            description: None,
            hostname: None,
            lock: None,
            protection: true,
            unprivileged: true,
            rest: rest.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        };
        assert_eq!(sizes(&config), 108 * GIBIBYTE + GIBIBYTE / 2);
    }
}
