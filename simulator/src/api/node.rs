//! Nodes: list, status, networks and samples.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::Auth;
use crate::gate::rights_in;
use crate::reply::{Outcome, Reply};
use crate::sim::{Call, Sim};
use crate::world::{Node, World};

/// Memory in use: the host's own gibibyte and an eighth of what running guests may take.
fn memory_used(world: &World, name: &str) -> u64 {
    let guests = world.containers.values().filter(|c| c.node == name && c.running.is_some());
    (1 << 30) + guests.map(|container| container.memory() / 8).sum::<u64>()
}

fn load(world: &World, name: &str) -> f64 {
    let guests = world.containers.values().filter(|c| c.node == name && c.running.is_some());
    let count = u32::try_from(guests.count()).unwrap_or(u32::MAX);
    (0.02 + f64::from(count) * 0.002).min(0.95)
}

fn disk(node: &Node) -> (u64, u64) {
    node.stores.values().next().map_or((0, 0), |store| (store.used(), store.config.total))
}

/// A row of the node list; without `Sys.Audit` it holds nothing but the node's name and state.
pub(crate) fn row(sim: &Sim, world: &World, auth: &Auth, name: &str, resource: bool) -> Value {
    let node = &world.nodes[name];
    let status = if node.online { "online" } else { "offline" };
    let mut row = json!({
        "id": format!("node/{name}"), "node": name, "type": "node", "level": "", "status": status,
    });
    if !resource {
        row["ssl_fingerprint"] = json!(sim.certificates.fingerprint());
    }
    if node.online && rights_in(world, auth, &format!("/nodes/{name}")).contains("Sys.Audit") {
        let (used, total) = disk(node);
        row["maxcpu"] = json!(node.config.cpus);
        row["cpu"] = json!(load(world, name));
        row["maxmem"] = json!(node.config.memory);
        row["mem"] = json!(memory_used(world, name));
        row["disk"] = json!(used);
        row["maxdisk"] = json!(total);
        row["uptime"] = json!(sim.now() - node.boot);
        if resource {
            row["cgroup-mode"] = json!(2);
        }
    }
    row
}

pub(crate) async fn list(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let rows = world.order.iter().map(|name| row(&sim, &world, &call.auth, name, false));
    Reply::data(Value::Array(rows.collect()))
}

pub(crate) async fn status(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let name = call.node();
    let node = &world.nodes[name];
    let (used, total) = disk(node);
    let memory = node.config.memory;
    let busy = memory_used(&world, name);
    let cores = (node.config.cpus / 2).max(1);
    Reply::data(json!({
        "uptime": sim.now() - node.boot, "cpu": load(&world, name), "wait": 0, "idle": 0,
        "loadavg": ["0.24", "0.18", "0.11"],
        "memory": {
            "total": memory, "used": busy, "free": memory - busy, "available": memory - busy,
        },
        "swap": { "total": 0, "used": 0, "free": 0 },
        "rootfs": { "total": total, "used": used, "free": total - used, "avail": total - used },
        "cpuinfo": {
            "cpus": node.config.cpus, "cores": cores, "sockets": 1, "user_hz": 100, "hvm": "1",
            "mhz": "2594.106", "model": "Simulated CPU", "flags": "fpu vme de pse tsc msr",
        },
        "boot-info": { "mode": "efi", "secureboot": 0 },
        "current-kernel": {
            "sysname": "Linux", "machine": "x86_64", "release": "6.17.2-1-pve",
            "version": "#1 SMP PREEMPT_DYNAMIC PMX 6.17.2-1",
        },
        "kversion": "Linux 6.17.2-1-pve #1 SMP PREEMPT_DYNAMIC PMX 6.17.2-1",
        "pveversion": format!("pve-manager/{}/0307225d", sim.config.version),
        "ksm": { "shared": 0 },
    }))
}

pub(crate) async fn network(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let kind = call.params.get("type");
    let mut rows = Vec::new();
    if kind.is_none_or(|kind| kind == "eth") {
        rows.push(json!({
            "iface": "eno1", "type": "eth", "active": 1, "exists": 1, "method": "manual",
            "method6": "manual", "families": ["inet"], "priority": 3,
        }));
    }
    let bridges = ["bridge", "any_bridge", "any_local_bridge", "include_sdn"];
    if kind.is_none_or(|kind| bridges.contains(&kind)) {
        for (index, bridge) in world.nodes[call.node()].config.bridges.iter().enumerate() {
            rows.push(json!({
                "iface": bridge, "type": "bridge", "active": 1, "autostart": 1,
                "method": "static", "method6": "manual", "families": ["inet"],
                "address": "127.64.0.1", "netmask": "10", "cidr": "127.64.0.1/10",
                "bridge_ports": "eno1", "bridge_stp": "off", "bridge_fd": "0",
                "priority": index + 4,
            }));
        }
    }
    Reply::data(Value::Array(rows))
}

pub(crate) async fn rrddata(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let now = sim.now();
    let world = sim.world();
    let name = call.node();
    let node = &world.nodes[name];
    let (used, total) = disk(node);
    let busy = memory_used(&world, name);
    let sample = json!({
        "cpu": load(&world, name), "maxcpu": node.config.cpus, "loadavg": 0.24, "iowait": 0.01,
        "memtotal": node.config.memory, "memused": busy, "memavailable": node.config.memory - busy,
        "swaptotal": 0, "swapused": 0, "roottotal": total, "rootused": used, "arcsize": 0,
        "netin": 0, "netout": 0, "pressurecpusome": 0, "pressureiofull": 0, "pressureiosome": 0,
        "pressurememoryfull": 0, "pressurememorysome": 0,
    });
    let Value::Object(sample) = sample else { return Reply::null() };
    let rows = super::rrd_rows(call.params.text("timeframe"), now, Some(now - 600), &sample);
    Reply::data(rows)
}
