//! What has happened in a run of a schedule: a stored promise, with a fixture per version.

use std::fmt;
use std::str::FromStr;

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use crate::backup_schedule::{Outcome, Settings};
use crate::value::{ApplicationId, BackupId, OperationId, ScheduleId, UserId, ValueError};

/// A run: the schedule and the time that it fired for (µs since 1970). Written `3.1764000000000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    pub schedule: ScheduleId,
    pub due: i64,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schedule, self.due)
    }
}

impl FromStr for RunId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = || ValueError::new("backup_schedule.id_invalid", "this is not a valid id");
        let (schedule, due) = text.split_once('.').ok_or_else(refuse)?;
        let (schedule, due) = (schedule.parse()?, due.parse().map_err(|_| refuse())?);
        Ok(Self { schedule, due })
    }
}

/// A run's events; the aggregate's id is a [`RunId`]. Moments are µs since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The schedule fired, in the same append.
    Planned(Box<Planned>),
    /// The application cannot be worked on now; it is tried again until this moment.
    Deferred { application: ApplicationId, reason: String, until: i64 },
    /// A backup of it was asked for, in the same append.
    Began { application: ApplicationId, backup: BackupId, operation: OperationId },
    /// The removal of an older backup was asked for, in the same append.
    PruningBegan { application: ApplicationId, backup: BackupId, operation: OperationId },
    /// Nothing more is done for this application.
    Closed { outcome: Outcome },
    /// Nothing more is done at all; the schedule says so in the same append.
    Ended,
}

/// All that is known when a run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    pub schedule: ScheduleId,
    pub owner: UserId,
    pub due: i64,
    /// As they were when it fired.
    pub settings: Settings,
    /// The applications that are to be backed up; at least one.
    pub targets: Vec<ApplicationId>,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Planned(_) => "backup_run.planned",
            Self::Deferred { .. } => "backup_run.deferred",
            Self::Began { .. } => "backup_run.began",
            Self::PruningBegan { .. } => "backup_run.pruning_began",
            Self::Closed { .. } => "backup_run.closed",
            Self::Ended => "backup_run.ended",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
