//! What is known of the registered clusters when a place for a container is chosen.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use proximity_domain::{ClusterName, HostId, NodeName, Vmid};

use super::{Storage, Version};
use crate::error::Error;

/// The registered clusters as last seen, a few seconds ago at most.
#[async_trait]
pub trait Clusters: Send + Sync {
    /// Every active host; one that cannot be reached is there without an online node.
    async fn seen(&self) -> Result<Arc<Vec<ClusterView>>, Error>;
}

/// One registered host.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterView {
    pub host: HostId,
    pub cluster: ClusterName,
    pub is_default: bool,
    /// `None` when it did not say.
    pub version: Option<Version>,
    pub nodes: Vec<NodeView>,
    /// Numbers of all guests, ours and others'.
    pub guests: BTreeSet<Vmid>,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    pub name: NodeName,
    pub online: bool,
    /// Bytes; `None` when it did not say.
    pub memory_free: Option<u64>,
    pub storages: Vec<Storage>,
}
