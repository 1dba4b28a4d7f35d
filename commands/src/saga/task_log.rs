//! The end of a task's log, kept beside the operation: Proxmox forgets its tasks after a while.
//!
//! It is written in the append of the step's outcome. It is no event, since its text is not ours: what
//! looks like a secret is taken out, and what was missed can still be deleted.

use proximity_domain::OperationId;
use proximity_domain::operation::Direction;
use proximity_eventstore::{SideWrite, Store, Value, tables};

use super::tasks::Ended;
use super::work::Work;
use crate::clock::Micros;
use crate::error::Error;
use crate::ports::Upid;
use crate::redact;
use crate::rows::{Columns, text, unreadable};

/// Lines that are kept of one task.
const LINES: u32 = 50;
/// Characters that are kept of one line.
const WIDTH: usize = 500;
/// Tasks of one operation that are read at once.
const TASKS: usize = 1_000;

/// How a task ended, and the end of what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskLog {
    pub upid: String,
    pub step: String,
    /// `act` or `undo`.
    pub direction: String,
    /// `OK`, what Proxmox said instead, or `unknown`.
    pub outcome: String,
    pub lines: Vec<String>,
    /// µs since 1970.
    pub recorded_at: i64,
}

/// What is kept of an operation's tasks, in the order in which they ended.
pub async fn of_operation(store: &Store, operation: &str) -> Result<Vec<TaskLog>, Error> {
    let filter = vec![("operation", text(operation))];
    let rows = store.rows(&tables::TASK_LOGS, filter, TASKS).await.map_err(unreadable)?;
    let mut logs = rows
        .into_iter()
        .map(Columns)
        .map(|row| {
            let lines = serde_json::from_str(row.text("lines")?)
                .map_err(|error| Error::internal("a kept log cannot be read", error))?;
            Ok(TaskLog {
                upid: row.text("upid")?.to_owned(),
                step: row.text("step")?.to_owned(),
                direction: row.text("direction")?.to_owned(),
                outcome: row.text("outcome")?.to_owned(),
                lines,
                recorded_at: row.integer("recorded_at")?,
            })
        })
        .collect::<Result<Vec<TaskLog>, Error>>()?;
    logs.sort_by_key(|log| log.recorded_at);
    Ok(logs)
}

impl Work<'_> {
    /// Reads the end of a task's log, to be stored with the step's outcome. A log that cannot be read
    /// is no reason to take the step for failed.
    pub(super) async fn keep_log(&self, upid: &Upid, ended: &Ended) {
        let mut lines = match self.hypervisor.task_log(upid, LINES).await {
            Ok(lines) => lines,
            Err(error) => vec![format!("(its log cannot be read: {error})")],
        };
        let first = lines.len().saturating_sub(LINES as usize);
        let lines = lines.drain(first..).map(|line| kept(&line)).collect();
        let outcome = match ended {
            Ended::Well => "OK".to_owned(),
            Ended::Badly(said) => kept(said),
            Ended::Unknown => "unknown".to_owned(),
        };
        let log = TaskLog {
            upid: upid.0.clone(),
            step: self.step.to_owned(),
            direction: match self.direction {
                Direction::Act => "act",
                Direction::Undo => "undo",
            }
            .to_owned(),
            outcome,
            lines,
            recorded_at: self.env.clock.now(),
        };
        self.logs.lock().await.push(log);
    }
}

/// The row of a log.
pub(super) fn row(operation: OperationId, log: &TaskLog) -> SideWrite {
    let lines = serde_json::Value::from(log.lines.clone()).to_string();
    let at: Micros = log.recorded_at;
    SideWrite::Upsert {
        table: &tables::TASK_LOGS,
        row: vec![
            ("operation", text(operation)),
            ("upid", text(&log.upid)),
            ("step", text(&log.step)),
            ("direction", text(&log.direction)),
            ("outcome", text(&log.outcome)),
            ("lines", text(lines)),
            ("recorded_at", Value::Integer(at)),
        ],
    }
}

/// A line without what looks like a secret, and not longer than is kept.
fn kept(line: &str) -> String {
    let kept = redact::without_secrets(line);
    if kept.chars().count() > WIDTH {
        return kept.chars().take(WIDTH).chain(['…']).collect();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_kept_without_secrets_and_not_longer_than_is_kept() {
        assert_eq!(kept("run --password=hunter2"), "run --password=[redacted]");
        assert_eq!(kept(&"x".repeat(2_000)).chars().count(), WIDTH + 1);
    }
}
