//! Clones and templates: what is refused at once, and what the copy keeps of its source.

use std::sync::Arc;

use serde_json::json;

use super::create::{check_allocation, check_pool, discard, quorum, taken};
use super::disks::{self, Request};
use super::lxc::{existing, existing_mut, storages_can};
use super::settings::renew_macs;
use super::snapshot::unlock_unless_dead;
use crate::auth::Auth;
use crate::config::StorageKind;
use crate::params::property::{self, ROOTFS};
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Failure, Sim, TaskContext};
use crate::world::World;
use crate::world::container::{Config, Container, is_mount, volumes_of};
use crate::world::storage::{parse_size, split_volid};

/// Makes a template of a stopped container, for good.
pub(crate) async fn template(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let (node, vmid) = (call.node(), call.vmid());
    let _lock = sim.flock(vmid).await?;
    let mut world = sim.world();
    let container = existing(&world, node, vmid)?;
    container.check_lock().map_err(Refusal::die)?;
    if !container.snapshots.is_empty() {
        let text = "unable to convert container to template if it contains snapshots";
        return Err(Refusal::die(text));
    }
    if container.is_template() {
        return Err(Refusal::die("you can't convert a template to a template"));
    }
    if container.running.is_some() {
        return Err(Refusal::die("you can't convert a CT to template if the CT is running"));
    }
    let container = existing_mut(&mut world, node, vmid)?;
    container.config.insert("template".to_owned(), "1".to_owned());
    let mut renamed = Vec::new();
    for (_, value) in container.config.iter_mut().filter(|(key, _)| is_mount(key)) {
        let base = value.replace(&format!("/vm-{vmid}-"), &format!("/base-{vmid}-"));
        renamed.push((volume(value), volume(&base)));
        *value = base;
    }
    for (old, new) in renamed {
        let Some((storage, _)) = split_volid(&old) else { continue };
        let store = world.nodes.get_mut(node).and_then(|entry| entry.stores.get_mut(storage));
        if let Some(store) = store
            && let Some(disk) = store.volumes.remove(&old)
        {
            store.volumes.insert(new, disk);
        }
    }
    sim.record(&mut world, &call.auth, node, "container.templated", Some(vmid), None);
    Reply::null()
}

fn volume(value: &str) -> String {
    property::parse(ROOTFS, value).ok().and_then(|mut m| m.remove("volume")).unwrap_or_default()
}

/// What the task of a clone needs.
struct Plan {
    auth: Auth,
    node: String,
    vmid: u32,
    newid: u32,
    config: Config,
    disks: Vec<Request>,
    image: String,
    pool: Option<String>,
}

pub(crate) async fn clone(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let newid = call.params.vmid("newid");
    check_allocation(&sim, &call.auth, &call.params, newid)?;
    if let Some(target) = call.params.get("target").filter(|target| *target != node) {
        return Err(Refusal::die(format!(
            "can't clone to target node '{target}' since no shared storage is available"
        )));
    }
    let _lock = sim.flock(vmid).await?;
    let plan = {
        let mut world = sim.world();
        quorum(&world)?;
        let plan = plan(&mut world, &call, newid)?;
        taken(&world, newid)?;
        check_pool(&world, plan.pool.as_deref())?;
        let mut copy = Container::new(newid, &node);
        // All but its disks is there from the beginning.
        copy.config = plan.config.clone();
        copy.config.retain(|key, _| !is_mount(key));
        copy.config.insert("lock".to_owned(), "create".to_owned());
        world.containers.insert(newid, copy);
        // The source is locked meanwhile.
        if let Ok(source) = existing_mut(&mut world, &node, vmid) {
            source.config.insert("lock".to_owned(), "disk".to_owned());
        }
        plan
    };
    let upid = sim.start_task(&call, &node, "vzclone", &vmid.to_string(), |task| work(task, plan));
    Reply::data(json!(upid))
}

/// Judges the request, and copies everything of the source but what the caller replaces.
fn plan(world: &mut World, call: &Call, newid: u32) -> Result<Plan, Refusal> {
    let (node, vmid) = (call.node(), call.vmid());
    let source = existing(world, node, vmid)?;
    source.check_lock().map_err(Refusal::die)?;
    let snapshot = match call.params.get("snapname") {
        None => None,
        Some(name) => Some(
            source
                .snapshots
                .iter()
                .find(|snapshot| snapshot.name == name)
                .ok_or_else(|| Refusal::die(format!("snapshot '{name}' does not exist")))?,
        ),
    };
    let full = call.params.get("full").map_or_else(|| !source.is_template(), |full| full == "1");
    let running = source.running.is_some();
    let original = snapshot.map_or(&source.config, |snapshot| &snapshot.config);
    let mut config = original.clone();
    if full && running && snapshot.is_none() {
        return Err(Refusal::die(
            "Full clone of a running container is only possible from a snapshot",
        ));
    }
    if !full {
        if call.params.get("storage").is_some() {
            let text = "parameter 'storage' not allowed for linked clones";
            return Err(Refusal::parameter("storage", text));
        }
        if !storages_can(world, source, StorageKind::linked_clones) {
            let volid = source.rootfs().unwrap_or_default();
            let text = format!("Linked clone feature for '{volid}' is not available");
            return Err(Refusal::die(text));
        }
    }
    let image = source.image.clone();
    let mut disks = Vec::new();
    for (key, value) in original.iter().filter(|(key, _)| is_mount(key)) {
        let members = property::parse(ROOTFS, value).unwrap_or_default();
        let volid = members.get("volume").cloned().unwrap_or_default();
        let Some((own, _)) = split_volid(&volid) else { continue };
        let storage = call.params.get("storage").unwrap_or(own).to_owned();
        disks::check_storage(world, node, &storage)?;
        let bytes = members.get("size").and_then(|size| parse_size(size, 1)).unwrap_or(4 << 30);
        disks.push(Request { key: key.clone(), storage, bytes });
    }
    for key in ["lock", "template", "snaptime"] {
        config.remove(key);
    }
    renew_macs(world, &mut config);
    // A clone without a name of its own is called after its source.
    if let Some(hostname) = call.params.get("hostname") {
        config.insert("hostname".to_owned(), hostname.to_owned());
    } else {
        let name = config.get("hostname").cloned().unwrap_or_else(|| format!("CT{vmid}"));
        config.insert("hostname".to_owned(), format!("Copy-of-CT-{name}"));
    }
    // Without a description of the caller's, the source's stays, and any marker in it.
    if let Some(description) = call.params.get("description") {
        config.insert("description".to_owned(), description.to_owned());
    }
    Ok(Plan {
        auth: call.auth.clone(),
        node: node.to_owned(),
        vmid,
        newid,
        config,
        disks,
        image,
        pool: call.params.get("pool").map(str::to_owned),
    })
}

async fn work(task: TaskContext, plan: Plan) -> Result<(), Failure> {
    let (node, vmid, newid) = (plan.node.clone(), plan.vmid, plan.newid);
    let result = copy(&task, plan).await;
    if let Err(Failure::Error(_)) = &result {
        discard(&mut task.sim.world(), &node, newid);
    }
    let result = match result {
        Err(Failure::Error(text)) => Err(Failure::Error(format!("clone failed: {text}"))),
        other => other,
    };
    unlock_unless_dead(&task.sim, &node, vmid, result)
}

async fn copy(task: &TaskContext, mut plan: Plan) -> Result<(), Failure> {
    let _lock = task.flock(plan.newid).await?;
    let made = match make_disks(task, &mut plan) {
        Ok(()) => task.labour().await,
        failed => failed,
    };
    let mut world = task.sim.world();
    if let Err(failure) = made {
        if failure != Failure::Died {
            disks::free(&mut world, &plan.node, &made_for(&plan));
        }
        return Err(failure);
    }
    let container = existing_mut(&mut world, &plan.node, plan.newid)?;
    container.config = plan.config;
    container.image = plan.image;
    container.pool = plan.pool;
    task.sim.record(&mut world, &plan.auth, &plan.node, "container.cloned", Some(plan.newid), None);
    drop(world);
    task.log("Number of regular files transferred: 16");
    task.log("Total file size: 2,026,331 bytes");
    Ok(())
}

/// Makes the copies of the volumes, one after the other.
fn make_disks(task: &TaskContext, plan: &mut Plan) -> Result<(), Failure> {
    let mut world = task.sim.world();
    let Plan { node, newid, config, disks, .. } = plan;
    for (index, request) in disks.iter().enumerate() {
        disks::allocate(&task.sim, &mut world, node, *newid, config, request)?;
        task.made_disks(index + 1)?;
    }
    Ok(())
}

/// The copies that were made: those of the copy's own number, since what is not copied yet is the source's.
fn made_for(plan: &Plan) -> Vec<String> {
    let own = format!("-{}-disk-", plan.newid);
    volumes_of(&plan.config).into_iter().filter(|volid| volid.contains(&own)).collect()
}
