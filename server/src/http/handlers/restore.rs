//! After a restoration from a backup: what differs, and the word that lets the program act again.

use proximity_commands::policy::Admin;

use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::restore::{self, RestoreStatus};

/// What a restored installation found different, and what it would go on with. Nothing is done by
/// itself before `confirm`.
#[utoipa::path(get, path = "/api/core/restore", tag = "core", responses((status = 200, description = "How it stands", body = RestoreStatus)))]
pub async fn status(call: Call) -> Result<Reply, Problem> {
    Admin::prove(&call.actor)?;
    Reply::json(&found(&call).await?)
}

/// Lets a restored installation act again.
#[utoipa::path(post, path = "/api/core/restore/confirm", tag = "core", responses((status = 200, description = "It acts again", body = RestoreStatus)))]
pub async fn confirm(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let position = call.app.restoration.confirm(&admin).await?;
    call.app.seen(position).await;
    Ok(Reply::json(&found(&call).await?)?.at(Some(position)))
}

async fn found(call: &Call) -> Result<RestoreStatus, Problem> {
    restore::status(&call.app.store, &call.app.views).await.map_err(|error| {
        tracing::error!(error = format!("{error:#}"), "the restoration's state cannot be read");
        Problem::internal()
    })
}
