//! The read model of schedules of backups: one row each, which is the contract's `BackupSchedule`.

mod fold;
mod query;

pub use fold::{BackupSchedules, after};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::text::Moment;

/// A schedule as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackupSchedule {
    /// 1, 2, 3 …
    pub id: i64,
    /// The owner's user id.
    pub owner: i64,
    /// The application that is backed up; null: all that the owner has when it fires, those that are
    /// made later included.
    pub application_id: Option<String>,
    /// Five fields: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// The time zone in which `cron` is meant, and in which retention counts days.
    pub timezone: String,
    /// `snapshot`, `suspend` or `stop`.
    pub backup_type: String,
    /// `zstd`, `gzip` or `lzo`.
    pub compression: String,
    /// The newest backups that are kept.
    pub keep_last: u16,
    /// Days of which the newest backup is kept. All four 0: every backup is kept.
    pub keep_daily: u16,
    /// Weeks, from Monday, of which the newest backup is kept.
    pub keep_weekly: u16,
    /// Months of which the newest backup is kept.
    pub keep_monthly: u16,
    /// Whether it fires.
    pub enabled: bool,
    /// RFC 3339: when it fires next; null while it is switched off.
    #[schema(value_type = Option<String>)]
    pub next_run: Option<Moment>,
    /// RFC 3339: the time for which it fired last; null while it has not.
    #[schema(value_type = Option<String>)]
    pub last_run: Option<Moment>,
    /// What came of the last time that is dealt with; null while there is none.
    pub last_result: Option<ScheduleResult>,
    /// Whether backups of the last time are still being made.
    pub is_running: bool,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub created_at: Moment,
    /// RFC 3339: when someone changed it last.
    #[schema(value_type = String)]
    pub updated_at: Moment,
}

/// What came of a time at which a schedule was to fire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleResult {
    /// `completed`, `failed`, `skipped`, or `partial`: not the same for all applications.
    pub result: String,
    /// A sentence for a person.
    pub message: String,
    /// RFC 3339: the time that had come.
    #[schema(value_type = String)]
    pub due: Moment,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub finished_at: Moment,
    /// Application by application; empty when the time was passed over.
    pub backups: Vec<ScheduledBackup>,
}

/// What came of one application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduledBackup {
    /// The application.
    pub application_id: String,
    /// `completed`, `failed`, or `skipped`: nothing was begun.
    pub result: String,
    /// The backup's number; null when none was begun.
    pub backup_id: Option<i64>,
    /// Why there is no backup, or why older ones are still there.
    pub problem: Option<String>,
    /// The numbers of older backups of this schedule that were removed.
    pub pruned: Vec<i64>,
}
