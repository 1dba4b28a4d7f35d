//! Starting and stopping, in the open and hidden behind other calls.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::auth::Auth;
use crate::guest::{self, Guest, Identity, Wanted};
use crate::params::property::cidr;
use crate::reply::{Outcome, Refusal, Reply, no_config_text};
use crate::sim::{Call, Failure, Sim, TaskContext};
use crate::world::container::{Container, Running};

fn is_running(sim: &Sim, node: &str, vmid: u32) -> bool {
    sim.world().container(node, vmid).is_some_and(|container| container.running.is_some())
}

fn refuse_skiplock(call: &Call) -> Result<(), Refusal> {
    if call.params.flag("skiplock") && !call.auth.is_root() {
        let text = "Only root may use this option.";
        return Err(Refusal::parameter("skiplock", text));
    }
    Ok(())
}

/// A start is refused at once only if the container runs; all else shows in the task.
pub(crate) async fn start(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    refuse_skiplock(&call)?;
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    if is_running(&sim, &node, vmid) {
        return Err(Refusal::die(format!("CT {vmid} already running")));
    }
    let (auth, skiplock) = (call.auth.clone(), call.params.flag("skiplock"));
    let upid = sim.start_task(&call, &node.clone(), "vzstart", &vmid.to_string(), |task| {
        start_work(task, auth, node, vmid, skiplock)
    });
    Reply::data(json!(upid))
}

/// The task that `start=1` leaves behind, of which the caller is told nothing.
pub(crate) fn start_hidden(sim: &Arc<Sim>, auth: &Auth, node: &str, vmid: u32) {
    let path = format!("/nodes/{node}/lxc/{vmid}/status/start");
    let fault = sim.faults.decide("TASK", &path, "container.start_hidden");
    let fault = fault.filter(crate::fault::Fault::strikes_task);
    let (owner, place) = (auth.clone(), node.to_owned());
    sim.start_task_as(auth, node, "vzstart", &vmid.to_string(), fault, |task| {
        start_work(task, owner, place, vmid, false)
    });
}

async fn start_work(
    task: TaskContext,
    auth: Auth,
    node: String,
    vmid: u32,
    skiplock: bool,
) -> Result<(), Failure> {
    super::create::quorum(&task.sim.world())?;
    let _lock = task.flock(vmid).await?;
    startable(&task.sim, &node, vmid, skiplock)?;
    task.labour().await?;
    bring_up(&task.sim, &auth, &node, vmid).await
}

fn startable(sim: &Sim, node: &str, vmid: u32, skiplock: bool) -> Result<(), Failure> {
    let world = sim.world();
    let container =
        world.container(node, vmid).ok_or_else(|| Failure::Error(no_config_text(node, vmid)))?;
    if container.is_template() {
        return Err("you can't start a CT if it's a template".into());
    }
    if !skiplock {
        container.check_lock()?;
    }
    let bridges = world.nodes.get(node).map(|n| n.config.bridges.clone()).unwrap_or_default();
    for members in container.networks() {
        if let Some(bridge) = members.get("bridge")
            && !bridges.contains(bridge)
        {
            return Err(Failure::Error(format!("bridge '{bridge}' does not exist")));
        }
    }
    Ok(())
}

/// The address that the first interface with one asks for.
fn wanted_address(container: &Container) -> Wanted {
    for members in container.networks() {
        match members.get("ip").map(String::as_str) {
            Some("dhcp") => return Wanted::Dhcp(container.lease),
            Some("manual") | None => {}
            Some(fixed) => {
                if let Some((address, _)) = cidr::<Ipv4Addr>(fixed, 32) {
                    return Wanted::Static(address);
                }
            }
        }
    }
    Wanted::None
}

/// Applies what was pending, opens the guest's ports, and calls it running. The lock file is held.
pub(crate) async fn bring_up(sim: &Sim, auth: &Auth, node: &str, vmid: u32) -> Result<(), Failure> {
    let (identity, wanted) = {
        let mut world = sim.world();
        let container = world
            .container_mut(node, vmid)
            .ok_or_else(|| Failure::Error(no_config_text(node, vmid)))?;
        if container.running.is_some() {
            return Ok(());
        }
        for (key, value) in std::mem::take(&mut container.pending) {
            match value {
                Some(value) => {
                    container.config.insert(key, value);
                }
                // Only mount points wait, and their volumes stay.
                None => drop(container.take_away(&key)),
            }
        }
        let identity =
            Identity { vmid, hostname: container.name(), image: container.image.clone() };
        (identity, wanted_address(container))
    };
    let ports = guest::ports_of(&sim.config.guest_ports, &identity.image);
    let guest = Guest::start(identity, wanted, &ports).await;
    let mut world = sim.world();
    let pid = world.nodes.get_mut(node).map_or(1, |node| {
        node.next_pid += 1;
        node.next_pid
    });
    let Some(container) = world.container_mut(node, vmid) else {
        return Err(Failure::Error(no_config_text(node, vmid)));
    };
    container.listen_error.clone_from(&guest.error);
    if let Wanted::Dhcp(_) = wanted {
        container.lease = guest.address;
    }
    container.running = Some(Running {
        pid,
        since: sim.now(),
        address_from: Instant::now() + sim.config.dhcp_delay,
        guest,
    });
    sim.record(&mut world, auth, node, "container.started", Some(vmid), None);
    Ok(())
}

/// Closes the guest's ports and calls it stopped. The lock file is held.
pub(crate) async fn take_down(sim: &Sim, auth: &Auth, node: &str, vmid: u32) {
    let running = {
        let mut world = sim.world();
        let running = world.container_mut(node, vmid).and_then(|c| c.running.take());
        if running.is_some() {
            sim.record(&mut world, auth, node, "container.stopped", Some(vmid), None);
        }
        running
    };
    if let Some(running) = running {
        running.guest.halt().await;
    }
}

/// Which way a guest goes down.
#[derive(Clone, Copy)]
enum Way {
    Stop,
    Shutdown,
    Reboot,
}

async fn down(sim: Arc<Sim>, call: Arc<Call>, kind: &'static str, way: Way) -> Outcome {
    refuse_skiplock(&call)?;
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    if !is_running(&sim, &node, vmid) {
        return Err(Refusal::die(format!("CT {vmid} not running")));
    }
    let (auth, skiplock) = (call.auth.clone(), call.params.flag("skiplock"));
    let work = |task: TaskContext| async move {
        let _lock = task.flock(vmid).await?;
        {
            let world = task.sim.world();
            let container = world
                .container(&node, vmid)
                .ok_or_else(|| Failure::Error(no_config_text(&node, vmid)))?;
            if !skiplock {
                container.check_lock()?;
            }
        }
        task.labour().await?;
        take_down(&task.sim, &auth, &node, vmid).await;
        if matches!(way, Way::Reboot) {
            bring_up(&task.sim, &auth, &node, vmid).await?;
        }
        Ok(())
    };
    let upid = sim.start_task(&call, call.node(), kind, &vmid.to_string(), work);
    Reply::data(json!(upid))
}

pub(crate) async fn stop(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    down(sim, call, "vzstop", Way::Stop).await
}

pub(crate) async fn shutdown(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    down(sim, call, "vzshutdown", Way::Shutdown).await
}

pub(crate) async fn reboot(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    down(sim, call, "vzreboot", Way::Reboot).await
}

/// Needs a checkpoint tool that hosts do not have; the task says so.
pub(crate) async fn suspend(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let vmid = call.vmid();
    if !is_running(&sim, call.node(), vmid) {
        return Err(Refusal::die(format!("CT {vmid} not running")));
    }
    let work = |task: TaskContext| async move {
        task.labour().await?;
        Err(Failure::Error(format!(
            "command 'lxc-checkpoint -n {vmid} -s -D /var/lib/vz/dump' failed: exit code 1"
        )))
    };
    let upid = sim.start_task(&call, call.node(), "vzsuspend", &vmid.to_string(), work);
    Reply::data(json!(upid))
}

/// Ends everything on a node at once, as a power cut does: tasks die, guests stop, locks stay.
pub(crate) async fn cut_power(sim: &Sim, node: &str) {
    let guests: Vec<Guest> = {
        let mut world = sim.world();
        if let Some(entry) = world.nodes.get_mut(node) {
            entry.online = false;
        }
        for task in world.tasks.iter().filter(|task| task.node == node && task.exit.is_none()) {
            task.kill.cancel();
        }
        let here = world.containers.values_mut().filter(|container| container.node == node);
        here.filter_map(|container| container.running.take()).map(|running| running.guest).collect()
    };
    for guest in guests {
        guest.halt().await;
    }
}

/// Brings a node back, and with it the guests that start at boot.
pub(crate) async fn restore_power(sim: &Arc<Sim>, node: &str) {
    let now = sim.now();
    let at_boot: Vec<u32> = {
        let mut world = sim.world();
        if let Some(entry) = world.nodes.get_mut(node) {
            entry.online = true;
            entry.boot = now;
            entry.last_start = 0;
        }
        let here = world.containers.values().filter(|container| container.node == node);
        here.filter(|c| c.config.get("onboot").is_some_and(|value| value == "1"))
            .map(|container| container.vmid)
            .collect()
    };
    let root = Auth { user: "root@pam".to_owned(), token: None };
    for vmid in at_boot {
        start_hidden(sim, &root, node, vmid);
    }
}

/// How long a guest's DHCP still takes.
pub(crate) fn address_ready(running: &Running) -> bool {
    running.address_from.saturating_duration_since(Instant::now()) == Duration::ZERO
}
