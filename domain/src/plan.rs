//! What an operation will do, chosen once: everything that a retry must repeat stands here.

mod backup;
mod restore;
mod take_over;

pub use backup::{BackupDeletePlan, BackupPlan};
pub use restore::{RestorePlan, RestoreWay};
pub use take_over::*;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::value::{
    ClusterName, EnvValue, HostId, Hostname, LeaseKey, NetworkSettings, NodeName, OperationId,
    Port, PortPool, Resources, Vmid,
};

/// The plan of an operation, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    Deploy(Box<DeployPlan>),
    Delete(DeletePlan),
    Start(PowerPlan),
    Stop(PowerPlan),
    Restart(PowerPlan),
    Clone(Box<ClonePlan>),
    Adopt(Box<AdoptPlan>),
    Backup(BackupPlan),
    BackupDelete(BackupDeletePlan),
    Restore(Box<RestorePlan>),
}

/// The kind of an operation, as the contract names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Deploy,
    Delete,
    Start,
    Stop,
    Restart,
    Clone,
    Adopt,
    Backup,
    BackupDelete,
    Restore,
}

impl Kind {
    /// The name used in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Delete => "delete",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Clone => "clone",
            Self::Adopt => "adopt",
            Self::Backup => "backup",
            Self::BackupDelete => "backup-delete",
            Self::Restore => "restore",
        }
    }
}

impl Plan {
    /// Which kind of operation this plan is for.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Deploy(_) => Kind::Deploy,
            Self::Delete(_) => Kind::Delete,
            Self::Start(_) => Kind::Start,
            Self::Stop(_) => Kind::Stop,
            Self::Restart(_) => Kind::Restart,
            Self::Clone(_) => Kind::Clone,
            Self::Adopt(_) => Kind::Adopt,
            Self::Backup(_) => Kind::Backup,
            Self::BackupDelete(_) => Kind::BackupDelete,
            Self::Restore(_) => Kind::Restore,
        }
    }

    /// The guest that the plan is about; `None` when the application holds none any more.
    pub fn guest(&self) -> Option<&GuestRef> {
        match self {
            Self::Deploy(plan) => Some(&plan.guest),
            Self::Delete(plan) => plan.guest.as_ref(),
            Self::Start(plan) | Self::Stop(plan) | Self::Restart(plan) => Some(&plan.guest),
            Self::Clone(plan) => Some(&plan.guest),
            Self::Adopt(plan) => Some(&plan.guest),
            Self::Backup(plan) => Some(&plan.guest),
            Self::BackupDelete(plan) => Some(&plan.guest),
            Self::Restore(plan) => Some(&plan.guest),
        }
    }

    /// Whether its application is gone, so that nobody is told of its end.
    pub fn is_detached(&self) -> bool {
        match self {
            Self::Delete(plan) => plan.detached,
            Self::BackupDelete(plan) => plan.detached,
            Self::Deploy(_) | Self::Start(_) | Self::Stop(_) | Self::Restart(_) => false,
            Self::Clone(_) | Self::Adopt(_) | Self::Backup(_) | Self::Restore(_) => false,
        }
    }
}

/// Where a guest is, and under which number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRef {
    pub host: HostId,
    pub cluster: ClusterName,
    pub node: NodeName,
    pub vmid: Vmid,
}

impl GuestRef {
    /// The lease of its number.
    pub fn vmid_lease(&self) -> LeaseKey {
        LeaseKey::Vmid(self.cluster.clone(), self.vmid)
    }
}

/// Everything that an application holds, released last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    pub hostname: Hostname,
    /// `None` for an adopted container, which keeps its own ports.
    #[serde(default)]
    pub public_port: Option<Port>,
    #[serde(default)]
    pub internal_port: Option<Port>,
    /// A static address, when the settings said so.
    pub address: Option<IpAddr>,
}

impl Holdings {
    /// The leases besides the VMID's.
    pub fn leases(&self, cluster: &ClusterName) -> Vec<LeaseKey> {
        let mut leases = vec![LeaseKey::Hostname(self.hostname.clone())];
        leases.extend(self.public_port.map(|port| LeaseKey::Port(PortPool::Public, port)));
        leases.extend(self.internal_port.map(|port| LeaseKey::Port(PortPool::Internal, port)));
        leases.extend(self.address.map(|address| LeaseKey::Address(cluster.clone(), address)));
        leases
    }
}

/// What a container is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// The newest template of this system and version.
    Template { os: String, version: String },
    /// The image itself is the container (Proxmox VE 9.1 and later).
    Oci { image: String, entrypoint: Option<String> },
}

/// When the application counts as there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub probe: Probe,
    /// Seconds after the start within which it must answer.
    pub within_s: u32,
}

/// What is asked of the guest's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Probe {
    /// GET answers with this status (or any below 400 when none is named).
    Http { port: Port, path: String, expect: Option<u16> },
    /// The port accepts a connection.
    Tcp { port: Port },
    /// The container runs and has an address.
    Running,
}

/// Makes an application's container and waits until it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployPlan {
    pub guest: GuestRef,
    pub holdings: Holdings,
    pub source: Source,
    /// Storage that holds templates and image archives on the node.
    pub template_storage: String,
    /// Storage that holds the root disk.
    pub disk_storage: String,
    pub resources: Resources,
    pub network: NetworkSettings,
    /// Reaches the application as environment.
    pub environment: BTreeMap<String, EnvValue>,
    pub unprivileged: bool,
    /// Proxmox `features`, e.g. `nesting=1`.
    pub features: Option<String>,
    pub health: Health,
    /// A caller was shown this very number beforehand: the container gets no other one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agreed: bool,
}

/// Removes an application's container and gives back all that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletePlan {
    /// `None` when an undone deployment left nothing to remove.
    pub guest: Option<GuestRef>,
    /// `None` when nothing is held any more.
    pub holdings: Option<Holdings>,
    /// Whether it ran, so that a deletion that has to be taken back starts it again.
    pub was_running: bool,
    /// The adoption that brought the container here: it is given back and not destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_by: Option<OperationId>,
    /// A stranger has the number by now: nothing of ours is left under it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    /// The application is gone already; its container came to be after that, and goes too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
}

/// Starts, stops or restarts an application's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerPlan {
    pub guest: GuestRef,
    /// Stop without waiting for a graceful end.
    pub force: bool,
    /// How a start is judged.
    pub health: Health,
}
