//! The read model of operations, and the log lines that a person reads about them.

mod fold;
mod log;
mod query;

pub use fold::Operations;
pub use query::OperationFilter;

use proximity_eventstore::Recorded;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::applications::past;
use crate::projection::Cannot;
use crate::text::Moment;

/// The operation after these events; `None` when it had not been planned.
pub fn after(id: &str, events: &[Recorded]) -> Result<Option<Operation>, Cannot> {
    Ok(past::fold::<Operations>(id, events)?.map(|row| row.operation))
}

/// An operation as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// A UUID.
    pub id: String,
    /// The application's id.
    pub app: String,
    /// `deploy`, `delete`, `start`, `stop` or `restart`.
    pub kind: String,
    /// The user id of the application's owner.
    pub owner: i64,
    /// `planned`, `running`, `unwinding`, `done`, `undone`, `stuck` or `abandoned`.
    pub state: String,
    /// The registered host that its guest is on.
    pub host_id: Option<i64>,
    /// The node that its guest is on.
    pub node: Option<String>,
    /// The guest's number.
    pub vmid: Option<u32>,
    /// The application's host name.
    pub hostname: Option<String>,
    /// In order.
    pub steps: Vec<Step>,
    /// The step that was begun last.
    pub step: Option<String>,
    /// 1 for the first attempt at it.
    pub attempt: u32,
    /// Why it unwinds, was undone or is stuck.
    pub reason: Option<String>,
    /// What an operator has to do about a stuck one.
    pub instructions: Option<String>,
    /// Whether someone asked it to unwind.
    pub cancel_requested: bool,
    /// RFC 3339; past it the operation is asked to unwind.
    #[schema(value_type = String)]
    pub deadline: Moment,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub created_at: Moment,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub updated_at: Moment,
    /// RFC 3339; null while it is not over.
    #[schema(value_type = Option<String>)]
    pub finished_at: Option<Moment>,
    /// How many events it has; the entity tag.
    pub version: u64,
}

impl Operation {
    /// As it is shown to whose application it copies for somebody else: how far it is, and of the copy no
    /// more than its id.
    #[must_use]
    pub fn from_outside(mut self) -> Self {
        (self.host_id, self.node, self.vmid, self.hostname) = (None, None, None, None);
        self.reason = None;
        let act = "an administrator has to resume it or give it up";
        self.instructions = self.instructions.map(|_| act.to_owned());
        for step in &mut self.steps {
            for effort in std::iter::once(&mut step.act).chain(&mut step.compensation) {
                effort.upids.clear();
                (effort.failure, effort.found) = (None, None);
            }
        }
        self
    }
}

/// One step of an operation, and its compensation if it came to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// What it makes sure of.
    pub name: String,
    #[serde(flatten)]
    pub act: Effort,
    /// Taking it back; null while it was not needed.
    pub compensation: Option<Effort>,
}

/// What was done for a step, or to take it back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Effort {
    /// `pending`, `running`, `retrying`, `succeeded` or `failed`.
    pub state: String,
    /// How often it was tried.
    pub attempts: u32,
    /// RFC 3339, of the first attempt.
    #[schema(value_type = Option<String>)]
    pub started_at: Option<Moment>,
    /// RFC 3339, of the last outcome.
    #[schema(value_type = Option<String>)]
    pub finished_at: Option<Moment>,
    /// From the first attempt to the last outcome.
    pub duration_ms: Option<i64>,
    /// Proxmox task ids.
    pub upids: Vec<String>,
    /// What the last failed attempt said.
    pub failure: Option<String>,
    /// RFC 3339 of the next attempt.
    #[schema(value_type = Option<String>)]
    pub retry_at: Option<Moment>,
    /// What it learnt: an archive or an address.
    pub found: Option<String>,
}

/// One line about an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LogLine {
    /// The event's position in the log.
    pub id: i64,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub timestamp: Moment,
    /// `INFO`, `WARNING`, `ERROR` or `SUCCESS`.
    pub level: String,
    /// A sentence.
    pub message: String,
    /// The step that it is about.
    pub step: Option<String>,
}
