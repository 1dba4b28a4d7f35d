//! The content of storages: volumes, the appliance index, downloads and OCI pulls.

use std::sync::Arc;

use serde_json::{Value, json};

use super::storage::{no_storage, store};
use crate::gate::rights_in;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Failure, Sim, TaskContext};
use crate::world::World;
use crate::world::storage::{APPLIANCES, Store, Volume, file_path, split_volid};

/// What a volume is listed as: a disk of which no container is there counts as one of a virtual machine.
fn content(world: &World, volume: &Volume) -> &'static str {
    let is_orphan = |vmid| !world.containers.contains_key(&vmid);
    match volume.content {
        "rootdir" if volume.vmid.is_none_or(is_orphan) => "images",
        content => content,
    }
}

fn row(world: &World, store: &Store, volid: &str, volume: &Volume) -> Value {
    let mut row = json!({
        "volid": volid, "content": content(world, volume), "format": volume.format, "size": volume.size,
    });
    if store.tells_times || volume.content != "rootdir" {
        row["ctime"] = json!(volume.ctime);
    }
    if let Some(vmid) = volume.vmid {
        row["vmid"] = json!(vmid);
    }
    match volume.content {
        "rootdir" => {
            row["used"] = json!(volume.used);
            row["parent"] = Value::Null;
        }
        "backup" => {
            row["subtype"] = json!("lxc");
            if volume.protected {
                row["protected"] = json!(1);
            }
            // Only the first line, as the schema says.
            if let Some(line) = volume.notes.as_deref().and_then(|notes| notes.lines().next()) {
                row["notes"] = json!(line);
            }
        }
        _ => {}
    }
    row
}

/// Backups and disks show only to those who may see their guest.
fn visible(world: &World, call: &Call, storage: &str, volume: &Volume) -> bool {
    let on_storage = rights_in(world, &call.auth, &format!("/storage/{storage}"));
    if on_storage.contains("Datastore.Allocate") {
        return true;
    }
    match (volume.content, volume.vmid) {
        ("backup", Some(vmid)) => {
            on_storage.contains("Datastore.AllocateSpace")
                && rights_in(world, &call.auth, &format!("/vms/{vmid}")).contains("VM.Backup")
        }
        _ => {
            on_storage.contains("Datastore.Audit") || on_storage.contains("Datastore.AllocateSpace")
        }
    }
}

pub(crate) async fn list(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let name = call.params.text("storage");
    let store = store(&world, call.node(), name)?;
    let wanted = call.params.get("content");
    let owner = call.params.get("vmid").map(|_| call.vmid());
    let rows = store
        .volumes
        .iter()
        .filter(|(_, volume)| wanted.is_none_or(|wanted| wanted == content(&world, volume)))
        .filter(|(_, volume)| store.takes(content(&world, volume)))
        .filter(|(_, volume)| owner.is_none_or(|owner| volume.vmid == Some(owner)))
        .filter(|(_, volume)| visible(&world, &call, name, volume));
    Reply::data(rows.map(|(volid, volume)| row(&world, store, volid, volume)).collect())
}

/// The full id of the volume that the path names, with or without its storage.
fn volid(call: &Call) -> Result<String, Refusal> {
    let (storage, volume) = (call.params.text("storage"), call.params.text("volume"));
    match split_volid(volume) {
        Some((named, _)) if named != storage => {
            Err(Refusal::die(format!("storage ID missmatch ({named} != {storage})")))
        }
        Some(_) => Ok(volume.to_owned()),
        None => Ok(format!("{storage}:{volume}")),
    }
}

fn no_volume(volid: &str) -> Refusal {
    Refusal::die(format!("volume '{volid}' does not exist"))
}

pub(crate) async fn show(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let volid = volid(&call)?;
    let world = sim.world();
    let name = call.params.text("storage");
    let volume = store(&world, call.node(), name)?
        .volumes
        .get(&volid)
        .filter(|volume| visible(&world, &call, name, volume))
        .ok_or_else(|| no_volume(&volid))?;
    let mut data = json!({
        "path": file_path(&volid), "size": volume.size, "used": volume.used, "format": "raw",
    });
    if volume.content == "backup" {
        data["notes"] = json!(volume.notes.clone().unwrap_or_default());
        data["protected"] = json!(i32::from(volume.protected));
    }
    Reply::data(data)
}

/// Changing and deleting needs a right on the storage, or on the guest for its own backups.
fn may_change(sim: &Sim, call: &Call, volid: &str) -> Result<(), Refusal> {
    let name = call.params.text("storage");
    let world = sim.world();
    let path = format!("/storage/{name}");
    let rights = rights_in(&world, &call.auth, &path);
    if rights.contains("Datastore.Allocate") {
        return Ok(());
    }
    let volume = world.nodes.get(call.node()).and_then(|n| n.stores.get(name)?.volumes.get(volid));
    let needed = match volume.map(|volume| (volume.content, volume.vmid)) {
        Some(("vztmpl" | "iso", _)) => "Datastore.AllocateTemplate",
        Some(("backup", Some(vmid))) => {
            let guest = format!("/vms/{vmid}");
            if !rights_in(&world, &call.auth, &guest).contains("VM.Backup") {
                return Err(Refusal::forbidden(format!("{guest}, VM.Backup")));
            }
            "Datastore.AllocateSpace"
        }
        _ => "Datastore.Allocate",
    };
    if rights.contains(needed) {
        Ok(())
    } else {
        Err(Refusal::forbidden(format!("{path}, {needed}")))
    }
}

pub(crate) async fn update(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let volid = volid(&call)?;
    may_change(&sim, &call, &volid)?;
    let mut world = sim.world();
    let name = call.params.text("storage");
    let volume = world
        .nodes
        .get_mut(call.node())
        .and_then(|node| node.stores.get_mut(name)?.volumes.get_mut(&volid))
        .ok_or_else(|| no_volume(&volid))?;
    if let Some(notes) = call.params.get("notes") {
        volume.notes = Some(notes.to_owned()).filter(|notes| !notes.is_empty());
    }
    if call.params.get("protected").is_some() {
        volume.protected = call.params.flag("protected");
    }
    Reply::null()
}

/// Deleting what is not there succeeds, too.
pub(crate) async fn delete(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let volid = volid(&call)?;
    store(&sim.world(), call.node(), call.params.text("storage"))?;
    may_change(&sim, &call, &volid)?;
    let storage = call.params.text("storage").to_owned();
    let owner = owner_of(&volid);
    let id = owner.map_or_else(|| storage.clone(), |vmid| format!("{vmid}@{storage}"));
    let (node, auth) = (call.node().to_owned(), call.auth.clone());
    let upid = sim.clone().start_task(&call, &node.clone(), "imgdel", &id, |task| async move {
        task.labour().await?;
        let mut world = task.sim.world();
        let store = world.nodes.get_mut(&node).and_then(|node| node.stores.get_mut(&storage));
        let Some(store) = store else { return Err(no_storage(&storage).into()) };
        let mut lines = Vec::new();
        match store.volumes.get(&volid) {
            Some(volume) if volume.protected => {
                let rest = split_volid(&volid).map_or("", |(_, rest)| rest);
                let text = format!("cannot remove protected volume '{rest}' on '{storage}'");
                return Err(Failure::Error(text));
            }
            Some(_) => {
                store.volumes.remove(&volid);
                task.sim.record(&mut world, &auth, &node, "volume.deleted", owner, Some(&volid));
            }
            None => lines.push(format!("disk image '{}' does not exist", file_path(&volid))),
        }
        drop(world);
        lines.push(format!("Removed volume '{volid}'"));
        lines.into_iter().for_each(|line| task.log(line));
        Ok(())
    });
    Reply::data(json!(upid))
}

/// The VMID in the name of a backup or a disk.
fn owner_of(volid: &str) -> Option<u32> {
    let (_, rest) = split_volid(volid)?;
    match rest.strip_prefix("backup/vzdump-lxc-") {
        Some(tail) => tail.split('-').next()?.parse().ok(),
        None => rest.split('/').next()?.parse().ok(),
    }
}

pub(crate) async fn appliances(_sim: Arc<Sim>, _call: Arc<Call>) -> Outcome {
    let rows = APPLIANCES.iter().map(|appliance| {
        json!({
            "template": appliance.file, "package": appliance.package,
            "version": appliance.version, "os": appliance.os, "headline": appliance.headline,
            "type": "lxc", "section": appliance.section(),
            "source": "http://download.proxmox.com/images", "location": appliance.url(),
            "infopage": "https://pve.proxmox.com/wiki/Linux_Container",
            "description": appliance.headline, "architecture": "amd64", "manageurl": "",
            "maintainer": "Proxmox Support Team <support@proxmox.com>", "sha512sum": "",
        })
    });
    Reply::data(rows.collect())
}

/// A storage that takes templates.
fn template_store(sim: &Sim, call: &Call) -> Result<String, Refusal> {
    let name = call.params.text("storage");
    if !store(&sim.world(), call.node(), name)?.takes("vztmpl") {
        let text = format!("storage '{name}' does not support 'vztmpl' content");
        return Err(Refusal::die(text));
    }
    Ok(name.to_owned())
}

pub(crate) async fn download(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let storage = template_store(&sim, &call)?;
    let file = call.params.text("template").to_owned();
    let Some(appliance) = APPLIANCES.iter().find(|appliance| appliance.file == file) else {
        return Err(Refusal::parameter("template", "no such template"));
    };
    let url = appliance.url();
    Reply::data(json!(fetch(&sim, &call, "download", storage, file, url, appliance.size)))
}

pub(crate) async fn download_url(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let storage = template_store(&sim, &call)?;
    sim.require(&call.auth, &format!("/nodes/{}", call.node()), &["Sys.AccessNetwork"], false)?;
    if call.params.text("content") != "vztmpl" {
        return Err(Refusal::parameter("content", "only templates are simulated"));
    }
    let (file, url) = (call.params.text("filename").to_owned(), call.params.text("url").to_owned());
    if !file.contains(".tar.") && !file.ends_with(".tar") {
        return Err(Refusal::parameter("filename", "wrong file extension"));
    }
    Reply::data(json!(fetch(&sim, &call, "download", storage, file, url, 64 << 20)))
}

/// The file that a pull leaves behind. Proxmox puts `.tar` behind any given name, even behind `.tar`.
pub(crate) fn pulled_file(reference: &str, filename: Option<&str>) -> String {
    match filename {
        Some(name) => format!("{name}.tar"),
        None => {
            let last = reference.rsplit('/').next().unwrap_or(reference);
            format!("{}.tar", last.replace(':', "_"))
        }
    }
}

pub(crate) async fn pull(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    sim.require(&call.auth, &format!("/nodes/{}", call.node()), &["Sys.AccessNetwork"], false)?;
    let storage = template_store(&sim, &call)?;
    let reference = call.params.text("reference").to_owned();
    let file = pulled_file(&reference, call.params.get("filename"));
    let volid = format!("{storage}:vztmpl/{file}");
    if store(&sim.world(), call.node(), &storage)?.volumes.contains_key(&volid) {
        return Err(Refusal::die(format!("refusing to override existing file '{file}'")));
    }
    let url = format!("docker://{reference}");
    Reply::data(json!(fetch(&sim, &call, "ociregistrypull", storage, file, url, 48 << 20)))
}

/// Starts the task that puts a template file on a storage.
fn fetch(
    sim: &Arc<Sim>,
    call: &Call,
    kind: &'static str,
    storage: String,
    file: String,
    url: String,
    size: u64,
) -> String {
    let (node, auth) = (call.node().to_owned(), call.auth.clone());
    sim.start_task(call, &node.clone(), kind, &file.clone(), |task: TaskContext| async move {
        let volid = format!("{storage}:vztmpl/{file}");
        task.log(format!("downloading {url} to {}", file_path(&volid)));
        task.labour().await?;
        let now = task.sim.now();
        let mut world = task.sim.world();
        let store = world.nodes.get_mut(&node).and_then(|node| node.stores.get_mut(&storage));
        let Some(store) = store else { return Err(no_storage(&storage).into()) };
        let fresh = store.volumes.insert(volid.clone(), Volume::template(&file, size, now));
        if fresh.is_none() {
            task.sim.record(&mut world, &auth, &node, "template.fetched", None, Some(&volid));
        }
        drop(world);
        task.log(format!("download of '{url}' to '{}' finished", file_path(&volid)));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::pulled_file;

    #[test]
    fn a_pull_names_its_file_after_image_and_tag() {
        assert_eq!(pulled_file("docker.io/library/caddy:2.10", None), "caddy_2.10.tar");
        assert_eq!(pulled_file("alpine:latest", Some("mine")), "mine.tar");
        assert_eq!(pulled_file("alpine:latest", Some("mine.tar")), "mine.tar.tar");
    }
}
