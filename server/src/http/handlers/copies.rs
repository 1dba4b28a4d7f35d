//! Applications from containers that are there already: clones, and adoptions of strangers'.

use proximity_commands::applications::{AdoptRequest, CloneRequest, Discovered as Seen};
use proximity_commands::policy::{Admin, Owned};
use proximity_domain::{ApplicationId, HostId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::apps;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// How a copy is wanted.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CloneWanted {
    /// One label of RFC 1123; nobody else may have it.
    #[schema(example = "web-02")]
    pub new_hostname: String,
    /// Stop the application for the time of the copy when its storage has no snapshots.
    #[serde(default)]
    pub allow_downtime: bool,
}

/// A copy that an operation makes.
#[derive(Debug, Serialize, ToSchema)]
pub struct CloneAccepted {
    /// Always true: whatever is refused answers with a problem.
    pub success: bool,
    /// A sentence for a person.
    pub message: String,
    /// The application that is copied.
    pub source_app_id: String,
    /// The copy's hostname, folded.
    pub new_hostname: String,
    /// The copy.
    pub id: String,
    /// The operation that makes it.
    pub operation: Option<String>,
}

/// Which containers are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiscoverWanted {
    /// Only those of this host; by default of all active ones.
    pub host_id: Option<i64>,
}

/// A container that can be adopted.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiscoveredContainer {
    /// Its number.
    pub vmid: u32,
    /// Its hostname; null when it has none.
    pub name: Option<String>,
    /// `running`, `stopped` or `unknown`.
    pub status: String,
    /// Where it is.
    pub node: String,
    /// Bytes of memory that it may use; null when not known.
    pub memory: Option<u64>,
    /// Bytes of its root disk; null when not known.
    pub disk: Option<u64>,
    /// Seconds; null when not known.
    pub uptime: Option<i64>,
    /// Cores that it may use; null when not known.
    pub cpus: Option<f64>,
    /// The registered host.
    pub host_id: i64,
}

/// Which container is to be adopted, and as what.
#[derive(Debug, Deserialize, ToSchema)]
pub struct AdoptWanted {
    /// Its number.
    #[schema(example = 104)]
    pub vmid: i64,
    /// Where it is.
    #[schema(example = "pve1")]
    pub node_name: String,
    /// The registered host; needed when several have a node of this name.
    #[serde(default)]
    pub host_id: Option<i64>,
    /// A catalog id, or `custom`.
    #[serde(default)]
    #[schema(example = "custom")]
    pub suggested_type: Option<String>,
    /// The port on which it serves; it keeps it.
    #[serde(default)]
    pub port_to_expose: Option<i64>,
    /// By default the container's own name.
    #[serde(default)]
    pub hostname: Option<String>,
}

/// An adoption that an operation carries out.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdoptAccepted {
    /// Always true: whatever is refused answers with a problem.
    pub success: bool,
    /// A sentence for a person.
    pub message: String,
    /// The container.
    pub vmid: u32,
    /// Its node.
    pub node: String,
    /// What it is adopted as.
    #[serde(rename = "type")]
    pub kind: String,
    /// `manual` when a port was named, `none` when there is none: ports are not looked for.
    pub port_detection: String,
    /// The application.
    pub id: String,
    /// The operation that marks it.
    pub operation: Option<String>,
}

/// Copies an application for the caller.
///
/// A copy of a running application runs, one of a stopped application is stopped. It has a hostname,
/// a number, ports and an address of its own; its source is busy meanwhile and goes on as before.
#[utoipa::path(post, path = "/api/apps/{id}/clone", tag = "apps", params(("id" = String, Path, description = "The application's id")), request_body = CloneWanted, responses((status = 202, description = "An operation makes the copy", body = CloneAccepted)))]
pub async fn clone(call: Call) -> Result<Reply, Problem> {
    let id: String = call.param("id")?;
    let owned = Owned::<ApplicationId>::prove_text(&call.app.store, &call.actor, &id).await?;
    let wanted: CloneWanted = call.json()?;
    apps::unchanged(&call, &owned).await?;
    let request =
        CloneRequest { new_hostname: wanted.new_hostname, allow_downtime: wanted.allow_downtime };
    let key = call.once();
    let applications = &call.app.commands.applications;
    let done = applications.clone_application(&owned, &request, key.as_ref()).await?;
    call.app.seen(done.position).await;
    let operation = done.value.operation.map(|operation| operation.to_string());
    let name = request.new_hostname.strip_suffix('.').unwrap_or(&request.new_hostname);
    let reply = Reply::accepted(&CloneAccepted {
        success: true,
        message: "The application will be copied".to_owned(),
        source_app_id: id,
        new_hostname: name.to_ascii_lowercase(),
        id: done.value.application.to_string(),
        operation: operation.clone(),
    })?
    .at(done.position);
    Ok(located(reply, operation))
}

/// Containers on the registered hosts that no application has.
///
/// A host that does not answer, or does not show all of its containers, is a problem that names it.
#[utoipa::path(get, path = "/api/apps/discover", tag = "apps", params(DiscoverWanted), responses((status = 200, description = "All of them", body = Vec<DiscoveredContainer>)))]
pub async fn discover(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let wanted: DiscoverWanted = call.query()?;
    let host = wanted.host_id.map(HostId);
    let found = call.app.commands.applications.discover(&admin, host).await;
    let found = found.map_err(|error| Problem::for_admin(&admin, error))?;
    let found: Vec<DiscoveredContainer> = found.into_iter().map(shown).collect();
    Reply::json(&found)
}

/// Takes a container that someone else made; the caller owns it from then on.
///
/// Only our marker is added to its notes. Deleting the application gives it back as it is.
#[utoipa::path(post, path = "/api/apps/adopt", tag = "apps", request_body = AdoptWanted, responses((status = 202, description = "An operation marks it", body = AdoptAccepted)))]
pub async fn adopt(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let wanted: AdoptWanted = call.json()?;
    let has_port = wanted.port_to_expose.is_some();
    let request = AdoptRequest {
        vmid: wanted.vmid,
        node_name: wanted.node_name,
        host_id: wanted.host_id,
        suggested_type: wanted.suggested_type,
        port_to_expose: wanted.port_to_expose,
        hostname: wanted.hostname,
    };
    let key = call.once();
    let adopting = call.app.commands.applications.adopt(&admin, &request, key.as_ref()).await?;
    let done = adopting.accepted;
    call.app.seen(done.position).await;
    let operation = done.value.operation.map(|operation| operation.to_string());
    let reply = Reply::accepted(&AdoptAccepted {
        success: true,
        message: "The container will be adopted".to_owned(),
        vmid: adopting.vmid.get(),
        node: adopting.node.to_string(),
        kind: adopting.kind,
        port_detection: if has_port { "manual" } else { "none" }.to_owned(),
        id: done.value.application.to_string(),
        operation: operation.clone(),
    })?
    .at(done.position);
    Ok(located(reply, operation))
}

fn shown(seen: Seen) -> DiscoveredContainer {
    let status = match seen.running {
        Some(true) => "running",
        Some(false) => "stopped",
        None => "unknown",
    };
    DiscoveredContainer {
        vmid: seen.vmid.get(),
        name: seen.name,
        status: status.to_owned(),
        node: seen.node.to_string(),
        memory: seen.memory,
        disk: seen.disk,
        uptime: seen.uptime,
        cpus: seen.cpus,
        host_id: seen.host.0,
    }
}

fn located(reply: Reply, operation: Option<String>) -> Reply {
    match operation {
        Some(operation) => reply.location(format!("/api/operations/{operation}")),
        None => reply,
    }
}
