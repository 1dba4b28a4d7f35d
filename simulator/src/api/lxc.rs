//! Reading containers: list, state, interfaces, features and samples.

use std::sync::Arc;

use serde_json::{Value, json};

use super::power::address_ready;
use crate::gate::rights_in;
use crate::params::property::cidr;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Sim};
use crate::world::World;
use crate::world::container::Container;
use crate::world::storage::split_volid;

pub(crate) fn existing<'a>(
    world: &'a World,
    node: &str,
    vmid: u32,
) -> Result<&'a Container, Refusal> {
    world.container(node, vmid).ok_or_else(|| Refusal::no_config(node, vmid))
}

pub(crate) fn existing_mut<'a>(
    world: &'a mut World,
    node: &str,
    vmid: u32,
) -> Result<&'a mut Container, Refusal> {
    world.container_mut(node, vmid).ok_or_else(|| Refusal::no_config(node, vmid))
}

/// The containers that the caller may see.
pub(crate) async fn list(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let now = sim.now();
    let world = sim.world();
    let host = world.nodes[call.node()].config.cpus;
    let rows = world
        .containers
        .values()
        .filter(|container| container.node == call.node())
        .filter(|container| {
            let path = format!("/vms/{}", container.vmid);
            rights_in(&world, &call.auth, &path).contains("VM.Audit")
        })
        .map(|container| Value::Object(container.status_json(host, now)));
    Reply::data(rows.collect())
}

pub(crate) async fn index(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    existing(&sim.world(), call.node(), call.vmid())?;
    let parts = [
        "config",
        "pending",
        "status",
        "vncproxy",
        "termproxy",
        "vncwebsocket",
        "spiceproxy",
        "migrate",
        "clone",
        "rrd",
        "rrddata",
        "firewall",
        "snapshot",
        "resize",
        "interfaces",
    ];
    Reply::data(parts.iter().map(|part| json!({ "subdir": part })).collect())
}

pub(crate) async fn status(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let now = sim.now();
    let world = sim.world();
    let container = existing(&world, call.node(), call.vmid())?;
    let mut data = container.status_json(world.nodes[call.node()].config.cpus, now);
    data.insert("ha".to_owned(), json!({ "managed": 0 }));
    Reply::data(Value::Object(data))
}

/// `null` when it is stopped, and also when it does not exist.
pub(crate) async fn interfaces(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let container = world.container(call.node(), call.vmid());
    let Some((container, running)) = container.and_then(|c| Some((c, c.running.as_ref()?))) else {
        return Reply::null();
    };
    let mut rows = vec![json!({
        "name": "lo", "hwaddr": "00:00:00:00:00:00", "hardware-address": "00:00:00:00:00:00",
        "inet": "127.0.0.1/8", "inet6": "::1/128",
        "ip-addresses": [
            { "ip-address": "127.0.0.1", "ip-address-type": "inet", "prefix": "8" },
            { "ip-address": "::1", "ip-address-type": "inet6", "prefix": "128" },
        ],
    })];
    let ready = address_ready(running);
    let mut leased = false;
    for members in container.networks() {
        let mac = members.get("hwaddr").map(|mac| mac.to_ascii_lowercase()).unwrap_or_default();
        let mut row = json!({
            "name": members.get("name"), "hwaddr": mac, "hardware-address": mac,
            "ip-addresses": [],
        });
        let address = match members.get("ip").map(String::as_str) {
            Some("dhcp") if !leased => {
                leased = true;
                running.guest.address.map(|address| (address, 10))
            }
            Some("dhcp" | "manual") | None => None,
            Some(fixed) => cidr(fixed, 32),
        };
        if let Some((address, prefix)) = address.filter(|_| ready) {
            row["inet"] = json!(format!("{address}/{prefix}"));
            row["inet6"] = json!(format!("{}/64", link_local(&mac)));
            row["ip-addresses"] = json!([
                {
                    "ip-address": address.to_string(), "ip-address-type": "inet",
                    "prefix": prefix.to_string(),
                },
                { "ip-address": link_local(&mac), "ip-address-type": "inet6", "prefix": "64" },
            ]);
        }
        rows.push(row);
    }
    Reply::data(Value::Array(rows))
}

/// The address that a host derives from its hardware address.
fn link_local(mac: &str) -> String {
    let bytes: Vec<u8> =
        mac.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    match bytes[..] {
        [a, b, c, d, e, f] => {
            let word = |high: u8, low: u8| u16::from(high) << 8 | u16::from(low);
            let words = (word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f));
            format!("fe80::{:x}:{:x}:{:x}:{:x}", words.0, words.1, words.2, words.3)
        }
        _ => "fe80::1".to_owned(),
    }
}

pub(crate) async fn rrddata(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let now = sim.now();
    let world = sim.world();
    let container = existing(&world, call.node(), call.vmid())?;
    let sample = json!({
        "cpu": 0, "maxcpu": container.cpus(world.nodes[call.node()].config.cpus),
        "mem": container.memory() / 8, "maxmem": container.memory(),
        "disk": container.disk_size() / 32, "maxdisk": container.disk_size() / 100 * 95,
        "netin": 0, "netout": 0.129_629_629, "diskread": 0, "diskwrite": 0,
    });
    let since = container.running.as_ref().map(|running| running.since);
    let Value::Object(sample) = sample else { return Reply::null() };
    Reply::data(super::rrd_rows(call.params.text("timeframe"), now, since, &sample))
}

/// Whether every volume of a container is on a storage that can do it.
pub(crate) fn storages_can(
    world: &World,
    container: &Container,
    can: impl Fn(crate::config::StorageKind) -> bool,
) -> bool {
    container.volumes().iter().all(|volid| {
        split_volid(volid)
            .and_then(|(storage, _)| super::storage::store(world, &container.node, storage).ok())
            .is_some_and(|store| can(store.config.kind))
    })
}

pub(crate) async fn feature(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let container = existing(&world, call.node(), call.vmid())?;
    if let Some(name) = call.params.get("snapname")
        && !container.snapshots.iter().any(|snapshot| snapshot.name == name)
    {
        return Err(Refusal::die(format!("snapshot '{name}' does not exist")));
    }
    let has = match call.params.text("feature") {
        "snapshot" => storages_can(&world, container, crate::config::StorageKind::snapshots),
        // The recorded host answered 1 for clones on btrfs.
        "clone" => storages_can(&world, container, crate::config::StorageKind::snapshots),
        _ => true,
    };
    Reply::data(json!({ "hasFeature": i32::from(has) }))
}
