//! What has happened to a registered Proxmox host: a stored promise, with a fixture per version.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use super::Fingerprint;
use crate::value::{ApplicationId, ClusterName, NodeName, OperationId, Port, SecretId, Vmid};

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
    /// What is there otherwise than the log says and is not set right by itself; recorded when it
    /// differs from the last time.
    DiscrepanciesObserved {
        discrepancies: Vec<Discrepancy>,
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

impl Connection {
    /// Whether Proxmox takes its calls for those of `root@pam` himself; no token is he, not even his own.
    pub fn is_root(&self) -> bool {
        self.user == "root@pam" && self.auth == Auth::Password
    }
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

/// A container, or a volume that one has left, that a person has to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Discrepancy {
    pub vmid: Vmid,
    pub node: NodeName,
    pub kind: DiscrepancyKind,
    /// Whose container it is, or was to be.
    pub application: ApplicationId,
    /// Of `LeftOver`, which volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<LeftVolume>,
    /// Of `LeftSnapshot`, which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<LeftSnapshot>,
}

/// A volume that no container has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftVolume {
    pub storage: String,
    /// Its id, e.g. `local:104/vm-104-disk-0.raw`.
    pub id: String,
    /// The operation that was given up.
    pub operation: OperationId,
}

/// A snapshot that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftSnapshot {
    pub name: String,
    /// The copy that was given up.
    pub operation: OperationId,
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscrepancyKind {
    /// It carries our marker, and no application has it. It is not known to be a leftover of ours, so
    /// it stays.
    Orphan,
    /// An application's number, and another's guest.
    Stranger,
    /// It was given another host name by hand.
    Renamed,
    /// A creation of it, a restore over it, or its destruction was broken off: what is left is a lock and
    /// nobody's name, and no task works on it.
    BrokenOff,
    /// A volume under the number that an operation which was given up has left, and that no guest has.
    LeftOver,
    /// A snapshot of an application's container that a copy of it was made from which was given up.
    LeftSnapshot,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Registered { .. } => "host.registered",
            Self::Changed { .. } => "host.changed",
            Self::NodesObserved { .. } => "host.nodes_observed",
            Self::DiscrepanciesObserved { .. } => "host.discrepancies_observed",
            Self::Suspended { .. } => "host.suspended",
            Self::Removed => "host.removed",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
