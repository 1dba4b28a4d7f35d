//! Allocating and freeing the volumes of containers.

use crate::params::property::{self, MOUNT_POINT, ROOTFS};
use crate::reply::Refusal;
use crate::sim::{Failure, Sim};
use crate::world::World;
use crate::world::container::{Config, is_mount, volumes_of};
use crate::world::storage::{parse_size, print_size, split_volid};

use super::storage::{no_storage, store};

/// Images beyond this do not fit into a raw file.
const LARGEST: u64 = 16 << 40;

/// A volume that a setting asks to be made: its storage and size in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) key: String,
    pub(crate) storage: String,
    pub(crate) bytes: u64,
}

/// `storage:GiB` in a mount setting; anything else names what exists.
pub(crate) fn request(key: &str, value: &str) -> Option<Request> {
    let volume = property::parse(ROOTFS, value).ok()?.remove("volume")?;
    let (storage, size) = split_volid(&volume)?;
    if !size.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    // Whole mebibytes, as `0.1` becomes 102M.
    let bytes = parse_size(size, 1 << 30)? >> 20 << 20;
    Some(Request { key: key.to_owned(), storage: storage.to_owned(), bytes })
}

/// Every volume that a configuration asks for; without a root file system it gets 4 GiB.
pub(crate) fn requests(config: &mut Config, default_storage: &str) -> Vec<Request> {
    config.entry("rootfs".to_owned()).or_insert_with(|| format!("{default_storage}:4"));
    for (_, value) in config.iter_mut().filter(|(key, _)| is_mount(key)) {
        // A bare number stands for a new volume on the default storage.
        if value.parse::<f64>().is_ok() {
            *value = format!("{default_storage}:{value}");
        }
    }
    config
        .iter()
        .filter(|(key, _)| is_mount(key))
        .filter_map(|(key, value)| request(key, value))
        .collect()
}

/// A storage has to exist and to take containers before anything starts.
pub(crate) fn check_storage(world: &World, node: &str, name: &str) -> Result<(), Refusal> {
    if store(world, node, name)?.takes("rootdir") {
        return Ok(());
    }
    let text = format!("storage '{name}' does not support container directories");
    Err(Refusal::parameter("storage", text))
}

/// Makes one volume, puts it into the configuration, and returns the lines of the log.
pub(crate) fn allocate(
    sim: &Sim,
    world: &mut World,
    node: &str,
    vmid: u32,
    config: &mut Config,
    request: &Request,
) -> Result<Vec<String>, Failure> {
    let Request { key, storage, bytes } = request;
    let uuid = super::settings::filesystem_uuid(world);
    let now = sim.now();
    let store = world
        .nodes
        .get_mut(node)
        .and_then(|node| node.stores.get_mut(storage))
        .ok_or_else(|| Failure::from(no_storage(storage)))?;
    let volid = store.free_disk(vmid);
    let path = crate::world::storage::file_path(&volid);
    let directory = store.config.kind == crate::config::StorageKind::Dir;
    let mut lines = Vec::new();
    if directory {
        lines.push(format!("Formatting '{path}', fmt=raw size={bytes} preallocation=off"));
    }
    if *bytes > LARGEST {
        return Err(Failure::Error(format!(
            "unable to create image: qemu-img: {path}: The image size is too large for file \
             format 'raw'"
        )));
    }
    lines.push(format!(
        "Creating filesystem with {} 4k blocks and {} inodes",
        bytes / 4096,
        bytes / 16384
    ));
    lines.push(format!("Filesystem UUID: {uuid}"));
    lines.push("Superblock backups stored on blocks: ".to_owned());
    lines.push("\t32768, 98304, 163840, 229376".to_owned());
    store.volumes.insert(volid.clone(), store.disk(vmid, *bytes, now));
    let table = if key == "rootfs" { ROOTFS } else { MOUNT_POINT };
    let mut members =
        config.get(key).and_then(|value| property::parse(table, value).ok()).unwrap_or_default();
    members.insert("volume".to_owned(), volid);
    members.insert("size".to_owned(), print_size(*bytes));
    config.insert(key.clone(), property::print(table, &members));
    Ok(lines)
}

/// Whether what a new volume takes from the beginning is free.
pub(crate) fn check_room(world: &World, node: &str, request: &Request) -> Result<(), Failure> {
    let store = store(world, node, &request.storage)?;
    if store.avail() >= store.disk(0, request.bytes, 0).used {
        return Ok(());
    }
    let text = "unable to create image: No space left on device";
    Err(Failure::Error(text.to_owned()))
}

/// Frees volumes wherever they are on the node.
pub(crate) fn free(world: &mut World, node: &str, volumes: &[String]) {
    let Some(node) = world.nodes.get_mut(node) else { return };
    for volid in volumes {
        if let Some((storage, _)) = split_volid(volid)
            && let Some(store) = node.stores.get_mut(storage)
        {
            store.volumes.remove(volid);
        }
    }
}

/// The volumes that were made for these requests.
pub(crate) fn made(config: &Config, wanted: &[Request]) -> Vec<String> {
    let entries = wanted.iter().filter_map(|request| config.get_key_value(&request.key));
    volumes_of(&entries.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Every disk of a container: those of its configuration and those of its snapshots.
pub(crate) fn all_volumes(container: &crate::world::container::Container) -> Vec<String> {
    let mut volumes = container.volumes();
    volumes.extend(container.snapshots.iter().flat_map(|snapshot| volumes_of(&snapshot.config)));
    volumes.sort();
    volumes.dedup();
    volumes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_size_after_a_storage_asks_for_a_volume_and_a_name_does_not() {
        assert_eq!(request("rootfs", "local:8").unwrap().bytes, 8 << 30);
        assert_eq!(request("rootfs", "volume=local:0.1,size=1G").unwrap().bytes, 102 << 20);
        assert_eq!(request("rootfs", "local:100/vm-100-disk-0.raw,size=8G"), None);
        assert_eq!(request("mp0", "/srv,mp=/srv"), None);
    }
}
