//! What has happened to an operation: intent before each effect, outcome after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::value::{ApplicationId, NodeName, OperationId, UserId};

/// An operation's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Planned {
        application: ApplicationId,
        owner: UserId,
        plan: Plan,
        /// The names of the steps, in order, as they were when it was planned.
        steps: Vec<String>,
        /// µs since 1970; past it the janitor asks it to unwind.
        deadline: i64,
    },
    StepIntended {
        step: String,
        direction: Direction,
        attempt: u32,
        /// For a step that makes a container, what stood under its number before the first try: what
        /// comes there besides may be taken back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stood: Option<Volumes>,
        /// Where that was looked at; `None` where nobody has looked, and before this was kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<Site>,
    },
    /// The effect runs on Proxmox under this task id.
    TaskStarted {
        step: String,
        direction: Direction,
        upid: String,
    },
    StepSucceeded {
        step: String,
        direction: Direction,
        attempt: u32,
        found: Option<Finding>,
    },
    StepFailed {
        step: String,
        direction: Direction,
        attempt: u32,
        failure: Failure,
        /// µs since 1970 of the next attempt; `None` when there is none.
        retry_at: Option<i64>,
    },
    /// What it set out to do had to change (a VMID was taken); the new plan in full.
    PlanChanged {
        plan: Plan,
        reason: String,
    },
    CancelRequested {
        by: UserId,
        reason: String,
    },
    UnwindingBegan {
        reason: String,
    },
    Completed,
    /// Everything was taken back.
    Undone {
        reason: String,
    },
    Stuck {
        step: String,
        direction: Direction,
        reason: String,
        instructions: String,
    },
    Resumed {
        by: UserId,
        note: String,
    },
    Abandoned {
        by: UserId,
        note: String,
    },
}

/// Ids of volumes, by their storage; a storage that was looked at and held none is there, and empty.
pub type Volumes = BTreeMap<String, BTreeSet<String>>;

/// Where a step makes a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    pub node: NodeName,
    /// Disks of the container that it takes the place of: they go once that is overwritten.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub replaced: BTreeSet<String>,
    /// Storages that were looked at, and of which Proxmox lists no disk that is no container's: what
    /// stood there is not known.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unlisted: BTreeSet<String>,
}

/// Whether a step is being done or taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Act,
    Undo,
}

/// What a step learnt that later steps and readers need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The template or image archive that is used, with its digest when known.
    Archive { volume: String, digest: Option<String> },
    /// The archive that a backup came to.
    Backup(crate::backup::Archive),
    /// Where the guest answers.
    Address(IpAddr),
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: FailureClass,
    /// A sentence for the owner; never a secret.
    pub message: String,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Ends by itself: timeouts, 595/596/599, locks.
    Retryable,
    /// Will fail again: validation, permission.
    Permanent,
    /// It may have happened: look before anything else.
    Unknown,
}

/// Names an operation in other aggregates' events.
pub type Id = OperationId;

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Planned { .. } => "operation.planned",
            Self::StepIntended { .. } => "operation.step_intended",
            Self::TaskStarted { .. } => "operation.task_started",
            Self::StepSucceeded { .. } => "operation.step_succeeded",
            Self::StepFailed { .. } => "operation.step_failed",
            Self::PlanChanged { .. } => "operation.plan_changed",
            Self::CancelRequested { .. } => "operation.cancel_requested",
            Self::UnwindingBegan { .. } => "operation.unwinding_began",
            Self::Completed => "operation.completed",
            Self::Undone { .. } => "operation.undone",
            Self::Stuck { .. } => "operation.stuck",
            Self::Resumed { .. } => "operation.resumed",
            Self::Abandoned { .. } => "operation.abandoned",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
