//! What the registered clusters look like right now: asked for when it is wanted, kept for seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use proximity_domain::HostId;
use proximity_domain::host::{Host, Registration};
use proximity_eventstore::{Store, Value, tables};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::dispatch::load;
use crate::error::Error;
use crate::ports::{
    ClusterView, Clusters, Hypervisor, HypervisorError, Hypervisors, Node, NodeView,
};

/// Registered hosts that are looked at, at most.
const MAX_HOSTS: usize = 1_000;

/// How fresh a view has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// A younger view is used as it is.
    pub fresh: Duration,
    /// A view up to this old stands in for a host that does not answer.
    pub stale: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { fresh: Duration::from_secs(5), stale: Duration::from_secs(60) }
    }
}

/// Looks at all active hosts through their adapters, one look at a time.
pub struct LiveClusters {
    store: Store,
    hypervisors: Arc<dyn Hypervisors>,
    freshness: Freshness,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    seen: Option<(Instant, Arc<Vec<ClusterView>>)>,
    /// The last good view of each host.
    good: BTreeMap<HostId, (Instant, ClusterView)>,
}

impl LiveClusters {
    pub fn new(store: Store, hypervisors: Arc<dyn Hypervisors>, freshness: Freshness) -> Self {
        Self { store, hypervisors, freshness, last: Mutex::default() }
    }

    /// Makes the next question look again, e.g. after a host was registered or changed.
    pub async fn forget(&self) {
        self.last.lock().await.seen = None;
    }

    async fn active(&self) -> Result<Vec<(HostId, Registration)>, Error> {
        let rows = self
            .store
            .rows(&tables::HOST_CONNECTIONS, Vec::new(), MAX_HOSTS)
            .await
            .map_err(|error| Error::internal("the hosts cannot be listed", error))?;
        let mut active = Vec::new();
        for row in rows {
            let id = row.into_iter().find_map(|(column, value)| match (column, value) {
                ("host_id", Value::Text(id)) => id.parse::<HostId>().ok(),
                _ => None,
            });
            let Some(id) = id else { continue };
            let (host, _) = load::<Host>(&self.store, &id.to_string()).await?;
            if let Host::Registered(host) = host
                && host.is_active
                && host.suspended.is_none()
            {
                active.push((id, *host));
            }
        }
        Ok(active)
    }
}

#[async_trait]
impl Clusters for LiveClusters {
    async fn seen(&self) -> Result<Arc<Vec<ClusterView>>, Error> {
        // Whoever comes while a look is under way waits for it and shares what it saw.
        let mut last = self.last.lock().await;
        if let Some((at, seen)) = &last.seen
            && at.elapsed() < self.freshness.fresh
        {
            return Ok(Arc::clone(seen));
        }
        let mut looks = JoinSet::new();
        for (id, host) in self.active().await? {
            let hypervisors = Arc::clone(&self.hypervisors);
            looks.spawn(async move { (id, look(&*hypervisors, id, &host).await, host) });
        }
        let mut seen = Vec::new();
        while let Some(looked) = looks.join_next().await {
            let (id, looked, host) =
                looked.map_err(|error| Error::internal("a look at a host was cut off", error))?;
            match looked {
                Ok(view) => {
                    last.good.insert(id, (Instant::now(), view.clone()));
                    seen.push(view);
                }
                Err(error) => {
                    tracing::warn!(host = %id, %error, "a host cannot be looked at");
                    let old = last.good.get(&id).filter(|(at, view)| {
                        at.elapsed() < self.freshness.stale && view.cluster == host.cluster
                    });
                    seen.push(old.map_or_else(|| away(id, &host), |(_, view)| view.clone()));
                }
            }
        }
        seen.sort_by_key(|view| view.host);
        let seen = Arc::new(seen);
        last.seen = Some((Instant::now(), Arc::clone(&seen)));
        Ok(seen)
    }
}

/// A host that does not answer has no node to offer.
fn away(host: HostId, registration: &Registration) -> ClusterView {
    ClusterView {
        host,
        cluster: registration.cluster.clone(),
        is_default: registration.is_default,
        version: None,
        nodes: Vec::new(),
        guests: std::collections::BTreeSet::new(),
    }
}

async fn look(
    hypervisors: &dyn Hypervisors,
    host: HostId,
    registration: &Registration,
) -> Result<ClusterView, HypervisorError> {
    let hypervisor = hypervisors.of(host).await?;
    let version = hypervisor.version().await?;
    let guests = hypervisor.guests().await?.into_iter().map(|guest| guest.vmid).collect();
    let mut nodes = Vec::new();
    for node in hypervisor.nodes().await? {
        nodes.push(look_at(&*hypervisor, node).await);
    }
    Ok(ClusterView { version: Some(version), nodes, guests, ..away(host, registration) })
}

/// A node whose storages cannot be listed is there, but offers none.
async fn look_at(hypervisor: &dyn Hypervisor, node: Node) -> NodeView {
    let storages = if node.online { hypervisor.storages(&node.name).await } else { Ok(Vec::new()) };
    let storages = storages.unwrap_or_else(|error| {
        tracing::warn!(node = %node.name, %error, "the storages of a node cannot be listed");
        Vec::new()
    });
    let memory_free = match (node.memory_total, node.memory_used) {
        (Some(total), Some(used)) => Some(total.saturating_sub(used)),
        _ => None,
    };
    NodeView { name: node.name, online: node.online, memory_free, storages }
}
