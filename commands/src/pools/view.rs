//! What the log says is leased and promised, folded up to its head before each pick.

use std::collections::{HashMap, HashSet};

use proximity_domain::application::Event as ApplicationEvent;
use proximity_domain::plan::GuestRef;
use proximity_domain::{ClusterName, HostId, LeaseKey, NodeName};
use proximity_eventstore::{Position, Recorded, Store};

use crate::error::Error;

/// Events read at a time.
const PAGE: usize = 5_000;
/// Bytes in a MiB.
const MEBIBYTE: u64 = 1 << 20;

/// Memory that a running deployment was promised on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    pub host: HostId,
    pub node: NodeName,
    pub bytes: u64,
}

/// The pools as the log describes them.
#[derive(Default)]
pub struct View {
    cursor: Position,
    /// Ports and addresses that are held, quarantined or foreign.
    taken: HashSet<LeaseKey>,
    /// Likewise VMIDs, by cluster.
    vmids: HashMap<ClusterName, HashSet<u32>>,
    /// Deployments that run, by application.
    promised: HashMap<String, Promise>,
    nothing: HashSet<u32>,
}

impl View {
    /// Reads the log up to its head.
    pub async fn catch_up(&mut self, store: &Store) -> Result<(), Error> {
        loop {
            let page = store
                .feed(self.cursor, PAGE)
                .await
                .map_err(|error| Error::internal("the log cannot be read", error))?;
            for event in &page {
                self.follow(event)?;
                self.cursor = event.position;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Whether a port or an address is held, quarantined or foreign.
    pub fn is_taken(&self, key: &LeaseKey) -> bool {
        self.taken.contains(key)
    }

    /// The VMIDs of a cluster that are held, quarantined or foreign.
    pub fn vmids(&self, cluster: &ClusterName) -> &HashSet<u32> {
        self.vmids.get(cluster).unwrap_or(&self.nothing)
    }

    /// What running deployments were promised.
    pub fn promises(&self) -> Vec<Promise> {
        self.promised.values().cloned().collect()
    }

    fn follow(&mut self, event: &Recorded) -> Result<(), Error> {
        match event.aggregate_type.as_str() {
            "lease" => self.follow_lease(event),
            "application" => self.follow_application(event),
            _ => Ok(()),
        }
    }

    fn follow_lease(&mut self, event: &Recorded) -> Result<(), Error> {
        let id = event.aggregate_id.as_str();
        if !["vmid/", "port/", "address/"].iter().any(|kind| id.starts_with(kind)) {
            return Ok(());
        }
        let key: LeaseKey = id.parse().map_err(|error| malformed("a lease's id", error))?;
        let is_free = match event.event_type.as_str() {
            "lease.released" | "lease.cleared" => true,
            "lease.acquired" | "lease.quarantined" | "lease.found_foreign" => false,
            other => return Err(malformed("an event of a lease", unknown(other))),
        };
        match (key, is_free) {
            (LeaseKey::Vmid(cluster, vmid), false) => {
                self.vmids.entry(cluster).or_default().insert(vmid.get());
            }
            (LeaseKey::Vmid(cluster, vmid), true) => {
                self.vmids.entry(cluster).or_default().remove(&vmid.get());
            }
            (key, false) => {
                self.taken.insert(key);
            }
            (key, true) => {
                self.taken.remove(&key);
            }
        }
        Ok(())
    }

    fn follow_application(&mut self, event: &Recorded) -> Result<(), Error> {
        match event.event_type.as_str() {
            "application.requested" => {
                let stored = serde_json::from_str(&event.payload)
                    .map_err(|error| malformed("an event of an application", error))?;
                if let ApplicationEvent::Requested(requested) = stored {
                    let GuestRef { host, node, .. } = requested.guest;
                    let bytes = u64::from(requested.resources.memory.get()) * MEBIBYTE;
                    self.promised.insert(event.aggregate_id.clone(), Promise { host, node, bytes });
                }
            }
            "application.deployed"
            | "application.clone_ready"
            | "application.adopted"
            | "application.deployment_failed"
            | "application.operation_abandoned"
            | "application.removed" => {
                self.promised.remove(&event.aggregate_id);
            }
            _ => {}
        }
        Ok(())
    }
}

fn unknown(event_type: &str) -> std::io::Error {
    std::io::Error::other(format!("this program knows no {event_type}"))
}

fn malformed(
    context: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::internal(context, source)
}
