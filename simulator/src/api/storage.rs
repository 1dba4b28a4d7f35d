//! Storages: list, state and samples.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gate::rights_in;
use crate::params::formats::split_list;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Sim};
use crate::world::World;
use crate::world::storage::Store;

pub(crate) fn no_storage(name: &str) -> Refusal {
    Refusal::die(format!("storage '{name}' does not exist"))
}

/// A storage of a node.
pub(crate) fn store<'a>(world: &'a World, node: &str, name: &str) -> Result<&'a Store, Refusal> {
    world.nodes.get(node).and_then(|node| node.stores.get(name)).ok_or_else(|| no_storage(name))
}

fn store_json(store: &Store) -> Value {
    json!({
        "type": store.config.kind.plugin(), "content": store.config.content.join(","),
        "active": 1, "enabled": 1, "shared": i32::from(store.shared), "total": store.config.total,
        "used": store.used(), "avail": store.avail(),
    })
}

pub(crate) async fn config(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let mut rows: Vec<Value> = Vec::new();
    for node in world.nodes.values() {
        for (name, store) in &node.stores {
            let kind = store.config.kind.plugin();
            let known = rows.iter().any(|row| row["storage"] == json!(name));
            if known
                || call.params.get("type").is_some_and(|wanted| wanted != kind)
                || rights_in(&world, &call.auth, &format!("/storage/{name}")).is_empty()
            {
                continue;
            }
            let mut row = json!({
                "storage": name, "type": kind, "content": store.config.content.join(","),
                "path": format!("/var/lib/{name}"), "digest": "0000000000000000000000000000000000000001",
            });
            if let Some(retention) = &store.retention {
                row["prune-backups"] = json!(retention.text());
            }
            rows.push(row);
        }
    }
    Reply::data(Value::Array(rows))
}

pub(crate) async fn list(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let wanted: Vec<&str> = split_list(call.params.get("content").unwrap_or_default()).collect();
    let mut rows = Vec::new();
    for (name, store) in &world.nodes[call.node()].stores {
        let rights = rights_in(&world, &call.auth, &format!("/storage/{name}"));
        let visible =
            rights.contains("Datastore.Audit") || rights.contains("Datastore.AllocateSpace");
        let named = call.params.get("storage").is_none_or(|only| only == name);
        let holds = wanted.is_empty() || wanted.iter().any(|content| store.takes(content));
        if visible && named && holds {
            let mut row = store_json(store);
            row["storage"] = json!(name);
            row["used_fraction"] = json!(fraction(store));
            rows.push(row);
        }
    }
    Reply::data(Value::Array(rows))
}

/// Sizes stay below 2^53, so that nothing that shows is lost.
#[allow(clippy::cast_precision_loss)]
fn fraction(store: &Store) -> f64 {
    store.used() as f64 / store.config.total.max(1) as f64
}

pub(crate) async fn index(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    store(&sim.world(), call.node(), call.params.text("storage"))?;
    let parts = [
        "content",
        "download-url",
        "file-restore",
        "oci-registry-pull",
        "prunebackups",
        "rrd",
        "rrddata",
        "status",
        "upload",
    ];
    Reply::data(parts.iter().map(|part| json!({ "subdir": part })).collect())
}

pub(crate) async fn status(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    Reply::data(store_json(store(&world, call.node(), call.params.text("storage"))?))
}

pub(crate) async fn rrddata(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let now = sim.now();
    let world = sim.world();
    let store = store(&world, call.node(), call.params.text("storage"))?;
    let sample = json!({ "total": store.config.total, "used": store.used() });
    let Value::Object(sample) = sample else { return Reply::null() };
    let rows = super::rrd_rows(call.params.text("timeframe"), now, Some(now - 720), &sample);
    Reply::data(rows)
}
