//! Registered Proxmox hosts and their nodes.

use proximity_commands::Secret;
use proximity_commands::hosts::{HostChange, HostInput};
use proximity_commands::policy::Admin;
use proximity_domain::HostId;
use proximity_projections::{Host, Moment, Node};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::unavailable;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// A host to be registered.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateHost {
    /// What a person reads; unique, whatever its case.
    #[schema(example = "home")]
    pub name: String,
    /// Host name or IP address.
    #[schema(example = "192.0.2.10")]
    pub host: String,
    /// Of its API; 8006 by default.
    #[serde(default = "api_port")]
    pub port: i64,
    /// `root@pam` by default.
    #[serde(default = "root")]
    pub user: String,
    /// Either this or a token.
    #[schema(value_type = Option<String>, format = Password)]
    pub password: Option<Secret>,
    /// The token's name; written with its user (`proximity@pve!server`), it says `user` as well.
    pub token_id: Option<String>,
    /// The token's value.
    #[schema(value_type = Option<String>, format = Password)]
    pub token_secret: Option<Secret>,
    /// Whether its certificate has to come from a known authority; else the one seen first is pinned.
    #[serde(default)]
    pub verify_ssl: bool,
    /// SHA-256 of the certificate to pin.
    pub fingerprint: Option<String>,
    /// 22 by default.
    #[serde(default = "ssh_port")]
    pub ssh_port: i64,
    /// Whether deployments go there when no host is named.
    #[serde(default)]
    pub is_default: bool,
}

fn api_port() -> i64 {
    8006
}

fn ssh_port() -> i64 {
    22
}

fn root() -> String {
    proximity_commands::hosts::DEFAULT_USER.to_owned()
}

/// What is to be different; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChangeHost {
    /// What a person reads.
    pub name: Option<String>,
    /// Host name or IP address; asks for the credential again.
    pub host: Option<String>,
    /// Asks for the credential again.
    pub port: Option<i64>,
    /// Asks for the credential again.
    pub user: Option<String>,
    /// Empty keeps the old one.
    #[schema(value_type = Option<String>, format = Password)]
    pub password: Option<Secret>,
    /// The token's name; written with its user, it changes `user` as well.
    pub token_id: Option<String>,
    /// The token's value.
    #[schema(value_type = Option<String>, format = Password)]
    pub token_secret: Option<Secret>,
    /// Whether its certificate has to come from a known authority.
    pub verify_ssl: Option<bool>,
    /// SHA-256 of the certificate to pin; asks for the credential again.
    pub fingerprint: Option<String>,
    /// For later use.
    pub ssh_port: Option<i64>,
    /// Whether deployments may go there.
    pub is_active: Option<bool>,
    /// Whether deployments go there when no host is named.
    pub is_default: Option<bool>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Outcome {
    /// Always true: a failure answers with a problem.
    pub success: bool,
    /// A sentence for a person.
    pub message: String,
}

/// Which nodes are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct NodesWanted {
    /// Only those of this host.
    pub host_id: Option<i64>,
}

async fn row(call: &Call, id: HostId) -> Result<Host, Problem> {
    let found = call.app.views.host(id.0).await.map_err(unavailable)?;
    found.ok_or_else(Problem::not_found)
}

/// With the moment of its last answer, which is recorded only when its nodes have changed.
fn seen(call: &Call, mut host: Host) -> Host {
    let answered = call.app.commands.watch.answered_at(HostId(host.id)).map(Moment);
    host.last_seen = host.last_seen.max(answered);
    host
}

/// Refuses when `If-Match` names another state of the host than the present one.
pub(super) async fn unchanged(call: &Call, id: HostId) -> Result<(), Problem> {
    call.unchanged_since(async || Reply::json(&row(call, id).await?)).await
}

/// All hosts: the default one first, then by name.
#[utoipa::path(get, path = "/api/proxmox/hosts", tag = "proxmox", responses((status = 200, description = "All of them", body = Vec<Host>)))]
pub async fn list(call: Call) -> Result<Reply, Problem> {
    let hosts = call.app.views.hosts().await.map_err(unavailable)?;
    let seen: Vec<Host> = hosts.into_iter().map(|host| seen(&call, host)).collect();
    Reply::json(&seen)
}

/// Connects, and registers the host when it answers.
#[utoipa::path(post, path = "/api/proxmox/hosts", tag = "proxmox", request_body = CreateHost, responses((status = 201, description = "The host", body = Host)))]
pub async fn create(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let body: CreateHost = call.json()?;
    let input = HostInput {
        name: body.name,
        host: body.host,
        port: body.port,
        user: body.user,
        password: body.password,
        token_id: body.token_id,
        token_secret: body.token_secret,
        verify_ssl: body.verify_ssl,
        fingerprint: body.fingerprint,
        ssh_port: body.ssh_port,
        is_default: body.is_default,
    };
    let done = call.app.commands.hosts.create(&admin, input).await;
    let done = done.map_err(|error| Problem::for_admin(&admin, error))?;
    call.app.commands.clusters.forget().await;
    call.app.seen(done.position).await;
    let reply = Reply::created(&row(&call, done.host).await?)?;
    Ok(reply.location(format!("/api/proxmox/hosts/{}", done.host)).at(done.position))
}

/// One host.
#[utoipa::path(get, path = "/api/proxmox/hosts/{id}", tag = "proxmox", params(("id" = i64, Path, description = "The host's id")), responses((status = 200, description = "The host", body = Host)))]
pub async fn get(call: Call) -> Result<Reply, Problem> {
    let host = row(&call, call.param("id")?).await?;
    let state = Reply::json(&host)?;
    Ok(Reply::json(&seen(&call, host))?.tagged_as(&state))
}

/// Changes what is sent.
#[utoipa::path(put, path = "/api/proxmox/hosts/{id}", tag = "proxmox", params(("id" = i64, Path, description = "The host's id")), request_body = ChangeHost, responses((status = 200, description = "The host", body = Host)))]
pub async fn change(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let id: HostId = call.param("id")?;
    let body: ChangeHost = call.json()?;
    unchanged(&call, id).await?;
    let change = HostChange {
        name: body.name,
        host: body.host,
        port: body.port,
        user: body.user,
        password: body.password,
        token_id: body.token_id,
        token_secret: body.token_secret,
        verify_ssl: body.verify_ssl,
        fingerprint: body.fingerprint,
        ssh_port: body.ssh_port,
        is_active: body.is_active,
        is_default: body.is_default,
    };
    let done = call.app.commands.hosts.change(&admin, id, change).await;
    let done = done.map_err(|error| Problem::for_admin(&admin, error))?;
    call.app.commands.clusters.forget().await;
    call.app.seen(done.position).await;
    Ok(Reply::json(&row(&call, id).await?)?.at(done.position))
}

/// Removes a host that has no applications; nothing on it is touched.
#[utoipa::path(delete, path = "/api/proxmox/hosts/{id}", tag = "proxmox", params(("id" = i64, Path, description = "The host's id")), responses((status = 204, description = "It is no longer registered")))]
pub async fn delete(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let id: HostId = call.param("id")?;
    unchanged(&call, id).await?;
    let done = call.app.commands.hosts.delete(&admin, id).await?;
    call.app.commands.clusters.forget().await;
    call.app.seen(done.position).await;
    Ok(Reply::no_content().at(done.position))
}

/// Connects with the stored credential.
#[utoipa::path(post, path = "/api/proxmox/hosts/{id}/test", tag = "proxmox", params(("id" = i64, Path, description = "The host's id")), responses((status = 200, description = "It answers", body = Outcome)))]
pub async fn test(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let id: HostId = call.param("id")?;
    unchanged(&call, id).await?;
    let tested = call.app.commands.hosts.test(&admin, id).await;
    let message = tested.map_err(|error| Problem::for_admin(&admin, error))?;
    Reply::json(&Outcome { success: true, message })
}

/// Reads the host's nodes now.
#[utoipa::path(post, path = "/api/proxmox/hosts/{id}/sync-nodes", tag = "proxmox", params(("id" = i64, Path, description = "The host's id")), responses((status = 200, description = "How many there are", body = Outcome)))]
pub async fn sync_nodes(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let id: HostId = call.param("id")?;
    unchanged(&call, id).await?;
    let synced = call.app.commands.hosts.sync_nodes(&admin, id).await;
    let (count, position) = synced.map_err(|error| Problem::for_admin(&admin, error))?;
    call.app.commands.clusters.forget().await;
    if let Some(position) = position {
        call.app.seen(position).await;
    }
    let message = format!("Synced {count} nodes");
    Ok(Reply::json(&Outcome { success: true, message })?.at(position))
}

/// The nodes; their figures are for administrators.
#[utoipa::path(get, path = "/api/proxmox/nodes", tag = "proxmox", params(NodesWanted), responses((status = 200, description = "All of them, or one host's", body = Vec<Node>)))]
pub async fn nodes(call: Call) -> Result<Reply, Problem> {
    let NodesWanted { host_id } = call.query()?;
    let is_admin = Admin::prove(&call.actor).is_ok();
    let mut nodes = call.app.views.nodes(host_id).await.map_err(unavailable)?;
    for node in &mut nodes {
        if is_admin { live(&call, node) } else { hide(node) }
    }
    Reply::json(&nodes)
}

/// What the last look at the host saw.
fn live(call: &Call, node: &mut Node) {
    let figures = call.app.commands.watch.figures(HostId(node.host_id));
    let Some(seen) = figures.nodes.iter().find(|seen| seen.name.as_str() == node.name) else {
        return;
    };
    node.cpu_usage = seen.cpu;
    node.memory_used = seen.memory_used;
    node.storage_used = seen.disk_used;
    node.uptime = seen.uptime.and_then(|uptime| u64::try_from(uptime).ok());
}

fn hide(node: &mut Node) {
    node.cpu_count = None;
    node.cpu_usage = None;
    node.memory_total = None;
    node.memory_used = None;
    node.storage_total = None;
    node.storage_used = None;
    node.uptime = None;
}
