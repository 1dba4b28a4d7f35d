//! Operations: what is being carried out, and what can be done about it.

use proximity_commands::policy::{Admin, Concerned};
use proximity_projections::Operation;
use proximity_projections::operations::OperationFilter;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::page::Paging;
use crate::app::unavailable;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::query;
use crate::http::reply::Reply;

/// Characters of a note.
const NOTE: usize = 1_000;

/// A page of operations.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperationList {
    /// Newest first.
    pub operations: Vec<Operation>,
    /// How many there are in all.
    pub total: u64,
    /// This page, from 1.
    pub page: u32,
    /// How many a page has.
    pub per_page: u32,
}

/// How an operation can stand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    Planned,
    Running,
    Unwinding,
    Done,
    Undone,
    Stuck,
    Abandoned,
}

/// Which operations are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OperationsWanted {
    /// Only those in this state.
    #[param(inline, value_type = Option<OperationState>)]
    pub state: Option<String>,
    /// Only those of this application, and the one that has reserved it to copy it.
    pub app: Option<String>,
}

/// Why something is done.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Note {
    /// One line of at most 1000 characters; it stands in the log for ever.
    #[serde(default, alias = "reason")]
    pub note: String,
}

impl Note {
    fn checked(self) -> Result<String, Problem> {
        if self.note.chars().count() > NOTE {
            let detail = format!("a note has at most {NOTE} characters");
            return Err(Problem::field("/note", "note.invalid", detail));
        }
        if query::has_controls(&self.note) {
            let detail = "a note is one line, without control characters";
            return Err(Problem::field("/note", "note.invalid", detail));
        }
        Ok(self.note)
    }
}

/// The proof that the caller may see what the path names, and take it back: 404 for everybody else.
pub(in crate::http) async fn concerned(call: &Call) -> Result<Concerned, Problem> {
    let id: String = call.param("id")?;
    Ok(Concerned::prove_text(&call.app.store, &call.actor, &id).await?)
}

async fn row(call: &Call, operation: &Concerned) -> Result<Operation, Problem> {
    let found = call.app.views.operation(&operation.id().to_string()).await.map_err(unavailable)?;
    let found = found.ok_or_else(Problem::not_found)?;
    Ok(if operation.sees_all() { found } else { found.from_outside() })
}

/// The caller's operations; an administrator's list shows all. With `app`, the one that copies that
/// application for somebody else is among them while it runs or is stuck: how far it is, and of the copy
/// only its id.
#[utoipa::path(get, path = "/api/operations", tag = "operations", params(Paging, OperationsWanted), responses((status = 200, description = "A page of them", body = OperationList)))]
pub async fn list(call: Call) -> Result<Reply, Problem> {
    let (page, per_page) = call.query::<Paging>()?.checked()?;
    let wanted: OperationsWanted = call.query()?;
    let state = query::word::<OperationState>("state", wanted.state)?;
    let filter = OperationFilter { owner: call.only_of(), state, app: wanted.app };
    let found = call.app.views.operations(&filter, page, per_page).await.map_err(unavailable)?;
    let is_own = |one: &Operation| filter.owner.is_none_or(|owner| owner == one.owner);
    let shown = |one: Operation| if is_own(&one) { one } else { one.from_outside() };
    let operations = found.items.into_iter().map(shown).collect();
    Reply::json(&OperationList { operations, total: found.total, page, per_page })
}

/// One operation with its steps, attempts, timings and Proxmox tasks. Whose application it copies for
/// somebody else sees how far it is, and of the copy only its id.
#[utoipa::path(get, path = "/api/operations/{id}", tag = "operations", params(("id" = String, Path, description = "The operation's id")), responses((status = 200, description = "The operation", body = Operation)))]
pub async fn get(call: Call) -> Result<Reply, Problem> {
    let operation = concerned(&call).await?;
    Ok(Reply::json(&row(&call, &operation).await?)?.tagged())
}

/// Lets a stuck operation go on.
#[utoipa::path(post, path = "/api/operations/{id}/resume", tag = "operations", params(("id" = String, Path, description = "The operation's id")), request_body(content = Note, description = "May be left out"), responses((status = 202, description = "It goes on", body = Operation)))]
pub async fn resume(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let operation = concerned(&call).await?;
    let note = call.json_or_default::<Note>()?.checked()?;
    let operations = &call.app.commands.operations;
    unchanged(&call, &operation).await?;
    let done = operations.resume(&admin, *operation.id(), note).await?;
    answer(&call, &operation, done.position).await
}

/// Asks an operation to turn back and take away what it made. Whose application it copies for somebody
/// else may ask for that, too.
#[utoipa::path(post, path = "/api/operations/{id}/cancel", tag = "operations", params(("id" = String, Path, description = "The operation's id")), request_body(content = Note, description = "May be left out"), responses((status = 202, description = "It turns back at its next step", body = Operation)))]
pub async fn cancel(call: Call) -> Result<Reply, Problem> {
    let operation = concerned(&call).await?;
    let note = call.json_or_default::<Note>()?.checked()?;
    let operations = &call.app.commands.operations;
    unchanged(&call, &operation).await?;
    let done = operations.cancel(&operation, note).await?;
    answer(&call, &operation, done.position).await
}

/// Gives a stuck operation up; what cannot be proved gone is put in quarantine.
#[utoipa::path(post, path = "/api/operations/{id}/abandon", tag = "operations", params(("id" = String, Path, description = "The operation's id")), request_body = Note, responses((status = 202, description = "It is over", body = Operation)))]
pub async fn abandon(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let operation = concerned(&call).await?;
    let note = call.json::<Note>()?.checked()?;
    if note.trim().is_empty() {
        return Err(Problem::field("/note", "note.invalid", "say in a note why it is given up"));
    }
    let operations = &call.app.commands.operations;
    unchanged(&call, &operation).await?;
    let done = operations.abandon(&admin, *operation.id(), note).await?;
    answer(&call, &operation, done.position).await
}

async fn unchanged(call: &Call, operation: &Concerned) -> Result<(), Problem> {
    call.unchanged_since(async || Reply::json(&row(call, operation).await?)).await
}

async fn answer(call: &Call, operation: &Concerned, position: u64) -> Result<Reply, Problem> {
    call.app.seen(position).await;
    Ok(Reply::accepted(&row(call, operation).await?)?.at(position))
}
