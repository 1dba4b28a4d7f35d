//! One call restores a backup: whether there is an archive and room for it is asked before anything is
//! stored, and all of the restore is one append.

use std::time::Duration;

use proximity_domain::application::{Application, Command as App, Live};
use proximity_domain::backup::{Archive, Backup, Command, Error as BackupRefusal, Kept, Outcome};
use proximity_domain::host::Host;
use proximity_domain::lease::Holder;
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{GuestRef, Kind, Plan, RestorePlan, RestoreWay};
use proximity_domain::{BackupId, NodeName, OperationId};
use uuid::Uuid;

use super::clone::host_gone;
use super::deploy::{Losses, Lost, judged, lost, take};
use super::{Applications, BackupAccepted};
use crate::dispatch::{Unit, load};
use crate::error::Error;
use crate::once::{self, Done, OnceKey};
use crate::policy::{Owned, give};
use crate::ports::{ArchivedConfig, ClusterView, GuestConfig, Hypervisor, Storage, Volume};
use crate::room;
use crate::saga;
use crate::volumes::{self, Belongings};

/// How a backup is to be restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreWish {
    /// Overwrite the container that is there instead of putting another one in its place.
    pub in_place: bool,
    /// Destroy volumes of the container whose contents the backup does not hold, and its snapshots.
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
        let storage = &kept.requested.storage;
        let clusters = self.clusters.seen().await?;
        let at = if wish.in_place {
            original.clone()
        } else {
            let stored = GuestRef { vmid: original.vmid, ..kept.requested.guest.clone() };
            reaching(view(&clusters, &stored)?, stored, storage, &original.node)
        };
        if !view(&clusters, &at)?.nodes.iter().any(|node| node.name == at.node && node.online) {
            return Err(Error::Unavailable {
                code: "nodes.none_online",
                detail: format!("node {} is not online", at.node),
                retry_after: Duration::from_secs(30),
            });
        }
        let hypervisor = self.hypervisors.of(at.host).await?;
        let listed = hypervisor.volumes(&at.node, storage, "backup").await?;
        let Some(volume) = listed.into_iter().find(|volume| volume.id == archive.volume) else {
            return Err(Error::conflict(
                "backup.archive_missing",
                format!("the archive is not on storage {storage} of node {}", at.node),
            ));
        };
        let config = match live.lost {
            Some(_) => None,
            None => {
                Some(hypervisor.config(&original.node, original.vmid).await?.ok_or_else(|| {
                    Error::conflict(
                        "application.container_missing",
                        format!("its container {} is not on node {}", original.vmid, original.node),
                    )
                })?)
            }
        };
        let archived = hypervisor.archived(&at.node, &archive.volume).await?;
        self.may_mount(&at, &archived).await?;
        if let Some(config) = config.as_ref().filter(|_| !wish.lose_volumes) {
            loses_nothing(hypervisor.as_ref(), original, &archived, config).await?;
        }
        let storages = hypervisor.storages(&at.node).await?;
        let disk_storage = disk_storage(storages, &at, config.as_ref(), &archived, &volume)?;
        Ok(Site { at, disk_storage })
    }

    /// Refuses what Proxmox restores for nobody but `root@pam` himself.
    async fn may_mount(&self, at: &GuestRef, archived: &ArchivedConfig) -> Result<(), Error> {
        let Some(why) = volumes::needs_root(archived) else { return Ok(()) };
        let (host, _) = load::<Host>(&self.store, &at.host.to_string()).await?;
        if host.registration().is_none_or(|host| host.connection.is_root()) {
            return Ok(());
        }
        Err(Error::conflict("restore.needs_root", why))
    }
}

fn view<'a>(clusters: &'a [ClusterView], at: &GuestRef) -> Result<&'a ClusterView, Error> {
    clusters.iter().find(|view| view.host == at.host).ok_or_else(host_gone)
}

/// Where an archive is read, and another container made of it: where it was stored, since a storage may be
/// a node's own. When that node is not online and others list the storage as a shared one, it is the
/// application's present node or any of them.
pub(super) fn reaching(
    cluster: &ClusterView,
    stored: GuestRef,
    storage: &str,
    present: &NodeName,
) -> GuestRef {
    let online = || cluster.nodes.iter().filter(|node| node.online);
    if online().any(|node| node.name == stored.node) {
        return stored;
    }
    let has = |one: &Storage| one.shared && one.active && one.name == storage;
    let reach = || online().filter(|node| node.storages.iter().any(has)).map(|node| &node.name);
    match reach().find(|name| *name == present).or_else(|| reach().next()) {
        Some(node) => GuestRef { node: node.clone(), ..stored },
        None => stored,
    }
}

/// Refuses when the container has what the archive does not hold: volumes that the restored one would
/// have anew and empty, or not at all, and snapshots.
async fn loses_nothing(
    hypervisor: &dyn Hypervisor,
    original: &GuestRef,
    archived: &ArchivedConfig,
    config: &GuestConfig,
) -> Result<(), Error> {
    let belongings = Belongings::of(hypervisor, &original.node, original.vmid, config).await?;
    match belongings.not_held(archived) {
        None => Ok(()),
        Some(lost) => Err(Error::conflict(
            "restore.would_lose_volumes",
            format!(
                "the restore destroys what the backup does not hold of container {}: {lost}; send \
                 `lose_volumes: true` if that may go",
                original.vmid
            ),
        )),
    }
}

/// The storage that has the disks now or, where it is not there, the one with the most room. What is
/// restored needs its room beside what is there, also in place: Proxmox makes the new disks before it
/// destroys the old ones.
fn disk_storage(
    mut storages: Vec<Storage>,
    at: &GuestRef,
    config: Option<&GuestConfig>,
    archived: &ArchivedConfig,
    archive: &Volume,
) -> Result<String, Error> {
    storages
        .retain(|storage| storage.active && storage.content.iter().any(|kind| kind == "rootdir"));
    let own = config.and_then(|config| config.rest.get("rootfs")?.split_once(':'));
    let chosen = own
        .and_then(|(name, _)| storages.iter().find(|storage| storage.name == name))
        .or_else(|| {
            storages.iter().max_by_key(|s| (s.available, std::cmp::Reverse(s.name.clone())))
        })
        .ok_or_else(|| {
            let detail = format!("no storage of node {} takes containers", at.node);
            Error::conflict("restore.no_storage", detail)
        })?;
    match room::missing(chosen, archived, archive) {
        Some(detail) => Err(Error::conflict("restore.no_space", detail)),
        None => Ok(chosen.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use proximity_domain::HostId;

    use super::*;
    use crate::ports::NodeView;

    fn storage(shared: bool) -> Storage {
        Storage {
            name: "nas".to_owned(),
            kind: "nfs".to_owned(),
            content: vec!["backup".to_owned()],
            active: true,
            shared,
            available: None,
            total: None,
            used: None,
        }
    }

    fn node(name: &str, online: bool, storage: Storage) -> NodeView {
        let name = name.parse().unwrap();
        NodeView { name, online, memory_free: None, storages: vec![storage] }
    }

    fn chosen(nodes: Vec<NodeView>) -> String {
        let cluster = ClusterView {
            host: HostId(1),
            cluster: "lab".parse().unwrap(),
            is_default: true,
            version: None,
            nodes,
            guests: Default::default(),
        };
        let stored = GuestRef {
            host: HostId(1),
            cluster: "lab".parse().unwrap(),
            node: "pve2".parse().unwrap(),
            vmid: "104".parse().unwrap(),
        };
        reaching(&cluster, stored, "nas", &"pve3".parse().unwrap()).node.to_string()
    }

    #[test]
    fn an_archive_is_restored_where_it_was_made_as_long_as_that_node_is_there() {
        let all = |online| ["pve1", "pve2", "pve3"].map(|name| node(name, online, storage(true)));
        assert_eq!(chosen(all(true).into()), "pve2");
        assert_eq!(chosen(all(false).into()), "pve2", "which is refused then");
    }

    #[test]
    fn one_on_a_shared_storage_is_restored_where_the_application_is_when_its_node_is_gone() {
        let gone = || node("pve2", false, storage(true));
        let there = |name| node(name, true, storage(true));
        assert_eq!(chosen(vec![there("pve1"), gone(), there("pve3")]), "pve3");
        assert_eq!(chosen(vec![there("pve1"), gone()]), "pve1");
        assert_eq!(chosen(vec![there("pve1")]), "pve1", "it is no node of the cluster any more");
        assert_eq!(chosen(vec![node("pve1", true, storage(false)), gone()]), "pve2");
    }
}
