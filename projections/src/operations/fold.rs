//! How an operation's events become its row and its log lines.

use proximity_domain::operation::{Direction, Event, Finding};
use proximity_domain::plan::Plan;
use proximity_eventstore::Recorded;
use serde::{Deserialize, Serialize};

use super::log::{Line, line};
use super::{Effort, LogLine, Operation, Step};
use crate::cell::{Cell, Column, Table};
use crate::projection::{At, Cannot, Projection, read};
use crate::text::Moment;

/// The projection `operations`.
pub struct Operations;

/// The row: what the API shows, and what only the fold needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub operation: Operation,
    /// Position of its first event: the order of lists.
    born: u64,
    /// Position of its last event: the order of an application's log.
    #[serde(default)]
    reached: u64,
    /// It goes backwards, or did before it got stuck.
    unwinding: bool,
}

impl Projection for Operations {
    const NAME: &'static str = "operations";
    const VERSION: i32 = 3;
    const STREAM: &'static str = "operation";
    const TABLE: Table = Table {
        name: "operations",
        key: Column::text("id"),
        columns: &[
            Column::text("app"),
            Column::integer("owner"),
            Column::text("kind"),
            Column::text("state"),
            Column::text("step"),
            Column::integer("attempt"),
            Column::integer("born"),
            Column::integer("reached"),
            Column::integer("events"),
            Column::text("body"),
        ],
        indexes: &["app, born desc", "owner, born desc", "state, born desc"],
    };
    // The lines of logs, which are told from the log itself now.
    const RETIRED: &'static [&'static str] = &["app_logs"];

    type Event = Event;
    type Row = Row;

    fn apply(row: &mut Option<Row>, event: Event, at: At<'_>) -> Result<(), Cannot> {
        take(row, &event, at)
    }

    fn columns(row: &Row) -> Vec<Cell> {
        let operation = &row.operation;
        vec![
            operation.app.as_str().into(),
            operation.owner.into(),
            operation.kind.as_str().into(),
            operation.state.as_str().into(),
            operation.step.as_deref().into(),
            i64::from(operation.attempt).into(),
            i64::try_from(row.born).unwrap_or(i64::MAX).into(),
            i64::try_from(row.reached).unwrap_or(i64::MAX).into(),
            i64::try_from(operation.version).unwrap_or(i64::MAX).into(),
        ]
    }

    fn is_final(row: &Row) -> bool {
        row.operation.finished_at.is_some()
    }
}

fn take(row: &mut Option<Row>, event: &Event, at: At<'_>) -> Result<(), Cannot> {
    match (row.as_mut(), event) {
        (None, Event::Planned { .. }) => *row = planned(event, at),
        (Some(_), Event::Planned { .. }) => {
            return Err(Cannot(format!("operation {} was planned twice", at.id)));
        }
        (None, _) => return Err(Cannot(format!("operation {} was never planned", at.id))),
        (Some(row), event) => {
            row.change(event, at)?;
            row.operation.version = at.sequence;
            row.operation.updated_at = Moment(at.recorded_at);
            row.reached = at.position;
        }
    }
    Ok(())
}

/// What an operation's events tell its application's owner, a line each, in order.
pub(super) fn lines(events: &[Recorded]) -> Result<Vec<LogLine>, Cannot> {
    let mut row = None;
    let mut lines = Vec::with_capacity(events.len());
    for recorded in events {
        let event: Event = read(recorded.stored())?;
        take(&mut row, &event, At::of(recorded.stored()))?;
        let Some(Row { operation, .. }) = &row else { continue };
        let Line { level, message, step } = line(operation, &event);
        lines.push(LogLine {
            id: i64::try_from(recorded.position).unwrap_or(i64::MAX),
            timestamp: Moment(recorded.recorded_at),
            level: level.to_owned(),
            message,
            step,
        });
    }
    Ok(lines)
}

fn planned(event: &Event, at: At<'_>) -> Option<Row> {
    let Event::Planned { application, owner, plan, steps, deadline } = event else { return None };
    let pending = || Effort { state: "pending".to_owned(), ..Effort::default() };
    let now = Moment(at.recorded_at);
    let mut operation = Operation {
        id: at.id.to_owned(),
        app: application.to_string(),
        kind: plan.kind().as_str().to_owned(),
        owner: owner.0,
        state: "planned".to_owned(),
        host_id: None,
        node: None,
        vmid: None,
        hostname: None,
        steps: steps
            .iter()
            .map(|name| Step { name: name.clone(), act: pending(), compensation: None })
            .collect(),
        step: None,
        attempt: 0,
        reason: None,
        instructions: None,
        cancel_requested: false,
        deadline: Moment(*deadline),
        created_at: now,
        updated_at: now,
        finished_at: None,
        version: at.sequence,
    };
    aim(&mut operation, plan);
    Some(Row { operation, born: at.position, reached: at.position, unwinding: false })
}

/// Shows where the plan leads.
fn aim(operation: &mut Operation, plan: &Plan) {
    let guest = plan.guest();
    operation.host_id = guest.map(|guest| guest.host.0);
    operation.node = guest.map(|guest| guest.node.to_string());
    operation.vmid = guest.map(|guest| guest.vmid.get());
    operation.hostname = match plan {
        Plan::Deploy(plan) => Some(plan.holdings.hostname.to_string()),
        Plan::Delete(plan) => plan.holdings.as_ref().map(|held| held.hostname.to_string()),
        Plan::Clone(plan) => Some(plan.holdings.hostname.to_string()),
        Plan::Adopt(plan) => Some(plan.holdings.hostname.to_string()),
        Plan::Start(_) | Plan::Stop(_) | Plan::Restart(_) => None,
        Plan::Backup(_) | Plan::BackupDelete(_) | Plan::Restore(_) => None,
    };
}

impl Row {
    fn change(&mut self, event: &Event, at: At<'_>) -> Result<(), Cannot> {
        match event {
            // Handled by the caller: it only ever comes first.
            Event::Planned { .. } => {}
            Event::StepIntended { step, direction, attempt, stood: _, site: _ } => {
                let effort = self.effort(step, *direction)?;
                effort.state = "running".to_owned();
                effort.attempts = *attempt;
                effort.retry_at = None;
                effort.started_at.get_or_insert(Moment(at.recorded_at));
                self.operation.step = Some(step.clone());
                self.operation.attempt = *attempt;
                self.go();
            }
            Event::TaskStarted { step, direction, upid } => {
                let effort = self.effort(step, *direction)?;
                if !effort.upids.contains(upid) {
                    effort.upids.push(upid.clone());
                }
            }
            Event::StepSucceeded { step, direction, attempt, found } => {
                let effort = self.effort(step, *direction)?;
                effort.end("succeeded", *attempt, at);
                effort.failure = None;
                effort.found = found.as_ref().map(found_text);
            }
            Event::StepFailed { step, direction, attempt, failure, retry_at } => {
                let state = if retry_at.is_some() { "retrying" } else { "failed" };
                let effort = self.effort(step, *direction)?;
                effort.end(state, *attempt, at);
                effort.failure = Some(failure.message.clone());
                effort.retry_at = retry_at.map(Moment);
            }
            Event::PlanChanged { plan, reason: _ } => aim(&mut self.operation, plan),
            Event::CancelRequested { by: _, reason: _ } => self.operation.cancel_requested = true,
            Event::UnwindingBegan { reason } => {
                self.unwinding = true;
                self.operation.reason = Some(reason.clone());
                self.go();
            }
            Event::Completed => {
                // What it was stuck for was overcome.
                self.operation.reason = None;
                self.finish("done", at);
            }
            Event::Undone { reason } => {
                self.operation.reason = Some(reason.clone());
                self.finish("undone", at);
            }
            Event::Stuck { step, direction, reason, instructions } => {
                self.unwinding = *direction == Direction::Undo;
                let operation = &mut self.operation;
                operation.state = "stuck".to_owned();
                operation.step = Some(step.clone());
                operation.reason = Some(reason.clone());
                operation.instructions = Some(instructions.clone());
            }
            Event::Resumed { by: _, note: _ } => {
                self.operation.instructions = None;
                self.go();
            }
            Event::Abandoned { by: _, note: _ } => {
                self.operation.instructions = None;
                self.finish("abandoned", at);
            }
        }
        Ok(())
    }

    fn go(&mut self) {
        let state = if self.unwinding { "unwinding" } else { "running" };
        state.clone_into(&mut self.operation.state);
    }

    fn finish(&mut self, state: &str, at: At<'_>) {
        state.clone_into(&mut self.operation.state);
        self.operation.finished_at = Some(Moment(at.recorded_at));
    }

    fn effort(&mut self, step: &str, direction: Direction) -> Result<&mut Effort, Cannot> {
        let found = self.operation.steps.iter_mut().find(|known| known.name == step);
        let step = found.ok_or_else(|| Cannot(format!("step {step:?} is not in the plan")))?;
        Ok(match direction {
            Direction::Act => &mut step.act,
            Direction::Undo => step.compensation.get_or_insert_default(),
        })
    }
}

impl Effort {
    fn end(&mut self, state: &str, attempt: u32, at: At<'_>) {
        state.clone_into(&mut self.state);
        self.attempts = attempt;
        self.finished_at = Some(Moment(at.recorded_at));
        self.duration_ms =
            self.started_at.map(|started| (at.recorded_at - started.0).max(0) / 1_000);
    }
}

fn found_text(found: &Finding) -> String {
    match found {
        Finding::Archive { volume, digest: Some(digest) } => format!("{volume} ({digest})"),
        Finding::Archive { volume, digest: None } => volume.clone(),
        Finding::Backup(archive) => archive.volume.clone(),
        Finding::Address(address) => address.to_string(),
    }
}
