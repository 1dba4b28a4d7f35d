//! Reading and changing configurations: digest, locks, pending changes, growing disks.

use std::sync::Arc;

use serde_json::{Value, json};

use super::create::quorum;
use super::disks;
use super::lxc::{existing, existing_mut};
use super::settings::{check_rights, settings};
use crate::params::formats::split_list;
use crate::params::property::{self, ROOTFS};
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Failure, Sim, TaskContext};
use crate::world::container::{Container, is_mount, is_mount_point, shown};
use crate::world::storage::{parse_size, print_size, split_volid};

/// Settings that a running container takes over only when it starts again.
const AT_START: &[&str] =
    &["arch", "cmode", "console", "entrypoint", "env", "features", "hookscript", "ostype", "tty"];

/// Settings that cannot be taken away.
const REQUIRED: &[&str] = &["rootfs", "unprivileged"];

pub(crate) async fn get(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let container = existing(&world, call.node(), call.vmid())?;
    match call.params.get("snapshot") {
        Some(name) => {
            super::snapshot::config_json(container, name).map(|data| Reply { data, total: None })
        }
        None => Reply::data(container.config_json(call.params.flag("current"))),
    }
}

pub(crate) async fn pending(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let container = existing(&world, call.node(), call.vmid())?;
    let mut rows = vec![json!({ "key": "digest", "value": container.digest() })];
    for (key, value) in &container.config {
        let mut row = json!({ "key": key, "value": shown(key, value) });
        match container.pending.get(key) {
            Some(Some(later)) => row["pending"] = shown(key, later),
            Some(None) => row["delete"] = json!(1),
            None => {}
        }
        rows.push(row);
    }
    for (key, value) in &container.pending {
        if let (Some(value), false) = (value, container.config.contains_key(key)) {
            rows.push(json!({ "key": key, "pending": shown(key, value) }));
        }
    }
    Reply::data(Value::Array(rows))
}

fn check_digest(container: &Container, given: Option<&str>) -> Result<(), Refusal> {
    match given {
        Some(digest) if digest != container.digest() => Err(Refusal::die(
            "detected modified configuration - file changed by other user? Try again.",
        )),
        _ => Ok(()),
    }
}

pub(crate) async fn put(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let (node, vmid) = (call.node(), call.vmid());
    let params = &call.params;
    let list = |name: &str| -> Vec<String> {
        split_list(params.get(name).unwrap_or_default()).map(str::to_owned).collect()
    };
    let (deleted, reverted) = (list("delete"), list("revert"));
    let mut changes = settings(&mut sim.world(), params);
    if changes.is_empty() && deleted.is_empty() && reverted.is_empty() {
        return Err(Refusal::die("no options specified"));
    }
    if let Some(name) = deleted.iter().find(|name| changes.contains_key(*name)) {
        let text = format!("you can't use '-{name}' and -delete {name}' at the same time");
        return Err(Refusal::parameter("delete", text));
    }
    if let Some(name) = deleted.iter().find(|name| REQUIRED.contains(&name.as_str())) {
        return Err(Refusal::die(format!("unable to delete required option '{name}'")));
    }
    if changes.contains_key("unprivileged") {
        return Err(Refusal::die("unable to modify read-only option: 'unprivileged'"));
    }
    quorum(&sim.world())?;
    let unprivileged = existing(&sim.world(), node, vmid)?.config.contains_key("unprivileged");
    check_rights(&sim, &call.auth, vmid, params, &deleted, unprivileged)?;
    let _lock = sim.flock(vmid).await?;
    let mut world = sim.world();
    let container = existing(&world, node, vmid)?;
    container.check_lock().map_err(Refusal::die)?;
    check_digest(container, params.get("digest"))?;
    let running = container.running.is_some();
    let new_disks: Vec<disks::Request> = changes
        .iter()
        .filter(|(key, _)| is_mount(key))
        .filter_map(|(key, value)| disks::request(key, value))
        .collect();
    for request in &new_disks {
        disks::check_storage(&world, node, &request.storage)?;
        disks::allocate(&sim, &mut world, node, vmid, &mut changes, request).map_err(
            |failure| match failure {
                Failure::Error(text) => Refusal::die(text),
                Failure::Died => Refusal::die("interrupted"),
            },
        )?;
    }
    let container = existing_mut(&mut world, node, vmid)?;
    for key in reverted {
        container.pending.remove(&key);
    }
    for (key, value) in changes {
        if running && AT_START.contains(&key.as_str()) {
            container.pending.insert(key, Some(value));
        } else {
            container.pending.remove(&key);
            container.config.insert(key, value);
        }
    }
    let gone: Vec<String> = deleted.iter().filter_map(|key| delete(container, key)).collect();
    disks::free(&mut world, node, &gone);
    sim.record(&mut world, &call.auth, node, "container.configured", Some(vmid), None);
    Reply::null()
}

/// Takes a setting away, at the next start where a running container needs it until then; returns the
/// volume that goes with it.
pub(crate) fn delete(container: &mut Container, key: &str) -> Option<String> {
    let waits = AT_START.contains(&key) || is_mount_point(key);
    if waits && container.running.is_some() && container.config.contains_key(key) {
        container.pending.insert(key.to_owned(), None);
        return None;
    }
    container.pending.remove(key);
    container.take_away(key)
}

/// Grows a disk; it never shrinks.
pub(crate) async fn resize(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let key = call.params.text("disk").to_owned();
    let size = call.params.text("size").to_owned();
    let (volid, bytes) = {
        let _lock = sim.flock(vmid).await?;
        let world = sim.world();
        let container = existing(&world, &node, vmid)?;
        check_digest(container, call.params.get("digest"))?;
        container.check_lock().map_err(Refusal::die)?;
        let members = container
            .config
            .get(&key)
            .filter(|_| is_mount(&key))
            .and_then(|value| property::parse(ROOTFS, value).ok());
        let Some(members) = members else {
            let text = format!("no such mount point '{key}'");
            return Err(Refusal::die(text));
        };
        let volid = members.get("volume").cloned().unwrap_or_default();
        let known = members.get("size").and_then(|size| parse_size(size, 1)).unwrap_or(0);
        let grown = match size.strip_prefix('+') {
            Some(more) => known + parse_size(more, 1).unwrap_or(0),
            None => parse_size(&size, 1).unwrap_or(0),
        };
        if grown < known {
            return Err(Refusal::die("unable to shrink disk size"));
        }
        if grown == known {
            return Err(Refusal::die("disk is already at specified size"));
        }
        (volid, grown)
    };
    let auth = call.auth.clone();
    let work = |task: TaskContext| async move {
        let _lock = task.flock(vmid).await?;
        task.labour().await?;
        let mut world = task.sim.world();
        let container = existing_mut(&mut world, &node, vmid)?;
        container.check_lock()?;
        let mut members =
            property::parse(ROOTFS, container.config.get(&key).map_or("", String::as_str))
                .unwrap_or_default();
        members.insert("size".to_owned(), print_size(bytes));
        container.config.insert(key, property::print(ROOTFS, &members));
        if let Some((storage, _)) = split_volid(&volid)
            && let Some(store) = world.nodes.get_mut(&node).and_then(|n| n.stores.get_mut(storage))
            && let Some(volume) = store.volumes.get_mut(&volid)
        {
            volume.size = bytes;
        }
        task.sim.record(&mut world, &auth, &node, "container.resized", Some(vmid), Some(&volid));
        drop(world);
        task.log("Image resized.");
        Ok(())
    };
    let upid = sim.start_task(&call, call.node(), "resize", &vmid.to_string(), work);
    Reply::data(json!(upid))
}
