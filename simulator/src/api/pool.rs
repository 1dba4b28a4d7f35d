//! Resource pools and their members.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gate::rights_in;
use crate::params::formats::split_list;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Sim};
use crate::world::{Pool, World};

fn missing(pool: &str) -> Refusal {
    Refusal::die(format!("pool '{pool}' does not exist"))
}

fn members(world: &World, call: &Call, name: &str, now: i64) -> Vec<Value> {
    let kind = call.params.get("type");
    let mut rows = Vec::new();
    if kind.is_none_or(|kind| kind == "lxc") {
        for container in world.containers.values().filter(|c| c.pool.as_deref() == Some(name)) {
            let host = world.nodes.get(&container.node).map_or(1, |node| node.config.cpus);
            let mut row = container.status_json(host, now);
            row.insert("id".to_owned(), json!(format!("lxc/{}", container.vmid)));
            row.insert("node".to_owned(), json!(container.node));
            rows.push(Value::Object(row));
        }
    }
    if kind.is_none_or(|kind| kind == "storage") {
        let storages = world.pools.get(name).map(|pool| pool.storages.clone()).unwrap_or_default();
        for storage in storages {
            for node in &world.order {
                rows.push(json!({
                    "id": format!("storage/{node}/{storage}"), "type": "storage", "node": node,
                    "storage": storage,
                }));
            }
        }
    }
    rows
}

fn pool_json(world: &World, call: &Call, name: &str, now: i64) -> Result<Value, Refusal> {
    let pool = world.pools.get(name).ok_or_else(|| missing(name))?;
    let mut data = json!({ "members": members(world, call, name, now) });
    if let Some(comment) = &pool.comment {
        data["comment"] = json!(comment);
    }
    Ok(data)
}

pub(crate) async fn list(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let now = sim.now();
    let world = sim.world();
    if let Some(name) = call.params.get("poolid") {
        let rights = rights_in(&world, &call.auth, &format!("/pool/{name}"));
        if !rights.contains("Pool.Audit") {
            return Err(Refusal::forbidden(format!("/pool/{name}, Pool.Audit")));
        }
        let mut row = pool_json(&world, &call, name, now)?;
        row["poolid"] = json!(name);
        return Reply::data(json!([row]));
    }
    let visible = world.pools.iter().filter(|(name, _)| {
        rights_in(&world, &call.auth, &format!("/pool/{name}")).contains("Pool.Audit")
    });
    let rows = visible.map(|(name, pool)| {
        let mut row = json!({ "poolid": name });
        if let Some(comment) = &pool.comment {
            row["comment"] = json!(comment);
        }
        row
    });
    Reply::data(rows.collect())
}

pub(crate) async fn show(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let now = sim.now();
    let world = sim.world();
    Reply::data(pool_json(&world, &call, call.params.text("poolid"), now)?)
}

pub(crate) async fn create(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let name = call.params.text("poolid");
    let mut world = sim.world();
    if world.pools.contains_key(name) {
        return Err(Refusal::die(format!("create pool failed: pool '{name}' already exists")));
    }
    let comment = call.params.get("comment").map(str::to_owned);
    world.pools.insert(name.to_owned(), Pool { comment, ..Pool::default() });
    Reply::null()
}

pub(crate) async fn update(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let name = call.params.text("poolid");
    let removing = call.params.flag("delete");
    let vmids: Vec<u32> = split_list(call.params.get("vms").unwrap_or_default())
        .filter_map(|vmid| vmid.parse().ok())
        .collect();
    for vmid in &vmids {
        sim.require(&call.auth, &format!("/vms/{vmid}"), &["VM.Allocate"], false)?;
    }
    let mut world = sim.world();
    if !world.pools.contains_key(name) {
        return Err(missing(name));
    }
    for vmid in &vmids {
        let Some(container) = world.containers.get_mut(vmid) else {
            return Err(Refusal::die(format!("update pools failed: VM {vmid} does not exist")));
        };
        match (&container.pool, removing) {
            (Some(known), true) if known == name => container.pool = None,
            (_, true) => {
                let text = format!("update pools failed: VM {vmid} is not a pool member");
                return Err(Refusal::die(text));
            }
            (Some(known), false) if known == name => {
                let text = format!("update pools failed: VM {vmid} is already a pool member");
                return Err(Refusal::die(text));
            }
            (Some(other), false) if !call.params.flag("allow-move") => {
                return Err(Refusal::die(format!(
                    "update pools failed: VM {vmid} belongs already to pool '{other}' and \
                     'allow-move' is not set"
                )));
            }
            (_, false) => container.pool = Some(name.to_owned()),
        }
    }
    let storages: Vec<&str> = split_list(call.params.get("storage").unwrap_or_default()).collect();
    if let Some(pool) = world.pools.get_mut(name) {
        for storage in storages {
            if removing {
                pool.storages.remove(storage);
            } else {
                pool.storages.insert(storage.to_owned());
            }
        }
        if let Some(comment) = call.params.get("comment") {
            pool.comment = Some(comment.to_owned());
        }
    }
    Reply::null()
}

pub(crate) async fn delete(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let name = call.params.text("poolid");
    let mut world = sim.world();
    if !world.pools.contains_key(name) {
        return Err(Refusal::die(format!("delete pool failed: pool '{name}' does not exist")));
    }
    let full = world.containers.values().find(|c| c.pool.as_deref() == Some(name));
    if let Some(member) = full {
        return Err(Refusal::die(format!(
            "delete pool failed: pool '{name}' is not empty (contains VM {})",
            member.vmid
        )));
    }
    world.pools.remove(name);
    Reply::null()
}
