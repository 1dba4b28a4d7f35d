//! What has happened to a schedule of backups: a stored promise, with a fixture per version.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use super::retention::Retention;
use super::timing::{Cron, Timezone};
use crate::backup::{Compression, Mode};
use crate::value::{ApplicationId, BackupId, UserId};

/// A schedule's events; the aggregate's id is its number. Moments are µs since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Created(Box<Created>),
    /// `next`: the next time it fires; `None` while it is switched off.
    Changed {
        settings: Settings,
        next: Option<i64>,
    },
    /// The time `due` had come: its run is planned in the same append. Nobody fires it again.
    Fired {
        due: i64,
        next: Option<i64>,
    },
    /// The time `due` had come, and nothing was done about it.
    PassedOver {
        due: i64,
        next: Option<i64>,
        reason: PassedOver,
    },
    /// All that the run for `due` had to do is done.
    RunEnded {
        due: i64,
        outcomes: Vec<Outcome>,
    },
    /// It fires no more.
    Deleted {
        reason: Deleted,
    },
}

/// All that is known when a schedule is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub owner: UserId,
    /// `None`: all applications that the owner has when it fires.
    pub application: Option<ApplicationId>,
    pub settings: Settings,
    pub next: Option<i64>,
}

/// When it fires, how its backups are made, and which of them are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub cron: Cron,
    pub timezone: Timezone,
    pub mode: Mode,
    pub compression: Compression,
    pub keep: Retention,
    pub enabled: bool,
}

/// Why nothing was done when its time had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassedOver {
    /// The run before was not over.
    StillRunning,
    /// The owner's account is disabled.
    OwnerDisabled,
    /// The owner has no application.
    NoApplication,
}

impl PassedOver {
    /// A sentence for a person.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::StillRunning => "the run before was not over yet",
            Self::OwnerDisabled => "the owner's account is disabled",
            Self::NoApplication => "there was no application to back up",
        }
    }
}

/// Why a schedule fires no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deleted {
    /// Someone deleted it.
    Asked,
    /// Its application was removed.
    ApplicationRemoved,
}

/// What came of one application in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub application: ApplicationId,
    pub result: RunResult,
    /// `None` when none was begun.
    pub backup: Option<BackupId>,
    /// Why there is no backup, or why older ones are still there.
    pub problem: Option<String>,
    /// Older backups of the schedule that were removed.
    pub pruned: Vec<BackupId>,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunResult {
    Completed,
    Failed,
    /// Nothing was begun.
    Skipped,
}

impl RunResult {
    /// As the contract names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Created(_) => "backup_schedule.created",
            Self::Changed { .. } => "backup_schedule.changed",
            Self::Fired { .. } => "backup_schedule.fired",
            Self::PassedOver { .. } => "backup_schedule.passed_over",
            Self::RunEnded { .. } => "backup_schedule.run_ended",
            Self::Deleted { .. } => "backup_schedule.deleted",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
