//! What happens behind the API's back: strangers' containers, edits and moves by an operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::api::{destroy, power};
use crate::auth::Auth;
use crate::error::Error;
use crate::handle::SimulatorHandle;
use crate::sim::Sim;
use crate::world::container::{Container, Snapshot};
use crate::world::retention::Retention;
use crate::world::storage::{Archive, Volume, print_size, split_volid};

/// A container of somebody else.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Foreign {
    /// Where; the first node if absent.
    pub node: Option<String>,
    /// Its number; the lowest free one if absent.
    pub vmid: Option<u32>,
    /// Its hostname.
    pub hostname: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// A config lock that it is to bear.
    pub lock: Option<String>,
    /// More settings, as they stand in a configuration.
    pub config: BTreeMap<String, String>,
    /// The template it claims to be made from; decides its ports.
    pub image: String,
    /// Whether it runs.
    pub running: bool,
}

impl SimulatorHandle {
    /// Puts a container of somebody else there, without a call; returns its number.
    ///
    /// # Errors
    /// `Taken` if the number is, `Unknown` if the node is not there.
    pub async fn plant_container(&self, foreign: Foreign) -> Result<u32, Error> {
        plant(&self.sim, foreign).await
    }

    /// Removes a container behind everybody's back, as an operator at the console would.
    ///
    /// # Errors
    /// `Unknown` if it is not there.
    pub async fn remove_container(&self, vmid: u32) -> Result<(), Error> {
        let container = {
            let mut world = self.sim.world();
            let container = world
                .containers
                .remove(&vmid)
                .ok_or_else(|| Error::Unknown { kind: "container", name: vmid.to_string() })?;
            let volumes = crate::api::disks::all_volumes(&container);
            crate::api::disks::free(&mut world, &container.node, &volumes);
            container
        };
        if let Some(running) = container.running {
            running.guest.halt().await;
        }
        Ok(())
    }

    /// Destroys a container as `pct destroy` does: one that is protected, locked or running stays.
    ///
    /// # Errors
    /// `Unknown` if it is not there, `Config` with Proxmox's words if it refuses.
    pub async fn destroy_container(&self, vmid: u32) -> Result<(), Error> {
        destroy::refused(&self.sim.world(), vmid).map_or(Ok(()), |why| Err(Error::Config(why)))?;
        self.remove_container(vmid).await
    }

    /// Changes a container's configuration behind everybody's back; `None` takes a setting away.
    ///
    /// # Errors
    /// `Unknown` if the container is not there.
    pub fn edit_container(&self, vmid: u32, key: &str, value: Option<&str>) -> Result<(), Error> {
        let mut world = self.sim.world();
        let container = world
            .containers
            .get_mut(&vmid)
            .ok_or_else(|| Error::Unknown { kind: "container", name: vmid.to_string() })?;
        match value {
            Some(value) => container.config.insert(key.to_owned(), value.to_owned()),
            None => container.config.remove(key),
        };
        Ok(())
    }

    /// Gives a container a data volume; `members` are those of its mount point, such as
    /// `mp=/data,backup=1`.
    ///
    /// # Errors
    /// `Unknown` if the container is not there.
    pub fn add_volume(&self, vmid: u32, key: &str, members: &str, bytes: u64) -> Result<(), Error> {
        let now = self.sim.now();
        let unknown = || Error::Unknown { kind: "container", name: vmid.to_string() };
        let mut world = self.sim.world();
        let node = world.containers.get(&vmid).map(|container| container.node.clone());
        let node = world.nodes.get_mut(&node.ok_or_else(unknown)?).ok_or_else(unknown)?;
        let store = node.stores.values_mut().find(|store| store.takes("rootdir"));
        let store = store.ok_or_else(unknown)?;
        let volid = store.free_disk(vmid);
        store.volumes.insert(volid.clone(), store.disk(vmid, bytes, now));
        drop(world);
        let value = format!("{volid},{members},size={}", print_size(bytes));
        self.edit_container(vmid, key, Some(&value))
    }

    /// Puts a disk with a container's number on a storage, whether or not there is such a container;
    /// returns its id.
    ///
    /// # Errors
    /// `Unknown` if the node does not have the storage.
    pub fn plant_disk(&self, node: &str, storage: &str, vmid: u32) -> Result<String, Error> {
        let now = self.sim.now();
        let mut world = self.sim.world();
        let store = world.nodes.get_mut(node).and_then(|node| node.stores.get_mut(storage));
        let store =
            store.ok_or_else(|| Error::Unknown { kind: "storage", name: storage.to_owned() })?;
        let volid = store.free_disk(vmid);
        store.volumes.insert(volid.clone(), store.disk(vmid, 1 << 30, now));
        Ok(volid)
    }

    /// Takes a mount point away, as `pct set --delete` does: from a container that runs at its next start.
    ///
    /// # Errors
    /// `Unknown` if the container is not there.
    pub fn unmount(&self, vmid: u32, key: &str) -> Result<(), Error> {
        let mut world = self.sim.world();
        let container = world.containers.get_mut(&vmid);
        let unknown = || Error::Unknown { kind: "container", name: vmid.to_string() };
        crate::api::config::delete(container.ok_or_else(unknown)?, key);
        Ok(())
    }

    /// Gives a container a snapshot, whatever its storage can.
    ///
    /// # Errors
    /// `Unknown` if the container is not there.
    pub fn plant_snapshot(&self, vmid: u32, name: &str) -> Result<(), Error> {
        let taken = self.sim.now();
        let mut world = self.sim.world();
        let container = world.containers.get_mut(&vmid);
        let unknown = || Error::Unknown { kind: "container", name: vmid.to_string() };
        let container = container.ok_or_else(unknown)?;
        let (config, parent) = (container.config.clone(), container.parent.replace(name.into()));
        let (name, description) = (name.to_owned(), String::new());
        container.snapshots.push(Snapshot { name, description, taken, parent, config });
        Ok(())
    }

    /// Takes a snapshot of a container away.
    pub fn remove_snapshot(&self, vmid: u32, name: &str) {
        if let Some(container) = self.sim.world().containers.get_mut(&vmid) {
            container.snapshots.retain(|snapshot| snapshot.name != name);
        }
    }

    /// Calls a storage shared on all nodes that have it, and puts what is on it anywhere onto it
    /// everywhere; what comes later is only where it was made.
    pub fn share_storage(&self, name: &str) {
        let mut world = self.sim.world();
        let stores = || world.nodes.values().filter_map(|node| node.stores.get(name));
        let all: Vec<_> = stores().flat_map(|store| store.volumes.clone()).collect();
        for store in world.nodes.values_mut().filter_map(|node| node.stores.get_mut(name)) {
            store.shared = true;
            store.volumes.extend(all.clone());
        }
    }

    /// Tells no time of the disks of a storage any more, as ZFS and Ceph do.
    pub fn hide_times(&self, storage: &str) {
        for node in self.sim.world().nodes.values_mut() {
            if let Some(store) = node.stores.get_mut(storage) {
                store.tells_times = false;
            }
        }
    }

    /// Gives a volume the time of now, as who mounts it and writes to it does.
    pub fn touch_volume(&self, volid: &str) {
        let now = self.sim.now();
        let mut world = self.sim.world();
        let stores = world.nodes.values_mut().flat_map(|node| node.stores.values_mut());
        for volume in stores.filter_map(|store| store.volumes.get_mut(volid)) {
            volume.ctime = now;
        }
    }

    /// Takes a storage out of the cluster's configuration; what was on it is not listed any more.
    pub fn remove_storage(&self, name: &str) {
        for node in self.sim.world().nodes.values_mut() {
            node.stores.remove(name);
        }
    }

    /// Puts a container into a resource pool, which is made when there is none of that name.
    ///
    /// # Errors
    /// `Unknown` if the container is not there.
    pub fn put_into_pool(&self, vmid: u32, pool: &str) -> Result<(), Error> {
        let mut world = self.sim.world();
        world.pools.entry(pool.to_owned()).or_default();
        let container = world.containers.get_mut(&vmid);
        let unknown = || Error::Unknown { kind: "container", name: vmid.to_string() };
        container.ok_or_else(unknown)?.pool = Some(pool.to_owned());
        Ok(())
    }

    /// Removes a pool; containers go on naming it, as one does that was looked at a moment before.
    pub fn remove_pool(&self, pool: &str) {
        self.sim.world().pools.remove(pool);
    }

    /// Starts a task of a person (`root@pam`) about a container that runs until it is stopped: a console
    /// (`vncproxy`), a migration (`vzmigrate`). It takes no lock and changes nothing. Returns its id.
    ///
    /// # Errors
    /// `Unknown` if the container is not there.
    pub fn plant_task(&self, vmid: u32, kind: &'static str) -> Result<String, Error> {
        let node = self.sim.world().containers.get(&vmid).map(|container| container.node.clone());
        let node =
            node.ok_or_else(|| Error::Unknown { kind: "container", name: vmid.to_string() })?;
        let work = |task: crate::sim::TaskContext| async move {
            task.interruptible(std::future::pending::<()>()).await
        };
        Ok(self.sim.start_task_as(&operator(), &node, kind, &vmid.to_string(), None, work))
    }

    /// Stops a task, as its own user would; `false` if it had ended already.
    pub async fn stop_task(&self, upid: &str) -> bool {
        let tokens = self.sim.world().task(upid).filter(|task| task.exit.is_none()).map(|task| {
            task.abort.cancel();
            task.ended.clone()
        });
        match tokens {
            Some(ended) => {
                ended.cancelled().await;
                true
            }
            None => false,
        }
    }

    /// Starts or stops a container, as an operator at the console would.
    ///
    /// # Errors
    /// `Unknown` if it is not there, `Config` if it does not start.
    pub async fn power_container(&self, vmid: u32, on: bool) -> Result<(), Error> {
        let node = self.sim.world().containers.get(&vmid).map(|container| container.node.clone());
        let node =
            node.ok_or_else(|| Error::Unknown { kind: "container", name: vmid.to_string() })?;
        if on {
            return bring_up(&self.sim, &node, vmid).await;
        }
        power::take_down(&self.sim, &operator(), &node, vmid).await;
        Ok(())
    }

    /// Stores an archive of a container as it is, under this volume id and with these notes.
    ///
    /// # Errors
    /// `Unknown` if the container, or the volume's storage on its node, is not there.
    pub fn plant_archive(&self, vmid: u32, volid: &str, notes: &str) -> Result<(), Error> {
        let mut world = self.sim.world();
        let container = world
            .containers
            .get(&vmid)
            .ok_or_else(|| Error::Unknown { kind: "container", name: vmid.to_string() })?;
        let (node, archive) = (container.node.clone(), Archive::of(container));
        let (storage, file) = split_volid(volid).unwrap_or_default();
        let format = file.split_once(".").map_or("tar", |(_, format)| format);
        let volume = Volume {
            notes: Some(notes.to_owned()),
            ..Volume::backup(vmid, format, self.sim.now(), archive)
        };
        let stores = world.nodes.get_mut(&node).map(|node| &mut node.stores);
        stores
            .and_then(|stores| stores.get_mut(storage))
            .ok_or_else(|| Error::Unknown { kind: "storage", name: storage.to_owned() })?
            .volumes
            .insert(volid.to_owned(), volume);
        Ok(())
    }

    /// Removes a volume, such as an archive, from every storage that has it.
    ///
    /// # Errors
    /// `Unknown` if none has.
    pub fn remove_volume(&self, volid: &str) -> Result<(), Error> {
        let mut world = self.sim.world();
        let stores = world.nodes.values_mut().flat_map(|node| node.stores.values_mut());
        let had = stores.filter_map(|store| store.volumes.remove(volid)).count();
        if had == 0 {
            return Err(Error::Unknown { kind: "volume", name: volid.to_owned() });
        }
        Ok(())
    }

    /// Sets `prune-backups` of a storage, such as `keep-last=2`, on all nodes that have it; `None`
    /// takes it away.
    ///
    /// # Errors
    /// `Unknown` if no node has the storage, `Config` if it is no retention.
    pub fn set_retention(&self, storage: &str, prune_backups: Option<&str>) -> Result<(), Error> {
        set_retention(&self.sim, storage, prune_backups)
    }

    /// Sets which kinds of content a storage takes, on all nodes that have it; what is on it stays.
    ///
    /// # Errors
    /// `Unknown` if no node has the storage.
    pub fn set_content(&self, storage: &str, content: &[&str]) -> Result<(), Error> {
        let content: Vec<String> = content.iter().map(|kind| (*kind).to_owned()).collect();
        set_content(&self.sim, storage, &content)
    }

    /// Makes every storage so large that about this many bytes of it are free.
    pub fn leave_free(&self, bytes: u64) {
        let mut world = self.sim.world();
        for store in world.nodes.values_mut().flat_map(|node| node.stores.values_mut()) {
            store.resize_to_leave(bytes);
        }
    }

    /// Moves a container to another node, as a migration would.
    ///
    /// # Errors
    /// `Unknown` if the container or the node is not there.
    pub fn move_container(&self, vmid: u32, node: &str) -> Result<(), Error> {
        let mut world = self.sim.world();
        if !world.nodes.contains_key(node) {
            return Err(Error::Unknown { kind: "node", name: node.to_owned() });
        }
        let container = world
            .containers
            .get_mut(&vmid)
            .ok_or_else(|| Error::Unknown { kind: "container", name: vmid.to_string() })?;
        let (from, volumes) =
            (std::mem::replace(&mut container.node, node.to_owned()), container.volumes());
        for volid in volumes {
            let Some((storage, _)) = split_volid(&volid) else { continue };
            let taken = world
                .nodes
                .get_mut(&from)
                .and_then(|entry| entry.stores.get_mut(storage)?.volumes.remove(&volid));
            let target = world.nodes.get_mut(node).and_then(|n| n.stores.get_mut(storage));
            if let (Some(volume), Some(store)) = (taken, target) {
                store.volumes.insert(volid, volume);
            }
        }
        Ok(())
    }
}

pub(crate) async fn plant(sim: &Arc<Sim>, foreign: Foreign) -> Result<u32, Error> {
    let now = sim.now();
    let (vmid, node) = {
        let mut world = sim.world();
        let node = foreign.node.unwrap_or_else(|| world.order[0].clone());
        if !world.nodes.contains_key(&node) {
            return Err(Error::Unknown { kind: "node", name: node });
        }
        let vmid = match foreign.vmid {
            Some(vmid) if world.containers.contains_key(&vmid) => return Err(Error::Taken(vmid)),
            Some(vmid) => vmid,
            None => (100..).find(|id| !world.containers.contains_key(id)).unwrap_or(100),
        };
        let mut container = Container::new(vmid, &node);
        let size: u64 = 4 << 30;
        let volid = world.nodes.get_mut(&node).and_then(|entry| {
            let store = entry.stores.values_mut().find(|store| store.takes("rootdir"))?;
            let volid = store.free_disk(vmid);
            store.volumes.insert(volid.clone(), store.disk(vmid, size, now));
            Some(volid)
        });
        let mut put = |key: &str, value: String| {
            container.config.insert(key.to_owned(), value);
        };
        put("hostname", foreign.hostname.unwrap_or_else(|| format!("stranger-{vmid}")));
        for (key, value) in [
            ("arch", "amd64"),
            ("memory", "512"),
            ("swap", "512"),
            ("ostype", "debian"),
            ("unprivileged", "1"),
        ] {
            put(key, value.to_owned());
        }
        if let Some(volid) = volid {
            put("rootfs", format!("{volid},size={}", print_size(size)));
        }
        if let Some(description) = foreign.description {
            put("description", description);
        }
        if let Some(lock) = foreign.lock {
            put("lock", lock);
        }
        container.config.extend(foreign.config);
        container.image = foreign.image;
        world.containers.insert(vmid, container);
        (vmid, node)
    };
    if foreign.running {
        bring_up(sim, &node, vmid).await?;
    }
    Ok(vmid)
}

pub(crate) fn set_retention(
    sim: &Sim,
    storage: &str,
    prune_backups: Option<&str>,
) -> Result<(), Error> {
    let retention = match prune_backups {
        None => None,
        Some(text) => {
            let read = Retention::parse(text);
            Some(read.ok_or_else(|| Error::Config(format!("`{text}` is no retention")))?)
        }
    };
    let mut world = sim.world();
    let stores = world.nodes.values_mut().filter_map(|node| node.stores.get_mut(storage));
    let had = stores.map(|store| store.retention.clone_from(&retention)).count();
    if had == 0 {
        return Err(Error::Unknown { kind: "storage", name: storage.to_owned() });
    }
    Ok(())
}

pub(crate) fn set_content(sim: &Sim, storage: &str, content: &[String]) -> Result<(), Error> {
    let mut world = sim.world();
    let stores = world.nodes.values_mut().filter_map(|node| node.stores.get_mut(storage));
    let had = stores.map(|store| store.config.content = content.to_vec()).count();
    if had == 0 {
        return Err(Error::Unknown { kind: "storage", name: storage.to_owned() });
    }
    Ok(())
}

fn operator() -> Auth {
    Auth { user: "root@pam".to_owned(), token: None }
}

async fn bring_up(sim: &Sim, node: &str, vmid: u32) -> Result<(), Error> {
    power::bring_up(sim, &operator(), node, vmid)
        .await
        .map_err(|failure| Error::Config(format!("the guest did not start: {failure:?}")))
}
