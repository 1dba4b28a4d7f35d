//! What people ask of applications: deploy, clone or adopt one, start, stop, restart or delete it.

mod act;
mod adopt;
mod backup;
mod capture;
mod clone;
mod deploy;
mod discover;
mod restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use proximity_catalog::Library;
use proximity_domain::application::Error as Refusal;
use proximity_domain::operation::Error as OperationRefusal;
use proximity_domain::{ApplicationId, OperationId};
use proximity_eventstore::Store;
use serde::{Deserialize, Serialize};

pub use act::Action;
pub use adopt::{AdoptRequest, Adopting};
pub(crate) use backup::give_up as give_up_backup;
pub use backup::{BackupAccepted, BackupWish};
pub(crate) use capture::bytes;
pub use clone::CloneRequest;
pub use deploy::DeployRequest;
pub use discover::Discovered;
pub use restore::RestoreWish;

use crate::clock::{Clock, Micros};
use crate::error::Error;
use crate::marker::Markers;
use crate::pools::Pools;
use crate::ports::{Clusters, Hypervisors};
use crate::secrets::Secrets;

/// Everything that commands on applications need.
pub struct Applications {
    pub store: Store,
    pub catalog: Arc<Library>,
    pub clusters: Arc<dyn Clusters>,
    pub hypervisors: Arc<dyn Hypervisors>,
    pub markers: Markers,
    pub secrets: Secrets,
    pub pools: Pools,
    pub clock: Arc<dyn Clock>,
    pub limits: Limits,
}

/// How long operations may take before they are asked to unwind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A deployment, its health check's own patience not counted.
    pub deploy: Duration,
    /// One that moves a container's disks: a copy, a backup, a restore.
    pub disks: Duration,
    /// Any other operation.
    pub other: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self { deploy: minutes(45), disks: minutes(6 * 60), other: minutes(30) }
    }
}

/// What was accepted; an operation carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub application: ApplicationId,
    /// `None`: it was so already, and nothing happens.
    pub operation: Option<OperationId>,
}

impl Applications {
    fn deadline(&self, limit: Duration) -> Micros {
        let limit = Micros::try_from(limit.as_micros()).unwrap_or(Micros::MAX);
        self.clock.now().saturating_add(limit)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound => return Self::NotFound,
            Refusal::AlreadyExists => "application.exists",
            Refusal::Busy { .. } => "application.busy",
            Refusal::Stuck { .. } => "operation.stuck",
            Refusal::OnlyDeletable => "application.only_deletable",
            Refusal::NotRunning => "application.not_running",
            Refusal::Lost => "application.container_missing",
            Refusal::NotThisOperation => "operation.not_current",
        };
        Self::conflict(code, refusal.to_string())
    }
}

impl From<OperationRefusal> for Error {
    fn from(refusal: OperationRefusal) -> Self {
        let code = match refusal {
            OperationRefusal::NotFound => return Self::NotFound,
            OperationRefusal::AlreadyPlanned => "operation.exists",
            OperationRefusal::Ended => "operation.ended",
            OperationRefusal::NotStuck => "operation.not_stuck",
            OperationRefusal::IsStuck => "operation.stuck",
            OperationRefusal::PastPivot => "operation.past_pivot",
            OperationRefusal::NotNext => "operation.not_next",
        };
        Self::conflict(code, refusal.to_string())
    }
}
