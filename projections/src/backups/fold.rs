//! How a backup's events become its row.

use proximity_domain::backup::{Event, Requested};
use proximity_domain::plan::Kind;
use serde::{Deserialize, Serialize};

use super::{Backup, GIBIBYTE, MEBIBYTE, in_units};
use crate::cell::{Cell, Column, Table};
use crate::projection::{At, Cannot, Projection};
use crate::text::Moment;

/// The projection `backups`.
pub struct Backups;

/// The row: what the API shows, and what only the fold and the queries need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub backup: Backup,
    /// It could not be made.
    failed: bool,
    removed: bool,
}

impl Projection for Backups {
    const NAME: &'static str = "backups";
    const VERSION: i32 = 2;
    const STREAM: &'static str = "backup";
    const TABLE: Table = Table {
        name: "backups",
        key: Column::text("id"),
        columns: &[
            Column::integer("number"),
            Column::integer("owner"),
            Column::text("application"),
            Column::text("status"),
            Column::integer("size"),
            Column::integer("removed"),
            Column::text("body"),
        ],
        indexes: &["application, removed, number desc", "owner, removed, number desc"],
    };

    type Event = Event;
    type Row = Row;

    fn apply(row: &mut Option<Row>, event: Event, at: At<'_>) -> Result<(), Cannot> {
        match (row.as_mut(), event) {
            (None, Event::Requested(requested)) => *row = Some(requested_row(&requested, at)?),
            (Some(_), Event::Requested(_)) => {
                return Err(Cannot(format!("backup {} was requested twice", at.id)));
            }
            (None, _) => return Err(Cannot(format!("backup {} was never requested", at.id))),
            (Some(row), event) => {
                row.change(event, at);
                row.backup.updated_at = Moment(at.recorded_at);
            }
        }
        Ok(())
    }

    fn columns(row: &Row) -> Vec<Cell> {
        let backup = &row.backup;
        vec![
            backup.id.into(),
            backup.owner.into(),
            backup.application_id.as_str().into(),
            backup.status.as_str().into(),
            backup.size.map_or(0, |size| i64::try_from(size).unwrap_or(i64::MAX)).into(),
            row.removed.into(),
        ]
    }

    fn is_final(row: &Row) -> bool {
        row.removed
    }
}

impl Row {
    fn change(&mut self, event: Event, at: At<'_>) {
        match event {
            // Handled by the caller: it only ever comes first.
            Event::Requested(_) => {}
            Event::Completed { operation: _, archive } => {
                let backup = &mut self.backup;
                let file = archive.volume.rsplit(['/', ':']).next().unwrap_or_default();
                file.clone_into(&mut backup.file_name);
                backup.size = archive.size;
                backup.size_mb = archive.size.map(|size| in_units(size, MEBIBYTE));
                backup.size_gb = archive.size.map(|size| in_units(size, GIBIBYTE));
                archive.mode.as_str().clone_into(&mut backup.backup_type);
                backup.completed_at = Some(Moment(at.recorded_at));
                self.rest(None);
            }
            Event::Failed { operation: _, problem, absent: _ } => {
                self.failed = true;
                self.rest(Some(problem));
            }
            Event::OperationBegan { operation, kind } => {
                let status = if kind == Kind::BackupDelete { "deleting" } else { "restoring" };
                status.clone_into(&mut self.backup.status);
                self.backup.is_in_progress = true;
                self.backup.operation = Some(operation.to_string());
            }
            Event::OperationEnded { operation: _, problem } => self.rest(problem),
            Event::Deleted { operation: _ } => {
                self.removed = true;
                self.rest(None);
            }
        }
    }

    /// No operation works on it any more.
    fn rest(&mut self, problem: Option<String>) {
        let status = if self.failed { "failed" } else { "completed" };
        status.clone_into(&mut self.backup.status);
        self.backup.is_completed = !self.failed;
        self.backup.is_in_progress = false;
        self.backup.operation = None;
        if problem.is_some() || !self.failed {
            self.backup.error_message = problem;
        }
    }
}

fn requested_row(requested: &Requested, at: At<'_>) -> Result<Row, Cannot> {
    let id = at.id.parse().map_err(|_| Cannot(format!("{:?} is no backup id", at.id)))?;
    let now = Moment(at.recorded_at);
    let mode = requested.mode.as_str().to_owned();
    let backup = Backup {
        id,
        application_id: requested.application.to_string(),
        owner: requested.owner.0,
        schedule_id: requested.scheduled.map(|scheduled| scheduled.schedule.0),
        file_name: String::new(),
        storage_name: requested.storage.clone(),
        size: None,
        size_mb: None,
        size_gb: None,
        backup_type: mode.clone(),
        requested_type: mode,
        compression: requested.compression.as_str().to_owned(),
        status: "creating".to_owned(),
        error_message: None,
        created_at: now,
        updated_at: now,
        completed_at: None,
        is_completed: false,
        is_in_progress: true,
        operation: Some(requested.operation.to_string()),
    };
    Ok(Row { backup, failed: false, removed: false })
}
