//! Snapshots and copies of containers, and the interfaces of a copy, as requests and their answers.

use std::collections::BTreeMap;

use proximity_commands::ports::{HypervisorError, NewCopy};
use proximity_domain::{NodeName, Vmid};
use serde_json::Value;

use crate::request::{self, Request, call, guest};
use crate::row::{Row, malformed, rows};

/// Proxmox's names of a container's interfaces.
#[rustfmt::skip]
const NETS: [&str; 32] = [
    "net0", "net1", "net2", "net3", "net4", "net5", "net6", "net7",
    "net8", "net9", "net10", "net11", "net12", "net13", "net14", "net15",
    "net16", "net17", "net18", "net19", "net20", "net21", "net22", "net23",
    "net24", "net25", "net26", "net27", "net28", "net29", "net30", "net31",
];

pub(crate) fn feature(node: &NodeName, vmid: Vmid) -> Request {
    guest(call::FEATURE, node, vmid).with("feature", "snapshot")
}

pub(crate) fn has_feature(data: &Value) -> Result<bool, HypervisorError> {
    let row = Row::of(call::FEATURE, data)?;
    row.opt_flag("hasFeature")?.ok_or_else(|| malformed(call::FEATURE, "`hasFeature` is missing"))
}

pub(crate) fn snapshots(node: &NodeName, vmid: Vmid) -> Request {
    guest(call::SNAPSHOTS, node, vmid)
}

/// The list always ends with an entry for the present state, which is no snapshot; a list without it
/// is not one.
pub(crate) fn snapshot_names(data: &Value) -> Result<Vec<String>, HypervisorError> {
    let mut names = Vec::new();
    for row in rows(call::SNAPSHOTS, data)? {
        names.push(row.text("name")?);
    }
    let all = names.len();
    names.retain(|name| name != "current");
    if names.len() == all {
        return Err(malformed(call::SNAPSHOTS, "the entry `current` is missing"));
    }
    Ok(names)
}

pub(crate) fn create_snapshot(node: &NodeName, vmid: Vmid, name: &str) -> Request {
    guest(call::SNAPSHOT, node, vmid)
        .with("snapname", name)
        .with("description", "Made by Proximity for a copy; it is removed afterwards.")
}

pub(crate) fn delete_snapshot(node: &NodeName, vmid: Vmid, name: &str) -> Request {
    Request::new(call::DELETE_SNAPSHOT, &[node.as_str(), &vmid.to_string(), name])
}

/// Always a full copy, and always with a description: the source's carries the source's marker.
pub(crate) fn copy(node: &NodeName, source: Vmid, copy: &NewCopy) -> Request {
    let mut request = guest(call::CLONE, node, source)
        .with("newid", copy.vmid)
        .with("hostname", &copy.hostname)
        .with("description", &copy.description)
        .with_flag("full", true);
    if let Some(snapshot) = &copy.snapshot {
        request = request.with("snapname", snapshot);
    }
    request
}

/// Sets interfaces, and the protection of a copy that is ours.
pub(crate) fn set_networks(
    node: &NodeName,
    vmid: Vmid,
    nets: &BTreeMap<String, String>,
    digest: &str,
) -> Result<Request, HypervisorError> {
    let mut request = request::set_config(node, vmid, digest).with_flag("protection", true);
    for (name, value) in nets {
        let Some(known) = NETS.iter().find(|known| *known == name) else {
            let reason = format!("{name} is no interface of a container");
            return Err(HypervisorError::Permanent {
                call: call::SET_CONFIG,
                reason: reason.into(),
            });
        };
        request = request.with(known, value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_present_state_is_no_snapshot_and_a_list_without_it_is_no_list() {
        let list = json!([{"name": "a", "snaptime": 1}, {"name": "current", "digest": "x"}]);
        assert_eq!(snapshot_names(&list).unwrap(), ["a"]);
        for broken in [json!([]), json!([{"name": "a"}]), json!(null), json!([{"snaptime": 1}])] {
            assert!(matches!(snapshot_names(&broken), Err(HypervisorError::Malformed { .. })));
        }
    }
}
