//! What has happened to an application: a stored promise, with a fixture per version.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use crate::plan::{GuestRef, Health, Holdings, Kind};
use crate::value::{
    ApplicationId, BackupId, EnvValue, NodeName, OperationId, Port, Resources, UserId, Vmid,
};

/// An application's events; `event_type` is `application.<variant in snake case>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Someone wants it; its deployment is planned and its leases are taken in the same append.
    Requested(Box<Requested>),
    /// The deployment ended well: it runs and answers.
    Deployed {
        operation: OperationId,
        address: Option<IpAddr>,
    },
    /// The deployment, clone or adoption was undone: it holds nothing and can only be deleted.
    DeploymentFailed {
        operation: OperationId,
        problem: String,
    },
    /// The copy of another application is there, and answers if it was to run.
    CloneReady {
        operation: OperationId,
        address: Option<IpAddr>,
        running: bool,
    },
    /// It was copied into another application, and is as it was before.
    Cloned {
        operation: OperationId,
        into: ApplicationId,
        running: bool,
    },
    /// A container that someone else made is now this application's.
    Adopted {
        operation: OperationId,
        address: Option<IpAddr>,
        running: bool,
    },
    /// Its number was taken by a stranger and another one leased instead.
    VmidReplaced {
        operation: OperationId,
        from: Vmid,
        to: Vmid,
    },
    /// A container that was restored from a backup has taken the place of its own.
    GuestSwapped {
        operation: OperationId,
        from: GuestRef,
        to: GuestRef,
    },
    /// It is as the backup has it.
    Restored {
        operation: OperationId,
        backup: BackupId,
        address: Option<IpAddr>,
        running: bool,
    },
    /// A later operation on it began; it is the only one until it ends.
    OperationBegan {
        operation: OperationId,
        kind: Kind,
    },
    Started {
        operation: OperationId,
        address: Option<IpAddr>,
    },
    Stopped {
        operation: OperationId,
    },
    Restarted {
        operation: OperationId,
        address: Option<IpAddr>,
    },
    /// An operation ended without its effect; what it found stands in `running`.
    OperationFailed {
        operation: OperationId,
        kind: Kind,
        problem: String,
        running: bool,
    },
    /// An operation that leaves the application as it was (a backup, say) ended well.
    OperationEnded {
        operation: OperationId,
        kind: Kind,
        running: bool,
    },
    /// The operation is stuck: an operator has to act; the application stays reserved for it.
    OperationStuck {
        operation: OperationId,
        problem: String,
    },
    /// An operator gave the stuck operation up.
    OperationAbandoned {
        operation: OperationId,
        problem: String,
        /// What it left the container doing; absent when it did not change that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        running: Option<bool>,
    },
    /// A look at Proxmox found its container otherwise than was recorded: someone started, stopped or
    /// moved it by hand, or put it back.
    Observed {
        node: NodeName,
        running: bool,
        /// Where it answers, when it runs and that could be learnt.
        address: Option<IpAddr>,
    },
    /// A look at Proxmox found its container gone.
    Lost(Loss),
    /// Its container has its protection again: a look at Proxmox set it, or found it set. This operation
    /// had begun to take it off and was given up; from here on it is no reason to set it.
    Protected {
        operation: OperationId,
    },
    /// It is gone; nothing is held for it.
    Removed {
        operation: OperationId,
    },
}

/// All that is known when an application is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    pub owner: UserId,
    pub operation: OperationId,
    pub catalog_id: String,
    pub catalog_version: String,
    /// What a person reads, e.g. the catalog's name of it.
    pub name: String,
    pub guest: GuestRef,
    pub holdings: Holdings,
    pub resources: Resources,
    pub environment: BTreeMap<String, EnvValue>,
    /// The catalog's `config` values that are declared plain, as sent.
    pub config: BTreeMap<String, EnvValue>,
    /// Where the published port leads to; `None` when it serves nothing.
    pub endpoint: Option<Endpoint>,
    pub health: Health,
    pub icon: String,
    pub category: String,
    pub description: String,
    /// How it came to be.
    #[serde(default, skip_serializing_if = "Origin::is_deployed")]
    pub origin: Origin,
}

/// How an application came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// From the catalog.
    #[default]
    Deployed,
    /// As a copy of another application.
    Cloned { from: ApplicationId },
    /// From a container that was there already.
    Adopted,
}

impl Origin {
    /// Whether it came from the catalog.
    pub fn is_deployed(&self) -> bool {
        *self == Self::Deployed
    }

    /// The kind of operation that makes it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Deployed => Kind::Deploy,
            Self::Cloned { .. } => Kind::Clone,
            Self::Adopted => Kind::Adopt,
        }
    }
}

/// How a container came to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The whole cluster holds no guest under its number.
    Gone,
    /// A guest that is not this application's has its number.
    Replaced,
}

/// The first endpoint of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub port: Port,
    /// `http`, `https`, `tcp` or `udp`.
    pub protocol: String,
    pub path: Option<String>,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Requested(_) => "application.requested",
            Self::Deployed { .. } => "application.deployed",
            Self::DeploymentFailed { .. } => "application.deployment_failed",
            Self::CloneReady { .. } => "application.clone_ready",
            Self::Cloned { .. } => "application.cloned",
            Self::Adopted { .. } => "application.adopted",
            Self::VmidReplaced { .. } => "application.vmid_replaced",
            Self::GuestSwapped { .. } => "application.guest_swapped",
            Self::Restored { .. } => "application.restored",
            Self::OperationBegan { .. } => "application.operation_began",
            Self::Started { .. } => "application.started",
            Self::Stopped { .. } => "application.stopped",
            Self::Restarted { .. } => "application.restarted",
            Self::OperationFailed { .. } => "application.operation_failed",
            Self::OperationEnded { .. } => "application.operation_ended",
            Self::OperationStuck { .. } => "application.operation_stuck",
            Self::OperationAbandoned { .. } => "application.operation_abandoned",
            Self::Observed { .. } => "application.observed",
            Self::Lost(_) => "application.lost",
            Self::Protected { .. } => "application.protected",
            Self::Removed { .. } => "application.removed",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
