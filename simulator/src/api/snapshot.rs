//! Snapshots: where storages can, and with the errors that only the task shows.

use std::sync::Arc;

use serde_json::{Value, json};

use super::lxc::{existing, existing_mut, storages_can};
use super::power::{start_hidden, take_down};
use crate::config::StorageKind;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Failure, Sim, TaskContext};
use crate::world::container::{Container, Snapshot, shown};

pub(crate) async fn list(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let container = existing(&world, call.node(), call.vmid())?;
    let mut rows: Vec<Value> = Vec::new();
    for snapshot in &container.snapshots {
        let mut row = json!({
            "name": snapshot.name, "snaptime": snapshot.taken,
            "description": with_newline(&snapshot.description),
        });
        if let Some(parent) = &snapshot.parent {
            row["parent"] = json!(parent);
        }
        rows.push(row);
    }
    let mut current = json!({
        "name": "current", "description": "You are here!", "digest": container.digest(),
        "running": i32::from(container.running.is_some()),
    });
    if let Some(parent) = &container.parent {
        current["parent"] = json!(parent);
    }
    rows.push(current);
    Reply::data(Value::Array(rows))
}

fn with_newline(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

fn missing(name: &str) -> String {
    format!("snapshot '{name}' does not exist")
}

fn find<'a>(container: &'a Container, name: &str) -> Result<&'a Snapshot, String> {
    container.snapshots.iter().find(|snapshot| snapshot.name == name).ok_or_else(|| missing(name))
}

pub(crate) fn config_json(container: &Container, name: &str) -> Result<Value, Refusal> {
    let snapshot = find(container, name).map_err(Refusal::die)?;
    let mut data = serde_json::Map::new();
    for (key, value) in &snapshot.config {
        data.insert(key.clone(), shown(key, value));
    }
    data.insert("snaptime".to_owned(), json!(snapshot.taken));
    data.insert("description".to_owned(), json!(with_newline(&snapshot.description)));
    if let Some(parent) = &snapshot.parent {
        data.insert("parent".to_owned(), json!(parent));
    }
    Ok(Value::Object(data))
}

pub(crate) async fn config(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let container = existing(&world, call.node(), call.vmid())?;
    Reply::data(config_json(container, call.params.text("snapname"))?)
}

/// Sets a config lock for the time of a piece of work, if none is there.
fn set_lock(sim: &Sim, node: &str, vmid: u32, lock: &str) -> Result<(), Failure> {
    let mut world = sim.world();
    let container = existing_mut(&mut world, node, vmid)?;
    container.check_lock()?;
    container.config.insert("lock".to_owned(), lock.to_owned());
    Ok(())
}

/// Takes the config lock away unless the worker died.
pub(crate) fn unlock_unless_dead(
    sim: &Sim,
    node: &str,
    vmid: u32,
    result: Result<(), Failure>,
) -> Result<(), Failure> {
    if result != Err(Failure::Died)
        && let Some(container) = sim.world().container_mut(node, vmid)
    {
        container.config.remove("lock");
    }
    result
}

pub(crate) async fn create(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let name = call.params.text("snapname").to_owned();
    if name == "current" || name == "vzdump" {
        return Err(Refusal::die(format!("unable to use snapshot name '{name}' (reserved name)")));
    }
    existing(&sim.world(), &node, vmid)?;
    let description = call.params.get("description").unwrap_or_default().to_owned();
    let auth = call.auth.clone();
    let work = |task: TaskContext| async move {
        let _lock = task.flock(vmid).await?;
        {
            let world = task.sim.world();
            let container = existing(&world, &node, vmid)?;
            container.check_lock()?;
            if find(container, &name).is_ok() {
                return Err(Failure::Error(format!("snapshot name '{name}' already used")));
            }
            if !storages_can(&world, container, StorageKind::snapshots) {
                return Err("snapshot feature is not available".into());
            }
        }
        set_lock(&task.sim, &node, vmid, "snapshot")?;
        let done = task.labour().await;
        unlock_unless_dead(&task.sim, &node, vmid, done)?;
        let now = task.sim.now();
        let mut world = task.sim.world();
        let container = existing_mut(&mut world, &node, vmid)?;
        let mut config = container.config.clone();
        config.remove("description");
        let parent = container.parent.replace(name.clone());
        container.snapshots.push(Snapshot { name, description, taken: now, parent, config });
        task.sim.record(&mut world, &auth, &node, "snapshot.created", Some(vmid), None);
        Ok(())
    };
    let upid = sim.start_task(&call, call.node(), "vzsnapshot", &vmid.to_string(), work);
    Reply::data(json!(upid))
}

/// Stops a running container, brings its configuration back, and leaves it stopped.
pub(crate) async fn rollback(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    existing(&sim.world(), &node, vmid)?;
    let name = call.params.text("snapname").to_owned();
    let (auth, start) = (call.auth.clone(), call.params.flag("start"));
    let work = |task: TaskContext| async move {
        let lock = task.flock(vmid).await?;
        {
            let world = task.sim.world();
            let container = existing(&world, &node, vmid)?;
            find(container, &name)?;
            container.check_lock()?;
            let newest = container.snapshots.last().is_some_and(|last| last.name == name);
            if !newest && storages_can(&world, container, |kind| kind == StorageKind::ZfsPool) {
                let volid = container.rootfs().unwrap_or_default();
                return Err(Failure::Error(format!(
                    "can't rollback, '{name}' is not most recent snapshot on '{volid}'"
                )));
            }
        }
        set_lock(&task.sim, &node, vmid, "rollback")?;
        let done = task.labour().await;
        unlock_unless_dead(&task.sim, &node, vmid, done)?;
        take_down(&task.sim, &auth, &node, vmid).await;
        {
            let mut world = task.sim.world();
            let container = existing_mut(&mut world, &node, vmid)?;
            let snapshot = find(container, &name)?.clone();
            let description = container.config.remove("description");
            container.config = snapshot.config;
            if let Some(description) = description {
                container.config.insert("description".to_owned(), description);
            }
            container.parent = Some(snapshot.name);
            task.sim.record(&mut world, &auth, &node, "snapshot.rolled_back", Some(vmid), None);
        }
        drop(lock);
        if start {
            start_hidden(&task.sim, &auth, &node, vmid);
        }
        Ok(())
    };
    let upid = sim.start_task(&call, call.node(), "vzrollback", &vmid.to_string(), work);
    Reply::data(json!(upid))
}

pub(crate) async fn delete(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    existing(&sim.world(), &node, vmid)?;
    let name = call.params.text("snapname").to_owned();
    let auth = call.auth.clone();
    let work = |task: TaskContext| async move {
        let _lock = task.flock(vmid).await?;
        find(existing(&task.sim.world(), &node, vmid)?, &name)?;
        set_lock(&task.sim, &node, vmid, "snapshot-delete")?;
        let done = task.labour().await;
        unlock_unless_dead(&task.sim, &node, vmid, done)?;
        let mut world = task.sim.world();
        let container = existing_mut(&mut world, &node, vmid)?;
        let parent = find(container, &name)?.parent.clone();
        container.snapshots.retain(|snapshot| snapshot.name != name);
        for snapshot in &mut container.snapshots {
            if snapshot.parent.as_deref() == Some(&name) {
                snapshot.parent.clone_from(&parent);
            }
        }
        if container.parent.as_deref() == Some(&name) {
            container.parent = parent;
        }
        task.sim.record(&mut world, &auth, &node, "snapshot.deleted", Some(vmid), None);
        Ok(())
    };
    let upid = sim.start_task(&call, call.node(), "vzdelsnapshot", &vmid.to_string(), work);
    Reply::data(json!(upid))
}
