//! The version and what concerns the whole cluster.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::gate::rights_in;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Sim};

pub(crate) async fn version(sim: Arc<Sim>, _call: Arc<Call>) -> Outcome {
    let version = &sim.config.version;
    let release = version.rsplit_once('.').map_or(version.as_str(), |(release, _)| release);
    Reply::data(json!({ "version": version, "release": release, "repoid": "0307225d" }))
}

/// The lowest free id, as a text. Nothing is reserved.
pub(crate) async fn nextid(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    if call.params.get("vmid").is_some() {
        let vmid = call.vmid();
        if world.containers.contains_key(&vmid) {
            return Err(Refusal::parameter("vmid", format!("VM {vmid} already exists")));
        }
        return Reply::data(json!(vmid.to_string()));
    }
    match (100u32..1_000_000).find(|vmid| !world.containers.contains_key(vmid)) {
        Some(vmid) => Reply::data(json!(vmid.to_string())),
        None => Err(Refusal::die("unable to get any free VMID in range [100, 1000000]")),
    }
}

pub(crate) async fn options(_sim: Arc<Sim>, _call: Arc<Call>) -> Outcome {
    Reply::data(json!({ "keyboard": "en-us", "mac_prefix": "BC:24:11" }))
}

pub(crate) async fn status(sim: Arc<Sim>, _call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let answering = world.answering().map(str::to_owned);
    let mut rows = Vec::new();
    if let Some(cluster) = &sim.config.cluster {
        rows.push(json!({
            "id": "cluster", "type": "cluster", "name": cluster, "version": world.nodes.len(),
            "nodes": world.nodes.len(), "quorate": i32::from(world.quorate()),
        }));
    }
    for (index, name) in world.order.iter().enumerate() {
        let node = &world.nodes[name];
        let id = if sim.config.cluster.is_some() { index + 1 } else { 0 };
        rows.push(json!({
            "id": format!("node/{name}"), "type": "node", "name": name, "nodeid": id,
            "ip": "127.0.0.1", "level": "", "online": i32::from(node.online),
            "local": i32::from(answering.as_deref() == Some(name)),
        }));
    }
    Reply::data(Value::Array(rows))
}

/// Guests, storages and nodes that the caller may see; others are left out without a word.
pub(crate) async fn resources(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let kind = call.params.get("type");
    let wanted = |name: &str| kind.is_none_or(|kind| kind == name);
    let now = sim.now();
    let world = sim.world();
    let mut rows: Vec<Value> = Vec::new();
    if wanted("vm") {
        for container in world.containers.values() {
            let rights = rights_in(&world, &call.auth, &format!("/vms/{}", container.vmid));
            if !rights.contains("VM.Audit") {
                continue;
            }
            let Some(node) = world.nodes.get(&container.node) else { continue };
            let id = format!("lxc/{}", container.vmid);
            if !node.online {
                rows.push(json!({
                    "id": id, "type": "lxc", "vmid": container.vmid, "node": container.node,
                    "status": "unknown",
                }));
                continue;
            }
            let mut row: Map<String, Value> = container
                .status_json(node.config.cpus, now)
                .into_iter()
                .filter(|(key, _)| {
                    !key.starts_with("pressure")
                        && !["pid", "swap", "maxswap", "cpus"].contains(&key.as_str())
                })
                .collect();
            row.insert("id".to_owned(), json!(id));
            row.insert("node".to_owned(), json!(container.node));
            row.insert("maxcpu".to_owned(), container.cpus(node.config.cpus));
            row.insert("memhost".to_owned(), json!(0));
            row.insert("template".to_owned(), json!(i32::from(container.is_template())));
            if let Some(pool) = &container.pool {
                row.insert("pool".to_owned(), json!(pool));
            }
            rows.push(Value::Object(row));
        }
    }
    if wanted("node") {
        for name in &world.order {
            rows.push(super::node::row(&sim, &world, &call.auth, name, true));
        }
    }
    if wanted("storage") {
        for name in &world.order {
            let node = &world.nodes[name];
            for store in node.stores.values() {
                let storage = &store.config.name;
                let rights = rights_in(&world, &call.auth, &format!("/storage/{storage}"));
                if !rights.contains("Datastore.Audit")
                    && !rights.contains("Datastore.AllocateSpace")
                {
                    continue;
                }
                rows.push(json!({
                    "id": format!("storage/{name}/{storage}"), "type": "storage", "node": name,
                    "storage": storage, "plugintype": store.config.kind.plugin(),
                    "content": store.config.content.join(","), "shared": 0,
                    "status": if node.online { "available" } else { "unknown" },
                    "disk": store.used(), "maxdisk": store.config.total,
                }));
            }
        }
    }
    Reply::data(Value::Array(rows))
}
