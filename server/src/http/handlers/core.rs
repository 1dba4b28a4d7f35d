//! What the server says about itself: system information, its interface, its error codes.

use serde::Serialize;
use utoipa::ToSchema;

use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::{codes, openapi as document};

/// What a client needs to know before anybody signs in.
#[derive(Debug, Serialize, ToSchema)]
pub struct SystemInfo {
    /// Of the server.
    pub version: &'static str,
    /// Name of the web client's theme.
    pub default_theme: &'static str,
    /// Whether the web client offers its assistant: never, there is none.
    pub enable_ai_agent: bool,
    /// Whether the web client offers a chat: never, there is none.
    pub enable_community_chat: bool,
    /// More than one Proxmox host can be registered.
    pub enable_multi_host: bool,
}

/// Version and features.
#[utoipa::path(get, path = "/api/core/system/info", tag = "core", responses((status = 200, description = "About this server", body = SystemInfo)))]
pub async fn system_info(_call: Call) -> Result<Reply, Problem> {
    Reply::json(&SystemInfo {
        version: env!("CARGO_PKG_VERSION"),
        default_theme: "rack_proximity",
        enable_ai_agent: false,
        enable_community_chat: false,
        enable_multi_host: true,
    })
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "core", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub async fn openapi(_call: Call) -> Result<Reply, Problem> {
    Ok(Reply::text("application/json", document::json()?).tagged())
}

/// What an error code means and what to do about it.
#[utoipa::path(get, path = "/problems/{code}", tag = "core", params(("code" = String, Path, description = "As in `code` of an error")), responses((status = 200, description = "The page", body = String, content_type = "text/markdown")))]
pub async fn problem_page(call: Call) -> Result<Reply, Problem> {
    let code: String = call.param("code")?;
    let entry = codes::find(&code).ok_or_else(Problem::not_found)?;
    Ok(Reply::text("text/markdown; charset=utf-8", codes::page(entry)))
}
