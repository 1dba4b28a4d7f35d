//! The configuration of a simulated host: its nodes, storages, timings and the ports of its guests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a simulator is set up. `SimulatorConfig::default()` is one lone node on a free port.
#[derive(Clone)]
pub struct SimulatorConfig {
    /// Where the HTTPS listener binds; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the control listener (plain HTTP, loopback) binds; port 0 takes a free one.
    pub control: SocketAddr,
    /// Seeds every random choice but guest addresses, which depend on what is free.
    pub seed: u64,
    /// The nodes; the first one is the node that the address belongs to.
    pub nodes: Vec<NodeConfig>,
    /// The cluster's name; `None` for a lone node, which then has no cluster row in its status.
    pub cluster: Option<String>,
    /// How long a 401 is held back; a real host takes 3 s.
    pub auth_delay: Duration,
    /// How long a call to a node that is down takes to fail; a real host takes 3 s.
    pub unreachable_delay: Duration,
    /// How long a network interface of a started guest shows no address (DHCP at work).
    pub dhcp_delay: Duration,
    /// How long tasks run.
    pub task_times: TaskTimes,
    /// `true`: errors carry `message` in the JSON body (PVE 8.4 and later); `false`: only the reason phrase.
    pub message_in_body: bool,
    /// Which ports guests listen on, by image; every entry that matches counts.
    pub guest_ports: Vec<GuestPorts>,
    /// How long a call waits for a guest's lock file; a real host waits 10 s.
    pub lock_wait: Duration,
    /// The password of `root@pam`; `None` makes a random one, readable from the handle.
    pub root_password: Option<String>,
    /// What `GET /version` says.
    pub version: String,
    /// Whether a create from an OCI archive takes `entrypoint` and `env` from the image and ignores
    /// those of the call, as Proxmox VE 9.1 was seen to do; they can be set afterwards.
    pub oci_image_wins: bool,
    /// Blocking workers per node; a real host has three.
    pub workers: usize,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            control: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 1,
            nodes: vec![NodeConfig::new("pve1")],
            cluster: None,
            auth_delay: Duration::from_secs(3),
            unreachable_delay: Duration::from_secs(3),
            dhcp_delay: Duration::from_millis(200),
            task_times: TaskTimes::default(),
            message_in_body: true,
            guest_ports: Vec::new(),
            lock_wait: Duration::from_secs(10),
            root_password: None,
            version: "9.1.7".to_owned(),
            oci_image_wins: true,
            workers: 3,
        }
    }
}

impl SimulatorConfig {
    /// A configuration for tests: nothing waits for effect, only for correctness.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            auth_delay: Duration::from_millis(5),
            unreachable_delay: Duration::from_millis(5),
            dhcp_delay: Duration::ZERO,
            task_times: TaskTimes::instant(),
            lock_wait: Duration::from_millis(300),
            ..Self::default()
        }
    }
}

/// One node of the host.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Bridges that exist; a guest on another one fails to start.
    pub bridges: Vec<String>,
    /// The storages that this node sees.
    pub storages: Vec<StorageConfig>,
}

impl NodeConfig {
    /// A node as one meets them: 8 processors, 32 GiB, `vmbr0`, `local` and `local-btrfs`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            cpus: 8,
            memory: 32 << 30,
            bridges: vec!["vmbr0".to_owned()],
            storages: vec![
                StorageConfig {
                    name: "local".to_owned(),
                    kind: StorageKind::Dir,
                    content: ["images", "vztmpl", "snippets", "rootdir", "backup", "iso"]
                        .map(str::to_owned)
                        .to_vec(),
                    total: 270_553_174_016,
                },
                StorageConfig {
                    name: "local-btrfs".to_owned(),
                    kind: StorageKind::Btrfs,
                    content: ["rootdir", "images"].map(str::to_owned).to_vec(),
                    total: 1 << 40,
                },
            ],
        }
    }
}

/// One storage of a node.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Its id, such as `local`.
    pub name: String,
    /// What it is; only some can take snapshots.
    pub kind: StorageKind,
    /// The content types that it may hold.
    pub content: Vec<String>,
    /// Size in bytes.
    pub total: u64,
}

/// The storage types that matter here: what they can do differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// A directory: raw images, no snapshots of containers, no linked clones.
    Dir,
    /// Btrfs: snapshots, linked clones of raw images.
    Btrfs,
    /// A ZFS pool: snapshots, linked clones.
    ZfsPool,
    /// LVM without a thin pool: neither, and a disk takes all of its size at once.
    Lvm,
}

impl StorageKind {
    /// The name of the storage plugin.
    #[must_use]
    pub fn plugin(self) -> &'static str {
        match self {
            Self::Dir => "dir",
            Self::Btrfs => "btrfs",
            Self::ZfsPool => "zfspool",
            Self::Lvm => "lvm",
        }
    }

    pub(crate) fn snapshots(self) -> bool {
        matches!(self, Self::Btrfs | Self::ZfsPool)
    }

    pub(crate) fn linked_clones(self) -> bool {
        matches!(self, Self::Btrfs | Self::ZfsPool)
    }
}

/// How long tasks run, in milliseconds: a range per task type, and one for all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskTimes {
    /// Inclusive range for types without one of their own.
    pub default: (u64, u64),
    /// Inclusive range by task type, such as `vzcreate`.
    #[serde(default)]
    pub by_type: BTreeMap<String, (u64, u64)>,
}

impl Default for TaskTimes {
    fn default() -> Self {
        let slow = [
            ("vzcreate", (400, 900)),
            ("vzrestore", (400, 900)),
            ("vzclone", (300, 800)),
            ("vzdump", (400, 1_000)),
            ("download", (300, 800)),
            ("imgpull", (400, 1_200)),
            ("vzstart", (150, 400)),
        ];
        Self {
            default: (60, 200),
            by_type: slow.map(|(kind, range)| (kind.to_owned(), range)).into_iter().collect(),
        }
    }
}

impl TaskTimes {
    /// Tasks that take no time of their own; they still run beside the call that started them.
    #[must_use]
    pub fn instant() -> Self {
        Self { default: (0, 0), by_type: BTreeMap::new() }
    }

    /// The range for a type.
    #[must_use]
    pub fn range(&self, kind: &str) -> (u64, u64) {
        self.by_type.get(kind).copied().unwrap_or(self.default)
    }
}

/// The ports on which guests of certain images listen once they run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPorts {
    /// A part of the template's volume id, such as `caddy`.
    pub image_contains: String,
    /// The ports, and what is spoken on each.
    pub ports: Vec<(u16, Speaks)>,
}

/// What a guest's port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// A small page that names the guest.
    Http,
    /// Connections are accepted and echoed.
    Tcp,
}
