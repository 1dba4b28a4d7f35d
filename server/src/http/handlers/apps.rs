//! Applications: listed, deployed, looked at, acted upon.

use proximity_commands::applications::{Accepted, Action, DeployRequest};
use proximity_commands::once::Done;
use proximity_commands::policy::Owned;
use proximity_domain::ApplicationId;
use proximity_projections::applications::Filter;
use proximity_projections::{App, LogLine};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::page::{Paging, within};
use super::{past, ports, usage};
use crate::app::unavailable;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::query;
use crate::http::reply::{Reply, StatusCode};
use crate::publish;

/// A page of applications.
#[derive(Debug, Serialize, ToSchema)]
pub struct Apps {
    /// Newest first.
    pub apps: Vec<App>,
    /// How many there are in all.
    pub total: u64,
    /// This page, from 1.
    pub page: u32,
    /// How many a page has.
    pub per_page: u32,
}

/// How an application can stand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AppStatus {
    Deploying,
    Cloning,
    Adopting,
    Running,
    Stopped,
    Updating,
    Removing,
    Error,
}

/// Which applications are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AppsWanted {
    /// Only those with this status.
    #[param(inline, value_type = Option<AppStatus>)]
    pub status: Option<String>,
    /// A part of the name or hostname, in any case.
    pub search: Option<String>,
}

/// What is to be deployed.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateApp {
    /// The catalog entry.
    #[serde(alias = "catalog_app_id")]
    #[schema(example = "nginx")]
    pub catalog_id: String,
    /// One label of RFC 1123; nobody else may have it.
    #[schema(example = "web-01")]
    pub hostname: String,
    /// Values of the entry's parameters, by name.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub config: Option<Map<String, Value>>,
    /// Values beside the parameters; each is treated as a secret.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub environment: Option<Map<String, Value>>,
    /// The node; by default the one with the most free memory.
    #[serde(default)]
    pub node: Option<String>,
    /// Accepted for old clients and not used: ports are leased by the server. An object of port to
    /// port, each from 1 to 65535.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, u16>>)]
    pub ports: Option<Value>,
    /// The registered host; by default the default one.
    #[serde(default)]
    pub host_id: Option<i64>,
}

/// What is to be done.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ActionWanted {
    /// `start`, `stop`, `restart` or `delete`, in any case.
    #[schema(example = "stop")]
    pub action: String,
    /// Do not wait for a graceful end.
    #[serde(default)]
    pub force: bool,
}

/// What was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActionAccepted {
    /// Always true: whatever is refused answers with a problem.
    pub success: bool,
    /// A sentence for a person.
    pub message: String,
    /// The operation that carries it out; null when it was so already.
    pub operation: Option<String>,
}

/// Log lines of an application.
#[derive(Debug, Serialize, ToSchema)]
pub struct Logs {
    /// The application.
    pub app_id: String,
    /// Newest first.
    pub logs: Vec<LogLine>,
    /// How many there are in all.
    pub total: u64,
}

/// How many lines are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogsWanted {
    /// 1 to 1000.
    pub limit: Option<i64>,
    /// The same under its old name.
    pub tail: Option<i64>,
}

/// The application without its figures, which change without anybody changing it.
fn still(call: &Call, mut app: App) -> App {
    let config = &call.app.config.publish;
    publish::fill(&mut app, config, &call.app.published, Some(&call.host));
    app
}

fn shown(call: &Call, app: App) -> App {
    let mut app = still(call, app);
    usage::fill(call, &mut app);
    app
}

/// The proof that the caller may see and change what the path names: 404 for everybody else.
pub(in crate::http) async fn owned(call: &Call) -> Result<Owned<ApplicationId>, Problem> {
    let id: String = call.param("id")?;
    Ok(Owned::prove_text(&call.app.store, &call.actor, &id).await?)
}

async fn row(call: &Call, id: &ApplicationId) -> Result<App, Problem> {
    let found = call.app.views.app(id.as_str(), false).await.map_err(unavailable)?;
    found.map(|app| still(call, app)).ok_or_else(Problem::not_found)
}

/// Refuses when `If-Match` names another state of the application than the present one.
pub(super) async fn unchanged(call: &Call, owned: &Owned<ApplicationId>) -> Result<(), Problem> {
    call.unchanged_since(async || Reply::json(&row(call, owned.id()).await?)).await
}

/// The caller's applications; an administrator's list shows all.
#[utoipa::path(get, path = "/api/apps", tag = "apps", params(Paging, AppsWanted), responses((status = 200, description = "A page of them", body = Apps)))]
pub async fn list(call: Call) -> Result<Reply, Problem> {
    let (page, per_page) = call.query::<Paging>()?.checked()?;
    let wanted: AppsWanted = call.query()?;
    let filter = Filter {
        owner: call.only_of(),
        status: query::word::<AppStatus>("status", wanted.status)?,
        search: wanted.search,
        host: None,
    };
    let found = call.app.views.apps(&filter, page, per_page).await.map_err(unavailable)?;
    let apps = found.items.into_iter().map(|app| shown(&call, app)).collect();
    Reply::json(&Apps { apps, total: found.total, page, per_page })
}

/// Accepts the wish; an operation fulfils it.
#[utoipa::path(post, path = "/api/apps", tag = "apps", request_body = CreateApp, responses((status = 202, description = "The application in `deploying`; `Location` names its operation", body = App)))]
pub async fn create(call: Call) -> Result<Reply, Problem> {
    let body: CreateApp = call.json()?;
    ports::check(body.ports.as_ref())?;
    let request = DeployRequest {
        catalog_id: body.catalog_id,
        hostname: body.hostname,
        config: body.config.unwrap_or_default(),
        environment: body.environment.unwrap_or_default(),
        node: body.node,
        host_id: body.host_id,
    };
    let key = call.once();
    let done = call.app.commands.applications.deploy(&call.actor, &request, key.as_ref()).await?;
    accepted(&call, done, &request.hostname).await
}

async fn accepted(call: &Call, done: Done<Accepted>, hostname: &str) -> Result<Reply, Problem> {
    call.app.seen(done.position).await;
    let Accepted { application, operation } = done.value;
    let found = call.app.views.app(application.as_str(), true).await.map_err(unavailable)?;
    let reply = match found {
        Some(app) => Reply::accepted(&shown(call, app))?,
        // The views stand still: what is known without them.
        None => Reply::accepted(&json!({
            "id": application, "hostname": hostname.to_ascii_lowercase(), "status": "deploying",
        }))?,
    };
    let reply = match operation {
        Some(operation) => reply.location(format!("/api/operations/{operation}")),
        None => reply,
    };
    Ok(reply.at(done.position))
}

/// Which moment is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AtWanted {
    /// As it was then: a position of the log, or a moment (RFC 3339), which is where the log's last event
    /// stands that is not later. Once the log was restored from a backup, a position with its incarnation
    /// (`<incarnation>.<position>`). An application that is gone by now can be seen so, too. Its figures,
    /// `url` and `iframe_url` of that time are not known.
    pub at: Option<String>,
}

/// One application.
#[utoipa::path(get, path = "/api/apps/{id}", tag = "apps", params(("id" = String, Path, description = "The application's id"), AtWanted), responses((status = 200, description = "The application", body = App)))]
pub async fn get(call: Call) -> Result<Reply, Problem> {
    if let Some(at) = call.query::<AtWanted>()?.at {
        return past::shown(&call, &at).await;
    }
    let owned = owned(&call).await?;
    let mut app = row(&call, owned.id()).await?;
    let state = Reply::json(&app)?;
    usage::fill(&call, &mut app);
    Ok(Reply::json(&app)?.tagged_as(&state))
}

/// Starts, stops, restarts or deletes it.
#[utoipa::path(post, path = "/api/apps/{id}/action", tag = "apps", params(("id" = String, Path, description = "The application's id")), request_body = ActionWanted, responses((status = 202, description = "An operation does it", body = ActionAccepted), (status = 200, description = "It was so already", body = ActionAccepted)))]
pub async fn action(call: Call) -> Result<Reply, Problem> {
    let owned = owned(&call).await?;
    let wanted: ActionWanted = call.json()?;
    let action: Action = wanted.action.parse().map_err(|_| {
        Problem::field("/action", "action.unknown", "an action is start, stop, restart or delete")
    })?;
    act(&call, &owned, action, wanted.force).await
}

/// Deletes it: the same as the action `delete`.
#[utoipa::path(delete, path = "/api/apps/{id}", tag = "apps", params(("id" = String, Path, description = "The application's id")), responses((status = 202, description = "An operation does it", body = ActionAccepted)))]
pub async fn delete(call: Call) -> Result<Reply, Problem> {
    let owned = owned(&call).await?;
    act(&call, &owned, Action::Delete, false).await
}

async fn act(
    call: &Call,
    owned: &Owned<ApplicationId>,
    action: Action,
    force: bool,
) -> Result<Reply, Problem> {
    unchanged(call, owned).await?;
    let key = call.once();
    let done = call.app.commands.applications.act(owned, action, force, key.as_ref()).await?;
    call.app.seen(done.position).await;
    let message = match action {
        Action::Start => "The application will be started",
        Action::Stop => "The application will be stopped",
        Action::Restart => "The application will be restarted",
        Action::Delete => "The application will be deleted",
    };
    let operation = done.value.operation.map(|operation| operation.to_string());
    let message = match &operation {
        Some(_) => message,
        None => "Nothing to do: it is so already",
    };
    let status = match &operation {
        Some(_) => StatusCode::ACCEPTED,
        None => StatusCode::OK,
    };
    let mut reply = Reply::json(&ActionAccepted {
        success: true,
        message: message.to_owned(),
        operation: operation.clone(),
    })?
    .status(status)
    .at(done.position);
    if let Some(operation) = operation {
        reply = reply.location(format!("/api/operations/{operation}"));
    }
    Ok(reply)
}

/// What was done for it, line by line.
#[utoipa::path(get, path = "/api/apps/{id}/logs", tag = "apps", params(("id" = String, Path, description = "The application's id"), LogsWanted), responses((status = 200, description = "Its log lines", body = Logs)))]
pub async fn logs(call: Call) -> Result<Reply, Problem> {
    let owned = owned(&call).await?;
    let wanted: LogsWanted = call.query()?;
    let tail = within("tail", wanted.tail, 50, 1, 1_000)?;
    let limit = within("limit", wanted.limit, tail, 1, 1_000)?;
    let app = row(&call, owned.id()).await?;
    let found = call.app.views.app_logs(&app.id, limit).await.map_err(unavailable)?;
    Reply::json(&Logs { app_id: app.id, logs: found.items, total: found.total })
}
