//! How a schedule's events become its row.

use proximity_domain::backup_schedule::{Created, Event, Outcome, RunResult, Settings};
use proximity_eventstore::Recorded;
use serde::{Deserialize, Serialize};

use super::{BackupSchedule, ScheduleResult, ScheduledBackup};
use crate::cell::{Cell, Column, Table};
use crate::projection::{At, Cannot, Projection, read};
use crate::text::Moment;

/// The projection `backup_schedules`.
pub struct BackupSchedules;

/// The row: what the API shows, and whether it is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub schedule: BackupSchedule,
    removed: bool,
}

impl Projection for BackupSchedules {
    const NAME: &'static str = "backup_schedules";
    const VERSION: i32 = 1;
    const STREAM: &'static str = "backup_schedule";
    const TABLE: Table = Table {
        name: "backup_schedules",
        key: Column::text("id"),
        columns: &[
            Column::integer("number"),
            Column::integer("owner"),
            Column::text("application"),
            Column::integer("removed"),
            Column::text("body"),
        ],
        indexes: &["owner, removed, number", "application, removed, number"],
    };

    type Event = Event;
    type Row = Row;

    fn apply(row: &mut Option<Row>, event: Event, at: At<'_>) -> Result<(), Cannot> {
        match (row.as_mut(), event) {
            (None, Event::Created(created)) => *row = Some(created_row(*created, at)?),
            (Some(_), Event::Created(_)) => {
                return Err(Cannot(format!("schedule {} was made twice", at.id)));
            }
            (None, _) => return Err(Cannot(format!("schedule {} was never made", at.id))),
            (Some(row), event) => row.change(event, at),
        }
        Ok(())
    }

    fn columns(row: &Row) -> Vec<Cell> {
        let schedule = &row.schedule;
        vec![
            schedule.id.into(),
            schedule.owner.into(),
            schedule.application_id.clone().into(),
            row.removed.into(),
        ]
    }

    fn is_final(row: &Row) -> bool {
        row.removed
    }
}

impl Row {
    fn change(&mut self, event: Event, at: At<'_>) {
        let schedule = &mut self.schedule;
        let now = Moment(at.recorded_at);
        match event {
            // Handled by the caller: it only ever comes first.
            Event::Created(_) => {}
            Event::Changed { settings, next } => {
                schedule.set(settings, next);
                schedule.updated_at = now;
            }
            Event::Fired { due, next } => {
                schedule.next_run = next.map(Moment);
                schedule.last_run = Some(Moment(due));
                schedule.is_running = true;
            }
            Event::PassedOver { due, next, reason } => {
                schedule.next_run = next.map(Moment);
                schedule.last_result = Some(ScheduleResult {
                    result: RunResult::Skipped.as_str().to_owned(),
                    message: format!("Nothing was backed up: {}.", reason.sentence()),
                    due: Moment(due),
                    finished_at: now,
                    backups: Vec::new(),
                });
            }
            Event::RunEnded { due, outcomes } => {
                schedule.is_running = false;
                schedule.last_result = Some(result(due, outcomes, now));
            }
            Event::Deleted { reason: _ } => self.removed = true,
        }
    }
}

impl BackupSchedule {
    fn set(&mut self, settings: Settings, next: Option<i64>) {
        self.cron = settings.cron.into();
        self.timezone = settings.timezone.into();
        settings.mode.as_str().clone_into(&mut self.backup_type);
        settings.compression.as_str().clone_into(&mut self.compression);
        self.keep_last = settings.keep.last;
        self.keep_daily = settings.keep.daily;
        self.keep_weekly = settings.keep.weekly;
        self.keep_monthly = settings.keep.monthly;
        self.enabled = settings.enabled;
        self.next_run = next.map(Moment);
    }
}

fn created_row(created: Created, at: At<'_>) -> Result<Row, Cannot> {
    let id = at.id.parse().map_err(|_| Cannot(format!("{:?} is no schedule's id", at.id)))?;
    let now = Moment(at.recorded_at);
    let mut schedule = BackupSchedule {
        id,
        owner: created.owner.0,
        application_id: created.application.map(String::from),
        cron: String::new(),
        timezone: String::new(),
        backup_type: String::new(),
        compression: String::new(),
        keep_last: 0,
        keep_daily: 0,
        keep_weekly: 0,
        keep_monthly: 0,
        enabled: false,
        next_run: None,
        last_run: None,
        last_result: None,
        is_running: false,
        created_at: now,
        updated_at: now,
    };
    schedule.set(created.settings, created.next);
    Ok(Row { schedule, removed: false })
}

/// The summary of a run: one word and one sentence, with each application beside them.
fn result(due: i64, outcomes: Vec<Outcome>, finished_at: Moment) -> ScheduleResult {
    let count = |wanted| outcomes.iter().filter(|one| one.result == wanted).count();
    let (completed, failed, skipped) =
        (count(RunResult::Completed), count(RunResult::Failed), count(RunResult::Skipped));
    let result = match (completed, failed, skipped) {
        (_, 0, 0) => RunResult::Completed.as_str(),
        (0, _, 0) => RunResult::Failed.as_str(),
        (0, 0, _) => RunResult::Skipped.as_str(),
        _ => "partial",
    };
    let parts = [(completed, "backed up"), (failed, "failed"), (skipped, "skipped")];
    let told: Vec<String> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    let first = outcomes.iter().find_map(|one| one.problem.as_deref());
    let message = match first {
        Some(problem) => format!("{}: {problem}.", told.join(", ")),
        None => format!("{}.", told.join(", ")),
    };
    let backups = outcomes
        .into_iter()
        .map(|one| ScheduledBackup {
            application_id: one.application.into(),
            result: one.result.as_str().to_owned(),
            backup_id: one.backup.map(|backup| backup.0),
            problem: one.problem,
            pruned: one.pruned.into_iter().map(|backup| backup.0).collect(),
        })
        .collect();
    ScheduleResult { result: result.to_owned(), message, due: Moment(due), finished_at, backups }
}

/// The schedule after these events of its stream; `None` when it was not there yet, or is gone. For
/// an answer that must not wait for the read models.
pub fn after(id: &str, events: &[Recorded]) -> Result<Option<BackupSchedule>, Cannot> {
    let mut row = None;
    for recorded in events {
        let stored = recorded.stored();
        BackupSchedules::apply(&mut row, read(stored)?, At { id, ..At::of(stored) })?;
    }
    Ok(row.filter(|row: &Row| !row.removed).map(|row| row.schedule))
}
