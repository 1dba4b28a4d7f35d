//! What passes through the ports: Proxmox's answers after parsing, and why a call failed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use proximity_domain::{Cidr, Gibibytes, Hostname, NodeName, Resources, Vmid};
use serde::{Deserialize, Serialize};

use super::Reason;

use super::process::Process;

/// A task's id, e.g. `UPID:pve1:00000271:0005EA12:6B049FDA:vzcreate:100:root@pam:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upid(pub String);

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a call did not answer what was asked. `call` names it, e.g. `POST /nodes/{node}/lxc`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HypervisorError {
    /// It had no effect and may be repeated: refused connection, a lock time-out.
    #[error("{call}: {reason}")]
    Retryable { call: &'static str, reason: Reason },
    /// This node could not be reached by the one that was asked to (595), so it was asked nothing.
    #[error("{}: {reason}", .call.replace("{node}", .node.as_str()))]
    Unreachable { call: &'static str, node: NodeName, reason: Reason },
    /// It had no effect and will be refused again: validation, permission, 501.
    #[error("{call}: {reason}")]
    Permanent { call: &'static str, reason: Reason },
    /// It may have had its effect: no reply, cut reply, 596, 599, unreadable reply to a write.
    #[error("{call}: outcome unknown: {reason}")]
    Unknown { call: &'static str, reason: Reason },
    /// A reply to a read whose shape is not what Proxmox promises; never taken for an empty list.
    #[error("{call}: unexpected reply: {reason}")]
    Malformed { call: &'static str, reason: String },
    /// The credential is refused (401).
    #[error("{call}: proxmox refuses the credential")]
    Unauthorized { call: &'static str },
    /// The pinned or verified certificate does not match; nothing of the credential was sent.
    #[error("{call}: the certificate is not the one expected: {reason}")]
    Certificate { call: &'static str, reason: String },
    /// The number belongs to some guest already.
    #[error("{call}: the number is taken")]
    VmidTaken { call: &'static str },
    /// It is already in the state that was asked for.
    #[error("{call}: already so")]
    AlreadySo { call: &'static str },
    /// The config carries a lock (`backup`, `create`, …) or its file lock timed out.
    #[error("{call}: locked: {reason}")]
    Locked { call: &'static str, reason: Reason },
    /// The config changed since its digest was read.
    #[error("{call}: the configuration was changed meanwhile")]
    DigestMismatch { call: &'static str },
    /// There is no such guest on that node.
    #[error("{call}: no such guest on this node")]
    NoGuest { call: &'static str },
}

impl HypervisorError {
    /// The call that Proxmox answered with an error whose words are its own; `None` when there was no
    /// answer, or the words are ours.
    pub fn answered(&self) -> Option<&'static str> {
        match self {
            Self::Retryable { call, reason: Reason::Answered { .. } }
            | Self::Unreachable { call, reason: Reason::Answered { .. }, .. }
            | Self::Permanent { call, reason: Reason::Answered { .. } }
            | Self::Unknown { call, reason: Reason::Answered { .. } }
            | Self::Locked { call, reason: Reason::Answered { .. } } => Some(call),
            _ => None,
        }
    }
}

/// What a host answers when asked who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// Proxmox's cluster name, or `node-<16 hex digits>` made from the lone node's identity.
    pub cluster: proximity_domain::ClusterName,
    /// A lone node is always quorate.
    pub quorate: bool,
    pub nodes: Vec<NodeName>,
    /// Those of them that the cluster itself calls offline.
    pub offline: Vec<NodeName>,
}

impl ClusterIdentity {
    /// Whether the cluster goes on without this node: it is quorate, and calls the node offline. Then
    /// nothing on that node can change a configuration (ADR 0024). A node that cannot be reached but
    /// counts as online is not lost.
    pub fn has_lost(&self, node: &NodeName) -> bool {
        self.quorate && self.offline.contains(node)
    }
}

/// A release such as 9.1.7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub text: String,
    pub major: u32,
    pub minor: u32,
}

/// A node and its figures; `None` is "not known".
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub name: NodeName,
    pub online: bool,
    pub cores: Option<u32>,
    /// Fraction of all cores, 0 to 1.
    pub cpu: Option<f64>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes, of the node's root file system.
    pub disk_total: Option<u64>,
    /// Bytes.
    pub disk_used: Option<u64>,
    /// Seconds.
    pub uptime: Option<i64>,
}

/// A guest of the cluster, container or virtual machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Guest {
    pub vmid: Vmid,
    pub node: NodeName,
    pub is_container: bool,
    pub name: Option<String>,
    /// `None` when Proxmox does not know (its node is away).
    pub running: Option<bool>,
    pub template: bool,
    /// Fraction of its cores, 0 to 1.
    pub cpu: Option<f64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes.
    pub disk_used: Option<u64>,
    /// Bytes.
    pub disk_total: Option<u64>,
    /// Seconds.
    pub uptime: Option<i64>,
    /// Cores that it may use.
    pub cpus: Option<f64>,
    /// The resource pool that it is in.
    pub pool: Option<String>,
}

/// A storage as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    pub name: String,
    /// e.g. `dir`, `btrfs`, `zfspool`.
    pub kind: String,
    /// Content kinds: `rootdir`, `vztmpl`, `backup`, …
    pub content: Vec<String>,
    pub active: bool,
    /// Every node that lists it has the same contents.
    pub shared: bool,
    /// Bytes.
    pub available: Option<u64>,
    /// Bytes.
    pub total: Option<u64>,
    /// Bytes.
    pub used: Option<u64>,
}

impl Storage {
    /// Whether all disks on it are listed, also those of which no container is there: Proxmox counts them
    /// as virtual machines', and lists only the kinds that a storage takes.
    pub fn lists_all(&self) -> bool {
        self.content.iter().any(|kind| kind == "images")
    }
}

/// A container's configuration, as far as it is understood; everything else stays in `rest`.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestConfig {
    pub digest: String,
    /// Proxmox adds a line feed at the end; it is taken off here.
    pub description: Option<String>,
    pub hostname: Option<String>,
    pub lock: Option<String>,
    pub protection: bool,
    pub unprivileged: bool,
    pub rest: BTreeMap<String, String>,
}

/// Leaves `rest` out: an environment in it may hold secrets.
impl fmt::Debug for GuestConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestConfig")
            .field("digest", &self.digest)
            .field("hostname", &self.hostname)
            .field("lock", &self.lock)
            .field("protection", &self.protection)
            .finish_non_exhaustive()
    }
}

impl GuestConfig {
    /// True while a creation runs: the config is a lock and nothing else, so it says nobody's name.
    pub fn is_being_created(&self) -> bool {
        self.lock.as_deref() == Some("create") && self.is_bare()
    }

    /// True from the moment at which a destruction has removed the disks to its end, and for good when
    /// it was broken off there: what is left is a lock, and nobody's name.
    pub fn is_destroyed(&self) -> bool {
        self.lock.as_deref() == Some("destroyed") && self.description.is_none()
    }

    /// True of nothing but such a lock: of what a creation or a destruction is making, or has left.
    pub fn is_only_a_lock(&self) -> bool {
        (self.is_being_created() || self.is_destroyed()) && self.is_bare()
    }

    /// Whether it names nobody and no volume. Proxmox writes everything else of a new container at once,
    /// its description as well: what has a name or a disk and no notes is a person's.
    fn is_bare(&self) -> bool {
        self.description.is_none() && self.hostname.is_none() && !self.rest.keys().any(is_disk)
    }
}

/// Whether a setting is a disk or a mount point of a container.
fn is_disk(key: &String) -> bool {
    let is_numbered = |prefix| {
        key.strip_prefix(prefix).is_some_and(|n: &str| n.bytes().all(|b| b.is_ascii_digit()))
    };
    key == "rootfs" || is_numbered("mp") || is_numbered("unused")
}

/// A container's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestStatus {
    pub running: bool,
    pub lock: Option<String>,
    /// Seconds; can be off under load.
    pub uptime: Option<i64>,
}

/// What a new container is made of. The description carries the marker.
#[derive(Clone, PartialEq)]
pub struct NewGuest {
    pub vmid: Vmid,
    pub hostname: Hostname,
    /// Volume id of the template or image archive.
    pub archive: String,
    pub description: String,
    pub disk_storage: String,
    pub disk: Gibibytes,
    pub resources: Resources,
    pub bridge: String,
    pub address: GuestAddress,
    pub dns: Vec<IpAddr>,
    pub unprivileged: bool,
    pub features: Option<String>,
    pub protection: bool,
    /// What an image runs, where not its own; set by `Hypervisor::set_process`.
    pub process: Process,
}

/// Leaves the process out: its environment may hold secrets.
impl fmt::Debug for NewGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewGuest")
            .field("vmid", &self.vmid)
            .field("hostname", &self.hostname)
            .field("archive", &self.archive)
            .finish_non_exhaustive()
    }
}

/// Where a container's first interface gets its address from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestAddress {
    Dhcp,
    Static { address: IpAddr, subnet: Cidr, gateway: IpAddr },
}

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    Running,
    /// `OK` or `WARNINGS: n`.
    Succeeded {
        warnings: bool,
    },
    /// Ended with this text.
    Failed(String),
    /// `unexpected status`: the worker died; look at the resource.
    Unknown,
}

/// A task in a node's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSummary {
    pub upid: Upid,
    pub node: NodeName,
    /// e.g. `vzcreate`.
    pub kind: String,
    /// The user or `user!token` that started it.
    pub user: String,
    /// The API token that asks has started it. With a password this is never said: the same user may
    /// be a person at the web interface.
    pub own: bool,
    /// It does not have this guest's number, but the guest carries its lock now: a backup job over several
    /// guests, which names none of them, or a copy, which goes by the number of its source.
    pub by_lock: bool,
    /// Seconds since 1970, the node's clock.
    pub started: i64,
    /// The same of its end; `None` while it runs, or where the list does not say.
    pub ended: Option<i64>,
    /// A list may be some seconds behind, so one that is listed as running was asked itself.
    pub state: TaskState,
}

/// Kinds of tasks that show a guest to somebody and change nothing of it, for as long as they are open.
const CONSOLES: [&str; 3] = ["vncproxy", "termproxy", "spiceproxy"];

impl TaskSummary {
    /// Whether it runs and may change the guest. Of a kind that is not known here the worst is taken
    /// for true: a console waited for costs time, a change not waited for can cost a container.
    pub fn is_at_work(&self) -> bool {
        self.state == TaskState::Running && !CONSOLES.contains(&self.kind.as_str())
    }
}

/// A file on a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// e.g. `local:vztmpl/alpine-3.22-default_20250617_amd64.tar.xz`.
    pub id: String,
    /// Bytes.
    pub size: Option<u64>,
    /// Seconds since 1970.
    pub created: Option<i64>,
    pub vmid: Option<Vmid>,
    /// First line of its notes; backups only.
    pub notes: Option<String>,
    /// Proxmox refuses to remove it; backups only.
    pub protected: bool,
}

/// What a backup job is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBackup {
    pub vmid: Vmid,
    /// The storage that takes the archive.
    pub storage: String,
    pub mode: proximity_domain::backup::Mode,
    pub compression: proximity_domain::backup::Compression,
    /// One line that tells the archive from every other; letters, digits, spaces, `-` and `=`.
    pub notes: String,
}

/// A template that a node can download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appliance {
    /// File name, e.g. `alpine-3.22-default_20250617_amd64.tar.xz`.
    pub template: String,
    /// e.g. `alpine-3.22`.
    pub os: String,
    pub version: String,
    pub sha512: Option<String>,
}
