//! Creating a container: the arbiter of its number, and the task that fills it.

use std::sync::Arc;

use serde_json::json;

use super::disks::{self, Request};
use super::restore;
use super::settings::{check_rights, ostype, settings};
use crate::auth::Auth;
use crate::params::Params;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Failure, Sim, TaskContext};
use crate::world::World;
use crate::world::container::{Config, Container};
use crate::world::raw;
use crate::world::storage::{file_path, split_volid};

/// What the task of a create needs.
pub(crate) struct Plan {
    pub(crate) auth: Auth,
    pub(crate) node: String,
    pub(crate) vmid: u32,
    pub(crate) config: Config,
    pub(crate) disks: Vec<Request>,
    pub(crate) image: String,
    pub(crate) pool: Option<String>,
    pub(crate) start: bool,
}

pub(crate) fn taken(world: &World, vmid: u32) -> Result<(), Refusal> {
    match world.containers.get(&vmid) {
        Some(other) => Err(Refusal::die(taken_text(vmid, &other.node))),
        None => Ok(()),
    }
}

fn taken_text(vmid: u32, node: &str) -> String {
    format!("CT {vmid} already exists on node '{node}'")
}

pub(crate) fn quorum(world: &World) -> Result<(), Refusal> {
    if world.quorate() { Ok(()) } else { Err(Refusal::die("cluster not ready - no quorum?")) }
}

pub(crate) async fn create(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    quorum(&sim.world())?;
    if call.params.flag("restore") {
        return restore::restore(sim, call).await;
    }
    let vmid = call.vmid();
    taken(&sim.world(), vmid)?;
    check_allocation(&sim, &call.auth, &call.params, vmid)?;
    let unprivileged = call.params.get("unprivileged") != Some("0");
    if !unprivileged {
        sim.require(&call.auth, "/", &["Sys.Modify"], false)?;
    }
    check_rights(&sim, &call.auth, vmid, &call.params, &[], unprivileged)?;
    let image = template(&call.params)?;
    let plan = plan(&sim, &call, image, unprivileged)?;
    for request in &plan.disks {
        disks::check_storage(&sim.world(), &plan.node, &request.storage)?;
        let path = format!("/storage/{}", request.storage);
        sim.require(&call.auth, &path, &["Datastore.AllocateSpace"], false)?;
    }
    check_pool(&sim.world(), plan.pool.as_deref())?;
    claim(&sim, &plan.node, vmid).await?;
    let node = plan.node.clone();
    let upid = sim
        .clone()
        .start_task(&call, &node, "vzcreate", &vmid.to_string(), |task| work(task, plan));
    Reply::data(json!(upid))
}

/// `VM.Allocate` on the number or on the pool.
pub(crate) fn check_allocation(
    sim: &Sim,
    auth: &Auth,
    params: &Params,
    vmid: u32,
) -> Result<(), Refusal> {
    let own = sim.require(auth, &format!("/vms/{vmid}"), &["VM.Allocate"], false);
    match params.get("pool") {
        Some(pool) if own.is_err() => {
            sim.require(auth, &format!("/pool/{pool}"), &["VM.Allocate"], false)
        }
        _ => own,
    }
}

pub(crate) fn check_pool(world: &World, pool: Option<&str>) -> Result<(), Refusal> {
    match pool {
        Some(pool) if !world.pools.contains_key(pool) => {
            Err(Refusal::die(format!("pool '{pool}' does not exist")))
        }
        _ => Ok(()),
    }
}

/// The template's volume id, which has to be of the right kind.
fn template(params: &Params) -> Result<String, Refusal> {
    let image = params.text("ostemplate");
    let Some((_, rest)) = split_volid(image) else {
        return Err(Refusal::die(format!("unable to parse volume ID '{image}'")));
    };
    if !rest.starts_with("vztmpl/") {
        return Err(Refusal::die(format!(
            "unable to use volume {image} - content type needs to be 'vztmpl'"
        )));
    }
    Ok(image.to_owned())
}

/// OCI archives are plain tar files.
pub(crate) fn is_oci(image: &str) -> bool {
    image.ends_with(".tar")
}

fn plan(sim: &Sim, call: &Call, image: String, unprivileged: bool) -> Result<Plan, Refusal> {
    let vmid = call.vmid();
    let mut world = sim.world();
    if let Some((storage, _)) = split_volid(&image) {
        super::storage::store(&world, call.node(), storage)?;
    }
    let mut config = settings(&mut world, &call.params);
    if is_oci(&image) && sim.config.oci_image_wins {
        config.remove("env");
        config.remove("entrypoint");
    }
    let defaults = [
        ("arch", "amd64".to_owned()),
        ("hostname", format!("CT{vmid}")),
        ("memory", "512".to_owned()),
        ("swap", "512".to_owned()),
        ("ostype", if is_oci(&image) { "unmanaged" } else { ostype(&image) }.to_owned()),
    ];
    for (key, value) in defaults {
        config.entry(key.to_owned()).or_insert(value);
    }
    if is_oci(&image) {
        config.insert("lxc".to_owned(), raw::OF_AN_IMAGE.to_owned());
        // An entrypoint other than an init breaks the usual console.
        config.insert("cmode".to_owned(), "console".to_owned());
        config.entry("entrypoint".to_owned()).or_insert_with(|| "/entrypoint".to_owned());
        config.entry("env".to_owned()).or_insert_with(|| {
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()
        });
    }
    // A privileged container has no such line at all.
    if unprivileged {
        config.insert("unprivileged".to_owned(), "1".to_owned());
    } else {
        config.remove("unprivileged");
    }
    let mounts = config.keys().any(|key| crate::world::container::is_mount(key));
    if mounts && !config.contains_key("rootfs") {
        return Err(Refusal::die("mount points configured, but 'rootfs' not set - aborting"));
    }
    let storage = call.params.get("storage").unwrap_or("local");
    let disks = disks::requests(&mut config, storage);
    Ok(Plan {
        auth: call.auth.clone(),
        node: call.node().to_owned(),
        vmid,
        config,
        disks,
        image,
        pool: call.params.get("pool").map(str::to_owned),
        start: call.params.flag("start"),
    })
}

/// Writes the locked configuration: the one moment that decides who has the number.
pub(crate) async fn claim(sim: &Arc<Sim>, node: &str, vmid: u32) -> Result<(), Refusal> {
    let _lock = sim.flock(vmid).await?;
    let mut world = sim.world();
    if let Some(other) = world.containers.get(&vmid) {
        let text = taken_text(vmid, &other.node);
        return Err(Refusal::die(format!("unable to create CT {vmid} - {text}")));
    }
    let mut container = Container::new(vmid, node);
    container.config.insert("lock".to_owned(), "create".to_owned());
    world.containers.insert(vmid, container);
    Ok(())
}

async fn work(task: TaskContext, plan: Plan) -> Result<(), Failure> {
    let (vmid, node) = (plan.vmid, plan.node.clone());
    let (start, auth) = (plan.start, plan.auth.clone());
    // Whoever claims the number releases its lock file before this worker takes it again.
    let filled = async {
        let lock = task.flock(vmid).await?;
        fill(&task, plan).await.map(|()| lock)
    };
    match filled.await {
        Ok(lock) => drop(lock),
        Err(Failure::Died) => return Err(Failure::Died),
        Err(Failure::Error(text)) => {
            discard(&mut task.sim.world(), &node, vmid);
            return Err(Failure::Error(format!("unable to create CT {vmid} - {text}")));
        }
    }
    if start {
        // A second task of its own, whose id nobody is told.
        super::power::start_hidden(&task.sim, &auth, &node, vmid);
    }
    Ok(())
}

/// Removes a container that never came to be.
pub(crate) fn discard(world: &mut World, node: &str, vmid: u32) {
    if let Some(container) = world.containers.remove(&vmid) {
        disks::free(world, node, &container.volumes());
    }
}

async fn fill(task: &TaskContext, mut plan: Plan) -> Result<(), Failure> {
    let Plan { vmid, .. } = plan;
    {
        let world = task.sim.world();
        let here = split_volid(&plan.image).is_some_and(|(storage, _)| {
            super::storage::store(&world, &plan.node, storage)
                .is_ok_and(|store| store.volumes.contains_key(&plan.image))
        });
        if !here {
            return Err(Failure::Error(format!("volume '{}' does not exist", plan.image)));
        }
    }
    // Until all is done the configuration names none of them.
    let filled = match make_disks(task, &mut plan) {
        Ok(()) => task.labour().await,
        failed => failed,
    };
    let made = disks::made(&plan.config, &plan.disks);
    let mut world = task.sim.world();
    match filled {
        Ok(()) => {}
        // A worker that dies frees nothing.
        Err(Failure::Died) => return Err(Failure::Died),
        Err(failure) => {
            disks::free(&mut world, &plan.node, &made);
            return Err(failure);
        }
    }
    let Some(container) = world.container_mut(&plan.node, vmid) else {
        disks::free(&mut world, &plan.node, &made);
        return Err(crate::reply::no_config_text(&plan.node, vmid).into());
    };
    container.config = plan.config;
    container.image.clone_from(&plan.image);
    container.pool = plan.pool;
    task.sim.record(&mut world, &plan.auth, &plan.node, "container.created", Some(vmid), None);
    drop(world);
    let mut lines = Vec::new();
    if is_oci(&plan.image) {
        lines.push("Detected OCI archive".to_owned());
    } else {
        lines.push(format!("extracting archive '{}'", file_path(&plan.image)));
        lines.push("Total bytes read: 2068480 (2.0MiB, 224MiB/s)".to_owned());
    }
    lines.push("Detected container architecture: amd64".to_owned());
    lines.into_iter().for_each(|line| task.log(line));
    Ok(())
}

/// Makes the volumes, one after the other; the configuration at hand names those that are made.
fn make_disks(task: &TaskContext, plan: &mut Plan) -> Result<(), Failure> {
    let mut world = task.sim.world();
    let Plan { node, vmid, config, disks, .. } = plan;
    for (index, request) in disks.iter().enumerate() {
        let lines = disks::allocate(&task.sim, &mut world, node, *vmid, config, request)?;
        task.log_in(&mut world, lines);
        task.made_disks(index + 1)?;
    }
    Ok(())
}
