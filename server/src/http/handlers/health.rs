//! Whether the server lives, is ready, and how it fares.

use actix_web::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// How the server and what it rests on are.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Health {
    /// `healthy` or `degraded`.
    #[schema(example = "healthy")]
    pub status: &'static str,
    /// Always `proximity`.
    pub service: &'static str,
    /// Of the server.
    #[schema(example = "0.1.0")]
    pub version: &'static str,
    /// `connected` or `unavailable`: the event store.
    pub database: &'static str,
    /// `connected` or `unavailable`: the read models.
    pub cache: &'static str,
    /// `sealed` or `failing`: whether what is stored gets sealed, and its heads published.
    pub seals: &'static str,
    /// `held` or `missing`: whether this server has the master key that seals now.
    pub keys: &'static str,
}

impl Health {
    /// Whether requests can be answered.
    fn serves(&self) -> bool {
        self.database == "connected" && self.cache == "connected" && self.keys == "held"
    }
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It lives", body = String)))]
pub async fn alive(_call: Call) -> Result<Reply, Problem> {
    Ok(Reply::text("text/plain; charset=utf-8", "ok\n"))
}

/// The store can be written, the views are near the head, and the master key that seals is held. Whether the log
/// can be sealed is shown, and keeps nobody from working.
#[utoipa::path(get, path = "/readyz", tag = "health", responses((status = 200, description = "Ready", body = Health), (status = 503, description = "Not ready (yet, or any more)", body = Health)))]
pub async fn ready(call: Call) -> Result<Reply, Problem> {
    let health = call.app.health().await;
    let ready = call.app.is_ready() && health.serves();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(Reply::json(&health)?.status(status))
}

/// How the server and its store are.
#[utoipa::path(get, path = "/api/health", tag = "health", responses((status = 200, description = "How it is", body = Health)))]
pub async fn api(call: Call) -> Result<Reply, Problem> {
    Reply::json(&call.app.health().await)
}

/// The same under its other name.
#[utoipa::path(get, path = "/api/core/health", tag = "health", responses((status = 200, description = "How it is", body = Health)))]
pub async fn api_core(call: Call) -> Result<Reply, Problem> {
    api(call).await
}

/// Figures for Prometheus; from this machine, or with the token `server.metrics_token`.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(call: Call) -> Result<Reply, Problem> {
    call.app.allow_metrics(&call)?;
    call.app.metrics.set(call.app.figures());
    let text = call.app.metrics.encode().map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        Problem::internal()
    })?;
    Ok(Reply::text("application/openmetrics-text; version=1.0.0; charset=utf-8", text))
}
