//! Who a host is: its cluster's name, or for a lone node an identity that outlives a renewed certificate.
//!
//! ADR 0007 says what is assumed.

use proximity_commands::ports::{ClusterIdentity, HypervisorError};
use proximity_domain::{ClusterName, NodeName};
use serde_json::Value;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::request::call;
use crate::row::{malformed, rows};

/// Reads `GET /cluster/status`; `certificate` is the one its connection was made with.
pub(crate) fn read(
    data: &Value,
    certificate: Option<&[u8]>,
) -> Result<ClusterIdentity, HypervisorError> {
    let mut cluster: Option<(ClusterName, bool)> = None;
    let mut nodes: Vec<NodeName> = Vec::new();
    let mut offline: Vec<NodeName> = Vec::new();
    for row in rows(call::CLUSTER_STATUS, data)? {
        match row.text("type")?.as_str() {
            "cluster" => cluster = Some((row.parsed("name")?, row.flag("quorate")?)),
            "node" => {
                let name: NodeName = row.parsed("name")?;
                // Nothing is concluded from a node of which it is not said.
                if row.opt_flag("online")? == Some(false) {
                    offline.push(name.clone());
                }
                nodes.push(name);
            }
            _ => {}
        }
    }
    nodes.sort();
    if let Some((cluster, quorate)) = cluster {
        return Ok(ClusterIdentity { cluster, quorate, nodes, offline });
    }
    // Without its rights a token gets an empty list; that is no lone node.
    let [node] = &nodes[..] else {
        let reason = format!("{} nodes and no cluster", nodes.len());
        return Err(malformed(call::CLUSTER_STATUS, reason));
    };
    let certificate = certificate
        .ok_or_else(|| malformed(call::CLUSTER_STATUS, "the connection shows no certificate"))?;
    let cluster = lone_node(node, certificate)
        .ok_or_else(|| malformed(call::CLUSTER_STATUS, "the certificate cannot be read"))?;
    // A lone node that answers is there.
    Ok(ClusterIdentity { cluster, quorate: true, nodes, offline: Vec::new() })
}

/// `node-` and 16 hex digits of a SHA-256 over the node's name and what stays of its certificate.
///
/// A node's own authority ("PVE Cluster Manager CA") carries a random UUID in its name, made at
/// installation; the issuer's name is therefore the node's own. A certificate of any other authority
/// is told by the names that it is for.
fn lone_node(node: &NodeName, certificate: &[u8]) -> Option<ClusterName> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let own = certificate
        .issuer()
        .iter_organization()
        .any(|name| name.as_str().is_ok_and(|name| name == "PVE Cluster Manager CA"));
    let mut hash = Sha256::new();
    let mut feed = |part: &[u8]| {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    };
    feed(b"proximity lone node 1");
    feed(node.as_str().as_bytes());
    if own {
        feed(b"issuer");
        feed(certificate.issuer().as_raw());
    } else {
        feed(b"names");
        let names = certificate.subject_alternative_name().ok().flatten();
        let mut names: Vec<Vec<u8>> = names
            .map(|names| names.value.general_names.iter().filter_map(name_bytes).collect())
            .unwrap_or_default();
        names.sort();
        feed(certificate.subject().as_raw());
        for name in &names {
            feed(name);
        }
    }
    let digest = hash.finalize();
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("node-{hex}").parse().ok()
}

fn name_bytes(name: &GeneralName<'_>) -> Option<Vec<u8>> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into_bytes()),
        GeneralName::IPAddress(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}
