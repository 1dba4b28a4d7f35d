//! A container: its configuration, snapshots and what it is when it runs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::guest::Guest;
use crate::params::property::{self, NET, ROOTFS};
use crate::world::storage;

/// A configuration as its file holds it: every value a text.
pub(crate) type Config = BTreeMap<String, String>;

/// A container on a node.
pub(crate) struct Container {
    pub(crate) vmid: u32,
    pub(crate) node: String,
    pub(crate) config: Config,
    /// Changes that wait for the next start; `None` deletes.
    pub(crate) pending: BTreeMap<String, Option<String>>,
    pub(crate) snapshots: Vec<Snapshot>,
    /// The snapshot that the running state descends from.
    pub(crate) parent: Option<String>,
    pub(crate) pool: Option<String>,
    /// The volume id of the template that it was made from.
    pub(crate) image: String,
    /// The address that DHCP gave it; kept over restarts.
    pub(crate) lease: Option<Ipv4Addr>,
    pub(crate) running: Option<Running>,
    /// Why its ports cannot be reached, if so.
    pub(crate) listen_error: Option<String>,
}

/// A snapshot of a container.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) taken: i64,
    pub(crate) parent: Option<String>,
    pub(crate) config: Config,
}

/// What only a running container has.
pub(crate) struct Running {
    pub(crate) pid: u32,
    /// Unix seconds.
    pub(crate) since: i64,
    /// When its address shows in `interfaces`.
    pub(crate) address_from: std::time::Instant,
    pub(crate) guest: Guest,
}

const INTEGERS: &[&str] = &[
    "memory",
    "swap",
    "cores",
    "cpuunits",
    "tty",
    "onboot",
    "protection",
    "unprivileged",
    "template",
    "console",
    "debug",
];

/// A configuration value as replies show it.
pub(crate) fn typed(key: &str, value: &str) -> Value {
    match value.parse::<i64>() {
        Ok(number) if INTEGERS.contains(&key) => json!(number),
        _ => json!(value),
    }
}

/// A description ends in a newline in every reply.
pub(crate) fn shown(key: &str, value: &str) -> Value {
    if key == "description" && !value.ends_with('\n') {
        json!(format!("{value}\n"))
    } else if key == "lxc" {
        serde_json::from_str(value).unwrap_or(Value::Null)
    } else {
        typed(key, value)
    }
}

impl Container {
    pub(crate) fn new(vmid: u32, node: &str) -> Self {
        Self {
            vmid,
            node: node.to_owned(),
            config: Config::new(),
            pending: BTreeMap::new(),
            snapshots: Vec::new(),
            parent: None,
            pool: None,
            image: String::new(),
            lease: None,
            running: None,
            listen_error: None,
        }
    }

    pub(crate) fn lock(&self) -> Option<&str> {
        self.config.get("lock").map(String::as_str)
    }

    /// The text with which a config lock refuses.
    pub(crate) fn check_lock(&self) -> Result<(), String> {
        match self.lock() {
            Some(lock) => Err(format!("CT is locked ({lock})")),
            None => Ok(()),
        }
    }

    /// Takes a setting away. The volume of a mount point stays and is mounted nowhere from then on; one
    /// that was so already is returned, and goes.
    pub(crate) fn take_away(&mut self, key: &str) -> Option<String> {
        let value = self.config.remove(key).filter(|_| is_mount(key))?;
        let volume = property::parse(ROOTFS, &value).ok()?.remove("volume")?;
        storage::split_volid(&volume)?;
        if key.starts_with("unused") {
            return Some(volume);
        }
        let free = (0u32..).map(|index| format!("unused{index}"));
        let free = free.into_iter().find(|key| !self.config.contains_key(key));
        self.config.extend(free.map(|key| (key, volume)));
        None
    }

    pub(crate) fn is_template(&self) -> bool {
        self.config.get("template").is_some_and(|value| value == "1")
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.config.get("protection").is_some_and(|value| value == "1")
    }

    pub(crate) fn name(&self) -> String {
        self.config.get("hostname").cloned().unwrap_or_else(|| format!("CT{}", self.vmid))
    }

    fn number(&self, key: &str, default: u64) -> u64 {
        self.config.get(key).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        self.number("memory", 512) << 20
    }

    /// Bytes of swap.
    pub(crate) fn swap(&self) -> u64 {
        self.number("swap", 512) << 20
    }

    /// Processors that it may use: its limit, its cores, or all of the host's.
    pub(crate) fn cpus(&self, host: u32) -> Value {
        if let Some(limit) = self.config.get("cpulimit").and_then(|l| l.parse::<f64>().ok())
            && limit > 0.0
        {
            return if limit.fract() == 0.0 { json!(limit.round()) } else { json!(limit) };
        }
        json!(self.number("cores", u64::from(host)))
    }

    /// The volume of its root file system.
    pub(crate) fn rootfs(&self) -> Option<String> {
        property::parse(ROOTFS, self.config.get("rootfs")?).ok()?.remove("volume")
    }

    /// Every volume that the configuration names.
    pub(crate) fn volumes(&self) -> Vec<String> {
        volumes_of(&self.config)
    }

    /// Bytes of its root file system, 4 GiB when the configuration does not say.
    pub(crate) fn disk_size(&self) -> u64 {
        self.config
            .get("rootfs")
            .and_then(|rootfs| property::parse(ROOTFS, rootfs).ok())
            .and_then(|members| storage::parse_size(members.get("size")?, 1))
            .unwrap_or(4 << 30)
    }

    /// The hash that guards against lost updates: forty hex digits.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (key, value) in &self.config {
            hash.update(format!("{key}: {value}\n"));
        }
        hash.update(format!("{:?}{:?}", self.pending, self.parent));
        for snapshot in &self.snapshots {
            hash.update(format!("[{}]{}{:?}", snapshot.name, snapshot.taken, snapshot.config));
        }
        hash.finalize().iter().take(20).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The reply of `GET config`; with `current` false, pending changes show as made.
    pub(crate) fn config_json(&self, current: bool) -> Value {
        let mut data = serde_json::Map::new();
        let mut config = self.config.clone();
        if !current {
            for (key, value) in &self.pending {
                match value {
                    Some(value) => config.insert(key.clone(), value.clone()),
                    None => config.remove(key),
                };
            }
        }
        for (key, value) in &config {
            data.insert(key.clone(), shown(key, value));
        }
        if let Some(parent) = &self.parent {
            data.insert("parent".to_owned(), json!(parent));
        }
        data.insert("digest".to_owned(), json!(self.digest()));
        Value::Object(data)
    }

    /// The reply of the list and, with `ha`, of `status/current`.
    pub(crate) fn status_json(&self, host_cpus: u32, now: i64) -> serde_json::Map<String, Value> {
        let mut data = serde_json::Map::new();
        let mut put = |key: &str, value: Value| {
            data.insert(key.to_owned(), value);
        };
        put("vmid", json!(self.vmid));
        put("type", json!("lxc"));
        put("name", json!(self.name()));
        put("cpus", self.cpus(host_cpus));
        put("maxmem", json!(self.memory()));
        put("maxswap", json!(self.swap()));
        for key in ["diskread", "diskwrite", "netin", "netout", "swap", "cpu"] {
            put(key, json!(0));
        }
        match &self.running {
            Some(running) => {
                put("status", json!("running"));
                put("pid", json!(running.pid));
                put("uptime", json!(now - running.since));
                put("mem", json!(self.memory() / 8));
                put("disk", json!(self.disk_size() / 32));
                // A file system is a little smaller than its image.
                put("maxdisk", json!(self.disk_size() / 100 * 95));
                for kind in ["cpufull", "cpusome", "iofull", "iosome", "memoryfull", "memorysome"] {
                    put(&format!("pressure{kind}"), Value::Null);
                }
            }
            None => {
                put("status", json!("stopped"));
                for key in ["uptime", "mem", "disk"] {
                    put(key, json!(0));
                }
                put("maxdisk", json!(self.disk_size()));
            }
        }
        for key in ["tags", "lock"] {
            if let Some(value) = self.config.get(key) {
                put(key, json!(value));
            }
        }
        if self.is_template() {
            put("template", json!(1));
        }
        data
    }

    /// The members of its network interfaces by parameter name.
    pub(crate) fn networks(&self) -> Vec<BTreeMap<String, String>> {
        self.config
            .iter()
            .filter(|(key, _)| is_net(key))
            .filter_map(|(_, value)| property::parse(NET, value).ok())
            .collect()
    }
}

/// Whether a key is `net0`, `net1`, ….
pub(crate) fn is_net(key: &str) -> bool {
    key.strip_prefix("net").is_some_and(|index| index.parse::<u8>().is_ok())
}

/// Whether a key is `rootfs`, `mp0`, …: something that holds a volume.
pub(crate) fn is_mount(key: &str) -> bool {
    key == "rootfs"
        || key.strip_prefix("mp").is_some_and(|i| i.parse::<u8>().is_ok())
        || key.strip_prefix("unused").is_some_and(|i| i.parse::<u8>().is_ok())
}

/// Whether a key is `mp0`, `mp1`, …: a mount point beside the root file system.
pub(crate) fn is_mount_point(key: &str) -> bool {
    is_mount(key) && key.starts_with("mp")
}

/// Every volume that a configuration names.
pub(crate) fn volumes_of(config: &Config) -> Vec<String> {
    config
        .iter()
        .filter(|(key, _)| is_mount(key))
        .filter_map(|(_, value)| property::parse(ROOTFS, value).ok()?.remove("volume"))
        .filter(|volume| storage::split_volid(volume).is_some())
        .collect()
}
