//! Which node a new container goes to: the online one with the most memory that nobody was promised.

#[cfg(test)]
mod tests;

use proximity_domain::plan::Source;
use proximity_domain::{HostId, NodeName};

use crate::error::{Error, FieldError};
use crate::pools::Promise;
use crate::ports::{ClusterView, NodeView};

/// What the caller asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    pub host: Option<HostId>,
    pub node: Option<&'a NodeName>,
}

/// A node and the storages on it that will be used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place<'a> {
    pub cluster: &'a ClusterView,
    pub node: &'a NodeView,
    /// Holds templates and image archives.
    pub template_storage: &'a str,
    /// Holds root disks.
    pub disk_storage: &'a str,
}

/// The first Proxmox VE that makes containers from OCI images.
const OCI_SINCE: (u32, u32) = (9, 1);

/// Chooses, or says what is missing.
pub fn place<'a>(
    clusters: &'a [ClusterView],
    promises: &[Promise],
    wish: Wish<'_>,
    source: &Source,
) -> Result<Place<'a>, Error> {
    let reachable = reachable(clusters, wish)?;
    if let Some(name) = wish.node {
        named(&reachable, name)?;
    }
    let online: Vec<(&ClusterView, &NodeView)> = reachable
        .iter()
        .flat_map(|cluster| cluster.nodes.iter().map(move |node| (*cluster, node)))
        .filter(|(_, node)| node.online && wish.node.is_none_or(|name| node.name == *name))
        .collect();
    if online.is_empty() {
        return Err(unavailable("nodes.none_online", "no Proxmox node is online"));
    }
    let new_enough: Vec<_> =
        online.into_iter().filter(|(cluster, _)| is_new_enough(cluster, source)).collect();
    if new_enough.is_empty() {
        let (major, minor) = OCI_SINCE;
        return Err(Error::invalid(
            "catalog_id",
            "catalog.needs_newer_proxmox",
            format!(
                "this application is an OCI image, which needs Proxmox VE {major}.{minor} or later"
            ),
        ));
    }
    // Without a wish, another host is only used when the default one has no place.
    let defaults: Vec<_> =
        new_enough.iter().copied().filter(|(cluster, _)| cluster.is_default).collect();
    best(&defaults, promises).or_else(|| best(&new_enough, promises)).ok_or_else(|| {
        unavailable(
            "nodes.no_storage",
            "no online node has an active storage for templates and one for root disks",
        )
    })
}

fn reachable<'a>(
    clusters: &'a [ClusterView],
    wish: Wish<'_>,
) -> Result<Vec<&'a ClusterView>, Error> {
    let reachable: Vec<_> = clusters
        .iter()
        .filter(|cluster| wish.host.is_none_or(|host| cluster.host == host))
        .collect();
    match wish.host {
        Some(host) if reachable.is_empty() => Err(Error::invalid(
            "host_id",
            "host.unknown",
            format!("there is no active host with the id {host}"),
        )),
        _ => Ok(reachable),
    }
}

fn named(clusters: &[&ClusterView], name: &NodeName) -> Result<(), Error> {
    let mut nodes = clusters.iter().flat_map(|cluster| &cluster.nodes);
    let refuse = |code, detail: String| {
        Err(Error::Invalid(vec![FieldError { field: "node".to_owned(), code, detail }]))
    };
    if !nodes.clone().any(|node| node.name == *name) {
        return refuse("node.unknown", format!("there is no node {name}"));
    }
    if !nodes.any(|node| node.name == *name && node.online) {
        return refuse("node.offline", format!("the node {name} is offline"));
    }
    Ok(())
}

/// A host that did not say its version is given the benefit of the doubt: its refusal will be clear.
fn is_new_enough(cluster: &ClusterView, source: &Source) -> bool {
    match (source, &cluster.version) {
        (Source::Oci { .. }, Some(version)) => (version.major, version.minor) >= OCI_SINCE,
        (Source::Oci { .. }, None) | (Source::Template { .. }, _) => true,
    }
}

fn best<'a>(nodes: &[(&'a ClusterView, &'a NodeView)], promises: &[Promise]) -> Option<Place<'a>> {
    nodes
        .iter()
        .filter_map(|(cluster, node)| {
            let place = Place {
                cluster,
                node,
                template_storage: roomiest(node, "vztmpl")?,
                disk_storage: roomiest(node, "rootdir")?,
            };
            Some((unpromised(cluster, node, promises), place))
        })
        // Equal ones by name, so that the choice can be foretold.
        .max_by(|(a, at), (b, bt)| a.cmp(b).then_with(|| bt.node.name.cmp(&at.node.name)))
        .map(|(_, place)| place)
}

/// Bytes that are free and promised to nobody; below zero when more was promised than there is.
fn unpromised(cluster: &ClusterView, node: &NodeView, promises: &[Promise]) -> i128 {
    let promised: i128 = promises
        .iter()
        .filter(|promise| promise.host == cluster.host && promise.node == node.name)
        .map(|promise| i128::from(promise.bytes))
        .sum();
    i128::from(node.memory_free.unwrap_or_default()) - promised
}

/// The active storage for this content with the most room.
fn roomiest<'a>(node: &'a NodeView, content: &str) -> Option<&'a str> {
    node.storages
        .iter()
        .filter(|storage| storage.active && storage.content.iter().any(|kind| kind == content))
        .max_by(|a, b| a.available.cmp(&b.available).then_with(|| b.name.cmp(&a.name)))
        .map(|storage| storage.name.as_str())
}

fn unavailable(code: &'static str, detail: &'static str) -> Error {
    let retry_after = std::time::Duration::from_secs(30);
    Error::Unavailable { code, detail: detail.to_owned(), retry_after }
}
