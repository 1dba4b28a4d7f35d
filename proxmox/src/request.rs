//! Every request that the client can send, as data; a path is made from its call's name only.

use std::borrow::Cow;

use proximity_commands::ports::{NewBackup, Upid};
use proximity_domain::{NodeName, Vmid};

/// The calls, named as in Proxmox's API description; errors carry these names.
pub(crate) mod call {
    pub const TICKET: &str = "POST /access/ticket";
    pub const VERSION: &str = "GET /version";
    pub const CLUSTER_STATUS: &str = "GET /cluster/status";
    pub const NODES: &str = "GET /nodes";
    pub const RESOURCES: &str = "GET /cluster/resources";
    pub const NEXTID: &str = "GET /cluster/nextid";
    pub const STORAGES: &str = "GET /nodes/{node}/storage";
    pub const CONFIG: &str = "GET /nodes/{node}/lxc/{vmid}/config";
    pub const STATUS: &str = "GET /nodes/{node}/lxc/{vmid}/status/current";
    pub const RRDDATA: &str = "GET /nodes/{node}/lxc/{vmid}/rrddata";
    pub const INTERFACES: &str = "GET /nodes/{node}/lxc/{vmid}/interfaces";
    pub const CREATE: &str = "POST /nodes/{node}/lxc";
    pub const START: &str = "POST /nodes/{node}/lxc/{vmid}/status/start";
    pub const STOP: &str = "POST /nodes/{node}/lxc/{vmid}/status/stop";
    pub const SHUTDOWN: &str = "POST /nodes/{node}/lxc/{vmid}/status/shutdown";
    pub const REBOOT: &str = "POST /nodes/{node}/lxc/{vmid}/status/reboot";
    pub const SET_CONFIG: &str = "PUT /nodes/{node}/lxc/{vmid}/config";
    pub const DESTROY: &str = "DELETE /nodes/{node}/lxc/{vmid}";
    pub const TASKS: &str = "GET /nodes/{node}/tasks";
    pub const TASK: &str = "GET /nodes/{node}/tasks/{upid}/status";
    pub const ABORT_TASK: &str = "DELETE /nodes/{node}/tasks/{upid}";
    pub const TASK_LOG: &str = "GET /nodes/{node}/tasks/{upid}/log";
    pub const VOLUMES: &str = "GET /nodes/{node}/storage/{storage}/content";
    pub const BACKUP_DEFAULTS: &str = "GET /nodes/{node}/vzdump/defaults";
    pub const BACK_UP: &str = "POST /nodes/{node}/vzdump";
    pub const ARCHIVED_CONFIG: &str = "GET /nodes/{node}/vzdump/extractconfig";
    pub const DELETE_VOLUME: &str = "DELETE /nodes/{node}/storage/{storage}/content/{volume}";
    pub const APPLIANCES: &str = "GET /nodes/{node}/aplinfo";
    pub const DOWNLOAD: &str = "POST /nodes/{node}/aplinfo";
    pub const FEATURE: &str = "GET /nodes/{node}/lxc/{vmid}/feature";
    pub const SNAPSHOTS: &str = "GET /nodes/{node}/lxc/{vmid}/snapshot";
    pub const SNAPSHOT: &str = "POST /nodes/{node}/lxc/{vmid}/snapshot";
    pub const DELETE_SNAPSHOT: &str = "DELETE /nodes/{node}/lxc/{vmid}/snapshot/{snapname}";
    pub const CLONE: &str = "POST /nodes/{node}/lxc/{vmid}/clone";
    pub const PERMISSIONS: &str = "GET /access/permissions";
    pub const PULL: &str = "POST /nodes/{node}/storage/{storage}/oci-registry-pull";
}

/// The four methods; everything but GET has an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    Put,
    Delete,
}

/// One request. There is no `Debug`: parameters may be secrets.
#[derive(Clone)]
pub(crate) struct Request {
    pub call: &'static str,
    pub method: Method,
    /// Below `/api2/json`, each part percent-encoded.
    pub path: String,
    pub params: Vec<(&'static str, String)>,
    /// Values among the parameters that no error text may repeat.
    pub secrets: Vec<String>,
}

impl Request {
    /// Fills the placeholders of the call's path in order.
    pub(crate) fn new(call: &'static str, parts: &[&str]) -> Self {
        let (method, template) = call.split_once(' ').unwrap_or(("GET", call));
        let method = match method {
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            _ => Method::Get,
        };
        let mut parts = parts.iter();
        let mut path = String::new();
        for segment in template.split('/').skip(1) {
            path.push('/');
            match parts.next_if_placeholder(segment) {
                Some(part) => path.push_str(&encode(part)),
                None => path.push_str(segment),
            }
        }
        Self { call, method, path, params: Vec::new(), secrets: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.params.push((name, value.to_string()));
        self
    }

    /// Booleans are `0` and `1` in forms; `true` is refused.
    pub(crate) fn with_flag(self, name: &'static str, value: bool) -> Self {
        self.with(name, u8::from(value))
    }

    /// The node that it is for, if it is for one.
    pub(crate) fn node(&self) -> Option<NodeName> {
        self.path.strip_prefix("/nodes/")?.split('/').next()?.parse().ok()
    }

    /// Whether sending it twice could do something twice.
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::Get
    }

    /// The parameters as they stand in a form or a query.
    pub(crate) fn encoded_params(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.params).finish()
    }
}

trait NextIfPlaceholder<'a> {
    fn next_if_placeholder(&mut self, segment: &str) -> Option<&'a str>;
}

impl<'a> NextIfPlaceholder<'a> for std::slice::Iter<'_, &'a str> {
    fn next_if_placeholder(&mut self, segment: &str) -> Option<&'a str> {
        if segment.starts_with('{') { self.next().copied() } else { None }
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters; a part that is only dots would
/// mean another path, so its dots are encoded too.
pub(crate) fn encode(part: &str) -> Cow<'_, str> {
    let dots = part.bytes().all(|byte| byte == b'.');
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || (matches!(byte, b'-' | b'_' | b'~' | b'.') && !dots)
    };
    if part.bytes().all(plain) {
        return Cow::Borrowed(part);
    }
    let mut encoded = String::with_capacity(part.len() * 3);
    for byte in part.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(encoded)
}

pub(crate) fn guest(call: &'static str, node: &NodeName, vmid: Vmid) -> Request {
    Request::new(call, &[node.as_str(), &vmid.to_string()])
}

pub(crate) fn ticket(user: &str, password: &str) -> Request {
    let mut request =
        Request::new(call::TICKET, &[]).with("username", user).with("password", password);
    request.secrets.push(password.to_owned());
    request
}

pub(crate) fn version() -> Request {
    Request::new(call::VERSION, &[])
}

pub(crate) fn cluster_status() -> Request {
    Request::new(call::CLUSTER_STATUS, &[])
}

pub(crate) fn nodes() -> Request {
    Request::new(call::NODES, &[])
}

pub(crate) fn guests() -> Request {
    Request::new(call::RESOURCES, &[]).with("type", "vm")
}

pub(crate) fn nextid(vmid: Vmid) -> Request {
    Request::new(call::NEXTID, &[]).with("vmid", vmid)
}

pub(crate) fn storages(node: &NodeName) -> Request {
    Request::new(call::STORAGES, &[node.as_str()])
}

pub(crate) fn config(node: &NodeName, vmid: Vmid) -> Request {
    guest(call::CONFIG, node, vmid)
}

/// Without what waits for the next start, which is left out or shown as made otherwise.
pub(crate) fn current_config(node: &NodeName, vmid: Vmid) -> Request {
    config(node, vmid).with_flag("current", true)
}

pub(crate) fn status(node: &NodeName, vmid: Vmid) -> Request {
    guest(call::STATUS, node, vmid)
}

pub(crate) fn interfaces(node: &NodeName, vmid: Vmid) -> Request {
    guest(call::INTERFACES, node, vmid)
}

/// An empty POST that a creation fills with its parameters.
pub(crate) fn create(node: &NodeName) -> Request {
    Request::new(call::CREATE, &[node.as_str()])
}

pub(crate) fn start(node: &NodeName, vmid: Vmid) -> Request {
    guest(call::START, node, vmid)
}

pub(crate) fn stop(node: &NodeName, vmid: Vmid) -> Request {
    guest(call::STOP, node, vmid)
}

pub(crate) fn shutdown(node: &NodeName, vmid: Vmid, timeout_s: u32) -> Request {
    guest(call::SHUTDOWN, node, vmid).with("timeout", timeout_s)
}

pub(crate) fn reboot(node: &NodeName, vmid: Vmid, timeout_s: u32) -> Request {
    guest(call::REBOOT, node, vmid).with("timeout", timeout_s)
}

pub(crate) fn set_protection(node: &NodeName, vmid: Vmid, on: bool, digest: &str) -> Request {
    guest(call::SET_CONFIG, node, vmid).with_flag("protection", on).with("digest", digest)
}

pub(crate) fn set_description(node: &NodeName, vmid: Vmid, text: &str, digest: &str) -> Request {
    let request = set_config(node, vmid, digest);
    if text.is_empty() {
        request.with("delete", "description")
    } else {
        request.with("description", text)
    }
}

/// A change of the configuration that its caller fills, made only if it still has this digest.
pub(crate) fn set_config(node: &NodeName, vmid: Vmid, digest: &str) -> Request {
    guest(call::SET_CONFIG, node, vmid).with("digest", digest)
}

/// Never with `force`: a container that runs is not what was meant to be destroyed. `purge` also
/// takes it out of backup, replication and HA jobs, which would otherwise refuse or go stale.
pub(crate) fn destroy(node: &NodeName, vmid: Vmid) -> Request {
    guest(call::DESTROY, node, vmid).with_flag("purge", true)
}

/// `source` is `active` or `archive`; newest first.
pub(crate) fn tasks(
    node: &NodeName,
    vmid: Vmid,
    source: &'static str,
    start: u64,
    limit: u64,
) -> Request {
    Request::new(call::TASKS, &[node.as_str()])
        .with("vmid", vmid)
        .with("source", source)
        .with("start", start)
        .with("limit", limit)
}

/// A task is asked for on the node that its id names.
pub(crate) fn task(node: &NodeName, upid: &Upid) -> Request {
    Request::new(call::TASK, &[node.as_str(), &upid.0])
}

pub(crate) fn abort_task(node: &NodeName, upid: &Upid) -> Request {
    Request::new(call::ABORT_TASK, &[node.as_str(), &upid.0])
}

pub(crate) fn task_log(node: &NodeName, upid: &Upid, start: u64, limit: u64) -> Request {
    Request::new(call::TASK_LOG, &[node.as_str(), &upid.0])
        .with("start", start)
        .with("limit", limit)
}

pub(crate) fn volumes(node: &NodeName, storage: &str, content: &str) -> Request {
    Request::new(call::VOLUMES, &[node.as_str(), storage]).with("content", content)
}

pub(crate) fn backup_defaults(node: &NodeName, storage: &str) -> Request {
    Request::new(call::BACKUP_DEFAULTS, &[node.as_str()]).with("storage", storage)
}

/// `remove` is off: what is kept is decided by our own records, never by Proxmox's pruning.
pub(crate) fn back_up(node: &NodeName, backup: &NewBackup) -> Request {
    Request::new(call::BACK_UP, &[node.as_str()])
        .with("vmid", backup.vmid)
        .with("storage", &backup.storage)
        .with("mode", backup.mode.as_str())
        .with("compress", backup.compression.as_str())
        .with("notes-template", &backup.notes)
        .with_flag("remove", false)
}

pub(crate) fn delete_volume(node: &NodeName, storage: &str, volume: &str) -> Request {
    Request::new(call::DELETE_VOLUME, &[node.as_str(), storage, volume])
}

pub(crate) fn appliances(node: &NodeName) -> Request {
    Request::new(call::APPLIANCES, &[node.as_str()])
}

pub(crate) fn download(node: &NodeName, storage: &str, template: &str) -> Request {
    Request::new(call::DOWNLOAD, &[node.as_str()])
        .with("storage", storage)
        .with("template", template)
}

/// An empty POST that a pull fills with its parameters.
pub(crate) fn pull(node: &NodeName, storage: &str) -> Request {
    Request::new(call::PULL, &[node.as_str(), storage])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path_cannot_leave_it() {
        let node: NodeName = "pve1".parse().unwrap();
        assert_eq!(volumes(&node, "../..", "backup").path, "/nodes/pve1/storage/..%2F../content");
        assert_eq!(volumes(&node, "..", "backup").path, "/nodes/pve1/storage/%2E%2E/content");
        let upid = Upid("UPID:pve1:00000271:0005EA12:6B049FDA:vzcreate:1:a@pve!t:".to_owned());
        assert_eq!(
            task(&node, &upid).path,
            "/nodes/pve1/tasks/UPID%3Apve1%3A00000271%3A0005EA12%3A6B049FDA%3Avzcreate%3A1%3Aa%40pve%21t%3A/status"
        );
    }
}
