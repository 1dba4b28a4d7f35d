//! Restoring a container from a backup, to a new number or over an old one.

use std::sync::Arc;

use serde_json::json;

use super::create::{check_allocation, check_pool, claim, discard, taken};
use super::disks::{self, Request};
use super::lxc::existing_mut;
use super::settings::{check_rights, renew_macs, settings};
use crate::auth::Auth;
use crate::params::property::{self, MOUNT_POINT};
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Failure, Sim, TaskContext};
use crate::world::container::{Config, is_mount};
use crate::world::raw;
use crate::world::storage::{Archive, file_path, parse_size, split_volid};

/// What the task of a restore needs.
struct Plan {
    auth: Auth,
    node: String,
    vmid: u32,
    volid: String,
    storage: String,
    overrides: Config,
    unique: bool,
    pool: Option<String>,
    start: bool,
}

pub(crate) async fn restore(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let volid = call.params.text("ostemplate").to_owned();
    let replaces = {
        let world = sim.world();
        match world.container(&node, vmid) {
            Some(known) if call.params.flag("force") => {
                if known.running.is_some() {
                    return Err(Refusal::die("can't overwrite running container"));
                }
                if known.is_protected() {
                    let text = format!("unable to restore CT {vmid} - protection mode enabled");
                    return Err(Refusal::die(text));
                }
                true
            }
            _ => {
                taken(&world, vmid)?;
                false
            }
        }
    };
    if replaces {
        sim.require(&call.auth, &format!("/vms/{vmid}"), &["VM.Backup"], false)?;
    } else {
        check_allocation(&sim, &call.auth, &call.params, vmid)?;
    }
    let unprivileged = call.params.get("unprivileged") != Some("0");
    check_rights(&sim, &call.auth, vmid, &call.params, &[], unprivileged)?;
    let Some((from, rest)) = split_volid(&volid) else {
        return Err(Refusal::die(format!("unable to parse volume ID '{volid}'")));
    };
    if !rest.starts_with("backup/") {
        return Err(Refusal::die(format!(
            "unable to use volume {volid} - content type needs to be 'backup'"
        )));
    }
    super::storage::store(&sim.world(), &node, from)?;
    // Without a storage it goes to `local`, not to where it came from.
    let storage = call.params.get("storage").unwrap_or("local").to_owned();
    disks::check_storage(&sim.world(), &node, &storage)?;
    let space = format!("/storage/{storage}");
    sim.require(&call.auth, &space, &["Datastore.AllocateSpace"], false)?;
    let pool = call.params.get("pool").map(str::to_owned);
    check_pool(&sim.world(), pool.as_deref())?;
    let overrides = settings(&mut sim.world(), &call.params);
    if replaces {
        let _lock = sim.flock(vmid).await?;
        let mut world = sim.world();
        let container = existing_mut(&mut world, &node, vmid)?;
        container.check_lock().map_err(Refusal::die)?;
        container.config.insert("lock".to_owned(), "create".to_owned());
    } else {
        claim(&sim, &node, vmid).await?;
    }
    let plan = Plan {
        auth: call.auth.clone(),
        node: node.clone(),
        vmid,
        volid,
        storage,
        overrides,
        unique: call.params.flag("unique"),
        pool,
        start: call.params.flag("start"),
    };
    let upid =
        sim.start_task(&call, &node, "vzrestore", &vmid.to_string(), |task| work(task, plan));
    Reply::data(json!(upid))
}

async fn work(task: TaskContext, plan: Plan) -> Result<(), Failure> {
    let (auth, node, vmid) = (plan.auth.clone(), plan.node.clone(), plan.vmid);
    let start = plan.start;
    let lock = task.flock(vmid).await?;
    match fill(&task, plan).await {
        Ok(()) => {}
        Err(Failure::Died) => return Err(Failure::Died),
        Err(Failure::Error(text)) => {
            let mut world = task.sim.world();
            match world.container_mut(&node, vmid) {
                // Nothing but the lock was changed, and that goes.
                Some(container) if container.config.len() > 1 => {
                    container.config.remove("lock");
                }
                _ => discard(&mut world, &node, vmid),
            }
            return Err(Failure::Error(format!("unable to restore CT {vmid} - {text}")));
        }
    }
    drop(lock);
    if start {
        super::power::start_hidden(&task.sim, &auth, &node, vmid);
    }
    Ok(())
}

async fn fill(task: &TaskContext, plan: Plan) -> Result<(), Failure> {
    let Plan { vmid, node, volid, .. } = &plan;
    task.log(format!("recovering backed-up configuration from '{volid}'"));
    let archive = find(task, node, volid)?;
    let mut config = archive.config.clone();
    config.remove("lock");
    // What only root may set comes back only when root restores; none of his tokens is he.
    let skipped = if plan.auth.is_root() { Vec::new() } else { raw::lines(&config) };
    if !skipped.is_empty() {
        raw::remove(&mut config);
    }
    for (key, value) in &plan.overrides {
        config.insert(key.clone(), value.clone());
    }
    if plan.overrides.get("unprivileged").is_some_and(|value| value == "0") {
        config.remove("unprivileged");
    }
    let wanted = wanted(&plan, &archive, &mut config)?;
    replace_disks(task, &plan, &mut config, &wanted)?;
    if let Err(failure) = task.labour().await {
        if failure == Failure::Died {
            return Err(failure);
        }
        disks::free(&mut task.sim.world(), node, &disks::made(&config, &wanted));
        return Err(failure);
    }
    let mut world = task.sim.world();
    if plan.unique {
        renew_macs(&mut world, &mut config);
    }
    let container = existing_mut(&mut world, node, *vmid)?;
    container.config = config;
    container.image.clone_from(&archive.image);
    if plan.pool.is_some() {
        container.pool.clone_from(&plan.pool);
    }
    task.sim.record(&mut world, &plan.auth, node, "container.restored", Some(*vmid), Some(volid));
    drop(world);
    task.log(format!("restoring '{volid}' now.."));
    task.log(format!("extracting archive '{}'", file_path(volid)));
    task.log("Total bytes read: 2140160 (2.1MiB, 311MiB/s)");
    task.log("merging backed-up and given configuration..");
    if !skipped.is_empty() {
        const RULE: &str = "--------------------------------";
        task.warn("skipping custom lxc options, restore manually as root:");
        task.log(RULE);
        skipped.into_iter().for_each(|line| task.log(line));
        task.log(RULE);
    }
    Ok(())
}

/// The volumes that are made: one for each that the archive's configuration names, also for those whose
/// contents no backup holds, all on the one storage. A call with a `rootfs` of its own says them all.
fn wanted(plan: &Plan, archive: &Archive, config: &mut Config) -> Result<Vec<Request>, Failure> {
    config.retain(|key, _| !key.starts_with("unused"));
    if plan.overrides.contains_key("rootfs") {
        config.retain(|key, _| !is_mount(key) || plan.overrides.contains_key(key));
        return Ok(disks::requests(config, &plan.storage));
    }
    let mut wanted = Vec::new();
    for (key, value) in config.iter().filter(|(key, _)| is_mount(key)) {
        let members = property::parse(MOUNT_POINT, value).map_err(Failure::Error)?;
        let volume = members.get("volume").map_or("", String::as_str);
        if split_volid(volume).is_none() {
            if plan.auth.is_root() {
                continue;
            }
            let kind = if volume.starts_with("/dev/") { "device" } else { "bind" };
            return Err(Failure::Error(format!(
                "restoring '{key}' to {kind} mount is only possible for root"
            )));
        }
        let size = members.get("size").and_then(|size| parse_size(size, 1));
        let bytes =
            size.or_else(|| (key == "rootfs").then_some(archive.disk_size)).ok_or_else(|| {
                let text = format!("unable to detect disk size - please specify {key} (size)");
                Failure::Error(text)
            })?;
        wanted.push(Request { key: key.clone(), storage: plan.storage.clone(), bytes });
    }
    Ok(wanted)
}

/// Makes the new disks, and only then destroys those of the container that is replaced. Where they do
/// not fit, its configuration is gone all the same, and its disks stay without an owner.
fn replace_disks(
    task: &TaskContext,
    plan: &Plan,
    config: &mut Config,
    wanted: &[Request],
) -> Result<(), Failure> {
    let Plan { vmid, node, .. } = plan;
    let mut world = task.sim.world();
    let container = existing_mut(&mut world, node, *vmid)?;
    let old = disks::all_volumes(container);
    container.snapshots.clear();
    container.parent = None;
    container.pending.clear();
    container.config.retain(|key, _| key == "lock");
    for (index, request) in wanted.iter().enumerate() {
        let done = disks::check_room(&world, node, request)
            .and_then(|()| disks::allocate(&task.sim, &mut world, node, *vmid, config, request));
        match done {
            Ok(more) => {
                task.log_in(&mut world, more);
                task.made_disks(index + 1)?;
            }
            Err(failure) => {
                disks::free(&mut world, node, &disks::made(config, &wanted[..index]));
                return Err(failure);
            }
        }
    }
    disks::free(&mut world, node, &old);
    Ok(())
}

fn find(task: &TaskContext, node: &str, volid: &str) -> Result<Archive, Failure> {
    let world = task.sim.world();
    let storage = split_volid(volid).map_or("", |(storage, _)| storage);
    super::storage::store(&world, node, storage)?
        .volumes
        .get(volid)
        .and_then(|volume| volume.archive.as_deref().cloned())
        .ok_or_else(|| Failure::Error(format!("volume '{volid}' does not exist")))
}
