//! The ledger: everything that exists at one moment, without what changes by itself, so that two can be compared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::World;
use super::container::Container;

/// Everything that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The nodes.
    pub nodes: Vec<LedgerNode>,
    /// The containers, by VMID.
    pub containers: Vec<LedgerContainer>,
    /// Disks of containers.
    pub disks: Vec<LedgerVolume>,
    /// Backup archives.
    pub backups: Vec<LedgerVolume>,
    /// Templates and OCI archives.
    pub templates: Vec<LedgerVolume>,
    /// Other volumes, such as ISO images.
    pub other_volumes: Vec<LedgerVolume>,
    /// Resource pools with their members' VMIDs.
    pub pools: BTreeMap<String, Vec<u32>>,
    /// Tasks that have not ended.
    pub running_tasks: Vec<LedgerTask>,
    /// Ids of all API tokens.
    pub tokens: Vec<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerNode {
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub online: bool,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerContainer {
    /// Its number.
    pub vmid: u32,
    /// Where it is.
    pub node: String,
    /// Its hostname.
    pub name: String,
    /// `running` or `stopped`.
    pub status: String,
    /// The config lock, if one is set.
    pub lock: Option<String>,
    /// The configuration as the file holds it.
    pub config: BTreeMap<String, String>,
    /// Names of its snapshots.
    pub snapshots: Vec<String>,
    /// Its pool.
    pub pool: Option<String>,
    /// The template that it was made from.
    pub image: String,
    /// The IPv4 address that it has while it runs.
    pub address: Option<String>,
    /// The ports on which it listens now.
    pub listening: Vec<u16>,
    /// Why ports that it should listen on are closed.
    pub listen_error: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerVolume {
    /// The node that sees it.
    pub node: String,
    /// Its id.
    pub volid: String,
    /// The VMID that it belongs to.
    pub vmid: Option<u32>,
    /// Bytes.
    pub size: u64,
    /// Whether it is protected from deletion.
    pub protected: bool,
    /// Its notes.
    pub notes: Option<String>,
}

/// A running task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerTask {
    /// Its id.
    pub upid: String,
    /// Its type.
    pub kind: String,
    /// What it works on.
    pub id: String,
}

impl Ledger {
    /// This ledger without templates, which are a cache and count as no leftover.
    #[must_use]
    pub fn without_templates(mut self) -> Self {
        self.templates.clear();
        self
    }

    /// The container of that number.
    #[must_use]
    pub fn container(&self, vmid: u32) -> Option<&LedgerContainer> {
        self.containers.iter().find(|container| container.vmid == vmid)
    }

    /// What exists here and did not in `baseline`, one line each; templates do not count.
    #[must_use]
    pub fn leftovers(&self, baseline: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for container in &self.containers {
            if baseline.container(container.vmid).is_none() {
                lines.push(format!("container {} ({})", container.vmid, container.status));
            }
        }
        let before: Vec<&str> = baseline
            .disks
            .iter()
            .chain(&baseline.backups)
            .chain(&baseline.other_volumes)
            .map(|volume| volume.volid.as_str())
            .collect();
        for volume in self.disks.iter().chain(&self.backups).chain(&self.other_volumes) {
            if !before.contains(&volume.volid.as_str()) {
                lines.push(format!("volume {}", volume.volid));
            }
        }
        for container in &self.containers {
            let old = baseline.container(container.vmid);
            if let Some(lock) = &container.lock
                && old.is_none_or(|old| old.lock.as_ref() != Some(lock))
            {
                lines.push(format!("lock {lock} on container {}", container.vmid));
            }
            for snapshot in &container.snapshots {
                if old.is_some_and(|old| !old.snapshots.contains(snapshot)) {
                    lines.push(format!("snapshot {snapshot} of container {}", container.vmid));
                }
            }
        }
        for (pool, members) in &self.pools {
            match baseline.pools.get(pool) {
                None => lines.push(format!("pool {pool}")),
                Some(old) => lines.extend(
                    members
                        .iter()
                        .filter(|vmid| !old.contains(vmid))
                        .map(|vmid| format!("member {vmid} of pool {pool}")),
                ),
            }
        }
        lines.extend(self.running_tasks.iter().map(|task| format!("task {}", task.upid)));
        lines.extend(
            self.tokens
                .iter()
                .filter(|token| !baseline.tokens.contains(token))
                .map(|token| format!("token {token}")),
        );
        lines
    }
}

fn container_line(container: &Container) -> LedgerContainer {
    let running = container.running.as_ref();
    LedgerContainer {
        vmid: container.vmid,
        node: container.node.clone(),
        name: container.name(),
        status: if running.is_some() { "running" } else { "stopped" }.to_owned(),
        lock: container.lock().map(str::to_owned),
        config: container.config.clone(),
        snapshots: container.snapshots.iter().map(|snapshot| snapshot.name.clone()).collect(),
        pool: container.pool.clone(),
        image: container.image.clone(),
        address: running.and_then(|r| r.guest.address).map(|address| address.to_string()),
        listening: running.map(|r| r.guest.ports.clone()).unwrap_or_default(),
        listen_error: container.listen_error.clone(),
    }
}

impl World {
    pub(crate) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for name in &self.order {
            let node = &self.nodes[name];
            ledger.nodes.push(LedgerNode { name: name.clone(), online: node.online });
            for store in node.stores.values() {
                for (volid, volume) in &store.volumes {
                    let line = LedgerVolume {
                        node: name.clone(),
                        volid: volid.clone(),
                        vmid: volume.vmid,
                        size: volume.size,
                        protected: volume.protected,
                        notes: volume.notes.clone(),
                    };
                    match volume.content {
                        "rootdir" => ledger.disks.push(line),
                        "backup" => ledger.backups.push(line),
                        "vztmpl" => ledger.templates.push(line),
                        _ => ledger.other_volumes.push(line),
                    }
                }
            }
        }
        ledger.containers = self.containers.values().map(container_line).collect();
        for pool in self.pools.keys() {
            let members = self.containers.values().filter(|c| c.pool.as_ref() == Some(pool));
            ledger.pools.insert(pool.clone(), members.map(|c| c.vmid).collect());
        }
        ledger.running_tasks = self
            .tasks
            .iter()
            .filter(|task| task.exit.is_none())
            .map(|task| LedgerTask {
                upid: task.upid.clone(),
                kind: task.kind.to_owned(),
                id: task.id.clone(),
            })
            .collect();
        ledger.tokens = self.access.token_ids();
        ledger
    }
}
