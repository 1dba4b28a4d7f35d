//! The id of a lease stream, which *is* the thing that is leased.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{ClusterName, Hostname, NodeName, Port, ValueError, Vmid};

/// Which of the two port ranges a port is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortPool {
    /// What a person opens.
    Public,
    /// The same page without the headers that forbid framing.
    Internal,
}

/// What can be held by one holder at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseKey {
    Hostname(Hostname),
    Vmid(ClusterName, Vmid),
    Port(PortPool, Port),
    Address(ClusterName, IpAddr),
    /// Folded user name.
    Username(String),
    /// Folded mail address.
    Email(String),
    /// A host record's display name, folded.
    HostName(String),
    /// A Proxmox cluster: at most one host record reaches it.
    Cluster(ClusterName),
    /// A template file on a node's storage: serialises its download.
    Template(NodeName, String, String),
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname(name) => write!(f, "hostname/{name}"),
            Self::Vmid(cluster, vmid) => write!(f, "vmid/{cluster}/{vmid}"),
            Self::Port(PortPool::Public, port) => write!(f, "port/public/{port}"),
            Self::Port(PortPool::Internal, port) => write!(f, "port/internal/{port}"),
            Self::Address(cluster, address) => write!(f, "address/{cluster}/{address}"),
            Self::Username(name) => write!(f, "username/{name}"),
            Self::Email(address) => write!(f, "email/{address}"),
            Self::HostName(name) => write!(f, "host-name/{name}"),
            Self::Cluster(cluster) => write!(f, "cluster/{cluster}"),
            Self::Template(node, storage, file) => write!(f, "template/{node}/{storage}/{file}"),
        }
    }
}

impl FromStr for LeaseKey {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = || ValueError::new("lease.key_invalid", format!("{text:?} is no lease key"));
        let (kind, rest) = text.split_once('/').ok_or_else(refuse)?;
        let pair = || rest.split_once('/').ok_or_else(refuse);
        Ok(match kind {
            "hostname" => Self::Hostname(rest.parse()?),
            "vmid" => {
                let (cluster, vmid) = pair()?;
                Self::Vmid(cluster.parse()?, vmid.parse()?)
            }
            "port" => match pair()? {
                ("public", port) => Self::Port(PortPool::Public, port.parse()?),
                ("internal", port) => Self::Port(PortPool::Internal, port.parse()?),
                _ => return Err(refuse()),
            },
            "address" => {
                let (cluster, address) = pair()?;
                Self::Address(cluster.parse()?, address.parse().map_err(|_| refuse())?)
            }
            "username" => Self::Username(rest.to_owned()),
            "email" => Self::Email(rest.to_owned()),
            "host-name" => Self::HostName(rest.to_owned()),
            "cluster" => Self::Cluster(rest.parse()?),
            "template" => {
                let (node, rest) = pair()?;
                let (storage, file) = rest.split_once('/').ok_or_else(refuse)?;
                Self::Template(node.parse()?, storage.to_owned(), file.to_owned())
            }
            _ => return Err(refuse()),
        })
    }
}
