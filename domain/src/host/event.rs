//! What has happened to a registered Proxmox host: a stored promise, with a fixture per version.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use super::Fingerprint;
use crate::value::{ClusterName, NodeName, Port, SecretId};

/// A host's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Registered {
        connection: Connection,
        cluster: ClusterName,
        is_default: bool,
    },
    /// Everything that a change leaves in force.
    Changed {
        connection: Connection,
        is_active: bool,
        is_default: bool,
    },
    /// Its nodes as last seen; recorded when names or states differ from the last time.
    NodesObserved {
        nodes: Vec<ObservedNode>,
    },
    /// It answered as another cluster than the one it was registered for.
    Suspended {
        reason: String,
    },
    Removed,
}

/// How it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub name: String,
    /// Host name or IP address.
    pub address: String,
    pub port: Port,
    /// E.g. `root@pam`.
    pub user: String,
    pub auth: Auth,
    /// The stored credential's record.
    pub credential: SecretId,
    pub verify_ssl: bool,
    /// The pinned certificate.
    pub fingerprint: Option<Fingerprint>,
    pub ssh_port: Port,
}

/// Which kind of credential is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    Password,
    Token { id: String },
}

/// A node as Proxmox listed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNode {
    pub name: NodeName,
    pub online: bool,
    /// e.g. `9.1.7`.
    pub version: Option<String>,
    /// Cores; not known is absent.
    pub cores: Option<u32>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes.
    pub disk_total: Option<u64>,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Registered { .. } => "host.registered",
            Self::Changed { .. } => "host.changed",
            Self::NodesObserved { .. } => "host.nodes_observed",
            Self::Suspended { .. } => "host.suspended",
            Self::Removed => "host.removed",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
