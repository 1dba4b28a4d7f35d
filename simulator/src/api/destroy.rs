//! Destroying a container: what refuses at once, and what the task removes.

use std::sync::Arc;

use serde_json::json;

use super::create::quorum;
use super::disks;
use crate::reply::{Outcome, Refusal, Reply, no_config_text};
use crate::sim::{Call, Failure, Sim, TaskContext};
use crate::world::World;
use crate::world::container::{Config, Container};

fn protection(container: &Container) -> Result<(), Refusal> {
    if container.is_protected() {
        let text = format!("can't remove CT {} - protection mode enabled", container.vmid);
        return Err(Refusal::die(text));
    }
    Ok(())
}

/// Why Proxmox would not destroy the container, in its words; one that is not there is refused by nobody.
pub(crate) fn refused(world: &World, vmid: u32) -> Option<String> {
    let node = world.containers.get(&vmid)?.node.clone();
    check(world, &node, vmid, false).err().map(|refusal| refusal.reason)
}

fn check(world: &World, node: &str, vmid: u32, force: bool) -> Result<(), Refusal> {
    let container = world.container(node, vmid).ok_or_else(|| Refusal::no_config(node, vmid))?;
    protection(container)?;
    container.check_lock().map_err(Refusal::die)?;
    if container.running.is_some() && !force {
        let text = format!("unable to destroy CT {vmid} - container is running");
        return Err(Refusal::die(text));
    }
    Ok(())
}

pub(crate) async fn destroy(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let (force, purge) = (call.params.flag("force"), call.params.flag("purge"));
    quorum(&sim.world())?;
    check(&sim.world(), &node, vmid, force)?;
    let auth = call.auth.clone();
    let work = |task: TaskContext| async move {
        let _lock = task.flock(vmid).await?;
        // Between the call and the lock anything may have happened.
        check(&task.sim.world(), &node, vmid, force)?;
        task.labour().await?;
        let running = {
            let mut world = task.sim.world();
            let container = world
                .container_mut(&node, vmid)
                .ok_or_else(|| Failure::Error(no_config_text(&node, vmid)))?;
            container.running.take()
        };
        if let Some(running) = running {
            task.log(format!("forced to stop CT {vmid} before destroying!"));
            running.guest.halt().await;
        }
        if purge {
            task.log(format!("purging CT {vmid} from related configurations.."));
        }
        let mut world = task.sim.world();
        task.sim.record(&mut world, &auth, &node, "container.destroyed", Some(vmid), None);
        let Some(container) = world.containers.get_mut(&vmid) else { return Ok(()) };
        let volumes = disks::all_volumes(container);
        // Until everything else about it is gone, too, the number stays taken.
        container.config = Config::from([("lock".to_owned(), "destroyed".to_owned())]);
        container.snapshots.clear();
        disks::free(&mut world, &node, &volumes);
        task.midway()?;
        world.containers.remove(&vmid);
        Ok(())
    };
    let node = call.node();
    let upid = sim.clone().start_task(&call, node, "vzdestroy", &vmid.to_string(), work);
    Reply::data(json!(upid))
}
