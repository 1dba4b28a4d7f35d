//! Everything that exists in the simulated cluster, behind one lock.

pub(crate) mod container;
pub(crate) mod journal;
pub(crate) mod ledger;
pub(crate) mod raw;
pub(crate) mod retention;
pub(crate) mod storage;
pub(crate) mod task;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::auth::rights::Access;
use crate::config::{NodeConfig, SimulatorConfig};
use container::Container;
use journal::Journal;
use storage::Store;
use task::Task;

/// The cluster's state. Whoever holds its lock never waits.
pub(crate) struct World {
    pub(crate) nodes: BTreeMap<String, Node>,
    /// The names of the nodes in the order of the configuration.
    pub(crate) order: Vec<String>,
    pub(crate) containers: BTreeMap<u32, Container>,
    pub(crate) pools: BTreeMap<String, Pool>,
    pub(crate) tasks: Vec<Task>,
    task_index: HashMap<String, usize>,
    pub(crate) access: Access,
    pub(crate) journal: Journal,
    pub(crate) rng: StdRng,
}

/// A node and what is on it.
pub(crate) struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) online: bool,
    /// Unix seconds of its boot.
    pub(crate) boot: i64,
    pub(crate) next_pid: u32,
    /// When the last task began, in hundredths of a second since the node was booted.
    pub(crate) last_start: u64,
    /// When its last task began.
    pub(crate) task_begun: Option<Instant>,
    pub(crate) stores: BTreeMap<String, Store>,
}

/// A resource pool; its containers say so themselves.
#[derive(Default)]
pub(crate) struct Pool {
    pub(crate) comment: Option<String>,
    pub(crate) storages: BTreeSet<String>,
}

impl World {
    pub(crate) fn new(config: &SimulatorConfig, root_password: String, now: i64) -> Self {
        let nodes = config
            .nodes
            .iter()
            .map(|node| {
                let stores = node
                    .storages
                    .iter()
                    .map(|storage| (storage.name.clone(), Store::new(storage.clone(), now)))
                    .collect();
                let node = Node {
                    config: node.clone(),
                    online: true,
                    boot: now - 3_869,
                    next_pid: 1_000,
                    last_start: 0,
                    task_begun: None,
                    stores,
                };
                (node.config.name.clone(), node)
            })
            .collect();
        Self {
            nodes,
            order: config.nodes.iter().map(|node| node.name.clone()).collect(),
            containers: BTreeMap::new(),
            pools: BTreeMap::new(),
            tasks: Vec::new(),
            task_index: HashMap::new(),
            access: Access::new(root_password),
            journal: Journal::default(),
            rng: StdRng::seed_from_u64(config.seed),
        }
    }

    /// Whether more than half of the nodes are up, so that the cluster's file system takes writes.
    pub(crate) fn quorate(&self) -> bool {
        self.nodes.values().filter(|node| node.online).count() * 2 > self.nodes.len()
    }

    /// The node that answers: the first that is up.
    pub(crate) fn answering(&self) -> Option<&str> {
        self.order.iter().find(|name| self.nodes[*name].online).map(String::as_str)
    }

    /// The container, if it is on that node.
    pub(crate) fn container(&self, node: &str, vmid: u32) -> Option<&Container> {
        self.containers.get(&vmid).filter(|container| container.node == node)
    }

    pub(crate) fn container_mut(&mut self, node: &str, vmid: u32) -> Option<&mut Container> {
        self.containers.get_mut(&vmid).filter(|container| container.node == node)
    }

    pub(crate) fn add_task(&mut self, task: Task) {
        self.task_index.insert(task.upid.clone(), self.tasks.len());
        self.tasks.push(task);
    }

    pub(crate) fn task(&self, upid: &str) -> Option<&Task> {
        self.task_index.get(upid).map(|index| &self.tasks[*index])
    }

    /// Whether the lists of its node say that a task runs.
    pub(crate) fn lists_as_running(&self, task: &Task) -> bool {
        let node = self.nodes.get(&task.node);
        task.is_listed_running(node.and_then(|node| node.task_begun))
    }

    pub(crate) fn task_mut(&mut self, upid: &str) -> Option<&mut Task> {
        self.task_index.get(upid).map(|index| &mut self.tasks[*index])
    }

    /// A unicast address of Proxmox's own prefix that no container has.
    pub(crate) fn fresh_mac(&mut self) -> String {
        loop {
            let [a, b, c]: [u8; 3] = self.rng.random();
            let mac = format!("BC:24:11:{a:02X}:{b:02X}:{c:02X}");
            let taken = self
                .containers
                .values()
                .any(|container| container.config.values().any(|value| value.contains(&mac)));
            if !taken {
                return mac;
            }
        }
    }
}
